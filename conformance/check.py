"""Check a model: judge every node of a runtime against the oracle, and the untouched model's own outputs.

for record in check_model(model, feeds, CheckRequest(options=RuntimeOptions(optimization="all"))):
    ...   # Header, then a NodeResult per node as it is judged, then one per model output, then Footer
"""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInputError, MissingKernelError, RuntimeFailure, RuntimeUnavailableError
from ..graphs.consumers import moved_only
from ..graphs.evaluation import captured_names, evaluate_model, free_values, last_uses, propagated_spread
from ..graphs.loading import BUNDLE_MODEL, model_name
from ..graphs.memory import available_memory, ensure_fits
from ..graphs.model import Model, Node
from ..operators.scale import Array
from ..runtimes.environment import describe
from ..runtimes.process import open_session
from ..runtimes.session import OPTIMIZATIONS, RuntimeOptions
from .levels import Blame, Untouched, guilty_optimization
from .model_outputs import OutputCase, judge_output
from .nodes import failed_node, judge_node, one_line, outcome_of, skipped_node
from .oracle import Local, Oracle
from .randomness import Draws, Sample, draws_from_a_seed, judge_law, judge_repetition, may_draw
from .results import RED, Footer, Header, NodeResult, Outcome, count_outcomes
from .unrounded import Unrounded
from .watching import Observation, OpenSession, Watcher

Record = Header | NodeResult | Footer

SEGMENT_SHARE = 8
"""A segment may return an eighth of the available memory: twice over the pipe, once decoded, and room to spare."""

SMALLEST_SEGMENT = 256 << 20

FEW, MANY = 4, 64
"""Perturbed runs. What a quantised value becomes in the middle between two steps, rounding alone decides: of 64 runs
none is on the other side once in 10^19, of 4 once in 16."""

SMALL_WORK = 1 << 18
"""Elements read times nodes, up to which many runs take no more than a second or two."""


def _nothing(_header: Header) -> Mapping[str, NodeResult]:
    return {}


@dataclass(frozen=True)
class CheckRequest:
    """How a model is checked.

    Attributes:
        options: the runtime and how it loads the model.
        source: where the inputs are from ("random", a file's name, …) and their seed; recorded in the header.
        command: the words of the command; recorded in the header.
        earlier: given the header, the rows of an interrupted run that are taken over.
        segment_bytes: how many bytes of tensors the runtime may return at once; None takes a share of the memory.
        open_session: how sessions are started; tests replace it.
    """

    options: RuntimeOptions = field(default_factory=RuntimeOptions)
    source: Mapping[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    earlier: Callable[[Header], Mapping[str, NodeResult]] = _nothing
    segment_bytes: int | None = None
    open_session: OpenSession = open_session


@dataclass(frozen=True)
class OwnRun:
    """What the model's own session returned, or how it failed; what it said of itself; its peak memory."""

    outputs: Mapping[str, Any]
    failure: RuntimeFailure | None
    versions: Mapping[str, str]
    peak_memory_bytes: int


def check_model(model: Model, feeds: Mapping[str, Any], request: CheckRequest | None = None) -> Iterator[Record]:
    """Judge every node of a model, and its outputs, in a runtime.

    Args:
        model: a loaded model.
        feeds: its inputs, stored, by name.
        request: how; by default ONNX Runtime on this machine's CPU with all optimisations.

    Yields:
        The header, a row per node in graph order as it is judged, a row per model output, the footer.

    Raises:
        InvalidModelError: the model does not fit into the memory.
        InvalidInputError: the inputs (a batch of size zero) make every output empty.
        RuntimeUnavailableError: the runtime, or the provider asked for, is not there.
        StreamError: an earlier run cannot be continued.
    """
    request = request or CheckRequest()
    ensure_fits(model, feeds)
    started = time.monotonic()
    untouched = _run_untouched(model, feeds, request)
    _refuse_nothing(model, feeds, untouched)
    header = _header(model, request, untouched)
    earlier = request.earlier(header)
    yield header
    rows: list[NodeResult] = []
    with tempfile.TemporaryDirectory(prefix="onnx-arch-") as folder:
        walk = _Walk(model, feeds, request, Path(folder), dict(earlier))
        for row in walk.rows():
            rows.append(row)
            yield row
        for row in _output_rows(walk, untouched, rows):
            rows.append(row)
            yield row
    yield _footer(rows, started, max(untouched.peak_memory_bytes, walk.watcher.peak_memory_bytes))


def _run_untouched(model: Model, feeds: Mapping[str, Any], request: CheckRequest) -> OwnRun:
    try:
        with request.open_session(model.path, request.options) as session:
            try:
                outputs = session.run(feeds)
            except RuntimeFailure as failure:
                return OwnRun({}, failure, session.info.versions, 0)
            return OwnRun(outputs, None, session.info.versions, session.peak_memory_bytes())
    except RuntimeUnavailableError:
        raise
    except RuntimeFailure as failure:
        return OwnRun({}, failure, {}, 0)


def _refuse_nothing(model: Model, feeds: Mapping[str, Any], untouched: OwnRun) -> None:
    """A zero-size batch leaves nothing to judge: saying that it is green would be a lie."""
    if not _all_empty(untouched.outputs.values()):
        return
    with contextlib.suppress(MissingKernelError, InvalidInputError):
        if not _all_empty(evaluate_model(model, feeds).values()):
            return  # that they are empty is wrong
    shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in list(untouched.outputs.items())[:3])
    raise InvalidInputError(f"with these inputs every output is empty ({shapes}): there is nothing to judge")


