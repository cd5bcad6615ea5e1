"""Features at landmarks."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["features_at"]


def features_at(features: Tensor, points: Tensor) -> Tensor:
    """Features ``(n, c, size, size)`` at points ``(n, p, 2)``, bilinear: ``(n, p, c)``.

    Points are relative to the crop; those outside of it see its border. A small matrix product: no
    gather, so it is exported like any other layer.
    """
    size = features.shape[3]
    cells = torch.arange(size, device=points.device)
    place = ((points + 1) * (size / 2) - 0.5).clamp(0, size - 1)  # in cells
    x, y = (1 - (place[..., None] - cells).abs()).clamp(min=0).unbind(2)  # (n, p, size)
    shares = (y[..., :, None] * x[..., None, :]).flatten(2)
    return shares @ features.flatten(2).transpose(1, 2)
