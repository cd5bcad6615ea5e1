"""Pictures: modes of a shape model, errors, training, reliability, landmarks on photos.

The ``plot_…`` functions give a matplotlib figure (``asmkit[plot]``) that no window knows of; the
``draw_…`` functions give an RGB image and need no more than asmkit itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from asmkit._check import as_points
from asmkit._drawing import SHIFT, fixed
from asmkit._extras import require
from asmkit._files import replacing
from asmkit.boxes import landmark_box
from asmkit.confidence import calibration_error, reliability
from asmkit.images import as_image
from asmkit.metrics import auc, ced, failure_rate
from asmkit.schemes import Contour, scheme_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from asmkit.model import ShapeModel
    from asmkit.predictor import Prediction
    from asmkit.quality import QualityCurve
    from asmkit.tracking import TrackedFrame

__all__ = [
    "check_figure_suffix",
    "contact_sheet",
    "draw_landmarks",
    "draw_prediction",
    "draw_tracks",
    "plot_ced",
    "plot_modes",
    "plot_quality",
    "plot_reliability",
    "plot_training",
    "save_figure",
]

Image = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

_LINE = (120, 230, 120)
_POINT = (255, 255, 255)
#: Of a landmark with confidence 0; between, a mixture.
_UNSURE = (255, 40, 40)
_BOX = (120, 190, 255)
#: Boxes of tracked faces take turns.
_IDENTITIES = (_BOX, (255, 190, 90), (210, 150, 255), (150, 230, 210), (255, 150, 160))
_RIM = (20, 20, 20)


def _figure(width: float, height: float) -> Figure:
    require("matplotlib", "plot")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure; the suffix chooses the format (``.png``, ``.pdf``, ``.svg``).

    Raises
    ------
    ValueError
        For a suffix that matplotlib cannot write.
    """
    check_figure_suffix(path)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def check_figure_suffix(path: str | os.PathLike[str]) -> None:
    """Check that :func:`save_figure` knows the format that the suffix names.

    Raises
    ------
    ValueError
        When it does not.
    MissingExtraError
        Without matplotlib.
    """
    suffix = Path(path).suffix
    formats = require("matplotlib.backend_bases", "plot").FigureCanvasBase.filetypes
    if suffix[1:].lower() not in formats:
        raise ValueError(f"{path}: no picture format has the suffix {suffix!r}; use .png or .pdf")


def plot_modes(model: ShapeModel, n_modes: int = 4, deviations: float = 3.0) -> Figure:
    """Draw the mean shape and each mode at ± ``deviations`` standard deviations.

    Parameters
    ----------
    model : ShapeModel
        A fitted 2-D model; of a 3-D model, x and y are drawn.
    n_modes : int
        The first modes; fewer where the model has fewer.
    deviations : float

    Returns
    -------
    matplotlib.figure.Figure
    """
    count = min(n_modes, model.n_components_)
    if count < 1:
        raise ValueError(f"n_modes: got {n_modes}, expected at least 1")
    steps = np.linspace(-deviations, deviations, 5)
    shapes = _mode_shapes(model, count, steps)
    width, height = np.ptp(shapes[..., :2].reshape(-1, 2), axis=0)
    figure = _figure(10, 0.4 + 2 * count * float(np.clip(height / width, 0.3, 3)))
    axes = figure.subplots(count, len(steps), squeeze=False, sharex=True, sharey=True)
    axes[0, 0].invert_yaxis()  # y points down; the axes share it
    known = scheme_of(len(model.mean_))
    contours = known.contours if known else ()
    for column, step in enumerate(steps):
        axes[0, column].set_title(f"{step:+.1f} σ" if step else "mean", fontsize=9)
        for row, shape in enumerate(shapes[:, column]):
            _plot_shape(axes[row, column], np.asarray(model.mean_), contours, "0.8")
            _plot_shape(axes[row, column], shape, contours, "tab:blue")
    for row, share in enumerate(100 * model.explained_variance_ratio_[:count]):
        axes[row, 0].set_ylabel(f"mode {row + 1}\n{share:.1f} %", fontsize=9)
    return figure


