"""Augmentation by new shapes: a face takes another plausible shape, and its image follows.

The shape model of the training set says how faces differ: by build, by expression, and, as far as
the plane shows it, by pose. New coefficients near a face's own give it another expression or
open or close its eyes; a piecewise-affine warp carries the image along (:mod:`asmkit.warp`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from asmkit.alignment import similarity
from asmkit.model import ShapeModel
from asmkit.priors import Ellipsoid
from asmkit.warp import Mesh, Warp

__all__ = ["NewShape", "NewShapes"]

Doubles = npt.NDArray[np.float64]

#: Enough modes for lids and lips, which vary little.
_VARIANCE = 0.98
_PRIOR = Ellipsoid(0.99)
#: A triangle may be squeezed to a tenth, as lids do, but stretched no more than fourfold: there is
#: no texture for what was hidden.
_NARROWEST, _WIDEST = 0.1, 4.0


class NewShape(NamedTuple):
    """Another shape of an annotated image."""

    #: (p, 2), pixels of the photo
    points: Doubles
    #: of the photo, from the annotated points to the new ones
    warp: Warp


class NewShapes:
    """Draws new shapes for annotated ones.

    Parameters
    ----------
    points : ndarray, shape (n, p, 2)
        The annotated shapes; the shape model is fitted on them.
    size : float
        Standard deviation of the move in each mode, in standard deviations of the mode.
    mirror : ndarray of int, shape (p,), or None
        As ``mirror`` of :class:`asmkit.ShapeModel`.
    """

    def __init__(self, points: Doubles, size: float, mirror: npt.NDArray[np.intp] | None) -> None:
        model = ShapeModel(_VARIANCE, mirror=mirror).fit(points)
        self._points, self._size = points, size
        self._modes, self._variances = model.components_, model.explained_variance_
        self._own: Doubles = model.transform(points) / np.sqrt(self._variances)
        poses = similarity(model.reference_, points)
        self._linear: Doubles = poses.matrix[..., :2, :2]
        self._meshes: dict[int, Mesh] = {}

    def draw(self, index: int, rng: np.random.Generator) -> NewShape | None:
        """A new shape near that of an image.

        Coefficients move by normal deviates and are kept within the ellipsoid that holds 99 % of
        all shapes; what the model cannot express of a shape, and what is implausible about it
        already, stays its own. Where the image would fold over or be strained, neighbouring
        landmarks move more alike.

        Returns
        -------
        NewShape or None
            None where nothing moves.
        """
        if self._size == 0:
            return None
        own = self._own[index]
        drawn = own + self._size * rng.standard_normal(len(own))
        before, after = _PRIOR.apply(np.stack([own, drawn]), self._variances)
        move = ((after - before) * np.sqrt(self._variances)) @ self._modes
        mesh = self._mesh(index)
        asked = mesh.warp(move.reshape(-1, 2) @ self._linear[index].T)
        warp = mesh.settled(asked, _NARROWEST, _WIDEST)
        return None if warp is None else NewShape(mesh.landmarks(warp), warp)

    def reach(self, index: int) -> Doubles:
        """Points ``(m, 2)`` of the photo between which all is that a warp can move."""
        return self._mesh(index).vertices

    def _mesh(self, index: int) -> Mesh:
        if index not in self._meshes:
            self._meshes[index] = Mesh.over(self._points[index])
        return self._meshes[index]
