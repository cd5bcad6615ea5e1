"""``model.json``: what a trained network says of itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from asmkit.errors import FormatError

__all__ = [
    "CODE_LICENSE",
    "SHAPE_MODEL",
    "check_weights",
    "inherited_license",
    "read_description",
    "weights_file",
]

#: The shape model of the training beside the description, where there is one.
SHAPE_MODEL = "shape_model.npz"

#: The licence of the code: a network under the same needs no word.
CODE_LICENSE = "BSD-3-Clause"


def read_description(folder: Path) -> dict[str, Any]:
    """Read and check ``model.json`` of a trained network's folder.

    Raises
    ------
    FileNotFoundError
        When there is none; the message tells an unfinished training from no training.
    FormatError
        When it is damaged, or from a newer asmkit.
    """
    path = folder / "model.json"
    if not path.is_file():
        if (folder / "run.json").is_file():
            raise FileNotFoundError(
                f"{folder}: this training has not finished; go on with: "
                f"asmkit train --resume {folder}"
            )
        raise FileNotFoundError(
            f"{folder}: no trained network here; expected a folder with model.json"
        )
    try:
        description = json.loads(path.read_text("utf-8"))
        known = description["format"] in (1, 2) and {
            "n_points": int(description["n_points"]),
            "input_size": int(description["input_size"]),
            "margin": float(description["margin"]),
            "scheme": description["scheme"],
            "arch": str(description["arch"]),
            "width": float(description["width"]),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: not the description of a network ({error!r})") from error
    if not known:
        raise FormatError(
            f"{path}: format {description['format']!r} is newer than this asmkit; update asmkit"
        )
    return {**description, **known}


def inherited_license(licenses: Iterable[str | None]) -> str | None:
    """What binds a network that was made from others; None where nothing is known that does."""
    binding = [text for text in licenses if text not in (None, CODE_LICENSE)]
    return "; ".join(dict.fromkeys(text for text in binding if text)) or None


def check_weights(path: Path, description: dict[str, Any]) -> str:
    """SHA-256 of ``model.safetensors``, which must be the one in the description beside it.

    Raises
    ------
    FormatError
        When it is another.
    """
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 != description.get("sha256"):
        raise FormatError(
            f"{path}: its SHA-256 is not the one in model.json; the file is damaged or of another "
            "training"
        )
    return sha256


def weights_file(folder: Path) -> Path:
    """``model.safetensors`` of a trained network's folder.

    Raises
    ------
    FileNotFoundError
        When there is none.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no weights for torch here; model.onnx alone runs by ONNX Runtime "
            "(pip install 'asmkit[infer]') and cannot be trained on"
        )
    return path
