"""Pooling over sliding windows of any spatial rank, its inverses, and pooling over all spatial axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from ._elementwise import undetermined
from ._spilling import opened, overflows, powers_vanish, unspecified
from ._windows import (
    Windows,
    pad_to_windows,
    reduce_windows,
    resolve_windows,
    tap,
)
from .reduction_products import summands
from .registry import kernel, products, scale
from .rounding import half_unit
from .scale import Array, Rule, Scale
from .storage import float_format

Stored = Sequence[np.dtype[Any] | None]

POWER_ROUNDINGS = 6.0
"""Roundings of |x|^p (at most 3, with a powf of one ulp) and of the p-th root after the sum (3)."""

COLUMN_MAJOR = 1
"""`storage_order` of MaxPool: the first spatial axis runs fastest in Indices."""


def _windows(
    shape: Sequence[int],
    kernel_shape: Sequence[int],
    auto_pad: str,
    ceil_mode: int,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
) -> Windows:
    return resolve_windows(
        shape, kernel_shape, auto_pad=auto_pad, pads=pads, strides=strides, dilations=dilations, ceil_mode=ceil_mode
    )


def _lowest(dtype: np.dtype[Any]) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _max_with_indices(x: Array, windows: Windows, storage_order: int, *, last: bool = False) -> tuple[Array, Array]:
    """Largest element of each window and its flat index, the first (or last) tap in row-major order among equals."""
    rank, spatial = len(windows.kernel_shape), windows.spatial_shape
    padded = x
    for axis in range(rank):
        padded = pad_to_windows(padded, axis, windows, _lowest(x.dtype))
    at = [windows.positions(axis) for axis in range(rank)]
    steps = np.cumprod([1, *(spatial[:-1] if storage_order == COLUMN_MAJOR else spatial[:0:-1])])
    steps = steps if storage_order == COLUMN_MAJOR else steps[::-1]
    best = np.full((*x.shape[:2], *windows.counts), _lowest(x.dtype), x.dtype)
    found = np.full(best.shape, -1, np.int64)
    order = list(product(*map(range, windows.kernel_shape)))
    for offsets in reversed(order) if last else order:
        value, index, inside = padded, np.zeros((), np.int64), np.ones((), bool)
        for axis, offset in enumerate(offsets):
            value = tap(value, axis, windows, offset)
            along = at[axis][:, offset].reshape(-1, *[1] * (rank - axis - 1))
            index = index + along * steps[axis]
            inside = inside & (along >= 0) & (along < spatial[axis])
        take = inside & ((found < 0) | (value > best) | (np.isnan(value) & ~np.isnan(best)))
        best, found = np.where(take, value, best), np.where(take, index, found)
    planes = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *[1] * rank) * math.prod(spatial)
    return best, np.where(found < 0, found, found + planes)


@kernel("MaxPool", since=1, streams=True)
def max_pool(
    x: Array,
    /,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
    output_count: int = 1,
) -> Array | tuple[Array, Array]:
    """Largest element of every window; padding never wins.

    Args:
        x: (N, C, D1, …, Dn), any float, int8 or uint8.
        kernel_shape: window sizes; `dilations` (since 10) spread them, `strides` step them.
        auto_pad: NOTSET (`pads` holds), VALID, SAME_UPPER or SAME_LOWER.
        ceil_mode: since 10: 1 keeps a last, partial window that starts on the input or its beginning padding.
        pads: all beginnings, then all ends.
        storage_order: since 8: 1 numbers Indices with the first spatial axis running fastest.
        output_count: 2 asks for Indices.

    Returns:
        (N, C, …) and, if asked for, int64 Indices into the flat `x`, the first tap among equal ones; −1 for a window
        that lies in the padding alone.

    Spec: MaxPool, since 1, 8, 10, 11, 12 and 22
    """
    windows = _windows(x.shape, kernel_shape, auto_pad, ceil_mode, dilations, pads, strides)
    if output_count > 1:
        best, found = _max_with_indices(x, windows, storage_order)
        return _decoded(best), found
    return _decoded(reduce_windows(x, windows, _lowest(x.dtype), np.maximum))


@scale("MaxPool", since=1)
def max_pool_scale(
    y: Array | tuple[Array, ...],
    x: Array,
    /,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    storage_order: int = 0,
    strides: Sequence[int] | None = None,
) -> Scale | tuple[Scale, ...]:
    """Exact, but open where the spec names no result: in a window that holds a NaN or no element at all, and for the
    index of a window whose largest element stands in several places or nowhere."""
    best = y[0] if isinstance(y, tuple) else y
    windows = _windows(x.shape, kernel_shape, auto_pad, ceil_mode, dilations, pads, strides)
    unnamed = (best != best) | (windows.taps_inside() == 0)  # noqa: PLR0124 (NaN, in any dtype)
    if not isinstance(y, tuple):
        return undetermined(unnamed)
    _, other = _max_with_indices(x, windows, storage_order, last=True)
    return undetermined(unnamed), undetermined(unnamed | (other != y[1]) | (other < 0))


def _decoded(y: Array) -> Array:
    """float64 of a float32 tensor: a maximum is exact in any type, so that only the output need be converted."""
    return y.astype(np.float64, copy=False) if y.dtype.kind == "f" else y


@kernel("AveragePool", since=1, linear_in=(0,))
def average_pool(
    x: Array,
    /,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Mean of every window.

    Args:
        x: (N, C, D1, …, Dn), any float.
        count_include_pad: since 7: 0 divides by the elements of the window that lie on the input, 1 by those that lie
            on the input or its padding; what a last window of `ceil_mode` has beyond that never counts.
        dilations: since 19. The other attributes are those of MaxPool.

    Spec: AveragePool, since 1, 7, 10, 11, 19 and 22
    """
    windows = _windows(x.shape, kernel_shape, auto_pad, ceil_mode, dilations, pads, strides)
    return reduce_windows(x, windows, 0, np.add) / windows.taps_inside(with_pads=bool(count_include_pad))


