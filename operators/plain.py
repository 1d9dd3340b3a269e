"""The same kernels in float32 with plain loops: a control of how large ordinary rounding errors are.

`PlainArray` is a float32 array whose sums and matrix products add one summand after the other, as a simple
implementation does, instead of NumPy's pairwise and blocked sums. Kernels are written in NumPy's universal functions,
so running one on plain arrays needs no second version of it. With lanes, several such sums run side by side and are
joined at the end, as vector units do.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import numpy as np

from .evaluation import Call
from .scale import Array

_LANES: ContextVar[int] = ContextVar("lanes", default=1)


class PlainArray(np.ndarray):
    """A float32 array with sequential sums."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **keywords: Any) -> Any:
        arrays = [_bare(x) for x in inputs]
        if ufunc is np.add and method == "reduce":
            return _wrap(_sequential_sum(arrays[0], keywords))
        if ufunc is np.matmul and method == "__call__":
            return _wrap(_sequential_product(arrays[0], arrays[1]))
        if out is not None:
            keywords["out"] = tuple(_bare(x) for x in out)
        return _wrap(getattr(ufunc, method)(*arrays, **keywords))


def _bare(x: Any) -> Any:
    if isinstance(x, PlainArray):
        return x.view(np.ndarray)
    if isinstance(x, np.ndarray) and x.dtype == np.float64:
        return x.astype(np.float32)
    return x


def _wrap(x: Any) -> Any:
    if isinstance(x, tuple):
        return tuple(_wrap(item) for item in x)
    if isinstance(x, np.ndarray | np.floating) and x.dtype.kind == "f":
        return np.asarray(x, np.float32).view(PlainArray)
    return x


def _sequential_sum(x: Array, keywords: dict[str, Any]) -> Array:
    if x.dtype.kind != "f":
        return np.add.reduce(x, **keywords)
    axis = keywords.get("axis", 0)
    axes = tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = tuple(a % max(x.ndim, 1) for a in axes)
    if not axes:
        return x
    moved = np.moveaxis(x, axes, range(x.ndim - len(axes), x.ndim))
    flat = moved.reshape(*moved.shape[: x.ndim - len(axes)], -1)
    total = _in_lanes(flat) if flat.shape[-1] else flat.sum(axis=-1)
    return np.expand_dims(total, axes) if keywords.get("keepdims") else total


def _in_lanes(x: Array) -> Array:
    """Sums over the last axis, which is not empty."""
    lanes = min(_LANES.get(), x.shape[-1])
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % lanes)])
    side_by_side = padded.reshape(*x.shape[:-1], -1, lanes)
    partial = np.add.accumulate(side_by_side, axis=-2, dtype=np.float32)[..., -1, :]
    return np.add.accumulate(partial, axis=-1, dtype=np.float32)[..., -1]


def _sequential_product(a: Array, b: Array) -> Array:
    left = a[None, :] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    count = left.shape[-1]
    lanes = max(1, min(_LANES.get(), count))
    totals = [np.zeros((), np.float32) for _ in range(lanes)]
    for i in range(count):
        totals[i % lanes] = totals[i % lanes] + left[..., :, i, None] * right[..., i, None, :]
    total = sum(totals[1:], totals[0]) if count else np.matmul(left, right)
    total = total[..., 0, :] if a.ndim == 1 else total
    return total[..., 0] if b.ndim == 1 else total


def plain_outputs(call: Call, lanes: int = 1) -> tuple[Array, ...]:
    """The outputs of a call in plain float32, as float64 arrays; sums in so many lanes."""
    inputs = tuple(_plain_input(x) for x in call.inputs)
    keywords = dict(call.keywords)
    before = _LANES.set(lanes)
    try:
        with np.errstate(all="ignore"):
            result = call.entry.function(*inputs, **keywords)
    finally:
        _LANES.reset(before)
    outputs = result if isinstance(result, tuple) else (result,)
    return tuple(np.asarray(o).view(np.ndarray).astype(np.float64) if o.dtype.kind == "f" else o for o in outputs)


def _plain_input(x: Any) -> Any:
    if isinstance(x, np.ndarray) and x.dtype.kind == "f":
        return x.astype(np.float32).view(PlainArray)
    return x
