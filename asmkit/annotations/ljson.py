"""Landmark JSON of menpo, ``.ljson``: groups of landmarks of one image, or of one mesh.

Described at https://github.com/menpo/landmarker.io and in menpo's exporter; version 3 ::

    {"version": 3, "groups": {"PTS": {
        "landmarks": {"points": [[y, x], …], "connectivity": [[0, 1], …]},
        "labels": [{"label": "jaw", "mask": [0, 1, …]}]}}}

Version 2 is one group without the name; in version 1 each part of a face has its own points.
All three are read, version 3 is written. 2-D points stand as ``[y, x]``, 0-based pixel centres;
3-D points as ``[x, y, z]``; ``null`` is missing. The parts are in ``attributes["groups"]`` (name →
indices), the lines in ``attributes["connectivity"]``, the name of the group (``PTS``) in
``attributes["group"]``; where a file has several groups, each is an annotation ``<file>:<group>``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asmkit.annotations._annotation import Annotation, annotation_read
from asmkit.annotations._json import (
    JSON_BYTES,
    floats,
    index_pairs,
    indices,
    mapping,
    read_json,
    sequence,
    string,
)
from asmkit.annotations._reading import DEFAULTS, ReadOptions
from asmkit.annotations._text import check_number_of_annotations, encoded, first_bytes
from asmkit.errors import FormatError
from asmkit.schemes import SCHEMES, scheme_of

__all__ = ["encode", "read", "sniff"]

_DEFAULT_GROUP = "PTS"  # menpo's own


def sniff(path: Path) -> bool:
    """Whether a JSON file begins like one of menpo's."""
    head = first_bytes(path)
    return b'"version"' in head and (b'"groups"' in head or b'"landmarks"' in head)


def read(path: Path, options: ReadOptions = DEFAULTS) -> list[Annotation]:
    """Read a ``.ljson`` file; a group is an annotation, with the image of the same name.

    Raises
    ------
    FormatError
        When the file is no landmark JSON of version 1, 2 or 3.
    """
    data = read_json(path, options.limit(JSON_BYTES))
    version = data.get("version")
    image = options.find_namesake(path)
    if version == 3:
        groups = mapping(data.get("groups"), f"{path}, groups")
        check_number_of_annotations(path, len(groups), options.limit(JSON_BYTES))
        found = [
            _read_group(path, name, group, len(groups), image) for name, group in groups.items()
        ]
    elif version == 2:
        found = [_read_group(path, None, data, 1, image)]
    elif version == 1:
        found = [_read_version_1(path, data, image)]
    else:
        shown = version if isinstance(version, int) and abs(version) < 100 else "none of these"
        raise FormatError(f"{path}: the version is {shown}; expected 1, 2 or 3")
    if not found:
        raise FormatError(f"{path}: holds no group of landmarks")
    return found


def _read_group(
    path: Path, name: str | None, group: Any, n_groups: int, image: Path | None
) -> Annotation:
    where = f"{path}, group {name[:40]!r}" if name is not None else str(path)
    parts = mapping(group, where)
    landmarks = mapping(parts.get("landmarks"), f"{where}, landmarks")
    points = _points(landmarks.get("points"), where)
    labels: dict[str, tuple[int, ...]] = {}
    for entry in sequence(parts.get("labels") or [], where):
        label = mapping(entry, where)
        labels[string(label.get("label"), where)] = indices(label.get("mask"), where, len(points))
    connectivity = index_pairs(landmarks.get("connectivity") or [], where, len(points))
    return _annotation(path, name, n_groups, points, labels, connectivity, image)


def _read_version_1(path: Path, data: Mapping[str, Any], image: Path | None) -> Annotation:
    rows: list[Any] = []
    labels: dict[str, tuple[int, ...]] = {}
    connectivity: list[tuple[int, int]] = []
    for entry in sequence(data.get("groups"), f"{path}, groups"):
        group = mapping(entry, str(path))
        own = [
            mapping(p, str(path)).get("point") for p in sequence(group.get("landmarks"), str(path))
        ]
        start = len(rows)
        pairs = index_pairs(group.get("connectivity") or [], str(path), len(own))
        connectivity += [(start + first, start + second) for first, second in pairs]
        label = string(group.get("label"), str(path))
        labels[label] = (*labels.get(label, ()), *range(start, start + len(own)))
        rows += own
    return _annotation(path, None, 1, _points(rows, str(path)), labels, tuple(connectivity), image)


