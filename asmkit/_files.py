"""Leaf: files and folders appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["check_writable", "new_folder", "replacing"]


@contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block succeeds.

    The parent folder is created. When the block raises, the temporary file and the folders that
    were created for it are removed, and whatever stood at ``path`` is untouched. The temporary name
    keeps the suffix of ``path``, because several writers choose the format by it. A durable file
    also outlives a power cut, at some milliseconds a file: too much where a folder gets thousands
    of small ones.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; give the name of a file to write")
    with _parents(target):
        temporary = _temporary(target)
        try:
            yield temporary
            _keep_permissions(temporary, target)
            if durable:
                with temporary.open("rb") as written:
                    os.fsync(written.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise at once what :func:`replacing` would raise after the work; leaves nothing behind."""
    with suppress(_EnoughError), replacing(path, durable=False):
        raise _EnoughError


class _EnoughError(Exception):
    """Ends :func:`replacing` before anything takes the place of the file."""


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that takes its place when the block succeeds.

    Raises
    ------
    FileExistsError
        When something but an empty folder stands at ``path``.
    """
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists and is not empty; choose another folder")
    with _parents(target):
        temporary = target.parent / f".{target.name}.{os.getpid()}.part"
        with _naming(target):
            temporary.mkdir()
        try:
            yield temporary
            if target.exists():
                target.rmdir()
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


@contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Create the folders that lead to ``target``; remove them again when the block raises."""
    there = target.parent.is_dir()
    missing = [] if there else [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in missing:
            with suppress(OSError):  # another program has put something there
                folder.rmdir()
        raise


def _temporary(target: Path) -> Path:
    with _naming(target):
        handle, name = tempfile.mkstemp(
            prefix=f".{target.stem}.", suffix=f".part{target.suffix}", dir=target.parent
        )
    os.close(handle)
    return Path(name)


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Let an error name what the user asked for: a temporary name would say nothing to them."""
    try:
        yield
    except OSError as error:
        error.filename = str(target)
        raise


def _keep_permissions(temporary: Path, target: Path) -> None:
    # mkstemp makes files for the owner alone; a new file should follow the user's umask.
    if target.exists():
        mode = target.stat().st_mode & 0o777
    else:
        mask = os.umask(0)
        os.umask(mask)
        mode = 0o666 & ~mask
    temporary.chmod(mode)
