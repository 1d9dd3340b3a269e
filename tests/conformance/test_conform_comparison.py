"""What changed between two runs: changes for the worse are status 1, files that were cut off are named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from onnx_arch.conformance.comparison import WORSE, Change, compare
from onnx_arch.conformance.results import Footer, Header, NodeResult, Outcome
from onnx_arch.conformance.stream import Stream, StreamWriter
from onnx_arch.errors import StreamError

from .command_models import Outcome as CommandOutcome
from .command_models import assert_refused, json_lines
from .conform_runs import NODE_BY_NODE, Conform, conform_command, rows_of

HEADER = Header(("onnx-arch",), "suite onnx", "0", {"runtime_versions": {}}, {}, 1)


@pytest.fixture
def conform(capfd: pytest.CaptureFixture[str]) -> Conform:
    return conform_command(capfd)


def row(outcome: Outcome, name: str = "test_a", rms_z: float | None = None) -> NodeResult:
    return NodeResult(name, "Add", "", ("y",), outcome, rms_z=rms_z, kind="case")


def stream(*rows: NodeResult, complete: bool = True, source: str = "a.jsonl") -> Stream:
    footer = Footer({}, 1.0, complete=complete) if complete else None
    return Stream(dataclasses.replace(HEADER, nodes=max(1, len(rows))), rows, footer, source)


P, F, C, E, U, J, S = (
    Outcome.PASSED, Outcome.FAILED, Outcome.CRASHED, Outcome.ERRORED,
    Outcome.UNSUPPORTED, Outcome.UNJUDGED, Outcome.SKIPPED,
)  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (P, F, Change.NEWLY_FAILING),
        (P, U, Change.NEWLY_FAILING),
        (J, F, Change.NEWLY_FAILING),
        (F, P, Change.NEWLY_PASSING),
        (J, P, Change.NEWLY_PASSING),
        (F, C, Change.WORSE),
        (C, F, Change.OTHER_FAILURE),
        (E, U, Change.OTHER_FAILURE),
        (P, J, Change.LOST),
        (F, S, Change.LOST),
        (P, P, None),
        (F, F, None),
        (J, S, None),
    ],
    ids=str,
)
def test_outcome_changes_are_named(before: Outcome, after: Outcome, change: Change | None) -> None:
    found = compare(stream(row(before)), stream(row(after)))
    assert [item.change for item in found.changes] == ([change] if change else [])
    assert found.worse is (change in WORSE)
    assert sum(found.same.values()) == (change is None)


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (0.5, 2.1, Change.GROWN),
        (2.1, 0.5, Change.SHRUNK),
        (0.0, 3.0, Change.GROWN),
        (0.1, 0.9, None),
        (1.0, 3.9, None),
        (0.0, 0.0, None),
        (None, 8.0, None),
    ],
)
def test_errors_that_grow_by_two_bits_are_told(
    before: float | None, after: float | None, change: Change | None
) -> None:
    found = compare(stream(row(P, rms_z=before)), stream(row(P, rms_z=after)))
    assert [item.change for item in found.changes] == ([change] if change else [])


def test_cases_that_only_one_run_has_are_named_and_no_worse() -> None:
    found = compare(stream(row(P), row(F, "test_b")), stream(row(P), row(F, "test_c")))
    assert [(item.case, item.change) for item in found.changes] == [
        ("test_b", Change.ONLY_BEFORE),
        ("test_c", Change.ONLY_AFTER),
    ]
    assert not found.worse


def test_run_that_was_cut_off_is_said() -> None:
    found = compare(stream(row(P)), stream(row(P), complete=False, source="b.jsonl"))
    assert len(found.warnings) == 1
    assert "b.jsonl was cut off" in found.warnings[0]


def test_runs_without_a_common_case_are_refused() -> None:
    with pytest.raises(StreamError, match="no case in common"):
        compare(stream(row(P, "test_a")), stream(row(P, "test_b")))


def write(path: Path, *rows: NodeResult, complete: bool = True) -> Path:
    with StreamWriter(path) as writer:
        for record in (dataclasses.replace(HEADER, nodes=len(rows)), *rows, Footer({}, 1.0, complete=complete)):
            writer.write(record)
    return path


def run(conform: Conform, tmp_path: Path, before: Outcome, after: Outcome, *words: object) -> CommandOutcome:
    files = write(tmp_path / "a.jsonl", row(before)), write(tmp_path / "b.jsonl", row(after))
    return conform("--compare", *files, *words)


def test_command_is_status_1_where_something_got_worse(conform: Conform, tmp_path: Path) -> None:
    status, out, err = run(conform, tmp_path, P, F)
    assert (status, err) == (1, "")
    assert "newly failing" in out
    assert out.splitlines()[-1].startswith("1 case got worse (1 newly failing)")


def test_command_is_status_0_where_nothing_did(conform: Conform, tmp_path: Path) -> None:
    status, out, _ = run(conform, tmp_path, F, P)
    assert status == 0
    assert out.splitlines()[-1].startswith("Nothing got worse; 1 newly passing")


def test_command_writes_json_and_nothing_else(conform: Conform, tmp_path: Path) -> None:
    status, out, err = run(conform, tmp_path, P, F, "--json", "-")
    records = json_lines(out)
    assert (status, err) == (1, "")
    assert [record["kind"] for record in records] == ["comparison", "change", "summary"]
    assert records[1]["change"] == "newly failing"
    assert records[2]["worse"] is True


def test_command_says_that_a_file_was_cut_off(conform: Conform, tmp_path: Path) -> None:
    before, after = write(tmp_path / "a.jsonl", row(P)), write(tmp_path / "b.jsonl", row(P))
    lines = after.read_text(encoding="utf-8").splitlines()[:-1]
    after.write_text("\n".join(lines) + "\n", encoding="utf-8")
    status, out, _ = conform("--compare", before, after)
    assert status == 0
    assert "was cut off" in out


def test_command_refuses_what_is_no_results_file(conform: Conform, tmp_path: Path) -> None:
    before, after = write(tmp_path / "a.jsonl", row(P)), tmp_path / "b.jsonl"
    after.write_text(json.dumps({"kind": "nonsense"}) + "\n", encoding="utf-8")
    assert_refused(conform("--compare", before, after), "b.jsonl, line 1")


def test_bad_runtime_against_a_good_one_is_worse_where_it_is_bad(
    conform: Conform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    words = ("--runtime", NODE_BY_NODE, "--op", "MatMul", "--op", "Relu", "--suite", "onnx:node")
    monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", "none")
    assert conform(*words, "--json", good)[0] == 0
    monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", "drop_product")
    assert conform(*words, "--json", bad)[0] == 1
    status, out, _ = conform("--compare", good, bad, "--json", "-")
    changed = {line["op_type"] for line in json_lines(out) if line["kind"] == "change"}
    assert (status, changed) == (1, {"MatMul"})
    assert rows_of(good).keys() == rows_of(bad).keys()
