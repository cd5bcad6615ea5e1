"""Pictures show what they are given, and drawing never changes its input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import asmkit
from asmkit.images import read_image
from asmkit.plotting import (
    contact_sheet,
    draw_landmarks,
    draw_prediction,
    plot_ced,
    plot_modes,
    plot_training,
    save_figure,
)
from asmkit.predictor import Prediction
from asmkit.schemes import Contour

GREY = np.full((60, 80, 3), 90, np.uint8)
SQUARE = np.array([[20.0, 10.0], [40.0, 10.0], [40.0, 30.0], [20.0, 30.0]])


@pytest.fixture(scope="module")
def model() -> asmkit.ShapeModel:
    return asmkit.ShapeModel(5).fit(asmkit.datasets.synthetic_faces(12, 0, size=32).points)


def changed(image: np.ndarray, before: np.ndarray = GREY) -> np.ndarray:
    """Rows and columns (x, y) of the pixels that differ."""
    return np.argwhere((image != before).any(2))[:, ::-1]


# -- figures


@pytest.mark.parametrize("n_modes", [1, 3, 99])
def test_each_drawn_mode_has_a_row_with_the_mean_in_the_middle(
    model: asmkit.ShapeModel, n_modes: int
) -> None:
    figure = plot_modes(model, n_modes, deviations=2.0)
    rows = min(n_modes, 5)
    assert len(figure.axes) == 5 * rows
    for axis in figure.axes[2::5]:
        mean, shape = axis.lines[0], axis.lines[len(axis.lines) // 2]
        np.testing.assert_allclose(shape.get_xydata(), mean.get_xydata(), atol=1e-12)
    last = figure.axes[4]
    expected = model.inverse_transform(2 * np.sqrt(model.explained_variance_) * np.eye(5)[0])
    drawn = last.lines[len(last.lines) // 2].get_xydata()
    np.testing.assert_allclose(drawn, expected, atol=1e-12)
    assert all(axis.yaxis_inverted() for axis in figure.axes)


def test_modes_of_shapes_in_space_are_drawn_flat(rng: np.random.Generator) -> None:
    bones = rng.normal(size=(1, 9, 3)) + 0.1 * rng.normal(size=(20, 9, 3))
    assert len(plot_modes(asmkit.ShapeModel(2).fit(bones)).axes) == 10


def test_no_mode_is_refused(model: asmkit.ShapeModel) -> None:
    with pytest.raises(ValueError, match="n_modes: got 0"):
        plot_modes(model, 0)


def test_a_curve_is_the_share_of_faces_below_each_error() -> None:
    errors = [0.01, 0.03, 0.05, np.inf]
    figure = plot_ced({"this": errors, "that": [0.5]}, threshold=0.06)
    this, that = (line.get_xydata() for line in figure.axes[0].lines)
    for x, y in this:
        assert y == 25 * sum(100 * error <= x for error in errors)
    assert not that[:, 1].any()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    # (0.05 + 0.03 + 0.01) / 4 / 0.06 of the area; one face in four beyond
    assert labels == ["this (AUC 0.375, FR 25.0 %)", "that (AUC 0.000, FR 100.0 %)"]
    steps = [[0, 0], [1, 25], [3, 50], [5, 75], [6, 75]]
    np.testing.assert_allclose(this, steps, rtol=1e-12)
    assert {line.get_drawstyle() for line in figure.axes[0].lines} == {"steps-post"}


def test_baselines_are_drawn_apart_from_the_curves() -> None:
    figure = plot_ced(
        {"net": [0.01]}, baselines={"mean": [0.02]}, normalizer="box-size", threshold=0.04
    )
    net, mean = figure.axes[0].lines
    assert (net.get_linestyle(), mean.get_linestyle()) == ("-", "--")
    assert net.get_color() != mean.get_color() == "0.5"
    assert figure.axes[0].get_xlabel().endswith("box-size")
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["net (AUC 0.750, FR 0.0 %)", "mean (AUC 0.500, FR 0.0 %)"]


def test_no_curve_and_no_face_are_refused() -> None:
    with pytest.raises(ValueError, match="curves: got none"):
        plot_ced({})
    with pytest.raises(ValueError, match=r"nme: got shape \(0,\)"):
        plot_ced({"a": []})


def test_training_curves_hold_every_epoch_and_skip_terms_without_labels() -> None:
    rows = [{"epoch": e, "points": 1 / e, "asm": 2 / e, "pose": 0.0} for e in (1, 2, 3)]
    rows[1]["nme"] = 7.5
    losses, errors = plot_training(rows).axes
    assert [line.get_label() for line in losses.lines] == ["points", "asm"]
    np.testing.assert_array_equal(losses.lines[0].get_xydata(), [[1, 1], [2, 1 / 2], [3, 1 / 3]])
    np.testing.assert_array_equal(errors.lines[0].get_xydata(), [[2, 7.5]])
    with pytest.raises(ValueError, match="history: got no rows"):
        plot_training([])


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_figures_are_saved_whole_or_not_at_all(tmp_path: Path, suffix: str) -> None:
    figure = plot_ced({"a": [0.01]})
    save_figure(figure, tmp_path / f"new/picture{suffix}")
    assert (tmp_path / f"new/picture{suffix}").stat().st_size > 1000
    with pytest.raises(ValueError, match="xyz"):
        save_figure(figure, tmp_path / "other/picture.xyz")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_saved_figure_is_a_picture(tmp_path: Path) -> None:
    save_figure(plot_ced({"a": [0.01, 0.02]}), tmp_path / "a.png")
    assert np.ptp(read_image(tmp_path / "a.png")) == 255


# -- drawings


def test_points_are_drawn_where_they_are() -> None:
    drawn = draw_landmarks(GREY, SQUARE)
    for x, y in SQUARE.astype(int):
        assert (drawn[y, x] == 255).all()
    at = changed(drawn)
    assert np.abs(at[:, None] - SQUARE).max(2).min(1).max() <= 2
    assert (GREY == 90).all()


def test_contours_join_their_points_and_closed_ones_come_back() -> None:
    colour = (10, 200, 30)
    opened = draw_landmarks(GREY, SQUARE, [Contour((0, 1, 2, 3), closed=False)], colour=colour)
    closed = draw_landmarks(GREY, SQUARE, [Contour((0, 1, 2, 3), closed=True)], colour=colour)
    for line in (opened[10, 30], closed[10, 30], closed[20, 20]):
        np.testing.assert_allclose(line.astype(int), colour, atol=15)  # its rim is mixed
    assert tuple(opened[20, 20]) == (90, 90, 90)


def test_missing_points_are_left_out() -> None:
    points = SQUARE.copy()
    points[1] = np.nan
    drawn = draw_landmarks(GREY, points, [Contour((0, 1, 2), closed=False)])
    assert tuple(drawn[10, 40]) == tuple(drawn[10, 30]) == (90, 90, 90)
    assert tuple(drawn[30, 40]) == (255, 255, 255)
    assert not len(changed(draw_landmarks(GREY, np.full((4, 2), np.nan))))


def test_points_far_outside_are_no_error() -> None:
    assert not len(changed(draw_landmarks(GREY, SQUARE + 1e9, [Contour((0, 1, 2), closed=True)])))


@pytest.mark.parametrize("points", [[[1.0, 2.0, 3.0]], [1.0, 2.0], [[np.inf, 1.0]]])
def test_what_is_no_set_of_points_is_refused(points: list[object]) -> None:
    with pytest.raises(ValueError, match="points"):
        draw_landmarks(GREY, points)  # type: ignore[arg-type]  # the mistake under test


def test_a_prediction_is_drawn_with_its_box_and_angles() -> None:
    box, angles = np.array([[20.0, 15.0, 20.0, 20.0]]), np.array([[10.0, -0.2, 3.0]])
    shape = SQUARE[None] + [0, 5]
    with_angles = draw_prediction(GREY, Prediction(shape, angles, box, np.ones(1)))
    without = draw_prediction(GREY, Prediction(shape, angles * np.nan, box, np.ones(1)))
    plain = draw_landmarks(GREY, shape[0])
    assert set(map(tuple, changed(without, plain))) <= {
        (x, y) for x in range(18, 43) for y in range(13, 38)
    }
    assert len(changed(with_angles, without)) > 50
    assert changed(with_angles, without)[:, 1].max() < 20  # above the face
    none = Prediction(np.empty((0, 4, 2)), np.empty((0, 3)), np.empty((0, 4)), np.empty(0))
    assert not len(changed(draw_prediction(GREY, none)))


@pytest.mark.parametrize(("n", "shape"), [(1, (4, 5)), (3, (4, 15)), (4, (8, 15)), (7, (12, 15))])
def test_a_contact_sheet_shows_every_image_in_order(n: int, shape: tuple[int, int]) -> None:
    images = [np.full((4, 5, 3), i + 1, np.uint8) for i in range(n)]
    sheet = contact_sheet(images, columns=3)
    assert sheet.shape == (*shape, 3)
    cells = sheet.reshape(shape[0] // 4, 4, -1, 5, 3)[:, 0, :, 0, 0].ravel()
    assert cells.tolist() == [*range(1, n + 1), *[0] * (len(cells) - n)]


def test_a_contact_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="images: got none"):
        contact_sheet([])
