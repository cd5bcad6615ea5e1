"""Keypoints of COCO ``.json``: instances with points, boxes and visibility, many images a file.

Described at https://cocodataset.org/#format-data ::

    {"images": [{"id": 1, "file_name": "a.jpg", "width": 640, "height": 480}],
     "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [x, y, width, height],
                      "keypoints": [x0, y0, v0, x1, …], "num_keypoints": 17, …}],
     "categories": [{"id": 1, "name": "person", "keypoints": ["nose", …], "skeleton": [[16, 14]]}]}

``v`` is 0 for missing, 1 for hidden, 2 for visible. Coordinates are those of pixel centres from 0,
as they stand: half a pixel is neither added nor taken away. The names of the keypoints are in
``labels``, the skeleton (from 1 in the file) in ``attributes["connectivity"]`` from 0. Instances
without ``keypoints`` are left out; each other one is an annotation ``<file>:<number>``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asmkit.annotations._annotation import Annotation, annotation_read
from asmkit.annotations._json import (
    JSON_BYTES,
    floats,
    index_pairs,
    mapping,
    read_json,
    sequence,
    string,
)
from asmkit.annotations._reading import DEFAULTS, ReadOptions, image_name
from asmkit.annotations._text import check_number_of_annotations, encoded, first_bytes
from asmkit.annotations._writing import check_dimensions, missing_points
from asmkit.boxes import landmark_box
from asmkit.errors import FormatError
from asmkit.schemes import scheme_of

__all__ = ["encode", "read", "sniff"]

_SECTION = re.compile(rb'\s*\{[\s\S]*?"(images|annotations|categories)"\s*:\s*\[')
_CATEGORY = "landmarks"


def sniff(path: Path) -> bool:
    """Whether a JSON file begins like one of COCO."""
    return _SECTION.match(first_bytes(path)) is not None


def read(path: Path, options: ReadOptions = DEFAULTS) -> list[Annotation]:
    """Read a file of COCO keypoints; an instance is an annotation.

    Raises
    ------
    FormatError
        When the file is no such JSON, refers to an image that it does not list, or holds no
        keypoints.
    """
    data = read_json(path, options.limit(JSON_BYTES))
    images = _by_id(path, data, "images")
    categories = _by_id(path, data, "categories")
    found = []
    instances = sequence(data.get("annotations"), f"{path}, annotations")
    check_number_of_annotations(path, len(instances), options.limit(JSON_BYTES))
    for number, entry in enumerate(instances, start=1):
        where = f"{path}, annotation {number}"
        instance = mapping(entry, where)
        if "keypoints" in instance:
            image = _referred(images, instance.get("image_id"))
            if image is None:
                raise FormatError(f"{where}: its image_id is not among the images")
            category = _referred(categories, instance.get("category_id")) or {}
            name = f"{path.stem}:{number}"
            found.append(_annotation(path, where, name, instance, image, category, options))
    if not found:
        raise FormatError(f"{path}: {len(instances)} annotations, but none has keypoints")
    return found


def _by_id(path: Path, data: Mapping[str, Any], section: str) -> dict[Any, Mapping[str, Any]]:
    listed: dict[Any, Mapping[str, Any]] = {}
    for entry in sequence(data.get(section, []), f"{path}, {section}"):
        item = mapping(entry, f"{path}, {section}")
        identifier = item.get("id")
        if not isinstance(identifier, int | str | float):
            raise FormatError(f"{path}: an entry of {section} has no id")
        if identifier in listed:
            raise FormatError(f"{path}: two of the {section} have one id")
        listed[identifier] = item
    return listed


def _referred(listed: Mapping[Any, Mapping[str, Any]], identifier: Any) -> Mapping[str, Any] | None:
    return listed.get(identifier) if isinstance(identifier, int | str | float) else None


def _annotation(
    path: Path,
    where: str,
    name: str,
    instance: Mapping[str, Any],
    image: Mapping[str, Any],
    category: Mapping[str, Any],
    options: ReadOptions,
) -> Annotation:
    values = floats(instance["keypoints"], where)
    if values.size % 3 or not values.size:
        raise FormatError(f"{where}: {values.size} numbers of keypoints; expected x, y, v for each")
    rows = values.reshape(-1, 3)
    if not np.isin(rows[:, 2], (0, 1, 2)).all():
        raise FormatError(f"{where}: v is 0 (missing), 1 (hidden) or 2 (visible)")
    points = np.where(rows[:, 2:] > 0, rows[:, :2], np.nan)
    file_name = image.get("file_name")
    if not isinstance(file_name, str):
        raise FormatError(f"{where}: its image has no file_name")
    listed = sequence(category.get("keypoints") or [], f"{path}, categories")
    labels = [string(label, f"{path}, categories") for label in listed]
    skeleton = category.get("skeleton") or []
    known = scheme_of(len(points))
    attributes: dict[str, object] = {"image_name": file_name}
    if isinstance(category.get("name"), str):
        attributes["category"] = category["name"]
    if skeleton:
        attributes["connectivity"] = _from_zero(skeleton, path, len(points))
    return annotation_read(
        where,
        points,
        image=options.find_image(path, file_name),
        image_size=_size(image),
        box=floats(instance["bbox"], f"{where}, bbox") if instance.get("bbox") else None,
        visibility=rows[:, 2] == 2,
        scheme=known.name if known else None,
        name=name,
        attributes=attributes,
        labels=tuple(labels) if len(labels) == len(points) else None,
    )


def _from_zero(skeleton: Any, path: Path, n_points: int) -> tuple[tuple[int, int], ...]:
    pairs = index_pairs(skeleton, f"{path}, skeleton", n_points + 1)
    if any(0 in pair for pair in pairs):
        raise FormatError(f"{path}: a skeleton counts keypoints from 1")
    return tuple((first - 1, second - 1) for first, second in pairs)


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    if type(width) is int and type(height) is int and width > 0 and height > 0:
        return width, height
    return None


def encode(path: Path, annotations: list[Annotation]) -> bytes:
    """Annotations with full precision, as instances with an image and a category each.

    A point whose visibility is not known counts as visible. Without a box that of the landmarks is
    written, and the width and height of an image where they are known.

    Raises
    ------
    ValueError
        When points are 3-D, or an image has no name.
    """
    images: dict[str, dict[str, Any]] = {}
    categories: dict[tuple[Any, ...], dict[str, Any]] = {}
    instances = []
    for number, face in enumerate(annotations, start=1):
        check_dimensions(face, 2, "COCO's JSON")
        name = image_name(path, face)
        if name is None:
            raise ValueError(f"annotation {face.name!r} has no image, which COCO's JSON must name")
        image = images.setdefault(name, {"id": len(images) + 1, "file_name": name})
        if face.image_size is not None:
            image["width"], image["height"] = face.image_size
        category = _category(face)
        key = (
            category["name"],
            len(face.points),
            face.labels,
            tuple(map(tuple, category["skeleton"])),
        )
        category = categories.setdefault(key, {"id": len(categories) + 1, **category})
        instances.append(
            {
                "id": number,
                "image_id": image["id"],
                "category_id": category["id"],
                **_instance(face),
            }
        )
    content = {
        "images": list(images.values()),
        "annotations": instances,
        "categories": list(categories.values()),
    }
    return encoded(json.dumps(content, allow_nan=False) + "\n", path)


def _category(face: Annotation) -> dict[str, Any]:
    name, lines = face.attributes.get("category"), face.attributes.get("connectivity")
    pairs: Sequence[Any] = lines if isinstance(lines, tuple) else ()
    return {
        "name": name if isinstance(name, str) else face.scheme or _CATEGORY,
        "keypoints": list(face.labels or map(str, range(len(face.points)))),
        "skeleton": [[first + 1, second + 1] for first, second in pairs],
    }


def _instance(face: Annotation) -> dict[str, Any]:
    missing = missing_points(face)
    visible = ~missing if face.visibility is None else face.visibility & ~missing
    rows = np.column_stack([np.where(missing[:, None], 0.0, face.points), np.zeros(len(missing))])
    keypoints = rows.tolist()
    for row, gone, seen in zip(keypoints, missing.tolist(), visible.tolist(), strict=True):
        row[2] = 0 if gone else 2 if seen else 1
    content: dict[str, Any] = {
        "keypoints": [value for row in keypoints for value in row],
        "num_keypoints": int((~missing).sum()),
        "iscrowd": 0,
    }
    box = face.box if face.box is not None else landmark_box(face.points)
    if np.isfinite(box).all():
        content |= {"bbox": box.tolist(), "area": float(box[2] * box[3])}
    return content
