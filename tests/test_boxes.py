import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from asmkit.boxes import (
    apply_affine,
    as_boxes,
    compose_affine,
    crop_transform,
    invert_affine,
    iou,
    landmark_box,
)

coordinates = st.floats(-1e4, 1e4, allow_subnormal=False)
sides = st.floats(0.1, 1e4)
boxes = st.tuples(coordinates, coordinates, sides, sides).map(np.array)


def corners(box):
    x, y, w, h = box
    return np.array([[x, y], [x + w, y], [x, y + h], [x + w, y + h]])


@given(arrays(np.float64, (5, 2), elements=coordinates))
def test_the_landmark_box_is_the_smallest_that_holds_every_point(points):
    x, y, w, h = landmark_box(points)
    assert (points.min(axis=0) == [x, y]).all()
    assert points.max(axis=0) == pytest.approx([x + w, y + h], abs=1e-9)


def test_landmark_boxes_leave_missing_points_out(rng):
    points = rng.normal(size=(2, 3, 7, 3)).astype(np.float32)
    points[1, 2, 4:] = np.nan
    expected = [[landmark_box(shape[~np.isnan(shape[:, 0])]) for shape in row] for row in points]
    assert np.array_equal(landmark_box(points), expected)
    assert landmark_box(points).dtype == np.float64
    assert np.isnan(landmark_box(np.full((4, 2), np.nan))).all()
    assert landmark_box(np.zeros((0, 4, 2))).shape == (0, 4)


def test_as_boxes_gives_rows():
    assert as_boxes([1, 2, 3, 4]).shape == (1, 4)
    assert as_boxes(np.zeros((0, 4))).shape == (0, 4)
    assert as_boxes([]).shape == (0, 4)
    assert as_boxes([[0, 0, 0, 5]]).dtype == np.float64


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2, 3], r"shape \(3,\), expected \(n, 4\)"),
        (np.zeros((2, 2, 4)), r"shape \(2, 2, 4\)"),
        ([[0, 0, 1, 1], [0, 0, -1, 1]], r"row 1 is \[0.0, 0.0, -1.0, 1.0\]"),
        ([[0, np.nan, 1, 1]], "row 0"),
        ([[0, 0, np.inf, 1]], "row 0"),
    ],
)
def test_as_boxes_refuses_what_is_no_box(values, message):
    with pytest.raises(ValueError, match=message):
        as_boxes(values)


@given(boxes, boxes)
def test_iou_is_symmetric_between_0_and_1_and_1_with_itself(a, b):
    assert iou(a, b) == pytest.approx(iou(b, a))
    assert 0 <= iou(a, b) <= 1
    assert iou(a, a) == pytest.approx(1, rel=1e-9)


def test_iou_of_known_boxes_by_broadcasting():
    some = np.array([[0, 0, 2, 2], [1, 1, 2, 2], [5, 5, 1, 1], [3, 3, 0, 0]])
    expected = [[1, 1 / 7, 0, 0], [1 / 7, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert iou(some[:, None], some) == pytest.approx(np.array(expected))


@given(boxes, st.integers(1, 300), st.floats(0.5, 3))
def test_the_crop_shows_the_square_around_the_box(box, size, margin):
    matrix = crop_transform(box, size, margin)[0]
    centre = box[:2] + box[2:] / 2
    reach = margin * box[2:].max() / 2
    edges = np.array([centre - reach, centre, centre + reach])
    expected = [-0.5, (size - 1) / 2, size - 0.5]
    mapped = apply_affine(matrix, edges)
    assert np.abs(mapped - np.array(expected)[:, None]).max() < 1e-9 * (1 + size * 1e5)


@given(boxes, boxes, st.floats(0.01, 100), coordinates, coordinates)
def test_crop_coordinates_do_not_change_when_image_and_box_move_together(
    box, seen, scale, shift_x, shift_y
):
    shift = np.array([shift_x, shift_y])
    moved = np.concatenate([scale * box[:2] + shift, scale * box[2:]])
    before = apply_affine(crop_transform(box, 64)[0], corners(seen))
    after = apply_affine(crop_transform(moved, 64)[0], scale * corners(seen) + shift)
    assert np.allclose(before, after, rtol=1e-6, atol=1e-3)


def test_a_batch_of_crop_transforms_equals_single_ones(rng):
    some = rng.uniform(1, 50, size=(6, 4))
    assert np.array_equal(crop_transform(some, 32), [crop_transform(box, 32)[0] for box in some])
    assert crop_transform(np.zeros((0, 4)), 32).shape == (0, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0, 0, 1, 1], [3, 3, 0, 0]], 32), "row 1 has no extent"),
        (([0, 0, 1, 1], 0), "size 0"),
        (([0, 0, 1, 1], 32, 0.0), "margin 0.0"),
        (([0, 0, 1, 1], 32, np.nan), "margin nan"),
    ],
)
def test_crop_transform_refuses_what_has_no_square(arguments, message):
    with pytest.raises(ValueError, match=message):
        crop_transform(*arguments)


def test_a_box_without_height_can_be_cropped():
    assert np.isfinite(crop_transform([0, 0, 4, 0], 8)).all()


def test_affine_maps_form_a_group(rng):
    a, b = rng.normal(size=(2, 4, 2, 3))
    points = rng.normal(size=(4, 9, 2))
    there = apply_affine(a, points)
    assert np.allclose(apply_affine(invert_affine(a), there), points)
    assert np.allclose(apply_affine(compose_affine(b, a), points), apply_affine(b, there))
    assert np.allclose(compose_affine(invert_affine(a), a), np.eye(2, 3))


def test_apply_affine_broadcasts_and_keeps_missing_points_and_float32(rng):
    matrix = rng.normal(size=(2, 3))
    points = rng.normal(size=(3, 5, 2)).astype(np.float32)
    points[0, 1] = np.nan
    mapped = apply_affine(matrix, points)
    assert mapped.dtype == np.float32
    assert np.array_equal(np.isnan(mapped), np.isnan(points))
    assert np.allclose(mapped[1], [matrix[:, :2] @ p + matrix[:, 2] for p in points[1]], atol=1e-5)
    assert apply_affine(rng.normal(size=(3, 2, 3)), points[0]).shape == (3, 5, 2)


def test_a_singular_map_has_no_inverse():
    with pytest.raises(np.linalg.LinAlgError):
        invert_affine(np.ones((2, 3)))
