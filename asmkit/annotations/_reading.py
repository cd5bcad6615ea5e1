r"""What a reader may be told beside the path, and how it finds the images that a file names.

A name in an annotation file is somebody else's text, so it is followed only downwards: a relative
name without ``..`` is looked for below the folder of the file (or the folder of images that the
caller gives). Of any other name, absolute or climbing, only the last part is used: the image must
lie directly in that folder. Both ``/`` and ``\`` separate the parts, whatever the system.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from asmkit.annotations._annotation import Annotation
from asmkit.annotations._text import MAX_BYTES
from asmkit.errors import FormatError
from asmkit.packed_image import PackedImage

__all__ = [
    "DEFAULTS",
    "IMAGE_SUFFIXES",
    "ReadOptions",
    "check_size",
    "image_name",
    "images_by_stem",
    "known_size",
]

#: Suffixes of the images that belong to annotations; of two images with one name, the earlier wins.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")


@dataclass(frozen=True)
class ReadOptions:
    r"""What a reader may be told beside the path.

    Attributes
    ----------
    images : Path or None
        Folder in which the images are looked for; None: the folder of the annotation file.
    image_size : (int, int) or None
        Width and height of the images that are not found, where a format needs them.
    max_bytes : int or None
        Size of the largest file to read; None: the limit of its format.

    Raises
    ------
    ValueError
        When a size is not positive.
    """

    images: Path | None = None
    image_size: tuple[int, int] | None = None
    max_bytes: int | None = None
    _sizes: dict[tuple[Path, int, int], tuple[int, int]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.image_size is not None:
            check_size(self.image_size, "image_size")
        if self.max_bytes is not None and self.max_bytes < 1:
            raise ValueError(f"max_bytes: got {self.max_bytes}, expected a positive number")

    def limit(self, of_the_format: int = MAX_BYTES) -> int:
        """Most bytes to read."""
        return of_the_format if self.max_bytes is None else self.max_bytes

    def find_image(self, path: Path, name: str, subfolders: Sequence[str] = ("",)) -> Path | None:
        """Find the image that the file ``path`` calls ``name``; None where there is none."""
        given = PureWindowsPath(name)  # it reads both kinds of separator
        parts = (given.name,) if given.anchor or ".." in given.parts else given.parts
        if not parts or parts[-1] in ("", ".."):
            return None
        folder = path.parent if self.images is None else self.images
        candidates = (folder.joinpath(subfolder, *parts) for subfolder in subfolders)
        # Path.is_file raises where a name is too long; a damaged file may hold any name.
        found = (image for image in candidates if os.path.isfile(image))  # noqa: PTH113  # see above
        return next(found, None)

    def find_namesake(self, path: Path) -> Path | None:
        """Find the image that has the name of the file ``path`` itself."""
        found = (self.find_image(path, path.stem + suffix) for suffix in IMAGE_SUFFIXES)
        return next((image for image in found if image), None)

    def images_by_stem(self, path: Path) -> dict[str, Path]:
        """Images by their names without suffix, for a file ``path`` that names them so."""
        return images_by_stem(path.parent if self.images is None else self.images)

    def size_of(self, image: Path | None, where: str, why: str) -> tuple[int, int]:
        """Width and height of an image, which the format needs to place the points.

        Raises
        ------
        FormatError
            When there is no image, and the caller has not given the size.
        """
        size = self.image_size
        if image is not None:
            size = self._size_in(image)
        if size is None:
            raise FormatError(
                f"{where}: {why}, and the image is not there; put the image beside the file, name "
                "its folder by images, or give image_size=(width, height)"
            )
        return size

    def _size_in(self, image: Path) -> tuple[int, int]:
        from asmkit.images import image_size  # OpenCV is imported only where it is needed

        # A file may name one large image a thousand times; some are decoded to learn their size.
        state = image.stat()
        key = (image, state.st_mtime_ns, state.st_size)
        if key not in self._sizes:
            self._sizes[key] = image_size(image)
        return self._sizes[key]


DEFAULTS = ReadOptions()


def images_by_stem(folder: Path) -> dict[str, Path]:
    """Images of a folder by their names without suffix."""
    names = os.listdir(folder)  # noqa: PTH208  # a Path for each of 10 000 names takes 50 ms
    ranked = [
        (IMAGE_SUFFIXES.index(suffix.lower()), stem, suffix)
        for stem, suffix in map(os.path.splitext, names)
        if suffix.lower() in IMAGE_SUFFIXES and stem[0] != "."
    ]
    return {stem: folder / (stem + suffix) for _, stem, suffix in sorted(ranked, reverse=True)}


def check_size(size: tuple[int, int], name: str) -> None:
    """Refuse what is no width and height in pixels."""
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(f"{name}: got {size!r}, expected two positive whole numbers")


def known_size(annotation: Annotation, why: str) -> tuple[int, int]:
    """Width and height of the image of an annotation that is to be written.

    Raises
    ------
    ValueError
        When neither the size nor the image is known.
    """
    if annotation.image_size is not None:
        check_size(annotation.image_size, f"annotation {annotation.name!r}: image_size")
        return annotation.image_size
    if annotation.image is not None:
        from asmkit.images import image_size  # OpenCV is imported only where it is needed

        return image_size(annotation.image)
    raise ValueError(
        f"annotation {annotation.name!r}: {why}, and neither its image nor the size of that is "
        "known; give image_size=(width, height), or write another format"
    )


def image_name(path: Path, annotation: Annotation, subfolders: Sequence[str] = ("",)) -> str | None:
    """How the file ``path`` should call the image of an annotation, with ``/``; None: no image.

    Relative to the folder of the file, so that both can be moved together. Of an image that was
    not found the name is that which another file gave it; so of one in a tar file, or its name
    there.
    """
    if annotation.image is None or isinstance(annotation.image, PackedImage):
        name = annotation.attributes.get("image_name")
        if isinstance(name, str) and name.strip():
            return name
        return None if annotation.image is None else annotation.image.name
    folder = path.parent.resolve()
    # Only folders are resolved: an image that is a link is still that of its own name.
    image = annotation.image.parent.resolve() / annotation.image.name
    for subfolder in subfolders[::-1]:
        if image.is_relative_to(folder / subfolder):
            return image.relative_to(folder / subfolder).as_posix()
    try:
        return Path(os.path.relpath(image, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return image.as_posix()
