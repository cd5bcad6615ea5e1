"""Training a landmark network: two plain functions and a checkpoint.

The route: annotations → dataset and shape model → augmented batches with smoothed targets →
ASM-assisted loss → averaged weights → ``model.safetensors``, ``model.json``, ``model.onnx``.

A network that judges pose and face from its landmarks (ATPN) is trained in two stages: the
landmarks first, then the two heads, with all else frozen or slow. Any network may have a last
stage, in which it learns how sure it is of each landmark and whether something lies over it, with
all else frozen; what it states is then calibrated on the images that are held out.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from asmkit._files import replacing
from asmkit.annotations import Annotation
from asmkit.description import SHAPE_MODEL, inherited_license
from asmkit.errors import FormatError
from asmkit.model import ShapeModel
from asmkit.nn.calibration import calibrate, calibrate_visibility
from asmkit.nn.checkpoint import (
    TrainingState,
    as_record,
    load_state,
    make_folder,
    save_state,
    sync_folder,
)
from asmkit.nn.data import whole_batch
from asmkit.nn.epoch import train_epoch
from asmkit.nn.export import write_network
from asmkit.nn.heads import LandmarkNetwork
from asmkit.nn.initial_state import Weights, initial_state, weights_of
from asmkit.nn.losses import ASMAssistedLoss, alpha_at
from asmkit.nn.preparation import Parts, check_network, prepare, read_annotations
from asmkit.nn.processes import Processes, choose_device, joined_processes
from asmkit.nn.recipe import Recipe
from asmkit.nn.schedule import stage_at
from asmkit.nn.teacher import Teacher, teacher_of
from asmkit.nn.validation import validate
from asmkit.shipped import shipped_networks

__all__ = ["averaged_network", "keep_freed_memory", "resume", "train"]

_CHECKPOINT = "checkpoint.safetensors"
_RUN = "run.json"
#: Variance that it holds: :mod:`asmkit.plausibility` and ``constrain`` want nearly all.
_SHAPE_VARIANCE = 0.98


def train(
    data: str | os.PathLike[str] | Sequence[Annotation],
    out: str | os.PathLike[str],
    recipe: Recipe | None = None,
    *,
    threads: int | None = None,
    others: str | os.PathLike[str] | None = None,
    start: str | os.PathLike[str] | None = None,
    teacher: str | os.PathLike[str] | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Path:
    """Train a network on a folder of annotated images.

    The same data, recipe and number of threads on the same machine give the same weights, bit for
    bit, also when the training was killed and resumed. Started by ``torchrun``, several processes
    share the work, see :mod:`asmkit.nn.processes`; every one of them makes this call.

    Parameters
    ----------
    data : path or sequence of Annotation
        A folder (of shards, too) or list that :func:`asmkit.read` reads, or what it returned (such
        a training cannot be resumed by :func:`resume`, which must find its data again).
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
        names and shapes agree (with other landmarks, all but the last layers); the shape model of
        a head "shape" comes with them. With
        ``epochs = 0`` in the recipe of an ATPN its landmarks stay and only the heads are trained;
        with ``head_epochs = 0`` too, or for any network, only ``confidence``.
    teacher : path or str, optional
        Folder or name of a trained network of any architecture, for the same landmarks. What it
        finds in each augmented crop is one more target, with the recipe's ``teacher_weight``, and
        ``teacher_views``. Its crops may be of another size, and of a smaller margin.
    device : {"cpu", "cuda"}, optional
        Where to compute; by default on a GPU where there is one, which then makes the training
        crops as well if the photos take no more than a quarter of its free memory. Results of
        a GPU differ in their last digits from run to run.
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
    annotations = read_annotations(data)
    check_network(recipe, annotations, others)  # fail before any work
    weights = weights_of(start, recipe)
    taught_by = teacher_of(teacher, recipe, annotations)
    place = choose_device(device)
    threads = threads or torch.get_num_threads()
    source = None if not isinstance(data, str | os.PathLike) else str(Path(data).resolve())
    run = {"data": source, "threads": threads, "device": place.type}
    for name, path in (("others", others), ("start", start), ("teacher", teacher)):
        if path is not None:
            shipped = name != "others" and path in shipped_networks()
            run[name] = str(path if shipped else Path(path).resolve())
    folder = Path(out)
    with joined_processes(place) as processes:
        progress = progress and processes.writes
        parts = prepare(annotations, recipe, progress, others, processes)
        whole_batch(parts.training, processes.count)  # refused before anything is written
        processes.wait()  # another one may still refuse an image
        if processes.writes:
            make_folder(folder)
            _write_text(folder / "recipe.toml", recipe.to_toml())
            _write_text(folder / _RUN, json.dumps(run, indent=1) + "\n")
            _write_shape_model(folder / SHAPE_MODEL, parts)
        processes.wait()
        work = _Work(parts, recipe, folder, threads, weights, taught_by, place, processes)
        return _run(work, progress)


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
        When the data has changed, or the network that it started from, or its teacher.
    """
    folder = Path(out)
    if not (folder / _RUN).is_file() or not (folder / "recipe.toml").is_file():
        raise FileNotFoundError(f"{folder}: no training to resume here (no {_RUN})")
    run = _read_run(folder / _RUN)
    if run["data"] is None:
        raise ValueError(f"{folder}: this training was given its data in memory; it cannot resume")
    recipe = Recipe.read(folder / "recipe.toml")
    place = choose_device(run["device"])
    weights = weights_of(run["start"], recipe)
    annotations = read_annotations(run["data"])
    taught_by = teacher_of(run["teacher"], recipe, annotations)
    with joined_processes(place) as processes:
        progress = progress and processes.writes
        parts = prepare(annotations, recipe, progress, run["others"], processes)
        if processes.writes:
            sync_folder(folder)
            if not (folder / SHAPE_MODEL).is_file():
                _write_shape_model(folder / SHAPE_MODEL, parts)
        processes.wait()
        threads = run["threads"]
        work = _Work(parts, recipe, folder, threads, weights, taught_by, place, processes)
        return _run(work, progress)


def _read_run(path: Path) -> dict[str, Any]:
    try:
        run = json.loads(path.read_text("utf-8"))
        return {
            "data": run["data"],
            "threads": int(run["threads"]),
            "others": run.get("others"),
            "start": run.get("start"),
            "teacher": run.get("teacher"),
            "device": run["device"],
        }
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: not the record of a training ({error})") from error


class _Work(NamedTuple):
    """A training, new or resumed."""

    parts: Parts
    recipe: Recipe
    folder: Path
    threads: int
    weights: Weights | None
    teacher: Teacher | None
    device: torch.device
    processes: Processes


def _run(work: _Work, progress: bool) -> Path:
    parts, recipe, folder, threads, weights, teacher, device, processes = work
    keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    state = initial_state(parts, recipe, weights, device, processes)
    parts = parts.for_device(device, processes)
    if processes.rank:
        torch.manual_seed(recipe.seed + processes.rank)  # each drops out features of its own
    record = {
        "recipe": as_record(recipe),
        "data": parts.training.fingerprint,
        "threads": threads,
        "start": weights.sha256 if weights else None,
        "teacher": teacher.sha256 if teacher else None,
        "device": device.type,
        "crops": None if parts.crops is None else device.type,
        "processes": processes.count,
    }
    if (folder / _CHECKPOINT).is_file():
        load_state(folder / _CHECKPOINT, state, record)
    if teacher is not None:
        teacher.to(device)
    loss = ASMAssistedLoss.of(recipe)
    board = _tensorboard(folder, state.epoch) if processes.writes else None
    epochs = recipe.epochs + recipe.head_epochs + recipe.confidence_epochs
    with tqdm(
        total=epochs, initial=state.epoch, disable=not progress, unit="epoch", desc="training"
    ) as bar:
        while state.epoch < epochs:
            row = _one_epoch(state, parts, recipe, loss, teacher)
            state.history.append(row)
            save_state(folder / _CHECKPOINT, state, record)
            if processes.writes:
                _write_log(folder, state.history)
            if board is not None:
                _add_scalars(board, row)
            bar.update()
            bar.set_postfix({k: f"{v:.4g}" for k, v in row.items() if k in ("loss", "nme")})
    if processes.writes:
        network, summary = averaged_network(state).cpu(), _summary(parts, state)
        if weights is not None:
            summary["ancestors"] = [*weights.ancestors, weights.sha256]
        if teacher is not None:
            summary["teacher"] = teacher.sha256
        if recipe.confidence != "none":
            summary |= {"calibration": None, "visibility_calibration": None}
            if parts.validation is not None:
                summary["calibration"] = calibrate(network, parts.validation, recipe.confidence)
                summary["visibility_calibration"] = calibrate_visibility(network, parts.validation)
        license = inherited_license(s.license for s in (weights, teacher) if s is not None)
        write_network(folder, network, recipe, parts.scheme, summary, license)
    processes.wait()
    return folder


def _one_epoch(
    state: TrainingState,
    parts: Parts,
    recipe: Recipe,
    loss: ASMAssistedLoss,
    teacher: Teacher | None,
) -> dict[str, Any]:
    """Train one epoch; gives its row of the log."""
    started = time.perf_counter()
    stage = stage_at(state.epoch, recipe)
    alpha = alpha_at(min(1.0, state.epoch / max(1, recipe.epochs)), recipe.alpha)
    if stage.trains != "landmarks" and state.epoch == stage.start:
        # What is kept is the average: the heads learn on the landmarks that it gives.
        state.network.load_state_dict(state.average.module.state_dict())
        # Counted from here: an average as slow as the first stage left it would hold the heads at
        # their random start (0.4 of it after the 900 steps of the shipped recipe).
        state.average.n_averaged.zero_()
    terms = train_epoch(state, parts, recipe, loss, alpha, teacher)
    state.epoch += 1
    row: dict[str, Any] = {"epoch": state.epoch, "alpha": alpha, **terms}
    done = state.epoch - stage.start
    due = done % max(1, stage.epochs // 24) == 0 or done == stage.epochs
    if parts.validation and due and state.processes.writes:
        judges = stage.trains != "landmarks" or state.network.tasks is None
        states = stage.trains == "confidence"
        row |= validate(averaged_network(state), parts.validation, parts.scheme, judges, states)
    row["seconds"] = round(time.perf_counter() - started, 2)
    return row


def averaged_network(state: TrainingState) -> LandmarkNetwork:
    """The network with the averaged weights: what is validated and kept."""
    network = state.average.module
    assert isinstance(network, LandmarkNetwork)
    return network.eval()


def keep_freed_memory() -> None:
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


def _summary(parts: Parts, state: TrainingState) -> dict[str, Any]:
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


def _write_shape_model(path: Path, parts: Parts) -> None:
    """The model by which landmarks are judged in use; smoothed targets have fewer modes."""
    ShapeModel(_SHAPE_VARIANCE, mirror=parts.scheme).fit(parts.training.points).save(path)


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")
