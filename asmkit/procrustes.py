"""The mean shape of a set, and the map of each shape to it (generalised Procrustes analysis).

Two searches share one definition of the mean. Complete shapes whose points have the same weights
in every shape take the short one: two thin matrix products a sweep. Missing points, weights that
differ from shape to shape, rigid and affine maps and robust weights take the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt

from asmkit._check import as_points, as_shapes
from asmkit.pairwise import (
    FITS,
    Moments,
    Robust,
    about_centre,
    check_weights,
    choose,
    cross_products,
    huber_weights,
    least_squares,
    no_spread,
    refuse_coinciding,
    refuse_few,
    residual_scale,
    robust_pairs,
    scale_and_rotation,
    similarity,
)
from asmkit.planar_shapes import PlanarShapes
from asmkit.transforms import Affine, Similarity

__all__ = ["ProcrustesResult", "generalized_procrustes"]

Float64 = npt.NDArray[np.float64]

Maps = TypeVar("Maps", Similarity, Affine)

_ORTHOGONAL = 1e-8
_HUBER_START = 20


@dataclass(frozen=True, eq=False)
class ProcrustesResult(Generic[Maps]):
    """What :func:`generalized_procrustes` found.

    Attributes
    ----------
    mean : ndarray, shape (p, d)
        The mean shape: centred, centroid size 1, turned as the reference. A rigid mean keeps its
        size; an affine mean also has the same spread in all directions, ``Σ μ μᵀ = I / d``.
    aligned : ndarray, shape (n, p, d)
        ``transforms.inverse().apply(shapes)``; their weighted mean is ``mean`` where it converged.
    transforms : Similarity or Affine
        A batch of n: each takes the mean to its shape by least squares, with ``weights``.
    converged : bool
        Whether the last sweep moved the mean by less than the tolerance.
    n_iterations : int
        Sweeps made.
    objective : float
        What the sweeps lower (see :func:`generalized_procrustes`), at the end.
    history : tuple of ndarray
        The objective before the first sweep and after each one; but for rounding, none is above the
        one before. One array for each round, where the search has rounds: units and scale of the
        residuals are held within a round.
    weights : ndarray, shape (n, p)
        The weights of points that the maps ended with: the given ones times the robust ones, 0
        where a point is missing. Read-only where all shapes share them.
    """

    mean: Float64
    aligned: Float64
    transforms: Maps
    converged: bool
    n_iterations: int
    objective: float
    history: tuple[Float64, ...]
    weights: Float64


@overload
def generalized_procrustes(
    shapes: npt.ArrayLike,
    reference: npt.ArrayLike | None = None,
    *,
    transform: Literal["similarity", "rigid"] = "similarity",
    weights: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    reflection: bool = False,
    robust: Robust = None,
    tolerance: float = 1e-12,
    max_iterations: int = 100,
) -> ProcrustesResult[Similarity]: ...


@overload
def generalized_procrustes(
    shapes: npt.ArrayLike,
    reference: npt.ArrayLike | None = None,
    *,
    transform: Literal["affine"],
    weights: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    reflection: bool = False,
    robust: Robust = None,
    tolerance: float = 1e-12,
    max_iterations: int = 100,
) -> ProcrustesResult[Affine]: ...


def generalized_procrustes(
    shapes: npt.ArrayLike,
    reference: npt.ArrayLike | None = None,
    *,
    transform: Literal["similarity", "rigid", "affine"] = "similarity",
    weights: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    reflection: bool = False,
    robust: Robust = None,
    tolerance: float = 1e-12,
    max_iterations: int = 100,
) -> ProcrustesResult[Similarity] | ProcrustesResult[Affine]:
    """Mean shape of a set, and the map of each shape to it.

    The pose of a shape x is the least-squares map *from the mean to the shape*,
    ``T = argmin Σ_j w_j ‖x_j − T(μ)_j‖²``. For similarities ``T⁻¹x`` then lies in the tangent space
    at μ: ``T⁻¹x − μ`` is orthogonal to translation, scaling and rotation of μ. The mean is the
    fixed point ``μ_j = Σ_i s_i w_ij (T_i⁻¹x_i)_j / Σ_i s_i w_ij``, so the tangent coordinates have
    zero mean. (s: weights of shapes, w: of points, 0 where a point is missing. Nothing is imputed:
    a point's mean is that of the shapes that show it.) A sweep costs O(n p).

    What the sweeps lower:

    - Similarities of complete shapes with the same weights of points in all: the mean of
      ``−log cos ρ``, ρ being the angle between shape and mean. This weights each shape by 1/cos ρ
      where the full Procrustes mean weights it by cos ρ; the two differ in second order of the
      spread.
    - In general: ``E = ½ Σ_i s_i Σ_j w_ij ‖C_i⁻¹(x_ij − T_i(μ)_j)‖² / Σ_i s_i`` over mean and maps,
      residuals being measured in the units C_i of their shape. The units are the maps' own linear
      parts; they are held for a few sweeps (a round), then renewed until nothing moves, and E is
      then half the mean squared distance of the aligned shapes from the mean. Rigid motions have
      no units to renew: E is in squared units of the points, and there is one round. With
      ``robust``, Huber's loss stands in place of the square, and the scale of the residuals is
      renewed with the units.

    Parameters
    ----------
    shapes : array_like, shape (n, p, d)
        Shapes, n ≥ 1; missing points are NaN.
    reference : array_like, shape (p, d), optional
        Where the search begins and what fixes the mean's orientation; the first shape by default.
        Points may be missing: they are then begun from the shapes that show them.
    transform : {"similarity", "rigid", "affine"}
        The maps. A rigid mean keeps its size. Affine maps leave a mean without size, angles or
        handedness: it is centred, with ``Σ μ μᵀ = I / d``, and turned (or reflected) onto the
        reference by least squares.
    weights : array_like, shape (p,) or (n, p), optional
        One non-negative weight a point; all equal by default. Weight 0 in some shapes is the same
        as missing there; a point of weight 0 in all shapes that show it takes no part in the maps,
        and its mean is that of its aligned positions.
    sample_weight : array_like, shape (n,), optional
        One non-negative weight a shape; an integer weight is that many copies.
    reflection : bool
        Let the rotations have determinant −1 where that fits better. Affine maps always may.
    robust : {None, "huber"}
        ``"huber"``: the loss of a point grows as the length of its residual instead of its square
        beyond 1.345 times the scale, which is 1.4826 times the median length of all residuals.
    tolerance : float
        The mean has converged when a sweep moves it by at most this, relative to its size: the
        units of the shapes do not matter.
    max_iterations : int
        Sweeps at most.

    Returns
    -------
    ProcrustesResult
        Look at ``converged``: reaching ``max_iterations`` is a result, not an error.

    Raises
    ------
    ValueError
        When all points of a shape coincide, a shape shows fewer than d points (affine: d + 1), a
        point is in no shape, shapes overlap too little to place a point among the others, or a
        shape has nothing in common with the mean (its rotation is then undefined).
    """
    choose(transform, robust)
    data = _checked(shapes, weights, sample_weight, transform)
    n_points, n_dims = data.shapes.shape[1:]
    given = data.shapes[0] if reference is None else reference
    given = as_points(given, "reference", n_points=n_points, n_dims=n_dims, allow_nan=True)
    given = np.ascontiguousarray(given, dtype=np.float64)
    start = _complete(given, data, transform)
    if transform == "similarity" and robust is None and data.common is not None:
        found = _search_common(data, start, data.common, reflection, tolerance, max_iterations)
    else:
        found = _search(data, start, transform, reflection, robust, tolerance, max_iterations)
    mean = found.mean @ _turn(found.mean, given, transform).T
    maps: Similarity | Affine
    if found.planar is not None:
        maps, aligned = found.planar.poses(mean)
    else:
        final = found.weights if data.common is None or robust is not None else data.common
        maps = least_squares(mean, data.filled(), _shares(final), transform, reflection)
        aligned = np.asarray(maps.inverse().apply(data.shapes), dtype=np.float64)
    objective = float(found.history[-1][-1])
    rest = (found.converged, found.n_iterations, objective, found.history, found.weights)
    if isinstance(maps, Affine):
        return ProcrustesResult(mean, aligned, maps, *rest)
    return ProcrustesResult(mean, aligned, maps, *rest)


class _Data(NamedTuple):
    shapes: Float64  # (n, p, d), NaN where missing
    visible: npt.NDArray[np.bool_]  # (n, p)
    weights: Float64  # (n, p), 0 where missing
    averaging: Float64  # (n, p): as weights, but 1 for points that are in no map
    samples: Float64 | None  # (n,), of sum 1
    common: Float64 | None  # (p,): the weights, where all shapes have the same

    def filled(self) -> Float64:
        """Shapes with 0 where they are missing."""
        if self.common is not None:
            return self.shapes
        return np.where(self.visible[..., None], self.shapes, 0.0)


class _Found(NamedTuple):
    mean: Float64
    weights: Float64
    converged: bool
    n_iterations: int
    history: tuple[Float64, ...]
    planar: PlanarShapes | None = None


def _checked(
    shapes: npt.ArrayLike,
    weights: npt.ArrayLike | None,
    sample_weight: npt.ArrayLike | None,
    kind: str,
) -> _Data:
    given_shapes = as_shapes(shapes, min_shapes=1, allow_nan=True)
    # Sums over other memory layouts would differ by rounding.
    batch = np.ascontiguousarray(given_shapes, dtype=np.float64)
    n, n_points, n_dims = batch.shape
    visible = np.asarray(~np.isnan(batch).any(axis=-1))
    samples = None if sample_weight is None else _sample_shares(sample_weight, n)
    given = check_weights(weights, (n,), n_points)
    if given.ndim == 1 and visible.all():
        averaging = np.where(given > 0, given, 1.0)
        everyone = (n, n_points)
        data = _Data(
            batch,
            visible,
            np.broadcast_to(given, everyone),
            np.broadcast_to(averaging, everyone),
            samples,
            given,
        )
    else:
        averaging = _averaging(given, visible, samples)
        data = _Data(batch, visible, given * visible, averaging, samples, None)
    if data.common is None or kind == "affine":
        refuse_few(data.weights, "shapes", n_dims + (kind == "affine"))
    return data


def _sample_shares(sample_weight: npt.ArrayLike, n: int) -> Float64:
    array = np.asarray(sample_weight, dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(f"sample_weight: got shape {array.shape}, expected one a shape ({n},)")
    if not np.all(np.isfinite(array)) or np.any(array < 0) or not array.sum() > 0:
        raise ValueError("sample_weight: expected finite values of at least 0, some positive")
    return np.asarray(array / array.sum())


def _averaging(given: Float64, visible: npt.NDArray[np.bool_], samples: Float64 | None) -> Float64:
    shown = visible if samples is None else visible & (samples > 0)[:, None]
    missing = np.flatnonzero(~shown.any(axis=0))
    if missing.size:
        raise ValueError(
            f"shapes: {missing.size} point(s) are missing in every shape (of positive weight), the "
            f"first is point {missing[0]}; leave such points out"
        )
    idle = ~(given * shown).any(axis=0)
    return np.where(idle, visible, given * visible)


def _shares(weights: Float64) -> Float64:
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def _turn(mean: Float64, given: Float64, kind: str) -> Float64:
    """Rotation of the mean onto the reference, as far as that is visible."""
    if kind != "affine":
        return similarity(mean, given).rotation
    seen = ~np.isnan(given).any(axis=-1)
    goal = given[seen] - given[seen].mean(axis=0)
    left, _, right = np.linalg.svd(goal.T @ (mean[seen] - mean[seen].mean(axis=0)))
    return np.asarray(left @ right)


def _unit(shape: Float64, root: Float64 | None = None) -> Float64:
    """Centre and give size 1, in coordinates that are multiplied by ``root`` (p, 1)."""
    if root is None:
        centred = shape - shape.mean(axis=0)
    else:
        centred = shape - root * (root[:, 0] @ shape) / np.sum(root**2)
    return np.asarray(centred / np.linalg.norm(centred))


# complete shapes, weights that are the same in all


def _search_common(
    data: _Data,
    start: Float64,
    weights: Float64,
    reflection: bool,
    tolerance: float,
    max_iterations: int,
) -> _Found:
    """Sweeps over coordinates that are multiplied by the roots of the weights."""
    share = weights / weights.sum()
    centre, centred = about_centre(data.shapes, share)
    refuse_coinciding(no_spread(centre, centred, share), "shapes")
    even = np.all(weights == weights[0])
    root = None if even else np.sqrt(weights)[:, None]
    centred = centred if root is None else centred * root
    size = np.sqrt(np.einsum("npd,npd->n", centred, centred))
    centred /= size[:, None, None]
    first = _unit(start) if root is None else _unit(_unit(start) * root, root)
    planar = None
    if root is None and centred.shape[2] == 2 and not reflection:
        planar = PlanarShapes(centred, size, centre)

    def step(mean: Float64) -> tuple[Float64, float]:
        if planar is not None:
            total, scale = planar.tangent_mean(mean, data.samples)
        else:
            total, scale = _tangent_mean(centred, mean, data.samples, reflection)
        _refuse_orthogonal(scale)
        objective = -np.average(np.log(np.minimum(scale, 1.0)), weights=data.samples)
        return total, float(objective)

    mean, history, converged = _iterate(step, first, root, tolerance, max_iterations)
    if root is not None:
        mean = _unit(_uneven(mean, root, data, share, reflection))
    return _Found(mean, data.weights, converged, len(history) - 1, (history,), planar)


def _uneven(mean: Float64, root: Float64, data: _Data, share: Float64, reflection: bool) -> Float64:
    """Undo the multiplication; points of weight 0 have their aligned mean."""
    idle = root[:, 0] == 0
    mean = np.divide(mean, root, out=np.zeros_like(mean), where=~idle[:, None])
    if idle.any():
        maps = least_squares(mean, data.shapes, share, "similarity", reflection)
        aligned = maps.inverse().apply(data.shapes)[:, idle]
        mean[idle] = np.average(aligned, axis=0, weights=data.samples)
    return mean


def _iterate(
    step: Callable[[Float64], tuple[Float64, float]],
    mean: Float64,
    root: Float64 | None,
    tolerance: float,
    max_iterations: int,
) -> tuple[Float64, Float64, bool]:
    """Take steps, each from a mean to the mean of ``T⁻¹x`` and the objective, to rest."""
    total, objective = step(mean)
    history, converged = [objective], False
    for _ in range(max_iterations):
        update = _unit(total, root)
        change = float(np.linalg.norm(update - mean))
        converged = change <= tolerance
        total, after = step(update)
        # Shapes that differ by more than about 45 degrees can overshoot; a shorter step cannot.
        while after > objective + 1e-14 and not converged:
            update = _unit(mean + update, root)
            converged = float(np.linalg.norm(update - mean)) <= tolerance
            total, after = step(update)
        mean, objective = update, after
        history.append(objective)
        if converged:
            break
    return mean, np.array(history), converged


def _tangent_mean(
    centred: Float64, mean: Float64, samples: Float64 | None, reflection: bool
) -> tuple[Float64, Float64]:
    """Mean of ``T⁻¹x`` over centred shapes of size 1, and the scales ``cos ρ`` of T.

    Two matrix products over the batch.
    """
    n, n_points, n_dims = centred.shape
    flat = centred.reshape(n, -1)
    cross = cross_products(flat, mean[None])[:, 0]
    scale, rotation = scale_and_rotation(cross, np.ones(()), reflection)
    known = np.where(scale > _ORTHOGONAL, scale, 1.0)  # the caller refuses the others
    divisor = n * known if samples is None else known
    weighted = rotation / divisor[:, None, None]
    if samples is not None:
        weighted *= samples[:, None, None]
    sums = weighted.reshape(n, -1).T @ flat
    total = np.einsum("cejc->je", sums.reshape(n_dims, n_dims, n_points, n_dims))
    return np.asarray(total), scale


def _refuse_orthogonal(scale: Float64) -> None:
    """Refuse shapes whose least-squares scale is 0, up to rounding, in their own units."""
    rows = np.flatnonzero(~(scale > _ORTHOGONAL))
    if rows.size:
        raise ValueError(
            f"shapes: {rows.size} shape(s) are orthogonal to the mean, the first is number "
            f"{rows[0]}; their orientation is undefined: are the points in the same order?"
        )


# the general case


def _search(
    data: _Data,
    start: Float64,
    kind: str,
    reflection: bool,
    robust: Robust,
    tolerance: float,
    max_iterations: int,
) -> _Found:
    search = _Search(_planes(data, kind), data, kind, reflection, robust is not None)
    state = search.begin(_gauge(start, kind))
    history: list[Float64] = []
    n_iterations, converged = 0, False
    while not converged and n_iterations < max_iterations:
        state, objectives, steps = search.round(state, tolerance, max_iterations - n_iterations)
        history.append(np.array(objectives))
        n_iterations += len(steps)
        # Rest under units and scale that were renewed just before, or never have to be.
        converged = steps[-1] <= tolerance and (len(steps) == 1 or search.one_round)
    if not history:
        history.append(np.array(search.round(state, tolerance, 0)[1]))
    return _Found(state.mean, search.weights(state), converged, n_iterations, tuple(history))


def _planes(data: _Data, kind: str) -> Float64:
    """Shapes (n, d, p), centred and (unless rigid) of size 1; 0 where missing."""
    share = _shares(data.weights)
    centre, centred = about_centre(data.filled(), share)
    refuse_coinciding(no_spread(centre, centred, share), "shapes")
    planes = np.ascontiguousarray(np.swapaxes(centred, 1, 2))
    if kind != "rigid":
        mean_square = np.einsum("ndp,np->n", planes**2, share)
        planes /= np.sqrt(planes.shape[-1] * mean_square)[:, None, None]
    return np.where(data.visible[:, None], planes, 0.0)


def _gauge(mean: Float64, kind: str) -> Float64:
    """What is free in a mean of this kind, but for its orientation."""
    centred = mean - mean.mean(axis=0)
    if kind == "rigid":
        return np.asarray(centred)
    if kind == "similarity":
        return _unit(centred)
    left, values, right = np.linalg.svd(centred, full_matrices=False)
    if not values[-1] > _ORTHOGONAL * values[0]:
        raise ValueError(
            "shapes: the points of the mean lie on one line or plane; "
            "an affine map needs points in all directions"
        )
    return np.asarray(left @ right / np.sqrt(len(values)))


class _State(NamedTuple):
    mean: Float64  # (p, d)
    maps: Similarity | Affine  # n, from the mean to the shapes


@dataclass(frozen=True, eq=False)
class _Search:
    planes: Float64  # (n, d, p), 0 where missing
    data: _Data
    kind: str
    reflection: bool
    robust: bool

    @property
    def one_round(self) -> bool:
        return self.kind == "rigid" and not self.robust

    def begin(self, mean: Float64) -> _State:
        if not self.robust:
            return _State(mean, self.fit(mean, self.data.weights))
        # Poses that outliers spoil give outliers small residuals: begin with better ones.
        shapes = np.swapaxes(self.planes, 1, 2)
        share = _shares(self.data.weights)
        maps = robust_pairs(
            mean, shapes, share, self.kind, self.reflection, max_iterations=_HUBER_START
        )
        return _State(mean, maps)

    def fit(self, mean: Float64, weights: Float64) -> Similarity | Affine:
        """Least-squares maps from the mean to each shape."""
        share = _shares(weights)
        weighted = self.planes * share[:, None]
        goal, centre = weighted.sum(axis=-1), share @ mean
        cross = weighted @ mean - goal[:, :, None] * centre[:, None]
        n_points, n_dims = mean.shape
        squares = (mean[:, :, None] * mean[:, None]).reshape(n_points, -1)
        spread = (share @ squares).reshape(-1, n_dims, n_dims) - centre[:, :, None] * centre[
            :, None
        ]
        return FITS[self.kind](Moments(cross, spread, centre, goal), self.reflection)

    def residuals(self, state: _State, inverse: Float64) -> Float64:
        """``C⁻¹(x − T(μ))``, shape (n, d, p)."""
        n, n_dims, n_points = self.planes.shape
        posed = state.maps.linear.reshape(n * n_dims, n_dims) @ state.mean.T
        residual = self.planes - posed.reshape(n, n_dims, n_points)
        residual -= state.maps.translation[..., None]
        return inverse @ residual

    def units(self, maps: Similarity | Affine) -> Float64:
        """Inverses of the linear parts, shape (n, d, d)."""
        if isinstance(maps, Affine):
            values = np.linalg.svd(maps.linear, compute_uv=False)
            _refuse_orthogonal(values[:, -1] / np.maximum(values[:, 0], 1e-300))
        elif self.kind == "similarity":
            _refuse_orthogonal(maps.scale)
        return maps.inverse().linear

    def scale(self, lengths: Float64) -> float:
        """Scale of the residuals of all points that take part; infinite where none is asked for."""
        if not self.robust:
            return np.inf
        weights = self.sampled(self.data.weights)
        taking = weights > 0
        scale = float(residual_scale(lengths[taking], weights[taking]))
        # Where more than half of the points fit exactly, what is left is rounding.
        return max(scale, 1e-14 * float(lengths[taking].max()), 1e-300)

    def factors(self, lengths: Float64, scale: float) -> Float64:
        """What the loss leaves of the weights of residuals of these lengths."""
        return np.ones(()) if np.isinf(scale) else huber_weights(lengths, scale)

    def loss(self, lengths: Float64, factors: Float64) -> float:
        """The objective: Huber's loss is f (2 − f) times the square, f being the factor."""
        each = np.sum(self.data.weights * factors * (2 - factors) * lengths**2, axis=1)
        return 0.5 * float(np.average(each, weights=self.data.samples))

    def sampled(self, weights: Float64) -> Float64:
        samples = self.data.samples
        return weights if samples is None else weights * samples[:, None]

    def weights(self, state: _State) -> Float64:
        """Weights of points in the maps of a state."""
        if not self.robust:
            return self.data.weights
        lengths = _lengths(self.residuals(state, self.units(state.maps)))
        return self.data.weights * self.factors(lengths, self.scale(lengths))

    def round(
        self, state: _State, tolerance: float, max_sweeps: int
    ) -> tuple[_State, list[float], list[float]]:
        """Sweeps with units and scale held, until steps have fallen to a tenth of the first.

        Returns the state, the objectives before and after each sweep, and the sweeps' steps.
        """
        inverse = self.units(state.maps)
        residuals = self.residuals(state, inverse)
        lengths = _lengths(residuals)
        scale = self.scale(lengths)
        factors = self.factors(lengths, scale)
        objectives, steps = [self.loss(lengths, factors)], list[float]()
        for _ in range(max_sweeps):
            mean = _gauge(self.best_mean(state, inverse, residuals, factors), self.kind)
            steps.append(float(np.linalg.norm(mean - state.mean) / np.linalg.norm(mean)))
            # The weights of the step before: what the mean has lowered the maps lower further.
            state = _State(mean, self.fit(mean, self.data.weights * factors))
            residuals = self.residuals(state, inverse)
            lengths = _lengths(residuals)
            factors = self.factors(lengths, scale)
            objectives.append(self.loss(lengths, factors))
            settled = len(steps) > 1 and steps[-1] <= 0.1 * steps[0]
            if steps[-1] <= tolerance or (settled and not self.one_round):
                break
        return state, objectives, steps

    def best_mean(
        self, state: _State, inverse: Float64, residuals: Float64, factors: Float64
    ) -> Float64:
        """The best mean for given maps: that of ``T⁻¹x``, in the metric of the units.

        With ``B = C⁻¹A`` the step of point j solves ``Σ w BᵀB δ = Σ w Bᵀ C⁻¹(x − T(μ))``.
        """
        n, n_dims, n_points = residuals.shape
        relative = inverse @ state.maps.linear
        metric = np.swapaxes(relative, 1, 2) @ relative
        weights = self.sampled(self.data.averaging * factors)
        weighted = (residuals * weights[:, None]).reshape(n * n_dims, n_points)
        total = weighted.T @ relative.reshape(n * n_dims, n_dims)
        divisor = (weights.T @ metric.reshape(n, -1)).reshape(n_points, n_dims, n_dims)
        return state.mean + np.linalg.solve(divisor, total[..., None])[..., 0]


def _lengths(residuals: Float64) -> Float64:
    return np.asarray(np.sqrt(np.sum(residuals**2, axis=1)))


def _complete(given: Float64, data: _Data, kind: str) -> Float64:
    """A start without missing points: each is taken from shapes that show it and enough others."""
    placed = np.asarray(~np.isnan(given).any(axis=-1))
    n_points, n_dims = given.shape
    n_needed = n_dims + (kind == "affine")
    refuse_few(placed.astype(np.float64), "reference", min(n_needed, n_points))
    mean = np.where(placed[:, None], given, 0.0)
    seen = _shares(placed.astype(np.float64))
    refuse_coinciding(no_spread(*about_centre(mean, seen), seen), "reference")
    filled = data.filled()
    while not placed.all():
        weights = data.weights * placed
        useful = (weights > 0).sum(axis=1) >= n_needed
        share = _shares(np.where(useful[:, None], weights, 1.0))
        useful &= ~no_spread(*about_centre(filled, share), share)
        new = ~placed & (data.averaging[useful] > 0).any(axis=0)
        if not new.any():
            raise ValueError(
                f"shapes: {np.sum(~placed)} point(s) cannot be placed among the others, the first "
                f"is point {np.flatnonzero(~placed)[0]}: no shape shows it with {n_needed} points "
                "that lead to the reference; give a complete reference"
            )
        maps = least_squares(mean, filled[useful], share[useful], kind, False)
        weights = data.averaging[useful][:, new]
        aligned = np.nan_to_num(maps.inverse().apply(filled[useful])[:, new])
        mean[new] = np.einsum("np,npd->pd", weights, aligned) / weights.sum(axis=0)[:, None]
        placed |= new
    return mean
