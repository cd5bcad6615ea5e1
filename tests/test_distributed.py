"""However shapes are stored and chunked, and whoever is killed: the result is that of one process.

The clusters are real: two worker processes on this machine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from shape_families import family

from asmkit import FormatError, ShapeModel
from asmkit.shape_store import NpyShapes, PartitionedShapes, open_shapes
from asmkit.statistics import ShapeStatistics

REASON = "needs the extra 'scale'"
dask = pytest.importorskip("dask", reason=REASON)
distributed = pytest.importorskip("distributed", reason=REASON)
pyarrow = pytest.importorskip("pyarrow", reason=REASON)
zarr = pytest.importorskip("zarr", reason=REASON)
da = pytest.importorskip("dask.array", reason=REASON)
parquet = pytest.importorskip("pyarrow.parquet", reason=REASON)

from asmkit import distributed as scale  # noqa: E402  # after the skips

P = 9


@pytest.fixture(scope="module")
def shapes():
    return family(np.random.default_rng(4), n=500, p=P)


@pytest.fixture(scope="module")
def model(shapes):
    return ShapeModel(6).fit(shapes, reference=shapes[0])


@pytest.fixture
def here():
    """Dask without a cluster: everything in this thread."""
    with dask.config.set(scheduler="synchronous"):
        yield


def write_npy(path, shapes):
    np.save(path, shapes)


def write_zarr(path, shapes, rows=64):
    array = zarr.create_array(
        store=str(path), shape=shapes.shape, chunks=(rows, *shapes.shape[1:]), dtype=shapes.dtype
    )
    array[:] = shapes


def table_of(shapes):
    names = [f"{axis}{i}" for i in range(shapes.shape[1]) for axis in "xyz"[: shapes.shape[2]]]
    flat = shapes.reshape(len(shapes), -1)
    return pyarrow.table({name: flat[:, i].copy() for i, name in enumerate(names)})


def write_parquet(path, shapes):
    path.mkdir()
    for number, part in enumerate(np.array_split(shapes, 3)):
        parquet.write_table(table_of(part), path / f"part-{number}.parquet", row_group_size=70)


WRITERS = {".npy": write_npy, ".zarr": write_zarr, ".parquet": write_parquet}


@pytest.fixture(params=WRITERS)
def stored(request, tmp_path, shapes):
    path = tmp_path / f"shapes{request.param}"
    WRITERS[request.param](path, shapes)
    return path


def same_model(a, b, tolerance=1e-9):
    assert np.abs(a.mean_ - b.mean_).max() < tolerance
    assert np.abs(a.reference_ - b.reference_).max() < tolerance
    assert np.abs(a.explained_variance_ / b.explained_variance_ - 1).max() < tolerance
    assert np.abs(a.components_ - b.components_).max() < tolerance
    assert a.n_samples_ == b.n_samples_
    assert np.isclose(a.noise_variance_, b.noise_variance_, rtol=1e-7)


# -- stores


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("suffix", WRITERS)
def test_a_slice_of_a_store_is_a_slice_of_the_array(rng, tmp_path, suffix, dtype, d):
    shapes = rng.normal(size=(200, 5, d)).astype(dtype)
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](path, shapes)
    store = open_shapes(path)
    assert store.shape == shapes.shape
    assert store.dtype == shapes.dtype
    for rows in (slice(0, 200), slice(63, 65), slice(66, 141), slice(150, 999), slice(7, 7)):
        assert np.array_equal(store[rows], shapes[rows])
        assert store[rows].dtype == shapes.dtype
    with pytest.raises(ValueError, match="step of 2"):
        store[::2]


def test_streaming_from_a_store_is_the_batch(stored, shapes):
    found = ShapeStatistics.of(open_shapes(stored), shapes[0])
    expected = ShapeStatistics.of(shapes, shapes[0])
    assert np.abs(found.scatter - expected.scatter).max() < 1e-13
    assert np.abs(found.mean - expected.mean).max() < 1e-14


def test_a_table_may_hold_more_than_shapes(tmp_path, rng):
    shapes = rng.normal(size=(20, 4, 2))
    table = table_of(shapes)
    mixed = table.select(sorted(table.column_names, reverse=True))
    mixed = mixed.append_column("identity", pyarrow.array(["somebody"] * 20))
    gone = np.where(np.arange(20) == 3, None, shapes[:, 2, 1])
    position = mixed.column_names.index("y2")
    mixed = mixed.set_column(position, "y2", pyarrow.array(gone.tolist(), pyarrow.float64()))
    parquet.write_table(mixed, tmp_path / "a.parquet")
    shapes[3, 2, 1] = np.nan  # an empty cell is a missing point
    assert np.array_equal(open_shapes(tmp_path / "a.parquet")[0:20], shapes, equal_nan=True)
    parquet.write_table(mixed.drop_columns(["y1"]), tmp_path / "b.parquet")
    with pytest.raises(FormatError, match=r"b\.parquet: has no column 'y1'; expected x0, y0"):
        open_shapes(tmp_path / "b.parquet")


def test_what_is_no_store_of_shapes_is_refused(tmp_path, rng):
    np.save(tmp_path / "flat.npy", rng.normal(size=(20, 8)))
    with pytest.raises(FormatError, match=r"shape \(20, 8\); expected \(n_shapes"):
        open_shapes(tmp_path / "flat.npy")
    np.save(tmp_path / "fortran.npy", np.asfortranarray(rng.normal(size=(20, 4, 2))))
    with pytest.raises(FormatError, match="Fortran order"):
        open_shapes(tmp_path / "fortran.npy")
    np.save(tmp_path / "short.npy", rng.normal(size=(20, 4, 2)))
    os.truncate(tmp_path / "short.npy", 900)
    with pytest.raises(FormatError, match="900 bytes, its header asks for 1408"):
        open_shapes(tmp_path / "short.npy")
    for name in ("noise.npy", "noise.parquet"):
        (tmp_path / name).write_bytes(b"noise " * 20)
        with pytest.raises(FormatError, match=name):
            open_shapes(tmp_path / name)
    for name in ("empty.zarr", "empty.parquet"):
        (tmp_path / name).mkdir()
        with pytest.raises(FormatError, match=name):
            open_shapes(tmp_path / name)
    for name in ("none.npy", "none.zarr", "none.parquet"):
        with pytest.raises(FileNotFoundError):
            open_shapes(tmp_path / name)
    with pytest.raises(FormatError, match=r"one of \.npy, \.parquet, \.zarr"):
        open_shapes(tmp_path / "shapes.csv")


@pytest.mark.parametrize("suffix", [".zarr", ".parquet"])
def test_an_output_appears_with_its_last_partition(tmp_path, shapes, suffix):
    output = PartitionedShapes(tmp_path / f"out{suffix}", shapes.shape, shapes.dtype, 120)
    output.begin("a job")
    for number in (4, 0, 2, 0, 1):
        output.write(number, shapes[slice(*output.range(number))])
    assert output.missing() == [3]
    with pytest.raises(RuntimeError, match="1 of 5 partitions are missing, the first is number 3"):
        output.finish()
    assert not output.path.exists()
    with pytest.raises(FormatError, match="not written to its end"):
        open_shapes(tmp_path / f"out{suffix}.incomplete")
    output.begin("a job")  # the same goes on, another does not
    assert output.missing() == [3]
    with pytest.raises(FileExistsError, match="partitions of another input, model or"):
        output.begin("another job")
    with pytest.raises(ValueError, match=r"partition 3: got shape \(7, 9, 2\)"):
        output.write(3, shapes[:7])
    output.write(3, shapes[360:480])
    assert output.finish() == output.path
    assert [path.name for path in tmp_path.iterdir()] == [f"out{suffix}"]
    assert np.array_equal(open_shapes(output.path)[0:500], shapes)
    with pytest.raises(FileExistsError, match="exists already"):
        output.begin("a job")


def test_what_killed_writers_leave_is_cleared_away(tmp_path, shapes):
    output = PartitionedShapes(tmp_path / "out.parquet", shapes.shape, shapes.dtype, 500)
    output.begin("a job")
    stray = tmp_path / "out.parquet.incomplete" / "data" / ".part-00000.x1.part.parquet"
    stray.write_bytes(b"half a partition")
    output.write(0, shapes)
    output.finish()
    assert [path.name for path in output.path.iterdir()] == ["part-00000.parquet"]
    # Finished, but killed before its work folder was gone: a new job is not misled by it.
    output.path.rename(tmp_path / "moved.parquet")
    (tmp_path / "out.parquet.incomplete" / "done").mkdir(parents=True)
    (tmp_path / "out.parquet.incomplete" / "done" / "0").touch()
    output.begin("a job")
    assert output.missing() == [0]


def test_an_output_of_unknown_format_is_refused(shapes):
    with pytest.raises(ValueError, match=r"'out\.npy', expected .* \.parquet, \.zarr"):
        PartitionedShapes(Path("out.npy"), shapes.shape, shapes.dtype, 10)


# -- chunks, in this process


@pytest.mark.parametrize("rows", [64, 130, 1000])
def test_a_fit_of_a_store_is_the_fit_of_the_array(here, stored, shapes, model, rows):
    same_model(scale.fit(stored, 6, shapes[0], rows=rows), model)
    same_model(scale.fit(open_shapes(stored), ShapeModel(6), shapes[0], rows=rows), model)


@pytest.mark.parametrize("chunks", [(500,), (250, 250), (1, 400, 99), (7,) * 71 + (3,)])
def test_a_fit_of_any_chunks_is_the_fit_of_the_array(here, shapes, model, chunks):
    array = da.from_array(shapes, chunks=(chunks, 5, 1))
    same_model(scale.fit(array, 6, shapes[0]), model)
    edges = np.cumsum(chunks)[:-1]
    delayed = [dask.delayed(part) for part in np.split(shapes, edges)]
    same_model(scale.fit(delayed, 6, shapes[0]), model)


def test_parameters_of_a_model_are_kept(here, shapes):
    permutation = np.array([1, 0, 3, 2, 5, 4, 6, 7, 8])
    wanted = ShapeModel(0.9, mirror=permutation)
    reference = shapes[0] + shapes[0][permutation] * [-1, 1]
    expected = ShapeModel(0.9, mirror=permutation).fit(shapes, reference=reference)
    same_model(scale.fit(da.from_array(shapes, chunks=(90, P, 2)), wanted, reference), expected)
    assert not hasattr(wanted, "mean_")


def test_the_reference_does_not_depend_on_the_chunks(here, shapes):
    whole = scale.fit(da.from_array(shapes, chunks=(500, P, 2)), 6)
    parts = scale.fit(da.from_array(shapes, chunks=((3, 400, 97), P, 2)), 6)
    same_model(parts, whole)


@pytest.mark.parametrize("row", [0, 64, 499])
def test_a_message_tells_which_shape_of_all(here, tmp_path, shapes, row):
    broken = shapes.copy()
    broken[row, 2] = np.nan
    np.save(tmp_path / "a.npy", broken)
    message = f"shape number {row} holds NaN"
    with pytest.raises(ValueError, match=message):
        scale.fit(tmp_path / "a.npy", 6, shapes[1], rows=64)
    with pytest.raises(ValueError, match=message):
        scale.fit(da.from_array(broken, chunks=(100, P, 2)), 6, shapes[1])
    delayed = [dask.delayed(part) for part in np.split(broken, 5)]
    with pytest.raises(ValueError, match=f"chunk {row // 100}: .* number {row % 100} holds NaN"):
        scale.fit(delayed, 6, shapes[1])


def test_input_that_cannot_be_chunked_is_refused(here, tmp_path, shapes, model):
    array = da.from_array(shapes, chunks=(100, P, 2))
    unknown = array[array[:, 0, 0] > 0]
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        scale.fit(unknown, 6, shapes[0])
    with pytest.raises(ValueError, match=r"got shape \(500, 9\)"):
        scale.fit(array[..., 0], 6, shapes[0])
    with pytest.raises(TypeError, match="got list"):
        scale.fit([shapes], 6, shapes[0])
    with pytest.raises(ValueError, match="got no chunks"):
        scale.fit([], 6, shapes[0])
    np.save(tmp_path / "a.npy", shapes)
    with pytest.raises(TypeError, match="give the name of its file"):
        scale.fit(np.load(tmp_path / "a.npy", mmap_mode="r"), 6, shapes[0])
    with pytest.raises(ValueError, match="needs align='similarity'"):
        scale.fit(array, ShapeModel(6, align="box"), shapes[0])
    with pytest.raises(TypeError, match="do not tell how many"):
        scale.smooth([dask.delayed(shapes)], model, tmp_path / "out.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy"]


@pytest.mark.parametrize("suffix", [".zarr", ".parquet"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_smoothing_a_store_is_smoothing_the_array(here, tmp_path, shapes, model, dtype, suffix):
    given, out = shapes.astype(dtype), tmp_path / f"out{suffix}"
    expected = model.smooth(given)
    np.save(tmp_path / "a.npy", given)
    assert scale.smooth(tmp_path / "a.npy", model, out, rows=130) == out
    found = open_shapes(out)
    assert found.dtype == given.dtype
    assert np.abs(found[0:500] - expected).max() <= 1e-6 * np.abs(expected).max()
    array = da.from_array(given, chunks=((1, 300, 199), 4, 1))
    scale.smooth(array, model, tmp_path / f"again{suffix}")
    again = open_shapes(tmp_path / f"again{suffix}")
    assert again.block == 300
    assert np.abs(again[0:500] - expected).max() <= 1e-6 * np.abs(expected).max()


def test_smoothing_goes_on_where_it_stopped(here, tmp_path, shapes, model):
    broken = shapes.copy()
    broken[333, 0] = np.nan
    arrays = [da.from_array(x, chunks=(100, P, 2)) for x in (broken, shapes)]
    with pytest.raises(ValueError, match=r"begins with shape 300: .* number 33"):
        scale.smooth(arrays[0], model, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()
    done = list((tmp_path / "out.zarr.incomplete" / "done").iterdir())
    assert len(done) < 5
    with pytest.raises(FileExistsError, match="another input, model"):
        scale.smooth(arrays[1], model.truncate(2), tmp_path / "out.zarr")
    with pytest.raises(FileExistsError, match="another input, model"):
        scale.smooth(arrays[1][::-1], model, tmp_path / "out.zarr")
    computed = []
    counted = arrays[1].map_blocks(lambda x: (computed.append(len(x)), x)[1], dtype="f8", meta=x0())
    scale.smooth(counted, model, tmp_path / "out.zarr")
    assert sum(computed) == 200 + 100 * (5 - len(done))  # the ends of the input, and the rest
    expected = model.smooth(shapes)
    assert np.abs(open_shapes(tmp_path / "out.zarr")[0:500] - expected).max() < 1e-12


def x0():
    """What map_blocks would find out by a call with no shapes."""
    return np.empty((0, 0, 0))


def test_without_the_extra_the_message_names_it(monkeypatch, shapes, tmp_path):
    np.save(tmp_path / "a.npy", shapes)
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(ImportError, match=r"pip install 'asmkit\[scale\]'"):
        scale.fit(tmp_path / "a.npy", 6, shapes[0])
    assert isinstance(open_shapes(tmp_path / "a.npy"), NpyShapes)  # needs no extra


# -- a cluster


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as found,
    ):
        yield found


def lethal(values, number, folder):
    """Pass values on; the first process that comes by dies instead."""
    flag = Path(folder) / f"killed-{number}"
    try:
        flag.touch(exist_ok=False)
    except FileExistsError:
        return values
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def lethal_array(shapes, folder, numbers, rows=50):
    parts = []
    for number, part in enumerate(np.split(shapes, len(shapes) // rows)):
        block = dask.delayed(part)
        if number in numbers:
            block = dask.delayed(lethal, pure=False)(block, number, str(folder))
        parts.append(da.from_delayed(block, part.shape, part.dtype))
    return da.concatenate(parts)


@pytest.mark.slow
def test_a_cluster_fits_what_one_process_fits(client, stored, shapes, model):
    same_model(scale.fit(stored, 6, shapes[0], client=client, rows=64), model)


@pytest.mark.slow
def test_a_fit_and_an_output_survive_the_death_of_workers(client, tmp_path, shapes, model):
    fitted = scale.fit(lethal_array(shapes, tmp_path, {5}), 6, shapes[0], client=client)
    assert (tmp_path / "killed-5").exists()
    same_model(fitted, model)
    array = lethal_array(shapes, tmp_path, {4})
    scale.smooth(array, model, tmp_path / "out.parquet", client=client)
    assert (tmp_path / "killed-4").exists()
    found = open_shapes(tmp_path / "out.parquet")[0:500]
    assert np.abs(found - model.smooth(shapes)).max() < 1e-12


KILLED_AS_A_WHOLE = """
    import os, signal, sys, time
    from pathlib import Path

    import dask, dask.array as da, numpy as np
    from distributed import Client, LocalCluster

    from asmkit import ShapeModel
    from asmkit.distributed import smooth

    def block(values, number, done):
        if number == 3:  # once something is written, everybody dies: client, scheduler, workers
            while not any(Path(done).iterdir()):
                time.sleep(0.01)
            os.killpg(os.getpgid(0), signal.SIGKILL)
        return values

    if __name__ == "__main__":
        folder = Path(sys.argv[1])
        shapes, model = np.load(folder / "a.npy"), ShapeModel.load(folder / "model.npz")
        out = folder / sys.argv[2]
        done = str(folder / f"{sys.argv[2]}.incomplete" / "done")
        parts = [
            da.from_delayed(dask.delayed(block)(part, number, done), part.shape, part.dtype)
            for number, part in enumerate(np.split(shapes, 5))
        ]
        cluster = LocalCluster(
            n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None
        )
        with cluster, Client(cluster) as client:
            smooth(da.concatenate(parts), model, out, client=client)
