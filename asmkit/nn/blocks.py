"""Inverted residual blocks, which every network here is made of, and how they start.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
table 2. Block numbers here are the ones of the Keras model that ASMNet was published with: the
first bottleneck (expansion 1) is block 0, the last (320 channels) is block 16.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor, nn

__all__ = [
    "DEEP",
    "MIDDLE",
    "SHALLOW",
    "InvertedResidual",
    "bottlenecks",
    "conv_bn",
    "initialise",
    "scaled",
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
