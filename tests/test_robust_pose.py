"""Theorems on poses from weighted, missing and wrong points, their covariance, the focal length."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.optimize import least_squares

import asmkit
from asmkit.annotations import Annotation
from asmkit.cli import main
from asmkit.pose import Camera, Pose, euler_to_rotation, face_reference, solve_pnp

CAMERAS = {"perspective": Camera(500.0, 430.0, 310.0, 245.0), "orthographic": Camera.orthographic()}
X = face_reference()
each_camera = pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
each_robust = pytest.mark.parametrize("robust", ["huber", "ransac"])


def images(rng, n, camera, *, noise=0.02, reference=X, unit=1.0):
    """Images with noise relative to the unit of the reference, and the true poses."""
    R = euler_to_rotation(rng.uniform(-1, 1, (n, 3)) * [60, 40, 50])
    z = rng.uniform(4, 10, n) * unit
    t = np.column_stack([rng.uniform(-0.25, 0.25, (n, 2)) * z[:, None], z])
    pose = Pose(R, t, np.zeros(n), np.ones(n, dtype=bool))
    x = pose.project(reference, camera)
    return x + (noise * unit * camera.fx / z)[:, None, None] * rng.normal(size=x.shape), pose


def spoil(rng, points, share):
    """Move points anywhere in the box of their shape; also where they were moved."""
    low, high = points.min(axis=1, keepdims=True), points.max(axis=1, keepdims=True)
    wrong = np.argsort(rng.random(points.shape[:2]), axis=1) < round(share * points.shape[1])
    anywhere = low + (high - low) * rng.random(points.shape)
    return np.where(wrong[..., None], anywhere, points), wrong


def angle_between(R, S):
    """Radians between rotations (n, 3, 3)."""
    return np.array([np.linalg.norm(cv2.Rodrigues(a @ b.T)[0]) for a, b in zip(R, S, strict=True)])


def assert_same(a: Pose, b: Pose, atol=1e-6):
    np.testing.assert_allclose(a.rotation, b.rotation, atol=atol)
    np.testing.assert_allclose(a.translation, b.translation, rtol=atol, atol=atol)
    np.testing.assert_allclose(a.reprojection_error, b.reprojection_error, rtol=atol)


# Weights and missing points


@each_camera
@pytest.mark.parametrize("robust", [None, "huber", "ransac"])
def test_weight_zero_is_a_missing_point_is_a_deleted_one(rng, camera, robust):
    points, _ = images(rng, 8, camera)
    gone = np.array([3, 17, 40, 41, 42, 66])
    zero, missing = np.ones(68), points.copy()
    zero[gone], missing[:, gone] = 0.0, np.nan
    a = solve_pnp(points, X, camera, weights=zero, robust=robust)
    b = solve_pnp(missing, X, camera, robust=robust)
    assert_same(a, b, atol=0)
    np.testing.assert_array_equal(a.weights, b.weights)
    assert not b.inliers[:, gone].any()
    c = solve_pnp(
        np.delete(points, gone, axis=1), np.delete(X, gone, axis=0), camera, robust=robust
    )
    assert_same(b, c)


@each_camera
def test_whole_weights_are_repeated_points(rng, camera):
    points, _ = images(rng, 8, camera)
    times = rng.integers(0, 4, 68)
    a = solve_pnp(points, X, camera, weights=times)
    b = solve_pnp(np.repeat(points, times, axis=1), np.repeat(X, times, axis=0), camera)
    assert_same(a, b)


@each_camera
def test_equal_weights_are_none_and_their_unit_does_not_matter(rng, camera):
    points, _ = images(rng, 8, camera)
    assert_same(solve_pnp(points, X, camera), solve_pnp(points, X, camera, weights=np.ones(68)))
    weights = rng.uniform(0.1, 2, (8, 68))
    a, b = (solve_pnp(points, X, camera, weights=k * weights) for k in (1.0, 1e-9))
    assert_same(a, b)
    np.testing.assert_allclose(a.weights, 1e9 * b.weights)


@each_camera
def test_no_other_solver_finds_less_weighted_squares(rng, camera):
    points, true = images(rng, 6, camera, noise=0.05)
    weights = rng.uniform(0, 1, (6, 68)) ** 3
    points[rng.random((6, 68)) < 0.2] = np.nan
    pose = solve_pnp(points, X, camera, weights=weights)
    for i in range(6):
        seen = ~np.isnan(points[i, :, 0])
        root = np.sqrt(weights[i, seen])[:, None]

        def residuals(v, R, i=i, seen=seen, root=root):
            moved = Pose(cv2.Rodrigues(v[:3])[0][None] @ R, v[None, 3:], np.zeros(1), np.ones(1))
            return (root * (moved.project(X, camera)[0, seen] - points[i, seen])).ravel()

        ours = pose.reprojection_error[i] ** 2 * (root**2).sum()
        here = residuals(np.r_[0, 0, 0, pose.translation[i]], pose.rotation[i])
        np.testing.assert_allclose((here**2).sum(), ours, rtol=1e-10)
        for R, t in ((true.rotation[i], true.translation[i]), (np.eye(3), true.translation[i])):
            found = least_squares(residuals, np.r_[0, 0, 0, t], args=(R,), xtol=1e-12)
            assert ours <= 2 * found.cost * (1 + 1e-9)


@each_camera
def test_noise_free_points_give_the_exact_pose_whichever_are_missing(rng, camera):
    points, true = images(rng, 100, camera, noise=0.0)
    points[rng.random((100, 68)) < rng.uniform(0, 0.85, (100, 1))] = np.nan
    pose = solve_pnp(points, X, camera)
    assert pose.success.all()
    np.testing.assert_allclose(pose.rotation, true.rotation, atol=1e-7)
    np.testing.assert_array_equal(pose.inliers, ~np.isnan(points[..., 0]))


@each_camera
def test_exact_for_a_reference_far_off_its_centre_in_another_unit(rng, camera):
    far = 70 * X + [40, -300, 900]
    points, true = images(rng, 20, camera, noise=0.0, reference=far, unit=400.0)
    spoiled, _ = spoil(rng, points, 0.3)
    for pose in (
        solve_pnp(points, far, camera, weights=rng.uniform(0.5, 1, 68)),
        solve_pnp(spoiled, far, camera, robust="ransac"),
    ):
        np.testing.assert_allclose(pose.rotation, true.rotation, atol=1e-6)
        np.testing.assert_allclose(pose.translation, true.translation, rtol=1e-5, atol=1e-3)


@each_camera
def test_complete_shapes_have_the_bits_of_a_batch_without_missing_points(rng, camera):
    points, _ = images(rng, 6, camera)
    alone = solve_pnp(points, X, camera)
    points[2, 5] = points[4, :30] = np.nan
    both = solve_pnp(points, X, camera)
    whole = [0, 1, 3, 5]
    np.testing.assert_array_equal(both.rotation[whole], alone.rotation[whole])
    np.testing.assert_array_equal(both.translation[whole], alone.translation[whole])
    assert both.success.all()


@each_camera
@pytest.mark.parametrize("robust", [None, "huber", "ransac"])
def test_what_determines_no_pose_is_a_result(rng, camera, robust):
    line = np.concatenate([np.outer([0.0, 1, 2, 3, 5], [1.0, 2, 3]), rng.normal(size=(5, 3))])
    points, _ = images(rng, 5, camera, reference=line)
    points[0, 3:] = np.nan  # three points
    points[1, 5:] = np.nan  # five, on one line of the reference
    points[2] = points[2, 0]  # all at one place
    points[3] = np.nan
    pose = solve_pnp(points, line, camera, robust=robust, covariance=True)
    np.testing.assert_array_equal(pose.success, [False, False, False, False, True])
    for array in (pose.rotation, pose.translation, pose.reprojection_error, pose.covariance):
        assert np.isnan(array[:4]).all()
        assert np.isfinite(array[4]).all()
    assert not pose.weights[:4].any()


# Wrong points


@each_camera
def test_forty_percent_of_wrong_points_leave_an_exact_pose_exact(rng, camera):
    points, true = images(rng, 60, camera, noise=0.0)
    spoiled, wrong = spoil(rng, points, 0.4)
    pose = solve_pnp(spoiled, X, camera, robust="ransac")
    np.testing.assert_allclose(pose.rotation, true.rotation, atol=1e-6)
    np.testing.assert_array_equal(pose.inliers, ~wrong)


@each_camera
@pytest.mark.parametrize(("robust", "share"), [("huber", 0.1), ("ransac", 0.3)])
def test_wrong_points_cost_a_robust_fit_little(rng, camera, robust, share):
    points, true = images(rng, 100, camera)
    spoiled, wrong = spoil(rng, points, share)
    clean = angle_between(solve_pnp(points, X, camera).rotation, true.rotation).mean()
    fit = solve_pnp(spoiled, X, camera, robust=robust)
    assert angle_between(fit.rotation, true.rotation).mean() < 1.6 * clean
    # The negative control: least squares do not stand them.
    plain = angle_between(solve_pnp(spoiled, X, camera).rotation, true.rotation).mean()
    assert plain > 3 * clean
    kept = fit.weights[~wrong].mean()
    assert fit.weights[wrong].mean() < 0.3 * kept


@each_camera
@each_robust
@pytest.mark.parametrize("is_known", [False, True])
def test_without_wrong_points_a_robust_fit_has_nearly_the_efficiency_of_least_squares(
    rng, camera, robust, is_known
):
    _, true = images(rng, 300, camera)
    noise = 0.004 * camera.fx
    x = true.project(X, camera) + noise * rng.normal(size=(300, 68, 2))
    plain = solve_pnp(x, X, camera)
    fit = solve_pnp(x, X, camera, robust=robust, noise=noise if is_known else None)
    errors = [(angle_between(p.rotation, true.rotation) ** 2).mean() for p in (plain, fit)]
    assert errors[1] < 1.12 * errors[0]


def test_a_flat_reference_bears_wrong_points(rng):
    camera = CAMERAS["perspective"]
    flat = rng.normal(size=(30, 3)) * [1, 0.7, 0] @ euler_to_rotation([20.0, -35.0, 10.0])
    points, true = images(rng, 60, camera, noise=0.0, reference=flat)
    spoiled, _ = spoil(rng, points, 0.3)
    pose = solve_pnp(spoiled, flat, camera, robust="ransac")
    assert (angle_between(pose.rotation, true.rotation) < 1e-5).mean() > 0.95


@each_robust
def test_turning_and_scaling_the_image_turns_the_robust_orthographic_pose(rng, robust):
    points, _ = images(rng, 20, Camera.orthographic())
    spoiled, _ = spoil(rng, points, 0.2)
    turn = euler_to_rotation([0.0, 0.0, 130.0])
    before = solve_pnp(spoiled, X, Camera.orthographic(), robust=robust)
    moved = 37 * spoiled @ turn[:2, :2].T + [400, -50]
    after = solve_pnp(moved, X, Camera.orthographic(), robust=robust)
    np.testing.assert_allclose(after.rotation, turn @ before.rotation, atol=1e-5)
    np.testing.assert_allclose(after.weights, before.weights, atol=1e-4)


@each_robust
def test_robust_batch_equals_single_whatever_the_threads(rng, robust):
    camera = CAMERAS["perspective"]
    spoiled, _ = spoil(rng, images(rng, 40, camera)[0], 0.2)
    spoiled[::3, :9] = np.nan
    try:
        asmkit.set_num_threads(1)
        batch = solve_pnp(spoiled, X, camera, robust=robust)
        asmkit.set_num_threads(3)
        again = solve_pnp(spoiled, X, camera, robust=robust)
    finally:
        asmkit.set_num_threads(None)
    assert_same(batch, again, atol=0)
    for i in (0, 13, 39):
        single = solve_pnp(spoiled[i : i + 1], X, camera, robust=robust)
        np.testing.assert_array_equal(single.rotation[0], batch.rotation[i])
        np.testing.assert_array_equal(single.weights[0], batch.weights[i])


def test_the_seed_chooses_the_sets_and_nothing_else_is_random(rng):
    camera = CAMERAS["orthographic"]
    spoiled, _ = spoil(rng, images(rng, 20, camera)[0], 0.3)
    a, b, c = (
        solve_pnp(spoiled, X, camera, robust="ransac", n_samples=60, seed=seed)
        for seed in (1, 1, 2)
    )
    assert_same(a, b, atol=0)
    # Other sets, the same agreement: nearly all shapes end in the same pose.
    assert np.median(angle_between(a.rotation, c.rotation)) < 1e-4


VARIANTS = {
    "float32": lambda x: x.astype(np.float32),
    "fortran": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "big-endian": lambda x: x.astype(">f8"),
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_layout_and_type_do_not_matter_and_nothing_is_written(rng, variant):
    camera = CAMERAS["perspective"]
    points, _ = images(rng, 5, camera)
    points[0, 4] = np.nan
    weights = rng.uniform(0, 1, (5, 68, 1))
    given, heavy = variant(points), variant(weights)[..., 0]
    plain = np.array(given, dtype=np.float64), np.array(heavy, dtype=np.float64)
    given.flags.writeable = heavy.flags.writeable = False
    for robust in (None, "huber", "ransac"):
        a = solve_pnp(given, X, camera, weights=heavy, robust=robust)
        b = solve_pnp(plain[0], X, camera, weights=plain[1], robust=robust)
        assert_same(a, b, atol=0)


def test_whatever_came_one_kernel_of_each_kind_was_compiled(rng):
    from asmkit._kernels import weighted_pnp

    for camera in CAMERAS.values():
        points, _ = images(rng, 3, camera)
        for robust in (None, "huber", "ransac"):
            solve_pnp(points, X, camera, weights=np.ones(68, dtype=bool), robust=robust, noise=1.0)
            solve_pnp(points[:0], X, camera, weights=np.ones(68), robust=robust)
    assert len(weighted_pnp.solve_weighted.signatures) == 1
    assert len(weighted_pnp.solve_robust.signatures) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": np.ones(5)}, r"\(68,\)"),
        ({"weights": np.full(68, -1.0)}, ">= 0"),
        ({"weights": np.full(68, np.nan)}, "finite"),
        ({"robust": "median"}, "huber.*ransac"),
        ({"noise": 0.0}, "noise"),
        ({"robust": "ransac", "n_samples": 0}, "n_samples"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        solve_pnp(np.zeros((2, 68, 2)), X, Camera.orthographic(), **arguments)
    with pytest.raises(TypeError, match="real"):
        solve_pnp(np.zeros((2, 68, 2)), X, Camera.orthographic(), weights=["a"] * 68)


def test_a_pose_made_by_hand_has_no_inliers():
    pose = Pose(np.eye(3)[None], np.ones((1, 3)), np.zeros(1), np.ones(1, dtype=bool))
    with pytest.raises(ValueError, match="solve_pnp"):
        _ = pose.inliers


# Covariance


def deviations(found: Pose, true: Pose, reference):
    """Turn about the reference's centre and shift of it (n, 6), as Pose.covariance counts them."""
    centre = reference.mean(axis=0)
    turn = found.rotation @ true.rotation.transpose(0, 2, 1)
    shift = found.translation - true.translation
    moved = (found.rotation - true.rotation) @ centre
    return np.hstack([[cv2.Rodrigues(T)[0][:, 0] for T in turn], shift + moved])


