"""Where the real data is, and what the tests share."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("asmkit", deadline=None)
settings.load_profile("asmkit")


def _data_folder() -> Path:
    named = os.environ.get("ASMKIT_DATA")
    return Path(named) if named else Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data; tests that need it skip where it is absent."""
    folder = _data_folder()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set ASMKIT_DATA to its folder")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20210227)


@pytest.fixture
def no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the export, which takes longer than a small training and has its own tests."""
    monkeypatch.setattr("asmkit.nn.export.export_onnx", lambda *args: None)
