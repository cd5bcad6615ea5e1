"""Landmark schemes as checked data: what the points of a shape mean.

Indices are 0-based. "image_left" is the left half of the picture, which is the subject's *right*
side: the literature uses "left eye" for both, so neither word stands alone here.

Sources: ibug68 is the 68-point mark-up of 300-W (Sagonas et al., "300 Faces In-The-Wild
Challenge", 2016), equal to dlib's; wflw98 is Wu et al., "Look at Boundary" (CVPR 2018).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import numpy.typing as npt

from asmkit._check import Floats, as_batch

__all__ = ["SCHEMES", "Contour", "Scheme", "convert_points", "scheme", "scheme_of"]

Indices = tuple[int, ...]


@dataclass(frozen=True)
class Contour:
    """A line drawn through landmarks.

    Attributes
    ----------
    indices : tuple of int
        The landmarks in the order of drawing.
    closed : bool
        Whether the last landmark is joined to the first.
    """

    indices: Indices
    closed: bool


@dataclass(frozen=True)
class Scheme:
    """What each landmark of a shape means.

    Attributes
    ----------
    name : str
        The key under which :func:`scheme` finds it.
    n_points : int
        Number of landmarks.
    groups : mapping of str to tuple of int
        Named parts; together they hold each landmark exactly once.
    contours : tuple of Contour
        Lines to draw.
    mirror : tuple of int
        Landmark ``i`` of a mirrored image is landmark ``mirror[i]`` of the image; an involution.
    normalizers : mapping of str to (tuple of int, tuple of int)
        Named distances that normalise an error: between the means of two sets of landmarks.

    Raises
    ------
    ValueError
        When the parts contradict each other.
    """

    name: str
    n_points: int
    groups: Mapping[str, Indices] = field(hash=False)
    contours: tuple[Contour, ...]
    mirror: Indices
    normalizers: Mapping[str, tuple[Indices, Indices]] = field(hash=False)

    def __post_init__(self) -> None:
        everyone = list(range(self.n_points))
        if sorted(chain.from_iterable(self.groups.values())) != everyone:
            self._refuse("the groups must hold every landmark exactly once")
        if sorted(self.mirror) != everyone:
            self._refuse("mirror must be a permutation of all landmarks")
        if any(self.mirror[self.mirror[i]] != i for i in everyone):
            self._refuse("mirroring twice must give back every landmark")
        used = chain(
            chain.from_iterable(contour.indices for contour in self.contours),
            chain.from_iterable(chain.from_iterable(self.normalizers.values())),
        )
        if not set(used) <= set(everyone):
            self._refuse(f"contours and normalizers must stay within 0..{self.n_points - 1}")
        if not all(first and second for first, second in self.normalizers.values()):
            self._refuse("a normalizer needs landmarks at both ends")

    def _refuse(self, problem: str) -> None:
        raise ValueError(f"scheme {self.name!r} with {self.n_points} points: {problem}")


def _runs(text: str) -> Indices:
    """Expand ``"0-3 9 7-5"`` to ``(0, 1, 2, 3, 9, 7, 6, 5)``."""

    def expand(run: str) -> Iterable[int]:
        first, _, last = run.partition("-")
        start, stop = int(first), int(last or first)
        step = 1 if stop >= start else -1
        return range(start, stop + step, step)

    return tuple(chain.from_iterable(map(expand, text.split())))


_IBUG68 = Scheme(
    name="ibug68",
    n_points=68,
    groups={
        "jaw": _runs("0-16"),
        "image_left_brow": _runs("17-21"),
        "image_right_brow": _runs("22-26"),
        "nose_bridge": _runs("27-30"),
        "nostrils": _runs("31-35"),
        "image_left_eye": _runs("36-41"),
        "image_right_eye": _runs("42-47"),
        "outer_lip": _runs("48-59"),
        "inner_lip": _runs("60-67"),
    },
    contours=(
        Contour(_runs("0-16"), closed=False),
        Contour(_runs("17-21"), closed=False),
        Contour(_runs("22-26"), closed=False),
        Contour(_runs("27-30"), closed=False),
        Contour(_runs("31-35"), closed=False),
        Contour(_runs("36-41"), closed=True),
        Contour(_runs("42-47"), closed=True),
        Contour(_runs("48-59"), closed=True),
        Contour(_runs("60-67"), closed=True),
    ),
    mirror=_runs("16-0 26-17 27-30 35-31 45-42 47-46 39-36 41-40 54-48 59-55 64-60 67-65"),
    normalizers={
        "inter-ocular": (_runs("36"), _runs("45")),
        "inter-pupil": (_runs("36-41"), _runs("42-47")),
    },
)

_WFLW98 = Scheme(
    name="wflw98",
    n_points=98,
    groups={
        "jaw": _runs("0-32"),
        "image_left_brow": _runs("33-41"),
        "image_right_brow": _runs("42-50"),
        "nose_bridge": _runs("51-54"),
        "nostrils": _runs("55-59"),
        "image_left_eye": _runs("60-67"),
        "image_right_eye": _runs("68-75"),
        "outer_lip": _runs("76-87"),
        "inner_lip": _runs("88-95"),
        "pupils": _runs("96-97"),
    },
    contours=(
        Contour(_runs("0-32"), closed=False),
        Contour(_runs("33-41"), closed=True),
        Contour(_runs("42-50"), closed=True),
        Contour(_runs("51-54"), closed=False),
        Contour(_runs("55-59"), closed=False),
        Contour(_runs("60-67"), closed=True),
        Contour(_runs("68-75"), closed=True),
        Contour(_runs("76-87"), closed=True),
        Contour(_runs("88-95"), closed=True),
    ),
    mirror=_runs(
        "32-0 46-42 50-47 37-33 41-38 51-54 59-55 72-68 75-73 64-60 67-65 "
        "82-76 87-83 92-88 95-93 97 96"
    ),
    normalizers={
        "inter-ocular": (_runs("60"), _runs("72")),
        "inter-pupil": (_runs("96"), _runs("97")),
    },
)

#: Every scheme asmkit knows, by name.
SCHEMES: Mapping[str, Scheme] = {known.name: known for known in (_IBUG68, _WFLW98)}

# Target landmark i is source landmark map[i].
_MAPS: Mapping[tuple[str, str], Indices] = {
    ("wflw98", "ibug68"): (
        *range(0, 33, 2),
        *_runs("33-37 42-46 51-59 60 61 63-65 67 68 69 71-73 75 76-95"),
    )
}


def scheme(name: str | Scheme) -> Scheme:
    """Look a scheme up by its name; a :class:`Scheme` is returned as it is.

    Parameters
    ----------
    name : str or Scheme
        Such as ``"ibug68"``, or a scheme of one's own.

    Returns
    -------
    Scheme

    Raises
    ------
    ValueError
        When no scheme has this name; the message lists the names.
    """
    if isinstance(name, Scheme):
        return name
    if name not in SCHEMES:
        raise ValueError(f"no landmark scheme is called {name!r}; known: {', '.join(SCHEMES)}")
    return SCHEMES[name]


def scheme_of(n_points: int) -> Scheme | None:
    """Find the known scheme with this number of landmarks; None where there is none."""
    return next((known for known in SCHEMES.values() if known.n_points == n_points), None)


def convert_points(points: npt.ArrayLike, source: str, target: str) -> Floats:
    """Pick the landmarks of one scheme that stand nearest to those of another.

    Parameters
    ----------
    points : array_like (..., n_points, n_dims)
        Shapes in the scheme ``source``.
    source, target : str
        ``"wflw98"`` to ``"ibug68"`` is the one known pair.

    Returns
    -------
    ndarray (..., n_points of ``target``, n_dims)

    Warns
    -----
    UserWarning
        Always: the two mark-ups define their landmarks differently (github.com/wywu/LAB issue 17),
        so the result is a start or a convention, not a 300-W annotation.

    Raises
    ------
    ValueError
        When no map joins the two schemes; the message lists the known pairs.
    """
    if (source, target) not in _MAPS:
        pairs = ", ".join(f"{one} to {other}" for one, other in _MAPS)
        raise ValueError(f"no map leads from {source!r} to {target!r}; known: {pairs}")
    shapes, leading = as_batch(points, n_points=scheme(source).n_points, allow_nan=True)
    warnings.warn(
        f"{source} and {target} place their landmarks by different rules: the converted points "
        f"are a subset of {source}, not {target} annotations",
        stacklevel=2,
    )
    picked = shapes[:, np.asarray(_MAPS[source, target])]
    return picked.reshape(*leading, *picked.shape[1:])