MONTE_CARLO = {
    "least squares": {},
    "known noise": {"noise": 0.7},
    "weights": {"weights": np.linspace(0.2, 3, 68)},
    "huber": {"robust": "huber"},
    "ransac": {"robust": "ransac", "n_samples": 30},
}


@each_camera
@pytest.mark.parametrize("arguments", MONTE_CARLO.values(), ids=MONTE_CARLO)
def test_covariance_is_that_of_many_noisy_images(rng, camera, arguments):
    n = 800
    reference = X + np.array([0.3, -0.2, 0.5])
    pixels = Camera(700.0, 600.0, 320.0, 240.0)
    R = euler_to_rotation([[25.0, -10.0, 15.0]]).repeat(n, axis=0)
    scale = [0.4, -0.3, 5.0] if not camera.is_orthographic else [0.4, -0.3, 1 / 130]
    true = Pose(R, np.tile(scale, (n, 1)), np.zeros(n), np.ones(n, dtype=bool))
    camera = camera if camera.is_orthographic else pixels
    root = np.sqrt(arguments.get("weights", np.ones(68)))[:, None]
    points = true.project(reference, camera) + 0.7 / root * rng.normal(size=(n, 68, 2))
    pose = solve_pnp(points, reference, camera, covariance=True, **arguments)
    off = deviations(pose, true, reference)
    if camera.is_orthographic:
        # There the centre moves in the image plane only; t_z is the scale.
        off[:, 5] = (pose.translation - true.translation)[:, 2]
    expected = pose.covariance.mean(axis=0)
    L = np.linalg.cholesky(expected)
    spread = np.cov(np.linalg.solve(L, off.T))
    eigenvalues = np.linalg.eigvalsh(spread)
    # Of 800 draws from 6 dimensions these lie between 0.83 and 1.18, three times in a thousand not.
    assert eigenvalues[0] > 0.78
    assert eigenvalues[-1] < 1.25
    np.testing.assert_array_equal(pose.covariance, pose.covariance.transpose(0, 2, 1))


