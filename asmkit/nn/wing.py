"""Distances that weigh small errors more than a norm does, and ones that weigh large errors less.

Both are functions of the error of one coordinate, and homogeneous: errors and constants in other
units give the same value in those units.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["soft_wing", "wing"]


def wing(error: Tensor, width: float, curvature: float) -> Tensor:
    """The Wing loss: a logarithm near 0, the absolute error less a constant beyond.

    ``w ln(1 + |x| / ε)`` for ``|x| < w``, else ``|x| − C`` with C = w − w ln(1 + w / ε), which
    joins the two. Source: Feng et al., "Wing Loss for Robust Facial Landmark Localisation with
    Convolutional Neural Networks", CVPR 2018, arXiv 1711.06753, equation 5.

    Parameters
    ----------
    error : Tensor
        Any shape.
    width, curvature : float
        w, up to which the slope is more than 1, and ε, in the units of the error.

    Returns
    -------
    Tensor
        Of the same shape; its gradient at an error of 0 is 0.
    """
    distance = error.abs()
    joint = width - width * math.log1p(width / curvature)
    near = width * torch.log1p(distance / curvature)
    return torch.where(distance < width, near, distance - joint)


def soft_wing(error: Tensor, first: float, second: float, curvature: float) -> Tensor:
    """The Soft Wing loss: the absolute error near 0, a logarithm beyond.

    ``|x|`` for ``|x| < ω₁``, else ``ω₂ ln(1 + |x| / ε) + B`` with B = ω₁ − ω₂ ln(1 + ω₁ / ε), which
    joins the two. Source: Lin et al., "Structure-Coherent Deep Feature Learning for Robust Face
    Alignment", IEEE Transactions on Image Processing 2021, doi 10.1109/TIP.2021.3082319. The paper
    is not open: the formula and the constants 2, 20 and 0.5 are those of its implementation in
    MMPose, ``SoftWingLoss``. With them the slope leaps from 1 to 8 at ω₁ and is below 1 again from
    ω₂ on.

    Parameters
    ----------
    error : Tensor
        Any shape.
    first, second, curvature : float
        ω₁, ω₂ and ε, in the units of the error.

    Returns
    -------
    Tensor
        Of the same shape; its gradient at an error of 0 is 0.
    """
    distance = error.abs()
    joint = first - second * math.log1p(first / curvature)
    far = second * torch.log1p(distance / curvature) + joint
    return torch.where(distance < first, distance, far)
