"""GroupQueryAttention and RotaryEmbedding of ONNX Runtime (com.microsoft).

Spec: docs/ContribOperators.md of ONNX Runtime, version 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ._key_value_cache import Lengths, WindowCache, cached, lengths_of
from ._scaled_dot_product import HIDDEN, Attended, Operand, attend, exactly, join_heads, split_heads
from ._spilling import unspecified
from .attention import rotary_embedding, rotary_embedding_scale
from .contrib_attention import factor_of, refused, with_blind_open
from .contrib_products import MICROSOFT
from .normalization import ROUNDINGS, rms_normalization
from .registry import kernel, scale
from .scale import Array, Rule, Scale

QK_EPSILON = float(np.float32(1e-6))
AFTER_SOFTMAX = 2
"""`qk_output`: 1 shows the scores, 2 the probabilities."""


def _placed(x: Array, position_ids: Array) -> Array:
    """(B, T) positions: given for every token, or one for the first of all rows."""
    B, T = x.shape[0], x.shape[-2]
    if position_ids.size == 1 and T * B > 1:
        return np.broadcast_to(position_ids.reshape(1, 1) + np.arange(T), (B, T))
    return position_ids.reshape(B, T)


def _heads_of(x: Array, cos_cache: Array, num_heads: int) -> int:
    return num_heads or (x.shape[2] // (2 * cos_cache.shape[1]) if x.ndim == 3 else 0)


def rotary_embedding_magnitude(
    _y: Array,
    x: Array,
    position_ids: Array,
    cos_cache: Array,
    sin_cache: Array,
    /,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Scale:
    """DOT of two products, as in the default domain."""
    return rotary_embedding_scale(
        _y,
        x,
        cos_cache,
        sin_cache,
        _placed(x, position_ids),
        interleaved=interleaved,
        num_heads=_heads_of(x, cos_cache, num_heads),
        rotary_embedding_dim=rotary_embedding_dim,
    )


@kernel("RotaryEmbedding", since=1, domain=MICROSOFT, scale=rotary_embedding_magnitude)
def microsoft_rotary_embedding(
    x: Array,
    position_ids: Array,
    cos_cache: Array,
    sin_cache: Array,
    /,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    is_packed_batching: int = 0,
    scale: float = 1.0,
) -> Array:
    """Rotate pairs of features by an angle that depends on the position.

    Args:
        x: (B, heads, T, D), or (B, T, heads · D).
        position_ids: (B, T), or (1,): the position of the first token of every row.
        cos_cache: (positions, size / 2); so is `sin_cache`.
        sin_cache: see cos_cache.
        interleaved: pairs are neighbours instead of halves.
        num_heads: for 3-D input; by default as many as features twice the caches' width.
        rotary_embedding_dim: how many leading features are rotated, 0 for all.
        is_packed_batching: not modelled.
        scale: only 1: the schema does not say of what it is a factor, and ONNX Runtime applies none on CPU.

    Returns:
        Like `x`.

    Raises:
        InvalidInputError: what is not modelled.

    Spec: com.microsoft RotaryEmbedding, since 1. Paper: https://arxiv.org/abs/2104.09864
    """
    refused("RotaryEmbedding", is_packed_batching=is_packed_batching, scale=scale not in (0.0, 1.0))
    return rotary_embedding(
        x,
        cos_cache,
        sin_cache,
        _placed(x, position_ids),
        interleaved=interleaved,
        num_heads=_heads_of(x, cos_cache, num_heads),
        rotary_embedding_dim=rotary_embedding_dim,
    )


@dataclass(frozen=True)
class Rotation:
    """How queries and keys are turned."""

    cos: Array
    sin: Array
    positions: Array
    interleaved: int

    def of(self, x: Operand) -> Operand:
        """Rotated, with the rotation's own error and what it passes on."""
        value = rotary_embedding(x.value, self.cos, self.sin, self.positions, **self._attributes())
        return Operand(value, self._size(x.value) + (self._size(x.error) if x.error.ndim else 0.0))

    def _size(self, x: Array) -> Array:
        return rotary_embedding_scale(x, x, self.cos, self.sin, self.positions, **self._attributes()).magnitude

    def _attributes(self) -> dict[str, int]:
        return {"interleaved": self.interleaved, "rotary_embedding_dim": 2 * self.cos.shape[-1]}


