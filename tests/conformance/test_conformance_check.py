"""A whole check through real worker processes: every fault is found, the guilty node is named, and nothing else is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_arch.conformance.check import CheckRequest, check_model
from onnx_arch.conformance.oracle import Oracle
from onnx_arch.conformance.results import Footer, Header, NodeResult, Outcome
from onnx_arch.errors import InvalidInputError
from onnx_arch.graphs.evaluation import last_uses
from onnx_arch.graphs.feeds import random_feeds
from onnx_arch.graphs.loading import load_model
from onnx_arch.graphs.model import Model
from onnx_arch.runtimes.process import WorkerSession, open_session
from onnx_arch.runtimes.session import RuntimeOptions

NODE_BY_NODE = str(Path(__file__).parents[1] / "faulty" / "node_by_node.py")
LIMIT_S = 60.0


def _save(path: Path, nodes: Sequence[onnx.NodeProto], weights: Mapping[str, np.ndarray], **values: Any) -> Path:
    """A model of float32 inputs `x` (and others by shape) and named outputs, at opset 21."""
    shapes: dict[str, Sequence[int | str]] = values.pop("inputs")
    outputs: Sequence[str] = values.pop("outputs")
    graph = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(name, values.pop(name, TensorProto.FLOAT), None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def _convolutional(folder: Path, seed: int = 7) -> Path:
    """Conv, Relu, MaxPool, Conv, Flatten, MatMul, Gemm, Softmax on pictures of 3 × 16 × 16."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.standard_normal((16, 3, 3, 3)) / 5,
        "b1": rng.standard_normal(16),
        "w2": rng.standard_normal((16, 16, 3, 3)) / 12,
        "m": rng.standard_normal((1024, 64)) / 32,
        "g": rng.standard_normal((10, 64)) / 8,
        "b2": rng.standard_normal(10),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Flatten", ["c2"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["h"]),
        helper.make_node("Gemm", ["h", "g", "b2"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["y"], axis=1),
    ]
    stored = {name: value.astype(np.float32) for name, value in weights.items()}
    return _save(folder / "conv.onnx", nodes, stored, inputs={"x": [4, 3, 16, 16]}, outputs=["y"])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(_convolutional(tmp_path_factory.mktemp("network")))


def _faulty(fault: str = "none", op_types: Sequence[str] = (), **options: Any) -> RuntimeOptions:
    extra = {"fault": fault, "op_types": list(op_types), **options.pop("extra", {})}
    return RuntimeOptions(runtime=NODE_BY_NODE, extra=extra, **{"time_limit_s": LIMIT_S, **options})


def _rows(
    model: Model, options: RuntimeOptions, feeds: Mapping[str, Any] | None = None, **request: Any
) -> list[NodeResult]:
    records = _records(model, options, feeds, **request)
    return [record for record in records if isinstance(record, NodeResult)]


def _records(
    model: Model, options: RuntimeOptions, feeds: Mapping[str, Any] | None = None, **request: Any
) -> list[Any]:
    return list(check_model(model, random_feeds(model) if feeds is None else feeds, CheckRequest(options, **request)))


def _not_passed(rows: Sequence[NodeResult], kind: str = "node") -> dict[str, Outcome]:
    return {row.node: row.outcome for row in rows if row.outcome is not Outcome.PASSED and row.kind == kind}


@pytest.mark.parametrize("optimization", ["disabled", "basic", "extended", "all"])
def test_onnxruntime_is_all_green_at_every_level(network: Model, optimization: str) -> None:
    rows = _rows(network, RuntimeOptions(optimization=optimization))
    assert [row.node for row in rows if row.outcome is not Outcome.PASSED] == []
    assert len(rows) == 9


@pytest.mark.parametrize("arithmetic", ["numpy", "blocked", "reversed", "sequential"])
def test_correct_arithmetic_in_another_order_is_all_green(network: Model, arithmetic: str) -> None:
    rows = _rows(network, _faulty(extra={"arithmetic": arithmetic}))
    assert [(row.node, row.message) for row in rows if row.outcome is not Outcome.PASSED] == []


