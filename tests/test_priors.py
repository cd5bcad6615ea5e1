import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from asmkit.priors import Box

VARIANCES = np.array([4.0, 1.0, 0.25])
coefficients = arrays(
    np.float64, st.tuples(st.integers(0, 6), st.just(3)), elements=st.floats(-9, 9)
)


@given(b=coefficients, limit=st.floats(0.01, 4))
def test_box_gives_the_nearest_coefficients_within_the_limit(b, limit):
    kept = Box(limit).apply(b, VARIANCES)
    assert np.all(np.abs(kept) <= limit)
    inside = np.abs(b) <= limit
    assert np.array_equal(kept[inside], b[inside])
    assert np.all(np.abs(kept)[~inside] == limit)
    assert np.all(kept * b >= 0)


@given(b=coefficients)
def test_applying_the_box_twice_changes_nothing(b):
    once = Box(1.5).apply(b, VARIANCES)
    assert np.array_equal(Box(1.5).apply(once, VARIANCES), once)


def test_the_usual_box_has_three_standard_deviations():
    assert Box() == Box(3.0)
    assert Box().apply(np.full((1, 3), 99.0), VARIANCES).tolist() == [[3.0, 3.0, 3.0]]


def test_an_infinite_box_clamps_nothing():
    b = np.array([[1e9, -1e9, 0.0]])
    assert np.array_equal(Box(math.inf).apply(b, VARIANCES), b)


def test_box_keeps_float32_and_leaves_its_input_alone():
    b = np.full((2, 3), 99, np.float32)
    b.flags.writeable = False
    kept = Box().apply(b, VARIANCES)
    assert kept.dtype == np.float32
    assert np.all(b == 99)


@pytest.mark.parametrize("limit", [0, -1, math.nan])
def test_a_box_without_room_is_refused(limit):
    with pytest.raises(ValueError, match="above 0"):
        Box(limit)
