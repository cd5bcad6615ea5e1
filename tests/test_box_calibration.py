"""The map from a detector's boxes to landmark boxes is found exactly, whatever else it finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from asmkit.annotations import Annotation
from asmkit.box_calibration import BoxCalibration, calibrate_box
from asmkit.boxes import landmark_box
from asmkit.errors import FormatError
from asmkit.images import write_image

Doubles = npt.NDArray[np.float64]
SHIFT, SCALE = np.array([0.04, 0.16]), np.array([0.8, 0.7])


class Detector:
    """Gives the boxes that it was told for each image; the first pixel is the image's number."""

    def __init__(self, boxes: list[Doubles]) -> None:
        self.boxes, self.calls = boxes, 0

    def __call__(self, image: npt.NDArray[np.uint8]) -> Doubles:
        self.calls += 1
        return self.boxes[image[0, 0, 0]]


def before(tight: Doubles) -> Doubles:
    """The boxes that the map (SHIFT, SCALE) carries into these."""
    size = tight[:, 2:] / SCALE
    centre = tight[:, :2] + tight[:, 2:] / 2 - SHIFT * size
    return np.concatenate([centre - size / 2, size], axis=1)


@pytest.fixture
def scene(tmp_path: Path, rng: np.random.Generator) -> tuple[list[Annotation], list[Doubles]]:
    """24 images with one to three faces in each, side by side, and their tight boxes."""
    annotations, boxes = [], []
    for number in range(24):
        image = np.full((8, 8, 3), number, np.uint8)
        write_image(tmp_path / f"{number}.png", image)
        tight = []
        for face in range(1 + number % 3):
            size = rng.uniform(50, 90, 2)
            points = rng.uniform(0, 1, (30, 2)) * size + [200 * face, rng.uniform(0, 200)]
            annotations.append(Annotation(points, tmp_path / f"{number}.png", name=f"{number}"))
            tight.append(landmark_box(points))
        boxes.append(np.stack(tight))
    return annotations, boxes


Scene = tuple[list[Annotation], list[Doubles]]


def test_a_known_map_is_recovered_exactly(scene: Scene) -> None:
    annotations, boxes = scene
    detector = Detector([before(tight)[::-1] for tight in boxes])
    found = calibrate_box(detector, annotations)
    assert detector.calls == 24  # once an image, not once a face
    np.testing.assert_allclose(found.shift, SHIFT, atol=1e-12)
    np.testing.assert_allclose(found.scale, SCALE, rtol=1e-12)
    np.testing.assert_allclose(found.spread, 0, atol=1e-12)
    assert found.median_iou == pytest.approx(1, abs=1e-12)
    assert (found.recall, found.n_faces, found.n_found, found.n_extra) == (1, 48, 48, 0)
    for tight in boxes:
        np.testing.assert_allclose(found.apply(before(tight)), tight, atol=1e-9)


def test_outliers_change_nothing_and_are_counted(scene: Scene, rng: np.random.Generator) -> None:
    annotations, boxes = scene
    given = []
    for number, tight in enumerate(boxes):
        found = before(tight)
        if number % 4 == 0:  # off and of another size, but on the face
            found[:, :2] += rng.uniform(-8, 8, 2)
            found[:, 2:] *= rng.uniform(1.1, 1.3)
        elif number % 4 == 1:  # one face missed
            found = found[1:]
        elsewhere = np.array([[1000.0, 1000.0, 60.0, 60.0]])
        on_the_nose = tight[:1] * [1, 1, 0.2, 0.2] + np.append(tight[0, 2:] * 0.4, [0, 0])
        given.append(np.concatenate([elsewhere, on_the_nose, found]))
    calibration = calibrate_box(Detector(given), annotations)
    np.testing.assert_allclose(calibration.shift, SHIFT, atol=1e-12)
    np.testing.assert_allclose(calibration.scale, SCALE, rtol=1e-12)
    missed = sum(number % 4 == 1 for number in range(24))
    assert calibration.n_found == 48 - missed
    assert calibration.recall == pytest.approx(1 - missed / 48)
    assert calibration.n_extra == 48


def test_a_box_serves_one_face_alone(scene: Scene) -> None:
    annotations, boxes = scene
    twins = [replace(a, points=a.points + np.array([3.0, 0.0])) for a in annotations]
    calibration = calibrate_box(Detector([before(tight) for tight in boxes]), annotations + twins)
    assert (calibration.n_faces, calibration.n_found, calibration.n_extra) == (96, 48, 0)


def test_scaled_and_shifted_images_have_the_same_map(
    scene: Scene, rng: np.random.Generator
) -> None:
    annotations, boxes = scene
    noisy = [before(tight) + rng.normal(0, 2, tight.shape) for tight in boxes]
    first = calibrate_box(Detector(noisy), annotations)
    stretch, move = np.array([3.0, 0.5]), np.array([-70.0, 900.0])
    moved = [replace(a, points=a.points * stretch + move) for a in annotations]
    detected = [np.concatenate([b[:, :2] * stretch + move, b[:, 2:] * stretch], 1) for b in noisy]
    second = calibrate_box(Detector(detected), moved)
    np.testing.assert_allclose(second.shift, first.shift, atol=1e-12)
    np.testing.assert_allclose(second.scale, first.scale, rtol=1e-12)
    np.testing.assert_allclose(second.spread, first.spread, rtol=1e-9)
    assert second.n_found == first.n_found == 48


