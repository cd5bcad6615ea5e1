"""Similarities that bring shapes together, and the mean shape of a set.

A similarity acts as ``T(x) = s R x + t`` with scale ``s > 0``, a rotation ``R`` (determinant +1:
nothing here ever reflects) and a translation ``t``. Fits are least squares: in 2-D in closed form
(shapes as complex vectors), in 3-D by a singular value decomposition with Kabsch's sign
correction. All statistics are float64, whatever the shapes are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from asmkit._check import Floats, as_batch, as_points, as_shapes

__all__ = [
    "ProcrustesResult",
    "Similarity",
    "centroid_size",
    "generalized_procrustes",
    "procrustes_distance",
    "similarity",
]

Float64 = npt.NDArray[np.float64]

_ROUNDING = 16 * np.finfo(np.float64).eps


@dataclass(frozen=True, eq=False)
class Similarity:
    """One similarity ``T(x) = s R x + t``, or a batch of them along leading axes.

    Parameters
    ----------
    scale : ndarray, shape (...)
        ``s > 0``.
    rotation : ndarray, shape (..., d, d)
        ``R``, orthogonal with determinant +1.
    translation : ndarray, shape (..., d)
        ``t``, in the units of the points.
    """

    scale: Float64
    rotation: Float64
    translation: Float64

    def apply(self, points: npt.ArrayLike) -> Floats:
        """Move points: ``(..., p, d)``, whose leading axes broadcast with those of the batch.

        Missing points (NaN) stay missing; float32 in gives float32 out.
        """
        array = np.asarray(points)
        if array.dtype != np.float32:
            array = array.astype(np.float64)
        n_dims = self.translation.shape[-1]
        if array.ndim < 2 or array.shape[-1] != n_dims:
            raise ValueError(f"points: got shape {array.shape}, expected (..., n_points, {n_dims})")
        moved = array @ np.swapaxes(self._matrix(), -1, -2) + self.translation[..., None, :]
        return moved.astype(array.dtype, copy=False)

    def inverse(self) -> Similarity:
        """Return the similarity that undoes this one.

        Raises
        ------
        ValueError
            When a scale is zero: such a map has no inverse.
        """
        if not np.all(self.scale > 0):
            raise ValueError("a similarity of scale 0 sends all points to one and has no inverse")
        scale = 1.0 / self.scale
        rotation = np.swapaxes(self.rotation, -1, -2)
        moved = np.squeeze(rotation @ self.translation[..., None], -1)
        return Similarity(scale, rotation, -scale[..., None] * moved)

    def __matmul__(self, other: Similarity) -> Similarity:
        """Composition: ``(self @ other).apply(x) == self.apply(other.apply(x))``."""
        if not isinstance(other, Similarity):
            return NotImplemented
        moved = np.squeeze(self._matrix() @ other.translation[..., None], -1)
        return Similarity(
            self.scale * other.scale, self.rotation @ other.rotation, moved + self.translation
        )

    @property
    def matrix(self) -> Float64:
        """The homogeneous matrices ``[[s R, t], [0, 1]]``, shape ``(..., d + 1, d + 1)``."""
        linear = self._matrix()
        n_dims = linear.shape[-1]
        matrix = np.zeros((*linear.shape[:-2], n_dims + 1, n_dims + 1))
        matrix[..., :n_dims, :n_dims] = linear
        matrix[..., :n_dims, n_dims] = self.translation
        matrix[..., n_dims, n_dims] = 1.0
        return matrix

    def _matrix(self) -> Float64:
        return np.asarray(self.scale)[..., None, None] * self.rotation


def similarity(
    source: npt.ArrayLike, target: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Similarity:
    """Least-squares similarity: the T that minimises ``Σ w ‖target − T(source)‖²``.

    Leading axes are batch and broadcast: one source against ``n`` targets gives ``n``
    similarities. The scale is the least-squares one (Umeyama 1991), not the ratio of sizes, and a
    mirrored target is fitted by a rotation as well as it goes, never by a reflection.

    Parameters
    ----------
    source, target : array_like, shape (..., p, d)
        Complete shapes with the same points, d = 2 or 3.
    weights : array_like, shape (p,) or (..., p), optional
        One non-negative weight a point; all equal by default.

    Returns
    -------
    Similarity
        Its arrays have the broadcast leading axes.

    Raises
    ------
    ValueError
        When shapes do not match, hold NaN, or all points of a shape (of positive weight) coincide.
    """
    sources, source_axes = as_batch(source, "source")
    targets, target_axes = as_batch(
        target, "target", n_points=sources.shape[1], n_dims=sources.shape[2]
    )
    axes = np.broadcast_shapes(source_axes, target_axes)
    share = _shares(weights, axes, sources.shape[1])
    centre, centred = _centre(sources.reshape(*source_axes, *sources.shape[1:]), share, "source")
    goal, centred_goal = _centre(targets.reshape(*target_axes, *targets.shape[1:]), share, "target")
    cross = np.swapaxes(centred_goal * share[..., None], -1, -2) @ centred
    scale, rotation = scale_and_rotation(
        cross, np.einsum("...pd,...pd,...p", centred, centred, share)
    )
    moved = np.squeeze(rotation @ centre[..., None], -1)
    return Similarity(scale, rotation, goal - scale[..., None] * moved)


def _shares(weights: npt.ArrayLike | None, axes: tuple[int, ...], n_points: int) -> Float64:
    if weights is None:
        return np.full(n_points, 1.0 / n_points)
    array = np.asarray(weights, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != n_points:
        raise ValueError(
            f"weights: got shape {array.shape}, expected one weight a point ({n_points})"
        )
    if np.broadcast_shapes(array.shape[:-1], axes) != axes:
        raise ValueError(
            f"weights: got shape {array.shape}, expected ({n_points},) or the batch's {axes}"
        )
    if not np.all(np.isfinite(array)) or np.any(array < 0) or not np.all(array.sum(-1) > 0):
        raise ValueError("weights: expected finite values of at least 0, some of them positive")
    return np.asarray(array / array.sum(-1, keepdims=True))


def _centre(shapes: Floats, share: Float64, name: str) -> tuple[Float64, Float64]:
    shapes = shapes.astype(np.float64, copy=False)
    centre = np.einsum("...pd,...p", shapes, share)
    centred = shapes - centre[..., None, :]
    # What is left of coinciding points after centring is rounding of their common position.
    spread = np.abs(centred * (share > 0)[..., None]).max(axis=(-1, -2))
    refuse_coinciding(~(spread > _ROUNDING * np.abs(centre).max(axis=-1)), name)
    return centre, centred


def coinciding(shapes: Floats) -> npt.NDArray[np.bool_]:
    """Which of the shapes (n, p, d) have all points in one place, or a missing or infinite one."""
    centre = shapes.mean(axis=1, keepdims=True, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        spread = np.abs(shapes - centre).max(axis=(1, 2))
    return np.asarray(~(spread > _ROUNDING * np.abs(centre).max(axis=(1, 2))))


def refuse_coinciding(refused: npt.NDArray[np.bool_], name: str) -> None:
    """Raise for the shapes marked in ``refused``: all their points coincide."""
    rows = np.flatnonzero(refused)
    if rows.size:
        raise ValueError(
            f"{name}: all points coincide in {rows.size} shape(s), the first is number {rows[0]}; "
            "such a shape has no size and no orientation: leave it out"
        )


def scale_and_rotation(cross: Float64, size2: Float64) -> tuple[Float64, Float64]:
    """Scale and rotation of the least-squares similarity.

    ``cross`` is ``Σ w target sourceᵀ`` (..., d, d) and ``size2`` is ``Σ w ‖source‖²`` (...), both
    about the centroids.
    """
    if cross.shape[-1] == 2:
        even = cross[..., 0, 0] + cross[..., 1, 1]
        odd = cross[..., 1, 0] - cross[..., 0, 1]
        length = np.hypot(even, odd)
        aligned = length > 0
        inverse = 1.0 / np.where(aligned, length, 1.0)
        cos, sin = np.where(aligned, even * inverse, 1.0), odd * inverse
        rotation = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
        return length / size2, rotation
    left, values, right = np.linalg.svd(cross)
    sign = np.sign(np.linalg.det(left @ right))
    left[..., -1] *= sign[..., None]
    values[..., -1] *= sign
    return values.sum(-1) / size2, left @ right


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
    first = np.asarray(a, dtype=np.float64)
    moved = similarity(b, first).apply(b)
    residual = np.sqrt(np.sum((first - moved) ** 2, axis=(-1, -2)))
    return np.asarray(residual / centroid_size(first))


@dataclass(frozen=True, eq=False)
class ProcrustesResult:
    """What :func:`generalized_procrustes` found.

    Attributes
    ----------
    mean : ndarray, shape (p, d)
        The mean shape: centred, centroid size 1, turned as the reference.
    aligned : ndarray, shape (n, p, d)
        ``transforms.inverse().apply(shapes)``; their mean is ``mean`` where it converged.
    transforms : Similarity
        A batch of n: each takes the mean to its shape by least squares.
    converged : bool
        Whether the last sweep moved the mean by less than the tolerance.
    n_iterations : int
        Sweeps made.
    objective : float
        Mean of ``−log cos ρ`` over the shapes, ρ being the angle between shape and mean: what the
        mean minimises.
    """

    mean: Float64
    aligned: Float64
    transforms: Similarity
    converged: bool
    n_iterations: int
    objective: float


def generalized_procrustes(
    shapes: npt.ArrayLike,
    reference: npt.ArrayLike | None = None,
    *,
    tolerance: float = 1e-12,
    max_iterations: int = 100,
) -> ProcrustesResult:
    """Mean shape of a set, and the similarity of each shape to it.

    The pose of a shape x is the least-squares similarity *from the mean to the shape*,
    ``T = argmin ‖x − T(μ)‖``. Then ``T⁻¹x`` lies in the tangent space at μ: ``T⁻¹x − μ`` is
    orthogonal to translation, scaling and rotation of μ. The mean is the fixed point
    ``μ = mean(T⁻¹x)``, centred and of centroid size 1, so the tangent coordinates have zero mean.
    This weights each shape by 1/cos ρ where the full Procrustes mean weights it by cos ρ (ρ: the
    angle between shape and mean); the two differ in second order of the spread. A sweep costs two
    thin matrix products.

    Parameters
    ----------
    shapes : array_like, shape (n, p, d)
        Complete shapes, n ≥ 1.
    reference : array_like, shape (p, d), optional
        Where the search begins and what fixes the mean's orientation; the first shape by default.
    tolerance : float
        The mean has converged when a sweep moves it by at most this. The mean has size 1, so the
        tolerance is relative and the units of the shapes do not matter.
    max_iterations : int
        Sweeps at most.

    Returns
    -------
    ProcrustesResult
        Look at ``converged``: reaching ``max_iterations`` is a result, not an error.

    Raises
    ------
    ValueError
        When all points of a shape coincide, a point is missing, or a shape has nothing in common
        with the mean (its rotation is then undefined).
    """
    batch = as_shapes(shapes, min_shapes=1).astype(np.float64, copy=False)
    n_points, n_dims = batch.shape[1:]
    start = batch[0] if reference is None else reference
    start = as_points(start, "reference", n_points=n_points, n_dims=n_dims)
    share = np.full(n_points, 1.0 / n_points)
    centred = _centre(batch, share, "shapes")[1]
    centred /= centroid_size(centred)[:, None, None]
    first = _unit(_centre(start, share, "reference")[1])
    mean, n_iterations, converged = _iterate(centred, first, tolerance, max_iterations)
    mean = mean @ similarity(mean, first).rotation.T
    transforms = similarity(mean, batch)
    cos = np.minimum(1.0, transforms.scale / centroid_size(batch))
    aligned = np.asarray(transforms.inverse().apply(batch), dtype=np.float64)
    return ProcrustesResult(
        mean, aligned, transforms, converged, n_iterations, float(-np.log(cos).mean())
    )


def _iterate(
    centred: Float64, mean: Float64, tolerance: float, max_iterations: int
) -> tuple[Float64, int, bool]:
    for sweep in range(1, max_iterations + 1):
        update = _unit(_tangent_mean(centred, mean))
        change = np.linalg.norm(update - mean)
        mean = update
        if change <= tolerance:
            return mean, sweep, True
    return mean, max_iterations, False


def _tangent_mean(centred: Float64, mean: Float64) -> Float64:
    """Mean of ``T⁻¹x`` over centred shapes of size 1, as two matrix products over the batch."""
    n, n_points, n_dims = centred.shape
    flat = centred.reshape(n, -1)
    scale, rotation = scale_and_rotation(cross_products(flat, mean[None])[:, 0], np.ones(()))
    if np.any(scale <= 1e-8):
        rows = np.flatnonzero(scale <= 1e-8)
        raise ValueError(
            f"shapes: {rows.size} shape(s) are orthogonal to the mean, the first is number "
            f"{rows[0]}; their orientation is undefined: are the points in the same order?"
        )
    weighted = rotation / (n * scale[:, None, None])
    sums = weighted.reshape(n, -1).T @ flat
    return np.asarray(np.einsum("cejc->je", sums.reshape(n_dims, n_dims, n_points, n_dims)))


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


def _unit(shape: Float64) -> Float64:
    centred = shape - shape.mean(axis=0)
    return np.asarray(centred / np.linalg.norm(centred))
