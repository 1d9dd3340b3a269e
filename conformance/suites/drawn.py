"""The `generated` suite as cases: valid random calls of every operator, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from ..generated import GeneratedCase, generated_cases
from .case import Case, Subject


def drawn_cases(
    op_types: Sequence[str] | None, opsets: tuple[int, int] | None, seed: int, examples: int
) -> Iterator[Case]:
    """Cases of these operators, or of all that have a strategy.

    Raises:
        UnknownEntryError: an operator without a strategy.
    """
    return (as_case(drawn) for drawn in generated_cases(op_types, opsets, seed, examples))


def as_case(drawn: GeneratedCase) -> Case:
    """A generated call as a case."""
    return Case(drawn.name, drawn.op_type, "", drawn.call.opset, partial(_subject, drawn), generated=drawn)


def _subject(drawn: GeneratedCase) -> Subject:
    return Subject(drawn.model, (drawn.feeds,))
