"""``asmkit train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

__all__ = ["command"]


@click.command("train")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of annotated images.")
@click.option("--out", type=click.Path(path_type=Path), help="New folder for the results.")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this stopped training.")
@click.option("--arch", default="asmnet", show_default=True, help="Network: asmnet, mobilenetv2.")
@click.option(
    "--recipe",
    help="Recipe file (TOML), or the name of a shipped one; by default the one named as the "
    "network, if there is one.",
)
@click.option("--epochs", type=click.IntRange(1), help="Instead of the recipe's.")
@click.option("--batch-size", type=click.IntRange(1), help="Instead of the recipe's.")
@click.option("--input-size", type=click.IntRange(32), help="Instead of the recipe's.")
@click.option("--seed", type=click.IntRange(0), help="Instead of the recipe's.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help='Any other key of the recipe, as in TOML: --set alpha="to-zero". May be repeated.',
)
@click.option("--threads", type=click.IntRange(1), help="Threads that compute.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
def command(
    data: Path | None,
    out: Path | None,
    resume: Path | None,
    arch: str,
    recipe: str | None,
    settings: tuple[str, ...],
    threads: int | None,
    quiet: bool,
    **changes: Any,
) -> None:
    """Train a landmark network on a folder of annotated images.

    The ASM-assisted loss takes its smoothed targets from a shape model that is fitted on the same
    folder. A killed training goes on with --resume, to the same result.

    \b
    Examples:
      asmkit train --data faces/ --arch asmnet --out runs/faces
      asmkit train --resume runs/faces
      asmkit train --data hands/ --out runs/hands --epochs 60 --set rotation=10
    """
    # Threads that spin while they wait starve the one that makes the batches; it must be set
    # before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from asmkit.nn import Recipe
    from asmkit.nn import resume as resume_training
    from asmkit.nn import train as start_training
    from asmkit.nn.recipe import parse_settings, shipped_recipes

    if resume is not None:
        if data or out:
            raise click.UsageError("--resume takes its data and folder from the stopped training")
        folder = resume_training(resume, progress=not quiet)
    else:
        if data is None or out is None:
            raise click.UsageError("give --data DIR and --out RUN, or --resume RUN")
        given = {name: value for name, value in changes.items() if value is not None}
        given |= parse_settings(settings) | {"arch": arch}
        source = recipe or (arch if arch in shipped_recipes() else None)
        chosen = Recipe.read(source, **given) if source else Recipe(**given)
        folder = start_training(data, out, chosen, threads=threads, progress=not quiet)
    click.echo(f"{folder}: trained; measure it with: asmkit evaluate {folder} --data DIR")
