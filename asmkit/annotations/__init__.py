"""Landmark annotations: read and write files in the formats of the field.

A format is one module with ``read`` and ``encode``, entered once in the table in ``formats``.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from asmkit.annotations._annotation import Annotation
from asmkit.annotations._reading import IMAGE_SUFFIXES, ReadOptions, check_size, images_by_stem
from asmkit.annotations._writing import write_files
from asmkit.annotations.formats import (
    ANNOTATION_SUFFIXES,
    FORMATS,
    Format,
    format_of,
    looks_like_annotations,
)
from asmkit.annotations.shard_writing import write_shards
from asmkit.annotations.shards import check_index

__all__ = [
    "ANNOTATION_SUFFIXES",
    "FORMATS",
    "IMAGE_SUFFIXES",
    "Annotation",
    "Format",
    "plan_files",
    "read",
    "read_shapes",
    "stack_points",
    "write",
    "write_shards",
]

PathLike = str | os.PathLike[str]


def read(
    path: PathLike,
    *,
    format: str | None = None,
    images: PathLike | None = None,
    image_size: tuple[int, int] | None = None,
    max_bytes: int | None = None,
    require_images: bool = False,
) -> list[Annotation]:
    """Read the annotations of a file, or of all files in a folder.

    Parameters
    ----------
    path : path
        A file, or a folder of files; of a folder, files that do not look like annotations (a
        ``.csv`` or ``.json`` of another kind) are left out.
    format : str, optional
        One of ``pts``, ``wflw``, ``asf``, ``ljson``, ``tps``, ``lm2``, ``nts``, ``dlib``, ``coco``,
        ``stasm``, ``muct``, ``csv``, ``shards``. Default: by the suffix and, where several share
        it, the content.
    images : path, optional
        Folder in which the images are looked for. Default: the folder of the annotations. A name
        in a file leads only downwards from there: of an absolute name, or one with ``..``, only
        the last part is used.
    image_size : (int, int), optional
        Width and height of images that are not found. ``asf``, 2-D ``tps`` and old ``stasm`` files
        cannot be placed without.
    max_bytes : int, optional
        Size of the largest file to read. Default: 8 to 32 MiB, by the format.
    require_images : bool
        Whether an annotation without its image is an error.

    Returns
    -------
    list of Annotation
        Sorted by file name, then in the order of the file. Where a file names no image, it is the
        one of the same name beside it.

    Raises
    ------
    FileNotFoundError
        When there is no such path, no annotation in the folder, or a required image is missing.
    FormatError
        When a file is damaged or of no known format.
    """
    path = Path(path)
    options = ReadOptions(None if images is None else Path(images), image_size, max_bytes)
    files = _files_of(path, format)
    by_stem = images_by_stem(options.images or (path if path.is_dir() else path.parent))
    annotations = [
        _with_image(annotation, by_stem)
        for file in files
        for annotation in _read_file(file, format, options)
    ]
    if require_images:
        _check_images(path, annotations)
    return annotations


def _read_file(path: Path, name: str | None, options: ReadOptions) -> list[Annotation]:
    return format_of(path, name, by_content=True).read(path, options)


def _files_of(path: Path, name: str | None) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    known = ANNOTATION_SUFFIXES
    if name is not None:
        known = format_of(path, name, by_content=False).suffixes
    files = [file for file in sorted(path.iterdir()) if looks_like_annotations(file, name)]
    if not files:
        raise FileNotFoundError(
            f"{path}: no annotation in this folder; expected files with one of the suffixes "
            f"{', '.join(known)} (subfolders are not searched)"
        )
    check_index(path, files)
    return files


def _with_image(annotation: Annotation, images: Mapping[str, Path]) -> Annotation:
    image = None if annotation.image else images.get(annotation.name)
    return replace(annotation, image=image) if image else annotation


def _check_images(path: Path, annotations: Sequence[Annotation]) -> None:
    lacking = [annotation for annotation in annotations if annotation.image is None]
    if lacking:
        first = lacking[0]
        wanted = first.attributes.get("image_name", f"{first.name} ({', '.join(IMAGE_SUFFIXES)})")
        raise FileNotFoundError(
            f"{path}: no image for {len(lacking)} of {len(annotations)} annotations, the first is "
            f"{first.name!r}; expected the image {wanted} beside it"
        )


def read_shapes(
    paths: PathLike | Iterable[PathLike],
    *,
    format: str | None = None,
    images: PathLike | None = None,
    image_size: tuple[int, int] | None = None,
    max_bytes: int | None = None,
) -> npt.NDArray[np.float64]:
    """Read only the points, as one array.

    Parameters
    ----------
    paths : path, or iterable of paths
        Each a file, a folder or a glob pattern (``"train/*.pts"``; ``**`` crosses folders).
    format, images, image_size, max_bytes : optional
        As in :func:`read`.

    Returns
    -------
    ndarray (n_shapes, n_points, n_dims)
        In the order given; a pattern's and a folder's files sorted by name.

    Raises
    ------
    FileNotFoundError
        When nothing is found.
    ValueError
        When two files differ in the number of points or dimensions; the message names both.
    FormatError
        When a file is damaged or of no known format.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    files = [file for one in given for file in _expand(one, format)]
    if not files:
        raise FileNotFoundError("got no paths to read shapes from")
    options = ReadOptions(None if images is None else Path(images), image_size, max_bytes)
    shapes: list[npt.NDArray[np.float64]] = []
    for file in files:
        for annotation in _read_file(file, format, options):
            if shapes and annotation.points.shape != shapes[0].shape:
                raise ValueError(
                    f"{file} has {_describe(annotation.points)}, but {files[0]} has "
                    f"{_describe(shapes[0])}; shapes of one array must have equally many"
                )
            shapes.append(annotation.points)
    return np.stack(shapes)


