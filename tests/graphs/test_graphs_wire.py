"""Leaving weights in the file: what protobuf parses from the rewritten bytes is the model, weights apart."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from onnx_arch.graphs.wire import SMALLEST_LEFT_BYTES, lean_model

from .small_models import make_model, matmul_model, value


def put_back(lean: onnx.ModelProto, content: bytes) -> onnx.ModelProto:
    """Undo the rewriting by what the external entries say."""
    constants = [attribute.t for node in lean.graph.node for attribute in node.attribute if attribute.HasField("t")]
    for tensor in (*lean.graph.initializer, *constants):
        if tensor.external_data:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            assert entries["location"] == "m.onnx"
            offset, length = int(entries["offset"]), int(entries["length"])
            tensor.raw_data = content[offset : offset + length]
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    return lean


def many_weights() -> onnx.ModelProto:
    large = np.arange(SMALLEST_LEFT_BYTES, dtype=np.int64)
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(large)),
        helper.make_node("Add", ["c", "w"], ["s"]),
        helper.make_node("Add", ["s", "v"], ["y"]),
    ]
    weights = {"w": large[::-1].copy(), "v": np.array([7], np.int64), "empty": np.zeros(0, np.int64)}
    return make_model(nodes, [], [value("y", None, onnx.TensorProto.INT64)], weights=weights)


@pytest.mark.parametrize("model", [matmul_model(), matmul_model(200, 50), many_weights()], ids=["small", "one", "many"])
def test_lean_model_with_the_weights_put_back_is_the_model(model):
    content = model.SerializeToString()
    lean = onnx.ModelProto.FromString(lean_model(memoryview(content), "m.onnx"))
    assert put_back(lean, content) == model


def test_lean_model_leaves_large_weights_of_initializers_and_constants_in_the_file():
    content = many_weights().SerializeToString()
    lean = lean_model(memoryview(content), "m.onnx")
    assert len(content) > 2 * 8 * SMALLEST_LEFT_BYTES
    assert len(lean) < 1000


def test_lean_model_keeps_external_data_as_they_are():
    model = matmul_model(200, 50)
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere")
    content = model.SerializeToString()
    assert lean_model(memoryview(content), "m.onnx") == content


@given(st.binary(max_size=200))
def test_lean_model_of_arbitrary_bytes_gives_them_back(content):
    assert lean_model(memoryview(content), "m.onnx") == content


def parsed_nodes(content: bytes) -> list[str | bytes] | None:
    try:
        return [node.op_type for node in onnx.ModelProto.FromString(content).graph.node]
    except DecodeError:
        return None


@given(cut=st.integers(0, 40_000), garbage=st.binary(max_size=12))
def test_lean_model_of_damaged_bytes_parses_as_they_do(cut, garbage):
    content = matmul_model(200, 50).SerializeToString()
    damaged = content[:cut] + garbage + content[cut + len(garbage) :]
    assert parsed_nodes(lean_model(memoryview(damaged), "m.onnx")) == parsed_nodes(damaged)
