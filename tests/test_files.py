"""Files and folders appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asmkit._files import new_folder, replacing


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def write_half(path: Path, stop: type[BaseException], other: Path | None = None) -> None:
    with replacing(path) as part:
        part.write_text("half")
        if other:
            other.write_text("of another program")
        raise stop


def fill_half(path: Path) -> None:
    with new_folder(path) as part:
        (part / "deep").mkdir()
        (part / "deep/file").write_text("half")
        raise KeyError


def test_a_file_appears_whole_with_its_folders(tmp_path: Path) -> None:
    with replacing(tmp_path / "a/b/file.txt") as part:
        assert part.parent == tmp_path / "a/b"
        assert part.suffix == ".txt"
        part.write_text("whole")
        assert not (tmp_path / "a/b/file.txt").exists()
    assert everything(tmp_path) == ["a", "a/b", "a/b/file.txt"]
    assert (tmp_path / "a/b/file.txt").read_text() == "whole"


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path: Path, stop: type[BaseException]) -> None:
    (tmp_path / "old.txt").write_text("old")
    for path in (tmp_path / "old.txt", tmp_path / "a/b/new.txt"):
        with pytest.raises(stop):
            write_half(path, stop)
    assert everything(tmp_path) == ["old.txt"]
    assert (tmp_path / "old.txt").read_text() == "old"


def test_a_failure_keeps_folders_that_others_use(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_half(tmp_path / "a/b/new.txt", KeyError, tmp_path / "a/mine.txt")
    assert everything(tmp_path) == ["a", "a/mine.txt"]


def test_permissions_follow_the_umask_and_stay(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        with replacing(tmp_path / "file") as part:
            part.write_text("x")
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
        (tmp_path / "file").chmod(0o604)
        with replacing(tmp_path / "file") as part:
            part.write_text("y")
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o604
    finally:
        os.umask(previous)


def test_what_stands_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(IsADirectoryError, match="is a folder"), replacing(tmp_path):
        pass
    with pytest.raises(OSError, match="file") as caught, replacing(tmp_path / "file/below/x.txt"):
        pass
    assert ".part" not in str(caught.value)
    assert everything(tmp_path) == ["file"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a/run"
    with pytest.raises(KeyError):
        fill_half(target)
    assert everything(tmp_path) == []
    with new_folder(target) as part:
        (part / "file").write_text("whole")
        assert not target.exists()
    assert everything(tmp_path) == ["a", "a/run", "a/run/file"]


def test_a_new_folder_takes_an_empty_place_only(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as part:
        (part / "file").write_text("x")
    for taken in (tmp_path / "empty", tmp_path / "empty/file"):
        with pytest.raises(FileExistsError, match="not empty"), new_folder(taken):
            pass
    assert everything(tmp_path) == ["empty", "empty/file"]
