"""Smoothing speed against the two matrix products that it cannot avoid.

    python benchmarks/smooth.py [--shapes 200000] [--repeats 15]

Every contender runs once in each repeat, so that a busy moment of the machine hits all alike;
figures are medians over the repeats. The ratio is to the two products,
``np.matmul(x, Φᵀ, out=)`` and ``np.matmul(b, Φ, out=)``, of the same type on as many threads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from asmkit import ShapeModel, set_num_threads

N_POINTS, N_MODES = 68, 20

#: menpofit's `OrthoPDM.set_target`, one 68-point shape, as measured in its own process.
MENPOFIT_US = 127.0

Array = npt.NDArray[np.floating[Any]]


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


def contenders(model: ShapeModel, pca: PCA, shapes: Array) -> dict[str, Callable[[], object]]:
    flat = shapes.reshape(len(shapes), -1)
    modes = np.ascontiguousarray(model.components_, dtype=shapes.dtype)
    modes_by_point = np.ascontiguousarray(modes.T)
    coefficients = np.empty((len(shapes), N_MODES), shapes.dtype)
    result, kept = np.empty_like(flat), np.empty_like(shapes)

    def two_products() -> None:
        np.matmul(flat, modes_by_point, out=coefficients)
        np.matmul(coefficients, modes, out=result)

    return {
        "two matrix products": two_products,
        "ShapeModel.smooth": lambda: model.smooth(shapes),
        "ShapeModel.smooth, out=": lambda: model.smooth(shapes, out=kept),
        "scikit-learn PCA, no poses": lambda: pca.inverse_transform(pca.transform(flat)),
        "np.copyto": lambda: np.copyto(result, flat),
    }


def medians(work: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    for call in work.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in times.items()}


def report(found: dict[str, float], n: int) -> None:
    for name, seconds in found.items():
        ratio = seconds / found["two matrix products"]
        each = f"{1e6 * seconds / n:7.3f} µs/shape"
        print(f"  {name:28s} {1e3 * seconds:8.1f} ms {each}   ratio {ratio:5.2f}")
    times = MENPOFIT_US / (1e6 * found["ShapeModel.smooth"] / n)
    print(f"  {'menpofit, quoted':40s}{MENPOFIT_US:7.0f} µs/shape   {times:.0f} x smooth")


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of ShapeModel.smooth")
    parser.add_argument("--shapes", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    training = shapes_in_random_poses(3000, seed=2)
    model = ShapeModel(n_components=N_MODES).fit(training)
    pca = PCA(n_components=N_MODES).fit(training.reshape(len(training), -1))
    shapes = shapes_in_random_poses(arguments.shapes, seed=3)
    print(f"{len(shapes)} shapes of {N_POINTS} points, {N_MODES} modes, numpy {np.__version__}")
    for dtype in (np.dtype(np.float64), np.dtype(np.float32)):
        for n_threads in (1, 2):
            set_num_threads(n_threads)
            with threadpool_limits(n_threads):
                found = medians(contenders(model, pca, shapes.astype(dtype)), arguments.repeats)
            print(f"\n{dtype.name}, {n_threads} thread(s)")
            report(found, len(shapes))


if __name__ == "__main__":
    main()
