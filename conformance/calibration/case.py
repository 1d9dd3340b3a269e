"""The words of the calibration: a case, a correct variant, a fault, a family of operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Outputs = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """One call of one operator.

    Attributes:
        op_type: the operator, of the default domain.
        inputs: stored tensors, None where absent.
        attributes: of the node.
        kind: of the data, a name of `data.KINDS`.
        size: how many summands an output element has, or another length that errors grow with.
        opset: of the model.
        weights: positions of the inputs that a model would hold as constants.
    """

    op_type: str
    inputs: tuple[Any, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "signed"
    size: int = 1
    opset: int = 23
    weights: tuple[int, ...] = ()


Compute = Callable[[Case], Outputs | None]
"""The stored outputs of a case; None where this way of computing does not go with the case."""


@dataclass(frozen=True)
class Variant:
    """A correct implementation.

    Attributes:
        name: a noun phrase.
        compute: its outputs.
        apart: a class of algorithms whose errors are larger by design, reported on lines of its own; "" for all others.
    """

    name: str
    compute: Compute
    apart: str = ""


@dataclass(frozen=True)
class Fault:
    """One wrong implementation: right but for one thing.

    Attributes:
        name: what is wrong, in the words of a bug report.
        op_types: the operators that it is injected into.
        compute: the stored outputs of a runtime that has it.
    """

    name: str
    op_types: tuple[str, ...]
    compute: Compute


@dataclass(frozen=True)
class Family:
    """Operators that are computed alike.

    Attributes:
        name: of the table's lines.
        cases: all cases, or (given True) a few of them.
        right: the plain float32 implementation, from which every fault differs in one thing.
        variants: other correct implementations.
        faults: wrong ones.
    """

    name: str
    cases: Callable[[bool], Iterator[Case]]
    right: Compute
    variants: tuple[Variant, ...]
    faults: tuple[Fault, ...]


def faults(compute: Callable[..., Outputs | None], *rows: tuple[Any, ...]) -> tuple[Fault, ...]:
    """Faults of one implementation: each row has a name, its operators (one or a tuple) and what breaks it."""
    found = []
    for name, op_types, options in rows:
        types = (op_types,) if isinstance(op_types, str) else tuple(op_types)
        found.append(Fault(name, types, lambda case, options=options: compute(case, **options)))
    return tuple(found)
