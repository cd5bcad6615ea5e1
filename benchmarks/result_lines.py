"""Results as the lines of a file: what is there already is not run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["add_row", "is_there", "read_rows"]

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, none where there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def is_there(rows: list[Row], key: Row) -> bool:
    """Whether a row has all that the key says."""
    return any(key.items() <= row.items() for row in rows)


def add_row(path: Path, rows: list[Row], row: Row) -> None:
    """Add a row to the file and to those that were read from it."""
    rows.append(row)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
