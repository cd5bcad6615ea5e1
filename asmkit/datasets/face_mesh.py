"""The mean head of the synthetic faces as a triangle mesh with the ibug68 landmarks.

The right half of the picture is built and mirrored, so that the mesh and its landmarks are
exactly symmetric. A landmark is a vertex of the mesh: it moves with identity, expression and pose
without any approximation. The jaw line's landmarks are fixed points of the jaw, not the changing
outline of the picture; the brows' lie along the middle of the painted brow.

See :mod:`asmkit.datasets.face_sculpt` for the surface, the frame and the unrolled coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline
from scipy.spatial import Delaunay, cKDTree

from asmkit.datasets.face_sculpt import (
    EYEBALL_CENTRE,
    EYEBALL_RADII,
    UNROLL_RADIUS,
    inside,
    loft,
    mirrored,
    sculpt,
    smooth_step,
    unroll,
)
from asmkit.schemes import scheme

__all__ = ["HINGE", "PARTS", "FaceMesh", "face_mesh"]

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PARTS = ("skin", "eyeball", "teeth", "gum", "hair", "ear")

# Right half of the 68 landmarks that lie on the front, as (x, y).
_BROW = {22: (1.15, -1.9), 23: (2.3, -2.35), 24: (3.5, -2.5), 25: (4.6, -2.25), 26: (5.6, -1.5)}
_BRIDGE = {27: (0.0, -0.45), 28: (0.0, 0.8), 29: (0.0, 2.0), 30: (0.0, 3.2)}
_NOSTRIL = {33: (0.0, 4.35), 34: (0.75, 4.2), 35: (1.45, 3.95)}
_EYE_UPPER = {42: (1.75, 0.15), 43: (2.6, -0.43), 44: (3.6, -0.48), 45: (4.5, -0.05)}
_EYE_LOWER = {45: (4.5, -0.05), 46: (3.65, 0.4), 47: (2.65, 0.45), 42: (1.75, 0.15)}
_LIP_UPPER = {51: (0.0, 5.68), 52: (0.6, 5.5), 53: (1.5, 5.85), 54: (2.6, 6.5)}
_LIP_LOWER = {54: (2.6, 6.5), 55: (1.6, 7.25), 56: (0.7, 7.55), 57: (0.0, 7.6)}
_INNER_UPPER = {62: (0.0, 6.44), 63: (0.95, 6.38), 64: (2.3, 6.5)}
_INNER_LOWER = {64: (2.3, 6.5), 65: (0.95, 6.5), 66: (0.0, 6.5)}
# The jaw line in unrolled coordinates (a, b), chin first.
_JAW = {
    8: (0.0, 11.4), 9: (2.4, 11.4), 10: (4.5, 11.25), 11: (6.3, 10.7), 12: (7.7, 9.6),
    13: (8.7, 7.8), 14: (9.4, 5.6), 15: (9.9, 3.1), 16: (10.2, 0.6),
}  # fmt: skip

_MOUTH_CENTRE = np.array([0.0, 6.5])
_EYE_CENTRE = EYEBALL_CENTRE[:2]
_INNER_PARTING = 0.35  # half the mouth's opening in the unrolled drawing, where lips may not touch
#: The jaw turns about an axis through this point.
HINGE = np.array([0.0, 1.5, -0.2])


@dataclass(frozen=True, eq=False)
class FaceMesh:
    """The mean head.

    Attributes
    ----------
    vertices : (v, 3) positions in centimetres.
    anchors : (v, 3) positions where displacement fields are evaluated: a vertex's own, but for
        rigid parts (eyeballs, teeth) one point of the part.
    flat : (v, 2) unrolled coordinates (a, b), in which the texture is painted.
    part : (v,) index into PARTS.
    jaw : (v,) how far a vertex follows the jaw bone, 0 to 1.
    triangles : (t, 3) corners, clockwise seen from outside, those of the long hair last.
    n_bare : how many triangles are not long hair.
    landmarks : (68,) vertex of each ibug68 landmark.
    lids : vertices whose surface must clear the eyeball, image-right eye first: two arrays.
    """

    vertices: Array
    anchors: Array
    flat: Array
    part: npt.NDArray[np.int8]
    jaw: Array
    triangles: npt.NDArray[np.int32]
    n_bare: int
    landmarks: Ints
    lids: tuple[Ints, Ints]


def _curve(knots: dict[int, tuple[float, float]], steps: int, symmetric: bool) -> Array:
    """Points along a smooth curve through landmarks, ``steps`` to each piece, all knots exact."""
    points = np.array(list(knots.values()))
    first = 0
    if symmetric and points[0, 0] == 0:
        points, first = np.r_[mirrored(points[:0:-1]), points], len(points) - 1
    elif symmetric:
        points = np.r_[points, mirrored(points[-2::-1])]
    at = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    last = first + len(knots) - 1
    pieces = [np.linspace(at[i], at[i + 1], steps, endpoint=False) for i in range(first, last)]
    return np.asarray(CubicSpline(at, points)(np.r_[np.concatenate(pieces), at[last]]))


class _Half:
    """The right half of the mesh while it is built."""

    def __init__(self) -> None:
        self.flat: list[Array] = []
        self.places: list[Array] = []
        self.anchors: list[Array] = []
        self.parts: list[Array] = []
        self.jaws: list[Array] = []
        self.triangles: list[Ints] = []
        self.marks: dict[int, int] = {}
        self.count = 0

    def add(
        self,
        flat: Array,
        places: Array,
        part: str = "skin",
        *,
        anchors: Array | None = None,
        jaw: Array | float | None = None,
    ) -> Ints:
        """Add vertices and return their numbers."""
        self.flat.append(flat)
        self.places.append(places)
        self.anchors.append(places if anchors is None else np.broadcast_to(anchors, places.shape))
        self.parts.append(np.full(len(flat), PARTS.index(part)))
        follow = _jaw_share(places) if jaw is None else np.broadcast_to(jaw, len(flat))
        self.jaws.append(np.asarray(follow, np.float64))
        self.count += len(flat)
        return np.arange(self.count - len(flat), self.count)

    def add_front(self, front: Array) -> Ints:
        """Add skin seen at (x, y)."""
        flat = unroll(front)
        flat[front[:, 0] == 0, 0] = 0
        return self.add(flat, sculpt(flat))

    def add_grid(self, rows: list[Ints], *, closed: bool = False) -> None:
        """Join rows of vertices, each listed clockwise around what they enclose, outside first."""
        for near, far in pairwise(rows):
            a, b = (np.r_[near, near[0]], np.r_[far, far[0]]) if closed else (near, far)
            self.triangles.append(np.c_[a[:-1], a[1:], b[1:]])
            self.triangles.append(np.c_[a[:-1], b[1:], b[:-1]])


def _jaw_share(places: Array, side: Array | None = None) -> Array:
    """How far skin follows the jaw: all below the line from the hinge to the mouth, none above.

    Between the mouth's corners the lips part along that line: ``side`` is −1 on the upper lip and
    +1 on the lower one, where their heights do not tell.
    """
    x, y, z = places.T
    along = np.clip((z - HINGE[2]) / (-8.7 - HINGE[2]), 0, 1.1)
    line = HINGE[1] + along * (6.5 - HINGE[1])
    side = np.sign(y - line) if side is None else side
    passing = smooth_step((y - line) / 2.4 + 0.5)
    parted = np.clip(1 - (x / 2.31) ** 2, 0, 1) ** 0.6 * side
    share = passing * (1 - np.abs(parted)) + np.clip(parted, 0, 1)
    neck = smooth_step((11.0 - y - 0.5 * z) / 3.0)
    return np.asarray(share * neck * smooth_step((2.5 - z) / 3.0))


def _add_landmarks(half: _Half) -> None:
    for table in (_BROW, _BRIDGE, _NOSTRIL):
        numbers = half.add_front(np.array(list(table.values())))
        half.marks.update(zip(table, numbers, strict=True))
    jaw = np.array(list(_JAW.values()))
    half.marks.update(zip(_JAW, half.add(jaw, sculpt(jaw)), strict=True))


def _add_eye(half: _Half) -> tuple[Array, Ints]:
    """The lids, their inner rim and the eyeball; the outline of the opening and the lid ring."""
    outline = np.r_[_curve(_EYE_UPPER, 3, False)[:-1], _curve(_EYE_LOWER, 3, False)[:-1]]
    margin = half.add_front(outline)
    opening = half.flat[-1]
    half.marks.update(zip(range(42, 48), margin[::3], strict=True))
    rings = [_EYE_CENTRE + s * (outline - _EYE_CENTRE) for s in (1.1, 1.25, 1.5)]
    around = half.add_front(np.concatenate(rings))

    edge = half.places[-2]
    middle = np.r_[_EYE_CENTRE, 0]
    rim = edge + 0.2 * (middle - edge) * [1, 1, 0] + [0, 0, 0.45]
    behind = half.add(np.full((18, 2), 3.5), rim, "ear", anchors=edge, jaw=0.0)
    half.add_grid([margin, behind], closed=True)
    _add_eyeball(half)
    return opening, np.r_[margin, behind, around]


def _add_eyeball(half: _Half) -> None:
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    rows = []
    for polar in np.linspace(0.02, 1.0, 7):
        disc = np.sin(polar) * np.c_[np.cos(turn), np.sin(turn)]
        ball = np.c_[disc, np.full(24, -np.cos(polar))] * EYEBALL_RADII
        rows.append(
            half.add(ball[:, :2], EYEBALL_CENTRE + ball, "eyeball", anchors=EYEBALL_CENTRE, jaw=0.0)
        )
    half.add_grid(rows[::-1], closed=True)


def _lip_curves() -> tuple[Array, Array, Array]:
    """Outer and inner edge of the half lips and, below the parting, +1, above it −1."""
    outer = np.r_[_curve(_LIP_UPPER, 2, True), _curve(_LIP_LOWER, 2, True)[1:]]
    inner = np.r_[_curve(_INNER_UPPER, 3, True), _curve(_INNER_LOWER, 3, True)[1:]]
    return outer, inner, np.r_[-np.ones(6), 0, np.ones(6)]


def _add_mouth(half: _Half) -> Array:
    """Lips, the mouth's inside and the teeth; the outline of the opening in the drawing."""
    outer, inner, side = _lip_curves()
    arch = side * np.sqrt(1 - (inner[:, 0] / 2.31) ** 2)
    drawn = inner + np.c_[np.zeros(13), _INNER_PARTING * arch]
    fall = np.sqrt(np.clip(1 - (outer[:, 0] / 2.75) ** 2, 0, 1))
    rings = []
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        flat = unroll(drawn + t * (outer - drawn))
        flat[[0, -1], 0] = 0
        place = sculpt(unroll(inner + t * (outer - inner)))
        place[:, :2] = inner + t * (outer - inner)
        swell = np.where(side > 0, 0.5, 0.4) * np.sin(np.pi * (0.18 + 0.82 * t)) * fall
        place[:, 2] -= swell * (t < 1)
        rings.append(half.add(flat, place, jaw=_jaw_share(place, side)))
    half.marks.update(zip(range(62, 67), rings[0][::3], strict=True))
    half.marks.update(zip(range(51, 58), rings[-1][::2], strict=True))
    opening = half.flat[-5]
    for scale in (1.1, 1.25):
        flat = unroll(_MOUTH_CENTRE + scale * (outer - _MOUTH_CENTRE))
        flat[[0, -1], 0] = 0
        place = sculpt(flat)
        half.add(flat, place, jaw=_jaw_share(place, side))
    _add_mouth_inside(half, half.places[-7], half.jaws[-7])
    return opening


