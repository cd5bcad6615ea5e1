"""``asmkit model fit|info|plot``."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]


@click.group("model")
def command() -> None:
    """Fit a shape model, look at it, draw its modes.

    \b
    Examples:
      asmkit model fit faces/ -o faces.npz
      asmkit model info faces.npz
      asmkit model plot faces.npz -o modes.png
    """


@command.command("fit")
@click.argument("data", type=click.Path())
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="Model file (.npz)."
)
@click.option(
    "--components",
    default="0.98",
    show_default=True,
    help="Modes: a whole number is a count, a fraction a share of the variance.",
)
@click.option(
    "--align",
    type=click.Choice(["similarity", "box"]),
    default="similarity",
    show_default=True,
    help="Frame: Procrustes, or the ASMNet paper's box.",
)
@click.option(
    "--mirror", is_flag=True, help="Fit on the mirror images too (faces of a known scheme)."
)
def fit(data: str, out: Path, components: str, align: str, mirror: bool) -> None:
    """Fit a shape model on annotations.

    DATA is a folder of annotations, a file, or a pattern in quotes.

    \b
    Examples:
      asmkit model fit faces/ -o faces.npz --mirror
      asmkit model fit "wings/*.pts" -o wings.npz --components 10
    """
    from asmkit.annotations import read_shapes
    from asmkit.model import ShapeModel
    from asmkit.schemes import scheme_of

    shapes = read_shapes(data)
    scheme = scheme_of(shapes.shape[1]) if mirror else None
    if mirror and scheme is None:
        raise ValueError(
            f"--mirror: no known scheme has the {shapes.shape[1]} points of {data}; leave it out"
        )
    model = ShapeModel(_parse_components(components), align=align, mirror=scheme).fit(shapes)
    model.save(out)
    kept = 100 * model.explained_variance_ratio_.sum()
    click.echo(
        f"{out}: {model.n_components_} modes hold {kept:.2f} % of the variance "
        f"of {len(shapes)} shapes of {shapes.shape[1]} points"
    )


@command.command("info")
@click.argument("model", type=click.Path(path_type=Path))
def info(model: Path) -> None:
    """Print what a model file holds.

    \b
    Example:
      asmkit model info faces.npz
    """
    from asmkit.model import ShapeModel

    shape_model = ShapeModel.load(model)
    points, dims = shape_model.mean_.shape
    click.echo(
        f"{points} points in {dims}-D, scheme: {shape_model.scheme_ or 'not known'}, "
        f"frame: {shape_model.align}"
    )
    click.echo(
        f"fitted on {shape_model.n_samples_} shapes"
        f"{'' if shape_model.mirror_ is None else ', half of them mirror images'}"
    )
    click.echo(
        f"{shape_model.n_components_} modes, noise variance {shape_model.noise_variance_:.3e}"
    )
    click.echo("mode  share of variance  together")
    total = 0.0
    for number, share in enumerate(shape_model.explained_variance_ratio_, start=1):
        total += share
        click.echo(f"{number:4}  {100 * share:15.2f} %  {100 * total:6.2f} %")


@command.command("plot")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Picture (.png, .pdf, .svg).",
)
@click.option(
    "--modes", type=click.IntRange(1), default=4, show_default=True, help="How many to draw."
)
def plot(model: Path, out: Path, modes: int) -> None:
    """Draw the modes of a model, from -3 to +3 standard deviations.

    \b
    Example:
      asmkit model plot faces.npz -o modes.png
    """
    from asmkit.model import ShapeModel
    from asmkit.plotting import plot_modes, save_figure

    shape_model = ShapeModel.load(model)
    save_figure(plot_modes(shape_model, modes), out)
    click.echo(f"{out}: {min(modes, shape_model.n_components_)} modes")


def _parse_components(text: str) -> int | float:
    try:
        return int(text) if text.strip().isdigit() else float(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r}: expected a count such as 20, or a share such as 0.98",
            param_hint="--components",
        ) from None
