"""Stated scales: their densities, how they are learned, calibrated and carried to the user."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tiny_training
import torch
from click.testing import CliRunner

import asmkit
from asmkit.boxes import landmark_box
from asmkit.cli import main
from asmkit.confidence import (
    LIKELIHOODS,
    calibration_factors,
    probability_within,
    reliability,
)
from asmkit.datasets import SyntheticFaces, synthetic_faces
from asmkit.nn import build_network, load_network, resume, train, training
from asmkit.nn.augment import cover
from asmkit.nn.checkpoint import read_tensors
from asmkit.nn.data import LandmarkDataset
from asmkit.nn.heads import to_crop
from asmkit.nn.losses import scale_loss, visibility_loss
from asmkit.nn.preparation import check_network
from asmkit.nn.validation import outputs_of
from asmkit.plotting import draw_landmarks, plot_reliability
from asmkit.predictor import Prediction, Predictor

Doubles = npt.NDArray[np.float64]
both = pytest.mark.parametrize("likelihood", LIKELIHOODS)

TINY = replace(
    tiny_training.TINY, dropout=0.2, epochs=2, warmup_steps=2, validation=0.3, precision="float32"
)
SURE = {"confidence": "laplace", "confidence_epochs": 2}


def drawn(rng: np.random.Generator, likelihood: str, mean: npt.ArrayLike, n: int) -> Doubles:
    """Distances with a density of :mod:`asmkit.confidence`, by numpy's own distributions."""
    size = (n, *np.shape(mean))
    if likelihood == "gaussian":
        return np.asarray(rng.rayleigh(np.sqrt(2 / np.pi) * np.asarray(mean), size))
    return np.asarray(rng.gamma(2.0, np.asarray(mean) / 2, size))


# -- densities


@both
@pytest.mark.parametrize("scale", [0.03, 2.0])
def test_what_is_learned_is_the_density_whose_mean_distance_is_the_scale(
    likelihood: str, scale: float
) -> None:
    radius = np.linspace(0, 30 * scale, 60_001)
    points = torch.from_numpy(np.stack([radius, 0 * radius], 1))[:, None]
    log_scale = torch.tensor([[np.log(scale)]])
    losses = [scale_loss(p[None], log_scale, 0 * p[None], likelihood) for p in points[::20]]
    radius = radius[::20]
    density = np.exp(-torch.stack(losses).numpy()) * 2 * np.pi * radius
    steps = np.diff(radius) * (density[1:] + density[:-1]) / 2
    assert steps.sum() == pytest.approx(1, abs=1e-4)
    assert np.trapezoid(density * radius, radius) == pytest.approx(scale, rel=1e-4)
    within = probability_within(radius[1:], scale, likelihood)
    np.testing.assert_allclose(within, np.cumsum(steps), atol=1e-4)


@both
def test_the_least_loss_is_at_the_true_scale(likelihood: str, rng: np.random.Generator) -> None:
    away = torch.from_numpy(drawn(rng, likelihood, 0.4, 40_000))
    points = torch.stack([away, 0 * away], -1)[:, None]
    log_scale = torch.tensor(np.log(0.4), requires_grad=True)
    stated = log_scale.expand(len(away), 1)
    (slope,) = torch.autograd.grad(
        scale_loss(points, stated, torch.zeros_like(points), likelihood), log_scale
    )
    assert abs(float(slope)) < 0.03  # 2 or more where the scale is wrong by the factor e
    truth = torch.zeros_like(points)
    truth[::2] = torch.nan  # unlabelled: as if it were not there
    half = scale_loss(points, stated, truth, likelihood)
    whole = scale_loss(points[1::2], stated[1::2], truth[1::2], likelihood)
    torch.testing.assert_close(half, whole)


def test_a_wrong_density_or_distance_is_named() -> None:
    with pytest.raises(ValueError, match="likelihood: got 'cauchy'"):
        probability_within(1.0, 1.0, "cauchy")
    with pytest.raises(ValueError, match=r"distance: got -1\.0"):
        probability_within(-1.0, 1.0)
    with pytest.raises(ValueError, match="confidence: got 'cauchy'"):
        build_network("asmnet", 5, width=0.35, confidence="cauchy")


# -- calibration


@both
def test_calibration_makes_stated_probabilities_hold(
    likelihood: str, rng: np.random.Generator
) -> None:
    true = np.exp(rng.normal(0, 0.5, (4000, 5)))
    errors = drawn(rng, likelihood, true, 1)[0]
    factors = np.array([3.0, 0.5, 1.0, 2.0, 0.2])
    stated = true / factors
    found = calibration_factors(errors, stated, likelihood)
    np.testing.assert_allclose(found, factors, rtol=0.05)
    right = errors <= 1.0
    before = asmkit.calibration_error(probability_within(1.0, stated, likelihood), right)
    after = asmkit.calibration_error(probability_within(1.0, stated * found, likelihood), right)
    assert before > 0.15
    assert after < 0.015