def _all_empty(outputs: Collection[Any]) -> bool:
    return bool(outputs) and all(isinstance(value, np.ndarray) and value.size == 0 for value in outputs)


def _header(model: Model, request: CheckRequest, untouched: OwnRun) -> Header:
    options = request.options
    return Header(
        command=request.command,
        model=model_name(model.path) if model.path.name == BUNDLE_MODEL else model.path.name,
        model_sha256=model.sha256,
        environment={**describe(), "runtime_versions": dict(untouched.versions)},
        options={
            "runtime": Path(options.runtime).name,
            "provider": options.provider,
            "optimization": options.optimization,
            "threads": options.threads,
            **({"runtime_options": dict(options.extra)} if options.extra else {}),
            **({"disabled_optimizers": list(options.disabled_optimizers)} if options.disabled_optimizers else {}),
            "opsets": {domain or "ai.onnx": version for domain, version in model.opsets.items()},
            **request.source,
        },
        nodes=len(model.graph.nodes) + len(model.graph.outputs),
    )


@dataclass
class _Walk:
    """One pass over the nodes: runtime and oracle in step, tensors freed after their last use."""

    model: Model
    feeds: Mapping[str, Any]
    request: CheckRequest
    folder: Path
    earlier: dict[str, NodeResult]
    magnitudes: dict[str, Array] = field(default_factory=dict)
    dtypes: dict[str, np.dtype[Any] | None] = field(default_factory=dict)
    unrounded: Unrounded = field(default_factory=Unrounded)
    draws: Draws = field(default_factory=Draws)

    @cached_property
    def oracle(self) -> Oracle:
        return Oracle(self.model, self.feeds)

    @cached_property
    def watcher(self) -> Watcher:
        budget = self.request.segment_bytes or max(SMALLEST_SEGMENT, available_memory() // SEGMENT_SHARE)
        request = self.request
        return Watcher(self.model, self.feeds, request.options, self.folder, request.open_session, budget)

    @cached_property
    def output_names(self) -> frozenset[str]:
        return frozenset(spec.name for spec in self.model.graph.outputs)

    def rows(self) -> Iterator[NodeResult]:
        uses = last_uses(self.model.graph)
        for observation in self.watcher.observe(self.oracle.actual):
            yield self._row(observation)
            node = observation.node
            free_values(self.oracle.actual, node, uses)
            free_values(self.oracle.clean, node, uses)
            free_values(self.unrounded.readings, node, uses)

    def _row(self, observation: Observation) -> NodeResult:
        node = observation.node
        absent = self.oracle.missing(node)
        if absent:
            self.oracle.advance(node, Local(None, (), None), {})
            return skipped_node(node, absent)
        local = self.oracle.local(node, scaled=self._needs_scales(observation))
        row = self._verdict(observation, local)
        inherited = self.oracle.advance(node, local, observation.outputs)
        self._remember(node, local)
        self.draws.note(node, local, captured_names(node))
        gaps = [gap for gap in inherited.values() if gap is not None]
        return dataclasses.replace(row, inherited_max_abs=max(gaps, default=None))

    def _verdict(self, observation: Observation, local: Local) -> NodeResult:
        node, known = observation.node, self.earlier.get(observation.node.name)
        if observation.failure is not None:
            return failed_node(node, observation.failure) if known is None else known
        row = judge_node(node, local, observation.outputs) if known is None or self._narrow(node) else known
        if known is None and draws_from_a_seed(node, local):
            return judge_repetition(node, local, row, lambda: self.watcher.run_alone(node, self.oracle.actual))
        return self.unrounded.reconsider(node, local, row, observation.outputs, self.oracle.actual)

    def _narrow(self, node: Node) -> bool:
        return self.unrounded.concerns(node, self.oracle.actual)

    def _needs_scales(self, observation: Observation) -> bool:
        node = observation.node
        judged = (node.name not in self.earlier or self._narrow(node)) and observation.failure is None
        return judged or may_draw(node) or any(name in self.output_names for name in node.outputs)

    def _remember(self, node: Node, local: Local) -> None:
        """Keep what judging the model's outputs needs of the node that computes one."""
        for index, name in enumerate(node.outputs):
            if name in self.output_names and index < len(local.outputs):
                self.dtypes[name] = local.outputs[index].dtype
                if local.scales is not None and index < len(local.scales):
                    self.magnitudes[name] = local.scales[index].magnitude

    def is_small(self) -> bool:
        """Whether many runs take no more than a second or two."""
        tensors = (*self.model.graph.initializers.values(), *self.feeds.values())
        return sum(np.size(tensor) for tensor in tensors) * len(self.model.graph.nodes) <= SMALL_WORK

    @cached_property
    def moved(self) -> frozenset[str]:
        return moved_only(self.model.graph)

    @cached_property
    def spreads(self) -> Mapping[str, Array] | None:
        """The propagated deviation of every output by Monte-Carlo arithmetic; None where a kernel is missing."""
        try:
            return propagated_spread(self.model, self.feeds, samples=MANY if self.is_small() else FEW)
        except (MissingKernelError, InvalidInputError):
            return None


QUICK_FAILURES = frozenset({Outcome.ERRORED, Outcome.CRASHED, Outcome.UNSUPPORTED})
"""Of the untouched graph, where its nodes are right: worth looking for an optimisation; a hang takes too long."""


def _output_rows(walk: _Walk, untouched: OwnRun, rows: list[NodeResult]) -> Iterator[NodeResult]:
    passed = not any(row.outcome in RED for row in rows)
    blames: list[Blame] = []
    for spec in walk.model.graph.outputs:
        if untouched.failure is not None:
            row = _failed_output(spec.name, untouched.failure)
            if passed and row.outcome in QUICK_FAILURES and spec.name not in walk.oracle.borrowed:
                row = _blamed(row, walk, _case(walk, spec.name, None, passed), blames)
            yield row
            continue
        if spec.name in walk.oracle.borrowed:
            yield _unjudged_output(spec.name, untouched.outputs.get(spec.name), walk.oracle.borrowed[spec.name])
            continue
        drawn = walk.draws.judge_output(spec.name, untouched.outputs.get(spec.name))
        if drawn is not None:
            yield _law_compared(drawn, walk) if passed and drawn.outcome is Outcome.UNJUDGED else drawn
            continue
        case = _case(walk, spec.name, untouched.outputs.get(spec.name), passed)
        row = judge_output(case)
        if row.outcome is Outcome.FAILED:
            row = _blamed(row, walk, case, blames)
        yield row


def _law_compared(row: NodeResult, walk: _Walk) -> NodeResult:
    """An output that follows from draws: no optimisation may change its law. Of large graphs it takes too many runs."""
    request = walk.request
    seeded = any(node.attributes.get("seed") is not None for node in walk.model.graph.nodes)
    if seeded or request.options.optimization == OPTIMIZATIONS[0] or not walk.is_small():
        return row

    def sample(options: RuntimeOptions) -> Sample:
        def draw(runs: int) -> list[Any]:
            with request.open_session(walk.model.path, options) as session:
                return [session.run(walk.feeds, [row.node])[row.node] for _ in range(runs)]

        return lambda count, apart: [x for _ in range(count) for x in draw(1)] if apart else draw(count)

    written = dataclasses.replace(request.options, optimization=OPTIMIZATIONS[0])
    return judge_law(row, sample(request.options), sample(written))


def _case(walk: _Walk, name: str, actual: Any, passed: bool) -> OutputCase:
    clean = walk.oracle.clean[name]

    def spread() -> Array | None:
        return None if walk.spreads is None else walk.spreads.get(name)

    return OutputCase(
        name=name,
        actual=actual,
        watched=walk.oracle.actual[name],
        clean=clean.data,
        dtype=walk.dtypes.get(name, clean.dtype),
        magnitude=walk.magnitudes.get(name),
        nodes_passed=passed,
        moved=name in walk.moved,
        spread=spread,
    )


def _failed_output(name: str, failure: RuntimeFailure) -> NodeResult:
    return NodeResult(
        node=name,
        op_type="",
        domain="",
        outputs=(name,),
        outcome=outcome_of(failure),
        message=one_line(failure),
        shapes=(None,),
        dtypes=(None,),
        kind="output",
    )


def _unjudged_output(name: str, actual: Any, lender: str) -> NodeResult:
    tensor = actual if isinstance(actual, np.ndarray) else None
    return NodeResult(
        node=name,
        op_type="",
        domain="",
        outputs=(name,),
        outcome=Outcome.UNJUDGED,
        message=f"it depends on node {lender}, which the oracle could not compute",
        shapes=(None if tensor is None else tensor.shape,),
        dtypes=(None if tensor is None else str(tensor.dtype),),
        kind="output",
    )


def _blamed(row: NodeResult, walk: _Walk, case: OutputCase, blames: list[Blame]) -> NodeResult:
    """Say which optimisation makes the untouched graph wrong; one that is at work when watched spoils nodes too."""
    if not case.nodes_passed and any(not blame.cure for blame in blames):
        return row  # for an earlier output none was found
    request = walk.request
    untouched = Untouched(walk.model, walk.feeds, request.options, request.open_session, case)
    blame = guilty_optimization(untouched, blames)
    blames.append(blame)
    if case.nodes_passed:
        return dataclasses.replace(row, message=f"{row.message}; every node is right when watched: {blame.text}")
    return dataclasses.replace(row, message=f"{row.message}; {blame.text}") if blame.cure else row


def _footer(rows: list[NodeResult], started: float, worker_bytes: int) -> Footer:
    first = next((row.node for row in rows if row.outcome in RED), None)
    # Linux counts ru_maxrss in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return Footer(
        counts=count_outcomes(rows),
        duration_s=time.monotonic() - started,
        peak_memory_bytes={"oracle": own, "runtime": worker_bytes},
        first_failed=first,
    )
