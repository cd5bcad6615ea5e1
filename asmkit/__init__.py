"""asmkit: statistical shape models of landmarks, and the compact networks that learn from them.

Conventions, the same everywhere: points are ``(x, y)`` or ``(x, y, z)``, x to the right, y down,
0-based pixel centres, NaN = missing; a set of shapes is ``(n_shapes, n_points, n_dims)``; boxes
are ``[x, y, width, height]``; pose is ``λ x = K (R X + t)``; angles are degrees at the border and
nowhere else.

Every public name is loaded when it is first used, so that ``import asmkit`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from asmkit import datasets, nn, plotting
    from asmkit.alignment import (
        ProcrustesResult,
        Similarity,
        centroid_size,
        generalized_procrustes,
        procrustes_distance,
        similarity,
    )
    from asmkit.annotations import Annotation, read, read_shapes, write
    from asmkit.detection import detect_faces
    from asmkit.errors import FormatError, MissingExtraError
    from asmkit.evaluation import Evaluation, evaluate
    from asmkit.images import read_image
    from asmkit.metrics import auc, ced, failure_rate, nme, pose_mae
    from asmkit.model import ShapeModel
    from asmkit.one_euro import OneEuro
    from asmkit.pose import Camera, Pose, face_reference, solve_pnp
    from asmkit.predictor import Prediction, Predictor, load
    from asmkit.priors import Box
    from asmkit.schemes import Scheme, scheme
    from asmkit.targets import SmoothedTargets, TargetReport, smooth_targets
    from asmkit.threads import get_num_threads, set_num_threads
    from asmkit.track_files import read_tracks, write_tracks
    from asmkit.tracking import TrackedFace, TrackedFrame, track
    from asmkit.video import open_frames, write_video

_MODULE_OF = {
    "Annotation": "annotations",
    "Box": "priors",
    "Camera": "pose",
    "Evaluation": "evaluation",
    "FormatError": "errors",
    "MissingExtraError": "errors",
    "OneEuro": "one_euro",
    "Pose": "pose",
    "Prediction": "predictor",
    "Predictor": "predictor",
    "ProcrustesResult": "alignment",
    "Scheme": "schemes",
    "ShapeModel": "model",
    "Similarity": "alignment",
    "SmoothedTargets": "targets",
    "TargetReport": "targets",
    "TrackedFace": "tracking",
    "TrackedFrame": "tracking",
    "auc": "metrics",
    "ced": "metrics",
    "centroid_size": "alignment",
    "detect_faces": "detection",
    "evaluate": "evaluation",
    "face_reference": "pose",
    "failure_rate": "metrics",
    "generalized_procrustes": "alignment",
    "get_num_threads": "threads",
    "load": "predictor",
    "nme": "metrics",
    "open_frames": "video",
    "pose_mae": "metrics",
    "procrustes_distance": "alignment",
    "read": "annotations",
    "read_image": "images",
    "read_shapes": "annotations",
    "read_tracks": "track_files",
    "scheme": "schemes",
    "set_num_threads": "threads",
    "similarity": "alignment",
    "smooth_targets": "targets",
    "solve_pnp": "pose",
    "track": "tracking",
    "write": "annotations",
    "write_tracks": "track_files",
    "write_video": "video",
}
_SUBMODULES = ("datasets", "nn", "plotting")

__all__ = [
    "Annotation",
    "Box",
    "Camera",
    "Evaluation",
    "FormatError",
    "MissingExtraError",
    "OneEuro",
    "Pose",
    "Prediction",
    "Predictor",
    "ProcrustesResult",
    "Scheme",
    "ShapeModel",
    "Similarity",
    "SmoothedTargets",
    "TargetReport",
    "TrackedFace",
    "TrackedFrame",
    "__version__",
    "auc",
    "ced",
    "centroid_size",
    "datasets",
    "detect_faces",
    "evaluate",
    "face_reference",
    "failure_rate",
    "generalized_procrustes",
    "get_num_threads",
    "load",
    "nme",
    "nn",
    "open_frames",
    "plotting",
    "pose_mae",
    "procrustes_distance",
    "read",
    "read_image",
    "read_shapes",
    "read_tracks",
    "scheme",
    "set_num_threads",
    "similarity",
    "smooth_targets",
    "solve_pnp",
    "track",
    "write",
    "write_tracks",
    "write_video",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = getattr(importlib.import_module(f"asmkit.{_MODULE_OF[name]}"), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(f"asmkit.{name}")
    else:
        raise AttributeError(f"module 'asmkit' has no attribute {name!r}")
    globals()[name] = value  # the next look-up is a plain attribute
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
