"""Pose of a rigid 3-D model from its image points.

One convention, stated here once::

    λ x = K (R X + t)

``X`` is a point of the model, ``x`` its image (homogeneous pixels, 0-based pixel centres), ``K``
the camera matrix of fx, fy, cx, cy. The camera frame is x right, y down, z away from the camera,
and ``R = I`` is a frontal face. Under perspective λ is the depth of each point,
``(R X + t)_z``; under scaled orthography it is the same for all points, ``t_z``. The angles of a
rotation are those of :mod:`asmkit.rotations`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from asmkit._check import as_points, as_shapes
from asmkit._weights import as_weights
from asmkit.camera import Camera
from asmkit.pose_covariance import covariances
from asmkit.reference_face import face_reference, face_reference_info, reference_schemes
from asmkit.rotations import euler_to_rotation, rotation_to_euler
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

# Poses a thread takes at least: about a third of a millisecond of work by the plain kernel.
_MIN_CHUNK = 256
# The same for the robust one, whose poses take a hundred times as long.
_MIN_ROBUST_CHUNK = 8


class _Robust(NamedTuple):
    """How a robust pose is found."""

    loss: str
    tuning: float
    """Where the loss leaves the squares, in standard deviations of the noise of a coordinate."""
    sampled: bool


#: Names of robust fits. The tuning constants keep 95 % (Huber) and 98 % (Tukey) of the efficiency
#: of least squares under Gaussian noise in the plane. Tukey's usual 5.1 (95 %) costs more on real
#: faces, whose largest deviations are those of their shape and no errors.
_ROBUST = {"huber": _Robust("huber", 1.5, False), "ransac": _Robust("tukey", 7.0, True)}


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
        ``(n,)``, root of the mean squared distance between given and projected points, in pixels;
        the mean is that of ``weights``.
    success
        ``(n,)``, False where a shape has no pose: fewer than four points of weight, or all of them
        equal, or their points of the reference on one line.
    weights
        ``(n, p)``, how much each point counted in the end: the given weight, times what a robust
        fit leaves of it; 0 for missing points and where there is no pose. None in a pose that was
        not solved from points.
    covariance
        ``(n, 6, 6)`` where it was asked for, else None. The first three coordinates are a small
        turn ω (radians) about the centre c of the reference (the mean of its points) along the
        camera's axes, the last three a shift v in the unit of the reference:
        ``R X + t`` becomes ``exp(ω) R (X - c) + R c + t + v``. So ω and v are those of R and t
        where the reference is centred. Under scaled orthography v_z changes the scale alone.
    """

    rotation: Array
    translation: Array
    reprojection_error: Array
    success: npt.NDArray[np.bool_]
    weights: Array | None = None
    covariance: Array | None = None

    def __len__(self) -> int:
        return len(self.rotation)

    @property
    def inliers(self) -> npt.NDArray[np.bool_]:
        """Points ``(n, p)`` that had a say in the pose: those whose weight is not 0.

        A missing point is none, nor one that ``robust="ransac"`` takes for wrong. (``"huber"``
        gives wrong points little weight, but never none.)

        Raises
        ------
        ValueError
            The pose was not solved from points.
        """
        if self.weights is None:
            raise ValueError("inliers: this pose was not solved from points by solve_pnp")
        return self.weights > 0

    def euler(self, convention: str = "aflw") -> Array:
        """Angles ``(n, 3)`` in degrees as yaw, pitch, roll; see :func:`rotation_to_euler`."""
        return rotation_to_euler(self.rotation, convention)

    def project(self, reference: npt.ArrayLike, camera: Camera) -> Array:
        """Image points ``(n, p, 2)`` of a reference ``(p, 3)`` in these poses."""
        X = as_points(reference, "reference", n_dims=3)
        P = X @ self.rotation.transpose(0, 2, 1) + self.translation[:, None]
        depth = self.translation[:, None, 2:] if camera.is_orthographic else P[..., 2:]
        return camera.pixels(P[..., :2] / depth)


