"""Covered landmarks: how they are labelled, learned, calibrated, and told to the user."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest
import tiny_training
import torch
from scipy.special import expit
from sklearn.metrics import roc_auc_score

import asmkit
from asmkit import tracking
from asmkit.boxes import landmark_box
from asmkit.confidence import covers_some, platt_scaling
from asmkit.datasets import SyntheticFaces, synthetic_faces
from asmkit.errors import FormatError
from asmkit.nn import build_network
from asmkit.nn.augment import visible_points
from asmkit.nn.calibration import calibrate_visibility
from asmkit.nn.data import LandmarkDataset, batches
from asmkit.nn.export import write_network
from asmkit.nn.heads import Features, LandmarkNetwork
from asmkit.nn.losses import visibility_loss
from asmkit.nn.validation import covered_outputs
from asmkit.nn.visibility import VisibilityHead
from asmkit.predictor import Prediction, Predictor

Doubles = npt.NDArray[np.float64]
TINY = replace(tiny_training.TINY, confidence="laplace", confidence_epochs=1)


@pytest.fixture(scope="module")
def faces() -> SyntheticFaces:
    return synthetic_faces(24, 5, size=64)


@pytest.fixture(scope="module")
def dataset(
    faces: SyntheticFaces, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LandmarkDataset, LandmarkDataset]:
    """The same faces where occluders never and always lie over them."""
    folder = tmp_path_factory.mktemp("faces")
    faces.save(folder)
    annotations, chosen = asmkit.read(folder), asmkit.scheme("ibug68")
    recipes = (replace(TINY, occlusion=share, shift=0.3) for share in (0.0, 1.0))
    plain, covered = (LandmarkDataset(annotations, recipe, chosen) for recipe in recipes)
    return plain, covered


# -- labels


def test_a_landmark_is_covered_where_its_pixel_is(rng: np.random.Generator) -> None:
    covered = rng.random((9, 9)) < 0.5
    points = rng.uniform(-3, 12, (500, 2))
    found = visible_points(points, covered)
    for (x, y), visible in zip(points, found, strict=True):
        column, row = round(x), round(y)
        if 0 <= column < 9 and 0 <= row < 9:
            assert visible == (not covered[row, column])
        else:
            assert np.isnan(visible)
    assert set(found[np.isfinite(found)]) == {0, 1}


def test_labels_follow_what_lies_over_the_moved_and_mirrored_landmarks(
    dataset: tuple[LandmarkDataset, LandmarkDataset],
) -> None:
    """In plain view the pixel is that of the face without covers; covered, it is another."""
    hidden, changed = 0, 0
    for index in range(24):
        plain, covered = (
            part.sample(index, np.random.default_rng(index), share)
            for part, share in zip(dataset, (0.0, 1.0), strict=True)
        )
        np.testing.assert_array_equal(covered.points, plain.points)
        column, row = np.rint(covered.points[0]).astype(int).T
        inside = (np.minimum(column, row) >= 0) & (np.maximum(column, row) < TINY.input_size)
        np.testing.assert_array_equal(np.isfinite(covered.visible[0]), inside)
        np.testing.assert_array_equal(plain.visible[0], np.where(inside, 1, np.nan))
        before, after = (
            part.images[0][row[inside], column[inside]].astype(int) for part in (plain, covered)
        )
        other = (before != after).any(1)
        under = covered.visible[0, inside] == 0
        assert not other[~under].any()
        hidden, changed = hidden + under.sum(), changed + (other & under).sum()
    assert hidden > 100
    assert changed > 0.95 * hidden  # a cover may be of the same colour


def test_labels_are_the_same_for_any_number_of_threads_and_parts(
    dataset: tuple[LandmarkDataset, LandmarkDataset],
) -> None:
    _, data = dataset
    one, three = (list(batches(data, None, 2, n, covers=0.6)) for n in (1, 3))
    part = list(batches(data, None, 2, covers=0.6, part=1, n_parts=2))
    for a, b, half in zip(one, three, part, strict=True):
        np.testing.assert_array_equal(a.visible, b.visible)
        np.testing.assert_array_equal(a.visible[1::2], half.visible)
    assert np.isnan(data.negative(0, np.random.default_rng(0)).visible).all()


def test_unknown_landmarks_count_for_nothing() -> None:
    logits = torch.tensor([[1.0, -2, 5]], requires_grad=True)
    visible = torch.tensor([[1.0, 0, torch.nan]])
    loss = visibility_loss(logits, visible)
    expected = -(np.log(expit(1)) + np.log(1 - expit(-2))) / 2
    assert loss.item() == pytest.approx(expected)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert logits.grad is not None
    assert logits.grad[0, 2] == 0


# -- learned


def network(visibility: bool = True) -> LandmarkNetwork:
    torch.manual_seed(0)
    options = {"width": 0.35, "confidence": "laplace", "visibility": visibility}
    return build_network("asmnet", 68, **options).eval()


def test_a_smooth_patch_in_a_texture_is_seen_at_the_points_that_it_covers() -> None:
    """On textures that it has not seen; no single cell tells, its surroundings do."""
    torch.manual_seed(0)
    head = VisibilityHead(2, 3, 4, 5, 6)
    optimizer = torch.optim.AdamW(head.parameters(), 1e-2)

    def drawn(rng: np.random.Generator) -> tuple[torch.Tensor, Features, torch.Tensor]:
        shallow, cells = rng.standard_normal((16, 2, 16, 16)), rng.integers(0, 16, (16, 6, 2))
        x, y = rng.integers(0, 10, (2, 16, 1))
        visible = np.ones((16, 6))
        for image in range(16):
            (column,), (row,) = x[image], y[image]
            patch = shallow[image, :, row : row + 7, column : column + 7]
            patch[:] = patch[:, :1, :1]
            inside = (cells[image] >= [column, row]) & (cells[image] < [column + 7, row + 7])
            visible[image, inside.all(1)] = 0
        coarse = (rng.standard_normal((16, c, side, side)) for c, side in ((3, 8), (4, 4)))
        maps = (torch.from_numpy(each).float() for each in (shallow, *coarse))
        features = Features(*maps, torch.from_numpy(rng.standard_normal((16, 5))).float())
        points = torch.from_numpy((2 * cells + 1) / 16 - 1).float()  # centres of cells
        return points, features, torch.from_numpy(visible).float()

    for step in range(60):
        points, features, visible = drawn(np.random.default_rng(step))
        optimizer.zero_grad()
        visibility_loss(head(points, features), visible).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    points, features, visible = drawn(np.random.default_rng(1000))
    with torch.no_grad():
        logits = head.eval()(points, features)
    assert roc_auc_score(visible.flatten(), logits.flatten()) > 0.85


# -- calibrated


def test_platt_scaling_finds_slope_and_offset(rng: np.random.Generator) -> None:
    logits = rng.normal(1, 3, 50_000)
    labels = (rng.random(50_000) < expit(0.5 * logits - 1)).astype(float)
    slope, offset = platt_scaling(logits, labels)
    assert slope == pytest.approx(0.5, rel=0.05)
    assert offset == pytest.approx(-1, rel=0.05)
    # In other units the same is said.
    again = platt_scaling(100 * logits + 7, labels)
    np.testing.assert_allclose(
        again[0] * (100 * logits + 7) + again[1], slope * logits + offset, atol=1e-3
    )
    unknown = np.where(rng.random(50_000) < 0.3, np.nan, labels)
    kept = np.isfinite(unknown)
    np.testing.assert_allclose(
        platt_scaling(logits, unknown), platt_scaling(logits[kept], labels[kept])
    )


def test_what_separates_labels_or_has_but_one_stays_finite() -> None:
    slope, offset = platt_scaling([-1.0, -1, 1, 1], [0, 0, 1, 1])
    np.testing.assert_allclose(expit(slope * np.array([-1, 1]) + offset), [1 / 4, 3 / 4], atol=1e-4)
    slope, offset = platt_scaling([2.0, 2, 2, 2], [1, 1, 1, 1])
    assert expit(2 * slope + offset) == pytest.approx(5 / 6, abs=1e-4)
    for logits, labels in (([1.0], [1, 0]), ([1.0], [np.nan]), ([np.inf], [1.0]), ([], [])):
        with pytest.raises(ValueError, match="logits, labels"):
            platt_scaling(logits, labels)


def test_calibrated_visibility_is_right_on_average(
    dataset: tuple[LandmarkDataset, LandmarkDataset],
) -> None:
    _, data = dataset
    made = network()
    summary = calibrate_visibility(made, data)
    with torch.inference_mode():
        logits, visible = covered_outputs(made, data, 8, 1)
    known = np.isfinite(visible)
    # Platt's targets: one face more of each kind.
    n = np.array([(visible == label).sum() for label in (0, 1)])
    target = np.where(visible[known] > 0, (n[1] + 1) / (n[1] + 2), 1 / (n[0] + 2))
    assert expit(logits[known]).mean() == pytest.approx(target.mean(), abs=1e-3)
    assert summary["calibration_error_after"] <= summary["calibration_error_before"]
    assert summary["covered"] == pytest.approx(n[0] / n.sum(), abs=1e-4)
    assert calibrate_visibility(made, data) == summary  # what was there before is forgotten


# -- told


def stand_in(visibility: float | None) -> Predictor:
    """A network of three points, in crops of 100, that states one scale and one visibility."""

    def run(crops: npt.NDArray[np.uint8]) -> list[Doubles]:
        n = len(crops)
        told = [] if visibility is None else [np.full((n, 3), visibility)]
        return [np.full((n, 3, 2), 50.0), np.zeros((n, 3)), np.full((n, 3), 4.0), *told]

    options = {"confidence": "laplace"} | ({} if visibility is None else {"visibility": True})
    description = {"n_points": 3, "input_size": 100, "margin": 1.25, "scheme": None}
    return Predictor(run, {**description, "options": options}, "stand-in")


def test_confidence_is_of_landmarks_in_plain_view_and_near() -> None:
    image, boxes = np.zeros((120, 120, 3), np.uint8), [[5.0, 5, 40, 20], [5, 5, 10, 80]]
    old, new = (stand_in(visibility).predict(image, boxes) for visibility in (None, 0.25))
    assert old.visibility is None
    assert new.visibility is not None
    np.testing.assert_array_equal(new.visibility, np.full((2, 3), 0.25))
    np.testing.assert_array_equal(new.scale, old.scale)
    np.testing.assert_array_equal(new.within(), old.confidence)
    np.testing.assert_array_equal(new.confidence, 0.25 * old.confidence)
    unsaid = Prediction(*(getattr(new, name) for name in ("points", "pose", "boxes", "face")))
    assert unsaid.visibility is None
    assert np.isnan(unsaid.confidence).all()


def half_covered(
    faces: SyntheticFaces, rng: np.random.Generator
) -> tuple[asmkit.ShapeModel, Doubles, Prediction]:
    """A model, six of its shapes, and what a network says that sees half of three of them.

    What it sees is nearly right, what it does not is far off, and it knows both.
    """
    model = asmkit.ShapeModel(10).fit(faces.points)
    truth = model.smooth(faces.points[:6]).astype(np.float64)
    boxes = landmark_box(truth)
    side = boxes[:, 2:].max(1)[:, None]
    visibility = np.full(truth.shape[:2], 0.95)
    visibility[3:, ::2] = 0.02
    scale = np.where(visibility < 0.5, 0.1, 0.005) * side
    points = truth + scale[..., None] * rng.standard_normal(truth.shape)
    found = Prediction(
        points, np.zeros((6, 3)), boxes, np.ones(6), scale, "laplace", visibility=visibility
    )
    return model, truth, found


def test_covered_landmarks_follow_those_in_plain_view(
    faces: SyntheticFaces, rng: np.random.Generator
) -> None:
    model, truth, found = half_covered(faces, rng)
    assert covers_some(found).tolist() == [False] * 3 + [True] * 3
    completed = asmkit.complete_covered(found, model)
    np.testing.assert_array_equal(completed.points[:3], found.points[:3])
    for name in ("pose", "boxes", "scale", "visibility", "confidence"):
        np.testing.assert_array_equal(getattr(completed, name), getattr(found, name))
    covered = found.visibility < 0.5
    before, after = (np.linalg.norm(one.points - truth, axis=2) for one in (found, completed))
    assert after[covered].mean() < 0.2 * before[covered].mean()
    assert after[3:][~covered[3:]].mean() < before[3:][~covered[3:]].mean()
    # Of faces moved and seen in larger pixels, the same is said.
    larger = replace(found, points=7 * found.points + 100, scale=7 * found.scale)
    again = asmkit.complete_covered(larger, model)
    np.testing.assert_allclose(again.points, 7 * completed.points + 100, rtol=1e-6)


def test_what_cannot_be_completed_is_said(faces: SyntheticFaces, rng: np.random.Generator) -> None:
    model, _, found = half_covered(faces, rng)
    with pytest.raises(ValueError, match="does not tell covered landmarks"):
        asmkit.complete_covered(replace(found, visibility=None), model)
    with pytest.raises(ValueError, match="align='similarity'"):
        asmkit.complete_covered(found, asmkit.ShapeModel(5, align="box").fit(faces.points))
    with pytest.raises(ValueError, match=r"points: got .*68"):
        asmkit.complete_covered(found, asmkit.ShapeModel(5).fit(faces.points[:, :60]))


@pytest.mark.parametrize("align", ["similarity", "box", None])
def test_a_predictor_completes_by_the_model_beside_it(
    align: str | None, faces: SyntheticFaces, rng: np.random.Generator, tmp_path: Path
) -> None:
    model, _, found = half_covered(faces, rng)
    assert found.visibility is not None
    seen, visibility = found.points[3:4], found.visibility[3:4]

    def run(crops: npt.NDArray[np.uint8]) -> list[Doubles]:
        return [seen, np.zeros((1, 3)), np.full((1, 68), 4.0), visibility]

    options = {"confidence": "laplace", "visibility": True}
    description = {"n_points": 68, "input_size": 100, "margin": 1.25, "scheme": "ibug68"}
    path = tmp_path / "shape_model.npz"
    if align is not None:
        model = asmkit.ShapeModel(10, align=align).fit(faces.points)
        model.save(path)
    made = path if align is not None else None
    predictor = Predictor(run, {**description, "options": options}, "stand-in", made)
    look = [np.zeros((120, 120, 3), np.uint8), [[9.5, 9.5, 80, 80]]]  # the crop is the image
    plain = predictor.predict(*look, shape_prior=False)
    np.testing.assert_allclose(plain.points, seen, atol=1e-9)
    completed = predictor.predict(*look)
    if align == "similarity":
        expected = asmkit.complete_covered(plain, model)
        np.testing.assert_array_equal(completed.points, expected.points)
        assert np.abs(expected.points - plain.points).max() > 1
    else:  # the frame "box" cannot say anything of a part of the points
        np.testing.assert_array_equal(completed.points, plain.points)
    asmkit.ShapeModel(5).fit(faces.points[:, :60]).save(path)
    other = Predictor(run, {**description, "options": options}, "stand-in", path)
    with pytest.raises(FormatError, match=r"shape_model\.npz.*\(60, 2\).*\(68, 2\)"):
        other.predict(*look)


def test_tracking_judges_what_the_network_found(
    faces: SyntheticFaces, rng: np.random.Generator, tmp_path: Path
) -> None:
    """A face that a shape model completed is plausible whatever it was."""
    model, _, found = half_covered(faces, rng)
    assert found.visibility is not None
    seen, visibility = found.points[3:4], found.visibility[3:4]

    def run(crops: npt.NDArray[np.uint8]) -> list[Doubles]:
        n = len(crops)
        told = [seen, np.zeros((1, 3)), np.ones(1), np.full((1, 68), 4.0), visibility]
        return [np.repeat(values, n, 0) for values in told]

    path = tmp_path / "shape_model.npz"
    model.save(path)
    options = {"confidence": "laplace", "visibility": True}
    description = {"n_points": 68, "input_size": 100, "margin": 1.25, "scheme": "ibug68"}
    predictor = Predictor(run, {**description, "options": options}, "stand-in", path)
    finder = tracking._Finder(predictor, SimpleNamespace(model=model, tail=None, scheme=None))
    image, boxes = np.zeros((120, 120, 3), np.uint8), np.array([[9.5, 9.5, 80, 80]])
    assert np.abs(predictor.predict(image, boxes).points - seen).max() > 1
    np.testing.assert_allclose(finder(image, boxes).points, seen, atol=1e-9)


def test_networks_of_before_state_scales_alone(
    faces: SyntheticFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asmkit.nn.export.export_onnx", lambda *args: None)
    options = {"width": 0.35, "dropout": 0.0, "confidence": "laplace"}
    image, boxes = faces.images[0], landmark_box(faces.points[:1])
    found = {}
    for visibility in (False, True):
        made = options | ({"visibility": True} if visibility else {})
        monkeypatch.setattr("asmkit.nn.export.network_options", lambda *args, made=made: made)
        folder = tmp_path / str(visibility)
        folder.mkdir()
        write_network(folder, network(visibility), TINY, asmkit.scheme("ibug68"), {})
        description = json.loads((folder / "model.json").read_text("utf-8"))
        # What knows format 1 alone would read visibility as scale, and is told to be updated.
        assert description["format"] == (2 if visibility else 1)
        found[visibility] = asmkit.load(folder, engine="torch").predict(image, boxes)
    assert found[False].visibility is None
    np.testing.assert_array_equal(found[False].confidence, found[False].within())
    for name in ("points", "pose", "scale"):
        np.testing.assert_array_equal(getattr(found[True], name), getattr(found[False], name))
    assert found[True].visibility is not None
    assert ((found[True].visibility > 0) & (found[True].visibility < 1)).all()
