"""Plain tables ``.csv``: one instance a row, 0-based pixel centres; our own layout.

The first line is the header ``image,x0,y0,x1,y1,…`` (in 3-D ``image,x0,y0,z0,x1,…``), each other
line the path of an image, relative to the table and possibly empty, and the coordinates. An empty
field is a missing coordinate. Commas between, quotes as usual (RFC 4180). An annotation is called
``<file>:<line>``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from asmkit.annotations._annotation import Annotation, annotation_read
from asmkit.annotations._reading import DEFAULTS, ReadOptions, image_name
from asmkit.annotations._text import (
    MAX_BYTES_ONE_BY_ONE,
    check_number_of_annotations,
    encoded,
    first_bytes,
    numbers,
    one_line,
    read_text,
    written_numbers,
)
from asmkit.annotations._writing import check_equal_counts
from asmkit.errors import FormatError
from asmkit.schemes import scheme_of

__all__ = ["encode", "read", "rows_of", "sniff"]

_EMPTY = frozenset({""})


def sniff(path: Path) -> bool:
    """Whether the header of a table is ours."""
    return first_bytes(path, 9) == b"image,x0,"


def read(path: Path, options: ReadOptions = DEFAULTS) -> list[Annotation]:
    """Read a table; a row is an annotation.

    Raises
    ------
    FormatError
        When the header is another, or a row does not fit it.
    """
    rows = rows_of(path, options)
    _, header = next(rows, (0, []))
    n_dims = 3 if header[3:4] == ["z0"] else 2
    n_points = (len(header) - 1) // n_dims
    if header != _header(n_points, n_dims) or not n_points:
        raise FormatError(
            f"{path}: the header is {','.join(header)[:60]!r}; expected 'image,x0,y0,x1,y1,…' or "
            "'image,x0,y0,z0,…'"
        )
    known = scheme_of(n_points)
    found = [
        annotation_read(
            f"{path}, line {line}",
            numbers(fields[1:], f"{path}, line {line}", _EMPTY).reshape(-1, n_dims),
            image=options.find_image(path, fields[0]) if fields[0] else None,
            scheme=known.name if known else None,
            name=f"{path.stem}:{line}",
            attributes={"image_name": fields[0]} if fields[0] else {},
        )
        for line, fields in rows
    ]
    if not found:
        raise FormatError(f"{path}: holds no row below the header")
    return found


def rows_of(path: Path, options: ReadOptions) -> Iterator[tuple[int, list[str]]]:
    """Lines and fields of a table, as many in each row as in the first; empty lines left out."""
    max_bytes = options.limit(MAX_BYTES_ONE_BY_ONE)
    table = csv.reader(io.StringIO(read_text(path, max_bytes), newline=""), strict=True)
    expected: int | None = None
    count = 0
    try:
        for fields in table:
            if expected is None:
                expected = len(fields)
            count += bool(fields)
            check_number_of_annotations(path, count - 1, max_bytes)  # one row is the header
            if fields and len(fields) != expected:
                raise FormatError(
                    f"{path}, line {table.line_num}: {len(fields)} fields, but {expected} in the "
                    "first line; the file is truncated or damaged"
                )
            if fields:
                yield table.line_num, fields
    except csv.Error as error:
        raise FormatError(f"{path}, line {table.line_num}: {error}; expected a table") from error


def _header(n_points: int, n_dims: int) -> list[str]:
    return ["image", *(f"{axis}{i}" for i in range(n_points) for axis in "xyz"[:n_dims])]


def encode(path: Path, annotations: list[Annotation]) -> bytes:
    """Annotations as a table with full precision.

    Raises
    ------
    ValueError
        When two annotations differ in the number of points or dimensions.
    """
    check_equal_counts(annotations, "a table")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_header(*annotations[0].points.shape))
    for face in annotations:
        name = image_name(path, face)
        if name is not None:
            one_line(name, f"image of annotation {face.name!r}")
        fields = written_numbers(face.points)
        table.writerow([name or "", *("" if field == "nan" else field for field in fields)])
    return encoded(text.getvalue(), path)
