"""Faces that asmkit renders itself, with exact landmarks and pose.

A hand-sculpted head (:mod:`asmkit.datasets.face_sculpt`) is given a random identity and expression,
skin, hair, light and pose, and drawn by a z-buffer. Nothing is learned from or copied out of any
data set, so the faces are free to use. They serve demonstrations and tests; a network trained on
them alone does not do well on photographs.

The camera is scaled orthography, ``x = s · (R X)_xy + shift``, with the z-buffer's depth from the
same rotation: pose and landmarks belong to each other exactly.
"""

from __future__ import annotations

import operator
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from asmkit.annotations import Annotation, write
from asmkit.datasets.face_body import sample_following, turn_head
from asmkit.datasets.face_hair import grow_hair, sample_hair
from asmkit.datasets.face_mesh import face_mesh
from asmkit.datasets.face_modes import sample_expression, sample_identity, shape_face
from asmkit.datasets.face_render import draw, unhidden
from asmkit.images import write_image
from asmkit.pose import euler_to_rotation
from asmkit.threads import run_chunks

__all__ = ["SyntheticFaces", "synthetic_faces"]

Array = npt.NDArray[np.float64]

MAX_YAW, MAX_PITCH, MAX_ROLL = 45.0, 25.0, 25.0
_SMALLEST = 32
HIDDEN_BEHIND = 0.45  # centimetres that must lie before a landmark to hide it


@dataclass(frozen=True, eq=False)
class SyntheticFaces:
    """Rendered faces and what is known of them.

    Attributes
    ----------
    images : (n, size, size, 3) uint8, RGB.
    points : (n, 68, 2) float64, ibug68 landmarks in pixels (0-based pixel centres).
    points3d : (n, 68, 3) float64, the same landmarks on the head, in centimetres, turned as a
        frontal face: ``points = s · (rotation @ points3d)_xy + shift`` for one s and shift a face.
    rotation : (n, 3, 3) float64, head to camera.
    euler : (n, 3) float64, yaw, pitch and roll in degrees (convention "aflw").
    visibility : (n, 68) bool, False where something stands before the landmark.
    """

    images: npt.NDArray[np.uint8]
    points: Array
    points3d: Array
    rotation: Array
    euler: Array
    visibility: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.images)

    def save(self, folder: str | os.PathLike[str]) -> list[Annotation]:
        """Write ``face_00000.png`` and ``face_00000.pts`` … into a folder; their annotations."""
        folder = Path(folder)
        annotations = []
        for i, (image, points) in enumerate(zip(self.images, self.points, strict=True)):
            path = folder / f"face_{i:05d}.png"
            write_image(path, image)
            annotation = Annotation(
                points=points,
                image=path,
                image_size=(image.shape[1], image.shape[0]),
                visibility=self.visibility[i],
                scheme="ibug68",
                name=path.stem,
                attributes={"euler": tuple(map(float, self.euler[i]))},
            )
            write(path.with_suffix(".pts"), [annotation])
            annotations.append(annotation)
        return annotations


def synthetic_faces(
    n: int, seed: int, *, size: int = 128, progress: bool = False
) -> SyntheticFaces:
    """Render ``n`` faces with exact landmarks, pose and visibility.

    Face i depends on ``(seed, i)`` alone: a longer set begins with the shorter one.

    Parameters
    ----------
    n : how many faces.
    seed : a whole number, 0 or more.
    size : side of the square images in pixels, at least 32.
    progress : show a progress bar.

    Returns
    -------
    SyntheticFaces
        Yaw reaches ±45°, pitch and roll ±25°. The landmark box fills 45 to 65 % of the image. The
        jaw line's landmarks are fixed points of the jaw, not the picture's changing outline.

    Raises
    ------
    ValueError
        If ``n`` or ``seed`` is negative or ``size`` is less than 32.
    TypeError
        If one of them is not a whole number.
    """
    n, seed, size = (
        whole_number(*given)
        for given in ((n, "n", 0), (seed, "seed", 0), (size, "size", _SMALLEST))
    )
    faces = SyntheticFaces(
        images=np.empty((n, size, size, 3), np.uint8),
        points=np.empty((n, 68, 2)),
        points3d=np.empty((n, 68, 3)),
        rotation=np.empty((n, 3, 3)),
        euler=np.empty((n, 3)),
        visibility=np.empty((n, 68), np.bool_),
    )
    with tqdm(total=n, desc="faces", unit="face", disable=not progress) as bar:

        def render(start: int, stop: int) -> None:
            for i in range(start, stop):
                _render(faces, seed, i)
                bar.update()

        first = min(n, 1)
        render(0, first)  # fills the caches that the threads share
        run_chunks(lambda start, stop: render(first + start, first + stop), n - first, min_chunk=8)
    return faces


def whole_number(value: int, name: str, lowest: int) -> int:
    """Check an argument that counts something."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name}: got {value!r}, expected a whole number") from error
    if number < lowest:
        raise ValueError(f"{name}: got {number}, expected a whole number of at least {lowest}")
    return number


def _render(faces: SyntheticFaces, seed: int, i: int) -> None:
    size = faces.images.shape[1]
    rng = np.random.default_rng([seed, i])
    style, long_hair = sample_hair(rng)
    head = shape_face(sample_identity(rng), sample_expression(rng))
    head = grow_hair(head, style, rng.uniform(0.2, 1.3), rng.uniform(0.3, 1.2))
    euler = _sample_euler(rng)
    rotation = euler_to_rotation(euler)
    marks = face_mesh().landmarks
    turned = turn_head(head, euler, rotation, sample_following(rng))
    scale, shift = _frame(rng, turned[marks, :2], size)
    placed = turned * scale + [*shift, 0.0]
    faces.images[i], depth = draw(rng, placed, size, style, long_hair)
    faces.points[i] = placed[marks, :2]
    faces.points3d[i] = head[marks]
    faces.rotation[i] = rotation
    faces.euler[i] = euler
    faces.visibility[i] = unhidden(placed[marks], depth, HIDDEN_BEHIND * scale)


def _sample_euler(rng: np.random.Generator) -> Array:
    """Angles over the whole range, near-frontal ones more often."""
    return (2 * rng.beta(1.6, 1.6, 3) - 1) * [MAX_YAW, MAX_PITCH, MAX_ROLL]


def _frame(rng: np.random.Generator, flat: Array, size: int) -> tuple[float, Array]:
    """Scale and shift that set the landmark box into the picture."""
    low, high = flat.min(axis=0), flat.max(axis=0)
    scale = rng.uniform(0.45, 0.65) * size / (high - low).max()
    centre = (size - 1) / 2 + rng.uniform(-0.08, 0.08, 2) * size
    return float(scale), np.asarray(centre - scale * (low + high) / 2)
