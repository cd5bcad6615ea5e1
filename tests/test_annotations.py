import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import asmkit
from asmkit.annotations import Annotation, pts, read, read_shapes, wflw, write
from asmkit.errors import FormatError

TRIANGLE = np.array([[0.0, 0.0], [4.5, 0.25], [-1.0, 3.0]])
TRIANGLE_PTS = "version: 1\nn_points: 3\n{\n1 1\n5.5 1.25\n0 4\n}\n"

one_folder = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
point_sets = st.sampled_from([2, 3]).flatmap(
    lambda d: arrays(
        np.float64,
        array_shapes(min_dims=1, max_dims=1, max_side=9).map(lambda shape: (*shape, d)),
        elements=st.floats(-1e6, 1e6) | st.just(np.nan),
    )
)


def pts_file(folder, content, name="face.pts"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def wflw_line(points, image, rectangle="10 20 110 140", flags="0 1 0 0 1 0"):
    numbers = " ".join(map(repr, np.asarray(points, float).ravel().tolist()))
    return " ".join(filter(None, [numbers, rectangle, flags, image]))


@pytest.fixture
def face98(rng):
    return rng.uniform(0, 200, size=(98, 2))


# ---------------------------------------------------------------- Annotation


def test_an_annotation_checks_and_converts_its_parts():
    annotation = Annotation([[1, 2], [3, 4]], "a.jpg", box=[0, 0, 5, 5], visibility=[1, 0])
    assert annotation.points.dtype == annotation.box.dtype == np.float64
    assert annotation.visibility.tolist() == [True, False]
    assert annotation.image.name == "a.jpg"
    assert "points" not in repr(annotation)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"points": [[1, 2]], "labels": ("a", "b")}, "2 labels for 1 points"),
        ({"points": [1, 2]}, r"points: got shape \(2,\)"),
        ({"points": [[1, np.inf]]}, "infinite"),
        ({"points": np.zeros((0, 2))}, "without any point"),
        ({"points": [[1, 2]], "box": [1, 2, 3]}, "box of annotation 'a'"),
        ({"points": [[1, 2]], "box": np.zeros((2, 4))}, "2 boxes, expected one"),
        ({"points": [[1, 2]], "visibility": [1, 0]}, r"shape \(2,\), expected \(1,\)"),
        ({"points": [[1, 2]], "scheme": "ibug68"}, "1 points, but the scheme ibug68 has 68"),
    ],
)
def test_contradictory_parts_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        Annotation(**parts, name="a")


def test_a_scheme_of_ones_own_is_accepted():
    assert Annotation(TRIANGLE, scheme="triangle").scheme == "triangle"


# ---------------------------------------------------------------- .pts


@pytest.mark.parametrize(
    "text",
    [
        TRIANGLE_PTS,
        TRIANGLE_PTS.replace("\n", "\r\n"),
        TRIANGLE_PTS.replace("\n", "\r"),
        "\ufeff" + TRIANGLE_PTS,
        TRIANGLE_PTS.rstrip(),
        "version: 1.0\nn_points:  3\n{ \n1\t1\n 5.5   1.25 \n\n0 4\n}\n\n",
        "VERSION:1\nN_POINTS:3\n{\n1 1\n5.5 1.25\n0 4\n}",
        "version : 1\nn_points : 3\n{\n1 1\n5.5 1.25\n0 4\n}",
        "n_points: 3 {\n1 1\n5.5 1.25\n0 4 }",
        "n_points: 003\n{1 1\n5.5 1.25\n0 4}",
        "{\n1 1\n5.5 1.25\n0 4\n}\n",
        "1 1\n5.5 1.25\n0 4\n",
        "version: 1\nn_points: 3\n1 1\n5.5 1.25\n0 4\n",
        "# n_points: 9\nversion: 1 // by hand\nn_points: 3\n{\n1 1 # nose\n#\n5.5 1.25\n0 4\n}",
        "version: 1\nn_points: 3\nimage: face.jpg\n{\n1e0 +1\n5.5 125e-2\n0.0 4.\n}\n",
    ],
)
def test_every_way_of_writing_a_pts_file_is_read(tmp_path, text):
    (annotation,) = read(pts_file(tmp_path, text))
    assert np.array_equal(annotation.points, TRIANGLE)
    assert annotation.name == "face"
    assert annotation.image is None
    assert annotation.scheme is None


