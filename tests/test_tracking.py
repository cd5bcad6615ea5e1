"""Tracking on faces whose truth is known: a scene of squares of landmarks on plain frames."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asmkit
from asmkit.boxes import iou, landmark_box
from asmkit.one_euro import OneEuro
from asmkit.plausibility import Plausibility
from asmkit.plotting import draw_tracks
from asmkit.predictor import Prediction, Predictor
from asmkit.tracking import TrackedFrame, track

Doubles = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]
Path2D = Callable[[int], tuple[float, float] | None]

SIZE = 60.0
#: Landmarks of a face of size 1: its box is exactly the unit square.
FACE = np.array([[0, 0], [1, 0.2], [0.9, 1], [0.1, 0.8], [0.5, 0.5], [0.3, 0.4], [0.7, 0.45]])


def still(x: float, y: float) -> Path2D:
    return lambda _: (x, y)


def line(x: float, y: float, vx: float, vy: float = 0.0) -> Path2D:
    return lambda t: (x + vx * t, y + vy * t)


def absent(path: Path2D, start: int, stop: int) -> Path2D:
    """The same path, with nobody on it in the frames from start to before stop."""
    return lambda t: None if start <= t < stop else path(t)


@dataclass
class Scene:
    """Faces on paths; earlier ones are in front and hide those behind."""

    paths: Sequence[Path2D]
    n: int = 30
    size: tuple[int, int] = (400, 200)
    bias: tuple[float, float, float] = (0.1, -0.08, 1.15)
    noise: float = 0.0
    hides: float = 0.35
    detections: list[int] = field(default_factory=list)
    located: list[tuple[int, int]] = field(default_factory=list)
    now: int = -1

    def frames(self) -> Iterator[Image]:
        for number in range(self.n):
            self.now = number
            yield np.zeros((self.size[1], self.size[0], 3), np.uint8)

    def faces(self, t: int | None = None) -> dict[int, Doubles]:
        """Landmarks of the faces that can be seen."""
        found: dict[int, Doubles] = {}
        for number, path in enumerate(self.paths):
            place = path(self.now if t is None else t)
            if place is None:
                continue
            shape = FACE * SIZE + place
            boxes = [landmark_box(other) for other in found.values()]
            if all(iou(landmark_box(shape), box) < self.hides for box in boxes):
                found[number] = shape
        return found

    def detect(self, _: Image) -> Doubles:
        """Boxes that are off, always in the same way."""
        self.detections.append(self.now)
        x, y, scale = self.bias
        boxes = [landmark_box(shape) for shape in self.faces().values()]
        return np.array([[b[0] + x * SIZE, b[1] + y * SIZE, *b[2:] * scale] for b in boxes])

    def locate(self, _: Image, boxes: Doubles) -> Doubles:
        """The face that overlaps a box the most, exactly but for the noise; NaN without any."""
        self.located.append((self.now, len(boxes)))
        faces = list(self.faces().values())
        rng = np.random.default_rng(self.now)
        shapes = np.full((len(boxes), len(FACE), 2), np.nan)
        for row, box in enumerate(boxes):
            overlaps = [float(iou(box, landmark_box(face))) for face in faces]
            if faces and max(overlaps) >= 0.2:
                shapes[row] = faces[int(np.argmax(overlaps))]
        return shapes + self.noise * rng.normal(size=shapes.shape)

    def track(self, **options: object) -> list[TrackedFrame]:
        options = {"detect": self.detect, **options}
        return list(track(self.frames(), self.locate, **options))  # type: ignore[arg-type]


def owners(scene: Scene, frame: TrackedFrame) -> dict[int, int]:
    """Identity → the face of the scene that it is on."""
    faces = scene.faces(frame.index)
    return {
        seen.identity: max(faces, key=lambda f: float(iou(seen.box, landmark_box(faces[f]))))
        for seen in frame.faces
    }


def switches(scene: Scene, frames: Sequence[TrackedFrame]) -> int:
    """How often a face of the scene goes on under another identity."""
    last: dict[int, int] = {}
    count = 0
    for frame in frames:
        for identity, face in owners(scene, frame).items():
            count += last.get(face, identity) != identity
            last[face] = identity
    return count


# -- one face


@given(
    st.floats(60, 280), st.floats(20, 100), st.floats(-6, 6), st.floats(-2, 2), st.integers(1, 12)
)
@settings(max_examples=25)
def test_a_moving_face_is_followed_exactly_by_one_detection(
    x: float, y: float, vx: float, vy: float, n: int
) -> None:
    scene = Scene([line(x, y, vx, vy)], n=n)
    frames = scene.track()
    assert scene.detections == [0]
    assert [frame.detected for frame in frames] == [True] + [False] * (n - 1)
    for frame in frames:
        (face,) = frame.faces
        np.testing.assert_array_equal(face.points, scene.faces(frame.index)[0])
        np.testing.assert_array_equal(face.box, landmark_box(face.points))
        assert (face.identity, face.age, frame.lost) == (0, frame.index + 1, ())
        assert frame.time == frame.index / 25
    # A detector's box is looked into, then the box of what was found there; later once a frame.
    assert scene.located == [(0, 1), *((t, 1) for t in range(n))]


def test_the_second_pass_takes_the_detector_s_bias_away() -> None:
    """A locator that is off by a share of how far its box is off."""

    def results(bias: tuple[float, float, float]) -> Doubles:
        scene = Scene([still(150, 60)], n=1, bias=bias)

        def locate(image: Image, boxes: Doubles) -> Doubles:
            truth = scene.locate(image, boxes)
            middle = boxes[:, None, :2] + boxes[:, None, 2:] / 2
            off: Doubles = middle - truth.mean(axis=1, keepdims=True)
            return np.asarray(truth + 0.1 * off)

        return next(track(scene.frames(), locate, detect=scene.detect)).faces[0].points

    straight = results((0.0, 0.0, 1.0))
    one_pass = 0.1 * np.hypot(0.1, 0.08) * SIZE
    assert np.abs(results((0.1, -0.08, 1.0)) - straight).max() <= 0.1 * one_pass + 1e-9


def test_a_fast_face_needs_its_speed() -> None:
    """In the end it moves by more than its size a frame: the old box has nothing of it."""
    quick = Scene([lambda t: (20 + 3.5 * t * t / 2, 60)], n=24, size=(1200, 200))
    frames = quick.track()
    steps = np.diff([frame.faces[0].box[0] for frame in frames])
    assert steps.max() > SIZE
    assert quick.detections == [0]


def test_results_move_with_the_scene_and_scale_with_it() -> None:
    here = Scene([line(80, 60, 3)], n=8, noise=0.4)
    there = Scene([line(110, 75, 3)], n=8, noise=0.4)
    for first, second in zip(
        here.track(smooth=OneEuro()), there.track(smooth=OneEuro()), strict=True
    ):
        np.testing.assert_allclose(
            second.faces[0].points - first.faces[0].points, np.tile([30.0, 15.0], (7, 1)), atol=1e-9
        )


def test_the_same_frames_give_the_same_results() -> None:
    results = [
        Scene([line(60, 60, 4), line(300, 80, -3)], noise=0.5).track(smooth=OneEuro()) for _ in "ab"
    ]
    for first, second in zip(*results, strict=True):
        for one, other in zip(first.faces, second.faces, strict=True):
            np.testing.assert_array_equal(one.points, other.points)


def test_results_come_one_at_a_time() -> None:
    drawn = []

    def frames() -> Iterator[Image]:
        for number in itertools.count():
            drawn.append(number)
            scene.now = number
            yield np.zeros((200, 400, 3), np.uint8)

    scene = Scene([still(100, 60)])
    results = track(frames(), scene.locate, detect=scene.detect)
    assert drawn == []
    for number in range(5):
        assert next(results).index == number
        assert drawn == list(range(number + 1))


def test_without_a_face_the_detector_looks_in_every_frame() -> None:
    scene = Scene([absent(still(100, 60), 0, 7)], n=10)
    frames = scene.track()
    assert scene.detections == list(range(8))
    assert [len(frame.faces) for frame in frames] == [0] * 7 + [1] * 3


# -- losses


def test_a_face_that_vanishes_is_lost_and_comes_back_as_itself() -> None:
    scene = Scene([absent(line(60, 60, 3), 10, 18)], n=25)
    frames = scene.track()
    assert [frame.index for frame in frames if frame.lost] == [10]
    assert frames[10].lost == (0,)
    assert scene.detections == [0, *range(10, 19)]
    assert {face.identity for frame in frames for face in frame.faces} == {0}
    # Tracked in 10 frames before, so this is the eleventh.
    assert frames[18].faces[0].age == 11


def test_a_lost_face_is_forgotten() -> None:
    for memory, identity in ((5, 0), (4, 1)):
        scene = Scene([absent(still(60, 60), 10, 15)], n=20)
        (face,) = scene.track(memory=memory)[-1].faces
        assert face.identity == identity


@pytest.mark.parametrize(("away", "identity"), [(1.0, 0), (2.5, 1)])
def test_a_hidden_face_that_moved_on_keeps_its_identity_within_reach(
    away: float, identity: int
) -> None:
    def path(t: int) -> tuple[float, float]:
        return (40, 60) if t < 20 else (40 + away * SIZE, 60)

    scene = Scene([absent(path, 10, 40)], n=44)
    assert [face.identity for face in scene.track()[-1].faces] == [identity]


def test_after_patience_a_lost_face_is_looked_for_less_often_until_it_is_forgotten() -> None:
    for memory, last in ((300, 26), (10, 18)):
        scene = Scene([still(60, 60), absent(still(250, 60), 10, 99)], n=30)
        scene.track(patience=4, memory=memory)
        assert scene.detections == [0, 10, 11, 12, 13, *range(14, last + 1, 4)]


def test_a_face_that_leaves_the_image_is_lost_at_half() -> None:
    scene = Scene([line(300, 60, 10)], n=20)
    frames = scene.track(patience=0)
    with_face = [bool(frame.faces) for frame in frames]
    shares = [(400 - 0.5 - (300 + 10 * t)) / SIZE for t in range(20)]
    assert with_face == [share >= 0.5 for share in shares]


@pytest.mark.parametrize("what", ["missing", "infinite", "collapsed", "twice as large"])
def test_what_cannot_be_a_face_is_lost_at_once(what: str) -> None:
    scene = Scene([still(100, 60)], n=12)

    def locate(image: Image, boxes: Doubles) -> Doubles:
        shapes = scene.locate(image, boxes)
        if scene.now in (5, 6):
            if what == "missing":
                shapes[:, 3] = np.nan
            elif what == "infinite":
                shapes[:, 3] = np.inf
            elif what == "collapsed":
                shapes = 110 + 0.05 * (shapes - 110)
            else:
                shapes = 110 + 2.2 * (shapes - 110)
        return shapes

    def detect(image: Image) -> Doubles:
        return scene.detect(image)[: 0 if scene.now in (5, 6) else None]

    frames = list(track(scene.frames(), locate, detect=detect))
    assert frames[5].lost == (0,)
    assert not frames[5].faces


class Head(Predictor):
    """A network of the scene, with a tracking head that says what it is told."""

    def __init__(self, scene: Scene, says: Callable[[int], float]) -> None:
        self.scene, self.says = scene, says

    def predict(
        self, image: npt.ArrayLike, boxes: npt.ArrayLike | None = None, **options: Any
    ) -> Prediction:
        given = np.asarray(boxes, dtype=np.float64)
        points = self.scene.locate(np.asarray(image), given)
        face = np.full(len(given), self.says(self.scene.now))
        return Prediction(points, np.full((len(given), 3), 7.0), given, face)


def lost_in(says: Sequence[float], **options: object) -> list[int]:
    scene = Scene([still(100, 60)], n=len(says))
    results = track(
        scene.frames(),
        Head(scene, lambda t: says[t]),
        detect=scene.detect,
        **options,  # type: ignore[arg-type]  # what each test gives
    )
    return [frame.index for frame in results if frame.lost]


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ([0.9, 0.3, 0.3, 0.9], [2]),  # two bad frames
        ([0.9, 0.3, 0.9, 0.3, 0.9], []),  # a good one between
        ([0.9, 0.3, 0.5, 0.3, 0.9], [3]),  # one between that is neither
        ([0.9, 0.5, 0.5, 0.5, 0.5], []),  # in between for ever
        ([0.9, 0.4, 0.4, 0.6, 0.6], []),  # on the thresholds
        ([0.9, np.nan, np.nan, 0.9], []),  # the network does not say
    ],
)
def test_face_probability_decides_with_hysteresis(says: list[float], expected: list[int]) -> None:
    assert lost_in(says) == expected


def test_the_thresholds_are_the_caller_s() -> None:
    assert lost_in([0.9, 0.3, 0.3, 0.3, 0.9], max_bad=3) == [3]
    assert lost_in([0.9, 0.3, 0.3, 0.3, 0.9], lose=0.2) == []
    assert lost_in([0.9, 0.3, 0.9], max_bad=1) == [1]


def test_a_face_that_appears_has_to_be_good() -> None:
    says = [0.5, 0.59, 0.6, 0.5]
    scene = Scene([still(100, 60)], n=4)
    frames = list(track(scene.frames(), Head(scene, lambda t: says[t]), detect=scene.detect))
    assert [len(frame.faces) for frame in frames] == [0, 0, 1, 1]
    assert [face.face for frame in frames for face in frame.faces] == says[2:]
    assert frames[2].faces[0].pose.tolist() == [7.0, 7.0, 7.0]


def test_bad_frames_do_not_lead_astray() -> None:
    """While a face is hidden the locator finds rubbish; the box goes on as before."""
    scene = Scene([line(60, 60, 4)], n=12)

    class Rubbish(Head):
        def predict(
            self, image: npt.ArrayLike, boxes: npt.ArrayLike | None = None, **options: Any
        ) -> Prediction:
            found = super().predict(image, boxes)
            hidden = scene.now in (5, 6)
            asked.append(found.boxes[0])
            off = np.array([0.0, 40.0 * hidden])
            return Prediction(found.points + off, found.pose, found.boxes, found.face)

    asked: list[Doubles] = []
    rubbish = Rubbish(scene, lambda t: 0.1 if t in (5, 6) else 0.9)
    frames = list(track(scene.frames(), rubbish, detect=scene.detect, max_bad=3))
    assert not any(frame.lost for frame in frames)
    np.testing.assert_allclose(asked[-5][:2], [60 + 4 * 7, 60], atol=1e-9)


# -- the shape model as a judge


@pytest.fixture(scope="module")
def model() -> asmkit.ShapeModel:
    rng = np.random.default_rng(5)
    modes = rng.normal(size=(3, *FACE.shape)) * [[[0.04]], [[0.02]], [[0.01]]]
    shapes = FACE + np.einsum("nk,kpd->npd", rng.normal(size=(200, 3)), modes)
    return asmkit.ShapeModel(n_components=2).fit(shapes + rng.normal(0, 0.002, shapes.shape))


def test_the_limit_is_the_quantile_of_the_model_s_own_shapes(model: asmkit.ShapeModel) -> None:
    drawn = model.sample(20_000, 0)
    for tail in (0.5, 0.1, 0.01):
        beyond = (Plausibility(model, tail)(drawn) < 0.5).mean()
        assert beyond == pytest.approx(tail, abs=4 * np.sqrt(tail / 20_000))


def test_plausibility_ignores_similarities_and_falls_with_distance(
    model: asmkit.ShapeModel, rng: np.random.Generator
) -> None:
    judge = Plausibility(model)
    shapes = model.sample(20, 1) + rng.normal(0, 0.001, (20, *FACE.shape))
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    np.testing.assert_allclose(judge(37 * shapes @ turn.T + [5, -9]), judge(shapes), rtol=1e-6)
    assert judge(model.mean_) == pytest.approx(1)
    away = [judge(model.inverse_transform([far, 0.0])) for far in (0.0, 0.1, 0.4, 3.0)]
    assert away == sorted(away, reverse=True)
    # Off the modes the rest tells: no mode moves one point alone.
    odd = model.mean_.copy()
    odd[4] += 0.3
    assert judge(odd) < 0.5


def test_plausibility_of_what_is_no_shape(model: asmkit.ShapeModel) -> None:
    shapes = np.stack([model.mean_, np.full_like(model.mean_, np.nan), np.ones_like(model.mean_)])
    assert np.isnan(Plausibility(model)(shapes)).tolist() == [False, True, False]
    assert Plausibility(model)(shapes)[2] == 0
    assert Plausibility(model)(shapes[:0]).shape == (0,)
    with pytest.raises(ValueError, match="tail"):
        Plausibility(model, 1.5)


def test_an_implausible_shape_is_lost_and_a_plausible_one_is_not(model: asmkit.ShapeModel) -> None:
    scene = Scene([still(100, 60)], n=14)
    rng = np.random.default_rng(0)
    mess = FACE[rng.permutation(len(FACE))] * SIZE + [100, 60]

    def locate(image: Image, boxes: Doubles) -> Doubles:
        shapes = scene.locate(image, boxes)
        return np.where(5 <= scene.now < 9, mess[None], shapes)

    frames = list(track(scene.frames(), locate, detect=scene.detect, model=model))
    assert [frame.index for frame in frames if frame.lost] == [6]
    assert [frame.index for frame in frames if not frame.faces] == [6, 7, 8]
    judged = {frame.index: frame.faces[0].plausibility for frame in frames if frame.faces}
    assert all((value < 0.5) == (index == 5) for index, value in judged.items())
    assert np.isnan(scene.track()[0].faces[0].plausibility)


# -- several faces


@pytest.mark.parametrize("speed", [3.0, 5.0, 8.0, 13.0])
@pytest.mark.parametrize("behind", [0, 1])
def test_faces_that_cross_keep_their_identities(speed: float, behind: int) -> None:
    pair = [line(20, 60, speed), line(320, 70, -speed)]
    scene = Scene(pair[::-1] if behind else pair, n=int(290 / speed), noise=0.3)
    frames = scene.track()
    assert switches(scene, frames) == 0
    assert {face.identity for frame in frames for face in frame.faces} == {0, 1}
    for frame in frames:
        on = owners(scene, frame)
        assert len(set(on.values())) == len(on), "two tracks on one face"
    hidden = [len(scene.faces(t)) < 2 for t in range(scene.n)]
    assert any(hidden)
    # Both are tracked again as soon as both can be seen.
    assert [len(frame.faces) for frame in frames] == [1 if h else 2 for h in hidden]


@given(st.integers(0, 1000))
@settings(max_examples=15)
def test_faces_that_keep_apart_never_change_identity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_faces = int(rng.integers(2, 5))
    paths = [
        line(*(np.array([30 + 90 * i, 60]) + rng.uniform(-5, 5, 2)), *rng.uniform(-0.4, 0.4, 2))
        for i in rng.permutation(n_faces)
    ]
    gaps = [absent(p, int(rng.integers(3, 10)), int(rng.integers(10, 15))) for p in paths]
    scene = Scene([*gaps[1:], paths[0]], n=20, size=(460, 200), noise=0.5)
    frames = scene.track(patience=20)
    assert switches(scene, frames) == 0
    assert len(frames[-1].faces) == n_faces
    assert {face.identity for frame in frames for face in frame.faces} == set(range(n_faces))


def test_all_faces_of_a_frame_go_in_one_call() -> None:
    scene = Scene([still(20, 60), still(120, 60), still(220, 60)], n=5)
    scene.track()
    assert scene.located == [(0, 3), (0, 3), (1, 3), (2, 3), (3, 3), (4, 3)]


def test_two_tracks_on_one_face_become_one() -> None:
    """Two faces become one; of equal tracks the younger goes."""
    second = absent(line(220, 60, -10), 0, 2)
    scene = Scene([still(100, 60), lambda t: second(t) if t < 12 else None], n=20, hides=0.6)

    def detect(image: Image) -> Doubles:
        return scene.detect(image)

    frames = list(track(scene.frames(), scene.locate, detect=detect, look_every=1))
    assert max(len(frame.faces) for frame in frames) == 2
    lost = [frame.lost for frame in frames if frame.lost]
    assert lost == [(1,)]
    assert [face.identity for face in frames[-1].faces] == [0]


def test_newcomers_are_found_when_they_are_looked_for() -> None:
    def first_seen(**options: object) -> int | None:
        scene = Scene([still(30, 60), absent(still(250, 60), 0, 5)], n=20)
        frames = scene.track(**options)
        return next((frame.index for frame in frames if len(frame.faces) == 2), None)

    assert first_seen() is None
    assert first_seen(look_every=4) == 8
    assert first_seen(look_every=1) == 5


def test_a_detection_on_a_tracked_face_is_no_newcomer() -> None:
    scene = Scene([line(60, 60, 3)], n=15)
    frames = scene.track(look_every=1)
    assert len(scene.detections) == 15
    assert all([face.identity for face in frame.faces] == [0] for frame in frames)
    assert scene.located == [(0, 1), *((t, 1) for t in range(15))]


# -- results: filter, constraint, pose


def test_the_filter_lags_by_its_closed_form_and_is_not_fed_back() -> None:
    speed, fps, smooth = 3.0, 25.0, OneEuro()
    scene = Scene([line(20, 60, speed)], n=110)
    plain, filtered = scene.track(), scene.track(smooth=smooth)
    lag = fps * smooth.lag(speed * fps / SIZE)
    behind = plain[-1].faces[0].points - filtered[-1].faces[0].points
    np.testing.assert_allclose(behind, np.tile([speed * lag, 0.0], (len(FACE), 1)), atol=1e-6)
    # The same boxes were looked into with the filter as without.
    assert scene.located[: len(scene.located) // 2] == scene.located[len(scene.located) // 2 :]


def test_a_new_appearance_begins_without_a_past() -> None:
    scene = Scene([absent(line(60, 60, 3), 10, 14)], n=20)
    frames = scene.track(smooth=OneEuro())
    for first in (0, 14):
        np.testing.assert_array_equal(frames[first].faces[0].points, scene.faces(first)[0])


def test_constrained_results_are_the_model_s(model: asmkit.ShapeModel) -> None:
    scene = Scene([line(60, 60, 3)], n=6, noise=1.0)
    plain, constrained = scene.track(model=model), scene.track(model=model, constrain=True)
    for first, second in zip(plain, constrained, strict=True):
        np.testing.assert_allclose(
            second.faces[0].points, model.constrain(first.faces[0].points), atol=1e-9
        )


def test_a_plain_callable_gets_its_pose_from_the_landmarks() -> None:
    reference = asmkit.face_reference("ibug68")
    angles = np.array([[20.0, -10.0, 5.0]])
    turned = reference @ asmkit.pose.euler_to_rotation(angles)[0].T
    shape = turned[:, :2] * 80 + [150, 110]
    frames = [np.zeros((240, 320, 3), np.uint8)] * 3

    def located(**options: str) -> Doubles:
        results = track(
            frames,
            lambda _, boxes: np.repeat(shape[None], len(boxes), axis=0),
            detect=lambda _: landmark_box(shape)[None],
            **options,  # type: ignore[arg-type]  # the scheme, or nothing
        )
        return np.array([frame.faces[0].pose for frame in results])

    np.testing.assert_allclose(located(scheme="ibug68"), np.repeat(angles, 3, axis=0), atol=1e-6)
    assert np.isnan(located()).all()


def test_drawings_show_the_faces_and_nothing_else() -> None:
    scene = Scene([still(60, 80), still(280, 80)], n=1)
    (frame,) = scene.track()
    image = np.zeros((200, 400, 3), np.uint8)
    drawn = draw_tracks(image, frame)
    assert not image.any()
    for face in frame.faces:
        x, y = np.round(face.points).astype(int).T
        assert (drawn[y, x] > 100).all()
    changed = np.nonzero(drawn.any(axis=(0, 2)))[0]
    assert not drawn[:, 140:270].any()
    assert changed.min() >= 50
    empty = TrackedFrame(0, 0.0, (), True, ())
    np.testing.assert_array_equal(draw_tracks(drawn, empty), drawn)


# -- frames


def test_a_change_of_size_looks_anew_and_keeps_identities() -> None:
    scene = Scene([still(100, 60)], n=8)

    def frames() -> Iterator[Image]:
        for frame in scene.frames():
            yield np.repeat(np.repeat(frame, 2, axis=0), 2, axis=1) if scene.now >= 4 else frame

    def scale(image: Image) -> float:
        return len(image) / 200

    def locate(image: Image, boxes: Doubles) -> Doubles:
        return scene.locate(image, boxes / scale(image)) * scale(image)

    results = list(track(frames(), locate, detect=lambda im: scene.detect(im) * scale(im)))
    assert scene.detections == [0, 4]
    for frame in results:
        (face,) = frame.faces
        assert face.identity == 0
        np.testing.assert_allclose(
            face.points, scene.faces(0)[0] * (2 if frame.index >= 4 else 1), atol=1e-9
        )


def test_a_frame_that_is_no_image_is_named() -> None:
    scene = Scene([still(100, 60)])
    good = np.zeros((200, 400, 3), np.uint8)
    wrong: list[tuple[Any, type[Exception]]] = [
        (good[..., 0], ValueError),
        (good / 255.0, TypeError),
    ]
    for bad, error in wrong:
        scene.now = 0
        results = track([good, good, bad], scene.locate, detect=scene.detect)
        with pytest.raises(error, match="frame 2"):
            list(results)


def test_no_frames_no_results() -> None:
    assert list(track([], lambda image, boxes: boxes)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0.3}, "lose ≤ keep"),
        ({"max_bad": 0}, "max_bad"),
        ({"patience": -1}, "patience"),
        ({"look_every": 0}, "look_every"),
        ({"constrain": True}, "give model="),
        ({"scheme": "wflw98"}, "no reference face for 'wflw98'"),
        ({"fps": 0}, "fps"),
        ({"tail": 2.0, "model": "model"}, "tail"),
    ],
)
def test_wrong_options_are_errors_at_once(
    options: dict[str, object], message: str, model: asmkit.ShapeModel
) -> None:
    if "model" in options:
        options = {**options, "model": model}
    with pytest.raises(ValueError, match=message):
        track([], lambda image, boxes: boxes, **options)  # type: ignore[arg-type]


def test_a_locator_or_detector_of_another_form_is_told() -> None:
    frames = [np.zeros((200, 400, 3), np.uint8)]
    boxes = np.array([[50.0, 50, 60, 60]])
    with pytest.raises(ValueError, match=r"locate: gave shapes \(7, 2\) for 1 boxes"):
        list(track(frames, lambda image, _: FACE, detect=lambda _: boxes))
    with pytest.raises(ValueError, match="boxes of detect"):
        list(track(frames, lambda image, _: FACE[None], detect=lambda _: boxes[:, :3]))
    with pytest.raises(TypeError, match="expected a Predictor or a callable"):
        track(frames, "network")  # type: ignore[arg-type]


# -- a network on photographs


@pytest.mark.slow
def test_a_network_follows_a_photograph_that_moves(data_dir: Path) -> None:
    annotation = asmkit.read(data_dir / "300w" / "test_common", require_images=True)[3]
    assert annotation.image is not None
    photo = asmkit.read_image(annotation.image)
    truth = annotation.points
    box = landmark_box(truth)
    side = int(box[2:].max())
    photo = np.pad(photo, ((side, side), (side, side), (0, 0)), mode="edge")
    start = box[:2].astype(np.int64)

    def corner(t: int) -> npt.NDArray[np.int64]:
        return start + (np.array([0.04, 0.02]) * side * t).astype(np.int64)

    def frames() -> Iterator[Image]:
        for t in range(12):
            x, y = corner(t)
            yield np.ascontiguousarray(photo[y : y + 3 * side, x : x + 3 * side])

    results = list(track(frames(), asmkit.load("asmnet-ibug68", threads=1)))
    assert sum(frame.detected for frame in results) == 1
    for t, frame in enumerate(results):
        expected = truth + side - corner(t)
        (face,) = frame.faces
        assert asmkit.nme(face.points[None], expected[None])[0] < 0.06