def solve_pnp(
    points: npt.ArrayLike,
    reference: npt.ArrayLike,
    camera: Camera,
    *,
    weights: npt.ArrayLike | None = None,
    robust: str | None = None,
    noise: float | None = None,
    covariance: bool = False,
    n_samples: int = 200,
    seed: int = 0,
) -> Pose:
    """Poses that minimise the reprojection error of a rigid reference, all shapes in one call.

    Minimises ``sum_j w_j |x_j - K (R X_j + t) / λ|²``, in pixels, over rotations and translations
    with every point in front of the camera. The start is the weak-perspective pose along the ray to
    the shape's centre, from the best affine image of the reference; Gauss-Newton steps follow,
    damped (Levenberg-Marquardt) wherever they would raise the error, to convergence. A shape may
    look much alike from two poses, mirrored in depth: where the noise leaves that open both are
    refined, and the better one is returned. A flat reference under scaled orthography has two
    *equally* good poses, of which one is returned.

    Least squares follow a single wrong point wherever it goes. With ``robust`` the squares are
    replaced by a loss that grows more slowly from some multiple of the noise on: ``"huber"`` makes
    it grow linearly, from the least-squares pose, which bears a few points that are off.
    ``"ransac"`` bounds it (Tukey's biweight): points anywhere, up to about 40 % of them, then have
    next to no influence. Its start is the pose that half of the points agree on best, among those
    of random minimal sets (four points, scaled orthography) and their refinements. (RANSAC with a
    threshold that nobody has to know: the least median of squares, then an M-estimate.)

    Parameters
    ----------
    points
        ``(n, p, 2)`` image points. All is computed and returned in float64. Missing (NaN) points
        are left out.
    reference
        ``(p, 3)``, p >= 4 and not all on one line. (Four points sometimes have a local minimum
        that is not the best one; from six on none was met.)
    camera
        Perspective, or :meth:`Camera.orthographic`.
    weights
        ``(p,)`` or ``(n, p)``, finite, at least 0. A point of weight 0 does not count, one of
        weight 2 counts as two. Only their ratios within a shape matter to its pose.
    robust
        None (least squares), ``"huber"`` or ``"ransac"``.
    noise
        Standard deviation in pixels of each coordinate of a point (of weight 1), for the robust
        losses and the covariance. By default it is estimated for each shape from its own points.
    covariance
        Also give :attr:`Pose.covariance`, of first order in the noise: that of Gauss-Newton at the
        solution. It takes the noise for independent between points, with variances inverse to the
        weights. Where a reference does not have the true proportions of what is seen, its misfit is
        part of the noise.
    n_samples
        Minimal sets that ``"ransac"`` tries for each shape. With a share of ε wrong points a set is
        free of them with probability ``(1 - ε)⁴``.
    seed
        Chooses the sets, which are the same for all shapes: the same input gives the same pose.

    Returns
    -------
    Pose
        ``success`` is False, and the rest NaN, for shapes that determine no pose.

    Raises
    ------
    ValueError
        Wrong shapes, infinite values, fewer than four points, a reference on one line, weights that
        are negative or not finite, a noise or a number of samples that is not positive, an unknown
        robust fit.
    TypeError
        ``camera`` is no :class:`Camera`.
    """
    if not isinstance(camera, Camera):
        raise TypeError(f"camera: got {type(camera).__name__}, expected asmkit.Camera")
    if robust is not None and robust not in _ROBUST:
        raise ValueError(f"robust: got {robust!r}, expected None or one of {sorted(_ROBUST)}")
    if noise is not None and not 0 < noise < math.inf:
        raise ValueError(f"noise: got {noise}, expected a positive number of pixels")
    if n_samples < 1:
        raise ValueError(f"n_samples: got {n_samples}, expected at least 1")
    X = as_points(reference, "reference", n_dims=3).astype(np.float64)
    given = as_shapes(points, "points", n_points=len(X), n_dims=2, allow_nan=True)
    # One layout for the kernels, whatever came: a read-only array would compile a second kernel.
    x: Array = np.require(given, np.float64, ("C", "A", "W"))
    problem = _Problem(camera, X)
    prior = None if weights is None else as_weights(weights, x)
    if robust is not None:
        prior = as_weights(None, x) if prior is None else prior
        draws = np.random.default_rng(seed).random((n_samples, 4))
        solved = problem.robust(x, prior, _ROBUST[robust], draws, noise or 0.0)
    elif prior is not None:
        solved = problem.weighted(x, prior)
    else:
        solved = problem.plain(x)
    R, t, rms, counted = solved
    spread = None
    if covariance:
        loss = None if robust is None else _ROBUST[robust].loss
        q = np.broadcast_to(1.0, counted.shape) if prior is None else prior
        spread = covariances(x, X, camera, R, t, q, counted, noise, loss)
    return Pose(R, t, rms, np.isfinite(rms), counted, spread)


