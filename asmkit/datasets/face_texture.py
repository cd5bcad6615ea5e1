"""The skin, hair, eyes and clothes of the synthetic faces: an atlas painted by hand.

The atlas is the unrolled head (see :mod:`asmkit.datasets.face_sculpt`), finest on the face, with a
strip beside it for eyes, teeth, gums and ears. It is a sum of fixed layers, each times a colour
that is drawn for every face: ``atlas = layers (rows, columns, k) @ colours (k, 4)``; the fourth
channel is gloss.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from asmkit._kernels.raster import add_noise, blend_layers
from asmkit.datasets.face_hair import HAIR_STYLES, beyond_hairline
from asmkit.datasets.face_mesh import PARTS, face_mesh
from asmkit.datasets.face_sculpt import inside

__all__ = ["ATLAS_SIDE", "LAYERS", "atlas_coordinates", "atlas_layers", "paint"]

Array = npt.NDArray[np.float64]
Float32s = npt.NDArray[np.float32]

ATLAS_SIDE = 224
_STRIP = 64
_COLUMN_AT = ([-22.0, -7.0, 7.0, 22.0], [0.0, 24.0, 199.0, 223.0])
_ROW_AT = ([-17.0, -6.5, 12.5, 26.0], [0.0, 26.0, 203.0, 223.0])
_EYE_SCALE = 14.0

LAYERS = (
    "skin", "lips", "lip line", "brow", "brow edge", "lash", "socket", "nostril", "blush",
    "beard", "moustache", "freckles", "folds", *HAIR_STYLES, "cloth",
    "long hair", "sclera", "iris", "pupil", "teeth", "gum", "mottle", "mottle fine", "veins",
    "ear shade", "long strands", *(f"{style} strands" for style in HAIR_STYLES),
)  # fmt: skip


def _atlas_flat() -> Array:
    """Unrolled coordinates (a, b) of each texel of the square."""
    at = np.arange(ATLAS_SIDE, dtype=np.float64)
    a = np.interp(at, _COLUMN_AT[1], _COLUMN_AT[0])
    b = np.interp(at, _ROW_AT[1], _ROW_AT[0])
    return np.stack(np.meshgrid(a, b), axis=-1)


# Row of the strip on which a part's own coordinates are centred, and its texels per unit.
_PATCHES = {
    "eyeball": (31.5, _EYE_SCALE),
    "teeth": (79.5, 10.0),
    "gum": (111.5, 2.0),
    "ear": (159.5, 7.0),
    "hair": (207.5, 1.0),
}


@cache
def _coordinates() -> Float32s:
    mesh = face_mesh()
    a, b = mesh.flat.T
    out = np.stack([np.interp(a, *_COLUMN_AT), np.interp(b, *_ROW_AT)], axis=1)
    for name, (row, scale) in _PATCHES.items():
        mine = mesh.part == PARTS.index(name)
        out[mine] = mesh.flat[mine] * scale + [ATLAS_SIDE + 31.5, row]
    return out.astype(np.float32)


def atlas_coordinates(gaze: Array) -> Float32s:
    """Texture column and row of every vertex ``(v, 2)``; ``gaze (2,)`` in centimetres."""
    out = _coordinates().copy()
    out[face_mesh().part == PARTS.index("eyeball")] -= (gaze * _EYE_SCALE).astype(np.float32)
    return out


def _near(points: Array, line: Array) -> Array:
    """Distance of each of ``points (..., 2)`` to the polyline ``line (m, 2)``."""
    best = np.full(points.shape[:-1], np.inf)
    for start, end in pairwise(line):
        along = end - start
        t = np.clip((points - start) @ along / (along @ along), 0, 1)
        best = np.minimum(best, np.linalg.norm(points - start - t[..., None] * along, axis=-1))
    return best


def _blob(flat: Array, at: tuple[float, float], spread: tuple[float, float]) -> Array:
    x, y = (np.abs(flat[..., 0]) - at[0]) / spread[0], (flat[..., 1] - at[1]) / spread[1]
    return np.asarray(np.exp(-0.5 * (x**2 + y**2)))


def _ramp(values: Array, start: float, stop: float) -> Array:
    t = np.clip((values - start) / (stop - start), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _noise(rng: np.random.Generator, size: tuple[int, int], sigma: tuple[float, float]) -> Array:
    field = gaussian_filter(rng.normal(size=size), sigma, mode="wrap")
    return np.asarray(field / field.std())


@cache
def atlas_layers() -> Float32s:
    """The fixed layers ``(rows, columns, k)``, painted once where the mesh has its landmarks."""
    rng = np.random.default_rng(98)
    flat = _atlas_flat()
    layers = {name: np.zeros((ATLAS_SIDE, ATLAS_SIDE + _STRIP)) for name in LAYERS}
    square = {name: layer[:, :ATLAS_SIDE] for name, layer in layers.items()}
    _paint_face(square, flat, rng)
    _paint_hair(square, flat, rng)
    _paint_strip({name: layer[:, ATLAS_SIDE:] for name, layer in layers.items()}, rng)
    return np.stack([layers[name] for name in LAYERS], axis=-1).astype(np.float32)


def _marks(indices: list[int]) -> Array:
    mesh = face_mesh()
    return mesh.flat[mesh.landmarks[indices]]


def _paint_face(square: dict[str, Array], flat: Array, rng: np.random.Generator) -> None:
    right = np.stack([np.abs(flat[..., 0]), flat[..., 1]], axis=-1)
    a, b = right[..., 0], right[..., 1]
    square["skin"][:] = 1
    lips = inside(flat.reshape(-1, 2), _marks(list(range(48, 60)))).reshape(a.shape)
    square["lips"][:] = gaussian_filter(lips.astype(float), 0.8)
    square["lip line"][:] = np.exp(-0.5 * (_near(flat, _marks([60, 61, 62, 63, 64])) / 0.1) ** 2)
    square["lip line"] += np.exp(-0.5 * (_near(flat, _marks([60, 67, 66, 65, 64])) / 0.1) ** 2)

    brow = _marks(list(range(22, 27)))
    distance = _near(right, brow + np.array([0, 0.08]))
    thick = np.interp(a, [1.0, 1.6, 4.0, 5.6], [0.26, 0.3, 0.24, 0.12])
    hairs = 0.75 + 0.25 * np.clip(_noise(rng, a.shape, (1.2, 0.5)), -1, 1)
    square["brow"][:] = (1 - _ramp(distance, 0.6 * thick, 1.3 * thick)) * hairs
    square["brow edge"][:] = (1 - _ramp(distance, 1.0 * thick, 2.4 * thick)) * hairs

    upper, lower = _marks([42, 43, 44, 45]), _marks([45, 46, 47, 42])
    square["lash"][:] = np.exp(-0.5 * (_near(right, upper) / 0.09) ** 2)
    square["lash"] += 0.4 * np.exp(-0.5 * (_near(right, lower) / 0.07) ** 2)
    square["socket"][:] = _blob(right, (2.9, -0.75), (1.4, 0.4)) + 0.6 * _blob(
        right, (2.7, 1.1), (1.2, 0.35)
    )
    crease = upper + np.array([[-0.05, -0.25], [0, -0.42], [0.05, -0.42], [0.2, -0.1]])
    square["socket"] += 0.9 * np.exp(-0.5 * (_near(right, crease) / 0.07) ** 2)
    square["nostril"][:] = _blob(right, (0.62, 4.0), (0.3, 0.16)).clip(0, 0.8) / 0.8
    square["blush"][:] = _blob(right, (4.3, 3.0), (1.6, 1.2)) + 0.7 * _blob(
        right, (0, 3.2), (0.9, 0.8)
    )
    fold = np.array([[1.75, 3.4], [2.3, 4.4], [3.0, 5.6], [3.3, 6.6]])
    square["folds"][:] = np.exp(-0.5 * (_near(right, fold) / 0.13) ** 2)
    for y in (-4.2, -3.5):
        wave = np.abs(b - y + 0.06 * a**1.2)
        square["folds"] += 0.5 * np.exp(-0.5 * (wave / 0.08) ** 2) * (a < 4)
    _paint_beard(square, right, rng)
    spots = _noise(rng, a.shape, (0.9, 0.9)) - 1.4
    where = _blob(right, (2.5, 2.5), (2.5, 1.8))
    square["freckles"][:] = spots.clip(0, 0.8) * where
    front = (1 - _ramp(a, 6.0, 8.0)) * (1 - _ramp(b, 11.0, 13.0)) * _ramp(b, -8.0, -6.0)
    square["mottle"][:] = 0.5 * _noise(rng, a.shape, (7, 7)) * front
    square["mottle fine"][:] = 0.5 * _noise(rng, a.shape, (1.2, 1.2)) * front
    square["cloth"][:] = _ramp(b - 0.12 * a, 18.0, 19.0)


def _paint_beard(square: dict[str, Array], right: Array, rng: np.random.Generator) -> None:
    a, b = right[..., 0], right[..., 1]
    bare = 1 - square["lips"]
    bristles = 0.8 + 0.3 * np.clip(_noise(rng, a.shape, (1.0, 0.6)), -1, 1) * (1 - _ramp(a, 5, 8))
    upper_edge = np.interp(a, [0, 1.8, 3.0, 5.0, 7.5, 9.5], [7.9, 7.4, 7.0, 6.5, 4.5, 0.0])
    beard = (
        _ramp(b - upper_edge, -0.3, 0.5) * (1 - _ramp(b, 13.0, 14.5)) * (1 - _ramp(a, 10.0, 11.0))
    )
    square["beard"][:] = beard * bare * bristles
    centre = np.interp(a, [0, 2.4, 3.3], [5.05, 5.35, 6.6])
    moustache = np.exp(-0.5 * ((b - centre) / 0.33) ** 4) * (1 - _ramp(a, 2.9, 3.4))
    square["moustache"][:] = moustache * bare * bristles


def _paint_hair(square: dict[str, Array], flat: Array, rng: np.random.Generator) -> None:
    a = flat[..., 0]
    ragged = 0.3 * _noise(rng, a.shape, (3.0, 1.0)) * (np.abs(a) < 8)
    strands = 0.5 * _noise(rng, a.shape, (5.0, 0.7))
    for name in HAIR_STYLES:
        square[name][:] = _ramp(beyond_hairline(flat, name) - ragged, -0.5, 0.5)
        square[f"{name} strands"][:] = strands * square[name]


def _paint_strip(strip: dict[str, Array], rng: np.random.Generator) -> None:
    row, column = np.mgrid[0:ATLAS_SIDE, 0:_STRIP]
    x, y = (column - 31.5) / _EYE_SCALE, (row - 31.5) / _EYE_SCALE
    radius, eye = np.hypot(x, y), row < 64
    strip["sclera"][:] = eye * (1 - _ramp(radius, 0.58, 0.66))
    iris = 1 - _ramp(radius, 0.56, 0.66)
    spokes = 1 + 0.18 * np.cos(np.arctan2(y, x) * 23) * (radius < 0.55)
    limbus = 1 - 0.6 * _ramp(radius, 0.42, 0.58)
    strip["sclera"][:] = eye * (1 - iris)
    strip["iris"][:] = eye * iris * spokes * limbus * _ramp(radius, 0.2, 0.27)
    strip["pupil"][:] = eye * (1 - _ramp(radius, 0.2, 0.27))
    strip["veins"][:] = eye * _ramp(np.abs(x), 0.9, 1.7)
    tooth = (row >= 64) & (row < 96)
    gaps = np.exp(-0.5 * (((column - 31.5 + 3.5) % 7 - 3.5) / 0.6) ** 2)
    strip["teeth"][:] = tooth * (1 - 0.35 * gaps) * _ramp(row.astype(float), 68.0, 73.0)
    strip["teeth"] *= 1 - 0.75 * _ramp(np.abs(column - 31.5), 8.0, 22.0)
    strip["gum"][:] = (row >= 64) & (row < 71) | (row >= 96) & (row < 128)
    strip["gum"][:] *= np.where(row > 100, np.interp(row, [111, 114, 120], [1, 0.6, 0.2]), 1)
    ear = (row >= 128) & (row < 192)
    strip["skin"][:] = ear
    strip["blush"][:] = 0.6 * ear
    u, v = (column - 31.5) / 7.0, (row - 159.5) / 7.0
    around = np.hypot(u / (1.5 - 0.15 * v), v / 3.0)
    strip["ear shade"][:] = ear * (
        _ramp(0.6 - around, 0, 0.3) + 0.5 * np.exp(-0.5 * ((around - 0.8) / 0.06) ** 2)
    )
    strip["long hair"][:] = row >= 192
    strip["long strands"][:] = (row >= 192) * _noise(rng, row.shape, (6.0, 0.8))


_SKIN_TONES = np.array(
    [
        [0.96, 0.80, 0.71],
        [0.90, 0.70, 0.58],
        [0.78, 0.57, 0.43],
        [0.60, 0.41, 0.29],
        [0.36, 0.24, 0.17],
    ]
)
_HAIR_TONES = np.array(
    [
        [0.09, 0.07, 0.06],
        [0.17, 0.11, 0.07],
        [0.30, 0.20, 0.12],
        [0.55, 0.40, 0.24],
        [0.62, 0.60, 0.58],
    ]
)
_IRIS_TONES = np.array(
    [[0.22, 0.12, 0.06], [0.33, 0.22, 0.10], [0.30, 0.40, 0.50], [0.30, 0.38, 0.26]]
)


def _tone(rng: np.random.Generator, tones: Array) -> Array:
    """A colour somewhere between two neighbours of a row of tones."""
    at = rng.uniform(0, len(tones) - 1)
    between = [np.interp(at, np.arange(len(tones)), tones[:, d]) for d in range(3)]
    return np.clip(between + rng.normal(0, 0.02, 3), 0.02, 1)


def _colours(rng: np.random.Generator, style: str) -> dict[str, Array]:
    """A colour for every layer of one face; on the skin, what it adds to the skin's."""
    skin, hair = _tone(rng, _SKIN_TONES), _tone(rng, _HAIR_TONES)
    iris = _IRIS_TONES[rng.integers(4)] * rng.uniform(0.7, 1.2)
    lips = skin * [0.88, 0.6, 0.6] + [0.05, 0.0, 0.01]
    lips += rng.random() ** 4 * ([0.6, 0.1, 0.15] - lips)
    brow = np.minimum(hair * 0.8, skin * 0.6) - skin
    flush = skin * [0.02, -0.11, -0.1] * rng.uniform(0, 1.5)
    grey = rng.uniform(0.03, 0.9)
    cloth = np.clip(grey + rng.normal(0, 0.15, 3), 0.02, 0.95)
    colours = {
        "skin": skin, "lips": lips - skin, "lip line": -0.35 * lips,
        "brow": brow * rng.uniform(0.45, 0.95), "brow edge": brow * rng.uniform(0, 0.3),
        "lash": -skin * rng.uniform(0.25, 0.7), "socket": -skin * rng.uniform(0.02, 0.2),
        "nostril": -skin * 0.75, "blush": flush, "freckles": -skin * rng.random() ** 4 * 0.4,
        "folds": -skin * rng.random() ** 2 * 0.2, "mottle": flush * rng.normal(0, 0.2),
        "mottle fine": -skin * rng.uniform(0, 0.05), "sclera": np.full(3, rng.uniform(0.6, 0.85)),
        "veins": np.array([0.0, -0.15, -0.15]), "iris": iris, "pupil": np.full(3, 0.02),
        "teeth": np.array([0.92, 0.88, 0.78]) * rng.uniform(0.75, 1),
        "gum": np.array([0.42, 0.13, 0.13]), "cloth": cloth - skin, "long hair": hair,
        "ear shade": -skin * rng.uniform(0.2, 0.5),
    }  # fmt: skip
    if style in HAIR_STYLES:
        colours[style] = hair - skin
        colours["long strands"] = hair * rng.uniform(0.05, 0.2)
        colours[f"{style} strands"] = colours["long strands"]
    return colours | _beard(rng, hair - skin)


