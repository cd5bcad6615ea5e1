"""The One-Euro filter: what it follows exactly, what it lags, what it takes away."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asmkit.one_euro import OneEuro

Doubles = npt.NDArray[np.float64]


def run(
    parameters: OneEuro,
    samples: npt.ArrayLike,
    fps: float = 25.0,
    unit: float = 1.0,
    period: float | None = None,
) -> Doubles:
    follow = parameters.start(period)
    return np.array([follow(x, t / fps, unit) for t, x in enumerate(np.asarray(samples))])


def by_hand(parameters: OneEuro, samples: Doubles, fps: float) -> Doubles:
    """Casiez, Roussel and Vogel's listing, for one number."""

    def alpha(cutoff: float) -> float:
        tau = 1 / (2 * math.pi * cutoff)
        return 1 / (1 + tau * fps)

    result, speed = samples[0], 0.0
    results = [result]
    for before, now in itertools.pairwise(samples):
        a = alpha(parameters.d_cutoff)
        speed = a * (now - before) * fps + (1 - a) * speed
        a = alpha(parameters.min_cutoff + parameters.beta * abs(speed))
        result = a * now + (1 - a) * result
        results.append(result)
    return np.array(results)


@given(
    st.floats(0.1, 10), st.floats(0, 20), st.floats(0.1, 10), st.floats(5, 120), st.integers(0, 99)
)
def test_one_number_is_the_paper_s_filter(
    low: float, beta: float, d: float, fps: float, seed: int
) -> None:
    parameters = OneEuro(low, beta, d)
    samples = np.random.default_rng(seed).normal(size=12).cumsum()
    np.testing.assert_allclose(
        run(parameters, samples[:, None], fps)[:, 0], by_hand(parameters, samples, fps), rtol=1e-9
    )


@pytest.mark.parametrize("fps", [10.0, 25.0, 60.0])
@pytest.mark.parametrize("speed", [0.0, 0.3, 2.0])
def test_the_lag_on_a_ramp_is_the_closed_form(fps: float, speed: float) -> None:
    parameters = OneEuro(min_cutoff=1.2, beta=3.0, d_cutoff=1.0)
    times = np.arange(int(20 * fps)) / fps
    direction = np.array([0.6, -0.8])
    ramp = times[:, None] * speed * direction
    behind = (ramp - run(parameters, ramp, fps))[-1]
    np.testing.assert_allclose(behind, speed * parameters.lag(speed) * direction, atol=1e-9)


def test_what_rests_is_left_alone(rng: np.random.Generator) -> None:
    shape = rng.normal(size=(5, 2))
    filtered = run(OneEuro(), [shape] * 7)
    np.testing.assert_array_equal(filtered, [shape] * 7)


def test_jitter_becomes_less_with_a_lower_cutoff(rng: np.random.Generator) -> None:
    noise = rng.normal(size=(400, 30, 2))
    left = [run(OneEuro(cutoff, beta=0.0), noise)[50:].std() for cutoff in (8.0, 2.0, 0.5)]
    assert left == sorted(left, reverse=True)
    # A first-order low-pass of weight a leaves a / (2 − a) of the variance of white noise.
    a = 1 / (1 + 25 / (2 * math.pi * 2.0))
    assert left[1] == pytest.approx(math.sqrt(a / (2 - a)), rel=0.05)


def test_filtering_follows_similarities(rng: np.random.Generator) -> None:
    path = rng.normal(size=(30, 4, 2)).cumsum(axis=0)
    c, s = math.cos(0.7), math.sin(0.7)
    turn, scale, shift = np.array([[c, -s], [s, c]]), 3.5, np.array([-4.0, 11.0])
    moved = scale * path @ turn.T + shift
    expected = scale * run(OneEuro(), path) @ turn.T + shift
    np.testing.assert_allclose(run(OneEuro(), moved, unit=scale), expected, atol=1e-9)


def test_points_are_filtered_each_on_its_own(rng: np.random.Generator) -> None:
    path = rng.normal(size=(20, 6, 2)).cumsum(axis=0)
    alone = [run(OneEuro(), path[:, i]) for i in range(6)]
    np.testing.assert_array_equal(run(OneEuro(), path), np.stack(alone, axis=1))


def test_a_point_that_was_missing_begins_anew(rng: np.random.Generator) -> None:
    path = rng.normal(size=(12, 2, 2)).cumsum(axis=0)
    gap = path.copy()
    gap[4:6, 0] = np.nan
    filtered = run(OneEuro(), gap)
    assert np.isnan(filtered[4:6, 0]).all()
    np.testing.assert_array_equal(filtered[6, 0], path[6, 0])
    np.testing.assert_allclose(filtered[6:, 0], run(OneEuro(), path[6:, 0]))
    np.testing.assert_array_equal(filtered[:, 1], run(OneEuro(), path)[:, 1])


@given(st.floats(-180, 179), st.integers(0, 50))
def test_angles_have_no_seam(offset: float, seed: int) -> None:
    angles = np.random.default_rng(seed).normal(scale=5, size=(15, 3, 1)).cumsum(axis=0)
    there = run(OneEuro(), angles, period=360.0, unit=60.0) + offset
    seen = (angles + offset + 180) % 360 - 180
    found = run(OneEuro(), seen, period=360.0, unit=60.0)
    assert (np.abs(found) <= 180).all()
    np.testing.assert_allclose((found - there + 180) % 360 - 180, 0, atol=1e-9)


def test_uneven_times_count() -> None:
    follow = OneEuro(beta=0.0).start()
    follow([0.0], 0.0)
    soon = follow([1.0], 0.01)
    follow = OneEuro(beta=0.0).start()
    follow([0.0], 0.0)
    assert follow([1.0], 1.0) > soon


@pytest.mark.parametrize(
    "wrong", [{"min_cutoff": 0.0}, {"d_cutoff": -1.0}, {"beta": -0.1}, {"beta": math.nan}]
)
def test_wrong_parameters_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        OneEuro(**wrong)


def test_wrong_samples_are_errors() -> None:
    follow = OneEuro().start()
    follow([1.0, 2.0], 1.0)
    with pytest.raises(ValueError, match="expected the time to go on"):
        follow([1.0, 2.0], 1.0)
    with pytest.raises(ValueError, match="another thing"):
        follow([1.0, 2.0, 3.0], 2.0)
    with pytest.raises(ValueError, match="unit"):
        follow([1.0, 2.0], 2.0, unit=0.0)
