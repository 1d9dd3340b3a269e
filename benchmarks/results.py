"""What a benchmark says: frozen data, one JSON line per row, raw samples kept.

The stream of a run is a `bench_header`, one `benchmark` row per model and batch as they come, and a `bench_footer`.
No footer means a run that was cut off. Times are seconds, sizes bytes; a value that was not measured is None, never 0.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import StreamError

FORMAT_VERSION = 1


class BenchOutcome(enum.StrEnum):
    """What became of one measured thing. Only MEASURED is green."""

    MEASURED = "measured"
    CRASHED = "crashed"
    """A process died; the samples taken before are kept."""
    HUNG = "hung"
    """No answer within the time limit; the samples taken before are kept."""
    ERRORED = "errored"
    """The runtime raised an error."""
    UNSUPPORTED = "unsupported"
    """The runtime says that it does not implement this."""
    DISAGREED = "disagreed"
    """The two sides compute different results, so their speeds are not compared."""
    INTERRUPTED = "interrupted"
    """The user stopped the run; the samples taken before are kept."""


@dataclass(frozen=True)
class OpTypeTime:
    """Time of all nodes of one operator type, from the runtime's own profile, per run of the model.

    Attributes:
        op_type: operator as the runtime names it ("FusedConv" where it fused); with its domain if not ai.onnx.
        time_s: seconds per run, summed over the nodes of this type.
        share: of the time of all nodes, 0 to 1.
        count: nodes of this type that ran, per run.
        providers: where they ran ("CPUExecutionProvider", …), sorted.
    """

    op_type: str
    time_s: float
    share: float
    count: float
    providers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One side: a model in one runtime with one set of options.

    Attributes:
        runtime: name of the adapter ("onnxruntime", "torch-eager", …).
        versions: of python, numpy and the runtime, as its worker process says.
        provider: where it ran: "cpu" or "cuda".
        optimization: graph optimisation level; "" where the runtime has none.
        threads: intra-op threads that it was told to use; None where the runtime's default was left.
        outcome: MEASURED, or why there are no (or fewer) samples.
        message: "" or what went wrong, with numbers.
        cold_start_s: median of `cold_starts_s`.
        cold_starts_s: seconds from starting a new process to a loaded session, one per process started.
        load_s: seconds of these that loading the model took, median.
        first_run_s: the first run of the measured session, median over the processes started.
        warm_up_s: raw samples of the warm-up, not counted below.
        steady: whether the warm-up met the criterion of `sampling.is_steady` before its bound.
        block_size: samples of one uninterrupted block; sides alternate block by block.
        samples_s: raw samples in the order taken, `block_size` to a block.
        median_s, p95_s: of `samples_s`.
        items_per_s: batch / median_s.
        drift: median of the last third of the blocks over that of the first third; 1 is none.
        peak_memory_bytes: largest resident size of the worker process.
        op_types: time by operator type, largest first; empty where the runtime records no profile.
    """

    runtime: str
    provider: str
    versions: Mapping[str, str] = field(default_factory=dict)
    optimization: str = ""
    threads: int | None = None
    outcome: BenchOutcome = BenchOutcome.MEASURED
    message: str = ""
    cold_start_s: float | None = None
    cold_starts_s: tuple[float, ...] = ()
    load_s: float | None = None
    first_run_s: float | None = None
    warm_up_s: tuple[float, ...] = ()
    steady: bool = False
    block_size: int = 1
    samples_s: tuple[float, ...] = ()
    median_s: float | None = None
    p95_s: float | None = None
    items_per_s: float | None = None
    drift: float | None = None
    peak_memory_bytes: int | None = None
    op_types: tuple[OpTypeTime, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult(Measurement):
    """One row (`"kind": "benchmark"`): the measured model, and what it was compared with.

    Attributes:
        model: name of the bundle or file (no folder).
        model_sha256: over the model file and its external data.
        batch: items per run; None where the model has no batch dimension.
        dims: size given to each symbolic dimension.
        seed: of the random inputs.
        against: the other side, or None.
        disagreement: largest |difference| of the two sides' outputs over the largest |output|; None if not compared.
        ratio: this model's time over the other side's, median over the pairs of blocks; below 1 this one is faster.
        ratio_interval: bootstrap interval of `ratio` at `ratio_level`; None where there are too few blocks for one.
        ratio_level: confidence level of the interval, as 0.95.
    """

    model: str
    model_sha256: str = ""
    batch: int | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    against: Measurement | None = None
    disagreement: float | None = None
    ratio: float | None = None
    ratio_interval: tuple[float, float] | None = None
    ratio_level: float = 0.95
    kind: str = "benchmark"


@dataclass(frozen=True)
class BenchHeader:
    """First line (`"kind": "bench_header"`).

    Attributes:
        command: the words of the command.
        environment: versions and machine (`benchmarks.machine.describe`).
        options: how was measured: provider, threads, duration, warm-up criterion, bootstrap level, resamples, seed.
        rows: how many `benchmark` rows the run will have if it completes.
    """

    command: tuple[str, ...]
    environment: Mapping[str, Any]
    options: Mapping[str, Any]
    rows: int
    format_version: int = FORMAT_VERSION
    kind: str = "bench_header"


@dataclass(frozen=True)
class BenchFooter:
    """Last line (`"kind": "bench_footer"`).

    Attributes:
        counts: rows by outcome, every outcome named.
        duration_s: wall-clock seconds of the run.
        complete: False if the user stopped it.
    """

    counts: Mapping[str, int]
    duration_s: float
    complete: bool = True
    kind: str = "bench_footer"


BenchRow = BenchHeader | BenchmarkResult | BenchFooter


def count_outcomes(rows: Sequence[BenchmarkResult]) -> dict[str, int]:
    """Rows per outcome, every outcome named; a row counts as its worse side."""
    counts = {outcome.value: 0 for outcome in BenchOutcome}
    for row in rows:
        counts[worst_outcome(row).value] += 1
    return counts


def worst_outcome(row: BenchmarkResult) -> BenchOutcome:
    """The row's own outcome, or its other side's where only that one is not green."""
    if row.outcome is BenchOutcome.MEASURED and row.against is not None:
        return row.against.outcome
    return row.outcome


def to_fields(row: BenchRow) -> dict[str, Any]:
    """The row as the fields of its JSON line, its kind first."""
    return {"kind": row.kind, **dataclasses.asdict(row)}


def from_json(fields: Mapping[str, Any]) -> BenchRow:
    """The row that a parsed JSON line holds; fields that this version does not know are ignored.

    Raises:
        StreamError: another format version, an unknown kind, or a field that is missing or unusable.
    """
    kind = fields.get("kind")
    if kind == "bench_header" and fields.get("format_version") != FORMAT_VERSION:
        raise StreamError(f"benchmark format version {fields.get('format_version')}; this reads {FORMAT_VERSION}")
    if kind not in _READERS:
        raise StreamError(f"kind {kind!r} is not one of {', '.join(_READERS)}")
    try:
        return _READERS[kind](fields)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise StreamError(f"{kind} row: {error}") from error


def _known(cls: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    names = {entry.name for entry in dataclasses.fields(cls)}
    return {name: value for name, value in fields.items() if name in names}


def _header(fields: Mapping[str, Any]) -> BenchHeader:
    known = _known(BenchHeader, fields)
    return BenchHeader(**{**known, "command": tuple(known["command"])})


def _footer(fields: Mapping[str, Any]) -> BenchFooter:
    return BenchFooter(**_known(BenchFooter, fields))


def _measured(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a Measurement with the types that JSON does not keep."""
    typed = dict(fields)
    typed["outcome"] = BenchOutcome(fields["outcome"])
    for name in ("cold_starts_s", "warm_up_s", "samples_s"):
        typed[name] = tuple(float(sample) for sample in fields.get(name, ()))
    typed["op_types"] = tuple(_op_type(entry) for entry in fields.get("op_types", ()))
    return typed


def _op_type(fields: Mapping[str, Any]) -> OpTypeTime:
    return OpTypeTime(**{**_known(OpTypeTime, fields), "providers": tuple(fields.get("providers", ()))})


def _result(fields: Mapping[str, Any]) -> BenchmarkResult:
    typed = _measured(_known(BenchmarkResult, fields))
    if typed.get("against") is not None:
        typed["against"] = Measurement(**_measured(_known(Measurement, typed["against"])))
    if typed.get("ratio_interval") is not None:
        low, high = typed["ratio_interval"]
        typed["ratio_interval"] = (float(low), float(high))
    return BenchmarkResult(**typed)


_READERS = {"bench_header": _header, "benchmark": _result, "bench_footer": _footer}
