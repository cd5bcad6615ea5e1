"""Shape models of more shapes than one machine holds or one process has time for, with Dask.

A fit sends to each worker the numbers of its shapes and brings back one ``(p d, p d)`` matrix: each
chunk becomes :class:`asmkit.statistics.ShapeStatistics`, which are merged eight at a time on the
workers. Smoothing is chunk by chunk, from store to store. A worker that is lost costs the chunks it
was at; a cluster that is lost leaves no output that looks whole, and the same call goes on from
where it was.

One process streams from disk as well (:meth:`ShapeStatistics.of` of an open store), and without
Dask; a cluster pays where that would take longer than is affordable.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from asmkit._check import Floats
from asmkit._extras import require
from asmkit.alignment import generalized_procrustes
from asmkit.model import ShapeModel
from asmkit.priors import Box, Prior
from asmkit.schemes import Scheme
from asmkit.shape_store import PartitionedShapes, ShapeStore, open_shapes
from asmkit.statistics import ShapeStatistics

__all__ = ["fit", "smooth", "statistics"]

_THREE_SIGMAS = Box(3.0)

#: Shapes that a worker holds at a time, where the input leaves the choice: 36 MB of float32 faces.
_ROWS = 65536

#: Statistics that are merged at once.
_FAN_IN = 8

#: Shapes whose mean is the reference where none is given.
_FOR_REFERENCE = 4096


def fit(
    shapes: Any,
    model: ShapeModel | float | str = 0.98,
    reference: npt.ArrayLike | None = None,
    *,
    client: Any = None,
    rows: int = _ROWS,
) -> ShapeModel:
    """Fit a shape model on a cluster.

    Equal, to rounding, to ``ShapeModel(…).fit(shapes, reference=reference)``, however the shapes
    are chunked and whichever workers do it.

    Parameters
    ----------
    shapes : path, store, dask array or sequence of delayed arrays, shape (n, p, d)
        What :func:`asmkit.shape_store.open_shapes` opens, or its name; a Dask array, chunked along
        n; or delayed chunks, each an array (n_i, p, d).
    model : ShapeModel, int, float or str, default 0.98
        The parameters: a model (it is not changed), or ``n_components`` alone.
    reference : array_like, shape (p, d), optional
        The shape to align to. By default the Procrustes mean of the first 4096 shapes (of delayed
        chunks: of those among them that are in the first chunk).
    client : distributed.Client, optional
        The cluster; by default Dask's current scheduler, which without a client is threads here.
    rows : int, default 65536
        Shapes that a worker reads at a time. Dask arrays and delayed chunks have their own sizes.

    Returns
    -------
    ShapeModel
        A new one.

    Raises
    ------
    ValueError
        As :meth:`ShapeModel.fit`, with the number of the shape that is at fault; or the model's
        frame is not "similarity", or it is robust.
    MissingExtraError
        Without Dask.
    """
    wanted = model if isinstance(model, ShapeModel) else ShapeModel(model)
    if wanted.align != "similarity" or wanted.robust:
        raise ValueError(
            "distributed.fit: needs align='similarity' and robust=False, got "
            f"align={wanted.align!r} and robust={wanted.robust}"
        )
    chunks = _chunks(shapes, rows)
    if reference is None:
        head = np.asarray(_compute(chunks.head(_FOR_REFERENCE), client))
        reference = generalized_procrustes(head).mean
    found = _statistics(chunks, reference, wanted.mirror, client)
    return ShapeModel.from_statistics(found, wanted.n_components, wanted.mirror)


def statistics(
    shapes: Any,
    reference: npt.ArrayLike,
    mirror: str | Scheme | npt.ArrayLike | None = None,
    *,
    client: Any = None,
    rows: int = _ROWS,
) -> ShapeStatistics:
    """Collect the statistics of shapes on a cluster: what a fit is made of, and can be merged.

    Parameters
    ----------
    shapes, reference, client, rows
        As for :func:`fit`.
    mirror : str, Scheme or sequence of int, optional
        As for :meth:`ShapeStatistics.of`.

    Returns
    -------
    ShapeStatistics
    """
    return _statistics(_chunks(shapes, rows), reference, mirror, client)


def smooth(
    shapes: Any,
    model: ShapeModel,
    out: str | os.PathLike[str],
    prior: Prior = _THREE_SIGMAS,
    *,
    client: Any = None,
    rows: int = _ROWS,
) -> Path:
    """Smooth shapes on a cluster, from a store to a store.

    The workers must see the file system of ``out``. Where they are as many as the cores, start
    them with ``ASMKIT_NUM_THREADS=1`` in the environment.

    Parameters
    ----------
    shapes : path, store or dask array, shape (n, p, d)
        As for :func:`fit`; delayed chunks do not tell how many shapes there are.
    model : ShapeModel
        Fitted.
    out : path
        ``….zarr`` (one array (n, p, d)) or ``….parquet`` (a folder of files, one row a shape,
        columns x0, y0, x1, …); the type of the coordinates is that of the input. It appears when
        the last partition is written; before, the partitions are in ``….incomplete`` beside it.
        After an interruption the same call does only what is missing.
    prior : Prior, default Box(3.0)
        As for :meth:`ShapeModel.smooth`.
    client, rows
        As for :func:`fit`; a partition of the output has as many rows as a chunk.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    FileExistsError
        When ``out`` exists, or partitions of another input or model are in its way.
    ValueError
        As :meth:`ShapeModel.smooth`.
    """
    delayed = require("dask", "scale").delayed
    chunks = _chunks(shapes, rows, even=True)
    if chunks.shape is None or chunks.dtype is None:
        raise TypeError(
            "shapes: delayed chunks do not tell how many shapes there are; make a Dask array of "
            "them (dask.array.from_delayed and concatenate)"
        )
    if not chunks.parts:
        raise ValueError("shapes: there are none to smooth")
    path = Path(out).absolute()
    output = PartitionedShapes(path, chunks.shape, _float_type(chunks.dtype), chunks.rows)
    output.begin(_job(chunks, model, prior, client))
    # In the graph once, not in every task, and there again when a worker is lost.
    shared = delayed((output, model, prior), traverse=False)
    write = delayed(_smooth_chunk, pure=False)
    _compute([write(shared, number, *chunks.parts[number]) for number in output.missing()], client)
    return output.finish()


class _Chunks(NamedTuple):
    """Lazy shapes: for each chunk what gives its shapes, and the number of the first."""

    parts: Sequence[tuple[Any, int | None]]
    shape: tuple[int, int, int] | None
    dtype: np.dtype[Any] | None
    rows: int

    def head(self, n: int) -> Any:
        """Return the first ``n`` shapes, or those of the first chunk where sizes are unknown."""
        delayed = require("dask", "scale").delayed
        # Of unknown sizes only the first chunk is sure to begin before shape n.
        taken = [part for i, (part, first) in enumerate(self.parts) if i == 0 or (first or n) < n]
        return delayed(_head)(taken, n)

    def ends(self) -> Any:
        """Return the first and the last shape."""
        delayed = require("dask", "scale").delayed
        return delayed(_ends)(self.parts[0][0], self.parts[-1][0])


class _Slice(NamedTuple):
    """Shapes of a store that are read where they are needed."""

    store: ShapeStore
    start: int
    stop: int

    def read(self) -> Floats:
        return self.store[self.start : self.stop]


def _chunks(shapes: Any, rows: int, even: bool = False) -> _Chunks:
    """Chunks of whatever holds shapes; with ``even`` all but the last have the same length."""
    dask = require("dask", "scale")
    if rows < 1:
        raise ValueError(f"rows: got {rows} shapes a chunk, expected at least 1")
    if isinstance(shapes, (str, os.PathLike)):
        shapes = open_shapes(shapes)
    if isinstance(shapes, np.memmap):
        raise TypeError("shapes: a memory map would be sent as a whole; give the name of its file")
    if hasattr(shapes, "to_delayed") and hasattr(shapes, "chunks"):
        return _chunks_of_array(shapes, even)
    if isinstance(shapes, Sequence) and all(map(dask.is_dask_collection, shapes)):
        if not shapes:
            raise ValueError("shapes: got no chunks")
        return _Chunks([(part, None) for part in shapes], None, None, rows)
    if not hasattr(shapes, "shape") or not hasattr(shapes, "dtype"):
        raise TypeError(
            f"shapes: got {type(shapes).__name__}, expected the name of a store, an open store, "
            "a Dask array or a sequence of delayed arrays"
        )
    if len(shapes.shape) != 3:
        raise ValueError(f"shapes: got shape {tuple(shapes.shape)}, expected (n, p, d)")
    # Whole blocks of the store, so that none is read twice.
    block = int(getattr(shapes, "block", 1))
    rows = block * max(1, rows // block)
    store = dask.delayed(shapes, traverse=False)
    cut = dask.delayed(_Slice, pure=False)
    n = int(shapes.shape[0])
    parts = [(cut(store, i, min(i + rows, n)), i) for i in range(0, n, rows)]
    return _Chunks(parts, tuple(shapes.shape), np.dtype(shapes.dtype), rows)


def _chunks_of_array(array: Any, even: bool) -> _Chunks:
    if array.ndim != 3:
        raise ValueError(f"shapes: got shape {array.shape}, expected (n, p, d)")
    if np.isnan(array.shape[0]):
        raise ValueError(
            "shapes: the chunks of this Dask array have unknown sizes; "
            "call its compute_chunk_sizes() first"
        )
    array = array.rechunk({1: -1, 2: -1})
    sizes = array.chunks[0]
    rows = max(sizes, default=1)
    if even and any(size != rows for size in sizes[:-1]):
        array = array.rechunk({0: rows})
        sizes = array.chunks[0]
    starts = np.cumsum([0, *sizes]).tolist()
    parts = [
        (part, int(i)) for part, i in zip(array.to_delayed().ravel(), starts[:-1], strict=True)
    ]
    return _Chunks(parts, array.shape, array.dtype, int(rows))


def _statistics(
    chunks: _Chunks,
    reference: npt.ArrayLike,
    mirror: str | Scheme | npt.ArrayLike | None,
    client: Any,
) -> ShapeStatistics:
    delayed = require("dask", "scale").delayed
    # Found to be wrong here, not on a worker.
    empty = ShapeStatistics.empty(reference, mirror)
    shared = delayed((empty.reference, mirror), traverse=False)
    collect = delayed(_statistics_of_chunk, pure=False)
    found = [
        collect(part, shared, number, first) for number, (part, first) in enumerate(chunks.parts)
    ]
    merge = delayed(_merge, pure=False)
    while len(found) > 1:
        found = [merge(found[i : i + _FAN_IN]) for i in range(0, len(found), _FAN_IN)]
    result: ShapeStatistics = _compute(found[0], client) if found else empty
    return result


def _compute(work: Any, client: Any) -> Any:
    if client is None:
        return require("dask", "scale").compute(work)[0]
    return client.gather(client.compute(work))


# -- what workers run


def _read(part: Any) -> Any:
    return part.read() if isinstance(part, _Slice) else part


def _statistics_of_chunk(
    part: Any, shared: tuple[Any, Any], number: int, first: int | None
) -> ShapeStatistics:
    reference, mirror = shared
    try:
        return ShapeStatistics.of(_read(part), reference, mirror, first=first or 0)
    except ValueError as error:
        if first is not None:
            raise
        raise ValueError(f"chunk {number}: {error}") from error


def _merge(statistics: list[ShapeStatistics]) -> ShapeStatistics:
    return statistics[0].merge(*statistics[1:])


def _smooth_chunk(shared: tuple[Any, Any, Any], number: int, part: Any, first: int) -> None:
    output, model, prior = shared
    try:
        shapes = model.smooth(_read(part), prior=prior)
    except ValueError as error:
        raise ValueError(f"chunk {number}, which begins with shape {first}: {error}") from error
    output.write(number, shapes)


def _head(parts: list[Any], n: int) -> Floats:
    return np.concatenate([np.asarray(_read(part)) for part in parts])[:n]


def _ends(first: Any, last: Any) -> Floats:
    return np.concatenate([np.asarray(_read(first))[:1], np.asarray(_read(last))[-1:]])


# -- what is continued after an interruption


def _job(chunks: _Chunks, model: ShapeModel, prior: Prior, client: Any) -> str:
    """Tell one job from another: a digest of the model, the prior and the ends of the input."""
    digest = hashlib.sha256()
    ends = np.asarray(_compute(chunks.ends(), client), dtype=np.float64)
    for array in (
        model.reference_,
        model.mean_,
        model.components_,
        model.explained_variance_,
        ends,
    ):
        digest.update(np.ascontiguousarray(array).tobytes())
    # Of an object without a description of its own only the address would differ.
    digest.update(re.sub(r" at 0x[0-9a-f]+", "", repr(prior)).encode())
    digest.update(f"{model.align} {chunks.shape} {chunks.dtype}".encode())
    return digest.hexdigest()


def _float_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float32 if dtype == np.float32 else np.float64)
