"""Follow faces through a video: the detector finds them once, their landmarks lead from there.

In every frame each face is located once, in the box of its last landmarks moved on by its speed;
the detector runs only at the start, after a loss, while there is no face, and when asked to look
for newcomers. What locates is any ``locate(image, boxes) -> shapes``.

A frame goes like this:

1. The tracked faces are located, all in one call, and judged. A face is lost when its landmarks are
   not finite, its box is half outside the image, smaller than 8 pixels, or twice as large or small
   as one frame before; or when ``max_bad`` frames were bad with no good one between. A frame is bad
   when the face probability is below ``lose`` or the shape implausible, good when the probability
   reaches ``keep`` and the shape is plausible, and neither in between. After a bad frame the box
   coasts on as the face moved before: what was located there is no guide.
2. Two tracks on one face: the one with more bad frames is lost (a hidden face, whose landmarks
   went to the face before it), or else the one that moved less as it had moved before (a track
   that was caught by another face jumped there), or else the younger.
3. Where the detector runs, its boxes are assigned to the tracks, and to the lost faces where they
   would be now, so that the overlap (IoU) in sum is the largest; a lost face may have moved on by
   up to 3 % of its size a frame. A box of a lost face gives it back its identity, a box of nobody
   is a newcomer. Both are located twice, the second time in the
   box of the landmarks found first, because a detector's boxes are off in ways of their own; and
   are taken when they are good.

The result is constrained and filtered after all this, and nothing of it is fed back: a box that
follows filtered landmarks is behind the face by the lag of the filter, in every frame anew.
"""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from asmkit.box_calibration import Detect
from asmkit.boxes import as_boxes, iou, landmark_box
from asmkit.detection import detect_in_frame
from asmkit.images import as_image
from asmkit.matching import match
from asmkit.model import ShapeModel
from asmkit.one_euro import OneEuro, OneEuroFilter
from asmkit.plausibility import NETWORK_TAIL, TAIL, Plausibility
from asmkit.pose import Camera, face_reference, reference_schemes, solve_pnp
from asmkit.predictor import Locate, Predictor
from asmkit.video import DEFAULT_FPS, Frames, check_is_no_image

__all__ = ["TrackedFace", "TrackedFrame", "track"]

Doubles = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

#: IoU from which a detection may be a face that is followed, or one that was.
_OVERLAP = 0.2
#: By how much of its size a face that is hidden may go in a frame, and in all.
_REACH, _FARTHEST = 0.03, 1.5
#: IoU of the boxes of two tracks from which they are on one face.
_SAME = 0.7
_MIN_SIDE = 8.0
#: Share of each new step in the speed of a track.
_SPEED_WEIGHT = 0.5
#: Share of each new frame in the surprise of a track, and the difference that tells.
_SURPRISE_WEIGHT, _SURPRISING = 0.3, 0.02
#: Degrees a second that count as one face size a second in the filter.
_ANGLE_UNIT = 60.0


@dataclass(frozen=True, eq=False)
class TrackedFace:
    """One face in one frame.

    Attributes
    ----------
    identity : int
        The same number in every frame; numbers are never used again.
    points : ndarray (n_points, 2) float64
        Landmarks in pixels of the frame, constrained and filtered where that was asked for.
    pose : ndarray (3,) float64
        Yaw, pitch, roll in degrees (``"aflw"``, see :meth:`asmkit.Pose.euler`); NaN where unknown.
    box : ndarray (4,) float64
        Tight box ``[x, y, width, height]`` of ``points``.
    face : float
        Probability that this is a face, from the network; NaN where it says none.
    plausibility : float
        How plausible the shape is in the shape model: 1 for the mean shape, 0.5 at the limit,
        towards 0 beyond; NaN without a model.
    age : int
        Frames in which this identity was tracked, this one included.
    """

    identity: int
    points: Doubles
    pose: Doubles
    box: Doubles
    face: float
    plausibility: float
    age: int


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """What was tracked in one frame.

    Attributes
    ----------
    index : int
        Number of the frame in its source, from 0.
    time : float
        Seconds since the first frame.
    faces : tuple of TrackedFace
        In the order of their identities.
    detected : bool
        Whether the detector ran.
    lost : tuple of int
        Identities that were tracked in the frame before and no longer are.
    """

    index: int
    time: float
    faces: tuple[TrackedFace, ...]
    detected: bool
    lost: tuple[int, ...]


