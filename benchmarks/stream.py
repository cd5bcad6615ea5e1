"""Fit a shape model of ten million shapes from disk, in the memory of a small process.

    python benchmarks/stream.py [--shapes 10000000] [--file shapes.npy] [--workers 0]

Writes float32 shapes of 68 points to a ``.npy`` file (544 bytes a shape, removed at the end), or
reads the one that is named and there already; fits by streaming; compares a part of it with the
fit of an array in memory, with the same reference. With workers, a cluster of as many processes
fits the same file again. Speeds are given by the clock and by the time of this process on a
processor, because on a shared machine the two differ; the workers' own time is not counted.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
from smooth import N_POINTS, shapes_in_random_poses

from asmkit import ShapeModel, set_num_threads
from asmkit.shape_store import ShapeStore, open_shapes
from asmkit.statistics import ShapeStatistics

N_MODES = 30
SHAPE_BYTES = N_POINTS * 2 * 4
MAX_MEGABYTES = 500
AT_ONCE = 20_000


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def timed(what: str, n: int):
    wall, processor = time.perf_counter(), time.process_time()
    yield
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(
        f"{what:34s} {wall:7.1f} s, {processor:7.1f} s on a processor: {n / wall:9.0f} shapes/s, "
        f"{1e6 * processor / n:.2f} µs of processor a shape; peak memory {peak_megabytes():.0f} MB",
        flush=True,
    )


def write(path: Path, n: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < 1.2 * n * SHAPE_BYTES:
        sys.exit(f"{path.parent} has {free / 1e9:.1f} GB left, {n} shapes take too much of it")
    with path.open("wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (n, N_POINTS, 2)}
        np.lib.format.write_array_header_1_0(stream, header)
        for seed, start in enumerate(range(0, n, AT_ONCE)):
            shapes = shapes_in_random_poses(min(AT_ONCE, n - start), seed)
            stream.write(shapes.astype("<f4").data)


def differences(model: ShapeModel, batch: ShapeModel) -> dict[str, float]:
    variances = np.abs(model.explained_variance_ / batch.explained_variance_ - 1)
    return {
        "mean": float(np.abs(model.mean_ - batch.mean_).max()),
        "variances, relative": float(variances.max()),
        "modes": float(np.abs(model.components_ - batch.components_).max()),
    }


def compare(store: ShapeStore, reference: np.ndarray, n: int = AT_ONCE) -> None:
    """A part of the file, streamed in uneven pieces, against one fit in memory."""
    n = min(n, store.shape[0])
    batch = ShapeModel(N_MODES).fit(store[0:n].astype(np.float64), reference=reference)
    edges = [0, n // 7, n // 3, n]
    parts = [ShapeStatistics.of(store[a:b], reference) for a, b in pairwise(edges)]
    model = ShapeModel.from_statistics(parts[0].merge(*parts[1:]), N_MODES)
    found = differences(model, batch)
    print(
        f"{n} shapes, streamed less batch: " + ", ".join(f"{k} {v:.1e}" for k, v in found.items())
    )
    if max(found.values()) > 1e-9:
        sys.exit("they differ")


def with_cluster(
    store: ShapeStore, reference: np.ndarray, n_workers: int, alone: ShapeModel
) -> None:
    from distributed import Client, LocalCluster

    from asmkit.distributed import fit

    cluster = LocalCluster(n_workers, processes=True, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        client.run(importlib.import_module, "asmkit.distributed")  # not part of the work
        with timed(f"the same, {n_workers} workers", store.shape[0]):
            model = fit(store, N_MODES, reference, client=client)
    found = differences(model, alone)
    print("cluster less one process: " + ", ".join(f"{k} {v:.1e}" for k, v in found.items()))
    if max(found.values()) > 1e-9:
        sys.exit("they differ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", type=int, default=10_000_000)
    parser.add_argument(
        "--file", type=Path, help="a .npy file of shapes, written if it is not there"
    )
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.file or Path(folder) / "shapes.npy"
        if not path.exists():
            with timed("made and written", arguments.shapes):
                write(path, arguments.shapes)
        store = open_shapes(path)
        n = store.shape[0]
        print(f"{n} shapes, {path.stat().st_size / 1e9:.2f} GB, numpy {np.__version__}")
        reference = store[0:1][0].astype(np.float64)
        with timed("streamed, one process", n):
            statistics = ShapeStatistics.of(store, reference)
            model = ShapeModel.from_statistics(statistics, N_MODES)
        peak = peak_megabytes()
        held = model.explained_variance_ratio_.sum()
        print(f"{N_MODES} modes hold {held:.6f} of the variance of {model.n_samples_} shapes")
        compare(store, reference)
        if arguments.workers:
            with_cluster(store, reference, arguments.workers, model)
    if peak > MAX_MEGABYTES:
        sys.exit(f"peak memory {peak:.0f} MB is above {MAX_MEGABYTES} MB")


if __name__ == "__main__":
    main()
