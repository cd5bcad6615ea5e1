"""Shards: what was written is read, training from them is training from files, damage is named."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import asmkit
from asmkit.annotations import Annotation, _text, read, write, write_shards
from asmkit.boxes import landmark_box
from asmkit.cli import main
from asmkit.datasets import synthetic_faces
from asmkit.errors import FormatError
from asmkit.images import image_size, read_image, shrink, write_image
from asmkit.packed_image import PackedImage

PARTS = ("name", "scheme", "labels", "image_size", "attributes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces")
    synthetic_faces(12, 3, size=64).save(path)
    return path


@pytest.fixture(scope="module")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The faces of the folder in several shards."""
    out = tmp_path_factory.mktemp("sharded") / "shards"
    assert len(write_shards(out, read(folder), shard_bytes=50_000)) > 2
    return out


def same(one: Annotation, other: Annotation) -> bool:
    arrays = [(getattr(one, name), getattr(other, name)) for name in ("box", "visibility")]
    return (
        np.array_equal(one.points, other.points, equal_nan=True)
        and all((a is None) == (b is None) and np.array_equal(a, b) for a, b in arrays)
        and all(getattr(one, name) == getattr(other, name) for name in PARTS)
    )


def tar_of(path: Path, *files: tuple[str | tarfile.TarInfo, bytes]) -> Path:
    """A shard of any members, in the format that Python's tarfile prefers."""
    with tarfile.open(path, "w") as shard:
        for name, data in files:
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    return path


PIXEL = b"no image, but nobody looks"
POINTS = b'{"points": [[1, 2]]}'


# ---------------------------------------------------------------- what was written is read


def test_reading_gives_back_what_was_written(tmp_path: Path, rng: np.random.Generator) -> None:
    write_image(tmp_path / "a.b.PNG", rng.integers(0, 255, (9, 7, 3), np.uint8))
    plain = Annotation(rng.normal(size=(5, 3)) * 1e3, image=tmp_path / "a.b.PNG", name="list:7")
    full = replace(
        plain,
        points=[[1 / 3, np.nan], [np.nan, np.nan], [-0.0, 1e-300]],
        name="ü.b c",
        box=[1.5, 2, 30, 1 / 3],
        visibility=[True, False, True],
        labels=("chin", "", "ñ"),
        image_size=(7, 9),
        scheme="my own",
        attributes={"euler": (1.0, -2.5, 1 / 3), "flags": {"blur": True, "by": None}, "n": 3},
    )
    long = replace(plain, points=np.full((2, 2), np.nan), name="x" * 180)
    written = [plain, full, long]
    write_shards(tmp_path / "out", written)
    write(tmp_path / "one.tar", written)
    for source in (tmp_path / "out", tmp_path / "out/data-00000.tar", tmp_path / "one.tar"):
        found = read(source, require_images=True)
        assert all(map(same, found, written))
        for one in found:
            assert isinstance(one.image, PackedImage)
            assert one.image.read_bytes() == (tmp_path / "a.b.PNG").read_bytes()
            assert image_size(one.image) == (7, 9)
    again = tmp_path / "again"
    write_shards(again, read(tmp_path / "out"))
    for name in ("data-00000.tar", "index.json"):
        assert (again / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_what_json_cannot_hold_of_the_attributes_is_left_out(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8))
    odd = {"array": np.array([1.0, np.nan]), "object": object(), "deep": [1, object()], "n": 1}
    write(tmp_path / "a.tar", [Annotation([[1, 2]], tmp_path / "a.png", name="a", attributes=odd)])
    assert read(tmp_path / "a.tar")[0].attributes == {"array": (1.0, None), "n": 1}


def test_tarfile_reads_shards_and_they_hold_nothing_of_the_machine(
    folder: Path, shards: Path
) -> None:
    index = json.loads((shards / "index.json").read_text())
    names = []
    for entry in index["shards"]:
        content = (shards / entry["name"]).read_bytes()
        assert entry["bytes"] == len(content) <= 50_000 + 20 * 512
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        with tarfile.open(shards / entry["name"]) as shard:
            found = shard.getmembers()
            assert len(found) == 2 * entry["samples"]
            for member in found:
                assert member.isreg()
                assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
                assert (member.uname, member.gname) == ("", "")
                data = shard.extractfile(member).read()
                if member.name.endswith(".png"):
                    assert data == (folder / member.name).read_bytes()
                else:
                    points = json.loads(data)["points"]
                    (face,) = read(folder / member.name.replace(".json", ".pts"))
                    assert points == face.points.tolist()
            names += [member.name for member in found]
    assert index["samples"] == len(names) / 2 == 12
    assert names == sorted(names)