FAULTS: list[tuple[str, list[str], list[str], str]] = [
    ("drop_product", ["MatMul"], ["MatMul_0"], "last product dropped"),
    ("tf32_inputs", ["Conv"], ["Conv_0", "Conv_1"], "TF32"),
    ("tf32_inputs", ["MatMul"], ["MatMul_0"], "TF32"),
    ("bf16_inputs", ["Gemm"], ["Gemm_0"], "BF16"),
    ("off_element", ["Conv"], ["Conv_0", "Conv_1"], ""),
    ("shifted_window", ["MaxPool"], ["MaxPool_0"], "window shifted"),
    ("wrong_axis", ["Softmax"], ["Softmax_0"], "axis 0"),
    ("bias_twice", ["Gemm"], ["Gemm_0"], "bias added twice"),
    ("bias_twice", ["Conv"], ["Conv_0"], "bias added twice"),
    ("returns_input", ["Relu"], ["Relu_0"], "returns its input"),
    ("one_ulp", ["Relu"], ["Relu_0"], ""),
    ("wrong_dtype", [], ["Conv_0"], ""),
    ("wrong_shape", [], ["Conv_0"], ""),
]


@pytest.mark.parametrize(("fault", "op_types", "guilty", "fingerprint"), FAULTS, ids=str)
def test_fault_is_found_and_only_the_guilty_nodes_are_named(
    network: Model, fault: str, op_types: list[str], guilty: list[str], fingerprint: str
) -> None:
    rows = _rows(network, _faulty(fault, op_types))
    wrong = _not_passed(rows)
    assert set(wrong.values()) == {Outcome.FAILED}
    if op_types:
        assert set(wrong) == set(guilty)
        assert all(fingerprint in row.fingerprint for row in rows if row.node in guilty)
    else:
        assert set(guilty) <= set(wrong)


