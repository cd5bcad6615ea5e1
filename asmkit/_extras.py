"""Leaf: optional dependencies, imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from asmkit.errors import MissingExtraError

__all__ = ["require"]


def require(module: str, extra: str) -> ModuleType:
    """Import ``module`` or say which extra of asmkit brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"this needs the package '{package}', which could not be imported ({error}); "
            f"install it with: pip install 'asmkit[{extra}]'"
        ) from error
