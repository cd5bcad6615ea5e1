"""Training crops whose pixels are made on the device that trains: augmentation on a GPU.

Where a crop lies, its labels, and what happens to its light are drawn by the processor, for a whole
batch at once. To look the crops up in the photos, which lie on the device, and to change light and
sharpness, add noise and cover parts are tensor operations there. All is distributed as in
:meth:`asmkit.nn.data.LandmarkDataset.sample`, but drawn anew. Crops of new shapes and crops without
a face are cut by the processor, one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from asmkit.boxes import apply_affine, compose_affine, crop_transform, invert_affine
from asmkit.model import ShapeModel
from asmkit.nn.augment import (
    COVER_AXES,
    COVER_GRAIN,
    NOISE,
    TURNS,
    blur_widths,
    crop_similarity,
    mirror_rotation,
    turn_rotation,
)
from asmkit.nn.data import DeviceBatch, LandmarkDataset, ahead, overlap_of, rows_of_batches
from asmkit.nn.negatives import LEAST_CROP, face_label
from asmkit.nn.recipe import Recipe
from asmkit.rotations import rotation_to_euler

__all__ = ["DeviceCrops"]

Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]

#: Weights of red, green and blue in a grey.
_GREY = (0.299, 0.587, 0.114)


class _Light(NamedTuple):
    """What happens to the colours and the sharpness of crops."""

    #: (b,)
    grey: Bools
    #: (b, 3)
    gains: Doubles
    #: (b,)
    brightness: Doubles
    #: (b,) standard deviation of the blur in pixels, 0 for none
    blur: Doubles
    #: (b,) standard deviation of the grain, 0 for none
    noise: Doubles

    @classmethod
    def draw(cls, rng: np.random.Generator, recipe: Recipe, count: int) -> _Light:
        contrast = rng.uniform(1 - recipe.contrast, 1 + recipe.contrast, (count, 1))
        colour = rng.uniform(1 - recipe.colour, 1 + recipe.colour, (count, 3))
        blurred, noisy = rng.random(count) < recipe.blur, rng.random(count) < recipe.noise
        return cls(
            grey=rng.random(count) < recipe.grey,
            gains=contrast * colour,
            brightness=rng.uniform(-recipe.brightness, recipe.brightness, count),
            blur=np.where(blurred, rng.uniform(*blur_widths(recipe.input_size), count), 0.0),
            noise=np.where(noisy, rng.uniform(*NOISE, count), 0.0),
        )


class _Covers(NamedTuple):
    """One ellipse or rectangle over each of some crops."""

    #: (b,) whether there is one
    there: Bools
    #: (b, 2) in pixels of the crop
    centre: Doubles
    #: (b, 2) half lengths
    axes: Doubles
    #: (b,) radians, from x towards y
    angle: Doubles
    #: (b,) else a rectangle
    ellipse: Bools

    @classmethod
    def draw(cls, rng: np.random.Generator, chance: float, count: int, size: int) -> _Covers:
        return cls(
            there=rng.random(count) < chance,
            centre=rng.uniform(0, size, (count, 2)),
            axes=rng.uniform(*COVER_AXES, (count, 2)) * size,
            angle=rng.uniform(0, np.pi, count),
            ellipse=rng.random(count) < 0.5,
        )

    def lie_over(self, points: Tensor) -> Tensor:
        """Which of points ``(b, n, 2)``, or of ``(n, 2)`` in every crop, are covered ``(b, n)``."""
        there, centre, axes, angle, ellipse = (_on(points.device, values) for values in self)
        axes = axes + 0.5  # OpenCV fills a pixel of the edge whole
        away = points - centre[:, None]
        cos, sin = torch.cos(angle)[:, None], torch.sin(angle)[:, None]
        along = (cos * away[..., 0] + sin * away[..., 1]) / axes[:, :1]
        across = (cos * away[..., 1] - sin * away[..., 0]) / axes[:, 1:]
        round_ = along.square() + across.square() <= 1
        square = torch.maximum(along.abs(), across.abs()) <= 1
        return torch.where(ellipse[:, None], round_, square) & there[:, None]


class _Plan(NamedTuple):
    """All of a batch but its images, and how they are made."""

    #: (b,) numbers of the photos
    photos: Indices
    #: (b, 2, 3) crop to photo
    back: Doubles
    #: crops that were cut already: their rows, and they (k, s, s, 3)
    ready: tuple[Indices, npt.NDArray[np.uint8]]
    light: _Light
    flat: _Covers
    #: (b, 3) and (b,) colour and grain of the first covers
    colour: Doubles
    grain: Doubles
    pieces: _Covers
    #: (b,) and (b, 2, 3) of which photo the second covers are pieces, and crop to photo
    others: Indices
    others_back: Doubles
    seed: int
    #: of the batch, in its order
    labels: tuple[Doubles, ...]


class DeviceCrops:
    """The batches of a data set, made on a device.

    Parameters
    ----------
    dataset : LandmarkDataset
        Every photo of it is decoded, and the part that augmentation can reach laid on the device.
    device : torch.device
    """

    def __init__(self, dataset: LandmarkDataset, device: torch.device) -> None:
        self._dataset, self._device = dataset, device
        photos = [dataset.photo(index) for index in range(len(dataset))]
        self._to_photo: Doubles = np.stack([photo.matrix for photo in photos])
        self._shapes = np.array([photo.pixels.shape[:2] for photo in photos])
        lengths = self._shapes.prod(1)
        starts = np.concatenate([[0], np.cumsum(lengths[:-1])])
        # One after another in one array: photos have many sizes.
        self._pixels = torch.empty((int(lengths.sum()), 3), dtype=torch.uint8, device=device)
        for start, length, photo in zip(starts, lengths, photos, strict=True):
            self._pixels[start : start + length] = torch.from_numpy(photo.pixels.reshape(-1, 3))
        self._places = torch.from_numpy(np.column_stack([starts, self._shapes])).to(device)

    def batches(
        self,
        model: ShapeModel | None,
        epoch: int,
        *,
        negatives: float = 0.0,
        covers: float = 0.0,
        part: int = 0,
        n_parts: int = 1,
        n_workers: int = 1,
    ) -> Iterator[DeviceBatch]:
        """As :func:`asmkit.nn.data.batches`, with the images on the device."""
        plan = partial(self._plan, model, epoch, negatives, covers, part, n_parts)
        rows = rows_of_batches(self._dataset, epoch, n_parts)
        for made in ahead(plan, enumerate(rows), n_workers):
            yield DeviceBatch(self._images(made), *made.labels)

    # -- on the processor

    def _plan(
        self,
        model: ShapeModel | None,
        epoch: int,
        negatives: float,
        covers: float,
        part: int,
        n_parts: int,
        numbered: tuple[int, Indices],
    ) -> _Plan:
        number, everything = numbered
        dataset, recipe = self._dataset, self._dataset.recipe
        size, count = recipe.input_size, len(everything)
        # Drawn for all parts of the batch, so that none depends on how it was dealt out. From 1
        # on: a last 0 would make the stream that of the numbers before it.
        rng = np.random.default_rng([recipe.seed, epoch, 1 + number])
        none = rng.random(count) < negatives
        new = (rng.random(count) < recipe.asm_warp) & ~none
        angle = np.deg2rad(np.clip(rng.normal(0.0, 1.0, count), -TURNS, TURNS) * recipe.rotation)
        scale = np.exp(rng.uniform(-recipe.scale, recipe.scale, count))
        shift = rng.uniform(-recipe.shift, recipe.shift, (count, 2)) * size
        mirrored = (rng.random(count) < recipe.mirror) & (dataset.mirror is not None)
        light = _Light.draw(rng, recipe, count)
        flat = _Covers.draw(rng, recipe.occlusion, count, size)
        colour, grain = rng.uniform(0, 255, (count, 3)), rng.uniform(0, COVER_GRAIN, count)
        pieces = _Covers.draw(rng, covers, count, size)
        pieces = pieces._replace(there=pieces.there & ~none)
        others = rng.integers(len(dataset), size=count)
        sides = self._shapes[others].min(1) * np.exp(rng.uniform(np.log(LEAST_CROP), 0.0, count))
        corner = rng.uniform(0, 1, (count, 2)) * (self._shapes[others][:, ::-1] - sides[:, None])
        others_back = np.concatenate(
            [(sides / size)[:, None, None] * np.eye(2), corner[..., None]], 2
        )
        seed = int(rng.integers(2**62)) + part

        moves = crop_similarity(angle, scale, shift, mirrored, size)
        boxes = dataset.boxes[everything]
        to_crop = compose_affine(moves, crop_transform(boxes, size, recipe.margin))
        points = np.asarray(apply_affine(to_crop, dataset.points[everything]), np.float64)
        rotations = dataset.rotations[everything]
        if dataset.mirror is not None:
            points[mirrored] = points[mirrored][:, dataset.mirror]
            rotations = np.where(mirrored[:, None, None], mirror_rotation(rotations), rotations)
        angles = np.deg2rad(rotation_to_euler(turn_rotation(rotations, angle)))
        face = face_label(overlap_of(moves, size, recipe.margin))
        back = compose_affine(self._to_photo[everything], invert_affine(to_crop))

        mine = np.arange(count)[part::n_parts]
        ready, crops = [], []
        for row in mine[(none | new)[mine]]:
            index = int(everything[row])
            own = np.random.default_rng([recipe.seed, epoch, 1 + number, 1 + row])
            if none[row]:
                crops.append(dataset.no_face(index, own))
                points[row], angles[row], face[row] = np.nan, np.nan, 0.0
            else:
                cut = dataset.cut(index, own, dataset.new_shape(index, own))
                crops.append(cut.images[0])
                points[row], angles[row], face[row] = cut.points[0], cut.angles[0], cut.face[0]
            ready.append(row)
        rows = np.searchsorted(mine, np.array(ready, np.intp))
        cut_already = np.stack(crops) if crops else np.empty((0, size, size, 3), np.uint8)

        nearest = torch.from_numpy(np.rint(points)).float()
        covered = (flat.lie_over(nearest) | pieces.lie_over(nearest)).numpy()
        inside = ((nearest >= 0) & (nearest < size)).all(2).numpy()
        visible = np.where(inside, np.where(covered, 0.0, 1.0), np.nan)
        smoothed, labelled = points.copy(), np.isfinite(points).all((1, 2))
        labelled &= np.isin(np.arange(count), mine)
        if model is not None and labelled.any():
            smoothed[labelled] = model.smooth(points[labelled])

        return _Plan(
            photos=everything[mine],
            back=back[mine],
            ready=(rows, cut_already),
            light=_Light._make(values[mine] for values in light),
            flat=_Covers._make(values[mine] for values in flat),
            colour=colour[mine],
            grain=grain[mine],
            pieces=_Covers._make(values[mine] for values in pieces),
            others=others[mine],
            others_back=others_back[mine],
            seed=seed,
            labels=tuple(values[mine] for values in (points, smoothed, angles, face, visible)),
        )

    # -- on the device

    def _images(self, plan: _Plan) -> Tensor:
        """The images ``(b, s, s, 3)`` uint8 of a plan."""
        size = self._dataset.recipe.input_size
        noise = partial(
            torch.randn,
            generator=torch.Generator(self._device).manual_seed(plan.seed),
            device=self._device,
        )
        images = self._look_up(plan.photos, plan.back)
        rows, crops = plan.ready
        if len(rows):
            images[_on(self._device, rows)] = _on(self._device, crops).float()
        images = self._lit(images, plan.light, noise)
        if plan.flat.there.any():
            grain = noise((len(images), size, size, 1)) * self._of_crops(plan.grain)
            flat = (self._of_crops(plan.colour) + grain).clamp(0, 255)
            images = torch.where(self._mask(plan.flat), flat, images)
        if plan.pieces.there.any():
            others = self._look_up(plan.others, plan.others_back)
            images = torch.where(self._mask(plan.pieces), others, images)
        return images.to(torch.uint8)

    def _of_crops(self, values: npt.NDArray[Any]) -> Tensor:
        """A number ``(b,)`` or a colour ``(b, 3)`` of each crop, as it goes with the images."""
        return _on(self._device, values).reshape(len(values), 1, 1, -1)

    def _mask(self, covers: _Covers) -> Tensor:
        size = self._dataset.recipe.input_size
        pixels = torch.arange(size, device=self._device)
        grid = torch.stack(torch.meshgrid(pixels, pixels, indexing="xy"), -1).reshape(-1, 2)
        return covers.lie_over(grid).reshape(-1, size, size, 1)

    def _look_up(self, photos: Indices, back: Doubles) -> Tensor:
        """Crops ``(b, s, s, 3)`` of whole numbers, bilinear; beyond a photo its border goes on.

        Where a crop shrinks its photo by a factor of two or more, each pixel is the mean of four
        places in it.
        """
        size = self._dataset.recipe.input_size
        start, height, width = (
            values.reshape(-1, 1, 1) for values in self._places[_on(self._device, photos)].unbind(1)
        )
        shrinks = np.sqrt(np.abs(np.linalg.det(back[:, :, :2]))) >= 2
        spread = _on(self._device, np.where(shrinks, 0.25, 0.0))[:, None, None]
        matrix = _on(self._device, back)[..., None, None]
        steps = torch.arange(size, device=self._device, dtype=torch.float32)
        corners = (-1, 1) if shrinks.any() else (0,)
        total = torch.zeros((len(photos), size, size, 3), device=self._device)
        for right in corners:
            for down in corners:
                u, v = steps + right * spread, steps[:, None] + down * spread
                x, y = (m[:, 0] * u + m[:, 1] * v + m[:, 2] for m in matrix.unbind(1))
                x = torch.minimum(x.clamp(min=0), width - 1.0)
                y = torch.minimum(y.clamp(min=0), height - 1.0)
                left, top = x.long(), y.long()
                across, along = (x - left)[..., None], (y - top)[..., None]
                near = torch.minimum(left + 1, width - 1)
                low = torch.minimum(top + 1, height - 1)
                upper, lower = start + top * width, start + low * width
                one, two = self._pixels[upper + left].float(), self._pixels[upper + near].float()
                three, four = self._pixels[lower + left].float(), self._pixels[lower + near].float()
                first, second = one + across * (two - one), three + across * (four - three)
                total += first + along * (second - first)
        return (total / len(corners) ** 2).round()

    def _lit(self, images: Tensor, light: _Light, noise: Callable[..., Tensor]) -> Tensor:
        if light.grey.any():
            grey = (images @ images.new_tensor(_GREY)).round()[..., None]
            images = torch.where(self._of_crops(light.grey), grey, images)
        shift = 128 + self._of_crops(light.brightness)
        shifted = (images - 128) * self._of_crops(light.gains) + shift
        images = shifted.clamp(0, 255).floor()
        rows = np.flatnonzero(light.blur)
        if len(rows):
            chosen = _on(self._device, rows)
            images[chosen] = _blurred(images[chosen], _on(self._device, light.blur[rows]))
        if light.noise.any():
            grain = noise(images.shape) * self._of_crops(light.noise)
            images = (images + grain).clamp(0, 255).floor()
        return images


def _on(device: torch.device, values: npt.NDArray[Any]) -> Tensor:
    """On a device, where numbers are float32."""
    tensor = torch.from_numpy(values)
    return (tensor.float() if tensor.is_floating_point() else tensor).to(device, non_blocking=True)


def _blurred(images: Tensor, widths: Tensor) -> Tensor:
    """Crops ``(k, s, s, 3)`` under Gaussians of the standard deviations ``widths (k,)``."""
    count, size = images.shape[:2]
    radius = math.ceil(3 * max(blur_widths(size)))
    places = torch.arange(-radius, radius + 1, device=images.device)
    weights = torch.exp(-0.5 * (places / widths[:, None]).square())
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(3, 0)
    layers = images.permute(0, 3, 1, 2).reshape(1, 3 * count, size, size)
    layers = functional.pad(layers, (radius,) * 4, mode="reflect")
    for form in ((1, 2 * radius + 1), (2 * radius + 1, 1)):
        layers = functional.conv2d(layers, weights.reshape(-1, 1, *form), groups=3 * count)
    return layers.reshape(count, 3, size, size).permute(0, 2, 3, 1).round()
