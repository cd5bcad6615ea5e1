"""How the neck and shoulders of the synthetic heads follow the head."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from asmkit.datasets.face_mesh import PARTS, face_mesh
from asmkit.datasets.face_sculpt import BODY_START
from asmkit.pose import euler_to_rotation

__all__ = ["sample_following", "turn_head"]

Array = npt.NDArray[np.float64]

_NECK = np.array([0.0, 13.0, 1.5])


@cache
def _body_share() -> Array:
    """How far each vertex follows the body instead of the head."""
    mesh = face_mesh()
    t = np.clip((mesh.flat[:, 1] - 15.5) / (BODY_START - 15.5), 0, 1)
    skin = mesh.part == PARTS.index("skin")
    return np.asarray(np.where(skin, t * t * (3 - 2 * t), 0.0))[:, None]


def sample_following(rng: np.random.Generator) -> Array:
    """The share of the head's yaw, pitch and roll that the shoulders follow."""
    return rng.uniform([0.1, 0.0, 0.0], [0.9, 0.4, 0.5])


def turn_head(head: Array, euler: Array, rotation: Array, following: Array) -> Array:
    """Turn the head, and the shoulders by a share of its angles."""
    body = euler_to_rotation(euler * following)
    share = _body_share()
    turned = head @ rotation.T
    shoulders = (head - _NECK) @ body.T + rotation @ _NECK
    return np.asarray(turned + share * (shoulders - turned))
