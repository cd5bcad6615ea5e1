"""Rotations in torch are those of asmkit.pose, and the 6-D form is a rotation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from asmkit.nn import ASMAssistedLoss
from asmkit.nn.heads import NetworkOutput
from asmkit.nn.rotation import angles_of, rotation_from_6d, rotation_of
from asmkit.pose import euler_to_rotation, rotation_to_euler


@pytest.fixture
def degrees(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Yaw up to the last degree before the pole, pitch and roll all around."""
    return rng.uniform([-89.0, -179.0, -179.0], [89.0, 179.0, 179.0], (200, 3))


def radians(degrees: npt.NDArray[np.float64], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.from_numpy(np.deg2rad(degrees)).to(dtype)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_rotations_of_angles_are_those_of_the_pose_module(
    degrees: npt.NDArray[np.float64], dtype: torch.dtype, atol: float
) -> None:
    matrices = rotation_of(radians(degrees, dtype))
    assert matrices.dtype == dtype
    np.testing.assert_allclose(matrices, euler_to_rotation(degrees), atol=atol)


def test_angles_of_rotations_are_those_of_the_pose_module(
    degrees: npt.NDArray[np.float64],
) -> None:
    matrices = euler_to_rotation(degrees)
    angles = torch.rad2deg(angles_of(torch.from_numpy(matrices)))
    np.testing.assert_allclose(angles, rotation_to_euler(matrices), atol=1e-6)


def test_angles_and_rotation_are_inverse(degrees: npt.NDArray[np.float64]) -> None:
    angles = radians(degrees)
    torch.testing.assert_close(angles_of(rotation_of(angles)), angles, atol=1e-6, rtol=0)


def test_six_numbers_give_a_rotation() -> None:
    numbers = torch.randn(100, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrices = rotation_from_6d(numbers)
    eye = torch.eye(3, dtype=torch.float64).expand(100, 3, 3)
    torch.testing.assert_close(matrices @ matrices.mT, eye, atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(100, dtype=torch.float64))


def test_the_first_two_rows_however_long_or_slanted_give_the_rotation(
    degrees: npt.NDArray[np.float64], rng: np.random.Generator
) -> None:
    matrices = euler_to_rotation(degrees)
    length = rng.uniform(0.1, 10.0, (2, 200, 1))
    first = length[0] * matrices[:, 0]
    second = length[1] * matrices[:, 1] + rng.normal(size=(200, 1)) * matrices[:, 0]
    numbers = torch.from_numpy(np.concatenate([first, second], axis=1))
    np.testing.assert_allclose(rotation_from_6d(numbers), matrices, atol=1e-6)


@pytest.mark.parametrize("numbers", [[0.0] * 6, [1.0, 2.0, 3.0, 2.0, 4.0, 6.0]])
def test_six_numbers_of_no_rotation_stay_finite(numbers: list[float]) -> None:
    given = torch.tensor([numbers], requires_grad=True)
    matrix = rotation_from_6d(given)
    matrix.square().sum().backward()
    assert matrix.isfinite().all()
    assert given.grad is not None
    assert given.grad.isfinite().all()


def pose_loss(angles: torch.Tensor, target: torch.Tensor, as_rotation: bool) -> torch.Tensor:
    nothing = torch.full((len(angles), 1, 2), torch.nan, dtype=angles.dtype)
    rotation = rotation_of(angles) if as_rotation else None
    output = NetworkOutput(torch.zeros_like(nothing), angles, None, rotation)
    return ASMAssistedLoss()(output, nothing, nothing, target, 0.0).pose


def test_the_loss_of_rotations_is_that_of_angles_for_small_ones() -> None:
    """Their ratio goes to 1 with the size of the angles."""
    generator = torch.Generator().manual_seed(1)
    angles = torch.randn(400, 3, dtype=torch.float64, generator=generator)
    target = torch.randn(400, 3, dtype=torch.float64, generator=generator)
    for size in (1e-1, 1e-2, 1e-3):
        given = size * angles, size * target
        ratio = pose_loss(*given, as_rotation=True) / pose_loss(*given, as_rotation=False)
        assert abs(ratio - 1) < 0.3 * size


def test_the_loss_of_rotations_does_not_see_a_common_turn(
    degrees: npt.NDArray[np.float64],
) -> None:
    """Unlike angles, whose error grows by how the head stands."""
    first, second = rotation_of(radians(degrees)), rotation_of(radians(degrees[::-1].copy()))
    turn = rotation_of(torch.tensor([[0.6, -0.4, 0.9]], dtype=torch.float64))
    before = pose_loss(angles_of(first), angles_of(second), as_rotation=True)
    after = pose_loss(angles_of(turn @ first), angles_of(turn @ second), as_rotation=True)
    torch.testing.assert_close(before, after)
