"""A finished network as a program of torch: one ``.pt2`` file that runs without asmkit."""

from __future__ import annotations

import io
import json
import os
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from asmkit._files import replacing
from asmkit.nn.export import Deployed, difference, output_names
from asmkit.nn.folding import folded
from asmkit.nn.heads import LandmarkNetwork

__all__ = ["DESCRIPTION", "export_torch"]

#: Name of the description among the extra files of the program.
DESCRIPTION = "asmkit.json"

#: Greatest difference between the program and the network, in half crops, radians and probability.
TOLERANCE = 1e-5


def export_torch(
    network: LandmarkNetwork, size: int, path: str | os.PathLike[str], description: dict[str, Any]
) -> None:
    """Write the deployed network by :func:`torch.export.export`, and compare the two.

    The program takes RGB uint8 crops ``(n, size, size, 3)``, any number of them, on the CPU, and
    gives a dictionary: ``points (n, n_points, 2)`` in pixels of the crop, ``pose (n, 3)`` in
    degrees and, by the heads of the network, ``face (n,)``, ``scale (n, n_points)`` and
    ``visibility (n, n_points)``. Batch norm is folded into the layers before it.
    ``torch.export.load(path).module()`` is what runs it.

    Parameters
    ----------
    network : LandmarkNetwork
    size : int
        Side of the crop.
    path : path
        File to write.
    description : dict
        Kept as the extra file ``asmkit.json`` of the program.

    Raises
    ------
    RuntimeError
        When the program and the network differ by more than 1e-5 of half a crop.
    """
    program = torch.export.export(
        _Named(folded(network), size).eval(),
        (torch.zeros((2, size, size, 3), dtype=torch.uint8),),
        dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
    )
    _forget_origin(program)
    _check_parity(program, network, size)
    # Not straight into the file: its temporary name would become the name of the archive's folder.
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(
            program, written, extra_files={DESCRIPTION: json.dumps(description, sort_keys=True)}
        )
    with replacing(path) as temporary:
        temporary.write_bytes(written.getvalue())


class _Named(nn.Module):
    """A deployed network whose answers have names."""

    def __init__(self, network: LandmarkNetwork, size: int) -> None:
        super().__init__()
        self.deployed = Deployed(network, size)
        self.names = output_names(network)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.names, self.deployed(images), strict=True))


def _forget_origin(program: torch.export.ExportedProgram) -> None:
    """Drop the notes of the tracer: lines of code by their paths on this machine, half a MB."""
    for part in program.graph_module.modules():
        if isinstance(part, torch.fx.GraphModule):
            for node in part.graph.nodes:
                node.meta.pop("stack_trace", None)


def _check_parity(
    program: torch.export.ExportedProgram, network: LandmarkNetwork, size: int
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    crops = torch.from_numpy(images)
    names = output_names(network)
    with torch.inference_mode():
        found = program.module()(crops)
        expected = Deployed(network, size).eval()(crops)
    error = difference([found[name] for name in names], expected, names, size)
    if not error <= TOLERANCE:
        raise RuntimeError(
            f"the exported program differs from the network by {error:.2e}, more than {TOLERANCE}; "
            "this is a defect of the exporter: please report it with your torch version"
        )
