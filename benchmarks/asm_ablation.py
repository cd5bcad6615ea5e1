"""What the ASM-assisted loss earns: one factor at a time, on 50, 200 and all training faces.

    python benchmarks/asm_ablation.py --data ../shared/data/300w --out RESULTS.jsonl

Every training sees the same number of samples, whatever the number of faces, with the same batches
for the same seed; what a row changes against the plain training is in ``FACTORS``, all else is in
the recipe ``benchmarks/asm_ablation.toml``. The rows of inexact labels differ in the labels: each
coordinate has a normal error of 3 % of the longer side of the box (crops are cut by the
exact landmarks), and the second row trains on what a shape model of those labels makes of them
(``ShapeModel("likelihood").smooth``).

A tenth of the training set is held out by the hash of the names and never trained on; the faces of
a smaller training set are the first by that hash. Every network is measured on the faces held out,
on 300-W common, and on 300-W common with a piece of another photo over part of each face (the error
is that of all landmarks, seen or covered).

Every result is a line of RESULTS.jsonl: what is there already is not run again, so the whole can be
stopped and started at will. At the end, and with ``--table`` alone, it prints means and standard
deviations over the seeds, and differences to the plain training, paired by the seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "100000")  # see asmkit train

import numpy as np
import numpy.typing as npt
import torch
from confidence import covered_by
from result_lines import add_row, is_there, read_rows
from tqdm import tqdm

import asmkit
from asmkit.boxes import apply_affine, crop_transform, landmark_box
from asmkit.images import crop, read_image
from asmkit.metrics import nme
from asmkit.nn import Recipe
from asmkit.nn.epoch import train_epoch
from asmkit.nn.heads import LandmarkNetwork, to_crop
from asmkit.nn.initial_state import initial_state
from asmkit.nn.losses import ASMAssistedLoss, alpha_at
from asmkit.nn.preparation import prepare
from asmkit.nn.training import averaged_network, keep_freed_memory
from asmkit.nn.validation import outputs_of
from asmkit.splits import validation_part

Crops = list[npt.NDArray[np.uint8]]

PLAIN = "plain"
#: What is done to the labels before a training, in the place of a choice of the recipe.
NOISY, SMOOTHED = "label_noise", "smoothed_labels"
#: Name of a row → what differs from the plain training.
FACTORS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "ASM, printed": {"alpha": "thirds"},
    "ASM, printed, to 0": {"alpha": "to-zero"},
    "squared, plain": {"loss_form": "squared"},
    "ASM, squared": {"loss_form": "squared", "alpha": "thirds"},
    "ASM, box frame": {"alpha": "thirds", "asm_align": "box"},
    "ASM, 80 % of variance": {"alpha": "thirds", "asm_components": 0.8},
    "ASM, 98 % of variance": {"alpha": "thirds", "asm_components": 0.98},
    "ASM warp": {"asm_warp": 0.5},
    "shape layer": {"head": "shape"},
    "shape layer, ASM warp": {"head": "shape", "asm_warp": 0.5},
    "inexact labels": {NOISY: 0.03},
    "inexact labels, smoothed": {NOISY: 0.03, SMOOTHED: "likelihood"},
}
#: What ASMNet is trained with on 200 faces; on 50 and on all it is trained with everything.
MAIN = (PLAIN, "ASM, printed", "ASM, printed, to 0", "ASM warp", "shape layer")
SIZES = (50, 200, 0)
NETWORKS = ("asmnet", "mobilenetv2")
_MEASURES = ("common", "covered", "held_out")


class Faces:
    """Plain crops of annotated faces, and the truth in pixels of the crop."""

    def __init__(
        self, annotations: Sequence[asmkit.Annotation], recipe: Recipe, covers: bool
    ) -> None:
        rng = np.random.default_rng(0)
        images = [read_image(a.image) for a in annotations if a.image is not None]
        points = np.stack([a.points for a in annotations])
        boxes = landmark_box(points)
        matrices = crop_transform(boxes, recipe.input_size, recipe.margin)
        self.crops: Crops = []
        for number, (image, box, matrix) in enumerate(zip(images, boxes, matrices, strict=True)):
            if covers:
                image, _ = covered_by(rng, image, box, images[number - 1])
            self.crops.append(crop(image, matrix, recipe.input_size)[None])
        self.truth = np.asarray(apply_affine(matrices, points), np.float64)
        self.size = recipe.input_size

    def error(self, network: LandmarkNetwork) -> float:
        """Mean NME in per cent."""
        with torch.inference_mode():
            points = to_crop(outputs_of(network, self.crops).points, self.size).numpy()
        return round(100 * float(nme(points, self.truth).mean()), 5)


class Ablation:
    """The trainings of one budget, with what is needed for all of them made once."""

    def __init__(self, data: Path, out: Path, samples: int) -> None:
        self.out, self.samples = out, samples
        self.base = Recipe.read(Path(__file__).with_suffix(".toml"))
        everything = asmkit.read(data / "train", require_images=True)
        kept = validation_part([a.name for a in everything], self.base.validation)
        self.held_out = [a for a, out in zip(everything, kept, strict=True) if out]
        training = [a for a, out in zip(everything, kept, strict=True) if not out]
        self.training = sorted(training, key=lambda a: hashlib.sha256(a.name.encode()).digest())
        common = asmkit.read(data / "test_common", require_images=True)
        self.faces = {
            "common": Faces(common, self.base, covers=False),
            "covered": Faces(common, self.base, covers=True),
            "held_out": Faces(self.held_out, self.base, covers=False),
        }
        self.rows = read_rows(out)

    def run(self, arch: str, size: int, name: str, seed: int) -> None:
        """One training, unless its result is there."""
        key = {"arch": arch, "faces": size, "run": name, "seed": seed, "budget": self.samples}
        self.rows = read_rows(self.out)  # another process may have added some
        if is_there(self.rows, key):
            return
        started = time.perf_counter()
        settings = dict(FACTORS[name])
        noise, smoothed = settings.pop(NOISY, 0.0), settings.pop(SMOOTHED, None)
        exact = self.training[: size or None]
        faces = inexact(exact, noise, smoothed, seed)
        recipe = dataclasses.replace(self.base, arch=arch, seed=seed, validation=0.0, **settings)
        per_epoch = len(faces) // recipe.batch_size
        epochs = round(self.samples / (per_epoch * recipe.batch_size))
        recipe = dataclasses.replace(recipe, epochs=epochs)
        network, seen = self._train(
            faces, recipe, landmark_box(np.stack([a.points for a in exact]))
        )
        row = {**key, "samples": seen, "trained_on": len(faces)}
        row |= {name: faces.error(network) for name, faces in self.faces.items()}
        row["seconds"] = round(time.perf_counter() - started)
        add_row(self.out, self.rows, row)

    def _train(
        self, faces: list[asmkit.Annotation], recipe: Recipe, boxes: npt.NDArray[np.float64]
    ) -> tuple[LandmarkNetwork, int]:
        parts = prepare(faces, recipe, progress=False)
        parts.training.boxes[:] = boxes  # errors of landmarks make boxes larger, which is not asked
        keep_freed_memory()
        torch.manual_seed(recipe.seed)
        state = initial_state(parts, recipe)
        loss = ASMAssistedLoss.of(recipe)
        while state.epoch < recipe.epochs:
            alpha = alpha_at(state.epoch / recipe.epochs, recipe.alpha)
            train_epoch(state, parts, recipe, loss, alpha)
            state.epoch += 1
        return averaged_network(state), state.step * recipe.batch_size


def inexact(
    faces: list[asmkit.Annotation], noise: float, smoothed: str | None, seed: int
) -> list[asmkit.Annotation]:
    """Faces whose landmarks have a normal error, in longer sides of the box, smoothed or not.

    What smooths them is a shape model of these landmarks, its number of modes by the named rule.
    """
    if not noise:
        return faces
    points = np.stack([face.points for face in faces])
    side = landmark_box(points)[:, 2:].max(1)[:, None, None]
    points += noise * side * np.random.default_rng(seed).standard_normal(points.shape)
    if smoothed is not None:
        model = asmkit.ShapeModel(smoothed, mirror="ibug68")
        points = np.asarray(model.fit(points).smooth(points), np.float64)
    pairs = zip(faces, points, strict=True)
    return [dataclasses.replace(face, points=moved) for face, moved in pairs]


def wanted(seeds: int) -> list[tuple[str, int, str, int]]:
    """Network, number of faces, row and seed of every training."""
    plan = [
        ("asmnet", tuple(FACTORS), (50, 0)),
        ("asmnet", MAIN, (200,)),
        ("mobilenetv2", (PLAIN, "ASM, printed"), SIZES),
    ]
    return [
        (arch, size, name, seed)
        for seed in range(seeds)
        for arch, names, sizes in plan
        for name in names
        for size in sizes
    ]


def part_of(text: str) -> tuple[int, int]:
    """``K/N`` as two numbers."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected K/N, K from 1 to N")
    return int(number), int(count)


