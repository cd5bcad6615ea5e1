"""The evaluation counts what it says; a face that was not found is a failure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import asmkit
from asmkit.annotations import Annotation
from asmkit.datasets import synthetic_faces
from asmkit.pose import Camera, face_reference, solve_pnp
from asmkit.predictor import Predictor
from asmkit.splits import validation_part


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> list[Annotation]:
    return synthetic_faces(6, 1, size=96).save(tmp_path_factory.mktemp("faces"))


def oracle(annotations: list[Annotation], error: float, size: int = 512) -> Predictor:
    """A stand-in for a network that knows the truth, and moves every point by ``error`` in x."""
    truth = np.stack([annotation.points for annotation in annotations])
    boxes = asmkit.boxes.landmark_box(truth)
    matrices = asmkit.boxes.crop_transform(boxes, size, 1.25)
    pose = solve_pnp(truth, face_reference("ibug68"), Camera.orthographic()).euler()
    calls = iter(range(len(annotations)))

    def run(crops):  # type: ignore[no-untyped-def]
        if not len(crops):
            return np.empty((0, 68, 2)), np.empty((0, 3))
        row = next(calls)
        moved = truth[row] + [error, 0.0]
        return asmkit.boxes.apply_affine(matrices[row], moved)[None], pose[row : row + 1] + 2.0

    description = {"n_points": 68, "input_size": size, "margin": 1.25, "scheme": "ibug68"}
    return Predictor(run, description, "oracle")


def test_the_truth_has_no_error(annotations: list[Annotation]) -> None:
    summary = asmkit.evaluate(oracle(annotations, 0.0), annotations).summary
    assert summary["n"] == 6
    assert summary["missed"] == 0
    assert summary["nme"] == pytest.approx(0, abs=1e-6)
    assert summary["auc"] == pytest.approx(1, abs=1e-6)
    assert summary["pose_mae"] == pytest.approx({"yaw": 2, "pitch": 2, "roll": 2}, abs=1e-3)


def test_a_known_error_is_found(annotations: list[Annotation]) -> None:
    evaluation = asmkit.evaluate(oracle(annotations, 3.0), annotations, threshold=0.1)
    eyes = [np.linalg.norm(a.points[36] - a.points[45]) for a in annotations]
    np.testing.assert_allclose(evaluation.nme, 3.0 / np.array(eyes), rtol=1e-9)
    summary = evaluation.summary
    assert summary["nme"] == pytest.approx(100 * evaluation.nme.mean(), abs=1e-3)
    assert summary["failure_rate"] == pytest.approx(100 * (evaluation.nme > 0.1).mean(), abs=1e-3)
    assert summary["normalizer"] == "inter-ocular"
    assert set(summary["nme_by_group"]) == set(asmkit.scheme("ibug68").groups)
    assert json.loads(json.dumps(summary)) == summary


def test_a_missed_face_is_a_failure(
    annotations: list[Annotation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asmkit.evaluation.detect_faces", lambda image: np.empty((0, 4)))
    evaluation = asmkit.evaluate(oracle(annotations, 0.0), annotations, boxes="detector")
    assert np.isinf(evaluation.nme).all()
    assert np.isnan(evaluation.points).all()
    summary = evaluation.summary
    assert summary["missed"] == summary["n"] == 6
    assert summary["recall"] == 0
    assert summary["failure_rate"] == 100
    assert summary["auc"] == 0
    assert summary["nme"] is summary["median_found"] is None
    assert summary["pose_mae"] is None


def test_any_detector_may_be_measured(annotations: list[Annotation]) -> None:
    """One face in three is missed; it counts in the rates, and in no error of those found."""
    boxes = [asmkit.boxes.landmark_box(a.points)[None] for a in annotations]
    boxes[1] = boxes[1][:0]
    boxes[4] = boxes[4] + np.array([boxes[4][0, 2], 0, 0, 0])  # beside the face
    given = iter(boxes)
    truth = np.stack([a.points for i, a in enumerate(annotations) if i not in (1, 4)])
    seen = [a for i, a in enumerate(annotations) if i not in (1, 4)]
    evaluation = asmkit.evaluate(
        oracle(seen, 3.0), annotations, boxes=lambda image: next(given), threshold=0.2
    )
    expected = 3.0 / np.linalg.norm(truth[:, 36] - truth[:, 45], axis=1)
    assert np.isinf(evaluation.nme[[1, 4]]).all()
    summary = evaluation.summary
    assert (summary["n"], summary["missed"]) == (6, 2)
    assert summary["recall"] == pytest.approx(100 * 4 / 6, abs=1e-3)
    assert summary["failure_rate"] == pytest.approx(100 * 2 / 6, abs=1e-3)
    assert summary["median_found"] == pytest.approx(100 * np.median(expected), abs=1e-3)
    assert summary["nme"] == pytest.approx(100 * np.mean(expected), abs=1e-3)
    assert summary["median"] > summary["median_found"]
    assert json.loads(json.dumps(summary)) == summary


def test_the_detected_box_nearest_to_the_face_counts(
    annotations: list[Annotation], monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = iter(asmkit.boxes.landmark_box(a.points) for a in annotations)

    def detect(image: object) -> np.ndarray:
        box = next(truth)
        return np.stack([np.add(box, [400, 0, 0, 0]), box])

    monkeypatch.setattr("asmkit.evaluation.detect_faces", detect)
    evaluation = asmkit.evaluate(oracle(annotations, 0.0), annotations, boxes="detector")
    assert evaluation.summary["missed"] == 0
    assert evaluation.summary["nme"] == pytest.approx(0, abs=1e-6)


def test_wrong_data_is_named(annotations: list[Annotation]) -> None:
    predictor = oracle(annotations, 0.0)
    with pytest.raises(ValueError, match="at least one"):
        asmkit.evaluate(predictor, [])
    with pytest.raises(ValueError, match="no image"):
        asmkit.evaluate(predictor, [replace(annotations[0], image=None)])
    with pytest.raises(ValueError, match="68 points"):
        asmkit.evaluate(
            predictor,
            [replace(annotations[0], points=np.zeros((5, 2)), visibility=None, scheme=None)],
        )
    with pytest.raises(ValueError, match="'truth', 'detector' or a callable"):
        asmkit.evaluate(predictor, annotations, boxes="guess")


def test_the_validation_part_is_fixed(tmp_path: Path) -> None:
    names = [f"face_{i}" for i in range(4000)]
    part = validation_part(names, 0.1)
    assert 0.08 < part.mean() < 0.12
    np.testing.assert_array_equal(part, validation_part(names, 0.1))
    more = validation_part(names, 0.3)
    assert (more | ~part).all()
    assert [n for n, held in zip(names[:40], part[:40], strict=True) if held] == PINNED
    assert not validation_part(names, 0.0).any()
    with pytest.raises(ValueError, match="0 to 1"):
        validation_part(names, 1.5)


#: The part must never change: results that were selected on it would lose their meaning.
PINNED = ["face_21", "face_33", "face_35"]
