"""The adapters of ONNX Runtime and of the reference evaluator: options that take effect, every type, honest errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from onnx_arch.errors import InvalidArgumentError, RaisedByRuntimeError, UnsupportedByRuntimeError
from onnx_arch.runtimes import onnxruntime_adapter as adapter
from onnx_arch.runtimes.onnxruntime_adapter import pack, unpack
from onnx_arch.runtimes.process import Worker, open_session
from onnx_arch.runtimes.session import RuntimeOptions

NAMES = {
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.BOOL: "bool",
    TensorProto.INT8: "int8",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8",
    TensorProto.UINT16: "uint16",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.FLOAT8E4M3FN: "float8_e4m3fn",
    TensorProto.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
    TensorProto.FLOAT8E5M2: "float8_e5m2",
    TensorProto.FLOAT8E5M2FNUZ: "float8_e5m2fnuz",
}


def _dtype(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


@pytest.fixture(scope="module")
def worker() -> Any:
    with Worker() as started:
        yield started


@pytest.fixture(scope="module")
def reference() -> Any:
    with Worker(RuntimeOptions(runtime="onnx-reference")) as started:
        yield started


def _tensor(name: str, element: int, shape: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


# -- types


@pytest.mark.parametrize("element", sorted(NAMES), ids=lambda element: NAMES[element])
@pytest.mark.parametrize("shape", [(), (0, 2), (3,), (2, 3)], ids=str)
def test_tensor_of_each_type_goes_in_and_out(element, shape, worker, reference, save_model) -> None:
    path = save_model(
        [helper.make_node("Identity", ["x"], ["y"])], [_tensor("x", element)], [_tensor("y", element)], opset=19, ir=9
    )
    x = (np.arange(np.prod(shape)) % 2).reshape(shape).astype(_dtype(NAMES[element]))
    for started in (worker, reference):
        with started.load(path) as session:
            y = session.run({"x": x})["y"]
        assert y.dtype == x.dtype
        assert y.shape == shape
        np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("element", [TensorProto.INT4, TensorProto.UINT4, TensorProto.INT2, TensorProto.UINT2])
@pytest.mark.parametrize("size", [0, 1, 5, 8])
def test_elements_smaller_than_a_byte_go_in_and_out(element, size, worker, save_model) -> None:
    name = {21: "uint4", 22: "int4", 25: "uint2", 26: "int2"}[element]
    opset, ir = (25, 13) if name.endswith("2") else (21, 10)
    low = {"uint4": 0, "int4": -8, "uint2": 0, "int2": -2}[name]
    values = (np.arange(size) * 3 % 2 ** int(name[-1]) + low).astype(_dtype(name))
    scale = _tensor("s", TensorProto.FLOAT, [])
    decode = save_model(
        [helper.make_node("DequantizeLinear", ["x", "s"], ["y"])],
        [_tensor("x", element, [None]), scale],
        opset=opset,
        ir=ir,
    )
    encode = save_model(
        [helper.make_node("Cast", ["x"], ["y"], to=element)], outputs=[_tensor("y", element)], opset=opset, ir=ir
    )
    with worker.load(decode) as session:
        decoded = session.run({"x": values, "s": np.float32(1)})["y"]
    with worker.load(encode) as session:
        encoded = session.run({"x": values.astype(np.float32)})["y"]
    np.testing.assert_array_equal(decoded, values.astype(np.float32))
    assert encoded.dtype == values.dtype
    np.testing.assert_array_equal(encoded, values)


def test_packed_elements_lie_lowest_bits_first_as_in_onnx() -> None:
    """The layout of TensorProto.raw_data for int4, by the helper of the onnx package."""
    values = np.array([1, -2, 7, -8, 3]).astype(ml_dtypes.int4)
    packed = pack(values.view(np.uint8), 4)
    assert packed.tobytes() == numpy_helper.from_array(values).raw_data
    np.testing.assert_array_equal(unpack(packed, 4, 5, True).view(ml_dtypes.int4), values)


def test_rounding_of_a_cast_is_the_runtimes_own(worker, save_model) -> None:
    path = save_model(
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16)], outputs=[_tensor("y", TensorProto.BFLOAT16)]
    )
    x = np.array([1 + 2**-8, 1 + 3 * 2**-8, -0.0, np.inf, 1e-40], np.float32)
    with worker.load(path) as session:
        y = session.run({"x": x})["y"]
    np.testing.assert_array_equal(y, x.astype(ml_dtypes.bfloat16))
    assert np.signbit(y[2])


def test_type_mixture_passes(worker, save_model) -> None:
    """bfloat16, float32 and int64 in one call; all by OrtValue."""
    nodes = [
        helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
        helper.make_node("Neg", ["x"], ["z"]),
        helper.make_node("Shape", ["b"], ["n"]),
    ]
    path = save_model(nodes, [_tensor("b", TensorProto.BFLOAT16), "x"], ["y", "z", _tensor("n", TensorProto.INT64)])
    feeds = {"b": np.array([2.5]).astype(ml_dtypes.bfloat16), "x": np.array([1.0], np.float32)}
    with worker.load(path) as session:
        outputs = session.run(feeds)
    assert {name: value.tolist() for name, value in outputs.items()} == {"y": [2.5], "z": [-1], "n": [1]}


@pytest.mark.parametrize("runtime", ["worker", "reference"])
def test_strings_sequences_and_optionals_pass(runtime, request, save_model) -> None:
    started = request.getfixturevalue(runtime)
    strings = save_model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [_tensor("x", TensorProto.STRING)],
        [_tensor("y", TensorProto.STRING)],
    )
    with started.load(strings) as session:
        text = np.array([["a", "é\U0001f600"], ["", "\n"]], object)
        assert session.run({"x": text})["y"].tolist() == text.tolist()
    listed = [helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    sequence = save_model([helper.make_node("Identity", ["x"], ["y"])], listed[:1], listed[1:])
    with started.load(sequence) as session:
        items = session.run({"x": [np.float32([1, 2]), np.zeros((0, 3), np.float32)]})["y"]
        assert [item.shape for item in items] == [(2,), (0, 3)]
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    optional = save_model(
        [helper.make_node("OptionalHasElement", ["x"], ["y"])],
        [helper.make_value_info("x", kind)],
        [_tensor("y", TensorProto.BOOL, [])],
    )
    with started.load(optional) as session:
        assert session.run({"x": None})["y"].item() is False
        assert session.run({"x": np.ones(2, np.float32)})["y"].item() is True


def test_absent_optional_comes_out_as_none(worker, save_model) -> None:
    element = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    output = helper.make_value_info("y", helper.make_optional_type_proto(element))
    path = save_model([helper.make_node("Optional", [], ["y"], type=element)], [], [output])
    with worker.load(path) as session:
        assert session.run({}) == {"y": None}


# -- options


def _network(path: Path) -> Path:
    rng = np.random.default_rng(2)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Identity", ["b"], ["y"], name="identity"),
    ]
    weights = numpy_helper.from_array(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "w")
    infos = [_tensor(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 3, 8, 8]), ("y", [1, 4, 6, 6]))]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def _optimized(tmp_path: Path, **options: Any) -> list[str]:
    model, target = _network(tmp_path / "network.onnx"), tmp_path / "optimized.onnx"
    open_session(model, RuntimeOptions(optimized_model_path=target, **options)).close()
    return [node.op_type for node in onnx.load(target).graph.node]


def test_optimization_level_is_the_one_asked_for(tmp_path) -> None:
    assert _optimized(tmp_path, optimization="disabled") == ["Conv", "Relu", "Identity"]
    assert _optimized(tmp_path, optimization="basic") == ["Conv", "Relu"]
    assert "FusedConv" in _optimized(tmp_path, optimization="extended")


def test_disabled_optimizer_does_not_run(tmp_path) -> None:
    names = _optimized(tmp_path, optimization="extended", disabled_optimizers=["ConvActivationFusion"])
    assert names == ["Conv", "Relu"]


def test_profile_names_the_nodes_that_ran(tmp_path) -> None:
    options = RuntimeOptions(optimization="disabled", profile=True, threads=1)
    x = {"x": np.ones((1, 3, 8, 8), np.float32)}
    with open_session(_network(tmp_path / "network.onnx"), options) as session:
        session.time_runs(x, 3)
        events = session.finish_profile()
    ran = [event["args"]["op_name"] for event in events if event.get("cat") == "Node" and "op_name" in event["args"]]
    assert ran.count("Conv") == 3
    assert ran.count("Relu") == 3


def test_profiles_of_two_sessions_in_one_worker_are_apart(relu, tmp_path) -> None:
    options = RuntimeOptions(profile=True)
    x = {"x": np.ones((1, 3, 8, 8), np.float32)}
    with Worker(options) as worker:
        first, second = worker.load(relu), worker.load(_network(tmp_path / "network.onnx"))
        second.run(x)
        first.run(x)
        one, two = first.finish_profile(), second.finish_profile()
    assert any(event.get("args", {}).get("op_name") == "Relu" for event in one)
    assert not any("Conv" in event.get("args", {}).get("op_name", "") for event in one)
    assert any("Conv" in event.get("args", {}).get("op_name", "") for event in two)


def test_profile_that_was_not_asked_for_is_refused(relu) -> None:
    with open_session(relu) as session, pytest.raises(InvalidArgumentError, match="profile=True"):
        session.finish_profile()


def test_timed_runs_are_positive_and_as_many_as_asked(relu) -> None:
    with open_session(relu) as session:
        durations = session.time_runs({"x": np.ones(1000, np.float32)}, 20)
    assert len(durations) == 20
    assert all(0 < duration < 1 for duration in durations)


def test_verbose_log_names_the_optimizers(tmp_path) -> None:
    options = RuntimeOptions(extra={"log_severity": 0})
    with open_session(_network(tmp_path / "network.onnx"), options) as session:
        assert "ConvActivationFusion" in session.log()


def test_session_config_entry_reaches_the_runtime(relu) -> None:
    options = RuntimeOptions(extra={"session_config": {"session.intra_op.allow_spinning": "maybe"}, "log_severity": 0})
    with open_session(relu, options) as session:
        assert "session.intra_op.allow_spinning" in session.log()


def test_external_data_beside_the_model_is_found(tmp_path) -> None:
    path = _network(tmp_path / "network.onnx")
    with open_session(path) as session:
        x = {"x": np.random.default_rng(4).standard_normal((1, 3, 8, 8)).astype(np.float32)}
        expected = session.run(x)["y"]
    model = onnx.load(path)
    external_data_helper.convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save(model, tmp_path / "external.onnx")
    for runtime in ("onnxruntime", "onnx-reference"):
        with open_session(tmp_path / "external.onnx", RuntimeOptions(runtime=runtime)) as session:
            np.testing.assert_allclose(session.run(x)["y"], expected, atol=1e-5)


# -- errors


@pytest.mark.parametrize(
    ("node", "options", "message"),
    [
        (helper.make_node("NoSuchOperator", ["x"], ["y"]), {}, "No Op registered"),
        (helper.make_node("Relu", ["x"], ["y"]), {"opset": 99}, "guarantees"),
        (helper.make_node("Relu", ["x"], ["y"]), {"ir": 99}, "Unsupported model IR version: 99"),
        (
            helper.make_node("Cast", ["x"], ["y"], to=23),
            {"opset": 23, "ir": 11, "out": 23},
            "Could not find an implement",
        ),
        (helper.make_node("Cast", ["x"], ["y"], to=14), {"out": 14}, "complex64"),
    ],
    ids=["operator", "opset", "ir", "kernel", "type"],
)
def test_lack_of_support_is_told_from_an_error(node, options, message, worker, save_model) -> None:
    options = dict(options)
    outputs = [_tensor("y", options.pop("out", TensorProto.FLOAT))]
    with pytest.raises(UnsupportedByRuntimeError, match=message):
        worker.load(save_model([node], outputs=outputs, **options))


def test_type_that_a_kernel_refuses_when_it_runs_is_a_lack_of_support(worker, save_model) -> None:
    half = [_tensor("x", TensorProto.FLOAT16, (2,))], [_tensor("y", TensorProto.FLOAT16, (2,))]
    indices = helper.make_node("Constant", [], ["i"], value_ints=[0, 0])
    path = save_model([indices, helper.make_node("ScatterElements", ["x", "i", "x"], ["y"], reduction="add")], *half)
    with worker.load(path) as session, pytest.raises(UnsupportedByRuntimeError, match="when reduction is"):
        session.run({"x": np.ones(2, np.float16)})


def test_message_leaves_out_where_the_runtime_was_compiled(worker, save_model) -> None:
    with pytest.raises(UnsupportedByRuntimeError) as caught:
        worker.load(save_model([helper.make_node("Relu", ["x"], ["y"])], ir=99))
    assert str(caught.value).count("/") == 0
    assert "onnxruntime::" not in str(caught.value)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"z": np.ones(2, np.float32)}, "z|Required inputs"),
        ({"x": np.ones(2)}, r"tensor\(double\)"),
        ({}, "x"),
    ],
    ids=["name", "dtype", "none"],
)
def test_wrong_feed_is_an_error_of_the_runtime(feeds, message, worker, relu) -> None:
    with worker.load(relu) as session, pytest.raises(RaisedByRuntimeError, match=message):
        session.run(feeds)


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(range(256))], ids=["empty", "text", "bytes"])
def test_file_that_is_no_model_is_an_error(content, worker, tmp_path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises((RaisedByRuntimeError, UnsupportedByRuntimeError)):
        worker.load(path)
    assert worker.alive


def test_operator_that_the_reference_lacks_is_unsupported(reference, save_model) -> None:
    with pytest.raises(UnsupportedByRuntimeError, match="NoSuchOperator"):
        reference.load(save_model([helper.make_node("NoSuchOperator", ["x"], ["y"])]))


OPTIONS = {
    "provider": "cpu",
    "optimization": "all",
    "threads": 1,
    "deterministic": False,
    "disabled_optimizers": [],
    "profile": False,
    "optimized_model_path": None,
    "extra": {},
}


class _Declared:
    """An input or output as a session declares it."""

    name, type, shape = "x", "tensor(float)", (1,)


class OldSession:
    """What InferenceSession was before 1.7: providers are names, and tensors pass as NumPy's."""

    def __init__(self, path: str, sess_options: Any = None, providers: Any = ()) -> None:
        if not all(isinstance(provider, str) for provider in providers):
            raise TypeError("incompatible function arguments")

    def get_inputs(self) -> list[_Declared]:
        return [_Declared()]

    get_outputs = get_inputs

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def disable_fallback(self) -> None:
        pass

    def run(self, _names: list[str], feeds: dict[str, Any]) -> list[Any]:
        return [2 * feeds["x"]]


def test_version_before_providers_had_options_runs(monkeypatch) -> None:
    monkeypatch.setattr(adapter.onnxruntime, "InferenceSession", OldSession)
    monkeypatch.setattr(adapter, "ORT_VALUE", ())
    monkeypatch.setattr(adapter, "SPARSE_TENSOR", ())
    session = adapter.load("model.onnx", OPTIONS)
    np.testing.assert_array_equal(session.run({"x": np.ones(1, np.float32)}, ["x"])["x"], 2)
    raw = adapter.RawTensor("bfloat16", np.zeros(1, np.uint16))
    with pytest.raises(NotImplementedError, match="NumPy's own types"):
        session.run({"x": raw}, None)