def test_comments_in_an_old_encoding_do_no_harm(tmp_path):
    path = pts_file(tmp_path, b"# Gr\xfc\xdfe\n" + TRIANGLE_PTS.encode())
    assert np.array_equal(read(path)[0].points, TRIANGLE)


def test_peer_defect_d18_the_first_pixel_is_1_on_disk_and_0_in_memory(tmp_path):
    (annotation,) = read(pts_file(tmp_path, "n_points: 1\n{\n1 1\n}"))
    assert annotation.points.tolist() == [[0, 0]]
    write(tmp_path / "back.pts", [annotation])
    assert "\n1.0 1.0\n" in (tmp_path / "back.pts").read_text()


def test_peer_defect_d11_nothing_of_a_pts_file_is_lost(tmp_path):
    (solid,) = read(pts_file(tmp_path, "n_points: 2\n{ 1 2 3\n4 5 6.125\n}"))
    assert solid.points.tolist() == [[0, 1, 3], [3, 4, 6.125]]  # z is no pixel index
    with pytest.raises(FormatError, match="n_points: 3, but 2 points follow"):
        read(pts_file(tmp_path, "n_points: 3\n{\n1 2\n3 4\n}"))
    exact = Annotation([[1 / 3, np.pi]])
    write(tmp_path / "exact.pts", [exact])
    assert np.abs(read(tmp_path / "exact.pts")[0].points - exact.points).max() < 1e-15


