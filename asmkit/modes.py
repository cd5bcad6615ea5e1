"""Principal modes of deviations from a mean, and how many of them a request asks for."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
import numpy.typing as npt

__all__ = [
    "MOVES",
    "check_request",
    "count_modes",
    "fixed_directions",
    "kept_modes",
    "moves",
    "principal_modes",
]

Float64 = npt.NDArray[np.float64]


#: What a similarity does to a shape at first order.
MOVES = ("translation", "scale", "rotation")


def moves(shapes: Float64, kinds: tuple[str, ...] = MOVES) -> Float64:
    """Directions in which shapes (..., p, d) begin to move: (..., f, p, d), not orthonormal.

    Translations first, one for each axis, then scaling, then the rotations of the planes of axes.
    """
    n_points, n_dims = shapes.shape[-2:]
    found = []
    if "translation" in kinds:
        found += [np.broadcast_to(axis, shapes.shape) for axis in np.eye(n_dims)]
    if "scale" in kinds:
        found.append(shapes)
    if "rotation" in kinds:
        for i in range(n_dims):
            for j in range(i):
                turn = np.zeros((n_dims, n_dims))
                turn[i, j], turn[j, i] = 1.0, -1.0
                found.append(shapes @ turn)
    if not found:
        return np.zeros((*shapes.shape[:-2], 0, n_points, n_dims))
    return np.stack(found, axis=-3)


def fixed_directions(reference: Float64, kinds: tuple[str, ...] = MOVES) -> Float64:
    """Orthonormal rows that span the moves of a shape (p, d)."""
    rows = moves(reference, kinds).reshape(-1, reference.size)
    return np.linalg.qr(rows.T)[0].T if len(rows) else rows


def principal_modes(deviations: Float64, fixed: Float64, size: float) -> tuple[Float64, Float64]:
    """Variances ``(r,)`` and orthonormal modes ``(r, p d)`` of all directions with any variance.

    ``size`` is the centroid size of the mean: deviations of its rounding are none.
    """
    flat = deviations.reshape(len(deviations), -1)
    # R of a QR decomposition has the same singular values and right vectors, and no large left.
    factor = np.linalg.qr(flat, mode="r") if len(flat) > flat.shape[1] else flat
    _, values, modes = np.linalg.svd(factor, full_matrices=False)
    return kept_modes(values**2 / (len(flat) - 1), modes, fixed, max(flat.shape), size)


def kept_modes(
    variances: Float64, modes: Float64, fixed: Float64, n_rows: int, size: float
) -> tuple[Float64, Float64]:
    """Of modes in falling order of variance, those above rounding, clear of the fixed directions.

    Raises
    ------
    ValueError
        When there is no variance.
    """
    if not variances.sum() > 1e-20 * size**2:
        raise ValueError(
            "shapes: they do not differ but for their poses, so there is nothing to model; "
            "expected shapes of several individuals"
        )
    rank = int(np.sum(variances > np.finfo(np.float64).eps * n_rows * variances[0]))
    modes = modes[:rank] - (modes[:rank] @ fixed.T) @ fixed
    modes = np.linalg.qr(modes.T)[0].T
    return variances[:rank], modes * _signs(modes)[:, None]


def _signs(modes: Float64) -> Float64:
    # Mirrored pairs of landmarks have entries of equal size: take the first of the largest.
    sizes = np.abs(modes)
    first = np.argmax(sizes > (1 - 1e-6) * sizes.max(axis=1, keepdims=True), axis=1)
    return np.asarray(np.sign(modes[np.arange(len(modes)), first]))


def check_request(n_components: object, rules: tuple[str, ...] = ()) -> None:
    """Refuse what is neither a count of at least 1, a share in (0, 1], nor one of the rules."""
    if isinstance(n_components, str) and rules:
        if n_components not in rules:
            raise ValueError(
                f"n_components: got {n_components!r}, expected a count, a share or one of "
                f"{', '.join(map(repr, rules))}"
            )
        return
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
