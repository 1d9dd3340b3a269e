"""MatMulNBits of ONNX Runtime (com.microsoft): a product with weights that are quantized by blocks.

Spec: docs/ContribOperators.md of ONNX Runtime, version 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._fused_activation import Stored
from .contrib_products import MICROSOFT
from .registry import kernel, scale
from .rounding import growth, half_unit
from .scale import Array, Rule, Scale
from .storage import BFLOAT16, encode, float_format


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
