"""QuantizeLinear and DequantizeLinear of ONNX Runtime (com.microsoft), and Conv and Where as it fuses them in between.

Spec: docs/ContribOperators.md of ONNX Runtime, version 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ._fused_activation import Stored
from .contrib_products import MICROSOFT, channels_first
from .contrib_products import channels_last as moved_last
from .contrib_quantized import ROUNDINGS, Requantized, real_number, requantized, size_of, steps_of
from .quantization import dequantize_by_axis, dequantize_scale, quantize, quantize_scale
from .quantized import qlinear_conv, qlinear_conv_scale
from .registry import kernel
from .scale import Array, Scale


@kernel("QuantizeLinear", since=1, domain=MICROSOFT, scale=quantize_scale)
def microsoft_quantize(
    x: Array,
    y_scale: Array,
    y_zero_point: Array | None = None,
    /,
    *,
    axis: int = 1,
    stored: Stored,
    opset: int,
) -> Array:
    """saturate(round(x / y_scale) + y_zero_point), to nearest with ties to even.

    Args:
        x: float16 or float32.
        y_scale: one, or (x.shape[axis],).
        y_zero_point: as `y_scale`, of 4, 8 or 16 bits; absent: 0, a uint8.
        axis: which dimension the scales belong to, if there are several.

    Returns:
        Like `x`, of the type of `y_zero_point`.

    Spec: com.microsoft QuantizeLinear, since 1
    """
    return quantize(x, y_scale, y_zero_point, axis=axis, stored=stored, opset=opset)


@kernel("DequantizeLinear", since=1, domain=MICROSOFT, scale=dequantize_scale)
def microsoft_dequantize(
    x: Array, x_scale: Array, x_zero_point: Array | None = None, /, *, axis: int = 1, stored: Stored
) -> Array:
    """(x − x_zero_point)·x_scale; inputs as QuantizeLinear has them, int32 too.

    Spec: com.microsoft DequantizeLinear, since 1
    """
    return dequantize_by_axis(x, x_scale, x_zero_point, axis=axis, stored=stored)


def microsoft_qlinear_conv_scale(
    y: Array, x: Array, /, *inputs: Array, channels_last: int = 0, stored: Stored, **attributes: Any
) -> Scale:
    """Exact, a step near a tie, as QLinearConv of the default domain."""
    if not channels_last:
        return qlinear_conv_scale(y, x, *inputs, stored=stored, **attributes)
    bound = qlinear_conv_scale(y, channels_first(x), *inputs, stored=stored, **attributes)
    return replace(bound, terms=moved_last(np.asarray(bound.terms)))


@kernel("QLinearConv", since=1, domain=MICROSOFT, scale=microsoft_qlinear_conv_scale)
def microsoft_qlinear_conv(
    x: Array,
    x_scale: Array,
    x_zero_point: Array,
    w: Array,
    w_scale: Array,
    w_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
    b: Array | None = None,
    /,
    *,
    auto_pad: str = "NOTSET",
    channels_last: int = 0,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    stored: Stored,
) -> Array:
    """QLinearConv of the default domain, where input and output may have channels last.

    Args:
        x: (N, C, D1, …, Dn), or (N, D1, …, Dn, C) with channels_last.
        x_scale: one; so are `x_zero_point`, `y_scale` and `y_zero_point`.
        x_zero_point: see x_scale.
        w: (M, C / group, k1, …, kn), channels_last or not.
        w_scale: one, or (M,); so is `w_zero_point`.
        w_zero_point: see w_scale.
        y_scale: see x_scale.
        y_zero_point: see x_scale.
        b: (M,) int32, in steps of x_scale · w_scale, or None.
        auto_pad: as for Conv; so are dilations, group, kernel_shape, pads and strides.
        channels_last: of `x` and the output.

    Returns:
        (N, M, o1, …, on), or (N, o1, …, on, M) with channels_last, of the type of `y_zero_point`.

    Spec: com.microsoft QLinearConv, since 1
    """
    y = qlinear_conv(
        channels_first(x) if channels_last else x,
        *(x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, b),
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
        stored=stored,
    )
    return moved_last(y) if channels_last else y


def _chosen(condition: Array, inputs: Sequence[Array]) -> Requantized:
    z_scale, z_zero = inputs[6:]
    parts = [
        requantized(
            steps_of(x, zero) * real_number(scale),
            ROUNDINGS * size_of(x, zero) * real_number(scale),
            *(z_scale, z_zero, x),
        )
        for x, scale, zero in (inputs[:3], inputs[3:6])
    ]
    first, second = parts
    return replace(
        first,
        quotient=np.where(condition, first.quotient, second.quotient),
        error=np.where(condition, first.error, second.error),
    )


def qlinear_where_scale(_y: Array, condition: Array, /, *inputs: Array) -> Scale:
    """Exact, a step near a tie."""
    return _chosen(condition, inputs).scale()


@kernel("QLinearWhere", since=1, domain=MICROSOFT, scale=qlinear_where_scale)
def qlinear_where(
    condition: Array,
    x: Array,
    x_scale: Array,
    x_zero_point: Array,
    y: Array,
    y_scale: Array,
    y_zero_point: Array,
    z_scale: Array,
    z_zero_point: Array,
    /,
) -> Array:
    """Elements of `x` where `condition`, of `y` elsewhere, requantized to the output's scale.

    Args:
        condition: bool; broadcast, as are `x` and `y`.
        x: int8 or uint8; so is `y`.
        x_scale: one; so is every scale, and every zero point.
        x_zero_point: see x_scale.
        y: see x.
        y_scale: see x_scale.
        y_zero_point: see x_scale.
        z_scale: of the output.
        z_zero_point: of the output.

    Spec: com.microsoft QLinearWhere, since 1
    """
    return _chosen(condition, (x, x_scale, x_zero_point, y, y_scale, y_zero_point, z_scale, z_zero_point)).values()
