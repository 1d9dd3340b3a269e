"""What a benchmark says on a terminal."""

from __future__ import annotations

import dataclasses
import io

from rich.console import Console

from onnx_arch.benchmarks.results import BenchmarkResult, BenchOutcome, Measurement, OpTypeTime
from onnx_arch.cli.bench_table import operators_in_words, print_benchmarks, remarks

OTHER = Measurement(
    runtime="torch-eager",
    provider="cpu",
    versions={"torch": "2.13.0"},
    threads=2,
    steady=True,
    samples_s=(0.02,) * 4,
    median_s=0.02,
    p95_s=0.025,
    items_per_s=50.0,
    drift=1.02,
)
ROW = BenchmarkResult(
    model="net",
    runtime="onnxruntime",
    provider="cpu",
    versions={"onnxruntime": "1.32.0"},
    optimization="all",
    threads=2,
    batch=1,
    steady=True,
    samples_s=(0.01,) * 4,
    median_s=0.01,
    p95_s=0.0125,
    items_per_s=100.0,
    drift=0.95,
    first_run_s=0.5,
    cold_start_s=1.5,
    peak_memory_bytes=123_000_000,
    against=OTHER,
    ratio=0.5,
    ratio_interval=(0.4, 0.6),
    op_types=(OpTypeTime("Conv", 0.008, 0.8, 3.0), OpTypeTime("Gemm", 0.002, 0.2, 1.0)),
)


def printed(*rows: BenchmarkResult) -> str:
    stream = io.StringIO()
    print_benchmarks(rows, Console(file=stream, width=200, highlight=False))
    return stream.getvalue()


def test_table_has_a_line_per_side_with_its_figures() -> None:
    _, mine, theirs, *_ = (" ".join(line.split()) for line in printed(ROW).splitlines())
    assert mine == "net 1 onnxruntime 1.32.0, cpu, all 2 10 ms 12.5 ms 100 500 ms 1.5 s 123 MB"
    assert theirs == "net 1 torch-eager 2.13.0, cpu 2 20 ms 25 ms 50 – – –"


def test_verdict_interval_and_operators_follow() -> None:
    text = printed(ROW)
    assert "2 × as fast as torch-eager" in text
    assert "between 0.4 and 0.6" in text
    assert "Conv 80 % of 10 ms, Gemm 20 %" in text


def test_nothing_to_remark_on_a_quiet_machine() -> None:
    assert remarks(ROW) == []


def test_drift_and_an_unsteady_warm_up_are_remarked() -> None:
    noisy = dataclasses.replace(ROW, drift=1.5, against=dataclasses.replace(OTHER, steady=False))
    first, second = remarks(noisy)
    assert "drifted to 1.5 ×" in first
    assert "torch-eager" in second
    assert "never became steady" in second


def test_operators_beyond_five_are_left_out_with_a_mark() -> None:
    types = tuple(OpTypeTime(f"Op{index}", 0.001, 1 / 7, 1.0) for index in range(7))
    text = operators_in_words(dataclasses.replace(OTHER, op_types=types))
    assert text.count("Op") == 5
    assert text.endswith(", …")


def test_failed_row_says_what_happened_and_shows_no_ratio() -> None:
    crashed = dataclasses.replace(ROW, outcome=BenchOutcome.CRASHED, message="killed by SIGSEGV", ratio=None)
    text = printed(crashed)
    assert "crashed" in text
    assert "killed by SIGSEGV" in text
    assert "as fast as" not in text


def test_names_cannot_colour_the_terminal() -> None:
    text = printed(
        dataclasses.replace(ROW, model="\x1b[31mred", op_types=(OpTypeTime("[bold]\x1b[2J", 0.1, 1.0, 1.0),))
    )
    assert "\x1b" not in text
    assert "[bold]" in text


def test_nothing_measured_prints_nothing() -> None:
    assert printed() == ""
