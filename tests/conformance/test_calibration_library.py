"""The library of the calibration holds what it says: the faults that were asked for, and none that changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from onnx_arch.conformance.calibration.case import Case, Family, Fault
from onnx_arch.conformance.calibration.data import KINDS, LENGTHS
from onnx_arch.conformance.calibration.library import FAMILIES
from onnx_arch.conformance.calibration.table import SINGLE, TF32, fault_counts
from onnx_arch.conformance.calibration.tampering import TAMPERS

Array = np.ndarray

ASKED = (
    ("contractions", "the last product dropped"),
    ("contractions", "the last product added twice"),
    ("contractions", "pads on the other side"),
    ("pooling", "pads on the other side"),
    ("contractions", "dilations ignored"),
    ("pooling", "dilations ignored"),
    ("pooling", "last window of ceil_mode not computed"),
    ("pooling", "count_include_pad turned round"),
    ("pooling", "window off by one"),
    ("contractions", "weights transposed"),
    ("contractions", "transA ignored"),
    ("contractions", "transB ignored"),
    ("softmax and attention", "softmax along the other axis"),
    ("reductions", "reduced along the other axis"),
    ("contractions", "groups in the wrong order"),
    ("normalisation", "one group"),
    ("normalisation", "epsilon outside the root"),
    ("normalisation", "unbiased variance"),
    ("elementwise", "tanh formula for erf or the other way"),
    ("softmax and attention", "mask ignored"),
    ("softmax and attention", "causal mask from the other corner"),
    ("softmax and attention", "softcap after the mask"),
    ("softmax and attention", "scale 1 / d"),
    ("elementwise", "NaN dropped"),
    ("reductions", "NaN dropped in a maximum"),
    ("indexing and selection", "ties broken by the higher index"),
    ("indexing and selection", "the last of equal largest"),
    ("quantisation", "saturation missing"),
    ("quantisation", "half away from zero"),
    ("elementwise", "ties away from zero"),
    ("elementwise", "sign of the divisor"),
    ("reductions", "int64 added in float32"),
    ("indexing and selection", "index in float32"),
    ("contractions", "TF32 inputs"),
    ("contractions", "BF16 inputs"),
    ("contractions", "FP16 inputs"),
    ("contractions", "FP16 accumulation"),
    ("contractions", "one element off by a thousandth"),
    ("elementwise", "one element off by a thousandth"),
    ("contractions", "one row off by a thousandth"),
    ("contractions", "the last row repeats the one before"),
    ("contractions", "a quarter of the output buffer is stale"),
)


@pytest.mark.parametrize(("family", "fault"), ASKED)
def test_fault_that_was_asked_for_is_in_the_library(family: str, fault: str) -> None:
    assert fault in {f.name for f in FAMILIES[family].faults}


def test_library_has_more_than_150_faults_of_single_operators() -> None:
    own, generic = fault_counts()
    assert own > 150
    assert generic == len(TAMPERS)


def test_table_names_faults_that_exist() -> None:
    names = {f.name for f in FAMILIES["contractions"].faults}
    assert {*SINGLE, TF32} <= names


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name.replace(" ", "-"))
def test_fault_of_family_has_a_name_of_its_own_for_each_operator(family: Family) -> None:
    pairs = [(f.name, op_type) for f in family.faults for op_type in f.op_types]
    assert len(pairs) == len(set(pairs))


def _small(family: Family) -> Iterator[Case]:
    """The quick cases, and of all cases those whose sums are not long."""
    yield from family.cases(True)
    yield from (case for case in family.cases(False) if case.size <= 1024)


def _changed(right: tuple[Array, ...], wrong: tuple[Array, ...] | None) -> bool:
    if wrong is None:
        return False
    return any(a.shape != b.shape or a.tobytes() != b.tobytes() for a, b in zip(right, wrong, strict=True))


def _idle(family: Family, faults: Iterable[Fault]) -> set[str]:
    """Names of the faults that change nothing on any small case."""
    left: dict[str, list[Fault]] = {}
    for fault in faults:
        left.setdefault(fault.name, []).append(fault)
    with np.errstate(all="ignore"):
        for case in _small(family):
            due = [f for found in left.values() for f in found if {case.op_type, "*"} & set(f.op_types)]
            right = family.right(case) if due else None
            for fault in due if right is not None else []:
                if _changed(right or (), fault.compute(case)):
                    left.pop(fault.name, None)
            if not left:
                break
    return set(left)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name.replace(" ", "-"))
def test_every_fault_of_an_operator_changes_an_output_of_some_case(family: Family) -> None:
    assert _idle(family, (f for f in family.faults if "*" not in f.op_types)) == set()


def test_every_fault_of_any_operator_changes_an_output_of_some_case() -> None:
    family = FAMILIES["pooling"]
    assert _idle(family, (f for f in family.faults if "*" in f.op_types)) == set()


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name.replace(" ", "-"))
def test_right_implementation_computes_every_quick_case(family: Family) -> None:
    with np.errstate(all="ignore"):
        for case in family.cases(True):
            assert family.right(case) is not None, f"{case.op_type} {case.kind} {case.size}"


def test_cases_have_every_kind_of_data_and_every_length() -> None:
    cases = [case for case in FAMILIES["contractions"].cases(False) if case.op_type == "MatMul"]
    assert {case.kind for case in cases} == set(KINDS)
    assert set(LENGTHS) <= {case.size for case in cases}
    assert min(LENGTHS) == 1
    assert max(LENGTHS) == 25088


def test_outputs_have_from_one_to_a_million_elements() -> None:
    sizes = set()
    for case in FAMILIES["contractions"].cases(False):
        if case.op_type == "MatMul":
            a, b = (np.asarray(x) for x in case.inputs)
            sizes.add(a.size // a.shape[-1] * b.shape[-1])
    assert min(sizes) == 1
    assert max(sizes) == 1_000_000


def test_dropped_product_differs_from_the_right_sum_by_that_product() -> None:
    """One fault worked out by hand: 1·4 + 2·5 + 3·6 = 32 without its last product is 14."""
    case = Case("MatMul", (np.array([[1, 2, 3]], np.float32), np.array([[4], [5], [6]], np.float32)), {}, "signed", 3)
    family = FAMILIES["contractions"]
    (dropped,) = [f for f in family.faults if f.name == "the last product dropped"]
    right, wrong = family.right(case), dropped.compute(case)
    assert right is not None
    assert wrong is not None
    assert (float(right[0][0, 0]), float(wrong[0][0, 0])) == (32.0, 14.0)
