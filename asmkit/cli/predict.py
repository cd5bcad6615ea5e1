"""``asmkit predict``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asmkit.cli._network import (
    engine_option,
    flip_option,
    is_network,
    network_option,
    open_network,
    passes_option,
    prior_option,
)

if TYPE_CHECKING:
    from asmkit.predictor import Prediction

__all__ = ["command"]


@click.command("predict")
@click.argument(
    "images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@network_option
@click.option(
    "--box",
    "boxes",
    multiple=True,
    metavar="X,Y,W,H",
    help="Tight landmark box to look into, instead of the face detector's. May be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object an image.")
@click.option(
    "--overlay", type=click.Path(path_type=Path), help="Folder for drawings: one .png an image."
)
@flip_option
@passes_option
@prior_option
@engine_option
def command(
    images: tuple[Path, ...],
    network: str,
    boxes: tuple[str, ...],
    as_json: bool,
    overlay: Path | None,
    flip: bool,
    passes: int,
    shape_prior: bool,
    engine: str | None,
) -> None:
    """Find landmarks and head pose in photos.

    Points are (x, y) in pixels, 0-based pixel centres; pose is yaw, pitch, roll in degrees. A
    network with a confidence head says of each landmark its expected error in pixels (scale) and
    the probability that nothing lies over it (visibility), and the probability of that and of lying
    within 5 % of the longer side of the box (confidence); in drawings, landmarks are the redder the
    less sure. The shipped networks that were trained on 300-W are for
    non-commercial research only.

    \b
    Examples:
      asmkit predict photo.jpg
      asmkit predict photo.jpg --json --box 120,80,200,210 --flip --passes 2
      asmkit predict *.jpg --network runs/faces --overlay seen/
    """
    from asmkit.images import read_image, write_image
    from asmkit.plotting import draw_prediction
    from asmkit.schemes import scheme

    _check_no_network(images)
    given = [_parse_box(text) for text in boxes] or None
    drawings = _drawings(images, overlay)
    predictor = open_network(network, engine)
    contours = scheme(predictor.scheme).contours if predictor.scheme else ()
    for path in images:
        image = read_image(path)
        _check_inside(given or [], path, image.shape[1], image.shape[0])
        found = predictor.predict(image, given, flip=flip, passes=passes, shape_prior=shape_prior)
        if overlay is not None:
            write_image(drawings[path], draw_prediction(image, found, contours))
        click.echo(_json_line(path, found) if as_json else _line(path, found))


def _parse_box(text: str) -> list[float]:
    try:
        box = [float(part) for part in text.split(",")]
    except ValueError:
        box = []
    if len(box) != 4 or not all(map(math.isfinite, box)) or min(box[2:]) < 1:
        raise click.BadParameter(
            f"{text!r}: expected four numbers x,y,w,h, width and height of at least 1 pixel",
            param_hint="--box",
        )
    return box


def _check_no_network(images: tuple[Path, ...]) -> None:
    for path in images:
        if is_network(path):
            raise click.UsageError(f"{path} is a network, not an image; write --network {path}")


def _check_inside(boxes: list[list[float]], path: Path, width: int, height: int) -> None:
    for x, y, w, h in boxes:
        if x >= width or y >= height or x + w <= 0 or y + h <= 0:
            raise ValueError(
                f"{path}: --box {x:g},{y:g},{w:g},{h:g} lies outside this image of "
                f"{width} × {height} pixels"
            )


def _drawings(images: tuple[Path, ...], overlay: Path | None) -> dict[Path, Path]:
    """Where the drawing of each image goes, never over another drawing or one of the images."""
    if overlay is None:
        return {}
    drawings = {path: overlay / f"{path.stem}.png" for path in images}
    kept = {path.resolve() for path in images}
    for drawing in drawings.values():
        if drawing.resolve() in kept:
            raise ValueError(
                f"--overlay: {drawing} would stand for two images; "
                "choose another folder, or predict them one by one"
            )
        kept.add(drawing.resolve())
    return drawings


def _json_line(path: Path, found: Prediction) -> str:
    told = found.visibility
    visibilities = [None] * len(found.points) if told is None else told.tolist()
    faces = [
        # JSON has no NaN: a network without pose labels, or without one of the heads, says null
        {
            "box": box,
            "points": points,
            "pose": pose if all(map(math.isfinite, pose)) else None,
            "face": face if math.isfinite(face) else None,
            "scale": scale if all(map(math.isfinite, scale)) else None,
            "visibility": visibility,
            "confidence": confidence if all(map(math.isfinite, confidence)) else None,
        }
        for box, points, pose, face, scale, visibility, confidence in zip(
            *(array.tolist() for array in (found.boxes, found.points, found.pose, found.face)),
            *(found.scale.tolist(), visibilities, found.confidence.tolist()),
            strict=True,
        )
    ]
    return json.dumps({"image": str(path), "faces": faces})


def _line(path: Path, found: Prediction) -> str:
    n = len(found.points)
    count = f"{n or 'no'} face{'' if n == 1 else 's'}"
    angles = [
        "yaw {}°, pitch {}°, roll {}°".format(*map(round, pose))
        for pose in found.pose.tolist()
        if all(map(math.isfinite, pose))
    ]
    return ": ".join([str(path), count, *(["; ".join(angles)] if angles else [])])
