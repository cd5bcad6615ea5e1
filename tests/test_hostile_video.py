"""Tracking and video under damage, interruption and misuse: a clear word, and nothing lost.

The faces are bright squares that a tiny network of the test finds exactly, in frames of 64 × 48.
"""

from __future__ import annotations

import gc
import resource
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

import asmkit
from asmkit.boxes import iou
from asmkit.cli import main
from asmkit.errors import FormatError
from asmkit.images import write_image
from asmkit.one_euro import OneEuro
from asmkit.predictor import Prediction, Predictor
from asmkit.track_files import read_tracks, write_tracks
from asmkit.tracking import TrackedFrame, track
from asmkit.video import open_frames, write_video

Image = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

SUFFIXES = pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv", ".mov"])

#: Landmarks in the square.
FACE = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5], [0.3, 0.6]])


def picture(t: int, scale: int = 1) -> Image:
    """A square that goes to and fro; every fiftieth frame, and the nine after, are without."""
    frame = np.zeros((48 * scale, 64 * scale, 3), np.uint8)
    if t % 50 >= 10 or t < 10:
        x = (4 + abs(t % 64 - 32)) * scale
        frame[12 * scale : 32 * scale, x : x + 20 * scale] = 255
    return frame


def pictures(n: int) -> Iterator[Image]:
    return map(picture, range(n))


def detect(image: Image) -> Doubles:
    rows, columns = np.nonzero(image[..., 0] > 128)
    if not rows.size:
        return np.zeros((0, 4))
    low, high = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()])
    return np.array([[*low, *(high - low)]], dtype=np.float64)


def locate(image: Image, boxes: Doubles) -> Doubles:
    found = detect(image)
    shapes = np.full((len(boxes), *FACE.shape), np.nan)
    if len(found):
        shapes[:] = found[0, :2] + FACE * found[0, 2:]
    return shapes


