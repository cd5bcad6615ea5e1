"""One epoch of optimiser steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from asmkit.nn.atpn import ATPN
from asmkit.nn.checkpoint import TrainingState
from asmkit.nn.data import Batch, batches, whole_batch
from asmkit.nn.heads import LandmarkNetwork, NetworkOutput, as_input, from_crop
from asmkit.nn.losses import ASMAssistedLoss, LossTerms
from asmkit.nn.preparation import Parts
from asmkit.nn.recipe import Recipe
from asmkit.nn.schedule import Stage, learning_rate_at, stage_at

__all__ = ["train_epoch"]


def train_epoch(
    state: TrainingState, parts: Parts, recipe: Recipe, loss: ASMAssistedLoss, alpha: float
) -> dict[str, float]:
    """Run one epoch of optimiser steps; gives the mean of each term of the loss."""
    stage = stage_at(state.epoch, recipe)
    _set_mode(state.network, stage)
    processes = state.processes
    per_epoch = len(parts.training) // whole_batch(parts.training, processes.count)
    first = stage.start * per_epoch
    sums: dict[str, float] = dict.fromkeys(LossTerms._fields, 0.0)
    share = recipe.negatives if stage.heads else 0.0
    made = batches(
        parts.training,
        parts.model,
        state.epoch,
        negatives=share,
        part=processes.rank,
        n_parts=processes.count,
    )
    for batch in made:
        rate = learning_rate_at(state.step - first, per_epoch * stage.epochs, recipe)
        for group in state.optimizer.param_groups:
            slow = stage.heads and not group["tasks"]
            group["lr"] = rate * recipe.trunk_rate if slow else rate
        terms = _step(state, batch, recipe, loss, alpha, stage)
        for name, value in zip(sums, terms, strict=True):
            sums[name] += float(value.detach()) / per_epoch
    means = torch.tensor(list(sums.values()), dtype=torch.float64, device=state.device)
    processes.average([means])
    sums = dict(zip(sums, means.tolist(), strict=True))
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
    size, device = recipe.input_size, state.device
    images = torch.from_numpy(batch.images).to(device)
    points, smoothed, angles, face = (
        torch.from_numpy(target).float().to(device)
        for target in (batch.points, batch.smoothed, batch.angles, batch.face)
    )
    if "pose" in _untrained(state.network, stage):
        angles = torch.full_like(angles, torch.nan)
    with torch.autocast(device.type, torch.bfloat16, enabled=_uses_bfloat16(recipe, device)):
        output = _forward(state.network, as_input(images), recipe, stage)
    terms: LossTerms = loss(
        output, from_crop(points, size), from_crop(smoothed, size), angles, alpha, face
    )
    state.optimizer.zero_grad(set_to_none=True)
    terms.total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    state.processes.average_step(state.network)
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


def _uses_bfloat16(recipe: Recipe, device: torch.device) -> bool:
    if recipe.precision == "auto":
        if device.type == "cuda":
            return bool(torch.cuda.is_bf16_supported())
        return bool(torch.cpu._is_amx_tile_supported())
    return recipe.precision == "bfloat16"
