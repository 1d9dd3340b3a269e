"""Conv and ConvTranspose of any spatial rank: tiled im2col and matrix products."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._contraction import BLOCK_ELEMENTS, MAGNITUDE, VALUE, DType, Pass, converted, magnitude
from ._windows import output_shape, resolve_pads
from .mapped import give_back_array
from .parallel import for_each
from .registry import judged, kernel, products, scale
from .scale import Array, Rule, Scale
from .storage import decode

TILE_ELEMENTS = 1 << 20
"""Elements of one im2col tile, 8 MiB in float64: larger products gain more than the cache loses, as measured."""


FEW_WINDOWS = 32
"""Windows up to which a large weight is better converted block by block than whole, as measured."""


@dataclass(frozen=True)
class Geometry:
    """Sizes of one convolution, all lists one entry per spatial axis."""

    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    out: tuple[int, ...]

    def offsets(self) -> Iterator[tuple[int, ...]]:
        """Positions in the kernel, in row-major order."""
        return itertools.product(*(range(size) for size in self.kernel_shape))

    def slices(self, offset: Sequence[int], start: int = 0, stop: int | None = None) -> tuple[slice, ...]:
        """Where the padded input meets a kernel position, for output rows start:stop of the first spatial axis."""
        found = []
        for axis, position in enumerate(offset):
            low, high = (start, self.out[0] if stop is None else stop) if axis == 0 else (0, self.out[axis])
            first = position * self.dilations[axis] + low * self.strides[axis]
            found.append(slice(first, first + (high - low - 1) * self.strides[axis] + 1, self.strides[axis]))
        return tuple(found)


def _geometry(
    x: Array,
    w: Array,
    auto_pad: str,
    dilations: Sequence[int] | None,
    kernel_shape: Sequence[int] | None,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
) -> Geometry:
    rank = x.ndim - 2
    sizes = tuple(w.shape[2:])
    if kernel_shape is not None and tuple(kernel_shape) != sizes:
        raise InvalidAttributeError(f"Conv: kernel_shape={list(kernel_shape)}, but the weight has {list(sizes)}")
    steps = (1,) * rank if strides is None else tuple(strides)
    spread = (1,) * rank if dilations is None else tuple(dilations)
    begin, end = resolve_pads(auto_pad, pads, x.shape[2:], sizes, steps, spread)
    out = output_shape(x.shape[2:], sizes, steps, spread, begin, end)
    return Geometry(sizes, steps, spread, tuple(begin), tuple(end), tuple(out))


def check_channels(op_type: str, x: Array, w: Array, group: int) -> None:
    if x.ndim < 2 or w.ndim != x.ndim:
        raise InvalidInputError(f"{op_type}: input of shape {x.shape} does not go with a weight of shape {w.shape}")
    channels, weight = (w.shape[1] * group, w.shape[0]) if op_type == "Conv" else (w.shape[0], w.shape[0])
    if x.shape[1] != channels or weight % group:
        raise InvalidInputError(
            f"{op_type}: input of shape {x.shape} and weight of shape {w.shape} do not go with group={group}"
        )


def _padded(x: Array, geometry: Geometry, precision: DType) -> Array:
    """Zero-padded copy (…, *spatial) in `precision`; negative padding crops."""
    rank = len(geometry.out)
    crop = tuple(
        slice(max(0, -low), size - max(0, -high) if high < 0 else None)
        for low, high, size in zip(geometry.begin, geometry.end, x.shape[x.ndim - rank :], strict=True)
    )
    x = x[(..., *crop)]
    widths = [(max(0, low), max(0, high)) for low, high in zip(geometry.begin, geometry.end, strict=True)]
    if not any(map(any, widths)):
        return x.astype(precision, copy=False)
    lead = x.shape[: x.ndim - rank]
    sizes = [size + low + high for size, (low, high) in zip(x.shape[x.ndim - rank :], widths, strict=True)]
    out = np.zeros((*lead, *sizes), precision)
    inner = tuple(slice(low, low + size) for size, (low, _) in zip(x.shape[x.ndim - rank :], widths, strict=True))
    out[(..., *inner)] = x
    return out


def convolve(x: Array, w: Array, geometry: Geometry, group: int, passes: Sequence[Pass]) -> list[Array]:
    """Cross-correlation without bias, once per pass: (N, C, *D) and (M, C/group, *kernel) -> (N, M, *out)."""
    N, M = x.shape[0], w.shape[0]
    y = [np.zeros((N, M, *geometry.out), single.precision) for single in passes]
    if y[0].size == 0 or w[0].size == 0:
        return y
    windows = N * math.prod(geometry.out)
    if geometry.out and group == 1 and w.size > BLOCK_ELEMENTS and windows <= FEW_WINDOWS:
        _by_filters(x, w, geometry, passes, y)
        return y
    weights = [converted(w, single).reshape(group, M // group, *w.shape[1:]) for single in passes]
    few_channels = group > 1 and w.shape[1] * (M // group) <= MOST_DEPTHWISE_PRODUCTS
    for n in range(N):
        image = _padded(x[n], geometry, x.dtype)
        image = image.reshape(group, -1, *image.shape[1:])
        outputs = [part[n].reshape(group, M // group, *geometry.out) for part in y]
        if few_channels:
            for single, weight, out in zip(passes, weights, outputs, strict=True):
                _depthwise(single.of(image), weight, geometry, out)
        else:
            for g in range(group):
                _by_tiles(image[g], passes, [weight[g] for weight in weights], geometry, [out[g] for out in outputs])
    return y


MOST_DEPTHWISE_PRODUCTS = 4
"""Channels in times channels out of a group, up to which adding one kernel position at a time is faster."""


def _by_filters(x: Array, w: Array, geometry: Geometry, passes: Sequence[Pass], outputs: Sequence[Array]) -> None:
    """Few windows and many filters: gather all windows at once and convert the filters block by block, never whole."""
    images = (_padded(image, geometry, x.dtype) for image in x)
    columns = np.concatenate([_gathered(image, geometry, 0, math.prod(geometry.out[:1])) for image in images], axis=1)
    operands = [single.of(columns) for single in passes]
    filters = w.reshape(len(w), -1)

    def block(chosen: slice) -> None:
        part = filters[chosen]
        for single, windows, out in zip(passes, operands, outputs, strict=True):
            values = single.of(part) @ windows
            out[:, chosen] = values.reshape(len(part), len(x), *geometry.out).swapaxes(0, 1)
        give_back_array(part)

    step = max(1, BLOCK_ELEMENTS // filters.shape[1])
    for_each(block, [slice(start, start + step) for start in range(0, len(w), step)])


def _by_tiles(
    image: Array, passes: Sequence[Pass], weights: Sequence[Array], geometry: Geometry, outputs: Sequence[Array]
) -> None:
    """One group: gather the windows of a few output rows (im2col) once, multiply and store once per pass."""
    matrices = [w.reshape(len(w), -1) for w in weights]
    if not geometry.out:
        for single, matrix, out in zip(passes, matrices, outputs, strict=True):
            out[...] = matrix @ single.of(image.reshape(-1))
        return
    row = len(image) * math.prod(geometry.kernel_shape) * math.prod(geometry.out[1:])
    rows = min(geometry.out[0], max(1, TILE_ELEMENTS // row))

    def tile(start: int) -> None:
        stop = min(start + rows, geometry.out[0])
        columns = _gathered(image, geometry, start, stop)
        for single, matrix, out in zip(passes, matrices, outputs, strict=True):
            out[:, start:stop] = (matrix @ single.of(columns)).reshape(len(out), stop - start, *geometry.out[1:])

    for_each(tile, range(0, geometry.out[0], rows))


def _gathered(image: Array, geometry: Geometry, start: int, stop: int) -> Array:
    """The windows of output rows start:stop as columns: (C / group · prod(kernel_shape), windows)."""
    if math.prod(geometry.kernel_shape) == 1:
        part = image[(slice(None), *geometry.slices((0,) * len(geometry.out), start, stop))]
        return part.reshape(len(image), -1)
    part = np.empty((len(image), *geometry.kernel_shape, stop - start, *geometry.out[1:]), image.dtype)
    for offset in geometry.offsets():
        part[(slice(None), *offset)] = image[(slice(None), *geometry.slices(offset, start, stop))]
    return part.reshape(len(image) * math.prod(geometry.kernel_shape), -1)


def _depthwise(image: Array, w: Array, geometry: Geometry, out: Array) -> None:
    """Few channels a group: add one kernel position at a time over all groups."""
    blank = (None,) * len(geometry.out)
    for offset in geometry.offsets():
        window = image[(slice(None), slice(None), *geometry.slices(offset))]
        for channel in range(w.shape[2]):
            factor = w[(slice(None), slice(None), channel, *offset)]
            out += factor[(..., *blank)] * window[:, channel][:, None]


def with_bias(y: Array, b: Array | None) -> Array:
    if b is not None:
        y += decode(b).astype(y.dtype, copy=False).reshape(-1, *(1,) * (y.ndim - 2))
    return y


@kernel("Conv", since=1, linear_in=(0, 1), streams=True)
def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    /,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    precision: DType = np.float64,
) -> Array:
    """Cross-correlate `x` with the filters `w`.

    Args:
        x: (N, C, D1, …, Dn).
        w: (M, C / group, k1, …, kn).
        b: (M,) or None.
        auto_pad: NOTSET, VALID, SAME_UPPER or SAME_LOWER.
        dilations: per spatial axis, 1 by default; so are `strides`.
        group: number of groups that input and output channels are divided into.
        kernel_shape: if given, the spatial shape of `w`.
        pads: beginnings, then ends; 0 by default.
        strides: step of the window.
        precision: float64, or float32 for a deviation.

    Returns:
        (N, M, o1, …, on).

    Raises:
        InvalidInputError: channels that do not go with `group`.
        InvalidAttributeError: lists of the wrong length.

    Spec: Conv, since 1
    """
    check_channels("Conv", x, w, group)
    geometry = _geometry(x, w, auto_pad, dilations, kernel_shape, pads, strides)
    return with_bias(convolve(x, w, geometry, group, (Pass(precision),))[0], b)


@scale("Conv", since=1)
def conv_scale(
    y: Array,
    x: Array,
    w: Array,
    b: Array | None = None,
    /,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Scale:
    """DOT: the same convolution of absolute values; C / group · prod(kernel_shape) products, one more for a bias."""
    geometry = _geometry(x, w, auto_pad, dilations, kernel_shape, pads, strides)
    return _conv_bound(x, w, b, geometry, group)


def _conv_bound(
    x: Array, w: Array, b: Array | None, geometry: Geometry, group: int, known: Array | None = None
) -> Scale:
    def compute(single: Pass) -> Array:
        return convolve(x, w, geometry, group, (single,))[0]

    size = with_bias(magnitude(compute, (x, w), known=known), None if b is None else np.abs(b))
    return Scale(size, math.prod(w.shape[1:]) + (b is not None), Rule.DOT)


@judged("Conv", since=1)
def conv_judged(
    x: Array,
    w: Array,
    b: Array | None = None,
    /,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> tuple[Array, Scale]:
    """Value and magnitude with the windows gathered once."""
    check_channels("Conv", x, w, group)
    geometry = _geometry(x, w, auto_pad, dilations, kernel_shape, pads, strides)
    y, size = convolve(x, w, geometry, group, (VALUE, MAGNITUDE))
    return with_bias(y, b), _conv_bound(x, w, b, geometry, group, size)


@products("Conv", since=1)
def conv_products(
    indices: Array,
    x: Array,
    w: Array,
    b: Array | None = None,
    /,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """The C / group · prod(kernel_shape) products (and the bias) of each chosen output element."""
    geometry = _geometry(x, w, auto_pad, dilations, kernel_shape, pads, strides)
    n, m, *where = np.unravel_index(indices, (x.shape[0], w.shape[0], *geometry.out))
    per_group = w.shape[1]
    channels = (m // (w.shape[0] // group))[:, None] * per_group + np.arange(per_group)  # (n, C / group)
    padded = _padded(x, geometry, np.float64)
    terms = [
        padded[(n[:, None], channels, *_positions(where, offset, geometry))] * decode(w)[(m, slice(None), *offset)]
        for offset in geometry.offsets()
    ]
    if b is not None:
        terms.append(decode(b)[m][:, None])
    return np.concatenate(terms, axis=1) if terms else np.zeros((len(indices), 0))


def _positions(where: Sequence[Array], offset: Sequence[int], geometry: Geometry) -> Iterator[Array]:
    for axis, position in enumerate(offset):
        yield (where[axis] * geometry.strides[axis] + position * geometry.dilations[axis])[:, None]
