"""The HTML page as data: what the template shows, in the order in which it shows it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ..benchmarks.results import BenchmarkResult, Measurement
from ..conformance.json_lines import HasKind, encode_line
from ..conformance.results import NodeResult, Outcome
from ..conformance.stream import Stream
from .combine import BenchStream, Results
from .pictures import Scatter, bits_picture, growth_picture, style
from .speed import bench_status, interval_in_words, sides, verdict
from .speed_pictures import OpTypeBar, RatioPicture, SamplesPicture, op_type_bars, ratio_picture, samples_picture
from .summary import Status, Summary, allowance_used, subjects, summarise, who
from .text import ABSENT, duration, facts, figure, percent, plural, size, visible

Facts = Sequence[tuple[str, str]]

_SORTED_LAST = ""


@dataclass(frozen=True)
class Cell:
    """A figure in a table: as shown, and as it is sorted ("" sorts last whichever way)."""

    text: str
    key: str


@dataclass(frozen=True)
class RowView:
    """One line of the table of a check.

    Attributes:
        index: in the stream, from 0.
        name, operator, outcome, rule, message: as shown.
        style: "green", "amber" or "red".
        used: share of the bound that is used, as shown; `used_width` of its bar, 0 to 100; None without a bound.
        bits, max_abs, inherited, max_z, rms_z: figures.
        tensors: each output with its dtype and shape.
    """

    index: int
    name: str
    operator: str
    outcome: str
    style: str
    rule: str
    used: Cell
    used_width: float | None
    bits: Cell
    max_abs: Cell
    inherited: Cell
    max_z: Cell
    rms_z: Cell
    tensors: str
    domain: str
    fingerprint: str
    message: str


@dataclass(frozen=True)
class CheckView:
    """One check on the page."""

    anchor: str
    title: str
    source: str
    summary: Summary
    counts: Sequence[tuple[str, int, str]]
    first_failure: str
    unjudged: Sequence[tuple[str, str]]
    rows: Sequence[RowView]
    bits: Scatter
    growth: Scatter | None
    facts: Facts

    @property
    def has_messages(self) -> bool:
        """True if any row says something."""
        return any(row.message or row.fingerprint for row in self.rows)


@dataclass(frozen=True)
class SideView:
    """One side of a benchmark row: figures as shown."""

    name: str
    figures: Facts
    op_types: Sequence[OpTypeBar]
    message: str


@dataclass(frozen=True)
class BenchView:
    """One row of a benchmark on the page."""

    anchor: str
    title: str
    status: Status
    verdict: str
    interval: str
    samples: SamplesPicture | None
    ratio: RatioPicture | None
    sides: Sequence[SideView]
    facts: Facts
    warnings: Sequence[str]


@dataclass(frozen=True)
class FileView:
    """A results file that the page carries, so that it can be saved from it: `lines` are its JSON lines."""

    name: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Page:
    """All of it."""

    title: str
    status: Status
    headline: str
    checks: Sequence[CheckView]
    benchmarks: Sequence[BenchView]
    files: Sequence[FileView]


def page(results: Results) -> Page:
    """The page that shows `results`."""
    checks = [_check(stream, f"check-{index}") for index, stream in enumerate(results.checks, start=1)]
    rows = [(stream, row) for stream in results.benchmarks for row in stream.rows]
    benchmarks = [_benchmark(stream, row, f"bench-{index}") for index, (stream, row) in enumerate(rows, start=1)]
    statuses = [check.summary.status for check in checks] or [bench.status for bench in benchmarks]
    status = next((found for found in (Status.RED, Status.AMBER) if found in statuses), Status.GREEN)
    models = [*dict.fromkeys([*(c.title for c in checks), *(visible(row.model, 80) for _, row in rows)])]
    title = f"{models[0]} · onnx-arch" if len(models) == 1 else "onnx-arch report"
    files = [_file(stream, f"results-{n}") for n, stream in enumerate((*results.checks, *results.benchmarks), start=1)]
    if not statuses:
        return Page(title, Status.AMBER, "Nothing was judged or measured.", checks, benchmarks, files)
    return Page(title, status, _headline(checks, benchmarks), checks, benchmarks, files)


def _headline(checks: Sequence[CheckView], benchmarks: Sequence[BenchView]) -> str:
    if len(checks) == 1:
        return checks[0].summary.headline
    if not checks:
        return benchmarks[0].verdict if len(benchmarks) == 1 else f"{len(benchmarks):,} benchmarks."
    red = [check.title for check in checks if check.summary.status is Status.RED]
    if red:
        return f"{len(red):,} of {plural(len(checks), 'check')} failed: {', '.join(red[:5])}{', …' * (len(red) > 5)}."
    amber = sum(check.summary.status is Status.AMBER for check in checks)
    if amber:
        return f"Nothing failed, but {amber:,} of {plural(len(checks), 'check')} left something not judged."
    return f"All judged, all green: {plural(len(checks), 'check')}, {subjects_of(checks)}."


def subjects_of(checks: Sequence[CheckView]) -> str:
    """How many rows `checks` hold together."""
    return plural(sum(len(check.rows) for check in checks), "result")


def _check(stream: Stream, anchor: str) -> CheckView:
    summary = summarise(stream)
    looks = {outcome: style(row) for outcome in Outcome for row in stream.rows if row.outcome is outcome}
    counts = [(outcome.value, count, looks[outcome]) for outcome, count in summary.counts.items() if count]
    return CheckView(
        anchor=anchor,
        title=visible(stream.header.model, 80),
        source=visible(stream.source, 200),
        summary=summary,
        counts=counts,
        first_failure=_first_failure(summary.first_failed),
        unjudged=[(who(row), visible(row.message, 300) or row.outcome.value) for row in summary.unjudged],
        rows=[_row(index, row) for index, row in enumerate(stream.rows)],
        bits=bits_picture(stream.rows),
        growth=growth_picture(stream.rows),
        facts=_check_facts(stream),
    )


def _first_failure(row: NodeResult | None) -> str:
    if row is None:
        return ""
    said = (visible(row.message, 600) or row.outcome.value).removesuffix(".")
    explained = f" Explained by {visible(row.fingerprint, 200)}." if row.fingerprint else ""
    return f"{who(row)}: {said}.{explained}"


def _check_facts(stream: Stream) -> Facts:
    header, footer = stream.header, stream.footer
    found = [("judged", subjects(stream.rows)), ("model sha256", visible(header.model_sha256))]
    found += [("command", visible(" ".join(header.command)))]
    found += [("file", visible(stream.source))] if stream.source else []
    found += facts(header.options) + facts(header.environment)
    if footer is not None:
        memory = {f"peak memory of {name}": size(count) for name, count in footer.peak_memory_bytes.items()}
        found += [("duration", duration(footer.duration_s)), *((visible(name), text) for name, text in memory.items())]
    return found


def _row(index: int, row: NodeResult) -> RowView:
    used = allowance_used(row)
    return RowView(
        index=index,
        name=visible(row.node),
        operator=visible(row.op_type) if row.kind != "output" else "model output",
        outcome=row.outcome.value,
        style=style(row),
        rule=visible(row.rule),
        used=Cell(percent(used), _key(used)),
        used_width=None if used is None else round(100 * min(used, 1.0), 1),
        bits=_cell(row.bits),
        max_abs=_cell(row.max_abs),
        inherited=_cell(row.inherited_max_abs),
        max_z=_cell(row.max_z),
        rms_z=_cell(row.rms_z),
        tensors="; ".join(_tensors(row)),
        domain=visible(row.domain),
        fingerprint=visible(row.fingerprint),
        message=visible(row.message),
    )


def _tensors(row: NodeResult) -> Iterable[str]:
    for index, name in enumerate(row.outputs):
        dtype = row.dtypes[index] if index < len(row.dtypes) else None
        shape = row.shapes[index] if index < len(row.shapes) else None
        dims = "" if shape is None else f"[{', '.join(str(dim) for dim in shape)}]"
        kind = f"{visible(dtype or '')}{dims}"
        yield f"{visible(name)}: {kind}" if kind else visible(name)


def _cell(value: float | None) -> Cell:
    return Cell(figure(value), _key(value))


def _key(value: float | None) -> str:
    return _SORTED_LAST if value is None or math.isnan(value) else repr(float(value)).replace("inf", "Infinity")


def _benchmark(stream: BenchStream, row: BenchmarkResult, anchor: str) -> BenchView:
    title = visible(row.model, 80) + ("" if row.batch is None else f", batch {row.batch:,}")
    warnings = [] if stream.complete else ["The benchmark was cut off: other rows may be missing."]
    warnings += [f"{name} was not steady when its samples were taken." for name, s in sides(row) if not s.steady]
    identity: Mapping[str, Any] = {"model sha256": row.model_sha256, "dims": row.dims, "seed": row.seed}
    command = [("command", visible(" ".join(stream.header.command))), ("file", visible(stream.source))]
    return BenchView(
        anchor=anchor,
        title=title,
        status=bench_status(row),
        verdict=verdict(row),
        interval=interval_in_words(row),
        samples=samples_picture(row),
        ratio=ratio_picture(row),
        sides=[SideView(name, _figures(side), op_type_bars(side), visible(side.message)) for name, side in sides(row)],
        facts=[*facts(identity), *command, *facts(stream.header.options), *facts(stream.header.environment)],
        warnings=warnings,
    )


def _figures(side: Measurement) -> Facts:
    found = [
        ("median", duration(side.median_s)),
        ("p95", duration(side.p95_s)),
        ("items per second", figure(side.items_per_s)),
        ("cold start", duration(side.cold_start_s)),
        ("of it, loading", duration(side.load_s)),
        ("first run", duration(side.first_run_s)),
        ("peak memory", size(side.peak_memory_bytes)),
        ("samples", f"{len(side.samples_s):,}"),
        ("drift", figure(side.drift)),
        ("provider", visible(side.provider)),
        ("optimisation", visible(side.optimization)),
        ("threads", "the runtime's default" if side.threads is None else f"{side.threads:,}"),
        ("versions", ", ".join(f"{visible(name)} {visible(version)}" for name, version in side.versions.items())),
        ("outcome", side.outcome.value),
    ]
    return [(label, text) for label, text in found if text not in ("", ABSENT)]


def _file(stream: Stream | BenchStream, fallback: str) -> FileView:
    records: list[HasKind] = [stream.header, *stream.rows]
    records += [] if stream.footer is None else [stream.footer]
    name = PurePath(visible(stream.source)).name or fallback
    return FileView(name, [encode_line(record) for record in records])
