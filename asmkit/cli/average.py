"""``asmkit average``."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from asmkit.cli._terminal import shows_bars

__all__ = ["command"]


@click.command("average")
@click.argument("networks", metavar="NETWORK...", nargs=-1, required=True)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="New folder for the network."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of annotated images that they were trained on: compute the statistics of batch "
    "norm anew, as they are for the averaged weights. Default: average them, too.",
)
@click.option("--quiet", is_flag=True, help="No progress bars.")
def command(networks: tuple[str, ...], out: Path, data: Path | None, quiet: bool) -> None:
    """Average the weights of trained networks that began as one.

    Each NETWORK is the folder of a finished training or the name of a shipped network, at least
    two. They must be of one architecture and have been trained from one network (train --start).
    The result is one network, as fast as each of them.

    \b
    Examples:
      asmkit train --data faces/ --start runs/faces --seed 1 --out runs/one
      asmkit train --data faces/ --start runs/faces --seed 2 --out runs/two
      asmkit average runs/one runs/two --data faces/ --out runs/mean
    """
    from asmkit.nn import average_runs

    average_runs(networks, out, data=data, progress=shows_bars(quiet))
    where = shlex.quote(str(out))
    click.echo(
        f"{out}: the mean of {len(networks)} networks; measure it with: "
        f"asmkit evaluate {where} --data DIR"
    )
