"""``asmkit track`` from the source to its last line; the faces are bright squares."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

import asmkit.predictor
import asmkit.tracking
from asmkit import open_frames, read_tracks, write_video
from asmkit.cli import main
from asmkit.images import write_image
from asmkit.model import ShapeModel
from asmkit.predictor import Prediction, Predictor

Image = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]

#: Landmarks in the square.
FACE = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5], [0.3, 0.6]])


def picture(t: int) -> Image:
    frame = np.zeros((96, 160, 3), np.uint8)
    if t < 8:
        frame[24:56, 16 + 4 * t : 48 + 4 * t] = 255
    return frame


def detect(image: Image) -> Doubles:
    rows, columns = np.nonzero(image[..., 0] > 128)
    if not rows.size:
        return np.zeros((0, 4))
    low, high = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()])
    return np.array([[*low, *(high - low)]], dtype=np.float64)


class Square(Predictor):
    """Finds the square, wherever it is; is interrupted in a frame that the test names."""

    interrupted: int | None = None

    def __init__(self, shapes: Path) -> None:
        description = {"n_points": len(FACE), "scheme": None}
        found = shapes if shapes.is_file() else None
        super().__init__(lambda crops: [], description, "none", found)
        self._seen = 0

    def predict(
        self, image: npt.ArrayLike, boxes: npt.ArrayLike | None = None, **options: Any
    ) -> Prediction:
        self._seen += 1
        if self._seen == self.interrupted:
            raise KeyboardInterrupt
        given = np.asarray(boxes, dtype=np.float64)
        found = detect(np.asarray(image))
        points = np.full((len(given), *FACE.shape), np.nan)
        if len(found):
            points[:] = found[0, :2] + FACE * found[0, 2:]
        return Prediction(
            points, np.full((len(given), 3), np.nan), given, np.full(len(given), np.nan)
        )


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    with write_video(tmp_path / "clip.avi", 20) as out:
        for t in range(12):
            out.write(picture(t))
    return tmp_path / "clip.avi"


@pytest.fixture
def track(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """The command with the square's own network and detector, run in the folder of the test."""
    found = functools.partial(asmkit.tracking.track, detect=detect)
    monkeypatch.setattr(asmkit.tracking, "track", found)
    beside = tmp_path / "run" / "shape_model.npz"
    monkeypatch.setattr(asmkit.predictor, "load", lambda *_, **__: Square(beside))
    (tmp_path / "run").mkdir()

    def invoke(*arguments: str | Path) -> Result:
        monkeypatch.chdir(tmp_path)
        return CliRunner().invoke(main, ["track", *map(str, arguments), "--network", "run"])

    return invoke


def test_a_video_becomes_tracks_and_a_video(
    track: Callable[..., Result], clip: Path, tmp_path: Path
) -> None:
    result = track(clip, "--out", "t.jsonl", "--video", "seen.avi")
    assert result.exit_code == 0, result.output
    # The square is gone in the last four of twelve frames.
    expected = "12 frames (66.7 % with a face), 5 runs of the detector, 1 identity, "
    assert f"{clip}: {expected}" in result.output
    frames = read_tracks(tmp_path / "t.jsonl")
    assert [len(frame.faces) for frame in frames] == [1] * 8 + [0] * 4
    assert [frame.time for frame in frames] == [pytest.approx(t / 20) for t in range(12)]
    for frame in frames[:8]:
        assert np.abs(frame.faces[0].box - [16 + 4 * frame.index, 24, 31, 31]).max() <= 1
    with open_frames(tmp_path / "seen.avi") as drawn:
        assert (drawn.fps, drawn.size, len(list(drawn))) == (20.0, (160, 96), 12)


def test_csv_and_json_lines_hold_the_same(
    track: Callable[..., Result], clip: Path, tmp_path: Path
) -> None:
    for name in ("t.jsonl", "t.csv"):
        assert track(clip, "--out", name, "--smooth").exit_code == 0
    first, second = read_tracks(tmp_path / "t.jsonl"), read_tracks(tmp_path / "t.csv")
    assert [f.index for f in first] == [f.index for f in second] == list(range(12))
    np.testing.assert_array_equal(first[5].faces[0].points, second[5].faces[0].points)


def test_a_folder_of_images_and_a_limit(track: Callable[..., Result], tmp_path: Path) -> None:
    for t in range(5):
        write_image(tmp_path / "images" / f"{t}.png", picture(t))
    result = track("images", "--out", "t.jsonl", "--max-frames", "3")
    assert "images: 3 frames (100.0 % with a face), 1 run of the detector" in result.output
    assert len(read_tracks(tmp_path / "t.jsonl")) == 3


def test_ctrl_c_keeps_what_was_done(
    track: Callable[..., Result], clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Square, "interrupted", 7)  # two passes in frame 0, so in frame 5
    result = track(clip, "--out", "t.csv", "--video", "seen.mp4")
    assert result.exit_code == 130
    assert "stopped; 5 frames" in result.output
    assert "kept: t.csv, seen.mp4" in result.output
    assert len(read_tracks(tmp_path / "t.csv")) == 5
    assert len(list(open_frames(tmp_path / "seen.mp4"))) == 5


def test_the_model_of_the_run_is_used(
    track: Callable[..., Result], clip: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    assert track(clip, "--constrain").exit_code == 2
    shapes = FACE + rng.normal(0, 0.02, (50, *FACE.shape))
    ShapeModel(n_components=2).fit(shapes).save(tmp_path / "run" / "shape_model.npz")
    result = track(clip, "--constrain", "--out", "t.jsonl")
    assert result.exit_code == 0, result.output
    face = read_tracks(tmp_path / "t.jsonl")[0].faces[0]
    assert 0.5 < face.plausibility <= 1
    model = ShapeModel.load(tmp_path / "run" / "shape_model.npz")
    np.testing.assert_allclose(model.constrain(face.points), face.points, atol=1e-6)


def test_a_truncated_video_is_told(track: Callable[..., Result], clip: Path) -> None:
    chunks = clip.read_bytes().split(b"00dc")
    clip.write_bytes(b"00dc".join(chunks[:7]))
    result = track(clip)
    assert result.exit_code == 0
    assert "Warning" in result.output
    assert "expected 12 frames, got" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.mp4"], "gone.mp4: no such file or folder"),
        (["clip.avi", "--out", "t.json"], "use one of .csv, .jsonl"),
        (["clip.avi", "--video", "t.gif"], "no video format has the suffix '.gif'"),
        (["clip.avi", "--video", "clip.avi"], "--video clip.avi is also SOURCE"),
        (["clip.avi", "--model", "gone.npz"], "gone.npz: no such file"),
        (["991"], "camera 991: cannot be opened"),
    ],
)
def test_wrong_arguments_are_one_line(
    track: Callable[..., Result], clip: Path, arguments: list[str], message: str
) -> None:
    result = track(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1
    assert clip.is_file()
