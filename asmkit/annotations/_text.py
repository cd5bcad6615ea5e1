"""Text files from anywhere: bounded in size, checked to be text."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from asmkit.errors import FormatError

__all__ = [
    "MAX_ANNOTATIONS",
    "MAX_BYTES",
    "MAX_BYTES_ONE_BY_ONE",
    "MAX_LINES",
    "as_text",
    "check_number_of_annotations",
    "encoded",
    "first_bytes",
    "numbers",
    "one_line",
    "read_bytes",
    "read_text",
    "scaled",
    "whole_number",
    "written_numbers",
]

#: Most bytes of a file that are read unless the caller allows more, and most annotations and lines
#: in it. They keep what a hostile file can cost below a gigabyte and near a second: a field of
#: three bytes takes a hundred while it is read. Where instances are read one by one, more is
#: bearable. A caller who allows more bytes than any format does by itself is allowed as many times
#: more annotations and lines.
MAX_BYTES = 16 * 2**20
MAX_BYTES_ONE_BY_ONE = 32 * 2**20
MAX_ANNOTATIONS = 100_000
MAX_LINES = 1_000_000

_MARK = b"\xef\xbb\xbf"  # some programs of Windows begin UTF-8 with it
_WHOLE_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a file that is not larger than it may be."""
    data = bytearray()
    with path.open("rb") as stream:
        # By pieces: asking for the most that may come would reserve that for every small file.
        while len(data) <= max_bytes and (piece := stream.read(2**20)):
            data += piece
    if len(data) > max_bytes:
        raise FormatError(
            f"{path}: larger than {max_bytes / 2**20:.0f} MiB, which files of this kind seldom "
            "are; is it the right file? If so, allow it by max_bytes"
        )
    return bytes(data)


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """Read a text file, see :func:`as_text`."""
    return as_text(read_bytes(path, max_bytes), str(path), max_bytes)


def as_text(data: bytes, where: str, max_bytes: int = MAX_BYTES) -> str:
    """The text of bytes; its lines end as in Unix, whatever system it comes from.

    Bytes that are not UTF-8 (old comments) become replacement marks.
    """
    if b"\0" in data:
        raise FormatError(
            f"{where}: holds NUL bytes, so it is binary (or UTF-16: save it as UTF-8); "
            "expected a text file of landmarks"
        )
    text = data.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    most = scaled(MAX_LINES, max_bytes)
    if text.count("\n") > most:
        raise FormatError(
            f"{where}: holds more than {most} lines; is it the right file? If so, split it, or "
            "allow it by max_bytes"
        )
    return text


def scaled(most: int, max_bytes: int) -> int:
    """``most``, or as many times more as ``max_bytes`` is above what any format allows."""
    return most * max(1, max_bytes // MAX_BYTES_ONE_BY_ONE)


def first_bytes(path: Path, count: int = 2**16) -> bytes:
    """The beginning of a file, without the mark of UTF-8: enough to tell its format."""
    with path.open("rb") as stream:
        return stream.read(count + len(_MARK)).removeprefix(_MARK)[:count]


def numbers(
    fields: list[str], where: str, missing: frozenset[str] = frozenset()
) -> npt.NDArray[np.float64]:
    """Turn fields into float64: finite numbers, or ``nan`` or one of ``missing``."""
    if missing:
        fields = ["nan" if field in missing else field for field in fields]
    together = "".join(fields)
    # Python also reads 1_000 and the digits of other scripts; no other program does.
    if "_" in together or not together.isascii():
        odd = next(field for field in fields if "_" in field or not field.isascii())
        raise FormatError(f"{where}: {odd[:40]!r} is no number; expected numbers only")
    try:
        values = np.array(list(map(float, fields)), dtype=np.float64)
    except ValueError as error:
        raise FormatError(f"{where}: {str(error)[:80]}; expected numbers only") from error
    if np.isinf(values).any():
        raise FormatError(f"{where}: holds an infinite number; write nan for a missing point")
    return values


def whole_number(field: str, where: str, what: str) -> int:
    """A count; a claim of more than nine digits is refused before it costs anything."""
    if not _WHOLE_NUMBER.fullmatch(field):
        raise FormatError(f"{where}: got {field[:40]!r}, expected {what} (a whole number)")
    return int(field)


def check_number_of_annotations(path: Path, count: int, max_bytes: int) -> None:
    """Refuse a file of so many annotations that they, as objects, would fill the memory."""
    most = scaled(MAX_ANNOTATIONS, max_bytes)
    if count > most:
        raise FormatError(
            f"{path}: holds more than the {most} annotations that are read from one file; split "
            "it, or allow it by max_bytes"
        )


def one_line(text: str, what: str) -> str:
    """``text``, which a line-based format must be able to hold.

    Raises
    ------
    ValueError
        When it is empty, has blanks at an end, or holds a character that ends a line.
    """
    if not text or text != text.strip() or not text.isprintable():
        raise ValueError(
            f"{what}: {text[:80]!r} cannot stand on a line of this format; expected printable text "
            "without blanks at its ends: rename it, or write .csv"
        )
    return text


def written_numbers(values: npt.NDArray[np.float64]) -> list[str]:
    """Each number in the fewest digits that give it back exactly."""
    return list(map(repr, values.ravel().tolist()))


def encoded(text: str, path: Path) -> bytes:
    """Text as the bytes of a file."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        odd = text[error.start : error.start + 20]
        raise ValueError(
            f"{path}: {odd!r} cannot be written as UTF-8; rename the image or the landmark"
        ) from error