def test_few_faces_share_one_factor(rng: np.random.Generator) -> None:
    errors = drawn(rng, "laplace", np.full(68, 2.0), 4)
    found = calibration_factors(errors, np.ones_like(errors))
    np.testing.assert_allclose(found, errors.mean())
    np.testing.assert_allclose(calibration_factors(errors[:1], errors[:1]), 1)
    for wrong in (errors[:0], errors[0], 0 * errors, errors * np.nan):
        with pytest.raises(ValueError, match="errors, scale"):
            calibration_factors(wrong, np.ones_like(wrong))


def test_the_calibration_error_is_what_a_hand_computes() -> None:
    stated, right = np.repeat([0.1, 0.3, 0.8], 10), np.zeros(30, bool)
    right[[0, 10, 11, 12, *range(20, 28)]] = True
    assert asmkit.calibration_error(stated, right) == pytest.approx(0)
    # Bins [0, .5) and [.5, 1]: 0.3 + 0.4 stated of 2, 1 right; 3 times 0.9 stated, 1 right.
    stated, right = np.array([0.3, 0.4, 0.9, 0.9, 0.9]), np.array([1, 0, 0, 1, 0], bool)
    expected = (2 * abs(0.5 - 0.35) + 3 * abs(1 / 3 - 0.9)) / 5
    assert asmkit.calibration_error(stated, right, bins=2) == pytest.approx(expected)
    with_nan = np.append(stated, np.nan).reshape(2, 3)
    again = asmkit.calibration_error(with_nan, np.append(right, True).reshape(2, 3), bins=2)
    assert again == pytest.approx(expected)
    assert asmkit.calibration_error([1.0, 1.0], [False, False]) == 1


