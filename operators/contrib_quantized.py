"""Operators on quantized tensors that ONNX Runtime fuses (com.microsoft): QLinear*, QGemm, NhwcMaxPool.

Each is quantize(f(dequantize(…))). A runtime computes f in float32, in its own way; so where the quotient lies nearer
to a tie than the roundings of f can tell, one step to either side is admitted (`Scale.terms`), elsewhere none.

Spec: docs/ContribOperators.md of ONNX Runtime, version 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._casting import integer_limits
from .activations import leaky_relu, sigmoid
from .contrib_products import MICROSOFT
from .registry import kernel
from .scale import Array, Rule, Scale
from .softmax import softmax
from .transcendental import LIBRARY

HALF_UNIT = 2.0**-24
"""Of float32 at magnitude one, in which these operators compute."""

ROUNDINGS = 6.0
"""Half-units of the quotient: scales multiplied and divided (2), an integer converted (1), products and a sum (3)."""

FIXED_POINT = 2.0**-22
"""What each exponential may be off by in a softmax of bytes, the largest being 1: as integers of 23 bits, or in float32
with a library's error."""

FIRST_BY_AXIS = 13
"""Softmax before this opset takes all axes from `axis` on together."""


@dataclass(frozen=True)
class Requantized:
    """Results before they are rounded to integers.

    Attributes:
        quotient: in steps of the output.
        error: by how much a runtime's quotient may differ, in steps.
        zero: the output's zero point.
        dtype: of the output.
    """

    quotient: Array
    error: Array
    zero: float
    dtype: np.dtype[Any]

    def values(self, shift: float = 0.0) -> Array:
        """The stored outputs, if every quotient were off by `shift` times its error."""
        low, high = integer_limits(self.dtype)
        rounded = np.rint(np.nan_to_num(self.quotient + shift * self.error)) + self.zero
        return np.clip(rounded, low, high).astype(self.dtype)

    def scale(self) -> Scale:
        """Exact but for a step where the error reaches a tie; open where there is no quotient."""
        steps = self.values(1.0).astype(np.float64) - self.values(-1.0).astype(np.float64)
        return Scale(np.zeros(()), np.where(np.isnan(self.quotient), np.inf, steps), Rule.EXACT)


def real_number(x: Array | None) -> float:
    """A scale or zero point for a whole tensor; 0 where absent.

    Raises:
        InvalidInputError: more than one element.
    """
    if x is None:
        return 0.0
    if x.size != 1:
        raise InvalidInputError(f"a scale or zero point of shape {x.shape}; one for the whole tensor is needed")
    return float(x.reshape(()))


def steps_of(x: Array, zero_point: Array | None) -> Array:
    return x.astype(np.float64) - real_number(zero_point)


def requantized(real: Array, error: Array, y_scale: Array, zero_point: Array | None, like: Array) -> Requantized:
    """A real result and its error, in half-units at magnitude one, as quotients of the output's scale."""
    step, zero = real_number(y_scale), real_number(zero_point)
    dtype = like.dtype if zero_point is None else zero_point.dtype
    quotient = real / step
    # The zero point may be added before rounding, in float32.
    slack = HALF_UNIT * (error / step + ROUNDINGS * np.abs(quotient) + 2 * abs(zero))
    return Requantized(quotient, slack, zero, dtype)


def size_of(x: Array, zero_point: Array | None) -> Array:
    """|x| + |zero point|: what cancels where a runtime takes the zero point out of the sum."""
    return np.abs(x.astype(np.float64)) + abs(real_number(zero_point))


def _added(inputs: Sequence[Array | None]) -> Requantized:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = [*inputs, None][:8]
    if a is None or b is None or a_scale is None or b_scale is None or y_scale is None:
        raise InvalidInputError("QLinearAdd: tensors and scales are needed")
    left, right = real_number(a_scale), real_number(b_scale)
    real = steps_of(a, a_zero) * left + steps_of(b, b_zero) * right
    return requantized(real, ROUNDINGS * (size_of(a, a_zero) * left + size_of(b, b_zero) * right), y_scale, y_zero, a)


def qlinear_add_scale(_y: Array, /, *inputs: Array | None) -> Scale:
    """Exact, a step near a tie; the sum may be made of products with the zero points taken out."""
    return _added(inputs).scale()


