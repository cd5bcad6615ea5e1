"""The mean of networks is the mean of their weights, and one network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_training
import torch
from click.testing import CliRunner
from network_probes import lived_in
from tiny_training import digest

import asmkit
from asmkit.annotations import read
from asmkit.cli import main
from asmkit.datasets import synthetic_faces
from asmkit.nn import (
    ASMNet,
    MobileNetV2,
    Recipe,
    average_networks,
    average_runs,
    build_network,
    load_network,
    train,
)
from asmkit.nn.batch_statistics import recompute_statistics
from asmkit.nn.checkpoint import read_tensors
from asmkit.nn.epoch import stage_batches
from asmkit.nn.export import write_network
from asmkit.nn.heads import LandmarkNetwork, as_input
from asmkit.nn.networks import network_options
from asmkit.nn.preparation import prepare
from asmkit.nn.processes import Processes
from asmkit.nn.schedule import stage_at
from asmkit.schemes import scheme

TINY = replace(tiny_training.TINY, epochs=1, dropout=0.0, precision="float32")
ATPN = Recipe(arch="atpn", width=0.5, input_size=48, epochs=1, head_epochs=1, batch_size=8)
IBUG = scheme("ibug68")

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces")
    synthetic_faces(24, 3, size=64).save(path)
    return path


def network_of(seed: int, recipe: Recipe = TINY) -> LandmarkNetwork:
    torch.manual_seed(seed)
    network = build_network(recipe.arch, 68, **network_options(recipe, IBUG))
    generator = torch.Generator().manual_seed(seed)
    lived_in(network)
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.mul_(1 + torch.rand(buffer.shape, generator=generator))
    return network


def saved(run: Path, seed: int, recipe: Recipe = TINY, **trained: Any) -> Path:
    """The folder of a network that looks trained."""
    run.mkdir()
    (run / "recipe.toml").write_text(recipe.to_toml())
    write_network(run, network_of(seed, recipe), recipe, IBUG, trained)
    return run


def weights(run: Path) -> Tensors:
    return read_tensors(run / "model.safetensors")[0]


def bits(tensors: Tensors) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


# -- the mean


@pytest.mark.parametrize("times", [2, 3, 7])
@pytest.mark.parametrize("recipe", [TINY, ATPN], ids=["asmnet", "atpn"])
def test_the_mean_of_a_network_with_itself_is_it_to_the_bit(recipe: Recipe, times: int) -> None:
    network = network_of(0, recipe)
    with torch.no_grad():
        network.landmark_head.weight[0, 0] = -0.0
    given = bits(network.state_dict())
    average = average_networks([network] * times)
    assert bits(average.state_dict()) == given
    assert average is not network
    assert not average.training


def test_the_mean_of_networks_is_the_mean_of_each_of_their_weights() -> None:
    networks = [network_of(seed) for seed in range(3)]
    before = [bits(network.state_dict()) for network in networks]
    average = average_networks(networks)
    states = [network.state_dict() for network in networks]
    for name, tensor in average.state_dict().items():
        if tensor.is_floating_point():
            expected = np.mean([state[name].double().numpy() for state in states], 0)
            np.testing.assert_array_equal(tensor.numpy(), expected.astype(np.float32), name)
    with torch.no_grad():  # its weights are its own
        average.landmark_head.weight.zero_()
    assert [bits(network.state_dict()) for network in networks] == before


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: [], "got 1, expected at least 2"),
        (lambda: [MobileNetV2(5, width=0.35)], "number 2 is MobileNetV2, the first ASMNet"),
        (lambda: [ASMNet(5, width=0.5)], r"of number 2 has the shape \(.*of the first \("),
        (lambda: [ASMNet(5, width=0.35, confidence="laplace")], "has confidence"),
    ],
)
def test_networks_that_have_no_mean_are_refused(other: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        average_networks([ASMNet(5, width=0.35), *other()])


# -- of trainings


@pytest.mark.usefixtures("no_onnx")
def test_two_trainings_from_one_network_make_one_that_loads(folder: Path, tmp_path: Path) -> None:
    begin = saved(tmp_path / "begin", 0)
    one, two = (
        train(
            *(folder, tmp_path / f"{seed}", replace(TINY, seed=seed, validation=0.1 * seed)),
            start=begin,
            threads=1,
            progress=False,
        )
        for seed in (1, 2)
    )
    for run in (one, two):
        description = json.loads((run / "model.json").read_text())
        assert description["trained"]["ancestors"] == [digest(begin)]
    out = tmp_path / "mean"
    result = CliRunner().invoke(main, ["average", str(one), str(two), "--out", str(out)])
    assert result.exit_code == 0, result.output
    kept, first, second = weights(out), weights(one), weights(two)
    assert not torch.equal(first["landmark_head.weight"], second["landmark_head.weight"])
    for name, tensor in kept.items():
        if tensor.is_floating_point():
            mean = (first[name].double() + second[name].double()) / 2
            assert torch.equal(tensor, mean.float()), name
    assert {path.name for path in out.iterdir()} == {
        *("model.json", "model.safetensors", "recipe.toml", "shape_model.npz")
    }
    # What one of them was trained on is not held out.
    assert Recipe.read(out / "recipe.toml") == replace(TINY, seed=1, validation=0.1)
    _, description = load_network(out)
    assert description["sha256"] == digest(out)
    assert description["trained"]["average_of"] == [digest(one), digest(two)]
    image = read(folder)[0].image
    assert image is not None
    found = asmkit.load(out, engine="torch").predict(asmkit.read_image(image), [[10, 10, 40, 40]])
    assert np.isfinite(found.points).all()
    assert np.isfinite(found.pose).all()


@pytest.mark.usefixtures("no_onnx")
def test_only_networks_that_began_as_one_are_averaged(tmp_path: Path) -> None:
    begin = saved(tmp_path / "begin", 0)
    child = saved(tmp_path / "child", 1, ancestors=[digest(begin)])
    grandchild = saved(tmp_path / "grandchild", 2, ancestors=[digest(begin), digest(child)])
    sibling = saved(tmp_path / "sibling", 3, ancestors=[digest(begin)])
    stranger = saved(tmp_path / "stranger", 4)
    for number, runs in enumerate([(begin, child), (child, grandchild), (grandchild, sibling)]):
        out = average_runs(runs, tmp_path / f"{number}", progress=False)
    # Means have means.
    average_runs([out, begin], tmp_path / "again", progress=False)
    for runs in [(begin, stranger), (child, sibling, stranger)]:
        with pytest.raises(ValueError, match=r"began as one trained network.*--start"):
            average_runs(runs, tmp_path / "no", progress=False)
    assert not (tmp_path / "no").exists()


@pytest.mark.usefixtures("no_onnx")
def test_networks_of_another_form_are_refused(tmp_path: Path) -> None:
    begin = saved(tmp_path / "begin", 0)
    refused = {
        "its arch is 'mobilenetv2', that of .* 'asmnet'": {"arch": "mobilenetv2"},
        "its width is 0.5, that of .* 0.35": {"width": 0.5},
        "its margin is 1.5": {"margin": 1.5},
        "its input_size is 64": {"input_size": 64},
    }
    for number, (message, changes) in enumerate(refused.items()):
        other = saved(tmp_path / f"{number}", 1, replace(TINY, **changes))
        with pytest.raises(ValueError, match=message):
            average_runs([begin, other], tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="got 1, expected at least 2"):
        average_runs([begin], tmp_path / "out", progress=False)
    with pytest.raises(FileExistsError):
        average_runs([begin, begin], begin, progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_onnx")
def test_a_mean_is_bound_by_the_licences_of_its_networks(tmp_path: Path) -> None:
    begin = saved(tmp_path / "begin", 0)
    bound = saved(tmp_path / "bound", 1, ancestors=[digest(begin)])
    path = bound / "model.json"
    about = {**json.loads(path.read_text()), "license": "for research only"}
    path.write_text(json.dumps(about))
    out = average_runs([begin, bound], tmp_path / "out", progress=False)
    assert json.loads((out / "model.json").read_text())["license"] == "for research only"


# -- batch statistics


def test_the_statistics_are_those_of_what_flows_through(folder: Path) -> None:
    """Of the first layer they are those of the images convolved, whatever was there before."""
    parts = prepare(read(folder), TINY, progress=False)
    network = network_of(0)
    before = {name: t.clone() for name, t in network.state_dict().items()}
    recompute_statistics(network, parts, TINY)
    after = network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {name for name in before if name.endswith(statistics)}
    convolution, norm = network.get_submodule("stem")[:2]
    means, variances = [], []
    for batch in stage_batches(parts, TINY, stage_at(0, TINY), 0, Processes()):
        with torch.no_grad():
            flowing = convolution(as_input(torch.from_numpy(batch.images))).transpose(0, 1)
        means.append(flowing.flatten(1).mean(1))
        variances.append(flowing.flatten(1).var(1))
    assert len(means) > 1
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack(variances).mean(0))
    assert {m.momentum for m in network.modules() if isinstance(m, type(norm))} == {norm.momentum}
    assert not network.training


@pytest.mark.usefixtures("no_onnx")
def test_statistics_of_parts_that_the_recipe_does_not_train_stay(
    folder: Path, tmp_path: Path
) -> None:
    heads = replace(ATPN, epochs=0)
    begin = saved(tmp_path / "begin", 0, heads)
    mean = average_runs([begin, begin], tmp_path / "mean", data=folder, progress=False)
    before, after = weights(begin), weights(mean)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {
        name for name in before if name.startswith("tasks.") and name.endswith(statistics)
    }


@pytest.mark.usefixtures("no_onnx")
def test_data_of_other_landmarks_is_refused(folder: Path, tmp_path: Path) -> None:
    begin = saved(tmp_path / "begin", 0)
    data = tmp_path / "data"
    for annotation in synthetic_faces(2, 0, size=64).save(data):
        asmkit.write(
            data / f"{annotation.name}.pts",
            [replace(annotation, points=annotation.points[17:36], visibility=None, scheme=None)],
        )
    with pytest.raises(ValueError, match="has 19 points, the networks 68"):
        average_runs([begin, begin], tmp_path / "out", data=data, progress=False)
    (begin / "recipe.toml").unlink()
    with pytest.raises(ValueError, match="a network has no recipe"):
        average_runs([begin, begin], tmp_path / "out", data=folder, progress=False)
    assert not (tmp_path / "out").exists()