def _mode_shapes(model: ShapeModel, count: int, steps: Doubles) -> Doubles:
    """Shapes ``(count, n_steps, p, d)``: each mode at each number of deviations."""
    coefficients = np.zeros((count, len(steps), model.n_components_))
    for mode in range(count):
        coefficients[mode, :, mode] = steps * np.sqrt(model.explained_variance_[mode])
    return model.inverse_transform(coefficients).astype(np.float64)


def _plot_shape(axis: Axes, shape: Doubles, contours: Sequence[Contour], colour: str) -> None:
    size = 2 if contours else 4  # without lines, the points are all there is to see
    axis.plot(shape[:, 0], shape[:, 1], ".", color=colour, markersize=size)
    for contour in contours:
        line = shape[_closed(contour)]
        axis.plot(line[:, 0], line[:, 1], "-", color=colour, linewidth=1)
    axis.set_aspect("equal")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def _closed(contour: Contour) -> list[int]:
    indices = list(contour.indices)
    return [*indices, indices[0]] if contour.closed else indices


def plot_ced(
    curves: Mapping[str, npt.ArrayLike],
    threshold: float = 0.08,
    *,
    baselines: Mapping[str, npt.ArrayLike] | None = None,
    normalizer: str | None = None,
) -> Figure:
    """Draw cumulative error distributions, exactly: a step at every error.

    Parameters
    ----------
    curves : mapping of str to array_like (n,)
        Label → NME of each face as a fraction; infinite for a face that was not found.
    threshold : float
        Right end of the plot. The legend gives the area under each curve up to there (AUC) and the
        share of the faces beyond (FR), see :func:`asmkit.auc` and :func:`asmkit.failure_rate`.
    baselines : mapping of str to array_like (n,), optional
        The same of what the curves are compared with, drawn grey and dashed.
    normalizer : str, optional
        What divided the errors, for the horizontal axis.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        When there is no curve, or one has no error or holds NaN.
    """
    if not curves:
        raise ValueError("curves: got none, expected at least one label with its errors")
    compared = baselines or {}
    figure = _figure(6, 3.8 + 0.2 * (len(curves) + len(compared)))
    axis = figure.subplots()
    for label, errors in curves.items():
        _plot_steps(axis, label, errors, threshold)
    for number, (label, errors) in enumerate(compared.items()):
        dashes = (0, (4 + 3 * number, 2))
        _plot_steps(axis, label, errors, threshold, color="0.5", linestyle=dashes)
    axis.set_xlabel(f"normalised mean error, % of {normalizer or 'the normalising distance'}")
    axis.set_ylabel("faces, %")
    axis.set_xlim(0, 100 * threshold)
    axis.set_ylim(0, 100)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=8)
    return figure


def _plot_steps(
    axis: Axes, label: str, errors: npt.ArrayLike, threshold: float, **style: Any
) -> None:
    area, failures = auc(errors, threshold), failure_rate(errors, threshold)
    known = np.asarray(errors, dtype=np.float64)
    at = np.concatenate([[0.0], np.unique(known[known <= threshold]), [threshold]])
    text = f"{label} (AUC {area:.3f}, FR {100 * failures:.1f} %)"
    axis.step(100 * at, 100 * ced(known, at), where="post", label=text, **style)


#: What the vertical axes of :func:`plot_quality` say.
_MEASURES = {
    "compactness": "variance held",
    "generalization": "distance of unseen shapes",
    "specificity": "distance of drawn shapes",
}


