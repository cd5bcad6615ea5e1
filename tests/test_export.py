"""The exported network equals the eager one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from network_probes import lived_in
from shape_families import family

from asmkit import ShapeModel
from asmkit.nn import ASMNet, MobileNetV2, ShapeLayer, export_onnx
from asmkit.nn import export as export_module
from asmkit.nn.export import Deployed
from asmkit.nn.heads import LandmarkNetwork

onnxruntime = pytest.importorskip("onnxruntime")


def of_shapes() -> ASMNet:
    """A network whose head has a shape model."""
    model = ShapeModel(3).fit(family(np.random.default_rng(0), n=20, p=6))
    network = ASMNet(6, width=0.35, head="shape", modes=3)
    network.start_from(torch.from_numpy(0.6 * model.mean_).float(), ShapeLayer(model))
    return network


@pytest.mark.parametrize(
    "network",
    [ASMNet(68, width=0.5), MobileNetV2(19, width=0.35, head="spatial"), of_shapes()],
    ids=["asmnet pooled", "mobilenetv2 spatial", "asmnet shape"],
)
def test_onnx_equals_eager_for_any_number_of_crops(
    network: LandmarkNetwork, tmp_path: Path
) -> None:
    size = 64
    path = tmp_path / "network.onnx"
    export_onnx(lived_in(network), size, path, {"scheme": "ibug68"})
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    content = path.read_bytes()
    assert b"stack_trace" not in content
    assert str(Path(__file__).parents[1]).encode() not in content  # nor any path of this machine
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["asmkit"]) == {"scheme": "ibug68"}
    rng = np.random.default_rng(1)
    for n in (1, 2, 5):
        crops = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
        points, pose = session.run(["points", "pose"], {"images": crops})
        with torch.inference_mode():
            expected = Deployed(network, size)(torch.from_numpy(crops))
        np.testing.assert_allclose(points, expected[0].numpy(), atol=1e-4 * size / 2)
        np.testing.assert_allclose(pose, expected[1].numpy(), atol=np.rad2deg(1e-4))
    assert [item.name for item in tmp_path.iterdir()] == ["network.onnx"]


def test_an_export_that_differs_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="differs from torch"):
        export_onnx(lived_in(ASMNet(3, width=0.35)), 32, tmp_path / "network.onnx", {})
    assert list(tmp_path.iterdir()) == []
