"""Attention (scaled dot product, multi-head) and rotary position embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from ..errors import InvalidAttributeError, InvalidInputError
from .parallel import by_rows
from .registry import kernel, scale
from .scale import Array, Rule, Scale
from .softmax import EXP_ROUNDINGS
from .storage import float_format


@dataclass(frozen=True)
class Heads:
    """Queries, keys and values split into heads, the cache joined: (B, heads, T, D); key heads repeated to query's.

    Attributes:
        q: (B, Hq, Tq, D).
        k: (B, Hkv, Tk, D); its cache included.
        v: (B, Hkv, Tk, Dv).
        offset: absolute position of the first query, (B,) or (1,).
        flat: whether inputs came as (B, T, hidden).
    """

    q: Array
    k: Array
    v: Array
    offset: Array
    flat: bool

    def repeated(self, x: Array) -> Array:
        """Keys or values, each head repeated for the queries that share it."""
        return x.repeat(self.q.shape[1] // x.shape[1], axis=1) if x.shape[1] != self.q.shape[1] else x


def _split(x: Array, heads: int) -> Array:
    B, T, hidden = x.shape
    if heads <= 0 or hidden % heads:
        raise InvalidAttributeError(f"Attention: {heads} heads do not divide a hidden size of {hidden}")
    return x.reshape(B, T, heads, hidden // heads).transpose(0, 2, 1, 3)  # (B, heads, T, D)


def _heads(
    q: Array,
    k: Array,
    v: Array,
    past_key: Array | None,
    past_value: Array | None,
    nonpad: Array | None,
    q_num_heads: int,
    kv_num_heads: int,
) -> Heads:
    flat = q.ndim == 3
    if q.ndim not in (3, 4) or k.ndim != v.ndim:
        raise InvalidInputError(f"Attention: Q, K, V of shapes {q.shape}, {k.shape}, {v.shape}; rank 3 or 4 expected")
    q = _split(q, q_num_heads) if q.ndim == 3 else q
    k, v = (_split(x, kv_num_heads) if x.ndim == 3 else x for x in (k, v))
    offset = np.zeros(1, np.int64)
    if past_key is not None and past_value is not None:
        offset = np.array([past_key.shape[2]])
        k, v = np.concatenate([past_key, k], axis=2), np.concatenate([past_value, v], axis=2)
    elif nonpad is not None:
        offset = nonpad.astype(np.int64) - q.shape[2]
    if q.shape[1] % k.shape[1]:
        raise InvalidInputError(f"Attention: {q.shape[1]} query heads are no multiple of {k.shape[1]} key heads")
    return Heads(q, k, v, offset, flat)


def _allowed(heads: Heads, nonpad: Array | None, is_causal: int, left: int, right: int) -> Array:
    """Which keys each query may attend by position alone: bool, broadcastable to (B, 1, Tq, Tk)."""
    keys = np.arange(heads.k.shape[2])[None, None, None, :]
    position = heads.offset[:, None, None, None] + np.arange(heads.q.shape[2])[None, None, :, None]
    allowed = np.ones((1, 1, 1, keys.size), bool)
    if is_causal:
        allowed = allowed & (keys <= position)
    if left >= 0:
        allowed = allowed & (keys >= position - left)
    if right >= 0:
        allowed = allowed & (keys <= position + right)
    if nonpad is not None:
        allowed = allowed & (keys < nonpad.reshape(-1, 1, 1, 1))
    return allowed


def _bias(mask: Array | None, allowed: Array, keys: int) -> Array:
    """What is added to the scores: 0 or −inf by position and boolean mask, or the mask's own numbers."""
    bias = np.where(allowed, 0.0, -np.inf)
    if mask is None:
        return bias
    added = np.where(mask, 0.0, -np.inf) if mask.dtype == bool else mask
    missing = keys - added.shape[-1]
    if missing > 0 and added.shape[-1] != 1:
        added = np.concatenate([added, np.full((*added.shape[:-1], missing), -np.inf)], axis=-1)
    return bias + added


