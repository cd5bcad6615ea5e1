"""Pose of a rigid 3-D model from its image points, and the model of a face to use with it.

One convention, stated here once::

    λ x = K (R X + t)

``X`` is a point of the model, ``x`` its image (homogeneous pixels, 0-based pixel centres), ``K``
the camera matrix of fx, fy, cx, cy. The camera frame is x right, y down, z away from the camera,
and ``R = I`` is a frontal face. Under perspective λ is the depth of each point,
``(R X + t)_z``; under scaled orthography it is the same for all points, ``t_z``.

Angles are those of the 300W-LP/AFLW2000 literature, whose frame has y up and z towards the camera::

    R = F R_aflw F,   F = diag(1, -1, -1),   R_aflw = Rx(pitch) Ry(-yaw) Rz(roll)

         | 1    0      0   |        | cos a  0  -sin a |        |  cos a  sin a  0 |
    Rx = | 0   cos a sin a |   Ry = |   0    1     0   |   Rz = | -sin a  cos a  0 |
         | 0  -sin a cos a |        | sin a  0   cos a |        |    0      0    1 |

A mirrored face has ``(-yaw, pitch, -roll)``.
"""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asmkit._check import as_points, as_shapes
from asmkit.threads import run_chunks

__all__ = [
    "Camera",
    "Pose",
    "euler_to_rotation",
    "face_reference",
    "face_reference_info",
    "head_rotations",
    "reference_schemes",
    "rotation_to_euler",
    "solve_pnp",
]

Array = npt.NDArray[np.float64]

