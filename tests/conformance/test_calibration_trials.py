"""The calibration can fail: a verdict that sees nothing is counted as misses, one that condemns all as false alarms."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_arch.conformance import witness
from onnx_arch.conformance.calibration import library, table, trials
from onnx_arch.conformance.calibration.case import Case, Family, Variant, faults
from onnx_arch.conformance.calibration.library import FAMILIES, Piece, run, run_piece
from onnx_arch.conformance.calibration.like import reach
from onnx_arch.conformance.calibration.summing import blas, sequential
from onnx_arch.conformance.calibration.table import correct, document, missed, promised, tf32
from onnx_arch.conformance.calibration.trials import Trial, trials_of
from onnx_arch.conformance.nodes import judge_node
from onnx_arch.conformance.results import NodeResult, Outcome

F = np.float32
QUICK = ("reductions", "quantisation", "casts", "recurrent", "normalisation")


def _trials(family: str) -> list[Trial]:
    return run_piece(Piece(family, quick=True, with_runtimes=False))


@pytest.mark.parametrize("family", QUICK)
def test_quick_run_of_family_has_no_false_alarm_and_no_miss(family: str) -> None:
    found = _trials(family)
    assert [t for t in correct(found) if t.failed] == []
    assert missed(found) == []
    assert len(correct(found)) > 100
    assert len(promised(found)) > 1000
    # values that are all alike: what is left of them is divided by 1e-9, and nothing of it is determined
    unjudged = {(t.op_type, t.kind) for t in found if t.outcome is Outcome.UNJUDGED}
    assert unjudged <= {("MeanVarianceNormalization", "equal")}


def test_tf32_is_told_on_every_kind_of_data_with_one_kind_of_case() -> None:
    found = run_piece(Piece("contractions", quick=True, kinds=("dominated", "cancelling"), with_runtimes=False))
    narrow = tf32(found)
    assert {t.kind for t in narrow} == {"dominated", "cancelling"}
    assert {16, 147, 1024} <= {t.size for t in narrow}
    assert all(t.failed for t in narrow)


def _verdict_of(outcome: Outcome) -> Any:
    def judge(*args: Any, **keywords: Any) -> NodeResult:
        return dataclasses.replace(judge_node(*args, **keywords), outcome=outcome, message="")

    return judge


def test_blind_verdict_misses_every_promised_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "judge_node", _verdict_of(Outcome.PASSED))
    found = _trials("casts")
    assert missed(found) == promised(found) != []
    assert not any(t.failed for t in correct(found))


def test_strict_verdict_raises_a_false_alarm_on_every_correct_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "judge_node", _verdict_of(Outcome.FAILED))
    found = _trials("casts")
    assert [t for t in correct(found) if t.failed] == correct(found) != []
    assert missed(found) == []


LONG = Case("ReduceSum", (np.full((4, 4608), 0.1, F), np.array([-1])), {}, "equal", 4608)


def _family(**flaws: Any) -> Family:
    """Sums of 4,608 times 0.1: by NumPy's tree, by a loop, and with the factor of one wrong element."""

    def compute(case: Case, *, loop: bool = False, factor: float = 1.0) -> tuple[np.ndarray]:
        x = np.asarray(case.inputs[0])
        y = np.add.accumulate(x, axis=-1)[:, -1:] if loop else x.sum(axis=-1, keepdims=True)
        y[-1] *= F(factor)
        return (y,)

    rows = faults(compute, ("one element off", "ReduceSum", flaws))
    return Family("sums", lambda _: iter([LONG]), compute, (Variant("loop", lambda c: compute(c, loop=True)),), rows)


def test_witness_that_accepts_less_than_a_loop_raises_a_false_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    family = _family(factor=1.001)
    assert not any(t.failed for t in correct(trials_of(family, LONG)))
    monkeypatch.setattr(witness, "OBSERVED_RATIO", 0.5)
    assert [t.name for t in correct(trials_of(family, LONG)) if t.failed] == ["loop"]


def test_witness_that_accepts_everything_misses_the_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    family = _family(factor=1.0002)
    assert missed(trials_of(family, LONG)) == []
    monkeypatch.setattr(witness, "OBSERVED_RATIO", 1e6)
    assert [t.name for t in missed(trials_of(family, LONG))] == ["one element off"]


