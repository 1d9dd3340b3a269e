"""SequenceMap: its body once for every tensor; ONNX Runtime passes, faults fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from onnx_arch.conformance.nodes import judge_node
from onnx_arch.conformance.oracle import Oracle
from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidInputError
from onnx_arch.graphs.evaluation import evaluate_model
from onnx_arch.graphs.loading import load_model
from onnx_arch.graphs.model import Model

Write = Callable[..., Path]

MODEL = """
<ir_version: 10, opset_import: ["": 18]>
main (seq(float[N, 8]) s, float[8, 5] w) => (seq(float[N, 5]) y) {
  y = SequenceMap (s, w) <
    body = one (float[N, 8] x, float[8, 5] v) => (float[N, 5] out) { h = MatMul (x, v)  out = Tanh (h) }
  >
}
"""


def inputs(seed: int) -> dict[str, Any]:
    """Tensors of three lengths, and a weight."""
    rng = np.random.default_rng(seed)
    tensors = [rng.standard_normal((n, 8)).astype(np.float32) for n in (3, 1, 40)]
    return {"s": tensors, "w": rng.standard_normal((8, 5)).astype(np.float32)}


def outcome(model: Model, feeds: dict[str, Any], y: Any) -> Outcome:
    (node,) = model.graph.nodes
    return judge_node(node, Oracle(model, feeds).local(node), {"y": y}).outcome


@pytest.fixture
def model(write: Write) -> Model:
    return load_model(write(onnx.parser.parse_model(MODEL)))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_onnxruntime_passes(seed: int, model: Model) -> None:
    import onnxruntime  # noqa: PLC0415 (only where a test runs it)

    feeds = inputs(seed)
    session = onnxruntime.InferenceSession(model.path, providers=["CPUExecutionProvider"])
    (y,) = session.run(["y"], feeds)
    assert outcome(model, feeds, y) is Outcome.PASSED
    for expected, found in zip(evaluate_model(model, feeds)["y"], feeds["s"], strict=True):
        np.testing.assert_allclose(expected, np.tanh(found.astype(float) @ feeds["w"].astype(float)), rtol=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda s, w: [np.tanh(x @ w) for x in s][::-1],
        lambda s, w: [np.tanh(x @ w) for x in s][:-1],
        lambda s, w: [*[np.tanh(x @ w) for x in s[:-1]], np.tanh(s[0] @ w)],
        lambda s, w: [x @ w for x in s],
        lambda s, w: [np.tanh(x[:, 1:] @ w[1:]) for x in s],
        lambda s, w: [np.tanh(x @ w) + np.float32(1e-3) * (i == 1) for i, x in enumerate(s)],
        lambda s, w: [np.tanh(x @ w).astype(np.float64) for x in s],
        lambda s, w: None,
        lambda s, w: np.tanh(s[0] @ w),
    ],
    ids=[
        "reversed",
        "last left out",
        "first again",
        "half a body",
        "a product dropped",
        "one off",
        "wide",
        "nothing",
        "a tensor",
    ],
)
def test_fault_is_caught(wrong: Any, model: Model) -> None:
    feeds = inputs(4)
    y = wrong(feeds["s"], feeds["w"])
    assert outcome(model, feeds, y) is Outcome.FAILED
    assert outcome(model, feeds, [np.tanh(x @ feeds["w"]) for x in feeds["s"]]) is Outcome.PASSED


def test_empty_sequence_stays_empty(model: Model) -> None:
    feeds = {**inputs(5), "s": []}
    assert evaluate_model(model, feeds)["y"] == []


def test_sequences_of_different_lengths_are_named(write: Write) -> None:
    text = MODEL.replace("float[8, 5] w)", "seq(float[8, 5]) w)")
    model = load_model(write(onnx.parser.parse_model(text)))
    feeds = inputs(6)
    with pytest.raises(InvalidInputError, match="sequences of 3 and 2 tensors"):
        evaluate_model(model, {**feeds, "w": [feeds["w"]] * 2})
