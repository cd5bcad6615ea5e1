"""Least-squares and robust maps from one shape to another, and distances between shapes.

Fits are least squares: similarities in 2-D in closed form (shapes as complex vectors), in 3-D by a
singular value decomposition with Kabsch's sign correction; affine maps by normal equations. The
robust fits minimise Huber's loss of the residual lengths instead, by reweighting. All statistics
are float64, whatever the shapes are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from asmkit._check import Floats, as_batch
from asmkit.transforms import Affine, Similarity

__all__ = [
    "FITS",
    "Moments",
    "Robust",
    "about_centre",
    "affine",
    "centroid_size",
    "check_weights",
    "choose",
    "coinciding",
    "cross_products",
    "huber_weights",
    "least_squares",
    "no_spread",
    "procrustes_distance",
    "refuse_coinciding",
    "refuse_few",
    "refuse_rows",
    "residual_scale",
    "rigid",
    "robust_pairs",
    "scale_and_rotation",
    "similarity",
]

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: How outliers are treated: not at all, or by Huber's weights.
Robust = Literal["huber"] | None

ROUNDING = 16 * np.finfo(np.float64).eps

_HUBER = 1.345


def similarity(
    source: npt.ArrayLike,
    target: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    reflection: bool = False,
    robust: Robust = None,
) -> Similarity:
    """Least-squares similarity: the T that minimises ``Σ w ‖target − T(source)‖²``.

    Leading axes are batch and broadcast: one source against ``n`` targets gives ``n``
    similarities. The scale is the least-squares one (Umeyama 1991), not the ratio of sizes, and a
    mirrored target is fitted by a rotation as well as it goes, never by a reflection, unless asked.

    Parameters
    ----------
    source, target : array_like, shape (..., p, d)
        Shapes with the same points, d = 2 or 3. A point that is missing (NaN) in either takes no
        part.
    weights : array_like, shape (p,) or (..., p), optional
        One non-negative weight a point; all equal by default. Weight 0 leaves a point out.
    reflection : bool
        Let the determinant of ``rotation`` be −1 where that fits better.
    robust : {None, "huber"}
        ``"huber"``: the loss of a point grows as the length of its residual instead of its square
        beyond 1.345 times the scale, which is 1.4826 times the (weighted) median length of the
        residuals of the pair. Outliers are looked for among the targets.

    Returns
    -------
    Similarity
        Its arrays have the broadcast leading axes.

    Raises
    ------
    ValueError
        When shapes do not match or hold infinite values, when all points of a shape (of positive
        weight) coincide, or when points are missing and fewer than d are left.
    """
    return cast(Similarity, _pairs(source, target, weights, "similarity", reflection, robust))


def rigid(
    source: npt.ArrayLike,
    target: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    reflection: bool = False,
    robust: Robust = None,
) -> Similarity:
    """Least-squares rigid motion: as :func:`similarity`, with scale 1.

    Parameters
    ----------
    source, target : array_like, shape (..., p, d)
        Shapes with the same points, d = 2 or 3; missing points (NaN) take no part.
    weights : array_like, shape (p,) or (..., p), optional
        One non-negative weight a point; all equal by default.
    reflection : bool
        Let the determinant of ``rotation`` be −1 where that fits better.
    robust : {None, "huber"}
        As in :func:`similarity`.

    Returns
    -------
    Similarity
        Of scale 1.

    Raises
    ------
    ValueError
        As :func:`similarity` does.
    """
    return cast(Similarity, _pairs(source, target, weights, "rigid", reflection, robust))


def affine(
    source: npt.ArrayLike,
    target: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    robust: Robust = None,
) -> Affine:
    """Least-squares affine map: the A and t that minimise ``Σ w ‖target − A source − t‖²``.

    Parameters
    ----------
    source, target : array_like, shape (..., p, d)
        Shapes with the same points, d = 2 or 3; missing points (NaN) take no part.
    weights : array_like, shape (p,) or (..., p), optional
        One non-negative weight a point; all equal by default.
    robust : {None, "huber"}
        As in :func:`similarity`.

    Returns
    -------
    Affine
        Its arrays have the broadcast leading axes.

    Raises
    ------
    ValueError
        As :func:`similarity` does, and when the points of a source lie on one line (in 3-D: in one
        plane) or fewer than d + 1 are left.
    """
    return cast(Affine, _pairs(source, target, weights, "affine", False, robust))


class Moments(NamedTuple):
    """What a fit needs of a pair."""

    cross: Float64  # (..., d, d): Σ w target sourceᵀ, about the centroids
    spread: Float64  # (..., d, d): Σ w source sourceᵀ, about the centroid
    centre: Float64  # (..., d): centroid of the source
    goal: Float64  # (..., d): centroid of the target


def _fit_similarity(moments: Moments, reflection: bool) -> Similarity:
    size2 = np.trace(moments.spread, axis1=-2, axis2=-1)
    scale, rotation = scale_and_rotation(moments.cross, size2, reflection)
    moved = np.squeeze(rotation @ moments.centre[..., None], -1)
    return Similarity(scale, rotation, moments.goal - scale[..., None] * moved)


def _fit_rigid(moments: Moments, reflection: bool) -> Similarity:
    rotation = scale_and_rotation(moments.cross, np.ones(()), reflection)[1]
    moved = np.squeeze(rotation @ moments.centre[..., None], -1)
    return Similarity(np.ones(rotation.shape[:-2]), rotation, moments.goal - moved)


def _fit_affine(moments: Moments, reflection: bool) -> Affine:
    values = np.linalg.eigvalsh(moments.spread)
    refuse_rows(
        ~(values[..., 0] > ROUNDING * values[..., -1]),
        "source",
        "the points lie on one line or plane in",
        "an affine map needs points in all directions",
    )
    # The transposed system: spread Aᵀ = crossᵀ.
    linear = np.swapaxes(
        np.linalg.solve(moments.spread, np.swapaxes(moments.cross, -1, -2)), -1, -2
    )
    moved = np.squeeze(linear @ moments.centre[..., None], -1)
    return Affine(linear, moments.goal - moved)


_Fit = Callable[[Moments, bool], Similarity | Affine]

#: The kinds of maps, and how each follows from the moments of a pair.
FITS: Mapping[str, _Fit] = {
    "similarity": _fit_similarity,
    "rigid": _fit_rigid,
    "affine": _fit_affine,
}


def choose(kind: str, robust: str | None) -> None:
    """Refuse kinds of maps and robust losses that do not exist."""
    if kind not in FITS:
        raise ValueError(f"transform: got {kind!r}, expected one of {sorted(FITS)}")
    if robust not in (None, "huber"):
        raise ValueError(f"robust: got {robust!r}, expected None or 'huber'")


def least_squares(
    source: Floats, target: Floats, share: Float64, kind: str, reflection: bool
) -> Similarity | Affine:
    """Best map of checked pairs: points of share 0 may hold anything finite."""
    return _solve(about_centre(source, share), about_centre(target, share), share, kind, reflection)


def _solve(
    source: tuple[Float64, Float64],
    target: tuple[Float64, Float64],
    share: Float64,
    kind: str,
    reflection: bool,
) -> Similarity | Affine:
    weighted = np.swapaxes(source[1] * share[..., None], -1, -2)
    cross = np.swapaxes(weighted @ target[1], -1, -2)
    return FITS[kind](Moments(cross, weighted @ source[1], source[0], target[0]), reflection)


def _pairs(
    source: npt.ArrayLike,
    target: npt.ArrayLike,
    weights: npt.ArrayLike | None,
    kind: str,
    reflection: bool,
    robust: Robust,
) -> Similarity | Affine:
    choose(kind, robust)
    flat, source_axes = as_batch(source, "source", allow_nan=True)
    n_points, n_dims = flat.shape[1:]
    sources = flat.reshape(*source_axes, n_points, n_dims)
    flat, target_axes = as_batch(target, "target", n_points=n_points, n_dims=n_dims, allow_nan=True)
    targets = flat.reshape(*target_axes, n_points, n_dims)
    axes = np.broadcast_shapes(source_axes, target_axes)
    share = check_weights(weights, axes, n_points)
    hidden = np.isnan(sources).any(axis=-1) | np.isnan(targets).any(axis=-1)
    if hidden.any():
        share = np.where(hidden, 0.0, share)
        refuse_few(share, "target", n_dims + (kind == "affine"))
        sources, targets = np.nan_to_num(sources), np.nan_to_num(targets)
    share = share / share.sum(-1, keepdims=True)
    centred_source, centred_target = about_centre(sources, share), about_centre(targets, share)
    refuse_coinciding(no_spread(*centred_source, share), "source")
    refuse_coinciding(no_spread(*centred_target, share), "target")
    if robust is None:
        return _solve(centred_source, centred_target, share, kind, reflection)
    return robust_pairs(sources, targets, share, kind, reflection)


def robust_pairs(
    source: Floats,
    target: Floats,
    share: Float64,
    kind: str,
    reflection: bool,
    *,
    max_iterations: int = 200,
) -> Similarity | Affine:
    """Huber's map of checked pairs, by iterated reweighting from the least-squares map on."""
    found = least_squares(source, target, share, kind, reflection)
    factor, floor = np.ones(share.shape), ROUNDING * np.abs(target).max(axis=(-1, -2))
    for sweep in range(max_iterations):
        length = np.linalg.norm(target - found.apply(source), axis=-1)
        # A median may jump to and fro between two points for ever; a held one cannot.
        if sweep <= 3 * max_iterations // 4:
            scale = np.maximum(residual_scale(length, share), floor)
        before, factor = factor, huber_weights(length, scale[..., None])
        found = least_squares(source, target, _normalized(share * factor), kind, reflection)
        if np.max(np.abs(factor - before), initial=0.0) <= 1e-12:
            break
    return found


