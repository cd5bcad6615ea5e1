"""Files as other programs write them: counts known, values read by eye, points on their images."""

import json

import cv2
import numpy as np
import pytest

from asmkit.annotations import read, read_shapes, write
from asmkit.errors import FormatError


def assert_inside_their_images(annotations):
    for one in annotations:
        assert one.image is not None, one.name
        assert one.image_size is not None, one.name
        points = one.points[np.isfinite(one.points).all(axis=1)]
        assert (points > -1).all(), one.name
        assert (points < np.array(one.image_size)).all(), one.name


def test_wings_tps_lies_on_the_veins(data_dir):
    flies = read(data_dir / "wings", require_images=True)
    assert len(flies) == 58
    assert {fly.points.shape for fly in flies} == {(12, 2)}
    assert flies[0].points[0].tolist() == [290, 480 - 108]  # "290. 108." in an image 480 high
    assert (flies[0].image.name, flies[0].attributes["id"]) == ("63001.jpg", "0")
    assert_inside_their_images(flies)
    at_points, upside_down = [], []
    for fly in flies[::6]:
        grey = cv2.imread(str(fly.image), cv2.IMREAD_GRAYSCALE)
        x, y = fly.points.astype(int).T
        at_points.append(grey[y, x])
        upside_down.append(grey[grey.shape[0] - 1 - y, x])
    assert np.median(at_points) < np.median(upside_down) - 40  # veins are dark


def test_a_tps_file_without_its_images_says_what_is_lacking(data_dir):
    path = data_dir / "formats" / "tps-example.tps"
    with pytest.raises(FormatError, match=r"line 1: .* image_size=\(width, height\)"):
        read(path)
    assert np.array_equal(
        read_shapes(path, images=data_dir / "wings"), read_shapes(data_dir / "wings")
    )


def test_the_asf_file_is_read_relative_to_its_image(data_dir):
    (hand,) = read(data_dir / "formats" / "c4480h_s1.asf", require_images=True)
    assert hand.points.shape == (66, 2)
    assert hand.image_size == (256, 256)
    np.testing.assert_allclose(hand.points[0], [0.521322 * 256, 0.399549 * 256], rtol=1e-15)
    np.testing.assert_allclose(hand.points[65], [0.506125 * 256, 0.357780 * 256], rtol=1e-15)
    assert hand.attributes["asf_path"][65] == 1
    assert hand.attributes["asf_connects"][0] == (32, 1)
    assert_inside_their_images([hand])


def test_menpos_lenna_is_turned_to_x_y(data_dir):
    path = data_dir / "formats" / "lenna.ljson"
    face, pupils = read(path, require_images=True)
    raw = json.loads(path.read_text())["groups"]["LJSON"]["landmarks"]
    assert np.array_equal(face.points, np.array(raw["points"])[:, ::-1])
    assert face.attributes["connectivity"] == tuple(map(tuple, raw["connectivity"]))
    assert face.attributes["groups"]["jaw"] == tuple(range(17))
    assert face.scheme == "ibug68"
    assert pupils.points.tolist() == [[265, 265], [328, 265]]
    eyes = face.points[36:42].mean(axis=0), face.points[42:48].mean(axis=0)
    assert np.linalg.norm(np.array(eyes) - pupils.points, axis=1).max() < 6


@pytest.mark.parametrize(
    ("file", "count", "first", "image"),
    [
        ("training", 18, (201, 107), "2007_007763.jpg"),
        ("testing", 25, (277, 194), "2008_002470.jpg"),
    ],
)
def test_dlibs_faces_lie_in_their_boxes(data_dir, file, count, first, image):
    folder = data_dir / "formats" / "dlib"
    faces = read(folder / f"{file}_with_face_landmarks.xml", require_images=True)
    assert len(faces) == count
    assert tuple(faces[0].points[0]) == first
    assert faces[0].image.name == image
    assert {face.scheme for face in faces} == {"ibug68"}
    assert faces[0].labels == tuple(f"{i:02d}" for i in range(68))
    for face in faces:
        centre = face.box[:2] + face.box[2:] / 2
        assert (np.abs(face.points.mean(axis=0) - centre) < face.box[2:] / 2).all()
    with pytest.raises(FormatError, match="boxes without any part"):
        read(folder / f"{file}.xml")


