"""LinearAttention and CausalConvWithState: recurrences that carry a state from step to step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._tracked import UNIFORM, Number, Tracked, scale_of, stack, through, track
from .activations import sigmoid, sigmoid_scale
from .registry import kernel, scale
from .rounding import NAIVE_VARIANCE, growth, half_unit
from .scale import Array, Rule, Scale
from .softmax import EXP_ROUNDINGS
from .storage import float_format

Stored = tuple[np.dtype[Any] | None, ...]

RULES = {"linear": (False, False), "gated": (True, False), "delta": (False, True), "gated_delta": (True, True)}
"""By update rule: whether the state decays, and whether what it already returns for the key is taken off the value."""


@dataclass(frozen=True)
class _Steps:
    """The inputs of LinearAttention with heads apart, the time first.

    Attributes:
        q: (T, B, Hq, dk).
        k: (T, B, H, dk).
        v: (T, B, H, dv).
        state: (B, H, dk, dv).
        decay: (T, B, H, dk or 1) in log-space, or None.
        beta: (T, B, H or 1, 1), or None.
        factor: of the output.
    """

    q: Array
    k: Array
    v: Array
    state: Array
    decay: Array | None
    beta: Array | None
    factor: float


def _heads(name: str, x: Array, heads: int) -> Array:
    """(B, T, heads · D) -> (T, B, heads, D)."""
    if x.ndim != 3 or heads <= 0 or x.shape[2] % heads:
        raise InvalidInputError(
            f"LinearAttention: {name} of shape {x.shape} for {heads} heads; (B, T, heads · D) needed"
        )
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).swapaxes(0, 1)


def _steps(
    query: Array,
    key: Array,
    value: Array,
    past_state: Array | None,
    decay: Array | None,
    beta: Array | None,
    q_num_heads: int,
    kv_num_heads: int,
    factor: float,
    update_rule: str,
) -> _Steps:
    if update_rule not in RULES:
        raise InvalidAttributeError(f"LinearAttention: update_rule={update_rule!r}; allowed are {', '.join(RULES)}")
    if kv_num_heads <= 0 or q_num_heads <= 0 or q_num_heads % kv_num_heads:
        raise InvalidAttributeError(
            f"LinearAttention: {q_num_heads} query heads, {kv_num_heads} key heads; no multiple"
        )
    for name, given, used in zip(("decay", "beta"), (decay, beta), RULES[update_rule], strict=True):
        if (given is not None) != used:
            verb = "needs" if used else "takes no"
            raise InvalidInputError(f"LinearAttention: update_rule={update_rule} {verb} {name}")
    q, k, v = (
        _heads("query", query, q_num_heads),
        _heads("key", key, kv_num_heads),
        _heads("value", value, kv_num_heads),
    )
    shape = (q.shape[1], kv_num_heads, k.shape[3], v.shape[3])
    state = np.zeros(shape, query.dtype) if past_state is None else past_state
    if state.shape != shape or q.shape[3] != k.shape[3] or not q.shape[:2] == k.shape[:2] == v.shape[:2]:
        raise InvalidInputError(
            f"LinearAttention: query {query.shape}, key {key.shape}, value {value.shape}, state {state.shape}; "
            f"a state of shape {shape} is needed"
        )
    gates = None if decay is None else _heads("decay", decay, kv_num_heads)
    if gates is not None and gates.shape[3] not in (1, k.shape[3]):
        raise InvalidInputError(f"LinearAttention: decay of shape {decay.shape if decay is not None else ()}")
    rates = None if beta is None else beta.swapaxes(0, 1)[..., None]
    if rates is not None and rates.shape[2] not in (1, kv_num_heads):
        raise InvalidInputError(f"LinearAttention: beta of shape {beta.shape if beta is not None else ()}")
    return _Steps(q, k, v, state, gates, rates, 1 / math.sqrt(k.shape[3]) if factor == 0 else factor)


def _read(x: Array, state: Number) -> Number:
    """xᵀ S for every head: (B, H, dk), (B, H, dk, dv) -> (B, H, dv)."""
    if not isinstance(state, Tracked):
        return np.matmul(x[..., None, :], state)[..., 0, :]
    k = x.shape[-1]

    def product(a: Array, b: Array) -> Array:
        return np.matmul(a[..., None, :], b)[..., 0, :]

    value, size = product(x, state.value), product(np.abs(x), np.abs(state.value))
    own = size**2 + k * NAIVE_VARIANCE * value**2
    variance = own + product(x**2, state.variance)
    return Tracked(value, variance, k * size + product(np.abs(x), state.bound), size)


def _decayed(state: Number, gate: Array) -> Number:
    """exp(g) S. Exponents may be added up over steps before the exponential: each is rounded at its own size."""
    e = np.exp(gate)
    if not isinstance(state, Tracked):
        return state * e[..., None]
    return state * through(track(gate), e, np.zeros(()), (EXP_ROUNDINGS + 2 * np.abs(gate)) * e)[..., None]


def _run(given: _Steps, *, tracked: bool) -> tuple[Any, Any]:
    """(outputs (T, B, Hq, dv), state) as arrays, or with their errors."""
    state: Any = track(given.state) if tracked else given.state
    shared = given.q.shape[2] // given.k.shape[2]
    outputs = []
    for t in range(len(given.q)):
        if given.decay is not None:
            state = _decayed(state, given.decay[t])
        value: Any = track(given.v[t]) if tracked else given.v[t]
        if given.beta is not None:
            value = (value - _read(given.k[t], state)) * given.beta[t]
        state = state + value[..., None, :] * given.k[t][..., None]
        seen = _repeated(state, shared)
        outputs.append(_read(given.q[t], seen) * given.factor)
    if not outputs:
        nothing = np.zeros((0, *given.q.shape[1:3], given.v.shape[3]), given.q.dtype)
        return track(nothing) if tracked else nothing, state
    return stack(outputs), state


def _repeated(state: Number, times: int) -> Number:
    if times == 1:
        return state
    if isinstance(state, Tracked):
        return state.each(lambda part: part.repeat(times, axis=1))
    return state.repeat(times, axis=1)


def _packed(x: Array) -> Array:
    """(T, B, H, D) -> (B, T, H · D)."""
    x = x.swapaxes(0, 1)
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])


@kernel("LinearAttention", since=27)
def linear_attention(
    query: Array,
    key: Array,
    value: Array,
    past_state: Array | None = None,
    decay: Array | None = None,
    beta: Array | None = None,
    /,
    *,
    chunk_size: int = 64,
    kv_num_heads: int,
    q_num_heads: int,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
    stored: Stored = (),
) -> tuple[Any, Any]:
    """Attention whose memory is one matrix a head: S ← exp(g) S + k ⊗ β (v − Sᵀ k), o = scale · Sᵀ q.

    Args:
        query: (B, T, Hq · dk).
        key: (B, T, H · dk).
        value: (B, T, H · dv).
        past_state: (B, H, dk, dv), 0 by default.
        decay: g, (B, T, H · dk) or (B, T, H); for the gated rules.
        beta: (B, T, H) or (B, T, 1); for the delta rules.
        chunk_size: a hint that changes no value.
        kv_num_heads: H, divides `q_num_heads`.
        q_num_heads: Hq.
        scale: of the output; 0 stands for 1 / sqrt(dk).
        update_rule: linear, gated, delta or gated_delta.

    Returns:
        (output (B, T, Hq · dv), state after the last step).

    Raises:
        InvalidInputError: shapes that do not go together, or gates that the rule does not take.
        InvalidAttributeError: another rule, or head numbers that are no multiples.

    Spec: LinearAttention, since 27
    """
    del chunk_size, stored
    inputs = (query, key, value, past_state, decay, beta)
    outputs, state = _run(_steps(*inputs, q_num_heads, kv_num_heads, scale, update_rule), tracked=False)
    return _packed(outputs), state


@scale("LinearAttention", since=27)
def linear_attention_scale(
    y: Any,
    query: Array,
    key: Array,
    value: Array,
    past_state: Array | None = None,
    decay: Array | None = None,
    beta: Array | None = None,
    /,
    *,
    kv_num_heads: int,
    q_num_heads: int,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
    stored: Stored,
) -> tuple[Scale, ...]:
    """COMPOSED: errors carried through the recurrence step by step in float32, and the rounding to the stored type.

    The function body carries the state in float32 whatever the types are. Chunks that add the same products in another
    order stay within the bounds as long as they do not subtract what they have added.
    """
    given = _steps(query, key, value, past_state, decay, beta, q_num_heads, kv_num_heads, scale, update_rule)
    dtype = stored[0] or np.dtype(np.float32)
    past = stored[3] if len(stored) > 3 else None
    outputs, state = _run(given, tracked=True)
    if not len(given.q):
        return Scale(np.zeros(()), 0, Rule.EXACT), Scale(np.zeros(()), 0, Rule.EXACT)
    return _stored_scale(outputs.each(_packed), dtype), _stored_scale(state, past or dtype)


def _stored_scale(x: Tracked, dtype: np.dtype[Any]) -> Scale:
    """Of values with float32's errors that are rounded to a type which may be narrower."""
    form = float_format(dtype)
    finer = 2.0 ** (form.fraction_bits - FLOAT32_BITS)
    if finer == 1:
        return scale_of(x, form)
    variance = x.variance * finer**2 + UNIFORM * x.value**2
    return scale_of(Tracked(x.value, variance, x.bound * finer + np.abs(x.value), x.size), form)


