"""The statistics of batch norm, computed anew for weights that no training went through.

Source: Izmailov, Podoprikhin, Garipov, Vetrov, Wilson, "Averaging weights leads to wider optima and
better generalization", UAI 2018, arXiv 1803.05407, section 3.2: averaged weights give activations
whose statistics were never collected, so one more pass over the data collects them.
"""

from __future__ import annotations

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from asmkit.nn.epoch import forward, set_mode, stage_batches
from asmkit.nn.heads import LandmarkNetwork, as_input
from asmkit.nn.preparation import Parts
from asmkit.nn.processes import Processes
from asmkit.nn.recipe import Recipe
from asmkit.nn.schedule import stages_of

__all__ = ["recompute_statistics"]


@torch.no_grad()
def recompute_statistics(network: LandmarkNetwork, parts: Parts, recipe: Recipe) -> None:
    """Set the running statistics of batch norm to the means over the batches of one epoch.

    Each part of a network gets them from the batches of the stage in which the recipe trains it; a
    part that it does not train keeps those that it has.

    Parameters
    ----------
    network : LandmarkNetwork
        Changed in place; in evaluation mode afterwards.
    parts : Parts
        Data to look at, augmented.
    recipe : Recipe
    """
    for stage in stages_of(recipe):
        set_mode(network, stage)
        norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.training]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches, each counting the same
        for batch in stage_batches(parts, recipe, stage, 0, Processes()):
            forward(network, as_input(torch.as_tensor(batch.images)), recipe, stage)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    network.eval()
