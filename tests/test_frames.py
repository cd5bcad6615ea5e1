"""Frames beside the similarity frame: rigid motions, and none."""

import numpy as np
import pytest
from shape_families import family, mirror_family, random_similarity, relative_distance, size_of

from asmkit import ShapeModel
from asmkit.alignment import Similarity
from asmkit.modes import fixed_directions, moves
from asmkit.priors import Unbounded

UNBOUNDED = Unbounded()

dims = pytest.mark.parametrize("d", [2, 3])


def rigid_motions(rng, n, d):
    moved = random_similarity(rng, n, d)
    return Similarity(np.ones(n), moved.rotation, moved.translation)


@dims
def test_moves_are_what_small_similarities_do(rng, d):
    shapes = rng.normal(size=(4, 9, d))
    found = moves(shapes)
    assert found.shape == (4, {2: 4, 3: 7}[d], 9, d)
    assert np.array_equal(found[2], moves(shapes[2]))
    assert np.array_equal(found[:, d], shapes)
    turns = found[:, d + 1 :]
    assert np.abs(np.einsum("nfpd,npd->nf", turns, shapes)).max() < 1e-12
    assert moves(shapes, ()).shape == (4, 0, 9, d)


@dims
def test_rigid_models_keep_size_as_part_of_the_shape(rng, d):
    shapes = rigid_motions(rng, 60, d).apply(
        family(rng, 60, 9, d, posed=False) * np.exp(0.2 * rng.normal(size=(60, 1, 1)))
    )
    model = ShapeModel(1.0, align="rigid").fit(shapes)
    assert np.abs(model.mean_.mean(axis=0)).max() < 1e-10
    assert size_of(model.mean_) == pytest.approx(size_of(shapes).mean(), rel=0.1)
    kept = fixed_directions(model.mean_, ("translation", "rotation"))
    assert np.abs(model.components_ @ kept.T).max() < 1e-10
    # One mode or so is size: coefficients follow it.
    b = model.transform(shapes)
    assert np.abs(np.corrcoef(b[:, 0], size_of(shapes))[0, 1]) > 0.8
    assert relative_distance(model.smooth(shapes, prior=UNBOUNDED), shapes) < 1e-9
    assert relative_distance(model.complete(shapes), shapes) < 1e-9


@dims
def test_rigid_smoothing_follows_rigid_motions_only(rng, d):
    shapes = family(rng, 60, 9, d, posed=False)
    model = ShapeModel(4, align="rigid").fit(shapes)
    motions = rigid_motions(rng, 60, d)
    for method in (model.smooth, model.constrain):
        expected = motions.apply(method(shapes))
        assert relative_distance(method(motions.apply(shapes)), expected) < 1e-9
        assert relative_distance(method(2 * shapes), 2 * method(shapes)) > 1e-2
    part = shapes.copy()
    part[:, 3] = np.nan
    expected = motions.apply(model.complete(part, 0.1))
    assert relative_distance(model.complete(motions.apply(part), 0.1), expected) < 1e-6


@dims
def test_rigid_constraint_is_the_nearest_and_rests(rng, d):
    shapes = family(rng, 60, 9, d, posed=False)
    model = ShapeModel(4, align="rigid").fit(shapes)
    wild = shapes + 0.3 * rng.normal(size=shapes.shape)
    nearest, once = model.constrain(wild), model.smooth(wild)
    misfit = [np.linalg.norm(x - wild, axis=(1, 2)) for x in (nearest, once)]
    assert np.all(misfit[0] <= misfit[1] * (1 + 1e-9))
    assert relative_distance(model.constrain(nearest), nearest) < 1e-8


def test_rigid_models_take_a_reference_and_mirror_pairs(rng):
    shapes, pairs = mirror_family(rng, 60)
    shapes = shapes / size_of(shapes)[:, None, None] * 100
    model = ShapeModel(5, align="rigid", mirror=pairs).fit(shapes)
    assert np.abs((model.mean_ * [-1, 1])[pairs] - model.mean_).max() < 1e-9
    image = (shapes * [-1, 1])[:, pairs]
    expected = (model.smooth(shapes) * [-1, 1])[:, pairs]
    assert relative_distance(model.smooth(image), expected) < 1e-9
    fixed = ShapeModel(5, align="rigid").fit(shapes, reference=shapes[0])
    b = fixed.transform(shapes)
    assert np.allclose(fixed.transform(fixed.inverse_transform(b)), b, atol=1e-8)
    assert np.abs(b.mean(axis=0)).max() < 1e-8


@dims
def test_still_models_are_plain_principal_components(rng, d):
    shapes = family(rng, 60, 9, d, posed=False)
    model = ShapeModel(4, align="none").fit(shapes)
    flat = shapes.reshape(60, -1)
    assert np.allclose(model.mean_.reshape(-1), flat.mean(axis=0))
    values = np.linalg.svd(flat - flat.mean(axis=0), compute_uv=False) ** 2 / 59
    assert np.allclose(model.explained_variance_, values[:4])
    assert model.noise_variance_ == pytest.approx(values[4:].sum() / (9 * d - 4))
    smoothed = model.smooth(shapes, prior=UNBOUNDED)
    assert np.allclose(model.smooth(smoothed, prior=UNBOUNDED), smoothed)
    assert np.array_equal(model.constrain(shapes), model.smooth(shapes))
    residual = (smoothed - shapes).reshape(60, -1)
    assert np.abs(residual @ model.components_.T).max() < 1e-12


@pytest.mark.parametrize("align", ["rigid", "none"])
@dims
def test_other_frames_are_saved_and_loaded(rng, tmp_path, align, d):
    shapes = family(rng, 60, 9, d, posed=False)
    model = ShapeModel(4, align=align).fit(shapes)
    model.save(tmp_path / "m.npz")
    again = ShapeModel.load(tmp_path / "m.npz")
    assert again.align == align
    assert np.array_equal(again.smooth(shapes), model.smooth(shapes))


def test_a_still_model_has_no_axis_to_mirror_about(rng):
    shapes, pairs = mirror_family(rng)
    with pytest.raises(ValueError, match="mirror"):
        ShapeModel(4, align="none", mirror=pairs).fit(shapes)


def test_a_file_of_the_first_version_has_its_mean_as_reference(rng, tmp_path):
    from asmkit._npz import read_npz, write_npz
    from asmkit.model_file import _ARRAYS

    shapes = family(rng, 60, 9, 2)
    model = ShapeModel(4).fit(shapes)
    model.save(tmp_path / "new.npz")
    arrays = read_npz(tmp_path / "new.npz", "asmkit shape model", 2, _ARRAYS)
    write_npz(tmp_path / "old.npz", "asmkit shape model", 1, arrays)
    old = ShapeModel.load(tmp_path / "old.npz")
    assert np.array_equal(old.reference_, old.mean_)
    assert np.array_equal(old.smooth(shapes), model.smooth(shapes))