@scale("AveragePool", since=1)
def average_pool_scale(
    y: Array,
    x: Array,
    /,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    stored: Stored = (None,),
) -> Scale:
    """DOT: a sum over the window, and the division; open where the sum may overflow, and over no element: 0 / 0."""
    windows = _windows(x.shape, kernel_shape, auto_pad, ceil_mode, dilations, pads, strides)
    size = reduce_windows(np.abs(x), windows, 0, np.add)
    counts = windows.taps_inside(with_pads=bool(count_include_pad))
    found = Scale(np.asarray(size / counts), math.prod(kernel_shape) + 1, Rule.DOT)
    return unspecified(opened(found, overflows(size, stored[0])), np.broadcast_to(counts == 0, size.shape))


@products("AveragePool", since=1)
def average_pool_products(
    flat: Array,
    x: Array,
    /,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The elements of each window over their number, 0 for padding."""
    windows = _windows(x.shape, kernel_shape, auto_pad, ceil_mode, dilations, pads, strides)
    batch, channel, *window = np.unravel_index(flat, (*x.shape[:2], *windows.counts))
    rank, inside, at = len(window), np.ones((), bool), []
    for axis, which in enumerate(window):
        along = windows.positions(axis)[which].reshape(len(flat), *[-1 if i == axis else 1 for i in range(rank)])
        inside = inside & (along >= 0) & (along < windows.spatial_shape[axis])
        at.append(np.clip(along, 0, windows.spatial_shape[axis] - 1))
    first = (-1, *[1] * rank)
    taken = np.where(inside, x[(batch.reshape(first), channel.reshape(first), *at)], 0).reshape(len(flat), -1)
    return taken / windows.taps_inside(with_pads=bool(count_include_pad))[tuple(window)][:, None]


@kernel("LpPool", since=1)
def lp_pool(
    x: Array,
    /,
    *,
    kernel_shape: Sequence[int],
    p: float = 2,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """(Σ |x|^p)^(1/p) of every window; attributes as for MaxPool (`ceil_mode` and `dilations` since 18).

    Spec: LpPool, since 1, 2, 11, 18 and 22
    """
    windows = _windows(x.shape, kernel_shape, auto_pad, ceil_mode, dilations, pads, strides)
    return reduce_windows(np.abs(x) ** p, windows, 0, np.add) ** (1 / p)


def _norm_scale(y: Array, count: int, p: float, spilled: Array) -> Scale:
    """COMPOSED at |y|: the sum of `count` powers is off by at most `count` roundings relatively, the root divides that
    by p; powers and root add a few of their own. Open where the sum of powers may overflow, or vanish."""
    return opened(Scale(np.abs(y), count / p + POWER_ROUNDINGS, Rule.COMPOSED), spilled)


@scale("LpPool", since=1)
def lp_pool_scale(
    y: Array,
    x: Array,
    /,
    *,
    kernel_shape: Sequence[int],
    p: float = 2,
    stored: Stored = (None,),
) -> Scale:
    """COMPOSED: powers, their sum and a root: see `_norm_scale`."""
    total = y**p
    floor = 0.0 if stored[0] is None else float_format(stored[0]).smallest_normal / half_unit(float_format(stored[0]))
    vanished = (total < floor * math.prod(kernel_shape)) & (y != 0)
    return _norm_scale(y, math.prod(kernel_shape), p, overflows(total, stored[0]) | vanished)


def _spatial(x: Array) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


@kernel("GlobalAveragePool", since=1, linear_in=(0,))
def global_average_pool(x: Array, /) -> Array:
    """(N, C, D1, …, Dn) -> (N, C, 1, …, 1): means over the spatial axes. Spec: GlobalAveragePool, since 1."""
    return np.mean(x, axis=_spatial(x), keepdims=True)


@scale("GlobalAveragePool", since=1)
def global_average_pool_scale(y: Array, x: Array, /) -> Scale:
    """DOT: a sum over all spatial elements, and the division."""
    return Scale(np.mean(np.abs(x), axis=_spatial(x), keepdims=True), math.prod(x.shape[2:]) + 1, Rule.DOT)


@products("GlobalAveragePool", since=1)
def global_average_pool_products(flat: Array, x: Array, /) -> Array:
    """The spatial elements over their number."""
    return summands(flat, x, _spatial(x)) / math.prod(x.shape[2:])


@kernel("GlobalMaxPool", since=1)
def global_max_pool(x: Array, /) -> Array:
    """(N, C, D1, …, Dn) -> (N, C, 1, …, 1): largest over the spatial axes. Spec: GlobalMaxPool, since 1."""
    return np.max(x, axis=_spatial(x), keepdims=True, initial=_lowest(x.dtype))


@scale("GlobalMaxPool", since=1)
def global_max_pool_scale(y: Array, x: Array, /) -> Scale:
    """Exact, but open for a channel that holds a NaN, of which the spec says nothing."""
    return undetermined(y != y)  # noqa: PLR0124 (NaN, in any dtype)


@kernel("GlobalLpPool", since=1)
def global_lp_pool(x: Array, /, *, p: float = 2) -> Array:
    """(N, C, D1, …, Dn) -> (N, C, 1, …, 1): (Σ |x|^p)^(1/p) over spatial axes. Spec: GlobalLpPool, since 1."""
    return np.sum(np.abs(x) ** p, axis=_spatial(x), keepdims=True) ** (1 / p)


@scale("GlobalLpPool", since=1)
def global_lp_pool_scale(y: Array, x: Array, /, *, p: float = 2, stored: Stored = (None,)) -> Scale:
    """COMPOSED: powers, their sum and a root: see `_norm_scale`."""
    powers, axes = np.abs(x) ** p, _spatial(x)
    vanished = powers_vanish(powers, axes, stored[0]) & (x != 0).any(axis=axes, keepdims=True)
    spilled = overflows(powers.sum(axis=axes, keepdims=True), stored[0]) | vanished
    return _norm_scale(y, math.prod(x.shape[2:]), p, spilled)