def test_covariance_grows_with_the_square_of_the_noise_and_not_with_its_estimate(rng):
    camera = CAMERAS["perspective"]
    points, _ = images(rng, 3, camera)
    one, two = (
        solve_pnp(points, X, camera, covariance=True, noise=noise).covariance for noise in (1, 2)
    )
    np.testing.assert_allclose(two, 4 * one, rtol=1e-12)
    assert solve_pnp(points, X, camera).covariance is None


# Focal length


def shots(rng, focal, n=60, noise=0.5, depth=(2.5, 6.0)):
    camera = Camera(focal, focal, 319.5, 239.5)
    R = euler_to_rotation(rng.uniform(-1, 1, (n, 3)) * [60, 40, 50])
    z = rng.uniform(*depth, n)
    t = np.column_stack([rng.uniform(-0.25, 0.25, (n, 2)) * z[:, None], z])
    x = Pose(R, t, z, z > 0).project(X, camera)
    return x + noise * rng.normal(size=x.shape)


@pytest.mark.parametrize("focal", [250.0, 900.0])
def test_the_focal_length_of_a_batch_is_found(rng, focal):
    found = asmkit.estimate_focal(shots(rng, focal), X, (640, 480))
    assert found.is_determined
    low, high = found.interval
    assert low < found.focal < high
    # Twice the half-width of a 95 % interval: six standard deviations would not be chance.
    assert low - 0.5 * (high - low) < focal < high + 0.5 * (high - low)
    assert high / low < 1.2
    np.testing.assert_allclose(found.reprojection_error, 0.5 * np.sqrt(2), rtol=0.1)
    assert (found.camera.cx, found.camera.cy, found.n_shapes) == (319.5, 239.5, 60)


