"""Poses per second and objectives of ``asmkit.solve_pnp`` beside ``cv2.solvePnP``, in one run.

    python benchmarks/pnp.py [--poses 20000] [--noise 1.0] [--threads 1 2]

Random poses of the 68-point reference face in a 640 x 480 image, with noise in pixels. asmkit
solves them in one call; OpenCV, which takes one pose a call, in a Python loop. Rounds of all
solvers alternate, so that a busy machine slows all alike; ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

import asmkit
from asmkit.pose import euler_to_rotation

Array = npt.NDArray[np.float64]
CAMERA = asmkit.Camera.default(640, 480)
METHODS = {
    "ITERATIVE": cv2.SOLVEPNP_ITERATIVE,
    "EPNP": cv2.SOLVEPNP_EPNP,
    "SQPNP": cv2.SOLVEPNP_SQPNP,
}


def random_poses(n: int, noise: float, reference: Array) -> Array:
    rng = np.random.default_rng(0)
    rotation = euler_to_rotation(rng.uniform(-1, 1, (n, 3)) * [75, 45, 45])
    depth = rng.uniform(4, 12, n)
    ray = rng.uniform(-0.3, 0.3, (n, 2))
    points = reference @ rotation.transpose(0, 2, 1)
    points += (np.column_stack([ray, np.ones(n)]) * depth[:, None])[:, None]
    return CAMERA.project(points) + rng.normal(0, noise, (n, len(reference), 2))


def opencv_solver(method: int, reference: Array) -> Callable[[Array], Array]:
    matrix = np.array([[CAMERA.fx, 0, CAMERA.cx], [0, CAMERA.fy, CAMERA.cy], [0, 0, 1]])

    def solve(points: Array) -> Array:
        poses = np.empty((len(points), 6))
        for i, shape in enumerate(points):
            _, turn, shift = cv2.solvePnP(reference, shape, matrix, None, flags=method)
            poses[i, :3], poses[i, 3:] = turn[:, 0], shift[:, 0]
        return poses

    return solve


def objectives(rotation: Array, translation: Array, points: Array, reference: Array) -> Array:
    """Sum of squared reprojection errors; infinite where a point is behind the camera."""
    P = reference @ rotation.transpose(0, 2, 1) + translation[:, None]
    squares = ((CAMERA.project(P) - points) ** 2).sum(axis=(1, 2))
    return np.where((P[..., 2] > 0).all(axis=1), squares, np.inf)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def time_rounds(points: Array, reference: Array, n_rounds: int) -> dict[str, list[float]]:
    """Microseconds a pose of each solver, in every round; each round of OpenCV has its own part."""
    solvers = {name: opencv_solver(flag, reference) for name, flag in METHODS.items()}
    times: dict[str, list[float]] = {name: [] for name in ("asmkit", *METHODS)}
    for part in np.array_split(points, n_rounds):
        ours = seconds(lambda: asmkit.solve_pnp(points, reference, CAMERA))
        times["asmkit"].append(1e6 * ours / len(points))
        for name, solve in solvers.items():
            times[name].append(1e6 * seconds(lambda s=solve, p=part: s(p)) / len(part))
    return times


def compare_objectives(points: Array, reference: Array) -> None:
    pose = asmkit.solve_pnp(points, reference, CAMERA)
    ours = objectives(pose.rotation, pose.translation, points, reference)
    print(f"\nobjectives on all {len(points)} poses; asmkit found {pose.success.sum()}")
    for name, flag in METHODS.items():
        found = opencv_solver(flag, reference)(points)
        rotation = np.array([cv2.Rodrigues(turn)[0] for turn in found[:, :3]])
        theirs = objectives(rotation, found[:, 3:], points, reference)
        behind = np.isinf(theirs).sum()
        print(
            f"  asmkit / {name:9s} - 1: max {(ours / theirs - 1).max():+.1e}, "
            f"median {np.median(ours / theirs - 1):+.1e} "
            f"({behind} of OpenCV's poses lie behind the camera)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--poses", type=int, default=20_000)
    parser.add_argument("--noise", type=float, default=1.0, help="standard deviation in pixels")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()

    reference = asmkit.face_reference("ibug68")
    points = random_poses(arguments.poses, arguments.noise, reference)
    first = seconds(lambda: asmkit.solve_pnp(points[:1], reference, CAMERA))
    print(f"first call (imports numba; compiles, or loads from the cache): {first:.2f} s")
    for n_threads in arguments.threads:
        asmkit.set_num_threads(n_threads)
        cv2.setNumThreads(n_threads)
        times = time_rounds(points, reference, arguments.rounds)
        print(f"\n{n_threads} thread(s), median of {arguments.rounds} rounds")
        for name, values in times.items():
            ratio = np.median(np.array(values) / np.array(times["asmkit"]))
            print(f"  {name:9s} {np.median(values):8.2f} us a pose   {ratio:6.1f}x")
    compare_objectives(points, reference)


if __name__ == "__main__":
    main()
