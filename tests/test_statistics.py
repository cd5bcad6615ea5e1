"""Streaming is the batch, whatever the split and the order; merging is an addition."""

from __future__ import annotations

import functools
import operator
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shape_families import family, mirror_family, random_similarity, size_of

from asmkit import FormatError, ShapeModel
from asmkit.alignment import similarity
from asmkit.frames import mirrored
from asmkit.modes import fixed_directions
from asmkit.statistics import MAX_COORDINATES, ShapeStatistics

ATTRIBUTES = ("reference", "n_samples", "mean", "scatter")


def distance(a: ShapeStatistics, b: ShapeStatistics) -> float:
    """The largest difference, relative to the size of what is compared."""
    differences = [np.abs(a.reference - b.reference).max(), np.abs(a.mean - b.mean).max()]
    differences.append(np.abs(a.scatter - b.scatter).max() / max(np.abs(b.scatter).max(), 1e-300))
    differences.append(abs(a.n_samples - b.n_samples))
    return float(max(differences))


def same_bits(a: ShapeStatistics, b: ShapeStatistics) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ATTRIBUTES)


def naive(shapes, reference, weights=None):
    """Each shape brought to the reference by itself, then textbook formulae."""
    pattern = reference - reference.mean(axis=0)
    pattern = pattern / np.linalg.norm(pattern)
    weights = np.ones(len(shapes)) if weights is None else weights
    aligned = np.stack([similarity(pattern, x).inverse().apply(x) for x in shapes])
    mean = np.average(aligned, axis=0, weights=weights)
    flat = (aligned - mean).reshape(len(shapes), -1)
    return ShapeStatistics(pattern, weights.sum(), mean, flat.T @ (weights[:, None] * flat))


@pytest.mark.parametrize("d", [2, 3])
def test_it_agrees_with_its_definition(rng, d):
    shapes = family(rng, n=40, d=d)
    weights = rng.uniform(0, 3, 40)
    assert distance(ShapeStatistics.of(shapes, shapes[3]), naive(shapes, shapes[3])) < 1e-12
    weighted = ShapeStatistics.of(shapes, shapes[3], sample_weight=weights)
    assert distance(weighted, naive(shapes, shapes[3], weights)) < 1e-12