def _normalized(weights: Float64) -> Float64:
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def huber_weights(length: Float64, scale: Float64 | float) -> Float64:
    """``min(1, 1.345 scale / length)``: what Huber's loss leaves of a residual's weight."""
    limit = _HUBER * np.asarray(scale)
    return np.asarray(limit / np.maximum(length, limit))


def residual_scale(length: Float64, weights: Float64) -> Float64:
    """1.4826 times the weighted median of residual lengths ``(..., p)``, shape ``(...)``.

    The factor is the usual one of a median absolute deviation. The lengths of Gaussian residuals
    have a larger median than one coordinate has, so Huber's limit lies at 2.3 standard deviations
    of a coordinate in the plane and at 3.1 in space, and little of such data is given up.
    """
    length, weights = np.broadcast_arrays(length, weights)
    order = np.argsort(length, axis=-1)
    total = np.cumsum(np.take_along_axis(weights, order, -1), axis=-1)
    # The smallest length that half of the weight does not exceed.
    middle = (total < 0.5 * total[..., -1:]).sum(axis=-1, keepdims=True)
    index = np.take_along_axis(order, middle, -1)
    return np.asarray(1.4826 * np.take_along_axis(length, index, -1)[..., 0])


def check_weights(weights: npt.ArrayLike | None, axes: tuple[int, ...], n_points: int) -> Float64:
    """Weights of points ``(p,)`` or ``(..., p)``, checked; all 1 where there are none."""
    if weights is None:
        return np.ones(n_points)
    array = np.asarray(weights, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != n_points:
        raise ValueError(
            f"weights: got shape {array.shape}, expected one weight a point ({n_points})"
        )
    try:
        fits = np.broadcast_shapes(array.shape[:-1], axes) == axes
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"weights: got shape {array.shape}, expected ({n_points},) or the batch's {axes}"
        )
    if not np.all(np.isfinite(array)) or np.any(array < 0) or not np.all(array.sum(-1) > 0):
        raise ValueError("weights: expected finite values of at least 0, some of them positive")
    return array


