"""What tests of the command share: a small model, and what they say of one line on standard error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray
Outcome = tuple[int, str, str]
"""(exit status, standard output, standard error)"""

Command = Callable[..., Outcome]


def graph_model(
    nodes: list[onnx.NodeProto], inputs: dict[str, Any], outputs: list[str], weights: dict[str, Array], opset: int = 18
) -> onnx.ModelProto:
    declared = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "graph", declared, results, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def small_model(batch: int | str = "batch") -> onnx.ModelProto:
    """x (batch, 16) · w (16, 8), Relu, Softmax."""
    w = np.random.default_rng(3).standard_normal((16, 8)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Softmax", ["r"], ["y"]),
    ]
    return graph_model(nodes, {"x": [batch, 16]}, ["y"], {"w": w})


def save_model(model: onnx.ModelProto, file: Path) -> Path:
    file.write_bytes(model.SerializeToString())
    return file


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def assert_refused(outcome: Outcome, *told: str) -> None:
    """Status 2, nothing on standard output, one line on standard error that tells these words."""
    status, out, err = outcome
    assert status == 2, out + err
    assert out == ""
    assert err.startswith("onnx-arch: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    for word in told:
        assert word in err
