"""A warp takes the image where it takes the landmarks, never folds, and new shapes are labelled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

import asmkit
from asmkit.annotations import Annotation
from asmkit.boxes import compose_affine, crop_transform, invert_affine, landmark_box
from asmkit.datasets import synthetic_faces
from asmkit.images import crop
from asmkit.nn import Recipe, resume, train
from asmkit.nn.asm_warp import NewShapes
from asmkit.nn.data import LandmarkDataset, batches
from asmkit.pose import head_rotations, rotation_to_euler
from asmkit.schemes import scheme
from asmkit.warp import Mesh, crop_warped, warp_to_shape

IBUG = scheme("ibug68")
RECIPE = Recipe(input_size=64, batch_size=4, asm_warp=1.0)
PLAIN: dict[str, float] = dict.fromkeys(("grey", "blur", "noise", "occlusion", "contrast"), 0.0)
PLAIN |= {"brightness": 0.0, "colour": 0.0}
NINE = np.array(
    [
        *([60, 60], [100, 58], [141, 62]),
        *([58, 102], [99, 97], [140, 99]),
        *([62, 139], [101, 143], [138, 140]),
    ],
    float,
)

Doubles = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> list[Annotation]:
    return synthetic_faces(8, 5, size=96).save(tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def dataset(faces: list[Annotation]) -> LandmarkDataset:
    return LandmarkDataset(faces, RECIPE, IBUG)


def texture(rng: np.random.Generator, size: int = 200) -> Image:
    """A smooth picture: its interpolation loses little."""
    noise = rng.uniform(0, 255, (size, size, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 6)
    return np.asarray(cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX), np.uint8)


def dot(at: Doubles, size: int = 200) -> Image:
    """A small bright dot, whose centre of mass is ``at``."""
    y, x = np.indices((size, size))
    grey = 250 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * 0.7**2))
    return np.repeat(np.round(grey).astype(np.uint8)[..., None], 3, axis=2)


def centre_of_mass(image: Image) -> Doubles:
    weight = image[..., 0].astype(float)
    y, x = np.indices(weight.shape)
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


def new_nine(rng: np.random.Generator) -> Doubles:
    return np.asarray(NINE + rng.uniform(-9, 9, NINE.shape))


# -- the warp of an image


def test_a_warp_to_its_own_shape_changes_no_pixel(rng: np.random.Generator) -> None:
    image = texture(rng)
    np.testing.assert_array_equal(warp_to_shape(image, NINE, NINE), image)


@pytest.mark.parametrize("index", range(9))
def test_what_was_at_a_landmark_is_at_its_new_place(rng: np.random.Generator, index: int) -> None:
    new = new_nine(rng)
    found = centre_of_mass(warp_to_shape(dot(NINE[index]), NINE, new))
    np.testing.assert_allclose(found, new[index], atol=0.5)
    assert np.linalg.norm(found - NINE[index]) > 1


def test_what_lies_beyond_the_ring_stays(rng: np.random.Generator) -> None:
    image = texture(rng, 300)
    warped = warp_to_shape(image, NINE + 50, new_nine(rng) + 50)
    y, x = np.indices(image.shape[:2])
    away = np.hypot(*(NINE - NINE.mean(axis=0)).T).max()
    from_centre = np.hypot(x - NINE[:, 0].mean() - 50, y - NINE[:, 1].mean() - 50)
    beyond = from_centre > 1.6 * away
    np.testing.assert_array_equal(warped[beyond], image[beyond])
    assert (warped != image)[from_centre < away].mean() > 0.5


def test_a_linear_picture_is_warped_exactly(rng: np.random.Generator) -> None:
    """Of a picture of the coordinates the warp shows where each pixel came from.

    The map back is then known everywhere: it takes the new landmarks to the old ones, and no
    triangle of neighbouring pixels is turned over.
    """
    y, x = np.indices((200, 200))
    image = np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8)
    new = np.round(new_nine(rng))
    warped = warp_to_shape(image, NINE, new)[..., :2].astype(float)
    at = new.astype(int)
    np.testing.assert_allclose(warped[at[:, 1], at[:, 0]], NINE, atol=0.6)  # levels are whole
    coarse = warped[::6, ::6]  # six pixels: far beyond the rounding of levels
    right, down = np.diff(coarse, axis=1)[:-1], np.diff(coarse, axis=0)[:, :-1]
    assert (right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0] > 0).all()


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_similarity_carries_the_warp_along(rng: np.random.Generator, mirrored: bool) -> None:
    image, new = texture(rng), new_nine(rng)
    cos, sin = 0.9 * np.cos(0.6), 0.9 * np.sin(0.6)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    centre = np.full(2, 99.5)
    matrix = np.column_stack([linear, centre - linear @ centre])

    def moved(points: Doubles) -> Doubles:
        return np.asarray(points @ linear.T + matrix[:, 2])

    first = crop(warp_to_shape(image, NINE, new), matrix, 200)
    then = warp_to_shape(crop(image, matrix, 200), moved(NINE), moved(new))
    middle = slice(20, 180)
    difference = np.abs(first.astype(int) - then)[middle, middle]
    assert difference.max() <= 8  # two interpolations in another order
    assert np.abs(first.astype(int) - crop(image, matrix, 200))[middle, middle].max() > 40


def test_warping_and_cropping_is_one_step(rng: np.random.Generator) -> None:
    image, new = texture(rng), new_nine(rng)
    matrix = np.array([[0.5, 0.2, 5.0], [-0.2, 0.5, 30.0]])
    for affine in (matrix, np.diag([-1.0, 1.0]) @ matrix + [[0, 0, 110], [0, 0, 0]]):
        warp = Mesh.over(NINE).warp(new - NINE)
        once = crop_warped(image, affine, 90, warp).astype(int)
        twice = crop(warp_to_shape(image, NINE, new), affine, 90)
        assert np.abs(once - twice).max() <= 10
        assert np.abs(crop(image, affine, 90).astype(int) - twice).max() > 40


def test_a_crop_of_a_much_larger_image_is_averaged_before(rng: np.random.Generator) -> None:
    """The coarse crop of a warped picture is the warp of the coarse picture."""
    image, new = texture(rng, 800), new_nine(rng)
    matrix = np.array([[0.25, 0.0, -0.375], [0.0, 0.25, -0.375]])
    warp = Mesh.over(4 * NINE + 1.5).warp(4 * (new - NINE))
    coarse = crop_warped(image, matrix, 200, warp).astype(int)
    expected = warp_to_shape(crop(image, matrix, 200), NINE, new)
    assert np.abs(coarse - expected).max() <= 6


def test_missing_points_take_no_part(rng: np.random.Generator) -> None:
    image, new = texture(rng), new_nine(rng)
    here, there = NINE.copy(), new.copy()
    here[2, 0], there[5] = np.nan, np.nan
    kept = [0, 1, 3, 4, 6, 7, 8]
    expected = warp_to_shape(image, NINE[kept], new[kept])
    np.testing.assert_array_equal(warp_to_shape(image, here, there), expected)
    mesh = Mesh.over(here)
    found = mesh.landmarks(mesh.warp(new - here))
    assert np.isnan(found[2]).all()
    np.testing.assert_allclose(np.delete(found, 2, 0), np.delete(new, 2, 0), atol=1e-12)


def test_points_in_one_place_move_together_or_not_at_all(rng: np.random.Generator) -> None:
    image, new = texture(rng), new_nine(rng)
    twice, new_twice = np.vstack([NINE, NINE[4]]), np.vstack([new, new[4]])
    once = warp_to_shape(image, NINE, new)
    np.testing.assert_array_equal(warp_to_shape(image, twice, new_twice), once)
    new_twice[-1] += 3
    with pytest.raises(ValueError, match=r"points \[4, 9\] lie in one place"):
        warp_to_shape(image, twice, new_twice)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(NINE[::-1], id="turned upside down"),
        pytest.param(NINE[[0, 1, 2, 3, 5, 4, 6, 7, 8]], id="two change places"),
        pytest.param(NINE[[0, 1, 2, 3, 3, 5, 6, 7, 8]], id="two become one"),
        pytest.param(NINE + 150, id="out of the ring"),
    ],
)
def test_a_fold_is_refused(rng: np.random.Generator, wrong: Doubles) -> None:
    with pytest.raises(ValueError, match="would fold over"):
        warp_to_shape(texture(rng), NINE, wrong)


@pytest.mark.parametrize(
    ("points", "new", "message"),
    [
        (NINE, NINE[:8], "expected 9"),
        (np.zeros((4, 3)), np.zeros((4, 3)), "expected 2-D"),
        (np.full((4, 2), 7.0), np.full((4, 2), 7.0), "at least 2"),
        (NINE, np.full((9, 2), np.nan), "at least 2"),
        (NINE, NINE * np.inf, "infinite"),
    ],
)
def test_what_cannot_be_warped_is_named(points: Doubles, new: Doubles, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        warp_to_shape(np.zeros((200, 200, 3), np.uint8), points, new)


def test_a_fold_is_settled_by_smaller_steps_there_alone() -> None:
    """Lids that would pass through each other stop; a landmark far away moves all the way."""
    moves = np.zeros((9, 2))
    moves[4] = [60, 0]  # through its neighbour on the right, number 5
    moves[0] = [-4, -3]
    mesh = Mesh.over(NINE)
    asked = mesh.warp(moves)
    assert asked.strained().any()
    warp = mesh.settled(asked, 0.1, 4.0)
    assert warp is not None
    assert not warp.strained(0.1, 4.0).any()
    found = mesh.landmarks(warp) - NINE
    assert 0 < found[4, 0] < 60
    np.testing.assert_array_equal(warp.target[-16:], warp.source[-16:])
    np.testing.assert_allclose(found[6], moves[6], atol=1e-12)
    sound = mesh.warp(moves / 20)
    assert mesh.settled(sound, 0.1, 4.0) is sound


@pytest.mark.parametrize("folds", [False, True])
def test_strain_is_that_of_the_linear_maps(rng: np.random.Generator, folds: bool) -> None:
    """The bounds are those of the singular values, the smaller one negative in a fold."""
    mesh = Mesh.over(NINE)
    warp = mesh.warp(rng.uniform(-40, 40, NINE.shape) if folds else new_nine(rng) - NINE)
    before, after = (
        np.swapaxes(np.diff(corners[mesh.triangles], axis=1), 1, 2)
        for corners in (warp.source, warp.target)
    )
    linear = after @ np.linalg.inv(before)
    values = np.linalg.svd(linear, compute_uv=False)
    values[:, 1] *= np.sign(np.linalg.det(linear))
    for narrowest, widest in ((0.5, 2.0), (0.9, 1.5), (0.0, np.inf)):
        expected = (values[:, 1] < narrowest) | (values[:, 0] > widest)
        np.testing.assert_array_equal(warp.strained(narrowest, widest), expected)
    assert warp.strained(0.0).any() == folds


# -- new shapes in training


def test_new_shapes_are_sound_near_and_of_the_size_asked_for(dataset: LandmarkDataset) -> None:
    moved = {}
    for size in (0.25, 0.5):
        shapes = NewShapes(dataset.points, size, dataset.mirror)
        drawn = [shapes.draw(i, np.random.default_rng(i)) for i in range(len(dataset))]
        found = [new for new in drawn if new is not None]
        assert len(found) == len(dataset)
        assert not any(new.warp.strained(0.1, 4.0).any() for new in found)
        differences = np.stack([new.points for new in found]) - dataset.points
        moved[size] = np.linalg.norm(differences, axis=2).mean()
    assert 0.5 < moved[0.25] < moved[0.5] < 2.2 * moved[0.25]
    assert NewShapes(dataset.points, 0.0, dataset.mirror).draw(0, np.random.default_rng(0)) is None


def test_a_small_move_is_one_of_the_model(dataset: LandmarkDataset) -> None:
    """The drawn difference lies in the span of the modes, in the pose of the face."""
    shapes = NewShapes(dataset.points, 0.05, dataset.mirror)
    model = asmkit.ShapeModel(0.98, mirror="ibug68").fit(dataset.points)
    new = shapes.draw(2, np.random.default_rng(1))
    assert new is not None
    pose = asmkit.similarity(model.mean_, dataset.points[2])
    move = (new.points - dataset.points[2]) @ pose.matrix[:2, :2] / pose.scale**2
    within = model.components_.T @ (model.components_ @ move.ravel())
    np.testing.assert_allclose(within, move.ravel(), atol=1e-9 * np.abs(move).max())


def test_labels_are_those_of_the_new_shape(faces: list[Annotation]) -> None:
    """Landmarks, crop and pose of a sample are those of an image that shows the new shape."""
    unlabelled = [replace(face, attributes={}) for face in faces]
    recipe = replace(RECIPE, **PLAIN, rotation=0.0, scale=0.0, shift=0.0, mirror=0.0)
    dataset = LandmarkDataset(unlabelled, recipe, IBUG)
    for index in range(3):
        sample = dataset.sample(index, np.random.default_rng(index))
        box = landmark_box(sample.points[0])
        np.testing.assert_allclose(box[:2] + box[2:] / 2, 31.5, atol=1e-9)
        np.testing.assert_allclose(box[2:].max(), 64 / recipe.margin, atol=1e-9)
        solved = rotation_to_euler(head_rotations(sample.points, "ibug68"))
        np.testing.assert_allclose(np.rad2deg(sample.angles), solved, atol=1e-2)
        assert np.abs(dataset.sample(index).points - sample.points).max() > 1
        # The picture is the photo, warped as the landmarks say.
        new = dataset._new_shape(index, np.random.default_rng(index))
        assert new is not None
        to_crop = crop_transform(landmark_box(new.points)[None], 64)[0]
        np.testing.assert_allclose(sample.points[0], _apply(to_crop, new.points), atol=1e-9)
        image = asmkit.read_image(str(faces[index].image))
        shown = crop(warp_to_shape(image, dataset.points[index], new.points), to_crop, 64)
        assert np.abs(shown.astype(int) - sample.images[0]).mean() < 2
        assert np.abs(crop(image, to_crop, 64).astype(int) - sample.images[0]).mean() > 4


def _apply(matrix: Doubles, points: Doubles) -> Doubles:
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2])


def test_a_given_pose_label_turns_as_the_landmarks_do(faces: list[Annotation]) -> None:
    """Where labels are a fixed turn away from the poses of the points, they stay so."""
    turn = asmkit.pose.euler_to_rotation([[0.0, 4.0, 0.0]])[0]
    poses = head_rotations(np.stack([face.points for face in faces]), "ibug68")
    given = rotation_to_euler(poses @ turn)
    labelled = [
        replace(face, attributes={"euler": tuple(angles)})
        for face, angles in zip(faces, given, strict=True)
    ]
    dataset = LandmarkDataset(labelled, replace(RECIPE, mirror=0.0), IBUG)
    for index in range(4):
        sample = dataset.sample(index, np.random.default_rng(index))
        solved = head_rotations(sample.points, "ibug68") @ turn
        expected = rotation_to_euler(solved)
        np.testing.assert_allclose(np.rad2deg(sample.angles), expected, atol=1e-2)
    # Without a scheme nobody knows how the new shape has turned.
    unknown = LandmarkDataset(labelled, RECIPE, None)
    assert np.isnan(unknown.sample(0, np.random.default_rng(0)).angles).all()


def test_the_same_seed_gives_the_same_batches(dataset: LandmarkDataset) -> None:
    one, three = (list(batches(dataset, None, 1, n_workers=n)) for n in (1, 3))
    again = list(batches(LandmarkDataset(dataset.annotations, RECIPE, IBUG), None, 1))
    for a, b, c in zip(one, three, again, strict=True):
        for left, middle, right in zip(a, b, c, strict=True):
            np.testing.assert_array_equal(left, middle)
            np.testing.assert_array_equal(left, right)
    other = next(iter(batches(dataset, None, 2)))
    assert not np.array_equal(other.images, one[0].images)


def test_all_else_is_drawn_as_without_new_shapes(
    faces: list[Annotation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the chance says no, and where the size is 0, a sample is that of asm_warp = 0.

    And with asm_warp = 0 nothing is drawn for new shapes at all.
    """
    drawn: list[float] = []
    photometric = asmkit.nn.data.photometric

    def watched(image: Image, rng: np.random.Generator, recipe: Recipe) -> Image:
        drawn.append(float(np.random.Generator(_copy(rng.bit_generator)).random()))
        return photometric(image, rng, recipe)

    monkeypatch.setattr("asmkit.nn.data.photometric", watched)
    sets = [
        LandmarkDataset(faces, replace(RECIPE, asm_warp=chance, asm_warp_size=size), IBUG)
        for chance, size in ((0.0, 1.0), (0.5, 1.0), (1.0, 0.0))
    ]
    changed = []
    for index in range(8):
        off, half, still = (part.sample(index, np.random.default_rng(index)) for part in sets)
        assert len(set(drawn[-3:])) == 1
        np.testing.assert_array_equal(off.points, still.points)
        np.testing.assert_array_equal(off.angles, still.angles)
        np.testing.assert_array_equal(off.images, still.images)
        changed.append(not np.array_equal(off.images, half.images))
        assert changed[-1] == (not np.array_equal(off.points, half.points))
    assert 0 < sum(changed) < 8


