"""The README is executed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_five_lines_run() -> None:
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[0]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) >= 3


def test_the_two_commands_are_there() -> None:
    commands = [block.strip() for block in blocks("bash")]
    assert 'pip install -c constraints.txt ".[all]" && asmkit demo' in commands
    assert (
        'pip install -c constraints.txt ".[test]" && python -m pytest -n 2 --dist loadfile'
        in commands
    )


@pytest.mark.parametrize(
    "line",
    [line for block in blocks("bash") for line in block.splitlines() if line.startswith("asmkit")],
)
def test_every_command_line_has_real_options(line: str) -> None:
    """Each option of the README stands in the command's own help."""
    words = line.split()[1:]
    command = words[:2] if words[0] == "model" else words[:1]
    help_text = subprocess.run(
        [sys.executable, "-m", "asmkit", *command, "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for option in (word for word in words if word.startswith("-")):
        assert re.search(rf"(^|[\s,]){option}\b", help_text), option


def test_linked_files_exist() -> None:
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (root / target).exists(), target
