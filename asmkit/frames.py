"""How shapes enter the frame of a shape model and leave it again.

A frame knows two things: how training shapes become a mean and deviations from it, and how shapes
are projected on the modes (`project`) and brought back where they were (`place`). The frames are
``"similarity"`` and ``"rigid"`` (Procrustes, tangent space), ``"box"`` (the ASMNet paper's) and
``"none"`` (shapes stay where they are).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from asmkit._check import Floats
from asmkit._kernels import shape as kernels
from asmkit.alignment import (
    Similarity,
    coinciding,
    cross_products,
    generalized_procrustes,
    rigid,
    scale_and_rotation,
    similarity,
)

__all__ = [
    "FRAMES",
    "LARGEST_BLOCK",
    "Frame",
    "Linear",
    "NoPoseError",
    "Projector",
    "Training",
    "frame_of",
    "mirrored",
    "nearest",
    "own_mirror_image",
    "unit",
]

Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_ROUNDING = 16 * np.finfo(np.float64).eps
_NO_POSE = "orthogonal to the mean, or with coordinates too large for their type"


class NoPoseError(ValueError):
    """Shapes without a pose: their numbers among the shapes at hand, and what they lack."""

    def __init__(self, rows: Indices, reason: str) -> None:
        super().__init__(f"{len(rows)} shape(s), the first is number {rows[0]}, {reason}")
        self.rows = rows
        self.reason = reason

    @classmethod
    def check(cls, fine: npt.NDArray[np.bool_], reason: str) -> None:
        """Raise when some shape is not ``fine`` (n,)."""
        rows = np.flatnonzero(~fine)
        if rows.size:
            raise cls(rows, reason)


class Training(NamedTuple):
    """What training shapes become: the pattern of poses, a mean, deviations from it.

    Attributes
    ----------
    reference : ndarray, shape (p, d)
        What poses are estimated against.
    mean : ndarray, shape (p, d)
    deviations : ndarray, shape (n, p, d)
    converged : bool
    """

    reference: Float64
    mean: Float64
    deviations: Float64
    converged: bool


class Linear(NamedTuple):
    """The linear part of a model in a frame, as projectors need it."""

    reference: Float64  # (p, d)
    mean: Float64  # (p, d)
    modes: Float64  # (k, p d)
    units: Float64  # (k,): a unit of coefficient i is units[i] times mode i


class Projector(Protocol):
    """Projection of chunks of shapes on given modes; poses are opaque to the caller."""

    def project(self, shapes: Floats) -> tuple[Floats, Any]:
        """Coefficients ``(n, k)`` of shapes ``(n, p, d)`` in the modes' units, and their poses."""
        ...

    def place(self, coefficients: Floats, poses: Any, out: Floats) -> None:
        """Fill ``out`` (n, p, d) with the shapes of ``coefficients`` in their poses."""
        ...


@dataclass(frozen=True)
class Frame:
    """One choice of ``align``.

    Attributes
    ----------
    train : callable
        ``(shapes, permutation or None, reference or None) -> Training``; with a permutation the
        mirror images of the shapes train too; with a reference poses are estimated against it.
    projector : callable
        ``(linear, dtype) -> Projector``.
    moves : tuple of str
        What poses take out of shapes, of "translation", "scale" and "rotation": directions of
        :func:`asmkit.modes.moves` in which no deviation can point.
    """

    train: Callable[[Float64, Indices | None, Float64 | None], Training]
    projector: Callable[[Linear, np.dtype[Any]], Projector]
    moves: tuple[str, ...]


def mirrored(shapes: Float64, permutation: Indices) -> Float64:
    """Mirror images: x negated about the centroid, points exchanged."""
    turned = shapes - shapes.mean(axis=-2, keepdims=True)
    turned[..., 0] *= -1
    return np.asarray(turned[..., permutation, :])


def unit(shape: Float64) -> Float64:
    """Centre a shape (p, d) and give it centroid size 1."""
    centred = shape - shape.mean(axis=0)
    return np.asarray(centred / np.linalg.norm(centred))


