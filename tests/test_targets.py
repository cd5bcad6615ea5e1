import numpy as np
import pytest
from shape_families import family, mirror_family, random_similarity, relative_distance

from asmkit import ShapeModel, smooth_targets
from asmkit.annotations import read_shapes
from asmkit.metrics import nme, normalizing_distance
from asmkit.priors import Box


@pytest.fixture
def case(rng):
    shapes = family(rng, 50)
    return ShapeModel(4).fit(shapes), shapes


def test_targets_are_the_smoothed_shapes(case):
    model, shapes = case
    found = smooth_targets(model, shapes, 2, Box(1.0))
    assert np.array_equal(found.shapes, model.smooth(shapes, 2, Box(1.0)))
    assert smooth_targets(model, shapes.astype(np.float32)).shapes.dtype == np.float32


def test_displacements_are_those_of_the_shapes_over_the_normalizer(case):
    model, shapes = case
    found = smooth_targets(model, shapes, normalizer="box-size")
    report = found.report
    expected = np.linalg.norm(found.shapes - shapes, axis=2)
    expected /= normalizing_distance(shapes, "box-size")[:, None]
    assert report.displacement_per_landmark == pytest.approx(expected.mean(axis=0), rel=1e-12)
    assert report.displacement_per_shape == pytest.approx(
        nme(found.shapes, shapes, "box-size"), rel=1e-12
    )
    assert report.normalizer == "box-size"
    given = smooth_targets(model, shapes, normalizer=np.full(50, 2.0)).report
    assert given.normalizer == "given"
    assert given.displacement_per_shape.mean() * 2 == pytest.approx(
        np.linalg.norm(found.shapes - shapes, axis=2).mean()
    )


def test_clamped_shapes_are_counted_in_the_modes_where_they_were_clamped(rng):
    model = ShapeModel(4).fit(family(rng, 200))
    b = np.zeros((6, 4))
    b[0, 1] = 3.5
    b[1, [1, 3]] = -3.5, 4.0
    b[2] = 2.9
    b[5, 0] = 100
    shapes = model.inverse_transform(b * np.sqrt(model.explained_variance_))
    report = smooth_targets(model, shapes).report
    assert report.n_clamped == 3
    assert report.clamped_per_mode.tolist() == [1, 2, 0, 1]
    assert report.displacement_per_shape[2:5] == pytest.approx(np.zeros(3), abs=1e-12)
    assert np.all(report.displacement_per_shape[[0, 1, 5]] > 1e-4)
    assert smooth_targets(model, shapes, 3).report.clamped_per_mode.tolist() == [1, 2, 0]
    assert smooth_targets(model, shapes, prior=Box(np.inf)).report.n_clamped == 0


def test_targets_and_report_follow_similarities(case, rng):
    model, shapes = case
    T = random_similarity(rng, 50, 2)
    first = smooth_targets(model, shapes, normalizer=np.ones(50))
    moved = smooth_targets(model, T.apply(shapes), normalizer=T.scale)
    assert relative_distance(moved.shapes, T.apply(first.shapes)) < 1e-9
    assert moved.report.displacement_per_landmark == pytest.approx(
        first.report.displacement_per_landmark, rel=1e-6
    )
    assert moved.report.n_clamped == first.report.n_clamped


def test_mirrored_shapes_have_mirrored_targets_with_a_mirrored_model_only(rng):
    shapes, permutation = mirror_family(rng)
    image = (shapes * [-1, 1])[:, permutation]
    for mirror, holds in ((permutation, True), (None, False)):
        model = ShapeModel(4, mirror=mirror).fit(shapes)
        first = smooth_targets(model, shapes).shapes
        mirrored = (first * [-1, 1])[:, permutation]
        same = relative_distance(smooth_targets(model, image).shapes, mirrored) < 1e-9
        assert same == holds


def test_after_an_anisotropic_warp_targets_must_be_smoothed_again(case):
    model, shapes = case
    warp = np.array([1.3, 0.8])
    kept = smooth_targets(model, shapes).shapes * warp
    assert relative_distance(smooth_targets(model, shapes * warp).shapes, kept) > 1e-2


def test_the_normalizer_follows_from_the_scheme(rng):
    faces = ShapeModel(2, mirror="ibug68").fit(family(rng, 20, p=68))
    assert smooth_targets(faces, family(rng, 3, p=68)).report.normalizer == "inter-ocular"
    hands = ShapeModel(2).fit(family(rng, 20, p=56))
    assert smooth_targets(hands, family(rng, 3, p=56)).report.normalizer == "box-diagonal"
    with pytest.raises(ValueError, match="box-diagonal"):
        smooth_targets(hands, family(rng, 3, p=56), normalizer="inter-ocular")


def test_no_shapes_make_an_empty_report(case):
    model, shapes = case
    found = smooth_targets(model, shapes[:0])
    assert found.shapes.shape == (0, 9, 2)
    assert found.report.n_clamped == 0
    assert str(found.report) == "0 shapes smoothed with 4 modes"


def test_the_report_prints_what_moved_and_what_was_clamped(case):
    model, shapes = case
    report = smooth_targets(model, shapes, prior=Box(1.0)).report
    lines = str(report).splitlines()
    assert lines[0] == "50 shapes smoothed with 4 modes"
    assert "box-diagonal" in lines[1]
    mean = 100 * report.displacement_per_shape.mean()
    assert float(lines[2].split()[1]) == pytest.approx(mean, abs=1e-3)
    assert f"clamped shapes: {report.n_clamped} " in str(report)
    worst = int(np.argmax(report.clamped_per_mode))
    assert lines[7].split() == ["mode", str(worst + 1), str(report.clamped_per_mode[worst])]


@pytest.mark.parametrize("align", ["similarity", "box"])
def test_real_faces_move_less_with_more_modes(data_dir, align):
    shapes = read_shapes(str(data_dir / "300w" / "test_common" / "*.pts"))
    model = ShapeModel(0.98, align=align, mirror="ibug68").fit(shapes)
    moved = [
        smooth_targets(model, shapes, share).report.displacement_per_shape.mean()
        for share in (0.8, 0.9, 0.95, None)
    ]
    assert moved == sorted(moved, reverse=True)
    assert 0.005 < moved[-1] < moved[0] < 0.08