def table(rows: list[dict[str, Any]], arch: str, size: int) -> str:
    """Means ± standard deviations over the seeds, and paired differences to the plain training."""
    chosen = [row for row in rows if row["arch"] == arch and row["faces"] == size]
    if not chosen:
        return ""
    plain = {row["seed"]: row for row in chosen if row["run"] == PLAIN}
    lines = [
        f"| {arch}, {chosen[0]['trained_on']} faces | seeds | common | against plain | covered | "
        "against plain | held out |",
        "|---" * 7 + "|",
    ]
    for name in FACTORS:
        runs = [row for row in chosen if row["run"] == name]
        if not runs:
            continue
        cells = []
        for measure in _MEASURES:
            values = np.array([row[measure] for row in runs])
            spread = values.std(ddof=min(1, len(runs) - 1))
            cells.append(f"{values.mean():.2f} ± {spread:.2f}")
            pairs = [(row, plain[row["seed"]]) for row in runs if row["seed"] in plain]
            if measure == "held_out":
                continue
            if name == PLAIN or not pairs:
                cells.append("")
                continue
            apart = [row[measure] - other[measure] for row, other in pairs]
            cells.append(f"{np.mean(apart):+.2f} ({min(apart):+.2f} to {max(apart):+.2f})")
        lines.append(f"| {name} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with 300-W train and test_common")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=20_000, help="of each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--part",
        type=part_of,
        default=(1, 1),
        metavar="K/N",
        help="of N processes that share RESULTS.jsonl, this is the K-th",
    )
    parser.add_argument("--table", action="store_true", help="print the table of what is there")
    arguments = parser.parse_args()
    if not arguments.table:
        torch.set_num_threads(arguments.threads)
        ablation = Ablation(arguments.data, arguments.out, arguments.samples)
        part, parts = arguments.part
        for run in tqdm(wanted(arguments.seeds)[part - 1 :: parts], unit="training"):
            ablation.run(*run)
    rows = read_rows(arguments.out)
    print("\n".join(table(rows, arch, size) for arch in NETWORKS for size in SIZES))


if __name__ == "__main__":
    main()
