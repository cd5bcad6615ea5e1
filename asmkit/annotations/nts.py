"""NTSYS matrices of landmarks, ``.nts`` and ``.dta``: many specimens of equally many points.

As Landmark Editor (``.dta``) and NTSYSpc write them (Rohlf, NTSYSpc; morphops ``read_dta``) ::

    ' a comment
    1 2L 36 1 9999 DIM=3      matrix type, rows (L: with labels), columns, missing 9999, dimensions
    first second              the labels of the rows
    1.5 2 3                   the numbers, row by row: x0 y0 z0 x1 …
    …

The numbers are taken as they are: the format does not say which way y points. The label of a
specimen is ``attributes["specimen"]``.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from asmkit.annotations._annotation import Annotation, annotation_read
from asmkit.annotations._reading import DEFAULTS, ReadOptions, image_name
from asmkit.annotations._text import (
    check_number_of_annotations,
    encoded,
    first_bytes,
    numbers,
    read_text,
    written_numbers,
)
from asmkit.annotations._writing import check_equal_counts
from asmkit.errors import FormatError

__all__ = ["encode", "read", "sniff"]

_HEADER = re.compile(
    r"1\s+(?P<rows>\d{1,9})(?P<labelled>L?)\s+(?P<columns>\d{1,9})(?P<named>L?)\s+"
    r"(0|1\s+(?P<missing>\S+))\s+DIM\s*=\s*(?P<dims>[23])\s*",
    re.IGNORECASE | re.ASCII,
)
_COMMENTS = ("'", '"')
_MISSING = 9999.0


def sniff(path: Path) -> bool:
    """Whether the first line that is no comment looks like a header (Stata's .dta does not)."""
    lines = first_bytes(path).decode("utf-8", errors="replace").splitlines()
    content = (line.strip() for line in lines)
    first = next((line for line in content if line and not line.startswith(_COMMENTS)), "")
    return _HEADER.fullmatch(first) is not None


def read(path: Path, options: ReadOptions = DEFAULTS) -> list[Annotation]:
    """Read a ``.nts`` or ``.dta`` file; a specimen is an annotation.

    Raises
    ------
    FormatError
        When the file is damaged.
    """
    lines = (line.strip() for line in read_text(path, options.limit()).split("\n"))
    content = [line for line in lines if line and not line.startswith(_COMMENTS)]
    header = _HEADER.fullmatch(content[0]) if content else None
    if header is None:
        shown = content[0][:40] if content else ""
        raise FormatError(
            f"{path}: the header is {shown!r}; expected '1 <specimens>L <numbers> 1 9999 DIM=3'"
        )
    n_rows, n_columns, n_dims = (int(header[key]) for key in ("rows", "columns", "dims"))
    fields = [field for line in content[1:] for field in line.split()]
    n_labels = n_rows if header["labelled"] else 0
    skipped = n_labels + (n_columns if header["named"] else 0)
    # Compared before anything is made of the sizes that the file claims.
    if len(fields) != skipped + n_rows * n_columns or n_columns % n_dims or not n_rows * n_columns:
        raise FormatError(
            f"{path}: {len(fields)} fields follow the header; expected {n_labels} labels (without "
            f"blanks) and {n_rows} x {n_columns} numbers, {n_dims} a point"
        )
    check_number_of_annotations(path, n_rows, options.limit())
    values = numbers(fields[skipped:], str(path))
    if header["missing"]:
        values[values == numbers([header["missing"]], f"{path}, header")[0]] = np.nan
    shapes = values.reshape(n_rows, -1, n_dims)
    return [_annotation(path, i, shapes[i], fields[:n_labels]) for i in range(n_rows)]


def _annotation(
    path: Path, index: int, points: npt.NDArray[np.float64], labels: list[str]
) -> Annotation:
    return annotation_read(
        str(path),
        points,
        name=f"{path.stem}:{index + 1}",
        attributes={"specimen": labels[index]} if labels else {},
    )


def encode(path: Path, annotations: list[Annotation]) -> bytes:
    """Annotations with full precision; blanks and quotes in a label become ``_``.

    Raises
    ------
    ValueError
        When two annotations differ in the number of points or dimensions.
    """
    check_equal_counts(annotations, f"a {path.suffix} file")
    n_points, n_dims = annotations[0].points.shape
    shapes = np.stack([face.points for face in annotations])
    mark = _MISSING
    while (shapes == mark).any():
        mark = 10 * mark + 9  # 99999, …: some number of nines is no coordinate
    lines = [f"1 {len(annotations)}L {n_points * n_dims} 1 {mark!r} DIM={n_dims}"]
    lines += [re.sub(r"[\s'\"]+", "_", _label(path, face)) or "_" for face in annotations]
    filled = np.where(np.isnan(shapes), mark, shapes).reshape(-1, n_dims)
    lines += [" ".join(written_numbers(row)) for row in filled]
    return encoded("\n".join(lines) + "\n", path)


def _label(path: Path, face: Annotation) -> str:
    given = face.attributes.get("specimen")
    if isinstance(given, str):
        return given
    name = image_name(path, face)
    return Path(name).stem if name else face.name
