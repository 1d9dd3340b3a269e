"""If, Loop, Scan, SequenceMap: the official cases, NumPy loops, ONNX Runtime, limits, and verdicts over subgraphs."""

from __future__ import annotations

import _thread
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnx_arch.conformance.nodes import judge_node
from onnx_arch.conformance.oracle import Oracle
from onnx_arch.conformance.results import NodeResult, Outcome
from onnx_arch.errors import InvalidInputError, MissingKernelError
from onnx_arch.graphs import control_flow
from onnx_arch.graphs.evaluation import evaluate_model, propagated_spread
from onnx_arch.graphs.loading import load_model
from onnx_arch.graphs.model import Model

CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}
Write = Callable[..., Path]
Feeds = Mapping[str, Any]


def op_types(graph: onnx.GraphProto) -> Iterator[str]:
    """Every operator in a graph and its subgraphs."""
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from op_types(attribute.g)


@cache
def official_cases() -> tuple[Any, ...]:
    """The node tests of onnx with control flow in them, expansions of functions among them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX computes log(0) and the like while collecting
        from onnx.backend.test.loader import load_model_tests  # noqa: PLC0415 (takes seconds)

        tests = load_model_tests(kind="node")
    return tuple(test for test in tests if CONTROL_FLOW & set(op_types(test.model.graph)))


def stored(value: Any) -> Any:
    """A tensor, sequence or optional of a test as arrays."""
    if isinstance(value, list):
        return [stored(item) for item in value]
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def check_near(expected: Any, actual: Any, spread: Any) -> None:
    """Equal, or for floats within 16 propagated deviations and 8 half-units."""
    if isinstance(expected, list):
        assert isinstance(actual, list)
        assert len(actual) == len(expected)
        for e, a in zip(expected, actual, strict=True):
            check_near(e, a, 0.0)
    elif expected is None:
        assert actual is None
    elif expected.dtype.kind in "fV":
        assert actual.shape == expected.shape
        wide = expected.astype(np.float64)
        unit = 2.0 ** (-1 - ml_dtypes.finfo(expected.dtype).nmant)
        assert (np.abs(actual - wide) <= 16 * spread + 8 * unit * np.abs(wide)).all()
    else:
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("case", official_cases(), ids=lambda case: case.name)
def test_node_case_of_onnx_gives_its_outputs(case: Any, write: Write) -> None:
    model = load_model(write(case.model))
    inputs, outputs = case.data_sets[0]
    feeds = {spec.name: stored(value) for spec, value in zip(case.model.graph.input, inputs, strict=True)}
    found = evaluate_model(model, feeds)
    spreads = propagated_spread(model, feeds)
    for spec, expected in zip(case.model.graph.output, outputs, strict=True):
        check_near(stored(expected), found[spec.name], spreads[spec.name])


def parsed(write: Write, text: str, *, opset: int = 18) -> Model:
    """A model from ONNX's textual syntax."""
    return load_model(write(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]>\n{text}')))


def run_onnxruntime(model: Model, feeds: Feeds) -> dict[str, Any]:
    """The outputs of a model in ONNX Runtime on CPU, without optimisation."""
    import onnxruntime  # noqa: PLC0415 (only where a test runs it)

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.path, options, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in model.graph.outputs]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def judged(model: Model, feeds: Feeds, outputs: Feeds) -> NodeResult:
    """The verdict on the only node of a model."""
    (node,) = model.graph.nodes
    return judge_node(node, Oracle(model, feeds).local(node), outputs)


BRANCHES = """
main (bool c, float[N] x, float[N] w) => (float[N] y) {
  y = If (c) <
    then_branch = plus () => (float[N] a) { a = Add (x, w) },
    else_branch = scaled () => (float[N] b) <float two = {2.0}> { t = Mul (x, two)  b = Sub (t, w) }
  >
}
"""


@pytest.mark.parametrize("condition", [True, False, [True], [[False]]])
def test_if_runs_the_branch_that_the_condition_names_on_what_it_captures(condition: Any, write: Write) -> None:
    model = parsed(write, BRANCHES)
    x, w = np.array([1.5, -2.0], np.float32), np.array([0.25, 4.0], np.float32)
    y = evaluate_model(model, {"c": np.array(condition), "x": x, "w": w})["y"]
    np.testing.assert_array_equal(y, x + w if np.array(condition).all() else 2 * x - w)


def test_if_with_a_condition_of_two_elements_is_refused(write: Write) -> None:
    model = parsed(write, BRANCHES.replace("bool c", "bool[K] c"))
    x = np.ones(2, np.float32)
    with pytest.raises(InvalidInputError, match=r"If_0.*shape \[2\]"):
        evaluate_model(model, {"c": np.array([True, False]), "x": x, "w": x})


