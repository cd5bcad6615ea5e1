"""Error of a network as a function of the error of its box, in one pass and in two.

    python benchmarks/box_error.py RUN... --data ../shared/data/300w/train --out FILE.jsonl
    python benchmarks/box_error.py --from FILE.jsonl --plot FILE.png

The tight box of the annotated landmarks is shifted, by a part of its width and height in each of
eight directions (along the diagonals by 1/√2 of it on each axis), or scaled about its centre. The
second pass looks into the tight box of the landmarks that the first one found. The images are those
that the trainings of the shipped recipes hold out. Last come the boxes of the face detector, of the
faces that it finds. NME in per cent, by the default normalizer (faces: inter-ocular).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

import asmkit
from asmkit._files import replacing
from asmkit.boxes import BELONGS, iou, landmark_box
from asmkit.images import read_image
from asmkit.metrics import default_normalizer
from asmkit.plotting import save_figure
from asmkit.splits import validation_part

Doubles = npt.NDArray[np.float64]

SHIFTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
SCALES = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5)
ANGLES = np.arange(8) * np.pi / 4
#: What the shipped recipes hold out.
SHARE = 0.05


def shifted(box: Doubles, by: float) -> Doubles:
    steps = by * np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1) * box[2:]
    return np.concatenate([box[:2] + steps, np.tile(box[2:], (len(steps), 1))], axis=1)


def scaled(box: Doubles, by: float) -> Doubles:
    return np.array([[*(box[:2] + (1 - by) / 2 * box[2:]), *(by * box[2:])]])


def detected(image: npt.NDArray[np.uint8], box: Doubles) -> Doubles:
    """The one that belongs to the face, where there is one."""
    found = asmkit.detect_faces(image)
    overlap = iou(found, box)
    return found[overlap >= BELONGS][np.argsort(-overlap[overlap >= BELONGS])[:1]]


def measure(run: Path, data: Path) -> list[dict[str, Any]]:
    """A row for each error of the box and each number of passes."""
    predictor = asmkit.load(run)
    annotations = asmkit.read(data, require_images=True)
    held_out = validation_part([a.name for a in annotations], SHARE)
    annotations = [a for a, out in zip(annotations, held_out, strict=True) if out]
    scheme = asmkit.scheme(predictor.scheme) if predictor.scheme else None
    errors: dict[tuple[str, float, int], list[Doubles]] = {}
    for annotation in tqdm(annotations, run.name, leave=False):
        assert annotation.image is not None  # asked for above
        image, true = read_image(annotation.image), landmark_box(annotation.points)
        boxes = {("shift", by): shifted(true, by) for by in SHIFTS}
        boxes |= {("scale", by): scaled(true, by) for by in SCALES}
        boxes["detector", 0.0] = detected(image, true)
        whose = [kind for kind, some in boxes.items() for _ in some]
        points = predictor.locate(image, np.concatenate(list(boxes.values())))
        for passes in (1, 2):
            if passes == 2:
                points = predictor.locate(image, landmark_box(points))
            truth = np.broadcast_to(annotation.points, points.shape)
            nme = asmkit.nme(points, truth, default_normalizer(scheme), scheme)
            for kind in boxes:
                rows = [row for row, other in enumerate(whose) if other == kind]
                errors.setdefault((*kind, passes), []).append(nme[rows])
    return [
        {"run": run.name, "kind": kind, "by": by, "passes": passes, "faces": len(annotations)}
        | summary(np.concatenate(values))
        for (kind, by, passes), values in errors.items()
    ]


def summary(errors: Doubles) -> dict[str, Any]:
    return {
        "boxes": len(errors),
        "nme": round(100 * float(errors.mean()), 3),
        "median": round(100 * float(np.median(errors)), 3),
        "over_8": round(100 * float((errors > 0.08).mean()), 2),
    }


def show(rows: Sequence[dict[str, Any]]) -> None:
    """The figures as a table of Markdown: mean NME in one and in two passes."""
    runs = list(dict.fromkeys(row["run"] for row in rows))
    print("| box |", " | ".join(f"{run}, once | twice" for run in runs), "|")
    print("|---" * (1 + 2 * len(runs)) + "|")
    for kind, by in dict.fromkeys((row["kind"], row["by"]) for row in rows):
        line = {
            (row["run"], row["passes"]): f"{row['nme']:.2f} ({row['over_8']:.1f} %)"
            for row in rows
            if (row["kind"], row["by"]) == (kind, by)
        }
        name = kind if kind == "detector" else f"{kind} {by:g}"
        print(
            f"| {name} |", " | ".join(line[run, passes] for run in runs for passes in (1, 2)), "|"
        )


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """One panel for shifts, one for scales."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"shift": "shift, in box sizes", "scale": "factor of width and height"}
    for panel, (kind, title) in zip(panels, titles.items(), strict=True):
        for number, run in enumerate(dict.fromkeys(row["run"] for row in rows)):
            for passes, style in ((1, "-"), (2, "--")):
                line = [
                    r for r in rows if (r["run"], r["kind"], r["passes"]) == (run, kind, passes)
                ]
                panel.plot(
                    [row["by"] for row in line],
                    [row["nme"] for row in line],
                    style,
                    color=f"C{number}",
                    marker="o",
                    markersize=3,
                    label=f"{run}, {'once' if passes == 1 else 'twice'}",
                )
        panel.set_xlabel(title)
        panel.set_yscale("log")
        panel.set_yticks([4, 5, 6, 8, 10, 15, 20], ["4", "5", "6", "8", "10", "15", "20"])
        panel.grid(linewidth=0.3)
    panels[0].set_ylabel("mean NME, %")
    panels[1].legend(fontsize=8)
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN")
    parser.add_argument("--data", type=Path, help="annotated images; their held-out part is used")
    parser.add_argument("--out", type=Path, help="JSON lines of the figures")
    parser.add_argument("--from", type=Path, dest="known", help="show these figures, measure none")
    parser.add_argument("--plot", type=Path, help="picture of the figures, .png")
    arguments = parser.parse_args()
    if bool(arguments.runs) == bool(arguments.known) or bool(arguments.runs) != bool(
        arguments.data
    ):
        parser.error("give either RUN and --data, to measure, or --from, to show")
    if arguments.known:
        rows = [json.loads(line) for line in arguments.known.read_text("utf-8").splitlines()]
    else:
        rows = [row for run in arguments.runs for row in measure(run, arguments.data)]
    show(rows)
    if arguments.out:
        with replacing(arguments.out) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
