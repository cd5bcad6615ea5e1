"""The file of a shape model: one versioned ``.npz`` without pickle.

Version 1 had no reference (it was the mean) and no statistics.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asmkit._npz import read_npz, write_npz
from asmkit.errors import FormatError
from asmkit.frames import frame_of
from asmkit.mode_rules import RULES
from asmkit.modes import check_request
from asmkit.statistics import ShapeStatistics
from asmkit.symmetry import mirror_argument, permutation

if TYPE_CHECKING:
    from asmkit.model import ShapeModel

__all__ = ["read_model", "write_model"]

_KIND, _VERSION = "asmkit shape model", 2
_ARRAYS = (
    "align",
    "components",
    "explained_variance",
    "mean",
    "mirror",
    "n_components",
    "n_samples",
    "scheme",
    "total_variance",
)
_LATER = ("reference", "robust", "scatter", "statistics_mean", "statistics_samples")


def write_model(model: ShapeModel, path: str | os.PathLike[str]) -> None:
    """Write a fitted model, whole or not at all."""
    arrays: dict[str, npt.ArrayLike] = {
        "align": model.align,
        "components": model.components_,
        "explained_variance": model.explained_variance_,
        "mean": model.mean_,
        "mirror": np.zeros(0, np.int64) if model.mirror_ is None else model.mirror_,
        "n_components": model.n_components,
        "n_samples": model.n_samples_,
        "reference": model.reference_,
        "robust": bool(model.robust),
        "scheme": model.scheme_ or "",
        "total_variance": model.total_variance_,
    }
    if model.statistics_ is not None:
        arrays["scatter"] = model.statistics_.scatter
        arrays["statistics_mean"] = model.statistics_.mean
        arrays["statistics_samples"] = float(model.statistics_.n_samples)
    write_npz(path, _KIND, _VERSION, arrays)


def read_model(model: ShapeModel, path: str | os.PathLike[str]) -> None:
    """Fill a model with what a file holds.

    Raises
    ------
    FormatError
        When the file is not a shape model, is damaged, or was written by a newer asmkit.
    OSError
        When it cannot be opened.
    """
    arrays = read_npz(path, _KIND, _VERSION, _ARRAYS, _LATER)
    try:
        _fill(model, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: the parts of this shape model disagree: {error}") from error


def _fill(model: ShapeModel, arrays: dict[str, npt.NDArray[Any]]) -> None:
    mean, variances = arrays["mean"], arrays["explained_variance"]
    reference = arrays.get("reference", mean)
    _check(mean, arrays["components"], variances, arrays["total_variance"], reference)
    mirror = arrays["mirror"]
    pairs = permutation(mirror, len(mean)) if mirror.size else None
    name = str(arrays["scheme"]) or None
    model.n_components = arrays["n_components"].item()
    check_request(model.n_components, RULES)
    model.align = str(arrays["align"])
    frame_of(model.align)
    model.robust = bool(arrays.get("robust", False))
    model.mirror = mirror_argument(pairs, name)
    model.mirror_, model.scheme_ = pairs, name
    model.n_samples_ = int(arrays["n_samples"])
    model.statistics_ = _statistics(arrays, reference)
    if np.array_equal(reference, mean):
        reference = mean
    model._set_modes(
        reference, mean, arrays["components"], variances, float(arrays["total_variance"])
    )


def _statistics(
    arrays: dict[str, npt.NDArray[Any]], reference: npt.NDArray[Any]
) -> ShapeStatistics | None:
    if "scatter" not in arrays:
        return None
    return ShapeStatistics.from_arrays(
        reference,
        arrays["statistics_samples"],
        arrays["statistics_mean"],
        arrays["scatter"],
    )


def _check(
    mean: npt.NDArray[Any],
    components: npt.NDArray[Any],
    variances: npt.NDArray[Any],
    total: npt.NDArray[Any],
    reference: npt.NDArray[Any],
) -> None:
    """Refuse arrays that no fit could have made."""
    arrays = (mean, components, variances, total, reference)
    if any(array.dtype != np.float64 or not np.isfinite(array).all() for array in arrays):
        raise ValueError("expected finite float64 numbers")
    if mean.ndim != 2 or mean.shape[1] not in (2, 3) or len(mean) < 3:
        raise ValueError(f"a mean of shape {mean.shape}")
    if reference.shape != mean.shape:
        raise ValueError(f"a reference of shape {reference.shape}, a mean of {mean.shape}")
    k = len(np.atleast_1d(variances))
    if k < 1 or variances.shape != (k,) or components.shape != (k, mean.size) or total.shape != ():
        raise ValueError(f"{components.shape} components, {variances.shape} variances")
    if not np.all(variances > 0) or variances.sum() > total * (1 + 1e-9):
        raise ValueError("variances must be positive and not exceed their total")
