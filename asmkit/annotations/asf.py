"""AAM shape files ``.asf``: one instance in coordinates relative to the size of its image.

The format of the IMM faces (Stegmann, AAM-API; Nordstrøm et al., "The IMM Face Database", 2004):
lines that begin with ``#`` are comments; the number of points; a line a point with tabs between ::

    <path#> <type> <x rel.> <y rel.> <point#> <connects from> <connects to> [<user1> …]

and last the image's name. A pixel is ``x rel. * width``, ``y rel. * height``, 0-based: whole
pixels of the 640×480 IMM images come out whole so, and not with ``width - 1``. The image (or its
size) is therefore needed. What draws the contours is kept in ``attributes`` as ``asf_path``,
``asf_type`` and ``asf_connects``. Reading gives a written number back to about its last digit.
"""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import numpy as np

from asmkit.annotations._annotation import Annotation, annotation_read
from asmkit.annotations._reading import DEFAULTS, ReadOptions, image_name, known_size
from asmkit.annotations._text import (
    encoded,
    numbers,
    one_line,
    read_text,
    whole_number,
)
from asmkit.annotations._writing import check_complete, check_dimensions, only_one
from asmkit.errors import FormatError

__all__ = ["encode", "read"]

_WHY = "an .asf file holds coordinates relative to the size of the image"
_WHOLE = re.compile(r"-?[0-9]{1,9}", re.ASCII)
_OPEN_PATH = 4  # bit of <type>


def read(path: Path, options: ReadOptions = DEFAULTS) -> list[Annotation]:
    """Read one ``.asf`` file: a list of one annotation.

    Raises
    ------
    FormatError
        When the file is damaged, or neither the image nor its size is there.
    """
    lines = [line.strip() for line in read_text(path, options.limit()).split("\n")]
    content = [line for line in lines if line and not line.startswith("#")]
    if not content:
        raise FormatError(f"{path}: holds no points; expected their number, then a line for each")
    count = whole_number(content[0], str(path), "the number of points")
    rows, rest = content[1 : 1 + count], content[1 + count :]
    if len(rows) < count or not count or len(rest) > 1:
        raise FormatError(
            f"{path}: says {count} points, but {len(content) - 1} lines follow; expected one for "
            "each point, then the name of the image"
        )
    fields = [_split(path, row) for row in rows]
    relative = numbers(list(chain.from_iterable(row[2:4] for row in fields)), str(path))
    order = [int(row[4]) for row in fields]
    if sorted(order) != list(range(count)):
        raise FormatError(f"{path}: the point numbers are not 0 to {count - 1}, each once")
    image = options.find_image(path, rest[0]) if rest else None
    size = options.size_of(image, str(path), _WHY)
    points = np.empty((count, 2))
    points[order] = relative.reshape(count, 2) * size
    ordered = [fields[i] for i in np.argsort(order)]
    return [
        annotation_read(
            str(path),
            points,
            image=image,
            image_size=size,
            name=path.stem,
            attributes={
                **({"image_name": rest[0]} if rest else {}),
                "asf_path": tuple(int(row[0]) for row in ordered),
                "asf_type": tuple(int(row[1]) for row in ordered),
                "asf_connects": tuple((int(row[5]), int(row[6])) for row in ordered),
            },
        )
    ]


def _split(path: Path, row: str) -> list[str]:
    fields = row.split()
    whole = [*fields[:2], *fields[4:7]]
    if len(fields) < 7 or not all(map(_WHOLE.fullmatch, whole)):
        raise FormatError(
            f"{path}: {row[:80]!r} is no point; expected 'path# type x y point# from to'"
        )
    return fields


def encode(path: Path, annotations: list[Annotation]) -> bytes:
    """One annotation as an ``.asf`` file.

    Without ``asf_path`` and its fellows in ``attributes`` (from another ``.asf`` file) the points
    are written as one open path, because the format has nothing to say "no contour" with.

    Raises
    ------
    ValueError
        When there is not exactly one annotation, a point is missing or 3-D, or neither the image
        nor its size is known.
    """
    face = only_one(path, annotations)
    check_dimensions(face, 2, ".asf")
    check_complete(face, ".asf")
    count = len(face.points)
    pairs = (face.points / known_size(face, _WHY)).tolist()
    paths, types, connects = _contours(face)
    rows = (
        f"{paths[i]}\t{types[i]}\t{x!r}\t{y!r}\t{i}\t{connects[i][0]}\t{connects[i][1]}\n"
        for i, (x, y) in enumerate(pairs)
    )
    name = image_name(path, face)
    if name is not None:
        one_line(name, f"image of annotation {face.name!r}")
        if name.startswith("#"):
            raise ValueError(f"image {name!r}: in an .asf file this would be a comment; rename it")
    text = (
        f"# AAM Shape File\n#\n# number of model points\n{count}\n#\n# format: <path#> <type> "
        "<x rel.> <y rel.> <point#> <connects from> <connects to>\n"
        f"{''.join(rows)}#\n# host image\n{name + chr(10) if name else ''}"
    )
    return encoded(text, path)


def _contours(face: Annotation) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    count = len(face.points)
    given = [face.attributes.get(key) for key in ("asf_path", "asf_type", "asf_connects")]
    paths, types, connects = given
    if (
        isinstance(paths, tuple)
        and isinstance(types, tuple)
        and isinstance(connects, tuple)
        and len(paths) == len(types) == len(connects) == count
    ):
        return list(paths), list(types), list(connects)
    neighbours = [(max(i - 1, 0), min(i + 1, count - 1)) for i in range(count)]
    return [0] * count, [_OPEN_PATH] * count, neighbours
