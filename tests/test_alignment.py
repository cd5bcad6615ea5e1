import numpy as np
import pytest
import scipy.optimize
import scipy.spatial
from hypothesis import given
from hypothesis import strategies as st
from shape_families import family, random_similarity, relative_distance, size_of

from asmkit.alignment import (
    Similarity,
    centroid_size,
    coinciding,
    cross_products,
    generalized_procrustes,
    procrustes_distance,
    similarity,
)
from asmkit.annotations import read_shapes

dims = pytest.mark.parametrize("d", [2, 3])
seeds = st.integers(0, 2**32 - 1)


def transform_error(found, expected):
    return np.abs(found.matrix - expected.matrix).max() / np.abs(expected.matrix).max()


def fit_error(T, source, target, weights=1.0):
    return np.sum(weights * np.sum((target - T.apply(source)) ** 2, axis=-1))


def nudged(T, rng, size):
    """A similarity near T."""
    d = len(T.translation)
    turn = np.linalg.qr(np.eye(d) + size * rng.normal(size=(d, d)))
    rotation = turn[0] * np.sign(np.diag(turn[1]))
    return Similarity(
        T.scale * np.exp(size * rng.normal()),
        T.rotation @ rotation,
        T.translation + size * T.scale * rng.normal(size=d),
    )


# similarity


@dims
@given(seed=seeds)
def test_similarity_finds_the_one_that_made_the_target(d, seed):
    rng = np.random.default_rng(seed)
    source = family(rng, 4, d=d)
    made = random_similarity(rng, 4, d)
    target = made.apply(source)
    assert relative_distance(similarity(source, target).apply(source), target) < 1e-9


@dims
@pytest.mark.parametrize("weighted", [False, True])
def test_no_perturbed_similarity_fits_better(rng, d, weighted):
    source, target = family(rng, 2, d=d, spread=0.5)
    weights = rng.uniform(0, 1, 9) if weighted else np.ones(9)
    best = similarity(source, target, weights if weighted else None)
    least = fit_error(best, source, target, weights)
    for size in (1e-1, 1e-3, 1e-5):
        worse = [fit_error(nudged(best, rng, size), source, target, weights) for _ in range(50)]
        assert min(worse) >= least * (1 - 1e-12)
    assert max(worse) > least


@dims
def test_scale_is_least_squares_and_not_the_ratio_of_sizes(rng, d):
    source, target = family(rng, 2, d=d, spread=0.5)
    found = similarity(source, target)
    cos = np.sqrt(1 - procrustes_distance(source, target) ** 2)
    assert found.scale == pytest.approx(cos * size_of(target) / size_of(source), rel=1e-12)
    assert cos < 0.99


@dims
def test_a_mirrored_target_is_fitted_by_a_rotation(rng, d):
    source = family(rng, 20, d=d)
    found = similarity(source, source * ([-1] + [1] * (d - 1)))
    assert np.linalg.det(found.rotation) == pytest.approx(np.ones(20), abs=1e-12)
    assert np.all(procrustes_distance(source, source * ([-1] + [1] * (d - 1))) > 0.01)


@dims
def test_similarity_agrees_with_a_numerical_minimiser(rng, d):
    source, target = family(rng, 2, d=d, spread=0.4, posed=False)
    best = similarity(source, target)
    n_angles = 1 if d == 2 else 3

    def residual(parameters):
        angles = parameters[:n_angles]
        if d == 2:
            turn = scipy.spatial.transform.Rotation.from_euler("z", angles[0]).as_matrix()[:2, :2]
        else:
            turn = scipy.spatial.transform.Rotation.from_rotvec(angles).as_matrix()
        linear = parameters[n_angles] * best.rotation @ turn
        return (target - source @ linear.T - parameters[n_angles + 1 :]).ravel()

    start = np.concatenate([0.2 * np.ones(n_angles), [1.3 * best.scale], np.zeros(d)])
    found = scipy.optimize.least_squares(residual, start, xtol=1e-15, ftol=1e-15, gtol=1e-15)
    assert 2 * found.cost == pytest.approx(fit_error(best, source, target), rel=1e-9)


