"""``asmkit demo``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from asmkit.cli._terminal import shows_bars

__all__ = ["command"]


@click.command("demo")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of annotated images; a fifth of them is the test. Default: rendered faces.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="New folder for the results.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of the rendered faces and of the training.",
)
@click.option(
    "--faces",
    type=click.IntRange(40),
    default=2000,
    show_default=True,
    help="How many to render; a tenth of them is the test.",
)
@click.option("--epochs", type=click.IntRange(1), help="Default: what the demo recipe says.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def command(
    data: Path | None, out: Path, seed: int, faces: int, epochs: int | None, quiet: bool
) -> None:
    """Run the whole route on rendered faces, or on a folder of your own.

    Fits a shape model, writes smoothed labels, trains a small ASMNet with the ASM-assisted loss,
    measures it on faces it has not seen, exports it as ONNX and leaves pictures. Under three
    minutes on two cores.

    \b
    Examples:
      asmkit demo
      asmkit demo --data faces/ --out results/
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")  # see asmkit train
    from asmkit.demo import run_demo

    result = run_demo(
        out,
        data,
        seed=seed,
        n_faces=faces,
        epochs=epochs,
        say=click.echo,
        progress=shows_bars(quiet),
    )
    click.echo(f"\n{result}\n")
    for name, what in _LEAVES.items():
        click.echo(f"  {result.folder / name}: {what}")


_LEAVES = {
    "modes.png": "the modes of the shape model",
    "predictions.png": "landmarks found on unseen faces",
    "ced.png": "cumulative errors, beside the baselines",
    "training.png": "loss and validation error",
    "smoothed": "smoothed labels",
    "run/model.onnx": "the network",
    "results.json": "the numbers",
}
