"""``asmkit evaluate``."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asmkit.cli._network import (
    engine_option,
    flip_option,
    open_network,
    passes_option,
    prior_option,
)
from asmkit.cli._terminal import shows_bars
from asmkit.packed_image import PackedImage

if TYPE_CHECKING:
    from asmkit.annotations import Annotation
    from asmkit.evaluation import Evaluation
    from asmkit.predictor import Predictor

__all__ = ["command", "table"]


@click.command("evaluate")
@click.argument("networks", metavar="NETWORK...", nargs=-1, required=True)
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
    help="All images, or those that the training of every NETWORK held out, if it was on this "
    "folder.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    help="Picture (.png, .pdf, .svg) of the cumulative error distributions, up to the threshold.",
)
@click.option(
    "--worst",
    type=click.Path(path_type=Path),
    help="Picture (.png, .jpg) of the faces with the largest error, annotated and found points; "
    "of one NETWORK.",
)
@click.option(
    "--worst-count", type=click.IntRange(1), help="How many faces --worst shows. Default: 24."
)
@click.option(
    "--csv",
    "errors",
    type=click.Path(path_type=Path),
    help="Table (.csv) of the error of each face and of its parts, and of its box.",
)
@flip_option
@passes_option
@prior_option
@engine_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object; of several networks, one that holds one by each name.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
def command(
    networks: tuple[str, ...],
    data: Path,
    boxes: str,
    normalizer: str | None,
    threshold: float,
    part: str,
    plot: Path | None,
    worst: Path | None,
    worst_count: int | None,
    errors: Path | None,
    flip: bool,
    passes: int,
    shape_prior: bool,
    engine: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure trained networks on annotated images.

    NETWORK is the name of a shipped network or the folder of a finished training; of several, the
    numbers stand side by side. NME in per cent of the normalizing distance, angles in degrees. The
    pose is compared with the scaled-orthographic pose of the annotated landmarks. A face that was
    not found is a failure, and counts in the failure rate and the area under the curve.

    --plot compares the networks with the mean of their training shapes (shape_model.npz in the
    folder), stretched into the boxes that the networks looked into.

    \b
    Examples:
      asmkit evaluate runs/faces --data test/ --json
      asmkit evaluate atpn-ibug68 --data test/ --boxes detector --worst worst.png
      asmkit evaluate runs/a runs/b --data test/ --plot ced.png --csv errors.csv
    """
    from asmkit.annotations import read
    from asmkit.error_table import write_errors
    from asmkit.evaluation import evaluate

    _check_use(networks, worst, worst_count)
    _check_places(plot, worst, errors)
    predictors = {network: open_network(network, engine) for network in networks}
    annotations = read(data, require_images=True)
    if part == "validation":
        annotations = _held_out(annotations, networks, data)
    _check_not_read(data, annotations, plot, worst, errors)
    evaluations = {
        network: evaluate(
            predictor,
            annotations,
            boxes=boxes,
            normalizer=normalizer,
            threshold=threshold,
            flip=flip,
            passes=passes,
            shape_prior=shape_prior,
            progress=shows_bars(quiet),
        )
        for network, predictor in predictors.items()
    }
    if plot is not None:
        _plot(plot, evaluations, predictors, annotations, threshold)
    if worst is not None:
        _draw(worst, networks[0], evaluations, predictors, annotations, worst_count or 24)
    if errors is not None:
        write_errors(errors, evaluations, annotations)
    summaries = {network: evaluation.summary for network, evaluation in evaluations.items()}
    if as_json:
        one = next(iter(summaries.values())) if len(summaries) == 1 else None
        click.echo(json.dumps(one or summaries))
    else:
        click.echo(table(summaries))


def _check_use(networks: Sequence[str], worst: Path | None, worst_count: int | None) -> None:
    twice = next((network for network in networks if networks.count(network) > 1), None)
    if twice is not None:
        raise click.UsageError(f"NETWORK {twice} is given twice")
    if worst is not None and len(networks) > 1:
        raise click.UsageError(
            f"--worst shows the faces of one NETWORK, but {len(networks)} are given; "
            "evaluate them one by one"
        )
    if worst is None and worst_count is not None:
        raise click.UsageError("--worst-count needs --worst FILE")


def _check_places(plot: Path | None, worst: Path | None, errors: Path | None) -> None:
    """Find out before the work, not after it, what cannot be written."""
    from asmkit._files import check_writable
    from asmkit.error_table import check_table_suffix
    from asmkit.images import check_image_suffix
    from asmkit.plotting import check_figure_suffix

    places = [
        (plot, "--plot", check_figure_suffix),
        (worst, "--worst", check_image_suffix),
        (errors, "--csv", check_table_suffix),
    ]
    taken: dict[Path, str] = {}
    for path, option, check in places:
        if path is None:
            continue
        check(path)
        if path.resolve() in taken:
            raise ValueError(f"{option} {path} is also {taken[path.resolve()]}; choose another")
        taken[path.resolve()] = option
    for path in taken:
        check_writable(path)


