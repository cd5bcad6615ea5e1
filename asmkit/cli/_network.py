"""What the commands that use a trained network share: how it is named, opened and looked with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmkit.description import CODE_LICENSE
from asmkit.shipped import DEFAULT_NETWORK, shipped_networks

if TYPE_CHECKING:
    from asmkit.predictor import Predictor

__all__ = [
    "engine_option",
    "flip_option",
    "is_network",
    "network_argument",
    "network_option",
    "open_network",
    "passes_option",
    "prior_option",
]

_Command = Callable[..., Any]


def network_argument(command: _Command) -> _Command:
    """NETWORK, of a command that is about a network."""
    return click.argument("network")(command)


def network_option(command: _Command) -> _Command:
    """--network, of a command that is about images."""
    return click.option(
        "--network",
        metavar="NETWORK",
        default=DEFAULT_NETWORK,
        show_default=True,
        help=f"A shipped network ({', '.join(shipped_networks())}) or the folder of a finished "
        "training.",
    )(command)


def engine_option(command: _Command) -> _Command:
    """--engine."""
    return click.option(
        "--engine",
        type=click.Choice(["onnxruntime", "torch"]),
        help="Default: the first installed.",
    )(command)


def flip_option(command: _Command) -> _Command:
    """--flip."""
    return click.option(
        "--flip",
        is_flag=True,
        help="Look into the mirrored image as well, and take the mean. Twice the time.",
    )(command)


def passes_option(command: _Command) -> _Command:
    """--passes."""
    return click.option(
        "--passes",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="2: look again, into the box of the landmarks found first.",
    )(command)


def prior_option(command: _Command) -> _Command:
    """--no-shape-prior."""
    return click.option(
        "--shape-prior/--no-shape-prior",
        default=True,
        show_default=True,
        help="On faces of which the network takes a landmark for covered, let the shape model of "
        "its training say where the landmarks are, too.",
    )(command)


def open_network(network: str, engine: str | None = None) -> Predictor:
    """Load a network, and say on the standard error what its licence does not allow."""
    from asmkit.predictor import load

    predictor = load(network, engine=engine)
    if predictor.license not in (None, CODE_LICENSE):
        click.echo(f"Note: {network} is {predictor.license}", err=True)
    return predictor


def is_network(path: Path) -> bool:
    """Whether this names a network, and no image."""
    return str(path) in shipped_networks() or (path / "model.json").is_file()
