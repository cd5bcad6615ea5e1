"""How well something finds landmarks, measured on annotated images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from asmkit.annotations import Annotation
from asmkit.box_calibration import Detect
from asmkit.boxes import BELONGS, as_boxes, iou, landmark_box
from asmkit.confidence import NEAR, calibration_error
from asmkit.detection import detect_faces
from asmkit.images import read_image
from asmkit.metrics import (
    auc,
    default_normalizer,
    failure_rate,
    nme,
    nme_by_group,
    pose_mae,
)
from asmkit.pose import head_rotations, rotation_to_euler
from asmkit.predictor import Predictor
from asmkit.schemes import Scheme, scheme, scheme_of

__all__ = ["Evaluation", "evaluate"]

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The errors of a network on a set of annotated images.

    Attributes
    ----------
    points : ndarray (n, n_points, 2)
        What was found; NaN for a face that the detector missed.
    pose : ndarray (n, 3)
        Yaw, pitch, roll in degrees; NaN likewise.
    nme : ndarray (n,)
        Normalised mean error of each face as a fraction; infinite for a missed face.
    summary : dict
        Plain numbers: ``n, missed, recall`` (%), ``nme`` and ``median_found`` (%, over the faces
        found), ``median`` (%, over all), ``normalizer, failure_rate, auc, threshold, pose_mae``
        (degrees, against the scaled-orthographic pose of the annotated landmarks),
        ``nme_by_group`` (%), and how it was looked: ``boxes, flip, passes, shape_prior``. A missed
        face is a failure. From a network with a confidence head also ``calibration_error`` (%), of
        the stated probability of lying within 5 % of the box, :meth:`asmkit.Prediction.within`.
    confidence : ndarray (n, n_points)
        How sure each landmark was, see :attr:`asmkit.Prediction.confidence`; NaN for a missed face
        or from a network without a confidence head.
    boxes : ndarray (n, 4)
        The boxes that were looked into; NaN for a missed face.
    nme_by_group : dict of str to ndarray (n,)
        Normalised mean error of each named part of each face, as :attr:`nme`; NaN where the truth
        of a part is missing. Empty for landmarks of no known scheme.
    """

    points: Doubles
    pose: Doubles
    nme: Doubles
    summary: dict[str, Any]
    confidence: Doubles
    boxes: Doubles
    nme_by_group: dict[str, Doubles]


def evaluate(
    predictor: Predictor,
    annotations: Sequence[Annotation],
    *,
    boxes: str | Detect = "truth",
    normalizer: str | None = None,
    threshold: float = 0.08,
    flip: bool = False,
    passes: int = 1,
    shape_prior: bool = True,
    progress: bool = False,
) -> Evaluation:
    """Measure a network on annotated images.

    Parameters
    ----------
    predictor : Predictor
    annotations : sequence of Annotation
        Each with its image and complete points.
    boxes : {"truth", "detector"} or callable
        Look into the tight boxes of the annotated landmarks, into those of the face detector, or
        into those of ``image -> boxes (n, 4)``, as :meth:`asmkit.BoxCalibration.detector` makes
        one of any detector. Of several detected boxes the one that overlaps the face most counts,
        and a face that none overlaps by an IoU of 0.3 is missed: a failure.
    normalizer : str, optional
        What divides the errors; by default ``"inter-ocular"`` where the scheme has it, else
        ``"box-diagonal"``. See :func:`asmkit.nme`.
    threshold : float
        Of the failure rate and the area under the curve, as a fraction.
    flip, passes, shape_prior
        How to look, see :meth:`asmkit.Predictor.predict`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        For an empty set, an annotation without image, or another number of points than the
        network's.
    """
    if not callable(boxes) and boxes not in ("truth", "detector"):
        raise ValueError(f"boxes: got {boxes!r}, expected 'truth', 'detector' or a callable")
    detect = boxes if callable(boxes) else detect_faces
    truth = _truth(predictor, annotations)
    chosen = scheme(predictor.scheme) if predictor.scheme else scheme_of(predictor.n_points)
    normalizer = normalizer or default_normalizer(chosen)
    points = np.full(truth.shape, np.nan)
    pose = np.full((len(truth), 3), np.nan)
    confidence = np.full(truth.shape[:2], np.nan)
    near, correct = confidence.copy(), np.zeros(truth.shape[:2], bool)
    looked = np.full((len(truth), 4), np.nan)
    for row, annotation in enumerate(
        tqdm(annotations, "evaluating", disable=not progress, leave=False)
    ):
        assert annotation.image is not None  # checked by _truth
        image = read_image(annotation.image)
        true_box = landmark_box(truth[row])[None]
        found = true_box if boxes == "truth" else _nearest(as_boxes(detect(image)), true_box)
        prediction = predictor.predict(
            image, found, flip=flip, passes=passes, shape_prior=shape_prior
        )
        if len(found):
            looked[row] = found[0]
            points[row], pose[row] = prediction.points[0], prediction.pose[0]
            confidence[row] = prediction.confidence[0]
            near[row] = prediction.within(NEAR)[0]
            away = np.linalg.norm(points[row] - truth[row], axis=1)
            correct[row] = away <= NEAR * found[0, 2:].max()
    errors = nme(points, truth, normalizer, chosen)
    summary = _summary(errors, normalizer, threshold)
    where = boxes if isinstance(boxes, str) else "callable"
    summary |= {"boxes": where, "flip": flip, "passes": passes, "shape_prior": shape_prior}
    summary["pose_mae"] = _pose_error(pose, truth, chosen)
    stated = np.isfinite(near) & np.isfinite(truth).all(2)
    if stated.any():
        error = calibration_error(near[stated], correct[stated])
        summary["calibration_error"] = _percent(error)
    groups = nme_by_group(points, truth, normalizer, chosen) if chosen else {}
    if chosen:
        seen = np.isfinite(errors)
        summary["nme_by_group"] = {
            name: _percent(values[seen].mean()) if seen.any() else None
            for name, values in groups.items()
        }
    return Evaluation(points, pose, errors, summary, confidence, looked, groups)


