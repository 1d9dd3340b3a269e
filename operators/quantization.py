"""Linear quantization: operators whose semantics are in the stored type.

QuantizeLinear returns stored arrays. Elements that the specification leaves open (a quotient within a rounding error of
a step between two quantized values) have infinite `terms` in the scale: not judged.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ._casting import DType, convert, integer_limits, round_to, widen
from ._elementwise import ONCE, axis_index, undetermined
from .conversion import Stored, data_type
from .registry import Kernel, kernel
from .scale import Array, Rule, Scale
from .storage import BFLOAT16, is_float

UINT8, FLOAT64 = np.dtype(np.uint8), np.dtype(np.float64)
SEAM = ("stored", "opset")
DIVISION_SPECIFIED = 23
"""The opset since which QuantizeLinear says in which precision it divides."""
QUOTIENT_ERROR = 2.0**-23
"""Relative error of a quotient in float32 that is not correctly rounded (one unit in the last place)."""


def _spread(parameter: Array, x: Array, axis: int, block_size: int) -> Array:
    """A scale or zero point, broadcastable to `x`: one for all, one for each index of `axis`, or one for each block."""
    if parameter.size == 1 and parameter.ndim < 2:
        return parameter.reshape(())
    index = axis_index("quantization", 0 if x.ndim == 1 else axis, x.ndim)
    if block_size:
        return np.repeat(parameter, block_size, axis=index).take(range(x.shape[index]), axis=index)
    if parameter.shape != (x.shape[index],):
        raise InvalidInputError(
            f"a scale or zero point of shape {parameter.shape} fits no axis={axis} of {x.shape} with block_size=0"
        )
    return parameter.reshape((-1,) + (1,) * (x.ndim - 1 - index))


@dataclass(frozen=True)
class _Quantizer:
    """A quotient turned into quantized values.

    Attributes:
        zero: float64, broadcastable to the quotients.
        dtype: of the result.
        precision: the float type in which the division is made.
        saturate: for results in 8-bit floats.
    """

    zero: Array
    dtype: DType
    precision: DType
    saturate: bool

    def values(self, quotient: Array) -> Array:
        """The quantized values of float64 quotients, of `dtype`."""
        quotient = round_to(quotient, self.precision)
        if is_float(self.dtype):
            return convert(quotient + self.zero, self.dtype, saturate=self.saturate)
        low, high = integer_limits(self.dtype)
        return convert(np.clip(np.rint(quotient) + self.zero, low, high), self.dtype)

    def is_open(self, quotient: Array, error: float = QUOTIENT_ERROR) -> Array:
        """Which results a quotient that is off by a relative `error` may change; those of NaN too."""
        below, above = (widen(self.values(quotient * factor)) for factor in (1 - error, 1 + error))
        return (below != above) | np.isnan(quotient)


def _quantizer(
    x: Array, zero_point: Array | None, stored: Stored, axis: int, block_size: int, dtype: int, precision: int, sat: int
) -> _Quantizer:
    asked = data_type("QuantizeLinear", dtype) if dtype else np.dtype(np.uint8)
    zero = np.zeros(()) if zero_point is None else _spread(widen(zero_point).astype(np.float64), x, axis, block_size)
    target = next(iter(stored[2:]), None) or asked
    by_scale = stored[1] if stored[1] in (np.float16, BFLOAT16) else np.dtype(np.float32)
    division = data_type("QuantizeLinear", precision) if precision else by_scale
    return _Quantizer(zero, target, division or np.dtype(np.float32), bool(sat))


def _quotient(x: Array, y_scale: Array, axis: int, block_size: int) -> Array:
    return x.astype(np.float64) / _spread(y_scale.astype(np.float64), x, axis, block_size)


def quantize_scale(
    _y: Array,
    x: Array,
    y_scale: Array,
    zero_point: Array | None = None,
    /,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
    stored: Stored,
    opset: int,
) -> Scale:
    """Exact, open where one unit of the float32 quotient decides between two steps (an exact tie does not: it goes to
    the even one). Before opset 23 the precision of the division is not specified: open where float32 and the type of
    the scale differ."""
    quotient = _quotient(x, y_scale, axis, block_size)
    quantizer = _quantizer(x, zero_point, stored, axis, block_size, output_dtype, precision, saturate)
    is_inexact = round_to(quotient, np.dtype(np.float32)) != quotient
    unknown = (is_inexact & quantizer.is_open(quotient)) | np.isnan(quotient)
    if opset < DIVISION_SPECIFIED:
        in_float32 = replace(quantizer, precision=np.dtype(np.float32))
        unknown |= widen(in_float32.values(quotient)) != widen(quantizer.values(quotient))
    return undetermined(unknown)


@kernel("QuantizeLinear", since=23, scale=quantize_scale)
def quantize(
    x: Array,
    y_scale: Array,
    zero_point: Array | None = None,
    /,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
    stored: Stored,
    opset: int,
) -> Array:
    """saturate(round(x / y_scale) + zero_point), to nearest with ties to even.

    Args:
        x: float or int32.
        y_scale: scalar; or (x.shape[axis],); or as `x` with one element for each `block_size` along `axis`.
        zero_point: as `y_scale`, of the type of the result; absent: 0.
        axis: which dimension the scales belong to; in [-rank, rank).
        block_size: how many elements along `axis` share a scale; 0: not blocked.
        output_dtype: TensorProto data type of the result; 0: that of `zero_point`, else uint8.
        precision: TensorProto data type of the division; 0: that of `y_scale`.
        saturate: for 8-bit floats, as in Cast.

    Returns:
        Same shape as `x`, stored in the type of the result.

    Raises:
        InvalidAttributeError: `axis` outside [-rank, rank), or no data type.
        InvalidInputError: the scale's shape fits none of the three granularities.

    Spec: QuantizeLinear, since 23
    """
    quantizer = _quantizer(x, zero_point, stored, axis, block_size, output_dtype, precision, saturate)
    return quantizer.values(_quotient(x, y_scale, axis, block_size))


def _only(function: Kernel, *names: str) -> Kernel:
    """The same kernel as an older opset had it: with these attributes and no others."""

    def older(*inputs: Array | None, **keywords: Any) -> Any:
        return function(*inputs, **keywords)

    signature = inspect.signature(function)
    kept = [p for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY or p.name in {*names, *SEAM}]
    older.__signature__ = signature.replace(parameters=kept)  # pyright: ignore[reportFunctionMemberAccess]
    older.__doc__ = function.__doc__
    return older


for _since, _names in {
    10: (),
    13: ("axis",),
    19: ("axis", "saturate"),
    21: ("axis", "saturate", "block_size", "output_dtype"),
}.items():
    kernel("QuantizeLinear", since=_since, scale=quantize_scale)(_only(quantize, *_names))


def dequantize_scale(
    y: Array, x: Array, _x_scale: Array, _zero_point: Array | None = None, /, *, stored: Stored, **_attributes: object
) -> Scale:
    """At |y|: 1 for the product, where x − zero_point is exact in float32 (8 bits); 1 more where it may round, and 1
    more from opset 23, where the reference itself is stored."""
    wide = widen(x).dtype.itemsize > 1 or stored[1] != np.float32
    roundings = 1 + wide + (y.dtype != np.float64 or x.dtype == np.float64)
    return Scale(np.abs(y.astype(np.float64)), roundings * ONCE, Rule.ULP)


def _dequantized(x: Array, x_scale: Array, zero_point: Array | None, axis: int, block_size: int) -> Array:
    values = widen(x).astype(np.float64)
    if zero_point is not None:
        values = values - _spread(widen(zero_point).astype(np.float64), x, axis, block_size)
    return np.asarray(values * _spread(x_scale, x, axis, block_size))


@kernel("DequantizeLinear", since=10, scale=dequantize_scale)
def dequantize_by_tensor(x: Array, x_scale: Array, zero_point: Array | None = None, /, *, stored: Stored) -> Array:
    """(x − zero_point)·x_scale with scalars.

    Spec: DequantizeLinear, since 10
    """
    return _dequantized(x, x_scale, zero_point, 1, 0)


@kernel("DequantizeLinear", since=13, scale=dequantize_scale)
def dequantize_by_axis(
    x: Array, x_scale: Array, zero_point: Array | None = None, /, *, axis: int = 1, stored: Stored
) -> Array:
    """(x − zero_point)·x_scale with a scalar or a vector along `axis`.

    Spec: DequantizeLinear, since 13
    """
    return _dequantized(x, x_scale, zero_point, axis, 0)


@kernel("DequantizeLinear", since=21, scale=dequantize_scale)
def dequantize_by_block(
    x: Array, x_scale: Array, zero_point: Array | None = None, /, *, axis: int = 1, block_size: int = 0, stored: Stored
) -> Array:
    """(x − zero_point)·x_scale with the granularities of QuantizeLinear.

    Spec: DequantizeLinear, since 21
    """
    return _dequantized(x, x_scale, zero_point, axis, block_size)


@kernel("DequantizeLinear", since=23, scale=dequantize_scale)
def dequantize(
    x: Array,
    x_scale: Array,
    zero_point: Array | None = None,
    /,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    stored: Stored,
) -> Array:
    """(x − zero_point)·x_scale, stored in `output_dtype`, or in the type of `x_scale`.

    Args:
        x: integers of any width, or 4- to 8-bit floats.
        x_scale: as `y_scale` of QuantizeLinear.
        zero_point: as `x_scale`, of the type of `x`; absent: 0.
        axis: which dimension the scales belong to; in [-rank, rank).
        block_size: how many elements along `axis` share a scale; 0: not blocked.
        output_dtype: TensorProto data type of the result; 0: that of `x_scale`.

    Spec: DequantizeLinear, since 23
    """
    dtype = data_type("DequantizeLinear", output_dtype) if output_dtype else stored[1]
    values = _dequantized(x, x_scale, zero_point, axis, block_size)
    return values if dtype is None else convert(values, dtype)


def dynamic_quantize_scale(y: tuple[Array, Array, Array], x: Array, /) -> tuple[Scale, Scale, Scale]:
    """The scale is a difference and a quotient: 2 at |y_scale|. The zero point and the values are exact, open where an
    error of those two and of a quotient of one's own (4 half-units together) decides between two steps; all values are
    where the zero point is."""
    error = 2 * QUOTIENT_ERROR
    open_zero = _Quantizer(np.zeros(()), UINT8, FLOAT64, True).is_open(_dynamic_zero(x, y[1]), error)
    values = _Quantizer(y[2].astype(np.float64), UINT8, FLOAT64, True)
    unknown = np.broadcast_to(values.is_open(x / y[1], error) | open_zero, x.shape)
    return undetermined(unknown), Scale(np.abs(y[1]), 2 * ONCE if x.size else np.inf, Rule.ULP), undetermined(open_zero)


def _dynamic_zero(x: Array, scale: Array) -> Array:
    return np.clip(-np.minimum(x.min(initial=0.0), 0.0) / scale, 0, 255)


@kernel("DynamicQuantizeLinear", since=11, scale=dynamic_quantize_scale)
def dynamic_quantize(x: Array, /) -> tuple[Array, Array, Array]:
    """`x` in uint8 with a scale and a zero point of its own range, which is widened to include 0.

    Args:
        x: any shape, float32.

    Returns:
        y: uint8, same shape; y_scale: float64 scalar; y_zero_point: uint8 scalar.

    Spec: DynamicQuantizeLinear, since 11
    """
    scale = np.asarray((x.max(initial=0.0) - x.min(initial=0.0)) / 255)
    zero = np.asarray(np.rint(_dynamic_zero(x, scale))).astype(np.uint8)
    return _Quantizer(zero.astype(np.float64), UINT8, FLOAT64, True).values(x / scale), scale, zero
