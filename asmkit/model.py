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
from numbers import Integral
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from asmkit._check import Floats, as_batch, as_points, as_shapes
from asmkit.alignment import coinciding, refuse_coinciding
from asmkit.conditioning import (
    Conditioned,
    GaussianShapes,
    condition,
    log_likelihood,
    noise_covariance,
)
from asmkit.conformal import calibration_distances
from asmkit.credible import CredibleRegions, check_level
from asmkit.frames import LARGEST_BLOCK, Frame, Linear, NoPoseError, Projector, frame_of, nearest
from asmkit.mode_rules import (
    RULES,
    STREAMING_RULES,
    choose_modes,
    choose_modes_of_statistics,
)
from asmkit.model_file import read_model, write_model
from asmkit.modes import check_request, count_modes, fixed_directions, principal_modes
from asmkit.plausibility import Plausibility
from asmkit.priors import Box, Prior, PriorReport
from asmkit.robust_modes import agreeing
from asmkit.schemes import Scheme
from asmkit.statistics import ShapeStatistics
from asmkit.symmetry import resolve_mirror
from asmkit.threads import run_chunks

__all__ = ["ShapeModel"]

Float64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_THREE_SIGMAS = Box(3.0)

# Threads split a batch at multiples of the kernels' block; a piece is small enough for its
# coefficients to stay in the cache and large enough that Python's lock is rarely asked for.
_MIN_CHUNK = LARGEST_BLOCK * 4
_MAX_CHUNK = _MIN_CHUNK * 10


class _Given(NamedTuple):
    """What conditioning is told."""

    model: GaussianShapes
    points: Float64  # (n, p, d)
    axes: tuple[int, ...]  # of the caller's points, before (p, d)
    noise: Float64  # (1 or n, p, d, d)


