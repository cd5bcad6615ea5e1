"""How well a network does on the part of the training set that is held out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from asmkit.metrics import default_normalizer, nme
from asmkit.nn.data import LandmarkDataset
from asmkit.nn.heads import NetworkOutput, as_input, to_crop
from asmkit.schemes import Scheme

__all__ = ["validate"]


@torch.inference_mode()
def validate(
    network: nn.Module, dataset: LandmarkDataset, chosen: Scheme | None, judges: bool = True
) -> dict[str, float]:
    """Errors on the plain crops of ``dataset``, in percent and degrees, by their names in the log.

    ``nme``; where pose and face have been learned (``judges``), ``yaw``, ``pitch``, ``roll`` where
    there are labels, and ``face_auc`` of a network with a tracking head, against one negative a
    face, the same in every epoch.
    """
    network.eval()
    size = dataset.recipe.input_size
    n = len(dataset)
    samples = [dataset.sample(i) for i in range(n)]
    outputs = _outputs(network, [sample.images for sample in samples])
    points = to_crop(outputs.points, size).numpy()
    truth = np.concatenate([sample.points for sample in samples])
    errors = nme(points, truth, default_normalizer(chosen), chosen)
    row = {"nme": 100 * float(errors.mean())}
    angles = np.concatenate([sample.angles for sample in samples])
    if not judges:
        return row
    if np.isfinite(angles).all():
        away = np.rad2deg(np.abs(outputs.angles.numpy() - angles)).mean(0)
        row |= dict(zip(("yaw", "pitch", "roll"), away.tolist(), strict=True))
    if outputs.face is not None:
        negatives = [dataset.negative(i, np.random.default_rng([0, i])).images for i in range(n)]
        none = _outputs(network, negatives).face
        scores = torch.cat([outputs.face, none if none is not None else outputs.face[:0]])
        row["face_auc"] = float(roc_auc_score(np.arange(len(scores)) < n, scores.numpy()))
    return row


def _outputs(network: nn.Module, images: list[npt.NDArray[np.uint8]]) -> NetworkOutput:
    device = next(network.parameters()).device
    parts = [
        network(as_input(torch.from_numpy(np.concatenate(images[start : start + 64])).to(device)))
        for start in range(0, len(images), 64)
    ]
    faces = [part.face for part in parts if part.face is not None]
    return NetworkOutput(
        torch.cat([part.points for part in parts]).cpu(),
        torch.cat([part.angles for part in parts]).cpu(),
        torch.cat(faces).cpu() if faces else None,
    )