FLOAT32_BITS = 23


ACTIVATIONS = ("none", "silu", "swish")


def _padded(x: Array, w: Array, past_state: Array | None, activation: str) -> Array:
    """The input behind the state: (B, C, k − 1 + L)."""
    if activation not in ACTIVATIONS:
        allowed = ", ".join(ACTIVATIONS)
        raise InvalidAttributeError(f"CausalConvWithState: activation={activation!r}; allowed are {allowed}")
    if x.ndim != 3 or w.ndim != 3 or w.shape[:2] != (x.shape[1], 1) or not w.shape[2]:
        raise InvalidInputError(
            f"CausalConvWithState: input {x.shape}, weight {w.shape}; (B, C, L), (C, 1, k) are needed"
        )
    shape = (*x.shape[:2], w.shape[2] - 1)
    past = np.zeros(shape, x.dtype) if past_state is None else past_state
    if past.shape != shape:
        raise InvalidInputError(f"CausalConvWithState: a state of shape {past.shape}; {shape} is needed")
    return np.concatenate([past, x], axis=2)


def _filtered(padded: Array, w: Array, b: Array | None) -> Array:
    """(B, C, L) from (B, C, k − 1 + L) and (C, 1, k)."""
    windows = np.lib.stride_tricks.sliding_window_view(padded, w.shape[2], axis=2)  # (B, C, L, k)
    y = np.matmul(windows, w[:, 0, :, None])[..., 0]
    return y if b is None else y + b[:, None]


