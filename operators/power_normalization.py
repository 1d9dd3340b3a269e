"""Normalisation by powers: by the mean square of neighbouring channels and by a norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError
from ._spilling import opened, overflows, powers_vanish
from .normalization import ROUNDINGS, mean_spread
from .registry import kernel, scale
from .scale import Array, Rule, Scale


def _square_sum(x: Array, size: int) -> Array:
    """Σ x² over `size` neighbouring channels, the larger half of an even window after the element."""
    before = (size - 1) // 2
    channels = x.shape[1]
    padded = np.zeros((x.shape[0], channels + size - 1, *x.shape[2:]))
    padded[:, before : before + channels] = x**2
    total = np.zeros_like(x)
    for shift in range(size):
        total += padded[:, shift : shift + channels]
    return total


@kernel("LRN", since=1)
def lrn(
    x: Array,
    /,
    *,
    size: int,
    alpha: float = float(np.float32(1e-4)),
    beta: float = 0.75,
    bias: float = 1.0,
) -> Array:
    """Divide by a power of the mean square of neighbouring channels.

    Args:
        x: (N, C, D1, …, Dn).
        size: number of channels summed over; the larger half of an even size comes after the element.
        alpha: factor of the sum, divided by `size`.
        beta: exponent.
        bias: added to the sum.

    Returns:
        Like `x`.

    Spec: LRN, since 1
    """
    return x / (bias + alpha / size * _square_sum(x, size)) ** beta


@scale("LRN", since=1)
def lrn_scale(
    y: Array,
    x: Array,
    /,
    *,
    size: int,
    alpha: float = float(np.float32(1e-4)),
    beta: float = 0.75,
    bias: float = 1.0,
    stored: Sequence[np.dtype[Any] | None] = (None,),
) -> Scale:
    """COMPOSED: the base carries `size` + 3 roundings, at the size of its summands, raised to beta; a power b^β adds
    2 |β ln b| + 4."""
    squares = _square_sum(x, size)
    base = bias + alpha / size * squares
    amplified = (abs(bias) + abs(alpha) / size * squares) / np.abs(base)
    roundings = np.abs(beta) * (1 + ROUNDINGS) * amplified + 2 * np.abs(beta * np.log(base)) + ROUNDINGS
    return opened(Scale(np.abs(y) * roundings, size, Rule.COMPOSED), overflows(squares, stored[0]))


@kernel("LpNormalization", since=1)
def lp_normalization(x: Array, /, *, axis: int = -1, p: int = 2) -> Array:
    """Divide by the p-norm along `axis`; a norm of zero gives zero.

    Args:
        x: any shape.
        axis: the axis of the norm.
        p: 1 or 2.

    Returns:
        Like `x`.

    Raises:
        InvalidAttributeError: `p` is neither 1 nor 2.

    Spec: LpNormalization, since 1
    """
    if p not in (1, 2):
        raise InvalidAttributeError(f"LpNormalization: p={p}; allowed: 1, 2")
    powers = np.abs(x) if p == 1 else x * x
    norm = powers.sum(axis=axis, keepdims=True)
    norm = norm if p == 1 else np.sqrt(norm)
    return np.divide(x, norm, out=np.zeros_like(x), where=norm != 0)


@scale("LpNormalization", since=1)
def lp_normalization_scale(
    y: Array,
    x: Array,
    /,
    *,
    axis: int = -1,
    p: int = 2,
    stored: Sequence[np.dtype[Any] | None] = (None,),
) -> Scale:
    """COMPOSED: relative roundings of a positive sum, its root and the quotient."""
    n, powers = x.shape[axis], np.abs(x) ** p
    spilled = overflows(powers.sum(axis=axis, keepdims=True), stored[0]) | powers_vanish(powers, (axis,), stored[0])
    return opened(
        Scale(np.abs(y) * ROUNDINGS, n, Rule.COMPOSED, mean_spread(n)), spilled & (x != 0).any(axis, keepdims=True)
    )
