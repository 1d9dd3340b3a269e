"""Products of quantized tensors that ONNX Runtime fuses (com.microsoft): QGemm, MatMulIntegerToFloat, and so on.

Sums of products of bytes are exact in any order, so that only scales, bias and, where floats are quantized on the way,
that quantization can err.

Spec: docs/ContribOperators.md of ONNX Runtime, version 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._casting import integer_limits
from ._fused_activation import Stored
from .contrib_products import MICROSOFT
from .contrib_quantized import HALF_UNIT, Requantized
from .quantization import dynamic_quantize, dynamic_quantize_scale
from .registry import kernel, scale
from .rounding import growth, half_unit
from .scale import Array, Rule, Scale
from .storage import BFLOAT16, encode, float_format

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


def _integer_to_float(inputs: Sequence[Array | None]) -> Dequantized:
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
    return Scale(_integer_to_float(inputs).size, PRODUCT_ROUNDINGS, Rule.ULP)


@kernel("MatMulIntegerToFloat", since=1, domain=MICROSOFT, scale=matmul_integer_to_float_scale)
def matmul_integer_to_float(
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
    return _integer_to_float((a, b, a_scale, b_scale, a_zero_point, b_zero_point, bias)).value


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
            raise InvalidInputError("QGemm: scale and zero point of the output come together")
        quotient = self.real / float(self.y_scale.reshape(()))
        zero = float(self.y_zero.reshape(()))
        error = HALF_UNIT * ((PRODUCT_ROUNDINGS + 2) * np.abs(quotient) + 2 * abs(zero))
        return Requantized(quotient, error, zero, self.y_zero.dtype)


def _gemm(inputs: Sequence[Array | None], alpha: float, trans_a: int, trans_b: int) -> QuantizedGemm:
    a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero = [*inputs, None, None, None][:9]
    if a is None or b is None or a_scale is None or b_scale is None or a.ndim != 2 or b.ndim != 2:
        raise InvalidInputError("QGemm: two matrices and their scales are needed")
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
        InvalidInputError: a scale or zero point of another shape.

    Spec: com.microsoft QGemm, since 1
    """
    inputs = (a, a_scale, a_zero_point, b, b_scale, b_zero_point, c, y_scale, y_zero_point)
    done = _gemm(inputs, alpha, transA, transB)
    return done.real if done.y_scale is None else done.requantized().values()


def unpack_bits(packed: Array, bits: int, count: int) -> Array:
    """(…, bytes) uint8 as (…, count) values of `bits` bits, the first in the lowest bits of a byte.

    Raises:
        InvalidAttributeError: `bits` is not 2, 4 or 8: values that cross bytes are not modelled.
    """
    if bits not in (2, 4, 8):
        raise InvalidAttributeError(f"MatMulNBits: bits={bits}; modelled are 2, 4 and 8")
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return values.reshape(*packed.shape[:-1], -1)[..., :count]


@dataclass(frozen=True)
class BlockWeights:
    """Weights that are quantized by blocks along K: (N, K) values, and the size at which they round."""

    value: Array
    size: Array


def _block_weights(
    b: Array,
    scales: Array,
    zero_points: Array | None,
    K: int,  # noqa: N803 - the spec's name
    N: int,  # noqa: N803 - the spec's name
    bits: int,
    block_size: int,
) -> BlockWeights:
    blocks = -(-K // block_size)
    quantized = unpack_bits(b.reshape(N, -1), bits, blocks * block_size).astype(np.float64)
    quantized = quantized.reshape(N, blocks, block_size)
    if zero_points is None:
        zero, split = np.full((N, blocks), 2.0 ** (bits - 1)), 0.0
    elif zero_points.dtype == np.uint8:
        zero, split = unpack_bits(zero_points.reshape(N, -1), bits, blocks).astype(np.float64), 0.0
    else:  # a fraction may be taken out of the sum, where it cancels
        zero, split = zero_points.reshape(N, blocks), 1.0
    step = scales.reshape(N, blocks, 1)
    value = (quantized - zero[..., None]) * step
    size = np.abs(value) + split * (quantized + np.abs(zero)[..., None]) * np.abs(step)
    return BlockWeights(*(part.reshape(N, -1)[:, :K] for part in (value, size)))


WEIGHT_ROUNDINGS = 2
"""Roundings of each weight: the difference and the product."""

INT8 = 4
"""`accuracy_level` from which `a` may be quantized to int8 by blocks."""

NARROW_INPUT = {2: np.dtype(np.float16), 3: BFLOAT16}
"""By `accuracy_level`: the type to which `a` may be rounded."""


@dataclass(frozen=True)
class InputError:
    """What a narrower `a` moves in a product.

    Attributes:
        most: if all roundings have the worst sign.
        deviation: the standard deviation of independent roundings, uniform within half a step.
        shown: what rounding these very inputs to nearest does: more than a deviation where they are alike.
    """

    most: Array
    deviation: Array
    shown: Array


def _input_error(a: Array, weights: Array, level: int, block_size: int) -> InputError:
    """Errors of the input that `accuracy_level` allows."""
    if level == INT8:
        half, rounded = _int8_by_blocks(a, block_size)
    elif level in NARROW_INPUT:
        half, rounded = np.abs(a) * half_unit(float_format(NARROW_INPUT[level])), encode(a, NARROW_INPUT[level])
    else:
        still = np.zeros(())
        return InputError(still, still, still)
    return InputError(
        np.matmul(half, np.abs(weights).T),
        np.sqrt(np.matmul(half**2, weights.T**2) / 3),
        np.abs(np.matmul(rounded.astype(np.float64) - a, weights.T)),
    )


def _int8_by_blocks(a: Array, block_size: int) -> tuple[Array, Array]:
    """Half a step of each element, and `a` in whole steps; a step is 1 / 127 of the largest in the block."""
    K = a.shape[-1]
    blocks = np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, -K % block_size)]).reshape(*a.shape[:-1], -1, block_size)
    step = np.broadcast_to(np.abs(blocks).max(axis=-1, keepdims=True) / 127, blocks.shape)
    whole = np.rint(np.divide(blocks, step, out=np.zeros(blocks.shape), where=step > 0)) * step
    half, rounded = (part.reshape(*a.shape[:-1], -1)[..., :K] for part in (step / 2, whole))
    return half, rounded


