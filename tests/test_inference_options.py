"""Looking twice: into the mirror, and into the box of what was found."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import asmkit
from asmkit.boxes import landmark_box
from asmkit.datasets import SyntheticFaces, synthetic_faces
from asmkit.pose import euler_to_rotation, rotation_to_euler
from asmkit.predictor import Predictor

Doubles = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]
MIRROR = list(asmkit.scheme("ibug68").mirror)
SIGNS = np.array([-1.0, 1.0, -1.0])


@pytest.fixture(scope="module")
def faces() -> SyntheticFaces:
    return synthetic_faces(4, 5, size=128)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return asmkit.load("rendered-ibug68", threads=1)


def boxes_of(faces: SyntheticFaces, rng: np.random.Generator) -> Doubles:
    """Boxes as a detector gives them: not quite those of the landmarks."""
    boxes = landmark_box(faces.points)
    return boxes + rng.uniform(-6, 6, boxes.shape)


def mirrored_boxes(boxes: Doubles, width: int) -> Doubles:
    return np.column_stack([width - 1 - boxes[:, 0] - boxes[:, 2], boxes[:, 1:]])


def mirrored_points(points: Doubles, width: int) -> Doubles:
    there = points[:, MIRROR].copy()
    there[..., 0] = width - 1 - there[..., 0]
    return there


def enlarged(image: Image, by: int) -> Image:
    return image.repeat(by, axis=0).repeat(by, axis=1)


@pytest.mark.parametrize("passes", [1, 2, 3])
@pytest.mark.parametrize("by", [1, 5])  # 5: the crop is an average of blocks of pixels
def test_with_flip_the_mirrored_image_has_the_mirrored_answer(
    predictor: Predictor,
    faces: SyntheticFaces,
    rng: np.random.Generator,
    passes: int,
    by: int,
) -> None:
    image = enlarged(faces.images[0], by)[:, : 120 * by]
    boxes, width = by * boxes_of(faces, rng), image.shape[1]
    options: dict[str, Any] = {"flip": True, "passes": passes}
    here = predictor.predict(image, boxes, **options)
    there = predictor.predict(image[:, ::-1], mirrored_boxes(boxes, width), **options)
    np.testing.assert_allclose(there.points, mirrored_points(here.points, width), rtol=0, atol=1e-4)
    np.testing.assert_allclose(there.pose, here.pose * SIGNS, rtol=0, atol=1e-4)
    np.testing.assert_allclose(there.face, here.face, rtol=0, atol=1e-5)


def test_flip_is_the_mean_of_both_answers(
    predictor: Predictor, faces: SyntheticFaces, rng: np.random.Generator
) -> None:
    image, boxes = faces.images[1], boxes_of(faces, rng)
    width = image.shape[1]
    one = predictor.predict(image, boxes)
    other = predictor.predict(image[:, ::-1], mirrored_boxes(boxes, width))
    both = predictor.predict(image, boxes, flip=True)
    expected = (one.points + mirrored_points(other.points, width)) / 2
    np.testing.assert_allclose(both.points, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(both.pose, (one.pose + other.pose * SIGNS) / 2, rtol=0, atol=1e-4)
    assert np.abs(both.points - one.points).max() > 0.01


def test_the_second_pass_looks_where_the_first_found_a_face(
    predictor: Predictor, faces: SyntheticFaces, rng: np.random.Generator
) -> None:
    image, boxes = faces.images[2], boxes_of(faces, rng)[2:3]
    first = predictor.predict(image, boxes)
    by_hand = predictor.predict(image, landmark_box(first.points))
    twice = predictor.predict(image, boxes, passes=2)
    np.testing.assert_array_equal(twice.points, by_hand.points)
    np.testing.assert_array_equal(twice.pose, by_hand.pose)
    np.testing.assert_array_equal(twice.boxes, boxes)


def test_without_options_nothing_changes(predictor: Predictor, faces: SyntheticFaces) -> None:
    image, boxes = faces.images[0], landmark_box(faces.points[:2])
    plain = predictor.predict(image, boxes)
    same = predictor.predict(image, boxes, flip=False, passes=1)
    np.testing.assert_array_equal(plain.points, same.points)
    np.testing.assert_array_equal(plain.pose, same.pose)


@pytest.mark.parametrize(("passes", "flip", "sizes"), [(1, True, [8]), (2, False, [4, 4])])
def test_all_crops_of_a_pass_go_in_one_batch(
    faces: SyntheticFaces, passes: int, flip: bool, sizes: list[int]
) -> None:
    seen: list[int] = []

    def run(crops: Image) -> list[Doubles]:
        seen.append(len(crops))
        return [np.tile(faces.points[0], (len(crops), 1, 1)), np.zeros((len(crops), 3))]

    network = Predictor(run, {**DESCRIPTION, "scheme": "ibug68"}, "none")
    network.predict(faces.images[0], landmark_box(faces.points), flip=flip, passes=passes)
    assert seen == sizes


DESCRIPTION = {"n_points": 68, "input_size": 64, "margin": 1.25, "scheme": None}


def test_angles_are_averaged_the_shorter_way_around(faces: SyntheticFaces) -> None:
    def run(crops: Image) -> list[Doubles]:
        # Of an upside-down face: roll 178° in the image, and in the mirror −178° seen as 176°.
        pose = [[10.0, 5.0, 178.0], [-20.0, 7.0, 176.0]]
        return [np.tile(faces.points[0], (2, 1, 1)), np.array(pose)]

    network = Predictor(run, {**DESCRIPTION, "scheme": "ibug68"}, "none")
    pose = network.predict(faces.images[0], landmark_box(faces.points[:1]), flip=True).pose
    np.testing.assert_allclose(pose, [[15.0, 6.0, -179.0]], atol=1e-9)


def test_a_mirror_changes_the_sign_of_yaw_and_roll(rng: np.random.Generator) -> None:
    angles = rng.uniform([-80, -80, -170], [80, 80, 170], (50, 3))
    mirror = np.diag([-1.0, 1.0, 1.0])
    mirrored = rotation_to_euler(mirror @ euler_to_rotation(angles) @ mirror)
    np.testing.assert_allclose(mirrored, angles * SIGNS, atol=1e-9)


def test_landmarks_that_span_no_box_leave_the_box(faces: SyntheticFaces) -> None:
    def run(crops: Image) -> list[Doubles]:
        return [np.full((len(crops), 68, 2), 20.0), np.zeros((len(crops), 3))]

    network = Predictor(run, DESCRIPTION, "none")
    boxes = landmark_box(faces.points)
    once, twice = (network.predict(faces.images[0], boxes, passes=n).points for n in (1, 2))
    np.testing.assert_array_equal(once, twice)


def test_no_faces_stay_no_faces(predictor: Predictor) -> None:
    found = predictor.predict(np.zeros((80, 90, 3), np.uint8), flip=True, passes=2)
    assert found.points.shape == (0, 68, 2)
    assert found.pose.shape == (0, 3)
    assert found.face.shape == (0,)


def test_wrong_options_are_errors(faces: SyntheticFaces, predictor: Predictor) -> None:
    nameless = Predictor(lambda crops: [], DESCRIPTION, "none")
    with pytest.raises(ValueError, match="flip: the landmarks of this network are of no known"):
        nameless.predict(faces.images[0], flip=True)
    for passes in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match=r"passes: got .*expected a whole number from 1 on"):
            predictor.predict(faces.images[0], passes=passes)  # type: ignore[arg-type]


def test_evaluate_looks_as_it_is_told(predictor: Predictor, tmp_path: Any) -> None:
    annotations = synthetic_faces(3, 6, size=96).save(tmp_path)
    evaluation = asmkit.evaluate(predictor, annotations, flip=True, passes=2)
    assert (evaluation.summary["flip"], evaluation.summary["passes"]) == (True, 2)
    for annotation, points in zip(annotations, evaluation.points, strict=True):
        assert annotation.image is not None
        found = predictor.predict(
            asmkit.read_image(annotation.image),
            landmark_box(annotation.points),
            flip=True,
            passes=2,
        )
        np.testing.assert_array_equal(points, found.points[0])
