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
