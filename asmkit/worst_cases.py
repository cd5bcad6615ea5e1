"""The worst answers side by side, on a contact sheet: what was annotated, what was found.

It takes any images and landmarks, and needs no more than asmkit itself.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from asmkit._check import Floats, as_shapes
from asmkit._drawing import SHIFT, fixed
from asmkit.boxes import apply_affine, crop_transform, landmark_box
from asmkit.images import as_image, crop, read_image
from asmkit.packed_image import PackedImage
from asmkit.schemes import Contour

__all__ = ["PICTURE", "Cell", "draw_worst_cases", "lay_out"]

Image = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

#: Side of the picture in a cell, in pixels.
PICTURE = 272
_GAP = 10
_CAPTION = 46
_HEADER = 64
_MARGIN = 1.25
#: A point that was found further outside the true box than this share of it may leave the picture.
_REACH = 0.4

_GROUND: Colour = (24, 24, 24)
#: Where a picture reaches beyond its image.
_BEYOND: Colour = (52, 52, 52)
_TEXT: Colour = (255, 255, 255)
_DIM: Colour = (200, 200, 200)
# Green and magenta differ in brightness as well as in hue, on skin and on grey.
_TRUE: Colour = (90, 255, 120)
_FOUND: Colour = (255, 60, 220)
_AWAY: Colour = (255, 225, 90)
_BOX: Colour = (120, 190, 255)
_MISSED: Colour = (255, 110, 90)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SIZE = 0.5


@dataclass(frozen=True)
class Cell:
    """One case on the sheet.

    Attributes
    ----------
    case : int
        Its number among all cases.
    x, y : int
        Top left pixel of its picture, which has :data:`PICTURE` pixels a side; two lines of text
        stand below.
    error : str
        As written there: in per cent, or ``"missed"``.
    name : str
    """

    case: int
    x: int
    y: int
    error: str
    name: str


def lay_out(
    errors: npt.ArrayLike, names: Sequence[str], count: int = 24, columns: int = 6
) -> list[Cell]:
    """Choose the cases with the largest errors and give each its place, row by row.

    Parameters
    ----------
    errors : array_like (n,)
        Fractions; infinite for a case that was not found, which comes first. Equal errors stay in
        their order.
    names : sequence of str, length n
    count : int
        Cells at most.
    columns : int
        Cells in a row.

    Returns
    -------
    list of Cell

    Raises
    ------
    ValueError
        When there is no case, an error is NaN or negative, or a number is below 1.
    """
    values = np.asarray(errors, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"errors: got shape {values.shape}, expected (n,) with n at least 1")
    if not (values >= 0).all():
        raise ValueError("errors: hold NaN or negative values; a case not found has the error inf")
    if len(names) != len(values):
        raise ValueError(f"names: got {len(names)}, expected one for each of {len(values)} errors")
    if count < 1 or columns < 1:
        raise ValueError(f"got count {count} and columns {columns}, expected both at least 1")
    cells = []
    for place, case in enumerate(np.argsort(-values, kind="stable")[:count].tolist()):
        row, column = divmod(place, columns)
        x = _GAP + column * (PICTURE + _GAP)
        y = _HEADER + row * (PICTURE + _CAPTION + _GAP)
        error = f"{100 * values[case]:.2f} %" if np.isfinite(values[case]) else "missed"
        cells.append(Cell(case, x, y, error, names[case]))
    return cells


def draw_worst_cases(
    images: Sequence[str | os.PathLike[str] | PackedImage | npt.ArrayLike],
    truth: npt.ArrayLike,
    found: npt.ArrayLike,
    errors: npt.ArrayLike,
    names: Sequence[str] | None = None,
    *,
    count: int = 24,
    columns: int = 6,
    contours: Sequence[Contour] = (),
    boxes: npt.ArrayLike | None = None,
    title: str | None = None,
) -> Image:
    """Draw the cases with the largest errors on a contact sheet, the largest first.

    A picture is cropped around the true landmarks and those found; points found further away than
    0.4 of the true box's longer side may lie outside. A thin line joins each true point to the one
    found for it.

    Parameters
    ----------
    images : sequence of path or array (h, w, 3) or (h, w) uint8, length n
        RGB or grey. Files are read only where they are shown.
    truth, found : array_like (n, n_points, 2)
        In pixels of the images. Missing (NaN) points are left out.
    errors : array_like (n,)
        Fractions, such as :attr:`asmkit.Evaluation.nme`; infinite for a case that was not found.
    names : sequence of str, optional
        By default the numbers. Text is drawn in ASCII; of a long name the middle is left out.
    count, columns : int
        See :func:`lay_out`.
    contours : sequence of Contour
        Lines through the landmarks, as ``asmkit.scheme(name).contours``.
    boxes : array_like (n, 4), optional
        Boxes that were looked into, to be drawn; NaN where there is none.
    title : str, optional
        First line of the sheet.

    Returns
    -------
    ndarray (h, w, 3) uint8
        For :func:`asmkit.images.write_image`.

    Raises
    ------
    ValueError, TypeError
        When there is no case, the lengths differ, an image is none, or all true points of a case
        that is shown are missing or equal.
    """
    true = as_shapes(truth, "truth", n_dims=2, allow_nan=True).astype(np.float64)
    guessed = as_shapes(found, "found", n_points=true.shape[1], n_dims=2, allow_nan=True)
    n = len(true)
    looked = np.full((n, 4), np.nan) if boxes is None else np.asarray(boxes, dtype=np.float64)
    if not len(images) == len(guessed) == len(looked) == n:
        raise ValueError(
            f"got {len(images)} images, {n} true shapes, {len(guessed)} found and {len(looked)} "
            "boxes, expected as many of each"
        )
    cells = lay_out(errors, [str(i) for i in range(n)] if names is None else names, count, columns)
    if np.shape(errors) != (n,):
        raise ValueError(f"errors: got shape {np.shape(errors)}, expected ({n},)")
    legend = [("annotated", _TRUE), ("found", _FOUND)]
    if boxes is not None:
        legend.append(("box", _BOX))
    sheet = _blank(cells, sum(_width(text) + _INDENT for text, _ in legend))
    room = sheet.shape[1] - 2 * _GAP
    _write(sheet, title or f"the {len(cells)} largest of {n} errors", _GAP, 24, _TEXT, room)
    x = _GAP
    for text, colour in legend:
        cv2.circle(sheet, (x + 6, 46), 5, colour, -1, cv2.LINE_AA)
        _write(sheet, text, x + 18, 51, _DIM, room)
        x += _width(text) + _INDENT
    for cell in cells:
        case = cell.case
        picture = _picture(
            _pixels(images[case]),
            true[case],
            guessed[case].astype(np.float64),
            contours,
            looked[case],
            cell.name,
        )
        missed = cell.error == "missed"
        sheet[cell.y : cell.y + PICTURE, cell.x : cell.x + PICTURE] = picture
        under = cell.y + PICTURE
        _write(sheet, cell.error, cell.x, under + 17, _MISSED if missed else _TEXT, PICTURE)
        _write(sheet, cell.name, cell.x, under + 36, _DIM, PICTURE)
    return sheet


#: Around the text of an entry of the legend: a dot before, a space behind.
_INDENT = 42


def _blank(cells: Sequence[Cell], legend: int) -> Image:
    width = max(max(cell.x for cell in cells) + PICTURE, _GAP + legend) + _GAP
    height = max(cell.y for cell in cells) + PICTURE + _CAPTION
    return np.full((height, width, 3), _GROUND, np.uint8)


def _pixels(image: str | os.PathLike[str] | PackedImage | npt.ArrayLike) -> Image:
    if isinstance(image, str | os.PathLike | PackedImage):
        return read_image(image)
    array = np.asarray(image)
    return as_image(np.stack([array] * 3, axis=-1) if array.ndim == 2 else array)


def _picture(
    image: Image,
    true: Doubles,
    found: Doubles,
    contours: Sequence[Contour],
    box: Doubles,
    name: str,
) -> Image:
    matrix = _crop_around(true, found, name)
    picture = crop(image, matrix, PICTURE)
    picture[_beyond(image, matrix)] = _BEYOND
    if np.isfinite(box).all():
        first, last = fixed(apply_affine(matrix, [box[:2], box[:2] + box[2:]])).tolist()
        cv2.rectangle(picture, first, last, _BOX, 1, cv2.LINE_AA, SHIFT)
    shapes = {_TRUE: apply_affine(matrix, true), _FOUND: apply_affine(matrix, found)}
    for start, end in zip(*shapes.values(), strict=True):
        if np.isfinite([start, end]).all():
            _line(picture, np.stack([start, end]), _AWAY)
    for colour, shape in shapes.items():
        for contour in contours:
            joined = shape[[*contour.indices, *contour.indices[: int(contour.closed)]]]
            if np.isfinite(joined).all():
                _line(picture, joined, colour)
    for colour, shape in shapes.items():
        for point in fixed(shape[np.isfinite(shape).all(axis=1)]).tolist():
            cv2.circle(picture, point, 2 << SHIFT, colour, -1, cv2.LINE_AA, SHIFT)
    return picture


def _beyond(image: Image, matrix: Doubles) -> npt.NDArray[np.bool_]:
    """Pixels of a picture that show nothing of the image, whose border would be smeared there."""
    height, width = image.shape[:2]
    first, last = apply_affine(matrix, [[-0.5, -0.5], [width - 0.5, height - 0.5]])
    at = np.arange(PICTURE)[:, None]
    inside = ((at >= first) & (at <= last)).T
    beyond: npt.NDArray[np.bool_] = ~(inside[1][:, None] & inside[0])
    return beyond


def _crop_around(true: Doubles, found: Doubles, name: str) -> Doubles:
    box = landmark_box(true)
    side = box[2:].max()
    if not side > 0:
        raise ValueError(
            f"{name}: all true points are missing (NaN) or equal, so there is nothing to crop "
            "around; leave this case out"
        )
    seen = np.concatenate([true, found])
    reach = _REACH * side
    low = np.maximum(np.nanmin(seen, axis=0), box[:2] - reach)
    high = np.minimum(np.nanmax(seen, axis=0), box[:2] + box[2:] + reach)
    matrix: Doubles = crop_transform(np.concatenate([low, high - low]), PICTURE, _MARGIN)[0]
    return matrix


def _line(picture: Image, points: Floats, colour: Colour) -> None:
    cv2.polylines(picture, [fixed(points)], False, colour, 1, cv2.LINE_AA, SHIFT)


def _write(sheet: Image, text: str, x: int, y: int, colour: Colour, room: int) -> None:
    cv2.putText(sheet, _fitting(text, room), (x, y), _FONT, _SIZE, colour, 1, cv2.LINE_AA)


def _width(text: str) -> int:
    return int(cv2.getTextSize(text, _FONT, _SIZE, 1)[0][0])


def _fitting(text: str, room: int) -> str:
    """The text as OpenCV can draw it, in ASCII, without its middle where it is too wide."""
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    plain = "".join(letters).encode("ascii", "replace").decode()
    shown, kept = plain, len(plain)
    while _width(shown) > room and kept:
        kept -= 1
        shown = f"{plain[: (kept + 1) // 2]}...{plain[len(plain) - kept // 2 :]}"
    return shown
