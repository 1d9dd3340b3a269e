"""RNN, GRU and LSTM: official cases, torch in float64, plain loops over the equations, ONNX Runtime, faults."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onnx_arch.conformance.results import Outcome, Verdict
from onnx_arch.conformance.verdict import judge
from onnx_arch.conformance.witness import witness_for
from onnx_arch.errors import InvalidAttributeError, InvalidInputError
from onnx_arch.operators.evaluation import prepare
from onnx_arch.operators.registry import find_kernel, parameters
from onnx_arch.operators.scale import Array

from .judging import call, run_onnxruntime
from .node_cases import Case, cases, check_case, check_signature, examples, versions

OPERATORS = {"RNN", "GRU", "LSTM"}
BLOCKS = {"RNN": 1, "GRU": 3, "LSTM": 4}
OUTPUTS = {"RNN": 2, "GRU": 2, "LSTM": 3}
DIRECTIONS = ("forward", "reverse", "bidirectional")


@pytest.mark.parametrize("case", cases(OPERATORS), ids=str)
def test_node_case_of_onnx_gives_its_outputs(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize(("op_type", "version"), versions(OPERATORS - {"RNN"}))
def test_kernel_at_every_version_has_the_parameters_of_the_schema(op_type: str, version: int) -> None:
    check_signature(op_type, version)


@pytest.mark.parametrize("version", [1, 7, 14, 22])
def test_rnn_at_every_version_has_the_attributes_of_the_schema(version: int) -> None:
    import onnx  # noqa: PLC0415 (only for its schema)

    schema = onnx.defs.get_schema("RNN", version, "")
    known = set(parameters(find_kernel("RNN", opset=version).function))
    assert known == {*schema.attributes, "stored", "output_count"}


def weights(  # noqa: PLR0913 (the sizes of a recurrence)
    op_type: str,
    seed: int,
    *,
    T: int = 6,  # noqa: N803
    B: int = 3,  # noqa: N803
    I: int = 5,  # noqa: E741, N803
    H: int = 4,  # noqa: N803
    D: int = 1,  # noqa: N803
) -> list[Any]:
    """X, W, R, B, sequence_lens, initial_h and, for LSTM, initial_c and P; weights as PyTorch initialises them."""
    rng = np.random.default_rng(seed)
    span, rows = 1 / math.sqrt(H), BLOCKS[op_type] * H

    def uniform(*shape: int) -> Array:
        return rng.uniform(-span, span, shape).astype(np.float32)

    lengths = rng.integers(1, T + 1, B).astype(np.int32)
    lengths[rng.integers(B)] = T
    inputs = [rng.standard_normal((T, B, I)).astype(np.float32), uniform(D, rows, I), uniform(D, rows, H)]
    inputs += [uniform(D, 2 * rows), lengths, uniform(D, B, H)]
    return [*inputs, uniform(D, B, H), uniform(D, 3 * H)] if op_type == "LSTM" else inputs


def outputs(op_type: str, inputs: Sequence[Any], attributes: Mapping[str, Any], *, opset: int = 14) -> tuple[Any, ...]:
    """All reference outputs."""
    return call(op_type, *inputs, opset=opset, output_count=OUTPUTS[op_type], **attributes)


TORCH_ORDER = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 2, 3, 1]}
"""Where PyTorch's gates (r, z, n; i, f, g, o) stand in ONNX's order (z, r, h; i, o, f, c)."""


def by_torch(op_type: str, inputs: Sequence[Any], direction: str) -> list[Array]:
    """Y, Y_h (and Y_c) of PyTorch in float64, sequences packed; PyTorch knows the linear_before_reset GRU only."""
    x, w, r, b, lengths, *states = (
        torch.from_numpy(np.asarray(v, np.int64 if v.dtype.kind == "i" else float)) for v in inputs
    )
    hidden, both = r.shape[-1], direction == "bidirectional"
    net = getattr(torch.nn, op_type)(x.shape[-1], hidden, bidirectional=both, dtype=torch.float64)

    def ordered(part: torch.Tensor) -> torch.Tensor:
        return torch.cat([part.split(hidden)[i] for i in TORCH_ORDER[op_type]])

    for d, suffix in enumerate(("", "_reverse")[: 1 + both]):
        wb, rb = b[d].chunk(2)
        for name, part in (("weight_ih", w[d]), ("weight_hh", r[d]), ("bias_ih", wb), ("bias_hh", rb)):
            getattr(net, f"{name}_l0{suffix}").data = ordered(part)
    pack = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    y, last = net(pack, tuple(states[:2]) if op_type == "LSTM" else states[0])
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=len(x))
    y = y.reshape(*y.shape[:2], 1 + both, hidden).transpose(1, 2)
    return [part.detach().numpy() for part in (y, *(last if op_type == "LSTM" else [last]))]


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("op_type", sorted(OPERATORS))
def test_float64_agrees_with_torch(op_type: str, direction: str) -> None:
    inputs = weights(op_type, 1, T=9, D=1 + (direction == "bidirectional"))
    attributes: dict[str, Any] = {"direction": direction, "hidden_size": 4}
    if op_type == "GRU":
        attributes["linear_before_reset"] = 1
    plain = inputs[:7]  # without peepholes, which PyTorch does not have
    for mine, expected in zip(outputs(op_type, plain, attributes), by_torch(op_type, plain, direction), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-12, atol=1e-14)


FUNCTIONS: Mapping[str, Callable[[float, float, float], float]] = {
    "Relu": lambda x, _a, _b: max(0.0, x),
    "Tanh": lambda x, _a, _b: math.tanh(x),
    "Sigmoid": lambda x, _a, _b: 1 / (1 + math.exp(-x)),
    "Affine": lambda x, a, b: a * x + b,
    "LeakyRelu": lambda x, a, _b: x if x >= 0 else a * x,
    "ThresholdedRelu": lambda x, a, _b: x if x >= a else 0.0,
    "ScaledTanh": lambda x, a, b: a * math.tanh(b * x),
    "HardSigmoid": lambda x, a, b: min(max(a * x + b, 0.0), 1.0),
    "Elu": lambda x, a, _b: x if x >= 0 else a * (math.exp(x) - 1),
    "Softsign": lambda x, _a, _b: x / (1 + abs(x)),
    "Softplus": lambda x, _a, _b: math.log(1 + math.exp(x)),
}
"""The equations of the specification, one number at a time."""
WITH_ALPHA = ("Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu")
WITH_BETA = ("Affine", "ScaledTanh", "HardSigmoid")
ALPHA, BETA = 0.375, 0.25  # exact in float32


def slow_lstm(x: Array, parts: Sequence[Array], names: Sequence[str], options: Mapping[str, Any]) -> list[list[float]]:
    """One direction, one sequence, unit by unit: the final h and c. `parts` are W, R, B, initial h and c, P."""
    w, r, b, h, c, p = parts
    f, g, outer = (lambda v, n=name: FUNCTIONS[n](v, ALPHA, BETA) for name in names)
    clip, n = options.get("clip"), len(h)

    def cut(v: float) -> float:
        return v if clip is None else min(max(v, -clip), clip)

    for xt in x:
        total = [sum(xt * w[i]) + sum(h * r[i]) + b[i] + b[4 * n + i] for i in range(4 * n)]
        i = [f(cut(total[k] + p[k] * c[k])) for k in range(n)]
        forget = [
            1 - i[k] if options.get("input_forget") else f(cut(total[2 * n + k] + p[2 * n + k] * c[k]))
            for k in range(n)
        ]
        new = [forget[k] * c[k] + i[k] * g(cut(total[3 * n + k])) for k in range(n)]
        o = [f(cut(total[n + k] + p[n + k] * new[k])) for k in range(n)]
        h, c = np.array([o[k] * outer(cut(new[k])) for k in range(n)]), np.array(new)
    return [list(h), list(c)]


@pytest.mark.parametrize(
    "names", [("Sigmoid", "Tanh", "Tanh"), ("HardSigmoid", "Softsign", "ScaledTanh"), ("Sigmoid", "Elu", "Relu")]
)
@pytest.mark.parametrize(
    "options", [{}, {"clip": 0.5}, {"input_forget": 1}, {"clip": 0.25, "input_forget": 1}], ids=str
)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_lstm_follows_the_equations_with_peepholes(
    names: tuple[str, ...], options: dict[str, Any], direction: str
) -> None:
    D = 1 + (direction == "bidirectional")
    x, w, r, b, lengths, h, c, p = weights("LSTM", 2, D=D)
    taking = {"activation_alpha": [ALPHA] * 6, "activation_beta": [BETA] * 6}
    attributes = {"direction": direction, "activations": list(names) * D, **taking, **options}
    _, y_h, y_c = outputs("LSTM", (x, w, r, b, lengths, h, c, p), attributes)
    for d, n in itertools.product(range(D), range(len(lengths))):
        part = x[: lengths[n], n].astype(float)
        part = part[::-1] if direction == "reverse" or d == 1 else part
        wide = [v.astype(float) for v in (w[d], r[d], b[d], h[d, n], c[d, n], p[d])]
        expected = slow_lstm(part, wide, names, options)
        np.testing.assert_allclose([y_h[d, n], y_c[d, n]], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("linear_before_reset", [0, 1])
def test_gru_follows_the_equations(linear_before_reset: int) -> None:
    x, w, r, b, _, h = (v.astype(float) for v in weights("GRU", 3, B=1))
    y, _ = outputs("GRU", (x, w, r, b, None, h), {"linear_before_reset": linear_before_reset})
    n, state = 4, h[0, 0]
    wz, wr, wh = w[0].reshape(3, n, -1)
    rz, rr, rh = r[0].reshape(3, n, -1)
    bz, br, bh, cz, cr, ch = b[0].reshape(6, n)
    for t, xt in enumerate(x[:, 0]):
        z = 1 / (1 + np.exp(-(wz @ xt + rz @ state + bz + cz)))
        reset = 1 / (1 + np.exp(-(wr @ xt + rr @ state + br + cr)))
        brought = reset * (rh @ state + ch) if linear_before_reset else rh @ (reset * state) + ch
        state = (1 - z) * np.tanh(wh @ xt + brought + bh) + z * state
        np.testing.assert_allclose(y[t, 0, 0], state, rtol=1e-13)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_activation_is_the_one_of_the_specification(name: str) -> None:
    x = np.linspace(-3, 3, 25, dtype=np.float32).reshape(-1, 1, 1)
    attributes: dict[str, Any] = {"activations": [name]}
    if name in WITH_ALPHA:
        attributes["activation_alpha"] = [ALPHA]
    if name in WITH_BETA:
        attributes["activation_beta"] = [BETA]
    y, _ = outputs("RNN", (x, np.ones((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32)), attributes)
    expected = [FUNCTIONS[name](float(v), ALPHA, BETA) for v in x.flat]
    np.testing.assert_allclose(y.ravel(), expected, rtol=1e-14)


def test_parameters_are_consumed_by_the_activations_that_take_them() -> None:
    x, w, r, *_ = weights("LSTM", 4)
    parts = {
        "activations": ["HardSigmoid", "Tanh", "LeakyRelu"],
        "activation_alpha": [0.25, 0.5],
        "activation_beta": [0.5],
    }
    whole = {**parts, "activations": ["hardsigmoid", "TANH", "leakyrelu"]}
    for mine, other in zip(outputs("LSTM", (x, w, r), parts), outputs("LSTM", (x, w, r), whole), strict=True):
        np.testing.assert_array_equal(mine, other)
    ran = run_onnxruntime("LSTM", (x, w, r), {**parts, "hidden_size": 4}, opset=14, output_count=3)
    for mine, other in zip(outputs("LSTM", (x, w, r), parts), ran, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("op_type", sorted(OPERATORS))
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_layout_1_is_layout_0_with_the_batch_first(op_type: str, direction: str) -> None:
    D = 1 + (direction == "bidirectional")
    inputs = weights(op_type, 5, D=D)
    swapped = [v.swapaxes(0, 1) if i in (0, 5, 6) else v for i, v in enumerate(inputs)]
    y, *last = outputs(op_type, inputs, {"direction": direction})
    moved, *moved_last = outputs(op_type, swapped, {"direction": direction, "layout": 1})
    np.testing.assert_array_equal(moved, y.transpose(2, 0, 1, 3))
    for state, other in zip(last, moved_last, strict=True):
        np.testing.assert_array_equal(other, state.swapaxes(0, 1))


@pytest.mark.parametrize("op_type", sorted(OPERATORS))
def test_what_lies_beyond_a_sequence_changes_nothing(op_type: str) -> None:
    inputs = weights(op_type, 6, D=2)
    other = list(inputs)
    other[0] = np.where(np.arange(6)[:, None, None] < inputs[4][:, None], inputs[0], np.float32(1e6))
    for mine, changed in zip(
        *(outputs(op_type, v, {"direction": "bidirectional"}) for v in (inputs, other)), strict=True
    ):
        np.testing.assert_array_equal(mine, changed)


def verdicts(
    op_type: str, inputs: Sequence[Any], attributes: Mapping[str, Any], actual: Sequence[Array]
) -> list[Verdict]:
    """The verdict on every output."""
    node = prepare(op_type, inputs, attributes, opset=14, output_count=OUTPUTS[op_type])
    references = node.outputs()
    scales = node.scales(references)
    assert scales is not None
    rows = zip(actual, references, scales, strict=True)
    return [judge(a, r, a.dtype, s, witness_for(node, i, r, s)) for i, (a, r, s) in enumerate(rows)]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (7, 2, 12, 20), (200, 2, 16, 32)], ids=str)
@pytest.mark.parametrize("op_type", sorted(OPERATORS))
def test_onnxruntime_lies_within_three_standard_deviations(
    op_type: str, direction: str, sizes: tuple[int, int, int, int]
) -> None:
    inputs = weights(op_type, 7, **dict(zip("TBIH", sizes, strict=True)), D=1 + (direction == "bidirectional"))
    attributes = {"direction": direction, "hidden_size": sizes[-1]}
    ran = run_onnxruntime(op_type, inputs, attributes, opset=14, output_count=OUTPUTS[op_type])
    for verdict in verdicts(op_type, inputs, attributes, ran):
        assert verdict.outcome is Outcome.PASSED, verdict.message
        assert verdict.max_z is not None
        assert verdict.max_z < 3


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"ThresholdedRelu"}))
@pytest.mark.parametrize("op_type", sorted(OPERATORS))
def test_onnxruntime_is_right_with_every_activation(op_type: str, name: str) -> None:
    inputs = weights(op_type, 8, T=4, H=16)  # ONNX Runtime's Softplus of 89 and more is infinite, then NaN
    count = {"RNN": 1, "GRU": 2, "LSTM": 3}[op_type]
    attributes: dict[str, Any] = {"hidden_size": 16, "activations": [name] * count}
    if name in WITH_ALPHA:
        attributes["activation_alpha"] = [ALPHA] * count
    if name in WITH_BETA:
        attributes["activation_beta"] = [BETA] * count
    ran = run_onnxruntime(op_type, inputs, attributes, opset=14, output_count=OUTPUTS[op_type])
    for verdict in verdicts(op_type, inputs, attributes, ran):
        assert verdict.outcome is Outcome.PASSED, verdict.message


@pytest.mark.parametrize(
    ("op_type", "options"),
    [
        ("RNN", {"clip": 0.3}),
        ("GRU", {"linear_before_reset": 1}),
        ("GRU", {"clip": 0.3}),
        ("LSTM", {"clip": 1.5}),  # less, and all of it hangs on whether the cell is clipped, which is left open
        ("LSTM", {"input_forget": 1}),
    ],
    ids=str,
)
def test_onnxruntime_is_right_with_every_option(op_type: str, options: dict[str, Any]) -> None:
    inputs = weights(op_type, 9, T=12, H=16)
    attributes = {"hidden_size": 16, **options}
    ran = run_onnxruntime(op_type, inputs, attributes, opset=14, output_count=OUTPUTS[op_type])
    for verdict in verdicts(op_type, inputs, attributes, ran):
        assert verdict.outcome is Outcome.PASSED, verdict.message


def test_clip_of_the_cell_is_left_open_where_readings_differ() -> None:
    inputs = weights("LSTM", 9, T=3, B=1, I=2, H=4)
    inputs[4] = None
    inputs[5:] = [np.zeros((1, 1, 4), np.float32), np.array([[[0.1, 5.0, 0.1, 0.1]]], np.float32), None]
    for clip, outcome in ((0.5, Outcome.PASSED), (50.0, Outcome.FAILED)):
        ran = [part.astype(np.float32) for part in outputs("LSTM", inputs, {"clip": clip})]
        assert verdicts("LSTM", inputs, {"clip": clip}, ran)[0].outcome is Outcome.PASSED
        ran[0][0, 0, 0, 1] += np.float32(0.01)  # the unit whose cell is beyond 0.5, and all that it feeds
        ran[0][1:] += np.float32(0.01)
        assert verdicts("LSTM", inputs, {"clip": clip}, ran)[0].outcome is outcome
        ran[0][0, 0, 0, 0] += np.float32(0.01)
        assert verdicts("LSTM", inputs, {"clip": clip}, ran)[0].outcome is Outcome.FAILED


@pytest.mark.parametrize("op_type", sorted(OPERATORS))
@examples
@given(st.floats(0.05, 3.0), st.integers(0, 1000))
def test_float32_in_numpy_is_right_whatever_the_weights(op_type: str, gain: float, seed: int) -> None:
    x, w, r, *rest = weights(op_type, seed, T=20, H=8)
    inputs = [x, w * np.float32(gain), r * np.float32(gain), *rest]
    node = prepare(op_type, inputs, {}, opset=14, output_count=OUTPUTS[op_type])
    narrow = [v.astype(np.float32) if v.dtype.kind == "f" else v for v in inputs]
    ran = node.entry.function(*narrow, **node.keywords)
    assert all(part.dtype == np.float32 for part in ran)
    for verdict in verdicts(op_type, inputs, {}, ran):
        assert verdict.outcome is Outcome.PASSED, verdict.message


def swap_gates(part: Array, blocks: int) -> Array:
    """The first two gates exchanged."""
    order = [1, 0, *range(2, blocks)]
    return np.concatenate([np.split(part, blocks, axis=1)[i] for i in order], axis=1)


def faults(op_type: str, inputs: Sequence[Any]) -> dict[str, list[Any]]:
    """Inputs that make the kernel compute what a wrong implementation would."""
    x, w, r, b, lengths, h, *rest = inputs
    tf32 = (w.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
    found = {
        "recurrence weights transposed": [
            x,
            w,
            r.reshape(1, -1, *r.shape[-1:] * 2).swapaxes(2, 3).reshape(r.shape),
            b,
            lengths,
            h,
        ],
        "initial state ignored": [x, w, r, b, lengths, None],
        "lengths ignored": [x, w, r, b, None, h],
        "second bias ignored": [
            x,
            w,
            r,
            np.concatenate([b[:, : b.shape[1] // 2], 0 * b[:, b.shape[1] // 2 :]], 1),
            lengths,
            h,
        ],
        "last input dropped": [np.concatenate([x[..., :-1], 0 * x[..., -1:]], -1), w, r, b, lengths, h],
        "TF32 weights": [x, tf32, r, b, lengths, h],
    }
    if BLOCKS[op_type] > 1:
        found["gates in another order"] = [
            x,
            swap_gates(w, BLOCKS[op_type]),
            swap_gates(r, BLOCKS[op_type]),
            b,
            lengths,
            h,
        ]
    found = {name: [*changed, *rest] for name, changed in found.items()}
    if op_type == "LSTM":
        found["peepholes ignored"] = [x, w, r, b, lengths, h, rest[0], None]
    return found


@pytest.mark.parametrize("op_type", sorted(OPERATORS))
def test_fault_lies_beyond_the_bounds(op_type: str) -> None:
    inputs = weights(op_type, 10, T=40, B=2, I=24, H=32)
    for name, wrong in faults(op_type, inputs).items():
        ran = [part.astype(np.float32) for part in outputs(op_type, wrong, {})]
        rows = verdicts(op_type, inputs, {}, ran)
        assert any(row.outcome is Outcome.FAILED for row in rows), name


@pytest.mark.parametrize("op_type", sorted(OPERATORS))
def test_one_element_off_by_a_thousandth_fails(op_type: str) -> None:
    inputs = weights(op_type, 11, T=40, B=2, I=24, H=32)
    right = [part.astype(np.float32) for part in outputs(op_type, inputs, {})]
    longest = int(np.argmax(inputs[4]))
    assert all(row.outcome is Outcome.PASSED for row in verdicts(op_type, inputs, {}, right))
    place = (5, 0, longest, int(np.argmax(np.abs(right[0][5, 0, longest]))))
    right[0][place] *= np.float32(1.001)
    assert verdicts(op_type, inputs, {}, right)[0].outcome is Outcome.FAILED


def test_values_beyond_a_sequence_are_left_open() -> None:
    inputs = weights("LSTM", 12)
    inputs[4][:] = 3
    right = [part.astype(np.float32) for part in outputs("LSTM", inputs, {})]
    right[0][3:] = np.float32(7)
    assert verdicts("LSTM", inputs, {}, right)[0].outcome is Outcome.PASSED
    right[0][2, 0, 0, 0] += np.float32(0.1)
    assert verdicts("LSTM", inputs, {}, right)[0].outcome is Outcome.FAILED


def test_relu_that_is_off_far_from_its_kink_must_be_zero() -> None:
    x = np.array([[[-1.0, 2.0]]], np.float32)
    inputs = [x, np.eye(2, dtype=np.float32)[None], np.zeros((1, 2, 2), np.float32)]
    attributes = {"activations": ["Relu"]}
    right = [part.astype(np.float32) for part in outputs("RNN", inputs, attributes)]
    assert verdicts("RNN", inputs, attributes, right)[0].outcome is Outcome.PASSED
    right[0][0, 0, 0, 0] = np.float32(1e-20)
    assert verdicts("RNN", inputs, attributes, right)[0].outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"direction": "backwards"}, "direction='backwards'"),
        ({"activations": ["Sine"]}, "unknown activation 'Sine'"),
        ({"activations": ["ScaledTanh"]}, "ScaledTanh needs a value"),
        ({"activations": []}, "0 activations, 1 are needed"),
        ({"hidden_size": 5}, "hidden_size=5, but R is for 4"),
    ],
)
def test_impossible_attribute_is_named(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidAttributeError, match=message):
        outputs("RNN", weights("RNN", 0)[:3], attributes)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, np.zeros((6, 3), np.float32), "X is of rank or shape 2"),
        (1, np.zeros((1, 5, 5), np.float32), "W is of rank or shape"),
        (1, np.zeros((1, 4, 6), np.float32), "W is for 6 inputs"),
        (4, np.array([1, 2, 9], np.int32), "sequence_lens"),
        (5, np.zeros((1, 2, 4), np.float32), "initial state of shape"),
    ],
)
def test_impossible_input_is_named(position: int, value: Array, message: str) -> None:
    inputs = weights("RNN", 0)
    inputs[position] = value
    with pytest.raises(InvalidInputError, match=message):
        outputs("RNN", inputs, {})


def test_empty_sequence_gives_the_initial_state() -> None:
    inputs = weights("LSTM", 13)
    inputs[0], inputs[4] = inputs[0][:0], None
    y, y_h, y_c = outputs("LSTM", inputs, {})
    assert y.shape == (0, 1, 3, 4)
    np.testing.assert_array_equal(y_h, inputs[5])
    np.testing.assert_array_equal(y_c, inputs[6])
