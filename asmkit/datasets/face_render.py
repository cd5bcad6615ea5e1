"""Drawing one synthetic face: texture, light, z-buffer, background and camera."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from asmkit._kernels.raster import add_noise, rasterize, shade, vertex_normals
from asmkit.datasets.face_mesh import PARTS, face_mesh
from asmkit.datasets.face_texture import atlas_coordinates, paint

__all__ = [
    "SUPERSAMPLING", "Exposure", "draw", "head_attributes", "head_triangles", "sample_background",
    "sample_exposure", "sample_gaze", "sample_lights", "unhidden", "z_buffer",
]  # fmt: skip

Array = npt.NDArray[np.float64]
Float32s = npt.NDArray[np.float32]

#: Samples along each side of a pixel.
SUPERSAMPLING = 2


def draw(
    rng: np.random.Generator, vertices: Array, size: int, style: str, long_hair: bool
) -> tuple[npt.NDArray[np.uint8], Float32s]:
    """Render a head whose vertices are in pixels (z away from the camera).

    Returns the picture ``(size, size, 3)`` and the depth of its samples, SUPERSAMPLING to a pixel.
    """
    gaze = sample_gaze(rng)
    attributes = head_attributes(vertices, gaze, long_hair)
    shape = (size * SUPERSAMPLING, size * SUPERSAMPLING)
    depth, samples = z_buffer(vertices, head_triangles(long_hair), attributes, shape, SUPERSAMPLING)
    image = sample_background(rng, size, size)
    shade(samples, depth, paint(rng, style), sample_lights(rng), image)
    exposure = sample_exposure(rng)
    return exposure.take(image, rng), depth


def head_triangles(long_hair: bool) -> npt.NDArray[np.int32]:
    """Triangles ``(t, 3)`` of a head with or without long hair."""
    mesh = face_mesh()
    return mesh.triangles if long_hair else mesh.triangles[: mesh.n_bare]


def head_attributes(vertices: Array, gaze: Array, long_hair: bool) -> Float32s:
    """What :func:`shade` reads of every vertex ``(v, 6)``; ``gaze (2,)`` in centimetres."""
    normals = np.empty((len(vertices), 3), np.float32)
    vertex_normals(vertices, head_triangles(long_hair), normals)
    return np.hstack([atlas_coordinates(gaze), normals, _openness(long_hair)])


def sample_gaze(rng: np.random.Generator) -> Array:
    """Where the eyes look: centimetres to the right and down."""
    return rng.normal(0, [0.22, 0.1]).clip(-0.45, 0.45)


def z_buffer(
    vertices: Array,
    triangles: npt.NDArray[np.int32],
    attributes: Float32s,
    shape: tuple[int, int],
    step: float,
) -> tuple[Float32s, Float32s]:
    """Depth ``shape`` (rows, columns) and attributes of samples, ``step`` a pixel each way."""
    half_pixel = np.array([0.5, 0.5, 0])
    at = (vertices + half_pixel) * [step, step, 1] - half_pixel
    depth = np.full(shape, np.inf, np.float32)
    samples = np.empty((*shape, attributes.shape[1]), np.float32)
    rasterize(at, triangles, attributes, depth, samples)
    return depth, samples


def unhidden(marks: Array, depth: Float32s, tolerance: float) -> npt.NDArray[np.bool_]:
    """Whether a landmark ``(p, 3)`` has nothing clearly before it in any of the samples around.

    ``depth`` has SUPERSAMPLING samples to a pixel; ``tolerance`` is in the landmarks' own depth.
    """
    height, width = depth.shape
    at = np.round((marks[:, :2] + 0.5) * SUPERSAMPLING - 0.5).astype(np.int64)
    around = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(-1, 1, 2)
    x, y = np.moveaxis(np.clip(at + around, 0, [width - 1, height - 1]), -1, 0)
    return np.asarray(depth[y, x].max(axis=0) > marks[:, 2] - tolerance)


_N_DIRECTIONS, _PIXELS, _REACH = 64, 160, 16.0


@cache
def _openness(long_hair: bool) -> Float32s:
    """Share of the sky that each vertex of the mean head sees ``(v, 1)``: ambient occlusion."""
    mesh = face_mesh()
    triangles = head_triangles(long_hair)
    normals = np.empty(mesh.vertices.shape, np.float32)
    vertex_normals(mesh.vertices, triangles, normals)
    seen, whole = np.zeros(len(normals)), np.full(len(normals), 1e-6)
    for view in _views(_N_DIRECTIONS):
        placed = mesh.vertices @ view.T * (_PIXELS / 2 / _REACH) + [_PIXELS / 2, _PIXELS / 2, 0]
        depth, _ = z_buffer(placed, triangles, normals, (_PIXELS, _PIXELS), 1)
        facing = np.clip(-normals @ view[2], 0, None)
        column, row = placed[:, :2].round().astype(np.int64).clip(0, _PIXELS - 1).T
        seen += facing * (depth[row, column] > placed[:, 2] - 0.25 * _PIXELS / 2 / _REACH)
        whole += facing
    open_share = 0.15 + 0.85 * seen / whole
    # the mean mouth is shut, but what shows its inside is an open one
    open_share[mesh.part == PARTS.index("teeth")] = 0.7
    open_share[mesh.part == PARTS.index("gum")] = 0.6
    return np.asarray(open_share[:, None], np.float32)


def _views(n: int) -> Array:
    """Rotations ``(n, 3, 3)`` whose lines of sight cover the sphere evenly."""
    golden = np.pi * (3 - np.sqrt(5)) * np.arange(n)
    y = 1 - 2 * (np.arange(n) + 0.5) / n
    sight = np.stack([np.cos(golden) * np.sqrt(1 - y**2), y, np.sin(golden) * np.sqrt(1 - y**2)], 1)
    right = np.cross([0.0, 1.0, 0.0], sight)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(sight, right), sight], axis=1)


def sample_lights(rng: np.random.Generator) -> Float32s:
    """Ambient light, a key light and a weaker one, each a little coloured."""
    azimuth = rng.uniform(-1.3, 1.3) + np.array([0.0, rng.choice([-1, 1]) * rng.uniform(0.8, 2.0)])
    height = rng.uniform([-0.2, -0.3], [1.0, 0.8])
    direction = np.stack(
        [np.sin(azimuth) * np.cos(height), -np.sin(height), -np.cos(azimuth) * np.cos(height)], 1
    )
    tint = 1 + rng.normal(0, 0.035, (3, 3)).clip(-0.1, 0.1)
    ambient = rng.uniform(0.3, 0.7)
    key = (1.2 - ambient) * rng.uniform(0.7, 1.1)
    power = np.array([ambient, key, rng.uniform(0.0, 0.3)])[:, None]
    return np.hstack([np.vstack([np.zeros(3), direction]), power * tint]).astype(np.float32)


def sample_background(rng: np.random.Generator, height: int, width: int) -> Float32s:
    """Noise of several scales and a few soft bands."""
    image = np.empty((height, width, 3), np.float32)
    image[:] = np.clip(rng.uniform(0.1, 0.9) + rng.normal(0, 0.08, 3), 0, 1)
    for coarse in (3, 6, 13, 32):
        strength = rng.uniform(0, 0.6) / coarse**0.75
        grid = rng.normal(0, strength, (coarse, coarse, 1))
        grid = grid + rng.normal(0, 0.15 * strength, (coarse, coarse, 3))
        add_noise(grid.astype(np.float32), image)
    right = (np.arange(width) + 0.5) / max(height, width)
    down = (np.arange(height) + 0.5) / max(height, width)
    for _ in range(rng.integers(0, 5)):
        angle, middle, half = rng.uniform([0, -0.3, 0.01], [np.pi, 1.2, 0.25])
        along, across = (
            (np.cos(angle) * right - middle).astype("f"),
            (np.sin(angle) * down).astype("f"),
        )
        inwards = np.float32(half) - np.abs(along + across[:, None])
        band = np.clip(inwards / np.float32(rng.uniform(0.01, 0.1)) + np.float32(0.5), 0, 1)
        image += band[:, :, None] * rng.normal(0, 0.12, 3).astype(np.float32)
    return np.asarray(image.clip(0, 1, out=image))


@dataclass(frozen=True)
class Exposure:
    """How a camera turns light into a picture.

    Attributes
    ----------
    soft : share of the light that spreads to each neighbouring pixel.
    contrast, gain : ``light ** contrast * gain``.
    grain : standard deviation of the sensor noise, of a range of 1.
    """

    soft: np.float32
    contrast: np.float32
    gain: np.float32
    grain: np.float32

    def take(self, image: Float32s, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """The picture ``(h, w, 3)`` of light in the range 0 to 1, which is overwritten."""
        soft = self.soft
        image[1:-1] += soft * (image[2:] + image[:-2] - 2 * image[1:-1])
        image[:, 1:-1] += soft * (image[:, 2:] + image[:, :-2] - 2 * image[:, 1:-1])
        image = image.clip(0, None, out=image) ** self.contrast * self.gain
        image += self.grain * rng.standard_normal(image.shape, np.float32)
        return np.asarray((image.clip(0, 1, out=image) * 255 + 0.5).astype(np.uint8))


def sample_exposure(rng: np.random.Generator) -> Exposure:
    """Blur, contrast, gain and sensor noise of a random camera."""
    soft = np.float32(rng.beta(1, 2.5) * 0.33)
    contrast, gain = rng.uniform([0.8, 0.9], 1.2).astype(np.float32)
    return Exposure(soft, contrast, gain, np.float32(rng.beta(1, 3) * 0.06))