def test_weight_zero_leaves_a_point_out(rng):
    source, target = family(rng, 2)
    changed = target.copy()
    changed[3] += 1000
    weights = np.ones(9)
    weights[3] = 0
    left = similarity(np.delete(source, 3, 0), np.delete(target, 3, 0))
    assert transform_error(similarity(source, changed, weights), left) < 1e-9


def test_weights_may_differ_by_shape(rng):
    source, target = family(rng, 5), family(rng, 5)
    weights = rng.uniform(size=(5, 9))
    together = similarity(source, target, weights)
    for i in range(5):
        alone = similarity(source[i], target[i], weights[i])
        assert np.allclose(together.matrix[i], alone.matrix, rtol=1e-12)


@dims
def test_inverse_and_composition(rng, d):
    shapes = family(rng, 5, d=d)
    first, second = random_similarity(rng, 5, d), random_similarity(rng, 5, d)
    assert (
        relative_distance((first @ second).apply(shapes), first.apply(second.apply(shapes))) < 1e-12
    )
    assert relative_distance(first.inverse().apply(first.apply(shapes)), shapes) < 1e-12
    identity = np.broadcast_to(np.eye(d + 1), (5, d + 1, d + 1))
    assert np.allclose((first @ first.inverse()).matrix, identity, atol=1e-12)
    assert np.allclose((first @ second).matrix, first.matrix @ second.matrix, rtol=1e-12)


@dims
def test_leading_axes_are_batch_and_broadcast(rng, d):
    source, target = family(rng, 1, d=d)[0], family(rng, 6, d=d)
    found = similarity(source, target.reshape(2, 3, 9, d))
    assert found.scale.shape == (2, 3)
    assert found.apply(source).shape == (2, 3, 9, d)
    for i, shape in enumerate(target):
        alone = similarity(source, shape)
        assert alone.scale.shape == ()
        assert np.allclose(found.matrix.reshape(6, d + 1, d + 1)[i], alone.matrix, rtol=1e-12)
    assert similarity(source, target[:0]).rotation.shape == (0, d, d)


@dims
def test_memory_layout_changes_no_bit(rng, d):
    shapes = family(rng, 20, d=d)
    turned = np.ascontiguousarray(shapes.T).T
    assert np.array_equal(
        similarity(shapes[0], turned).matrix, similarity(shapes[0], shapes).matrix
    )
    assert np.array_equal(generalized_procrustes(turned).mean, generalized_procrustes(shapes).mean)


def test_apply_keeps_float32_and_missing_points(rng):
    T = random_similarity(rng, 1, 2)
    points = rng.normal(size=(1, 4, 2)).astype(np.float32)
    points[0, 2] = np.nan
    moved = T.apply(points)
    assert moved.dtype == np.float32
    assert np.array_equal(np.isnan(moved), np.isnan(points))
    assert T.apply([[[1, 2]]]).dtype == np.float64


def test_points_of_another_dimension_and_other_factors_are_refused(rng):
    T = random_similarity(rng, 1, 2)
    with pytest.raises(ValueError, match=r"expected \(..., n_points, 2\)"):
        T.apply(np.zeros((4, 3)))
    with pytest.raises(TypeError):
        T @ 2.0


@pytest.mark.parametrize("position", [0.1, 1e6 / 3])
def test_coinciding_points_are_refused_by_number(rng, position):
    shapes = family(rng, 4)
    shapes[2] = position
    with pytest.raises(ValueError, match=r"target: all points coincide in 1 .* number 2"):
        similarity(shapes[0], shapes)
    with pytest.raises(ValueError, match=r"shapes: all points coincide in 1 .* number 2"):
        generalized_procrustes(shapes)
    assert coinciding(shapes).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(8), "one weight a point"),
        (-np.ones(9), "at least 0"),
        (np.zeros(9), "some of them positive"),
        (np.full(9, np.nan), "finite"),
        (np.ones((3, 9)), "batch"),
        (np.eye(9)[0], "coincide"),
    ],
)
def test_bad_weights_are_refused(rng, weights, message):
    with pytest.raises(ValueError, match=message):
        similarity(family(rng, 1)[0], family(rng, 1)[0], weights)


