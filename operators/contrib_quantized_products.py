"""Products of quantized tensors that ONNX Runtime fuses (com.microsoft): QGemm, MatMulIntegerToFloat, and so on.

Sums of products of bytes are exact in any order, so that only scales, bias and, where floats are quantized on the way,
that quantization can err.

Spec: docs/ContribOperators.md of ONNX Runtime, version 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidInputError
from ._casting import integer_limits
from .contrib_products import MICROSOFT
from .contrib_quantized import HALF_UNIT, Requantized
from .quantization import dynamic_quantize, dynamic_quantize_scale
from .registry import kernel
from .scale import Array, Rule, Scale

PRODUCT_ROUNDINGS = 5.0
"""Half-units of sum · (a_scale · b_scale): the product of scales and alpha (2), the conversion of the sum (1), the
product (1), and the sum with a bias (1)."""


def _by_column(parameter: Array | None, op_type: str, columns: int) -> Array:
    """A scale or zero point of `b`: one, (N,), or (…, 1, N); 0 where absent.

    Raises:
        InvalidInputError: another shape.
    """
    if parameter is None:
        return np.zeros(())
    values = parameter.astype(np.float64)
    if values.size == 1:
        return values.reshape(())
    if values.shape[-1] == columns and (values.ndim == 1 or values.shape[-2] == 1):
        return values
    raise InvalidInputError(f"{op_type}: a scale or zero point of shape {values.shape} for {columns} columns")


def _by_row(parameter: Array | None, op_type: str) -> Array:
    """A scale or zero point of `a`: one for all.

    Raises:
        InvalidInputError: more than one, of which the schema says "per column" of `a`: these cannot leave the sum.
    """
    if parameter is None:
        return np.zeros(())
    if parameter.size != 1:
        raise InvalidInputError(f"{op_type}: scales and zero points of A for each of its columns are not modelled")
    return parameter.astype(np.float64).reshape(())


@dataclass(frozen=True)
class Dequantized:
    """A product of bytes as a float result: value, and how large the parts are that round."""

    value: Array
    size: Array


def integer_to_float(inputs: Sequence[Array | None]) -> Dequantized:
    """Inputs of MatMulIntegerToFloat: two tensors, their scales and zero points, a bias."""
    a, b, a_scale, b_scale, a_zero, b_zero, bias = [*inputs, None, None, None][:7]
    name = "MatMulIntegerToFloat"
    if a is None or b is None or a_scale is None or b_scale is None:
        raise InvalidInputError(f"{name}: tensors and scales are needed")
    left = a.astype(np.float64) - _by_row(a_zero, name)
    right = b.astype(np.float64) - _by_column(b_zero, name, b.shape[-1])
    product = np.matmul(left, right) * (_by_row(a_scale, name) * _by_column(b_scale, name, b.shape[-1]))
    return _with_bias(product, bias)


def _with_bias(product: Array, bias: Array | None) -> Dequantized:
    if bias is None:
        return Dequantized(product, np.abs(product))
    return Dequantized(product + bias, np.abs(product) + np.abs(bias))


def matmul_integer_to_float_scale(_y: Array, /, *inputs: Array | None) -> Scale:
    """5 at |product| + |bias|: `PRODUCT_ROUNDINGS`."""
    return Scale(integer_to_float(inputs).size, PRODUCT_ROUNDINGS, Rule.ULP)


@kernel("MatMulIntegerToFloat", since=1, domain=MICROSOFT, scale=matmul_integer_to_float_scale)
def matmulinteger_to_float(
    a: Array,
    b: Array,
    a_scale: Array,
    b_scale: Array,
    a_zero_point: Array | None = None,
    b_zero_point: Array | None = None,
    bias: Array | None = None,
    /,
) -> Array:
    """(a − a_zero_point)·(b − b_zero_point) · a_scale · b_scale + bias.

    Args:
        a: (…, M, K), int8 or uint8.
        b: (…, K, N), int8 or uint8.
        a_scale: one.
        b_scale: one, or (N,).
        a_zero_point: one, 0 if absent.
        b_zero_point: one, or (N,); 0 if absent.
        bias: (N,) or None.

    Returns:
        (…, M, N), in the type of the scales.

    Raises:
        InvalidInputError: a scale or zero point of another shape.

    Spec: com.microsoft MatMulIntegerToFloat, since 1
    """
    return integer_to_float((a, b, a_scale, b_scale, a_zero_point, b_zero_point, bias)).value


@dataclass(frozen=True)
class Dynamic:
    """A product with a left side that is quantized on the way; `open_steps`: what its ties may move."""

    parts: Dequantized
    open_steps: Array


def _dynamic(a: Array, b: Array, b_scale: Array, b_zero: Array | None, bias: Array | None) -> Dynamic:
    name = "DynamicQuantizeMatMul"
    quantized, a_scale, zero = dynamic_quantize(a)
    right = (b.astype(np.float64) - _by_column(b_zero, name, b.shape[-1])) * _by_column(b_scale, name, b.shape[-1])
    left = quantized.astype(np.float64) - float(zero)
    # Which steps rounding decides; where it decides the zero point, those at the ends of the range.
    tied = dynamic_quantize_scale((quantized, a_scale, zero), a)
    low, high = integer_limits(quantized.dtype)
    ends = np.isinf(tied[2].terms) & ((quantized == low) | (quantized == high))
    open_zero = bool(np.isinf(tied[2].terms))
    alone = _ties(a, a_scale, zero) if open_zero else np.isinf(tied[0].terms)
    moved = np.matmul((alone | ends).astype(np.float64), np.abs(right)) * float(a_scale)
    return Dynamic(_with_bias(np.matmul(left, right) * float(a_scale), bias), moved)


def _ties(a: Array, a_scale: Array, zero: Array) -> Array:
    """Elements so near a tie that their quotient's rounding decides."""
    quotient = a / a_scale
    off = np.abs(quotient) * 4 * HALF_UNIT
    return np.rint(quotient - off) != np.rint(quotient + off)


