"""Pose from incomplete, noisy and wrong landmarks, on faces that did not make the reference.

    python benchmarks/robust_pose.py DATA [--seed 0]

``DATA`` holds ``aflw2000/pose68.csv``, or is that table. ``asmkit.fit_reference`` makes a 3-D
reference from the even rows (faces within ±99°) and ``solve_pnp`` measures it on the odd ones, then
the other way round. The errors are those to the labels, in degrees, averaged over both ways where a
line says so. The cases: points as they are; 20 % of them missing; 2 px of Gaussian noise; a share
of them moved anywhere in the box of the face. One JSON line each.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from make_face_reference import LIMIT_DEG, read_table

import asmkit
from asmkit.pose import euler_to_rotation

Array = npt.NDArray[np.float64]
CAMERA = asmkit.Camera.orthographic()
FITS = {"plain": None, "huber": "huber", "ransac": "ransac"}
SHARES = (0.1, 0.2, 0.3, 0.4)


def missing(points: Array, rng: np.random.Generator) -> Array:
    return np.where(rng.random(points.shape[:2])[..., None] < 0.2, np.nan, points)


def noisy(points: Array, rng: np.random.Generator) -> Array:
    return points + rng.normal(0, 2, points.shape)


def outliers(points: Array, rng: np.random.Generator, share: float) -> Array:
    """The same number of points in each face, moved anywhere in its box."""
    low, high = points.min(axis=1, keepdims=True), points.max(axis=1, keepdims=True)
    n_wrong = round(share * points.shape[1])
    wrong = np.argsort(rng.random(points.shape[:2]), axis=1) < n_wrong
    anywhere = low + (high - low) * rng.random(points.shape)
    return np.where(wrong[..., None], anywhere, points)


def cases(points: Array, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    made = {"clean": points, "20 % missing": missing(points, rng), "2 px noise": noisy(points, rng)}
    for share in SHARES:
        made[f"{100 * share:.0f} % outliers"] = outliers(points, rng, share)
    return made


def error(points: Array, labels: Array, reference: Array, robust: str | None) -> Array:
    """Mean absolute errors of yaw, pitch and roll, in degrees."""
    pose = asmkit.solve_pnp(points, reference, CAMERA, robust=robust)
    if not pose.success.all():
        raise RuntimeError(f"{(~pose.success).sum()} faces have no pose")
    off = np.abs((pose.euler() - labels + 180) % 360 - 180)
    return np.asarray(off.mean(axis=0))


def times_plain(points: Array, reference: Array, n_rounds: int = 7) -> dict[str, float]:
    """Seconds of each fit over those of the plain one: medians over rounds in which all run."""
    rounds = []
    for _ in range(n_rounds):
        spent = {}
        for fit, robust in FITS.items():
            start = time.perf_counter()
            asmkit.solve_pnp(points, reference, CAMERA, robust=robust)
            spent[fit] = time.perf_counter() - start
        rounds.append([value / spent["plain"] for value in spent.values()])
    return dict(zip(FITS, np.median(rounds, axis=0).round(1).tolist(), strict=True))


def say(values: Array) -> dict[str, float]:
    return {k: round(float(v), 3) for k, v in zip(("yaw", "pitch", "roll"), values, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    table = arguments.data
    labels, points = read_table(table / "aflw2000" / "pose68.csv" if table.is_dir() else table)
    usable = (np.abs(labels) <= LIMIT_DEG).all(axis=1)
    even = np.arange(len(labels)) % 2 == 0

    found: dict[tuple[str, str], list[Array]] = {}
    for name, makes in (("even", even), ("odd", ~even)):
        made, unseen = makes & usable, ~makes & usable
        rotations = euler_to_rotation(labels[made])
        reference = asmkit.fit_reference(points[made], rotations, mirror="ibug68", robust="huber")
        for case, shapes in cases(points[unseen], arguments.seed).items():
            for fit, robust in FITS.items():
                values = error(shapes, labels[unseen], reference, robust)
                found.setdefault((case, fit), []).append(values)
                row = {"made_from": name, "faces": int(unseen.sum()), "case": case, "fit": fit}
                print(json.dumps({**row, **say(values)}), flush=True)
    mean = {key: np.mean(values, axis=0) for key, values in found.items()}
    for (case, fit), values in mean.items():
        row = {"made_from": "both, averaged", "case": case, "fit": fit, **say(values)}
        print(json.dumps({**row, "times_clean_plain": say(values / mean["clean", "plain"])}))
    worst = outliers(points[usable], np.random.default_rng(arguments.seed), 0.3)
    print(json.dumps({"case": "30 % outliers", "time_over_plain": times_plain(worst, reference)}))


if __name__ == "__main__":
    main()
