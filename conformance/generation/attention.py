"""Attention and its parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...operators.scale import Array
from .drawing import Draw, NodeCall, element_type
from .registry import strategy

SCORES = ("normal", "unit", "small", "constant")
BOOL = np.dtype(np.bool_)


@strategy("Attention")
def attention(d: Draw) -> NodeCall:
    dtype = d.dtype("T1")
    value_type = dtype
    batch, kv_heads = d.choice((1, 2, 3)), d.choice((1, 2, 3))
    heads = kv_heads * d.choice((1, 2, 3))
    q_length, length = d.choice((3, 1, 2, 4, 5, 8, 17)), d.choice((3, 1, 2, 4, 6, 9, 33))
    size, v_size = d.choice((4, 2, 8, 1, 3, 16)), d.choice((4, 2, 8, 1, 5))
    cache = d.choice(("none", "none", "past", *(("external",) if d.opset >= 24 else ())))
    past = d.choice((2, 1, 5)) if cache == "past" else 0
    packed = d.boolean()
    q, k, v = (
        _heads(d, (batch, n, rows, width), packed, kind)
        for n, rows, width, kind in (
            (heads, q_length, size, dtype), (kv_heads, length, size, dtype), (kv_heads, length, v_size, value_type)
        )
    )  # fmt: skip
    options: dict[str, Any] = d.attributes(scale=lambda: d.real(0.125, 2.0), softcap=lambda: d.real(0.5, 8.0))
    if packed:
        options |= {"q_num_heads": heads, "kv_num_heads": kv_heads}
    options |= d.attributes(is_causal=lambda: d.integer(0, 1))
    if d.opset >= 25 and "left_window_size" in d.schema.attributes and d.rarely(3):
        options |= d.attributes(left_window_size=lambda: d.integer(-1, 4), right_window_size=lambda: d.integer(-1, 3))
    total = past + length
    mask = _mask(d, (batch, heads, q_length, total), dtype) if d.boolean() else None
    pasts: list[Array | None] = [None, None]
    if past:
        pasts = [d.tensor((batch, kv_heads, past, width), dtype, SCORES) for width in (size, v_size)]
    known = None
    if cache == "external":
        known = np.random.default_rng(d.integer(0, 1 << 31)).integers(1, length, batch, endpoint=True)
        known = known.astype(np.int64)
    outputs: list[np.dtype[Any] | None] = [dtype]
    if past or (cache == "none" and d.rarely(4)):
        outputs += [dtype, value_type]
    if d.rarely(3):
        outputs += [None] * (3 - len(outputs)) + [dtype]
        options |= d.attributes(qk_matmul_output_mode=lambda: d.integer(0, 3))
    if dtype != np.float64 and d.rarely(6):
        options["softmax_precision"] = element_type(FLOAT32)
    return d.call([q, k, v, mask, *pasts, known], options, outputs=outputs)


FLOAT32 = np.dtype(np.float32)


def _heads(d: Draw, shape: tuple[int, int, int, int], packed: bool, dtype: np.dtype[Any]) -> Array:
    batch, heads, length, size = shape
    return d.tensor((batch, length, heads * size) if packed else shape, dtype, SCORES)


def _mask(d: Draw, full: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Of 2 to 4 dimensions, boolean or added; a row may lose all its keys, and is then 0."""
    rank = d.choice((2, 3, 4))
    shape = list(full[-rank:])
    for i in range(rank - 1):
        shape[i] = 1 if d.rarely(3) else shape[i]
    boolean = d.boolean()
    if boolean:
        mask = d.tensor(tuple(shape), BOOL, SCORES)
        if d.boolean():
            mask[..., 0] = True
        return mask
    mask = d.tensor(tuple(shape), dtype, SCORES)
    if d.rarely(3):
        mask[..., 1::2] = -np.inf
    return mask


@strategy("RotaryEmbedding")
def rotary_embedding(d: Draw) -> NodeCall:
    dtype = d.dtype()
    batch, heads, length = d.choice((1, 2)), d.choice((1, 2, 3)), d.choice((3, 1, 2, 5))
    size = 2 * d.choice((2, 1, 3, 4, 8))
    partial = 2 * d.integer(1, size // 2) if d.boolean() else 0
    half = (partial or size) // 2
    options: dict[str, Any] = d.attributes(interleaved=lambda: d.integer(0, 1))
    if partial or d.boolean():
        options["rotary_embedding_dim"] = partial
    packed = d.boolean()
    if packed or (partial and d.boolean()):
        options["num_heads"] = heads
    x = _heads(d, (batch, heads, length, size), packed, dtype)
    positions = None
    rows: tuple[int, ...] = (batch, length)
    if d.boolean():
        rows = (length + d.choice((0, 1, 4)),)
        rng = np.random.default_rng(d.integer(0, 1 << 31))
        positions = rng.integers(0, rows[0], (batch, length)).astype(np.int64)
    caches = [d.tensor((*rows, half), dtype, ("unit", "normal")) for _ in range(2)]
    return d.call([x, *caches, positions], options)


@strategy("LinearAttention")
def linear_attention(d: Draw) -> NodeCall:
    dtype, state_type = d.dtype("T"), d.dtype("S")
    batch, kv_heads, length = d.choice((1, 2)), d.choice((1, 2)), d.choice((3, 1, 2, 5))
    heads = kv_heads * d.choice((1, 2))
    size, v_size = d.choice((4, 2, 1, 3)), d.choice((4, 2, 1, 3))
    rule = d.choice(("linear", "gated", "delta", "gated_delta"))
    q, k, v = (
        d.tensor((batch, length, width), dtype, ("unit",))
        for width in (heads * size, kv_heads * size, kv_heads * v_size)
    )
    past = d.tensor((batch, kv_heads, size, v_size), state_type, ("unit", "normal")) if d.boolean() else None
    state_type = dtype if past is None else state_type  # nothing else binds the state's type
    decay = beta = None
    if "gated" in rule:
        width = d.choice((kv_heads, kv_heads * size))
        decay = -np.abs(d.tensor((batch, length, width), dtype, ("unit",)))
    if "delta" in rule:
        beta = np.abs(d.tensor((batch, length, d.choice((kv_heads, 1))), dtype, ("unit",)))
    options = {"q_num_heads": heads, "kv_num_heads": kv_heads, "update_rule": rule}
    options |= d.attributes(scale=lambda: d.real(0.125, 2.0), chunk_size=lambda: d.choice((64, 1, 2)))
    return d.call([q, k, v, past, decay, beta], options, outputs=(dtype, state_type))


@strategy("CausalConvWithState")
def causal_conv(d: Draw) -> NodeCall:
    dtype = d.dtype("T")
    batch, channels, length, k = d.choice((1, 2)), d.choice((1, 2, 3)), d.choice((4, 1, 2, 7)), d.choice((3, 2, 4))
    x = d.tensor((batch, channels, length), dtype, SCORES)
    w = d.tensor((channels, 1, k), dtype, SCORES)
    bias = d.tensor((channels,), dtype, SCORES) if d.boolean() else None
    past = d.tensor((batch, channels, k - 1), dtype, SCORES) if d.boolean() else None
    options = d.attributes(activation=lambda: d.choice(("none", "silu", "swish")))
    return d.call([x, w, bias, past], options, outputs=(dtype, dtype), parameters=(1, 2))
