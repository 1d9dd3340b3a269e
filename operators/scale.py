"""What a verdict is derived from: how large the rounding errors of one operator can be.

A kernel says what an operator computes; its scale says at which size rounding happens on the way. The verdict
(`conformance.verdict`) divides an observed deviation by `magnitude · 2^(−1−p)`, half a unit in the last place of a
p-fraction-bit type at that size, and compares the quotient z with bounds that follow from `rule` and `terms`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .arrays import Array
from .laws import Law


class Rule(enum.Enum):
    """How the error of an operator is bounded."""

    EXACT = "exact"
    """No rounding is allowed: the stored bits are determined (data movement, comparison, integers, max)."""

    ULP = "ulp"
    """A correctly rounded or nearly correctly rounded function: |z| <= terms."""

    DOT = "dot"
    """A sum of `terms` products: |z| <= 2k and, over a tensor, a statistical bound; k follows from terms and type."""

    COMPOSED = "composed"
    """Several roundings: magnitude by first-order propagation, `terms` counts the roundings; bounds as for DOT."""

    DISTRIBUTION = "distribution"
    """A random operator: judged by support, moments and goodness of fit, not element by element."""


@dataclass(frozen=True)
class Scale:
    """The size at which rounding happens, for one output tensor.

    Attributes:
        magnitude: non-negative, broadcastable to the output's shape, finite unless the inputs are not; 0 where the
            result admits no error at all. For DOT: the same operator on absolute values. For ULP: |y|.
        terms: for ULP, the allowed |z|, as a number or per element (broadcastable); for DOT, the largest number of
            products (plus one for a bias) in one output element; for COMPOSED, the number of roundings that the
            longest chain of accumulations adds up; for EXACT, 0, or by how many steps an integer may be off (a
            quotient so near a tie that its own rounding decides), infinite where any value conforms.
        rule: the family.
        spread: for DOT and COMPOSED, the standard deviation of z that sums in their natural order have, as a number
            or per element; None lets the verdict derive it from `terms` and the cancellation |y| / magnitude.
        law: for DISTRIBUTION, what the values are drawn from, None where that is not known; for EXACT, what a tensor
            means that may be written in several ways (`readings`), None where its elements are compared.
        overflows: where an infinity of the value's sign conforms as well, as the formula forms it on its way.
    """

    magnitude: Array
    terms: float | Array
    rule: Rule
    spread: float | Array | None = None
    law: Law | None = None
    overflows: Array | bool = False

    @property
    def most_terms(self) -> float:
        """The largest of `terms`, those of elements that are left open aside."""
        terms = np.asarray(self.terms, np.float64)
        return float(terms[np.isfinite(terms)].max(initial=0.0))


ScaleFunction = Callable[..., "Scale | tuple[Scale, ...]"]


def exact(y: Array | tuple[Array, ...], /, *_inputs: Array | None, **_attributes: object) -> Scale | tuple[Scale, ...]:
    """Scale of operators that admit no rounding: every output must have the stored bits of the reference."""
    if isinstance(y, tuple):
        return tuple(Scale(np.zeros(()), 0, Rule.EXACT) for _ in y)
    return Scale(np.zeros(()), 0, Rule.EXACT)


def ulp(allowed: float) -> ScaleFunction:
    """Scale of a function that is rounded once: |a − r| <= `allowed` half-units in the last place of |r|.

    A correctly rounded operation (Add, Sub, Mul, Div, Sqrt) has `allowed` = 1.
    """

    def scale(y: Array, /, *_inputs: Array | None, **_attributes: object) -> Scale:
        return Scale(np.abs(y), allowed, Rule.ULP)

    return scale
