"""One trial: a tensor is computed correctly or with a fault, and everyone says whether they accept it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...graphs.evaluation import Value, call_node, judge_call
from ...graphs.model import Node
from ...operators.rounding import growth, half_unit
from ...operators.scale import Array, Rule, Scale
from ...operators.storage import FloatFormat, encode, float_format, is_float
from ..nodes import judge_node
from ..oracle import Local
from ..results import NodeResult, Outcome
from .case import Case, Compute, Family, Outputs
from .tolerances import accepted

PROMISE = 8.0
"""No fault that moves an element by more than 8 · u · s · √k may be missed."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What was tried and who accepted it.

    Attributes:
        family: of the operator.
        op_type: the operator.
        name: of the variant or fault.
        faulty: whether it is wrong.
        apart: the variant's own class, or "".
        kind: of the data.
        size: K.
        elements: T, of the first output.
        rule: by which it is judged.
        outcome: ours.
        message: ours.
        rms_z, max_z: as the verdict gives them.
        accepted: names of the fixed tolerances that accept it.
        moved: by how many u · s · √k the fault moved an element at most, from where the plain implementation has it;
            infinite where any change is wrong.
        usual: the largest |z| of the correct variants of the same case: no rule that accepts them all can tell a fault
            from them whose |z| is no larger.
    """

    family: str
    op_type: str
    name: str
    faulty: bool
    apart: str
    kind: str
    size: int
    elements: int
    rule: str
    outcome: Outcome
    message: str
    rms_z: float | None
    max_z: float | None
    accepted: frozenset[str]
    moved: float = 0.0
    usual: float = 0.0

    @property
    def promised(self) -> bool:
        """Whether the fault is one that must be found."""
        return self.faulty and self.moved > PROMISE

    @property
    def failed(self) -> bool:
        """Whether our verdict condemns it."""
        return self.outcome is Outcome.FAILED

    @property
    def like_correct(self) -> bool:
        """Whether a correct variant of the same case is as far from the reference."""
        return self.max_z is not None and self.max_z <= self.usual


class Subject:
    """A case with its reference, computed once and judged against any number of outputs."""

    def __init__(self, case: Case, output_count: int) -> None:
        names = tuple("" if x is None else f"x{i}" for i, x in enumerate(case.inputs))
        values = {name: Value(x, x.dtype) for name, x in zip(names, case.inputs, strict=True) if x is not None}
        results = tuple(f"y{i}" for i in range(output_count))
        self.case = case
        self.node = Node(case.op_type, case.op_type, "", names, results, dict(case.attributes), case.opset, 0)
        call = call_node(self.node, values)
        outputs, scales = judge_call(self.node, call)
        self.outputs = outputs[:output_count]
        self.scales = (scales or ())[:output_count]
        self.local = Local(call, outputs, scales)

    @property
    def rule(self) -> str:
        """Of the first output."""
        return self.scales[0].rule.value if self.scales else "none"

    def judge(self, actual: Outputs) -> NodeResult:
        """Our verdict."""
        return judge_node(self.node, self.local, dict(zip(self.node.outputs, actual, strict=True)), named=False)

    def accepted(self, actual: Outputs) -> frozenset[str]:
        """Of the fixed tolerances, those that accept it."""
        return accepted(actual, [v.data for v in self.outputs], [v.dtype for v in self.outputs])

    def trial(self, family: Family, name: str, actual: Outputs, **figures: Any) -> Trial:
        """Everyone's word on one tuple of outputs."""
        row, case = self.judge(actual), self.case
        return Trial(
            family=family.name,
            op_type=case.op_type,
            name=name,
            faulty=figures.get("moved", 0.0) > 0,
            apart=figures.pop("apart", ""),
            kind=case.kind,
            size=case.size,
            elements=int(np.size(actual[0])),
            rule=self.rule,
            outcome=row.outcome,
            message=row.message,
            rms_z=row.rms_z,
            max_z=row.max_z,
            accepted=self.accepted(actual),
            **figures,
        )

    def moved(self, right: Outputs, wrong: Outputs) -> float:
        """See `Trial.moved`."""
        parts = zip(right, wrong, self.outputs, self.scales, strict=True)
        return max((_moved(r, w, value.data, scale) for r, w, value, scale in parts), default=math.inf)


