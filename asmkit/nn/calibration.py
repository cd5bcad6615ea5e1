"""Calibration: scales and visibility made right on faces that were held out of the training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.special import expit

from asmkit.confidence import calibration_error, calibration_factors, platt_scaling
from asmkit.nn.data import LandmarkDataset
from asmkit.nn.heads import LandmarkNetwork, from_crop
from asmkit.nn.validation import covered_outputs, outputs_of

__all__ = ["calibrate", "calibrate_visibility"]

#: How often each face is covered anew, and the seed of what covers it.
_ROUNDS, _SEED = 8, 1


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


@torch.inference_mode()
def calibrate_visibility(network: LandmarkNetwork, dataset: LandmarkDataset) -> dict[str, Any]:
    """Make the visibility of a network right on the crops of ``dataset``, things laid over them.

    Each face is covered several times, as often as the recipe's ``occlusion`` says and the same
    in every run. Slope and offset become part of the network, so every export of it is calibrated.

    Parameters
    ----------
    network : LandmarkNetwork
        With a visibility head; what it was calibrated with before is forgotten.
    dataset : LandmarkDataset
        Faces that were not trained on.

    Returns
    -------
    dict
        ``faces``, ``landmarks`` with a label and the share ``covered`` of them, ``slope`` and
        ``offset`` of the logits, and the ``calibration_error_before`` and ``_after``; see
        :func:`asmkit.confidence.platt_scaling`.
    """
    assert network.visibility is not None  # the caller's promise
    network.eval()
    network.visibility.calibration.copy_(torch.tensor([1.0, 0.0]))
    logits, visible = covered_outputs(network, dataset, _ROUNDS, _SEED)
    slope, offset = platt_scaling(logits, visible)
    network.visibility.calibration.copy_(torch.tensor([slope, offset]))
    known = np.isfinite(visible)
    before, after = (
        calibration_error(expit(stated[known]), visible[known] > 0)
        for stated in (logits, slope * logits + offset)
    )
    return {
        "faces": len(dataset),
        "landmarks": int(known.sum()),
        "covered": round(float(1 - visible[known].mean()), 4),
        "slope": round(slope, 4),
        "offset": round(offset, 4),
        "calibration_error_before": round(before, 4),
        "calibration_error_after": round(after, 4),
    }
