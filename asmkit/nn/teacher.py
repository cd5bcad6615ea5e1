"""A trained network whose landmarks are a further target of another's training.

Source of the idea: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", arXiv
1503.02531. Here the teacher answers with landmarks, which the loss takes as it takes the annotated
ones (:mod:`asmkit.nn.losses`). It looks at the very crop that the student sees, noise and occluders
included, resampled to its own size and to the part that its margin shows it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from asmkit.annotations import Annotation
from asmkit.description import check_weights, read_description, weights_file
from asmkit.nn.atpn import ATPN
from asmkit.nn.export import load_network
from asmkit.nn.heads import LandmarkNetwork
from asmkit.nn.preparation import chosen_scheme
from asmkit.nn.recipe import Recipe
from asmkit.shipped import network_folder

__all__ = ["Teacher", "teacher_of"]


class Teacher:
    """What a trained network finds in the crops of a student.

    It is part of no optimiser and of no checkpoint: nothing of it changes.

    Parameters
    ----------
    network : LandmarkNetwork
    sha256 : str
        Of its weights.
    input_size : int
        Side of the crops that it takes.
    share : float
        Side of the square that it looks into, in units of that of the student's crop: its margin
        over the student's, at most 1.
    mirror : sequence of int, optional
        Which landmarks a mirror exchanges: it then looks into the mirrored crop as well, and
        answers the mean.
    license : str, optional
        What its licence allows: it binds the student, too.
    """

    def __init__(
        self,
        network: LandmarkNetwork,
        sha256: str,
        input_size: int,
        share: float = 1.0,
        mirror: Sequence[int] | None = None,
        license: str | None = None,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.sha256 = sha256
        self.input_size = input_size
        self.share = share
        self.mirror = None if mirror is None else list(mirror)
        self.license = license

    def to(self, device: torch.device) -> Teacher:
        """Move it to a device; gives itself."""
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
        self.network.to(device)
        return self

    @torch.no_grad()
    def find(self, images: Tensor) -> Tensor:
        """Landmarks in a student's crops.

        Parameters
        ----------
        images : Tensor, (n, 3, s, s)
            RGB from -1 to 1, of any size.

        Returns
        -------
        Tensor, (n, n_points, 2)
            Relative to the student's crop, without gradient.
        """
        seen = self._view(images)
        points = self._look(seen)
        if self.mirror is not None:
            back = self._look(seen.flip(3))[:, self.mirror]
            points = (points + back * back.new_tensor([-1.0, 1.0])) / 2
        return points * self.share

    def _look(self, images: Tensor) -> Tensor:
        if isinstance(self.network, ATPN):
            return self.network.align(images)[0]  # pose and face are not asked for
        return self.network.find(images)[0].points

    def _view(self, images: Tensor) -> Tensor:
        """The crops that the teacher takes, out of the middle of the student's."""
        size = images.shape[3]
        if self.share == 1 and size == self.input_size:
            return images
        weights = _resampling(size, self.input_size, self.share).to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            view = weights @ images @ weights.T
        return view.contiguous(memory_format=torch.channels_last)


def _resampling(size: int, wanted: int, share: float) -> Tensor:
    """Weights ``(wanted, size)``: a row of pixels to one of its middle part, of another length.

    Bilinear where pixels become finer; where they become coarser, the triangle is as wide as the
    new pixels, which keeps out what they cannot show.
    """
    centres = share * ((2 * torch.arange(wanted, dtype=torch.float64) + 1) / wanted - 1)
    places = (centres + 1) * (size / 2) - 0.5  # in pixels of the given row
    width = max(1.0, share * size / wanted)
    away = (places[:, None] - torch.arange(size, dtype=torch.float64)).abs()
    weights = (1 - away / width).clamp(min=0)
    return (weights / weights.sum(1, keepdim=True)).float()


def teacher_of(
    teacher: str | os.PathLike[str] | None, recipe: Recipe, annotations: Sequence[Annotation]
) -> Teacher | None:
    """The teacher in the folder of a trained network, or of that name, if there is to be one.

    Raises
    ------
    ValueError
        When the recipe gives it no weight, or one without a teacher, or trains no landmarks; when
        the teacher finds other landmarks, looks at more than the student's crop shows, or has no
        mirror to look into.
    FileNotFoundError, FormatError
        When there is no such network, or its files are damaged.
    """
    if teacher is None:
        if recipe.teacher_weight > 0:
            raise ValueError(
                f"recipe: teacher_weight is {recipe.teacher_weight:g}, but there is no teacher; "
                "name one (--teacher), or set teacher_weight to 0"
            )
        return None
    if recipe.teacher_weight == 0:
        raise ValueError(
            f"teacher: got {os.fspath(teacher)!r}, but teacher_weight is 0 in the recipe; expected "
            "a weight above 0 (--set teacher_weight=1), or no teacher"
        )
    if recipe.epochs == 0 and (recipe.head_epochs == 0 or recipe.trunk_rate == 0):
        raise ValueError(
            f"teacher: got {os.fspath(teacher)!r}, but this recipe trains no landmarks (epochs and "
            "trunk_rate); leave the teacher out"
        )
    folder = network_folder(teacher)
    description = read_description(folder)
    chosen = chosen_scheme(recipe, annotations)
    expected = (len(annotations[0].points), chosen.name if chosen else None)
    _check_fit(os.fspath(teacher), description, recipe, expected)
    mirror = None
    if recipe.teacher_views == "flip":
        if chosen is None:
            raise ValueError(
                "recipe: teacher_views is 'flip', but these landmarks are of no known scheme, "
                "which would say which of them a mirror exchanges; expected 'plain'"
            )
        mirror = chosen.mirror
    sha256 = check_weights(weights_file(folder), description)
    network, _ = load_network(folder)
    share = description["margin"] / recipe.margin
    license = description.get("license")
    return Teacher(network, sha256, description["input_size"], share, mirror, license)


def _check_fit(
    teacher: str, description: dict[str, Any], recipe: Recipe, expected: tuple[int, str | None]
) -> None:
    found = (description["n_points"], description["scheme"])
    if found != expected:
        raise ValueError(
            f"teacher: {teacher} finds {found[0]} points of the scheme {found[1]!r}, "
            f"expected {expected[0]} of {expected[1]!r} as in the data"
        )
    margin = description["margin"]
    if margin > recipe.margin:
        raise ValueError(
            f"teacher: {teacher} looks into crops of margin {margin:g}, of which those "
            f"of margin {recipe.margin:g} in the recipe show only a part; expected a margin of at "
            f"least {margin:g} in the recipe, or another teacher"
        )
