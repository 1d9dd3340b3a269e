"""DeformConv: convolution whose kernel positions are moved by offsets, of any spatial rank."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._spilling import unspecified
from .registry import kernel, scale
from .rounding import NAIVE_VARIANCE
from .scale import Array, Rule, Scale

COORDINATE_ROUNDINGS = 2
"""Of a sampling position: its start plus the dilated step are whole numbers, the offset is added in one or two sums."""


@dataclass(frozen=True)
class _Geometry:
    """Sizes of one deformable convolution; lists have one entry per spatial axis.

    Attributes:
        sizes: of the input.
        kernel: of the kernel.
        out: of the output.
        begin: padding before; so are `strides` and `dilations`.
        group: of channels; so is `offset_group`.
    """

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    out: tuple[int, ...]
    begin: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    group: int
    offset_group: int

    def positions(self) -> Iterator[tuple[int, ...]]:
        """Positions in the kernel, in row-major order."""
        return itertools.product(*(range(size) for size in self.kernel))

    def coordinates(self, offset: Array, number: int, position: Sequence[int]) -> list[Array]:
        """Where one kernel position is sampled, along each axis: (N, offset_group, *out)."""
        N, rank = offset.shape[0], len(self.sizes)
        moved = offset.reshape(N, self.offset_group, -1, rank, *self.out)[:, :, number]  # (N, groups, rank, *out)
        found = []
        for axis in range(rank):
            start = np.arange(self.out[axis]) * self.strides[axis] - self.begin[axis]
            start = start + position[axis] * self.dilations[axis]
            found.append(moved[:, :, axis] + start.reshape(-1, *(1,) * (rank - 1 - axis)))
        return found


def _geometry(
    x: Array,
    w: Array,
    offset: Array,
    b: Array | None,
    mask: Array | None,
    dilations: Sequence[int] | None,
    group: int,
    kernel_shape: Sequence[int] | None,
    offset_group: int,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
) -> _Geometry:
    """The sizes, checked.

    Raises:
        InvalidInputError: shapes that do not go together.
        InvalidAttributeError: lists of the wrong length, or groups that do not divide channels.
    """
    rank = x.ndim - 2
    kernel_sizes = tuple(w.shape[2:])
    lists = {"dilations": dilations, "strides": strides, "kernel_shape": kernel_shape}
    for name, values in (*lists.items(), ("pads", pads)):
        if values is not None and len(values) != rank * (1 + (name == "pads")):
            raise InvalidAttributeError(f"DeformConv: {len(values)} {name} for {rank} spatial axes")
    if rank < 1 or w.ndim != x.ndim or (kernel_shape is not None and tuple(kernel_shape) != kernel_sizes):
        raise InvalidInputError(f"DeformConv: X {x.shape}, W {w.shape}, kernel_shape {kernel_shape}")
    if (
        group < 1
        or offset_group < 1
        or x.shape[1] != w.shape[1] * group
        or w.shape[0] % group
        or x.shape[1] % offset_group
    ):
        raise InvalidAttributeError(
            f"DeformConv: group={group}, offset_group={offset_group} for X {x.shape}, W {w.shape}"
        )
    steps = (1,) * rank if strides is None else tuple(strides)
    spread = (1,) * rank if dilations is None else tuple(dilations)
    both = (0,) * 2 * rank if pads is None else tuple(pads)
    out = tuple(
        (x.shape[2 + i] + both[i] + both[rank + i] - (kernel_sizes[i] - 1) * spread[i] - 1) // steps[i] + 1
        for i in range(rank)
    )
    count = offset_group * math.prod(kernel_sizes)
    expected = {"offset": (offset, (x.shape[0], count * rank, *out)), "mask": (mask, (x.shape[0], count, *out))}
    expected["B"] = (b, (w.shape[0],))
    for name, (given, shape) in expected.items():
        if given is not None and given.shape != shape:
            raise InvalidInputError(f"DeformConv: {name} of shape {given.shape}; {shape} is needed")
    return _Geometry(x.shape[2:], kernel_sizes, out, both[:rank], steps, spread, group, offset_group)


def _corners(at: Sequence[Array], sizes: Sequence[int]) -> Iterator[tuple[list[Array], list[Array], Array]]:
    """The 2^rank neighbours of sampling positions: indices, weights along each axis, whether it lies in the input."""
    low = [np.floor(np.where(np.isfinite(p), p, -2.0)) for p in at]
    share = [p - first for p, first in zip(at, low, strict=True)]
    for corner in itertools.product((0, 1), repeat=len(at)):
        index = [first + c for first, c in zip(low, corner, strict=True)]
        weights = [s if c else 1 - s for s, c in zip(share, corner, strict=True)]
        inside = np.logical_and.reduce([(i >= 0) & (i < size) for i, size in zip(index, sizes, strict=True)])
        yield [np.clip(i, 0, size - 1).astype(np.int64) for i, size in zip(index, sizes, strict=True)], weights, inside


def _gathered(x: Array, index: Sequence[Array], groups: int) -> Array:
    """Elements at (N, groups, *out) indices: (N, groups, C / groups, *out)."""
    split = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
    n = np.arange(x.shape[0]).reshape(-1, *(1,) * (index[0].ndim - 1))
    g = np.arange(groups).reshape(-1, *(1,) * (index[0].ndim - 2))
    return np.moveaxis(split[(n, g, slice(None), *index)], -1, 2)


def _weighted(columns: Array, w: Array, group: int) -> Array:
    """(N, C, *out) by (M, C / group): (N, M, *out)."""
    N, C, *out = columns.shape
    split = columns.reshape(N, group, C // group, -1)
    filters = w.reshape(group, w.shape[0] // group, C // group)
    return np.matmul(filters, split).reshape(N, w.shape[0], *out)


@kernel("DeformConv", since=19)
def deform_conv(
    x: Array,
    w: Array,
    offset: Array,
    b: Array | None = None,
    mask: Array | None = None,
    /,
    *,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Convolution of elements that are read, interpolated linearly, beside the kernel's positions.

    Args:
        x: (N, C, D1, …, Dn); zero outside.
        w: (M, C / group, k1, …, kn).
        offset: (N, offset_group · Πk · n, o1, …, on), by kernel position and then by axis.
        b: (M,) or None.
        mask: (N, offset_group · Πk, o1, …, on), a factor of every element read; 1 by default.
        dilations: per spatial axis, 1 by default; so are `strides`.
        group: of input and output channels.
        kernel_shape: if given, the spatial shape of `w`.
        offset_group: groups of channels that share offsets.
        pads: beginnings, then ends; 0 by default.

    Returns:
        (N, M, o1, …, on).

    Raises:
        InvalidInputError: shapes that do not go together.
        InvalidAttributeError: lists of the wrong length, or groups that do not divide channels.

    Spec: DeformConv, since 19. Papers: https://arxiv.org/abs/1703.06211, https://arxiv.org/abs/1811.11168
    """
    geometry = _geometry(x, w, offset, b, mask, dilations, group, kernel_shape, offset_group, pads, strides)
    y: Any = np.zeros((x.shape[0], w.shape[0], *geometry.out))
    for number, position in enumerate(geometry.positions()):
        at = geometry.coordinates(offset, number, position)
        read: Any = 0.0
        for index, weights, inside in _corners(at, geometry.sizes):
            read = read + _gathered(x, index, offset_group) * (math.prod(weights) * inside)[:, :, None]
        if mask is not None:
            read = read * mask.reshape(len(x), offset_group, -1, *geometry.out)[:, :, number][:, :, None]
        y = y + _weighted(read.reshape(x.shape[0], x.shape[1], *geometry.out), w[(..., *position)], group)
    return y if b is None else y + b.reshape(-1, *(1,) * len(geometry.out))


