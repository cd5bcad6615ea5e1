import numpy as np
import pytest
from scipy.interpolate import RBFInterpolator
from shape_families import family, random_rotation, random_similarity, relative_distance, size_of

from asmkit.alignment import (
    bending_energy,
    generalized_procrustes,
    similarity,
    slide_and_align,
    slide_semilandmarks,
)
from asmkit.annotations import read_shapes
from asmkit.schemes import Contour

dims = pytest.mark.parametrize("d", [2, 3])
criteria = pytest.mark.parametrize("criterion", ["bending", "procrustes"])
CURVES = [[0, 1, 2, 3, 4], Contour((5, 6, 7, 8), closed=True)]
SLIDERS = {1: (0, 2), 2: (1, 3), 3: (2, 4), 5: (8, 6), 6: (5, 7), 7: (6, 8), 8: (7, 5)}


def tangents(shapes):
    along = np.stack([shapes[..., b, :] - shapes[..., a, :] for a, b in SLIDERS.values()], axis=-2)
    return along / np.linalg.norm(along, axis=-1, keepdims=True)


def cost(criterion, reference, shapes):
    if criterion == "bending":
        return bending_energy(reference, shapes)
    moved = similarity(reference, shapes).apply(reference)
    return np.sum((shapes - moved) ** 2, axis=(-1, -2))


# bending energy


@dims
def test_affine_images_of_the_reference_do_not_bend(rng, d):
    reference = family(rng, 1, d=d)[0]
    images = reference @ rng.normal(size=(20, d, d)) + rng.normal(size=(20, 1, d))
    assert np.all(bending_energy(reference, images) < 1e-18 * size_of(images) ** 2)
    others = family(rng, 20, d=d)
    energy = bending_energy(reference, others)
    assert np.all(energy > 0)
    assert bending_energy(reference, others + images) == pytest.approx(energy, rel=1e-7)


@dims
def test_bending_energy_follows_units_and_forgets_poses(rng, d):
    reference, shapes = family(rng, 1, d=d)[0], family(rng, 5, d=d)
    energy = bending_energy(reference, shapes)
    turn = random_rotation(rng, 1, d)[0]
    assert bending_energy(reference @ turn + 3, shapes) == pytest.approx(energy, rel=1e-8)
    assert bending_energy(reference, shapes @ turn - 7) == pytest.approx(energy, rel=1e-8)
    assert bending_energy(reference, 10 * shapes) == pytest.approx(100 * energy, rel=1e-9)
    power = {2: 2, 3: 1}[d]
    assert bending_energy(10 * reference, shapes) == pytest.approx(energy / 10**power, rel=1e-9)
    assert bending_energy(reference, shapes[2]).shape == ()
    assert bending_energy(reference, shapes[None]).shape == (1, 5)


@dims
def test_bending_energy_is_that_of_the_usual_system(rng, d):
    """The upper left block of the inverse of the spline's system, as the textbooks have it."""
    reference, shape = family(rng, 2, d=d, posed=False)
    radius = np.linalg.norm(reference[:, None] - reference, axis=-1)
    kernel = -radius
    if d == 2:
        kernel = radius**2 * np.log(radius + np.eye(9))
    affine = np.column_stack([np.ones(9), reference])
    system = np.block([[kernel / (8 * np.pi), affine], [affine.T, np.zeros((d + 1, d + 1))]])
    block = np.linalg.inv(system)[:9, :9]
    expected = np.trace(shape.T @ block @ shape)
    assert bending_energy(reference, shape) == pytest.approx(expected, rel=1e-7)


