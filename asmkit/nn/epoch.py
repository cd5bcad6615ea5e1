"""One epoch of optimiser steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from asmkit.nn.atpn import ATPN
from asmkit.nn.checkpoint import TrainingState
from asmkit.nn.data import Batch, DeviceBatch, batches, whole_batch
from asmkit.nn.heads import LandmarkNetwork, NetworkOutput, as_input, from_crop
from asmkit.nn.losses import ASMAssistedLoss, scale_loss, visibility_loss
from asmkit.nn.preparation import Parts
from asmkit.nn.processes import Processes
from asmkit.nn.recipe import Recipe
from asmkit.nn.schedule import Stage, learning_rate_at, stage_at
from asmkit.nn.teacher import Teacher

__all__ = ["forward", "set_mode", "stage_batches", "train_epoch"]


#: The parts of a network that learn in later stages, and in which.
_HEADS = {"tasks": "tasks", "confidence": "confidence", "visibility": "confidence"}


def train_epoch(
    state: TrainingState,
    parts: Parts,
    recipe: Recipe,
    loss: ASMAssistedLoss,
    alpha: float,
    teacher: Teacher | None = None,
) -> dict[str, float]:
    """Run one epoch of optimiser steps; gives the mean of each term of the loss that can change."""
    stage = stage_at(state.epoch, recipe)
    set_mode(state.network, stage)
    processes = state.processes
    per_epoch = len(parts.training) // whole_batch(parts.training, processes.count)
    first = stage.start * per_epoch
    totals: dict[str, Tensor] = {}  # where the network is, and read once, at the end
    for batch in stage_batches(parts, recipe, stage, state.epoch, processes):
        rate = learning_rate_at(state.step - first, per_epoch * stage.epochs, recipe)
        for group in state.optimizer.param_groups:
            slow = stage.trains == "tasks" and not group["tasks"]
            group["lr"] = rate * recipe.trunk_rate if slow else rate
        terms = _step(state, batch, recipe, loss, alpha, stage, teacher)
        for name, value in terms.items():
            share = value.detach().double() / per_epoch
            totals[name] = totals[name] + share if name in totals else share
    means = torch.stack(list(totals.values()))
    processes.average([means])
    sums = dict(zip(totals, means.tolist(), strict=True))
    if not math.isfinite(sums["loss"]):
        raise ValueError(
            f"the loss became {sums['loss']} in epoch {state.epoch + 1}; "
            'lower the learning rate or use precision = "float32"'
        )
    return {name: round(value, 6) for name, value in sums.items()} | {"lr": rate}


def stage_batches(
    parts: Parts, recipe: Recipe, stage: Stage, epoch: int, processes: Processes
) -> Iterator[Batch] | Iterator[DeviceBatch]:
    """The batches of an epoch of a stage, or one process's part of each."""
    # What covers a face is seldom of one colour; the landmarks were not to learn it, doubt is.
    covers = recipe.occlusion if stage.trains == "confidence" else 0.0
    dealt: dict[str, Any] = {
        "negatives": recipe.negatives if stage.trains == "tasks" else 0.0,
        "covers": covers,
        "part": processes.rank,
        "n_parts": processes.count,
        "n_workers": parts.workers,
    }
    if parts.crops is not None:
        return parts.crops.batches(parts.model, epoch, **dealt)
    return batches(parts.training, parts.model, epoch, **dealt)


def _untrained(network: LandmarkNetwork, stage: Stage) -> tuple[str, ...]:
    """Terms of the loss that nothing in a stage can change."""
    if network.tasks is None:
        return ("face",)
    return () if stage.trains == "tasks" else ("pose", "face")


def set_mode(network: LandmarkNetwork, stage: Stage) -> None:
    """In later stages the trunk keeps its statistics: in one, half of the crops show no face."""
    network.train(stage.trains == "landmarks")
    for name, trained_in in _HEADS.items():
        part: nn.Module | None = getattr(network, name)
        if part is not None:
            part.train(stage.trains == trained_in)


