"""Leaf: an image that lies inside a tar file, read where it lies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from asmkit.errors import FormatError

__all__ = ["ImageSource", "PackedImage"]


@dataclass(frozen=True)
class PackedImage:
    """An image inside a tar file, which :func:`asmkit.read_image` takes as it takes a path.

    It holds no open file: each reading opens the tar file, goes to the image and reads nothing
    else, so that any number of threads and processes may read at once.

    Attributes
    ----------
    shard : Path
        The tar file.
    member : str
        Name of the image in it.
    offset, size : int
        Where the bytes of the image begin in the tar file, and how many they are.
    shard_size : int
        Bytes of the tar file when it was looked through: another file there is refused.
    """

    shard: Path
    member: str
    offset: int
    size: int
    shard_size: int

    def __str__(self) -> str:
        return f"{self.shard}/{self.member}"

    @property
    def name(self) -> str:
        """Name of the image without folders, as of a path."""
        return PurePosixPath(self.member).name

    @property
    def stem(self) -> str:
        """Name without folders and suffix, as of a path."""
        return PurePosixPath(self.member).stem

    @property
    def suffix(self) -> str:
        """Suffix with its dot, as of a path."""
        return PurePosixPath(self.member).suffix

    def read_bytes(self) -> bytes:
        """The encoded image.

        Raises
        ------
        FileNotFoundError
            When the tar file is gone.
        FormatError
            When it is of another size than when it was looked through.
        """
        with self.shard.open("rb", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(self.offset)
            data = bytearray()
            while len(data) < self.size and (piece := stream.read(self.size - len(data))):
                data += piece
        if size != self.shard_size or len(data) < self.size:
            raise FormatError(
                f"{self}: the shard has {size} bytes, but had {self.shard_size} when it was read; "
                "it has been replaced since: read its annotations again"
            )
        return bytes(data)


#: Where an image is: a file of its own, or a part of a tar file.
ImageSource = Path | PackedImage
