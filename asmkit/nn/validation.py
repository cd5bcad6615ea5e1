"""How well a network does on the part of the training set that is held out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from asmkit.metrics import default_normalizer, nme
from asmkit.nn.data import LandmarkDataset
from asmkit.nn.heads import NetworkOutput, as_input, from_crop, to_crop
from asmkit.nn.losses import scale_loss
from asmkit.schemes import Scheme

__all__ = ["covered_outputs", "outputs_of", "validate"]

Doubles = npt.NDArray[np.float64]


@torch.inference_mode()
def validate(
    network: nn.Module,
    dataset: LandmarkDataset,
    chosen: Scheme | None,
    judges: bool = True,
    states: bool = False,
) -> dict[str, float]:
    """Errors on the plain crops of ``dataset``, in percent and degrees, by their names in the log.

    ``nme``; where pose and face have been learned (``judges``), ``yaw``, ``pitch``, ``roll`` where
    there are labels, and ``face_auc`` of a network with a tracking head, against one negative a
    face, the same in every epoch; where scales have been learned (``states``), ``scale_loss``, and
    ``visibility_auc``, of visible against covered landmarks, the covers the same in every epoch.
    """
    network.eval()
    size = dataset.recipe.input_size
    n = len(dataset)
    samples = [dataset.sample(i) for i in range(n)]
    outputs = outputs_of(network, [sample.images for sample in samples])
    points = to_crop(outputs.points, size).numpy()
    truth = np.concatenate([sample.points for sample in samples])
    errors = nme(points, truth, default_normalizer(chosen), chosen)
    row = {"nme": 100 * float(errors.mean())}
    if states and outputs.log_scale is not None:
        relative = from_crop(torch.from_numpy(truth).float(), size)
        likelihood = dataset.recipe.confidence
        row["scale_loss"] = float(
            scale_loss(outputs.points, outputs.log_scale, relative, likelihood)
        )
    if states and outputs.visible is not None:
        logits, visible = covered_outputs(network, dataset, 1, 0)
        known = np.isfinite(visible)
        if len(np.unique(visible[known])) == 2:
            row["visibility_auc"] = float(roc_auc_score(visible[known], logits[known]))
    angles = np.concatenate([sample.angles for sample in samples])
    if not judges:
        return row
    if np.isfinite(angles).all():
        away = np.rad2deg(np.abs(outputs.angles.numpy() - angles)).mean(0)
        row |= dict(zip(("yaw", "pitch", "roll"), away.tolist(), strict=True))
    if outputs.face is not None:
        negatives = [dataset.negative(i, np.random.default_rng([0, i])).images for i in range(n)]
        none = outputs_of(network, negatives).face
        scores = torch.cat([outputs.face, none if none is not None else outputs.face[:0]])
        row["face_auc"] = float(roc_auc_score(np.arange(len(scores)) < n, scores.numpy()))
    return row


def outputs_of(network: nn.Module, images: list[npt.NDArray[np.uint8]]) -> NetworkOutput:
    """What a network gives for plain crops, each ``(1, s, s, 3)``, but for the rotation."""
    device = next(network.parameters()).device
    parts = [
        network(as_input(torch.from_numpy(np.concatenate(images[start : start + 64])).to(device)))
        for start in range(0, len(images), 64)
    ]
    faces = [part.face for part in parts if part.face is not None]
    scales = [part.log_scale for part in parts if part.log_scale is not None]
    visible = [part.visible for part in parts if part.visible is not None]
    return NetworkOutput(
        torch.cat([part.points for part in parts]).cpu(),
        torch.cat([part.angles for part in parts]).cpu(),
        torch.cat(faces).cpu() if faces else None,
        log_scale=torch.cat(scales).cpu() if scales else None,
        visible=torch.cat(visible).cpu() if visible else None,
    )


def covered_outputs(
    network: nn.Module, dataset: LandmarkDataset, rounds: int, seed: int
) -> tuple[Doubles, Doubles]:
    """Logits of visible landmarks, and their labels, where things lie over the plain crops.

    Both ``(rounds · n, n_points)``; the same covers for the same seed.
    """
    samples = [
        dataset.covered(index, np.random.default_rng([seed, turn, index]))
        for turn in range(rounds)
        for index in range(len(dataset))
    ]
    outputs = outputs_of(network, [sample.images for sample in samples])
    assert outputs.visible is not None  # from a network with that head
    return outputs.visible.double().numpy(), np.concatenate([s.visible for s in samples])
