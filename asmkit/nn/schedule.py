"""The stages of a training, and the learning rate in each."""

from __future__ import annotations

import math
from typing import NamedTuple

from asmkit.nn.recipe import Recipe

__all__ = ["Stage", "learning_rate_at", "stage_at"]


class Stage(NamedTuple):
    """A part of a training with a schedule of its own."""

    #: epochs before it
    start: int
    epochs: int
    #: what learns in it: ``"landmarks"`` with the pose of networks that find both at once,
    #: ``"tasks"``: pose and face from the landmarks, or ``"confidence"``
    trains: str


def stage_at(epoch: int, recipe: Recipe) -> Stage:
    """The stage to which an epoch, counted from 0, belongs."""
    start = 0
    stages = (
        ("landmarks", recipe.epochs),
        ("tasks", recipe.head_epochs),
        ("confidence", recipe.confidence_epochs),
    )
    for trains, epochs in stages:
        if epoch < start + epochs:
            return Stage(start, epochs, trains)
        start += epochs
    raise ValueError(f"epoch: got {epoch}, expected below {start}, where the training ends")


def learning_rate_at(step: int, total: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to 0; a pure function of the step."""
    warmup = min(recipe.warmup_steps, total // 2)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1, total - warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
