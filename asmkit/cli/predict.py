"""``asmkit predict``."""

from __future__ import annotations

import json
from pathlib import Path

import click

__all__ = ["command"]


@click.command("predict")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--box",
    "boxes",
    multiple=True,
    metavar="X,Y,W,H",
    help=("Tight landmark box to look into, instead of the face detector's. May be repeated."),
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object an image.")
@click.option(
    "--overlay", type=click.Path(path_type=Path), help="Folder for pictures of the result."
)
@click.option(
    "--engine", type=click.Choice(["onnxruntime", "torch"]), help="Default: the first installed."
)
def command(
    run: Path,
    images: tuple[Path, ...],
    boxes: tuple[str, ...],
    as_json: bool,
    overlay: Path | None,
    engine: str | None,
) -> None:
    """Find landmarks and head pose in photos.

    Points are (x, y) in pixels, 0-based pixel centres; pose is yaw, pitch, roll in degrees.

    \b
    Examples:
      asmkit predict runs/faces photo.jpg --overlay seen/
      asmkit predict runs/faces photo.jpg --json --box 120,80,200,210
    """
    from asmkit.images import read_image, write_image
    from asmkit.plotting import draw_prediction
    from asmkit.predictor import load
    from asmkit.schemes import scheme

    given = [_parse_box(text) for text in boxes] or None
    predictor = load(run, engine=engine)
    contours = scheme(predictor.scheme).contours if predictor.scheme else ()
    for path in images:
        image = read_image(path)
        found = predictor.predict(image, given)
        record = {
            "image": str(path),
            "faces": [
                {"box": box.tolist(), "points": points.tolist(), "pose": pose.tolist()}
                for box, points, pose in zip(found.boxes, found.points, found.pose, strict=True)
            ],
        }
        if as_json:
            click.echo(json.dumps(record))
        else:
            click.echo(_line(path, found.pose.tolist()))
        if overlay is not None:
            write_image(overlay / f"{path.stem}.png", draw_prediction(image, found, contours))


def _parse_box(text: str) -> list[float]:
    try:
        box = [float(part) for part in text.split(",")]
    except ValueError:
        box = []
    if len(box) != 4:
        raise click.BadParameter(f"{text!r}: expected four numbers x,y,w,h", param_hint="--box")
    return box


def _line(path: Path, poses: list[list[float]]) -> str:
    faces = "; ".join(f"yaw {y:.0f}°, pitch {p:.0f}°, roll {r:.0f}°" for y, p, r in poses)
    return (
        f"{path}: {len(poses)} face{'' if len(poses) == 1 else 's'}{': ' if poses else ''}{faces}"
    )
