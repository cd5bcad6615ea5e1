"""Networks for landmarks of one's own: 30 hands, 70 head X-rays, five splits, with and without ASM.

    python benchmarks/own_landmarks.py ../shared/data --out RESULTS.jsonl

Each set is split five times at random into images to train on and images to test on. A training is
that of ``asmkit train --data DIR --recipe few --start atpn-ibug68``, but for its length and for
what the shape model does in it. Tested in the tight boxes of the true landmarks; the error of an
image is the mean distance of its landmarks over the diagonal of that box. The truth of the X-rays
is expert a; their error is told, too, as a multiple of the distance between the two experts on the
same test images.

The base of comparison without any network: the mean of the training shapes, stretched to the box.

Every result is a line of RESULTS.jsonl: what is there already is not run again. ``--inner`` splits
the training images of the first split once more, for choosing: nothing of a test part is read.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "100000")  # see asmkit train

import numpy as np
import numpy.typing as npt
from result_lines import add_row, is_there, read_rows

import asmkit
from asmkit.baseline import mean_in_boxes
from asmkit.boxes import landmark_box
from asmkit.images import read_image
from asmkit.metrics import nme
from asmkit.nn import Recipe, train
from asmkit.nn.recipe import parse_settings

Doubles = npt.NDArray[np.float64]

START = "atpn-ibug68"
#: Without the shape model's help; with it: smoothed targets at first, and images warped to other
#: plausible shapes.
ARMS: dict[str, dict[str, Any]] = {
    "alone": {"alpha": "none", "asm_warp": 0.0},
    "with ASM": {"alpha": "to-zero", "asm_warp": 0.5},
}
#: Images to train on, and samples of a training.
SETS = {"hands": (30, 4_000), "ceph": (70, 8_000)}


def hands(data: Path) -> tuple[list[asmkit.Annotation], Doubles | None]:
    """The annotated hands; there is no second expert."""
    return asmkit.read(data / "hands", require_images=True), None


def ceph(data: Path) -> tuple[list[asmkit.Annotation], Doubles | None]:
    """The X-rays that both experts annotated: by the first, and the points of the second."""
    first, second = [], []
    for path in sorted((data / "ceph").glob("*_a.pts")):
        other = path.with_name(path.name.replace("_a", "_b"))
        if other.exists():
            (one,), (two,) = asmkit.read(path), asmkit.read(other)
            name = path.stem.removesuffix("_a")
            first.append(replace(one, image=path.with_name(f"{name}.jpg"), name=name))
            second.append(two.points)
    return first, np.stack(second)


def split(n: int, n_training: int, number: int) -> tuple[list[int], list[int]]:
    """Images to train on and to test on."""
    order = np.random.default_rng(number).permutation(n).tolist()
    return order[:n_training], order[n_training:]


def trained(
    annotations: list[asmkit.Annotation], folder: Path, recipe: Recipe, samples: int
) -> asmkit.Predictor:
    batch = min(recipe.batch_size, len(annotations))
    epochs = round(samples / (len(annotations) // batch * batch))
    recipe = replace(recipe, epochs=epochs)
    return asmkit.load(train(annotations, folder, recipe, start=START, threads=1, progress=False))


def errors(
    predictor: asmkit.Predictor, annotations: list[asmkit.Annotation], truth: Doubles
) -> Doubles:
    """Mean distance over the diagonal of each image."""
    boxes = landmark_box(truth)
    found = [
        predictor.predict(read_image(annotation.image), box[None]).points[0]
        for annotation, box in zip(annotations, boxes, strict=True)
        if annotation.image is not None
    ]
    return np.asarray(nme(np.stack(found), truth, "box-diagonal"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with hands and ceph")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=sorted(SETS), default=list(SETS))
    parser.add_argument("--splits", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--inner", action="store_true", help="choose: within the first split")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    # The second stage, one in the crop or not, changes no landmark.
    recipe = Recipe.read("few", head_epochs=1, **parse_settings(arguments.settings))
    rows = read_rows(arguments.out)
    for name in arguments.sets:
        everything, second = (hands if name == "hands" else ceph)(arguments.data)
        n_training, samples = SETS[name]
        for number in [0] if arguments.inner else arguments.splits:
            training, test = split(len(everything), n_training, number)
            if arguments.inner:
                training, test = training[n_training // 4 :], training[: n_training // 4]
            truth = np.stack([everything[i].points for i in test])
            shapes = asmkit.ShapeModel(0.98).fit(np.stack([everything[i].points for i in training]))
            mean = mean_in_boxes(shapes.mean_, landmark_box(truth))
            between = None if second is None else nme(second[test], truth, "box-diagonal").mean()
            for arm, changes in ARMS.items():
                key = {"set": name, "split": number, "arm": arm, "settings": arguments.settings}
                if is_there(rows, key):
                    continue
                started = time.perf_counter()
                with tempfile.TemporaryDirectory() as folder:
                    network = trained(
                        [everything[i] for i in training],
                        Path(folder) / "run",
                        replace(recipe, **changes),
                        samples,
                    )
                    error = float(errors(network, [everything[i] for i in test], truth).mean())
                row = {
                    **key,
                    "nme": round(100 * error, 4),
                    "mean_shape": round(100 * float(nme(mean, truth, "box-diagonal").mean()), 4),
                    "of_experts": None if between is None else round(error / float(between), 4),
                    "samples": samples,
                    "seconds": round(time.perf_counter() - started),
                }
                add_row(arguments.out, rows, row)
                print(json.dumps(row), flush=True)
    print(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Means over the splits, with their range."""
    lines = ["| set | training | splits | NME, % | times the experts |", "|---|---|---|---|---|"]
    for name in SETS:
        for arm in ARMS:
            runs = [row for row in rows if (row["set"], row["arm"]) == (name, arm)]
            if runs:
                cells = [
                    f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"
                    if None not in values
                    else ""
                    for values in ([row[key] for row in runs] for key in ("nme", "of_experts"))
                ]
                lines.append(f"| {name} | {arm} | {len(runs)} | {cells[0]} | {cells[1]} |")
        means = [row["mean_shape"] for row in rows if row["set"] == name]
        if means:
            lines.append(f"| {name} | no network: the mean shape | | {np.mean(means):.2f} | |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