def _copy(bits: np.random.BitGenerator) -> np.random.BitGenerator:
    other = type(bits)()
    other.state = bits.state
    return other


def test_without_new_shapes_a_sample_is_what_it_always_was(faces: list[Annotation]) -> None:
    """The plain route, written down here step by step, to the bit."""
    from asmkit.nn.augment import draw_geometry, occlude, photometric

    recipe = replace(RECIPE, asm_warp=0.0)
    dataset = LandmarkDataset(faces, recipe, IBUG)
    for index in range(4):
        sample = dataset.sample(index, np.random.default_rng(index))
        rng = np.random.default_rng(index)
        geometry = draw_geometry(rng, recipe, can_mirror=True)
        face = dataset.photo(index)
        plain = crop_transform(dataset.boxes[index : index + 1], 64, recipe.margin)[0]
        to_crop = compose_affine(geometry.matrix, plain)
        cut = crop(face.pixels, compose_affine(to_crop, invert_affine(face.matrix)), 64)
        expected = photometric(cut, rng, recipe)
        if rng.random() < recipe.occlusion:
            expected, _ = occlude(expected, rng)
        np.testing.assert_array_equal(sample.images[0], expected)
        points = _apply(to_crop, dataset.points[index])
        order = np.array(IBUG.mirror) if geometry.mirrored else slice(None)
        np.testing.assert_allclose(sample.points[0], points[order], atol=1e-9)


