"""How well ATPN's tracking head tells faces from what is none, by the kind of negative.

    python benchmarks/face_or_not.py NETWORK --data ../shared/data

Positives: boxes moved and scaled at random that keep an IoU of 0.6 or more with the landmark box.
Negatives: boxes on the same photos with an IoU below 0.3: any, those with part of a face in them
(0.1 to 0.3), and those whose crop lies wholly inside of the photo, so that no repeated border gives
them away; squares of photos of hands and of X-rays, neither of which is ever trained on;
backgrounds of the face renderer. The photos are 300-W common's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

import asmkit
from asmkit.boxes import iou, landmark_box
from asmkit.datasets.face_render import sample_background
from asmkit.images import read_image

Doubles = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]


def draw_boxes(
    rng: np.random.Generator,
    truth: Doubles,
    n: int,
    low: float,
    high: float,
    inside: Image | None = None,
) -> Doubles:
    """``n`` squares whose IoU with the square around ``truth`` lies in [low, high).

    With an image, only such whose crop (a quarter wider) lies ``inside`` of it.
    """
    side = truth[2:].max()
    square = np.array([*(truth[:2] + truth[2:] / 2 - side / 2), side, side])
    found: list[Doubles] = []
    while len(found) < n:
        other = side * np.exp(rng.uniform(np.log(0.3), np.log(2.5)))
        centre = square[:2] + side / 2 + rng.uniform(-0.5, 0.5, 2) * (side + other)
        box = np.array([*(centre - other / 2), other, other])
        if not low <= iou(box, square) < high:
            continue
        if inside is None or _room(centre, inside) >= 0.625 * other:
            found.append(box)
    return np.stack(found)


def _room(centre: Doubles, image: Image) -> float:
    """How far the nearest border of an image is."""
    height, width = image.shape[:2]
    return 0.5 + float(np.minimum(centre, [width - 1, height - 1] - centre).min())


def squares(rng: np.random.Generator, image: Image, n: int) -> Doubles:
    """``n`` squares anywhere in an image, from a fifth of its shorter side on."""
    height, width = image.shape[:2]
    side = min(height, width) * np.exp(rng.uniform(np.log(0.2), 0.0, n))
    x, y = rng.uniform(0, 1, (2, n)) * (np.array([[width], [height]]) - side)
    return np.stack([x, y, side, side], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", help="name of a shipped network, or folder of a training")
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds 300w")
    parser.add_argument("--per-photo", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    predictor = asmkit.load(arguments.network)
    rng = np.random.default_rng(arguments.seed)
    n = arguments.per_photo
    scores: dict[str, list[Doubles]] = {
        name: [] for name in ("face", "same photos", "same photos, IoU 0.1 to 0.3")
    }

    def judge(name: str, image: Image, boxes: Doubles) -> None:
        scores.setdefault(name, []).append(predictor.predict(image, boxes).face)

    for annotation in asmkit.read(arguments.data / "300w" / "test_common", require_images=True):
        assert annotation.image is not None  # asked for above
        image, truth = read_image(annotation.image), landmark_box(annotation.points)
        judge("face", image, draw_boxes(rng, truth, n, 0.6, 1.01))
        judge("same photos", image, draw_boxes(rng, truth, n, 0.0, 0.3))
        judge("same photos, IoU 0.1 to 0.3", image, draw_boxes(rng, truth, n, 0.1, 0.3))
        judge("same photos, inside", image, draw_boxes(rng, truth, n, 0.0, 0.3, image))
    for kind, per_image in (("hands", 25), ("ceph", 10)):
        for path in sorted((arguments.data / kind).glob("*.jpg")):
            image = read_image(path)
            judge(kind, image, squares(rng, image, per_image))
    for _ in range(250):
        pixels = np.asarray(sample_background(rng, 224, 224) * 255, np.uint8)
        judge("rendered backgrounds", pixels, squares(rng, pixels, 8))

    face = np.concatenate(scores.pop("face"))
    rows = {"positives": len(face), "classes": {}}
    for name, parts in scores.items():
        none = np.concatenate(parts)
        auc = roc_auc_score(np.r_[np.ones(len(face)), np.zeros(len(none))], np.r_[face, none])
        rows["classes"][name] = {
            "n": len(none),
            "auc": round(float(auc), 5),
            "kept_at_0.6": round(float((none >= 0.6).mean()), 4),
        }
    rows["faces_kept_at_0.6"] = round(float((face >= 0.6).mean()), 4)
    if arguments.json:
        print(json.dumps(rows))
        return
    print(f"{len(face)} faces, {100 * rows['faces_kept_at_0.6']:.1f} % of them at 0.6 or more")
    for name, row in rows["classes"].items():
        print(f"{name:30} {row['n']:5}  AUC {row['auc']:.4f}  at 0.6: {row['kept_at_0.6']:.2%}")


if __name__ == "__main__":
    main()
