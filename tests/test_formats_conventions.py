"""What a format says is converted at the border: each convention on numbers read by eye."""

import json
import warnings

import numpy as np
import pytest

from asmkit.annotations import read
from asmkit.errors import FormatError


def of(folder, name, text, **options):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return [one.points.tolist() for one in read(path, **options)]


NOWHERE = [np.nan, np.nan]


def assert_points(found, expected):
    np.testing.assert_array_equal(np.array(found), np.array(expected, dtype=float))


def test_ljson_stands_as_y_x_in_every_version(tmp_path):
    v3 = {"version": 3, "groups": {"PTS": {"landmarks": {"points": [[1, 2], None, [3, 4]]}}}}
    v2 = {"version": 2, "landmarks": {"points": [[1, 2], [None, None], [3, 4]]}, "labels": []}
    v1 = {
        "version": 1,
        "groups": [
            {
                "label": "a",
                "connectivity": [[0, 1]],
                "landmarks": [{"point": [1, 2]}, {"point": None}],
            },
            {"label": "b", "connectivity": [[0, 0]], "landmarks": [{"point": [3, 4]}]},
        ],
    }
    for content in (v3, v2, v1):
        (found,) = of(tmp_path, "a.ljson", json.dumps(content))
        assert_points(found, [[2, 1], NOWHERE, [4, 3]])
    (face,) = read(tmp_path / "a.ljson")
    assert face.attributes["connectivity"] == ((0, 1), (2, 2))  # counted on from group to group
    assert face.attributes["groups"] == {"a": (0, 1), "b": (2,)}


def test_ljson_of_a_mesh_stands_as_x_y_z(tmp_path):
    content = {"version": 2, "landmarks": {"points": [[1, 2, 3]]}}
    assert of(tmp_path, "a.ljson", json.dumps(content)) == [[[1, 2, 3]]]


def test_asf_is_relative_to_the_whole_width_and_height(tmp_path):
    text = "# c\n1\n0 0 0.37500000 0.57083333 0 0 0\n01-1m.jpg\n"
    ((point,),) = of(tmp_path, "a.asf", text, image_size=(640, 480))
    np.testing.assert_allclose(point, [240, 274], atol=1e-5)  # whole pixels come out whole
    with pytest.raises(
        FormatError, match="relative to the size of the image, and the image is not"
    ):
        read(tmp_path / "a.asf")


def test_tps_counts_y_from_the_bottom(tmp_path):
    text = "lm = 3\n0. 0.\n5 479\n7.5 480\nIMAGE=a.jpg\n"
    found = of(tmp_path, "a.tps", text, image_size=(640, 480))
    assert found == [[[0, 480], [5, 1], [7.5, 0]]]
    with pytest.raises(FormatError, match=r"line 1: .*y from the bottom.*image_size="):
        read(tmp_path / "a.tps")


def test_tps_in_3d_needs_no_image_and_stays_as_it_is(tmp_path):
    text = "LM3=2\r\n1 2 3\r\nNA NA NA\r\nSCALE=0.5\r\nLM3=1\r\n-1 -1 -1\r\n"
    first, second = of(tmp_path, "a.tps", text)
    assert_points(first, [[1, 2, 3], [np.nan] * 3])  # the scale is kept, not applied
    assert second == [[-1, -1, -1]]
    assert read(tmp_path / "a.tps")[0].attributes["scale"] == 0.5


def test_both_marks_of_a_missing_landmark_in_tps_are_read(tmp_path):
    text = "LM=3\n-1 -1\nNA NA\n-1 5\nVARIABLES=a b\n1 2 3\nCURVES=1\nPOINTS=1\n-1.000 -1.000\n"
    (found,) = of(tmp_path, "a.tps", text, image_size=(9, 9))
    assert_points(found, [NOWHERE, NOWHERE, [-1, 4]])
    (face,) = read(tmp_path / "a.tps", image_size=(9, 9))
    assert np.isnan(face.attributes["curves"][0]).all()


def test_peer_defect_d19_a_key_of_tps_is_what_stands_before_the_equals_sign(tmp_path):
    text = (
        "LM=1\n1 2\nIMAGE=ID_LM=SCALE.jpg\nCOMMENT=ID=9, SCALE=7, LM=3\nID=x\n"
        "LM3=1\n1 2 3\nIMAGE=b.jpg\nID=x\n"
    )
    assert of(tmp_path, "a.tps", text, image_size=(8, 8)) == [[[1, 6]], [[1, 2, 3]]]
    first, second = read(tmp_path / "a.tps", image_size=(8, 8))
    assert first.attributes["image_name"] == "ID_LM=SCALE.jpg"
    assert first.attributes["id"] == second.attributes["id"] == "x"
    assert "scale" not in first.attributes
    assert (first.name, second.name) == ("a:1", "a:2")


def test_lm2_is_not_shifted(tmp_path):
    text = (
        "# Bosphorus\n2 Landmarks\nLabels:\nNose tip\nChin\n\n2D Image coordinates:\n1 1\n5.5 7\n"
    )
    assert of(tmp_path, "a.lm2", text) == [[[1, 1], [5.5, 7]]]
    assert read(tmp_path / "a.lm2")[0].labels == ("Nose tip", "Chin")
    solid = text.replace("2D", "3D").replace("1 1", "1 1 2").replace("5.5 7", "5.5 7 8")
    assert of(tmp_path, "a.lm3", solid) == [[[1, 1, 2], [5.5, 7, 8]]]


