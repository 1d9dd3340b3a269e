"""Operators that find which elements are largest, first or distinct: exact."""

from __future__ import annotations

import math

import numpy as np

from ..errors import InvalidInputError
from ._elementwise import undetermined
from .readings import AnyOrder
from .registry import kernel, scale
from .scale import Array, Rule, Scale, exact


def _arg(x: Array, axis: int, keepdims: int, select_last_index: int, *, largest: bool) -> Array:
    find = np.argmax if largest else np.argmin
    if select_last_index:
        return x.shape[axis] - 1 - find(np.flip(x, axis), axis=axis, keepdims=bool(keepdims))
    return np.asarray(find(x, axis=axis, keepdims=bool(keepdims)))


@kernel("ArgMax", since=1)
def arg_max(x: Array, /, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
    """Index of the largest element along `axis`, the first one or (since 12) the last one, int64.

    Spec: ArgMax, since 1, 11, 12 and 13
    """
    return _arg(x, axis, keepdims, select_last_index, largest=True)


@kernel("ArgMin", since=1)
def arg_min(x: Array, /, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Array:
    """Index of the smallest element along `axis`, the first one or (since 12) the last one, int64.

    Spec: ArgMin, since 1, 11, 12 and 13
    """
    return _arg(x, axis, keepdims, select_last_index, largest=False)


@scale("ArgMax", since=1)
@scale("ArgMin", since=1)
def arg_scale(y: Array, x: Array, /, *, axis: int = 0, keepdims: int = 1) -> Scale:
    """Exact; where a slice holds a NaN the spec names no winner, so that nothing is demanded there."""
    return undetermined(np.any(x != x, axis=axis, keepdims=bool(keepdims)))  # noqa: PLR0124 (NaN, in any dtype)


def _top_k(x: Array, k: int, axis: int, *, largest: bool) -> tuple[Array, Array]:
    if not -x.ndim <= axis < x.ndim or not 0 <= k <= x.shape[axis]:
        raise InvalidInputError(f"TopK: k={k} along axis={axis} of shape {x.shape}")
    if largest:
        # A stable ascending sort of the reversed axis, reversed: descending, and the lower index first among equals.
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    first = np.take(order, np.arange(k), axis=axis)
    return np.take_along_axis(x, first, axis=axis), first


@kernel("TopK", since=1)
def top_k_attribute(x: Array, /, *, k: int, axis: int = -1) -> tuple[Array, Array]:
    """Spec: TopK, since 1 (`k` as an attribute)."""
    return _top_k(x, k, axis, largest=True)


@kernel("TopK", since=10)
def top_k(x: Array, k: Array, /, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> tuple[Array, Array]:  # noqa: A002
    """The `k` largest or smallest elements along `axis` in order, and their indices.

    Args:
        x: (…, N, …).
        k: one int64, at most N.
        axis: the axis of length N.
        largest: since 11: 0 takes the smallest, in ascending order.
        sorted: since 11: 0 leaves the order open; here it is sorted all the same.

    Returns:
        values and int64 indices, (…, k, …); the lower index first among equal values.

    Spec: TopK, since 10, 11 and 24
    """
    return _top_k(x, int(k.reshape(-1)[0]), axis, largest=bool(largest))


def _unordered(x: Array, axis: int) -> Array:
    """Rows along `axis` that hold a NaN, which is neither larger nor smaller than anything."""
    return np.any(x != x, axis=axis, keepdims=True)  # noqa: PLR0124 (NaN, in any dtype)


@scale("TopK", since=1)
def top_k_attribute_scale(y: tuple[Array, Array], x: Array, /, *, axis: int = -1) -> tuple[Scale, ...]:
    """Exact; open for a row that holds a NaN, whose rank the specification does not name."""
    return (undetermined(_unordered(x, axis)),) * 2


@scale("TopK", since=10)
def top_k_scale(
    y: tuple[Array, Array],
    x: Array,
    k: Array,
    /,
    *,
    axis: int = -1,
    sorted: int = 1,  # noqa: A002
) -> tuple[Scale, ...]:
    """Exact; open for a row that holds a NaN, whose rank the specification does not name. With sorted=0 the order is
    open, but not which elements are taken, unless one that is left out equals one that is taken."""
    unknown = _unordered(x, axis)
    if sorted or not y[0].size:
        return (undetermined(unknown),) * 2
    last = np.take(y[0], [-1], axis=axis)
    tied = (x == last).sum(axis=axis, keepdims=True) > (y[0] == last).sum(axis=axis, keepdims=True)
    laws = (AnyOrder(y[0], axis, unknown), AnyOrder(y[1], axis, unknown | tied))
    return tuple(Scale(np.zeros(()), 0, Rule.EXACT, law=law) for law in laws)


@kernel("Unique", since=11, scale=exact)
def unique(x: Array, /, *, axis: int | None = None, sorted: int = 1) -> tuple[Array, Array, Array, Array]:  # noqa: A002
    """Distinct elements of the flattened `x`, or distinct slices along `axis`.

    Args:
        x: any shape.
        axis: absent: elements.
        sorted: 1: ascending (slices lexicographically); 0: in the order of their first occurrence.

    Returns:
        the distinct values; where each occurs first; which of them each element is; how often each occurs (int64).

    Raises:
        InvalidInputError: NaN: whether it equals itself, and where it is sorted, the specification does not say.

    Spec: Unique, since 11
    """
    if (x != x).any():  # noqa: PLR0124 (NaN, in any dtype)
        raise InvalidInputError("Unique is not determined: there is a NaN")
    values, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    inverse = inverse.reshape(-1)
    if not sorted:
        order = np.argsort(first, kind="stable")
        place = np.argsort(order)
        values = np.take(values, order, axis=0 if axis is None else axis)
        first, inverse, counts = first[order], place[inverse], counts[order]
    return values, first, inverse, counts


@kernel("Hardmax", since=1)
def hardmax_flattened(x: Array, /, *, axis: int = 1) -> Array:
    """Spec: Hardmax, since 1 (`x` as a matrix: axes before `axis`, and all others together)."""
    flat = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    return hardmax(flat, axis=1).reshape(x.shape)


@kernel("Hardmax", since=13)
def hardmax(x: Array, /, *, axis: int = -1) -> Array:
    """1 at the first largest element along `axis`, 0 elsewhere. Spec: Hardmax, since 13."""
    y = np.zeros_like(x)
    if x.size:
        np.put_along_axis(y, np.argmax(x, axis=axis, keepdims=True), 1, axis=axis)
    return y


@scale("Hardmax", since=1)
def hardmax_flattened_scale(y: Array, x: Array, /, *, axis: int = 1) -> Scale:
    """Exact, but open for a row that holds a NaN."""
    first = axis + x.ndim if axis < 0 else axis
    return undetermined(np.isnan(x).any(axis=tuple(range(first, x.ndim)), keepdims=True))


@scale("Hardmax", since=13)
def hardmax_scale(y: Array, x: Array, /, *, axis: int = -1) -> Scale:
    """Exact, but open for a slice that holds a NaN."""
    return undetermined(np.isnan(x).any(axis=axis, keepdims=True))
