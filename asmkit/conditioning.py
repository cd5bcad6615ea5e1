"""What a shape model says of shapes of which only some points are seen, or seen with noise.

A shape is ``x = T(μ + Σ b_i φ_i + e)``: b normal with variances λ, e of variance σ² in each
coordinate (what the modes leave out), T a pose with a flat prior. Seen are ``x_j + v_j`` for some
of the points j, v normal with a covariance given for each. Pose and coefficients are estimated
together from the seen points alone, by Gauss-Newton steps in which the pose is ``T ∘ (1 + Sc)``,
S its directions at the present shape: every step is a linear regression on ``(b, c)``, and its
normal matrix at rest, inverted, is their covariance (the Laplace approximation; exact where there
is no pose, ``align="none"``). So hidden points are uncertain for three reasons, and all count: the
coefficients, the pose, and e.

Where points may be wrong altogether (``robust``), their noise has Student's t distribution with 4
degrees of freedom instead: expectation-maximisation weighs each point by how well the others
explain it, beginning with so wide a distribution that all weigh alike.

For a linear model without pose these are the posterior shape models of Albrecht et al. (2013).

References
----------
T. Albrecht, M. Lüthi, T. Gerig, T. Vetter (2013). Posterior shape models. Medical Image Analysis
17(8), 959-973. M. E. Tipping, C. M. Bishop (1999). Probabilistic principal component analysis.
J. R. Statist. Soc. B 61, 611-622. D. A. Harville (1974). Bayesian inference for variance components
using only error contrasts. Biometrika 61, 383-385.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from asmkit.alignment import Similarity, rigid, similarity
from asmkit.modes import moves

__all__ = [
    "Conditioned",
    "GaussianShapes",
    "condition",
    "least_squares_pose",
    "log_likelihood",
    "noise_covariance",
    "visible",
]

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Where neither noise nor σ² reach this share of the least variance of a mode, e has that
#: variance: the regression then stays definite, and still follows the point to this accuracy.
_FLOOR = 1e-4
_TOLERANCE, _MAX_ITERATIONS = 1e-9, 100
#: Degrees of freedom of robust noise, and its rounds: each narrows it to half, then it stays.
_FREEDOM, _ROUNDS = 4.0, 25
_CHUNK_BYTES = 1 << 25


class GaussianShapes(NamedTuple):
    """What conditioning needs of a shape model."""

    reference: Float64  # (p, d)
    mean: Float64  # (p, d)
    modes: Float64  # (k, p d)
    variances: Float64  # (k,)
    residual: float  # σ²
    kinds: tuple[str, ...]  # what its poses do


@dataclass(frozen=True, eq=False)
class Conditioned:
    """Shapes given what was seen of them, in the units and the place of the seen points.

    Attributes
    ----------
    mean : ndarray, shape (n, p, d)
    covariance : ndarray, shape (n, p, d, d)
        Of each point on its own.
    joint : ndarray, shape (n, p d, p d), or None
        Of all coordinates together, where asked for.
    weights : ndarray, shape (n, p)
        1, or with ``robust`` how much each seen point was believed, from 0 to about 1; NaN for a
        hidden point.
    converged : ndarray of bool, shape (n,)
    """

    mean: Float64
    covariance: Float64
    joint: Float64 | None
    weights: Float64
    converged: Bools


def noise_covariance(
    noise: npt.ArrayLike, axes: tuple[int, ...], n_points: int, n_dims: int
) -> Float64:
    """Covariances ``(m, p, d, d)``, m = 1 or the number of shapes, of what a caller gave as noise.

    Parameters
    ----------
    noise : array_like
        Standard deviations: a number, ``(p,)`` or ``(*axes, p)``; or covariances ``(p, d, d)`` or
        ``(*axes, p, d, d)``.
    axes : tuple of int
        Leading axes of the points.
    n_points, n_dims : int

    Raises
    ------
    ValueError
        For another shape, a negative or infinite number, a matrix that is no covariance.
    """
    array = np.asarray(noise, dtype=np.float64)
    point = (n_points, n_dims, n_dims)
    if array.shape in (point, (*axes, *point)):
        if not np.all(np.isfinite(array)) or not np.allclose(array, np.swapaxes(array, -1, -2)):
            raise ValueError("noise: expected finite, symmetric covariance matrices")
        if np.linalg.eigvalsh(array).min() < -1e-9 * max(np.abs(array).max(), 1e-300):
            raise ValueError("noise: a covariance matrix has a negative eigenvalue")
        return array.reshape(-1, *point)
    if array.shape not in ((), (n_points,), (*axes, n_points)):
        raise ValueError(
            f"noise: got shape {array.shape}, expected a standard deviation, one a point "
            f"({n_points},) or {(*axes, n_points)}, or covariances {point} or {(*axes, *point)}"
        )
    if not np.all(np.isfinite(array)) or np.any(array < 0):
        raise ValueError("noise: expected finite standard deviations of at least 0")
    variances = np.broadcast_to(array, (*array.shape[:-1], n_points)).reshape(-1, n_points) ** 2
    return variances[..., None, None] * np.eye(n_dims)


def condition(
    model: GaussianShapes,
    points: Float64,
    noise: Float64,
    *,
    robust: bool = False,
    with_joint: bool = False,
) -> Conditioned:
    """Posterior of shapes given seen points.

    Parameters
    ----------
    model : GaussianShapes
    points : ndarray, shape (n, p, d)
        NaN where a point is hidden.
    noise : ndarray, shape (1 or n, p, d, d)
        Covariances of what was seen, in the units of the points; 0 pins a point where it is.
    robust : bool
        Whether some of the points may be wrong altogether.
    with_joint : bool
        Whether to compute the covariance of all coordinates together.

    Returns
    -------
    Conditioned

    Raises
    ------
    ValueError
        When what is seen of a shape does not fix its pose.
    """
    n, n_points, n_dims = points.shape
    seen = visible(points)
    start = _start(model, model.mean, points, seen)
    mean, covariance = np.empty_like(points), np.empty((n, n_points, n_dims, n_dims))
    joint = np.empty((n, model.mean.size, model.mean.size)) if with_joint else None
    converged, weights = np.empty(n, dtype=bool), np.where(seen, 1.0, np.nan)
    for rows in _chunks(n, model):
        own = noise if len(noise) == 1 else noise[rows]
        poses = _Poses(start.linear[rows], start.shift[rows])
        part = _Regression(model, points[rows], seen[rows], own, poses)
        converged[rows] = part.settle_robustly() if robust else part.settle()
        weights[rows] /= part.inflation
        posterior = part.posterior()
        mean[rows], covariance[rows] = part.moments(posterior)
        if joint is not None:
            joint[rows] = part.joint_covariance(posterior)
    return Conditioned(mean, covariance, joint, weights, converged)


def _chunks(n: int, model: GaussianShapes) -> Iterator[slice]:
    k, size = len(model.variances) + 7, model.mean.size
    step = max(1, _CHUNK_BYTES // (8 * k * (3 * size + 3 * k)))
    for first in range(0, n, step):
        yield slice(first, min(first + step, n))


def visible(points: Float64) -> Bools:
    """Which points (n, p) are seen; a point with one missing coordinate is hidden."""
    return np.asarray(~np.isnan(points).any(axis=-1))


class _Poses(NamedTuple):
    """Poses ``x ↦ L x + t`` of n shapes, L a scaled rotation."""

    linear: Float64  # (n, d, d)
    shift: Float64  # (n, d)


def least_squares_pose(kinds: tuple[str, ...], source: Float64, target: Float64) -> Similarity:
    """Poses of these kinds, at least one, that bring shapes nearest to others."""
    return (similarity if "scale" in kinds else rigid)(source, target)


def _start(model: GaussianShapes, pattern: Float64, points: Float64, seen: Bools) -> _Poses:
    """Least-squares poses of a pattern (p, d) to what is seen."""
    n, _, n_dims = points.shape
    if not model.kinds:
        return _Poses(np.tile(np.eye(n_dims), (n, 1, 1)), np.zeros((n, n_dims)))
    few = np.flatnonzero(seen.sum(axis=1) < n_dims)
    if few.size:
        raise ValueError(
            f"points: {few.size} shape(s) show fewer than {n_dims} points, the first is number "
            f"{few[0]}; their pose cannot be told"
        )
    pose = least_squares_pose(model.kinds, pattern, points)
    return _Poses(pose.scale[:, None, None] * pose.rotation, pose.translation)


class _Posterior(NamedTuple):
    """Posterior of n shapes in the frame of the model, in parts."""

    mean: Float64  # (n, p, d)
    follow: Float64  # (n, K, p, d): how the points follow the unknowns of the regression
    unknowns: Float64  # (n, K, K): their covariance
    left: Float64  # (n, p, d, d): what is left of the covariance of e


class _Regression:
    """Pose and coefficients of some shapes, and the normal matrix of both."""

    def __init__(
        self, model: GaussianShapes, points: Float64, seen: Bools, noise: Float64, poses: _Poses
    ) -> None:
        self.model, self.seen, self.noise = model, seen, noise
        self.points = np.where(seen[..., None], points, 0.0)
        self.linear, self.shift = poses.linear.copy(), poses.shift.copy()
        self.b = np.zeros((len(points), len(model.variances)))
        self.inflation = np.ones(seen.shape)  # of the covariances of what was seen
        eye = np.eye(noise.shape[-1])
        self.even = bool(np.array_equal(noise, noise[..., :1, :1] * eye))  # in all directions
        self.pinned = seen & (noise.reshape(*noise.shape[:2], -1) == 0).all(axis=-1)

    def settle(self) -> Bools:
        """Take Gauss-Newton steps until they vanish; which of the shapes came to rest."""
        moving = np.arange(len(self.points))
        for _ in range(_MAX_ITERATIONS):
            moving = moving[self._step(moving) > _TOLERANCE]
            if not moving.size or not self.model.kinds:  # without a pose one step is exact
                moving = moving[:0]
                break
        rested = np.ones(len(self.points), dtype=bool)
        rested[moving] = False
        return rested

    def settle_robustly(self) -> Bools:
        """Settle with t-distributed noise; which of the shapes came to rest."""
        rows, n_dims = np.arange(len(self.points)), self.model.mean.shape[1]
        self.pinned[:] = False  # no point is beyond doubt
        self.settle()
        width = np.full((len(rows), 1), np.nan)
        for number in range(_ROUNDS):
            noise = self._frame_noise(rows)
            total = noise + self._left_over(noise)
            offset = self._observed(rows) - self._shapes(rows)
            far = np.squeeze(
                offset[..., None, :] @ np.linalg.solve(total, offset[..., None]), (2, 3)
            )
            if number == 0:
                width = np.max(np.where(self.seen, far, 0.0), axis=1, keepdims=True)
            width = np.maximum(width / 2, 1.0)
            self.inflation = width * (_FREEDOM + far / width) / (_FREEDOM + n_dims)
            rested = self.settle()
        return rested

    def _step(self, rows: npt.NDArray[np.intp]) -> Float64:
        normal, right, _ = self._equations(rows, self._basis(rows))
        k = len(self.model.variances)
        scaled = np.asarray(np.linalg.solve(normal, right[..., None])[..., 0], np.float64)
        b, c = scaled[:, :k] * np.sqrt(self.model.variances), np.asarray(scaled[:, k:])
        change = np.abs(b - self.b[rows])
        self.b[rows] = b
        if self.model.kinds:
            self._move(rows, c)
        return np.asarray(np.concatenate([change, np.abs(c)], axis=1).max(axis=1, initial=0.0))

    def _shapes(self, rows: npt.NDArray[np.intp]) -> Float64:
        m = self.model
        return m.mean + (self.b[rows] @ m.modes).reshape(len(rows), *m.mean.shape)

    def _basis(self, rows: npt.NDArray[np.intp]) -> Float64:
        """Modes, each a deviation long, then the moves of the present shapes: (n, K, p, d)."""
        m = self.model
        modes = (m.modes * np.sqrt(m.variances)[:, None]).reshape(-1, *m.mean.shape)
        own = moves(self._shapes(rows), m.kinds)
        return np.concatenate([np.broadcast_to(modes, (len(rows), *modes.shape)), own], axis=1)

    def _frame_noise(self, rows: npt.NDArray[np.intp]) -> Float64:
        """Covariances of what was seen, in the frame of the model: (n, p, d, d)."""
        noise = self.noise if len(self.noise) == 1 else self.noise[rows]
        if self.even:
            scale2 = np.square(self.linear[rows, 0]).sum(axis=-1)
            return np.asarray(noise / scale2[:, None, None, None])
        inverse = np.linalg.inv(self.linear[rows])[:, None]
        return np.asarray(inverse @ noise @ np.swapaxes(inverse, -1, -2))

    def _left_over(self, noise: Float64) -> Float64:
        """Covariances of e: (n, p, d, d)."""
        n_dims = self.model.mean.shape[1]
        floor = _FLOOR * float(self.model.variances[-1])
        size = np.trace(noise, axis1=-2, axis2=-1) / n_dims + self.model.residual
        own = np.where(size < floor, floor, self.model.residual)
        return np.asarray(own[..., None, None] * np.eye(n_dims))

    def whitener(self, rows: npt.NDArray[np.intp]) -> Float64:
        """W (n, p, d, d), ``W Wᵀ`` the precision of what was seen about the modes; 0 if hidden."""
        noise = self._frame_noise(rows)
        total = noise + self._left_over(noise)
        lower = np.linalg.cholesky(total * self.inflation[rows][..., None, None])
        return np.swapaxes(np.linalg.inv(lower), -1, -2) * self.seen[rows][..., None, None]

    def _observed(self, rows: npt.NDArray[np.intp]) -> Float64:
        offset = self.points[rows] - self.shift[rows, None]
        return np.asarray(offset @ np.swapaxes(np.linalg.inv(self.linear[rows]), -1, -2))

    def _equations(
        self, rows: npt.NDArray[np.intp], basis: Float64
    ) -> tuple[Float64, Float64, Float64]:
        return _normal_equations(
            basis,
            self._observed(rows) - self.model.mean,
            self.whitener(rows),
            len(self.model.variances),
        )

    def _move(self, rows: npt.NDArray[np.intp], c: Float64) -> None:
        """``T ∘ (1 + S c)``, the nearest pose to it."""
        n_dims = self.model.mean.shape[1]
        step = np.tile(np.eye(n_dims), (len(rows), 1, 1))
        shift, rest = c[:, :n_dims], c[:, n_dims:]
        scale = np.ones(len(rows))
        if "scale" in self.model.kinds:
            # Never through zero, however bold the step.
            scale, rest = np.exp(np.clip(rest[:, 0], -1.0, 1.0)), rest[:, 1:]
        pairs = [(i, j) for i in range(n_dims) for j in range(i)]
        for column, (i, j) in enumerate(pairs):
            step[:, j, i] += rest[:, column]
            step[:, i, j] -= rest[:, column]
        left, _, right = np.linalg.svd(step)
        step = scale[:, None, None] * (left @ right)
        linear = self.linear[rows]
        self.shift[rows] += np.squeeze(linear @ shift[..., None], -1)
        self.linear[rows] = linear @ step

    def posterior(self) -> _Posterior:
        """Posterior in the frame."""
        rows = np.arange(len(self.points))
        basis = self._basis(rows)
        normal, _, _ = self._equations(rows, basis)
        eye = np.eye(self.model.mean.shape[1])
        noise = self._frame_noise(rows)
        # Of the distance of an observation from the modes, e takes its share of the variance.
        left = self._left_over(noise)
        gain = left @ np.linalg.inv((noise + left) * self.inflation[..., None, None])
        gain = gain * self.seen[..., None, None]
        shapes = self._shapes(rows)
        residual = np.where(self.seen[..., None], self._observed(rows) - shapes, 0.0)
        mean = shapes + np.einsum("npde,npe->npd", gain, residual)
        # Exactly nothing is left of a pinned point, not rounding.
        rest = np.where(self.pinned[..., None, None], 0.0, eye - gain)
        follow = _along(basis, np.swapaxes(rest, -1, -2))
        unknowns = np.asarray(np.linalg.inv(normal), np.float64)
        return _Posterior(mean, follow, unknowns, rest @ left)

    def moments(self, posterior: _Posterior) -> tuple[Float64, Float64]:
        """Posterior mean and covariance of each point, in the place of the points."""
        mean, follow, unknowns, left = posterior
        n, k = follow.shape[:2]
        spread = (unknowns @ follow.reshape(n, k, -1)).reshape(follow.shape)
        covariance = left.copy()
        for i in range(left.shape[-1]):
            for j in range(i + 1):
                own = np.einsum("nkp,nkp->np", follow[..., i], spread[..., j])
                covariance[..., i, j] += own
                if i != j:
                    covariance[..., j, i] += own
        linear = self.linear[:, None]
        covariance = linear @ covariance @ np.swapaxes(linear, -1, -2)
        placed = mean @ np.swapaxes(self.linear, -1, -2) + self.shift[:, None]
        return np.where(self.pinned[..., None], self.points, placed), covariance

    def joint_covariance(self, posterior: _Posterior) -> Float64:
        """Posterior covariance of all coordinates, in the place of the points."""
        _, follow, unknowns, left = posterior
        n, n_points, n_dims = self.points.shape
        placed = np.einsum("nkpd,ned->nkpe", follow, self.linear).reshape(n, -1, n_points * n_dims)
        joint = np.swapaxes(placed, -1, -2) @ unknowns @ placed
        linear = self.linear[:, None]
        own = linear @ left @ np.swapaxes(linear, -1, -2)
        blocks = joint.reshape(n, n_points, n_dims, n_points, n_dims)
        everyone = np.arange(n_points)
        blocks[:, everyone, :, everyone, :] += np.swapaxes(own, 0, 1)
        return np.asarray((joint + np.swapaxes(joint, -1, -2)) / 2)


def _normal_equations(
    basis: Float64, residual: Float64, root: Float64, n_modes: int
) -> tuple[Float64, Float64, Float64]:
    """Regress residuals (n, p, d) on a basis (n, K, p, d), of which the first have unit priors.

    ``root`` (n, p, d, d) whitens. Returns the normal matrices (n, K, K), the right sides (n, K) and
    the squared lengths of the whitened residuals (n,).
    """
    white = _along(basis, root).reshape(*basis.shape[:2], -1)
    goal = _along(residual[:, None], root).reshape(len(residual), -1)
    normal = white @ np.swapaxes(white, -1, -2)
    normal[:, np.arange(n_modes), np.arange(n_modes)] += 1.0
    return normal, np.squeeze(white @ goal[..., None], -1), np.square(goal).sum(axis=1)


def _along(rows: Float64, matrices: Float64) -> Float64:
    """Products of rows (n, k, p, d) with the matrix (n, p, d, d) of each point."""
    n_dims = rows.shape[-1]
    if not matrices[..., ~np.eye(n_dims, dtype=bool)].any():
        # As where the noise is the same in all directions: no need for a product.
        return rows * np.diagonal(matrices, axis1=-2, axis2=-1)[:, None]
    return np.asarray(np.einsum("nkpd,npde->nkpe", rows, matrices))


def log_likelihood(model: GaussianShapes, points: Float64, noise: Float64) -> Float64:
    """Log density of what is seen of shapes, whatever their poses, in the frame of the model.

    The pose is the least-squares one from the reference to the seen points; the density is that of
    the distances from the mean in the directions in which no pose moves the seen points (Harville
    1974): all of them for a complete shape, so this is the density in the tangent space.
    """
    k, n_dims = len(model.variances), points.shape[-1]
    result = np.empty(len(points))
    seen = visible(points)
    for rows in _chunks(len(points), model):
        x, own_seen = points[rows], seen[rows]
        own = noise if len(noise) == 1 else noise[rows]
        start = _start(model, model.reference, x, own_seen)
        part = _Regression(model, x, own_seen, own, start)
        everyone = np.arange(len(x))
        root = part.whitener(everyone)
        modes = (model.modes * np.sqrt(model.variances)[:, None]).reshape(k, *model.mean.shape)
        directions = moves(model.reference, model.kinds)
        basis = np.concatenate([modes, directions])
        basis = np.broadcast_to(basis, (len(x), *basis.shape))
        residual = part._observed(everyone) - model.mean
        normal, right, squares = _normal_equations(basis, residual, root, k)
        solved = np.linalg.solve(normal, right[..., None])[..., 0]
        quadratic = squares - np.sum(right * solved, axis=1)
        # |C| over the seen points, |Λ-scaled normal matrix|, and the moves' own Gram matrix.
        volume = -2 * np.log(np.where(own_seen, np.abs(np.linalg.det(_open(root))), 1.0)).sum(
            axis=1
        )
        gram = _gram_of_moves(directions, own_seen)
        count = own_seen.sum(axis=1) * n_dims - len(directions)
        result[rows] = -0.5 * (
            quadratic + volume + np.linalg.slogdet(normal)[1] - gram + count * np.log(2 * np.pi)
        )
    return result


def _open(root: Float64) -> Float64:
    """Roots with the identity in place of a hidden point's zeros."""
    hidden = (root == 0).all(axis=(-1, -2))
    return np.where(hidden[..., None, None], np.eye(root.shape[-1]), root)


def _gram_of_moves(directions: Float64, seen: Bools) -> Float64:
    if not len(directions):
        return np.zeros(len(seen))
    gram = np.einsum("fpd,gpd,np->nfg", directions, directions, seen.astype(np.float64))
    return np.asarray(np.linalg.slogdet(gram)[1])