class _StoppedError(Exception):
    pass


@pytest.mark.slow
def test_a_training_with_new_shapes_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asmkit.nn import training

    monkeypatch.setattr("asmkit.nn.export.export_onnx", lambda *args: None)
    synthetic_faces(9, 3, size=48).save(tmp_path / "faces")
    recipe = Recipe(width=0.35, input_size=32, epochs=2, batch_size=4, asm_warp=0.7)
    whole = train(tmp_path / "faces", tmp_path / "whole", recipe, threads=1, progress=False)
    one_epoch = training.train_epoch

    def stopping(state, *args):  # type: ignore[no-untyped-def]
        if state.epoch == 1:
            raise _StoppedError
        return one_epoch(state, *args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_epoch", stopping)
        with pytest.raises(_StoppedError):
            train(tmp_path / "faces", tmp_path / "stopped", recipe, threads=1, progress=False)
    resume(tmp_path / "stopped", progress=False)
    weights = [(path / "model.safetensors").read_bytes() for path in (whole, tmp_path / "stopped")]
    assert weights[0] == weights[1]


def test_hands_and_x_rays_have_new_shapes_too(data_dir: Path) -> None:
    for name, suffix in (("hands", "*.pts"), ("ceph", "*_a.pts")):
        paths = sorted((data_dir / name).glob(suffix))[:20]
        points = np.stack([asmkit.read(path)[0].points for path in paths])
        shapes = NewShapes(points, 1.0, None)
        for index in range(len(points)):
            new = shapes.draw(index, np.random.default_rng(index))
            assert new is not None
            assert not new.warp.strained(0.1, 4.0).any()
            assert np.abs(new.points - points[index]).max() > 1


@pytest.fixture(autouse=True)
def _one_opencv_thread() -> Iterator[None]:
    """More threads than this are slower on pictures as small as these."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)