def dynamic_quantize_matmul_scale(
    _y: Array, a: Array, b: Array, b_scale: Array, b_zero: Array | None = None, bias: Array | None = None, /
) -> Scale:
    """7 at |product| + |bias|: `PRODUCT_ROUNDINGS` and the two of the scale of `a`; and a step for each tie."""
    done = _dynamic(a, b, b_scale, b_zero, bias)
    with np.errstate(all="ignore"):
        steps = np.where(done.open_steps > 0, done.open_steps / (done.parts.size * HALF_UNIT), 0.0)
    return Scale(done.parts.size, PRODUCT_ROUNDINGS + 2 + steps, Rule.ULP)


@kernel("DynamicQuantizeMatMul", since=1, domain=MICROSOFT, scale=dynamic_quantize_matmul_scale)
def dynamic_quantize_matmul(
    a: Array,
    b: Array,
    b_scale: Array,
    b_zero_point: Array | None = None,
    bias: Array | None = None,
    /,
) -> Array:
    """DynamicQuantizeLinear of `a` as a whole, then the product with (b − b_zero_point) · b_scale, plus bias.

    Args:
        a: (…, M, K), float32.
        b: (…, K, N), int8 or uint8.
        b_scale: one, or (N,).
        b_zero_point: one, or (N,); 0 if absent.
        bias: (N,) or None.

    Returns:
        (…, M, N).

    Raises:
        InvalidInputError: a scale or zero point of another shape.

    Spec: com.microsoft DynamicQuantizeMatMul, since 1. The schema does not say how `a` is quantized: it is the fusion
    of DynamicQuantizeLinear, MatMulInteger, Cast and Mul.
    """
    return _dynamic(a, b, b_scale, b_zero_point, bias).parts.value


