"""What changed between two runs, on a terminal and as JSON lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ..conformance.comparison import WORSE, Change, Changed, Comparison
from ..conformance.stream import Stream
from .terminal import styled
from .text import figure, plural, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_comparison(comparison: Comparison, console: Console, *, limit: int | None = 40) -> None:
    """Print what changed: a line per operator, then case by case, worst first; the last line says it all."""
    if comparison.changes:
        console.print(comparison_table(comparison))
        for change in Change:
            _list(console, change, [item for item in comparison.changes if item.change is change], limit)
    for warning in comparison.warnings:
        console.print(styled(warning, "bold yellow"), soft_wrap=True)
    style = "bold red" if comparison.worse else "bold yellow" if comparison.warnings else "bold green"
    console.print(styled(headline(comparison), style), soft_wrap=True)


def headline(comparison: Comparison) -> str:
    """ "2 cases got worse (2 newly failing); 1 newly passing; 2,021 cases are as they were." """
    counts = Counter(item.change for item in comparison.changes)
    worse = sum(counts[change] for change in WORSE)
    words = [f"{counts[change]:,} {change.value}" for change in Change if counts[change] and change in WORSE]
    others = [f"{counts[change]:,} {change.value}" for change in Change if counts[change] and change not in WORSE]
    same = sum(comparison.same.values())
    parts = [f"{plural(worse, 'case')} got worse ({', '.join(words)})" if worse else "Nothing got worse"]
    parts += others
    return "; ".join([*parts, f"{plural(same, 'case')} {'is as it was' if same == 1 else 'are as they were'}"]) + "."


def comparison_table(comparison: Comparison) -> Table:
    """One line per operator of which a case changed: how many of each sort."""
    from rich.table import Table  # noqa: PLC0415 - only where something is drawn

    present = [change for change in Change if any(item.change is change for item in comparison.changes)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("operator", "same", *(change.value for change in present)):
        table.add_column(column, justify="left" if column == "operator" else "right", no_wrap=True)
    for operator in sorted({item.op_type for item in comparison.changes}):
        counts = Counter(item.change for item in comparison.changes if item.op_type == operator)
        cells = [visible(operator, 60) or "(graphs)", f"{comparison.same.get(operator, 0):,}"]
        cells += [f"{counts[change]:,}" if counts[change] else "" for change in present]
        worse = any(counts[change] for change in WORSE)
        table.add_row(*(styled(cell, "bold red" if worse and not index else "") for index, cell in enumerate(cells)))
    return table


def _list(console: Console, change: Change, items: list[Changed], limit: int | None) -> None:
    if not items:
        return
    console.print(styled(f"\n{change.value}", "bold red" if change in WORSE else "bold"))
    for item in items[:limit]:
        console.print(styled(f"  {visible(item.case, 120)}: {_said(item)}", ""), soft_wrap=True)
    if limit is not None and len(items) > limit:
        console.print(styled(f"… and {len(items) - limit:,} more", "dim"))


def _said(item: Changed) -> str:
    if item.before is None or item.after is None:
        row = item.before or item.after
        return "" if row is None else row.outcome.value
    if item.ratio is not None:
        return f"rms z {figure(item.before.rms_z)} → {figure(item.after.rms_z)}, {figure(item.ratio)} times"
    message = item.after.said or item.before.said
    return f"{item.before.outcome.value} → {item.after.outcome.value}" + f": {visible(message, 300)}" * bool(message)


def comparison_records(comparison: Comparison, before: Stream, after: Stream) -> Iterator[Mapping[str, Any]]:
    """JSON lines: what is compared, a line per change, and the counts."""
    sides = {
        name: {"file": PurePath(stream.source).name, "model": stream.header.model, "options": stream.header.options,
               "environment": stream.header.environment, "complete": stream.complete}
        for name, stream in (("before", before), ("after", after))
    }  # fmt: skip
    yield {"kind": "comparison", "format_version": 1, **sides, "warnings": list(comparison.warnings)}
    for item in comparison.changes:
        yield item.fields()
    counts = Counter(item.change.value for item in comparison.changes)
    changed = {change.value: counts[change.value] for change in Change}
    yield {"kind": "summary", "same": sum(comparison.same.values()), "changed": changed, "worse": comparison.worse}
