"""Attention as ONNX Runtime fuses it: Attention and MultiHeadAttention (com.microsoft).

Spec: docs/ContribOperators.md of ONNX Runtime, version 1. What a schema offers and no graph optimiser makes (shared
buffers, beams, packed batches) is refused, so that such a node is UNJUDGED and not misjudged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._contraction import MAGNITUDE, VALUE, products_in_passes
from ._scaled_dot_product import HIDDEN, Attended, Operand, attend, join_heads, split_heads
from .contrib_products import MICROSOFT
from .registry import kernel, scale
from .scale import Array, Rule, Scale

MASKED = -10000.0
"""What a mask adds to the score of a masked key, if `mask_filter_value` does not say otherwise."""


def refused(op_type: str, **absent: object) -> None:
    """Refuse inputs and attributes that the kernel does not know.

    Raises:
        InvalidInputError: one of them is given, and not 0.
    """
    for name, value in absent.items():
        if value is not None and (isinstance(value, np.ndarray) or value):
            raise InvalidInputError(f"{op_type}: {name} is not modelled by this kernel")


@dataclass(frozen=True)
class Visibility:
    """Which keys take part.

    Attributes:
        bias: what is added to the scores, broadcastable to (B, H, T, S).
        blind: (B or 1, 1, T or 1, 1): queries for which every key is masked. The schema does not say what comes out
            there: the mask's finite number leaves a softmax over masked keys, leaving them out leaves nothing.
    """

    bias: Array
    blind: Array


def visibility(
    shape: tuple[int, int, int], mask: Array | None, past: int, unidirectional: int, filter_value: float | None
) -> Visibility:
    """The bias that a mask and the direction make.

    Args:
        shape: (B, T, S), S with the past.
        mask: (B, S) or (B, T, S), 0 for masked; (B,) ends of the keys; (2·B,) ends, then starts; or None.
        past: keys before the first query.
        unidirectional: query i sees the keys up to past + i.
        filter_value: added where masked, −10000 by default.

    Raises:
        InvalidInputError: a mask of another shape.
    """
    _, T, S = shape
    visible = _by_mask(mask, shape)
    bias = np.where(visible, 0.0, MASKED if filter_value is None else filter_value)
    before = np.ones((1, 1, 1, S), bool)
    if unidirectional:
        if past + T != S:
            raise InvalidInputError(f"unidirectional attention of {T} queries over {S} keys: no position is specified")
        before = (np.arange(S) <= past + np.arange(T)[:, None])[None, None]
        bias = bias + np.where(before, 0.0, HIDDEN)
    return Visibility(bias, np.asarray(~(visible & before).any(axis=-1, keepdims=True)))


def _by_mask(mask: Array | None, shape: tuple[int, int, int]) -> Array:
    B, T, S = shape
    if mask is None:
        return np.ones((1, 1, 1, S), bool)
    if mask.shape == (B, S):
        return (mask != 0)[:, None, None, :]
    if mask.shape == (B, T, S):
        return (mask != 0)[:, None]
    ends = mask[:B].reshape(-1, 1, 1, 1) if mask.ndim == 1 else None
    if ends is not None and mask.shape == (B,):
        return np.arange(S) < ends
    if ends is not None and mask.shape == (2 * B,):
        return (np.arange(S) < ends) & (np.arange(S) >= mask[B:].reshape(-1, 1, 1, 1))
    raise InvalidInputError(f"attention: a mask of shape {mask.shape} for B={B}, T={T}, S={S} is not modelled")


def with_blind_open(size: Array, blind: Array) -> Array:
    """Sizes (B, H, T, …), infinite for queries that see no key."""
    return np.where(blind, np.inf, size) if blind.any() else size


def factor_of(scale_attribute: float | None, head_size: int) -> float:
    """The factor of the scores: 1 / sqrt(head_size) by default, also where the attribute is 0, as exporters write."""
    return scale_attribute if scale_attribute else 1 / math.sqrt(max(head_size, 1))


@dataclass(frozen=True)
class Projected:
    """One com.microsoft Attention: keys and values with the past, and what came of them."""

    k: Operand
    v: Operand
    attended: Attended
    blind: Array
    terms: int


@dataclass(frozen=True)
class Form:
    """What is attended to, and how: inputs and attributes that Attention shares with QAttention, by their names."""

    num_heads: int
    mask_index: Array | None
    past: Array | None
    attention_bias: Array | None
    unidirectional: int
    mask_filter_value: float | None
    scale: float | None

    def over_heads(self, value: Array, error: Array, sizes: Sequence[int], terms: int) -> Projected:
        """Attention over heads of queries, keys and values side by side: (B, T, Σ sizes)."""
        cuts = np.cumsum(sizes)[:2]
        parts = zip(np.split(value, cuts, axis=-1), np.split(error, cuts, axis=-1), strict=True)
        q, k, v = (Operand(split_heads(y, self.num_heads), split_heads(e, self.num_heads)) for y, e in parts)
        if self.past is not None:
            k, v = k.behind(self.past[0]), v.behind(self.past[1])
        before = 0 if self.past is None else self.past.shape[3]
        shape = (value.shape[0], value.shape[1], k.value.shape[2])
        seen = visibility(shape, self.mask_index, before, self.unidirectional, self.mask_filter_value)
        added = seen.bias if self.attention_bias is None else seen.bias + self.attention_bias
        result = attend(q, k, v, added, factor_of(self.scale, q.value.shape[-1]), terms=terms)
        return Projected(k, v, result, seen.blind, terms)


def _project(
    x: Array, weights: Array, bias: Array | None, qkv_hidden_sizes: Sequence[int] | None, form: Form
) -> Projected:
    if x.ndim != 3 or weights.ndim != 2 or x.shape[-1] != weights.shape[0]:
        raise InvalidInputError(f"Attention: input of shape {x.shape} does not go with weights {weights.shape}")
    sizes = [weights.shape[1] // 3] * 3 if not qkv_hidden_sizes else list(qkv_hidden_sizes)
    if sum(sizes) != weights.shape[1]:
        raise InvalidAttributeError(f"Attention: hidden sizes {sizes} for weights of shape {weights.shape}")
    value, size = products_in_passes(x, weights, (VALUE, MAGNITUDE))
    size = size.astype(np.float64) * (1 + 2.0**-10)
    if bias is not None:
        value, size = value + bias, size + np.abs(bias)
    return form.over_heads(value, size, sizes, weights.shape[0] + (bias is not None))


@kernel("Attention", since=1, domain=MICROSOFT)
def microsoft_attention(
    x: Array,
    weights: Array,
    bias: Array | None = None,
    mask_index: Array | None = None,
    past: Array | None = None,
    attention_bias: Array | None = None,
    past_sequence_length: Array | None = None,
    /,
    *,
    num_heads: int,
    qkv_hidden_sizes: Sequence[int] | None = None,
    unidirectional: int = 0,
    mask_filter_value: float | None = None,
    scale: float | None = None,
    do_rotary: int = 0,
    rotary_embedding_dim: int = 0,
    past_present_share_buffer: int = 0,
    output_count: int = 1,
) -> tuple[Array, ...]:
    """Projection of `x` to queries, keys and values, and attention over heads.

    Args:
        x: (B, T, N).
        weights: (N, hidden + hidden + v_hidden): of queries, keys and values.
        bias: (hidden + hidden + v_hidden,) or None.
        mask_index: (B, S) or (B, T, S) with 0 for masked; (B,) ends of the keys; (2·B,) ends, then starts; or None.
        past: (2, B, num_heads, past, D), keys and values before these.
        attention_bias: added to the scores, (B or 1, num_heads or 1, T, S).
        past_sequence_length: not modelled.
        num_heads: of all three.
        qkv_hidden_sizes: a third of the weights' columns each by default.
        unidirectional: a query sees the keys up to its own position.
        mask_filter_value: added where masked, −10000 by default; keys behind the position are left out altogether.
        scale: of the scores, 1 / sqrt(D) by default.
        do_rotary: not modelled; nor are rotary_embedding_dim and past_present_share_buffer.
        output_count: 2 for the keys and values too.

    Returns:
        (Y (B, T, v_hidden), present (2, B, num_heads, S, D)), the first `output_count`.

    Raises:
        InvalidInputError: shapes that do not go together, or what is not modelled.
        InvalidAttributeError: hidden sizes that do not add up.

    Spec: com.microsoft Attention, since 1. Where every key is masked the schema leaves the output open.
    """
    refused(
        "Attention",
        past_sequence_length=past_sequence_length,
        do_rotary=do_rotary,
        rotary_embedding_dim=rotary_embedding_dim,
        past_present_share_buffer=past_present_share_buffer,
    )
    form = Form(num_heads, mask_index, past, attention_bias, unidirectional, mask_filter_value, scale)
    done = _project(x, weights, bias, qkv_hidden_sizes, form)
    y = join_heads(done.attended.y)
    return (y,) if output_count == 1 else (y, np.stack([done.k.value, done.v.value]))


@scale("Attention", since=1, domain=MICROSOFT)
def microsoft_attention_scale(
    _y: tuple[Array, ...] | Array,
    x: Array,
    weights: Array,
    bias: Array | None = None,
    mask_index: Array | None = None,
    past: Array | None = None,
    attention_bias: Array | None = None,
    _past_sequence_length: Array | None = None,
    /,
    *,
    num_heads: int,
    qkv_hidden_sizes: Sequence[int] | None = None,
    unidirectional: int = 0,
    mask_filter_value: float | None = None,
    scale: float | None = None,
    output_count: int = 1,
) -> tuple[Scale, ...]:
    """COMPOSED: the projection is a dot over N at |x|·|W| + |b|, passed on by `attend`; what is cached is that dot."""
    form = Form(num_heads, mask_index, past, attention_bias, unidirectional, mask_filter_value, scale)
    done = _project(x, weights, bias, qkv_hidden_sizes, form)
    first = done.attended.scale(join_heads(with_blind_open(done.attended.y_size, done.blind)))
    if output_count == 1:
        return (first,)
    return first, Scale(np.stack([done.k.error, done.v.error]), done.terms, Rule.DOT)