@dataclass(frozen=True)
class _Settings:
    detect: Detect
    model: ShapeModel | None
    tail: float | None
    scheme: str | None
    smooth: OneEuro | None
    constrain: bool
    keep: float
    lose: float
    max_bad: int
    patience: int
    memory: int
    look_every: int | None

    def __post_init__(self) -> None:
        if not 0 <= self.lose <= self.keep <= 1:
            raise ValueError(
                f"got lose = {self.lose} and keep = {self.keep}, expected 0 ≤ lose ≤ keep ≤ 1"
            )
        for name, least in (("max_bad", 1), ("patience", 0), ("memory", 0), ("look_every", 1)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= least):
                raise ValueError(f"{name}: got {value!r}, expected a whole number from {least} on")
        if self.constrain and self.model is None:
            raise ValueError("constrain needs the shape model that constrains: give model=…")
        if self.model is not None:
            self._check_model(self.model)
        if self.scheme is not None and self.scheme not in reference_schemes():
            raise ValueError(
                f"scheme: no reference face for {self.scheme!r}, "
                f"expected one of {reference_schemes()}"
            )

    def _check_model(self, model: ShapeModel) -> None:
        if model.mean_.shape[1] != 2:
            raise ValueError("model: got a 3-D shape model, expected one of 2-D landmarks")
        if self.constrain and model.align != "similarity":
            raise ValueError(
                f"constrain needs a model with align='similarity', got align={model.align!r}"
            )


@dataclass(frozen=True, eq=False)
class _Found:
    """What was located in some boxes: arrays with a row a face."""

    points: Doubles
    pose: Doubles
    face: Doubles
    plausibility: Doubles

    def rows(self, which: npt.ArrayLike) -> _Found:
        index = np.asarray(which)
        return _Found(
            self.points[index], self.pose[index], self.face[index], self.plausibility[index]
        )


@dataclass(eq=False)
class _Track:
    identity: int
    points: Doubles
    pose: Doubles
    face: float
    plausibility: float
    box: Doubles
    filters: tuple[OneEuroFilter, OneEuroFilter] | None
    velocity: Doubles = field(default_factory=lambda: np.zeros(2))
    surprise: float = 0.0
    age: int = 0  # frames in which it was reported
    n_bad: int = 0
    moved: bool = False
    since: int = 0  # frames since ``box``
    missing: int = 0  # frames since the loss

    def expected(self) -> Doubles:
        """Where the box is in this frame, as the face moved before."""
        return np.concatenate([self.box[:2] + self.velocity * self.since, self.box[2:]])

    def seen(self) -> Doubles:
        """Box of the landmarks located last."""
        return landmark_box(self.points)

    def see(self, found: _Found, row: int) -> None:
        """Take over what was located."""
        self.points, self.pose = found.points[row], found.pose[row]
        self.face, self.plausibility = float(found.face[row]), float(found.plausibility[row])

    def move(self, box: Doubles) -> None:
        """Go on to the next box, and learn from it how the face moves."""
        step = (_centre(box) - _centre(self.box)) / self.since
        # The first step of all tells the speed; only later ones can surprise.
        weight = _SPEED_WEIGHT if self.moved else 1.0
        off = float(np.linalg.norm(step - self.velocity)) / float(self.box[2:].max())
        self.surprise += _SURPRISE_WEIGHT * (off * self.moved - self.surprise)
        self.velocity = self.velocity + weight * (step - self.velocity)
        self.box, self.since, self.moved = box, 0, True


