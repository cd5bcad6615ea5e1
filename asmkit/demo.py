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

from asmkit._files import new_folder, replacing
from asmkit.alignment import similarity
from asmkit.annotations import Annotation, read, stack_points, write
from asmkit.boxes import apply_affine, crop_transform, landmark_box
from asmkit.datasets import synthetic_faces
from asmkit.evaluation import Evaluation, evaluate
from asmkit.images import crop, read_image, write_image
from asmkit.metrics import default_normalizer, nme
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
from asmkit.predictor import Predictor, load
from asmkit.schemes import Scheme, scheme_of
from asmkit.splits import validation_part
from asmkit.targets import SmoothedTargets, smooth_targets

__all__ = ["DemoResult", "run_demo"]

Doubles = npt.NDArray[np.float64]

#: Side of a rendered face's image in pixels.
_IMAGE_SIZE = 128
#: Of a user's folder, this share is kept unseen for the test.
_TEST_SHARE = 0.2
#: The jitter of a box, in units of its size: what a detector gets wrong.
_JITTER = 0.08
#: The contact sheet: its faces and their sides in pixels.
_SHOWN, _CELL = 24, 192


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What a demo found: ``summary`` holds its numbers, ``folder`` everything else."""

    folder: Path
    summary: dict[str, Any]

    def __str__(self) -> str:
        errors, measured = self.summary["nme"], self.summary["evaluation"]
        title = f"NME on {measured['n']} unseen images, % of {measured['normalizer']}"
        width = max(map(len, [title, *errors]))
        lines = [title, "-" * (width + 8)]
        lines += [f"{name:<{width}}{value:8.2f}" for name, value in errors.items()]
        if measured["pose_mae"]:
            angles = (f"{name} {value:.1f}°" for name, value in measured["pose_mae"].items())
            lines.append(f"mean error of the pose head: {', '.join(angles)}")
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
        A new folder; it appears when everything has succeeded.
    data : path, optional
        Folder of annotated images, a fifth of which is the test; without it, faces are rendered.
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
    FileNotFoundError, ValueError
        When the data cannot be used.
    """
    changes = {"seed": seed} | ({} if epochs is None else {"epochs": epochs})
    recipe = Recipe.read("demo", **changes)
    with new_folder(out) as folder:
        if data is None:
            say(f"rendering {n_faces} faces")
            seen, unseen = _render(folder / "faces", n_faces, seed, progress)
        else:
            seen, unseen = _split(read(data, require_images=True))
        say(f"{len(seen)} images to learn from, {len(unseen)} to test on")
        _learn_shape(folder, seen, say)
        say("training ASMNet with the ASM-assisted loss")
        run = train(seen, folder / "run", recipe, progress=progress)
        say("testing it")
        summary = _test(folder, load(run), seen, unseen, seed)
    return DemoResult(Path(out), summary)


def _render(
    folder: Path, n_faces: int, seed: int, progress: bool
) -> tuple[list[Annotation], list[Annotation]]:
    faces = synthetic_faces(n_faces, seed, size=_IMAGE_SIZE, progress=progress)
    annotations = faces.save(folder)
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


def _learn_shape(folder: Path, seen: Sequence[Annotation], say: Callable[[str], None]) -> None:
    """Fit, save and draw the shape model, and write the labels that it smooths."""
    shapes = stack_points(seen)
    model = ShapeModel(mirror=scheme_of(shapes.shape[1])).fit(shapes)
    model.save(folder / "shape_model.npz")
    save_figure(plot_modes(model), folder / "modes.png")
    say(f"shape model: {model.n_components_} modes hold 98 % of the variance")
    smoothed = smooth_targets(model, shapes)
    _write_points(folder / "smoothed", seen, smoothed)
    moved = 100 * float(smoothed.report.displacement_per_shape.mean())
    say(
        f"smoothed labels: moved by {moved:.2f} % of {smoothed.report.normalizer} on average, "
        f"{smoothed.report.n_clamped} shapes clamped"
    )


def _write_points(folder: Path, seen: Sequence[Annotation], smoothed: SmoothedTargets) -> None:
    folder.mkdir()
    pairs = zip(seen, smoothed.shapes, strict=True)
    write(folder, [replace(annotation, points=points) for annotation, points in pairs])


def _test(
    folder: Path,
    predictor: Predictor,
    seen: Sequence[Annotation],
    unseen: Sequence[Annotation],
    seed: int,
) -> dict[str, Any]:
    """Measure and draw; gives the numbers, which also go to ``results.json``."""
    evaluation = evaluate(predictor, unseen)
    shapes, known = stack_points(seen), scheme_of(predictor.n_points)
    errors = _errors(predictor, shapes, unseen, evaluation, known, seed)
    write_image(folder / "predictions.png", _sheet(unseen, evaluation, known))
    save_figure(plot_ced(errors, threshold=0.2), folder / "ced.png")
    log = (folder / "run" / "log.jsonl").read_text("utf-8").splitlines()
    save_figure(plot_training([json.loads(line) for line in log]), folder / "training.png")
    summary = {
        "nme": {name: round(100 * float(values.mean()), 3) for name, values in errors.items()},
        "evaluation": evaluation.summary,
    }
    with replacing(folder / "results.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
    return summary


def _errors(
    predictor: Predictor,
    shapes: Doubles,
    unseen: Sequence[Annotation],
    evaluation: Evaluation,
    known: Scheme | None,
    seed: int,
) -> dict[str, Doubles]:
    """NME of the network and of the baselines on the unseen faces, each ``(n,)``."""
    truth = stack_points(unseen)
    jittered = _jitter(landmark_box(truth), seed)
    mean = ShapeModel(1).fit(shapes).mean_
    predictions = {
        "ASMNet in the true boxes": evaluation.points,
        "ASMNet in jittered boxes": _locate(predictor, unseen, jittered),
        "mean shape, least squares on the true landmarks": similarity(mean, truth).apply(mean),
        "mean shape in jittered boxes": _mean_in_boxes(shapes, jittered),
    }
    normalizer = default_normalizer(known)
    return {name: nme(p, truth, normalizer, known) for name, p in predictions.items()}


def _locate(predictor: Predictor, unseen: Sequence[Annotation], boxes: Doubles) -> Doubles:
    pairs = zip(unseen, boxes, strict=True)
    return np.concatenate([predictor.locate(_photo(face), box[None]) for face, box in pairs])


def _photo(annotation: Annotation) -> npt.NDArray[np.uint8]:
    assert annotation.image is not None  # the evaluation has read it
    return read_image(annotation.image)


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


def _sheet(
    unseen: Sequence[Annotation], evaluation: Evaluation, known: Scheme | None
) -> npt.NDArray[np.uint8]:
    """Draw what the network found on the first unseen faces."""
    contours = known.contours if known else ()
    cells = []
    for annotation, points in zip(unseen[:_SHOWN], evaluation.points, strict=False):
        matrix = crop_transform(landmark_box(annotation.points), _CELL, 1.5)[0]
        cell = crop(_photo(annotation), matrix, _CELL)
        cells.append(draw_landmarks(cell, apply_affine(matrix, points), contours))
    return contact_sheet(cells)
