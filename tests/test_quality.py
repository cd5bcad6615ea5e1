"""Compactness, generalization and specificity are what their definitions say."""

from __future__ import annotations

import numpy as np
import pytest
from shape_families import family, mirror_family, random_similarity
from sklearn.exceptions import NotFittedError

from asmkit import ShapeModel, compactness, generalization, specificity
from asmkit.alignment import similarity
from asmkit.frames import mirrored

dims = pytest.mark.parametrize("d", [2, 3])


def point_distance(a, b):
    return np.linalg.norm(a - b, axis=-1).mean(axis=-1)


# compactness


def test_compactness_is_the_variance_held(rng):
    model = ShapeModel(6).fit(family(rng))
    curve = compactness(model)
    np.testing.assert_allclose(curve.values, np.cumsum(model.explained_variance_))
    np.testing.assert_array_equal(curve.n_components, np.arange(1, 7))
    np.testing.assert_allclose(
        curve.values / model.total_variance_, model.explained_variance_ratio_.cumsum()
    )
    assert (curve.measure, curve.align, curve.n_shapes) == ("compactness", "similarity", 60)


def test_the_standard_error_of_compactness_is_its_spread_over_samples(rng):
    spread = np.array([3.0, 2.0, 1.0, 0.5, 0.3, 0.2]).reshape(3, 2)
    curves = [
        compactness(ShapeModel(6, align="none").fit(spread * rng.normal(size=(30, 3, 2))))
        for _ in range(300)
    ]
    measured = np.std([curve.values[-1] for curve in curves])
    claimed = np.mean([curve.standard_errors[-1] for curve in curves])
    assert claimed == pytest.approx(measured, rel=0.15)


def test_mirror_images_are_no_further_shapes(rng):
    shapes, permutation = mirror_family(rng)
    assert compactness(ShapeModel(3, mirror=permutation).fit(shapes)).n_shapes == 60


# generalization


