"""Principal modes of deviations from a mean, and how many of them a request asks for."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
import numpy.typing as npt

__all__ = ["check_request", "count_modes", "fixed_directions", "principal_modes"]

Float64 = npt.NDArray[np.float64]


def fixed_directions(mean: Float64) -> Float64:
    """Orthonormal rows that span what similarities do to a mean (p, d) at first order."""
    n_points, n_dims = mean.shape
    moves = [np.tile(axis, (n_points, 1)) for axis in np.eye(n_dims)]
    moves.append(mean)
    for i in range(n_dims):
        for j in range(i):
            turn = np.zeros((n_dims, n_dims))
            turn[i, j], turn[j, i] = 1.0, -1.0
            moves.append(mean @ turn)
    return np.linalg.qr(np.reshape(moves, (len(moves), -1)).T)[0].T


def principal_modes(deviations: Float64, fixed: Float64) -> tuple[Float64, Float64]:
    """Variances ``(r,)`` and orthonormal modes ``(r, p d)`` of all directions with any variance."""
    flat = deviations.reshape(len(deviations), -1)
    # R of a QR decomposition has the same singular values and right vectors, and no large left.
    factor = np.linalg.qr(flat, mode="r") if len(flat) > flat.shape[1] else flat
    _, values, modes = np.linalg.svd(factor, full_matrices=False)
    variances = values**2 / (len(flat) - 1)
    if not variances.sum() > 1e-20:
        raise ValueError(
            "shapes: they do not differ but for their poses, so there is nothing to model; "
            "expected shapes of several individuals"
        )
    rank = int(np.sum(variances > np.finfo(np.float64).eps * max(flat.shape) * variances[0]))
    modes = modes[:rank] - (modes[:rank] @ fixed.T) @ fixed
    modes = np.linalg.qr(modes.T)[0].T
    return variances[:rank], modes * _signs(modes)[:, None]


def _signs(modes: Float64) -> Float64:
    # Mirrored pairs of landmarks have entries of equal size: take the first of the largest.
    sizes = np.abs(modes)
    first = np.argmax(sizes > (1 - 1e-6) * sizes.max(axis=1, keepdims=True), axis=1)
    return np.asarray(np.sign(modes[np.arange(len(modes)), first]))


def check_request(n_components: object) -> None:
    """Refuse what is neither a count of at least 1 nor a share in (0, 1]."""
    if isinstance(n_components, (bool, np.bool_)) or not isinstance(n_components, Real):
        raise TypeError(
            f"n_components: got {n_components!r}, expected a count (5) or a share (0.98)"
        )
    if isinstance(n_components, Integral):
        if int(n_components) < 1:
            raise ValueError(f"n_components: got {n_components}, expected a count of at least 1")
    elif not 0 < float(n_components) <= 1:
        raise ValueError(
            f"n_components: got {n_components}; a float is a share of variance, above 0 and at "
            "most 1; give an integer to ask for a number of modes"
        )


def count_modes(n_components: float, variances: Float64, total: float) -> int:
    """Number of modes asked for: a count, or the smallest that reaches a share of ``total``."""
    if isinstance(n_components, Integral):
        if n_components > len(variances):
            raise ValueError(
                f"n_components: asked for {n_components} modes, but there are {len(variances)}"
            )
        return int(n_components)
    held = np.cumsum(variances) / total
    # Rounding of the sum must not ask for one mode more than exact arithmetic would.
    reached = np.flatnonzero(held >= n_components - 1e-12)
    if not reached.size:
        raise ValueError(
            f"n_components: asked for {n_components:.4g} of the variance, but the "
            f"{len(variances)} modes hold {held[-1]:.4g}"
        )
    return int(reached[0]) + 1
