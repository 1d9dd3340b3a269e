"""The verdict in words: green only if all was judged and passed and the run is whole."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_arch.conformance.results import RED, Footer, Header, NodeResult, Outcome, count_outcomes
from onnx_arch.conformance.stream import Stream
from onnx_arch.reports.summary import (
    Status,
    allowance_used,
    counts_in_words,
    subjects,
    summarise,
    worst_first,
)


def test_summary_of_whole_green_run_is_green(make: SimpleNamespace) -> None:
    summary = summarise(make.check([make.row("a"), make.row("b"), make.row("y", kind="output")]))
    assert summary.status is Status.GREEN
    assert summary.headline == "All judged, all green: 2 nodes and 1 output."
    assert summary.warnings == ()


@pytest.mark.parametrize("outcome", sorted(RED))
def test_summary_with_one_red_row_is_red_and_names_it(make: SimpleNamespace, outcome: Outcome) -> None:
    rows = [make.row("a"), make.row("bad", "Softmax", outcome), make.row("c", outcome=Outcome.UNJUDGED)]
    summary = summarise(make.check(rows))
    assert summary.status is Status.RED
    assert summary.first_failed == rows[1]
    assert summary.headline.startswith("1 node of 3 ")
    assert summary.headline.endswith("the first is bad (Softmax).")
    assert summary.unjudged == (rows[2],)


def test_summary_of_several_kinds_of_failure_counts_each(make: SimpleNamespace) -> None:
    rows = [make.row("a", outcome=Outcome.CRASHED), make.row("b", outcome=Outcome.FAILED), make.row("c")]
    headline = summarise(make.check(rows)).headline
    assert headline == "2 nodes of 3 went wrong (1 failed, 1 crashed); the first is a (Conv)."


def test_first_failure_is_a_node_even_if_an_output_comes_before(make: SimpleNamespace) -> None:
    rows = [make.row("y", "", Outcome.FAILED, kind="output"), make.row("conv", outcome=Outcome.FAILED)]
    first = summarise(make.check(rows)).first_failed
    assert first is not None
    assert first.node == "conv"


def test_first_failure_is_the_output_where_no_node_fails(make: SimpleNamespace) -> None:
    rows = [make.row("conv"), make.row("y", "", Outcome.FAILED, kind="output")]
    assert summarise(make.check(rows)).headline == "1 output of 2 failed; the first is output y."


@pytest.mark.parametrize("outcome", [Outcome.UNJUDGED, Outcome.SKIPPED])
def test_summary_with_row_not_judged_is_amber_and_names_it(make: SimpleNamespace, outcome: Outcome) -> None:
    summary = summarise(make.check([make.row("a"), make.row("odd", outcome=outcome)]))
    assert summary.status is Status.AMBER
    assert "odd" in summary.headline


def test_unjudged_rows_are_named_up_to_five(make: SimpleNamespace) -> None:
    rows = [make.row(f"n{index}", outcome=Outcome.UNJUDGED) for index in range(7)]
    assert "n0, n1, n2, n3, n4 and 2 more" in summarise(make.check(rows)).headline


@pytest.mark.parametrize(("complete", "says"), [(None, "has no footer"), (False, "was stopped")])
def test_truncated_run_is_never_green(make: SimpleNamespace, complete: bool | None, says: str) -> None:
    summary = summarise(make.check([make.row("a")], complete=complete, nodes=5))
    assert summary.status is Status.AMBER
    assert says in summary.warnings[0]
    assert "1 of 5 rows" in summary.warnings[0]
    assert "all green" not in summary.headline


def test_run_with_fewer_rows_than_announced_is_never_green(make: SimpleNamespace) -> None:
    summary = summarise(make.check([make.row("a")], nodes=2))
    assert summary.status is Status.AMBER
    assert summary.warnings == ("The header announces 2 rows, the file holds 1.",)


def test_footer_that_contradicts_the_rows_is_reported(make: SimpleNamespace) -> None:
    stream = make.check([make.row("a", outcome=Outcome.FAILED)])
    forged = dataclasses.replace(stream, footer=dataclasses.replace(stream.footer, counts={"passed": 1}))
    summary = summarise(forged)
    assert summary.status is Status.RED
    assert "counts in the footer" in summary.warnings[0]


def test_empty_run_is_amber(make: SimpleNamespace) -> None:
    summary = summarise(make.check([]))
    assert (summary.status, summary.headline) == (Status.AMBER, "Nothing was judged.")


@given(outcomes=st.lists(st.sampled_from(Outcome), min_size=1), complete=st.booleans())
def test_status_is_green_only_if_all_passed_and_complete(outcomes: list[Outcome], complete: bool) -> None:
    rows = tuple(NodeResult(f"n{i}", "Op", "", (), outcome) for i, outcome in enumerate(outcomes))
    stream = Stream(Header((), "m", "", {}, {}, len(rows)), rows, None)
    if complete:
        stream = dataclasses.replace(stream, footer=Footer(count_outcomes(list(rows)), 1.0))
    summary = summarise(stream)
    red = any(outcome in RED for outcome in outcomes)
    assert (summary.status is Status.RED) == red
    assert (summary.status is Status.GREEN) == (complete and set(outcomes) == {Outcome.PASSED})
    assert sum(summary.counts.values()) == len(outcomes)


@pytest.mark.parametrize(
    ("fields", "used"),
    [
        ({"rms_z": 0.4, "allowed_rms_z": 1.6, "max_z": 2.0, "allowed_max_z": 16.0}, 0.25),
        ({"rms_z": 0.4, "allowed_rms_z": 1.6, "max_z": 8.0, "allowed_max_z": 16.0}, 0.5),
        ({"rms_z": 0.4, "allowed_rms_z": None, "max_z": -3.0, "allowed_max_z": 2.0}, 1.5),
        ({"rms_z": 0.4, "allowed_rms_z": None, "max_z": 3.0, "allowed_max_z": None}, None),
        ({"rms_z": None, "allowed_rms_z": None, "max_z": 0.0, "allowed_max_z": 0.0}, 0.0),
        ({"rms_z": None, "allowed_rms_z": None, "max_z": 0.1, "allowed_max_z": 0.0}, math.inf),
        ({"rms_z": math.nan, "allowed_rms_z": 1.0, "max_z": 0.0, "allowed_max_z": 1.0}, math.inf),
        ({"rms_z": math.inf, "allowed_rms_z": 1.0, "max_z": math.inf, "allowed_max_z": 1.0}, math.inf),
        ({"rms_z": None, "allowed_rms_z": None, "max_z": 5.0, "allowed_max_z": math.inf}, 0.0),
    ],
)
def test_allowance_used_is_the_larger_share_of_the_bounds(
    make: SimpleNamespace, fields: dict[str, float | None], used: float | None
) -> None:
    assert allowance_used(make.row(**fields)) == used


def test_worst_first_puts_red_before_unjudged_before_least_headroom(make: SimpleNamespace) -> None:
    rows = [
        make.row("roomy", rms_z=0.1, max_z=0.1),
        make.row("tight", rms_z=1.5, max_z=0.1),
        make.exact_row("exact", "Relu"),
        make.row("odd", outcome=Outcome.UNJUDGED),
        make.row("bad1", outcome=Outcome.FAILED),
        make.row("bad2", outcome=Outcome.CRASHED),
    ]
    assert [row.node for row in worst_first(rows)] == ["bad1", "bad2", "odd", "tight", "roomy", "exact"]


def test_counts_in_words_name_outcomes_that_occur() -> None:
    assert counts_in_words({Outcome.FAILED: 1, Outcome.PASSED: 1068, Outcome.HUNG: 0}) == "1,068 passed, 1 failed"
    assert counts_in_words({}) == "no rows"


def test_subjects_tell_nodes_from_outputs(make: SimpleNamespace) -> None:
    output = make.row("y", kind="output")
    assert subjects([output, output]) == "2 outputs"
    assert subjects([make.row(), output]) == "1 node and 1 output"
    assert subjects([]) == "0 nodes"
