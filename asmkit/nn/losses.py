"""The ASM-assisted loss.

Source: arXiv 2103.00119, section 3.3. With N images of n landmarks, G the annotated points, A the
points smoothed by the shape model and P the prediction::

    L_mse    = 1/(N n) Σ ‖G − P‖₂                (norms unsquared, as printed)
    L_asm    = 1/(N n) Σ ‖A − P‖₂
    L_facial = L_mse + α L_asm                   α = 2, 1, 0.5 by thirds of the epochs
    L_pose   = 1/(3 N) Σ (yaw² + pitch² + roll²) of the errors
    L        = 1·L_facial + 0.5·L_pose

With unsquared norms the minimiser is A while α > 1 and G once α < 1: a curriculum from smooth
shapes to the real labels. The authors' published code squares the norm instead, which equals one
squared loss to the blend (G + αA)/(1 + α) and never ends on the real labels: ``form="squared"``.

``"wing"`` and ``"soft-wing"`` (:mod:`asmkit.nn.wing`) take the place of the norm in both terms.
They are functions of each coordinate by itself, of which a point's distance is the sum. Their
constants, w = 10 and ε = 2, and ω₁ = 2, ω₂ = 20 and ε = 0.5, are in pixels of the crop; the value,
like that of the norm, is in half crops: 2/s times the one in pixels, for a crop of side s. So far
off the slope of ``"wing"`` is that of the absolute error of each coordinate, and the weights of the
other terms keep their meaning.

With a teacher, a trained network that finds the points T in the same crops, a term is added in the
same distance (not in that paper: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural
network", arXiv 1503.02531, add a loss against a teacher's answers to the one against the labels)::

    L_teacher = 1/(N n) Σ ‖T − P‖₂           with the weight ``teacher_weight``

The scales of the errors (:mod:`asmkit.confidence`) and the visibility of landmarks have losses of
their own, which are all that their stage of a training has.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from asmkit.nn.heads import NetworkOutput
from asmkit.nn.recipe import LOSS_FORMS, Recipe
from asmkit.nn.rotation import rotation_of
from asmkit.nn.wing import soft_wing, wing

__all__ = ["ASMAssistedLoss", "LossTerms", "alpha_at", "scale_loss", "visibility_loss"]

#: How α runs through the epochs: by thirds as printed, or by thirds and 0 in the last tenth, or
#: no smoothed targets at all (the control).
SCHEDULES = {
    "thirds": ((0.0, 2.0), (1 / 3, 1.0), (2 / 3, 0.5)),
    "to-zero": ((0.0, 2.0), (0.3, 1.0), (0.6, 0.5), (0.9, 0.0)),
    "none": ((0.0, 0.0),),
}

#: Constants of the wings in pixels of the crop: w, ε; ω₁, ω₂, ε.
WING = (10.0, 2.0)
SOFT_WING = (2.0, 20.0, 0.5)


def alpha_at(progress: float, schedule: str = "thirds") -> float:
    """α at ``progress``, the share of the epochs that lie behind (0 to 1).

    ``"thirds"`` is the paper's schedule (arXiv 2103.00119, equation 8): 2 for i < l/3, 1 for
    l/3 ≤ i < 2l/3, 0.5 after.

    Raises
    ------
    ValueError
        For an unknown schedule.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule: got {schedule!r}, expected one of {sorted(SCHEDULES)}")
    # The guard keeps epoch l/3 in the second third whatever the rounding of i / l.
    return [alpha for start, alpha in SCHEDULES[schedule] if progress >= start - 1e-9][-1]


class LossTerms(NamedTuple):
    """The loss and what it is made of, each a scalar."""

    total: Tensor
    points: Tensor
    asm: Tensor
    pose: Tensor
    face: Tensor
    teacher: Tensor


