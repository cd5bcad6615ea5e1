"""What shows no face really shows none, and carries no label of one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import asmkit
from asmkit.annotations import Annotation
from asmkit.boxes import apply_affine, invert_affine, iou
from asmkit.datasets import synthetic_faces
from asmkit.images import write_image
from asmkit.nn import Recipe, negatives
from asmkit.nn import data as data_module
from asmkit.nn.augment import draw_geometry
from asmkit.nn.data import LandmarkDataset, batches
from asmkit.nn.negatives import (
    FACE,
    NO_FACE,
    background,
    box_beside,
    face_label,
    other_images,
    random_crop,
    shuffled,
)
from asmkit.schemes import scheme

Image = npt.NDArray[np.uint8]

IBUG = scheme("ibug68")
#: No change of the picture but the crop itself.
PLAIN = Recipe(
    **{"input_size": 48, "batch_size": 4, "rotation": 0.0, "mirror": 0.0, "scale": 0.0},
    **{"shift": 0.0, "grey": 0.0, "blur": 0.0, "noise": 0.0, "occlusion": 0.0, "contrast": 0.0},
    **{"brightness": 0.0, "colour": 0.0},
)  # type: ignore[arg-type]  # names and values of many types


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[Annotation]:
    return synthetic_faces(8, 5, size=64).save(tmp_path_factory.mktemp("faces"))


@pytest.fixture
def dataset(faces: list[Annotation]) -> LandmarkDataset:
    return LandmarkDataset(faces, PLAIN, IBUG)


# -- face or not


def test_the_label_of_an_overlap() -> None:
    below = {limit: np.nextafter(limit, 0) for limit in (FACE, NO_FACE)}
    assert face_label(1.0) == face_label(FACE) == 1
    assert np.isnan([face_label(below[FACE]), face_label(NO_FACE)]).all()
    assert face_label(below[NO_FACE]) == face_label(0.0) == 0


@pytest.mark.parametrize("seed", range(20))
def test_a_box_beside_overlaps_little(seed: int) -> None:
    rng = generator(seed)
    boxes = np.stack([box_beside(rng) for _ in range(20)])
    assert (boxes[:, 2] == boxes[:, 3]).all()
    assert (iou(boxes, [0.0, 0.0, 1.0, 1.0]) < NO_FACE).all()


def test_boxes_beside_are_also_within_around_and_apart() -> None:
    rng = generator(0)
    boxes = np.stack([box_beside(rng) for _ in range(300)])
    overlaps = iou(boxes, [0.0, 0.0, 1.0, 1.0])
    assert (overlaps > 0.05).mean() > 0.2  # near enough to be mistaken
    assert (boxes[:, 2] < 0.7).mean() > 0.2
    assert (boxes[:, 2] > 1.5).mean() > 0.2


def test_without_luck_there_is_still_a_box_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negatives, "_TRIES", 0)
    assert iou(box_beside(generator(0)), [0.0, 0.0, 1.0, 1.0]) < NO_FACE


@pytest.mark.parametrize(
    ("zoom", "shift", "expected"),
    [
        (1.0, (0, 0), 1.0),
        # The crop's square is 1.25 faces; 12 of its 48 pixels are 0.3125 of a face's side.
        (1.0, (12, 0), 0.6875 / (2 - 0.6875)),
        (1.0, (0, -12), 0.6875 / (2 - 0.6875)),
        (1.0, (12, 12), 0.6875**2 / (2 - 0.6875**2)),
        (1.25, (0, 0), 1 / 1.25**2),
        (0.8, (0, 0), 0.8**2),
    ],
)
def test_the_overlap_of_an_augmented_crop_is_that_of_the_squares(
    zoom: float, shift: tuple[int, int], expected: float
) -> None:
    """However the face is turned or mirrored."""
    half = (PLAIN.input_size - 1) / 2
    moved = np.column_stack([zoom * np.eye(2), np.array(shift) + half * (1 - zoom)])
    for recipe in (PLAIN, replace(PLAIN, rotation=30.0, mirror=1.0)):
        turned = draw_geometry(generator(1), recipe, True).matrix
        matrix = asmkit.boxes.compose_affine(moved, turned)
        overlap = data_module.overlap_of(matrix, recipe.input_size, recipe.margin)
        # A turned crop is moved in another direction than along the sides of the squares.
        if recipe is PLAIN or shift == (0, 0):
            assert overlap == pytest.approx(expected, abs=1e-9)


def test_a_face_moved_out_of_its_crop_is_not_called_one(faces: list[Annotation]) -> None:
    labels = {}
    for shift in (0.0, 0.15, 0.5):
        dataset = LandmarkDataset(faces, replace(PLAIN, shift=shift), IBUG)
        labels[shift] = {float(dataset.sample(0, generator(i)).face[0]) for i in range(30)}
    assert labels[0.0] == {1.0}
    assert 0.0 not in labels[0.15]
    assert 0.0 in labels[0.5]


# -- pictures


@pytest.mark.parametrize("seed", range(4))
def test_shuffling_keeps_the_tiles_but_for_their_place(seed: int) -> None:
    image = generator(100).integers(0, 256, (60, 60, 3), dtype=np.uint8)  # no two tiles are equal
    mixed = shuffled(image, generator(seed))
    assert any(tiles(mixed, n) == tiles(image, n) for n in (3, 4, 5, 6))
    assert (mixed != image).any()


def tiles(image: Image, n: int) -> Counter[bytes]:
    """The tiles of a picture, alike whether upside down or not."""
    side = len(image) // n
    parts = image.reshape(n, side, n, side, 3).swapaxes(1, 2).reshape(n * n, side, side, 3)
    return Counter(min(part.tobytes(), part[::-1].tobytes()) for part in parts)


@pytest.mark.parametrize("size", [48, 64, 112])
@pytest.mark.parametrize("kind", ["shuffled", "background", "other"])
def test_pictures_have_the_size_and_come_back_with_the_seed(kind: str, size: int) -> None:
    image = generator(3).integers(0, 256, (size, size, 3), dtype=np.uint8)
    make = {
        "shuffled": lambda rng: shuffled(image, rng),
        "background": lambda rng: background(size, rng),
        "other": lambda rng: random_crop([image, image[:30]], size, rng),
    }[kind]
    first, again, other = make(generator(5)), make(generator(5)), make(generator(6))
    assert first.shape == (size, size, 3)
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_shuffled_face_is_left_as_it_was() -> None:
    image = generator(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    before = image.copy()
    shuffled(image, generator(0))
    np.testing.assert_array_equal(image, before)


def test_random_crops_stay_within_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def noted(image: Image, matrix: npt.NDArray[np.float64], size: int) -> Image:
        corners = np.array([[0, 0], [size, size]], float)
        seen.append((image.shape[1::-1], apply_affine(invert_affine(matrix), corners)))
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr(negatives, "crop", noted)
    images = [np.zeros((40, 90, 3), np.uint8), np.zeros((70, 20, 3), np.uint8)]
    for seed in range(100):
        random_crop(images, 48, generator(seed))
    for size, corners in seen:
        assert (corners >= -1e-9).all()
        assert (corners <= np.array(size) + 1e-9).all()
        assert min(size) * 0.099 < np.ptp(corners[:, 0]) <= min(size) + 1e-9
    assert {size for size, _ in seen} == {(90, 40), (20, 70)}


def test_other_images_are_read_in_the_order_of_their_names_and_made_small(tmp_path: Path) -> None:
    for name, level, side in (("b.png", 20, 12), ("deep/a.png", 30, 1600), ("a.png", 10, 12)):
        write_image(tmp_path / name, np.full((side, side, 3), level, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    images = other_images(tmp_path)
    assert [int(image[0, 0, 0]) for image in images] == [10, 20, 30]
    assert max(images[2].shape) < 600


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_folder_without_images_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"{name}: no image in it"):
        other_images(tmp_path / name)


# -- of a data set


def test_a_negative_has_no_label_but_none(dataset: LandmarkDataset) -> None:
    for seed in range(12):
        negative = dataset.negative(seed % 8, generator(seed))
        assert negative.images.shape == (1, 48, 48, 3)
        assert negative.images.dtype == np.uint8
        assert negative.points.shape == negative.smoothed.shape == (1, 68, 2)
        assert np.isnan(negative.points).all()
        assert np.isnan(negative.smoothed).all()
        assert np.isnan(negative.angles).all()
        assert negative.face.tolist() == [0.0]
        again = dataset.negative(seed % 8, generator(seed))
        np.testing.assert_array_equal(negative.images, again.images)


def test_the_box_beside_is_in_units_of_the_faces_square(
    dataset: LandmarkDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the whole square, the crop is that of the face."""
    monkeypatch.setattr(data_module, "_KINDS", {"beside": 1.0})
    monkeypatch.setattr(data_module, "box_beside", lambda rng: np.array([0.0, 0.0, 1.0, 1.0]))
    for index in range(3):
        crop = dataset.negative(index, generator(index)).images
        np.testing.assert_array_equal(crop, dataset.sample(index).images)


