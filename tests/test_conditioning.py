"""Completion, posterior models, credible regions and likelihoods."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import chi2, multivariate_normal
from shape_families import family, random_similarity

from asmkit import ShapeModel
from asmkit.alignment import similarity
from asmkit.annotations import read_shapes

dims = pytest.mark.parametrize("d", [2, 3])


def still_model(rng, d, k=4, n=80, p=7):
    """A model without poses, and its dense Gaussian: mean (p d,), covariance (p d, p d)."""
    shapes = family(rng, n, p, d, posed=False)
    model = ShapeModel(k, align="none").fit(shapes)
    phi, lam = model.components_, model.explained_variance_
    dense = (phi.T * lam) @ phi + model.noise_variance_ * np.eye(p * d)
    return model, model.mean_.reshape(-1), dense


def hide(shapes, *points):
    hidden = np.array(shapes, dtype=float)
    hidden[..., list(points), :] = np.nan
    return hidden


@dims
def test_without_a_pose_it_is_the_conditional_of_the_dense_gaussian(rng, d):
    model, mean, dense = still_model(rng, d)
    shape = model.sample(1, 3)[0] + 0.01
    sigma = np.linspace(0.02, 0.1, 7)
    seen = np.repeat([True, True, False, True, True, False, True], d)
    noise = np.diag(np.repeat(sigma**2, d)[seen])
    gain = dense[:, seen] @ np.linalg.inv(dense[np.ix_(seen, seen)] + noise)
    expected = mean + gain @ (shape.reshape(-1)[seen] - mean[seen])
    covariance = dense - gain @ dense[seen]
    found = model.credible_regions(hide(shape, 2, 5), sigma)
    assert np.allclose(found.mean.reshape(-1), expected, atol=1e-10)
    blocks = covariance.reshape(7, d, 7, d)[np.arange(7), :, np.arange(7)]
    assert np.allclose(found.covariance, blocks, atol=1e-12)
    posterior = model.posterior(hide(shape, 2, 5), sigma)
    phi, lam = posterior.components_, posterior.explained_variance_
    assert np.allclose(posterior.mean_.reshape(-1), expected, atol=1e-10)
    assert np.allclose((phi.T * lam) @ phi, covariance, atol=1e-12)


@dims
def test_evidence_may_come_in_parts(rng, d):
    model, _, _ = still_model(rng, d)
    shape = model.sample(1, 5)[0]
    first, second = hide(shape, 0, 1, 2, 3), hide(shape, 4, 5, 6)
    noise = 0.05
    together = model.posterior(shape, noise)
    in_parts = model.posterior(first, noise).posterior(second, noise)
    assert np.allclose(in_parts.mean_, together.mean_, atol=1e-9)
    assert np.allclose(
        (in_parts.components_.T * in_parts.explained_variance_) @ in_parts.components_,
        (together.components_.T * together.explained_variance_) @ together.components_,
        atol=1e-10,
    )


@dims
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_completion_follows_every_similarity(rng, d, noise):
    shapes = family(rng, 60, 9, d, posed=False)
    model = ShapeModel(5).fit(shapes)
    given = hide(shapes[:20], 1, 4, 7)
    moves = random_similarity(rng, 20, d)
    plain = model.credible_regions(given, noise)
    moved = model.credible_regions(moves.apply(given), noise * np.tile(moves.scale[:, None], 9))
    assert np.allclose(moved.mean, moves.apply(plain.mean), atol=1e-6 * moves.scale.max())
    turned = moves.matrix[:, None, :d, :d]
    expected = turned @ plain.covariance @ np.swapaxes(turned, -1, -2)
    largest = np.abs(expected).max(axis=(1, 2, 3), keepdims=True)
    assert np.abs((moved.covariance - expected) / largest).max() < 1e-6


@dims
def test_points_without_noise_stay_exactly_where_they_are(rng, d):
    shapes = family(rng, 60, 9, d)
    model = ShapeModel(5).fit(shapes)
    given = hide(shapes, 0, 8)
    whole = model.complete(given)
    seen = ~np.isnan(given)
    assert np.array_equal(whole[seen], given[seen])
    assert np.isfinite(whole).all()
    assert np.array_equal(model.complete(whole), whole)


@dims
def test_some_points_can_be_pinned_among_noisy_ones(rng, d):
    shapes = family(rng, 60, 9, d, posed=False)
    model = ShapeModel(4).fit(shapes)
    noise = np.full(9, 0.1)
    noise[[2, 6]] = 0
    given = shapes[:5] + 0.1 * rng.normal(size=(5, 9, d))
    found = model.complete(given, noise)
    assert np.array_equal(found[:, [2, 6]], given[:, [2, 6]])
    others = [0, 1, 3, 4, 5, 7, 8]
    assert np.abs(found - given)[:, others].max(axis=(1, 2)).min() > 1e-3


@dims
def test_hidden_points_of_a_shape_of_the_model_are_found(rng, d):
    p, k = 12, 3
    mean = rng.normal(size=(p, d))
    modes = rng.normal(size=(k, p, d))
    shapes = mean + np.einsum("nk,kpd->npd", 0.1 * rng.normal(size=(50, k)), modes)
    model = ShapeModel(1.0, align="none").fit(shapes)
    assert model.n_components_ == k
    found = model.complete(hide(shapes, 0, 3, 4))
    assert np.abs(found - shapes).max() < 1e-3 * np.ptp(shapes)


@dims
def test_the_completed_shape_is_the_most_probable(rng, d):
    shapes = family(rng, 60, 8, d, posed=False)
    model = ShapeModel(3).fit(shapes)
    given, sigma = hide(random_similarity(rng, 1, d).apply(shapes[:1])[0], 1, 5), 0.5
    seen = ~np.isnan(given[:, 0])
    completed = model.complete(given, sigma)
    pose = similarity(model.mean_, completed)

    def objective(unknown):
        b, generator = unknown[:3], unknown[3:]
        shape = model.mean_ + (b @ model.components_).reshape(model.mean_.shape)
        turn = np.eye(d)
        planes = [(i, j) for i in range(d) for j in range(i)]
        for value, (i, j) in zip(generator[1 + d :], planes, strict=True):
            plane = np.eye(d)
            plane[[i, i, j, j], [i, j, i, j]] = [
                np.cos(value), np.sin(value), -np.sin(value), np.cos(value),
            ]  # fmt: skip
            turn = turn @ plane
        scale = pose.scale * np.exp(generator[0])
        moved = scale * (shape @ turn.T) @ pose.rotation.T + pose.translation
        moved = moved + scale * generator[1 : 1 + d]
        variance = sigma**2 + model.noise_variance_ * fixed_scale**2
        misfit = np.sum((moved - given)[seen] ** 2) / variance
        return misfit + np.sum(b**2 / model.explained_variance_), moved, shape

    fixed_scale = pose.scale
    start = np.concatenate([model.transform(completed), np.zeros(1 + d + d * (d - 1) // 2)])
    best = minimize(lambda u: objective(u)[0], start, method="BFGS", options={"gtol": 1e-9})
    # The noise in the frame is taken at the scale found, so the optimum is at the same place to
    # the second order of that scale's change.
    moved = objective(best.x)[1]
    hidden = ~seen
    assert np.abs(moved[hidden] - completed[hidden]).max() < 2e-3 * np.ptp(completed)


def test_posterior_samples_have_the_stated_mean_and_covariance(rng):
    shapes = family(rng, 60, 8, 2)
    model = ShapeModel(4).fit(shapes)
    given = hide(shapes[0], 0, 1, 2)
    size = np.nanstd(given)
    regions = model.credible_regions(given, 0.02 * size)
    posterior = model.posterior(given, 0.02 * size)
    draws = posterior.sample(20_000, 0)
    assert np.array_equal(posterior.mean_, regions.mean)
    assert np.abs(draws.mean(axis=0) - regions.mean).max() < 0.02 * size
    spread = np.einsum("npd,npe->pde", draws - regions.mean, draws - regions.mean) / len(draws)
    assert np.abs(spread - regions.covariance).max() < 0.05 * np.abs(regions.covariance).max()


@dims
def test_credible_regions_hold_the_truth_as_often_as_they_say(rng, d):
    shapes = family(rng, 400, 10, d, spread=0.03)
    model = ShapeModel(6).fit(shapes)
    n = 1500
    truth = model.sample(n, 1)
    truth = truth + np.sqrt(model.noise_variance_) * rng.normal(size=truth.shape)
    moves = random_similarity(rng, n, d)
    truth = moves.apply(truth)
    sigma = 0.01 * moves.scale
    noisy = truth + sigma[:, None, None] * rng.normal(size=truth.shape)
    noise = np.tile(sigma[:, None], 10)
    regions = model.credible_regions(hide(noisy, 0, 3, 6), noise)
    for level in (0.5, 0.8, 0.9, 0.95):
        held = regions.at(level).contains(truth)
        assert abs(held[:, [0, 3, 6]].mean() - level) < 0.03
        assert abs(held[:, [1, 2]].mean() - level) < 0.03


@dims
def test_noise_may_be_a_number_one_a_point_or_covariances(rng, d):
    shapes = family(rng, 60, 9, d)
    model = ShapeModel(5).fit(shapes)
    given = hide(shapes[:6], 2)
    sigma = 0.3
    forms = [
        sigma,
        np.full(9, sigma),
        np.full((6, 9), sigma),
        np.tile(sigma**2 * np.eye(d), (9, 1, 1)),
        np.tile(sigma**2 * np.eye(d), (6, 9, 1, 1)),
    ]
    first = model.credible_regions(given, forms[0])
    for form in forms[1:]:
        other = model.credible_regions(given, form)
        assert np.allclose(other.mean, first.mean, rtol=1e-10, atol=1e-9)
        assert np.allclose(other.covariance, first.covariance, rtol=1e-8)


@dims
def test_a_point_known_in_one_direction_only_is_free_along_the_other(rng, d):
    model, _, _ = still_model(rng, d)
    shape = model.sample(1, 2)[0]
    covariance = np.tile(1e-12 * np.eye(d), (7, 1, 1))
    covariance[3, 0, 0] = 1e12
    moved = shape.copy()
    moved[3, 0] += 100.0
    assert np.allclose(
        model.complete(moved, covariance)[3], model.complete(shape, covariance)[3], atol=1e-6
    )


@dims
def test_a_batch_gives_what_its_shapes_give_one_by_one(rng, d):
    shapes = family(rng, 60, 9, d)
    model = ShapeModel(5).fit(shapes)
    given = shapes[:12].copy()
    hidden = rng.uniform(size=given.shape[:2]) < 0.3
    hidden[:, :4] = False
    given[hidden] = np.nan
    together = model.credible_regions(given.reshape(3, 4, 9, d), 0.1, level=0.8)
    assert together.mean.shape == (3, 4, 9, d)
    assert together.covariance.shape == (3, 4, 9, d, d)
    for i in range(12):
        alone = model.credible_regions(given[i], 0.1)
        assert np.allclose(together.mean[i // 4, i % 4], alone.mean, rtol=1e-7, atol=1e-7)
    assert model.complete(given[:0]).shape == (0, 9, d)


@dims
def test_half_axes_of_a_region_reach_its_border(rng, d):
    shapes = family(rng, 60, 9, d)
    model = ShapeModel(5).fit(shapes)
    regions = model.credible_regions(hide(shapes[0], 0, 1), 0.05, level=0.9)
    lengths, directions = regions.axes()
    assert np.all(np.diff(lengths, axis=-1) <= 0)
    for axis in range(d):
        border = regions.mean + lengths[:, axis, None] * directions[:, :, axis]
        assert np.allclose(regions.distance(border), regions.radius, rtol=1e-6)
    assert np.allclose(regions.radius, np.sqrt(chi2.ppf(0.9, d)))


def test_calibrated_regions_hold_at_their_rate_where_the_normal_distribution_is_wrong(rng):
    pattern = rng.normal(size=(7, 2))

    def faces(n):  # nearly always tame, sometimes wild
        wild = rng.standard_t(2.2, size=(n, 1, 1))
        return 50 * (pattern + 0.01 * wild * rng.normal(size=(n, 7, 2)))

    model = ShapeModel(3).fit(faces(300))
    others, test = faces(199), faces(400)
    given = hide(test, 1, 2)
    plain = model.credible_regions(given, level=0.8)
    calibrated = model.credible_regions(given, level=0.8, calibration=others)
    hidden = np.isnan(given[..., 0])
    assert np.array_equal(plain.mean, calibrated.mean)
    assert plain.contains(test)[hidden].mean() > 0.85
    for level in (0.5, 0.8, 0.95):
        rate = calibrated.at(level).contains(test)[hidden].mean()
        # Both the 199 and the 400 shapes are a draw: three standard errors.
        assert abs(rate - level) < 3 * np.sqrt(level * (1 - level) * (1 / 199 + 1 / 400))
    assert np.allclose(calibrated.radius[~hidden], plain.radius[~hidden])


@dims
def test_calibration_follows_poses_and_looks_at_each_shape_alone(rng, d):
    shapes = family(rng, 90, 9, d)
    model = ShapeModel(4).fit(shapes[:50])
    given = hide(shapes[50:54], 0, 5)
    given[2, 7] = np.nan
    found = model.credible_regions(given, 0.1, 0.8, calibration=shapes[60:])
    moved = model.credible_regions(given * 3 + 100, 0.3, 0.8, calibration=shapes[60:])
    alone = model.credible_regions(given[2], 0.1, 0.8, calibration=shapes[60:] * 7 - 1000)
    assert found.distances.shape == (4, 30, 9)
    assert np.allclose(found.distances, moved.distances, rtol=1e-5, equal_nan=True)
    assert np.allclose(found.distances[2], alone.distances, rtol=1e-5, equal_nan=True)
    assert np.array_equal(np.isnan(found.distances[:, 0]), ~np.isnan(given[..., 0]))


def test_calibration_by_too_few_or_incomplete_shapes_is_refused(rng):
    shapes = family(rng, 60, 9, 2)
    model, given = ShapeModel(4).fit(shapes[:30]), hide(shapes[30], 0)
    assert model.credible_regions(given, 0.1, 0.95, calibration=shapes[31:50]).radius.shape == (9,)
    with pytest.raises(ValueError, match=r"18 calibration shapes tell of levels up to 0.947"):
        model.credible_regions(given, 0.1, 0.95, calibration=shapes[31:49])
    with pytest.raises(ValueError, match="calibration"):
        model.credible_regions(given, 0.1, 0.8, calibration=hide(shapes[31:50], 1))


@dims
def test_log_likelihood_of_a_still_model_is_that_of_the_dense_gaussian(rng, d):
    model, mean, dense = still_model(rng, d)
    shapes = model.sample(5, 8) + 0.02
    expected = multivariate_normal(mean, dense).logpdf(shapes.reshape(5, -1))
    assert np.allclose(model.log_likelihood(shapes), expected)
    seen = np.repeat([True, False, False, True, True, True, True], d)
    part = multivariate_normal(mean[seen], dense[np.ix_(seen, seen)])
    expected = part.logpdf(shapes.reshape(5, -1)[:, seen])
    assert np.allclose(model.log_likelihood(hide(shapes, 1, 2)), expected)
    noise = 0.3**2 * np.eye(seen.sum())
    noisy = multivariate_normal(mean[seen], dense[np.ix_(seen, seen)] + noise)
    expected = noisy.logpdf(shapes.reshape(5, -1)[:, seen])
    assert np.allclose(model.log_likelihood(hide(shapes, 1, 2), 0.3), expected)
    assert model.score(shapes) == pytest.approx(model.log_likelihood(shapes).mean())


@dims
def test_log_likelihood_is_the_density_of_probabilistic_pca_in_the_tangent_space(rng, d):
    shapes = family(rng, 60, 9, d)
    model = ShapeModel(4).fit(shapes)
    aligned = similarity(model.mean_, shapes).inverse().apply(shapes) - model.mean_
    flat = aligned.reshape(60, -1)
    b = flat @ model.components_.T
    rest = np.sum(flat**2, axis=1) - np.sum(b**2, axis=1)
    lam, sigma2 = model.explained_variance_ + model.noise_variance_, model.noise_variance_
    q = 9 * d - {2: 4, 3: 7}[d]
    expected = -0.5 * (
        np.sum(b**2 / lam, axis=1)
        + rest / sigma2
        + np.log(lam).sum()
        + (q - 4) * np.log(sigma2)
        + q * np.log(2 * np.pi)
    )
    assert np.allclose(model.log_likelihood(shapes), expected, rtol=1e-7)
    moved = random_similarity(rng, 60, d).apply(shapes)
    assert np.allclose(model.log_likelihood(moved), expected, rtol=1e-6)
    part = hide(shapes, 0, 5)
    turned = random_similarity(rng, 60, d).apply(part)
    assert np.allclose(model.log_likelihood(part), model.log_likelihood(turned), rtol=1e-6)


def test_unlike_shapes_are_less_likely(rng):
    shapes = family(rng, 60, 9, 2)
    model = ShapeModel(4).fit(shapes)
    exchanged = shapes[:, [1, 0, 2, 3, 4, 5, 6, 7, 8]]
    assert np.all(model.log_likelihood(exchanged) < model.log_likelihood(shapes) - 10)
    assert np.all(model.plausibility(exchanged) < 0.5)
    assert np.all(model.plausibility(shapes) > 0.5)


def test_what_cannot_be_conditioned_says_why(rng):
    shapes = family(rng, 60, 9, 2)
    model = ShapeModel(4).fit(shapes)
    with pytest.raises(ValueError, match="fewer than 2 points, the first is number 1"):
        model.complete(np.stack([shapes[0], hide(shapes[1], *range(8))]))
    with pytest.raises(ValueError, match="all points coincide"):
        model.complete(hide(np.where(np.arange(9)[:, None] < 2, 1.0, shapes[0]), *range(2, 9)))
    with pytest.raises(ValueError, match="9"):
        model.complete(shapes[0][:8])
    with pytest.raises(ValueError, match="infinite"):
        model.complete(np.where(np.arange(18).reshape(9, 2) == 3, np.inf, shapes[0]))
    with pytest.raises(ValueError, match="at least 0"):
        model.complete(shapes[0], -1)
    with pytest.raises(ValueError, match=r"noise: got shape \(4,\)"):
        model.complete(shapes[0], np.ones(4))
    with pytest.raises(ValueError, match="symmetric"):
        model.complete(shapes[0], np.tile([[1.0, 2], [3, 4]], (9, 1, 1)))
    with pytest.raises(ValueError, match="negative eigenvalue"):
        model.complete(shapes[0], np.tile([[1.0, 2], [2, 1]], (9, 1, 1)))
    with pytest.raises(ValueError, match="between 0 and 1"):
        model.credible_regions(shapes[0], level=95)
    with pytest.raises(ValueError, match="one shape"):
        model.posterior(shapes)
    with pytest.raises(ValueError, match="nothing is left uncertain"):
        model.posterior(shapes[0])
    with pytest.raises(ValueError, match="align='box'"):
        ShapeModel(4, align="box").fit(shapes).complete(shapes[0])


def test_a_model_without_left_over_variance_has_no_density_beside_its_modes(rng):
    shapes = family(rng, 6, 9, 2)
    model = ShapeModel(1.0).fit(shapes)
    with pytest.raises(ValueError, match="no variance"):
        model.log_likelihood(shapes)
    assert np.isfinite(model.log_likelihood(shapes, 0.1)).all()


def test_regions_of_real_faces_hold_the_hidden_points(data_dir):
    train = read_shapes(data_dir / "300w" / "train")
    test = read_shapes(data_dir / "300w" / "test_common")[::6]
    model = ShapeModel(45, mirror="ibug68").fit(train)
    sigma = 0.01 * np.linalg.norm(test[:, 36] - test[:, 45], axis=1)
    noise = np.tile(sigma[:, None], 68)
    for hidden in (range(17), range(36, 42), range(48, 68)):
        regions = model.credible_regions(hide(test, *hidden), noise)
        held = regions.at(0.9).contains(test)[:, list(hidden)].mean()
        assert abs(held - 0.9) < 0.04  # 93 faces; the whole set is in the benchmark


@dims
def test_robust_completion_disbelieves_wrong_points(rng, d):
    shapes = family(rng, 300, 20, d, spread=0.05, posed=False)
    model = ShapeModel(6).fit(shapes[:250])
    truth = shapes[250:]
    wrong = rng.uniform(size=truth.shape[:2]) < 0.15
    wrong[:, :4] = False
    given = np.where(wrong[..., None], rng.uniform(-3, 3, truth.shape), truth)
    sigma = 0.02
    robust = model.credible_regions(given, sigma, robust=True)
    plain = model.complete(given, sigma)
    known = model.complete(np.where(wrong[..., None], np.nan, truth), sigma)

    def off(found):
        return np.linalg.norm(found - truth, axis=-1).mean()

    assert off(robust.mean) < 1.2 * off(known)
    assert off(robust.mean) < 0.4 * off(plain)
    assert np.median(robust.weights[wrong]) < 0.1
    assert np.median(robust.weights[~wrong]) > 0.5


@dims
def test_robust_completion_follows_similarities_and_changes_little_without_wrong_points(rng, d):
    shapes = family(rng, 100, 20, d, spread=0.05, posed=False)
    model = ShapeModel(6).fit(shapes)
    noisy = shapes[:20] + 0.05 * rng.normal(size=(20, 20, d))
    plain, robust = model.complete(noisy, 0.05), model.complete(noisy, 0.05, robust=True)
    assert np.linalg.norm(robust - plain, axis=-1).mean() < 0.03
    moves = random_similarity(rng, 20, d)
    noise = 0.05 * np.tile(moves.scale[:, None], 20)
    moved = model.complete(moves.apply(noisy), noise, robust=True)
    assert np.allclose(moved, moves.apply(robust), atol=1e-6 * moves.scale.max())
