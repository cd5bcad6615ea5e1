"""The MobileNetV2 baseline.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.
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

__all__ = ["MobileNetV2"]


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
    head : {"pooled", "spatial", "shape"}
    modes : int
        How landmarks are found, see :mod:`asmkit.nn.pooled`.
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
        head: str = "pooled",
        modes: int = 0,
        confidence: str = "none",
        visibility: bool = False,
    ) -> None:
        blocks = list(bottlenecks(width, 17))
        features = scaled(1280, max(width, 1.0))
        sizes = (blocks[MIDDLE][1], blocks[DEEP][1], features)
        super().__init__(n_points, sizes, head=head, modes=modes, dropout=dropout)
        first, last = scaled(32, width), blocks[-1][1]
        self.trunk = nn.Sequential(
            conv_bn(3, first, 3, stride=2),
            *(block for block, _ in blocks),
            conv_bn(last, features, 1),
        )
        self.initialise()
        self.confidence = confidence_head(confidence, *sizes, n_points)
        shallow = blocks[SHALLOW][1]
        self.visibility = visibility_head(visibility, shallow, *sizes, n_points)

    def find(self, images: Tensor) -> tuple[NetworkOutput, Features]:
        """All but scales and visibility, and the features they are stated by."""
        stem, blocks = 1, self.trunk  # the first of the trunk is no block
        shallow = blocks[: stem + SHALLOW + 1](images)
        middle = blocks[stem + SHALLOW + 1 : stem + MIDDLE + 1](shallow)
        deep = blocks[stem + MIDDLE + 1 : stem + DEEP + 1](middle)
        x = blocks[stem + DEEP + 1 :](deep)  # (n, 1280, s/32, s/32)
        flat = torch.flatten(adaptive_avg_pool2d(x, 1), 1)
        features = Features(shallow, middle, deep, flat)
        return self.heads(features), features
