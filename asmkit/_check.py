"""Leaf: argument checks and their messages (what came, what was expected, what to do)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "as_batch", "as_points", "as_shapes"]

#: A float array: float64, or float32 where the caller gave float32.
Floats = npt.NDArray[np.floating[Any]]


def _as_float(values: npt.ArrayLike, name: str) -> Floats:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"{name}: the entries have different lengths ({error}); "
            "every shape needs the same number of points"
        ) from error
    if array.dtype in (np.float32, np.float64):
        return array
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: got dtype {array.dtype}, expected real numbers")
    return array.astype(np.float64)


def _check_points_axes(array: Floats, name: str, n_points: int | None, n_dims: int | None) -> None:
    if array.shape[-1] not in (2, 3):
        raise ValueError(
            f"{name}: got shape {array.shape}, whose last axis is {array.shape[-1]}; "
            "expected 2 (x, y) or 3 (x, y, z) coordinates"
        )
    if n_dims is not None and array.shape[-1] != n_dims:
        raise ValueError(f"{name}: got {array.shape[-1]}-D points, expected {n_dims}-D")
    if n_points is not None and array.shape[-2] != n_points:
        raise ValueError(f"{name}: got {array.shape[-2]} points a shape, expected {n_points}")
    if array.shape[-2] == 0:
        raise ValueError(f"{name}: got shapes without any point (shape {array.shape})")


def _check_values(array: Floats, name: str, allow_nan: bool) -> None:
    if np.isinf(array).any():
        raise ValueError(f"{name}: holds infinite values; expected finite coordinates")
    if not allow_nan and np.isnan(array).any():
        rows = np.unique(np.nonzero(np.isnan(array.reshape(-1, *array.shape[-2:])))[0])
        raise ValueError(
            f"{name}: {rows.size} shape(s) hold NaN (missing points), the first is number "
            f"{rows[0]}; expected complete shapes: drop or fill them first"
        )


def as_points(
    values: npt.ArrayLike,
    name: str = "points",
    *,
    n_points: int | None = None,
    n_dims: int | None = None,
    allow_nan: bool = False,
) -> Floats:
    """One shape ``(p, d)``; float32 stays float32, all else becomes float64."""
    array = _as_float(values, name)
    if array.ndim != 2:
        raise ValueError(f"{name}: got shape {array.shape}, expected (n_points, n_dims)")
    _check_points_axes(array, name, n_points, n_dims)
    _check_values(array, name, allow_nan)
    return array


def as_shapes(
    values: npt.ArrayLike,
    name: str = "shapes",
    *,
    n_points: int | None = None,
    n_dims: int | None = None,
    min_shapes: int = 0,
    allow_nan: bool = False,
) -> Floats:
    """A stack of shapes ``(n, p, d)``; float32 stays float32, all else becomes float64."""
    array = _as_float(values, name)
    if array.ndim != 3:
        hint = " (for one shape, add a leading axis: shapes[None])" if array.ndim == 2 else ""
        raise ValueError(
            f"{name}: got shape {array.shape}, expected (n_shapes, n_points, n_dims){hint}"
        )
    if len(array) < min_shapes:
        raise ValueError(f"{name}: got {len(array)} shape(s), expected at least {min_shapes}")
    _check_points_axes(array, name, n_points, n_dims)
    _check_values(array, name, allow_nan)
    return array


def as_batch(
    values: npt.ArrayLike,
    name: str = "shapes",
    *,
    n_points: int | None = None,
    n_dims: int | None = None,
    allow_nan: bool = False,
    check_values: bool = True,
) -> tuple[Floats, tuple[int, ...]]:
    """Any leading axes: ``(..., p, d)`` becomes ``(n, p, d)`` and the leading shape.

    ``check_values=False`` leaves NaN and infinity to a caller that meets every value anyway.
    """
    array = _as_float(values, name)
    if array.ndim < 2:
        raise ValueError(f"{name}: got shape {array.shape}, expected (..., n_points, n_dims)")
    _check_points_axes(array, name, n_points, n_dims)
    if check_values:
        _check_values(array, name, allow_nan)
    return array.reshape(-1, *array.shape[-2:]), array.shape[:-2]
