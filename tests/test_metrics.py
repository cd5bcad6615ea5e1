import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from asmkit.metrics import (
    angle_difference,
    auc,
    ced,
    failure_rate,
    nme,
    nme_by_group,
    normalizing_distance,
    pose_mae,
)
from asmkit.schemes import SCHEMES, scheme

NORMALIZERS = ("inter-ocular", "inter-pupil", "box-diagonal", "box-size")
errors = arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 0.3) | st.just(np.inf))
angles = st.floats(-720, 720)


@pytest.fixture
def faces(rng):
    return rng.uniform(0, 100, size=(5, 68, 2))


def test_nme_is_the_mean_distance_over_the_normalizer_not_the_rms(faces):
    predicted = faces.copy()
    predicted[:, 0] += [3, 4]
    expected = 5 / 68 / np.linalg.norm(faces[:, 36] - faces[:, 45], axis=-1)
    assert nme(predicted, faces) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_nme_does_not_change_with_the_size_and_place_of_the_image(faces, rng, normalizer):
    predicted = faces + rng.normal(size=faces.shape)
    moved = nme(7 * predicted + 30, 7 * faces + 30, normalizer)
    assert moved == pytest.approx(nme(predicted, faces, normalizer), rel=1e-9)
    assert (nme(faces, faces, normalizer) == 0).all()


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_the_normalizer_comes_from_the_truth_alone(faces, normalizer):
    distance = normalizing_distance(faces, normalizer)
    shifted = np.linalg.norm([1, 2]) / distance
    assert nme(faces + np.array([1, 2]), faces, normalizer) == pytest.approx(shifted, rel=1e-12)
    assert nme(faces + np.array([1, 2]), faces, distance) == pytest.approx(shifted, rel=1e-12)


def test_the_named_distances_are_the_published_ones(faces):
    eyes = faces[:, 36:42].mean(axis=1), faces[:, 42:48].mean(axis=1)
    extent = faces.max(axis=1) - faces.min(axis=1)
    expected = {
        "inter-ocular": np.linalg.norm(faces[:, 36] - faces[:, 45], axis=-1),
        "inter-pupil": np.linalg.norm(eyes[0] - eyes[1], axis=-1),
        "box-diagonal": np.hypot(extent[:, 0], extent[:, 1]),
        "box-size": np.sqrt(extent[:, 0] * extent[:, 1]),
    }
    for name in NORMALIZERS:
        assert normalizing_distance(faces, name) == pytest.approx(expected[name], rel=1e-12)


def test_wflw_uses_its_own_eye_corners(rng):
    faces = rng.uniform(0, 100, size=(3, 98, 2))
    expected = np.linalg.norm(faces[:, 60] - faces[:, 72], axis=-1)
    assert normalizing_distance(faces) == pytest.approx(expected)


def test_points_missing_in_the_truth_do_not_count(faces):
    truth = faces.copy()
    truth[:, :10] = np.nan
    predicted = faces + np.array([3, 4])
    assert nme(predicted, truth) == pytest.approx(5 / normalizing_distance(faces))
    predicted[:, :10] = np.nan
    assert nme(predicted, truth) == pytest.approx(5 / normalizing_distance(faces))


def test_a_face_that_was_not_found_is_a_failure_everywhere(faces):
    predicted = faces.copy()
    predicted[2] = np.nan
    predicted[3, 7, 1] = np.nan
    error = nme(predicted, faces)
    assert error.tolist() == [0, 0, np.inf, np.inf, 0]
    assert failure_rate(error) == 0.4
    assert auc(error) == pytest.approx(0.6)
    assert ced(error, [0.0, 1e9]).tolist() == [0.6, 0.6]


def test_a_normalizer_that_cannot_be_known_names_the_shape(faces):
    faces[3, 36] = np.nan
    with pytest.raises(ValueError, match=r"1 shape\(s\).*number 3"):
        nme(faces, faces)
    with pytest.raises(ValueError, match="all equal"):
        nme(np.zeros((1, 68, 2)), np.zeros((1, 68, 2)))
    with pytest.raises(ValueError, match="number 1"):
        nme(faces[:2], faces[:2], [1.0, 0.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 68, 2, "inter-nostril"), "known: box-diagonal, box-size, inter-ocular, inter-pupil"),
        ((5, 19, 2, "inter-ocular"), "for 19 points; known: box-diagonal, box-size, or"),
    ],
)
def test_an_unknown_normalizer_lists_the_known_ones(arguments, message):
    *shape, name = arguments
    with pytest.raises(ValueError, match=message):
        normalizing_distance(np.ones(shape), name)


def test_shapes_that_do_not_match_are_refused(faces):
    with pytest.raises(ValueError, match="4 predicted and 5 true"):
        nme(faces[:4], faces)
    with pytest.raises(ValueError, match="expected 68"):
        nme(faces[:, :67], faces)
    with pytest.raises(ValueError, match="wflw98 has 98"):
        nme(faces, faces, scheme="wflw98")


