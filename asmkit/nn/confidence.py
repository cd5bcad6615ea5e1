"""The head that states how far each landmark is from the truth, to be expected.

It looks at what the network sees around each landmark, where an occluder shows, and at the whole
crop. All of that is given without gradient: nothing of the network learns from it, so landmarks,
pose and face stay what they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from asmkit.confidence import LIKELIHOODS
from asmkit.nn.heads import Features
from asmkit.nn.sampling import features_at

__all__ = ["ConfidenceHead", "confidence_head"]

#: Channels of what lies around a landmark, and of what answers, at any width of the network.
_CHANNELS = 64

#: Logarithm of the scale before training, and its limits: between a thousandth of half a crop and
#: all of it no exponential overflows, whatever the image.
_START, _LEAST, _MOST = -3.0, -7.0, 1.0


def confidence_head(
    likelihood: str, middle: int, deep: int, flat: int, n_points: int
) -> ConfidenceHead | None:
    """The head of a network that was asked for one, else None.

    It draws no random number that another part of the network would have drawn: the same seed
    gives the same network with it and without.

    Raises
    ------
    ValueError
        For an unknown likelihood.
    """
    if likelihood == "none":
        return None
    if likelihood not in LIKELIHOODS:
        raise ValueError(
            f"confidence: got {likelihood!r}, expected one of none, {', '.join(LIKELIHOODS)}"
        )
    with torch.random.fork_rng(devices=[]):
        return ConfidenceHead(middle, deep, flat, n_points)


class ConfidenceHead(nn.Module):
    """Logarithm of the expected error of each landmark, in the units of the points.

    Parameters
    ----------
    middle, deep, flat : int
        Channels of the features, see :class:`asmkit.nn.heads.Features`.
    n_points : int

    Attributes
    ----------
    calibration : Tensor, (n_points,)
        Added to every answer: logarithms of the factors that calibration found.
    """

    calibration: Tensor

    def __init__(self, middle: int, deep: int, flat: int, n_points: int) -> None:
        super().__init__()
        self.fuse = nn.Sequential(
            nn.Conv2d(middle + deep, _CHANNELS, 1, bias=False),
            nn.BatchNorm2d(_CHANNELS),
            nn.ReLU6(inplace=True),
            nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1, groups=_CHANNELS, bias=False),
            nn.BatchNorm2d(_CHANNELS),
            nn.ReLU6(inplace=True),
        )
        self.around = nn.Linear(_CHANNELS, _CHANNELS, bias=False)
        self.whole = nn.Linear(flat, _CHANNELS, bias=False)
        #: of each landmark
        self.own = nn.Parameter(0.1 * torch.randn(n_points, _CHANNELS))
        self.answer = nn.Parameter(0.01 * torch.randn(n_points, _CHANNELS))
        self.bias = nn.Parameter(torch.full((n_points,), _START))
        self.register_buffer("calibration", torch.zeros(n_points))

    def forward(self, points: Tensor, features: Features) -> Tensor:
        """Points ``(n, n_points, 2)`` and features to logarithms of scales ``(n, n_points)``."""
        middle, deep, flat = (part.detach().float() for part in features[1:])
        with torch.autocast(points.device.type, enabled=False):
            deep = interpolate(deep, size=middle.shape[2:], mode="nearest")
            seen = self.fuse(torch.cat([middle, deep], 1))
            local = self.around(features_at(seen, points.detach().float()))  # (n, n_points, hidden)
            hidden = torch.relu(local + self.whole(flat)[:, None] + self.own)
            stated = (hidden * self.answer).sum(2) + self.bias
            return stated.clamp(_LEAST, _MOST) + self.calibration
