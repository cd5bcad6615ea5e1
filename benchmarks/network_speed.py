"""How fast the networks are, on one thread: eager torch, the default engine, and their peers.

    python benchmarks/network_speed.py [--rounds 15] [--networks FOLDER] [--parts forward batch]
        [--photos ../shared/data/300w/test_common] [--out FILE.json]
        [--dlib-model shape_predictor_68_face_landmarks.dat]

- ``forward``: one crop through ASMNet and MobileNetV2, both with the heads of the ASMNet paper and
  untrained (weights do not change the time), at 224 x 224 and 112 x 112, and through the shipped
  networks; by ``asmkit.load(..., engine="torch")`` and by the default engine.
- ``box``: the landmarks of one face of a photo, its box given, crop and way back included; beside
  dlib's in the same box, where ``--dlib-model`` names a file of dlib's. Photos of a size as in use.
- ``photo``: the faces of a photo found, and their landmarks; reading the file is not counted.
- ``batch``: faces a second in batches of 1, 8 and 64 crops.

Each round runs all variants in turn, so that a busy machine slows all alike; a variant runs once
before its calls are timed. Times are taken on the processor, of all threads of the process
together: who shares the machine disturbs that less than the clock. Times are medians over the
rounds, ratios medians of the rounds' ratios; the file of ``--out`` has both clocks. ``--networks``
keeps the untrained networks, whose export takes longer than all else, for the next run.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

import asmkit
from asmkit._files import replacing
from asmkit.boxes import landmark_box
from asmkit.nn import Recipe, build_network
from asmkit.nn.export import write_network
from asmkit.schemes import scheme

Doubles = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]
Row = dict[str, Any]
#: Does something with an image and the boxes of its faces ``(n, 4)``.
Work = Callable[[Image, Doubles], object]

PARTS = ("forward", "box", "photo", "batch")
SIZES = (224, 112)
BATCHES = (1, 8, 64)
CLOCKS = {"processor": time.process_time, "clock": time.perf_counter}
FIRST = "processor"
PACKAGES = ("numpy", "torch", "onnxruntime", "opencv-python", "dlib", "dlib-bin")


class Times(dict[str, Doubles]):
    """Seconds a call ``(n_rounds,)`` by each clock."""

    def milliseconds(self) -> dict[str, float]:
        """Medians over the rounds."""
        return {clock: 1e3 * float(np.median(seconds)) for clock, seconds in self.items()}

    def over(self, other: Times) -> dict[str, float]:
        """Medians of the rounds' ratios."""
        return {clock: float(np.median(self[clock] / other[clock])) for clock in self}


def measure(
    variants: dict[str, Callable[[], object]], n_rounds: int, n_calls: int
) -> dict[str, Times]:
    """Of each round the median of its calls."""
    found = {name: Times({c: np.empty(n_rounds) for c in CLOCKS}) for name in variants}
    for number in range(n_rounds):
        for name, work in variants.items():
            work()  # what ran before left other data in the caches
            calls = []
            for _ in range(n_calls):
                start = [now() for now in CLOCKS.values()]
                work()
                calls.append(
                    [now() - then for now, then in zip(CLOCKS.values(), start, strict=True)]
                )
            for clock, seconds in zip(CLOCKS, np.median(calls, axis=0), strict=True):
                found[name][clock][number] = seconds
    return found


# -- what is measured


def untrained(folder: Path) -> Iterator[str]:
    """Folders of ASMNet and MobileNetV2 as a training leaves them, made where they are missing."""
    for size in SIZES:
        for arch in ("asmnet", "mobilenetv2"):
            path = folder / f"{arch}-{size}"
            if not (path / "model.json").exists():
                path.mkdir(parents=True, exist_ok=True)
                recipe = Recipe(arch=arch, input_size=size)
                write_network(path, build_network(arch, 68), recipe, scheme("ibug68"), {})
            yield str(path)


def forward(names: list[str], n_rounds: int, *, batch: int = 1, n_calls: int = 5) -> list[Row]:
    """Crops through the networks alone, by both engines."""
    rng = np.random.default_rng(0)
    variants: dict[str, Callable[[], object]] = {}
    rows: list[Row] = []
    for name in names:
        eager = asmkit.load(name, engine="torch", threads=1)
        default = asmkit.load(name, threads=1)
        size = eager.description["input_size"]
        images = rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
        variants[f"{name} eager"] = partial(eager._run, images)
        variants[f"{name} default"] = partial(default._run, images)
        rows.append({"network": Path(name).name, "input": size, "engine": default.engine})
    found = measure(variants, n_rounds, n_calls)
    for name, row in zip(names, rows, strict=True):
        eager_times, times = found[f"{name} eager"], found[f"{name} default"]
        row |= {
            "batch": batch,
            "eager_ms": eager_times.milliseconds(),
            "default_ms": times.milliseconds(),
            "eager_over_default": eager_times.over(times),
        }
        rival = str(Path(name).with_name(f"mobilenetv2-{row['input']}"))
        if Path(name).name.startswith("asmnet") and rival in names:
            for engine in ("eager", "default"):
                ratio = found[f"{name} {engine}"].over(found[f"{rival} {engine}"])
                row[f"{engine}_over_mobilenetv2"] = ratio
    return rows


