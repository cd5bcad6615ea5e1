"""What each prior does to noise and to outliers, on faces, hands, X-rays and bones.

    python benchmarks/noise.py ../shared/data [--out FILE]

Unseen shapes (300-W: trained on `train`, tested on `test_common`; the others: five folds) get
normal noise on every point, or a tenth of their points moved anywhere in their box. Errors are
mean distances to the annotated points, in percent of the root mean square radius of the shape,
before and after. The model holds 98 % of the variance; `Gaussian` and `complete` are told the size
of the noise (of outliers: the root of their mean square); the robust `complete` is told 1 % always.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

import asmkit

Array = npt.NDArray[np.float64]
FOLDS = 5


def data_sets(folder: Path) -> Iterator[tuple[str, list[tuple[Array, Array]]]]:
    """Names and pairs of training and test shapes."""
    faces = [asmkit.read_shapes(folder / "300w" / part) for part in ("train", "test_common")]
    yield "300-W", [(faces[0], faces[1])]
    experts = sorted((folder / "ceph").glob("*_a.pts"))
    sets = {
        "hands": asmkit.read_shapes(folder / "hands"),
        "ceph": np.concatenate([asmkit.read_shapes(path) for path in experts]),
        "bone3d": np.load(folder / "shapes3d" / "bone3d.npz")["points"].astype(float),
    }
    for name, shapes in sets.items():
        fold = np.random.default_rng(0).permutation(len(shapes)) % FOLDS
        yield name, [(shapes[fold != i], shapes[fold == i]) for i in range(FOLDS)]


def radius(shapes: Array) -> Array:
    """Root mean square distance of the points from their centroid (n,)."""
    return np.asarray(asmkit.centroid_size(shapes) / np.sqrt(shapes.shape[1]))


def disturbed(truth: Array, kind: str, rng: np.random.Generator) -> Array:
    if kind.startswith("noise"):
        share = float(kind.split()[1].rstrip("%")) / 100
        # Per coordinate, so that a point moves by this share of the radius in root mean square.
        sigma = share * radius(truth) / np.sqrt(truth.shape[-1])
        return truth + sigma[:, None, None] * rng.normal(size=truth.shape)
    moved = rng.uniform(size=truth.shape[:2]) < 0.1
    low, high = truth.min(axis=1, keepdims=True), truth.max(axis=1, keepdims=True)
    return np.where(moved[..., None], rng.uniform(low, high, truth.shape), truth)


def treatments(model: asmkit.ShapeModel, given: Array, truth: Array) -> dict[str, Array]:
    sigma = np.sqrt(np.mean((given - truth) ** 2, axis=(1, 2)))
    # As a share of the centroid size, which is the radius times √p.
    relative = float(np.mean(sigma / asmkit.centroid_size(truth)))
    priors = {
        "none": asmkit.Unbounded(),
        "box 3": asmkit.Box(3.0),
        "ellipsoid 99%": asmkit.Ellipsoid(0.99),
        "gaussian": asmkit.Gaussian(relative),
    }
    found = {f"smooth, {name}": model.smooth(given, prior=p) for name, p in priors.items()}
    found |= {f"constrain, {name}": model.constrain(given, p) for name, p in priors.items()}
    noise = np.tile(sigma[:, None], given.shape[1])
    found["complete"] = model.complete(given, noise)
    slight = np.tile(0.01 * radius(truth)[:, None], given.shape[1])
    found["complete, robust"] = model.complete(given, slight, robust=True)
    return {name: np.asarray(shapes, dtype=np.float64) for name, shapes in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, help="JSON lines of the table")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    lines = []
    for name, splits in data_sets(arguments.data):
        models = [asmkit.ShapeModel(0.98).fit(train) for train, _ in splits]
        for kind in ("noise 2%", "noise 5%", "noise 10%", "outliers"):
            rng = np.random.default_rng(arguments.seed)
            errors: dict[str, list[Array]] = {}
            for model, (_, truth) in zip(models, splits, strict=True):
                given = disturbed(truth, kind, rng)
                for way, found in {"given": given, **treatments(model, given, truth)}.items():
                    distance = np.linalg.norm(found - truth, axis=-1).mean(axis=1)
                    errors.setdefault(way, []).append(100 * distance / radius(truth))
            means = {way: float(np.concatenate(e).mean()) for way, e in errors.items()}
            lines.append({"data": name, "disturbance": kind, "error": means})
            shown = ", ".join(f"{way} {value:.2f}" for way, value in means.items())
            print(f"{name}, {kind}: {shown}", flush=True)
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


if __name__ == "__main__":
    main()
