"""Warps of images that take landmarks to other places and leave what is far from them alone.

A warp is piecewise affine: the triangles of a Delaunay triangulation over the landmarks and a ring
of fixed points round them are carried over, each by the one affine map of its corners. The map is
continuous, it is the identity outside of the ring, and where no triangle folds over it is
one-to-one. A similarity of everything, mirroring among them, carries the warp along.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import Delaunay, QhullError

from asmkit._check import Floats, as_points
from asmkit._kernels.raster import rasterize
from asmkit.boxes import apply_affine, invert_affine
from asmkit.images import as_image, ready_for_crop

__all__ = ["Mesh", "Warp", "crop_warped", "warp_to_shape"]

Image = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

#: Points of the ring, and its radius in units of the largest distance of a landmark from their
#: centroid: 1.6 shares a move among as much background as there is face.
_RING, _REACH = 16, 1.6
#: Least width left of a triangle, in units of what it was, below which a warp is refused.
_FLAT = 1e-3
#: Settling halves what is too much; this many halvings leave nothing that one could see.
_HALVINGS = 24


@dataclass(frozen=True, eq=False)
class Warp:
    """A piecewise-affine map of the plane.

    Attributes
    ----------
    source, target : ndarray, shape (v, 2)
        The corners of the triangles before and after. The last of them are the ring, which stays.
    triangles : ndarray of int32, shape (t, 3)
        Rows of three corners, clockwise as one sees them (y down).
    """

    source: Doubles
    target: Doubles
    triangles: npt.NDArray[np.int32]

    def along(self, affine: npt.ArrayLike) -> Warp:
        """The same warp of the image that an affine map ``(2, 3)`` makes of the image."""
        matrix = np.asarray(affine, np.float64)
        keeps = np.linalg.det(matrix[:, :2]) > 0
        return Warp(
            np.asarray(apply_affine(matrix, self.source), np.float64),
            np.asarray(apply_affine(matrix, self.target), np.float64),
            self.triangles if keeps else np.ascontiguousarray(self.triangles[:, ::-1]),
        )

    def strained(self, narrowest: float = _FLAT, widest: float = np.inf) -> Bools:
        """Triangles ``(t,)`` that fold over, or are squeezed or stretched too much.

        Parameters
        ----------
        narrowest, widest : float
            Bounds of the two singular values of the affine map of a triangle.
        """
        e, f = (_edges(corners, self.triangles) for corners in (self.source, self.target))
        # As complex numbers the map is z ↦ α z + β z*, and its singular values are |α| ± |β|, the
        # smaller one negative where it folds.
        area = e[:, 0] * e[:, 1].conj() - e[:, 0].conj() * e[:, 1]
        alpha = np.abs((f[:, 0] * e[:, 1].conj() - f[:, 1] * e[:, 0].conj()) / area)
        beta = np.abs((f[:, 1] * e[:, 0] - f[:, 0] * e[:, 1]) / area)
        return np.asarray(~((alpha - beta >= narrowest) & (alpha + beta <= widest)))


@dataclass(frozen=True, eq=False)
class Mesh:
    """The triangles over landmarks and the ring round them, in which they can be moved.

    Attributes
    ----------
    vertices : ndarray, shape (v, 2)
        The distinct landmarks that are there, then the ring.
    triangles : ndarray of int32, shape (t, 3)
        As in :class:`Warp`.
    vertex_of : ndarray of int, shape (p,)
        The vertex of each landmark; -1 for a missing one. Landmarks in one place share one.
    """

    vertices: Doubles
    triangles: npt.NDArray[np.int32]
    vertex_of: npt.NDArray[np.intp]

    @classmethod
    def over(cls, points: npt.ArrayLike) -> Mesh:
        """Triangulate landmarks.

        Parameters
        ----------
        points : array_like, shape (p, 2)
            Pixels; NaN where a point is missing.

        Raises
        ------
        ValueError
            When no two points are apart.
        """
        given = as_points(points, n_dims=2, allow_nan=True).astype(np.float64)
        there = np.isfinite(given).all(axis=1)
        distinct, place = np.unique(given[there], axis=0, return_inverse=True)
        if len(distinct) < 2:
            raise ValueError(
                f"points: got {len(distinct)} distinct point(s) that are there, expected at least "
                "2: there is nothing to triangulate"
            )
        vertices = np.concatenate([distinct, _ring(distinct)])
        try:
            # A similarity frame of its own: Qhull's tolerances know nothing of units.
            found = Delaunay((vertices - vertices.mean(axis=0)) / np.ptp(vertices))
        except QhullError as error:
            raise ValueError(f"points: cannot be triangulated ({error})") from error
        # Qhull leaves out what lies within its rounding of another point: they share a vertex.
        lead = np.arange(len(vertices))
        lead[found.coplanar[:, 0]] = found.coplanar[:, 2]
        triangles = found.simplices.astype(np.int32)
        edges = _edges(vertices, triangles)
        area = (edges[:, 0].conj() * edges[:, 1]).imag
        triangles[area < 0] = triangles[area < 0, ::-1]
        triangles = triangles[area != 0]
        vertex_of = np.full(len(given), -1, np.intp)
        vertex_of[there] = lead[place.reshape(-1)]
        return cls(vertices, np.ascontiguousarray(triangles), vertex_of)

    def warp(self, moves: npt.ArrayLike) -> Warp:
        """The warp that moves each landmark.

        Parameters
        ----------
        moves : array_like, shape (p, 2)
            Those of missing landmarks do not count. Landmarks that share a vertex move by the mean
            of their moves.
        """
        given = as_points(moves, "moves", n_points=len(self.vertex_of), n_dims=2, allow_nan=True)
        there = self.vertex_of >= 0
        where = self.vertex_of[there]
        total, number = np.zeros_like(self.vertices), np.zeros(len(self.vertices))
        np.add.at(total, where, given[there])
        np.add.at(number, where, 1)
        target = self.vertices + total / number.clip(1)[:, None]
        return Warp(self.vertices, target, self.triangles)

    def settled(self, warp: Warp, narrowest: float, widest: float) -> Warp | None:
        """The warp with smaller steps where triangles fold or are strained.

        The corners of such a triangle are made to move more alike, by halves, until it is sound:
        lids that would pass through each other stop before, the rest of the face moves on.

        Returns
        -------
        Warp or None
            None where that comes to no end.
        """
        moves = warp.target - warp.source
        for _ in range(_HALVINGS):
            bad = warp.strained(narrowest, widest)
            if not bad.any():
                return warp
            corners = self.triangles[bad]
            total, number = np.zeros_like(moves), np.zeros(len(moves))
            np.add.at(total, corners, moves[corners].mean(axis=1)[:, None])
            np.add.at(number, corners, 1)
            number[-_RING:] = 0  # the ring stays
            touched = number > 0
            moves[touched] = (moves[touched] + total[touched] / number[touched, None]) / 2
            warp = Warp(warp.source, warp.source + moves, warp.triangles)
        return None

    def landmarks(self, warp: Warp) -> Doubles:
        """Where a warp takes the landmarks ``(p, 2)``; missing ones stay NaN."""
        found = warp.target[self.vertex_of]
        found[self.vertex_of < 0] = np.nan
        return found


def warp_to_shape(
    image: npt.ArrayLike, points: npt.ArrayLike, new_points: npt.ArrayLike
) -> npt.NDArray[np.uint8]:
    """Warp an image so that its landmarks come to lie at given places.

    Piecewise affine over the Delaunay triangles of the landmarks and of a ring of fixed points
    round them, beyond which the image stays as it is; bilinear. Beyond its border the image goes
    on as its last row or column.

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width, 3)
    points : array_like, shape (p, 2)
        Landmarks of the image, in pixels.
    new_points : array_like, shape (p, 2)
        Where they are to be. A landmark that is missing (NaN) here or there takes no part.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        The landmarks of this image are ``new_points``.

    Raises
    ------
    ValueError
        When shapes do not match; when the image would fold over, or nearly so: some of the points
        would have to pass through each other, or leave the ring (its radius is 1.6 times the
        largest distance of a landmark from their centroid); or when points that coincide are to
        move apart.
    TypeError
        When the image is not uint8.

    References
    ----------
    C. A. Glasbey, K. V. Mardia (1998). A review of image-warping methods. Journal of Applied
    Statistics 25(2), 155-171.

    Examples
    --------
    >>> image = np.zeros((64, 64, 3), np.uint8)
    >>> image[30, 20] = 255
    >>> points = [[20, 30], [40, 30], [30, 45]]
    >>> warped = warp_to_shape(image, points, [[17, 28], [40, 30], [30, 45]])
    >>> warped[28, 17].tolist()
    [255, 255, 255]
    """
    pixels = as_image(image)
    before = as_points(points, n_dims=2, allow_nan=True).astype(np.float64)
    after = as_points(new_points, "new_points", n_points=len(before), n_dims=2, allow_nan=True)
    there = np.asarray(np.isfinite(before + after).all(axis=1))
    mesh = Mesh.over(np.where(there[:, None], before, np.nan))
    warp = mesh.warp(after - before)
    _refuse_parting(mesh, warp, after)
    bad = warp.strained()
    if bad.any():
        names = np.flatnonzero(np.isin(mesh.vertex_of, mesh.triangles[bad]))
        raise ValueError(
            f"new_points: {int(bad.sum())} of the triangles between the points would fold over or "
            f"be squeezed flat, round the points {names[:6].tolist()}; expected points that do not "
            "pass through each other: move them less, points + t * (new_points - points) with t < 1"
        )
    height, width = pixels.shape[:2]
    return _resample(pixels, np.eye(2, 3), (width, height), warp, warp.source - warp.target)


def crop_warped(image: npt.ArrayLike, affine: npt.ArrayLike, size: int, warp: Warp) -> Image:
    """Cut a square out of a warped image: as :func:`asmkit.images.crop`, in one resampling.

    Parameters
    ----------
    image : ndarray of uint8, shape (height, width, 3)
    affine : array_like, shape (2, 3)
        Warped image to crop.
    size : int
        Width and height of the crop in pixels.
    warp : Warp
        Of the image, in its pixels.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)

    Raises
    ------
    ValueError
        As :func:`asmkit.images.crop`.
    """
    region, to_crop = ready_for_crop(image, affine, size, warp.source)
    to_region = invert_affine(to_crop)
    # Of the whole way from the image to the region only the linear part counts for differences.
    linear = to_region[:, :2] @ np.asarray(affine, np.float64)[:, :2]
    shifts = (warp.source - warp.target) @ linear.T
    return _resample(region, to_region, (size, size), warp.along(affine), shifts)


def _resample(
    pixels: Image, back: Doubles, size: tuple[int, int], warp: Warp, shifts: Doubles
) -> Image:
    """Look up every pixel of a picture ``size`` (width, height).

    ``back (2, 3)`` leads from the picture to ``pixels`` where nothing is warped; ``warp`` is that
    of the picture, and ``shifts (v, 2)`` what it adds at its targets, in units of ``pixels``.
    """
    width, height = size
    # Differences are interpolated, not places: where nothing moves, the look-up is exact.
    field = np.zeros((height, width, 2), np.float32)
    nearest = np.full((height, width), np.inf, np.float32)
    corners = np.column_stack([warp.target, np.zeros(len(warp.target))])
    rasterize(corners, warp.triangles, shifts.astype(np.float32), nearest, field)
    field += np.arange(width)[:, None] * back[:, 0] + back[:, 2]
    field += np.arange(height)[:, None, None] * back[:, 1]
    looked_up = cv2.remap(
        pixels, field, np.empty(0), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(looked_up, np.uint8)


def _ring(points: Doubles) -> Doubles:
    """Points on a circle round landmarks, the first in the direction of the farthest of them.

    So the ring turns with the landmarks, which a box would not.
    """
    centre = points.mean(axis=0)
    away = points - centre
    x, y = _REACH * away[np.argmax(np.sum(away**2, axis=1))]
    turns = 2 * np.pi / _RING * np.arange(_RING)
    cos, sin = np.cos(turns), np.sin(turns)
    return np.asarray(centre + np.column_stack([x * cos - y * sin, x * sin + y * cos]))


def _edges(points: Doubles, triangles: npt.NDArray[np.int32]) -> npt.NDArray[np.complex128]:
    """The edges ``(t, 2)`` from the first corner of each triangle, as complex numbers."""
    corners = (points[:, 0] + 1j * points[:, 1])[triangles]
    return np.asarray(corners[:, 1:] - corners[:, :1])


def _refuse_parting(mesh: Mesh, warp: Warp, wanted: Floats) -> None:
    """Refuse landmarks in one place that are to be in two."""
    off = np.linalg.norm(mesh.landmarks(warp) - wanted, axis=1)
    parting = np.flatnonzero(off > 1e-6 * np.ptp(mesh.vertices))
    if parting.size:
        raise ValueError(
            f"new_points: points {parting[:6].tolist()} lie in one place with another point and "
            "are to move apart from it; expected the same move for both, or one of them left out "
            "(NaN)"
        )
