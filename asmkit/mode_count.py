"""How many modes a shape model should hold, decided by the data instead of a share of variance.

Three rules, from the plainest to the dearest:

- :func:`broken_stick` compares variances with the pieces of a stick broken at random (Frontier
  1976; Jackson 1993). It needs no more than the variances.
- :func:`parallel_analysis` keeps the modes whose variance is larger than chance gives to
  landmarks that move independently of each other (Horn 1965).
- :func:`cross_validated_likelihood` takes the count at which held-out shapes are most likely under
  probabilistic PCA (Tipping & Bishop 1999).

The first two look for structure, the last for prediction: it keeps every small mode that there are
enough shapes to know, so it asks for many more. Every rule gives at least 1. Measured (similarity
frame; beside them the number that holds 98 % of the variance)::

                               98 %   broken stick   parallel   likelihood
    300-W train, 2014 faces      30              5          3          131 of 132
    hands, 40                     8              3          3            7
    cephalograms, 99             25              4          4           11
    fly wings, 58                16              4          2            6
    bones, 30                     5              5          5            7

Parallel analysis of landmarks is cautious: large modes raise the marginal variances, so chance is
granted more than it has, and small real modes drown in it. Where there are far more shapes than
coordinates, as with the faces, the likelihood keeps all but everything: noise that is equal in all
directions left out is the poorer description as long as the variances can be told apart.

References
----------
J. L. Horn (1965). A rationale and test for the number of factors in factor analysis.
Psychometrika 30(2), 179-185.

S. Frontier (1976). Étude de la décroissance des valeurs propres dans une analyse en composantes
principales: comparaison avec le modèle du bâton brisé. J. exp. mar. Biol. Ecol. 25, 67-75.

D. A. Jackson (1993). Stopping rules in principal components analysis: a comparison of heuristical
and statistical approaches. Ecology 74(8), 2204-2214.

M. E. Tipping, C. M. Bishop (1999). Probabilistic principal component analysis. Journal of the
Royal Statistical Society B 61(3), 611-622. The marginal likelihood of Minka (2001, Automatic
choice of dimensionality for PCA, NIPS 13) is its relative without folds; it takes its noise to
be equal in all directions, which that of landmarks is not, so unseen shapes are asked instead.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "LikelihoodCount",
    "broken_stick",
    "cross_validated_likelihood",
    "parallel_analysis",
]

Float64 = npt.NDArray[np.float64]
Seed = int | np.random.Generator | None


def broken_stick(
    variances: npt.ArrayLike, total: float | None = None, *, n_directions: int | None = None
) -> int:
    """Count the modes that hold more than their piece of a stick broken at random.

    Of a stick of length 1 broken into q pieces, the k-th longest has the expected length
    ``(1/k + 1/(k+1) + … + 1/q) / q``. Modes count as long as each holds a larger share than that.

    Parameters
    ----------
    variances : array_like, shape (r,)
        In falling order.
    total : float, optional
        Sum of the variances of all modes, where ``variances`` are the first ones only.
    n_directions : int, optional
        q, the number of all modes; r by default.

    Returns
    -------
    int
        Between 1 and r.

    Raises
    ------
    ValueError
        When the variances are not numbers in falling order with a sum above 0, or ``total`` or
        ``n_directions`` are less than what is given.
    """
    values = _variances(variances)
    whole = float(values.sum()) if total is None else float(total)
    pieces = len(values) if n_directions is None else int(n_directions)
    if not whole >= values.sum() * (1 - 1e-9):
        raise ValueError(f"total: got {whole:.6g}, less than the variances' sum {values.sum():.6g}")
    if pieces < len(values):
        raise ValueError(f"n_directions: got {pieces}, fewer than the {len(values)} variances")
    expected = np.cumsum(1 / np.arange(pieces, 0, -1.0))[::-1] / pieces
    return _leading(values > expected[: len(values)] * whole)


def parallel_analysis(
    variances: npt.ArrayLike,
    marginal_variances: npt.ArrayLike,
    n_samples: int,
    fixed: npt.ArrayLike,
    *,
    quantile: float = 0.95,
    n_draws: int = 20,
    random_state: Seed = 0,
) -> int:
    """Count the modes with more variance than chance gives to independent coordinates.

    Samples of ``n_samples`` independent normal rows are drawn whose coordinates are independent
    but for the fixed directions, which are projected out, and have the given marginal variances.
    Mode k counts while its variance exceeds the ``quantile`` of the k-th variances of those
    samples. Only second moments are drawn, by the triangular factor of their Wishart distribution
    (Bartlett 1933), so the cost does not grow with ``n_samples``.

    Parameters
    ----------
    variances : array_like, shape (r,)
        Observed, in falling order, with division by ``n_samples − 1``.
    marginal_variances : array_like, shape (q,)
        Of each coordinate of the deviations.
    n_samples : int
        Independent rows, at least 2. A shape and its mirror image are one.
    fixed : array_like, shape (f, q)
        Orthonormal rows in which no deviation points; f may be 0.
    quantile : float
        Between 0 and 1.
    n_draws : int
        Samples to simulate.
    random_state : int, Generator or None
        The same seed gives the same count.

    Returns
    -------
    int
        Between 1 and r.

    Raises
    ------
    ValueError
        When arguments do not fit together.
    """
    values, marginals = _variances(variances), np.asarray(marginal_variances, dtype=np.float64)
    rows = _fixed(fixed, marginals.size)
    if marginals.ndim != 1 or not (np.isfinite(marginals).all() and marginals.min() >= 0):
        raise ValueError("marginal_variances: expected one finite number, 0 or more, a coordinate")
    if n_samples < 2 or n_draws < 1 or not 0 < quantile < 1:
        raise ValueError(
            f"got n_samples={n_samples}, n_draws={n_draws}, quantile={quantile}; expected at "
            "least 2 samples, at least 1 draw and a quantile between 0 and 1"
        )
    generator = np.random.default_rng(random_state)
    spread = np.sqrt(_independent(marginals, rows))[:, None]
    chance = np.zeros((n_draws, len(values)))
    for drawn in chance:
        factor = spread * _wishart_factor(marginals.size, n_samples - 1, generator)
        factor -= rows.T @ (rows @ factor)
        # The products of the short side have the same variances.
        products = factor.T @ factor if factor.shape[1] < len(factor) else factor @ factor.T
        found = np.linalg.eigvalsh(products)[::-1][: len(values)] / (n_samples - 1)
        drawn[: len(found)] = found
    return _leading(values > np.quantile(chance, quantile, axis=0))


def _independent(marginals: Float64, fixed: Float64, sweeps: int = 50) -> Float64:
    """Variances of independent coordinates that are ``marginals`` after the projection."""
    inside = 1 - 2 * np.sum(fixed**2, axis=0)
    variances = marginals.copy()
    for _ in range(sweeps):
        lost = np.sum(fixed * ((fixed * variances) @ fixed.T @ fixed), axis=0)
        left = inside * variances + lost
        # Multiplicative steps keep variances positive; where nothing is left, nothing is asked.
        variances *= np.divide(marginals, left, out=np.ones_like(left), where=left > 0)
    return variances


def _wishart_factor(size: int, degrees: int, generator: np.random.Generator) -> Float64:
    """L (size, min(size, degrees)) with ``L Lᵀ`` Wishart of unit covariance: Bartlett's factor."""
    factor = np.tril(generator.standard_normal((size, min(size, degrees))), -1)
    np.fill_diagonal(factor, np.sqrt(generator.chisquare(degrees - np.arange(factor.shape[1]))))
    return factor


