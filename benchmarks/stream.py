"""Write and read a benchmark's JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ..errors import StreamError
from .results import BenchFooter, BenchHeader, BenchmarkResult, BenchRow, from_json, to_json_line


@dataclass(frozen=True)
class BenchRun:
    """A whole stream; `footer` is None if the run was cut off."""

    header: BenchHeader
    results: tuple[BenchmarkResult, ...]
    footer: BenchFooter | None


def write_row(row: BenchRow, stream: TextIO) -> None:
    """One line, written out at once: what is measured is never lost."""
    stream.write(to_json_line(row) + "\n")
    stream.flush()


def read_run(path: Path) -> BenchRun:
    """The stream in a file.

    Raises:
        StreamError: not a benchmark stream, another version, or malformed; says in which line. A last line without
            its newline is one that was being written when the run was cut off, and is left out.
    """
    with path.open(encoding="utf-8") as stream:
        return parse_run(stream, path.name)


def parse_run(lines: Iterable[str], name: str) -> BenchRun:
    """The stream in `lines`, of a file called `name`; see `read_run`."""
    rows = [_parse(line, f"{name}, line {number}") for number, line in enumerate(lines, 1) if line.endswith("\n")]
    if not rows or not isinstance(rows[0], BenchHeader):
        raise StreamError(f"{name}: a benchmark begins with a bench_header line")
    footers = [row for row in rows if isinstance(row, BenchFooter)]
    if footers and rows.index(footers[0]) != len(rows) - 1:
        raise StreamError(f"{name}: {len(rows) - 1 - rows.index(footers[0])} lines after the footer")
    results = tuple(row for row in rows if isinstance(row, BenchmarkResult))
    return BenchRun(rows[0], results, footers[0] if footers else None)


def _parse(line: str, where: str) -> BenchRow:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise StreamError(f"{where}: no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise StreamError(f"{where}: a JSON object is expected, not {type(fields).__name__}")
    try:
        return from_json(fields)
    except StreamError as error:
        raise StreamError(f"{where}: {error}") from error
