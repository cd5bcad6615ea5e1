"""Crops made as tensors are those that the processor makes, and go with their labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_training
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import asmkit
from asmkit.annotations import Annotation
from asmkit.boxes import invert_affine
from asmkit.datasets import SyntheticFaces, synthetic_faces
from asmkit.images import crop
from asmkit.nn import Recipe, device_crops, resume, train, training
from asmkit.nn.checkpoint import TrainingState
from asmkit.nn.data import DeviceBatch, LandmarkDataset, batches
from asmkit.nn.device_crops import DeviceCrops
from asmkit.nn.epoch import stage_batches, train_epoch
from asmkit.nn.initial_state import initial_state
from asmkit.nn.losses import ASMAssistedLoss
from asmkit.nn.preparation import Parts, prepare
from asmkit.nn.processes import Processes
from asmkit.nn.schedule import stage_at

IBUG = asmkit.scheme("ibug68")
CPU = torch.device("cpu")
#: Nothing is changed about a crop.
STILL = Recipe(
    **{"input_size": 48, "batch_size": 8, "rotation": 0.0, "scale": 0.0, "shift": 0.0},
    **{"mirror": 0.0, "grey": 0.0, "contrast": 0.0, "brightness": 0.0, "colour": 0.0},
    **{"blur": 0.0, "noise": 0.0, "occlusion": 0.0},
)
MOVED = replace(STILL, rotation=30.0, scale=0.3, shift=0.1, mirror=0.5)


@pytest.fixture(scope="module")
def faces() -> SyntheticFaces:
    return synthetic_faces(16, 3, size=128)


@pytest.fixture(scope="module")
def annotations(
    faces: SyntheticFaces, tmp_path_factory: pytest.TempPathFactory
) -> list[Annotation]:
    folder = tmp_path_factory.mktemp("faces")
    faces.save(folder)
    return asmkit.read(folder, require_images=True)


def made(
    annotations: list[Annotation], recipe: Recipe, epoch: int = 0, **options: Any
) -> list[DeviceBatch]:
    dataset = LandmarkDataset(annotations, recipe, IBUG)
    return list(DeviceCrops(dataset, CPU).batches(None, epoch, **options))


def test_still_crops_are_those_of_the_processor(annotations: list[Annotation]) -> None:
    dataset = LandmarkDataset(annotations, replace(STILL, input_size=64), IBUG)
    model = asmkit.ShapeModel(5).fit(dataset.points)
    pairs = zip(
        DeviceCrops(dataset, CPU).batches(model, 3), batches(dataset, model, 3), strict=True
    )
    for one, other in pairs:
        for name in ("points", "smoothed", "angles", "face", "visible"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-9)
        assert one.images.dtype == torch.uint8
        apart = np.abs(one.images.numpy().astype(int) - other.images)
        assert apart.max() <= 4  # OpenCV interpolates in steps of 1/32
        assert apart.mean() < 0.3


@pytest.mark.parametrize("scale", [3.0, 1.2, 0.7, 0.45, 0.3])
def test_any_crop_is_that_of_the_processor(annotations: list[Annotation], scale: float) -> None:
    """Turned and mirrored ones, and those that reach beyond the photo, too."""
    dataset = LandmarkDataset(annotations, STILL, IBUG)
    crops = DeviceCrops(dataset, CPU)
    rng = np.random.default_rng(5)
    numbers = rng.integers(len(dataset), size=8)
    angle = rng.uniform(0, 6, 8)
    linear = scale * np.stack(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    ).transpose(2, 0, 1)
    linear[::2, :, 0] *= -1
    matrices = np.concatenate([linear, rng.uniform(-20, 60, (8, 2, 1))], 2)
    found = crops._look_up(numbers, invert_affine(matrices)).numpy()
    for number, matrix, one in zip(numbers, matrices, found, strict=True):
        other = crop(dataset.photo(int(number)).pixels, matrix, 48)
        # Where it shrinks, four places in a pixel stand for the block that the processor averages.
        assert np.abs(one - other).mean() < (0.5 if scale > 0.5 else 5)


def test_landmarks_stay_where_they_are(faces: SyntheticFaces) -> None:
    """However the crop is moved: in photos that show bright spots at the landmarks alone."""
    marked = []
    for image, points in zip(faces.images, faces.points, strict=True):
        spots = np.zeros(image.shape[:2], np.float32)
        for x, y in np.rint(points[[30, 36, 45, 48, 54]]).astype(int):
            spots[y, x] = 1
        spots = cv2.GaussianBlur(spots, (0, 0), 2.0)
        shown = np.repeat((255 * spots / spots.max())[..., None], 3, 2).astype(np.uint8)
        marked.append((shown, points))
    dataset = LandmarkDataset(
        [
            Annotation(name=f"{i}", points=points, image=Path("unread"))
            for i, (_, points) in enumerate(marked)
        ],
        MOVED,
        IBUG,
    )
    with pytest.MonkeyPatch.context() as patch:
        order = iter([shown for shown, _ in marked])
        patch.setattr("asmkit.nn.data.read_image", lambda path: next(order))
        crops = DeviceCrops(dataset, CPU)
    places: list[float] = []
    for epoch in range(4):
        for batch in crops.batches(None, epoch):
            for image, points in zip(batch.images.numpy(), batch.points, strict=True):
                for x, y in np.rint(points[[30, 36, 45, 48, 54]]).astype(int):
                    if 0 <= x < 48 and 0 <= y < 48:
                        places.append(image[y, x].mean())
    assert len(places) > 150
    assert np.median(places) > 150
    assert np.mean(np.array(places) < 60) < 0.02


def test_batches_are_drawn_by_seed_and_epoch(annotations: list[Annotation]) -> None:
    recipe = replace(MOVED, noise=1.0, occlusion=0.5, contrast=0.3)
    first, again, other = (made(annotations, recipe, epoch) for epoch in (0, 0, 1))
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one.images, two.images)
        for values, same in zip(one[1:], two[1:], strict=True):
            np.testing.assert_array_equal(values, same)
    assert not np.array_equal(np.sort(first[0].points[:, 0, 0]), np.sort(other[0].points[:, 0, 0]))


def test_parts_of_a_batch_are_its_rows(annotations: list[Annotation]) -> None:
    recipe = replace(MOVED, contrast=0.3, blur=0.5, grey=0.5, asm_warp=0.4)  # but for the grain
    options = {"negatives": 0.3}
    whole = made(annotations, recipe, **options)
    for part in (0, 1):
        for one, all_ in zip(
            made(annotations, recipe, part=part, n_parts=2, **options), whole, strict=True
        ):
            assert torch.equal(one.images, all_.images[part::2])
            for name in ("points", "angles", "face", "visible"):
                np.testing.assert_array_equal(getattr(one, name), getattr(all_, name)[part::2])


def test_light_is_distributed_as_on_the_processor(annotations: list[Annotation]) -> None:
    recipe = replace(
        STILL,
        **{"grey": 0.3, "contrast": 0.4, "brightness": 40.0, "colour": 0.2},
        **{"blur": 0.3, "noise": 0.5, "occlusion": 0.7},
    )
    dataset = LandmarkDataset(annotations, recipe, IBUG)
    crops = DeviceCrops(dataset, CPU)
    statistics = []
    for batched in (crops.batches, lambda *args, **kw: batches(dataset, *args, **kw)):
        every = [b for epoch in range(40) for b in batched(None, epoch, covers=0.5)]
        images = np.concatenate([np.asarray(b.images) for b in every]).astype(np.float64)
        inner = images[:, 1:-1, 1:-1].mean(3)
        sharp = np.abs(
            4 * inner[:, 1:-1, 1:-1]
            - inner[:, 2:, 1:-1]
            - inner[:, :-2, 1:-1]
            - inner[:, 1:-1, 2:]
            - inner[:, 1:-1, :-2]
        ).mean((1, 2))
        colourful = np.ptp(images, axis=3).mean((1, 2))
        visible = np.concatenate([b.visible for b in every])
        statistics.append(
            [
                images.mean(),
                images.mean((1, 2, 3)).std(),
                np.median(sharp),
                sharp.std(),
                colourful.mean(),
                100 * np.nanmean(visible == 0),
            ]
        )
    np.testing.assert_allclose(*statistics, rtol=0.12)


@pytest.mark.parametrize("size", [48, 112])
def test_a_blur_is_that_of_opencv(size: int, rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    widths = np.array([0.4, 0.5, 0.014 * size])
    found = device_crops._blurred(
        torch.from_numpy(images).float(), torch.from_numpy(widths).float()
    ).numpy()
    for image, width, one in zip(images, widths, found, strict=True):
        other = cv2.GaussianBlur(image, (0, 0), width)
        assert np.abs(one - other).mean() < 1


def test_covers_lie_where_opencv_draws_them(rng: np.random.Generator) -> None:
    size = 96
    covers = device_crops._Covers.draw(rng, 0.9, 40, size)
    pixels = torch.arange(size)
    grid = torch.stack(torch.meshgrid(pixels, pixels, indexing="xy"), -1).reshape(-1, 2)
    masks = covers.lie_over(grid).reshape(-1, size, size).numpy()
    assert covers.ellipse.any()
    assert not covers.ellipse.all()
    for mask, there, centre, axes, angle, ellipse in zip(masks, *covers, strict=True):
        drawn = np.zeros((size, size), np.uint8)
        box = (centre.tolist(), (2 * axes).tolist(), float(np.rad2deg(angle)))
        if ellipse and there:
            cv2.ellipse(drawn, box, 1, -1)
        elif there:
            cv2.fillConvexPoly(drawn, cv2.boxPoints(box).astype(np.int32), 1)
        edge = 8 * axes.sum()  # pixels: twice the way around a rectangle
        assert (mask != (drawn > 0)).sum() <= edge


def test_a_visible_landmark_shows_the_photo(annotations: list[Annotation]) -> None:
    """The same draws with and without covers: where a pixel changed, its landmark is covered."""
    recipe = replace(MOVED, occlusion=1.0)
    changed: list[bool] = []
    for epoch in range(4):
        covered = made(annotations, recipe, epoch, covers=1.0)
        plain = made(annotations, replace(recipe, occlusion=0.0), epoch)
        for one, other in zip(covered, plain, strict=True):
            np.testing.assert_array_equal(one.points, other.points)
            assert np.nanmin(other.visible) == 1
            differ = (one.images != other.images).any(3).numpy()
            seen = np.nonzero(np.isfinite(one.visible))
            x, y = np.rint(one.points[seen]).astype(int).T
            at = differ[seen[0], y, x]
            told = one.visible[seen] == 0
            assert not (at & ~told).any()
            changed.extend(at[told])
    assert len(changed) > 200
    assert np.mean(changed) > 0.95


def test_crops_without_a_face_and_in_new_shapes(annotations: list[Annotation]) -> None:
    still = made(annotations, STILL)
    warped = made(annotations, replace(STILL, asm_warp=1.0))
    none = made(annotations, STILL, negatives=1.0)
    for one, other, third in zip(still, warped, none, strict=True):
        assert np.abs(one.points - other.points).max() > 1
        assert (one.images != other.images).float().mean() > 0.2
        assert np.isnan(third.points).all()
        assert np.isnan(third.visible).all()
        assert not third.face.any()


def test_the_first_of_a_batch_is_drawn_as_the_others_are(annotations: list[Annotation]) -> None:
    """Not by the stream that drew what becomes of the batch."""
    dataset = LandmarkDataset(annotations, STILL, IBUG)
    crops = DeviceCrops(dataset, CPU)
    kinds: dict[int, set[str]] = {0: set(), 3: set()}
    choose = np.random.Generator.choice
    with pytest.MonkeyPatch.context() as patch:
        drawn: list[str] = []

        def no_face(index: int, rng: np.random.Generator) -> np.ndarray:
            drawn.append(str(choose(rng, ["beside", "shuffled", "background"], p=[0.5, 0.2, 0.3])))
            return np.zeros((48, 48, 3), np.uint8)

        patch.setattr(dataset, "no_face", no_face)
        for number in range(150):
            drawn.clear()
            plan = crops._plan(None, 0, 0.5, 0.0, 0, 1, (number, np.arange(8)))
            for row, kind in zip(plan.ready[0], drawn, strict=True):
                if row in kinds:
                    kinds[row].add(kind)
    assert kinds[0] == kinds[3] == {"beside", "shuffled", "background"}


def test_a_stopped_training_resumes_to_the_same_weights(
    faces: SyntheticFaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_onnx: None
) -> None:
    """With crops that are made where the network is."""
    faces.save(tmp_path / "faces")
    monkeypatch.setattr(
        Parts,
        "for_device",
        lambda parts, device, processes: parts._replace(crops=DeviceCrops(parts.training, device)),
    )
    recipe = replace(tiny_training.TINY, epochs=3, noise=0.5, occlusion=0.5, blur=0.5)
    whole = train(tmp_path / "faces", tmp_path / "whole", recipe, threads=1, progress=False)

    def stop(state: TrainingState, *arguments: Any) -> Any:
        if state.epoch == 2:
            raise KeyboardInterrupt
        return one_epoch(state, *arguments)

    one_epoch = training._one_epoch
    with monkeypatch.context() as patch:
        patch.setattr(training, "_one_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "faces", tmp_path / "half", recipe, threads=1, progress=False)
    assert tiny_training.digest(resume(tmp_path / "half", progress=False)) == (
        tiny_training.digest(whole)
    )
    with monkeypatch.context() as patch:  # other crops would be another training
        patch.setattr(Parts, "for_device", lambda parts, device, processes: parts)
        (tmp_path / "half" / "model.json").unlink()
        with pytest.raises(ValueError, match="started with crops"):
            resume(tmp_path / "half", progress=False)


def test_a_training_takes_them(
    annotations: list[Annotation], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(tiny_training.TINY, batch_size=8, validation=0.0)
    parts = prepare(annotations, recipe, progress=False)
    assert parts.for_device(CPU, Processes()) is parts
    monkeypatch.setattr("asmkit.nn.data._CACHE_BYTES", 1)
    assert parts.for_device(torch.device("meta"), Processes()).crops is None  # photos do not fit
    monkeypatch.undo()
    assert parts.for_device(torch.device("meta"), Processes()).crops is not None
    parts = parts._replace(crops=DeviceCrops(parts.training, CPU))
    batch = next(iter(stage_batches(parts, recipe, stage_at(0, recipe), 0, Processes())))
    assert isinstance(batch.images, torch.Tensor)
    state = initial_state(parts, recipe)
    row = train_epoch(state, parts, recipe, ASMAssistedLoss.of(recipe), 0.5)
    assert np.isfinite(row["loss"])
    assert state.step == 2


def test_nothing_is_left_on_the_processor(
    annotations: list[Annotation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tensor of the pipeline is on the GPU, as torch tells without one."""

    class Drawn:
        def __init__(self, device: torch.device) -> None:
            assert device.type == "meta"

        def manual_seed(self, seed: int) -> None:
            return None

    monkeypatch.setattr(torch, "Generator", Drawn)
    recipe = replace(
        MOVED, **{"blur": 1.0, "noise": 1.0, "grey": 1.0, "occlusion": 1.0, "asm_warp": 0.5}
    )
    dataset = LandmarkDataset(annotations, recipe, IBUG)
    with FakeTensorMode(allow_non_fake_inputs=True):
        crops = DeviceCrops(dataset, torch.device("meta"))
    plan = crops._plan(None, 0, 0.3, 1.0, 0, 1, (0, np.arange(8)))
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = crops._images(plan)
    assert images.device.type == "meta"
    assert images.shape == (8, 48, 48, 3)
    assert images.dtype == torch.uint8
