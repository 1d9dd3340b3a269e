"""The comparisons of docs/truth.md, and that docs/disagreements.md is complete in both directions."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from onnx_arch.conformance.results import Outcome

from .bodies import Body, bodies, compared
from .digits import Digits, attention, elementwise, rows
from .disagreements import (
    BODY,
    DECLARED,
    LEFT_OPEN,
    ONNX,
    RUNTIME,
    Difference,
    outlived,
    runtime_on_node_tests,
    undeclared,
)
from .official import SUITES, Official, judged, official, stored
from .pairs import PAIRS, agreement

QUICK = [suite for suite in SUITES if suite != "light"]


@pytest.fixture(scope="module")
def found() -> dict[str, list[Any]]:
    """Every output of every quick suite, judged."""
    return {suite: [row for case in official(suite) for row in judged(case)] for suite in QUICK}


def test_official_data_disagree_only_where_it_is_declared(found: dict[str, list[Any]]) -> None:
    every = [row for suite in found.values() for row in suite]
    differences = [
        Difference(ONNX, row.case.name, row.text)
        for row in every
        if row.outcome not in (Outcome.PASSED, Outcome.UNJUDGED)
    ]
    assert not undeclared(differences)
    assert not outlived(differences, ONNX)
    assert {row.case.name for row in every if row.outcome is Outcome.UNJUDGED} == set(LEFT_OPEN)


@pytest.mark.slow
def test_light_models_agree() -> None:
    for case in official("light"):
        assert [row.outcome for row in judged(case)] == [Outcome.PASSED], case.name


@pytest.mark.parametrize("name", ["test_softmax_example", "test_softmax_example_expanded", "test_add"])
def test_official_data_with_one_wrong_element_disagree(name: str) -> None:
    case = next(case for case in official("node") if case.name == name)
    proto = case.test.data_sets[0][1]
    values = stored(proto[0]).copy()  # the case is shared with the tests of operators
    values.flat[0] += 0.001 * abs(values.flat[0])
    test = dataclasses.replace(case.test, data_sets=[(case.test.data_sets[0][0], [values])])
    assert [row.outcome for row in judged(Official("node", test))] == [Outcome.FAILED]


def test_runtime_differs_on_node_tests_only_where_it_is_declared() -> None:
    witnessed = runtime_on_node_tests()
    assert not undeclared(witnessed.differences)
    assert not outlived(witnessed.differences, RUNTIME)
    assert witnessed.outcomes[Outcome.PASSED] > 1000


@pytest.mark.parametrize("body", bodies(), ids=str)
def test_kernel_agrees_with_its_function_body_unless_declared(body: Body, tmp_path: Path) -> None:
    items = list(compared(body, tmp_path))
    differs = [item.text for item in items if item.outcome is not Outcome.PASSED]
    assert bool(differs) == ((BODY, str(body)) in DECLARED), differs
    assert items


@pytest.mark.parametrize("table", [elementwise, rows, attention], ids=lambda table: table.__name__)
def test_kernels_keep_their_own_bounds_at_fifty_digits(table: Any) -> None:
    found: list[Digits] = list(table())
    beyond = [f"{item.name}: {item.worst:.3g} of the bound at {item.where}" for item in found if item.worst > 1]
    assert not beyond


@pytest.mark.parametrize("name", PAIRS)
def test_kernel_agrees_with_torch_in_float64(name: str) -> None:
    found = agreement(PAIRS[name], name)
    assert found.share <= 2, f"{found.distance:.3g} apart, {found.share:.3g} of the bound; both sides may use one"


@pytest.mark.parametrize("name", ["Conv", "Softmax", "Resize, cubic", "Attention"])
def test_pair_with_another_result_is_told_apart(name: str) -> None:
    pair = PAIRS[name]
    other = dataclasses.replace(pair, function=lambda x, *rest: pair.function(x * 1.001, *rest))
    assert agreement(other, name).share > 2


def test_documents_list_every_declaration(repository: Path) -> None:
    text = (repository / "docs" / "disagreements.md").read_text(encoding="utf-8")
    assert "(not explained)" not in text
    listed = set(re.findall(r"^\| ([^|]+) \| `([^`]+)` \| ", text, re.MULTILINE))
    assert set(DECLARED) <= listed
    assert {name for name, *_ in re.findall(r"^\| `([^`]+)` \| ", text, re.MULTILINE)} or LEFT_OPEN
    assert all(f"| `{name}` |" in text for name in LEFT_OPEN)