def test_the_kinds_come_as_often_as_they_should(
    faces: list[Annotation], monkeypatch: pytest.MonkeyPatch
) -> None:
    colours = {name: np.full((48, 48, 3), 50 * i, np.uint8) for i, name in enumerate("bsgo")}
    # A crop beside the face is none of the flat ones.
    monkeypatch.setattr(data_module, "shuffled", lambda image, rng: colours["s"])
    monkeypatch.setattr(data_module, "background", lambda size, rng: colours["g"])
    for others in ([], [colours["o"]]):
        dataset = LandmarkDataset(faces, PLAIN, IBUG, others)
        kinds = Counter[str]()
        for seed in range(300):
            image = dataset.negative(0, generator(seed)).images[0]
            flat = [name for name in "sgo" if (image == colours[name]).all()]
            kinds[flat[0] if flat else "b"] += 1
        table = data_module._KINDS_WITH_OTHERS if others else data_module._KINDS
        assert sum(table.values()) == pytest.approx(1)
        for name, share in zip("bsgo", table.values(), strict=False):
            assert kinds[name] / 300 == pytest.approx(share, abs=0.1)
        assert bool(kinds["o"]) == bool(others)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_batches_hold_the_share_of_negatives(dataset: LandmarkDataset, share: float) -> None:
    model = asmkit.ShapeModel(3, mirror="ibug68").fit(dataset.points)
    drawn = [b for epoch in range(25) for b in batches(dataset, model, epoch, negatives=share)]
    face = np.concatenate([batch.face for batch in drawn])
    assert len(face) == 200
    assert (face == 0).mean() == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)
    for batch in drawn:
        labelled = batch.face == 1
        for target in (batch.points, batch.smoothed):
            np.testing.assert_array_equal(np.isfinite(target).all((1, 2)), labelled)
        if labelled.any():
            expected = model.smooth(batch.points[labelled])
            np.testing.assert_allclose(batch.smoothed[labelled], expected, atol=1e-9)


