"""The names under which a shape model knows the rules of :mod:`asmkit.mode_count`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from asmkit.mode_count import broken_stick, cross_validated_likelihood, parallel_analysis
from asmkit.modes import count_modes, fixed_directions
from asmkit.statistics import ShapeStatistics

__all__ = ["RULES", "STREAMING_RULES", "choose_modes", "choose_modes_of_statistics"]

Float64 = npt.NDArray[np.float64]

#: Rules that need no more than second moments, so that they serve a model that learns in batches.
STREAMING_RULES = ("parallel", "broken-stick")
RULES = (*STREAMING_RULES, "likelihood")


def choose_modes(
    n_components: float | str,
    variances: Float64,
    deviations: Float64,
    fixed: Float64,
    n_shapes: int,
) -> int:
    """Number of modes of the deviations (n, p, d) that a count, a share or a rule asks for.

    ``n_shapes`` of the deviations are independent; after them may come their mirror images.
    """
    if not isinstance(n_components, str):
        return count_modes(n_components, variances, float(variances.sum()))
    flat = deviations.reshape(len(deviations), -1)
    if n_components == "likelihood":
        groups = np.arange(len(flat)) % n_shapes
        found = cross_validated_likelihood(flat, fixed, groups=groups)[0]
    else:
        marginal = np.square(flat).sum(axis=0) / (len(flat) - 1)
        found = _by_second_moments(n_components, variances, marginal, n_shapes, fixed)
    return min(found, len(variances))


def choose_modes_of_statistics(
    n_components: float | str,
    variances: Float64,
    statistics: ShapeStatistics,
    n_shapes: int,
) -> int:
    """Do the same from the statistics of shapes."""
    if not isinstance(n_components, str):
        return count_modes(n_components, variances, float(variances.sum()))
    marginal = np.diag(statistics.scatter) / (statistics.n_samples - 1)
    fixed = fixed_directions(statistics.reference)
    found = _by_second_moments(n_components, variances, marginal, n_shapes, fixed)
    return min(found, len(variances))


def _by_second_moments(
    rule: str, variances: Float64, marginal: Float64, n: int, fixed: Float64
) -> int:
    if rule == "broken-stick":
        return broken_stick(variances)
    return parallel_analysis(variances, marginal, n, fixed)