def test_mismatched_missing_and_infinite_points_are_refused(rng):
    shapes = family(rng, 2)
    with pytest.raises(ValueError, match="expected 9"):
        similarity(shapes[0], shapes[1, :8])
    shapes[1, 4] = np.nan
    for first, second in ((shapes[0], shapes[1]), (shapes[1], shapes[0])):
        with pytest.raises(ValueError, match="NaN"):
            procrustes_distance(first, second)
    shapes[1, 4] = np.inf
    with pytest.raises(ValueError, match="infinite"):
        similarity(shapes[0], shapes[1])
    with pytest.raises(ValueError, match="infinite"):
        generalized_procrustes(shapes)


def test_a_similarity_of_scale_zero_has_no_inverse():
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    found = similarity(square, square * [-1, 1])
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    with pytest.raises(ValueError, match="no inverse"):
        found.inverse()


# sizes and distances


@dims
def test_centroid_size_scales_and_ignores_rotation_and_place(rng, d):
    shapes = family(rng, 7, d=d)
    T = random_similarity(rng, 7, d)
    assert centroid_size(T.apply(shapes)) == pytest.approx(T.scale * size_of(shapes), rel=1e-12)
    assert centroid_size(shapes[0]).shape == ()


@dims
def test_procrustes_distance_is_a_symmetric_invariant(rng, d):
    a, b = family(rng, 8, d=d, spread=0.4), family(rng, 8, d=d, spread=0.4)
    distance = procrustes_distance(a, b)
    T, S = random_similarity(rng, 8, d), random_similarity(rng, 8, d)
    assert procrustes_distance(b, a) == pytest.approx(distance, rel=1e-9)
    assert procrustes_distance(T.apply(a), S.apply(b)) == pytest.approx(distance, rel=1e-9)
    assert procrustes_distance(a, T.apply(a)) == pytest.approx(np.zeros(8), abs=1e-12)
    assert np.all((distance > 0) & (distance <= 1))


def test_procrustes_distance_agrees_with_scipy(rng):
    for a, b in zip(family(rng, 9), family(rng, 9), strict=True):
        disparity = scipy.spatial.procrustes(a, b)[2]
        mirrored = scipy.spatial.procrustes(a * [-1, 1], b)[2]
        # SciPy reflects where that fits better; asmkit never does.
        assert min(procrustes_distance(a, b) ** 2, procrustes_distance(a * [-1, 1], b) ** 2) == (
            pytest.approx(min(disparity, mirrored), rel=1e-9)
        )


# generalised Procrustes


@dims
def test_mean_is_centred_of_size_one_and_the_mean_of_the_aligned_shapes(rng, d):
    found = generalized_procrustes(family(rng, d=d))
    assert found.converged
    assert found.n_iterations > 2
    assert np.abs(found.mean.sum(axis=0)).max() < 1e-12
    assert np.linalg.norm(found.mean) == pytest.approx(1, abs=1e-12)
    assert np.abs(found.aligned.mean(axis=0) - found.mean).max() < 1e-11


@dims
def test_aligned_shapes_lie_in_the_tangent_space(rng, d):
    found = generalized_procrustes(family(rng, d=d))
    tangent = found.aligned - found.mean
    assert np.abs(tangent.sum(axis=1)).max() < 1e-12
    turning = np.einsum("npi,pj->nij", tangent, found.mean)
    assert np.abs(turning - turning.swapaxes(1, 2)).max() < 1e-12
    assert np.abs(np.trace(turning, axis1=1, axis2=2)).max() < 1e-12


@dims
def test_no_perturbed_mean_has_a_smaller_objective(rng, d):
    shapes = family(rng, 40, d=d, spread=0.15)
    found = generalized_procrustes(shapes)

    def objective(mean):
        return -0.5 * np.log(1 - procrustes_distance(mean, shapes) ** 2).mean()

    assert objective(found.mean) == pytest.approx(found.objective, rel=1e-9)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(20):
            other = found.mean + size * rng.normal(size=found.mean.shape)
            assert objective(other) > found.objective


