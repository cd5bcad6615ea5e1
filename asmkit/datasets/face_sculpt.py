"""The surface of the mean head of the synthetic faces, sculpted by hand.

Everything here was drawn from general proportions of adult heads (the eyes at half the height of
the head, the face five eyes wide, and so on): no scan, no data set and no published model went
into it. Lengths are centimetres. The frame is that of every asmkit pose: x to the right of the
image, y down, z away from the camera; the origin lies midway between the ears at the height of
the eyes. The unrolled head has coordinates (a, b): angle around the head's axis times a radius,
and height along the front; near the midline they are x and y.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

__all__ = [
    "BODY_START", "EYEBALL_CENTRE", "EYEBALL_RADII", "LID_THICKNESS", "UNROLL_RADIUS",
    "inside", "loft", "mirrored", "sculpt", "smooth_step", "unroll",
]  # fmt: skip

Array = npt.NDArray[np.float64]

#: Radius that turns the angle around the head's axis into the unrolled coordinate a.
UNROLL_RADIUS = 7.0

# The head is a loft of tilted rings. A row is one ring: its unrolled height b, the front point
# (y, z), the side point (x, y, z) and the back point (y, z).
_RINGS = np.array(
    [
        # b      Fy     Fz     Sx     Sy     Sz     By    Bz
        [-17.0, -11.2, 0.3, 0.05, -11.2, 0.3, -11.2, 0.3],
        [-13.2, -10.3, -4.4, 4.2, -10.4, 0.4, -10.3, 5.0],
        [-9.6, -8.3, -7.5, 6.3, -8.4, 0.6, -8.0, 7.9],
        [-6.0, -5.5, -9.05, 7.3, -5.5, 0.6, -5.0, 9.1],
        [-2.3, -2.2, -9.6, 7.5, -2.2, 0.4, -1.8, 9.3],
        [-0.3, -0.3, -9.15, 7.15, -0.2, 0.2, 0.5, 8.9],
        [2.0, 2.0, -9.3, 6.95, 2.0, 0.0, 2.8, 8.0],
        [4.3, 4.3, -9.6, 6.55, 4.0, 0.0, 4.8, 7.0],
        [6.4, 6.4, -9.75, 6.05, 5.7, -0.1, 6.3, 6.4],
        [8.0, 8.0, -9.35, 5.6, 6.8, -0.4, 7.3, 6.1],
        [9.9, 9.9, -9.35, 5.2, 7.6, -0.6, 8.2, 5.9],
        [11.4, 11.2, -8.5, 4.95, 8.3, -0.4, 8.9, 5.8],
        [13.2, 11.5, -6.6, 4.85, 9.3, 0.4, 9.6, 5.8],
        [15.5, 11.7, -4.3, 5.05, 10.4, 1.0, 10.4, 5.8],
        [17.5, 13.2, -3.8, 5.6, 12.2, 1.6, 12.0, 6.0],
        [20.5, 16.0, -4.0, 6.6, 14.6, 2.0, 14.0, 6.6],
        [23.5, 17.8, -6.0, 14.0, 16.3, 2.2, 15.5, 8.0],
        [30.0, 24.0, -9.0, 19.0, 20.5, 2.2, 22.0, 10.0],
        [40.0, 34.0, -10.0, 20.0, 34.0, 2.2, 34.0, 10.0],
    ]
)
_RING_CURVES = PchipInterpolator(_RINGS[:, 0], _RINGS[:, 1:])
#: Height b below which clothes and shoulders begin.
BODY_START = 20.5

EYEBALL_CENTRE = np.array([3.12, 0.0, -6.85])
EYEBALL_RADII = np.array([1.6, 1.35, 1.25])
LID_THICKNESS = 0.1


def mirrored(points: Array) -> Array:
    """Points reflected in the head's plane of symmetry."""
    return np.asarray(points * np.r_[-1.0, np.ones(points.shape[-1] - 1)])


def loft(flat: Array) -> Array:
    """The head without face: unrolled coordinates ``(n, 2)`` to positions ``(n, 3)``."""
    a, b = flat.T
    front_y, front_z, side_x, side_y, side_z, back_y, back_z = _RING_CURVES(b).T
    sine, cosine = np.sin(a / UNROLL_RADIUS), np.cos(a / UNROLL_RADIUS)
    ahead = cosine > 0
    end_y, end_z = np.where(ahead, front_y, back_y), np.where(ahead, front_z, back_z)
    fullness = 1 + 0.05 * np.where(ahead, np.abs(cosine) * sine**2, 0.0)
    x = side_x * sine * fullness
    y = side_y + (end_y - side_y) * cosine**2
    z = side_z + (end_z - side_z) * np.abs(cosine) * fullness
    return np.stack([x, y, z], axis=1)


def unroll(front: Array) -> Array:
    """Unrolled coordinates of the points ``(n, 2)`` of the front seen at (x, y)."""
    flat = front.copy()
    for _ in range(60):
        flat += 0.7 * (front - loft(flat)[:, :2])
    return flat


