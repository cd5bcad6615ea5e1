"""``asmkit export``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click

__all__ = ["command"]


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="File to write (.onnx)."
)
def command(run: Path, out: Path) -> None:
    """Write a trained network as ONNX, and compare it with torch.

    RUN is the folder of a finished training; the same file is in it as model.onnx.
    The file takes uint8 RGB crops (n, size, size, 3) and gives points in pixels of the crop and
    yaw, pitch, roll in degrees; its metadata "asmkit" says how to crop.

    \b
    Example:
      asmkit export runs/faces -o faces.onnx
    """
    from asmkit.nn import export_onnx, load_network

    if out.suffix != ".onnx":
        raise click.BadParameter(f"{out} does not end in .onnx", param_hint="--out")
    network, description = load_network(run)
    export_onnx(network, description["input_size"], out, description)
    compared = importlib.util.find_spec("onnxruntime") is not None
    click.echo(
        f"{out}: "
        + ("equals torch to 1e-4" if compared else "not compared with torch: no ONNX Runtime here")
    )
