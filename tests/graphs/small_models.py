"""Small models for the tests of the graphs room."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def value(name: str, shape: Sequence[int | str | None] | None, element_type: int = TensorProto.FLOAT):
    """A declared input or output."""
    return helper.make_tensor_value_info(name, element_type, shape)


def make_model(  # noqa: PLR0913 (what a model is made of)
    nodes: Iterable[onnx.NodeProto],
    inputs: Iterable[onnx.ValueInfoProto],
    outputs: Iterable[onnx.ValueInfoProto],
    *,
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 18,
    ir_version: int = 8,
) -> onnx.ModelProto:
    """An unchecked model."""
    stored = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def matmul_model(rows: int = 4, columns: int = 5) -> onnx.ModelProto:
    """y = Relu(x @ w), x of shape (batch, rows)."""
    weight = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    return make_model(nodes, [value("x", ["batch", rows])], [value("y", ["batch", columns])], weights={"w": weight})