def _truth(predictor: Predictor, annotations: Sequence[Annotation]) -> Doubles:
    if not annotations:
        raise ValueError("annotations: got none, expected at least one annotated image")
    for annotation in annotations:
        if annotation.image is None:
            raise ValueError(f"{annotation.name}: no image stands beside this annotation")
        if annotation.points.shape != (predictor.n_points, 2):
            raise ValueError(
                f"{annotation.name}: points of shape {annotation.points.shape}, but the network "
                f"finds {predictor.n_points} points; expected data of the scheme it was trained on"
            )
        if not landmark_box(annotation.points)[2:].max() > 0:
            raise ValueError(
                f"{annotation.name}: all points are missing (NaN) or equal, so there is no box to "
                "look into; complete or drop this annotation"
            )
    truth: Doubles = np.stack([annotation.points for annotation in annotations])
    return truth


def _nearest(found: Doubles, true_box: Doubles) -> Doubles:
    overlap = iou(found, true_box)
    if not len(found) or overlap.max() < BELONGS:
        return np.empty((0, 4))
    best = int(overlap.argmax())
    return found[best : best + 1]


def _percent(fraction: float) -> float:
    return round(100 * float(fraction), 4)


def _summary(errors: Doubles, normalizer: str, threshold: float) -> dict[str, Any]:
    found = errors[np.isfinite(errors)]
    return {
        "n": len(errors),
        "missed": len(errors) - len(found),
        "recall": _percent(len(found) / len(errors)),
        "nme": _percent(found.mean()) if len(found) else None,
        "median_found": _percent(np.median(found)) if len(found) else None,
        "median": _percent(np.median(errors)) if np.isfinite(np.median(errors)) else None,
        "normalizer": normalizer,
        "failure_rate": _percent(failure_rate(errors, threshold)),
        "auc": round(auc(errors, threshold), 6),
        "threshold": threshold,
    }


def _pose_error(pose: Doubles, truth: Doubles, chosen: Scheme | None) -> dict[str, float] | None:
    labels = rotation_to_euler(head_rotations(truth, chosen.name if chosen else None))
    known = np.isfinite(pose).all(1) & np.isfinite(labels).all(1)
    if not known.any():
        return None
    errors = pose_mae(pose[known], labels[known])
    return {
        name: round(float(error), 4)
        for name, error in zip(("yaw", "pitch", "roll"), errors, strict=True)
    }