@dims
def test_mean_does_not_depend_on_poses_or_units(rng, d):
    shapes = family(rng, d=d, posed=False)
    moved = random_similarity(rng, len(shapes), d).apply(shapes)
    reference = shapes[5]
    first = generalized_procrustes(shapes, reference).mean
    assert relative_distance(generalized_procrustes(moved, reference).mean, first) < 1e-9
    assert relative_distance(generalized_procrustes(1e-6 * moved, reference).mean, first) < 1e-9
    assert generalized_procrustes(1e-6 * moved).n_iterations == (
        generalized_procrustes(1e6 * moved).n_iterations
    )


@dims
def test_mean_is_turned_as_the_reference(rng, d):
    shapes = family(rng, d=d)
    for reference in (shapes[0], shapes[7]):
        mean = generalized_procrustes(shapes, reference).mean
        assert similarity(mean, reference).rotation == pytest.approx(np.eye(d), abs=1e-9)
    assert np.array_equal(
        generalized_procrustes(shapes).mean, generalized_procrustes(shapes, shapes[0]).mean
    )


@dims
def test_mean_does_not_depend_on_where_the_search_begins(rng, d):
    shapes = family(rng, d=d)
    means = [generalized_procrustes(shapes, reference).mean for reference in shapes[:5]]
    assert procrustes_distance(means[0], means) == pytest.approx(np.zeros(5), abs=1e-9)


def test_too_few_sweeps_are_reported_not_raised(rng):
    found = generalized_procrustes(family(rng, spread=0.3), max_iterations=1)
    assert not found.converged
    assert found.n_iterations == 1
    assert generalized_procrustes(family(rng), tolerance=1e-2).n_iterations < 4


def test_one_shape_is_its_own_mean(rng):
    shape = family(rng, 1)
    found = generalized_procrustes(shape)
    assert found.converged
    assert procrustes_distance(found.mean, shape[0]) < 1e-9
    assert relative_distance(found.transforms.apply(found.mean), shape) < 1e-9


def test_a_shape_orthogonal_to_the_mean_is_named():
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    with pytest.raises(ValueError, match="orthogonal to the mean, the first is number 3"):
        generalized_procrustes([square, square, square, square * [-1, 1]])


@dims
def test_cross_products_equal_their_definition(rng, d):
    shapes, patterns = rng.normal(size=(7, 5, d)), rng.normal(size=(3, 5, d))
    expected = np.einsum("njf,kje->nkfe", shapes, patterns)
    assert cross_products(shapes.reshape(7, -1), patterns) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["300w/test_common", "hands", "bone"])
def test_real_shapes_converge_in_a_few_sweeps(data_dir, name):
    if name == "bone":
        shapes = np.load(data_dir / "shapes3d" / "bone3d.npz")["points"].astype(np.float64)
    else:
        shapes = read_shapes(str(data_dir / name / "*.pts"))
    found = generalized_procrustes(shapes)
    assert found.converged
    assert found.n_iterations <= 12
    assert relative_distance(found.transforms.apply(found.aligned), shapes) < 1e-12
    assert np.abs(found.aligned.mean(axis=0) - found.mean).max() < 1e-12


@dims
def test_history_never_rises_and_ends_in_the_objective(rng, d):
    # Shapes with little in common: here a full step can overshoot.
    for spread in (0.1, 1.0, 3.0):
        found = generalized_procrustes(family(rng, 12, d=d, spread=spread))
        (history,) = found.history
        assert len(history) == found.n_iterations + 1
        assert np.all(np.diff(history) <= 1e-13)
        assert history[-1] == found.objective
        cos = np.sqrt(1 - procrustes_distance(found.mean, found.aligned) ** 2)
        assert found.objective == pytest.approx(-np.log(cos).mean(), rel=1e-6)
        assert history[0] > history[-1]


# defects of other packages


