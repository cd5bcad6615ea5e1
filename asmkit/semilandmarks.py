"""Semilandmarks: points whose place along a curve is nobody's finding, only their curve is.

Such points slide along the tangents of their curves to where the shape differs least from a
reference: by bending energy of the thin-plate spline that takes the reference to the shape
(Bookstein 1997; Gunz & Mitteroecker 2013), or by Procrustes distance.

The bending energy of a shape ``Y`` (p, d) is ``tr(Yᵀ B Y)``, a quadratic form of the reference
alone that vanishes for its affine images. With the kernel the fundamental solution of the
biharmonic equation (``r² log r / 8π`` in the plane, ``−r / 8π`` in space) it is the integral of the
squared second derivatives of the spline over the plane or space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from asmkit._check import as_batch, as_points, as_shapes
from asmkit.pairwise import refuse_rows, similarity
from asmkit.procrustes import ProcrustesResult, generalized_procrustes
from asmkit.schemes import Contour
from asmkit.transforms import Similarity

__all__ = ["SlidingResult", "bending_energy", "slide_and_align", "slide_semilandmarks"]

Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

#: What sliding lowers.
Criterion = Literal["bending", "procrustes"]

#: Curves: open ones end in points that stay; a ``Contour`` may be closed.
Curves = Sequence[Contour | Sequence[int]]

_FLAT = 1e-10
_HALVINGS = 10


def bending_energy(reference: npt.ArrayLike, shapes: npt.ArrayLike) -> Float64:
    """Bending energy of the thin-plate splines from a reference to shapes.

    Parameters
    ----------
    reference : array_like, shape (p, d)
        A complete shape of distinct points.
    shapes : array_like, shape (..., p, d)
        Complete shapes.

    Returns
    -------
    ndarray, shape (...)
        The integral of the squared second derivatives of the spline, summed over coordinates: at
        least 0, and 0 for affine images of the reference. It takes the squared units of the shapes
        over the squared units of the reference (in 3-D: over those units).

    Raises
    ------
    ValueError
        When points are missing or do not match, or two points of the reference coincide.
    """
    pattern = as_points(reference, "reference").astype(np.float64, copy=False)
    batch, axes = as_batch(shapes, n_points=pattern.shape[0], n_dims=pattern.shape[1])
    roots = _bending_root(pattern).T @ batch.astype(np.float64, copy=False)
    return np.asarray(np.sum(roots**2, axis=(1, 2)).reshape(axes))


def _bending_root(reference: Float64) -> Float64:
    """A root ``G`` (p, m) of the bending matrix, ``B = G Gᵀ``, whose columns no affine map feels.

    On coefficients without moments of order 0 and 1 the kernel matrix K is positive definite: with
    Q an orthonormal basis of these, ``B = Q (Qᵀ K Q)⁻¹ Qᵀ``. This is the upper left block of the
    inverse of the spline's usual system, and symmetric and free of affine maps in its rounding too.
    """
    n_points, n_dims = reference.shape
    centred = reference - reference.mean(axis=0)
    size = np.linalg.norm(centred)
    distance2 = np.sum((centred[:, None] - centred[None]) ** 2, axis=-1)
    apart = distance2 + np.eye(n_points) * size**2
    if not size > 0 or not apart.min() > (1e-8 * size) ** 2:
        first, second = np.unravel_index(np.argmin(apart), apart.shape)
        raise ValueError(
            f"reference: points {first} and {second} coincide; a spline needs distinct points"
        )
    affine = np.column_stack([np.ones(n_points), centred / size])
    left, values, _ = np.linalg.svd(affine)
    basis = left[:, np.count_nonzero(values > _FLAT * values[0]) :]
    if n_dims == 2:
        # r² log r; other units would only add moments of order 0 and 1.
        kernel = distance2 * np.log(np.where(distance2 > 0, distance2 / size**2, 1.0)) / 2
    else:
        kernel = -np.sqrt(distance2)
    root = np.linalg.cholesky(basis.T @ kernel @ basis / (8 * np.pi))
    return np.asarray(np.linalg.solve(root, basis.T).T)


def slide_semilandmarks(
    shapes: npt.ArrayLike,
    reference: npt.ArrayLike,
    curves: Curves,
    *,
    criterion: Criterion = "bending",
    fixed: Sequence[int] = (),
) -> Float64:
    """Slide points along the tangents of their curves to where a shape is most like a reference.

    The tangent at a point is the direction from the point before it to the one after it. All points
    of a shape slide at once, by the exact minimiser over their tangents; where the criterion leaves
    a direction open, by the shortest way. Curved curves are left by a distance of second order: to
    slide to and fro and stay on the curve, see :func:`slide_and_align`.

    Parameters
    ----------
    shapes : array_like, shape (..., p, d)
        Complete shapes, d = 2 or 3.
    reference : array_like, shape (p, d)
        Where to slide to, usually the mean shape; its pose does not matter.
    curves : sequence of Contour or of sequences of int
        The points of each curve in order. Of an index sequence the first and the last stay, the
        others slide: ``(before, slider, after)`` is the smallest, and one that ends in its first
        point is a loop through it. All points of a closed ``Contour`` slide.
    criterion : {"bending", "procrustes"}
        ``"bending"``: the bending energy of the spline from the reference to the shape.
        ``"procrustes"``: ``‖x − T(reference)‖²`` in the least-squares pose T.
    fixed : sequence of int
        Points that stay wherever they lie on a curve.

    Returns
    -------
    ndarray, shape (..., p, d)
        The criterion of each shape is at most what it was.

    Raises
    ------
    ValueError
        When a curve is too short or names no point, a point is to slide on two curves, or the
        neighbours of a sliding point coincide.

    References
    ----------
    F. L. Bookstein (1997). Landmark methods for forms without landmarks: morphometrics of group
    differences in outline shape. Medical Image Analysis 1(3), 225-243.

    P. Gunz, P. Mitteroecker (2013). Semilandmarks: a method for quantifying curves and surfaces.
    Hystrix 24(1), 103-109.
    """
    pattern = as_points(reference, "reference").astype(np.float64, copy=False)
    n_points, n_dims = pattern.shape
    flat, axes = as_batch(shapes, n_points=n_points, n_dims=n_dims)
    batch = flat.astype(np.float64, copy=False)
    sliders = _sliders(curves, fixed, n_points)
    slide, _ = _criterion(criterion)
    slid = batch.copy()
    slid[:, sliders[:, 1]] += slide(batch, pattern, sliders, _tangents(batch, sliders))
    return np.asarray(slid.reshape(*axes, n_points, n_dims))


def _sliders(curves: Curves, fixed: Sequence[int], n_points: int) -> Indices:
    """Rows of (before, slider, after), shape (m, 3)."""
    rows: list[tuple[int, int, int]] = []
    for number, curve in enumerate(curves):
        closed = isinstance(curve, Contour) and curve.closed
        order = [int(i) for i in (curve.indices if isinstance(curve, Contour) else curve)]
        if len(order) < 3:
            raise ValueError(
                f"curves: curve {number} has {len(order)} point(s), expected 3 or more"
            )
        if not 0 <= min(order) <= max(order) < n_points:
            raise ValueError(
                f"curves: curve {number} names points outside 0..{n_points - 1}: {order}"
            )
        path = [order[-1], *order, order[0]] if closed else order
        rows += zip(path, path[1:], path[2:], strict=False)
    sliders = np.array([row for row in rows if row[1] not in set(fixed)], dtype=np.intp)
    sliders = sliders.reshape(-1, 3)
    points, counts = np.unique(sliders[:, 1], return_counts=True)
    if np.any(counts > 1):
        raise ValueError(
            f"curves: point {points[counts > 1][0]} would slide on two curves; a point where "
            "curves meet must end both of them, or be among `fixed`"
        )
    return sliders


def _tangents(batch: Float64, sliders: Indices) -> Float64:
    """Unit vectors (n, m, d)."""
    along = batch[:, sliders[:, 2]] - batch[:, sliders[:, 0]]
    length = np.linalg.norm(along, axis=-1, keepdims=True)
    refuse_rows(
        (length <= 0).any(axis=(1, 2)),
        "shapes",
        "the neighbours of a sliding point coincide in",
        "the curve has no tangent there",
    )
    return np.asarray(along / length)


def _slide_bending(
    batch: Float64, reference: Float64, sliders: Indices, tangents: Float64
) -> Float64:
    """Moves (n, m, d) that minimise ``tr(Yᵀ B Y)``: one linear system of m unknowns a shape."""
    root = _bending_root(reference)
    own = root[sliders[:, 1]]
    gradient = np.einsum("nmd,nmd->nm", own @ (root.T @ batch), tangents)
    system = (own @ own.T) * (tangents @ np.swapaxes(tangents, 1, 2))
    # A direction without energy (all points slide as an affine map moves them) is left alone.
    inverse = np.linalg.pinv(system, rcond=_FLAT, hermitian=True)
    length = -np.squeeze(inverse @ gradient[..., None], -1)
    return np.asarray(length[..., None] * tangents)


def _slide_procrustes(
    batch: Float64, reference: Float64, sliders: Indices, tangents: Float64
) -> Float64:
    """Moves (n, m, d) to the feet of the perpendiculars from the posed reference."""
    goal = similarity(reference, batch).apply(reference)[:, sliders[:, 1]]
    length = np.einsum("nmd,nmd->nm", goal - batch[:, sliders[:, 1]], tangents)
    return np.asarray(length[..., None] * tangents)


def _bending_of(batch: Float64, reference: Float64) -> Float64:
    return bending_energy(reference, batch)


def _residual_of(batch: Float64, reference: Float64) -> Float64:
    residual = batch - similarity(reference, batch).apply(reference)
    return np.asarray(np.sum(residual**2, axis=(1, 2)))


_Slide = Callable[[Float64, Float64, Indices, Float64], Float64]


class _Measure(Protocol):
    def __call__(self, batch: Float64, reference: Float64) -> Float64: ...


_CRITERIA: Mapping[str, tuple[_Slide, _Measure]] = {
    "bending": (_slide_bending, _bending_of),
    "procrustes": (_slide_procrustes, _residual_of),
}


def _criterion(name: str) -> tuple[_Slide, _Measure]:
    if name not in _CRITERIA:
        raise ValueError(f"criterion: got {name!r}, expected one of {sorted(_CRITERIA)}")
    return _CRITERIA[name]


@dataclass(frozen=True, eq=False)
class SlidingResult:
    """What :func:`slide_and_align` found.

    Attributes
    ----------
    shapes : ndarray, shape (n, p, d)
        The shapes with their points slid, in their own poses.
    procrustes : ProcrustesResult
        Of these shapes: mean, aligned shapes, poses.
    criterion : ndarray, shape (n_iterations + 1,)
        Mean over the shapes of what sliding lowers, for shapes and means of size 1: before the
        first turn and after each one, towards the mean of its time. It never rises: a turn that
        would raise it is not taken.
    converged : bool
        Whether another turn gained less than the tolerance.
    n_iterations : int
        Turns taken.
    """

    shapes: Float64
    procrustes: ProcrustesResult[Similarity]
    criterion: Float64
    converged: bool
    n_iterations: int


def slide_and_align(
    shapes: npt.ArrayLike,
    curves: Curves,
    reference: npt.ArrayLike | None = None,
    *,
    criterion: Criterion = "bending",
    fixed: Sequence[int] = (),
    stay_on_curve: bool = True,
    tolerance: float = 0.01,
    max_iterations: int = 20,
) -> SlidingResult:
    """Generalised Procrustes analysis of shapes with sliding points.

    Sliding towards the mean and the mean of the slid shapes take turns. Nothing holds the points of
    all shapes against sliding together, mean and all, so turns without end would slowly bunch them
    at bends: what a turn gains tells when to stop. No point meets or passes its neighbour.

    Parameters
    ----------
    shapes : array_like, shape (n, p, d)
        Complete shapes, d = 2 or 3.
    curves : sequence of Contour or of sequences of int
        As in :func:`slide_semilandmarks`.
    reference : array_like, shape (p, d), optional
        As in :func:`asmkit.generalized_procrustes`: where the search for the mean begins.
    criterion : {"bending", "procrustes"}
        As in :func:`slide_semilandmarks`.
    fixed : sequence of int
        Points that stay wherever they lie on a curve.
    stay_on_curve : bool
        Put a slid point back on the nearest point of its curve, the polyline through the points as
        they were given. False: points slide on their tangents alone, and leave curved curves bit by
        bit. Either way a shape that would lie worse, or whose points would get out of order, slides
        half as far, or a quarter, and so on; one that cannot be bettered stays.
    tolerance : float
        It has converged when a turn lowers the criterion by less than this share of it.
    max_iterations : int
        Turns at most.

    Returns
    -------
    SlidingResult
        Look at ``converged``: reaching ``max_iterations`` is a result, not an error.

    Raises
    ------
    ValueError
        As :func:`slide_semilandmarks` and :func:`asmkit.generalized_procrustes` do.
    """
    batch = as_shapes(shapes, min_shapes=1).astype(np.float64, copy=False)
    slide, measure = _criterion(criterion)
    sliders = _sliders(curves, fixed, batch.shape[1])
    paths = [_path(curve) for curve in curves]
    found = generalized_procrustes(batch, reference)
    # Of size 1 and together, so that criteria of shapes of any size add up.
    poses, given = found.transforms, found.aligned
    current, history = given, [float(measure(given, found.mean).mean())]
    converged = False
    for _ in range(max_iterations):
        mean = generalized_procrustes(current, found.mean).mean
        slides = np.zeros_like(current)
        slides[:, sliders[:, 1]] = slide(current, mean, sliders, _tangents(current, sliders))
        onto = given if stay_on_curve else None
        slid = _never_worse(current, slides, onto, partial(measure, reference=mean), sliders, paths)
        after = float(measure(slid, mean).mean())
        converged = after > (1 - tolerance) * history[-1]
        if after <= history[-1]:
            current = slid
            history.append(after)
        if converged:
            break
    slid = np.asarray(poses.apply(current), dtype=np.float64)
    start = batch[0] if reference is None else reference
    final = generalized_procrustes(slid, start)
    return SlidingResult(slid, final, np.array(history), converged, len(history) - 1)


def _path(curve: Contour | Sequence[int]) -> list[int]:
    """The points of a polyline in order; that of a closed contour ends where it begins."""
    if isinstance(curve, Contour):
        return [*curve.indices, curve.indices[0]] if curve.closed else list(curve.indices)
    return [int(i) for i in curve]


def _never_worse(
    current: Float64,
    slides: Float64,
    onto: Float64 | None,
    cost: Callable[[Float64], Float64],
    sliders: Indices,
    paths: list[list[int]],
) -> Float64:
    """Shapes after the longest of a slide, its half, its quarter and so on that is no worse."""
    best, before = current.copy(), cost(current)
    trying = np.arange(len(current))
    for halving in range(_HALVINGS):
        moved = current[trying] + 0.5**halving * slides[trying]
        if onto is not None:
            moved = _put_back(moved, onto[trying], sliders, paths)
        better = _in_order(moved, current[trying], paths) & (cost(moved) <= before[trying])
        best[trying[better]] = moved[better]
        trying = trying[~better]
        if not trying.size:
            break
    return best


def _in_order(moved: Float64, current: Float64, paths: list[list[int]]) -> npt.NDArray[np.bool_]:
    """Which shapes (n, p, d) have no point that has met or passed its neighbour on a curve."""
    kept = np.ones(len(moved), dtype=bool)
    for path in paths:
        before, after = np.diff(current[:, path], axis=1), np.diff(moved[:, path], axis=1)
        kept &= np.all(np.sum(before * after, axis=-1) > 0, axis=1)
    return kept


def _put_back(shapes: Float64, given: Float64, sliders: Indices, paths: list[list[int]]) -> Float64:
    """Each sliding point moved to the nearest point of the polyline through the given points."""
    shapes = shapes.copy()
    sliding = set(sliders[:, 1].tolist())
    for path in paths:
        own = sorted(sliding.intersection(path))
        points = shapes[:, own]
        nearest, least = points.copy(), np.full(points.shape[:2], np.inf)
        for first, second in pairwise(path):
            foot = _foot(points, given[:, None, first], given[:, None, second])
            distance = np.sum((points - foot) ** 2, axis=-1)
            closer = distance < least
            nearest[closer], least[closer] = foot[closer], distance[closer]
        shapes[:, own] = nearest
    return shapes


def _foot(points: Float64, start: Float64, end: Float64) -> Float64:
    """The point of a segment that is nearest to each of the points."""
    along = end - start
    length2 = np.sum(along**2, axis=-1)
    share = np.einsum("nmd,nmd->nm", points - start, np.broadcast_to(along, points.shape))
    share = np.clip(share / np.where(length2 > 0, length2, 1.0), 0.0, 1.0)
    return np.asarray(start + share[..., None] * along)