@scale("DeformConv", since=19)
def deform_conv_scale(
    y: Array,
    x: Array,
    w: Array,
    offset: Array,
    b: Array | None = None,
    mask: Array | None = None,
    /,
    *,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Scale:
    """COMPOSED: Σ |w| |mask| Σ share · |x|, with a rounding for every product of the filter, the interpolation and the
    mask; and what two roundings of a coordinate at its own size move the interpolation by. Open where an offset is not
    finite, or infinity meets a weight of 0."""
    geometry = _geometry(x, w, offset, b, mask, dilations, group, kernel_shape, offset_group, pads, strides)
    rank = len(geometry.out)
    size, moved = (np.zeros(y.shape) for _ in range(2))
    for number, position in enumerate(geometry.positions()):
        at = geometry.coordinates(offset, number, position)
        parts = [np.zeros((len(x), offset_group, x.shape[1] // offset_group, *geometry.out)) for _ in range(2)]
        for index, weights, inside in _corners(at, geometry.sizes):
            values = np.abs(_gathered(x, index, offset_group))
            parts[0] += values * (math.prod(weights) * inside)[:, :, None]
            for axis in range(rank):
                others = math.prod(weights[:axis] + weights[axis + 1 :]) if rank > 1 else 1.0
                parts[1] += values * (others * inside * (np.abs(at[axis]) + 1))[:, :, None]
        if mask is not None:
            factor = np.abs(mask).reshape(len(x), offset_group, -1, *geometry.out)[:, :, number][:, :, None]
            parts = [part * factor for part in parts]
        filters = np.abs(w[(..., *position)])
        added = (_weighted(part.reshape(*x.shape[:2], *geometry.out), filters, group) for part in parts)
        size, moved = (total + part for total, part in zip((size, moved), added, strict=True))
    if b is not None:
        size = size + np.abs(b).reshape(-1, *(1,) * rank)
    terms = math.prod(w.shape[1:]) + 2**rank + rank + 2 + (b is not None)
    magnitude = size + COORDINATE_ROUNDINGS / terms * moved
    with np.errstate(all="ignore"):
        ratio = np.nan_to_num(np.array([y, COORDINATE_ROUNDINGS * moved]) / magnitude)
    spread = np.sqrt(1 + terms * NAIVE_VARIANCE * ratio[0] ** 2 + ratio[1] ** 2)
    odd = ~np.isfinite(offset).all(axis=1, keepdims=True)
    odd = odd | (np.isnan(y) & np.isinf(x).any())  # infinity times a weight of 0, or left out
    return unspecified(Scale(magnitude, terms, Rule.COMPOSED, spread), odd)
