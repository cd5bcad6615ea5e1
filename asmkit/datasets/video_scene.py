"""What a synthetic video shows at a frame: people, objects and background in their order.

People are drawn from the farthest to the nearest, each with a z-buffer of its own, over one
background; the objects that pass lie before all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from asmkit._kernels.raster import shade
from asmkit.datasets.face_body import sample_following, turn_head
from asmkit.datasets.face_hair import grow_hair, sample_hair
from asmkit.datasets.face_mesh import PARTS, face_mesh
from asmkit.datasets.face_modes import express, identity_vertices, sample_identity
from asmkit.datasets.face_render import (
    SUPERSAMPLING,
    Exposure,
    head_attributes,
    head_triangles,
    sample_background,
    sample_exposure,
    sample_lights,
    unhidden,
    z_buffer,
)
from asmkit.datasets.face_texture import paint
from asmkit.datasets.synthetic import HIDDEN_BEHIND
from asmkit.datasets.video_cover import Cover, sample_cover
from asmkit.datasets.video_motion import Motion, Stage

__all__ = ["Person", "Scene", "sample_person", "set_scene"]

Array = npt.NDArray[np.float64]
Float32s = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

#: The middle of the mean face, in centimetres: it follows the path of the motion.
MIDDLE = np.array([0.0, 4.2, -4.0])

# A person in any pose lies in these strips: half a width, and the upper end below MIDDLE, in cm.
# The head with all its hair, the shoulders, and where they are farthest out.
_OUTLINE = ((16.0, -21.0), (26.0, 3.5), (40.0, 9.5))


@cache
def _face_width() -> float:
    """Centimetres between the mean head's outermost landmarks."""
    mesh = face_mesh()
    return float(np.ptp(mesh.vertices[mesh.landmarks, 0]))


@dataclass(frozen=True, eq=False)
class Person:
    """One face with everything about it that does not change.

    Attributes
    ----------
    neutral : (v, 3) vertices without expression, in centimetres.
    style, long_hair, thickness, length : the hair, see :mod:`asmkit.datasets.face_hair`.
    following : (3,) share of the head's angles that the shoulders follow.
    atlas : (rows, columns, 4) texture.
    """

    neutral: Array
    style: str
    long_hair: bool
    thickness: float
    length: float
    following: Array
    atlas: Float32s

    def vertices(self, expression: Array, euler: Array, rotation: Array, reach: float) -> Array:
        """Vertices ``(v, 3)`` of the turned head and its body, which is ``reach`` cm long."""
        head = express(self.neutral, expression)
        head = grow_hair(head, self.style, self.thickness, self.length)
        head[:, 1] += _body_below() * max(reach / _BODY_END - 1, 0.0)
        return turn_head(head, euler, rotation, self.following)


_BODY_BEGIN, _BODY_END = 24.0, 35.0


@cache
def _body_below() -> Array:
    """How far down each vertex moves where the body becomes twice as long."""
    mesh = face_mesh()
    share = (mesh.vertices[:, 1] - _BODY_BEGIN).clip(0) / (_BODY_END - _BODY_BEGIN)
    return np.asarray(_BODY_END * share * (mesh.part == PARTS.index("skin")))


def sample_person(rng: np.random.Generator) -> Person:
    """A random identity, hair, skin and clothes."""
    style, long_hair = sample_hair(rng)
    return Person(
        neutral=identity_vertices(sample_identity(rng)),
        style=style,
        long_hair=long_hair,
        thickness=rng.uniform(0.2, 1.3),
        length=rng.uniform(0.3, 1.2),
        following=sample_following(rng),
        atlas=paint(rng, style),
    )


