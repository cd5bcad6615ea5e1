"""What asmkit costs before it does anything: import, and compiling or loading its kernels.

    python benchmarks/startup.py

``import asmkit`` is compared with importing numpy, scipy.linalg and numba, each in a process of its
own, in turn. The kernels are called once in a process with an empty cache folder (this is the first
call after installation) and once more in new processes that find the cache.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

IMPORTS = {
    "import asmkit": "import asmkit",
    "numpy, scipy.linalg, numba": "import numpy, scipy.linalg, numba",
}

#: Everything that calls a kernel, once; only the time inside the calls is counted.
KERNELS = """
import time
import numpy as np
import asmkit
from asmkit.datasets import synthetic_faces

rng = np.random.default_rng(0)
reference = asmkit.face_reference("ibug68")
shapes = reference[None, :, :2] + 0.01 * rng.standard_normal((50, 68, 2))
model = asmkit.ShapeModel(5).fit(shapes)
total = 0.0
def timed(name, call):
    global total
    started = time.perf_counter()
    call()
    seconds = time.perf_counter() - started
    total += seconds
    print(f"{name} {seconds:.3f}")
timed("smooth float64", lambda: model.smooth(shapes))
timed("smooth float32", lambda: model.smooth(shapes.astype(np.float32)))
timed("constrain float64", lambda: model.constrain(shapes))
timed("solve_pnp orthographic", lambda: asmkit.solve_pnp(
    shapes, reference, asmkit.Camera.orthographic()))
timed("solve_pnp perspective", lambda: asmkit.solve_pnp(
    100 * shapes + 320, reference, asmkit.Camera(600, 600, 320, 240)))
timed("render a face", lambda: synthetic_faces(1, 0))
print(f"together {total:.3f}")
"""


def seconds_of(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def kernel_seconds(cache: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", KERNELS],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "NUMBA_CACHE_DIR": cache},
    )
    rows = (line.rsplit(" ", 1) for line in done.stdout.splitlines())
    return {name: float(value) for name, value in rows}


def main() -> None:
    runs: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(11):
        for name, code in IMPORTS.items():
            runs[name].append(seconds_of(code))
    medians = {name: statistics.median(values[1:]) for name, values in runs.items()}
    for name, value in medians.items():
        print(f"{name:<28} {value:.3f} s (median of 10 processes)")
    ours, theirs = medians.values()
    print(f"{'ratio':<28} {ours / theirs:.2f}\n")

    with tempfile.TemporaryDirectory() as cache:
        first = kernel_seconds(cache)
        later = [kernel_seconds(cache) for _ in range(5)]
    print(f"{'kernels':<28} first call   cached (median of 5 processes), seconds")
    for name, value in first.items():
        cached = statistics.median(run[name] for run in later)
        print(f"{name:<28} {value:10.2f} {cached:10.3f}")


if __name__ == "__main__":
    main()
