"""The table of the MUCT faces ``.csv``: whole shapes, ``0,0`` for a landmark that cannot be seen.

Milborrow et al., "The MUCT Landmarked Face Database" (2010), in the variant ``muct76-opencv.csv``,
which counts pixels from 0 at the top left ::

    name,tag,x00,y00,x01,y01,…
    i000qa-fn,0,201,348,201,381,…

The variant ``muct76.csv`` has its origin in the middle of the image and y upwards: it is told by
its negative coordinates, and refused. The image is that of the same name beside the table; the tag,
in hexadecimal digits, is ``attributes["tag"]``. An annotation is called ``<file>:<line>``.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath

import numpy as np
import numpy.typing as npt

from asmkit.annotations._annotation import Annotation, annotation_read
from asmkit.annotations._reading import DEFAULTS, IMAGE_SUFFIXES, ReadOptions, image_name
from asmkit.annotations._text import (
    encoded,
    first_bytes,
    numbers,
    one_line,
    written_numbers,
)
from asmkit.annotations._writing import check_dimensions, check_equal_counts, missing_points
from asmkit.annotations.csv_table import rows_of
from asmkit.errors import FormatError

__all__ = ["encode", "hidden_at_origin", "image_stem", "read", "sniff"]

_TAG = re.compile(r"[0-9a-fA-F]{1,8}", re.ASCII)
_CENTRED = 0.25  # share of points beyond the left or upper border that no image explains


def sniff(path: Path) -> bool:
    """Whether the header of a table is that of MUCT."""
    return first_bytes(path, 13) == b"name,tag,x00,"


def read(path: Path, options: ReadOptions = DEFAULTS) -> list[Annotation]:
    """Read a table of MUCT; a row is an annotation.

    Raises
    ------
    FormatError
        When the header is another, a row does not fit it, or the origin is in the middle.
    """
    rows = rows_of(path, options)
    _, header = next(rows, (0, []))
    n_points = (len(header) - 2) // 2
    if n_points < 1 or header != _header(n_points):
        raise FormatError(
            f"{path}: the header is {','.join(header)[:60]!r}; expected 'name,tag,x00,y00,x01,…'"
        )
    images = options.images_by_stem(path)
    found = [_annotation(path, line, fields, images) for line, fields in rows]
    if not found:
        raise FormatError(f"{path}: holds no row below the header")
    if _is_centred(found):
        raise FormatError(
            f"{path}: many coordinates are negative, so the origin is in the middle of the image; "
            "expected the variant muct76-opencv.csv"
        )
    return found


def _annotation(path: Path, line: int, fields: list[str], images: Mapping[str, Path]) -> Annotation:
    where = f"{path}, line {line}"
    stem, tag = fields[:2]
    if not stem.strip() or not _TAG.fullmatch(tag):
        raise FormatError(f"{where}: expected a name and a tag of hexadecimal digits")
    points = numbers(fields[2:], where).reshape(-1, 2)
    points[(points == 0).all(axis=1)] = np.nan
    return annotation_read(
        where,
        points,
        image=images.get(stem),
        name=f"{path.stem}:{line}",
        attributes={"image_name": stem, "tag": int(tag, 16)},
    )


def _is_centred(faces: list[Annotation]) -> bool:
    points = np.concatenate([face.points for face in faces])
    outside = (points < 0).any(axis=1).sum()
    return bool(outside > _CENTRED * np.isfinite(points).all(axis=1).sum())


def _header(n_points: int) -> list[str]:
    return ["name", "tag", *(f"{axis}{i:02d}" for i in range(n_points) for axis in "xy")]


def encode(path: Path, annotations: list[Annotation]) -> bytes:
    """Annotations as a table of MUCT, with full precision.

    Raises
    ------
    ValueError
        When the shapes differ or are 3-D, an image has no name, a point stands at (0, 0), or so
        many are negative that the origin would seem to be in the middle.
    """
    check_equal_counts(annotations, "a table of MUCT")
    if _is_centred(annotations):
        raise ValueError(
            f"{path}: many coordinates are negative, which MUCT keeps for another frame"
        )
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_header(len(annotations[0].points)))
    for face in annotations:
        check_dimensions(face, 2, "a table of MUCT")
        tag = face.attributes.get("tag")
        fields = written_numbers(hidden_at_origin(face, 0.0))
        stem = image_stem(path, face)
        table.writerow([stem, f"{tag:x}" if isinstance(tag, int) else "0", *fields])
    return encoded(text.getvalue(), path)


def hidden_at_origin(face: Annotation, reach: float) -> npt.NDArray[np.float64]:
    """Points in which (0, 0) stands for missing.

    Raises
    ------
    ValueError
        When a point lies at the origin, to within ``reach``.
    """
    if (np.abs(face.points) <= reach).all(axis=1).any():
        raise ValueError(
            f"annotation {face.name!r}: a point at (0, 0) means missing in this format; "
            "write another one"
        )
    return np.where(missing_points(face)[:, None], 0.0, face.points)


def image_stem(path: Path, face: Annotation) -> str:
    """Name of an image without folder and suffix.

    Raises
    ------
    ValueError
        When there is none.
    """
    name = image_name(path, face)
    if name is None:
        raise ValueError(f"annotation {face.name!r} has no image, which a {path.suffix} must name")
    last = PureWindowsPath(name)  # it reads both kinds of separator
    stem = last.stem if last.suffix.lower() in IMAGE_SUFFIXES else last.name
    return one_line(stem, f"image of annotation {face.name!r}")
