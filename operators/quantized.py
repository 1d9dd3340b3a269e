"""Products and convolutions of quantized tensors: exact sums of integers, requantized where the output is quantized.

Sums are computed in float64, which holds every integer up to 2^53: 10^11 products of two bytes. A quantized output is
round(sum · scales) + zero point: a runtime computes the product in the scales' type, so where it lies nearer to a tie
than that can tell, one step to either side is admitted (`Scale.terms`), elsewhere none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ._casting import convert, integer_limits, widen
from .convolution import conv
from .registry import kernel
from .rounding import half_unit
from .scale import Array, Rule, Scale
from .storage import float_format, is_float

Stored = tuple[np.dtype[Any] | None, ...]

ACCUMULATOR = 2.0**31
"""Sums of products beyond it may overflow: the specification allows that in 32 bits, and says no more."""

MULTIPLIER_ROUNDINGS = 4
"""Half-units of sum · (a_scale · b_scale / y_scale): the two operations on scales, the conversion, the product."""


POWER_OF_TWO = 0.5
"""The mantissa of a power of two, as frexp gives it."""


def _centred(x: Array, zero_point: Array | None) -> Array:
    """x − zero point, exact in float64."""
    wide = widen(x).astype(np.float64)
    return wide if zero_point is None else wide - zero_point


def _along(parameter: Array | None, x: Array, axis: int) -> Array | None:
    """A zero point or scale as float64, broadcastable to `x`: for all, or one for each index of `axis`.

    Raises:
        InvalidInputError: neither one element, nor as many as `axis`, nor of the rank of `x`.
    """
    if parameter is None:
        return None
    values = widen(parameter).astype(np.float64)
    if values.size == 1:
        return values.reshape(())
    if values.ndim == 1 and x.ndim > 0 and len(values) == x.shape[axis]:
        return values.reshape(-1, *(1,) * (x.ndim - 1 - axis % x.ndim))
    if values.ndim == x.ndim:
        return values
    raise InvalidInputError(f"a scale or zero point of shape {values.shape} does not fit {x.shape} along axis {axis}")


def _int32(total: Array) -> Array:
    return total.astype(np.int64).astype(np.int32)


def _open_beyond_accumulator(size: Array) -> Scale:
    """Exact, open where 32 bits may overflow."""
    return Scale(np.zeros(()), np.where(size >= ACCUMULATOR, np.inf, 0.0), Rule.EXACT)


def matmul_integer_scale(
    _y: Array,
    a: Array,
    b: Array,
    a_zero_point: Array | None = None,
    b_zero_point: Array | None = None,
    /,
) -> Scale:
    """Exact, open where the sum of the products' sizes does not fit into 32 bits."""
    left, right = _operands(a, a_zero_point, b, b_zero_point)
    return _open_beyond_accumulator(np.matmul(np.abs(left), np.abs(right)))


def _operands(a: Array, a_zero_point: Array | None, b: Array, b_zero_point: Array | None) -> tuple[Array, Array]:
    rows = -2 if a.ndim > 1 else -1
    return _centred(a, _along(a_zero_point, a, rows)), _centred(b, _along(b_zero_point, b, -1))


@kernel("MatMulInteger", since=10, scale=matmul_integer_scale)
def matmul_integer(
    a: Array,
    b: Array,
    a_zero_point: Array | None = None,
    b_zero_point: Array | None = None,
    /,
) -> Array:
    """(a − a_zero_point)·(b − b_zero_point) in int32.

    Args:
        a: (…, M, K) or (K,), int8 or uint8.
        b: (…, K, N) or (K,), int8 or uint8.
        a_zero_point: one, (M,) or (…, M, 1).
        b_zero_point: one, (N,) or (…, 1, N).

    Returns:
        (…, M, N), int32.

    Raises:
        InvalidInputError: a zero point of another shape.

    Spec: MatMulInteger, since 10
    """
    return _int32(np.matmul(*_operands(a, a_zero_point, b, b_zero_point)))


