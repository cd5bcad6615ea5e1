"""The two exceptions that asmkit adds to Python's own."""

from __future__ import annotations

__all__ = ["FormatError", "MissingExtraError"]


class FormatError(ValueError):
    """A file is not what it should be: truncated, of another format, or hostile.

    The message names the file, what was found, what was expected and what to do.
    """


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message holds the install command."""
