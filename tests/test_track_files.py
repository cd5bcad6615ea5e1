"""Tracks in files: read(write(x)) is x, at every moment and after every cut."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from asmkit.errors import FormatError
from asmkit.track_files import read_tracks, write_tracks
from asmkit.tracking import TrackedFace, TrackedFrame

SUFFIXES = pytest.mark.parametrize("suffix", [".jsonl", ".csv"])


def some_frames(seed: int = 0, n: int = 12, n_points: int = 5) -> list[TrackedFrame]:
    """Frames with none to three faces, some numbers of them NaN; the first two have none."""
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(n):
        faces = []
        for identity in range(0 if index < 2 else int(rng.integers(0, 4))):
            points = rng.normal(size=(n_points, 2)) * 10.0 ** rng.integers(-9, 9)
            points[rng.random(points.shape) < 0.1] = np.nan
            pose = rng.uniform(-180, 180, 3) if rng.random() < 0.7 else np.full(3, np.nan)
            face, plausibility = rng.random(2) if rng.random() < 0.5 else (np.nan, 1 / 3)
            faces.append(
                TrackedFace(
                    identity, points, pose, rng.normal(size=4), face, plausibility, index + 1
                )
            )
        lost = tuple(range(int(rng.integers(0, 3))))
        frames.append(TrackedFrame(index, index / 29.97, tuple(faces), rng.random() < 0.5, lost))
    return frames


def assert_same(first: Sequence[TrackedFrame], second: Sequence[TrackedFrame]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for name in ("index", "time", "detected", "lost"):
            assert getattr(one, name) == getattr(other, name)
        assert len(one.faces) == len(other.faces)
        for a, b in zip(one.faces, other.faces, strict=True):
            assert (a.identity, a.age) == (b.identity, b.age)
            for name in ("points", "pose", "box", "face", "plausibility"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name), strict=True)


def write_all(path: Path, frames: Sequence[TrackedFrame]) -> Path:
    with write_tracks(path) as file:
        for frame in frames:
            file.write(frame)
    assert file.n_written == len(frames)
    return path


@SUFFIXES
@pytest.mark.parametrize("seed", range(5))
def test_what_was_written_is_read(tmp_path: Path, suffix: str, seed: int) -> None:
    frames = some_frames(seed)
    assert_same(read_tracks(write_all(tmp_path / f"t{suffix}", frames)), frames)


@SUFFIXES
def test_no_frames_and_no_faces(tmp_path: Path, suffix: str) -> None:
    assert_same(read_tracks(write_all(tmp_path / f"none{suffix}", [])), [])
    frames = some_frames(n=2)
    assert_same(read_tracks(write_all(tmp_path / f"empty{suffix}", frames)), frames)


@SUFFIXES
def test_the_file_is_whole_after_every_frame(tmp_path: Path, suffix: str) -> None:
    frames = some_frames(3)
    begun = next(i for i, frame in enumerate(frames) if frame.faces)
    with write_tracks(tmp_path / f"t{suffix}") as file:
        for number, frame in enumerate(frames):
            file.write(frame)
            if suffix == ".jsonl" or number >= begun:  # the first face tells CSV its columns
                assert_same(read_tracks(tmp_path / f"t{suffix}"), frames[: number + 1])


def test_json_lines_cut_anywhere_hold_the_whole_lines(tmp_path: Path) -> None:
    frames = some_frames(1, n=5, n_points=2)
    path = write_all(tmp_path / "t.jsonl", frames)
    data = path.read_bytes()
    for end in range(0, len(data), 7):
        path.write_bytes(data[:end])
        n_whole = data[:end].count(b"\n")
        if data[:end].endswith(b"\n") or not end:
            assert_same(read_tracks(path), frames[:n_whole])
        else:
            with pytest.warns(UserWarning, match=f"line {n_whole + 1}, the last, is cut off"):
                assert_same(read_tracks(path), frames[:n_whole])


def test_csv_has_one_row_a_face_and_names_its_columns(tmp_path: Path) -> None:
    frames = some_frames(2)
    path = write_all(tmp_path / "t.csv", frames)
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == sum(max(1, len(frame.faces)) for frame in frames)
    faces = [face for frame in frames for face in frame.faces]
    told = [row for row in rows if row["identity"]]
    for row, face in zip(told, faces, strict=True):
        assert float(row["y4"] or "nan") == pytest.approx(face.points[4, 1], nan_ok=True, rel=0)
        assert float(row["pitch"] or "nan") == pytest.approx(face.pose[1], nan_ok=True, rel=0)


def test_csv_has_one_number_of_landmarks(tmp_path: Path) -> None:
    frames = [*some_frames(4), *some_frames(4, n_points=6)]
    with pytest.raises(ValueError, match=r"6 landmarks among faces of 5.*use \.jsonl"):
        write_all(tmp_path / "t.csv", frames)


@SUFFIXES
def test_damage_is_named_by_its_line(tmp_path: Path, suffix: str) -> None:
    path = write_all(tmp_path / f"t{suffix}", some_frames(n=6))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], "nonsense\n", *lines[3:]]))
    with pytest.raises(FormatError, match=rf"t\{suffix}: line 3 is no"):
        read_tracks(path)


def test_files_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"use one of \.csv, \.jsonl"):
        write_tracks(tmp_path / "t.json")
    with pytest.raises(FileNotFoundError):
        read_tracks(tmp_path / "gone.csv")
    (tmp_path / "other.csv").write_text("a,b,c\n1,2,3\n")
    with pytest.raises(FormatError, match="line 1 is not the header"):
        read_tracks(tmp_path / "other.csv")
    (tmp_path / "other.jsonl").write_text('{"image": "a.jpg", "faces": []}\n')
    with pytest.raises(FormatError, match="line 1"):
        read_tracks(tmp_path / "other.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00\n")
    with pytest.raises(FormatError, match="UTF-8"):
        read_tracks(tmp_path / "bytes.jsonl")
