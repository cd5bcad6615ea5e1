"""The ASM-assisted loss does what the paper prints."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asmkit.nn import ASMAssistedLoss, alpha_at
from asmkit.nn.heads import NetworkOutput
from asmkit.nn.losses import SOFT_WING, WING
from asmkit.nn.recipe import LOSS_FORMS
from asmkit.nn.rotation import rotation_of
from asmkit.nn.wing import soft_wing, wing

ANGLES = torch.zeros(2, 3)


def random_points(seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 5, 2))).float()


def facial(loss: ASMAssistedLoss, p: torch.Tensor, alpha: float) -> torch.Tensor:
    return loss(NetworkOutput(p, ANGLES), random_points(0), random_points(1), ANGLES, alpha).total


def test_alpha_falls_by_thirds_of_the_epochs_not_of_the_steps() -> None:
    """The published code compares the epoch with the number of steps in an epoch."""
    epochs = 150
    alphas = [alpha_at(i / epochs) for i in range(epochs)]
    assert alphas == [2.0] * 50 + [1.0] * 50 + [0.5] * 50
    assert [alpha_at(i / 7) for i in range(7)] == [2, 2, 2, 1, 1, 0.5, 0.5]


def test_alpha_schedules() -> None:
    assert alpha_at(0.95, "to-zero") == 0
    assert {alpha_at(i / 10, "none") for i in range(10)} == {0}
    with pytest.raises(ValueError, match="thirds"):
        alpha_at(0.5, "linear")


def test_terms_are_the_printed_sums() -> None:
    """Unsquared norms, mean over images and points; pose squared, over 3; weights 1 and 0.5."""
    g, a, p = random_points(0), random_points(1), random_points(2)
    angles, target = torch.randn(2, 3), torch.randn(2, 3)
    terms = ASMAssistedLoss()(NetworkOutput(p, angles), g, a, target, 2.0)
    mse = np.linalg.norm((g - p).numpy(), axis=-1).sum() / 10
    asm = np.linalg.norm((a - p).numpy(), axis=-1).sum() / 10
    pose = ((angles - target).numpy() ** 2).sum() / 6
    np.testing.assert_allclose(terms.points, mse, rtol=1e-5)
    np.testing.assert_allclose(terms.asm, asm, rtol=1e-5)
    np.testing.assert_allclose(terms.pose, pose, rtol=1e-5)
    np.testing.assert_allclose(terms.total, mse + 2 * asm + 0.5 * pose, rtol=1e-5)


@pytest.mark.parametrize(("alpha", "minimiser"), [(2.0, 1), (0.5, 0)])
def test_the_printed_form_ends_on_smooth_then_on_real_points(alpha: float, minimiser: int) -> None:
    loss = ASMAssistedLoss()
    best = random_points(minimiser)
    least = facial(loss, best, alpha)
    rng = np.random.default_rng(3)
    for scale in (1e-3, 1e-1, 1.0):
        step = torch.from_numpy(rng.normal(size=(2, 5, 2)) * scale).float()
        assert facial(loss, best + step, alpha) > least


def test_at_alpha_one_every_point_between_is_as_good() -> None:
    loss, g, a = ASMAssistedLoss(), random_points(0), random_points(1)
    values = [facial(loss, g + t * (a - g), 1.0) for t in (0.0, 0.3, 1.0)]
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(values[0], values[2])


def test_the_squared_form_is_one_loss_to_a_blend() -> None:
    loss, g, a, alpha = ASMAssistedLoss("squared"), random_points(0), random_points(1), 2.0
    p = random_points(2).requires_grad_()
    facial(loss, p, alpha).backward()
    blend = (g + alpha * a) / (1 + alpha)
    q = p.detach().clone().requires_grad_()
    ((1 + alpha) * (blend - q).square().sum(-1).mean()).backward()
    torch.testing.assert_close(p.grad, q.grad)


# -- wings


def slope(function, *constants: float, at: float) -> float:  # type: ignore[no-untyped-def]
    x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    function(x, *constants).backward()
    assert x.grad is not None
    return float(x.grad)


def test_wings_are_the_published_functions() -> None:
    """Closed forms by numpy, over and beyond every joint, and of either sign."""
    x = np.linspace(-40, 40, 1601)
    away, (w, e), (first, second, curvature) = np.abs(x), WING, SOFT_WING
    near = w * np.log(1 + away / e)
    expected = np.where(away < w, near, away - (w - w * np.log(1 + w / e)))
    np.testing.assert_allclose(wing(torch.from_numpy(x), *WING), expected, atol=1e-12)
    far = second * np.log(1 + away / curvature)
    far += first - second * np.log(1 + first / curvature)
    expected = np.where(away < first, away, far)
    np.testing.assert_allclose(soft_wing(torch.from_numpy(x), *SOFT_WING), expected, atol=1e-12)


@pytest.mark.parametrize(("function", "constants"), [(wing, WING), (soft_wing, SOFT_WING)])
def test_wings_join_and_scale(function, constants: tuple[float, ...]) -> None:  # type: ignore[no-untyped-def]
    joint = constants[0]
    below, above = (torch.tensor(joint * (1 + s * 1e-12), dtype=torch.float64) for s in (-1, 1))
    assert abs(float(function(above, *constants) - function(below, *constants))) < 1e-9
    assert function(torch.zeros(1), *constants) == 0
    x = torch.linspace(-30, 30, 101, dtype=torch.float64)
    scaled = function(x / 56, *(constant / 56 for constant in constants))
    torch.testing.assert_close(scaled, function(x, *constants) / 56)


def test_slopes_of_wings() -> None:
    assert slope(wing, *WING, at=1e-9) == pytest.approx(WING[0] / WING[1])
    assert slope(wing, *WING, at=-25.0) == -1
    assert slope(soft_wing, *SOFT_WING, at=1e-9) == 1
    assert slope(soft_wing, *SOFT_WING, at=SOFT_WING[0]) == 8
    assert slope(soft_wing, *SOFT_WING, at=20.0) < 1
    assert slope(wing, *WING, at=0.0) == slope(soft_wing, *SOFT_WING, at=0.0) == 0


@pytest.mark.parametrize("form", ["wing", "soft-wing"])
@pytest.mark.parametrize("size", [64, 112])
def test_wings_are_measured_in_pixels_of_the_crop(form: str, size: int) -> None:
    """Both terms, annotated and smoothed, are the mean of pixels' values in half crops."""
    loss, p = ASMAssistedLoss(form, input_size=size), random_points(2)
    function, constants = {"wing": (wing, WING), "soft-wing": (soft_wing, SOFT_WING)}[form]
    terms = loss(NetworkOutput(p, ANGLES), random_points(0), random_points(1), ANGLES, 2.0)
    for term, target in ((terms.points, random_points(0)), (terms.asm, random_points(1))):
        pixels = (p - target) * (size / 2)
        expected = function(pixels, *constants).sum(-1).mean() / (size / 2)
        torch.testing.assert_close(term, expected)
    torch.testing.assert_close(terms.total, terms.points + 2 * terms.asm)