@pytest.mark.parametrize(
    ("confidence", "bins", "message"),
    [
        ([0.5], 10, "shapes"),
        ([0.5, 1.5], 10, "1.5"),
        ([0.5, 0.5], 0, "bins"),
        ([np.nan] * 2, 3, "no number"),
    ],
)
def test_what_is_no_probability_is_refused(
    confidence: list[float], bins: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        asmkit.calibration_error(confidence, [True, False], bins)


def test_a_reliability_plot_has_a_point_a_bin(rng: np.random.Generator) -> None:
    stated = rng.uniform(0, 0.5, 300)
    right = rng.random(300) < stated
    axis = plot_reliability({"a": (stated, right)}).axes[0]
    found = reliability(stated, right)
    expected = np.stack([found.stated, found.observed], 1)[:5]
    np.testing.assert_array_equal(axis.lines[1].get_xydata(), expected)
    assert found.number[5:].sum() == 0


# -- networks


SEEN = torch.tensor([[1.0, 0, 1, torch.nan, 0, 1, 1]]).repeat(3, 1)
NETWORKS = {"asmnet": {}, "mobilenetv2": {}, "atpn": {"input_size": 48}}


@pytest.mark.parametrize("arch", NETWORKS)
def test_the_head_changes_nothing_else(arch: str) -> None:
    """Same seed, same numbers; and the loss of the scales reaches nothing but the head."""
    made = []
    for heads in ({}, {"confidence": "laplace", "visibility": True}):
        torch.manual_seed(3)
        network = build_network(arch, 7, width=0.5, **heads, **NETWORKS[arch])
        made.append((network.eval(), torch.get_rng_state()))
    (plain, state), (sure, state_too) = made
    assert torch.equal(state, state_too)
    weights = sure.state_dict()
    assert all(torch.equal(t, weights[name]) for name, t in plain.state_dict().items())
    images = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    output = sure(images)
    assert torch.equal(output.points, plain(images).points)
    assert torch.equal(output.angles, plain(images).angles)
    assert plain(images).log_scale is None
    assert plain(images).visible is None
    output.points.retain_grad()
    scales = scale_loss(output.points, output.log_scale, output.points.detach() + 0.3, "laplace")
    for loss, head in ((scales, "confidence."), (visibility_loss(output.visible, SEEN), "visib")):
        sure.zero_grad()
        loss.backward()
        assert output.points.grad is None
        for name, parameter in sure.named_parameters():
            assert (parameter.grad is not None) == name.startswith(head), name


@pytest.fixture(scope="module")
def faces() -> SyntheticFaces:
    return synthetic_faces(40, 3, size=64)


@pytest.fixture(scope="module")
def folder(faces: SyntheticFaces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces")
    faces.save(path)
    return path


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    return train(folder, out, replace(TINY, **SURE), threads=1, progress=False)


@pytest.mark.usefixtures("no_onnx")
def test_a_training_with_scales_finds_the_same_landmarks_bit_for_bit(
    run: Path, folder: Path, tmp_path: Path
) -> None:
    plain = train(folder, tmp_path / "plain", TINY, threads=1, progress=False)
    expected, _ = read_tensors(plain / "model.safetensors")
    found, _ = read_tensors(run / "model.safetensors")
    assert all(torch.equal(t, found[name]) for name, t in expected.items())
    # Learned later, on the finished network, nothing else moves either.
    later = replace(TINY, epochs=0, **SURE)
    out = train(folder, tmp_path / "later", later, threads=1, start=plain, progress=False)
    found, _ = read_tensors(out / "model.safetensors")
    assert all(torch.equal(t, found[name]) for name, t in expected.items())


def test_what_lies_over_a_face_is_another_image_and_leaves_the_landmarks(folder: Path) -> None:
    recipe = replace(TINY, occlusion=0.0)
    dataset = LandmarkDataset(asmkit.read(folder), recipe, asmkit.scheme("ibug68"))
    covered = 0
    for index in range(8):
        plain, under = (
            dataset.sample(index, np.random.default_rng(index), covers) for covers in (0.0, 1.0)
        )
        np.testing.assert_array_equal(under.points, plain.points)
        shares = (under.images != plain.images).any(-1).mean()
        assert shares < 0.3
        covered += shares > 0
    assert covered >= 6  # it may lie beside the crop, or be as dark
    black, white = np.zeros((20, 20, 3), np.uint8), np.full((20, 20, 3), 255, np.uint8)
    pixels, covered = cover(black, white, np.random.default_rng(0))
    np.testing.assert_array_equal(pixels == 255, np.repeat(covered[..., None], 3, axis=2))
    assert 0 < covered.mean() < 1


class _StoppedError(Exception):
    pass


@pytest.mark.usefixtures("no_onnx")
def test_a_training_stopped_in_its_last_stage_resumes_to_the_same_scales(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_epoch = training.train_epoch

    def stopping(state, *args):  # type: ignore[no-untyped-def]
        if state.epoch == 3:
            raise _StoppedError
        return one_epoch(state, *args)

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_epoch", stopping)
        with pytest.raises(_StoppedError):
            train(folder, out, replace(TINY, **SURE), threads=1, progress=False)
    resume(out, progress=False)
    names = ("model.safetensors", "recipe.toml")
    assert all((out / name).read_bytes() == (run / name).read_bytes() for name in names)


def test_the_scales_are_right_on_the_faces_held_out(
    run: Path, folder: Path, faces: SyntheticFaces
) -> None:
    network, description = load_network(run)
    names = [annotation.name for annotation in asmkit.read(folder)]
    held_out = asmkit.splits.validation_part(names, TINY.validation)
    calibration = description["trained"]["calibration"]
    assert calibration["faces"] == held_out.sum() > 3
    truth, size = faces.points[held_out], TINY.input_size
    matrices = asmkit.boxes.crop_transform(landmark_box(truth), size, TINY.margin)
    crops = [
        asmkit.images.crop(faces.images[i], m, size)[None]
        for i, m in zip(np.nonzero(held_out)[0], matrices, strict=True)
    ]
    with torch.inference_mode():
        outputs = outputs_of(network, crops)
    assert outputs.log_scale is not None
    placed = asmkit.boxes.apply_affine(matrices, truth)
    away = np.linalg.norm(to_crop(outputs.points, size).numpy() - placed, axis=2)
    ratio = away / (outputs.log_scale.exp().numpy() * size / 2)
    assert ratio.mean() == pytest.approx(1, abs=1e-3)


def test_engines_and_batches_state_the_same(run: Path, faces: SyntheticFaces) -> None:
    boxes = landmark_box(faces.points)[:4]
    runs = [asmkit.load(run, engine=e, threads=1) for e in ("onnxruntime", "torch")]
    first, second = (predictor.predict(faces.images[0], boxes) for predictor in runs)
    np.testing.assert_allclose(first.scale, second.scale, rtol=1e-4)
    np.testing.assert_allclose(first.confidence, second.confidence, atol=1e-4)
    np.testing.assert_allclose(first.visibility, second.visibility, atol=1e-4)
    alone = [runs[1].predict(faces.images[0], box[None]).scale for box in boxes]
    np.testing.assert_allclose(second.scale, np.concatenate(alone), rtol=1e-4)
    assert ((first.confidence > 0) & (first.confidence < 1)).all()
    none = runs[0].predict(faces.images[0], np.empty((0, 4)))
    assert none.confidence.shape == none.scale.shape == none.visibility.shape == (0, 68)


def test_an_evaluation_and_the_command_line_tell(run: Path, folder: Path) -> None:
    evaluation = asmkit.evaluate(asmkit.load(run), asmkit.read(folder))
    assert evaluation.confidence.shape == (40, 68)
    assert 0 <= evaluation.summary["calibration_error"] <= 100
    arguments = ["predict", "--network", str(run), str(folder / "face_00000.png"), "--json"]
    result = CliRunner().invoke(main, [*arguments, "--box", "10,10,40,40"])
    (face,) = json.loads(result.stdout)["faces"]
    near = probability_within(0.05 * 40, face["scale"], "laplace")
    np.testing.assert_allclose(face["confidence"], near * face["visibility"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"confidence": "laplace"}, "confidence_epochs is 0"),
        ({"confidence_epochs": 3}, "confidence is 'none'"),
        ({"arch": "atpn", "input_size": 48, **SURE}, "head_epochs is 0"),
        ({"epochs": 0}, "epochs is 0; asmnet expects at least 1"),
        ({"occlusion": 0.0, **SURE}, "occlusion is 0"),
    ],
)
def test_a_recipe_that_trains_no_scales_or_nothing_is_refused(
    folder: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_network(replace(TINY, **changes), asmkit.read(folder), None)  # type: ignore[arg-type]


# -- predictions


def stand_in(likelihood: str, scale: float) -> Predictor:
    """A network of three points that states one scale, in pixels of its crop of 100."""

    def run(crops: npt.NDArray[np.uint8]) -> list[Doubles]:
        n = len(crops)
        return [np.full((n, 3, 2), 50.0), np.zeros((n, 3)), np.full((n, 3), scale)]

    options = {"confidence": likelihood}
    description = {"n_points": 3, "input_size": 100, "margin": 1.25, "scheme": None}
    return Predictor(run, {**description, "options": options}, "stand-in")


@both
def test_scales_are_pixels_of_the_image_and_confidence_is_of_the_box(likelihood: str) -> None:
    boxes = np.array([[5.0, 5, 40, 20], [5, 5, 10, 80]])
    image = np.zeros((120, 120, 3), np.uint8)
    found = stand_in(likelihood, 4.0).predict(image, boxes)
    side = np.array([[40.0], [80.0]])
    np.testing.assert_allclose(found.scale, np.repeat(4 / 100 * 1.25 * side, 3, axis=1))
    expected = probability_within(0.05, 0.05, likelihood)  # of boxes of any size the same
    np.testing.assert_allclose(found.confidence, np.full((2, 3), expected))
    np.testing.assert_array_equal(found.confidence, found.within(0.05))
    assert (found.within(0.2) > found.within(0.1)).all()
    assert not found.within(0.0).any()


def test_without_a_head_nothing_is_stated() -> None:
    found = Prediction(np.zeros((2, 5, 2)), np.zeros((2, 3)), np.ones((2, 4)), np.ones(2))
    assert found.scale.shape == found.confidence.shape == (2, 5)
    assert np.isnan(found.scale).all()
    assert np.isnan(found.confidence).all()
    assert found.visibility is None
    with pytest.raises(ValueError, match="states no scales"):
        asmkit.doubt_outliers(found, asmkit.ShapeModel())


def test_unsure_landmarks_are_drawn_red() -> None:
    grey = np.full((40, 40, 3), 90, np.uint8)
    drawn = draw_landmarks(grey, [[10, 10], [30, 10], [20, 30]], confidence=[0.0, 1.0, np.nan])
    assert drawn[10, 10].tolist() == [255, 40, 40]
    assert drawn[10, 30].tolist() == drawn[30, 20].tolist() == [255, 255, 255]


@both
def test_landmarks_that_the_others_contradict_lose_confidence(
    likelihood: str, faces: SyntheticFaces, rng: np.random.Generator
) -> None:
    model = asmkit.ShapeModel(10).fit(faces.points)
    points = model.smooth(faces.points[:3]).astype(np.float64)
    boxes = landmark_box(points)
    moved = points.copy()
    moved[:, 30] += 0.3 * boxes[:, 2:]
    scale = np.full((3, 68), 0.02 * boxes[:, 2:].max())
    before = Prediction(moved, np.zeros((3, 3)), boxes, np.ones(3), scale, likelihood)
    after = asmkit.doubt_outliers(before, model)
    np.testing.assert_array_equal(after.points, moved)
    assert (after.confidence <= before.confidence).all()
    assert (after.confidence[:, 30] < 0.5 * before.confidence[:, 30]).all()
    others = np.delete(after.scale / scale, 30, axis=1)
    assert np.median(others) == 1
    # Of faces moved, grown and seen in larger pixels, the same is said.
    larger = replace(before, points=7 * moved + 100, boxes=7 * boxes, scale=7 * scale)
    again = asmkit.doubt_outliers(larger, model)
    np.testing.assert_allclose(again.confidence, after.confidence, atol=1e-6)
