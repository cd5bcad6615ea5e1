"""The answer without a network: the mean shape, put into each box.

What a network finds should be compared with it, because the box alone already says much of where
the landmarks are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from asmkit._check import as_points
from asmkit.boxes import as_boxes, landmark_box

__all__ = ["mean_in_boxes"]

Doubles = npt.NDArray[np.float64]


def mean_in_boxes(mean: npt.ArrayLike, boxes: npt.ArrayLike) -> Doubles:
    """Move and stretch a mean shape so that its tight box is the given one.

    It takes all four numbers of a box, width and height apart, and nothing else: no image, no true
    landmark. A mean is not turned. That of a model fitted with ``mirror`` stands upright; without,
    it stands as the first shape of its training did, and where the shapes lie in all directions
    this baseline says little.

    Parameters
    ----------
    mean : array_like (n_points, 2)
        :attr:`asmkit.ShapeModel.mean_` of the training shapes; of a trained network,
        ``shape_model.npz`` in its folder holds them.
    boxes : array_like (n, 4)
        ``[x, y, width, height]``; a row of NaN is a face that was not found.

    Returns
    -------
    ndarray (n, n_points, 2)
        NaN where the box is.

    Raises
    ------
    ValueError
        When ``mean`` is not complete in 2-D, or ``boxes`` are no boxes.
    """
    shape = as_points(mean, "mean", n_dims=2).astype(np.float64)
    given = np.atleast_2d(np.asarray(boxes, dtype=np.float64))
    lost = np.asarray(np.isnan(given).all(axis=-1))
    known = as_boxes(np.where(lost[..., None], 0.0, given))
    own = landmark_box(shape)
    # A mean without width, or height, goes to the middle.
    middle = np.full(shape.shape, 0.5)
    unit = np.divide(shape - own[:2], own[2:], out=middle, where=own[2:] > 0)
    placed: Doubles = known[:, None, :2] + known[:, None, 2:] * unit
    placed[lost] = np.nan
    return placed