def track(
    frames: Iterable[Image] | Frames,
    locate: Predictor | Locate,
    *,
    detect: Detect = detect_in_frame,
    model: ShapeModel | None = None,
    tail: float | None = None,
    scheme: str | None = None,
    smooth: OneEuro | None = None,
    constrain: bool = False,
    keep: float = 0.6,
    lose: float = 0.4,
    max_bad: int = 2,
    patience: int = 10,
    memory: int = 300,
    look_every: int | None = None,
    fps: float | None = None,
) -> Iterator[TrackedFrame]:
    """Track the landmarks of faces through a video.

    A generator: one result a frame, as soon as it is there, in bounded memory. How it goes is on
    top of :mod:`asmkit.tracking`. The same frames give the same results. When the generator ends
    or is closed, it closes ``frames``, where those are a generator or from ``open_frames``.

    Parameters
    ----------
    frames : iterable of ndarray (h, w, 3) uint8, or what :func:`asmkit.open_frames` gives
        RGB. They may differ in size; where the size changes, every face is looked for anew.
    locate : Predictor or callable
        A trained network, whose pose and face probability then come with the landmarks; or any
        ``(image, boxes (n, 4)) -> shapes (n, n_points, 2)``, a shape of NaN where nothing was
        found.
    detect : callable
        ``image -> boxes (n, 4)``, tight landmark boxes; by default :func:`asmkit.detect_faces`
        with its first search alone, because the next frame is another chance. Any other detector
        by :func:`asmkit.calibrate_box`.
    model : ShapeModel, optional
        Judges whether landmarks are plausible (see :class:`asmkit.plausibility.Plausibility`).
        Without one, and with a network that gives no face probability, a face is only lost when
        its box leaves the image, collapses or jumps in size.
    tail : float, optional
        Share of the shapes drawn from the model that would be called implausible. By default
        1e-9; but 0.8 for a network that gives no face probability, because a network's shapes are
        close to the mean, and those of what is no face are told by that alone.
    scheme : str, optional
        Scheme of the landmarks of a plain callable, for its pose by
        :func:`asmkit.solve_pnp`; by default the model's.
    smooth : OneEuro, optional
        Filter the landmarks and the angles; it begins anew with every face that appears.
    constrain : bool
        Give the nearest plausible shapes (``model.constrain``), before the filter.
    keep, lose : float
        Face probabilities from which on a frame is good and below which it is bad. A face that
        appears has to be good.
    max_bad : int
        Bad frames, with no good one between, after which a face is lost.
    patience : int
        Frames in which the detector looks for a face that was lost while others are tracked; from
        then on it looks in one frame of so many, as long as the face is remembered. While no face
        is tracked the detector looks in every frame.
    memory : int
        Frames for which a lost face is remembered: one that appears where it was, or where it would
        be by now, is taken for it.
    look_every : int, optional
        Frames between looks for newcomers while faces are tracked; never by default.
    fps : float, optional
        Frames a second, for ``time``; by default those of ``frames``, else 25.

    Yields
    ------
    TrackedFrame

    Raises
    ------
    ValueError, TypeError
        For wrong arguments, at once; for a frame that is no RGB uint8 image (its number is named)
        and for shapes or boxes of another form, when they are met.

    What ``locate`` and ``detect`` raise goes through, with a note that names the frame.
    """
    if not callable(detect):
        raise TypeError(f"detect: got {type(detect).__name__}, expected a callable")
    if not isinstance(model, ShapeModel | None):
        raise TypeError(f"model: got {model!r}, expected one as from asmkit.ShapeModel.load(…)")
    if not isinstance(smooth, OneEuro | None):
        raise TypeError(f"smooth: got {smooth!r}, expected None or smooth=asmkit.OneEuro()")
    known = scheme or (model.scheme_ if model is not None else None)
    settings = _Settings(
        detect=detect,
        model=model,
        tail=tail,
        scheme=known if scheme is not None or known in reference_schemes() else None,
        smooth=smooth,
        constrain=constrain,
        keep=keep,
        lose=lose,
        max_bad=max_bad,
        patience=patience,
        memory=memory,
        look_every=look_every,
    )
    if fps is not None and not 0 < fps < math.inf:
        raise ValueError(f"fps: got {fps}, expected frames a second, a number above 0")
    if not callable(locate) and not isinstance(locate, Predictor):
        raise TypeError(f"locate: got {type(locate).__name__}, expected a Predictor or a callable")
    if isinstance(frames, str | os.PathLike) or not isinstance(frames, Iterable):
        raise TypeError(
            f"frames: got {frames!r}, expected images; open a file, a folder or a camera first: "
            f"track(asmkit.open_frames({frames!r}), …)"
        )
    check_is_no_image(frames, "frames")
    return _steps(_Tracker(_Finder(locate, settings), settings), frames, fps)