def test_nan_turned_to_zero_is_found(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "x"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    model = load_model(_save(tmp_path / "m.onnx", nodes, {}, inputs={"x": [4]}, outputs=["y"]))
    feeds = {"x": np.array([1.0, np.nan, -1.0, np.inf], np.float32)}
    assert _not_passed(_rows(model, RuntimeOptions(), feeds)) == {}
    rows = _rows(model, _faulty("nan_to_zero", ["Add"]), feeds)
    assert _not_passed(rows) == {"Add_0": Outcome.FAILED}
    assert "NaN" in rows[0].message


@pytest.mark.parametrize(
    ("fault", "outcome", "words"),
    [
        ("crash", Outcome.CRASHED, "SIGSEGV"),
        ("killed", Outcome.CRASHED, "SIGKILL"),
        ("exit", Outcome.CRASHED, "exit"),
        ("raise", Outcome.ERRORED, ""),
        ("not_implemented", Outcome.UNSUPPORTED, ""),
    ],
)
def test_death_at_one_node_is_booked_there_and_the_others_are_judged(
    network: Model, fault: str, outcome: Outcome, words: str
) -> None:
    rows = _rows(network, _faulty(fault, ["MaxPool"]))
    assert _not_passed(rows) == {"MaxPool_0": outcome}
    (guilty,) = (row for row in rows if row.node == "MaxPool_0")
    assert words in guilty.message
    assert _not_passed(rows, "output") == {"y": outcome}
    assert sum(row.outcome is Outcome.PASSED for row in rows) == 7


def test_hang_at_one_node_is_booked_there(network: Model) -> None:
    rows = _rows(network, _faulty("hang", ["MatMul"], time_limit_s=5.0))
    assert _not_passed(rows) == {"MatMul_0": Outcome.HUNG}


def test_out_of_memory_is_said(network: Model) -> None:
    rows = _rows(network, _faulty("out_of_memory", ["Gemm"], memory_limit_bytes=4 << 30))
    assert set(_not_passed(rows)) == {"Gemm_0"}
    (guilty,) = (row for row in rows if row.node == "Gemm_0")
    assert "memory" in guilty.message


def test_error_that_vanishes_when_watched_is_found_in_the_output(network: Model) -> None:
    rows = _rows(network, _faulty("fused_error", ["Relu"]))
    assert _not_passed(rows) == {}
    assert _not_passed(rows, "output") == {"y": Outcome.FAILED}
    assert "every node is right when watched" in rows[-1].message


def test_stale_outputs_are_found(tmp_path: Path) -> None:
    """A session that returns the previous run's tensors: seen where one session runs twice."""
    model = load_model(_convolutional(tmp_path))
    feeds, others = random_feeds(model), random_feeds(model, seed=1)
    opened: list[WorkerSession] = []

    @contextmanager
    def reopened(path: Path, options: RuntimeOptions) -> Iterator[Any]:
        with open_session(path, options) as session:
            session.run({name: value for name, value in others.items() if name in session.info.input_names})
            opened.append(session)
            yield session

    rows = _rows(model, _faulty("stale_output"), feeds, open_session=reopened)
    assert opened
    assert set(_not_passed(rows, "output")) == {"y"}
    assert Outcome.FAILED in _not_passed(rows).values()


def test_node_without_a_kernel_is_unjudged_and_named(tmp_path: Path) -> None:
    node = helper.make_node("SampleOp", ["x"], ["g"], domain="com.microsoft")
    graph_nodes = [node, helper.make_node("Relu", ["g"], ["y"])]
    path = _save(tmp_path / "m.onnx", graph_nodes, {}, inputs={"x": [8]}, outputs=["y"])
    proto = onnx.load(path)
    proto.opset_import.add(domain="com.microsoft", version=1)
    onnx.save(proto, path)
    rows = _rows(load_model(path), RuntimeOptions())
    assert _not_passed(rows) == {"SampleOp_0": Outcome.UNJUDGED}
    assert _not_passed(rows, "output") == {"y": Outcome.UNJUDGED}
    assert "no kernel" in rows[0].message


def test_footer_counts_the_rows_and_names_the_first_failure(network: Model) -> None:
    records = _records(network, _faulty("bias_twice", ["Gemm"]))
    header, *rows, footer = records
    assert isinstance(header, Header)
    assert isinstance(footer, Footer)
    assert header.nodes == len(rows) == sum(footer.counts.values())
    assert footer.counts["failed"] == sum(row.outcome is Outcome.FAILED for row in rows)
    assert footer.first_failed == "Gemm_0"


def test_two_runs_give_the_same_rows(network: Model) -> None:
    assert _rows(network, RuntimeOptions(threads=1)) == _rows(network, RuntimeOptions(threads=1))


def test_segments_give_the_rows_of_the_whole_graph(network: Model) -> None:
    options = _faulty("bias_twice", ["Gemm"])
    whole, parts = _rows(network, options), _rows(network, options, segment_bytes=1)
    assert [dataclasses.astuple(row) for row in parts] == [dataclasses.astuple(row) for row in whole]


def test_rows_of_an_earlier_run_are_taken_over(network: Model) -> None:
    first = {row.node: row for row in _rows(network, RuntimeOptions()) if row.kind == "node"}
    kept = {"Conv_0": dataclasses.replace(first["Conv_0"], message="from the earlier run")}
    rows = _rows(network, RuntimeOptions(), earlier=lambda _header: kept)
    assert rows[0].message == "from the earlier run"
    assert [row.message for row in rows[1:8]] == [first[row.node].message for row in rows[1:8]]


def test_tensors_are_freed_after_their_last_use(network: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[set[str]] = []
    advance = Oracle.advance

    def spying(self: Oracle, *arguments: Any) -> Any:
        alive.append(set(self.actual))
        return advance(self, *arguments)

    monkeypatch.setattr(Oracle, "advance", spying)
    _rows(network, RuntimeOptions())
    uses = last_uses(network.graph)
    for node, names in zip(network.graph.nodes, alive, strict=True):
        assert all(uses[name] >= node.index for name in names if name in uses)
    assert alive[-1] == {"logits"}


def test_inherited_error_grows_but_condemns_nobody(network: Model) -> None:
    rows = _rows(network, _faulty("off_element", ["Conv"]))
    softmax = next(row for row in rows if row.node == "Softmax_0")
    clean = next(row for row in _rows(network, _faulty()) if row.node == "Softmax_0")
    assert softmax.outcome is Outcome.PASSED
    assert softmax.inherited_max_abs is not None
    assert clean.inherited_max_abs is not None
    assert softmax.inherited_max_abs > 2 * clean.inherited_max_abs


def _attention(folder: Path) -> Path:
    rng = np.random.default_rng(3)
    weights = {name: (rng.standard_normal((32, 32)) / 6).astype(np.float32) for name in ("wq", "wk", "wv")}
    nodes = [helper.make_node("MatMul", ["x", f"w{n}"], [n]) for n in "qkv"]
    nodes.append(helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=4, kv_num_heads=4, is_causal=1))
    path = _save(folder / "attention.onnx", nodes, weights, inputs={"x": [2, 10, 32]}, outputs=["y"])
    proto = onnx.load(path)
    proto.opset_import[0].version = 23
    onnx.save(proto, path)
    return path


def _shapes(folder: Path) -> Path:
    """Shape → Gather → Concat → Reshape, Split, TopK with two outputs, ArgMax."""
    weights = {"zero": np.array([0], np.int64), "rest": np.array([-1], np.int64), "k": np.array([3], np.int64)}
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("Split", ["flat"], ["left", "right"], axis=1, num_outputs=2),
        helper.make_node("TopK", ["left", "k"], ["values", "indices"]),
        helper.make_node("ArgMax", ["right"], ["best"], axis=1),
    ]
    kinds = {"indices": TensorProto.INT64, "best": TensorProto.INT64}
    return _save(
        folder / "shapes.onnx", nodes, weights, inputs={"x": [2, 4, 6]}, outputs=["values", "indices", "best"], **kinds
    )


