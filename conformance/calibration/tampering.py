"""Faults that any operator can have: what it stores is changed after it was computed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...operators.scale import Array
from ...operators.storage import is_float
from .case import Case, Compute, Fault, Outputs
from .narrow import bf16, fp16, int8, tf32

OFF = np.float32(1.001)


def _changed(y: Array, where: int | slice[int, int], how: Callable[[Array], Array]) -> Array:
    out = y.reshape(-1).copy()
    out[where] = how(out[where]).astype(y.dtype)
    return out.reshape(y.shape)


def _larger(x: Array) -> Array:
    """A thousandth more; one step more where that is no number."""
    if x.dtype == bool:
        return ~x
    return x.astype(np.float32) * OFF if is_float(x.dtype) else x + np.ones((), x.dtype)


def _median(y: Array) -> int:
    """Where the element of median size is."""
    return int(np.argsort(np.abs(y.reshape(-1).astype(np.float64)), kind="stable")[y.size // 2])


def _row(y: Array) -> slice[int, int]:
    """The last row of the last axis."""
    return slice(y.size - y.shape[-1], y.size) if y.ndim else slice(0, 1)


def _one_off(y: Array) -> Array:
    return _changed(y, _median(y), _larger)


def _last_off(y: Array) -> Array:
    return _changed(y, y.size - 1, _larger)


def _row_off(y: Array) -> Array:
    return _changed(y, _row(y), _larger)


def _row_repeated(y: Array) -> Array:
    n = y.shape[-1] if y.ndim else 1
    return _changed(y, _row(y), lambda _: y.reshape(-1)[y.size - 2 * n : y.size - n]) if y.size >= 2 * n else y


def _stale(y: Array) -> Array:
    """The last quarter of the buffer was not written, and holds zeros."""
    return _changed(y, slice(y.size - max(y.size // 4, 1), y.size), np.zeros_like)


def _unwritten(y: Array) -> Array:
    return _changed(y, y.size - 1, np.zeros_like)


def _negated(y: Array) -> Array:
    return _changed(y, _median(y), lambda x: -x if x.dtype != bool else ~x)


def _nan(y: Array) -> Array:
    return _changed(y, _median(y), lambda x: x * np.float32(np.nan)) if is_float(y.dtype) else y


def _swapped(y: Array) -> Array:
    return _changed(y, slice(y.size - 2, y.size), lambda x: x[::-1]) if y.size > 1 else y


def _tail_repeats(y: Array) -> Array:
    """The remainder of a loop over vectors of four holds the vector before."""
    left = y.size % 4
    return (
        _changed(y, slice(y.size - left, y.size), lambda x: y.reshape(-1)[y.size - left - 4 :][: x.size])
        if (left and y.size > 4)
        else y
    )


def _other_order(y: Array) -> Array:
    """Written column by column."""
    return np.ascontiguousarray(y.T).reshape(y.shape) if y.ndim > 1 else y


def _through(narrow: Callable[[Array], Array]) -> Callable[[Array], Array]:
    def change(y: Array) -> Array:
        return np.asarray(narrow(y)).reshape(y.shape) if y.dtype == np.float32 else y

    return change


TAMPERS = (
    ("one element off by a thousandth", _one_off),
    ("the last element off by a thousandth", _last_off),
    ("one row off by a thousandth", _row_off),
    ("the last row repeats the one before", _row_repeated),
    ("a quarter of the output buffer is stale", _stale),
    ("the last element is not written", _unwritten),
    ("one element negated", _negated),
    ("one element NaN", _nan),
    ("two elements swapped", _swapped),
    ("the remainder repeats the vector before", _tail_repeats),
    ("written in the other memory order", _other_order),
    ("result through float16", _through(fp16)),
    ("result through bfloat16", _through(bf16)),
    ("result through TF32", _through(tf32)),
    ("result through int8", _through(int8)),
)


def tampered(right: Compute) -> tuple[Fault, ...]:
    """The faults of this file, done to the first output of a right implementation."""

    def compute(case: Case, change: Callable[[Array], Array]) -> Outputs | None:
        outputs = right(case)
        if outputs is None or outputs[0].size == 0 or outputs[0].dtype.kind in "OUS":
            return None
        return (change(outputs[0]), *outputs[1:])

    return tuple(Fault(name, ("*",), lambda case, change=change: compute(case, change)) for name, change in TAMPERS)
