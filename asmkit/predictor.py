"""A trained network in use: photo in, landmarks and head pose out.

Whatever finds landmarks has one contract, ``locate(image, boxes) -> shapes``: ``image`` RGB uint8
``(h, w, 3)``, ``boxes (n, 4)`` tight landmark boxes, ``shapes (n, n_points, 2)`` in pixels of the
image, a shape of NaN where nothing could be found. :meth:`Predictor.locate` is one of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from asmkit.boxes import apply_affine, as_boxes, crop_transform, invert_affine, landmark_box
from asmkit.confidence import (
    LIKELIHOODS,
    NEAR,
    complete_covered,
    covers_some,
    probability_within,
)
from asmkit.description import SHAPE_MODEL, check_weights, read_description, weights_file
from asmkit.detection import detect_faces
from asmkit.errors import FormatError, MissingExtraError
from asmkit.images import as_image, crop
from asmkit.reference_face import reference_schemes
from asmkit.schemes import scheme as find_scheme
from asmkit.shipped import network_folder

if TYPE_CHECKING:
    from asmkit.model import ShapeModel

__all__ = ["Locate", "Prediction", "Predictor", "load"]

Doubles = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

#: What finds landmarks: ``(image, boxes (n, 4)) -> shapes (n, n_points, 2)``.
Locate = Callable[[Image, Doubles], Doubles]

#: What runs a network: ``crops (n, s, s, 3) uint8 -> points (n, p, 2) in the crop, angles (n, 3)``
#: then, by the heads that a network has, ``face (n,)``, ``scale (n, p)`` in the crop and
#: ``visibility (n, p)``.
_Engine = Callable[[Image], Sequence[npt.NDArray[Any]]]

#: Crops that go through the network at once: more saves nothing and takes memory.
_AT_ONCE = 64

#: What a mirror does to yaw, pitch and roll.
_MIRRORED_POSE = np.array([-1.0, 1.0, -1.0])


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
        The boxes that were looked into: those given, or the detector's. A second pass does not
        change them.
    face : ndarray (n_faces,) float64
        Probability that the box shows a face, from the tracking head of ATPN; NaN from a network
        without one.
    scale : ndarray (n_faces, n_points) float64
        Expected distance of each landmark from the truth, in pixels of the image, from a
        confidence head; NaN from a network without one.
    likelihood : {"none", "laplace", "gaussian"}
        Density of the errors about the truth, see :mod:`asmkit.confidence`; ``"none"`` where the
        scales are NaN.
    visibility : ndarray (n_faces, n_points) float64, or None
        Probability that nothing lies over each landmark, from a visibility head; None from a
        network without one. It was learned from things pasted over faces: hair, glasses and hands
        that were in the photos all along counted as parts of them.
    """

    points: Doubles
    pose: Doubles
    boxes: Doubles
    face: Doubles
    scale: Doubles = field(default_factory=lambda: np.full((), np.nan))
    likelihood: str = "none"
    visibility: Doubles | None = None

    def __post_init__(self) -> None:
        scale = np.broadcast_to(self.scale, self.points.shape[:-1]).copy()
        object.__setattr__(self, "scale", scale)  # as a frozen dataclass sets its own

    @property
    def confidence(self) -> Doubles:
        """How sure each landmark is ``(n_faces, n_points)``.

        The probability that nothing lies over it and it is found :meth:`within` 5 % of the box:
        the product of :attr:`visibility` and ``within()``, each calibrated. Of a network that does
        not tell covered landmarks, ``within()`` alone; NaN without a confidence head.
        """
        return self.within() * (1.0 if self.visibility is None else self.visibility)

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


class _Answers(NamedTuple):
    """What a network says of some faces, as in :class:`Prediction`; NaN where it lacks a head."""

    points: Doubles
    pose: Doubles
    face: Doubles
    scale: Doubles
    visibility: Doubles


