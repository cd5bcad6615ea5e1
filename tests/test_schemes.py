import pickle
import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from asmkit.schemes import SCHEMES, Contour, Scheme, convert_points, scheme, scheme_of

IBUG68, WFLW98 = scheme("ibug68"), scheme("wflw98")
every_scheme = pytest.mark.parametrize("known", SCHEMES.values(), ids=list(SCHEMES))


def tiny(**changes):
    parts = {
        "name": "tiny",
        "n_points": 3,
        "groups": {"ends": (0, 2), "middle": (1,)},
        "contours": (Contour((0, 1, 2), closed=False),),
        "mirror": (2, 1, 0),
        "normalizers": {"length": ((0,), (2,))},
    }
    return Scheme(**(parts | changes))


def test_a_scheme_is_found_by_name_by_itself_and_by_its_number_of_points():
    assert scheme("ibug68") is IBUG68
    assert scheme(IBUG68) is IBUG68
    assert scheme_of(98) is WFLW98
    assert scheme_of(67) is None


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'ibug69'; known: ibug68, wflw98"):
        scheme("ibug69")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": {"ends": (0, 2)}}, "every landmark exactly once"),
        ({"groups": {"ends": (0, 2), "middle": (1, 2)}}, "every landmark exactly once"),
        ({"mirror": (2, 1, 1)}, "permutation"),
        ({"mirror": (1, 2, 0)}, "twice"),
        ({"contours": (Contour((2, 3), closed=True),)}, r"within 0\.\.2"),
        ({"normalizers": {"length": ((-1,), (2,))}}, r"within 0\.\.2"),
        ({"normalizers": {"length": ((0,), ())}}, "both ends"),
    ],
)
def test_contradictory_parts_are_refused(changes, message):
    with pytest.raises(ValueError, match=rf"scheme 'tiny' with 3 points: .*{message}"):
        tiny(**changes)


@every_scheme
def test_a_scheme_is_hashable_and_survives_pickling(known):
    assert pickle.loads(pickle.dumps(known)) == known
    assert len({known, replace(known)}) == 1


@every_scheme
def test_mirroring_turns_contours_into_contours(known):
    def edges(contours, renamed):
        ends = [
            (
                contour.indices,
                (*contour.indices, contour.indices[0])[: None if contour.closed else -1],
            )
            for contour in contours
        ]
        return {frozenset((renamed[a], renamed[b])) for _, walk in ends for a, b in pairwise(walk)}

    plain = edges(known.contours, range(known.n_points))
    assert edges(known.contours, known.mirror) == plain
    assert len(plain) >= known.n_points - len(known.contours) - len(known.groups.get("pupils", ()))


@every_scheme
def test_mirroring_swaps_the_left_and_the_right_parts(known):
    for part, indices in known.groups.items():
        other = part.replace("left", "?").replace("right", "left").replace("?", "right")
        assert {known.mirror[i] for i in indices} == set(known.groups[other])


@every_scheme
def test_mirroring_swaps_the_ends_of_every_normalizer(known):
    for first, second in known.normalizers.values():
        assert {known.mirror[i] for i in first} == set(second)


def test_the_published_numbers_of_fixed_points_hold():
    for known, n_fixed in ((IBUG68, 10), (WFLW98, 10)):
        assert sum(i == other for i, other in enumerate(known.mirror)) == n_fixed


def test_the_map_from_98_to_68_commutes_with_mirroring():
    indices = np.arange(98.0)[:, None].repeat(2, axis=1)
    with pytest.warns(UserWarning, match="not ibug68 annotations"):
        chosen = convert_points(indices, "wflw98", "ibug68")[:, 0].astype(int)
    assert len(set(chosen)) == 68
    mirrored = np.asarray(WFLW98.mirror)[chosen]
    assert np.array_equal(mirrored, chosen[list(IBUG68.mirror)])


def test_the_map_from_98_to_68_keeps_parts_and_outer_eye_corners():
    with pytest.warns(UserWarning, match="different rules"):
        chosen = convert_points(np.arange(196.0).reshape(98, 2), "wflw98", "ibug68")[:, 0] / 2
    for part, indices in IBUG68.groups.items():
        assert set(chosen[list(indices)]) <= set(WFLW98.groups[part])
    ours, theirs = (known.normalizers["inter-ocular"] for known in (IBUG68, WFLW98))
    assert [tuple(chosen[list(ends)]) for ends in ours] == list(theirs)


def test_conversion_keeps_leading_axes_missing_points_and_float32(rng):
    points = rng.normal(size=(2, 3, 98, 2)).astype(np.float32)
    points[0, 0, 4] = np.nan  # jaw point 2 of ibug68
    with pytest.warns(UserWarning, match="subset"):
        converted = convert_points(points, "wflw98", "ibug68")
    assert converted.shape == (2, 3, 68, 2)
    assert converted.dtype == np.float32
    assert np.argwhere(np.isnan(converted[..., 0])).tolist() == [[0, 0, 2]]


def test_conversion_refuses_what_has_no_map_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="known: wflw98 to ibug68"):
            convert_points(np.zeros((68, 2)), "ibug68", "wflw98")
        with pytest.raises(ValueError, match="got 68 points a shape, expected 98"):
            convert_points(np.zeros((68, 2)), "wflw98", "ibug68")
