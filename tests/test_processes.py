"""Training on two processes is training on one that sees each batch in two halves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_training
import torch
from tiny_training import digest

from asmkit.datasets import synthetic_faces
from asmkit.nn import Recipe, epoch, train
from asmkit.nn.checkpoint import TrainingState, read_tensors
from asmkit.nn.data import Batch
from asmkit.nn.processes import Processes, choose_device
from asmkit.nn.teacher import Teacher

pytestmark = pytest.mark.slow

#: Three steps an epoch; drop-out would draw other numbers in each process.
TINY = replace(tiny_training.TINY, epochs=7, dropout=0.0, learning_rate=2e-3, teacher_weight=0.5)

TRAIN = """
    import sys
    import torch
    import asmkit.nn.export
    from asmkit.nn import Recipe, resume, train
    from asmkit.nn.processes import Processes

    data, out, gradients, teacher = sys.argv[1:]
    asmkit.nn.export.export_onnx = lambda *args: None
    average = Processes.average_step

    def first_step(self, network):
        average(self, network)
        if self.writes:
            torch.save([p.grad.clone() for p in network.parameters()], gradients)
        Processes.average_step = average

    Processes.average_step = first_step
    if data == "resume":
        resume(out, progress=False)
    else:
        recipe = Recipe.read(out + ".toml")
        train(data, out, recipe, threads=1, teacher=teacher, progress=False)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces")
    synthetic_faces(32, 3, size=64).save(path)
    return path


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "train.py"
    path.write_text(textwrap.dedent(TRAIN))
    return path


@pytest.fixture(scope="module")
def teacher(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = replace(TINY, epochs=1, width=0.5, teacher_weight=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asmkit.nn.export.export_onnx", lambda *args: None)
        out = tmp_path_factory.mktemp("teachers") / "wide"
        return train(folder, out, recipe, threads=1, progress=False)


def start(script: Path, *arguments: object, recipe: Recipe = TINY) -> subprocess.Popen[bytes]:
    Path(f"{arguments[1]}.toml").write_text(recipe.to_toml())
    package = str(Path(__file__).parents[1])
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *(str(script), *map(str, arguments)),
        ],
        env={**os.environ, "PYTHONPATH": package, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(run / "model.safetensors")[0]


@pytest.fixture(scope="module")
def together(
    folder: Path, script: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A training on two processes, and its first gradients beside it."""
    out = tmp_path_factory.mktemp("runs") / "two"
    assert start(script, folder, out, f"{out}.gradients", teacher).wait(timeout=300) == 0
    return out


def test_two_processes_equal_one_that_sees_the_halves(
    folder: Path,
    teacher: Path,
    together: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first: list[torch.Tensor] = []

    def in_halves(
        state: TrainingState, batch: Batch, recipe: Recipe, loss, alpha, stage, taught_by: Teacher
    ):
        """A step on the mean gradient of both halves, each with batch statistics of its own."""
        network = state.network
        before = {name: b.clone() for name, b in network.named_buffers()}
        gradients, buffers, terms = [], [], []
        held: list[torch.Tensor] = []
        for part in range(2):
            for name, buffer in network.named_buffers():
                buffer.copy_(before[name])
            half = Batch(*(values[part::2] for values in batch))
            images = epoch.as_input(torch.from_numpy(half.images))
            output, found = network(images), taught_by.find(images)
            term = epoch._terms(output, half, recipe, loss, alpha, stage, ("face",), found)
            network.zero_grad(set_to_none=True)
            term["loss"].backward()
            gradients.append([p.grad.clone() for p in network.parameters()])
            buffers.append({name: b.clone() for name, b in network.named_buffers()})
            terms.append(term)
        for name, buffer in network.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_((buffers[0][name] + buffers[1][name]) / 2)
        for p, a, b in zip(network.parameters(), *gradients, strict=True):
            p.grad = (a + b) / 2
            held.append(p.grad.clone())
        first.extend(held if not first else [])
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
        state.optimizer.step()
        state.average.update_parameters(network)
        state.step += 1
        return terms[0]

    monkeypatch.setattr(epoch, "_step", in_halves)
    monkeypatch.setattr("asmkit.nn.export.export_onnx", lambda *args: None)
    alone = train(folder, tmp_path / "one", TINY, threads=1, teacher=teacher, progress=False)
    for ours, reference in zip(torch.load(f"{together}.gradients"), first, strict=True):
        assert (ours - reference).norm() <= 1e-5 * reference.norm()
    assert json.loads((together / "model.json").read_text())["trained"]["samples"] >= 20 * 8
    found = weights(together)
    for name, expected in weights(alone).items():
        if expected.is_floating_point():
            assert (found[name] - expected).norm() <= 1e-4 * max(expected.norm(), 1e-3), name


def test_a_killed_worker_costs_no_finished_epoch(
    folder: Path, script: Path, teacher: Path, tmp_path: Path, together: Path
) -> None:
    out = tmp_path / "killed"
    process = start(script, folder, out, tmp_path / "g", teacher)
    deadline = time.monotonic() + 240
    while not (out / "log.jsonl").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.is_file():
        process.kill()
        pytest.skip("this system does not list the children of a process")
    os.kill(int(children.read_text().split()[-1]), signal.SIGKILL)
    assert process.wait(timeout=120) != 0
    done = len((out / "log.jsonl").read_text().splitlines())
    assert done >= 1
    assert not (out / "model.safetensors").exists()
    assert start(script, "resume", out, tmp_path / "g", teacher).wait(timeout=300) == 0
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in log] == list(range(1, TINY.epochs + 1))
    assert digest(out) == digest(together)


def test_too_many_processes_for_a_batch_are_refused(folder: Path, tmp_path: Path) -> None:
    from asmkit.annotations import read
    from asmkit.nn.data import LandmarkDataset, whole_batch

    dataset = LandmarkDataset(read(folder), replace(TINY, batch_size=8), None)
    assert whole_batch(dataset, 3) == 6
    with pytest.raises(ValueError, match="less than two for each of 5 processes"):
        whole_batch(dataset, 5)


def test_one_process_averages_nothing() -> None:
    tensor = torch.arange(3.0)
    Processes().average([tensor])
    assert torch.equal(tensor, torch.arange(3.0))
    assert Processes().gather(tensor)[0] is tensor


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(None) == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="no GPU here"):
        choose_device("cuda")
    with pytest.raises(ValueError, match="expected 'cpu' or 'cuda'"):
        choose_device("tpu")
