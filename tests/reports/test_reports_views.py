"""Terminal, JUnit and Markdown: the same rows, mapped honestly, with no name able to break out of its place."""

import copy
import io
import re
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from junitparser import JUnitXml
from markdown_it import MarkdownIt
from rich.console import Console

from onnx_arch.conformance.results import RED, Header, NodeResult, Outcome
from onnx_arch.conformance.stream import Stream
from onnx_arch.reports.combine import Results
from onnx_arch.reports.html import html
from onnx_arch.reports.junit import junit_xml
from onnx_arch.reports.markdown import escaped, markdown
from onnx_arch.reports.terminal import print_check, select_rows
from onnx_arch.reports.text import visible

ANY_TEXT = st.text(st.characters(exclude_categories=()))


def printed(stream: Stream, **options: object) -> str:
    text = io.StringIO()
    print_check(stream, Console(file=text, width=400, force_terminal=False), **options)  # type: ignore[arg-type]
    return text.getvalue()


def all_outcomes(make: SimpleNamespace) -> list[NodeResult]:
    return [make.row(f"{outcome}_node", outcome=outcome, message=f"why {outcome}") for outcome in Outcome]


def parsed(document: str) -> ElementTree.Element:
    return ElementTree.fromstring(document)  # noqa: S314 - our own output


# --- terminal ---------------------------------------------------------------------------------------------------------


def test_terminal_last_line_counts_outcomes_and_names_unjudged(make: SimpleNamespace) -> None:
    last = printed(make.check(all_outcomes(make))).splitlines()[-1]
    for outcome in Outcome:
        assert f"1 {outcome}" in last
    assert "Not judged: unjudged_node, skipped_node." in last


def test_terminal_shows_red_rows_whatever_the_limit(make: SimpleNamespace) -> None:
    text = printed(make.check(all_outcomes(make)), limit=1)
    for outcome in Outcome:
        assert (f"{outcome}_node " in text) == (outcome in RED)
        assert (f"why {outcome}" in text) == (outcome in RED)


def test_terminal_failures_only_shows_no_other_row(make: SimpleNamespace) -> None:
    assert [row.outcome for row in select_rows(all_outcomes(make), limit=None, failures_only=True)] == [
        outcome for outcome in Outcome if outcome in RED
    ]


def test_terminal_says_how_many_rows_it_hides(make: SimpleNamespace) -> None:
    text = printed(make.check([make.row(f"n{index}") for index in range(30)]), limit=10)
    assert "… and 20 more" in text


def test_terminal_warns_of_truncated_run(make: SimpleNamespace) -> None:
    assert "it has no footer): 1 of 9 rows" in printed(make.check([make.row()], complete=None, nodes=9))


def test_terminal_prints_hostile_names_as_data(make: SimpleNamespace) -> None:
    rows = [make.row(f"[bold]{name}", outcome=Outcome.FAILED, message=name) for name in make.hostile_names]
    text = printed(make.check(rows))
    assert "[bold]<script>alert(1)</script>" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", text)


# --- JUnit ------------------------------------------------------------------------------------------------------------


def test_junit_maps_every_outcome(make: SimpleNamespace) -> None:
    root = parsed(junit_xml([make.check(all_outcomes(make))]))
    tags = {case.get("name"): [child.tag for child in case] for case in root.iter("testcase")}
    assert tags == {
        "passed_node": [],
        "failed_node": ["failure"],
        "crashed_node": ["error"],
        "hung_node": ["error"],
        "errored_node": ["error"],
        "unsupported_node": ["error"],
        "unjudged_node": ["skipped"],
        "skipped_node": ["skipped"],
    }
    suite = root.find("testsuite")
    assert suite is not None
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "8", "failures": "1", "errors": "4", "skipped": "2"}
    assert suite.get("time") == root.get("time") == "4.2"


def test_junit_case_carries_message_and_figures(make: SimpleNamespace) -> None:
    row = make.row("conv", outcome=Outcome.FAILED, message="rms z 96", rms_z=96.0, fingerprint="TF32 inputs")
    (failure,) = parsed(junit_xml([make.check([row])])).iter("failure")
    assert failure.get("message") == "rms z 96"
    assert "rms z: 96" in (failure.text or "").splitlines()
    assert "fingerprint: TF32 inputs" in (failure.text or "").splitlines()


