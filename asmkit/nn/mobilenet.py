"""Inverted residual blocks and the MobileNetV2 baseline.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
table 2. Block numbers here are the ones of the Keras model that ASMNet was published with: the
first bottleneck (expansion 1) is block 0, the last (320 channels) is block 16.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from asmkit.nn.confidence import confidence_head
from asmkit.nn.heads import Features, NetworkOutput, PooledNetwork
from asmkit.nn.visibility import visibility_head

__all__ = [
    "DEEP",
    "MIDDLE",
    "SHALLOW",
    "InvertedResidual",
    "MobileNetV2",
    "bottlenecks",
    "conv_bn",
    "initialise",
]

#: (expansion, channels, repeats, stride of the first): MobileNetV2, table 2.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

#: The last blocks at 1/4, 1/8 and 1/16 of the crop's side.
SHALLOW, MIDDLE, DEEP = 2, 5, 12


def scaled(channels: int, width: float) -> int:
    """``channels`` times ``width`` to the nearest multiple of 8, never below 90 % of it."""
    if width == 1.0:
        return channels
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


def conv_bn(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    """Convolution without bias, batch norm and, unless the bottleneck is linear, ReLU6."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU6(inplace=True))
    return nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Expand (1×1), filter (3×3 depthwise), project (1×1, linear); a shortcut where it fits."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [] if expansion == 1 else [conv_bn(inputs, hidden, 1)]
        self.layers = nn.Sequential(
            *expand,
            conv_bn(hidden, hidden, 3, stride=stride, groups=hidden),
            conv_bn(hidden, outputs, 1, relu=False),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """``(n, inputs, h, w)`` to ``(n, outputs, h / stride, w / stride)``."""
        out: Tensor = self.layers(x)
        return x + out if self.shortcut else out


def bottlenecks(width: float, count: int) -> Iterator[tuple[InvertedResidual, int]]:
    """The first ``count`` blocks of MobileNetV2 with the channels that each one gives."""
    inputs = scaled(32, width)
    made = 0
    for expansion, channels, repeats, stride in STAGES:
        outputs = scaled(channels, width)
        for repeat in range(repeats):
            if made == count:
                return
            yield (
                InvertedResidual(inputs, outputs, stride if repeat == 0 else 1, expansion),
                outputs,
            )
            inputs, made = outputs, made + 1


def initialise(module: nn.Module) -> None:
    """He initialisation of convolutions, by the outputs that an input really reaches.

    ``kaiming_normal_`` does not know of groups: it makes the depthwise weights, which reach one
    channel, smaller by √channels, and Adam's steps then turn them by a large angle each.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            # Without padding these networks use only kernels as large as the map: one output each.
            places = layer.weight[0, 0].numel() if any(layer.padding) else 1
            reached = places * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, std=math.sqrt(2 / reached))


class MobileNetV2(PooledNetwork):
    """MobileNetV2 with ASMNet's two heads: the baseline of the ASMNet paper.

    At 68 points and width 1: 2,401,931 trainable parameters, 599 MFLOPs at 224×224.

    Parameters
    ----------
    n_points : int
        Landmarks to predict.
    width : float
        Channel multiplier.
    dropout : float
        Share of the pooled features dropped in training; none in the paper's baseline.
    confidence : {"none", "laplace", "gaussian"}
        Whether it states scales of its errors, see :mod:`asmkit.confidence`.
    visibility : bool
        Whether it tells covered landmarks, see :mod:`asmkit.nn.visibility`.
    """

    def __init__(
        self,
        n_points: int,
        *,
        width: float = 1.0,
        dropout: float = 0.0,
        confidence: str = "none",
        visibility: bool = False,
    ) -> None:
        blocks = list(bottlenecks(width, 17))
        features = scaled(1280, max(width, 1.0))
        super().__init__(n_points, features, dropout=dropout)
        first, last = scaled(32, width), blocks[-1][1]
        self.trunk = nn.Sequential(
            conv_bn(3, first, 3, stride=2),
            *(block for block, _ in blocks),
            conv_bn(last, features, 1),
        )
        initialise(self.trunk)
        sizes = (blocks[MIDDLE][1], blocks[DEEP][1], features, n_points)
        self.confidence = confidence_head(confidence, *sizes)
        self.visibility = visibility_head(visibility, blocks[SHALLOW][1], *sizes)

    def find(self, images: Tensor) -> tuple[NetworkOutput, Features]:
        """All but scales and visibility, and the features they are stated by."""
        stem, blocks = 1, self.trunk  # the first of the trunk is no block
        shallow = blocks[: stem + SHALLOW + 1](images)
        middle = blocks[stem + SHALLOW + 1 : stem + MIDDLE + 1](shallow)
        deep = blocks[stem + MIDDLE + 1 : stem + DEEP + 1](middle)
        x = blocks[stem + DEEP + 1 :](deep)  # (n, 1280, s/32, s/32)
        flat = torch.flatten(adaptive_avg_pool2d(x, 1), 1)
        return self.heads(flat), Features(shallow, middle, deep, flat)
