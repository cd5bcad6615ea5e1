"""Networks that learn from shape models. Everything here needs torch (``asmkit[nn]``)."""

from asmkit._extras import require

for _package in ("torch", "safetensors"):
    require(_package, "nn")

from asmkit.nn.asmnet import ASMNet  # noqa: E402 (after the check, which explains what is missing)
from asmkit.nn.atpn import ATPN  # noqa: E402
from asmkit.nn.averaging import average_networks, average_runs  # noqa: E402
from asmkit.nn.export import export_onnx, load_network  # noqa: E402
from asmkit.nn.losses import ASMAssistedLoss, alpha_at  # noqa: E402
from asmkit.nn.mobilenet import MobileNetV2  # noqa: E402
from asmkit.nn.networks import build_network  # noqa: E402
from asmkit.nn.recipe import Recipe  # noqa: E402
from asmkit.nn.shape_layer import ShapeLayer  # noqa: E402
from asmkit.nn.torch_export import export_torch  # noqa: E402
from asmkit.nn.training import resume, train  # noqa: E402

__all__ = [
    "ATPN",
    "ASMAssistedLoss",
    "ASMNet",
    "MobileNetV2",
    "Recipe",
    "ShapeLayer",
    "alpha_at",
    "average_networks",
    "average_runs",
    "build_network",
    "export_onnx",
    "export_torch",
    "load_network",
    "resume",
    "train",
]
