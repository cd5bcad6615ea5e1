"""Whether landmarks look like a shape of the model: a score that needs no image.

Under the model the coefficients are normal, so the squared Mahalanobis distance
``d² = Σ b_i² / λ_i`` of its k modes follows chi-square with k degrees of freedom, and so does what
the modes leave over, in units of the variance left out::

    r² = |x − T(μ + Σ b_i φ_i)|² / (s² noise_variance_) · m / n_left,   m = min(k, n_left)

(s the scale of T, n_left the directions left out). The variance left out is far from even over
those directions, so they are counted as m only. A shape is at the limit when d² reaches the
quantile of its distribution that a share ``tail`` of shapes exceeds, or r² that of its own.

Real shapes have longer tails than normal ones. Measured with 31 modes of the 2014 faces of 300-W
train: with ``tail = 1e-9``, where the limit is 3.3 k, of the 554 annotated faces of the common set
one is beyond in d² and three more are in r². Landmarks of a *network* are another matter: it moves
towards the mean whatever it looks at. ASMNet's have d² of at most 0.73 k on 200 of those faces
(median 0.36 k), of 0.72 to 0.98 k on noise, and a median of 1.2 k on crops that are off by most of
a face: a limit of 3.3 k never tells them, one of 0.78 k (``tail = 0.8``) mostly does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from asmkit._check import as_batch
from asmkit.alignment import centroid_size
from asmkit.priors import Unbounded

if TYPE_CHECKING:
    from asmkit.model import ShapeModel

__all__ = ["NETWORK_TAIL", "TAIL", "Plausibility"]

Doubles = npt.NDArray[np.float64]

#: Share of the model's own shapes beyond the limit, for whatever locates.
TAIL = 1e-9
#: The same, for networks that have no other way to say that they see no face.
NETWORK_TAIL = 0.8

_UNBOUNDED = Unbounded()


class Plausibility:
    """Plausibility of shapes in a model: 1 for its mean, 0.5 at the limit, towards 0 beyond.

    It is ``1 / (1 + q)``, q the greater of d² and r² over their limits (see
    :mod:`asmkit.plausibility`): the same for a shape shifted, scaled or turned.

    Parameters
    ----------
    model : ShapeModel
        Fitted, of 2-D or 3-D landmarks. With ``align="box"``, or when nothing was left out, d²
        counts alone.
    tail : float
        Share of shapes drawn from the model that are beyond the limit of d², between 0 and 1.

    Raises
    ------
    ValueError
        When ``tail`` is not between 0 and 1.
    """

    def __init__(self, model: ShapeModel, tail: float = TAIL) -> None:
        if not 0 < tail < 1:
            raise ValueError(f"tail: got {tail}, expected a share between 0 and 1")
        self.model, self.tail = model, tail
        k = model.n_components_
        n_points, n_dims = model.mean_.shape
        n_left = n_points * n_dims - {2: 4, 3: 7}[n_dims] - k
        self._limit = float(chi2.isf(tail, k))
        self._residual_limit = math.inf
        if model.align == "similarity" and model.noise_variance_ > 0:
            m = min(k, n_left)
            self._residual_limit = float(chi2.isf(tail, m)) * model.noise_variance_ * n_left / m

    def __call__(self, shapes: npt.ArrayLike) -> Doubles:
        """Plausibility of shapes.

        Parameters
        ----------
        shapes : array_like (..., n_points, n_dims)

        Returns
        -------
        ndarray (...)
            Between 0 and 1; NaN for a shape with a missing (NaN) landmark, 0 for one whose
            landmarks are all at one place.

        Raises
        ------
        ValueError
            When the shapes have another number of landmarks than the model.
        """
        n_points, n_dims = self.model.mean_.shape
        given, leading = as_batch(
            shapes, "shapes", n_points=n_points, n_dims=n_dims, allow_nan=True
        )
        batch: Doubles = given.astype(np.float64)
        whole = np.isfinite(batch.reshape(len(batch), n_points * n_dims)).all(axis=1)
        result: Doubles = np.where(whole, 0.0, np.nan)
        extent = np.ptp(np.nan_to_num(batch), axis=1).max(axis=1)
        (usable,) = np.nonzero(whole & (extent > 0))
        if usable.size:
            result[usable] = 1 / (1 + self._excess(batch[usable]))
        return result.reshape(leading)

    def _excess(self, shapes: Doubles) -> Doubles:
        """The greater of d² and r² over their limits."""
        b = self.model.transform(shapes)
        d = (b**2 / self.model.explained_variance_).sum(axis=-1) / self._limit
        if math.isinf(self._residual_limit):
            return np.asarray(d)
        seen = self.model.smooth(shapes, prior=_UNBOUNDED)
        scale = centroid_size(seen) / centroid_size(self.model.inverse_transform(b))
        r = ((shapes - seen) ** 2).sum(axis=(-2, -1)) / scale**2 / self._residual_limit
        return np.asarray(np.maximum(d, r))