def _positions(lengths: Lengths, position_ids: Array | None, T: int, *, prompt: bool) -> Array:  # noqa: N803
    """(B, T), 0 for padding; of the given ones a first prompt has the very first alone, from which it counts."""
    if position_ids is None:
        places = lengths.before[:, None] + np.arange(T)
    elif prompt:
        places = position_ids.reshape(-1)[:1, None] + np.arange(T)
    else:
        places = position_ids.reshape(-1, position_ids.shape[-1])
    return np.where(np.arange(T) < lengths.valid[:, None], places, 0)


@dataclass(frozen=True)
class Grouped:
    """One GroupQueryAttention: the cache after it, what came of the heads, `total_sequence_length`, and which rows are
    valid."""

    k: Operand
    v: Operand
    attended: Attended
    total: int
    hidden: Array
    blind: Array
    stale: Array
    rotated: bool
    normalised: bool


def _split(
    query: Array, key: Array | None, value: Array | None, num_heads: int, kv_num_heads: int
) -> tuple[Array, Array, Array]:
    if key is None or value is None:
        size = query.shape[2] // (num_heads + 2 * kv_num_heads)
        query, key, value = np.split(query, np.cumsum([num_heads * size, kv_num_heads * size]), axis=2)
    if query.shape[:2] != key.shape[:2] or key.ndim != 3:
        raise InvalidInputError(f"GroupQueryAttention: query {query.shape}, key {key.shape} are not modelled")
    return split_heads(query, num_heads), split_heads(key, kv_num_heads), split_heads(value, kv_num_heads)


def _window_cache(past: Array | None, attributes: dict[str, Any]) -> WindowCache | None:
    window, causal = attributes.get("local_window_size", -1), attributes.get("causal", 1)
    if not attributes.get("sliding_window_cache"):
        return None
    if past is None or not 0 < window <= past.shape[2] or not causal:
        raise InvalidInputError(f"GroupQueryAttention: a sliding_window_cache with local_window_size={window}")
    return WindowCache(past.shape[2], window)


def _visible(lengths: Lengths, capacity: int, T: int, causal: int, window: int) -> Array:  # noqa: N803
    keys = np.arange(capacity)
    position = (lengths.before[:, None] + np.arange(T))[:, None, :, None]  # (B, 1, T, 1)
    seen = np.broadcast_to(keys < lengths.total.reshape(-1, 1, 1, 1), (len(lengths.total), 1, T, capacity))
    if causal:
        seen = seen & (keys <= position)
    return seen & (keys > position - window) if window > 0 else seen


