"""What writers check, and files that appear together or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from asmkit._files import replacing
from asmkit.annotations._annotation import Annotation

__all__ = [
    "check_complete",
    "check_dimensions",
    "check_equal_counts",
    "missing_points",
    "only_one",
    "write_files",
]


def only_one(path: Path, annotations: list[Annotation]) -> Annotation:
    """The annotation of a format that holds one in a file."""
    if len(annotations) != 1:
        raise ValueError(
            f"{path}: got {len(annotations)} annotations, but a {path.suffix} file holds exactly "
            "one; give a folder to write one file for each"
        )
    return annotations[0]


def missing_points(annotation: Annotation) -> npt.NDArray[np.bool_]:
    """Which points ``(n_points,)`` lack a coordinate."""
    return np.asarray(np.isnan(annotation.points).any(axis=1))


def check_complete(annotation: Annotation, format_name: str) -> None:
    """Refuse missing points, where the format has no way to say so."""
    missing = np.flatnonzero(missing_points(annotation))
    if missing.size:
        raise ValueError(
            f"annotation {annotation.name!r}: {missing.size} points are missing, the first is "
            f"number {missing[0]}, and {format_name} cannot say so; complete the shape "
            "(ShapeModel.complete), leave the annotation out, or write .pts or .csv"
        )


def check_dimensions(annotation: Annotation, n_dims: int, format_name: str) -> None:
    """Refuse points in other dimensions than the format's."""
    if annotation.points.shape[1] != n_dims:
        raise ValueError(
            f"annotation {annotation.name!r} has points of shape {annotation.points.shape}; "
            f"{format_name} holds {n_dims}-D points: write another format"
        )


def check_equal_counts(annotations: list[Annotation], format_name: str) -> None:
    """Refuse annotations of different shapes, where the format has one for all."""
    first = annotations[0]
    for annotation in annotations:
        if annotation.points.shape != first.points.shape:
            raise ValueError(
                f"annotation {annotation.name!r} has points of shape {annotation.points.shape}, "
                f"but {first.name!r} has {first.points.shape}; {format_name} needs them equal"
            )


def write_files(folder: Path, files: Mapping[str, bytes], *, durable: bool) -> None:
    """Write files into a folder; none takes its place before all are there."""
    with ExitStack() as together:
        for name, data in files.items():
            temporary = together.enter_context(replacing(folder / name, durable=durable))
            temporary.write_bytes(data)
