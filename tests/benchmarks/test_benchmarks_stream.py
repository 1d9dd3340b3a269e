"""Benchmark rows as JSON lines: round trip, truncation, malformed files."""

from __future__ import annotations

import io
import json

import pytest

from onnx_arch.benchmarks.results import (
    BenchFooter,
    BenchHeader,
    BenchmarkResult,
    BenchOutcome,
    Measurement,
    OpTypeTime,
    count_outcomes,
    from_json,
    to_json_line,
)
from onnx_arch.benchmarks.stream import BenchRun, parse_run, read_run, write_row
from onnx_arch.errors import StreamError

HEADER = BenchHeader(("bench", "net"), {"cpu": "some"}, {"duration_s": 1.0}, rows=1)
ROW = BenchmarkResult(
    model="net",
    runtime="onnxruntime",
    provider="cpu",
    batch=1,
    samples_s=(0.1, 0.2),
    median_s=0.15,
    against=Measurement(runtime="torch-eager", provider="cpu", outcome=BenchOutcome.HUNG, message="600 s"),
    ratio=0.5,
    ratio_interval=(0.4, 0.6),
    op_types=(OpTypeTime("Conv", 0.1, 1.0, 1.0, ("CPUExecutionProvider",)),),
)
FOOTER = BenchFooter({"measured": 1}, 3.0)


def lines(*rows) -> list[str]:
    stream = io.StringIO()
    for row in rows:
        write_row(row, stream)
    return stream.getvalue().splitlines(keepends=True)


def test_rows_come_back_as_they_were(tmp_path) -> None:
    path = tmp_path / "bench.jsonl"
    path.write_text("".join(lines(HEADER, ROW, FOOTER)), encoding="utf-8")
    assert read_run(path) == BenchRun(HEADER, (ROW,), FOOTER)


def test_json_has_the_documented_names() -> None:
    fields = json.loads(to_json_line(ROW))
    named = {"kind", "model", "runtime", "provider", "batch", "threads", "cold_start_s", "first_run_s", "samples_s"}
    assert named | {"median_s", "p95_s", "against", "ratio", "ratio_interval", "op_types"} <= set(fields)
    assert fields["kind"] == "benchmark"
    assert fields["op_types"][0]["op_type"] == "Conv"
    assert fields["against"]["outcome"] == "hung"


def test_run_without_footer_is_read_as_cut_off() -> None:
    assert parse_run(lines(HEADER, ROW), "f").footer is None


def test_half_written_last_line_is_left_out() -> None:
    text = lines(HEADER, ROW)
    assert parse_run([*text, text[1][:40]], "f").results == (ROW,)


def test_field_of_a_later_version_is_ignored() -> None:
    assert from_json({**json.loads(to_json_line(ROW)), "joules": 3.0}) == ROW


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ([], "begins with"),
        (["{\n"], "line 1: no JSON"),
        (["3\n"], "a JSON object"),
        (['{"kind": "node"}\n'], "'node'"),
        (['{"kind": "bench_header", "format_version": 99}\n'], "version 99"),
        (['{"kind": "bench_header", "format_version": 1}\n'], "command"),
        ([*lines(HEADER), '{"kind": "benchmark", "outcome": "fine"}\n'], "line 2: benchmark row: 'fine'"),
        ([*lines(HEADER), '{"kind": "benchmark", "outcome": "measured"}\n'], "model"),
        (lines(ROW), "begins with"),
        (lines(HEADER, FOOTER, ROW), "1 lines after the footer"),
    ],
)
def test_malformed_stream_is_refused_with_its_line(text: list[str], words: str) -> None:
    with pytest.raises(StreamError, match=words):
        parse_run(text, "file.jsonl")


def test_row_counts_as_its_worse_side() -> None:
    counts = count_outcomes([ROW])
    assert counts["hung"] == 1
    assert counts["measured"] == 0
    assert set(counts) == {outcome.value for outcome in BenchOutcome}
