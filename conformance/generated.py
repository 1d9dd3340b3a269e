"""The `generated` suite: valid random cases of operators, the same for the same seed, shrunk where they fail.

A case is one call of one operator that the spec's text allows; `generation/` holds the strategies. Its name says how it
was drawn ("Add-14-seed0-of25-0007"), so that the case and its way down to a smaller one can be found again from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import onnx

from ..errors import InvalidArgumentError, UnknownEntryError
from ..operators.scale import Array
from .generation.drawing import NodeCall, call_feeds, call_model
from .generation.engine import digest, generate, shrink_call
from .generation.registry import strategies
from .generation.simplifying import simplified

OLDEST = 13
"""The first opset version that cases are generated for."""


@dataclass(frozen=True)
class GeneratedCase:
    """One generated call.

    Attributes:
        name: operator, opset, seed, how many were asked for, and which of them it is.
        call: inputs, attributes, outputs.
        opsets: the versions that its generation chose from.
        seed: of its generation.
        count: how many examples its generation was asked for.
        shrunk: whether it was made smaller.
    """

    name: str
    call: NodeCall
    opsets: tuple[int, ...]
    seed: int
    count: int
    shrunk: bool = False

    @property
    def op_type(self) -> str:
        return self.call.op_type

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The model of one node."""
        return call_model(self.call)

    @cached_property
    def feeds(self) -> dict[str, Array]:
        """Inputs by name."""
        return call_feeds(self.call)


def covered_operators() -> tuple[str, ...]:
    """Operators of the default domain that cases are generated for."""
    return tuple(sorted(strategies()))


def uncovered_operators() -> tuple[str, ...]:
    """Operators of the default domain at the newest opset that no cases are generated for."""
    newest = onnx.defs.get_all_schemas()
    names = {schema.name for schema in newest if schema.domain == "" and not schema.deprecated}
    return tuple(sorted(names - set(strategies())))


def versions(op_type: str, oldest: int, newest: int) -> tuple[int, ...]:
    """The opset versions from `oldest` to `newest` at which an operator's definition is another, newest first.

    The definition that holds at `oldest` counts as one of them.
    """
    history = [s for s in onnx.defs.get_all_schemas_with_history() if s.domain == "" and s.name == op_type]
    since = sorted(schema.since_version for schema in history if not schema.deprecated)
    inside = [version for version in since if oldest < version <= newest]
    before = [version for version in since if version <= oldest <= newest]
    return tuple(reversed([*([oldest] if before else []), *inside]))


def generated_cases(
    op_types: Iterable[str] | None = None,
    opsets: tuple[int, int] | None = None,
    seed: int = 0,
    count: int = 25,
) -> Iterator[GeneratedCase]:
    """Valid random cases, operator by operator, the same for the same arguments.

    Args:
        op_types: operators; None is every one that has a strategy.
        opsets: first and last version; None is from 13 to the newest that the installed onnx knows.
        seed: of the generation.
        count: examples per operator; equal ones are given once.

    Raises:
        UnknownEntryError: an operator without a strategy.
        InvalidArgumentError: fewer than one example.
    """
    if count < 1:
        raise InvalidArgumentError(f"count={count}: give at least 1")
    chosen = covered_operators() if op_types is None else tuple(op_types)
    unknown = sorted(set(chosen) - set(strategies()))
    if unknown:
        raise UnknownEntryError(f"no cases are generated for {', '.join(unknown)}")
    oldest, newest = (OLDEST, onnx.defs.onnx_opset_version()) if opsets is None else opsets
    for op_type in chosen:
        at = versions(op_type, oldest, newest)
        if at:
            yield from _cases_of(op_type, at, seed, count)


def _cases_of(op_type: str, opsets: tuple[int, ...], seed: int, count: int) -> Iterator[GeneratedCase]:
    for index, call in enumerate(generate(op_type, opsets, seed, count)):
        name = f"{op_type}-{call.opset}-seed{seed}-of{count}-{index:04d}"
        yield GeneratedCase(name, call, opsets, seed, count)


_NAME = re.compile(r"(?P<op_type>\w+)-(?P<opset>\d+)-seed(?P<seed>\d+)-of(?P<count>\d+)-(?P<index>\d+)")


def find_case(name: str, opsets: tuple[int, int] | None = None) -> GeneratedCase:
    """The case of a name.

    Raises:
        UnknownEntryError: no name of a case, or there is none of this name for these opsets.
    """
    found = _NAME.fullmatch(name)
    if found is not None and found["op_type"] in strategies():
        for case in generated_cases([found["op_type"]], opsets, int(found["seed"]), int(found["count"])):
            if case.name == name:
                return case
    raise UnknownEntryError(f"no generated case {name!r}")


def shrink(case: GeneratedCase, fails: Callable[[GeneratedCase], bool]) -> GeneratedCase:
    """The smallest case found on the way down from a failing one.

    Hypothesis makes its choices simpler (smaller shapes, fewer attributes, plainer patterns, another version), then
    single elements are replaced by 0 and 1.

    Args:
        case: one that fails.
        fails: whether a case fails in the same way; never asked about `case` itself.
    """

    def still(call: NodeCall) -> bool:
        return fails(_variant(case, call))

    smaller = shrink_call(case.call, case.opsets, case.seed, case.count, still)
    smaller = simplified(smaller, still)
    return case if digest(smaller) == digest(case.call) else _variant(case, smaller)


def _variant(case: GeneratedCase, call: NodeCall) -> GeneratedCase:
    return GeneratedCase(f"{case.name}-shrunk", call, case.opsets, case.seed, case.count, shrunk=True)
