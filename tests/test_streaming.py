"""Models that learn in batches, and models that are merged."""

import numpy as np
import pytest
from shape_families import family, mirror_family, random_similarity, relative_distance

from asmkit import ShapeModel
from asmkit.alignment import similarity
from asmkit.statistics import ShapeStatistics

dims = pytest.mark.parametrize("d", [2, 3])


def assert_same(a, b, shapes, tolerance=1e-9):
    assert a.n_components_ == b.n_components_
    assert a.n_samples_ == b.n_samples_
    assert np.abs(a.mean_ - b.mean_).max() < tolerance
    assert np.abs(a.reference_ - b.reference_).max() < tolerance
    assert np.allclose(a.explained_variance_, b.explained_variance_, rtol=1e-8)
    assert a.noise_variance_ == pytest.approx(b.noise_variance_, rel=1e-8)
    assert relative_distance(a.smooth(shapes), b.smooth(shapes)) < tolerance


@dims
def test_batches_give_the_model_of_all_shapes(rng, d):
    shapes = family(rng, 90, 9, d)
    reference = shapes[7] * 3 + 5
    whole = ShapeModel(5).fit(shapes, reference=reference)
    for cuts in ([1, 2, 3], [30, 31, 80], [45]):
        model = ShapeModel(5)
        for number, batch in enumerate(np.split(shapes, cuts)):
            model.partial_fit(batch, reference=reference if number == 0 else None)
        assert_same(model, whole, shapes)


@dims
def test_models_fitted_apart_merge_into_the_model_of_all(rng, d):
    shapes = family(rng, 90, 9, d)
    reference = shapes.mean(axis=0) + shapes[0]
    whole = ShapeModel(5).fit(shapes, reference=reference)
    parts = [ShapeModel(5).fit(part, reference=reference) for part in np.split(shapes, [20, 55])]
    merged = parts[0].merge(*parts[1:])
    assert_same(merged, whole, shapes)
    assert_same(parts[2].merge(parts[1]).merge(parts[0]), whole, shapes)
    assert parts[0].n_samples_ == 20


def test_mirror_images_count_in_batches_too(rng):
    shapes, pairs = mirror_family(rng, 60)
    reference = shapes[0]
    whole = ShapeModel(6, mirror=pairs).fit(shapes, reference=reference)
    parts = ShapeModel(6, mirror=pairs).partial_fit(shapes[:25], reference=reference)
    parts.partial_fit(shapes[25:])
    assert whole.n_samples_ == 120
    assert_same(parts, whole, shapes)
    image = (shapes * [-1, 1])[:, pairs]
    expected = (whole.smooth(shapes) * [-1, 1])[:, pairs]
    assert relative_distance(whole.smooth(image), expected) < 1e-9


def test_the_first_batch_sets_the_frame_where_no_reference_is_given(rng):
    shapes = family(rng, 90, 9, 2)
    model = ShapeModel(5).partial_fit(shapes[:40]).partial_fit(shapes[40:])
    first = ShapeModel(5).fit(shapes[:40])
    assert np.abs(model.reference_ - first.mean_).max() < 1e-12
    assert_same(model, ShapeModel(5).fit(shapes, reference=first.mean_), shapes)


def test_a_model_learns_on_after_it_was_saved(rng, tmp_path):
    shapes = family(rng, 90, 9, 2)
    ShapeModel(0.9).fit(shapes[:40], reference=shapes[0]).save(tmp_path / "model.npz")
    model = ShapeModel.load(tmp_path / "model.npz").partial_fit(shapes[40:])
    assert_same(model, ShapeModel(0.9).fit(shapes, reference=shapes[0]), shapes)


def test_statistics_collected_elsewhere_make_the_same_model(rng):
    shapes = family(rng, 90, 9, 3)
    found = ShapeStatistics.of(shapes, shapes[0])
    model = ShapeModel.from_statistics(found, 5)
    assert_same(model, ShapeModel(5).fit(shapes, reference=shapes[0]), shapes)


