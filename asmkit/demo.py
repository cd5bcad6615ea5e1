"""The whole route on faces that asmkit renders itself, or on a folder of the user's own.

Annotations → shape model → smoothed labels → ASMNet with the ASM-assisted loss → landmarks and
pose of faces it has not seen, beside two baselines that know more than a network is told.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asmkit._files import replacing
from asmkit.alignment import similarity
from asmkit.annotations import Annotation, read, write
from asmkit.boxes import crop_transform, landmark_box
from asmkit.datasets import synthetic_faces
from asmkit.evaluation import Evaluation, default_normalizer, evaluate
from asmkit.images import crop, read_image, write_image
from asmkit.metrics import nme
from asmkit.model import ShapeModel
from asmkit.nn.recipe import Recipe
from asmkit.nn.training import train
from asmkit.plotting import (
    contact_sheet,
    draw_landmarks,
    plot_ced,
    plot_modes,
    plot_training,
    save_figure,
)
from asmkit.predictor import load
from asmkit.schemes import Scheme, scheme_of
from asmkit.splits import validation_part
from asmkit.targets import smooth_targets

__all__ = ["DemoResult", "run_demo"]

Doubles = npt.NDArray[np.float64]

#: Side of a rendered face's image in pixels.
_IMAGE_SIZE = 128
#: Of a user's folder, this share is kept unseen for the test.
_TEST_SHARE = 0.2
#: The jitter of a box, in units of its size: what a detector gets wrong.
_JITTER = 0.08


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What a demo found: ``summary`` holds its numbers, ``folder`` everything else."""

    folder: Path
    summary: dict[str, Any]

    def __str__(self) -> str:
        rows = self.summary["nme"]
        width = max(map(len, rows))
        lines = [f"{'on faces it has not seen':<{width}}   NME"]
        lines += [f"{name:<{width}}  {value:5.2f} %" for name, value in rows.items()]
        return "\n".join(lines)


