"""Shape files of Stasm, ``.shape``: tagged matrices, ``0 0`` for a missing landmark.

Milborrow, "Stasm 4 User Manual" and its ``shapefile.cpp`` ::

    shape
    Directories /faces/jpg
    # a comment
    00000004 i000qa-fn         attribute bits in hexadecimal digits, image without suffix
    { 77 2
    201 348
    …
    }

Files that begin with ``shape`` (Stasm 4) count pixels from 0 at the top left. Older files, which
begin with ``ss`` and quote their tags, have the origin in the middle of the image and y upwards, as
the README of MUCT says: ``x = X + width / 2``, ``y = height / 2 - Y``, so the image, or its size,
is needed. Coordinates below 0.1 both mean missing. Entries of poses and face detectors (bit 31, or
other than two columns) are left out. ``Directories`` is not followed: the image is looked for
beside the file. The bits are ``attributes["tag"]``; an annotation is called ``<file>:<number>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from asmkit.annotations._annotation import Annotation, annotation_read
from asmkit.annotations._reading import DEFAULTS, ReadOptions
from asmkit.annotations._text import (
    check_number_of_annotations,
    encoded,
    first_bytes,
    numbers,
    read_text,
    whole_number,
    written_numbers,
)
from asmkit.annotations._writing import check_dimensions, check_equal_counts
from asmkit.annotations.muct import hidden_at_origin, image_stem
from asmkit.errors import FormatError

__all__ = ["encode", "read", "sniff"]

_TAG = re.compile(r"[0-9a-fA-F]{4}([0-9a-fA-F]{4})?", re.ASCII)
_NO_SHAPE = 0x80000000
_MISSING = 0.1  # Stasm's XJITTER
_WHY = "an old shape file counts from the middle of the image"


def sniff(path: Path) -> bool:
    """Whether a file begins like one of Stasm's."""
    return first_bytes(path, 16).split()[:1] in ([b"shape"], [b"ss"])


def read(path: Path, options: ReadOptions = DEFAULTS) -> list[Annotation]:
    """Read a shape file; a shape is an annotation.

    Raises
    ------
    FormatError
        When the file is damaged, its shapes differ, or it is old and an image's size not known.
    """
    lines = [line.strip() for line in read_text(path, options.limit()).split("\n")]
    content = [line for line in lines if line and not line.startswith("#")]
    header = content[0].split()[0] if content else ""
    if header not in ("shape", "ss"):
        raise FormatError(f"{path}: begins with {header[:40]!r}; expected 'shape' or 'ss'")
    start = 2 if content[1:] and content[1].startswith("Directories") else 1
    old = options if header == "ss" else None
    found: list[Annotation] = []
    images = options.images_by_stem(path)
    for tag, stem, values in _matrices(path, " ".join(content[start:])):
        if tag & _NO_SHAPE or (old and values.shape[1] != 2):
            continue
        number = len(found) + 1
        check_number_of_annotations(path, number, options.limit())
        if values.shape[1] != 2:
            raise FormatError(
                f"{path}, shape {number}: {values.shape[1]} columns, expected x and y"
            )
        found.append(_annotation(path, number, tag, stem, values, images.get(stem), old))
        if found[0].points.shape != values.shape:
            raise FormatError(f"{path}, shape {number}: {len(values)} points, but others before it")
    if not found:
        raise FormatError(f"{path}: holds no shape")
    return found


def _matrices(path: Path, text: str) -> Iterator[tuple[int, str, npt.NDArray[np.float64]]]:
    fields = text.replace('"', " ").replace("{", " { ").replace("}", " } ").split()
    at = 0
    while at < len(fields):
        where = f"{path}, matrix {' '.join(fields[at : at + 2])[:60]!r}"
        head = fields[at : at + 5]
        if len(head) < 5 or not _TAG.fullmatch(head[0]) or head[2] != "{":
            raise FormatError(f"{where}: expected a tag, a name, and '{{ rows columns'")
        n_rows = whole_number(head[3], where, "the number of rows")
        n_columns = whole_number(head[4], where, "the number of columns")
        end = at + 5 + n_rows * n_columns
        if fields[end : end + 1] != ["}"] or not n_rows * n_columns:
            raise FormatError(f"{where}: no {n_rows} x {n_columns} numbers between its braces")
        values = numbers(fields[at + 5 : end], where).reshape(n_rows, n_columns)
        yield int(head[0], 16), head[1], values
        at = end + 1


def _annotation(
    path: Path,
    number: int,
    tag: int,
    stem: str,
    points: npt.NDArray[np.float64],
    image: Path | None,
    old: ReadOptions | None,
) -> Annotation:
    where = f"{path}, shape {number}"
    missing = (np.abs(points) < _MISSING).all(axis=1)
    size = None
    if old:
        size = old.size_of(image, where, _WHY)
        points = np.array(size) / 2 + points * (1, -1)
    points[missing] = np.nan
    return annotation_read(
        where,
        points,
        image=image,
        image_size=size,
        name=f"{path.stem}:{number}",
        attributes={"image_name": stem, "tag": tag},
    )


def encode(path: Path, annotations: list[Annotation]) -> bytes:
    """Annotations as a shape file of Stasm 4, with full precision.

    Raises
    ------
    ValueError
        When the shapes differ or are 3-D, an image has no name or one with blanks, or a point lies
        within 0.1 of (0, 0), which means missing.
    """
    check_equal_counts(annotations, "a shape file")
    lines = ["shape", "Directories .", ""]
    for face in annotations:
        check_dimensions(face, 2, "a shape file")
        stem = image_stem(path, face)
        if re.search(r'[\s"{}]', stem):
            raise ValueError(f"image {stem!r}: a shape file holds no blanks, quotes and braces")
        tag = face.attributes.get("tag")
        points = hidden_at_origin(face, _MISSING)
        lines += [f"{tag if isinstance(tag, int) else 0:08x} {stem}", f"{{ {len(points)} 2"]
        lines += [" ".join(written_numbers(row)) for row in points]
        lines += ["}", ""]
    return encoded("\n".join(lines), path)
