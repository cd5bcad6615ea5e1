"""Smoothing and generalised Procrustes beside menpofit and menpo: times, and what both find.

    python benchmarks/peers.py --menpo-python MENPO/bin/python [--rounds 7] [--out FILE]

menpo runs in an environment of its own (``peer_menpo.py`` says how to make it), asmkit here, on the
same shapes and the same number of threads. In each round both work, one after the other, so that a
busy machine slows both alike; ratios are medians over the rounds, by the clock and by time on a
processor (all threads together; the two differ where other work runs). asmkit smooths and aligns
``--shapes`` shapes in one call; menpo, which takes one shape a call, the first ``--peer-shapes`` of
them, on which both models are fitted too, with as many modes.

The means are judged here, by neither library's code. ρ is the angle between a shape and a mean,
both centred: ``sin² ρ = min ‖x − T(mean)‖² / ‖x − centroid‖²`` over similarities T is the
least-squares objective of generalised Procrustes. menpo's sweeps lower the mean of ``1 − cos ρ``,
asmkit's that of ``−log cos ρ``. The three agree in the second order of the spread, so each library
is ahead by its own measure, and both by very little. "Own poses" is the least-squares objective in
the poses that each library gives: menpo scales by the ratio of sizes, which is not least squares.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from smooth import N_MODES, N_POINTS, Seconds, seconds_of, shapes_in_random_poses, write_lines
from threadpoolctl import threadpool_limits

import asmkit
from asmkit.priors import Unbounded

Array = npt.NDArray[np.float64]
ASK = Path(__file__).with_name("peer_menpo.py")

#: asmkit's calls are short beside menpo's: so many make one round.
CALLS = 5


class Peer(AbstractContextManager["Peer"]):
    """menpo's process: one line asks for a run, one line answers."""

    def __init__(self, python: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            [python, str(ASK), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # The packages of this environment must not be seen from that one.
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )

    def ask(self, work: str, **details: Any) -> dict[str, Any]:
        """Have it work; what it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answer = ""
        try:
            print(json.dumps({"work": work, **details}), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            pass  # it has ended: said below
        if not answer:
            raise SystemExit(
                f"menpo's process ended at {work!r} (its own message is above); --menpo-python "
                f"takes the interpreter of an environment that is made as {ASK.name} says"
            )
        found: dict[str, Any] = json.loads(answer)
        return found

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


#: Measures of a mean, from the cosines of the angles between it and the shapes.
MEASURES: dict[str, Callable[[Array], Array]] = {
    "sin² ρ": lambda cosine: (1 - cosine) * (1 + cosine),
    "1 − cos ρ": lambda cosine: 1 - cosine,
    "−log cos ρ": lambda cosine: -np.log(cosine),
}


def cosines(mean: Array, shapes: Array) -> Array:
    """Cosine of the angle between a mean (p, 2) and each shape (n, p, 2), best rotation."""
    m, x = (z - z.mean(axis=-1, keepdims=True) for z in (as_complex(mean), as_complex(shapes)))
    return np.asarray(np.abs(x @ m.conj()) / (np.linalg.norm(m) * np.linalg.norm(x, axis=1)))


def share(difference: Array, shapes: Array) -> float:
    """Mean of ``‖difference‖² / ‖x − centroid‖²`` over shapes."""
    centred = shapes - shapes.mean(axis=1, keepdims=True)
    return float(np.mean(np.sum(difference**2, axis=(1, 2)) / np.sum(centred**2, axis=(1, 2))))


def as_complex(points: Array) -> npt.NDArray[np.complex128]:
    return np.asarray(points[..., 0] + 1j * points[..., 1])


def compare_procrustes(shapes: Array, folder: Path) -> dict[str, Any]:
    """Objectives of both means of the shapes that menpo had last."""
    ours = asmkit.generalized_procrustes(shapes)
    with np.load(folder / "gpa.npz") as theirs:
        mean, maps = theirs["mean"], theirs["maps"]
    placed = mean @ np.swapaxes(maps[:, :2, :2], 1, 2) + maps[:, None, :2, 2]
    own = np.asarray(ours.transforms.apply(ours.mean))
    own_cosines, peer_cosines = cosines(ours.mean, shapes), cosines(mean, shapes)
    objectives = {
        name: (float(measure(own_cosines).mean()), float(measure(peer_cosines).mean()))
        for name, measure in MEASURES.items()
    }
    objectives["own poses"] = (share(shapes - own, shapes), share(shapes - placed, shapes))
    return {
        "work": "mean shapes",
        "shapes": len(shapes),
        "sweeps": ours.n_iterations,
        **{
            name: {"asmkit": a, "menpo": b, "asmkit / menpo - 1": a / b - 1}
            for name, (a, b) in objectives.items()
        },
    }


def compare_smoothing(model: asmkit.ShapeModel, shapes: Array, folder: Path) -> dict[str, Any]:
    """Root mean squares, in units of the shapes' sizes: what both smooth away, and between them."""
    ours = model.smooth(shapes, prior=Unbounded())
    with np.load(folder / "smooth.npz") as found:
        theirs = found["smoothed"]
    return {
        "work": "smoothed shapes",
        "shapes": len(shapes),
        "asmkit": share(shapes - ours, shapes) ** 0.5,
        "menpofit": share(shapes - theirs, shapes) ** 0.5,
        "apart": share(ours - theirs, shapes) ** 0.5,
    }


def race(
    ours: Callable[[], object],
    theirs: Callable[[], dict[str, Any]],
    counts: tuple[int, int],
    rounds: int,
) -> dict[str, Any]:
    """Microseconds a shape of both, and how many times as fast asmkit is: medians over rounds."""
    ours()
    answer = theirs()
    times: list[tuple[Seconds, Seconds]] = []
    for _ in range(rounds):
        own = seconds_of(lambda: [ours() for _ in range(CALLS)])
        answer = theirs()
        times.append((own, Seconds(answer.pop("clock"), answer.pop("processor"))))
    # (rounds, library, clock or processor)
    each = 1e6 * np.array(times) / np.array([CALLS * counts[0], counts[1]])[:, None]
    middle = np.median(each, axis=0)
    ratio = np.median(each[:, 1] / each[:, 0], axis=0)
    return {
        "rounds": rounds,
        "us_per_shape": {"asmkit": middle[0, 0], "peer": middle[1, 0]},
        "us_of_processor": {"asmkit": middle[0, 1], "peer": middle[1, 1]},
        "times": ratio[0],
        "times_of_processor": ratio[1],
        **{f"peer_{name}": value for name, value in answer.items()},
    }


HEADING = (
    f"{'µs a shape (of processor)':26s}{'threads':>8s}{'asmkit':>19s}{'menpo':>21s}{'times':>16s}"
)


def show(row: dict[str, Any]) -> None:
    clock, processor = row["us_per_shape"], row["us_of_processor"]
    print(
        f"{row['work']:26s}{row['threads']:8d}"
        f"{clock['asmkit']:9.3f} ({processor['asmkit']:7.3f})"
        f"{clock['peer']:11.1f} ({processor['peer']:7.1f})"
        f"{row['times']:9.0f} ({row['times_of_processor']:4.0f})",
        flush=True,
    )


def show_findings(smoothed: dict[str, Any], means: dict[str, Any]) -> None:
    print(
        f"\nsmoothed away of {smoothed['shapes']} shapes, root mean square: "
        f"asmkit {smoothed['asmkit']:.6f}, menpofit {smoothed['menpofit']:.6f} of their size; "
        f"smoothed shapes {smoothed['apart']:.1e} apart"
    )
    for name in (*MEASURES, "own poses"):
        found = means[name]
        print(
            f"mean shape of {means['shapes']}, {name:10s}: asmkit {found['asmkit']:.9f}, "
            f"menpo {found['menpo']:.9f}, asmkit / menpo - 1 = {found['asmkit / menpo - 1']:+.1e}"
        )


def races(
    peer: Peer, model: asmkit.ShapeModel, shapes: Array, n_peer: int, threads: int, rounds: int
) -> list[dict[str, Any]]:
    kept = np.empty_like(shapes)
    ours: dict[str, Callable[[], object]] = {
        "smooth": lambda: model.smooth(shapes),
        "smooth, out=": lambda: model.smooth(shapes, out=kept),
        "gpa": lambda: asmkit.generalized_procrustes(shapes),
    }
    asmkit.set_num_threads(threads)
    rows = []
    for work, call in ours.items():

        def theirs(work: str = work) -> dict[str, Any]:
            return peer.ask(work.partition(",")[0], shapes=n_peer, threads=threads)

        with threadpool_limits(threads):
            found = race(call, theirs, (len(shapes), n_peer), rounds)
        rows.append({"work": work, "threads": threads, **found})
        show(rows[-1])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--menpo-python", required=True, help="interpreter with menpo and menpofit")
    parser.add_argument("--shapes", type=int, default=10_000)
    parser.add_argument("--peer-shapes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, help="JSON lines of the table")
    arguments = parser.parse_args()
    shapes = shapes_in_random_poses(arguments.shapes, seed=3)
    few = shapes[: arguments.peer_shapes]
    model = asmkit.ShapeModel(N_MODES).fit(few)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "shapes.npy", few)
        with Peer(arguments.menpo_python, folder) as peer:
            versions = peer.ask("versions")
            modes = peer.ask("fit", modes=N_MODES)["modes"]
            if modes != N_MODES:
                raise SystemExit(f"menpofit kept {modes} modes, asmkit {N_MODES}: no comparison")
            rows: list[dict[str, Any]] = [
                {"shapes": len(shapes), "peer_shapes": len(few), "modes": modes}
                | {"points": N_POINTS, "numpy": np.__version__, "peer": versions}
            ]
            print(json.dumps(rows[0]), HEADING, sep="\n")
            for threads in arguments.threads:
                rows += races(peer, model, shapes, len(few), threads, arguments.rounds)
            rows.append(compare_smoothing(model, few, folder))
            rows.append(compare_procrustes(few, folder))
    show_findings(*rows[-2:])
    if arguments.out:
        write_lines(arguments.out, rows)


if __name__ == "__main__":
    main()
