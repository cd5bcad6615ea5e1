"""read(write(x)) = x for every format, to the last digit or to what the format's module says."""

import numpy as np
import pytest
from format_files import ABILITIES, NAMES, SIZE, annotations, sample
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from asmkit.annotations import FORMATS, Annotation, read, read_shapes, write
from asmkit.schemes import scheme

one_folder = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
IMAGE = {"image_name": "a.png"}


@st.composite
def sets_of_points(draw, able):
    """A few sets of equally many points; of each landmark, at least one set has it."""
    if able.whole_pixels:
        elements = st.integers(-(10**6), 10**6).map(float)
    elif able.inside:
        elements = st.floats(0.5, 1e6)
    else:
        elements = st.floats(-1e6, 1e6)
    shape = (
        draw(st.integers(1, 3)) if able.many else 1,
        able.n_points or draw(st.integers(1, 7)),
        draw(st.sampled_from(able.n_dims)),
    )
    points = draw(arrays(np.float64, shape, elements=elements))
    if able.missing:
        gone = draw(arrays(np.bool_, shape[:2]))
        gone[-1] = False
        if able.whole_pixels:
            gone[:, 0] = False  # an instance without any point has no box to write either
        points[gone] = np.nan
    return points


@pytest.mark.parametrize("name", NAMES)
def test_reading_gives_back_what_was_written(tmp_path, name):
    able = ABILITIES[name]
    path = tmp_path / f"points{FORMATS[name].suffixes[0]}"

    @one_folder
    @given(sets_of_points(able))
    def round_trip(points):
        written = [Annotation(one, name=f"f{i}", attributes=IMAGE) for i, one in enumerate(points)]
        write(path, written, format=name, image_size=SIZE)
        back = read(path, format=name, image_size=SIZE)
        found = np.stack([one.points for one in back])
        np.testing.assert_allclose(found, points, rtol=0, atol=able.precision)
        write(path, back, format=name, image_size=SIZE)
        again = np.stack([one.points for one in read(path, format=name, image_size=SIZE)])
        np.testing.assert_allclose(again, found, rtol=0, atol=able.precision)

    round_trip()


@pytest.mark.parametrize("name", NAMES)
def test_whole_pixels_survive_exactly_in_every_format(tmp_path, name):
    able = ABILITIES[name]
    n_points = able.n_points or 7
    points = np.arange(1.0, 2 * n_points + 1).reshape(-1, 2)
    path = tmp_path / f"points{FORMATS[name].suffixes[0]}"
    write(path, [Annotation(points, image_size=(512, 512), attributes=IMAGE)], format=name)
    (back,) = read_shapes(path, format=name, image_size=(512, 512))
    assert np.array_equal(back, points)


@pytest.mark.parametrize("name", NAMES)
def test_the_format_is_found_by_suffix_and_content(tmp_path, name):
    path = sample(tmp_path, name)
    by_content = read(path, image_size=SIZE)
    by_name = read(path, image_size=SIZE, format=name)
    of_folder = read(tmp_path, image_size=SIZE)
    for some in (by_content, of_folder):
        for one, other in zip(some, by_name, strict=True):
            assert np.array_equal(one.points, other.points, equal_nan=True)
            assert (one.name, one.attributes) == (other.name, other.attributes)


def test_a_folder_of_all_formats_is_read_whole_or_one_format_of_it(tmp_path):
    for name in NAMES:
        write(tmp_path / f"{name}{FORMATS[name].suffixes[0]}", annotations(name), format=name)
    for noise in ("notes.txt", "config.json", "build.xml", "table.csv", "stata.dta", "x.shape"):
        (tmp_path / noise).write_text("{}")
    assert len(read(tmp_path, image_size=SIZE)) == sum(len(annotations(name)) for name in NAMES)
    for name in NAMES:
        only = read(tmp_path, image_size=SIZE, format=name)
        assert len(only) == len(annotations(name)), name
    with pytest.raises(ValueError, match=r"called 'xls'; known: pts, wflw"):
        read(tmp_path, format="xls")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "nts"])  # names no image
def test_an_image_beside_the_file_is_found_and_its_size_used(tmp_path, name):
    from asmkit.images import write_image

    able = ABILITIES[name]
    image = tmp_path / "face 1.png"
    image = image if name != "stasm" else tmp_path / "face1.png"
    write_image(image, np.zeros((48, 64, 3), np.uint8))
    points = np.arange(1.0, 2 * (able.n_points or 5) + 1).reshape(-1, 2)
    path = tmp_path / f"{image.stem}{FORMATS[name].suffixes[0]}"
    write(path, [Annotation(points, image=image)], format=name)
    (back,) = read(path, require_images=True, format=name)
    assert back.image == image
    np.testing.assert_allclose(back.points, points, rtol=0, atol=1e-9)


