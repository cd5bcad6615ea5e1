"""What an annotation is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asmkit._check import as_points
from asmkit.boxes import as_boxes
from asmkit.errors import FormatError
from asmkit.packed_image import ImageSource, PackedImage
from asmkit.schemes import SCHEMES

__all__ = ["Annotation", "annotation_read"]


@dataclass(frozen=True, eq=False)
class Annotation:
    """The landmarks of one instance in one image.

    Attributes
    ----------
    points : ndarray (n_points, n_dims) float64
        0-based pixel centres, x right, y down; NaN = missing. Points may lie outside the image.
    image : Path, PackedImage or None
        The image file, or its place in a tar file, where one was found.
    image_size : (int, int) or None
        Width and height in pixels, where known without decoding the image
        (:func:`asmkit.images.image_size` finds it).
    box : ndarray (4,) float64 or None
        ``[x, y, width, height]`` as annotated; :func:`asmkit.boxes.landmark_box` gives the box of
        the points.
    visibility : ndarray (n_points,) bool or None
        Which landmarks can be seen, where known.
    scheme : str or None
        Name of the landmark scheme (see :mod:`asmkit.schemes`).
    name : str
        Stable identifier: the file's stem, or ``stem:line`` where a file holds several.
    attributes : mapping
        What else the file says of the instance.
    labels : tuple of str or None
        What the file calls each landmark, where it does.

    Raises
    ------
    ValueError
        When the parts contradict each other.
    """

    points: npt.NDArray[np.float64] = field(repr=False)
    image: ImageSource | None = None
    image_size: tuple[int, int] | None = None
    box: npt.NDArray[np.float64] | None = None
    visibility: npt.NDArray[np.bool_] | None = field(default=None, repr=False)
    scheme: str | None = None
    name: str = ""
    attributes: Mapping[str, object] = field(default_factory=dict)
    labels: tuple[str, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        points = as_points(self.points, "points", allow_nan=True).astype(np.float64)
        object.__setattr__(self, "points", points)  # frozen: the checked arrays replace the given
        if self.image is not None and not isinstance(self.image, PackedImage):
            object.__setattr__(self, "image", Path(self.image))
        if self.box is not None:
            object.__setattr__(self, "box", self._checked_box(self.box))
        if self.visibility is not None:
            object.__setattr__(self, "visibility", self._checked_visibility(self.visibility))
        if self.labels is not None:
            object.__setattr__(self, "labels", self._checked_labels(self.labels))
        # A scheme of the user's own has a name that asmkit does not know.
        known = SCHEMES.get(self.scheme or "")
        if known and known.n_points != len(points):
            raise ValueError(
                f"annotation {self.name!r}: {len(points)} points, but the scheme {known.name} "
                f"has {known.n_points}"
            )

    def _checked_box(self, given: npt.ArrayLike) -> npt.NDArray[np.float64]:
        boxes = as_boxes(given, f"box of annotation {self.name!r}")
        if boxes.shape != (1, 4):
            raise ValueError(f"annotation {self.name!r}: got {len(boxes)} boxes, expected one")
        return boxes.reshape(4)

    def _checked_visibility(self, given: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        visibility = np.asarray(given, dtype=np.bool_)
        if visibility.shape != self.points.shape[:1]:
            raise ValueError(
                f"annotation {self.name!r}: visibility has shape {visibility.shape}, "
                f"expected ({len(self.points)},)"
            )
        return visibility

    def _checked_labels(self, given: tuple[str, ...]) -> tuple[str, ...]:
        labels = tuple(given)
        if len(labels) != len(self.points):
            raise ValueError(
                f"annotation {self.name!r}: {len(labels)} labels for {len(self.points)} points"
            )
        return labels


def annotation_read(where: str, points: npt.NDArray[np.float64], **parts: Any) -> Annotation:
    """An annotation from a file; what contradicts itself there is the file's fault.

    Raises
    ------
    FormatError
        Where :class:`Annotation` raises ValueError.
    """
    try:
        return Annotation(points, **parts)
    except ValueError as error:
        raise FormatError(f"{where}: {error}") from error
