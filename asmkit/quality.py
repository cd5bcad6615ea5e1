"""Quality of shape models: compactness, generalization, specificity (Davies 2002).

Each is a curve over the number of modes, with standard errors. Distances are mean distances of
corresponding points, in the units of the model's frame: with ``align="similarity"`` the reference
has centroid size 1, so a distance times the centroid size of a shape is in the units of that
shape; with ``"box"`` the landmark box has width and height 1; otherwise they are the shapes' own.

References
----------
R. H. Davies (2002). Learning shape: optimal models for analysing natural variability. PhD thesis,
University of Manchester.

M. Styner et al. (2003). Evaluation of 3D correspondence methods for model building. IPMI, LNCS
2732, 63-75.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from asmkit._check import as_points, as_shapes
from asmkit.alignment import coinciding, refuse_coinciding
from asmkit.frames import Frame, Training, frame_of
from asmkit.model import ShapeModel
from asmkit.modes import fixed_directions, principal_modes
from asmkit.schemes import Scheme
from asmkit.symmetry import resolve_mirror

__all__ = ["QualityCurve", "compactness", "generalization", "specificity"]

Float64 = npt.NDArray[np.float64]
Counts = npt.NDArray[np.intp]

#: Numbers in a block of the batched computations: 32 MB.
_BLOCK = 1 << 22


@dataclass(frozen=True, eq=False)
class QualityCurve:
    """A measure of quality for several numbers of modes, and how it was taken.

    Attributes
    ----------
    measure : str
        ``"compactness"``, ``"generalization"`` or ``"specificity"``.
    n_components : ndarray of int, shape (m,)
        Numbers of modes, rising.
    values : ndarray, shape (m,)
        Variance (compactness), or mean point distance in units of the frame: less is better.
    standard_errors : ndarray, shape (m,)
        Of the values.
    align : str
        The frame.
    n_shapes : int
        Shapes the measure rests on, without mirror images.
    n_samples : int or None
        Shapes drawn from the model, for specificity.
    folds : int or None
        Models fitted for generalization; ``n_shapes`` when each shape was left out on its own.
    random_state : int or None
        The seed of the draws or folds, where there were any and it was a number.
    """

    measure: str
    n_components: Counts
    values: Float64
    standard_errors: Float64
    align: str
    n_shapes: int
    n_samples: int | None = None
    folds: int | None = None
    random_state: int | None = None


def compactness(model: ShapeModel) -> QualityCurve:
    """Variance that the first modes hold, for each number of modes: ``Σ λ_i``.

    As a share it is ``model.explained_variance_ratio_.cumsum()``. The standard errors are those of
    normal shapes, ``(2 / (n − 1) Σ λ_i²)^½``.

    Parameters
    ----------
    model : ShapeModel
        Fitted.

    Returns
    -------
    QualityCurve
    """
    check_is_fitted(model)
    variances = model.explained_variance_
    n_shapes = model.n_samples_ if model.mirror_ is None else model.n_samples_ // 2
    errors = np.sqrt(2 / max(n_shapes - 1, 1) * np.cumsum(variances**2))
    counts = np.arange(1, len(variances) + 1)
    return QualityCurve("compactness", counts, np.cumsum(variances), errors, model.align, n_shapes)


def generalization(
    shapes: npt.ArrayLike,
    n_components: int | Sequence[int] | None = None,
    *,
    align: str = "similarity",
    mirror: str | Scheme | npt.ArrayLike | None = None,
    reference: npt.ArrayLike | None = None,
    folds: int | None = None,
    random_state: int = 0,
    progress: bool = False,
) -> QualityCurve:
    """How near models come to shapes they have not seen, for each number of modes.

    A shape is projected on the modes of a model of other shapes, its coefficients unbounded; the
    value is the mean point distance between the shape and its projection.

    By default every shape is left out on its own, exactly: all shapes are aligned once, in one
    frame, and mean and modes without a shape come from downdating the scatter matrix of all, one
    eigendecomposition each. The shape left out has had its part, one in n, in the reference that
    poses are estimated against, unless ``reference`` is given. With ``folds`` the models of the
    folds are fitted from scratch, alignment included, and share nothing with what they are
    measured on.

    Parameters
    ----------
    shapes : array_like, shape (n, p, d)
        Complete shapes, n at least 4.
    n_components : int or sequence of int, optional
        The largest number of modes, or those of interest; by default all there can be.
    align, mirror
        As of :class:`asmkit.ShapeModel`. A shape and its mirror image are left out together.
    reference : array_like, shape (p, d), optional
        As of :meth:`asmkit.ShapeModel.fit`.
    folds : int, optional
        From 2 to n.
    random_state : int
        Which shapes make a fold.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    QualityCurve
        The standard errors are over shapes. Errors of shapes left out of models that share nearly
        all others are a little dependent; the standard errors do not count that.

    Raises
    ------
    ValueError
        For shapes that no model can be fitted to (see :meth:`asmkit.ShapeModel.fit`), more modes
        than there can be, or a number of folds that is not between 2 and n.
    """
    batch = as_shapes(shapes, min_shapes=4).astype(np.float64, copy=False)
    refuse_coinciding(coinciding(batch), "shapes")
    frame = frame_of(align)
    permutation, _ = resolve_mirror(mirror, batch.shape[1])
    pattern = None
    if reference is not None:
        given = as_points(reference, "reference", n_points=batch.shape[1], n_dims=batch.shape[2])
        pattern = given.astype(np.float64)
    n = len(batch)
    if folds is None:
        training = frame.train(batch, permutation, pattern)
        groups = training.deviations.reshape(-1, n, batch[0].size).swapaxes(0, 1)
        most = _most_modes(training, frame, len(training.deviations) - groups.shape[1])
        counts = _counts(n_components, most)
        parts = _left_out(groups, counts, batch.shape[2])
        n_parts = n
    else:
        if not 2 <= folds <= n:
            raise ValueError(f"folds: got {folds}, expected from 2 to the number of shapes, {n}")
        number = np.random.default_rng(random_state).permutation(n) % folds
        trainings = [frame.train(batch[number != i], permutation, pattern) for i in range(folds)]
        most = min(_most_modes(each, frame, len(each.deviations)) for each in trainings)
        counts = _counts(n_components, most)
        parts = (
            _held_out(training, frame, batch[number == i], counts)
            for i, training in enumerate(trainings)
        )
        n_parts = folds
    found = []
    with tqdm(total=n, desc="generalization", disable=not progress, leave=False) as bar:
        for distances in parts:
            found.append(distances)
            bar.update(len(distances))
    errors = np.concatenate(found)
    return QualityCurve(
        "generalization",
        counts,
        errors.mean(axis=0),
        errors.std(axis=0, ddof=1) / np.sqrt(n),
        align,
        n,
        folds=n_parts,
        random_state=None if folds is None else random_state,
    )


def specificity(
    model: ShapeModel,
    shapes: npt.ArrayLike,
    n_samples: int = 1000,
    random_state: int | np.random.Generator | None = 0,
    *,
    n_components: int | Sequence[int] | None = None,
    progress: bool = False,
) -> QualityCurve:
    """How near shapes drawn from a model are to real ones, for several numbers of modes.

    Coefficients are drawn from normal distributions with the variances λ, the same draws for every
    number of modes; the value is the mean point distance of a drawn shape to the nearest training
    shape, as both stand in the frame of the model.

    Parameters
    ----------
    model : ShapeModel
        Fitted.
    shapes : array_like, shape (n, p, d)
        The training shapes, in any poses. Where the model was fitted with ``mirror``, their mirror
        images count as well.
    n_samples : int
        Draws, at least 2.
    random_state : int, Generator or None
        The same seed gives the same curve.
    n_components : int or sequence of int, optional
        The largest number of modes, or those of interest. By default about a dozen numbers, spread
        from 1 to all: time grows with each, by ``n_samples × n × p`` distances.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    QualityCurve
        The standard errors are over draws.

    Raises
    ------
    ValueError
        When the shapes do not match the model, or for numbers of modes that it does not hold.
    """
    check_is_fitted(model)
    n_points, n_dims = model.mean_.shape
    batch = as_shapes(shapes, min_shapes=1, n_points=n_points, n_dims=n_dims)
    refuse_coinciding(coinciding(batch), "shapes")
    if n_samples < 2:
        raise ValueError(f"n_samples: got {n_samples}, expected at least 2")
    k = model.n_components_
    counts = _spread(k) if n_components is None else _counts(n_components, k)
    frame = frame_of(model.align)
    training = frame.train(
        batch.astype(np.float64), model.mirror_, _reference_of(frame, model.reference_)
    )
    real = _aligned(training)
    generator = np.random.default_rng(random_state)
    draws = generator.standard_normal((n_samples, k)) * np.sqrt(model.explained_variance_)
    nearest = np.empty((len(counts), n_samples))
    numbers = tqdm(counts, desc="specificity", disable=not progress, leave=False)
    for row, count in zip(nearest, numbers, strict=True):
        drawn = model.inverse_transform(draws * (np.arange(k) < count))
        row[:] = _nearest_distances(np.asarray(drawn, dtype=np.float64), real)
    return QualityCurve(
        "specificity",
        counts,
        nearest.mean(axis=1),
        nearest.std(axis=1, ddof=1) / np.sqrt(n_samples),
        model.align,
        len(batch),
        n_samples=n_samples,
        random_state=int(random_state) if isinstance(random_state, (int, np.integer)) else None,
    )


def _reference_of(frame: Frame, reference: Float64) -> Float64 | None:
    """Return the reference for frames whose poses need one, and None for the others."""
    return reference if frame.moves else None


def _aligned(training: Training) -> Float64:
    return np.asarray(training.mean + training.deviations)


def _most_modes(training: Training, frame: Frame, n_rows: int) -> int:
    n_fixed = len(fixed_directions(training.reference, frame.moves))
    return max(1, min(n_rows - 1, training.mean.size - n_fixed))


def _counts(n_components: int | Sequence[int] | None, most: int) -> Counts:
    if n_components is None:
        return np.arange(1, most + 1)
    given = np.asarray(n_components)
    fine = given.dtype.kind in "iu" and given.size > 0 and given.ndim <= 1
    if not fine or given.min() < 1 or given.max() > most:
        raise ValueError(
            f"n_components: got {n_components!r}, expected whole numbers from 1 to {most}"
        )
    return np.unique(given).astype(np.intp) if given.ndim else np.arange(1, int(given) + 1)


def _spread(most: int) -> Counts:
    """About a dozen numbers from 1 to ``most``, denser at the small ones."""
    return np.unique(np.round(np.geomspace(1, most, 14)).astype(np.intp))


def _left_out(groups: Float64, counts: Counts, n_dims: int) -> Iterator[Float64]:
    """Distances ``(b, m)``, chunk by chunk, of the first row of each group to its projection.

    ``groups`` is (n, g, q): the rows that are left out together. Everything happens in the r
    coordinates of the singular vectors of all rows, in which the scatter matrix is diagonal.
    """
    n, g, q = groups.shape
    rows = groups.reshape(n * g, q)
    rows = rows - rows.mean(axis=0)
    left, values, vectors = np.linalg.svd(rows, full_matrices=False)
    some = values > np.finfo(np.float64).eps * max(rows.shape) * values[0]
    values, vectors = values[some], vectors[some]
    coordinates = (left[:, some] * values).reshape(n, g, -1)
    n_rest = n * g - g
    r, k = len(values), min(int(counts[-1]), len(values))
    step = max(1, _BLOCK // (r * r + k * q))
    for start in range(0, n, step):
        out = coordinates[start : start + step]
        mean = -out.sum(axis=1) / n_rest
        scatter = np.diag(values**2) - np.swapaxes(out, 1, 2) @ out
        scatter -= n_rest * mean[:, :, None] * mean[:, None, :]
        variances, modes = np.linalg.eigh(scatter)
        variances, modes = variances[:, ::-1][:, :k], modes[:, :, ::-1][:, :, :k]
        deviation = out[:, 0] - mean
        weights = np.einsum("bi,bik->bk", deviation, modes)
        # What has no variance is no mode: its direction is any.
        least = np.finfo(np.float64).eps * (n * g) * variances[:, :1]
        weights = np.where(variances > least, weights, 0.0)
        yield _distances(deviation, weights, modes, vectors, counts, n_dims)


def _held_out(training: Training, frame: Frame, shapes: Float64, counts: Counts) -> Float64:
    """Distances ``(b, m)`` of unseen shapes to their projections."""
    deviations = training.deviations
    fixed = fixed_directions(training.reference, frame.moves)
    size = float(np.linalg.norm(training.mean - training.mean.mean(axis=0)))
    modes = principal_modes(deviations, fixed, size)[1][: counts[-1]].T
    seen = frame.train(shapes, None, _reference_of(frame, training.reference))
    rows = (_aligned(seen) - training.mean).reshape(len(shapes), -1)
    step = max(1, _BLOCK // (modes.size + 1))
    eye, parts = np.eye(len(modes)), []
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        parts.append(_distances(part, part @ modes, modes[None], eye, counts, shapes.shape[2]))
    return np.concatenate(parts)


def _distances(
    deviations: Float64,
    weights: Float64,
    modes: Float64,
    vectors: Float64,
    counts: Counts,
    n_dims: int,
) -> Float64:
    """Mean point distance ``(b, m)`` of deviations (b, r) to their first ``counts`` modes.

    ``modes`` is (b or 1, r, k), ``weights`` (b, k); ``vectors`` (r, q) leads to points.
    """
    seen = np.cumsum(weights[:, None, :] * modes, axis=2)
    last = np.minimum(counts, modes.shape[2]) - 1
    missing = deviations[:, :, None] - seen[:, :, last]
    points = np.swapaxes(missing, 1, 2) @ vectors
    points = points.reshape(*points.shape[:2], -1, n_dims)
    return np.asarray(np.sqrt(np.einsum("bmpd,bmpd->bmp", points, points)).mean(axis=2))


def _nearest_distances(drawn: Float64, real: Float64) -> Float64:
    """Mean point distance of each drawn shape (b, p, d) to the nearest real one."""
    found = np.empty(len(drawn))
    step = max(1, _BLOCK // len(real))
    for start in range(0, len(drawn), step):
        part = drawn[start : start + step]
        total = np.zeros((len(part), len(real)))
        for j in range(drawn.shape[1]):
            total += cdist(part[:, j], real[:, j])
        found[start : start + step] = total.min(axis=1) / drawn.shape[1]
    return found