def test_what_dlib_and_coco_hold_beside_the_points_is_kept(tmp_path):
    face = Annotation(
        [[1, 2], [3, 4], [np.nan, np.nan]],
        image_size=SIZE,
        box=[1, 2, 30, 40],
        visibility=[True, False, False],
        attributes={
            "image_name": "ü & <1>.png",
            "label": "a <b> & 'c'",
            "ignore": True,
            "angle": "0.5",
            "category": "fly",
            "connectivity": ((0, 2), (1, 2)),
        },
        labels=("chin", "nose", "tip"),
    )
    other = Annotation([[1, 2], [3, 4], [5, 6]], attributes=face.attributes, labels=face.labels)
    write(tmp_path / "a.xml", [face, other])
    write(tmp_path / "a.json", [face, other])
    for path in (tmp_path / "a.xml", tmp_path / "a.json"):
        back, second = read(path)
        assert back.box.tolist() == [1, 2, 30, 40]
        assert back.image_size == SIZE
        assert back.labels == face.labels
        assert second.points.tolist() == other.points.tolist()
        assert back.attributes["image_name"] == "ü & <1>.png"
        kept = {key: back.attributes.get(key) for key in face.attributes}
        lost = {key for key in kept if kept[key] != face.attributes[key]}
        coco_only, dlib_only = {"category", "connectivity"}, {"label", "ignore", "angle"}
        assert lost == (coco_only if path.suffix == ".xml" else dlib_only)
    assert back.visibility.tolist() == [True, False, False]
    assert second.visibility.all()


def test_consecutive_boxes_of_one_image_share_an_element_and_keep_their_order(tmp_path):
    names = ["a.png", "a.png", "b.png", "a.png"]
    faces = [Annotation([[i, i]], attributes={"image_name": n}) for i, n in enumerate(names)]
    write(tmp_path / "a.xml", faces)
    assert (tmp_path / "a.xml").read_text().count("<image ") == 3
    back = read(tmp_path / "a.xml")
    assert [one.attributes["image_name"] for one in back] == names
    assert [one.points.tolist() for one in back] == [[[i, i]] for i in range(4)]
    write(tmp_path / "a.json", faces)
    assert (tmp_path / "a.json").read_text().count("file_name") == 2
    assert [one.attributes["image_name"] for one in read(tmp_path / "a.json")] == names


def test_a_box_of_dlib_that_is_not_given_holds_the_pixels_of_the_points(tmp_path):
    write(tmp_path / "a.xml", [Annotation([[3, 4], [10, 7]], attributes=IMAGE)])
    assert read(tmp_path / "a.xml")[0].box.tolist() == [3, 4, 8, 4]


def test_the_groups_of_an_ljson_file_are_annotations_and_back(tmp_path):
    face = scheme("ibug68")
    faces = [
        Annotation(np.arange(136.0).reshape(68, 2), scheme="ibug68", attributes={"group": "own"}),
        Annotation([[1, 2], [np.nan, np.nan]], attributes={"group": "pupils"}),
    ]
    write(tmp_path / "a.ljson", faces)
    own, pupils = read(tmp_path / "a.ljson")
    assert (own.name, pupils.name) == ("a:own", "a:pupils")
    assert own.scheme == "ibug68"
    assert own.attributes["groups"] == dict(sorted(face.groups.items()))
    assert pupils.attributes["groups"] == {"all": (0, 1)}
    n_lines = sum(len(one.indices) - (not one.closed) for one in face.contours)
    assert len(own.attributes["connectivity"]) == n_lines
    write(tmp_path / "b.ljson", [own, pupils])
    assert (tmp_path / "b.ljson").read_bytes() == (tmp_path / "a.ljson").read_bytes()
    write(tmp_path / "split", [own, pupils], format="ljson")
    assert sorted(file.name for file in (tmp_path / "split").iterdir()) == [
        "a_own.ljson",
        "a_pupils.ljson",
    ]
    with pytest.raises(ValueError, match="2 annotations make only 1 groups"):
        write(tmp_path / "c.ljson", [own, own])


