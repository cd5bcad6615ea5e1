"""How far the truth lies from what a model says, seen on shapes that it has not learned from.

Split conformal prediction: hide from other complete shapes the points that are hidden here, and see
how far, in Mahalanobis distance, their true points lie from the completed ones. If the shape and
these come from one source, in any order alike, its own distance is below the k-th smallest of m
with a probability of k / (m + 1), whatever the source and however wrong the model.

References
----------
V. Vovk, A. Gammerman, G. Shafer (2005). Algorithmic Learning in a Random World, ch. 2. J. Lei,
M. G'Sell, A. Rinaldo, R. J. Tibshirani, L. Wasserman (2018). Distribution-free predictive inference
for regression. J. Am. Stat. Assoc. 113, 1094-1111.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from asmkit.conditioning import GaussianShapes, condition, least_squares_pose, visible
from asmkit.credible import mahalanobis

__all__ = ["calibration_distances"]

Float64 = npt.NDArray[np.float64]


def calibration_distances(
    model: GaussianShapes,
    points: Float64,
    completed: Float64,
    noise: Float64,
    shapes: Float64,
    *,
    robust: bool,
) -> Float64:
    """Distances of the true points of other shapes with the same points hidden.

    Parameters
    ----------
    model : GaussianShapes
    points : ndarray, shape (n, p, d)
        What is given, NaN where a point is hidden.
    completed : ndarray, shape (n, p, d)
        The same shapes with those points; the others are brought into their place, so that noise
        means the same for them.
    noise : ndarray, shape (1 or n, p, d, d)
    shapes : ndarray, shape (m, p, d)
        Complete shapes that the model has not learned from.
    robust : bool

    Returns
    -------
    ndarray, shape (n, m, p)
        In ascending order along m; NaN where a point is given.
    """
    seen = visible(points)
    distances = np.full((len(points), *shapes.shape[:2]), np.nan)
    for row, target in enumerate(completed):
        others = _placed(shapes, target, model.kinds)
        given = np.where(seen[row][:, None], others, np.nan)
        own = noise if len(noise) == 1 else noise[row : row + 1]
        found = condition(model, given, own, robust=robust)
        distances[row] = mahalanobis(others - found.mean, found.covariance)
        distances[row][:, seen[row]] = np.nan
    return np.sort(distances, axis=1)


def _placed(shapes: Float64, target: Float64, kinds: tuple[str, ...]) -> Float64:
    """Shapes moved onto a target as far as poses of these kinds do."""
    if not kinds:
        return shapes
    return np.asarray(least_squares_pose(kinds, shapes, target).apply(shapes))