@dataclass(frozen=True)
class Stages:
    """Every stage of one attention, (B, H, Tq, Tk) each: raw and capped scores, with bias, probabilities."""

    raw: Array
    capped: Array
    biased: Array
    probabilities: Array


def _stages(heads: Heads, bias: Array, factor: float, softcap: float) -> Stages:
    raw = np.matmul(heads.q * factor, heads.repeated(heads.k).swapaxes(-1, -2))
    capped = softcap * np.tanh(raw / softcap) if softcap else raw
    biased = capped + bias if bias.any() else capped
    return Stages(raw, capped, biased, by_rows(_probabilities, biased))


def _probabilities(scores: Array, out: Array) -> None:
    """Softmax of every row; zeros where no key may be attended."""
    peak = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    np.subtract(scores, np.where(np.isneginf(peak), 0.0, peak), out=out)
    np.exp(out, out=out)
    total = out.sum(axis=-1, keepdims=True)
    out /= np.where(total != 0, total, 1.0)


def _factor(scale_attribute: float | None, head_size: int) -> float:
    return 1 / math.sqrt(head_size) if scale_attribute is None else scale_attribute


@kernel("Attention", since=23)
def attention(
    q: Array,
    k: Array,
    v: Array,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    nonpad_kv_seqlen: Array | None = None,
    /,
    *,
    is_causal: int = 0,
    kv_num_heads: int = 0,
    q_num_heads: int = 0,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    left_window_size: int = -1,
    right_window_size: int = -1,
    output_count: int = 1,
) -> tuple[Array, ...]:
    """softmax(Q Kᵀ · scale + bias) V over heads, with causal, windowed, boolean and additive masks and a cache.

    Args:
        q: (B, Hq, Tq, D), or (B, Tq, Hq · D) with q_num_heads.
        k: (B, Hkv, Tk, D), or (B, Tk, Hkv · D) with kv_num_heads; Hkv divides Hq.
        v: (B, Hkv, Tk, Dv) or (B, Tk, Hkv · Dv).
        attn_mask: bool (True takes part) or float (added), broadcastable to (B, Hq, Tq, total); a shorter last axis
            is filled up with "does not take part".
        past_key: (B, Hkv, past, D), put before `k`.
        past_value: (B, Hkv, past, Dv).
        nonpad_kv_seqlen: (B,), valid keys of an external cache.
        is_causal: query i attends key j iff j <= i + offset; offset is the past length, or nonpad − Tq.
        kv_num_heads: for 3-D inputs.
        q_num_heads: for 3-D inputs.
        qk_matmul_output_mode: which stage the fourth output shows: 0 raw, 1 capped, 2 with bias, 3 probabilities.
        scale: factor of the scores, 1 / sqrt(D) by default.
        softcap: c · tanh(score / c) if not 0.
        softmax_precision: precision of a runtime's softmax; the reference is float64.
        left_window_size: keys to the left that are seen, −1 for all (since 25).
        right_window_size: keys to the right, −1 for all (since 25).
        output_count: outputs wanted.

    Returns:
        (Y like Q with Dv, present_key, present_value, chosen stage), the first `output_count`. A query that may attend
        no key has zeros.

    Raises:
        InvalidInputError: ranks or head numbers that do not go together.
        InvalidAttributeError: head numbers that do not divide the hidden size.

    Spec: Attention, since 23 (24 adds nonpad_kv_seqlen, 25 windows). Paper: https://arxiv.org/abs/1706.03762, 3.2
    """
    heads = _heads(q, k, v, past_key, past_value, nonpad_kv_seqlen, q_num_heads, kv_num_heads)
    allowed = _allowed(heads, nonpad_kv_seqlen, is_causal, left_window_size, right_window_size)
    bias = _bias(attn_mask, allowed, heads.k.shape[2])
    stages = _stages(heads, bias, _factor(scale, heads.q.shape[-1]), softcap)
    y = np.matmul(stages.probabilities, heads.repeated(heads.v))
    shown = (stages.raw, stages.capped, stages.biased, stages.probabilities)[qk_matmul_output_mode]
    return (_joined(y) if heads.flat else y, heads.k, heads.v, shown)[:output_count]


