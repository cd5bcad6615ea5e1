"""ATPN is trained in two stages: the landmarks, then pose and face, which leave them alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tiny_training import digest

import asmkit
from asmkit.boxes import landmark_box
from asmkit.datasets import synthetic_faces
from asmkit.errors import FormatError
from asmkit.images import write_image
from asmkit.nn import Recipe, load_network, resume, train, training
from asmkit.nn.checkpoint import TrainingState, read_tensors

TINY = Recipe(
    arch="atpn",
    width=0.5,
    input_size=48,
    dropout=0.1,
    epochs=2,
    head_epochs=2,
    batch_size=8,
    warmup_steps=2,
    learning_rate=3e-3,
    validation=0.2,
    asm_components=4,
    precision="float32",
    # Everything learns in both stages: the hardest case for a training that is to be resumed.
    trunk_rate=0.3,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces")
    synthetic_faces(24, 3, size=64).save(path)
    return path


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("others")
    rng = np.random.default_rng(0)
    for i in range(3):
        write_image(path / f"{i}.png", rng.integers(0, 256, (60, 40, 3), dtype=np.uint8))
    return path


@pytest.fixture
def with_onnx() -> None:
    """Of a test that needs the export."""


@pytest.fixture(autouse=True)
def _no_onnx(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the export, which takes longer than these trainings and has its own tests."""
    if "with_onnx" not in request.fixturenames:
        monkeypatch.setattr("asmkit.nn.export.export_onnx", lambda *args: None)


def tiny(data: Path, out: Path, recipe: Recipe = TINY, **options: Any) -> Path:
    return train(data, out, recipe, threads=1, progress=False, **options)


def log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]


Tensors = dict[str, torch.Tensor]


def watch(monkeypatch: pytest.MonkeyPatch, before: Callable[[TrainingState], None]) -> None:
    """Call a function with the state of a training before each of its epochs."""
    one_epoch = training.train_epoch

    def watching(state: TrainingState, *args: Any) -> dict[str, float]:
        before(state)
        return one_epoch(state, *args)

    monkeypatch.setattr(training, "train_epoch", watching)


class Watched(NamedTuple):
    """A training with copies of its weights, and of their average, before each epoch."""

    run: Path
    network: dict[int, Tensors]
    average: dict[int, Tensors]
    kept: Tensors


