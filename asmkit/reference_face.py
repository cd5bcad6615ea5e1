"""The 3-D reference faces that come with the package."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["face_reference", "face_reference_info", "reference_schemes"]

Array = npt.NDArray[np.float64]

_REFERENCES = Path(__file__).parent / "references"


def face_reference(scheme: str = "ibug68") -> Array:
    """3-D face ``(p, 3)`` in a landmark scheme, to give to :func:`asmkit.solve_pnp`.

    Centred (zero mean), exactly mirror-symmetric in x, x right, y down, z away from the camera
    (the nose is negative); the distance of the outer eye corners is 1. With
    :meth:`asmkit.Camera.orthographic` its angles follow the AFLW2000-3D labels.

    It is an *estimate of a mean face shape*, computed from the published landmarks and angles of
    AFLW2000-3D (the even-numbered rows of a table of 1000 of its faces), and no scan of anybody:
    its z is as good as those labels, which are themselves the fit of a face model. AFLW2000-3D is
    distributed by its authors for research: see :func:`face_reference_info` for the full record.

    Raises
    ------
    ValueError
        No reference is known for this scheme.
    """
    return np.array(_reference_record(scheme)["points"], dtype=np.float64)


def face_reference_info(scheme: str = "ibug68") -> dict[str, Any]:
    """Record of :func:`face_reference`: source, licence, method, rows, accuracy, units."""
    record = copy.deepcopy(_reference_record(scheme))
    del record["points"]
    return record


def reference_schemes() -> list[str]:
    """Names of the landmark schemes that :func:`face_reference` knows."""
    return list(_reference_names())


@functools.cache
def _reference_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in _REFERENCES.glob("*.json")))


@functools.cache
def _reference_record(scheme: str) -> dict[str, Any]:
    known = reference_schemes()
    if scheme not in known:
        raise ValueError(f"scheme: no reference face for {scheme!r}, expected one of {known}")
    text = (_REFERENCES / f"{scheme}.json").read_text(encoding="utf-8")
    record: dict[str, Any] = json.loads(text)
    return record
