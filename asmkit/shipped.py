"""The networks that come with the package, by name.

Each is a folder of ``asmkit/weights`` like that of a finished training: ``model.onnx``,
``model.safetensors``, ``model.json``, ``shape_model.npz``, the recipe; with a card (``CARD.md``:
data, results, limits) and the licence of the weights (``LICENSE.txt``), which is not always that of
the code. ``SHA256SUMS`` holds the SHA-256 of every other file, in the format of ``sha256sum``.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from asmkit.errors import FormatError

__all__ = ["DEFAULT_NETWORK", "network_folder", "shipped_networks"]

#: What the command line uses where no network is named.
DEFAULT_NETWORK = "asmkit-ibug68"

_WEIGHTS = Path(__file__).parent / "weights"
_SUMS = "SHA256SUMS"


def shipped_networks() -> list[str]:
    """Names of the networks that come with asmkit, for :func:`asmkit.load`.

    Returns
    -------
    list of str
        Sorted. What each was trained on, how well it does and what its licence allows stands in its
        card, ``CARD.md`` in :func:`network_folder`. Those trained on 300-W are for non-commercial
        research only; ``"rendered-ibug68"``, trained on rendered faces alone, is free of that.
    """
    return sorted(path.parent.name for path in _WEIGHTS.glob(f"*/{_SUMS}"))


def network_folder(run_or_name: str | os.PathLike[str]) -> Path:
    """Folder of a trained network, or of a shipped one by its name.

    Parameters
    ----------
    run_or_name : path or str
        A string that is the name of a shipped network means that network, also where a folder is
        called so: ``"./atpn-ibug68"`` is the folder.

    Returns
    -------
    Path

    Raises
    ------
    FileNotFoundError
        When it is neither; the message lists the names.
    FormatError
        When a file of a shipped network is missing or not the one that was shipped.
    """
    names = shipped_networks()
    if isinstance(run_or_name, str) and run_or_name in names:
        folder = _WEIGHTS / run_or_name
        _verify(folder)
        return folder
    folder = Path(run_or_name)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: neither a folder nor a shipped network; expected the folder of a finished "
            f"training (with model.json), or one of the names {', '.join(names)}"
        )
    return folder


def _verify(folder: Path) -> None:
    for line in (folder / _SUMS).read_text("utf-8").splitlines():
        expected, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file():
            problem = "is missing"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            problem = f"is damaged or was changed: its SHA-256 is not the one in {_SUMS}"
        else:
            continue
        raise FormatError(
            f"{path}: this file of the shipped network {folder.name!r} {problem}; reinstall asmkit"
        )
