"""Leaf: the argument ``weights``, how much each point of each shape counts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from asmkit._check import Floats

__all__ = ["as_weights"]

Array = npt.NDArray[np.float64]


def as_weights(weights: npt.ArrayLike | None, points: Floats) -> Array:
    """Weights ``(n, p)`` of the points ``(n, p, 2)``, a new array: 1 by default, 0 where missing.

    Raises
    ------
    ValueError
        Another shape than ``(p,)`` or ``(n, p)``, negative or not finite weights.
    TypeError
        The weights are no real numbers.
    """
    n, p = points.shape[:2]
    given = np.asarray(1.0 if weights is None else weights)
    if given.dtype.kind not in "fiub":
        raise TypeError(f"weights: got dtype {given.dtype}, expected real numbers")
    if weights is not None and given.shape not in ((p,), (n, p)):
        raise ValueError(
            f"weights: got shape {given.shape}, expected ({p},), one for each point, or "
            f"({n}, {p}), one for each point of each shape"
        )
    if not (np.isfinite(given).all() and (given >= 0).all()):
        raise ValueError(
            "weights: got negative, infinite or NaN values; expected finite weights >= 0 "
            "(0 leaves a point out)"
        )
    return np.where(np.isnan(points).any(axis=2), 0.0, given.astype(np.float64))