@kernel("CausalConvWithState", since=27)
def causal_conv_with_state(
    x: Array,
    w: Array,
    b: Array | None = None,
    past_state: Array | None = None,
    /,
    *,
    activation: str = "none",
    stored: Stored = (),
) -> tuple[Array, Array]:
    """Every channel filtered over its present and k − 1 past elements.

    Args:
        x: (B, C, L).
        w: (C, 1, k).
        b: (C,) or None.
        past_state: (B, C, k − 1), what came before; 0 by default.
        activation: none, or silu (swish): y · sigmoid(y).

    Returns:
        (y (B, C, L), the last k − 1 elements of past and input).

    Raises:
        InvalidInputError: shapes that do not go together.
        InvalidAttributeError: another activation.

    Spec: CausalConvWithState, since 27
    """
    del stored
    padded = _padded(x, w, past_state, activation)
    y = _filtered(padded, w, b)
    return (y if activation == "none" else y * sigmoid(y)), padded[:, :, padded.shape[2] - (w.shape[2] - 1) :]


@scale("CausalConvWithState", since=27)
def causal_conv_with_state_scale(
    y: Any,
    x: Array,
    w: Array,
    b: Array | None = None,
    past_state: Array | None = None,
    /,
    *,
    activation: str = "none",
    stored: Stored,
) -> tuple[Scale, ...]:
    """DOT of k products and a bias; with an activation COMPOSED: the sum's error through its slope, at most 1.1, the
    sigmoid and the product. The state is copied."""
    padded = _padded(x, w, past_state, activation)
    size = _filtered(np.abs(padded), np.abs(w), None if b is None else np.abs(b))
    terms = w.shape[2] + (b is not None)
    state = Scale(np.zeros(()), 0, Rule.EXACT)
    if activation == "none":
        return Scale(size, terms, Rule.DOT), state
    form = float_format(stored[0] or x.dtype)
    total, k = _filtered(padded, w, b), growth(terms, form)
    sums = Tracked(total, size**2 + k * NAIVE_VARIANCE * total**2, k * size, size)
    gate = sigmoid_scale(sigmoid(total), total)
    own = np.asarray(gate.magnitude) * gate.terms * np.abs(total) + np.abs(total * sigmoid(total))
    slope = _silu_slope(total, sums.bound * half_unit(form))
    tracked = through(sums, total * sigmoid(total), slope, own)
    return scale_of(tracked, form), state


def _silu_slope(x: Array, reach: Array) -> Array:
    """|f'| = |σ(x) (1 + x (1 − σ(x)))|, whose own slope is at most ½."""
    s = sigmoid(x)
    return np.minimum(np.abs(s * (1 + x * (1 - s))) + reach / 2, 1.1)
