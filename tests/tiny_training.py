"""What the tests of trainings share: a recipe that takes seconds, and how to tell two apart."""

from __future__ import annotations

import hashlib
from pathlib import Path

from asmkit.nn import Recipe

#: ASMNet on crops of 32 pixels.
TINY = Recipe(
    width=0.35,
    input_size=32,
    epochs=4,
    batch_size=8,
    warmup_steps=4,
    learning_rate=3e-3,
    validation=0.2,
    asm_components=4,
)


def digest(run: Path) -> str:
    """Equal for two trainings that ended with the same weights, bit for bit."""
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
