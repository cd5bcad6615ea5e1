"""Landmark annotations: read and write files in the formats of the field.

A format is one module with ``read`` and ``write``, entered once in the table below.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from asmkit.annotations import pts, wflw
from asmkit.annotations._annotation import Annotation
from asmkit.errors import FormatError

__all__ = [
    "ANNOTATION_SUFFIXES",
    "IMAGE_SUFFIXES",
    "Annotation",
    "read",
    "read_shapes",
    "stack_points",
    "write",
]

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class _Format:
    read: Callable[[Path], list[Annotation]]
    write: Callable[[Path, list[Annotation]], None]
    sniff: Callable[[Path], bool]  # a folder also holds other files of this suffix


_FORMATS: Mapping[str, _Format] = {
    ".pts": _Format(pts.read, pts.write, sniff=lambda path: True),
    ".txt": _Format(wflw.read, wflw.write, wflw.sniff),
}

#: Suffixes of the files that hold annotations.
ANNOTATION_SUFFIXES = tuple(_FORMATS)

#: Suffixes of the images that belong to annotations; of two images with one name, the earlier wins.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")


def read(path: PathLike, *, require_images: bool = False) -> list[Annotation]:
    """Read the annotations of a file, or of all files in a folder.

    Parameters
    ----------
    path : path
        A file (``.pts``, or a WFLW list ``.txt``), or a folder of such files.
    require_images : bool
        Whether an annotation without its image is an error.

    Returns
    -------
    list of Annotation
        Sorted by file name, then in the order of the file. The image of a ``.pts`` file is the one
        of the same name beside it.

    Raises
    ------
    FileNotFoundError
        When there is no such path, no annotation in the folder, or a required image is missing.
    FormatError
        When a file is damaged or of no known format.
    """
    path = Path(path)
    files = _files_of(path)
    images = _images_in(path if path.is_dir() else path.parent)
    annotations = [
        _with_image(annotation, images) for file in files for annotation in _read_file(file)
    ]
    if require_images:
        _check_images(path, annotations)
    return annotations


def _read_file(path: Path) -> list[Annotation]:
    return _format_of(path).read(path)


def _format_of(path: Path) -> _Format:
    if path.suffix.lower() not in _FORMATS:
        raise FormatError(
            f"{path}: no annotation format has the suffix {path.suffix!r}; "
            f"known: {', '.join(_FORMATS)}"
        )
    return _FORMATS[path.suffix.lower()]


def _files_of(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    files = [file for file in sorted(path.iterdir()) if _is_annotation(file)]
    if not files:
        raise FileNotFoundError(
            f"{path}: no annotation in this folder; expected files with one of the suffixes "
            f"{', '.join(_FORMATS)} (subfolders are not searched)"
        )
    return files


def _is_annotation(path: Path) -> bool:
    # Names with a leading dot are hidden: half-written files, and macOS's shadow files.
    known = _FORMATS.get(path.suffix.lower())
    return bool(known and path.name[0] != "." and path.is_file() and known.sniff(path))


def _images_in(folder: Path) -> dict[str, Path]:
    """Images of a folder by stem."""
    names = os.listdir(folder)  # noqa: PTH208  # a Path for each of 10 000 names takes 50 ms
    ranked = [
        (IMAGE_SUFFIXES.index(suffix.lower()), stem, suffix)
        for stem, suffix in map(os.path.splitext, names)
        if suffix.lower() in IMAGE_SUFFIXES and stem[0] != "."
    ]
    return {stem: folder / (stem + suffix) for _, stem, suffix in sorted(ranked, reverse=True)}


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


def read_shapes(paths: PathLike | Iterable[PathLike]) -> npt.NDArray[np.float64]:
    """Read only the points, as one array.

    Parameters
    ----------
    paths : path, or iterable of paths
        Each a file, a folder or a glob pattern (``"train/*.pts"``; ``**`` crosses folders).

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
    files = [file for one in given for file in _expand(one)]
    if not files:
        raise FileNotFoundError("got no paths to read shapes from")
    shapes: list[npt.NDArray[np.float64]] = []
    for file in files:
        for annotation in _read_file(file):
            if shapes and annotation.points.shape != shapes[0].shape:
                raise ValueError(
                    f"{file} has {_describe(annotation.points)}, but {files[0]} has "
                    f"{_describe(shapes[0])}; shapes of one array must have equally many"
                )
            shapes.append(annotation.points)
    return np.stack(shapes)


def _expand(path: PathLike) -> Iterator[Path]:
    pattern = os.fspath(path)
    if Path(pattern).exists() or not glob.has_magic(pattern):
        yield from _files_of(Path(pattern))
        return
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  # pathlib refuses absolute patterns
    if not matches:
        raise FileNotFoundError(f"{pattern}: no file matches this pattern")
    for match in matches:
        yield from _files_of(Path(match))


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


def write(path: PathLike, annotations: Iterable[Annotation]) -> None:
    """Write annotations to a file, or to a folder of ``.pts`` files.

    Parameters
    ----------
    path : path
        Its suffix chooses the format (``.pts`` for one annotation, ``.txt`` for a WFLW list). An
        existing folder, or a path without suffix, gets one ``<name>.pts`` for each annotation.
    annotations : iterable of Annotation
        Points are kept to the last digit; what a format cannot hold (a box in ``.pts``) is left
        out.

    Raises
    ------
    ValueError
        When there is nothing to write, the format cannot hold the annotations, or two of them
        would become one file.
    """
    path, listed = Path(path), list(annotations)
    if not listed:
        raise ValueError(f"{path}: got no annotations to write")
    if path.is_dir() or not path.suffix:
        for name, annotation in _file_names(path, listed).items():
            pts.write(path / f"{name}.pts", [annotation])
    else:
        _format_of(path).write(path, listed)


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
