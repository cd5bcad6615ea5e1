from concurrent.futures import ThreadPoolExecutor

import cv2
import cv2.data
import numpy as np
import pytest

from asmkit.annotations import read
from asmkit.boxes import crop_transform, iou, landmark_box
from asmkit.detection import (
    WINDOW_TO_LANDMARKS,
    detect_faces,
    detect_in_frame,
    grouped_windows,
    haar_windows,
)
from asmkit.images import crop, read_image


@pytest.fixture(scope="module")
def faces(data_dir):
    return [(read_image(face.image), face) for face in read(data_dir / "300w" / "train")[::70]]


def test_no_face_gives_no_box():
    boxes = detect_faces(np.full((80, 100, 3), 128, np.uint8))
    assert boxes.shape == (0, 4)
    assert boxes.dtype == np.float64


def test_an_image_smaller_than_a_face_has_none():
    assert detect_faces(np.zeros((1, 1, 3), np.uint8)).shape == (0, 4)


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match=r"expected \(height, width, 3\)"):
        detect_faces(np.zeros((80, 100), np.uint8))


def test_boxes_are_the_tight_boxes_of_the_landmarks(faces):
    overlaps, relative = [], []
    for image, face in faces:
        truth = landmark_box(face.points)
        found = detect_faces(image)
        if len(found):
            overlaps.append(iou(found, truth).max())
            best = found[iou(found, truth).argmax()]
            shift = best[:2] + best[2:] / 2 - truth[:2] - truth[2:] / 2
            relative.append([*shift / truth[2:], *best[2:] / truth[2:]])
    assert len(overlaps) > 0.85 * len(faces)
    assert np.mean(np.array(overlaps) > 0.5) > 0.95
    # Neither beside the landmarks nor of another size: the map from the window is unbiased.
    assert np.median(relative, axis=0) == pytest.approx([0, 0, 1, 1], abs=0.05)


def test_the_first_search_finds_what_opencv_finds(faces):
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml")
    for image, _ in faces[:8]:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        windows = np.array(cascade.detectMultiScale(grey, 1.1, 3, minSize=(40, 40))).reshape(-1, 4)
        expected = WINDOW_TO_LANDMARKS.apply(windows.astype(float))
        np.testing.assert_array_equal(
            np.sort(detect_in_frame(image), axis=0), np.sort(expected, axis=0)
        )


def test_the_second_search_adds_faces_where_the_first_finds_none(faces):
    n_more = 0
    for image, face in faces:
        first, both = detect_in_frame(image), detect_faces(image)
        if len(first):
            np.testing.assert_array_equal(first, both)
        else:
            n_more += bool((iou(both, landmark_box(face.points)) > 0.5).any())
    assert n_more > 0


def test_a_mirrored_look_at_a_mirrored_image_sees_the_mirrored_windows(faces):
    image, _ = faces[0]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    plain = haar_windows(grey, "profileface", scale_factor=1.1, min_size=40)
    turned = haar_windows(
        np.ascontiguousarray(grey[:, ::-1]),
        "profileface",
        mirrored=True,
        scale_factor=1.1,
        min_size=40,
    )
    turned[:, 0] = grey.shape[1] - turned[:, 0] - turned[:, 2]
    assert len(plain) > 0
    assert sorted(map(tuple, turned)) == sorted(map(tuple, plain))


def test_a_group_needs_more_windows_than_neighbours():
    windows = np.tile(np.array([[10, 20, 50, 50]], np.int32), (4, 1))
    np.testing.assert_array_equal(grouped_windows(windows, 3), windows[:1])
    assert grouped_windows(windows, 4).shape == (0, 4)
    assert grouped_windows(windows[:0], 1).shape == (0, 4)


def test_the_largest_face_comes_first(faces):
    image, face = faces[0]
    size = 256
    matrix = crop_transform(landmark_box(face.points), size, margin=1.9)[0]
    large = crop(image, matrix, size)
    small = np.zeros_like(large)
    small[:128, :128] = large[::2, ::2]
    boxes = detect_faces(np.concatenate([small, large], axis=1))
    assert len(boxes) == 2
    assert boxes[0, 0] > 256 > boxes[1, 0]
    assert boxes[0, 2:] / boxes[1, 2:] == pytest.approx(2, rel=0.15)


def test_faces_below_the_size_asked_are_left_out(faces):
    image, _ = faces[0]
    assert len(detect_faces(image)) > 0
    assert len(detect_faces(image, min_size=250)) == 0


def test_threads_find_the_same_as_one(faces):
    images = [image for image, _ in faces[:8]]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(detect_faces, images))
    assert all(map(np.array_equal, together, map(detect_faces, images)))
