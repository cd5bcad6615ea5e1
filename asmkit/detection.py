"""Find faces: OpenCV's Haar cascades, their windows turned into tight landmark boxes.

The cascade "alt2" looks first. Where it finds nothing, its windows are taken together with those of
"default", "profile" and the mirrored "profile": what several of them see a little is a face more
often than what one of them sees somewhat better, so this finds more than any fallback to a single
cascade with as few false boxes. Figures of this and of the alternatives, chosen among on the
held-out part of 300-W train, are in ``benchmarks/results/boxes``.
"""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import cv2.data
import numpy as np
import numpy.typing as npt

from asmkit.box_calibration import BoxCalibration
from asmkit.images import as_image

__all__ = [
    "WINDOW_TO_LANDMARKS",
    "detect_faces",
    "detect_in_frame",
    "grouped_windows",
    "haar_windows",
]

Grey = npt.NDArray[np.uint8]
Windows = npt.NDArray[np.int32]

_FIRST = "frontalface_alt2"
#: Cascade and whether it looks at the mirrored image: it knows one side of the face.
_MORE = (("frontalface_default", False), ("profileface", False), ("profileface", True))
#: How many more windows it takes where four cascades give theirs.
_MORE_NEIGHBORS = 2
#: By how much of their size windows of one face may differ: what OpenCV uses.
_GROUP_EPS = 0.2

#: From the windows of "alt2" to landmark boxes, as ``benchmarks/detector.py`` learns it on the
#: fitting part of 300-W train.
WINDOW_TO_LANDMARKS = BoxCalibration(
    shift=(0.0, 0.149),
    scale=(0.864, 0.847),
    spread=(0.103, 0.043, 0.078, 0.080),
    median_iou=0.781,
    n_faces=1804,
    n_found=1688,
    n_extra=23,
)

_of_this_thread = threading.local()


def _cascade(name: str) -> cv2.CascadeClassifier:
    # One for each thread: a CascadeClassifier keeps its image pyramid between calls.
    cascades: dict[str, cv2.CascadeClassifier] = _of_this_thread.__dict__
    if name not in cascades:
        path = Path(cv2.data.haarcascades) / f"haarcascade_{name}.xml"
        cascades[name] = cv2.CascadeClassifier(str(path))
    return cascades[name]


def haar_windows(
    grey: Grey, cascade: str, *, mirrored: bool = False, scale_factor: float, min_size: int
) -> Windows:
    """Every window in which a cascade sees its object.

    Parameters
    ----------
    grey : ndarray (height, width) uint8
    cascade : str
        Name of one of OpenCV's, without ``haarcascade_`` and suffix.
    mirrored : bool
        Look at the mirrored image; the windows are in the image as it is.
    scale_factor, min_size
        As of :func:`detect_faces`.

    Returns
    -------
    ndarray (n, 4) int32
        ``[x, y, side, side]``.
    """
    seen = np.ascontiguousarray(grey[:, ::-1]) if mirrored else grey
    found = _cascade(cascade).detectMultiScale(seen, scale_factor, 0, minSize=(min_size, min_size))
    windows = np.array(found, dtype=np.int32).reshape(-1, 4)
    if mirrored:
        windows[:, 0] = grey.shape[1] - windows[:, 0] - windows[:, 2]
    return windows


def grouped_windows(windows: Windows, min_neighbors: int) -> npt.NDArray[np.float64]:
    """Means of the windows of one face each, where there are more than ``min_neighbors``."""
    if not len(windows):
        return np.empty((0, 4))
    groups, _ = cv2.groupRectangles(windows.tolist(), min_neighbors, _GROUP_EPS)
    return np.array(groups, dtype=np.float64).reshape(-1, 4)


def detect_faces(
    image: npt.ArrayLike,
    *,
    scale_factor: float = 1.1,
    min_neighbors: int = 3,
    min_size: int = 40,
    thorough: bool = True,
) -> npt.NDArray[np.float64]:
    """Tight landmark boxes of the upright faces in an image.

    Parameters
    ----------
    image : ndarray (height, width, 3) uint8
        RGB.
    scale_factor : float
        Step between the sizes searched; greater than 1, nearer to 1 is slower and finds more.
    min_neighbors : int
        Overlapping windows that do not yet make a face; fewer finds more faces, and more that are
        none. The second search wants more than twice as many.
    min_size : int
        Side in pixels of the smallest window; a face is about 0.86 of it wide.
    thorough : bool
        Where the first search finds no face, search with three more cascades. An image without a
        face then takes some five times as long, and gets a false box more often: of 140 photos of
        hands and X-rays 35 do, instead of 14.

    Returns
    -------
    ndarray (n_faces, 4) float64
        ``[x, y, width, height]``, the largest first; ``(0, 4)`` when no face is found. They may
        reach beyond the image.
    """
    grey: Grey = np.asarray(cv2.cvtColor(as_image(image), cv2.COLOR_RGB2GRAY), np.uint8)
    first = haar_windows(grey, _FIRST, scale_factor=scale_factor, min_size=min_size)
    faces = grouped_windows(first, min_neighbors)
    if thorough and not len(faces):
        more = [
            haar_windows(
                grey, name, mirrored=mirrored, scale_factor=scale_factor, min_size=min_size
            )
            for name, mirrored in _MORE
        ]
        faces = grouped_windows(np.concatenate([first, *more]), _MORE_NEIGHBORS * min_neighbors)
    order = np.lexsort((faces[:, 1], faces[:, 0], -faces[:, 2]))
    return WINDOW_TO_LANDMARKS.apply(faces[order])


def detect_in_frame(image: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """:func:`detect_faces` by the first search alone: for videos, where the next frame comes soon.

    Parameters
    ----------
    image : ndarray (height, width, 3) uint8
        RGB.

    Returns
    -------
    ndarray (n_faces, 4) float64
    """
    return detect_faces(image, thorough=False)