class LikelihoodCount(NamedTuple):
    """What :func:`cross_validated_likelihood` found.

    Attributes
    ----------
    n_components : int
        The candidate with the highest score.
    scores : ndarray, shape (c,)
        Mean log-likelihood of a held-out row for each candidate, in nats.
    """

    n_components: int
    scores: Float64


def cross_validated_likelihood(
    deviations: npt.ArrayLike,
    fixed: npt.ArrayLike,
    *,
    candidates: npt.ArrayLike | None = None,
    folds: int = 5,
    groups: npt.ArrayLike | None = None,
    random_state: Seed = 0,
) -> LikelihoodCount:
    """Find the count of modes under which held-out shapes are most likely.

    The density is that of probabilistic PCA in the q − f directions that are not fixed: a normal
    distribution with the variances of the modes, and in every other direction with the mean of
    the variances left out. Mean and modes come from the other folds, one singular value
    decomposition each; all candidates are read from it.

    The deviations come from one alignment of all rows, which the held-out ones have thus taken
    part in: an effect of order 1/n.

    Parameters
    ----------
    deviations : array_like, shape (n, q)
        Rows, with or without their mean; no part along the fixed directions counts.
    fixed : array_like, shape (f, q)
        Orthonormal rows; f may be 0.
    candidates : array_like of int, shape (c,), optional
        Counts to compare; by default 1, 2, … up to the most that leave some variance out.
    folds : int
        At least 2; n is leave-one-out.
    groups : array_like of int, shape (n,), optional
        Rows of one group are held out together, such as a shape and its mirror image.
    random_state : int, Generator or None
        The same seed gives the same folds.

    Returns
    -------
    LikelihoodCount
        ``n_components`` and ``scores``, one for each candidate.

    Raises
    ------
    ValueError
        When there are fewer rows (or groups) than folds, the rows do not differ, or a candidate
        is not between 1 and the most possible.
    """
    rows = np.asarray(deviations, dtype=np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"deviations: got shape {rows.shape}, expected finite numbers (n, q)")
    directions = _fixed(fixed, rows.shape[1])
    rows = rows - rows @ directions.T @ directions
    n_free = rows.shape[1] - len(directions)
    parts = _parts(len(rows), folds, groups, random_state)
    fits = [(held, *_moments(rows[~held], n_free)) for held in parts]
    most = min(len(variances) for _, _, variances, _ in fits) - 1
    most = min(most, n_free - 1)
    if most < 1:
        raise ValueError(
            "deviations: without the held-out rows they have fewer than 2 directions of variance"
        )
    counts = np.arange(1, most + 1) if candidates is None else np.atleast_1d(candidates)
    if counts.dtype.kind not in "iu" or not counts.size or counts.min() < 1 or counts.max() > most:
        raise ValueError(f"candidates: got {counts}, expected whole numbers from 1 to {most}")
    scores = np.zeros(len(counts))
    for held, mean, variances, modes in fits:
        scores += _log_likelihoods(rows[held] - mean, variances, modes, n_free, counts)
    scores /= len(rows)
    return LikelihoodCount(int(counts[np.argmax(scores)]), scores)


