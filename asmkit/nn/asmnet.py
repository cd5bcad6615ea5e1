"""ASMNet: a light network for facial landmarks and head pose.

Source: Fard, Abdollahi, Mahoor, "ASMNet: a Lightweight Deep Neural Network for Face Alignment and
Pose Estimation", CVPR workshops 2021, arXiv 2103.00119, section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from asmkit.nn.blocks import DEEP, MIDDLE, SHALLOW, bottlenecks, conv_bn, scaled
from asmkit.nn.confidence import confidence_head
from asmkit.nn.heads import Features, NetworkOutput
from asmkit.nn.pooled import PooledNetwork
from asmkit.nn.visibility import visibility_head

__all__ = ["ASMNet"]

#: Blocks whose linear bottleneck outputs are pooled (the paper's figure 2): 24, 32, 64, 96, 160 and
#: 160 channels, 536 in all at width 1.
TAPS = (1, 3, 6, 10, 13, 15)


class ASMNet(PooledNetwork):
    """MobileNetV2 cut after block 15, with shallow to deep features pooled for the two heads.

    At 68 points and width 1: 1,412,435 trainable parameters, 513 MFLOPs at 224×224 (a
    multiply-add counted as two), 67 M multiply-adds at 112×112.

    Parameters
    ----------
    n_points : int
        Landmarks to predict.
    width : float
        Channel multiplier; 1 is the paper's network.
    dropout : float
        Share of the pooled features dropped in training; 0.3 in the paper.
    head : {"pooled", "spatial", "shape"}
    modes : int
        How landmarks are found, see :mod:`asmkit.nn.pooled`; ``"pooled"`` in the paper.
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
        dropout: float = 0.3,
        head: str = "pooled",
        modes: int = 0,
        confidence: str = "none",
        visibility: bool = False,
    ) -> None:
        blocks = list(bottlenecks(width, TAPS[-1] + 1))
        features = sum(blocks[tap][1] for tap in TAPS)
        sizes = (blocks[MIDDLE][1], blocks[DEEP][1], features)
        super().__init__(n_points, sizes, head=head, modes=modes, dropout=dropout)
        self.stem = conv_bn(3, scaled(32, width), 3, stride=2)
        self.blocks = nn.ModuleList(block for block, _ in blocks)
        self.initialise()
        self.confidence = confidence_head(confidence, *sizes, n_points)
        shallow = blocks[SHALLOW][1]
        self.visibility = visibility_head(visibility, shallow, *sizes, n_points)

    def find(self, images: Tensor) -> tuple[NetworkOutput, Features]:
        """All but scales and visibility, and the features they are stated by."""
        x = self.stem(images)  # (n, 32, s/2, s/2)
        pooled, maps = [], {}
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in (SHALLOW, MIDDLE, DEEP):
                maps[number] = x
            if number in TAPS:
                # Not x.mean((2, 3)): its gradient is not channels-last and slows all below.
                pooled.append(torch.flatten(adaptive_avg_pool2d(x, 1), 1))  # (n, channels)
        flat = torch.cat(pooled, 1)  # (n, 536)
        features = Features(maps[SHALLOW], maps[MIDDLE], maps[DEEP], flat)
        return self.heads(features), features
