"""Images: RGB uint8 arrays ``(height, width, 3)``, and the one crop that everything uses."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Literal

import cv2
import numpy as np
import numpy.typing as npt

from asmkit._files import replacing
from asmkit.boxes import apply_affine, invert_affine
from asmkit.errors import FormatError
from asmkit.packed_image import ImageSource, PackedImage

__all__ = [
    "as_image",
    "crop",
    "encode_image",
    "image_size",
    "read_image",
    "ready_for_crop",
    "shrink",
    "write_image",
]

Image = npt.NDArray[np.uint8]

# JPEG markers (ITU-T T.81, table B.1) and the EXIF tag that matters here.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APP1 = 0xE1
_ORIENTATION = 0x0112
_ON_ITS_SIDE = range(5, 9)

_PNG = b"\x89PNG\r\n\x1a\n"


def as_image(image: npt.ArrayLike, name: str = "image") -> Image:
    """Check that an array is an RGB image.

    Raises
    ------
    ValueError, TypeError
        When it is not ``(height, width, 3)`` uint8.
    """
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise ValueError(f"{name}: got shape {array.shape}, expected (height, width, 3), RGB")
    if array.dtype != np.uint8:
        raise TypeError(f"{name}: got dtype {array.dtype}, expected uint8 (0 to 255)")
    return array


def read_image(path: str | os.PathLike[str] | PackedImage) -> Image:
    """Read an image file, or one in a tar file.

    The EXIF orientation is applied. Grey becomes three equal channels, 16 bits are scaled to 8
    (65535 to 255), and transparency is dropped: the stored colours count.

    Returns
    -------
    ndarray (height, width, 3) uint8
        RGB.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    FormatError
        When the file is not an image that OpenCV can decode.
    """
    path = _source(path)
    return np.ascontiguousarray(_as_uint8(path, _decode(path))[..., ::-1])


def _source(path: str | os.PathLike[str] | PackedImage) -> ImageSource:
    return path if isinstance(path, PackedImage) else Path(path)


def _decode(path: ImageSource) -> npt.NDArray[Any]:
    """Decode pixels in OpenCV's order, blue first, in the depth of the file."""
    data = path.read_bytes()
    problem = f"it begins with {data[:8]!r}" if data else "it is empty"
    damage = _png_damage(data) if data.startswith(_PNG) else None
    try:
        # IMREAD_COLOR applies the EXIF orientation; IMREAD_UNCHANGED would not.
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
        whole = data and not damage
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if whole else None
    except cv2.error as error:
        pixels, problem = None, error.err
    if pixels is None:
        raise FormatError(
            f"{path}: cannot be decoded as an image ({damage or problem}); "
            "expected a whole JPEG, PNG, BMP, TIFF or WebP file"
        )
    return pixels


def _png_damage(data: bytes) -> str | None:
    """Tell what is wrong with the critical chunks of a PNG (ISO/IEC 15948, 5.3), if anything.

    libpng would say it on a line of its own that nobody can catch.
    """
    start = len(_PNG)
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        kind, sum_in_file = data[start + 4 : start + 8], int.from_bytes(data[end - 4 : end], "big")
        is_critical = kind[:1].isupper()
        if is_critical and zlib.crc32(memoryview(data)[start + 4 : end - 4]) != sum_in_file:
            return f"its chunk {kind!r} is damaged or cut off"
        if kind == b"IEND":
            return None
        start = end
    return "it is cut off"


def _as_uint8(path: ImageSource, pixels: npt.NDArray[Any]) -> Image:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    raise FormatError(f"{path}: holds {pixels.dtype} pixels; expected 8 or 16 bits a channel")


def write_image(path: str | os.PathLike[str], image: npt.ArrayLike) -> None:
    """Write an RGB image; the suffix chooses the format (``.png`` keeps every pixel).

    Raises
    ------
    ValueError, TypeError
        When ``image`` is not ``(height, width, 3)`` uint8, or the suffix is of no known format.
    """
    path, pixels = Path(path), as_image(image)
    check_image_suffix(path)
    data = encode_image(path.suffix, pixels)
    with replacing(path, durable=False) as temporary:
        temporary.write_bytes(data)


def check_image_suffix(path: str | os.PathLike[str]) -> None:
    """Check that :func:`write_image` knows the format that the suffix names.

    Raises
    ------
    ValueError
        When it does not.
    """
    suffix = Path(path).suffix
    if not suffix or not cv2.haveImageWriter(os.fspath(path)):
        raise ValueError(f"{path}: no image format has the suffix {suffix!r}; use .png or .jpg")


def encode_image(suffix: str, pixels: Image) -> bytes:
    """The bytes of an RGB image as a file with this suffix (``.png``, ``.jpg``)."""
    _, encoded = cv2.imencode(suffix, np.ascontiguousarray(pixels[..., ::-1]))
    return encoded.tobytes()


def image_size(path: str | os.PathLike[str] | PackedImage) -> tuple[int, int]:
    """Width and height in pixels of what :func:`read_image` gives for this file.

    Of a JPEG only the header is read; any other file is decoded.
    """
    source = _source(path)
    with _opened(source) as stream:
        size = _jpeg_size(stream)
    if size is None:
        height, width = read_image(source).shape[:2]
        return width, height
    return size


