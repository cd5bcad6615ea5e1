"""A finished network as files: weights, description and ONNX, in one folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from asmkit._extras import require
from asmkit._files import replacing
from asmkit.description import read_description, weights_file
from asmkit.errors import FormatError
from asmkit.nn.checkpoint import read_tensors, write_tensors
from asmkit.nn.folding import folded
from asmkit.nn.heads import LandmarkNetwork, as_input, to_crop
from asmkit.nn.networks import build_network, network_options
from asmkit.nn.recipe import Recipe
from asmkit.schemes import Scheme
from asmkit.shipped import network_folder

__all__ = [
    "Deployed",
    "difference",
    "export_onnx",
    "load_network",
    "output_names",
    "write_described",
    "write_network",
]

#: Version of the description in ``model.json``, without and with a visibility head: what knows only
#: the first would take the last output of a network for its scales.
FORMAT, FORMAT_WITH_VISIBILITY = 1, 2

#: Greatest difference between ONNX Runtime and torch, in half crops, radians and probability.
TOLERANCE = 1e-4


class Deployed(nn.Module):
    """A network with its pre- and post-processing: uint8 crops in, crop pixels and degrees out.

    A network with a tracking head gives the probability of a face as well, one with a confidence
    head the calibrated scales of its errors, one with a visibility head, last, the calibrated
    probability that nothing lies over each landmark.

    Parameters
    ----------
    network : LandmarkNetwork
    size : int
        Side of the crop.
    memory_format : torch.memory_format, optional
        Of the maps: channels last is what torch is fastest with on a CPU.
    """

    def __init__(
        self,
        network: LandmarkNetwork,
        size: int,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        super().__init__()
        self.network = network
        self.size = size
        self.memory_format = memory_format

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """RGB uint8 ``(n, s, s, 3)`` to what :func:`output_names` names."""
        output = self.network(as_input(images).contiguous(memory_format=self.memory_format))
        answers = [to_crop(output.points, self.size), torch.rad2deg(output.angles)]
        if output.face is not None:
            answers.append(torch.sigmoid(output.face))
        if output.log_scale is not None:
            answers.append(torch.exp(output.log_scale) * (self.size / 2))
        if output.visible is not None:
            answers.append(torch.sigmoid(output.visible))
        return tuple(answers)


def output_names(network: LandmarkNetwork) -> list[str]:
    """What a deployed network gives, in order: points, pose and what its heads add."""
    heads = {"face": network.tasks, "scale": network.confidence, "visibility": network.visibility}
    return ["points", "pose", *(name for name, head in heads.items() if head is not None)]


def difference(
    given: Sequence[npt.ArrayLike], expected: Sequence[npt.ArrayLike], names: list[str], size: int
) -> float:
    """Greatest difference between answers, in half crops, radians and probability."""
    units = {"points": size / 2, "pose": np.rad2deg(1.0), "scale": size / 2}
    return max(
        float(np.abs(np.asarray(one) - np.asarray(other)).max() / units.get(name, 1.0))
        for one, other, name in zip(given, expected, names, strict=True)
    )


def write_network(
    folder: Path,
    network: LandmarkNetwork,
    recipe: Recipe,
    chosen: Scheme | None,
    trained: dict[str, Any],
    license: str | None = None,
) -> None:
    """Write the files of a network that was trained by a recipe, see :func:`write_described`.

    ``license`` is what binds it of the networks that it was made from.
    """
    description = {
        "format": FORMAT if network.visibility is None else FORMAT_WITH_VISIBILITY,
        "arch": recipe.arch,
        "width": recipe.width,
        "options": network_options(recipe, chosen, network.modes),
        "n_points": network.n_points,
        "scheme": chosen.name if chosen else None,
        "input_size": recipe.input_size,
        "margin": recipe.margin,
        "input": "uint8 RGB crop (n, size, size, 3): the square around the tight landmark box, "
        "its side margin × the longer side of the box",
        "output": "points (n, n_points, 2) in pixels of the crop, 0-based pixel centres; "
        "pose (n, 3) yaw, pitch, roll in degrees (aflw)"
        + ("; face (n,) probability that the crop shows a face" if network.tasks else "")
        + ("; scale (n, n_points) expected errors in pixels" if network.confidence else "")
        + (
            "; visibility (n, n_points) probability that nothing lies over a point"
            if network.visibility
            else ""
        ),
        "trained": trained,
    }
    if license is not None:
        description["license"] = license
    write_described(folder, network, description)


def write_described(folder: Path, network: LandmarkNetwork, description: dict[str, Any]) -> None:
    """Write ``model.safetensors``, ``model.onnx`` and, last, ``model.json``.

    The description, whose SHA-256 becomes that of these weights, comes last: a folder that has it
    is complete.
    """
    network = network.eval()
    path = folder / "model.safetensors"
    write_tensors(path, network.state_dict(), {"arch": description["arch"]})
    description = {**description, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    export_onnx(network, description["input_size"], folder / "model.onnx", description)
    with replacing(folder / "model.json") as temporary:
        temporary.write_text(json.dumps(description, indent=1) + "\n", "utf-8")


def load_network(folder: str | os.PathLike[str]) -> tuple[LandmarkNetwork, dict[str, Any]]:
    """Rebuild a trained network from its folder; gives it with its description.

    Raises
    ------
    FileNotFoundError
        When there is no trained network in the folder, or it has no weights for torch.
    FormatError
        When a file is broken or the weights do not belong to the description.
    """
    folder = network_folder(folder)
    description = read_description(folder)
    # A description without options is of a network that has no others.
    options = description.get("options", {"width": description["width"]})
    try:
        network = build_network(description["arch"], description["n_points"], **options)
    except (TypeError, ValueError, IndexError) as error:
        raise FormatError(f"{folder / 'model.json'}: no such network ({error})") from error
    tensors, _ = read_tensors(weights_file(folder))
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise FormatError(
            f"{folder / 'model.safetensors'}: these weights are not of the network that "
            f"model.json describes: {error}"
        ) from error
    return network.eval(), description


def export_onnx(
    network: LandmarkNetwork, size: int, path: str | os.PathLike[str], description: dict[str, Any]
) -> None:
    """Write the deployed network as ONNX and, where ONNX Runtime is installed, compare the two.

    Parameters
    ----------
    network : LandmarkNetwork
    size : int
        Side of the crop.
    path : path
        File to write.
    description : dict
        Kept as the metadata ``asmkit`` of the file.

    Raises
    ------
    MissingExtraError
        Without the packages onnx and onnxscript.
    RuntimeError
        When ONNX Runtime and torch differ by more than 1e-4 of half a crop.
    """
    onnx = require("onnx", "nn")
    require("onnxscript", "nn")
    # ONNX knows no memory formats: channels last would become a gather after every pooling.
    deployed = Deployed(folded(network), size, torch.contiguous_format).eval()
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    with replacing(path) as temporary:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            program = torch.onnx.export(
                deployed,
                (example,),
                dynamo=True,
                input_names=["images"],
                output_names=output_names(network),
                dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
                verbose=False,
            )
        assert program is not None  # the exporter gives one unless it was asked to write a file
        model = program.model_proto
        _forget_origin(model)
        entry = model.metadata_props.add()
        entry.key, entry.value = "asmkit", json.dumps(description, sort_keys=True)
        onnx.save(model, str(temporary))
        _check_parity(network, Path(temporary), size)


def _forget_origin(model: Any) -> None:
    """Drop the notes of the exporter: lines of code by their paths on this machine, half a MB."""
    graphs = [model.graph, *model.functions]
    for part in (model.graph, *(node for graph in graphs for node in graph.node)):
        del part.metadata_props[:]
        part.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]


def _check_parity(network: LandmarkNetwork, path: Path, size: int) -> None:
    try:
        import onnxruntime
    except ImportError:
        return
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = session.run(None, {"images": images})
    with torch.inference_mode():
        expected = Deployed(network, size).eval()(torch.from_numpy(images))
    error = difference(given, expected, output_names(network), size)
    if not error <= TOLERANCE:
        raise RuntimeError(
            f"the ONNX export differs from torch by {error:.2e}, more than {TOLERANCE}; "
            "this is a defect of the exporter: please report it with your torch version"
        )