HOSTILE = {
    "empty": (b"", "holds no points"),
    "blank": (b" \n\n", "holds no points"),
    "header only": (b"version: 1\nn_points: 3\n", "holds no points"),
    "no closing brace": (b"n_points: 3\n{\n1 1\n2 2\n3 3\n", r"no '}' .* truncated"),
    "no opening brace": (b"n_points: 1\n1 1\n}\n", "no '{'"),
    "empty braces": (b"n_points: 0\n{\n}\n", "holds no points"),
    "too few": (b"n_points: 3\n{\n1 1\n2 2\n}\n", "n_points: 3, but 2 points follow"),
    "too many": (b"n_points: 1\n{\n1 1\n2 2\n}\n", "n_points: 1, but 2 points follow"),
    "odd count": (b"n_points: x\n{\n1 1\n}\n", "n_points: x, but 1"),
    "huge count": (b"n_points: " + b"9" * 5000 + b"\n{\n1 1\n}\n", "n_points: 9{20}, but 1"),
    "cut line": (b"n_points: 2\n{\n1 1\n2\n}\n", r"point 2 has 1 number\(s\)"),
    "mixed": (b"n_points: 2\n{\n1 1\n2 2 2\n}\n", r"point 2 has 3 number\(s\)"),
    "one column": (b"1\n2\n", r"point 1 has 1 number\(s\)"),
    "four columns": (b"1 2 3 4\n", r"point 1 has 4 number\(s\)"),
    "two sets": (b"{\n1 1\n}\n{\n2 2\n}\n", "text after the closing brace"),
    "words": (b"n_points: 1\n{\nfoo bar\n}\n", "could not convert string to float: 'foo'"),
    "long word": (b"{\n1 " + b"x" * 10_000 + b"\n}", "expected numbers only"),
    "comma": (b"{\n1,5 2,5\n}", "could not convert"),
    "infinite": (b"{\n1 inf\n}", "infinite"),
    "overflow": (b"{\n1 1e999\n}", "infinite"),
    "jpeg": (b"\xff\xd8\xff\xe0\x00\x10JFIF", "NUL bytes"),
    "garbage": (bytes(range(1, 256)) * 3, "truncated|number|numbers"),
    "utf-16": (TRIANGLE_PTS.encode("utf-16"), "NUL bytes.*UTF-16"),
    "html": (b"<html><body>404</body></html>", "number"),
    "huge": (b"1 1\n" * (2 * 2**20 + 1), "larger than 8 MiB"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_damaged_pts_file_is_named_in_one_line(tmp_path, case):
    content, message = HOSTILE[case]
    with pytest.raises(FormatError, match=message) as caught:
        read(pts_file(tmp_path, content))
    assert str(tmp_path / "face.pts") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@one_folder
@given(st.binary(max_size=300))
def test_any_bytes_are_points_or_a_format_error(tmp_path, content):
    try:
        (annotation,) = read(pts_file(tmp_path, content))
    except FormatError:
        return
    assert annotation.points.shape[1] in (2, 3)


@pytest.mark.parametrize("share", np.linspace(0.05, 0.95, 10))
def test_a_file_cut_anywhere_is_refused(tmp_path, rng, share):
    write(tmp_path / "whole.pts", [Annotation(rng.normal(size=(68, 2)))])
    whole = (tmp_path / "whole.pts").read_bytes()
    with pytest.raises(FormatError):
        read(pts_file(tmp_path, whole[: int(share * len(whole))]))


@one_folder
@given(point_sets)
def test_pts_read_gives_back_what_was_written(tmp_path, points):
    path = tmp_path / "face.pts"
    write(path, [Annotation(points)])
    (back,) = read(path)
    shift = np.array([1, 1, 0])[: points.shape[1]]
    assert np.array_equal(back.points, points + shift - shift, equal_nan=True)
    write(path, [back])
    assert np.array_equal(read(path)[0].points, back.points, equal_nan=True)


def test_missing_points_are_nan(tmp_path):
    (annotation,) = read(pts_file(tmp_path, "n_points: 2\n{\nnan nan\n2 3\n}"))
    assert np.isnan(annotation.points).tolist() == [[True, True], [False, False]]


def test_a_pts_file_holds_one_annotation(tmp_path):
    with pytest.raises(ValueError, match=r"2 annotations, .* give a folder"):
        write(tmp_path / "two.pts", [Annotation(TRIANGLE)] * 2)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- WFLW


def test_two_faces_in_one_image_are_two_annotations(tmp_path, face98):
    (tmp_path / "images" / "1--Fair").mkdir(parents=True)
    image = tmp_path / "images" / "1--Fair" / "a b.jpg"
    image.touch()
    lines = [wflw_line(face98, "1--Fair/a b.jpg"), wflw_line(face98 + 5, "1--Fair/a b.jpg")]
    path = pts_file(tmp_path, "\n".join(lines), "list.txt")
    first, second = read(path)
    assert [first.name, second.name] == ["list:1", "list:2"]
    assert first.image == second.image == image
    assert np.array_equal(first.points, face98)
    assert np.array_equal(second.points, face98 + 5)
    assert first.box.tolist() == [10, 20, 100, 120]
    assert first.scheme == "wflw98"
    assert {flag: first.attributes[flag] for flag in wflw.FLAGS} == {
        "pose": False,
        "expression": True,
        "illumination": False,
        "make-up": False,
        "occlusion": True,
        "blur": False,
    }


def test_a_list_without_rectangles_is_read(tmp_path, face98):
    line = wflw_line(face98, "a.jpg", rectangle="", flags="")
    (face,) = read(pts_file(tmp_path, line + "\r\n\r\n", "list.txt"))
    assert np.array_equal(face.points, face98)
    assert face.box is None
    assert face.attributes == {"image_name": "a.jpg"}
    assert face.image is None


@pytest.mark.parametrize("folder", ["", "images", "WFLW_images"])
@pytest.mark.parametrize("long", [True, False])
def test_wflw_read_gives_back_what_was_written(tmp_path, rng, folder, long):
    root = tmp_path / folder
    root.mkdir(exist_ok=True)
    (root / "a.png").touch()
    flags = dict.fromkeys(wflw.FLAGS, False) | {"blur": True}
    faces = [
        Annotation(
            rng.normal(size=(98, 2)) * 100,
            image=root / "a.png",
            box=[1, 2, 30, 40] if long else None,
            attributes=flags if long else {},
        )
        for _ in range(3)
    ]
    faces[1].points[5] = np.nan
    write(tmp_path / "out.txt", faces)
    back = read(tmp_path / "out.txt", require_images=True)
    for face, again in zip(faces, back, strict=True):
        assert np.array_equal(again.points, face.points, equal_nan=True)
        assert again.image == face.image
        assert again.attributes == {"image_name": "a.png", **face.attributes}
        assert np.array_equal(again.box, face.box) if long else again.box is None
    write(tmp_path / "again.txt", back)
    assert (tmp_path / "again.txt").read_bytes() == (tmp_path / "out.txt").read_bytes()


def test_a_box_that_is_missing_in_a_list_is_that_of_the_points(tmp_path, face98):
    faces = [
        Annotation(face98, image="a.png", box=[1, 2, 3, 4]),
        Annotation(np.rint(face98), image="a.png"),
    ]
    write(tmp_path / "out.txt", faces)
    low, high = np.rint(face98).min(axis=0), np.rint(face98).max(axis=0)
    assert read(tmp_path / "out.txt")[1].box.tolist() == [*low, *(high - low)]


def test_an_image_elsewhere_is_named_from_the_list_and_found_where_it_is_said_to_be(
    tmp_path, face98
):
    (tmp_path / "photos").mkdir()
    image = tmp_path / "photos" / "a.png"
    image.touch()
    path = tmp_path / "lists" / "out.txt"
    write(path, [Annotation(face98, image=image)])
    assert path.read_text().split()[-1] == "../photos/a.png"
    assert read(path)[0].image is None
    assert read(path, images=tmp_path / "photos")[0].image == image


@pytest.mark.parametrize(
    "name", ["../secret.png", "sub/../../secret.png", "{root}/secret.png", "..\\secret.png"]
)
def test_a_name_in_a_file_leads_only_downwards(tmp_path, face98, name):
    (tmp_path / "secret.png").touch()
    folder = tmp_path / "faces"
    (folder / "sub").mkdir(parents=True)
    path = pts_file(folder, wflw_line(face98, name.format(root=tmp_path)), "list.txt")
    assert read(path)[0].image is None
    with pytest.raises(FileNotFoundError, match="no image for 1 of 1"):
        read(path, require_images=True)
    (folder / "secret.png").touch()  # beside the file, only the last part of the name counts
    assert read(path)[0].image == folder / "secret.png"


@pytest.mark.parametrize("name", ["sub/a.png", "sub\\a.png", "./sub/a.png"])
def test_a_name_below_the_folder_is_followed_in_either_spelling(tmp_path, face98, name):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").touch()
    (face,) = read(pts_file(tmp_path, wflw_line(face98, name), "list.txt"))
    assert face.image == tmp_path / "sub" / "a.png"
    assert face.attributes["image_name"] == name


def test_what_a_list_cannot_hold_is_not_written(tmp_path, face98):
    with pytest.raises(ValueError, match=r"\(3, 2\); a WFLW list holds \(98, 2\)"):
        write(tmp_path / "out.txt", [Annotation(TRIANGLE, image="a.png")])
    with pytest.raises(ValueError, match="has no image"):
        write(tmp_path / "out.txt", [Annotation(face98)])
    assert list(tmp_path.iterdir()) == []


def _fields(edit):
    fields = wflw_line(np.arange(196), "a.jpg").split()
    return " ".join(edit(fields))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "holds no faces"),
        ("hello", "1 fields, the last is 'hello'"),
        (_fields(lambda f: f[:150]), "150 fields, the last is '149.0'"),
        (_fields(lambda f: f[:196]), "196 fields"),
        (_fields(lambda f: f[:203]), "203 fields, the last is '0'"),
        (_fields(lambda f: f[:206]), "206 fields, the last is '0'"),
        (_fields(lambda f: ["x", *f[1:]]), "could not convert string to float: 'x'"),
        (_fields(lambda f: ["inf", *f[1:]]), "infinite"),
        (_fields(lambda f: [*f[:196], "9", "0", "5", "5", *f[200:]]), "rectangle is .9.0, 0.0"),
        (_fields(lambda f: [*f[:196], "nan", "0", "5", "5", *f[200:]]), "rectangle is .nan"),
    ],
)
def test_a_damaged_list_names_its_line(tmp_path, line, message):
    good = "" if not line else wflw_line(np.ones(196), "a.jpg") + "\n"
    with pytest.raises(FormatError, match=message) as caught:
        read(pts_file(tmp_path, good + line, "list.txt"))
    assert "list.txt, line 2" in str(caught.value) if line else True
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 10_000, "0001 face.jpg", "../../../none"])
def test_an_image_name_of_any_kind_is_read_and_written(tmp_path, name):
    path = pts_file(tmp_path, wflw_line(np.ones(196), name), "list.txt")
    (face,) = read(path)
    assert face.image is None
    assert face.attributes["image_name"] == name
    write(tmp_path / "again.txt", [face])
    assert read(tmp_path / "again.txt")[0].attributes == face.attributes


