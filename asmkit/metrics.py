"""How far predictions are from the truth: NME, failure rate, AUC, CED, pose error.

An error names its normaliser; errors are fractions (papers print them times 100). A face that was
not found has the error infinity, so it counts as a failure everywhere below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from asmkit._check import Floats, as_shapes
from asmkit.boxes import landmark_box
from asmkit.schemes import Scheme, scheme_of
from asmkit.schemes import scheme as find_scheme

__all__ = [
    "angle_difference",
    "auc",
    "ced",
    "default_normalizer",
    "failure_rate",
    "nme",
    "nme_by_group",
    "normalizing_distance",
    "pose_mae",
]

Float64s = npt.NDArray[np.float64]


def _box_diagonal(truth: Floats) -> Float64s:
    box = landmark_box(truth)
    return np.asarray(np.hypot(box[:, 2], box[:, 3]))


def _box_size(truth: Floats) -> Float64s:
    box = landmark_box(truth)
    return np.asarray(np.sqrt(box[:, 2] * box[:, 3]))


_SCHEME_FREE: Mapping[str, Callable[[Floats], Float64s]] = {
    "box-diagonal": _box_diagonal,
    "box-size": _box_size,
}


def normalizing_distance(
    truth: npt.ArrayLike,
    normalizer: str | npt.ArrayLike = "inter-ocular",
    scheme: str | Scheme | None = None,
) -> Float64s:
    """Compute what the error of each shape is divided by, from the true points alone.

    Parameters
    ----------
    truth : array_like (n, n_points, n_dims)
    normalizer : str or array_like (n,)
        ``"box-diagonal"``: of the tight landmark box, √(w² + h²). ``"box-size"``: √(w·h). Or a
        distance that the scheme names: ``"inter-ocular"`` (outer eye corners) or ``"inter-pupil"``
        (centres of the eyes, about 0.71 times the former). Or the distances themselves.
    scheme : str or Scheme, optional
        By default the known scheme with this number of points.

    Returns
    -------
    ndarray (n,)

    Raises
    ------
    ValueError
        When the name is unknown, or a distance is zero or cannot be known (missing points).
    """
    shapes = as_shapes(truth, "truth", allow_nan=True)
    if not isinstance(normalizer, str):
        distance = np.broadcast_to(np.asarray(normalizer, dtype=np.float64), len(shapes)).copy()
    elif normalizer in _SCHEME_FREE:
        distance = _SCHEME_FREE[normalizer](shapes)
    else:
        distance = _scheme_distance(shapes, normalizer, scheme)
    wrong = ~(np.isfinite(distance) & (distance > 0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"the normalizing distance of {wrong.sum()} shape(s) is not a positive number, the "
            f"first is number {row} ({distance[row]}); are its points missing or all equal?"
        )
    return distance


def default_normalizer(scheme: Scheme | None) -> str:
    """``"inter-ocular"`` for a face, the diagonal of the true box for anything else."""
    has_eyes = scheme is not None and "inter-ocular" in scheme.normalizers
    return "inter-ocular" if has_eyes else "box-diagonal"


def _scheme_distance(shapes: Floats, normalizer: str, scheme: str | Scheme | None) -> Float64s:
    n_points = shapes.shape[1]
    known = scheme_of(n_points) if scheme is None else find_scheme(scheme)
    named = known.normalizers if known else {}
    if known is None or normalizer not in named:
        raise ValueError(
            f"no normalizer {normalizer!r} for {known.name if known else f'{n_points} points'}; "
            f"known: {', '.join([*_SCHEME_FREE, *named])}, or an array of distances"
        )
    if known.n_points != n_points:
        raise ValueError(f"got {n_points} points a shape, but {known.name} has {known.n_points}")
    first, second = (
        shapes[:, list(ends)].mean(axis=1, dtype=np.float64) for ends in named[normalizer]
    )
    return np.asarray(np.linalg.norm(first - second, axis=-1))


def _point_errors(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> Float64s:
    """Euclidean errors (n, p): NaN where the truth is missing, inf where the prediction is."""
    true = as_shapes(truth, "truth", allow_nan=True)
    guessed = as_shapes(
        predicted, "predicted", n_points=true.shape[1], n_dims=true.shape[2], allow_nan=True
    )
    if len(guessed) != len(true):
        raise ValueError(f"got {len(guessed)} predicted and {len(true)} true shapes")
    errors = np.linalg.norm(guessed.astype(np.float64) - true, axis=-1)
    errors[np.isnan(guessed).any(axis=-1)] = np.inf
    errors[np.isnan(true).any(axis=-1)] = np.nan
    return np.asarray(errors)


def _mean_of_known(errors: Float64s) -> Float64s:
    known = ~np.isnan(errors)
    count = known.sum(axis=1)
    total = np.where(known, errors, 0.0).sum(axis=1)
    return np.asarray(np.divide(total, count, out=np.full(len(errors), np.nan), where=count > 0))


def nme(
    predicted: npt.ArrayLike,
    truth: npt.ArrayLike,
    normalizer: str | npt.ArrayLike = "inter-ocular",
    scheme: str | Scheme | None = None,
) -> Float64s:
    """Normalised mean error of each shape: mean over the points of ‖p − g‖₂, divided by d(g).

    Parameters
    ----------
    predicted, truth : array_like (n, n_points, n_dims)
        Points missing (NaN) in the truth do not count; a point missing in the prediction (the face
        was not found) makes the error infinite.
    normalizer, scheme
        See :func:`normalizing_distance`.

    Returns
    -------
    ndarray (n,)
        Fractions, not per cent.

    Raises
    ------
    ValueError
        When the shapes do not match, or a normalizing distance cannot be known.
    """
    errors = _mean_of_known(_point_errors(predicted, truth))
    return errors / normalizing_distance(truth, normalizer, scheme)


def nme_by_group(
    predicted: npt.ArrayLike,
    truth: npt.ArrayLike,
    normalizer: str | npt.ArrayLike = "inter-ocular",
    scheme: str | Scheme | None = None,
) -> dict[str, Float64s]:
    """Compute the normalised mean error of each named part of the scheme.

    Parameters and errors are those of :func:`nme`.

    Returns
    -------
    dict of str to ndarray (n,)
        NaN where the truth of a part is missing altogether.
    """
    errors = _point_errors(predicted, truth)
    known = scheme_of(errors.shape[1]) if scheme is None else find_scheme(scheme)
    if known is None or known.n_points != errors.shape[1]:
        raise ValueError(f"{errors.shape[1]} points are of no known scheme; give scheme=")
    distance = normalizing_distance(truth, normalizer, known)
    return {
        part: _mean_of_known(errors[:, list(indices)]) / distance
        for part, indices in known.groups.items()
    }


def _as_errors(nme: npt.ArrayLike) -> Float64s:
    errors = np.asarray(nme, dtype=np.float64)
    if errors.ndim != 1 or errors.size == 0:
        raise ValueError(f"nme: got shape {errors.shape}, expected (n,) with n at least 1")
    if not (errors >= 0).all():
        raise ValueError("nme: holds NaN or negative values; a face not found has the error inf")
    return errors


def _as_threshold(threshold: float) -> float:
    if not (np.isfinite(threshold) and threshold > 0):
        raise ValueError(f"threshold: got {threshold}, expected a positive fraction such as 0.08")
    return threshold


def failure_rate(nme: npt.ArrayLike, threshold: float = 0.08) -> float:
    """Share of the faces whose error is greater than ``threshold`` (equal is no failure)."""
    return float(np.mean(_as_errors(nme) > _as_threshold(threshold)))


def auc(nme: npt.ArrayLike, threshold: float = 0.08) -> float:
    """Area under the cumulative error curve up to ``threshold``, divided by it.

    The curve is a step function, so its integral is exact, without a grid:
    ``mean(max(0, threshold − nme)) / threshold``.
    """
    cut = _as_threshold(threshold)
    return float(np.mean(np.maximum(0.0, cut - _as_errors(nme))) / cut)


def ced(nme: npt.ArrayLike, thresholds: npt.ArrayLike) -> Float64s:
    """Cumulative error distribution: share of the faces with an error of at most each threshold.

    Parameters
    ----------
    nme : array_like (n,)
    thresholds : array_like (m,)

    Returns
    -------
    ndarray (m,)
    """
    errors = np.sort(_as_errors(nme))
    below = np.searchsorted(errors, np.asarray(thresholds, dtype=np.float64), side="right")
    return np.asarray(below / errors.size, dtype=np.float64)


def angle_difference(first_deg: npt.ArrayLike, second_deg: npt.ArrayLike) -> Float64s:
    """``first − second`` in degrees, by the shorter way round: in [−180, 180)."""
    difference = np.asarray(first_deg, dtype=np.float64) - np.asarray(second_deg, dtype=np.float64)
    return np.asarray((difference + 180.0) % 360.0 - 180.0)


def pose_mae(predicted_deg: npt.ArrayLike, truth_deg: npt.ArrayLike) -> Float64s:
    """Mean absolute error of yaw, pitch and roll, by the shorter way round.

    Parameters
    ----------
    predicted_deg, truth_deg : array_like (n, 3)
        Degrees, in one convention. Rows with NaN (no face found) are left out: report their number.

    Returns
    -------
    ndarray (3,)
        NaN when no row is left.
    """
    predicted, truth = np.asarray(predicted_deg), np.asarray(truth_deg)
    if predicted.shape != truth.shape or predicted.ndim != 2 or predicted.shape[1] != 3:
        raise ValueError(
            f"got shapes {predicted.shape} and {truth.shape}, expected (n, 3) of both: "
            "yaw, pitch, roll in degrees"
        )
    error = np.abs(angle_difference(predicted, truth))
    known = error[~np.isnan(error).any(axis=1)]
    return known.mean(axis=0) if len(known) else np.full(3, np.nan)
