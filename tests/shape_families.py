"""Made-up families of shapes for the tests of alignment and shape models."""

import numpy as np
from scipy.spatial.transform import Rotation

from asmkit.alignment import Similarity


def random_rotation(rng, n, d):
    if d == 3:
        return Rotation.random(n, rng=rng).as_matrix()
    angle = rng.uniform(-np.pi, np.pi, n)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)


def random_similarity(rng, n, d):
    scale = np.exp(rng.uniform(-3, 3, n))
    return Similarity(scale, random_rotation(rng, n, d), rng.uniform(-50, 50, (n, d)))


def family(rng, n=60, p=9, d=2, spread=0.08, posed=True):
    """Shapes (n, p, d) about one mean, with variances that fall, in random poses or in none."""
    mean = rng.normal(size=(p, d))
    sizes = np.geomspace(1.0, 0.05, p * d)
    basis = np.linalg.qr(rng.normal(size=(p * d, p * d)))[0]
    deviations = (spread * rng.normal(size=(n, p * d)) * sizes) @ basis
    shapes = mean + deviations.reshape(n, p, d)
    return random_similarity(rng, n, d).apply(shapes) if posed else shapes


def mirror_family(rng, n=60, spread=0.08):
    """Shapes (n, 9, 2) about a mirror-symmetric mean, and their mirror permutation."""
    permutation = np.array([1, 0, 3, 2, 5, 4, 6, 7, 8])
    half = rng.normal(size=(9, 2))
    mean = half + half[permutation] * [-1, 1]
    shapes = mean + spread * rng.normal(size=(n, 9, 2)) * np.linspace(1, 3, 9)[:, None]
    return random_similarity(rng, n, 2).apply(shapes), permutation


def size_of(shapes):
    centred = shapes - shapes.mean(axis=-2, keepdims=True)
    return np.sqrt((centred**2).sum(axis=(-1, -2)))


def relative_distance(a, b):
    """Largest distance between two sets of shapes, in sizes of the second."""
    return np.max(np.linalg.norm(a - b, axis=(-1, -2)) / size_of(b))