@pytest.mark.parametrize("form", LOSS_FORMS)
def test_a_perfect_prediction_has_a_finite_gradient(form: str) -> None:
    p = random_points(0).requires_grad_()
    terms = ASMAssistedLoss(form)(
        NetworkOutput(p, ANGLES), random_points(0), random_points(0), ANGLES, 1.0
    )
    terms.total.backward()
    assert p.grad is not None
    assert torch.isfinite(p.grad).all()


def test_faces_without_a_pose_label_do_not_count() -> None:
    p, angles = random_points(0), torch.randn(2, 3).requires_grad_()
    target = torch.tensor([[0.1, 0.2, 0.3], [float("nan")] * 3])
    terms = ASMAssistedLoss()(NetworkOutput(p, angles), p, p, target, 1.0)
    torch.testing.assert_close(terms.pose, (angles[0] - target[0]).square().mean())
    terms.pose.backward()
    assert angles.grad is not None
    assert (angles.grad[1] == 0).all()
    nothing = ASMAssistedLoss()(
        NetworkOutput(p, angles), p, p, torch.full((2, 3), float("nan")), 1.0
    )
    assert nothing.pose == 0


def random_output(seed: int, n: int, rotation: bool) -> NetworkOutput:
    """A prediction whose every part takes a gradient."""
    generator = torch.Generator().manual_seed(seed)
    angles = torch.randn(n, 3, generator=generator)
    parts = (torch.randn(n, 5, 2, generator=generator), angles, torch.randn(n, generator=generator))
    turned = rotation_of(angles).requires_grad_() if rotation else None
    return NetworkOutput(*(part.requires_grad_() for part in parts), turned)


