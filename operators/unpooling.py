"""Inverses of windows: MaxUnpool puts elements back where they were, Col2Im adds blocks back into their image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ._elementwise import undetermined
from ._windows import output_shape, resolve_pads
from .registry import kernel, scale
from .scale import Array, Rule, Scale


def _unpooled_sizes(
    x: Array, kernel_shape: Sequence[int], pads: Sequence[int] | None, strides: Sequence[int] | None
) -> list[int]:
    """(D − 1)·stride + kernel − pads along every spatial axis."""
    ones = (1,) * len(kernel_shape)
    steps = ones if strides is None else strides
    begin, end = resolve_pads("NOTSET", pads, x.shape[2:], kernel_shape, steps, ones)
    return [
        (size - 1) * step + taps - before - after
        for size, step, taps, before, after in zip(x.shape[2:], steps, kernel_shape, begin, end, strict=True)
    ]


def _placed(x: Array, indices: Array, shape: Sequence[int]) -> Array:
    """Zeros of a shape, with every element of `x` at its flat index.

    Raises:
        InvalidInputError: an index outside.
    """
    y, at = np.zeros(tuple(shape), x.dtype), indices.reshape(-1)
    if at.size and not 0 <= at.min() <= at.max() < y.size:
        raise InvalidInputError(f"MaxUnpool: indices {at.min()} to {at.max()} in a tensor of {y.size} elements")
    y.reshape(-1)[at] = x.reshape(-1)
    return y


def max_unpool_scale(
    y: Array,
    x: Array,
    indices: Array,
    output_shape: Array | None = None,
    /,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Scale:
    """Exact. Open where different elements have one index; and with `output_shape` where indices count in the tensor of
    that shape, which the text may mean as well, and give another element."""
    sizes = [*x.shape[:2], *_unpooled_sizes(x, kernel_shape, pads, strides)]
    if indices.max(initial=0) >= math.prod(sizes):
        sizes = list(y.shape)
    flat, at = x.reshape(-1), indices.reshape(-1)
    contested = np.zeros(math.prod(sizes), bool)
    np.logical_or.at(contested, at, flat != _placed(x, indices, sizes).reshape(-1)[at])
    unknown = np.zeros(y.shape, bool)
    unknown[tuple(map(slice, sizes))] = contested.reshape(sizes)
    if output_shape is not None and y.shape != tuple(sizes):
        unknown |= _placed(x, indices, y.shape) != y
    return undetermined(unknown)


@kernel("MaxUnpool", since=9, scale=max_unpool_scale)
def max_unpool(
    x: Array,
    indices: Array,
    output_shape: Array | None = None,
    /,
    *,
    kernel_shape: Sequence[int],
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Zeros, with every element of `x` at its index: the inverse of MaxPool as far as there is one.

    Args:
        x: (N, C, D1, …, Dn).
        indices: same shape, int64, flat in a tensor of the sizes (D − 1)·stride + kernel − pads.
        output_shape: (n + 2,) int64; a larger output keeps that tensor in its first corner, unless the indices go
            beyond it: then they are flat in the output.

    Raises:
        InvalidInputError: `output_shape` is smaller than those sizes, or an index is outside.

    Spec: MaxUnpool, since 9, 11 and 22
    """
    sizes = (*x.shape[:2], *_unpooled_sizes(x, kernel_shape, pads, strides))
    if output_shape is not None and indices.max(initial=0) >= math.prod(sizes):
        return _placed(x, indices, [int(size) for size in output_shape])
    y = _placed(x, indices, sizes)
    if output_shape is None:
        return y
    room = [int(wanted) - size for wanted, size in zip(output_shape, y.shape, strict=True)]
    if min(room) < 0:
        raise InvalidInputError(f"MaxUnpool: output_shape={output_shape.tolist()} is smaller than {y.shape}")
    return np.pad(y, [(0, spare) for spare in room])


@kernel("Col2Im", since=18, linear_in=(0,))
def col2im(
    x: Array,
    image_shape: Array,
    block_shape: Array,
    /,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Add sliding blocks back into the image that they were cut from.

    Args:
        x: (N, C · prod(block_shape), L), L blocks in row-major order.
        image_shape: (n,) int64.
        block_shape: (n,) int64, before dilation.

    Returns:
        (N, C, *image_shape): every pixel the sum of the block elements that cover it.

    Raises:
        InvalidInputError: L is not the number of blocks that fit.

    Spec: Col2Im, since 18
    """
    image, block = [int(size) for size in image_shape], [int(size) for size in block_shape]
    steps = [1] * len(image) if strides is None else list(strides)
    spread = [1] * len(image) if dilations is None else list(dilations)
    begin, end = resolve_pads("NOTSET", pads, image, block, steps, spread)
    counts = output_shape(image, block, steps, spread, begin, end)
    if x.shape[2] != math.prod(counts):
        raise InvalidInputError(f"Col2Im: {x.shape[2]} blocks, {counts} fit on an image of {image}")
    columns = x.reshape(x.shape[0], -1, math.prod(block), *counts)
    canvas = np.zeros((*columns.shape[:2], *np.add(image, np.add(begin, end))), x.dtype)
    for column, offsets in enumerate(product(*map(range, block))):
        runs = (
            slice(offset * wide, offset * wide + (count - 1) * step + 1, step)
            for offset, wide, count, step in zip(offsets, spread, counts, steps, strict=True)
        )
        canvas[:, :, *runs] += columns[:, :, column]
    return canvas[:, :, *(slice(before, before + size) for before, size in zip(begin, image, strict=True))]


@scale("Col2Im", since=18)
def col2im_scale(y: Array, x: Array, image_shape: Array, block_shape: Array, /, **attributes: Any) -> Scale:
    """A sum over the blocks that cover a pixel: DOT, with as many terms as the most covered pixel has blocks."""
    if y.dtype.kind != "f":
        return Scale(np.zeros(()), 0, Rule.EXACT)
    cover = col2im(np.ones((1, *x.shape[1:])), image_shape, block_shape, **attributes)
    return Scale(col2im(np.abs(x), image_shape, block_shape, **attributes), cover.max(initial=0), Rule.DOT)
