"""From annotations and a recipe to what a training works on."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from asmkit.annotations import Annotation, read
from asmkit.model import ShapeModel
from asmkit.nn.data import LandmarkDataset
from asmkit.nn.device_crops import DeviceCrops
from asmkit.nn.negatives import other_images
from asmkit.nn.networks import build_network, network_options
from asmkit.nn.processes import Processes
from asmkit.nn.recipe import Recipe
from asmkit.schemes import Scheme, scheme, scheme_of
from asmkit.splits import validation_part
from asmkit.threads import get_num_threads

__all__ = ["Parts", "check_network", "chosen_scheme", "prepare", "read_annotations"]


#: More threads wait for each other.
_MOST_WORKERS = 8


class Parts(NamedTuple):
    """What a training works on."""

    scheme: Scheme | None
    training: LandmarkDataset
    validation: LandmarkDataset | None
    #: smooths the targets
    model: ShapeModel
    #: what the network shall answer by; None but for the head "shape"
    answers: ShapeModel | None
    #: makes the images of the first on a GPU; None where there is none, or not all go there
    crops: DeviceCrops | None = None
    #: threads that make batches ahead
    workers: int = 1

    def for_device(self, device: torch.device, processes: Processes) -> Parts:
        """With what keeps a device busy."""
        if device.type == "cpu":
            return self
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if processes.count > 1 else 1
        workers = max(1, min(_MOST_WORKERS, get_num_threads() // beside - 1))
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
        crops = DeviceCrops(self.training, device) if self.training.fits(free / 4) else None
        return self._replace(crops=crops, workers=workers)


def read_annotations(data: str | os.PathLike[str] | Sequence[Annotation]) -> list[Annotation]:
    """Annotations with their images, read or as given, at least one."""
    if isinstance(data, str | os.PathLike):
        return read(data, require_images=True)
    annotations = list(data)
    if not annotations:
        raise ValueError("data: no annotation in it; expected a folder of annotated images")
    return annotations


def check_network(
    recipe: Recipe, annotations: Sequence[Annotation], others: str | os.PathLike[str] | None
) -> None:
    """Refuse a recipe whose network cannot be made or trained so, before any work.

    Raises
    ------
    ValueError
    """
    chosen = chosen_scheme(recipe, annotations)
    options = network_options(recipe, chosen)
    network = build_network(recipe.arch, len(annotations[0].points), **options)
    if (recipe.confidence == "none") != (recipe.confidence_epochs == 0):
        raise ValueError(
            f"recipe: confidence is {recipe.confidence!r} and confidence_epochs is "
            f"{recipe.confidence_epochs}; expected 'none' and 0, or a density and at least 1"
        )
    if recipe.confidence != "none" and recipe.occlusion == 0:
        raise ValueError(
            "recipe: occlusion is 0, so nothing would ever lie over a landmark, and with "
            f"confidence {recipe.confidence!r} the network is to learn what a covered one looks "
            "like; expected more than 0, such as 0.6"
        )
    # Of a trained network that it starts from, everything else may be kept.
    confidence_alone = recipe.epochs == 0 and recipe.confidence_epochs > 0
    if network.tasks is None and recipe.epochs == 0 and not confidence_alone:
        raise ValueError(f"recipe: epochs is 0; {recipe.arch} expects at least 1")
    kept = confidence_alone and recipe.head_epochs == 0
    if (network.tasks is None) != (recipe.head_epochs == 0) and not kept:
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


def prepare(
    annotations: list[Annotation],
    recipe: Recipe,
    progress: bool,
    others: str | os.PathLike[str] | None = None,
    processes: Processes | None = None,
) -> Parts:
    """Data sets to train on and to watch, and shape models of the first.

    Every image is decoded once, by one of the processes; those to watch by the one that watches.
    """
    processes = processes or Processes()
    chosen = chosen_scheme(recipe, annotations)
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
            [a for a, out in zip(annotations, held_out, strict=True) if out],
            replace(recipe, asm_warp=0.0),  # plain crops need no model of these shapes
            chosen,
        )
    model = ShapeModel(recipe.asm_components, align=recipe.asm_align, mirror=chosen)
    model.fit(training.points)
    answers = None
    if recipe.head == "shape":
        answers = ShapeModel(recipe.shape_components, mirror=chosen).fit(training.points)
    training.load(progress, processes.rank, processes.count)
    if validation is not None and processes.writes:
        validation.load(progress)
    return Parts(chosen, training, validation, model, answers)


def chosen_scheme(recipe: Recipe, annotations: Sequence[Annotation]) -> Scheme | None:
    """The landmark scheme of a training, if it has one."""
    n_points = len(annotations[0].points)
    return scheme_of(n_points) if recipe.scheme == "auto" else scheme(recipe.scheme)