def _expand(path: PathLike, name: str | None) -> Iterator[Path]:
    pattern = os.fspath(path)
    if Path(pattern).exists() or not glob.has_magic(pattern):
        yield from _files_of(Path(pattern), name)
        return
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  # pathlib refuses absolute patterns
    if not matches:
        raise FileNotFoundError(f"{pattern}: no file matches this pattern")
    for match in matches:
        yield from _files_of(Path(match), name)


def stack_points(annotations: Sequence[Annotation]) -> npt.NDArray[np.float64]:
    """Points of annotations as one array ``(n, n_points, n_dims)``.

    Raises
    ------
    ValueError
        When there is none, or two differ in the number of points or dimensions.
    """
    if not annotations:
        raise ValueError("annotations: got none, expected at least one")
    first = annotations[0]
    for annotation in annotations:
        if annotation.points.shape != first.points.shape:
            raise ValueError(
                f"{annotation.name} has {_describe(annotation.points)}, but {first.name} has "
                f"{_describe(first.points)}; expected equally many in all annotations"
            )
    return np.stack([annotation.points for annotation in annotations])


def _describe(points: npt.NDArray[np.float64]) -> str:
    return f"{points.shape[0]} points in {points.shape[1]}-D"


def write(
    path: PathLike,
    annotations: Iterable[Annotation],
    *,
    format: str | None = None,
    image_size: tuple[int, int] | None = None,
    rounded: bool = False,
) -> None:
    """Write annotations to a file, or to a folder of files; all of it or nothing.

    Parameters
    ----------
    path : path
        Its suffix chooses the format (of ``.csv`` our own table, of ``.json`` COCO's; a ``.tar``
        holds the images, too, and :func:`write_shards` makes many). An existing folder, or a path
        without suffix, gets one file ``<name>.pts`` for each annotation (or of another ``format``
        that holds one instance).
    annotations : iterable of Annotation
        Points are kept to the last digit, but for what a format's module says. What a format
        cannot hold beside the points (a box in ``.pts``) is left out.
    format : str, optional
        As in :func:`read`. Default: by the suffix.
    image_size : (int, int), optional
        Width and height for annotations whose image and its size are not known; ``asf`` and 2-D
        ``tps`` files are relative to it.
    rounded : bool
        Round points and boxes to whole pixels, as ``dlib`` needs them.

    Raises
    ------
    ValueError
        When there is nothing to write, the format cannot hold the annotations (a missing point,
        parts of a pixel), or two of them would become one file.
    """
    path = Path(path)
    listed = [_prepared(annotation, image_size, rounded) for annotation in annotations]
    if not listed:
        raise ValueError(f"{path}: got no annotations to write")
    files = plan_files(path, listed, format=format)
    first = next(iter(files))
    chosen = format_of(first, format, by_content=False)
    content = {file.name: chosen.encode(file, members) for file, members in files.items()}
    # Thousands of small files cannot each be made to outlive a power cut; a whole list can.
    write_files(first.parent, content, durable=chosen.holds_many)


def plan_files(
    path: PathLike, annotations: Sequence[Annotation], *, format: str | None = None
) -> dict[Path, list[Annotation]]:
    """The files that :func:`write` makes of annotations, and what each of them holds.

    Raises
    ------
    ValueError
        When two annotations would become one file, or a format holds all of them in one.
    """
    path, listed = Path(path), list(annotations)
    if not (path.is_dir() or not path.suffix):
        return {path: listed}
    chosen = format_of(path, format or "pts", by_content=False)
    if chosen.holds_many:
        raise ValueError(
            f"{path}: is a folder, but the format {format} holds all annotations in one file; "
            f"give the name of a {chosen.suffixes[0]} file"
        )
    named = _file_names(path, listed)
    return {path / f"{name}{chosen.suffixes[0]}": [one] for name, one in named.items()}


def _prepared(
    annotation: Annotation, image_size: tuple[int, int] | None, rounded: bool
) -> Annotation:
    if image_size is not None and annotation.image_size is None and annotation.image is None:
        check_size(image_size, "image_size")
        annotation = replace(annotation, image_size=image_size)
    if rounded:
        box = None if annotation.box is None else np.rint(annotation.box)
        annotation = replace(annotation, points=np.rint(annotation.points), box=box)
    return annotation


def _file_names(folder: Path, annotations: Sequence[Annotation]) -> dict[str, Annotation]:
    # "list:7" is the name of a WFLW face, but no file name on every system.
    named = {annotation.name.replace(":", "_"): annotation for annotation in annotations}
    if len(named) < len(annotations):
        raise ValueError(
            f"{folder}: {len(annotations)} annotations have only {len(named)} different names; "
            "give each its own name"
        )
    for name in named:
        if not name or name != Path(name).name or name.startswith("."):
            raise ValueError(f"{folder}: annotation name {name!r} does not make a file name")
    return named
