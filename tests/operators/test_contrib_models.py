"""Whole models as ONNX Runtime's optimiser writes them: they load, and every fused node is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_arch.conformance.check import check_model
from onnx_arch.conformance.results import NodeResult, Outcome
from onnx_arch.graphs.feeds import random_feeds
from onnx_arch.graphs.loading import load_model

F = np.float32
Nodes = list[onnx.NodeProto]
HALF, ONE, ROOT = np.array(0.5, F), np.array(1, F), np.array(np.sqrt(2), F)


def normal(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) / np.sqrt(shape[0])).astype(F)


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], name=f"{op_type} {output}", **attributes)


def gelu(x: str, y: str) -> Nodes:
    steps = [node("Div", f"{x} root", f"{y}1"), node("Erf", f"{y}1", f"{y}2"), node("Add", f"{y}2 one", f"{y}3")]
    return [*steps, node("Mul", f"{x} {y}3", f"{y}4"), node("Mul", f"{y}4 half", y)]


PICTURES: Nodes = [
    node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
    node("Relu", "c", "r"),
    node("Conv", "r w2", "c2"),
    node("Sigmoid", "c2", "s"),
    node("Flatten", "s", "f"),
    node("Gemm", "f g gb", "gy", transB=1),
    node("Relu", "gy", "y"),
]
PICTURE_WEIGHTS = {
    "w": normal(0, 8, 3, 3, 3),
    "b": normal(1, 8),
    "w2": normal(2, 8, 8, 3, 3),
    "g": normal(3, 10, 8 * 36),
    "gb": normal(4, 10),
}
WORDS: Nodes = [
    node("MatMul", "x w", "m"),
    node("Add", "m b", "a"),
    *gelu("a", "g"),
    node("MatMul", "g w2", "m2"),
    node("Add", "m2 x", "s"),
    node("LayerNormalization", "s n nb", "l", epsilon=1e-5),
    node("Transpose", "l", "t", perm=[0, 2, 1]),
    node("MatMul", "l t", "k"),
    node("Mul", "k quarter", "kq"),
    node("Softmax", "kq", "p", axis=-1),
    node("MatMul", "p l", "v"),
    node("Add", "v vb", "vv"),
    *gelu("vv", "y"),
]
WORD_WEIGHTS = {
    "w": normal(0, 32, 48),
    "b": normal(1, 48),
    "w2": normal(2, 48, 32),
    "n": 1 + normal(3, 32),
    "nb": normal(4, 32),
    "vb": normal(5, 32),
    "quarter": np.array(0.25, F),
    **{"half": HALF, "one": ONE, "root": ROOT},
}
MODELS: dict[str, tuple[Nodes, dict[str, np.ndarray], list[int], set[str]]] = {
    "pictures": (PICTURES, PICTURE_WEIGHTS, [2, 3, 8, 8], {"FusedConv", "FusedGemm"}),
    "words": (WORDS, WORD_WEIGHTS, [2, 7, 32], {"BiasGelu", "FusedMatMul", "SkipLayerNormalization", "Gelu"}),
}


def optimised(folder: Path, name: str) -> Path:
    nodes, weights, shape, _ = MODELS[name]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return folder / "optimised.onnx"


def rows_of(path: Path) -> list[NodeResult]:
    model = load_model(path)
    return [row for row in check_model(model, random_feeds(model)) if isinstance(row, NodeResult)]


@pytest.mark.parametrize("name", MODELS)
def test_optimised_model_has_every_fused_node_judged(name: str, tmp_path: Path) -> None:
    rows = rows_of(optimised(tmp_path, name))
    fused = {row.op_type for row in rows if row.domain == "com.microsoft"}
    assert fused >= MODELS[name][3]
    assert [(row.node, row.outcome, row.message) for row in rows if row.outcome is not Outcome.PASSED] == []


def test_model_with_simplified_layer_normalization_in_the_default_domain_is_judged(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [node("SimplifiedLayerNormalization", "x w", "y", epsilon=1e-6, axis=-1)],
        "simplified",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 5, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 5, 16])],
        [numpy_helper.from_array(normal(0, 16), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    rows = rows_of(tmp_path / "m.onnx")
    assert {row.outcome for row in rows} == {Outcome.PASSED}
    assert "SimplifiedLayerNormalization" in {row.op_type for row in rows}
