"""Weights in mapped files: pages that were read are given back to the system, so that they count as no memory.

Giving them back loses nothing: the next read takes them from the file again.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import Any

import numpy as np

from .scale import Array


def give_back(address: int, size_bytes: int) -> None:
    """Give the whole pages of a mapped range back to the system; what was written to a shared mapping is kept.

    Args:
        address: in a file that is mapped shared, or private and never written to. (Memory of no file would be zeroed.)
        size_bytes: of the range.
    """
    start, stop = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE, (address + size_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if stop > start and sys.platform == "linux":
        _libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_DONTNEED)


def keep_heap_small() -> None:
    """From now on, have the allocator take large blocks from the system and give them back when they are freed.

    Left to itself it keeps freed blocks of up to 32 MiB for reuse, some hundred MB in a run of large layers.
    """
    if sys.platform == "linux" and hasattr(_libc(), "mallopt"):
        _libc().mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)


_MMAP_THRESHOLD = -3
_LARGE_BYTES = 1 << 22


def give_back_heap() -> None:
    """Give back what the allocator keeps of memory that was freed."""
    if sys.platform == "linux" and hasattr(_libc(), "malloc_trim"):
        _libc().malloc_trim(0)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def give_back_array(array: Array) -> None:
    """Give the pages of an array back if it is a dense view of a file mapped read-only; any other is left alone."""
    if array.flags.writeable or array.nbytes < mmap.PAGESIZE or not _is_mapped(array):
        return
    start, stop = np.lib.array_utils.byte_bounds(array)
    if stop - start == array.nbytes:
        give_back(start, stop - start)


def _is_mapped(array: Array) -> bool:
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return isinstance(owner.obj if isinstance(owner, memoryview) else owner, mmap.mmap)
