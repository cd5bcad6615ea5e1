"""How the coefficients of a shape model are kept plausible.

A prior is any object with the one method of :class:`Prior`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["Box", "Prior"]

_Real = TypeVar("_Real", np.float32, np.float64)


class Prior(Protocol):
    """What a shape model asks of a prior."""

    def limit(
        self, coefficients: npt.NDArray[_Real], variances: npt.NDArray[np.float64]
    ) -> npt.NDArray[_Real]:
        """Return the nearest plausible coefficients, as a new array of the same type.

        Parameters
        ----------
        coefficients : ndarray, shape (n, k)
            Raw units: mode i has variance ``variances[i]``.
        variances : ndarray, shape (k,)
            The model's ``explained_variance_``.
        """
        ...


@dataclass(frozen=True)
class Box:
    """Each coefficient on its own within ``± sigmas √λ`` (Cootes et al. 1995, with 3).

    Parameters
    ----------
    sigmas : float
        Standard deviations, above 0; ``math.inf`` clamps nothing.
    """

    sigmas: float = 3.0

    def __post_init__(self) -> None:
        if not self.sigmas > 0:
            raise ValueError(f"sigmas: got {self.sigmas}, expected a number above 0")

    def limit(
        self, coefficients: npt.NDArray[_Real], variances: npt.NDArray[np.float64]
    ) -> npt.NDArray[_Real]:
        """Clamp coefficients ``(n, k)`` to the box."""
        bound = (self.sigmas * np.sqrt(variances)).astype(coefficients.dtype)
        return np.clip(coefficients, -bound, bound)
