"""The heads of networks with pooled features: what each answers, saves and refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from shape_families import family
from tiny_training import TINY, digest

import asmkit
from asmkit.alignment import similarity
from asmkit.datasets import synthetic_faces
from asmkit.nn import Recipe, ShapeLayer, build_network, load_network, resume, train, training
from asmkit.nn.asmnet import ASMNet
from asmkit.nn.checkpoint import read_tensors
from asmkit.nn.heads import LandmarkNetwork
from asmkit.nn.networks import network_options
from asmkit.nn.recipe import POOLED_HEADS
from asmkit.nn.shape_head import LIMIT, ShapeHead

POINTS, MODES = 6, 4
ARCHS = pytest.mark.parametrize("arch", ["asmnet", "mobilenetv2"])
HEADS = pytest.mark.parametrize("head", POOLED_HEADS)
BUFFERS = "landmark_head.shapes."


@pytest.fixture
def shapes(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = family(rng, n=40, p=POINTS)
    return found


@pytest.fixture
def model(shapes: npt.NDArray[np.float64]) -> asmkit.ShapeModel:
    return asmkit.ShapeModel(MODES).fit(shapes)


MEAN = torch.tensor([[-0.6, -0.5], [0.5, -0.6], [0.7, 0.1], [0.4, 0.6], [-0.5, 0.5], [0.0, 0.1]])


def small(arch: str, head: str, model: asmkit.ShapeModel) -> LandmarkNetwork:
    """A network that is ready to answer, the same in every call."""
    torch.manual_seed(0)
    given: dict[str, Any] = {"modes": MODES} if head == "shape" else {}
    network = build_network(arch, POINTS, width=0.35, dropout=0.0, head=head, **given)
    network.start_from(MEAN, ShapeLayer(model) if head == "shape" else None)
    return network


def crops(n: int) -> torch.Tensor:
    return torch.randn(n, 3, 48, 48, generator=torch.Generator().manual_seed(0))


# -- every head


@ARCHS
@HEADS
def test_every_head_learns_with_all_its_parameters(
    arch: str, head: str, model: asmkit.ShapeModel
) -> None:
    network = small(arch, head, model).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    target = MEAN + 0.1
    before = (network(crops(4)).points - target).abs().mean()
    before.backward()
    for name, parameter in network.named_parameters():
        if not name.startswith("pose_head"):
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    optimizer.step()
    assert (network(crops(4)).points - target).abs().mean() < before


@HEADS
def test_a_network_starts_as_the_mean_shape(head: str, model: asmkit.ShapeModel) -> None:
    network = small("asmnet", head, model).train()  # a new one has no statistics yet
    expected = MEAN
    if head == "shape":
        pose = similarity(model.mean_, MEAN.double().numpy())
        expected = torch.from_numpy(pose.apply(model.mean_)).float()
    answer = network(crops(4)).points
    torch.testing.assert_close(answer, expected.expand(4, -1, 2), atol=0.15, rtol=0)


@HEADS
def test_a_batch_is_single_at_any_size(head: str, model: asmkit.ShapeModel) -> None:
    """Also where a side is no multiple of 16 and the maps do not halve exactly."""
    network = small("asmnet", head, model).eval()
    images = torch.nn.functional.interpolate(crops(3), (50, 50))
    together = network(images).points
    alone = torch.cat([network(images[i : i + 1]).points for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_the_spatial_head_adds_to_the_pooled_one(model: asmkit.ShapeModel) -> None:
    """With flat maps, whose centres are the crop's, it is the pooled one."""
    pooled, spatial = (small("asmnet", head, model).eval() for head in ("pooled", "spatial"))
    assert not spatial.load_state_dict(pooled.state_dict(), strict=False).unexpected_keys
    assert spatial.maps is not None
    torch.nn.init.zeros_(spatial.maps.maps.weight)
    torch.testing.assert_close(spatial(crops(2)).points, pooled(crops(2)).points)
    torch.nn.init.ones_(spatial.maps.maps.weight[:1])
    moved = (spatial(crops(2)).points - pooled(crops(2)).points).abs().amax((0, 2)) > 1e-4
    assert moved.tolist() == [True, *[False] * (POINTS - 1)]  # each landmark has a map of its own


# -- shapes by construction


def head_of(model: asmkit.ShapeModel) -> ShapeHead:
    head = ShapeHead(9, POINTS, MODES)
    head.start_from(MEAN, ShapeLayer(model))
    return head


def test_what_the_shape_head_answers_is_its_own_projection(model: asmkit.ShapeModel) -> None:
    """The model's smoothing, its clamp at three standard deviations included, moves nothing."""
    head = head_of(model).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        head.linear.weight.normal_(std=20.0, generator=generator)
        points = head(torch.randn(50, 9, generator=generator, dtype=torch.float64))
    coefficients = head.shapes.encode(points).coefficients
    assert 0.9 * LIMIT < coefficients.abs().max() <= LIMIT * (1 + 1e-9)
    torch.testing.assert_close(head.shapes.smooth(points), points, atol=1e-9, rtol=1e-9)
    np.testing.assert_allclose(model.smooth(points.numpy()), points, atol=1e-9, rtol=1e-9)


def test_a_shape_head_can_answer_every_shape_of_its_model(
    model: asmkit.ShapeModel, shapes: npt.NDArray[np.float64]
) -> None:
    """Some answer of the linear layer gives any smoothed shape, wherever it lies in the crop."""
    head = head_of(model).double()
    wanted = torch.from_numpy(model.smooth(shapes / 20 - 0.3, prior=asmkit.priors.Box(2.9)))
    given = head.shapes.encode(wanted)
    answers = [
        LIMIT * torch.atanh(given.coefficients / LIMIT) / 0.1,
        given.log_scale[:, None] / 0.02,
        torch.rad2deg(given.rotation)[:, None],
        given.translation / 0.02,
    ]
    head.linear = torch.nn.Identity()  # type: ignore[assignment]
    torch.testing.assert_close(head(torch.cat(answers, 1)), wanted, atol=1e-9, rtol=0)


