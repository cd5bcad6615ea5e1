"""``asmkit pose``."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import click

__all__ = ["command"]


@click.command("pose")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="CSV file; default: the screen.")
@click.option(
    "--camera",
    metavar="FX,FY,CX,CY",
    help="Perspective camera in pixels; default: scaled orthography, which suits crops.",
)
def command(data: Path, out: Path | None, camera: str | None) -> None:
    """Head pose of annotated faces, from their landmarks and a 3-D reference face.

    Yaw, pitch and roll in degrees in the convention of 300W-LP and AFLW2000.

    \b
    Examples:
      asmkit pose faces/ -o poses.csv
      asmkit pose face.pts --camera 800,800,320,240
    """
    import numpy as np

    from asmkit._files import replacing
    from asmkit.annotations import read
    from asmkit.pose import Camera, face_reference, solve_pnp
    from asmkit.schemes import scheme_of

    view = Camera.orthographic() if camera is None else Camera(*_parse_camera(camera))
    annotations = read(data)
    shapes = {len(annotation.points) for annotation in annotations}
    if len(shapes) > 1:
        raise ValueError(f"{data}: faces with {sorted(shapes)} points; expected one scheme")
    found = scheme_of(shapes.pop())
    reference = face_reference(found.name if found else "none")
    pose = solve_pnp(np.stack([a.points for a in annotations]), reference, view)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["name", "yaw", "pitch", "roll", "reprojection_error", "success"])
    for annotation, angles, error, success in zip(
        annotations, pose.euler(), pose.reprojection_error, pose.success, strict=True
    ):
        numbers = [f"{value:.4f}" for value in (*angles, error)]
        rows.writerow([annotation.name, *numbers, int(success)])
    if out is None:
        click.echo(text.getvalue(), nl=False)
        return
    with replacing(out) as temporary:
        temporary.write_text(text.getvalue(), "utf-8")
    click.echo(f"{out}: pose of {len(annotations)} faces")


def _parse_camera(text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise click.BadParameter(f"{text!r}: expected four numbers", param_hint="--camera")
    return numbers
