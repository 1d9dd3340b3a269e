"""The tables of the project's own speed: ratios, demands, marks in a document, arguments. Nothing is timed."""

from __future__ import annotations

import pytest

from onnx_arch.benchmarks import speed
from onnx_arch.benchmarks.speed import SECTIONS, SpeedRow, in_unit, interleave, replace_section, run_python, table
from onnx_arch.errors import CrashedError


def blocks(*samples: float) -> list[list[float]]:
    return [[sample] for sample in samples]


def test_row_holds_a_ratio_against_its_demand() -> None:
    row = SpeedRow("a", "b", blocks(*[3.0] * 6), blocks(*[2.0] * 6), at_most=2.0)
    assert table([row]).splitlines()[-1] == "| a | 3 s | b | 2 s | 1.5 | 1.5 to 1.5 | ≤ 2 | yes |"


def test_row_above_its_demand_says_no() -> None:
    row = SpeedRow("a", "b", blocks(*[5.0] * 6), blocks(*[2.0] * 6), at_most=2.0)
    assert table([row]).splitlines()[-1].endswith("| ≤ 2 | **no** |")


def test_speed_up_is_the_other_over_the_measured() -> None:
    row = SpeedRow("a", "b", blocks(*[0.5] * 6), blocks(*[3.0] * 6), at_least=5.0)
    assert table([row]).splitlines()[-1] == "| a | 500 ms | b | 3 s | 6 × faster | 6 to 6 | ≥ 5 × faster | yes |"
    slow = SpeedRow("a", "b", blocks(*[0.5] * 6), blocks(*[2.0] * 6), at_least=5.0)
    assert "**no**" in table([slow])


def test_row_without_demand_or_with_few_rounds_says_so() -> None:
    row = SpeedRow("a", "b", blocks(1.0, 1.5), blocks(2.0, 2.0))
    assert table([row]).splitlines()[-1] == "| a | 1.25 s | b | 2 s | 0.625 | (0.5 to 0.75 in 2 rounds) |  |  |"


def test_interleave_flips_the_order_from_round_to_round() -> None:
    called: list[str] = []

    def subject(name: str, seconds: float):
        return lambda: called.append(name) or seconds

    found = interleave([subject("a", 1.0), subject("b", 2.0)], 3)
    assert called == ["a", "b", "b", "a", "a", "b"]
    assert found == [[[1.0]] * 3, [[2.0]] * 3]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.0123, "s", "12.3 ms"), (5e-7, "s", "0.5 µs"), (553e6, "bytes", "553 MB"), (None, "s", "–")],
)
def test_figure_is_told_in_its_unit(value: float | None, unit: str, text: str) -> None:
    assert in_unit(value, unit) == text


def test_section_of_a_document_is_replaced_and_the_rest_left() -> None:
    text = "before\n<!-- startup -->\nold\n<!-- /startup -->\nafter <!-- vgg16 -->\n<!-- /vgg16 -->"
    once = replace_section(text, "startup", r"| new \1 |")
    assert once == text.replace("old\n", "| new \\1 |\n")
    assert replace_section(once, "startup", r"| new \1 |") == once
    with pytest.raises(ValueError, match="export"):
        replace_section(text, "export", "x")


def test_document_has_the_marks_of_every_section() -> None:
    document = (speed.Path(speed.__file__).parent.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for name in SECTIONS:
        assert "x" in replace_section(document, name, "x")


def test_unknown_section_is_refused(capsys) -> None:
    with pytest.raises(SystemExit) as refused:
        speed.main(["nonsense"])
    assert refused.value.code == 2
    assert "no section 'nonsense'" in capsys.readouterr().err


def test_main_writes_the_table_into_the_document(tmp_path, monkeypatch, capsys) -> None:
    document = tmp_path / "doc.md"
    document.write_text("<!-- startup -->\n<!-- /startup -->\n", encoding="utf-8")
    monkeypatch.setattr(speed, "section", lambda name: f"table of {name}")
    speed.main(["startup", "--write", str(document)])
    assert document.read_text(encoding="utf-8") == "<!-- startup -->\ntable of startup\n<!-- /startup -->\n"
    assert "table of startup" in capsys.readouterr().out


def test_script_runs_in_a_process_of_its_own_and_its_failure_is_told() -> None:
    assert run_python("import sys; print(sys.argv[1])", "word") == "word\n"
    with pytest.raises(CrashedError, match="status 3 and said: no luck"):
        run_python("import sys; sys.stderr.write('first\\nno luck\\n'); sys.exit(3)")
