"""Streamed files are what onnx itself would write: read back by onnx, onnx_ir and ONNX Runtime."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from onnx_arch.exporters import serialization
from onnx_arch.exporters.serialization import write_model

DTYPES = [
    "float32", "float64", "float16", "int8", "uint8", "int16", "int32", "int64", "uint64", "bool", "complex64",
    ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4, ml_dtypes.uint4,
]  # fmt: skip


def model_of(arrays):
    """A model that returns its initializers."""
    names = list(arrays)
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"], name=f"copy_{name}") for name in names]
    tensors = [numpy_helper.from_array(arrays[name], name) for name in names]
    outputs = [helper.make_tensor_value_info(f"{t.name}_out", t.data_type, list(t.dims)) for t in tensors]
    graph = helper.make_graph(nodes, "copies", [], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_every_type_and_shape_is_read_back_bit_for_bit(tmp_path, dtype, external):
    rng = np.random.default_rng(0)
    shapes = {"scalar": (), "empty": (0, 3), "odd": (3, 7), "large": (40, 50)}
    arrays = {name: rng.integers(0, 2, shape).astype(dtype) for name, shape in shapes.items()}
    arrays["strided"] = np.asfortranarray(arrays["large"])
    proto = model_of(arrays)
    write_model(ir.from_proto(proto), tmp_path / "model.onnx", external=external)
    loaded = onnx.load(tmp_path / "model.onnx")
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in loaded.graph.initializer}
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == np.ascontiguousarray(array).tobytes()


def test_strings_are_written(tmp_path):
    proto = model_of({"words": np.array([b"one", b"\xc3\xa4"], dtype=object)})
    write_model(ir.from_proto(proto), tmp_path / "model.onnx")
    tensor = onnx.load(tmp_path / "model.onnx").graph.initializer[0]
    assert list(tensor.string_data) == [b"one", b"\xc3\xa4"]


def test_everything_but_the_weights_is_as_onnx_ir_writes_it(tmp_path):
    proto = model_of({"a": np.ones((3, 4), np.float32), "b": np.arange(5)})
    model = ir.from_proto(proto)
    write_model(model, tmp_path / "model.onnx")
    loaded, expected = onnx.load(tmp_path / "model.onnx"), ir.to_proto(ir.from_proto(proto))
    for message in (loaded, expected):
        del message.graph.initializer[:]
        del message.graph.value_info[:]
    assert loaded == expected
    assert list(model.graph.initializers) == ["a", "b"]


@pytest.mark.parametrize("external", [False, True])
def test_digests_are_those_of_the_files(tmp_path, external):
    model = ir.from_proto(model_of({"w": np.random.default_rng(0).standard_normal((64, 65))}))
    files = write_model(model, tmp_path / "model.onnx", external=external)
    assert [file.name for file in files] == (["model.onnx", "model.onnx.data"] if external else ["model.onnx"])
    for file in files:
        content = (tmp_path / file.name).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (file.sha256, file.size_bytes)


def test_external_data_are_aligned_and_small_tensors_stay_inside(tmp_path):
    arrays = {"a": np.ones((31, 33), np.float32), "shape": np.arange(4), "b": np.full((500,), 2.0)}
    write_model(ir.from_proto(model_of(arrays)), tmp_path / "model.onnx", external=True)
    proto = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    places = {t.name: {item.key: item.value for item in t.external_data} for t in proto.graph.initializer}
    assert places["shape"] == {}
    assert {places[name]["location"] for name in ("a", "b")} == {"model.onnx.data"}
    assert all(int(places[name]["offset"]) % 4096 == 0 for name in ("a", "b"))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for actual, expected in zip(session.run(None, {}), arrays.values(), strict=True):
        assert np.array_equal(actual, expected)


def test_weights_above_the_limit_go_beside_the_model_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr(serialization, "LARGEST_EMBEDDED_BYTES", 4_000)
    model = ir.from_proto(model_of({"w": np.ones(1_001, np.float32)}))
    assert [file.name for file in write_model(model, tmp_path / "model.onnx")] == ["model.onnx", "model.onnx.data"]
    smaller = ir.from_proto(model_of({"w": np.ones(1_000, np.float32)}))
    (tmp_path / "b").mkdir()
    assert [file.name for file in write_model(smaller, tmp_path / "b" / "model.onnx")] == ["model.onnx"]


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**21, 2**31 + 5])
def test_lengths_are_protobufs_varints(value):
    from google.protobuf.internal.encoder import _VarintBytes  # noqa: PLC0415 - an encoder that is not ours

    assert serialization._varint(value) == _VarintBytes(value)


def test_writing_copies_no_weights(tmp_path):
    code = f"""
import resource
import numpy as np, onnx_ir as ir
from pathlib import Path
from onnx_arch.exporters.serialization import write_model
ones = ir.tensor(np.ones(30_000_000, np.float32))
w = ir.Value(name="w", const_value=ones, type=ir.TensorType(ones.dtype), shape=ones.shape)
node = ir.node("Identity", [w])
graph = ir.Graph([], node.outputs, nodes=[node], initializers=[w], opset_imports={{"": 20}}, name="g")
node.outputs[0].name = "y"
model = ir.Model(graph, ir_version=10)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_model(model, Path({str(tmp_path / "model.onnx")!r}))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 0.2 * 120_000_000
    assert (tmp_path / "model.onnx").stat().st_size > 120_000_000