@kernel("QLinearAdd", since=1, domain=MICROSOFT, scale=qlinear_add_scale)
def qlinear_add(
    a: Array,
    a_scale: Array,
    a_zero_point: Array | None,
    b: Array,
    b_scale: Array,
    b_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array | None = None,
    /,
) -> Array:
    """The sum of two quantized tensors, quantized.

    Args:
        a: int8 or uint8; broadcast against `b`, of the same type.
        a_scale: one; so is every scale, and every zero point, which is 0 if absent.
        a_zero_point: of the type of `a`.
        b: see a.
        b_scale: see a_scale.
        b_zero_point: see a_zero_point.
        y_scale: of the output.
        y_zero_point: of the output.

    Spec: com.microsoft QLinearAdd, since 1
    """
    return _added((a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point)).values()


def _multiplied(inputs: Sequence[Array | None]) -> Requantized:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = [*inputs, None][:8]
    if a is None or b is None or a_scale is None or b_scale is None or y_scale is None:
        raise InvalidInputError("QLinearMul: tensors and scales are needed")
    real = steps_of(a, a_zero) * steps_of(b, b_zero) * (real_number(a_scale) * real_number(b_scale))
    return requantized(real, np.zeros(()), y_scale, y_zero, a)


def qlinear_mul_scale(_y: Array, /, *inputs: Array | None) -> Scale:
    """Exact, a step near a tie; the product of two steps is exact in float32."""
    return _multiplied(inputs).scale()


@kernel("QLinearMul", since=1, domain=MICROSOFT, scale=qlinear_mul_scale)
def qlinear_mul(
    a: Array,
    a_scale: Array,
    a_zero_point: Array | None,
    b: Array,
    b_scale: Array,
    b_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array | None = None,
    /,
) -> Array:
    """The product of two quantized tensors, quantized; inputs as for QLinearAdd.

    Spec: com.microsoft QLinearMul, since 1
    """
    return _multiplied((a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point)).values()


def _sigmoid(x: Array, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None) -> Requantized:
    real = sigmoid(steps_of(x, x_zero) * real_number(x_scale))
    return requantized(real, (LIBRARY + 1) * np.maximum(real, 0.5), y_scale, y_zero, x)


def qlinear_sigmoid_scale(_y: Array, x: Array, x_scale: Array, x_zero: Array | None, /, *output: Array | None) -> Scale:
    """Exact, a step near a tie of a sigmoid that errs as Sigmoid may."""
    return _sigmoid(x, x_scale, x_zero, *output_parameters(output)).scale()


def output_parameters(given: Sequence[Array | None]) -> tuple[Array, Array | None]:
    y_scale, zero = [*given, None][:2]
    if y_scale is None:
        raise InvalidInputError("the scale of the output is absent")
    return y_scale, zero


@kernel("QLinearSigmoid", since=1, domain=MICROSOFT, scale=qlinear_sigmoid_scale)
def qlinear_sigmoid(
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array | None = None,
    /,
) -> Array:
    """quantize(1 / (1 + e^−dequantize(x))).

    Args:
        x: int8 or uint8.
        x_scale: one; so is every scale, and every zero point, which is 0 if absent.
        x_zero_point: of the type of `x`.
        y_scale: of the output.
        y_zero_point: of the output.

    Spec: com.microsoft QLinearSigmoid, since 1
    """
    return _sigmoid(x, x_scale, x_zero_point, y_scale, y_zero_point).values()


ALPHA = float(np.float32(0.01))


def _leaky(
    x: Array, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None, alpha: float
) -> Requantized:
    real = leaky_relu(steps_of(x, x_zero) * real_number(x_scale), alpha=alpha)
    return requantized(real, np.zeros(()), y_scale, y_zero, x)


def qlinear_leaky_relu_scale(
    _y: Array, x: Array, x_scale: Array, x_zero: Array | None, /, *output: Array | None, alpha: float = ALPHA
) -> Scale:
    """Exact, a step near a tie."""
    return _leaky(x, x_scale, x_zero, *output_parameters(output), alpha).scale()


@kernel("QLinearLeakyRelu", since=1, domain=MICROSOFT, scale=qlinear_leaky_relu_scale)
def qlinear_leaky_relu(
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array | None = None,
    /,
    *,
    alpha: float = ALPHA,
) -> Array:
    """quantize(x') where x' = dequantize(x) >= 0, quantize(alpha·x') elsewhere; inputs as for QLinearSigmoid.

    Spec: com.microsoft QLinearLeakyRelu, since 1
    """
    return _leaky(x, x_scale, x_zero_point, y_scale, y_zero_point, alpha).values()