def test_bending_energy_is_the_integral_of_squared_second_derivatives(rng):
    reference = np.array([[-1, -1], [1, -0.8], [0.9, 1], [-1, 1.1], [0.1, 0.2]])
    shape = reference + 0.2 * rng.normal(size=(5, 2))
    spline = RBFInterpolator(reference, shape, kernel="thin_plate_spline")
    step, reach = 0.05, 12.0
    grid = np.arange(-reach, reach, step)
    across, down = np.meshgrid(grid, grid, indexing="ij")
    values = spline(np.column_stack([across.ravel(), down.ravel()])).reshape(*across.shape, 2)
    xx = np.diff(values, 2, axis=0)[:, 1:-1] / step**2
    yy = np.diff(values, 2, axis=1)[1:-1] / step**2
    xy = (values[2:, 2:] - values[2:, :-2] - values[:-2, 2:] + values[:-2, :-2]) / (4 * step**2)
    integral = np.sum(xx**2 + 2 * xy**2 + yy**2) * step**2
    assert bending_energy(reference, shape) == pytest.approx(integral, rel=0.03)


@dims
def test_a_reference_on_a_line_still_has_a_spline(rng, d):
    reference = np.linspace(0, 1, 6)[:, None] * rng.normal(size=d)
    shape = rng.normal(size=(6, d))
    assert bending_energy(reference, shape) > 0
    assert bending_energy(reference, reference @ rng.normal(size=(d, d))) < 1e-15


# sliding


@dims
@criteria
def test_sliding_follows_the_tangents_and_never_raises_the_criterion(rng, d, criterion):
    reference, shapes = family(rng, 1, d=d)[0], family(rng, 30, d=d, spread=0.3)
    slid = slide_semilandmarks(shapes, reference, CURVES, criterion=criterion)
    moves = slid - shapes
    assert np.all(moves[:, [0, 4]] == 0)
    along = tangents(shapes)
    own = moves[:, list(SLIDERS)]
    length = np.sum(own * along, axis=-1, keepdims=True)
    assert np.abs(own - length * along).max() < 1e-9 * np.abs(moves).max()
    before, after = cost(criterion, reference, shapes), cost(criterion, reference, slid)
    assert np.all(after <= before * (1 + 1e-12))
    assert np.median(after / before) < 0.95


@dims
def test_no_other_slide_bends_less(rng, d):
    reference, shapes = family(rng, 1, d=d)[0], family(rng, 6, d=d, spread=0.3)
    slid = slide_semilandmarks(shapes, reference, CURVES)
    least, along = bending_energy(reference, slid), tangents(shapes)
    for size in (1e-1, 1e-3):
        for _ in range(10):
            other = slid.copy()
            lengths = size * size_of(shapes)[:, None, None] * rng.normal(size=(6, len(SLIDERS), 1))
            other[:, list(SLIDERS)] += lengths * along
            assert np.all(bending_energy(reference, other) >= least * (1 - 1e-9))


@dims
def test_sliding_agrees_with_bookstein(rng, d):
    """``t = −(Uᵀ L U)⁻¹ Uᵀ L y`` with L the bending matrix once for each coordinate."""
    reference, shape = family(rng, 2, d=d, posed=False)
    units = np.eye(9)
    bending = np.array(
        [
            [
                bending_energy(reference, np.column_stack([units[i] + s * units[j]] * d)) / d
                for s in (1, -1)
            ]
            for i in range(9)
            for j in range(9)
        ]
    )
    # Polarisation gives back the matrix from its quadratic form.
    matrix = ((bending[:, 0] - bending[:, 1]) / 4).reshape(9, 9)
    system = np.kron(np.eye(d), matrix)
    design = np.zeros((d, 9, len(SLIDERS)))
    for number, (slider, tangent) in enumerate(zip(SLIDERS, tangents(shape), strict=True)):
        design[:, slider, number] = tangent
    design = design.reshape(9 * d, -1)
    y = shape.T.ravel()
    t = -np.linalg.solve(design.T @ system @ design, design.T @ system @ y)
    expected = (y + design @ t).reshape(d, 9).T
    found = slide_semilandmarks(shape, reference, CURVES)
    assert relative_distance(found, expected) < 1e-6


