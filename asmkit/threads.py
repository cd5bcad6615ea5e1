"""Threads over chunks of a batch, outside the compiled kernels.

The kernels release the interpreter lock and hold no thread pool of their own, so they are safe in
forked data-loader workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["get_num_threads", "run_chunks", "set_num_threads"]

_num_threads: int | None = None


def _available_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def get_num_threads() -> int:
    """Threads that a batched call may use.

    The last :func:`set_num_threads`, else the environment variable ``ASMKIT_NUM_THREADS``, else
    one for each processor this process may run on.
    """
    if _num_threads is not None:
        return _num_threads
    text = os.environ.get("ASMKIT_NUM_THREADS", "")
    if text:
        try:
            return _checked(int(text))
        except ValueError as error:
            raise ValueError(
                f"the environment variable ASMKIT_NUM_THREADS is {text!r}; "
                "expected a whole number of at least 1"
            ) from error
    return _available_cpus()


def set_num_threads(n: int | None) -> None:
    """Set the threads that a batched call may use; ``None`` goes back to the default."""
    global _num_threads
    _num_threads = None if n is None else _checked(n)


def _checked(n: int) -> int:
    if n < 1:
        raise ValueError(f"n: got {n} threads, expected at least 1")
    return n


def run_chunks(
    work: Callable[[int, int], None], n: int, min_chunk: int, max_chunk: int | None = None
) -> None:
    """Call ``work(start, stop)`` so that the ranges cover ``range(n)``, on several threads.

    A batch is split only where each thread gets at least ``min_chunk`` items: below that, starting
    threads costs more than it saves. Every range starts at a multiple of ``min_chunk``, so work
    that goes in blocks of that size meets the same blocks whatever the number of threads. With
    ``max_chunk`` (a multiple of ``min_chunk``) no range is longer, and a thread that is done early
    takes more of them.
    """
    block = max(min_chunk, 1)
    n_threads = max(1, min(get_num_threads(), n // block))
    share = block * -(-n // (block * n_threads))
    chunk = max(share if max_chunk is None else min(share, max_chunk), 1)
    starts = range(0, n, chunk)
    stops = [min(start + chunk, n) for start in starts]
    if n_threads == 1:
        for start, stop in zip(starts, stops, strict=True):
            work(start, stop)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(work, starts, stops))