class Predictor:
    """A landmark network with its pre-processing; made by :func:`load`.

    Attributes
    ----------
    description : dict
        What ``model.json`` says: architecture, scheme, crop, how it was trained.
    engine : str
        ``"onnxruntime"`` or ``"torch"``.
    """

    def __init__(
        self,
        run: _Engine,
        description: dict[str, Any],
        engine: str,
        shape_model: Path | None = None,
    ) -> None:
        self._run = run
        self._shape_model = shape_model
        self.description = description
        self.engine = engine
        trained: dict[str, Any] = description.get("trained", {})
        options: dict[str, Any] = description.get("options", {})
        self._likelihood: str = options.get("confidence", "none")
        self._tells_covered = bool(options.get("visibility", False))
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

    @property
    def license(self) -> str | None:
        """What the licence of the weights allows, where ``model.json`` says it.

        A network that was trained on 300-W is for non-commercial research only.
        """
        text: str | None = self.description.get("license")
        return text

    @cached_property
    def shape_model(self) -> ShapeModel | None:
        """Model of the shapes that it was trained on, where its folder holds one.

        Read when it is first needed.

        Raises
        ------
        FormatError
            When its file is damaged, or of other landmarks.
        """
        if self._shape_model is None:
            return None
        from asmkit.model import ShapeModel

        model = ShapeModel.load(self._shape_model)
        if model.mean_.shape != (self.n_points, 2):
            raise FormatError(
                f"{self._shape_model}: a model of shapes {model.mean_.shape}, but the network "
                f"beside it finds {(self.n_points, 2)}; it belongs to another network"
            )
        return model

    def predict(
        self,
        image: npt.ArrayLike,
        boxes: npt.ArrayLike | None = None,
        *,
        flip: bool = False,
        passes: int = 1,
        shape_prior: bool = True,
    ) -> Prediction:
        """Find landmarks and head pose.

        Parameters
        ----------
        image : ndarray (h, w, 3) uint8
            RGB, as :func:`asmkit.read_image` gives it.
        boxes : array_like (n, 4), optional
            Tight landmark boxes ``[x, y, width, height]``; the margin around them is the
            network's own affair. Without boxes the face detector looks for faces.
        flip : bool
            Look into the mirrored image as well, and take the mean of both answers. The mirrored
            image then has exactly the mirrored landmarks. Takes twice the time.
        passes : int
            2: look again, into the box of the landmarks that were found; any number from 1 on.
        shape_prior : bool
            On faces of which the network takes a landmark for covered, let the shape model of its
            training say where the landmarks are, too: :func:`asmkit.complete_covered`. It takes
            some 3 ms for such a face. Of a network without visibilities, or without a model in the
            frame ``"similarity"`` beside it, nothing changes.

        Returns
        -------
        Prediction
            With no face in the image its arrays have length 0.

        Raises
        ------
        ValueError, TypeError
            For an image or boxes of another form, ``passes`` below 1, and ``flip`` with a network
            whose landmarks are of no known scheme: nothing says which of them a mirror exchanges.
        """
        pixels = as_image(image)
        if isinstance(passes, bool) or not isinstance(passes, int) or passes < 1:
            raise ValueError(f"passes: got {passes!r}, expected a whole number from 1 on")
        mirror = self._mirror() if flip else None
        given = detect_faces(pixels) if boxes is None else as_boxes(boxes)
        seen = self._look(pixels, given, mirror)
        looked = given
        for _ in range(1, passes):
            looked = _boxes_of(seen.points, looked)
            seen = self._look(pixels, looked, mirror)
        points, pose, face, scale, visibility = seen
        told = visibility if self._tells_covered else None
        found = Prediction(points, pose, given, face, scale, self._likelihood, told)
        return self._with_prior(found) if shape_prior else found

    def locate(self, image: npt.ArrayLike, boxes: npt.ArrayLike) -> Doubles:
        """Landmarks ``(n, n_points, 2)`` of the boxes ``(n, 4)``: the contract of all finders."""
        return self.predict(image, boxes).points

    def _with_prior(self, found: Prediction) -> Prediction:
        if not covers_some(found).any():
            return found
        model = self.shape_model
        if model is None or model.align != "similarity":  # others do not say where a part of it is
            return found
        return complete_covered(found, model)

    def _mirror(self) -> npt.NDArray[np.intp]:
        if self.scheme is None:
            raise ValueError(
                "flip: the landmarks of this network are of no known scheme, which would say which "
                "of them a mirror exchanges; predict without flip"
            )
        return np.array(find_scheme(self.scheme).mirror, dtype=np.intp)

    def _look(self, pixels: Image, boxes: Doubles, mirror: npt.NDArray[np.intp] | None) -> _Answers:
        """Look once, into all boxes at once, and into their mirror images where asked to."""
        n, last = len(boxes), pixels.shape[1] - 1
        views, looked = [pixels], boxes
        if mirror is not None:
            # The mirrored image, not the mirrored crop: cropping rounds, and a mirror would not
            # commute with it.
            views.append(pixels[:, ::-1])
            mirrored = boxes.copy()
            mirrored[:, 0] = last - boxes[:, 0] - boxes[:, 2]
            looked = np.concatenate([boxes, mirrored])
        size = int(self.description["input_size"])
        matrices = crop_transform(looked, size, float(self.description["margin"]))
        crops = np.empty((len(looked), size, size, 3), np.uint8)
        for row, matrix in enumerate(matrices):
            crops[row] = crop(views[row // n], matrix, size)
        points, pose, face, scale, visibility = self._in_crops(crops)
        if n:
            points = apply_affine(invert_affine(matrices), points).astype(np.float64)
            scale = scale / np.sqrt(np.linalg.det(matrices[:, :, :2]))[:, None]
        if mirror is not None:
            back = points[n:, mirror]
            back[..., 0] = last - back[..., 0]
            points = (points[:n] + back) / 2
            pose = _mean_angles(pose[:n], pose[n:] * _MIRRORED_POSE)
            face = (face[:n] + face[n:]) / 2
            scale = (scale[:n] + scale[n:, mirror]) / 2
            visibility = (visibility[:n] + visibility[n:, mirror]) / 2
        if not self._knows_pose:
            pose[:] = np.nan
        return _Answers(points, pose, face, scale, visibility)

    def _in_crops(self, crops: Image) -> _Answers:
        points = np.empty((len(crops), self.n_points, 2))
        pose = np.empty((len(crops), 3))
        face = np.full(len(crops), np.nan)
        scale = np.full((len(crops), self.n_points), np.nan)
        visibility = scale.copy()
        for start in range(0, len(crops), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            points[part], pose[part], *more = self._run(crops[part])
            if self._tells_covered:
                visibility[part] = more.pop()
            if self._likelihood != "none":
                scale[part] = more.pop()
            if more:
                face[part] = more[0]
        return _Answers(points, pose, face, scale, visibility)


def _boxes_of(points: Doubles, before: Doubles) -> Doubles:
    """Boxes of landmarks; those before, where the landmarks span none."""
    boxes = landmark_box(points) if len(points) else before
    spans = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:].max(axis=1, initial=0.0) > 0)
    return np.where(spans[:, None], boxes, before)


def _mean_angles(one: Doubles, other: Doubles) -> Doubles:
    """Half way from one to the other, in degrees, the shorter way around."""
    way = (other - one + 180.0) % 360.0 - 180.0
    return (one + way / 2 + 180.0) % 360.0 - 180.0


def load(
    run_or_name: str | os.PathLike[str], *, engine: str | None = None, threads: int | None = None
) -> Predictor:
    """Load a trained network.

    Parameters
    ----------
    run_or_name : path or str
        The folder of a finished training, or the name of a shipped network, see
        :func:`asmkit.shipped_networks`: ``"asmkit-ibug68"``, ``"atpn-ibug68"``,
        ``"asmnet-ibug68"``, ``"rendered-ibug68"``. A name is a string and goes before a folder
        called so. **All but the last were trained on 300-W, whose licence excludes commercial
        use**: they are for non-commercial research only, as :attr:`Predictor.license` says. Ask
        Imperial College London before you use one in a product.
    engine : {"onnxruntime", "torch"}, optional
        What computes; by default ONNX Runtime where it is installed, else torch. Both give the
        same numbers to 1e-4 of half a crop.
    threads : int, optional
        Threads that compute; by default the engine decides.

    Raises
    ------
    FileNotFoundError
        When there is no such folder or name, or its training has not finished.
    FormatError
        When its files are damaged; those of a shipped network are compared with their SHA-256.
    MissingExtraError
        When neither ONNX Runtime nor torch is installed.
    """
    folder = network_folder(run_or_name)
    description = read_description(folder)
    if engine not in (None, *_ENGINES):
        raise ValueError(f"engine: got {engine!r}, expected one of {sorted(_ENGINES)}")
    for name in [engine] if engine else _ENGINES:
        try:
            run = _ENGINES[name](folder, description, threads)
            shapes = (folder / SHAPE_MODEL).resolve()
            return Predictor(run, description, name, shapes if shapes.is_file() else None)
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

    check_weights(weights_file(folder), description)
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