def _beard(rng: np.random.Generator, hair: Array) -> dict[str, Array]:
    """A beard, a moustache, or (mostly) neither; from stubble to full."""
    kind, fullness = rng.random(2)
    thick = hair * (0.1 + 0.75 * fullness)
    if kind > 0.25:
        return {}
    return {"moustache": thick} if kind > 0.2 else {"moustache": thick, "beard": thick}


_GLOSS = {"skin": 0.08, "lips": 0.12, "sclera": 0.6, "iris": 0.6, "pupil": 0.6, "teeth": 0.3}
_SPOTS = 28


def paint(rng: np.random.Generator, style: str) -> Float32s:
    """The atlas ``(rows, columns, 4)`` of one random face with a style of hair."""
    colours = np.zeros((len(LAYERS), 4), np.float32)
    for name, colour in _colours(rng, style).items():
        colours[LAYERS.index(name)] = [*colour, _GLOSS.get(name, 0.0)]
    colours[0, 3] *= rng.uniform(0, 2)
    atlas = np.empty((ATLAS_SIDE, ATLAS_SIDE + _STRIP, 4), np.float32)
    blend_layers(*_sparse_layers(), colours, atlas.reshape(-1, 4))
    spots = rng.normal(0, rng.uniform(0.005, 0.03), (_SPOTS, _SPOTS, 1)) * colours[0, :3]
    add_noise(spots.astype(np.float32), atlas[:, :ATLAS_SIDE])
    return atlas


@cache
def _sparse_layers() -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], Float32s]:
    """For :func:`blend_layers`: where each texel's entries start, their layers and weights."""
    layers = atlas_layers().reshape(-1, len(LAYERS))
    texel, layer = np.nonzero(np.abs(layers) > 0.004)
    starts = np.searchsorted(texel, np.arange(len(layers) + 1))
    return starts.astype(np.int32), layer.astype(np.int32), layers[texel, layer]
