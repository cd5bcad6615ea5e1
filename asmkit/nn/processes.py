"""Training on several processes at once, as ``torchrun`` starts them.

    torchrun --nproc-per-node 2 -m asmkit train --data faces/ --out runs/faces

Every process holds the whole network and takes its share of each batch; gradients and the running
statistics of batch norm are averaged at each step, so that all networks stay equal to the bit. It
is the training of one process that computes batch statistics on the same parts of the batch.
Averages go through one buffer: with networks as small as these, one message a step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["Processes", "choose_device", "joined_processes"]


@dataclass(frozen=True)
class Processes:
    """Which of the processes of a training one is.

    Attributes
    ----------
    rank : int
        Its number; process 0 writes the files.
    count : int
    """

    rank: int = 0
    count: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes the files of the training."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors, of one type and device, by their means over all processes."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.count
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def average_step(self, network: nn.Module) -> None:
        """Average the gradients, and the running statistics, of a network after a backward pass."""
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        # No other buffers: means of equal numbers may differ from them in the last digit.
        statistics = [
            buffer
            for name, buffer in network.named_buffers()
            if name.endswith((".running_mean", ".running_var"))
        ]
        self.average(gradients + statistics)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """One tensor of each process, by rank."""
        if self.count == 1:
            return [tensor]
        gathered: list[Tensor | None] = [None] * self.count
        dist.all_gather_object(gathered, tensor)
        return [one for one in gathered if one is not None]


@contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started; alone, without it."""
    started = {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= set(os.environ)
    if not started or int(os.environ["WORLD_SIZE"]) == 1:
        yield Processes()
        return
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        if ours:
            dist.destroy_process_group()


def choose_device(name: str | None) -> torch.device:
    """Where to train: ``"cpu"``, ``"cuda"``, or None for a GPU where there is one.

    Under ``torchrun`` each process takes a GPU of its own.

    Raises
    ------
    ValueError
        For another name, or a GPU that is not there.
    """
    if name not in (None, "cpu", "cuda"):
        raise ValueError(f"device: got {name!r}, expected 'cpu' or 'cuda'")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: got 'cuda', but torch finds no GPU here; use 'cpu'")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device
