"""``asmkit train``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmkit.cli._terminal import Stopped, shows_bars

if TYPE_CHECKING:
    from asmkit.nn import Recipe

__all__ = ["command"]


@click.command("train")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder of annotated images or shards."
)
@click.option("--out", type=click.Path(path_type=Path), help="New folder for the results.")
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    help="Folder of a stopped training: go on with it, as it was started.",
)
@click.option("--arch", help="Network: asmnet, atpn, mobilenetv2. Default: the recipe's.")
@click.option(
    "--recipe",
    help="Recipe file (TOML), or the name of a shipped one. Default: the one named as the network, "
    "else asmnet.",
)
@click.option("--epochs", type=click.IntRange(0), help="Default: the recipe's.")
@click.option("--batch-size", type=click.IntRange(2), help="Default: the recipe's.")
@click.option("--input-size", type=click.IntRange(32, 1024), help="Default: the recipe's.")
@click.option("--seed", type=click.IntRange(0), help="Default: the recipe's.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help='Any other key of the recipe, as in TOML: --set alpha="to-zero". May be repeated.',
)
@click.option(
    "--others",
    type=click.Path(path_type=Path),
    help="Folder of images without faces: more negatives for ATPN's tracking head.",
)
@click.option(
    "--start",
    metavar="DIRECTORY",
    help="Trained network of the same architecture, whose weights to begin with: a folder, or the "
    "name of a shipped one.",
)
@click.option(
    "--teacher",
    metavar="NETWORK",
    help="Trained network for the same landmarks, a folder or a shipped one's name: what it finds "
    "in each crop is one more target. Its weight: --set teacher_weight=1.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    help="Where to compute. Default: on a GPU where there is one.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads that compute. Default: torch's.")
@click.option("--quiet", is_flag=True, help="No progress bars.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    data: Path | None,
    out: Path | None,
    resume: Path | None,
    recipe: str | None,
    settings: tuple[str, ...],
    others: Path | None,
    start: str | None,
    teacher: str | None,
    device: str | None,
    threads: int | None,
    quiet: bool,
    **changes: Any,
) -> None:
    """Train a landmark network on a folder of annotated images.

    The ASM-assisted loss takes its smoothed targets from a shape model that is fitted on the same
    folder. Every epoch adds a row to log.jsonl in the new folder. A training that was stopped, by
    Ctrl-C or a kill, goes on with --resume, to the same result.

    \b
    Examples:
      asmkit train --data faces/ --arch asmnet --out runs/faces
      asmkit train --data faces/ --arch atpn --out runs/tracking
      asmkit train --resume runs/faces
      asmkit train --data hands/ --out runs/hands --epochs 60 --set rotation=10
      asmkit train --data faces/ --out runs/small --teacher runs/wide --set teacher_weight=1
      torchrun --nproc-per-node 2 -m asmkit train --data faces/ --out runs/faces
    """
    if resume is not None:
        _refuse_other_options(ctx)
    # Torch's threads spin while they wait for each other, by default for so long that they starve
    # whatever else runs, the thread that makes the batches too. With a third of a core taken this
    # trained 119 images/s against 20, alone 157 against 162. It counts only before torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")
    from asmkit import nn

    bars = shows_bars(quiet)
    folder = resume or out
    if folder is None or (resume is None and data is None):
        raise click.UsageError("expected --data DIR and --out RUN, or --resume RUN", ctx)
    try:
        if data is None:
            nn.resume(folder, progress=bars)
        else:
            chosen = _recipe(recipe, changes, settings)
            nn.train(
                *(data, folder, chosen),
                threads=threads,
                others=others,
                start=start,
                teacher=teacher,
                device=device,
                progress=bars,
            )
    except KeyboardInterrupt as stop:
        raise Stopped(_what_is_left(folder)) from stop
    click.echo(f"{folder}: trained; measure it with: asmkit evaluate {_quoted(folder)} --data DIR")


def _refuse_other_options(ctx: click.Context) -> None:
    for option in ctx.command.params:
        given = ctx.params.get(option.name or "")
        if given not in (None, ()) and option.name not in ("resume", "quiet"):
            raise click.UsageError(
                f"--resume goes on as the training was started and takes no {option.opts[0]}", ctx
            )


def _recipe(source: str | None, changes: dict[str, Any], settings: tuple[str, ...]) -> Recipe:
    from asmkit.nn import Recipe
    from asmkit.nn.recipe import parse_settings, shipped_recipes

    given = {name: value for name, value in changes.items() if value is not None}
    given |= parse_settings(settings)
    arch = given.get("arch")
    return Recipe.read(source or (arch if arch in shipped_recipes() else "asmnet"), **given)


def _what_is_left(folder: Path) -> str:
    if (folder / "run.json").is_file():
        return f"stopped; go on with: asmkit train --resume {_quoted(folder)}"
    return "stopped before the first epoch; nothing was written"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