@dims
def test_poses_are_estimated_to_the_reference_and_modes_are_clear_of_its_moves(rng, d):
    shapes = family(rng, 90, 9, d)
    model = ShapeModel(1.0).fit(shapes, reference=shapes[3])
    aligned = similarity(model.reference_, shapes).inverse().apply(shapes)
    assert np.allclose(model.mean_, aligned.mean(axis=0))
    b = model.transform(shapes)
    assert np.allclose(b, (aligned - model.mean_).reshape(90, -1) @ model.components_.T)
    assert np.abs(b.mean(axis=0)).max() < 1e-10
    assert np.allclose(b.var(axis=0, ddof=1), model.explained_variance_)
    assert np.allclose(model.transform(model.inverse_transform(b)), b, atol=1e-10)
    assert relative_distance(model.smooth(shapes), shapes) < 0.1
    moved = random_similarity(rng, 90, d)
    expected = moved.apply(model.smooth(shapes))
    assert relative_distance(model.smooth(moved.apply(shapes)), expected) < 1e-9
    few = model.truncate(4)
    nearest = few.constrain(shapes)
    misfit = [np.linalg.norm(x - shapes, axis=(1, 2)) for x in (nearest, few.smooth(shapes))]
    assert np.all(misfit[0] <= misfit[1] * (1 + 1e-9))


@dims
def test_float32_batches_agree_with_float64(rng, d):
    shapes = family(rng, 40, 9, d)
    model = ShapeModel(5).fit(shapes, reference=shapes[3])
    single = model.smooth(shapes.astype(np.float32))
    assert single.dtype == np.float32
    assert relative_distance(single, model.smooth(shapes)) < 1e-4


def test_a_reference_near_the_mean_changes_little(rng):
    shapes = family(rng, 90, 9, 2)
    plain = ShapeModel(5).fit(shapes)
    fixed = ShapeModel(5).fit(shapes, reference=plain.mean_)
    assert np.abs(fixed.mean_ - plain.mean_).max() < 1e-9
    assert_same(fixed, plain, shapes, 1e-7)


@pytest.mark.parametrize("rule", ["parallel", "broken-stick"])
def test_rules_that_need_second_moments_only_serve_batches(rng, rule):
    shapes = family(rng, 90, 9, 2)
    whole = ShapeModel(rule).fit(shapes, reference=shapes[0])
    model = ShapeModel(rule).partial_fit(shapes[:50], reference=shapes[0])
    assert_same(model.partial_fit(shapes[50:]), whole, shapes)


def test_what_has_no_fixed_frame_says_so(rng):
    shapes = family(rng, 30, 9, 2)
    model = ShapeModel(3).fit(shapes)
    with pytest.raises(ValueError, match="without a reference"):
        model.partial_fit(shapes)
    with pytest.raises(ValueError, match="model 0 was fitted without reference="):
        model.merge(model)
    fixed = ShapeModel(3).fit(shapes, reference=shapes[0])
    with pytest.raises(ValueError, match="model 1 was fitted without reference="):
        fixed.merge(model)
    with pytest.raises(ValueError, match="references"):
        fixed.merge(ShapeModel(3).fit(shapes, reference=shapes[1]))
    mirrored = ShapeModel(3, mirror=np.arange(9)[::-1]).fit(shapes, reference=shapes[0])
    with pytest.raises(ValueError, match="mirror"):
        fixed.merge(mirrored)
    with pytest.raises(ValueError, match="first batch only"):
        fixed.partial_fit(shapes, reference=shapes[0])
    for options in ({"align": "box"}, {"align": "rigid"}, {"robust": True}):
        with pytest.raises(ValueError, match="partial_fit: needs"):
            ShapeModel(3, **options).partial_fit(shapes)
    with pytest.raises(ValueError, match="likelihood"):
        ShapeModel("likelihood").partial_fit(shapes)
    for align in ("box", "none"):
        with pytest.raises(ValueError, match="reference"):
            ShapeModel(3, align=align).fit(shapes, reference=shapes[0])
    with pytest.raises(ValueError, match="reference: all points coincide"):
        ShapeModel(3).fit(shapes, reference=np.ones((9, 2)))