# ---------------------------------------------------------------- folders


@pytest.fixture
def dataset(tmp_path):
    for name in ("b", "a", "c"):
        pts_file(tmp_path, TRIANGLE_PTS, f"{name}.pts")
    for name in ("a.JPG", "b.png", "b.jpg", "d.png", "._c.png"):
        (tmp_path / name).touch()
    pts_file(tmp_path, "Read me first.", "README.txt")
    pts_file(tmp_path, "half-written", ".b.x1.part.pts")
    pts_file(tmp_path, "shadow", "._a.pts")
    (tmp_path / "folder.pts").mkdir()
    return tmp_path


def test_a_folder_is_a_dataset_sorted_by_file_name(dataset):
    annotations = read(dataset)
    assert [annotation.name for annotation in annotations] == ["a", "b", "c"]
    images = [annotation.image and annotation.image.name for annotation in annotations]
    assert images == ["a.JPG", "b.png", None]
    assert [one.image for one in annotations] == [
        read(dataset / f"{name}.pts")[0].image for name in "abc"
    ]


def test_a_missing_image_is_an_error_only_where_images_are_asked_for(dataset):
    with pytest.raises(FileNotFoundError, match=r"1 of 3 annotations, the first is 'c'.*\.jpg"):
        read(dataset, require_images=True)
    (dataset / "c.bmp").touch()
    assert read(str(dataset), require_images=True)[2].image == dataset / "c.bmp"


