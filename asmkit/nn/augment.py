"""Augmentation: geometry that moves image, landmarks and pose together, and light.

Every draw comes from a generator that belongs to one sample of one epoch, so a batch does not
depend on which thread made it, nor on where a training was resumed.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from asmkit.nn.recipe import Recipe

__all__ = [
    "COVER_AXES",
    "COVER_GRAIN",
    "NOISE",
    "TURNS",
    "Geometry",
    "blur_widths",
    "cover",
    "crop_similarity",
    "draw_geometry",
    "mirror_rotation",
    "occlude",
    "photometric",
    "turn_rotation",
    "visible_points",
]

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

#: Turns go no further than so many standard deviations.
TURNS = 3
#: Least and greatest standard deviation of the noise in levels of grey, half lengths of what covers
#: a crop over the crop's side, and the most grain it has.
NOISE, COVER_AXES, COVER_GRAIN = (2.0, 12.0), (0.06, 0.25), 40.0

#: Mirroring x: a mirror-symmetric head with rotation R shows the rotation M R M.
_MIRROR = np.diag([-1.0, 1.0, 1.0])


class Geometry(NamedTuple):
    """A similarity of the crop: mirror, then scale and rotate about its centre, then shift."""

    #: (2, 3), crop pixels to crop pixels
    matrix: Doubles
    #: radians, from x towards y
    angle: float
    mirrored: bool


def draw_geometry(rng: np.random.Generator, recipe: Recipe, can_mirror: bool) -> Geometry:
    """Draw a similarity of the crop by the recipe's ranges."""
    angle = float(np.deg2rad(np.clip(rng.normal(0.0, 1.0), -TURNS, TURNS) * recipe.rotation))
    scale = float(np.exp(rng.uniform(-recipe.scale, recipe.scale)))
    shift = rng.uniform(-recipe.shift, recipe.shift, 2) * recipe.input_size
    mirrored = bool(rng.random() < recipe.mirror) and can_mirror
    matrix = crop_similarity(angle, scale, shift, mirrored, recipe.input_size)
    return Geometry(matrix, angle, mirrored)


def crop_similarity(
    angle: npt.ArrayLike,
    scale: npt.ArrayLike,
    shift: npt.ArrayLike,
    mirrored: npt.ArrayLike,
    size: int,
) -> Doubles:
    """Similarities ``(..., 2, 3)`` of a crop: mirror, scale and turn about its centre, then shift.

    ``angle``, ``scale`` and ``mirrored`` have the shape ``(...)``, ``shift``, in pixels,
    ``(..., 2)``.
    """
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    sign = np.where(mirrored, -1.0, 1.0)
    linear = np.stack([np.stack([sign * cos, -sin], -1), np.stack([sign * sin, cos], -1)], -2)
    centre = np.full(2, (size - 1) / 2)
    offset = centre + np.asarray(shift) - linear @ centre
    matrix: Doubles = np.concatenate([linear, offset[..., None]], -1)
    return matrix


def mirror_rotation(rotation: Doubles) -> Doubles:
    """``(..., 3, 3)``: the rotation that a mirror-symmetric head shows in the mirrored image."""
    mirrored: Doubles = _MIRROR @ rotation @ _MIRROR
    return mirrored


def turn_rotation(rotation: Doubles, angle: npt.ArrayLike) -> Doubles:
    """``(..., 3, 3)``: the rotation after the image was turned by ``angle (...)`` radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    zero, one = np.zeros_like(cos), np.ones_like(cos)
    rows = [[cos, -sin, zero], [sin, cos, zero], [zero, zero, one]]
    turned: Doubles = np.stack([np.stack(row, -1) for row in rows], -2) @ rotation
    return turned


def photometric(image: Image, rng: np.random.Generator, recipe: Recipe) -> Image:
    """Change light, colour and sharpness and add noise, by the recipe's chances.

    Parameters
    ----------
    image : ndarray of uint8, (s, s, 3)
        An RGB crop; it is not changed.
    rng : Generator
    recipe : Recipe

    Returns
    -------
    ndarray of uint8, (s, s, 3)
    """
    if rng.random() < recipe.grey:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    image = _light(image, rng, recipe)
    if rng.random() < recipe.blur:
        width = float(rng.uniform(*blur_widths(image.shape[0])))
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), width), np.uint8)
    if rng.random() < recipe.noise:
        grain = rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(*NOISE)
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
    return image


def blur_widths(size: int) -> tuple[float, float]:
    """Least and greatest standard deviation of the blur of a crop of a size, in pixels."""
    return 0.4, 0.014 * size


def _light(image: Image, rng: np.random.Generator, recipe: Recipe) -> Image:
    contrast = rng.uniform(1 - recipe.contrast, 1 + recipe.contrast)
    brightness = rng.uniform(-recipe.brightness, recipe.brightness)
    gains = contrast * rng.uniform(1 - recipe.colour, 1 + recipe.colour, 3)
    levels = np.arange(256.0)[:, None]
    table = np.clip((levels - 128) * gains + 128 + brightness, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[None]), dtype=np.uint8)


def occlude(image: Image, rng: np.random.Generator) -> tuple[Image, Mask]:
    """One ellipse or rectangle of a flat colour with grain over a crop, and where it lies."""
    size = image.shape[0]
    covered = _place(size, rng)
    grain = rng.uniform(0, COVER_GRAIN) * rng.standard_normal((size, size, 1), dtype=np.float32)
    colour = np.clip(rng.uniform(0, 255, 3) + grain, 0, 255).astype(np.uint8)
    return np.where(covered[..., None], colour, image), covered


def cover(image: Image, other: Image, rng: np.random.Generator) -> tuple[Image, Mask]:
    """Another image of the same size in one ellipse or rectangle of a crop, and where it lies."""
    covered = _place(image.shape[0], rng)
    return np.where(covered[..., None], other, image), covered


def visible_points(points: Doubles, covered: Mask) -> Doubles:
    """Which landmarks nothing was laid over.

    Parameters
    ----------
    points : ndarray (n_points, 2)
        In pixels of the crop.
    covered : ndarray of bool (s, s)
        Pixels of the crop that something lies over.

    Returns
    -------
    ndarray (n_points,)
        1 where the pixel nearest to a landmark shows the photo, 0 where it shows what lies over
        it, NaN where it is not in the crop.
    """
    column, row = np.rint(points).T
    inside = (column >= 0) & (row >= 0) & (column < covered.shape[1]) & (row < covered.shape[0])
    visible = np.full(len(points), np.nan)
    visible[inside] = ~covered[row[inside].astype(np.intp), column[inside].astype(np.intp)]
    return visible


def _place(size: int, rng: np.random.Generator) -> Mask:
    """Where something lies over a crop: an ellipse or rectangle up to half as long."""
    centre = rng.uniform(0, size, 2)
    axes = rng.uniform(*COVER_AXES, 2) * size
    angle = float(rng.uniform(0, 180))
    mask = np.zeros((size, size), np.uint8)
    if rng.random() < 0.5:
        cv2.ellipse(mask, (centre.tolist(), (2 * axes).tolist(), angle), 255, -1)
    else:
        corners = cv2.boxPoints((centre.tolist(), (2 * axes).tolist(), angle))
        cv2.fillConvexPoly(mask, corners.astype(np.int32), 255)
    return mask > 0
