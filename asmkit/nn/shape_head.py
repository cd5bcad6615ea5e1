"""Landmarks that are a plausible shape by construction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asmkit.nn.heads import DEGREE, HUNDREDTH, linear_head
from asmkit.nn.shape_layer import ShapeLayer

__all__ = ["LIMIT", "ShapeHead"]

#: Coefficients stay within ± this many standard deviations, as those of smoothed targets do.
LIMIT = 3.0

#: Standard deviations per unit of what the linear layer answers: of the units of the other heads
#: (:mod:`asmkit.nn.heads`), the one that makes a plausible shape as many steps of Adam wide.
_TENTH = 0.1


class ShapeHead(nn.Module):
    """Landmarks by a shape model: one linear layer answers coefficients and a similarity.

    The coefficients c, in standard deviations, are bounded smoothly, ``3 tanh(c / 3)``; the scale
    is the exponential of its logarithm. So every answer is its own projection on the model:
    :meth:`asmkit.ShapeModel.smooth` does not move it.

    The model is kept in buffers, which are saved, moved and exported with the weights.

    Parameters
    ----------
    features, n_points : int
    modes : int
        Modes of the shape model, which :meth:`start_from` or saved weights bring.

    Raises
    ------
    ValueError
        For less than one mode.
    """

    def __init__(self, features: int, n_points: int, modes: int) -> None:
        super().__init__()
        if modes < 1:
            raise ValueError(
                f"modes: got {modes}, expected the number of modes of a shape model, at least 1"
            )
        self.linear = linear_head(features, modes + 4)
        self.shapes = ShapeLayer.empty(n_points, modes)

    def forward(self, features: Tensor) -> Tensor:
        """``features (n, f)`` to landmarks ``(n, n_points, 2)``, relative to the crop."""
        answers = self.linear(features)
        coefficients = LIMIT * torch.tanh(answers[:, :-4] * (_TENTH / LIMIT))
        points: Tensor = self.shapes(
            coefficients,
            answers[:, -4] * HUNDREDTH,
            answers[:, -3] * DEGREE,
            answers[:, -2:] * HUNDREDTH,
        )
        return points

    def start_from(self, mean_shape: Tensor, shapes: ShapeLayer | None = None) -> None:
        """As :meth:`asmkit.nn.heads.LandmarkNetwork.start_from`.

        Raises
        ------
        ValueError
            Without a shape model, or with one of other sizes.
        """
        expected = f"a shape layer of {self.shapes.n_points} points and {self.shapes.n_components}"
        if shapes is None:
            raise ValueError(f"shapes: got None, expected {expected} modes")
        sizes = (self.shapes.n_points, 2, self.shapes.n_components)
        if (shapes.n_points, shapes.n_dims, shapes.n_components) != sizes:
            raise ValueError(f"shapes: got {shapes}, expected {expected} modes in two dimensions")
        self.shapes.load_state_dict(shapes.state_dict())
        with torch.no_grad():
            placed = self.shapes.encode(mean_shape[None])
            scale, angle = placed.log_scale / HUNDREDTH, placed.rotation / DEGREE
            self.linear.bias.zero_()
            self.linear.bias[-4:] = torch.cat([scale, angle, placed.translation[0] / HUNDREDTH])
