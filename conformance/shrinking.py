"""Make a failing generated case smaller, by asking the runtime again."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import RuntimeUnavailableError
from .case_runner import CaseRunner
from .generated import GeneratedCase, shrink
from .generation.drawing import NodeCall
from .results import NodeResult, Outcome
from .suites.case import Case
from .suites.drawn import as_case

MOST_TRIES = 300
"""Smaller calls that are tried of one case."""

LONGEST_S = 20.0
"""How long one case may be made smaller; where it hangs, three time limits."""

_one_at_a_time = threading.Lock()
"""Hypothesis draws in one thread at a time."""


@dataclass
class _Trial:
    """Whether smaller calls fail like the first one, as long as time and tries last."""

    runner: CaseRunner
    symptom: tuple[str, ...]
    stop: threading.Event
    deadline: float
    tries: int = 0
    last: NodeResult | None = None

    def fails(self, candidate: GeneratedCase) -> bool:
        if self.tries >= MOST_TRIES or time.monotonic() > self.deadline or self.stop.is_set():
            return False
        self.tries += 1
        try:
            row = self.runner.judge(as_case(candidate))
        except RuntimeUnavailableError:
            return False
        if symptom(row) != self.symptom:
            return False
        self.last = row
        return True


def smallest_failing(
    runner: CaseRunner, case: Case, row: NodeResult, stop: threading.Event
) -> tuple[GeneratedCase, NodeResult] | None:
    """The smallest call found that fails with the same symptom, and its row; None where there is none smaller.

    Args:
        runner: judges smaller calls.
        case: a generated one.
        row: its own, red.
        stop: ends the search.
    """
    if case.generated is None or row.outcome is Outcome.UNSUPPORTED:
        return None
    longest = 3 * runner.options.time_limit_s if row.outcome is Outcome.HUNG else LONGEST_S
    with _one_at_a_time:
        trial = _Trial(runner, symptom(row), stop, time.monotonic() + longest)
        smaller = shrink(case.generated, trial.fails)
    if not smaller.shrunk:
        return None
    return smaller, runner.judge(as_case(smaller)) if trial.last is None else trial.last


def symptom(row: NodeResult) -> tuple[str, ...]:
    """How a case fails: its outcome, and what is said without the numbers, names and types of this very case."""
    if row.outcome is Outcome.FAILED:
        first = row.message.partition(" ")[0]
        return (row.outcome.value, first if first in ("dtype", "shape", "sequence", "nothing") else "values")
    return (row.outcome.value, *_WORD.findall(_PARTICULAR.sub("", row.message)))


_PARTICULAR = re.compile(r"\[with [^\]]*\]|\{[^}]*\}|'[^']*'|\bx\d+\b")
_WORD = re.compile(r"[A-Za-z]{3,}")


def describe_call(call: NodeCall) -> str:
    """A call in a line: "Pad-13(x0 float32[] = 5.0, x1 int64[0]) {mode='wrap'}"."""
    inputs = ", ".join(_input(index, value) for index, value in enumerate(call.inputs))
    attributes = ", ".join(f"{name}={_value(value)}" for name, value in sorted(call.attributes.items()))
    return f"{call.op_type}-{call.opset}({inputs})" + (f" {{{attributes}}}" if attributes else "")


_SHOWN = 6
"""Elements up to which a tensor is written out."""


def _input(index: int, value: np.ndarray[Any, Any] | None) -> str:
    if value is None:
        return f"x{index} absent"
    name = "string" if value.dtype.kind in "OUS" else value.dtype.name
    shown = f" = {value.tolist()}" if value.size <= _SHOWN else ""
    return f"x{index} {name}{list(value.shape)}{shown}"


def _value(value: Any) -> str:
    return str(value.tolist()) if isinstance(value, np.ndarray) else repr(value)
