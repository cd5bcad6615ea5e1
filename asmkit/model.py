"""Linear shape models: a mean shape and the modes in which shapes differ from it.

A shape is ``x = T(μ + Σ b_i φ_i)``: T a similarity, μ centred and of centroid size 1, the modes
φ_i orthonormal and orthogonal to translation, scaling and rotation of μ, the coefficients b_i
uncorrelated with variances λ_i. The pose of a shape is ``T = argmin ‖x − T(μ)‖``, from model to
shape; then ``T⁻¹x − μ`` has no part along the similarities, ``b = Φᵀ(T⁻¹x − μ)``, and the way from
b to a shape and back is exact. Shapes as vectors are interleaved: x₀, y₀, x₁, y₁, …
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from asmkit._check import Floats, as_batch, as_shapes
from asmkit._npz import read_npz, write_npz
from asmkit.alignment import coinciding, refuse_coinciding
from asmkit.errors import FormatError
from asmkit.frames import FRAMES, Frame, NoPoseError, Projector, nearest
from asmkit.modes import check_request, count_modes, fixed_directions, principal_modes
from asmkit.priors import Box, Prior
from asmkit.schemes import Scheme, scheme, scheme_of
from asmkit.threads import run_chunks

__all__ = ["ShapeModel"]

Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_THREE_SIGMAS = Box(3.0)

# Threads split a batch at multiples of the kernels' block; a piece is small enough for its
# coefficients to stay in the cache and large enough that Python's lock is rarely asked for.
_MIN_CHUNK, _MAX_CHUNK = 256, 4096

_FILE_KIND, _FILE_VERSION = "asmkit shape model", 1
_FILE_ARRAYS = (
    "align",
    "components",
    "explained_variance",
    "mean",
    "mirror",
    "n_components",
    "n_samples",
    "scheme",
    "total_variance",
)


class ShapeModel(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no type information
    """Statistical shape model (point distribution model) of 2-D or 3-D landmarks.

    Leading axes are batch: every method that takes shapes takes ``(p, d)``, ``(n, p, d)`` or more
    leading axes and returns as many. float32 shapes give float32 results; the model itself is
    float64. A scikit-learn estimator, except that its samples are shapes, not rows.

    Parameters
    ----------
    n_components : int or float, default 0.98
        An integer (``5``) is the number of modes; a float in (0, 1] is the share of variance to
        hold: the smallest number of modes that reaches it.
    align : {"similarity", "box"}, default "similarity"
        The frame. ``"similarity"``: the one above. ``"box"``: the ASMNet paper's own (Fard et al.
        2021): every shape relative to the centre and in units of the width and height of its
        landmark box, no Procrustes. Rotation and what the box does not remove then are among the
        modes, so a few hold much of the variance; ``smooth`` follows translation and scaling only,
        and ``transform(inverse_transform(b))`` is not exactly b, because the box of a model shape
        is not exactly the unit box.
    mirror : str, Scheme or sequence of int, optional
        A landmark scheme (or its name), or a permutation: landmark i of a mirrored shape is
        landmark ``mirror[i]`` of the shape. The model is then fitted on the shapes and their mirror
        images, and in the similarity frame ``smooth`` of a mirrored shape is the mirrored
        ``smooth`` of the shape.

    Attributes
    ----------
    mean_ : ndarray, shape (p, d)
        μ, turned as the training shapes are on average; with ``mirror``, exactly its own mirror
        image under x → −x.
    components_ : ndarray, shape (k, p d)
        The modes, orthonormal rows; the first of the largest entries of each is positive.
    explained_variance_ : ndarray, shape (k,)
        λ, the variance of each coefficient over the training shapes (division by n − 1).
    explained_variance_ratio_ : ndarray, shape (k,)
        λ as a share of the variance of all modes.
    noise_variance_ : float
        Variance left out for each direction left out: the discarded variance over
        ``p d − 4 − k`` in 2-D, ``p d − 7 − k`` in 3-D (similarities use up 4 or 7 directions),
        ``p d − k`` in the box frame. Zero when nothing was discarded.
    total_variance_ : float
        Sum of the variances of all modes, held or discarded.
    n_components_ : int
        k.
    n_samples_ : int
        n: training shapes, their mirror images counted.
    mirror_ : ndarray of int, shape (p,), or None
        The permutation that ``mirror`` stands for.
    scheme_ : str or None
        Name of the landmark scheme, where ``mirror`` gave one.

    References
    ----------
    T. F. Cootes, C. J. Taylor, D. H. Cooper, J. Graham (1995). Active Shape Models: their training
    and application. Computer Vision and Image Understanding 61(1), 38-59.

    Examples
    --------
    >>> import numpy as np
    >>> shapes = np.random.default_rng(0).normal(size=(50, 6, 2)) + [[0, 0], [9, 0], [9, 9],
    ...                                                              [0, 9], [4, 4], [0, 4]]
    >>> model = ShapeModel(n_components=3).fit(shapes)
    >>> model.transform(shapes).shape
    (50, 3)
    >>> smoothed = model.smooth(shapes)
    """

    mean_: Float64
    components_: Float64
    explained_variance_: Float64
    explained_variance_ratio_: Float64
    noise_variance_: float
    total_variance_: float
    n_components_: int
    n_samples_: int
    mirror_: Indices | None
    scheme_: str | None

    def __init__(
        self,
        n_components: float = 0.98,
        align: str = "similarity",
        mirror: str | Scheme | npt.ArrayLike | None = None,
    ) -> None:
        self.n_components = n_components
        self.align = align
        self.mirror = mirror

    def fit(self, shapes: npt.ArrayLike, y: None = None) -> Self:
        """Fit mean and modes.

        Parameters
        ----------
        shapes : array_like, shape (n, p, d)
            Complete shapes, n ≥ 2, in any poses; at least 3 points.
        y : None
            Ignored; scikit-learn's pipelines pass it.

        Returns
        -------
        ShapeModel
            ``self``.

        Raises
        ------
        ValueError
            When there are too few shapes or points, a point is missing, all points of a shape
            coincide, a shape is mirrored against the others (it is never reflected silently), the
            shapes do not differ, or they have fewer modes than ``n_components`` asks for.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            When the mean shape did not come to rest.
        """
        frame = self._frame()
        check_request(self.n_components)
        batch = as_shapes(shapes, min_shapes=2).astype(np.float64, copy=False)
        n_points = batch.shape[1]
        if n_points < 3:
            raise ValueError(f"shapes: got {n_points} point(s) a shape, expected at least 3")
        refuse_coinciding(coinciding(batch), "shapes")
        mirror, name = _resolve_mirror(self.mirror, n_points)
        mean, deviations, converged = frame.train(batch, mirror)
        if not converged:
            warnings.warn(
                "the mean shape did not come to rest: are some shapes wildly unlike the others?",
                ConvergenceWarning,
                stacklevel=2,
            )
        variances, modes = principal_modes(deviations, self._fixed(mean))
        k = count_modes(self.n_components, variances, float(variances.sum()))
        self.mirror_, self.scheme_, self.n_samples_ = mirror, name, len(deviations)
        self._set_modes(mean, modes[:k], variances[:k], float(variances.sum()))
        return self

    def _set_modes(self, mean: Float64, modes: Float64, variances: Float64, total: float) -> None:
        # One layout, whether fitted or loaded: products then round alike.
        self.mean_, self.components_ = np.ascontiguousarray(mean), np.ascontiguousarray(modes)
        self.explained_variance_, self.total_variance_ = variances, total
        self.explained_variance_ratio_ = variances / total
        self.n_components_ = len(variances)
        n_free = mean.size - self._frame().n_fixed[mean.shape[1]] - len(variances)
        discarded = total - float(variances.sum())
        # Below rounding of the total nothing was discarded.
        some = n_free > 0 and discarded > 1e-14 * total
        self.noise_variance_ = discarded / n_free if some else 0.0

    def transform(self, shapes: npt.ArrayLike) -> Floats:
        """Coefficients of shapes, in raw units: mode i has variance ``explained_variance_[i]``.

        Parameters
        ----------
        shapes : array_like, shape (..., p, d)

        Returns
        -------
        ndarray, shape (..., k)

        Raises
        ------
        ValueError
            When shapes do not match the model, a point is missing or all points coincide.
        """
        check_is_fitted(self)
        return self._coefficients(shapes, np.ones(self.n_components_))

    def _coefficients(self, shapes: npt.ArrayLike, units: Float64) -> Floats:
        batch, axes = self._batch(shapes)
        coefficients = np.empty((len(batch), self.n_components_), batch.dtype)
        projector = self._projector(units, batch.dtype)

        def work(start: int, stop: int) -> None:
            coefficients[start:stop] = projector.project(batch[start:stop])[0]

        _run(work, batch)
        return coefficients.reshape(*axes, self.n_components_)

    def inverse_transform(self, coefficients: npt.ArrayLike) -> Floats:
        """Shapes of coefficients, in the model's frame: ``μ + Σ b_i φ_i``.

        In the similarity frame ``transform`` gives the coefficients back exactly (in 3-D as long
        as they are not so large that the shape fits the mean better in another rotation).

        Parameters
        ----------
        coefficients : array_like, shape (..., k)

        Returns
        -------
        ndarray, shape (..., p, d)
        """
        check_is_fitted(self)
        b = np.asarray(coefficients)
        if b.dtype != np.float32:
            b = b.astype(np.float64)
        if b.ndim < 1 or b.shape[-1] != self.n_components_:
            raise ValueError(
                f"coefficients: got shape {b.shape}, expected (..., {self.n_components_})"
            )
        deviations = b @ self.components_.astype(b.dtype, copy=False)
        return np.asarray(
            self.mean_.astype(b.dtype, copy=False)
            + deviations.reshape(*b.shape[:-1], *self.mean_.shape)
        )

    def smooth(
        self,
        shapes: npt.ArrayLike,
        n_components: float | None = None,
        prior: Prior = _THREE_SIGMAS,
        *,
        out: Floats | None = None,
    ) -> Floats:
        """Shapes as the model sees them, in their own frame: one pass.

        Align, project, keep the coefficients plausible, return to the shape's pose. In the
        similarity frame the pass follows every similarity, ``smooth(T(x)) = T(smooth(x))``, and
        leaves a shape of the model within the prior unchanged.

        Parameters
        ----------
        shapes : array_like, shape (..., p, d)
        n_components : int or float, optional
            Use the first modes only: a count, or a share of the variance of the training shapes.
        prior : Prior, default Box(3.0)
            What keeps the coefficients plausible.
        out : ndarray, optional
            Where the result goes: contiguous, of the shape and type of the result. May not overlap
            ``shapes`` in part; the very same array is fine.

        Returns
        -------
        ndarray, shape (..., p, d)

        Raises
        ------
        ValueError
            As :meth:`transform`; or the model holds fewer modes than asked for.
        """
        batch, axes = self._batch(shapes)
        k = self._count_held(n_components)
        variances = self.explained_variance_[:k]
        projector = self._projector(np.sqrt(variances), batch.dtype)
        result = _result((*axes, *self.mean_.shape), batch.dtype, out)
        flat = result.reshape(batch.shape)

        def work(start: int, stop: int) -> None:
            coefficients, poses = projector.project(batch[start:stop])
            plausible = prior.apply(coefficients, variances)
            projector.place(plausible, poses, flat[start:stop])

        _run(work, batch)
        return result

    def constrain(self, shapes: npt.ArrayLike, prior: Prior = _THREE_SIGMAS) -> Floats:
        """Nearest plausible shapes: ``argmin ‖x − T(μ + Σ b_i φ_i)‖`` over T and plausible b.

        Pose and coefficients take turns until they rest, so the result is never farther from x
        than that of :meth:`smooth`, which is the first turn; and what is plausible already stays
        where it is, so with a prior that leaves plausible coefficients alone, such as the box,
        ``constrain(constrain(x)) = constrain(x)``.

        Parameters
        ----------
        shapes : array_like, shape (..., p, d)
        prior : Prior, default Box(3.0)

        Returns
        -------
        ndarray, shape (..., p, d)

        Raises
        ------
        ValueError
            As :meth:`transform`; or the frame is ``"box"``, whose pose does not come from least
            squares: passes in it drift without end.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            When the coefficients of some shape did not come to rest.
        """
        batch, axes = self._batch(shapes)
        if self.align != "similarity":
            raise ValueError(
                f"constrain has no fixed point with align={self.align!r}; "
                "use smooth, or fit the model with align='similarity'"
            )
        result = np.empty_like(batch, order="C")
        rested = []

        variances = self.explained_variance_
        units = np.sqrt(variances)

        def limit(coefficients: Float64) -> Float64:
            return prior.apply(coefficients / units, variances) * units

        def work(start: int, stop: int) -> None:
            part = batch[start:stop].astype(np.float64)
            result[start:stop], done = nearest(part, self.mean_, self.components_, limit)
            rested.append(done)

        _run(work, batch)
        if not all(rested):
            warnings.warn(
                "constrain: some coefficients did not come to rest; "
                "those shapes hardly resemble the mean",
                ConvergenceWarning,
                stacklevel=2,
            )
        return result.reshape(*axes, *self.mean_.shape)

    def sample(self, n: int, random_state: int | np.random.Generator | None = None) -> Float64:
        """Draw shapes from the model, in its frame: coefficients normal with variances λ.

        Parameters
        ----------
        n : int
        random_state : int, Generator or None
            The same seed gives the same shapes.

        Returns
        -------
        ndarray, shape (n, p, d)
        """
        check_is_fitted(self)
        draws = np.random.default_rng(random_state).standard_normal((n, self.n_components_))
        return np.asarray(self.inverse_transform(draws * np.sqrt(self.explained_variance_)))

    def mahalanobis(self, shapes: npt.ArrayLike) -> Floats:
        """Distance of shapes from the mean in standard deviations, ``(Σ b_i² / λ_i)^½``.

        Shapes like the training shapes have about ``√k``.

        Parameters
        ----------
        shapes : array_like, shape (..., p, d)

        Returns
        -------
        ndarray, shape (...)
        """
        check_is_fitted(self)
        standardized = self._coefficients(shapes, np.sqrt(self.explained_variance_))
        return np.asarray(np.linalg.norm(standardized, axis=-1))

    def truncate(self, n_components: float) -> ShapeModel:
        """Return a model with the first modes only; this one stays as it is.

        Parameters
        ----------
        n_components : int or float
            A count, or a share of the variance of the training shapes.
        """
        k = self._count_held(n_components)
        model = copy.copy(self)
        model.n_components = k
        model._set_modes(
            self.mean_, self.components_[:k], self.explained_variance_[:k], self.total_variance_
        )
        return model

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one ``.npz`` file, whole or not at all; it holds no pickle.

        The suffix is the caller's choice; ``ShapeModel.load`` gives the same model to the bit.
        """
        check_is_fitted(self)
        arrays: dict[str, npt.ArrayLike] = {
            "align": self.align,
            "components": self.components_,
            "explained_variance": self.explained_variance_,
            "mean": self.mean_,
            "mirror": np.zeros(0, np.int64) if self.mirror_ is None else self.mirror_,
            "n_components": self.n_components,
            "n_samples": self.n_samples_,
            "scheme": self.scheme_ or "",
            "total_variance": self.total_variance_,
        }
        write_npz(path, _FILE_KIND, _FILE_VERSION, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a model that :meth:`save` wrote.

        Raises
        ------
        FormatError
            When the file is not a shape model, is damaged, or was written by a newer asmkit.
        OSError
            When it cannot be opened.
        """
        arrays = read_npz(path, _FILE_KIND, _FILE_VERSION, _FILE_ARRAYS)
        try:
            return cls._from_arrays(**arrays)
        except (TypeError, ValueError) as error:
            raise FormatError(f"{path}: the parts of this shape model disagree: {error}") from error

    @classmethod
    def _from_arrays(
        cls,
        align: npt.NDArray[Any],
        components: Float64,
        explained_variance: Float64,
        mean: Float64,
        mirror: npt.NDArray[Any],
        n_components: npt.NDArray[Any],
        n_samples: npt.NDArray[Any],
        scheme: npt.NDArray[Any],
        total_variance: npt.NDArray[Any],
    ) -> Self:
        _check_arrays(mean, components, explained_variance, total_variance)
        permutation = _permutation(mirror, len(mean)) if mirror.size else None
        name = str(scheme) or None
        model = cls(n_components.item(), str(align), _mirror_argument(permutation, name))
        check_request(model.n_components)
        model._frame()
        model.mirror_, model.scheme_, model.n_samples_ = permutation, name, int(n_samples)
        model._set_modes(mean, components, explained_variance, float(total_variance))
        return model

    def _fixed(self, mean: Float64) -> Float64:
        moves = fixed_directions(mean)
        return moves[: self._frame().n_fixed[mean.shape[1]]]

    def _frame(self) -> Frame:
        if self.align not in FRAMES:
            raise ValueError(f"align: got {self.align!r}, expected one of {', '.join(FRAMES)}")
        return FRAMES[self.align]

    def _batch(self, shapes: npt.ArrayLike) -> tuple[Floats, tuple[int, ...]]:
        check_is_fitted(self)
        n_points, n_dims = self.mean_.shape
        # The kernels meet every value and report what has no pose: see _run.
        return as_batch(shapes, "shapes", n_points=n_points, n_dims=n_dims, check_values=False)

    def _projector(self, units: Float64, dtype: np.dtype[Any]) -> Projector:
        modes = self.components_[: len(units)]
        return self._frame().projector(self.mean_, modes, units, dtype)

    def _count_held(self, n_components: float | None) -> int:
        check_is_fitted(self)
        if n_components is None:
            return self.n_components_
        check_request(n_components)
        return count_modes(n_components, self.explained_variance_, self.total_variance_)


def _run(work: Callable[[int, int], None], batch: Floats) -> None:
    """Run over chunks; when one meets shapes without a pose, say which and why."""

    def numbered(start: int, stop: int) -> None:
        try:
            work(start, stop)
        except NoPoseError as error:
            raise NoPoseError(start + error.rows, error.reason) from error

    try:
        run_chunks(numbered, len(batch), _MIN_CHUNK, _MAX_CHUNK)
    except NoPoseError:
        as_batch(batch, "shapes")
        refuse_coinciding(coinciding(batch), "shapes")
        raise


def _result(shape: tuple[int, ...], dtype: np.dtype[Any], out: Floats | None) -> Floats:
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray) or not out.flags.carray:
        raise ValueError("out: expected a writable, contiguous array")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(f"out: got {out.dtype} {out.shape}, expected {dtype} {shape}")
    return out


def _resolve_mirror(
    mirror: str | Scheme | npt.ArrayLike | None, n_points: int
) -> tuple[Indices | None, str | None]:
    """Permutation and scheme name that the argument ``mirror`` stands for."""
    if mirror is None:
        return None, None
    if isinstance(mirror, (str, Scheme)):
        known = scheme(mirror)
        if known.n_points != n_points:
            raise ValueError(
                f"mirror: the scheme {known.name!r} has {known.n_points} points, "
                f"the shapes have {n_points}"
            )
        return np.array(known.mirror, dtype=np.intp), known.name
    return _permutation(mirror, n_points), None


def _permutation(values: npt.ArrayLike, n_points: int) -> Indices:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or array.shape != (n_points,):
        raise ValueError(
            f"mirror: got {array.dtype} {array.shape}, expected a landmark scheme or "
            f"{n_points} whole numbers"
        )
    permutation = array.astype(np.intp)
    everyone = np.arange(n_points)
    if not np.array_equal(np.sort(permutation), everyone):
        raise ValueError(f"mirror: expected each of 0..{n_points - 1} once")
    if not np.array_equal(permutation[permutation], everyone):
        raise ValueError("mirror: mirroring twice must give back every landmark")
    return permutation


def _mirror_argument(permutation: Indices | None, name: str | None) -> str | list[int] | None:
    """Return the shortest argument ``mirror`` that stands for the permutation."""
    if permutation is None:
        return None
    known = scheme_of(len(permutation))
    same = known is not None and known.name == name and known.mirror == tuple(permutation)
    return name if same else permutation.tolist()


def _check_arrays(
    mean: npt.NDArray[Any],
    components: npt.NDArray[Any],
    variances: npt.NDArray[Any],
    total: npt.NDArray[Any],
) -> None:
    """Refuse arrays that no fit could have made."""
    arrays = (mean, components, variances, total)
    if any(array.dtype != np.float64 or not np.isfinite(array).all() for array in arrays):
        raise ValueError("expected finite float64 numbers")
    if mean.ndim != 2 or mean.shape[1] not in (2, 3) or len(mean) < 3:
        raise ValueError(f"a mean of shape {mean.shape}")
    k = len(np.atleast_1d(variances))
    if k < 1 or variances.shape != (k,) or components.shape != (k, mean.size) or total.shape != ():
        raise ValueError(f"{components.shape} components, {variances.shape} variances")
    if not np.all(variances > 0) or variances.sum() > total * (1 + 1e-9):
        raise ValueError("variances must be positive and not exceed their total")
