"""Shards ``.tar``: many annotated images in one file, as WebDataset lays them out.

A shard is a plain POSIX tar file. The files of a sample share all of their name up to the first
dot: the image, and its points as ``.json`` (:mod:`asmkit.annotations._sample`) or ``.pts``::

    face_00000.json
    face_00000.png
    face_00001.json
    …

What else stands in a shard (``.txt``, ``.cls``, …) is never read, so neither is a pickle. Images
stay where they are: :attr:`Annotation.image` is a :class:`asmkit.packed_image.PackedImage`, read by
its offset when it is needed. Nothing is ever extracted.

A folder that :func:`asmkit.write_shards` wrote also holds ``index.json``, written last::

    {"format": "asmkit-shards", "version": 1, "samples": 3148, "shards":
     [{"name": "data-00000.tar", "samples": 1600, "bytes": 268431360, "sha256": "…"}, …]}

Reading such a folder fails where a shard of the index is missing or of another size, or is there
beside them: a data set that was half copied is no smaller data set.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from asmkit.annotations import pts
from asmkit.annotations._annotation import Annotation, annotation_read
from asmkit.annotations._json import mapping, read_json, sequence, string
from asmkit.annotations._reading import DEFAULTS, IMAGE_SUFFIXES, ReadOptions
from asmkit.annotations._sample import parse_sample
from asmkit.annotations._tar import Member, members
from asmkit.annotations._text import (
    MAX_BYTES,
    as_text,
    check_number_of_annotations,
    first_bytes,
    scaled,
)
from asmkit.errors import FormatError
from asmkit.packed_image import PackedImage
from asmkit.schemes import scheme_of

__all__ = ["INDEX", "INDEX_FORMAT", "check_index", "read"]

INDEX, INDEX_FORMAT = "index.json", "asmkit-shards"
_INDEX = re.compile(rb'\s*\{\s*"format"\s*:\s*"asmkit-shards"')
_POINTS_BYTES = 8 * 2**20  # of one sample, as of a .pts file
_PICKLES = frozenset({".pyd", ".pkl", ".pickle", ".pth", ".pt"})
#: Most bytes of points in one shard: 80 000 samples of 68 points.
_ALL_POINTS_BYTES = 16 * MAX_BYTES


class _Labels(NamedTuple):
    points: npt.NDArray[np.float64]
    parts: dict[str, Any]


class _Sample:
    """What has been found of a sample."""

    labels: _Labels | None = None
    image: PackedImage | None = None
    other: str = ""


def read(path: Path, options: ReadOptions = DEFAULTS) -> list[Annotation]:
    """Read a shard; a sample is an annotation, in the order of their first files.

    Raises
    ------
    FormatError
        When it is damaged or cut off, holds anything but plain files, two files of one name or
        role, or a sample without points or image; the message names the member.
    """
    size = path.stat().st_size
    samples: dict[str, _Sample] = {}
    left = scaled(_ALL_POINTS_BYTES, options.limit())
    with path.open("rb") as stream:
        for member in members(stream, path):
            key, suffix = _split(member.name)
            if not key:
                continue
            where = f"{path}, member {member.name[:80]!r}"
            sample = samples.setdefault(key, _Sample())
            check_number_of_annotations(path, len(samples), options.limit())
            if suffix in IMAGE_SUFFIXES:
                if sample.image is not None:
                    raise FormatError(
                        f"{where}: the sample has the image {sample.image.name[:80]!r} already; "
                        "expected one (a name counts up to its first dot)"
                    )
                sample.image = PackedImage(path, member.name, member.offset, member.size, size)
            elif suffix in (".json", ".pts"):
                if sample.labels is not None:
                    raise FormatError(
                        f"{where}: the sample has points already; expected one .json or .pts"
                    )
                left -= member.size
                _check_bytes(member, left, where, options)
                stream.seek(member.offset)
                sample.labels = _labels(stream.read(member.size), member, where, options)
            else:
                sample.other = suffix
    if not samples:
        raise FormatError(f"{path}: no sample in it; expected images, each with .json or .pts")
    return [_annotation(path, key, sample) for key, sample in samples.items()]


def _split(name: str) -> tuple[str, str]:
    """The key of a sample, and the suffix in lower case; none for what belongs to no sample."""
    folder, slash, file = name.rpartition("/")
    stem, dot, rest = file.partition(".")
    if not stem or not dot:
        return "", ""
    return folder + slash + stem, "." + rest.rpartition(".")[2].lower()


def _check_bytes(member: Member, left: int, where: str, options: ReadOptions) -> None:
    most = options.limit(_POINTS_BYTES)
    if member.size > most:
        raise FormatError(
            f"{where}: {member.size} bytes, more than {most / 2**20:.0f} MiB of points; if that is "
            "right, allow it by max_bytes"
        )
    if left < 0:
        raise FormatError(
            f"{where}: with it the points of one shard exceed {_ALL_POINTS_BYTES / 2**20:.0f} MiB; "
            "write smaller shards, or allow it by max_bytes"
        )


def _labels(data: bytes, member: Member, where: str, options: ReadOptions) -> _Labels:
    most = options.limit(_POINTS_BYTES)
    if member.name.lower().endswith(".json"):
        return _Labels(*parse_sample(data, where, most))
    points = pts.parse(Path(where), as_text(data, where, most))
    known = scheme_of(len(points))
    return _Labels(points, {"scheme": known.name if known else None})


def _annotation(path: Path, key: str, sample: _Sample) -> Annotation:
    if sample.labels is None:
        is_pickle = sample.other in _PICKLES
        why = " (pickles are never read: they may run any code)" if is_pickle else ""
        raise FormatError(
            f"{path}, sample {key[:80]!r}: no points; expected a member {key[:80]}.json or "
            f"{key[:80]}.pts{why}"
        )
    if sample.image is None:
        raise FormatError(
            f"{path}, sample {key[:80]!r}: no image; expected a member {key[:80]}.jpg, or with "
            f"another of the suffixes {', '.join(IMAGE_SUFFIXES)}"
        )
    named = {"name": key.rpartition("/")[2], **sample.labels.parts}
    where = f"{path}, sample {key[:80]!r}"
    return annotation_read(where, sample.labels.points, image=sample.image, **named)


def check_index(folder: Path, files: Sequence[Path]) -> None:
    """Refuse a folder whose shards are not those of its index, where it has one.

    Raises
    ------
    FormatError
    """
    path = folder / INDEX
    shards = {file.name: file for file in files if file.suffix.lower() == ".tar"}
    if not shards or not path.is_file() or not _INDEX.match(first_bytes(path)):
        return
    content = read_json(path, MAX_BYTES)
    if content.get("version") != 1:
        raise FormatError(f"{path}: of a version that this asmkit does not know; expected 1")
    listed = {}
    for entry in sequence(content.get("shards"), f"{path}, shards"):
        one = mapping(entry, f"{path}, shards")
        listed[string(one.get("name"), f"{path}, shards")] = one.get("bytes")
    for name, size in listed.items():
        if name not in shards:
            raise FormatError(f"{path}: the shard {name[:80]!r} is not there; copy it, too")
        found = shards[name].stat().st_size
        if found != size:
            raise FormatError(
                f"{shards[name]}: has {found} bytes, but {size!r:.40} by {INDEX}; copy it again"
            )
    for name in shards:
        if name not in listed:
            raise FormatError(f"{shards[name]}: is not in {INDEX}; remove one of the two")
