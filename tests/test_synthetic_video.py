"""Synthetic videos: frames depend on their number alone, and the truth is what they show."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

import asmkit
from asmkit.datasets import SyntheticVideo, synthetic_video
from asmkit.datasets.face_mesh import face_mesh
from asmkit.datasets.face_modes import (
    express,
    identity_vertices,
    sample_expression,
    sample_identity,
    shape_face,
)
from asmkit.datasets.face_texture import ATLAS_SIDE
from asmkit.datasets.video_cover import sample_cover
from asmkit.datasets.video_motion import SCENARIOS
from asmkit.datasets.video_scene import Scene
from asmkit.pose import rotation_to_euler

Array = npt.NDArray[np.float64]
SMALL = (160, 120)
TRUTH = ("points", "points3d", "rotation", "euler", "scale", "shift", "covered", "presence")
#: Every scenario with as many faces as it takes, and with more.
CASTS = [
    *[("wander", 1), ("wander", 3), ("cover", 1), ("cover", 2), ("cross", 2)],
    *[("cross", 3), ("leave", 1), ("leave", 3), ("all", 1), ("all", 2)],
]


@cache
def video(scenario: str, n_faces: int, seed: int = 0, n_frames: int = 260) -> SyntheticVideo:
    return synthetic_video(
        seed, n_frames=n_frames, n_faces=n_faces, scenario=scenario, size=(320, 240)
    )


def placed(some: SyntheticVideo) -> Array:
    """Landmarks of all faces, absent ones too, by the equation of the documentation."""
    turned = np.einsum("nfij,nfpj->nfpi", some.rotation, some.points3d)[..., :2]
    return np.asarray(some.scale[..., None, None] * turned + some.shift[..., None, :])


def boxes(points: Array) -> Array:
    """Left, top, right, bottom ``(..., 4)``."""
    return np.concatenate([points.min(axis=-2), points.max(axis=-2)], axis=-1)


# What a frame depends on


@pytest.mark.parametrize(("scenario", "n_faces"), [("all", 2), ("cover", 1)])
def test_frames_are_the_same_in_any_order(scenario: str, n_faces: int) -> None:
    given = {"n_frames": 130, "size": SMALL, "n_faces": n_faces, "scenario": scenario}
    one, other = (synthetic_video(11, **given) for _ in range(2))  # type: ignore[arg-type]  # mixed
    numbers = [0, 65, 129]
    forwards = {i: one[i] for i in numbers}
    for i in reversed(numbers):
        np.testing.assert_array_equal(other[i], forwards[i])
        np.testing.assert_array_equal(one[i - 130], forwards[i])
    for name in TRUTH:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_longer_video_begins_with_the_shorter(scenario: str) -> None:
    short, long = (
        synthetic_video(4, n_frames=n, size=SMALL, n_faces=2, scenario=scenario) for n in (9, 150)
    )
    for name in TRUTH:
        np.testing.assert_array_equal(getattr(short, name), getattr(long, name)[:9])
    np.testing.assert_array_equal(short[8], long[8])


def test_seeds_differ() -> None:
    one, other = (synthetic_video(seed, n_frames=1, size=SMALL) for seed in (0, 1))
    assert not np.array_equal(one[0], other[0])
    assert not np.allclose(one.points3d, other.points3d, atol=0.05)


def test_motion_is_a_function_of_time() -> None:
    slow, fast = (
        synthetic_video(2, n_frames=n, fps=fps, size=SMALL, scenario="all", n_faces=2)
        for n, fps in ((60, 15.0), (120, 30.0))
    )
    np.testing.assert_allclose(slow.points, fast.points[::2], atol=1e-9)


def test_iteration_gives_the_frames() -> None:
    some = synthetic_video(1, n_frames=4, size=SMALL)
    seen = list(some)
    assert len(seen) == len(some) == 4
    for i, frame in enumerate(seen):
        assert frame.shape == (120, 160, 3)
        assert frame.dtype == np.uint8
        np.testing.assert_array_equal(frame, some[np.int64(i)])  # type: ignore[index]  # an index
    assert repr(some) == "<SyntheticVideo 'wander': 4 × 160×120, 1 faces>"


def test_memory_does_not_grow_with_the_frames() -> None:
    some = synthetic_video(1, n_frames=60, size=SMALL, scenario="cover")
    frame = some[0].nbytes

    def peak(n: int) -> int:
        tracemalloc.start()
        for i in range(n):
            some[i]
        held, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < frame  # nothing stays
        return most

    few = peak(3)
    assert peak(30) < few + 4 * frame


def test_the_truth_of_a_frame_is_small() -> None:
    short, long = video("wander", 1, n_frames=20), video("wander", 1, n_frames=220)
    size = [sum(getattr(v, name).nbytes for name in TRUTH) for v in (short, long)]
    assert size[1] - size[0] < 200 * 4096


# Geometry


@pytest.mark.parametrize(("scenario", "n_faces"), CASTS)
def test_points_are_the_projected_landmarks(scenario: str, n_faces: int) -> None:
    some = video(scenario, n_faces)
    there = some.presence
    assert some.points.shape == (260, n_faces, 68, 2)
    assert some.points3d.shape == (260, n_faces, 68, 3)
    np.testing.assert_allclose(some.points[there], placed(some)[there], atol=1e-9)
    assert np.isnan(some.points[~there]).all()
    np.testing.assert_allclose(rotation_to_euler(some.rotation), some.euler, atol=1e-9)


def test_the_pose_of_the_points_is_the_pose_of_the_head() -> None:
    some = video("wander", 3)
    for i, k in ((0, 0), (100, 1), (259, 2)):
        pose = asmkit.solve_pnp(
            some.points[i, k][None], some.points3d[i, k], asmkit.Camera.orthographic()
        )
        np.testing.assert_allclose(pose.rotation[0], some.rotation[i, k], atol=1e-6)


def test_the_mesh_that_is_drawn_has_its_landmarks_at_the_points() -> None:
    some, marks = video("all", 2), face_mesh().landmarks
    for i, k in ((3, 0), (150, 1), (259, 0)):
        drawn = some._scene._placed(i, k)[marks, :2]
        np.testing.assert_allclose(drawn, placed(some)[i, k], atol=1e-9)


def test_the_eyes_are_drawn_between_their_landmarks() -> None:
    some = synthetic_video(5, n_frames=90, face_size=100.0, size=(240, 200))
    scene = some._scene
    atlas = np.zeros_like(scene.people[0].atlas)
    atlas[:64, ATLAS_SIDE:] = [1, 1, 1, 0]  # white eyeballs, all else is black and dull
    dark = replace(
        scene,
        people=(replace(scene.people[0], atlas=atlas),),
        background=np.zeros_like(scene.background),
        exposure=replace(scene.exposure, soft=np.float32(0), grain=np.float32(0)),
    )
    for i in range(0, 90, 9):
        rows, columns = np.nonzero(dark.frame(i).max(axis=2) > 25)
        eyes = [boxes(some.points[i, 0, part]) for part in (slice(36, 42), slice(42, 48))]
        inside = np.zeros(len(rows), bool)
        for left, top, right, bottom in eyes:
            mine = (columns >= left - 1.5) & (columns <= right + 1.5)
            mine &= (rows >= top - 1.5) & (rows <= bottom + 1.5)
            inside |= mine
        assert inside.all()
        if np.ptp(some.points[i, 0, 42:48, 1]) > 5:
            assert len(rows) > 30  # open eyes are seen


@pytest.mark.parametrize("n", [1, 5])
def test_expressing_a_face_equals_shaping_it(rng: np.random.Generator, n: int) -> None:
    identity = sample_identity(rng)
    expressions = np.stack([sample_expression(rng) for _ in range(n)])
    expected = np.stack([shape_face(identity, e) for e in expressions])
    neutral = identity_vertices(identity)
    np.testing.assert_allclose(express(neutral, expressions), expected, atol=1e-12)
    rows = face_mesh().landmarks
    some = express(neutral, expressions, rows)
    np.testing.assert_allclose(some, expected[:, rows], atol=1e-12)


# Motion


@pytest.mark.parametrize(("scenario", "n_faces"), CASTS)
def test_motion_is_smooth_and_moderate(scenario: str, n_faces: int) -> None:
    some = video(scenario, n_faces)
    points, width = placed(some), 14.12 * some.scale
    box = boxes(points)
    middle = (box[..., :2] + box[..., 2:]) / 2
    step = np.linalg.norm(np.diff(middle, axis=0), axis=-1) / width[1:]
    assert step.max() < 0.06
    assert step.max() > 0.005
    each = np.linalg.norm(np.diff(points, axis=0), axis=-1) / width[1:, :, None]
    assert each.max() < 0.1
    change = np.einsum("nfij,nfkj->nfik", some.rotation[1:], some.rotation[:-1])
    cosine = (np.trace(change, axis1=-2, axis2=-1) - 1) / 2
    turn = np.degrees(np.arccos(cosine.clip(-1, 1)))
    assert turn.max() < 4.5
    assert turn.max() > 0.5
    # no jerk: between frames the speed itself changes little
    assert np.abs(np.diff(middle, 2, axis=0) / width[1:-1, :, None]).max() < 0.025
    assert (np.abs(some.euler) <= [40, 20, 20]).all()
    assert np.abs(np.diff(np.log(some.scale), axis=0)).max() < 0.03


def test_faces_turn_and_near_over_the_whole_range() -> None:
    some = video("wander", 1, n_frames=900)
    assert (some.euler.max(axis=(0, 1)) > [32, 16, 16]).all()
    assert (some.euler.min(axis=(0, 1)) < [-32, -16, -16]).all()
    assert some.scale.max() > 1.4 * some.scale.min()


def test_expressions_change_and_identity_stays() -> None:
    some = video("wander", 1)
    mouth = some.points3d[:, 0, 66, 1] - some.points3d[:, 0, 62, 1]
    eye = some.points3d[:, 0, 47, 1] - some.points3d[:, 0, 43, 1]
    assert np.ptp(mouth) > 0.3
    assert eye.min() < 0.3 * eye.max()  # it blinks
    bridge = some.points3d[:, 0, 28]
    assert np.ptp(bridge, axis=0).max() < 0.05


def test_the_nearer_face_stays_the_nearer() -> None:
    for scenario in ("wander", "cross", "all"):
        some = video(scenario, 2)
        from_far_to_near = some.scale[:, some.order]
        assert (np.diff(from_far_to_near, axis=1) > 0).all()


# What the scenarios promise


@pytest.mark.parametrize("n_faces", [1, 2, 5])
def test_who_wanders_is_always_there(n_faces: int) -> None:
    for seed in range(3):
        some = synthetic_video(seed, n_frames=120, n_faces=n_faces, fps=6)
        assert some.presence.all()
        inside = (placed(some) >= -0.5) & (placed(some) <= np.array([640, 480]) - 0.5)
        assert inside.all()


def test_a_cover_hides_each_face_wholly_in_turn() -> None:
    some = video("cover", 2)
    for k, slot in enumerate([slice(0, 120), slice(120, 240)]):
        assert (some.covered[slot, k] == 1).sum() >= 12
        np.testing.assert_array_equal(some.presence[[slot.start, slot.stop - 1]], True)


def test_crossing_faces_change_places_and_the_nearer_hides_the_farther() -> None:
    for seed in range(4):
        some = video("cross", 2, seed=seed, n_frames=120)
        far, near = some.order
        x = placed(some).mean(axis=2)[..., 0]
        assert (x[0, 0] - x[0, 1]) * (x[-1, 0] - x[-1, 1]) < 0
        box = boxes(placed(some))
        low, high = box[..., :2].max(axis=1), box[..., 2:].min(axis=1)
        assert (low < high).all(axis=1).any()  # overlap
        assert not some.presence[:, far].all()
        assert some.presence[:, near].all()
        assert some.presence[[0, -1]].all()


def test_who_leaves_is_away_and_returns() -> None:
    for seed in range(4):
        some = video("leave", 1, seed=seed, n_frames=120)
        presence = some.presence[:, 0]
        assert presence[0]
        assert presence[-1]
        assert (some.covered == 1).sum() >= 10
        assert (np.diff(presence.astype(int)) != 0).sum() == 2  # one absence


def test_a_long_mix_holds_everything() -> None:
    some = synthetic_video(3, n_frames=200, n_faces=2, scenario="all", size=(320, 240), fps=6)
    scene = some._scene
    wholly = some.covered == 1
    out = outside(some).all(axis=2)
    assert (wholly & out).any()  # away
    assert (wholly & ~out & (scene.motion.covered >= 0)[:, None]).any()  # behind an object
    nothing = (scene.motion.covered < 0)[:, None] & ~outside(some).any(axis=2)
    assert ((some.covered > 0.5) & nothing).any()  # behind each other


def outside(some: SyntheticVideo) -> npt.NDArray[np.bool_]:
    points = placed(some)
    return np.asarray(((points < -0.5) | (points > np.array(some.size) - 0.5)).any(axis=-1))


# Presence is what the frames show


@pytest.mark.parametrize(("scenario", "n_faces"), CASTS)
def test_presence_follows_the_covered_share(scenario: str, n_faces: int) -> None:
    some = video(scenario, n_faces)
    np.testing.assert_array_equal(some.presence, some.covered <= 0.5)
    assert (some.covered >= outside(some).mean(axis=2)).all()
    if n_faces == 1:
        no_object = some._scene.motion.covered < 0
        away = outside(some).mean(axis=2)
        np.testing.assert_array_equal(some.covered[no_object], away[no_object])


def changed(scene: Scene, other: Scene, i: int, points: Array) -> npt.NDArray[np.bool_]:
    """Whether two scenes without blur and noise differ at points ``(68, 2)`` of frame i."""
    pictures = []
    for one in (scene, other):
        exposure = replace(one.exposure, soft=np.float32(0), grain=np.float32(0))
        pictures.append(replace(one, exposure=exposure).frame(i).astype(int))
    column, row = points.round().astype(int).T
    difference = np.abs(pictures[0] - pictures[1]).max(axis=2)
    return np.asarray(difference[row, column] > 1)


def test_an_object_changes_the_picture_where_landmarks_are_covered() -> None:
    some = video("cover", 1)
    scene = some._scene
    motion = replace(scene.motion, covered=np.full(len(some), -1))
    shares = []
    for i in np.flatnonzero((some.covered[:, 0] > 0) | (np.arange(260) % 60 == 0))[::6]:
        seen = changed(scene, replace(scene, motion=motion), i, placed(some)[i, 0])
        np.testing.assert_allclose(seen.mean(), some.covered[i, 0], atol=0.06)
        shares.append(some.covered[i, 0])
    assert any(0 < share < 1 for share in shares)
    assert {0.0, 1.0} <= set(shares)


def test_the_nearer_person_changes_the_picture_where_landmarks_are_covered() -> None:
    some = video("cross", 2, n_frames=120)
    scene, far = some._scene, some.order[0]
    alone = replace(scene, order=some.order[:1])
    shares = []
    for i in range(0, 120, 8):
        seen = changed(scene, alone, i, placed(some)[i, far])
        np.testing.assert_allclose(seen.mean(), some.covered[i, far], atol=0.06)
        shares.append(some.covered[i, far])
    assert max(shares) > 0.8
    assert min(shares) == 0
    assert (some.covered[:, some.order[1]] == 0).all()


def test_the_quick_test_of_who_hides_whom_misses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    some = synthetic_video(3, n_frames=120, n_faces=4, scenario="all", size=SMALL, fps=4)
    quick = some.covered[::3]
    monkeypatch.setattr(Scene, "_may_hide", lambda *_: True)
    thorough = [some._scene.hidden(i).mean(axis=1) for i in range(0, 120, 3)]
    np.testing.assert_array_equal(quick, thorough)


def test_visible_landmarks_are_not_covered_and_a_turned_face_hides_some() -> None:
    some = video("cross", 2, n_frames=120)
    hidden_by_itself = np.zeros(len(some), bool)
    for i in range(0, 120, 10):
        visible = some.visibility(i)
        assert visible.shape == (2, 68)
        assert (visible.mean(axis=1) <= 1 - some.covered[i] + 1e-12).all()
        hidden_by_itself[i] = ((~visible).mean(axis=1) > some.covered[i]).any()
    assert hidden_by_itself.any()
    frontal = np.abs(video("wander", 1).euler[:, 0]).max(axis=1).argmin()
    assert video("wander", 1).visibility(int(frontal)).mean() > 0.9


def test_a_still_background_stays_and_a_moving_one_moves() -> None:
    for moving in (False, True):
        some = synthetic_video(9, n_frames=60, size=SMALL, moving_background=moving)
        scene = some._scene
        scene = replace(scene, exposure=replace(scene.exposure, grain=np.float32(0)))
        head = boxes(placed(some)[[0, 59], 0])
        assert head[:, 0].min() > 35  # the corner below shows background alone
        corner = [scene.frame(i)[:12, :12] for i in (0, 59)]
        assert np.array_equal(*corner) != moving


def test_noise_is_fresh_in_every_frame() -> None:
    some = synthetic_video(9, n_frames=2, size=SMALL, moving_background=False)
    exposure = replace(some._scene.exposure, grain=np.float32(0.05))
    first, second = (
        replace(some._scene, exposure=exposure).frame(i)[:12, :12].astype(float) for i in (0, 1)
    )
    middle = (first > 20) & (first < 235)
    assert middle.mean() > 0.5
    assert np.std((first - second)[middle]) > 5


@pytest.mark.parametrize("seed", range(6))
def test_a_cover_is_painted_where_it_hides(seed: int) -> None:
    cover = sample_cover(np.random.default_rng(seed), 20.0)
    image, centre = np.full((120, 130, 3), 7, np.float32), np.array([61.3, 55.8])
    cover.paint(image, centre)
    pixels = np.stack(np.meshgrid(np.arange(130.0), np.arange(120.0)), axis=-1)
    painted = (image != 7).any(axis=2)
    assert cover.hides(centre + 20 * np.array([[1, 0], [0, -1], [0.6, 0.8]]), centre).all()
    smaller, larger = (replace(cover, half=cover.half + d).hides(pixels, centre) for d in (-2, 2))
    assert painted[smaller].all()
    assert not painted[~larger].any()
    before = np.full((10, 10, 3), 7, np.float32)
    cover.paint(before, np.array([-400.0, 3.0]))
    assert (before == 7).all()


# Files


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_a_saved_video_reads_back(tmp_path: Path, suffix: str) -> None:
    some = synthetic_video(3, n_frames=6, size=SMALL)
    path = tmp_path / "new" / f"video{suffix}"
    some.save(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    frames = list(decoded(path))
    assert len(frames) == 6
    for frame, original in zip(frames, some, strict=True):
        assert frame.shape == original.shape
        error, swapped = (
            np.abs(seen.astype(int) - original).mean() for seen in (frame, frame[..., ::-1])
        )
        assert error < 12
        assert error < swapped  # red is red


def decoded(path: Path) -> Iterator[npt.NDArray[np.uint8]]:
    reader = cv2.VideoCapture(str(path))
    assert round(reader.get(cv2.CAP_PROP_FPS)) == 30
    while (read := reader.read())[0]:
        yield np.asarray(read[1][..., ::-1], np.uint8)
    reader.release()


def test_a_video_is_saved_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some, path = synthetic_video(3, n_frames=3, size=SMALL), tmp_path / "video.avi"
    path.write_bytes(b"before")
    first = some[0]

    def fail_later(_: Scene, i: int) -> npt.NDArray[np.uint8]:
        if i == 2:
            raise KeyboardInterrupt
        return first

    monkeypatch.setattr(Scene, "frame", fail_later)
    with pytest.raises(KeyboardInterrupt):
        some.save(path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match=r"'\.gif', expected \.avi or \.mp4"):
        some.save(tmp_path / "video.gif")


def test_progress_bars_count_the_frames(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    some = synthetic_video(1, n_frames=3, size=SMALL, progress=True)
    assert "3/3" in capsys.readouterr().err
    some.save(tmp_path / "a.avi")
    assert not capsys.readouterr().err
    some.save(tmp_path / "a.avi", progress=True)
    assert "3/3" in capsys.readouterr().err


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed: got -1"),
        ({"n_frames": 0}, "n_frames: got 0, expected a whole number of at least 1"),
        ({"n_faces": 0}, "n_faces: got 0"),
        ({"size": (640, 63)}, r"the height: got 63, .* at least 64"),
        ({"size": 640}, r"size: got 640, expected \(width, height\)"),
        ({"size": (640, 480, 3)}, r"expected \(width, height\)"),
        ({"fps": 0.0}, "fps: got 0.0"),
        ({"fps": float("nan")}, "fps: got nan"),
        ({"scenario": "fly"}, "'fly', expected one of wander, cover, cross, leave, all"),
        ({"scenario": "cross"}, "'cross' takes 2 faces or more, got n_faces=1"),
        ({"face_size": 400.0}, r"face_size: got 400\.0; in frames of 640×480 .* 16 to \d+ pixels"),
        ({"face_size": 3.0}, r"face_size: got 3\.0"),
        ({"face_size": 0}, r"face_size: got 0;"),
        ({"face_size": float("nan")}, "face_size: got nan"),
        ({"n_faces": 60}, "n_faces: got 60; .* make the frames larger or the faces fewer"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    given = {"seed": 0, **arguments}
    with pytest.raises(ValueError, match=message):
        synthetic_video(**given)  # type: ignore[arg-type]  # the wrong value is the point


def test_what_is_no_whole_number_is_refused() -> None:
    with pytest.raises(TypeError, match=r"n_frames: got 2\.5, expected a whole number"):
        synthetic_video(0, n_frames=2.5)  # type: ignore[arg-type]  # the wrong type is the point


def test_a_frame_that_is_not_there_is_an_index_error() -> None:
    some = synthetic_video(1, n_frames=2, size=SMALL)
    for i in (2, -3):
        with pytest.raises(IndexError, match=f"frame {i} of a video of 2 frames"):
            some[i]
    with pytest.raises(TypeError):
        some[0.5]  # type: ignore[index]  # the wrong type is the point
