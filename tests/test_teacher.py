"""A teacher is one more target, and nothing else of a training."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_training
import torch
from network_probes import lived_in
from tiny_training import digest

from asmkit.annotations import read
from asmkit.datasets import synthetic_faces
from asmkit.nn import ASMAssistedLoss, ASMNet, Recipe, epoch, resume, train, training
from asmkit.nn.checkpoint import TrainingState, read_tensors
from asmkit.nn.data import Batch
from asmkit.nn.export import write_network
from asmkit.nn.heads import Features, LandmarkNetwork, NetworkOutput, as_input, from_crop
from asmkit.nn.initial_state import initial_state
from asmkit.nn.preparation import Parts, prepare
from asmkit.nn.processes import Processes
from asmkit.nn.schedule import stage_at
from asmkit.nn.teacher import Teacher, teacher_of
from asmkit.schemes import scheme

TINY = replace(tiny_training.TINY, epochs=2, teacher_weight=2.0, precision="float32")
MIRROR = scheme("ibug68").mirror

pytestmark = pytest.mark.usefixtures("no_onnx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces")
    synthetic_faces(16, 3, size=64).save(path)
    return path


@pytest.fixture(scope="module")
def parts(folder: Path) -> Parts:
    return prepare(read(folder), TINY, progress=False)


def trained_network(folder: Path, seed: int = 0, n_points: int = 68, **form: Any) -> Path:
    """The folder of a network that looks trained: wider than the student, of another crop."""
    folder.mkdir()
    recipe = replace(TINY, **{"width": 0.5, "input_size": 48, "margin": 1.2, **form})
    torch.manual_seed(seed)
    network = lived_in(ASMNet(n_points, width=recipe.width))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asmkit.nn.export.export_onnx", lambda *args: None)
        write_network(folder, network, recipe, scheme("ibug68") if n_points == 68 else None, {})
    return folder


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_network(tmp_path_factory.mktemp("teachers") / "wide")


class Knows(LandmarkNetwork):
    """Finds in each of the crops that it was told the points that it was told."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(batch.points.shape[1], 1)
        self.images = as_input(torch.from_numpy(batch.images))
        self.points = from_crop(torch.from_numpy(batch.points).float(), TINY.input_size)

    def find(self, images: torch.Tensor) -> tuple[NetworkOutput, Features]:
        rows = [int((self.images - image).abs().sum((1, 2, 3)).argmin()) for image in images]
        assert torch.equal(self.images[rows], images)
        nothing = torch.zeros(1)
        return NetworkOutput(self.points[rows], nothing), Features(*[nothing] * 4)


class Centroid(LandmarkNetwork):
    """Finds the centre of mass of what is brighter than black."""

    def __init__(self) -> None:
        super().__init__(1, 1)

    def find(self, images: torch.Tensor) -> tuple[NetworkOutput, Features]:
        mass = images[:, 0] + 1
        size = mass.shape[-1]
        along = (2 * torch.arange(size) + 1) / size - 1
        centre = torch.stack([(mass.sum(1) * along).sum(1), (mass.sum(2) * along).sum(1)], 1)
        nothing = torch.zeros(1)
        points = (centre / mass.sum((1, 2))[:, None])[:, None]
        return NetworkOutput(points, nothing), Features(*[nothing] * 4)


def gradients_of_a_step(
    parts: Parts, recipe: Recipe, batch: Batch, loss: ASMAssistedLoss, teacher: Teacher | None
) -> list[torch.Tensor]:
    torch.manual_seed(0)
    state = initial_state(parts, recipe)
    torch.manual_seed(1)  # drop-out
    epoch._step(state, batch, recipe, loss, 0.5, stage_at(0, recipe), teacher)
    return [p.grad.clone() for p in state.network.parameters() if p.grad is not None]


class WeightedLabels(ASMAssistedLoss):
    """Labels that count three times."""

    def forward(self, *args: Any, **options: Any) -> Any:
        terms = super().forward(*args, **options)
        return terms._replace(total=terms.total + 2 * terms.points)


