"""A check on a terminal: a table of what matters most, and one last line that says it all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..conformance.results import NodeResult, Outcome
from ..conformance.stream import Stream
from .summary import Status, Summary, allowance_used, counts_in_words, named, summarise, worst_first
from .text import figure, percent, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

STATUS_STYLES = {Status.GREEN: "bold green", Status.AMBER: "bold yellow", Status.RED: "bold red"}
_COLUMNS = ("node", "operator", "outcome", "rule", "of allowed", "bits", "max abs", "inherited", "message")
_RIGHT = frozenset({"of allowed", "bits", "max abs", "inherited"})
_NAME_LIMIT = 60


def print_check(stream: Stream, console: Console, *, limit: int | None = 20, failures_only: bool = False) -> None:
    """Print a run: the worst rows in a table, what the reader must know, and the summary as the last line.

    Args:
        stream: the run.
        console: where to.
        limit: rows shown at most, besides the red ones, which are always shown; None shows all.
        failures_only: show red rows only.
    """
    summary = summarise(stream)
    rows = select_rows(stream.rows, limit=limit, failures_only=failures_only)
    if rows:
        console.print(check_table(rows))
    hidden = len(stream.rows) - len(rows)
    if rows and hidden and not failures_only:
        console.print(styled(f"… and {hidden:,} more that passed with more headroom", "dim"), soft_wrap=True)
    for warning in summary.warnings:
        console.print(styled(warning, STATUS_STYLES[Status.AMBER]), soft_wrap=True)
    console.print(summary_line(summary), soft_wrap=True)


def select_rows(rows: Sequence[NodeResult], *, limit: int | None, failures_only: bool) -> list[NodeResult]:
    """The rows that a table shows, worst first: every red row, then as many others as `limit` leaves room for."""
    red = [row for row in rows if row.red]
    if failures_only:
        return red
    return worst_first(rows)[: None if limit is None else max(limit, len(red))]


def check_table(rows: Sequence[NodeResult]) -> Table:
    """One line per row: how it was judged and how close it is to its bound."""
    from rich.table import Table  # noqa: PLC0415 - only where something is drawn

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column, justify="right" if column in _RIGHT else "left", no_wrap=column != "message")
    for row in rows:
        table.add_row(*_cells(row))
    return table


def summary_line(summary: Summary) -> Text:
    """The last line: headline, counts, and the names of what was not judged."""
    from rich.text import Text  # noqa: PLC0415 - as above

    line = Text(summary.headline, style=STATUS_STYLES[summary.status])
    line.append(f" ({counts_in_words(summary.counts)})", style="not bold default")
    if summary.unjudged and summary.status is Status.RED:
        line.append(f" Not judged: {named(summary.unjudged)}.", style="not bold default")
    return line


def _cells(row: NodeResult) -> tuple[Text, ...]:
    operator = row.op_type if row.kind != "output" else "(output)"
    texts = (
        visible(row.node, _NAME_LIMIT),
        visible(operator, _NAME_LIMIT),
        row.outcome.value,
        visible(row.rule, _NAME_LIMIT),
        percent(allowance_used(row)),
        figure(row.bits),
        figure(row.max_abs),
        figure(row.inherited_max_abs),
        visible(row.said),
    )
    return tuple(
        styled(text, _outcome_style(row) if column == "outcome" else "")
        for column, text in zip(_COLUMNS, texts, strict=True)
    )


def _outcome_style(row: NodeResult) -> str:
    if row.red:
        return STATUS_STYLES[Status.RED]
    return "green" if row.outcome is Outcome.PASSED else "yellow"


def styled(text: str, style: str) -> Text:
    """Text that Rich takes as it is: names are data, never markup."""
    from rich.text import Text  # noqa: PLC0415 - as above

    return Text(text, style=style)
