import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from shape_families import family, relative_distance, size_of

from asmkit import ShapeModel, smooth_targets
from asmkit.priors import Box, Ellipsoid, Gaussian, Unbounded

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


# all of them

PRIORS = [Box(2.0), Ellipsoid(0.9), Gaussian(0.5), Unbounded()]
priors = pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: type(prior).__name__)


@priors
@given(b=coefficients)
def test_no_prior_turns_or_lengthens_a_coefficient(prior, b):
    kept = prior.apply(b, VARIANCES)
    assert kept.shape == b.shape
    assert np.all(np.abs(kept) <= np.abs(b) * (1 + 1e-12))
    assert np.all(kept * b >= 0)


@priors
def test_every_prior_keeps_float32_and_leaves_its_input_alone(prior):
    b = np.linspace(-9, 9, 12, dtype=np.float32).reshape(4, 3)
    b.flags.writeable = False
    before = b.copy()
    kept = prior.apply(b, VARIANCES)
    assert kept.dtype == np.float32
    assert np.array_equal(b, before)
    assert kept.flags.writeable
    assert np.allclose(kept, prior.apply(b.astype(float), VARIANCES), atol=1e-5)


@priors
def test_every_prior_takes_no_shapes_and_the_mean(prior):
    assert prior.apply(np.zeros((0, 3)), VARIANCES).shape == (0, 3)
    assert np.array_equal(prior.apply(np.zeros((2, 3)), VARIANCES), np.zeros((2, 3)))


# the ellipsoid


@given(b=coefficients, level=st.floats(0.05, 0.999))
def test_ellipsoid_holds_what_it_gives_and_keeps_what_it_holds(b, level):
    prior = Ellipsoid(level)
    radius = prior.radius(3)
    kept = prior.apply(b, VARIANCES)
    length = np.linalg.norm(kept, axis=1)
    assert np.all(length <= radius * (1 + 1e-12))
    inside = np.linalg.norm(b, axis=1) <= radius
    assert np.array_equal(kept[inside], b[inside])
    assert np.allclose(length[~inside], radius)
    assert np.array_equal(prior.apply(kept, VARIANCES), kept)


def test_ellipsoid_gives_the_nearest_shape_of_all_inside(rng):
    prior = Ellipsoid(0.5)
    z = 4 * rng.normal(size=(50, 3))
    kept = prior.apply(z, VARIANCES)
    units = np.sqrt(VARIANCES)
    distance = np.linalg.norm((kept - z) * units, axis=1)
    directions = rng.normal(size=(4000, 3))
    directions *= prior.radius(3) / np.linalg.norm(directions, axis=1, keepdims=True)
    others = np.linalg.norm((directions[None] - z[:, None]) * units, axis=2).min(axis=1)
    outside = np.linalg.norm(z, axis=1) > prior.radius(3)
    assert outside.sum() > 20
    assert np.all(distance[outside] <= others[outside] + 1e-9)


def test_ellipsoid_holds_the_stated_share_of_normal_shapes(rng):
    z = rng.normal(size=(40_000, 6))
    prior = Ellipsoid(0.8)
    same = (prior.apply(z, np.geomspace(1, 1e-6, 6)) == z).all(axis=1)
    assert abs(same.mean() - 0.8) < 0.01


def test_ellipsoid_works_with_variances_of_very_different_sizes(rng):
    variances = np.geomspace(1e3, 1e-12, 40)
    z = 30 * rng.normal(size=(100, 40))
    kept = Ellipsoid(0.99).apply(z, variances)
    assert np.allclose(np.linalg.norm(kept, axis=1), Ellipsoid(0.99).radius(40), rtol=1e-12)


@pytest.mark.parametrize("level", [0, 1, -1, 95, math.nan])
def test_an_ellipsoid_without_a_level_is_refused(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Ellipsoid(level)


# the Gaussian


def test_gaussian_gives_the_most_probable_coefficients(rng):
    raw, noise = rng.normal(size=(6, 3)), 0.7
    units = np.sqrt(VARIANCES)
    kept = Gaussian(noise).apply(raw / units, VARIANCES) * units

    def cost(b):
        return np.sum((b - raw) ** 2, axis=1) / noise**2 + np.sum(b**2 / VARIANCES, axis=1)

    for step in 1e-3 * rng.normal(size=(20, 3)):
        assert np.all(cost(kept + step) > cost(kept))


@pytest.mark.parametrize("noise", [0, -1, math.inf, math.nan])
def test_a_gaussian_without_noise_says_that_it_would_do_nothing(noise):
    with pytest.raises(ValueError, match="Unbounded"):
        Gaussian(noise)


# in a model


@pytest.mark.parametrize("d", [2, 3])
@priors
def test_every_prior_serves_smooth_constrain_and_targets(prior, d, rng):
    shapes = family(rng, 80, 9, d)
    model = ShapeModel(5).fit(shapes)
    wild = shapes[:20] + 0.1 * size_of(shapes[:20])[:, None, None] * rng.normal(size=(20, 9, d))
    smoothed, nearest = model.smooth(wild, prior=prior), model.constrain(wild, prior)
    targets = smooth_targets(model, wild, prior=prior, normalizer=size_of(wild))
    assert np.array_equal(targets.shapes, smoothed)
    misfit = [np.linalg.norm(x - wild, axis=(1, 2)) for x in (nearest, smoothed)]
    if not isinstance(prior, Gaussian):  # whose optimum is not the nearest shape
        assert np.all(misfit[0] <= misfit[1] * (1 + 1e-9))
        again = model.constrain(nearest, prior)
        assert relative_distance(again, nearest) < 1e-8
    report = model.clamped(wild, prior=prior)
    assert np.allclose(report.before, model.transform(wild) / np.sqrt(model.explained_variance_))
    assert report.changed.any() == (not isinstance(prior, Unbounded))
    assert report.n_changed == targets.report.n_clamped
    assert np.array_equal(report.changed_per_mode, targets.report.clamped_per_mode)
    assert np.all(report.shrinkage <= 1 + 1e-12)
    assert np.all((report.shrinkage < 1) == report.changed.any(axis=1))


@pytest.mark.parametrize("d", [2, 3])
def test_the_box_clamps_although_nothing_was_discarded(d, rng):
    """Peers' only prior vanishes where no variance was left out."""
    shapes = family(rng, 20, 9, d)
    model = ShapeModel(1.0).fit(shapes)
    wild = shapes + size_of(shapes)[:, None, None] * rng.normal(size=shapes.shape)
    for prior in (Box(1.0), Ellipsoid(0.5), Gaussian(0.1)):
        assert model.clamped(wild, prior=prior).n_changed == 20
