"""What a results file says in words: the verdict, the counts, the first failure, what is missing.

Every view starts from here, so that terminal, JUnit, Markdown and HTML cannot disagree.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..conformance.results import RED, NodeResult, Outcome, count_outcomes
from ..conformance.stream import Stream
from .text import plural, visible


class Status(enum.StrEnum):
    """The verdict in one word."""

    GREEN = "green"
    """All was judged, and all of it passed."""
    AMBER = "amber"
    """Nothing failed, but not all was judged, or the run was cut off."""
    RED = "red"
    """Something failed."""


@dataclass(frozen=True)
class Summary:
    """The verdict on one run.

    Attributes:
        status: in one word.
        headline: in one sentence.
        counts: rows by outcome, every outcome named, counted from the rows.
        first_failed: the first row that is red: the first node, else the first output.
        unjudged: the rows that are neither green nor red, in order.
        known: failures that were expected, in order; each has its reason in `known`.
        warnings: what the reader must know about the file itself (cut off, rows missing), each one sentence.
    """

    status: Status
    headline: str
    counts: Mapping[Outcome, int]
    first_failed: NodeResult | None
    unjudged: tuple[NodeResult, ...]
    warnings: tuple[str, ...]
    known: tuple[NodeResult, ...] = ()


def summarise(stream: Stream) -> Summary:
    """The verdict on `stream`, from its rows."""
    red = [row for row in stream.rows if row.red]
    first = next((row for row in red if row.kind != "output"), red[0] if red else None)
    unjudged = tuple(row for row in stream.rows if row.outcome not in RED and row.outcome is not Outcome.PASSED)
    warnings = tuple(_warnings(stream))
    known = tuple(row for row in stream.rows if row.known)
    whole = bool(stream.rows) and not (unjudged or known or warnings)
    status = Status.RED if red else Status.GREEN if whole else Status.AMBER
    counts = {Outcome(name): count for name, count in count_outcomes(list(stream.rows)).items()}
    return Summary(status, _headline(stream, red, first, unjudged, known), counts, first, unjudged, warnings, known)


def worst_first(rows: Iterable[NodeResult]) -> list[NodeResult]:
    """Failures in graph order, the known ones last, then what was not judged, then the rest by how little headroom."""

    def rank(row: NodeResult) -> tuple[int, float]:
        if row.outcome in RED:
            return 0, float(bool(row.known))
        return (1, 0.0) if row.outcome is not Outcome.PASSED else (2, -(allowance_used(row) or 0.0))

    return sorted(rows, key=rank)


def allowance_used(row: NodeResult) -> float | None:
    """How much of its bounds a row uses: 1 is the bound itself; None where no bound of z was applied.

    The larger of rms z and max |z| over their bounds; NaN and a zero bound that is exceeded count as infinite.
    """
    pairs = ((row.rms_z, row.allowed_rms_z), (row.max_z, row.allowed_max_z))
    shares = [_share(z, allowed) for z, allowed in pairs if z is not None and allowed is not None]
    return max(shares, default=None)


def counts_in_words(counts: Mapping[Outcome, int]) -> str:
    """ "68 passed, 1 failed, 2 unjudged": outcomes that occur, in the order of `Outcome`."""
    words = [f"{counts[outcome]:,} {outcome}" for outcome in Outcome if counts.get(outcome)]
    return ", ".join(words) if words else "no rows"


def named(rows: Sequence[NodeResult], limit: int = 5) -> str:
    """Names of `rows`, the first `limit` of them, each safe to print."""
    names = [visible(row.node, 80) for row in rows[:limit]]
    more = len(rows) - len(names)
    return ", ".join(names) + (f" and {more:,} more" if more > 0 else "")


def who(row: NodeResult) -> str:
    """ "Conv_3 (Conv)", or "output logits"."""
    name = visible(row.node, 80)
    return f"output {name}" if row.kind == "output" else f"{name} ({visible(row.op_type, 40)})"


def subjects(rows: Sequence[NodeResult]) -> str:
    """ "69 nodes and 1 output": what `rows` are rows of."""
    counts = {kind: sum(row.kind == kind for row in rows) for kind in ("node", "case", "output")}
    return " and ".join(plural(count, kind) for kind, count in counts.items() if count) or "0 nodes"


def _headline(
    stream: Stream,
    red: Sequence[NodeResult],
    first: NodeResult | None,
    unjudged: Sequence[NodeResult],
    known: Sequence[NodeResult],
) -> str:
    if not stream.rows:
        return "Nothing was judged."
    if first is not None:
        return f"{subjects(red)} of {len(stream.rows):,} {_went_wrong(red)}; the first is {who(first)}."
    if known and not unjudged:
        return f"Nothing failed but what is known to: {subjects(known)} of {len(stream.rows):,}."
    if unjudged:
        return f"Nothing failed, but {subjects(unjudged)} of {len(stream.rows):,} were not judged: {named(unjudged)}."
    if not stream.complete:
        return f"The run was cut off; the {subjects(stream.rows)} judged before that passed."
    return f"All judged, all green: {subjects(stream.rows)}."


def _went_wrong(red: Sequence[NodeResult]) -> str:
    outcomes = {row.outcome for row in red}
    if len(outcomes) > 1:
        counts = count_outcomes(list(red))
        return f"went wrong ({counts_in_words({outcome: counts[outcome] for outcome in outcomes})})"
    outcome = outcomes.pop()
    return "are unsupported" if outcome is Outcome.UNSUPPORTED else outcome.value


def _warnings(stream: Stream) -> Iterable[str]:
    found, announced = len(stream.rows), stream.header.nodes
    if not stream.complete:
        how = "was cut off (it has no footer)" if stream.footer is None else "was stopped"
        yield f"The run {how}: {found:,} of {announced:,} rows are here, nothing is known of the others."
    elif found != announced:
        yield f"The header announces {announced:,} rows, the file holds {found:,}."
    if stream.footer is not None and _differ(stream.footer.counts, count_outcomes(list(stream.rows))):
        yield "The counts in the footer are not those of the rows; the rows are shown."


def _differ(footer: Mapping[str, int], rows: Mapping[str, int]) -> bool:
    return {name: count for name, count in footer.items() if count} != {n: c for n, c in rows.items() if c}


def _share(z: float, allowed: float) -> float:
    z = abs(z)
    if math.isnan(z) or math.isnan(allowed):
        return math.inf
    if allowed == 0 or math.isinf(allowed):
        return 0.0 if z == 0 or (math.isinf(allowed) and not math.isinf(z)) else math.inf
    return z / allowed