@pytest.mark.parametrize("form", LOSS_FORMS)
@pytest.mark.parametrize("rotation", [False, True], ids=["angles", "rotation"])
def test_what_has_no_label_counts_in_no_term(form: str, rotation: bool) -> None:
    """The terms of a batch are those of its labelled samples; the others get no gradient."""
    loss = ASMAssistedLoss(form)
    output = random_output(0, 5, rotation)
    points, angles = (part.detach().clone() for part in random_output(1, 5, False)[:2])
    smoothed, face = points + 0.1, torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0])
    targets = {"points": points, "asm": smoothed, "pose": angles, "face": face}
    without = {"points": [3], "asm": [3, 4], "pose": [0, 3], "face": [1]}
    for name, rows in without.items():
        targets[name][rows] = torch.nan
    terms = loss(output, points, smoothed, angles, 0.7, face)
    terms.total.backward()
    assert all(term.isfinite() for term in terms)
    for name, rows in without.items():
        known = [i for i in range(5) if i not in rows]
        part = NetworkOutput(*(None if p is None else p[known] for p in output))  # type: ignore[arg-type]
        expected = loss(part, points[known], smoothed[known], angles[known], 0.7, face[known])
        torch.testing.assert_close(getattr(terms, name), getattr(expected, name))
    assert output.points.grad is not None
    assert output.face is not None
    assert output.face.grad is not None
    judged = output.angles if output.rotation is None else output.rotation
    assert judged.grad is not None
    for gradient, rows in ((output.points.grad, [3]), (judged.grad, [0, 3])):
        assert gradient.isfinite().all()
        assert (gradient[rows] == 0).all()
        assert (gradient.flatten(1).abs().sum(1) > 0).sum() == 5 - len(rows)
    assert (output.face.grad != 0).tolist() == [True, False, True, True, True]


def test_a_batch_without_any_label_costs_nothing() -> None:
    output = random_output(0, 3, True)
    nothing = torch.full((3, 5, 2), torch.nan)
    face = torch.full((3,), torch.nan)
    angles = nothing[:, 0, [0, 0, 0]]
    loss = ASMAssistedLoss(teacher_weight=1.0)
    terms = loss(output, nothing, nothing, angles, 1.0, face, nothing)
    assert [float(term.detach()) for term in terms] == pytest.approx([0] * 6, abs=1e-9)
    terms.total.backward()
    for part in (output.points, output.face, output.rotation):
        assert part is not None
        assert part.grad is not None
        assert (part.grad == 0).all()


def test_the_face_term_is_the_cross_entropy_with_its_weight() -> None:
    logits = torch.tensor([2.0, -1.0, 0.5])
    face = torch.tensor([1.0, 0.0, 0.0])
    output = random_output(0, 3, False)._replace(face=logits)
    points, angles = random_points(0)[[0, 1, 0]], torch.zeros(3, 3)
    given = (output, points, points, angles, 1.0)
    plain, with_face = ASMAssistedLoss()(*given), ASMAssistedLoss(face_weight=3.0)(*given, face)
    p = 1 / (1 + np.exp(-logits.numpy()))
    expected = -np.log([p[0], 1 - p[1], 1 - p[2]]).mean()
    np.testing.assert_allclose(with_face.face, expected, rtol=1e-6)
    torch.testing.assert_close(with_face.total, plain.total + 3.0 * with_face.face)
    assert plain.face == 0
    # A network without a tracking head is not asked.
    assert ASMAssistedLoss()(output._replace(face=None), *given[1:], face).face == 0


def test_unknown_form() -> None:
    with pytest.raises(
        ValueError, match="'cubed', expected one of printed, squared, wing, soft-wing"
    ):
        ASMAssistedLoss("cubed")
