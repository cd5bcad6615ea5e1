"""A trained network in use: photo in, landmarks and head pose out.

Whatever finds landmarks has one contract, ``locate(image, boxes) -> shapes``: ``image`` RGB uint8
``(h, w, 3)``, ``boxes (n, 4)`` tight landmark boxes, ``shapes (n, n_points, 2)`` in pixels of the
image, a shape of NaN where nothing could be found. :meth:`Predictor.locate` is one of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from asmkit.boxes import apply_affine, as_boxes, crop_transform, invert_affine
from asmkit.confidence import LIKELIHOODS, NEAR, probability_within
from asmkit.description import read_description
from asmkit.detection import detect_faces
from asmkit.errors import FormatError, MissingExtraError
from asmkit.images import as_image, crop
from asmkit.pose import reference_schemes

__all__ = ["Locate", "Prediction", "Predictor", "load"]

Doubles = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

#: What finds landmarks: ``(image, boxes (n, 4)) -> shapes (n, n_points, 2)``.
Locate = Callable[[Image, Doubles], Doubles]

#: What runs a network: ``crops (n, s, s, 3) uint8 -> points (n, p, 2) in the crop, angles (n, 3)``
#: then, from a network with a tracking head, ``face (n,)``, and last, from one with a confidence
#: head, ``scale (n, p)`` in the crop.
_Engine = Callable[[Image], Sequence[npt.NDArray[Any]]]

#: Crops that go through the network at once: more saves nothing and takes memory.
_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network found in one image.

    Attributes
    ----------
    points : ndarray (n_faces, n_points, 2) float64
        Landmarks in pixels of the image.
    pose : ndarray (n_faces, 3) float64
        Yaw, pitch, roll in degrees from the network's pose head, in the ``"aflw"`` convention
        of :meth:`asmkit.Pose.euler`; NaN for landmarks without a reference face, whose networks
        had no pose to learn.
    boxes : ndarray (n_faces, 4) float64
        The boxes that were looked into.
    face : ndarray (n_faces,) float64
        Probability that the box shows a face, from the tracking head of ATPN; NaN from a network
        without one.
    scale : ndarray (n_faces, n_points) float64
        Expected distance of each landmark from the truth, in pixels of the image, from a
        confidence head; NaN from a network without one.
    likelihood : {"none", "laplace", "gaussian"}
        Density of the errors about the truth, see :mod:`asmkit.confidence`; ``"none"`` where the
        scales are NaN.
    """

    points: Doubles
    pose: Doubles
    boxes: Doubles
    face: Doubles
    scale: Doubles = field(default_factory=lambda: np.full((), np.nan))
    likelihood: str = "none"

    def __post_init__(self) -> None:
        scale = np.broadcast_to(self.scale, self.points.shape[:-1]).copy()
        object.__setattr__(self, "scale", scale)  # as a frozen dataclass sets its own

    @property
    def confidence(self) -> Doubles:
        """How sure each landmark is ``(n_faces, n_points)``: :meth:`within` 5 % of the box."""
        return self.within()

    def within(self, distance: float = NEAR) -> Doubles:
        """Probability that each landmark lies within a distance of the truth.

        Parameters
        ----------
        distance : float
            In units of the longer side of the box, the unit in which the network sees a face
            whatever its size and turn; 0.05 is about a tenth of the distance between the outer
            corners of the eyes.

        Returns
        -------
        ndarray (n_faces, n_points)
            NaN from a network without a confidence head.
        """
        if self.likelihood not in LIKELIHOODS:
            return np.full(self.scale.shape, np.nan)
        limit = distance * self.boxes[:, 2:].max(axis=1, keepdims=True)
        return probability_within(limit, self.scale, self.likelihood)