def _steps(
    tracker: _Tracker, frames: Iterable[Image] | Frames, fps: float | None
) -> Generator[TrackedFrame, None, None]:
    try:
        for index, time, image in _numbered(frames, fps):
            try:
                result = tracker.step(index, time, image)
            except Exception as error:
                error.add_note(f"This was in frame {index}.")
                raise
            yield result
    finally:
        # Who leaves the results early may hold nothing else that closes a file or a camera.
        if isinstance(frames, Frames | Generator):
            frames.close()


def _numbered(
    frames: Iterable[Image] | Frames, fps: float | None
) -> Iterator[tuple[int, float, Image]]:
    """Number, time and pixels of each frame, checked."""
    for count, frame in enumerate(frames):
        if isinstance(frames, Frames):
            index, time = frames.index, frames.time if fps is None else frames.index / fps
        else:
            index, time = count, count / (fps or DEFAULT_FPS)
        yield index, time, as_image(frame, f"frame {index}")


class _Finder:
    """Whatever locates, with pose, face probability and plausibility where they are to be had."""

    def __init__(self, locate: Predictor | Locate, settings: _Settings) -> None:
        self._locate, self._scheme = locate, settings.scheme
        self._plausible = self._plausible_network = None
        # How many landmarks a face has, and who says so; of a plain callable, its first answer.
        self._expected: tuple[int, str] | None = None
        model, tail = settings.model, settings.tail
        if model is not None:
            self._expected = len(model.mean_), "the model"
            self._plausible = Plausibility(model, TAIL if tail is None else tail)
            self._plausible_network = Plausibility(model, NETWORK_TAIL if tail is None else tail)
        elif self._scheme is not None:
            self._expected = len(face_reference(self._scheme)), f"the scheme {self._scheme!r}"

    def __call__(self, image: Image, boxes: Doubles) -> _Found:
        n = len(boxes)
        face = pose = None
        if isinstance(self._locate, Predictor):
            # Completed by a shape model, any face would be plausible, and a lost one not noticed.
            prediction = self._locate.predict(image, boxes, shape_prior=False)
            points, pose, face = prediction.points, prediction.pose, prediction.face
            points = self._checked(points, n)
        else:
            points = self._checked(self._locate(image, boxes), n)
            if self._scheme is not None:
                reference = face_reference(self._scheme)
                pose = solve_pnp(points, reference, Camera.orthographic()).euler()
        unknown = np.full(n, np.nan)
        blind = face is not None and np.isnan(face).all()
        judge = self._plausible_network if blind else self._plausible
        return _Found(
            points,
            np.full((n, 3), np.nan) if pose is None else pose,
            unknown if face is None else face,
            unknown if judge is None else judge(points),
        )

    def _checked(self, shapes: npt.ArrayLike, n: int) -> Doubles:
        points = _numbers(shapes, "the shapes of locate")
        if points.ndim != 3 or len(points) != n or points.shape[2] != 2 or not points.shape[1]:
            raise ValueError(
                f"locate: gave shapes {points.shape} for {n} boxes, expected ({n}, n_points, 2)"
            )
        self._expected = self._expected or (points.shape[1], "the frames before")
        n_points, where = self._expected
        if points.shape[1] != n_points:
            raise ValueError(
                f"locate: gave {points.shape[1]} landmarks a face, "
                f"expected {n_points} as in {where}"
            )
        # A landmark at infinity is as good as none.
        return np.where(np.isfinite(points), points, np.nan)