def _grouped(inputs: Sequence[Array | None], attributes: dict[str, Any]) -> Grouped:
    padded = [*inputs, *[None] * 17][:17]
    query, key, value, past_key, past_value, seqlens_k, longest, cos, sin, position_ids, added, sink = padded[:12]
    q_weight, k_weight, query_seqlens = padded[14:]
    if query is None or seqlens_k is None or longest is None:
        raise InvalidInputError("GroupQueryAttention: query, seqlens_k and total_sequence_length are needed")
    refused("GroupQueryAttention", k_scale=padded[12], v_scale=padded[13])
    num_heads, kv_num_heads = attributes["num_heads"], attributes["kv_num_heads"]
    T, total = query.shape[1], int(longest.reshape(-1)[0])
    q, k, v = (exactly(x) for x in _split(query, key, value, num_heads, kv_num_heads))
    lengths = lengths_of(seqlens_k, query_seqlens, T)
    if q_weight is not None and k_weight is not None:
        epsilon = attributes.get("qk_norm_epsilon", QK_EPSILON)
        q = _normalised(q, q_weight, attributes.get("q_norm_epsilon") or epsilon)
        k = _normalised(k, k_weight, attributes.get("k_norm_epsilon") or epsilon)
    rotary = bool(attributes.get("do_rotary")) and cos is not None and sin is not None
    if rotary and cos is not None and sin is not None:
        places = _positions(lengths, position_ids, T, prompt=query_seqlens is None and total == T)
        turn = Rotation(cos, sin, places, attributes.get("rotary_interleaved", 0))
        q, k = turn.of(q), turn.of(k)
    rolling = _window_cache(past_key, attributes)
    capacity = max(total, 0 if past_key is None or rolling is not None else past_key.shape[2])
    if rolling is not None and past_key is not None and past_value is not None:
        past_key, past_value = (rolling.unrolled(past, lengths, capacity) for past in (past_key, past_value))
    k, v = cached(k, past_key, lengths, capacity), cached(v, past_value, lengths, capacity)
    seen = _visible(lengths, capacity, T, attributes.get("causal", 1), attributes.get("local_window_size", -1))
    bias = np.where(seen, 0.0, HIDDEN)
    if added is not None:
        missing = capacity - added.shape[-1]
        bias = bias + np.pad(added, [(0, 0)] * 3 + [(0, max(missing, 0))])[..., :capacity]
    if sink is None and attributes.get("smooth_softmax", -1) == 1:
        sink = np.zeros(num_heads)
    factor = factor_of(attributes.get("scale"), q.value.shape[-1])
    known_k, known_v = (replace(x, error=np.where(np.isinf(x.error), 0.0, x.error)) for x in (k, v))
    result = attend(q, known_k, known_v, bias, factor, softcap=attributes.get("softcap") or 0.0, sink=sink)
    stale = (np.arange(T) >= lengths.valid[:, None])[:, None, :, None]
    blind = np.asarray(~seen.any(axis=-1, keepdims=True))
    if rolling is not None:
        k, v = rolling.rolled(k, lengths), rolling.rolled(v, lengths)
    return Grouped(k, v, result, total, ~seen, blind, stale, rotary, q_weight is not None)


def _normalised(x: Operand, weight: Array, epsilon: float) -> Operand:
    value = rms_normalization(x.value, weight, epsilon=epsilon)
    return Operand(value, ROUNDINGS * np.abs(value))