_REFERENCES = Path(__file__).parent / "references"
# Poses a thread takes at least: about a third of a millisecond of work.
_MIN_CHUNK = 256


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
            The camera is orthographic: its scale belongs to a pose, see :meth:`Pose.project`.
        """
        if self.is_orthographic:
            raise ValueError("an orthographic camera has no scale of its own: use Pose.project")
        P = np.asarray(points, dtype=np.float64)
        return self._pixels(P[..., :2] / P[..., 2:])

    def _pixels(self, x: Array) -> Array:
        return x * (self.fx, self.fy) + (self.cx, self.cy)


@dataclass(frozen=True, eq=False)
class Pose:
    """Poses of n shapes, as :func:`solve_pnp` finds them; NaN in every array where it failed.

    Attributes
    ----------
    rotation
        ``(n, 3, 3)``, orthonormal with determinant +1.
    translation
        ``(n, 3)``, in the unit of the reference.
    reprojection_error
        ``(n,)``, root of the mean squared distance between given and projected points, in pixels.
    success
        ``(n,)``, False where a shape has no pose: missing (NaN) or all-equal points.
    """

    rotation: Array
    translation: Array
    reprojection_error: Array
    success: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rotation)

    def euler(self, convention: str = "aflw") -> Array:
        """Angles ``(n, 3)`` in degrees as yaw, pitch, roll; see :func:`rotation_to_euler`."""
        return rotation_to_euler(self.rotation, convention)

    def project(self, reference: npt.ArrayLike, camera: Camera) -> Array:
        """Image points ``(n, p, 2)`` of a reference ``(p, 3)`` in these poses."""
        X = as_points(reference, "reference", n_dims=3)
        P = X @ self.rotation.transpose(0, 2, 1) + self.translation[:, None]
        depth = self.translation[:, None, 2:] if camera.is_orthographic else P[..., 2:]
        return camera._pixels(P[..., :2] / depth)


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


def face_reference(scheme: str = "ibug68") -> Array:
    """3-D face ``(p, 3)`` in a landmark scheme, to give to :func:`solve_pnp`.

    Centred (zero mean), exactly mirror-symmetric in x, x right, y down, z away from the camera
    (the nose is negative); the distance of the outer eye corners is 1. With
    :meth:`Camera.orthographic` its angles follow the AFLW2000-3D labels.

    It is an *estimate of a mean face shape*, computed from the published landmarks and angles of
    AFLW2000-3D (the even-numbered rows of a table of 1000 of its faces), and no scan of anybody:
    its z is as good as those labels, which are themselves the fit of a face model. AFLW2000-3D is
    distributed by its authors for research: see :func:`face_reference_info` for the full record.

    Raises
    ------
    ValueError
        No reference is known for this scheme.
    """
    return np.array(_reference_record(scheme)["points"], dtype=np.float64)


def face_reference_info(scheme: str = "ibug68") -> dict[str, Any]:
    """Record of :func:`face_reference`: source, licence, method, rows, accuracy, units."""
    record = copy.deepcopy(_reference_record(scheme))
    del record["points"]
    return record


def reference_schemes() -> list[str]:
    """Names of the landmark schemes that :func:`face_reference` knows."""
    return sorted(path.stem for path in _REFERENCES.glob("*.json"))


@functools.cache
def _reference_record(scheme: str) -> dict[str, Any]:
    known = reference_schemes()
    if scheme not in known:
        raise ValueError(f"scheme: no reference face for {scheme!r}, expected one of {known}")
    text = (_REFERENCES / f"{scheme}.json").read_text(encoding="utf-8")
    record: dict[str, Any] = json.loads(text)
    return record


def solve_pnp(points: npt.ArrayLike, reference: npt.ArrayLike, camera: Camera) -> Pose:
    """Poses that minimise the reprojection error of a rigid reference, all shapes in one call.

    Minimises ``sum_j |x_j - K (R X_j + t) / λ|²``, in pixels, over rotations and translations with
    every point in front of the camera. The start is the weak-perspective pose along the ray to the
    shape's centre, from the best affine image of the reference; Gauss-Newton steps follow, damped
    (Levenberg-Marquardt) wherever they would raise the error, to convergence. A shape may look much
    alike from two poses, mirrored in depth: where the noise leaves that open both are refined, and
    the better one is returned. A flat reference under scaled orthography has two *equally* good
    poses, of which one is returned.

    Parameters
    ----------
    points
        ``(n, p, 2)`` image points. All is computed and returned in float64. A shape with a missing
        (NaN) point has no pose.
    reference
        ``(p, 3)``, p >= 4 and not all on one line. (Four points sometimes have a local minimum
        that is not the best one; from six on none was met.)
    camera
        Perspective, or :meth:`Camera.orthographic`.

    Returns
    -------
    Pose
        ``success`` is False, and the rest NaN, for shapes that determine no pose.

    Raises
    ------
    ValueError
        Wrong shapes, infinite values, fewer than four points, a reference on one line.
    TypeError
        ``camera`` is no :class:`Camera`.
    """
    # numba takes half a second to import: only those who solve poses pay for it.
    from asmkit._kernels.pnp import solve

    if not isinstance(camera, Camera):
        raise TypeError(f"camera: got {type(camera).__name__}, expected asmkit.Camera")
    X = as_points(reference, "reference", n_dims=3).astype(np.float64)
    x = as_shapes(points, "points", n_points=len(X), n_dims=2, allow_nan=True)
    # One layout for the kernel, whatever came: a read-only array would compile a second kernel.
    x = np.require(x, np.float64, ("C", "A", "W"))
    model, present, moments, radius, back = _principal_frame(X)
    ratio = (camera.fy / camera.fx) ** 2
    intrinsics = (camera.fx, camera.fy, camera.cx, camera.cy)
    lens = np.array([*intrinsics, ratio, not camera.is_orthographic], dtype=np.float64)
    n = len(x)
    R, t, rms = np.empty((n, 3, 3)), np.empty((n, 3)), np.empty(n)

    def work(start: int, stop: int) -> None:
        solve(x, lens, model, present, moments, radius, back, start, stop, R, t, rms)

    run_chunks(work, n, _MIN_CHUNK)
    return Pose(R, t, rms, np.isfinite(rms))


def head_rotations(points: npt.ArrayLike, scheme: str | None) -> Array:
    """Pose labels of annotated landmarks: their scaled-orthographic pose.

    A crop keeps this pose, whatever the camera of the photo was.

    Parameters
    ----------
    points
        ``(n, p, 2)``.
    scheme
        Name of the landmark scheme, where it has one.

    Returns
    -------
    ndarray
        ``(n, 3, 3)``; NaN where the scheme has no reference face or the landmarks have no pose.
    """
    if scheme not in reference_schemes():
        return np.full((len(np.asarray(points)), 3, 3), np.nan)
    return solve_pnp(points, face_reference(scheme), Camera.orthographic()).rotation


def _principal_frame(X: Array) -> tuple[Array, Array, Array, float, Array]:
    """Model (3, q) in its principal frame, its true columns (q,), moments, radius, way back (5, 3).

    Columns of zeros make q a multiple of 8: the kernel's loops then have no remainder.
    """
    if len(X) < 4:
        raise ValueError(f"reference: got {len(X)} points, expected at least 4")
    centre = X.mean(axis=0)
    unit = math.sqrt(((X - centre) ** 2).sum(axis=1).mean())
    if unit == 0.0:
        raise ValueError("reference: all points are equal; expected points not on one line")
    _, _, axes = np.linalg.svd((X - centre) / unit, full_matrices=False)
    axes[2] *= np.sign(np.linalg.det(axes))
    model = np.ascontiguousarray(axes @ ((X - centre) / unit).T)
    moments = (model**2).mean(axis=1)
    if moments[1] < 1e-12:
        raise ValueError("reference: all points are on one line, around which any turn looks equal")
    radius = math.sqrt((model**2).sum(axis=0).max())
    back = np.array([*axes.T, np.full(3, unit), centre])
    padding = -len(X) % 8
    present = np.pad(np.ones(len(X)), (0, padding))
    return np.pad(model, ((0, 0), (0, padding))), present, moments, radius, back
