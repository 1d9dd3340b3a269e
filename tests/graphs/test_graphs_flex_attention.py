"""FlexAttention with and without subgraphs: official cases, float32 arithmetic, faults."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_arch.conformance.nodes import judge_node
from onnx_arch.conformance.oracle import Oracle
from onnx_arch.conformance.results import NodeResult, Outcome
from onnx_arch.errors import InvalidInputError
from onnx_arch.graphs.evaluation import evaluate_model
from onnx_arch.graphs.loading import load_model
from onnx_arch.graphs.model import Model

Write = Callable[..., Path]
PREVIEW = "ai.onnx.preview"


@cache
def official_cases() -> tuple[Any, ...]:
    """The node tests of onnx that are one FlexAttention node."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX computes log(0) and the like while collecting
        from onnx.backend.test.loader import load_model_tests  # noqa: PLC0415 (takes seconds)

        tests = load_model_tests(kind="node")
    return tuple(test for test in tests if [n.op_type for n in test.model.graph.node] == ["FlexAttention"])


def judged(model: Model, feeds: dict[str, Any], y: Any) -> NodeResult:
    (node,) = model.graph.nodes
    return judge_node(node, Oracle(model, feeds).local(node), {node.outputs[0]: y})


def test_there_are_official_cases() -> None:
    assert len(official_cases()) >= 10


@pytest.mark.parametrize("case", official_cases(), ids=lambda case: case.name)
def test_expected_output_of_onnx_passes_and_moved_it_fails(case: Any, write: Write) -> None:
    model = load_model(write(case.model))
    inputs, (y,) = case.data_sets[0]
    arrays = [numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else np.asarray(v) for v in inputs]
    feeds = {spec.name: array for spec, array in zip(case.model.graph.input, arrays, strict=True)}
    stored = numpy_helper.to_array(y) if isinstance(y, onnx.TensorProto) else np.asarray(y)
    row = judged(model, feeds, stored)
    assert row.outcome is Outcome.PASSED, row.message
    moved = stored.copy()
    moved[0, 0, 1, 2] *= stored.dtype.type(1.05)
    assert judged(model, feeds, moved).outcome is Outcome.FAILED


def subgraph(name: str, node: str, number: float) -> onnx.GraphProto:
    """One operator with a number."""
    value = helper.make_tensor_value_info
    shape = [None] * 4
    return helper.make_graph(
        [helper.make_node(node, ["a", "c"], ["b"])],
        name,
        [value("a", TensorProto.FLOAT, shape)],
        [value("b", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array(number, np.float32), "c")],
    )


def flexible(write: Write, **attributes: Any) -> Model:
    node = helper.make_node("FlexAttention", ["q", "k", "v"], ["y"], domain=PREVIEW, **attributes)
    declared = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in "qkvy"]
    graph = helper.make_graph([node], "one", declared[:3], declared[3:])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(PREVIEW, 1)]
    return load_model(write(helper.make_model(graph, opset_imports=opsets, ir_version=10)))


def inputs(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    shapes = {"q": (2, 4, 9, 8), "k": (2, 2, 11, 8), "v": (2, 2, 11, 5)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def plain(feeds: dict[str, Any], fault: str = "") -> Any:
    """scores + 0.5 · …, softmax, times 2, in the inputs' precision; with one of the faults if named."""
    q, k, v = (feeds[name] for name in "qkv")
    k, v = ((np.tile(x, (1, 2, 1, 1)) if fault == "heads interleaved" else x.repeat(2, axis=1)) for x in (k, v))
    s = q @ k.swapaxes(2, 3) * q.dtype.type(1 / 8 if fault == "scale" else 0.25)
    s = s if fault == "score_mod ignored" else s * q.dtype.type(1.5)
    e = np.exp(s - s.max(axis=2 if fault == "axis" else 3, keepdims=True))
    p = e / e.sum(axis=2 if fault == "axis" else 3, keepdims=True)
    return (p if fault == "prob_mod ignored" else p + q.dtype.type(0.125)) @ v


@pytest.fixture
def model(write: Write) -> Model:
    return flexible(write, scale=0.25, score_mod=subgraph("score", "Mul", 1.5), prob_mod=subgraph("prob", "Add", 0.125))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_float32_arithmetic_passes(seed: int, model: Model) -> None:
    feeds = inputs(seed)
    wide = plain({name: x.astype(np.float64) for name, x in feeds.items()})
    np.testing.assert_allclose(evaluate_model(model, feeds)["y"], wide, rtol=1e-11, atol=1e-12)
    row = judged(model, feeds, plain(feeds))
    assert row.outcome is Outcome.PASSED, row.message


@pytest.mark.parametrize("fault", ["heads interleaved", "scale", "score_mod ignored", "prob_mod ignored", "axis"])
def test_fault_is_caught(fault: str, model: Model) -> None:
    feeds = inputs(4)
    assert judged(model, feeds, plain(feeds, fault)).outcome is Outcome.FAILED


def test_without_subgraphs_it_is_attention(write: Write) -> None:
    model, feeds = flexible(write), inputs(5)
    q, k, v = (feeds[name].astype(np.float64) for name in "qkv")
    s = q @ k.repeat(2, axis=1).swapaxes(2, 3) / np.sqrt(8)
    p = np.exp(s) / np.exp(s).sum(axis=3, keepdims=True)
    y = p @ v.repeat(2, axis=1)
    np.testing.assert_allclose(evaluate_model(model, feeds)["y"], y, rtol=1e-12)
    assert judged(model, feeds, y.astype(np.float32)).outcome is Outcome.PASSED
    assert judged(model, feeds, (y * 1.0001).astype(np.float32)).outcome is Outcome.FAILED


def test_impossible_heads_are_named(model: Model) -> None:
    feeds = inputs(6)
    with pytest.raises(InvalidInputError, match="FlexAttention"):
        evaluate_model(model, {**feeds, "q": feeds["q"][:, :3]})
