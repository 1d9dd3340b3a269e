"""Several results files read as one: checks and benchmarks, of one model or of many."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO, cast

from ..benchmarks.results import BenchFooter, BenchHeader, BenchmarkResult, BenchRow, from_json
from ..conformance.json_lines import parse_line, read_runs, read_text, source_name, validated
from ..conformance.stream import Stream, read_streams
from ..errors import StreamError


@dataclass(frozen=True)
class BenchStream:
    """A benchmark file as read: `footer` is None if the run was cut off."""

    header: BenchHeader
    rows: tuple[BenchmarkResult, ...]
    footer: BenchFooter | None
    source: str = ""

    @property
    def complete(self) -> bool:
        """True if the run reached its end."""
        return self.footer is not None and self.footer.complete


@dataclass(frozen=True)
class Results:
    """What a report is about, in the order in which the files were given."""

    checks: tuple[Stream, ...] = ()
    benchmarks: tuple[BenchStream, ...] = ()


def read_results(paths: Sequence[str | os.PathLike[str]]) -> Results:
    """Read results files, each of checks or of a benchmark; its first line says which.

    Raises:
        StreamError: one of them is unreadable or malformed; the message names the file and the line.
    """
    streams = [stream for path in paths for stream in read_file(path)]
    checks = tuple(stream for stream in streams if isinstance(stream, Stream))
    return Results(checks, tuple(stream for stream in streams if isinstance(stream, BenchStream)))


def read_file(path: str | os.PathLike[str]) -> list[Stream] | list[BenchStream]:
    """Read one results file, of either sort: its runs.

    Raises:
        StreamError: unreadable or malformed.
    """
    name, text = os.fspath(path), read_text(path)
    source = io.StringIO(text)
    source.name = name
    first = text.partition("\n")[0]
    fields = parse_line(first, f"{name}, line 1") if first else {}
    return _read_benchmarks(source) if str(fields.get("kind")).startswith("bench") else read_streams(source)


def _read_benchmarks(source: TextIO) -> list[BenchStream]:
    runs = read_runs(source, _decode, BenchHeader, BenchFooter)
    return [_bench_stream(records, source_name(source)) for records in runs]


def _bench_stream(records: list[BenchRow], source: str) -> BenchStream:
    rows = tuple(record for record in records if isinstance(record, BenchmarkResult))
    footer = records[-1] if isinstance(records[-1], BenchFooter) else None
    return BenchStream(cast(BenchHeader, records[0]), rows, footer, source)


def _decode(fields: dict[str, Any], where: str) -> BenchRow:
    """One row: its kind and version as `from_json` reads them, and every value of its declared type."""
    try:
        kind = type(from_json(fields))
    except StreamError as error:
        raise StreamError(f"{where}: {error}") from error
    return validated(kind, fields, where)
