"""The literal table of networks, and how a network is described in a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from asmkit.nn.asmnet import ASMNet
from asmkit.nn.atpn import ATPN
from asmkit.nn.heads import LandmarkNetwork
from asmkit.nn.mobilenet import MobileNetV2
from asmkit.nn.recipe import ATPN_CHOICES, POOLED_HEADS, Recipe
from asmkit.schemes import Scheme

__all__ = ["NETWORKS", "build_network", "network_options"]

#: Name in a recipe and on the command line → class called as ``(n_points, **options)``.
NETWORKS: dict[str, Callable[..., LandmarkNetwork]] = {
    "asmnet": ASMNet,
    "atpn": ATPN,
    "mobilenetv2": MobileNetV2,
}

#: Keys of a recipe that every network takes, and those that some take alone.
_COMMON = ("width", "dropout")
_OWN = {"atpn": ("input_size", *(name for name in ATPN_CHOICES if name != "head"))}
#: Heads of each network; "auto" is the first.
_HEADS = {"asmnet": POOLED_HEADS, "atpn": ATPN_CHOICES["head"], "mobilenetv2": POOLED_HEADS}


def build_network(arch: str, n_points: int, **options: Any) -> LandmarkNetwork:
    """Make an untrained network by its name.

    Parameters
    ----------
    arch : {"asmnet", "atpn", "mobilenetv2"}
    n_points : int
    **options
        As in the class of the network: ``width``, ``dropout``, …

    Raises
    ------
    ValueError
        For an unknown name (the message lists the known ones) or an option that the network does
        not take.
    """
    if arch not in NETWORKS:
        raise ValueError(
            f"unknown architecture {arch!r}; expected one of {', '.join(sorted(NETWORKS))}"
        )
    try:
        return NETWORKS[arch](n_points, **options)
    except TypeError as error:
        raise ValueError(f"{arch}: {error}") from error


def network_options(recipe: Recipe, chosen: Scheme | None, modes: int = 1) -> dict[str, Any]:
    """The options of a recipe's network, as :func:`build_network` takes them.

    Parameters
    ----------
    recipe : Recipe
    chosen : Scheme, optional
        Landmark scheme of the points.
    modes : int
        Modes of the shape model in the head ``"shape"``, which is fitted on the training shapes; a
        network that is made to be checked alone takes any number.

    Raises
    ------
    ValueError
        When the recipe sets an option of another network, or of another head.
    """
    own = _OWN.get(recipe.arch, ())
    for arch, names in _OWN.items():
        for field in dataclasses.fields(Recipe):
            foreign = field.name in names and field.name not in own and field.name != "input_size"
            if foreign and getattr(recipe, field.name) != field.default:
                raise ValueError(
                    f"recipe: {field.name} is an option of {arch}, not of {recipe.arch}"
                )
    options = {name: getattr(recipe, name) for name in (*_COMMON, *own)}
    options["head"] = _head(recipe)
    if options["head"] == "shape":
        options["modes"] = modes
    elif recipe.shape_components != Recipe.shape_components:
        raise ValueError(
            f"recipe: shape_components is an option of the head 'shape', not of {options['head']!r}"
        )
    if recipe.confidence != "none":
        options |= {"confidence": recipe.confidence, "visibility": True}
    if "heatmap" in own:
        contours = chosen.contours if chosen else ()
        options["contours"] = [
            [*line.indices, *line.indices[: int(line.closed)]] for line in contours
        ]
    return options


def _head(recipe: Recipe) -> str:
    """The head of a recipe's network, by its name there."""
    known = _HEADS.get(recipe.arch, (recipe.head,))  # build_network refuses an unknown one
    if recipe.head == "auto":
        return known[0]
    if recipe.head not in known:
        raise ValueError(
            f"recipe: head is {recipe.head!r}, which {recipe.arch} does not have; "
            f"expected one of auto, {', '.join(known)}"
        )
    return recipe.head
