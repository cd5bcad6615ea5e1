"""Any detector's boxes turned into tight landmark boxes: one affine map, learned from annotations.

Detectors disagree about what a box of a face is: with the hair or without, square or not, higher or
lower. Landmark networks look into the tight box of the landmarks. In units of the detected box the
difference is nearly constant, so two shifts and two factors carry one into the other.

The map is found as medians, which up to half of the matches may contradict: of the shifts of the
centre in units of the detected box, and of the logarithms of the ratios of widths and heights.
Which box is whose is an assignment in each image; first by how much of the smaller of the two boxes
lies within the other, because their sizes may differ much, then by the overlap (IoU) of the mapped
boxes, repeated until the same pairs come again.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from asmkit._files import replacing
from asmkit.boxes import BELONGS, as_boxes, iou, landmark_box
from asmkit.errors import FormatError
from asmkit.images import as_image, read_image
from asmkit.matching import match
from asmkit.packed_image import ImageSource

if TYPE_CHECKING:
    from asmkit.annotations import Annotation

__all__ = ["BoxCalibration", "Detect", "calibrate_box"]

Doubles = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

#: What finds boxes: ``image (h, w, 3) RGB uint8 -> boxes (n, 4)``.
Detect = Callable[[Image], npt.ArrayLike]

_FORMAT = "asmkit box calibration 1"
#: Matches below which a median of four numbers is no measurement.
_FEWEST = 10
#: Part of the smaller box within the other from which the two may show one face.
_CONTAINED = 0.5
#: Rounds of matching; it settles in two or three.
_ROUNDS = 20
#: A normal distribution's standard deviation in units of its median absolute deviation.
_PER_DEVIATION = 1.4826


@dataclass(frozen=True)
class BoxCalibration:
    """The map from a detector's boxes to tight landmark boxes, and how well it fits.

    A box with the centre ``c`` and the size ``s`` (width and height) becomes the one with the
    centre ``c + shift * s`` and the size ``scale * s``. Made by :func:`calibrate_box`.

    Attributes
    ----------
    shift : (float, float)
        Of the centre, x and y, in units of the detected box's width and height.
    scale : (float, float)
        Factors of width and height.
    spread : (float, float, float, float)
        How far the mapped boxes scatter about the true ones: x and y of the centre in units of the
        mapped box, and the logarithms of the ratios of width and height. Each is 1.4826 times the
        median absolute deviation, which is the standard deviation of normal residuals.
    median_iou : float
        Overlap of the mapped boxes with the true ones.
    n_faces : int
        Faces in the data.
    n_found : int
        Faces that a mapped box of their own overlaps, by an IoU of 0.3 or more.
    n_extra : int
        Boxes that belong to no annotated face.

    Raises
    ------
    ValueError
        For numbers that cannot be such a map.
    """

    shift: tuple[float, float]
    scale: tuple[float, float]
    spread: tuple[float, float, float, float]
    median_iou: float
    n_faces: int
    n_found: int
    n_extra: int

    def __post_init__(self) -> None:
        for name, length in (("shift", 2), ("scale", 2), ("spread", 4)):
            values = _numbers(getattr(self, name), name, length)
            object.__setattr__(self, name, values)  # frozen: the checked values replace the given
        if not min(self.scale) > 0:
            raise ValueError(f"scale: got {self.scale}, expected positive factors")
        if not min(self.spread) >= 0:
            raise ValueError(f"spread: got {self.spread}, expected no negative number")
        if not 0 <= _numbers([self.median_iou], "median_iou", 1)[0] <= 1:
            raise ValueError(f"median_iou: got {self.median_iou}, expected 0 to 1")
        for name in ("n_faces", "n_found", "n_extra"):
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise ValueError(f"{name}: got {count!r}, expected a whole number, 0 or more")
        if not 0 < self.n_faces >= self.n_found:
            raise ValueError(
                f"n_found: got {self.n_found} of {self.n_faces} faces, expected at most all of "
                "them, and at least one face"
            )

    @property
    def recall(self) -> float:
        """Share of the faces in the data that were found."""
        return self.n_found / self.n_faces

    def apply(self, boxes: npt.ArrayLike) -> Doubles:
        """Tight landmark boxes of a detector's boxes.

        Parameters
        ----------
        boxes : array_like (n, 4)
            ``[x, y, width, height]`` as the detector gives them.

        Returns
        -------
        ndarray (n, 4)
        """
        return _mapped(as_boxes(boxes), self.shift, self.scale)

    def detector(self, detect: Detect) -> Callable[[npt.ArrayLike], Doubles]:
        """The detector with tight landmark boxes, as :func:`asmkit.track` and others take it.

        Parameters
        ----------
        detect : callable
            ``image -> boxes (n, 4)``, the one that was calibrated.

        Returns
        -------
        callable
            ``image -> boxes (n, 4)``.
        """
        if not callable(detect):
            raise TypeError(f"detect: got {type(detect).__name__}, expected a callable")

        def detect_tight(image: npt.ArrayLike) -> Doubles:
            return self.apply(detect(as_image(image)))

        return detect_tight

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file, whole or not at all."""
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=1) + "\n"
        with replacing(path) as temporary:
            temporary.write_text(text, "utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BoxCalibration:
        """Read what :meth:`save` wrote; every number is the same to the last digit.

        Raises
        ------
        FileNotFoundError
            When there is no such file.
        FormatError
            When it is damaged, or something else.
        """
        try:
            parts = json.loads(Path(path).read_bytes())
            if not isinstance(parts, dict) or parts.pop("format", None) != _FORMAT:
                raise ValueError(f'no "format": "{_FORMAT}" in it')
            return cls(**parts)
        except (ValueError, TypeError, RecursionError) as error:
            raise FormatError(
                f"{path}: not a box calibration as BoxCalibration.save writes it ({error})"
            ) from error


def calibrate_box(
    detector: Detect, dataset: Sequence[Annotation], *, progress: bool = False
) -> BoxCalibration:
    """Learn the map from a detector's boxes to tight landmark boxes.

    Annotations that name the same image are the faces of one image, which the detector sees once.

    Parameters
    ----------
    detector : callable
        ``image (h, w, 3) RGB uint8 -> boxes (n, 4)``, ``[x, y, width, height]`` in pixels.
    dataset : sequence of Annotation
        Each with its image, as :func:`asmkit.read` gives them; missing (NaN) landmarks are left out
        of a box. A few hundred faces are plenty; ten must be found.
    progress : bool
        Show a progress bar.

    Returns
    -------
    BoxCalibration
        Scaling or shifting all images together with their annotations changes nothing of it, as
        far as the detector follows.

    Raises
    ------
    ValueError
        For an empty set, an annotation without image or without extent, boxes of another form; when
        the detector found nothing, nothing on any face, or fewer than ten faces.
    """
    if not callable(detector):
        raise TypeError(
            f"detector: got {type(detector).__name__}, expected a callable image -> boxes (n, 4)"
        )
    faces = _faces_by_image(dataset)
    found = [
        as_boxes(detector(read_image(image)), f"boxes of the detector in {image}")
        for image in tqdm(faces, "calibrating", disable=not progress, leave=False)
    ]
    return _fitted(found, list(faces.values()))


def _faces_by_image(dataset: Sequence[Annotation]) -> dict[ImageSource, Doubles]:
    """The tight boxes of the faces of each image."""
    if not len(dataset):
        raise ValueError("dataset: got none, expected annotated images")
    faces: dict[ImageSource, list[Doubles]] = {}
    for annotation in dataset:
        if annotation.image is None:
            raise ValueError(
                f"{annotation.name}: no image stands beside this annotation; read them with "
                "require_images=True to learn which images are missing"
            )
        box = landmark_box(annotation.points)
        if not box[2:].min() > 0:
            raise ValueError(
                f"{annotation.name}: its box {box.tolist()} has no extent, as its points are "
                "missing (NaN) or lie on one line; drop this annotation"
            )
        faces.setdefault(annotation.image, []).append(box)
    return {image: np.stack(boxes) for image, boxes in faces.items()}


def _fitted(found: list[Doubles], truth: list[Doubles]) -> BoxCalibration:
    """The map from the boxes found in each image to the true ones there."""
    n_faces, n_boxes = sum(map(len, truth)), sum(map(len, found))
    if not n_boxes:
        raise ValueError(
            f"the detector gave no box in any of the {len(found)} images with {n_faces} faces; it "
            "gets RGB uint8 images (h, w, 3): does it expect another form, or larger faces?"
        )
    pairs = [match(*_within(f, t)) for f, t in zip(found, truth, strict=True)]
    for _ in range(_ROUNDS):
        detected, true = _matched(found, truth, pairs, n_boxes, n_faces)
        shift = np.median((_centre(true) - _centre(detected)) / detected[:, 2:], axis=0)
        scale = np.exp(np.median(np.log(true[:, 2:] / detected[:, 2:]), axis=0))
        mapped = [_mapped(boxes, shift, scale) for boxes in found]
        before = pairs
        overlaps = [iou(m[:, None], t) for m, t in zip(mapped, truth, strict=True)]
        pairs = [match(overlap, overlap >= BELONGS) for overlap in overlaps]
        if all(map(np.array_equal, pairs, before)):
            break
    tight, true = _matched(mapped, truth, pairs, n_boxes, n_faces)
    off = np.concatenate(
        [(_centre(true) - _centre(tight)) / tight[:, 2:], np.log(true[:, 2:] / tight[:, 2:])],
        axis=1,
    )
    spread = _PER_DEVIATION * np.median(np.abs(off - np.median(off, axis=0)), axis=0)
    return BoxCalibration(
        shift=tuple(shift.tolist()),
        scale=tuple(scale.tolist()),
        spread=tuple(spread.tolist()),
        median_iou=float(np.median(iou(tight, true))),
        n_faces=n_faces,
        n_found=len(true),
        n_extra=n_boxes - len(true),
    )


def _within(found: Doubles, truth: Doubles) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """How well each box suits each face while their sizes cannot be compared, and which may."""
    overlap = iou(found[:, None], truth)
    area, true_area = found[:, None, 2:].prod(-1), truth[:, 2:].prod(-1)
    shared = overlap / (1 + overlap) * (area + true_area)
    smaller = np.minimum(area, true_area)
    part = np.divide(shared, smaller, out=np.zeros_like(shared), where=smaller > 0)
    # Of boxes that lie within the face, or around it, the one of the most similar size.
    return part + overlap, part >= _CONTAINED


def _matched(
    found: list[Doubles],
    truth: list[Doubles],
    pairs: list[npt.NDArray[np.intp]],
    n_boxes: int,
    n_faces: int,
) -> tuple[Doubles, Doubles]:
    """The boxes and the faces of the pairs of all images, row by row."""
    boxes = np.concatenate([f[p[:, 0]] for f, p in zip(found, pairs, strict=True)])
    faces = np.concatenate([t[p[:, 1]] for t, p in zip(truth, pairs, strict=True)])
    if len(boxes) < _FEWEST:
        raise ValueError(
            f"{len(boxes) or 'none'} of the detector's {n_boxes} boxes belong to one of the "
            f"{n_faces} annotated faces, expected {_FEWEST} or more; give more images, and boxes "
            "[x, y, width, height] in pixels of the image (not two corners)"
        )
    return boxes, faces


def _centre(boxes: Doubles) -> Doubles:
    return np.asarray(boxes[:, :2] + boxes[:, 2:] / 2)


def _mapped(boxes: Doubles, shift: npt.ArrayLike, scale: npt.ArrayLike) -> Doubles:
    size = np.asarray(scale) * boxes[:, 2:]
    corner = _centre(boxes) + np.asarray(shift) * boxes[:, 2:] - size / 2
    return np.concatenate([corner, size], axis=1)


def _numbers(values: Any, name: str, length: int) -> tuple[float, ...]:
    given = tuple(values)
    plain = all(isinstance(v, int | float) and not isinstance(v, bool) for v in given)
    if len(given) != length or not plain or not all(map(math.isfinite, given)):
        raise ValueError(f"{name}: got {list(given)}, expected {length} finite numbers")
    return tuple(map(float, given))