class ASMAssistedLoss(nn.Module):
    """The loss of the ASMNet paper, in named terms, and a term for face or not.

    Every term leaves out the samples without a label of its task: NaN.

    Parameters
    ----------
    form : {"printed", "squared", "wing", "soft-wing"}
        Distance between two points: the norm as printed, its square as in the published code, or
        the sum of a function of the coordinates, see above.
    pose_weight : float
        Weight of the pose task; 0.5 in the paper. From a network that gives a rotation, a sixth
        of the squared difference of the matrices, which for small errors is the same.
    face_weight : float
        Weight of the cross entropy of face or not, the tracking task of ATPN.
    teacher_weight : float
        Weight of the distance to a teacher's points, where there are any.
    input_size : int
        Side of the crops in pixels, in which the constants of the wings are given.
    """

    def __init__(
        self,
        form: str = "printed",
        pose_weight: float = 0.5,
        face_weight: float = 1.0,
        teacher_weight: float = 0.0,
        input_size: int = 112,
    ) -> None:
        super().__init__()
        if form not in LOSS_FORMS:
            raise ValueError(f"form: got {form!r}, expected one of {', '.join(LOSS_FORMS)}")
        self.form = form
        self.pose_weight = pose_weight
        self.face_weight = face_weight
        self.teacher_weight = teacher_weight
        self.input_size = input_size

    @classmethod
    def of(cls, recipe: Recipe) -> ASMAssistedLoss:
        """The loss of a recipe."""
        return cls(
            recipe.loss_form,
            recipe.pose_weight,
            recipe.face_weight,
            recipe.teacher_weight,
            recipe.input_size,
        )

    def forward(
        self,
        output: NetworkOutput,
        points: Tensor,
        smoothed: Tensor,
        angles: Tensor,
        alpha: float,
        face: Tensor | None = None,
        taught: Tensor | None = None,
    ) -> LossTerms:
        """Compare a prediction with its targets.

        Parameters
        ----------
        output : NetworkOutput
            The prediction P.
        points, smoothed : Tensor, (n, n_points, 2)
            Annotated points G and smoothed points A, in the units of the prediction; NaN where
            there is none.
        angles : Tensor, (n, 3)
            Yaw, pitch, roll in radians; a row of NaN is a face without a pose label.
        alpha : float
            Weight of the smoothed points, from :func:`alpha_at`.
        face : Tensor, (n,), optional
            1 for a face, 0 for none, NaN where neither is right to say.
        taught : Tensor, (n, n_points, 2), optional
            A teacher's points T, in the units of the prediction; NaN where they are not to count.
        """
        mse = self._distance(output.points, points)
        asm = self._distance(output.points, smoothed)
        pose = _pose_error(output, angles)
        seen = torch.zeros_like(pose)
        if output.face is not None and face is not None:
            seen = _masked_cross_entropy(output.face, face)
        total = mse + alpha * asm + self.pose_weight * pose + self.face_weight * seen
        teacher = torch.zeros_like(mse)
        if taught is not None:
            teacher = self._distance(output.points, taught)
            total = total + self.teacher_weight * teacher
        return LossTerms(total, mse, asm, pose, seen, teacher)

    def _distance(self, predicted: Tensor, target: Tensor) -> Tensor:
        known = target.isfinite().all(-1)
        # Before any square: the gradient of a masked NaN would be NaN.
        error = (predicted - target).where(known[..., None], 0.0)
        return self._sizes(error).where(known, 0.0).sum() / known.sum().clamp(min=1)

    def _sizes(self, error: Tensor) -> Tensor:
        """Sizes ``(n, p)`` of errors ``(n, p, 2)``, both in half crops."""
        pixel = 2 / self.input_size
        if self.form == "wing":
            return wing(error, *(pixel * constant for constant in WING)).sum(-1)
        if self.form == "soft-wing":
            return soft_wing(error, *(pixel * constant for constant in SOFT_WING)).sum(-1)
        squared = error.square().sum(-1)
        if self.form == "squared":
            return squared
        # The norm has no gradient at 0; the guard is far below any distance that matters.
        return (squared + 1e-12).sqrt()


def scale_loss(points: Tensor, log_scale: Tensor, truth: Tensor, likelihood: str) -> Tensor:
    """Mean negative logarithm of the density of errors with the stated scales.

    The points are taken as they are: only the scales get a gradient. Least, in expectation, where
    the scale is that of the errors; see :mod:`asmkit.confidence`.

    Parameters
    ----------
    points : Tensor, (n, n_points, 2)
        The prediction.
    log_scale : Tensor, (n, n_points)
        Logarithms of the expected distances, in the units of the points.
    truth : Tensor, (n, n_points, 2)
        Annotated points; NaN where there is none, which counts for nothing.
    likelihood : {"laplace", "gaussian"}

    Returns
    -------
    Tensor
        A scalar.
    """
    known = truth.isfinite().all(-1)
    distance = (points.detach() - truth).where(known[..., None], 0.0).norm(dim=-1)
    ratio = distance * torch.exp(-log_scale)
    if likelihood == "gaussian":
        loss = math.log(4) + 2 * log_scale + math.pi / 4 * ratio.square()
    else:
        loss = math.log(math.pi / 2) + 2 * log_scale + 2 * ratio
    mean: Tensor = loss.where(known, 0.0).sum() / known.sum().clamp(min=1)
    return mean


def visibility_loss(logits: Tensor, visible: Tensor) -> Tensor:
    """Mean cross entropy of landmarks in plain view or covered.

    Parameters
    ----------
    logits : Tensor, (n, n_points)
    visible : Tensor, (n, n_points)
        1 for a landmark in plain view, 0 for a covered one; NaN counts for nothing.

    Returns
    -------
    Tensor
        A scalar.
    """
    return _masked_cross_entropy(logits, visible)


def _pose_error(output: NetworkOutput, angles: Tensor) -> Tensor:
    known = angles.isfinite().all(-1)
    if output.rotation is None:
        error = (output.angles - angles).where(known[:, None], 0.0).square().sum(-1) / 3
    else:
        difference = output.rotation - rotation_of(angles)
        error = difference.where(known[:, None, None], 0.0).square().sum((-1, -2)) / 6
    return error.sum() / known.sum().clamp(min=1)


def _masked_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    known = label.isfinite()
    target = label.where(known, 0.0)
    error = binary_cross_entropy_with_logits(logits, target, reduction="none")
    return error.where(known, 0.0).sum() / known.sum().clamp(min=1)