def watched_training(data: Path, out: Path, recipe: Recipe) -> Watched:
    network: dict[int, Tensors] = {}
    average: dict[int, Tensors] = {}

    def before(state: TrainingState) -> None:
        for copies, module in ((network, state.network), (average, state.average.module)):
            copies[state.epoch] = {n: t.clone() for n, t in module.state_dict().items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asmkit.nn.export.export_onnx", lambda *args: None)
        watch(patch, before)
        tiny(data, out, recipe)
    return Watched(out, network, average, read_tensors(out / "model.safetensors")[0])


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return watched_training(folder, tmp_path_factory.mktemp("runs") / "run", TINY)


@pytest.fixture
def run(whole: Watched) -> Path:
    return whole.run


def changed(first: Tensors, second: Tensors) -> set[str]:
    assert first.keys() == second.keys()
    return {name for name in first if not torch.equal(first[name], second[name])}


def is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


# -- what each stage trains


def test_frozen_landmarks_are_the_same_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    recipe = replace(TINY, epochs=1, trunk_rate=0.0)
    frozen = watched_training(folder, tmp_path / "run", recipe)
    # All of the heads' own did change, statistics too, and nothing else.
    heads = {name for name in frozen.kept if name.startswith("tasks.")}
    assert changed(frozen.network[1], frozen.kept) == heads


def test_a_slow_trunk_learns_but_keeps_its_statistics(whole: Watched) -> None:
    moved = changed(whole.network[TINY.epochs], whole.kept)
    trunk = {name for name in whole.kept if not name.startswith("tasks.")}
    assert moved & trunk == {name for name in trunk if not is_statistic(name)}


def test_the_first_stage_leaves_the_heads_as_they_were_made(whole: Watched) -> None:
    moved = changed(whole.network[0], whole.network[TINY.epochs])
    assert moved == {name for name in whole.kept if not name.startswith("tasks.")}


def test_the_second_stage_begins_with_the_average(whole: Watched) -> None:
    """It is what is kept, and so what pose and face have to be learned on."""
    assert not changed(whole.network[TINY.epochs], whole.average[TINY.epochs])
    assert changed(whole.network[1], whole.average[1])


def test_a_long_first_stage_does_not_hold_the_heads_at_their_start(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The average follows as fast as in a training of its own, however slow it was before."""

    def before(state: TrainingState) -> None:
        if state.epoch == 0:
            state.average.n_averaged.fill_(10**6)  # as in a very long first stage

    watch(monkeypatch, before)
    out = tiny(folder, tmp_path / "run", replace(TINY, epochs=1))
    state, _ = read_tensors(out / "checkpoint.safetensors")
    # They start at 0, and every step moves them the same way.
    means = [name for name in state if re.fullmatch(r"network\.tasks\..*running_mean", name)]
    assert means
    for name in means:
        average = state[name.replace("network.", "average.module.", 1)]
        assert average.norm() > 0.2 * state[name].norm()


def test_each_stage_has_a_schedule_and_a_log_of_its_own(run: Path) -> None:
    rows = log(run)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    rates = [row["lr"] for row in rows]
    assert rates[1] < rates[0]
    assert rates[3] < rates[2]
    assert rates[2] == rates[0]
    assert ["face_auc" in row for row in rows[2:]] == [True, True]
    assert all(0 <= row["face_auc"] <= 1 for row in rows[2:])
    assert all(np.isfinite([row["nme"] for row in rows]))


def test_the_description_says_what_was_learned(run: Path, folder: Path) -> None:
    description = json.loads((run / "model.json").read_text("utf-8"))
    n = description["trained"]["n_images"]
    assert description["trained"]["pose_labels"] == n
    assert n + description["trained"]["n_validation"] == 24
    assert 0 <= description["trained"]["validation_face_auc"] <= 1
    assert "face (n,)" in description["output"]
    network, _ = load_network(run)
    tensors, _ = read_tensors(run / "model.safetensors")
    assert not changed(network.state_dict(), tensors)


@pytest.mark.slow
def test_pose_and_face_are_learned(folder: Path, tmp_path: Path) -> None:
    still = {"rotation": 0.0, "scale": 0.0, "shift": 0.0, "mirror": 0.0, "dropout": 0.0}
    still |= {"grey": 0.0, "blur": 0.0, "noise": 0.0, "occlusion": 0.0, "validation": 0.0}
    recipe = replace(TINY, head_epochs=30, trunk_rate=0.0, pose_weight=20.0, **still)
    rows = log(tiny(folder, tmp_path / "run", replace(recipe, learning_rate=1e-2)))
    for name in ("pose", "face"):  # each epoch draws other negatives: of several, the mean
        assert np.mean([row[name] for row in rows[-5:]]) < 0.8 * rows[2][name]


# -- stopped and resumed


class _StoppedError(Exception):
    pass


def stopped(
    data: Path, out: Path, epoch: int, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> None:
    """A training that ends at the begin of an epoch, as by a kill."""

    def before(state: TrainingState) -> None:
        if state.epoch == epoch:
            raise _StoppedError

    with monkeypatch.context() as patch:
        watch(patch, before)
        with pytest.raises(_StoppedError):
            tiny(data, out, **options)
    assert not (out / "model.json").exists()
    torch.manual_seed(99)  # whatever happened in between


@pytest.mark.parametrize("epoch", [1, 2, 3], ids=["first stage", "boundary", "second stage"])
def test_a_stopped_training_resumes_to_the_same_weights(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    out = tmp_path / "stopped"
    stopped(folder, out, epoch, monkeypatch)
    resume(out, progress=False)
    assert digest(out) == digest(run)


def test_a_training_with_other_images_resumes_with_them(
    run: Path, folder: Path, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted = tiny(folder, tmp_path / "uninterrupted", others=others)
    assert digest(uninterrupted) != digest(run)
    out = tmp_path / "stopped"
    stopped(folder, out, 3, monkeypatch, others=others)
    resume(out, progress=False)
    assert digest(out) == digest(uninterrupted)
    # Without one of them it is another training.
    fewer = tmp_path / "fewer"
    shutil.copytree(others, fewer)
    out = tmp_path / "changed"
    stopped(folder, out, 1, monkeypatch, others=fewer)
    (fewer / "1.png").unlink()
    with pytest.raises(ValueError, match="started with data"):
        resume(out, progress=False)


# -- from a trained network


def test_the_heads_alone_are_trained_on_the_landmarks_of_another_training(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(TINY, epochs=0, trunk_rate=0.0)
    out = tiny(folder, tmp_path / "heads", recipe, start=run)
    before, after = (read_tensors(path / "model.safetensors")[0] for path in (run, out))
    assert changed(before, after) == {name for name in before if name.startswith("tasks.")}
    again = tmp_path / "stopped"
    stopped(folder, again, 1, monkeypatch, recipe=recipe, start=run)
    resume(again, progress=False)
    assert digest(again) == digest(out)


# -- refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_epochs": 0}, "head_epochs is 0; atpn .* at least 1"),
        ({"arch": "asmnet"}, "head_epochs is 2; asmnet .* expected 0"),
        ({"arch": "asmnet", "head_epochs": 0, "pose_form": "6d"}, "option of atpn"),
        ({"arch": "asmnet", "head_epochs": 0, "epochs": 0}, "epochs is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"input_size": 40}, "multiple of 16"),
        ({"scheme": "wflw98"}, "landmark 68, expected 0 to 67"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused_before_any_work(
    folder: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(folder, tmp_path / "run", replace(TINY, **changes))
    assert not (tmp_path / "run").exists()


def test_other_images_that_are_none_are_refused(folder: Path, others: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no image in it"):
        tiny(folder, tmp_path / "run", others=tmp_path / "empty")
    # A network that does not learn to tell faces apart has no use for them.
    recipe = replace(TINY, arch="asmnet", head_epochs=0, trunk_rate=0.0)
    with pytest.raises(ValueError, match=r"others: .* asmnet does not learn"):
        tiny(folder, tmp_path / "run", recipe, others=others)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        None,
        [],
        "boundary",
        {"width": 0.5},
        {"speed": 9},
        {"shortcut": "sum"},
        {"input_size": 50},
        {"input_size": "48"},
        {"contours": [[0, 68]]},
        {"contours": 5},
    ],
    ids=str,
)
def test_broken_options_of_a_network_are_named(run: Path, tmp_path: Path, options: Any) -> None:
    description = json.loads((run / "model.json").read_text("utf-8"))
    whole = description["options"]
    # One that misses some is of another network; the others have one wrong entry.
    merge = isinstance(options, dict) and options != {"width": 0.5}
    broken = {**description, "options": whole | options if merge else options}
    shutil.copy(run / "model.safetensors", tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(broken))
    with pytest.raises(FormatError, match=r"model\.(json|safetensors)"):
        asmkit.load(tmp_path, engine="torch")


# -- used


def test_the_tracking_head_judges_every_box(run: Path, folder: Path) -> None:
    annotation = asmkit.read(folder)[0]
    image = asmkit.read_image(str(annotation.image))
    boxes = [landmark_box(annotation.points), [0, 0, 9, 9], [-300, 5, 40, 40]]
    found = asmkit.load(run, engine="torch").predict(image, np.stack(boxes))
    assert found.face.shape == (3,)
    assert found.face.dtype == np.float64
    assert ((found.face >= 0) & (found.face <= 1)).all()
    assert len(set(found.face)) == 3
    assert np.isfinite(found.pose).all()
    empty = asmkit.load(run, engine="torch").predict(image, np.empty((0, 4)))
    assert empty.face.shape == (0,)


def test_points_without_a_scheme_train_a_tracking_head_but_no_pose(
    folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for annotation in asmkit.read(folder)[:10]:
        shutil.copy(str(annotation.image), data)
        part = replace(annotation, points=annotation.points[17:36], visibility=None, scheme=None)
        asmkit.write(data / f"{annotation.name}.pts", [part])
    out = tiny(data, tmp_path / "run", replace(TINY, epochs=1, head_epochs=1))
    predictor = asmkit.load(out, engine="torch")
    assert predictor.description["trained"]["pose_labels"] == 0
    assert predictor.description["options"]["contours"] == []
    found = predictor.predict(np.zeros((64, 64, 3), np.uint8), [[10, 10, 40, 40]])
    assert np.isfinite(found.points).all()
    assert np.isfinite(found.face).all()
    assert np.isnan(found.pose).all()


@pytest.mark.slow
@pytest.mark.usefixtures("with_onnx")
def test_both_engines_judge_alike(folder: Path, tmp_path: Path) -> None:
    out = tiny(folder, tmp_path / "run", replace(TINY, epochs=1, head_epochs=1, pose_form="6d"))
    annotation = asmkit.read(folder)[0]
    image = asmkit.read_image(str(annotation.image))
    boxes = np.stack([landmark_box(annotation.points), [0, 0, 9, 9]])
    one, other = (
        asmkit.load(out, engine=engine, threads=1).predict(image, boxes)
        for engine in ("onnxruntime", "torch")
    )
    scale = TINY.margin * boxes[:, 2:].max() / 2
    np.testing.assert_allclose(one.points, other.points, atol=1e-4 * scale)
    np.testing.assert_allclose(one.pose, other.pose, atol=np.rad2deg(1e-4))
    np.testing.assert_allclose(one.face, other.face, atol=1e-4)
