"""Sliding windows of any spatial rank: the padding that `auto_pad` means, the output shape, and passes over windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from .scale import Array


def resolve_pads(
    auto_pad: str,
    pads: Sequence[int] | None,
    spatial_shape: Sequence[int],
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[list[int], list[int]]:
    """Padding before and after each spatial axis.

    Args:
        auto_pad: NOTSET, VALID, SAME_UPPER or SAME_LOWER; "" means NOTSET.
        pads: all beginnings, then all ends; None means 0. Only read for NOTSET.
        spatial_shape: input sizes D1, …, Dn.
        kernel_shape: window sizes before dilation, one per axis; so are `strides` and `dilations`.

    Returns:
        (begin, end), one number per axis. SAME_* gives output sizes ceil(D / stride); an odd total puts the larger
        half at the end for SAME_UPPER, at the beginning for SAME_LOWER; a total below 0 counts as 0.

    Raises:
        InvalidAttributeError: an unknown `auto_pad`, or a list of the wrong length.
    """
    rank = len(spatial_shape)
    for name, values in (("kernel_shape", kernel_shape), ("strides", strides), ("dilations", dilations)):
        if len(values) != rank:
            raise InvalidAttributeError(f"{name} has {len(values)} values for {rank} spatial axes")
    if auto_pad in ("NOTSET", ""):
        both = [0] * 2 * rank if pads is None else [int(p) for p in pads]
        if len(both) != 2 * rank:
            raise InvalidAttributeError(f"pads has {len(both)} values, {2 * rank} needed for {rank} spatial axes")
        return both[:rank], both[rank:]
    if auto_pad == "VALID":
        return [0] * rank, [0] * rank
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        raise InvalidAttributeError(f"auto_pad={auto_pad!r}; allowed: NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    totals = [
        max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        for size, k, stride, dilation in zip(spatial_shape, kernel_shape, strides, dilations, strict=True)
    ]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (small, large) if auto_pad == "SAME_UPPER" else (large, small)


def output_shape(
    spatial_shape: Sequence[int],
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    begin: Sequence[int],
    end: Sequence[int],
    *,
    ceil_mode: bool = False,
) -> list[int]:
    """Number of windows along each spatial axis, 0 where the padded input is smaller than one window.

    Args:
        begin: padding before each axis, from `resolve_pads`; `end` after.
        ceil_mode: count a last window that runs past the padded input, unless it would start in the end padding
            or beyond.

    Spec: MaxPool, AveragePool, Conv; "Sliding windows that would start in the right padded region are ignored".
    """
    sizes = []
    for axis, size in enumerate(spatial_shape):
        room = size + begin[axis] + end[axis] - (kernel_shape[axis] - 1) * dilations[axis] - 1
        count = (-(-room // strides[axis]) if ceil_mode else room // strides[axis]) + 1
        if ceil_mode and (count - 1) * strides[axis] >= size + begin[axis]:
            count -= 1
        sizes.append(max(count, 0))
    return sizes


@dataclass(frozen=True)
class Windows:
    """Windows over the spatial axes of one tensor (N, C, D1, …, Dn), resolved to plain numbers per spatial axis.

    Attributes:
        spatial_shape: D1, …, Dn.
        kernel_shape: taps per window.
        strides: distance between windows.
        dilations: distance between taps.
        begin: padding before.
        end: padding after, as the attributes say; a last window of `ceil_mode` may run past it.
        counts: number of windows.
    """

    spatial_shape: tuple[int, ...]
    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    counts: tuple[int, ...]

    def positions(self, axis: int) -> Array:
        """Input coordinate of every tap along a spatial axis, (counts, taps) int64; outside [0, D) in the padding."""
        starts = np.arange(self.counts[axis]) * self.strides[axis] - self.begin[axis]
        return starts[:, None] + np.arange(self.kernel_shape[axis]) * self.dilations[axis]

    def taps_inside(self, *, with_pads: bool = False) -> Array:
        """Taps of each window that lie on the input (or on its explicit padding too), float64 of shape `counts`."""
        total = np.ones((), np.float64)
        for axis, size in enumerate(self.spatial_shape):
            before, after = (self.begin[axis], self.end[axis]) if with_pads else (0, 0)
            at = self.positions(axis)
            total = total[..., None] * ((at >= -before) & (at < size + after)).sum(axis=1)
        return total


def resolve_windows(
    shape: Sequence[int],
    kernel_shape: Sequence[int],
    *,
    auto_pad: str,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    ceil_mode: int = 0,
) -> Windows:
    """Windows of a pooling operator over a tensor of `shape` (N, C, D1, …, Dn).

    Raises:
        InvalidInputError: fewer than three axes.
        InvalidAttributeError: lists of the wrong length, a kernel, stride or dilation below 1, a negative pad.
    """
    spatial = tuple(int(size) for size in shape[2:])
    if not spatial:
        raise InvalidInputError(f"pooling needs (N, C, D1, ...), got shape {tuple(shape)}")
    ones = (1,) * len(spatial)
    kernel = tuple(int(k) for k in kernel_shape)
    strides = ones if strides is None else tuple(int(s) for s in strides)
    dilations = ones if dilations is None else tuple(int(d) for d in dilations)
    if min(*kernel, *strides, *dilations) < 1:
        raise InvalidAttributeError(f"kernel_shape={kernel}, strides={strides}, dilations={dilations}: all must be > 0")
    begin, end = resolve_pads(auto_pad, pads, spatial, kernel, strides, dilations)
    if min(*begin, *end) < 0:
        raise InvalidAttributeError(f"pads begin={begin}, end={end}: a pooling operator allows none below 0")
    explicit = auto_pad in ("NOTSET", "")
    counts = output_shape(spatial, kernel, strides, dilations, begin, end, ceil_mode=bool(ceil_mode) and explicit)
    return Windows(spatial, kernel, strides, dilations, tuple(begin), tuple(end), tuple(counts))


def pad_axis(x: Array, axis: int, before: int, after: int, fill: Any) -> Array:
    """`x` with `before` and `after` elements of value `fill` around one axis; `x` itself where both are 0."""
    if before == after == 0:
        return x

    def block(length: int) -> Array:
        return np.full((*x.shape[:axis], length, *x.shape[axis + 1 :]), fill, x.dtype)

    return np.concatenate([block(before), x, block(after)], axis=axis)


def pad_to_windows(x: Array, axis: int, windows: Windows, fill: Any) -> Array:
    """`x` (N, C, D1, …, Dn) padded with `fill` along one spatial axis until every window lies inside."""
    start = windows.begin[axis]
    span = (windows.counts[axis] - 1) * windows.strides[axis]
    reach = span + (windows.kernel_shape[axis] - 1) * windows.dilations[axis] + 1
    return pad_axis(x, axis + 2, start, max(reach - start - x.shape[axis + 2], 0), fill)


def tap(x: Array, axis: int, windows: Windows, offset: int) -> Array:
    """View of the element number `offset` of every window along a spatial axis of a tensor padded to its windows."""
    first = offset * windows.dilations[axis]
    stop = first + (windows.counts[axis] - 1) * windows.strides[axis] + 1
    return x[(slice(None),) * (axis + 2) + (slice(first, max(stop, first), windows.strides[axis]),)]


def reduce_windows(x: Array, windows: Windows, fill: Any, combine: Callable[..., Array]) -> Array:
    """Reduce every window of `x` with an associative `combine`, one axis after the other.

    Args:
        x: (N, C, D1, …, Dn).
        fill: what padding counts as: the neutral element of `combine`.
        combine: np.maximum, np.add, … (called with `out=` on an array made here).

    Returns:
        (N, C, *windows.counts), of `x`'s dtype.
    """
    for axis, taps in enumerate(windows.kernel_shape):
        padded = pad_to_windows(x, axis, windows, fill)
        x = tap(padded, axis, windows, 0)
        if taps > 1:
            x = combine(x, tap(padded, axis, windows, 1))
        for offset in range(2, taps):
            combine(x, tap(padded, axis, windows, offset), out=x)
    return x
