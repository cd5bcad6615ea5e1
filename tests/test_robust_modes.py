"""Robust modes are those of the shapes that are right, whatever the wrong ones are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from asmkit.alignment import generalized_procrustes
from asmkit.annotations import read_shapes
from asmkit.modes import fixed_directions, principal_modes
from asmkit.robust_modes import robust_principal_modes

NONE = np.zeros((0, 16))


def normal(rng, n=120, sizes=(3.0, 2.0, 1.0)):
    """Deviations (n, 8, 2) with three modes and small noise."""
    modes = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    spread = np.r_[sizes, np.full(13, 0.1)]
    return (rng.normal(size=(n, 16)) * spread @ modes).reshape(n, 8, 2)


def spoil(rng, deviations, share, size):
    """Gross errors of a given size in the first shapes."""
    spoilt = deviations.copy()
    n_bad = int(share * len(spoilt))
    spoilt[:n_bad] += size * rng.normal(size=spoilt[:n_bad].shape)
    return spoilt, n_bad


def angle(a, b, k=3):
    return np.degrees(subspace_angles(a[:k].T, b[:k].T).max())


def test_of_clean_normal_shapes_the_modes_are_the_classical_ones(rng):
    deviations = normal(rng, 400)
    found = robust_principal_modes(deviations, NONE)
    assert found.weights.mean() > 0.99
    mean = deviations.mean(axis=0)
    variances, modes = principal_modes(deviations - mean, NONE, 1.0)
    np.testing.assert_allclose(found.variances[:3], variances[:3], rtol=0.03)
    assert angle(found.modes, modes) < 0.5
    np.testing.assert_allclose(found.shift, mean, atol=0.05)


@pytest.mark.parametrize("size", [3.0, 1e3, 1e8])
@pytest.mark.parametrize("share", [0.1, 0.2])
def test_gross_errors_get_weight_zero_and_change_nothing(rng, share, size):
    """The result is, to the bit, that of the shapes that kept their weight, and these are right."""
    deviations = normal(rng)
    spoilt, n_bad = spoil(rng, deviations, share, size)
    found = robust_principal_modes(spoilt, NONE)
    assert not found.weights[:n_bad].any()
    assert found.weights[n_bad:].mean() > 0.97
    right = spoilt[found.weights > 0]
    variances, modes = principal_modes(right - right.mean(axis=0), NONE, 1.0)
    np.testing.assert_array_equal(found.variances, variances)
    np.testing.assert_array_equal(found.modes, modes)
    np.testing.assert_array_equal(found.shift, right.mean(axis=0))


def test_errors_that_all_point_one_way_are_found(rng):
    """A cluster has little spread of its own: spherical PCA takes it for a mode."""
    deviations = normal(rng)
    deviations[:24, :4] += 6.0
    found = robust_principal_modes(deviations, NONE)
    assert not found.weights[:24].any()
    assert found.weights[24:].mean() > 0.97


def test_classical_modes_do_not_pass_this_test(rng):
    """The control: the errors that the robust modes withstand do bend the classical ones."""
    deviations = normal(rng)
    _, clean = principal_modes(deviations - deviations.mean(axis=0), NONE, 1.0)
    spoilt, _ = spoil(rng, deviations, 0.1, 10.0)
    _, bent = principal_modes(spoilt - spoilt.mean(axis=0), NONE, 1.0)
    assert angle(bent, clean) > 40
    assert angle(robust_principal_modes(spoilt, NONE).modes, clean) < 4


def test_rotated_deviations_give_rotated_modes(rng):
    spoilt, _ = spoil(rng, normal(rng), 0.1, 5.0)
    turn = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    turned = (spoilt.reshape(-1, 16) @ turn).reshape(spoilt.shape)
    first, second = (robust_principal_modes(each, NONE) for each in (spoilt, turned))
    np.testing.assert_array_equal(first.weights, second.weights)
    np.testing.assert_allclose(first.variances, second.variances, rtol=1e-9)
    assert angle(first.modes @ turn, second.modes) < 1e-5
    np.testing.assert_allclose(first.shift.ravel() @ turn, second.shift.ravel(), atol=1e-10)


def test_moved_deviations_give_the_moved_mean(rng):
    spoilt, _ = spoil(rng, normal(rng), 0.1, 5.0)
    move = rng.normal(size=(8, 2))
    first, second = (robust_principal_modes(each, NONE) for each in (spoilt, spoilt + move))
    np.testing.assert_allclose(second.shift, first.shift + move, atol=1e-10)
    np.testing.assert_allclose(second.variances, first.variances, rtol=1e-9)


def test_shapes_in_a_plane_tell_what_lies_off_it(rng):
    plane = normal(rng, sizes=(3.0, 2.0, 0.0))
    flat = plane.reshape(-1, 16)
    basis = np.linalg.svd(flat, full_matrices=False)[2][:2]
    deviations = (flat @ basis.T @ basis).reshape(plane.shape)
    deviations[:12] += 0.05 * rng.normal(size=(12, 8, 2))
    found = robust_principal_modes(deviations, NONE)
    assert len(found.variances) == 2
    assert not found.weights[:12].any()
    assert found.weights[12:].all()


def test_more_directions_than_shapes(rng):
    deviations = rng.normal(size=(12, 30, 3)) * np.linspace(3, 0.1, 30)[:, None]
    deviations[0] += 100
    found = robust_principal_modes(deviations, np.zeros((0, 90)))
    assert found.weights[0] == 0
    assert found.weights[1:].all()
    assert found.modes.shape == (10, 90)


@pytest.mark.parametrize(
    ("deviations", "match"),
    [
        (np.zeros((4, 8, 2)), "at least 5"),
        (np.zeros((9, 16)), r"\(n, p, d\)"),
        (np.full((9, 8, 2), np.nan), "finite"),
        (np.zeros((9, 8, 2)), "do not differ"),
    ],
)
def test_bad_deviations_are_named(deviations, match):
    with pytest.raises(ValueError, match=match):
        robust_principal_modes(deviations, NONE)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.2])
def test_faces_with_permuted_landmarks_give_the_modes_of_the_right_ones(data_dir, rng, share):
    shapes = read_shapes(data_dir / "300w" / "train")[::2]
    clean = generalized_procrustes(shapes)
    fixed = fixed_directions(clean.mean)
    variances, modes = principal_modes(clean.aligned - clean.mean, fixed, 1.0)
    bad = rng.permutation(len(shapes))[: int(share * len(shapes))]
    for shape in bad:
        shapes[shape] = shapes[shape][rng.permutation(68)]
    spoilt = generalized_procrustes(shapes, clean.mean)
    found = robust_principal_modes(spoilt.aligned - clean.mean, fixed)
    assert not found.weights[bad].any()
    assert found.weights.sum() > 0.95 * (len(shapes) - len(bad))
    assert angle(found.modes, modes, 5) < 12
    assert abs(np.log(found.variances[:10].sum() / variances[:10].sum())) < 0.1
