"""Profiles in ONNX Runtime's form: own time of nodes, first runs left out, placement."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnx_arch.benchmarks.placement import check_nodes, check_session
from onnx_arch.benchmarks.profiles import times_by_op_type
from onnx_arch.errors import RuntimeUnavailableError
from onnx_arch.runtimes.session import RuntimeOptions, SessionInfo

CUDA = RuntimeOptions(provider="cuda")


def test_times_are_per_run_summed_by_operator_and_largest_first(trace) -> None:
    events = []
    for start in (0, 1_000):
        events += [trace.run(start, 900), trace.node("a", "Relu", start + 1, 100)]
        events += [trace.node("b", "Conv", start + 200, 400), trace.node("c", "Conv", start + 650, 200)]
    rows = times_by_op_type(events)
    assert [(row.op_type, row.count) for row in rows] == [("Conv", 2.0), ("Relu", 1.0)]
    assert [row.time_s for row in rows] == pytest.approx([600e-6, 100e-6])
    assert [row.share for row in rows] == pytest.approx([6 / 7, 1 / 7])
    assert rows[0].providers == ("CPUExecutionProvider",)


def test_first_runs_are_left_out(trace) -> None:
    events = [
        trace.run(0, 500),
        trace.node("a", "Relu", 10, 400),
        trace.run(600, 100),
        trace.node("a", "Relu", 610, 50),
    ]
    (row,) = times_by_op_type(events, skip_runs=1)
    assert row.time_s == pytest.approx(50e-6)
    assert times_by_op_type(events, skip_runs=2) == ()


def test_node_that_holds_others_counts_without_them(trace) -> None:
    events = [
        trace.run(0, 1_000),
        trace.node("body", "MatMul", 110, 200),
        trace.node("inner", "If", 320, 100),
        trace.node("then", "Relu", 330, 60),
        trace.node("loop", "Loop", 100, 500),
        trace.node("other-thread", "Add", 150, 100, thread=2),
    ]
    times = {row.op_type: row.time_s for row in times_by_op_type(events)}
    expected = {"Loop": 200e-6, "MatMul": 200e-6, "If": 40e-6, "Relu": 60e-6, "Add": 100e-6}
    assert times == pytest.approx(expected)


def test_profile_of_onnxruntime_with_a_loop_adds_up_to_no_more_than_the_runs(tmp_path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(loop_model(), options, providers=["CPUExecutionProvider"])
    for _ in range(3):
        session.run(None, {"x": np.ones((2, 64), np.float32)})
    events = onnx_profile(session.end_profiling())
    rows = {row.op_type: row for row in times_by_op_type(events, skip_runs=1)}
    runs = [event["dur"] * 1e-6 for event in events if event["name"] == "model_run"][1:]
    assert {name: row.count for name, row in rows.items()} == {"Loop": 1, "MatMul": 5, "Identity": 5, "Relu": 1}
    assert sum(row.time_s for row in rows.values()) <= sum(runs) / len(runs)
    check_nodes(events, RuntimeOptions())


def loop_model() -> bytes:
    """Relu after a Loop of five MatMuls."""
    value = helper.make_tensor_value_info
    step = [helper.make_node("MatMul", ["s", "w"], ["s2"]), helper.make_node("Identity", ["c"], ["c2"])]
    body = helper.make_graph(
        step,
        "body",
        [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, []), value("s", TensorProto.FLOAT, [2, 64])],
        [value("c2", TensorProto.BOOL, []), value("s2", TensorProto.FLOAT, [2, 64])],
    )
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["l"], body=body), helper.make_node("Relu", ["l"], ["y"])]
    weights = [
        onnx.numpy_helper.from_array(np.array(5), "n"),
        onnx.numpy_helper.from_array(np.eye(64, dtype=np.float32), "w"),
    ]
    ports = [value(name, TensorProto.FLOAT, [2, 64]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", ports[:1], ports[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString()


def onnx_profile(path: str) -> list[dict]:
    """The events of a profile file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_shape_work_on_the_cpu_is_no_fallback(trace) -> None:
    events = [
        trace.node("conv", "Conv", 0, 5, provider="CUDAExecutionProvider"),
        trace.node("shape", "Shape", 10, 1, outputs=[{"int64": [4]}]),
        trace.node("dim", "Gather", 20, 1, outputs=[{"int64": []}]),
    ]
    check_nodes(events, CUDA)


@pytest.mark.parametrize(
    "outputs",
    [[{"float": [4]}], [{"int64": [2, 3]}], [{"int64": [4]}, {"float": []}], []],
    ids=["float", "matrix-of-integers", "one-output-of-two", "not-said"],
)
def test_other_work_on_the_cpu_is_a_fallback(trace, outputs) -> None:
    events = [trace.node("x", "TopK", 0, 1, outputs=outputs)]
    with pytest.raises(RuntimeUnavailableError, match=r"1 of 1 nodes ran elsewhere: x \(TopK\) on CPU"):
        check_nodes(events, CUDA)


def test_node_on_cuda_when_the_cpu_was_asked_for_is_refused(trace) -> None:
    shape_on_gpu = trace.node("s", "Shape", 0, 1, provider="CUDAExecutionProvider", outputs=[{"int64": [4]}])
    with pytest.raises(RuntimeUnavailableError, match="CUDAExecutionProvider"):
        check_nodes([shape_on_gpu], RuntimeOptions(provider="cpu"))


def test_many_strays_are_counted_and_five_named(trace) -> None:
    events = [trace.node(f"n{index}", "MaxUnpool", index, 1) for index in range(8)]
    with pytest.raises(RuntimeUnavailableError, match=r"8 of 8 nodes.*n4 .* and 3 more"):
        check_nodes(events, CUDA)


@pytest.mark.parametrize(
    ("providers", "provider"),
    [
        (("CPUExecutionProvider",), "cpu"),
        (("CUDAExecutionProvider", "CPUExecutionProvider"), "cuda"),
        (("cuda",), "cuda"),
        ((), "cpu"),
    ],
)
def test_session_on_the_provider_asked_for_is_let_through(providers, provider: str) -> None:
    check_session(SessionInfo({}, providers, (), ()), RuntimeOptions(provider=provider))
