"""Theorems on 3-D references made of 2-D shapes whose rotations are known."""

from __future__ import annotations

import csv

import numpy as np
import pytest

import asmkit
from asmkit.pose import Camera, euler_to_rotation, solve_pnp

MIRROR = np.array([1, 0, 3, 2, 4, 5, 7, 6])


def normalised(X):
    X = X - X.mean(axis=0)
    return X / np.sqrt((X**2).sum(axis=1).mean())


def symmetric_points(rng):
    X = rng.normal(size=(8, 3))
    return normalised(X + X[MIRROR] * [-1, 1, 1])


def rotations(rng, n):
    return euler_to_rotation(rng.uniform(-1, 1, (n, 3)) * [70, 40, 40])


def views(rng, X, R, noise=0.0):
    """Scaled-orthographic images, each of its own size and at its own place."""
    x = X @ R[:, :2].transpose(0, 2, 1)
    x = x + noise * rng.normal(size=x.shape)
    return rng.uniform(20, 300, (len(R), 1, 1)) * x + rng.normal(0, 500, (len(R), 1, 2))


@pytest.mark.parametrize("mirror", [None, MIRROR], ids=["as it is", "mirrored"])
@pytest.mark.parametrize("share_missing", [0.0, 0.3])
def test_noise_free_views_give_the_points_up_to_shift_and_unit(rng, mirror, share_missing):
    X, R = symmetric_points(rng), rotations(rng, 25)
    x = views(rng, X, R)
    x[rng.random((25, 8)) < share_missing] = np.nan
    found = asmkit.fit_reference(x, R, mirror=mirror)
    np.testing.assert_allclose(found, X, atol=1e-9)


def test_the_reference_is_centred_of_unit_size_and_symmetric_to_the_last_bit(rng):
    X, R = symmetric_points(rng), rotations(rng, 25)
    found = asmkit.fit_reference(views(rng, X, R, noise=0.1), R, mirror=MIRROR)
    np.testing.assert_array_equal(found, found[MIRROR] * [-1, 1, 1])
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose((found**2).sum(axis=1).mean(), 1, rtol=1e-12)


@pytest.mark.parametrize("robust", [None, "huber", "tukey"])
def test_size_place_and_order_of_the_views_do_not_matter(rng, robust):
    X, R = symmetric_points(rng), rotations(rng, 30)
    x = views(rng, X, R, noise=0.05)
    found = asmkit.fit_reference(x, R, robust=robust)
    moved = rng.uniform(0.01, 5, (30, 1, 1)) * x + rng.normal(0, 50, (30, 1, 2))
    order = rng.permutation(30)
    again = asmkit.fit_reference(moved[order], R[order], robust=robust)
    np.testing.assert_allclose(again, found, atol=1e-6)


def test_turning_the_frame_of_the_rotations_turns_the_reference(rng):
    X, R = symmetric_points(rng), rotations(rng, 30)
    x = views(rng, X, R, noise=0.05)
    Q = euler_to_rotation([20.0, 30.0, -40.0])
    found = asmkit.fit_reference(x, R @ Q.T)
    np.testing.assert_allclose(found, asmkit.fit_reference(x, R) @ Q.T, atol=1e-9)
    # Turning an image turns the rotation of its shape.
    turn = euler_to_rotation([0.0, 0.0, 77.0])
    found = asmkit.fit_reference(x @ turn[:2, :2].T, turn @ R)
    np.testing.assert_allclose(found, asmkit.fit_reference(x, R), atol=1e-9)


def test_weight_zero_is_a_missing_point_and_whole_weights_are_repeated_shapes(rng):
    X, R = symmetric_points(rng), rotations(rng, 20)
    x = views(rng, X, R, noise=0.05)
    weights = (rng.random((20, 8)) > 0.2).astype(float)
    missing = np.where(weights[..., None] > 0, x, np.nan)
    a = asmkit.fit_reference(x, R, weights=weights)
    np.testing.assert_array_equal(a, asmkit.fit_reference(missing, R))
    times = rng.integers(0, 3, 20)
    a = asmkit.fit_reference(x, R, weights=np.repeat(times[:, None], 8, axis=1))
    b = asmkit.fit_reference(np.repeat(x, times, axis=0), np.repeat(R, times, axis=0))
    np.testing.assert_allclose(a, b, atol=1e-9)


def test_no_other_points_explain_the_views_better(rng):
    X, R = symmetric_points(rng), rotations(rng, 30)
    x = views(rng, X, R, noise=0.05)
    found = asmkit.fit_reference(x, R)
    faces = x - x.mean(axis=1, keepdims=True)

    def squares(Y, scales):
        Y = Y - Y.mean(axis=0)
        return ((faces / scales - Y @ R[:, :2].transpose(0, 2, 1)) ** 2).sum()

    images = found @ R[:, :2].transpose(0, 2, 1)
    scales = (images * faces).sum(axis=(1, 2)) / (images**2).sum(axis=(1, 2))
    scales = scales[:, None, None]
    # The unit of the scales is bound to that of the points: that of the free optimum differs.
    best = min(squares(k * found, scales) for k in np.linspace(0.95, 1.05, 2001))
    for size in (1e-2, 1e-4):
        for _ in range(20):
            other = found + size * rng.normal(size=found.shape)
            assert min(squares(k * other, scales) for k in np.linspace(0.95, 1.05, 41)) >= best