@dataclass(frozen=True)
class QuantizedGemm:
    """A QGemm before its output is quantized, if it is."""

    real: Array
    y_scale: Array | None
    y_zero: Array | None

    def requantized(self) -> Requantized:
        """The quantized output."""
        if self.y_scale is None or self.y_zero is None:
            raise InvalidInputError("QGemm: the output is not quantized")
        quotient = self.real / float(self.y_scale.reshape(()))
        zero = float(self.y_zero.reshape(()))
        error = HALF_UNIT * ((PRODUCT_ROUNDINGS + 2) * np.abs(quotient) + 2 * abs(zero))
        return Requantized(quotient, error, zero, self.y_zero.dtype)


def _gemm(inputs: Sequence[Array | None], alpha: float, trans_a: int, trans_b: int) -> QuantizedGemm:
    a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero = [*inputs, None, None, None][:9]
    if a is None or b is None or a_scale is None or b_scale is None or a.ndim != 2 or b.ndim != 2:
        raise InvalidInputError("QGemm: two matrices and their scales are needed")
    if (y_scale is None) != (y_zero is None):
        raise InvalidInputError("QGemm: scale and zero point of the output come together")
    left = a.astype(np.float64) - _by_row(a_zero, "QGemm")
    left, right = (left.T if trans_a else left), (b.T if trans_b else b).astype(np.float64)
    right = right - _by_column(b_zero, "QGemm", right.shape[1])
    total = np.matmul(left, right)
    total = total if c is None else total + c
    factor = alpha * _by_row(a_scale, "QGemm") * _by_column(b_scale, "QGemm", right.shape[1])
    return QuantizedGemm(total * factor, y_scale, y_zero)


def qgemm_scale(
    _y: Array,
    /,
    *inputs: Array | None,
    alpha: float = 1.0,
    transA: int = 0,  # noqa: N803 - the spec's name
    transB: int = 0,  # noqa: N803 - the spec's name
) -> Scale:
    """Exact, a step near a tie; 5 at |y| where the output is not quantized."""
    done = _gemm(inputs, alpha, transA, transB)
    if done.y_scale is None:
        return Scale(np.abs(done.real), PRODUCT_ROUNDINGS, Rule.ULP)
    return done.requantized().scale()


@kernel("QGemm", since=1, domain=MICROSOFT, scale=qgemm_scale)
def qgemm(
    a: Array,
    a_scale: Array,
    a_zero_point: Array,
    b: Array,
    b_scale: Array,
    b_zero_point: Array,
    c: Array | None = None,
    y_scale: Array | None = None,
    y_zero_point: Array | None = None,
    /,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # noqa: N803 - the spec's name
    transB: int = 0,  # noqa: N803 - the spec's name
) -> Array:
    """alpha · a_scale · b_scale · ((A' − a_zero_point)·(B' − b_zero_point) + c), quantized if y_scale is given.

    Args:
        a: (M, K), or (K, M) with transA; int8 or uint8.
        a_scale: one; so is `a_zero_point`.
        a_zero_point: see a_scale.
        b: (K, N), or (N, K) with transB.
        b_scale: one, or (N,); so is `b_zero_point`.
        b_zero_point: see b_scale.
        c: int32, broadcastable to (M, N), in steps of a_scale · b_scale; or None.
        y_scale: one, or None for a float output; so is `y_zero_point`.
        y_zero_point: see y_scale.
        alpha: factor of all of it: the schema quantizes `c` by alpha / beta · a_scale · b_scale, beta being 1.
        transA: transpose `a`.
        transB: transpose `b`.

    Returns:
        (M, N), of the type of `y_zero_point`, or float.

    Raises:
        InvalidInputError: a scale or zero point of another shape, or one of the output's without the other.

    Spec: com.microsoft QGemm, since 1
    """
    inputs = (a, a_scale, a_zero_point, b, b_scale, b_zero_point, c, y_scale, y_zero_point)
    done = _gemm(inputs, alpha, transA, transB)
    return done.real if done.y_scale is None else done.requantized().values()
