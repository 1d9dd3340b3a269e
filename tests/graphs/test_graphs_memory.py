"""The estimate of a check's memory, against sizes computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnx_arch.errors import InvalidModelError
from onnx_arch.graphs import memory
from onnx_arch.graphs.loading import load_model
from onnx_arch.graphs.memory import available_memory, ensure_fits, required_memory

from .small_models import make_model, matmul_model, value


def test_required_memory_is_the_file_and_four_times_the_largest_node(write):
    model = load_model(write(matmul_model(100, 50)))
    # MatMul: x (10, 100), w (100, 50), h (10, 50) in float32
    assert required_memory(model, {"x": (10, 100)}) == model.size_bytes + 4 * 4 * (1000 + 5000 + 500)


def test_required_memory_follows_shapes_that_are_computed(write):
    nodes = [helper.make_node("Expand", ["x", "target"], ["y"])]
    weights = {"target": np.array([1000, 1000], np.int64)}
    model = load_model(write(make_model(nodes, [value("x", [1, 1])], [value("y", None)], weights=weights)))
    assert required_memory(model, {"x": (1, 1)}) == model.size_bytes + 4 * (4 + 16 + 4_000_000)


def test_required_memory_ignores_what_the_file_declares_of_other_shapes(write):
    proto = matmul_model(100, 50)
    proto.graph.value_info.append(value("h", [1, 50]))
    model = load_model(write(proto))
    assert required_memory(model, {"x": (10, 100)}) == model.size_bytes + 4 * 4 * (1000 + 5000 + 500)


def test_required_memory_counts_inputs_where_nothing_can_be_inferred(write):
    proto = make_model(
        [helper.make_node("Secret", ["x"], ["y"], domain="vendor")], [value("x", ["n"])], [value("y", None)]
    )
    proto.opset_import.append(helper.make_opsetid("vendor", 1))
    model = load_model(write(proto))
    assert required_memory(model, {"x": (100,)}) == model.size_bytes + 4 * 400


def test_required_memory_of_a_model_without_nodes_or_elements(write):
    model = load_model(write(make_model([], [], [value("w", [0])], weights={"w": np.zeros(0, np.float32)})))
    assert required_memory(model, {}) == model.size_bytes


def test_ensure_fits_compares_with_what_is_available(write, monkeypatch):
    model = load_model(write(matmul_model(100, 50)))
    feeds = {"x": np.ones((10, 100), np.float32)}
    monkeypatch.setattr(memory, "available_memory", lambda: required_memory(model, {"x": (10, 100)}))
    ensure_fits(model, feeds)
    monkeypatch.setattr(memory, "available_memory", lambda: required_memory(model, {"x": (10, 100)}) - 1)
    with pytest.raises(InvalidModelError, match=r"needs about 0\.0 GB of memory with inputs x \[10, 100\]"):
        ensure_fits(model, feeds)


def test_ensure_fits_catches_a_tensor_in_the_middle(write):
    nodes = [
        helper.make_node("Expand", ["x", "target"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["y"]),
    ]
    weights = {"target": np.array([10**6, 10**6], np.int64)}
    model = load_model(write(make_model(nodes, [value("x", [1, 1])], [value("y", None)], weights=weights)))
    with pytest.raises(InvalidModelError, match=r"needs about 16000\.0 GB"):
        ensure_fits(model, {"x": np.ones((1, 1), np.float32)})


def test_ensure_fits_of_sequences_counts_their_nodes_only(write):
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    nodes = [helper.make_node("SequenceLength", ["s"], ["n"])]
    model = load_model(write(make_model(nodes, [sequence], [value("n", [], TensorProto.INT64)])))
    ensure_fits(model, {"s": [np.ones(2, np.float32)]})


@pytest.mark.parametrize(
    ("limit", "used", "expected"), [("5000", "2000", 3000), ("5000", "9000", 0), ("max", "1", None), (None, None, None)]
)
def test_available_memory_heeds_the_limit_of_the_control_group(tmp_path, monkeypatch, limit, used, expected):
    for name, content in (("_CGROUP_LIMIT", limit), ("_CGROUP_USE", used)):
        monkeypatch.setattr(memory, name, tmp_path / name)
        if content is not None:
            (tmp_path / name).write_text(content)
    if expected is None:
        assert available_memory() > 10**6
    else:
        assert available_memory() == expected