def test_shards_of_other_programs_are_read(tmp_path: Path) -> None:
    """Folders, times as fractions, long names of both kinds, other files, files in any order."""
    long = "deep/" + "x" * 300
    late = tarfile.TarInfo("./b/1.JPG")
    late.mtime = 1.5  # pax writes this in a header of its own
    root = tarfile.TarInfo("./")
    root.type = tarfile.DIRTYPE
    files = (
        *((root, b""), (late, PIXEL), ("b/1.extra.pkl", b"never read"), ("README", b"text")),
        *(("._b.jpg", b"of macOS"), (f"{long}.pts", b"3 4\n5 6\n"), (f"{long}.png", PIXEL)),
        ("b/1.json", b'\xef\xbb\xbf{"points": [null, [1, null, 2]], "caption": "?"}'),
    )
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=form) as shard:
            for name, data in files:
                member = tarfile.TarInfo(name) if isinstance(name, str) else name
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))
        one, two = read(tmp_path / "a.tar", require_images=True)
        assert (one.name, two.name) == ("1", "x" * 300)
        expected = [[np.nan] * 3, [1, np.nan, 2]]
        assert np.array_equal(one.points, expected, equal_nan=True)
        assert two.points.tolist() == [[2, 3], [4, 5]]
        assert one.image.read_bytes() == two.image.read_bytes() == PIXEL
        assert (one.image.name, one.image.stem, one.image.suffix) == ("1.JPG", "1", ".JPG")


def test_other_formats_name_the_image_of_a_sample(tmp_path: Path, shards: Path) -> None:
    faces = read(shards)
    write(tmp_path / "a.csv", faces)
    write(tmp_path / "a.ljson", faces[:1])
    back = read(tmp_path / "a.csv")
    assert back[3].attributes == {"image_name": "face_00003.png"}
    assert np.array_equal(back[3].points, faces[3].points)


# ---------------------------------------------------------------- crops


def test_a_crop_shows_the_same_pixels_at_the_same_points(folder: Path, tmp_path: Path) -> None:
    faces = [replace(face, box=landmark_box(face.points)) for face in read(folder)]
    write_shards(tmp_path / "out", faces, crop=1.2, max_side=24)
    for face, found in zip(faces, read(tmp_path / "out"), strict=True):
        x, y, factor = found.attributes["crop"]
        kept, whole = read_image(found.image), read_image(face.image)
        assert found.image_size == image_size(found.image) == kept.shape[1::-1]
        assert max(kept.shape) <= 24 < max(whole.shape)
        side = 1.2 * max(face.box[2:])
        part = whole[y : y + factor * kept.shape[0], x : x + factor * kept.shape[1]]
        assert side <= max(part.shape) <= side + 3 + factor
        # The last block may reach beyond the square, where its border is repeated.
        inside = slice(0, kept.shape[0] - 1), slice(0, kept.shape[1] - 1)
        assert np.array_equal(kept[inside], shrink(part, factor)[inside])
        back = found.points * factor + (factor - 1) / 2 + [x, y]
        np.testing.assert_allclose(back, face.points, atol=1e-9)
        np.testing.assert_allclose(found.box, landmark_box(found.points), atol=1e-9)


