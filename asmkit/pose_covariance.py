"""How far a pose may be off: its covariance, of first order in the noise of the points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from asmkit.camera import Camera

__all__ = ["covariances"]

Array = npt.NDArray[np.float64]

# Shapes whose Jacobians are held at a time: about 4 MB of them for 68 points.
_CHUNK = 512


def covariances(
    points: Array,
    reference: Array,
    camera: Camera,
    rotation: Array,
    translation: Array,
    prior: Array,
    counted: Array,
    noise: float | None,
    loss: str | None,
) -> Array:
    """Covariances ``(n, 6, 6)`` of poses, in the coordinates of :attr:`asmkit.Pose.covariance`.

    Parameters
    ----------
    points, reference
        ``(n, p, 2)`` and ``(p, 3)``.
    rotation, translation
        The poses that were found, ``(n, 3, 3)`` and ``(n, 3)``.
    prior
        Given weights ``(n, p)``: the noise of a point has a variance inverse to its weight.
    counted
        Weights ``(n, p)`` in the end, 0 for points that do not count.
    noise
        Standard deviation of a coordinate of weight 1, in pixels; None: from the residuals.
    loss
        None, ``"huber"`` or ``"tukey"``.

    Returns
    -------
    ndarray
        NaN where there is no pose, or where the points leave some direction undetermined.
    """
    result = np.empty((len(points), 6, 6))
    for start in range(0, len(points), _CHUNK):
        rows = slice(start, start + _CHUNK)
        J, e = _jacobian(points[rows], reference, camera, rotation[rows], translation[rows])
        used = counted[rows] > 0
        q = np.where(used, prior[rows], 0.0)
        share = np.divide(counted[rows], q, out=np.zeros_like(q), where=used)
        e = np.where(used, e, 0.0)
        J = np.where(used[:, :, None, None], J, 0.0)
        variance = _variance(e, q, share, noise, loss)
        inverse = _inverse(np.einsum("npdi,np,npdj->nij", J, q, J, optimize=True))
        result[rows] = variance[:, None, None] * inverse
    return result


def _jacobian(x: Array, X: Array, camera: Camera, R: Array, t: Array) -> tuple[Array, Array]:
    """Derivatives (n, p, 2, 6) of the image points in pixels, and squared residuals (n, p)."""
    centre = X.mean(axis=0)
    Y = (X - centre) @ R.transpose(0, 2, 1)
    shift = t + R @ centre
    if camera.is_orthographic:
        shift[:, 2] = t[:, 2]
    P = Y + shift[:, None]
    depth = np.broadcast_to(shift[:, None, 2], P.shape[:2]) if camera.is_orthographic else P[..., 2]
    image = P[..., :2] / depth[..., None]
    moved = np.zeros((*P.shape, 6))
    moved[..., 0, 1], moved[..., 0, 2] = Y[..., 2], -Y[..., 1]
    moved[..., 1, 0], moved[..., 1, 2] = -Y[..., 2], Y[..., 0]
    if not camera.is_orthographic:
        moved[..., 2, 0], moved[..., 2, 1] = Y[..., 1], -Y[..., 0]
    moved[..., 3:] = np.eye(3)
    J = (moved[..., :2, :] - image[..., None] * moved[..., 2:, :]) / depth[..., None, None]
    residual = camera.pixels(image) - x
    return J * np.array([[camera.fx], [camera.fy]]), (residual**2).sum(axis=-1)


def _variance(e: Array, q: Array, share: Array, noise: float | None, loss: str | None) -> Array:
    """Factor ``(n,)`` of ``(J'QJ)^-1``: the variance of the noise, or what a loss makes of it.

    For an M-estimate with the force ``ψ(r) = share(r) r`` it is ``mean ψ² / (mean ψ')²``, where
    ``ψ'`` is half the divergence of the force in the plane.
    """
    n_used = (q > 0).sum(axis=1)
    freedom = np.where(n_used > 3, 2.0 * n_used - 6.0, np.nan)
    if loss is None:
        if noise is not None:
            return np.where(n_used > 3, noise**2, np.nan)
        return np.asarray((q * e).sum(axis=1) / freedom)
    root = np.sqrt(share)
    slope = {
        "huber": np.where(share < 1, 0.5 * share, 1.0),
        "tukey": root * (3 * root - 2),
    }[loss]
    mean_slope = np.where(q > 0, slope, 0.0).sum(axis=1) / np.maximum(n_used, 1)
    mean_slope[mean_slope <= 0] = np.nan
    return np.asarray((q * share**2 * e).sum(axis=1) / freedom / mean_slope**2)


def _inverse(H: Array) -> Array:
    """Inverses of symmetric matrices ``(n, 6, 6)``; NaN where one has none."""
    size = np.sqrt(np.einsum("nii->ni", H))
    good = np.isfinite(size).all(axis=1) & (size > 0).all(axis=1)
    result = np.full_like(H, np.nan)
    # Radians and units of the reference side by side: scaled, the condition says something.
    scale = 1.0 / (size[good, :, None] * size[good, None, :])
    values, vectors = np.linalg.eigh(H[good] * scale)
    values[values[:, 0] < 1e-13] = np.nan
    half = vectors / np.sqrt(values)[:, None]
    result[good] = scale * (half @ half.transpose(0, 2, 1))
    return np.asarray((result + result.transpose(0, 2, 1)) / 2)
