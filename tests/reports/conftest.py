"""Streams of checks and benchmarks made by code: as a run would write them, of any size and with any names."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_arch.benchmarks.results import (
    BenchFooter,
    BenchHeader,
    BenchmarkResult,
    BenchOutcome,
    Measurement,
    OpTypeTime,
)
from onnx_arch.conformance.results import RED, Footer, Header, NodeResult, Outcome, count_outcomes
from onnx_arch.conformance.stream import Stream
from onnx_arch.reports.combine import BenchStream

ENVIRONMENT = {
    "cpu": "Example CPU 9000 @ 2.40GHz",
    "cores": 4,
    "memory_bytes": 16_000_000_000,
    "system": "Linux 6.1 x86_64",
    "python": "3.11.7",
    "versions": {"onnx": "1.23.2", "onnxruntime": "1.32.0", "numpy": "2.4.6"},
}
OPTIONS = {"runtime": "onnxruntime", "provider": "cpu", "optimization": "disabled", "inputs": "random", "seed": 0}

HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</script><script>alert(3)</script>",
    "'; alert(4); //",
    "<!--<script>",
    "]]></failure>",
    "{{ 7 * 7 }}{% raw %}",
    "שלום עולם",
    "evil\u202egnp.exe",
    "\x1b[31mred\x1b[0m\x07\x00",
    "new\nline\r\ttab",
    "| pipe `code` *bold* [link](http://example.com) @someone #12",
    "日本語/ノード:0",
    "x" * 10_000,
    "",
)


def row(node: str = "Conv_0", op_type: str = "Conv", outcome: Outcome = Outcome.PASSED, **fields: Any) -> NodeResult:
    """A row of an operator with rounding; every field can be given."""
    figures: dict[str, Any] = {
        "outputs": (f"{node}_y",),
        "shapes": ((1, 8, 4, 4),),
        "dtypes": ("float32",),
        "rule": "dot(147)",
        "max_z": 3.2,
        "rms_z": 0.4,
        "allowed_rms_z": 1.6,
        "allowed_max_z": 16.0,
        "bits": 24.4,
        "max_abs": 2.4e-7,
        "inherited_max_abs": 5e-7,
        "domain": "",
    }
    return NodeResult(node=node, op_type=op_type, outcome=outcome, **(figures | fields))


def exact_row(node: str, op_type: str, **fields: Any) -> NodeResult:
    """A row of an operator that moves data."""
    nothing = dict.fromkeys(("max_z", "rms_z", "allowed_rms_z", "allowed_max_z", "bits"), None)
    return row(node, op_type, rule="exact", max_abs=0.0, **(nothing | fields))


def check(rows: Sequence[NodeResult], *, complete: bool | None = True, **fields: Any) -> Stream:
    """A stream that holds `rows`; `complete` None leaves the footer out."""
    header: dict[str, Any] = {
        "command": ("check", "resnet18.onnx"),
        "model": "resnet18.onnx",
        "model_sha256": "0123456789abcdef" * 4,
        "environment": ENVIRONMENT,
        "options": OPTIONS,
        "nodes": len(rows),
    }
    first = next((r.node for r in rows if r.outcome in RED), None)
    memory = {"check": 812_000_000, "worker": 240_000_000}
    footer = Footer(count_outcomes(list(rows)), 4.2, memory, first, complete=bool(complete))
    return Stream(Header(**(header | fields)), tuple(rows), None if complete is None else footer, "run.jsonl")


def residual_network(blocks: int = 8, seed: int = 0) -> list[NodeResult]:
    """Rows like those of a residual network: convolutions with rounding, exact Relu between, errors that grow."""
    random = np.random.default_rng(seed)
    rows: list[NodeResult] = []
    error = 1e-7
    for index in range(blocks):
        for op_type in ("Conv", "Relu", "Conv", "Add", "Relu"):
            error *= float(random.uniform(1.0, 1.25))
            if op_type == "Relu":
                rows.append(exact_row(f"Relu_{len(rows)}", "Relu", inherited_max_abs=error))
                continue
            rms = float(random.uniform(0.2, 0.9))
            name = f"layer{index // 2 + 1}.{index % 2}.{op_type.lower()}_{len(rows)}"
            rule = f"dot({64 * 9 * 2 ** (index // 2)})" if op_type == "Conv" else "ulp(1)"
            bits = 24 - float(np.log2(rms))
            rows.append(row(name, op_type, rule=rule, rms_z=rms, bits=bits, max_abs=error / 5, inherited_max_abs=error))
    rows.append(row("Gemm_0", "Gemm", rule="dot(513)", inherited_max_abs=error))
    rows.append(row("logits", "", kind="output", rule="composed(4096)", inherited_max_abs=error))
    return rows


def side(runtime: str = "onnxruntime", median_s: float = 0.021, seed: int = 0, **fields: Any) -> dict[str, Any]:
    """Fields of one measured side with log-normal samples."""
    samples = median_s * np.random.default_rng(seed).lognormal(0.0, 0.06, 400)
    figures: dict[str, Any] = {
        "runtime": runtime,
        "provider": "cpu",
        "versions": {"python": "3.11.7", runtime: "1.32.0"},
        "threads": 2,
        "cold_start_s": 0.31,
        "load_s": 0.12,
        "first_run_s": median_s * 2,
        "steady": True,
        "block_size": 10,
        "samples_s": tuple(float(sample) for sample in samples),
        "median_s": float(np.median(samples)),
        "p95_s": float(np.quantile(samples, 0.95)),
        "items_per_s": 1 / median_s,
        "drift": 1.01,
        "peak_memory_bytes": 151_000_000,
    }
    return figures | fields


def bench(rows: Sequence[BenchmarkResult] | None = None, *, complete: bool | None = True) -> BenchStream:
    """A benchmark stream; by default one model in ONNX Runtime against PyTorch."""
    rows = [bench_row()] if rows is None else rows
    counts = {outcome.value: 0 for outcome in BenchOutcome} | {"measured": len(rows)}
    footer = None if complete is None else BenchFooter(counts, 12.0, complete)
    header = BenchHeader(("bench", "resnet18.onnx"), ENVIRONMENT, {"provider": "cpu", "duration_s": 3.0}, len(rows))
    return BenchStream(header, tuple(rows), footer, "bench.jsonl")


def bench_row(**fields: Any) -> BenchmarkResult:
    """ResNet-18 in ONNX Runtime against PyTorch eager."""
    op_types = tuple(
        OpTypeTime(name, share * 0.021, share, count, ("CPUExecutionProvider",))
        for name, share, count in (("Conv", 0.86, 20), ("Add", 0.06, 8), ("Relu", 0.05, 17), ("Gemm", 0.03, 1))
    )
    figures: dict[str, Any] = {
        **side(optimization="all", op_types=op_types),
        "model": "resnet18.onnx",
        "model_sha256": "0123456789abcdef" * 4,
        "batch": 1,
        "against": Measurement(**side("torch-eager", 0.034, seed=1)),
        "ratio": 0.62,
        "ratio_interval": (0.6, 0.64),
    }
    return BenchmarkResult(**(figures | fields))


@pytest.fixture
def make() -> SimpleNamespace:
    """The factories above, by name."""
    functions: tuple[Callable[..., Any], ...] = (row, exact_row, check, residual_network, side, bench, bench_row)
    return SimpleNamespace(**{function.__name__: function for function in functions}, hostile_names=HOSTILE_NAMES)
