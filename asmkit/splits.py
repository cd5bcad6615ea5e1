"""Which images are held out: a fixed function of the file name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["validation_part"]


def validation_part(names: Sequence[str], share: float = 0.1) -> npt.NDArray[np.bool_]:
    """Mark the names that belong to the validation part.

    A name is held out when the first 32 bits of its SHA-256, read as a fraction of 2³², lie below
    ``share``. So the part is the same on every machine and in every order, adding images moves no
    other image, and a larger share contains the smaller one.

    Parameters
    ----------
    names : sequence of str
        Names without folder and suffix.
    share : float
        Share to hold out, 0 to 1.

    Returns
    -------
    ndarray of bool, (n,)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share: got {share}, expected 0 to 1")
    digests = (hashlib.sha256(name.encode("utf-8")).digest() for name in names)
    fractions = [int.from_bytes(digest[:4], "big") / 2**32 for digest in digests]
    return np.asarray(fractions, dtype=np.float64) < share
