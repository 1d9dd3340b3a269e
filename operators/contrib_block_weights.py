"""Weights that are quantized by blocks, in ONNX Runtime (com.microsoft): a product with them, and rows of them.

Spec: docs/ContribOperators.md of ONNX Runtime, version 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._casting import widen
from ._elementwise import ONCE, axis_index
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
        raise InvalidAttributeError(f"weights by blocks: bits={bits}; modelled are 2, 4 and 8")
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return values.reshape(*packed.shape[:-1], packed.shape[-1] * len(shifts))[..., :count]


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


PACKED = np.dtype(np.uint8)
"""The type of tensors that hold several values in a byte."""


def _unpacked(values: Array, bits: int) -> Array:
    """(…, n) float64 of what may be packed along the last dimension."""
    count = values.shape[-1] * 8 // bits if values.dtype == PACKED else 0
    return (unpack_bits(values, bits, count) if values.dtype == PACKED else widen(values)).astype(np.float64)


def gather_block_quantized_scale(
    y: Array, data: Array, _indices: Array, scales: Array, _zero_points: Array | None = None, /, **_attributes: object
) -> Scale:
    """1 at |y| for the product, as values less their zero point are exact; 1 more where the reference is stored."""
    return Scale(np.abs(y.astype(np.float64)), (1 + (y.dtype != np.float64)) * ONCE, Rule.ULP)


@kernel("GatherBlockQuantized", since=1, domain=MICROSOFT, scale=gather_block_quantized_scale)
def gather_block_quantized(
    data: Array,
    indices: Array,
    scales: Array,
    zero_points: Array | None = None,
    /,
    *,
    bits: int = 4,
    block_size: int = 128,
    gather_axis: int = 0,
    quantize_axis: int = 1,
    stored: Stored,
) -> Array:
    """Gather, and (value − zero point) · scale with a scale and a zero point for each block along `quantize_axis`.

    Args:
        data: 4-bit integers, 8- or 4-bit floats; or uint8, packed along the last dimension, the first value in the
            lowest bits.
        indices: of any shape; negative ones count from the end; of one outside the result is 0.
        scales: like `data` unpacked, but with one for each block along `quantize_axis`; a size of 1 is for all.
        zero_points: as `scales`, of the type of `data`, and packed if that is; if absent 0, for uint8 2^(bits − 1).
        bits: of values in uint8.
        block_size: values that share a scale; 0 for all along `quantize_axis`.
        gather_axis: 0 for uint8, and not `quantize_axis`.
        quantize_axis: in [−rank, rank).

    Returns:
        The shape of Gather, unpacked, in the type of the scales.

    Raises:
        InvalidAttributeError: an axis outside [−rank, rank), or a number of bits that is not modelled.
        InvalidInputError: axes that uint8 cannot have; floats with zero points; scales of another shape.

    Spec: com.microsoft GatherBlockQuantized, since 1
    """
    along, blocked = (axis_index("GatherBlockQuantized", axis, data.ndim) for axis in (gather_axis, quantize_axis))
    if data.dtype == PACKED and (along or not blocked):
        raise InvalidInputError(
            f"GatherBlockQuantized: gather_axis={along} with quantize_axis={blocked} of {data.dtype}"
        )
    if zero_points is not None and data.dtype.kind == "f":
        raise InvalidInputError("GatherBlockQuantized: floats have no zero points")
    _check_blocks(data, scales, bits, block_size, blocked)
    length = data.shape[along]
    inside = (indices >= -length) & (indices < length)
    places = np.where(inside, indices, 0)

    def taken(x: Array) -> Array:
        return np.take(x, places if x.shape[along] == length else np.zeros_like(places), axis=along)

    if along == blocked:
        y = taken(_dequantized(data, scales, zero_points, bits, block_size, blocked))
    else:  # a few rows of a large table
        parts = (taken(data), taken(scales), None if zero_points is None else taken(zero_points))
        axis = blocked if blocked < along else blocked + indices.ndim - 1
        y = _dequantized(*parts, bits, block_size, axis)
    y = np.where(inside.reshape(inside.shape + (1,) * (data.ndim - 1 - along)), y, 0.0)
    return y if data.dtype.kind != "f" or stored[2] is None else encode(y, stored[2])


def _dequantized(data: Array, scales: Array, zero_points: Array | None, bits: int, block_size: int, axis: int) -> Array:
    values = _unpacked(data, bits)
    count = values.shape[axis]
    zero = np.full((), 2.0 ** (bits - 1) if data.dtype == PACKED else 0.0)
    if zero_points is not None:
        zero = _by_blocks(_unpacked(zero_points, bits)[..., : scales.shape[-1]], block_size, count, axis)
    return (values - zero) * _by_blocks(scales, block_size, count, axis)


def _check_blocks(data: Array, scales: Array, bits: int, block_size: int, axis: int) -> None:
    packed = 8 // bits if data.dtype == PACKED else 1
    sizes = (*data.shape[:-1], data.shape[-1] * packed)
    blocks = tuple(-(-n // (block_size or n or 1)) if i == axis else n for i, n in enumerate(sizes))
    if scales.ndim != data.ndim or any(
        found not in (n, 1 if i != axis else n) for i, (found, n) in enumerate(zip(scales.shape, blocks, strict=True))
    ):
        raise InvalidInputError(f"GatherBlockQuantized: scales of shape {scales.shape} for blocks {blocks}")


def _by_blocks(parameter: Array, block_size: int, count: int, axis: int) -> Array:
    """One for each of `count` values along `axis`, of one for each block."""
    return np.repeat(parameter, block_size or count, axis=axis).take(range(count), axis=axis)
