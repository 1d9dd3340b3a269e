"""Convolutions and pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...operators.storage import is_float
from .drawing import Draw, NodeCall
from .registry import strategy
from .values import ORDERED, SUMMED

DIMS = (4, 3, 5, 2, 1, 6, 7, 8, 9, 11, 16)


class Windows:
    """Attributes of windows over `rank` spatial axes such that every output size is at least 1.

    Args:
        d: draws.
        rank: spatial axes.
        dilated: whether the operator has dilations.
        padded_below_kernel: pads stay smaller than the kernel, so that every window sees an element.
    """

    def __init__(self, d: Draw, rank: int, *, dilated: bool = True, padded_below_kernel: bool = True) -> None:
        self.rank = rank
        self.kernel = [d.choice((3, 1, 2, 4, 5)) for _ in range(rank)]
        self.strides = [d.choice((1, 2, 3)) for _ in range(rank)] if d.boolean() else None
        self.dilations = [d.choice((1, 2, 3)) for _ in range(rank)] if dilated and d.boolean() else None
        self.auto_pad = d.choice(("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")) if d.rarely(3) else None
        extent = [(k - 1) * s + 1 for k, s in zip(self.kernel, self.dilations or [1] * rank, strict=True)]
        most = [k - 1 for k in self.kernel] if padded_below_kernel else [e + 1 for e in extent]
        self.pads = None
        if self.auto_pad in (None, "NOTSET") and d.boolean():
            self.pads = [d.integer(0, limit) for limit in most * 2]
        padding = self.pads or [0] * 2 * rank
        # A window has room in the image itself: then none lies in the padding alone, whatever the dilation.
        least = [max(1, e if padded_below_kernel else e - a - b) for e, a, b in
                 zip(extent, padding[:rank], padding[rank:], strict=True)]  # fmt: skip
        self.image = tuple(n + d.choice((0, 1, 2, 3, 4, 6, 9)) for n in least)

    def attributes(self) -> dict[str, Any]:
        found = {"strides": self.strides, "dilations": self.dilations, "auto_pad": self.auto_pad, "pads": self.pads}
        return {name: value for name, value in found.items() if value is not None}


@strategy("Conv")
def conv(d: Draw) -> NodeCall:
    dtype = d.dtype()
    windows = Windows(d, d.choice((2, 1, 3)), padded_below_kernel=False)
    group = d.choice((1, 1, 2, 3, 4))
    n, c, m = d.choice((1, 2, 3)), group * d.choice((1, 2, 3, 4, 8)), group * d.choice((1, 2, 3, 5, 8, 16))
    x = d.tensor((n, c, *windows.image), dtype, SUMMED)
    w = d.tensor((m, c // group, *windows.kernel), dtype, SUMMED)
    b = d.tensor((m,), dtype, SUMMED) if d.boolean() else None
    attributes = windows.attributes()
    if group > 1 or d.boolean():
        attributes["group"] = group
    if d.boolean():
        attributes["kernel_shape"] = windows.kernel
    return d.call([x, w, b], attributes, parameters=(1, 2))


@strategy("ConvInteger")
def conv_integer(d: Draw) -> NodeCall:
    x_type, w_type = d.dtype("T1"), d.dtype("T2")
    windows = Windows(d, d.choice((2, 1, 3)), padded_below_kernel=False)
    group = d.choice((1, 1, 2, 3))
    c, m = group * d.choice((1, 2, 3)), group * d.choice((1, 2, 3, 5))
    x = d.tensor((d.choice((1, 2)), c, *windows.image), x_type, ("wide", "small"))
    w = d.tensor((m, c // group, *windows.kernel), w_type, ("wide", "small"))
    x_zero = d.tensor((), x_type, ("small", "wide")) if d.boolean() else None
    w_zero = d.tensor(d.choice(((), (m,))), w_type, ("small", "wide")) if d.boolean() else None
    attributes = {**windows.attributes(), "group": group}
    return d.call([x, w, x_zero, w_zero], attributes, parameters=(1, 2, 3))


@strategy("QLinearConv")
def qlinear_conv(d: Draw) -> NodeCall:
    x_type, w_type, y_type = d.dtype("T1"), d.dtype("T2"), d.dtype("T3")
    windows = Windows(d, d.choice((2, 1, 3)), padded_below_kernel=False)
    group = d.choice((1, 1, 2, 3))
    c, m = group * d.choice((1, 2, 3)), group * d.choice((1, 2, 3, 5))
    per_channel = d.boolean()
    shape = (m,) if per_channel else ()
    x = d.tensor((d.choice((1, 2)), c, *windows.image), x_type, ("wide", "small"))
    w = d.tensor((m, c // group, *windows.kernel), w_type, ("wide", "small"))
    scales = [d.tensor(s, np.float32, ("positive",)) for s in ((), shape, ())]
    zeros = [d.tensor(s, t, ("small", "wide")) for s, t in (((), x_type), ((), w_type), ((), y_type))]
    # A weight's zero point per channel is one value: some backends take no other, and the spec lets them differ.
    w_zero = np.broadcast_to(zeros[1], shape).copy()
    b = d.tensor((m,), np.int32, ("small", "normal")) if d.boolean() else None
    y_scale = np.float32(64) * scales[2]
    inputs = [x, scales[0], zeros[0], w, scales[1], w_zero, np.asarray(y_scale, np.float32), zeros[2], b]
    attributes = {**windows.attributes(), "group": group}
    return d.call(inputs, attributes, outputs=(y_type,), parameters=tuple(range(1, 9)))


@strategy("ConvTranspose")
def conv_transpose(d: Draw) -> NodeCall:
    dtype = d.dtype()
    rank = d.choice((2, 1, 3))
    group = d.choice((1, 1, 2, 3))
    n, c, m = d.choice((1, 2)), group * d.choice((1, 2, 3)), d.choice((1, 2, 3, 5))
    kernel = [d.choice((3, 1, 2, 4)) for _ in range(rank)]
    image = tuple(d.choice((3, 2, 1, 4, 5, 7)) for _ in range(rank))
    strides = [d.choice((1, 2, 3)) for _ in range(rank)]
    dilations = [d.choice((1, 1, 2, 3)) for _ in range(rank)]
    extent = [(k - 1) * s + 1 for k, s in zip(kernel, dilations, strict=True)]
    full = [(i - 1) * s + e for i, s, e in zip(image, strides, extent, strict=True)]
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilations, "group": group}
    mode = d.choice(("none", "pads", "auto_pad", "output_shape", "output_padding"))
    if mode == "pads":
        begin = [d.integer(0, (n - 1) // 2) for n in full]
        end = [d.integer(0, (n - 1) // 2) for n in full]
        attributes["pads"] = begin + end
    elif mode == "auto_pad":
        # SAME asks for input · stride outputs: where that is more than there are, the pads would be negative.
        fits = all(i * s <= f for i, s, f in zip(image, strides, full, strict=True))
        attributes["auto_pad"] = d.choice(("VALID", "SAME_UPPER", "SAME_LOWER") if fits else ("VALID",))
    elif mode == "output_shape":
        attributes["output_shape"] = [n - d.integer(0, min(n - 1, 3)) for n in full]
        if d.boolean():
            attributes["auto_pad"] = d.choice(("SAME_UPPER", "SAME_LOWER"))
    elif mode == "output_padding":
        attributes["output_padding"] = [d.integer(0, s - 1) for s in strides]
    if d.boolean():
        attributes["kernel_shape"] = kernel
    x = d.tensor((n, c, *image), dtype, SUMMED)
    w = d.tensor((c, m, *kernel), dtype, SUMMED)
    b = d.tensor((m * group,), dtype, SUMMED) if d.boolean() else None
    return d.call([x, w, b], attributes, parameters=(1, 2))


@strategy("DeformConv")
def deform_conv(d: Draw) -> NodeCall:
    dtype = d.dtype()
    windows = Windows(d, 2, padded_below_kernel=False)
    windows.auto_pad = None
    strides, dilations = windows.strides or [1, 1], windows.dilations or [1, 1]
    pads = windows.pads or [0, 0, 0, 0]
    out = [
        (n + a + b - ((k - 1) * r + 1)) // s + 1
        for n, a, b, k, r, s in zip(windows.image, pads[:2], pads[2:], windows.kernel, dilations, strides, strict=True)
    ]
    group, offset_group = d.choice((1, 2)), d.choice((1, 2))
    n, c, m = d.choice((1, 2)), group * offset_group * d.choice((1, 2)), group * d.choice((1, 2, 3))
    taps = int(np.prod(windows.kernel))
    x = d.tensor((n, c, *windows.image), dtype, SUMMED)
    w = d.tensor((m, c // group, *windows.kernel), dtype, SUMMED)
    # Sampling points are kept off the whole numbers, where rounding decides which pixels are asked.
    offset = (np.floor(d.tensor((n, offset_group * taps * 2, *out), np.float64, ("normal",)) * 2) / 2 + 0.25).astype(
        dtype
    )
    b = d.tensor((m,), dtype, SUMMED) if d.boolean() else None
    mask = d.tensor((n, offset_group * taps, *out), dtype, ("unit", "constant")) if d.boolean() else None
    attributes = {**windows.attributes(), "group": group, "offset_group": offset_group, "pads": pads}
    return d.call([x, w, offset, b, mask], attributes, parameters=(1,))


def _pool(
    d: Draw, patterns: tuple[str, ...], *, dilated: bool, ceil: bool, dtype: np.dtype[Any]
) -> tuple[Any, dict[str, Any]]:
    windows = Windows(d, d.choice((2, 1, 3)), dilated=dilated)
    x = d.tensor((d.choice((1, 2)), d.choice((1, 2, 3, 5)), *windows.image), dtype, patterns)
    attributes = {**windows.attributes(), "kernel_shape": windows.kernel}
    if ceil and windows.auto_pad in (None, "NOTSET") and d.boolean():
        attributes["ceil_mode"] = d.integer(0, 1)
    return x, attributes


@strategy("MaxPool")
def max_pool(d: Draw) -> NodeCall:
    dtype = d.dtype()
    x, attributes = _pool(d, ORDERED, dilated=d.opset >= 10, ceil=d.opset >= 10, dtype=dtype)
    if d.boolean():
        return d.call([x], attributes)
    attributes |= d.attributes(storage_order=lambda: d.integer(0, 1))
    return d.call([x], attributes, outputs=(dtype, np.dtype(np.int64)))


@strategy("AveragePool")
def average_pool(d: Draw) -> NodeCall:
    x, attributes = _pool(d, SUMMED, dilated=d.opset >= 19, ceil=d.opset >= 10, dtype=d.dtype())
    attributes |= d.attributes(count_include_pad=lambda: d.integer(0, 1))
    return d.call([x], attributes)


@strategy("LpPool")
def lp_pool(d: Draw) -> NodeCall:
    x, attributes = _pool(d, ("small", "normal", "unit"), dilated=d.opset >= 18, ceil=d.opset >= 18, dtype=d.dtype())
    attributes |= d.attributes(p=lambda: d.integer(1, 4))
    return d.call([x], attributes)


@strategy("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(d: Draw) -> NodeCall:
    shape = (d.choice((1, 2, 3)), d.choice((1, 2, 5)), *(d.choice(DIMS) for _ in range(d.choice((2, 1, 3)))))
    patterns = {"GlobalMaxPool": ORDERED, "GlobalAveragePool": SUMMED}.get(d.op_type, ("small", "normal", "unit"))
    attributes = d.attributes(p=lambda: d.integer(1, 4)) if d.op_type == "GlobalLpPool" else {}
    return d.call([d.tensor(shape, d.dtype(), patterns)], attributes)


@strategy("MaxUnpool")
def max_unpool(d: Draw) -> NodeCall:
    dtype = d.dtype("T1")
    rank = d.choice((2, 1, 3))
    kernel = [d.choice((2, 1, 3)) for _ in range(rank)]
    image = [d.choice((2, 1, 3, 4)) for _ in range(rank)]
    n, c = d.choice((1, 2)), d.choice((1, 2, 3))
    shape = (n, c, *image)
    full = (n, c, *(i * k for i, k in zip(image, kernel, strict=True)))
    x = d.tensor(shape, dtype, ORDERED)
    order = np.random.default_rng(d.integer(0, 1 << 31)).permutation(int(np.prod(full)))[: x.size]
    indices = order.reshape(shape).astype(np.int64)
    target = np.asarray(full, np.int64) if d.rarely(3) else None
    return d.call([x, indices, target], {"kernel_shape": kernel, "strides": kernel}, outputs=(dtype,), parameters=(2,))


@strategy("Col2Im")
def col2im(d: Draw) -> NodeCall:
    dtype = d.dtype(among=is_float)
    windows = Windows(d, d.choice((2, 1, 3)), padded_below_kernel=False)
    rank = windows.rank
    strides, dilations = windows.strides or [1] * rank, windows.dilations or [1] * rank
    pads = windows.pads or [0] * 2 * rank
    blocks = [
        (n + a + b - ((k - 1) * r + 1)) // s + 1
        for n, a, b, k, r, s in zip(
            windows.image, pads[:rank], pads[rank:], windows.kernel, dilations, strides, strict=True
        )
    ]
    n, c = d.choice((1, 2)), d.choice((1, 2, 3))
    x = d.tensor((n, c * int(np.prod(windows.kernel)), int(np.prod(blocks))), dtype, SUMMED)
    attributes = {k: v for k, v in windows.attributes().items() if k != "auto_pad"}
    shape, block = np.asarray(windows.image, np.int64), np.asarray(windows.kernel, np.int64)
    return d.call([x, shape, block], attributes, parameters=(1, 2))