def _check_not_read(data: Path, annotations: Sequence[Annotation], *places: Path | None) -> None:
    images = (a.image for a in annotations)
    files = {i.shard if isinstance(i, PackedImage) else i for i in images if i is not None}
    read = {data.resolve(), *(file.resolve() for file in files)}
    for path in places:
        if path is not None and path.resolve() in read:
            raise ValueError(f"{path} is part of the data; choose another name for the result")


def _held_out(
    annotations: Sequence[Annotation], networks: Sequence[str], data: Path
) -> list[Annotation]:
    """Those that every training held out: a larger share holds the smaller one."""
    from asmkit.shipped import network_folder
    from asmkit.splits import validation_part

    share = min(_validation_share(network_folder(network)) for network in networks)
    held_out = validation_part([a.name for a in annotations], share)
    left = [a for a, out in zip(annotations, held_out, strict=True) if out]
    if not left:
        raise ValueError(
            f"{data}: the training of {', '.join(networks)} holds none of these images out"
        )
    return left


def _validation_share(folder: Path) -> float:
    path = folder / "recipe.toml"
    try:
        return float(tomllib.loads(path.read_text("utf-8"))["validation"])
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: not the recipe of a training ({error})") from error


def _plot(
    path: Path,
    evaluations: Mapping[str, Evaluation],
    predictors: Mapping[str, Predictor],
    annotations: Sequence[Annotation],
    threshold: float,
) -> None:
    from asmkit.plotting import plot_ced, save_figure

    curves = {network: evaluation.nme for network, evaluation in evaluations.items()}
    normalizer = next(iter(evaluations.values())).summary["normalizer"]
    baselines = _baselines(evaluations, predictors, annotations)
    save_figure(plot_ced(curves, threshold, baselines=baselines, normalizer=normalizer), path)


def _baselines(
    evaluations: Mapping[str, Evaluation],
    predictors: Mapping[str, Predictor],
    annotations: Sequence[Annotation],
) -> dict[str, Any]:
    """Errors of the mean shape in the boxes; networks with one shape model share one curve."""
    import numpy as np

    from asmkit.baseline import mean_in_boxes
    from asmkit.metrics import nme

    truth = np.stack([annotation.points for annotation in annotations])
    found: dict[str, Any] = {}
    for network, evaluation in evaluations.items():
        model = predictors[network].shape_model
        if model is None:
            click.echo(f"Note: {network}: no shape_model.npz in its folder, no baseline", err=True)
            continue
        placed = mean_in_boxes(model.mean_, evaluation.boxes)
        errors = nme(placed, truth, evaluation.summary["normalizer"], predictors[network].scheme)
        if not any(np.array_equal(errors, known) for known in found.values()):
            found[network] = errors
    if len(found) == 1:
        return {"mean shape in the box": next(iter(found.values()))}
    return {f"mean shape of {network} in the box": errors for network, errors in found.items()}


def _draw(
    path: Path,
    network: str,
    evaluations: Mapping[str, Evaluation],
    predictors: Mapping[str, Predictor],
    annotations: Sequence[Annotation],
    count: int,
) -> None:
    import numpy as np

    from asmkit.images import write_image
    from asmkit.schemes import scheme
    from asmkit.worst_cases import draw_worst_cases

    evaluation, known = evaluations[network], predictors[network].scheme
    summary = evaluation.summary
    missed = f", {summary['missed']} missed" if summary["missed"] else ""
    sheet = draw_worst_cases(
        [annotation.image or "" for annotation in annotations],
        np.stack([annotation.points for annotation in annotations]),
        evaluation.points,
        evaluation.nme,
        [annotation.name for annotation in annotations],
        count=count,
        contours=scheme(known).contours if known else (),
        boxes=evaluation.boxes if summary["boxes"] != "truth" else None,
        title=f"{network}: the largest errors of {summary['n']} faces{missed}, "
        f"NME in % of {summary['normalizer']}",
    )
    write_image(path, sheet)


def table(summaries: Mapping[str, dict[str, Any]]) -> str:
    """The summaries of evaluations on the same images as lines of text, side by side."""
    columns = {network: dict(_rows(summary)) for network, summary in summaries.items()}
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    lines = [[name, *(column.get(name, "-") for column in columns.values())] for name in names]
    if len(columns) > 1:
        lines.insert(0, ["", *columns])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (zip(line, widths, strict=True) for line in lines)
    return "\n".join("  ".join(f"{t:<{w}}" for t, w in line).rstrip() for line in padded)


def _rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
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
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
