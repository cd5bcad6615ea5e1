"""The state in which a training begins."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from asmkit.boxes import landmark_box
from asmkit.description import check_weights, read_description, weights_file
from asmkit.nn.checkpoint import TrainingState, read_tensors
from asmkit.nn.heads import LandmarkNetwork
from asmkit.nn.networks import build_network, network_options
from asmkit.nn.preparation import Parts
from asmkit.nn.processes import Processes
from asmkit.nn.recipe import Recipe
from asmkit.nn.shape_layer import ShapeLayer
from asmkit.shipped import network_folder

__all__ = ["Weights", "initial_state", "weights_of"]

#: Names of the tensors of a landmark head, and of the shape model in it.
_HEAD = "landmark_head."
_SHAPES = _HEAD + "shapes."


class Weights(NamedTuple):
    """The weights of a trained network to begin with."""

    tensors: dict[str, Tensor]
    sha256: str
    #: SHA-256 of the networks that it was itself started from, the oldest first
    ancestors: tuple[str, ...] = ()
    #: what its licence allows, where that is known
    license: str | None = None


def weights_of(start: str | os.PathLike[str] | None, recipe: Recipe) -> Weights | None:
    """The weights in the folder of a trained network, if there is one to start from.

    Raises
    ------
    ValueError
        When the network is of another architecture; or when there is none and the recipe trains no
        landmarks.
    """
    if start is None:
        if recipe.epochs == 0:
            raise ValueError(
                "recipe: epochs is 0, which trains no landmarks; expected at least 1, or a trained "
                "network to start from"
            )
        return None
    folder = network_folder(start)
    description = read_description(folder)
    if description["arch"] != recipe.arch:
        raise ValueError(
            f"start: {start} holds a network of {description['arch']!r}, expected {recipe.arch!r} "
            "as in the recipe"
        )
    path = weights_file(folder)
    tensors, _ = read_tensors(path)
    ancestors = description.get("trained", {}).get("ancestors", ())
    sha256 = check_weights(path, description)
    return Weights(tensors, sha256, tuple(ancestors), description.get("license"))


def initial_state(
    parts: Parts,
    recipe: Recipe,
    weights: Weights | None = None,
    device: torch.device | None = None,
    processes: Processes | None = None,
) -> TrainingState:
    """A network that answers the mean shape, or with given weights; its average, its optimiser."""
    shapes = _shapes(parts, weights)
    options = network_options(recipe, parts.scheme, shapes.n_components if shapes else 0)
    network = build_network(recipe.arch, parts.training.points.shape[1], **options)
    network.start_from(_mean_shape(parts, recipe), shapes)
    if weights is not None:
        _begin_with(network, weights)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
    network.to(device or torch.device("cpu"))
    decay = recipe.ema

    def average(averaged: Any, current: Any, count: Any) -> None:
        if not averaged[0].is_floating_point():  # batch norm's counters
            torch._foreach_copy_(averaged, current)
            return
        # A short training must not be held by its random start.
        weight = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(averaged, current, weight)

    averaged = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
    optimizer = _optimizer(network, recipe)
    return TrainingState(network, averaged, optimizer, processes=processes or Processes())


def _shapes(parts: Parts, weights: Weights | None) -> ShapeLayer | None:
    """The shape model of a head "shape": the one that its given weights belong to, else a new one.

    What was learned for the modes of one model means nothing for those of another.
    """
    if parts.answers is None:
        return None
    given = {} if weights is None else weights.tensors
    saved = {n.removeprefix(_SHAPES): t for n, t in given.items() if n.startswith(_SHAPES)}
    if not saved or saved["mean_first"].shape != parts.answers.mean_.shape:
        return ShapeLayer(parts.answers)
    layer = ShapeLayer.empty(len(saved["mean_first"]), len(saved["components_first"]))
    layer.load_state_dict(saved)
    return layer


def _begin_with(network: LandmarkNetwork, weights: Weights) -> None:
    own = network.state_dict()
    fitting = {n: t for n, t in weights.tensors.items() if n in own and own[n].shape == t.shape}
    if not all(name in fitting for name in own if name.startswith(_SHAPES)):
        fitting = {name: t for name, t in fitting.items() if not name.startswith(_HEAD)}
    network.load_state_dict(own | fitting)


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


def _mean_shape(parts: Parts, recipe: Recipe) -> Tensor:
    """The mean of the training shapes in their crops, relative to the crop."""
    points = parts.training.points
    boxes = landmark_box(points)
    side = recipe.margin * boxes[:, 2:].max(1)[:, None, None]
    centred = points - (boxes[:, :2] + boxes[:, 2:] / 2)[:, None]
    return torch.from_numpy((2 * centred / side).mean(0)).float()
