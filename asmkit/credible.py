"""Regions in which landmarks lie with a stated probability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

__all__ = ["CredibleRegions"]

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
    """

    mean: Float64
    covariance: Float64
    level: float
    weights: Float64

    @property
    def radius(self) -> float:
        """Mahalanobis distance of the border: root of the quantile of chi-square."""
        return float(np.sqrt(chi2.ppf(self.level, self.mean.shape[-1])))

    def at(self, level: float) -> CredibleRegions:
        """Return the regions of another level."""
        check_level(level)
        return CredibleRegions(self.mean, self.covariance, level, self.weights)

    def distance(self, points: npt.ArrayLike) -> Float64:
        """Mahalanobis distance ``(..., p)`` of points from their regions' centres.

        0 or infinite where a point has no uncertainty.
        """
        offset = np.asarray(points, dtype=np.float64) - self.mean
        values, axes = np.linalg.eigh(self.covariance)
        along = np.einsum("...de,...d->...e", axes, offset)
        size = np.abs(values).max(axis=-1, keepdims=True)
        certain = values <= 1e-12 * size
        still = np.abs(along) <= 1e-9 * np.abs(self.mean).max(initial=1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            squares = np.where(
                certain, np.where(still, 0.0, np.inf), along**2 / np.where(certain, 1.0, values)
            )
        return np.asarray(np.sqrt(squares.sum(axis=-1)))

    def contains(self, points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which points ``(..., p, d)`` lie in their regions, ``(..., p)``."""
        return np.asarray(self.distance(points) <= self.radius)

    def axes(self) -> tuple[Float64, Float64]:
        """Half axes of the regions: lengths ``(..., p, d)``, longest first, and directions.

        Directions are the columns of ``(..., p, d, d)``.
        """
        values, directions = np.linalg.eigh(self.covariance)
        lengths = self.radius * np.sqrt(np.maximum(values, 0.0))
        return lengths[..., ::-1], directions[..., ::-1]


def check_level(level: float) -> None:
    """Refuse what is no probability strictly between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"level: got {level}, expected a probability between 0 and 1")
