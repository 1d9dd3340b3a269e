"""A benchmark on a terminal: one table of the sides, one sentence per row, and where the time goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..benchmarks.results import BenchmarkResult, Measurement
from ..reports.speed import interval_in_words, side_name, sides, verdict
from ..reports.text import ABSENT, duration, figure, percent, size, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_COLUMNS = ("model", "batch", "runtime", "threads", "median", "p95", "items/s", "first run", "cold start", "memory")
_LEFT = frozenset({"model", "runtime"})
_OPERATORS_SHOWN = 5
_NOTED_DRIFT = 0.1


def print_benchmarks(rows: Sequence[BenchmarkResult], console: Console) -> None:
    """Print rows: the table, then for each row its verdict, its interval, what disturbed it, and its operators."""
    if not rows:
        return
    console.print(benchmark_table(rows))
    for row in rows:
        title = f"{visible(row.model, 60)}:" if len({entry.model for entry in rows}) > 1 else ""
        for line in (" ".join(filter(None, (title, verdict(row), interval_in_words(row)))), *remarks(row)):
            console.print(line, markup=False, soft_wrap=True)
        for name, side in sides(row):
            if side.op_types:
                console.print(f"  {name}: {operators_in_words(side)}", markup=False, soft_wrap=True)


def benchmark_table(rows: Sequence[BenchmarkResult]) -> Table:
    """One line per side."""
    from rich.table import Table  # noqa: PLC0415 - only where something is drawn
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in _LEFT else "right", no_wrap=True)
    for row in rows:
        for _, side in sides(row):
            table.add_row(*(Text(cell) for cell in _cells(row, side)))
    return table


def remarks(row: BenchmarkResult) -> list[str]:
    """What a reader must know before believing the figures."""
    found = []
    for name, side in sides(row):
        if side.samples_s and not side.steady:
            found.append(f"  {name}: never became steady in the warm-up; its figures may change with a longer run")
        if side.drift is not None and abs(side.drift - 1) > _NOTED_DRIFT:
            found.append(f"  {name}: drifted to {figure(side.drift)} × its first time while measured")
    return found


def operators_in_words(side: Measurement) -> str:
    """ "Conv 81 % of 12.1 ms, Gemm 12 %, …": the operator types that take the most time."""
    whole_s = sum(entry.time_s for entry in side.op_types)
    shown = [f"{visible(entry.op_type, 40)} {percent(entry.share)}" for entry in side.op_types[:_OPERATORS_SHOWN]]
    shown[0] += f" of {duration(whole_s)}"
    return ", ".join(shown) + (", …" if len(side.op_types) > _OPERATORS_SHOWN else "")


def _cells(row: BenchmarkResult, side: Measurement) -> tuple[str, ...]:
    return (
        visible(row.model, 40),
        ABSENT if row.batch is None else str(row.batch),
        side_name(side),
        ABSENT if side.threads is None else str(side.threads),
        duration(side.median_s),
        duration(side.p95_s),
        figure(side.items_per_s),
        duration(side.first_run_s),
        duration(side.cold_start_s),
        size(side.peak_memory_bytes),
    )
