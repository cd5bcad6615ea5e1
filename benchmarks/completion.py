"""Hidden landmarks of real faces: how well they are completed, and how honest the regions are.

    python benchmarks/completion.py ../shared/data/300w [--out FILE]

Every method aligns by the visible points alone. Rivals: the mean shape in the pose of the visible
points; a thin-plate spline from the mean's visible points to the given ones; scikit-learn's
IterativeImputer (ridge) on aligned training shapes, half of which have the same kind of
points hidden. The number of modes and the noise (the annotators', as a share of the inter-ocular
distance) are those whose regions of 90 and 95 % are worst off by least on the hashed validation
tenth of the training set; then the model is fitted on all of it and `test_common` is looked at
once. Calibrated regions: the model is fitted on the other nine tenths, and that tenth calibrates.
Errors are means over hidden points, in percent of the inter-ocular distance.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.interpolate import RBFInterpolator
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # sklearn asks for it
from sklearn.impute import IterativeImputer
from sklearn.linear_model import Ridge

import asmkit
from asmkit.splits import validation_part

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

REGIONS = {"jaw": range(17), "one eye": range(36, 42), "mouth": range(48, 68)}
LEVELS = (0.5, 0.8, 0.9, 0.95)


def hidings(n: int, seed: int) -> Iterator[tuple[str, Bools]]:
    """Names and masks (n, 68) of what is hidden."""
    rng = np.random.default_rng(seed)
    for share in (0.2, 0.4, 0.6):
        order = rng.uniform(size=(n, 68)).argsort(axis=1)
        yield f"{share:.0%} at random", order < round(share * 68)
    for name, points in REGIONS.items():
        mask = np.zeros((n, 68), dtype=bool)
        mask[:, list(points)] = True
        yield name, mask


def inter_ocular(shapes: Array) -> Array:
    return np.linalg.norm(shapes[:, 36] - shapes[:, 45], axis=1)


def noise_of(shapes: Array, share: float) -> Array:
    """The same standard deviation for all points of a shape (n, 68)."""
    return np.tile(share * inter_ocular(shapes)[:, None], 68)


def error(found: Array, truth: Array, hidden: Bools) -> float:
    distance = np.linalg.norm(found - truth, axis=-1) / inter_ocular(truth)[:, None]
    return 100 * float(distance[hidden].mean())


def choose(shapes: Array, held: Bools, seed: int) -> tuple[int, float]:
    """Modes and noise whose regions are worst off by least on the held-out part."""
    best = (np.inf, 0, 0.0)
    truth = shapes[held]
    for modes in (31, 45, 60, 80):
        model = asmkit.ShapeModel(modes, mirror="ibug68").fit(shapes[~held])
        for share in (0.0, 0.0025, 0.005, 0.0075, 0.01, 0.015):
            errors, off = [], []
            for _, hidden in hidings(len(truth), seed):
                given = np.where(hidden[..., None], np.nan, truth)
                regions = model.credible_regions(given, noise_of(truth, share))
                errors.append(error(regions.mean, truth, hidden))
                off += [
                    abs(held_at(regions, level, truth, hidden) - level) for level in (0.9, 0.95)
                ]
            print(
                f"  validation: {modes} modes, noise {share:.2%}: error {np.mean(errors):.3f} %, "
                f"regions off by at most {100 * max(off):.1f} points",
                flush=True,
            )
            best = min(best, (max(off), modes, share))
    return best[1], best[2]


def held_at(regions: asmkit.CredibleRegions, level: float, truth: Array, hidden: Bools) -> float:
    """Share of the hidden points that lie in their regions of a level."""
    return float(regions.at(level).contains(truth)[hidden].mean())


def rivals(train: Array, lost: Bools) -> dict[str, Callable[[Array, Bools], Array]]:
    """Fill functions; the imputer learns from shapes of which some have `lost` (m, 68) hidden."""
    mean = asmkit.generalized_procrustes(train).mean

    def poses(given: Array, hidden: Bools) -> asmkit.Similarity:
        filled = np.where(hidden[..., None], 0.0, given)
        return asmkit.similarity(mean, filled, weights=(~hidden).astype(float))

    partly = train.copy()
    partly[: len(lost)][lost] = np.nan
    everyone = np.isnan(partly[..., 0])
    aligned = poses(partly, everyone).inverse().apply(partly).reshape(len(train), -1)
    # Standardized, and with a plain ridge: the default, a Bayesian ridge, gave the mean or worse.
    middle, scale = np.nanmean(aligned, axis=0), np.nanstd(aligned, axis=0)
    imputer = IterativeImputer(Ridge(1.0), random_state=0).fit((aligned - middle) / scale)

    def mean_shape(given: Array, hidden: Bools) -> Array:
        return np.asarray(poses(given, hidden).apply(np.tile(mean, (len(given), 1, 1))))

    def thin_plate(given: Array, hidden: Bools) -> Array:
        result = given.copy()
        for shape, lost in zip(result, hidden, strict=True):
            warp = RBFInterpolator(mean[~lost], shape[~lost], kernel="thin_plate_spline")
            shape[lost] = warp(mean[lost])
        return result

    def iterative(given: Array, hidden: Bools) -> Array:
        pose = poses(given, hidden)
        aligned = pose.inverse().apply(given).reshape(len(given), -1)
        found = imputer.transform((aligned - middle) / scale) * scale + middle
        whole = found.reshape(given.shape)
        return np.asarray(pose.apply(whole))

    return {
        "mean shape": mean_shape,
        "thin-plate spline": thin_plate,
        "IterativeImputer": iterative,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with train and test_common")
    parser.add_argument("--out", type=Path, help="JSON lines of the table")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # of the imputer's rounds
    annotations = asmkit.read(arguments.data / "train")
    train = np.stack([a.points for a in annotations])
    held = validation_part([a.image.stem if a.image else "" for a in annotations])
    test = np.stack([a.points for a in asmkit.read(arguments.data / "test_common")])
    modes, share = choose(train, held, arguments.seed)
    print(f"chosen: {modes} modes, noise {share:.1%} of the inter-ocular distance")
    model = asmkit.ShapeModel(modes, mirror="ibug68").fit(train)
    lesser = asmkit.ShapeModel(modes, mirror="ibug68").fit(train[~held])
    rows = []
    for name, hidden in hidings(len(test), arguments.seed + 1):
        given = np.where(hidden[..., None], np.nan, test)
        regions = model.credible_regions(given, noise_of(test, share))
        row: dict[str, object] = {"hidden": name, "complete": error(regions.mean, test, hidden)}
        lost = np.resize(hidden, (len(train) // 2, 68))
        for rival, fill in rivals(train, lost).items():
            row[rival] = error(fill(given, hidden), test, hidden)
        for level in LEVELS:
            row[f"held at {level:.0%}"] = 100 * held_at(regions, level, test, hidden)
        regions = lesser.credible_regions(given, noise_of(test, share), calibration=train[held])
        for level in LEVELS:
            row[f"calibrated, {level:.0%}"] = 100 * held_at(regions, level, test, hidden)
        rows.append(row)
        print({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    header = {"modes": modes, "noise": share, "train": len(train), "test": len(test)}
    if arguments.out:
        lines = [header | {"seed": arguments.seed}, *rows]
        arguments.out.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    print(json.dumps(header))


if __name__ == "__main__":
    main()
