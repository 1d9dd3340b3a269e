"""Files of known failures: what they match, what they leave, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_arch.conformance.expectations import Expectation, Subject, read_expectations, surprises
from onnx_arch.conformance.results import NodeResult, Outcome
from onnx_arch.errors import InvalidArgumentError

from .command_models import assert_refused
from .conform_runs import NODE_BY_NODE, Conform, conform_command, rows_of

ORT = Subject("onnxruntime", {"onnxruntime": "1.32.0"}, "cpu")


@pytest.fixture
def conform(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Conform:
    monkeypatch.setenv("ONNX_ARCH_TEST_FAULT", "drop_product")
    return conform_command(capfd)


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "known.toml"
    file.write_text("format = 1\n" + text, encoding="utf-8")
    return file


def row(name: str, outcome: Outcome, op_type: str = "Add", domain: str = "") -> NodeResult:
    return NodeResult(name, op_type, domain, (), outcome, kind="case")


WORDS = ("--runtime", NODE_BY_NODE, "--op", "MatMul", "--suite", "onnx:node")


# At work


def test_known_failure_is_counted_and_named_and_leaves_the_status(conform: Conform, tmp_path: Path) -> None:
    file = write(tmp_path, '[[known]]\nop = "MatMul"\nreason = "a product is dropped"\nlink = "https://x.y/1"\n')
    results = tmp_path / "r.jsonl"
    status, out, err = conform(*WORDS, "--expect", file, "--json", results)
    rows = rows_of(results)
    assert (status, err) == (0, "")
    assert {item.outcome for item in rows.values()} == {Outcome.FAILED}
    assert {item.known for item in rows.values()} == {"a product is dropped https://x.y/1"}
    assert all(name in out for name in rows)
    assert "Nothing failed but what is known to" in out.splitlines()[-1]


def test_failure_that_no_row_knows_stays_red(conform: Conform, tmp_path: Path) -> None:
    file = write(tmp_path, '[[known]]\ncase = "test_matmul_2d"\nreason = "known"\n')
    results = tmp_path / "r.jsonl"
    assert conform(*WORDS, "--expect", file, "--json", results)[0] == 1
    assert not rows_of(results)["test_matmul_2d"].red
    assert rows_of(results)["test_matmul_3d"].red


def test_case_that_passes_against_a_row_is_named(conform: Conform, tmp_path: Path) -> None:
    text = '[[known]]\nop = "Relu"\nreason = "it was wrong once"\n'
    words = ("--runtime", NODE_BY_NODE, "--op", "Relu", "--suite", "onnx:node")
    status, out, _ = conform(*words, "--expect", write(tmp_path, text))
    assert status == 0
    assert "known failure passes: test_relu" in out
    status, out, _ = conform(*words, "--expect", write(tmp_path, "strict = true\n" + text))
    assert status == 1
    assert "row 1 (op Relu)" in out


def test_row_that_matches_no_case_of_a_whole_suite_is_named(conform: Conform, tmp_path: Path) -> None:
    text = 'strict = true\n[[known]]\ncase = "test_gone"\nreason = "it was removed"\n'
    words = ("--runtime", "onnxruntime", "--suite", "onnx:pytorch-operator", "--expect", write(tmp_path, text))
    status, out, _ = conform(*words)
    assert status == 1
    assert "known failure matches no case: row 1 (case test_gone)" in out


def test_row_of_a_case_that_was_not_asked_for_is_no_surprise(conform: Conform, tmp_path: Path) -> None:
    text = 'strict = true\n[[known]]\ncase = "test_gone"\nreason = "it was removed"\n'
    status, out, _ = conform(
        "--op", "Relu", "--suite", "onnx:node", "--runtime", "onnxruntime", "--expect", write(tmp_path, text)
    )
    assert status == 0
    assert "matches no case" not in out


# Rows


@pytest.mark.parametrize(
    ("item", "kept"),
    [
        (Expectation("r", op="Add"), True),
        (Expectation("r", op="Add", runtime="onnxruntime"), True),
        (Expectation("r", op="Add", runtime="openvino"), False),
        (Expectation("r", op="Add", version=">=1.30,<1.33"), True),
        (Expectation("r", op="Add", version="<1.32"), False),
        (Expectation("r", op="Add", provider="cuda"), False),
    ],
    ids=str,
)
def test_row_holds_for_its_runtime_version_and_provider(item: Expectation, kept: bool, tmp_path: Path) -> None:
    expectations = read_expectations(write(tmp_path, ""))
    held = type(expectations)((item,)).holding(ORT)
    assert bool(held.rows) is kept
    assert held.aside == (not kept)


def test_row_of_a_version_holds_for_no_runtime_that_does_not_say_its_own(tmp_path: Path) -> None:
    file = write(tmp_path, '[[known]]\nop = "Add"\nversion = ">1"\nreason = "r"\n')
    assert not read_expectations(file).holding(Subject("mine.py", {"python": "3.11"}, "cpu")).rows


def test_row_expects_only_the_outcomes_that_it_names() -> None:
    item = Expectation("r", op="Add", outcome=(Outcome.CRASHED,))
    assert item.explains(row("a", Outcome.CRASHED))
    assert not item.explains(row("a", Outcome.FAILED))
    assert not item.explains(row("a", Outcome.PASSED))
    assert not item.explains(row("a", Outcome.UNJUDGED))


def test_row_of_an_operator_is_of_its_domain() -> None:
    item = Expectation("r", op="com.microsoft::Gelu")
    assert item.explains(row("a", Outcome.FAILED, "Gelu", "com.microsoft"))
    assert not item.explains(row("a", Outcome.FAILED, "Gelu"))


def test_row_of_several_patterns_matches_each() -> None:
    item = Expectation("r", case=("test_a*", "test_b"))
    assert [item.concerns(row(name, Outcome.FAILED)) for name in ("test_abs", "test_b", "test_bc")] == [1, 1, 0]


def test_rows_may_be_strict_each_for_itself(tmp_path: Path) -> None:
    text = '[[known]]\nop = "Add"\nreason = "r"\nstrict = {}\n'
    for strict in (True, False):
        expectations = read_expectations(write(tmp_path, text.format(str(strict).lower())))
        found = surprises(expectations, [row("a", Outcome.PASSED)], whole=True)
        assert found.passing == {"row 1 (op Add)": ("a",)}
        assert found.strict is strict


# Files


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[known]\n", "no TOML"),
        ('[[known]]\nop = "Add"\n', "row 1, reason"),
        ('[[known]]\nop = "Add"\nreason = " "\n', "row 1 gives no reason"),
        ('[[known]]\nreason = "r"\n', "row 1 names neither a case nor an op"),
        ('[[known]]\nop = "Add"\nreason = "r"\n[[known]]\nopp = "Add"\nreason = "r"\n', "row 2 has a key 'opp'"),
        ("knwon = 1\n", "the file has a key 'knwon'"),
        ('[[known]]\nop = "Add"\nreason = "r"\nversion = "1.32 or so"\n', "version '1.32 or so'"),
        ('[[known]]\nop = "Add"\nreason = "r"\noutcome = ["passed"]\n', "outcome passed is no failure"),
        ('[[known]]\nop = "Add"\nreason = "r"\noutcome = ["bad"]\n', "row 1, outcome"),
        ('[[known]]\nop = 5\nreason = "r"\n', "row 1, op"),
        ('known = "all"\n', "known"),
    ],
    ids=lambda value: value.replace("\n", " "),
)
def test_malformed_file_is_refused_in_one_line(conform: Conform, tmp_path: Path, text: str, told: str) -> None:
    words = ("--op", "Relu", "--suite", "onnx:node", "--expect", write(tmp_path, text))
    assert_refused(conform(*words), "known.toml", told)


def test_file_of_another_format_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "known.toml"
    file.write_text("format = 2\n", encoding="utf-8")
    with pytest.raises(InvalidArgumentError, match="format"):
        read_expectations(file)


@pytest.mark.parametrize("name", ["onnxruntime-1.32-cpu.toml"])
def test_file_that_is_shipped_is_valid_and_gives_a_reason_for_every_row(repository: Path, name: str) -> None:
    expectations = read_expectations(repository / "docs" / "known-failures" / name)
    assert len(expectations.rows) > 20
    assert len(expectations.holding(ORT).rows) == len(expectations.rows)
    assert len({item.patterns or (item.op,) for item in expectations.rows}) == len(expectations.rows)
