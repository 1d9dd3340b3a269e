"""A run of a suite on a terminal: operator by operator, what failed, what was known, and one last line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..conformance.results import Footer, NodeResult, Outcome
from ..conformance.stream import Stream
from .summary import Status, named, summarise
from .terminal import STATUS_STYLES, styled, summary_line
from .text import plural, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_SHOWN = (Outcome.FAILED, Outcome.CRASHED, Outcome.HUNG, Outcome.ERRORED, Outcome.UNSUPPORTED, Outcome.UNJUDGED)
_LISTED = 40
"""Rows listed in full at most, of each sort, unless all are asked for."""


def print_conform(stream: Stream, console: Console, *, everything: bool = False) -> None:
    """Print a run of a suite.

    Args:
        stream: the run.
        console: where to.
        everything: list every case that did not pass, and every operator.
    """
    summary, groups = summarise(stream), by_operator(stream.rows)
    shown = {name: rows for name, rows in groups.items() if everything or not _all_passed(rows)}
    if shown:
        console.print(operator_table(shown))
    hidden = len(groups) - len(shown)
    if shown and hidden:
        console.print(styled(f"… and {plural(hidden, 'operator')} more, all passed", "dim"), soft_wrap=True)
    limit = None if everything else _LISTED
    red = [row for row in stream.rows if row.red]
    _list(console, [row for row in red if row.outcome is not Outcome.UNSUPPORTED], limit)
    _name(console, "unsupported", [row for row in red if row.outcome is Outcome.UNSUPPORTED], limit)
    _name(console, "not judged", summary.unjudged, limit)
    _name(console, "known failures", summary.known, limit)
    for text in surprise_lines(stream.footer):
        console.print(styled(text, STATUS_STYLES[Status.AMBER]), soft_wrap=True)
    for warning in summary.warnings:
        console.print(styled(warning, STATUS_STYLES[Status.AMBER]), soft_wrap=True)
    console.print(summary_line(summary), soft_wrap=True)


def by_operator(rows: Iterable[NodeResult]) -> dict[str, list[NodeResult]]:
    """Rows by the operator that they are about, in alphabetical order."""
    groups: dict[str, list[NodeResult]] = {}
    for row in rows:
        groups.setdefault(operator_of(row), []).append(row)
    return dict(sorted(groups.items()))


def operator_of(row: NodeResult) -> str:
    """ "Conv", "com.microsoft::Gelu", "(graphs)"."""
    name = visible(row.op_type, 60) or "(graphs)"
    return f"{visible(row.domain, 60)}::{name}" if row.domain else name


def operator_table(groups: dict[str, list[NodeResult]]) -> Table:
    """One line per operator: how many cases, and what became of them."""
    from rich.table import Table  # noqa: PLC0415 - only where something is drawn

    present = [outcome for outcome in _SHOWN if any(row.outcome is outcome for rows in groups.values() for row in rows)]
    known = any(row.known for rows in groups.values() for row in rows)
    weighed = any(row.occurrences is not None for rows in groups.values() for row in rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    heads = ["operator", "cases", *(["nodes"] * weighed), "passed", *(outcome.value for outcome in present)]
    for column in (*heads, *(["of them known"] * known)):
        table.add_column(column, justify="left" if column == "operator" else "right", no_wrap=True)
    for name, rows in groups.items():
        counts = Counter(row.outcome for row in rows)
        cells = [name, f"{len(rows):,}", *([f"{sum(row.occurrences or 0 for row in rows):,}"] * weighed)]
        cells += [f"{counts[outcome]:,}" if counts[outcome] else "" for outcome in (Outcome.PASSED, *present)]
        red = any(row.red for row in rows)
        cells += [str(sum(bool(row.known) for row in rows) or "")] * known
        table.add_row(
            *(styled(cell, STATUS_STYLES[Status.RED] if red and not i else "") for i, cell in enumerate(cells))
        )
    return table


def surprise_lines(footer: Footer | None) -> list[str]:
    """Where the file of known failures is not what happened, a line each."""
    if footer is None:
        return []
    lines = [f"known failure matches no case: {visible(title)}" for title in footer.unmatched]
    for title, names in footer.passing.items():
        shown = ", ".join(visible(name, 80) for name in names[:5]) + (f" and {len(names) - 5} more" * (len(names) > 5))
        lines.append(f"known failure passes: {shown}; see {visible(title)}")
    return lines


def _all_passed(rows: Sequence[NodeResult]) -> bool:
    return all(row.outcome is Outcome.PASSED for row in rows)


def _list(console: Console, rows: Sequence[NodeResult], limit: int | None) -> None:
    """Failures, those that came down to one smallest case in one line."""
    if not rows:
        return
    console.print(styled("\nfailures", "bold red"))
    alike: dict[tuple[str, str], list[NodeResult]] = {}
    for row in rows:
        alike.setdefault((row.op_type, row.smallest or row.node), []).append(row)
    groups = list(alike.values())
    for first, *others in groups[:limit]:
        more = f" (and {named(others, 3)})" * bool(others)
        console.print(styled(case_line(first) + more, ""), soft_wrap=True)
    if limit is not None and len(groups) > limit:
        left = [row for group in groups[limit:] for row in group]
        console.print(styled(f"… and {named(left)}", "dim"), soft_wrap=True)


def _name(console: Console, title: str, rows: Sequence[NodeResult], limit: int | None) -> None:
    """Rows by what is said of them, most first: an operator that a runtime lacks is one line, not thirty.

    Known failures are all named.
    """
    if not rows:
        return
    console.print(styled(f"\n{title}", "bold yellow"))
    reasons: dict[str, list[NodeResult]] = {}
    for row in rows:
        said = row.known or f"{operator_of(row)}: {row.said}"
        reasons.setdefault(visible(said, 240), []).append(row)
    lines = sorted(reasons.items(), key=lambda item: -len(item[1]))
    for reason, alike in lines[:limit]:
        names = named(alike, len(alike) if alike[0].known or limit is None else 3)
        console.print(styled(f"  {len(alike):,} × {reason} ({names})", ""), soft_wrap=True)
    if limit is not None and len(lines) > limit:
        console.print(styled(f"… and {sum(len(alike) for _, alike in lines[limit:]):,} more", "dim"), soft_wrap=True)


def case_line(row: NodeResult) -> str:
    """A case that did not pass, in one line."""
    weight = "" if row.occurrences is None else f" ({plural(row.occurrences, 'node')})"
    parts = [
        row.said,
        f"first met in {row.origin}" * bool(row.origin),
        f"smallest: {row.smallest}" * bool(row.smallest),
    ]
    said = "; ".join(visible(part, 400) for part in parts if part)
    return f"  {row.outcome.value} {visible(row.node, 120)}{weight}: {said}"
