"""Operators about shapes, and tensors made from nothing but sizes and constants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import onnx

from ..errors import InvalidAttributeError, InvalidInputError
from .registry import kernel, scale
from .scale import Array, Rule, Scale, exact
from .storage import encode


@kernel("Shape", since=1, scale=exact)
def shape(x: Array, /, *, start: int = 0, end: int | None = None) -> Array:
    """Dims of `x` from `start` to `end` (both since 15, clamped), int64. Spec: Shape, since 1 and 15."""
    return np.array(x.shape[start:end], np.int64)


@kernel("Size", since=1, scale=exact)
def size(x: Array, /) -> Array:
    """Number of elements, a scalar int64. Spec: Size, since 1."""
    return np.array(x.size, np.int64)


@kernel("Constant", since=1, scale=exact)
def constant(
    *,
    value: Array | None = None,
    sparse_value: Array | None = None,
    value_float: float | None = None,
    value_floats: Sequence[float] | None = None,
    value_int: int | None = None,
    value_ints: Sequence[int] | None = None,
    value_string: str | None = None,
    value_strings: Sequence[str] | None = None,
) -> Array:
    """The tensor of the one attribute that is given, in its own dtype: the type is part of the constant.

    Args:
        value: any tensor.
        sparse_value: since 11, as a dense array.
        value_float: since 12, as are the following: a scalar float32.
        value_floats: (n,) float32.
        value_int: a scalar int64.
        value_ints: (n,) int64.
        value_string: a scalar string.
        value_strings: (n,) strings.

    Raises:
        InvalidAttributeError: none or several are given.

    Spec: Constant, since 1, 11 and 12
    """
    given = [
        np.asarray(attribute, dtype)
        for attribute, dtype in (
            (value, None),
            (sparse_value, None),
            (value_float, np.float32),
            (value_floats, np.float32),
            (value_int, np.int64),
            (value_ints, np.int64),
            (value_string, object),
            (value_strings, object),
        )
        if attribute is not None
    ]
    if len(given) != 1:
        raise InvalidAttributeError(f"Constant: {len(given)} values are given, exactly one is allowed")
    return given[0]


@kernel("ConstantOfShape", since=9, scale=exact)
def constant_of_shape(shape: Array, /, *, value: Array | None = None) -> Array:
    """A tensor of the given shape, all of the one element of `value`, in its dtype; float32 zeros where absent.

    Spec: ConstantOfShape, since 9
    """
    fill = np.zeros(1, np.float32) if value is None else value.reshape(-1)
    return np.full([int(dim) for dim in shape], fill[0], fill.dtype)


@kernel("EyeLike", since=9, scale=exact)
def eye_like(x: Array, /, *, dtype: int | None = None, k: int = 0, stored: tuple[np.dtype[Any] | None, ...]) -> Array:
    """Ones on diagonal `k` of a matrix shaped as `x`, in the TensorProto type `dtype` or that of `x`.

    Spec: EyeLike, since 9
    """
    if x.ndim != 2:
        raise InvalidInputError(f"EyeLike: shape {x.shape}, two axes needed")
    wanted = stored[0] if dtype is None else onnx.helper.tensor_dtype_to_np_dtype(dtype)
    return np.eye(*x.shape, k=k).astype(wanted)


@kernel("Range", since=11)
def range_(start: Array, limit: Array, delta: Array, /, *, stash_type: int = 1) -> Array:
    """start + i·delta for i from 0, as long as it lies before `limit`.

    Args:
        start: a scalar, as are `limit` (exclusive) and `delta`, all of one numeric type.
        stash_type: since 27: the type in which a runtime computes float16 and bfloat16; here always float64.

    Spec: Range, since 11 and 27
    """
    first, stop, step = (value.reshape(()).item() for value in (start, limit, delta))
    if step == 0:
        raise InvalidInputError("Range: delta is 0")
    count = _range_count(first, stop, step) if start.dtype.kind == "f" else max(-(-(stop - first) // step), 0)
    return (first + np.arange(count) * step).astype(start.dtype)


def _range_count(first: float, stop: float, step: float) -> int:
    if not all(map(math.isfinite, (first, stop, step))):
        raise InvalidInputError(f"Range: from {first} to {stop} by {step}; finite numbers are needed")
    return max(math.ceil((Fraction(stop) - Fraction(first)) / Fraction(step)), 0)


def _rounded_range_count(start: Array, limit: Array, delta: Array, dtype: np.dtype[Any]) -> int:
    """How many elements the function body counts, which subtracts and divides in the type."""
    first, stop, step = (encode(value.reshape(()), dtype) for value in (start, limit, delta))
    with np.errstate(all="ignore"):
        quotient = float((stop - first) / step)
    return max(math.ceil(quotient), 0) if math.isfinite(quotient) else -1


@scale("Range", since=11)
def range_scale(
    y: Array,
    start: Array,
    limit: Array,
    delta: Array,
    /,
    *,
    stash_type: int = 1,
    stored: Sequence[np.dtype[Any] | None] = (None,),
) -> Scale:
    """ULP with one bound per element: i + 4 at the size m_i = (|start| + |y_i|) / 2; integers are exact.

    Raises:
        InvalidInputError: the number of elements is not determined: the quotient is so near a whole number that it
            depends on the precision in which it is computed.

    Derivation: the spec's own function body adds `delta` i times. Each addition rounds by half a unit of its result;
    |.| is convex, so that these results add up to at most i·m_i plus one end, 2·m_i. The direct form rounds i·delta
    (at most |start| + |y_i| = 2·m_i) and the sum (2·m_i).
    """
    if y.dtype.kind != "f":
        return Scale(np.zeros(()), 0, Rule.EXACT)
    types = (stored[0], onnx.helper.tensor_dtype_to_np_dtype(stash_type))
    if any(dtype is not None and _rounded_range_count(start, limit, delta, dtype) != y.size for dtype in types):
        raise InvalidInputError(f"Range is not determined: {y.size} elements, or another number if it is rounded")
    steps = np.arange(y.size, dtype=np.float64)
    return Scale((np.abs(start.reshape(())) + np.abs(y)) / 2, np.where(steps > 0, steps + 4, 0), Rule.ULP)


def _one_hot(indices: Array, depth: Array, values: Array, axis: int, *, negative: bool) -> Array:
    classes = int(depth.reshape(-1)[0])
    at = indices.astype(np.int64)
    if negative:
        at = np.where(at < 0, at + classes, at)
    rank = indices.ndim + 1
    if not -rank <= axis < rank:
        raise InvalidAttributeError(f"OneHot: axis={axis} for output rank {rank}; allowed: {-rank} to {rank - 1}")
    along = [1] * rank
    along[axis] = classes
    hot = np.expand_dims(at, axis) == np.arange(classes).reshape(along)
    return np.where(hot, values[1], values[0]).astype(values.dtype)


@kernel("OneHot", since=9, scale=exact)
def one_hot_from_zero(indices: Array, depth: Array, values: Array, /, *, axis: int = -1) -> Array:
    """Spec: OneHot, since 9 (an index below 0 is outside, thus off everywhere)."""
    return _one_hot(indices, depth, values, axis, negative=False)


@kernel("OneHot", since=11, scale=exact)
def one_hot(indices: Array, depth: Array, values: Array, /, *, axis: int = -1) -> Array:
    """A new axis of `depth` classes: on at the index, off elsewhere; off everywhere outside [-depth, depth).

    Args:
        indices: any shape, any numeric type.
        depth: one element.
        values: (2,): off, on.
        axis: where the new axis stands in the output.

    Spec: OneHot, since 11
    """
    return _one_hot(indices, depth, values, axis, negative=True)


@kernel("NonZero", since=9, scale=exact)
def non_zero(x: Array, /) -> Array:
    """(rank, found) int64: coordinates of the elements that are not 0, in row-major order. Spec: NonZero, since 9."""
    if x.ndim == 0:
        return np.zeros((0, int(bool(x))), np.int64)
    return np.stack(np.nonzero(x)).astype(np.int64)
