"""Rules for the number of modes find what was planted, and no more."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from asmkit.mode_count import (
    _independent,
    _wishart_factor,
    broken_stick,
    cross_validated_likelihood,
    parallel_analysis,
)

NONE = np.zeros((0, 20))


def factors(rng, n, k, q=20, strength=3.0, noise=1.0):
    """Rows (n, q) with k strong factors in noise of uneven variance."""
    loadings = np.linalg.qr(rng.normal(size=(q, k)))[0].T * strength * np.sqrt(q)
    return rng.normal(size=(n, k)) @ loadings + noise * rng.normal(size=(n, q))


def orthonormal(rng, f, q=20):
    return np.linalg.qr(rng.normal(size=(q, f)))[0].T


def spectrum(rows):
    values = np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2 / (len(rows) - 1)
    return values[values > 1e-12 * values[0]], rows.var(axis=0, ddof=1)


# broken stick


def test_broken_stick_compares_with_the_expected_pieces(rng):
    """The mean of the sorted pieces of sticks broken at random is what variances must exceed."""
    cuts = np.sort(rng.random((20_000, 3)), axis=1)
    pieces = np.diff(np.pad(cuts, ((0, 0), (1, 1)), constant_values=((0, 0), (0, 1))), axis=1)
    expected = np.sort(pieces, axis=1)[:, ::-1].mean(axis=0)
    step = np.array([0.01, 0.01, 0.0, -0.02])
    assert broken_stick(expected + step) == 2
    assert broken_stick(expected - step) == 1


def test_broken_stick_needs_no_scale_and_gives_one_at_least():
    values = np.array([8.0, 4.0, 0.5, 0.3, 0.2])
    assert broken_stick(values) == broken_stick(1e-9 * values)
    assert broken_stick(np.ones(7)) == 1
    assert broken_stick([3.0]) == 1


def test_broken_stick_of_the_first_variances_equals_that_of_all():
    values = np.array([8.0, 4.0, 3.0, 0.3, 0.2, 0.1])
    assert broken_stick(values[:3], values.sum(), n_directions=6) == broken_stick(values)


# parallel analysis


@pytest.mark.parametrize(("size", "degrees"), [(4, 9), (6, 3), (5, 5)])
def test_the_simulated_factor_has_wishart_moments(rng, size, degrees):
    """E W = m I and Var W_ij = m (1 + δ_ij), m the degrees of freedom, full rank or not."""
    n = 4000
    factors = [_wishart_factor(size, degrees, rng) for _ in range(n)]
    drawn = np.stack([factor @ factor.T for factor in factors])
    variances = degrees * (1 + np.eye(size))
    assert np.abs(drawn.mean(axis=0) - degrees * np.eye(size)).max() < 5 * np.sqrt(2 * degrees / n)
    np.testing.assert_allclose(drawn.var(axis=0), variances, rtol=0.25)


def test_simulated_rows_have_the_marginal_variances_after_the_projection(rng):
    fixed = orthonormal(rng, 4)
    rows = rng.normal(size=(60, 20)) * np.linspace(1, 2, 20)
    marginals = (rows - rows @ fixed.T @ fixed).var(axis=0)
    projection = np.eye(20) - fixed.T @ fixed
    left = projection @ np.diag(_independent(marginals, fixed)) @ projection
    np.testing.assert_allclose(np.diag(left), marginals, rtol=0.02)


@pytest.mark.parametrize(
    ("n", "k"), [(15, 0), (15, 1), (60, 0), (60, 1), (60, 3), (3000, 0), (3000, 1), (3000, 3)]
)
def test_parallel_analysis_finds_the_planted_factors(rng, n, k):
    rows = factors(rng, n, k) * np.linspace(1, 1.5, 20)
    fixed = orthonormal(rng, 4)
    rows -= rows @ fixed.T @ fixed
    variances, marginals = spectrum(rows)
    assert parallel_analysis(variances, marginals, n, fixed) == max(k, 1)


def test_parallel_analysis_repeats_and_needs_no_scale(rng):
    variances, marginals = spectrum(factors(rng, 40, 5, strength=0.5))
    first = parallel_analysis(variances, marginals, 40, NONE, random_state=3)
    again = parallel_analysis(1e-8 * variances, 1e-8 * marginals, 40, NONE, random_state=3)
    assert first == again


def test_constant_coordinates_ask_for_no_modes(rng):
    rows = np.zeros((50, 20))
    rows[:, :6] = rng.normal(size=(50, 6))
    assert parallel_analysis(*spectrum(rows), 50, NONE) == 1


# cross-validated likelihood


@pytest.mark.parametrize("k", [1, 3, 6])
def test_held_out_likelihood_finds_the_planted_factors(rng, k):
    found = cross_validated_likelihood(factors(rng, 150, k), NONE)
    assert found.n_components == k
    assert found.scores.shape == (19,)
    assert np.argmax(found.scores) == k - 1


def test_scores_are_log_densities_of_the_free_directions(rng):
    """scipy's density of the same normal distribution, in coordinates of the free directions."""
    rows, fixed = factors(rng, 24, 2, q=7), orthonormal(rng, 2, q=7)
    free = np.linalg.svd(fixed)[2][2:]
    folds = [np.arange(24) % 2 == i for i in range(2)]
    groups = np.arange(24) % 2  # two groups in two folds: known whatever the seed
    found = cross_validated_likelihood(rows, fixed, folds=2, groups=groups, candidates=[1, 3])
    expected = np.zeros(2)
    for held in folds:
        train, test = rows[~held] @ free.T, rows[held] @ free.T
        values, vectors = np.linalg.eigh(np.cov(train.T))
        for column, k in enumerate((1, 3)):
            noise = values[: 5 - k].mean()
            covariance = vectors @ np.diag(np.r_[np.full(5 - k, noise), values[5 - k :]])
            density = multivariate_normal(train.mean(0), covariance @ vectors.T)
            expected[column] += density.logpdf(test).sum() / 24
    np.testing.assert_allclose(found.scores, expected, rtol=1e-10)


