"""The shape layer is the shape model, with gradients."""

from __future__ import annotations

import logging
import math
import warnings

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from shape_families import family, random_similarity, size_of
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.autograd import gradcheck

from asmkit import ShapeModel
from asmkit.alignment import similarity
from asmkit.nn import ShapeLayer
from asmkit.nn.rotation import rotation_from_6d
from asmkit.priors import Box

dims = pytest.mark.parametrize("d", [2, 3])


def fitted(rng, d, n_components=4, **options):
    shapes = family(rng, n=30, p=6, d=d)
    return ShapeModel(n_components).fit(shapes, **options), shapes


def arguments(rng, n, k, d):
    """Random coefficients and similarities, double precision."""
    rotation = rng.normal(size=n if d == 2 else (n, 6))
    values = rng.normal(size=(n, k)), rng.normal(size=n), rotation, rng.normal(size=(n, d))
    return [torch.from_numpy(each) for each in values]


def largest_difference(a, b, sizes):
    return np.max(np.linalg.norm(np.asarray(a) - b, axis=(-1, -2)) / sizes)


# equal to the model


@dims
@pytest.mark.parametrize("with_reference", [False, True])
def test_in_double_precision_the_layer_is_the_model(rng, d, with_reference):
    shapes = family(rng, n=30, p=6, d=d)
    reference = shapes[0] if with_reference else None
    model = ShapeModel(4).fit(shapes, reference=reference)
    layer, points = ShapeLayer(model).double(), torch.from_numpy(shapes)
    found = layer.encode(points)
    standardized = model.transform(shapes) / np.sqrt(model.explained_variance_)
    np.testing.assert_allclose(found.coefficients, standardized, atol=1e-12)
    sizes = size_of(shapes)
    assert largest_difference(layer.smooth(points), model.smooth(shapes), sizes) < 1e-12
    whole = model.smooth(shapes, prior=Box(math.inf))
    assert largest_difference(layer.smooth(points, math.inf), whole, sizes) < 1e-12
    assert largest_difference(layer(*found), whole, sizes) < 1e-12


@dims
def test_forward_places_shapes_of_the_model(rng, d):
    model, _ = fitted(rng, d)
    transforms = random_similarity(rng, 5, d)
    coefficients = rng.normal(size=(5, 4))
    rotation = transforms.rotation
    numbers = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
    if d == 3:
        numbers = rotation[:, :2].reshape(5, 6)
    given = coefficients, np.log(transforms.scale), numbers, transforms.translation
    found = ShapeLayer(model).double()(*map(torch.from_numpy, given))
    expected = transforms.apply(
        model.inverse_transform(coefficients * np.sqrt(model.explained_variance_))
    )
    assert largest_difference(found, expected, size_of(expected)) < 1e-12


@dims
def test_encode_finds_the_pose_of_least_squares(rng, d):
    model, shapes = fitted(rng, d)
    found = ShapeLayer(model).double().encode(torch.from_numpy(shapes))
    pose = similarity(model.reference_, shapes)
    np.testing.assert_allclose(found.log_scale, np.log(pose.scale), atol=1e-12)
    np.testing.assert_allclose(found.translation, pose.translation, atol=1e-10)
    if d == 3:
        rotation = rotation_from_6d(found.rotation)
        np.testing.assert_allclose(rotation, pose.rotation, atol=1e-12)


@dims
def test_encode_undoes_forward(rng, d):
    model, _ = fitted(rng, d)
    layer, given = ShapeLayer(model).double(), arguments(rng, 8, 4, d)
    given[0] *= 0.3  # a shape much unlike the mean may fit it better in another rotation
    if d == 3:
        given[2] = rotation_from_6d(given[2])[:, :2].flatten(1)
    else:
        given[2] = torch.remainder(given[2] + math.pi, 2 * math.pi) - math.pi
    for found, expected in zip(layer.encode(layer(*given)), given, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-11)


def test_a_rotation_vector_turns_as_its_matrix(rng):
    model, _ = fitted(rng, 3)
    layer, (b, scale, _, move) = ShapeLayer(model).double(), arguments(rng, 5, 4, 3)
    vectors = rng.normal(size=(5, 3))
    vectors[0] = 0
    six = Rotation.from_rotvec(vectors).as_matrix()[:, :2].reshape(5, 6)
    first, second = (layer(b, scale, torch.from_numpy(each), move) for each in (vectors, six))
    np.testing.assert_allclose(first, second, atol=1e-12)


@dims
def test_mirrored_shapes_are_never_reflected(rng, d):
    model, shapes = fitted(rng, d)
    image = shapes * np.array([-1.0, *[1.0] * (d - 1)])
    found = ShapeLayer(model).double().smooth(torch.from_numpy(image))
    assert largest_difference(found, model.smooth(image), size_of(image)) < 1e-10


# precision and storage