@kernel("MatMulNBits", since=1, domain=MICROSOFT)
def matmul_nbits(
    a: Array,
    b: Array,
    scales: Array,
    zero_points: Array | None = None,
    g_idx: Array | None = None,
    bias: Array | None = None,
    /,
    *,
    K: int,  # noqa: N803 - the spec's name
    N: int,  # noqa: N803 - the spec's name
    block_size: int,
    bits: int = 4,
    accuracy_level: int = 0,
    weight_prepacked: int = 0,
    stored: Stored = (None,),
) -> Array:
    """a · Wᵀ + bias, with W = (quantized − zero point) · scale by blocks along K.

    Args:
        a: (…, K), float.
        b: (N, blocks, block_size · bits / 8), uint8, the first value in the lowest bits of a byte.
        scales: (N, blocks), or flat.
        zero_points: uint8, packed like `b`: (N, ⌈blocks · bits / 8⌉), or flat; or of the type of `a`, (N, blocks);
            2^(bits − 1) if absent.
        g_idx: deprecated, not modelled.
        bias: (N,) or None.
        K: columns of `a`.
        N: columns of the output.
        block_size: weights that share a scale.
        bits: 2, 4 or 8.
        accuracy_level: 4 lets a runtime quantize `a` to int8 by blocks, 2 and 3 round it to float16 and bfloat16.
        weight_prepacked: not modelled: the layout is the provider's own.
        stored: dtypes of the inputs, for the scale.

    Returns:
        (…, N).

    Raises:
        InvalidInputError: what is not modelled.
        InvalidAttributeError: another number of bits.

    Spec: com.microsoft MatMulNBits, since 1
    """
    del accuracy_level, stored
    if g_idx is not None or weight_prepacked:
        raise InvalidInputError("MatMulNBits: g_idx and weight_prepacked are not modelled")
    if b.size == 0:
        y = np.zeros((*a.shape[:-1], N))
    else:
        y = np.matmul(a, _block_weights(b, scales, zero_points, K, N, bits, block_size).value.T)
    return y if bias is None else y + bias


@scale("MatMulNBits", since=1, domain=MICROSOFT)
def matmul_nbits_scale(
    y: Array,
    a: Array,
    b: Array,
    scales: Array,
    zero_points: Array | None = None,
    _g_idx: Array | None = None,
    bias: Array | None = None,
    /,
    *,
    K: int,  # noqa: N803
    N: int,  # noqa: N803
    block_size: int,
    bits: int = 4,
    accuracy_level: int = 0,
    stored: Stored = (None,),
) -> Scale:
    """COMPOSED: a dot over K at |a|·|W| + |bias|, where each weight is rounded twice; and, where `accuracy_level`
    allows a narrower `a`, its errors: one standard deviation, or what these inputs show, and all over the bound 2k."""
    if b.size == 0:
        return Scale(np.abs(y), 0, Rule.EXACT)
    weights = _block_weights(b, scales, zero_points, K, N, bits, block_size)
    size = np.matmul(np.abs(a), weights.size.T)
    size = size if bias is None else size + np.abs(bias)
    terms = K + WEIGHT_ROUNDINGS + (bias is not None)
    format_ = float_format(stored[0] or np.dtype(np.float32))
    error = _input_error(a, weights.value, accuracy_level, block_size)
    certain = error.most / (2 * growth(terms, format_))
    narrow = np.maximum(np.maximum(error.deviation, error.shown), certain) / half_unit(format_)
    return Scale(size + narrow, terms, Rule.COMPOSED, spread=1.0)
