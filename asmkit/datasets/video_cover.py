"""The objects that pass before the faces of a synthetic video."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["Cover", "sample_cover"]

Array = npt.NDArray[np.float64]
Float32s = npt.NDArray[np.float32]

_PLATE, _RIM = 96, 2  # texels along a side, of which those at the rim are empty


@dataclass(frozen=True, eq=False)
class Cover:
    """A flat board or disc.

    Attributes
    ----------
    half : (2,) half its width and height in pixels.
    axes : (2, 2) unit vectors along its width and height, as rows.
    round : whether it is an ellipse, not a rectangle.
    plate : (rows, columns, 4) its colours, times its coverage, which comes last.
    """

    half: Array
    axes: Array
    round: bool
    plate: Float32s

    def hides(self, points: Array, centre: Array) -> npt.NDArray[np.bool_]:
        """Which points ``(..., 2)`` it covers when its middle is at ``centre`` (..., 2)."""
        inside = np.abs((points - centre) @ self.axes.T) / self.half
        return np.asarray(_reaches(inside, self.round) <= 1)

    def paint(self, image: Float32s, centre: Array) -> None:
        """Draw it over an image ``(h, w, 3)``."""
        height, width = image.shape[:2]
        extent = np.abs(self.axes.T) @ self.half + 3
        low = np.clip(np.floor(centre - extent), 0, [width, height]).astype(np.int64)
        high = np.clip(np.ceil(centre + extent) + 1, 0, [width, height]).astype(np.int64)
        if (high <= low).any():
            return
        texels = self.axes * ((_PLATE / 2 - _RIM) / self.half)[:, None]
        origin = texels @ (low - centre) + (_PLATE - 1) / 2
        seen = cv2.warpAffine(
            self.plate,
            np.column_stack([texels, origin]),
            tuple(map(int, high - low)),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        tile = image[low[1] : high[1], low[0] : high[0]]
        tile *= 1 - seen[..., 3:]
        tile += seen[..., :3]


def _reaches(inside: Array, is_round: bool) -> Array:
    """How far out points lie whose coordinates are in halves; 1 is the edge."""
    return np.asarray(np.hypot(inside[..., 0], inside[..., 1]) if is_round else inside.max(axis=-1))


def sample_cover(rng: np.random.Generator, radius: float) -> Cover:
    """A random object that hides a disc of a radius, plain or patterned."""
    is_round = bool(rng.random() < 0.4)
    half = radius * rng.uniform(1.0, 1.25, 2)
    angle = rng.uniform(0, np.pi)
    axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    colour, cells = rng.uniform(0.08, 0.85, 3), int(rng.integers(3, 9))
    strength = rng.choice([0.0, 1.0]) * rng.uniform(0.05, 0.25)
    grid = colour + strength * rng.normal(size=(cells, cells, 1)) * rng.uniform(0.5, 1, 3)
    pattern = cv2.resize(grid.clip(0, 1).astype(np.float32), (_PLATE,) * 2)
    at = np.abs((np.arange(_PLATE) - (_PLATE - 1) / 2) / (_PLATE / 2 - _RIM))
    out = _reaches(np.stack(np.meshgrid(at, at), axis=-1), is_round)
    alpha = ((1 - out) * (_PLATE / 2) + 0.5).clip(0, 1).astype(np.float32)[..., None]
    return Cover(half, axes, is_round, np.concatenate([pattern * alpha, alpha], axis=2))