def _opened(source: ImageSource) -> BinaryIO:
    if isinstance(source, PackedImage):
        return io.BytesIO(source.read_bytes())
    return source.open("rb")


def _jpeg_size(stream: BinaryIO) -> tuple[int, int] | None:
    """Width and height in the header of a JPEG, turned by its EXIF orientation."""
    if stream.read(2) != b"\xff\xd8":
        return None
    on_its_side = False
    while len(segment := stream.read(4)) == 4 and segment[0] == 0xFF:
        body = stream.read(max(0, int.from_bytes(segment[2:], "big") - 2))
        if segment[1] == _APP1 and body.startswith(b"Exif\0\0"):
            on_its_side = _exif_orientation(body[6:]) in _ON_ITS_SIDE
        if segment[1] in _START_OF_FRAME and len(body) >= 5:
            height, width = struct.unpack(">HH", body[1:5])
            return (height, width) if on_its_side else (width, height)
    return None


def _exif_orientation(tiff: bytes) -> int:
    """Value of the tag Orientation (1 to 8; EXIF 2.3, 4.6.4), 1 where it is absent."""
    order: Literal["big", "little"] = "big" if tiff[:2] == b"MM" else "little"
    start = int.from_bytes(tiff[4:8], order)
    n_entries = int.from_bytes(tiff[start : start + 2], order)
    for at in range(start + 2, min(start + 2 + 12 * n_entries, len(tiff)), 12):
        if int.from_bytes(tiff[at : at + 2], order) == _ORIENTATION:
            return int.from_bytes(tiff[at + 8 : at + 10], order)
    return 1


def crop(image: npt.ArrayLike, affine: npt.ArrayLike, size: int) -> Image:
    """Cut a square out of an image by an affine map.

    Bilinear. Where the map shrinks by a factor of two or more, blocks of pixels are averaged
    first, so that no detail folds into noise. Beyond its border the image goes on as its last row
    or column. Training and prediction both use this function.

    Parameters
    ----------
    image : ndarray (height, width, 3) uint8
    affine : array_like (2, 3)
        Image to crop, as from :func:`asmkit.boxes.crop_transform`.
    size : int
        Width and height of the crop in pixels.

    Returns
    -------
    ndarray (size, size, 3) uint8

    Raises
    ------
    ValueError
        When ``image`` or ``affine`` has another shape, or ``affine`` is singular.
    """
    region, local = ready_for_crop(image, affine, size)
    warped = cv2.warpAffine(
        region, local, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return warped.astype(np.uint8, copy=False)


def ready_for_crop(
    image: npt.ArrayLike, affine: npt.ArrayLike, size: int, seen: npt.ArrayLike = ()
) -> tuple[Image, npt.NDArray[np.float64]]:
    """Find the part of an image that a crop needs, with blocks averaged where it shrinks.

    Parameters
    ----------
    image, affine, size
        As for :func:`crop`.
    seen : array_like (n, 2)
        Points of the image that the part must reach to as well.

    Returns
    -------
    region : ndarray (h, w, 3) uint8
    local : ndarray (2, 3)
        Region to crop.

    Raises
    ------
    ValueError
        As :func:`crop`.
    """
    pixels, matrix = as_image(image), np.asarray(affine, dtype=np.float64)
    if matrix.shape != (2, 3) or not np.isfinite(matrix).all():
        raise ValueError(f"affine: got {matrix.tolist()}, expected (2, 3) finite numbers")
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale == 0:
        raise ValueError(f"affine: {matrix.tolist()} cannot be inverted; is the box empty?")
    # No block is larger than the image, however large the box.
    factor = int(np.clip(1 / scale, 1, max(pixels.shape)))
    ends = (-0.5, size - 0.5)
    window = apply_affine(invert_affine(matrix), [(x, y) for x in ends for y in ends])
    reach = np.concatenate([window, np.reshape(seen, (-1, 2))])
    region, corner = _region(pixels, reach, margin=2 * factor)
    region = shrink(region, factor)
    offset = matrix[:, :2] @ (corner + (factor - 1) / 2) + matrix[:, 2]
    return region, np.column_stack([matrix[:, :2] * factor, offset])


def _region(
    pixels: Image, seen: npt.NDArray[np.float64], margin: int
) -> tuple[Image, npt.NDArray[np.float64]]:
    """Find the part of the image round points ``(n, 2)``, and its first pixel ``(x, y)``."""
    last = np.array([pixels.shape[1], pixels.shape[0]]) - 1
    low = np.clip(np.floor(seen.min(axis=0)) - margin, 0, last).astype(int)
    high = np.clip(np.ceil(seen.max(axis=0)) + margin, low, last).astype(int)
    return pixels[low[1] : high[1] + 1, low[0] : high[0] + 1], low.astype(np.float64)


def shrink(pixels: Image, factor: int) -> Image:
    """Replace blocks of ``factor`` × ``factor`` pixels by their mean.

    Where the blocks do not fit, the last row and column are repeated. Pixel ``u`` of the result is
    centred on pixel ``factor * u + (factor - 1) / 2`` of the image.
    """
    if factor == 1:
        return pixels
    height, width = pixels.shape[:2]
    padded = cv2.copyMakeBorder(
        pixels, 0, -height % factor, 0, -width % factor, cv2.BORDER_REPLICATE
    )
    size = (padded.shape[1] // factor, padded.shape[0] // factor)
    return cv2.resize(padded, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