def test_no_other_focal_length_has_less_error(rng):
    x = shots(rng, 500.0, n=20)
    found = asmkit.estimate_focal(x, X, principal_point=(319.5, 239.5))

    def error(focal):
        pose = solve_pnp(x, X, Camera(focal, focal, 319.5, 239.5))
        return np.sqrt((pose.reprojection_error**2).mean())

    np.testing.assert_allclose(error(found.focal), found.reprojection_error, rtol=1e-9)
    for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 2.0):
        assert error(factor * found.focal) > found.reprojection_error


def test_noise_free_images_give_the_exact_focal_length_with_points_missing(rng):
    x = shots(rng, 500.0, n=10, noise=0.0)
    x[rng.random((10, 68)) < 0.3] = np.nan
    x[0] = np.nan
    found = asmkit.estimate_focal(x, X, (640, 480))
    np.testing.assert_allclose(found.focal, 500.0, rtol=1e-5)
    assert found.n_shapes == 9


def test_images_without_perspective_say_that_they_cannot_tell(rng):
    x, _ = images(rng, 20, Camera(1.0, 1.0, 0.0, 0.0, is_orthographic=True))
    found = asmkit.estimate_focal(1000 * x + [320, 240], X, (640, 480))
    assert not found.is_determined
    assert found.interval[1] == np.inf
    assert found.interval[0] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "image_size"),
        ({"image_size": (0, 480)}, "positive"),
        ({"principal_point": (0.0, -1.0), "bounds": (9.0, 5.0)}, "rising"),
        ({"principal_point": (-10.0, -10.0)}, "bounds"),
        ({"image_size": (640, 480), "confidence": 1.0}, "confidence"),
    ],
)
def test_a_focal_search_refuses_what_it_cannot_do(rng, arguments, message):
    x = shots(rng, 500.0, n=3)
    with pytest.raises(ValueError, match=message):
        asmkit.estimate_focal(x, X, **arguments)
    with pytest.raises(ValueError, match="none of the 3"):
        asmkit.estimate_focal(np.full_like(x, np.nan), X, (640, 480))


