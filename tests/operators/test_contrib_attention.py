"""Fused attention: ONNX Runtime passes, and plausible faults fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidInputError

from .contrib_nodes import fails, judge, passes, run

F, INT = np.float32, np.int32
B, T, H, D, N = 2, 6, 3, 8, 20
HIDDEN = H * D

Inputs = list[Any]


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(F)


def ints(*values: Any) -> np.ndarray:
    return np.array(values, INT)


PADDING = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]], INT)
BY_QUERY = np.random.default_rng(8).integers(0, 2, (B, T, T)).astype(INT) | np.eye(T, dtype=INT) | (np.arange(T) == 0)
MASKS: dict[str, Any] = {
    "none": None,
    "keys": PADDING,
    "queries": BY_QUERY.astype(INT),
    "ends": ints(4, 5),
    "ends and starts": ints(4, 6, 1, 2),
}


def attention_inputs(*, bias: bool = True, mask: Any = None, past: Any = None, added: Any = None) -> Inputs:
    inputs = [normal(0, B, T, N), normal(1, N, 3 * HIDDEN), normal(2, 3 * HIDDEN) if bias else None, mask, past, added]
    while inputs[-1] is None:
        inputs.pop()
    return inputs


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("bias", [False, True])
def test_attention_by_onnxruntime_passes(mask: str, unidirectional: int, bias: bool) -> None:
    inputs = attention_inputs(bias=bias, mask=MASKS[mask])
    passes("Attention", inputs, num_heads=H, unidirectional=unidirectional)
    passes("Attention", inputs, weights=[1, 2] if bias else [1], num_heads=H, unidirectional=unidirectional)
    passes("Attention", inputs, num_heads=H, unidirectional=unidirectional, outputs=2, scale=0.2)


def test_attention_with_past_passes() -> None:
    inputs = attention_inputs(past=normal(3, 2, B, H, 4, D))
    passes("Attention", inputs, num_heads=H, unidirectional=1, outputs=2)
    masked = attention_inputs(past=normal(3, 2, B, H, 4, D), mask=np.concatenate([np.ones((B, 4), INT), PADDING], 1))
    passes("Attention", masked, num_heads=H, outputs=2)


def test_attention_with_bias_on_scores_passes() -> None:
    passes("Attention", attention_inputs(added=normal(4, 1, H, T, T)), num_heads=H)
    passes("Attention", attention_inputs(added=normal(4, B, H, T, T), mask=PADDING), num_heads=H)


def test_attention_with_wider_values_passes() -> None:
    inputs = [normal(0, B, T, N), normal(1, N, 2 * HIDDEN + 30), normal(2, 2 * HIDDEN + 30)]
    passes("Attention", inputs, num_heads=H, qkv_hidden_sizes=[HIDDEN, HIDDEN, 30])


ATTENTION_FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "causal mask ignored": ({"unidirectional": 1}, {}),
    "scale 1/D": ({}, {"scale": 1 / D}),
    "heads mixed up": ({}, {"num_heads": 2 * H}),
    "filter value too small": ({}, {"mask_filter_value": -1.0}),
}


@pytest.mark.parametrize("fault", ATTENTION_FAULTS)
def test_attention_with_a_fault_fails(fault: str) -> None:
    right, wrong = ATTENTION_FAULTS[fault]
    inputs = attention_inputs(mask=PADDING)
    fails("Attention", inputs, run("Attention", inputs, **{"num_heads": H, **wrong}), **{"num_heads": H, **right})


@pytest.mark.parametrize("mask", [name for name in MASKS if name != "none"])
def test_attention_with_mask_ignored_fails(mask: str) -> None:
    wrong = run("Attention", attention_inputs(), num_heads=H)
    fails("Attention", attention_inputs(mask=MASKS[mask]), wrong, num_heads=H)


def test_attention_with_bias_twice_or_left_out_fails() -> None:
    inputs = attention_inputs()
    for wrong in ([*inputs[:2], 2 * inputs[2]], inputs[:2]):
        fails("Attention", inputs, run("Attention", wrong, num_heads=H), num_heads=H)


def test_attention_with_a_stale_cache_fails() -> None:
    inputs = attention_inputs(past=normal(3, 2, B, H, 4, D))
    y, present = run("Attention", inputs, num_heads=H, unidirectional=1, outputs=2)
    present[0, 0, 0, 0, 0] = np.nextafter(present[0, 0, 0, 0, 0], F(9))
    fails("Attention", inputs, [y, present], num_heads=H, unidirectional=1)


def test_attention_of_queries_that_see_nothing_is_open_and_of_others_is_not() -> None:
    mask = PADDING.copy()
    mask[0] = 0
    inputs = attention_inputs(mask=mask)
    y = run("Attention", inputs, num_heads=H)[0]
    y[0] = 7.0
    assert judge("Attention", inputs, [y], num_heads=H).outcome is Outcome.PASSED
    y[1, 0, 0] += 0.01
    fails("Attention", inputs, [y], num_heads=H)


def test_attention_with_a_shared_buffer_is_refused() -> None:
    inputs = [*attention_inputs(past=normal(3, 2, B, H, 4, D)), None, ints(2)]
    with pytest.raises(InvalidInputError, match="not modelled"):
        judge("Attention", inputs, [normal(0, B, T, HIDDEN)], num_heads=H, past_present_share_buffer=1)


# MultiHeadAttention: S keys, values of another width

S, V = 9, 15


def mha_inputs(*, bias: bool = False, mask: Any = None, added: Any = None, keys: int = S) -> Inputs:
    inputs = [normal(0, B, T, HIDDEN), normal(1, B, keys, HIDDEN), normal(2, B, keys, V)]
    inputs += [normal(3, 2 * HIDDEN + V) if bias else None, mask, added]
    while inputs[-1] is None:
        inputs.pop()
    return inputs


KEY_PADDING = np.array([[1] * 6 + [0] * 3, [1] * 9], INT)
MHA_MASKS: dict[str, Any] = {
    "none": None,
    "keys": KEY_PADDING,
    "ends": ints(6, 9),
    "queries": (np.random.default_rng(9).integers(0, 2, (B, T, S)) | (np.arange(S) == 0)).astype(INT),
}


@pytest.mark.parametrize("mask", MHA_MASKS)
@pytest.mark.parametrize("bias", [False, True])
def test_multi_head_attention_by_onnxruntime_passes(mask: str, bias: bool) -> None:
    inputs = mha_inputs(bias=bias, mask=MHA_MASKS[mask])
    passes("MultiHeadAttention", inputs, num_heads=H)
    passes("MultiHeadAttention", inputs, num_heads=H, scale=0.25, outputs=3)


def test_multi_head_attention_with_bias_on_scores_passes() -> None:
    passes("MultiHeadAttention", mha_inputs(added=normal(4, B, 1, T, S)), num_heads=H)


def test_multi_head_attention_unidirectional_passes() -> None:
    passes("MultiHeadAttention", mha_inputs(keys=T, bias=True), num_heads=H, unidirectional=1)


def test_multi_head_attention_with_keys_over_heads_passes() -> None:
    inputs = [normal(0, B, T, HIDDEN), normal(1, B, H, S, D), normal(2, B, H, S, D)]
    passes("MultiHeadAttention", inputs, num_heads=H)
    passes("MultiHeadAttention", [*inputs, normal(3, 3 * HIDDEN)], num_heads=H)


@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("bias", [False, True])
def test_multi_head_attention_with_past_passes(unidirectional: int, bias: bool) -> None:
    inputs = [*(normal(i, B, T, HIDDEN) for i in range(3)), normal(3, 3 * HIDDEN) if bias else None, None, None]
    inputs += [normal(4, B, H, 5, D), normal(5, B, H, 5, D)]
    passes("MultiHeadAttention", inputs, num_heads=H, unidirectional=unidirectional, outputs=3)


def test_multi_head_attention_packed_is_unpacked() -> None:
    packed = normal(0, B, T, H, 3, D)
    q, k, v = (packed[:, :, :, i].reshape(B, T, HIDDEN) for i in range(3))
    right = run("MultiHeadAttention", [q, k, v], num_heads=H)
    pair = np.stack([k.reshape(B, T, H, D), v.reshape(B, T, H, D)], axis=3)
    for inputs in ([packed], [q, pair]):
        assert judge("MultiHeadAttention", inputs, right, num_heads=H).outcome is Outcome.PASSED
        fails("MultiHeadAttention", inputs, run("MultiHeadAttention", [q, v, k], num_heads=H), num_heads=H)


@pytest.mark.parametrize("mask", [None, KEY_PADDING], ids=["all", "masked"])
def test_multi_head_attention_scores_are_products_before_softmax(mask: Any) -> None:
    inputs = mha_inputs(mask=mask)
    outputs = run("MultiHeadAttention", inputs, num_heads=H, outputs=4)
    row = judge("MultiHeadAttention", inputs, outputs, num_heads=H)
    assert row.outcome is Outcome.PASSED
    assert ("not determined" in row.message) == (mask is not None), "a mask leaves the scores open to which it is added"
    scores = outputs[3]
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    for wrong in (
        p / p.sum(axis=-1, keepdims=True),
        scores * F(np.sqrt(D)),
        scores.swapaxes(0, 1).reshape(scores.shape),
    ):
        fails("MultiHeadAttention", inputs, [*outputs[:3], wrong], num_heads=H)


def test_multi_head_attention_with_a_fault_fails() -> None:
    inputs = mha_inputs(bias=True, mask=KEY_PADDING)
    wrongs = (
        run("MultiHeadAttention", inputs[:4], num_heads=H),
        run("MultiHeadAttention", [*inputs[:3], 2 * inputs[3], inputs[4]], num_heads=H),
        run("MultiHeadAttention", [*inputs[:3], None, inputs[4]], num_heads=H),
        run("MultiHeadAttention", inputs, num_heads=H, scale=1 / D),
    )
    for wrong in wrongs:
        fails("MultiHeadAttention", inputs, wrong, num_heads=H)


def test_multi_head_attention_causal_mask_ignored_fails() -> None:
    inputs = mha_inputs(keys=T)
    fails("MultiHeadAttention", inputs, run("MultiHeadAttention", inputs, num_heads=H), num_heads=H, unidirectional=1)


def test_multi_head_attention_unidirectional_over_other_keys_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no position is specified"):
        judge("MultiHeadAttention", mha_inputs(), [normal(0, B, T, V)], num_heads=H, unidirectional=1)


# GroupQueryAttention

GROUPS: dict[str, int] = {"num_heads": 6, "kv_num_heads": 2}
G = 16
"""Features of a head: ONNX Runtime rotates multiples of 16."""


def gqa_inputs(tokens: int, cached: int | None, seqlens: list[int], *, batch: int = 1, **more: Any) -> Inputs:
    named = ("cos", "sin", "positions", "added", "sink")
    head = [normal(0, batch, tokens, 6 * G), normal(1, batch, tokens, 2 * G), normal(2, batch, tokens, 2 * G)]
    past = [None, None] if cached is None else [normal(i, batch, 2, cached, G) for i in (3, 4)]
    lengths = [ints(*seqlens), ints(more.get("total", max(seqlens) + 1))]
    return [*head, *past, *lengths, *(more.get(name) for name in named)]


def angles(size: int) -> tuple[np.ndarray, np.ndarray]:
    turns = np.random.default_rng(6).uniform(0, 7, (32, size // 2))
    return np.cos(turns).astype(F), np.sin(turns).astype(F)


COS, SIN = angles(G)
GQA_STEPS: dict[str, Inputs] = {
    "prompt": gqa_inputs(5, None, [4]),
    "padded prompt": gqa_inputs(5, None, [4, 2], batch=2),
    "first tokens": gqa_inputs(1, None, [0, 0], batch=2),
    "token": gqa_inputs(1, 6, [6]),
    "ragged tokens": gqa_inputs(1, 6, [6, 3], batch=2),
    "chunk": gqa_inputs(3, 6, [8]),
    "buffer": gqa_inputs(1, 12, [4]),
}
GQA_FORMS: list[dict[str, Any]] = [
    {},
    {"local_window_size": 3},
    {"softcap": 0.7},
    {"scale": 0.3},
    {"smooth_softmax": 1},
]


@pytest.mark.parametrize("step", GQA_STEPS)
@pytest.mark.parametrize("form", GQA_FORMS, ids=lambda form: "-".join(form) or "plain")
def test_group_query_attention_by_onnxruntime_passes(step: str, form: dict[str, Any]) -> None:
    passes("GroupQueryAttention", GQA_STEPS[step], outputs=3, **GROUPS, **form)


@pytest.mark.parametrize("step", GQA_STEPS)
@pytest.mark.parametrize("interleaved", [0, 1])
def test_group_query_attention_with_rotation_passes(step: str, interleaved: int) -> None:
    inputs = [*GQA_STEPS[step][:7], COS, SIN]
    passes("GroupQueryAttention", inputs, outputs=3, do_rotary=1, rotary_interleaved=interleaved, **GROUPS)


@pytest.mark.parametrize(
    ("step", "positions"),
    [
        ("prompt", [[3, 4, 5, 6, 7]]),
        ("prompt", [[3, 9, 1, 6, 2]]),
        ("padded prompt", [[3, 4, 5, 6, 7], [9, 8, 7, 6, 5]]),
        ("first tokens", [[4], [9]]),
        ("token", [[11]]),
        ("ragged tokens", [[11], [5]]),
        ("chunk", [[6, 9, 2]]),
    ],
)
def test_group_query_attention_with_positions_passes(step: str, positions: list[list[int]]) -> None:
    inputs = [*GQA_STEPS[step][:7], COS, SIN, np.array(positions, np.int64)]
    passes("GroupQueryAttention", inputs, outputs=3, do_rotary=1, **GROUPS)


@pytest.mark.parametrize("step", ["first tokens", "ragged tokens"])
def test_group_query_attention_with_positions_of_another_row_fails(step: str) -> None:
    inputs = [*GQA_STEPS[step][:7], COS, SIN, np.array([[11], [5]], np.int64)]
    swapped = [*inputs[:9], inputs[9][::-1].copy()]
    wrong = run("GroupQueryAttention", swapped, outputs=3, do_rotary=1, **GROUPS)
    fails("GroupQueryAttention", inputs, wrong, do_rotary=1, **GROUPS)


@pytest.mark.parametrize("step", ["prompt", "chunk"])
def test_group_query_attention_with_bias_and_sink_passes(step: str) -> None:
    inputs = GQA_STEPS[step]
    added = normal(5, 1, 6, inputs[0].shape[1], int(inputs[6][0]))
    passes("GroupQueryAttention", [*inputs[:10], added], outputs=3, **GROUPS)
    passes("GroupQueryAttention", [*inputs[:10], added, normal(7, 6)], outputs=3, softcap=1.5, **GROUPS)


def test_group_query_attention_packed_and_bidirectional_passes() -> None:
    inputs = GQA_STEPS["prompt"]
    packed = [np.concatenate(inputs[:3], axis=-1), None, None, *inputs[3:]]
    passes("GroupQueryAttention", packed, outputs=3, **GROUPS)
    passes("GroupQueryAttention", inputs, outputs=3, causal=0, **GROUPS)


def test_group_query_attention_of_padded_chunk_passes() -> None:
    inputs = [*gqa_inputs(4, 12, [8, 5], batch=2, total=12), *[None] * 4, ints(3, 4)]
    passes("GroupQueryAttention", inputs, outputs=3, **GROUPS)


@pytest.mark.parametrize("step", ["prompt", "chunk", "buffer"])
@pytest.mark.parametrize("shown", [1, 2])
@pytest.mark.parametrize("form", [{}, {"softcap": 0.7}], ids=["plain", "softcap"])
def test_group_query_attention_showing_a_stage_passes(step: str, shown: int, form: dict[str, Any]) -> None:
    passes("GroupQueryAttention", GQA_STEPS[step], outputs=4, qk_output=shown, **GROUPS, **form)


def test_group_query_attention_showing_the_other_stage_fails() -> None:
    inputs = GQA_STEPS["buffer"]
    for shown in (1, 2):
        wrong = run("GroupQueryAttention", inputs, outputs=4, qk_output=3 - shown, **GROUPS)
        fails("GroupQueryAttention", inputs, wrong, qk_output=shown, **GROUPS)


def test_group_query_attention_with_normalised_heads_equals_norms_before_it() -> None:
    inputs = GQA_STEPS["prompt"]
    weights = [1 + normal(5, G) / 4, 1 + normal(6, G) / 4]
    q, k = (
        run("SimplifiedLayerNormalization", [x.reshape(1, 5, -1, G), w], domain="", epsilon=1e-6)[0].reshape(x.shape)
        for x, w in zip(inputs[:2], weights, strict=True)
    )
    right = run("GroupQueryAttention", [q, k, *inputs[2:7], COS, SIN], outputs=3, do_rotary=1, **GROUPS)
    normed = [*inputs[:7], COS, SIN, *[None] * 5, *weights]
    assert judge("GroupQueryAttention", normed, right, do_rotary=1, **GROUPS).outcome is Outcome.PASSED
    wrong = run("GroupQueryAttention", [*inputs[:7], COS, SIN], outputs=3, do_rotary=1, **GROUPS)
    fails("GroupQueryAttention", normed, wrong, do_rotary=1, **GROUPS)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_group_query_attention_leaves_the_cache_behind_its_last_token_open(value: float) -> None:
    inputs = GQA_STEPS["padded prompt"]
    outputs = run("GroupQueryAttention", inputs, outputs=3, **GROUPS)
    for cache in outputs[1:]:
        cache[1, :, 3:] = value
    assert judge("GroupQueryAttention", inputs, outputs, **GROUPS).outcome is Outcome.PASSED
    outputs[2][1, 1, 2, 0] = value
    fails("GroupQueryAttention", inputs, outputs, **GROUPS)


ROLLING: dict[str, int] = {**GROUPS, "local_window_size": 3, "sliding_window_cache": 1}
ROLLING_STEPS: dict[str, Inputs] = {
    "prompt that fits": gqa_inputs(5, 6, [4]),
    "prompt that does not": gqa_inputs(9, 6, [8]),
    "token that fits": gqa_inputs(1, 6, [5]),
    "token that evicts": gqa_inputs(1, 6, [6]),
    "ragged tokens": gqa_inputs(1, 6, [19, 3], batch=2),
    "chunk": gqa_inputs(4, 6, [12]),
    "padded chunk": [*gqa_inputs(4, 6, [12, 5], batch=2), *[None] * 4, ints(3, 0)],
}


@pytest.mark.parametrize("step", ROLLING_STEPS)
def test_group_query_attention_with_a_sliding_cache_passes(step: str) -> None:
    inputs = ROLLING_STEPS[step]
    passes("GroupQueryAttention", inputs, outputs=3, **ROLLING)
    turned = [*inputs[:7], COS, SIN, *inputs[9:]]
    passes("GroupQueryAttention", turned, outputs=3, do_rotary=1, **ROLLING)


def test_group_query_attention_with_a_sliding_cache_that_is_not_moved_or_seen_too_far_fails() -> None:
    inputs = ROLLING_STEPS["token that evicts"]  # of 6 rows 4 go, and one comes
    outputs = run("GroupQueryAttention", inputs, outputs=3, **ROLLING)
    np.testing.assert_array_equal(outputs[1][:, :, :2], inputs[3][:, :, 4:])
    stale = inputs[3].copy()
    stale[:, :, :1] = outputs[1][:, :, 2:3]
    fails("GroupQueryAttention", inputs, [outputs[0], stale, outputs[2]], **ROLLING)
    wider = run("GroupQueryAttention", inputs, outputs=3, **{**ROLLING, "local_window_size": 4})
    fails("GroupQueryAttention", inputs, [wider[0], *outputs[1:]], **ROLLING)
    fails("GroupQueryAttention", inputs, [outputs[0], *wider[1:]], **ROLLING)


def test_group_query_attention_with_a_sliding_cache_smaller_than_its_window_is_refused() -> None:
    inputs = ROLLING_STEPS["token that fits"]
    with pytest.raises(InvalidInputError, match="local_window_size=7"):
        judge("GroupQueryAttention", inputs, [inputs[0]], **{**ROLLING, "local_window_size": 7})


GQA_FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "window one longer": ({"local_window_size": 3}, {"local_window_size": 4}),
    "causal mask ignored": ({}, {"causal": 0}),
    "soft cap ignored": ({"softcap": 0.7}, {}),
    "another scale": ({}, {"scale": 1 / G}),
    "smooth factor left out": ({"smooth_softmax": 1}, {}),
    "pairs are neighbours": ({"do_rotary": 1}, {"do_rotary": 1, "rotary_interleaved": 1}),
    "not rotated": ({"do_rotary": 1}, {}),
}


@pytest.mark.parametrize("fault", GQA_FAULTS)
def test_group_query_attention_with_a_fault_fails(fault: str) -> None:
    right, wrong = GQA_FAULTS[fault]
    inputs = [*GQA_STEPS["prompt"][:7], COS, SIN]
    outputs = run("GroupQueryAttention", inputs, outputs=1, **GROUPS, **wrong)
    fails("GroupQueryAttention", inputs, outputs, **GROUPS, **right)


def test_group_query_attention_with_heads_tiled_instead_of_repeated_fails() -> None:
    inputs = GQA_STEPS["prompt"][:7]
    tiled = [0, 2, 4, 1, 3, 5]  # query heads 0, 1, 2, … then meet key heads 0, 1, 0, …
    query = inputs[0].reshape(1, -1, 6, G)[:, :, tiled].reshape(inputs[0].shape)
    y = run("GroupQueryAttention", [query, *inputs[1:]], outputs=1, **GROUPS)[0].reshape(1, -1, 6, G)
    fails("GroupQueryAttention", inputs, [y[:, :, np.argsort(tiled)].reshape(query.shape)], **GROUPS)


def test_group_query_attention_with_a_stale_cache_fails() -> None:
    inputs = GQA_STEPS["token"]
    outputs = run("GroupQueryAttention", inputs, outputs=3, **GROUPS)
    outputs[1][0, 1, -1] = 0
    fails("GroupQueryAttention", inputs, outputs, **GROUPS)


# RotaryEmbedding

ROTARY: dict[str, tuple[np.ndarray, np.ndarray, dict[str, Any]]] = {
    "flat": (normal(0, B, T, HIDDEN), np.arange(12).reshape(B, T)[:, ::-1].copy(), {}),
    "offset": (normal(0, B, T, HIDDEN), np.array([3]), {}),
    "over heads": (normal(0, B, H, T, D), np.arange(12).reshape(B, T), {"interleaved": 1}),
    "part": (normal(0, B, T, HIDDEN), np.array([0]), {"num_heads": H, "rotary_embedding_dim": 4}),
}


@pytest.mark.parametrize("form", ROTARY)
def test_rotary_embedding_by_onnxruntime_passes_and_reversed_fails(form: str) -> None:
    x, positions, attributes = ROTARY[form]
    cos, sin = angles(attributes.get("rotary_embedding_dim", D))
    inputs = [x, positions.astype(np.int64), cos, sin]
    passes("RotaryEmbedding", inputs, **attributes)
    fails("RotaryEmbedding", inputs, run("RotaryEmbedding", [*inputs[:3], -sin], **attributes), **attributes)


def test_rotary_embedding_with_positions_off_by_one_fails() -> None:
    x, positions, attributes = ROTARY["offset"]
    inputs = [x, positions.astype(np.int64), *angles(D)]
    wrong = run("RotaryEmbedding", [x, positions.astype(np.int64) + 1, *angles(D)], **attributes)
    fails("RotaryEmbedding", inputs, wrong, **attributes)


def test_rotary_embedding_with_a_scale_is_refused() -> None:
    x, positions, _ = ROTARY["flat"]
    with pytest.raises(InvalidInputError, match="scale is not modelled"):
        judge("RotaryEmbedding", [x, positions.astype(np.int64), COS, SIN], [x], scale=2.0)