def test_curves_scale_and_keys_of_a_tps_file_are_kept(tmp_path):
    fly = Annotation(
        [[1, 2], [3, 4]],
        image_size=SIZE,
        attributes={
            "curves": (
                np.array([[5.0, 6.0], [7.0, 8.0], [np.nan, np.nan]]),
                np.array([[9.0, 1.0]]),
            ),
            "scale": 0.00123,
            "id": "fly = 7",
            "comment": "left wing",
            "image_name": "a.png",
        },
    )
    write(tmp_path / "a.tps", [fly, fly])
    _, back = read(tmp_path / "a.tps", image_size=SIZE)
    first, second = back.attributes["curves"]
    assert np.array_equal(first, fly.attributes["curves"][0], equal_nan=True)
    assert np.array_equal(second, fly.attributes["curves"][1])
    for key in ("scale", "id", "comment", "image_name"):
        assert back.attributes[key] == fly.attributes[key]


def test_the_contours_of_an_asf_file_and_the_labels_of_lm2_are_kept(tmp_path):
    text = (
        "2\n3\t4\t0.5\t0.25\t1\t0\t1\t9 9 9\n2\t0\t0.125\t0.5\t0\t1\t0\n# end\nno # comment.bmp\n"
    )
    (tmp_path / "a.asf").write_text(text)
    (face,) = read(tmp_path / "a.asf", image_size=SIZE)
    assert face.points.tolist() == [[80, 240], [320, 120]]  # in the order of the point numbers
    assert face.attributes["asf_connects"] == ((1, 0), (0, 1))
    assert face.attributes["image_name"] == "no # comment.bmp"
    write(tmp_path / "b.asf", [face])
    (again,) = read(tmp_path / "b.asf", image_size=SIZE)
    assert np.array_equal(again.points, face.points)
    assert again.attributes == face.attributes
    nose = Annotation([[1, 2]], labels=("Nose tip",))
    write(tmp_path / "b.lm2", [nose])
    assert read(tmp_path / "b.lm2")[0].labels == ("Nose tip",)


def test_a_number_that_is_the_mark_of_missing_is_a_number_again(tmp_path):
    points = np.array([[9999.0, 99999.0], [np.nan, 1.0]])
    write(tmp_path / "a.nts", [Annotation(points, name="two words")])
    (back,) = read(tmp_path / "a.nts")
    assert np.array_equal(back.points, points, equal_nan=True)
    assert back.attributes["specimen"] == "two_words"


def test_rounding_is_done_where_it_is_asked_for(tmp_path):
    face = Annotation([[1.4, 2.6]], box=[0.4, 0.6, 9.5, 9.4], attributes=IMAGE)
    with pytest.raises(ValueError, match=r"hold 0\.4, and dlib's XML holds whole pixels.*rounded"):
        write(tmp_path / "a.xml", [face])
    assert not (tmp_path / "a.xml").exists()
    write(tmp_path / "a.xml", [face], rounded=True)
    (back,) = read(tmp_path / "a.xml")
    assert (back.points.tolist(), back.box.tolist()) == ([[1, 3]], [0, 1, 10, 9])


GONE = [[1.0, 2.0], [np.nan, np.nan]]


