"""Which belongs to which: the one-to-one assignment whose scores have the largest sum."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["match"]


def match(score: npt.ArrayLike, allowed: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """One-to-one pairs of rows and columns whose scores have the largest sum.

    Parameters
    ----------
    score : array_like (n, m)
        Positive where ``allowed``: how well row and column suit each other, as the overlap does.
    allowed : array_like (n, m) of bool
        Which may be a pair at all.

    Returns
    -------
    ndarray (n_pairs, 2)
        Row and column, by rows.
    """
    from scipy.optimize import linear_sum_assignment  # half a second that a photo does not need

    can = np.asarray(allowed, dtype=np.bool_)
    counted = np.where(can, np.asarray(score, dtype=np.float64), 0.0)
    pairs = np.stack(linear_sum_assignment(counted, maximize=True), axis=1)
    chosen: npt.NDArray[np.intp] = pairs[can[pairs[:, 0], pairs[:, 1]]]
    return chosen
