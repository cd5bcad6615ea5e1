"""The mean of trained networks: one network, as fast as any of them.

Sources: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves
accuracy without increasing inference time", ICML 2022, arXiv 2203.05482 (the uniform soup), and
Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018,
arXiv 1803.05407. Both average networks that began as one trained network. The mean of networks that
were trained from different random weights is no trained network at all.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asmkit._files import replacing
from asmkit.description import SHAPE_MODEL, check_weights, inherited_license, weights_file
from asmkit.nn.batch_statistics import recompute_statistics
from asmkit.nn.calibration import calibrate
from asmkit.nn.checkpoint import make_folder
from asmkit.nn.export import load_network, write_described
from asmkit.nn.heads import LandmarkNetwork
from asmkit.nn.preparation import prepare, read_annotations
from asmkit.nn.recipe import Recipe
from asmkit.shipped import network_folder

__all__ = ["average_networks", "average_runs"]

_RECIPE = "recipe.toml"


def average_networks(networks: Sequence[LandmarkNetwork]) -> LandmarkNetwork:
    """A new network whose every weight is the mean of those of the given ones.

    The running statistics of batch norm are averaged like the weights, which is right as far as the
    networks are alike; :func:`average_runs` can compute them anew.

    Parameters
    ----------
    networks : sequence of LandmarkNetwork
        At least two, of one architecture, that began as one network.

    Returns
    -------
    LandmarkNetwork
        In evaluation mode, on the device of the first.

    Raises
    ------
    ValueError
        For less than two networks, or when architectures or shapes differ.
    """
    if len(networks) < 2:
        raise ValueError(f"networks: got {len(networks)}, expected at least 2 to average")
    states = [network.state_dict() for network in networks]
    for number, (network, state) in enumerate(zip(networks, states, strict=True), 1):
        _check_alike(number, network, state, networks[0], states[0])
    average = copy.deepcopy(networks[0])
    average.load_state_dict({name: _mean([state[name] for state in states]) for name in states[0]})
    return average.eval()


def _check_alike(
    number: int,
    network: LandmarkNetwork,
    state: dict[str, Tensor],
    first: LandmarkNetwork,
    expected: dict[str, Tensor],
) -> None:
    same = "expected networks of one architecture and form"
    if type(network) is not type(first):
        raise ValueError(
            f"networks: number {number} is {type(network).__name__}, the first "
            f"{type(first).__name__}; {same}"
        )
    lone = sorted(state.keys() ^ expected.keys())
    if lone:
        raise ValueError(
            f"networks: only one of number {number} and the first has {lone[0]}; {same}"
        )
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise ValueError(
                f"networks: {name} of number {number} has the shape {tuple(tensor.shape)}, of the "
                f"first {tuple(expected[name].shape)}; {same}"
            )


def _mean(tensors: list[Tensor]) -> Tensor:
    if not tensors[0].is_floating_point():
        return torch.stack(tensors).amax(0)  # counters of batches, of which nothing depends
    total = tensors[0].double()
    for tensor in tensors[1:]:
        total = total + tensor.to(total.device).double()
    # Rounded once: the mean of equal weights is that weight, to the bit.
    return (total / len(tensors)).to(tensors[0].dtype)


class _Run(NamedTuple):
    """A trained network to average."""

    name: str
    folder: Path
    network: LandmarkNetwork
    description: dict[str, Any]
    sha256: str

    @property
    def lineage(self) -> set[str]:
        """SHA-256 of its weights and of all that it was started from."""
        return {self.sha256, *self.description.get("trained", {}).get("ancestors", ())}


def average_runs(
    runs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Path:
    """Average the weights of trained networks that began as one, and write the network.

    Parameters
    ----------
    runs : sequence of path or str
        Folders of finished trainings, or names of shipped networks, at least two: trained with
        ``start=`` from one network, with other seeds, rates or data, or that network itself.
    out : path
        A new folder for ``model.safetensors``, ``model.json`` and ``model.onnx``, with the recipe
        of the first, in which no image is held out that one of them was trained on, and its shape
        model.
    data : path, optional
        Folder of annotated images that they were trained on. With it, one pass over the augmented
        images computes the statistics of batch norm anew (arXiv 1803.05407, section 3.2), and a
        confidence head is calibrated anew on the images held out; without, all of that is averaged
        like the weights.
    progress : bool
        Show a progress bar while images are read.

    Returns
    -------
    Path
        The folder ``out``, which :func:`asmkit.load` takes.

    Raises
    ------
    ValueError
        For less than two networks; when architectures, crops or schemes differ; when nothing says
        that the networks began as one; when ``data`` is of other landmarks.
    FileNotFoundError, FormatError
        When there is no such network, or its files are damaged.
    FileExistsError
        When ``out`` is there and not empty.
    """
    trained = [_read(run) for run in runs]
    if len(trained) < 2:
        raise ValueError(f"runs: got {len(trained)}, expected at least 2 networks to average")
    _check_shared(trained)
    network = average_networks([run.network for run in trained])
    recipe = _recipe(trained)
    about: dict[str, Any] = {"average_of": [run.sha256 for run in trained]}
    about["ancestors"] = sorted(set.intersection(*(run.lineage for run in trained)))
    labels = [run.description.get("trained", {}).get("pose_labels") for run in trained]
    if None not in labels:
        about["pose_labels"] = min(labels)
    if data is not None:
        about |= _fit_to_data(network, trained[0], recipe, data, progress)
    description = {**trained[0].description, "trained": about}
    description.pop("license", None)
    license = inherited_license(run.description.get("license") for run in trained)
    if license is not None:
        description["license"] = license
    folder = make_folder(out)
    if recipe is not None:
        with replacing(folder / _RECIPE) as temporary:
            temporary.write_text(recipe.to_toml(), "utf-8")
    shapes = trained[0].folder / SHAPE_MODEL
    if shapes.is_file():
        with replacing(folder / SHAPE_MODEL) as temporary:
            temporary.write_bytes(shapes.read_bytes())
    write_described(folder, network, description)
    return folder


def _read(run: str | os.PathLike[str]) -> _Run:
    folder = network_folder(run)
    network, description = load_network(run)
    sha256 = check_weights(weights_file(folder), description)
    return _Run(os.fspath(run), folder, network, description, sha256)


def _check_shared(trained: list[_Run]) -> None:
    first = trained[0]
    expected = _form(first.description)
    for run in trained[1:]:
        form = _form(run.description)
        for key in form | expected:
            given, wanted = form.get(key), expected.get(key)
            if given != wanted:
                raise ValueError(
                    f"{run.name}: its {key} is {given!r}, that of {first.name} {wanted!r}; "
                    "expected networks of one architecture, form and crop"
                )
    if not set.intersection(*(run.lineage for run in trained)):
        raise ValueError(
            f"{', '.join(run.name for run in trained)}: nothing in model.json says that these "
            "networks began as one trained network, without which their mean is none; train them "
            "from one (asmkit train --start)"
        )


def _form(description: dict[str, Any]) -> dict[str, Any]:
    """What networks must share to be averaged."""
    form = {k: description[k] for k in ("arch", "n_points", "scheme", "input_size", "margin")}
    options = {k: v for k, v in description.get("options", {}).items() if k != "dropout"}
    return form | {"width": description["width"]} | options


def _recipe(trained: list[_Run]) -> Recipe | None:
    """The recipe of the first, holding out what all of them held out; None where one is missing."""
    paths = [run.folder / _RECIPE for run in trained]
    if not all(path.is_file() for path in paths):
        return None
    recipes = [Recipe.read(path) for path in paths]
    # A larger share contains the smaller one.
    return replace(recipes[0], validation=min(recipe.validation for recipe in recipes))


def _fit_to_data(
    network: LandmarkNetwork,
    first: _Run,
    recipe: Recipe | None,
    data: str | os.PathLike[str],
    progress: bool,
) -> dict[str, Any]:
    """What of a network comes from data and not from weights; gives what there is to say of it."""
    if recipe is None:
        raise ValueError(
            f"data: got {os.fspath(data)!r}, but a network has no {_RECIPE} beside it, which says "
            "how to crop and augment these images; average without data"
        )
    annotations = read_annotations(data)
    n_points = len(annotations[0].points)
    if n_points != network.n_points:
        raise ValueError(
            f"data: {os.fspath(data)} has {n_points} points, the networks {network.n_points}; "
            "expected images that they were trained on"
        )
    parts = prepare(annotations, recipe, progress)
    recompute_statistics(network, parts, recipe)
    if network.confidence is None or parts.validation is None:
        return {}
    likelihood = first.description["options"]["confidence"]
    return {"calibration": calibrate(network, parts.validation, likelihood)}
