"""Landmark files of the Bosphorus faces, ``.lm2`` and ``.lm3``: named points of one instance.

Savran et al., "Bosphorus Database for 3D Face Analysis" (2008) ::

    22 Landmarks
    Labels:
    Outer left eyebrow
    …                         as many names
    2D Image coordinates:     3D in .lm3
    205.0 300.5
    …                         as many points

``#`` begins a comment. The numbers are taken as they are. A file holds only the landmarks that can
be seen, so there is no mark for a missing one.
"""

from __future__ import annotations

import re
from pathlib import Path

from asmkit.annotations._annotation import Annotation, annotation_read
from asmkit.annotations._reading import DEFAULTS, ReadOptions
from asmkit.annotations._text import (
    encoded,
    numbers,
    one_line,
    read_text,
    whole_number,
    written_numbers,
)
from asmkit.annotations._writing import check_complete, only_one
from asmkit.errors import FormatError

__all__ = ["encode", "read"]

_COORDINATES = re.compile(r"([23])D Image coordinates\s*:", re.IGNORECASE)


def read(path: Path, options: ReadOptions = DEFAULTS) -> list[Annotation]:
    """Read one ``.lm2`` or ``.lm3`` file: a list of one annotation, without its image.

    Raises
    ------
    FormatError
        When the file is damaged.
    """
    lines = [line.strip() for line in read_text(path, options.limit()).split("\n")]
    content = [line for line in lines if line and not line.startswith("#")]
    first, _, unit = (content[0] if content else "").partition(" ")
    if unit.strip().lower() != "landmarks":
        raise FormatError(f"{path}: does not begin with '22 Landmarks' or the like")
    count = whole_number(first, str(path), "the number of landmarks")
    labels, rows = content[2 : 2 + count], content[3 + count :]
    heading = _COORDINATES.fullmatch(content[2 + count]) if len(content) > 2 + count else None
    if content[1:2] != ["Labels:"] or not heading:
        raise FormatError(
            f"{path}: expected 'Labels:', {count} names and '2D Image coordinates:' after the count"
        )
    n_dims = int(heading[1])
    fields = [row.split() for row in rows]
    if len(rows) != count or any(len(row) != n_dims for row in fields) or not count:
        raise FormatError(
            f"{path}: says {count} landmarks, but {len(rows)} lines of coordinates follow; "
            f"expected as many lines of {n_dims} numbers"
        )
    points = numbers([field for row in fields for field in row], str(path)).reshape(-1, n_dims)
    return [annotation_read(str(path), points, name=path.stem, labels=tuple(labels))]


def encode(path: Path, annotations: list[Annotation]) -> bytes:
    """One annotation with full precision; points without a label are called by their number.

    Raises
    ------
    ValueError
        When there is not exactly one annotation, a point is missing, or a label is not one line.
    """
    face = only_one(path, annotations)
    check_complete(face, path.suffix)
    labels = face.labels or tuple(f"Landmark {i}" for i in range(len(face.points)))
    for label in labels:
        if one_line(label, "label").startswith("#"):
            raise ValueError(f"label {label!r}: in a {path.suffix} file this would be a comment")
    rows = [" ".join(written_numbers(row)) for row in face.points]
    heading = f"{face.points.shape[1]}D Image coordinates:"
    lines = [f"{len(rows)} Landmarks", "Labels:", *labels, heading, *rows]
    return encoded("\n".join(lines) + "\n", path)
