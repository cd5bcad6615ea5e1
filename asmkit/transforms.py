"""Maps of points that alignment finds: similarities (rigid motions among them) and affine maps.

Either acts as ``T(x) = A x + t``. A similarity has ``A = s R``, scale ``s > 0`` and an orthogonal
``R``. One object holds one map or a batch of them along leading axes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from asmkit._check import Floats

__all__ = ["Affine", "Similarity"]

Float64 = npt.NDArray[np.float64]


class _Map(ABC):
    """What similarities and affine maps share."""

    translation: Float64

    @abstractmethod
    def _matrix(self) -> Float64:
        """The linear parts ``A``, shape ``(..., d, d)``."""

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

    @property
    def matrix(self) -> Float64:
        """The homogeneous matrices ``[[A, t], [0, 1]]``, shape ``(..., d + 1, d + 1)``."""
        linear = self._matrix()
        n_dims = linear.shape[-1]
        matrix = np.zeros((*linear.shape[:-2], n_dims + 1, n_dims + 1))
        matrix[..., :n_dims, :n_dims] = linear
        matrix[..., :n_dims, n_dims] = self.translation
        matrix[..., n_dims, n_dims] = 1.0
        return matrix

    def _move(self, translation: Float64) -> Float64:
        moved = np.squeeze(self._matrix() @ translation[..., None], -1)
        return np.asarray(moved + self.translation)


@dataclass(frozen=True, eq=False)
class Similarity(_Map):
    """One similarity ``T(x) = s R x + t``, or a batch of them along leading axes.

    Parameters
    ----------
    scale : ndarray, shape (...)
        ``s > 0``; 1 in a rigid motion.
    rotation : ndarray, shape (..., d, d)
        ``R``, orthogonal with determinant +1; -1 only where a reflection was asked for and fits
        better.
    translation : ndarray, shape (..., d)
        ``t``, in the units of the points.
    """

    scale: Float64
    rotation: Float64
    translation: Float64

    @property
    def linear(self) -> Float64:
        """The linear parts ``s R``, shape ``(..., d, d)``."""
        return self._matrix()

    def _matrix(self) -> Float64:
        return np.asarray(self.scale)[..., None, None] * self.rotation

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
        return Similarity(
            self.scale * other.scale,
            self.rotation @ other.rotation,
            self._move(other.translation),
        )


@dataclass(frozen=True, eq=False)
class Affine(_Map):
    """One affine map ``T(x) = A x + t``, or a batch of them along leading axes.

    Parameters
    ----------
    linear : ndarray, shape (..., d, d)
        ``A``: any matrix.
    translation : ndarray, shape (..., d)
        ``t``, in the units of the points.
    """

    linear: Float64
    translation: Float64

    def inverse(self) -> Affine:
        """Return the map that undoes this one.

        Raises
        ------
        ValueError
            When a map is singular.
        """
        try:
            linear = np.asarray(np.linalg.inv(self.linear), dtype=np.float64)
        except np.linalg.LinAlgError as error:
            raise ValueError("a singular affine map flattens the points: no inverse") from error
        return Affine(linear, -np.squeeze(linear @ self.translation[..., None], -1))

    def __matmul__(self, other: Affine | Similarity) -> Affine:
        """Composition: ``(self @ other).apply(x) == self.apply(other.apply(x))``."""
        if not isinstance(other, _Map):
            return NotImplemented
        return Affine(self.linear @ other.linear, self._move(other.translation))

    def _matrix(self) -> Float64:
        return self.linear

    def __rmatmul__(self, other: Similarity) -> Affine:
        if not isinstance(other, _Map):
            return NotImplemented
        return Affine(other.linear @ self.linear, other._move(self.translation))
