"""The focal length of a camera, from many images of one known object."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize_scalar
from scipy.special import fdtri

from asmkit._check import as_points, as_shapes
from asmkit._weights import as_weights
from asmkit.camera import Camera
from asmkit.pose import solve_pnp

__all__ = ["FocalEstimate", "estimate_focal"]

Array = npt.NDArray[np.float64]

# Focal lengths tried, in sizes of the image: from a view of 136° to one of a degree.
_BOUNDS = (0.2, 50.0)
# Of the grid: the error of many poses has no structure finer than that.
_PER_OCTAVE = 3


@dataclass(frozen=True)
class FocalEstimate:
    """What :func:`estimate_focal` finds.

    Attributes
    ----------
    camera
        The camera with the focal length of least error.
    interval
        Focal lengths in pixels whose error is not significantly larger. An end that the points say
        nothing about is 0 or infinity.
    is_determined
        Both ends of the interval are known. Where it is False take ``Camera.orthographic()`` or a
        guess, not ``camera``: all focal lengths in the interval explain the points alike.
    reprojection_error
        Root mean square over all points, in pixels.
    n_shapes
        Shapes that had a pose.
    """

    camera: Camera
    interval: tuple[float, float]
    is_determined: bool
    reprojection_error: float
    n_shapes: int

    @property
    def focal(self) -> float:
        """The focal length in pixels."""
        return self.camera.fx


def estimate_focal(
    points: npt.ArrayLike,
    reference: npt.ArrayLike,
    image_size: tuple[float, float] | None = None,
    *,
    principal_point: tuple[float, float] | None = None,
    weights: npt.ArrayLike | None = None,
    bounds: tuple[float, float] | None = None,
    confidence: float = 0.95,
) -> FocalEstimate:
    """Focal length of the camera that took all the images, from a reference of known proportions.

    The squared reprojection errors of all poses, each solved for the focal length in question, are
    summed; the focal length with the least sum is found on a grid and refined by Brent's method.
    Pixels are square. Only perspective within the object tells: one that is far away for its size
    looks the same to a long lens, and the interval then is open to the right.

    The interval is that of the likelihood under independent Gaussian noise of unknown size. Where
    the reference does not have the proportions of what is seen (a mean face for people), the errors
    are neither small nor independent: the estimate is then biased by the misfit, and the interval
    is too narrow. Many different people are better than many images of one.

    Parameters
    ----------
    points
        ``(n, p, 2)`` image points from uncropped images of one camera; missing ones are NaN.
    reference
        ``(p, 3)``; its unit does not matter.
    image_size
        Width and height in pixels.
    principal_point
        Default: the middle of the image. One of the two must be given.
    weights
        ``(p,)`` or ``(n, p)``, as for :func:`asmkit.solve_pnp`; its robust weights
        (``Pose.weights`` for some guessed camera) serve where points may be wrong.
    bounds
        Least and largest focal length in question, in pixels. Default: 0.2 to 50 times the longer
        side of the image (by default twice the principal point).
    confidence
        Probability of the interval.

    Raises
    ------
    ValueError
        Neither image size nor principal point, wrong bounds, no shape with a pose, too few points
        for a focal length besides the poses, or what :func:`asmkit.solve_pnp` refuses.
    """
    X = as_points(reference, "reference", n_dims=3)
    x = as_shapes(points, "points", n_points=len(X), n_dims=2, allow_nan=True)
    q = as_weights(weights, x)
    centre, ends = _search_space(image_size, principal_point, bounds)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: got {confidence}, expected between 0 and 1")

    def camera(log_focal: float) -> Camera:
        return Camera(math.exp(log_focal), math.exp(log_focal), *centre)

    usable = solve_pnp(x, X, Camera.orthographic(), weights=q).success
    if not usable.any():
        raise ValueError(f"points: none of the {len(x)} shapes has a pose")
    x, q = x[usable], q[usable]
    freedom = 2 * int((q > 0).sum()) - 6 * len(x) - 1
    if freedom < 1:
        raise ValueError(
            f"points: {int((q > 0).sum())} points in {len(x)} shapes leave nothing to tell the "
            "focal length from; expected more than three points a shape"
        )
    total = q.sum(axis=1)

    def squares(log_focal: float) -> float:
        pose = solve_pnp(x, X, camera(log_focal), weights=q)
        return float((total * pose.reprojection_error**2).sum())

    best, least, interval = _minimum(squares, ends, freedom, confidence)
    return FocalEstimate(
        camera(best),
        interval,
        interval[0] > 0 and interval[1] < math.inf,
        math.sqrt(least / total.sum()),
        len(x),
    )


def _search_space(
    image_size: tuple[float, float] | None,
    principal_point: tuple[float, float] | None,
    bounds: tuple[float, float] | None,
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Principal point, and the logarithms of the least and the largest focal length."""
    if image_size is not None:
        width, height = image_size
        if not (0 < width < math.inf and 0 < height < math.inf):
            raise ValueError(f"image_size: got {image_size}, expected two positive numbers")
        centre, side = ((width - 1) / 2, (height - 1) / 2), max(width, height)
    elif principal_point is not None:
        centre, side = principal_point, 2 * max(principal_point) + 1
    else:
        raise ValueError("expected image_size=(width, height) or principal_point=(cx, cy)")
    if principal_point is not None:
        centre = (float(principal_point[0]), float(principal_point[1]))
    if not all(map(math.isfinite, centre)):
        raise ValueError(f"principal_point: got {principal_point}, expected finite numbers")
    low, high = bounds if bounds is not None else (_BOUNDS[0] * side, _BOUNDS[1] * side)
    if not 0 < low < high < math.inf:
        raise ValueError(
            f"bounds: got {low} to {high} pixels, expected two rising positive focal lengths "
            "(they are guessed from the size of the image; give them where that is unknown)"
        )
    return centre, (math.log(low), math.log(high))


def _minimum(
    squares: Callable[[float], float],
    ends: tuple[float, float],
    freedom: int,
    confidence: float,
) -> tuple[float, float, tuple[float, float]]:
    """Argument of the least sum of squares, that sum, and the interval of focal lengths."""
    n = 2 + math.ceil(_PER_OCTAVE * (ends[1] - ends[0]) / math.log(2))
    grid = np.linspace(*ends, n)
    values = np.array([squares(v) for v in grid])
    k = int(values.argmin())
    around = (grid[max(k - 1, 0)], grid[min(k + 1, n - 1)])
    found = minimize_scalar(squares, bounds=around, method="bounded", options={"xatol": 1e-8})
    best, least = float(found.x), float(found.fun)
    if values[k] <= least:
        best, least = float(grid[k]), float(values[k])
    # The ratio of likelihoods, with the size of the noise estimated too, follows Fisher's law.
    limit = least * (1 + float(fdtri(1, freedom, confidence)) / freedom)

    def crossing(outwards: Array) -> float | None:
        inner = best
        for outer, value in outwards:
            if value > limit:
                return math.exp(brentq(lambda v: squares(v) - limit, inner, outer, xtol=1e-8))
            inner = outer
        return None

    pairs = np.column_stack([grid, values])
    low = crossing(pairs[grid < best][::-1])
    high = crossing(pairs[grid > best])
    return best, least, (0.0 if low is None else low, math.inf if high is None else high)
