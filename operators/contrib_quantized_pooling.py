"""Pooling of quantized tensors that ONNX Runtime fuses (com.microsoft): averages, and maxima with channels last.

Spec: docs/ContribOperators.md of ONNX Runtime, version 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .contrib_products import MICROSOFT, channels_first, channels_last
from .contrib_quantized import Requantized, output_parameters, real_number, requantized, steps_of
from .pooling import average_pool, max_pool
from .registry import kernel
from .scale import Array, Scale, exact


def _averaged(
    x: Array,
    x_scale: Array,
    x_zero: Array | None,
    y_scale: Array,
    y_zero: Array | None,
    last: int,
    attributes: dict[str, Any],
) -> Requantized:
    real = steps_of(x, x_zero) * real_number(x_scale)
    real = channels_first(real) if last else real
    windows = {"kernel_shape": real.shape[2:], **attributes}
    mean = average_pool(real, **windows)
    count = math.prod(windows["kernel_shape"]) + 1
    error = count * average_pool(np.abs(real), **windows)
    mean, error = (channels_last(part) if last else part for part in (mean, error))
    return requantized(mean, error, y_scale, y_zero, x)


def qlinear_average_pool_scale(
    _y: Array,
    x: Array,
    x_scale: Array,
    x_zero: Array | None,
    /,
    *output: Array | None,
    channels_last: int = 0,
    **attributes: Any,
) -> Scale:
    """Exact, a step near a tie of a mean that is added up in float32."""
    return _averaged(x, x_scale, x_zero, *output_parameters(output), channels_last, attributes).scale()


@kernel("QLinearAveragePool", since=1, domain=MICROSOFT, scale=qlinear_average_pool_scale)
def qlinear_average_pool(
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array | None = None,
    /,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    channels_last: int = 0,
    count_include_pad: int = 0,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """quantize(AveragePool(dequantize(x))); padding counts as the number 0, which is x's zero point.

    Args:
        x: (N, C, D1, …, Dn), int8 or uint8; (N, D1, …, Dn, C) with channels_last.
        x_scale: scales and zero points as for QLinearSigmoid.
        x_zero_point: see x_scale.
        y_scale: see x_scale.
        y_zero_point: see x_scale.
        kernel_shape: as for AveragePool; so are auto_pad, ceil_mode, count_include_pad, pads and strides.

    Spec: com.microsoft QLinearAveragePool, since 1
    """
    attributes = {
        "kernel_shape": kernel_shape,
        "auto_pad": auto_pad,
        "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad,
        "pads": pads,
        "strides": strides,
    }
    return _averaged(x, x_scale, x_zero_point, y_scale, y_zero_point, channels_last, attributes).values()


@kernel("QLinearGlobalAveragePool", since=1, domain=MICROSOFT, scale=qlinear_average_pool_scale)
def qlinear_global_average_pool(
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array | None = None,
    /,
    *,
    channels_last: int = 0,
) -> Array:
    """quantize(GlobalAveragePool(dequantize(x))); inputs as for QLinearAveragePool.

    Spec: com.microsoft QLinearGlobalAveragePool, since 1
    """
    return _averaged(x, x_scale, x_zero_point, y_scale, y_zero_point, channels_last, {}).values()


@kernel("NhwcMaxPool", since=1, domain=MICROSOFT, scale=exact)
def nhwc_max_pool(
    x: Array,
    /,
    *,
    kernel_shape: Sequence[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """MaxPool of (N, D1, …, Dn, C), int8 or uint8; attributes as for MaxPool.

    Spec: com.microsoft NhwcMaxPool, since 1
    """
    pooled = max_pool(
        channels_first(x),
        kernel_shape=kernel_shape,
        auto_pad=auto_pad,
        ceil_mode=ceil_mode,
        dilations=dilations,
        pads=pads,
        strides=strides,
    )
    return channels_last(pooled)  # type: ignore[arg-type]
