"""What the tests of several networks count and prepare."""

from __future__ import annotations

import torch
from torch import nn

from asmkit.nn.heads import LandmarkNetwork


def trainable(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def with_statistics(network: nn.Module) -> int:
    state = network.state_dict()
    return sum(t.numel() for name, t in state.items() if "num_batches" not in name)


def multiply_adds(network: nn.Module, size: int) -> int:
    """Counted from what the layers really saw."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            kernel = layer.kernel_size[0] * layer.kernel_size[1]
            total += output[0].numel() * kernel * layer.in_channels // layer.groups
        elif isinstance(layer, nn.Linear):
            total += layer.in_features * layer.out_features

    for layer in network.modules():
        layer.register_forward_hook(count)
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 3, size, size))
    return total


def lived_in(network: LandmarkNetwork) -> LandmarkNetwork:
    """Batch norm statistics and weights that are not those of a new network."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.mul_(0.8 + 0.4 * noise)
                if name.endswith("running_mean"):
                    tensor.add_(0.1 * noise)
    return network.eval()
