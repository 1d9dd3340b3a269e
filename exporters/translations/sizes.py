"""Sizes in a graph that is being built: numbers where they are known, computed where they are not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .operators import opset18 as op

Size = Any
"""An int, or an int64 value of the graph."""


def static_dims(x: Any, start: int, end: int | None = None) -> list[int] | None:
    """Sizes of the axes from `start` to `end`, if all are known; they are not of what a translation itself made."""
    if x.shape is None:
        return None
    dims = list(x.shape)[start:end]
    return [int(dim) for dim in dims] if all(isinstance(dim, int) for dim in dims) else None


def vector(sizes: Sequence[Size]) -> Any:
    """The sizes as one int64 vector."""
    if all(isinstance(size, int) for size in sizes):
        return op.Constant(value_ints=list(sizes))
    parts = [op.Constant(value_ints=[s]) if isinstance(s, int) else op.Reshape(s, [-1]) for s in sizes]
    return op.Concat(*parts, axis=0)


def dims_vector(x: Any, start: int, end: int | None = None) -> Any:
    """The sizes of some axes of `x` as one int64 vector."""
    known = static_dims(x, start, end)
    if known is not None:
        return op.Constant(value_ints=known)
    return op.Shape(x, start=start) if end is None else op.Shape(x, start=start, end=end)


def size_of(x: Any, axis: int) -> Size:
    """The size of one axis (counted from the front): an int, or a vector of one element."""
    known = static_dims(x, axis, axis + 1)
    return known[0] if known else op.Shape(x, start=axis, end=axis + 1)


def product(sizes: Sequence[Size]) -> Any:
    """The product of the sizes as a vector of one element."""
    if all(isinstance(size, int) for size in sizes):
        return op.Constant(value_ints=[math.prod(sizes)])
    return op.ReduceProd(vector(sizes), keepdims=1)
