"""What a benchmark row says in words."""

from __future__ import annotations

from collections.abc import Iterator

from ..benchmarks.results import BenchmarkResult, BenchOutcome, Measurement, worst_outcome
from .summary import Status
from .text import duration, figure, percent, visible

_INFORMATIVE = 1e-9


def sides(row: BenchmarkResult) -> Iterator[tuple[str, Measurement]]:
    """The measured side and, if there is one, the other, each with a name that tells them apart."""
    yield side_name(row), row
    if row.against is not None:
        yield side_name(row.against), row.against


def side_name(side: Measurement) -> str:
    """ "onnxruntime 1.32.0, cpu, all": runtime with its version, provider and optimisation level."""
    version = next((found for name, found in side.versions.items() if name and side.runtime.startswith(name)), "")
    words = (f"{side.runtime} {version}".strip(), side.provider, side.optimization)
    return visible(", ".join(word for word in words if word), 120)


def verdict(row: BenchmarkResult) -> str:
    """The result in one sentence: how fast, and how much faster or slower than the other side."""
    outcome = worst_outcome(row)
    if outcome is not BenchOutcome.MEASURED:
        said = visible(row.message or (row.against.message if row.against is not None else ""), 300)
        return f"Not compared: {outcome}. {said}".strip()
    speed = f"{duration(row.median_s)} per run{_batch(row)}"
    if row.against is None or row.ratio is None or row.ratio < _INFORMATIVE:
        return f"{speed}."
    other = visible(row.against.runtime, 60)
    return f"{speed}; {comparison(row.ratio, row.ratio_interval)} {other} ({duration(row.against.median_s)})."


def comparison(ratio: float, interval: tuple[float, float] | None) -> str:
    """ "1.43 × as fast as" for a ratio of times of 0.7, or that no difference can be told from the interval."""
    if interval is not None and interval[0] <= 1 <= interval[1]:
        return "no difference can be told from"
    if ratio <= 1:
        return f"{figure(1 / ratio)} × as fast as"
    return f"{figure(ratio)} × the time of"


def interval_in_words(row: BenchmarkResult) -> str:
    """ "Time ratio 0.70, between 0.68 and 0.73 at 95 %.", or "" where nothing was compared."""
    if row.ratio is None:
        return ""
    if row.ratio_interval is None:
        return f"Time ratio {figure(row.ratio)}; too few blocks for an interval."
    low, high = row.ratio_interval
    return f"Time ratio {figure(row.ratio)}, between {figure(low)} and {figure(high)} at {percent(row.ratio_level)}."


def bench_status(row: BenchmarkResult) -> Status:
    """GREEN if all sides were measured and warmed up, RED if one failed, AMBER if one was cut short or never steady."""
    outcome = worst_outcome(row)
    if outcome is BenchOutcome.INTERRUPTED:
        return Status.AMBER
    if outcome is not BenchOutcome.MEASURED:
        return Status.RED
    return Status.GREEN if all(side.steady for _, side in sides(row)) else Status.AMBER


def _batch(row: BenchmarkResult) -> str:
    return "" if row.batch is None else f" of batch {row.batch:,}"
