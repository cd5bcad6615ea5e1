"""Videos of faces that asmkit renders itself, with the exact truth of every frame.

They are the test bed of tracking: faces move, turn, blink, are covered, cross, leave and return.
The faces are those of :mod:`asmkit.datasets.synthetic`, with the same camera (scaled orthography)
and the same limits: they are not photographs.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from asmkit._files import replacing
from asmkit.datasets.face_mesh import face_mesh
from asmkit.datasets.face_modes import express
from asmkit.datasets.synthetic import whole_number
from asmkit.datasets.video_motion import SCENARIOS, largest_unit, move, set_stage
from asmkit.datasets.video_scene import Scene, sample_person, set_scene
from asmkit.pose import euler_to_rotation

__all__ = ["SyntheticVideo", "synthetic_video"]

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Image = npt.NDArray[np.uint8]

_SMALLEST_PICTURE, _SMALLEST_FACE = 64, 16.0
_CODECS = {".avi": "MJPG", ".mp4": "mp4v"}


@dataclass(frozen=True, eq=False)
class SyntheticVideo:
    """A video that is rendered frame by frame when it is asked for, and what is known of it.

    ``video[i]`` is frame i, RGB uint8 ``(height, width, 3)``; ``len(video)`` and iteration work as
    in a list. A frame depends on the arguments and on i alone, bit for bit, in any order of access,
    and nothing is kept of it: memory does not grow with the frames that were seen. The index of the
    face axis is the identity. n frames, f faces:

    Attributes
    ----------
    size : width and height in pixels.
    fps : frames a second.
    scenario : as given.
    points : (n, f, 68, 2) float64, ibug68 landmarks in pixels; NaN where a face is absent.
    points3d : (n, f, 68, 3) float64, the same on the head, in centimetres, turned as a frontal
        face: ``points = scale · (rotation @ points3d)_xy + shift``.
    rotation : (n, f, 3, 3) float64, head to camera.
    euler : (n, f, 3) float64, yaw, pitch and roll in degrees (convention "aflw").
    scale : (n, f) float64, pixels per centimetre.
    shift : (n, f, 2) float64, pixels. Like the rest of the pose it is known of absent faces too.
    covered : (n, f) float64, the share of a face's landmarks that lie outside of the picture or
        behind an object or another person. A face's own far side does not count.
    presence : (n, f) bool, ``covered <= 0.5``.
    order : (f,) int64, the faces from the farthest to the nearest. It never changes: each face
        keeps to its own range of distances, and the nearer hides the farther.
    """

    size: tuple[int, int]
    fps: float
    scenario: str
    points: Array
    points3d: Array
    rotation: Array
    euler: Array
    scale: Array
    shift: Array
    covered: Array
    presence: Bools
    order: npt.NDArray[np.int64]
    _scene: Scene = field(repr=False)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, i: int) -> Image:
        return self._scene.frame(self._number(i))

    def __iter__(self) -> Iterator[Image]:
        return map(self._scene.frame, range(len(self)))

    def __repr__(self) -> str:
        n_frames, n_faces = self.presence.shape
        width, height = self.size
        return f"<SyntheticVideo {self.scenario!r}: {n_frames} × {width}×{height}, {n_faces} faces>"

    def _number(self, i: int) -> int:
        number = operator.index(i)
        if not -len(self) <= number < len(self):
            raise IndexError(f"frame {number} of a video of {len(self)} frames")
        return number % len(self)

    def visibility(self, i: int) -> Bools:
        """Which landmarks ``(f, 68)`` of frame i are seen.

        False where one lies outside of the picture or behind anything, the face's own skin and hair
        included. It takes a z-buffer for every face: some milliseconds.
        """
        number = self._number(i)
        return ~(self._scene.hidden(number) | self._scene.self_hidden(number))

    def save(self, path: str | os.PathLike[str], *, progress: bool = False) -> None:
        """Write the frames as a video file, whole or not at all.

        Parameters
        ----------
        path : ``.avi`` (motion JPEG) or ``.mp4`` (MPEG-4).
        progress : show a progress bar.

        Raises
        ------
        ValueError
            If the suffix is of neither format.
        OSError
            If this OpenCV cannot write it.
        """
        path = Path(path)
        codec = _CODECS.get(path.suffix.lower())
        if codec is None:
            raise ValueError(f"{path}: got the suffix {path.suffix!r}, expected .avi or .mp4")
        with replacing(path) as temporary:
            code = cv2.VideoWriter.fourcc(*codec)
            writer = cv2.VideoWriter(str(temporary), code, self.fps, self.size)
            try:
                if not writer.isOpened():
                    raise OSError(f"{path}: this build of OpenCV cannot write {codec} videos")
                for frame in tqdm(self, desc=path.name, unit="frame", disable=not progress):
                    writer.write(np.ascontiguousarray(frame[..., ::-1]))
            finally:
                writer.release()


def synthetic_video(
    seed: int,
    *,
    n_frames: int = 120,
    size: tuple[int, int] = (640, 480),
    n_faces: int = 1,
    fps: float = 30.0,
    scenario: str = "wander",
    face_size: float | None = None,
    moving_background: bool = True,
    progress: bool = False,
) -> SyntheticVideo:
    """Rendered faces that move, with exact landmarks, pose and presence in every frame.

    Identity, texture, hair, clothes and light stay; pose, distance, expression, gaze and the sensor
    noise change. At 30 frames a second a face moves by up to about 4 % of its width a frame (5 %
    on the way out) and turns by up to about 4°, within yaw ±40°, pitch ±20° and roll ±20°. A longer
    video begins with the shorter one.

    Parameters
    ----------
    seed : a whole number, 0 or more.
    n_frames : how many frames, at least 1.
    size : width and height of the frames in pixels, at least 64 each.
    n_faces : how many faces, each in its place in a row.
    fps : frames a second; motion is a function of time.
    scenario : what happens, over and over:

        - ``"wander"``: every face moves about in its part of the picture and is always there;
        - ``"cover"``: the same, and an object passes over the faces in turn, hiding them wholly;
        - ``"cross"``: neighbours change places, the nearer before the farther (2 faces or more);
        - ``"leave"``: the faces in turn go out of the picture, come back and rest (a shoulder
          may stay in it);
        - ``"all"``: a rest, then "cover", "cross" (2 faces or more) and "leave", in turn.

        One such event takes 4 seconds, or longer where faces have far to go.
    face_size : width in pixels of a frontal mean face in the middle of the distances, which
        change it by 15 % either way (one face in "wander" or "cover": 30 %; of several faces each
        has a part of that range). By default 31 % of the frame's smaller side, or what leaves room
        for all faces.
    moving_background : whether the background pans slowly, or stands still.
    progress : show a progress bar while the truth is worked out.

    Returns
    -------
    SyntheticVideo

    Raises
    ------
    ValueError
        If a number is out of range, the scenario is unknown, or the faces do not fit.
    TypeError
        If a count is not a whole number.
    """
    seed = whole_number(seed, "seed", 0)
    n_frames = whole_number(n_frames, "n_frames", 1)
    n_faces = whole_number(n_faces, "n_faces", 1)
    size = _checked_size(size)
    _check_scenario(scenario, n_faces)
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps: got {fps}, expected a finite number above 0")
    unit = _checked_face_size(face_size, size, n_faces, scenario)
    stage = set_stage(size, n_faces, unit, scenario)
    motion, order = move(seed, stage, np.arange(n_frames) / fps)
    people = tuple(sample_person(np.random.default_rng([seed, 8, k + 1])) for k in range(n_faces))
    marks = face_mesh().landmarks
    points3d = np.stack(
        [express(p.neutral, motion.expression[:, k], marks) for k, p in enumerate(people)], axis=1
    )
    rotation = euler_to_rotation(motion.euler)
    scene = set_scene(seed, people, order, motion, stage, rotation, points3d, moving_background)
    frames = tqdm(range(n_frames), desc="truth", unit="frame", disable=not progress)
    covered = np.stack([scene.hidden(i).mean(axis=1) for i in frames])
    presence = covered <= 0.5
    return SyntheticVideo(
        size=size,
        fps=float(fps),
        scenario=scenario,
        points=np.where(presence[..., None, None], scene.points, np.nan),
        points3d=points3d,
        rotation=rotation,
        euler=motion.euler,
        scale=scene.scale,
        shift=scene.shift,
        covered=covered,
        presence=presence,
        order=order,
        _scene=scene,
    )


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    try:
        width, height = size
    except (TypeError, ValueError) as error:
        raise ValueError(f"size: got {size!r}, expected (width, height)") from error
    return (
        whole_number(width, "size[0], the width", _SMALLEST_PICTURE),
        whole_number(height, "size[1], the height", _SMALLEST_PICTURE),
    )


def _check_scenario(scenario: str, n_faces: int) -> None:
    if scenario not in SCENARIOS:
        raise ValueError(f"scenario: got {scenario!r}, expected one of {', '.join(SCENARIOS)}")
    least = SCENARIOS[scenario].least_faces
    if n_faces < least:
        raise ValueError(
            f"scenario: {scenario!r} takes {least} faces or more, got n_faces={n_faces}"
        )


def _checked_face_size(
    face_size: float | None, size: tuple[int, int], n_faces: int, scenario: str
) -> float:
    largest = largest_unit(size, n_faces, scenario)
    unit = min(0.31 * min(size), 0.97 * largest) if face_size is None else float(face_size)
    if not _SMALLEST_FACE <= unit <= largest:
        asked = (
            f"face_size: got {face_size}" if face_size is not None else f"n_faces: got {n_faces}"
        )
        raise ValueError(
            f"{asked}; in frames of {size[0]}×{size[1]} pixels {n_faces} face(s) of "
            f"{_SMALLEST_FACE:.0f} to {largest:.0f} pixels fit: "
            "make the frames larger or the faces fewer"
        )
    return unit
