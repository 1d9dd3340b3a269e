"""Operators on blocked channels, which ONNX Runtime's layout optimiser makes on CPU (com.microsoft.nchwc).

A tensor of shape (N, C, D1, …, Dn) holds its elements in the order (N, C / b, D1, …, Dn, b): b channels side by side,
as wide as a vector register. A filter of shape (M, C, k1, …, kn) holds them as (M / b, C / b, k1, …, kn, b, b), input
channel before output channel, or as (M / b, C, k1, …, kn, b) where the input is not blocked or each channel is a group.
The optimiser pads channels with zeros up to a multiple of b.

No attribute names b: it is that of the machine on which the node runs, 16 with AVX-512 or on ARM, 8 elsewhere. A
channel count that is no multiple of 16 says 8; otherwise the machine that this runs on is asked. Where it is neither
x86-64 nor ARM, nodes are refused, and so UNJUDGED.

Spec: none is published; the layouts are those that the optimiser's reorderings define, which tests read from it.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ._elementwise import undetermined
from ._fused_activation import Stored
from .contrib_products import channels_last as moved_last
from .contrib_products import fused_conv, fused_conv_judged, fused_conv_products
from .pooling import average_pool, average_pool_scale, global_average_pool, global_max_pool, max_pool
from .registry import kernel, products, scale
from .resizing import resize, resize_scale
from .scale import Array, Rule, Scale, exact
from .storage import decode

NCHWC = "com.microsoft.nchwc"
WIDE, NARROW = 16, 8
"""Channels in a block: of 512 bits of float32, or of 256."""


@cache
def machine_block() -> int:
    """Channels in a block on this machine.

    Raises:
        InvalidInputError: it is neither x86-64 nor ARM.
    """
    machine = platform.machine().lower()
    if machine in ("arm64", "aarch64"):
        return WIDE
    if machine not in ("x86_64", "amd64"):
        raise InvalidInputError(f"blocked channels: the size of a block on {machine} is not known")
    try:
        from numpy._core._multiarray_umath import __cpu_features__  # noqa: PLC0415 (private: it may move)
    except ImportError as error:
        raise InvalidInputError("blocked channels: this NumPy does not say whether the machine has AVX-512") from error
    return WIDE if __cpu_features__.get("AVX512F") else NARROW


def _block(*channels: int) -> int:
    """Channels in a block of tensors that have so many.

    Raises:
        InvalidInputError: no multiples of 8, or another machine.
    """
    if any(count % NARROW for count in channels):
        raise InvalidInputError(f"blocked channels: {channels} are no multiples of {NARROW}")
    return NARROW if any(count % WIDE for count in channels) else machine_block()


def unblocked(x: Array, block: int) -> Array:
    """A tensor (N, C, D1, …, Dn) in blocked order, in the order of its shape."""
    N, C, *spatial = x.shape
    parts = x.reshape(N, C // block, *spatial, block)
    return np.moveaxis(parts, -1, 2).reshape(x.shape)


def blocked(x: Array, block: int) -> Array:
    """The inverse of `unblocked`."""
    N, C, *spatial = x.shape
    parts = x.reshape(N, C // block, block, *spatial)
    return np.ascontiguousarray(np.moveaxis(parts, 2, -1)).reshape(x.shape)


def unblocked_filter(w: Array, block: int, *, inputs_blocked: bool) -> Array:
    """A filter (M, C, k1, …, kn) in blocked order, in the order of its shape."""
    M, C, *sizes = w.shape
    if not inputs_blocked:
        parts = w.reshape(M // block, C, *sizes, block)
        return np.moveaxis(parts, -1, 1).reshape(w.shape)
    parts = w.reshape(M // block, C // block, *sizes, block, block)  # (…, input channel, output channel)
    return np.moveaxis(parts, (-1, -2), (1, 3)).reshape(w.shape)


def _plain(x: Array, w: Array, z: Array | None, group: int) -> tuple[Array, Array, Array | None, int]:
    """Input, filter and summand in the order of their shapes, and the size of a block.

    The input is blocked unless it has fewer channels than a block has; a filter has blocked inputs where the input is,
    except where each channel is a group of its own.
    """
    depthwise = group > 1 and w.shape[1] == 1
    block = _block(w.shape[0], *([x.shape[1]] if x.shape[1] >= WIDE else []))
    is_blocked = depthwise or w.shape[1] >= block
    image = unblocked(x, block) if is_blocked else x
    filters = unblocked_filter(w, block, inputs_blocked=is_blocked and not depthwise)
    return image, filters, None if z is None else unblocked(z, block), block


@kernel("Conv", since=1, domain=NCHWC, streams=True)
def nchwc_conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    z: Array | None = None,
    /,
    *,
    activation: str = "",
    activation_params: Sequence[float] | None = None,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    stored: Stored = (),
) -> Array:
    """FusedConv on blocked channels.

    Args:
        x: (N, C, D1, …, Dn), blocked, unless it has fewer channels than a block.
        w: (M, C / group, k1, …, kn), blocked as this module says.
        b: (M,) or None.
        z: like the output, added before the activation, or None.
        activation: as for FusedConv; so are all attributes.
        activation_params: see activation.
        auto_pad: see activation.
        dilations: see activation.
        group: see activation.
        kernel_shape: see activation.
        pads: see activation.
        strides: see activation.
        stored: dtypes of the inputs, for the scale.

    Returns:
        (N, M, o1, …, on), blocked.

    Raises:
        InvalidInputError: channels that no block divides.
    """
    image, filters, added, block = _plain(x, w, z, group)
    y = fused_conv(
        image,
        filters,
        b,
        added,
        activation=activation,
        activation_params=activation_params,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
        stored=stored,
    )
    return blocked(y, block)


@scale("Conv", since=1, domain=NCHWC)
def nchwc_conv_scale(
    _y: Array, x: Array, w: Array, b: Array | None = None, z: Array | None = None, /, **attributes: Any
) -> Scale:
    """COMPOSED, as FusedConv, in blocked order."""
    image, filters, added, block = _plain(x, w, z, attributes.get("group", 1))
    y, bound = fused_conv_judged(image, filters, b, added, **attributes)
    spread = None if bound.spread is None else blocked(np.broadcast_to(bound.spread, y.shape), block)
    return replace(bound, magnitude=blocked(bound.magnitude, block), spread=spread)


@products("Conv", since=1, domain=NCHWC)
def nchwc_conv_products(
    indices: Array, x: Array, w: Array, b: Array | None = None, z: Array | None = None, /, **attributes: Any
) -> Array:
    """The summands of each chosen element before the activation."""
    image, filters, added, block = _plain(x, w, z, attributes.get("group", 1))
    shape = fused_conv(image, filters, b, added, **attributes).shape
    order = blocked(np.arange(math.prod(shape)).reshape(shape), block)
    return fused_conv_products(order.reshape(-1)[indices], image, filters, b, added, **attributes)


def nchwc_max_scale(y: Array, _x: Array, /, **_attributes: object) -> Scale:
    """Exact, but open in a window that holds a NaN, of which the spec of MaxPool says nothing."""
    return undetermined(np.isnan(y))


@kernel("MaxPool", since=1, domain=NCHWC, scale=nchwc_max_scale)
def nchwc_max_pool(
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
) -> Array:
    """MaxPool on blocked channels; storage_order means nothing where no indices are asked for."""
    del storage_order
    block = _block(x.shape[1])
    pooled = max_pool(
        unblocked(x, block),
        kernel_shape=kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        dilations=dilations,
        pads=pads,
        strides=strides,
    )
    return blocked(pooled, block)  # type: ignore[arg-type]


@kernel("AveragePool", since=1, domain=NCHWC)
def nchwc_average_pool(
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
    """AveragePool on blocked channels."""
    block = _block(x.shape[1])
    pooled = average_pool(
        unblocked(x, block),
        kernel_shape=kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        dilations=dilations,
        pads=pads,
        strides=strides,
    )
    return blocked(pooled, block)


@scale("AveragePool", since=1, domain=NCHWC)
def nchwc_average_pool_scale(y: Array, x: Array, /, **attributes: Any) -> Scale:
    """DOT, as AveragePool, in blocked order."""
    block = _block(x.shape[1])
    bound = average_pool_scale(y, unblocked(x, block), **attributes)
    terms = bound.terms if np.ndim(bound.terms) == 0 else blocked(np.asarray(bound.terms), block)
    return replace(bound, magnitude=blocked(bound.magnitude, block), terms=terms)


@kernel("GlobalMaxPool", since=1, domain=NCHWC, scale=nchwc_max_scale)
def nchwc_global_max_pool(x: Array, /) -> Array:
    """GlobalMaxPool on blocked channels: a block of single elements is in order."""
    return global_max_pool(unblocked(x, _block(x.shape[1])))


def nchwc_global_average_pool_scale(_y: Array, x: Array, /) -> Scale:
    """DOT: a sum over all spatial elements, and the division."""
    image = np.abs(unblocked(x, _block(x.shape[1])))
    return Scale(global_average_pool(image), math.prod(x.shape[2:]) + 1, Rule.DOT)


@kernel("GlobalAveragePool", since=1, domain=NCHWC, scale=nchwc_global_average_pool_scale)
def nchwc_global_average_pool(x: Array, /) -> Array:
    """GlobalAveragePool on blocked channels: a block of single elements is in order."""
    return global_average_pool(unblocked(x, _block(x.shape[1])))


@kernel("ReorderInput", since=1, domain=NCHWC, scale=exact)
def reorder_input(x: Array, /, *, channels_last: int = 0) -> Array:
    """(N, C, D1, …, Dn), or (N, D1, …, Dn, C) with channels_last, in blocked order, C filled up with zeros."""
    image = np.moveaxis(x, -1, 1) if channels_last else x
    block = machine_block()
    widths = [(0, 0), (0, -image.shape[1] % block), *[(0, 0)] * (image.ndim - 2)]
    return blocked(np.pad(image, widths), block)


@kernel("ReorderOutput", since=1, domain=NCHWC, scale=exact)
def reorder_output(x: Array, /, *, channels: int = 0, channels_last: int = 0) -> Array:
    """The first `channels` of blocked ones in the order of their shape, or last with channels_last."""
    image = unblocked(x, _block(x.shape[1]))
    image = image[:, :channels] if channels else image
    return moved_last(image) if channels_last else image


@kernel("Upsample", since=1, domain=NCHWC)
def nchwc_upsample(
    x: Array,
    /,
    *,
    scales: Sequence[int],
    mode: str = "nearest",
    coordinate_transformation_mode: str = "asymmetric",
) -> Array:
    """Resize by whole factors on blocked channels.

    Args:
        x: (N, C, H, W), blocked.
        scales: of all four dimensions; of N and C they are 1.
        mode: nearest or linear.
        coordinate_transformation_mode: as for Resize.
    """
    block = _block(x.shape[1])
    return blocked(
        resize(*_resized(x, block, scales), **_resize_attributes(mode, coordinate_transformation_mode)), block
    )


def _resized(x: Array, block: int, scales: Sequence[int]) -> tuple[Array, None, Array]:
    return decode(unblocked(x, block)), None, np.asarray(scales, np.float64)


def _resize_attributes(mode: str, transformation: str) -> dict[str, Any]:
    return {"mode": mode, "coordinate_transformation_mode": transformation, "nearest_mode": "floor"}


@scale("Upsample", since=1, domain=NCHWC)
def nchwc_upsample_scale(
    y: Array,
    x: Array,
    /,
    *,
    scales: Sequence[int],
    mode: str = "nearest",
    coordinate_transformation_mode: str = "asymmetric",
) -> Scale:
    """COMPOSED, as Resize, in blocked order."""
    block = _block(x.shape[1])
    attributes = _resize_attributes(mode, coordinate_transformation_mode)
    bound = resize_scale(unblocked(y, block), *_resized(x, block, scales), **attributes)
    if np.ndim(bound.magnitude) == 0:
        return bound
    terms = bound.terms if np.ndim(bound.terms) == 0 else blocked(np.broadcast_to(bound.terms, y.shape), block)
    return replace(bound, magnitude=blocked(np.broadcast_to(bound.magnitude, y.shape), block), terms=terms)
