"""Calibration: stated scales made right on faces that were held out of the training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from asmkit.confidence import calibration_factors
from asmkit.nn.data import LandmarkDataset
from asmkit.nn.heads import LandmarkNetwork, from_crop
from asmkit.nn.validation import outputs_of

__all__ = ["calibrate"]


@torch.inference_mode()
def calibrate(
    network: LandmarkNetwork, dataset: LandmarkDataset, likelihood: str
) -> dict[str, Any]:
    """Make the scales of a network right on the plain crops of ``dataset``.

    The factors become part of the network, so every export of it is calibrated.

    Parameters
    ----------
    network : LandmarkNetwork
        With a confidence head; what it was calibrated with before is forgotten.
    dataset : LandmarkDataset
        Faces that were not trained on.
    likelihood : {"laplace", "gaussian"}

    Returns
    -------
    dict
        ``faces``, and ``factors``: one number, or one of each landmark; see
        :func:`asmkit.confidence.calibration_factors`.
    """
    assert network.confidence is not None  # the caller's promise
    network.eval()
    network.confidence.calibration.zero_()
    samples = [dataset.sample(i) for i in range(len(dataset))]
    outputs = outputs_of(network, [sample.images for sample in samples])
    assert outputs.log_scale is not None  # from a network with that head
    truth = np.concatenate([sample.points for sample in samples])
    away = outputs.points - from_crop(torch.from_numpy(truth), dataset.recipe.input_size)
    factors = calibration_factors(
        away.norm(dim=2).numpy(), outputs.log_scale.double().exp().numpy(), likelihood
    )
    network.confidence.calibration.copy_(torch.from_numpy(np.log(factors)))
    rounded = [round(float(factor), 4) for factor in factors]
    one = bool((factors == factors[0]).all())
    return {"faces": len(dataset), "factors": rounded[0] if one else rounded}