def _points(values: Any, where: str) -> npt.NDArray[np.float64]:
    """Points in our order; ``null`` stands for a coordinate or for a whole point."""
    given = sequence(values, f"{where}, points")
    n_dims = next((len(sequence(row, where)) for row in given if row is not None), 2)
    if not given or n_dims not in (2, 3):
        raise FormatError(
            f"{where}: {len(given)} points of {n_dims} coordinates; expected points in 2-D or 3-D"
        )
    flat: list[Any] = []
    for row in given:
        coordinates = [None] * n_dims if row is None else sequence(row, where)
        if len(coordinates) != n_dims:
            raise FormatError(f"{where}: points of {n_dims} and of {len(coordinates)} coordinates")
        flat.extend(coordinates)
    points = floats(flat, where, null=True).reshape(-1, n_dims)
    return points[:, ::-1] if n_dims == 2 else points


def _annotation(
    path: Path,
    group: str | None,
    n_groups: int,
    points: npt.NDArray[np.float64],
    labels: Mapping[str, tuple[int, ...]],
    connectivity: tuple[tuple[int, int], ...],
    image: Path | None,
) -> Annotation:
    known = scheme_of(len(points))
    attributes: dict[str, object] = {"groups": dict(labels), "connectivity": connectivity}
    if group is not None:
        attributes["group"] = group
    return annotation_read(
        str(path),
        points,
        image=image,
        scheme=known.name if known else None,
        name=path.stem if n_groups == 1 else f"{path.stem}:{group}",
        attributes=attributes,
    )


def encode(path: Path, annotations: list[Annotation]) -> bytes:
    """Annotations as the groups of one ``.ljson`` file, with full precision.

    Several must differ in ``attributes["group"]``. Parts and lines come from ``attributes``, else
    from the landmark scheme; without either all points are one part.

    Raises
    ------
    ValueError
        When two annotations would become one group.
    """
    groups = {_group_name(face): _group(face) for face in annotations}
    if len(groups) < len(annotations):
        raise ValueError(
            f"{path}: {len(annotations)} annotations make only {len(groups)} groups of one image; "
            "give a folder to write one file for each"
        )
    content = {"version": 3, "groups": groups}
    # menpo's exporter writes it so: sorted, by four blanks.
    text = json.dumps(content, indent=4, sort_keys=True, allow_nan=False, ensure_ascii=True)
    return encoded(text + "\n", path)


def _group_name(face: Annotation) -> str:
    name = face.attributes.get("group")
    return name if isinstance(name, str) else _DEFAULT_GROUP


def _group(face: Annotation) -> dict[str, Any]:
    points = face.points[:, ::-1] if face.points.shape[1] == 2 else face.points
    rows = [[None if value != value else value for value in row] for row in points.tolist()]
    return {
        "landmarks": {"points": rows, "connectivity": _lines(face)},
        "labels": [
            {"label": label, "mask": list(members)} for label, members in _parts(face).items()
        ],
    }


def _parts(face: Annotation) -> Mapping[str, tuple[int, ...]]:
    given = face.attributes.get("groups")
    if isinstance(given, Mapping):
        return given
    known = SCHEMES.get(face.scheme or "")
    return known.groups if known else {"all": tuple(range(len(face.points)))}


def _lines(face: Annotation) -> list[list[int]]:
    given = face.attributes.get("connectivity")
    if isinstance(given, tuple):
        return [list(pair) for pair in given]
    lines = []
    known = SCHEMES.get(face.scheme or "")
    for contour in known.contours if known else ():
        drawn = [*contour.indices, *(contour.indices[:1] if contour.closed else ())]
        lines += [[first, second] for first, second in pairwise(drawn)]
    return lines
