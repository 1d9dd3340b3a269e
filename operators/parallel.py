"""Independent pieces of one kernel on all cores, each with a single-threaded BLAS: never one pool inside another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import cache
from typing import TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from .scale import Array

Item = TypeVar("Item")

ROW_ELEMENTS = 1 << 17
"""Elements that a function of rows is given at a time: 1 MiB in float64; fewer cost more in handing them out."""


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@cache
def thread_count() -> int:
    """Threads that BLAS would use, as the environment allows (OPENBLAS_NUM_THREADS and the like)."""
    return max((int(pool["num_threads"]) for pool in _controller().info() if pool["user_api"] == "blas"), default=1)


@cache
def _pool(_process: int, threads: int) -> ThreadPoolExecutor:
    """Threads that stay: a new one would fault in the memory of its temporaries anew. A forked process has none of its
    parent's, and makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="onnx-arch")


_inside: ContextVar[bool] = ContextVar("inside a piece of for_each", default=False)


def for_each(work: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Call `work` for every item on `thread_count()` threads; what one raises is raised here.

    The threads see the caller's context, so that its `numpy.errstate` holds in them too. Inside a piece of work that is
    spread already, items are worked on one after the other.
    """
    pieces = list(items)
    threads = thread_count()
    if min(threads, len(pieces)) <= 1 or _inside.get():
        for piece in pieces:
            work(piece)
        return
    with _controller().limit(limits=1, user_api="blas"):
        contexts = [copy_context() for _ in pieces]
        for context in contexts:
            context.run(_inside.set, True)
        for _ in _pool(os.getpid(), threads).map(lambda context, piece: context.run(work, piece), contexts, pieces):
            pass


def by_rows(function: Callable[[Array, Array], None], x: Array) -> Array:
    """`function` of a few rows at a time, on all cores.

    Args:
        function: given (rows, N) and where to write the same shape, each row by itself.
        x: (…, N), a floating-point type.

    Returns:
        Like `x`.
    """
    if not x.size:
        return x.copy()
    rows = x.reshape(-1, x.shape[-1])
    out = np.empty_like(rows)
    step = max(1, ROW_ELEMENTS // rows.shape[1])
    for_each(lambda start: function(rows[start : start + step], out[start : start + step]), range(0, len(rows), step))
    return out.reshape(x.shape)
