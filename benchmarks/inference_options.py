"""What the mirrored look (``flip``) and the second pass (``passes=2``) are worth.

    python benchmarks/inference_options.py --data ../shared/data/300w/train [NETWORK ...]

On the part of the folder that the training of each network held out: mean NME and pose error (the
mean over yaw, pitch and roll, against the scaled-orthographic pose of the annotated landmarks) in
the tight boxes of the annotated landmarks, and in boxes moved in x and y and scaled by up to 8 and
16 per cent of their size, two draws of each. Differences are given with the standard error of their
mean over the faces.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import asmkit
from asmkit.annotations import Annotation
from asmkit.boxes import landmark_box
from asmkit.pose import head_rotations, rotation_to_euler
from asmkit.shipped import network_folder
from asmkit.splits import validation_part

Doubles = npt.NDArray[np.float64]
#: Name → how far boxes are moved and scaled, and how often.
JITTERS = {"tight": (0.0, 1), "8 %": (0.08, 2), "16 %": (0.16, 2)}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "flip": {"flip": True},
    "two passes": {"passes": 2},
    "both": {"flip": True, "passes": 2},
}


def jittered(box: Doubles, amount: float, rng: np.random.Generator) -> Doubles:
    size = box[2:]
    centre = box[:2] + size * (0.5 + rng.uniform(-amount, amount, 2))
    size = size * np.exp(rng.uniform(-amount, amount))
    return np.concatenate([centre - size / 2, size])


def held_out(network: str, data: Path) -> list[Annotation]:
    recipe = tomllib.loads((network_folder(network) / "recipe.toml").read_text("utf-8"))
    annotations = asmkit.read(data, require_images=True)
    part = validation_part([a.name for a in annotations], recipe["validation"])
    return [a for a, out in zip(annotations, part, strict=True) if out]


def measure(network: str, annotations: list[Annotation]) -> dict[str, Any]:
    predictor = asmkit.load(network)
    truth = np.stack([annotation.points for annotation in annotations])
    angles = rotation_to_euler(head_rotations(truth, predictor.scheme))
    rng = np.random.default_rng(0)
    kinds = [kind for kind, (_, draws) in JITTERS.items() for _ in range(draws)]
    nme = {option: np.empty((len(truth), len(kinds))) for option in OPTIONS}
    pose = {option: np.empty((len(truth), len(kinds))) for option in OPTIONS}
    for row, annotation in enumerate(annotations):
        assert annotation.image is not None  # read with require_images
        image = asmkit.read_image(annotation.image)
        box = landmark_box(truth[row])
        boxes = np.stack([jittered(box, JITTERS[kind][0], rng) for kind in kinds])
        for option, chosen in OPTIONS.items():
            found = predictor.predict(image, boxes, **chosen)
            expected = np.broadcast_to(truth[row], found.points.shape)
            nme[option][row] = 100 * asmkit.nme(found.points, expected)
            pose[option][row] = np.abs(found.pose - angles[row]).mean(axis=1)
    return {
        kind: {
            option: _row(kinds, kind, nme[option], nme["plain"], pose[option]) for option in OPTIONS
        }
        for kind in JITTERS
    }


def _row(
    kinds: list[str], kind: str, errors: Doubles, plain: Doubles, pose: Doubles
) -> dict[str, float]:
    which = [column for column, name in enumerate(kinds) if name == kind]
    gain = (errors - plain)[:, which].mean(axis=1)  # the draws of one face are not independent
    return {
        "nme": float(errors[:, which].mean()),
        "difference": float(gain.mean()),
        "standard_error": float(gain.std(ddof=1) / np.sqrt(len(gain))),
        "pose": float(pose[:, which].mean()),
    }


def show(network: str, n: int, table: dict[str, Any]) -> None:
    print(f"\n{network}, {n} held-out faces")
    for kind, rows in table.items():
        for option, row in rows.items():
            print(
                f"  {kind:6s} {option:11s} NME {row['nme']:.3f} % "
                f"({row['difference']:+.3f} ± {row['standard_error']:.3f}), "
                f"pose {row['pose']:.2f}°"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["atpn-ibug68", "asmnet-ibug68"])
    parser.add_argument("--data", type=Path, required=True, help="what the networks trained on")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    results = {}
    for network in arguments.networks:
        annotations = held_out(network, arguments.data)
        results[network] = measure(network, annotations)
        if not arguments.json:
            show(network, len(annotations), results[network])
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
