"""What every landmark network gives, in which units, and its linear heads.

Coordinates are relative to the crop: ``u = (x − c) / (s / 2)`` with the crop's side s and its
centre c = (s − 1) / 2, so that a crop spans −1 to 1. Angles are yaw, pitch, roll in radians.

The linear layers themselves answer in hundredths of the crop and in degrees. A step of Adam moves
every weight by about the learning rate, whatever the loss: in these units, the hundreds of weights
of an output together move it by a fraction of a pixel, not by a quarter of the crop.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from asmkit.nn.confidence import ConfidenceHead
    from asmkit.nn.visibility import VisibilityHead

#: Crops from −1 to 1 per hundredth of a crop.
_HUNDREDTH = 0.02
_DEGREE = math.pi / 180

__all__ = [
    "Features",
    "LandmarkNetwork",
    "NetworkOutput",
    "PooledNetwork",
    "as_input",
    "from_crop",
    "linear_head",
    "to_angles",
    "to_crop",
]


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
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head


class LandmarkNetwork(nn.Module):
    """A network with a linear landmark head, whose bias starts as the mean shape.

    Attributes
    ----------
    tasks : nn.Module or None
        The part that judges pose and face from the landmarks found, trained in a second stage;
        None in a network whose pose is learned with the landmarks.
    confidence : ConfidenceHead or None
        The part that states how far each landmark is from the truth, trained in the last stage;
        None in a network that was not asked for it.
    visibility : VisibilityHead or None
        The part that tells covered landmarks, trained with ``confidence``; None likewise.
    """

    confidence: ConfidenceHead | None
    visibility: VisibilityHead | None

    def __init__(self, n_points: int, features: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        if n_points < 1:
            raise ValueError(f"n_points: got {n_points}, expected at least 1")
        self.n_points = n_points
        self.tasks: nn.Module | None = None
        self.confidence = None
        self.visibility = None
        self.dropout = nn.Dropout(dropout)
        self.landmark_head = linear_head(features, 2 * n_points)

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

    def start_from(self, mean_shape: Tensor) -> None:
        """Make ``mean_shape (n_points, 2)``, relative to the crop, the answer before training."""
        with torch.no_grad():
            self.landmark_head.bias.copy_(mean_shape.reshape(-1) / _HUNDREDTH)

    def landmarks(self, features: Tensor) -> Tensor:
        """``features (n, f)`` to landmarks ``(n, n_points, 2)``."""
        points: Tensor = self.landmark_head(features).reshape(-1, self.n_points, 2)
        return points * _HUNDREDTH


def to_angles(answers: Tensor) -> Tensor:
    """What a pose layer answers, in degrees, as radians."""
    return answers * _DEGREE


class PooledNetwork(LandmarkNetwork):
    """Landmarks and pose from one pooled feature vector: the two heads of the ASMNet paper."""

    def __init__(self, n_points: int, features: int, *, dropout: float = 0.0) -> None:
        super().__init__(n_points, features, dropout=dropout)
        self.pose_head = linear_head(features, 3)

    def heads(self, features: Tensor) -> NetworkOutput:
        """``features (n, f)`` to landmarks and angles, in float32 also under autocast."""
        with torch.autocast(features.device.type, enabled=False):
            features = self.dropout(features.float())
            return NetworkOutput(self.landmarks(features), to_angles(self.pose_head(features)))