def test_junit_of_truncated_run_has_an_error_of_its_own(make: SimpleNamespace) -> None:
    root = parsed(junit_xml([make.check([make.row()], complete=None, nodes=3)]))
    (error,) = root.iter("error")
    assert "1 of 3 rows" in (error.get("message") or "")
    assert root.get("errors") == "1"


def test_junit_holds_one_suite_per_run_with_its_environment(make: SimpleNamespace) -> None:
    document = JUnitXml.fromstring(junit_xml([make.check([make.row()]), make.check([], model="other.onnx")]).encode())
    suites = list(document)
    assert [suite.name for suite in suites] == ["resnet18.onnx", "other.onnx"]
    properties = {entry.name: entry.value for entry in suites[0].properties()}
    assert properties["versions · onnxruntime"] == "1.32.0"
    assert properties["optimization"] == "disabled"


@given(name=ANY_TEXT, message=ANY_TEXT)
@settings(max_examples=60)
def test_junit_of_any_name_is_well_formed_and_keeps_it(name: str, message: str) -> None:
    row = NodeResult(name, name, "", (name,), Outcome.FAILED, message=message)
    stream = Stream(Header((), name, "", {name: name}, {}, 1), (row,), None)
    root = parsed(junit_xml([stream]))
    case, _truncated = root.iter("testcase")
    assert case.get("name") == visible(name)
    assert case[0].get("message") == (visible(message) or "failed")


# --- Markdown ---------------------------------------------------------------------------------------------------------


def rendered(text: str) -> str:
    return MarkdownIt("gfm-like", {"linkify": False}).render(text)


@given(text=ANY_TEXT)
@settings(max_examples=200)
def test_escaped_text_renders_as_itself_and_nothing_else(text: str) -> None:
    inline = MarkdownIt("gfm-like", {"linkify": False}).parseInline(escaped(f"x{text}x"))[0].children or []
    assert {token.type for token in inline} <= {"text", "text_special"}
    assert "".join(token.content for token in inline) == visible(f"x{text}x")


@pytest.mark.parametrize(
    "text", ["http://evil.example", "www.evil.example", "WWW.evil.example", "a@b.example", "@user", "#12"]
)
def test_escaped_text_holds_nothing_that_github_links(text: str) -> None:
    assert not re.search(r"[@#]\w|://|www\.", re.sub(r"&#\d+;", " ", escaped(text)), re.IGNORECASE)


def test_markdown_lists_what_did_not_pass_with_reasons(make: SimpleNamespace) -> None:
    text = rendered(markdown(Results((make.check(all_outcomes(make)),))))
    not_passed, passed = text.split("Passed, closest to the bound first")
    for outcome in Outcome:
        assert (f"why {outcome}" in not_passed) == (outcome is not Outcome.PASSED)
    assert "passed_node" in passed


def test_markdown_tables_keep_their_columns_with_hostile_names(make: SimpleNamespace) -> None:
    rows = [make.row(name, outcome=Outcome.FAILED, message=name) for name in make.hostile_names]
    text = rendered(markdown(Results((make.check(rows, model=make.hostile_names[1]),))))
    table = text.split("<tbody>")[1].split("</tbody>")[0]
    assert table.count("<tr>") == len(rows)
    assert all(line.count("<td") == 9 for line in table.split("</tr>")[:-1])
    assert not re.search(r"<(script|img|a|code|strong)\b", table)


def test_markdown_of_benchmark_has_both_sides_and_the_interval(make: SimpleNamespace) -> None:
    text = rendered(markdown(Results((), (make.bench(),))))
    assert "1.61 × as fast as torch-eager" in text
    assert "between 0.6 and 0.64 at 95 %" in text
    assert "onnxruntime 1.32.0, cpu, all" in text


def test_markdown_warns_of_truncated_runs(make: SimpleNamespace) -> None:
    text = rendered(
        markdown(Results((make.check([make.row()], complete=None, nodes=9),), (make.bench(complete=None),)))
    )
    assert "1 of 9 rows" in text
    assert "benchmark was cut off" in text


# --- all --------------------------------------------------------------------------------------------------------------


def test_views_do_not_change_what_they_show(make: SimpleNamespace) -> None:
    results = Results((make.check(all_outcomes(make)),), (make.bench(),))
    before = copy.deepcopy(results)
    printed(results.checks[0])
    junit_xml(results.checks)
    assert markdown(results) == markdown(results)
    assert html(results) == html(results)
    assert results == before