def _quantized(folder: Path) -> Path:
    """A QDQ pair before and behind a MatMul."""
    weights = {
        "scale": np.array(0.05, np.float32),
        "zero": np.array(3, np.int8),
        "w": np.random.default_rng(1).standard_normal((16, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["m"]),
        helper.make_node("QuantizeLinear", ["m", "scale", "zero"], ["qm"]),
        helper.make_node("DequantizeLinear", ["qm", "scale", "zero"], ["y"]),
    ]
    return _save(folder / "qdq.onnx", nodes, weights, inputs={"x": [4, 16]}, outputs=["y"])


def _half(folder: Path) -> Path:
    weights = {"w": np.random.default_rng(1).standard_normal((16, 8)).astype(np.float16)}
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["h", "w"], ["m"]),
        helper.make_node("Softmax", ["m"], ["p"], axis=-1),
        helper.make_node("Cast", ["p"], ["y"], to=TensorProto.FLOAT),
    ]
    return _save(folder / "half.onnx", nodes, weights, inputs={"x": [4, 16]}, outputs=["y"])


@pytest.mark.parametrize("make", [_attention, _shapes, _quantized, _half])
@pytest.mark.parametrize("optimization", ["disabled", "all"])
def test_graphs_of_other_kinds_are_all_green(make: Any, optimization: str, tmp_path: Path) -> None:
    rows = _rows(load_model(make(tmp_path)), RuntimeOptions(optimization=optimization))
    assert [(row.node, row.outcome, row.message) for row in rows if row.outcome is not Outcome.PASSED] == []


def _linear(folder: Path) -> Model:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])]
    weights = {"w": np.ones((8, 4), np.float32)}
    return load_model(_save(folder / "m.onnx", nodes, weights, inputs={"x": ["n", 8]}, outputs=["y"]))


def test_zero_size_batch_is_refused_as_it_leaves_nothing_to_judge(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="nothing to judge"):
        _rows(_linear(tmp_path), RuntimeOptions(), {"x": np.ones((0, 8), np.float32)})


def test_empty_result_fails_where_it_should_not_be_empty(tmp_path: Path) -> None:
    class Empty:
        info = SimpleNamespace(versions={})

        def run(self, _feeds: Any, outputs: Any = ("y",)) -> dict[str, Any]:
            return {name: np.zeros((0, 4), np.float32) for name in outputs}

        def peak_memory_bytes(self) -> int:
            return 0

    @contextmanager
    def opened(_path: Path, _options: RuntimeOptions) -> Iterator[Any]:
        yield Empty()

    request = CheckRequest(open_session=opened)
    model = _linear(tmp_path)
    rows = [
        row for row in check_model(model, {"x": np.ones((2, 8), np.float32)}, request) if isinstance(row, NodeResult)
    ]
    assert "shape [0, 4], expected [2, 4]" in rows[-1].message