# Broad relief of the face: centre (|x|, y), spread, height towards the viewer.
_RELIEF = (
    ((2.9, -1.75), (2.0, 0.6), 0.35),  # brow ridge
    ((0.0, -1.9), (1.0, 0.7), 0.1),  # glabella
    ((2.6, -0.2), (1.5, 0.8), -0.55),  # eye socket
    ((1.5, 0.2), (0.6, 0.8), -0.35),  # beside the root of the nose
    ((4.9, 2.2), (1.5, 1.1), 0.35),  # cheek bone
    ((3.2, 3.6), (1.6, 1.5), 0.35),  # cheek
    ((0.0, 6.3), (2.4, 1.5), 0.45),  # the teeth under the lips
    ((3.3, 6.6), (0.9, 0.9), -0.15),  # beside the mouth's corners
    ((0.0, 8.35), (1.5, 0.45), -0.35),  # under the lower lip
    ((0.0, 9.9), (1.3, 0.9), 0.5),  # chin
    ((0.0, 5.0), (0.22, 0.5), -0.1),  # philtrum
    ((0.5, 5.0), (0.2, 0.5), 0.06),
    ((5.9, -3.2), (0.9, 1.4), -0.2),  # temple
)

_NOSE_RIDGE = PchipInterpolator(
    [-2.0, -1.2, -0.5, 0.5, 1.5, 2.5, 3.15, 3.6, 4.0, 4.35, 4.7],
    [0.0, 0.05, 0.3, 0.8, 1.3, 1.85, 2.3, 2.15, 1.35, 0.3, 0.0],
)
_NOSE_WIDTH = PchipInterpolator([-2.0, -0.5, 0.8, 2.2, 3.2, 4.7], [0.6, 0.7, 0.75, 0.85, 0.95, 0.9])


def _nose(x: Array, y: Array) -> Array:
    """Height of the nose: its ridge and its wings, merged smoothly."""
    along = np.clip(y, -2.0, 4.7)
    ridge = _NOSE_RIDGE(along) * np.exp(-((np.abs(x) / _NOSE_WIDTH(along)) ** 2.2))
    wing = np.exp(-(np.abs((np.abs(x) - 1.1) / 0.52) ** 3) - (np.abs(y - 3.5) / 0.62) ** 3)
    return np.asarray((np.abs(ridge) ** 3 + wing**3 + 1e-12) ** (1 / 3))


def _ball_depth(x: Array, y: Array) -> Array:
    """Depth of the eyeball's front (+inf beside it)."""
    away = (np.stack([np.abs(x), y], axis=-1) - EYEBALL_CENTRE[:2]) / EYEBALL_RADII[:2]
    square = 1 - np.sum(away**2, axis=-1)
    rise = EYEBALL_RADII[2] * np.sqrt(np.clip(square, 0, None))
    return np.asarray(np.where(square > 0, EYEBALL_CENTRE[2] - rise, np.inf))


def sculpt(flat: Array) -> Array:
    """The head with its face: unrolled coordinates ``(n, 2)`` to positions ``(n, 3)``."""
    points = loft(flat)
    x, y = points[:, 0], points[:, 1]
    front = np.clip(np.cos(flat[:, 0] / UNROLL_RADIUS), 0, 1) * (flat[:, 1] < 12.5)
    height = np.zeros(len(points))
    for at, spread, rise in _RELIEF:
        away = ((np.abs(x) - at[0]) / spread[0]) ** 2 + ((y - at[1]) / spread[1]) ** 2
        height += rise * np.exp(-0.5 * away)
    points[:, 2] -= front * (height + _nose(x, y))
    lids = _ball_depth(x, y) - LID_THICKNESS
    near = (flat[:, 1] < 3) & (points[:, 2] < 0)
    points[:, 2] = np.where(near, _smooth_minimum(points[:, 2], lids), points[:, 2])
    return points


def _smooth_minimum(first: Array, second: Array, softness: float = 0.25) -> Array:
    gap = np.clip(0.5 + 0.5 * (second - first) / softness, 0, 1)
    second = np.where(np.isfinite(second), second, first)
    return np.asarray(second * (1 - gap) + first * gap - softness * gap * (1 - gap))


def smooth_step(t: Array) -> Array:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(t, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def inside(points: Array, polygon: Array) -> npt.NDArray[np.bool_]:
    """Whether each point ``(n, 2)`` lies inside the closed polygon ``(m, 2)``."""
    x, y = points[:, :1], points[:, 1:]
    ax, ay = polygon.T
    bx, by = np.roll(polygon, -1, axis=0).T
    crosses = (ay > y) != (by > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = ax + (y - ay) * (bx - ax) / (by - ay)
    return np.asarray(np.count_nonzero(crosses & (x < at), axis=1) % 2 == 1)