@pytest.mark.parametrize("known", SCHEMES.values(), ids=list(SCHEMES))
def test_nme_is_the_mean_over_the_parts_weighted_by_their_points(rng, known):
    truth = rng.uniform(0, 100, size=(4, known.n_points, 2))
    predicted = truth + rng.normal(size=truth.shape)
    parts = nme_by_group(predicted, truth)
    total = sum(parts[name] * len(indices) for name, indices in known.groups.items())
    assert total / known.n_points == pytest.approx(nme(predicted, truth), rel=1e-12)


def test_a_part_that_is_missing_in_the_truth_has_no_error(faces):
    truth = faces.copy()
    truth[1, list(scheme("ibug68").groups["jaw"])] = np.nan
    jaw = nme_by_group(faces, truth)["jaw"]
    assert np.isnan(jaw).tolist() == [False, True, False, False, False]


def test_parts_need_a_scheme():
    with pytest.raises(ValueError, match="19 points are of no known scheme"):
        nme_by_group(np.ones((1, 19, 2)), np.ones((1, 19, 2)), "box-size")


@given(errors, st.floats(0.01, 0.3))
def test_auc_is_the_integral_of_the_ced(values, threshold):
    steps = np.unique(np.concatenate([[0, threshold], values[values < threshold]]))
    heights = ced(values, steps[:-1])  # the CED is constant between its steps
    assert auc(values, threshold) == pytest.approx((heights * np.diff(steps)).sum() / threshold)


@given(errors, st.floats(0.01, 0.3))
def test_auc_equals_numerical_integration_of_the_ced(values, threshold):
    n = 20_000
    midpoints = (np.arange(n) + 0.5) * threshold / n
    assert auc(values, threshold) == pytest.approx(ced(values, midpoints).mean(), abs=1 / n)


@pytest.mark.parametrize("threshold", [0.05, 0.07, 0.08, 0.10])
def test_d1_no_grid_runs_past_the_threshold(threshold):
    # np.arange(0, t + 1e-4, 1e-4) ends at 0.0501 for t = 0.05: a failure there was counted as none.
    just_above = np.array([threshold + 5e-5])
    assert failure_rate(just_above, threshold) == 1
    assert auc(just_above, threshold) == 0
    assert auc([0.0], threshold) == 1
    assert auc([threshold / 2], threshold) == pytest.approx(0.5, rel=1e-12)


@given(errors, st.floats(0.01, 0.3))
def test_an_error_equal_to_the_threshold_is_no_failure(values, threshold):
    assert failure_rate([threshold], threshold) == 0
    assert failure_rate([np.nextafter(threshold, 1)], threshold) == 1
    assert failure_rate(values, threshold) == pytest.approx(1 - ced(values, [threshold])[0])


@given(errors)
def test_the_ced_counts_the_errors_up_to_each_threshold(values):
    thresholds = np.concatenate([values, [0.0, 0.1, 1e9]])
    expected = (values[:, None] <= thresholds).mean(axis=0)
    assert ced(values, thresholds) == pytest.approx(expected)


@pytest.mark.parametrize("measure", [auc, failure_rate, lambda e: ced(e, [0.1])])
@pytest.mark.parametrize("wrong", [[], [[0.1]], [0.1, np.nan], [-0.1]])
def test_wrong_errors_are_refused(measure, wrong):
    with pytest.raises(ValueError, match="nme: "):
        measure(wrong)


@pytest.mark.parametrize("measure", [auc, failure_rate])
@pytest.mark.parametrize("threshold", [0, -1, np.nan, np.inf])
def test_wrong_thresholds_are_refused(measure, threshold):
    with pytest.raises(ValueError, match="threshold"):
        measure([0.1], threshold)


@given(angles, angles, st.integers(-2, 2), st.integers(-2, 2))
def test_angles_are_compared_by_the_shorter_way_round(a, b, turns_a, turns_b):
    difference = angle_difference(a, b)
    assert -180 <= difference < 180
    assert np.cos(np.deg2rad(difference)) == pytest.approx(np.cos(np.deg2rad(a - b)), abs=1e-9)
    again = angle_difference(a + 360 * turns_a, b + 360 * turns_b)
    assert abs(angle_difference(again, difference)) < 1e-9


def test_pose_errors_wrap_around():
    truth = np.array([[179.0, 0, -179], [10, 20, 30]])
    predicted = np.array([[-179.0, 5, 179], [10, 15, 30]])
    assert pose_mae(predicted, truth) == pytest.approx([1, 5, 1])
    assert pose_mae(truth, predicted) == pytest.approx([1, 5, 1])


def test_faces_without_a_pose_are_left_out():
    truth = np.zeros((3, 3))
    predicted = np.array([[1.0, 2, 3], [np.nan] * 3, [3, 4, 5]])
    assert pose_mae(predicted, truth) == pytest.approx([2, 3, 4])
    assert np.isnan(pose_mae(predicted[1:2], truth[1:2])).all()


def test_poses_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 3\)"):
        pose_mae(np.zeros((2, 3)), np.zeros((3, 3)))
