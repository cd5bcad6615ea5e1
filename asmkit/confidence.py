"""How sure a network is of each landmark: scales of errors, visibility, and whether they hold.

A network with such a head states for each landmark the distance from the truth that is to be
expected there, its *scale* m. About the truth the errors then have one of two densities in the
plane, the same in every direction, r the distance, both with the expectation ``E r = m``::

    laplace    p = 2 / (π m²) · exp(−2 r / m)         P(r ≤ t) = 1 − (1 + 2 t / m) exp(−2 t / m)
    gaussian   p = 1 / (4 m²) · exp(−π r² / (4 m²))   P(r ≤ t) = 1 − exp(−π t² / (4 m²))

``"laplace"`` (``exp(−r / s)`` with s = m / 2) has the longer tail, which landmark errors have too;
``"gaussian"`` has the standard deviation ``σ = m √(2 / π)`` in each coordinate.

Calibration multiplies the scales by a factor c, of each landmark or of all, that makes errors which
were not learned from most likely: c is the mean of r / m under ``"laplace"``, the root of π / 4
times the mean of (r / m)² under ``"gaussian"``.

Such a network also gives the probability that nothing lies over a landmark, its *visibility*, which
is another question: a covered landmark is often found well, from the rest of the face. The
*confidence* in a landmark (:attr:`asmkit.Prediction.confidence`) is the product of the two, the
probability of being in plain view and within 5 % of the box of the truth. Calibration of the
visibility is Platt's: a slope and an offset of its logit, on faces with things laid over them.

References
----------
A. Kendall, Y. Gal (2017). What uncertainties do we need in Bayesian deep learning for computer
vision? NIPS. C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger (2017). On calibration of modern neural
networks. ICML. J. Platt (1999). Probabilistic outputs for support vector machines and comparisons
to regularized likelihood methods. Advances in Large Margin Classifiers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from asmkit.model import ShapeModel
    from asmkit.predictor import Prediction

__all__ = [
    "LIKELIHOODS",
    "NEAR",
    "Reliability",
    "calibration_error",
    "calibration_factors",
    "complete_covered",
    "covers_some",
    "doubt_outliers",
    "platt_scaling",
    "probability_within",
    "reliability",
]

Doubles = npt.NDArray[np.float64]

#: The densities by which scales are learned.
LIKELIHOODS = ("laplace", "gaussian")

#: What counts as found, in units of the longer side of the box: about a tenth of the distance
#: between the outer corners of a face's eyes, the usual limit of a failed landmark.
NEAR = 0.05

#: A landmark less visible than this is taken for covered; none counts as less visible than that.
_COVERED, _LEAST_VISIBILITY = 0.5, 0.01

#: Per density: β and k of exp(−(2 / β) k (r / m)^β), and the deviation of one coordinate over m.
_POWER = {"laplace": 1, "gaussian": 2}
_FACTOR = {"laplace": 1.0, "gaussian": np.pi / 4}
_DEVIATION = {"laplace": np.sqrt(3) / 2, "gaussian": np.sqrt(2 / np.pi)}


def probability_within(
    distance: npt.ArrayLike, scale: npt.ArrayLike, likelihood: str = "laplace"
) -> Doubles:
    """Probability that a landmark lies within a distance of the truth.

    Parameters
    ----------
    distance, scale : array_like
        In one unit, of shapes that broadcast; scales above 0, NaN where there is none.
    likelihood : {"laplace", "gaussian"}
        Density of the errors, see :mod:`asmkit.confidence`.

    Returns
    -------
    ndarray
        From 0 to 1; NaN where the scale is.

    Raises
    ------
    ValueError
        For a distance below 0 or an unknown density.
    """
    _check_likelihood(likelihood)
    limit = np.asarray(distance, np.float64)
    if not (limit >= 0).all():
        raise ValueError(f"distance: got {distance!r}, expected at least 0")
    ratio = limit / np.asarray(scale, np.float64)
    if likelihood == "gaussian":
        return np.asarray(-np.expm1(-np.pi / 4 * ratio**2))
    return np.asarray(1 - (1 + 2 * ratio) * np.exp(-2 * ratio))


def calibration_factors(
    errors: npt.ArrayLike, scale: npt.ArrayLike, likelihood: str = "laplace"
) -> Doubles:
    """Factors by which to multiply scales, so that errors not learned from are most likely.

    One factor a landmark, or one in all where that explains the errors of each face better when
    its factors are taken from the other faces (leave-one-out): so with few faces it is one.

    Parameters
    ----------
    errors : array_like (n_faces, n_points)
        Distances from the truth.
    scale : array_like (n_faces, n_points)
        What was stated, in the same unit.
    likelihood : {"laplace", "gaussian"}

    Returns
    -------
    ndarray (n_points,)

    Raises
    ------
    ValueError
        When there is no face, the shapes differ, or all errors are 0.
    """
    _check_likelihood(likelihood)
    ratio = np.asarray(errors, np.float64) / np.asarray(scale, np.float64)
    if ratio.ndim != 2 or np.shape(errors) != np.shape(scale) or not ratio.size:
        raise ValueError(
            f"errors, scale: got {np.shape(errors)} and {np.shape(scale)}, expected the same "
            "(n_faces, n_points), at least one face"
        )
    if not np.isfinite(ratio).all() or not ratio.any():
        raise ValueError("errors, scale: expected finite numbers, scales and some error above 0")
    power = _POWER[likelihood]
    terms = _FACTOR[likelihood] * ratio**power
    several, one = terms.mean(axis=0), np.full(terms.shape[1], terms.mean())
    n = len(terms)
    if n > 1:
        others = (n * several - terms) / (n - 1)
        better = _held_out_loss(terms, others) < _held_out_loss(
            terms, others.mean(axis=1, keepdims=True)
        )
    factors: Doubles = np.where(n > 1 and better, several, one)
    return factors ** (1 / power)


def _held_out_loss(terms: Doubles, powers: Doubles) -> float:
    """Mean of 2 / β · (log c^β + t / c^β) but for the 2 / β, where c^β is ``powers``."""
    powers = np.maximum(powers, np.finfo(np.float64).tiny)  # of faces without any error
    with np.errstate(over="ignore"):
        return float((np.log(powers) + terms / powers).mean())


def platt_scaling(logits: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[float, float]:
    """Slope and offset of logits by which labels that were not learned from are most likely.

    ``P = 1 / (1 + exp(−(slope · logit + offset)))``, with Platt's targets ``(n₁ + 1) / (n₁ + 2)``
    and ``1 / (n₀ + 2)`` in place of 1 and 0: so the answer stays finite where logits separate the
    labels, or all labels are the same.

    Parameters
    ----------
    logits : array_like
        Of any shape.
    labels : array_like
        Of the same shape: 1 or 0; NaN is left out.

    Returns
    -------
    slope, offset : float

    Raises
    ------
    ValueError
        When the shapes differ, no label is left, or a logit is not finite.

    References
    ----------
    J. Platt (1999), section 2.2.
    """
    # Not above: every use of a network would wait for it.
    from scipy.optimize import minimize
    from scipy.special import expit

    given, truth = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    if given.shape != truth.shape:
        raise ValueError(
            f"logits, labels: got shapes {given.shape} and {truth.shape}, expected the same"
        )
    known = ~np.isnan(truth)
    given, right = given[known], truth[known] > 0.5
    if not given.size or not np.isfinite(given).all():
        raise ValueError("logits, labels: expected at least one label, and finite logits")
    target = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    # In units in which Newton's steps are as long one way as the other.
    mean, spread = given.mean(), given.std() or 1.0
    design = np.stack([(given - mean) / spread, np.ones_like(given)])

    def loss(weights: Doubles) -> tuple[float, Doubles]:
        stated = weights @ design
        value = (np.logaddexp(0, stated) - target * stated).mean()
        return float(value), design @ (expit(stated) - target) / len(target)

    slope, offset = minimize(loss, np.zeros(2), jac=True, method="BFGS").x
    return float(slope / spread), float(offset - slope * mean / spread)


class Reliability(NamedTuple):
    """What was stated, and what held, in bins of equal width of the confidence."""

    #: (bins,) mean confidence in each; NaN in an empty one
    stated: Doubles
    #: (bins,) share that was right; NaN in an empty one
    observed: Doubles
    #: (bins,) how many
    number: npt.NDArray[np.int64]


def reliability(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 10) -> Reliability:
    """Compare stated probabilities with how often they held, bin by bin.

    Parameters
    ----------
    confidence : array_like
        Probabilities of any shape; NaN is left out.
    correct : array_like of bool
        Of the same shape: whether each was right.
    bins : int
        Of equal width from 0 to 1.

    Returns
    -------
    Reliability

    Raises
    ------
    ValueError
        When the shapes differ, nothing is left to compare, or a number is no probability.
    """
    stated, right = np.asarray(confidence, np.float64), np.asarray(correct)
    if stated.shape != right.shape:
        raise ValueError(
            f"confidence, correct: got shapes {stated.shape} and {right.shape}, expected the same"
        )
    if bins < 1:
        raise ValueError(f"bins: got {bins}, expected at least 1")
    known = ~np.isnan(stated)
    stated, right = stated[known], right[known].astype(bool)
    if not stated.size:
        raise ValueError("confidence: got no number, expected at least one that is not NaN")
    if stated.min() < 0 or stated.max() > 1:
        raise ValueError(
            f"confidence: got {stated.min():g} to {stated.max():g}, expected probabilities"
        )
    place = np.minimum((stated * bins).astype(np.intp), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            np.bincount(place, stated, bins) / count,
            np.bincount(place, right, bins) / count,
            count.astype(np.int64),
        )


def calibration_error(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 10) -> float:
    """Expected calibration error: how far stated probabilities are from how often they hold.

    ``Σ_b n_b / N · |observed_b − stated_b|`` over bins of equal width (Guo et al. 2017, eq. 3).

    Parameters
    ----------
    confidence, correct, bins
        As for :func:`asmkit.confidence.reliability`.

    Returns
    -------
    float
        From 0 (right on average in every bin) to 1.

    Raises
    ------
    ValueError
        As :func:`asmkit.confidence.reliability`.
    """
    found = reliability(confidence, correct, bins)
    gaps = np.abs(np.nan_to_num(found.observed - found.stated))
    return float((gaps * found.number).sum() / found.number.sum())


def doubt_outliers(prediction: Prediction, model: ShapeModel) -> Prediction:
    """Make a network less sure of landmarks whose place the other landmarks contradict.

    The model completes each face from its landmarks with their own scales as noise, robustly (see
    :meth:`asmkit.ShapeModel.credible_regions`). The weight w that this gives a landmark means that
    it is as good as one with a variance 1 / w as great, so its scale becomes ``scale / √w``, w
    being at most 1: no landmark gains confidence by looking plausible. Points stay.
    They should be the network's own: ``predict(shape_prior=False)``.

    Parameters
    ----------
    prediction : Prediction
        With scales.
    model : ShapeModel
        Fitted, of the same landmarks; the folder of a training holds one in ``shape_model.npz``.

    Returns
    -------
    Prediction
        The same but for its scales, and so its confidence.

    Raises
    ------
    ValueError
        When the network states no scales, or the model is of other landmarks or in the frame
        ``"box"``.
    """
    if prediction.likelihood not in LIKELIHOODS:
        raise ValueError(
            "prediction: its network states no scales; expected one that was trained with "
            f"confidence = {' or '.join(LIKELIHOODS)} in its recipe"
        )
    if not len(prediction.points):
        return prediction
    noise = prediction.scale * _DEVIATION[prediction.likelihood]
    weights = model.credible_regions(prediction.points, noise, robust=True).weights
    return replace(prediction, scale=prediction.scale / np.sqrt(np.minimum(weights, 1.0)))


def covers_some(prediction: Prediction) -> npt.NDArray[np.bool_]:
    """On which faces ``(n_faces,)`` a landmark is more likely covered than in plain view.

    None of a network that does not tell covered landmarks.
    """
    if prediction.visibility is None:
        return np.zeros(len(prediction.points), bool)
    return np.asarray((prediction.visibility < _COVERED).any(axis=1))


def complete_covered(prediction: Prediction, model: ShapeModel) -> Prediction:
    """Place the landmarks of partly covered faces by a shape model as well.

    On a face of which a landmark is more likely covered than not, all landmarks become the most
    probable shape of the model given those that the network found, each with the noise
    ``scale / (2 visibility)`` (see :meth:`asmkit.ShapeModel.complete`): what is seen stays nearly
    where it is, what is covered follows it. Of a landmark in plain view half of the scale is noise:
    the other half are errors that it shares with others, which look like another shape or pose.
    Faces in plain view stay as they are; so do scales and visibilities. From one frame of a video
    to the next a face may come to be partly covered, or cease to be, and its landmarks then jump by
    some of their error.

    Doubt first: :func:`doubt_outliers` can tell a wrong landmark only before it was completed, in
    what ``predict(shape_prior=False)`` gives.

    Parameters
    ----------
    prediction : Prediction
        With visibilities.
    model : ShapeModel
        Fitted, of the same landmarks; :attr:`asmkit.Predictor.shape_model` is that of the training.

    Returns
    -------
    Prediction
        The same but for the points of such faces.

    Raises
    ------
    ValueError
        When the network tells no covered landmarks, or the model is of other landmarks or in the
        frame ``"box"``.
    """
    if prediction.visibility is None:
        raise ValueError(
            "prediction: its network does not tell covered landmarks; expected one that gives "
            "visibilities, as one does whose confidence head was trained by this asmkit"
        )
    rows = covers_some(prediction)
    if not rows.any():
        return prediction
    visibility = np.maximum(prediction.visibility[rows], _LEAST_VISIBILITY)
    points = prediction.points.copy()
    points[rows] = model.complete(points[rows], prediction.scale[rows] / (2 * visibility))
    return replace(prediction, points=points)


def _check_likelihood(likelihood: str) -> None:
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"likelihood: got {likelihood!r}, expected one of {LIKELIHOODS}")
