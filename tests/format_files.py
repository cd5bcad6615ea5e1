"""One small file of every annotation format, and what each format can hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asmkit.annotations import FORMATS, Annotation, write

SIZE = (640, 480)


@dataclass(frozen=True)
class Ability:
    """What survives writing and reading."""

    n_dims: tuple[int, ...] = (2,)
    missing: bool = True
    many: bool = True
    whole_pixels: bool = False
    inside: bool = False  # a coordinate near or below 0 has a meaning of its own
    n_points: int | None = None
    precision: float = 0.0


ABILITIES = {
    "pts": Ability((2, 3), many=False, precision=1e-9),  # subtracts 1 and adds it
    "wflw": Ability(n_points=98),
    "asf": Ability(missing=False, many=False, precision=1e-9),  # divides by the size
    "ljson": Ability((2, 3), many=False),
    "tps": Ability((2, 3), precision=1e-9),  # height - y
    "lm2": Ability((2, 3), missing=False, many=False),
    "nts": Ability((2, 3)),
    "dlib": Ability(whole_pixels=True),
    "coco": Ability(),
    "stasm": Ability(inside=True),
    "muct": Ability(inside=True),
    "csv": Ability((2, 3)),
}
#: Shards hold the images too, and have tests of their own.
NAMES = sorted(FORMATS.keys() - {"shards"})


def annotations(name: str, count: int = 2) -> list[Annotation]:
    """A few annotations that a format can hold, with all that many formats hold."""
    able = ABILITIES[name]
    rng = np.random.default_rng(len(name))
    n_points = able.n_points or 5
    found = []
    for i in range(count if able.many else 1):
        points = rng.uniform(1, 400, size=(n_points, 2))
        if able.whole_pixels:
            points = np.rint(points)
        if able.missing:
            points[i] = np.nan
        found.append(
            Annotation(
                points, image_size=SIZE, name=f"face{i}", attributes={"image_name": f"face{i}.png"}
            )
        )
    return found


def sample(folder: Path, name: str) -> Path:
    """A file of a format, as asmkit writes it."""
    path = folder / f"sample{FORMATS[name].suffixes[0]}"
    write(path, annotations(name), format=name)
    return path
