"""dlib's image metadata ``.xml``: boxes of images, with named parts at whole pixels.

Described at http://dlib.net/imaging.html#load_image_dataset_metadata ::

    <dataset><images>
      <image file='a.jpg' width='500' height='375'>
        <box top='90' left='194' width='37' height='37' ignore='0'>
          <label>face</label>
          <part name='00' x='201' y='107'/> …

Pixels are whole and count from 0. **As in dlib, the landmarks are the parts in lexicographic
order** of all names in the file, so that a part ``10`` comes before a part ``2``: a warning says
so, and ``labels`` holds the names in their order. A part that a box lacks is missing. A box covers
the pixels ``left`` to ``left + width - 1``. Each box is an annotation ``<file>:<number>``; its
``<label>``, ``ignore``, ``angle`` and further attributes are in ``attributes``.

Document types and entities are refused: no annotation needs them, and attacks do.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from asmkit.annotations._annotation import Annotation, annotation_read
from asmkit.annotations._reading import DEFAULTS, ReadOptions, image_name
from asmkit.annotations._text import (
    MAX_BYTES_ONE_BY_ONE,
    check_number_of_annotations,
    encoded,
    first_bytes,
    numbers,
    read_bytes,
)
from asmkit.annotations._writing import check_dimensions, check_equal_counts, missing_points
from asmkit.boxes import landmark_box
from asmkit.errors import FormatError
from asmkit.schemes import scheme_of

__all__ = ["encode", "read", "sniff"]

_IMAGE = ["dataset", "images", "image"]
_BOX = [*_IMAGE, "box"]
_PART, _LABEL = [*_BOX, "part"], [*_BOX, "label"]
_RECTANGLE = ("left", "top", "width", "height")
_OWN = ("ignore", "angle", "pose", "detection_score", "occluded", "truncated", "difficult")
_PART_ATTRIBUTES = {"name", "x", "y"}
_MAX_DEPTH = 100
_MAX_COORDINATES = 20_000_000  # boxes times names: a file of many odd names claims many
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass
class _Box:
    image: dict[str, str]
    attributes: dict[str, str]
    parts: dict[str, tuple[str, str]] = field(default_factory=dict)
    label: str = ""


def sniff(path: Path) -> bool:
    """Whether an XML file begins like a dataset of dlib."""
    return b"<dataset" in first_bytes(path)


def read(path: Path, options: ReadOptions = DEFAULTS) -> list[Annotation]:
    """Read a file of dlib; a box is an annotation.

    Raises
    ------
    FormatError
        When the file is damaged, holds a document type or an entity, or no part at all.
    """
    boxes = _parse(path, options.limit(MAX_BYTES_ONE_BY_ONE))
    names = sorted({name for box in boxes for name in box.parts})
    if not names:
        raise FormatError(f"{path}: {len(boxes)} boxes without any part; expected landmarks")
    if len(boxes) * len(names) * 2 > _MAX_COORDINATES:
        raise FormatError(f"{path}: {len(names)} names of parts in {len(boxes)} boxes; too many")
    _warn_of_order(path, names)
    return [_annotation(path, i, box, names, options) for i, box in enumerate(boxes, start=1)]


def _parse(path: Path, max_bytes: int) -> list[_Box]:
    data = read_bytes(path, max_bytes)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    boxes: list[_Box] = []
    stack: list[str] = []
    image: dict[str, str] = {}

    def start(tag: str, attributes: dict[str, str]) -> None:
        if len(stack) == _MAX_DEPTH:
            raise FormatError(f"{path}: elements nested {_MAX_DEPTH} deep; dlib's files are not")
        stack.append(tag)
        if stack == _IMAGE:
            image.clear()
            image.update(attributes)
        elif stack == _BOX:
            check_number_of_annotations(path, len(boxes) + 1, max_bytes)
            boxes.append(_Box(dict(image), attributes))
        elif stack == _PART:
            _add_part(path, parser.CurrentLineNumber, boxes[-1], attributes)

    def end(_tag: str) -> None:
        stack.pop()

    def text(characters: str) -> None:
        if stack == _LABEL:
            boxes[-1].label += characters

    def refuse(*_declared: Any) -> None:
        raise FormatError(f"{path}: declares a document type or an entity; dlib's files have none")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError, UnicodeError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path}: {str(error)[:120]}; expected XML") from error
    return boxes


def _add_part(path: Path, line: int, box: _Box, attributes: dict[str, str]) -> None:
    if not attributes.keys() >= _PART_ATTRIBUTES:
        raise FormatError(
            f"{path}, line {line}: a part has name, x and y; got {sorted(attributes)[:5]}"
        )
    name = attributes["name"]
    if name in box.parts:
        raise FormatError(f"{path}, line {line}: the part {name[:40]!r} stands twice in its box")
    box.parts[name] = (attributes["x"], attributes["y"])


def _warn_of_order(path: Path, names: list[str]) -> None:
    if all(name.isdecimal() and len(name) < 10 for name in names):
        by_value = sorted(names, key=int)
        if by_value != names:
            last = by_value[-1]
            warnings.warn(
                f"{path}: as in dlib, names of parts sort as text, so that {last!r} is landmark "
                f"{names.index(last)}; name parts 00, 01, … to keep their order",
                stacklevel=5,
            )


def _annotation(
    path: Path, number: int, box: _Box, names: list[str], options: ReadOptions
) -> Annotation:
    where = f"{path}, box {number}"
    rectangle = [box.attributes.get(side) for side in _RECTANGLE]
    file = box.image.get("file", "")
    if None in rectangle or not file:
        raise FormatError(f"{where}: expected a file, and left, top, width and height of the box")
    known = scheme_of(len(names))
    fields = [value for name in names for value in box.parts.get(name, ("nan", "nan"))]
    extra = {key: value for key, value in box.attributes.items() if key not in _RECTANGLE}
    attributes: dict[str, object] = {**extra, "image_name": file}
    attributes["ignore"] = extra.get("ignore", "0") in ("1", "true")
    if box.label:
        attributes["label"] = box.label.strip()
    return annotation_read(
        where,
        numbers(fields, where).reshape(-1, 2),
        image=options.find_image(path, file),
        image_size=_size(box.image),
        box=numbers([side for side in rectangle if side is not None], where),
        scheme=known.name if known else None,
        name=f"{path.stem}:{number}",
        attributes=attributes,
        labels=tuple(names),
    )


def _size(image: dict[str, str]) -> tuple[int, int] | None:
    width, height = (image.get(side, "") for side in ("width", "height"))
    decimal = all(re.fullmatch(r"[1-9][0-9]{0,8}", side) for side in (width, height))
    return (int(width), int(height)) if decimal else None


def encode(path: Path, annotations: list[Annotation]) -> bytes:
    """Annotations as boxes; those of one image that follow each other share its element.

    The labels become the names of the parts where they already stand in dlib's order; otherwise the
    names are numbers, with zeros in front. The box is that of the annotation, or the whole pixels
    that the landmarks touch.

    Raises
    ------
    ValueError
        When a coordinate is no whole pixel (round them first), the shapes differ, an image has no
        name, or a landmark is missing everywhere: then dlib, and this reader, would not know of it.
    """
    check_equal_counts(annotations, "dlib's XML")
    for face in annotations:
        check_dimensions(face, 2, "dlib's XML")
    everywhere = np.all([missing_points(face) for face in annotations], axis=0)
    if everywhere.any():
        raise ValueError(
            f"{path}: landmark {int(np.argmax(everywhere))} is missing in every annotation; dlib "
            "knows a landmark only from the boxes that have it: write .csv or .pts"
        )
    names = _part_names(annotations)
    parts = ["<?xml version='1.0' encoding='UTF-8'?>\n<dataset>\n<images>\n"]
    current: str | None = None
    for face in annotations:
        name = image_name(path, face)
        if name is None:
            raise ValueError(f"annotation {face.name!r} has no image, which dlib's XML must name")
        if name != current:
            parts += ["  </image>\n" if current is not None else "", _image_tag(name, face)]
            current = name
        parts.append(_box_element(face, names))
    parts.append("  </image>\n</images>\n</dataset>\n")
    return encoded("".join(parts), path)


def _part_names(annotations: list[Annotation]) -> list[str]:
    labels = annotations[0].labels
    if labels and all(face.labels == labels for face in annotations):
        ordered = sorted(set(labels))
        if ordered == list(labels):
            return ordered
    count = len(annotations[0].points)
    return [f"{i:0{max(2, len(str(count - 1)))}d}" for i in range(count)]


def _quoted(text: str) -> str:
    odd = _NOT_IN_XML.search(text)
    if odd:
        raise ValueError(f"{text[:80]!r}: XML cannot hold {odd[0]!r}; rename it")
    return quoteattr(text)


def _image_tag(name: str, face: Annotation) -> str:
    size = face.image_size
    written = f" width='{size[0]}' height='{size[1]}'" if size else ""
    return f"  <image file={_quoted(name)}{written}>\n"


def _box_element(face: Annotation, names: list[str]) -> str:
    rectangle = _whole_box(face)
    own = {key: face.attributes[key] for key in _OWN if key in face.attributes}
    if own.get("ignore") is not None:
        own["ignore"] = "1" if own["ignore"] else "0"
    written = [f"{side}='{value}'" for side, value in zip(_RECTANGLE, rectangle, strict=True)]
    written += [f"{key}={_quoted(str(value))}" for key, value in own.items()]
    lines = [f"    <box {' '.join(written)}>"]
    label = face.attributes.get("label")
    if isinstance(label, str) and label:
        lines.append(f"      <label>{_quoted(label)[1:-1]}</label>")
    whole = _whole(face.points[~missing_points(face)], face, "points")
    present = [name for name, gone in zip(names, missing_points(face), strict=True) if not gone]
    lines += [
        f"      <part name={_quoted(name)} x='{x}' y='{y}'/>"
        for name, (x, y) in zip(present, whole, strict=True)
    ]
    return "\n".join(lines) + "\n    </box>\n"


def _whole_box(face: Annotation) -> list[int]:
    if face.box is not None:
        return [side for row in _whole(face.box.reshape(1, 4), face, "box") for side in row]
    if missing_points(face).all():
        raise ValueError(f"annotation {face.name!r} has neither points nor a box to write")
    x, y, width, height = landmark_box(face.points).tolist()
    left, top = int(np.floor(x)), int(np.floor(y))
    return [left, top, int(np.ceil(x + width)) - left + 1, int(np.ceil(y + height)) - top + 1]


def _whole(values: npt.NDArray[np.float64], face: Annotation, what: str) -> list[list[int]]:
    rounded = np.rint(values)
    if not np.array_equal(rounded, values):
        odd = float(values[rounded != values][0])
        raise ValueError(
            f"annotation {face.name!r}: {what} hold {odd!r}, and dlib's XML holds whole pixels; "
            "write with rounded=True (asmkit convert --round) to round them"
        )
    return [[int(value) for value in row] for row in rounded.tolist()]
