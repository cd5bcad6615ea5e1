"""The exported program of torch equals the network, and tells nothing of where it was made."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from network_probes import lived_in
from torch import nn

from asmkit.nn import ATPN, ASMNet, export_torch
from asmkit.nn.export import Deployed, output_names
from asmkit.nn.folding import folded
from asmkit.nn.heads import LandmarkNetwork
from asmkit.nn.torch_export import DESCRIPTION

SIZE = 48
UNITS = {"points": SIZE / 2, "pose": np.rad2deg(1.0), "face": 1.0, "scale": SIZE / 2}


def all_heads(seed: int) -> LandmarkNetwork:
    torch.manual_seed(seed)
    contours = [[0, 1, 2], [3, 4]]
    return lived_in(ATPN(5, width=0.25, input_size=SIZE, contours=contours, confidence="laplace"))


@pytest.fixture(scope="module")
def network() -> LandmarkNetwork:
    return all_heads(0)


@pytest.fixture(scope="module")
def path(network: LandmarkNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "network.pt2"
    export_torch(network, SIZE, path, {"scheme": None, "margin": 1.25})
    assert [item.name for item in path.parent.iterdir()] == ["network.pt2"]
    return path


def test_the_program_equals_the_network_for_any_number_of_crops(
    path: Path, network: LandmarkNetwork
) -> None:
    extra = {DESCRIPTION: ""}
    program = torch.export.load(path, extra_files=extra)
    assert json.loads(extra[DESCRIPTION]) == {"scheme": None, "margin": 1.25}
    run = program.module()
    for n in (1, 2, 5):
        crops = torch.randint(0, 256, (n, SIZE, SIZE, 3), dtype=torch.uint8)
        with torch.inference_mode():
            found, expected = run(crops), Deployed(network, SIZE)(crops)
        assert list(found) == output_names(network) == list(UNITS)
        for (name, unit), right in zip(UNITS.items(), expected, strict=True):
            np.testing.assert_allclose(found[name], right, rtol=0, atol=1e-5 * unit)


def test_nothing_of_this_machine_is_in_the_file(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
        assert not any(path.stem in name for name in archive.namelist())
    content += path.read_bytes()
    for here in (Path(__file__).parents[1], Path(torch.__file__).parents[1]):
        assert str(here).encode() not in content
    assert sys.prefix.encode() not in content
    assert b'File \\"' not in content  # how lines of code are named


@pytest.mark.parametrize("confidence", ["none", "gaussian"])
def test_folding_leaves_no_batch_norm_and_the_network_as_it_was(confidence: str) -> None:
    for network in (
        lived_in(ASMNet(5, width=0.35, confidence=confidence)),
        lived_in(ATPN(5, width=0.25, input_size=SIZE, confidence=confidence)),
    ):
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        other = folded(network)
        assert not [m for m in other.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert not any(getattr(m, "inplace", False) for m in other.modules())
        images = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
        with torch.inference_mode():
            for one, same in zip(network(images), other(images), strict=True):
                if one is not None:
                    torch.testing.assert_close(one, same, rtol=0, atol=1e-5)
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, before[name])


def test_a_program_that_differs_is_not_kept(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_another = torch.export.load(path)
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: of_another)
    with pytest.raises(RuntimeError, match="differs from the network"):
        export_torch(all_heads(1), SIZE, tmp_path / "network.pt2", {})
    assert list(tmp_path.iterdir()) == []