def test_fault_without_effect_is_no_trial() -> None:
    assert [t.name for t in trials_of(_family(factor=1.0), LONG) if t.faulty] == []


def test_moved_is_counted_in_units_of_the_promise() -> None:
    """A sum of 16 ones that is off by 1: 1 / (2^−24 · 16 · √16)."""
    case = Case("MatMul", (np.ones((1, 16), F), np.ones((16, 1), F)), {}, "equal", 16)
    subject = trials.Subject(case, 1)
    right = (blas(np.ones((1, 16), F), np.ones((16, 1), F)),)
    assert subject.moved(right, (right[0] + F(1),)) == pytest.approx(2**24 / 64, rel=2e-3)  # |a|·|b| is rounded up
    assert subject.moved(right, right) == 0.0
    assert subject.moved(right, (right[0].astype(np.float64),)) == np.inf


def test_usual_deviation_is_the_largest_of_the_correct_variants() -> None:
    (fault,) = [t for t in trials_of(_family(factor=1.001), LONG) if t.faulty]
    a, b = np.asarray(LONG.inputs[0])[:1], np.ones((4608, 1), F)
    loop = abs(float(sequential(a, b)[0, 0]) - 4608 * float(F(0.1))) / (4608 * float(F(0.1)) * 2.0**-24)
    assert fault.usual == pytest.approx(loop, rel=1e-3)


def test_sums_of_equal_summands_stay_within_what_the_witness_accepts() -> None:
    count, largest = reach(4)
    assert count > 2000
    assert 1.0 < largest < witness.OBSERVED_RATIO


@pytest.fixture
def _few_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "SUMS_OF_EQUALS", 1)


@pytest.mark.usefixtures("_few_sums")
def test_document_begins_with_the_goals_and_counts_what_was_tried() -> None:
    found = _trials("casts")
    text = document(found)
    goals = text.index("| goal | counted |")
    assert goals < text.index("## How to read this") < text.index("## False alarms") < text.index("## Misses")
    assert f"0 in {len(correct(found)):,} correct results" in text
    assert f"0 missed of {len(promised(found)):,}" in text
    for name in ("ONNX", "ORT", "Polygraphy", "OpenVINO"):
        assert f" {name} |" in text


@pytest.mark.usefixtures("_few_sums")
def test_document_lists_what_was_missed_and_what_was_condemned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "judge_node", _verdict_of(Outcome.PASSED))
    blind = document(_trials("casts"))
    assert "| Cast | fraction bits cut off | S0 signed |" in blind or "| Cast | one element NaN | S0 signed |" in blind
    monkeypatch.setattr(trials, "judge_node", _verdict_of(Outcome.FAILED))
    strict = document(_trials("casts"))
    assert "### False alarms" in strict
    assert "| Cast | plain float32 | S0 signed |" in strict


def test_run_that_was_cut_off_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = [Piece("casts", index, 4, quick=True, with_runtimes=False) for index in range(2)]
    first = [t for found in run(work, 1, folder=tmp_path) for t in found]
    computed: list[Piece] = []
    monkeypatch.setattr(library, "run_piece", lambda piece: computed.append(piece) or run_piece(piece))
    third = Piece("casts", 2, 4, quick=True, with_runtimes=False)
    again = [t for found in run([*work, third], 1, folder=tmp_path) for t in found]
    assert computed == [third]
    assert again[: len(first)] == first


def test_kept_trials_of_other_work_are_not_taken(tmp_path: Path) -> None:
    piece = Piece("casts", 0, 4, quick=True, with_runtimes=False)
    other = dataclasses.replace(piece, kinds=("wide",))
    assert {t.kind for found in run([piece], 1, folder=tmp_path) for t in found} > {"wide"}
    assert {t.kind for found in run([other], 1, folder=tmp_path) for t in found} == {"wide"}


def test_every_family_is_run_by_the_pieces_of_a_run() -> None:
    assert {piece.family for piece in library.pieces(True)} == set(FAMILIES)
    assert len(library.pieces(False)) == len(FAMILIES) * library.PARTS