def _add_mouth_inside(half: _Half, places: Array, jaw: Array) -> None:
    def depth(back: float) -> Array:
        return np.tile([0.0, back], (13, 1))

    inner = [half.add(depth(0), places, "gum", jaw=jaw)]
    for back, spread in ((0.5, 0.25), (1.6, 0.7), (4.0, 0.8)):
        place = places + np.c_[np.zeros(13), spread * np.sign(jaw - 0.5), np.full(13, back)]
        inner.append(half.add(depth(back), place, "gum", anchors=places, jaw=jaw))
    half.add_grid(inner)
    end = half.places[-1]
    middle = half.add(depth(6), end * [0, 1, 1], "gum", anchors=end, jaw=jaw)
    half.add_grid([inner[-1], middle])
    for top, bottom, follow in ((5.2, 6.72, 0.0), (6.65, 7.4, 1.0)):
        _add_teeth(half, top, bottom, follow)


def _add_teeth(half: _Half, top: float, bottom: float, jaw: float) -> None:
    x = np.linspace(0, 2.3, 9)
    z = -9.35 + 0.12 * jaw + 0.3 * x**2
    rows = []
    for y in (top, 0.5 * (top + bottom), bottom):
        place = np.c_[x, np.full(9, y), z]
        flat = np.c_[x, np.full(9, 2 * (y - top) / (bottom - top) - 1) * (1 - 2 * jaw)]
        rows.append(half.add(flat, place, "teeth", anchors=np.array([0, 6.5, -9.0]), jaw=jaw))
    half.add_grid(rows)


