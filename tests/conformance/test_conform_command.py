"""`onnx-arch conform` as a user runs it: right and wrong runtimes, crashes, hangs, resuming, files, bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from onnx_arch.conformance.results import Outcome
from onnx_arch.conformance.stream import partial_path, read_stream
from onnx_arch.conformance.suites.finding import parse_opsets
from onnx_arch.errors import InvalidArgumentError
from onnx_arch.runtimes.environment import cores

from .command_models import assert_refused, json_lines
from .conform_runs import NODE_BY_NODE, Conform, conform_command, rows_of


@pytest.fixture
def conform(capfd: pytest.CaptureFixture[str]) -> Conform:
    return conform_command(capfd)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch):
    """Chooses the fault of the bad runtime, and the operators that it touches."""

    def choose(fault: str, op_types: str = "") -> tuple[str, str]:
        monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", fault)
        if op_types:
            monkeypatch.setenv("ONNX_ARCH_TEST_OP_TYPES", op_types)
        return ("--runtime", NODE_BY_NODE)

    return choose


# Right and wrong runtimes


def test_right_runtime_is_status_0_and_counts_its_cases(conform: Conform) -> None:
    status, out, err = conform("--op", "Relu", "--op", "MatMul")
    assert (status, err) == (0, "")
    assert out.strip().splitlines()[-1] == "All judged, all green: 11 cases. (11 passed)"


def test_own_graphs_of_function_bodies_are_judged_with_their_operator(conform: Conform, tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    assert conform("--op", "Softmax", "--suite", "onnx:node", "--json", file, "-q")[0] == 0
    rows = rows_of(file)
    assert rows["test_softmax_axis_0"].rule.startswith("composed")
    assert rows["test_softmax_axis_0_expanded_ver18"].rule == "propagated"
    assert {row.op_type for row in rows.values()} == {"Softmax"}
    assert {row.kind for row in rows.values()} == {"case"}


def test_dropped_product_fails_its_operator_and_no_other(conform: Conform, faulty, tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    runtime = faulty("drop_product")
    status, out, _ = conform(
        *runtime, "--op", "MatMul", "--op", "Relu", "--op", "Add", "--opset", "9..", "--json", file
    )
    rows = rows_of(file)
    wrong = {row.op_type for row in rows.values() if row.outcome is Outcome.FAILED}
    assert (status, wrong) == (1, {"MatMul"})
    assert all(row.outcome is Outcome.FAILED for row in rows.values() if row.op_type == "MatMul")
    assert "test_matmul_2d" in out


def test_wrong_dtype_fails_though_its_values_are_right(conform: Conform, faulty, tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    assert conform(*faulty("wrong_dtype"), "--op", "Relu", "--json", file)[0] == 1
    assert rows_of(file)["test_relu"].message.startswith("dtype float64, expected float32")


def test_crash_costs_its_own_cases_only(conform: Conform, faulty, tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    runtime = faulty("crash", "Sign")
    ops = ("--op", "Sign", "--op", "Relu", "--op", "Neg", "--op", "Floor")
    assert conform(*runtime, *ops, "--suite", "onnx:node", "--json", file, "--workers", 1)[0] == 1
    outcomes = {row.op_type: row.outcome for row in rows_of(file).values()}
    assert outcomes.pop("Sign") is Outcome.CRASHED
    assert set(outcomes.values()) == {Outcome.PASSED}
    assert "SIGSEGV" in rows_of(file)["test_sign"].message


def test_hang_costs_its_own_case_only_and_the_time_limit(conform: Conform, faulty, tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    runtime = faulty("hang", "Sign")
    ops = ("--op", "Sign", "--op", "Relu", "--suite", "onnx:node")
    assert conform(*runtime, *ops, "--json", file, "--time-limit", 2)[0] == 1
    outcomes = {row.op_type: row.outcome for row in rows_of(file).values()}
    assert outcomes == {"Sign": Outcome.HUNG, "Relu": Outcome.PASSED}
    assert rows_of(file)["test_sign"].message == "no answer within 2 s"


def test_operator_that_is_not_implemented_is_unsupported_and_red(conform: Conform, faulty, tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    assert conform(*faulty("not_implemented", "Relu"), "--op", "Relu", "--json", file)[0] == 1
    assert rows_of(file)["test_relu"].outcome is Outcome.UNSUPPORTED


@pytest.mark.skipif(cores() < 2, reason="two workers need two cores")
def test_two_workers_judge_the_same_as_one(conform: Conform, tmp_path: Path) -> None:
    one, two = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    words = ("--op", "Resize", "--op", "Clip", "--suite", "onnx:node")
    assert conform(*words, "--workers", 1, "--json", one)[0] == conform(*words, "--workers", 2, "--json", two)[0] == 1
    assert rows_of(one) == rows_of(two)


# Every part of the official suite


def test_sequences_strings_optionals_and_control_flow_are_judged(conform: Conform, tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    chosen = ("SplitToSequence", "SequenceInsert", "StringConcat", "Loop", "If", "Scan", "Optional")
    words = [word for op_type in chosen[:-1] for word in ("--op", op_type)]
    assert conform(*words, "--runtime", "onnxruntime", "--json", file, "-q")[0] == 0
    assert {row.op_type for row in rows_of(file).values()} == set(chosen[:-1])


def test_light_models_are_judged_whole(conform: Conform, tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    assert conform("--suite", "onnx:light", "--case", "*squeezenet", "--json", file, "-q")[0] == 0
    assert rows_of(file)["light_squeezenet"].outcome is Outcome.PASSED


def test_random_operators_are_judged_by_their_distribution(conform: Conform, tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    assert conform("--op", "Dropout", "--json", file, "-q")[0] == 0
    assert rows_of(file)["test_training_dropout_mask"].outcome is Outcome.PASSED


# Files and views


def test_json_on_standard_output_is_nothing_but_json(conform: Conform) -> None:
    status, out, err = conform("--op", "Relu", "--json", "-")
    records = json_lines(out)
    assert (status, err) == (0, "")
    assert [record["kind"] for record in records] == ["header", *["case"] * records[0]["nodes"], "footer"]
    assert records[0]["model"] == "suite onnx"
    assert records[0]["environment"]["runtime_versions"]["onnxruntime"]


def test_views_are_written_and_agree(conform: Conform, faulty, tmp_path: Path) -> None:
    junit, html, file = tmp_path / "r.xml", tmp_path / "r.html", tmp_path / "r.jsonl"
    words = ("--suite", "onnx:node", "--junit", junit, "--html", html, "--json", file)
    assert conform(*faulty("drop_product"), "--op", "MatMul", "--op", "Relu", *words)[0] == 1
    cases = ElementTree.parse(junit).getroot().findall(".//testcase")  # noqa: S314 (our own file)
    failed = {case.get("name") for case in cases if case.find("failure") is not None}
    assert failed == {name for name, row in rows_of(file).items() if row.red}
    assert len(cases) == len(rows_of(file))
    page = html.read_text(encoding="utf-8")
    assert "test_matmul_2d" in page
    assert "cases of" in page


def test_results_can_be_read_by_the_report(conform: Conform, tmp_path: Path, onnx_arch) -> None:
    file = tmp_path / "r.jsonl"
    conform("--op", "Relu", "--json", file)
    done = onnx_arch("report", file, "-o", "-", "--format", "markdown")
    assert done.returncode == 0, done.stderr
    assert "All judged, all green" in done.stdout


# Resuming and stopping


def test_resume_takes_over_what_was_judged_and_asks_for_the_rest(conform: Conform, faulty, tmp_path: Path) -> None:
    whole, cut, again = (tmp_path / name for name in ("whole.jsonl", "cut.jsonl", "again.jsonl"))
    words = (*faulty("none"), "--op", "Clip", "--suite", "onnx:node", "--workers", 1)
    assert conform(*words, "--json", whole)[0] == 0
    lines = whole.read_text(encoding="utf-8").splitlines()
    marked = json.loads(lines[1]) | {"message": "taken over"}
    cut.write_text("\n".join([lines[0], json.dumps(marked), *lines[2:5]]) + "\n", encoding="utf-8")
    assert conform(*words, "--json", again, "--resume", cut)[0] == 0
    assert rows_of(again).keys() == rows_of(whole).keys()
    assert rows_of(again)[marked["node"]].message == "taken over"


def test_resume_of_another_suite_is_refused_in_one_line(conform: Conform, tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    conform("--op", "Relu", "--json", file)
    assert_refused(conform("--op", "Sign", "--resume", file), "cannot be resumed")


def test_interrupt_keeps_what_was_judged_and_can_be_resumed(
    conform: Conform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, again = tmp_path / "r.jsonl", tmp_path / "again.jsonl"
    words = ["--runtime", NODE_BY_NODE, "--op", "Relu", "--op", "Sign", "--suite", "onnx:simple", "--workers", "1"]
    env = {**os.environ, "ONNX_ARCH_TEST_FAULT": "hang", "ONNX_ARCH_TEST_OP_TYPES": "Relu"}
    command = [sys.executable, "-c", "from onnx_arch.cli.main import main; main()", "conform", *words, "--json", file]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        partial = partial_path(file)
        for _ in range(600):
            if partial.exists() and partial.read_text(encoding="utf-8").count("\n") >= 2:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err == "onnx-arch: interrupted; what was computed is kept\n"
    assert not file.exists()
    stream = read_stream(partial)
    assert [row.node for row in stream.rows] == ["test_sign_model"]
    assert not stream.complete
    monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", "none")
    assert conform(*words, "--json", again, "--resume", file)[0] == 0
    assert rows_of(again).keys() == {"test_single_relu_model", "test_sign_model"}


# Bad input


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--suite", "onyx"], ["suite 'onyx'", "did you mean onnx"]),
        (["--suite", "onnx:nodes"], ["onnx:nodes", "onnx:node"]),
        (["--suite", "mined:nowhere"], ["mined:nowhere", "no such folder"]),
        (["--op", "Conf"], ["--op Conf", "did you mean Conv"]),
        (["--op", "Loop", "--suite", "generated"], ["--op Loop", "no cases are generated"]),
        (["--opset", "20..13"], ["--opset 20..13"]),
        (["--opset", "new"], ["--opset new", "A..B"]),
        (["--opset", "99..", "--op", "Relu"], ["no case is left"]),
        (["--runtime", "onxruntime", "--op", "Relu"], ["onxruntime", "onnxruntime"]),
        (["--python", "/nowhere/python", "--op", "Relu"], ["no Python interpreter"]),
        (["--expect", "nowhere.toml"], ["nowhere.toml"]),
        (["--workers", "9999", "--op", "Relu"], ["9999 workers", "cores"]),
        (["--compare", "a.jsonl", "b.jsonl"], ["cannot read a.jsonl"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_refused_in_one_line(conform: Conform, words: list[str], told: list[str]) -> None:
    assert_refused(conform(*words), *told)


def test_folder_without_models_is_refused(conform: Conform, tmp_path: Path) -> None:
    assert_refused(conform("--suite", f"mined:{tmp_path}"), "no .onnx file")


@pytest.mark.parametrize(
    ("text", "expected"), [("13..22", (13, 22)), ("18", (18, 18)), ("..9", (1, 9)), (" 7..8 ", (7, 8))]
)
def test_opsets_are_ranges(text: str, expected: tuple[int, int]) -> None:
    assert parse_opsets(text) == expected


@pytest.mark.parametrize("text", ["", "..", "a..b", "5-7", "0..3", "-1..3", "7..6", "1...3", "1..2..3"])
def test_opsets_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="--opset"):
        parse_opsets(text)


@pytest.mark.slow
def test_all_official_cases_have_a_verdict_and_failures_are_the_known_ones(
    conform: Conform, tmp_path: Path, repository: Path
) -> None:
    file = tmp_path / "r.jsonl"
    known = repository / "docs" / "known-failures" / "onnxruntime-1.32-cpu.toml"
    status, out, _ = conform("--json", file, "--expect", known)
    counts = Counter(row.outcome for row in rows_of(file).values())
    assert (status, counts[Outcome.UNJUDGED], counts[Outcome.SKIPPED]) == (0, 0, 0), out
    assert sum(counts.values()) > 2000


def test_interrupt_while_cases_are_drawn_ends_the_run(tmp_path: Path) -> None:
    """The first Ctrl-C ends the drawing; nothing has been judged."""
    code = (
        "import os, signal, onnx_arch.conformance.suites.finding as finding\n"
        "drawn = finding.drawn_cases\n"
        "def draw(op_types, *rest):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return drawn(op_types, *rest)\n"
        "finding.drawn_cases = draw\n"
        "from onnx_arch.cli.main import main\nmain()\n"
    )
    words = ["conform", "--suite", "generated", "--op", "Abs", "--op", "Neg", "--examples", "2"]
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "onnx-arch: interrupted; what was computed is kept\n"
