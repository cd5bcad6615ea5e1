"""The compiled pose kernel against a plain twin, and the inputs it must not mind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from asmkit._kernels import pnp
from asmkit.pose import Camera, Pose, euler_to_rotation, face_reference, solve_pnp

CAMERAS = {"perspective": Camera(500.0, 430.0, 310.0, 245.0), "orthographic": Camera.orthographic()}


def images(rng, n, camera, X, noise=0.02):
    """Images and the true poses."""
    R = euler_to_rotation(rng.uniform(-60, 60, (n, 3)))
    z = rng.uniform(4, 12, n)
    t = np.column_stack([rng.uniform(-0.3, 0.3, (n, 2)) * z[:, None], z])
    pose = Pose(R, t, np.zeros(n), np.ones(n, dtype=bool))
    x = pose.project(X, camera)
    return x + (noise * camera.fx / z)[:, None, None] * rng.normal(size=x.shape), pose


def cross_matrix(v):
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])


def rotation_of(w):
    """Rodrigues' formula."""
    angle = np.linalg.norm(w)
    K = cross_matrix(w / angle) if angle > 0 else np.zeros((3, 3))
    return np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K


def solve_pnp_plain(x, X, camera, R, t):
    """The twin: one shape, undamped Gauss-Newton from a given pose, one point after the other."""
    f = np.array([camera.fx, camera.fy])
    c = np.array([camera.cx, camera.cy])
    for _ in range(60):
        J, r = [], []
        for point, image in zip(X, x, strict=True):
            q = R @ point
            depth = t[2] if camera.is_orthographic else q[2] + t[2]
            P = q + t
            to_image = np.array([[1, 0, -P[0] / depth], [0, 1, -P[1] / depth]]) / depth
            turn = -cross_matrix(q)
            if camera.is_orthographic:
                turn[2] = 0
            J.append(f[:, None] * (to_image @ np.hstack([turn, np.eye(3)])))
            r.append(f * P[:2] / depth + c - image)
        step = -np.linalg.lstsq(np.concatenate(J), np.concatenate(r), rcond=None)[0]
        R, t = rotation_of(step[:3]) @ R, t + step[3:]
    return R, t, np.sqrt((np.array(r) ** 2).sum(axis=1).mean())


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
@pytest.mark.parametrize("n_points", [6, 8, 68])
def test_kernel_equals_its_plain_twin(rng, camera, n_points):
    X = face_reference() if n_points == 68 else rng.normal(size=(n_points, 3))
    x, true = images(rng, 5, camera, X)
    pose = solve_pnp(x, X, camera)
    for i in range(5):
        R, t, rms = solve_pnp_plain(x[i], X, camera, true.rotation[i], true.translation[i])
        np.testing.assert_allclose(pose.rotation[i], R, atol=1e-6)
        np.testing.assert_allclose(pose.translation[i], t, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(pose.reprojection_error[i], rms, rtol=1e-10)


VARIANTS = {
    "float32": lambda x: x.astype(np.float32),
    "integers": lambda x: np.round(x).astype(np.int32),
    "fortran": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "reversed": lambda x: x[::-1][::-1],
    "big-endian": lambda x: x.astype(">f8"),
    "list": lambda x: x.tolist(),
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_layout_and_type_of_the_input_do_not_matter(rng, variant):
    X, camera = face_reference(), CAMERAS["perspective"]
    x, _ = images(rng, 7, camera, X)
    given = variant(x)
    expected = solve_pnp(np.array(given, dtype=np.float64), X, camera)
    pose = solve_pnp(given, X, camera)
    np.testing.assert_array_equal(pose.rotation, expected.rotation)
    assert pose.rotation.dtype == np.float64


def test_read_only_input_is_accepted_and_input_is_never_written(rng):
    X, camera = face_reference(), CAMERAS["perspective"]
    x, _ = images(rng, 7, camera, X)
    before, expected = x.copy(), solve_pnp(x, X, camera)
    np.testing.assert_array_equal(x, before)
    x.flags.writeable = X.flags.writeable = False
    np.testing.assert_array_equal(solve_pnp(x, X, camera).rotation, expected.rotation)


def test_whatever_came_one_kernel_was_compiled(rng):
    X = face_reference()
    for camera in CAMERAS.values():
        for variant in VARIANTS.values():
            solve_pnp(variant(images(rng, 3, camera, X)[0]), X, camera)
    assert len(pnp.solve.signatures) == 1


@pytest.mark.parametrize("n_points", range(4, 13))
def test_any_number_of_points_whatever_the_padding(rng, n_points):
    camera = CAMERAS["perspective"]
    X = rng.normal(size=(n_points, 3))
    x, true = images(rng, 10, camera, X, noise=0.0)
    pose = solve_pnp(x, X, camera)
    exact = np.abs(pose.rotation - true.rotation).max(axis=(1, 2)) < 1e-8
    assert exact.mean() >= (0.8 if n_points < 6 else 1.0)


def test_a_chunk_writes_its_own_rows_only(rng):
    X = face_reference()
    x, _ = images(rng, 9, CAMERAS["orthographic"], X)
    n = len(x)
    R, t, rms = np.full((n, 3, 3), 7.0), np.full((n, 3), 7.0), np.full(n, 7.0)
    from asmkit.pose import _principal_frame

    lens = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    pnp.solve(x, lens, *_principal_frame(X), 2, 5, R, t, rms)
    for array in (R, t, rms):
        assert (array[[0, 1, 5, 6, 7, 8]] == 7.0).all()
        assert (array[2:5] != 7.0).all()


SOLVE_AND_PRINT = """
import hashlib
import numpy as np
from asmkit._kernels import pnp
from asmkit.pose import Camera, face_reference, solve_pnp

rng = np.random.default_rng(0)
X = face_reference()
x = 300 + 60 * X[:, :2] + rng.normal(0, 3, (300, 68, 2))
for camera in (Camera.orthographic(), Camera.default(640, 480)):
    pose = solve_pnp(x, X, camera)
    for array in (pose.rotation, pose.translation, pose.reprojection_error):
        print(hashlib.sha256(array.tobytes()).hexdigest())
print(sum(pnp.solve.stats.cache_hits.values()))
"""


@pytest.mark.slow
def test_a_kernel_from_the_cache_gives_the_bits_of_the_one_just_compiled(tmp_path):
    def run():
        return subprocess.run(
            [sys.executable, "-c", SOLVE_AND_PRINT],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()

    *compiled, hits = run()
    *loaded, hits_again = run()
    assert (hits, hits_again) == ("0", "1")
    assert loaded == compiled