# From the ear's foot over its rim into its bowl: share of the outline's radius, height.
_EAR_PROFILE = (
    (0.92, -0.3), (1.0, 0.3), (1.0, 0.7), (0.92, 0.85), (0.84, 0.7), (0.78, 0.4), (0.66, 0.45),
    (0.54, 0.4), (0.42, -0.05), (0.22, -0.3), (0.02, -0.35),
)  # fmt: skip


def _add_ear(half: _Half) -> None:
    """A shell of rim, groove and bowl that leans back and stands off the head."""
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    rows = []
    for radius, height in _EAR_PROFILE:
        along = radius * (1.5 - 0.45 * np.sin(turn)) * np.cos(turn)
        down = radius * 3.0 * np.sin(turn)
        out = 6.95 - 0.1 * down + 0.38 * (along + 1.2) + 0.55 * height
        place = np.c_[out, 1.5 + down, 1.0 + along - 0.2 * down]
        rows.append(half.add(np.c_[along, down], place, "ear", jaw=0.0))
    half.add_grid(rows, closed=True)


def _add_long_hair(half: _Half) -> None:
    """Hair that falls from the head's sides and back: an outer and an inner sheet."""
    turn = np.linspace(9.2, np.pi * UNROLL_RADIUS, 12)
    levels = np.r_[-7.0, -4.5, np.linspace(-2.0, 18.0, 9)]
    for bulge in (1.14, 1.1):
        rows = []
        for level in levels:
            flat = np.c_[turn, np.full(12, min(level, 1.0))]
            place = loft(flat)
            wide = np.interp(level, [-7, -2, 3, 18], [0.97, bulge, bulge, bulge + 0.03])
            place = (place - [0, 0, 1]) * [wide, 1, wide] + [0, max(level - 1.0, 0.0), 1]
            patch = np.c_[(turn - 15.6) * 4.4, np.full(12, level - 5.5)]
            rows.append(half.add(patch, place, "hair", jaw=0.0))
        half.add_grid(rows if bulge > 1.12 else [row[::-1] for row in rows])


