"""Leaf: points as OpenCV draws them, at fractions of a pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["SHIFT", "fixed"]

#: OpenCV draws at fractions of a pixel: coordinates are integers of 2⁻⁴ pixel.
SHIFT = 4


def fixed(points: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int32]:
    """Points in units of 2⁻⁴ pixel, kept within what OpenCV can count."""
    bounded = np.clip(points, -10_000, 10_000)
    units: npt.NDArray[np.int32] = np.round(bounded * (1 << SHIFT)).astype(np.int32)
    return units
