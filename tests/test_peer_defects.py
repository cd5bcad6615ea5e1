"""Defects that were found in other libraries, each shown not to be ours.

They are numbered D1 to D23. Those of annotation formats, alignment and model quality stand with the
tests of those parts, under the same names; the last test here holds the list together.
"""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from shape_families import family, relative_distance, size_of

from asmkit import ShapeModel, auc, ced, failure_rate, nme
from asmkit.priors import Box, Ellipsoid, Gaussian
from asmkit.schemes import scheme

IBUG68, WFLW98 = scheme("ibug68"), scheme("wflw98")


@pytest.mark.parametrize("threshold", [0.05, 0.07, 0.08, 0.1])
def test_peer_defect_d1_auc_and_failure_rate_stop_at_their_threshold(threshold):
    """A grid by arange overshoots 0.05 and 0.07, and counts what lies a step beyond."""
    errors = np.array([0.5 * threshold, threshold, np.nextafter(threshold, 1), threshold + 5e-5])
    assert failure_rate(errors, threshold) == 0.5
    assert auc(errors, threshold) == pytest.approx(0.5 / 4, abs=1e-12)
    assert ced(errors, [threshold])[0] == 0.5


def test_peer_defect_d2_everything_imports_on_the_installed_scipy_and_numpy():
    """`scipy.integrate.simps` and `np.Inf` are gone, and an import of a peer with them."""
    code = (
        "import warnings; warnings.simplefilter('error', DeprecationWarning)\n"
        "import asmkit, asmkit.metrics, asmkit.model, asmkit.alignment, asmkit.quality"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    removed = re.compile(r"\bsimps\b|np\.(Inf|NaN|float_|trapz)\b")
    package = Path(sys.modules["asmkit"].__file__).parent
    assert not [p for p in package.rglob("*.py") if removed.search(p.read_text("utf-8"))]


@pytest.mark.parametrize("d", [2, 3])
def test_peer_defect_d3_batches_are_learned_in_one_frame(rng, d):
    """A peer aligns each batch to its own mean, so that batches live in different frames."""
    shapes = family(rng, 80, 9, d)
    order = np.argsort(shapes[:, 0, 0])  # batches that differ
    model = ShapeModel(5).partial_fit(shapes[order[:30]], reference=shapes[0])
    model.partial_fit(shapes[order[30:]])
    whole = ShapeModel(5).fit(shapes, reference=shapes[0])
    assert np.allclose(model.explained_variance_, whole.explained_variance_, rtol=1e-9)
    assert relative_distance(model.smooth(shapes), whole.smooth(shapes)) < 1e-9


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1e6])
def test_peer_defect_d4_streaming_does_not_depend_on_the_unit_or_on_a_zero_mean(rng, unit):
    """A peer drops modes below an absolute limit, and takes an exactly zero mean for no mean."""
    shapes = family(rng, 40, 9, 2)
    shapes -= shapes.mean(axis=1, keepdims=True)
    model = ShapeModel(1.0).partial_fit(shapes[:20], reference=shapes[0])
    other = ShapeModel(1.0).partial_fit(unit * shapes[:20], reference=unit * shapes[0])
    model.partial_fit(shapes[20:])
    other.partial_fit(unit * shapes[20:])
    assert other.n_components_ == model.n_components_
    assert np.allclose(other.explained_variance_, model.explained_variance_, rtol=1e-6)


@pytest.mark.parametrize("d", [2, 3])
def test_peer_defect_d5_standardized_coefficients_have_unit_variance_and_no_mean(rng, d):
    """A peer whitens without subtracting the mean, and by λ n instead of λ."""
    shapes = family(rng, 70, 9, d)
    model = ShapeModel(6).fit(shapes)
    standardized = model.clamped(shapes).before
    assert np.abs(standardized.mean(axis=0)).max() < 1e-6
    assert np.allclose(standardized.var(axis=0, ddof=1), 1)
    assert np.allclose(model.mahalanobis(shapes), np.linalg.norm(standardized, axis=1))


@pytest.mark.parametrize("d", [2, 3])
def test_peer_defect_d8_variances_are_those_of_the_modes_that_are_kept(rng, d):
    """A peer turns the modes clear of the similarities and keeps the variances from before."""
    shapes = family(rng, 70, 9, d)
    model = ShapeModel(1.0).fit(shapes)
    assert np.allclose(model.transform(shapes).var(axis=0, ddof=1), model.explained_variance_)


@pytest.mark.parametrize("n_components", [4, 1.0])
def test_peer_defect_d9_there_is_a_clamp_and_no_prior_vanishes_silently(rng, n_components):
    """A peer has no clamp, and its only prior is nothing where no mode was dropped."""
    shapes = family(rng, 30, 9, 2)
    model = ShapeModel(n_components).fit(shapes)
    wild = shapes + size_of(shapes)[:, None, None] * rng.normal(size=shapes.shape)
    assert np.abs(model.clamped(model.smooth(wild)).before).max() <= 3 + 1e-9
    for prior in (Box(1.0), Ellipsoid(0.5), Gaussian(0.1)):
        assert model.clamped(wild, prior=prior).n_changed == 30
    with pytest.raises(ValueError, match="nothing to shrink"):
        Gaussian(ShapeModel(1.0).fit(shapes).noise_variance_ ** 0.5)


