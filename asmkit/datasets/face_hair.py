"""Where hair grows on the synthetic heads, and how it stands out."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from asmkit.datasets.face_mesh import PARTS, face_mesh

__all__ = ["HAIR_STYLES", "beyond_hairline", "grow_hair", "sample_hair"]

Array = npt.NDArray[np.float64]

# Hairlines in unrolled coordinates: height b at the distances |a| from the midline.
_HAIRLINES = {
    "hair": (
        [0, 3, 5.0, 6.5, 7.6, 9.0, 9.7, 10.5, 11.5, 22],
        [-5.9, -5.6, -4.6, -2.8, -1.2, 0.6, 0.4, -2.0, -2.0, 8.5],
    ),
    "hair high": (
        [0, 2.2, 4, 6.0, 8.0, 9.2, 10.5, 12, 22],
        [-7.2, -6.6, -7.8, -5.0, -2.4, -1.0, -2.5, -1, 7.5],
    ),
    "hair low": (
        [0, 3, 5.0, 6.2, 7.4, 9.0, 9.7, 10.5, 12, 22],
        [-3.9, -3.8, -3.6, -2.0, 0.2, 1.0, 0.6, -1.5, 1, 10],
    ),
}

HAIR_STYLES = tuple(_HAIRLINES)


def beyond_hairline(flat: Array, style: str) -> Array:
    """How far each point ``(..., 2)`` of the unrolled head lies above the hairline."""
    return np.asarray(np.interp(np.abs(flat[..., 0]), *_HAIRLINES[style]) - flat[..., 1])


@cache
def _growth(style: str) -> Array:
    """Outward displacement ``(v, 3)`` of hair one centimetre thick."""
    mesh = face_mesh()
    depth = np.clip(beyond_hairline(mesh.flat, style) / 2.0, 0, 1)
    depth *= mesh.part == PARTS.index("skin")
    depth[mesh.landmarks] = 0
    away = mesh.vertices - [0, -2.0, 0.5]
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    return np.asarray(depth[:, None] * away)


def grow_hair(vertices: Array, style: str, thickness: float, length: float) -> Array:
    """Thicken the scalp of a style by centimetres, and lengthen the falling hair."""
    mesh = face_mesh()
    grown = vertices + (thickness * _growth(style) if style in HAIR_STYLES else 0.0)
    falling = (mesh.part == PARTS.index("hair")) & (mesh.vertices[:, 1] > 1.0)
    grown[falling, 1] += (length - 1) * (mesh.vertices[falling, 1] - 1.0)
    return grown


def sample_hair(rng: np.random.Generator) -> tuple[str, bool]:
    """A style of hair ("bald" for none) and whether it falls to the shoulders."""
    style = str(rng.choice(["bald", *HAIR_STYLES], p=[0.08, 0.5, 0.22, 0.2]))
    return style, bool(rng.random() < 0.4 and style in ("hair", "hair low"))