@dims
def test_peer_defect_d6_norm_matching_scale_fits_worse(rng, d):
    source, targets = family(rng, 1, d=d)[0], family(rng, 20, d=d, spread=0.3)
    best = similarity(source, targets)
    ratio = size_of(targets) / size_of(source)
    moved = best.translation + np.squeeze(
        (best.scale - ratio)[:, None, None] * best.rotation @ source.mean(axis=0)[:, None], -1
    )
    matched = Similarity(ratio, best.rotation, moved)
    for i in range(20):
        one = Similarity(best.scale[i], best.rotation[i], best.translation[i])
        other = Similarity(matched.scale[i], matched.rotation[i], matched.translation[i])
        assert fit_error(one, source, targets[i]) < fit_error(other, source, targets[i])
    cos = np.sqrt(1 - procrustes_distance(source, targets) ** 2)
    assert best.scale == pytest.approx(cos * ratio, rel=1e-9)


def norm_matching_mean(shapes, sweeps=100):
    """Generalised Procrustes as other packages have it: sizes matched, means of the targets."""
    shapes = shapes - shapes.mean(axis=1, keepdims=True)
    shapes = shapes / size_of(shapes)[:, None, None]
    mean = shapes[0]
    for _ in range(sweeps):
        left, _, right = np.linalg.svd(np.einsum("pd,npe->nde", mean, shapes))
        flip = np.ones((len(shapes), shapes.shape[2]))
        flip[:, -1] = np.sign(np.linalg.det(left @ right))
        turned = shapes @ np.swapaxes((left * flip[:, None]) @ right, 1, 2)
        mean = turned.mean(axis=0)
        mean = mean / np.linalg.norm(mean)
    return mean


@pytest.mark.parametrize("name", ["300w/test_common", "hands", "bone"])
def test_peer_defect_d6_the_objective_is_at_most_that_of_norm_matching(data_dir, name):
    if name == "bone":
        shapes = np.load(data_dir / "shapes3d" / "bone3d.npz")["points"].astype(np.float64)
    else:
        shapes = read_shapes(str(data_dir / name / "*.pts"))[:120]

    def objective(mean):
        return -0.5 * np.log(1 - procrustes_distance(mean, shapes) ** 2).mean()

    found = generalized_procrustes(shapes)
    assert found.objective == pytest.approx(objective(found.mean), rel=1e-9)
    assert found.objective < objective(norm_matching_mean(shapes))


def test_peer_defect_d7_units_reference_convergence_and_mean_of_the_aligned(rng):
    shapes = family(rng)
    found = [generalized_procrustes(scale * shapes, shapes[3]) for scale in (1e-9, 1.0, 1e9)]
    # A tolerance in the units of the points would stop at once or never.
    assert len({one.n_iterations for one in found}) == 1
    assert all(one.converged for one in found)
    assert relative_distance(found[0].mean, found[2].mean) < 1e-12
    assert not generalized_procrustes(shapes, max_iterations=1).converged
    assert np.abs(found[1].aligned.mean(axis=0) - found[1].mean).max() < 1e-11
    assert similarity(found[1].mean, shapes[3]).rotation == pytest.approx(np.eye(2), abs=1e-9)
    shapes[5] = 7.0
    with pytest.raises(ValueError, match=r"coincide in 1 .* number 5"):
        generalized_procrustes(shapes)


@dims
def test_peer_defect_d15_no_reflection_by_default_scaled_capped_and_silent(rng, d, capsys):
    shapes = family(rng, 12, d=d, spread=0.5)
    shapes[::2] *= [-1] + [1] * (d - 1)
    found = generalized_procrustes(shapes, max_iterations=7)
    assert found.n_iterations <= 7
    assert np.linalg.det(found.transforms.rotation) == pytest.approx(np.ones(12), abs=1e-12)
    cos = np.sqrt(1 - procrustes_distance(found.mean, shapes) ** 2)
    assert found.transforms.scale == pytest.approx(cos * size_of(shapes), rel=1e-9)
    assert capsys.readouterr() == ("", "")


@dims
def test_peer_defect_d16_the_reference_is_renewed_in_every_sweep(rng, d):
    shapes = family(rng, d=d, spread=0.2)
    found = generalized_procrustes(shapes, shapes[0])
    assert found.n_iterations > 2
    assert procrustes_distance(found.mean, shapes[0]) > 0.05
    once = generalized_procrustes(shapes, shapes[0], max_iterations=1)
    assert procrustes_distance(once.mean, found.mean) > 1e-6
    assert once.objective > found.objective
