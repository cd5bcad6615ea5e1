"""The head that tells landmarks in plain view from those that something lies over.

A covered landmark is often found well, from the rest of the face: how far it is from the truth does
not tell. What lies there does. So this head looks at finer features than the one of the scales, and
at what surrounds them: it brings what the network sees at 1/16, 1/8 and 1/4 of the crop's side
together at 1/4, compares it with its surroundings by a few cheap convolutions, and reads the
result where each landmark was found. All of that is given without gradient: landmarks, pose, face
and scales stay what they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from asmkit.nn.heads import Features
from asmkit.nn.sampling import features_at

__all__ = ["VisibilityHead", "visibility_head"]

#: Channels at 1/4 of the crop's side, and of what answers, at any width of the network.
_CHANNELS, _HIDDEN = 32, 48

#: How far apart the cells lie that each 5×5 filter compares: together they reach 6 cells, which is
#: 24 pixels of the crop, to each side.
_STEPS = (1, 2)

#: Logit before training: most landmarks are in plain view.
_START = 2.0


def visibility_head(
    wanted: bool, shallow: int, middle: int, deep: int, flat: int, n_points: int
) -> VisibilityHead | None:
    """The head of a network that was asked for one, else None.

    As :func:`asmkit.nn.confidence.confidence_head` it takes no random number from another part.
    """
    if not wanted:
        return None
    with torch.random.fork_rng(devices=[]):
        return VisibilityHead(shallow, middle, deep, flat, n_points)


class VisibilityHead(nn.Module):
    """Logit of each landmark that nothing lies over it.

    Parameters
    ----------
    shallow, middle, deep, flat : int
        Channels of the features, see :class:`asmkit.nn.heads.Features`.
    n_points : int

    Attributes
    ----------
    calibration : Tensor, (2,)
        Slope and offset that calibration found: every answer is ``slope · logit + offset``.
    """

    calibration: Tensor

    def __init__(self, shallow: int, middle: int, deep: int, flat: int, n_points: int) -> None:
        super().__init__()
        self.coarse = _filtered(middle + deep, _CHANNELS)
        self.fuse = _filtered(shallow + _CHANNELS, _CHANNELS)
        self.compare = nn.ModuleList(_Surroundings(_CHANNELS, step) for step in _STEPS)
        self.around = nn.Linear(_CHANNELS, _HIDDEN, bias=False)
        self.whole = nn.Linear(flat, _HIDDEN, bias=False)
        #: of each landmark
        self.own = nn.Parameter(0.1 * torch.randn(n_points, _HIDDEN))
        self.answer = nn.Parameter(0.1 * torch.randn(1, _HIDDEN).repeat(n_points, 1))
        self.bias = nn.Parameter(torch.full((n_points,), _START))
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    def forward(self, points: Tensor, features: Features) -> Tensor:
        """Points ``(n, n_points, 2)`` and features to logits ``(n, n_points)``."""
        shallow, middle, deep, flat = (part.detach().float() for part in features)
        with torch.autocast(points.device.type, enabled=False):
            deep = interpolate(deep, size=middle.shape[2:], mode="nearest")
            coarse = self.coarse(torch.cat([middle, deep], 1))
            coarse = interpolate(coarse, size=shallow.shape[2:], mode="nearest")
            seen = self.fuse(torch.cat([shallow, coarse], 1))
            for layer in self.compare:
                seen = layer(seen)
            local = self.around(features_at(seen, points.detach().float()))  # (n, n_points, hidden)
            hidden = torch.relu(local + self.whole(flat)[:, None] + self.own)
            slope, offset = self.calibration.unbind()
            return ((hidden * self.answer).sum(2) + self.bias) * slope + offset


class _Surroundings(nn.Module):
    """Add to every cell what a 5×5 depthwise filter makes of its surroundings."""

    def __init__(self, channels: int, step: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(
                channels, channels, 5, padding=2 * step, dilation=step, groups=channels, bias=False
            ),
            nn.BatchNorm2d(channels),
            nn.ReLU6(inplace=True),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out


def _filtered(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True)
    )
