"""iBUG / Cootes ``.pts``: the landmarks of one instance, 1-based on disk.

Described at https://ibug.doc.ic.ac.uk/resources/300-W/ ::

    version: 1
    n_points: 68
    {
    446.000000 91.000000
    ...
    }

The Matlab custom counts pixels from 1, so reading subtracts 1 from x and y (not from z) and
writing adds it. Also read: files without header, comments (``#``, ``//``), CRLF, blanks anywhere,
points beside a brace, three columns. The number of points must be as the header says.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from asmkit.annotations._annotation import Annotation, annotation_read
from asmkit.annotations._reading import DEFAULTS, ReadOptions
from asmkit.annotations._text import encoded, numbers, read_text, written_numbers
from asmkit.annotations._writing import only_one
from asmkit.errors import FormatError
from asmkit.schemes import scheme_of

__all__ = ["encode", "parse", "read"]

_MAX_BYTES = 8 * 2**20  # a scan of 100 000 vertices takes 6 MiB
_COMMENT = re.compile(r"(#|//)[^\n]*")
_HEADER_LINE = re.compile(r"^[ \t]*[A-Za-z_]\w*[ \t]*:.*$", re.MULTILINE)
_COUNT = re.compile(r"n_points\s*:?\s*(\S*)", re.IGNORECASE)


def read(path: Path, options: ReadOptions = DEFAULTS) -> list[Annotation]:
    """Read one ``.pts`` file: a list of one annotation, without its image.

    Raises
    ------
    FormatError
        When the file is truncated, has another number of points than it says, or is no ``.pts``.
    """
    points = parse(path, read_text(path, options.limit(_MAX_BYTES)))
    known = scheme_of(len(points))
    scheme = known.name if known else None
    return [annotation_read(str(path), points, scheme=scheme, name=path.stem)]


def parse(path: Path, text: str) -> npt.NDArray[np.float64]:
    """Points ``(n_points, n_dims)`` in the text of a file; its path is for messages.

    Raises
    ------
    FormatError
        As :func:`read`.
    """
    header, body = _split(path, _COMMENT.sub("", text))
    points = _parse_points(path, body)
    _check_count(path, header, len(points))
    points[:, :2] -= 1
    return points


def _split(path: Path, text: str) -> tuple[str, str]:
    if "{" not in text and "}" not in text:
        return text, _HEADER_LINE.sub("", text)
    header, opened, rest = text.partition("{")
    body, closed, tail = rest.partition("}")
    if not opened or not closed:
        missing = "}" if opened else "{"
        raise FormatError(f"{path}: no '{missing}' around the points; the file is truncated")
    if tail.strip():
        raise FormatError(f"{path}: text after the closing brace; expected one set of points")
    return header, body


def _parse_points(path: Path, body: str) -> npt.NDArray[np.float64]:
    rows = [fields for line in body.split("\n") if (fields := line.split())]
    if not rows:
        raise FormatError(f"{path}: holds no points; expected lines of 'x y'")
    n_dims = len(rows[0])
    for number, fields in enumerate(rows, start=1):
        if len(fields) != n_dims or n_dims not in (2, 3):
            raise FormatError(
                f"{path}: point {number} has {len(fields)} number(s); "
                "expected 'x y' (or 'x y z') on every line"
            )
    flat = [field for fields in rows for field in fields]
    return numbers(flat, str(path)).reshape(len(rows), n_dims)


def _check_count(path: Path, header: str, found: int) -> None:
    match = _COUNT.search(header)
    if match and match[1].lstrip("0") != str(found):
        raise FormatError(
            f"{path}: the header says n_points: {match[1][:20]}, but {found} points follow; "
            "the file is truncated or damaged"
        )


def encode(path: Path, annotations: list[Annotation]) -> bytes:
    """One annotation with full precision: reading gives the same numbers back.

    Exactly so for every number that adding and subtracting 1 leaves unchanged, which holds for
    everything that was read from a ``.pts`` file.

    Raises
    ------
    ValueError
        When there is not exactly one annotation.
    """
    points = only_one(path, annotations).points.copy()
    points[:, :2] += 1
    lines = (" ".join(written_numbers(row)) for row in points)
    text = f"version: 1\nn_points: {len(points)}\n{{\n" + "\n".join(lines) + "\n}\n"
    return encoded(text, path)
