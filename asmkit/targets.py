"""Training targets smoothed by a shape model, and what the smoothing did to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from asmkit._check import Floats, as_shapes
from asmkit.metrics import default_normalizer, normalizing_distance
from asmkit.model import ShapeModel
from asmkit.priors import Box, Prior
from asmkit.schemes import Scheme, scheme, scheme_of

__all__ = ["SmoothedTargets", "TargetReport", "smooth_targets"]

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TargetReport:
    """What smoothing did to a set of shapes.

    Attributes
    ----------
    normalizer : str
        What displacements are divided by: its name as in :func:`asmkit.nme`, or ``"given"``.
    displacement_per_landmark : ndarray, shape (p,)
        Mean distance between annotated and smoothed point over the shapes, as a fraction of the
        normaliser.
    displacement_per_shape : ndarray, shape (n,)
        The same, mean over the landmarks of each shape: its NME.
    n_clamped : int
        Shapes with at least one coefficient that the prior changed.
    clamped_per_mode : ndarray of int, shape (k,)
        Shapes whose coefficient of the mode the prior changed.
    """

    normalizer: str
    displacement_per_landmark: Float64
    displacement_per_shape: Float64
    n_clamped: int
    clamped_per_mode: npt.NDArray[np.int64]

    def __str__(self) -> str:
        """Render a small table; displacements in percent of the normaliser."""
        n, k = len(self.displacement_per_shape), len(self.clamped_per_mode)
        lines = [f"{n} shapes smoothed with {k} modes"]
        if n == 0:
            return lines[0]
        moved, points = 100 * self.displacement_per_shape, 100 * self.displacement_per_landmark
        farthest = int(np.argmax(points))
        lines += [
            f"displacement, % of {self.normalizer}:",
            f"  mean      {moved.mean():8.3f}",
            f"  median    {np.median(moved):8.3f}",
            f"  largest   {moved.max():8.3f}  (shape {int(np.argmax(moved))})",
            f"  landmark  {points[farthest]:8.3f}  (landmark {farthest} moves most)",
            f"clamped shapes: {self.n_clamped} ({100 * self.n_clamped / n:.1f} %)",
        ]
        modes = np.argsort(-self.clamped_per_mode, kind="stable")[:5]
        lines += [
            f"  mode {mode + 1:4d} {self.clamped_per_mode[mode]:8d}"
            for mode in modes
            if self.clamped_per_mode[mode]
        ]
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class SmoothedTargets:
    """Smoothed shapes ``(n, p, d)`` and the report on them."""

    shapes: Floats
    report: TargetReport


def smooth_targets(
    model: ShapeModel,
    shapes: npt.ArrayLike,
    n_components: float | None = None,
    prior: Prior = Box(3.0),  # noqa: B008  # frozen, so safe to share
    normalizer: str | npt.ArrayLike | None = None,
) -> SmoothedTargets:
    """Smooth annotated shapes into training targets: the ASM operator of ASMNet (Fard et al. 2021).

    Targets may be computed once and kept. **Kept targets move with similarity augmentation only:**
    with ``align="similarity"``, ``smooth(T(x)) = T(smooth(x))`` for every translation, rotation
    and scaling T, so targets and annotations are augmented together. Mirroring too needs a model
    that was fitted with ``mirror``. After any other warp (anisotropic scaling, shearing, a warp to
    another shape), and in the ``"box"`` frame after any rotation, smooth again.

    Parameters
    ----------
    model : ShapeModel
        Fitted.
    shapes : array_like, shape (n, p, d)
        Complete annotated shapes.
    n_components : int or float, optional
        As in :meth:`asmkit.ShapeModel.smooth`.
    prior : Prior
        What keeps the coefficients plausible.
    normalizer : str or array_like, shape (n,), optional
        As in :func:`asmkit.nme`. By default ``"inter-ocular"`` where the landmark scheme (the
        model's, else the known one with as many points) has it, else ``"box-diagonal"``.

    Returns
    -------
    SmoothedTargets
        ``.shapes`` like the input, ``.report`` a :class:`TargetReport`.

    Raises
    ------
    ValueError
        When the shapes do not fit the model, or the normaliser is not known.
    """
    given = as_shapes(shapes)
    known = _scheme_for(model, given.shape[1])
    chosen = default_normalizer(known) if normalizer is None else normalizer
    distance = normalizing_distance(given, chosen, known)
    smoothed = model.smooth(given, n_components, prior)
    clamped = model.clamped(given, n_components, prior)
    moved = np.linalg.norm(smoothed.astype(np.float64) - given, axis=-1) / distance[:, None]
    report = TargetReport(
        normalizer=chosen if isinstance(chosen, str) else "given",
        displacement_per_landmark=moved.mean(axis=0) if len(moved) else np.zeros(given.shape[1]),
        displacement_per_shape=moved.mean(axis=1),
        n_clamped=clamped.n_changed,
        clamped_per_mode=clamped.changed_per_mode,
    )
    return SmoothedTargets(smoothed, report)


def _scheme_for(model: ShapeModel, n_points: int) -> Scheme | None:
    return scheme_of(n_points) if model.scheme_ is None else scheme(model.scheme_)
