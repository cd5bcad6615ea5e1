"""The literal table of networks, and how a network is described in a file."""

from __future__ import annotations

from collections.abc import Callable

from asmkit.nn.asmnet import ASMNet
from asmkit.nn.heads import LandmarkNetwork
from asmkit.nn.mobilenet import MobileNetV2

__all__ = ["NETWORKS", "build_network"]

#: Name in a recipe and on the command line → class called as ``(n_points, width=…, dropout=…)``.
NETWORKS: dict[str, Callable[..., LandmarkNetwork]] = {
    "asmnet": ASMNet,
    "mobilenetv2": MobileNetV2,
}


def build_network(
    arch: str, n_points: int, width: float = 1.0, dropout: float = 0.0
) -> LandmarkNetwork:
    """Make an untrained network by its name.

    Raises
    ------
    ValueError
        For an unknown name; the message lists the known ones.
    """
    if arch not in NETWORKS:
        raise ValueError(
            f"unknown architecture {arch!r}; expected one of {', '.join(sorted(NETWORKS))}"
        )
    return NETWORKS[arch](n_points, width=width, dropout=dropout)
