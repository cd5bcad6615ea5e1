"""Leaf: versioned ``.npz`` files without pickle, read as if they came from a stranger."""

from __future__ import annotations

import io
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asmkit._files import replacing
from asmkit.errors import FormatError

__all__ = ["read_npz", "write_npz"]

#: Larger files are refused: a thousand times a usual model.
MAX_BYTES = 1 << 30

#: What the standard library raises on a damaged or hostile archive or header.
_DAMAGE = (
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def write_npz(
    path: str | os.PathLike[str], kind: str, version: int, arrays: Mapping[str, npt.ArrayLike]
) -> None:
    """Write arrays to ``path``, whole or not at all, marked with what the file holds."""
    with replacing(path) as part, zipfile.ZipFile(part, "w") as archive:
        for name, values in {"kind": kind, "version": version, **arrays}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(values), allow_pickle=False)


def read_npz(
    path: str | os.PathLike[str],
    kind: str,
    version: int,
    names: tuple[str, ...],
    optional: tuple[str, ...] = (),
) -> dict[str, npt.NDArray[Any]]:
    """Read the named arrays of a file that :func:`write_npz` wrote, the optional where it has them.

    Raises
    ------
    FormatError
        When the file is not such a file, is damaged, too large or from a newer asmkit.
    OSError
        When it cannot be opened.
    """
    file = Path(path)
    # All of it before the zip reader starts: from here on an OSError means damage, not the disk.
    content = _content(file)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if _text(_array(archive, "kind")) != kind:
                raise ValueError(f"it does not hold a {kind}")
            found = int(_array(archive, "version"))
            if not 1 <= found <= version:
                raise ValueError(
                    f"it has version {found}, this asmkit knows 1 to {version}: update asmkit"
                )
            present = set(archive.namelist())
            wanted = [*names, *(name for name in optional if f"{name}.npy" in present)]
            return {name: _array(archive, name) for name in wanted}
    except _DAMAGE as error:
        raise FormatError(
            f"{file}: expected the file of an {kind} (.npz), but {_reason(error)}"
        ) from error


def _content(file: Path) -> bytes:
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > MAX_BYTES:
            raise FormatError(f"{file}: has {size} bytes; expected at most {MAX_BYTES}")
        return stream.read(size)


def _text(array: npt.NDArray[Any]) -> str:
    return str(array) if array.dtype.kind == "U" else ""


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0] if error.args else 'a part is missing'}"
    return str(error) or type(error).__name__


def _array(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    # np.load would allocate whatever a header claims; here the claim must match the bytes.
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"'{name}' is compressed in an unusual way")
    if entry.file_size > MAX_BYTES:
        raise ValueError(f"'{name}' claims {entry.file_size} bytes, more than {MAX_BYTES}")
    with archive.open(entry) as member:
        stream = io.BytesIO(member.read())
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[np.lib.format.read_magic(stream)]
    shape, fortran, dtype = read_header(stream)
    left = stream.getbuffer().nbytes - stream.tell()
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != left:
        raise ValueError(
            f"the header of '{name}' ({shape}, {dtype}) does not match its {left} bytes"
        )
    values = np.frombuffer(stream.getvalue(), dtype, offset=stream.tell())
    return values.reshape(shape, order="F" if fortran else "C").copy()