def test_the_reference_gives_back_the_poses_it_was_made_with(rng):
    X, R = symmetric_points(rng), rotations(rng, 30)
    x = views(rng, X, R)
    pose = solve_pnp(x, asmkit.fit_reference(x, R), Camera.orthographic())
    np.testing.assert_allclose(pose.rotation, R, atol=1e-7)


def test_wrong_points_and_shapes_move_a_robust_reference_little(rng):
    X, R = symmetric_points(rng), rotations(rng, 60)
    x = views(rng, X, R, noise=0.01)
    size = np.linalg.norm(x - x.mean(axis=1, keepdims=True), axis=2).mean(axis=1)[:, None]
    wrong = rng.random((60, 8)) < 0.1
    x[wrong] += (size * wrong)[wrong][:, None] * rng.normal(size=(wrong.sum(), 2))
    error = {
        robust: np.abs(asmkit.fit_reference(x, R, robust=robust) - X).max()
        for robust in (None, "huber", "tukey")
    }
    assert error["tukey"] < 0.02
    assert error["tukey"] <= error["huber"] < 0.2 * error[None]


def test_a_shape_that_fits_upside_down_only_is_left_out(rng):
    X, R = symmetric_points(rng), rotations(rng, 20)
    x = views(rng, X, R)
    x[3] *= -1
    np.testing.assert_allclose(asmkit.fit_reference(x, R), X, atol=1e-9)


def test_shapes_without_rotation_or_points_are_left_out(rng):
    X, R = symmetric_points(rng), rotations(rng, 20)
    x = views(rng, X, R)
    expected = asmkit.fit_reference(x[3:], R[3:])
    R[0], x[1], x[2, 2:] = np.nan, np.nan, np.nan
    np.testing.assert_array_equal(asmkit.fit_reference(x, R), expected)


def test_layout_and_type_do_not_matter_and_nothing_is_written(rng):
    X, R = symmetric_points(rng), rotations(rng, 20)
    x = views(rng, X, R, noise=0.05).astype(np.float32)
    expected = asmkit.fit_reference(x.astype(np.float64), R)
    fortran = np.asfortranarray(x)
    fortran.flags.writeable = R.flags.writeable = False
    np.testing.assert_array_equal(asmkit.fit_reference(fortran, R), expected)


def test_what_determines_no_reference_is_refused(rng):
    X, R = symmetric_points(rng), rotations(rng, 20)
    x = views(rng, X, R)
    with pytest.raises(ValueError, match=r"huber.*tukey"):
        asmkit.fit_reference(x, R, robust="ransac")
    with pytest.raises(ValueError, match=r"\(20, 3, 3\)"):
        asmkit.fit_reference(x, R[:3])
    with pytest.raises(ValueError, match="rotation matrices"):
        asmkit.fit_reference(x, R * [1, 1, -1])
    with pytest.raises(ValueError, match="too alike"):
        asmkit.fit_reference(x, np.tile(np.eye(3), (20, 1, 1)))
    hidden = x.copy()
    hidden[:, 5] = np.nan
    with pytest.raises(ValueError, match="number 5"):
        asmkit.fit_reference(hidden, R)
    with pytest.raises(ValueError, match="68"):
        asmkit.fit_reference(x, R, mirror="ibug68")


def test_a_reference_of_real_faces_gives_the_angles_of_others(data_dir):
    path = data_dir / "aflw2000" / "pose68.csv"
    if not path.is_file():
        pytest.skip(f"no AFLW2000-3D labels at {path}")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    values = np.array([row[1:] for row in rows], dtype=np.float64)
    labels, points = values[:, :3], values[:, 3:].reshape(-1, 68, 2)
    usable, even = (np.abs(labels) <= 99).all(axis=1), np.arange(len(labels)) % 2 == 0
    made, unseen = usable & even, usable & ~even
    X = asmkit.fit_reference(points[made], euler_to_rotation(labels[made]), mirror="ibug68")
    found = X / np.linalg.norm(X[36] - X[45])
    np.testing.assert_allclose(found, asmkit.face_reference("ibug68"), atol=2e-6)
    angles = solve_pnp(points[unseen], X, Camera.orthographic()).euler()
    errors = np.abs((angles - labels[unseen] + 180) % 360 - 180).mean(axis=0)
    assert (errors <= [0.8, 1.65, 1.0]).all()
