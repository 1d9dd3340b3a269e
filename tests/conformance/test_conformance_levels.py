"""The optimiser that makes an untouched graph wrong is found by leaving optimisers out."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_arch.conformance.check import CheckRequest, check_model
from onnx_arch.conformance.levels import Untouched, guilty_optimization
from onnx_arch.conformance.model_outputs import OutputCase, judge_output
from onnx_arch.conformance.results import NodeResult, Outcome
from onnx_arch.errors import InvalidArgumentError, RaisedByRuntimeError
from onnx_arch.graphs.consumers import moved_only
from onnx_arch.graphs.feeds import random_feeds
from onnx_arch.graphs.loading import load_model
from onnx_arch.graphs.model import Model
from onnx_arch.runtimes.process import open_session
from onnx_arch.runtimes.session import OPTIMIZATIONS, RuntimeOptions

from .command_models import Command, graph_model, json_lines, save_model, small_model

FINDINGS = Path(__file__).parents[2] / "findings"
NAMES = (
    "ConstantFolding",
    "CommonSubexpression",
    "GeluFusion",
    "LayerNormFusion",
    "MatMulAddFusion",
    "NchwcTransformer",
)
RIGHT = np.array([1.0, 2.0])
WRONG = np.array([1.0, 2.5], np.float32)


class Optimizing:
    """A runtime that is wrong while all of `guilty` are on and the level is at least `level`."""

    def __init__(
        self, guilty: Sequence[str], level: str = "basic", *, tells: bool = True, refuses: bool = False
    ) -> None:
        self.guilty, self.level, self.tells, self.refuses = set(guilty), level, tells, refuses
        self.opened = 0

    @contextmanager
    def __call__(self, _path: Path, options: RuntimeOptions) -> Iterator[Any]:
        self.opened += 1
        if self.refuses and options.disabled_optimizers:
            raise RaisedByRuntimeError("no such optimiser")
        if not self.tells and options.extra:
            raise InvalidArgumentError("extra: nothing is known")
        yield OptimizedSession(self, options)


class OptimizedSession:
    def __init__(self, runtime: Optimizing, options: RuntimeOptions) -> None:
        self.runtime, self.options = runtime, options

    def run(self, _feeds: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        high = OPTIMIZATIONS.index(self.options.optimization) >= OPTIMIZATIONS.index(self.runtime.level)
        wrong = high and not self.runtime.guilty & set(self.options.disabled_optimizers)
        return {name: WRONG if wrong else RIGHT.astype(np.float32) for name in outputs}

    def log(self) -> str:
        lines = [f"[I] GraphTransformer {name} modified: 1 with status: OK" for name in NAMES]
        return "\n".join([*lines, "[I] GraphTransformer ReluQuantFusion modified: 0 with status: OK"])


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load_model(save_model(small_model(2), tmp_path / "small.onnx"))


def wrong_output() -> OutputCase:
    return OutputCase(
        "y", WRONG, RIGHT.astype(np.float32), RIGHT, np.dtype(np.float32), None, True, lambda: np.zeros(2)
    )


def untouched(model: Model, runtime: Optimizing, **options: Any) -> Untouched:
    return Untouched(model, {}, RuntimeOptions(**options), runtime, wrong_output())


@pytest.mark.parametrize("guilty", NAMES)
def test_guilty_optimizer_is_named_with_what_to_do(guilty: str, model: Model) -> None:
    blame = guilty_optimization(untouched(model, Optimizing([guilty], "extended")))
    assert blame.cure == {"disabled_optimizers": [guilty]}
    assert blame.text.startswith(f"{guilty} makes it wrong; right with --disable-optimizer {guilty} ")
    assert "--optimization basic" in blame.text


@pytest.mark.parametrize("rule", ["EliminateSlice", "NoopElimination"])
def test_rule_of_a_collection_is_named_where_the_log_tells_the_collection(rule: str, model: Model) -> None:
    collection = "Level1_RuleBasedTransformer"

    class Rules(OptimizedSession):
        def run(self, feeds: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
            right = {rule, collection} & set(
                self.options.disabled_optimizers
            ) or self.options.optimization == "disabled"
            return {name: RIGHT.astype(np.float32) if right else WRONG for name in outputs}

        def log(self) -> str:
            return f"[I] GraphTransformer {collection} modified: 1 with status: OK"

    @contextmanager
    def opened(_path: Path, options: RuntimeOptions) -> Iterator[Any]:
        yield Rules(Optimizing([]), options)

    found = guilty_optimization(Untouched(model, {}, RuntimeOptions(), opened, wrong_output()))
    assert found.cure == {"disabled_optimizers": [rule]}


def test_optimizer_that_takes_the_place_of_another_is_named_with_it(model: Model) -> None:
    class Again(OptimizedSession):
        def run(self, feeds: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
            off = set(self.options.disabled_optimizers)
            right = {"TransposeFirst", "TransposeAgain"} <= off or self.options.optimization == "disabled"
            return {name: RIGHT.astype(np.float32) if right else WRONG for name in outputs}

        def log(self) -> str:
            working = "TransposeAgain" if "TransposeFirst" in self.options.disabled_optimizers else "TransposeFirst"
            return f"[I] GraphTransformer {working} modified: 1 with status: OK"

    @contextmanager
    def opened(_path: Path, options: RuntimeOptions) -> Iterator[Any]:
        yield Again(Optimizing([]), options)

    found = guilty_optimization(Untouched(model, {}, RuntimeOptions(), opened, wrong_output()))
    assert found.cure == {"disabled_optimizers": ["TransposeFirst", "TransposeAgain"]}


def test_two_optimizers_that_are_each_wrong_are_both_named(model: Model) -> None:
    class Either(OptimizedSession):
        def run(self, feeds: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
            off = set(self.options.disabled_optimizers)
            right = {"GeluFusion", "NchwcTransformer"} <= off or self.options.optimization == "disabled"
            return {name: RIGHT.astype(np.float32) if right else WRONG for name in outputs}

    @contextmanager
    def opened(_path: Path, options: RuntimeOptions) -> Iterator[Any]:
        yield Either(Optimizing([]), options)

    found = guilty_optimization(Untouched(model, {}, RuntimeOptions(), opened, wrong_output()))
    assert found.cure == {"disabled_optimizers": ["GeluFusion", "NchwcTransformer"]}


@pytest.mark.parametrize("how", [{"tells": False}, {"refuses": True}], ids=lambda how: next(iter(how)))
def test_runtime_that_names_no_optimizers_leaves_the_level(how: dict[str, bool], model: Model) -> None:
    blame = guilty_optimization(untouched(model, Optimizing(["GeluFusion"], "extended", **how)))
    assert blame.cure == {"optimization": "basic"}
    assert "wrong from 'extended' on" in blame.text


GUILTY = {
    "slice-steps-without-axes": "EliminateSlice",
    "range-gather-backward": "GatherToSliceFusion",
    "integer-product-in-double": "MatMulIntegerToFloatFusion",
    "integer-product-of-one-column-crashes": "MatMulIntegerToFloatFusion",
    "scales-behind-product-overflow": "MatMulScaleFusion",
    "transposed-block-scales": "TransposeOptimizer with TransposeOptimizer_CPUExecutionProvider",
    "quantized-where-axis": "QDQSelectorActionTransformer",
    "quantized-average-of-one-channel": "QDQSelectorActionTransformer",
    "skip-layernorm-axis": "SkipLayerNormFusion",
    "relu-clip-double": "FuseReluClip",
}


@pytest.mark.parametrize("slug", GUILTY)
def test_optimizer_of_a_finding_is_named(slug: str) -> None:
    (folder,) = FINDINGS.glob(f"*-ort-{slug}")
    rows = [
        row for row in check_model(load_model(folder / "model.onnx"), feeds_of(folder)) if isinstance(row, NodeResult)
    ]
    assert rows[-1].outcome in {Outcome.FAILED, Outcome.ERRORED, Outcome.CRASHED}
    assert f"{GUILTY[slug]} makes it wrong" in rows[-1].message


def feeds_of(folder: Path) -> Mapping[str, Any]:
    spec = importlib.util.spec_from_file_location("repro", folder / "repro.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FEEDS


def test_graph_that_is_wrong_at_every_level_blames_no_optimizer(model: Model) -> None:
    assert "at every optimisation level" in guilty_optimization(untouched(model, Optimizing(NAMES, "disabled"))).text


def test_what_cures_one_output_is_tried_on_the_next(model: Model) -> None:
    runtime = Optimizing(["GeluFusion"])
    first = guilty_optimization(untouched(model, runtime))
    opened = runtime.opened
    assert guilty_optimization(untouched(model, runtime), [first]) == first
    assert runtime.opened == opened + 1


def test_optimizers_that_were_off_stay_off(model: Model) -> None:
    options = {"disabled_optimizers": ("ConstantFolding",)}
    blame = guilty_optimization(untouched(model, Optimizing(["GeluFusion"]), **options))
    assert blame.cure == {"disabled_optimizers": ["ConstantFolding", "GeluFusion"]}


def int8_weights(folder: Path) -> Path:
    """DequantizeLinear of int8 weights, MatMul: ONNX Runtime fuses both and rounds the other factor to int8."""
    rng = np.random.default_rng(5)
    weights = {
        "w": rng.integers(-128, 128, (128, 32)).astype(np.int8),
        "s": (rng.uniform(0.5, 1.5, (4, 32)) / 128).astype(np.float32),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0, block_size=32),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6, 128])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), folder / "int8.onnx"
    )


def test_fusion_of_onnxruntime_is_named(tmp_path: Path) -> None:
    model = load_model(int8_weights(tmp_path))
    rows = [row for row in check_model(model, random_feeds(model), CheckRequest()) if isinstance(row, NodeResult)]
    assert {row.node: row.outcome for row in rows} == {
        "DequantizeLinear_0": Outcome.PASSED,
        "MatMul_0": Outcome.PASSED,
        "y": Outcome.FAILED,
    }
    assert "QDQSelectorActionTransformer makes it wrong" in rows[-1].message


@pytest.mark.parametrize("slug", ["transposed-pad-axes", "transposed-resize-axes"])
def test_optimisation_that_makes_a_graph_fail_is_named(slug: str) -> None:
    (file,) = FINDINGS.glob(f"*-ort-{slug}/model.onnx")
    model = load_model(file)
    rows = [row for row in check_model(model, random_feeds(model), CheckRequest()) if isinstance(row, NodeResult)]
    assert [row.outcome for row in rows] == [Outcome.PASSED] * 3 + [Outcome.ERRORED]
    assert "every node is right when watched: TransposeOptimizer" in rows[-1].message


def test_disabled_optimizer_is_left_out_and_recorded(check: Command, tmp_path: Path) -> None:
    file, result = int8_weights(tmp_path), tmp_path / "result.jsonl"
    words = [file, "--disable-optimizer", "QDQSelectorActionTransformer", "--json", result, "--quiet"]
    assert check(*words) == (0, "", "")
    assert '"disabled_optimizers": ["QDQSelectorActionTransformer"]' in result.read_text()


def tied_sum(folder: Path) -> Path:
    """A quantised sum of steps of 0.05 in steps of 0.1: half of all sums lie in the middle between two steps."""
    nodes = [
        helper.make_node("QuantizeLinear", ["a", "step", "zero"], ["qa"]),
        helper.make_node("DequantizeLinear", ["qa", "step", "zero"], ["da"]),
        helper.make_node("QuantizeLinear", ["b", "step", "zero"], ["qb"]),
        helper.make_node("DequantizeLinear", ["qb", "step", "zero"], ["db"]),
        helper.make_node("Add", ["da", "db"], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "coarse", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "coarse", "zero"], ["y"]),
    ]
    weights = {"step": np.float32(0.05), "coarse": np.float32(0.1), "zero": np.int8(3)}
    graph = helper.make_graph(
        nodes,
        "tied",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 25]) for name in ("a", "b")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 25])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "tied.onnx"
    )


@pytest.mark.parametrize("step", [0, 1])
def test_steps_that_rounding_alone_decides_are_no_fault_and_ten_steps_are(step: int, tmp_path: Path) -> None:
    model = load_model(tied_sum(tmp_path))
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal((4, 25)).astype(np.float32) for name in ("a", "b")}

    @contextmanager
    def shifted(path: Path, options: RuntimeOptions) -> Iterator[Any]:
        with open_session(path, options) as session:
            yield Shifted(session, step)

    request = CheckRequest(open_session=shifted)
    rows = [row for row in check_model(model, feeds, request) if isinstance(row, NodeResult)]
    assert rows[-1].outcome is (Outcome.FAILED if step else Outcome.PASSED), rows[-1].message


class Shifted:
    """A session whose untouched graph returns one element ten steps of 0.1 off."""

    def __init__(self, session: Any, step: int) -> None:
        self.session, self.step, self.info = session, step, session.info

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        values = self.session.run(feeds, outputs)
        if outputs is None and self.step:
            values = {"y": values["y"].copy()}
            values["y"][0, 0] += np.float32(1)
        return values

    def peak_memory_bytes(self) -> int:
        return self.session.peak_memory_bytes()


def casts(folder: Path, between: str) -> Path:
    """float32 → float16 → float32, and a node between; 1 + 2⁻¹² becomes 1, and 10⁶ overflows."""
    half, back = (helper.make_node("Cast", [a], [b], to=t) for a, b, t in (("x", "h", 10), ("i", "y", 1)))
    nodes = [half, helper.make_node(between, ["h"], ["i"]), back]
    return save_model(graph_model(nodes, {"x": [2]}, ["y"], {}), folder / "casts.onnx")


def test_outputs_behind_nothing_but_casts_and_moves_are_known(tmp_path: Path) -> None:
    assert moved_only(load_model(casts(tmp_path, "Identity")).graph) == {"h", "i", "y"}
    assert moved_only(load_model(casts(tmp_path, "Abs")).graph) == {"h"}


def test_casts_that_a_runtime_left_out_fail(tmp_path: Path) -> None:
    x = np.array([1 + 2**-12, 1e6], np.float32)
    rounded = np.array([1.0, np.inf], np.float32)
    case = OutputCase("y", x, rounded, x.astype(np.float64), x.dtype, None, True, lambda: np.ones(2), moved=True)
    row = judge_output(case)
    assert row.outcome is Outcome.FAILED
    assert "2 of 2 elements" in row.message
    assert judge_output(dataclasses.replace(case, actual=rounded)).outcome is Outcome.PASSED


def test_casts_that_a_runtime_computes_pass(check: Command, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array([1 + 2**-12, 1e6], np.float32))
    status, out, _ = check(casts(tmp_path, "Identity"), "--inputs", tmp_path / "x.npz", "--json", "-")
    assert status == 0
    assert [row["rule"] for row in json_lines(out) if row["kind"] == "output"] == ["exact"]