def test_a_face_outside_of_its_photo_is_cropped_too(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", np.full((10, 20, 3), 7, np.uint8))
    face = Annotation([[-50.0, 3], [-40, 9]], tmp_path / "a.jpg", name="a")
    write_shards(tmp_path / "out", [face], crop=1.0)
    (found,) = read(tmp_path / "out")
    assert read_image(found.image).shape[1] == 1
    assert found.image.suffix == ".jpg"
    assert found.attributes["crop"] == (0, 1, 1)
    assert np.array_equal(found.points, face.points - [0, 1])
    for points in ([[1, 2, 3], [4, 5, 6]], [[np.nan, np.nan]], [[1, 2]]):
        with pytest.raises(ValueError, match="'a': no box of 2-D landmarks"):
            write_shards(tmp_path / "other", [replace(face, points=points)], crop=2.0)
    assert not (tmp_path / "other").exists()


# ---------------------------------------------------------------- training


def test_training_from_shards_is_training_from_files(
    folder: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where next to nothing fits into memory."""
    pytest.importorskip("torch")
    from tiny_training import TINY, digest

    from asmkit.nn import data, train

    monkeypatch.setattr("asmkit.nn.export.export_onnx", lambda *args: None)
    recipe = replace(TINY, epochs=2, batch_size=4)
    one = train(folder, tmp_path / "files", recipe, threads=1, progress=False)
    monkeypatch.setattr(data, "_CACHE_BYTES", 30_000)
    two = train(shards, tmp_path / "shards", recipe, threads=1, progress=False)
    assert digest(one) == digest(two)
    found = [
        asmkit.evaluate(asmkit.load(run, engine="torch"), read(source)).points
        for run, source in ((one, folder), (two, shards))
    ]
    assert np.array_equal(*found)


def test_memory_holds_no_more_than_the_limit(
    folder: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from tiny_training import TINY

    from asmkit.nn import data

    files = data.LandmarkDataset(read(folder), TINY, None)
    packed = data.LandmarkDataset(read(shards), TINY, None)
    files.load()
    most = sum(face.pixels.nbytes for face in files._cache.values()) // 3
    monkeypatch.setattr(data, "_CACHE_BYTES", most)
    packed.load()
    for one, other in zip(data.batches(files, None, 0), data.batches(packed, None, 0), strict=True):
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))
    kept = [face.pixels for face in packed._cache.values()]
    assert 0 < sum(pixels.nbytes for pixels in kept) <= most
    assert all(pixels.base is None for pixels in kept)  # no view, which would keep a whole photo


def test_each_process_reads_its_part(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from tiny_training import TINY

    from asmkit.nn.preparation import prepare
    from asmkit.nn.processes import Processes

    faces = read(shards)
    names: list[str] = []
    plain = PackedImage.read_bytes

    def counted(image: PackedImage) -> bytes:
        names.append(image.name)
        return plain(image)

    monkeypatch.setattr(PackedImage, "read_bytes", counted)
    read_by = []
    for rank in range(3):
        names.clear()
        parts = prepare(faces, replace(TINY, validation=0.5), False, None, Processes(rank, 3))
        read_by.append(set(names))
        assert parts.validation is not None
        watched = {face.image.name for face in parts.validation.annotations}
        assert (watched <= read_by[rank]) == (rank == 0)
    assert sum(map(len, read_by)) == len(set.union(*read_by)) == len(faces)


def test_the_command_line_goes_from_files_to_shards_to_a_shape_model(
    folder: Path, shards: Path, tmp_path: Path
) -> None:
    def run(*arguments: object) -> str:
        result = CliRunner().invoke(main, [*map(str, arguments)])
        return result.output if result.exit_code == 0 else f"refused: {result.output}"

    out, small = tmp_path / "out", tmp_path / "small"
    convert = ("convert", folder, out, "--to", "shards")
    assert run(*convert, "--shard-size", "1GiB") == f"{out}: 12 annotations in 1 shards\n"
    assert run("convert", shards, small, "--to", "shards", "--crop", 1.5, "--max-side", 30)
    assert image_size(read(small)[0].image) <= (30, 30)
    assert "is not empty" in run(*convert)
    assert "--overwrite does not go with shards" in run(*convert, "--overwrite")
    assert "expected a size such as" in run(*convert[:2], small, *convert[3:], "--shard-size", "9")
    assert "need a folder OUT" in run("convert", folder, tmp_path / "a.csv", "--crop", 2)
    assert "12 shapes" in run("model", "fit", out, "-o", tmp_path / "m.npz")
    assert "12 smoothed shapes" in run("smooth", tmp_path / "m.npz", out, "-o", tmp_path / "s")
    assert np.array_equal(
        asmkit.ShapeModel.load(tmp_path / "m.npz").mean_,
        asmkit.ShapeModel(0.98).fit(asmkit.read_shapes(folder)).mean_,
    )


# ---------------------------------------------------------------- what is refused


def test_what_no_shard_can_hold_is_not_written(folder: Path, tmp_path: Path) -> None:
    face = read(folder)[0]
    for bad, message in (
        ([], "no annotations"),
        ([face, face], "would both be called 'face_00000'"),
        ([replace(face, name="a.b"), replace(face, name="a:b")], "would both be called 'a_b'"),
        ([replace(face, name="../a")], "does not make a file name"),
        ([replace(face, name="")], "does not make a file name"),
        ([replace(face, image=None)], "'face_00000' has no image"),
        ([replace(face, image="a.gif")], "none of the suffixes"),
    ):
        with pytest.raises(ValueError, match=message):
            write_shards(tmp_path / "out", bad)
    with pytest.raises(FileNotFoundError):
        write_shards(tmp_path / "out", [face, replace(face, image="no.png", name="b")])
    for option in ({"shard_bytes": 0}, {"crop": 0.5}, {"max_side": 0}):
        with pytest.raises(ValueError, match=next(iter(option))):
            write_shards(tmp_path / "out", [face], **option)
    assert not list(tmp_path.iterdir())
    (tmp_path / "precious").write_text("")
    with pytest.raises(FileExistsError):
        write_shards(tmp_path, [face])


def refusal(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 600
    return message


def test_a_member_that_is_not_what_it_should_be_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    pair = (("a.png", PIXEL), ("a.json", POINTS))
    for files, message in (
        ([("a.jpg", PIXEL)], r"sample 'a': no points; expected a member a.json"),
        ([("a.jpg", PIXEL), ("a.pyd", b"")], "pickles are never read"),
        ([("a.json", POINTS)], r"sample 'a': no image; expected a member a.jpg"),
        ([*pair, pair[0]], r"member 'a.png': the sample has the image 'a.png' already"),
        ([*pair, ("a.jpg", PIXEL)], "has the image 'a.png' already"),
        ([*pair, pair[1]], r"member 'a.json': the sample has points already"),
        ([*pair, ("a.pts", b"1 1")], "has points already"),
        ([*pair, ("../b.jpg", PIXEL)], r"member '../b.jpg': its name is absolute or holds"),
        ([("b/../../c.json", POINTS)], "absolute or holds"),
        ([("/etc/a.json", POINTS)], "absolute or holds"),
        ([("C:\\a.json", POINTS)], "absolute or holds"),
        ([("a\n.json", b"{}")], r"'a\\n.json': holds no points"),
        ([("README", b"")], "no sample in it"),
        ([("a.json", b"[1]")], "member 'a.json': got list, expected an object"),
        ([("a.json", b'{"points": [[1, 2], [3]]}')], "points of 2 and of 1 numbers"),
        ([("a.json", b'{"points": [[1, "2"]]}')], "expected numbers"),
        ([("a.json", b'{"points": [[1, 1e999]]}')], "too large"),
        ([("a.json", b"[" * 99_999)], "nested too deeply"),
        ([*pair[:1], ("a.json", b'{"points": []}')], "sample 'a': points"),
        ([("a.json", POINTS[:-1] + b', "box": [1, 2]}'), pair[0]], "sample 'a': box"),
        ([("a.json", POINTS[:-1] + b', "visibility": [1]}')], "true or false"),
        ([("a.json", POINTS[:-1] + b', "image_size": [1, 0]}')], "two positive whole numbers"),
        ([("a.json", POINTS[:-1] + b', "name": 1}')], "expected a text"),
        ([("a.pts", b"n_points: 9\n{\n1 1\n}")], "member 'a.pts': the header says n_points: 9"),
    ):
        found = refusal(tar_of(path, *files))
        assert re.search(message, found), found


def test_links_and_devices_are_refused_and_nothing_is_extracted(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    before = sorted(os.walk(tmp_path))
    for kind, name in (
        *((tarfile.SYMTYPE, "a symbolic link"), (tarfile.LNKTYPE, "a hard link")),
        *((tarfile.CHRTYPE, "a character device"), (tarfile.BLKTYPE, "a block device")),
        *((tarfile.FIFOTYPE, "a named pipe"), (b"Z", "unknown kind b'Z'")),
    ):
        link = tarfile.TarInfo("a.json")
        link.type, link.linkname = kind, "/etc/passwd"
        path = tar_of(tmp_path / "in/a.tar", ("b.png", PIXEL), ("b.json", POINTS), (link, b""))
        assert f"member 'a.json': is {name}" in refusal(path).replace("of the ", "")
        path.unlink()
    assert sorted(os.walk(tmp_path)) == before


def with_header(data: bytes, **fields: bytes) -> bytes:
    """A tar file with other fields in its first header, whose sum is right again."""
    places = {"size": 124, "kind": 156, "sum": 148}
    header = bytearray(data[:512])
    for name, value in fields.items():
        header[places[name] : places[name] + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


def test_a_claim_costs_no_memory(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", ("a.json", POINTS), ("a.png", PIXEL))
    whole = path.read_bytes()
    tracemalloc.start()
    for fields, message in (
        ({"size": b"77777777777\0"}, "says 8589934591 bytes, but .* follow.*truncated"),
        ({"size": b"\x80" + b"\xff" * 11}, "its size is no number of less than 8 GiB"),
        ({"size": b"-0000000001\0"}, "its size is no number"),
        ({"size": b"77777777777\0", "kind": b"x"}, "truncated"),
        ({"kind": b"x"}, "extended header that is damaged"),
        ({"kind": b"S"}, "is a sparse file"),
    ):
        path.write_bytes(with_header(whole, **fields))
        assert re.search(message, refusal(path)), message
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_pax_headers_are_bounded(tmp_path: Path) -> None:
    for key, message in (
        ({"path": "x" * 70_000}, "an extended header of 7"),
        ({"size": "9" * 18}, "says 9"),
        ({"size": "-1"}, "its size is no number"),
        ({"path": "../a.json"}, "absolute or holds"),
        ({"GNU.sparse.major": "1"}, "a sparse file"),
    ):
        with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as shard:
            member = tarfile.TarInfo("a.json")
            member.size, member.pax_headers = len(POINTS), key
            shard.addfile(member, io.BytesIO(POINTS))
        assert message in refusal(tmp_path / "a.tar")


def test_limits_of_points_and_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = POINTS[:-1] + b', "x": "' + b"y" * (8 * 2**20) + b'"}'
    path = tar_of(tmp_path / "a.tar", ("a.json", big), ("a.png", PIXEL))
    assert "more than 8 MiB of points" in refusal(path)
    assert len(read(path, max_bytes=9 * 2**20)) == 1
    monkeypatch.setattr(_text, "MAX_ANNOTATIONS", 1)
    tar_of(path, ("a.json", POINTS), ("b.json", POINTS))
    assert "more than the 1 annotations" in refusal(path)


def test_a_shard_cut_anywhere_is_refused(shards: Path, tmp_path: Path) -> None:
    whole = (shards / "data-00000.tar").read_bytes()
    path = tmp_path / "a.tar"
    end = len(whole.rstrip(b"\0"))
    for stop in [0, 1, 511, 512, 513, *np.linspace(514, end, 25, dtype=int).tolist()]:
        path.write_bytes(whole[:stop])
        assert "truncated" in refusal(path) or stop < 512
    path.write_bytes(whole + whole)
    assert "goes on after its end" in refusal(path)
    for start, name in ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd")):
        path.write_bytes(start + whole)
        assert f"is compressed by {name}" in refusal(path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=40), st.integers(0, 6000), st.integers(0, 6000))
def test_any_damage_is_read_or_refused(tmp_path: Path, junk: bytes, start: int, end: int) -> None:
    path = tmp_path / "a.tar"
    if not path.exists():
        tar_of(path, ("a.json", POINTS), ("a.png", PIXEL), ("b.pts", b"1 1"), ("b.png", PIXEL))
    whole = path.read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[:start] + junk + whole[end:])
    refused, found = "", []
    try:
        found = read(tmp_path / "b.tar")
    except FormatError as error:
        refused = str(error)
    assert found or str(tmp_path / "b.tar") in refused
    assert "\n" not in refused
    assert all(one.image.offset + one.image.size <= 12_000 for one in found)


def test_a_folder_that_was_half_copied_is_no_smaller_set(shards: Path, tmp_path: Path) -> None:
    names = sorted(file.name for file in shards.iterdir())
    for name in names:
        (tmp_path / name).write_bytes((shards / name).read_bytes())
    assert all(map(same, read(tmp_path), read(shards)))
    index = tmp_path / "index.json"
    last = tmp_path / names[-2]
    content = last.read_bytes()
    last.write_bytes(content[:-512])
    with pytest.raises(FormatError, match=rf"{last}: has .* bytes, but {len(content)} by index"):
        read(tmp_path)
    last.unlink()
    with pytest.raises(FormatError, match=f"the shard '{last.name}' is not there"):
        read(tmp_path)
    last.write_bytes(content)
    (tmp_path / "more.tar").write_bytes(content)
    with pytest.raises(FormatError, match=r"more.tar: is not in index.json"):
        read(tmp_path)
    for broken in ('{"format": "asmkit-shards", "version": 2}', '{"format": "asmkit-shards",'):
        index.write_text(broken)
        with pytest.raises(FormatError, match=r"index\.json"):
            read(tmp_path)
    index.write_text("{}")  # of another program
    assert len(read(tmp_path)) > 12


def test_an_image_is_not_read_from_another_shard(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", ("a.json", POINTS), ("a.png", PIXEL))
    (one,) = read(path)
    with pytest.raises(FormatError, match=r"a.tar/a.png: cannot be decoded as an image"):
        read_image(one.image)
    path.write_bytes(path.read_bytes() + bytes(512))
    with pytest.raises(FormatError, match=r"a.tar/a.png: .* has been replaced since"):
        read_image(one.image)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_image(one.image)
