"""ATPN's reconstructed choices on 300-W, one factor at a time, at a reduced equal budget.

    python benchmarks/atpn_ablation.py --data ../shared/data/300w/train --out RESULTS.jsonl

The landmarks are trained once for each seed and each shortcut and head; the second stage once for
each seed, heatmap and fusion, all from the same landmarks. Everything is measured on a fifth of the
training set that the hash of the names holds out; the test set is not touched. Every result is
a line of RESULTS.jsonl: what is there already is not run again, so the whole can be stopped and
started at will. At the end, and with --table alone, it prints means and standard deviations.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "100000")  # see asmkit train

import numpy as np
import torch
from result_lines import add_row, is_there, read_rows

import asmkit
from asmkit.nn import Recipe
from asmkit.nn.checkpoint import read_tensors, write_tensors
from asmkit.nn.epoch import train_epoch
from asmkit.nn.initial_state import initial_state
from asmkit.nn.losses import ASMAssistedLoss, alpha_at
from asmkit.nn.preparation import prepare
from asmkit.nn.training import averaged_network, keep_freed_memory
from asmkit.nn.validation import validate

LANDMARKS: dict[str, dict[str, Any]] = {
    "shortcut none": {"shortcut": "none"},
    "shortcut add": {"shortcut": "add"},
    "shortcut concat": {},
    "regression head": {"head": "regression"},
}
HEADS: dict[str, dict[str, Any]] = {
    "boundary, concat": {},
    "no heatmap": {"heatmap": "none"},
    "points, concat": {"heatmap": "points"},
    "boundary, gate": {"fusion": "gate"},
    "boundary, no coordinates": {"coordinates": "none"},
    "no heatmap, no coordinates": {"heatmap": "none", "coordinates": "none"},
    "boundary, 6-D rotation": {"pose_form": "6d"},
    "boundary, trunk at a tenth": {"trunk_rate": 0.1},
}


class Ablation:
    """The runs of one budget, with what is needed for all of them made once."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.out: Path = arguments.out
        self.work: Path = arguments.work
        self.work.mkdir(parents=True, exist_ok=True)
        self.budget = Recipe.read(
            "atpn",
            width=arguments.width,
            epochs=arguments.epochs,
            head_epochs=arguments.head_epochs,
            validation=0.2,
        )
        self.data = asmkit.read(arguments.data, require_images=True)
        self.rows = read_rows(self.out)

    def run(self, seed: int) -> None:
        """Every run of a seed that is not there yet."""
        for name, changes in LANDMARKS.items():
            self._landmarks(name, dataclasses.replace(self.budget, seed=seed, **changes))
        for name, changes in HEADS.items():
            self._heads(name, dataclasses.replace(self.budget, seed=seed, **changes))

    def _landmarks(self, name: str, recipe: Recipe) -> None:
        done, path = self._done(name, recipe), self._weights(name, recipe)
        needed = name == "shortcut concat" and not path.is_file()
        if done and not needed:
            return
        parts, state = self._start(recipe)
        self._train(name, recipe, parts, state, recipe.epochs, keep=not done)
        write_tensors(path, averaged_network(state).state_dict(), {})

    def _heads(self, name: str, recipe: Recipe) -> None:
        if self._done(name, recipe):
            return
        parts, state = self._start(recipe)
        weights, _ = read_tensors(self._weights("shortcut concat", recipe))
        trunk = {key: t for key, t in weights.items() if not key.startswith("tasks.")}
        state.average.module.load_state_dict(trunk, strict=False)
        state.epoch = recipe.epochs
        state.network.load_state_dict(state.average.module.state_dict())
        state.step = recipe.epochs * (len(parts.training) // recipe.batch_size)
        self._train(name, recipe, parts, state, recipe.epochs + recipe.head_epochs, keep=True)

    def _start(self, recipe: Recipe) -> tuple[Any, Any]:
        parts = prepare(self.data, recipe, progress=False)
        keep_freed_memory()
        torch.manual_seed(recipe.seed)
        return parts, initial_state(parts, recipe)

    def _train(
        self, name: str, recipe: Recipe, parts: Any, state: Any, until: int, keep: bool
    ) -> None:
        loss = ASMAssistedLoss.of(recipe)
        started, first = time.perf_counter(), state.step
        while state.epoch < until:
            alpha = alpha_at(state.epoch / recipe.epochs, recipe.alpha)
            train_epoch(state, parts, recipe, loss, alpha)
            state.epoch += 1
        if not keep:
            return
        row = validate(
            averaged_network(state),
            parts.validation,
            parts.scheme,
            judges=name in HEADS,
        )
        row = {key: round(value, 5) for key, value in row.items()}
        row |= {
            "run": name,
            "seed": recipe.seed,
            "width": recipe.width,
            "samples": (state.step - first) * recipe.batch_size,
            "parameters": sum(p.numel() for p in state.network.parameters()),
            "seconds": round(time.perf_counter() - started),
        }
        add_row(self.out, self.rows, row)
        print(json.dumps(row), flush=True)

    def _done(self, name: str, recipe: Recipe) -> bool:
        return is_there(self.rows, {"run": name, "seed": recipe.seed})

    def _weights(self, name: str, recipe: Recipe) -> Path:
        return self.work / f"{name.replace(' ', '-')}-{recipe.seed}.safetensors"


def table(rows: list[dict[str, Any]]) -> str:
    """Means ± standard deviations over the seeds, and paired differences of the NME."""
    lines = []
    for group, keys in (
        (LANDMARKS, ("nme",)),
        (HEADS, ("nme", "yaw", "pitch", "roll", "face_auc")),
    ):
        lines += ["| | seeds | " + " | ".join(keys) + " | NME − reference, paired |"]
        lines += ["|---" * (len(keys) + 3) + "|"]
        reference = {row["seed"]: row["nme"] for row in rows if row["run"] == "shortcut concat"}
        for name in group:
            runs = [row for row in rows if row["run"] == name]
            if not runs:
                continue
            cells = [
                f"{np.mean(values):.4g} ± {np.std(values, ddof=min(1, len(values) - 1)):.2g}"
                for values in ([row[key] for row in runs] for key in keys)
            ]
            paired = [row["nme"] - reference[row["seed"]] for row in runs]
            spread = f"{np.mean(paired):+.3f} ({min(paired):+.3f} to {max(paired):+.3f})"
            lines += [f"| {name} | {len(runs)} | " + " | ".join(cells) + f" | {spread} |"]
        lines += [""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="300-W train")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/atpn-ablation"), help="weights")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--head-epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="print the table of what is there")
    arguments = parser.parse_args()
    if not arguments.table:
        ablation = Ablation(arguments)
        for seed in range(arguments.seeds):
            ablation.run(seed)
    print(table(read_rows(arguments.out)))


if __name__ == "__main__":
    main()
