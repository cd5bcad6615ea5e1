"""Pose of a rigid 3-D reference from its image points.

One convention: ``λ x = K (R X + t)`` with the camera frame x right, y down, z away from the camera.
``R = I`` is a frontal face.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asmkit._check import as_points, as_shapes

__all__ = [
    "Camera",
    "Pose",
    "euler_to_rotation",
    "face_reference",
    "face_reference_info",
    "rotation_to_euler",
    "solve_pnp",
]

Array = npt.NDArray[np.float64]
_REFERENCES = Path(__file__).parent / "references"


@dataclass(frozen=True)
class Camera:
    """Intrinsics."""

    fx: float
    fy: float
    cx: float
    cy: float
    is_orthographic: bool = field(default=False, kw_only=True)

    @classmethod
    def orthographic(cls) -> Camera:
        """Scaled orthography."""
        return cls(1.0, 1.0, 0.0, 0.0, is_orthographic=True)

    @classmethod
    def default(cls, width: float, height: float) -> Camera:
        """Guess for an image of unknown camera."""
        focal = float(max(width, height))
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2)


@dataclass(frozen=True, eq=False)
class Pose:
    """Result of solve_pnp."""

    rotation: Array
    translation: Array
    reprojection_error: Array
    success: npt.NDArray[np.bool_]

    def euler(self, convention: str = "aflw") -> Array:
        """Yaw, pitch, roll in degrees (n, 3)."""
        return rotation_to_euler(self.rotation, convention)


def rotation_to_euler(rotation: npt.ArrayLike, convention: str = "aflw") -> Array:
    """Yaw, pitch, roll in degrees of rotations (..., 3, 3)."""
    R = np.asarray(rotation, dtype=np.float64)
    yaw = np.arctan2(-R[..., 0, 2], np.hypot(R[..., 0, 0], R[..., 0, 1]))
    pitch = np.arctan2(R[..., 1, 2], R[..., 2, 2])
    roll = np.arctan2(-R[..., 0, 1], R[..., 0, 0])
    return np.degrees(np.stack([yaw, pitch, roll], -1))


def euler_to_rotation(angles_deg: npt.ArrayLike, convention: str = "aflw") -> Array:
    """Rotations (..., 3, 3) of yaw, pitch, roll in degrees (..., 3)."""
    yaw, pitch, roll = np.moveaxis(np.radians(np.asarray(angles_deg, dtype=np.float64)), -1, 0)
    cy, sy = np.cos(yaw), np.sin(yaw)
    cp, sp = np.cos(pitch), np.sin(pitch)
    cr, sr = np.cos(roll), np.sin(roll)
    # F Rx(pitch) Ry(-yaw) Rz(roll) F
    rows = [
        [cy * cr, -cy * sr, -sy],
        [sp * sy * cr + cp * sr, -sp * sy * sr + cp * cr, sp * cy],
        [cp * sy * cr - sp * sr, -cp * sy * sr - sp * cr, cp * cy],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def face_reference_info(scheme: str = "ibug68") -> dict[str, Any]:
    """How the reference face was made."""
    path = _REFERENCES / f"{scheme}.json"
    if not path.is_file():
        known = sorted(p.stem for p in _REFERENCES.glob("*.json"))
        raise ValueError(f"scheme: got {scheme!r}, expected one of {known}")
    info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return info


def face_reference(scheme: str = "ibug68") -> Array:
    """3-D reference face (p, 3)."""
    return np.array(face_reference_info(scheme)["points"], dtype=np.float64)


def solve_pnp(points: npt.ArrayLike, reference: npt.ArrayLike, camera: Camera) -> Pose:
    """Poses of n faces."""
    X = as_points(reference, "reference", n_dims=3).astype(np.float64)
    x = as_shapes(points, "points", n_points=len(X), n_dims=2, allow_nan=True).astype(np.float64)
    if not camera.is_orthographic:
        raise NotImplementedError("perspective is on its way")
    return _orthographic(x, X)


def _orthographic(x: Array, X: Array) -> Pose:
    mean = X.mean(0)
    Xc = X - mean
    u = x.mean(1)
    W = np.einsum("npi,pj->nij", x - u[:, None], Xc)
    M = Xc.T @ Xc
    A = W @ np.linalg.inv(M)
    with np.errstate(all="ignore"):
        bad = ~np.isfinite(A).all((1, 2)) | (np.abs(A).max((1, 2)) < 1e-12)
        A[bad] = np.eye(2, 3)
        W[bad] = np.eye(2, 3) @ M
        U, _, Vt = np.linalg.svd(A, full_matrices=False)
    R = np.empty((len(x), 3, 3))
    R[:, :2] = U @ Vt
    R[:, 2] = np.cross(R[:, 0], R[:, 1])
    for _ in range(30):
        s = (R[:, :2] * W).sum((1, 2)) / np.einsum("nij,jk,nik->n", R[:, :2], M, R[:, :2])
        D = s[:, None, None] * R[:, :2] @ M - W  # gradient wrt s R2
        H = np.zeros((len(x), 4, 4))
        B = np.zeros((len(x), 4, 2, 3))
        for k, e in enumerate(np.eye(3)):
            K = np.array([[0, -e[2], e[1]], [e[2], 0, -e[0]], [-e[1], e[0], 0]])
            B[:, k] = s[:, None, None] * (K @ R)[:, :2]
        B[:, 3] = R[:, :2]
        H = np.einsum("naij,jk,nbik->nab", B, M, B)
        g = np.einsum("naij,nij->na", B, D)
        step = -np.linalg.solve(H + 1e-14 * np.eye(4), g[..., None])[..., 0]
        R = _exp(step[:, :3]) @ R
    s = (R[:, :2] * W).sum((1, 2)) / np.einsum("nij,jk,nik->n", R[:, :2], M, R[:, :2])
    t2 = u - s[:, None] * (R[:, :2] @ mean)
    t = np.concatenate([t2, np.ones_like(s)[:, None]], 1) / s[:, None]
    r = x - s[:, None, None] * (X @ R[:, :2].transpose(0, 2, 1)) - t2[:, None]
    rms = np.sqrt((r**2).sum(2).mean(1))
    R[bad], t[bad], rms[bad] = np.nan, np.nan, np.nan
    return Pose(R, t, rms, ~bad)


def _exp(w: Array) -> Array:
    angle = np.linalg.norm(w, axis=1)
    K = np.zeros((len(w), 3, 3))
    K[:, 0, 1], K[:, 0, 2], K[:, 1, 2] = -w[:, 2], w[:, 1], -w[:, 0]
    K -= K.transpose(0, 2, 1)
    a = np.sinc(angle / np.pi)[:, None, None]
    b = (0.5 * np.sinc(angle / 2 / np.pi) ** 2)[:, None, None]
    return np.asarray(np.eye(3) + a * K + b * K @ K)