def test_of_two_images_of_one_name_the_first_suffix_wins(tmp_path):
    for i in range(20):
        pts_file(tmp_path, TRIANGLE_PTS, f"{i}.pts")
        for suffix in (".webp", ".jpg", ".png")[:: 1 if i % 2 else -1]:
            (tmp_path / f"{i}{suffix}").touch()
    assert {annotation.image.suffix for annotation in read(tmp_path)} == {".png"}


def test_a_list_in_a_folder_is_read_too(dataset, face98):
    pts_file(dataset, wflw_line(face98, "a.JPG"), "list.txt")
    assert [one.name for one in read(dataset)] == ["a", "b", "c", "list:1"]


def test_an_empty_folder_names_itself_and_the_known_suffixes(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no annotation in this folder.*\.pts, \.txt"):
        read(tmp_path)
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(FileNotFoundError) as caught:
        read_shapes(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["none", "none.pts", "none/none.pts"])
def test_a_path_that_does_not_exist_is_a_missing_file(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"{name}: no such file"):
        read(tmp_path / name)


def test_an_unknown_suffix_lists_the_known_ones(tmp_path):
    path = pts_file(tmp_path, "1 1", "points.xyz")
    for action in (read, read_shapes, lambda path: write(path, [Annotation(TRIANGLE)])):
        with pytest.raises(FormatError, match=r"suffix '.xyz'; known: \.pts, \.txt"):
            action(path)


def test_writing_to_a_folder_makes_one_file_an_annotation(tmp_path, face98):
    named = [Annotation(TRIANGLE + i, name=f"list:{i}") for i in range(3)]
    for folder in (tmp_path / "new" / "folder", tmp_path):
        write(folder, named)
        assert sorted(file.name for file in folder.glob("*.pts")) == [
            "list_0.pts",
            "list_1.pts",
            "list_2.pts",
        ]
        assert np.array_equal(read_shapes(folder), [one.points for one in named])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no annotations to write"),
        (["a", "a"], "2 annotations have only 1 different names"),
        (["a", "../b"], "'../b' does not make a file name"),
        (["a", ""], "'' does not make a file name"),
        (["a", ".."], "does not make a file name"),
    ],
)
def test_nothing_is_written_when_a_name_is_wrong(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "out", [Annotation(TRIANGLE, name=name) for name in names])
    assert list(tmp_path.iterdir()) == []