class Predictor:
    """A landmark network with its pre-processing; made by :func:`load`.

    Attributes
    ----------
    description : dict
        What ``model.json`` says: architecture, scheme, crop, how it was trained.
    engine : str
        ``"onnxruntime"`` or ``"torch"``.
    """

    def __init__(self, run: _Engine, description: dict[str, Any], engine: str) -> None:
        self._run = run
        self.description = description
        self.engine = engine
        trained: dict[str, Any] = description.get("trained", {})
        self._likelihood: str = description.get("options", {}).get("confidence", "none")
        self._knows_pose = bool(trained.get("pose_labels", self.scheme in reference_schemes()))

    @property
    def n_points(self) -> int:
        """Number of landmarks."""
        return int(self.description["n_points"])

    @property
    def scheme(self) -> str | None:
        """Name of the landmark scheme, where it has one."""
        name: str | None = self.description["scheme"]
        return name

    def predict(self, image: npt.ArrayLike, boxes: npt.ArrayLike | None = None) -> Prediction:
        """Find landmarks and head pose.

        Parameters
        ----------
        image : ndarray (h, w, 3) uint8
            RGB, as :func:`asmkit.read_image` gives it.
        boxes : array_like (n, 4), optional
            Tight landmark boxes ``[x, y, width, height]``; the margin around them is the
            network's own affair. Without boxes the face detector looks for faces.

        Returns
        -------
        Prediction
            With no face in the image its arrays have length 0.

        Raises
        ------
        ValueError, TypeError
            For an image or boxes of another form.
        """
        pixels = as_image(image)
        found = detect_faces(pixels) if boxes is None else as_boxes(boxes)
        size = int(self.description["input_size"])
        matrices = crop_transform(found, size, float(self.description["margin"]))
        crops = np.empty((len(found), size, size, 3), np.uint8)
        for row, matrix in enumerate(matrices):
            crops[row] = crop(pixels, matrix, size)
        points, pose, face, scale = self._in_crops(crops)
        if not self._knows_pose:
            pose[:] = np.nan
        if len(found):
            points = apply_affine(invert_affine(matrices), points).astype(np.float64)
            scale = scale / np.sqrt(np.linalg.det(matrices[:, :, :2]))[:, None]
        return Prediction(points, pose, found, face, scale, self._likelihood)

    def locate(self, image: npt.ArrayLike, boxes: npt.ArrayLike) -> Doubles:
        """Landmarks ``(n, n_points, 2)`` of the boxes ``(n, 4)``: the contract of all finders."""
        return self.predict(image, boxes).points

    def _in_crops(self, crops: Image) -> tuple[Doubles, Doubles, Doubles, Doubles]:
        points = np.empty((len(crops), self.n_points, 2))
        pose = np.empty((len(crops), 3))
        face = np.full(len(crops), np.nan)
        scale = np.full((len(crops), self.n_points), np.nan)
        for start in range(0, len(crops), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            points[part], pose[part], *more = self._run(crops[part])
            if self._likelihood != "none":
                scale[part] = more.pop()
            if more:
                face[part] = more[0]
        return points, pose, face, scale


def load(
    run_or_name: str | os.PathLike[str], *, engine: str | None = None, threads: int | None = None
) -> Predictor:
    """Load a trained network.

    Parameters
    ----------
    run_or_name : path
        The folder of a finished training.
    engine : {"onnxruntime", "torch"}, optional
        What computes; by default ONNX Runtime where it is installed, else torch. Both give the
        same numbers to 1e-4 of half a crop.
    threads : int, optional
        Threads that compute; by default the engine decides.

    Raises
    ------
    FileNotFoundError
        When there is no such folder, or its training has not finished.
    FormatError
        When its files are damaged.
    MissingExtraError
        When neither ONNX Runtime nor torch is installed.
    """
    folder = Path(run_or_name)
    description = read_description(folder)
    if engine not in (None, *_ENGINES):
        raise ValueError(f"engine: got {engine!r}, expected one of {sorted(_ENGINES)}")
    for name in [engine] if engine else _ENGINES:
        try:
            return Predictor(_ENGINES[name](folder, description, threads), description, name)
        except MissingExtraError:
            if engine:
                raise
    raise MissingExtraError(
        "a network runs by ONNX Runtime or torch, and neither is installed; "
        "install one with: pip install 'asmkit[infer]' or pip install 'asmkit[nn]'"
    )


def _onnxruntime(folder: Path, description: dict[str, Any], threads: int | None) -> _Engine:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            "the package 'onnxruntime' is not installed; "
            "install it with: pip install 'asmkit[infer]'"
        ) from error
    path = folder / "model.onnx"
    options = onnxruntime.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    except FileNotFoundError:
        raise
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        raise FormatError(f"{path}: ONNX Runtime cannot load it ({error})") from error

    names = [output.name for output in session.get_outputs()]

    def run(crops: Image) -> Sequence[npt.NDArray[Any]]:
        answers: Sequence[npt.NDArray[Any]] = session.run(names, {"images": crops})
        return answers

    return run


def _torch(folder: Path, description: dict[str, Any], threads: int | None) -> _Engine:
    from asmkit._extras import require

    torch = require("torch", "nn")
    require("safetensors", "nn")
    from asmkit.nn.export import Deployed, load_network

    weights = (folder / "model.safetensors").read_bytes()
    if hashlib.sha256(weights).hexdigest() != description.get("sha256"):
        raise FormatError(
            f"{folder / 'model.safetensors'}: its SHA-256 is not the one in model.json; "
            "the file is damaged or of another training"
        )
    if threads:
        torch.set_num_threads(threads)
    network, _ = load_network(folder)
    deployed = Deployed(network, int(description["input_size"])).eval()

    def run(crops: Image) -> Sequence[npt.NDArray[Any]]:
        with torch.inference_mode():
            answers = deployed(torch.from_numpy(np.ascontiguousarray(crops)))
        return [answer.numpy() for answer in answers]

    return run


#: In the order of preference.
_ENGINES = {"onnxruntime": _onnxruntime, "torch": _torch}
