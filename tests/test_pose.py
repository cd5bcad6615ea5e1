"""Theorems on poses: exactness, optimality, equivariance, the angle convention, the face."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asmkit
from asmkit.pose import (
    Camera,
    Pose,
    euler_to_rotation,
    face_reference,
    face_reference_info,
    rotation_to_euler,
    solve_pnp,
)

CAMERAS = {
    "perspective": Camera(500.0, 520.0, 310.0, 245.0),
    "orthographic": Camera.orthographic(),
    "default": Camera.default(640, 480),
    "wide": Camera(120.0, 300.0, 50.0, -20.0),
}
MIRROR = np.array(asmkit.scheme("ibug68").mirror)


def random_poses(rng, n, *, depth=(4.0, 12.0), limits_deg=(75, 50, 60)) -> Pose:
    """Poses of a face in front of the camera, up to 0.3 off the axis."""
    rotation = euler_to_rotation(rng.uniform(-1, 1, (n, 3)) * limits_deg)
    z = rng.uniform(*depth, n)
    translation = np.column_stack([rng.uniform(-0.3, 0.3, (n, 2)) * z[:, None], z])
    return Pose(rotation, translation, np.zeros(n), np.ones(n, dtype=bool))


def noisy_images(rng, n, camera, *, noise=0.01, reference=None, **kwargs):
    """Images of the reference with noise relative to its unit."""
    X = face_reference() if reference is None else reference
    pose = random_poses(rng, n, **kwargs)
    points = pose.project(X, camera)
    pixels = noise * camera.fx / pose.translation[:, 2]
    return points + pixels[:, None, None] * rng.normal(size=points.shape), pose


def objective(rotation, translation, X, points, camera):
    n = len(rotation)
    pose = Pose(rotation, translation, np.zeros(n), np.ones(n, dtype=bool))
    return ((pose.project(X, camera) - points) ** 2).sum(axis=(1, 2))


def turned(rotation, w):
    """Rotation matrices turned by small rotation vectors (n, 3)."""
    return np.stack([cv2.Rodrigues(v)[0] for v in w]) @ rotation


# The solver


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
@pytest.mark.parametrize("n_points", [6, 7, 68])
def test_noise_free_points_give_the_exact_pose(rng, camera, n_points):
    X = face_reference() if n_points == 68 else rng.normal(size=(n_points, 3))
    points, true = noisy_images(rng, 300, camera, noise=0.0, reference=X)
    pose = solve_pnp(points, X, camera)
    assert pose.success.all()
    np.testing.assert_allclose(pose.rotation, true.rotation, atol=1e-8)
    np.testing.assert_allclose(pose.translation, true.translation, rtol=1e-8, atol=1e-8)
    assert pose.reprojection_error.max() < 1e-8


def test_a_face_close_to_the_camera_is_exact_too(rng):
    camera = CAMERAS["perspective"]
    points, true = noisy_images(rng, 300, camera, noise=0.0, depth=(1.4, 2.0))
    pose = solve_pnp(points, face_reference(), camera)
    np.testing.assert_allclose(pose.rotation, true.rotation, atol=1e-8)


def test_exact_for_any_orientation_and_a_reference_off_its_centre(rng):
    camera = CAMERAS["perspective"]
    X = face_reference() * 70 + [40, -300, 900]
    rotation = np.linalg.qr(rng.normal(size=(300, 3, 3)))[0]
    rotation *= np.linalg.det(rotation)[:, None, None]
    towards = np.array([20.0, -10.0, 500.0]) - rotation @ X.mean(axis=0)
    true = Pose(rotation, towards, np.zeros(300), np.ones(300, dtype=bool))
    pose = solve_pnp(true.project(X, camera), X, camera)
    np.testing.assert_allclose(pose.rotation, true.rotation, atol=1e-8)
    np.testing.assert_allclose(pose.translation, true.translation, atol=1e-5)


def test_flat_references_are_exact_under_perspective(rng):
    camera = CAMERAS["perspective"]
    flat = rng.normal(size=(20, 3)) * [1, 0.7, 0] @ euler_to_rotation([20.0, -35.0, 10.0])
    points, true = noisy_images(rng, 500, camera, noise=0.0, reference=flat)
    pose = solve_pnp(points, flat, camera)
    np.testing.assert_allclose(pose.rotation, true.rotation, atol=1e-8)


def test_a_flat_reference_under_orthography_gets_one_of_its_two_poses(rng):
    camera = Camera.orthographic()
    flat = rng.normal(size=(20, 3)) * [1, 0.7, 0]
    points, true = noisy_images(rng, 200, camera, noise=0.0, reference=flat)
    pose = solve_pnp(points, flat, camera)
    mirrored = true.rotation * [[1, 1, -1], [1, 1, -1], [-1, -1, 1]]
    errors = [np.abs(pose.rotation - R).max(axis=(1, 2)) for R in (true.rotation, mirrored)]
    assert np.minimum(*errors).max() < 1e-6
    assert pose.reprojection_error.max() < 1e-10


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_rotations_are_orthonormal_and_right_handed(rng, camera):
    points, _ = noisy_images(rng, 300, camera, noise=0.05)
    R = solve_pnp(points, face_reference(), camera).rotation
    np.testing.assert_allclose(
        R @ R.transpose(0, 2, 1), np.tile(np.eye(3), (300, 1, 1)), atol=1e-13
    )
    np.testing.assert_allclose(np.linalg.det(R), 1.0, atol=1e-13)


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_reprojection_error_is_the_rms_of_the_projected_distances(rng, camera):
    X = face_reference()
    points, _ = noisy_images(rng, 50, camera, noise=0.05)
    pose = solve_pnp(points, X, camera)
    distances = np.linalg.norm(pose.project(X, camera) - points, axis=2)
    expected = np.sqrt((distances**2).mean(axis=1))
    np.testing.assert_allclose(pose.reprojection_error, expected, rtol=1e-12)


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
@pytest.mark.parametrize("size", [1e-3, 1e-5])
def test_no_small_perturbation_does_better(rng, camera, size):
    X = face_reference()
    points, _ = noisy_images(rng, 40, camera, noise=0.05)
    pose = solve_pnp(points, X, camera)
    best = objective(pose.rotation, pose.translation, X, points, camera)
    for _ in range(40):
        w, v = size * rng.normal(size=(2, 40, 3))
        t = pose.translation + v * pose.translation[:, 2:]
        assert (objective(turned(pose.rotation, w), t, X, points, camera) >= best).all()


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_no_other_start_finds_a_better_pose(rng, camera):
    X = face_reference()
    points, _ = noisy_images(rng, 25, camera, noise=0.1)
    pose = solve_pnp(points, X, camera)
    # The flipped starts come in by solving the same shapes for a reference mirrored in depth.
    flipped = solve_pnp(points, X * [1, 1, -1], camera).rotation * [[1, 1, -1]] * [[1], [1], [-1]]
    for R in (flipped, np.tile(np.eye(3), (25, 1, 1)), random_poses(rng, 25).rotation):
        _, _, rms = plain_descent(points, X, camera, R, pose.translation)
        assert (pose.reprojection_error <= rms * (1 + 1e-9)).all()


def plain_descent(points, X, camera, rotation, translation, n_steps=15):
    """A few Gauss-Newton steps with halving, by numerical derivatives."""
    rotation, translation = rotation.copy(), translation.copy()
    n = len(points)
    f = objective(rotation, translation, X, points, camera)
    for _ in range(n_steps):
        columns = []
        for k in range(6):
            e = np.zeros((n, 6))
            e[:, k] = 1e-6
            moved = Pose(turned(rotation, e[:, :3]), translation + e[:, 3:], f, f > 0)
            here = Pose(rotation, translation, f, f > 0)
            columns.append((moved.project(X, camera) - here.project(X, camera)) / 1e-6)
        J = np.stack(columns, axis=-1).reshape(n, -1, 6)
        r = (here.project(X, camera) - points).reshape(n, -1)
        step = -np.stack([np.linalg.lstsq(a, b, rcond=None)[0] for a, b in zip(J, r, strict=True)])
        share = np.ones(n)
        for _ in range(10):
            R = turned(rotation, step[:, :3] * share[:, None])
            t = translation + step[:, 3:] * share[:, None]
            new = objective(R, t, X, points, camera)
            new = np.where((t[:, 2] > 2) | camera.is_orthographic, new, np.inf)
            share = np.where(new <= f, share, share / 2)
        better = new < f
        rotation[better], translation[better], f[better] = R[better], t[better], new[better]
    return rotation, translation, np.sqrt(f / len(X))


@pytest.mark.parametrize("noise", [0.005, 0.02, 0.08])
def test_objective_never_above_opencv_iterative(rng, noise):
    X, camera = face_reference(), CAMERAS["perspective"]
    points, _ = noisy_images(rng, 400, camera, noise=noise)
    pose = solve_pnp(points, X, camera)
    ours = objective(pose.rotation, pose.translation, X, points, camera)
    K = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    found = [cv2.solvePnP(X, shape, K, None, flags=cv2.SOLVEPNP_ITERATIVE) for shape in points]
    R = np.array([cv2.Rodrigues(turn)[0] for _, turn, _ in found])
    t = np.array([shift[:, 0] for _, _, shift in found])
    in_front = ((X @ R.transpose(0, 2, 1) + t[:, None])[..., 2] > 0).all(axis=1)
    assert in_front.mean() > 0.95
    theirs = objective(R, t, X, points, camera)
    assert (ours <= theirs * (1 + 1e-9))[in_front].all()


@pytest.mark.parametrize("spread", [0.3, 1.0, 10.0])
def test_every_point_is_in_front_of_the_camera_whatever_the_image(rng, spread):
    camera = Camera(1.0, 1.0, 0.0, 0.0)
    for n_points in (5, 8, 20):
        X = rng.normal(size=(n_points, 3)) * rng.uniform(0.1, 1, 3)
        pose = solve_pnp(spread * rng.normal(size=(200, n_points, 2)), X, camera)
        P = X @ pose.rotation.transpose(0, 2, 1) + pose.translation[:, None]
        assert (P[..., 2] > 0).all()


def test_the_scale_of_orthography_is_positive_whatever_the_image(rng):
    pose = solve_pnp(rng.normal(size=(200, 68, 2)), face_reference(), Camera.orthographic())
    assert (pose.translation[:, 2] > 0).all()


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_batch_equals_single(rng, camera):
    points, _ = noisy_images(rng, 20, camera, noise=0.05)
    batch = solve_pnp(points, face_reference(), camera)
    for i, shape in enumerate(points):
        single = solve_pnp(shape[None], face_reference(), camera)
        np.testing.assert_array_equal(single.rotation[0], batch.rotation[i])
        np.testing.assert_array_equal(single.translation[0], batch.translation[i])


def test_threads_give_the_same_numbers(rng):
    camera = CAMERAS["perspective"]
    points, _ = noisy_images(rng, 2000, camera)
    results = []
    try:
        for n_threads in (1, 2, 5):
            asmkit.set_num_threads(n_threads)
            results.append(solve_pnp(points, face_reference(), camera))
    finally:
        asmkit.set_num_threads(None)
    for other in results[1:]:
        np.testing.assert_array_equal(other.rotation, results[0].rotation)
        np.testing.assert_array_equal(other.reprojection_error, results[0].reprojection_error)


# Symmetries


@pytest.mark.parametrize("name", ["orthographic", "perspective"])
def test_a_mirrored_face_has_minus_yaw_pitch_minus_roll(rng, name):
    camera = {"orthographic": Camera.orthographic(), "perspective": Camera(500, 500, 0, 0)}[name]
    points, _ = noisy_images(rng, 200, camera, noise=0.03)
    mirrored = points[:, MIRROR] * [-1, 1]
    angles = solve_pnp(points, face_reference(), camera).euler()
    swapped = solve_pnp(mirrored, face_reference(), camera).euler()
    np.testing.assert_allclose(swapped, angles * [-1, 1, -1], atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.01, 100),
    shift=st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)),
    seed=st.integers(0, 1000),
)
def test_crop_shift_and_size_of_the_image_leave_the_orthographic_pose(scale, shift, seed):
    camera = Camera.orthographic()
    points, _ = noisy_images(np.random.default_rng(seed), 10, camera, noise=0.05)
    before = solve_pnp(points, face_reference(), camera)
    after = solve_pnp(scale * points + shift, face_reference(), camera)
    np.testing.assert_allclose(after.rotation, before.rotation, atol=1e-6)
    np.testing.assert_allclose(
        after.reprojection_error, scale * before.reprojection_error, rtol=1e-6
    )


@settings(max_examples=25, deadline=None)
@given(angle_deg=st.floats(-180, 180), seed=st.integers(0, 1000))
def test_turning_the_image_turns_the_orthographic_pose(angle_deg, seed):
    camera = Camera.orthographic()
    points, _ = noisy_images(np.random.default_rng(seed), 10, camera, noise=0.05)
    turn = euler_to_rotation([0.0, 0.0, angle_deg])
    before = solve_pnp(points, face_reference(), camera)
    after = solve_pnp(points @ turn[:2, :2].T, face_reference(), camera)
    np.testing.assert_allclose(after.rotation, turn @ before.rotation, atol=1e-6)


def test_perspective_pose_does_change_with_a_crop(rng):
    # The negative control of the crop invariance: what Camera.orthographic is for.
    camera = CAMERAS["perspective"]
    points, _ = noisy_images(rng, 20, camera, noise=0.0)
    moved = solve_pnp(points + np.array([60.0, 0.0]), face_reference(), camera)
    assert np.abs(moved.euler() - solve_pnp(points, face_reference(), camera).euler()).max() > 1


def test_unit_and_origin_of_the_reference_change_the_translation_alone(rng):
    camera, X = CAMERAS["perspective"], face_reference()
    points, _ = noisy_images(rng, 50, camera, noise=0.03)
    before, after = solve_pnp(points, X, camera), solve_pnp(points, 90 * X + [5, 6, 7], camera)
    np.testing.assert_allclose(after.rotation, before.rotation, atol=1e-6)
    expected = 90 * before.translation - before.rotation @ [5, 6, 7]
    np.testing.assert_allclose(after.translation, expected, rtol=1e-5, atol=1e-5)


# Degenerate and wrong input


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_a_shape_without_a_pose_is_a_result_and_harms_no_other(rng, camera):
    points, _ = noisy_images(rng, 6, camera)
    alone = solve_pnp(points, face_reference(), camera)
    points[1] = points[1, 0]
    points[3, 3:] = np.nan
    points[4] = np.nan
    pose = solve_pnp(points, face_reference(), camera)
    np.testing.assert_array_equal(pose.success, [True, False, True, False, False, True])
    np.testing.assert_array_equal(pose.weights, pose.success[:, None] * np.ones((6, 68)))
    for array in (pose.rotation, pose.translation, pose.reprojection_error, pose.euler()):
        assert np.isnan(array[~pose.success]).all()
        assert np.isfinite(array[pose.success]).all()
    np.testing.assert_array_equal(pose.rotation[[0, 2, 5]], alone.rotation[[0, 2, 5]])


def test_points_on_one_line_of_the_image_still_have_a_pose(rng):
    points = np.stack([rng.normal(size=68), np.zeros(68)], axis=-1)[None]
    for camera in CAMERAS.values():
        assert solve_pnp(points, face_reference(), camera).success.all()


def test_empty_batch():
    pose = solve_pnp(np.empty((0, 68, 2)), face_reference(), Camera.orthographic())
    assert len(pose) == 0
    assert pose.rotation.shape == (0, 3, 3)
    assert pose.euler().shape == (0, 3)


@pytest.mark.parametrize(
    ("points", "reference", "message"),
    [
        (np.zeros((68, 2)), face_reference(), r"points\[None\]|shapes\[None\]"),
        (np.zeros((1, 68, 3)), face_reference(), "2-D"),
        (np.zeros((1, 60, 2)), face_reference(), "60 points"),
        (np.zeros((1, 68, 2)), face_reference()[:, :2], "3-D"),
        (np.zeros((1, 3, 2)), face_reference()[:3], "at least 4"),
        (np.zeros((1, 5, 2)), np.outer(np.arange(5), [1.0, 2, 3]), "one line"),
        (np.zeros((1, 5, 2)), np.ones((5, 3)), "equal"),
        (np.full((1, 68, 2), np.inf), face_reference(), "infinite"),
        (np.zeros((1, 68, 2)), face_reference() * np.nan, "NaN"),
    ],
)
def test_wrong_shapes_are_refused(points, reference, message):
    with pytest.raises(ValueError, match=message):
        solve_pnp(points, reference, Camera.orthographic())


def test_camera_must_be_a_camera():
    with pytest.raises(TypeError, match="Camera"):
        solve_pnp(np.zeros((1, 68, 2)), face_reference(), np.eye(3))


# Cameras


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 1, 0, 0), "focal"), ((1, -1, 0, 0), "focal"), ((1, 1, np.nan, 0), "finite")],
)
def test_a_camera_refuses_what_it_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        Camera(*arguments)


def test_an_orthographic_camera_has_one_scale():
    with pytest.raises(ValueError, match="one scale"):
        Camera(1, 2, 0, 0, is_orthographic=True)
    with pytest.raises(ValueError, match=r"Pose\.project"):
        Camera.orthographic().project(np.zeros((4, 3)))


def test_default_camera_looks_through_the_middle_of_the_image():
    camera = Camera.default(640, 480)
    assert (camera.cx, camera.cy) == (319.5, 239.5)
    np.testing.assert_allclose(camera.project([[0.0, 0.0, 3.0]]), [[319.5, 239.5]])
    with pytest.raises(ValueError, match="size"):
        Camera.default(0, 480)


def test_opencv_projects_alike(rng):
    camera, X = CAMERAS["perspective"], face_reference()
    pose = random_poses(rng, 1)
    K = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    turn = cv2.Rodrigues(pose.rotation[0])[0]
    expected, _ = cv2.projectPoints(X, turn, pose.translation[0], K, None)
    np.testing.assert_allclose(pose.project(X, camera)[0], expected[:, 0], rtol=1e-12)


# Angles


def test_convention_is_the_equation_of_the_literature(rng):
    yaw, pitch, roll = rng.uniform(-80, 80, 3)
    c, s = np.cos(np.radians([yaw, pitch, roll])), np.sin(np.radians([yaw, pitch, roll]))
    Rx = np.array([[1, 0, 0], [0, c[1], s[1]], [0, -s[1], c[1]]])
    Ry = np.array([[c[0], 0, s[0]], [0, 1, 0], [-s[0], 0, c[0]]])  # Ry(-yaw)
    Rz = np.array([[c[2], s[2], 0], [-s[2], c[2], 0], [0, 0, 1]])
    F = np.diag([1.0, -1.0, -1.0])
    np.testing.assert_allclose(euler_to_rotation([yaw, pitch, roll]), F @ Rx @ Ry @ Rz @ F)


def test_signs_as_seen_in_the_image():
    nose, side = np.array([0.0, 0.0, -1.0]), np.array([1.0, 0.0, 0.0])
    assert (euler_to_rotation([30.0, 0.0, 0.0]) @ nose)[0] > 0  # yaw: nose to the right
    assert (euler_to_rotation([0.0, 30.0, 0.0]) @ nose)[1] < 0  # pitch: nose up, y is down
    assert (euler_to_rotation([0.0, 0.0, 30.0]) @ side)[1] > 0  # roll: clockwise


@given(
    st.tuples(st.floats(-89.9, 89.9), st.floats(-179.9, 179.9), st.floats(-179.9, 179.9)).map(list)
)
def test_angles_return_from_their_rotation(angles):
    np.testing.assert_allclose(rotation_to_euler(euler_to_rotation(angles)), angles, atol=1e-9)


@pytest.mark.parametrize("yaw", [-90.0, -90 + 1e-7, 0.0, 45.0, 90 - 1e-5, 90 - 1e-7, 90.0])
def test_rotations_return_from_their_angles_even_where_angles_are_not_unique(rng, yaw):
    R = euler_to_rotation([yaw, *rng.uniform(-180, 180, 2)])
    np.testing.assert_allclose(euler_to_rotation(rotation_to_euler(R)), R, atol=5e-8)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_rotation_by_ninety_degrees_to_the_last_bit_has_its_angles(sign):
    # Here yaw is sign * 90 and every entry that tells pitch from roll is exactly zero.
    c, s = np.cos(0.7), np.sin(0.7)
    R = np.array([[0, 0, -sign], [s, c, 0], [sign * c, -sign * s, 0]])
    angles = rotation_to_euler(R)
    assert angles[2] == 0.0
    np.testing.assert_allclose(euler_to_rotation(angles), R, atol=1e-12)


def test_angles_keep_leading_axes(rng):
    angles = rng.uniform(-80, 80, (2, 5, 3))
    R = euler_to_rotation(angles)
    assert R.shape == (2, 5, 3, 3)
    np.testing.assert_allclose(rotation_to_euler(R), angles)
    assert euler_to_rotation([0, 0, 0]).shape == (3, 3)
    np.testing.assert_array_equal(euler_to_rotation([0, 0, 0]), np.eye(3))


def test_unknown_conventions_and_shapes_are_refused():
    with pytest.raises(ValueError, match="aflw"):
        rotation_to_euler(np.eye(3), "xyz")
    with pytest.raises(ValueError, match=r"\(\.\.\., 3, 3\)"):
        rotation_to_euler(np.eye(4))
    with pytest.raises(ValueError, match="angles_deg"):
        euler_to_rotation([1.0, 2.0])


# The reference face


def test_reference_face_is_symmetric_centred_and_of_unit_size():
    X = face_reference("ibug68")
    assert X.shape == (68, 3)
    np.testing.assert_array_equal(X[MIRROR] * [-1, 1, 1], X)
    np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-6)
    assert np.linalg.norm(X[36] - X[45]) == 1.0


def test_reference_face_looks_at_the_camera():
    X = face_reference()
    assert X[36, 0] < 0 < X[45, 0]  # image-left eye first
    assert X[8, 1] > X[30, 1] > X[27, 1]  # y is down: chin, tip and root of the nose
    assert X[:, 2].argmin() == 30  # the tip of the nose is nearest
    assert {X[:, 2].argmax()} <= {0, 16}  # the ears are farthest


def test_reference_face_cannot_be_spoiled_by_its_users():
    face_reference()[:] = 0
    face_reference_info()["licence"] = ""
    assert face_reference().any()
    assert face_reference_info()["licence"]


def test_reference_face_says_where_it_is_from():
    info = face_reference_info("ibug68")
    assert "AFLW2000" in info["source"]
    assert "research" in info["licence"]
    assert "estimate" in info["what"]
    assert {"unit", "method", "rows", "frame"} <= set(info)


def test_unknown_reference_lists_the_known_ones():
    with pytest.raises(ValueError, match="ibug68"):
        face_reference("wflw98")


# Real faces


def aflw2000(data_dir: Path):
    path = data_dir / "aflw2000" / "pose68.csv"
    if not path.is_file():
        pytest.skip(f"no AFLW2000-3D labels at {path}")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    values = np.array([row[1:] for row in rows], dtype=np.float64)
    return [row[0] for row in rows], values[:, :3], values[:, 3:].reshape(-1, 68, 2)


def test_angles_agree_with_aflw2000_on_rows_that_did_not_make_the_reference(data_dir):
    _, labels, points = aflw2000(data_dir)
    rows = (np.arange(len(labels)) % 2 == 1) & (np.abs(labels) <= 99).all(axis=1)
    angles = solve_pnp(points[rows], face_reference(), Camera.orthographic()).euler()
    errors = np.abs((angles - labels[rows] + 180) % 360 - 180).mean(axis=0)
    assert (errors <= [1.5, 2.5, 1.5]).all()
    # The record ships with the reference.
    recorded = face_reference_info()["mae_deg_on_unseen_odd_rows"]
    np.testing.assert_allclose(errors, [recorded[k] for k in ("yaw", "pitch", "roll")], atol=2e-3)


GOLDEN = {
    "image00108": (-82.7632, -5.3212, -3.2445),
    "image00006": (-48.9371, -11.2972, -14.2689),
    "image00152": (-13.6282, -8.0630, -13.0031),
    "image00040": (-0.0452, -9.3997, -0.2603),
    "image00168": (26.1314, -13.2125, 5.8047),
    "image00251": (54.4747, 7.2828, -14.4630),
    "image00235": (62.3199, 28.7000, -23.8135),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_rows(data_dir, name):
    names, labels, points = aflw2000(data_dir)
    i = names.index(name)
    angles = solve_pnp(points[i : i + 1], face_reference(), Camera.orthographic()).euler()[0]
    np.testing.assert_allclose(angles, labels[i], atol=3.0)
    np.testing.assert_allclose(angles, GOLDEN[name], atol=1e-3)
