"""The elements of a failing case made plain: ±1 in place of any finite number but 0, where that still fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from ...operators.scale import Array
from ...operators.storage import is_float
from .drawing import NodeCall

MOST_TRIES = 400
"""Calls of the runtime that simplifying may cost."""


def simplified(call: NodeCall, fails: Callable[[NodeCall], bool]) -> NodeCall:
    """The call with as many elements as possible of its floating-point data inputs replaced by plain numbers.

    Shapes, indices and scalars stay as they are: what they may be is known to their strategy alone, and so is the range
    of integers. A floating-point tensor keeps its signs, so that variances stay positive and logarithms defined.
    """
    tries = iter(range(MOST_TRIES))
    for position in _data_positions(call):
        for block in _blocks(call.inputs[position]):
            call = _replaced(call, position, block, fails, tries)
    return call


def _data_positions(call: NodeCall) -> Iterator[int]:
    for position, value in enumerate(call.inputs):
        if value is not None and is_float(value.dtype) and value.ndim > 0 and value.size > 0:
            yield position


def _blocks(value: Array | None) -> Iterator[slice]:
    """All elements at once, then halves, quarters, … single ones."""
    size = 0 if value is None else value.size
    width = size
    while width >= 1:
        yield from (slice(start, start + width) for start in range(0, size, width))
        if width == 1:
            return
        width = -(-width // 2)


def _replaced(
    call: NodeCall, position: int, block: slice, fails: Callable[[NodeCall], bool], tries: Iterator[int]
) -> NodeCall:
    value = call.inputs[position]
    if value is None:
        return call
    old = value.reshape(-1)[block].astype(np.float64)
    with np.errstate(all="ignore"):
        plain = np.where(np.isfinite(old) & (old != 0), np.sign(old), old)
    if np.array_equal(plain, old, equal_nan=True) or next(tries, None) is None:
        return call
    inputs = list(call.inputs)
    changed = value.copy()
    changed.reshape(-1)[block] = plain.astype(value.dtype)
    inputs[position] = changed
    candidate = dataclasses.replace(call, inputs=tuple(inputs))
    return candidate if fails(candidate) else call
