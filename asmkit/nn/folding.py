"""A network for inference alone: its batch norm is part of the layers before."""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.utils import fuse_conv_bn_eval, fuse_linear_bn_eval

from asmkit.nn.heads import LandmarkNetwork

__all__ = ["folded"]


def folded(network: LandmarkNetwork) -> LandmarkNetwork:
    """A copy for export, in which each batch norm is part of the layer before it.

    Nothing in it is done in place: exporters take such operations apart one by one, and need twice
    the time.
    """
    network = copy.deepcopy(network).eval()
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = False
        elif isinstance(module, nn.Sequential):
            for place in range(len(module) - 1):
                layer, norm = module[place], module[place + 1]
                if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[place] = fuse_conv_bn_eval(layer, norm)
                elif isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d):
                    module[place] = fuse_linear_bn_eval(layer, norm)
                else:
                    continue
                module[place + 1] = nn.Identity()
    return network
