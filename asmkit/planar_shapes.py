"""Sweeps over shapes of the plane as complex vectors: the fast path of generalised Procrustes.

A similarity that moves no centroid is one complex number: ``x ≈ a μ`` with ``a = ⟨μ, x⟩`` for a μ
of size 1. So a sweep is one complex product to get the a, and one to add up the ``x / a``; both go
over a block of shapes while it is in the cache.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from asmkit.transforms import Similarity

__all__ = ["PlanarShapes"]

Float64 = npt.NDArray[np.float64]

_BLOCK_BYTES = 1 << 18


class PlanarShapes:
    """Centred shapes of size 1, and where and how large they were.

    Parameters
    ----------
    centred : ndarray, shape (n, p, 2)
        Contiguous.
    size : ndarray, shape (n,)
    centre : ndarray, shape (n, 2)
    """

    def __init__(self, centred: Float64, size: Float64, centre: Float64) -> None:
        self._points = np.ascontiguousarray(centred).view(np.complex128)[..., 0]
        self._size, self._centre = size, centre
        self._rows = max(16, _BLOCK_BYTES // (16 * centred.shape[1]))

    def tangent_mean(self, mean: Float64, samples: Float64 | None) -> tuple[Float64, Float64]:
        """Mean (p, 2) of ``T⁻¹x`` for a mean of size 1, and the scales ``|a|`` (n,).

        Of shapes whose scale is nearly 0 the sum is of no use; the caller refuses them.
        """
        n, n_points = self._points.shape
        conjugate = np.ascontiguousarray(mean).view(np.complex128)[:, 0].conj()
        total, poses = np.zeros(n_points, np.complex128), np.empty(n, np.complex128)
        for start in range(0, n, self._rows):
            block = self._points[start : start + self._rows]
            a = block @ conjugate
            poses[start : start + self._rows] = a
            weights = 1.0 / np.where(np.abs(a) > 0, a, 1.0)
            if samples is not None:
                weights *= samples[start : start + self._rows]
            total += weights @ block
        if samples is None:
            total /= n
        return total.view(np.float64).reshape(n_points, 2), np.abs(poses)

    def poses(self, mean: Float64) -> tuple[Similarity, Float64]:
        """Similarities from a mean of size 1 to the shapes as they were, and ``T⁻¹x`` (n, p, 2)."""
        n, n_points = self._points.shape
        a = self._points @ np.ascontiguousarray(mean).view(np.complex128)[:, 0].conj()
        aligned = self._points * (1.0 / a)[:, None]
        length = np.abs(a)
        turn = a / length
        rotation = np.empty((n, 2, 2))
        rotation[:, 0, 0] = rotation[:, 1, 1] = turn.real
        rotation[:, 1, 0], rotation[:, 0, 1] = turn.imag, -turn.imag
        maps = Similarity(length * self._size, rotation, self._centre.copy())
        return maps, aligned.view(np.float64).reshape(n, n_points, 2)
