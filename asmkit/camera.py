"""Cameras: how points in front of one become points of its image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["Camera"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """Focal lengths and principal point, in pixels, of a camera without distortion.

    Parameters
    ----------
    fx, fy
        Focal lengths, positive.
    cx, cy
        Principal point, 0-based pixel centres.
    is_orthographic
        Scaled orthography (see :meth:`orthographic`); needs ``fx == fy``.

    Raises
    ------
    ValueError
        A focal length is not positive, a number is not finite, or an orthographic camera has two
        different focal lengths.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    is_orthographic: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) for v in (self.fx, self.fy, self.cx, self.cy)):
            raise ValueError(f"camera: got {self}, expected finite numbers")
        if not (self.fx > 0 and self.fy > 0):
            raise ValueError(f"camera: got focal lengths {self.fx} and {self.fy}, expected > 0")
        if self.is_orthographic and self.fx != self.fy:
            raise ValueError(
                f"camera: an orthographic camera has one scale, got fx = {self.fx} and "
                f"fy = {self.fy}; give both the same value"
            )

    @classmethod
    def orthographic(cls) -> Camera:
        """Scaled orthography: ``x = (R X + t)_xy / t_z``, the depth of a face left out.

        It is the only camera here whose rotations stay the same when an image is cropped, shifted
        or resized, so it needs no knowledge of the original photograph and makes the pose labels of
        face crops. ``1 / t_z`` is the scale in pixels a unit of the model; a change of the crop
        changes ``t`` alone.
        """
        return cls(1.0, 1.0, 0.0, 0.0, is_orthographic=True)

    @classmethod
    def default(cls, width: float, height: float) -> Camera:
        """Guess for a whole, uncropped photograph: focal length of its longer side, centred.

        That is a horizontal view of 53° for a landscape format. Under a wrong focal length mainly
        the distance is wrong; the angles of a face away from the centre move by a few degrees.
        """
        if not (width > 0 and height > 0):
            raise ValueError(f"image size: got {width} x {height}, expected positive numbers")
        focal = float(max(width, height))
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2)

    def project(self, points: npt.ArrayLike) -> Array:
        """Image points ``(..., p, 2)`` of points ``(..., p, 3)`` in a *perspective* camera frame.

        Raises
        ------
        ValueError
            The camera is orthographic: its scale belongs to a pose, see
            :meth:`asmkit.Pose.project`.
        """
        if self.is_orthographic:
            raise ValueError("an orthographic camera has no scale of its own: use Pose.project")
        P = np.asarray(points, dtype=np.float64)
        return self.pixels(P[..., :2] / P[..., 2:])

    def pixels(self, x: Array) -> Array:
        """Pixels ``(..., 2)`` of image points ``(..., 2)`` of a camera with ``K = I``."""
        return x * (self.fx, self.fy) + (self.cx, self.cy)
