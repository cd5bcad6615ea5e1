"""Writing shards: see :mod:`asmkit.annotations.shards` for their layout."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from asmkit._files import new_folder, replacing
from asmkit.annotations._annotation import Annotation
from asmkit.annotations._reading import IMAGE_SUFFIXES
from asmkit.annotations._sample import encode_sample
from asmkit.annotations._tar import BLOCK
from asmkit.annotations._text import encoded
from asmkit.annotations.shards import INDEX, INDEX_FORMAT
from asmkit.boxes import landmark_box

__all__ = ["SHARD_BYTES", "encode", "write_shards"]

#: Size of a shard, unless the caller wants another.
SHARD_BYTES = 256 * 2**20


class _Files(NamedTuple):
    """The members of a sample, in their order: the points can be read with the next header."""

    points: tuple[str, bytes]
    image: tuple[str, bytes]

    @property
    def size(self) -> int:
        """Bytes that they take in a tar file."""
        return sum(BLOCK + -(-len(data) // BLOCK) * BLOCK for _, data in self)


def write_shards(
    folder: str | os.PathLike[str],
    annotations: Iterable[Annotation],
    *,
    shard_bytes: int = SHARD_BYTES,
    crop: float | None = None,
    max_side: int | None = None,
) -> list[Path]:
    """Write annotated images as tar files for training, where there are too many for a folder.

    The shards ``data-00000.tar`` … are read by :func:`asmkit.read`, the webdataset library and
    ``tar``; see :mod:`asmkit.annotations.shards`. The same input gives the same bytes. One image
    at a time is in memory, and the folder appears whole or not at all.

    Parameters
    ----------
    folder : path
        A new folder.
    annotations : iterable of Annotation
        Each with an image and a name of its own. A member is called after the annotation, with
        ``_`` for dots and colons; the annotation keeps its name.
    shard_bytes : int
        Size of a shard, which only a single sample can exceed.
    crop : float, optional
        Keep of each image only the square round the middle of the landmark box, with a side of
        this many times the box's longer one. A training with the default augmentation looks about
        2.6 wide, with ``asm_warp`` 3.2. By default the file of the image is stored as it is.
    max_side : int, optional
        Shrink larger images by a whole number, so that no side exceeds this many pixels.

    Returns
    -------
    list of Path
        The shards.

    Raises
    ------
    FileExistsError
        When there is something in the folder.
    ValueError
        When there is nothing to write, an annotation has no image, two would share a name, or one
        that is to be cropped has no 2-D box.

    Notes
    -----
    A changed image is encoded again, as JPEG (quality 95) where it was one, else as PNG. Points
    and box move with it, and ``attributes["crop"]`` is ``(x, y, f)``: what was at ``p`` is at
    ``(p - (x, y) - (f - 1) / 2) / f``.
    """
    target, listed = Path(folder), list(annotations)
    if shard_bytes < 1:
        raise ValueError(f"shard_bytes: got {shard_bytes}, expected a positive number")
    if crop is not None and not 1 <= crop < np.inf:
        raise ValueError(f"crop: got {crop}, expected at least 1: the landmark box itself")
    if max_side is not None and max_side < 1:
        raise ValueError(f"max_side: got {max_side}, expected a positive number of pixels")
    keys = _keys(target, listed)
    entries: list[dict[str, str | int]] = []
    with new_folder(target) as temporary:
        samples = _samples(target, keys, listed, crop, max_side)
        waiting = next(samples, None)
        while waiting is not None:
            name = f"data-{len(entries):05d}.tar"
            count, size = 0, 0
            with replacing(temporary / name) as part:
                with part.open("wb") as stream, _tar(stream) as shard:
                    while waiting is not None and (not count or size + waiting.size <= shard_bytes):
                        _add(shard, waiting)
                        count, size = count + 1, size + waiting.size
                        waiting = next(samples, None)
                with part.open("rb") as written:
                    digest = hashlib.file_digest(written, "sha256").hexdigest()
                total = part.stat().st_size
            entries.append({"name": name, "samples": count, "bytes": total, "sha256": digest})
        index = {
            "format": INDEX_FORMAT,
            "version": 1,
            "samples": len(listed),
            "shards": entries,
        }
        with replacing(temporary / INDEX) as part:
            part.write_bytes(encoded(json.dumps(index, indent=1) + "\n", part))
    return [target / str(entry["name"]) for entry in entries]


def encode(path: Path, annotations: list[Annotation]) -> bytes:
    """One shard of all annotations, with their images as they are.

    Raises
    ------
    ValueError
        When an annotation has no image, or two would share a name.
    """
    stream = io.BytesIO()
    with _tar(stream) as shard:
        for files in _samples(path, _keys(path, annotations), annotations, None, None):
            _add(shard, files)
    return stream.getvalue()


def _tar(stream: io.BufferedWriter | io.BytesIO) -> tarfile.TarFile:
    return tarfile.open(mode="w", fileobj=stream, format=tarfile.PAX_FORMAT, encoding="utf-8")


def _add(shard: tarfile.TarFile, files: _Files) -> None:
    for name, data in files:
        # Time, owner and rights stay at their defaults: 1970, 0 and 0644 for every file.
        member = tarfile.TarInfo(name)
        member.size = len(data)
        shard.addfile(member, io.BytesIO(data))


def _keys(path: Path, annotations: Sequence[Annotation]) -> list[str]:
    """How the files of each annotation are called: WebDataset cuts a name at its first dot."""
    if not annotations:
        raise ValueError(f"{path}: got no annotations to write")
    keys: dict[str, str] = {}
    for one in annotations:
        key = one.name.replace(":", "_").replace(".", "_")
        if not key or not key.isprintable() or "/" in key or "\\" in key:
            raise ValueError(f"{path}: annotation name {one.name!r} does not make a file name")
        if key in keys:
            raise ValueError(
                f"{path}: the annotations {keys[key]!r} and {one.name!r} would both be called "
                f"{key!r}; give each its own name"
            )
        keys[key] = one.name
        if one.image is None:
            raise ValueError(
                f"annotation {one.name!r} has no image, which a shard must hold; put it beside "
                "the annotation, or name its folder by images"
            )
        if one.image.suffix.lower() not in IMAGE_SUFFIXES:
            raise ValueError(
                f"annotation {one.name!r}: the image {one.image} has none of the suffixes "
                f"{', '.join(IMAGE_SUFFIXES)}"
            )
    return list(keys)


def _samples(
    path: Path,
    keys: Sequence[str],
    annotations: Sequence[Annotation],
    crop: float | None,
    max_side: int | None,
) -> Iterator[_Files]:
    for key, one in zip(keys, annotations, strict=True):
        assert one.image is not None  # checked by _keys
        suffix = one.image.suffix.lower()
        if crop is None and max_side is None:
            image = one.image.read_bytes()
        else:
            one, suffix, image = _cropped(one, crop, max_side)
        yield _Files((f"{key}.json", encode_sample(path, one)), (key + suffix, image))


def _cropped(
    annotation: Annotation, crop: float | None, max_side: int | None
) -> tuple[Annotation, str, bytes]:
    from asmkit.images import encode_image, read_image, shrink  # OpenCV, only where it is needed

    assert annotation.image is not None  # checked by _keys
    pixels = read_image(annotation.image)
    height, width = pixels.shape[:2]
    corner, stop = np.zeros(2, int), np.array([width, height])
    if crop is not None:
        corner, stop = _square(annotation, crop, width, height)
    pixels = pixels[corner[1] : stop[1], corner[0] : stop[0]]
    factor = 1 if max_side is None else -(-max(pixels.shape[:2]) // max_side)
    pixels = shrink(np.ascontiguousarray(pixels), factor)
    points = annotation.points.copy()
    points[:, :2] = (points[:, :2] - corner - (factor - 1) / 2) / factor
    box = annotation.box
    if box is not None:
        box = np.concatenate([box[:2] - corner - (factor - 1) / 2, box[2:]]) / factor
    suffix = ".jpg" if annotation.image.suffix.lower() in (".jpg", ".jpeg") else ".png"
    changed = replace(
        annotation,
        points=points,
        box=box,
        image_size=(pixels.shape[1], pixels.shape[0]),
        attributes={**annotation.attributes, "crop": (*corner.tolist(), factor)},
    )
    return changed, suffix, encode_image(suffix, pixels)


def _square(
    annotation: Annotation, crop: float, width: int, height: int
) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    """First pixel ``(x, y)`` of the part to keep, and the one after its last."""
    box = landmark_box(annotation.points)
    if annotation.points.shape[1] != 2 or not box[2:].max() > 0:
        raise ValueError(
            f"annotation {annotation.name!r}: no box of 2-D landmarks to crop by; write the whole "
            "images, or leave it out"
        )
    reach, centre = crop * box[2:].max() / 2, box[:2] + box[2:] / 2
    last = np.array([width, height]) - 1
    # Of a face outside its photo one row or column is left.
    low = np.clip(np.floor(centre - reach), 0, last).astype(int)
    high = np.clip(np.ceil(centre + reach), low, last).astype(int)
    return low, high + 1
