"""What a shape costs, as sets grow, shapes get more points, and models more modes.

    python benchmarks/growth.py --out FILE.jsonl [--plot FILE.png] [--quick] [--repeats 5]
    python benchmarks/growth.py --from FILE.jsonl --plot FILE.png

Three sweeps from the middle, 1000 shapes of 68 points and 20 modes: 10 to 10⁷ shapes, 10 to 10⁴
points, 1 to 100 modes, float64. Beyond 10⁵ shapes sets are streamed in chunks, by ``smooth`` and
``partial_fit`` alone; the making of the chunks is not timed. Sets are smaller where a shape costs
much, and a curve ends where its call does not scale: ``fit`` holds all shapes and their deviations,
``posterior`` and ``partial_fit`` take the eigenvectors of a (p d, p d) matrix, and ``partial_fit``
refuses more than 3000 points. ``complete`` is the mean of ``credible_regions`` and costs the same.

A call that is short is made several times in a row. Figures are medians over the repeats, in which
all calls of one size take turns: microseconds of a processor a shape, all threads together, which
on a busy machine are steadier than those of the clock; both are in the file. One line a figure is
written as soon as it is there.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from smooth import Seconds, hide, median, seconds_of
from threadpoolctl import threadpool_limits

import asmkit
from asmkit import ShapeModel
from asmkit.plotting import save_figure

Array = npt.NDArray[np.float64]

SHAPES, POINTS, MODES = 1000, 68, 20
SHAPE_COUNTS = (10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000)
POINT_COUNTS = (10, 30, 100, 300, 1000, 3000, 10_000)
MODE_COUNTS = (1, 2, 5, 10, 20, 50, 100)

#: Shapes in memory at a time (109 MB of 68 points); all other counts are below, or multiples.
CHUNK = 100_000

#: Shapes that models are fitted on, more than the modes they are asked for.
TRAINING = 200

#: A call is repeated until it has taken so many seconds.
LONG_ENOUGH = 0.02

#: Directions in which the made shapes differ.
DIRECTIONS = 120


@dataclass(frozen=True)
class Size:
    """A point of a sweep."""

    shapes: int
    points: int
    modes: int


@dataclass(frozen=True)
class Work:
    """A call, and how far it goes.

    Attributes
    ----------
    call : callable
        ``(model, shapes) -> anything``.
    most_shapes : int
        In the sweep over shapes, but for calls that are streamed beyond a chunk.
    most_points : int
        In the sweep over points.
    coordinates : int
        Of all shapes of a call together, at most, in the sweeps over points and modes: costly calls
        get fewer shapes.
    least_shapes : int
        In those sweeps, however many points: fitting needs more shapes than modes.
    streams : bool
    """

    call: Callable[[ShapeModel, Array], object]
    most_shapes: int = 100_000
    most_points: int = 10_000
    coordinates: int = 400_000
    least_shapes: int = 1
    streams: bool = False

    def shapes_at(self, sweep: str, size: Size) -> int:
        """How many shapes it is given."""
        if sweep == "shapes":
            return size.shapes
        most = max(self.coordinates // (2 * size.points), self.least_shapes)
        return min(most, size.shapes)

    def reaches(self, sweep: str, size: Size, chunk_size: int) -> bool:
        """Whether this size is one of its own."""
        if size.points > self.most_points:
            return False
        most = min(self.most_shapes, chunk_size)
        return sweep != "shapes" or self.streams or size.shapes <= most


def fit(model: ShapeModel, shapes: Array) -> object:
    return ShapeModel(min(model.n_components_, len(shapes) // 2)).fit(shapes)


def partial_fit(model: ShapeModel, shapes: Array) -> object:
    """The first batch of a model of its own; on a stream that model goes on learning."""
    if model.statistics_ is None:
        learner = ShapeModel(model.n_components_)
        return learner.partial_fit(shapes, reference=model.reference_)
    return model.partial_fit(shapes)


def posterior(model: ShapeModel, shapes: Array) -> object:
    return [model.posterior(shape) for shape in some_hidden(shapes)]


def some_hidden(shapes: Array) -> Array:
    return np.asarray(hide(shapes, shapes.shape[1] // 7))


WORKS = {
    "generalized_procrustes": Work(
        lambda _, shapes: asmkit.generalized_procrustes(shapes), least_shapes=TRAINING
    ),
    "fit": Work(fit, least_shapes=TRAINING),
    "partial_fit": Work(partial_fit, most_points=1000, least_shapes=TRAINING, streams=True),
    "smooth": Work(lambda model, shapes: model.smooth(shapes), streams=True),
    "constrain": Work(lambda model, shapes: model.constrain(shapes), coordinates=100_000),
    "credible_regions": Work(
        lambda model, shapes: model.credible_regions(some_hidden(shapes)),
        most_shapes=1000,
        coordinates=20_000,
    ),
    "posterior": Work(posterior, most_shapes=100, most_points=1000, coordinates=1000),
}


def shapes_of(n: int, n_points: int, seed: int) -> Array:
    """Shapes that differ by 120 modes and by their poses, about 200 pixels large."""
    rng = np.random.default_rng(seed)
    basis = np.random.default_rng(0)
    mean = basis.normal(size=(n_points, 2))
    modes = basis.normal(size=(DIRECTIONS, n_points * 2))
    weights = rng.normal(size=(n, DIRECTIONS)) * np.geomspace(0.06, 0.002, DIRECTIONS)
    z = (mean + (weights @ modes).reshape(n, n_points, 2)).view(complex)
    z *= rng.uniform(50, 200, (n, 1, 1)) * np.exp(1j * rng.uniform(-0.5, 0.5, (n, 1, 1)))
    z += rng.uniform(100, 400, (n, 1, 1)) * (1 + 1j)
    return z.view(float)


def timed(call: Callable[[], object]) -> Seconds:
    """One call's share of as many as take long enough to be timed."""
    first = seconds_of(call)
    n = min(1000, int(LONG_ENOUGH / max(first.clock, 1e-6)))
    if n < 2:
        return first
    taken = seconds_of(lambda: [call() for _ in range(n)])
    return Seconds(taken.clock / n, taken.processor / n)