@dims
@criteria
def test_sliding_is_equivariant_and_batched(rng, d, criterion):
    reference, shapes = family(rng, 1, d=d)[0], family(rng, 6, d=d, spread=0.3)
    slid = slide_semilandmarks(shapes, reference, CURVES, criterion=criterion)
    T, S = random_similarity(rng, 6, d), random_similarity(rng, 1, d)
    again = slide_semilandmarks(
        T.apply(shapes).reshape(2, 3, 9, d), S.apply(reference)[0], CURVES, criterion=criterion
    )
    assert again.shape == (2, 3, 9, d)
    assert relative_distance(again.reshape(6, 9, d), T.apply(slid)) < 1e-7
    alone = slide_semilandmarks(shapes[2], reference, CURVES, criterion=criterion)
    assert relative_distance(alone, slid[2]) < 1e-9


@dims
@criteria
def test_points_that_slipped_along_straight_edges_slide_back(rng, d, criterion):
    """Where the tangents are the curve, what was misplaced along it is undone altogether."""
    corners = rng.normal(size=(4, d))
    share = np.array([0.0, 0.3, 0.6, 1.0])[:, None]
    edges = [corners[i] + share[:-1] * (corners[(i + 1) % 4] - corners[i]) for i in range(4)]
    reference = np.concatenate(edges)  # corners are points 0, 3, 6, 9
    slipped = reference.copy()
    for i in range(4):
        along = corners[(i + 1) % 4] - corners[i]
        slipped[[3 * i + 1, 3 * i + 2]] += rng.uniform(-0.1, 0.1, (2, 1)) * along
    curves = [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9], [9, 10, 11, 0]]
    if criterion == "procrustes":
        # The pose is that of the slipped shape: each slide halves what is left, or better.
        found = slipped
        for _ in range(200):
            found = slide_semilandmarks(found, reference, curves, criterion=criterion)
    else:
        found = slide_semilandmarks(slipped, reference, curves)
    assert relative_distance(slipped, reference) > 0.01
    assert relative_distance(found, reference) < 1e-7


@dims
@criteria
def test_what_is_like_the_reference_stays(rng, d, criterion):
    reference = family(rng, 1, d=d)[0]
    shapes = random_similarity(rng, 5, d).apply(reference)
    found = slide_semilandmarks(shapes, reference, CURVES, criterion=criterion)
    assert relative_distance(found, shapes) < 1e-8


def test_a_direction_without_energy_is_left_alone(rng):
    """All points of a circle can turn together: tangents, and yet an affine map."""
    angle = np.arange(12) * np.pi / 6
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    shapes = circle + 0.02 * rng.normal(size=(5, 12, 2))
    whole = [Contour(tuple(range(12)), closed=True)]
    assert slide_semilandmarks(circle, circle, whole) == pytest.approx(circle, abs=1e-7)
    slid = slide_semilandmarks(shapes, circle, whole)
    assert np.all(bending_energy(circle, slid) <= bending_energy(circle, shapes))


def test_a_curve_may_be_given_as_a_polyline_or_by_triples(rng):
    reference, shapes = family(rng, 1)[0], family(rng, 4)
    first = slide_semilandmarks(shapes, reference, [[2, 3, 4, 5], [6, 7, 8, 6]])
    triples = [(2, 3, 4), (3, 4, 5), (6, 7, 8), (7, 8, 6)]
    assert np.array_equal(slide_semilandmarks(shapes, reference, triples), first)
    held = slide_semilandmarks(shapes, reference, [[2, 3, 4, 5], [6, 7, 8, 6]], fixed=[4, 8])
    assert np.array_equal(
        held, slide_semilandmarks(shapes, reference, [(2, 3, 4), Contour((6, 7, 8), False)])
    )
    assert np.array_equal(slide_semilandmarks(shapes, reference, []), shapes)


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ([[0, 1, 2], [3, 4]], "curve 1 has 2 point"),
        ([[0, 1, 9]], r"outside 0\.\.8"),
        ([[0, 1, 2], [3, 1, 4]], "point 1 would slide on two curves"),
        ([[0, 1, 0]], r"neighbours of a sliding point coincide in 4 shape\(s\)"),
    ],
)
def test_bad_curves_are_refused(rng, curves, message):
    shapes = family(rng, 4)
    with pytest.raises(ValueError, match=message):
        slide_semilandmarks(shapes, shapes[0], curves)


