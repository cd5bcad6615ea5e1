"""Using a network: the same numbers from each engine, in the image's own pixels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import asmkit
from asmkit.boxes import landmark_box
from asmkit.datasets import SyntheticFaces, synthetic_faces
from asmkit.errors import FormatError
from asmkit.nn import Recipe, train


@pytest.fixture(scope="module")
def faces() -> SyntheticFaces:
    return synthetic_faces(16, 3, size=96)


@pytest.fixture(scope="module")
def run(faces: SyntheticFaces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predictor")
    annotations = faces.save(folder / "faces")
    recipe = Recipe(width=0.35, input_size=64, epochs=2, batch_size=8, validation=0.0)
    return train(annotations, folder / "run", recipe, threads=1, progress=False)


def padded(image: npt.NDArray[np.uint8], by: int) -> npt.NDArray[np.uint8]:
    return np.pad(image, ((by, by), (by, by), (0, 0)), mode="edge")


def test_engines_agree(run: Path, faces: SyntheticFaces) -> None:
    boxes = landmark_box(faces.points)
    results = [
        asmkit.load(run, engine=engine, threads=1).predict(faces.images[0], boxes[:3])
        for engine in ("onnxruntime", "torch")
    ]
    # 1e-4 of half a crop, which shows 1.25 boxes.
    scale = 1.25 * boxes[:3, 2:].max() / 2
    np.testing.assert_allclose(results[0].points, results[1].points, atol=1e-4 * scale)
    np.testing.assert_allclose(results[0].pose, results[1].pose, atol=np.rad2deg(1e-4))


def test_batch_is_single(run: Path, faces: SyntheticFaces) -> None:
    predictor = asmkit.load(run)
    boxes = landmark_box(faces.points)
    together = predictor.locate(faces.images[0], boxes)
    alone = np.concatenate([predictor.locate(faces.images[0], box[None]) for box in boxes])
    np.testing.assert_allclose(together, alone, atol=1e-3)


def test_points_move_with_the_image(run: Path, faces: SyntheticFaces) -> None:
    predictor = asmkit.load(run)
    image, box = faces.images[1], landmark_box(faces.points[1])
    there = predictor.predict(padded(image, 20), np.add(box, [20, 20, 0, 0]))
    here = predictor.predict(image, box)
    np.testing.assert_allclose(there.points, here.points + 20, atol=0.05)
    np.testing.assert_allclose(there.pose, here.pose, atol=0.1)


def test_without_faces_the_arrays_are_empty(run: Path) -> None:
    found = asmkit.load(run).predict(np.zeros((80, 80, 3), np.uint8))
    assert found.points.shape == (0, 68, 2)
    assert found.pose.shape == (0, 3)
    assert found.boxes.shape == (0, 4)
    assert found.face.shape == (0,)


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_a_network_without_a_tracking_head_does_not_judge(
    run: Path, faces: SyntheticFaces, engine: str
) -> None:
    found = asmkit.load(run, engine=engine).predict(faces.images[0], landmark_box(faces.points[:2]))
    assert found.face.shape == (2,)
    assert np.isnan(found.face).all()
    assert np.isfinite(found.pose).all()


def test_the_contract_of_finders(run: Path, faces: SyntheticFaces) -> None:
    predictor = asmkit.load(run)
    shapes = predictor.locate(faces.images[0], landmark_box(faces.points[:2]))
    assert shapes.shape == (2, 68, 2)
    assert shapes.dtype == np.float64
    assert predictor.engine == "onnxruntime"


@pytest.mark.parametrize(
    ("image", "boxes", "error"),
    [
        (np.zeros((80, 80), np.uint8), None, ValueError),
        (np.zeros((80, 80, 3)), None, TypeError),
        (np.zeros((80, 80, 3), np.uint8), [[0, 0, 10]], ValueError),
        (np.zeros((80, 80, 3), np.uint8), [[0, 0, 0, 0]], ValueError),
        (np.zeros((80, 80, 3), np.uint8), [[0, 0, np.nan, 5]], ValueError),
    ],
)
def test_wrong_input_is_an_error(
    run: Path, image: object, boxes: object, error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"got|row|expected"):
        asmkit.load(run).predict(image, boxes)  # type: ignore[arg-type]


def test_no_network_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.json"):
        asmkit.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        asmkit.load(tmp_path / "missing")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "arch": 3}'])
def test_a_garbage_description_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(FormatError, match=r"model\.json"):
        asmkit.load(tmp_path)


def test_a_newer_format_is_refused(run: Path, tmp_path: Path) -> None:
    description = json.loads((run / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**description, "format": 3}))
    with pytest.raises(FormatError, match="update asmkit"):
        asmkit.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "engine"), [("model.onnx", "onnxruntime"), ("model.safetensors", "torch")]
)
def test_damaged_weights_are_named(run: Path, tmp_path: Path, name: str, engine: str) -> None:
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    data = (broken / name).read_bytes()
    (broken / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match=name):
        asmkit.load(broken, engine=engine)
    (broken / name).unlink()
    with pytest.raises(FileNotFoundError):
        asmkit.load(broken, engine=engine)


def test_unknown_engine(run: Path) -> None:
    with pytest.raises(ValueError, match="onnxruntime"):
        asmkit.load(run, engine="tensorrt")