def _grid(xs: Array, ys: Array) -> Array:
    """A staggered grid, whose triangles come out nearly equilateral."""
    x, y = np.meshgrid(xs, ys)
    shift = (np.arange(len(ys)) % 2)[:, None] * (xs[1] - xs[0]) / 2 * (x > 0)
    return np.stack([x + shift, y], axis=-1).reshape(-1, 2)


def _fill(half: _Half, holes: list[Array]) -> None:
    """Fill the skin, finest on the nose, coarse at the back; keep clear of what is there."""
    nose = _grid(np.arange(0, 2.5, 0.28), np.arange(-1.2, 4.9, 0.24))
    nose = nose[nose[:, 0] < 1.3 + 0.25 * nose[:, 1]]
    flat = unroll(nose)
    flat[nose[:, 0] == 0, 0] = 0
    face = _grid(np.arange(0, 10.5, 0.75), np.arange(-8, 14, 0.65))
    rest = _grid(np.linspace(0, 22, 15), np.arange(-17.0, 41, 1.6))
    rest[rest[:, 0] > 21.5, 0] = np.pi * UNROLL_RADIUS
    skin = PARTS.index("skin")
    for points, clearance in ((flat, 0.16), (face, 0.42), (rest, 1.1)):
        taken = np.concatenate(half.flat)[np.concatenate(half.parts) == skin]
        free = cKDTree(taken).query(points)[0] > clearance
        for outline in holes:
            free &= ~inside(points, outline)
        half.add(points[free], sculpt(points[free]))


