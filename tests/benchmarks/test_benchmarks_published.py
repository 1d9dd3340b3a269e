"""The tables of the published sizes: what the commands wrote, and nothing where they wrote nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onnx_arch.benchmarks import published
from onnx_arch.benchmarks.published import Folder, document, measure
from onnx_arch.errors import CrashedError

COUNTS = {"passed": 3, "failed": 1, "unjudged": 1}
MEMORY = {"oracle": 2_000_000_000, "runtime": 3_000_000}
SIDE = {"outcome": "measured", "median_s": 0.5, "p95_s": 0.75}
ENVIRONMENT = {
    "cpu": "a processor",
    "physical_cores": 2,
    "memory_bytes": 8e9,
    "system": "Linux",
    "packages": {"onnx": "1"},
}


def _lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _run_of(model: str) -> list[dict[str, Any]]:
    outcomes = ("passed", "passed", "passed", "failed", "unjudged")
    rows = [{"kind": "node", "outcome": outcome} for outcome in outcomes]
    return [
        {"kind": "header", "model": model, "nodes": 5},
        *rows,
        {"kind": "footer", "counts": COUNTS, "peak_memory_bytes": MEMORY},
    ]


def _fill(at: Folder, **row: Any) -> None:
    at.file("json").write_text(json.dumps({"parameters": 12345, "bytes": 1e6, "peak_bytes": 2e9}))
    for level in published.LEVELS:
        at.file(f"{level}.jsonl").write_text(_lines(*_run_of("net/first"), *_run_of("net/second")))
    result = {"kind": "benchmark", "model": "net/first", "dims": {"batch": 1}, **SIDE, "against": SIDE, "ratio": 1.0}
    result |= {"ratio_interval": [0.9, 1.125], **row}
    at.file("bench.jsonl").write_text(_lines({"kind": "bench_header", "environment": ENVIRONMENT}, result))


def test_every_graph_and_level_has_a_row_with_its_outcomes(tmp_path: Path) -> None:
    at = Folder("net", tmp_path)
    _fill(at)
    text = document([at])
    assert "| `net` | 12,345 | 1 MB | 2 GB |" in text
    judged = "5 | 4 | 3 passed, 1 failed, 1 unjudged | 2 GB | 3 MB |"
    for graph in ("net/first", "net/second"):
        for level in published.LEVELS:
            assert f"| `{graph}` | {level} | {judged}" in text
    assert "| `net/first` | batch 1 | 500 ms | 750 ms | 500 ms | 1 | 0.9 to 1.12 |" in text
    assert "a processor, 2 cores, 8 GB; Linux; onnx 1" in text


def test_side_that_crashed_has_no_time(tmp_path: Path) -> None:
    at = Folder("net", tmp_path)
    _fill(at, against={"outcome": "crashed", "median_s": None}, ratio=None, ratio_interval=None)
    assert "| `net/first` | batch 1 | 500 ms | 750 ms | crashed | – | – |" in document([at])


def test_architecture_of_which_not_all_is_known_is_left_out(tmp_path: Path) -> None:
    at = Folder("net", tmp_path)
    _fill(at)
    at.file("bench.jsonl").unlink()
    assert "net" not in document([at])


def test_command_that_cannot_run_stops_and_leaves_nothing_that_looks_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "_RUN", "raise SystemExit(2)")
    at = Folder("net", tmp_path)
    with pytest.raises(CrashedError, match="status 2"):
        measure(at)
    assert not at.complete
    assert list(tmp_path.iterdir()) == []


def test_every_length_is_of_an_architecture_that_there_is() -> None:
    assert set(published.LENGTHS) <= set(published.listings())