def test_moves_along_fixed_directions_change_nothing(rng):
    rows, fixed = factors(rng, 40, 2), orthonormal(rng, 3)
    moved = rows + 100 * rng.normal(size=(40, 3)) @ fixed
    first = cross_validated_likelihood(rows, fixed)
    np.testing.assert_allclose(cross_validated_likelihood(moved, fixed).scores, first.scores)


def test_copies_are_no_evidence_when_held_out_together(rng):
    """Each row twice: on their own, copies in other folds give the row away."""
    rows = np.tile(factors(rng, 16, 1), (2, 1))
    together = cross_validated_likelihood(rows, NONE, groups=np.arange(32) % 16)
    assert together.n_components == 1
    assert cross_validated_likelihood(rows, NONE).n_components > 5


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: broken_stick([1.0, 2.0]), "falling order"),
        (lambda: broken_stick([]), "one or more"),
        (lambda: broken_stick([0.0, 0.0]), "above 0"),
        (lambda: broken_stick([2.0, 1.0], 2.5), "total"),
        (lambda: broken_stick([2.0, 1.0], n_directions=1), "n_directions"),
        (lambda: parallel_analysis([1.0], [np.nan] * 20, 9, NONE), "marginal_variances"),
        (lambda: parallel_analysis([1.0], np.ones(20), 1, NONE), "n_samples=1"),
        (lambda: parallel_analysis([1.0], np.ones(20), 9, np.eye(3)), "rows of 20"),
        (lambda: cross_validated_likelihood(np.eye(20), NONE, folds=21), "folds"),
        (lambda: cross_validated_likelihood(np.eye(20), NONE, candidates=[0]), "candidates"),
        (lambda: cross_validated_likelihood(np.eye(20), NONE, groups=[1]), "groups"),
        (lambda: cross_validated_likelihood(np.ones((9, 20)), NONE), "fewer than 2 directions"),
        (lambda: cross_validated_likelihood(np.full((9, 20), np.nan), NONE), "finite"),
    ],
)
def test_bad_arguments_are_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()