def _triangulate(half: _Half, holes: list[Array]) -> None:
    """Join the skin's vertices in the drawing, but for the openings."""
    numbers = np.flatnonzero(np.concatenate(half.parts) == PARTS.index("skin"))
    flat = np.concatenate(half.flat)[numbers]
    corners = np.asarray(Delaunay(flat).simplices, np.int64)
    middle = flat[corners].mean(axis=1)
    keep = np.ones(len(corners), np.bool_)
    for outline in holes:
        keep &= ~inside(middle, outline)
    corners = corners[keep]
    u = flat[corners[:, 1]] - flat[corners[:, 0]]
    v = flat[corners[:, 2]] - flat[corners[:, 0]]
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    corners[area < 0] = corners[area < 0][:, ::-1]
    half.triangles.append(numbers[corners[np.abs(area) > 1e-6]])


@cache
def face_mesh() -> FaceMesh:
    """Build the mean head (once)."""
    half = _Half()
    eye_hole, lids = _add_eye(half)
    mouth_hole = _add_mouth(half)
    _add_landmarks(half)
    holes = [eye_hole, mouth_hole]
    _fill(half, holes)
    _triangulate(half, holes)
    _add_ear(half)
    _add_long_hair(half)
    return _whole(half, lids)


def _whole(half: _Half, lids: Ints) -> FaceMesh:
    """Both halves, joined where they meet."""
    flat, vertices = np.concatenate(half.flat), np.concatenate(half.places)
    central = (np.abs(vertices[:, 0]) < 1e-9) & (np.abs(flat[:, 0]) < 1e-9)
    vertices[central, 0] = 0
    twin = np.arange(half.count)
    twin[~central] = half.count + np.arange(np.count_nonzero(~central))
    triangles = np.concatenate(half.triangles)

    def both(values: Array) -> Array:
        return np.concatenate([values, mirrored(values[~central])])

    landmarks, mirror = np.empty(68, np.int64), scheme("ibug68").mirror
    for mark, number in half.marks.items():
        landmarks[mark], landmarks[mirror[mark]] = number, twin[number]
    triangles = np.r_[triangles, twin[triangles][:, ::-1]]
    parts, jaws = np.concatenate(half.parts), np.concatenate(half.jaws)
    part = np.r_[parts, parts[~central]].astype(np.int8)
    hair = part[triangles[:, 0]] == PARTS.index("hair")
    return FaceMesh(
        vertices=both(vertices),
        anchors=both(np.concatenate(half.anchors)),
        flat=both(flat),
        part=part,
        jaw=np.r_[jaws, jaws[~central]],
        triangles=triangles[np.argsort(hair, kind="stable")].astype(np.int32),
        n_bare=int(np.count_nonzero(~hair)),
        landmarks=landmarks,
        lids=(lids, twin[lids]),
    )
