import numpy as np
import pytest
from shape_families import family, random_similarity

from asmkit._kernels.shape import place, project

EPS = {np.float64: 1e-12, np.float32: 2e-5}
types = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def project_plain(shapes, mean, modes):
    """Pose (a, b, t) of the mean in each shape, and its coefficients on the modes (k, p, 2)."""
    poses, coefficients = [], []
    for shape in shapes.astype(np.float64):
        centre = shape.mean(axis=0)
        x, y = (shape - centre).T
        a = np.sum(mean[:, 0] * x + mean[:, 1] * y)
        b = np.sum(mean[:, 0] * y - mean[:, 1] * x)
        back = np.linalg.inv([[a, -b], [b, a]])
        deviation = (shape - centre) @ back.T - mean
        poses.append([a, b, *centre])
        coefficients.append([np.sum(mode * deviation) for mode in modes])
    return np.array(poses), np.array(coefficients)


def place_plain(coefficients, poses, mean, modes):
    shapes = []
    for b, (re, im, *centre) in zip(coefficients, poses, strict=True):
        model = mean + np.einsum("k,kpd->pd", b, modes)
        shapes.append(model @ np.array([[re, -im], [im, re]]).T + centre)
    return np.array(shapes)


def in_planes(modes):
    return np.ascontiguousarray(modes.swapaxes(1, 2).reshape(len(modes), -1))


@pytest.fixture
def case(rng):
    """Shapes, a mean and modes as the kernels ask for them: orthogonal to the similarities."""
    shapes = family(rng, 130, p=9)
    mean = rng.normal(size=(9, 2))
    mean -= mean.mean(axis=0)
    mean /= np.linalg.norm(mean)
    turned = mean @ [[0, 1], [-1, 0]]
    ones = np.tile(np.eye(2), (9, 1, 1)).swapaxes(0, 1)
    fixed = np.concatenate([ones, mean[None], turned[None]]).reshape(4, -1)
    basis = np.linalg.qr(np.concatenate([fixed, rng.normal(size=(5, 18))]).T)[0].T
    return shapes, mean, basis[4:].reshape(5, 9, 2)


def call_project(shapes, mean, modes, rows=64):
    dtype = shapes.dtype
    coefficients = np.empty((len(shapes), len(modes)), dtype)
    poses = np.empty((len(shapes), 4), dtype)
    flat = shapes.reshape(len(shapes), 2 * len(mean)).view()
    flat.flags.writeable = False
    planes = np.ascontiguousarray(in_planes(modes).T).astype(dtype)
    block = np.empty((rows, 2 * len(mean)), dtype)
    by_axis = np.ascontiguousarray(mean.T).astype(dtype)
    n_bad = project(flat, by_axis, planes, block, coefficients, poses)
    return poses, coefficients, n_bad


def call_place(coefficients, poses, mean, modes, rows=64):
    dtype = coefficients.dtype
    out = np.empty((len(coefficients), 2 * len(mean)), dtype)
    block = np.empty((rows, 2 * len(mean)), dtype)
    interleaved = modes.reshape(len(modes), -1).astype(dtype)
    place(coefficients, poses, mean.reshape(-1).astype(dtype), interleaved, block, out)
    return out.reshape(len(out), len(mean), 2)


@types
@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 130])
def test_project_equals_its_plain_twin(case, dtype, n):
    shapes, mean, modes = case
    shapes = shapes[:n].astype(dtype)
    poses, coefficients, n_bad = call_project(shapes, mean, modes)
    assert n_bad == 0
    if n:
        twin_poses, twin_coefficients = project_plain(shapes, mean, modes)
        scale = np.abs(twin_poses).max(axis=1, keepdims=True)
        assert np.abs((poses - twin_poses) / scale).max() < EPS[dtype]
        assert np.abs(coefficients - twin_coefficients).max() < 20 * EPS[dtype]


@types
@pytest.mark.parametrize("n", [0, 1, 64, 130])
def test_place_equals_its_plain_twin(case, rng, dtype, n):
    _, mean, modes = case
    coefficients = rng.normal(size=(n, 5)).astype(dtype)
    poses = rng.normal(size=(n, 4)).astype(dtype)
    found = call_place(coefficients, poses, mean, modes)
    assert found.dtype == dtype
    if n:
        assert np.abs(found - place_plain(coefficients, poses, mean, modes)).max() < 10 * EPS[dtype]


def test_the_size_of_the_block_does_not_matter(case):
    shapes, mean, modes = case
    poses, coefficients, _ = call_project(shapes, mean, modes)
    for rows in (1, 4, 200):
        other_poses, other_coefficients, _ = call_project(shapes, mean, modes, rows)
        assert np.array_equal(other_poses, poses)
        assert other_coefficients == pytest.approx(coefficients, rel=1e-12, abs=1e-14)


@types
def test_a_far_away_origin_costs_no_digits_but_those_of_the_input(case, dtype):
    shapes, mean, modes = case
    near = (shapes - shapes.mean(axis=1, keepdims=True)) / np.linalg.norm(
        shapes - shapes.mean(axis=1, keepdims=True), axis=(1, 2), keepdims=True
    )
    near = np.round(near * 1024) / 1024
    far = near + 4096.0  # exact in float32 too
    expected = call_project(near.astype(dtype), mean, modes)[1]
    assert np.array_equal(far.astype(dtype) - dtype(4096), near.astype(dtype))
    assert np.abs(call_project(far.astype(dtype), mean, modes)[1] - expected).max() < EPS[dtype]


@types
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [(0, 0), (0, 1), (8, 0), (8, 1)])
def test_missing_and_infinite_points_are_counted(case, dtype, bad, where):
    shapes, mean, modes = case
    shapes = shapes.astype(dtype)
    shapes[70][where] = bad
    shapes[3][where] = bad
    assert call_project(shapes, mean, modes)[2] == 2


@types
@pytest.mark.parametrize("position", [0.0, 0.1, -1234.567])
def test_coinciding_points_are_counted(case, dtype, position):
    shapes, mean, modes = case
    shapes = shapes.astype(dtype)
    shapes[5] = position
    shapes[77] = position
    shapes[77, 2, 1] = np.nextafter(dtype(position), dtype(np.inf)) if position else position
    assert call_project(shapes, mean, modes)[2] == 2


def test_project_follows_similarities(case, rng):
    shapes, mean, modes = case
    T = random_similarity(rng, len(shapes), 2)
    first = call_project(shapes, mean, modes)[1]
    assert np.abs(call_project(T.apply(shapes), mean, modes)[1] - first).max() < 1e-9
