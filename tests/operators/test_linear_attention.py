"""LinearAttention and CausalConvWithState: official cases, function bodies, plain loops, torch, faults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.scale import Array

from .function_bodies import run_body
from .ml_nodes import call, outcomes, verdicts
from .node_cases import Case, cases, check_case, check_signature, versions

OPERATORS = {"CausalConvWithState", "LinearAttention"}

PASSED, FAILED = Outcome.PASSED, Outcome.FAILED


@pytest.mark.parametrize("case", cases(OPERATORS), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions(OPERATORS))
def test_kernel_at_every_version_has_the_parameters_of_the_schema(op_type: str, version: int) -> None:
    check_signature(op_type, version)


@dataclass(frozen=True)
class Drawn:
    """What inputs are drawn: how many steps and heads, with a state or not, gates by head or by element."""

    steps: int = 20
    heads: tuple[int, int] = (4, 2)
    past: bool = True
    per_head: bool = False


def attention_inputs(seed: int, rule: str, drawn: Drawn = Drawn()) -> list[Any]:
    """query, key (of length one), value, past_state, decay, beta of two sequences; dk = 5, dv = 3."""
    rng = np.random.default_rng(seed)
    T, heads, past, per_head = drawn.steps, drawn.heads, drawn.past, drawn.per_head
    q, k = (rng.standard_normal((2, T, n * 5)) for n in heads)
    v = rng.standard_normal((2, T, heads[1] * 3))
    k = (k.reshape(2, T, heads[1], 5) / np.linalg.norm(k.reshape(2, T, heads[1], 5), axis=3, keepdims=True)).reshape(
        k.shape
    )
    state = rng.standard_normal((2, heads[1], 5, 3)) if past else None
    decay = -rng.random((2, T, heads[1] * (1 if per_head else 5))) if "gated" in rule else None
    beta = rng.random((2, T, 1 if per_head else heads[1])) if "delta" in rule else None
    return [None if x is None else x.astype(np.float32) for x in (q, k, v, state, decay, beta)]


def slow_attention(rule: str, inputs: list[Any], fault: str = "") -> tuple[Array, Array]:
    """One sequence, head and step after the other, by the formulas; with one of `FAULTS` if named."""
    q, k, v = (x.astype(np.float64) for x in inputs[:3])
    past, decay, beta = (None if x is None else x.astype(np.float64) for x in inputs[3:])
    (B, T), H, Hq = q.shape[:2], k.shape[2] // 5, q.shape[2] // 5
    state = np.zeros((B, H, 5, 3)) if past is None or fault == "past ignored" else past.copy()
    y = np.zeros((B, T, Hq, 3))
    for b in range(B):
        for h in range(H):
            for t in range(T):
                kt, vt = k[b, t, 5 * h : 5 * h + 5], v[b, t, 3 * h : 3 * h + 3]
                s = before = state[b, h].copy()
                if decay is not None:
                    each = decay.shape[2] // H
                    g = decay[b, t, h * each : (h + 1) * each]
                    s = s * (1 + g if fault == "decay not in log-space" else np.exp(g))[:, None]
                if beta is not None:
                    rate = beta[b, t, h if beta.shape[2] > 1 else 0]
                    seen = before if fault == "delta before decay" else s
                    vt = (1.0 if fault == "beta ignored" else rate) * (vt - seen.T @ kt)
                last = state[b, h].copy()
                state[b, h] = s + np.outer(kt, vt)
                for j in range(Hq // H):
                    head = h + j * H if fault == "heads interleaved" else h * (Hq // H) + j
                    shown = last if fault == "state read before it is written" else state[b, h]
                    y[b, t, head] = (
                        shown.T @ q[b, t, 5 * head : 5 * head + 5] / (1 if fault == "scale" else math.sqrt(5))
                    )
    return y.reshape(B, T, -1), state


RULES = ["linear", "gated", "delta", "gated_delta"]


def options(rule: str, heads: tuple[int, int] = (4, 2)) -> dict[str, Any]:
    return {"opset": 27, "domain": "", "q_num_heads": heads[0], "kv_num_heads": heads[1], "update_rule": rule}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("heads", [(4, 2), (2, 2), (3, 1)])
@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("per_head", [False, True])
def test_recurrence_is_that_of_plain_loops(rule: str, heads: tuple[int, int], past: bool, per_head: bool) -> None:
    inputs = attention_inputs(3, rule, Drawn(heads=heads, past=past, per_head=per_head))
    for actual, expected in zip(
        call("LinearAttention", *inputs, **options(rule, heads)), slow_attention(rule, inputs), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("seed", [1, 2])
def test_function_body_passes(rule: str, dtype: Any, seed: int) -> None:
    inputs = [None if x is None else x.astype(dtype) for x in attention_inputs(seed, rule, Drawn(60))]
    ran = run_body("LinearAttention", inputs, node_attributes(rule), opset=27, output_count=2)
    found = verdicts(ran, "LinearAttention", *inputs, **options(rule))
    assert [v.outcome for v in found] == [PASSED, PASSED], [v.message for v in found]
    moved = [ran[0].copy(), ran[1].copy()]
    moved[0][1, 7, 2] *= dtype(1.03)
    moved[1][0, 1, 2, 1] *= dtype(1.03)
    assert outcomes(moved, "LinearAttention", *inputs, **options(rule)) == [FAILED, FAILED]


def node_attributes(rule: str) -> dict[str, Any]:
    return {name: value for name, value in options(rule).items() if name not in ("opset", "domain")}


FAULTS = [
    "past ignored",
    "decay not in log-space",
    "delta before decay",
    "beta ignored",
    "heads interleaved",
    "state read before it is written",
    "scale",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_in_the_recurrence_is_caught(fault: str) -> None:
    inputs = attention_inputs(5, "gated_delta")
    wrong = [x.astype(np.float32) for x in slow_attention("gated_delta", inputs, fault)]
    assert outcomes(wrong, "LinearAttention", *inputs, **options("gated_delta"))[0] is FAILED
    right = [x.astype(np.float32) for x in slow_attention("gated_delta", inputs)]
    assert outcomes(right, "LinearAttention", *inputs, **options("gated_delta")) == [PASSED, PASSED]


def test_wide_state_behind_narrow_activations_must_be_carried_in_its_own_type() -> None:
    inputs = [x.astype(np.float16) for x in attention_inputs(6, "gated_delta")]
    inputs[3] = inputs[3].astype(np.float32)
    y, state = (np.asarray(x) for x in slow_attention("gated_delta", inputs))
    right = [y.astype(np.float16), state.astype(np.float32)]
    assert outcomes(right, "LinearAttention", *inputs, **options("gated_delta")) == [PASSED, PASSED]
    narrow = [y.astype(np.float16), state.astype(np.float16).astype(np.float32)]
    assert outcomes(narrow, "LinearAttention", *inputs, **options("gated_delta")) == [PASSED, FAILED]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"update_rule": "momentum"}, InvalidAttributeError, "momentum"),
        ({"q_num_heads": 3}, InvalidAttributeError, "no multiple"),
        ({"update_rule": "linear"}, InvalidInputError, "takes no decay"),
        ({"kv_num_heads": 4}, InvalidInputError, "LinearAttention"),
    ],
)
def test_impossible_attention_is_named(change: dict[str, Any], error: Any, message: str) -> None:
    inputs = attention_inputs(1, "gated_delta")
    with pytest.raises(error, match=message):
        call("LinearAttention", *inputs, **{**options("gated_delta"), **change})


def test_missing_gate_is_named() -> None:
    inputs = attention_inputs(1, "gated_delta")
    with pytest.raises(InvalidInputError, match="needs beta"):
        call("LinearAttention", *inputs[:5], **options("gated_delta"))


def test_no_step_leaves_the_state() -> None:
    inputs = attention_inputs(1, "gated_delta", Drawn(0))
    y, state = call("LinearAttention", *inputs, **options("gated_delta"))
    assert y.shape == (2, 0, 12)
    np.testing.assert_array_equal(state, inputs[3].astype(np.float64))
    stored = [y.astype(np.float32), inputs[3]]
    assert outcomes(stored, "LinearAttention", *inputs, **options("gated_delta")) == [PASSED, PASSED]


def conv_inputs(seed: int, dtype: Any = np.float32, *, k: int = 4, length: int = 30) -> list[Array]:
    rng = np.random.default_rng(seed)
    shapes = ((2, 6, length), (6, 1, k), (6,), (2, 6, k - 1))
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


CONV: dict[str, Any] = {"opset": 27, "domain": ""}


@pytest.mark.parametrize("activation", ["none", "silu", "swish"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("k", [1, 4])
def test_torch_convolution_behind_the_state_passes(activation: str, dtype: Any, k: int) -> None:
    torch = pytest.importorskip("torch")
    x, w, b, past = conv_inputs(7, dtype, k=k)
    wide = [torch.from_numpy(a.astype(np.float64)) for a in (x, w, b, past)]
    y = torch.nn.functional.conv1d(torch.cat([wide[3], wide[0]], 2), wide[1], wide[2], groups=6)
    y = y if activation == "none" else torch.nn.functional.silu(y)
    reference, state = call("CausalConvWithState", x, w, b, past, activation=activation, **CONV)
    np.testing.assert_allclose(reference, y.numpy(), rtol=1e-12, atol=1e-14)
    assert state.shape == past.shape
    stored = [y.numpy().astype(dtype), np.concatenate([past, x], 2)[:, :, x.shape[2] :]]
    assert outcomes(stored, "CausalConvWithState", x, w, b, past, activation=activation, **CONV) == [PASSED, PASSED]


@pytest.mark.parametrize("activation", ["none", "silu"])
@pytest.mark.parametrize("length", [2, 30])
def test_function_body_of_the_convolution_passes(activation: str, length: int) -> None:
    inputs = conv_inputs(8, length=length)
    ran = run_body("CausalConvWithState", inputs, {"activation": activation}, opset=27, output_count=2)
    assert outcomes(ran, "CausalConvWithState", *inputs, activation=activation, **CONV) == [PASSED, PASSED]


def faulty_conv(fault: str) -> tuple[list[Array], list[Array]]:
    """Inputs, and outputs that are wrong in one way."""
    x, w, b, past = conv_inputs(9)
    used = [x, w, b, past]
    options_ = {"activation": "silu", **CONV}
    if fault == "past ignored":
        used[3] = np.zeros_like(past)
    elif fault == "filter reversed":
        used[1] = w[:, :, ::-1].copy()
    elif fault == "bias ignored":
        used[2] = np.zeros_like(b)
    elif fault == "activation ignored":
        options_["activation"] = "none"
    y, state = (a.astype(np.float32) for a in call("CausalConvWithState", *used, **options_))
    if fault == "not causal":
        y = np.roll(y, -1, axis=2)
    if fault == "state off by one":
        state = np.concatenate([past, x], 2)[:, :, x.shape[2] - 1 : -1]
    return [x, w, b, past], [y, state]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("", [PASSED, PASSED]),
        ("past ignored", [FAILED, PASSED]),
        ("filter reversed", [FAILED, PASSED]),
        ("bias ignored", [FAILED, PASSED]),
        ("activation ignored", [FAILED, PASSED]),
        ("not causal", [FAILED, PASSED]),
        ("state off by one", [PASSED, FAILED]),
    ],
)
def test_fault_in_the_convolution_is_caught(fault: str, expected: list[Outcome]) -> None:
    inputs, stored = faulty_conv(fault)
    assert outcomes(stored, "CausalConvWithState", *inputs, activation="silu", **CONV) == expected


@pytest.mark.parametrize(
    ("position", "shape", "message"),
    [(0, (2, 6), "input"), (1, (6, 2, 4), "weight"), (1, (5, 1, 4), "weight"), (3, (2, 6, 4), "state")],
)
def test_impossible_convolution_is_named(position: int, shape: tuple[int, ...], message: str) -> None:
    inputs = conv_inputs(1)
    inputs[position] = np.zeros(shape, np.float32)
    with pytest.raises(InvalidInputError, match=message):
        call("CausalConvWithState", *inputs, **CONV)


def test_unknown_activation_is_named() -> None:
    with pytest.raises(InvalidAttributeError, match="gelu"):
        call("CausalConvWithState", *conv_inputs(1), activation="gelu", **CONV)
