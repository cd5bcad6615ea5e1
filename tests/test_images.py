import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asmkit.boxes import apply_affine, crop_transform, invert_affine
from asmkit.errors import FormatError
from asmkit.images import as_image, crop, image_size, read_image, shrink, write_image


@pytest.fixture
def photo(rng):
    """A picture without fine detail, higher than wide, each corner its own colour."""
    noise = rng.uniform(0, 255, size=(48, 36, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return np.clip(smooth * 1.5 - 60, 0, 255).astype(np.uint8)


def encoded(suffix, pixels):
    return cv2.imencode(suffix, pixels)[1].tobytes()


def exif(orientation, order):
    entries = [(0x010F, 2, 1, 0), (0x0112, 3, 1, orientation)]
    tag = {">": b"MM", "<": b"II"}[order] + struct.pack(f"{order}HIH", 42, 8, len(entries))
    for name, kind, count, value in entries:
        tag += struct.pack(f"{order}HHIHH", name, kind, count, value, 0)
    return tag + bytes(4)


def jpeg_with_exif(pixels, tags):
    plain = encoded(".jpg", pixels[..., ::-1])
    body = b"Exif\0\0" + tags
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]


ORIENTED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image.transpose(1, 0, 2)[:, ::-1],
    7: lambda image: image.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda image: image.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
def test_read_gives_back_what_was_written(tmp_path, photo, suffix):
    path = tmp_path / "new folder" / f"photo{suffix}"
    write_image(path, photo)
    assert np.array_equal(read_image(path), photo)
    assert read_image(str(path)).flags["C_CONTIGUOUS"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_colours_are_red_green_blue(tmp_path):
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    write_image(tmp_path / "red.png", red)
    stored = cv2.imread(str(tmp_path / "red.png"))  # blue first
    assert (stored[0, 0] == [0, 0, 255]).all()
    assert (read_image(tmp_path / "red.png")[0, 0] == [255, 0, 0]).all()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_the_exif_orientation_is_applied(tmp_path, photo, orientation, order):
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg_with_exif(photo, exif(orientation, order)))
    upright = ORIENTED[orientation](photo)
    assert read_image(path).shape == upright.shape
    assert np.abs(read_image(path).astype(int) - upright).mean() < 4
    assert image_size(path) == upright.shape[1::-1]


@pytest.mark.parametrize(
    "tags", [exif(0, "<"), exif(9, ">"), exif(300, "<"), exif(6, "<")[:24], b""]
)
def test_an_exif_orientation_that_is_none_changes_nothing(tmp_path, photo, tags):
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg_with_exif(photo, tags))
    assert read_image(path).shape == photo.shape
    assert image_size(path) == (36, 48)


def test_grey_becomes_three_equal_channels(tmp_path, photo):
    path = tmp_path / "grey.png"
    path.write_bytes(encoded(".png", photo[..., 0]))
    assert np.array_equal(read_image(path), np.repeat(photo[..., :1], 3, axis=2))


def test_16_bits_become_8_by_rounding(tmp_path):
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    (tmp_path / "deep.png").write_bytes(encoded(".png", deep))
    expected = np.rint(deep / 257).astype(np.uint8)
    assert np.array_equal(read_image(tmp_path / "deep.png")[..., 0], expected)


def test_transparency_is_dropped(tmp_path, photo):
    alpha = np.zeros((48, 36, 1), np.uint8)
    (tmp_path / "clear.png").write_bytes(encoded(".png", np.dstack([photo[..., ::-1], alpha])))
    assert np.array_equal(read_image(tmp_path / "clear.png"), photo)


def test_float_pixels_are_refused(tmp_path, photo):
    (tmp_path / "light.tiff").write_bytes(encoded(".tiff", photo.astype(np.float32)))
    with pytest.raises(FormatError, match="float32 pixels; expected 8 or 16 bits"):
        read_image(tmp_path / "light.tiff")