def plot_quality(curves: Mapping[str, Sequence[QualityCurve]]) -> Figure:
    """Draw the quality of shape models against the number of modes, with standard errors.

    Parameters
    ----------
    curves : mapping of str to sequence of QualityCurve
        Label of a model → what :func:`asmkit.compactness`, :func:`asmkit.generalization` and
        :func:`asmkit.specificity` gave for it. Each measure has a panel; bands are ± 2 standard
        errors.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        When there is no curve.
    """
    present = {curve.measure for several in curves.values() for curve in several}
    measures = [name for name in _MEASURES if name in present]
    if not measures:
        raise ValueError("curves: got none, expected at least one label with a curve")
    figure = _figure(3.6 * len(measures), 3.6)
    panels = dict(zip(measures, figure.subplots(1, len(measures), squeeze=False)[0], strict=True))
    for number, (label, several) in enumerate(curves.items()):
        for curve in several:
            axis, colour = panels[curve.measure], f"C{number}"
            counts, values, band = curve.n_components, curve.values, 2 * curve.standard_errors
            axis.plot(counts, values, ".-", color=colour, label=label)
            axis.fill_between(counts, values - band, values + band, color=colour, alpha=0.2)
    for name, axis in panels.items():
        axis.set_title(name, fontsize=10)
        axis.set_ylabel(_MEASURES[name])
        axis.set_xlabel("modes")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    panels[measures[0]].legend(fontsize=8)
    return figure


def plot_reliability(
    curves: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]], bins: int = 10
) -> Figure:
    """Draw how often stated probabilities held against what was stated.

    Parameters
    ----------
    curves : mapping of str to (array_like, array_like)
        Label → confidences and whether each was right, as for :func:`asmkit.calibration_error`. A
        marker is the greater the more landmarks are in its bin; on the diagonal what is stated
        holds.
    bins : int

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = _figure(4.4, 4.4 + 0.2 * len(curves))
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], "-", color="0.7", linewidth=1)
    for number, (label, (confidence, correct)) in enumerate(curves.items()):
        found = reliability(confidence, correct, bins)
        error = calibration_error(confidence, correct, bins)
        held = found.number > 0
        x, y = found.stated[held], found.observed[held]
        axis.plot(x, y, "-", color=f"C{number}", label=f"{label} (error {100 * error:.1f} %)")
        share = found.number[held] / found.number.sum()
        axis.scatter(x, y, 10 + 150 * share, color=f"C{number}", alpha=0.7)
    axis.set_xlabel("stated probability")
    axis.set_ylabel("share that held")
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.set_aspect("equal")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=8)
    return figure


def plot_training(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the loss, its terms and the validation error of a training.

    Parameters
    ----------
    history : sequence of mapping
        The rows of ``log.jsonl``.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        When there is no row.
    """
    if not history:
        raise ValueError("history: got no rows, expected one for each epoch")
    figure = _figure(9, 3.6)
    losses, errors = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for name in ("points", "asm", "pose"):
        # A term without labels is zero, which no logarithmic axis shows; some stages have none.
        known = [(row["epoch"], row[name]) for row in history if row.get(name)]
        if known:
            losses.plot(*zip(*known, strict=True), ".-", markersize=3, label=name)
    losses.set_yscale("log")
    losses.set_xlabel("epoch")
    losses.set_ylabel("terms of the loss")
    losses.legend(fontsize=8)
    measured = [(row["epoch"], row["nme"]) for row in history if row.get("nme") is not None]
    if measured:
        errors.plot(*zip(*measured, strict=True), ".-", color="tab:red")
    errors.set_xlabel("epoch")
    errors.set_ylabel("validation NME, %")
    for axis in (losses, errors):
        axis.grid(alpha=0.3)
        axis.set_xlim(0, max(epochs) + 1)
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def draw_landmarks(
    image: npt.ArrayLike,
    points: npt.ArrayLike,
    contours: Sequence[Contour] = (),
    *,
    colour: tuple[int, int, int] = _LINE,
    confidence: npt.ArrayLike | None = None,
) -> Image:
    """Draw landmarks, and the contours that join them, on a copy of an image.

    Parameters
    ----------
    image : ndarray (h, w, 3) uint8
    points : array_like (n_points, 2)
        Points of NaN are left out.
    contours : sequence of Contour
    colour : (int, int, int)
        RGB of the lines.
    confidence : array_like (n_points,), optional
        The less sure a landmark is, the redder it is drawn; white at 1 and where it is NaN.

    Returns
    -------
    ndarray (h, w, 3) uint8
    """
    canvas = as_image(image).copy()
    shape = as_points(points, n_dims=2, allow_nan=True).astype(np.float64)
    extent = landmark_box(shape)[2:].max()
    radius = max(1, round(extent / 130)) if np.isfinite(extent) else 1
    for contour in contours:
        line = shape[_closed(contour)]
        if np.isfinite(line).all():
            cv2.polylines(canvas, [fixed(line)], False, colour, radius, cv2.LINE_AA, SHIFT)
    stated = np.full(len(shape), np.nan) if confidence is None else np.asarray(confidence)
    sure = np.nan_to_num(stated, nan=1.0)[:, None]
    colours = np.rint(sure * _POINT + (1 - sure) * _UNSURE)
    for point, ink in zip(shape, colours.tolist(), strict=True):
        if np.isfinite(point).all():
            x, y = fixed(point).tolist()
            cv2.circle(canvas, (x, y), radius << SHIFT, ink, -1, cv2.LINE_AA, SHIFT)
    return canvas


