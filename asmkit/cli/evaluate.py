"""``asmkit evaluate``."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import click

from asmkit.cli._network import (
    engine_option,
    flip_option,
    network_argument,
    open_network,
    passes_option,
)
from asmkit.cli._terminal import shows_bars

__all__ = ["command", "table"]


@click.command("evaluate")
@network_argument
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Folder of annotated images."
)
@click.option(
    "--boxes",
    type=click.Choice(["truth", "detector"]),
    default="truth",
    show_default=True,
    help="Look into the tight boxes of the annotated landmarks, or into the detector's.",
)
@click.option(
    "--normalizer",
    help="What divides the errors: inter-ocular, inter-pupil, box-diagonal, box-size. Default: "
    "inter-ocular for faces, else box-diagonal.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, min_open=True),
    default=0.08,
    show_default=True,
    help="Of failure rate and AUC, as a fraction.",
)
@click.option(
    "--part",
    type=click.Choice(["all", "validation"]),
    default="all",
    show_default=True,
    help="All images, or those that the training of NETWORK held out, if it was on this folder.",
)
@flip_option
@passes_option
@engine_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def command(
    network: str,
    data: Path,
    boxes: str,
    normalizer: str | None,
    threshold: float,
    part: str,
    flip: bool,
    passes: int,
    engine: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure a trained network on annotated images.

    NETWORK is the name of a shipped network or the folder of a finished training.
    NME in per cent of the normalizing distance, angles in degrees. The pose is compared with the
    scaled-orthographic pose of the annotated landmarks. A face that was not found is a failure, and
    counts in the failure rate and the area under the curve.

    \b
    Examples:
      asmkit evaluate runs/faces --data test/ --json
      asmkit evaluate atpn-ibug68 --data test/ --boxes detector
    """
    from asmkit.annotations import read
    from asmkit.evaluation import evaluate
    from asmkit.shipped import network_folder
    from asmkit.splits import validation_part

    predictor = open_network(network, engine)
    annotations = read(data, require_images=True)
    if part == "validation":
        held_out = validation_part(
            [a.name for a in annotations], _validation_share(network_folder(network))
        )
        annotations = [a for a, out in zip(annotations, held_out, strict=True) if out]
        if not annotations:
            raise ValueError(f"{data}: the training of {network} holds none of these images out")
    evaluation = evaluate(
        predictor,
        annotations,
        boxes=boxes,
        normalizer=normalizer,
        threshold=threshold,
        flip=flip,
        passes=passes,
        progress=shows_bars(quiet),
    )
    click.echo(json.dumps(evaluation.summary) if as_json else table(evaluation.summary))


def _validation_share(folder: Path) -> float:
    path = folder / "recipe.toml"
    try:
        return float(tomllib.loads(path.read_text("utf-8"))["validation"])
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: not the recipe of a training ({error})") from error


def table(summary: dict[str, Any]) -> str:
    """The summary of an evaluation as lines of text."""
    rows = [("faces", str(summary["n"]))]
    of_those = ""
    if summary["boxes"] != "truth":
        of_those = " of those found"
        rows.append(("found", f"{_number(summary['recall'])} % ({summary['missed']} missed)"))
    rows += [
        (f"mean NME{of_those}", f"{_number(summary['nme'])} % ({summary['normalizer']})"),
        (f"median NME{of_those}", f"{_number(summary['median_found'])} %"),
        (
            f"failures over {100 * summary['threshold']:g} %",
            f"{_number(summary['failure_rate'])} %",
        ),
        (f"area under curve to {100 * summary['threshold']:g} %", f"{summary['auc']:.3f}"),
    ]
    if summary["pose_mae"]:
        angles = ", ".join(f"{name} {_number(e)}°" for name, e in summary["pose_mae"].items())
        rows.append(("pose error", angles))
    if "calibration_error" in summary:
        rows.append(("calibration error", f"{_number(summary['calibration_error'])} %"))
    rows += [
        (f"  {name}", f"{_number(value)} %")
        for name, value in summary.get("nme_by_group", {}).items()
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
