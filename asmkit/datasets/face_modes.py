"""How the mean head varies: identity and expression as hand-made displacement fields.

A field is a sum of Gaussian windows, each moving what lies inside it by an offset and stretching
it about its centre; fields of symmetric modes are mirrored exactly. Lengths are centimetres and
a row's size is one standard deviation (identity) or the full expression.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from asmkit.datasets.face_mesh import HINGE, PARTS, FaceMesh, face_mesh
from asmkit.datasets.face_sculpt import (
    EYEBALL_CENTRE,
    EYEBALL_RADII,
    LID_THICKNESS,
    mirrored,
)

__all__ = [
    "FaceModes", "express", "face_modes", "identity_vertices", "sample_expression",
    "sample_identity", "shape_face",
]  # fmt: skip

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Triple = tuple[float, float, float]

_ANY = np.inf
_NONE = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class _Window:
    """Moves the neighbourhood of ``at`` (and of its mirror image)."""

    at: Triple
    spread: Triple
    offset: Triple = _NONE
    stretch: Triple = _NONE

    def displace(self, points: Array) -> Array:
        moved = self._one_side(points)
        if self.at[0] != 0:
            moved += mirrored(self._one_side(mirrored(points)))
        return moved

    def _one_side(self, points: Array) -> Array:
        away = points - np.array(self.at)
        weight = np.exp(-0.5 * np.sum((away / np.array(self.spread)) ** 2, axis=1))
        return np.asarray(weight[:, None] * (np.array(self.offset) + away * np.array(self.stretch)))


_W = _Window

_IDENTITY: dict[str, tuple[_Window, ...]] = {
    "width": (_W((0, 0, 0), (_ANY, _ANY, _ANY), stretch=(0.05, 0, 0)),),
    "height": (_W((0, 0, 0), (_ANY, _ANY, _ANY), stretch=(0, 0.045, 0)),),
    "depth": (_W((0, 0, 0), (_ANY, _ANY, _ANY), stretch=(0, 0, 0.05)),),
    "lower face": (_W((0, 10, -6), (6, 3, _ANY), (0, 0.45, 0)),),
    "jaw width": (_W((5, 8.5, -2), (2.5, 2.5, 4), (0.4, 0, 0)),),
    "chin width": (_W((0, 10, -9), (2.5, 2, 3), stretch=(0.16, 0, 0)),),
    "chin": (_W((0, 10.5, -9), (1.6, 1.5, 2.5), (0, 0.1, -0.4)),),
    "cheek bones": (_W((5.5, 2, -5), (2, 1.5, 3), (0.25, 0, -0.2)),),
    "cheeks": (_W((4.3, 5.5, -6), (1.8, 2, 2.5), (0.4, 0, -0.25)),),
    "forehead": (_W((0, -7, -6), (8, 3, 8), (0, -0.5, 0)),),
    "temples": (_W((6.5, -3, -3), (2, 3, 4), (0.3, 0, 0)),),
    "brow height": (_W((3.2, -2.3, -8), (2.2, 0.9, 2.5), (0, 0.3, 0)),),
    "brow arch": (_W((3.6, -2.5, -8), (1, 0.7, 2), (0, 0.18, 0)),),
    "inner brow": (_W((1.2, -2, -9), (0.8, 0.7, 2), (0.08, 0.15, 0)),),
    "outer brow": (_W((5.3, -1.8, -7), (0.8, 0.8, 2), (0.08, 0.22, 0)),),
    "brow ridge": (_W((2.5, -1.8, -8.5), (2.2, 0.7, 2), (0, 0, -0.25)),),
    "eye distance": (_W((3.1, 0, -8), (2, 1.3, 2.5), (0.17, 0, 0)),),
    "eye height": (_W((3.1, 0, -8), (1.9, 0.8, 2), stretch=(0, 0.14, 0)),),
    "eye width": (_W((3.1, 0, -8), (2, 1, 2), stretch=(0.06, 0, 0)),),
    "eye slant": (_W((4.6, 0, -7), (0.9, 0.9, 2), (0, 0.13, 0)),),
    "eye depth": (_W((3.1, 0, -8), (2, 1.2, 2.5), (0, 0, 0.2)),),
    "nose length": (_W((0, 3.6, -10), (1.8, 1.3, 3), (0, 0.33, 0)),),
    "nose width": (_W((0, 3.5, -10), (2.2, 1.2, 2.5), stretch=(0.13, 0, 0)),),
    "nose tip": (_W((0, 3.2, -11.5), (1.1, 1.2, 2), (0, 0, -0.3)),),
    "nose tip height": (_W((0, 3.2, -12), (0.9, 0.8, 1.5), (0, 0.2, 0)),),
    "nose bridge": (_W((0, 1, -10), (0.8, 1.2, 2), (0, 0, -0.22)),),
    "nose bridge width": (_W((0, 1, -10), (1.2, 1.5, 2), stretch=(0.16, 0, 0)),),
    "mouth height": (_W((0, 6.5, -10), (3, 1.3, 3), (0, 0.2, 0)),),
    "mouth width": (_W((0, 6.5, -10), (3, 1.5, 3), stretch=(0.085, 0, 0)),),
    "upper lip": (_W((0, 5.6, -10.3), (2, 0.45, 3), (0, 0.14, 0)),),
    "lower lip": (_W((0, 7.6, -10), (2, 0.5, 3), (0, 0.16, 0)),),
    "lips forward": (_W((0, 6.5, -10), (2, 1.1, 2), (0, 0, -0.2)),),
    "mouth corners": (_W((2.5, 6.5, -9), (0.8, 0.8, 2), (0, 0.12, 0)),),
    "neck": (_W((5, 15, 0), (4, 4, 10), (0.6, 0, 0)),),
    "ears": (_W((7.2, 1, 2), (1.2, 4, 2.5), (0.3, 0, 0)),),
}

_EXPRESSION: dict[str, tuple[_Window, ...]] = {
    "smile": (
        _W((2.6, 6.5, -9), (1.3, 1.2, 2.5), (0.7, -0.5, 0.45)),
        _W((0, 5.7, -10.3), (1.7, 0.5, 2.5), (0, -0.1, 0.15)),
        _W((3.6, 3.6, -8), (1.5, 1.2, 2.5), (0.1, -0.3, -0.3)),
        _W((3.1, 0.8, -8), (1.6, 0.4, 2), (0, -0.15, 0)),
        _W((0, 3.8, -10), (2.2, 0.8, 2), _NONE, (0.08, 0, 0)),
    ),
    "pucker": (
        _W((2.6, 6.5, -9), (1.3, 1.2, 2.5), (-0.9, 0, -0.1)),
        _W((0, 6.5, -10), (1.8, 1.0, 2), (0, 0, -0.45)),
    ),
    "corners down": (_W((2.6, 6.6, -9), (1.0, 0.9, 2.5), (0.05, 0.35, 0.05)),),
    "brows up": (_W((3.2, -2.6, -8), (2.6, 1.1, 3), (0, -0.6, 0)),),
    "frown": (
        _W((1.2, -2, -9), (1.0, 0.8, 2), (-0.22, 0.38, 0)),
        _W((2.6, -0.6, -8), (1.5, 0.5, 2), (0, 0.08, 0)),
    ),
}

_N_UNEVEN = 12
_LIPS = ("upper lip up", "lower lip down")


@dataclass(frozen=True, eq=False)
class FaceModes:
    """Displacement fields ``(k, v·3)`` in the order of ``identity`` then ``expression`` names."""

    identity: tuple[str, ...]
    expression: tuple[str, ...]
    fields: Array


def _field(windows: tuple[_Window, ...], points: Array) -> Array:
    return np.asarray(sum(window.displace(points) for window in windows))


def _jaw_open(mesh: FaceMesh) -> Array:
    """Unit turn of the jaw about its hinge (radians, to first order)."""
    arm = mesh.anchors - HINGE
    turned = np.stack([np.zeros(len(arm)), -arm[:, 2], arm[:, 1]], axis=1)
    return np.asarray(mesh.jaw[:, None] * turned)


def _lips_apart(mesh: FaceMesh) -> tuple[Array, Array]:
    up = _W((0, 6.3, -10), (2.0, 0.8, 2.5), (0, -0.5, 0.05)).displace(mesh.anchors)
    down = _W((0, 6.7, -10), (1.8, 0.8, 2.5), (0, 0.45, 0.05)).displace(mesh.anchors)
    lip = (mesh.part != PARTS.index("teeth"))[:, None]
    return up * (1 - mesh.jaw[:, None]) * lip, down * mesh.jaw[:, None] * lip


def _eye_closing(mesh: FaceMesh, side: int) -> Array:
    """The upper lid slides down over the eyeball until it meets the lower one."""
    lids, sign = mesh.lids[side], (1.0, -1.0)[side]
    x, y = mesh.anchors[:, 0] * sign, mesh.anchors[:, 1]
    ring = mesh.anchors[lids[:18]] * [sign, 1, 1]
    upper = np.interp(x, ring[:10, 0], ring[:10, 1])
    lower = np.interp(x, ring[9:, 0][::-1].clip(ring[0, 0]), ring[9:, 1][::-1])
    corner_line = np.interp(x, ring[[0, 9], 0], ring[[0, 9], 1])
    near = (mesh.part != PARTS.index("eyeball")) & (mesh.anchors[:, 2] < -4)
    fade = np.exp(-0.5 * ((y - upper).clip(None, 0) / 0.5) ** 2)
    sideways = np.exp(-0.5 * (np.clip(np.abs(x - 3.12) - 1.45, 0, None) / 0.3) ** 2)
    moved = np.zeros((len(x), 3))
    moving = near & (y < corner_line) & (x > 0)
    moved[:, 1] = moving * fade * sideways * (lower - upper) * 0.92
    return moved


def _uneven(mesh: FaceMesh) -> Array:
    """Smooth fields without symmetry: no face is its own mirror image."""
    rng = np.random.default_rng(68)
    at = np.c_[
        rng.uniform(-6, 6, _N_UNEVEN), rng.uniform(-4, 11, _N_UNEVEN), np.full(_N_UNEVEN, -7)
    ]
    offset = rng.normal(0, 0.14, (_N_UNEVEN, 3))
    away = (mesh.anchors[None] - at[:, None]) / [2.2, 2.2, 4.0]
    weight = np.exp(-0.5 * np.sum(away**2, axis=2))
    return np.asarray(weight[:, :, None] * offset[:, None])


@cache
def face_modes() -> FaceModes:
    """All displacement fields of the mean head (computed once)."""
    mesh = face_mesh()
    uneven = tuple(f"uneven {i}" for i in range(_N_UNEVEN))
    fields = [_field(windows, mesh.anchors) for windows in _IDENTITY.values()]
    fields += list(_uneven(mesh))
    fields += [_field(windows, mesh.anchors) for windows in _EXPRESSION.values()]
    fields += [_jaw_open(mesh), *_lips_apart(mesh), _eye_closing(mesh, 0), _eye_closing(mesh, 1)]
    return FaceModes(
        identity=(*_IDENTITY, *uneven),
        expression=(*_EXPRESSION, "jaw open", *_LIPS, "right eye shut", "left eye shut"),
        fields=np.stack(fields).reshape(len(fields), -1),
    )


def sample_identity(rng: np.random.Generator) -> Array:
    """Coefficients of the identity fields, within ±2.5 standard deviations."""
    return rng.normal(size=len(face_modes().identity)).clip(-2.5, 2.5)


def sample_expression(rng: np.random.Generator) -> Array:
    """Coefficients of the expression fields: many faces at rest, some far from it."""
    smile, pucker, down, up, frown = rng.beta(0.5, 1.2, 5) * (rng.random(5) < 0.6)
    pucker *= 0.8 * (smile < 0.3)
    down *= smile < 0.3
    up, frown = up * 1.1 - 0.15, frown * (up < 0.4)
    talking = rng.random() < 0.55
    jaw = talking * 0.3 * rng.beta(0.9, 2.0)
    lips = rng.beta(0.6, 1.5, 2) * (talking or smile > 0.3)
    shut = rng.beta(0.5, 4) - 0.08 if rng.random() < 0.92 else 1.0
    wink = np.clip(shut + rng.normal(0, 0.04, 2), -0.15, 1.0)
    return np.array([smile, pucker, down, up, frown, jaw, *lips, *wink])


def shape_face(identity: Array, expression: Array) -> Array:
    """Vertices ``(v, 3)`` of a face, in centimetres, in the frame of the mean head."""
    mesh, modes = face_mesh(), face_modes()
    # not a matrix product: its threads would fight ours over such a small sum
    moved = np.einsum("k,kv->v", np.concatenate([identity, expression]), modes.fields)
    vertices = mesh.vertices + moved.reshape(-1, 3)
    _clear_eyeballs(vertices, np.arange(len(vertices)))
    return np.asarray(vertices)


def identity_vertices(identity: Array) -> Array:
    """Vertices ``(v, 3)`` of a face without expression, for :func:`express`."""
    fields = face_modes().fields[: len(identity)]
    moved = np.einsum("k,kv->v", identity, fields)
    return np.asarray(face_mesh().vertices + moved.reshape(-1, 3))


def express(neutral: Array, expressions: Array, rows: Ints | None = None) -> Array:
    """One face with many expressions: what :func:`shape_face` gives, but for the rounding.

    Parameters
    ----------
    neutral : (v, 3), from :func:`identity_vertices`.
    expressions : (..., k), coefficients of the expression fields.
    rows : (m,), the vertices wanted; all where None.

    Returns
    -------
    ndarray, shape (..., m, 3)
    """
    fields = face_modes().fields[-expressions.shape[-1] :].reshape(-1, *neutral.shape)
    needed = np.arange(len(neutral))
    if rows is not None:
        needed = np.union1d(rows, _eye_vertices())
        neutral, fields = neutral[needed], fields[:, needed]
    flat = np.einsum("...k,kv->...v", expressions, fields.reshape(len(fields), -1))
    vertices = flat.reshape(*expressions.shape[:-1], *neutral.shape) + neutral
    _clear_eyeballs(vertices, needed)
    return vertices if rows is None else np.asarray(vertices[..., np.searchsorted(needed, rows), :])


@cache
def _eye_vertices() -> Ints:
    """The vertices that :func:`_clear_eyeballs` reads."""
    return np.unique([*np.concatenate(face_mesh().lids), _eyeball_vertex(0), _eyeball_vertex(1)])


def _clear_eyeballs(vertices: Array, rows: Ints) -> None:
    """Keep the lids in front of the eyeballs, which move with their sockets.

    ``vertices (..., m, 3)`` are those of the mesh whose numbers are ``rows (m,)``, in order.
    """
    mesh = face_mesh()
    for side, lids in enumerate(mesh.lids):
        ball, at = _eyeball_vertex(side), np.searchsorted(rows, lids)
        moved = vertices[..., np.searchsorted(rows, [ball]), :] - mesh.vertices[ball]
        centre = moved + EYEBALL_CENTRE * [1.0 - 2.0 * side, 1, 1]
        away = (vertices[..., at, :] - centre) / EYEBALL_RADII
        square = 1 - away[..., 0] ** 2 - away[..., 1] ** 2
        ball_front = centre[..., 2] - EYEBALL_RADII[2] * np.sqrt(square.clip(0, None))
        before, depth = ball_front - 0.7 * LID_THICKNESS, vertices[..., at, 2]
        hit = square > 0
        hit[..., 18:36] = False  # the rim behind the lid's edge reaches into the eye
        vertices[..., at, 2] = np.where(hit, np.minimum(depth, before), depth)


@cache
def _eyeball_vertex(side: int) -> int:
    mesh = face_mesh()
    sign = 1.0 - 2.0 * side
    mine = (mesh.part == PARTS.index("eyeball")) & (mesh.anchors[:, 0] * sign > 0)
    return int(np.flatnonzero(mine)[0])
