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
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="File to write (.onnx)."
)
def command(network: str, out: Path) -> None:
    """Write a trained network as ONNX, and compare it with torch.

    NETWORK is the name of a shipped network or the folder of a finished training; a shipped
    network is ONNX already, and is copied.
    The file takes uint8 RGB crops (n, size, size, 3) and gives points in pixels of the crop and
    yaw, pitch, roll in degrees; its metadata "asmkit" says how to crop.

    \b
    Examples:
      asmkit export runs/faces -o faces.onnx
      asmkit export atpn-ibug68 -o atpn.onnx
    """
    from asmkit.shipped import network_folder, shipped_networks

    if out.suffix != ".onnx":
        raise click.BadParameter(f"{out} does not end in .onnx", param_hint="--out")
    if network in shipped_networks():
        _copy(network_folder(network), out)
    else:
        _export(network, out)


def _copy(folder: Path, out: Path) -> None:
    from asmkit._files import replacing

    with replacing(out) as temporary:
        temporary.write_bytes((folder / "model.onnx").read_bytes())
    click.echo(f"{out}: copied as it was shipped; its licence: {folder / 'LICENSE.txt'}")


def _export(run: str, out: Path) -> None:
    from asmkit.nn import export_onnx, load_network

    network, description = load_network(run)
    export_onnx(network, description["input_size"], out, description)
    compared = importlib.util.find_spec("onnxruntime") is not None
    click.echo(
        f"{out}: "
        + ("equals torch to 1e-4" if compared else "not compared with torch: no ONNX Runtime here")
    )