class Square(Predictor):
    """A network that finds the square, and takes its time where a test needs some."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(lambda crops: [], {"n_points": len(FACE), "scheme": None}, "none")
        self.seconds = seconds

    def predict(
        self, image: npt.ArrayLike, boxes: npt.ArrayLike | None = None, **options: Any
    ) -> Prediction:
        time.sleep(self.seconds)
        given = np.asarray(boxes, dtype=np.float64)
        unknown = np.full((len(given), 3), np.nan)
        return Prediction(locate(np.asarray(image), given), unknown, given, unknown[:, 0])


def film(path: Path, n: int) -> Path:
    with write_video(path, 20) as out:
        for frame in pictures(n):
            out.write(frame)
    return path


def write_all(path: Path, frames: Sequence[TrackedFrame]) -> Path:
    with write_tracks(path) as file:
        for frame in frames:
            file.write(frame)
    return path


def tracked(n: int, **options: Any) -> list[TrackedFrame]:
    return list(track(pictures(n), locate, detect=detect, **options))


def assert_same(first: Sequence[TrackedFrame], second: Sequence[TrackedFrame]) -> None:
    for one, other in zip(first, second, strict=True):
        assert (one.index, one.time, one.lost) == (other.index, other.time, other.lost)
        assert [face.identity for face in one.faces] == [face.identity for face in other.faces]
        for a, b in zip(one.faces, other.faces, strict=True):
            np.testing.assert_array_equal(a.points, b.points)


# -- damaged sources


def read_or_refused(path: Path) -> tuple[list[Image], str]:
    """The frames of a video, or the words of the error."""
    try:
        with open_frames(path) as frames:
            return list(frames), ""
    except FormatError as error:
        return [], str(error)


@SUFFIXES
@pytest.mark.filterwarnings("ignore:.*expected 12 frames, got")
def test_a_video_cut_anywhere_is_an_error_or_its_beginning(tmp_path: Path, suffix: str) -> None:
    path = film(tmp_path / f"clip{suffix}", 12)
    data = path.read_bytes()
    with open_frames(path) as frames:
        whole = list(frames)
    assert len(whole) == 12
    for tenths in range(1, 10):
        path.write_bytes(data[: len(data) * tenths // 10])
        seen, error = read_or_refused(path)
        if error:
            assert f"clip{suffix}" in error
            continue
        assert 0 < len(seen) <= 12
        # The last one may be cut within itself.
        for one, other in zip(seen[:-1], whole[:-1], strict=False):
            np.testing.assert_array_equal(one, other)


@SUFFIXES
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore:.*(expected 12 frames, got|damaged frames were skipped)")
def test_bytes_overwritten_in_the_middle_of_a_video(tmp_path: Path, suffix: str, seed: int) -> None:
    path = film(tmp_path / f"clip{suffix}", 12)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    start = int(len(data) * rng.uniform(0.3, 0.6))
    data[start : start + 60] = rng.integers(0, 256, 60, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    seen, error = read_or_refused(path)
    if error:  # the index of the file was hit
        assert f"clip{suffix}" in error
        return
    with open_frames(path) as frames:
        results = list(track(frames, locate, detect=detect))
    assert len(results) == len(seen) > 0
    numbers = [frame.index for frame in results]
    assert numbers == sorted(set(numbers))
    assert set(numbers) <= set(range(12))
    assert [frame.time for frame in results] == [pytest.approx(n / 20) for n in numbers]


@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.9])
def test_a_jpeg_that_is_cut_off_is_skipped_and_named(tmp_path: Path, keep: float) -> None:
    paths = [tmp_path / "frames" / f"{t}.jpg" for t in range(5)]
    for t, path in enumerate(paths):
        write_image(path, picture(t))
    data = paths[2].read_bytes()
    paths[2].write_bytes(data[: int(keep * len(data))])
    with open_frames(tmp_path / "frames") as frames, pytest.warns(UserWarning, match=r"2\.jpg"):
        results = list(track(frames, locate, detect=detect))
    assert [frame.index for frame in results] == [0, 1, 3, 4]
    assert frames.skipped == 1
    # One frame is missing and the face is not.
    assert {face.identity for frame in results for face in frame.faces} == {0}


def test_a_folder_whose_images_change_their_size(tmp_path: Path) -> None:
    scales = [1, 1, 2, 2, 1, 3]
    for t, scale in enumerate(scales):
        write_image(tmp_path / f"{t}.png", picture(t, scale))
    with open_frames(tmp_path) as frames:
        results = list(track(frames, locate, detect=detect, smooth=OneEuro()))
    for frame, scale in zip(results, scales, strict=True):
        assert [face.identity for face in frame.faces] == [0]
        assert frame.faces[0].age == frame.index + 1
        off = frame.faces[0].box - detect(picture(frame.index, scale))[0]
        assert np.abs(off).max() < 3 * scale
    assert [frame.index for frame in results if frame.detected] == [0, 2, 4, 5]


# -- long sources


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="needs Linux's /proc to see its own memory"
)


@needs_proc
def test_ten_thousand_frames_take_no_more_memory_than_two_thousand() -> None:
    results = track(pictures(10_000), locate, detect=detect, smooth=OneEuro(), look_every=1)
    assert sum(len(frame.faces) for frame in islice(results, 2000)) == 2000 - 39 * 10
    before = resident()
    assert sum(1 for _ in islice(results, 7999)) == 7999
    # The frames alone would be 74 MB; the heap of a large process wanders by some.
    assert resident() - before < 25e6
    assert sum(isinstance(thing, TrackedFrame) for thing in gc.get_objects()) <= 2
    assert sum(1 for _ in results) == 1


@pytest.mark.slow
@needs_proc
def test_ten_thousand_frames_from_files_into_files(tmp_path: Path) -> None:
    source = film(tmp_path / "clip.avi", 10_000)
    sizes, n_found = [], 0
    with (
        open_frames(source) as frames,
        write_tracks(tmp_path / "t.csv") as table,
        write_video(tmp_path / "seen.mp4", 20) as video,
    ):
        for frame in track(frames, locate, detect=detect):
            table.write(frame)
            assert frames.image is not None
            video.write(frames.image)
            n_found += len(frame.faces)
            if frame.index % 1000 == 999:
                sizes.append(resident())
    assert len(sizes) == 10
    assert sizes[-1] - sizes[1] < 25e6  # the frames alone would be 74 MB
    assert sum(len(frame.faces) for frame in read_tracks(tmp_path / "t.csv")) == n_found > 7000
    with open_frames(tmp_path / "seen.mp4") as frames:
        assert sum(1 for _ in frames) == 10_000


def test_csv_with_its_number_of_landmarks_waits_for_no_face(tmp_path: Path) -> None:
    frames = tracked(4)
    empty = [replace(frame, faces=()) for frame in frames]
    with write_tracks(tmp_path / "t.csv", n_points=len(FACE)) as file:
        for number, frame in enumerate([*empty, *frames], start=1):
            file.write(frame)
            assert len(read_tracks(tmp_path / "t.csv")) == number
    with (tmp_path / "t.csv").open() as stream:
        assert len(stream.readlines()) == 1 + 8
    with (
        write_tracks(tmp_path / "t.csv", n_points=5) as file,
        pytest.raises(ValueError, match="6 landmarks among faces of 5"),
    ):
        file.write(frames[0])


# -- cameras and other things to let go of


class Camera:
    """A capture that gives some pictures, then nothing any more."""

    def __init__(self, n: int) -> None:
        self.left, self.n_reads, self.released = n, 0, False

    def isOpened(self) -> bool:  # noqa: N802  # the name of OpenCV
        return True

    def get(self, _: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, Image | None]:
        self.n_reads += 1
        self.left -= 1
        return (True, picture(0)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        self.released = True


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Camera]:
    def make(n: int) -> Camera:
        made = Camera(n)
        monkeypatch.setattr(cv2, "VideoCapture", lambda _: made)
        return made

    return make


def test_what_a_camera_gave_before_it_stopped_is_tracked(
    camera: Callable[[int], Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asmkit.video._CAMERA_PAUSE", 0.0)
    made = camera(7)
    with pytest.warns(UserWarning, match="camera 0: sends no more frames; stopped after 7"):
        results = list(track(open_frames(0), locate, detect=detect, smooth=OneEuro()))
    assert [len(frame.faces) for frame in results] == [1] * 7
    assert made.released


def test_a_camera_whose_reads_block_is_not_asked_again_and_again(
    camera: Callable[[int], Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asmkit.video._CAMERA_SECONDS", -1.0)  # the first try took too long
    made = camera(3)
    with open_frames(0) as frames, pytest.warns(UserWarning, match="stopped after 3"):
        assert len(list(frames)) == 3
    assert made.n_reads == 4


def test_a_camera_that_sends_nothing_at_all(
    camera: Callable[[int], Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asmkit.video._CAMERA_PAUSE", 0.0)
    made = camera(0)
    with pytest.raises(FormatError, match="camera 0: no frame could be read"):
        open_frames(0)
    assert made.released


def test_results_that_are_left_early_let_go_of_the_source(
    camera: Callable[[int], Camera],
) -> None:
    made = camera(99)
    for _ in track(open_frames(0), locate, detect=detect):
        break
    assert made.released
    made = camera(99)
    frames = open_frames(0)
    results = track(frames, locate, detect=detect)
    next(results)
    results.close()  # type: ignore[attr-defined]  # a generator, promised as an iterator
    assert made.released
    assert list(frames) == []


def test_a_source_that_nobody_holds_is_gone_at_once(camera: Callable[[int], Camera]) -> None:
    """Not when the garbage is collected: until then nobody else can open the camera."""
    camera(99)
    gc.disable()
    try:
        frames = open_frames(0)
        alive = weakref.ref(frames)
        next(frames)
        results = track(frames, locate, detect=detect)
        del frames, results
        assert alive() is None
    finally:
        gc.enable()


def test_a_generator_of_frames_is_closed_with_the_results() -> None:
    closed = []

    def source() -> Iterator[Image]:
        try:
            yield from pictures(99)
        finally:
            closed.append(True)

    for frames in (source(), open_frames(source())):
        closed.clear()
        results = track(frames, locate, detect=detect)
        next(results)
        assert not closed
        results.close()  # type: ignore[attr-defined]  # a generator, promised as an iterator
        assert closed


# -- what locates and what detects


class Burst(Exception):  # noqa: N818  # an error of the user's own
    pass


# A newcomer is located twice in its first frame, so the fifth call is in frame 3.
@pytest.mark.parametrize(("who", "call"), [("locate", 5), ("detect", 4)])
def test_what_locate_and_detect_raise_goes_through_and_the_frame_is_named(
    who: str, call: int
) -> None:
    calls: list[str] = []

    def failing(name: str, function: Callable[..., Doubles]) -> Callable[..., Doubles]:
        def called(*arguments: Any) -> Doubles:
            calls.append(name)
            if name == who and calls.count(name) == call:
                raise Burst("mine")
            return function(*arguments)

        return called

    finder, detector = failing("locate", locate), failing("detect", detect)
    results = track(pictures(9), finder, detect=detector, look_every=1)
    assert [frame.index for frame in islice(results, 3)] == [0, 1, 2]
    with pytest.raises(Burst, match="mine") as caught:
        next(results)
    assert caught.value.__notes__ == ["This was in frame 3."]
    assert list(results) == []


@pytest.mark.parametrize(
    ("garbage", "message"),
    [
        (None, "expected"),
        ("a face", "expected an array of numbers"),
        ([[1, 2, 3, 4], [1, 2]], "expected an array of numbers"),
        ({"x": 1}, "expected an array of numbers"),
        ([[np.nan, 0, 20, 20]], "row 0 is"),
        ([[0, 0, -20, 20]], "row 0 is"),
        ([[0, 0, np.inf, 20]], "row 0 is"),
        (np.zeros((2, 2, 4)), r"got shape \(2, 2, 4\)"),
        ([[0, 0, 20]], r"got shape \(1, 3\)"),
    ],
)
def test_garbage_of_a_detector_is_told(garbage: Any, message: str) -> None:
    results = track(pictures(2), locate, detect=lambda _: garbage)
    with pytest.raises((ValueError, TypeError), match=f"the boxes of detect: .*{message}"):
        next(results)


@pytest.mark.parametrize("boxes", [[], [[5, 5, 0, 0]], [[900, 900, 20, 20]], [[-50, 0, 20, 20]]])
def test_boxes_that_show_no_face_are_no_faces(boxes: list[Any]) -> None:
    results = list(track(pictures(2), locate, detect=lambda _: boxes))
    assert [frame.faces for frame in results] == [(), ()]


@pytest.mark.parametrize(
    ("garbage", "message"),
    [
        (None, "gave shapes"),
        ("points", "expected an array of numbers"),
        ([[[0, 0], [1]]], "expected an array of numbers"),
        (np.zeros((0, 6, 2)), "gave shapes"),
        (np.zeros((1, 0, 2)), "gave shapes"),
        (np.zeros((1, 6, 3)), "gave shapes"),
    ],
)
def test_garbage_of_a_locator_is_told(garbage: Any, message: str) -> None:
    results = track(pictures(2), lambda *_: garbage, detect=detect)
    with pytest.raises((ValueError, TypeError), match=f"locate.*{message}"):
        next(results)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, -1e300, 0.0])
@pytest.mark.parametrize("where", [0, (..., 1, 0), ...])
def test_numbers_that_are_no_landmarks_are_a_loss_and_no_more(value: float, where: Any) -> None:
    now = -1

    def frames() -> Iterator[Image]:
        nonlocal now
        for now in range(9):  # noqa: B007  # the locator reads it
            yield picture(0)

    def strange(image: Image, boxes: Doubles) -> Doubles:
        shapes = locate(image, boxes)
        if now in (4, 5):
            shapes[where] = value
        return shapes

    with np.errstate(all="raise"):
        results = list(track(frames(), strange, detect=detect, smooth=OneEuro()))
    for frame in results:
        assert all(np.isfinite(face.points).all() for face in frame.faces)
        if frame.index not in (4, 5):
            (face,) = frame.faces
            assert face.identity == 0


def test_the_number_of_landmarks_is_the_same_in_every_frame() -> None:
    calls: list[int] = []

    def fickle(image: Image, boxes: Doubles) -> Doubles:
        calls.append(1)
        return locate(image, boxes)[:, : 5 if len(calls) > 3 else 6]

    with pytest.raises(ValueError, match="gave 5 landmarks a face, expected 6 as in the frames"):
        list(track(pictures(5), fickle, detect=detect))
    rng = np.random.default_rng(0)
    model = asmkit.ShapeModel(n_components=2).fit(rng.normal(size=(20, 9, 2)))
    with pytest.raises(ValueError, match="gave 6 landmarks a face, expected 9 as in the model"):
        list(track(pictures(1), Square(), detect=detect, model=model))
    with pytest.raises(ValueError, match="expected 68 as in the scheme 'ibug68'"):
        list(track(pictures(1), locate, detect=detect, scheme="ibug68"))


def test_half_a_point_is_none_for_the_filter() -> None:
    half = np.array([[3.0, np.nan], [1.0, 2.0]])
    follow = OneEuro().start()
    for time_, whole in ((0.0, False), (0.1, True), (0.2, False), (0.3, False), (0.4, True)):
        result = follow(np.array([[3.0, 4.0], [1.0, 2.0]]) if whole else half, time_)
        np.testing.assert_array_equal(result, [[3, 4] if whole else [np.nan, np.nan], [1, 2]])


def test_age_counts_the_frames_that_were_given() -> None:
    """A face that is lost in a frame is not in its result, so the frame does not count."""

    class Doubts(Square):
        n = -1

        def predict(
            self, image: npt.ArrayLike, boxes: npt.ArrayLike | None = None, **options: Any
        ) -> Prediction:
            self.n += 1
            found = super().predict(image, boxes)
            return replace(found, face=np.full(len(found.face), 0.1 if 5 < self.n < 12 else 0.9))

    results = list(track([picture(0)] * 20, Doubts(), detect=detect))
    assert any(frame.lost for frame in results)
    ages = [face.age for frame in results for face in frame.faces]
    assert ages == list(range(1, len(ages) + 1))
    assert len(ages) < 20


def test_who_is_hidden_is_lost_and_not_who_hides_it() -> None:
    """Behind a younger face the network finds that one, and says that its crop shows no face."""

    def boxes_at(t: int) -> list[Doubles]:
        passing, standing = np.array([4.0 + 2 * t, 14, 20, 20]), np.array([40.0, 12, 20, 20])
        hidden = iou(passing, standing) >= 0.35
        return [standing] * (t > 1) + [passing] * (not hidden)

    now = -1

    def frames() -> Iterator[Image]:
        nonlocal now
        for now in range(34):  # noqa: B007  # the network reads it
            yield np.zeros((48, 100, 3), np.uint8)

    class Head(Square):
        def predict(
            self, image: npt.ArrayLike, boxes: npt.ArrayLike | None = None, **options: Any
        ) -> Prediction:
            given = np.asarray(boxes, dtype=np.float64)
            overlaps = iou(given[:, None], np.array(boxes_at(now)))
            found = np.array(boxes_at(now))[overlaps.argmax(axis=1)]
            points = found[:, None, :2] + FACE * found[:, None, 2:]
            face = np.where(overlaps.max(axis=1) > 0.75, 0.9, 0.1)
            return Prediction(points, np.full((len(given), 3), np.nan), given, face)

    results = list(track(frames(), Head(), detect=lambda _: np.array(boxes_at(now)), look_every=1))
    assert {identity for frame in results for identity in frame.lost} == {0}
    for frame in results:
        expected = boxes_at(frame.index)
        on = {face.identity: face.box for face in frame.faces}
        assert len(on) == len(expected)
        if frame.index > 1:
            np.testing.assert_allclose(on[1], expected[0])
        if 0 in on:
            np.testing.assert_allclose(on[0], expected[-1])


def test_trackers_share_a_network() -> None:
    """A predictor holds nothing of the videos: in turns and in threads the results are the same."""

    def engine(crops: Image) -> list[npt.NDArray[Any]]:
        time.sleep(0.0005)  # let the other thread in
        shapes = [locate(crop, np.zeros((1, 4)))[0] for crop in crops]
        n = len(crops)
        return [np.array(shapes).reshape(n, -1, 2), np.zeros((n, 3)), np.full(n, 0.9)]

    description = {"n_points": len(FACE), "scheme": None, "input_size": 40, "margin": 1.6}
    shared = Predictor(engine, description, "none")
    clips = [[picture(t) for t in range(first, first + 40)] for first in (0, 23)]

    def follow(clip: list[Image]) -> Iterator[TrackedFrame]:
        return track(clip, shared, detect=detect, smooth=OneEuro())

    alone = [list(follow(clip)) for clip in clips]
    assert min(sum(len(frame.faces) for frame in results) for results in alone) > 20
    in_turns = [*zip(*map(follow, clips), strict=True)]
    for number, expected in enumerate(alone):
        assert_same([pair[number] for pair in in_turns], expected)
    found: dict[int, list[TrackedFrame]] = {}

    def work(number: int) -> None:
        found[number] = list(follow(clips[number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, expected in enumerate(alone):
        assert_same(found[number], expected)


# -- the first mistakes of a new user


@pytest.mark.parametrize("source", ["clip.mp4", Path("clip.mp4"), 0])
def test_a_source_that_was_not_opened(source: Any) -> None:
    with pytest.raises(TypeError, match=r"track\(asmkit\.open_frames\("):
        track(source, locate)


def test_one_image_is_no_video() -> None:
    for take in (open_frames, lambda image: track(image, locate)):
        with pytest.raises(ValueError, match=r"shape \(48, 64, 3\).*make \[image\]"):
            take(picture(0))
    results = list(track(np.stack([*pictures(3)]), locate, detect=detect))
    assert [len(frame.faces) for frame in results] == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smooth": True}, r"smooth: got True, expected None or smooth=asmkit\.OneEuro\(\)"),
        ({"model": "shape.npz"}, r"model: got 'shape\.npz'.*ShapeModel\.load"),
        ({"detect": None}, "detect: got NoneType, expected a callable"),
    ],
)
def test_options_of_another_kind(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        track([], locate, **options)


def test_a_tail_of_nothing_is_no_default() -> None:
    model = asmkit.ShapeModel(n_components=2).fit(
        np.random.default_rng(0).normal(size=(20, len(FACE), 2))
    )
    with pytest.raises(ValueError, match="tail: got 0"):
        track([], locate, model=model, tail=0.0)


def test_writers_outside_of_their_block(tmp_path: Path) -> None:
    tracks, video = write_tracks(tmp_path / "t.jsonl"), write_video(tmp_path / "seen.avi", 20)
    (frame,) = tracked(1)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"t\.jsonl: is not open"):
            tracks.write(frame)
        with pytest.raises(ValueError, match=r"seen\.avi: is not open"):
            video.write(picture(0))
        with tracks, video:
            tracks.write(frame)
            video.write(picture(0))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("damage", ["1\r2", '"', "", "\0", '{"frame": Infinity}', "[]", "é,"])
def test_a_damaged_line_of_tracks_is_named(tmp_path: Path, suffix: str, damage: str) -> None:
    path = write_all(tmp_path / f"t{suffix}", tracked(6))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], damage, *lines[4:], ""]), newline="")
    with pytest.raises(FormatError, match="line 4 is no"):
        read_tracks(path)


# -- full disks and other places that cannot be written to


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_full_disk_names_the_tracks(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"t{suffix}").symlink_to("/dev/full")
    with pytest.raises(OSError, match=rf"No space left on device.*t\{suffix}"):
        write_all(tmp_path / f"t{suffix}", tracked(3))


#: Where other processes import this file and the package from.
PLACES = [str(Path(__file__).parent), str(Path(asmkit.__file__).parents[1])]

#: The command with the network and the detector of this file, in a process of its own.
_COMMAND = """
import functools, resource, sys
sys.path[:0] = {places!r}
import asmkit.predictor, asmkit.tracking
from asmkit.boxes import iou
from asmkit.cli import main
from test_hostile_video import Square, detect
asmkit.tracking.track = functools.partial(asmkit.tracking.track, detect=detect)
asmkit.predictor.load = lambda *_, **__: Square({seconds})
if {limit}:
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
main(["track", "clip.avi", "--network", ".", *sys.argv[1:]])
"""


def command(
    folder: Path, *options: str, seconds: float = 0.0, limit: int = 0
) -> subprocess.Popen[str]:
    code = _COMMAND.format(places=PLACES, seconds=seconds, limit=limit)
    return subprocess.Popen(
        [sys.executable, "-c", code, *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in a shell's background, their children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


#: Videos of every format into files of at most 6000 bytes.
_LARGE_VIDEOS = """
import resource, sys
sys.path[:0] = {places!r}
from asmkit.video import write_video
import numpy as np
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
for suffix in (".avi", ".mp4", ".mkv", ".mov"):
    try:
        with write_video("seen" + suffix, 20) as video:
            for seed in range(20):
                noise = np.random.default_rng(seed).integers(0, 256, (48, 64, 3))
                video.write(noise.astype(np.uint8))
    except OSError as error:
        print(error)
