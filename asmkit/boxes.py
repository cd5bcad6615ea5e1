"""Boxes ``[x, y, width, height]``, and the one way in which a face is cropped by its box.

A box always means the *tight landmark box*: the smallest one around the landmarks, in the
coordinates of the points (pixel centres), so its width is ``max(x) - min(x)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from asmkit._check import Floats, as_batch

__all__ = [
    "BELONGS",
    "apply_affine",
    "as_boxes",
    "compose_affine",
    "crop_transform",
    "invert_affine",
    "iou",
    "landmark_box",
]

Float64s = npt.NDArray[np.float64]

#: IoU from which a detected tight box belongs to a face.
BELONGS = 0.3


def landmark_box(points: npt.ArrayLike) -> Float64s:
    """Tight boxes around landmarks; missing (NaN) landmarks are left out.

    Parameters
    ----------
    points : array_like (..., n_points, n_dims)
        Of 3-D points, x and y count.

    Returns
    -------
    ndarray (..., 4)
        ``[x, y, width, height]``; NaN where every landmark is missing.
    """
    shapes, leading = as_batch(points, allow_nan=True)
    corners = shapes[..., :2].astype(np.float64)
    low, high = np.fmin.reduce(corners, axis=1), np.fmax.reduce(corners, axis=1)
    return np.concatenate([low, high - low], axis=-1).reshape(*leading, 4)


def as_boxes(values: npt.ArrayLike, name: str = "boxes") -> Float64s:
    """Check boxes and give them the shape ``(n, 4)``; one box ``(4,)`` becomes ``(1, 4)``.

    Raises
    ------
    ValueError
        When the shape is another, or a box is not finite or has a negative width or height.
    """
    boxes = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if boxes.size == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"{name}: got shape {np.shape(values)}, expected (n, 4): [x, y, width, height] a row"
        )
    wrong = ~(np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= 0).all(axis=1))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{name}: row {row} is {boxes[row].tolist()}; expected finite numbers "
            "[x, y, width, height] with width and height not negative"
        )
    return boxes


def iou(first: npt.ArrayLike, second: npt.ArrayLike) -> Float64s:
    """Intersection over union of boxes, by broadcasting.

    Parameters
    ----------
    first, second : array_like (..., 4)
        ``iou(a[:, None], b)`` compares all with all.

    Returns
    -------
    ndarray (...)
        Between 0 and 1; 0 for two boxes without area.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared = np.minimum(high - low, np.minimum(a[..., 2:], b[..., 2:]))  # x + w - x may exceed w
    overlap = np.prod(np.maximum(shared, 0.0), axis=-1)
    union = np.prod(a[..., 2:], axis=-1) + np.prod(b[..., 2:], axis=-1) - overlap
    ratio: Float64s = np.divide(overlap, union, out=np.zeros_like(union), where=union > 0)
    return ratio


def crop_transform(boxes: npt.ArrayLike, size: int, margin: float = 1.25) -> Float64s:
    """Affine maps from an image to square crops around boxes.

    The crop shows the square around the centre ``c`` of the box with side
    ``margin * max(width, height)``. Pixel centres map as

        x_crop = (x - c) * size / side + (size - 1) / 2

    so that the outer edges of the crop's pixels, -1/2 and size - 1/2, are the square's sides.

    Parameters
    ----------
    boxes : array_like (n, 4)
        Tight landmark boxes.
    size : int
        Width and height of the crop in pixels.
    margin : float
        Side of the square, in units of the box's longer side.

    Returns
    -------
    ndarray (n, 2, 3)
        For :func:`apply_affine` and :func:`asmkit.images.crop`.

    Raises
    ------
    ValueError
        When a box is a single point, or ``size`` or ``margin`` is not positive.
    """
    checked = as_boxes(boxes)
    if size < 1 or not margin > 0:
        raise ValueError(f"got size {size} and margin {margin}, expected both positive")
    side = margin * checked[:, 2:].max(axis=1, initial=0.0)
    if (side <= 0).any():
        raise ValueError(
            f"boxes: row {int(np.argmin(side))} has no extent (all its points are equal), "
            "so there is no square to crop"
        )
    scale = size / side
    centre = checked[:, :2] + checked[:, 2:] / 2
    matrices = np.zeros((len(checked), 2, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = scale
    matrices[:, :, 2] = (size - 1) / 2 - scale[:, None] * centre
    return matrices


def apply_affine(matrix: npt.ArrayLike, points: npt.ArrayLike) -> Floats:
    """Map points by affine matrices.

    Parameters
    ----------
    matrix : array_like (..., 2, 3)
        Its leading axes broadcast with those of ``points``.
    points : array_like (..., n_points, 2)

    Returns
    -------
    ndarray (..., n_points, 2)
        Missing (NaN) points stay missing; float32 points stay float32.
    """
    shapes, leading = as_batch(points, n_dims=2, allow_nan=True)
    affine = np.asarray(matrix, dtype=shapes.dtype)
    located = shapes.reshape(*leading, *shapes.shape[1:])
    mapped: npt.NDArray[np.floating[Any]] = (
        located @ np.swapaxes(affine[..., :2], -1, -2) + affine[..., None, :, 2]
    )
    return mapped


def invert_affine(matrix: npt.ArrayLike) -> Float64s:
    """Inverses of affine matrices ``(..., 2, 3)``.

    Raises
    ------
    numpy.linalg.LinAlgError
        When a matrix maps the plane to a line or a point.
    """
    affine = np.asarray(matrix, dtype=np.float64)
    linear = np.linalg.inv(affine[..., :2])
    return np.concatenate([linear, -linear @ affine[..., 2:]], axis=-1)


def compose_affine(outer: npt.ArrayLike, inner: npt.ArrayLike) -> Float64s:
    """Compose the maps ``(..., 2, 3)``: first ``inner``, then ``outer``."""
    second, first = np.asarray(outer, np.float64), np.asarray(inner, np.float64)
    linear = second[..., :2]
    offset = linear @ first[..., 2:] + second[..., 2:]
    return np.concatenate([linear @ first[..., :2], offset], axis=-1)
