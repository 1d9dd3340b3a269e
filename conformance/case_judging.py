"""Judge what a runtime returned for a case: by the kernel where it is one node, by the float64 run where it is more."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError, MissingKernelError
from ..graphs.control_flow import Run
from ..graphs.evaluation import run_graph, start_values
from ..graphs.model import Model
from ..graphs.values import Value
from ..operators.storage import decode
from ..runtimes.session import RuntimeOptions
from .check import CheckRequest, check_model
from .model_outputs import OutputCase, judge_output
from .nodes import judge_node
from .oracle import Oracle
from .randomness import draws_from_a_seed, judge_repetition
from .results import RED, NodeResult, Outcome
from .watching import OpenSession


@dataclass(frozen=True)
class CaseJudge:
    """Judges the outputs of small models.

    Attributes:
        options: how the runtime is opened where a graph has to be looked into.
        open_session: opens it.
    """

    options: RuntimeOptions
    open_session: OpenSession
    described: Mapping[str, Any] = field(default_factory=dict)

    def judge(self, model: Model, feeds: Mapping[str, Any], outputs: Mapping[str, Any]) -> NodeResult:
        """The verdict on one run, as a row named after the model's only node or its first output.

        A single node is judged by its kernel and error scale. Of a graph the outputs are compared with a float64 run:
        what lies within a few half-units of it is right. For anything else every node is judged on the runtime's own
        tensors, as `onnx-arch check` does, and the guilty one is named.
        """
        if len(model.graph.nodes) == 1:
            return self._judge_single(model, feeds, outputs)
        near = _near_float64(model, feeds, outputs)
        if near is not None:
            return near
        rows = check_model(model, feeds, CheckRequest(options=self.options, open_session=self.open_session))
        return fold([row for row in rows if isinstance(row, NodeResult)])

    def _judge_single(self, model: Model, feeds: Mapping[str, Any], outputs: Mapping[str, Any]) -> NodeResult:
        node = model.graph.nodes[0]
        local = Oracle(model, feeds).local(node)
        returned = {spec.name for spec in model.graph.outputs}
        asked = dataclasses.replace(node, outputs=tuple(name if name in returned else "" for name in node.outputs))
        row = judge_node(asked, local, outputs)
        if not draws_from_a_seed(asked, local):
            return row

        def run() -> Mapping[str, Any]:
            with self.open_session(model.path, self.options) as session:
                return session.run(feeds)

        return judge_repetition(asked, local, row, run)


def _near_float64(model: Model, feeds: Mapping[str, Any], outputs: Mapping[str, Any]) -> NodeResult | None:
    """The row of a graph whose every output is what a float64 run gives, but for a few half-units; else None."""
    try:
        clean = run_graph(model.graph, start_values(model.graph, feeds), Run(clean=True))
    except (MissingKernelError, InvalidInputError, InvalidAttributeError):
        return None
    rows = []
    for spec, value in zip(model.graph.outputs, clean, strict=True):
        for name, actual, expected in _tensors(spec.name, outputs.get(spec.name), value):
            rows.append(judge_output(_output_case(name, actual, expected)))
    if not all(row.outcome is Outcome.PASSED for row in rows):
        return None
    return fold(rows)


def _tensors(name: str, actual: Any, clean: Value) -> Iterator[tuple[str, Any, Value]]:
    """An output, or the items of a sequence where both have as many."""
    expected = clean.data
    if isinstance(expected, list) and isinstance(actual, list) and len(actual) == len(expected):
        for index, (item, reference) in enumerate(zip(actual, expected, strict=True)):
            yield f"{name}[{index}]", item, Value(reference, clean.dtype)
    else:
        yield name, actual, clean


def _output_case(name: str, actual: Any, clean: Value) -> OutputCase:
    data = decode(clean.data) if isinstance(clean.data, np.ndarray) else clean.data
    # No spread: only what needs no propagated error passes here.
    none = np.zeros(np.shape(data)) if isinstance(data, np.ndarray) else None
    return OutputCase(name, actual, None, data, clean.dtype, None, nodes_passed=False, spread=lambda: none)


def fold(rows: Sequence[NodeResult]) -> NodeResult:
    """One row for a graph: its worst outcome with the node that has it, the figures of its outputs."""
    outputs = [row for row in rows if row.kind == "output"]
    red = next((row for row in rows if row.outcome in RED), None)
    unjudged = next((row for row in rows if row.outcome in (Outcome.UNJUDGED, Outcome.SKIPPED)), None)
    worst = red or unjudged
    shown = worst if worst is not None else max(outputs, key=lambda row: row.rms_z or 0.0, default=None)
    if shown is None:
        return NodeResult("", "", "", (), Outcome.UNJUDGED, message="the graph has no output")
    where = f"node {shown.node} ({shown.op_type}): " if shown.kind == "node" else ""
    several = f"output {shown.node}: " if shown.kind == "output" and len(outputs) > 1 and shown.message else ""
    return dataclasses.replace(
        shown,
        outcome=shown.outcome if worst is not None else Outcome.PASSED,
        message=f"{where or several}{shown.message}",
        outputs=tuple(row.node for row in outputs),
        shapes=tuple(shape for row in outputs for shape in row.shapes),
        dtypes=tuple(dtype for row in outputs for dtype in row.dtypes),
    )