def _step(
    state: TrainingState,
    batch: Batch | DeviceBatch,
    recipe: Recipe,
    loss: ASMAssistedLoss,
    alpha: float,
    stage: Stage,
    teacher: Teacher | None = None,
) -> dict[str, Tensor]:
    images = as_input(torch.as_tensor(batch.images, device=state.device))
    bfloat16 = _uses_bfloat16(recipe, state.device)
    with torch.autocast(state.device.type, torch.bfloat16, enabled=bfloat16):
        output = forward(state.network, images, recipe, stage)
        taught = None
        if teacher is not None and _trains_landmarks(stage, recipe):
            taught = teacher.find(images)
    untrained = _untrained(state.network, stage)
    terms = _terms(output, batch, recipe, loss, alpha, stage, untrained, taught)
    state.optimizer.zero_grad(set_to_none=True)
    terms["loss"].backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    state.processes.average_step(state.network)
    nn.utils.clip_grad_norm_(state.network.parameters(), recipe.clip_norm)
    state.optimizer.step()
    state.average.update_parameters(state.network)
    state.step += 1
    return terms


def _terms(
    output: NetworkOutput,
    batch: Batch | DeviceBatch,
    recipe: Recipe,
    loss: ASMAssistedLoss,
    alpha: float,
    stage: Stage,
    untrained: tuple[str, ...],
    taught: Tensor | None = None,
) -> dict[str, Tensor]:
    """The loss of a stage, and what it is made of."""
    points, smoothed, angles, face, visible = (
        torch.from_numpy(target).float().to(output.points.device)
        for target in (batch.points, batch.smoothed, batch.angles, batch.face, batch.visible)
    )
    points, smoothed = (from_crop(target, recipe.input_size) for target in (points, smoothed))
    if stage.trains == "confidence":
        # A recipe with that stage makes such a network.
        assert output.log_scale is not None
        assert output.visible is not None
        scales = scale_loss(output.points, output.log_scale, points, recipe.confidence)
        views = visibility_loss(output.visible, visible)
        return {"loss": scales + views, "scales": scales, "visibility": views}
    if "pose" in untrained:
        angles = torch.full_like(angles, torch.nan)
    if taught is None:
        untrained = (*untrained, "teacher")
    else:
        # A crop without a face has no landmarks, whatever a teacher finds in it.
        taught = taught.where(points.isfinite(), torch.nan)
    terms = loss(output, points, smoothed, angles, alpha, face, taught)._asdict()
    kept = {name: value for name, value in terms.items() if name not in ("total", *untrained)}
    return {"loss": terms["total"], **kept}


def _trains_landmarks(stage: Stage, recipe: Recipe) -> bool:
    return stage.trains == "landmarks" or (stage.trains == "tasks" and recipe.trunk_rate > 0)


def forward(
    network: LandmarkNetwork, images: Tensor, recipe: Recipe, stage: Stage
) -> NetworkOutput:
    """What the stage trains, and no more than it takes."""
    if stage.trains == "confidence":
        with torch.no_grad():
            output, features = network.find(images)
        return network.with_doubts(output, features)
    if not isinstance(network, ATPN):
        return network.find(images)[0]
    tasks = stage.trains == "tasks"
    with torch.set_grad_enabled(not tasks or recipe.trunk_rate > 0):
        points, features = network.align(images)
    if tasks:
        return network.judge(points, features)
    return NetworkOutput(points, points.new_zeros(len(points), 3))


def _uses_bfloat16(recipe: Recipe, device: torch.device) -> bool:
    if recipe.precision == "auto":
        if device.type == "cuda":
            return bool(torch.cuda.is_bf16_supported())
        return bool(torch.cpu._is_amx_tile_supported())
    return recipe.precision == "bfloat16"
