"""Crops that show no face, or not enough of one, for the tracking head to tell apart.

Three kinds come from the training images themselves: a box beside the face, too small or too large
for it; the tiles of a face in another order, so that its textures are no face; a background made
of noise and bands. A fourth comes from a folder of other images.

By the overlap (IoU) of the square looked into with the square around the true landmarks, a crop
shows a face from :data:`FACE`, and none below :data:`NO_FACE`; between the two nothing is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from asmkit.annotations import IMAGE_SUFFIXES
from asmkit.boxes import iou
from asmkit.images import crop, read_image, shrink

__all__ = [
    "FACE",
    "LEAST_CROP",
    "NO_FACE",
    "background",
    "box_beside",
    "face_label",
    "other_images",
    "random_crop",
    "shuffled",
]

Image = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

FACE, NO_FACE = 0.6, 0.3
_TRIES = 64
#: Smallest square of an image that is taken, over its shorter side.
LEAST_CROP = 0.1
#: Images without faces are kept in memory no longer than this.
_LONGEST = 512


def face_label(overlap: npt.ArrayLike) -> Doubles:
    """1 for a face, 0 for none, NaN between; of overlaps of any shape."""
    shared = np.asarray(overlap)
    return np.where(shared >= FACE, 1.0, np.where(shared < NO_FACE, 0.0, np.nan))


def box_beside(rng: np.random.Generator) -> Doubles:
    """A square (x, y, side) in units of the true one, ``[0, 0, 1, 1]``, that overlaps it little.

    As often too small or too large as beside it.
    """
    truth = np.array([0.0, 0.0, 1.0, 1.0])
    for _ in range(_TRIES):
        side = float(np.exp(rng.uniform(np.log(0.25), np.log(3.0))))
        centre = 0.5 + rng.uniform(-0.5, 0.5, 2) * (1 + side)
        square = np.array([*(centre - side / 2), side, side])
        if iou(square, truth) < NO_FACE:
            return square
    return np.array([0.35, 0.35, 0.3, 0.3])


def shuffled(image: Image, rng: np.random.Generator) -> Image:
    """Cut a crop into 9 to 36 tiles and lay them in another order, some upside down."""
    n = int(rng.integers(3, 7))
    tile = -(-image.shape[0] // n)
    even = np.asarray(cv2.resize(image, (n * tile, n * tile)), np.uint8)
    tiles = even.reshape(n, tile, n, tile, 3).swapaxes(1, 2).reshape(n * n, tile, tile, 3)
    mixed = tiles[rng.permutation(n * n)]
    turned = rng.random(n * n) < 0.3
    mixed[turned] = mixed[turned, ::-1]
    whole = mixed.reshape(n, n, tile, tile, 3).swapaxes(1, 2).reshape(n * tile, n * tile, 3)
    return np.ascontiguousarray(whole[: image.shape[0], : image.shape[0]])


def background(size: int, rng: np.random.Generator) -> Image:
    """Noise of several scales, and a few bands and spots of one colour."""
    image = np.full((size, size, 3), rng.uniform(20, 235, 3), np.float32)
    for coarse in (2, 4, 9, 20, 50):
        grid = rng.normal(0, 1, (coarse, coarse, 1)) + rng.normal(0, 0.3, (coarse, coarse, 3))
        fine = cv2.resize(grid.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
        image += rng.uniform(0, 60) * fine
    for _ in range(rng.integers(0, 8)):
        colour = (rng.uniform(0, 255, 3)).tolist()
        centre, axes = rng.uniform(0, size, 2), rng.uniform(0.02, 0.6, 2) * size
        box = (centre.tolist(), (2 * axes).tolist(), float(rng.uniform(0, 180)))
        if rng.random() < 0.5:
            cv2.ellipse(image, box, colour, -1)
        else:
            cv2.fillConvexPoly(image, cv2.boxPoints(box).astype(np.int32), colour)
    return np.clip(image, 0, 255).astype(np.uint8)


def other_images(folder: Path) -> list[Image]:
    """The images of a folder without faces, made small, in the order of their names.

    Raises
    ------
    ValueError
        When there is none.
    """
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"{folder}: no image in it; expected images without faces")
    images = map(read_image, paths)
    return [shrink(image, -(-max(image.shape) // _LONGEST)) for image in images]


def random_crop(images: Sequence[Image], size: int, rng: np.random.Generator) -> Image:
    """A square of an image, of any size from a tenth of its shorter side on."""
    image = images[int(rng.integers(len(images)))]
    height, width = image.shape[:2]
    side = min(height, width) * float(np.exp(rng.uniform(np.log(LEAST_CROP), 0.0)))
    scale = size / side
    x, y = rng.uniform(0, 1, 2) * (np.array([width, height]) - side)
    matrix = np.array([[scale, 0.0, -x * scale], [0.0, scale, -y * scale]])
    return crop(image, matrix, size)
