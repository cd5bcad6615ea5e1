"""Frames a second of tracking beside detecting in every frame, and where the time goes.

    python benchmarks/track.py [NETWORK] [--frames 60] [--faces 1 5] [--threads 1 2] [--rounds 5]

Rendered faces that move in frames of 640 x 480, held in memory. "detecting" is the detector in
every frame and the network in its boxes; "tracking" is ``asmkit.track`` on the same frames. The
detector is Haar with scale_factor=1.1, min_neighbors=3, min_size=60, its first search alone. Rounds
of both alternate, so that a busy machine slows both alike; speeds are medians over the rounds,
ratios medians of the rounds' ratios, shares those of all rounds together.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import cv2
import numpy as np
import numpy.typing as npt

import asmkit
from asmkit.datasets import synthetic_video
from asmkit.images import crop

Image = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]
NETWORK = "asmnet-ibug68"
STAGES = ("detect", "crop", "network", "rest")


class Clock:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time counted."""

        def run(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return work(*arguments, **options)
            finally:
                self.seconds[stage] += time.perf_counter() - start

        return run


def detect(image: Image) -> Doubles:
    return asmkit.detect_faces(
        image, scale_factor=1.1, min_neighbors=3, min_size=60, thorough=False
    )


@contextmanager
def clocked(predictor: asmkit.Predictor) -> Iterator[Clock]:
    """Time the crops and the network of a predictor."""
    clock = Clock()
    with (
        mock.patch.object(predictor, "_run", clock.timed("network", predictor._run)),
        mock.patch("asmkit.predictor.crop", clock.timed("crop", crop)),
    ):
        yield clock


def tracking(frames: Sequence[Image], predictor: asmkit.Predictor, clock: Clock) -> int:
    results = asmkit.track(frames, predictor, detect=clock.timed("detect", detect))
    return sum(len(frame.faces) for frame in results)


def detecting(frames: Sequence[Image], predictor: asmkit.Predictor, clock: Clock) -> int:
    look = clock.timed("detect", detect)
    return sum(len(predictor.predict(frame, look(frame)).points) for frame in frames)


WAYS = {"tracking": tracking, "detecting": detecting}


def measure(frames: Sequence[Image], predictor: asmkit.Predictor, n_rounds: int) -> dict[str, Any]:
    """Medians over the rounds of both ways."""
    total: dict[str, list[float]] = {way: [] for way in WAYS}
    stages: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    found = dict.fromkeys(WAYS, 0)
    for number in range(n_rounds + 1):
        for way, run in WAYS.items():
            with clocked(predictor) as clock:
                start = time.perf_counter()
                found[way] = run(frames, predictor, clock)
                seconds = time.perf_counter() - start
            if number:  # the first round warms up
                clock.seconds["rest"] = seconds - sum(clock.seconds.values())
                total[way].append(seconds)
                stages[way].append([clock.seconds[stage] for stage in STAGES])
    speeds = {way: len(frames) / np.array(total[way]) for way in WAYS}
    return {
        way: {
            "frames_per_second": float(np.median(speeds[way])),
            "share": dict(
                zip(STAGES, (np.sum(stages[way], axis=0) / sum(total[way])).tolist(), strict=True)
            ),
            "faces_per_frame": found[way] / len(frames),
        }
        for way in WAYS
    } | {"ratio": float(np.median(speeds["tracking"] / speeds["detecting"]))}


def show(n_faces: int, n_threads: int, result: dict[str, Any]) -> None:
    print(f"\n{n_faces} face(s), {n_threads} thread(s): tracking {result['ratio']:.1f} x detecting")
    for way in WAYS:
        row = result[way]
        parts = ", ".join(f"{name} {100 * part:.0f} %" for name, part in row["share"].items())
        print(
            f"  {way:9s} {row['frames_per_second']:7.1f} frames/s "
            f"({row['faces_per_frame']:.2f} faces a frame): {parts}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", nargs="?", default=NETWORK, help="name, or folder")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--faces", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()

    results = []
    for n_faces in arguments.faces:
        video = synthetic_video(0, n_frames=arguments.frames, size=(640, 480), n_faces=n_faces)
        frames = list(video)
        for n_threads in arguments.threads:
            cv2.setNumThreads(n_threads)
            asmkit.set_num_threads(n_threads)
            predictor = asmkit.load(arguments.network, threads=n_threads)
            result = measure(frames, predictor, arguments.rounds)
            results.append({"faces": n_faces, "threads": n_threads, **result})
            if not arguments.json:
                show(n_faces, n_threads, result)
    if arguments.json:
        print(json.dumps({"network": arguments.network, "results": results}))


if __name__ == "__main__":
    main()