def test_result_that_is_all_nan_says_so(tmp_path: Path) -> None:
    rows = _rows(_linear(tmp_path), RuntimeOptions(), {"x": np.full((2, 8), np.nan, np.float32)})
    assert "NaN" in rows[-1].message


def _with_unknown(folder: Path, op_type: str = "Wave", domain: str = "com.nowhere") -> Model:
    """Relu, an operator of a domain that nobody knows, Exp, Neg; and a branch that does not depend on it."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node(op_type, ["a"], ["b"], domain=domain),
        helper.make_node("Exp", ["b"], ["c"]),
        helper.make_node("Neg", ["c"], ["y"]),
        helper.make_node("Tanh", ["x"], ["other"]),
    ]
    path = _save(folder / "m.onnx", nodes, {}, inputs={"x": [8]}, outputs=["y", "other"])
    proto = onnx.load(path)
    proto.opset_import.add(domain=domain, version=1)
    onnx.save(proto, path)
    return load_model(path)


def test_operator_that_nobody_knows_leaves_the_rest_judged(tmp_path: Path) -> None:
    rows = _rows(_with_unknown(tmp_path), RuntimeOptions())
    outcomes = {row.node: row.outcome for row in rows if row.kind == "node"}
    assert outcomes["Relu_0"] is outcomes["Tanh_0"] is Outcome.PASSED
    assert outcomes["Wave_0"] in (Outcome.UNSUPPORTED, Outcome.ERRORED)
    assert outcomes["Exp_0"] is outcomes["Neg_0"] is Outcome.SKIPPED


def test_output_behind_a_node_without_kernel_is_unjudged_and_names_it(tmp_path: Path) -> None:
    rows = _rows(_with_unknown(tmp_path, "SampleOp", "com.microsoft"), RuntimeOptions())
    outputs = {row.node: row for row in rows if row.kind == "output"}
    assert outputs["y"].outcome is Outcome.UNJUDGED
    assert "SampleOp_0" in outputs["y"].message
    assert outputs["other"].outcome is Outcome.PASSED
    behind = next(row for row in rows if row.node == "Exp_0")
    assert behind.outcome is Outcome.PASSED
    assert behind.inherited_max_abs is None


def _untouched_wrong(change: Any) -> Any:
    """Sessions on the model's own file return changed outputs; watched ones are right."""

    @contextmanager
    def opened(path: Path, options: RuntimeOptions) -> Iterator[Any]:
        with open_session(path, options) as session:
            if not path.name.startswith("segment"):
                run = session.run
                session.run = lambda feeds, outputs=None: {k: change(v) for k, v in run(feeds, outputs).items()}  # type: ignore[method-assign]
            yield session

    return opened


def test_wrong_small_rows_do_not_hide_behind_large_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((64, 32)).astype(np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = load_model(_save(tmp_path / "m.onnx", nodes, weights, inputs={"x": [8, 64]}, outputs=["y"]))
    x = rng.standard_normal((8, 64)).astype(np.float32)
    x[0] *= np.float32(1e8)

    def half_precision(y: np.ndarray) -> np.ndarray:
        return np.concatenate([y[:1], y[1:].astype(np.float16).astype(np.float32)])

    rows = _rows(model, RuntimeOptions(), {"x": x}, open_session=_untouched_wrong(half_precision))
    assert _not_passed(rows, "output") == {"y": Outcome.FAILED}
    assert _not_passed(_rows(model, RuntimeOptions(), {"x": x})) == {}


def test_attribute_that_no_kernel_can_take_leaves_the_rest_judged(tmp_path: Path) -> None:
    """A stride of 0 divides by zero in a kernel: that is a row, not the end of the run."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["c"], strides=[0, 0]),
        helper.make_node("Neg", ["x"], ["y"]),
    ]
    weights = {"w": np.ones((3, 3, 3, 3), np.float32)}
    path = _save(tmp_path / "stride.onnx", nodes, weights, inputs={"x": [1, 3, 5, 5]}, outputs=["c", "y"])
    rows = {row.node: row.outcome for row in _rows(load_model(path), _faulty()) if row.kind == "node"}
    assert rows["Relu_0"] is rows["Neg_0"] is Outcome.PASSED
    assert rows["Conv_0"] is not Outcome.PASSED
