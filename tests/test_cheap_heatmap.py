"""The heatmap is the nearness that its docstring says, and moves with the landmarks."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from asmkit.nn.cheap_heatmap import CheapHeatmap, contour_pieces

Doubles = npt.NDArray[np.float64]

SIZE = 8
FALLOFFS = ("inverse", "gaussian")
CONTOURS: dict[str, list[list[int]]] = {
    "points": [],
    "open line": [[0, 1, 2]],
    "closed line": [[0, 1, 2, 3, 0]],
    "lines and points": [[4, 2], [1, 3, 1]],
}
SHAPES = {
    "spread": [[-0.6, -0.5], [0.7, -0.3], [0.2, 0.8], [-0.4, 0.6], [0.05, 0.1]],
    "outside": [[-1.6, -0.5], [1.7, 0.3], [0.2, 2.8], [-0.4, 0.6], [3.0, 3.0]],
    "equal ends": [[0.3, 0.3], [0.3, 0.3], [-0.5, 0.1], [-0.5, 0.1], [-0.5, 0.1]],
}


def in_cells(points: Doubles) -> Doubles:
    """From -1 to 1 across the crop, to cells: whole numbers at their centres."""
    return (points + 1) * SIZE / 2 - 0.5


def distance_naive(at: Doubles, start: Doubles, end: Doubles) -> float:
    """From a point to a piece: to its line where the foot lies inside, else to the nearer end."""
    along = end - start
    length = math.hypot(*along)
    foot = (at - start) @ along / length if length else 0.0
    if 0 < foot < length:
        return float(abs(along[0] * (at - start)[1] - along[1] * (at - start)[0]) / length)
    return min(math.dist(at, start), math.dist(at, end))


def heat_naive(points: Doubles, pieces: list[tuple[int, int]], falloff: str) -> Doubles:
    heat = np.empty((SIZE, SIZE))
    cells = in_cells(points)
    for row in range(SIZE):
        for column in range(SIZE):
            at = np.array([column, row], float)
            d = min(distance_naive(at, cells[a], cells[b]) for a, b in pieces)
            heat[row, column] = 1 / (1 + d) if falloff == "inverse" else math.exp(-(d**2) / 2)
    return heat


def drawn(points: Doubles, contours: list[list[int]], falloff: str) -> Doubles:
    draw = CheapHeatmap(contour_pieces(contours, points.shape[-2]), SIZE, falloff).double()
    heat = draw(torch.from_numpy(points.reshape(-1, *points.shape[-2:])))
    return np.asarray(heat.numpy()).reshape(*points.shape[:-2], SIZE, SIZE)


@pytest.mark.parametrize("falloff", FALLOFFS)
@pytest.mark.parametrize("contours", CONTOURS.values(), ids=CONTOURS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_heat_is_that_of_the_plain_loops(
    shape: list[list[float]], contours: list[list[int]], falloff: str
) -> None:
    points = np.array(shape)
    expected = heat_naive(points, contour_pieces(contours, len(points)), falloff)
    # The guard of a piece without length makes the foot of a very short one inexact.
    np.testing.assert_allclose(drawn(points, contours, falloff), expected, atol=1e-6)


@pytest.mark.parametrize("falloff", FALLOFFS)
@pytest.mark.parametrize("contours", CONTOURS.values(), ids=CONTOURS)
def test_heat_moves_with_the_landmarks_by_whole_cells(
    contours: list[list[int]], falloff: str
) -> None:
    points = np.array(SHAPES["spread"])
    heat = drawn(points, contours, falloff)
    moved = drawn(points + np.array([2, 1]) * 2 / SIZE, contours, falloff)
    np.testing.assert_allclose(moved[1:, 2:], heat[:-1, :-2], atol=1e-12)
    assert np.abs(moved - heat).max() > 0.1


@pytest.mark.parametrize("falloff", FALLOFFS)
@pytest.mark.parametrize("contours", CONTOURS.values(), ids=CONTOURS)
def test_heat_of_mirrored_or_transposed_landmarks_is_mirrored_or_transposed(
    contours: list[list[int]], falloff: str
) -> None:
    points = np.array(SHAPES["spread"])
    heat = drawn(points, contours, falloff)
    np.testing.assert_allclose(drawn(points * [-1, 1], contours, falloff), heat[:, ::-1])
    np.testing.assert_allclose(drawn(points[:, ::-1].copy(), contours, falloff), heat.T)


@pytest.mark.parametrize("falloff", FALLOFFS)
def test_heat_is_one_at_a_landmark_and_falls_with_the_distance(falloff: str) -> None:
    points = np.array([[1.0, 1.0]]) / SIZE  # the centre of cell 4, 4
    heat = drawn(points, [], falloff)
    assert heat[4, 4] == 1
    assert (np.diff(heat[4, 4:]) < 0).all()
    assert (heat > 0).all()
    reach = 1 / 2 if falloff == "inverse" else math.exp(-0.5)
    np.testing.assert_allclose([heat[3, 4], heat[5, 4], heat[4, 3], heat[4, 5]], reach)


@pytest.mark.parametrize("contours", CONTOURS.values(), ids=CONTOURS)
def test_a_batch_is_single(contours: list[list[int]]) -> None:
    points = np.array(list(SHAPES.values()))
    alone = np.stack([drawn(shape, contours, "inverse") for shape in points])
    np.testing.assert_array_equal(drawn(points, contours, "inverse"), alone)


def test_lines_never_cool_a_cell() -> None:
    points = np.array(SHAPES["spread"])
    lines = drawn(points, [[0, 1, 2, 3, 4]], "inverse")
    assert (lines >= drawn(points, [], "inverse") - 1e-12).all()


def test_pieces_join_neighbours_and_leave_nobody_out() -> None:
    assert contour_pieces([], 3) == [(0, 0), (1, 1), (2, 2)]
    assert contour_pieces([[0, 2, 1]], 4) == [(0, 2), (2, 1), (3, 3)]
    assert contour_pieces([[0, 1, 2, 0]], 3) == [(0, 1), (1, 2), (2, 0)]
    assert contour_pieces([[1]], 2) == [(0, 0), (1, 1)]  # a line of one point is a point


def test_nothing_of_it_is_learned_or_saved() -> None:
    draw = CheapHeatmap([(0, 1)], SIZE, "inverse")
    assert not list(draw.parameters())
    assert not draw.state_dict()


def test_what_cannot_be_drawn_is_named() -> None:
    with pytest.raises(ValueError, match="'box', expected 'inverse' or 'gaussian'"):
        CheapHeatmap([(0, 0)], SIZE, "box")
    for index in (3, -1):
        with pytest.raises(ValueError, match=f"landmark {index}, expected 0 to 2"):
            contour_pieces([[0, index]], 3)
