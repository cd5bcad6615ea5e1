"""Frames in and out: every frame of every source, and a clear word where some are missing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from asmkit.errors import FormatError
from asmkit.images import write_image
from asmkit.video import open_frames, write_video

Image = npt.NDArray[np.uint8]


def numbered(n: int, width: int = 64, height: int = 48) -> Iterator[Image]:
    """Frames whose brightness is their number: it survives a lossy codec."""
    for number in range(n):
        yield np.full((height, width, 3), 20 * number, np.uint8)


def number_of(frame: Image) -> int:
    return round(float(frame.mean()) / 20)


@pytest.fixture
def video(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str = "clip.avi", n: int = 12) -> Path:
        with write_video(tmp_path / name, 20.0) as out:
            for frame in numbered(n):
                out.write(frame)
        return tmp_path / name

    return make


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".mov"])
def test_a_video_that_was_written_is_read(video: Callable[..., Path], suffix: str) -> None:
    with open_frames(video(f"clip{suffix}")) as frames:
        assert (frames.fps, frames.size, frames.count) == (20.0, (64, 48), 12)
        seen = [(frames.index, frames.time, number_of(frame)) for frame in frames]
    assert seen == [(i, i * (1 / 20), i) for i in range(12)]
    assert (frames.skipped, frames.truncated) == (0, False)


def test_colours_are_rgb(tmp_path: Path) -> None:
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 200
    with write_video(tmp_path / "red.avi", 5) as out:
        out.write(red)
    (frame,) = open_frames(tmp_path / "red.avi")
    assert np.abs(frame.astype(int) - red).max() < 12


def test_a_truncated_video_gives_what_it_holds(video: Callable[..., Path]) -> None:
    path = video()
    chunks = path.read_bytes().split(b"00dc")  # each but the first begins with a frame
    path.write_bytes(b"00dc".join(chunks[:8]))
    with (
        open_frames(path) as frames,
        pytest.warns(UserWarning, match=r"clip\.avi: expected 12 frames, got \d+"),
    ):
        seen = [number_of(frame) for frame in frames]
    assert frames.truncated
    assert 0 < len(seen) < 12
    assert seen == list(range(len(seen)))


class Stuttering:
    """A capture that cannot decode some of its frames."""

    def __init__(self, good: list[bool], told: int) -> None:
        frames = [frame if ok else None for ok, frame in zip(good, numbered(12), strict=False)]
        self._reads = iter([*zip(good, frames, strict=True)])
        self._told, self.released = told, False

    def isOpened(self) -> bool:  # noqa: N802  # the name of OpenCV
        return True

    def get(self, what: int) -> float:
        return {cv2.CAP_PROP_FPS: 10.0, cv2.CAP_PROP_FRAME_COUNT: self._told}[what]

    def read(self) -> tuple[bool, Image | None]:
        return next(self._reads, (False, None))

    def release(self) -> None:
        self.released = True


def test_damaged_frames_are_skipped_and_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"any")
    good = [True, True, False, False, True, True, False, True]
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: Stuttering(good, 8))
    with (
        open_frames(tmp_path / "clip.mp4") as frames,
        pytest.warns(UserWarning, match="3 damaged frames were skipped"),
    ):
        seen = [(frames.index, frames.time, number_of(frame)) for frame in frames]
    # The number of a frame is that in the source, so times stay right.
    assert seen == [(i, i * 0.1, i) for i, ok in enumerate(good) if ok]
    assert (frames.skipped, frames.truncated) == (3, False)


def test_a_capture_is_released(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"any")
    capture = Stuttering([True] * 8, 8)
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: capture)
    with open_frames(tmp_path / "clip.mp4") as frames:
        next(frames)
        assert not capture.released
    assert capture.released


@pytest.mark.parametrize("source", [0, "0"])
def test_a_camera_that_stops_ends_with_a_message(
    monkeypatch: pytest.MonkeyPatch, source: int | str
) -> None:
    monkeypatch.setattr("asmkit.video._CAMERA_PAUSE", 0.0)
    asked = []

    def camera(number: int) -> Stuttering:
        asked.append(number)
        return Stuttering([True, True, False, True], -1)

    monkeypatch.setattr(cv2, "VideoCapture", camera)
    with (
        open_frames(source) as frames,
        pytest.warns(UserWarning, match="camera 0: sends no more frames; stopped after 3"),
    ):
        times = [frames.time for _ in frames]
    assert asked == [0]
    assert times[0] == 0.0
    assert times == sorted(times)
    assert frames.count is None


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(OSError, match="camera 991: cannot be opened"):
        open_frames("991")


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for name, number in (("f10.png", 3), ("f9.png", 2), ("F1.png", 1), ("a2.png", 0)):
        write_image(tmp_path / name, np.full((8, 8 + number, 3), 20 * number, np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    with open_frames(tmp_path, fps=5) as frames:
        assert (frames.count, frames.fps, frames.size) == (4, 5, (8, 8))
        seen = [(number_of(frame), frames.time) for frame in frames]
    assert seen == [(i, i * 0.2) for i in range(4)]


def test_a_bad_image_of_a_folder_is_named_and_skipped(tmp_path: Path) -> None:
    for number, frame in enumerate(numbered(4)):
        write_image(tmp_path / f"{number}.png", frame)
    (tmp_path / "2.png").write_bytes(b"no image")
    with open_frames(tmp_path) as frames, pytest.warns(UserWarning, match=r"frame 2.*2\.png"):
        seen = [(frames.index, number_of(frame)) for frame in frames]
    assert seen == [(0, 0), (1, 1), (3, 3)]
    assert frames.skipped == 1


def test_one_image_and_a_list_of_paths(tmp_path: Path) -> None:
    paths = [tmp_path / "b.png", tmp_path / "a.png"]
    for path, frame in zip(paths, numbered(2), strict=True):
        write_image(path, frame)
    assert [number_of(frame) for frame in open_frames(paths)] == [0, 1]
    assert [number_of(frame) for frame in open_frames(paths[1])] == [1]


def test_arrays_are_handed_on_one_at_a_time() -> None:
    def endless() -> Iterator[Image]:
        for number in itertools.count():
            yield np.full((2, 2, 3), number, np.uint8)

    frames = open_frames(endless(), fps=10)
    first = [
        (frames.index, frames.time, int(frame[0, 0, 0]))
        for frame, _ in zip(frames, "abc", strict=False)
    ]
    assert first == [(0, 0.0, 0), (1, 0.1, 1), (2, 0.2, 2)]


def test_sources_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4: no such file"):
        open_frames(tmp_path / "gone.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="holds no image"):
        open_frames(tmp_path / "empty")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(FormatError, match="is empty"):
        open_frames(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("no video at all")
    with pytest.raises(FormatError, match=r"text\.mp4: cannot be opened as a video"):
        open_frames(tmp_path / "text.mp4")
    (tmp_path / "bad.png").write_text("no image")
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(FormatError, match="no frame could be read"),
    ):
        open_frames(tmp_path / "bad.png")
    with pytest.raises(TypeError, match="expected a path, the number of a camera"):
        open_frames(3.5)  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(ValueError, match="fps"):
        open_frames([], fps=0)


def test_a_video_without_frames(video: Callable[..., Path], tmp_path: Path) -> None:
    path = video("short.avi", 1)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"00dc")])
    with pytest.raises(FormatError, match=r"short\.avi"):
        open_frames(path)


# -- writing


def test_an_interrupted_video_is_kept(tmp_path: Path) -> None:
    def film() -> None:
        with write_video(tmp_path / "kept.mp4", 25) as out:
            for number, frame in enumerate(numbered(12)):
                if number == 7:
                    raise KeyboardInterrupt
                out.write(frame)

    with pytest.raises(KeyboardInterrupt):
        film()
    assert [p.name for p in tmp_path.iterdir()] == ["kept.mp4"]
    assert [number_of(frame) for frame in open_frames(tmp_path / "kept.mp4")] == list(range(7))


def test_while_it_is_written_the_old_video_stands(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    path.write_bytes(b"old")
    with write_video(path, 25) as out:
        for frame in numbered(3):
            out.write(frame)
        assert path.read_bytes() == b"old"
    assert out.n_written == len(list(open_frames(path))) == 3


def test_without_a_frame_nothing_is_written(tmp_path: Path) -> None:
    with write_video(tmp_path / "none.mp4", 25):
        pass
    with pytest.raises(RuntimeError, match="mine"), write_video(tmp_path / "none.mp4", 25):
        raise RuntimeError("mine")
    assert not list(tmp_path.iterdir())


def test_a_frame_of_another_size_is_fitted_on_black(tmp_path: Path) -> None:
    with write_video(tmp_path / "two.avi", 25) as out:
        out.write(np.full((64, 128, 3), 200, np.uint8))
        out.write(np.full((128, 128, 3), 200, np.uint8))  # half as large: 64 × 64 in the middle
    _, second = open_frames(tmp_path / "two.avi")
    assert second.shape == (64, 128, 3)
    assert np.abs(second[:, 40:88].astype(int) - 200).max() < 12
    assert second[:, :24].max() < 40
    assert second[:, -24:].max() < 40


def test_wrong_videos_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"use one of \.avi, \.mkv, \.mov, \.mp4"):
        write_video(tmp_path / "clip.gif", 25)
    with pytest.raises(ValueError, match="fps"):
        write_video(tmp_path / "clip.mp4", 0)
    with (
        pytest.raises(TypeError, match="uint8"),
        write_video(tmp_path / "clip.mp4", 25) as out,
    ):
        out.write(np.zeros((8, 8, 3)))
    assert not list(tmp_path.iterdir())
