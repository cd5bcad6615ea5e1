"""The state of a training as one file, so that a kill at any moment loses no finished epoch.

All tensors and the JSON of the rest lie in one safetensors file that is replaced atomically.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from asmkit._files import replacing
from asmkit.errors import FormatError
from asmkit.nn.heads import LandmarkNetwork
from asmkit.nn.processes import Processes

__all__ = ["TrainingState", "load_state", "read_tensors", "save_state", "write_tensors"]

#: One metadata key only: safetensors writes several in no fixed order.
_KEY = "asmkit"


@dataclass
class TrainingState:
    """Everything that a training changes."""

    network: LandmarkNetwork
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    #: epochs finished
    epoch: int = 0
    #: optimiser steps done
    step: int = 0
    #: one row an epoch, as in ``log.jsonl``
    history: list[dict[str, Any]] = field(default_factory=list)
    processes: Processes = field(default_factory=Processes)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device


def write_tensors(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write tensors and a JSON record to one safetensors file, whole or not at all."""
    flat = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(flat, str(temporary), metadata={_KEY: json.dumps(record, sort_keys=True)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_tensors` wrote.

    Raises
    ------
    FormatError
        When the file is truncated or not of this kind.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            record = json.loads((file.metadata() or {})[_KEY])
            return {name: file.get_tensor(name) for name in file.keys()}, record  # noqa: SIM118 (not a dict: only its keys() lists names)
    except (SafetensorError, KeyError, ValueError) as error:
        raise FormatError(
            f"{path}: not a safetensors file written by asmkit ({error}); "
            "it may be truncated or of another program"
        ) from error


def save_state(path: Path, state: TrainingState, record: Mapping[str, Any]) -> None:
    """Write a training's state; ``record`` says what it belongs to.

    Every process of the training takes part; one of them writes.
    """
    random = state.processes.gather(_random_state(state))
    if not state.processes.writes:
        return
    tensors = {f"network.{name}": t for name, t in state.network.state_dict().items()}
    tensors |= {f"average.{name}": t for name, t in state.average.state_dict().items()}
    for index, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": t for name, t in values.items()}
    tensors |= {f"random.{rank}": t for rank, t in enumerate(random)}
    progress = {"epoch": state.epoch, "step": state.step, "history": state.history}
    write_tensors(path, tensors, {**record, "progress": progress})


def load_state(path: Path, state: TrainingState, record: Mapping[str, Any]) -> None:
    """Put a saved state into ``state``, which was made by the same recipe.

    Raises
    ------
    FormatError
        When the file is broken.
    ValueError
        When the state belongs to another recipe, data set or number of threads.
    """
    tensors, saved = read_tensors(path)
    progress = saved.pop("progress")
    for key, value in record.items():
        if saved.get(key) != value:
            raise ValueError(
                f"{path}: this training was started with {key} = {saved.get(key)!r}, now it is "
                f"{value!r}; resume with what it was started with, or start a new one"
            )
    state.network.load_state_dict(_under("network.", tensors))
    state.average.load_state_dict(_under("average.", tensors))
    _load_optimizer(state.optimizer, tensors)
    _set_random_state(state, tensors[f"random.{state.processes.rank}"])
    state.epoch, state.step = progress["epoch"], progress["step"]
    state.history[:] = progress["history"]


def _random_state(state: TrainingState) -> Tensor:
    """What drop-out draws from next, on the device of the network."""
    if state.device.type == "cuda":
        return torch.cuda.get_rng_state(state.device)
    return torch.get_rng_state()


def _set_random_state(state: TrainingState, random: Tensor) -> None:
    if state.device.type == "cuda":
        torch.cuda.set_rng_state(random, state.device)
    else:
        torch.set_rng_state(random)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, parameter in enumerate(parameters):
        saved = _under(f"optimizer.{index}.", tensors)
        # The memory layout of the parameter: another one would round sums differently.
        optimizer.state[parameter] = {
            name: torch.empty_like(parameter).copy_(t) if t.shape == parameter.shape else t
            for name, t in saved.items()
        }


def sync_folder(folder: Path) -> None:
    """Remove what a killed writer left behind."""
    for leftover in folder.glob(".*.part*"):
        leftover.unlink(missing_ok=True)


def as_record(values: Any) -> dict[str, Any]:
    """A dataclass as what comes back from JSON, so that saved and new compare equal."""
    record: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(values)))
    return record


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make the folder of a training, which must be new or empty."""
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} exists and is not empty; choose another folder, or resume that training"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder
