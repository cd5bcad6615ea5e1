"""Every example runs as a program, without data and, where it takes some, with real data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SLOW = ("05_train_asmnet", "07_track_video")
#: Take a photo, not a folder.
OF_ONE_PHOTO = ("06_predict_photo",)
LEAVES = {
    "02_shape_model": {"model.npz", "modes.png"},
    "03_smooth_labels": {"smoothed"},
    "05_train_asmnet": {"run"},
    "06_predict_photo": {"prediction.png"},
    "07_track_video": {"tracks.jsonl", "tracked.mp4"},
}


def run(example: Path, folder: Path, *arguments: object) -> str:
    result = subprocess.run(
        [sys.executable, str(example), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    return result.stdout


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(path, marks=pytest.mark.slow if path.stem in SLOW else (), id=path.stem)
        for path in EXAMPLES
    ],
)
def test_an_example_runs_without_data(example: Path, tmp_path: Path) -> None:
    assert run(example, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == LEAVES.get(example.stem, set())


@pytest.mark.parametrize(
    "example",
    [path for path in EXAMPLES if path.stem not in (*SLOW, *OF_ONE_PHOTO)],
    ids=lambda path: path.stem,
)
def test_an_example_runs_on_real_faces(example: Path, data_dir: Path, tmp_path: Path) -> None:
    assert run(example, tmp_path, data_dir / "300w" / "test_common")


def test_examples_are_numbered_short_and_explained() -> None:
    assert [int(path.name[:2]) for path in EXAMPLES] == list(range(1, len(EXAMPLES) + 1))
    for path in EXAMPLES:
        lines = path.read_text("utf-8").splitlines()
        assert len(lines) < 40
        assert f"python examples/{path.name}" in lines[2]
