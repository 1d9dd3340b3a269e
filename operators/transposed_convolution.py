"""ConvTranspose of any spatial rank: one matrix product for each kernel position, added where it lies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ._contraction import DType, Pass, magnitude
from ._spilling import unspecified
from .convolution import check_channels, with_bias
from .registry import kernel, scale
from .scale import Array, Rule, Scale


@dataclass(frozen=True)
class TransposedGeometry:
    """Sizes of one transposed convolution: the full output before cropping, what is cropped, the result."""

    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    full: tuple[int, ...]
    begin: tuple[int, ...]
    out: tuple[int, ...]


def _transposed_geometry(
    x: Array,
    w: Array,
    auto_pad: str,
    dilations: Sequence[int] | None,
    output_padding: Sequence[int] | None,
    wanted: Sequence[int] | None,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
) -> TransposedGeometry:
    """Spec: ConvTranspose; total_padding = stride·(D − 1) + output_padding + dilated kernel − output_shape."""
    rank = x.ndim - 2
    sizes = w.shape[2:]
    steps = (1,) * rank if strides is None else tuple(strides)
    spread = (1,) * rank if dilations is None else tuple(dilations)
    extra = (0,) * rank if output_padding is None else tuple(output_padding)
    natural = [steps[i] * (x.shape[2 + i] - 1) + (sizes[i] - 1) * spread[i] + 1 for i in range(rank)]
    full = [natural[i] + extra[i] for i in range(rank)]
    if wanted is not None and len(wanted) > 0:
        wanted = list(wanted)[-rank:]
    elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [x.shape[2 + i] * steps[i] for i in range(rank)]
    else:
        both = [0] * 2 * rank if pads is None or auto_pad == "VALID" else list(pads)
        out = [full[i] - both[i] - both[rank + i] for i in range(rank)]
        return TransposedGeometry(tuple(sizes), steps, spread, tuple(full), tuple(both[:rank]), tuple(out))
    totals = [full[i] - wanted[i] for i in range(rank)]
    # The larger half of an odd total goes to the beginning unless auto_pad is SAME_UPPER (spec text of ConvTranspose).
    begin = [total // 2 if auto_pad == "SAME_UPPER" else total - total // 2 for total in totals]
    return TransposedGeometry(tuple(sizes), steps, spread, tuple(full), tuple(begin), tuple(wanted))


def convolve_transposed(x: Array, w: Array, geometry: TransposedGeometry, group: int, precision: DType) -> Array:
    """Transposed convolution without bias: (N, C, *D) and (C, M/group, *kernel) -> (N, M, *out)."""
    N, C = x.shape[:2]
    per_group = w.shape[1]
    rank = len(geometry.out)
    full = np.zeros(
        (
            N,
            group,
            per_group,
            *(max(f, b + o) for f, b, o in zip(geometry.full, geometry.begin, geometry.out, strict=True)),
        ),
        precision,
    )
    images = x.reshape(N, group, C // group, -1).astype(precision, copy=False)
    weight = w.reshape(group, C // group, per_group, *geometry.kernel_shape).astype(precision, copy=False)
    for offset in itertools.product(*(range(size) for size in geometry.kernel_shape)):
        part = np.matmul(weight[(..., *offset)].swapaxes(1, 2), images)  # (N, group, M / group, D)
        target = tuple(
            slice(p * d, p * d + (size - 1) * s + 1, s)
            for p, d, s, size in zip(offset, geometry.dilations, geometry.strides, x.shape[2:], strict=True)
        )
        full[(..., *target)] += part.reshape(N, group, per_group, *x.shape[2:])
    y = _window(full, geometry, rank)
    return y.reshape(N, group * per_group, *geometry.out)


def _window(full: Array, geometry: TransposedGeometry, rank: int) -> Array:
    """Cut the result out of the full output; a negative beginning means zeros before it."""
    low = [max(0, -b) for b in geometry.begin]
    if any(low):
        full = np.pad(full, [(0, 0)] * (full.ndim - rank) + [(p, p) for p in low])
    cut = tuple(slice(b + p, b + p + o) for b, p, o in zip(geometry.begin, low, geometry.out, strict=True))
    return np.ascontiguousarray(full[(..., *cut)])


@kernel("ConvTranspose", since=1, linear_in=(0, 1), streams=True)
def conv_transpose(
    x: Array,
    w: Array,
    b: Array | None = None,
    /,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    precision: DType = np.float64,
) -> Array:
    """Transposed convolution (deconvolution): every input element adds a scaled filter to the output.

    Args:
        x: (N, C, D1, …, Dn).
        w: (C, M / group, k1, …, kn).
        b: (M,) or None.
        auto_pad: NOTSET, VALID, SAME_UPPER or SAME_LOWER.
        dilations: per spatial axis, 1 by default; so are `strides`.
        group: number of groups.
        kernel_shape: if given, the spatial shape of `w`.
        output_padding: added to one side of the output, 0 by default.
        output_shape: the spatial sizes wanted; padding then follows from it.
        pads: beginnings, then ends, cut from the output.
        strides: distance of neighbouring input elements in the output.
        precision: float64, or float32 for a deviation.

    Returns:
        (N, M, o1, …, on).

    Raises:
        InvalidInputError: channels that do not go with `group`.

    Spec: ConvTranspose, since 1
    """
    check_channels("ConvTranspose", x, w, group)
    geometry = _transposed_geometry(x, w, auto_pad, dilations, output_padding, output_shape, pads, strides)
    return with_bias(convolve_transposed(x, w, geometry, group, precision), b)


@scale("ConvTranspose", since=1)
def conv_transpose_scale(
    y: Array,
    x: Array,
    w: Array,
    b: Array | None = None,
    /,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Scale:
    """DOT on absolute values; C / group · prod(ceil(kernel / stride)) products meet in one element at most."""
    geometry = _transposed_geometry(x, w, auto_pad, dilations, output_padding, output_shape, pads, strides)

    def compute(single: Pass) -> Array:
        return convolve_transposed(single.of(x), single.of(w), geometry, group, single.precision)

    size = magnitude(compute, (x, w))
    meets = math.prod(
        k if d > 1 else -(-k // s)
        for k, s, d in zip(geometry.kernel_shape, geometry.strides, geometry.dilations, strict=True)
    )
    bias = None if b is None else np.abs(b)
    found = Scale(with_bias(size, bias), x.shape[1] // group * meets + (b is not None), Rule.DOT)
    if min(geometry.begin, default=0) >= 0:
        return found
    # `output_shape` asks for more than there is: whether padding may be negative, or is 0 then, the text does not say.
    unpadded = replace(geometry, begin=tuple(max(begin, 0) for begin in geometry.begin))
    other = with_bias(convolve_transposed(x, w, unpadded, group, np.float64), b)
    return found if auto_pad == "NOTSET" and not output_shape else unspecified(found, other != y)