@settings(max_examples=25)
@given(st.data())
def test_any_split_in_any_order_is_the_whole(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    d = data.draw(st.sampled_from([2, 3]))
    shapes = family(rng, n=data.draw(st.integers(1, 40)), d=d, p=5)
    reference = family(rng, n=1, d=d, p=5)[0] if data.draw(st.booleans()) else shapes[0]
    labels = rng.integers(0, data.draw(st.integers(1, 6)), len(shapes))
    try:
        whole = ShapeStatistics.of(shapes, reference)
    except ValueError:  # two unrelated shapes: one is the other's mirror image, say
        return
    parts = [ShapeStatistics.of(shapes[labels == i], reference) for i in rng.permutation(6)]
    assert distance(functools.reduce(operator.add, parts), whole) < 1e-11
    assert distance(parts[0].merge(*parts[1:]), whole) < 1e-11


@pytest.mark.parametrize("n", [255, 256, 257, 1500])
def test_the_chunks_inside_leave_no_trace(rng, n):
    # With 150 coordinates a chunk has 436 shapes, so that 1500 are four of them.
    shapes = family(rng, n=n, p=75)
    halves = (shapes[: n // 3], shapes[n // 3 :])
    parts = [ShapeStatistics.of(half, shapes[0]) for half in halves]
    assert distance(parts[0] + parts[1], ShapeStatistics.of(shapes, shapes[0])) < 1e-12
    assert distance(ShapeStatistics.of(shapes, shapes[0]), naive(shapes, shapes[0])) < 1e-12


def test_addition_commutes_to_the_bit_and_associates_to_rounding(rng):
    shapes = family(rng, n=60)
    a, b, c = (ShapeStatistics.of(part, shapes[0]) for part in np.split(shapes, [7, 30]))
    assert same_bits(a + b, b + a)
    assert distance((a + b) + c, a + (b + c)) < 1e-14
    nothing = ShapeStatistics.empty(shapes[0])
    assert same_bits(a + nothing, a)
    assert same_bits(nothing + a, a)
    assert same_bits(nothing, ShapeStatistics.of(shapes[:0], shapes[0]))


def test_a_far_mean_costs_no_digits(rng):
    # The shapes hardly vary but lie far from the reference: sums of squares would cancel.
    shapes = family(rng, n=50, spread=1e-6, posed=False)
    reference = shapes[0] / size_of(shapes[0]) + 0.15 * rng.normal(size=(9, 2))
    whole, parts = ShapeStatistics.of(shapes, reference), np.split(shapes, [3, 20])
    merged = functools.reduce(operator.add, (ShapeStatistics.of(x, reference) for x in parts))
    assert np.linalg.norm(whole.mean - whole.reference) > 1e5 * np.sqrt(
        np.trace(whole.scatter) / 49
    )
    assert distance(merged, whole) < 1e-8  # the shapes themselves have 10 digits of their spread
    assert distance(whole, naive(shapes, reference)) < 1e-8


@pytest.mark.parametrize("d", [2, 3])
def test_poses_do_not_matter(rng, d):
    shapes = family(rng, n=30, d=d, posed=False)
    moved = random_similarity(rng, 30, d).apply(shapes)
    expected = ShapeStatistics.of(shapes, shapes[0])
    assert distance(ShapeStatistics.of(moved, shapes[0]), expected) < 1e-11
    scaled = 1e3 * shapes[0] + 77  # the reference keeps its rotation, not its place and size
    assert distance(ShapeStatistics.of(shapes, scaled), expected) < 1e-11


def test_weights_are_repeats(rng):
    shapes = family(rng, n=700, p=75)  # more than one chunk
    repeats = rng.integers(0, 4, 700)
    weighted = ShapeStatistics.of(shapes, shapes[0], sample_weight=repeats)
    repeated = ShapeStatistics.of(np.repeat(shapes, repeats, axis=0), shapes[0])
    assert distance(weighted, repeated) < 1e-12
    none = ShapeStatistics.of(shapes, shapes[0], sample_weight=np.zeros(700))
    assert same_bits(none, ShapeStatistics.empty(shapes[0]))


def mirrored_in(rng, d):
    if d == 2:
        return mirror_family(rng, n=50)
    permutation = np.array([1, 0, 3, 2, 4, 5])
    half = rng.normal(size=(6, 3))
    mean = half + half[permutation] * [-1, 1, 1]
    shapes = mean + 0.08 * rng.normal(size=(50, 6, 3))
    return random_similarity(rng, 50, 3).apply(shapes), permutation


@pytest.mark.parametrize("d", [2, 3])
def test_mirror_counts_the_mirror_images(rng, d):
    shapes, permutation = mirrored_in(rng, d)
    found = ShapeStatistics.of(shapes, shapes[0], permutation)
    both = np.concatenate([shapes, mirrored(shapes, permutation)])
    assert found.n_samples == 100
    assert distance(found, ShapeStatistics.of(both, found.reference)) < 1e-11
    assert np.abs(mirrored(found.reference, permutation) - found.reference).max() < 1e-15
    assert np.abs(mirrored(found.mean, permutation) - found.mean).max() < 1e-15
    image = ShapeStatistics.of(mirrored(shapes, permutation), shapes[0], permutation)
    assert distance(image, found) < 1e-11


def test_a_reference_that_was_prepared_stays_as_it_is(rng):
    shapes, permutation = mirror_family(rng)
    for mirror in (None, permutation):
        prepared = ShapeStatistics.empty(shapes[0], mirror).reference
        assert np.array_equal(ShapeStatistics.empty(prepared, mirror).reference, prepared)


@pytest.mark.parametrize("d", [2, 3])
def test_its_modes_are_those_of_a_fit(rng, d):
    shapes = family(rng, n=300, d=d)
    model = ShapeModel(1.0).fit(shapes, reference=shapes[5])
    parts = [ShapeStatistics.of(part, shapes[5]) for part in np.array_split(shapes, 7)]
    found = functools.reduce(operator.add, parts)
    mean, variances, modes = found.principal_modes()
    assert np.abs(mean - model.mean_).max() < 1e-12
    assert np.abs(variances / model.explained_variance_ - 1).max() < 1e-9
    assert np.abs(modes - model.components_).max() < 1e-8
    assert np.abs(modes @ modes.T - np.eye(len(modes))).max() < 1e-12
    assert np.abs(modes @ fixed_directions(found.reference).T).max() < 1e-12
    assert np.isclose(variances.sum(), np.trace(found.scatter) / 299, rtol=1e-10)


def test_its_mirrored_modes_are_those_of_a_fit(rng):
    shapes, permutation = mirror_family(rng, n=300)
    model = ShapeModel(1.0, mirror=permutation).fit(shapes, reference=shapes[5])
    mean, variances, modes = ShapeStatistics.of(shapes, shapes[5], permutation).principal_modes()
    assert np.abs(mean - model.mean_).max() < 1e-12
    assert np.abs(variances / model.explained_variance_ - 1).max() < 1e-9
    assert np.abs(modes - model.components_).max() < 1e-8


def test_statistics_of_known_deviations(rng):
    shapes = family(rng, n=30)
    whole = ShapeStatistics.of(shapes, shapes[0])
    poses = similarity(whole.reference, shapes)
    deviations = poses.inverse().apply(shapes) - whole.mean
    found = ShapeStatistics.of_deviations(whole.reference, whole.mean, deviations)
    assert distance(found, whole) < 1e-12


# -- what comes in


def test_the_layout_of_the_input_does_not_matter(rng):
    shapes = family(rng, n=300, p=40).astype(np.float32)
    expected = ShapeStatistics.of(shapes.astype(np.float64), shapes[0])
    assert same_bits(ShapeStatistics.of(shapes, shapes[0]), expected)
    frozen = shapes.copy()
    frozen.flags.writeable = False
    assert same_bits(ShapeStatistics.of(frozen, frozen[0]), expected)
    assert np.array_equal(frozen, shapes)
    spread = np.zeros((600, 40, 3), np.float32)[::2, :, ::2]
    spread[:] = shapes
    assert same_bits(ShapeStatistics.of(spread, shapes[0]), expected)
    assert same_bits(ShapeStatistics.of(shapes.tolist(), shapes[0]), expected)


class Endless:
    """As many shapes as asked for, made when they are read."""

    def __init__(self, n, p=100, block=None):
        self.shape = (n, p, 2)
        self.base = np.random.default_rng(0).normal(size=(4096, p, 2)).astype(np.float32) / 9
        self.base += self.base[0] * 9
        self.read = []
        if block:
            self.block = block

    def __getitem__(self, rows):
        self.read.append((rows.start, rows.stop))
        return self.base[np.arange(rows.start, min(rows.stop, self.shape[0])) % 4096]


def test_memory_does_not_depend_on_the_number_of_shapes():
    peaks = []
    for n in (4_000, 40_000):
        source = Endless(n)
        tracemalloc.start()
        found = ShapeStatistics.of(source, source.base[0])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.n_samples == n
    assert peaks[1] < peaks[0] + 50_000  # all shapes have 32 MB
    assert peaks[1] < 4 << 20


def test_a_source_is_read_once_in_its_own_blocks():
    source = Endless(5000, block=2000)
    found = ShapeStatistics.of(source, source.base[0])
    assert source.read == [(0, 2000), (2000, 4000), (4000, 5000)]
    plain = Endless(5000)
    assert distance(found, ShapeStatistics.of(plain, source.base[0])) < 1e-13


@pytest.mark.parametrize("row", [0, 300, 436, 1499])
def test_a_message_tells_which_shape(rng, row):
    shapes = family(rng, n=1500, p=75)
    for value, message in (
        (np.nan, f"shape number {row} holds NaN"),
        (np.inf, f"shape number {row} holds infinite coordinates"),
        (1e200, f"the coordinates of shape number {row} are too large"),
    ):
        broken = shapes.copy()
        broken[row, 7, 0] = value
        with pytest.raises(ValueError, match=message):
            ShapeStatistics.of(broken, shapes[1])
    broken = shapes.copy()
    broken[row] = 3.3
    with pytest.raises(ValueError, match=f"points coincide in shape number {row + 1000}"):
        ShapeStatistics.of(broken, shapes[1], first=1000)


@pytest.mark.parametrize("d", [2, 3])
def test_mirrored_and_unrelated_shapes_are_refused(rng, d):
    shapes = family(rng, n=20, d=d)
    shapes[11, :, 0] *= -1
    with pytest.raises(ValueError, match="shape number 11 looks mirrored against the reference"):
        ShapeStatistics.of(shapes, shapes[0])
    # A hexagon and its star, each point twice as fast around: no rotation fits.
    turn = np.exp(2j * np.pi * np.arange(6) / 6)
    hexagon, star = (np.stack([z.real, z.imag], -1) for z in (turn, turn**2))
    with pytest.raises(ValueError, match="shape number 1 is orthogonal"):
        ShapeStatistics.of(np.stack([hexagon, star]), hexagon)


def test_statistics_of_different_frames_do_not_add_up(rng):
    shapes = family(rng, n=20)
    a = ShapeStatistics.of(shapes, shapes[0])
    with pytest.raises(ValueError, match=r"references of these statistics differ \(by up to"):
        a + ShapeStatistics.of(shapes, shapes[1])
    with pytest.raises(ValueError, match="9 points in 2-D cannot be added to those of 8 points"):
        a + ShapeStatistics.of(shapes[:, :8], shapes[0, :8])
    # The same reference at another place is the same.
    b = ShapeStatistics.of(shapes, 3 * shapes[0] + 5)
    assert (a + b).n_samples == 40
    with pytest.raises(TypeError):
        a + 1  # type: ignore[operator]


def test_bad_arguments_are_refused(rng):
    shapes = family(rng, n=5)
    with pytest.raises(ValueError, match="8 points in 2-D, but the reference has 9 points"):
        ShapeStatistics.of(shapes[:, :8], shapes[0])
    with pytest.raises(ValueError, match=r"got shape \(9, 2\)"):
        ShapeStatistics.of(shapes[0], shapes[0])
    with pytest.raises(ValueError, match="one a shape"):
        ShapeStatistics.of(shapes, shapes[0], sample_weight=[1, 2])
    with pytest.raises(ValueError, match="at least 0"):
        ShapeStatistics.of(shapes, shapes[0], sample_weight=[1, 2, -1, 0, 0])
    with pytest.raises(ValueError, match="reference: all points coincide"):
        ShapeStatistics.of(shapes, np.ones((9, 2)))
    large = rng.normal(size=(MAX_COORDINATES // 2 + 1, 2))
    with pytest.raises(ValueError, match=r"6002 coordinates.* are the limit: take fewer points"):
        ShapeStatistics.of(large[None], large)


def test_one_shape_has_no_modes(rng):
    shapes = family(rng, n=2)
    one = ShapeStatistics.of(shapes[:1], shapes[0])
    with pytest.raises(ValueError, match="expected at least 2"):
        one.principal_modes()
    with pytest.raises(ValueError, match="they do not differ"):
        (one + one).principal_modes()
    assert len((one + ShapeStatistics.of(shapes[1:], shapes[0])).principal_modes()[1]) == 1


# -- files


def test_a_file_gives_the_same_bits(rng, tmp_path):
    shapes = family(rng, n=20, d=3)
    found = ShapeStatistics.of(shapes, shapes[0])
    found.save(tmp_path / "part.npz")
    assert same_bits(ShapeStatistics.load(tmp_path / "part.npz"), found)
    assert same_bits(ShapeStatistics.from_arrays(**found.to_arrays()), found)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("reference", lambda a: 2 * a),
        ("reference", lambda a: a[:-1]),
        ("n_samples", lambda a: -a),
        ("mean", lambda a: a * np.nan),
        ("scatter", lambda a: -a),
        ("scatter", lambda a: np.triu(a)),
        ("scatter", lambda a: a.astype(np.float32)),
    ],
)
def test_statistics_of_no_shapes_are_refused(rng, tmp_path, name, change):
    shapes = family(rng, n=20)
    arrays = ShapeStatistics.of(shapes, shapes[0]).to_arrays()
    arrays[name] = change(arrays[name])
    with pytest.raises(ValueError, match="statistics"):
        ShapeStatistics.from_arrays(**arrays)
    ShapeStatistics(**arrays).save(tmp_path / "part.npz")
    with pytest.raises(FormatError, match=r"part\.npz"):
        ShapeStatistics.load(tmp_path / "part.npz")
