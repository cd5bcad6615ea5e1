"""The stages of a training, and the learning rate in each."""

from __future__ import annotations

import math
from typing import NamedTuple

from asmkit.nn.recipe import Recipe

__all__ = ["Stage", "learning_rate_at", "stage_at", "stages_of"]


class Stage(NamedTuple):
    """A part of a training with a schedule of its own."""

    #: epochs before it
    start: int
    epochs: int
    #: what learns in it: ``"landmarks"`` with the pose of networks that find both at once,
    #: ``"tasks"``: pose and face from the landmarks, or ``"confidence"``
    trains: str


def stages_of(recipe: Recipe) -> list[Stage]:
    """The stages of a training, in order, without those of no epoch."""
    stages = [
        Stage(0, recipe.epochs, "landmarks"),
        Stage(recipe.epochs, recipe.head_epochs, "tasks"),
        Stage(recipe.epochs + recipe.head_epochs, recipe.confidence_epochs, "confidence"),
    ]
    return [stage for stage in stages if stage.epochs]


def stage_at(epoch: int, recipe: Recipe) -> Stage:
    """The stage to which an epoch, counted from 0, belongs."""
    end = 0
    for stage in stages_of(recipe):
        end = stage.start + stage.epochs
        if epoch < end:
            return stage
    raise ValueError(f"epoch: got {epoch}, expected below {end}, where the training ends")


def learning_rate_at(step: int, total: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to 0; a pure function of the step."""
    warmup = min(recipe.warmup_steps, total // 2)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1, total - warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
