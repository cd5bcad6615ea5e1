"""Smoothing speed against the two matrix products that it cannot avoid, and what other calls cost.

    python benchmarks/smooth.py [--shapes 200000] [--repeats 15] [--others 300] [--out FILE]

float64 and float32, on one and two threads. Every contender runs once in each repeat, so that a
busy moment of the machine hits all alike; figures are medians over the repeats. On two threads
each begins after a pause, because the threads of BLAS spin on after a product and would be in the
way. The ratio is to the two products of the same type on as many threads:
``np.matmul(x, Φᵀ, out=)`` and ``np.matmul(b, Φ, out=)`` for what is given its memory,
``x @ Φᵀ @ Φ`` for what makes its own. Of ``constrain``, ``complete``, ``credible_regions`` (10 of
68 points hidden) and ``posterior`` the cost of a shape is given. Each figure stands there twice: by
the clock, and as time on a processor, all threads together, which other work on the machine
lengthens less. For other libraries see ``peers.py``; for other sizes ``growth.py``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from asmkit import ShapeModel, set_num_threads
from asmkit._files import replacing

N_POINTS, N_MODES, N_HIDDEN = 68, 20, 10
PRODUCTS, NEW_PRODUCTS = "two matrix products, out=", "two matrix products"
IN_PLACE = (PRODUCTS, "ShapeModel.smooth, out=", "np.copyto")
PAUSE = 0.25  # seconds

Array = npt.NDArray[np.floating[Any]]
Work = dict[str, Callable[[], object]]


class Seconds(NamedTuple):
    """What a call took."""

    clock: float
    processor: float  # all threads together


def shapes_in_random_poses(n: int, seed: int) -> npt.NDArray[np.float64]:
    """Shapes that differ by 30 modes and by their poses, about 200 pixels large."""
    rng = np.random.default_rng(seed)
    mean = np.random.default_rng(0).normal(size=(N_POINTS, 2))
    modes = np.random.default_rng(1).normal(size=(30, N_POINTS * 2))
    deviations = (rng.normal(size=(n, 30)) * np.geomspace(0.06, 0.006, 30)) @ modes
    z = (mean + deviations.reshape(n, N_POINTS, 2)).view(complex)
    z *= rng.uniform(50, 200, (n, 1, 1)) * np.exp(1j * rng.uniform(-0.5, 0.5, (n, 1, 1)))
    z += rng.uniform(100, 400, (n, 1, 1)) * (1 + 1j)
    return z.view(float)


def hide(shapes: Array, n_points: int) -> Array:
    """The same shapes without their first points."""
    hidden = shapes.copy()
    hidden[..., :n_points, :] = np.nan
    return hidden


def contenders(model: ShapeModel, pca: PCA, shapes: Array) -> Work:
    flat = shapes.reshape(len(shapes), -1)
    modes = np.ascontiguousarray(model.components_, dtype=shapes.dtype)
    modes_by_point = np.ascontiguousarray(modes.T)
    coefficients = np.empty((len(shapes), N_MODES), shapes.dtype)
    result, kept = np.empty_like(flat), np.empty_like(shapes)

    def two_products() -> None:
        np.matmul(flat, modes_by_point, out=coefficients)
        np.matmul(coefficients, modes, out=result)

    return {
        PRODUCTS: two_products,
        NEW_PRODUCTS: lambda: flat @ modes_by_point @ modes,
        "ShapeModel.smooth": lambda: model.smooth(shapes),
        "ShapeModel.smooth, out=": lambda: model.smooth(shapes, out=kept),
        "scikit-learn PCA, no poses": lambda: pca.inverse_transform(pca.transform(flat)),
        "np.copyto": lambda: np.copyto(result, flat),
    }


def others(model: ShapeModel, shapes: Array) -> tuple[Work, dict[str, int]]:
    """Calls that cost more, and the number of shapes that each is given."""
    partial, few = hide(shapes, N_HIDDEN), hide(shapes[:10], N_HIDDEN)
    work: Work = {
        "constrain": lambda: model.constrain(shapes),
        "complete": lambda: model.complete(partial),
        "credible_regions": lambda: model.credible_regions(partial),
        "posterior, one shape a call": lambda: [model.posterior(shape) for shape in few],
    }
    counts = [len(shapes), len(partial), len(partial), len(few)]
    return work, dict(zip(work, counts, strict=True))


def seconds_of(call: Callable[[], object]) -> Seconds:
    clock, processor = time.perf_counter(), time.process_time()
    call()
    return Seconds(time.perf_counter() - clock, time.process_time() - processor)


def alternate(work: Work, repeats: int, pause: float) -> dict[str, list[Seconds]]:
    """Seconds of every repeat; a first one, which warms up, is left out."""
    for call in work.values():
        call()
    taken: dict[str, list[Seconds]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, call in work.items():
            time.sleep(pause)
            taken[name].append(seconds_of(call))
    return taken


def median(taken: Sequence[Seconds]) -> Seconds:
    return Seconds(*np.median(taken, axis=0).tolist())


def record(name: str, taken: Seconds, n: int, products: Seconds | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "work": name,
        "shapes": n,
        "us_per_shape": 1e6 * taken.clock / n,
        "us_of_processor": 1e6 * taken.processor / n,
    }
    if products is not None:
        row["ratio"] = taken.clock / products.clock
        row["ratio_of_processor"] = taken.processor / products.processor
    return row


def show(row: dict[str, Any]) -> None:
    ratio = ""
    if "ratio" in row:
        ratio = f"   ratio {row['ratio']:5.2f} ({row['ratio_of_processor']:5.2f})"
    print(
        f"  {row['work']:28s}{row['us_per_shape']:10.3f} µs/shape "
        f"({row['us_of_processor']:9.3f} of processor){ratio}"
    )


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    with replacing(path) as temporary:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        temporary.write_text("".join(lines), "utf-8")


def measure(
    model: ShapeModel, pca: PCA, shapes: Array, n_others: int, repeats: int, pause: float
) -> list[dict[str, Any]]:
    """Rows of one type on the present number of threads."""
    taken = alternate(contenders(model, pca, shapes), repeats, pause)
    found = {name: median(times) for name, times in taken.items()}
    rows = [
        record(name, one, len(shapes), found[PRODUCTS if name in IN_PLACE else NEW_PRODUCTS])
        for name, one in found.items()
    ]
    work, counts = others(model, shapes[:n_others])
    for name, times in alternate(work, max(3, repeats // 3), pause).items():
        rows.append(record(name, median(times), counts[name], None))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--others", type=int, default=300, help="shapes to constrain and complete")
    parser.add_argument("--out", type=Path, help="JSON lines of the tables")
    arguments = parser.parse_args()
    training = shapes_in_random_poses(3000, seed=2)
    model = ShapeModel(n_components=N_MODES).fit(training)
    pca = PCA(n_components=N_MODES).fit(training.reshape(len(training), -1))
    shapes = shapes_in_random_poses(arguments.shapes, seed=3)
    print(f"{len(shapes)} shapes of {N_POINTS} points, {N_MODES} modes, numpy {np.__version__}")
    rows = []
    batches: list[Array] = [shapes, shapes.astype(np.float32)]
    for batch in batches:
        for n_threads in (1, 2):
            set_num_threads(n_threads)
            with threadpool_limits(n_threads):
                found = measure(
                    model,
                    pca,
                    batch,
                    arguments.others,
                    arguments.repeats,
                    PAUSE if n_threads > 1 else 0.0,
                )
            print(f"\n{batch.dtype}, {n_threads} thread(s)")
            for row in found:
                show(row)
            rows += [{"dtype": str(batch.dtype), "threads": n_threads, **row} for row in found]
    if arguments.out:
        write_lines(arguments.out, rows)


if __name__ == "__main__":
    main()
