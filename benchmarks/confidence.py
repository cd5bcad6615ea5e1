"""Whether a network's confidence holds: calibration, covered landmarks, contradicted landmarks.

    python benchmarks/confidence.py RUN --data ../shared/data/300w/train

On the images that the training of RUN held out of that folder (``--all``: on all of a folder that
it has not seen), in the boxes of the annotated landmarks:

* the expected calibration error of "within 5 % of the longer side of the box", and within 2 %, as
  stated before calibration, after it, and with the factors of one half measured on the other;
* the area under the ROC curve of scale, visibility and confidence (``within()`` times visibility)
  for visible against covered landmarks, where an ellipse or a rectangle lies over part of each
  face, of one colour with grain or a piece of another photo: over all landmarks together, the mean
  of the areas of the faces, the mean of those of the landmarks, and over what each scale lost
  against the same face uncovered. Of the scale also: for landmarks within 5 % against those that
  are not, which is what it is learned for. The calibration errors of the visibility, before and
  after its calibration, and of the confidence, of being in plain view and within 5 %;
* the error of visible and of covered landmarks, and of all where nothing was laid over the faces,
  by the network alone and with its shape model (``asmkit.complete_covered``), in sides of the box;
* the areas for a tenth of the landmarks moved away from what was found, before and after the shape
  model of RUN doubts them (``asmkit.doubt_outliers``).
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

import asmkit
from asmkit.boxes import landmark_box
from asmkit.confidence import NEAR, calibration_factors, probability_within
from asmkit.images import read_image
from asmkit.nn.augment import visible_points
from asmkit.plotting import plot_reliability, save_figure
from asmkit.splits import validation_part

Doubles = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]


def found_in(
    predictor: asmkit.Predictor, images: Sequence[Image], boxes: Doubles
) -> asmkit.Prediction:
    """What is found in the one box of each image, as one prediction, by the network alone."""
    parts = [
        predictor.predict(image, box[None], shape_prior=False)
        for image, box in zip(images, boxes, strict=True)
    ]
    names = ("points", "pose", "boxes", "face", "scale")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    told = [part.visibility for part in parts if part.visibility is not None]
    visibility = np.concatenate(told) if told else None
    return asmkit.Prediction(**arrays, likelihood=parts[0].likelihood, visibility=visibility)


def covered_by(
    rng: np.random.Generator, image: Image, box: Doubles, other: Image | None
) -> tuple[Image, npt.NDArray[np.bool_]]:
    """An image with something over part of a box, and the pixels that it covers."""
    side = box[2:].max()
    centre = box[:2] + rng.uniform(0, 1, 2) * box[2:]
    shape = (centre.tolist(), (side * rng.uniform(0.2, 0.5, 2)).tolist(), rng.uniform(0, 180))
    mask = np.zeros(image.shape[:2], np.uint8)
    if rng.random() < 0.5:
        cv2.ellipse(mask, shape, 255, -1)
    else:
        cv2.fillConvexPoly(mask, cv2.boxPoints(shape).astype(np.int32), 255)
    if other is None:
        grain = rng.uniform(0, 40) * rng.standard_normal((*image.shape[:2], 1))
        cover = np.clip(rng.uniform(0, 255, 3) + grain, 0, 255).astype(np.uint8)
    else:
        cover = np.asarray(cv2.resize(other, image.shape[1::-1])[::-1], np.uint8)
    return np.where(mask[..., None] > 0, cover, image), mask > 0


def areas(sure: Doubles, doubtful: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Area under the ROC curve of all landmarks, of the faces and of the landmarks (means)."""

    def mean(sure: Doubles, doubtful: npt.NDArray[np.bool_]) -> float:
        both = doubtful.any(1) & ~doubtful.all(1)
        rows = zip(sure[both], doubtful[both], strict=True)
        return round(float(np.mean([roc_auc_score(~d, s) for s, d in rows])), 4)

    return {
        "auc": mean(sure.reshape(1, -1), doubtful.reshape(1, -1)),
        "auc_of_faces": mean(sure, doubtful),
        "auc_of_landmarks": mean(sure.T, doubtful.T),
    }


def visibility_row(
    found: asmkit.Prediction,
    covered: npt.NDArray[np.bool_],
    near: npt.NDArray[np.bool_],
    predictor: asmkit.Predictor,
) -> dict[str, object]:
    """What a network with a visibility head says of covered landmarks; nothing of one without."""
    if found.visibility is None:
        return {}
    calibration = predictor.description["trained"].get("visibility_calibration")
    slope, offset = (calibration or {}).get("slope", 1.0), (calibration or {}).get("offset", 0.0)
    uncalibrated = expit((logit(found.visibility) - offset) / slope)
    errors = {
        "visibility_before": asmkit.calibration_error(uncalibrated, ~covered),
        "visibility": asmkit.calibration_error(found.visibility, ~covered),
        "confidence": asmkit.calibration_error(found.confidence, ~covered & near),
    }
    return {
        "by_visibility": areas(found.visibility, covered),
        "by_confidence": areas(found.confidence, covered),
        **{f"calibration_error_of_{name}": round(error, 4) for name, error in errors.items()},
    }