@kernel("GroupQueryAttention", since=1, domain=MICROSOFT)
def group_query_attention(
    *inputs: Array | None,
    num_heads: int,
    kv_num_heads: int,
    causal: int = 1,
    do_rotary: int = 0,
    rotary_interleaved: int = 0,
    local_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    smooth_softmax: int = -1,
    qk_output: int = 0,
    qk_norm_epsilon: float = QK_EPSILON,
    q_norm_epsilon: float | None = None,
    k_norm_epsilon: float | None = None,
    k_quant_type: str = "NONE",
    v_quant_type: str = "NONE",
    kv_cache_bit_width: int = 0,
    sliding_window_cache: int = 0,
    output_count: int = 1,
) -> tuple[Array | None, ...]:
    """Causal attention with a cache, where several query heads share a head of keys and values.

    Args:
        inputs: query (B, T, num_heads · D), or packed with keys and values; key, value (B, T, kv_num_heads · D);
            past_key and past_value (B, kv_num_heads, cached, D); seqlens_k (B,), the tokens cached after this step less
            one; total_sequence_length, the most of them; cos_cache and sin_cache (positions, size / 2);
            position_ids (B, T), of which a first prompt counts on from the very first; attention_bias (B or 1,
            num_heads or 1, T, total); head_sink (num_heads,); k_scale and v_scale (not modelled); q_norm_weight and
            k_norm_weight (D,); query_seqlens (B,).
        num_heads: of queries.
        kv_num_heads: of keys and values; divides num_heads.
        causal: a query sees the keys up to its own position.
        do_rotary: rotate queries and keys by their positions; rotary_interleaved: pairs are neighbours.
        rotary_interleaved: see do_rotary.
        local_window_size: so many last keys are seen, the query's own one included; −1 for all.
        scale: of the scores, 1 / sqrt(D) by default.
        softcap: c · tanh(score / c) before the bias, if not 0.
        smooth_softmax: 1 adds a score of 0 to each softmax where there is no head_sink.
        qk_output: what the fourth output shows: 1 scores, 2 probabilities.
        qk_norm_epsilon: of the root mean square norm of each head, unless q_norm_epsilon or k_norm_epsilon is given.
        q_norm_epsilon: see qk_norm_epsilon.
        k_norm_epsilon: see qk_norm_epsilon.
        k_quant_type: only NONE; nor are v_quant_type and kv_cache_bit_width modelled.
        v_quant_type: see k_quant_type.
        kv_cache_bit_width: see k_quant_type.
        sliding_window_cache: 1 for a cache that keeps its last tokens only, local_window_size of them at least.
        output_count: outputs wanted.

    Returns:
        (Y (B, T, num_heads · D), present_key, present_value, chosen stage (B, num_heads, T, total_sequence_length)),
        the first `output_count`. Rows of padding, and of the cache behind its last token, are unspecified.

    Raises:
        InvalidInputError: lengths that do not go together, or what is not modelled.

    Spec: com.microsoft GroupQueryAttention, since 1. Paper: https://arxiv.org/abs/2305.13245. The schema does not say
    which scores qk_output=1 shows behind a soft cap and a bias, nor for hidden keys: these are left open.
    """
    attributes = {
        "num_heads": num_heads,
        "kv_num_heads": kv_num_heads,
        "causal": causal,
        "do_rotary": do_rotary,
        "rotary_interleaved": rotary_interleaved,
        "local_window_size": local_window_size,
        "sliding_window_cache": sliding_window_cache,
        "scale": scale,
        "softcap": softcap,
        "smooth_softmax": smooth_softmax,
        "qk_norm_epsilon": qk_norm_epsilon,
        "q_norm_epsilon": q_norm_epsilon,
        "k_norm_epsilon": k_norm_epsilon,
    }
    quantized = k_quant_type != "NONE" or v_quant_type != "NONE" or kv_cache_bit_width
    stage = sliding_window_cache and qk_output
    refused("GroupQueryAttention", cache_quantization=quantized, qk_output_of_a_sliding_window_cache=stage)
    done = _grouped(inputs, attributes)
    shown = done.attended.probabilities if qk_output == AFTER_SOFTMAX else done.attended.scores
    shown = np.where(done.hidden, 0.0, shown)[..., : done.total]
    return (join_heads(done.attended.y), done.k.value, done.v.value, shown)[:output_count]


@scale("GroupQueryAttention", since=1, domain=MICROSOFT)
def group_query_attention_scale(
    _y: tuple[Array, ...] | Array,
    *inputs: Array | None,
    qk_output: int = 0,
    output_count: int = 1,
    **attributes: Any,
) -> tuple[Scale, ...]:
    """COMPOSED: rotation (two products) and normalisation of queries and keys are passed on by `attend`; the cache has
    the new tokens with these errors, and the old ones exactly."""
    done = _grouped(inputs, attributes)
    attended, lost = done.attended, done.blind | done.stale
    if qk_output == AFTER_SOFTMAX:
        shown = attended.probabilities_size
    else:
        added = [*inputs, *[None] * 11][10]
        unknown = done.hidden | (added is not None or bool(attributes.get("softcap")))
        shown = np.where(unknown, np.inf, attended.scores_size)
    rule = Rule.COMPOSED if done.normalised else Rule.DOT
    terms = done.k.value.shape[-1] if done.normalised else 2
    keys = Scale(done.k.error, terms, rule) if done.normalised or done.rotated else Scale(done.k.error, 1, Rule.ULP)
    values = Scale(done.v.error, 1, Rule.ULP)
    return (
        attended.scale(join_heads(with_blind_open(attended.y_size, lost))),
        *(unspecified(cache, np.isinf(cache.magnitude)) for cache in (keys, values)),
        attended.scale(with_blind_open(shown, lost)[..., : done.total]),
    )[:output_count]
