"""Which Haar search finds faces: recall, false boxes and time, beside what it was chosen among.

    python benchmarks/detector.py DATA [--every 5] [--out FILE.jsonl]

The maps from windows to landmark boxes are learned on the fitting part of 300w/train (those of
other cascades than the first on every n-th face of it), everything else is measured on the
validation part, a tenth. A face is found when a box has an IoU of 0.5 or more with its true box.
Boxes beside it may be faces too: 300-W annotates one a crop. Hands and X-rays hold no face at all.
Times are milliseconds on a processor, for a photo of the validation part and for one without a
face; raw windows are looked for once, so they are sums.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

import asmkit
from asmkit._files import replacing
from asmkit.boxes import iou, landmark_box
from asmkit.detection import grouped_windows, haar_windows
from asmkit.images import read_image
from asmkit.splits import validation_part

Doubles = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]
MIN_SIZE = 40
FIRST = "frontalface_alt2"
#: Name, whether the image is mirrored, and step between sizes.
Look = tuple[str, bool, float]
LOOKS: list[Look] = [
    (FIRST, False, 1.1),
    ("frontalface_default", False, 1.1),
    ("frontalface_alt", False, 1.1),
    ("frontalface_alt_tree", False, 1.1),
    ("profileface", False, 1.1),
    ("profileface", True, 1.1),
    (FIRST, False, 1.05),
]
ALT2, DEFAULT, ALT, TREE, LEFT, RIGHT, FINE = LOOKS
#: Steps, each of some looks whose windows are taken together, and how many it takes; the next step
#: where one finds nothing.
SEARCHES: dict[str, list[tuple[list[Look], int]]] = {
    "alt2": [([ALT2], 3)],
    "default": [([DEFAULT], 3)],
    "alt": [([ALT], 3)],
    "alt_tree": [([TREE], 3)],
    "profile": [([LEFT], 3)],
    "alt2, fewer neighbours": [([ALT2], 1)],
    "alt2, finer": [([FINE], 3)],
    "alt2, finer, fewer neighbours": [([FINE], 1)],
    "alt2; fewer neighbours": [([ALT2], 3), ([ALT2], 1)],
    "alt2; default": [([ALT2], 3), ([DEFAULT], 3)],
    "alt2; default; both profiles": [([ALT2], 3), ([DEFAULT], 3), ([LEFT], 3), ([RIGHT], 3)],
    "alt2; finer": [([ALT2], 3), ([FINE], 1)],
    "alt2; alt2 + default, 6": [([ALT2], 3), ([ALT2, DEFAULT], 6)],
    "alt2; alt2 + default + profiles, 4": [([ALT2], 3), ([ALT2, DEFAULT, LEFT, RIGHT], 4)],
    "alt2; alt2 + default + profiles, 6": [([ALT2], 3), ([ALT2, DEFAULT, LEFT, RIGHT], 6)],
    "alt2; alt2 + default + profiles, 8": [([ALT2], 3), ([ALT2, DEFAULT, LEFT, RIGHT], 8)],
    "alt2; alt2 + alt + default + profiles, 7": [
        ([ALT2], 3),
        ([ALT2, ALT, DEFAULT, LEFT, RIGHT], 7),
    ],
}


class Seen:
    """The raw windows of one image, look by look, and the time they take; looked for once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.windows: dict[Look, npt.NDArray[np.int32]] = {}
        self.milliseconds: dict[Look, float] = {}

    def by(self, look: Look) -> npt.NDArray[np.int32]:
        """What one look sees."""
        if look not in self.windows:
            grey = cv2.cvtColor(read_image(self.path), cv2.COLOR_RGB2GRAY)
            name, mirrored, step = look
            start = time.thread_time()
            self.windows[look] = haar_windows(
                np.asarray(grey, np.uint8),
                name,
                mirrored=mirrored,
                scale_factor=step,
                min_size=MIN_SIZE,
            )
            self.milliseconds[look] = 1e3 * (time.thread_time() - start)
        return self.windows[look]