@pytest.mark.parametrize("form", ["printed", "squared"])
def test_a_teacher_that_knows_the_truth_is_a_weight_on_the_labels(parts: Parts, form: str) -> None:
    recipe = replace(TINY, clip_norm=1e9, loss_form=form)
    batch = next(epoch.stage_batches(parts, recipe, stage_at(0, recipe), 0, Processes()))
    teacher = Teacher(Knows(batch), "", TINY.input_size)
    taught_by = ASMAssistedLoss(form, teacher_weight=2.0)
    taught = gradients_of_a_step(parts, recipe, batch, taught_by, teacher)
    weighted = gradients_of_a_step(parts, recipe, batch, WeightedLabels(form), None)
    plain = gradients_of_a_step(parts, recipe, batch, ASMAssistedLoss(form), None)
    size = sum(float(g.square().sum()) for g in weighted) ** 0.5
    away = [
        sum(float((a - b).square().sum()) for a, b in zip(taught, other, strict=True)) ** 0.5
        for other in (weighted, plain)
    ]
    assert away[0] <= 1e-5 * size
    assert away[1] >= 1e-2 * size


def test_crops_without_a_face_are_taught_nothing() -> None:
    """In the second stage of ATPN, half of the crops have no landmarks."""
    torch.manual_seed(0)
    given = torch.randn(4, 68, 2)
    points = torch.rand(4, 68, 2).double() * 32
    points[2:] = torch.nan
    labels = (torch.zeros(4, 3), torch.ones(4), torch.ones(4, 68))
    batch = Batch(*(x.numpy() for x in (given, points, points, *labels)))
    found = given.clone().requires_grad_()
    terms = epoch._terms(
        *(NetworkOutput(found, torch.zeros(4, 3)), batch, TINY),
        *(ASMAssistedLoss(teacher_weight=2.0), 0.0, stage_at(0, TINY), ("face",)),
        torch.zeros(4, 68, 2),
    )
    terms["loss"].backward()
    assert found.grad is not None
    assert (found.grad[2:] == 0).all()
    torch.testing.assert_close(terms["teacher"].detach(), given[:2].norm(dim=2).mean())


# -- what a teacher sees


@pytest.mark.parametrize(("size", "share"), [(64, 1.0), (40, 1.0), (96, 1.0), (64, 0.8), (30, 0.7)])
def test_a_teacher_of_another_crop_answers_in_the_students(size: int, share: float) -> None:
    """A spot is where it is, whatever crop of it the teacher takes."""
    rows = torch.arange(64.0)
    centre = torch.tensor([35.3, 24.6])
    spot = torch.exp(-((rows - centre[0]) ** 2 + (rows[:, None] - centre[1]) ** 2) / 18)
    images = (2 * spot - 1).expand(1, 3, 64, 64)
    found = Teacher(Centroid(), "", size, share).find(images)
    torch.testing.assert_close(found[0, 0], from_crop(centre, 64), atol=2e-4, rtol=0)


def test_a_teacher_that_looks_twice_is_mirror_equivariant() -> None:
    torch.manual_seed(0)
    network = lived_in(ASMNet(68, width=0.35))
    torch.nn.init.normal_(network.landmark_head.weight)  # a new one answers almost 0
    images = torch.rand(2, 3, 48, 48) * 2 - 1
    teacher = Teacher(network, "", 40, 0.9, MIRROR)
    seen, mirrored = teacher.find(images), teacher.find(images.flip(3))
    swapped = seen[:, list(MIRROR)] * torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(mirrored, swapped, atol=1e-5, rtol=0)
    once = Teacher(network, "", 40, 0.9).find(images)
    assert (once - seen).abs().max() > 1e-2
    assert not seen.requires_grad


# -- in a training


class _StoppedError(Exception):
    pass


