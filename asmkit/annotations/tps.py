"""Rohlf's ``.tps``: landmarks of many specimens, y counted upwards from the bottom.

As tpsDig and geomorph write it (Rohlf, tpsDig; geomorph's ``readland.tps``) ::

    LM=12                 LM3=12 for 3-D
    290. 108.             x y (z), a line a landmark; NA, or -1 -1 in 2-D: missing
    …
    CURVES=1              sliding semilandmarks and outlines, each
    POINTS=10             with its points
    …
    IMAGE=63001.jpg
    ID=0
    SCALE=0.00123         units a pixel

A key is what stands before the ``=``, in any case, and nothing else. 2-D points are turned by the
one rule **row = height − y**, x as it stands, which is that of StereoMorph; on 58 images of wings
it puts the landmarks on the crossings of the veins, as well as they can tell (half a pixel). So the
image, or its size, is needed. 3-D points stay as they are. Points stay in pixels: the scale is kept
as ``attributes["scale"]``, further keys in lower case (``id``, ``comment``), and curves as a tuple
of arrays, in the frame of the points, in ``attributes["curves"]``. An annotation is called
``<file>:<number>``, because an ID need not be unique.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from asmkit.annotations._annotation import Annotation, annotation_read
from asmkit.annotations._reading import DEFAULTS, ReadOptions, image_name, known_size
from asmkit.annotations._text import (
    check_number_of_annotations,
    encoded,
    numbers,
    one_line,
    read_text,
    whole_number,
    written_numbers,
)
from asmkit.annotations._writing import missing_points
from asmkit.errors import FormatError

__all__ = ["encode", "read"]

_WHY = "a .tps file counts y from the bottom of the image"
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9]*", re.ASCII)
_LANDMARKS = {"LM": 2, "LM3": 3}
_CURVES = ("CURVES", "OUTLINES")
_NOT_AVAILABLE = frozenset({"NA", "na", "Na"})
_IN_TPSDIG = -1.0  # both coordinates of a missing landmark


@dataclass
class _Block:
    """Rows of numbers that a line ``LM=``, ``LM3=`` or ``POINTS=`` announces."""

    where: str
    count: int
    n_dims: int
    fields: list[str] = field(default_factory=list)

    def points(self) -> npt.NDArray[np.float64]:
        found = len(self.fields) // self.n_dims
        if found != self.count:
            raise FormatError(f"{self.where}: says {self.count} points, but {found} follow")
        points = numbers(self.fields, self.where, _NOT_AVAILABLE).reshape(-1, self.n_dims)
        if self.n_dims == 2:
            points[(points == _IN_TPSDIG).all(axis=1)] = np.nan
        return points


@dataclass
class _Specimen:
    landmarks: _Block
    n_curves: int = 0
    curves: list[_Block] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)


def read(path: Path, options: ReadOptions = DEFAULTS) -> list[Annotation]:
    """Read a ``.tps`` file; a specimen is an annotation.

    Raises
    ------
    FormatError
        When the file is damaged, or the height of an image is not known.
    """
    specimens = _parse(path, options.limit())
    if not specimens:
        raise FormatError(f"{path}: holds no specimen; expected LM= and as many lines of 'x y'")
    return [_annotation(path, i, one, options) for i, one in enumerate(specimens, start=1)]


def _parse(path: Path, max_bytes: int) -> list[_Specimen]:
    lines = read_text(path, max_bytes).split("\n")
    specimens: list[_Specimen] = []
    block: _Block | None = None
    ignoring = False  # what belongs to a key that is unknown to us
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        name, equals, value = (part.strip() for part in line.partition("="))
        key = name.upper()
        if equals and not _KEY.fullmatch(name):
            raise FormatError(
                f"{where}: {name[:40]!r} is no key; expected LM=, IMAGE= and the like"
            )
        if key in _LANDMARKS and equals:
            count = whole_number(value, where, "the number of landmarks")
            if count == 0:
                raise FormatError(
                    f"{where}: a specimen without landmarks; curves alone are not read"
                )
            block = _Block(where, count, _LANDMARKS[key])
            check_number_of_annotations(path, len(specimens) + 1, max_bytes)
            specimens.append(_Specimen(block))
        elif not specimens and line.strip():
            raise FormatError(f"{where}: {line[:40]!r} stands before the first LM=")
        elif key == "POINTS" and equals:
            count = whole_number(value, where, "the number of points of a curve")
            block = _Block(where, count, specimens[-1].landmarks.n_dims)
            specimens[-1].curves.append(block)
        elif equals:
            block, ignoring = None, key not in ("IMAGE", "ID", "SCALE", "COMMENT", *_CURVES)
            if key in _CURVES:
                specimens[-1].n_curves += whole_number(value, where, "the number of curves")
            else:
                specimens[-1].keys[key] = value
        elif line.strip():
            _add_row(block, where, line, ignoring)
    return specimens


def _add_row(block: _Block | None, where: str, line: str, ignoring: bool) -> None:
    fields = line.split()
    if block is not None:
        if len(fields) != block.n_dims:
            raise FormatError(f"{where}: {len(fields)} numbers, expected {block.n_dims}")
        block.fields += fields
    elif not ignoring:
        raise FormatError(f"{where}: {line[:40]!r} belongs to no LM= or POINTS=")


def _annotation(path: Path, number: int, one: _Specimen, options: ReadOptions) -> Annotation:
    where = one.landmarks.where
    if len(one.curves) != one.n_curves:
        raise FormatError(f"{where}: says {one.n_curves} curves, but {len(one.curves)} follow")
    points, curves = one.landmarks.points(), [curve.points() for curve in one.curves]
    name = one.keys.get("IMAGE")
    image = options.find_image(path, name) if name else None
    size = None
    if points.shape[1] == 2:
        size = options.size_of(image, where, _WHY)
        for part in (points, *curves):
            part[:, 1] = size[1] - part[:, 1]
    attributes: dict[str, object] = {
        key.lower(): value for key, value in one.keys.items() if key not in ("IMAGE", "SCALE")
    }
    if name:
        attributes["image_name"] = name
    if "SCALE" in one.keys:
        attributes["scale"] = float(numbers([one.keys["SCALE"]], f"{where}, SCALE")[0])
    if curves:
        attributes["curves"] = tuple(curves)
    return annotation_read(
        where,
        points,
        image=image,
        image_size=size,
        name=f"{path.stem}:{number}",
        attributes=attributes,
    )


def encode(path: Path, annotations: list[Annotation]) -> bytes:
    """Annotations as the specimens of a ``.tps`` file.

    A missing landmark is written ``NA``, which geomorph and StereoMorph read (tpsDig has its own
    ``-1 -1``, which geomorph would take for a place). Digits are kept but for those that
    ``height - y`` rounds off.

    Raises
    ------
    ValueError
        When neither the image nor its size is known, or a point would stand at (-1, -1).
    """
    return encoded("".join(_format(path, i, face) for i, face in enumerate(annotations)), path)


def _format(path: Path, number: int, face: Annotation) -> str:
    n_dims = face.points.shape[1]
    height = known_size(face, _WHY)[1] if n_dims == 2 else None
    lines = [f"LM{'' if n_dims == 2 else '3'}={len(face.points)}"]
    lines += _rows(face, height)
    curves = face.attributes.get("curves")
    if isinstance(curves, tuple) and curves:
        lines.append(f"CURVES={len(curves)}")
        for curve in curves:
            one = Annotation(curve, name=face.name)
            lines += [f"POINTS={len(one.points)}", *_rows(one, height)]
    name = image_name(path, face)
    given = {
        "IMAGE": name,
        "ID": face.attributes.get("id", number),
        "SCALE": face.attributes.get("scale"),
        "COMMENT": face.attributes.get("comment"),
    }
    lines += [
        f"{key}={one_line(str(value), f'{key} of annotation {face.name!r}')}"
        for key, value in given.items()
        if value not in (None, "")
    ]
    return "\n".join(lines) + "\n"


def _rows(face: Annotation, height: int | None) -> list[str]:
    points = face.points.copy()
    if height is not None:
        points[:, 1] = height - points[:, 1]
        if (points == _IN_TPSDIG).all(axis=1).any():
            raise ValueError(
                f"annotation {face.name!r}: a point at (-1, -1), counted from the bottom, means "
                "missing in a .tps file; write another format"
            )
    rows = (" ".join(written_numbers(row)) for row in points)
    missing = "NA" + " NA" * (points.shape[1] - 1)
    return [missing if gone else row for row, gone in zip(rows, missing_points(face), strict=True)]