def test_bad_shapes_and_criteria_are_refused(rng):
    shapes = family(rng, 4)
    with pytest.raises(ValueError, match="criterion: got 'area', expected one of"):
        slide_semilandmarks(shapes, shapes[0], CURVES, criterion="area")
    doubled = shapes[0].copy()
    doubled[4] = doubled[2]
    with pytest.raises(ValueError, match="points 2 and 4 coincide"):
        slide_semilandmarks(shapes, doubled, CURVES)
    shapes[1, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        slide_semilandmarks(shapes, shapes[0], CURVES)


# sliding and alignment in turns


def distance_to_polyline(points, path):
    """Of points (k, d) to the polyline (m, d), in units of its length."""
    start, along = path[:-1], np.diff(path, axis=0)
    share = np.einsum("kmd,md->km", points[:, None] - start, along) / np.sum(along**2, axis=1)
    feet = start + np.clip(share, 0, 1)[..., None] * along
    nearest = np.linalg.norm(points[:, None] - feet, axis=-1).min(axis=1)
    return nearest.max() / np.linalg.norm(along, axis=1).sum()


@criteria
@pytest.mark.parametrize(("name", "n_points"), [("hands", 56), ("300w/test_common", 17)])
def test_real_outlines_slide_along_themselves(data_dir, criterion, name, n_points):
    shapes = read_shapes(str(data_dir / name / "*.pts"))[:40]
    curve = list(range(n_points))
    found = slide_and_align(shapes, [curve], criterion=criterion)
    assert found.converged
    assert np.all(np.diff(found.criterion) <= 0)
    assert len(found.criterion) == found.n_iterations + 1 > 2
    assert found.criterion[-1] < 0.99 * found.criterion[0]
    before = generalized_procrustes(shapes)
    first = cost(criterion, before.mean, before.aligned).mean()
    assert found.criterion[0] == pytest.approx(first, rel=1e-9)
    still = np.delete(np.arange(shapes.shape[1]), curve[1:-1])
    assert relative_distance(found.shapes[:, still], shapes[:, still]) < 1e-12
    for slid, given in zip(found.shapes, shapes, strict=True):
        assert distance_to_polyline(slid[curve], given[curve]) < 1e-12
        assert np.all(np.sum(np.diff(slid[curve], axis=0) ** 2, axis=1) > 0)
    assert found.procrustes.converged
    if criterion == "procrustes":
        assert found.procrustes.objective < before.objective


@dims
@criteria
@pytest.mark.parametrize("stay_on_curve", [True, False])
def test_turns_are_equivariant(rng, d, criterion, stay_on_curve):
    shapes = family(rng, 12, d=d, spread=0.1, posed=False)
    options = {"criterion": criterion, "stay_on_curve": stay_on_curve, "max_iterations": 3}
    found = slide_and_align(shapes, CURVES, shapes[0], **options)
    assert np.all(np.diff(found.criterion) <= 0)
    assert found.n_iterations <= 3
    T = random_similarity(rng, 12, d)
    moved = slide_and_align(T.apply(shapes), CURVES, shapes[0], **options)
    assert relative_distance(moved.shapes, T.apply(found.shapes)) < 1e-6
    assert moved.criterion == pytest.approx(found.criterion, rel=1e-6)


def test_no_turns_give_back_the_shapes(rng):
    shapes = family(rng, 8)
    found = slide_and_align(shapes, CURVES, max_iterations=0)
    assert not found.converged
    assert found.n_iterations == 0
    assert relative_distance(found.shapes, shapes) < 1e-12
    assert found.procrustes.mean == pytest.approx(generalized_procrustes(shapes).mean, abs=1e-9)