_Solved = tuple[Array, Array, Array, Array]


class _Problem:
    """A camera and a reference as the kernels want them."""

    def __init__(self, camera: Camera, X: Array) -> None:
        ratio = (camera.fy / camera.fx) ** 2
        intrinsics = (camera.fx, camera.fy, camera.cx, camera.cy)
        self.lens = np.array([*intrinsics, ratio, not camera.is_orthographic], dtype=np.float64)
        self.model, self.present, self.moments, self.radius, self.back = _principal_frame(X)

    # numba takes half a second to import: only those who solve poses pay for it, and those who
    # solve them in one way do not wait until the other ways are compiled.

    def plain(self, x: Array) -> _Solved:
        from asmkit._kernels.pnp import solve

        R, t, rms = _room(len(x))

        def work(start: int, stop: int) -> None:
            fixed = (self.model, self.present, self.moments, self.radius, self.back)
            solve(x, self.lens, *fixed, start, stop, R, t, rms)

        run_chunks(work, len(x), _MIN_CHUNK)
        failed = np.flatnonzero(np.isnan(rms))
        if not failed.size:
            return R, t, rms, np.broadcast_to(1.0, x.shape[:2])
        # A shape is solved alike, bit for bit, whether or not others miss points.
        counted = np.ones(x.shape[:2])
        again = self.weighted(x[failed], as_weights(None, x[failed]))
        incomplete = np.isnan(x[failed]).any(axis=(1, 2))
        for array, found in zip((R, t, rms, counted), again, strict=True):
            array[failed[incomplete]] = found[incomplete]
        counted[failed[~incomplete]] = 0.0
        return R, t, rms, counted

    def weighted(self, x: Array, prior: Array) -> _Solved:
        from asmkit._kernels.weighted_pnp import solve_weighted

        R, t, rms = _room(len(x))

        def work(start: int, stop: int) -> None:
            solve_weighted(x, prior, self.lens, self.model, self.back, start, stop, R, t, rms)

        run_chunks(work, len(x), _MIN_CHUNK)
        return R, t, rms, np.where(np.isnan(rms)[:, None], 0.0, prior)

    def robust(self, x: Array, prior: Array, how: _Robust, draws: Array, noise: float) -> _Solved:
        from asmkit._kernels import weighted_pnp

        kind = {"huber": weighted_pnp.HUBER, "tukey": weighted_pnp.TUKEY}[how.loss]
        chosen = draws if how.sampled else draws[:0]
        R, t, rms = _room(len(x))
        counted = np.empty_like(prior)

        def work(start: int, stop: int) -> None:
            weighted_pnp.solve_robust(
                *(x, prior, self.lens, self.model, self.back, chosen, kind, how.tuning, noise),
                *(start, stop, R, t, rms, counted),
            )

        run_chunks(work, len(x), _MIN_ROBUST_CHUNK)
        return R, t, rms, counted


def _room(n: int) -> tuple[Array, Array, Array]:
    return np.empty((n, 3, 3)), np.empty((n, 3)), np.empty(n)


def head_rotations(points: npt.ArrayLike, scheme: str | None) -> Array:
    """Pose labels of annotated landmarks: their scaled-orthographic pose.

    A crop keeps this pose, whatever the camera of the photo was.

    Parameters
    ----------
    points
        ``(n, p, 2)``; missing (NaN) points are left out.
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