def about_centre(shapes: Floats, share: Float64) -> tuple[Float64, Float64]:
    """Centroids (..., d) of shapes (..., p, d) by shares of their points, and shapes about them."""
    # Products of other memory layouts add up in other orders: results would differ by rounding.
    shapes = np.ascontiguousarray(shapes, dtype=np.float64)
    centre = (share[..., None, :] @ shapes)[..., 0, :]
    return centre, shapes - centre[..., None, :]


def no_spread(centre: Float64, centred: Float64, share: Float64) -> Bools:
    """Which shapes have all points of positive share in one place."""
    # What is left of coinciding points after centring is rounding of their common position.
    taking = share > 0
    if not taking.all():
        centred = centred * taking[..., None]
    spread = np.maximum(centred.max(axis=(-1, -2)), -centred.min(axis=(-1, -2)))
    return np.asarray(~(spread > ROUNDING * np.abs(centre).max(axis=-1)))


def coinciding(shapes: Floats) -> Bools:
    """Which of the shapes (n, p, d) have all points in one place, or a missing or infinite one."""
    centre = shapes.mean(axis=1, keepdims=True, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        spread = np.abs(shapes - centre).max(axis=(1, 2))
    return np.asarray(~(spread > ROUNDING * np.abs(centre).max(axis=(1, 2))))


def refuse_rows(refused: Bools, name: str, problem: str, advice: str) -> None:
    """Raise for the shapes marked in ``refused``: how many, and the number of the first."""
    rows = np.flatnonzero(refused)
    if rows.size:
        raise ValueError(
            f"{name}: {problem} {rows.size} shape(s), the first is number {rows[0]}; {advice}"
        )


def refuse_coinciding(refused: Bools, name: str) -> None:
    """Raise for the shapes marked in ``refused``: all their points coincide."""
    refuse_rows(
        refused,
        name,
        "all points coincide in",
        "such a shape has no size and no orientation: leave it out",
    )


def refuse_few(share: Float64, name: str, n_needed: int) -> None:
    """Raise for shapes of which fewer than ``n_needed`` points take part."""
    refuse_rows(
        (share > 0).sum(axis=-1) < n_needed,
        name,
        f"fewer than {n_needed} points are visible and of positive weight in",
        "they fix no map: leave such shapes out",
    )


def scale_and_rotation(
    cross: Float64, size2: Float64, reflection: bool = False
) -> tuple[Float64, Float64]:
    """Scale and rotation of the least-squares similarity.

    ``cross`` is ``Σ w target sourceᵀ`` (..., d, d) and ``size2`` is ``Σ w ‖source‖²`` (...), both
    about the centroids. With ``reflection`` the "rotation" may have determinant −1.
    """
    if cross.shape[-1] == 2:
        even = cross[..., 0, 0] + cross[..., 1, 1]
        odd = cross[..., 1, 0] - cross[..., 0, 1]
        length = np.hypot(even, odd)
        if reflection:
            return _planar_reflection(cross, size2, even, odd, length)
        aligned = length > 0
        inverse = 1.0 / np.where(aligned, length, 1.0)
        cos, sin = np.where(aligned, even * inverse, 1.0), odd * inverse
        rotation = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
        return length / size2, rotation
    left, values, right = np.linalg.svd(cross)
    if not reflection:
        sign = np.sign(np.linalg.det(left @ right))
        left[..., -1] *= sign[..., None]
        values[..., -1] *= sign
    return values.sum(-1) / size2, left @ right


def _planar_reflection(
    cross: Float64, size2: Float64, even: Float64, odd: Float64, length: Float64
) -> tuple[Float64, Float64]:
    """Rotation ``[[c, −s], [s, c]]`` or reflection ``[[c, s], [s, −c]]``, what fits better."""
    other_even = cross[..., 0, 0] - cross[..., 1, 1]
    other_odd = cross[..., 1, 0] + cross[..., 0, 1]
    other = np.hypot(other_even, other_odd)
    mirrored = other > length
    best = np.maximum(length, other)
    aligned = best > 0
    inverse = 1.0 / np.where(aligned, best, 1.0)
    cos = np.where(aligned, np.where(mirrored, other_even, even) * inverse, 1.0)
    sin = np.where(mirrored, other_odd, odd) * inverse
    sign = np.where(mirrored, -1.0, 1.0)
    rotation = np.stack([np.stack([cos, -sign * sin], -1), np.stack([sin, sign * cos], -1)], -2)
    return best / size2, rotation


def centroid_size(shapes: npt.ArrayLike) -> Float64:
    """Centroid size ``(Σ_j ‖x_j − x̄‖²)^½`` of shapes ``(..., p, d)``, shape ``(...)``."""
    batch, axes = as_batch(shapes)
    centred = batch.astype(np.float64) - batch.mean(axis=1, keepdims=True, dtype=np.float64)
    return np.asarray(np.sqrt(np.einsum("npd,npd->n", centred, centred)).reshape(axes))


def procrustes_distance(a: npt.ArrayLike, b: npt.ArrayLike) -> Float64:
    """Full Procrustes distance ``sin ρ`` between shapes, in [0, 1] (Dryden & Mardia, section 4.2).

    The smallest ``‖a − T(b)‖`` over all similarities T, with a scaled to centroid size 1. It is
    symmetric, and 0 where the shapes differ by a similarity only. Leading axes broadcast.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    as_batch(second)  # refuses missing points, as the size of the first does
    size = centroid_size(first)
    moved = similarity(second, first).apply(second)
    residual = np.sqrt(np.sum((first - moved) ** 2, axis=(-1, -2)))
    return np.asarray(residual / size)


def cross_products(flat: Float64, patterns: Float64) -> Float64:
    """``Σ_j x_j φ_jᵀ`` of every shape with every pattern, as one matrix product.

    Parameters
    ----------
    flat : ndarray, shape (n, p d)
        Shapes; they need not be centred where the patterns are.
    patterns : ndarray, shape (k, p, d)

    Returns
    -------
    ndarray, shape (n, k, d, d)
    """
    k, n_points, n_dims = patterns.shape
    spread = np.einsum("kje,cf->jckfe", patterns, np.eye(n_dims))
    products = flat @ spread.reshape(n_points * n_dims, -1)
    return np.asarray(products.reshape(len(flat), k, n_dims, n_dims))
