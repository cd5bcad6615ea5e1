"""WFLW lists: one face a line, 98 points, 0-based as written.

Described at https://wywu.github.io/projects/LAB/WFLW.html: 196 coordinates ``x0 y0 … x97 y97``,
then (in ``list_98pt_rect_attr_*.txt``, 207 fields) the rectangle ``x_min y_min x_max y_max`` and
six flags, then the image's name. ``list_98pt_*.txt`` has no rectangle and flags (197 fields).

An image may hold several faces, so an annotation is named ``<list>:<line>``. The images are looked
for beside the list and in ``images`` and ``WFLW_images`` there. The publication does not say from
where pixels are counted; like the loaders in use, this one takes the numbers as they are.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from asmkit.annotations._annotation import Annotation, annotation_read
from asmkit.annotations._reading import DEFAULTS, ReadOptions, image_name
from asmkit.annotations._text import (
    MAX_BYTES_ONE_BY_ONE,
    encoded,
    first_bytes,
    numbers,
    one_line,
    read_text,
    written_numbers,
)
from asmkit.boxes import landmark_box
from asmkit.errors import FormatError

__all__ = ["FLAGS", "encode", "read", "sniff"]

#: The six attribute flags, in the order of the file.
FLAGS = ("pose", "expression", "illumination", "make-up", "occlusion", "blur")

_N_COORDINATES = 196
_N_NUMBERS_WITH_RECTANGLE = 206
_IMAGE_FOLDERS = ("", "images", "WFLW_images")
_ONLY_NUMBERS = re.compile(r"[-+.\d\s]+")


def sniff(path: Path) -> bool:
    """Whether the first line of a text file looks like a WFLW face."""
    line, _, _ = first_bytes(path).partition(b"\n")
    return len(line.split()) > _N_COORDINATES


def read(path: Path, options: ReadOptions = DEFAULTS) -> list[Annotation]:
    """Read a WFLW list; a line is an annotation.

    The flags are in ``attributes`` by name; ``attributes["image_name"]`` is the image as the list
    names it, found or not.

    Raises
    ------
    FormatError
        When a line is not a WFLW face.
    """
    lines = read_text(path, options.limit(MAX_BYTES_ONE_BY_ONE)).split("\n")
    faces = [
        _read_line(path, number, line, options)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not faces:
        raise FormatError(f"{path}: holds no faces; expected lines of 197 or 207 fields")
    return faces


def _read_line(path: Path, number: int, line: str, options: ReadOptions) -> Annotation:
    where = f"{path}, line {number}"
    values, image = _split(where, line)
    extras = values[_N_COORDINATES:]
    flags = dict(zip(FLAGS, (extras[4:] != 0).tolist(), strict=False))  # none in a short line
    return annotation_read(
        where,
        values[:_N_COORDINATES].reshape(-1, 2),
        image=options.find_image(path, image, _IMAGE_FOLDERS),
        box=_box(where, extras[:4]) if extras.size else None,
        scheme="wflw98",
        name=f"{path.stem}:{number}",
        attributes={"image_name": image, **flags},
    )


def _split(where: str, line: str) -> tuple[npt.NDArray[np.float64], str]:
    """Separate the 196 or 206 numbers from the image's name, which may hold blanks."""
    n_fields = len(line.split())
    n_numbers = (
        _N_COORDINATES if n_fields <= _N_NUMBERS_WITH_RECTANGLE else _N_NUMBERS_WITH_RECTANGLE
    )
    fields = line.split(maxsplit=n_numbers)
    name = fields.pop().strip()
    if len(fields) != n_numbers or _ONLY_NUMBERS.fullmatch(name):
        raise FormatError(
            f"{where}: {n_fields} fields, the last is {line.split()[-1][:40]!r}; expected 207 "
            "(98 points, rectangle, flags, image) or 197 (98 points, image)"
        )
    return numbers(fields, where), name


def _box(where: str, rectangle: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low, high = rectangle[:2], rectangle[2:]
    if not (low <= high).all():
        raise FormatError(
            f"{where}: the rectangle is {rectangle.tolist()}; expected [x_min, y_min, x_max, y_max]"
        )
    return np.concatenate([low, high - low])


def encode(path: Path, annotations: list[Annotation]) -> bytes:
    """Faces as a WFLW list: 207 fields when any has a box or flags, otherwise 197.

    Raises
    ------
    ValueError
        When an annotation has not 98 2-D points, or no image to name.
    """
    long = any(face.box is not None or set(FLAGS) & set(face.attributes) for face in annotations)
    return encoded("".join(f"{_format_line(path, face, long)}\n" for face in annotations), path)


def _format_line(path: Path, face: Annotation, long: bool) -> str:
    if face.points.shape != (98, 2):
        raise ValueError(
            f"annotation {face.name!r} has points of shape {face.points.shape}; "
            "a WFLW list holds (98, 2): write another format"
        )
    fields = written_numbers(face.points)
    if long:
        if face.box is None and np.isnan(face.points).all(axis=1).all():
            raise ValueError(f"annotation {face.name!r} has neither points nor a box to write")
        x, y, width, height = (landmark_box(face.points) if face.box is None else face.box).tolist()
        fields += [f"{value:.17g}" for value in (x, y, x + width, y + height)]
        fields += ["1" if face.attributes.get(flag) else "0" for flag in FLAGS]
    name = image_name(path, face, _IMAGE_FOLDERS)
    if name is None:
        raise ValueError(f"annotation {face.name!r} has no image, which a WFLW list must name")
    return " ".join([*fields, one_line(name, f"image of annotation {face.name!r}")])