def huge_png():
    def chunk(name, data):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version: 1\nn_points: 68\n{\n",
        b"\xff\xd8",
        b"\xff\xd8\xff\xe1\x00\x00",
        b"\xff\xd8\xff\xc0\x00\x04\x08",
        b"\xff\xd8\xff\xe1\x00\x08Exif\0\0",
        huge_png(),
    ],
    ids=["empty", "text", "jpeg start", "bad length", "short frame", "empty exif", "10 gigapixels"],
)
@pytest.mark.parametrize("reader", [read_image, image_size])
def test_what_is_no_image_is_named(tmp_path, reader, content):
    path = tmp_path / "face.jpg"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"face\.jpg: cannot be decoded as an image") as caught:
        reader(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_half_an_image_is_no_image(tmp_path, photo, suffix):
    whole = encoded(suffix, photo)
    (tmp_path / "half").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match="cannot be decoded"):
        read_image(tmp_path / "half")


def test_a_png_with_any_changed_byte_of_its_pixels_is_refused_silently(tmp_path, photo, rng, capfd):
    write_image(tmp_path / "whole.png", photo)
    whole = (tmp_path / "whole.png").read_bytes()
    first, last = whole.index(b"IDAT"), whole.index(b"IEND") - 4
    for at in rng.integers(first, last, 50):
        damaged = bytearray(whole)
        damaged[at] ^= 1 + rng.integers(255)
        (tmp_path / "damaged.png").write_bytes(damaged)
        with pytest.raises(FormatError, match=r"damaged\.png.*whole"):
            read_image(tmp_path / "damaged.png")
    assert capfd.readouterr().err == ""


def test_a_png_with_a_damaged_comment_is_read(tmp_path, photo):
    write_image(tmp_path / "whole.png", photo)
    whole = (tmp_path / "whole.png").read_bytes()
    at = whole.index(b"IDAT") - 4
    comment = struct.pack(">I4s5sI", 5, b"tEXt", b"a\0bcd", 12345)
    (tmp_path / "odd.png").write_bytes(whole[:at] + comment + whole[at:])
    assert (read_image(tmp_path / "odd.png") == photo).all()


@pytest.mark.parametrize("reader", [read_image, image_size])
def test_a_missing_image_is_a_missing_file(tmp_path, reader):
    with pytest.raises(FileNotFoundError, match=r"none\.jpg"):
        reader(tmp_path / "none.jpg")


def test_wrong_arrays_and_suffixes_are_not_written(tmp_path, photo):
    for wrong, error in ((photo[..., 0], ValueError), (photo / 255, TypeError)):
        with pytest.raises(error, match="image: got"):
            write_image(tmp_path / "photo.png", wrong)
    for name in ("photo.xyz", "photo"):
        with pytest.raises(ValueError, match="suffix"):
            write_image(tmp_path / name, photo)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_array_is_no_image():
    with pytest.raises(ValueError, match=r"\(0, 4, 3\)"):
        as_image(np.zeros((0, 4, 3), np.uint8))


def test_the_header_of_every_real_image_gives_its_size(data_dir):
    paths = [
        path
        for folder in ("300w/test_challenging_sample", "hands", "wings", "formats", "ceph")
        for path in sorted((data_dir / folder).rglob("*"))
        if path.suffix in {".jpg", ".jpeg", ".png", ".bmp"}
    ][::4]
    assert len(paths) > 20
    for path in paths:
        assert image_size(path) == read_image(path).shape[1::-1], path


@given(st.integers(1, 40), st.integers(-50, 50), st.integers(-50, 50))
def test_a_crop_by_whole_pixels_copies_them_and_repeats_the_border(size, left, top):
    rows, columns = np.mgrid[:30, :20].astype(np.uint8)
    image = np.stack([columns, rows, 100 + rows - columns], axis=-1)
    cut = crop(image, [[1, 0, -left], [0, 1, -top]], size)
    at_x = np.clip(np.arange(left, left + size), 0, 19)
    at_y = np.clip(np.arange(top, top + size), 0, 29)
    assert np.array_equal(cut, image[np.ix_(at_y, at_x)])


