"""A shape model as a differentiable layer: coefficients and pose to points, and back.

The twin in torch of :class:`asmkit.ShapeModel` with ``align="similarity"``: a shape is
``x = s R (μ + Σ c_i √λ_i φ_i) + t``, with coefficients c in standard deviations. What a network
predicts as (c, log s, R, t) is a plausible shape by construction, and a loss on its points reaches
all of them.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from asmkit.model import ShapeModel
from asmkit.nn.rotation import rotation_from_6d

__all__ = ["Encoding", "ShapeLayer"]


class Encoding(NamedTuple):
    """Shapes in the terms of a model: what :meth:`ShapeLayer.forward` takes.

    Attributes
    ----------
    coefficients : Tensor, (n, k)
        In standard deviations of the model.
    log_scale : Tensor, (n,)
        Logarithm of s.
    rotation : Tensor, (n,) in 2-D, (n, 6) in 3-D
        The angle in radians, from x to y; or the first two rows of R.
    translation : Tensor, (n, d)
        t, in the units of the points.
    """

    coefficients: Tensor
    log_scale: Tensor
    rotation: Tensor
    translation: Tensor


class ShapeLayer(nn.Module):
    """Shapes of a model from coefficients and similarities, and the way back; no weights to learn.

    The model is kept as buffers: they follow ``.to()`` and are saved with the network. Each is a
    pair of float32 numbers, the second what the first leaves over, so that the layer computes
    with float32 by default and with nearly all digits of the model after ``.double()``.

    Every method is differentiable where the pose of a shape is unique; the gradients hold no
    derivative of a singular value decomposition, so they stay finite for shapes whose singular
    values coincide. In 3-D ``encode`` and ``smooth`` have right first derivatives only.

    Parameters
    ----------
    model : ShapeModel
        Fitted, with ``align="similarity"``; 2-D or 3-D.

    Raises
    ------
    ValueError
        For a model in another frame.
    sklearn.exceptions.NotFittedError
        For a model that was not fitted.
    """

    def __init__(self, model: ShapeModel) -> None:
        super().__init__()
        check_is_fitted(model)
        if model.align != "similarity":
            raise ValueError(
                f"model: its frame is align={model.align!r}; a shape layer needs one that was "
                "fitted with align='similarity'"
            )
        self.n_points, self.n_dims = model.mean_.shape
        self.n_components = model.n_components_
        reference = getattr(model, "reference_", model.mean_)
        self._keep("reference", reference - reference.mean(axis=0))
        self._keep("mean", model.mean_)
        self._keep("components", model.components_)
        self._keep("deviations", np.sqrt(model.explained_variance_))

    @classmethod
    def empty(cls, n_points: int, n_components: int, n_dims: int = 2) -> Self:
        """A layer of zeros, for ``load_state_dict`` to fill with those of a model of these sizes.

        Parameters
        ----------
        n_points, n_components, n_dims : int
            Points of a shape, modes, and coordinates of a point.
        """
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer.n_points, layer.n_dims, layer.n_components = n_points, n_dims, n_components
        for name in ("reference", "mean"):
            layer._keep(name, np.zeros((n_points, n_dims)))
        layer._keep("components", np.zeros((n_components, n_points * n_dims)))
        layer._keep("deviations", np.zeros(n_components))
        return layer

    def _keep(self, name: str, values: npt.NDArray[np.float64]) -> None:
        first = torch.from_numpy(values.astype(np.float32))
        rest = torch.from_numpy((values - first.double().numpy()).astype(np.float32))
        self.register_buffer(f"{name}_first", first)
        self.register_buffer(f"{name}_rest", rest)

    def _whole(self, name: str) -> Tensor:
        first: Tensor = getattr(self, f"{name}_first")
        rest: Tensor = getattr(self, f"{name}_rest")
        return first + rest if first.dtype == torch.float64 else first

    @property
    def reference(self) -> Tensor:
        """What poses are estimated against, (p, d), centred."""
        return self._whole("reference")

    @property
    def mean(self) -> Tensor:
        """The mean shape μ, (p, d)."""
        return self._whole("mean")

    @property
    def components(self) -> Tensor:
        """The modes φ, (k, p d)."""
        return self._whole("components")

    @property
    def deviations(self) -> Tensor:
        """Standard deviations √λ of the modes, (k,)."""
        return self._whole("deviations")

    def extra_repr(self) -> str:
        """Sizes, for ``print``."""
        return f"n_points={self.n_points}, n_dims={self.n_dims}, n_components={self.n_components}"

    def forward(
        self, coefficients: Tensor, log_scale: Tensor, rotation: Tensor, translation: Tensor
    ) -> Tensor:
        """Shapes of coefficients and similarities.

        Parameters
        ----------
        coefficients : Tensor, (n, k)
            In standard deviations.
        log_scale : Tensor, (n,)
            Logarithm of the scale: of the centroid size, where the mean has centroid size 1.
        rotation : Tensor, (n,) in 2-D; (n, 6) or (n, 3) in 3-D
            The angle in radians; or six numbers (see :func:`asmkit.nn.rotation.rotation_from_6d`),
            or a rotation vector in radians.
        translation : Tensor, (n, d)
            In the units of the points.

        Returns
        -------
        Tensor, (n, p, d)

        Raises
        ------
        ValueError
            When a shape does not fit the model's.
        """
        self._check("coefficients", coefficients, (self.n_components,))
        self._check("translation", translation, (self.n_dims,))
        turn = self._rotation(rotation)
        shapes = self._shapes(coefficients) @ turn.transpose(1, 2)
        return log_scale.exp()[:, None, None] * shapes + translation[:, None, :]

    def encode(self, points: Tensor) -> Encoding:
        """Coefficients and similarities of shapes, by least squares: as ``ShapeModel.transform``.

        Parameters
        ----------
        points : Tensor, (n, p, d)
            Complete shapes; not all points of a shape at one place.

        Returns
        -------
        Encoding
            ``forward(*encode(points))`` is the projection of the points on the model.
        """
        coefficients, matrix, centre = self._project(points)
        if self.n_dims == 2:
            scale2 = matrix[:, 0, 0].square() + matrix[:, 1, 0].square()
            rotation = torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0])
        else:
            scale2 = matrix[:, 0].square().sum(-1)
            rotation = (matrix[:, :2] / scale2.sqrt()[:, None, None]).flatten(1)
        return Encoding(coefficients, scale2.log() / 2, rotation, centre)

    def smooth(self, points: Tensor, limit: float = 3.0) -> Tensor:
        """Shapes as the model sees them, where they are: as ``ShapeModel.smooth``.

        Parameters
        ----------
        points : Tensor, (n, p, d)
        limit : float
            Coefficients are clamped to ± this many standard deviations (beyond which they have no
            gradient); ``math.inf`` clamps nothing.

        Returns
        -------
        Tensor, (n, p, d)
        """
        if not limit > 0:
            raise ValueError(f"limit: got {limit}, expected a number above 0")
        coefficients, matrix, centre = self._project(points)
        if not math.isinf(limit):
            coefficients = coefficients.clamp(-limit, limit)
        return self._shapes(coefficients) @ matrix.transpose(1, 2) + centre[:, None, :]

    def _check(self, name: str, values: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(values.shape[1:]) != shape or values.ndim != len(shape) + 1:
            expected = ", ".join(map(str, shape))
            raise ValueError(f"{name}: got shape {tuple(values.shape)}, expected (n, {expected})")

    def _shapes(self, coefficients: Tensor) -> Tensor:
        """Shapes in the model's frame, (n, p, d)."""
        moved = (coefficients * self.deviations) @ self.components
        return self.mean + moved.reshape(-1, self.n_points, self.n_dims)

    def _rotation(self, rotation: Tensor) -> Tensor:
        if self.n_dims == 2:
            if rotation.ndim != 1:
                raise ValueError(f"rotation: got shape {tuple(rotation.shape)}, expected (n,)")
            cos, sin = rotation.cos(), rotation.sin()
            return torch.stack([cos, -sin, sin, cos], dim=1).reshape(-1, 2, 2)
        if rotation.ndim != 2 or rotation.shape[1] not in (3, 6):
            raise ValueError(
                f"rotation: got shape {tuple(rotation.shape)}, expected (n, 6) or (n, 3)"
            )
        if rotation.shape[1] == 6:
            return rotation_from_6d(rotation)
        matrix: Tensor = torch.linalg.matrix_exp(_cross_matrix(rotation))
        return matrix

    def _project(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients (n, k), matrices s R (n, d, d) and translations (n, d) of shapes."""
        self._check("points", points, (self.n_points, self.n_dims))
        centre = points.mean(dim=1)
        centred = points - centre[:, None, :]
        reference = self.reference
        cross = torch.einsum("npd,pe->nde", centred, reference) / reference.square().sum()
        matrix = _planar_matrix(cross) if self.n_dims == 2 else _spatial_matrix(cross)
        scale2 = matrix.square().sum((1, 2)) / self.n_dims
        # A shape without a pose has scale 0; the guard keeps its numbers finite.
        scale2 = scale2.clamp(min=torch.finfo(scale2.dtype).tiny)
        aligned = (centred @ matrix) / scale2[:, None, None] - self.mean
        coefficients = aligned.flatten(1) @ self.components.T / self.deviations
        return coefficients, matrix, centre


def _planar_matrix(cross: Tensor) -> Tensor:
    """Least-squares s R (n, 2, 2) of cross products: the part of them that is a similarity."""
    even = cross[:, 0, 0] + cross[:, 1, 1]
    odd = cross[:, 1, 0] - cross[:, 0, 1]
    return torch.stack([even, -odd, odd, even], dim=1).reshape(-1, 2, 2)


def _spatial_matrix(cross: Tensor) -> Tensor:
    """Least-squares s R (n, 3, 3) of cross products, never a reflection."""
    with torch.no_grad():
        left, _, right = torch.linalg.svd(cross)
        sign = torch.linalg.det(left @ right)
        left = torch.cat([left[..., :2], left[..., 2:] * sign[:, None, None]], dim=-1)
        nearest = left @ right
        stretch = nearest.transpose(1, 2) @ cross
        stretch = (stretch + stretch.transpose(1, 2)) / 2
        trace = stretch.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None]
        eye = torch.eye(3, dtype=cross.dtype, device=cross.device)
        # Singular only where the rotation is not unique; the guard keeps gradients finite there.
        least = torch.finfo(cross.dtype).eps * cross.abs().amax((1, 2), keepdim=True)
        tiny = torch.finfo(cross.dtype).tiny
        system = trace * eye - stretch + (least + tiny) * eye
    # At the optimum RᵀC is symmetric. Where C moves, R turns by ω with (tr(H) I − H) ω = v, v
    # being twice the axial vector of RᵀC: 0 in value, but with the derivative of R.
    tilted = nearest.transpose(1, 2) @ cross
    axial = torch.stack(
        [
            tilted[:, 2, 1] - tilted[:, 1, 2],
            tilted[:, 0, 2] - tilted[:, 2, 0],
            tilted[:, 1, 0] - tilted[:, 0, 1],
        ],
        dim=1,
    )
    turn = torch.linalg.solve(system, axial[:, :, None])[:, :, 0]
    # The value of ω is rounding, which a nearly singular system would blow up.
    turn = turn - turn.detach()
    rotation: Tensor = nearest + nearest @ _cross_matrix(turn)
    scale = (rotation * cross).sum((1, 2))
    return scale[:, None, None] * rotation


def _cross_matrix(vectors: Tensor) -> Tensor:
    """Matrices (n, 3, 3) of the cross products with vectors (n, 3)."""
    x, y, z = vectors.unbind(1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).reshape(-1, 3, 3)
