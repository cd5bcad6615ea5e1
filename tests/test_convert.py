"""``asmkit convert``: every format into every other, whole or not at all."""

import itertools

import numpy as np
import pytest
from click.testing import CliRunner
from format_files import ABILITIES, NAMES, SIZE, annotations, sample

from asmkit.annotations import FORMATS, Annotation, read, write
from asmkit.cli import main
from asmkit.images import write_image


def convert(*arguments):
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


def succeed(*arguments):
    result = convert(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def fail(*arguments):
    result = convert(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    return result.stderr


WHOLE = [[1.0, 2.0], [30.0, 40.0], [5.0, 60.0]]


@pytest.mark.parametrize(
    ("source", "target"),
    [pair for pair in itertools.product(NAMES, NAMES) if "wflw" not in pair],
)
def test_any_format_becomes_any_other(tmp_path, source, target):
    old = tmp_path / f"old{FORMATS[source].suffixes[0]}"
    new = tmp_path / f"new{FORMATS[target].suffixes[0]}"
    face = Annotation(WHOLE, image_size=SIZE, attributes={"image_name": "a.png"})
    write(old, [face], format=source)
    if source in ("pts", "ljson", "lm2", "nts"):  # these name no image: one stands beside
        write_image(tmp_path / "old.png", np.zeros((*SIZE[::-1], 3), np.uint8))
    needs_a_name = target in ("dlib", "coco", "stasm", "muct")
    options = ["--from", source, "--to", target, "--image-size", "640,480"]
    if source == "nts" and needs_a_name:
        assert "has no image" in fail(old, new, *options)
        return
    assert succeed(old, new, *options) == f"{new}: 1 annotations\n"
    (back,) = read(new, format=target, image_size=SIZE)
    np.testing.assert_allclose(back.points, WHOLE, rtol=0, atol=1e-12)


def test_many_in_a_file_become_a_folder_named_after_the_images_and_back(tmp_path):
    names = ["a.png", "b.png", "b.png", "sub/c.png"]
    faces = [
        Annotation(np.add(WHOLE, i), attributes={"image_name": n}) for i, n in enumerate(names)
    ]
    write(tmp_path / "faces.csv", faces)
    output = succeed(tmp_path / "faces.csv", tmp_path / "folder")
    assert output == f"{tmp_path / 'folder'}: 4 annotations in 4 files\n"
    back = read(tmp_path / "folder")
    assert [one.name for one in back] == ["a", "b_1", "b_2", "c"]
    for one, face in zip(back, faces, strict=True):
        assert np.array_equal(one.points, face.points)
    succeed(tmp_path / "folder", tmp_path / "again.csv")
    again = read(tmp_path / "again.csv")
    assert [one.points.tolist() for one in again] == [face.points.tolist() for face in faces]


def test_a_folder_of_one_format_becomes_a_folder_of_another(tmp_path):
    faces = [Annotation(np.add(WHOLE, i), name=f"f{i}") for i in range(3)]
    write(tmp_path / "old", faces)
    succeed(tmp_path / "old", tmp_path / "new", "--to", "ljson")
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [
        f"f{i}.ljson" for i in range(3)
    ]
    assert "tps" in fail(tmp_path / "old", tmp_path / "third", "--to", "tps")
    assert "neither its image" in fail(tmp_path / "old", tmp_path / "third", "--to", "asf")
    assert not (tmp_path / "third").exists()


def test_nothing_is_replaced_unless_it_is_asked_for(tmp_path):
    path = sample(tmp_path, "csv")
    out = tmp_path / "out.nts"
    out.write_text("precious")
    assert f"{out} is there already" in fail(path, out)
    assert out.read_text() == "precious"
    succeed(path, out, "--overwrite")
    assert len(read(out)) == len(annotations("csv"))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "face1.pts").write_text("precious")
    (folder / "other.pts").write_text("1 1")
    assert "face1.pts is there already" in fail(path, folder)
    assert sorted(file.name for file in folder.iterdir()) == ["face1.pts", "other.pts"]
    succeed(path, folder, "--overwrite")
    assert [one.name for one in read(folder)] == ["face0", "face1", "other"]


def test_an_output_that_cannot_be_written_whole_leaves_what_was_there(tmp_path):
    path = sample(tmp_path, "csv")  # with missing points, and parts of pixels
    out = tmp_path / "out.xml"
    out.write_text("precious")
    assert "--round" in fail(path, out, "--overwrite")
    assert out.read_text() == "precious"
    succeed(path, out, "--overwrite", "--round")
    for one, other in zip(read(out), read(path), strict=True):
        assert np.array_equal(one.points, np.rint(other.points), equal_nan=True)
    before = sorted(tmp_path.iterdir())
    assert "missing" in fail(path, tmp_path / "new", "--to", "asf", "--image-size", "9,9")
    assert sorted(tmp_path.iterdir()) == before


def test_images_of_another_folder_are_found_and_named_from_the_output(tmp_path):
    write_image(tmp_path / "photos" / "a.png", np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "a.tps").write_text("LM=1\n1 2\nIMAGE=a.png\n")
    assert "the image is not there" in fail(tmp_path / "a.tps", tmp_path / "a.csv")
    succeed(tmp_path / "a.tps", tmp_path / "a.csv", "--images", tmp_path / "photos")
    assert (tmp_path / "a.csv").read_text() == "image,x0,y0\nphotos/a.png,1.0,46.0\n"
    succeed(tmp_path / "a.csv", tmp_path / "photos" / "a.json")
    (face,) = read(tmp_path / "photos" / "a.json", require_images=True)
    assert face.attributes["image_name"] == "a.png"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.csv", "out.csv"), "none.csv: no such file or folder"),
        (("bad.csv", "out.xml"), "the header is 'bad'"),
        (("good.csv", "out.xyz"), "no annotation format has the suffix '.xyz'"),
        (("good.csv", "out.csv", "--to", "xls"), "no annotation format is called 'xls'"),
        (("good.csv", "out.csv", "--from", "xls"), "no annotation format is called 'xls'"),
        (("good.csv", "out.csv", "--from", "dlib"), "expected XML"),
        (("good.csv", "out.tps"), "counts y from the bottom"),
        (("good.csv", "out.tps", "--image-size", "9x9"), "'9x9', expected WIDTH,HEIGHT"),
        (("good.csv", "out.tps", "--image-size", "0,9"), "two positive whole numbers"),
        (("good.csv", "good.csv"), "is there already"),
        (("good.csv", "out.csv", "--max-mebibytes", "0"), "--max-mebibytes"),
    ],
)
def test_bad_input_gives_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.csv").write_text("image,x0,y0\n,1,2\n")
    (tmp_path / "bad.csv").write_text("bad\n")
    before = sorted(tmp_path.iterdir())
    assert message in fail(*arguments)
    assert sorted(tmp_path.iterdir()) == before


def test_a_larger_file_is_read_when_it_is_allowed(tmp_path):
    points = np.arange(2 * 40_000.0).reshape(-1, 2)
    table = "image," + ",".join(f"x{i},y{i}" for i in range(len(points)))
    row = "," + ",".join(f"{value:.1f}" for value in points.ravel())
    (tmp_path / "a.csv").write_text(f"{table}\n{row}\n")
    assert "larger than 1 MiB" in fail(tmp_path / "a.csv", tmp_path / "b.nts", "--max-mebibytes", 1)
    succeed(tmp_path / "a.csv", tmp_path / "b.nts", "--max-mebibytes", 2)
    assert np.array_equal(read(tmp_path / "b.nts")[0].points, points)


def test_the_abilities_cover_every_format():
    assert set(ABILITIES) == set(NAMES)