def _scale_of_the_body(scale_attribute: float | None, head_size: int, dtype: np.dtype[np.generic] | None) -> float:
    """By how many half-units of float64 the square of the function body's √scale, a float32, is off; else 0."""
    if dtype != np.float64:
        return 0.0
    factor = _factor(scale_attribute, head_size)
    root = np.float32(1) / np.sqrt(np.float32(head_size)) if scale_attribute is None else np.float32(scale_attribute)
    squared = float(np.sqrt(root)) ** 2
    return abs(squared / factor - 1) * 2.0**53 if factor > 0 and math.isfinite(squared) else 0.0


def _coarser(softmax_precision: int | None, dtype: np.dtype[np.generic] | None) -> float:
    """Half-units of the stored type in one of the softmax's type, where that has fewer bits; else 1."""
    if softmax_precision is None or dtype is None:
        return 1.0
    own = float_format(onnx.helper.tensor_dtype_to_np_dtype(softmax_precision)).fraction_bits
    return max(1.0, 2.0 ** (float_format(dtype).fraction_bits - own))


def _joined(y: Array) -> Array:
    B, H, T, D = y.shape
    return y.transpose(0, 2, 1, 3).reshape(B, T, H * D)


@scale("Attention", since=23)
def attention_scale(
    y: tuple[Array, ...] | Array,
    q: Array,
    k: Array,
    v: Array,
    attn_mask: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    nonpad_kv_seqlen: Array | None = None,
    /,
    *,
    is_causal: int = 0,
    kv_num_heads: int = 0,
    q_num_heads: int = 0,
    qk_matmul_output_mode: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
    left_window_size: int = -1,
    right_window_size: int = -1,
    output_count: int = 1,
    stored: Sequence[np.dtype[np.generic] | None] = (None,),
) -> tuple[Scale, ...]:
    """COMPOSED, by first-order propagation through the four stages.

    Scores: δ = (|Q|·|K|ᵀ + 2 |QKᵀ|)·|scale| (a dot over D; scaling Q and K, or the product), passed by the soft cap
    (its slope is at most 1, its own rounding |capped|·2) and by the bias (one addition). Probabilities:
    δp_i = p_i (δ_i + |t_i| + c + Σ_j p_j (δ_j + |t_j| + c)). Output: Σ δp_i |v_i| + Σ p_i |v_i|, a dot over keys.
    Half-units of a coarser `softmax_precision` count as many of the stored type: the cast of the scores, |s_i|, and
    what the softmax itself rounds, |t_i| + c. In float64 the function body, whose scale is a float32, conforms as well.
    """
    heads = _heads(q, k, v, past_key, past_value, nonpad_kv_seqlen, q_num_heads, kv_num_heads)
    allowed = _allowed(heads, nonpad_kv_seqlen, is_causal, left_window_size, right_window_size)
    factor = _factor(scale, heads.q.shape[-1])
    stages = _stages(heads, _bias(attn_mask, allowed, heads.k.shape[2]), factor, softcap)
    p = stages.probabilities
    raw_size = np.matmul(np.abs(heads.q), np.abs(heads.repeated(heads.k)).swapaxes(-1, -2)) * abs(factor)
    raw_size = raw_size + (2 + _scale_of_the_body(scale, heads.q.shape[-1], stored[0])) * np.abs(stages.raw)
    capped_size = raw_size + (2 * np.abs(stages.capped) if softcap else 0.0)
    biased_size = np.where(np.isfinite(stages.biased), capped_size + np.abs(stages.biased), 0.0)
    peak = stages.biased.max(axis=-1, keepdims=True, initial=-np.inf)
    distance = np.where(p > 0, np.abs(stages.biased - peak), 0.0)
    coarser = _coarser(softmax_precision, stored[0])
    cast = np.abs(stages.biased) if coarser > 1 else 0.0
    relative = np.where(p > 0, biased_size + coarser * (cast + distance + EXP_ROUNDINGS), 0.0)
    p_size = p * (relative + (p * relative).sum(axis=-1, keepdims=True) + coarser * EXP_ROUNDINGS)
    values = np.abs(heads.repeated(heads.v))
    size = np.matmul(p_size + p, values)
    d, n = heads.q.shape[-1], heads.k.shape[2]
    spread = math.sqrt(1 + (d + n) / (9 * EXP_ROUNDINGS**2))
    first = Scale(_joined(size) if heads.flat else size, d + n, Rule.COMPOSED, spread)
    shown = (raw_size, capped_size, biased_size, p_size)[qk_matmul_output_mode]
    still = Scale(np.zeros(()), 0, Rule.EXACT)
    return (first, still, still, Scale(shown, d + n, Rule.COMPOSED, spread))[:output_count]