LOOP = """
main (int64 m, bool c, float[N] x) => (float[N] last, float[T, N] all, int64[T] steps) {
  last, all, steps = Loop (M, C, x) <
    body = step (int64 i, bool go, float[N] h) => (bool more, float[N] next, float[N] seen, int64 at)
    <float limit = {10.0}> {
      next = Add (h, x)
      top = ReduceMax <keepdims = 0> (next)
      more = Less (top, limit)
      seen = Neg (next)
      at = Identity (i)
    }
  >
}
"""


def loop_in_python(limit: int | None, condition: bool | None, x: np.ndarray) -> tuple[Any, ...]:
    """LOOP by the table of the specification."""
    h, seen, at = x, [], []
    go = True if condition is None else condition
    while go and (limit is None or len(at) < limit):
        h = h + x
        seen.append(-h)
        at.append(len(at))
        go = bool(h.max() < 10)
    return h, np.array(seen).reshape(-1, len(x)), np.array(at, np.int64)


@pytest.mark.parametrize("limit", [0, 1, 3, 100, None])
@pytest.mark.parametrize("condition", [True, False])
def test_loop_runs_while_the_condition_holds_at_most_m_times(limit: int | None, condition: bool, write: Write) -> None:
    model = parsed(write, LOOP.replace("(M, C, x)", '("", c, x)' if limit is None else "(m, c, x)"))
    feeds = {"m": np.array(limit or 0), "c": np.array(condition), "x": np.array([1.0, 2.0], np.float32)}
    found = evaluate_model(model, feeds)
    for name, expected in zip(("last", "all", "steps"), loop_in_python(limit, condition, feeds["x"]), strict=True):
        assert found[name].ndim == expected.ndim
        assert len(found[name]) == len(expected)
        assert not expected.size or found[name].tolist() == expected.tolist()


def test_loop_without_trips_returns_what_onnxruntime_returns(write: Write) -> None:
    model = parsed(write, LOOP.replace("(M, C, x)", "(m, c, x)"))
    feeds = {"m": np.array(0), "c": np.array(True), "x": np.array([1.0, 2.0], np.float32)}
    found, actual = evaluate_model(model, feeds), run_onnxruntime(model, feeds)
    for name in ("last", "all", "steps"):
        assert found[name].shape == actual[name].shape


def test_condition_without_an_input_that_the_body_turns_false_is_left_open(write: Write) -> None:
    model = parsed(write, LOOP.replace("(M, C, x)", '(m, "", x)'))
    feeds = {"m": np.array(20), "c": np.array(True), "x": np.array([1.0, 2.0], np.float32)}
    assert evaluate_model(model, feeds)["steps"].size == 20  # the table: "for (int i=0; i < trip_count; ++i)"
    actual = run_onnxruntime(model, feeds)
    assert actual["steps"].size == 4  # it stops where the condition turns false
    row = judged(model, feeds, actual)
    assert row.outcome is Outcome.UNJUDGED
    assert "condition that no input gives" in row.message
    assert judged(model, feeds, {**actual, "last": actual["last"].astype(float)}).outcome is Outcome.FAILED
    short = {**feeds, "m": np.array(3)}
    assert judged(model, short, run_onnxruntime(model, short)).outcome is Outcome.PASSED


SCAN = """
main (float[N] s, float[A, T] x, float[T, N] z) => (float[N] last, float[N, T] sums, float[T] firsts) {
  last, sums, firsts = Scan <num_scan_inputs = 2, scan_input_axes = [-1, 0], scan_input_directions = [1, 0],
      scan_output_axes = [1, 0], scan_output_directions = [0, 1],
    body = step (float[N] h, float[A] u, float[N] v) => (float[N] next, float[N] out, float first)
    <int64[1] zero = {0}> {
      t = ReduceSum <keepdims = 0> (u)
      g = Mul (h, v)
      next = Add (g, t)
      out = Identity (next)
      picked = Gather (u, zero)
      first = Squeeze (picked)
    }
  > (s, x, z)
}
"""