"""


def test_a_video_that_fills_the_disk_is_told_and_the_old_one_stands(tmp_path: Path) -> None:
    names = [f"seen{suffix}" for suffix in (".avi", ".mp4", ".mkv", ".mov")]
    for name in names:
        (tmp_path / name).write_bytes(b"old")
    code = _LARGE_VIDEOS.format(places=PLACES)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    told = [line.split(":")[0] for line in result.stdout.splitlines()]
    assert told == names
    assert result.stdout.count("20 frames were written, but they cannot be read back") == 4
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == dict.fromkeys(
        names, b"old"
    )


def test_tracks_that_fill_the_disk_hold_their_whole_lines(tmp_path: Path) -> None:
    film(tmp_path / "clip.avi", 60)
    process = command(tmp_path, "--out", "t.jsonl", "--video", "seen.mp4", limit=6000)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2
    assert error.strip().splitlines()[-1].startswith("Error: t.jsonl: ")
    with pytest.warns(UserWarning, match="the last, is cut off"):
        kept = read_tracks(tmp_path / "t.jsonl")
    assert 5 < len(kept) < 60
    assert [frame.index for frame in kept] == list(range(len(kept)))
    with open_frames(tmp_path / "seen.mp4") as frames:
        assert len(list(frames)) == len(kept)


def test_places_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(asmkit.predictor, "load", lambda *_, **__: Square())
    film(tmp_path / "clip.avi", 3)
    (tmp_path / "folder.jsonl").mkdir()
    write_all(tmp_path / "old.jsonl", tracked(2))
    for options, message in (
        (("--out", "clip.avi/t.jsonl"), "clip.avi"),
        (("--out", "folder.jsonl"), "folder.jsonl: is a folder"),
        (("--video", "clip.avi/seen.avi"), "clip.avi"),
        (("--out", "old.jsonl", "--video", "seen.gif"), "no video format has the suffix '.gif'"),
        (("--out", "old.jsonl", "--video", "clip.avi/seen.avi"), "clip.avi"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["track", "clip.avi", "--network", ".", *options])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    # A command that could not begin has not emptied what was there before.
    assert len(read_tracks(tmp_path / "old.jsonl")) == 2


# -- interrupts


def n_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def when_some_are_written(process: subprocess.Popen[str], path: Path) -> None:
    while n_lines(path) < 6:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_ctrl_c_keeps_the_results_so_far(tmp_path: Path) -> None:
    film(tmp_path / "clip.avi", 400)
    process = command(tmp_path, "--out", "t.jsonl", "--video", "seen.mp4", seconds=0.05)
    try:
        when_some_are_written(process, tmp_path / "t.jsonl")
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, error
    kept = read_tracks(tmp_path / "t.jsonl")
    assert 6 <= len(kept) < 400
    assert output == ""
    assert error.startswith(f"stopped; {len(kept)} frames ")
    assert error.endswith("kept: t.jsonl, seen.mp4\n")
    with open_frames(tmp_path / "seen.mp4") as frames:
        assert len(list(frames)) in (len(kept), len(kept) - 1)  # it is drawn after its line
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["clip.avi", "seen.mp4", "t.jsonl"]


@pytest.mark.filterwarnings("ignore:.*the last, is cut off")
@pytest.mark.parametrize("suffix", [".jsonl", pytest.param(".csv", marks=pytest.mark.slow)])
def test_a_kill_leaves_the_beginning_of_the_whole(tmp_path: Path, suffix: str) -> None:
    film(tmp_path / "clip.avi", 400)
    (tmp_path / "seen.mp4").write_bytes(b"old")
    process = command(tmp_path, "--out", f"t{suffix}", "--video", "seen.mp4", seconds=0.02)
    try:
        when_some_are_written(process, tmp_path / f"t{suffix}")
    finally:
        process.kill()
        process.communicate()
    kept = read_tracks(tmp_path / f"t{suffix}")
    assert 5 <= len(kept) < 400
    with open_frames(tmp_path / "clip.avi") as frames:
        assert_same(kept, list(islice(track(frames, locate, detect=detect), len(kept))))
    assert (tmp_path / "seen.mp4").read_bytes() == b"old"
