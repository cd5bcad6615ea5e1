"""What a tar file holds and where, by its headers alone: nothing is extracted.

POSIX ustar and pax (IEEE Std 1003.1, pax, "ustar Interchange Format"), and GNU's long names. Only
what holds data is given; a link or device is refused, since nobody has a use for it in a shard. A
claim that the bytes of the file do not bear out is an error before it costs anything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from asmkit.errors import FormatError

__all__ = ["BLOCK", "Member", "members"]

BLOCK = 512
#: An extended header holds names and times.
_MOST_EXTENDED = 2**16
_OCTAL = re.compile(rb"[ ]*([0-7]+)[ \0]*", re.ASCII)
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
_FILES, _FOLDER, _LONG_NAME, _EXTENDED, _OF_ALL = (b"0", b"\0", b"7"), b"5", b"L", b"x", b"g"
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a named pipe",
    b"K": "a link with a long name",
    b"S": "a sparse file",
    b"M": "a part of a file of another volume",
}


class Member(NamedTuple):
    """A file in a tar file: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


def members(stream: BinaryIO, path: Path) -> Iterator[Member]:
    """Files of an open tar file in their order; folders are left out.

    The stream may be moved between two of them.

    Raises
    ------
    FormatError
        When the file is cut off, compressed or no tar file; or a member is no plain file, or has a
        name that leads out of a folder.
    """
    end = os.fstat(stream.fileno()).st_size
    at, extended = 0, dict[str, str]()
    while True:
        stream.seek(at)
        header = stream.read(BLOCK)
        if len(header) < BLOCK:
            raise FormatError(_no_header(path, at, header))
        if not header.strip(b"\0"):
            break
        if not _is_header(header):
            raise FormatError(_no_header(path, at, header))
        kind = header[156:157]
        name = extended.get("path") or _short_name(header)
        where = f"{path}, member {name[:80]!r}"
        size = _size(header, extended, where)
        at += BLOCK
        if at + size > end:
            raise FormatError(
                f"{where}: says {size} bytes, but {max(0, end - at)} follow; the shard is "
                "truncated: copy or write it again"
            )
        if kind in (_LONG_NAME, _EXTENDED):
            extended |= _extension(stream, kind, size, where)
        elif kind in _FILES and not name.endswith("/"):
            yield Member(_safe(name, where), at, size)
        elif kind not in (*_FILES, _FOLDER, _OF_ALL):
            what = _REFUSED.get(kind, f"of the unknown kind {kind!r}")
            raise FormatError(f"{where}: is {what}; expected plain files: leave it out")
        if kind not in (_LONG_NAME, _EXTENDED, _OF_ALL):
            extended = {}
        at += -(-size // BLOCK) * BLOCK
    # Two tar files in a row would lose the second in silence; the rest of a record is empty.
    if stream.read(20 * BLOCK).strip(b"\0"):
        raise FormatError(
            f"{path}: goes on after its end (two tar files in a row?); write it as one"
        )


def _is_header(header: bytes) -> bool:
    """Whether the sum of a header is the one it states, its own field counted as blanks."""
    stated = _OCTAL.fullmatch(header[148:156])
    return stated is not None and int(stated[1], 8) == sum(header) - sum(header[148:156]) + 256


def _no_header(path: Path, at: int, header: bytes) -> str:
    if at == 0 and header[:2] in _COMPRESSED:
        return (
            f"{path}: is compressed by {_COMPRESSED[header[:2]]}, so nothing in it can be read by "
            "itself; decompress it"
        )
    if len(header) < BLOCK and at:
        return f"{path}: ends at byte {at + len(header)} without the end of a tar file: truncated"
    return f"{path}: no header of a tar file at byte {at}; it is damaged, or no tar file"


def _short_name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0]
    if prefix and header[257:263] == b"ustar\0":  # GNU's own headers keep other things there
        name = prefix + b"/" + name
    return name.decode("utf-8", "replace")


def _size(header: bytes, extended: dict[str, str], where: str) -> int:
    stated = _OCTAL.fullmatch(header[124:136])
    size = int(stated[1], 8) if stated else None
    if "size" in extended:
        given = extended["size"]
        size = int(given) if re.fullmatch("[0-9]{1,18}", given, re.ASCII) else None
    if size is None:
        raise FormatError(f"{where}: its size is no number of less than 8 GiB")
    return size


def _extension(stream: BinaryIO, kind: bytes, size: int, where: str) -> dict[str, str]:
    """What an extended header says of the member that follows."""
    if size > _MOST_EXTENDED:
        raise FormatError(f"{where}: an extended header of {size} bytes, expected a few names")
    data = stream.read(size)
    if kind == _LONG_NAME:
        return {"path": data.rstrip(b"\0").decode("utf-8", "replace")}
    found = {}
    while data.strip(b"\0"):
        length, _, _ = data[:8].partition(b" ")
        record = data[: int(length)] if length.isdigit() else b""
        key, equals, value = record[len(length) + 1 :].partition(b"=")
        if not equals or not value.endswith(b"\n") or key.startswith(b"GNU.sparse"):
            raise FormatError(f"{where}: an extended header that is damaged, or of a sparse file")
        found[key.decode("utf-8", "replace")] = value[:-1].decode("utf-8", "replace")
        data = data[len(record) :]
    return found


def _safe(name: str, where: str) -> str:
    """``name`` without ``./`` before it; refused where it leads anywhere but downwards."""
    parts = [part for part in re.split(r"[/\\]", name) if part != "."]
    if not parts or parts[0] == "" or ".." in parts or parts[0][1:2] == ":" or "\0" in name:
        raise FormatError(
            f"{where}: its name is absolute or holds '..'; expected one such as a.jpg"
        )
    return "/".join(parts)
