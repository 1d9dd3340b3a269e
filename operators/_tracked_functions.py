"""Quotients, roots and powers of values that carry their rounding errors."""

from __future__ import annotations

import numpy as np

from ._tracked import UNIFORM, Tracked, through
from .scale import Array


def quotient(a: Tracked, b: Tracked) -> Tracked:
    """a / b, rounded once; errors to first order."""
    with np.errstate(all="ignore"):
        value = a.value / b.value
        variance = (a.variance + value**2 * b.variance) / b.value**2 + UNIFORM * value**2
        bound = (a.bound + np.abs(value) * b.bound) / np.abs(b.value) + np.abs(value)
    return Tracked(value, variance, bound, np.abs(value))


def root(x: Tracked, unit: float) -> Tracked:
    """√x, rounded once; steepest at the smallest x within reach. `unit` is half a unit in the last place at one."""
    y = np.sqrt(x.value)
    with np.errstate(all="ignore"):
        slope = 0.5 / np.sqrt(np.maximum(x.value - x.bound * unit, 0.0))
    return through(x, y, np.where(x.bound > 0, slope, 0.0), np.abs(y))


def rounded(value: Array | float, half_units: float = 1.0) -> Tracked:
    """A value that some half-units of its own size may be missing from."""
    y = np.asarray(value, np.float64)
    own = half_units * np.abs(y)
    return Tracked(y, UNIFORM * own**2, own, np.abs(y))
