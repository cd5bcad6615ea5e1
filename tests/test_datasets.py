"""The synthetic faces: what is drawn is where the landmarks say, and the kernels draw it right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import asmkit
from asmkit._kernels.raster import add_noise, blend_layers, rasterize, shade, vertex_normals
from asmkit.datasets import SyntheticFaces, synthetic, synthetic_faces
from asmkit.datasets.face_mesh import face_mesh
from asmkit.datasets.face_modes import face_modes, shape_face
from asmkit.datasets.face_render import draw
from asmkit.datasets.face_sculpt import inside, mirrored
from asmkit.pose import rotation_to_euler
from asmkit.schemes import scheme

Array = npt.NDArray[np.float64]
IBUG68 = scheme("ibug68")
MIRROR = np.array(IBUG68.mirror)


@pytest.fixture(scope="module")
def faces() -> SyntheticFaces:
    return synthetic_faces(120, seed=3)


# The kernels against plain twins


def plain_rasterize(
    vertices: Array, triangles: npt.NDArray[np.int32], attributes: Array, height: int, width: int
) -> tuple[Array, Array]:
    depth = np.full((height, width), np.inf)
    out = np.zeros((height, width, attributes.shape[1]))
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    for corners in triangles:
        system = np.vstack([vertices[corners, :2].T, np.ones(3)])
        if np.linalg.det(system) <= 0:
            continue
        weights = np.concatenate([pixels, np.ones((height, width, 1))], 2) @ np.linalg.inv(system).T
        z = weights @ vertices[corners, 2]
        nearer = (weights >= -1e-9).all(axis=2) & (z < depth)
        depth[nearer] = z[nearer]
        out[nearer] = (weights @ attributes[corners])[nearer]
    return depth, out


def random_scene(rng: np.random.Generator) -> tuple[Array, npt.NDArray[np.int32], npt.NDArray]:
    vertices = rng.uniform([-8, -8, 0], [32, 28, 5], (30, 3))
    triangles = rng.integers(0, 30, (40, 3)).astype(np.int32)
    return vertices, triangles, rng.normal(size=(30, 4)).astype(np.float32)


def test_rasterize_equals_its_plain_twin(rng: np.random.Generator) -> None:
    for _ in range(5):
        vertices, triangles, attributes = random_scene(rng)
        depth = np.full((20, 24), np.inf, np.float32)
        out = np.zeros((20, 24, 4), np.float32)
        rasterize(vertices, triangles, attributes, depth, out)
        plain_depth, plain_out = plain_rasterize(vertices, triangles, attributes, 20, 24)
        assert np.isfinite(depth).mean() > 0.2
        np.testing.assert_array_equal(np.isfinite(depth), np.isfinite(plain_depth))
        np.testing.assert_allclose(depth, plain_depth, rtol=1e-5)
        np.testing.assert_allclose(out, plain_out, atol=1e-4)


def test_rasterize_is_the_same_for_read_only_and_strided_input(rng: np.random.Generator) -> None:
    vertices, triangles, attributes = random_scene(rng)
    results = []
    for points in (vertices, np.repeat(vertices, 2, axis=0)[::2]):
        points.flags.writeable = False
        depth = np.full((20, 24), np.inf, np.float32)
        rasterize(points, triangles, attributes, depth, np.zeros((20, 24, 4), np.float32))
        results.append(depth)
    np.testing.assert_array_equal(results[0], results[1])


def test_rasterize_shows_clockwise_triangles_only() -> None:
    vertices = np.array([[0.0, 0, 1], [4, 0, 1], [0, 4, 1]])
    for corners, covered in (([0, 1, 2], 15), ([0, 2, 1], 0)):
        depth = np.full((5, 5), np.inf, np.float32)
        triangles = np.array([corners], np.int32)
        rasterize(
            vertices, triangles, np.zeros((3, 1), np.float32), depth, np.empty((5, 5, 1), "f")
        )
        assert np.count_nonzero(depth == 1) == covered


def test_rasterize_leaves_no_hole_between_neighbours() -> None:
    rng = np.random.default_rng(1)
    grid = np.stack(np.meshgrid(np.linspace(-2, 42, 12), np.linspace(-2, 42, 12)), -1)
    grid[1:-1, 1:-1] += rng.uniform(-1.5, 1.5, (10, 10, 2))
    vertices = np.c_[grid.reshape(-1, 2).round(), np.ones(144)]  # many samples lie on edges
    corner = (np.arange(11)[:, None] * 12 + np.arange(11)).reshape(-1, 1)
    triangles = np.concatenate([corner + np.array(c) for c in ([0, 1, 13], [0, 13, 12])]).astype(
        np.int32
    )
    depth = np.full((40, 40), np.inf, np.float32)
    rasterize(vertices, triangles, np.zeros((144, 1), "f"), depth, np.empty((40, 40, 1), "f"))
    assert np.isfinite(depth).all()


def test_rasterize_of_nothing_changes_nothing() -> None:
    depth = np.full((3, 3), np.inf, np.float32)
    none = np.empty((0, 3), np.int32)
    rasterize(np.empty((0, 3)), none, np.empty((0, 1), "f"), depth, np.empty((3, 3, 1), "f"))
    assert np.isinf(depth).all()


def test_vertex_normals_equal_their_plain_twin(rng: np.random.Generator) -> None:
    vertices, triangles, _ = random_scene(rng)
    plain = np.zeros((30, 3))
    for a, b, c in triangles:
        for corner in (a, b, c):
            plain[corner] += np.cross(vertices[c] - vertices[a], vertices[b] - vertices[a])
    length = np.linalg.norm(plain, axis=1, keepdims=True)
    plain = np.divide(plain, length, out=plain, where=length > 0)
    normals = np.empty((30, 3), np.float32)
    vertex_normals(vertices, triangles, normals)
    np.testing.assert_allclose(normals, plain, atol=1e-5)


def test_normals_of_the_head_point_outwards() -> None:
    mesh = face_mesh()
    normals = np.empty(mesh.vertices.shape, np.float32)
    vertex_normals(mesh.vertices, mesh.triangles[: mesh.n_bare], normals)
    scalp = (mesh.part == 0) & (mesh.vertices[:, 1] < -3)
    outwards = mesh.vertices[scalp] - [0, -1, 0]
    assert (np.sum(normals[scalp] * outwards, axis=1) > 0).all()


def test_shade_equals_its_plain_twin(rng: np.random.Generator) -> None:
    attributes = rng.normal(size=(8, 10, 6)).astype(np.float32)
    attributes[..., :2] = rng.uniform(-1, 8, (8, 10, 2))
    attributes[..., 5] = rng.uniform(0, 1, (8, 10))
    depth = np.where(rng.random((8, 10)) < 0.7, 1, np.inf).astype(np.float32)
    texture = rng.random((7, 6, 4)).astype(np.float32)
    lights = rng.normal(size=(3, 6)).astype(np.float32)
    lights[1:, :3] /= np.linalg.norm(lights[1:, :3], axis=1, keepdims=True)
    background = rng.random((4, 5, 3)).astype(np.float32)
    image = background.copy()
    shade(attributes, depth, texture, lights, image)
    plain = plain_shade(attributes, depth, texture, lights, background)
    np.testing.assert_allclose(image, plain, atol=1e-4)


def plain_shade(
    attributes: Array, depth: Array, texture: Array, lights: Array, background: Array
) -> Array:
    column, row = (attributes[..., d].clip(0, texture.shape[1 - d] - 1.001) for d in (0, 1))
    c, r = column.astype(int), row.astype(int)
    fc, fr = (column - c)[..., None], (row - r)[..., None]
    texel = (texture[r, c] * (1 - fc) + texture[r, c + 1] * fc) * (1 - fr)
    texel = texel + (texture[r + 1, c] * (1 - fc) + texture[r + 1, c + 1] * fc) * fr
    normal = attributes[..., 2:5]
    normal = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
    open_share = attributes[..., 5:]
    colour = texel[..., :3] * lights[0, 3:] * open_share
    for light in lights[1:]:
        cosine = (normal @ light[:3])[..., None]
        half = light[:3] + np.array([0, 0, -1])
        shine = (normal @ (half / np.linalg.norm(half)))[..., None].clip(0) ** 16
        lit = texel[..., :3] * (cosine + 0.2) / 1.2 + shine * texel[..., 3:]
        colour = colour + (cosine > -0.2) * open_share * lit * light[3:]
    covered = np.isfinite(depth)[..., None]
    height, width = background.shape[:2]
    blocks = np.where(covered, colour, np.repeat(np.repeat(background, 2, 0), 2, 1))
    return np.asarray(blocks.reshape(height, 2, width, 2, 3).mean(axis=(1, 3)))


def test_blend_layers_equals_a_matrix_product(rng: np.random.Generator) -> None:
    dense = rng.normal(size=(50, 6)) * (rng.random((50, 6)) < 0.4)
    texel, layer = np.nonzero(dense)
    starts = np.searchsorted(texel, np.arange(51)).astype(np.int32)
    colours = rng.normal(size=(6, 4)).astype(np.float32)
    out = np.empty((50, 4), np.float32)
    weight = dense[texel, layer].astype(np.float32)
    blend_layers(starts, layer.astype(np.int32), weight, colours, out)
    np.testing.assert_allclose(out, np.maximum(dense @ colours, 0), atol=1e-5)


def test_noise_passes_through_its_grid_and_stays_between(rng: np.random.Generator) -> None:
    grid = rng.normal(size=(4, 5, 2)).astype(np.float32)
    image = np.zeros((13, 17, 3), np.float32)
    add_noise(grid, image)
    np.testing.assert_allclose(image[::4, ::4, :2], grid, atol=1e-5)
    np.testing.assert_allclose(image[2, ::4, :2], (grid[0] + grid[1]) / 2, atol=1e-5)
    assert (image[..., 2] == 0).all()
    assert image.max() <= grid.max() + 1e-6


# The head


def test_the_mean_head_is_its_own_mirror_image() -> None:
    mesh = face_mesh()
    landmarks = mesh.vertices[mesh.landmarks]
    np.testing.assert_array_equal(mirrored(landmarks)[MIRROR], landmarks)
    order = np.lexsort(mesh.vertices.T.round(9))
    other = mirrored(mesh.vertices)
    other_order = np.lexsort((other + 0.0).T.round(9))
    np.testing.assert_allclose(other[other_order], mesh.vertices[order], atol=1e-9)


def test_every_symmetric_mode_keeps_the_head_symmetric() -> None:
    mesh, modes = face_mesh(), face_modes()
    fields = modes.fields.reshape(len(modes.fields), -1, 3)[:, mesh.landmarks]
    names = (*modes.identity, *modes.expression)
    for name, field in zip(names, fields, strict=True):
        uneven = np.abs(mirrored(field)[MIRROR] - field).max()
        if name.startswith("uneven") or name.endswith("eye shut"):
            assert uneven > 0.01, name
        else:
            assert uneven < 1e-9, name


def expressed(**amounts: float) -> Array:
    modes = face_modes()
    expression = np.zeros(len(modes.expression))
    for name, amount in amounts.items():
        expression[modes.expression.index(name.replace("_", " "))] = amount
    landmarks = shape_face(np.zeros(len(modes.identity)), expression)[face_mesh().landmarks]
    return np.asarray(landmarks)


def test_expressions_do_what_their_names_say() -> None:
    rest = expressed()
    opened = expressed(jaw_open=0.25)
    assert opened[8, 1] > rest[8, 1] + 1.5  # the chin drops
    assert opened[66, 1] - opened[62, 1] > 1.5  # the lips part
    np.testing.assert_allclose(opened[17:48], rest[17:48], atol=1e-9)  # nothing else moves
    smile = expressed(smile=1.0)
    assert smile[54, 0] - smile[48, 0] > rest[54, 0] - rest[48, 0] + 0.8
    assert smile[54, 1] < rest[54, 1] - 0.2
    shut = expressed(right_eye_shut=1.0)
    assert (shut[[46, 47], 1] - shut[[44, 43], 1] < 0.15).all()
    np.testing.assert_allclose(shut[36:42], rest[36:42], atol=1e-9)  # the other eye stays open
    assert (expressed(brows_up=1.0)[17:27, 1] < rest[17:27, 1] - 0.2).all()


# The data set


def test_shapes_and_types(faces: SyntheticFaces) -> None:
    n = len(faces)
    assert n == 120
    assert faces.images.shape == (n, 128, 128, 3)
    assert faces.images.dtype == np.uint8
    assert faces.points.shape == (n, 68, 2)
    assert faces.points.dtype == np.float64
    assert faces.points3d.shape == (n, 68, 3)
    assert faces.rotation.shape == (n, 3, 3)
    assert faces.euler.shape == (n, 3)
    assert faces.visibility.shape == (n, 68)
    assert faces.visibility.dtype == np.bool_


def test_the_same_seed_gives_the_same_faces_and_a_prefix_is_stable(faces: SyntheticFaces) -> None:
    again = synthetic_faces(9, seed=3)
    for name in ("images", "points", "points3d", "rotation", "euler", "visibility"):
        np.testing.assert_array_equal(getattr(again, name), getattr(faces, name)[:9])
    other = synthetic_faces(2, seed=4)
    assert not np.array_equal(other.images, faces.images[:2])


def test_threads_do_not_change_the_result(faces: SyntheticFaces) -> None:
    before = asmkit.get_num_threads()
    try:
        asmkit.set_num_threads(3)
        threaded = synthetic_faces(25, seed=3)
    finally:
        asmkit.set_num_threads(before)
    np.testing.assert_array_equal(threaded.images, faces.images[:25])


def test_no_faces_are_an_empty_set(tmp_path: Path) -> None:
    empty = synthetic_faces(0, seed=1)
    assert len(empty) == 0
    assert empty.save(tmp_path) == []


def test_points_are_the_projected_landmarks(faces: SyntheticFaces) -> None:
    turned = np.einsum("nij,npj->npi", faces.rotation, faces.points3d)[..., :2]
    turned = turned - turned.mean(axis=1, keepdims=True)
    placed = faces.points - faces.points.mean(axis=1, keepdims=True)
    scale = np.sum(turned * placed, axis=(1, 2)) / np.sum(turned**2, axis=(1, 2))
    assert (scale > 0).all()
    np.testing.assert_allclose(placed, scale[:, None, None] * turned, atol=1e-9)


def test_the_pose_of_the_points_is_the_pose_of_the_head(faces: SyntheticFaces) -> None:
    for i in range(20):
        pose = asmkit.solve_pnp(
            faces.points[i : i + 1], faces.points3d[i], asmkit.Camera.orthographic()
        )
        np.testing.assert_allclose(pose.rotation[0], faces.rotation[i], atol=1e-6)
        np.testing.assert_allclose(pose.euler()[0], faces.euler[i], atol=1e-4)


def test_euler_belongs_to_rotation_and_covers_the_range(faces: SyntheticFaces) -> None:
    np.testing.assert_allclose(rotation_to_euler(faces.rotation), faces.euler, atol=1e-9)
    assert (np.abs(faces.euler) <= [45, 25, 25]).all()
    assert (np.abs(faces.euler).max(axis=0) > [38, 21, 21]).all()
    # turned to either side alike
    assert (np.abs(faces.euler.mean(axis=0)) < np.array([45, 25, 25]) * 0.2).all()


def test_yaw_pitch_and_roll_turn_the_picture_their_way(faces: SyntheticFaces) -> None:
    box = np.ptp(faces.points, axis=1).max(axis=1)
    eyes = faces.points[:, [36, 39, 42, 45]].mean(axis=1)
    slope = faces.points[:, 45] - faces.points[:, 36]
    tilt = np.degrees(np.arctan2(slope[:, 1], slope[:, 0]))
    aside = (faces.points[:, 30] - eyes)[:, 0] / box
    assert np.corrcoef(tilt, faces.euler[:, 2])[0, 1] > 0.8
    assert np.corrcoef(aside, faces.euler[:, 0])[0, 1] > 0.6


def test_the_landmark_box_fills_half_the_picture(faces: SyntheticFaces) -> None:
    low, high = faces.points.min(axis=1), faces.points.max(axis=1)
    fill = (high - low).max(axis=1) / 128
    assert fill.min() >= 0.45
    assert fill.max() <= 0.65
    assert low.min() >= 0
    assert high.max() <= 127


def test_a_larger_picture_shows_the_same_face(faces: SyntheticFaces) -> None:
    large = synthetic_faces(12, seed=3, size=256)
    np.testing.assert_allclose((large.points + 0.5) / 2 - 0.5, faces.points[:12], atol=1e-9)
    halved = large.images.reshape(12, 128, 2, 128, 2, 3).mean(axis=(2, 4))
    for small, half in zip(faces.images, halved, strict=False):
        assert np.corrcoef(small.ravel(), half.ravel())[0, 1] > 0.9
        assert best_shift(small.mean(axis=2), half.mean(axis=2)) == (0, 0)


def best_shift(image: Array, other: Array) -> tuple[int, int]:
    """The shift in pixels at which two pictures agree best."""
    inner = image[3:-3, 3:-3]
    errors = {
        (dx, dy): float(np.mean((other[3 + dy : 125 + dy, 3 + dx : 125 + dx] - inner) ** 2))
        for dx in (-1, 0, 1)
        for dy in (-1, 0, 1)
    }
    return min(errors, key=errors.__getitem__)


def test_the_far_side_is_hidden_and_the_near_side_is_seen(faces: SyntheticFaces) -> None:
    # aflw: at positive yaw the nose moves to the right of the picture
    turned = np.abs(faces.euler[:, 0]) > 25
    assert np.count_nonzero(turned) > 20
    noses_right = (faces.points[:, 30, 0] > faces.points[:, 27, 0])[turned]
    left_jaw = faces.visibility[turned][:, 3:7].mean(axis=1)
    right_jaw = faces.visibility[turned][:, 10:14].mean(axis=1)
    near, far = np.where(noses_right, (left_jaw, right_jaw), (right_jaw, left_jaw))
    assert near.mean() > 0.8
    assert far.mean() < 0.5


def test_frontal_faces_show_their_features(faces: SyntheticFaces) -> None:
    frontal = np.abs(faces.euler[:, 0]) < 15
    assert faces.visibility[frontal][:, 27:].mean() > 0.95


def colour_inside(image: npt.NDArray[np.uint8], polygon: Array) -> Array:
    """The pixels ``(m, 3)`` whose centres lie inside a polygon."""
    left, top = np.clip(np.floor(polygon.min(axis=0)).astype(int), 0, 127)
    right, bottom = np.clip(np.ceil(polygon.max(axis=0)).astype(int), 0, 127)
    columns, rows = np.arange(left, right + 1), np.arange(top, bottom + 1)
    pixels = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    part = image[top : bottom + 1, left : right + 1].reshape(-1, 3)
    return part[inside(pixels.astype(float), polygon)].astype(float)


def redness(colours: Array) -> float:
    mean = colours.mean(axis=0)
    return float(mean[0] / mean.sum())


def lips_redder_than_cheeks(faces: SyntheticFaces, shift: Array) -> float:
    """Share of frontal faces whose lips are redder than the cheeks beside the nose."""
    wins = []
    for i in np.flatnonzero(np.abs(faces.euler[:, 0]) < 25):
        points = faces.points[i] + shift
        lower_lip = points[[48, 60, 67, 66, 65, 64, 54, 55, 56, 57, 58, 59]]
        cheeks = np.stack([points[[1, 31, 3]].mean(axis=0), points[[13, 35, 15]].mean(axis=0)])
        column, row = cheeks.round().astype(int).T
        lip = colour_inside(faces.images[i], lower_lip)
        if len(lip) > 8:
            wins.append(redness(lip) > redness(faces.images[i][row, column].astype(float)))
    assert len(wins) > 20
    return float(np.mean(wins))


def test_lips_are_where_the_landmarks_say(faces: SyntheticFaces) -> None:
    assert lips_redder_than_cheeks(faces, np.zeros(2)) > 0.9
    assert lips_redder_than_cheeks(faces, np.array([0.0, 14.0])) < 0.8  # the chin


def eye_contrast(faces: SyntheticFaces, shift: Array) -> float:
    """Mean spread of brightness inside the eyes, as a share of the faces' brightness."""
    spreads = []
    for i in np.flatnonzero(np.abs(faces.euler[:, 0]) < 30):
        points = faces.points[i] + shift
        skin = faces.images[i].mean(axis=2)
        for eye in (range(36, 42), range(42, 48)):
            grey = colour_inside(faces.images[i], points[list(eye)]).mean(axis=1)
            if len(grey) > 10:
                spreads.append(np.ptp(np.percentile(grey, [10, 90])) / skin.mean())
    return float(np.mean(spreads))


