"""Landmarks as the centres of mass of maps, which keep where things are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from asmkit.nn.blocks import conv_bn

__all__ = ["IntegralMaps"]


class IntegralMaps(nn.Module):
    """The centres of mass of one softmax map a landmark, from features of two sizes.

    Source: Sun et al., "Integral Human Pose Regression", ECCV 2018, equation 2.

    Parameters
    ----------
    middle, deep : int
        Channels of the features at 1/8 and at 1/16 of the crop's side.
    n_points : int
    """

    def __init__(self, middle: int, deep: int, n_points: int) -> None:
        super().__init__()
        self.fuse = nn.Sequential(
            conv_bn(middle + deep, deep, 1),
            conv_bn(deep, deep, 3, groups=deep),
            conv_bn(deep, deep, 1),
        )
        self.maps = nn.Conv2d(deep, n_points, 1)

    def forward(self, middle: Tensor, deep: Tensor) -> Tensor:
        """Features ``(n, ·, h, w)`` and about half of it, to ``(n, n_points, 2)`` in the crop."""
        deep = interpolate(deep, size=middle.shape[2:], mode="nearest")
        logits = self.maps(self.fuse(torch.cat([middle, deep], 1)))
        shares = torch.softmax(logits.flatten(2), 2).reshape(logits.shape)
        x = (shares.sum(2) * _centres(shares.shape[3], shares)).sum(2)
        y = (shares.sum(3) * _centres(shares.shape[2], shares)).sum(2)
        return torch.stack([x, y], 2)

    def start(self) -> None:
        """Flat maps, whose centre is the crop's."""
        nn.init.normal_(self.maps.weight, std=0.01)
        assert self.maps.bias is not None  # made with one
        nn.init.zeros_(self.maps.bias)


def _centres(count: int, like: Tensor) -> Tensor:
    """Centres of the cells along a side of the crop, from -1 to 1."""
    return (2 * torch.arange(count, device=like.device) + 1) / count - 1
