"""From annotated images to training batches."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor
from tqdm import tqdm

from asmkit.annotations import Annotation
from asmkit.boxes import (
    apply_affine,
    compose_affine,
    crop_transform,
    invert_affine,
    iou,
    landmark_box,
)
from asmkit.images import crop, read_image, shrink
from asmkit.model import ShapeModel
from asmkit.nn.asm_warp import NewShape, NewShapes
from asmkit.nn.augment import (
    cover,
    draw_geometry,
    mirror_rotation,
    occlude,
    photometric,
    turn_rotation,
    visible_points,
)
from asmkit.nn.negatives import background, box_beside, face_label, random_crop, shuffled
from asmkit.nn.recipe import Recipe
from asmkit.pose import euler_to_rotation, head_rotations, rotation_to_euler
from asmkit.schemes import Scheme
from asmkit.warp import crop_warped

__all__ = [
    "Batch",
    "DeviceBatch",
    "LandmarkDataset",
    "Photo",
    "ahead",
    "batches",
    "overlap_of",
    "rows_of_batches",
    "whole_batch",
]

Doubles = npt.NDArray[np.float64]

#: Decoded faces kept in memory; what does not fit is decoded again when it is needed.
_CACHE_BYTES = 4 << 30

#: How often a negative is of each kind, without and with a folder of other images.
_KINDS = {"beside": 0.5, "shuffled": 0.2, "background": 0.3}
_KINDS_WITH_OTHERS = {"beside": 0.4, "shuffled": 0.15, "background": 0.2, "other": 0.25}


_In = TypeVar("_In")
_Out = TypeVar("_Out")
_Pixels = TypeVar("_Pixels")


class _Batch(NamedTuple, Generic[_Pixels]):
    """Crops with their targets, in pixels of the crop."""

    #: (b, s, s, 3) RGB, uint8
    images: _Pixels
    #: (b, n_points, 2)
    points: Doubles
    #: (b, n_points, 2), the shape model's version of ``points``
    smoothed: Doubles
    #: (b, 3) yaw, pitch, roll in radians; NaN where there is no label
    angles: Doubles
    #: (b,) 1 for a face, 0 for none, NaN where the crop shows too much for one and too little
    face: Doubles
    #: (b, n_points) 1 for a landmark that nothing was laid over, 0 for a covered one, NaN for one
    #: outside of the crop
    visible: Doubles


#: Made by the processor.
Batch = _Batch[npt.NDArray[np.uint8]]
#: Its images made on the device that trains.
DeviceBatch = _Batch[Tensor]


class Photo(NamedTuple):
    """The part of a photo that augmentation can reach."""

    pixels: npt.NDArray[np.uint8]
    #: (2, 3), pixels of the photo to ``pixels``
    matrix: Doubles


class LandmarkDataset:
    """Annotated faces (or anything else with landmarks) as crops for a network.

    Parameters
    ----------
    annotations : sequence of Annotation
        Each with an image and complete points, all with the same number of points.
    recipe : Recipe
        Crop and augmentation.
    scheme : Scheme or None
        Without one there is no mirroring, and no pose label but those that the annotations bring:
        ``attributes["euler"]``, yaw, pitch, roll in degrees, goes before the pose of the points.
    others : sequence of ndarray
        Images without faces, from which :meth:`negative` takes its share.

    Raises
    ------
    ValueError
        When there is no annotation, one has no image or misses points, or the numbers of points
        differ.
    """

    def __init__(
        self,
        annotations: Sequence[Annotation],
        recipe: Recipe,
        scheme: Scheme | None,
        others: Sequence[npt.NDArray[np.uint8]] = (),
    ) -> None:
        _check_annotations(annotations)
        self.annotations = list(annotations)
        self.recipe = recipe
        self.points: Doubles = np.stack([a.points for a in annotations]).astype(np.float64)
        self.boxes: Doubles = landmark_box(self.points)
        self.rotations: Doubles = _rotations(self.annotations, self.points, scheme)
        self.others = list(others)
        self.mirror = None if scheme is None else np.asarray(scheme.mirror)
        self._scheme_name = None if scheme is None else scheme.name
        self._new_shapes: NewShapes | None = None
        if recipe.asm_warp > 0:
            self._new_shapes = NewShapes(self.points, recipe.asm_warp_size, self.mirror)
        self._cache: dict[int, Photo] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.annotations)

    @property
    def fingerprint(self) -> str:
        """Digest of all labels: a training resumes on the data it was started on."""
        digest = hashlib.sha256()
        for annotation in self.annotations:
            digest.update(annotation.name.encode("utf-8"))
        digest.update(self.points.tobytes())
        digest.update(self.rotations.tobytes())
        for image in self.others:
            digest.update(image.tobytes())
        return digest.hexdigest()

    def fits(self, n_bytes: float = math.inf) -> bool:
        """Whether what is needed of the photos fits in so many bytes, and all can be kept here.

        After :meth:`load`; where other processes decoded the others, by the part that this one did.
        """
        each = self._cached_bytes / max(1, len(self._cache))
        return bool(self._cache) and each * len(self) <= min(_CACHE_BYTES, n_bytes)

    def load(self, progress: bool = False, part: int = 0, n_parts: int = 1) -> None:
        """Decode every image now: a broken one is reported before a training starts.

        Of ``n_parts`` processes each decodes a part of them.
        """
        indices = range(part, len(self), n_parts)
        for index in tqdm(
            indices, "reading images", disable=not progress, leave=False, unit="image"
        ):
            self.photo(index)

    def sample(
        self, index: int, rng: np.random.Generator | None = None, covers: float = 0.0
    ) -> Batch:
        """One face as a batch of one, augmented when there is a generator.

        With the chance ``covers`` a piece of another photo lies over it, whose landmarks stay;
        ``visible`` tells which of them lie under it or under the occluder of the augmentation.
        ``smoothed`` is a copy of the points; :func:`batches` fills it.
        """
        new = None if rng is None else self._new_shape(index, rng)
        batch = self.cut(index, rng, new)
        pixels = batch.images[0]
        covered = np.zeros(pixels.shape[:2], bool)
        if rng is not None:
            pixels, covered = self._covered(photometric(pixels, rng, self.recipe), rng, covers)
        visible = visible_points(batch.points[0], covered)[None]
        return batch._replace(images=pixels[None], visible=visible)

    def cut(
        self, index: int, rng: np.random.Generator | None = None, new: NewShape | None = None
    ) -> Batch:
        """The crop of a face in its own shape or a new one, moved when there is a generator.

        Its light is that of the photo; ``visible`` is NaN, as what lies over it is not known yet.
        """
        recipe, size = self.recipe, self.recipe.input_size
        face = self.photo(index)
        points, box, rotation = self.points[index], self.boxes[index], self.rotations[index]
        if new is not None:
            rotation = self._rotation_of(new.points, index)
            points, box = new.points, landmark_box(new.points)
        to_crop = crop_transform(box[None], size, recipe.margin)[0]
        overlap = 1.0
        order: npt.NDArray[np.intp] | slice = slice(None)
        if rng is not None:
            geometry = draw_geometry(rng, recipe, self.mirror is not None)
            to_crop = compose_affine(geometry.matrix, to_crop)
            if geometry.mirrored and self.mirror is not None:
                order, rotation = self.mirror, mirror_rotation(rotation)
            rotation = turn_rotation(rotation, geometry.angle)
            overlap = float(overlap_of(geometry.matrix, size, recipe.margin))
        points = np.asarray(apply_affine(to_crop, points)[order], np.float64)
        from_face = compose_affine(to_crop, invert_affine(face.matrix))
        if new is None:
            pixels = crop(face.pixels, from_face, size)
        else:
            pixels = crop_warped(face.pixels, from_face, size, new.warp.along(face.matrix))
        angles = np.deg2rad(rotation_to_euler(rotation[None]))
        points = points[None]
        visible = np.full(points.shape[:2], np.nan)
        return Batch(pixels[None], points, points.copy(), angles, face_label([overlap]), visible)

    def covered(self, index: int, rng: np.random.Generator) -> Batch:
        """The plain crop of a face, under what covers faces where confidence is learned."""
        plain = self.sample(index)
        pixels, covered = self._covered(plain.images[0], rng, self.recipe.occlusion)
        visible = visible_points(plain.points[0], covered)
        return plain._replace(images=pixels[None], visible=visible[None])

    def _covered(
        self, pixels: npt.NDArray[np.uint8], rng: np.random.Generator, covers: float = 0.0
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """A crop by chance under an occluder and a piece of another photo, and where they lie."""
        covered = np.zeros(pixels.shape[:2], bool)
        if rng.random() < self.recipe.occlusion:
            pixels, covered = occlude(pixels, rng)
        if covers and rng.random() < covers:
            other = self.photo(int(rng.integers(len(self)))).pixels
            pixels, more = cover(pixels, random_crop([other], len(pixels), rng), rng)
            covered = covered | more
        return pixels, covered

    def _new_shape(self, index: int, rng: np.random.Generator) -> NewShape | None:
        """By the recipe's chance another shape of a face."""
        if self._new_shapes is None:
            return None
        # A stream of its own: all else is drawn as it is without new shapes.
        own = rng.spawn(1)[0]
        return self.new_shape(index, own) if own.random() < self.recipe.asm_warp else None

    def new_shape(self, index: int, rng: np.random.Generator) -> NewShape | None:
        """Another shape of a face; None where nothing moves."""
        return None if self._new_shapes is None else self._new_shapes.draw(index, rng)

    def _rotation_of(self, points: Doubles, index: int) -> Doubles:
        """The rotation label of a face in a new shape: it turns as the pose of its points does."""
        poses = head_rotations(np.stack([self.points[index], points]), self._scheme_name)
        turned: Doubles = np.round(poses[1] @ poses[0].T @ self.rotations[index], 5)
        return turned

    def negative(self, index: int, rng: np.random.Generator) -> Batch:
        """A crop without a face as a batch of one: beside this face, of its tiles, or elsewhere."""
        pixels, _ = self._covered(photometric(self.no_face(index, rng), rng, self.recipe), rng)
        points = np.full((1, *self.points.shape[1:]), np.nan)
        angles, visible = np.full((1, 3), np.nan), np.full(points.shape[:2], np.nan)
        return Batch(pixels[None], points, points.copy(), angles, np.zeros(1), visible)

    def no_face(self, index: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """A crop ``(s, s, 3)`` without this face, its light as it was."""
        recipe, size = self.recipe, self.recipe.input_size
        chances = _KINDS_WITH_OTHERS if self.others else _KINDS
        kind = rng.choice(list(chances), p=list(chances.values()))
        if kind == "background":
            return background(size, rng)
        if kind == "other":
            return random_crop(self.others, size, rng)
        if kind == "shuffled":
            return shuffled(self.sample(index).images[0], rng)
        x, y, width, height = self.boxes[index]
        side = max(width, height)
        square = side * box_beside(rng)[:3]
        corner = square[:2] + np.array([x + (width - side) / 2, y + (height - side) / 2])
        box = np.array([[*corner, square[2], square[2]]])
        matrix = compose_affine(
            draw_geometry(rng, replace(recipe, scale=0.0, shift=0.0), True).matrix,
            crop_transform(box, size, recipe.margin)[0],
        )
        face = self.photo(index)
        return crop(face.pixels, compose_affine(matrix, invert_affine(face.matrix)), size)

    def photo(self, index: int) -> Photo:
        """The part of the photo that augmentation can reach, no finer than twice the crop."""
        if index in self._cache:
            return self._cache[index]
        annotation, recipe = self.annotations[index], self.recipe
        assert annotation.image is not None  # checked when the dataset was made
        moved = None if self._new_shapes is None else self._new_shapes.reach(index)
        face = _reachable_part(read_image(annotation.image), self.boxes[index], recipe, moved)
        if self._cached_bytes + face.pixels.nbytes <= _CACHE_BYTES:
            self._cache[index] = face
            self._cached_bytes += face.pixels.nbytes
        return face


def _rotations(
    annotations: Sequence[Annotation], points: Doubles, scheme: Scheme | None
) -> Doubles:
    """Rotations ``(n, 3, 3)`` that come with the annotations, else of their points, else NaN."""
    # The pose kernel is compiled for the processor at hand; on another its last digits (1e-8) may
    # differ. Rounded, a training resumed there starts from the same labels.
    labels: Doubles = np.round(head_rotations(points, scheme.name if scheme else None), 5)
    for row, annotation in enumerate(annotations):
        if "euler" in annotation.attributes:
            labels[row] = euler_to_rotation(_euler(annotation))
    return labels


def _euler(annotation: Annotation) -> Doubles:
    given = annotation.attributes["euler"]
    try:
        angles = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        angles = np.empty(0)
    if angles.shape != (3,):
        raise ValueError(
            f"{annotation.name}: the attribute euler is {given!r}, "
            "expected yaw, pitch, roll in degrees"
        )
    return angles


def overlap_of(matrix: Doubles, size: int, margin: float) -> Doubles:
    """IoU of the square looked into and the true one, after the plain crop was moved by a map.

    ``matrix (..., 2, 3)`` is that map, crop to crop; the overlaps have the shape ``(...)``.
    """
    half = (size - 1) / 2
    to_plain = invert_affine(matrix)
    centre = np.asarray(apply_affine(to_plain, np.full((1, 2), half)))[..., 0, :]
    side = size / margin
    seen = side * np.sqrt(abs(np.linalg.det(to_plain[..., :2])))[..., None]
    truth = np.array([half - side / 2, half - side / 2, side, side])
    return iou(truth, np.concatenate([centre - seen / 2, seen, seen], -1))


def _reachable_part(
    image: npt.NDArray[np.uint8], box: Doubles, recipe: Recipe, moved: Doubles | None
) -> Photo:
    side = recipe.margin * max(box[2], box[3])
    reach = side * np.sqrt(2) * (0.5 + recipe.shift) * np.exp(recipe.scale) + 2
    centre = box[:2] + box[2:] / 2
    if moved is not None:
        # The box of a new shape is another one, and what moves lies between these points.
        reach = max(1.25 * reach, float(np.abs(moved - centre).max()) + 2)
    height, width = image.shape[:2]
    # A face outside its photo still gets one row and column to replicate.
    x0, y0 = np.clip(np.floor(centre - reach), 0, [width - 1, height - 1]).astype(int)
    x1, y1 = np.clip(np.ceil(centre + reach), [x0, y0], [width - 1, height - 1]).astype(int)
    factor = max(1, int(side / (2 * recipe.input_size)))
    part = shrink(image[y0 : y1 + 1, x0 : x1 + 1], factor)
    # Pixel centres: f×f pixels become one, whose centre is their common centre.
    offset = -(np.array([x0, y0]) + (factor - 1) / 2) / factor
    # A copy: a view would keep the whole photo in memory.
    return Photo(part.copy(), np.column_stack([np.eye(2) / factor, offset]))


def batches(
    dataset: LandmarkDataset,
    model: ShapeModel | None,
    epoch: int,
    n_workers: int = 1,
    *,
    negatives: float = 0.0,
    covers: float = 0.0,
    part: int = 0,
    n_parts: int = 1,
) -> Iterator[Batch]:
    """The augmented batches of an epoch, made ahead by threads, the same for any number of them.

    Of every face, a negative takes the place with the chance ``negatives``, and a piece of another
    photo covers a part with the chance ``covers``. With ``n_parts`` each batch is dealt out, and
    only part number ``part`` of each is made.

    The shape model smooths the landmarks after augmentation, which is right in both of its frames
    and costs about a microsecond a face.
    """
    recipe = dataset.recipe
    rows = rows_of_batches(dataset, epoch, n_parts)[:, part::n_parts]

    def one(index: int) -> Batch:
        rng = np.random.default_rng([recipe.seed, epoch, index])
        if negatives and rng.random() < negatives:
            return dataset.negative(index, rng)
        return dataset.sample(index, rng, covers)

    def make(indices: npt.NDArray[np.intp]) -> Batch:
        samples = [one(int(i)) for i in indices]
        batch = Batch(*(np.concatenate(parts) for parts in zip(*samples, strict=True)))
        labelled = np.isfinite(batch.points).all((1, 2))
        if model is not None and labelled.any():
            batch.smoothed[labelled] = model.smooth(batch.points[labelled])
        return batch

    return ahead(make, rows, n_workers)


def rows_of_batches(dataset: LandmarkDataset, epoch: int, n_parts: int = 1) -> npt.NDArray[np.intp]:
    """Which faces make up each batch of an epoch, ``(n_batches, b)``, all parts together."""
    order = np.random.default_rng([dataset.recipe.seed, epoch]).permutation(len(dataset))
    size = whole_batch(dataset, n_parts)
    # A last batch of fewer would give its faces more weight and upset batch norm.
    return order[: len(order) // size * size].reshape(-1, size)


def ahead(make: Callable[[_In], _Out], work: Iterable[_In], n_workers: int = 1) -> Iterator[_Out]:
    """What ``make`` gives, in order, made ahead by threads."""
    with ThreadPoolExecutor(n_workers) as pool:
        waiting: deque[Future[_Out]] = deque()
        for item in work:
            waiting.append(pool.submit(make, item))
            if len(waiting) > n_workers + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def whole_batch(dataset: LandmarkDataset, n_parts: int = 1) -> int:
    """Faces in a batch, all its parts together, which are equally large.

    Raises
    ------
    ValueError
        When a part would hold less than the two faces that batch norm needs.
    """
    size = min(dataset.recipe.batch_size, len(dataset)) // n_parts * n_parts
    if size < 2 * n_parts and n_parts > 1:
        raise ValueError(
            f"batches of {dataset.recipe.batch_size} of {len(dataset)} faces leave less than two "
            f"for each of {n_parts} processes; start fewer"
        )
    return size


def _check_annotations(annotations: Sequence[Annotation]) -> None:
    if not annotations:
        raise ValueError("the dataset is empty: expected at least one annotated image")
    expected = annotations[0].points.shape
    for annotation in annotations:
        if annotation.image is None:
            raise ValueError(
                f"{annotation.name}: no image stands beside this annotation; "
                "training needs one for each"
            )
        if annotation.points.shape != expected:
            raise ValueError(
                f"{annotation.name} has points of shape {annotation.points.shape}, "
                f"{annotations[0].name} of {expected}; expected the same for all"
            )
        if not np.isfinite(annotation.points).all():
            raise ValueError(
                f"{annotation.name}: points are missing (NaN); complete or drop this annotation"
            )
        if np.ptp(annotation.points, axis=0).max() == 0:
            raise ValueError(f"{annotation.name}: all points are equal, so there is no box to crop")
