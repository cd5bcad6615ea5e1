import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asmkit.threads import get_num_threads, run_chunks, set_num_threads


@pytest.fixture(autouse=True)
def _default_threads():
    yield
    set_num_threads(None)


def ranges(n, min_chunk, max_chunk=None):
    lock, found = threading.Lock(), []

    def work(start, stop):
        with lock:
            found.append((start, stop))

    run_chunks(work, n, min_chunk, max_chunk)
    return sorted(found)


@given(
    n=st.integers(0, 300),
    min_chunk=st.integers(1, 40),
    pieces=st.none() | st.integers(1, 4),
    n_threads=st.integers(1, 5),
)
def test_ranges_cover_everything_once_and_start_at_blocks(n, min_chunk, pieces, n_threads):
    set_num_threads(n_threads)
    max_chunk = None if pieces is None else pieces * min_chunk
    found = ranges(n, min_chunk, max_chunk)
    assert [i for start, stop in found for i in range(start, stop)] == list(range(n))
    assert all(start % min_chunk == 0 for start, _ in found)
    if max_chunk:
        assert all(stop - start <= max_chunk for start, stop in found)
    else:
        assert len(found) <= n_threads


def test_errors_of_a_thread_reach_the_caller():
    set_num_threads(2)

    def work(start, stop):
        if start:
            raise KeyError(start)

    with pytest.raises(KeyError):
        run_chunks(work, 100, 10)


def test_number_of_threads_comes_from_the_call_then_the_environment(monkeypatch):
    assert get_num_threads() >= 1
    monkeypatch.setenv("ASMKIT_NUM_THREADS", "7")
    assert get_num_threads() == 7
    set_num_threads(3)
    assert get_num_threads() == 3
    set_num_threads(None)
    monkeypatch.setenv("ASMKIT_NUM_THREADS", "many")
    with pytest.raises(ValueError, match="'many'"):
        get_num_threads()
    with pytest.raises(ValueError, match="at least 1"):
        set_num_threads(0)
