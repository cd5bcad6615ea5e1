"""Alignment with missing points, weights, rigid and affine maps, reflections and outliers."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from shape_families import family, random_rotation, random_similarity, relative_distance, size_of

from asmkit.alignment import (
    Affine,
    affine,
    generalized_procrustes,
    procrustes_distance,
    rigid,
    similarity,
)
from asmkit.annotations import read_shapes

dims = pytest.mark.parametrize("d", [2, 3])
FITS = {"similarity": similarity, "rigid": rigid, "affine": affine}
kinds = pytest.mark.parametrize("kind", sorted(FITS))


def hidden(rng, shapes, share=0.2):
    """Shapes with at most 4 points missing, none in the first shape."""
    lost = rng.random(shapes.shape[:2]) < share
    lost &= lost.cumsum(axis=1) <= 4
    lost[0] = False
    return np.where(lost[..., None], np.nan, shapes)


def moved_alike(rng, shapes, kind):
    """Every shape moved by a map of the kind."""
    n, _, d = shapes.shape
    if kind == "similarity":
        return random_similarity(rng, n, d).apply(shapes)
    linear = random_rotation(rng, n, d)
    if kind == "affine":
        linear = linear @ (np.eye(d) + 0.3 * rng.uniform(-1, 1, (n, d, d)))
    return Affine(linear, rng.normal(size=(n, d))).apply(shapes)


def mirrored_in_x(shapes):
    return shapes * ([-1] + [1] * (shapes.shape[-1] - 1))


def same_map(first, second, tolerance=1e-9):
    return np.abs(first.matrix - second.matrix).max() <= tolerance * np.abs(second.matrix).max()


# one shape onto another


@dims
@kinds
def test_a_missing_point_is_a_point_of_weight_0_and_a_deleted_one(rng, d, kind):
    fit = FITS[kind]
    source, target = family(rng, 1, d=d)[0], family(rng, 5, d=d, spread=0.3)
    weights = rng.uniform(0.5, 1, 9)
    deleted = fit(np.delete(source, 3, 0), np.delete(target, 3, 1), np.delete(weights, 3))
    lost = target.copy()
    lost[:, 3, -1] = np.nan  # one coordinate is enough
    assert same_map(fit(source, lost, weights), deleted)
    lost_source = source.copy()
    lost_source[3] = np.nan
    assert same_map(fit(lost_source, target, weights), deleted)
    target[:, 3] = 1e3
    weights[3] = 0
    assert same_map(fit(source, target, weights), deleted)


@dims
@kinds
def test_maps_are_found_and_undone(rng, d, kind):
    source = family(rng, 6, d=d, posed=False)
    target = moved_alike(rng, source, kind)
    found = FITS[kind](source, target)
    assert relative_distance(found.apply(source), target) < 1e-9
    assert relative_distance(found.inverse().apply(target), source) < 1e-9
    identity = np.broadcast_to(np.eye(d + 1), (6, d + 1, d + 1))
    assert (found @ found.inverse()).matrix == pytest.approx(identity, abs=1e-9)
    assert np.allclose((found @ found).matrix, found.matrix @ found.matrix, rtol=1e-12)


@dims
def test_affine_maps_and_similarities_compose(rng, d):
    points = family(rng, 4, d=d)
    first = random_similarity(rng, 4, d)
    second = Affine(rng.normal(size=(4, d, d)), rng.normal(size=(4, d)))
    for one, other in ((first, second), (second, first)):
        both = one @ other
        assert isinstance(both, Affine)
        assert np.allclose(both.apply(points), one.apply(other.apply(points)), rtol=1e-9)
    with pytest.raises(TypeError):
        second @ 2.0
    with pytest.raises(ValueError, match="no inverse"):
        Affine(np.zeros((d, d)), np.zeros(d)).inverse()


@dims
def test_affine_agrees_with_linear_regression(rng, d):
    source, target = family(rng, 2, d=d)
    weights = rng.uniform(size=9)
    root = np.sqrt(weights)[:, None]
    design = np.column_stack([source, np.ones(9)])
    expected = np.linalg.lstsq(root * design, root * target, rcond=None)[0]
    found = affine(source, target, weights)
    assert np.allclose(found.matrix[:d].T, expected, rtol=1e-7, atol=1e-9)


def test_rigid_agrees_with_scipy(rng):
    source, target = family(rng, 2, d=3, posed=False, spread=0.3)
    weights = rng.uniform(size=9)
    share = weights[:, None] / weights.sum()
    expected, _ = Rotation.align_vectors(
        target - (share * target).sum(axis=0), source - (share * source).sum(axis=0), weights
    )
    found = rigid(source, target, weights)
    assert found.rotation == pytest.approx(expected.as_matrix(), abs=1e-9)
    assert found.scale == 1
    assert rigid(source, np.stack([target] * 4)).scale.shape == (4,)


@dims
@pytest.mark.parametrize("fit", [similarity, rigid])
def test_reflection_is_the_better_of_both_hands(rng, d, fit):
    source, target = family(rng, 1, d=d)[0], family(rng, 40, d=d, spread=0.8)
    target[::2] = mirrored_in_x(target[::2])

    def errors(found, points):
        return np.sum((found.apply(points) - target) ** 2, axis=(1, 2))

    free = fit(source, target, reflection=True)
    rotated = errors(fit(source, target), source)
    reflected = errors(fit(mirrored_in_x(source), target), mirrored_in_x(source))
    assert errors(free, source) == pytest.approx(np.minimum(rotated, reflected), rel=1e-9)
    hands = np.linalg.det(free.rotation)
    assert np.array_equal(hands < 0, reflected < rotated)
    assert set(np.sign(hands)) == {-1, 1}


@dims
@kinds
def test_outliers_hardly_move_a_robust_map(rng, d, kind):
    source = family(rng, 1, p=30, d=d, posed=False)[0]
    clean = moved_alike(rng, np.stack([source] * 8), kind)
    clean = clean + 0.01 * size_of(clean)[:, None, None] * rng.normal(size=clean.shape) / 30**0.5
    dirty = clean.copy()
    dirty[:, [2, 11, 20]] += 3 * size_of(clean)[:, None, None] * rng.normal(size=(8, 3, d))
    fit = FITS[kind]

    def error(found):
        return relative_distance(found.apply(source), fit(source, clean).apply(source))

    assert error(fit(source, dirty, robust="huber")) < 0.02
    assert error(fit(source, dirty)) > 0.2
    assert error(fit(source, clean, robust="huber")) < 0.01


@dims
def test_robust_similarity_is_equivariant_and_ignores_the_missing(rng, d):
    source, target = family(rng, 1, d=d)[0], family(rng, 4, d=d, spread=0.5)
    target[:, 2] += size_of(target)[:, None]
    found = similarity(source, target, robust="huber")
    plain = similarity(source, target)
    assert relative_distance(found.apply(source), plain.apply(source)) > 0.05
    T, S = random_similarity(rng, 1, d), random_similarity(rng, 4, d)
    moved = similarity(T.apply(source)[0], S.apply(target), robust="huber")
    assert same_map(moved @ T, S @ found, 1e-6)
    target[:, 4] = np.nan
    left = similarity(np.delete(source, 4, 0), np.delete(target, 4, 1), robust="huber")
    assert same_map(similarity(source, target, robust="huber"), left)


@dims
def test_points_that_fit_exactly_outvote_outliers(rng, d):
    source = family(rng, 1, p=12, d=d)[0]
    made = random_similarity(rng, 3, d)
    target = made.apply(source)
    target[:, [1, 7]] += 10 * size_of(target)[:, None, None]
    found = similarity(source, target, robust="huber")
    assert relative_distance(found.apply(source), made.apply(source)) < 1e-6


@dims
@kinds
def test_too_few_points_are_refused_by_number(rng, d, kind):
    n_needed = d + (kind == "affine")
    shapes = family(rng, 4, d=d)
    shapes[2, n_needed:] = np.nan
    FITS[kind](shapes[0], shapes)
    shapes[2, n_needed - 1] = np.nan
    message = rf"fewer than {n_needed} points .* in 1 shape\(s\), the first is number 2"
    with pytest.raises(ValueError, match=message):
        FITS[kind](shapes[0], shapes)
    with pytest.raises(ValueError, match=message):
        generalized_procrustes(shapes, transform=kind)
    shapes[2, :6] = shapes[2, 0]
    with pytest.raises(ValueError, match="coincide in 1"):
        FITS[kind](shapes[0], shapes)


@dims
def test_affine_maps_of_flat_shapes_are_refused(rng, d):
    flat = family(rng, 2, d=d, posed=False)
    flat[..., -1] = 0
    with pytest.raises(ValueError, match="one line or plane"):
        affine(flat[0], family(rng, 1, d=d)[0])
    with pytest.raises(ValueError, match="one line or plane"):
        generalized_procrustes(flat, transform="affine")


def test_unknown_choices_are_refused(rng):
    shapes = family(rng, 3)
    with pytest.raises(ValueError, match="transform: got 'projective', expected one of"):
        generalized_procrustes(shapes, transform="projective")
    with pytest.raises(ValueError, match="robust: got 'tukey'"):
        similarity(shapes[0], shapes, robust="tukey")


# the mean of a set


def problems(rng, d, kind):
    """Arguments of every kind for one set of shapes."""
    base = family(rng, 25, d=d, spread=0.1, posed=False)
    shapes = moved_alike(rng, base, kind)
    weights, samples = rng.uniform(0.2, 1, shapes.shape[:2]), rng.uniform(0.2, 1, 25)
    return [
        (shapes, {"weights": weights[0]}),
        (shapes, {"sample_weight": samples}),
        (shapes, {"weights": weights, "sample_weight": samples}),
        (hidden(rng, shapes), {}),
        (hidden(rng, shapes), {"weights": weights, "sample_weight": samples}),
        (hidden(rng, shapes), {"robust": "huber", "max_iterations": 500}),
    ]


@dims
@kinds
def test_mean_is_the_weighted_mean_of_the_aligned_shapes(rng, d, kind):
    for shapes, options in problems(rng, d, kind):
        found = generalized_procrustes(shapes, transform=kind, **options)
        assert found.converged
        share = found.weights * options.get("sample_weight", np.ones(25))[:, None]
        aligned = np.nan_to_num(found.aligned)
        mean = np.einsum("np,npd->pd", share, aligned) / share.sum(axis=0)[:, None]
        assert mean == pytest.approx(found.mean, abs=1e-9)
        assert np.array_equal(np.isnan(found.aligned), np.isnan(shapes))
        assert np.all((found.weights == 0) == np.isnan(shapes[..., 0]))
        assert np.abs(found.mean.sum(axis=0)).max() < 1e-9
        if kind != "rigid":
            assert np.linalg.norm(found.mean) == pytest.approx(1, abs=1e-12)
        if kind == "affine":
            assert found.mean.T @ found.mean == pytest.approx(np.eye(d) / d, abs=1e-12)


@dims
@kinds
def test_maps_are_least_squares_from_the_mean(rng, d, kind):
    for shapes, options in problems(rng, d, kind):
        found = generalized_procrustes(shapes, transform=kind, **options)
        assert same_map(FITS[kind](found.mean, shapes, found.weights), found.transforms)


@dims
@kinds
def test_no_sweep_raises_the_objective(rng, d, kind):
    for shapes, options in problems(rng, d, kind):
        found = generalized_procrustes(shapes, transform=kind, **options)
        assert found.n_iterations == sum(len(history) - 1 for history in found.history)
        for history in found.history:
            assert np.all(np.diff(history) <= 1e-13 * history[0])
        assert found.history[-1][-1] == found.objective
        assert found.history[0][0] > found.objective * (1 + 1e-6)


@dims
@kinds
def test_no_other_mean_and_no_other_maps_have_a_smaller_objective(rng, d, kind):
    shapes, options = problems(rng, d, kind)[4]
    found = generalized_procrustes(shapes, transform=kind, **options)
    samples = options["sample_weight"] / options["sample_weight"].sum()
    visible = ~np.isnan(shapes[..., 0])
    filled = np.where(visible[..., None], shapes, 0)
    units = np.linalg.inv(found.transforms.linear)

    def objective(mean, linear, translation):
        residual = filled - mean @ linear.swapaxes(1, 2) - translation[:, None]
        each = np.sum((residual @ units.swapaxes(1, 2)) ** 2, axis=2)
        return 0.5 * samples @ np.sum(found.weights * each, axis=1)

    linear, translation = found.transforms.linear, found.transforms.translation
    least = objective(found.mean, linear, translation)
    assert least == pytest.approx(found.objective, rel=1e-9)
    for size in (1e-1, 1e-3, 1e-5):
        for _ in range(10):
            nudge = size * rng.normal(size=found.mean.shape)
            other = found.mean + nudge
            assert objective(other, linear, translation) > least
            best = FITS[kind](other, shapes, found.weights)
            assert objective(other, best.linear, best.translation) > least * (1 - 1e-12)
            near = FITS[kind](other, found.transforms.apply(found.mean))
            assert objective(found.mean, near.linear, near.translation) >= least


@dims
def test_an_affine_mean_has_the_least_angles_to_the_shapes(rng, d):
    """The mean of ``−Σ log cos θ`` over the canonical angles is what a perturbation raises."""
    shapes = moved_alike(rng, family(rng, 25, d=d, spread=0.1, posed=False), "affine")

    def angles(mean):
        bases = np.linalg.qr(shapes - shapes.mean(axis=1, keepdims=True))[0]
        own = np.linalg.qr(mean - mean.mean(axis=0))[0]
        return -np.linalg.slogdet(np.swapaxes(bases, 1, 2) @ own)[1].mean()

    found = generalized_procrustes(shapes, transform="affine")
    least = angles(found.mean)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(10):
            assert angles(found.mean + size * rng.normal(size=found.mean.shape)) > least


@dims
def test_equal_weights_of_any_form_are_no_weights(rng, d):
    shapes = family(rng, 25, d=d, spread=0.15)
    plain = generalized_procrustes(shapes)
    for options in (
        {"weights": np.full(9, 3.0)},
        {"weights": np.full((25, 9), 3.0)},
        {"sample_weight": np.full(25, 0.1)},
    ):
        found = generalized_procrustes(shapes, **options)
        assert found.mean == pytest.approx(plain.mean, abs=1e-10)
        assert same_map(found.transforms, plain.transforms)
    weights = rng.uniform(size=9)
    # The two searches find one mean.
    short = generalized_procrustes(shapes, weights=weights)
    long = generalized_procrustes(shapes, weights=np.tile(weights, (25, 1)))
    assert len(short.history) == 1 < len(long.history)
    assert long.mean == pytest.approx(short.mean, abs=1e-10)


@dims
@kinds
def test_integer_sample_weights_are_copies(rng, d, kind):
    shapes = moved_alike(rng, family(rng, 20, d=d, spread=0.1, posed=False), kind)
    times = rng.integers(1, 4, 20)
    for batch, options in (
        (shapes, {}),
        (hidden(rng, shapes), {}),
        (hidden(rng, shapes), {"robust": "huber", "max_iterations": 500}),
    ):
        weighted = generalized_procrustes(batch, transform=kind, sample_weight=times, **options)
        copied = generalized_procrustes(np.repeat(batch, times, axis=0), transform=kind, **options)
        assert weighted.mean == pytest.approx(copied.mean, abs=1e-9)
        assert weighted.objective == pytest.approx(copied.objective, rel=1e-6)
    zero = np.where(np.arange(20) < 12, 1.0, 0.0)
    left = generalized_procrustes(shapes[:12], transform=kind)
    with_zeros = generalized_procrustes(shapes, transform=kind, sample_weight=zero)
    assert with_zeros.mean == pytest.approx(left.mean, abs=1e-10)


@dims
@kinds
def test_weight_0_is_missing(rng, d, kind):
    shapes = moved_alike(rng, family(rng, 25, d=d, spread=0.1, posed=False), kind)
    lost = hidden(rng, shapes)
    weights = (~np.isnan(lost[..., 0])).astype(float)
    shapes = np.where(np.isnan(lost), 1e3, shapes)
    first = generalized_procrustes(lost, transform=kind)
    second = generalized_procrustes(shapes, transform=kind, weights=weights)
    assert second.mean == pytest.approx(first.mean, abs=1e-9)
    assert same_map(second.transforms, first.transforms)


@dims
@pytest.mark.parametrize("form", ["(p,)", "(n, p)"])
def test_a_point_of_weight_0_in_all_shapes_is_carried_along(rng, d, form):
    shapes = family(rng, 25, d=d, spread=0.1)
    weights = rng.uniform(0.5, 1, 9)
    weights[4] = 0
    given = weights if form == "(p,)" else np.tile(weights, (25, 1))
    found = generalized_procrustes(shapes, weights=given)
    kept = np.delete(np.arange(9), 4)
    deleted = generalized_procrustes(shapes[:, kept], weights=weights[kept])
    assert procrustes_distance(found.mean[kept], deleted.mean) < 1e-10
    assert found.aligned[:, 4].mean(axis=0) == pytest.approx(found.mean[4], abs=1e-10)
    assert same_map(similarity(found.mean[kept], shapes[:, kept], weights[kept]), found.transforms)


@dims
@kinds
def test_what_fits_exactly_is_found_from_its_visible_points(rng, d, kind):
    mean = family(rng, 1, d=d, posed=False)[0]
    shapes = moved_alike(rng, np.stack([mean] * 15), kind)
    lost = hidden(rng, shapes, 0.3)
    lost[0, 5] = np.nan
    found = generalized_procrustes(lost, transform=kind, reference=mean)
    assert found.converged
    assert relative_distance(found.transforms.apply(found.mean), shapes) < 1e-7
    assert found.objective < 1e-14
    begun = generalized_procrustes(lost, transform=kind)
    assert relative_distance(begun.transforms.apply(begun.mean), shapes) < 1e-7


@dims
@kinds
def test_mean_does_not_depend_on_poses_or_order(rng, d, kind):
    base = family(rng, 25, d=d, spread=0.1, posed=False)
    lost = hidden(rng, base)
    found = generalized_procrustes(lost, base[3], transform=kind)
    moved = moved_alike(rng, lost, kind)
    again = generalized_procrustes(moved, base[3], transform=kind)
    assert again.mean == pytest.approx(found.mean, abs=1e-8)
    assert np.allclose(again.aligned, found.aligned, atol=1e-8, equal_nan=True)
    shuffle, order = rng.permutation(25), rng.permutation(9)
    mixed = generalized_procrustes(lost[shuffle][:, order], base[3][order], transform=kind)
    assert mixed.mean == pytest.approx(found.mean[order], abs=1e-8)


@dims
@kinds
def test_mean_turns_with_the_reference(rng, d, kind):
    shapes = hidden(rng, moved_alike(rng, family(rng, 15, d=d, posed=False), kind))
    turn = random_rotation(rng, 1, d)[0]
    first = generalized_procrustes(shapes, shapes[0], transform=kind).mean
    second = generalized_procrustes(shapes, shapes[0] @ turn.T, transform=kind).mean
    assert second == pytest.approx(first @ turn.T, abs=1e-8)


@dims
@kinds
def test_aligned_shapes_are_already_aligned(rng, d, kind):
    for shapes, options in problems(rng, d, kind)[:5]:
        found = generalized_procrustes(shapes, transform=kind, **options)
        again = generalized_procrustes(found.aligned, found.mean, transform=kind, **options)
        identity = np.broadcast_to(np.eye(d + 1), again.transforms.matrix.shape)
        assert again.transforms.matrix == pytest.approx(identity, abs=1e-7)
        assert again.mean == pytest.approx(found.mean, abs=1e-8)


@pytest.mark.parametrize("kind", ["similarity", "rigid"])
def test_flat_shapes_in_space_align_as_in_the_plane(rng, kind):
    shapes = hidden(rng, family(rng, 25, spread=0.1))
    raised = np.concatenate([shapes, 0 * shapes[..., :1]], axis=-1)
    flat = generalized_procrustes(shapes, transform=kind)
    space = generalized_procrustes(raised, transform=kind)
    assert space.mean[:, :2] == pytest.approx(flat.mean, abs=1e-9)
    assert np.abs(space.mean[:, 2]).max() < 1e-9
    assert space.objective == pytest.approx(flat.objective, rel=1e-9)


@dims
def test_reflections_undo_mirrored_shapes(rng, d):
    shapes = family(rng, 30, d=d)
    plain = generalized_procrustes(shapes)
    mirrored = shapes.copy()
    mirrored[5::2] = mirrored_in_x(shapes[5::2])
    found = generalized_procrustes(mirrored, reflection=True)
    assert np.array_equal(np.flatnonzero(np.linalg.det(found.transforms.rotation) < 0)[0], 5)
    assert found.mean == pytest.approx(plain.mean, abs=1e-10)
    assert found.aligned == pytest.approx(plain.aligned, abs=1e-9)
    weights = np.ones((30, 9))
    assert generalized_procrustes(mirrored, reflection=True, weights=weights).mean == pytest.approx(
        plain.mean, abs=1e-10
    )


@dims
@kinds
def test_the_robust_mean_is_near_the_clean_one_where_a_tenth_is_gross(rng, d, kind):
    base = family(rng, 40, p=20, d=d, spread=0.05, posed=False)
    clean = moved_alike(rng, base, kind)
    gross = rng.random((40, 20)) < 0.1
    jump = 0.5 * size_of(clean)[:, None, None] * rng.normal(size=clean.shape)
    dirty = np.where(gross[..., None], clean + jump, clean)
    options = {"transform": kind, "reference": base[1]}

    def mean(shapes, **more):
        return generalized_procrustes(shapes, **options, **more).mean

    truth = mean(clean)
    plain = relative_distance(mean(dirty), truth)
    robust = generalized_procrustes(dirty, robust="huber", max_iterations=500, **options)
    assert robust.converged
    assert relative_distance(robust.mean, truth) < 0.2 * plain
    assert plain > 0.04
    far = gross & (np.linalg.norm(jump, axis=2) > 0.3 * size_of(clean)[:, None])
    assert robust.weights[far].max() < 0.5
    assert np.median(robust.weights[~gross]) == 1


def test_real_faces_with_a_tenth_of_their_points_thrown_about(rng, data_dir):
    faces = read_shapes(str(data_dir / "300w" / "test_common" / "*.pts"))[:150]
    gross = rng.random(faces.shape[:2])[..., None] < 0.1
    size = size_of(faces)[:, None, None]
    dirty = np.where(gross, faces + 0.5 * size * rng.normal(size=faces.shape), faces)
    truth = generalized_procrustes(faces).mean
    plain = procrustes_distance(generalized_procrustes(dirty).mean, truth)
    robust = generalized_procrustes(dirty, robust="huber")
    assert robust.converged
    assert procrustes_distance(robust.mean, truth) < 0.2 * plain
    hidden_faces = generalized_procrustes(np.where(gross, np.nan, faces))
    assert hidden_faces.converged
    assert procrustes_distance(hidden_faces.mean, truth) < 0.01


def test_a_rigid_mean_keeps_its_size(rng):
    shapes = moved_alike(rng, family(rng, 20, posed=False), "rigid")
    found = generalized_procrustes(shapes, transform="rigid")
    assert np.all(found.transforms.scale == 1)
    assert np.linalg.norm(found.mean) == pytest.approx(size_of(shapes).mean(), rel=0.05)
    larger = generalized_procrustes(1e3 * shapes, transform="rigid")
    assert larger.mean == pytest.approx(1e3 * found.mean, rel=1e-7, abs=1e-7)
    assert larger.objective == pytest.approx(1e6 * found.objective, rel=1e-7)


def test_bad_sets_are_refused_by_what_is_wrong(rng):
    shapes = family(rng, 6)
    never = shapes.copy()
    never[:, 4] = np.nan
    with pytest.raises(ValueError, match=r"1 point.* missing in every shape.* first is point 4"):
        generalized_procrustes(never)
    apart = shapes.copy()
    apart[:3, 4:] = np.nan
    apart[3:, :4] = np.nan
    with pytest.raises(ValueError, match=r"5 point.* cannot be placed .* first is point 4"):
        generalized_procrustes(apart)
    assert generalized_procrustes(apart, shapes[0]).mean.shape == (9, 2)
    with pytest.raises(ValueError, match="sample_weight: got shape"):
        generalized_procrustes(shapes, sample_weight=np.ones(5))
    with pytest.raises(ValueError, match="sample_weight: expected finite"):
        generalized_procrustes(shapes, sample_weight=np.zeros(6))
    with pytest.raises(ValueError, match="weights: got shape"):
        generalized_procrustes(shapes, weights=np.ones((5, 9)))
    with pytest.raises(ValueError, match="reference: fewer than 2"):
        generalized_procrustes(shapes, np.full((9, 2), np.nan))
    with pytest.raises(ValueError, match="reference: all points coincide"):
        generalized_procrustes(shapes, np.ones((9, 2)))
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    with pytest.raises(ValueError, match="orthogonal to the mean"):
        generalized_procrustes([square, square, square * [-1, 1]], weights=np.ones((3, 4)))


def test_no_sweeps_are_a_result(rng):
    for options in ({}, {"weights": np.ones((6, 9))}):
        found = generalized_procrustes(family(rng, 6), max_iterations=0, **options)
        assert not found.converged
        assert found.n_iterations == 0
        assert found.history[0].shape == (1,)
