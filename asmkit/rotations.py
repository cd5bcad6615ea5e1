"""Rotations and the angles in which heads are measured.

Angles are those of the 300W-LP/AFLW2000 literature, whose frame has y up and z towards the camera::

    R = F R_aflw F,   F = diag(1, -1, -1),   R_aflw = Rx(pitch) Ry(-yaw) Rz(roll)

         | 1    0      0   |        | cos a  0  -sin a |        |  cos a  sin a  0 |
    Rx = | 0   cos a sin a |   Ry = |   0    1     0   |   Rz = | -sin a  cos a  0 |
         | 0  -sin a cos a |        | sin a  0   cos a |        |    0      0    1 |

A mirrored face has ``(-yaw, pitch, -roll)``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["euler_to_rotation", "rotation_to_euler"]

Array = npt.NDArray[np.float64]


def rotation_to_euler(rotation: npt.ArrayLike, convention: str = "aflw") -> Array:
    """Angles ``(..., 3)`` in degrees as yaw, pitch, roll of rotations ``(..., 3, 3)``.

    ``convention="aflw"`` is ``R = F Rx(pitch) Ry(-yaw) Rz(roll) F`` with ``F = diag(1, -1, -1)``,
    the matrices on top of this module: the angles of 300W-LP and AFLW2000-3D. Yaw is in
    [-90, 90]. Positive yaw turns the nose to the image's right (the subject's left), positive pitch
    turns it up, positive roll turns the head clockwise in the image. At a yaw of ±90° only the sum
    or the difference of pitch and roll is defined, and roll is set to 0.

    Raises
    ------
    ValueError
        The last two axes are not 3 x 3, or the convention is unknown.
    """
    R = np.asarray(rotation, dtype=np.float64)
    if R.shape[-2:] != (3, 3):
        raise ValueError(f"rotation: got shape {R.shape}, expected (..., 3, 3)")
    return np.degrees(_known(convention)[0](R))


def euler_to_rotation(angles_deg: npt.ArrayLike, convention: str = "aflw") -> Array:
    """Rotations ``(..., 3, 3)`` of angles ``(..., 3)``, degrees as yaw, pitch, roll.

    The inverse of :func:`rotation_to_euler`, which states the conventions.

    Raises
    ------
    ValueError
        The last axis does not hold three angles, or the convention is unknown.
    """
    angles = np.asarray(angles_deg, dtype=np.float64)
    if angles.shape[-1:] != (3,):
        raise ValueError(f"angles_deg: got shape {angles.shape}, expected (..., 3)")
    return _known(convention)[1](np.radians(angles))


def _aflw_angles(R: Array) -> Array:
    across = np.hypot(R[..., 0, 0], R[..., 0, 1])
    # Near ±90° the entries that tell pitch from roll vanish into rounding.
    locked = across < 1e-8
    yaw = np.arctan2(-R[..., 0, 2], across)
    together = np.arctan2(R[..., 1, 0], R[..., 1, 1]) * np.where(yaw < 0, -1.0, 1.0)
    pitch = np.where(locked, together, np.arctan2(R[..., 1, 2], R[..., 2, 2]))
    roll = np.where(locked, 0.0, np.arctan2(-R[..., 0, 1], R[..., 0, 0]))
    return np.stack([yaw, pitch, roll], axis=-1)


def _aflw_rotation(angles: Array) -> Array:
    cy, cp, cr = np.moveaxis(np.cos(angles), -1, 0)
    sy, sp, sr = np.moveaxis(np.sin(angles), -1, 0)
    entries = [
        *(cy * cr, -cy * sr, -sy),
        *(sp * sy * cr + cp * sr, cp * cr - sp * sy * sr, sp * cy),
        *(cp * sy * cr - sp * sr, -cp * sy * sr - sp * cr, cp * cy),
    ]
    return np.stack(entries, axis=-1).reshape(*angles.shape[:-1], 3, 3)


_Conversion = tuple[Callable[[Array], Array], Callable[[Array], Array]]
#: Names of Euler conventions: (rotation to yaw, pitch, roll in radians; the inverse).
_CONVENTIONS: dict[str, _Conversion] = {"aflw": (_aflw_angles, _aflw_rotation)}


def _known(convention: str) -> _Conversion:
    if convention not in _CONVENTIONS:
        raise ValueError(f"convention: got {convention!r}, expected one of {sorted(_CONVENTIONS)}")
    return _CONVENTIONS[convention]
