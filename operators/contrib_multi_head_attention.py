"""MultiHeadAttention as ONNX Runtime fuses it (com.microsoft): queries, keys and values in any of its layouts.

Spec: docs/ContribOperators.md of ONNX Runtime, version 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidInputError
from ._elementwise import ONCE
from ._scaled_dot_product import Attended, Operand, attend, exactly, join_heads, split_heads
from .contrib_attention import factor_of, refused, visibility, with_blind_open
from .contrib_products import MICROSOFT
from .registry import kernel, scale
from .scale import Array, Rule, Scale


def _with_bias(x: Array, bias: Array | None) -> Operand:
    """(B, T, hidden) plus (hidden,): one rounding."""
    return exactly(x) if bias is None else Operand(x + bias, np.abs(x + bias))


def _each(x: Operand, heads: int) -> Operand:
    error = x.error if x.error.ndim == 0 else split_heads(x.error, heads)
    return Operand(split_heads(x.value, heads), error)


def _unpacked(
    query: Array, key: Array | None, value: Array | None, bias: Array | None, heads: int
) -> tuple[Operand, Operand, Operand]:
    """Queries, keys and values over heads from any of the layouts that the schema allows."""
    if query.ndim == 5:  # (B, T, heads, 3, D)
        flat = query.reshape(*query.shape[:2], heads, 3, -1)
        parts = [flat[:, :, :, i].reshape(*query.shape[:2], -1) for i in range(3)]
    elif key is None:
        raise InvalidInputError("MultiHeadAttention: without a key the query must be packed: (B, T, heads, 3, D)")
    elif key.ndim == 5:  # (B, S, heads, 2, D)
        parts = [query, *(key[:, :, :, i].reshape(*key.shape[:2], -1) for i in range(2))]
    elif value is None:
        raise InvalidInputError("MultiHeadAttention: without a value the key must be packed: (B, S, heads, 2, D)")
    else:
        parts = [query, key, value]
    widths = [x.shape[1] * x.shape[3] if x.ndim == 4 else x.shape[2] for x in parts]
    shifts = [None] * 3 if bias is None else np.split(bias, np.cumsum(widths)[:2])
    if bias is not None and bias.size != sum(widths):
        raise InvalidInputError(f"MultiHeadAttention: bias of {bias.size} elements for hidden sizes {widths}")
    # Keys and values that come as (B, heads, S, D) are those of a cross attention's cache: they have their bias.
    operands = [
        exactly(x) if x.ndim == 4 else _each(_with_bias(x, shift), heads)
        for x, shift in zip(parts, shifts, strict=True)
    ]
    return operands[0], operands[1], operands[2]


@dataclass(frozen=True)
class MultiHead:
    """One MultiHeadAttention: keys and values with the past, and what came of them.

    Attributes:
        k: keys; so are values `v`.
        v: see k.
        attended: over all of them.
        blind: queries for which every key is masked.
        shifted: scores to which a mask or a bias is added.
    """

    k: Operand
    v: Operand
    attended: Attended
    blind: Array
    shifted: Array


def _multi_head(
    inputs: Sequence[Array | None],
    num_heads: int,
    unidirectional: int,
    mask_filter_value: float | None,
    scale_attribute: float | None,
) -> MultiHead:
    query, key, value, bias, padding, attention_bias, past_key, past_value, *rest = [*inputs, *[None] * 10][:10]
    if query is None:
        raise InvalidInputError("MultiHeadAttention: the query is absent")
    refused("MultiHeadAttention", past_sequence_length=rest[0], cache_indirection=rest[1])
    q, k, v = _unpacked(query, key, value, bias, num_heads)
    k, v = k.behind(past_key), v.behind(past_value)
    before = 0 if past_key is None else past_key.shape[2]
    shape = (q.value.shape[0], q.value.shape[2], k.value.shape[2])
    seen = visibility(shape, padding, before, unidirectional, mask_filter_value)
    added = seen.bias if attention_bias is None else seen.bias + attention_bias
    factor = factor_of(scale_attribute, q.value.shape[-1])
    shifted = np.asarray((seen.bias != 0) | (attention_bias is not None))
    return MultiHead(k, v, attend(q, k, v, added, factor), seen.blind, shifted)


@kernel("MultiHeadAttention", since=1, domain=MICROSOFT)
def multi_head_attention(
    query: Array,
    key: Array | None = None,
    value: Array | None = None,
    bias: Array | None = None,
    key_padding_mask: Array | None = None,
    attention_bias: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    past_sequence_length: Array | None = None,
    cache_indirection: Array | None = None,
    /,
    *,
    num_heads: int,
    unidirectional: int = 0,
    mask_filter_value: float | None = None,
    scale: float | None = None,
    output_count: int = 1,
) -> tuple[Array, ...]:
    """Attention over heads of queries, keys and values that are projected already.

    Args:
        query: (B, T, hidden), or (B, T, num_heads, 3, D) with keys and values.
        key: (B, S, hidden), (B, S, num_heads, 2, D) with values, (B, num_heads, S, D) of a cache; or None.
        value: (B, S, v_hidden) or (B, num_heads, S, Dv), or None.
        bias: (hidden + hidden + v_hidden,), added before heads are split; not to keys and values of a cache.
        key_padding_mask: (B, S) or (B, T, S) with 0 for masked, or (B,) ends of the keys.
        attention_bias: added to the scores, (B or 1, num_heads or 1, T, S).
        past_key: (B, num_heads, past, D); so is `past_value` with Dv.
        past_value: see past_key.
        past_sequence_length: not modelled; nor is `cache_indirection`.
        cache_indirection: not modelled.
        num_heads: of all three.
        unidirectional: a query sees the keys up to its own position, which is specified for self attention only.
        mask_filter_value: added where masked, −10000 by default; keys behind the position are left out altogether.
        scale: of the scores, 1 / sqrt(D) by default.
        output_count: outputs wanted.

    Returns:
        (Y (B, T, v_hidden), present_key, present_value, scores (B, num_heads, T, S)), the first `output_count`.

    Raises:
        InvalidInputError: shapes that do not go together, or what is not modelled.

    Spec: com.microsoft MultiHeadAttention, since 1. Where every key is masked the schema leaves the output open. The
    last one it calls "normalized Q * K": ONNX Runtime has the scaled product before the softmax there, which is taken.
    Whether a mask or a bias is added to it the schema does not say: these scores are open.
    """
    inputs = (query, key, value, bias, key_padding_mask, attention_bias, past_key, past_value)
    everything = (*inputs, past_sequence_length, cache_indirection)
    done = _multi_head(everything, num_heads, unidirectional, mask_filter_value, scale)
    outputs = (
        join_heads(done.attended.y),
        done.k.value,
        done.v.value,
        np.where(done.shifted, 0.0, done.attended.scores),
    )
    return outputs[:output_count]


@scale("MultiHeadAttention", since=1, domain=MICROSOFT)
def multi_head_attention_scale(
    _y: tuple[Array, ...] | Array,
    *inputs: Array | None,
    num_heads: int,
    unidirectional: int = 0,
    mask_filter_value: float | None = None,
    scale: float | None = None,
    output_count: int = 1,
) -> tuple[Scale, ...]:
    """COMPOSED: see `attend`; a bias is one rounding of queries, keys and values, and all that the cache has."""
    done = _multi_head(inputs, num_heads, unidirectional, mask_filter_value, scale)
    attended = done.attended
    return (
        attended.scale(join_heads(with_blind_open(attended.y_size, done.blind))),
        Scale(done.k.error, ONCE, Rule.ULP),
        Scale(done.v.error, ONCE, Rule.ULP),
        attended.scale(np.where(done.shifted, np.inf, attended.scores_size)),
    )[:output_count]
