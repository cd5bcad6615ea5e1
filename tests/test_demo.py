"""The demo walks the whole route; its baselines are what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import asmkit
from asmkit.boxes import landmark_box
from asmkit.datasets import synthetic_faces
from asmkit.demo import _jitter, _mean_in_boxes, run_demo
from asmkit.images import image_size
from asmkit.splits import validation_part


@pytest.mark.slow
def test_the_demo_leaves_what_it_promises(tmp_path: Path) -> None:
    said: list[str] = []
    result = run_demo(tmp_path / "demo", n_faces=40, epochs=1, say=said.append)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert result.folder == tmp_path / "demo"
    assert len(said) == 6
    assert result.summary == json.loads((result.folder / "results.json").read_text())
    assert result.summary["evaluation"]["n"] == 4
    assert len(asmkit.read(result.folder / "faces")) == 40
    smoothed = asmkit.read(result.folder / "smoothed")
    model = asmkit.ShapeModel.load(result.folder / "shape_model.npz")
    truth = {a.name: a.points for a in asmkit.read(result.folder / "faces")}
    for annotation in smoothed:
        expected = model.smooth(truth[annotation.name])
        np.testing.assert_allclose(annotation.points, expected, atol=1e-9)
    for picture in ("modes", "predictions", "ced", "training"):
        assert min(image_size(result.folder / f"{picture}.png")) > 100
    again = asmkit.evaluate(
        asmkit.load(result.folder / "run"), asmkit.read(result.folder / "faces")[:4]
    )
    assert 100 * again.nme.mean() == pytest.approx(
        result.summary["nme"]["ASMNet in the true boxes"], abs=1e-3
    )
    assert "unseen" in str(result)
    with pytest.raises(FileExistsError, match="not empty"):
        run_demo(result.folder)


@pytest.mark.slow
def test_the_demo_on_a_folder_keeps_a_part_unseen(tmp_path: Path) -> None:
    synthetic_faces(24, 5, size=48).save(tmp_path / "data")
    result = run_demo(tmp_path / "demo", tmp_path / "data", epochs=1)
    names = [annotation.name for annotation in asmkit.read(tmp_path / "data")]
    unseen = validation_part(names, 0.2)
    assert result.summary["evaluation"]["n"] == unseen.sum()
    learned = {path.stem for path in (result.folder / "smoothed").iterdir()}
    assert learned == {name for name, out in zip(names, unseen, strict=True) if not out}


def test_a_demo_that_fails_leaves_nothing(tmp_path: Path) -> None:
    synthetic_faces(24, 5, size=48).save(tmp_path / "data")
    (tmp_path / "data" / "face_00003.png").write_bytes(b"no picture")
    with pytest.raises(asmkit.FormatError, match="face_00003"):
        run_demo(tmp_path / "new" / "demo", tmp_path / "data", epochs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_jittered_boxes_are_near_and_the_same_for_a_seed(rng: np.random.Generator) -> None:
    boxes = np.concatenate([rng.normal(size=(99, 2)), rng.uniform(1, 9, (99, 2))], axis=1)
    jittered = _jitter(boxes, seed=3)
    ratio = jittered[:, 2:] / boxes[:, 2:]
    np.testing.assert_allclose(ratio[:, 0], ratio[:, 1])
    assert np.abs(np.log(ratio)).max() <= 0.08
    shift = (jittered - boxes)[:, :2] + (jittered - boxes)[:, 2:] / 2
    assert np.abs(shift / boxes[:, 2:]).max() <= 0.08
    assert np.abs(shift / boxes[:, 2:]).max() > 0.07
    np.testing.assert_array_equal(jittered, _jitter(boxes, seed=3))
    assert (jittered != _jitter(boxes, seed=4)).all()


def test_the_mean_in_the_box_of_like_shapes_is_that_shape(rng: np.random.Generator) -> None:
    shape = rng.normal(size=(7, 2))
    scaled = shape * rng.uniform(1, 5, (20, 1, 2)) + rng.normal(size=(20, 1, 2))
    np.testing.assert_allclose(_mean_in_boxes(scaled, landmark_box(scaled)), scaled, atol=1e-12)
