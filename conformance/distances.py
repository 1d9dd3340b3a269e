"""How far a runtime's tensor is from the clean one: by blocks that stay in the cache, on all cores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..operators.parallel import for_each
from ..operators.scale import Array
from ..operators.storage import decode

BLOCK = 1 << 14
"""Elements that are subtracted at a time."""

PIECE = 1 << 19
"""Elements that one thread takes at a time."""


def largest_gap(actual: Any, clean: Any) -> float | None:
    """Largest finite |actual − clean|; None where they cannot be subtracted."""
    numeric = all(isinstance(x, np.ndarray) and x.dtype.kind not in "OUSb" for x in (actual, clean))
    if not numeric or actual.shape != clean.shape:
        return None
    if actual is clean:
        return 0.0
    peaks = [0.0]
    wide = np.complex128 if "c" in (actual.dtype.kind, clean.dtype.kind) else np.float64

    def block(found: Array, _where: slice) -> None:
        largest = float(found.max())
        peaks.append(largest if np.isfinite(largest) else float(found[np.isfinite(found)].max(initial=0.0)))

    _by_blocks(lambda x, y: np.abs(np.subtract(x, y, dtype=wide)), _light(actual), _light(clean), block)
    return max(peaks)


def deviation(clean: Array, actual: Array) -> Array | None:
    """clean − actual as float32: (…) of both; None where an element of it is not finite."""
    out = np.empty(clean.shape, np.float32)
    flat = out.reshape(-1)
    finite = []

    def block(found: Array, where: slice) -> None:
        flat[where] = found
        finite.append(bool(np.isfinite(flat[where]).all()))

    _by_blocks(lambda x, y: np.subtract(x, y, dtype=np.float64), _light(clean), _light(actual), block)
    return out if all(finite) else None


def _light(x: Array) -> Array:
    """float32 as it is, everything else decoded."""
    return x if x.dtype == np.float32 else decode(x)


def _by_blocks(
    compute: Callable[[Array, Array], Array], a: Array, b: Array, take: Callable[[Array, slice], None]
) -> None:
    """Hand `compute` blocks of two tensors of one shape, and its results with their place to `take`."""
    x, y = (np.ascontiguousarray(part).reshape(-1) for part in (a, b))

    def piece(first: int) -> None:
        with np.errstate(all="ignore"):
            for start in range(first, min(first + PIECE, x.size), BLOCK):
                where = slice(start, start + BLOCK)
                take(compute(x[where], y[where]), where)

    for_each(piece, range(0, x.size, PIECE))