def run_demo(
    out: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    n_faces: int = 2000,
    epochs: int | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: bool = False,
) -> DemoResult:
    """Run the whole route and leave its results in a folder.

    Parameters
    ----------
    out : path
        A new folder.
    data : path, optional
        Folder of annotated images; without it, faces are rendered.
    seed : int
        Of the rendered faces and of the training.
    n_faces : int
        How many faces are rendered; a tenth of them is the test.
    epochs : int, optional
        Instead of the demo recipe's.
    say : callable
        Told what happens, a line at a time.
    progress : bool
        Show progress bars.

    Returns
    -------
    DemoResult

    Raises
    ------
    FileExistsError
        When ``out`` holds something already.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not empty; choose another folder with --out")
    if data is None:
        say(f"rendering {n_faces} faces")
        seen, unseen = _render(folder, n_faces, seed, progress)
    else:
        seen, unseen = _split(read(data, require_images=True))
    shapes = np.stack([annotation.points for annotation in seen])
    found = scheme_of(shapes.shape[1])
    say(f"{len(seen)} faces to learn from, {len(unseen)} to test on")
    model = ShapeModel(mirror=found).fit(shapes)
    model.save(folder / "shape_model.npz")
    save_figure(plot_modes(model), folder / "modes.png")
    say(f"shape model: {model.n_components_} modes hold 98 % of the variance")
    say(_write_smoothed(folder / "smoothed", model, seen, found))
    changes = {"seed": seed} | ({} if epochs is None else {"epochs": epochs})
    say("training ASMNet with the ASM-assisted loss")
    run = train(seen, folder / "run", Recipe.read("demo", **changes), progress=progress)
    evaluation = evaluate(load(run), unseen, progress=progress)
    errors = _errors(run, shapes, unseen, evaluation, found, seed)
    _draw(folder, unseen, evaluation, errors, found)
    summary = {
        "nme": {name: round(100 * float(values.mean()), 3) for name, values in errors.items()},
        "evaluation": evaluation.summary,
    }
    with replacing(folder / "results.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
    return DemoResult(folder, summary)


def _render(
    folder: Path, n_faces: int, seed: int, progress: bool
) -> tuple[list[Annotation], list[Annotation]]:
    faces = synthetic_faces(n_faces, seed, size=_IMAGE_SIZE, progress=progress)
    annotations = faces.save(folder / "faces")
    n_test = max(1, n_faces // 10)
    return annotations[n_test:], annotations[:n_test]


def _split(annotations: Sequence[Annotation]) -> tuple[list[Annotation], list[Annotation]]:
    kept = validation_part([annotation.name for annotation in annotations], _TEST_SHARE)
    if kept.all() or not kept.any():
        raise ValueError(
            f"got {len(annotations)} annotated images, too few to keep a fifth of them unseen"
        )
    pairs = list(zip(annotations, kept, strict=True))
    return [a for a, test in pairs if not test], [a for a, test in pairs if test]


def _write_smoothed(
    folder: Path, model: ShapeModel, annotations: Sequence[Annotation], found: Scheme | None
) -> str:
    shapes = np.stack([annotation.points for annotation in annotations])
    smoothed = smooth_targets(model, shapes, normalizer=default_normalizer(found))
    folder.mkdir(parents=True)
    write(
        folder,
        [
            replace(annotation, points=points)
            for annotation, points in zip(annotations, smoothed.shapes, strict=True)
        ],
    )
    return str(smoothed.report)


def _errors(
    run: Path,
    shapes: Doubles,
    unseen: Sequence[Annotation],
    evaluation: Evaluation,
    found: Scheme | None,
    seed: int,
) -> dict[str, Doubles]:
    """NME of the network and of the baselines on the unseen faces, each ``(n,)``."""
    truth = np.stack([annotation.points for annotation in unseen])
    normalizer = default_normalizer(found)
    boxes = landmark_box(truth)
    jittered = _jitter(boxes, seed)
    predictor = load(run)
    in_jittered = np.concatenate(
        [
            predictor.locate(read_image(annotation.image), box[None])
            for annotation, box in zip(unseen, jittered, strict=True)
            if annotation.image is not None
        ]
    )
    mean = ShapeModel(1).fit(shapes).mean_
    predictions = {
        "ASMNet, tight boxes": evaluation.points,
        "ASMNet, jittered boxes": in_jittered,
        "mean shape, least squares on the true landmarks": similarity(mean, truth).apply(mean),
        "mean shape in the jittered boxes": _mean_in_boxes(shapes, jittered),
    }
    return {name: nme(p, truth, normalizer, found) for name, p in predictions.items()}


def _jitter(boxes: Doubles, seed: int) -> Doubles:
    """Boxes moved, and scaled about their centres, by up to the jitter."""
    rng = np.random.default_rng([seed, 1])
    size = boxes[:, 2:]
    centre = boxes[:, :2] + size * (0.5 + rng.uniform(-_JITTER, _JITTER, size.shape))
    size = size * np.exp(rng.uniform(-_JITTER, _JITTER, (len(size), 1)))
    return np.concatenate([centre - size / 2, size], axis=1)


def _mean_in_boxes(shapes: Doubles, boxes: Doubles) -> Doubles:
    own = landmark_box(shapes)[:, None]
    mean = ((shapes - own[..., :2]) / own[..., 2:]).mean(0)
    placed: Doubles = boxes[:, None, :2] + boxes[:, None, 2:] * mean
    return placed


def _draw(
    folder: Path,
    unseen: Sequence[Annotation],
    evaluation: Evaluation,
    errors: dict[str, Doubles],
    found: Scheme | None,
) -> None:
    contours = found.contours if found else ()
    size, cells = 192, []
    for row in range(min(24, len(unseen))):
        annotation = unseen[row]
        assert annotation.image is not None  # the evaluation has read it
        matrix = crop_transform(landmark_box(annotation.points)[None], size, 1.5)[0]
        cell = crop(read_image(annotation.image), matrix, size)
        points = evaluation.points[row] @ matrix[:, :2].T + matrix[:, 2]
        cells.append(draw_landmarks(cell, points, contours))
    write_image(folder / "predictions.png", contact_sheet(cells))
    save_figure(plot_ced(errors, threshold=0.2), folder / "ced.png")
    log = (folder / "run" / "log.jsonl").read_text("utf-8").splitlines()
    save_figure(plot_training([json.loads(line) for line in log]), folder / "training.png")
