"""Number, mean and scatter of shapes in the frame of one reference: all that a fit needs of them.

Against a fixed reference the pose of a shape, ``T = argmin ‖x − T(reference)‖``, depends on no
other shape. So the statistics of ``T⁻¹x`` can be taken chunk by chunk, on as many machines as there
are, and merged (Chan, Golub and LeVeque 1979); the result is that of one pass over all shapes, to
rounding. One chunk and one ``(p d, p d)`` matrix are in memory at a time.

References
----------
T. F. Chan, G. H. Golub, R. J. LeVeque (1979). Updating formulae and a pairwise algorithm for
computing sample variances. Technical report STAN-CS-79-773, Stanford University.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.linalg.blas import dsyrk

from asmkit._check import Floats, as_batch, as_points
from asmkit._npz import read_npz, write_npz
from asmkit.alignment import coinciding, refuse_coinciding, scale_and_rotation
from asmkit.errors import FormatError
from asmkit.frames import mirrored, own_mirror_image, unit
from asmkit.modes import fixed_directions, kept_modes
from asmkit.schemes import Scheme
from asmkit.symmetry import resolve_mirror

__all__ = ["MAX_COORDINATES", "ShapeSource", "ShapeStatistics"]

Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

#: Coordinates of a shape (p d) at most: their scatter matrix then has 288 MB.
MAX_COORDINATES = 6000

#: A chunk has this many bytes as float64: it stays in the cache through all that is done to it.
_CHUNK_BYTES = 1 << 19
_MIN_CHUNK = 256

#: References that differ by less are the same: a reference is rounded when it is centred.
_SAME = 1e-12

_ROUNDING = 16 * np.finfo(np.float64).eps

_FILE_KIND, _FILE_VERSION = "asmkit shape statistics", 1


class ShapeSource(Protocol):
    """Shapes that are read in slices: an array, a memory map, an open store.

    Where it has an attribute ``block``, so many shapes are read at a time.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, p, d)``."""
        ...

    def __getitem__(self, rows: slice, /) -> Any:
        """Some of the shapes, as an array."""
        ...


@dataclass(frozen=True, eq=False)
class ShapeStatistics:
    """Number, mean and scatter of ``T⁻¹x``, T the pose of a shape x relative to a reference.

    Statistics with the same reference add up: ``a + b`` are those of all the shapes of both. The
    sum is commutative to the bit and associative to rounding.

    Attributes
    ----------
    reference : ndarray, shape (p, d)
        Centred, of centroid size 1.
    n_samples : float
        Number of shapes, their mirror images counted; with weights, the sum of the weights.
    mean : ndarray, shape (p, d)
        Mean of ``T⁻¹x``; the reference where there are no shapes.
    scatter : ndarray, shape (p d, p d)
        ``Σ (T⁻¹x − mean)(T⁻¹x − mean)ᵀ``, with weights ``Σ w …``; the units are those of the
        reference, squared. It is singular: ``T⁻¹x − reference`` is orthogonal to translation,
        scaling and rotation of the reference.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> reference = np.array([[0, 0], [9, 0], [9, 9], [0, 9]])
    >>> shapes = rng.normal(size=(50, 4, 2)) + reference
    >>> first = ShapeStatistics.of(shapes[:20], reference)
    >>> both = first + ShapeStatistics.of(shapes[20:], reference)
    >>> both.n_samples, np.allclose(both.mean, ShapeStatistics.of(shapes, reference).mean)
    (50.0, True)
    """

    reference: Float64
    n_samples: float
    mean: Float64
    scatter: Float64

    @classmethod
    def of(
        cls,
        shapes: npt.ArrayLike | ShapeSource,
        reference: npt.ArrayLike,
        mirror: str | Scheme | npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
        *,
        first: int = 0,
    ) -> Self:
        """Take the statistics of shapes.

        Parameters
        ----------
        shapes : array_like or source, shape (n, p, d)
            Complete shapes in any poses, n ≥ 0. Whatever has a ``shape`` and can be sliced is read
            slice by slice (a memory map, what :func:`asmkit.shape_store.open_shapes` opens), and is
            never in memory as a whole.
        reference : array_like, shape (p, d)
            It is centred and scaled to size 1; with ``mirror`` also turned so that it is its own
            mirror image under x → −x.
        mirror : str, Scheme or sequence of int, optional
            Landmark scheme or permutation: the mirror images of the shapes count as well. They cost
            nothing, because a mirrored scatter is the scatter with its rows and columns exchanged.
        sample_weight : array_like, shape (n,), optional
            Weights of at least 0; a weight of 2 counts as the same shape twice.
        first : int
            Number of the first shape, for messages about one of them.

        Returns
        -------
        ShapeStatistics

        Raises
        ------
        ValueError
            When a shape does not match the reference, holds NaN or infinity, has all points in one
            place, is mirrored against the reference, or has nothing in common with it (the message
            holds its number); or when ``p d`` exceeds ``MAX_COORDINATES``.
        """
        source = _source(shapes)
        base = cls.empty(reference, mirror)
        pattern = base.reference
        if tuple(source.shape[1:]) != pattern.shape:
            raise ValueError(
                f"shapes: got shapes of {_size_of(source.shape[1:])}, "
                f"but the reference has {_size_of(pattern.shape)}"
            )
        weights = _weights(sample_weight, source.shape[0])
        running = _Running(pattern.size)
        n_rows = max(_MIN_CHUNK, _CHUNK_BYTES // (8 * pattern.size))
        # One row more than shapes: merging a chunk is one more row of deviations.
        room = np.empty((n_rows + 1, *pattern.shape))
        for start, chunk in _pieces(source, n_rows):
            own = room[: len(chunk) + 1]
            own[:-1] = chunk
            _to_deviations(own[:-1], pattern, chunk, first + start)
            share = None if weights is None else weights[start : start + len(chunk)]
            running.add(own.reshape(len(own), -1), share)
        found = cls(pattern, *running.result(pattern))
        if mirror is None:
            return found
        permutation = resolve_mirror(mirror, len(pattern))[0]
        assert permutation is not None
        return found.merge(found._mirrored(permutation))

    @classmethod
    def of_deviations(
        cls, reference: npt.ArrayLike, mean: npt.ArrayLike, deviations: npt.ArrayLike
    ) -> Self:
        """Collect the statistics of shapes whose poses are known: ``T⁻¹x = mean + deviation``.

        Parameters
        ----------
        reference, mean : array_like, shape (p, d)
            What the poses were estimated against, and the mean of ``T⁻¹x``.
        deviations : array_like, shape (n, p, d)
            ``T⁻¹x − mean``, of which the mean is zero.

        Returns
        -------
        ShapeStatistics
        """
        pattern = _pattern(reference, None)
        _check_size(pattern)
        flat = np.asarray(deviations, dtype=np.float64).reshape(-1, pattern.size)
        scatter = np.asarray(flat.T @ flat)
        return cls(pattern, float(len(flat)), np.array(mean, dtype=np.float64), scatter)

    @classmethod
    def empty(
        cls, reference: npt.ArrayLike, mirror: str | Scheme | npt.ArrayLike | None = None
    ) -> Self:
        """Statistics of no shapes: what a sum begins with. Arguments as :meth:`of`."""
        given = as_points(reference, "reference")
        permutation = resolve_mirror(mirror, len(given))[0]
        _check_size(given)
        pattern = _pattern(given, permutation)
        return cls(pattern, 0.0, pattern, np.zeros((pattern.size, pattern.size)))

    def merge(self, *others: ShapeStatistics) -> Self:
        """Statistics of the shapes of all: ``a.merge(b, c)`` is ``a + b + c``.

        Raises
        ------
        ValueError
            When references differ: the statistics are then of different frames.
        """
        merged = self
        for other in others:
            merged = merged._with(other)
        return merged

    def __add__(self, other: ShapeStatistics) -> Self:
        """Statistics of the shapes of both."""
        if not isinstance(other, ShapeStatistics):
            return NotImplemented
        return self.merge(other)

    def _with(self, other: ShapeStatistics) -> Self:
        _check_same(self.reference, other.reference)
        if other.n_samples == 0:
            return self
        if self.n_samples == 0:
            return type(self)(self.reference, other.n_samples, other.mean, other.scatter)
        total = self.n_samples + other.n_samples
        # Of both sides alike, so that the order of the two does not matter.
        mean = (self.n_samples * self.mean + other.n_samples * other.mean) / total
        step = (other.mean - self.mean).reshape(-1) * np.sqrt(
            self.n_samples * other.n_samples / total
        )
        scatter = np.multiply.outer(step, step)
        scatter += self.scatter + other.scatter
        return type(self)(self.reference, total, mean, scatter)

    def _mirrored(self, permutation: Indices) -> Self:
        """Statistics of the mirror images, the reference being its own."""
        n_dims = self.mean.shape[1]
        order = (permutation[:, None] * n_dims + np.arange(n_dims)).reshape(-1)
        signs = np.where(np.arange(len(order)) % n_dims == 0, -1.0, 1.0)
        scatter = self.scatter[np.ix_(order, order)]
        scatter *= signs
        scatter *= signs[:, None]
        mean = (self.mean.reshape(-1)[order] * signs).reshape(self.mean.shape)
        return type(self)(self.reference, self.n_samples, mean, scatter)

    def principal_modes(self) -> tuple[Float64, Float64, Float64]:
        """Mean, variances and modes of the shapes.

        Returns
        -------
        mean : ndarray, shape (p, d)
        variances : ndarray, shape (r,)
            Falling, all above rounding; division by ``n_samples − 1``.
        modes : ndarray, shape (r, p d)
            Orthonormal rows, orthogonal to translation, scaling and rotation of the reference; the
            first of the largest entries of each is positive.

        Raises
        ------
        ValueError
            When there are fewer than two shapes, or they do not differ.
        """
        if not self.n_samples > 1:
            raise ValueError(
                f"shapes: got {self.n_samples:g} (weights summed), expected at least 2: "
                "one shape has no modes"
            )
        fixed = fixed_directions(self.reference)
        # Rounding alone points along the fixed directions; without it they cannot mix with modes.
        across = self.scatter @ fixed.T
        cleared = self.scatter - across @ fixed
        cleared -= fixed.T @ (across.T - (fixed @ across) @ fixed)
        values, vectors = eigh(cleared, overwrite_a=True, check_finite=False, driver="evd")
        variances = np.maximum(values[::-1], 0.0) / (self.n_samples - 1)
        n_rows = max(int(self.n_samples), len(variances))
        size = float(np.linalg.norm(self.mean))
        return self.mean, *kept_modes(variances, vectors.T[::-1], fixed, n_rows, size)

    def to_arrays(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return the attributes as arrays, by their names."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(
        cls,
        reference: npt.NDArray[Any],
        n_samples: npt.NDArray[Any],
        mean: npt.NDArray[Any],
        scatter: npt.NDArray[Any],
    ) -> Self:
        """Return the statistics that :meth:`to_arrays` took apart.

        Raises
        ------
        ValueError
            When no shapes can have such statistics.
        """
        arrays = (reference, n_samples, mean, scatter)
        if any(array.dtype != np.float64 or not np.isfinite(array).all() for array in arrays):
            raise ValueError("statistics: expected finite float64 numbers")
        pattern = as_points(reference, "reference")
        _check_size(pattern)
        same = mean.shape == pattern.shape and scatter.shape == (pattern.size, pattern.size)
        if not same or n_samples.shape != ():
            raise ValueError(
                f"statistics: a reference of shape {reference.shape}, a mean of {mean.shape} and a "
                f"scatter of {scatter.shape} disagree"
            )
        if np.abs(_pattern(pattern, None) - pattern).max() > _SAME:
            raise ValueError("statistics: the reference is not centred or not of size 1")
        limit = 1e-9 * float(np.diag(scatter).max(initial=0.0))
        if n_samples < 0 or np.diag(scatter).min() < 0 or np.abs(scatter - scatter.T).max() > limit:
            raise ValueError("statistics: the scatter is not that of any shapes")
        return cls(reference, n_samples.item(), mean, scatter)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the statistics to one ``.npz`` file, whole or not at all; it holds no pickle."""
        write_npz(path, _FILE_KIND, _FILE_VERSION, self.to_arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read statistics that :meth:`save` wrote.

        Raises
        ------
        FormatError
            When the file does not hold statistics, is damaged, or was written by a newer asmkit.
        OSError
            When it cannot be opened.
        """
        names = tuple(field.name for field in fields(cls))
        arrays = read_npz(path, _FILE_KIND, _FILE_VERSION, names)
        try:
            return cls.from_arrays(**arrays)
        except (TypeError, ValueError) as error:
            raise FormatError(f"{path}: {error}") from error


class _Running:
    """Weight, mean and scatter of rows, chunk after chunk, the scatter in place."""

    def __init__(self, size: int) -> None:
        self._weight = 0.0
        self._mean = np.zeros(size)
        self._scatter = np.zeros((size, size), order="F")  # its upper triangle

    def add(self, rows: Float64, weights: Float64 | None) -> None:
        """Add all rows but the last, which is room to work in; they are overwritten."""
        own = rows[:-1]
        weight = float(len(own) if weights is None else weights.sum())
        if weight == 0:
            return
        centre = own.mean(axis=0) if weights is None else weights @ own / weight
        own -= centre
        if weights is not None:
            own *= np.sqrt(weights)[:, None]
        total = self._weight + weight
        step = centre - self._mean
        rows[-1] = step * np.sqrt(self._weight * weight / total)
        self._scatter = dsyrk(1.0, rows.T, beta=1.0, c=self._scatter, overwrite_c=True)
        self._mean += step * (weight / total)
        self._weight = total

    def result(self, shift: Float64) -> tuple[float, Float64, Float64]:
        """Weight, mean (moved by ``shift``) and the whole scatter."""
        upper = self._scatter
        np.copyto(upper, upper.T, where=np.tri(len(upper), k=-1, dtype=bool))
        return self._weight, shift + self._mean.reshape(shift.shape), upper.T


def _to_deviations(shapes: Float64, pattern: Float64, given: Floats, first: int) -> None:
    """Replace shapes by ``T⁻¹x − pattern``; ``given`` and ``first`` are for messages."""
    with np.errstate(invalid="ignore", over="ignore"):
        # Centring as matrix products: several times as fast as sums along the middle axis.
        flat, ones = (
            shapes.reshape(len(shapes), -1),
            np.tile(np.eye(pattern.shape[1]), len(pattern)),
        )
        centre = flat @ (ones.T / len(pattern))
        flat -= centre @ ones
        size = np.sqrt(np.einsum("npd,npd->n", shapes, shapes))
        # Where points coincide centring leaves rounding; NaN and infinity fail as well.
        clear = size > _ROUNDING * np.sqrt(pattern.size) * np.abs(centre).max(axis=1)
    if not (clear & np.isfinite(size)).all():
        _refuse_without_pose(given, size, first)
    align = _align_planar if pattern.shape[1] == 2 else _align_spatial
    along, against = align(shapes, pattern, size)
    _refuse_unlike(along / size, against / size, first)
    shapes -= pattern


def _align_planar(shapes: Float64, pattern: Float64, size: Float64) -> tuple[Float64, Float64]:
    """Apply T⁻¹ in place; inner products of x with the turned reference and with its reflection."""
    points, source = shapes.view(complex)[..., 0], pattern.view(complex)[:, 0]
    # Of complex numbers T is multiplication by ⟨reference, x⟩; the reflection is the conjugate.
    both = points @ np.stack([source.conj(), source], axis=1)
    pose = both[:, 0]
    lost = np.abs(pose) <= 1e-8 * size  # refused by the caller
    points *= (1.0 / np.where(lost, 1.0, pose))[:, None]
    return np.abs(pose), np.abs(both[:, 1])


def _align_spatial(shapes: Float64, pattern: Float64, size: Float64) -> tuple[Float64, Float64]:
    cross = np.swapaxes(shapes, 1, 2) @ pattern
    scale, rotation = scale_and_rotation(cross, np.ones(()))
    lost = scale <= 1e-8 * size
    np.matmul(shapes, rotation / np.where(lost, 1.0, scale)[:, None, None], out=shapes)
    values = np.linalg.svd(cross, compute_uv=False)
    total, last = values.sum(axis=1), values[:, -1]
    return scale, np.where(np.linalg.det(cross) > 0, total - 2 * last, total)


def _refuse_without_pose(given: Floats, size: Float64, first: int) -> None:
    """Say which shape has a missing or infinite point, or all points in one place, if one has."""
    row = _first_of(np.asarray(~np.isfinite(given).all(axis=(1, 2))))
    if row is not None:
        what = "NaN (a missing point)" if np.isnan(given[row]).any() else "infinite coordinates"
        raise ValueError(
            f"shapes: shape number {first + row} holds {what}; "
            "expected complete shapes: drop or fill them first"
        )
    row = _first_of(~np.isfinite(size))
    if row is not None:
        raise ValueError(f"shapes: the coordinates of shape number {first + row} are too large")
    row = _first_of(coinciding(given))
    if row is not None:
        raise ValueError(
            f"shapes: all points coincide in shape number {first + row}; "
            "such a shape has no size and no orientation: leave it out"
        )


def _refuse_unlike(along: Float64, against: Float64, first: int) -> None:
    """Refuse shapes whose cosine with the reference is none, or far larger when reflected."""
    row = _first_of(np.asarray(along <= 1e-8))
    if row is not None:
        raise ValueError(
            f"shapes: shape number {first + row} is orthogonal to the "
            "reference, so its orientation is undefined: are the points in the same order?"
        )
    as_given = 1 - along**2
    # As in a fit: flat or nearly straight shapes fit as well either way, a clear case is an error.
    better = 1 - against**2 < 0.25 * as_given
    row = _first_of(np.asarray((as_given > 1e-3) & better))
    if row is not None:
        raise ValueError(
            f"shapes: shape number {first + row} looks mirrored against the reference; "
            "mirroring must also exchange the left and right points"
        )


def _first_of(marked: npt.NDArray[np.bool_]) -> int | None:
    return int(np.argmax(marked)) if marked.any() else None


def _source(shapes: npt.ArrayLike | ShapeSource) -> ShapeSource:
    sliced = hasattr(shapes, "shape") and hasattr(shapes, "__getitem__")
    source: Any = shapes if sliced else np.asarray(shapes)
    if len(source.shape) != 3:
        raise ValueError(
            f"shapes: got shape {tuple(source.shape)}, expected (n_shapes, n_points, n_dims)"
        )
    found: ShapeSource = source
    return found


def _pieces(source: ShapeSource, n_rows: int) -> Iterator[tuple[int, Floats]]:
    """Cut shapes into chunks that fit the cache, and read them in the source's own blocks."""
    n, block = source.shape[0], max(n_rows, int(getattr(source, "block", 1)))
    for begin in range(0, n, block):
        read, _ = as_batch(source[begin : min(begin + block, n)], check_values=False)
        for start in range(0, len(read), n_rows):
            yield begin + start, read[start : start + n_rows]


def _weights(values: npt.ArrayLike | None, n: int) -> Float64 | None:
    if values is None:
        return None
    weights = np.asarray(values, dtype=np.float64)
    if weights.shape != (n,):
        raise ValueError(f"sample_weight: got shape {weights.shape}, expected one a shape ({n},)")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("sample_weight: expected finite values of at least 0")
    return weights


def _pattern(reference: npt.ArrayLike, permutation: Indices | None) -> Float64:
    """Reference as poses are estimated to; one that is such already stays as it is, to the bit."""
    given = np.array(as_points(reference, "reference"), dtype=np.float64)
    if len(given) < 3:
        raise ValueError(f"reference: got {len(given)} point(s), expected at least 3")
    refuse_coinciding(coinciding(given[None]), "reference")
    pattern = unit(unit(given))  # far from the origin once leaves rounding of the place
    if permutation is not None:
        image = mirrored(pattern, permutation)
        if np.abs(image - pattern).max() > 4 * _ROUNDING:
            pattern = own_mirror_image(pattern, permutation)
    same = np.abs(pattern - given).max() <= 4 * _ROUNDING
    return np.ascontiguousarray(given if same else pattern)


def _check_size(points: Floats) -> None:
    if points.size > MAX_COORDINATES:
        raise ValueError(
            f"shapes of {_size_of(points.shape)} have {points.size} coordinates, but statistics "
            f"hold a square matrix of them, so {MAX_COORDINATES} are the limit: take fewer points, "
            "or fit a model to a sample of the shapes"
        )


def _check_same(a: Float64, b: Float64) -> None:
    if a.shape != b.shape:
        raise ValueError(
            f"statistics of {_size_of(a.shape)} cannot be added to those of {_size_of(b.shape)}"
        )
    difference = float(np.abs(a - b).max())
    if difference > _SAME:
        raise ValueError(
            f"the references of these statistics differ (by up to {difference:.2g} of their size), "
            "so their means and scatters are of different frames: collect both with one reference"
        )


def _size_of(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} points in {shape[1]}-D"
