"""``python -m asmkit`` is the command line."""

from asmkit.cli import main

main(prog_name="asmkit")