def photos_of(folder: Path, n_photos: int) -> list[tuple[Image, Doubles]]:
    """Photos evenly through a folder of annotated ones, each with the tight box of its face."""
    annotations = asmkit.read(folder, require_images=True)
    chosen = annotations[:: max(1, len(annotations) // n_photos)][:n_photos]
    return [(asmkit.read_image(a.image), landmark_box(a.points)[None]) for a in chosen if a.image]


def dlib_landmarks(model: Path) -> Work:
    """What dlib does with one image and one box."""
    import dlib

    find = dlib.shape_predictor(str(model))

    def run(image: Image, boxes: Doubles) -> object:
        x, y, width, height = boxes[0]
        return find(image, dlib.rectangle(round(x), round(y), round(x + width), round(y + height)))

    return run


def on_photos(ways: dict[str, Work], photos: list[Any], n_rounds: int) -> list[Row]:
    """Milliseconds a photo of each way."""

    def all_photos(work: Work) -> None:
        for photo in photos:
            work(*photo)

    variants = {name: partial(all_photos, work) for name, work in ways.items()}
    found = measure(variants, n_rounds, 1)
    rows = []
    for name, times in found.items():
        ms = {clock: value / len(photos) for clock, value in times.milliseconds().items()}
        rows.append({"way": name, "photos": len(photos), "ms": ms})
    return rows


# -- the tables, in Markdown


def show_forward(rows: list[Row]) -> None:
    print("\n| one crop, one thread | input | eager, ms | default, ms | eager / default | clock |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        ratio = row["eager_over_default"]
        print(
            f"| {row['network']} | {row['input']} | {row['eager_ms'][FIRST]:.2f} "
            f"| {row['default_ms'][FIRST]:.2f} | {ratio[FIRST]:.2f} | {ratio['clock']:.2f} |"
        )
    print("\n| ASMNet / MobileNetV2 | eager | clock | default | clock |\n|---|---|---|---|---|")
    for row in rows:
        if "default_over_mobilenetv2" in row:
            ratios = [row[f"{engine}_over_mobilenetv2"] for engine in ("eager", "default")]
            cells = [f"{ratio[clock]:.2f}" for ratio in ratios for clock in CLOCKS]
            print(f"| {row['input']} x {row['input']} | " + " | ".join(cells) + " |")


def show_photos(title: str, rows: list[Row]) -> None:
    print(f"\n| {title} | ms | a second | a second by the clock |\n|---|---|---|---|")
    for row in rows:
        ms = row["ms"]
        print(
            f"| {row['way']} | {ms[FIRST]:.2f} | {1e3 / ms[FIRST]:.1f} | {1e3 / ms['clock']:.1f} |"
        )


def show_batches(rows: list[Row]) -> None:
    print("\n| faces a second | batch | eager | default | eager / default | clock |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        speeds = [1e3 * row["batch"] / row[f"{name}_ms"][FIRST] for name in ("eager", "default")]
        ratio = row["eager_over_default"]
        print(
            f"| {row['network']} | {row['batch']} | {speeds[0]:.0f} | {speeds[1]:.0f} "
            f"| {ratio[FIRST]:.2f} | {ratio['clock']:.2f} |"
        )


def versions() -> dict[str, str]:
    there = {}
    for package in PACKAGES:
        try:
            there[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--networks", type=Path, help="folder that keeps the untrained networks")
    parser.add_argument("--photos", type=Path, help="folder of annotated photos")
    parser.add_argument("--n-photos", type=int, default=20)
    parser.add_argument("--dlib-model", type=Path, help="file of dlib's shape predictor")
    parser.add_argument("--out", type=Path, help="JSON to write")
    arguments = parser.parse_args()
    if {"box", "photo"} & set(arguments.parts) and arguments.photos is None:
        parser.error("the parts box and photo need --photos, or name the others with --parts")

    cv2.setNumThreads(1)
    asmkit.set_num_threads(1)
    n_rounds, shipped = arguments.rounds, asmkit.shipped_networks()
    results: dict[str, Any] = {"rounds": n_rounds, "versions": versions()}
    print(f"Medians of {n_rounds} rounds, {FIRST} time but for the columns of the clock.")
    if "forward" in arguments.parts:
        with tempfile.TemporaryDirectory() as folder:
            peers = list(untrained(arguments.networks or Path(folder)))
            results["forward"] = forward([*peers, *shipped], n_rounds)
        show_forward(results["forward"])
    if "box" in arguments.parts:
        photos = photos_of(arguments.photos, arguments.n_photos)
        ways = {name: asmkit.load(name, threads=1).predict for name in shipped}
        if arguments.dlib_model:
            ways["dlib"] = dlib_landmarks(arguments.dlib_model)
        results["box"] = on_photos(ways, photos, n_rounds)
        show_photos("landmarks in a known box", results["box"])
    if "photo" in arguments.parts:
        photos = photos_of(arguments.photos, arguments.n_photos)
        predictors = {name: asmkit.load(name, threads=1) for name in shipped}
        ways = {"Haar alone": lambda image, _: asmkit.detect_faces(image)}
        for name, predictor in predictors.items():
            ways[f"Haar, {name}"] = lambda image, _, run=predictor.predict: run(image)
        results["photo"] = on_photos(ways, photos, max(3, n_rounds // 5))
        results["megapixels"] = float(np.mean([np.prod(i.shape[:2]) for i, _ in photos])) / 1e6
        show_photos(f"photos of {results['megapixels']:.2f} megapixels", results["photo"])
    if "batch" in arguments.parts:
        results["batch"] = []
        for batch in BATCHES:
            results["batch"] += forward(shipped, n_rounds, batch=batch, n_calls=1)
        show_batches(results["batch"])
    if arguments.out:
        with replacing(arguments.out) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