def held_out(run: Path, data: Path, everything: bool) -> list[asmkit.Annotation]:
    annotations = asmkit.read(data, require_images=True)
    if everything:
        return annotations
    share = tomllib.loads((run / "recipe.toml").read_text("utf-8"))["validation"]
    kept = validation_part([a.name for a in annotations], share)
    return [a for a, out in zip(annotations, kept, strict=True) if out]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of annotated images")
    parser.add_argument("--all", action="store_true", help="all images, not the held-out part")
    parser.add_argument("--plot", type=Path, help="file for a reliability diagram")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    predictor = asmkit.load(arguments.run)
    annotations = held_out(arguments.run, arguments.data, arguments.all)
    images = [read_image(a.image) for a in annotations if a.image is not None]
    truth = np.stack([a.points for a in annotations])
    boxes = landmark_box(truth)
    side = boxes[:, 2:].max(1, keepdims=True)

    def away(points: Doubles) -> Doubles:
        return np.asarray(np.linalg.norm(points - truth, axis=2) / side)

    plain = found_in(predictor, images, boxes)
    errors, kind = away(plain.points), plain.likelihood
    stated = plain.scale / side
    calibration = predictor.description["trained"].get("calibration") or {"factors": 1.0}
    raw = stated / np.asarray(calibration["factors"])
    crossed = raw.copy()
    for half in (0, 1):
        crossed[half::2] *= calibration_factors(errors[1 - half :: 2], raw[1 - half :: 2], kind)
    row: dict[str, Any] = {
        "faces": len(truth),
        "error": round(float(errors.mean()), 5),
        "scale": round(float(stated.mean()), 5),
        "factors": calibration["factors"],
    }
    model = predictor.shape_model
    assert model is not None
    if plain.visibility is not None:
        completed = away(asmkit.complete_covered(plain, model).points)
        row["error_completed"] = round(float(completed.mean()), 5)
    curves = {}
    for near in (NEAR, 0.02):
        right = errors <= near
        for name, scale in (("before", raw), ("after", stated), ("crossed", crossed)):
            sure = probability_within(near, scale, kind)
            row[f"calibration_error_{name}_{near}"] = round(
                asmkit.calibration_error(sure, right), 4
            )
            curves[f"{name}, within {near:.0%}"] = (sure, right)
        row[f"right_{near}"] = round(float(right.mean()), 4)
    if plain.visibility is not None:
        row["of_faces_that_nothing_covers"] = {
            "visibility": round(float(plain.visibility.mean()), 4),
            "calibration_error_of_confidence": round(
                asmkit.calibration_error(plain.confidence, errors <= NEAR), 4
            ),
        }
    for name in ("flat", "photo"):
        covers = [None] * len(images) if name == "flat" else [*images[1:], images[0]]
        pairs = [
            covered_by(rng, image, box, cover)
            for image, box, cover in zip(images, boxes, covers, strict=True)
        ]
        found = found_in(predictor, [image for image, _ in pairs], boxes)
        labels = [visible_points(one, mask) for one, (_, mask) in zip(truth, pairs, strict=True)]
        covered = np.stack(labels) == 0
        distance, sure = away(found.points), found.within()
        row[f"covered_{name}"] = {
            "share": round(float(covered.mean()), 4),
            "error_visible": round(float(distance[~covered].mean()), 5),
            "error_covered": round(float(distance[covered].mean()), 5),
            "scale_visible": round(float((found.scale / side)[~covered].mean()), 4),
            "scale_covered": round(float((found.scale / side)[covered].mean()), 4),
            "by_scale": areas(-found.scale / side, covered),
            "auc_of_what_was_lost": areas(plain.scale / found.scale, covered)["auc"],
            "auc_of_errors_over_5%": areas(-found.scale / side, distance > NEAR)["auc"],
            "calibration_error": round(asmkit.calibration_error(sure, distance <= NEAR), 4),
            **visibility_row(found, covered, distance <= NEAR, predictor),
        }
        if found.visibility is not None:
            completed = away(asmkit.complete_covered(found, model).points)
            row[f"covered_{name}"] |= {
                "error_visible_completed": round(float(completed[~covered].mean()), 5),
                "error_covered_completed": round(float(completed[covered].mean()), 5),
            }
    moved = rng.random(truth.shape[:2]) < 0.1
    turn = rng.uniform(0, 2 * np.pi, truth.shape[:2])
    offset = rng.uniform(0.05, 0.25, truth.shape[:2]) * side * moved
    wrong = plain.points + offset[..., None] * np.stack([np.cos(turn), np.sin(turn)], 2)
    spoiled = replace(plain, points=wrong)
    doubted = asmkit.doubt_outliers(spoiled, model)
    unspoiled = asmkit.doubt_outliers(plain, model)
    row["moved"] = {
        "before": areas(-spoiled.scale / side, moved),
        "after": areas(-doubted.scale / side, moved),
        "calibration_error_before": round(
            asmkit.calibration_error(spoiled.within(), away(wrong) <= NEAR), 4
        ),
        "calibration_error_after": round(
            asmkit.calibration_error(doubted.within(), away(wrong) <= NEAR), 4
        ),
        "calibration_error_of_none_moved": round(
            asmkit.calibration_error(unspoiled.within(), errors <= NEAR), 4
        ),
    }
    if arguments.plot:
        save_figure(plot_reliability(curves), arguments.plot)
    print(json.dumps(row))


if __name__ == "__main__":
    main()
