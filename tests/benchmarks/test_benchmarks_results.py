"""Benchmark rows as fields of JSON lines: round trip, malformed rows."""

from __future__ import annotations

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
    to_fields,
)
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


def through_json(row) -> object:
    """The row after it was a line of strict JSON."""
    return from_json(json.loads(json.dumps(to_fields(row), allow_nan=False)))


@pytest.mark.parametrize("row", [HEADER, ROW, FOOTER], ids=["header", "row", "footer"])
def test_rows_come_back_as_they_were(row) -> None:
    back = through_json(row)
    assert back == row
    assert type(back) is type(row)


def test_json_has_the_documented_names() -> None:
    fields = to_fields(ROW)
    named = {"kind", "model", "runtime", "provider", "batch", "threads", "cold_start_s", "first_run_s", "samples_s"}
    assert named | {"median_s", "p95_s", "against", "ratio", "ratio_interval", "op_types"} <= set(fields)
    assert next(iter(fields)) == "kind"
    assert fields["kind"] == "benchmark"
    assert fields["op_types"][0]["op_type"] == "Conv"
    assert fields["against"]["outcome"] == "hung"


def test_field_of_a_later_version_is_ignored() -> None:
    assert from_json({**to_fields(ROW), "joules": 3.0}) == ROW


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "None"),
        ({"kind": "node"}, "'node'"),
        ({"kind": "bench_header", "format_version": 99}, "version 99"),
        ({"kind": "bench_header", "format_version": 1}, "command"),
        ({"kind": "benchmark", "outcome": "fine"}, "'fine'"),
        ({"kind": "benchmark", "outcome": "measured"}, "model"),
        ({**to_fields(ROW), "ratio_interval": [1.0]}, "unpack"),
        ({**to_fields(ROW), "samples_s": 3}, "iterable"),
    ],
)
def test_malformed_row_is_refused(fields: dict, words: str) -> None:
    with pytest.raises(StreamError, match=words):
        from_json(fields)


def test_row_counts_as_its_worse_side() -> None:
    counts = count_outcomes([ROW])
    assert counts["hung"] == 1
    assert counts["measured"] == 0
    assert set(counts) == {outcome.value for outcome in BenchOutcome}