def lost_by_saturation(a: Array, b: Array) -> Array:
    """What a product of bytes loses where neighbouring products are added in 16 bits (x86's vpmaddubsw, without VNNI).

    Args:
        a: (…, M, K), uint8.
        b: (…, K, N), int8.

    Returns:
        (…, M, N), int64: the sums with saturation less the right ones.
    """
    even = a.shape[-1] // 2 * 2
    a, b = a[..., :even].astype(np.int64), b[..., :even, :].astype(np.int64)
    lost = np.zeros(np.matmul(a[..., :0], b[..., :0, :]).shape, np.int64)
    step = max(1, 2**21 // max(lost.size, 1)) * 2
    for start in range(0, even, step):  # blocks of memory, not elements
        x, y = a[..., start : start + step], b[..., start : start + step, :]
        products = x[..., :, :, None] * y[..., None, :, :]
        pairs = products[..., 0::2, :] + products[..., 1::2, :]
        lost += (pairs.clip(-(2**15), 2**15 - 1) - pairs).sum(-2)
    return lost


def conv_integer_scale(
    _y: Array,
    x: Array,
    w: Array,
    x_zero_point: Array | None = None,
    w_zero_point: Array | None = None,
    /,
    **attributes: Any,
) -> Scale:
    """Exact, open where the sum of the products' sizes does not fit into 32 bits."""
    left, right = _filtered(x, x_zero_point, w, w_zero_point)
    return _open_beyond_accumulator(conv(np.abs(left), np.abs(right), **attributes))


def _filtered(x: Array, x_zero_point: Array | None, w: Array, w_zero_point: Array | None) -> tuple[Array, Array]:
    return _centred(x, _along(x_zero_point, x, 1)), _centred(w, _along(w_zero_point, w, 0))


@kernel("ConvInteger", since=10, scale=conv_integer_scale)
def conv_integer(
    x: Array,
    w: Array,
    x_zero_point: Array | None = None,
    w_zero_point: Array | None = None,
    /,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Cross-correlation of x − x_zero_point with w − w_zero_point in int32; padding counts as the zero point.

    Args:
        x: (N, C, D1, …, Dn), int8 or uint8.
        w: (M, C / group, k1, …, kn), int8 or uint8.
        x_zero_point: one.
        w_zero_point: one, or (M,).
        auto_pad: as for Conv; so are `dilations`, `group`, `kernel_shape`, `pads` and `strides`.

    Returns:
        (N, M, o1, …, on), int32.

    Spec: ConvInteger, since 10
    """
    left, right = _filtered(x, x_zero_point, w, w_zero_point)
    y = conv(
        left,
        right,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return _int32(y)


@dataclass(frozen=True)
class _Requantizer:
    """What turns a sum of products into the quantized output.

    Attributes:
        multiplier: a_scale · b_scale / y_scale, broadcastable to the sum.
        zero: of the output, float64.
        dtype: of the output.
        error: relative error of the product in a runtime.
        shifts: all three scales are powers of two, so that a product of a short sum is exact, and a tie is one.
    """

    multiplier: Array
    zero: Array
    dtype: np.dtype[Any]
    error: float
    shifts: bool

    def values(self, total: Array, factor: float = 1.0) -> Array:
        """The outputs, of `dtype`, if the product came out `factor` times as large."""
        quotient = total * self.multiplier * factor
        if is_float(self.dtype):
            return convert(quotient + self.zero, self.dtype)
        low, high = integer_limits(self.dtype)
        return convert(np.clip(np.rint(quotient) + self.zero, low, high), self.dtype)

    def scale(self, total: Array, size: Array) -> Scale:
        """Exact but for a step where a product off by `error` may round the other way; open beyond 32 bits.

        Args:
            total: the sums of products.
            size: of the sums of their absolute values.
        """
        low, high = (widen(self.values(total, f)).astype(np.float64) for f in (1 - self.error, 1 + self.error))
        steps = np.abs(high - low)
        if is_float(self.dtype):
            steps = np.where(steps > 0, np.inf, 0.0)
        if self.shifts:
            steps = np.where(np.abs(total) <= 1 / self.error, 0.0, steps)
        unknown = (size >= ACCUMULATOR) | ~np.isfinite(self.multiplier)
        return Scale(np.zeros(()), np.where(unknown, np.inf, steps), Rule.EXACT)


def _requantizer(
    scales: Sequence[Array | None], zero: Array | None, target: np.dtype[Any], stored: np.dtype[Any] | None
) -> _Requantizer:
    a, b, y = (np.ones(()) if s is None else s for s in scales)
    narrow = stored if stored is not None and is_float(stored) else np.dtype(np.float32)
    error = MULTIPLIER_ROUNDINGS * half_unit(float_format(narrow))
    shifts = all((np.frexp(s)[0] == POWER_OF_TWO).all() for s in (a, b, y))
    return _Requantizer(a * b / y, np.zeros(()) if zero is None else zero, target, error, shifts)


def _target(stored: Stored, position: int) -> np.dtype[Any]:
    found = stored[position] if position < len(stored) else None
    if found is None:
        raise InvalidInputError("the zero point of the output, whose type the output has, is absent")
    return found


def _matmul_parts(inputs: Sequence[Array], stored: Stored) -> tuple[Array, Array, _Requantizer]:
    a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point = inputs
    left, right = _operands(a, a_zero_point, b, b_zero_point)
    rows = -2 if a.ndim > 1 else -1
    scales = [_along(a_scale, a, rows), _along(b_scale, b, -1), _along(y_scale, a, rows)]
    zero = _along(y_zero_point, a, rows)
    return left, right, _requantizer(scales, zero, _target(stored, 7), stored[1])


def qlinear_matmul_scale(_y: Array, /, *inputs: Array, stored: Stored) -> Scale:
    """Exact, a step near a tie: see `_Requantizer.scale`."""
    left, right, requantizer = _matmul_parts(inputs, stored)
    return requantizer.scale(np.matmul(left, right), np.matmul(np.abs(left), np.abs(right)))


@kernel("QLinearMatMul", since=10, scale=qlinear_matmul_scale)
def qlinear_matmul(
    a: Array,
    a_scale: Array,
    a_zero_point: Array,
    b: Array,
    b_scale: Array,
    b_zero_point: Array,
    y_scale: Array,
    y_zero_point: Array,
    /,
    *,
    stored: Stored,
) -> Array:
    """saturate(round((a − a_zero_point)·(b − b_zero_point) · a_scale · b_scale / y_scale) + y_zero_point).

    Args:
        a: (…, M, K), bytes or (since 21) 8-bit floats.
        a_scale: one, (M,) or (…, M, 1); so is `a_zero_point`.
        a_zero_point: of the type of `a`.
        b: (…, K, N), as `a`.
        b_scale: one, (N,) or (…, 1, N); so is `b_zero_point`.
        b_zero_point: of the type of `b`.
        y_scale: one, or one for each row.
        y_zero_point: of the type of the output.

    Returns:
        (…, M, N), of the type of `y_zero_point`, ties to even.

    Raises:
        InvalidInputError: a scale or zero point of another shape.

    Spec: QLinearMatMul, since 10
    """
    inputs = (a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point)
    left, right, requantizer = _matmul_parts(inputs, stored)
    return requantizer.values(np.matmul(left, right))


def _conv_parts(inputs: Sequence[Array], stored: Stored) -> tuple[Array, Array, Array, _Requantizer]:
    """Centred input and filters, the bias broadcastable to the output, what requantizes."""
    x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, *bias = inputs
    left, right = _filtered(x, x_zero_point, w, w_zero_point)
    per_channel = (-1, *(1,) * (x.ndim - 2))
    scale = widen(w_scale).astype(np.float64)
    scale = scale.reshape(()) if scale.size == 1 else scale.reshape(per_channel)
    added = bias[0].astype(np.float64).reshape(per_channel) if bias and bias[0] is not None else np.zeros(())
    zero = widen(y_zero_point).astype(np.float64).reshape(())
    scales = [x_scale.reshape(()), scale, y_scale.reshape(())]
    return left, right, added, _requantizer(scales, zero, _target(stored, 7), stored[1])


def qlinear_conv_scale(_y: Array, /, *inputs: Array, stored: Stored, **attributes: Any) -> Scale:
    """Exact, a step near a tie: see `_Requantizer.scale`."""
    left, right, bias, requantizer = _conv_parts(inputs, stored)
    total = conv(left, right, **attributes) + bias
    return requantizer.scale(total, conv(np.abs(left), np.abs(right), **attributes) + np.abs(bias))


@kernel("QLinearConv", since=10, scale=qlinear_conv_scale)
def qlinear_conv(
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
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    stored: Stored,
) -> Array:
    """The convolution of the dequantized tensors, quantized; padding counts as the zero point.

    Args:
        x: (N, C, D1, …, Dn), bytes; `x_scale` and `x_zero_point`: one each.
        w: (M, C / group, k1, …, kn), bytes; `w_scale` and `w_zero_point`: one, or (M,).
        y_scale: one.
        y_zero_point: one, of the type of the output.
        b: (M,) int32, quantized by x_scale · w_scale with zero point 0.
        auto_pad: as for Conv; so are `dilations`, `group`, `kernel_shape`, `pads` and `strides`.

    Returns:
        (N, M, o1, …, on), of the type of `y_zero_point`, ties to even.

    Spec: QLinearConv, since 10
    """
    inputs = (x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, b)
    left, right, bias, requantizer = _conv_parts(inputs, stored)  # type: ignore[arg-type]
    y = conv(
        left,
        right,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return requantizer.values(y + bias)