def floor_of(format_: FloatFormat) -> float:
    """The size below which errors do not count (docs/verdict.md)."""
    wide_range = format_.smallest_normal < 1e-30
    return format_.smallest_normal if wide_range else format_.smallest_subnormal / 2


def _moved(right: Any, wrong: Any, reference: Any, scale: Scale) -> float:
    if not isinstance(wrong, np.ndarray) or wrong.shape != right.shape or wrong.dtype != right.dtype:
        return math.inf
    if wrong.size == 0 or wrong.tobytes() == right.tobytes():
        return 0.0
    if wrong.dtype.kind in "OUSc":
        return math.inf
    with np.errstate(all="ignore"):
        units = _units(wrong.astype(np.float64), right.astype(np.float64), scale, right.dtype)
    return float(units.max())


def _units(wrong: Array, right: Array, scale: Scale, dtype: np.dtype[Any]) -> Array:
    """The distance of two outputs, element by element, in u · s · √k."""
    same = (wrong == right) | (np.isnan(wrong) & np.isnan(right))
    same |= np.isinf(wrong) & (np.sign(wrong) == np.sign(right)) & scale.overflows
    terms = np.broadcast_to(np.asarray(scale.terms, np.float64), wrong.shape)
    if scale.rule is Rule.EXACT or not is_float(dtype):
        steps = np.where(np.abs(wrong - right) <= terms, 1.0, np.inf)  # within steps of a tie: cannot be promised
        return np.where(same | np.isinf(terms), 0.0, steps)
    format_ = float_format(dtype)
    if scale.rule is Rule.ULP:
        k = np.where(np.isfinite(terms), np.maximum(terms, 1), np.inf)
    else:
        k = np.asarray(float(growth(float(terms[np.isfinite(terms)].max(initial=0.0)), format_)))
    unit = np.maximum(np.abs(scale.magnitude) * half_unit(format_), floor_of(format_))
    distance = np.abs(wrong - right) / (unit * np.sqrt(k))
    size = np.broadcast_to(scale.magnitude, wrong.shape)
    exact = (terms == 0) | (size == 0)
    distance = np.where(exact | np.isnan(distance), np.inf, distance)
    return np.where(same | np.isinf(terms) | np.isinf(size), 0.0, distance)  # infinite: any value conforms


def trials_of(family: Family, case: Case, others: Mapping[str, Compute] | None = None) -> Iterator[Trial]:
    """Every correct variant and every fault of a family on one case.

    Args:
        family: of the case's operator.
        case: what is computed.
        others: correct implementations beside the family's own, by name (ONNX Runtime).

    Yields:
        A trial for each; none for a fault that changes nothing on these data.
    """
    right = _quietly(family.right, case)
    if right is None:
        return
    subject = Subject(case, len(right))
    ways = [("plain float32", family.right, ""), *((v.name, v.compute, v.apart) for v in family.variants)]
    usual = 0.0
    for name, compute, apart in [*ways, *((name, way, "") for name, way in (others or {}).items())]:
        actual = right if compute is family.right else _quietly(compute, case)
        if actual is not None:
            trial = subject.trial(family, name, actual, apart=apart)
            usual = usual if apart else max(usual, trial.max_z or 0.0)
            yield trial
    for fault in family.faults:
        if case.op_type in fault.op_types or "*" in fault.op_types:
            wrong = _quietly(fault.compute, case)
            moved = 0.0 if wrong is None else subject.moved(right, wrong)
            if wrong is not None and moved > 0:
                yield subject.trial(family, fault.name, wrong, moved=moved, usual=usual)


def _quietly(compute: Compute, case: Case) -> Outputs | None:
    with np.errstate(all="ignore"):
        return compute(case)


def stored(value: Array, like: Array) -> Array:
    """A float32 result in the type of an input."""
    return value if value.dtype == like.dtype else encode(np.asarray(value, np.float64), like.dtype)
