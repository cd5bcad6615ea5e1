"""Head pose learned on rendered faces alone, tested on rendered faces that were never seen.

    python benchmarks/rendered_pose.py --out RUN
    python benchmarks/rendered_pose.py --evaluate rendered-ibug68

The first trains and tests; the second tests a network that is there.
The labels are the exact angles of the renderer, not a fit to landmarks; identities, expressions,
light and background of the test faces are all new. Yaw reaches ±45°, pitch and roll ±25°.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "100000")  # see asmkit train

import numpy as np

import asmkit
from asmkit.boxes import landmark_box

ANGLES = ("yaw", "pitch", "roll")


def train(arguments: argparse.Namespace) -> None:
    tracks = arguments.arch == "atpn"
    recipe = asmkit.nn.Recipe.read(
        "demo",
        arch=arguments.arch,
        epochs=arguments.epochs,
        head_epochs=arguments.head_epochs if tracks else 0,
        input_size=arguments.input_size,
        batch_size=64,
        pose_weight=20.0 if tracks else 5.0,
        mirror=0.5,
        negatives=0.25,
        seed=arguments.seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        faces = asmkit.datasets.synthetic_faces(arguments.faces, seed=1 + arguments.seed)
        asmkit.nn.train(faces.save(folder), arguments.out, recipe)


def evaluate(network: str | Path, seed: int) -> dict[str, object]:
    """Errors of pose, in degrees, on 500 faces of a seed that no training uses."""
    predictor = asmkit.load(network)
    test = asmkit.datasets.synthetic_faces(500, seed=10_000 + seed)
    boxes = landmark_box(test.points)
    pose = np.concatenate(
        [predictor.predict(i, b[None]).pose for i, b in zip(test.images, boxes, strict=True)]
    )
    errors = np.abs(pose - test.euler)
    return {
        "test": len(test),
        "mae": dict(zip(ANGLES, errors.mean(0).round(3), strict=True)),
        "median": dict(zip(ANGLES, np.median(errors, 0).round(3), strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    work = parser.add_mutually_exclusive_group(required=True)
    work.add_argument("--out", type=Path, help="train, into this new folder, and test")
    work.add_argument("--evaluate", metavar="NETWORK", help="test this network")
    parser.add_argument("--arch", default="atpn")
    parser.add_argument("--faces", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--head-epochs", type=int, default=40)
    parser.add_argument("--input-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.out:
        train(arguments)
    print(json.dumps(evaluate(arguments.out or arguments.evaluate, arguments.seed)))


if __name__ == "__main__":
    main()