"""


@pytest.mark.slow
def test_a_cluster_that_is_killed_leaves_nothing_that_looks_whole(here, tmp_path, shapes, model):
    out, script = tmp_path / "out.zarr", tmp_path / "job.py"
    np.save(tmp_path / "a.npy", shapes)
    model.save(tmp_path / "model.npz")
    script.write_text(textwrap.dedent(KILLED_AS_A_WHOLE))
    job = subprocess.run(
        [sys.executable, str(script), str(tmp_path), out.name],
        start_new_session=True,
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert job.returncode == -signal.SIGKILL, job.stderr.decode()
    time.sleep(0.1)  # for the last worker to be gone
    assert not out.exists()
    with pytest.raises(FileNotFoundError):
        open_shapes(out)
    work = tmp_path / "out.zarr.incomplete"
    done = {path.name for path in (work / "done").iterdir()}
    assert done
    assert "3" not in done
    computed = []
    array = da.from_array(shapes, chunks=(100, P, 2))
    array = array.map_blocks(lambda x: (computed.append(len(x)), x)[1], dtype="f8", meta=x0())
    scale.smooth(array, model, out)
    assert sum(computed) == 200 + 100 * (5 - len(done))
    assert np.abs(open_shapes(out)[0:500] - model.smooth(shapes)).max() < 1e-12
    assert not work.exists()
