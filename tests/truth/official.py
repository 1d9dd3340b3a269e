"""ONNX's own test data, judged: node tests, the `simple`, `pytorch-operator`, `pytorch-converted` and light models.

What is judged is ONNX's expected output, as if a runtime had returned it, by our rule: a single node by its error
scale, a graph of several nodes by what the roundings of all its nodes add up to.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_arch.conformance.model_outputs import OutputCase, judge_output
from onnx_arch.conformance.nodes import judge_node
from onnx_arch.conformance.oracle import Oracle
from onnx_arch.conformance.results import NodeResult, Outcome
from onnx_arch.errors import MissingKernelError, OnnxArchError
from onnx_arch.graphs.evaluation import evaluate_model, propagated_spread
from onnx_arch.graphs.feeds import required_inputs
from onnx_arch.graphs.loading import load_model
from onnx_arch.graphs.model import Model
from onnx_arch.graphs.test_data import find_test_data, read_test_data

SUITES = ("node", "simple", "pytorch-operator", "pytorch-converted", "light")
LIGHT = "real"
"""How onnx calls the suite of light models."""

RANDOM = {
    *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
}

NOTHING = "nothing to compare"


@dataclass(frozen=True)
class Official:
    """One test of ONNX.

    Attributes:
        suite: one of SUITES.
        test: as onnx's loader gives it.
    """

    suite: str
    test: Any

    @property
    def name(self) -> str:
        """Of the test."""
        return self.test.name


@cache
def official(suite: str) -> tuple[Official, ...]:
    """The tests of a suite in ONNX's order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX computes log(0) and the like while collecting
        from onnx.backend.test.loader import load_model_tests  # noqa: PLC0415 (takes seconds)

        tests = load_model_tests(kind=LIGHT if suite == "light" else suite)
    return tuple(Official(suite, test) for test in tests)


Data = tuple[dict[str, Any], dict[str, Any]]
"""Feeds and expected outputs by name."""


def opened(case: Official, folder: Path) -> tuple[Model, list[Data]]:
    """The model of a test and its data sets; `folder` takes what has to be written."""
    if case.suite == "light":
        return _light(case)
    if case.test.model_dir is None:
        path = folder / "model.onnx"
        path.write_bytes(case.test.model.SerializeToString())
        model = load_model(path)
        return model, [_by_name(case.test.model, *data) for data in case.test.data_sets]
    model = load_model(Path(case.test.model_dir) / "model.onnx")
    return model, [read_test_data(model, data) for data in find_test_data(Path(case.test.model_dir))]


def _by_name(proto: onnx.ModelProto, inputs: Any, outputs: Any) -> Data:
    pairs = (zip(proto.graph.input, inputs, strict=False), zip(proto.graph.output, outputs, strict=False))
    feeds, expected = ({spec.name: stored(value) for spec, value in pair} for pair in pairs)
    return feeds, expected


def stored(value: Any) -> Any:
    """A tensor, sequence or optional of a test as arrays."""
    if isinstance(value, list):
        return [stored(item) for item in value]
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, onnx.SequenceProto):
        return numpy_helper.to_list(value)
    if isinstance(value, onnx.OptionalProto):
        return numpy_helper.to_optional(value)
    return None if value is None else np.asarray(value)


def _light(case: Official) -> tuple[Model, list[Data]]:
    """A light model: the inputs are i / n, as onnx's runner feeds it, the outputs lie beside the model."""
    path = Path(onnx.__file__).parent / case.test.url.removeprefix("onnx/")
    model, feeds = load_model(path), {}
    for spec in required_inputs(model):
        shape = tuple(dim if isinstance(dim, int) else 1 for dim in spec.shape or ())
        count = int(np.prod(shape))
        feeds[spec.name] = (np.arange(count).reshape(shape) / count).astype(np.float32)
    expected = {
        spec.name: numpy_helper.to_array(onnx.load_tensor(f"{path.with_suffix('')}_output_{index}.pb"))
        for index, spec in enumerate(model.graph.outputs)
    }
    return model, [(feeds, expected)]


@dataclass(frozen=True)
class Judged:
    """One output of one test.

    Attributes:
        case: the test.
        output: its name.
        outcome: PASSED, FAILED, UNJUDGED; ERRORED where our side raises.
        text: the numbers, or why.
    """

    case: Official
    output: str
    outcome: Outcome
    text: str


def judged(case: Official) -> list[Judged]:
    """Every output of a test, judged."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            model, data = opened(case, Path(folder))
            return [row for feeds, expected in data for row in _judged(case, model, feeds, expected)]
        except MissingKernelError as error:
            return [Judged(case, "", Outcome.UNJUDGED, str(error))]
        except OnnxArchError as error:
            return [Judged(case, "", Outcome.ERRORED, f"{type(error).__name__}: {error}")]


def _judged(case: Official, model: Model, feeds: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Judged]:
    if len(model.graph.nodes) == 1:
        (node,) = model.graph.nodes
        row = judge_node(node, Oracle(model, feeds).local(node), expected)
        yield Judged(case, ", ".join(expected), row.outcome, row.message)
        return
    random = sorted({node.op_type for node in model.graph.nodes} & RANDOM)
    if random:
        text = f"{', '.join(random)} draws numbers inside the graph: no element is determined"
        yield Judged(case, ", ".join(expected), Outcome.UNJUDGED, text)
        return
    clean = evaluate_model(model, feeds)
    spread = _Spread(model, feeds)
    for name, value in expected.items():
        rows = list(_output_rows(name, value, clean[name], spread))
        worst = next((row for row in rows if row.outcome is not Outcome.PASSED), rows[0] if rows else None)
        if worst is None:
            yield Judged(case, name, Outcome.PASSED, NOTHING)
        else:
            yield Judged(case, name, worst.outcome, worst.message)


MANY_INPUTS, FEW = 100_000, 1
"""Of a network one perturbed run is enough: it has a thousand outputs, and a run takes seconds."""


class _Spread:
    """How far roundings move the outputs, computed once and only if asked for."""

    def __init__(self, model: Model, feeds: Mapping[str, Any]) -> None:
        self._of = (model, feeds)
        self._known: dict[str, Any] | None = None

    def __call__(self, name: str) -> Any:
        if self._known is None:
            model, feeds = self._of
            few = max((np.size(x) for x in feeds.values()), default=0) > MANY_INPUTS
            self._known = propagated_spread(model, feeds, samples=FEW if few else 4)
        return self._known[name]


def _output_rows(name: str, expected: Any, clean: Any, spread: _Spread) -> Iterator[NodeResult]:
    if isinstance(expected, list) or expected is None:
        same = isinstance(clean, list) and expected is not None and len(clean) == len(expected)
        if not (same or (expected is None and clean is None)):
            raise OnnxArchError(f"output {name}: {type(clean).__name__}, expected {type(expected).__name__}")
        for item, own in zip(expected or (), clean or (), strict=True):
            yield judge_output(OutputCase(name, item, None, own, item.dtype, None, True, lambda own=own: 0 * own))
        return
    known = np.asarray(clean)
    yield judge_output(OutputCase(name, expected, None, known, None, None, True, lambda: spread(name)))