def test_batches_with_negatives_do_not_depend_on_the_number_of_workers(
    dataset: LandmarkDataset,
) -> None:
    one = list(batches(dataset, None, 3, n_workers=1, negatives=0.5))
    two = list(batches(dataset, None, 3, n_workers=2, negatives=0.5))
    for left, right in zip(one, two, strict=True):
        for a, b in zip(left, right, strict=True):
            np.testing.assert_array_equal(a, b)


def test_without_negatives_a_batch_is_its_samples(faces: list[Annotation]) -> None:
    """What the first stage sees depends on neither the share nor the other images."""
    recipe = Recipe(input_size=48, batch_size=4, seed=7)
    others = [np.zeros((9, 9, 3), np.uint8)]
    dataset = LandmarkDataset(faces, recipe, IBUG, others)
    plain = LandmarkDataset(faces, replace(recipe, negatives=0.9), IBUG)
    rows = np.random.default_rng([7, 2]).permutation(8).reshape(2, 4)
    for row, batch in zip(rows, batches(dataset, None, 2), strict=True):
        samples = [plain.sample(i, np.random.default_rng([7, 2, i])) for i in row]
        for part, parts in zip(batch, zip(*samples, strict=True), strict=True):
            np.testing.assert_array_equal(part, np.concatenate(parts))


def test_other_images_belong_to_the_data_that_a_training_resumes_on(
    faces: list[Annotation],
) -> None:
    black, white = np.zeros((9, 9, 3), np.uint8), np.full((9, 9, 3), 255, np.uint8)
    prints = {
        LandmarkDataset(faces, PLAIN, IBUG, others).fingerprint
        for others in ([], [black], [white], [black, white])
    }
    assert len(prints) == 4