def test_a_path_below_a_file_is_no_folder(dataset):
    with pytest.raises(OSError, match=r"a\.pts"):
        write(dataset / "a.pts" / "face.pts", [Annotation(TRIANGLE)])


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_write_permission_is_said_so(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        write(tmp_path / "face.pts", [Annotation(TRIANGLE)])


# ---------------------------------------------------------------- read_shapes


def test_shapes_come_from_folders_files_patterns_and_lists_of_them(dataset):
    expected = np.stack([TRIANGLE] * 3)
    for source in (dataset, str(dataset), f"{dataset}/?.pts", f"{dataset}/**/?.pts"):
        assert np.array_equal(read_shapes(source), expected)
    assert read_shapes(dataset / "a.pts").shape == (1, 3, 2)
    assert read_shapes([dataset, dataset / "a.pts", f"{dataset}/[ab].pts"]).shape == (6, 3, 2)
    assert read_shapes(iter([dataset])).dtype == np.float64


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path):
    folder = tmp_path / "faces [all]"
    folder.mkdir()
    pts_file(folder, TRIANGLE_PTS)
    assert read_shapes(folder).shape == (1, 3, 2)


def test_shapes_that_differ_name_both_files(dataset):
    pts_file(dataset, "1 1\n2 2\n", "b.pts")
    with pytest.raises(ValueError, match=r"b\.pts has 2 points in 2-D, but .*a\.pts has 3 points"):
        read_shapes(dataset)
    pts_file(dataset, "1 1 1\n2 2 2\n3 3 3", "b.pts")
    with pytest.raises(ValueError, match=r"b\.pts has 3 points in 3-D, but"):
        read_shapes(dataset)


@pytest.mark.parametrize(
    ("paths", "message"), [("none*.pts", r"none\*\.pts: no file matches"), ([], "no paths")]
)
def test_no_shapes_is_an_error(tmp_path, monkeypatch, paths, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=message):
        read_shapes(paths)


# ---------------------------------------------------------------- real data


@pytest.mark.parametrize("part", ["train", "test_common", "test_challenging_sample"])
def test_every_300w_face_is_read_with_its_image(data_dir, part):
    folder = data_dir / "300w" / part
    annotations = read(folder, require_images=True)
    assert len(annotations) == len(list(folder.glob("*.pts")))
    assert all(one.scheme == "ibug68" and one.image.stem == one.name for one in annotations)
    assert np.array_equal(read_shapes(folder), [one.points for one in annotations])


@pytest.mark.parametrize("pattern", ["300w/*/*1.pts", "formats/coco_json/**/*.pts", "ceph/*1*.pts"])
def test_real_files_survive_writing_and_reading(data_dir, tmp_path, pattern):
    annotations = [one for path in sorted(data_dir.glob(pattern)) for one in pts.read(path)]
    assert len(annotations) > 3
    write(tmp_path / "out", annotations)
    for one in annotations:
        (back,) = pts.read(tmp_path / "out" / f"{one.name}.pts")
        assert np.array_equal(back.points, one.points), one.name


def test_real_files_are_what_a_plain_parser_reads(data_dir):
    for path in sorted(data_dir.glob("300w/test_common/*.pts"))[::20]:
        lines = path.read_text().splitlines()
        raw = np.loadtxt(lines[lines.index("{") + 1 : lines.index("}")])
        assert np.array_equal(pts.read(path)[0].points, raw - 1)


def test_the_public_names_are_these_functions():
    assert asmkit.read is read
    assert asmkit.read_shapes is read_shapes
    assert asmkit.write is write
    assert asmkit.Annotation is Annotation
