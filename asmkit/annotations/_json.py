"""JSON from anywhere: bounded in size, its parts checked to be what they should."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from asmkit.annotations._text import read_text, scaled
from asmkit.errors import FormatError

__all__ = [
    "JSON_BYTES",
    "floats",
    "index_pairs",
    "indices",
    "mapping",
    "parse_json",
    "read_json",
    "sequence",
    "string",
]

#: As Python objects, the worst text takes thirty times its size.
JSON_BYTES = 24 * 2**20
#: Most objects and lists in it: an empty one takes three bytes there, and a hundred here.
_MAX_PARTS = 2_000_000

_NUMBER = {int, float}


def read_json(path: Path, max_bytes: int) -> Mapping[str, Any]:
    """Read a JSON object from a file."""
    return parse_json(read_text(path, max_bytes), str(path), max_bytes)


def parse_json(text: str, where: str, max_bytes: int) -> Mapping[str, Any]:
    """A JSON object."""
    most = scaled(_MAX_PARTS, max_bytes)
    if text.count("[") + text.count("{") > most:
        raise FormatError(
            f"{where}: holds more than {most} objects and lists; is it the right file? If so, "
            "allow it by max_bytes"
        )
    try:
        data = json.loads(text, parse_constant=_constant)
    except RecursionError as error:
        raise FormatError(f"{where}: nested too deeply to be an annotation file") from error
    except ValueError as error:
        raise FormatError(f"{where}: {str(error)[:120]}; expected JSON") from error
    return mapping(data, where)


def _constant(name: str) -> float:
    if name == "NaN":
        return float("nan")
    raise ValueError(f"holds {name}, an infinite number")


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """A JSON object."""
    return value if isinstance(value, dict) else _refuse(value, where, "an object {…}")


def sequence(value: Any, where: str) -> Sequence[Any]:
    """A JSON array."""
    return value if isinstance(value, list) else _refuse(value, where, "a list […]")


def string(value: Any, where: str) -> str:
    """A JSON string."""
    return value if isinstance(value, str) else _refuse(value, where, "a text")


def floats(values: Any, where: str, *, null: bool = False) -> npt.NDArray[np.float64]:
    """A JSON array of finite numbers; ``NaN`` and, where allowed, ``null`` are missing."""
    given = sequence(values, where)
    kinds = set(map(type, given)) - _NUMBER
    if kinds - ({type(None)} if null else set()):
        odd = next(value for value in given if type(value) not in _NUMBER and value is not None)
        _refuse(odd, where, "numbers")
    try:
        array = np.array([np.nan if value is None else value for value in given], np.float64)
    except OverflowError:
        array = np.array([np.inf])
    if np.isinf(array).any():
        raise FormatError(f"{where}: holds a number too large for a coordinate")
    return array


def indices(values: Any, where: str, stop: int) -> tuple[int, ...]:
    """A JSON array of whole numbers from 0 to below ``stop``."""
    given = sequence(values, where)
    for value in given:
        if type(value) is not int or not 0 <= value < stop:
            _refuse(value, where, f"whole numbers from 0 to {stop - 1}")
    return tuple(given)


def index_pairs(values: Any, where: str, stop: int) -> tuple[tuple[int, int], ...]:
    """A JSON array of pairs of landmarks."""
    pairs = [indices(pair, where, stop) for pair in sequence(values, where)]
    if any(len(pair) != 2 for pair in pairs):
        raise FormatError(f"{where}: expected pairs of landmarks")
    return tuple((first, second) for first, second in pairs)


def _refuse(value: Any, where: str, expected: str) -> NoReturn:
    # The text of a hostile value may be endless, and that of a huge number cannot be made at all.
    shown = repr(value)[:40] if isinstance(value, str | float) else type(value).__name__
    raise FormatError(f"{where}: got {shown}, expected {expected}")
