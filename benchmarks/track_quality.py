"""What tracking keeps, loses and finds again, on rendered videos whose truth is known.

    python benchmarks/track_quality.py [NETWORK] [--model shape.npz] [--frames 240] [--seeds 0 1]

For each scenario of ``synthetic_video``, with and without the One-Euro filter and the constraint of
the shape model:

- tracked: share of the frames of present faces in which a track is on the face (IoU of the boxes
  at least 0.5), and the same for the detector alone, in every frame;
- false: tracks on no present face, per 100 frames;
- switches: a face goes on under another identity;
- noticed, recovered: median frames from a face's disappearance until no track is where it was, and
  from its return until a track is on it;
- NME: mean distance over the inter-ocular distance of the truth, in per cent, of tracked faces;
- jitter: the second difference in time of the error (found minus true landmarks), root mean square,
  in per cent of the inter-ocular distance: motion itself is no jitter, lag counts in NME;
- detections: runs of the detector per 100 frames.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import asmkit
from asmkit.boxes import iou, landmark_box
from asmkit.datasets import SyntheticVideo, synthetic_video
from asmkit.shipped import network_folder

Doubles = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]
NETWORK = "asmnet-ibug68"
#: Scenario → number of faces.
SCENARIOS = {"wander": 1, "cover": 1, "cross": 2, "leave": 2}
EYES = (36, 45)


def detect(image: Image) -> Doubles:
    return asmkit.detect_faces(
        image, scale_factor=1.1, min_neighbors=3, min_size=60, thorough=False
    )


def assign(video: SyntheticVideo, index: int, frame: asmkit.TrackedFrame) -> dict[int, int]:
    """Present face → position of the track on it in ``frame.faces``."""
    pairs = {}
    for face in np.flatnonzero(video.presence[index]):
        overlaps = [
            float(iou(seen.box, landmark_box(video.points[index, face]))) for seen in frame.faces
        ]
        if overlaps and max(overlaps) >= 0.5:
            pairs[int(face)] = int(np.argmax(overlaps))
    return pairs


def changes(presence: npt.NDArray[np.bool_], to: bool) -> list[int]:
    """Frames in which a face becomes present, or absent."""
    return [t for t in range(1, len(presence)) if presence[t] == to and presence[t - 1] != to]


def until(events: Sequence[int], reached: Sequence[bool]) -> list[int]:
    """Frames from each event until something is so; those in which it never is do not count."""
    waits = [next((n for n, done in enumerate(reached[t:]) if done), None) for t in events]
    return [wait for wait in waits if wait is not None]


def measure(video: SyntheticVideo, frames: Sequence[asmkit.TrackedFrame]) -> dict[str, Any]:
    n_frames, n_faces = video.presence.shape
    pairs = [assign(video, t, frame) for t, frame in enumerate(frames)]
    scale = np.linalg.norm(video.points[:, :, EYES[0]] - video.points[:, :, EYES[1]], axis=-1)
    # A profile has no width between the eyes: the largest of a face's own frames stands for it.
    scale = np.broadcast_to(np.nanmax(scale, axis=0), scale.shape)
    off = np.full((n_frames, n_faces, 68, 2), np.nan)
    identity = np.full((n_frames, n_faces), -1)
    false = 0
    for t, frame in enumerate(frames):
        false += len(frame.faces) - len(set(pairs[t].values()))
        for face, row in pairs[t].items():
            off[t, face] = frame.faces[row].points - video.points[t, face]
            identity[t, face] = frame.faces[row].identity
    off /= scale[..., None, None]
    noticed, recovered, switches = [], [], 0
    for face in range(n_faces):
        seen = identity[:, face][identity[:, face] >= 0]
        switches += int((np.diff(seen) != 0).sum())
        on = [face in pair for pair in pairs]
        recovered += until(changes(video.presence[:, face], True), on)
        noticed += until(changes(video.presence[:, face], False), gone(video, frames, face))
    return {
        "present": int(video.presence.sum()),
        "tracked": sum(map(len, pairs)),
        "frames": n_frames,
        "false": false,
        "switches": switches,
        "noticed": noticed,
        "recovered": recovered,
        "detections": sum(frame.detected for frame in frames),
        "errors": np.linalg.norm(off, axis=-1).mean(axis=-1)[identity >= 0].tolist(),
        "jerks": finite(np.linalg.norm(np.diff(off, 2, axis=0), axis=-1) ** 2).tolist(),
    }


def gone(video: SyntheticVideo, frames: Sequence[asmkit.TrackedFrame], face: int) -> list[bool]:
    """In which frames the identity that a face had when it was last present is not tracked."""
    last, result = None, []
    for t, frame in enumerate(frames):
        if video.presence[t, face]:
            row = assign(video, t, frame).get(face)
            last = None if row is None else frame.faces[row].identity
        result.append(last is None or all(seen.identity != last for seen in frame.faces))
    return result


def finite(values: Doubles) -> Doubles:
    per_face = values.mean(axis=-1)
    return np.asarray(per_face[np.isfinite(per_face)])


def detector_share(video: SyntheticVideo, images: Sequence[Image]) -> float:
    """Share of the present faces on which the detector alone puts a box."""
    hits = 0
    for t, image in enumerate(images):
        boxes = detect(image)
        for face in np.flatnonzero(video.presence[t]):
            hits += bool((iou(boxes, landmark_box(video.points[t, face])) >= 0.5).any())
    return hits / int(video.presence.sum())


def together(parts: Sequence[dict[str, Any]]) -> dict[str, float | int | None]:
    """One row of the table from the videos of all seeds."""

    def total(name: str) -> Any:
        return sum((part[name] for part in parts), [] if isinstance(parts[0][name], list) else 0)

    def middle(name: str) -> float | None:
        return float(np.median(total(name))) if total(name) else None

    n_frames = total("frames")
    errors, jerks = total("errors"), total("jerks")
    return {
        "tracked": 100 * total("tracked") / total("present"),
        "false": 100 * total("false") / n_frames,
        "switches": total("switches"),
        "noticed": middle("noticed"),
        "recovered": middle("recovered"),
        "nme": 100 * float(np.mean(errors)) if errors else None,
        "jitter": 100 * float(np.sqrt(np.mean(jerks))) if jerks else None,
        "detections": 100 * total("detections") / n_frames,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", nargs="?", default=NETWORK, help="name, or folder")
    parser.add_argument("--model", type=Path, help="default: shape_model.npz in the folder")
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--scenarios", nargs="+", choices=sorted(SCENARIOS), default=[*SCENARIOS])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()

    predictor = asmkit.load(arguments.network)
    beside = network_folder(arguments.network) / "shape_model.npz"
    path = arguments.model or (beside if beside.is_file() else None)
    model = asmkit.ShapeModel.load(path) if path else None
    ways: dict[str, dict[str, Any]] = {"plain": {}, "one-euro": {"smooth": asmkit.OneEuro()}}
    if model is not None:
        ways["constrained"] = {"constrain": True}
        ways["both"] = {"constrain": True, "smooth": asmkit.OneEuro()}
    results: dict[str, Any] = {}
    for scenario in arguments.scenarios:
        parts: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        alone = []
        for seed in arguments.seeds:
            video = synthetic_video(
                seed, n_frames=arguments.frames, n_faces=SCENARIOS[scenario], scenario=scenario
            )
            images = list(video)
            alone.append(detector_share(video, images))
            for way, options in ways.items():
                frames = asmkit.track(
                    images, predictor, detect=detect, model=model, fps=video.fps, **options
                )
                parts[way].append(measure(video, list(frames)))
        results[scenario] = {way: together(part) for way, part in parts.items()}
        results[scenario]["detector_alone"] = 100 * float(np.mean(alone))
        if not arguments.json:
            show(scenario, results[scenario])
    if arguments.json:
        print(json.dumps({"network": arguments.network, "scenarios": results}))


def show(scenario: str, rows: dict[str, Any]) -> None:
    print(f"\n{scenario} ({SCENARIOS[scenario]} face(s)); ", end="")
    print(f"the detector alone is on {rows['detector_alone']:.1f} % of the present faces")
    for number, (way, row) in enumerate((w, r) for w, r in rows.items() if w != "detector_alone"):
        if not number:
            print(f"  {'':12s}" + "".join(f"{name:>12s}" for name in row))
        cells = ["-" if value is None else f"{value:.2f}" for value in row.values()]
        print(f"  {way:12s}" + "".join(f"{cell:>12s}" for cell in cells))


if __name__ == "__main__":
    main()
