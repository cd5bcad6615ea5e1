"""ATPN costs what it says, and each of its choices is a whole network."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from network_probes import lived_in, multiply_adds, trainable
from torch import nn

from asmkit.nn import ATPN, ASMAssistedLoss, Recipe, export_onnx
from asmkit.nn.export import Deployed
from asmkit.nn.heads import NetworkOutput
from asmkit.nn.integral import IntegralMaps
from asmkit.nn.networks import build_network, network_options
from asmkit.nn.recipe import ATPN_CHOICES as CHOICES
from asmkit.schemes import scheme

SIZE = 48


def contours(name: str) -> Any:
    return network_options(Recipe(arch="atpn"), scheme(name))["contours"]


#: Every value of every choice, one by one and in company.
VARIANTS: dict[str, dict[str, str]] = {
    "default": {},
    **{
        f"{name} {value}": {name: value} for name, values in CHOICES.items() for value in values[1:]
    },
    "all last": {name: values[-1] for name, values in CHOICES.items()},
    "all second": {name: values[1] for name, values in CHOICES.items()},
}


def small(n_points: int = 68, **options: Any) -> ATPN:
    """A network at half the width for crops of 48 pixels, the same in every call."""
    torch.manual_seed(0)
    if n_points == 68:
        options = {"contours": contours("ibug68"), **options}
    return ATPN(n_points, **{"width": 0.5, "input_size": SIZE, **options})


def crops(n: int, seed: int = 0, size: int = SIZE) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


# -- what it costs


def test_costs_are_the_stated_ones() -> None:
    """What the docstring says, counted."""
    stated = re.search(
        r"widths (.+): (.+) M parameters, (.+) M multiply-adds", " ".join(ATPN.__doc__.split())
    )
    assert stated
    widths, parameters, costs = (re.findall(r"[\d.]+", part) for part in stated.groups())
    for width, parameter, cost in zip(widths, parameters, costs, strict=True):
        network = ATPN(68, width=float(width), contours=contours("ibug68"))
        assert f"{trainable(network) / 1e6:.2f}" == parameter
        assert f"{multiply_adds(network, 112) / 1e6:.0f}" == cost
    assert widths == ["0.5", "0.75", "1"]


def test_costs_keep_the_limits() -> None:
    """A small network, and pose and tracking nearly free in it."""
    network = ATPN(68, contours=contours("ibug68"))
    parameters, cost = trainable(network), multiply_adds(network, 112)
    assert parameters <= 800_000
    assert cost <= 80_000_000
    network.tasks = None
    network.judge = lambda points, _: NetworkOutput(points, points[:, 0])  # type: ignore[method-assign]
    assert parameters - trainable(network) < 0.15 * parameters
    assert cost - multiply_adds(network, 112) < 0.1 * cost


# -- every choice


def test_the_recipe_has_the_defaults_of_the_network() -> None:
    own = ATPN.__init__.__kwdefaults__
    assert own is not None
    fields = {field.name: field.default for field in dataclasses.fields(Recipe)}
    fields["head"] = network_options(Recipe(arch="atpn"), None)["head"]  # of its own for each
    for name, values in CHOICES.items():
        assert fields[name] == own[name] == values[0]


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_every_choice_learns_with_all_its_parameters(options: dict[str, str]) -> None:
    network = small(**options).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    target = torch.rand(4, 68, 2, generator=torch.Generator().manual_seed(1)) - 0.5
    output = network(crops(4))
    assert (output.rotation is not None) == (options.get("pose_form") == "6d")
    face = torch.tensor([1.0, 0.0, 1.0, 0.0])
    angles = torch.full((4, 3), 0.3)
    loss = ASMAssistedLoss()
    terms = loss(output, target, target, angles, 1.0, face)
    terms.total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert (network.landmark_head.weight.grad != 0).all()  # type: ignore[operator]
    optimizer.step()
    after = loss(network(crops(4)), target, target, angles, 1.0, face)
    assert after.points < terms.points
    assert after.pose < terms.pose
    assert after.face < terms.face


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_a_batch_is_single(options: dict[str, str]) -> None:
    network = lived_in(small(**options))
    images = crops(3)
    with torch.inference_mode():
        together = network(images)
        alone = [network(images[i : i + 1]) for i in range(3)]
    for part, *parts in zip(together, *alone, strict=True):
        if part is not None:
            torch.testing.assert_close(part, torch.cat(parts), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("n_points", "named"), [(98, "wflw98"), (19, None), (5, None), (1, None)])
def test_any_number_of_points_has_a_network(n_points: int, named: str | None) -> None:
    lines = contours(named) if named else ()
    network = small(n_points, contours=lines).eval()
    assert not named or network.tasks.draw.lines  # type: ignore[union-attr]
    output = network(crops(2))
    assert output.points.shape == (2, n_points, 2)
    assert output.angles.shape == (2, 3)
    assert output.face is not None
    assert output.face.shape == (2,)


def test_closed_contours_come_back_to_their_start() -> None:
    lines = scheme("ibug68").contours
    for line, given in zip(lines, contours("ibug68"), strict=True):
        assert tuple(given[: len(line.indices)]) == line.indices
        assert (len(given) > 2 and given[0] == given[-1]) == line.closed


@pytest.mark.parametrize("name", CHOICES)
def test_a_wrong_choice_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: got 'best', expected one of {CHOICES[name][0]}"):
        small(**{name: "best"})


@pytest.mark.parametrize("size", [100, 32, 0])
def test_a_size_that_does_not_fit_is_named(size: int) -> None:
    with pytest.raises(ValueError, match=f"got {size}, expected a multiple of 16, at least 48"):
        small(input_size=size)


def test_an_option_of_atpn_is_not_one_of_asmnet() -> None:
    with pytest.raises(ValueError, match="fusion is an option of atpn, not of asmnet"):
        network_options(Recipe(fusion="gate"), None)
    assert network_options(Recipe(input_size=64), None).keys() == {"width", "dropout", "head"}
    with pytest.raises(ValueError, match="landmark 68, expected 0 to 67"):
        build_network("atpn", 68, contours=contours("wflw98"))


# -- how its parts depend on each other


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_pose_and_face_move_no_landmark(options: dict[str, str]) -> None:
    """Their loss reaches the features, but not the landmarks that the heatmap is drawn from."""
    network = small(**options).eval()
    points, middle = network.align(crops(2))
    points.retain_grad()
    output = network.judge(points, middle)
    assert output.face is not None
    (output.angles.square().sum() + output.face.sum()).backward()  # type: ignore[no-untyped-call]
    assert points.grad is None
    assert network.landmark_head.weight.grad is None
    assert all(p.grad is None for part in (network.deep, network.join) for p in part.parameters())
    assert all(p.grad is not None for p in network.middle.parameters())
    torch.testing.assert_close(output.points, points, atol=0, rtol=0)


@pytest.mark.parametrize("heatmap", CHOICES["heatmap"])
@pytest.mark.parametrize("fusion", CHOICES["fusion"])
@pytest.mark.parametrize("coordinates", CHOICES["coordinates"])
def test_pose_and_face_see_the_landmarks_by_the_heatmap_or_their_coordinates(
    heatmap: str, fusion: str, coordinates: str
) -> None:
    network = lived_in(small(heatmap=heatmap, fusion=fusion, coordinates=coordinates))
    points, middle = network.align(crops(1))
    face = network.judge(points, middle).face
    moved = network.judge(points + 0.5, middle).face
    assert face is not None
    assert moved is not None
    assert (face != moved).item() == ((heatmap, coordinates) != ("none", "none"))


def test_the_landmarks_do_not_depend_on_how_pose_and_face_are_judged() -> None:
    network = lived_in(small())
    expected = network(crops(2)).points
    for options in (
        {"heatmap": "none", "coordinates": "none"},
        {"fusion": "gate", "pose_form": "6d"},
    ):
        other = small(**options)
        state = {k: v for k, v in network.state_dict().items() if not k.startswith("tasks.")}
        missing = other.load_state_dict(state, strict=False).missing_keys
        assert all(name.startswith("tasks.") for name in missing)
        assert (other.eval()(crops(2)).points == expected).all()


def test_an_untrained_network_answers_near_the_mean_shape_turned_by_nothing() -> None:
    for pose_form in CHOICES["pose_form"]:
        network = small(5, pose_form=pose_form).train()  # a new one has no statistics yet
        mean = torch.linspace(-0.8, 0.8, 10).reshape(5, 2)
        network.start_from(mean)
        output = network(crops(4))
        torch.testing.assert_close(output.points, mean.expand(4, 5, 2), atol=0.1, rtol=0)
        assert output.angles.abs().max() < 0.05


def test_the_rotation_is_one_and_has_the_angles() -> None:
    output = lived_in(small(pose_form="6d"))(crops(3))
    assert output.rotation is not None
    eye = torch.eye(3).expand(3, 3, 3)
    torch.testing.assert_close(output.rotation @ output.rotation.mT, eye, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.rotation[:, 0, 2], -output.angles[:, 0].sin())


class _Given(nn.Module):
    """Answers what it was given."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.answer