def detector(look: Look) -> Callable[[Image], Doubles]:
    name, mirrored, step = look

    def detect(image: Image) -> Doubles:
        grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        windows = haar_windows(grey, name, mirrored=mirrored, scale_factor=step, min_size=MIN_SIZE)
        return grouped_windows(windows, 3)

    return detect


def symmetric(found: asmkit.BoxCalibration) -> asmkit.BoxCalibration:
    """The same without a shift to one side."""
    return asmkit.BoxCalibration(**{**vars(found), "shift": (0.0, found.shift[1])})


def search(
    seen: Seen,
    steps: Sequence[tuple[list[Look], int]],
    maps: dict[Look, asmkit.BoxCalibration],
) -> tuple[Doubles, float]:
    """Boxes, and milliseconds of all looks that it took."""
    looks: set[Look] = set()
    boxes = np.empty((0, 4))
    for together, neighbours in steps:
        windows = np.concatenate([seen.by(look) for look in together])
        looks |= {*together}
        boxes = maps[together[0]].apply(grouped_windows(windows, neighbours))
        if len(boxes):
            break
    return boxes, sum(seen.milliseconds[look] for look in looks)


def measure(
    steps: Sequence[tuple[list[Look], int]],
    maps: dict[Look, asmkit.BoxCalibration],
    faces: Sequence[tuple[Seen, Doubles]],
    others: Sequence[Seen],
) -> dict[str, Any]:
    best, extra, times = [], [], []
    for seen, truth in faces:
        boxes, milliseconds = search(seen, steps, maps)
        best.append(float(iou(boxes, truth).max(initial=0.0)))
        extra.append(len(boxes) - (best[-1] >= 0.5))
        times.append(milliseconds)
    without = [search(seen, steps, maps) for seen in others]
    overlaps = np.array(best)
    found = overlaps >= 0.5
    return {
        "recall": round(100 * float(found.mean()), 2),
        "median_iou": round(float(np.median(overlaps[found])), 3),
        "photos_with_extra": sum(n > 0 for n in extra),
        "photos": len(faces),
        "others_with_box": sum(len(boxes) > 0 for boxes, _ in without),
        "others": len(others),
        "ms": round(float(np.mean(times)), 1),
        "ms_without_face": round(float(np.mean([spent for _, spent in without])), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the folder that holds 300w, hands and ceph")
    parser.add_argument(
        "--every",
        type=int,
        default=5,
        help="of the faces to learn other cascades' maps on, one in so many",
    )
    parser.add_argument("--out", type=Path, help="JSON lines of the figures")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    annotations = asmkit.read(arguments.data / "300w" / "train", require_images=True)
    held_out = validation_part([a.name for a in annotations])
    fitting = [a for a, out in zip(annotations, held_out, strict=True) if not out]
    validation = [a for a, out in zip(annotations, held_out, strict=True) if out]
    rows: list[dict[str, Any]] = []
    maps: dict[Look, asmkit.BoxCalibration] = {}
    for look in LOOKS:
        # The windows of the first step decide; a finer step and a mirrored image change none.
        if look[1] or look[2] != 1.1:
            continue
        some = fitting if look == ALT2 else fitting[:: arguments.every]
        found = asmkit.calibrate_box(detector(look), some, progress=True)
        maps[look] = symmetric(found) if look != LEFT else found
        rows.append({"map": look[0], **vars(found)})
        print(rows[-1], flush=True)
    maps[FINE] = maps[ALT2]
    maps[RIGHT] = asmkit.BoxCalibration(
        **{**vars(maps[LEFT]), "shift": (-maps[LEFT].shift[0], maps[LEFT].shift[1])}
    )
    faces = [(Seen(Path(str(a.image))), landmark_box(a.points)) for a in validation]
    others = [
        Seen(path) for kind in ("hands", "ceph") for path in (arguments.data / kind).glob("*.jpg")
    ]
    for name, steps in tqdm(SEARCHES.items(), "searches", leave=False):
        rows.append({"search": name, **measure(steps, maps, faces, others)})
        print(rows[-1], flush=True)
    if arguments.out:
        with replacing(arguments.out) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


if __name__ == "__main__":
    main()