class ShapeModel(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no type information
    """Statistical shape model (point distribution model) of 2-D or 3-D landmarks.

    Leading axes are batch: every method that takes shapes takes ``(p, d)``, ``(n, p, d)`` or more
    leading axes and returns as many. float32 shapes give float32 results; the model itself is
    float64. A scikit-learn estimator, except that its samples are shapes, not rows.

    Parameters
    ----------
    n_components : int, float or str, default 0.98
        An integer (``5``) is the number of modes; a float in (0, 1] is the share of variance to
        hold: the smallest number of modes that reaches it. Or a rule that looks at the data:
        ``"parallel"`` (parallel analysis: modes stronger than those of noise), ``"broken-stick"``,
        ``"likelihood"`` (cross-validated likelihood); see :mod:`asmkit.mode_count`.
    align : {"similarity", "rigid", "box", "none"}, default "similarity"
        The frame. ``"similarity"``: the one above. ``"rigid"``: T does not scale, so size is part
        of the shape, and the model has the units of the training shapes. ``"none"``: shapes stand
        where they are, T is the identity; for shapes that are registered already.
        ``"box"``: the ASMNet paper's own (Fard et al.
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
    robust : bool, default False
        Whether wrong annotations among the training shapes, up to a quarter of them, should not
        bend the model: those that do not agree with most others are then left out, see
        :mod:`asmkit.robust_modes` and ``weights_``.

    Attributes
    ----------
    mean_ : ndarray, shape (p, d)
        μ, turned as the training shapes are on average; with ``mirror``, exactly its own mirror
        image under x → −x.
    reference_ : ndarray, shape (p, d)
        What poses are estimated against; ``mean_`` itself, but for a model that was fitted with
        ``reference=`` or by :meth:`partial_fit`: then ``T = argmin ‖x − T(reference_)‖`` and the
        modes are orthogonal to translation, scaling and rotation of the reference.
    components_ : ndarray, shape (k, p d)
        The modes, orthonormal rows; the first of the largest entries of each is positive.
    explained_variance_ : ndarray, shape (k,)
        λ, the variance of each coefficient over the training shapes (division by n − 1).
    explained_variance_ratio_ : ndarray, shape (k,)
        λ as a share of the variance of all modes.
    noise_variance_ : float
        Variance left out for each direction left out: the discarded variance over
        ``p d − 4 − k`` in 2-D, ``p d − 7 − k`` in 3-D (similarities use up 4 or 7 directions, rigid
        motions 3 or 6), ``p d − k`` without Procrustes. Zero when nothing was discarded.
    total_variance_ : float
        Sum of the variances of all modes, held or discarded.
    n_components_ : int
        k.
    n_samples_ : int
        n: training shapes, their mirror images counted.
    weights_ : ndarray, shape (n,)
        With ``robust``, after :meth:`fit`: 1 for each training shape that counts, 0 for one that
        was left out.
    statistics_ : ShapeStatistics or None
        Number, mean and scatter of the training shapes in the frame of the reference, where the
        model can go on learning (:meth:`partial_fit`, :meth:`merge`).
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
    reference_: Float64
    statistics_: ShapeStatistics | None
    weights_: Float64
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
        n_components: float | str = 0.98,
        align: str = "similarity",
        mirror: str | Scheme | npt.ArrayLike | None = None,
        robust: bool = False,
    ) -> None:
        self.n_components = n_components
        self.align = align
        self.mirror = mirror
        self.robust = robust

    def fit(
        self, shapes: npt.ArrayLike, y: None = None, *, reference: npt.ArrayLike | None = None
    ) -> Self:
        """Fit mean and modes.

        Parameters
        ----------
        shapes : array_like, shape (n, p, d)
            Complete shapes, n ≥ 2, in any poses; at least 3 points.
        y : None
            Ignored; scikit-learn's pipelines pass it.
        reference : array_like, shape (p, d), optional
            A shape to align to once, instead of to the mean of the shapes themselves. Models with
            the same reference live in one frame: they can be merged, and can learn from batches,
            with the result of one fit of all.

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
        check_request(self.n_components, RULES)
        batch = as_shapes(shapes, min_shapes=2).astype(np.float64, copy=False)
        n_points, n_dims = batch.shape[1:]
        if n_points < 3:
            raise ValueError(f"shapes: got {n_points} point(s) a shape, expected at least 3")
        refuse_coinciding(coinciding(batch), "shapes")
        if reference is not None:
            given = as_points(reference, "reference", n_points=n_points, n_dims=n_dims)
            reference = given.astype(np.float64)
            refuse_coinciding(coinciding(reference[None]), "reference")
        self.mirror_, self.scheme_ = resolve_mirror(self.mirror, n_points)
        kept = np.ones(len(batch), dtype=bool)
        if self.robust:
            kept = self._agreeing(batch, reference)
        training = frame.train(batch[kept], self.mirror_, reference)
        if not training.converged:
            warnings.warn(
                "the mean shape did not come to rest: are some shapes wildly unlike the others?",
                ConvergenceWarning,
                stacklevel=2,
            )
        pattern, mean, deviations, _ = training
        fixed = fixed_directions(pattern, frame.moves)
        self.n_samples_, self.statistics_ = len(deviations), None
        if self.robust:
            self.weights_ = kept.astype(np.float64)
        if reference is not None and self.align == "similarity":
            self.statistics_ = ShapeStatistics.of_deviations(pattern, mean, deviations)
        variances, modes = principal_modes(deviations, fixed, _size(mean))
        k = choose_modes(self.n_components, variances, deviations, fixed, int(kept.sum()))
        self._set_modes(pattern, mean, modes[:k], variances[:k], float(variances.sum()))
        return self

    def _agreeing(self, shapes: Float64, reference: Float64 | None) -> npt.NDArray[np.bool_]:
        """Shapes (n,) that agree with most others, looked at twice.

        The second look is in a frame that the wrong ones no longer bend.
        """
        frame = self._frame()
        kept: npt.NDArray[np.bool_] = np.ones(len(shapes), dtype=bool)
        for _ in range(2):
            pattern = frame.train(shapes[kept], self.mirror_, reference).reference
            anchor = pattern if frame.moves else None
            deviations = frame.train(shapes, self.mirror_, anchor).deviations
            # A shape and its mirror image are in together or out together.
            kept = np.asarray(agreeing(deviations).reshape(-1, len(shapes)).all(axis=0))
        return kept

    def partial_fit(
        self, shapes: npt.ArrayLike, y: None = None, *, reference: npt.ArrayLike | None = None
    ) -> Self:
        """Learn from a batch of shapes as well as from those before it.

        Batches in any sizes and any order give, to rounding, the model that one :meth:`fit` of all
        shapes with the same reference gives; the memory needed does not depend on their number.

        Parameters
        ----------
        shapes : array_like, shape (n, p, d)
            As for :meth:`fit`, but n ≥ 1; the model is fitted once two shapes have come.
        y : None
            Ignored.
        reference : array_like, shape (p, d), optional
            With the first batch only. Without it the mean of the first batch (at least 2 shapes)
            becomes the reference.

        Returns
        -------
        ShapeModel
            ``self``. While there are fewer modes than a whole ``n_components`` asks for, it holds
            those there are.

        Raises
        ------
        ValueError
            As :meth:`fit`; when a reference comes after the first batch; when the model was fitted
            without a reference, or is robust, or its frame is not "similarity".
        """
        check_request(self.n_components, STREAMING_RULES)
        if self.align != "similarity" or self.robust:
            raise ValueError(
                "partial_fit: needs align='similarity' and robust=False, got "
                f"align={self.align!r} and robust={self.robust}"
            )
        batch = as_shapes(shapes, min_shapes=1)
        known: ShapeStatistics | None = getattr(self, "statistics_", None)
        if known is None:
            if hasattr(self, "components_"):
                raise ValueError(
                    "partial_fit: this model was fitted without a reference, so its frame is not "
                    "fixed; fit it with reference=, or begin with partial_fit"
                )
            self.mirror_, self.scheme_ = resolve_mirror(self.mirror, batch.shape[1])
            if reference is None:
                started = ShapeModel(n_components=1, mirror=self.mirror).fit(shapes)
                reference = started.mean_
            known = ShapeStatistics.empty(
                as_points(reference, "reference", n_points=batch.shape[1], n_dims=batch.shape[2]),
                self.mirror_,
            )
        elif reference is not None:
            raise ValueError("reference: comes with the first batch only")
        return self._learned(known + ShapeStatistics.of(batch, known.reference, self.mirror_))

    def merge(self, *others: ShapeModel) -> ShapeModel:
        """Return the model of all the shapes that several models learned from.

        Equal, to rounding, to one fit of them all with the same reference.

        Parameters
        ----------
        *others : ShapeModel
            Fitted with the same ``reference=`` (or by :meth:`partial_fit` from it) and ``mirror``.

        Returns
        -------
        ShapeModel
            A new one, with the parameters of this.

        Raises
        ------
        ValueError
            When a model has no fixed reference, or another.
        """
        total: ShapeStatistics | None = None
        for number, model in enumerate((self, *others)):
            check_is_fitted(model, "components_")
            if model.statistics_ is None:
                raise ValueError(
                    f"merge: model {number} was fitted without reference=, so it has a frame of "
                    "its own and cannot be merged"
                )
            if not _same(model.mirror_, self.mirror_):
                raise ValueError(f"merge: model {number} has other mirror pairs")
            total = model.statistics_ if total is None else total + model.statistics_
        assert total is not None
        merged = ShapeModel(self.n_components, self.align, self.mirror, self.robust)
        merged.mirror_, merged.scheme_ = self.mirror_, self.scheme_
        return merged._learned(total)

    @classmethod
    def from_statistics(
        cls,
        statistics: ShapeStatistics,
        n_components: float | str = 0.98,
        mirror: str | Scheme | npt.ArrayLike | None = None,
    ) -> Self:
        """Model of statistics that were collected elsewhere, or in parts.

        Parameters
        ----------
        statistics : ShapeStatistics
        n_components : int, float or str
            As for the class, without ``"likelihood"``, which needs the shapes.
        mirror : str, Scheme or sequence of int, optional
            As for the class: the mirror pairs that the statistics were collected with.
        """
        model = cls(n_components, mirror=mirror)
        check_request(n_components, STREAMING_RULES)
        model.mirror_, model.scheme_ = resolve_mirror(mirror, len(statistics.mean))
        return model._learned(statistics)

    def _learned(self, statistics: ShapeStatistics) -> Self:
        if statistics.n_samples < 2:
            self.statistics_ = statistics
            return self  # not fitted yet
        mean, variances, modes = statistics.principal_modes()
        self.statistics_, self.n_samples_ = statistics, int(statistics.n_samples)
        asked = self.n_components
        if isinstance(asked, Integral):
            asked = min(int(asked), len(variances))
        n_shapes = self.n_samples_ if self.mirror_ is None else self.n_samples_ // 2
        k = choose_modes_of_statistics(asked, variances, statistics, n_shapes)
        self._set_modes(
            statistics.reference, mean, modes[:k], variances[:k], float(variances.sum())
        )
        return self

    def _set_modes(
        self, reference: Float64, mean: Float64, modes: Float64, variances: Float64, total: float
    ) -> None:
        # One layout, whether fitted or loaded: products then round alike.
        self.mean_, self.components_ = np.ascontiguousarray(mean), np.ascontiguousarray(modes)
        self.reference_ = self.mean_ if reference is mean else np.ascontiguousarray(reference)
        self.explained_variance_, self.total_variance_ = variances, total
        self.explained_variance_ratio_ = variances / total
        self.n_components_ = len(variances)
        n_free = mean.size - len(self._fixed()) - len(variances)
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
        return self._coefficients(shapes, np.ones(self._held()))

    def fit_transform(
        self, shapes: npt.ArrayLike, y: None = None, *, reference: npt.ArrayLike | None = None
    ) -> Floats:
        """Fit, then return the coefficients ``(n, k)`` of the same shapes."""
        return self.fit(shapes, reference=reference).transform(shapes)

    def _coefficients(self, shapes: npt.ArrayLike, units: Float64) -> Floats:
        batch, axes = self._batch(shapes)
        coefficients = np.empty((len(batch), len(units)), batch.dtype)
        projector = self._projector(units, batch.dtype)

        def work(start: int, stop: int) -> None:
            coefficients[start:stop] = projector.project(batch[start:stop])[0]

        _run(work, batch)
        return coefficients.reshape(*axes, len(units))

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
        self._held()
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
        if self.align == "box":
            raise ValueError(
                f"constrain has no fixed point with align={self.align!r}; "
                "use smooth, or fit the model with align='similarity'"
            )
        if not self._frame().moves:
            return self.smooth(shapes, prior=prior)
        result = np.empty_like(batch, order="C")
        rested = []

        variances = self.explained_variance_
        linear = self._linear(np.sqrt(variances))
        with_scale = "scale" in self._frame().moves

        def limit(standardized: Float64) -> Float64:
            return prior.apply(standardized, variances)

        def work(start: int, stop: int) -> None:
            part = batch[start:stop].astype(np.float64)
            result[start:stop], done = nearest(part, linear, limit, with_scale)
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
        self._held()
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
        self._held()
        standardized = self._coefficients(shapes, np.sqrt(self.explained_variance_))
        return np.asarray(np.linalg.norm(standardized, axis=-1))

    def clamped(
        self, shapes: npt.ArrayLike, n_components: float | None = None, prior: Prior = _THREE_SIGMAS
    ) -> PriorReport:
        """What a prior changes in shapes when :meth:`smooth` applies it.

        Parameters
        ----------
        shapes : array_like, shape (..., p, d)
            Leading axes become one.
        n_components, prior
            As for :meth:`smooth`.

        Returns
        -------
        PriorReport
        """
        k = self._count_held(n_components)
        variances = self.explained_variance_[:k]
        before = self._coefficients(shapes, np.sqrt(variances)).reshape(-1, len(variances))
        return PriorReport(before, prior.apply(before, variances))

    def complete(
        self, points: npt.ArrayLike, noise: npt.ArrayLike = 0.0, *, robust: bool = False
    ) -> Float64:
        """Most probable whole shapes, given some of their points: the mean of :meth:`posterior`.

        Parameters
        ----------
        points : array_like, shape (..., p, d)
            NaN where a point is missing; at least d points of each shape must be there.
        noise : array_like, default 0
            How far from the truth the given points are, in their unit: a standard deviation, one a
            point ``(p,)`` or ``(..., p)``, or covariances ``(p, d, d)`` or ``(..., p, d, d)``. A
            point of noise 0 is pinned: it stays exactly where it is.
        robust : bool
            Whether some of the points may be wrong altogether, beyond their noise: each is then
            believed as far as the others explain it, and none is pinned.

        Returns
        -------
        ndarray, shape (..., p, d)

        Raises
        ------
        ValueError
            When the points given do not fix a pose, shapes or noise do not match the model, or the
            frame is ``"box"``.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            When the pose of some shape did not come to rest.
        """
        return self.credible_regions(points, noise, robust=robust).mean

    def credible_regions(
        self,
        points: npt.ArrayLike,
        noise: npt.ArrayLike = 0.0,
        level: float = 0.95,
        *,
        robust: bool = False,
        calibration: npt.ArrayLike | None = None,
    ) -> CredibleRegions:
        """Where each point of a shape is, with a stated probability, given some of its points.

        Uncertain are the coefficients, the pose, and what the modes leave out
        (``noise_variance_``); see :mod:`asmkit.conditioning`.

        Parameters
        ----------
        points, noise, robust
            As for :meth:`complete`.
        level : float
            Probability of each region, in (0, 1).
        calibration : array_like, shape (m, p, d), optional
            Complete shapes that the model was not fitted on: the regions of hidden points are made
            so large that they hold at the stated rate in these (split conformal prediction, see
            :mod:`asmkit.conformal`), however wrong the normal distribution is. Takes m times as
            long.

        Returns
        -------
        CredibleRegions
            ``.mean`` is :meth:`complete`; ``.at(level)`` gives the regions of another level.

        Raises, Warns
        -------------
        As :meth:`complete`; ValueError also when a calibration shape is not complete, or there are
        too few of them for the level.
        """
        check_level(level)
        given = self._conditions(points, noise)
        found = self._condition(given, robust=robust)
        n_points, n_dims = self.mean_.shape
        distances, axes = None, given.axes
        if calibration is not None:
            others, _ = as_batch(calibration, "calibration", n_points=n_points, n_dims=n_dims)
            distances = calibration_distances(
                given.model,
                given.points,
                found.mean,
                given.noise,
                others.astype(np.float64),
                robust=robust,
            ).reshape(*axes, len(others), n_points)
        regions = CredibleRegions(
            found.mean.reshape(*axes, n_points, n_dims),
            found.covariance.reshape(*axes, n_points, n_dims, n_dims),
            level,
            found.weights.reshape(*axes, n_points),
            distances,
        )
        _ = regions.radius  # too few shapes are refused here, not at the first use
        return regions

    def posterior(
        self, points: npt.ArrayLike, noise: npt.ArrayLike = 0.0, *, robust: bool = False
    ) -> ShapeModel:
        """Model of the shapes that agree with points that were seen.

        Parameters
        ----------
        points : array_like, shape (p, d)
            One shape; NaN where a point is missing.
        noise, robust
            As for :meth:`complete`.

        Returns
        -------
        ShapeModel
            In the place and unit of the points (``align="none"``): ``mean_`` is the completed
            shape, the modes are all that is still uncertain of it, pose and left-out variance
            included. It samples, smooths, and takes further points by ``posterior`` itself.

        Raises
        ------
        ValueError
            As :meth:`complete`; or when no point is left uncertain.
        """
        given = self._conditions(points, noise)
        found = self._condition(given, robust=robust, with_joint=True)
        if given.axes:
            raise ValueError(
                f"points: got shape {np.shape(points)}, expected one shape (n_points, n_dims); for "
                "many shapes in one call use complete or credible_regions"
            )
        assert found.joint is not None
        values, vectors = np.linalg.eigh(found.joint[0])
        kept = values > 1e-12 * max(float(values[-1]), 0.0)
        if not values[-1] > 0 or not kept.any():
            raise ValueError("points: all are given without noise, so nothing is left uncertain")
        modes, variances = vectors.T[kept][::-1], values[kept][::-1]
        model = ShapeModel(int(kept.sum()), align="none")
        model.mirror_, model.scheme_, model.statistics_ = None, self.scheme_, None
        model.n_samples_ = self.n_samples_
        mean = found.mean[0]
        model._set_modes(mean, mean, modes, variances, float(variances.sum()))
        return model

    def log_likelihood(self, points: npt.ArrayLike, noise: npt.ArrayLike = 0.0) -> Float64:
        """Log density of shapes under the model, whatever their poses.

        Coefficients are normal with variances λ, what the modes leave out is normal with
        ``noise_variance_`` in every direction (probabilistic PCA); the density is in the tangent
        space, in units of the model, so a similarity of the shape changes nothing. Of a shape with
        missing points it is the density of those given.

        Parameters
        ----------
        points : array_like, shape (..., p, d)
            NaN where a point is missing.
        noise : array_like
            As for :meth:`complete`.

        Returns
        -------
        ndarray, shape (...)

        Raises
        ------
        ValueError
            As :meth:`complete`; or when there is no density: the model leaves nothing out though
            its modes do not span all directions.
        """
        model, batch, axes, covariance = self._conditions(points, noise)
        free = self.mean_.size - len(self._fixed()) - self.n_components_
        if model.residual == 0 and free > 0 and not np.linalg.det(covariance).all():
            raise ValueError(
                f"log_likelihood: {free} directions have no variance in this model, so other "
                "shapes have no density; fit with fewer n_components, or give noise"
            )
        return log_likelihood(model, batch, covariance).reshape(axes)

    def score(self, shapes: npt.ArrayLike, y: None = None) -> float:
        """Mean :meth:`log_likelihood` of shapes ``(n, p, d)``, for scikit-learn's searches."""
        return float(np.mean(self.log_likelihood(shapes)))

    def plausibility(self, shapes: npt.ArrayLike, tail: float = 1e-9) -> Float64:
        """Score of how much shapes look like shapes of the model: 1 its mean, 0.5 at the limit.

        See :class:`asmkit.plausibility.Plausibility`, which it calls.

        Parameters
        ----------
        shapes : array_like, shape (..., p, d)
        tail : float
            Share of the model's own shapes beyond the limit.

        Returns
        -------
        ndarray, shape (...)
            In [0, 1]; NaN for a shape with a missing point.
        """
        self._held()
        return Plausibility(self, tail)(shapes)

    def _conditions(self, points: npt.ArrayLike, noise: npt.ArrayLike) -> _Given:
        self._held()
        if self.align == "box":
            raise ValueError(
                "align='box' takes its poses from the box of all points, so nothing can be said of "
                "some of them; fit the model with align='similarity'"
            )
        n_points, n_dims = self.mean_.shape
        batch, axes = as_batch(points, "points", n_points=n_points, n_dims=n_dims, allow_nan=True)
        covariance = noise_covariance(noise, axes, n_points, n_dims)
        model = GaussianShapes(
            self.reference_,
            self.mean_,
            self.components_,
            self.explained_variance_,
            self.noise_variance_,
            self._frame().moves,
        )
        return _Given(model, batch.astype(np.float64), axes, covariance)

    def _condition(self, given: _Given, *, robust: bool, with_joint: bool = False) -> Conditioned:
        found = condition(
            given.model, given.points, given.noise, robust=robust, with_joint=with_joint
        )
        if not found.converged.all():
            warnings.warn(
                f"the poses of {int((~found.converged).sum())} shape(s) did not come to rest; "
                "do the points given fix a pose?",
                ConvergenceWarning,
                stacklevel=3,
            )
        return found

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
            self.mean_ if self.reference_ is self.mean_ else self.reference_,
            self.mean_,
            self.components_[:k],
            self.explained_variance_[:k],
            self.total_variance_,
        )
        return model

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one ``.npz`` file, whole or not at all; it holds no pickle.

        The suffix is the caller's choice; ``ShapeModel.load`` gives the same model to the bit.
        """
        self._held()
        write_model(self, path)

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
        model = cls()
        read_model(model, path)
        return model

    def _fixed(self) -> Float64:
        return fixed_directions(self.reference_, self._frame().moves)

    def _held(self) -> int:
        """Number of modes of a fitted model."""
        check_is_fitted(self, "components_")
        return self.n_components_

    def _frame(self) -> Frame:
        return frame_of(self.align)

    def _batch(self, shapes: npt.ArrayLike) -> tuple[Floats, tuple[int, ...]]:
        self._held()
        n_points, n_dims = self.mean_.shape
        # The kernels meet every value and report what has no pose: see _run.
        return as_batch(shapes, "shapes", n_points=n_points, n_dims=n_dims, check_values=False)

    def _linear(self, units: Float64) -> Linear:
        return Linear(self.reference_, self.mean_, self.components_[: len(units)], units)

    def _projector(self, units: Float64, dtype: np.dtype[Any]) -> Projector:
        return self._frame().projector(self._linear(units), dtype)

    def _count_held(self, n_components: float | None) -> int:
        self._held()
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


def _size(shape: Float64) -> float:
    return float(np.linalg.norm(shape - shape.mean(axis=0)))


def _same(a: npt.NDArray[Any] | None, b: npt.NDArray[Any] | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))