def test_a_map_answers_the_centre_of_its_mass() -> None:
    """Of one hot cell, its centre; of two, the middle; of a flat map, the middle of the crop."""
    maps = IntegralMaps(8, 8, 3).eval()
    logits = torch.zeros(1, 3, 6, 6)
    logits[0, 0, 4, 1] = 100
    logits[0, 1, 0, 0] = logits[0, 1, 5, 0] = 100
    maps.maps = _Given(logits)  # type: ignore[assignment]
    answer = maps(torch.zeros(1, 8, 6, 6), torch.zeros(1, 8, 3, 3))
    expected = [[[-0.5, 0.5], [-5 / 6, 0.0], [0.0, 0.0]]]
    np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_under_autocast_the_answers_are_float32_and_near() -> None:
    network = lived_in(small())
    with torch.inference_mode():
        expected = network(crops(2))
        with torch.autocast("cpu", torch.bfloat16):
            output = network(crops(2))
    for name in ("points", "angles", "face"):
        given = getattr(output, name)
        assert given.dtype == torch.float32
        torch.testing.assert_close(given, getattr(expected, name), atol=0.1, rtol=0.05)


# -- exported


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {
            **{"shortcut": "add", "head": "regression", "heatmap": "points"},
            **{"falloff": "gaussian", "fusion": "gate", "pose_form": "6d"},
        },
        {"shortcut": "none", "heatmap": "none", "coordinates": "none"},
    ],
    ids=["other", "without"],
)
def test_onnx_equals_eager(options: dict[str, str], tmp_path: Path) -> None:
    """Every value of every choice but the defaults, which the shipped networks have."""
    onnxruntime = pytest.importorskip("onnxruntime")
    network = lived_in(small(**options))
    path = tmp_path / "network.onnx"
    export_onnx(network, SIZE, path, {})
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    for n in (1, 3):
        images = rng.integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)
        points, pose, face = session.run(["points", "pose", "face"], {"images": images})
        with torch.inference_mode():
            expected = Deployed(network, SIZE)(torch.from_numpy(images))
        np.testing.assert_allclose(points, expected[0].numpy(), atol=1e-4 * SIZE / 2)
        np.testing.assert_allclose(pose, expected[1].numpy(), atol=np.rad2deg(1e-4))
        np.testing.assert_allclose(face, expected[2].numpy(), atol=1e-4)
        assert ((face >= 0) & (face <= 1)).all()