def _numbers(values: npt.ArrayLike, name: str) -> Doubles:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: expected an array of numbers ({error})") from error


class _Tracker:
    """The state between frames: tracks, those lost of late, and nothing that grows."""

    def __init__(self, find: _Finder, settings: _Settings) -> None:
        self._find, self._settings = find, settings
        self._tracks: list[_Track] = []
        self._lost: list[_Track] = []
        self._size: tuple[int, int] | None = None
        self._n_frames = self._n_identities = 0

    def step(self, index: int, time: float, image: Image) -> TrackedFrame:
        before = {track.identity for track in self._tracks}
        for track in (*self._tracks, *self._lost):
            track.since += 1
        self._meet_size(image)
        self._follow(image)
        self._part()
        detected = self._looks()
        if detected:
            self._look(image)
        for track in self._lost:
            track.missing += 1
        self._lost = [t for t in self._lost if t.missing <= self._settings.memory]
        self._n_frames += 1
        self._tracks.sort(key=lambda track: track.identity)
        gone = before - {track.identity for track in self._tracks}
        faces = self._report(time)
        return TrackedFrame(index, time, faces, detected, tuple(sorted(gone)))

    def _meet_size(self, image: Image) -> None:
        """Where frames change their size, look anew, at the same place in the picture."""
        size = (image.shape[1], image.shape[0])
        if self._size not in (None, size):
            assert self._size is not None
            scale = np.divide(size, self._size)
            self._lose(self._tracks)
            for track in self._lost:
                track.box, track.velocity = track.box * np.tile(scale, 2), track.velocity * scale
        self._size = size

    def _follow(self, image: Image) -> None:
        """Locate and judge the tracked faces."""
        boxes = _boxes(track.expected() for track in self._tracks)
        # What moves out of the image is lost before it is looked for.
        inside = _is_inside(boxes, image)
        self._lose([t for t, still in zip(self._tracks, inside, strict=True) if not still])
        if not self._tracks:
            return
        found = self._find(image, boxes[inside])
        now = landmark_box(found.points)
        sound = _is_sound(found.points, now, image) & _is_alike(now, boxes[inside])
        lost = []
        for row, track in enumerate(self._tracks):
            if not sound[row]:
                lost.append(track)
                continue
            track.see(found, row)
            bad, good = self._judge(track.face, track.plausibility)
            track.n_bad = 0 if good else track.n_bad + bad
            if not bad:
                track.move(now[row])
            if track.n_bad >= self._settings.max_bad:
                lost.append(track)
        self._lose(lost)

    def _judge(self, face: float, plausibility: float) -> tuple[bool, bool]:
        """Whether a frame is bad, and whether it is good; of what is NaN nothing bad is known."""
        bad = face < self._settings.lose or plausibility < 0.5
        good = not (face < self._settings.keep or plausibility < 0.5)
        return bad, good

    def _part(self) -> None:
        """Of two tracks on one face, lose one."""
        boxes = _boxes(track.seen() for track in self._tracks)
        lost: list[_Track] = []
        for i, j in zip(*np.nonzero(np.triu(iou(boxes[:, None], boxes) >= _SAME, 1)), strict=True):
            pair = self._tracks[i], self._tracks[j]
            if not any(track in lost for track in pair):
                lost.append(_less_credible(*pair))
        self._lose(lost)

    def _lose(self, tracks: list[_Track]) -> None:
        for track in tracks:
            track.missing = 0
        self._tracks = [track for track in self._tracks if track not in tracks]
        self._lost += tracks

    def _looks(self) -> bool:
        """Whether the detector runs in this frame."""
        every = self._settings.look_every
        patience = self._settings.patience
        missed = patience > 0 and any(
            track.missing < patience or track.missing % patience == 0 for track in self._lost
        )
        turn = every is not None and self._n_frames % every == 0
        return not self._tracks or missed or turn

    def _look(self, image: Image) -> None:
        """Detect, give lost faces back their identity, and welcome newcomers."""
        name = "the boxes of detect"
        boxes = as_boxes(_numbers(self._settings.detect(image), name), name)
        boxes = boxes[_is_inside(boxes, image)]
        followed = iou(boxes[:, None], _boxes(track.seen() for track in self._tracks))
        # A lost face may have gone on, or stayed, or turned elsewhere while it was hidden.
        lost = [_boxes(t.expected() for t in self._lost), _boxes(t.box for t in self._lost)]
        returned = np.max([iou(boxes[:, None], b) for b in lost], axis=0)
        near = _in_reach(boxes, lost[1], np.array([track.since for track in self._lost]))
        overlaps = np.hstack([followed, np.maximum(returned, near)])
        owner, n_followed = _assign(overlaps), len(self._tracks)
        apart = followed.max(axis=1, initial=0.0) < _SAME
        new = np.flatnonzero(np.where(owner == _NOBODY, apart, owner >= n_followed))
        if not new.size:
            return
        rows, found = self._find_twice(image, boxes[new])
        back = []
        for row, which in enumerate(new[rows]):
            _, good = self._judge(float(found.face[row]), float(found.plausibility[row]))
            rivals = _boxes(track.seen() for track in self._tracks)
            if not good or (iou(landmark_box(found.points[row]), rivals) >= _SAME).any():
                continue
            known = None if owner[which] == _NOBODY else self._lost[owner[which] - n_followed]
            self._tracks.append(self._appear(found, row, known))
            back.append(known)
        self._lost = [track for track in self._lost if track not in back]

    def _find_twice(self, image: Image, boxes: Doubles) -> tuple[npt.NDArray[np.intp], _Found]:
        """Locate in a detector's boxes; the rows that hold something sound, and what it is."""
        found = self._find(image, boxes)
        again = landmark_box(found.points)
        rows = np.flatnonzero(_is_sound(found.points, again, image))
        if not rows.size:
            return rows, found.rows(rows)
        found = self._find(image, again[rows])
        sound = np.flatnonzero(_is_sound(found.points, landmark_box(found.points), image))
        return rows[sound], found.rows(sound)

    def _appear(self, found: _Found, row: int, lost: _Track | None) -> _Track:
        """Begin a track, of a lost face or of a new one."""
        identity, age = (self._n_identities, 0) if lost is None else (lost.identity, lost.age)
        self._n_identities += lost is None
        smooth = self._settings.smooth
        return _Track(
            identity,
            found.points[row],
            found.pose[row],
            float(found.face[row]),
            float(found.plausibility[row]),
            landmark_box(found.points[row]),
            filters=(smooth.start(), smooth.start(period=360.0)) if smooth else None,
            age=age,
        )

    def _report(self, time: float) -> tuple[TrackedFace, ...]:
        """Faces as the caller sees them: constrained, filtered."""
        points = [track.points for track in self._tracks]
        if self._settings.constrain and self._settings.model is not None and points:
            points = list(self._settings.model.constrain(np.stack(points)).astype(np.float64))
        faces = []
        for track, shape in zip(self._tracks, points, strict=True):
            track.age += 1
            pose = track.pose
            if track.filters is not None:
                landmarks, angles = track.filters
                shape = landmarks(shape, time, float(track.box[2:].max()))
                # A column: each angle has a speed of its own.
                pose = angles(pose[:, None], time, _ANGLE_UNIT)[:, 0]
            face, plausibility = track.face, track.plausibility
            seen = landmark_box(shape)
            faces.append(
                TrackedFace(
                    track.identity, shape.copy(), pose.copy(), seen, face, plausibility, track.age
                )
            )
        return tuple(faces)