def _softmax(
    x: Array, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None, axis: int, opset: int
) -> Requantized:
    shape = x.shape
    if not -x.ndim <= axis < x.ndim:
        raise InvalidAttributeError(f"QLinearSoftmax: axis={axis} is outside [-{x.ndim}, {x.ndim}) for shape {shape}")
    axis %= x.ndim
    real = steps_of(x, x_zero) * real_number(x_scale)
    if opset < FIRST_BY_AXIS:
        real, axis = real.reshape(math.prod(shape[:axis]), -1), 1
    p = softmax(real, axis=axis)
    # Of e_i / Σ e_j with errors f of each, the largest e being 1: f / Σ e + p·(Σ f / Σ e); the largest p is 1 / Σ e.
    most = p.max(axis=axis, keepdims=True, initial=0.0)
    error = most * (1 + real.shape[axis] * p) * FIXED_POINT / HALF_UNIT
    return requantized(p.reshape(shape), error.reshape(shape), y_scale, y_zero, x)


def qlinear_softmax_scale(
    _y: Array,
    x: Array,
    x_scale: Array,
    x_zero: Array | None,
    /,
    *output: Array | None,
    axis: int = -1,
    opset: int,
) -> Scale:
    """Exact, a step near a tie of exponentials in fixed point: `FIXED_POINT`."""
    return _softmax(x, x_scale, x_zero, *output_parameters(output), axis, opset).scale()


@kernel("QLinearSoftmax", since=1, domain=MICROSOFT, scale=qlinear_softmax_scale)
def qlinear_softmax(
    x: Array,
    x_scale: Array,
    x_zero_point: Array | None,
    y_scale: Array,
    y_zero_point: Array | None = None,
    /,
    *,
    axis: int = -1,
    opset: int,
) -> Array:
    """quantize(softmax(dequantize(x))).

    Args:
        x: int8 or uint8; scales and zero points as for QLinearSigmoid.
        x_scale: see x.
        x_zero_point: see x.
        y_scale: see x.
        y_zero_point: see x.
        axis: along which exponentials are divided by their sum.
        opset: an attribute: of the Softmax that is meant. Before 13, all axes from `axis` on are taken together.

    Raises:
        InvalidAttributeError: `axis` outside [-rank, rank).

    Spec: com.microsoft QLinearSoftmax, since 1
    """
    return _softmax(x, x_scale, x_zero_point, y_scale, y_zero_point, axis, opset).values()


def _concatenated(inputs: Sequence[Array], axis: int) -> Requantized:
    y_scale, zero_point, *rest = inputs
    if len(rest) < 3 or len(rest) % 3:
        raise InvalidInputError(f"QLinearConcat: {len(rest)} inputs, three of each tensor are needed")
    parts = [
        requantized(
            steps_of(x, x_zero) * real_number(x_scale),
            ROUNDINGS * size_of(x, x_zero) * real_number(x_scale),
            y_scale,
            zero_point,
            x,
        )
        for x, x_scale, x_zero in zip(rest[::3], rest[1::3], rest[2::3], strict=True)
    ]
    quotients, errors = (
        np.concatenate(all_, axis=axis) for all_ in zip(*((p.quotient, p.error) for p in parts), strict=True)
    )
    return Requantized(quotients, errors, parts[0].zero, zero_point.dtype)


def qlinear_concat_scale(_y: Array, /, *inputs: Array, axis: int) -> Scale:
    """Exact, a step near a tie."""
    return _concatenated(inputs, axis).scale()


@kernel("QLinearConcat", since=1, domain=MICROSOFT, scale=qlinear_concat_scale)
def qlinear_concat(*inputs: Array, axis: int) -> Array:
    """Quantized tensors, each requantized to the output's scale, one behind the other.

    Args:
        inputs: scale and zero point of the output, then a tensor, its scale and its zero point, and so on.
        axis: along which they are joined.

    Raises:
        InvalidInputError: a tensor without scale or zero point.

    Spec: com.microsoft QLinearConcat, since 1
    """
    return _concatenated(inputs, axis).values()
