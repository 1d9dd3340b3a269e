"""What is done with a case that failed: the smallest case that fails alike, and a folder that shows it alone."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from pathlib import Path

from ..errors import RuntimeFailure
from ..graphs.loading import load_model
from ..graphs.model import Model
from .case_runner import CaseRunner
from .reproduction import Failure, write_reproduction
from .results import NodeResult, Outcome
from .shrinking import describe_call, smallest_failing
from .suites.case import Case, Feeds, Subject
from .suites.drawn import as_case


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
        if self.reproduce is not None and row.outcome is not Outcome.UNSUPPORTED:
            self._write(self.reproduce, runner, dataclasses.replace(shown, name=case.name), shown_row)
        return row

    def _write(self, folder: Path, runner: CaseRunner, case: Case, row: NodeResult) -> None:
        subject = case.subject()
        model = load_model(subject.write(runner.folder))
        feeds = _guilty(runner, case, model, subject)
        row = dataclasses.replace(row, node=case.name)
        write_reproduction(folder, Failure(case.name, model, feeds, row, runner.options, runner.runtime_versions))


def _guilty(runner: CaseRunner, case: Case, model: Model, subject: Subject) -> Feeds:
    """Of several data sets the first that fails."""
    for feeds in subject.data_sets[:-1]:
        try:
            row = runner.judge_model(case, model, Subject(model.path, (feeds,)))
        except RuntimeFailure:
            return feeds
        if row.red:
            return feeds
    return subject.data_sets[-1]
