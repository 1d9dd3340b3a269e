"""Arrays that carry their rounding error through a formula: the same code computes values, or values with errors.

An error is carried twice, in half-units in the last place at magnitude one:

- `variance`: errors are independent, so squares add up: a product x·w passes on w² times the variance of x. It is how
  large errors are, and it grows no faster than the values' own sensitivity to noise.
- `bound`: errors have the worst signs: a product passes on |w| times the bound of x. To first order no order of
  summation goes beyond, but through a long recurrence it can grow exponentially where errors do not.

Their quotient says how many standard deviations are possible at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from .rounding import NAIVE_VARIANCE
from .scale import Array, Rule, Scale
from .storage import FloatFormat

UNIFORM = 1 / 3
"""Variance of an error that is uniform between −1 and 1 half-unit."""

LARGEST_TERMS = 1e6
"""A value a million standard deviations away is called wrong, even where the worst signs would explain more."""


@dataclass(frozen=True, eq=False)
class Tracked:
    """Values with their errors.

    Attributes:
        value: float64.
        variance: of the error, in squared half-units at magnitude one.
        bound: of the error, in half-units at magnitude one.
        size: at which sums that have this as a summand may round, |value| or more.
    """

    value: Array
    variance: Array
    bound: Array
    size: Array

    __array_ufunc__ = None  # NumPy leaves binary operators to this class

    def __getitem__(self, index: Any) -> Tracked:
        return self.each(lambda part: part[index])

    def each(self, change: Callable[[Array], Array]) -> Tracked:
        """The same change of shape for all parts."""
        return Tracked(change(self.value), change(self.variance), change(self.bound), change(self.size))

    def __add__(self, other: Tracked | Array | float) -> Tracked:
        """A sum, rounded at the sizes of its summands: they may be added in any order."""
        b = track(other)
        size = self.size + b.size
        variance = self.variance + b.variance + UNIFORM * size**2
        return Tracked(self.value + b.value, variance, self.bound + b.bound + size, size)

    __radd__ = __add__

    def __neg__(self) -> Tracked:
        return Tracked(-self.value, self.variance, self.bound, self.size)

    def __sub__(self, other: Tracked | Array | float) -> Tracked:
        return self + -track(other)

    def __rsub__(self, other: Array | float) -> Tracked:
        return -self + other

    def __mul__(self, other: Tracked | Array | float) -> Tracked:
        b = track(other)
        value = self.value * b.value
        size = np.abs(value)
        variance = self.value**2 * b.variance + b.value**2 * self.variance + UNIFORM * value**2
        bound = np.abs(self.value) * b.bound + np.abs(b.value) * self.bound + size
        return Tracked(value, variance, bound, size)

    __rmul__ = __mul__


Number = TypeVar("Number", Array, Tracked)


def track(x: Tracked | Array | float) -> Tracked:
    """A constant, or an input: a value without an error."""
    if isinstance(x, Tracked):
        return x
    value = np.asarray(x, np.float64)
    still = np.zeros(())
    return Tracked(value, np.broadcast_to(still, value.shape), np.broadcast_to(still, value.shape), np.abs(value))


def matmul(x: Number, w: Array, k: float) -> Number:
    """x @ w, where a sum of these products may err by `k` half-units at Σ|x||w| (`rounding.growth`).

    Args:
        x: (…, K).
        w: (K, N), without error.
        k: certain bound of the sum.
    """
    if not isinstance(x, Tracked):
        return np.matmul(x, w)
    value, size = np.matmul(x.value, w), np.matmul(np.abs(x.value), np.abs(w))
    # k summands in their natural order: `rounding.natural_spread`.
    own = size**2 + k * NAIVE_VARIANCE * value**2
    variance = own if not x.variance.any() else own + np.matmul(x.variance, w**2)
    bound = k * size if not x.bound.any() else k * size + np.matmul(x.bound, np.abs(w))
    return Tracked(value, variance, bound, size)


def through(x: Tracked, value: Array, slope: Array, own: Array) -> Tracked:
    """A function of x: its value, its steepest slope within reach, and the half-units that it adds itself."""
    with np.errstate(invalid="ignore"):
        variance = np.where(x.variance > 0, slope**2 * x.variance, 0.0) + UNIFORM * own**2
        bound = np.where(x.bound > 0, np.abs(slope) * x.bound, 0.0) + own
    return Tracked(value, variance, bound, np.abs(value))


def select(mask: Array, x: Number, y: Number) -> Number:
    """x where `mask`, else y."""
    if isinstance(x, Tracked) and isinstance(y, Tracked):
        parts = ((x.value, y.value), (x.variance, y.variance), (x.bound, y.bound), (x.size, y.size))
        return Tracked(*(np.where(mask, a, b) for a, b in parts))
    return np.where(mask, x, y)  # type: ignore[return-value]


def stack(xs: list[Number], axis: int = 0) -> Number:
    """Arrays along a new axis."""
    if isinstance(xs[0], Tracked):
        parts = [(x.value, x.variance, x.bound, x.size) for x in xs if isinstance(x, Tracked)]
        return Tracked(*(np.stack(part, axis) for part in zip(*parts, strict=True)))
    return np.stack(xs, axis)  # type: ignore[return-value]


def scale_of(x: Tracked, format_: FloatFormat, unknown: Array | np.bool_ | bool = False) -> Scale:
    """COMPOSED at one standard deviation, with the certain bound in `terms`.

    z counts standard deviations, so that the spread is 1. `rounding.growth` divides terms by 2^((p_acc − p) / 2) for
    narrow types; what is carried here is in the stored type's own half-units already, and is multiplied by it first.

    Args:
        x: the output with its errors.
        format_: of the stored type.
        unknown: where the specification leaves the value open.
    """
    size = np.sqrt(x.variance)
    with np.errstate(all="ignore"):
        most = np.nan_to_num(np.where(size > 0, x.bound / size, 0.0), nan=LARGEST_TERMS, posinf=LARGEST_TERMS)
    narrow = 2.0 ** ((format_.accumulator_bits - format_.fraction_bits) / 2)
    terms = min(float(most.max(initial=1.0)), LARGEST_TERMS) * narrow
    size = np.where(unknown | np.isnan(size), np.inf, size)
    return Scale(size, math.ceil(terms), Rule.COMPOSED, spread=1.0)