def draw_prediction(
    image: npt.ArrayLike, prediction: Prediction, contours: Sequence[Contour] = ()
) -> Image:
    """Draw what a network found: boxes, landmarks and the angles, on a copy of the image.

    From a network with a confidence head, landmarks are the redder the less sure.
    """
    canvas = as_image(image).copy()
    rows = (prediction.boxes, prediction.points, prediction.pose, prediction.confidence)
    for box, points, pose, confidence in zip(*rows, strict=True):
        _draw_box(canvas, box, _BOX)
        canvas = draw_landmarks(canvas, points, contours, confidence=confidence)
        if np.isfinite(pose).all():
            _write_above(canvas, _angles(pose), box, _BOX)
    return canvas


def draw_tracks(
    image: npt.ArrayLike, frame: TrackedFrame, contours: Sequence[Contour] = ()
) -> Image:
    """Draw tracked faces: boxes, landmarks, identities and angles, on a copy of the frame.

    Parameters
    ----------
    image : ndarray (h, w, 3) uint8
    frame : TrackedFrame
        What :func:`asmkit.track` gave for this image. A box keeps its colour.
    contours : sequence of Contour
        Of the scheme of the landmarks.

    Returns
    -------
    ndarray (h, w, 3) uint8
    """
    canvas = as_image(image).copy()
    for face in frame.faces:
        colour = _IDENTITIES[face.identity % len(_IDENTITIES)]
        _draw_box(canvas, face.box, colour)
        canvas = draw_landmarks(canvas, face.points, contours)
        angles = f" {_angles(face.pose)}" if np.isfinite(face.pose).all() else ""
        _write_above(canvas, f"{face.identity}{angles}", face.box, colour)
    return canvas


def _draw_box(canvas: Image, box: Doubles, colour: tuple[int, int, int]) -> None:
    thick = max(1, round(float(max(box[2:])) / 250))
    first, second = fixed(np.array([box[:2], box[:2] + box[2:]])).tolist()
    cv2.rectangle(canvas, first, second, colour, thick, cv2.LINE_AA, SHIFT)


def _angles(pose: Doubles) -> str:
    return "yaw {} pitch {} roll {}".format(*(round(float(angle)) for angle in pose))


def _write_above(canvas: Image, text: str, box: Doubles, colour: tuple[int, int, int]) -> None:
    """Write above a box, three angles about as wide as the box, light on a dark rim."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    (width, _), _ = cv2.getTextSize(_angles(np.full(3, -20.0)), font, 1.0, 1)
    size = float(np.clip(box[2] / width, 0.35, 3.0))
    at = (max(0, int(box[0])), max(round(25 * size), int(box[1] - 8 * size)))
    thick = max(1, round(1.5 * size))
    for ink, extra in ((_RIM, 2 * thick), (colour, 0)):
        cv2.putText(canvas, text, at, font, size, ink, thick + extra, cv2.LINE_AA)


def contact_sheet(images: Sequence[Image], columns: int = 6) -> Image:
    """Put images of one size side by side, row by row, on black."""
    if not images:
        raise ValueError("images: got none, expected at least one")
    height, width = images[0].shape[:2]
    rows = -(-len(images) // columns)
    sheet = np.zeros((rows * height, min(columns, len(images)) * width, 3), np.uint8)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        sheet[row * height :, column * width :][:height, :width] = image
    return sheet