def test_a_shape_head_needs_the_model_of_its_sizes(
    model: asmkit.ShapeModel, shapes: npt.NDArray[np.float64]
) -> None:
    head = ShapeHead(9, POINTS, MODES)
    with pytest.raises(ValueError, match="shapes: got None, expected a shape layer of 6 points"):
        head.start_from(MEAN)
    other = ShapeLayer(asmkit.ShapeModel(MODES - 1).fit(shapes))
    with pytest.raises(ValueError, match=r"n_components=3.*of 6 points and 4 modes"):
        head.start_from(MEAN, other)
    with pytest.raises(ValueError, match="this head has no shape model"):
        ASMNet(POINTS, width=0.35).start_from(MEAN, ShapeLayer(model))


# -- recipes


@ARCHS
def test_a_recipe_chooses_the_head(arch: str) -> None:
    for head in ("auto", "pooled", "spatial"):
        options = network_options(Recipe(arch=arch, head=head), None)
        assert options["head"] == {"auto": "pooled"}.get(head, head)
    options = network_options(Recipe(arch=arch, head="shape"), None, 7)
    assert (options["head"], options["modes"]) == ("shape", 7)


@pytest.mark.parametrize(
    ("arch", "head", "known"),
    [
        ("asmnet", "integral", "auto, pooled, spatial, shape"),
        ("mobilenetv2", "regression", "auto, pooled, spatial, shape"),
        ("atpn", "shape", "auto, integral, regression"),
    ],
)
def test_a_head_of_another_network_is_refused(arch: str, head: str, known: str) -> None:
    recipe = Recipe(arch=arch, head=head)
    with pytest.raises(ValueError, match=f"head is '{head}', which {arch} .* one of {known}"):
        network_options(recipe, None)


def test_an_unknown_head_is_named() -> None:
    with pytest.raises(ValueError, match="'best', expected one of pooled, spatial, shape"):
        build_network("asmnet", 5, head="best")
    with pytest.raises(ValueError, match="modes: got 3, expected 0 with head='spatial'"):
        build_network("asmnet", 5, head="spatial", modes=3)
    with pytest.raises(ValueError, match=r"modes: got 0, expected .* at least 1"):
        build_network("asmnet", 5, head="shape")
    with pytest.raises(ValueError, match="shape_components is an option of the head 'shape', not"):
        network_options(Recipe(shape_components=5), None)


# -- trainings


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some points of rendered faces, which are no known scheme."""
    path = tmp_path_factory.mktemp("faces")
    for annotation in synthetic_faces(20, 3, size=48).save(path):
        part = replace(annotation, points=annotation.points[17:48], visibility=None, scheme=None)
        asmkit.write(path / f"{annotation.name}.pts", [part])
    return path


SHAPE = replace(TINY, head="shape", shape_components=0.9, epochs=2)


def test_a_stopped_training_of_shapes_resumes_and_starts_another(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asmkit.nn.export.export_onnx", lambda *args: None)
    whole = train(faces, tmp_path / "whole", SHAPE, threads=1, progress=False)
    one_epoch = training.train_epoch

    def stopping(state: Any, *args: Any) -> dict[str, float]:
        if state.epoch == 1:
            raise KeyboardInterrupt
        return one_epoch(state, *args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_epoch", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(faces, tmp_path / "stopped", SHAPE, threads=1, progress=False)
    torch.manual_seed(99)  # whatever happened in between
    resume(tmp_path / "stopped", progress=False)
    assert digest(tmp_path / "stopped") == digest(whole)

    # What is saved is the model of the training shapes, and rebuilds the network without them.
    options = json.loads((whole / "model.json").read_text())["options"]
    fitted = [a.points for a in asmkit.read(faces)]
    kept = [i for i, out in enumerate(_held_out(faces)) if not out]
    expected = asmkit.ShapeModel(0.9).fit(np.stack([fitted[i] for i in kept]))
    assert (options["head"], options["modes"]) == ("shape", expected.n_components_)
    network, _ = load_network(whole)
    assert isinstance(network.landmark_head, ShapeHead)
    saved = network.landmark_head.shapes.state_dict()
    assert all((saved[n] == t).all() for n, t in ShapeLayer(expected).state_dict().items())
    image = asmkit.read_image(faces / "face_00000.png")
    found = asmkit.load(whole, engine="torch").predict(image, [[4, 4, 40, 40], [9, 2, 30, 35]])
    np.testing.assert_allclose(expected.smooth(found.points), found.points, atol=1e-3)

    # Another training that starts from it goes on in the modes that its weights belong to.
    few = replace(SHAPE, epochs=1, seed=1, validation=0.4)
    again = train(faces, tmp_path / "b", few, start=whole, threads=1, progress=False)
    first, second = (read_tensors(run / "model.safetensors")[0] for run in (whole, again))
    named = [name for name in first if name.startswith(BUFFERS)]
    assert len(named) == 8
    assert all((first[name] == second[name]).all() for name in named)
    assert (first["landmark_head.linear.weight"] != second["landmark_head.linear.weight"]).any()


def _held_out(faces: Path) -> npt.NDArray[np.bool_]:
    from asmkit.splits import validation_part

    return validation_part([a.name for a in asmkit.read(faces)], SHAPE.validation)
