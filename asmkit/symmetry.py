"""Which landmark becomes which in a mirror."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from asmkit.schemes import Scheme, scheme, scheme_of

__all__ = ["mirror_argument", "permutation", "resolve_mirror"]

Indices = npt.NDArray[np.intp]


def resolve_mirror(
    mirror: str | Scheme | npt.ArrayLike | None, n_points: int
) -> tuple[Indices | None, str | None]:
    """Permutation and scheme name that an argument ``mirror`` stands for."""
    if mirror is None:
        return None, None
    if isinstance(mirror, (str, Scheme)):
        known = scheme(mirror)
        if known.n_points != n_points:
            raise ValueError(
                f"mirror: the scheme {known.name!r} has {known.n_points} points, "
                f"the shapes have {n_points}"
            )
        return np.array(known.mirror, dtype=np.intp), known.name
    return permutation(mirror, n_points), None


def permutation(values: npt.ArrayLike, n_points: int) -> Indices:
    """Check a permutation that undoes itself.

    Raises
    ------
    ValueError
        When it is none.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or array.shape != (n_points,):
        raise ValueError(
            f"mirror: got {array.dtype} {array.shape}, expected a landmark scheme or "
            f"{n_points} whole numbers"
        )
    found = array.astype(np.intp)
    everyone = np.arange(n_points)
    if not np.array_equal(np.sort(found), everyone):
        raise ValueError(f"mirror: expected each of 0..{n_points - 1} once")
    if not np.array_equal(found[found], everyone):
        raise ValueError("mirror: mirroring twice must give back every landmark")
    return found


def mirror_argument(found: Indices | None, name: str | None) -> str | list[int] | None:
    """Return the shortest argument ``mirror`` that stands for the permutation."""
    if found is None:
        return None
    known = scheme_of(len(found))
    same = known is not None and known.name == name and known.mirror == tuple(found)
    return name if same else found.tolist()
