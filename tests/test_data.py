"""Augmentation moves image, landmarks, smoothed targets and pose together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import asmkit
from asmkit.annotations import Annotation
from asmkit.boxes import apply_affine, crop_transform, landmark_box
from asmkit.datasets import synthetic_faces
from asmkit.images import write_image
from asmkit.nn import Recipe
from asmkit.nn.augment import draw_geometry, mirror_rotation, photometric, turn_rotation
from asmkit.nn.data import LandmarkDataset, batches
from asmkit.pose import head_rotations, rotation_to_euler
from asmkit.schemes import Scheme, scheme

IBUG = scheme("ibug68")
PLAIN = {"grey": 0.0, "blur": 0.0, "noise": 0.0, "occlusion": 0.0, "contrast": 0.0}
PLAIN |= {"brightness": 0.0, "colour": 0.0}
RECIPE = Recipe(input_size=64, batch_size=4)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[Annotation]:
    return synthetic_faces(10, 5, size=96).save(tmp_path_factory.mktemp("faces"))


@pytest.fixture
def dataset(faces: list[Annotation]) -> LandmarkDataset:
    return LandmarkDataset(faces, RECIPE, IBUG)


def test_without_augmentation_a_sample_is_the_plain_crop(dataset: LandmarkDataset) -> None:
    sample = dataset.sample(3)
    points = dataset.points[3]
    matrix = crop_transform(landmark_box(points)[None], 64, RECIPE.margin)[0]
    np.testing.assert_allclose(sample.points[0], apply_affine(matrix, points), atol=1e-9)
    image = asmkit.read_image(str(dataset.annotations[3].image))
    expected = asmkit.images.crop(image, matrix, 64)
    assert np.abs(sample.images[0].astype(int) - expected).mean() < 0.5


def test_pose_labels_are_the_pose_of_the_augmented_landmarks(faces: list[Annotation]) -> None:
    """Turning and mirroring the label equals solving the pose of the moved points again."""
    dataset = LandmarkDataset([replace(face, attributes={}) for face in faces], RECIPE, IBUG)
    for index in range(8):
        sample = dataset.sample(index, np.random.default_rng(index))
        solved = head_rotations(sample.points, "ibug68")
        np.testing.assert_allclose(np.rad2deg(sample.angles), rotation_to_euler(solved), atol=1e-3)


@pytest.mark.parametrize("scheme", [IBUG, None], ids=["ibug68", "no scheme"])
def test_pose_labels_that_come_with_the_faces_are_used(
    faces: list[Annotation], scheme: Scheme | None
) -> None:
    given = [replace(faces[0], attributes={"euler": (20.0, -10.0, 5.0)}), *faces[1:3]]
    given[2] = replace(given[2], attributes={})
    dataset = LandmarkDataset(given, RECIPE, scheme)
    labels = np.rad2deg([dataset.sample(i).angles[0] for i in range(3)])
    np.testing.assert_allclose(labels[0], [20, -10, 5], atol=1e-9)
    np.testing.assert_allclose(labels[1], faces[1].attributes["euler"], atol=1e-9)
    # Only the last has to be solved from its landmarks, which needs a scheme.
    assert np.isfinite(labels[2]).all() == (scheme is not None)


@pytest.mark.parametrize("euler", [(1.0, 2.0), "20, 10, 5", None, np.zeros((1, 3))])
def test_a_pose_label_of_another_form_is_named(faces: list[Annotation], euler: object) -> None:
    broken = replace(faces[0], name="broken", attributes={"euler": euler})
    with pytest.raises(ValueError, match=r"broken.*euler.*yaw, pitch, roll"):
        LandmarkDataset([broken], RECIPE, IBUG)


def test_landmarks_follow_the_picture(tmp_path: Path) -> None:
    """A bright dot drawn at a landmark is found where the augmented landmark is."""
    rng = np.random.default_rng(0)
    image = np.zeros((160, 160, 3), np.uint8)
    points = rng.uniform(50, 110, (68, 2))
    dot = np.round(points[8]).astype(int)
    points[8] = dot
    image[dot[1] - 1 : dot[1] + 2, dot[0] - 1 : dot[0] + 2] = 255
    write_image(tmp_path / "dot.png", image)
    annotation = Annotation(points=points, image=tmp_path / "dot.png", name="dot")
    # Mirroring keeps landmark 8, the chin, in its place.
    recipe = replace(RECIPE, **PLAIN, input_size=112)
    dataset = LandmarkDataset([annotation], recipe, IBUG)
    for seed in range(6):
        sample = dataset.sample(0, np.random.default_rng(seed))
        weight = sample.images[0, :, :, 0].astype(float)
        if weight.sum() < 500:
            continue  # shifted out of the crop
        rows, columns = np.indices(weight.shape)
        centre = [(weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()]
        np.testing.assert_allclose(centre, sample.points[0, 8], atol=0.3)


def test_big_photos_are_kept_no_finer_than_needed(tmp_path: Path) -> None:
    face = synthetic_faces(1, 0, size=640)
    annotation = face.save(tmp_path)[0]
    dataset = LandmarkDataset([annotation], replace(RECIPE, input_size=32), IBUG)
    kept = dataset.photo(0).pixels
    assert max(kept.shape) < 200
    matrix = crop_transform(dataset.boxes, 32, RECIPE.margin)[0]
    direct = asmkit.images.crop(face.images[0], matrix, 32).astype(int)
    seen = dataset.sample(0).images[0].astype(int)
    difference = np.abs(seen - direct).mean()
    # Two steps of averaging differ a little from one, but far less than a shift of a pixel does.
    for axis in (0, 1):
        for step in (-1, 1):
            assert difference < 0.35 * np.abs(np.roll(seen, step, axis) - direct).mean()


def test_batches_do_not_depend_on_the_number_of_workers(dataset: LandmarkDataset) -> None:
    model = asmkit.ShapeModel(3, mirror="ibug68").fit(dataset.points)
    one = list(batches(dataset, model, epoch=2, n_workers=1))
    three = list(batches(dataset, model, epoch=2, n_workers=3))
    assert len(one) == len(three) == 2  # ten faces in fours; the rest waits for another epoch
    for a, b in zip(one, three, strict=True):
        for left, right in zip(a, b, strict=True):
            np.testing.assert_array_equal(left, right)


def test_epochs_and_seeds_differ(dataset: LandmarkDataset) -> None:
    first = next(iter(batches(dataset, None, 0)))
    second = next(iter(batches(dataset, None, 1)))
    assert not np.array_equal(first.images, second.images)
    other = LandmarkDataset(dataset.annotations, replace(RECIPE, seed=1), IBUG)
    assert not np.array_equal(first.images, next(iter(batches(other, None, 0))).images)


@pytest.mark.parametrize("align", ["similarity", "box"])
def test_targets_are_the_smoothed_augmented_points(dataset: LandmarkDataset, align: str) -> None:
    model = asmkit.ShapeModel(2, align=align, mirror="ibug68").fit(dataset.points)
    batch = next(iter(batches(dataset, model, 0)))
    np.testing.assert_allclose(batch.smoothed, model.smooth(batch.points), atol=1e-9)
    assert np.abs(batch.smoothed - batch.points).max() > 0.1


def test_mirroring_twice_and_turning_back_is_nothing() -> None:
    rotation = asmkit.pose.euler_to_rotation([[20.0, -10.0, 5.0]])
    np.testing.assert_allclose(mirror_rotation(mirror_rotation(rotation)), rotation, atol=1e-12)
    turned = turn_rotation(turn_rotation(rotation, 0.4), -0.4)
    np.testing.assert_allclose(turned, rotation, atol=1e-12)
    np.testing.assert_allclose(
        rotation_to_euler(mirror_rotation(rotation)), [[-20.0, -10.0, -5.0]], atol=1e-9
    )


def test_a_set_without_scheme_is_never_mirrored() -> None:
    drawn = [
        draw_geometry(np.random.default_rng(i), RECIPE, can_mirror=False).mirrored
        for i in range(20)
    ]
    assert not any(drawn)


def test_photometric_keeps_its_input_and_form() -> None:
    image = np.full((48, 48, 3), 90, np.uint8)
    image.flags.writeable = False
    always = Recipe(grey=1.0, blur=1.0, noise=1.0, occlusion=1.0)
    changed = photometric(image, np.random.default_rng(0), always)
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    assert (image == 90).all()
    assert changed.std() > 1
    same = photometric(image, np.random.default_rng(0), Recipe(**PLAIN))  # type: ignore[arg-type]
    np.testing.assert_array_equal(same, image)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": None}, "no image"),
        ({"points": np.zeros((5, 2)), "visibility": None, "scheme": None}, "expected the same"),
        ({"points": np.full((68, 2), np.nan)}, "missing"),
        ({"points": np.full((68, 2), 7.0)}, "all points are equal"),
    ],
)
def test_what_cannot_be_trained_on_is_named(
    faces: list[Annotation], change: dict[str, object], message: str
) -> None:
    broken = replace(faces[1], name="broken", **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message) as error:
        LandmarkDataset([faces[0], broken], RECIPE, IBUG)
    assert "broken" in str(error.value)


def test_an_empty_set_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        LandmarkDataset([], RECIPE, IBUG)
