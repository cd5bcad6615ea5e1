"""Shapes on disk, more than memory holds: read in slices, written in partitions.

Three formats, told apart by the suffix:

========== ==========================================================================
``.npy``     one array ``(n, p, d)``; read only
``.zarr``    one Zarr array ``(n, p, d)``, in chunks along n
``.parquet`` a file or a folder of files, one row a shape, columns x0, y0, (z0,) x1, …
========== ==========================================================================

A partitioned output is a folder beside its final name until the last partition is there: a name
without ``.incomplete`` is whole, whatever was killed when.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from asmkit._check import Floats
from asmkit._extras import require
from asmkit._files import new_folder, replacing
from asmkit.errors import FormatError

__all__ = [
    "NpyShapes",
    "ParquetShapes",
    "PartitionedShapes",
    "ShapeStore",
    "ZarrShapes",
    "open_shapes",
]

PathLike = str | os.PathLike[str]

#: A slice of about this many bytes is read at once where the format leaves the choice.
_READ_BYTES = 1 << 22

_AXES = "xyz"


class ShapeStore(Protocol):
    """Shapes that are read in slices. A store is small, and opens anew where it is sent to."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(n, p, d)``."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the coordinates."""
        ...

    @property
    def block(self) -> int:
        """Number of shapes that are best read together."""
        ...

    def __getitem__(self, rows: slice, /) -> Floats:
        """Read some of the shapes; the slice has no step."""
        ...


@dataclass(frozen=True)
class NpyShapes:
    """Shapes in a ``.npy`` file, read without mapping it, so that they do not stay in memory."""

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int

    @classmethod
    def open(cls, path: Path) -> NpyShapes:
        """Read the header."""
        with path.open("rb") as stream:
            try:
                version = np.lib.format.read_magic(stream)
                read_header = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }[version]
                shape, fortran, dtype = read_header(stream)
            except (KeyError, ValueError) as error:
                raise FormatError(f"{path}: expected a .npy file of shapes: {error}") from error
            offset = stream.tell()
        if fortran or dtype.kind != "f":
            raise FormatError(
                f"{path}: holds {dtype} in {'Fortran' if fortran else 'C'} order; expected floats "
                "in C order: save it again with numpy.save(path, numpy.ascontiguousarray(…))"
            )
        expected = int(np.prod(shape)) * dtype.itemsize + offset
        if path.stat().st_size < expected:
            raise FormatError(
                f"{path}: has {path.stat().st_size} bytes, its header asks for {expected}: "
                "it was not written to its end"
            )
        return cls(path, _shape_of(path, shape), dtype, offset)

    @property
    def block(self) -> int:
        """Number of shapes read together."""
        return max(1, _READ_BYTES // (self.shape[1] * self.shape[2] * self.dtype.itemsize))

    def __getitem__(self, rows: slice, /) -> Floats:
        """Read some of the shapes."""
        start, stop = _range(rows, self.shape[0])
        size = self.shape[1] * self.shape[2]
        with self.path.open("rb") as stream:
            stream.seek(self.offset + start * size * self.dtype.itemsize)
            values = np.fromfile(stream, self.dtype, (stop - start) * size)
        return np.asarray(values.reshape(stop - start, *self.shape[1:]))


@dataclass(frozen=True)
class ZarrShapes:
    """Shapes in a Zarr array on disk."""

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    block: int

    @classmethod
    def open(cls, path: Path) -> ZarrShapes:
        """Read the description of the array."""
        zarr = require("zarr", "scale")
        if not path.is_dir():
            raise FileNotFoundError(f"{path}: there is no such folder")
        try:
            array = zarr.open_array(store=str(path), mode="r")
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise FormatError(f"{path}: expected a Zarr array of shapes: {error}") from error
        if array.dtype.kind != "f":
            raise FormatError(f"{path}: holds {array.dtype}; expected floats")
        return cls(path, _shape_of(path, array.shape), array.dtype, int(array.chunks[0]))

    def __getitem__(self, rows: slice, /) -> Floats:
        """Read some of the shapes."""
        start, stop = _range(rows, self.shape[0])
        array = require("zarr", "scale").open_array(store=str(self.path), mode="r")
        return np.asarray(array[start:stop])


@dataclass(frozen=True)
class ParquetShapes:
    """Shapes in a Parquet file or a folder of such files, in the order of their names."""

    files: tuple[Path, ...]
    columns: tuple[str, ...]
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    groups: tuple[tuple[int, int, int], ...] = field(repr=False)  # first row, file, row group

    @classmethod
    def open(cls, path: Path) -> ParquetShapes:
        """Read the footers of all files."""
        parquet = require("pyarrow.parquet", "scale")
        files: tuple[Path, ...] = (path,)
        if path.is_dir():
            files = tuple(f for f in sorted(path.glob("*.parquet")) if f.name[0] not in "._")
        if not files:
            raise FormatError(f"{path}: holds no .parquet file")
        groups, n, schema = [], 0, None
        for number, file in enumerate(files):
            try:
                metadata = parquet.read_metadata(file)
            except FileNotFoundError:
                raise
            except (OSError, ValueError) as error:
                raise FormatError(f"{file}: expected a Parquet file of shapes: {error}") from error
            schema = metadata.schema.to_arrow_schema() if schema is None else schema
            for group in range(metadata.num_row_groups):
                groups.append((n, number, group))
                n += metadata.row_group(group).num_rows
        assert schema is not None
        columns, n_dims = _columns_in(path, schema.names)
        kinds = {str(schema.field(name).type) for name in columns}
        dtype = np.dtype(np.float32 if kinds == {"float"} else np.float64)
        shape = (n, len(columns) // n_dims, n_dims)
        return cls(files, columns, shape, dtype, tuple(groups))

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.array([start for start, _, _ in self.groups] + [self.shape[0]], dtype=np.int64)

    @property
    def block(self) -> int:
        """Number of rows in the first row group."""
        return max(1, int(self._starts[1] - self._starts[0])) if self.groups else 1

    def __getitem__(self, rows: slice, /) -> Floats:
        """Read some of the shapes."""
        parquet = require("pyarrow.parquet", "scale")
        start, stop = _range(rows, self.shape[0])
        result = np.empty((stop - start, len(self.columns)), self.dtype)
        edges = self._starts
        first = int(np.searchsorted(edges, start, side="right")) - 1
        for index in range(first, len(self.groups)):
            at, number, group = self.groups[index]
            if at >= stop:
                break
            table = parquet.ParquetFile(self.files[number]).read_row_group(
                group, columns=list(self.columns), use_threads=False
            )
            begin, end = max(start, at), min(stop, int(edges[index + 1]))
            piece = table.slice(begin - at, end - begin)
            for column, name in enumerate(self.columns):
                # Nulls are missing points and become NaN.
                result[begin - start : end - start, column] = piece[name].to_numpy()
        return result.reshape(-1, *self.shape[1:])


_FORMATS: Mapping[str, Callable[[Path], ShapeStore]] = {
    ".npy": NpyShapes.open,
    ".parquet": ParquetShapes.open,
    ".zarr": ZarrShapes.open,
}


def open_shapes(path: PathLike) -> ShapeStore:
    """Open shapes on disk for reading in slices.

    Parameters
    ----------
    path : path
        A file ``.npy``, a folder ``.zarr``, a file or folder ``.parquet``.

    Returns
    -------
    ShapeStore
        It has ``shape``, ``dtype`` and slices: ``store[1000:2000]`` is an array. It can be sent to
        other processes that see the same files.

    Raises
    ------
    FormatError
        When it is not such a file or folder, is damaged, or holds no shapes.
    OSError
        When it cannot be opened.
    """
    file = Path(path).absolute()
    if file.suffix not in _FORMATS:
        raise FormatError(
            f"{path}: expected a name that ends in one of {', '.join(_FORMATS)}"
            + ("; this output was not written to its end" if file.suffix == _UNFINISHED else "")
        )
    return _FORMATS[file.suffix](file)


_UNFINISHED = ".incomplete"


@dataclass(frozen=True)
class PartitionedShapes:
    """Shapes that many processes write, each a partition at a time.

    :meth:`begin`, then :meth:`write` for each number in :meth:`missing`, anywhere and in any order,
    then :meth:`finish`. Until then the partitions stand in a folder named like the output with
    ``.incomplete`` at the end; a partition counts once it is written as a whole, so that what was
    killed is continued by doing the same again. All processes must see the same file system.

    Attributes
    ----------
    path : Path
        Name of the output, ``….zarr`` or ``….parquet``.
    shape : tuple of int
        ``(n, p, d)`` of the whole.
    dtype : dtype
        float32 or float64.
    rows : int
        Shapes in a partition (in the last, what is left).
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    rows: int

    def __post_init__(self) -> None:
        if self.path.suffix not in _PARTITIONS:
            raise ValueError(
                f"out: got {self.path.name!r}, expected a name that ends in one of "
                f"{', '.join(_PARTITIONS)}"
            )
        if self.rows < 1:
            raise ValueError(f"rows: got {self.rows} shapes a partition, expected at least 1")

    @property
    def n_partitions(self) -> int:
        """Number of partitions."""
        return -(-self.shape[0] // self.rows)

    @property
    def _folder(self) -> Path:
        return self.path.with_name(self.path.name + _UNFINISHED)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def range(self, number: int) -> tuple[int, int]:
        """First shape of a partition, and the one after its last."""
        return number * self.rows, min((number + 1) * self.rows, self.shape[0])

    def begin(self, job: str) -> None:
        """Make room for the partitions, or find those that an earlier attempt left.

        Parameters
        ----------
        job : str
            What is being computed; partitions of another job are not continued.

        Raises
        ------
        FileExistsError
            When the output exists already, or the partitions at hand belong to another job.
        """
        if self.path.exists():
            raise FileExistsError(f"{self.path} exists already; remove it or choose another name")
        description = {
            "job": job,
            "shape": list(self.shape),
            "dtype": self.dtype.name,
            "rows": self.rows,
        }
        job_file = self._folder / "job.json"
        if self._folder.exists() and not (self._data.exists() and job_file.exists()):
            # Finished and killed before it was cleared away; the output itself is gone since.
            shutil.rmtree(self._folder)
        if not self._folder.exists():
            with new_folder(self._folder) as folder:
                (folder / "job.json").write_text(json.dumps(description), "utf-8")
                (folder / "done").mkdir()
                _PARTITIONS[self.path.suffix].prepare(folder / "data", self)
        elif json.loads(job_file.read_text("utf-8")) != description:
            raise FileExistsError(
                f"{self._folder} holds partitions of another input, model or partition size; "
                "remove it to start anew"
            )

    def missing(self) -> list[int]:
        """Numbers of the partitions that are not written yet."""
        done = {int(path.name) for path in (self._folder / "done").iterdir()}
        return [number for number in range(self.n_partitions) if number not in done]

    def write(self, number: int, shapes: Floats) -> None:
        """Write one partition; again is no error."""
        start, stop = self.range(number)
        if shapes.shape != (stop - start, *self.shape[1:]):
            raise ValueError(
                f"partition {number}: got shape {shapes.shape}, "
                f"expected {(stop - start, *self.shape[1:])}"
            )
        _PARTITIONS[self.path.suffix].write(self._data, self, number, shapes)
        (self._folder / "done" / str(number)).touch()

    def finish(self) -> Path:
        """Give the output its name.

        Raises
        ------
        RuntimeError
            When a partition is missing.
        """
        missing = self.missing()
        if missing:
            raise RuntimeError(
                f"{self.path}: {len(missing)} of {self.n_partitions} partitions are missing, "
                f"the first is number {missing[0]}"
            )
        for stray in self._data.rglob(_PARTITIONS[self.path.suffix].unfinished):
            stray.unlink(missing_ok=True)  # a writer was killed, another wrote the partition
        self._data.rename(self.path)
        shutil.rmtree(self._folder)
        return self.path


@dataclass(frozen=True)
class _Partitions:
    prepare: Callable[[Path, PartitionedShapes], None]
    write: Callable[[Path, PartitionedShapes, int, Floats], None]
    unfinished: str  # pattern of the names that files have while they are written


def _prepare_zarr(folder: Path, output: PartitionedShapes) -> None:
    require("zarr", "scale").create_array(
        store=str(folder),
        shape=output.shape,
        chunks=(output.rows, *output.shape[1:]),
        dtype=output.dtype,
    )


def _write_zarr(folder: Path, output: PartitionedShapes, number: int, shapes: Floats) -> None:
    start, stop = output.range(number)
    require("zarr", "scale").open_array(store=str(folder), mode="r+")[start:stop] = shapes


def _prepare_parquet(folder: Path, output: PartitionedShapes) -> None:
    require("pyarrow.parquet", "scale")
    folder.mkdir()


def _write_parquet(folder: Path, output: PartitionedShapes, number: int, shapes: Floats) -> None:
    arrow, parquet = require("pyarrow", "scale"), require("pyarrow.parquet", "scale")
    flat = shapes.astype(output.dtype, copy=False).reshape(len(shapes), -1)
    names = _columns(*output.shape[1:])
    table = arrow.table({name: np.ascontiguousarray(flat[:, i]) for i, name in enumerate(names)})
    width = max(5, len(str(output.n_partitions - 1)))
    with replacing(folder / f"part-{number:0{width}d}.parquet") as part:
        # Coordinates hardly repeat: a dictionary of them would be as large as they are.
        parquet.write_table(table, part, use_dictionary=False)


_PARTITIONS: Mapping[str, _Partitions] = {
    ".parquet": _Partitions(_prepare_parquet, _write_parquet, ".*.part.parquet"),
    ".zarr": _Partitions(_prepare_zarr, _write_zarr, "*.partial"),
}


def _columns(n_points: int, n_dims: int) -> tuple[str, ...]:
    return tuple(f"{axis}{i}" for i in range(n_points) for axis in _AXES[:n_dims])


def _columns_in(path: Path, names: list[str]) -> tuple[tuple[str, ...], int]:
    """Columns of a table that hold shapes, in order, and the number of dimensions."""
    there = set(names)
    n_points = 0
    while f"x{n_points}" in there:
        n_points += 1
    n_dims = 3 if "z0" in there else 2
    columns = _columns(n_points, n_dims)
    if not columns or not there.issuperset(columns):
        lacking = [name for name in columns if name not in there] or ["x0"]
        raise FormatError(
            f"{path}: has no column {lacking[0]!r}; expected x0, y0, x1, y1, … (in 3-D z0, …)"
        )
    return columns, n_dims


def _shape_of(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3 or shape[2] not in (2, 3):
        raise FormatError(
            f"{path}: holds an array of shape {shape}; expected (n_shapes, n_points, 2 or 3)"
        )
    return shape[0], shape[1], shape[2]


def _range(rows: slice, n: int) -> tuple[int, int]:
    start, stop, step = rows.indices(n)
    if step != 1:
        raise ValueError(f"shapes on disk are read in one piece: got a step of {step}")
    return start, max(start, stop)