@dims
def test_single_precision_is_the_default_and_near_the_model(rng, d):
    model, shapes = fitted(rng, d)
    layer = ShapeLayer(model)
    assert {buffer.dtype for buffer in layer.buffers()} == {torch.float32}
    assert not list(layer.parameters())
    centred = shapes - shapes.mean(axis=1, keepdims=True)
    found = layer.smooth(torch.from_numpy(centred).float())
    assert found.dtype == torch.float32
    assert largest_difference(found, model.smooth(centred), size_of(shapes)) < 1e-5


def test_saved_in_single_precision_it_still_has_all_digits(rng):
    model, _ = fitted(rng, 2)
    other, _ = fitted(rng, 2)
    layer = ShapeLayer(other)
    layer.load_state_dict(ShapeLayer(model).double().float().state_dict())
    layer.double()
    np.testing.assert_allclose(layer.components.reshape(4, -1), model.components_, atol=1e-14)
    np.testing.assert_allclose(layer.mean, model.mean_, atol=1e-14)
    np.testing.assert_allclose(layer.deviations, np.sqrt(model.explained_variance_), rtol=1e-13)


# gradients


@dims
def test_gradients_are_those_of_finite_differences(rng, d):
    model, shapes = fitted(rng, d)
    layer = ShapeLayer(model).double()
    given = [each.requires_grad_() for each in arguments(rng, 2, 4, d)]
    assert gradcheck(layer, given)
    points = torch.from_numpy(shapes[:2]).requires_grad_()
    assert gradcheck(lambda x: tuple(layer.encode(x)), (points,))
    assert gradcheck(lambda x: layer.smooth(x, 1.0), (points,))


def test_a_rotation_vector_of_zero_has_a_gradient(rng):
    model, _ = fitted(rng, 3)
    layer, (b, scale, _, move) = ShapeLayer(model).double(), arguments(rng, 2, 4, 3)
    vectors = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda turn: layer(b, scale, turn, move), (vectors,))


def test_equal_singular_values_have_the_right_gradient():
    """The corners of an octahedron: the derivative of the decomposition alone does not exist."""
    corners = np.concatenate([np.eye(3), -np.eye(3)]) / np.sqrt(6)
    rng = np.random.default_rng(0)
    shapes = corners + 0.01 * rng.normal(size=(20, 6, 3))
    model = ShapeModel(3).fit(shapes, reference=corners)
    layer = ShapeLayer(model).double()
    points = torch.from_numpy(corners[None].copy()).requires_grad_()
    assert gradcheck(lambda x: layer.smooth(x, math.inf), (points,))


@dims
def test_gradients_are_finite_where_there_is_no_pose(rng, d):
    model, _ = fitted(rng, d)
    points = torch.zeros(2, 6, d, dtype=torch.float64, requires_grad=True)
    found = ShapeLayer(model).double().smooth(points)
    found.sum().backward()
    assert found.isfinite().all()
    assert points.grad is not None
    assert points.grad.isfinite().all()


# export and errors


class _Everything(nn.Module):
    """All that an exported layer may be asked for, in one graph."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, points):
        found = self.layer.encode(points)
        return *found, self.layer(*found), self.layer.smooth(points, 1.0)


@pytest.mark.slow
def test_a_layer_in_two_dimensions_can_be_exported(rng, tmp_path):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason="torch exports with it")
    onnxruntime = pytest.importorskip("onnxruntime", reason="runs what was exported")
    model, _ = fitted(rng, 2)
    module = _Everything(ShapeLayer(model)).eval()
    points = torch.from_numpy(family(rng, n=7, p=6, posed=False)).float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own future
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            module,
            (points,),
            tmp_path / "layer.onnx",
            input_names=["points"],
            dynamic_shapes={"points": {0: torch.export.Dim("n", min=1)}},
            dynamo=True,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(
        tmp_path / "layer.onnx", providers=["CPUExecutionProvider"]
    )
    for given in (points, points[:2]):
        found = session.run(None, {"points": given.numpy()})
        assert len(found) == 6
        for each, expected in zip(found, module(given), strict=True):
            np.testing.assert_allclose(each, expected, atol=1e-4)


def test_other_frames_and_unfitted_models_are_refused(rng):
    with pytest.raises(ValueError, match="align='similarity'"):
        ShapeLayer(ShapeModel(2, align="box").fit(family(rng)))
    with pytest.raises(NotFittedError):
        ShapeLayer(ShapeModel())


@dims
def test_shapes_of_the_arguments_are_checked(rng, d):
    model, _ = fitted(rng, d)
    layer, given = ShapeLayer(model).double(), arguments(rng, 3, 4, d)
    wrong = {
        "coefficients": (0, torch.zeros(3, 5)),
        "rotation": (2, torch.zeros(3, 4)),
        "translation": (3, torch.zeros(3, 4)),
    }
    for name, (place, value) in wrong.items():
        with pytest.raises(ValueError, match=name):
            layer(*given[:place], value, *given[place + 1 :])
    with pytest.raises(ValueError, match=r"points: got shape \(3, 7"):
        layer.encode(torch.zeros(3, 7, d))
    with pytest.raises(ValueError, match="limit"):
        layer.smooth(torch.zeros(1, 6, d), 0.0)
