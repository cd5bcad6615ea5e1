"""Text files from anywhere: bounded in size, checked to be text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from asmkit.errors import FormatError

__all__ = ["numbers", "read_text"]


def read_text(path: Path, max_bytes: int) -> str:
    """Read a text file; bytes that are not UTF-8 (old comments) become replacement marks."""
    with path.open("rb") as stream:
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise FormatError(
            f"{path}: larger than {max_bytes / 2**20:.0f} MiB, which no file of this kind is; "
            "is it the right file?"
        )
    if b"\0" in data:
        raise FormatError(
            f"{path}: holds NUL bytes, so it is binary (or UTF-16: save it as UTF-8); "
            "expected a text file of landmarks"
        )
    return data.decode("utf-8-sig", errors="replace")


def numbers(fields: list[str], where: str) -> npt.NDArray[np.float64]:
    """Turn fields into float64: finite numbers or ``nan`` (missing)."""
    try:
        values = np.array(list(map(float, fields)), dtype=np.float64)
    except ValueError as error:
        raise FormatError(f"{where}: {str(error)[:80]}; expected numbers only") from error
    if np.isinf(values).any():
        raise FormatError(f"{where}: holds an infinite number; write nan for a missing point")
    return values
