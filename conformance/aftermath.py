"""What is done with a case that failed: the smallest case that fails alike, and a folder that shows it alone."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from pathlib import Path

from .case_runner import CaseRunner
from .results import NodeResult
from .shrinking import describe_call, smallest_failing
from .suites.case import Case


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
        if self.shrink and case.generated is not None:
            found = smallest_failing(runner, case, row, self.stop)
            smallest = case.generated if found is None else found[0]
            row = dataclasses.replace(row, smallest=describe_call(smallest.call))
        return row
