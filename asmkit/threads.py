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
    that goes in blocks of that size meets the same blocks whatever the number of threads. A thread
    takes its share in pieces of at most ``max_chunk`` (a multiple of ``min_chunk``).
    """
    block = max(min_chunk, 1)
    n_blocks = -(-n // block)
    n_threads = max(1, min(get_num_threads(), n // block))
    edges = [min(n, block * (n_blocks * i // n_threads)) for i in range(n_threads + 1)]

    def in_pieces(start: int, stop: int) -> None:
        piece = max_chunk or max(stop - start, 1)
        for begin in range(start, stop, piece):
            work(begin, min(begin + piece, stop))

    if n_threads == 1:
        in_pieces(0, n)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(in_pieces, edges[:-1], edges[1:]))
