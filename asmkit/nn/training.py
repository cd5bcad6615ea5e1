"""Training a landmark network: two plain functions and a checkpoint.

The route: annotations → dataset and shape model → augmented batches with smoothed targets →
ASM-assisted loss → averaged weights → ``model.safetensors``, ``model.json``, ``model.onnx``.

A network that judges pose and face from its landmarks (ATPN) is trained in two stages: the
landmarks first, then the two heads, with all else frozen or slow.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from asmkit._files import replacing
from asmkit.annotations import Annotation, read
from asmkit.boxes import landmark_box
from asmkit.description import read_description
from asmkit.errors import FormatError
from asmkit.metrics import default_normalizer, nme
from asmkit.model import ShapeModel
from asmkit.nn.atpn import ATPN
from asmkit.nn.checkpoint import (
    TrainingState,
    as_record,
    load_state,
    make_folder,
    read_tensors,
    save_state,
    sync_folder,
)
from asmkit.nn.data import Batch, LandmarkDataset, batches
from asmkit.nn.export import write_network
from asmkit.nn.heads import LandmarkNetwork, NetworkOutput, as_input, from_crop, to_crop
from asmkit.nn.losses import ASMAssistedLoss, LossTerms, alpha_at
from asmkit.nn.negatives import other_images
from asmkit.nn.networks import build_network, network_options
from asmkit.nn.recipe import Recipe
from asmkit.schemes import Scheme, scheme, scheme_of
from asmkit.splits import validation_part

__all__ = ["learning_rate_at", "resume", "train"]

_CHECKPOINT = "checkpoint.safetensors"
_RUN = "run.json"


class _Parts(NamedTuple):
    scheme: Scheme | None
    training: LandmarkDataset
    validation: LandmarkDataset | None
    model: ShapeModel


def train(
    data: str | os.PathLike[str] | Sequence[Annotation],
    out: str | os.PathLike[str],
    recipe: Recipe | None = None,
    *,
    threads: int | None = None,
    others: str | os.PathLike[str] | None = None,
    start: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Path:
    """Train a network on a folder of annotated images.

    The same data, recipe and number of threads on the same machine give the same weights, bit for
    bit, also when the training was killed and resumed.

    Parameters
    ----------
    data : path or sequence of Annotation
        A folder or list that :func:`asmkit.read` reads, or what it returned (such a training
        cannot be resumed by :func:`resume`, which must find its data again).
    out : path
        A new folder for the results: ``recipe.toml``, ``run.json``, ``log.jsonl``,
        ``shape_model.npz``, ``checkpoint.safetensors`` while it runs, and at the end
        ``model.safetensors``, ``model.json`` and ``model.onnx``.
    recipe : Recipe, optional
        Every choice of the training; the shipped ``asmnet`` recipe without it.
    threads : int, optional
        Threads that compute; by default what torch would take.
    others : path, optional
        A folder of images without faces, for the tracking head of ATPN: more negatives beside
        those made from the annotated images.
    start : path, optional
        Folder of a trained network of the same architecture, whose weights to begin with, wherever
        names and shapes agree (with other landmarks, all but the last layers). With
        ``epochs = 0`` in the recipe of an ATPN its landmarks stay and only the heads are trained.
    progress : bool
        Show progress bars.

    Returns
    -------
    Path
        The folder ``out``, which :func:`asmkit.load` takes.

    Raises
    ------
    ValueError, FormatError, FileNotFoundError
        When the data or the recipe cannot be trained with; nothing has been written then.
    """
    recipe = recipe or Recipe.read("asmnet")
    annotations = _annotations(data)
    _check_network(recipe, annotations, others)  # fail before any work
    weights = _weights_of(start, recipe)
    parts = _prepare(annotations, recipe, progress, others)
    folder = make_folder(out)
    threads = threads or torch.get_num_threads()
    source = None if not isinstance(data, str | os.PathLike) else str(Path(data).resolve())
    run = {"data": source, "threads": threads}
    for name, path in (("others", others), ("start", start)):
        if path is not None:
            run[name] = str(Path(path).resolve())
    _write_text(folder / "recipe.toml", recipe.to_toml())
    _write_text(folder / _RUN, json.dumps(run, indent=1) + "\n")
    parts.model.save(folder / "shape_model.npz")
    return _run(parts, recipe, folder, threads, progress, weights)


def resume(out: str | os.PathLike[str], *, progress: bool = True) -> Path:
    """Go on with a training that was stopped or killed; the result is the uninterrupted one.

    Parameters
    ----------
    out : path
        The folder of the training.
    progress : bool
        Show progress bars.

    Raises
    ------
    FileNotFoundError
        When ``out`` is no folder of a training.
    ValueError
        When the data has changed.
    """
    folder = Path(out)
    if not (folder / _RUN).is_file() or not (folder / "recipe.toml").is_file():
        raise FileNotFoundError(f"{folder}: no training to resume here (no {_RUN})")
    run = _read_run(folder / _RUN)
    if run["data"] is None:
        raise ValueError(f"{folder}: this training was given its data in memory; it cannot resume")
    recipe = Recipe.read(folder / "recipe.toml")
    sync_folder(folder)
    parts = _prepare(_annotations(run["data"]), recipe, progress, run["others"])
    if not (folder / "shape_model.npz").is_file():
        parts.model.save(folder / "shape_model.npz")
    weights = _weights_of(run["start"], recipe)
    return _run(parts, recipe, folder, run["threads"], progress, weights)


def _read_run(path: Path) -> dict[str, Any]:
    try:
        run = json.loads(path.read_text("utf-8"))
        return {
            "data": run["data"],
            "threads": int(run["threads"]),
            "others": run.get("others"),
            "start": run.get("start"),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: not the record of a training ({error})") from error


class Stage(NamedTuple):
    """A part of a training with a schedule of its own."""

    #: epochs before it
    start: int
    epochs: int
    #: trains the heads for pose and face, not the landmarks
    heads: bool


def stage_at(epoch: int, recipe: Recipe) -> Stage:
    """The stage to which an epoch, counted from 0, belongs."""
    if epoch < recipe.epochs:
        return Stage(0, recipe.epochs, False)
    return Stage(recipe.epochs, recipe.head_epochs, True)


def learning_rate_at(step: int, total: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to 0; a pure function of the step."""
    warmup = min(recipe.warmup_steps, total // 2)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1, total - warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def _annotations(data: str | os.PathLike[str] | Sequence[Annotation]) -> list[Annotation]:
    if isinstance(data, str | os.PathLike):
        return read(data, require_images=True)
    annotations = list(data)
    if not annotations:
        raise ValueError("data: no annotation in it; expected a folder of annotated images")
    return annotations


def _scheme(recipe: Recipe, annotations: Sequence[Annotation]) -> Scheme | None:
    n_points = len(annotations[0].points)
    return scheme_of(n_points) if recipe.scheme == "auto" else scheme(recipe.scheme)


def _check_network(
    recipe: Recipe, annotations: Sequence[Annotation], others: str | os.PathLike[str] | None
) -> None:
    chosen = _scheme(recipe, annotations)
    options = network_options(recipe, chosen)
    network = build_network(recipe.arch, len(annotations[0].points), **options)
    if network.tasks is None and recipe.epochs == 0:
        raise ValueError(f"recipe: epochs is 0; {recipe.arch} expects at least 1")
    if (network.tasks is None) != (recipe.head_epochs == 0):
        expected = (
            "learns pose with the landmarks: expected 0"
            if network.tasks is None
            else "learns pose and face in a second stage: expected at least 1"
        )
        raise ValueError(f"recipe: head_epochs is {recipe.head_epochs}; {recipe.arch} {expected}")
    if network.tasks is None and others is not None:
        raise ValueError(
            f"others: got {os.fspath(others)!r}, but {recipe.arch} does not learn to tell faces "
            "from other images; leave it out, or train atpn"
        )


def _prepare(
    annotations: list[Annotation],
    recipe: Recipe,
    progress: bool,
    others: str | os.PathLike[str] | None = None,
) -> _Parts:
    chosen = _scheme(recipe, annotations)
    without_faces = other_images(Path(others)) if others is not None else []
    held_out = validation_part([a.name for a in annotations], recipe.validation)
    if held_out.all():
        held_out[:] = False
    training = LandmarkDataset(
        [a for a, out in zip(annotations, held_out, strict=True) if not out],
        recipe,
        chosen,
        without_faces,
    )
    validation = None
    if held_out.any():
        validation = LandmarkDataset(
            [a for a, out in zip(annotations, held_out, strict=True) if out], recipe, chosen
        )
    model = ShapeModel(recipe.asm_components, align=recipe.asm_align, mirror=chosen)
    model.fit(training.points)
    for part in (training, validation):
        if part is not None:
            part.load(progress)
    return _Parts(chosen, training, validation, model)


def _run(
    parts: _Parts,
    recipe: Recipe,
    folder: Path,
    threads: int,
    progress: bool,
    weights: _Weights | None,
) -> Path:
    _keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    state = _initial_state(parts, recipe, weights)
    record = {
        "recipe": as_record(recipe),
        "data": parts.training.fingerprint,
        "threads": threads,
        "start": weights.sha256 if weights else None,
    }
    if (folder / _CHECKPOINT).is_file():
        load_state(folder / _CHECKPOINT, state, record)
    loss = ASMAssistedLoss(recipe.loss_form, recipe.pose_weight, recipe.face_weight)
    board = _tensorboard(folder, state.epoch)
    epochs = recipe.epochs + recipe.head_epochs
    with tqdm(
        total=epochs, initial=state.epoch, disable=not progress, unit="epoch", desc="training"
    ) as bar:
        while state.epoch < epochs:
            row = _one_epoch(state, parts, recipe, loss)
            state.history.append(row)
            save_state(folder / _CHECKPOINT, state, record)
            _write_log(folder, state.history)
            if board is not None:
                _add_scalars(board, row)
            bar.update()
            bar.set_postfix({k: f"{v:.4g}" for k, v in row.items() if k in ("loss", "nme")})
    write_network(folder, averaged_network(state), recipe, parts.scheme, _summary(parts, state))
    return folder


def _one_epoch(
    state: TrainingState, parts: _Parts, recipe: Recipe, loss: ASMAssistedLoss
) -> dict[str, Any]:
    """Train one epoch; gives its row of the log."""
    started = time.perf_counter()
    stage = stage_at(state.epoch, recipe)
    alpha = alpha_at(min(1.0, state.epoch / max(1, recipe.epochs)), recipe.alpha)
    if stage.heads and state.epoch == stage.start:
        # What is kept is the average: the heads learn on the landmarks that it gives.
        state.network.load_state_dict(state.average.module.state_dict())
        # Counted from here: an average as slow as the first stage left it would hold the heads at
        # their random start (0.4 of it after the 900 steps of the shipped recipe).
        state.average.n_averaged.zero_()
    terms = train_epoch(state, parts, recipe, loss, alpha)
    state.epoch += 1
    row: dict[str, Any] = {"epoch": state.epoch, "alpha": alpha, **terms}
    done = state.epoch - stage.start
    if parts.validation and (done % max(1, stage.epochs // 24) == 0 or done in (0, stage.epochs)):
        judges = stage.heads or state.network.tasks is None
        row |= validate(averaged_network(state), parts.validation, parts.scheme, judges)
    row["seconds"] = round(time.perf_counter() - started, 2)
    return row


def train_epoch(
    state: TrainingState, parts: _Parts, recipe: Recipe, loss: ASMAssistedLoss, alpha: float
) -> dict[str, float]:
    """Run one epoch of optimiser steps; gives the mean of each term of the loss."""
    stage = stage_at(state.epoch, recipe)
    _set_mode(state.network, stage)
    per_epoch = len(parts.training) // min(recipe.batch_size, len(parts.training))
    first = stage.start * per_epoch
    sums: dict[str, float] = dict.fromkeys(LossTerms._fields, 0.0)
    share = recipe.negatives if stage.heads else 0.0
    for batch in batches(parts.training, parts.model, state.epoch, negatives=share):
        rate = learning_rate_at(state.step - first, per_epoch * stage.epochs, recipe)
        for group in state.optimizer.param_groups:
            slow = stage.heads and not group["tasks"]
            group["lr"] = rate * recipe.trunk_rate if slow else rate
        terms = _step(state, batch, recipe, loss, alpha, stage)
        for name, value in zip(sums, terms, strict=True):
            sums[name] += float(value.detach()) / per_epoch
    total = sums.pop("total")
    if not math.isfinite(total):
        raise ValueError(
            f"the loss became {total} in epoch {state.epoch + 1}; "
            'lower the learning rate or use precision = "float32"'
        )
    for name in _untrained(state.network, stage):
        del sums[name]
    sums = {"loss": total, **sums}
    return {name: round(value, 6) for name, value in sums.items()} | {"lr": rate}


def _untrained(network: LandmarkNetwork, stage: Stage) -> tuple[str, ...]:
    """Terms of the loss that nothing in a stage can change."""
    if network.tasks is None:
        return ("face",)
    return () if stage.heads else ("pose", "face")


def _set_mode(network: LandmarkNetwork, stage: Stage) -> None:
    """In the second stage the trunk keeps its statistics: half of its crops show no face."""
    network.train(not stage.heads)
    if network.tasks is not None:
        network.tasks.train(stage.heads)


def _step(
    state: TrainingState,
    batch: Batch,
    recipe: Recipe,
    loss: ASMAssistedLoss,
    alpha: float,
    stage: Stage,
) -> LossTerms:
    size = recipe.input_size
    with torch.autocast("cpu", torch.bfloat16, enabled=_uses_bfloat16(recipe)):
        output = _forward(state.network, as_input(torch.from_numpy(batch.images)), recipe, stage)
    unknown = torch.full((len(batch.angles), 3), torch.nan)
    untrained = _untrained(state.network, stage)
    terms: LossTerms = loss(
        output,
        from_crop(torch.from_numpy(batch.points).float(), size),
        from_crop(torch.from_numpy(batch.smoothed).float(), size),
        unknown if "pose" in untrained else torch.from_numpy(batch.angles).float(),
        alpha,
        torch.from_numpy(batch.face).float(),
    )
    state.optimizer.zero_grad(set_to_none=True)
    terms.total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    nn.utils.clip_grad_norm_(state.network.parameters(), recipe.clip_norm)
    state.optimizer.step()
    state.average.update_parameters(state.network)
    state.step += 1
    return terms


def _forward(
    network: LandmarkNetwork, images: Tensor, recipe: Recipe, stage: Stage
) -> NetworkOutput:
    """What the stage trains: all of a network, or the landmarks, or the heads."""
    if not isinstance(network, ATPN):
        output: NetworkOutput = network(images)
        return output
    with torch.set_grad_enabled(not stage.heads or recipe.trunk_rate > 0):
        points, features = network.align(images)
    if stage.heads:
        return network.judge(points, features)
    return NetworkOutput(points, points.new_zeros(len(points), 3))


@torch.inference_mode()
def validate(
    network: nn.Module, dataset: LandmarkDataset, chosen: Scheme | None, judges: bool = True
) -> dict[str, float]:
    """Errors on the plain crops of ``dataset``, in percent and degrees, by their names in the log.

    ``nme``; where pose and face have been learned (``judges``), ``yaw``, ``pitch``, ``roll`` where
    there are labels, and ``face_auc`` of a network with a tracking head, against one negative a
    face, the same in every epoch.
    """
    network.eval()
    size = dataset.recipe.input_size
    n = len(dataset)
    samples = [dataset.sample(i) for i in range(n)]
    outputs = _outputs(network, [sample.images for sample in samples])
    points = to_crop(outputs.points, size).numpy()
    truth = np.concatenate([sample.points for sample in samples])
    errors = nme(points, truth, default_normalizer(chosen), chosen)
    row = {"nme": 100 * float(errors.mean())}
    angles = np.concatenate([sample.angles for sample in samples])
    if not judges:
        return row
    if np.isfinite(angles).all():
        away = np.rad2deg(np.abs(outputs.angles.numpy() - angles)).mean(0)
        row |= dict(zip(("yaw", "pitch", "roll"), away.tolist(), strict=True))
    if outputs.face is not None:
        negatives = [dataset.negative(i, np.random.default_rng([0, i])).images for i in range(n)]
        none = _outputs(network, negatives).face
        scores = torch.cat([outputs.face, none if none is not None else outputs.face[:0]])
        row["face_auc"] = float(roc_auc_score(np.arange(len(scores)) < n, scores.numpy()))
    return row


def _outputs(network: nn.Module, images: list[npt.NDArray[np.uint8]]) -> NetworkOutput:
    parts = [
        network(as_input(torch.from_numpy(np.concatenate(images[start : start + 64]))))
        for start in range(0, len(images), 64)
    ]
    faces = [part.face for part in parts if part.face is not None]
    return NetworkOutput(
        torch.cat([part.points for part in parts]),
        torch.cat([part.angles for part in parts]),
        torch.cat(faces) if faces else None,
    )


def averaged_network(state: TrainingState) -> LandmarkNetwork:
    """The network with the averaged weights: what is validated and kept."""
    network = state.average.module
    assert isinstance(network, LandmarkNetwork)
    return network.eval()


class _Weights(NamedTuple):
    """The weights of a trained network to begin with."""

    tensors: dict[str, Tensor]
    sha256: str


def _weights_of(start: str | os.PathLike[str] | None, recipe: Recipe) -> _Weights | None:
    if start is None:
        if recipe.epochs == 0:
            raise ValueError(
                "recipe: epochs is 0, which trains no landmarks; expected at least 1, or a trained "
                "network to start from"
            )
        return None
    description = read_description(Path(start))
    if description["arch"] != recipe.arch:
        raise ValueError(
            f"start: {start} holds a network of {description['arch']!r}, expected {recipe.arch!r} "
            "as in the recipe"
        )
    tensors, _ = read_tensors(Path(start) / "model.safetensors")
    return _Weights(tensors, str(description.get("sha256")))


def _begin_with(network: LandmarkNetwork, weights: _Weights) -> None:
    own = network.state_dict()
    fitting = {n: t for n, t in weights.tensors.items() if n in own and own[n].shape == t.shape}
    network.load_state_dict(own | fitting)


def _initial_state(parts: _Parts, recipe: Recipe, weights: _Weights | None = None) -> TrainingState:
    options = network_options(recipe, parts.scheme)
    network = build_network(recipe.arch, parts.training.points.shape[1], **options)
    network.start_from(_mean_shape(parts, recipe))
    if weights is not None:
        _begin_with(network, weights)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
    decay = recipe.ema

    def average(averaged: Any, current: Any, count: Any) -> None:
        if not averaged[0].is_floating_point():  # batch norm's counters
            torch._foreach_copy_(averaged, current)
            return
        # A short training must not be held by its random start.
        weight = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(averaged, current, weight)

    averaged = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
    return TrainingState(network, averaged, _optimizer(network, recipe))


def _optimizer(network: LandmarkNetwork, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW without decay of norms and biases; a second stage's heads are groups of their own."""
    tasks = list(network.tasks.parameters()) if network.tasks is not None else []
    late = {id(p) for p in tasks}
    trunk = [p for p in network.parameters() if id(p) not in late]
    groups = [
        {
            "params": [p for p in part if (p.ndim > 1) == decayed],
            "weight_decay": recipe.weight_decay if decayed else 0.0,
            "tasks": part is tasks,
        }
        for part in (trunk, tasks)
        for decayed in (True, False)
        if part
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def _mean_shape(parts: _Parts, recipe: Recipe) -> Tensor:
    """The mean of the training shapes in their crops, relative to the crop."""
    points = parts.training.points
    boxes = landmark_box(points)
    side = recipe.margin * boxes[:, 2:].max(1)[:, None, None]
    centred = points - (boxes[:, :2] + boxes[:, 2:] / 2)[:, None]
    return torch.from_numpy((2 * centred / side).mean(0)).float()


def _keep_freed_memory() -> None:
    """Let glibc reuse big blocks instead of returning them to the system after each layer.

    Every step allocates the same tensors; fresh pages for each cost up to a fifth of the time
    (measured). Elsewhere than on glibc this does nothing.
    """
    libc = ctypes.util.find_library("c")
    if libc is None or not hasattr(ctypes.CDLL(libc), "mallopt"):
        return
    trim_threshold, mmap_threshold, most = -1, -3, 1 << 30
    for option in (trim_threshold, mmap_threshold):
        ctypes.CDLL(libc).mallopt(option, most)


def _uses_bfloat16(recipe: Recipe) -> bool:
    if recipe.precision == "auto":
        return bool(torch.cpu._is_amx_tile_supported())
    return recipe.precision == "bfloat16"


def _summary(parts: _Parts, state: TrainingState) -> dict[str, Any]:
    return {
        "n_images": len(parts.training),
        "n_validation": len(parts.validation or ()),
        "pose_labels": int(np.isfinite(parts.training.rotations).all((1, 2)).sum()),
        "samples": state.step * min(parts.training.recipe.batch_size, len(parts.training)),
        "seconds": round(sum(row["seconds"] for row in state.history), 1),
        **{
            f"validation_{name}": next(
                (r[name] for r in reversed(state.history) if name in r), None
            )
            for name in ("nme", "face_auc")
            if name == "nme" or parts.training.recipe.head_epochs
        },
    }


def _tensorboard(folder: Path, epoch: int) -> Any:
    """Open a TensorBoard writer where TensorBoard is installed, else give None."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # Rows that a killed training wrote after its last checkpoint are written again.
    return SummaryWriter(str(folder / "tensorboard"), purge_step=epoch + 1)


def _add_scalars(board: Any, row: dict[str, Any]) -> None:
    for name, value in row.items():
        if name not in ("epoch", "seconds"):
            board.add_scalar(name, value, row["epoch"])
    board.flush()


def _write_log(folder: Path, history: list[dict[str, Any]]) -> None:
    _write_text(folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in history))


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")
