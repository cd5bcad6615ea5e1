"""``asmkit pose``."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import click

__all__ = ["command"]


@click.command("pose")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="CSV file. Default: the screen.")
@click.option(
    "--camera",
    metavar="FX,FY,CX,CY",
    help="Perspective camera in pixels. Default: scaled orthography, which suits crops.",
)
@click.option(
    "--robust",
    type=click.Choice(["huber", "ransac"]),
    help="For wrong points: huber bears a few that are off, ransac up to 40 % anywhere.",
)
def command(data: Path, out: Path | None, camera: str | None, robust: str | None) -> None:
    """Head pose of annotated faces, from their landmarks and a 3-D reference face.

    DATA is a file or a folder of annotations. Yaw, pitch and roll are degrees in the convention of
    300W-LP and AFLW2000; reprojection_error is the root mean square in pixels; success is 0 where
    the points determine no pose; points says how many of them the pose rests on: missing ones are
    left out, and with --robust ransac also those that agree with no pose of the others.

    \b
    Examples:
      asmkit pose faces/ -o poses.csv
      asmkit pose face.pts --camera 800,800,320,240
      asmkit pose tracked/ --robust ransac
    """
    from asmkit._files import replacing
    from asmkit.annotations import read, stack_points
    from asmkit.pose import Camera, face_reference, solve_pnp
    from asmkit.schemes import scheme_of

    view = Camera.orthographic() if camera is None else Camera(*_parse_camera(camera))
    annotations = read(data)
    points = stack_points(annotations)
    found = scheme_of(points.shape[1])
    if found is None:
        raise ValueError(
            f"{data}: {points.shape[1]} points; pose needs a 3-D reference face, and there is one "
            "for the 68 points of ibug68"
        )
    reference = face_reference(found.name)
    pose = solve_pnp(points, reference, view, robust=robust)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["name", "yaw", "pitch", "roll", "reprojection_error", "success", "points"])
    used = pose.inliers.sum(axis=1)
    for i, (annotation, angles) in enumerate(zip(annotations, pose.euler(), strict=True)):
        numbers = [f"{value:.4f}" for value in (*angles, pose.reprojection_error[i])]
        rows.writerow([annotation.name, *numbers, int(pose.success[i]), int(used[i])])
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
        raise click.BadParameter(
            f"{text!r}: expected four numbers fx,fy,cx,cy", param_hint="--camera"
        )
    return numbers
