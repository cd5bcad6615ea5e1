"""``asmkit smooth``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

__all__ = ["command"]


@click.command("smooth")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder or file to write."
)
@click.option("--components", type=click.IntRange(1), help="Modes to keep; default: all.")
@click.option(
    "--limit", type=float, default=3.0, show_default=True, help="Clamp at ± this many deviations."
)
def command(model: Path, data: Path, out: Path, components: int | None, limit: float) -> None:
    """Write annotations smoothed by a shape model: the targets of the ASM-assisted loss.

    Prints how far the landmarks moved and which modes were clamped. A folder gives a folder of
    .pts files; images are not copied.

    \b
    Example:
      asmkit model fit faces/ -o faces.npz
      asmkit smooth faces.npz faces/ -o smoothed/
    """
    import numpy as np

    from asmkit.annotations import read, write
    from asmkit.evaluation import default_normalizer
    from asmkit.model import ShapeModel
    from asmkit.priors import Box
    from asmkit.schemes import scheme_of
    from asmkit.targets import smooth_targets

    shape_model = ShapeModel.load(model)
    annotations = read(data)
    expected = shape_model.mean_.shape
    for annotation in annotations:
        if annotation.points.shape != expected:
            raise ValueError(
                f"{annotation.name}: points of shape {annotation.points.shape}, "
                f"but the model {model} has {expected}"
            )
    shapes = np.stack([annotation.points for annotation in annotations])
    normalizer = default_normalizer(scheme_of(len(shapes[0])))
    smoothed = smooth_targets(
        shape_model, shapes, n_components=components, prior=Box(limit), normalizer=normalizer
    )
    changed = [
        replace(annotation, points=points)
        for annotation, points in zip(annotations, smoothed.shapes, strict=True)
    ]
    out.mkdir(parents=True, exist_ok=True) if data.is_dir() else None
    write(out, changed)
    click.echo(str(smoothed.report))
    click.echo(f"{out}: {len(changed)} smoothed shapes")
