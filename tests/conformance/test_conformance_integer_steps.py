"""Integers that may be off by a step where their scale says so, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_arch.conformance.model_outputs import OutputCase, judge_output
from onnx_arch.conformance.results import Outcome
from onnx_arch.conformance.verdict import judge
from onnx_arch.graphs.evaluation import propagated_spread
from onnx_arch.graphs.loading import load_model
from onnx_arch.graphs.model import Model
from onnx_arch.operators.scale import Rule, Scale

STEPS = Scale(np.zeros(()), np.array([0.0, 1.0, 2.0, np.inf]), Rule.EXACT)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64", "uint64"])
@pytest.mark.parametrize(
    ("off", "outcome"),
    [
        ([0, 0, 0, 0], Outcome.PASSED),
        ([0, 1, 2, 40], Outcome.PASSED),
        ([0, -1, -2, -5], Outcome.PASSED),
        ([1, 0, 0, 0], Outcome.FAILED),
        ([0, 2, 0, 0], Outcome.FAILED),
        ([0, 0, 3, 0], Outcome.FAILED),
        ([0, 0, -3, 0], Outcome.FAILED),
    ],
    ids=str,
)
def test_integers_are_judged_within_their_steps(dtype: str, off: list[int], outcome: Outcome) -> None:
    reference = np.array([5, 6, 7, 8], dtype)
    actual = (reference.astype(np.int64) + off).astype(dtype)
    assert judge(actual, reference, reference.dtype, STEPS).outcome is outcome


@pytest.mark.parametrize("value", [np.array([1.0]), np.array([True]), np.array(["a"], object)], ids=repr)
def test_steps_are_for_integers_only(value: Any) -> None:
    scale = Scale(np.zeros(()), np.array([1.0]), Rule.EXACT)
    other = np.array(["b"], object) if value.dtype.kind == "O" else ~value if value.dtype.kind == "b" else value + 1
    assert judge(value, value, value.dtype, scale).outcome is Outcome.PASSED
    assert judge(other, value, value.dtype, scale).outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("actual", "reach", "outcome"),
    [
        ([5, 6, 7], 0, Outcome.PASSED),
        ([5, 7, 7], 0, Outcome.FAILED),
        ([5, 7, 7], 1, Outcome.UNJUDGED),
        ([5, 2, 7], 1, Outcome.UNJUDGED),
        ([5, 11, 7], 1, Outcome.FAILED),
        ([5, 1, 7], 1, Outcome.FAILED),
        ([5, 6, 15], 2, Outcome.UNJUDGED),
        ([5, 6, 16], 2, Outcome.FAILED),
    ],
    ids=str,
)
def test_discrete_output_may_lie_four_times_as_far_as_rounding_takes_it(
    actual: list[int], reach: int, outcome: Outcome
) -> None:
    stored, clean = np.array(actual, np.uint8), np.array([5, 6, 7], np.uint8)
    case = OutputCase("y", stored, None, clean, clean.dtype, None, True, lambda: np.full(3, float(reach)))
    assert judge_output(case).outcome is outcome


def _behind_a_sum(node: onnx.NodeProto, dtype: int, folder: Path) -> Model:
    """x + 1.25, and what a node makes of it."""
    constants = {"c": np.float32(1.25), "scale": np.float32(1), "zero": np.uint8(0)}
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "c"], ["a"]), node],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("y", dtype, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = folder / "sum.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return load_model(path)


def test_rounding_takes_quantized_elements_one_step_where_one_lies_between_two(tmp_path: Path) -> None:
    model = _behind_a_sum(
        helper.make_node("QuantizeLinear", ["a", "scale", "zero"], ["y"]), TensorProto.UINT8, tmp_path
    )
    between, beside = np.float32([1.25, 2.25, 3]), np.float32([1.5, 2.5, 3])
    np.testing.assert_array_equal(propagated_spread(model, {"x": between}, samples=64)["y"], [1, 1, 1])
    np.testing.assert_array_equal(propagated_spread(model, {"x": beside}, samples=64)["y"], [0, 0, 0])


def test_rounding_takes_an_index_anywhere_once_it_moves(tmp_path: Path) -> None:
    model = _behind_a_sum(helper.make_node("ArgMax", ["a"], ["y"]), TensorProto.INT64, tmp_path)
    assert propagated_spread(model, {"x": np.float32([5, 1, 5])}, samples=8)["y"] == [np.inf]
    assert propagated_spread(model, {"x": np.float32([5, 1, 4])}, samples=8)["y"] == [0]
