"""The bad runtimes of `tests/faulty` are bad in the way they say, and the good ones are good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_arch.errors import CrashedError, HungError, RaisedByRuntimeError, UnsupportedByRuntimeError
from onnx_arch.runtimes.process import Worker, open_session
from onnx_arch.runtimes.session import RuntimeOptions

NODE_BY_NODE = str(Path(__file__).parents[1] / "faulty" / "node_by_node.py")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conv, Relu, MaxPool, Flatten, Gemm, Softmax with every tensor an output, weights of seed 7."""
    return _network(tmp_path_factory.mktemp("network") / "model.onnx", exposed=True)


@pytest.fixture(scope="module")
def closed_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with nothing but its last tensor as output."""
    return _network(tmp_path_factory.mktemp("closed") / "model.onnx", exposed=False)


def _network(path: Path, *, exposed: bool) -> Path:
    rng = np.random.default_rng(7)
    weights = {
        "w": rng.standard_normal((8, 3, 3, 3)),
        "b": rng.standard_normal(8),
        "fc": rng.standard_normal((10, 8 * 4 * 4)),
        "fb": rng.standard_normal(10),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["positive"]),
        helper.make_node("MaxPool", ["positive"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "fc", "fb"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["y"]),
    ]
    seen = [name for node in nodes for name in node.output] if exposed else ["y"]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in seen],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def feeds() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(11).standard_normal((2, 3, 8, 8)).astype(np.float32)}


@pytest.fixture(scope="module")
def right(network: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What ONNX Runtime computes."""
    with open_session(network, RuntimeOptions(optimization="disabled")) as session:
        return session.run(feeds)


@pytest.fixture(scope="module")
def worker() -> Any:
    with Worker(RuntimeOptions(runtime=NODE_BY_NODE, time_limit_s=60)) as started:
        yield started


def _run(worker: Worker, path: Path, feeds: dict[str, np.ndarray], **extra: Any) -> dict[str, np.ndarray]:
    with worker.load(path, RuntimeOptions(runtime=NODE_BY_NODE, time_limit_s=60, extra=extra)) as session:
        return session.run(feeds)


def _distance(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.abs(actual - expected)) / np.max(np.abs(expected)))


@pytest.mark.parametrize("arithmetic", ["onnxruntime", "numpy", "blocked", "reversed", "sequential"])
def test_correct_arithmetic_agrees_within_float32(arithmetic, worker, network, feeds, right) -> None:
    actual = _run(worker, network, feeds, arithmetic=arithmetic)
    for name, expected in right.items():
        assert actual[name].dtype == expected.dtype
        assert actual[name].shape == expected.shape
        assert _distance(actual[name], expected) < 1e-5, name


@pytest.mark.parametrize("arithmetic", ["reversed", "sequential"])
def test_other_order_of_summation_changes_bits(arithmetic, worker, network, feeds, right) -> None:
    actual = _run(worker, network, feeds, arithmetic=arithmetic)
    assert np.any(actual["logits"] != right["logits"])


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
def test_numpy_convolution_agrees_with_onnx_runtime(group, auto_pad, worker, tmp_path) -> None:
    attributes: dict[str, Any] = {"strides": [2, 1], "dilations": [1, 1], "group": group, "auto_pad": auto_pad}
    if auto_pad == "NOTSET":
        attributes.update(pads=[1, 0, 2, 1], dilations=[1, 2])
    rng = np.random.default_rng(5)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((2, 4, 9, 10), (6, 4 // group, 3, 2)))
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in (("x", x), ("w", w))]
    node = helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph([node], "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    path = tmp_path / "conv.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    expected = _run(worker, path, {"x": x, "w": w})["y"]
    actual = _run(worker, path, {"x": x, "w": w}, arithmetic="numpy")["y"]
    assert actual.shape == expected.shape
    assert _distance(actual, expected) < 1e-6


@pytest.mark.parametrize(
    "case",
    [
        "drop_product conv",
        "tf32_inputs conv",
        "bf16_inputs logits",
        "off_element conv",
        "shifted_window pooled",
        "wrong_axis y",
        "bias_twice conv",
        "one_ulp positive",
        "returns_input positive",
    ],
)
def test_fault_changes_the_tensor_of_its_operator(case, worker, network, feeds, right) -> None:
    fault, tensor = case.split()
    actual = _run(worker, network, feeds, fault=fault)
    assert actual[tensor].dtype == right[tensor].dtype
    assert actual[tensor].shape == right[tensor].shape
    assert np.any(actual[tensor] != right[tensor])


def test_off_element_changes_one_element_by_a_thousandth(worker, network, feeds, right) -> None:
    conv = _run(worker, network, feeds, fault="off_element")["conv"]
    changed = np.flatnonzero(conv != right["conv"])
    assert len(changed) == 1
    assert conv.flat[changed[0]] / right["conv"].flat[changed[0]] == pytest.approx(1.001, rel=1e-6)


def test_dropped_product_is_the_last_one(worker, network, feeds, right) -> None:
    logits = _run(worker, network, feeds, fault="drop_product", op_types=["Gemm"])["logits"]
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(network).graph.initializer}
    missing = right["flat"][:, -1:] * weights["fc"][:, -1]
    np.testing.assert_allclose(right["logits"] - logits, missing, atol=1e-5)
    assert np.max(np.abs(missing)) > 0.1


def test_bias_twice_adds_the_bias(worker, network, feeds, right) -> None:
    logits = _run(worker, network, feeds, fault="bias_twice", op_types=["Gemm"])["logits"]
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(network).graph.initializer}
    np.testing.assert_allclose(logits - right["logits"], np.tile(weights["fb"], (2, 1)), atol=1e-5)


