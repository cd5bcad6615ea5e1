"""The networks are the published ones: counted, not believed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from network_probes import multiply_adds, trainable, with_statistics

from asmkit.nn import ASMNet, MobileNetV2, build_network
from asmkit.nn.heads import from_crop, to_crop


def test_asmnet_has_the_papers_parameters() -> None:
    network = ASMNet(68)
    assert trainable(network) == 1_412_435
    assert with_statistics(network) == 1_439_507
    assert with_statistics(ASMNet(98)) == 1_471_727


def test_asmnet_pools_536_features() -> None:
    assert ASMNet(68).landmark_head.in_features == 536
    assert ASMNet(68).dropout.p == 0.3


def test_mobilenetv2_has_the_papers_parameters() -> None:
    assert trainable(MobileNetV2(68)) == 2_401_931


def test_costs_are_the_papers() -> None:
    assert 2 * multiply_adds(ASMNet(68), 224) / 1e6 == pytest.approx(513, abs=8)
    assert 2 * multiply_adds(MobileNetV2(68), 224) / 1e6 == pytest.approx(599, abs=8)
    assert multiply_adds(ASMNet(68), 112) / 1e6 == pytest.approx(67, abs=2)


@pytest.mark.parametrize("arch", ["asmnet", "atpn", "mobilenetv2"])
@pytest.mark.parametrize("n_points", [1, 19, 68])
def test_outputs_have_the_stated_shapes(arch: str, n_points: int) -> None:
    options = {"input_size": 64} if arch == "atpn" else {}
    network = build_network(arch, n_points, width=0.5, **options).eval()
    output = network(torch.zeros(2, 3, 64, 64))
    assert output.points.shape == (2, n_points, 2)
    assert output.angles.shape == (2, 3)
    assert output.points.dtype == torch.float32
    assert (output.face is None) == (network.tasks is None) == (arch != "atpn")
    assert output.face is None or output.face.shape == (2,)


def test_an_untrained_network_answers_near_the_mean_shape() -> None:
    network = ASMNet(5).eval()
    mean = torch.linspace(-1, 1, 10).reshape(5, 2)
    network.start_from(mean)
    answer = network(torch.zeros(1, 3, 64, 64)).points[0]
    torch.testing.assert_close(answer, mean, atol=0.2, rtol=0)


def test_batch_is_single() -> None:
    torch.manual_seed(0)
    network = ASMNet(7, width=0.5).eval()
    images = torch.randn(3, 3, 64, 64)
    together = network(images).points
    alone = torch.cat([network(images[i : i + 1]).points for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_crop_coordinates_are_inverse_and_span_the_crop() -> None:
    points = torch.tensor([[-0.5, -0.5], [111.5, 111.5], [55.5, 55.5]])
    relative = from_crop(points, 112)
    np.testing.assert_allclose(relative, [[-1, -1], [1, 1], [0, 0]], atol=1e-6)
    torch.testing.assert_close(to_crop(relative, 112), points)


def test_unknown_architecture_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'resnet'.*asmnet, atpn, mobilenetv2"):
        build_network("resnet", 68)
    with pytest.raises(ValueError, match="at least 1"):
        build_network("asmnet", 0)


@pytest.mark.parametrize(("arch", "option"), [("asmnet", "heatmap"), ("atpn", "depth")])
def test_an_option_of_another_network_is_named(arch: str, option: str) -> None:
    with pytest.raises(ValueError, match=rf"{arch}.*'{option}'"):
        build_network(arch, 68, **{option: "points"})
