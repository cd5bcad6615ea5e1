"""How the coefficients of a shape model are kept plausible.

A prior is any object with the one method of :class:`Prior`; it serves alike in
:meth:`asmkit.ShapeModel.smooth`, :meth:`~asmkit.ShapeModel.constrain` and
:func:`asmkit.smooth_targets`, and :meth:`~asmkit.ShapeModel.clamped` tells what it changed.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

__all__ = ["Box", "Ellipsoid", "Gaussian", "Prior", "PriorReport", "Unbounded"]

_Real = TypeVar("_Real", np.float32, np.float64)


class Prior(Protocol):
    """What a shape model asks of a prior."""

    def apply(
        self, standardized: npt.NDArray[_Real], variances: npt.NDArray[np.float64]
    ) -> npt.NDArray[_Real]:
        """Return plausible coefficients in place of the given, as a new array of their type.

        Parameters
        ----------
        standardized : ndarray, shape (n, k)
            Coefficients in standard deviations, ``b_i / √λ_i``: over the training shapes each
            column has variance 1.
        variances : ndarray, shape (k,)
            The λ, for priors that weigh modes against noise.
        """
        ...


@dataclass(frozen=True)
class Box:
    """Each coefficient on its own within ``± limit √λ`` (Cootes et al. 1995, with 3).

    Parameters
    ----------
    limit : float
        In standard deviations, above 0; ``math.inf`` clamps nothing.
    """

    limit: float = 3.0

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ValueError(f"limit: got {self.limit}, expected a number above 0")

    def apply(
        self, standardized: npt.NDArray[_Real], variances: npt.NDArray[np.float64]
    ) -> npt.NDArray[_Real]:
        """Clamp coefficients ``(n, k)`` to the box."""
        bound = standardized.dtype.type(self.limit)
        return np.clip(standardized, -bound, bound)


@dataclass(frozen=True)
class Ellipsoid:
    """All coefficients together within ``Σ b_i²/λ_i ≤ r²``, r² a quantile of chi-square.

    Unlike the box it refuses what is moderately unlikely in many modes at once. A shape outside
    goes to the nearest point of the ellipsoid, in units of the shape: ``b_i λ_i / (λ_i + ν)`` with
    the one ν ≥ 0 that puts it on the surface, not along the ray to the mean.

    Parameters
    ----------
    level : float, default 0.99
        Share of the shapes of a normal model with k modes that lie inside, in (0, 1): r² is the
        quantile of chi-square with k degrees of freedom.
    """

    level: float = 0.99

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"level: got {self.level}, expected a share between 0 and 1")

    def radius(self, n_components: int) -> float:
        """Distance of the surface from the mean for k modes, in standard deviations."""
        return _chi(self.level, n_components)

    def apply(
        self, standardized: npt.NDArray[_Real], variances: npt.NDArray[np.float64]
    ) -> npt.NDArray[_Real]:
        """Move coefficients ``(n, k)`` outside the ellipsoid to its nearest point."""
        kept = standardized.copy()
        z = standardized.astype(np.float64)
        radius = self.radius(max(len(variances), 1))
        length = np.linalg.norm(z, axis=1)
        # What an earlier call put on the surface, up to rounding of its type, stays.
        outside = np.flatnonzero(length > radius * (1 + 32 * np.finfo(standardized.dtype).eps))
        if outside.size:
            kept[outside] = _nearest_on_ellipsoid(z[outside], variances, radius)
        return kept


@functools.cache
def _chi(level: float, n: int) -> float:
    """Quantile of the chi distribution; computing one takes longer than most uses of it."""
    return math.sqrt(float(chi2.ppf(level, n)))


def _nearest_on_ellipsoid(
    z: npt.NDArray[np.float64], variances: npt.NDArray[np.float64], radius: float
) -> npt.NDArray[np.float64]:
    # Newton on 1/|z(ν)| − 1/r, which is concave and nearly linear: monotone from ν = 0.
    nu = np.zeros((len(z), 1))
    for _ in range(50):
        shrunk = z * variances / (variances + nu)
        length = np.linalg.norm(shrunk, axis=1, keepdims=True)
        slope = np.sum(shrunk**2 / (variances + nu), axis=1, keepdims=True) / length**3
        step = (1 / radius - 1 / length) / slope
        nu = np.maximum(nu + step, 0)
        if np.all(np.abs(length / radius - 1) < 1e-14):
            break
    shrunk = z * variances / (variances + nu)
    return np.asarray(shrunk * (radius / np.linalg.norm(shrunk, axis=1, keepdims=True)))


@dataclass(frozen=True)
class Gaussian:
    """Most probable coefficients of a normal model seen with noise: ``b_i λ_i / (λ_i + noise²)``.

    Weak modes shrink most. Unlike the other priors it changes every shape, each time it is applied.

    Parameters
    ----------
    noise : float
        Standard deviation of each coordinate of the points, as a share of the centroid size of the
        shape (the distances of the points from their centroid, squared, summed, root), above 0.
        ``model.noise_variance_ ** 0.5`` is what the model itself leaves out, where it leaves
        anything out.
    """

    noise: float

    def __post_init__(self) -> None:
        if not 0 < self.noise < math.inf:
            raise ValueError(
                f"noise: got {self.noise}, expected a positive number; without noise there is "
                "nothing to shrink: use Unbounded()"
            )

    def apply(
        self, standardized: npt.NDArray[_Real], variances: npt.NDArray[np.float64]
    ) -> npt.NDArray[_Real]:
        """Shrink coefficients ``(n, k)``."""
        kept = variances / (variances + self.noise**2)
        return standardized * kept.astype(standardized.dtype)


@dataclass(frozen=True)
class Unbounded:
    """No prior: coefficients stay as they are, and only what the modes cannot express goes."""

    def apply(
        self, standardized: npt.NDArray[_Real], variances: npt.NDArray[np.float64]
    ) -> npt.NDArray[_Real]:
        """Copy coefficients ``(n, k)``."""
        return standardized.copy()


@dataclass(frozen=True, eq=False)
class PriorReport:
    """What a prior did to the coefficients of shapes.

    Attributes
    ----------
    before, after : ndarray, shape (n, k)
        Coefficients in standard deviations.
    """

    before: npt.NDArray[np.floating[Any]]
    after: npt.NDArray[np.floating[Any]]

    @property
    def changed(self) -> npt.NDArray[np.bool_]:
        """Coefficients ``(n, k)`` that the prior changed."""
        return np.asarray(self.before != self.after)

    @property
    def n_changed(self) -> int:
        """Shapes with a coefficient that the prior changed."""
        return int(self.changed.any(axis=1).sum())

    @property
    def changed_per_mode(self) -> npt.NDArray[np.int64]:
        """Shapes, for each mode ``(k,)``, whose coefficient the prior changed."""
        return np.asarray(self.changed.sum(axis=0))

    @property
    def shrinkage(self) -> npt.NDArray[np.float64]:
        """Length of the coefficients after over before, for each shape ``(n,)``: 1 = untouched."""
        before = np.linalg.norm(self.before.astype(np.float64), axis=1)
        after = np.linalg.norm(self.after.astype(np.float64), axis=1)
        return np.asarray(np.divide(after, before, out=np.ones(len(before)), where=before > 0))