def stop_at(monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    one_epoch = training.train_epoch

    def stopping(state: TrainingState, *args: Any) -> dict[str, float]:
        if state.epoch == last:
            raise _StoppedError
        return one_epoch(state, *args)

    monkeypatch.setattr(training, "train_epoch", stopping)


def tiny(folder: Path, out: Path, recipe: Recipe = TINY, **options: Any) -> Path:
    return train(folder, out, recipe, threads=1, progress=False, **options)


def test_a_stopped_training_resumes_with_its_teacher_alone(
    folder: Path, tmp_path: Path, wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest(wide)
    teacher = shutil.copytree(wide, tmp_path / "teacher")
    recipe = replace(TINY, teacher_views="flip")
    whole = tiny(folder, tmp_path / "whole", recipe, teacher=teacher)
    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        with pytest.raises(_StoppedError):
            tiny(folder, out, recipe, teacher=teacher)
    assert json.loads((out / "run.json").read_text())["teacher"] == str(teacher.resolve())
    shutil.rmtree(teacher)
    with pytest.raises(FileNotFoundError, match="teacher: neither a folder"):
        resume(out, progress=False)
    trained_network(teacher, seed=1)
    with pytest.raises(ValueError, match="started with teacher"):
        resume(out, progress=False)
    shutil.rmtree(teacher)
    shutil.copytree(wide, teacher)
    torch.manual_seed(99)  # whatever happened in between
    resume(out, progress=False)
    assert digest(out) == digest(whole)
    assert digest(teacher) == before
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert all(row["teacher"] > 0 for row in rows)
    # It taught something, and is not in what is kept.
    plain = tiny(folder, tmp_path / "plain", replace(TINY, teacher_weight=0.0))
    assert digest(plain) != digest(whole)
    for name in ("model", "checkpoint"):
        kept, expected = (read_tensors(run / f"{name}.safetensors")[0] for run in (whole, plain))
        assert {n: t.shape for n, t in kept.items()} == {n: t.shape for n, t in expected.items()}


def test_a_shipped_network_teaches_and_starts_by_its_name_also_after_a_stop(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.read("atpn", input_size=64, epochs=1, head_epochs=1, teacher_weight=1.0)
    names = {"teacher": "rendered-ibug68", "start": "rendered-ibug68"}
    with monkeypatch.context() as patch:
        stop_at(patch, 0)
        with pytest.raises(_StoppedError):
            tiny(folder, tmp_path / "run", recipe, **names)
        with pytest.raises(_StoppedError):
            resume(tmp_path / "run", progress=False)


# -- refused


@pytest.mark.parametrize(
    ("changes", "form", "message"),
    [
        ({"teacher_weight": 0.0}, {}, "teacher_weight is 0 .* expected a weight above 0"),
        ({"epochs": 0, "confidence_epochs": 1}, {}, "trains no landmarks"),
        ({"margin": 1.1}, {}, "margin of at least 1.2"),
        ({}, {"n_points": 19}, "finds 19 points of the scheme None, expected 68 of 'ibug68'"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(
    folder: Path, tmp_path: Path, changes: dict[str, Any], form: dict[str, Any], message: str
) -> None:
    teacher = trained_network(tmp_path / "teacher", **form)
    with pytest.raises(ValueError, match=message):
        teacher_of(teacher, replace(TINY, **changes), read(folder))


def test_a_teacher_without_what_it_needs_is_refused(
    folder: Path, tmp_path: Path, wide: Path
) -> None:
    with pytest.raises(ValueError, match="there is no teacher; name one"):
        tiny(folder, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    annotations = [
        replace(a, points=a.points[17:36], visibility=None, scheme=None) for a in read(folder)
    ]
    teacher = trained_network(tmp_path / "nineteen", n_points=19)
    flip = replace(TINY, teacher_views="flip")
    with pytest.raises(ValueError, match="of no known scheme"):
        teacher_of(teacher, flip, annotations)
    damaged = shutil.copytree(wide, tmp_path / "damaged")
    path = damaged / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    with pytest.raises(ValueError, match="SHA-256"):
        teacher_of(damaged, TINY, read(folder))
    assert teacher_of(None, replace(TINY, teacher_weight=0.0), annotations) is None
