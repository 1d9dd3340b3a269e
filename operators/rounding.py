"""How far rounding can go: growth factors and natural spreads that follow from a scale and a stored type."""

from __future__ import annotations

import math

import numpy as np

from .scale import Array, Rule, Scale
from .storage import FloatFormat

NAIVE_VARIANCE = 1 / 9
"""Variance of z per summand for a plain loop over summands of one sign.

Each of k additions rounds a partial sum j/k · s with a uniform error of variance (u · j/k · s)² / 3; summed over j that
is k/9 · (u s)². Summands that cancel to r have partial sums around j/k · r: the term scales with (r/s)².
"""


def growth(terms: float, format_: FloatFormat) -> int:
    """k: by how many half-units a sum of `terms` products may grow when accumulated in the accumulator's precision.

    k = ceil(terms / 2^((p_acc − p) / 2)): Arm TOSA conformance, "Floating-point dot product".
    """
    return max(1, math.ceil(terms / 2.0 ** ((format_.accumulator_bits - format_.fraction_bits) / 2)))


def half_unit(format_: FloatFormat) -> float:
    """Half a unit in the last place at magnitude one: 2^(−1−p)."""
    return 2.0 ** (-1 - format_.fraction_bits)


def natural_spread(scale: Scale, reference: Array, format_: FloatFormat) -> Array:
    """Standard deviation of z that a correct implementation has when it sums in the natural order.

    Args:
        scale: of one output.
        reference: that output, float64.
        format_: of its stored type.

    Returns:
        Broadcastable to `reference`; 0 for EXACT.
    """
    if scale.rule is Rule.EXACT:
        return np.zeros(())
    if scale.rule is Rule.ULP:
        return np.minimum(np.asarray(scale.terms, np.float64), 8.0) / math.sqrt(3)
    if scale.spread is not None:
        return np.asarray(scale.spread, np.float64)
    k = growth(scale.most_terms, format_)
    with np.errstate(all="ignore"):
        share = np.where(scale.magnitude > 0, np.abs(reference) / scale.magnitude, 0.0)
    return np.sqrt(1 + k * NAIVE_VARIANCE * np.nan_to_num(np.minimum(share, 1.0)) ** 2)