def _train_procrustes(
    kind: Literal["similarity", "rigid"],
    shapes: Float64,
    permutation: Indices | None,
    reference: Float64 | None,
) -> Training:
    everyone, converged = _with_mirrored(shapes, permutation), True
    if reference is None:
        found = generalized_procrustes(everyone, transform=kind)
        # Turned as the shapes are on average, so that their order does not matter.
        turn = scale_and_rotation(found.transforms.rotation.sum(axis=0), np.ones(()))[1]
        pattern, converged = found.mean @ turn.T, found.converged
    else:
        pattern = unit(reference) if kind == "similarity" else reference - reference.mean(axis=0)
    _check_handedness(unit(pattern), shapes)
    if permutation is not None:
        pattern = own_mirror_image(pattern, permutation)
    fit = similarity if kind == "similarity" else rigid
    aligned = np.asarray(fit(pattern, everyone).inverse().apply(everyone), dtype=np.float64)
    mean = pattern if reference is None else np.asarray(aligned.mean(axis=0))
    return Training(pattern, mean, aligned - mean, converged)


def _with_mirrored(shapes: Float64, permutation: Indices | None) -> Float64:
    return (
        shapes if permutation is None else np.concatenate([shapes, mirrored(shapes, permutation)])
    )


def _check_handedness(mean: Float64, shapes: Float64) -> None:
    """Refuse shapes that fit the mean far better when reflected."""
    centred = shapes - shapes.mean(axis=1, keepdims=True)
    flat = centred.reshape(len(shapes), -1)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    cross = cross_products(flat, mean[None])[:, 0]
    values = np.linalg.svd(cross, compute_uv=False)
    total, last = values.sum(axis=1), 2 * values[:, -1]
    right_handed = np.linalg.det(cross) > 0
    as_given = 1 - np.where(right_handed, total, total - last) ** 2
    reflected = 1 - np.where(right_handed, total - last, total) ** 2
    # Flat or nearly straight shapes fit as well either way: only a clear case is an error.
    rows = np.flatnonzero((as_given > 1e-3) & (reflected < 0.25 * as_given))
    if rows.size:
        raise ValueError(
            f"shapes: {rows.size} shape(s) look mirrored against the others, the first is number "
            f"{rows[0]}; mirroring must also exchange the left and right points"
        )


def own_mirror_image(mean: Float64, permutation: Indices) -> Float64:
    """Turn a mean by the smallest rotation so that mirroring it in x gives itself."""
    n_dims, size = mean.shape[1], np.linalg.norm(mean)
    cross = mean[permutation].T @ mean
    # The reflection I − 2nnᵀ nearest to the exchange of points: n is its least eigenvector.
    normal = np.linalg.eigh(cross + cross.T)[1][:, 0]
    axis = np.eye(n_dims)[0]
    normal = normal if normal @ axis >= 0 else -normal
    half = (normal + axis) / np.linalg.norm(normal + axis)
    rotation = _reflection(half) @ _reflection(normal)
    mean = mean @ rotation.T
    mean = (mean + mirrored(mean, permutation)) / 2
    return np.asarray(mean * (size / np.linalg.norm(mean)))


def _reflection(normal: Float64) -> Float64:
    return np.asarray(np.eye(len(normal)) - 2 * np.outer(normal, normal))


#: Shapes that go through the products together. Every number divides the largest, so that a batch
#: split at its multiples meets the same blocks, and gives the same bits, on any number of threads.
_BLOCKS = (4, 8, 16, 24, 32, 48, 96)
LARGEST_BLOCK = _BLOCKS[-1]


