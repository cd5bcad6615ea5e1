"""Regions in which landmarks lie with a stated probability."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

__all__ = ["CredibleRegions", "mahalanobis"]

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CredibleRegions:
    """An ellipse (3-D: ellipsoid) for each landmark of each shape, on its own.

    Attributes
    ----------
    mean : ndarray, shape (..., p, d)
        Centres: the completed shapes.
    covariance : ndarray, shape (..., p, d, d)
        Covariance of each point, in squared units of the points; zeros where a point was seen
        without noise.
    level : float
        Probability with which each region holds its point, if the model is right.
    weights : ndarray, shape (..., p)
        How much each given point was believed: 1, or less where ``robust`` found that the others
        contradict it; NaN for a point that was not given.
    distances : ndarray, shape (..., m, p), or None
        Where m other shapes calibrate the regions: how far their points lay, in ascending order;
        NaN for a point that was given.
    """

    mean: Float64
    covariance: Float64
    level: float
    weights: Float64
    distances: Float64 | None = field(default=None, repr=False)

    @property
    def radius(self) -> Float64:
        """Mahalanobis distance of each border ``(..., p)``.

        Calibrated, the k-th smallest of the m ``distances``, k = ⌈level (m + 1)⌉; else, and for
        a given point, the root of the quantile of chi-square with d degrees of freedom.

        Raises
        ------
        ValueError
            When so few shapes calibrate that none of them lies beyond such a level.
        """
        root = np.sqrt(chi2.ppf(self.level, self.mean.shape[-1]))
        radius = np.full(self.mean.shape[:-1], root)
        if self.distances is None:
            return radius
        count = self.distances.shape[-2]
        rank = math.ceil(self.level * (count + 1) - 1e-9)
        if rank > count:
            raise ValueError(
                f"level: got {self.level}, but {count} calibration shapes tell of levels up to "
                f"{count / (count + 1):.3g}; give more shapes, or a lower level"
            )
        calibrated = self.distances[..., rank - 1, :]
        return np.where(np.isnan(calibrated), radius, calibrated)

    def at(self, level: float) -> CredibleRegions:
        """Return the regions of another level."""
        check_level(level)
        return replace(self, level=level)

    def distance(self, points: npt.ArrayLike) -> Float64:
        """Mahalanobis distance ``(..., p)`` of points from their regions' centres.

        0 or infinite where a point has no uncertainty.
        """
        offset = np.asarray(points, dtype=np.float64) - self.mean
        return mahalanobis(offset, self.covariance, np.abs(self.mean).max(initial=1.0))

    def contains(self, points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which points ``(..., p, d)`` lie in their regions, ``(..., p)``."""
        return np.asarray(self.distance(points) <= self.radius)

    def axes(self) -> tuple[Float64, Float64]:
        """Half axes of the regions: lengths ``(..., p, d)``, longest first, and directions.

        Directions are the columns of ``(..., p, d, d)``.
        """
        values, directions = np.linalg.eigh(self.covariance)
        lengths = self.radius[..., None] * np.sqrt(np.maximum(values, 0.0))
        return lengths[..., ::-1], directions[..., ::-1]


def mahalanobis(offset: Float64, covariance: Float64, extent: float = 1.0) -> Float64:
    """Lengths ``(...)`` of offsets ``(..., d)`` in deviations of covariances ``(..., d, d)``.

    0 or infinite along an axis without uncertainty, ``extent`` being the size of the coordinates
    whose rounding is still 0.
    """
    values, axes = np.linalg.eigh(covariance)
    along = np.einsum("...de,...d->...e", axes, offset)
    certain = values <= 1e-12 * np.abs(values).max(axis=-1, keepdims=True)
    still = np.abs(along) <= 1e-9 * extent
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = np.where(
            certain, np.where(still, 0.0, np.inf), along**2 / np.where(certain, 1.0, values)
        )
    return np.asarray(np.sqrt(squares.sum(axis=-1)))


def check_level(level: float) -> None:
    """Refuse what is no probability strictly between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level: got {level}, expected a probability between 0 and 1")