def test_peer_defect_d10_nme_is_a_mean_of_point_distances():
    """A root mean square over coordinates is smaller by √2 at the least."""
    truth = np.array([[[0.0, 0], [10, 0], [0, 10]]])
    moved = truth + np.array([[3.0, 4], [0, 0], [6, 8]])
    assert nme(moved, truth, np.array([1.0]))[0] == pytest.approx((5 + 0 + 10) / 3)


def test_peer_defect_d17_a_saved_model_keeps_its_variances_and_its_settings(rng, tmp_path):
    """A peer keeps eigenvectors only, and reads three of its settings into one."""
    shapes = family(rng, 30, 9, 2)
    model = ShapeModel(0.93, mirror=np.arange(9)).fit(shapes)
    model.save(tmp_path / "model.npz")
    again = ShapeModel.load(tmp_path / "model.npz")
    assert np.array_equal(again.explained_variance_, model.explained_variance_)
    assert again.noise_variance_ == model.noise_variance_
    assert again.n_components == 0.93
    assert np.array_equal(again.mirror_, model.mirror_)
    assert np.array_equal(again.smooth(3 * shapes), model.smooth(3 * shapes))


class TestPeerDefectD20:
    """The published code of ASMNet."""

    def test_peer_defect_d20_shapes_are_aligned(self, rng):
        shapes = family(rng, 60, 9, 2)
        model = ShapeModel(0.98).fit(shapes)
        turned = shapes @ np.array([[0.0, 1], [-1, 0]])
        assert np.allclose(model.transform(turned), model.transform(shapes))

    def test_peer_defect_d20_a_model_is_read_by_the_name_it_was_written_by(self, rng, tmp_path):
        model = ShapeModel(3).fit(family(rng, 30, 9, 2))
        model.save(tmp_path / "model_90")
        assert ShapeModel.load(tmp_path / "model_90").n_components_ == 3

    def test_peer_defect_d20_the_loss_has_named_terms_and_epochs_rule_alpha(self):
        torch = pytest.importorskip("torch", reason="the loss needs torch")
        from asmkit.nn.heads import NetworkOutput
        from asmkit.nn.losses import ASMAssistedLoss, alpha_at

        points = torch.zeros(2, 9, 2)
        output = NetworkOutput(points + 1, torch.zeros(2, 3), None, None)
        terms = ASMAssistedLoss()(output, points, points, torch.zeros(2, 3), alpha=2.0)
        assert terms.total == pytest.approx(3 * math.sqrt(2), rel=1e-4)
        assert terms.points == pytest.approx(math.sqrt(2), rel=1e-4)
        # By the share of epochs done, whatever the number of steps in an epoch.
        assert [alpha_at(i / 150) for i in (0, 49, 50, 99, 100, 149)] == [2, 2, 1, 1, 0.5, 0.5]

    def test_peer_defect_d20_the_limit_is_three_standard_deviations(self, rng):
        shapes = family(rng, 60, 9, 2)
        model = ShapeModel(3).fit(shapes)
        far = model.inverse_transform(np.full((1, 3), 100.0) * np.sqrt(model.explained_variance_))
        kept = model.transform(model.smooth(far)) / np.sqrt(model.explained_variance_)
        assert np.allclose(kept, 3)

    def test_peer_defect_d20_the_number_of_modes_is_the_one_asked_for(self, rng):
        shapes = family(rng, 60, 9, 2)
        counts = [ShapeModel(share).fit(shapes).n_components_ for share in (0.8, 0.9, 0.95)]
        assert counts == sorted(counts)
        assert counts[0] < counts[-1]


def test_peer_defect_d21_mirror_pairs_are_zero_based_involutions_and_flips_keep_pixel_centres():
    """A peer mixes 1-based and 0-based pairs, and flips by width − x."""
    for known in (IBUG68, WFLW98):
        mirror = np.array(known.mirror)
        assert np.array_equal(mirror[mirror], np.arange(known.n_points))
    assert IBUG68.mirror[36] == 45
    assert WFLW98.mirror[60] == 72
    pytest.importorskip("torch", reason="augmentation is part of training")
    from asmkit.nn.augment import draw_geometry
    from asmkit.nn.recipe import Recipe

    still = Recipe(rotation=0.0, scale=0.0, shift=0.0, mirror=1.0, input_size=64)
    geometry = draw_geometry(np.random.default_rng(0), still, True)
    assert geometry.matrix @ [0, 5, 1] == pytest.approx([63, 5])
    assert geometry.matrix @ [63, 5, 1] == pytest.approx([0, 5])


def test_peer_defect_d23_the_jaw_has_seventeen_points():
    """A mask [:18] takes the first point of a brow along."""
    assert list(IBUG68.groups["jaw"]) == list(range(17))
    assert list(WFLW98.groups["jaw"]) == list(range(33))
    for known in (IBUG68, WFLW98):
        points = np.concatenate([list(group) for group in known.groups.values()])
        assert np.array_equal(np.sort(points), np.arange(known.n_points))


def test_every_defect_has_its_test():
    text = "".join(p.read_text("utf-8") for p in Path(__file__).parent.glob("test_*.py"))
    found = {int(number) for number in re.findall(r"def test_peer_defect_d(\d+)_", text)}
    assert found == set(range(1, 24))
