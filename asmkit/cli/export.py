"""``asmkit export``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

from asmkit.cli._network import network_argument

__all__ = ["command"]


@click.command("export")
@network_argument
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="File to write: .onnx, or .pt2 for a program of torch.",
)
def command(network: str, out: Path) -> None:
    """Write a trained network as ONNX or as a program of torch, and compare it with torch.

    NETWORK is the name of a shipped network or the folder of a finished training; a shipped
    network is ONNX already, and is copied.
    The file takes uint8 RGB crops (n, size, size, 3) and gives points in pixels of the crop and
    yaw, pitch, roll in degrees; its metadata "asmkit" says how to crop. A .pt2 file is what
    torch.export.load reads, without asmkit; its extra file "asmkit.json" says how to crop.

    \b
    Examples:
      asmkit export runs/faces -o faces.onnx
      asmkit export runs/faces -o faces.pt2
      asmkit export atpn-ibug68 -o atpn.onnx
    """
    from asmkit.shipped import network_folder, shipped_networks

    shipped = network in shipped_networks()
    if out.suffix == ".pt2":
        _as_program(network, out)
    elif out.suffix != ".onnx":
        raise click.BadParameter(f"{out} ends in neither .onnx nor .pt2", param_hint="--out")
    elif shipped:
        _copy(network_folder(network), out)
    else:
        _as_onnx(network, out)
    if shipped:
        click.echo(f"its licence: {network_folder(network) / 'LICENSE.txt'}")


def _copy(folder: Path, out: Path) -> None:
    from asmkit._files import replacing

    with replacing(out) as temporary:
        temporary.write_bytes((folder / "model.onnx").read_bytes())
    click.echo(f"{out}: copied as it was shipped")


def _as_program(network: str, out: Path) -> None:
    from asmkit.nn import export_torch, load_network

    made, description = load_network(network)
    export_torch(made, description["input_size"], out, description)
    click.echo(f"{out}: equals the network to 1e-5")


def _as_onnx(run: str, out: Path) -> None:
    from asmkit.nn import export_onnx, load_network

    network, description = load_network(run)
    export_onnx(network, description["input_size"], out, description)
    compared = importlib.util.find_spec("onnxruntime") is not None
    click.echo(
        f"{out}: "
        + ("equals torch to 1e-4" if compared else "not compared with torch: no ONNX Runtime here")
    )