def test_eyes_are_where_the_landmarks_say(faces: SyntheticFaces) -> None:
    here = eye_contrast(faces, np.zeros(2))
    for shift in ([0, 8], [0, -14], [11, 0], [-11, 0]):
        assert eye_contrast(faces, np.array(shift, float)) < 0.8 * here


def test_brows_are_darker_than_the_forehead_above(faces: SyntheticFaces) -> None:
    darker = []
    for i in np.flatnonzero(np.abs(faces.euler).max(axis=1) < 20):
        up = faces.points[i, 27] - faces.points[i, 8]
        up = up / np.linalg.norm(up) * 5
        for brow in ([18, 19, 20], [23, 24, 25]):
            grey = [
                faces.images[i][tuple((at.round().astype(int)).T[::-1])].mean()
                for at in (faces.points[i, brow], faces.points[i, brow] + up)
            ]
            darker.append(grey[0] < grey[1])
    assert len(darker) > 20
    assert np.mean(darker) > 0.8


def test_faces_differ_in_identity_and_brightness(faces: SyntheticFaces) -> None:
    heads = faces.points3d - faces.points3d.mean(axis=1, keepdims=True)
    spread = heads.std(axis=0)
    assert (spread.max(axis=1) > 0.08).all()  # every landmark varies, in centimetres
    assert faces.images.mean(axis=(1, 2, 3)).std() > 10


