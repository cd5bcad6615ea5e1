"""The JSON of one sample in a shard: an annotation with all that belongs to it but the image.

    {"name": "list:7", "points": [[446.0, 91.0], [null, null], …], "scheme": "ibug68",
     "box": [x, y, width, height], "visibility": [true, false, …], "labels": ["chin", …],
     "image_size": [width, height], "attributes": {"euler": [20.0, -10.0, 5.0], …}}

Only ``points`` must be there: 0-based pixel centres, ``null`` where a coordinate (or a whole point)
is missing, each number in the fewest digits that give it back exactly. Keys that are not listed
here are left alone. Of the attributes is kept what JSON can hold; a list comes back as a tuple.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asmkit.annotations._annotation import Annotation
from asmkit.annotations._json import floats, mapping, parse_json, sequence, string
from asmkit.annotations._text import as_text, encoded
from asmkit.errors import FormatError

__all__ = ["encode_sample", "parse_sample"]

_NOTHING = object()


def encode_sample(path: Path, annotation: Annotation) -> bytes:
    """The JSON of an annotation; the path is for messages."""
    points: list[list[float | None]] = [
        [None if math.isnan(value) else value for value in row]
        for row in annotation.points.tolist()
    ]
    content: dict[str, Any] = {"name": annotation.name, "points": points}
    if annotation.scheme is not None:
        content["scheme"] = annotation.scheme
    if annotation.box is not None:
        content["box"] = annotation.box.tolist()
    if annotation.visibility is not None:
        content["visibility"] = annotation.visibility.tolist()
    if annotation.labels is not None:
        content["labels"] = list(annotation.labels)
    if annotation.image_size is not None:
        content["image_size"] = list(annotation.image_size)
    attributes = _plain(annotation.attributes)
    if attributes:
        content["attributes"] = attributes
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return encoded(text + "\n", path)


def _plain(value: Any) -> Any:
    """``value`` as JSON holds it; ``_NOTHING`` for what it cannot hold."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        parts = [_plain(part) for part in value]
        return _NOTHING if _NOTHING in parts else parts
    if isinstance(value, Mapping):
        named = {key: _plain(part) for key, part in value.items() if isinstance(key, str)}
        return {key: part for key, part in named.items() if part is not _NOTHING}
    return _NOTHING


def parse_sample(
    data: bytes, where: str, max_bytes: int
) -> tuple[npt.NDArray[np.float64], dict[str, Any]]:
    """Points ``(n_points, n_dims)`` and the other parts of an :class:`Annotation`.

    Raises
    ------
    FormatError
        When it is no such JSON.
    """
    content = parse_json(as_text(data, where, max_bytes), where, max_bytes)
    if "points" not in content:
        raise FormatError(f'{where}: holds no points; expected {{"points": [[x, y], …]}}')
    points = _points(content["points"], f"{where}, points")
    parts: dict[str, Any] = {}
    for key in ("name", "scheme"):
        if content.get(key) is not None:
            parts[key] = string(content[key], f"{where}, {key}")
    if content.get("box") is not None:
        parts["box"] = floats(content["box"], f"{where}, box")
    if content.get("visibility") is not None:
        parts["visibility"] = _truths(content["visibility"], f"{where}, visibility")
    if content.get("labels") is not None:
        listed = sequence(content["labels"], f"{where}, labels")
        parts["labels"] = tuple(string(label, f"{where}, labels") for label in listed)
    if content.get("image_size") is not None:
        parts["image_size"] = _size(content["image_size"], f"{where}, image_size")
    if content.get("attributes") is not None:
        attributes = mapping(content["attributes"], f"{where}, attributes")
        parts["attributes"] = _with_tuples(attributes)
    return points, parts


def _points(rows: Any, where: str) -> npt.NDArray[np.float64]:
    given = [row for row in sequence(rows, where) if row is not None]
    n_dims = len(sequence(given[0], where)) if given else 2
    if n_dims not in (2, 3):
        raise FormatError(f"{where}: a point of {n_dims} numbers; expected [x, y] or [x, y, z]")
    missing = [None] * n_dims
    flat: list[Any] = []
    for row in rows:
        point = missing if row is None else sequence(row, where)
        if len(point) != n_dims:
            raise FormatError(f"{where}: points of {n_dims} and of {len(point)} numbers")
        flat += point
    return floats(flat, where, null=True).reshape(-1, n_dims)


def _truths(values: Any, where: str) -> list[bool]:
    listed = list(sequence(values, where))
    if not all(isinstance(value, bool) for value in listed):
        raise FormatError(f"{where}: expected true or false for each point")
    return listed


def _size(values: Any, where: str) -> tuple[int, int]:
    size = tuple(sequence(values, where))
    if len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise FormatError(f"{where}: expected two positive whole numbers")
    return size


def _with_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_with_tuples, value))
    if isinstance(value, dict):
        return {key: _with_tuples(part) for key, part in value.items()}
    return value
