"""The mean shape fills each box, and knows nothing else of the face."""

from __future__ import annotations

import numpy as np
import pytest

from asmkit.baseline import mean_in_boxes
from asmkit.boxes import landmark_box

BOXES = np.array([[3.0, -4.0, 20.0, 50.0], [100.0, 7.5, 0.25, 3.0]])


def test_the_mean_fills_each_box(rng: np.random.Generator) -> None:
    mean = rng.normal(size=(9, 2))
    np.testing.assert_allclose(landmark_box(mean_in_boxes(mean, BOXES)), BOXES, atol=1e-12)


def test_place_and_size_of_the_mean_do_not_count(rng: np.random.Generator) -> None:
    mean = rng.normal(size=(9, 2))
    moved = mean * [3.0, 0.2] + [50.0, -7.0]
    np.testing.assert_allclose(mean_in_boxes(moved, BOXES), mean_in_boxes(mean, BOXES), atol=1e-11)


def test_it_is_the_mean_itself_in_its_own_box(rng: np.random.Generator) -> None:
    mean = rng.normal(size=(9, 2))
    np.testing.assert_allclose(mean_in_boxes(mean, landmark_box(mean))[0], mean, atol=1e-12)


def test_a_missed_face_stays_missed() -> None:
    placed = mean_in_boxes([[0.0, 0.0], [1.0, 1.0]], [BOXES[0], [np.nan] * 4])
    assert np.isfinite(placed[0]).all()
    assert np.isnan(placed[1]).all()


def test_a_mean_without_width_goes_to_the_middle() -> None:
    placed = mean_in_boxes([[5.0, 0.0], [5.0, 1.0]], BOXES[:1])
    np.testing.assert_array_equal(placed[0], [[13.0, -4.0], [13.0, 46.0]])


def test_no_mean_and_no_boxes_are_refused() -> None:
    with pytest.raises(ValueError, match="mean"):
        mean_in_boxes([[0.0, np.nan], [1.0, 1.0]], BOXES)
    with pytest.raises(ValueError, match="boxes: row 0"):
        mean_in_boxes([[0.0, 0.0], [1.0, 1.0]], [[0.0, 0.0, np.nan, 3.0]])
    with pytest.raises(ValueError, match="boxes: got shape"):
        mean_in_boxes([[0.0, 0.0], [1.0, 1.0]], [[0.0, 0.0, 1.0]])