def _parts(
    n: int, folds: int, groups: npt.ArrayLike | None, random_state: Seed
) -> list[npt.NDArray[np.bool_]]:
    """Masks (n,) of the rows that each fold holds out."""
    labels = np.arange(n) if groups is None else np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"groups: got shape {labels.shape}, expected ({n},)")
    names, member = np.unique(labels, return_inverse=True)
    if not 2 <= folds <= len(names):
        raise ValueError(
            f"folds: got {folds}, expected from 2 to the number of rows or groups, {len(names)}"
        )
    fold = np.random.default_rng(random_state).permutation(len(names)) % folds
    return [fold[member] == i for i in range(folds)]


def _moments(rows: Float64, n_free: int) -> tuple[Float64, Float64, Float64]:
    """Mean, variances above rounding (at most ``n_free``), and modes of rows (n, q)."""
    mean = rows.mean(axis=0)
    centred = rows - mean
    factor = np.linalg.qr(centred, mode="r") if len(rows) > rows.shape[1] else centred
    _, values, modes = np.linalg.svd(factor, full_matrices=False)
    variances = values**2 / max(len(rows) - 1, 1)
    some = variances > np.finfo(np.float64).eps * max(rows.shape) * variances[0]
    rank = min(int(some.sum()), n_free)
    return mean, variances[:rank], modes[:rank]


def _log_likelihoods(
    rows: Float64, variances: Float64, modes: Float64, n_free: int, counts: npt.NDArray[np.int_]
) -> Float64:
    """Sum over the rows of their log density, for each count of modes."""
    squares = (rows @ modes.T) ** 2
    inside = np.cumsum(squares.sum(axis=0))[counts - 1]
    weighed = np.cumsum((squares / variances).sum(axis=0))[counts - 1]
    left = n_free - counts
    noise = (variances.sum() - np.cumsum(variances)[counts - 1]) / left
    logs = np.cumsum(np.log(variances))[counts - 1] + left * np.log(noise)
    outside = np.maximum(np.sum(rows**2) - inside, 0.0) / noise
    constant = n_free * np.log(2 * np.pi)
    return np.asarray(-0.5 * (len(rows) * (constant + logs) + weighed + outside))


def _leading(beyond: npt.NDArray[np.bool_]) -> int:
    """Length of the run of True at the front, but at least 1."""
    return max(1, int(np.argmin(beyond)) if not beyond.all() else len(beyond))


def _variances(values: npt.ArrayLike) -> Float64:
    array = np.asarray(values, dtype=np.float64)
    fine = array.ndim == 1 and array.size > 0 and bool(np.isfinite(array).all())
    if not fine or array[-1] < 0 or not array[0] > 0 or np.any(np.diff(array) > 1e-12 * array[0]):
        raise ValueError(
            f"variances: got an array of shape {array.shape}, expected one or more finite numbers "
            "in falling order, none below 0 and the first above 0"
        )
    return array


def _fixed(rows: npt.ArrayLike, size: int) -> Float64:
    array = np.asarray(rows, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != size or len(array) >= size:
        raise ValueError(
            f"fixed: got shape {array.shape}, expected fewer than {size} rows of {size} numbers"
        )
    return array
