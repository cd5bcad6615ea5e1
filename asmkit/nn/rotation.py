"""Rotations of the head in torch: the angles of :meth:`asmkit.Pose.euler` and the 6-D form."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["angles_of", "rotation_from_6d", "rotation_of"]


def rotation_from_6d(numbers: Tensor) -> Tensor:
    """Rotations ``(n, 3, 3)`` of ``(n, 6)``: two rows, made orthonormal, and their product.

    Source: Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", CVPR
    2019, equation 15 (there the columns). The result is continuous in the numbers, as no three
    angles can be.
    """
    first, second = numbers[:, :3], numbers[:, 3:]
    x = torch.nn.functional.normalize(first, dim=1, eps=1e-6)
    y = second - (x * second).sum(1, keepdim=True) * x
    y = torch.nn.functional.normalize(y, dim=1, eps=1e-6)
    z = torch.stack(
        [
            x[:, 1] * y[:, 2] - x[:, 2] * y[:, 1],
            x[:, 2] * y[:, 0] - x[:, 0] * y[:, 2],
            x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0],
        ],
        dim=1,
    )
    return torch.stack([x, y, z], dim=1)


def angles_of(rotation: Tensor) -> Tensor:
    """Yaw, pitch, roll ``(n, 3)`` in radians of ``(n, 3, 3)``, the ``"aflw"`` convention."""
    across = (rotation[:, 0, 0].square() + rotation[:, 0, 1].square()).sqrt()
    yaw = torch.atan2(-rotation[:, 0, 2], across)
    pitch = torch.atan2(rotation[:, 1, 2], rotation[:, 2, 2])
    roll = torch.atan2(-rotation[:, 0, 1], rotation[:, 0, 0])
    return torch.stack([yaw, pitch, roll], dim=1)


def rotation_of(angles: Tensor) -> Tensor:
    """Rotations ``(n, 3, 3)`` of yaw, pitch, roll ``(n, 3)`` in radians; inverse of angles_of."""
    (cy, cp, cr), (sy, sp, sr) = angles.cos().unbind(1), angles.sin().unbind(1)
    entries = [
        *(cy * cr, -cy * sr, -sy),
        *(sp * sy * cr + cp * sr, cp * cr - sp * sy * sr, sp * cy),
        *(cp * sy * cr - sp * sr, -cp * sy * sr - sp * cr, cp * cy),
    ]
    return torch.stack(entries, dim=1).reshape(-1, 3, 3)