def streamed(work: Work, model: ShapeModel, chunk: Array, n: int) -> Seconds:
    """Shapes in chunks: between two, the shapes move on, which is not timed."""
    learner = model
    if work.call is partial_fit:
        learner = ShapeModel(model.n_components_)
        learner.partial_fit(chunk[:2], reference=model.reference_)
    z = chunk.view(complex)
    clock = processor = 0.0
    for _ in range(n // len(chunk)):
        taken = seconds_of(lambda: work.call(learner, chunk))
        clock, processor = clock + taken.clock, processor + taken.processor
        z *= np.exp(0.1j)
    return Seconds(clock, processor)


def measure(sweep: str, size: Size, repeats: int, chunk_size: int) -> Iterator[dict[str, Any]]:
    """All that goes as far as this size."""
    works = {n: work for n, work in WORKS.items() if work.reaches(sweep, size, chunk_size)}
    counts = {name: work.shapes_at(sweep, size) for name, work in works.items()}
    model = ShapeModel(size.modes).fit(shapes_of(TRAINING, size.points, seed=1))
    shapes = shapes_of(min(max(counts.values()), chunk_size), size.points, seed=2)
    calls: dict[str, Callable[[], Seconds]] = {}
    for name, work in works.items():
        work.call(model, shapes[: counts[name]])  # what is compiled or loaded, is by now
        if counts[name] > len(shapes):
            calls[name] = partial(streamed, work, model, shapes, counts[name])
        else:
            calls[name] = partial(timed, partial(work.call, model, shapes[: counts[name]]))
    taken: dict[str, list[Seconds]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, call in calls.items():
            taken[name].append(call())
    for name, values in taken.items():
        middle = median(values)
        yield {
            "sweep": sweep,
            "work": name,
            "shapes": counts[name],
            "points": size.points,
            "modes": size.modes,
            "us_per_shape": 1e6 * middle.clock / counts[name],
            "us_of_processor": 1e6 * middle.processor / counts[name],
            "repeats": repeats,
            "streamed": counts[name] > len(shapes),
            "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }


def sizes(quick: bool) -> Iterator[tuple[str, Size]]:
    for n in SHAPE_COUNTS[:5:2] if quick else SHAPE_COUNTS:
        yield "shapes", Size(n, POINTS, MODES)
    for p in POINT_COUNTS[:3:2] if quick else POINT_COUNTS:
        yield "points", Size(SHAPES, p, min(MODES, p))
    for k in MODE_COUNTS[::3] if quick else MODE_COUNTS:
        yield "modes", Size(SHAPES, POINTS, k)


def write(stream: IO[str], row: dict[str, Any]) -> None:
    stream.write(json.dumps(row) + "\n")
    stream.flush()
    print(
        f"{row['sweep']:7s}{row['shapes']:10d} shapes {row['points']:6d} points {row['modes']:4d} "
        f"modes  {row['work']:24s}{row['us_per_shape']:12.2f} µs/shape "
        f"({row['us_of_processor']:12.2f} of processor)  {row['peak_megabytes']:5d} MB",
        flush=True,
    )


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """One panel a sweep, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    held = {
        "shapes": f"{POINTS} points, {MODES} modes",
        "points": f"{MODES} modes (10 of 10 points)",
        "modes": f"{POINTS} points",
    }
    for panel, (sweep, title) in zip(panels, held.items(), strict=True):
        for name in WORKS:
            line = [row for row in rows if row["sweep"] == sweep and row["work"] == name]
            panel.loglog(
                [row[sweep] for row in line],
                [row["us_of_processor"] for row in line],
                marker="o",
                markersize=3,
                linewidth=1,
                label=name,
            )
        panel.set_title(title, fontsize=9)
        panel.set_xlabel(sweep)
        panel.grid(True, which="major", linewidth=0.3)
    panels[0].set_ylabel("µs of a processor a shape")
    panels[2].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON lines of the figures")
    parser.add_argument("--from", type=Path, dest="known", help="plot these figures, measure none")
    parser.add_argument("--plot", type=Path, help="picture of the figures, .png")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="small sizes, two repeats")
    arguments = parser.parse_args()
    if (arguments.out is None) == (arguments.known is None):
        parser.error("give either --out, to measure, or --from, to plot what was measured")
    if arguments.out:
        asmkit.set_num_threads(arguments.threads)
        repeats = 2 if arguments.quick else arguments.repeats
        chunk = 2000 if arguments.quick else CHUNK
        with (
            threadpool_limits(arguments.threads),
            arguments.out.open("w", encoding="utf-8") as stream,
        ):
            for sweep, size in sizes(arguments.quick):
                for row in measure(sweep, size, repeats, chunk):
                    write(stream, {**row, "threads": arguments.threads})
    if arguments.plot:
        lines = (arguments.out or arguments.known).read_text("utf-8").splitlines()
        plot([json.loads(line) for line in lines], arguments.plot)


if __name__ == "__main__":
    main()