@pytest.mark.parametrize(
    ("file", "parts", "message"),
    [
        ("a.asf", {"points": GONE, "image_size": SIZE}, "1 points are missing.*number 1.*complete"),
        ("a.lm2", {"points": GONE}, "1 points are missing"),
        ("a.asf", {"points": [[1, 2]]}, r"relative to the size.*image_size=\(width, height\)"),
        ("a.asf", {"points": [[1, 2, 3]]}, r"shape \(1, 3\); .asf holds 2-D"),
        ("a.asf", {"points": [[1, 2]], "image_size": (0, 5)}, "two positive whole numbers"),
        ("a.asf", {"points": [[1, 2]], "image_size": SIZE, "name": "#x.png"}, "a comment"),
        ("a.tps", {"points": [[1, 2]]}, "counts y from the bottom"),
        ("a.tps", {"points": [[-1, 481]], "image_size": SIZE}, "means missing"),
        ("a.tps", {"points": [[1, 2]], "image_size": SIZE, "name": "a\nb"}, "cannot stand on"),
        ("a.lm2", {"points": [[1, 2]], "labels": ("#1",)}, "would be a comment"),
        ("a.lm2", {"points": [[1, 2]], "labels": ("",)}, "cannot stand on a line"),
        ("a.xml", {"points": [[1, 2]]}, "has no image"),
        ("a.xml", {"points": [[1, 2, 3]], "name": "a.png"}, "2-D points"),
        ("a.xml", {"points": GONE, "name": "a.png"}, "landmark 1 is missing in every"),
        ("a.xml", {"points": [[1, 2]], "name": "a\x01"}, "XML cannot hold"),
        ("a.json", {"points": [[1, 2]]}, "has no image"),
        ("a.json", {"points": [[1, 2, 3]], "name": "a.png"}, "2-D points"),
        ("a.shape", {"points": [[1, 2]]}, "has no image"),
        ("a.shape", {"points": [[0.05, 0]], "name": "a.png"}, r"at \(0, 0\) means missing"),
        ("a.shape", {"points": [[1, 2]], "name": "a b.png"}, "no blanks"),
        ("a.shape", {"points": [[1, 2, 3]], "name": "a.png"}, "2-D points"),
        ("a.csv", {"points": [[1, 2]], "name": "a\nb"}, "cannot stand on a line"),
        ("a.csv", {"points": [[1, 2]], "name": "a\ud800"}, "cannot stand on a line"),
        ("a.nts", {"points": [[1, 2]], "name": "a\ud800"}, "cannot be written as UTF-8"),
        ("muct.csv", {"points": [[0, 0]], "name": "a.png"}, r"at \(0, 0\) means missing"),
        ("muct.csv", {"points": [[-1, 2]], "name": "a.png"}, "many coordinates are negative"),
        ("muct.csv", {"points": [[1, 2]]}, "has no image"),
        ("muct.csv", {"points": [[1, 2, 3]], "name": "a.png"}, "2-D points"),
    ],
)
def test_what_a_format_cannot_hold_is_not_written(tmp_path, file, parts, message):
    name = {"image_name": parts["name"]} if "name" in parts else {}
    face = Annotation(
        parts["points"],
        attributes=name,
        **{key: value for key, value in parts.items() if key not in ("points", "name")},
    )
    with pytest.raises(ValueError, match=message):
        write(tmp_path / file, [face], format="muct" if file == "muct.csv" else None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["a.xml", "a.txt"])
def test_an_instance_without_points_and_box_has_no_box_to_write(tmp_path, file):
    nothing = np.full((98, 2), np.nan)
    faces = [
        Annotation(points, attributes={**IMAGE, "blur": True}) for points in (nothing, nothing * 0)
    ]
    faces[1].points[:] = 0
    with pytest.raises(ValueError, match="neither points nor a box"):
        write(tmp_path / file, faces)


@pytest.mark.parametrize("name", ["nts", "dlib", "stasm", "muct", "csv"])
def test_shapes_of_one_file_must_be_equal(tmp_path, name):
    faces = [Annotation(np.ones((n, 2)), name=str(n), attributes=IMAGE) for n in (2, 3)]
    with pytest.raises(ValueError, match=r"'3' has points of shape \(3, 2\), but '2' has \(2, 2\)"):
        write(tmp_path / f"a{FORMATS[name].suffixes[0]}", faces, format=name)


@pytest.mark.parametrize("name", [n for n in NAMES if not ABILITIES[n].many and n != "ljson"])
def test_a_format_of_one_instance_refuses_two(tmp_path, name):
    faces = annotations(name) * 2
    with pytest.raises(ValueError, match="exactly one; give a folder"):
        write(tmp_path / f"a{FORMATS[name].suffixes[0]}", faces, format=name)


@pytest.mark.parametrize("name", [n for n in NAMES if ABILITIES[n].many])
def test_a_format_of_many_instances_refuses_a_folder(tmp_path, name):
    with pytest.raises(ValueError, match="holds all annotations in one file"):
        write(tmp_path / "folder", annotations(name), format=name)


def test_a_folder_that_cannot_be_written_whole_is_not_begun(tmp_path):
    whole, broken = annotations("asf")[0], Annotation(GONE, image_size=SIZE, name="broken")
    with pytest.raises(ValueError, match="missing"):
        write(tmp_path / "new" / "folder", [whole, broken], format="asf")
    assert list(tmp_path.iterdir()) == []


def test_two_old_labels_that_dlib_would_reorder_become_numbers(tmp_path):
    face = Annotation([[1, 2], [3, 4]], attributes=IMAGE, labels=("tip", "base"))
    write(tmp_path / "a.xml", [face])
    (back,) = read(tmp_path / "a.xml")
    assert back.points.tolist() == face.points.tolist()
    assert back.labels == ("00", "01")