def test_the_spread_is_the_standard_deviation_of_the_boxes(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_image(tmp_path / "0.png", np.zeros((8, 8, 3), np.uint8))
    corners = np.array([[0.0, 0.0], [100.0, 80.0]])
    places = [corners + 300.0 * np.array([i, j]) for i in range(40) for j in range(40)]
    annotations = [Annotation(points, tmp_path / "0.png") for points in places]
    tight = landmark_box(np.stack(places))
    centre = tight[:, :2] + tight[:, 2:] / 2 + rng.normal(0, [3, 4], (1600, 2))
    size = tight[:, 2:] * np.exp(rng.normal(0, [0.02, 0.05], (1600, 2)))
    noisy = np.concatenate([centre - size / 2, size], axis=1)
    spread = calibrate_box(Detector([noisy]), annotations).spread
    np.testing.assert_allclose(spread, [0.03, 0.05, 0.02, 0.05], rtol=0.1)


def test_a_calibrated_detector_gives_tight_boxes(scene: Scene) -> None:
    annotations, boxes = scene
    detector = Detector([before(tight) for tight in boxes])
    calibrated = calibrate_box(detector, annotations).detector(detector)
    image = np.full((8, 8, 3), 2, np.uint8)
    np.testing.assert_allclose(calibrated(image), boxes[2], atol=1e-9)
    again = calibrate_box(calibrated, annotations)
    np.testing.assert_allclose([*again.shift, *again.scale], [0, 0, 1, 1], atol=1e-9)
    with pytest.raises(ValueError, match="RGB"):
        calibrated(np.zeros((8, 8), np.uint8))


def some() -> BoxCalibration:
    return BoxCalibration((0.1 / 3, -0.2), (0.8, 1.1), (0.1, 0.2, 0.3, 0.4), 0.7, 30, 20, 5)


def test_no_boxes_stay_no_boxes() -> None:
    assert some().apply(np.empty((0, 4))).shape == (0, 4)
    assert some().detector(lambda image: [])(np.zeros((8, 8, 3), np.uint8)).shape == (0, 4)


def test_a_file_gives_back_every_digit(tmp_path: Path) -> None:
    some().save(tmp_path / "folder" / "detector.json")
    loaded = BoxCalibration.load(tmp_path / "folder" / "detector.json")
    assert loaded == some()
    assert isinstance(loaded.shift, tuple)
    with pytest.raises(FrozenInstanceError):
        loaded.n_found = 3  # type: ignore[misc]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "detector.json"
    some().save(path)

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="no space"):
        replace(some(), n_found=1).save(path)
    assert BoxCalibration.load(path) == some()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"scale": [0, 1]}, "scale: got .* expected positive"),
        ({"shift": [0.1]}, "shift: got .* expected 2 finite numbers"),
        ({"shift": [0.1, float("nan")]}, "finite"),
        ({"shift": "ab"}, "finite"),
        ({"spread": [0, 0, 0, -1]}, "spread"),
        ({"median_iou": 1.5}, "0 to 1"),
        ({"median_iou": None}, "median_iou"),
        ({"n_found": 31}, "at most all"),
        ({"n_faces": True}, "whole number"),
        ({"n_extra": -1}, "whole number"),
        ({"format": "asmkit box calibration 2"}, 'no "format"'),
        ({"more": 1}, "more"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, change: dict[str, object], told: str) -> None:
    path = tmp_path / "detector.json"
    some().save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(FormatError, match=f"detector.json: not a box calibration.*{told}"):
        BoxCalibration.load(path)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff\xfe\x00", b"[" * 100_000])
def test_another_file_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(FormatError, match=r"x\.json: not a box calibration"):
        BoxCalibration.load(tmp_path / "x.json")
    with pytest.raises(FileNotFoundError):
        BoxCalibration.load(tmp_path / "y.json")


def test_what_cannot_be_calibrated_is_told(scene: Scene, tmp_path: Path) -> None:
    annotations, boxes = scene

    def told(
        message: str,
        detector: Callable[[npt.NDArray[np.uint8]], npt.ArrayLike],
        data: list[Annotation] = annotations,
    ) -> None:
        with pytest.raises(ValueError, match=message):
            calibrate_box(detector, data)

    right = Detector([before(tight) for tight in boxes])
    told("no box in any of the 24 images with 48 faces", lambda image: np.empty((0, 4)))
    told("none of the detector's 24 boxes", lambda image: [[5000.0, 0, 9, 9]])
    told(r"9 of the detector's 9 boxes .* 9 annotated faces, expected 10", right, annotations[:9])
    told(r"boxes of the detector in .*0.png: got shape \(1, 3\)", lambda image: [[1, 2, 3]])
    told("at least one|expected annotated", right, [])
    told("7: no image", right, [replace(annotations[0], image=None, name="7")])
    told("no extent", right, [replace(annotations[0], points=np.full((30, 2), np.nan))])
    with pytest.raises(FileNotFoundError):
        calibrate_box(right, [replace(annotations[0], image=tmp_path / "gone.png")])
    with pytest.raises(TypeError, match="expected a callable"):
        calibrate_box(boxes[0], annotations)  # type: ignore[arg-type]
    assert calibrate_box(right, annotations[:10]).n_found == 10