def _rotation(x: Array, cos: Array, sin: Array, interleaved: int) -> tuple[Array, Array]:
    """The pair of products of every rotated element: x·cos and the partner's ±x·sin."""
    half = cos.shape[-1]
    if interleaved:
        a, b = x[..., 0 : 2 * half : 2], x[..., 1 : 2 * half : 2]
        straight = np.stack([a * cos, b * cos], axis=-1).reshape(*x.shape[:-1], 2 * half)
        crossed = np.stack([-b * sin, a * sin], axis=-1).reshape(*x.shape[:-1], 2 * half)
        return straight, crossed
    a, b = x[..., :half], x[..., half : 2 * half]
    return np.concatenate([a * cos, b * cos], axis=-1), np.concatenate([-b * sin, a * sin], axis=-1)


def _rotate(
    x: Array,
    cos_cache: Array,
    sin_cache: Array,
    position_ids: Array | None,
    interleaved: int,
    num_heads: int,
    rotary_embedding_dim: int,
) -> tuple[Array, Array, Array]:
    """(straight products, crossed products, untouched rest), all like `x` cut at the rotary size."""
    flat = x.ndim == 3
    split = x.reshape(x.shape[0], x.shape[1], num_heads, -1) if flat else x.transpose(0, 2, 1, 3)  # (B, T, H, D)
    size = rotary_embedding_dim or split.shape[-1]
    cos, sin = (c if position_ids is None else c[position_ids] for c in (cos_cache, sin_cache))
    cos, sin = (c[..., : size // 2][:, :, None, :] for c in (cos, sin))
    straight, crossed = _rotation(split[..., :size], cos, sin, interleaved)
    rest = split[..., size:]

    def back(part: Array) -> Array:
        whole = np.concatenate([part, rest if part is straight else np.zeros_like(rest)], axis=-1)
        return whole.reshape(x.shape) if flat else whole.transpose(0, 2, 1, 3)

    return back(straight), back(crossed), rest


@kernel("RotaryEmbedding", since=23)
def rotary_embedding(
    x: Array,
    cos_cache: Array,
    sin_cache: Array,
    position_ids: Array | None = None,
    /,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Array:
    """Rotate pairs of features by an angle that depends on the position.

    Args:
        x: (B, heads, T, D), or (B, T, hidden) with num_heads.
        cos_cache: (positions, size / 2) with position_ids, else (B, T, size / 2).
        sin_cache: likewise.
        position_ids: (B, T) or None.
        interleaved: pairs are neighbours instead of halves.
        num_heads: for 3-D input.
        rotary_embedding_dim: how many leading features are rotated, 0 for all.

    Returns:
        Like `x`.

    Spec: RotaryEmbedding, since 23. Paper: https://arxiv.org/abs/2104.09864
    """
    straight, crossed, _ = _rotate(x, cos_cache, sin_cache, position_ids, interleaved, num_heads, rotary_embedding_dim)
    return straight + crossed


@scale("RotaryEmbedding", since=23)
def rotary_embedding_scale(
    y: Array,
    x: Array,
    cos_cache: Array,
    sin_cache: Array,
    position_ids: Array | None = None,
    /,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Scale:
    """DOT of two products; features that are not rotated are bounded by the same size |x|."""
    straight, crossed, _ = _rotate(x, cos_cache, sin_cache, position_ids, interleaved, num_heads, rotary_embedding_dim)
    return Scale(np.abs(straight) + np.abs(crossed), 2, Rule.DOT)
