"""Tracks in files: JSON lines and CSV, written frame by frame, read back to the last digit.

JSON lines: one object a frame, ``null`` for a number that is not known (NaN)::

    {"frame": 0, "time": 0.0, "detected": true, "lost": [], "faces": [{"identity": 0, "age": 1,
     "box": [x, y, width, height], "pose": [yaw, pitch, roll], "face": 0.98, "plausibility": 0.7,
     "points": [[x, y], ...]}]}

CSV: one row a face, an empty field for a number that is not known; a frame without faces has one
row with the fields of the face empty. ``lost`` holds identities between blanks, and the landmarks
are the columns ``x0, y0, x1, y1, …``.

Either file holds whole lines at all times, so what was written stays when the program is killed:
the readers leave out a last line that is cut off. (In CSV that may cut one of several faces from
the last frame.)
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Self, TextIO

import numpy as np
import numpy.typing as npt

from asmkit.errors import FormatError
from asmkit.tracking import TrackedFace, TrackedFrame

__all__ = ["TrackWriter", "read_tracks", "write_tracks"]

Doubles = npt.NDArray[np.float64]

_FRAME_COLUMNS = ("frame", "time", "detected", "lost")
_BOX_COLUMNS = ("x", "y", "width", "height")
_POSE_COLUMNS = ("yaw", "pitch", "roll")
_FACE_COLUMNS = ("identity", "age", *_BOX_COLUMNS, *_POSE_COLUMNS, "face", "plausibility")


class TrackWriter:
    """Tracked frames into a file; made by :func:`write_tracks`.

    Attributes
    ----------
    path : Path
    n_written : int
        Frames so far.
    """

    def __init__(self, path: str | os.PathLike[str], n_points: int | None = None) -> None:
        self.path, self.n_written = Path(path), 0
        self._n_points = n_points
        self._stream: TextIO | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.path.open("w", encoding="utf-8", newline="")
        self.n_written = 0
        return self

    def write(self, frame: TrackedFrame) -> None:
        """Add a frame; when this returns, the file holds it."""
        self._put(self._lines(frame))
        self.n_written += 1

    def _put(self, lines: str) -> None:
        if self._stream is None:
            raise ValueError(f"{self.path}: is not open; write inside of: with write_tracks(…)")
        with _naming(self.path):
            # One call for whole lines: an interrupt falls before or after it.
            self._stream.write(lines)
            self._stream.flush()

    def _lines(self, frame: TrackedFrame) -> str:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with _naming(self.path):
                stream.close()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let the error of a full disk name the file."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


class _JsonLines(TrackWriter):
    def _lines(self, frame: TrackedFrame) -> str:
        faces = [
            {
                "identity": face.identity,
                "age": face.age,
                "box": _known(face.box),
                "pose": _known(face.pose),
                "face": _known(face.face),
                "plausibility": _known(face.plausibility),
                "points": _known(face.points),
            }
            for face in frame.faces
        ]
        record = {
            "frame": frame.index,
            "time": frame.time,
            "detected": frame.detected,
            "lost": list(frame.lost),
            "faces": faces,
        }
        return json.dumps(record, allow_nan=False) + "\n"


class _Csv(TrackWriter):
    """Without a number of landmarks the header waits for the first face, which tells it."""

    def __enter__(self) -> Self:
        self._waiting: list[TrackedFrame] = []
        self._begun = False
        return super().__enter__()

    def _lines(self, frame: TrackedFrame) -> str:
        if self._n_points is None and frame.faces:
            self._n_points = len(frame.faces[0].points)
        self._waiting.append(frame)
        return "" if self._n_points is None else self._waiting_lines(self._n_points)

    def _waiting_lines(self, n_points: int) -> str:
        waiting, self._waiting = self._waiting, []
        rows = [row for frame in waiting for row in _csv_rows(frame, n_points)]
        header = [*_FRAME_COLUMNS, *_FACE_COLUMNS, *_point_columns(n_points)]
        begun, self._begun = self._begun, True
        return _csv_lines(rows if begun else [header, *rows])

    def __exit__(self, *error: object) -> None:
        try:
            if not self._begun:
                self._put(self._waiting_lines(self._n_points or 0))
        finally:
            super().__exit__(*error)


def _point_columns(n_points: int) -> list[str]:
    return [f"{axis}{number}" for number in range(n_points) for axis in "xy"]


def _csv_rows(frame: TrackedFrame, n_points: int) -> list[list[Any]]:
    lost = " ".join(map(str, frame.lost))
    begin = [frame.index, repr(frame.time), int(frame.detected), lost]
    width = len(_FACE_COLUMNS) + 2 * n_points
    rows = []
    for face in frame.faces:
        if len(face.points) != n_points:
            raise ValueError(
                f"frame {frame.index}: a face of {len(face.points)} landmarks among faces of "
                f"{n_points}; a CSV file has one number of columns: use .jsonl"
            )
        numbers = [*face.box, *face.pose, face.face, face.plausibility, *face.points.ravel()]
        fields = ["" if math.isnan(number) else repr(float(number)) for number in numbers]
        rows.append([*begin, face.identity, face.age, *fields])
    return rows or [[*begin, *[""] * width]]


def _csv_lines(rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _known(values: Doubles | float) -> Any:
    """Numbers as lists, None for NaN, which JSON does not have."""
    if isinstance(values, np.ndarray) and values.ndim:
        return [_known(value) for value in values]
    return None if math.isnan(values) else float(values)


def _numbers(values: Any) -> Doubles:
    # NumPy reads None as NaN, and refuses rows of different lengths.
    return np.array(values, dtype=np.float64)


def _read_json_lines(lines: Iterator[tuple[int, str]]) -> Iterator[TrackedFrame]:
    for number, line in lines:
        try:
            record = json.loads(line)
            faces = tuple(map(_face_of, record["faces"]))
            yield TrackedFrame(
                int(record["frame"]),
                float(record["time"]),
                faces,
                bool(record["detected"]),
                tuple(map(int, record["lost"])),
            )
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise FormatError(f"line {number} is no frame of tracked faces ({error!r})") from error


def _face_of(record: dict[str, Any]) -> TrackedFace:
    points = _numbers(record["points"])
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points of shape {points.shape}, expected (n_points, 2)")
    return TrackedFace(
        int(record["identity"]),
        points,
        _numbers(record["pose"]).reshape(3),
        _numbers(record["box"]).reshape(4),
        float(_numbers(record["face"])),
        float(_numbers(record["plausibility"])),
        int(record["age"]),
    )


def _read_csv(lines: Iterator[tuple[int, str]]) -> Iterator[TrackedFrame]:
    first = next(lines, (1, ""))[1]
    header = next(csv.reader([first]), [])
    columns = [*_FRAME_COLUMNS, *_FACE_COLUMNS]
    n_points = (len(header) - len(columns)) // 2
    if header != [*columns, *_point_columns(n_points)]:
        raise FormatError(f"line 1 is not the header of a table of tracked faces: {first[:60]!r}…")
    rows = (_csv_row(number, line, header) for number, line in lines)
    for frame, same in groupby(rows, key=lambda row: row[0]):
        faces = tuple(face for _, face in same if face is not None)
        index, time, detected, lost = frame
        yield TrackedFrame(index, time, faces, detected, lost)


_Frame = tuple[int, float, bool, tuple[int, ...]]


def _csv_row(number: int, line: str, header: list[str]) -> tuple[_Frame, TrackedFace | None]:
    try:
        fields = next(csv.reader([line]))
        if len(fields) != len(header):
            raise ValueError(f"{len(fields)} fields, expected {len(header)}")
        begin, rest = fields[: len(_FRAME_COLUMNS)], fields[len(_FRAME_COLUMNS) :]
        frame = (
            int(begin[0]),
            float(begin[1]),
            bool(int(begin[2])),
            tuple(map(int, begin[3].split())),
        )
        if not rest[0]:
            return frame, None
        values = _numbers([float(field) if field else math.nan for field in rest[2:]])
        box, pose, (face, plausibility) = values[:4], values[4:7], values[7:9]
        points = values[9:].reshape(-1, 2)
        return frame, TrackedFace(
            int(rest[0]), points, pose, box, float(face), float(plausibility), int(rest[1])
        )
    except (ValueError, csv.Error) as error:
        raise FormatError(f"line {number} is no row of tracked faces ({error})") from error


_Reader = Callable[[Iterator[tuple[int, str]]], Iterator[TrackedFrame]]
#: Suffix → what writes and what reads it.
_FORMATS: dict[str, tuple[type[TrackWriter], _Reader]] = {
    ".jsonl": (_JsonLines, _read_json_lines),
    ".csv": (_Csv, _read_csv),
}


def _format(path: str | os.PathLike[str]) -> tuple[type[TrackWriter], _Reader]:
    suffix = Path(path).suffix
    if suffix.lower() not in _FORMATS:
        raise ValueError(
            f"{path}: no format of tracks has the suffix {suffix!r}; "
            f"use one of {', '.join(sorted(_FORMATS))}"
        )
    return _FORMATS[suffix.lower()]


def write_tracks(path: str | os.PathLike[str], *, n_points: int | None = None) -> TrackWriter:
    """Write tracked frames, one by one.

    A file of this name is replaced when the block begins.

    Parameters
    ----------
    path : path
        The suffix chooses the format: ``.jsonl`` or ``.csv``, both on top of
        :mod:`asmkit.track_files`.
    n_points : int, optional
        Number of landmarks of a face, which CSV needs for its header. Without it the file begins
        with the first face, and the frames before wait in memory. JSON lines do without.

    Returns
    -------
    TrackWriter
        A context manager with the method ``write(frame)``.

    Raises
    ------
    ValueError
        For another suffix; and from ``write``, into CSV, for faces of different numbers of
        landmarks, and outside of a ``with`` block.
    OSError
        When the file cannot be written; it holds the frames so far.

    Examples
    --------
    >>> with write_tracks("faces.jsonl") as file:  # doctest: +SKIP
    ...     for frame in track(frames, predictor):
    ...         file.write(frame)
    """
    return _format(path)[0](path, n_points)


def read_tracks(path: str | os.PathLike[str]) -> list[TrackedFrame]:
    """Read what :func:`write_tracks` wrote, to the last digit.

    A last line that is cut off is left out, with a warning.

    Raises
    ------
    FormatError
        When another line is damaged (its number is named) or the file is of another kind.
    ValueError
        For another suffix.
    OSError
        When the file cannot be read.
    """
    read = _format(path)[1]
    try:
        # Only \n ends a line: a stray \r must not make two of one.
        with Path(path).open(encoding="utf-8", newline="\n") as stream:
            return list(read(_whole_lines(stream, path)))
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is no text in UTF-8 ({error})") from error
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


def _whole_lines(stream: TextIO, path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(stream, start=1):
        if line.endswith("\n"):
            yield number, line
        else:
            warnings.warn(
                f"{path}: line {number}, the last, is cut off and was left out", stacklevel=4
            )
