"""The errors of an evaluation, face by face, in a table for other programs."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from asmkit._files import replacing
from asmkit.annotations import Annotation
from asmkit.evaluation import Evaluation

__all__ = ["check_table_suffix", "write_errors"]


def check_table_suffix(path: str | os.PathLike[str]) -> None:
    """Check that a path ends in ``.csv``.

    Raises
    ------
    ValueError
        When it does not.
    """
    if Path(path).suffix.lower() != ".csv":
        raise ValueError(f"{path}: a table of errors is a .csv file; choose a name that says so")


def write_errors(
    path: str | os.PathLike[str],
    evaluations: Mapping[str, Evaluation],
    annotations: Sequence[Annotation],
) -> None:
    """Write the error of each face as CSV, one row for each network and face.

    The columns are ``network, name, image, normalizer, nme_percent``, then ``<part>_percent`` for
    each named part of the scheme, then ``x, y, width, height`` of the box that was looked into.
    Errors are in per cent of the normalizing distance, to the last digit. The error of a missed
    face is ``inf``, its box empty; so is the error of a part whose truth is missing.

    Parameters
    ----------
    path : path
        Ends in ``.csv``. UTF-8.
    evaluations : mapping of str to Evaluation
        Label of a network → what :func:`asmkit.evaluate` gave for it on ``annotations``.
    annotations : sequence of Annotation

    Raises
    ------
    ValueError
        For another suffix, no evaluation, or one of another number of faces.
    OSError
        When the file cannot be written.
    """
    check_table_suffix(path)
    if not evaluations:
        raise ValueError("evaluations: got none, expected at least one label with its evaluation")
    for label, evaluation in evaluations.items():
        if len(evaluation.nme) != len(annotations):
            raise ValueError(
                f"{label}: evaluated on {len(evaluation.nme)} faces, but there are "
                f"{len(annotations)} annotations; expected those that were evaluated"
            )
    parts = list(dict.fromkeys(part for e in evaluations.values() for part in e.nme_by_group))
    with (
        replacing(path) as temporary,
        # A name that is not UTF-8 keeps its bytes.
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(
            ["network", "name", "image", "normalizer", "nme_percent"]
            + [f"{part}_percent" for part in parts]
            + ["x", "y", "width", "height"]
        )
        for label, evaluation in evaluations.items():
            for row, annotation in enumerate(annotations):
                groups = evaluation.nme_by_group
                errors = [groups[part][row] if part in groups else math.nan for part in parts]
                table.writerow(
                    [label, annotation.name, annotation.image or ""]
                    + [evaluation.summary["normalizer"], _field(100 * evaluation.nme[row])]
                    + [_field(100 * error) for error in errors]
                    + [_field(value) for value in evaluation.boxes[row]]
                )


def _field(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))
