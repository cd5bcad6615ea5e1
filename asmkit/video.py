"""Video in and out: frames of a file, a camera, a folder of images; a video of drawings.

:func:`open_frames` gives one thing to iterate over, whatever the source, one frame in memory at a
time. :func:`write_video` writes frames; what was written stays when the program is interrupted.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Sized
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt

from asmkit._files import replacing
from asmkit.errors import FormatError
from asmkit.images import as_image, read_image

__all__ = ["Frames", "VideoWriter", "open_frames", "write_video"]

Image = npt.NDArray[np.uint8]
Source = str | os.PathLike[str] | int | Iterable[Any]
_Numbered = tuple[int, float, Image]

#: Frames a second where the source does not say.
DEFAULT_FPS = 25.0

_IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}

#: Suffix → the codec that OpenCV's own wheels can write into it.
_CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}

# A damaged packet costs a read or a few; only after this many in a row is a file at its end.
_READS = 100
# A camera that sends nothing for so many tries, this many seconds apart, has stopped; or after
# so many seconds: of a camera that was pulled out, one try may take ten.
_CAMERA_TRIES, _CAMERA_PAUSE, _CAMERA_SECONDS = 50, 0.02, 5.0


class Frames:
    """Frames one after the other; what :func:`open_frames` gives. Iterate over it once.

    A context manager: leaving it closes the file or the camera.

    Attributes
    ----------
    name : str
        The source, for messages.
    fps : float or None
        Frames a second; None where the source does not say.
    size : (int, int) or None
        Width and height of the first frame, where it is known before it is asked for.
    count : int or None
        Number of frames that the source promises; None where nobody knows.
    index : int
        Number of the frame given last, counted in the source from 0: frames that could not be
        decoded are counted too. −1 before the first.
    image : ndarray (h, w, 3) uint8, or None
        The frame given last.
    time : float
        Seconds from the first frame to the one given last: ``index / fps``; of a camera, as the
        clock says.
    skipped : int
        Frames so far that could not be decoded.
    truncated : bool
        At the end: whether the source ended before ``count`` frames. A video that gives only one
        or 2 % less is not called truncated, because that count may be an estimate.
    """

    def __init__(self, name: str, fps: float | None, count: int | None) -> None:
        self.name, self.fps, self.count = name, fps, count
        self.size: tuple[int, int] | None = None
        self.index, self.time, self.skipped, self.truncated = -1, 0.0, 0, False
        self.image: Image | None = None
        self._ahead: _Numbered | None = None
        self._closed = False

    def _read(self) -> _Numbered | None:
        """Number, time and pixels of the next frame; None at the end."""
        raise NotImplementedError

    def _release(self) -> None:
        """Let go of the source."""

    def __iter__(self) -> Iterator[Image]:
        return self

    def __next__(self) -> Image:
        following, self._ahead = self._ahead, None
        if following is None and not self._closed:
            following = self._read()
        if following is None:
            self.close()
            raise StopIteration
        self.index, self.time, self.image = following
        return self.image

    def close(self) -> None:
        """End the iteration and let go of the source."""
        self._closed, self._ahead = True, None
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> Self:
        """Read the first frame now, so that a source without any is an error at once."""
        self._ahead = self._read()
        if self._ahead is None:
            self.close()
            raise FormatError(f"{self.name}: no frame could be read; {self._advice()}")
        height, width = self._ahead[2].shape[:2]
        self.size = (width, height)
        return self

    def _advice(self) -> str:
        return "is it empty, or damaged?"


class _Video(Frames):
    def __init__(self, path: Path, fps: float | None) -> None:
        if not path.stat().st_size:
            raise FormatError(f"{path}: is empty; expected a video file")
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise FormatError(
                f"{path}: cannot be opened as a video; expected MP4, AVI, MKV, MOV or WebM "
                "(an MP4 that was cut off before its end holds no index and cannot be read)"
            )
        told = self._capture.get(cv2.CAP_PROP_FPS)
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        # Streams tell rates like 90000 and counts below 0 where they know neither.
        super().__init__(
            str(path),
            fps or (told if 0 < told <= 1000 else None),
            int(count) if 0 < count < 2**31 else None,
        )
        self._given = 0
        self._begin()

    def _read(self) -> _Numbered | None:
        failed = 0
        while failed < _READS and (self.count is None or self.skipped + failed < self.count):
            good, pixels = self._capture.read()
            if not good:
                failed += 1
                continue
            # Failed reads are frames only if others follow: at the end there are none.
            self.skipped += failed
            number = self._given + self.skipped
            self._given += 1
            return number, number * (1 / (self.fps or DEFAULT_FPS)), _rgb(pixels)
        if loss := self._loss():
            _warn(f"{self.name}: {loss}")
        return None

    def _release(self) -> None:
        self._capture.release()

    def _loss(self) -> str:
        """What is missing at the end, in words."""
        missing = (self.count or 0) - self._given - self.skipped
        self.truncated = missing > max(1, (self.count or 0) // 50)
        if not self._given:
            return ""  # an error tells it
        end = f"expected {self.count} frames, got {self._given}" if self.truncated else ""
        gaps = f"{self.skipped} damaged frames were skipped" if self.skipped else ""
        return "; ".join(filter(None, (end, gaps)))


class _Camera(Frames):
    def __init__(self, number: int, fps: float | None) -> None:
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise OSError(
                f"camera {number}: cannot be opened; is it there, and is no other program using "
                "it? (Cameras are counted from 0; for a file of this name write its folder too.)"
            )
        told = self._capture.get(cv2.CAP_PROP_FPS)
        super().__init__(f"camera {number}", fps or (told if 0 < told <= 1000 else None), None)
        self._start: float | None = None
        self._given = 0
        self._begin()

    def _read(self) -> _Numbered | None:
        pixels = self._wait()
        if pixels is None:
            if self._given:
                _warn(f"{self.name}: sends no more frames; stopped after {self._given}")
            return None
        # Not time.monotonic(): where it goes in steps of 16 ms, two frames have the same time.
        now = time.perf_counter()
        self._start = now if self._start is None else self._start
        self._given += 1
        return self._given - 1, now - self._start, _rgb(pixels)

    def _release(self) -> None:
        self._capture.release()

    def _wait(self) -> npt.NDArray[Any] | None:
        end = time.perf_counter() + _CAMERA_SECONDS
        for _ in range(_CAMERA_TRIES):
            good, pixels = self._capture.read()
            if good:
                return pixels
            if time.perf_counter() > end:
                break
            time.sleep(_CAMERA_PAUSE)
        return None

    def _advice(self) -> str:
        return "the camera sends nothing; is another program using it?"


class _Images(Frames):
    """Image files, or arrays that are given as they come."""

    def __init__(self, images: Iterable[Any], name: str, fps: float | None) -> None:
        self._images, self._items = images, enumerate(images)
        super().__init__(name, fps, len(images) if isinstance(images, Sized) else None)

    def _read(self) -> _Numbered | None:
        for number, item in self._items:
            image = item
            if isinstance(item, str | os.PathLike):
                try:
                    image = read_image(item)
                except FormatError as error:
                    self.skipped += 1
                    _warn(f"frame {number} is skipped: {error}")
                    continue
            return number, number * (1 / (self.fps or DEFAULT_FPS)), image
        return None

    def _release(self) -> None:
        if isinstance(self._images, Generator):
            # One that is running, because it calls this itself, cannot be closed.
            with suppress(ValueError):
                self._images.close()


def open_frames(source: Source, *, fps: float | None = None) -> Frames:
    """Open a video, a camera, images or arrays, to iterate over RGB frames.

    Parameters
    ----------
    source : path, int, or iterable of paths or arrays
        A video file; a camera by its number (a string of digits too); a folder, whose images are
        taken in natural order (``frame9`` before ``frame10``); one image; paths of images; RGB
        uint8 arrays ``(h, w, 3)``, which are handed on as they are.
    fps : float, optional
        Frames a second, where the source does not know or is wrong.

    Returns
    -------
    Frames
        Damaged frames are left out and counted in ``skipped``; a file that ends early gives what
        it holds and then is ``truncated``. Both are told in a warning too. Frames may differ in
        size.

    Raises
    ------
    FileNotFoundError
        When there is no such file or folder.
    FormatError
        When the file is no video, or no frame can be read.
    OSError
        When the camera cannot be opened.
    ValueError
        When ``fps`` is not positive.
    TypeError
        When the source is none of these.
    """
    if fps is not None and not 0 < fps < float("inf"):
        raise ValueError(f"fps: got {fps}, expected frames a second, a number above 0")
    if isinstance(source, str) and source.isdecimal():
        source = int(source)
    if isinstance(source, int):
        return _Camera(source, fps)
    if isinstance(source, str | os.PathLike):
        return _open_path(Path(source), fps)
    if not isinstance(source, Iterable):
        raise TypeError(
            f"source: got {type(source).__name__}, expected a path, the number of a camera, "
            "or an iterable of images"
        )
    check_is_no_image(source, "source")
    return _Images(source, "frames", fps)


def check_is_no_image(value: object, name: str) -> None:
    """Refuse one image where a sequence of images is expected: it would be taken row by row.

    Raises
    ------
    ValueError
    """
    if isinstance(value, np.ndarray) and value.ndim < 4:
        raise ValueError(
            f"{name}: got one array of shape {value.shape}, expected images "
            "(n, h, w, 3) or a list of them; of one image make [image]"
        )


def _open_path(path: Path, fps: float | None) -> Frames:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; expected a video or images")
    if path.is_dir():
        images = sorted(
            (p for p in path.iterdir() if p.suffix.lower() in _IMAGE_SUFFIXES and p.is_file()),
            key=_natural,
        )
        if not images:
            raise FormatError(f"{path}: holds no image ({', '.join(sorted(_IMAGE_SUFFIXES))})")
        return _Images(images, str(path), fps)._begin()
    if path.suffix.lower() in _IMAGE_SUFFIXES:
        return _Images([path], str(path), fps)._begin()
    return _Video(path, fps)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key that counts digits as numbers; numbers come before letters."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name.lower())
    key = [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts]
    return [*key, (2, 0, path.name)]


def _rgb(pixels: npt.NDArray[Any]) -> Image:
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=4)


def write_video(path: str | os.PathLike[str], fps: float) -> VideoWriter:
    """Write a video, frame by frame.

    The file takes its place when the block ends, also when it ends by an error or Ctrl-C: then it
    holds the frames so far. When no whole video could be written, as on a full disk, the end of
    the block is an ``OSError``, and whatever stood there before is untouched.

    Parameters
    ----------
    path : path
        The suffix chooses the format: ``.mp4``, ``.mov``, ``.mkv`` or ``.avi``.
    fps : float
        Frames a second.

    Returns
    -------
    VideoWriter
        A context manager with the method ``write(image)``.

    Raises
    ------
    ValueError
        For another suffix, or ``fps`` that is not positive.

    Examples
    --------
    >>> with write_video("seen.mp4", 25) as video:  # doctest: +SKIP
    ...     for image in images:
    ...         video.write(image)
    """
    return VideoWriter(path, fps)


class _NoFrameError(Exception):
    """Nothing was written, so there is no file to keep."""


class VideoWriter:
    """Frames into a video file; made by :func:`write_video`.

    Attributes
    ----------
    path : Path
    n_written : int
        Frames so far.
    """

    def __init__(self, path: str | os.PathLike[str], fps: float) -> None:
        self.path, self.fps, self.n_written = Path(path), float(fps), 0
        if self.path.suffix.lower() not in _CODECS:
            raise ValueError(
                f"{path}: no video format has the suffix {self.path.suffix!r}; "
                f"use one of {', '.join(sorted(_CODECS))}"
            )
        if not 0 < self.fps < float("inf"):
            raise ValueError(f"fps: got {fps}, expected frames a second, a number above 0")
        self._writer: cv2.VideoWriter | None = None
        self._temporary: Path | None = None
        self._size = (0, 0)

    def __enter__(self) -> Self:
        self._place = replacing(self.path)
        self._temporary = self._place.__enter__()
        self.n_written = 0
        return self

    def write(self, image: npt.ArrayLike) -> None:
        """Add a frame.

        Parameters
        ----------
        image : ndarray (h, w, 3) uint8
            RGB. The first one sets the size of the video; one of another size is scaled to fit,
            on black.

        Raises
        ------
        OSError
            When OpenCV cannot write such a video there.
        ValueError, TypeError
            For another kind of image, and outside of a ``with`` block.
        """
        if self._temporary is None:
            raise ValueError(f"{self.path}: is not open; write inside of: with write_video(…)")
        pixels = as_image(image)
        if self._writer is None:
            self._writer = self._open(self._temporary, pixels.shape[1], pixels.shape[0])
        self._writer.write(cv2.cvtColor(_fitted(pixels, self._size), cv2.COLOR_RGB2BGR))
        self.n_written += 1

    def _open(self, path: Path, width: int, height: int) -> cv2.VideoWriter:
        self._size = (width, height)
        codec = _CODECS[self.path.suffix.lower()]
        code = cv2.VideoWriter.fourcc(*codec)
        writer = cv2.VideoWriter(str(path), code, self.fps, self._size)
        if not writer.isOpened():
            raise OSError(
                f"{self.path}: OpenCV cannot write a {codec} video of {width} × {height} pixels; "
                "use another suffix (.avi is the simplest), or check the folder"
            )
        return writer

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        temporary, writer = self._temporary, self._writer
        self._temporary = self._writer = None
        try:
            if temporary is None or writer is None:
                raise _NoFrameError
            writer.release()
            if not _is_whole(temporary, self.n_written):
                raise OSError(
                    f"{self.path}: {self.n_written} frames were written, but they cannot be read "
                    "back and were not kept; is the disk full?"
                )
        except _NoFrameError as nothing:
            with suppress(_NoFrameError):
                self._place.__exit__(_NoFrameError, nothing, None)
        except OSError as problem:
            self._place.__exit__(OSError, problem, None)
            raise
        else:
            self._place.__exit__(None, None, None)


def _is_whole(path: Path, n_frames: int) -> bool:
    """Whether all frames of a video are there; OpenCV's writer does not tell of a full disk."""
    capture = cv2.VideoCapture(str(path))
    capture.set(cv2.CAP_PROP_POS_FRAMES, n_frames - 1)
    last, _ = capture.read()
    capture.release()
    if last:
        return True
    # Not every build of OpenCV can go to a frame: count them.
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.grab():
        count += 1
    capture.release()
    return count >= n_frames


def _fitted(pixels: Image, size: tuple[int, int]) -> Image:
    """Scale a frame of another size to fit, in the middle of black."""
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    scale = min(size[0] / width, size[1] / height)
    new = (max(1, round(width * scale)), max(1, round(height * scale)))
    new = (min(new[0], size[0]), min(new[1], size[1]))
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    left, top = (size[0] - new[0]) // 2, (size[1] - new[1]) // 2
    canvas[top : top + new[1], left : left + new[0]] = cv2.resize(
        pixels, new, interpolation=cv2.INTER_AREA
    )
    return canvas