def test_scan_follows_axes_and_directions(write: Write) -> None:
    rng = np.random.default_rng(3)
    feeds = {
        "s": rng.standard_normal(3).astype(np.float32),
        "x": rng.standard_normal((4, 5)).astype(np.float32),
        "z": rng.standard_normal((5, 3)).astype(np.float32),
    }
    model = parsed(write, SCAN)
    found = evaluate_model(model, feeds)
    h, sums, firsts = feeds["s"].astype(np.float64), [], []
    for t in range(5):
        u = feeds["x"][:, 4 - t].astype(np.float64)
        h = h * feeds["z"][t] + u.sum()
        sums.append(h)
        firsts.insert(0, u[0])
    np.testing.assert_allclose(found["last"], h, rtol=1e-14)
    np.testing.assert_allclose(found["sums"], np.stack(sums, axis=1), rtol=1e-14)
    np.testing.assert_array_equal(found["firsts"], firsts)
    assert judged(model, feeds, run_onnxruntime(model, feeds)).outcome is Outcome.PASSED


BATCHED_SCAN = """
main (int64[B] lengths, float[B, N] s, float[B, T, N] x) => (float[B, N] last, float[B, T, N] all) {
  last, all = Scan <num_scan_inputs = 1, directions = [1],
    body = step (float[N] h, float[N] u) => (float[N] next, float[N] out) { next = Add (h, u)  out = Identity (next) }
  > (lengths, s, x)
}
"""


def test_scan_of_opset_8_stops_at_each_length_and_leaves_the_rest_open(write: Write) -> None:
    model = parsed(write, BATCHED_SCAN, opset=8)
    rng = np.random.default_rng(4)
    feeds = {
        "lengths": np.array([2, 4]),
        "s": rng.standard_normal((2, 3)).astype(np.float32),
        "x": rng.standard_normal((2, 4, 3)).astype(np.float32),
    }
    found = evaluate_model(model, feeds)
    for n, length in enumerate(feeds["lengths"]):
        part = feeds["x"][n, :length][::-1].astype(np.float64)
        sums = feeds["s"][n] + np.cumsum(part, axis=0)
        np.testing.assert_allclose(found["all"][n, :length], sums, rtol=1e-14)
        np.testing.assert_allclose(found["last"][n], sums[-1], rtol=1e-14)
    actual = {name: value.astype(np.float32) for name, value in found.items()}
    actual["all"][0, 2:] = 7.0
    assert judged(model, feeds, actual).outcome is Outcome.PASSED
    actual["all"][1, 2:] = 7.0
    assert judged(model, feeds, actual).outcome is Outcome.FAILED


NESTED = """
main (float[N, N] x, float[N, N] w) => (float[N, N] y) <int64 m = {3}, bool yes = {1}> {
  y = Loop (m, yes, x) <
    body = step (int64 i, bool go, float[N, N] h) => (bool more, float[N, N] next) <int64 one = {1}> {
      more = Identity (go)
      odd = Equal (i, one)
      next = If (odd) <
        then_branch = multiplied () => (float[N, N] a) { a = MatMul (h, w) },
        else_branch = squashed () => (float[N, N] b) { b = Tanh (h) }
      >
    }
  >
}
"""


