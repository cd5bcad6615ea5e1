"""The command line ``asmkit``: one file a subcommand, each its arguments and one call."""

from __future__ import annotations

import importlib
import os
from typing import Any

import click

import asmkit
from asmkit.cli._terminal import in_one_line

__all__ = ["main"]

#: Subcommand → its one line of help. The module of the same name is imported when it is used.
_COMMANDS = {
    "demo": "Run the whole route on rendered faces, or on a folder of your own.",
    "convert": "Write annotations in another format.",
    "model": "Fit a shape model, look at it, draw its modes.",
    "smooth": "Write annotations smoothed by a shape model.",
    "pose": "Head pose of annotated faces.",
    "train": "Train a landmark network on a folder of annotated images.",
    "average": "Average the weights of trained networks that began as one.",
    "evaluate": "Measure a trained network on annotated images.",
    "predict": "Find landmarks and head pose in photos.",
    "track": "Track faces through a video.",
    "export": "Write a trained network as ONNX.",
}


class _Commands(click.Group):
    """Subcommands that are imported when they are used, so that the help is there at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"asmkit.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with in_one_line():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        # OpenCV prints lines of its own about a damaged image; it reads this when it is imported.
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
        with in_one_line():
            return super().invoke(ctx)


@click.group(
    "asmkit",
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(asmkit.__version__, prog_name="asmkit")
def main() -> None:
    """Statistical shape models of landmarks, and the compact networks that learn from them.

    \b
    Begin with:
      asmkit demo                     the whole route on rendered faces, three minutes
      asmkit COMMAND --help           each with examples
    """