@pytest.mark.parametrize("align", ["similarity", "rigid", "box", "none"])
@dims
def test_leave_one_out_equals_a_fit_without_each_shape(rng, d, align):
    """Downdated scatter matrices against models fitted anew in the same frame."""
    shapes = family(rng, n=12, p=7, d=d, posed=align in ("similarity", "rigid"))
    reference = shapes[0] if align in ("similarity", "rigid") else None
    quick = generalization(shapes, align=align, reference=reference)
    plain = generalization(shapes, align=align, reference=reference, folds=12)
    m = len(quick.values)
    assert m == 10
    np.testing.assert_allclose(quick.values, plain.values[:m], rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(
        quick.standard_errors, plain.standard_errors[:m], rtol=1e-6, atol=1e-12
    )


def test_leave_one_out_with_mirror_images_leaves_both_out(rng):
    shapes, permutation = mirror_family(rng, n=14)
    options = {"mirror": permutation, "reference": shapes[0], "n_components": 12}
    quick = generalization(shapes, **options)
    plain = generalization(shapes, **options, folds=14)
    np.testing.assert_allclose(quick.values, plain.values, rtol=1e-7, atol=1e-12)


@dims
def test_folds_are_measured_with_models_of_the_others(rng, d):
    """The plain twin: fit, transform, inverse_transform, align, one shape at a time."""
    shapes = family(rng, n=9, p=6, d=d)
    curve = generalization(shapes, [2, 4], folds=9)
    for k, value in zip(curve.n_components, curve.values, strict=True):
        distances = []
        for i in range(9):
            model = ShapeModel(int(k)).fit(np.delete(shapes, i, axis=0))
            aligned = similarity(model.reference_, shapes[i]).inverse().apply(shapes[i])
            seen = model.inverse_transform(model.transform(shapes[i]))
            distances.append(point_distance(aligned, seen))
        assert value == pytest.approx(np.mean(distances), rel=1e-8)


def test_one_frame_for_all_is_near_a_frame_for_each_fold(rng):
    shapes = family(rng, n=30, p=6)
    quick, plain = generalization(shapes, 5), generalization(shapes, 5, folds=30)
    assert np.abs(quick.values - plain.values).max() < plain.standard_errors.min()
    assert (quick.folds, plain.folds) == (30, 30)
    assert (quick.random_state, plain.random_state) == (None, 0)


@pytest.mark.parametrize("folds", [None, 4])
def test_poses_do_not_matter(rng, folds):
    shapes = family(rng, n=15, posed=False)
    moved = random_similarity(rng, 15, 2).apply(shapes)
    first, second = (generalization(each, 8, folds=folds) for each in (shapes, moved))
    np.testing.assert_allclose(first.values, second.values, rtol=1e-7)


def test_all_modes_of_enough_shapes_leave_nothing_over(rng):
    curve = generalization(family(rng, n=40, p=5))
    assert curve.n_components[-1] == 6  # 10 coordinates less 4 of similarities
    assert curve.values[-1] < 1e-10 < curve.values[-2]


def test_shapes_with_few_modes_need_no_more(rng):
    """Beyond the rank there are no modes, and no noise is taken for some."""
    basis, mean = rng.normal(size=(2, 12)), rng.normal(size=12)
    shapes = (mean + rng.normal(size=(20, 2)) @ basis).reshape(20, 6, 2)
    curve = generalization(shapes, align="none")
    assert curve.values[0] > 1e-3
    assert curve.values[1:].max() < 1e-12


def test_folds_repeat_with_the_seed_and_change_with_it(rng):
    shapes = family(rng, n=20)
    curves = [generalization(shapes, 3, folds=3, random_state=seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(curves[0].values, curves[1].values)
    assert np.abs(curves[0].values - curves[2].values).min() > 0


# specificity


@dims
def test_specificity_is_the_distance_to_the_nearest_shape(rng, d):
    """The plain twin, over all pairs at once."""
    shapes = family(rng, n=15, d=d)
    model = ShapeModel(4).fit(shapes)
    curve = specificity(model, shapes, 50, 7, n_components=[1, 4])
    aligned = similarity(model.reference_, shapes).inverse().apply(shapes)
    draws = np.random.default_rng(7).standard_normal((50, 4)) * np.sqrt(model.explained_variance_)
    for row, k in enumerate((1, 4)):
        drawn = model.inverse_transform(np.where(np.arange(4) < k, draws, 0))
        nearest = point_distance(drawn[:, None], aligned[None]).min(axis=1)
        assert curve.values[row] == pytest.approx(nearest.mean(), rel=1e-9)
        assert curve.standard_errors[row] == pytest.approx(nearest.std(ddof=1) / 50**0.5)


def test_mirror_images_count_as_training_shapes(rng):
    shapes, permutation = mirror_family(rng, n=20)
    model = ShapeModel(4, mirror=permutation).fit(shapes)
    both = np.concatenate([shapes, mirrored(shapes, permutation)])
    first, second = (specificity(model, each, 40) for each in (shapes, both))
    np.testing.assert_allclose(first.values, second.values, rtol=1e-9)
    assert (first.n_shapes, first.n_samples, first.random_state) == (20, 40, 0)


def test_shapes_of_the_model_may_stand_anywhere(rng):
    shapes = family(rng, n=20, posed=False)
    model = ShapeModel(4).fit(shapes)
    moved = random_similarity(rng, 20, 2).apply(shapes)
    first, second = (specificity(model, each, 40) for each in (shapes, moved))
    np.testing.assert_allclose(first.values, second.values, rtol=1e-7)


@pytest.mark.parametrize("align", ["rigid", "box", "none"])
def test_other_frames_have_specificity(rng, align):
    shapes = family(rng, n=20, posed=align == "rigid")
    model = ShapeModel(0.999, align=align).fit(shapes)
    curve = specificity(model, shapes, 40)
    assert curve.n_components[-1] == model.n_components_
    assert np.all(curve.values > 0)


# what others got wrong


def test_peer_defect_d12_specificity_draws_with_the_variances(rng):
    """Some program takes singular values for variances, so standard deviations are their roots.

    Of one mode, with the mean as the only training shape, the distance is |b| times a constant,
    and E|b| = (2 λ / π)^½.
    """
    step = np.array([-1e-3, 1e-3])[:, None, None]
    shapes = rng.normal(size=(6, 2)) + step * rng.normal(size=(6, 2))
    model = ShapeModel(1, align="none").fit(shapes)
    curve = specificity(model, model.mean_[None], 4000)
    length = np.linalg.norm(model.components_.reshape(6, 2), axis=1).mean()
    expected = np.sqrt(2 * model.explained_variance_[0] / np.pi) * length
    assert abs(curve.values[0] - expected) < 5 * curve.standard_errors[0]
    assert curve.standard_errors[0] < 0.02 * expected


def test_peer_defect_d12_the_second_call_is_the_first_again(rng):
    shapes = family(rng, n=15)
    model = ShapeModel(3).fit(shapes)
    first, again, other = (specificity(model, shapes, 30, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.values, again.values)
    assert np.abs(first.values - other.values).min() > 0


def test_peer_defect_d13_variances_are_not_singular_values(rng):
    """A share of variance counted in singular values asks for another number of modes."""
    shapes = np.diag([4.0, 2.0, 1.0, 0.5, 0.2, 0.1]) @ rng.normal(size=(6, 400))
    shapes = shapes.T.reshape(400, 3, 2)
    covariance = np.cov(shapes.reshape(400, 6).T)
    variances = np.linalg.eigvalsh(covariance)[::-1]
    model = ShapeModel(0.9, align="none").fit(shapes)
    np.testing.assert_allclose(
        model.explained_variance_, variances[: model.n_components_], rtol=1e-10
    )
    held = np.cumsum(variances) / variances.sum()
    assert model.n_components_ == np.argmax(held >= 0.9) + 1 == 2
    roots = np.cumsum(np.sqrt(variances)) / np.sqrt(variances).sum()
    assert np.argmax(roots >= 0.9) + 1 == 4  # what the defect would hold


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 1.0])
def test_peer_defect_d14_the_share_asked_for_is_reached_and_not_before(rng, share):
    """An index taken for a count is one mode short, and 1.0 is beyond the end."""
    shapes = family(rng)
    model = ShapeModel(share).fit(shapes)
    held = compactness(model).values / model.total_variance_
    assert held[-1] >= share - 1e-12
    assert model.n_components_ == 1 or held[-2] < share - 1e-12


def test_peer_defect_d14_far_shapes_are_clamped_and_rotation_is_removed(rng):
    shapes = family(rng)
    model = ShapeModel(3).fit(shapes)
    far = model.inverse_transform(50 * np.sqrt(model.explained_variance_))
    b = model.transform(model.smooth(far)) / np.sqrt(model.explained_variance_)
    np.testing.assert_allclose(b, 3, rtol=1e-9)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    np.testing.assert_allclose(model.transform(shapes @ turn.T), model.transform(shapes))


# errors and pictures


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_components": 0}, "n_components"),
        ({"n_components": 11}, "from 1 to 10"),
        ({"n_components": [1.5]}, "whole numbers"),
        ({"folds": 1}, "folds"),
        ({"folds": 13}, "folds"),
        ({"align": "affine"}, "align"),
        ({"reference": np.zeros((3, 2))}, "reference"),
        ({"mirror": [0, 1]}, "mirror"),
    ],
)
def test_bad_options_of_generalization_are_named(rng, options, match):
    with pytest.raises(ValueError, match=match):
        generalization(family(rng, n=12), **options)