def _less_credible(first: _Track, second: _Track) -> _Track:
    """Of two tracks on one face, the one to lose."""
    if first.n_bad != second.n_bad:
        return max(first, second, key=lambda track: track.n_bad)
    off = first.surprise - second.surprise
    if abs(off) > _SURPRISING:
        return first if off > 0 else second
    return min(first, second, key=lambda track: (track.age, -track.identity))


#: In place of the number of a row: no row of enough overlap.
_NOBODY = -1


def _assign(overlaps: Doubles) -> npt.NDArray[np.intp]:
    """For each row its column, or -1: one to one, the overlaps in sum the largest.

    Overlaps below ``_OVERLAP`` do not count.
    """
    owner = np.full(len(overlaps), _NOBODY, np.intp)
    pairs = match(overlaps, overlaps >= _OVERLAP)
    owner[pairs[:, 0]] = pairs[:, 1]
    return owner


def _in_reach(boxes: Doubles, before: Doubles, frames: npt.NDArray[np.intp]) -> Doubles:
    """For each box and each box of so many frames before, a little over the least overlap.

    0 where a face that big cannot have come from the one to the other: more than half of its size
    and :data:`_REACH` of it a frame. The nearer, the more; any overlap that counts is as good.
    """
    size = before[:, 2:].max(axis=1, initial=0.0)
    away = np.linalg.norm((_centre(boxes)[:, None] - _centre(before)) / size[:, None], axis=2)
    reach = 0.5 + np.minimum(_REACH * frames, _FARTHEST)
    alike = np.abs(np.log(boxes[:, 2:].max(axis=1, initial=0.0)[:, None] / size)) < math.log(1.5)
    nearness = np.where(alike, 1.0 - away / reach, 0.0)
    return np.where(nearness > 0, _OVERLAP * (1.0 + 0.01 * nearness), 0.0)