@pytest.mark.parametrize(
    ("file", "count", "n_points", "first"),
    [
        ("300vw/anno_300vw", 3, 68, (743.224, 197.764)),
        ("300w/test_300w", 2, 68, (268.0, 398.882)),
        ("300wlp/test_300wlp", 2, 68, (144.78085327148438, 253.39178466796875)),
        ("cofw/test_cofw", 2, 29, (46.562534549474826, 120.07575548185008)),
        ("lapa/test_lapa", 2, 106, (406.0, 644.0)),
        ("wflw/test_wflw", 4, 98, (440.696106, 132.732559)),
    ],
)
def test_the_instances_of_coco_json_are_read(data_dir, file, count, n_points, first):
    faces = read(data_dir / "formats" / "coco_json" / f"{file}.json", require_images=True)
    assert len(faces) == count
    assert {face.points.shape for face in faces} == {(n_points, 2)}
    assert tuple(faces[0].points[0]) == first
    assert_inside_their_images(faces)


def test_the_visibility_of_cofw_is_kept(data_dir):
    faces = read(data_dir / "formats" / "coco_json" / "cofw" / "test_cofw.json")
    assert sum(int(face.visibility.sum()) for face in faces) == 43  # v = 2; v = 1 is 15 times
    assert faces[0].box.tolist() == [38, 102, 105, 180]


def test_peer_defect_d18_the_same_face_is_a_pixel_apart_in_pts_and_in_others_json(data_dir):
    folder = data_dir / "formats" / "coco_json" / "300vw"
    for face in read(folder / "anno_300vw.json"):
        clip = face.image.parents[1]
        (exact,) = read_shapes(clip / "annot" / f"{face.image.stem}.pts")
        # Whoever made the JSON did not subtract the 1 from which a .pts file counts.
        np.testing.assert_allclose(face.points, exact + 1, rtol=0, atol=1e-9)


def test_the_table_of_muct_hides_what_it_marks(data_dir):
    path = data_dir / "formats" / "muct" / "muct68-opencv.csv"
    faces = read(path)
    rows = np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(2, 138)).reshape(-1, 68, 2)
    assert len(faces) == len(rows) == 40
    gone = (rows == 0).all(axis=2)
    assert gone.sum() == 30
    found = np.stack([face.points for face in faces])
    assert np.array_equal(np.isnan(found).all(axis=2), gone)
    assert np.array_equal(found[~gone], rows[~gone])
    assert faces[0].points[:2].tolist() == [[201, 348], [201, 381]]
    assert faces[12].attributes == {"image_name": "i000sc-fn", "tag": 0x200}
    assert {face.scheme for face in faces} == {None}  # 68 points, but not those of 300-W


FILES = {
    "tps": "wings/wings.tps",
    "asf": "formats/c4480h_s1.asf",
    "ljson": "formats/lenna.ljson",
    "dlib": "formats/dlib/training_with_face_landmarks.xml",
    "coco": "formats/coco_json/cofw/test_cofw.json",
    "muct": "formats/muct/muct68-opencv.csv",
}


@pytest.mark.parametrize("name", FILES)
def test_what_others_wrote_survives_our_writing(data_dir, tmp_path, name):
    source = data_dir / FILES[name]
    faces = read(source)
    path = tmp_path / source.name
    write(path, faces, format=name)
    back = read(path, format=name, images=source.parent)
    for one, other in zip(back, faces, strict=True):
        np.testing.assert_allclose(one.points, other.points, rtol=0, atol=1e-12)
        assert one.image == other.image
        assert one.labels == other.labels or name == "coco"  # a nameless keypoint gets a number
