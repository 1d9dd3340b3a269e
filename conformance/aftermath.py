"""What is done with a case that failed: the smallest case that fails alike, and a folder that shows it alone."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidArgumentError, RuntimeFailure
from ..graphs.loading import load_model
from ..graphs.model import Model
from .case_runner import CaseRunner
from .reproduction import Failure, write_reproduction
from .results import NodeResult, Outcome
from .shrinking import describe_call, smallest_failing
from .suites.case import Case, Feeds, Subject
from .suites.drawn import as_case
from .suites.mined import cut_nodes


@dataclass(frozen=True)
class Aftermath:
    """Called with every red row, in the thread that judged it.

    Attributes:
        shrink: whether generated cases are made smaller.
        reproduce: where folders are written; None writes none.
        stop: ends it early.
    """

    shrink: bool
    reproduce: Path | None
    stop: threading.Event

    def __call__(self, runner: CaseRunner, case: Case, row: NodeResult) -> NodeResult:
        shown, shown_row = case, row
        if self.shrink and case.generated is not None:
            found = smallest_failing(runner, case, row, self.stop)
            if found is not None:
                shown, shown_row = as_case(found[0]), found[1]
            smallest = case.generated if found is None else found[0]
            row = dataclasses.replace(row, smallest=describe_call(smallest.call))
        if self.reproduce is None or row.outcome is Outcome.UNSUPPORTED:
            return row
        try:
            _write(self.reproduce, runner, dataclasses.replace(shown, name=case.name), shown_row)
        except InvalidArgumentError:  # the folder cannot be written: nor can any other
            raise
        except Exception as error:  # noqa: BLE001 - the verdict stands, and so do those of the cases to come
            said = " ".join(f"{type(error).__name__}: {error}".split())
            row = dataclasses.replace(row, message=f"{row.message}; no reproduction was written: {said}")
        return row


def _write(folder: Path, runner: CaseRunner, case: Case, row: NodeResult) -> None:
    subject = case.subject()
    model = load_model(subject.write(runner.folder))
    feeds = _failing_feeds(runner, case, model, subject)
    found = _failing_node(runner, case, row, model, feeds)
    if found is not None:
        model, feeds, row = found
    row = dataclasses.replace(row, node=case.name)
    write_reproduction(folder, Failure(case.name, model, feeds, row, runner.options, runner.runtime_versions))


def _failing_node(
    runner: CaseRunner, case: Case, row: NodeResult, model: Model, feeds: Feeds
) -> tuple[Model, Feeds, NodeResult] | None:
    """Of a graph the first node that fails alone in the same way, with the values of the float64 run."""
    if len(model.graph.nodes) < 2:
        return None
    for file, values in cut_nodes(model, feeds, runner.folder):
        alone = load_model(file)
        judged = runner.judge_model(case, alone, Subject(file, (values,)))
        if judged.outcome is row.outcome:
            node = alone.graph.nodes[0]
            return alone, values, dataclasses.replace(judged, op_type=node.op_type, domain=node.domain)
    return None


def _failing_feeds(runner: CaseRunner, case: Case, model: Model, subject: Subject) -> Feeds:
    """Of several data sets the first that fails."""
    for feeds in subject.data_sets[:-1]:
        try:
            row = runner.judge_model(case, model, Subject(model.path, (feeds,)))
        except RuntimeFailure:
            return feeds
        if row.red:
            return feeds
    return subject.data_sets[-1]