@dataclass(frozen=True, eq=False)
class Scene:
    """People in motion; n frames, f faces.

    Attributes
    ----------
    seed : of the video.
    size : width and height of the picture.
    people : whose faces they are.
    order : (f,) numbers of the faces from the farthest to the nearest.
    motion : see :class:`~asmkit.datasets.video_motion.Motion`.
    rotation : (n, f, 3, 3) head to camera.
    scale : (n, f) pixels per centimetre.
    shift : (n, f, 2) where the origin of a head is, in pixels.
    points : (n, f, 68, 2) landmarks, also those of faces that are hidden.
    cover_radius : of the disc that an object hides at least, in pixels.
    reach : length of the bodies in centimetres: to the lower edge of the picture.
    background : larger than the picture on every side by ``margin`` pixels.
    """

    seed: int
    size: tuple[int, int]
    people: tuple[Person, ...]
    order: npt.NDArray[np.int64]
    motion: Motion
    rotation: Array
    scale: Array
    shift: Array
    points: Array
    cover_radius: float
    reach: float
    background: Float32s
    margin: int
    lights: Float32s
    exposure: Exposure

    def frame(self, i: int) -> npt.NDArray[np.uint8]:
        """Picture i ``(h, w, 3)``."""
        image = self._backdrop(i)
        for k in self.order:
            self._draw(i, k, image)
        cover = self.cover(i)
        if cover is not None:
            cover.paint(image, self.motion.cover_centre[i])
        return self.exposure.take(image, np.random.default_rng([self.seed, 6, i + 1]))

    def cover(self, i: int) -> Cover | None:
        """The object that passes in frame i."""
        if self.motion.covered[i] < 0:
            return None
        rng = np.random.default_rng([self.seed, 5, int(self.motion.slot[i]) + 1])
        return sample_cover(rng, self.cover_radius)

    def hidden(self, i: int) -> Bools:
        """Landmarks ``(f, 68)`` of frame i that other things cover or that are off the picture."""
        points = self.points[i]
        out = ((points < -0.5) | (points > np.array(self.size) - 0.5)).any(axis=-1)
        cover = self.cover(i)
        if cover is not None:
            out |= cover.hides(points, self.motion.cover_centre[i])
        for rank, near in enumerate(self.order):
            behind = [k for k in self.order[:rank] if self._may_hide(i, near, points[k])]
            if behind:
                placed = self._placed(i, near)
                for k in behind:
                    out[k] |= self._before(placed, near, points[k])
        return np.asarray(out)

    def self_hidden(self, i: int) -> Bools:
        """Landmarks ``(f, 68)`` of frame i that lie behind the face's own skin or hair."""
        marks = face_mesh().landmarks
        out = np.empty(self.points[i].shape[:2], np.bool_)
        for k in self.order:
            placed = self._placed(i, k)
            low, depth = self._depth_around(placed, k, self.points[i, k])
            at = placed[marks] - [*low, 0.0]
            out[k] = ~unhidden(at, depth, HIDDEN_BEHIND * self.scale[i, k])
        return out

    def _placed(self, i: int, k: int) -> Array:
        """Vertices of face k in the pixels of frame i."""
        turned = self.people[k].vertices(
            self.motion.expression[i, k], self.motion.euler[i, k], self.rotation[i, k], self.reach
        )
        return np.asarray(turned * self.scale[i, k] + [*self.shift[i, k], 0.0])

    def _may_hide(self, i: int, near: int, points: Array) -> bool:
        """Whether points ``(68, 2)`` come near a person: a quick test that misses nobody."""
        away = (points - self.motion.centre[i, near]) / self.scale[i, near]
        aside, below = np.abs(away[:, 0]), away[:, 1]
        near_it = [(aside < width) & (below > top) for width, top in _OUTLINE]
        return bool(np.any(near_it))

    def _before(self, placed: Array, near: int, points: Array) -> Bools:
        """Which points ``(68, 2)`` the person with these vertices covers."""
        low, depth = self._depth_around(placed, near, points)
        at = np.round((points - low + 0.5) * SUPERSAMPLING - 0.5).astype(np.int64)
        return np.asarray(np.isfinite(depth[at[:, 1], at[:, 0]]))

    def _depth_around(self, placed: Array, k: int, points: Array) -> tuple[Array, Float32s]:
        """The upper left pixel of the neighbourhood of points, and depth there."""
        low, high = np.floor(points.min(axis=0)) - 2, np.ceil(points.max(axis=0)) + 3
        columns, rows = ((high - low) * SUPERSAMPLING).astype(int)
        triangles = head_triangles(self.people[k].long_hair)
        nothing = np.empty((len(placed), 0), np.float32)
        depth, _ = z_buffer(
            placed - [*low, 0.0], triangles, nothing, (rows, columns), SUPERSAMPLING
        )
        return low, depth

    def _draw(self, i: int, k: int, image: Float32s) -> None:
        """Draw person k, on the part of the picture where it is."""
        person, placed = self.people[k], self._placed(i, k)
        triangles = head_triangles(person.long_hair)
        used = placed[triangles, :2].reshape(-1, 2)
        low = np.clip(np.floor(used.min(axis=0)), 0, self.size).astype(np.int64)
        high = np.clip(np.ceil(used.max(axis=0)) + 1, 0, self.size).astype(np.int64)
        if (high <= low).any():
            return
        columns, rows = (high - low) * SUPERSAMPLING
        attributes = head_attributes(placed, self.motion.gaze[i, k], person.long_hair)
        depth, samples = z_buffer(
            placed - [*low, 0.0], triangles, attributes, (int(rows), int(columns)), SUPERSAMPLING
        )
        window = image[low[1] : high[1], low[0] : high[0]]
        tile = np.ascontiguousarray(window)
        shade(samples, depth, person.atlas, self.lights, tile)
        window[:] = tile

    def _backdrop(self, i: int) -> Float32s:
        at = self.margin + self.motion.pan[i] * (self.margin - 1)
        place = np.column_stack([np.eye(2), at])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(self.background, place, self.size, flags=flags))


def set_scene(
    seed: int,
    people: tuple[Person, ...],
    order: npt.NDArray[np.int64],
    motion: Motion,
    stage: Stage,
    rotation: Array,
    points3d: Array,
    moving_background: bool,
) -> Scene:
    """Put people into the picture and choose background, light and camera."""
    rng = np.random.default_rng([seed, 7])
    size, pixels_per_cm = stage.size, stage.unit / _face_width()
    scale = motion.magnification * pixels_per_cm
    shift = motion.centre - scale[..., None] * (rotation @ MIDDLE)[..., :2]
    points = scale[..., None, None] * (points3d @ np.swapaxes(rotation, -1, -2))[..., :2]
    margin = max(2, round(0.08 * min(size))) if moving_background else 1
    return Scene(
        seed=seed,
        size=size,
        people=people,
        order=order,
        motion=motion,
        rotation=rotation,
        scale=scale,
        shift=shift,
        points=points + shift[..., None, :],
        cover_radius=0.8 * stage.unit * stage.nearest,
        reach=1.2 * size[1] * stage.nearest / pixels_per_cm + 15.0,
        background=sample_background(rng, size[1] + 2 * margin, size[0] + 2 * margin),
        margin=margin,
        lights=sample_lights(rng),
        exposure=sample_exposure(rng),
    )
