"""Blocked channels: models that ONNX Runtime's layout optimiser wrote, judged node by node; faults fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidInputError
from onnx_arch.operators.contrib_nchwc import machine_block

from .contrib_nodes import NCHWC, fails, judge

F = np.float32


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(F)


Nodes = list[tuple[str, list[str], str, dict[str, Any]]]
SAME = {"pads": [1, 1, 1, 1]}

RESIDUAL: tuple[Nodes, dict[str, np.ndarray]] = (
    [
        ("Conv", ["x", "w0", "b0"], "c0", SAME),
        ("Relu", ["c0"], "r0", {}),
        ("MaxPool", ["r0"], "m0", {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}),
        ("Conv", ["m0", "w1", "b1"], "c1", {**SAME, "dilations": [1, 1]}),
        ("Add", ["c1", "m0"], "a1", {}),
        ("Relu", ["a1"], "r1", {}),
        ("Conv", ["r1", "w2"], "c2", {**SAME, "group": 32}),
        ("LeakyRelu", ["c2"], "r2", {"alpha": 0.2}),
        ("AveragePool", ["r2"], "p2", {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1]}),
        (
            "Resize",
            ["p2", "", "scales"],
            "u2",
            {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        ),
        ("Conv", ["u2", "w3", "b3"], "c3", {"strides": [2, 1]}),
        ("Conv", ["u2", "w4"], "c4", {"group": 2}),
        ("GlobalAveragePool", ["c4"], "g4", {}),
        ("GlobalMaxPool", ["c4"], "h4", {}),
    ],
    {
        "w0": normal(0, 32, 3, 3, 3),
        "b0": normal(1, 32),
        "w1": normal(2, 32, 32, 3, 3),
        "b1": normal(3, 32),
        "w2": normal(4, 32, 1, 3, 3),
        "scales": np.array([1, 1, 2, 3], F),
        "w3": normal(5, 20, 32, 1, 1),
        "b3": normal(6, 20),
        "w4": normal(7, 64, 16, 3, 3),
    },
)
DEEP: tuple[Nodes, dict[str, np.ndarray]] = (
    [
        ("Conv", ["x", "w0"], "c0", SAME),
        ("Clip", ["c0", "low", "high"], "r0", {}),
        ("Conv", ["r0", "w1"], "c1", {}),
        ("Sigmoid", ["c1"], "s1", {}),
        ("Conv", ["s1", "w2"], "c2", {}),
        ("Tanh", ["c2"], "t2", {}),
    ],
    {
        "w0": normal(0, 48, 64, 3, 3),
        "low": np.array(0, F),
        "high": np.array(6, F),
        "w1": normal(1, 12, 48, 3, 3),
        "w2": normal(2, 40, 12, 3, 3),
    },
)


def one_of_each(nodes: Nodes, weights: dict[str, np.ndarray], results: list[str], channels: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(op_type, inputs, [output], **attributes) for op_type, inputs, output, attributes in nodes],
        "plain",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, channels, 14, 13])],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in results],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def session(model: onnx.ModelProto, level: str, written: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 4
    if written is not None:
        options.optimized_model_filepath = str(written)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


Row = tuple[onnx.NodeProto, list[Any], np.ndarray]


def blocked_rows(model: onnx.ModelProto, x: np.ndarray, folder: Path) -> Iterator[Row]:
    """Every node of the layout-optimised model with its inputs and its output, as ONNX Runtime computes them."""
    session(model, "ORT_ENABLE_LAYOUT", folder / "blocked.onnx")
    proto = onnx.load(folder / "blocked.onnx")
    names = [name for node in proto.graph.node for name in node.output]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    tensors = dict(zip(names, session(proto, "ORT_DISABLE_ALL").run(None, {"x": x}), strict=True))
    tensors |= {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer} | {"x": x}
    for node in proto.graph.node:
        yield node, [tensors[name] if name else None for name in node.input], tensors[node.output[0]]


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    model = one_of_each(*RESIDUAL, ["c3", "g4", "h4"], 3)
    return list(blocked_rows(model, normal(9, 2, 3, 14, 13), tmp_path_factory.mktemp("residual")))


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    model = one_of_each(*DEEP, ["t2"], 64)
    return list(blocked_rows(model, normal(9, 2, 64, 14, 13), tmp_path_factory.mktemp("deep")))


def judged_passing(rows: list[Row]) -> list[str]:
    seen = []
    for node, inputs, y in rows:
        if node.domain == NCHWC:
            row = judge(node.op_type, inputs, [y], domain=NCHWC, **attributes_of(node))
            assert row.outcome is Outcome.PASSED, f"{node.op_type} {node.output[0]}: {row.message}"
            seen.append(node.op_type)
    return seen


def test_blocked_nodes_of_a_residual_network_pass(residual: list[Row]) -> None:
    seen = judged_passing(residual)
    assert {"Conv", "MaxPool", "AveragePool", "Upsample", "ReorderOutput"} <= set(seen)
    assert {"GlobalAveragePool", "GlobalMaxPool"} <= set(seen)


def test_blocked_nodes_of_a_deep_network_pass(deep: list[Row]) -> None:
    seen = judged_passing(deep)
    assert "ReorderInput" in seen
    assert seen.count("Conv") == 3


def test_blocked_convolutions_with_a_fault_fail(residual: list[Row], deep: list[Row]) -> None:
    for node, inputs, y in [*residual, *deep]:
        if (node.domain, node.op_type) != (NCHWC, "Conv"):
            continue
        attributes = attributes_of(node)
        swapped = y.reshape(*y.shape[:2], -1)[:, ::-1].reshape(y.shape)
        one = y.copy()
        one.reshape(-1)[7] += 0.01
        for wrong in (swapped, one, np.roll(y, 1, axis=-1)):
            fails("Conv", inputs, [wrong], domain=NCHWC, **attributes)


def test_blocked_pools_with_a_fault_fail(residual: list[Row]) -> None:
    faults = {"AveragePool": {"count_include_pad": 1}, "MaxPool": {"pads": [0, 0, 2, 0]}}
    for node, inputs, y in residual:
        if node.domain != NCHWC or node.op_type == "Conv":
            continue
        attributes = attributes_of(node)
        if node.op_type in faults:
            fails(node.op_type, inputs, [y], domain=NCHWC, **{**attributes, **faults[node.op_type]})
        fails(node.op_type, inputs, [np.roll(y, 1, axis=1)], domain=NCHWC, **attributes)


def test_reordering_back_is_the_tensor_without_padding() -> None:
    block = machine_block()
    x = normal(0, 2, 2 * block - 4, 3, 5)
    padded = np.pad(x, [(0, 0), (0, 4), (0, 0), (0, 0)]).reshape(2, 2, block, 3, 5)
    wide = np.ascontiguousarray(padded.transpose(0, 1, 3, 4, 2)).reshape(2, 2 * block, 3, 5)
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    for image, attributes in ((x, {}), (last, {"channels_last": 1})):
        assert judge("ReorderInput", [image], [wide], domain=NCHWC, **attributes).outcome is Outcome.PASSED
        fails("ReorderInput", [image], [wide[::-1]], domain=NCHWC, **attributes)
        count = 2 * block - 4
        row = judge("ReorderOutput", [wide], [image], domain=NCHWC, channels=count, **attributes)
        assert row.outcome is Outcome.PASSED
        fails("ReorderOutput", [wide], [image[::-1]], domain=NCHWC, channels=count, **attributes)


def test_linear_upsample_is_resize() -> None:
    block = machine_block()
    x = normal(0, 1, block, 4, 5)
    one = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(
                    "Resize", ["x", "", "s"], ["y"], mode="linear", coordinate_transformation_mode="half_pixel"
                )
            ],
            "one",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
            [onnx.ValueInfoProto(name="y")],
            [numpy_helper.from_array(np.array([1, 1, 2, 3], F), "s")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    y = session(one, "ORT_DISABLE_ALL").run(None, {"x": x})[0]
    wide, wide_y = (np.ascontiguousarray(np.moveaxis(v, 1, -1)).reshape(v.shape) for v in (x, y))
    right = {"scales": [1, 1, 2, 3], "mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    assert judge("Upsample", [wide], [wide_y], domain=NCHWC, **right).outcome is Outcome.PASSED
    wrong = {**right, "coordinate_transformation_mode": "asymmetric"}
    fails("Upsample", [wide], [wide_y], domain=NCHWC, **wrong)


def test_channels_of_narrow_blocks_are_seen_by_their_number() -> None:
    x = normal(0, 1, 24, 6, 6)
    wide = np.ascontiguousarray(x.reshape(1, 3, 8, 6, 6).transpose(0, 1, 3, 4, 2)).reshape(x.shape)
    largest = x.reshape(1, 24, 3, 2, 3, 2).max(axis=(3, 5))
    y = np.ascontiguousarray(largest.reshape(1, 3, 8, 3, 3).transpose(0, 1, 3, 4, 2)).reshape(largest.shape)
    windows = {"kernel_shape": [2, 2], "strides": [2, 2]}
    assert judge("MaxPool", [wide], [y], domain=NCHWC, **windows).outcome is Outcome.PASSED
    fails("MaxPool", [wide], [largest], domain=NCHWC, **windows)


def test_channels_that_no_block_divides_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="multiples of 8"):
        judge("MaxPool", [normal(0, 1, 20, 6, 6)], [normal(0, 1, 20, 3, 3)], domain=NCHWC, kernel_shape=[2, 2])