class _PlanarSimilarity:
    """Similarity frame in 2-D, compiled."""

    #: BLAS keeps to one thread up to this many multiply-adds; our own threads are outside.
    max_product = 1 << 18

    def __init__(self, linear: Linear, dtype: np.dtype[Any]) -> None:
        reference, mean, modes, units = linear
        self._n_modes, self._size = modes.shape
        planes = modes.reshape(self._n_modes, -1, 2).swapaxes(1, 2).reshape(modes.shape)
        self._reference = np.ascontiguousarray(reference.T, dtype)
        self._mean = np.ascontiguousarray(mean.reshape(-1), dtype)
        self._offset = _offset(linear).astype(dtype)
        self._inward = np.ascontiguousarray(planes.T / units, dtype)
        self._outward = np.ascontiguousarray(modes * units[:, None], dtype)
        most = max(self.max_product // modes.size, 4)
        self._n_rows = max(rows for rows in _BLOCKS if rows <= most)

    def project(self, shapes: Floats) -> tuple[Floats, Any]:
        flat = np.ascontiguousarray(shapes).reshape(len(shapes), -1).view()
        # One compiled version serves writable and read-only input.
        flat.flags.writeable = False
        coefficients = np.empty((len(flat), self._n_modes), flat.dtype)
        poses = np.empty((len(flat), 4), flat.dtype)
        n_bad = kernels.project(
            flat, self._reference, self._inward, self._block(), coefficients, poses
        )
        if n_bad:
            NoPoseError.check(~np.isnan(poses[:, 0]), _NO_POSE)
        if self._offset.any():
            coefficients -= self._offset
        return coefficients, poses

    def place(self, coefficients: Floats, poses: Any, out: Floats) -> None:
        limited = np.ascontiguousarray(coefficients, self._mean.dtype)
        flat = out.reshape(len(out), -1)
        kernels.place(limited, poses, self._mean, self._outward, self._block(), flat)

    def _block(self) -> Floats:
        return np.empty((self._n_rows, self._size), self._mean.dtype)


def _offset(linear: Linear) -> Float64:
    """Coefficients of the mean itself: 0 but where poses are estimated against another shape."""
    if linear.reference is linear.mean:
        return np.zeros(len(linear.units))
    return linear.modes @ (linear.mean - linear.reference).reshape(-1) / linear.units


class _Procrustes:
    """Similarity or rigid frame in any dimension; in 3-D one SVD a shape."""

    fit = staticmethod(similarity)

    def __init__(self, linear: Linear, dtype: np.dtype[Any]) -> None:
        self._linear, self._dtype = linear, dtype
        self._inward = linear.modes.T / linear.units
        self._outward = linear.modes * linear.units[:, None]

    def project(self, shapes: Floats) -> tuple[Floats, Any]:
        NoPoseError.check(~coinciding(shapes), _NO_POSE)
        poses = self.fit(self._linear.reference, shapes)
        aligned = poses.inverse().apply(shapes.astype(np.float64)) - self._linear.mean
        coefficients = aligned.reshape(len(shapes), -1) @ self._inward
        return coefficients.astype(self._dtype), poses

    def place(self, coefficients: Floats, poses: Any, out: Floats) -> None:
        deviations = coefficients.astype(np.float64) @ self._outward
        mean = self._linear.mean
        out[...] = poses.apply(mean + deviations.reshape(-1, *mean.shape))


class _Rigid(_Procrustes):
    fit = staticmethod(rigid)


def _similarity_projector(linear: Linear, dtype: np.dtype[Any]) -> Projector:
    kind = _PlanarSimilarity if linear.mean.shape[1] == 2 else _Procrustes
    return kind(linear, dtype)


def nearest(
    shapes: Float64,
    linear: Linear,
    limit: Callable[[Float64], Float64],
    with_scale: bool,
    tolerance: float = 1e-13,
    max_iterations: int = 200,
) -> tuple[Float64, bool]:
    """Shapes of the model nearest to the given ones: ``argmin ‖x − T(μ + Σ b_i φ_i)‖``.

    Coefficients and pose take turns, each the least-squares optimum given the other, from the pose
    of the reference on (Cootes et al. 1995). The first turn is the projection of one smoothing
    pass. What the turns need of a shape are its cross products with μ and the modes, so they never
    touch its points.

    Returns
    -------
    ndarray, shape (n, p, d)
    bool
        Whether the coefficients of every shape came to rest.
    """
    NoPoseError.check(~coinciding(shapes), _NO_POSE)
    reference, mean, modes, units = linear
    n_dims = mean.shape[1]
    centre = shapes.mean(axis=1, keepdims=True)
    flat = (shapes - centre).reshape(len(shapes), -1)
    patterns = np.concatenate([mean[None], modes.reshape(-1, *mean.shape)])
    products = np.einsum("ipd,jpd->ij", patterns, patterns)
    cross = cross_products(flat, patterns).reshape(len(shapes), len(patterns), -1)

    def poses(total: Float64, norm2: Float64, rows: Indices) -> tuple[Float64, Float64]:
        s, r = scale_and_rotation(total.reshape(-1, n_dims, n_dims), norm2)
        if not np.all(s > 0):
            raise NoPoseError(rows[~(s > 0)], _NO_POSE)
        return (s if with_scale else np.ones(len(s))), r

    weights = np.zeros((len(shapes), len(patterns)))
    weights[:, 0] = 1.0  # of the mean; the others are the coefficients
    moving = np.arange(len(shapes))
    scale, rotation = poses(cross_products(flat, reference[None]), np.ones(()), moving)
    for _ in range(max_iterations):
        if not moving.size:
            break
        before, own = weights[moving], cross[moving]
        turned = rotation[moving].reshape(-1, n_dims * n_dims, 1)
        raw = (own @ turned)[:, 1:, 0] / scale[moving, None] - products[0, 1:]
        weights[moving, 1:] = limit(raw / units) * units
        after = weights[moving]
        total = (after[:, None, :] @ own)[:, 0]
        norm2 = np.einsum("ni,ij,nj->n", after, products, after)
        scale[moving], rotation[moving] = poses(total, norm2, moving)
        moving = moving[np.abs(after - before).max(axis=1) > tolerance * products[0, 0] ** 0.5]
    model = mean + (weights[:, 1:] @ modes).reshape(-1, *mean.shape)
    placed = Similarity(scale, rotation, centre[:, 0]).apply(model)
    return np.asarray(placed, dtype=np.float64), moving.size == 0


def _train_none(
    shapes: Float64, permutation: Indices | None, reference: Float64 | None
) -> Training:
    if permutation is not None:
        raise ValueError("mirror: shapes that stay where they are (align='none') have no axis")
    if reference is not None:
        raise ValueError("reference: align='none' estimates no poses and takes none")
    mean = shapes.mean(axis=0)
    return Training(mean, mean, shapes - mean, True)


class _Still:
    """No poses: coefficients of shapes as they are."""

    def __init__(self, linear: Linear, dtype: np.dtype[Any]) -> None:
        self._mean, self._dtype = linear.mean, dtype
        self._inward = linear.modes.T / linear.units
        self._outward = linear.modes * linear.units[:, None]

    def project(self, shapes: Floats) -> tuple[Floats, Any]:
        fine = np.asarray(np.isfinite(shapes).all(axis=(1, 2)))
        NoPoseError.check(fine, "with a missing or infinite point")
        deviations = (shapes - self._mean).reshape(len(shapes), -1)
        return (deviations @ self._inward).astype(self._dtype), None

    def place(self, coefficients: Floats, poses: Any, out: Floats) -> None:
        deviations = coefficients.astype(np.float64) @ self._outward
        out[...] = self._mean + deviations.reshape(-1, *self._mean.shape)


@dataclass(frozen=True, eq=False)
class _BoxPoses:
    centre: Float64  # (n, 1, d)
    size: Float64  # (n, 1, d)


def _box_poses(shapes: Floats) -> _BoxPoses:
    low = shapes.min(axis=1, keepdims=True).astype(np.float64)
    high = shapes.max(axis=1, keepdims=True).astype(np.float64)
    fine = (high - low > _ROUNDING * np.abs(high + low)).all(axis=(1, 2))
    NoPoseError.check(fine, "with a landmark box that has no width or no height")
    return _BoxPoses((low + high) / 2, high - low)


def _train_box(shapes: Float64, permutation: Indices | None, reference: Float64 | None) -> Training:
    if reference is not None:
        raise ValueError("reference: align='box' estimates poses from boxes and takes none")
    everyone = _with_mirrored(shapes, permutation)
    poses = _box_poses(everyone)
    aligned = (everyone - poses.centre) / poses.size
    mean = aligned.mean(axis=0)
    return Training(mean, mean, aligned - mean, True)


class _Box:
    """The ASMNet paper's frame: coordinates in units of the landmark box, no rotation removed."""

    def __init__(self, linear: Linear, dtype: np.dtype[Any]) -> None:
        self._mean, self._dtype = linear.mean, dtype
        self._inward = linear.modes.T / linear.units
        self._outward = linear.modes * linear.units[:, None]

    def project(self, shapes: Floats) -> tuple[Floats, Any]:
        poses = _box_poses(shapes)
        aligned = (shapes - poses.centre) / poses.size - self._mean
        coefficients = aligned.reshape(len(shapes), -1) @ self._inward
        return coefficients.astype(self._dtype), poses

    def place(self, coefficients: Floats, poses: Any, out: Floats) -> None:
        deviations = coefficients.astype(np.float64) @ self._outward
        model = self._mean + deviations.reshape(-1, *self._mean.shape)
        out[...] = poses.centre + poses.size * model


FRAMES: Mapping[str, Frame] = {
    "similarity": Frame(
        partial(_train_procrustes, "similarity"),
        _similarity_projector,
        ("translation", "scale", "rotation"),
    ),
    "rigid": Frame(partial(_train_procrustes, "rigid"), _Rigid, ("translation", "rotation")),
    "box": Frame(_train_box, _Box, ()),
    "none": Frame(_train_none, _Still, ()),
}


def frame_of(align: str) -> Frame:
    """Frame of an argument ``align``.

    Raises
    ------
    ValueError
        When there is none of this name.
    """
    if align not in FRAMES:
        raise ValueError(f"align: got {align!r}, expected one of {', '.join(FRAMES)}")
    return FRAMES[align]
