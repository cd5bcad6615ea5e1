"""A training does what it says, and a killed one ends as the uninterrupted one."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import TINY, digest

import asmkit
from asmkit.datasets import synthetic_faces
from asmkit.errors import FormatError
from asmkit.nn import ASMAssistedLoss, Recipe, load_network, resume, train
from asmkit.nn.checkpoint import read_tensors, write_tensors
from asmkit.nn.schedule import learning_rate_at


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces")
    synthetic_faces(32, 3, size=64).save(path)
    return path


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    return train(folder, out, TINY, threads=1, progress=False)


def test_a_run_leaves_everything(run: Path) -> None:
    names = {path.name for path in run.iterdir()} - {"tensorboard"}  # where it is installed
    assert names == {
        "checkpoint.safetensors",
        "log.jsonl",
        "model.json",
        "model.onnx",
        "model.safetensors",
        "recipe.toml",
        "run.json",
        "shape_model.npz",
    }
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [row["alpha"] for row in rows] == [2, 2, 1, 0.5]
    assert Recipe.read(run / "recipe.toml") == TINY
    judge = asmkit.ShapeModel.load(run / "shape_model.npz")
    assert judge.explained_variance_ratio_.sum() >= 0.98
    assert json.loads((run / "model.json").read_text())["sha256"] == digest(run)


@pytest.mark.usefixtures("no_onnx")
def test_a_training_learns(folder: Path, tmp_path: Path) -> None:
    still = {"rotation": 0.0, "scale": 0.0, "shift": 0.0, "mirror": 0.0, "dropout": 0.0}
    still |= {"grey": 0.0, "blur": 0.0, "noise": 0.0, "occlusion": 0.0}
    recipe = replace(TINY, epochs=60, input_size=64, learning_rate=1e-2, validation=0.0, **still)
    out = train(folder, tmp_path / "run", recipe, threads=1, progress=False)
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["points"] < 0.6 * rows[0]["points"]
    assert rows[-1]["pose"] < 0.4 * rows[0]["pose"]


@pytest.mark.usefixtures("no_onnx")
def test_the_same_training_gives_the_same_weights(run: Path, folder: Path, tmp_path: Path) -> None:
    again = train(folder, tmp_path / "again", TINY, threads=1, progress=False)
    assert digest(again) == digest(run)
    other = replace(TINY, seed=1, epochs=1)
    assert digest(train(folder, tmp_path / "other", other, threads=1, progress=False)) != digest(
        run
    )


class _StoppedError(Exception):
    pass


@pytest.mark.usefixtures("no_onnx")
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_stopped_training_resumes_to_the_same_weights(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    from asmkit.nn import training

    one_epoch = training.train_epoch

    def stopping(state, *args):  # type: ignore[no-untyped-def]
        if state.epoch == epoch:
            raise _StoppedError
        return one_epoch(state, *args)

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_epoch", stopping)
        with pytest.raises(_StoppedError):
            train(folder, out, TINY, threads=1, progress=False)
    assert not (out / "model.json").exists()
    with pytest.raises(FileNotFoundError, match="--resume"):
        asmkit.load(out)
    torch.manual_seed(99)  # whatever happened in between
    resume(out, progress=False)
    assert digest(out) == digest(run)


@pytest.mark.usefixtures("no_onnx")
@pytest.mark.slow
def test_kills_at_any_moment_lose_nothing(run: Path, folder: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments; the last one resumes to the end."""
    out = tmp_path / "killed"
    arguments = ["--data", str(folder), "--out", str(out), "--threads", "1", "--quiet"]
    for name in ("width", "input_size", "epochs", "batch_size", "warmup_steps"):
        arguments += ["--set", f"{name}={getattr(TINY, name)}"]
    for name in ("learning_rate", "validation", "asm_components"):
        arguments += ["--set", f"{name}={getattr(TINY, name)}"]
    arguments += ["--recipe", str(run / "recipe.toml")]
    rng = np.random.default_rng(0)
    for attempt in range(3):
        started = (out / "run.json").exists()
        command = ["--resume", str(out), "--quiet"] if started else arguments
        process = subprocess.Popen([sys.executable, "-m", "asmkit", "train", *command])
        _wait_for(out / "run.json", process)
        time.sleep(rng.uniform(0.0, 1.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        (out / f".checkpoint.{attempt}.part.safetensors").write_bytes(b"half a checkpoint")
    resume(out, progress=False)
    assert digest(out) == digest(run)
    assert not list(out.glob(".*"))


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists() and process.poll() is None:
        time.sleep(0.05)


def test_an_interrupted_write_leaves_the_old_checkpoint(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.safetensors"
    write_tensors(path, {"a": torch.ones(3)}, {"n": 1})

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_tensors(path, {"a": torch.zeros(3)}, {"n": 2})
    monkeypatch.undo()
    tensors, record = read_tensors(path)
    assert record == {"n": 1}
    assert (tensors["a"] == 1).all()
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_truncated_checkpoint_is_named(run: Path, tmp_path: Path) -> None:
    data = (run / "checkpoint.safetensors").read_bytes()
    for size in (0, 5, 1000, len(data) - 1):
        path = tmp_path / "state.safetensors"
        path.write_bytes(data[:size])
        with pytest.raises(FormatError, match="truncated"):
            read_tensors(path)


@pytest.mark.usefixtures("no_onnx")
def test_resuming_on_other_data_is_refused(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in folder.iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    out = train(data, tmp_path / "run", replace(TINY, epochs=1), threads=1, progress=False)
    moved = asmkit.read(data / "face_00001.pts")[0]
    asmkit.write(data / "face_00001.pts", [replace(moved, points=moved.points + 1)])
    with pytest.raises(ValueError, match="started with data"):
        resume(out, progress=False)


def test_the_averaged_weights_rebuild_everything(run: Path) -> None:
    network, description = load_network(run)
    assert description["arch"] == "asmnet"
    assert not network.training
    names = {name for name, _ in network.named_parameters()}
    saved, _ = read_tensors(run / "model.safetensors")
    assert names <= saved.keys()


def test_an_existing_folder_is_not_overwritten(run: Path, folder: Path) -> None:
    before = digest(run)
    with pytest.raises(FileExistsError, match="resume"):
        train(folder, run, TINY, progress=False)
    assert digest(run) == before


def test_nothing_is_written_when_the_data_is_broken(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(FileNotFoundError):
        train(tmp_path / "missing", out, TINY, progress=False)
    with pytest.raises(ValueError, match="unknown architecture"):
        train(folder, out, replace(TINY, arch="resnet"), progress=False)
    with pytest.raises(FileNotFoundError, match="no training to resume"):
        resume(out, progress=False)
    assert not out.exists()


@pytest.mark.usefixtures("no_onnx")
def test_a_diverging_loss_is_reported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ASMAssistedLoss, "_distance", lambda self, p, t: (p - t).mean() * np.nan)
    with pytest.raises(ValueError, match="learning rate"):
        train(folder, tmp_path / "wild", replace(TINY, epochs=1), threads=1, progress=False)


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    recipe = Recipe(learning_rate=1.0, warmup_steps=10)
    rates = [learning_rate_at(step, 100, recipe) for step in range(100)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] < 1e-3


@pytest.mark.usefixtures("no_onnx")
def test_points_without_a_scheme_train_without_pose_labels(tmp_path: Path) -> None:
    data = tmp_path / "data"
    faces = synthetic_faces(12, 0, size=64)
    for annotation in faces.save(data):
        asmkit.write(
            data / f"{annotation.name}.pts",
            [replace(annotation, points=annotation.points[17:36], visibility=None, scheme=None)],
        )
    out = train(data, tmp_path / "run", replace(TINY, epochs=1), threads=1, progress=False)
    predictor = asmkit.load(out, engine="torch")
    assert predictor.scheme is None
    assert predictor.n_points == 19
    image = asmkit.read_image(data / "face_00000.png")
    assert np.isnan(predictor.predict(image, [[10, 10, 40, 40]]).pose).all()
    assert np.isfinite(asmkit.evaluate(predictor, asmkit.read(data)).nme).all()
