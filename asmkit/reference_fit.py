"""A 3-D reference of any landmarks, from 2-D shapes whose rotations are known.

The scaled-orthographic image of a rigid X under the rotation R_i is ``u_ij = s_i P R_i X_j + t_i``
(P drops z). Given the scales, X and all shifts are one linear least-squares problem; given X, each
scale is a division. The two alternate.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from asmkit._check import as_shapes
from asmkit._weights import as_weights
from asmkit.schemes import Scheme
from asmkit.symmetry import resolve_mirror

__all__ = ["fit_reference"]

Array = npt.NDArray[np.float64]

# Where a loss leaves the squares, in standard deviations of a coordinate: see asmkit.pose.
_TUNING = {"huber": 1.5, "tukey": 7.0}
_MAX_SWEEPS = 1000
_MAX_REWEIGHTINGS = 100
_SWEEPS_BETWEEN = 3


def fit_reference(
    points: npt.ArrayLike,
    rotations: npt.ArrayLike,
    *,
    mirror: str | Scheme | npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    robust: str | None = None,
) -> Array:
    """3-D reference of any set of landmarks, from 2-D shapes of known rotation.

    Minimises ``sum_ij w_ij |(u_ij - t_i) / s_i - P R_i X_j|²`` over the points X and the shift of
    each shape by least squares, in turn with the scale of each shape. Distances are relative to the
    size of a shape: a large image of a face counts as much as a small one. The result is in the
    frame of the rotations, so that ``R = I`` is the view along z.

    Parameters
    ----------
    points
        ``(n, p, 2)`` image points in pixels (y down); missing ones are NaN. Their perspective is
        ignored: take crops of objects not too close to the camera.
    rotations
        ``(n, 3, 3)``, as in :mod:`asmkit.pose`: :func:`asmkit.pose.euler_to_rotation` makes them of
        yaw, pitch and roll. A shape whose rotation holds a NaN is left out.
    mirror
        A landmark scheme or a permutation, as for :class:`asmkit.ShapeModel`: each shape then also
        enters mirrored, and the result is exactly symmetric in x. For objects that look straight
        ahead, x to the right, under ``R = I``.
    weights
        ``(p,)`` or ``(n, p)``, finite, at least 0.
    robust
        None, or the loss that points far off meet: ``"huber"``, or ``"tukey"``, from Huber's
        result, under which points that are plainly wrong have no influence at all.

    Returns
    -------
    ndarray
        ``(p, 3)`` with zero mean; the root mean squared distance of its points from their mean
        is 1. A rescaled reference gives the same rotations, with translations in its unit.

    Raises
    ------
    ValueError
        Wrong shapes, matrices that are no rotations, points that are seen nowhere, rotations too
        alike to tell depth, an unknown loss.
    """
    if robust is not None and robust not in _TUNING:
        raise ValueError(f"robust: got {robust!r}, expected None or one of {sorted(_TUNING)}")
    given = as_shapes(points, "points", n_dims=2, min_shapes=1, allow_nan=True)
    x: Array = np.array(given, dtype=np.float64, order="C")
    R = _as_rotations(rotations, len(x))
    q = as_weights(weights, x)
    permutation, _ = resolve_mirror(mirror, x.shape[1])
    x = np.where(np.isnan(x), 0.0, x)
    # Three points are the fewest that say more than where a shape is and how large.
    enters = np.isfinite(R).all(axis=(1, 2)) & ((q > 0).sum(axis=1) >= 3)
    x, R, q = x[enters], R[enters], q[enters]
    if permutation is not None:
        flip = np.array([-1.0, 1.0, 1.0])
        x = np.concatenate([x, x[:, permutation] * flip[:2]])
        R = np.concatenate([R, flip[:, None] * R * flip])
        q = np.concatenate([q, q[:, permutation]])
    unseen = np.flatnonzero(q.sum(axis=0) == 0)
    if unseen.size:
        raise ValueError(
            f"points: {unseen.size} point(s) are seen in no shape with a rotation and at least "
            f"three points, the first is number {unseen[0]}; expected each in several views"
        )
    X = _fit(x, R[:, :2], q, robust)
    if permutation is not None:
        X = (X + X[permutation] * flip) / 2
    return X


def _as_rotations(rotations: npt.ArrayLike, n: int) -> Array:
    R = np.asarray(rotations, dtype=np.float64)
    if R.shape != (n, 3, 3):
        raise ValueError(f"rotations: got shape {R.shape}, expected ({n}, 3, 3), one a shape")
    given = R[np.isfinite(R).all(axis=(1, 2))]
    off = np.abs(given @ given.transpose(0, 2, 1) - np.eye(3)).max(initial=0.0)
    if off > 1e-4 or (np.linalg.det(given) < 0).any():
        raise ValueError(
            f"rotations: R R' differs from I by up to {off:.2g}, or a matrix mirrors; expected "
            "rotation matrices (euler_to_rotation makes them of angles)"
        )
    return R


def _fit(x: Array, projections: Array, q: Array, robust: str | None) -> Array:
    view = _Views(x, projections)
    X = view.least_squares(q, _MAX_SWEEPS)
    for loss in {None: (), "huber": ("huber",), "tukey": ("huber", "tukey")}[robust]:
        for _ in range(_MAX_REWEIGHTINGS):
            distances = view.distances(X)
            # Of Gaussian noise in the plane half lies within 1.177 standard deviations.
            noise = np.median(distances[view.fits[:, None] & (q > 0)])
            noise /= math.sqrt(2 * math.log(2))
            if noise < 1e-12:
                return X
            far = distances / (_TUNING[loss] * noise)
            share = {
                "huber": 1 / np.maximum(far, 1.0),
                "tukey": np.maximum(1 - far**2, 0.0) ** 2,
            }[loss]
            before = X
            X = view.least_squares(q * share, _SWEEPS_BETWEEN)
            if np.abs(X - before).max() < 1e-7:
                break
    return X


class _Views:
    """Shapes and their projections, with the scales and shifts of the last fit."""

    def __init__(self, x: Array, projections: Array) -> None:
        self.x, self.projections = x, projections
        self.scales: Array = np.zeros(len(x))
        #: False for shapes that fit upside down only: their rotation is not their own.
        self.fits = np.ones(len(x), dtype=bool)
        #: Weights of each shape, summing to 1, and the shape relative to its mean under them.
        self.shares: Array = np.zeros(x.shape[:2])
        self.faces = x

    def least_squares(self, w: Array, n_sweeps: int) -> Array:
        """Points X (p, 3) under the weights (n, p); at most so many sweeps."""
        while True:
            w = np.where(self.fits[:, None], w, 0.0)
            X = self._alternate(w, n_sweeps)
            upside_down = self.fits & (self.scales < 0)
            if not upside_down.any():
                return X
            self.fits &= ~upside_down
            self.scales[:] = 0.0

    def distances(self, X: Array) -> Array:
        """From the points to the images of X (n, p), relative to the scale of their shape."""
        images = np.einsum("nki,pi->npk", self.projections, X)
        relative = self.faces / np.where(self.scales > 0, self.scales, np.nan)[:, None, None]
        away = np.linalg.norm(relative - images + self._mean(images), axis=2)
        return np.where(np.isnan(away), np.inf, away)

    def _mean(self, values: Array) -> Array:
        return np.asarray(np.einsum("np,npk->nk", self.shares, values)[:, None])

    def _alternate(self, w: Array, n_sweeps: int) -> Array:
        total = w.sum(axis=1)
        self.shares = w / np.where(total > 0, total, 1.0)[:, None]
        self.faces = self.x - self._mean(self.x)
        try:
            factor = cho_factor(_normal_matrix(self.projections, w, self.shares))
        except LinAlgError:
            raise ValueError(
                "rotations: the views are too alike, or too few, to tell where the points lie in "
                "depth; expected every point in shapes turned to and fro"
            ) from None
        sums = ((w[..., None] * self.faces) @ self.projections).reshape(len(w), -1)
        if not self.scales.any():
            self.scales = np.sqrt(np.einsum("np,npk->n", self.shares, self.faces**2))
        X = np.zeros((w.shape[1], 3))
        for _ in range(n_sweeps):
            inverse = np.where(self.scales > 0, 1 / np.where(self.scales > 0, self.scales, 1), 0)
            before, X = X, cho_solve(factor, inverse @ sums).reshape(-1, 3)
            X -= X.mean(axis=0)
            X /= math.sqrt((X**2).sum(axis=1).mean())
            images = X @ self.projections.transpose(0, 2, 1)
            images -= self._mean(images)
            squares = (w[..., None] * images**2).sum(axis=(1, 2))
            products = (w[..., None] * images * self.faces).sum(axis=(1, 2))
            self.scales = products / np.where(squares > 0, squares, 1.0)
            if np.abs(X - before).max() < 1e-13:
                break
        return X


def _normal_matrix(projections: Array, w: Array, shares: Array) -> Array:
    """Matrix (3p, 3p) of the points' least squares, the shift of each shape eliminated."""
    p = w.shape[1]
    grams = projections.transpose(0, 2, 1) @ projections
    N = np.zeros((p, 3, p, 3))
    for i in range(3):
        for k in range(3):
            own = grams[:, i, k] @ w
            N[:, i, :, k] = np.diag(own) - (w * grams[:, i, k, None]).T @ shares
    # No shift of all points together is seen: let their mean be zero.
    size = np.einsum("pipi->", N) / (3 * p)
    for i in range(3):
        N[:, i, :, i] += size / p
    flat = N.reshape(3 * p, 3 * p)
    if np.linalg.eigvalsh(flat)[0] < 1e-10 * size:
        raise LinAlgError("singular")
    return flat
