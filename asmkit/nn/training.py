"""Training a landmark network: two plain functions and a checkpoint.

The route: annotations → dataset and shape model → augmented batches with smoothed targets →
ASM-assisted loss → averaged weights → ``model.safetensors``, ``model.json``, ``model.onnx``.
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
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from asmkit._files import replacing
from asmkit.annotations import Annotation, read
from asmkit.boxes import landmark_box
from asmkit.errors import FormatError
from asmkit.metrics import default_normalizer, nme
from asmkit.model import ShapeModel
from asmkit.nn.checkpoint import (
    TrainingState,
    as_record,
    load_state,
    make_folder,
    save_state,
    sync_folder,
)
from asmkit.nn.data import Batch, LandmarkDataset, batches
from asmkit.nn.export import write_network
from asmkit.nn.heads import LandmarkNetwork, as_input, from_crop, to_crop
from asmkit.nn.losses import ASMAssistedLoss, LossTerms, alpha_at
from asmkit.nn.networks import build_network
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
    build_network(recipe.arch, len(annotations[0].points), recipe.width)  # fail before any work
    parts = _prepare(annotations, recipe, progress)
    folder = make_folder(out)
    threads = threads or torch.get_num_threads()
    source = None if not isinstance(data, str | os.PathLike) else str(Path(data).resolve())
    _write_text(folder / "recipe.toml", recipe.to_toml())
    _write_text(folder / _RUN, json.dumps({"data": source, "threads": threads}, indent=1) + "\n")
    parts.model.save(folder / "shape_model.npz")
    return _run(parts, recipe, folder, threads, progress)


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
    parts = _prepare(_annotations(run["data"]), recipe, progress)
    if not (folder / "shape_model.npz").is_file():
        parts.model.save(folder / "shape_model.npz")
    return _run(parts, recipe, folder, run["threads"], progress)


def _read_run(path: Path) -> dict[str, Any]:
    try:
        run = json.loads(path.read_text("utf-8"))
        return {"data": run["data"], "threads": int(run["threads"])}
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: not the record of a training ({error})") from error


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


def _prepare(annotations: list[Annotation], recipe: Recipe, progress: bool) -> _Parts:
    n_points = len(annotations[0].points)
    chosen = scheme_of(n_points) if recipe.scheme == "auto" else scheme(recipe.scheme)
    held_out = validation_part([a.name for a in annotations], recipe.validation)
    if held_out.all():
        held_out[:] = False
    training = LandmarkDataset(
        [a for a, out in zip(annotations, held_out, strict=True) if not out], recipe, chosen
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


def _run(parts: _Parts, recipe: Recipe, folder: Path, threads: int, progress: bool) -> Path:
    _keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    state = _initial_state(parts, recipe)
    record = {
        "recipe": as_record(recipe),
        "data": parts.training.fingerprint,
        "threads": threads,
    }
    if (folder / _CHECKPOINT).is_file():
        load_state(folder / _CHECKPOINT, state, record)
    loss = ASMAssistedLoss(recipe.loss_form, recipe.pose_weight)
    board = _tensorboard(folder, state.epoch)
    with tqdm(
        total=recipe.epochs,
        initial=state.epoch,
        disable=not progress,
        unit="epoch",
        desc="training",
    ) as bar:
        while state.epoch < recipe.epochs:
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
    alpha = alpha_at(state.epoch / recipe.epochs, recipe.alpha)
    terms = train_epoch(state, parts, recipe, loss, alpha)
    state.epoch += 1
    row: dict[str, Any] = {"epoch": state.epoch, "alpha": alpha, **terms}
    every = max(1, recipe.epochs // 24)
    if parts.validation and (state.epoch % every == 0 or state.epoch == recipe.epochs):
        row["nme"] = 100 * validate(averaged_network(state), parts.validation, parts.scheme)
    row["seconds"] = round(time.perf_counter() - started, 2)
    return row


def train_epoch(
    state: TrainingState, parts: _Parts, recipe: Recipe, loss: ASMAssistedLoss, alpha: float
) -> dict[str, float]:
    """Run one epoch of optimiser steps; gives the mean of each term of the loss."""
    state.network.train()
    per_epoch = len(parts.training) // min(recipe.batch_size, len(parts.training))
    sums: dict[str, float] = dict.fromkeys(("loss", "points", "asm", "pose"), 0.0)
    for batch in batches(parts.training, parts.model, state.epoch):
        rate = learning_rate_at(state.step, per_epoch * recipe.epochs, recipe)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        terms = _step(state, batch, recipe, loss, alpha)
        for name, value in zip(sums, terms, strict=True):
            sums[name] += float(value.detach()) / per_epoch
    if not math.isfinite(sums["loss"]):
        raise ValueError(
            f"the loss became {sums['loss']} in epoch {state.epoch + 1}; "
            'lower the learning rate or use precision = "float32"'
        )
    return {name: round(value, 6) for name, value in sums.items()} | {"lr": rate}


def _step(
    state: TrainingState, batch: Batch, recipe: Recipe, loss: ASMAssistedLoss, alpha: float
) -> LossTerms:
    size = recipe.input_size
    with torch.autocast("cpu", torch.bfloat16, enabled=_uses_bfloat16(recipe)):
        output = state.network(as_input(torch.from_numpy(batch.images)))
    terms: LossTerms = loss(
        output,
        from_crop(torch.from_numpy(batch.points).float(), size),
        from_crop(torch.from_numpy(batch.smoothed).float(), size),
        torch.from_numpy(batch.angles).float(),
        alpha,
    )
    state.optimizer.zero_grad(set_to_none=True)
    terms.total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    nn.utils.clip_grad_norm_(state.network.parameters(), recipe.clip_norm)
    state.optimizer.step()
    state.average.update_parameters(state.network)
    state.step += 1
    return terms


@torch.inference_mode()
def validate(network: nn.Module, dataset: LandmarkDataset, chosen: Scheme | None) -> float:
    """Mean NME of the plain crops of ``dataset``, as a fraction."""
    network.eval()
    size = dataset.recipe.input_size
    predicted, truth = [], []
    for start in range(0, len(dataset), 64):
        samples = [dataset.sample(i) for i in range(start, min(start + 64, len(dataset)))]
        images = np.concatenate([sample.images for sample in samples])
        predicted.append(to_crop(network(as_input(torch.from_numpy(images))).points, size).numpy())
        truth += [sample.points for sample in samples]
    errors = nme(
        np.concatenate(predicted), np.concatenate(truth), default_normalizer(chosen), chosen
    )
    return float(errors.mean())


def averaged_network(state: TrainingState) -> LandmarkNetwork:
    """The network with the averaged weights: what is validated and kept."""
    network = state.average.module
    assert isinstance(network, LandmarkNetwork)
    return network.eval()


def _initial_state(parts: _Parts, recipe: Recipe) -> TrainingState:
    network = build_network(
        recipe.arch, parts.training.points.shape[1], recipe.width, recipe.dropout
    )
    network.start_from(_mean_shape(parts, recipe))
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
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return TrainingState(network, averaged, torch.optim.AdamW(groups, lr=recipe.learning_rate))


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
        "samples": state.step * min(parts.training.recipe.batch_size, len(parts.training)),
        "seconds": round(sum(row["seconds"] for row in state.history), 1),
        "validation_nme": next((r["nme"] for r in reversed(state.history) if "nme" in r), None),
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
