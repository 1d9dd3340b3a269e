"""The generated suite: cases are valid, repeatable, cover the schemas and shrink to what matters; findings stand."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_arch.conformance.generated import (
    GeneratedCase,
    covered_operators,
    find_case,
    generated_cases,
    shrink,
    uncovered_operators,
    versions,
)
from onnx_arch.conformance.generation.drawing import NodeCall
from onnx_arch.conformance.generation.engine import digest
from onnx_arch.conformance.generation.simplifying import simplified
from onnx_arch.conformance.generation.values import PATTERNS, array
from onnx_arch.conformance.results import Outcome
from onnx_arch.errors import InvalidArgumentError, UnknownEntryError
from onnx_arch.graphs.evaluation import evaluate_model
from onnx_arch.graphs.loading import load_model
from onnx_arch.operators.evaluation import prepare
from onnx_arch.operators.registry import entries
from onnx_arch.operators.storage import FLOAT_DTYPES, decode, encode

from .judged_nodes import judge

FINDINGS = Path(__file__).parents[2] / "findings"

WITHOUT_STRATEGY = {
    "If", "Loop", "Scan", "SequenceMap",  # subgraphs
    "ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert",
    "SequenceLength", "SplitToSequence", "Optional", "OptionalGetElement", "OptionalHasElement",  # no tensors
    "Constant", "ImageDecoder",  # no inputs; encoded pictures
}  # fmt: skip

REFUSED_BY_INFERENCE = re.compile(
    r"Indices tensor must have rank >= 1|either \[C\] or \[1,C\]|Number of elements of input 'sizes'|ParseData type"
    r"|Field 'shape' of 'type' is required|has inconsistent type"
)
"""Findings: inference of the installed onnx refuses what the text allows; and outputs whose rank it cannot tell."""


@pytest.mark.parametrize("op_type", covered_operators())
def test_generated_cases_of_every_operator_are_accepted_by_the_checker_seed_0(op_type: str) -> None:
    cases = list(generated_cases([op_type], seed=0, count=8))
    assert cases, f"{op_type}: no case at all"
    for case in cases:
        model = onnx.ModelProto.FromString(case.model.SerializeToString())
        refusal = _refusal(model)
        assert not refusal or REFUSED_BY_INFERENCE.search(refusal), f"{case.name}: {refusal}"


def _refusal(model: onnx.ModelProto) -> str:
    try:
        onnx.checker.check_model(model)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("op_type", [o for o in covered_operators() if any(k[:2] == ("", o) for k in entries())])
def test_generated_cases_are_computed_by_the_kernels_seed_1(op_type: str) -> None:
    for case in generated_cases([op_type], seed=1, count=6):
        call = case.call
        inputs = [None if x is None else x for x in call.inputs]
        prepared = prepare(
            op_type, inputs, _plain(call), opset=call.opset, output_count=len(call.outputs), stored=_stored(call)
        )
        outputs = prepared.outputs()
        assert len(outputs) >= sum(dtype is not None for dtype in call.outputs[:1]), case.name


def _plain(call: NodeCall) -> dict[str, object]:
    return dict(call.attributes)


def _stored(call: NodeCall) -> list[np.dtype | None]:
    return [None if x is None else x.dtype for x in call.inputs]


def test_generated_cases_same_seed_are_the_same_and_another_seed_gives_others() -> None:
    first, again, other = ([digest(c.call) for c in generated_cases(["Conv"], seed=s, count=12)] for s in (3, 3, 4))
    assert first == again
    assert set(first) != set(other)


def test_generated_cases_do_not_depend_on_which_operators_are_asked_for() -> None:
    alone = [c.name for c in generated_cases(["Add"], count=5)]
    among = [c.name for c in generated_cases(["Abs", "Add"], count=5) if c.op_type == "Add"]
    assert alone == among


def test_generated_cases_names_are_unique_and_found_again() -> None:
    cases = list(generated_cases(["Gemm"], seed=7, count=10))
    assert len({case.name for case in cases}) == len(cases)
    assert digest(find_case(cases[-1].name).call) == digest(cases[-1].call)


@pytest.mark.parametrize("name", ["", "Add", "Nothing-13-seed0-of5-0001", "Add-14-seed0-of5-9999"])
def test_find_case_unknown_name_raises(name: str) -> None:
    with pytest.raises(UnknownEntryError, match="no generated case"):
        find_case(name)


def test_generated_cases_refuse_operators_without_strategy_and_no_examples() -> None:
    with pytest.raises(UnknownEntryError, match="Loop"):
        list(generated_cases(["Add", "Loop"]))
    with pytest.raises(InvalidArgumentError, match="count=0"):
        list(generated_cases(["Add"], count=0))


def test_uncovered_operators_are_the_known_ones() -> None:
    assert set(uncovered_operators()) <= WITHOUT_STRATEGY
    assert not WITHOUT_STRATEGY & set(covered_operators())


def test_versions_of_an_operator_within_the_opsets() -> None:
    assert versions("Softmax", 11, 22) == (13, 11)
    assert versions("Softmax", 13, 22) == (13,)
    assert versions("Gelu", 13, 19) == ()
    assert versions("Cast", 14, 21) == (21, 19, 14)


def test_generated_cases_reach_ranks_types_and_special_values_seed_0() -> None:
    calls = [case.call for case in generated_cases(["Add", "Identity", "Transpose"], seed=0, count=150)]
    values = [x for call in calls for x in call.inputs if x is not None]
    assert {x.ndim for x in values} == {0, 1, 2, 3, 4, 5}
    assert any(x.size == 0 for x in values)
    assert {"float16", "bfloat16", "float64", "int64", "bool", "object", "float8_e5m2"} <= {
        x.dtype.name for x in values
    }
    floats = [decode(x) for x in values if x.dtype in FLOAT_DTYPES]
    with np.errstate(all="ignore"):
        assert any(np.isnan(x).any() for x in floats)
        assert any(np.isposinf(x).any() for x in floats)
        assert any(np.any((x == 0) & np.signbit(x)) for x in floats)
        assert any(np.any((np.abs(x) > 0) & (np.abs(x) < 1e-38)) for x in floats)


def test_generated_cases_reach_attributes_of_conv_seed_0() -> None:
    calls = [case.call for case in generated_cases(["Conv"], seed=0, count=150)]
    assert {"SAME_UPPER", "SAME_LOWER", "VALID"} <= {call.attributes.get("auto_pad") for call in calls}
    assert {1, 2, 3} <= {max(call.attributes.get("dilations", [1])) for call in calls}
    assert any(call.attributes.get("group", 1) > 1 for call in calls)
    assert {3, 4, 5} == {call.inputs[0].ndim for call in calls if call.inputs[0] is not None}


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
@pytest.mark.parametrize(
    "name", ["float32", "float16", "bfloat16", "float8_e4m3fn", "int8", "uint64", "bool", "object"]
)
def test_array_has_its_dtype_and_shape_and_repeats_seed_5(pattern: str, name: str) -> None:
    dtype = encode(np.zeros(1), np.dtype(np.float32)).dtype if name == "float32" else _dtype(name)
    one, two = (array(dtype, (3, 5), pattern, 5) for _ in range(2))
    assert one.dtype == dtype
    assert one.shape == (3, 5)
    assert str(one.tolist()) == str(two.tolist())
    if pattern not in ("special", "infinite") and dtype in FLOAT_DTYPES:
        assert np.isfinite(decode(one)).all()


def _dtype(name: str) -> np.dtype:
    import ml_dtypes  # noqa: PLC0415 (names NumPy lacks)

    return np.dtype(getattr(ml_dtypes, name, name))


def _wrong_beyond_sixteen(case: GeneratedCase) -> bool:
    """A faulty runtime: Add forgets everything from the 16th element on, which the checker must see."""
    call = case.call
    if call.op_type != "Add" or any(x is None or x.dtype != np.float32 for x in call.inputs):
        return False
    with np.errstate(all="ignore"):
        right = np.asarray(np.add(*call.inputs))
    faulty = right.copy()
    faulty.reshape(-1)[16:] = 0
    return judge("Add", call.inputs, faulty, opset=call.opset).outcome is Outcome.FAILED


def test_shrink_faulty_runtime_gives_the_smallest_failing_shapes_seed_0() -> None:
    failing = [case for case in generated_cases(["Add"], seed=0, count=120) if _wrong_beyond_sixteen(case)]
    assert failing, "no generated case has 17 elements: the fault cannot be seen"
    small = shrink(failing[-1], _wrong_beyond_sixteen)
    assert _wrong_beyond_sixteen(small)
    sizes = [x.size for x in small.call.inputs if x is not None]
    assert 17 <= max(sizes) <= 32
    assert max(sizes) <= max(x.size for x in failing[-1].call.inputs if x is not None)
    assert small.shrunk
    assert small.name == f"{failing[-1].name}-shrunk"


def test_shrink_what_fails_no_more_returns_the_case_itself_seed_0() -> None:
    case = next(iter(generated_cases(["Conv"], seed=0, count=20)))
    assert shrink(case, lambda _: False) is case


def test_shrink_runtime_that_fails_now_and_then_keeps_a_failing_case_seed_0() -> None:
    """A runtime that returns memory which nobody wrote is wrong or right by chance."""
    case = list(generated_cases(["Add"], seed=0, count=20))[-1]
    rng, failed = np.random.default_rng(0), set()

    def fails(asked: GeneratedCase) -> bool:
        wrong = bool(rng.random() < 0.5)
        if wrong:
            failed.add(digest(asked.call))
        return wrong

    small = shrink(case, fails)
    assert digest(small.call) in failed | {digest(case.call)}


def test_simplified_keeps_the_element_that_matters() -> None:
    x = np.asarray([0.25, -7.5, 1e30, 3.0], np.float32)
    call = NodeCall("Abs", 13, (x,), {}, (np.dtype(np.float32),))

    def fails(candidate: NodeCall) -> bool:
        value = candidate.inputs[0]
        return value is not None and float(value[2]) > 1e29

    plain = simplified(call, fails)
    assert plain.inputs[0] is not None
    assert plain.inputs[0].tolist() == [1.0, -1.0, float(np.float32(1e30)), 1.0]


def _module(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_module(FINDINGS / "record.py", "record")  # what the tables import
TABLE = (
    *_module(FINDINGS / "table.py", "findings_table").FINDINGS,
    *_module(FINDINGS / "openvino_table.py", "findings_openvino_table").FINDINGS,
    *_module(FINDINGS / "later_table.py", "findings_later_table").FINDINGS,
)
GRAPHS = _module(FINDINGS / "graph_table.py", "findings_graph_table").FINDINGS


@pytest.mark.parametrize("finding", [*TABLE, *GRAPHS], ids=[f.slug for f in (*TABLE, *GRAPHS)])
def test_findings_quote_the_schema_word_for_word(finding: Any) -> None:
    op_types = {finding.op_type, *(step.op_type for step in finding.steps)}
    said = _words(" ".join(_said_of(op_type, finding.opset) for op_type in sorted(op_types)))
    quotes = [quote for quote in finding.text.split("(...)") if quote.strip()]
    assert quotes, "nothing is quoted"
    for quote in quotes:
        assert _words(quote).rstrip(".") in said, f"the schema does not say {quote!r}"


def _said_of(op_type: str, opset: int) -> str:
    schema = onnx.defs.get_schema(op_type, opset)
    parts = [schema.doc, *(f"{f.name}: {f.description}" for f in (*schema.inputs, *schema.outputs))]
    parts += [f"{a.name}: {a.description}" for a in schema.attributes.values()]
    parts += [f"{c.type_param_str}: {', '.join(c.allowed_type_strs)}: {c.description}" for c in schema.type_constraints]
    return " ".join(parts)


def _words(said: str) -> str:
    return " ".join(said.split())


@pytest.mark.parametrize("finding", TABLE, ids=[f.slug for f in TABLE])
def test_findings_expected_values_are_those_of_the_kernel(finding: Any) -> None:
    """The kernels agree with the values derived by hand: a finding is not an opinion of one side."""
    count = len(finding.expected)
    stored = [None if x is None else x.dtype for x in finding.inputs]
    call = prepare(
        finding.op_type, finding.inputs, finding.attributes, opset=finding.opset, output_count=count, stored=stored
    )
    _agree(call.outputs(), finding.expected)


DETERMINED = [finding for finding in GRAPHS if finding.op_type != "Bernoulli"]


@pytest.mark.parametrize("finding", DETERMINED, ids=[f.slug for f in DETERMINED])
def test_findings_expected_values_are_those_of_the_graph(finding: Any) -> None:
    (folder,) = FINDINGS.glob(f"*-{finding.slug}")
    feeds = {f"x{i}": value for i, value in enumerate(finding.inputs) if i not in finding.constants}
    _agree(list(evaluate_model(load_model(folder / "model.onnx"), feeds).values()), finding.expected)


def _agree(outputs: Sequence[Any], hand: Sequence[Any]) -> None:
    for actual, expected in zip(outputs, hand, strict=False):
        if expected is None:
            continue
        assert np.shape(actual) == expected.shape
        if expected.dtype.kind in "OU":
            assert actual.astype(str).tolist() == expected.astype(str).tolist()
        else:
            np.testing.assert_allclose(actual.astype(np.float64), expected.astype(np.float64), rtol=2e-3, atol=1e-6)


def test_judge_one_unit_in_the_last_place_is_laid_to_no_hypothesis() -> None:
    """ONNX Runtime's LayerNormalization of these three elements, which rounds as epsilon 0 would: nobody's fault."""
    x = np.asarray([0.002254049526527524, -1.78880774974823, 19.837566375732422], np.float32)
    scale = np.asarray([0.1257302165031433, -0.13210485875606537, 0.6404226422309875], np.float32)
    returned = np.asarray([-0.07716747373342514, 0.10522378236055374, 0.9031698703765869], np.float32)
    row = judge("LayerNormalization", [x, scale], returned, opset=17)
    assert row.outcome is Outcome.PASSED, row.message


def test_judge_products_without_summands_are_judged() -> None:
    a, b = np.zeros((2, 0), np.float32), np.zeros((0, 3), np.float32)
    assert judge("MatMul", [a, b], np.zeros((2, 3), np.float32)).outcome is Outcome.PASSED
    assert judge("MatMul", [a, b], np.ones((2, 3), np.float32)).outcome is Outcome.FAILED


def test_kernels_of_rank_0_results_give_one_element() -> None:
    gathered = prepare("GatherND", [np.asarray([2.0, 1.0]), np.asarray([1])], {}, opset=13).outputs()[0]
    padded = prepare("Pad", [np.asarray(5.0), np.asarray([], np.int64)], {}, opset=13).outputs()[0]
    assert (np.shape(gathered), float(gathered)) == ((), 1.0)
    assert (np.shape(padded), float(padded)) == ((), 5.0)


@pytest.mark.parametrize(("stash_type", "outcome"), [(1, Outcome.PASSED), (11, Outcome.FAILED)])
def test_judge_float64_normalised_in_float32_passes_only_where_stash_type_says_so(
    stash_type: int, outcome: Outcome
) -> None:
    x = np.random.default_rng(3).standard_normal((2, 4, 5))
    one = np.ones(4)
    narrow = x.reshape(2, 2, 10).astype(np.float32)
    centred = narrow - narrow.mean(axis=2, keepdims=True)
    normalised = (centred / np.sqrt((centred**2).mean(axis=2, keepdims=True) + np.float32(1e-5))).astype(np.float64)
    attributes = {"num_groups": 2, "stash_type": stash_type}
    row = judge("GroupNormalization", [x, one, one], normalised.reshape(x.shape) + 1, attributes, opset=21)
    assert row.outcome is outcome, row.message
    broken = normalised.reshape(x.shape) + 1
    broken[0, 0, 0] += 1e-3
    assert judge("GroupNormalization", [x, one, one], broken, attributes, opset=21).outcome is Outcome.FAILED
