"""Independent pieces of one kernel on all cores, each with a single-threaded BLAS: never one pool inside another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@cache
def thread_count() -> int:
    """Threads that BLAS would use, as the environment allows (OPENBLAS_NUM_THREADS and the like)."""
    return max((int(pool["num_threads"]) for pool in _controller().info() if pool["user_api"] == "blas"), default=1)


def for_each(work: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Call `work` for every item on `thread_count()` threads; what one raises is raised here.

    The threads see the caller's context, so that its `numpy.errstate` holds in them too.
    """
    pieces = list(items)
    threads = min(thread_count(), len(pieces))
    if threads <= 1:
        for piece in pieces:
            work(piece)
        return
    with _controller().limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        contexts = [copy_context() for _ in pieces]
        for _ in pool.map(lambda context, piece: context.run(work, piece), contexts, pieces):
            pass
