"""Attention over heads whose queries, keys and values may have errors of their own (projections, rotations)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidInputError
from .scale import Array, Rule, Scale
from .softmax import EXP_ROUNDINGS

HIDDEN = -math.inf
"""What is added to the score of a key that takes no part."""


@dataclass(frozen=True)
class Operand:
    """Queries, keys or values with the size of their errors.

    Attributes:
        value: (B, heads, T, D).
        error: in half-units in the last place at magnitude one, broadcastable to `value`; 0 for stored inputs.
    """

    value: Array
    error: Array

    def repeated(self, heads: int) -> Operand:
        """Each head repeated for the queries that share it."""
        shared = self.value.shape[1]
        if shared == heads:
            return self
        if shared == 0 or heads % shared:
            raise InvalidInputError(f"attention: {heads} query heads are no multiple of {shared} key heads")
        error = np.broadcast_to(self.error, self.value.shape)
        return Operand(self.value.repeat(heads // shared, axis=1), error.repeat(heads // shared, axis=1))

    def behind(self, past: Array | None) -> Operand:
        """With a cache of the same layout, which has no error, in front."""
        if past is None:
            return self
        still, error = np.zeros(past.shape), np.broadcast_to(self.error, self.value.shape)
        return Operand(np.concatenate([past, self.value], axis=2), np.concatenate([still, error], axis=2))


def exactly(value: Array) -> Operand:
    """An operand that is stored, and so has no error."""
    return Operand(value, np.zeros(()))


@dataclass(frozen=True)
class Attended:
    """One attention with error sizes: the output, the capped and biased scores, and the probabilities."""

    y: Array
    y_size: Array
    scores: Array
    scores_size: Array
    probabilities: Array
    probabilities_size: Array
    terms: int

    def scale(self, magnitude: Array) -> Scale:
        """COMPOSED; a dot over the head's features, one over the keys."""
        return Scale(magnitude, self.terms, Rule.COMPOSED, math.sqrt(1 + self.terms / (9 * EXP_ROUNDINGS**2)))


def attend(
    q: Operand,
    k: Operand,
    v: Operand,
    bias: Array,
    factor: float,
    *,
    softcap: float = 0.0,
    sink: Array | None = None,
    terms: int = 0,
) -> Attended:
    """softmax(Q Kᵀ · factor + bias) V with error sizes by first-order propagation.

    Scores: |Q|·|K|ᵀ + 2 |QKᵀ| (a dot over D; scaling), plus δQ·|K|ᵀ + |Q|·δKᵀ, all times |factor|; the soft cap, whose
    slope is at most 1, adds 2 |capped|, the bias one addition. Probabilities, with t = score − max:
    δp_i = p_i (δ_i + |t_i| + c + Σ_j p_j (δ_j + |t_j| + c)). Output: Σ δp_i |v_i| + Σ p_i (|v_i| + δv_i).

    Args:
        q: (B, H, T, D).
        k: (B, H or fewer, S, D).
        v: (B, H or fewer, S, Dv).
        bias: added to the scores, broadcastable to (B, H, T, S); −inf hides a key.
        factor: of the products.
        softcap: c · tanh(score / c) before the bias, if not 0.
        sink: (H,), one more score for each head's softmax, without a value.
        terms: products in the longest sum behind the operands' errors.

    Returns:
        Outputs (B, H, T, Dv); a query that sees no key has zeros.
    """
    k, v = k.repeated(q.value.shape[1]), v.repeated(q.value.shape[1])
    across = k.value.swapaxes(-1, -2)
    raw = np.matmul(q.value, across) * factor
    size = np.matmul(np.abs(q.value), np.abs(across)) * abs(factor) + 2 * np.abs(raw)
    if q.error.any() or k.error.any():
        errors = np.broadcast_to(k.error, k.value.shape).swapaxes(-1, -2)
        moved = np.matmul(np.broadcast_to(q.error, q.value.shape), np.abs(across))
        size = size + (moved + np.matmul(np.abs(q.value), errors)) * abs(factor)
    if softcap:
        raw = softcap * np.tanh(raw / softcap)
        size = size + 2 * np.abs(raw)
    scores = raw + bias
    size = np.where(np.isfinite(scores), size + np.abs(scores) * np.any(np.isfinite(bias) & (bias != 0)), 0.0)
    p, p_size = _softmax(scores, size, sink)
    values = np.abs(v.value)
    y_size = np.matmul(p_size + p, values)
    if v.error.any():
        y_size = y_size + np.matmul(p, np.broadcast_to(v.error, v.value.shape))
    length = q.value.shape[-1] + k.value.shape[2] + terms
    return Attended(np.matmul(p, v.value), y_size, scores, size, p, p_size, length)


def _softmax(scores: Array, size: Array, sink: Array | None) -> tuple[Array, Array]:
    if sink is not None:
        column = np.broadcast_to(sink.reshape(1, -1, 1, 1), (*scores.shape[:-1], 1))
        scores, size = np.concatenate([scores, column], axis=-1), np.concatenate([size, np.zeros_like(column)], axis=-1)
    peak = scores.max(axis=-1, keepdims=True, initial=HIDDEN)
    peak = np.where(np.isneginf(peak), 0.0, peak)
    e = np.exp(scores - peak)
    total = e.sum(axis=-1, keepdims=True)
    p = np.divide(e, total, out=np.zeros_like(e), where=total != 0)
    relative = np.where(p > 0, size + np.abs(scores - peak) + EXP_ROUNDINGS, 0.0)
    p_size = p * (relative + (p * relative).sum(axis=-1, keepdims=True) + EXP_ROUNDINGS)
    return (p, p_size) if sink is None else (p[..., :-1], p_size[..., :-1])


def split_heads(x: Array, heads: int) -> Array:
    """(B, T, heads · D) as (B, heads, T, D).

    Raises:
        InvalidInputError: `heads` does not divide the hidden size.
    """
    B, T, hidden = x.shape
    if heads <= 0 or hidden % heads:
        raise InvalidInputError(f"attention: {heads} heads do not divide a hidden size of {hidden}")
    return x.reshape(B, T, heads, hidden // heads).transpose(0, 2, 1, 3)


def join_heads(x: Array) -> Array:
    """(B, heads, T, D) as (B, T, heads · D)."""
    B, H, T, D = x.shape
    return x.transpose(0, 2, 1, 3).reshape(B, T, H * D)
