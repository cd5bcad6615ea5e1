"""Compiled halves of smoothing in 2-D: shapes into the model, coefficients back into shapes.

A similarity of the plane is ``x ↦ [[a, -b], [b, a]] x + t``, kept as the row ``(a, b, t_x, t_y)``.
On the way in the coordinates of a block stand in planes, all x before all y, which sums over points
vectorise best; the two matrix products go to BLAS block by block while the block is in the cache.

``fastmath`` may reorder and fuse, but must not assume that NaN is absent: NaN is how a missing
point is found.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["place", "project"]

Array = npt.NDArray[Any]

_COMPILED: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "nsz", "reassoc"},
}


@numba.njit(**_COMPILED)
def project(
    shapes: Array, mean: Array, modes: Array, block: Array, coefficients: Array, poses: Array
) -> int:
    """Fill ``poses`` (n, 4), model to shape, and ``coefficients`` (n, k).

    ``shapes`` is (n, 2p) interleaved, ``mean`` (2, p) centred and of size 1, ``modes`` (2p, k) in
    planes, ``block`` (m, 2p) scratch. Returns how many shapes have no pose, for a missing or
    infinite point or because all points coincide; their poses begin with NaN.
    """
    n_points = mean.shape[1]
    one = mean.dtype.type(1)
    count = mean.dtype.type(n_points)
    rounding = mean.dtype.type(16 * np.finfo(mean.dtype).eps)
    n_bad = 0
    for start in range(0, len(shapes), len(block)):
        size = min(len(block), len(shapes) - start)
        for i in range(size):
            shape = shapes[start + i]
            first_x, first_y = shape[0], shape[1]
            # Differences from the first point: a far-away origin costs no digits.
            a = b = sum_x = sum_y = first_x - first_x
            for j in range(n_points):
                x, y = shape[2 * j] - first_x, shape[2 * j + 1] - first_y
                a += mean[0, j] * x + mean[1, j] * y
                b += mean[0, j] * y - mean[1, j] * x
                sum_x += x
                sum_y += y
            pose = poses[start + i]
            pose[0], pose[1] = a, b
            pose[2], pose[3] = first_x + sum_x / count, first_y + sum_y / count
            size2 = a * a + b * b
            limit = rounding * max(abs(first_x), abs(first_y))
            if not limit * limit < size2 < np.inf:
                pose[0] = np.nan
                n_bad += 1
            a, b = a * (one / size2), b * (one / size2)
            row = block[i]
            for j in range(n_points):
                x, y = shape[2 * j] - first_x, shape[2 * j + 1] - first_y
                row[j] = a * x + b * y
                row[n_points + j] = a * y - b * x
        np.dot(block[:size], modes, coefficients[start : start + size])
    return n_bad


@numba.njit(**_COMPILED)
def place(
    coefficients: Array, poses: Array, mean: Array, modes: Array, block: Array, shapes: Array
) -> None:
    """Fill ``shapes`` (n, 2p) with the poses of ``mean + coefficients · modes``.

    ``mean`` (2p,) and ``modes`` (k, 2p) are interleaved here; all else as in :func:`project`.
    """
    n_points = len(mean) // 2
    for start in range(0, len(shapes), len(block)):
        size = min(len(block), len(shapes) - start)
        np.dot(coefficients[start : start + size], modes, block[:size])
        for i in range(size):
            row, shape, pose = block[i], shapes[start + i], poses[start + i]
            a, b, shift_x, shift_y = pose[0], pose[1], pose[2], pose[3]
            for j in range(n_points):
                x, y = mean[2 * j] + row[2 * j], mean[2 * j + 1] + row[2 * j + 1]
                shape[2 * j] = a * x - b * y + shift_x
                shape[2 * j + 1] = b * x + a * y + shift_y