@pytest.mark.parametrize("suffix", [".dta", ".nts"])
def test_nts_reads_labels_flags_and_the_mark_of_missing(tmp_path, suffix):
    text = (
        "'Morphometrics\n\"more\n1 2L 6L 1 9999 dim=3\none two\na b c d e f\n"
        "1 2 3 9999 9999 9999\n4 5 6\n7 8 9\n"
    )
    first, second = of(tmp_path, f"a{suffix}", text)
    assert_points(first, [[1, 2, 3], [np.nan] * 3])
    assert second == [[4, 5, 6], [7, 8, 9]]
    assert [one.attributes["specimen"] for one in read(tmp_path / f"a{suffix}")] == ["one", "two"]
    assert of(tmp_path, f"b{suffix}", "1 1 2 0 DIM=2\n9999 1") == [[[9999, 1]]]


DLIB = "<dataset><images><image file='a.jpg'>{}</image></images></dataset>"
BOX = "<box top='1' left='2' width='3' height='4'>{}</box>"


def test_peer_defect_d22_parts_stand_in_dlibs_order_and_it_is_said_aloud(tmp_path):
    parts = "".join(f"<part name='{i}' x='{i}' y='0'/>" for i in range(12))
    with pytest.warns(
        UserWarning, match=r"sort as text, so that '11' is landmark 3; name parts 00"
    ):
        (found,) = of(tmp_path, "a.xml", DLIB.format(BOX.format(parts)))
    assert [x for x, _ in found] == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
    padded = "".join(f"<part name='{i:02d}' x='{i}' y='0'/>" for i in range(12))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = of(tmp_path, "a.xml", DLIB.format(BOX.format(padded)))
    assert [x for x, _ in found] == list(range(12))


def test_a_part_that_a_box_of_dlib_lacks_is_missing_there(tmp_path):
    one = BOX.format("<label>wing</label><part name='b' x='1' y='2'/>")
    two = BOX.format("<part name='a' x='3' y='4'/>")
    first, second, third = of(tmp_path, "a.xml", DLIB.format(one + two + BOX.format("")))
    assert_points(first, [NOWHERE, [1, 2]])
    assert_points(second, [[3, 4], NOWHERE])
    assert_points(third, [NOWHERE, NOWHERE])
    face = read(tmp_path / "a.xml")[0]
    assert face.box.tolist() == [2, 1, 3, 4]
    assert (face.labels, face.attributes["label"]) == (("a", "b"), "wing")


def test_coco_says_missing_hidden_and_visible(tmp_path):
    content = {
        "categories": [
            {"id": "c", "name": "fly", "keypoints": ["a", "b", "c"], "skeleton": [[1, 3]]}
        ],
        "annotations": [
            {"image_id": 7, "category_id": "c", "keypoints": [0, 0, 0, 1.5, 2, 1, 3, 4, 2.0]},
            {"image_id": 7, "bbox": [1, 2, 3, 4]},
        ],
        "images": [{"id": 7, "file_name": "a.jpg", "width": 9, "height": 8}],
    }
    (found,) = of(tmp_path, "a.json", json.dumps(content))
    assert_points(found, [NOWHERE, [1.5, 2], [3, 4]])
    (face,) = read(tmp_path / "a.json")
    assert face.visibility.tolist() == [False, False, True]
    assert face.labels == ("a", "b", "c")
    assert face.attributes["connectivity"] == ((0, 2),)  # the file counts from 1
    assert face.image_size == (9, 8)


def test_stasm_counts_from_the_top_left_now_and_from_the_middle_before(tmp_path):
    new = (
        "shape\nDirectories /a;b\n# c\n00000004 a\n{ 3 2\n0 0\n10 20\n0.05 -0.05\n}\n"
        "80000000 a\n{ 1 4\n1 2 3 4\n}\n"
    )
    (found,) = of(tmp_path, "a.shape", new)
    assert_points(found, [NOWHERE, [10, 20], NOWHERE])
    old = (
        'ss 12\nDirectories x\n"0004 a"\n{ 3 2\n0 0\n10 20\n-4 -6\n}\n'
        '"8000 a"\n{ 1 8\n1 2 3 4 5 6 7 8 }\n'
    )
    (found,) = of(tmp_path, "a.shape", old, image_size=(480, 640))
    assert_points(found, [NOWHERE, [250, 300], [236, 326]])
    with pytest.raises(FormatError, match="from the middle of the image"):
        read(tmp_path / "a.shape")
    assert read(tmp_path / "a.shape", image_size=(9, 9))[0].attributes["tag"] == 4


def test_muct_hides_at_the_origin_and_refuses_the_other_frame(tmp_path):
    text = "name,tag,x00,y00,x01,y01\ni000qa-fn,2A,201,348,0,0\n"
    (found,) = of(tmp_path, "a.csv", text)
    assert_points(found, [[201, 348], NOWHERE])
    assert read(tmp_path / "a.csv")[0].attributes["tag"] == 42
    with pytest.raises(FormatError, match=r"origin is in the middle.*muct76-opencv\.csv"):
        of(tmp_path, "a.csv", "name,tag,x00,y00\ni000qa-fn,0,-39,-28\n")


def test_our_table_leaves_missing_coordinates_empty(tmp_path):
    text = 'image,x0,y0,x1,y1\n"a, b.png",1,2.5,,\n\n,3,4,5,6\n'
    first, second = of(tmp_path, "a.csv", text)
    assert_points(first, [[1, 2.5], NOWHERE])
    assert second == [[3, 4], [5, 6]]
    named, nameless = read(tmp_path / "a.csv")
    assert named.attributes == {"image_name": "a, b.png"}
    assert (named.name, nameless.name) == ("a:2", "a:4")
    assert of(tmp_path, "a.csv", "image,x0,y0,z0\n,1,2,3\n") == [[[1, 2, 3]]]
