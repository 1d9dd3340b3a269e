"""The generated suite in a wrong runtime: failing cases come down to small ones that fail alike."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from onnx_arch.conformance.case_runner import CaseRunner
from onnx_arch.conformance.results import NodeResult, Outcome
from onnx_arch.conformance.shrinking import describe_call, smallest_failing, symptom
from onnx_arch.conformance.suites.case import Case
from onnx_arch.conformance.suites.drawn import as_case, drawn_cases
from onnx_arch.conformance.suites.finding import Choice, find_suite
from onnx_arch.runtimes.session import RuntimeOptions

from .conform_runs import NODE_BY_NODE, Conform, conform_command, rows_of


@pytest.fixture
def conform(capfd: pytest.CaptureFixture[str]) -> Conform:
    return conform_command(capfd)


WORDS = ("--suite", "generated", "--op", "MatMul", "--opset", "13", "--examples", "6", "--seed", "5")


def test_right_runtime_passes_generated_cases_seed_5(conform: Conform, tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    assert conform(*WORDS, "--op", "Add", "--json", file)[0] in (0, 1)
    outcomes = {row.outcome for row in rows_of(file).values()}
    assert outcomes <= {Outcome.PASSED, Outcome.UNSUPPORTED}
    assert Outcome.PASSED in outcomes


def test_wrong_runtime_fails_and_its_smallest_case_is_told_seed_5(
    conform: Conform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", "drop_product")
    file = tmp_path / "r.jsonl"
    assert conform(*WORDS, "--runtime", NODE_BY_NODE, "--json", file)[0] == 1
    failed = [row for row in rows_of(file).values() if row.outcome is Outcome.FAILED]
    assert failed
    assert all(row.smallest.startswith("MatMul-13(x0 float32") for row in failed)
    assert all(len(row.smallest) < 120 for row in failed), [row.smallest for row in failed]


def test_case_is_found_again_by_its_name_alone(conform: Conform, tmp_path: Path) -> None:
    first, again = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    conform(*WORDS, "--json", first, "--no-shrink")
    name = sorted(rows_of(first))[-1]
    conform("--suite", "generated", "--case", name, "--opset", "13", "--json", again, "--no-shrink")
    assert rows_of(again) == {name: rows_of(first)[name]}


NAME = next(iter(drawn_cases(["Add"], None, 3, 4))).name


def test_suite_of_one_name_needs_neither_its_seed_nor_its_operator() -> None:
    suite = find_suite("generated", Choice(names=(NAME,)))
    assert [case.name for case in suite.cases] == [NAME]


def size(case: Case) -> int:
    """Elements of all inputs."""
    assert case.generated is not None
    return sum(x.size for x in case.generated.call.inputs if x is not None)


def test_smaller_case_fails_with_the_same_symptom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", "raise")
    case = max(drawn_cases(["Add"], (14, 14), 7, 9), key=size)
    runner = CaseRunner(RuntimeOptions(runtime=NODE_BY_NODE, threads=1))
    try:
        row = runner.judge(case)
        found = smallest_failing(runner, case, row, threading.Event())
    finally:
        runner.close()
    assert row.outcome is Outcome.ERRORED
    assert found is not None
    assert symptom(found[1]) == symptom(row)
    assert size(as_case(found[0])) <= 2 < size(case)


def test_stopped_run_shrinks_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", "raise")
    case = next(iter(drawn_cases(["Add"], (14, 14), 7, 3)))
    runner, stop = CaseRunner(RuntimeOptions(runtime=NODE_BY_NODE, threads=1)), threading.Event()
    stop.set()
    try:
        assert smallest_failing(runner, case, runner.judge(case), stop) is None
    finally:
        runner.close()


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("errored: shape [2, 3] of node 'a' is wrong", "errored: shape [7] of node 'b' is wrong", True),
        ("errored: pads must be positive", "errored: axes must be sorted", False),
        ("failed: dtype float64, expected float32", "failed: shape [1], expected [2]", False),
        ("failed: 3 of 4 elements differ", "failed: |z| = 9 exceeds 2k = 8", True),
        ("failed: 3 of 4 elements differ", "crashed: killed by signal 11", False),
    ],
)
def test_symptom_leaves_out_what_is_particular(one: str, other: str, alike: bool) -> None:
    def row(text: str) -> NodeResult:
        outcome, _, message = text.partition(": ")
        return NodeResult("a", "Add", "", (), Outcome(outcome), message=message)

    assert (symptom(row(one)) == symptom(row(other))) is alike


def test_call_is_described_in_a_line() -> None:
    case = next(case for case in drawn_cases(["Clip"], (13, 13), 0, 20) if case.generated is not None)
    assert case.generated is not None
    text = describe_call(case.generated.call)
    assert text.startswith("Clip-13(x0 ")
    assert "\n" not in text


def test_generated_cases_are_written_with_their_inputs(tmp_path: Path) -> None:
    case = next(iter(drawn_cases(["Add"], (14, 14), 7, 3)))
    subject = case.subject()
    assert subject.write(tmp_path).name == "case.onnx"
    assert all(isinstance(value, np.ndarray) for value in subject.data_sets[0].values())
