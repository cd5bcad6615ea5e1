"""What every landmark network gives, in which units, and its linear heads.

Coordinates are relative to the crop: ``u = (x − c) / (s / 2)`` with the crop's side s and its
centre c = (s − 1) / 2, so that a crop spans −1 to 1. Angles are yaw, pitch, roll in radians.

The linear layers themselves answer in hundredths of the crop and in degrees. A step of Adam moves
every weight by about the learning rate, whatever the loss: in these units, the hundreds of weights
of an output together move it by a fraction of a pixel, not by a quarter of the crop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from asmkit.nn.confidence import ConfidenceHead
    from asmkit.nn.integral import IntegralMaps
    from asmkit.nn.shape_head import ShapeHead
    from asmkit.nn.shape_layer import ShapeLayer
    from asmkit.nn.visibility import VisibilityHead

__all__ = [
    "DEGREE",
    "HUNDREDTH",
    "Features",
    "LandmarkNetwork",
    "LinearPoints",
    "NetworkOutput",
    "as_input",
    "from_crop",
    "linear_head",
    "to_angles",
    "to_crop",
]

#: Crops from -1 to 1 per hundredth of a crop, and radians per degree.
HUNDREDTH = 0.02
DEGREE = math.pi / 180


class NetworkOutput(NamedTuple):
    """Predictions for a batch of crops."""

    #: (n, n_points, 2), relative to the crop
    points: Tensor
    #: (n, 3) yaw, pitch, roll in radians
    angles: Tensor
    #: (n,) logit of "this crop shows a face"; None from a network without a tracking head
    face: Tensor | None = None
    #: (n, 3, 3) head to camera; None from a network that gives the angles directly
    rotation: Tensor | None = None
    #: (n, n_points) logarithm of the expected error of each point, in the units of the points;
    #: None from a network without a confidence head
    log_scale: Tensor | None = None
    #: (n, n_points) logit of "nothing lies over this point"; None from a network without a
    #: visibility head
    visible: Tensor | None = None


class Features(NamedTuple):
    """What the heads of a network look at."""

    #: (n, channels, s/4, s/4)
    shallow: Tensor
    #: (n, channels, s/8, s/8)
    middle: Tensor
    #: (n, channels, s/16, s/16)
    deep: Tensor
    #: (n, features) of the whole crop
    flat: Tensor


def as_input(images: Tensor) -> Tensor:
    """``(n, s, s, 3)`` uint8 to ``(n, 3, s, s)`` from -1 to 1, channels last in memory."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_crop(points: Tensor, size: int) -> Tensor:
    """Relative coordinates to pixels of a crop of side ``size``."""
    return points * (size / 2) + (size - 1) / 2


def from_crop(points: Tensor, size: int) -> Tensor:
    """Pixels of a crop of side ``size`` to relative coordinates."""
    return (points - (size - 1) / 2) / (size / 2)


def linear_head(features: int, outputs: int) -> nn.Linear:
    """A linear layer that answers (almost) 0 before training."""
    head = nn.Linear(features, outputs)
    start_linear(head)
    return head


def start_linear(layer: nn.Linear) -> None:
    """Make a linear layer answer (almost) 0."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)


class LinearPoints(nn.Linear):
    """Landmarks by one linear layer, whose bias starts as the mean shape.

    Parameters
    ----------
    features, n_points : int
    """

    def __init__(self, features: int, n_points: int) -> None:
        super().__init__(features, 2 * n_points)
        start_linear(self)

    def forward(self, features: Tensor) -> Tensor:
        """``features (n, f)`` to landmarks ``(n, n_points, 2)``, relative to the crop."""
        return super().forward(features).reshape(-1, self.out_features // 2, 2) * HUNDREDTH

    def start_from(self, mean_shape: Tensor, shapes: ShapeLayer | None = None) -> None:
        """As :meth:`LandmarkNetwork.start_from`, which takes no shape model here."""
        if shapes is not None:
            raise ValueError(f"shapes: got {shapes}, expected None: this head has no shape model")
        with torch.no_grad():
            self.bias.copy_(mean_shape.reshape(-1) / HUNDREDTH)


class LandmarkNetwork(nn.Module):
    """A network with a landmark head that starts as the mean shape.

    Parameters
    ----------
    n_points : int
    features : int
        Of the whole crop, which the landmark head looks at.
    dropout : float
        Share of them dropped in training.
    head : callable
        Makes the landmark head from the numbers of features and points.

    Attributes
    ----------
    landmark_head : LinearPoints or ShapeHead
    maps : IntegralMaps or None
        Adds centres of mass to what the landmark head answers.
    tasks : nn.Module or None
        The part that judges pose and face from the landmarks found, trained in a second stage;
        None in a network whose pose is learned with the landmarks.
    confidence : ConfidenceHead or None
        The part that states how far each landmark is from the truth, trained in the last stage;
        None in a network that was not asked for it.
    modes : int
        Modes of the shape model in the landmark head; 0 where there is none.
    visibility : VisibilityHead or None
        The part that tells covered landmarks, trained with ``confidence``; None likewise.
    """

    landmark_head: LinearPoints | ShapeHead
    maps: IntegralMaps | None
    confidence: ConfidenceHead | None
    visibility: VisibilityHead | None

    def __init__(
        self,
        n_points: int,
        features: int,
        *,
        dropout: float = 0.0,
        head: Callable[[int, int], LinearPoints | ShapeHead] = LinearPoints,
    ) -> None:
        super().__init__()
        if n_points < 1:
            raise ValueError(f"n_points: got {n_points}, expected at least 1")
        self.n_points = n_points
        self.modes = 0
        self.maps = None
        self.tasks: nn.Module | None = None
        self.confidence = None
        self.visibility = None
        self.dropout = nn.Dropout(dropout)
        self.landmark_head = head(features, n_points)

    def forward(self, images: Tensor) -> NetworkOutput:
        """``images (n, 3, s, s)``, RGB from -1 to 1."""
        output, features = self.find(images)
        return self.with_doubts(output, features)

    def find(self, images: Tensor) -> tuple[NetworkOutput, Features]:
        """All but scales and visibility, and the features they are stated by."""
        raise NotImplementedError

    def with_doubts(self, output: NetworkOutput, features: Features) -> NetworkOutput:
        """The output with scales and visibility of its landmarks, as far as a network has them."""
        if self.confidence is not None:
            output = output._replace(log_scale=self.confidence(output.points, features))
        if self.visibility is not None:
            output = output._replace(visible=self.visibility(output.points, features))
        return output

    def start_from(self, mean_shape: Tensor, shapes: ShapeLayer | None = None) -> None:
        """Make ``mean_shape (n_points, 2)``, relative to the crop, the answer before training.

        ``shapes``, for ``head="shape"`` alone, is the shape model that the network shall answer by:
        it then starts as the mean of that, placed on ``mean_shape`` by least squares.
        """
        self.landmark_head.start_from(mean_shape, shapes)

    def landmarks(self, features: Features) -> Tensor:
        """Features to landmarks ``(n, n_points, 2)``, in float32."""
        points: Tensor = self.landmark_head(features.flat)
        if self.maps is not None:
            points = points + self.maps(features.middle.float(), features.deep.float())
        return points


def to_angles(answers: Tensor) -> Tensor:
    """What a pose layer answers, in degrees, as radians."""
    return answers * DEGREE
