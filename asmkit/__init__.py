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
        Affine,
        ProcrustesResult,
        Similarity,
        SlidingResult,
        affine,
        bending_energy,
        centroid_size,
        generalized_procrustes,
        procrustes_distance,
        rigid,
        similarity,
        slide_and_align,
        slide_semilandmarks,
    )
    from asmkit.annotations import Annotation, read, read_shapes, write, write_shards
    from asmkit.baseline import mean_in_boxes
    from asmkit.box_calibration import BoxCalibration, calibrate_box
    from asmkit.confidence import calibration_error, complete_covered, doubt_outliers
    from asmkit.credible import CredibleRegions
    from asmkit.detection import detect_faces
    from asmkit.error_table import write_errors
    from asmkit.errors import FormatError, MissingExtraError
    from asmkit.evaluation import Evaluation, evaluate
    from asmkit.focal import FocalEstimate, estimate_focal
    from asmkit.images import read_image
    from asmkit.metrics import auc, ced, failure_rate, nme, pose_mae
    from asmkit.model import ShapeModel
    from asmkit.one_euro import OneEuro
    from asmkit.packed_image import PackedImage
    from asmkit.pose import Camera, Pose, face_reference, solve_pnp
    from asmkit.predictor import Prediction, Predictor, load
    from asmkit.priors import Box, Ellipsoid, Gaussian, PriorReport, Unbounded
    from asmkit.quality import QualityCurve, compactness, generalization, specificity
    from asmkit.reference_fit import fit_reference
    from asmkit.schemes import Scheme, scheme
    from asmkit.shipped import shipped_networks
    from asmkit.statistics import ShapeStatistics
    from asmkit.targets import SmoothedTargets, TargetReport, smooth_targets
    from asmkit.threads import get_num_threads, set_num_threads
    from asmkit.track_files import read_tracks, write_tracks
    from asmkit.tracking import TrackedFace, TrackedFrame, track
    from asmkit.video import open_frames, write_video
    from asmkit.warp import warp_to_shape
    from asmkit.worst_cases import draw_worst_cases

_MODULE_OF = {
    "Affine": "alignment",
    "Annotation": "annotations",
    "Box": "priors",
    "BoxCalibration": "box_calibration",
    "Camera": "pose",
    "CredibleRegions": "credible",
    "Ellipsoid": "priors",
    "Evaluation": "evaluation",
    "FocalEstimate": "focal",
    "FormatError": "errors",
    "Gaussian": "priors",
    "MissingExtraError": "errors",
    "OneEuro": "one_euro",
    "PackedImage": "packed_image",
    "Pose": "pose",
    "Prediction": "predictor",
    "Predictor": "predictor",
    "PriorReport": "priors",
    "ProcrustesResult": "alignment",
    "QualityCurve": "quality",
    "Scheme": "schemes",
    "ShapeModel": "model",
    "ShapeStatistics": "statistics",
    "Similarity": "alignment",
    "SlidingResult": "alignment",
    "SmoothedTargets": "targets",
    "TargetReport": "targets",
    "TrackedFace": "tracking",
    "TrackedFrame": "tracking",
    "Unbounded": "priors",
    "affine": "alignment",
    "auc": "metrics",
    "bending_energy": "alignment",
    "calibrate_box": "box_calibration",
    "calibration_error": "confidence",
    "ced": "metrics",
    "centroid_size": "alignment",
    "compactness": "quality",
    "complete_covered": "confidence",
    "detect_faces": "detection",
    "doubt_outliers": "confidence",
    "draw_worst_cases": "worst_cases",
    "estimate_focal": "focal",
    "evaluate": "evaluation",
    "face_reference": "pose",
    "failure_rate": "metrics",
    "fit_reference": "reference_fit",
    "generalization": "quality",
    "generalized_procrustes": "alignment",
    "get_num_threads": "threads",
    "load": "predictor",
    "mean_in_boxes": "baseline",
    "nme": "metrics",
    "open_frames": "video",
    "pose_mae": "metrics",
    "procrustes_distance": "alignment",
    "read": "annotations",
    "read_image": "images",
    "read_shapes": "annotations",
    "read_tracks": "track_files",
    "rigid": "alignment",
    "scheme": "schemes",
    "set_num_threads": "threads",
    "shipped_networks": "shipped",
    "similarity": "alignment",
    "slide_and_align": "alignment",
    "slide_semilandmarks": "alignment",
    "smooth_targets": "targets",
    "solve_pnp": "pose",
    "specificity": "quality",
    "track": "tracking",
    "warp_to_shape": "warp",
    "write": "annotations",
    "write_errors": "error_table",
    "write_shards": "annotations",
    "write_tracks": "track_files",
    "write_video": "video",
}
_SUBMODULES = ("datasets", "nn", "plotting")

__all__ = [
    "Affine",
    "Annotation",
    "Box",
    "BoxCalibration",
    "Camera",
    "CredibleRegions",
    "Ellipsoid",
    "Evaluation",
    "FocalEstimate",
    "FormatError",
    "Gaussian",
    "MissingExtraError",
    "OneEuro",
    "PackedImage",
    "Pose",
    "Prediction",
    "Predictor",
    "PriorReport",
    "ProcrustesResult",
    "QualityCurve",
    "Scheme",
    "ShapeModel",
    "ShapeStatistics",
    "Similarity",
    "SlidingResult",
    "SmoothedTargets",
    "TargetReport",
    "TrackedFace",
    "TrackedFrame",
    "Unbounded",
    "__version__",
    "affine",
    "auc",
    "bending_energy",
    "calibrate_box",
    "calibration_error",
    "ced",
    "centroid_size",
    "compactness",
    "complete_covered",
    "datasets",
    "detect_faces",
    "doubt_outliers",
    "draw_worst_cases",
    "estimate_focal",
    "evaluate",
    "face_reference",
    "failure_rate",
    "fit_reference",
    "generalization",
    "generalized_procrustes",
    "get_num_threads",
    "load",
    "mean_in_boxes",
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
    "rigid",
    "scheme",
    "set_num_threads",
    "shipped_networks",
    "similarity",
    "slide_and_align",
    "slide_semilandmarks",
    "smooth_targets",
    "solve_pnp",
    "specificity",
    "track",
    "warp_to_shape",
    "write",
    "write_errors",
    "write_shards",
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