# The command line, and the cache


def test_the_command_says_how_many_points_a_pose_rests_on(rng, tmp_path):
    points, _ = images(rng, 2, Camera(200.0, 200.0, 100.0, 100.0), noise=0.0)
    points[1, 5] += 60
    for i, shape in enumerate(points):
        asmkit.write(tmp_path / f"{i}.pts", [Annotation(points=shape, name=f"{i}")])
    for robust, counts in (([], ["68", "68"]), (["--robust", "ransac"], ["68", "67"])):
        camera = ["--camera", "200,200,100,100"]
        result = CliRunner().invoke(main, ["pose", str(tmp_path), *camera, *robust])
        assert result.exit_code == 0, result.output
        rows = list(csv.DictReader(result.output.splitlines()))
        assert [row["points"] for row in rows] == counts


SOLVE_AND_PRINT = """
import hashlib
import numpy as np
from asmkit._kernels import weighted_pnp
from asmkit.pose import Camera, face_reference, solve_pnp

rng = np.random.default_rng(0)
X = face_reference()
x = 300 + 60 * X[:, :2] + rng.normal(0, 3, (100, 68, 2))
x[:, :20] += rng.normal(0, 50, (100, 20, 2))
for camera in (Camera.orthographic(), Camera.default(640, 480)):
    for robust in (None, "huber", "ransac"):
        pose = solve_pnp(x, X, camera, weights=rng.uniform(0, 1, 68), robust=robust)
        for array in (pose.rotation, pose.translation, pose.reprojection_error, pose.weights):
            print(hashlib.sha256(array.tobytes()).hexdigest())
for kernel in (weighted_pnp.solve_weighted, weighted_pnp.solve_robust):
    print(sum(kernel.stats.cache_hits.values()))
"""


@pytest.mark.slow
def test_kernels_from_the_cache_give_the_bits_of_those_just_compiled(tmp_path):
    def run():
        return subprocess.run(
            [sys.executable, "-c", SOLVE_AND_PRINT],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()

    compiled, loaded = run(), run()
    assert (compiled[-2:], loaded[-2:]) == (["0", "0"], ["1", "1"])
    assert loaded[:-2] == compiled[:-2]
