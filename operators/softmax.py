"""Softmax and LogSoftmax."""

from __future__ import annotations

import math

import numpy as np

from ..errors import InvalidAttributeError
from .parallel import by_rows
from .registry import kernel, scale
from .scale import Array, Rule, Scale

EXP_ROUNDINGS = 4.0
"""Half-units in the last place that one exponential, its quotient and the quotient's rounding may add: an
implementation error of exp of at most one ulp (2), the division (1) and one spare for a reciprocal and a product."""


def _check_axis(op_type: str, x: Array, axis: int) -> int:
    if x.ndim == 0 and axis in (-1, 0):
        return 0
    if not -x.ndim <= axis < x.ndim:
        raise InvalidAttributeError(f"{op_type}: axis={axis} is outside [-{x.ndim}, {x.ndim}) for shape {x.shape}")
    return axis % x.ndim


def _coerced(x: Array, axis: int) -> Array:
    """The 2-D view of versions before 13: all axes before `axis`, times all from it on."""
    return (
        x.reshape(math.prod(x.shape[:axis]), -1)
        if x.size
        else x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    )


def _shifted(x: Array, axis: int, out: Array | None = None) -> Array:
    """x − max(x) along `axis`; an infinite maximum gives NaN as exp(inf)/exp(inf) does."""
    return np.subtract(x, x.max(axis=axis, keepdims=True, initial=-np.inf), out=out)


@kernel("Softmax", since=13)
def softmax(x: Array, /, *, axis: int = -1) -> Array:
    """Exponentials of `x` along `axis`, divided by their sum.

    Args:
        x: (…, N, …), any float.
        axis: the axis of length N; negative counts from the end.

    Returns:
        Same shape as `x`.

    Raises:
        InvalidAttributeError: `axis` outside [−rank, rank).

    Spec: Softmax, since 13
    """
    axis = _check_axis("Softmax", x, axis)
    if x.ndim == 0:
        return np.ones_like(x)
    if axis == x.ndim - 1:
        return by_rows(_normalized_exponentials, x)
    y = np.empty_like(x)
    _normalized_exponentials(x, y, axis)
    return y


def _normalized_exponentials(x: Array, out: Array, axis: int = -1) -> None:
    np.exp(_shifted(x, axis, out), out=out)
    out /= out.sum(axis=axis, keepdims=True)


def _weighted_distance(p: Array, t: Array, axis: int) -> Array:
    """Σ_j p_j |t_j|, where p_j = 0 counts as 0 even for t_j = −inf."""
    return np.where(p > 0, p * np.abs(t), 0.0).sum(axis=axis, keepdims=True)


VANISHED = float(np.nextafter(0, 1))
"""Scale of an exponential that is 0 in float64 for its own underflow: what a runtime clamps it to is below the normal
numbers, where errors do not count. That of −∞ is 0 by itself."""


@scale("Softmax", since=13)
def softmax_scale(y: Array, x: Array, /, *, axis: int = -1) -> Scale:
    """COMPOSED: s_i = p_i (|t_i| + Σ_j p_j |t_j| + c), t = x − max.

    The rounding of t_i (|t_i| half-units) moves exp(t_i) by that much relatively; the sum moves by the weighted mean of
    all those; c counts exp, quotient and the sum's own rounding, which N − 1 additions can repeat (`terms`).
    """
    if x.ndim == 0:
        return Scale(np.abs(y), 1, Rule.COMPOSED)
    axis = _check_axis("Softmax", x, axis)
    t = np.where(y > 0, _shifted(x, axis), 0.0)
    constant = 2 * EXP_ROUNDINGS
    size = y * (np.abs(t) + _weighted_distance(y, t, axis) + constant)
    size = np.where((size == 0) & np.isfinite(x), VANISHED, size)
    n = x.shape[axis]
    return Scale(size, n, Rule.COMPOSED, spread=math.sqrt(1 + n / (9 * constant**2)))


@kernel("LogSoftmax", since=13)
def log_softmax(x: Array, /, *, axis: int = -1) -> Array:
    """Logarithm of the softmax of `x` along `axis`, without forming the quotient.

    Args:
        x: (…, N, …), any float.
        axis: the axis of length N; negative counts from the end.

    Returns:
        Same shape as `x`.

    Raises:
        InvalidAttributeError: `axis` outside [−rank, rank).

    Spec: LogSoftmax, since 13
    """
    axis = _check_axis("LogSoftmax", x, axis)
    if x.ndim == 0:
        return np.zeros_like(x)
    t = _shifted(x, axis)
    return t - np.log(np.exp(t).sum(axis=axis, keepdims=True))


@scale("LogSoftmax", since=13)
def log_softmax_scale(y: Array, x: Array, /, *, axis: int = -1) -> Scale:
    """COMPOSED: |t_i| + (Σ_j p_j |t_j| + c) + |log Σ| + |y_i|: the relative error of the sum is absolute in its log.

    Where a runtime forms log(softmax) as max + log Σ first, max itself is rounded: |max| is added.
    """
    if x.ndim == 0:
        return Scale(np.abs(y), 1, Rule.COMPOSED)
    axis = _check_axis("LogSoftmax", x, axis)
    peak = np.abs(x.max(axis=axis, keepdims=True, initial=-np.inf))
    t = _shifted(x, axis)
    distance = _weighted_distance(np.exp(t), t, axis) / np.exp(t).sum(axis=axis, keepdims=True)
    total = np.log(np.exp(t).sum(axis=axis, keepdims=True))
    constant = 2 * EXP_ROUNDINGS
    size = np.abs(t) + distance + constant + 2 * total + np.abs(y) + peak
    n = x.shape[axis]
    return Scale(size, n, Rule.COMPOSED, spread=math.sqrt(1 + n / (9 * constant**2)))


def _register_coerced(op_type: str, function: object, scale_function: object) -> None:
    """Versions 1 and 11: the input is coerced to 2-D at `axis`, 1 by default."""

    @kernel(op_type, since=1)
    def coerced(x: Array, /, *, axis: int = 1) -> Array:
        axis = axis if axis == x.ndim else _check_axis(op_type, x, axis)
        return function(_coerced(x, axis), axis=1).reshape(x.shape)  # type: ignore[operator]

    @scale(op_type, since=1)
    def coerced_scale(y: Array, x: Array, /, *, axis: int = 1) -> Scale:
        """COMPOSED, as since 13, over the columns of the matrix."""
        axis = axis if axis == x.ndim else _check_axis(op_type, x, axis)
        flat = scale_function(_coerced(y, axis), _coerced(x, axis), axis=1)  # type: ignore[operator]
        return Scale(flat.magnitude.reshape(x.shape), flat.terms, flat.rule, flat.spread)


_register_coerced("Softmax", softmax, softmax_scale)
_register_coerced("LogSoftmax", log_softmax, log_softmax_scale)
