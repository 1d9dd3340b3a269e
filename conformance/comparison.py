"""What changed between two runs of a suite: two versions of a runtime, two providers, two machines."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import StreamError
from .results import RED, NodeResult, Outcome
from .stream import Stream

GROWN_FACTOR = 4.0
"""A passing case whose error grew by this factor (two bits) is told; correct sums in several orders differ by less."""

GROWN_FLOOR = 1.0
"""Half-units that the larger error must have to count: below, nothing is measured but luck."""


class Change(enum.StrEnum):
    """What became of a case; the first four are for the worse."""

    NEWLY_FAILING = "newly failing"
    """It did not fail, and does."""
    WORSE = "fails worse"
    """It failed, and now crashes or hangs."""
    LOST = "not judged any more"
    """It was judged, and is not judged now."""
    GROWN = "error grown"
    """It passes, with an error at least four times as large."""
    OTHER_FAILURE = "fails otherwise"
    """It failed, and fails with another outcome."""
    NEWLY_PASSING = "newly passing"
    """It did not pass, and does."""
    SHRUNK = "error shrunk"
    """It passes, with an error at most a quarter as large."""
    ONLY_BEFORE = "only in the first"
    """The second run does not have it."""
    ONLY_AFTER = "only in the second"
    """The first run does not have it."""


WORSE = frozenset({Change.NEWLY_FAILING, Change.WORSE, Change.LOST, Change.GROWN})
"""What makes the exit status 1."""


@dataclass(frozen=True)
class Changed:
    """One case that is not what it was.

    Attributes:
        case: its name.
        op_type: its operator, with its domain where that is not ai.onnx.
        change: what became of it.
        before: its row in the first run; None where it has none.
        after: its row in the second.
        ratio: error after over error before, where both passed; else None.
    """

    case: str
    op_type: str
    change: Change
    before: NodeResult | None
    after: NodeResult | None
    ratio: float | None = None

    def fields(self) -> dict[str, Any]:
        """What a line of JSON says."""
        sides = {"before": self.before, "after": self.after}
        rows = {name: None if row is None else _side(row) for name, row in sides.items()}
        plain = {"case": self.case, "op_type": self.op_type, "change": self.change.value, "ratio": self.ratio}
        return {"kind": "change", **plain, "worse": self.change in WORSE, **rows}


@dataclass(frozen=True)
class Comparison:
    """Two runs, case by case.

    Attributes:
        changes: in the order of the first run, new cases last.
        same: cases by operator that are what they were.
        warnings: what the reader must know of the files, each one sentence.
    """

    changes: tuple[Changed, ...]
    same: Mapping[str, int]
    warnings: tuple[str, ...]

    @property
    def worse(self) -> bool:
        """Whether anything got worse."""
        return any(changed.change in WORSE for changed in self.changes)


def compare(before: Stream, after: Stream) -> Comparison:
    """What changed from one run to another.

    Raises:
        StreamError: no case is in both.
    """
    first = {(row.kind, row.node): row for row in before.rows}
    second = {(row.kind, row.node): row for row in after.rows}
    if first and second and not first.keys() & second.keys():
        raise StreamError(f"{before.source} and {after.source} have no case in common: {_titles(before, after)}")
    changes: list[Changed] = []
    same: dict[str, int] = {}
    for key in dict.fromkeys((*first, *second)):
        old, new = first.get(key), second.get(key)
        change, ratio = _change(old, new)
        operator = _operator(old or new)
        if change is None:
            same[operator] = same.get(operator, 0) + 1
        else:
            changes.append(Changed(key[1], operator, change, old, new, ratio))
    return Comparison(tuple(changes), same, tuple(_warnings(before, after)))


def _titles(before: Stream, after: Stream) -> str:
    return f"{before.header.model}, and {after.header.model}"


def _operator(row: NodeResult | None) -> str:
    if row is None:
        return ""
    return f"{row.domain}::{row.op_type}" if row.domain else row.op_type


def _change(before: NodeResult | None, after: NodeResult | None) -> tuple[Change | None, float | None]:
    if before is None or after is None:
        return (Change.ONLY_AFTER if before is None else Change.ONLY_BEFORE), None
    if before.outcome is Outcome.PASSED is after.outcome:
        ratio = _ratio(before, after)
        return _by_error(before, after, ratio), ratio
    return _by_outcome(before.outcome, after.outcome), None


def _by_outcome(before: Outcome, after: Outcome) -> Change | None:
    open_ = (Outcome.UNJUDGED, Outcome.SKIPPED)
    if before is after or (before in open_ and after in open_):
        return None
    if after is Outcome.PASSED:
        return Change.NEWLY_PASSING
    if after in open_:
        return Change.LOST
    if before not in RED:
        return Change.NEWLY_FAILING
    ends = (Outcome.CRASHED, Outcome.HUNG)
    return Change.WORSE if after in ends and before not in ends else Change.OTHER_FAILURE


def _by_error(before: NodeResult, after: NodeResult, ratio: float | None) -> Change | None:
    if ratio is None or max(before.rms_z or 0.0, after.rms_z or 0.0) < GROWN_FLOOR:
        return None
    return Change.GROWN if ratio >= GROWN_FACTOR else Change.SHRUNK if ratio <= 1 / GROWN_FACTOR else None


def _ratio(before: NodeResult, after: NodeResult) -> float | None:
    """Of the rms errors in half-units; None where one of them has none, or both are exact."""
    if before.rms_z is None or after.rms_z is None or before.rms_z == after.rms_z == 0:
        return None
    return after.rms_z / before.rms_z if before.rms_z else float("inf")


def _warnings(before: Stream, after: Stream) -> Iterator[str]:
    for stream in (before, after):
        if not stream.complete:
            found, announced = len(stream.rows), stream.header.nodes
            yield f"{stream.source} was cut off: only the {found:,} of {announced:,} rows in it are compared."
    if before.header.model_sha256 != after.header.model_sha256:
        yield f"The runs are not of the same cases: {_titles(before, after)}. Only what is in both is compared."


def _side(row: NodeResult) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("outcome", "rms_z", "max_z", "bits", "known", "message")}
