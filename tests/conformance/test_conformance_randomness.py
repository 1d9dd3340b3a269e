"""Random operators in `check` and `conform`: seeds that two sessions share, and outputs that draws decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_arch.conformance.case_judging import CaseJudge
from onnx_arch.conformance.check import CheckRequest, check_model
from onnx_arch.conformance.randomness import RUNS, judge_law, told_apart
from onnx_arch.conformance.results import NodeResult, Outcome
from onnx_arch.graphs.loading import load_model
from onnx_arch.runtimes.process import Worker, open_session
from onnx_arch.runtimes.session import RuntimeOptions, SessionInfo

FLOAT, INT32 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT32
SHAPE = [20, 30]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker(RuntimeOptions())
    yield worker
    worker.close()


def saved(path: Path, nodes: Sequence[onnx.NodeProto], element: int = FLOAT) -> Path:
    x = helper.make_tensor_value_info("x", FLOAT, SHAPE)
    y = helper.make_tensor_value_info("y", element, None)
    graph = helper.make_graph(nodes, "random", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8), path)
    return path


SEEDED: Mapping[str, onnx.NodeProto] = {
    "RandomNormal": helper.make_node("RandomNormal", [], ["y"], shape=SHAPE, seed=3.0),
    "RandomUniform": helper.make_node("RandomUniform", [], ["y"], shape=SHAPE, seed=3.0),
    "RandomNormalLike": helper.make_node("RandomNormalLike", ["x"], ["y"], seed=3.0),
    "RandomUniformLike": helper.make_node("RandomUniformLike", ["x"], ["y"], seed=3.0),
    "Multinomial": helper.make_node("Multinomial", ["x"], ["y"], sample_size=100, seed=3.0),
}


def feeds() -> dict[str, Any]:
    return {"x": np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)}


def by_kind(model: Path, open_session: Any) -> dict[str, list[NodeResult]]:
    rows = check_model(load_model(model), feeds(), CheckRequest(open_session=open_session))
    kinds: dict[str, list[NodeResult]] = {"node": [], "output": []}
    for row in rows:
        if isinstance(row, NodeResult):
            kinds[row.kind].append(row)
    return kinds


class Deaf:
    """A runtime that does not hear the seed: every session draws anew."""

    generator = np.random.default_rng(1)
    info = SessionInfo({}, (), (), ())
    alive = True

    def __init__(self, file: Path, _options: RuntimeOptions) -> None:
        self._graph = onnx.load(file).graph

    def run(self, _feeds: Mapping[str, Any], _outputs: Sequence[str] | None = None) -> dict[str, Any]:
        names = [output.name for output in self._graph.output]
        return {name: self.generator.standard_normal(SHAPE).astype(np.float32) for name in names}

    def peak_memory_bytes(self) -> int:
        return 0

    def __enter__(self) -> Deaf:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("op_type", SEEDED)
def test_seed_that_draws_the_same_in_two_sessions_passes(op_type: str, worker: Worker, tmp_path: Path) -> None:
    element = INT32 if op_type == "Multinomial" else FLOAT
    model = saved(tmp_path / "model.onnx", [SEEDED[op_type]], element)
    (row,) = by_kind(model, worker.load)["node"]
    assert row.outcome is Outcome.PASSED, row.message
    assert "the same in two sessions" in row.message


def test_seed_that_is_not_heard_fails_in_check_and_in_a_case(tmp_path: Path) -> None:
    model = saved(tmp_path / "model.onnx", [SEEDED["RandomNormal"]])
    (row,) = by_kind(model, Deaf)["node"]
    drawn = Deaf(model, RuntimeOptions()).run({})
    case = CaseJudge(RuntimeOptions(), Deaf).judge(load_model(model), feeds(), drawn)
    for found in (row, case):
        assert found.outcome is Outcome.FAILED
        assert "seed = 3, and two sessions draw different numbers: 600 of 600 differ" in found.message


def test_draws_without_a_seed_may_differ(tmp_path: Path) -> None:
    model = saved(tmp_path / "model.onnx", [helper.make_node("RandomNormal", [], ["y"], shape=SHAPE)])
    (row,) = by_kind(model, Deaf)["node"]
    assert row.outcome is Outcome.PASSED, row.message


def test_second_session_that_fails_is_the_outcome(worker: Worker, tmp_path: Path) -> None:
    sessions = []

    def second_fails(file: Path, options: RuntimeOptions) -> Any:
        sessions.append(file)
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(b"no model")
        return worker.load(file if len(sessions) < 4 else broken, options)

    model = saved(tmp_path / "model.onnx", [SEEDED["RandomNormal"]])
    (row,) = by_kind(model, second_fails)["node"]
    assert row.outcome is Outcome.ERRORED


def test_output_that_is_drawn_is_judged_by_its_law_and_not_by_another_run(worker: Worker, tmp_path: Path) -> None:
    model = saved(tmp_path / "model.onnx", [helper.make_node("RandomNormal", [], ["y"], shape=SHAPE)])
    (row,) = by_kind(model, worker.load)["output"]
    assert (row.outcome, row.rule) == (Outcome.PASSED, "distribution")

    class Constant(Deaf):
        """The watched node draws; the model as it is returns its mean."""

        def run(self, _feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
            return {"y": np.zeros(SHAPE, np.float32)} if outputs is None else super().run(_feeds, outputs)

    kinds = by_kind(model, Constant)
    assert [row.outcome for row in kinds["node"]] == [Outcome.PASSED]
    assert [row.outcome for row in kinds["output"]] == [Outcome.FAILED]


def test_output_behind_draws_is_left_open_and_says_why(worker: Worker, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["e"], name="noise"),
        helper.make_node("Add", ["x", "e"], ["y"]),
    ]
    kinds = by_kind(saved(tmp_path / "model.onnx", nodes), worker.load)
    assert [row.outcome for row in kinds["node"]] == [Outcome.PASSED, Outcome.PASSED]
    (row,) = kinds["output"]
    assert row.outcome is Outcome.UNJUDGED
    assert "node noise draws random numbers" in row.message


def test_size_of_a_drawn_tensor_is_no_draw(worker: Worker, tmp_path: Path) -> None:
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["e"]), helper.make_node("Shape", ["e"], ["y"])]
    kinds = by_kind(saved(tmp_path / "model.onnx", nodes, onnx.TensorProto.INT64), worker.load)
    assert [row.outcome for row in kinds["output"]] == [Outcome.PASSED]


def merging(path: Path, *, distance: bool = True) -> Path:
    """The largest distance of two draws of x > 0, which an optimiser may take for one; or the second of them."""
    nodes = [
        helper.make_node("Clip", ["x", "low", "high"], ["p"]),
        helper.make_node("Bernoulli", ["p"], ["a"]),
        helper.make_node("Bernoulli", ["p"], ["b"]),
        helper.make_node("Sub", ["a", "b"], ["d"]),
        helper.make_node("Abs", ["d"], ["e"]),
        helper.make_node("ReduceMax", ["e"], ["y"], keepdims=0) if distance else helper.make_node("Neg", ["b"], ["y"]),
    ]
    model = onnx.load(saved(path, nodes))
    half = np.float32(0.5)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(half), name) for name in ("low", "high"))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("distance", "outcome"), [(True, Outcome.FAILED), (False, Outcome.UNJUDGED)])
def test_optimisation_that_changes_the_law_of_an_output_fails(distance: bool, outcome: Outcome, tmp_path: Path) -> None:
    (row,) = by_kind(merging(tmp_path / "m.onnx", distance=distance), open_session)["output"]
    assert row.outcome is outcome
    assert ("a graph optimisation changes what is drawn" in row.message) is distance


def test_runs_that_repeat_what_their_session_drew_first_prove_nothing() -> None:
    rng = np.random.default_rng(0)

    def sample(count: int, apart: bool) -> list[Any]:
        return list(rng.uniform(size=count)[:, None]) if apart else [rng.uniform(size=1)] * count

    row = NodeResult("y", "", "", ("y",), Outcome.UNJUDGED, kind="output")
    assert told_apart(sample(RUNS, False), sample(RUNS, False))
    assert judge_law(row, sample, sample) is row


@pytest.mark.parametrize("count", [24, 40])
def test_samples_of_one_law_are_not_told_apart(count: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        first, second = rng.standard_normal((2, count, 50))
        assert not told_apart(list(first), list(second))
    assert told_apart(list(first), list(second + 5))