def test_some_of_the_frame_is_background(monkeypatch: pytest.MonkeyPatch) -> None:
    uncovered = []

    def watched(*arguments: object) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        image, depth = draw(*arguments)  # type: ignore[arg-type]  # passed on as they came
        uncovered.append(np.isinf(depth).mean())
        return image, depth

    monkeypatch.setattr(synthetic, "draw", watched)
    synthetic_faces(40, seed=8)
    assert len(uncovered) == 40
    assert min(uncovered) > 0.08
    assert max(uncovered) < 0.85


# Files


def test_saved_faces_read_back(tmp_path: Path) -> None:
    few = synthetic_faces(3, seed=3)
    written = few.save(tmp_path / "new" / "folder")
    annotations = asmkit.read(tmp_path / "new" / "folder")
    assert [a.name for a in annotations] == ["face_00000", "face_00001", "face_00002"]
    assert [a.image for a in annotations] == [a.image for a in written]
    for i, annotation in enumerate(annotations):
        assert annotation.image is not None
        np.testing.assert_allclose(annotation.points, few.points[i], atol=1e-12)
        np.testing.assert_array_equal(asmkit.read_image(annotation.image), few.images[i])
        np.testing.assert_array_equal(written[i].visibility, few.visibility[i])
    assert sorted(p.suffix for p in (tmp_path / "new" / "folder").iterdir()) == [
        *[".png"] * 3,
        *[".pts"] * 3,
    ]


def test_a_progress_bar_counts_the_faces(capsys: pytest.CaptureFixture[str]) -> None:
    synthetic_faces(2, seed=1, size=32, progress=True)
    assert "2/2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1, "seed": 0}, "n: got -1"),
        ({"n": 1, "seed": -2}, "seed: got -2"),
        ({"n": 1, "seed": 0, "size": 31}, "size: got 31"),
    ],
)
def test_bad_numbers_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthetic_faces(**arguments)


def test_what_is_no_whole_number_is_refused() -> None:
    with pytest.raises(TypeError, match=r"n: got 2\.5, expected a whole number"):
        synthetic_faces(2.5, seed=0)  # type: ignore[arg-type]  # the wrong type is the point
