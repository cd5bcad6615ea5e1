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
@click.option("--components", type=click.IntRange(1), help="Modes to keep. Default: all.")
@click.option(
    "--limit",
    type=click.FloatRange(0, min_open=True),
    default=3.0,
    show_default=True,
    help="Clamp each mode at ± this many standard deviations.",
)
def command(model: Path, data: Path, out: Path, components: int | None, limit: float) -> None:
    """Write annotations smoothed by a shape model: the targets of the ASM-assisted loss.

    DATA is a file or a folder of annotations; a folder gives a folder of .pts files, without the
    images. Prints how far the landmarks moved and which modes were clamped.

    \b
    Examples:
      asmkit model fit faces/ -o faces.npz
      asmkit smooth faces.npz faces/ -o smoothed/
    """
    from asmkit.annotations import ANNOTATION_SUFFIXES, read, stack_points, write
    from asmkit.model import ShapeModel
    from asmkit.priors import Box
    from asmkit.targets import smooth_targets

    folder = data if data.is_dir() else data.parent
    if out.exists() and (out.samefile(data) or out.samefile(folder)):
        raise ValueError(f"{out}: holds the annotations to smooth; choose another place with -o")
    shape_model = ShapeModel.load(model)
    annotations = read(data)
    shapes = stack_points(annotations)
    if shapes.shape[1:] != shape_model.mean_.shape:
        raise ValueError(
            f"{data}: shapes of (points, dimensions) {shapes.shape[1:]}, but the model {model} has "
            f"{shape_model.mean_.shape}; fit a model on such shapes"
        )
    smoothed = smooth_targets(shape_model, shapes, n_components=components, prior=Box(limit))
    changed = [
        replace(annotation, points=points)
        for annotation, points in zip(annotations, smoothed.shapes, strict=True)
    ]
    if data.is_dir() and out.suffix.lower() not in ANNOTATION_SUFFIXES:
        out.mkdir(parents=True, exist_ok=True)
    write(out, changed)
    click.echo(str(smoothed.report))
    click.echo(f"{out}: {len(changed)} smoothed shapes")