@pytest.mark.parametrize("scale", [3.0, 1.0, 0.6, 0.4, 0.19, 0.05])
@pytest.mark.parametrize("turn", [0.0, 0.4])
def test_a_crop_shows_the_image_where_the_map_says(scale, turn):
    # A plane of grey: whatever blocks are averaged, the value at a pixel centre is exact.
    rows, columns = np.mgrid[:400, :300]
    plane = np.stack([60 + 0.3 * columns, 220 - 0.35 * rows, 0 * rows + 77], axis=-1)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    size = 15
    offset = (size - 1) / 2 - linear @ [149.3, 201.6]
    matrix = np.column_stack([linear, offset])
    cut = crop(np.rint(plane).astype(np.uint8), matrix, size).astype(float)
    pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).reshape(-1, 2)
    x, y = apply_affine(invert_affine(matrix), pixels).T
    inside = (x > 30) & (x < 270) & (y > 30) & (y < 370)
    assert inside.sum() > 20
    expected = np.stack([60 + 0.3 * x, 220 - 0.35 * y, 0 * y + 77], axis=-1)[inside]
    assert np.abs(cut.reshape(-1, 3)[inside] - expected).max() < 1.1


def test_detail_that_a_crop_cannot_show_becomes_its_mean():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    for size in (20, 33, 100):
        cut = crop(stripes, crop_transform([0, 0, 511, 511], size, margin=0.9)[0], size)
        assert np.abs(cut.astype(float) - 127.5).max() < 45


def test_a_crop_sees_only_its_part_of_the_image(photo):
    wide = np.pad(photo, ((0, 500), (0, 900), (0, 0)))
    matrix = crop_transform([12, 20, 8, 8], 24)[0]
    assert np.array_equal(crop(wide, matrix, 24), crop(photo, matrix, 24))


@pytest.mark.parametrize("scale", [0.1, 0.3, 0.45, 2.0])
def test_what_lies_beyond_a_crop_does_not_change_its_pixels(rng, scale):
    image = rng.integers(0, 256, size=(200, 200, 3), dtype=np.uint8)
    matrix = [[scale, 0, -3.3 * scale], [0, scale, -7.7 * scale]]
    for size in range(3, 12):
        assert np.array_equal(crop(image, matrix, size), crop(image, matrix, 15)[:size, :size])


@pytest.mark.parametrize("box", [[-1e6, -1e6, 2e6, 2e6], [1e9, 1e9, 1, 1], [5, 5, 1e-9, 1e-9]])
def test_any_box_gives_a_crop_of_the_size_asked(photo, box):
    cut = crop(photo, crop_transform(box, 16)[0], 16)
    assert cut.shape == (16, 16, 3)
    assert cut.dtype == np.uint8


def test_an_image_that_may_not_be_changed_is_cropped_unchanged(photo):
    before = photo.copy()
    photo.flags.writeable = False
    crop(photo, crop_transform([0, 0, 40, 40], 16)[0], 16)
    crop(photo[::-1, ::-1], crop_transform([0, 0, 400, 400], 16)[0], 16)
    assert np.array_equal(photo, before)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), r"expected \(2, 3\)"),
        (np.full((2, 3), np.nan), "finite"),
        (np.zeros((2, 3)), "cannot be inverted"),
    ],
)
def test_a_crop_needs_an_invertible_map(photo, matrix, message):
    with pytest.raises(ValueError, match=message):
        crop(photo, matrix, 8)


@pytest.mark.parametrize("factor", [1, 2, 3, 7, 100])
def test_shrink_gives_the_means_of_blocks(photo, factor):
    height, width = photo.shape[:2]
    padded = np.pad(photo, ((0, -height % factor), (0, -width % factor), (0, 0)), mode="edge")
    rows, columns = padded.shape[0] // factor, padded.shape[1] // factor
    means = padded.reshape(rows, factor, columns, factor, 3).mean(axis=(1, 3))
    assert np.abs(shrink(photo, factor) - means).max() <= 0.5 + 1e-6
