"""The sheet shows the largest errors, in order, each with its own image and points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asmkit.images import write_image
from asmkit.schemes import Contour
from asmkit.worst_cases import PICTURE, Cell, draw_worst_cases, lay_out

SQUARE = np.array([[20.0, 10.0], [40.0, 10.0], [40.0, 30.0], [20.0, 30.0]])
TRUE, FOUND = (90, 255, 120), (255, 60, 220)


def has_ink(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((pixels == colour).all(-1).any())


def picture(sheet: np.ndarray, cell: Cell) -> np.ndarray:
    return sheet[cell.y : cell.y + PICTURE, cell.x : cell.x + PICTURE]


def caption(sheet: np.ndarray, cell: Cell) -> np.ndarray:
    return sheet[cell.y + PICTURE : cell.y + PICTURE + 46, cell.x : cell.x + PICTURE]


@given(
    st.lists(st.sampled_from([0.0, 0.01, 0.02, 0.5, np.inf]), min_size=1, max_size=30),
    st.integers(1, 30),
    st.integers(1, 7),
)
def test_the_cells_are_the_largest_errors_in_order(
    errors: list[float], count: int, columns: int
) -> None:
    cells = lay_out(errors, [f"n{i}" for i in range(len(errors))], count, columns)
    by_error = sorted(range(len(errors)), key=lambda i: (-errors[i], i))
    assert [cell.case for cell in cells] == by_error[:count]
    assert [cell.name for cell in cells] == [f"n{i}" for i in by_error[:count]]
    in_reading_order = sorted(cells, key=lambda cell: (cell.y, cell.x))
    assert in_reading_order == cells
    assert len({cell.y for cell in cells}) == -(-len(cells) // columns)
    for one in cells:
        assert (one.error == "missed") == np.isinf(errors[one.case])
        for other in cells:
            apart = abs(one.x - other.x) >= PICTURE or abs(one.y - other.y) >= PICTURE + 40
            assert one is other or apart


def test_a_cell_says_the_error_in_per_cent() -> None:
    cells = lay_out([0.0325, np.inf, 0.4], ["a", "b", "c"])
    assert [cell.error for cell in cells] == ["missed", "40.00 %", "3.25 %"]


@pytest.mark.parametrize("grey", [False, True])
def test_each_cell_shows_its_own_case(grey: bool, tmp_path: Path) -> None:
    shades = [40, 90, 140]
    shape = (50, 60) if grey else (50, 60, 3)
    images: list[object] = [np.full(shape, shade, np.uint8) for shade in shades]
    write_image(tmp_path / "b.png", np.full((50, 60, 3), shades[1], np.uint8))
    images[1] = tmp_path / "b.png"
    found = np.stack([SQUARE, SQUARE + 2, np.full((4, 2), np.nan)])
    errors, names = [0.0, 0.1, np.inf], ["a", "b", "c"]
    sheet = draw_worst_cases(images, [SQUARE] * 3, found, errors, names, columns=2)  # type: ignore[arg-type]  # a list of both kinds
    cells = lay_out(errors, names, columns=2)
    assert [cell.case for cell in cells] == [2, 1, 0]
    for cell in cells:
        shown = picture(sheet, cell)
        assert (shown[2, 2] == shades[cell.case]).all()
        assert has_ink(shown, FOUND) == (cell.error != "missed")
        red, _, blue = np.moveaxis(caption(sheet, cell).astype(int), -1, 0)
        assert ((red - blue).max() > 60) == (cell.error == "missed")
    assert has_ink(picture(sheet, cells[0]), TRUE)
    assert has_ink(picture(sheet, cells[1]), TRUE)


def test_points_are_drawn_where_they_are() -> None:
    """Up to the scale and place of the crop, which the corners of the true square tell."""
    image, found = np.full((300, 300, 3), 60, np.uint8), 5 * SQUARE.copy()
    found[0] += [25, 50]
    sheet = draw_worst_cases([image], [5 * SQUARE], [found], [0.2])
    shown = picture(sheet, lay_out([0.2], ["0"])[0]).astype(int)
    # Only the first true point is free: the others lie under those found.
    true = np.argwhere((shown == TRUE).all(2))[:, ::-1].mean(0)
    found_at = np.argwhere((shown == FOUND).all(2))[:, ::-1]
    scale = PICTURE / (1.25 * 100)
    middle = (PICTURE - 1) / 2
    np.testing.assert_allclose(true, middle - 50 * scale, atol=0.6)
    first = found_at[(found_at < middle + 40).all(1)].mean(0)
    np.testing.assert_allclose(first - true, scale * np.array([25, 50]), atol=1)


def test_beyond_the_border_there_is_nothing_of_the_image() -> None:
    """The true square reaches from the left edge of the image to half its width."""
    image = np.full((100, 100, 3), 200, np.uint8)
    points = np.array([[0.0, 30.0], [50.0, 80.0]])
    sheet = draw_worst_cases([image], [points], [points], [0.2])
    shown = picture(sheet, lay_out([0.2], ["0"])[0])
    edge = (PICTURE - 1) / 2 - 25.5 * PICTURE / (1.25 * 50)
    lit = (shown[4, :, 0] == 200).nonzero()[0]
    assert (lit.min(), lit.max()) == (int(np.ceil(edge)), PICTURE - 1)
    assert (shown[:, : lit.min()] != 200).all()


def test_lines_and_boxes_are_drawn_when_given() -> None:
    image, errors = np.full((60, 60, 3), 60, np.uint8), [0.2]
    plain = draw_worst_cases([image], [SQUARE], [SQUARE + 1], errors)
    contour = Contour((0, 1, 2, 3), closed=True)
    joined = draw_worst_cases([image], [SQUARE], [SQUARE + 1], errors, contours=[contour])
    boxed = draw_worst_cases([image], [SQUARE], [SQUARE + 1], errors, boxes=[[18, 8, 24, 24]])
    cell = lay_out(errors, ["0"])[0]
    assert (picture(joined, cell) != picture(plain, cell)).any()
    assert (picture(boxed, cell) != picture(plain, cell)).any()
    unboxed = draw_worst_cases([image], [SQUARE], [SQUARE + 1], errors, boxes=[[np.nan] * 4])
    np.testing.assert_array_equal(picture(unboxed, cell), picture(plain, cell))


@pytest.mark.parametrize("name", ["n" * 300, "Jürgen_日本", "a\nb", ""])
def test_no_name_leaves_its_cell(name: str) -> None:
    image = np.full((60, 60, 3), 60, np.uint8)
    arguments = ([image] * 2, [SQUARE] * 2, [SQUARE + 1] * 2, [0.2, 0.1])
    named = draw_worst_cases(*arguments, [name, "x"])
    other = draw_worst_cases(*arguments, ["y", "x"])
    at = np.argwhere((named != other).any(2))[:, ::-1]
    cell = lay_out([0.2, 0.1], ["a", "b"])[0]
    assert len(at)
    assert (at[:, 0] >= cell.x).all()
    assert (at[:, 0] < cell.x + PICTURE).all()
    assert (at[:, 1] >= cell.y + PICTURE + 18).all()


def test_what_cannot_be_shown_is_refused() -> None:
    image = np.full((60, 60, 3), 60, np.uint8)
    with pytest.raises(ValueError, match="n at least 1"):
        lay_out([], [])
    with pytest.raises(ValueError, match="NaN"):
        lay_out([0.1, np.nan], ["a", "b"])
    with pytest.raises(ValueError, match="names: got 1"):
        lay_out([0.1, 0.2], ["a"])
    with pytest.raises(ValueError, match="count 0"):
        lay_out([0.1], ["a"], count=0)
    with pytest.raises(ValueError, match="2 images, 1 true"):
        draw_worst_cases([image] * 2, [SQUARE], [SQUARE], [0.1])
    with pytest.raises(ValueError, match=r"errors: got shape \(2,\)"):
        draw_worst_cases([image], [SQUARE], [SQUARE], [0.1, 0.2], ["a", "b"])
    with pytest.raises(ValueError, match="face7: all true points"):
        draw_worst_cases([image], [SQUARE * 0], [SQUARE], [0.1], ["face7"])
    with pytest.raises(TypeError, match="uint8"):
        draw_worst_cases([image / 255], [SQUARE], [SQUARE], [0.1])
