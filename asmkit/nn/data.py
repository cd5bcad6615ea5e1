"""From annotated images to training batches."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from asmkit.annotations import Annotation
from asmkit.boxes import (
    apply_affine,
    compose_affine,
    crop_transform,
    invert_affine,
    landmark_box,
)
from asmkit.images import crop, read_image, shrink
from asmkit.model import ShapeModel
from asmkit.nn.augment import draw_geometry, mirror_rotation, photometric, turn_rotation
from asmkit.nn.recipe import Recipe
from asmkit.pose import head_rotations, rotation_to_euler
from asmkit.schemes import Scheme

__all__ = ["Batch", "LandmarkDataset", "batches"]

Doubles = npt.NDArray[np.float64]

#: Decoded faces kept in memory; what does not fit is decoded again when it is needed.
_CACHE_BYTES = 4 << 30


class Batch(NamedTuple):
    """Crops with their targets, in pixels of the crop."""

    #: (b, s, s, 3) RGB
    images: npt.NDArray[np.uint8]
    #: (b, n_points, 2)
    points: Doubles
    #: (b, n_points, 2), the shape model's version of ``points``
    smoothed: Doubles
    #: (b, 3) yaw, pitch, roll in radians; NaN where there is no label
    angles: Doubles


class _Face(NamedTuple):
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
        Without one there is no mirroring and no pose label.

    Raises
    ------
    ValueError
        When there is no annotation, one has no image or misses points, or the numbers of points
        differ.
    """

    def __init__(
        self, annotations: Sequence[Annotation], recipe: Recipe, scheme: Scheme | None
    ) -> None:
        _check_annotations(annotations)
        self.annotations = list(annotations)
        self.recipe = recipe
        self.points: Doubles = np.stack([a.points for a in annotations]).astype(np.float64)
        self.boxes: Doubles = landmark_box(self.points)
        # The pose kernel gives other last digits (1e-8) in the process that compiles it than in
        # those that load it: unrounded, a training resumed in another would end elsewhere.
        labels = head_rotations(self.points, scheme.name if scheme else None)
        self.rotations: Doubles = np.round(labels, 5)
        self.mirror = None if scheme is None else np.asarray(scheme.mirror)
        self._cache: dict[int, _Face] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.annotations)

    @property
    def fingerprint(self) -> str:
        """Digest of names and landmarks: a training resumes on the data it was started on."""
        digest = hashlib.sha256()
        for annotation in self.annotations:
            digest.update(annotation.name.encode("utf-8"))
        digest.update(self.points.tobytes())
        return digest.hexdigest()

    def load(self, progress: bool = False) -> None:
        """Decode every image now: a broken one is reported before a training starts."""
        for index in tqdm(
            range(len(self)), "reading images", disable=not progress, leave=False, unit="image"
        ):
            self._face(index)

    def sample(self, index: int, rng: np.random.Generator | None = None) -> Batch:
        """One face as a batch of one, augmented when there is a generator.

        ``smoothed`` is a copy of the points; :func:`batches` fills it.
        """
        recipe, size = self.recipe, self.recipe.input_size
        face = self._face(index)
        to_crop = crop_transform(self.boxes[index : index + 1], size, recipe.margin)[0]
        rotation = self.rotations[index]
        order: npt.NDArray[np.intp] | slice = slice(None)
        if rng is not None:
            geometry = draw_geometry(rng, recipe, self.mirror is not None)
            to_crop = compose_affine(geometry.matrix, to_crop)
            if geometry.mirrored and self.mirror is not None:
                order, rotation = self.mirror, mirror_rotation(rotation)
            rotation = turn_rotation(rotation, geometry.angle)
        points = np.asarray(apply_affine(to_crop, self.points[index])[order], np.float64)
        from_face = compose_affine(to_crop, invert_affine(face.matrix))
        pixels = crop(face.pixels, from_face, size)
        if rng is not None:
            pixels = photometric(pixels, rng, recipe)
        angles = np.deg2rad(rotation_to_euler(rotation[None]))
        return Batch(pixels[None], points[None], points[None].copy(), angles)

    def _face(self, index: int) -> _Face:
        """The part of the photo that augmentation can reach, no finer than twice the crop."""
        if index in self._cache:
            return self._cache[index]
        annotation, recipe = self.annotations[index], self.recipe
        assert annotation.image is not None  # checked when the dataset was made
        face = _reachable_part(read_image(annotation.image), self.boxes[index], recipe)
        if self._cached_bytes + face.pixels.nbytes <= _CACHE_BYTES:
            self._cache[index] = face
            self._cached_bytes += face.pixels.nbytes
        return face


def _reachable_part(image: npt.NDArray[np.uint8], box: Doubles, recipe: Recipe) -> _Face:
    side = recipe.margin * max(box[2], box[3])
    reach = side * np.sqrt(2) * (0.5 + recipe.shift) * np.exp(recipe.scale) + 2
    centre = box[:2] + box[2:] / 2
    height, width = image.shape[:2]
    # A face outside its photo still gets one row and column to replicate.
    x0, y0 = np.clip(np.floor(centre - reach), 0, [width - 1, height - 1]).astype(int)
    x1, y1 = np.clip(np.ceil(centre + reach), [x0, y0], [width - 1, height - 1]).astype(int)
    factor = max(1, int(side / (2 * recipe.input_size)))
    part = shrink(image[y0 : y1 + 1, x0 : x1 + 1], factor)
    # Pixel centres: f×f pixels become one, whose centre is their common centre.
    offset = -(np.array([x0, y0]) + (factor - 1) / 2) / factor
    return _Face(np.ascontiguousarray(part), np.column_stack([np.eye(2) / factor, offset]))


def batches(
    dataset: LandmarkDataset, model: ShapeModel | None, epoch: int, n_workers: int = 1
) -> Iterator[Batch]:
    """The augmented batches of an epoch, made ahead by threads, the same for any number of them.

    The shape model smooths the landmarks after augmentation, which is right in both of its frames
    and costs about a microsecond a face.
    """
    recipe = dataset.recipe
    order = np.random.default_rng([recipe.seed, epoch]).permutation(len(dataset))
    size = min(recipe.batch_size, len(order))
    # A last batch of fewer would give its faces more weight and upset batch norm.
    rows = order[: len(order) // size * size].reshape(-1, size)

    def make(indices: npt.NDArray[np.intp]) -> Batch:
        samples = [
            dataset.sample(i, np.random.default_rng([recipe.seed, epoch, i])) for i in indices
        ]
        batch = Batch(*(np.concatenate(parts) for parts in zip(*samples, strict=True)))
        if model is None:
            return batch
        return batch._replace(smoothed=np.asarray(model.smooth(batch.points), np.float64))

    with ThreadPoolExecutor(n_workers) as pool:
        waiting: deque[Future[Batch]] = deque()
        for indices in rows:
            waiting.append(pool.submit(make, indices))
            if len(waiting) > n_workers + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


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