def test_bad_arguments_of_specificity_are_named(rng):
    shapes = family(rng, n=12)
    model = ShapeModel(3).fit(shapes)
    with pytest.raises(ValueError, match="n_samples"):
        specificity(model, shapes, 1)
    with pytest.raises(ValueError, match="from 1 to 3"):
        specificity(model, shapes, 9, n_components=4)
    with pytest.raises(ValueError, match="expected 9"):
        specificity(model, shapes[:, 1:])
    with pytest.raises(NotFittedError):
        specificity(ShapeModel(), shapes)
    with pytest.raises(NotFittedError):
        compactness(ShapeModel())


def test_a_plot_has_a_panel_for_each_measure_and_a_line_for_each_model(rng):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    from asmkit.plotting import plot_quality

    shapes = family(rng, n=12)
    model = ShapeModel(3).fit(shapes)
    curves = [specificity(model, shapes, 9), compactness(model)]
    figure = plot_quality({"a": curves, "b": curves[:1]})
    assert [axis.get_title() for axis in figure.axes] == ["compactness", "specificity"]
    assert [len(axis.lines) for axis in figure.axes] == [1, 2]
    drawn = figure.axes[0].lines[0].get_xydata()
    np.testing.assert_allclose(drawn.T, [curves[1].n_components, curves[1].values])
    with pytest.raises(ValueError, match="none"):
        plot_quality({"a": []})