def _boxes(rows: Iterable[Doubles]) -> Doubles:
    return np.array([*rows], dtype=np.float64).reshape(-1, 4)


def _centre(box: Doubles) -> Doubles:
    return np.asarray(box[..., :2] + box[..., 2:] / 2)


def _is_inside(boxes: Doubles, image: Image) -> npt.NDArray[np.bool_]:
    """Whether boxes are large enough, and half of each at least is in the image."""
    height, width = image.shape[:2]
    low = np.maximum(boxes[:, :2], -0.5)
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], [width - 0.5, height - 0.5])
    seen = np.prod(np.maximum(high - low, 0.0), axis=1)
    large = boxes[:, 2:].min(axis=1, initial=math.inf) >= _MIN_SIDE
    return np.asarray(large & (seen >= 0.5 * np.prod(boxes[:, 2:], axis=1)))


def _is_sound(points: Doubles, boxes: Doubles, image: Image) -> npt.NDArray[np.bool_]:
    """Whether all landmarks are there, and their boxes inside of the image."""
    return np.asarray(np.isfinite(points).all(axis=(1, 2)) & _is_inside(boxes, image))


def _is_alike(boxes: Doubles, before: Doubles) -> npt.NDArray[np.bool_]:
    """Whether boxes are neither twice as large as before nor half as large."""
    ratio = boxes[:, 2:].max(axis=1, initial=0.0) / before[:, 2:].max(axis=1, initial=0.0)
    return np.asarray((ratio < 2) & (ratio > 0.5))