def test_rounded_inputs_keep_the_bits_that_the_format_has(worker, network, feeds, right) -> None:
    tf32 = _distance(_run(worker, network, feeds, fault="tf32_inputs")["conv"], right["conv"])
    bf16 = _distance(_run(worker, network, feeds, fault="bf16_inputs")["conv"], right["conv"])
    assert 2**-14 < tf32 < 2**-9
    assert 2**-11 < bf16 < 2**-6


def test_nan_to_zero_hides_a_nan(worker, network, feeds) -> None:
    spoilt = {"x": feeds["x"].copy()}
    spoilt["x"][0, 0, 0, 0] = np.nan
    assert np.isnan(_run(worker, network, spoilt)["conv"]).any()
    assert not np.isnan(_run(worker, network, spoilt, fault="nan_to_zero")["conv"]).any()


def test_wrong_dtype_returns_float64(worker, network, feeds, right) -> None:
    actual = _run(worker, network, feeds, fault="wrong_dtype")
    assert {value.dtype for value in actual.values()} == {np.dtype(np.float64)}
    np.testing.assert_array_equal(actual["y"], right["y"])


def test_wrong_shape_returns_another_rank(worker, network, feeds, right) -> None:
    assert _run(worker, network, feeds, fault="wrong_shape")["y"].shape == (1, *right["y"].shape)


def test_stale_output_is_that_of_the_run_before(worker, network, feeds, right) -> None:
    options = RuntimeOptions(runtime=NODE_BY_NODE, time_limit_s=60, extra={"fault": "stale_output"})
    with worker.load(network, options) as session:
        first = session.run(feeds)
        second = session.run({"x": -feeds["x"]})
    np.testing.assert_array_equal(first["y"], right["y"])
    np.testing.assert_array_equal(second["y"], right["y"])


def test_fused_error_shows_only_where_nothing_is_exposed(worker, network, closed_network, feeds, right) -> None:
    np.testing.assert_array_equal(_run(worker, network, feeds, fault="fused_error")["y"], right["y"])
    assert np.any(_run(worker, closed_network, feeds, fault="fused_error")["y"] != right["y"])


def test_flushed_subnormals_become_zero(worker, tmp_path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    path = tmp_path / "identity.onnx"
    model = helper.make_model(helper.make_graph([node], "g", info[:1], info[1:]), ir_version=9)
    onnx.save(model, path)
    x = {"x": np.array([1e-40, 1.0], np.float32)}
    np.testing.assert_array_equal(_run(worker, path, x)["y"], x["x"])
    np.testing.assert_array_equal(_run(worker, path, x, fault="flush_subnormals")["y"], np.array([0, 1], np.float32))


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("crash", CrashedError, r"killed by signal 11 \(SIGSEGV\)"),
        ("killed", CrashedError, r"killed by signal 9 \(SIGKILL\), probably out of memory"),
        ("exit", CrashedError, "exited with status 3: the runtime gives up"),
        ("hang", HungError, "no answer within 2 s"),
        ("out_of_memory", RaisedByRuntimeError, "out of memory: Unable to allocate"),
        ("raise", RaisedByRuntimeError, "RuntimeError: the runtime raised this"),
        ("not_implemented", UnsupportedByRuntimeError, "the runtime does not implement this"),
    ],
)
def test_dying_at_a_node_is_reported_as_what_it_is(fault, error, message, network, feeds) -> None:
    extra = {"fault": fault, "op_types": ["MaxPool"]}
    hurried = RuntimeOptions(runtime=NODE_BY_NODE, time_limit_s=2, extra=extra)
    with Worker(RuntimeOptions(runtime=NODE_BY_NODE)) as own:  # its start may take longer than two seconds
        session = own.load(network, hurried)
        with pytest.raises(error, match=message):
            session.run(feeds)
        assert session.alive == (error in (RaisedByRuntimeError, UnsupportedByRuntimeError))


def test_fault_from_the_environment_is_taken(network, feeds, right, monkeypatch) -> None:
    monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", "one_ulp")
    monkeypatch.setenv("ONNX_ARCH_TEST_OP_TYPES", "Softmax,Relu")
    with open_session(network, RuntimeOptions(runtime=NODE_BY_NODE)) as session:
        actual = session.run(feeds)
    np.testing.assert_array_equal(actual["conv"], right["conv"])
    np.testing.assert_array_equal(actual["positive"], np.nextafter(right["positive"], np.float32(np.inf)))
