"""Results as Markdown (GitHub's tables): for a pull request's comment, a job summary, an issue."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..benchmarks.results import BenchmarkResult
from ..conformance.results import NodeResult, Outcome
from ..conformance.stream import Stream
from .combine import BenchStream, Results
from .speed import interval_in_words, sides, verdict
from .summary import Status, allowance_used, counts_in_words, summarise, worst_first
from .text import duration, facts, figure, percent, size, visible

_SIGNS = {Status.GREEN: "✅", Status.AMBER: "⚠️", Status.RED: "❌"}
_ESCAPED = frozenset(r"\`*_{}[]<>#|~$&@:")
_WEB_ADDRESS = re.compile(r"www\.", re.IGNORECASE)
_NAME_LIMIT = 200
_MESSAGE_LIMIT = 500

Row = Sequence[str]


def markdown(results: Results, *, limit: int | None = 20) -> str:
    """All runs, one after another: verdict, the rows that did not pass, the `limit` closest to their bound, speeds."""
    parts = ["# onnx-arch report", ""]
    for stream in results.checks:
        parts += _check(stream, limit)
    for bench in results.benchmarks:
        parts += _benchmark(bench)
    return "\n".join(parts)


def escaped(text: str, limit: int | None = None) -> str:
    """`text` as Markdown that shows exactly it, in one line: no markup, no HTML, no link, no mention."""
    shown = "".join(f"&#{ord(char)};" if char in _ESCAPED else char for char in visible(text, limit))
    return _WEB_ADDRESS.sub(lambda found: f"{found[0][:3]}&#46;", shown)


def _check(stream: Stream, limit: int | None) -> Iterable[str]:
    summary = summarise(stream)
    yield f"## {_SIGNS[summary.status]} {escaped(stream.header.model, _NAME_LIMIT)}"
    yield ""
    yield f"**{escaped(summary.headline)}** {escaped(counts_in_words(summary.counts))}"
    yield ""
    for warning in summary.warnings:
        yield from (f"> ⚠️ {escaped(warning)}", "")
    rows = worst_first(stream.rows)
    not_passed = [row for row in rows if row.outcome is not Outcome.PASSED]
    if not_passed:
        yield from ("### Not passed", "", *_table(_COLUMNS, map(_cells, not_passed)))
    passed = [row for row in rows if row.outcome is Outcome.PASSED][:limit]
    if passed:
        yield from ("### Passed, closest to the bound first", "", *_table(_COLUMNS, map(_cells, passed)))
    yield from _environment(
        {"model_sha256": stream.header.model_sha256, **stream.header.options, **stream.header.environment}
    )


def _benchmark(stream: BenchStream) -> Iterable[str]:
    for row in stream.rows:
        yield from (f"## ⏱ {escaped(row.model, _NAME_LIMIT)}", "", f"**{escaped(verdict(row))}**", "")
        yield from _table(_SPEED_COLUMNS, _speed_cells(row))
        words = interval_in_words(row)
        if words:
            yield from (escaped(words), "")
    if not stream.complete:
        yield from (f"> ⚠️ {escaped('The benchmark was cut off: rows may be missing.')}", "")
    yield from _environment({**stream.header.options, **stream.header.environment})


_COLUMNS = ("node", "operator", "outcome", "rule", "of allowed", "bits", "max abs", "inherited", "message")
_SPEED_COLUMNS = ("side", "outcome", "median", "p95", "items/s", "cold start", "first run", "peak memory", "message")


def _cells(row: NodeResult) -> Row:
    return (
        escaped(row.node, _NAME_LIMIT),
        escaped(row.op_type if row.kind != "output" else "(output)", _NAME_LIMIT),
        row.outcome.value,
        escaped(row.rule, _NAME_LIMIT),
        percent(allowance_used(row)),
        figure(row.bits),
        figure(row.max_abs),
        figure(row.inherited_max_abs),
        escaped(row.said, _MESSAGE_LIMIT),
    )


def _speed_cells(row: BenchmarkResult) -> Iterable[Row]:
    for name, side in sides(row):
        yield (
            escaped(name, _NAME_LIMIT),
            side.outcome.value,
            duration(side.median_s),
            duration(side.p95_s),
            figure(side.items_per_s),
            duration(side.cold_start_s),
            duration(side.first_run_s),
            size(side.peak_memory_bytes),
            escaped(side.message, _MESSAGE_LIMIT),
        )


def _table(columns: Row, rows: Iterable[Row]) -> Iterable[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _environment(mapping: dict[str, object]) -> Iterable[str]:
    yield from ("<details><summary>Environment and options</summary>", "")
    yield from _table(("what", "value"), [(escaped(label), escaped(value)) for label, value in facts(mapping)])
    yield from ("</details>", "")