def nested_feeds(seed: int = 5, size: int = 16) -> dict[str, np.ndarray]:
    """Inputs of NESTED."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((size, size)).astype(np.float32) for name in ("x", "w")}


def test_subgraphs_within_subgraphs_see_both_scopes(write: Write) -> None:
    model, feeds = parsed(write, NESTED), nested_feeds()
    wide = {name: value.astype(np.float64) for name, value in feeds.items()}
    np.testing.assert_allclose(
        evaluate_model(model, feeds)["y"], np.tanh(np.tanh(wide["x"]) @ wide["w"]), rtol=1e-13, atol=1e-300
    )
    assert judged(model, feeds, run_onnxruntime(model, feeds)).outcome is Outcome.PASSED


@pytest.mark.parametrize("seed", range(3))
def test_product_that_drops_a_summand_inside_a_subgraph_fails(seed: int, write: Write) -> None:
    model, feeds = parsed(write, NESTED), nested_feeds(seed)
    x, w = feeds["x"], feeds["w"]
    wrong = np.tanh(np.tanh(x)[:, :-1] @ w[:-1])
    row = judged(model, feeds, {"y": wrong})
    assert row.outcome is Outcome.FAILED
    assert row.max_z is not None
    assert row.max_z > 1000


@pytest.mark.parametrize(("relative", "outcome"), [(1e-4, Outcome.FAILED), (1e-8, Outcome.PASSED)])
def test_one_element_off_is_seen_from_a_few_units_on(relative: float, outcome: Outcome, write: Write) -> None:
    model, feeds = parsed(write, NESTED), nested_feeds()
    actual = run_onnxruntime(model, feeds)
    actual["y"][3, 4] *= 1 + relative
    assert judged(model, feeds, actual).outcome is outcome


@pytest.mark.parametrize("element", ["float16", "bfloat16"])
def test_narrow_types_stay_in_their_type_and_are_judged_in_it(element: str, write: Write) -> None:
    model = parsed(write, NESTED.replace("float[", f"{element}["))
    dtype = np.dtype(getattr(ml_dtypes, element, element))
    feeds = {name: value.astype(dtype) for name, value in nested_feeds().items()}

    def through(value: np.ndarray) -> np.ndarray:
        return value.astype(np.float32).astype(dtype).astype(np.float32)

    x, w = (feeds[name].astype(np.float32) for name in ("x", "w"))
    right = np.tanh(through(through(np.tanh(x)) @ w)).astype(dtype)
    assert judged(model, feeds, {"y": right}).outcome is Outcome.PASSED
    assert judged(model, feeds, {"y": right.astype(np.float32)}).message.startswith("dtype float32")
    wrong = right.copy()
    wrong[0] = -wrong[0]
    assert judged(model, feeds, {"y": wrong}).outcome is Outcome.FAILED


DRIFT = """
main (float[N] x) => (float[N] y) <int64 m = {1000}, bool yes = {1}> {
  y = Loop (m, yes, x) <
    body = step (int64 i, bool go, float[N] h) => (bool more, float[N] next) {
      more = Identity (go)
      next = Add (h, x)
    }
  >
}
"""


def test_sum_that_errs_the_same_way_in_every_trip_is_explained_by_plain_float32(write: Write) -> None:
    model = parsed(write, DRIFT)
    x = np.array([0.1, 0.7, 1.3, 1e-3], np.float32)
    total = x.copy()
    for _ in range(1000):
        total += x
    row = judged(model, {"x": x}, {"y": total})
    assert row.outcome is Outcome.PASSED
    exact = (x.astype(np.float64) * 1001).astype(np.float32)
    assert judged(model, {"x": x}, {"y": exact}).outcome is Outcome.PASSED
    assert judged(model, {"x": x}, {"y": exact - x}).outcome is Outcome.FAILED  # one trip too few


MOVED = """
main (bool c, int64[N] k, float[N] x) => (int64[N] a, float[N] b) {
  a, b = If (c) <
    then_branch = t () => (int64[N] p, float[N] q) { p = Add (k, k)  q = Identity (x) },
    else_branch = e () => (int64[N] r, float[N] s) { r = Neg (k)  s = Neg (x) }
  >
}
"""


def test_integers_and_moved_data_must_be_exact(write: Write) -> None:
    model = parsed(write, MOVED)
    feeds = {"c": np.array(True), "k": np.arange(3), "x": np.array([0.1, 0.2, 0.3], np.float32)}
    right = run_onnxruntime(model, feeds)
    row = judged(model, feeds, right)
    assert (row.outcome, row.rule) == (Outcome.PASSED, "exact")
    assert judged(model, feeds, {**right, "a": right["a"] + 1}).outcome is Outcome.FAILED
    off = np.nextafter(right["b"], np.float32(1))
    assert judged(model, feeds, {**right, "b": off}).outcome is Outcome.FAILED


FLIPPING = """
main (float[N] x, float[N] w) => (float[N] y, int64[K] shape) <bool yes = {1}> {
  y, shape = If (yes) <
    then_branch = t () => (float[N] a, int64[K] n) <float zero = {0.0}> {
      p = Mul (x, w)
      d = ReduceSum <keepdims = 0> (p)
      positive = Greater (d, zero)
      a = If (positive) <
        then_branch = u () => (float[N] q) { q = Add (x, w) },
        else_branch = v () => (float[N] r) { r = Sub (x, w) }
      >
      n = Shape (a)
    },
    else_branch = e () => (float[N] b, int64[K] m) { b = Identity (x)  m = Shape (x) }
  >
}
"""


def test_branch_that_rounding_alone_decides_is_left_open_with_the_reason(write: Write) -> None:
    model = parsed(write, FLIPPING)
    x = np.array([1.0, 1.0, 0.3], np.float32)
    near = {"x": x, "w": np.array([0.7, -0.7, 1e-9], np.float32)}
    clear = {"x": x, "w": np.array([0.7, -0.6, 1e-9], np.float32)}
    row = judged(model, near, {"y": x, "shape": np.array([3])})
    assert row.outcome is Outcome.UNJUDGED
    assert "which branch" in row.message
    assert judged(model, near, {"y": x, "shape": np.array([4])}).outcome is Outcome.FAILED  # the shape is certain
    assert judged(model, clear, {"y": x + clear["w"], "shape": np.array([3])}).outcome is Outcome.PASSED
    assert judged(model, clear, {"y": x - clear["w"], "shape": np.array([3])}).outcome is Outcome.FAILED


ROUNDED = """
main (float[N] x, float[N] w) => (int64[N] y) <bool yes = {1}> {
  y = If (yes) <
    then_branch = t () => (int64[N] a) { p = Mul (x, w)  r = Round (p)  a = Cast <to = 7> (r) },
    else_branch = e () => (int64[N] b) { b = Cast <to = 7> (x) }
  >
}
"""


def test_integers_that_rounding_alone_decides_are_left_open_one_by_one(write: Write) -> None:
    model = parsed(write, ROUNDED)
    x, w = np.array([4.5, 3.2, 7.0], np.float32), np.array([1.0 / 3, 1.0, 0.5], np.float32)
    feeds = {"x": x, "w": w}
    assert judged(model, feeds, {"y": np.array([2, 3, 4])}).outcome is Outcome.PASSED
    assert judged(model, feeds, {"y": np.array([1, 3, 3])}).outcome is Outcome.PASSED
    assert judged(model, feeds, {"y": np.array([1, 4, 3])}).outcome is Outcome.FAILED


ENDLESS = """
main (float[N] x) => (float[K] y) <int64 m = {4611686018427387904}, bool yes = {1}> {
  y = Loop (m, yes, x) <
    body = step (int64 i, bool go, float[J] h) => (bool more, float[L] next) { more = Identity (go)  next = BODY }
  >
}
"""


def test_loop_of_2_to_the_62_trips_ends_in_an_error(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_flow, "LARGEST_NODE_RUNS", 1000)
    model = parsed(write, ENDLESS.replace("BODY", "Neg (h)"))
    with pytest.raises(InvalidInputError, match=r"Loop_0.*more than 1000 nodes"):
        evaluate_model(model, {"x": np.ones(2, np.float32)})
    row = judged(model, {"x": np.ones(2, np.float32)}, {"y": np.ones(2, np.float32)})
    assert row.outcome is Outcome.UNJUDGED
    assert "more than 1000 nodes" in row.message


def test_loop_that_doubles_a_tensor_ends_in_an_error(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_flow, "available_memory", lambda: 4 << 20)
    model = parsed(write, ENDLESS.replace("BODY", "Concat <axis = 0> (h, h)"))
    with pytest.raises(InvalidInputError, match=r"Loop_0.*at most 1048576 are allowed"):
        evaluate_model(model, {"x": np.ones(2, np.float32)})


def test_loop_that_collects_without_end_ends_in_an_error(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_flow, "available_memory", lambda: 4 << 20)
    text = LOOP.replace("(M, C, x)", '("", c, x)').replace("float[N] limit", "float limit").replace("10.0", "1e30")
    feeds = {"m": np.array(0), "c": np.array(True), "x": np.ones(5000, np.float32)}
    with pytest.raises(InvalidInputError, match=r"Loop_0.*at most 1048576 are allowed"):
        evaluate_model(parsed(write, text), feeds)


def test_endless_loop_can_be_interrupted(write: Write) -> None:
    model = parsed(write, ENDLESS.replace("BODY", "Neg (h)"))
    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        evaluate_model(model, {"x": np.ones(2, np.float32)})
    timer.join()


def test_operator_without_a_kernel_inside_a_subgraph_is_named(write: Write) -> None:
    model = parsed(write, BRANCHES)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.opset_import.add(domain="elsewhere", version=1)
    branch = next(a.g for a in proto.graph.node[0].attribute if a.name == "then_branch")
    branch.node[0].op_type, branch.node[0].domain, branch.node[0].name = "Odd", "elsewhere", ""
    other = load_model(write(proto))
    x = np.ones(2, np.float32)
    with pytest.raises(MissingKernelError, match=r"If_0/then_branch/Odd_0.*elsewhere::Odd"):
        evaluate_model(other, {"c": np.array(True), "x": x, "w": x})
    row = judged(other, {"c": np.array(True), "x": x, "w": x}, {"y": x})
    assert row.outcome is Outcome.UNJUDGED
    assert judged(other, {"c": np.array(False), "x": x, "w": x}, {"y": x}).outcome is Outcome.PASSED


def test_random_numbers_inside_a_subgraph_leave_its_outputs_open(write: Write) -> None:
    model = parsed(write, BRANCHES.replace("Add (x, w)", "RandomNormalLike (x)"))
    x = np.ones(2, np.float32)
    row = judged(model, {"c": np.array(True), "x": x, "w": x}, {"y": x})
    assert row.outcome is Outcome.UNJUDGED
    assert "random" in row.message
