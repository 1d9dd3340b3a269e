"""Reductions over axes: sums, means, products, norms, logarithms of sums, extremes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InvalidAttributeError
from ._spilling import opened, overflows, powers_vanish, squares_spill, unspecified
from .registry import kernel, scale
from .rounding import growth, half_unit
from .scale import Array, Rule, Scale
from .storage import float_format, is_float

Axes = tuple[int, ...]
Body = Callable[[Array, Axes, bool], Array]
ScaleBody = Callable[[Array, Array, Axes, bool], Scale]
SpillBody = Callable[[Array, Axes, bool, np.dtype[Any] | None], Array]
StepBody = Callable[[Array, Array, Axes, bool], Array]
Stored = Sequence[np.dtype[Any] | None]

ROOT_ROUNDINGS = 2.0
"""Roundings after the sum of squares: the root (1) and one spare for a runtime that scales by the largest element."""

LOG_ROUNDINGS = 4.0
"""Roundings after a sum: the logarithm (implementations err by at most one ulp: 2), the final sum (1), one spare."""


def _add(x: Array, axes: Axes, keepdims: bool) -> Array:
    return np.sum(x, axis=axes, keepdims=keepdims, dtype=x.dtype)


def _count(x: Array, axes: Axes) -> int:
    return math.prod(x.shape[axis] for axis in axes)


def _as_stored(value: Array, x: Array) -> Array:
    """`value` in the dtype of `x`: an integer operator truncates what is not whole."""
    return np.asarray(value).astype(x.dtype, copy=False)


def _mean(x: Array, axes: Axes, keepdims: bool) -> Array:
    count = _count(x, axes)
    if x.dtype.kind == "f":
        return np.asarray(_add(x, axes, keepdims) / np.float64(count))
    total = _exact_sum(x, axes, keepdims)
    quotient = np.abs(total) // max(count, 1)
    return _as_stored(np.where(total < 0, -quotient, quotient), x)


def _exact_sum(x: Array, axes: Axes, keepdims: bool) -> Array:
    """Sums of integers as Python's own, which know no overflow: a mean is in the range of what it is of."""
    if x.dtype.itemsize < 8:
        return np.asarray(np.sum(x, axis=axes, keepdims=keepdims, dtype=np.int64), object)
    halves = (x >> HALF, x & ((1 << HALF) - 1))
    high, low = (np.asarray(np.sum(half, axis=axes, keepdims=keepdims, dtype=np.int64), object) for half in halves)
    return np.asarray(high * (1 << HALF) + low)


HALF = 32
"""Bits of half an int64: sums of 2^31 halves fit into one."""


def _lowest(dtype: np.dtype[Any]) -> Any:
    return -np.inf if dtype.kind == "f" else False if dtype.kind == "b" else np.iinfo(dtype).min


def _highest(dtype: np.dtype[Any]) -> Any:
    return np.inf if dtype.kind == "f" else True if dtype.kind == "b" else np.iinfo(dtype).max


def _max(x: Array, axes: Axes, keepdims: bool) -> Array:
    return np.max(x, axis=axes, keepdims=keepdims, initial=_lowest(x.dtype))


def _min(x: Array, axes: Axes, keepdims: bool) -> Array:
    return np.min(x, axis=axes, keepdims=keepdims, initial=_highest(x.dtype))


def _prod(x: Array, axes: Axes, keepdims: bool) -> Array:
    return np.prod(x, axis=axes, keepdims=keepdims, dtype=x.dtype)


def _l1(x: Array, axes: Axes, keepdims: bool) -> Array:
    return _add(np.abs(x), axes, keepdims)


def _sum_square(x: Array, axes: Axes, keepdims: bool) -> Array:
    return _add(x * x, axes, keepdims)


def _wide(x: Array) -> Array:
    """Integers as float64: what follows a sum is in their range where the sum is not."""
    return x if x.dtype.kind == "f" else x.astype(np.float64)


def _l2(x: Array, axes: Axes, keepdims: bool) -> Array:
    return _as_stored(np.sqrt(_sum_square(_wide(x), axes, keepdims)), x)


def _log_sum(x: Array, axes: Axes, keepdims: bool) -> Array:
    return _as_stored(np.log(_add(_wide(x), axes, keepdims)), x)


def _peak(x: Array, axes: Axes) -> Array:
    """Largest value with the axes kept; 0 where it is infinite, so that the shifted exponentials stay defined."""
    peak = np.asarray(_max(x, axes, True), np.float64)
    return np.where(np.isinf(peak), 0, peak)


def _log_sum_exp(x: Array, axes: Axes, keepdims: bool) -> Array:
    peak = _peak(x, axes)
    value = np.log(_add(np.exp(x - peak), axes, True)) + peak
    return _as_stored(value if keepdims else np.squeeze(value, axes), x)


def _sum_scale(_y: Array, x: Array, axes: Axes, keepdims: bool) -> Scale:
    """DOT: a sum of K values."""
    return Scale(_l1(x, axes, keepdims), max(_count(x, axes), 1), Rule.DOT)


def _mean_scale(y: Array, x: Array, axes: Axes, keepdims: bool) -> Scale:
    """DOT: a sum of K values, and the division. Open over no value: "undefined"."""
    count = max(_count(x, axes), 1)
    found = Scale(_l1(x, axes, keepdims) / count, count + 1, Rule.DOT)
    return unspecified(found, np.full(y.shape, not _count(x, axes)))


def _mean_steps(y: Array, x: Array, axes: Axes, keepdims: bool) -> Array:
    """How a mean becomes an integer is not said: the one above or below. Open over no value."""
    count = _count(x, axes)
    if not count:
        return np.full(y.shape, np.inf)
    return np.where(_exact_sum(x, axes, keepdims) % count == 0, 0.0, 1.0)


def _root_steps(y: Array, x: Array, axes: Axes, keepdims: bool) -> Array:
    """The function body takes the root of a float32 and cuts it: a step where that is in doubt."""
    total = np.sum(np.square(x.astype(np.float64)), axis=axes, keepdims=keepdims)
    return np.where(total <= ROOTS_APART, 0.0, _cut_steps(np.sqrt(total)))


def _log_sum_steps(y: Array, x: Array, axes: Axes, keepdims: bool) -> Array:
    """As for a root."""
    return _cut_steps(np.log(np.sum(x.astype(np.float64), axis=axes, keepdims=keepdims)))


def _log_sum_exp_steps(y: Array, x: Array, axes: Axes, keepdims: bool) -> Array:
    """As for a root; open where e^x is no float64."""
    value = _log_sum_exp(x.astype(np.float64), axes, keepdims)
    return np.where(np.abs(value) > BODY_REACH, np.inf, _cut_steps(value))


def _cut_steps(value: Array) -> Array:
    """0 where every float32 near a value is cut to the same integer, 1 elsewhere; infinite where there is no value."""
    reach = np.abs(value) * CUT_DOUBT
    with np.errstate(all="ignore"):
        doubt = np.where(np.trunc(value - reach) == np.trunc(value + reach), 0.0, 1.0)
    return np.where(np.isfinite(value), doubt, np.inf)


ROOTS_APART = 2.0**22
"""Up to it float32 holds sums and tells the root of a square from that of the number before it."""

CUT_DOUBT = 2.0**-20
"""By how much a root or logarithm in float32 may be off, relatively, before it is cut to an integer."""

BODY_REACH = 700.0
"""e^x is a normal number of float64, in which the function body computes it, for |x| up to here."""


def _prod_scale(y: Array, x: Array, axes: Axes, keepdims: bool) -> Scale:
    """COMPOSED at |y|: K − 1 multiplications, each rounded relatively with variance u² / 3, and the stored result."""
    count = max(_count(x, axes), 1)
    return Scale(np.abs(y), count, Rule.COMPOSED, math.sqrt(1 + count / 3))


def _sum_square_scale(y: Array, x: Array, axes: Axes, keepdims: bool) -> Scale:
    """DOT: K products x·x."""
    return Scale(np.abs(y), max(_count(x, axes), 1), Rule.DOT)


def _l2_scale(y: Array, x: Array, axes: Axes, keepdims: bool) -> Scale:
    """COMPOSED at |y|: the sum of K squares is off by at most K roundings relatively, the root halves that."""
    return Scale(np.abs(y), _count(x, axes) / 2 + ROOT_ROUNDINGS, Rule.COMPOSED)


def _log_sum_scale(y: Array, x: Array, axes: Axes, keepdims: bool) -> Scale:
    """COMPOSED: log turns the relative error of the sum S, up to K roundings at Σ|x| / |S|, into an absolute one; the
    logarithm itself rounds at |y|."""
    total = np.abs(_add(x, axes, keepdims))
    amplified = np.divide(_l1(x, axes, keepdims), total, out=np.zeros_like(total), where=total > 0)
    return Scale(amplified + np.abs(np.where(np.isfinite(y), y, 0)), _count(x, axes) + LOG_ROUNDINGS, Rule.COMPOSED)


def _log_sum_exp_scale(y: Array, x: Array, axes: Axes, keepdims: bool) -> Scale:
    """COMPOSED, with t = x − max, p = exp(t) / Σ exp(t) and L = y − max.

    Derivation: the rounding of t_j moves exp(t_j) relatively by |t_j| units, hence log Σ by Σ p_j |t_j|; every
    exponential adds a few units, hence 1 for their mean; the sum of K positive terms is counted in `terms`; log rounds
    at |L| and the last addition at |y|. A runtime that does not shift by the maximum rounds at |y| only, and may be
    infinite where the function body, which forms e^x in float64, is.
    """
    peak = _peak(x, axes)
    shifted = x - peak
    powers = np.exp(shifted)
    total = _add(powers, axes, True)
    spread = np.divide(
        _add(powers * np.abs(np.where(powers > 0, shifted, 0)), axes, True),
        total,
        out=np.zeros_like(total),
        where=total > 0,
    )
    size = 1 + spread + np.abs(np.log(total)) + np.abs(np.log(total) + peak)
    size = np.where(np.isfinite(size), size, 0)
    size = size if keepdims else np.squeeze(size, axes)
    beyond = np.abs(y) > BODY_REACH
    return Scale(size, _count(x, axes) + LOG_ROUNDINGS, Rule.COMPOSED, overflows=beyond)


def _sum_spills(x: Array, axes: Axes, keepdims: bool, dtype: np.dtype[Any] | None) -> Array:
    """Where a sum that is divided, or whose logarithm is taken, may overflow."""
    return overflows(_l1(x, axes, keepdims), dtype)


def _log_spills(x: Array, axes: Axes, keepdims: bool, dtype: np.dtype[Any] | None) -> Array:
    """Where a sum whose logarithm is taken may overflow, or come out as 0 or less though it is not."""
    size, total = _l1(x, axes, keepdims), _add(x, axes, keepdims)
    if dtype is None or not is_float(dtype):
        return overflows(size, dtype)
    lost = size * half_unit(float_format(dtype)) * 2 * growth(_count(x, axes), float_format(dtype))
    return overflows(size, dtype) | ((total > 0) & (total <= lost)) | ((total <= 0) & (size > 0) & (-total <= lost))


def _product_spills(x: Array, axes: Axes, keepdims: bool, dtype: np.dtype[Any] | None) -> Array:
    """Where the product of some of the factors may overflow, or vanish."""
    if dtype is None or not is_float(dtype):
        return np.zeros((), bool)
    with np.errstate(all="ignore"):
        size = np.log2(np.abs(x))
        up = np.sum(np.where(size > 0, size, 0), axis=axes, keepdims=keepdims)
        down = np.sum(np.where(size < 0, np.where(np.isfinite(size), size, 0), 0), axis=axes, keepdims=keepdims)
    form = float_format(dtype)
    both = (up > 0) & (down < 0) | np.any(x == 0, axis=axes, keepdims=keepdims)
    return both & ((up >= np.log2(form.largest)) | (down <= np.log2(form.smallest_normal)))


def _squares_spill(x: Array, axes: Axes, keepdims: bool, dtype: np.dtype[Any] | None) -> Array:
    """Where a sum of squares whose root is taken may overflow, or vanish."""
    vanished = powers_vanish(x * x, axes, dtype, keepdims=keepdims) & np.any(x != 0, axis=axes, keepdims=keepdims)
    return squares_spill(x, axes, dtype, keepdims=keepdims) | vanished


class Reduction(NamedTuple):
    """One reduction: what it computes, its scale, since when `axes` is an input, where a step leaves its range, and by
    how many steps an integer may be off."""

    body: Body
    scale: ScaleBody | None
    axes_input_since: int
    spills: SpillBody | None = None
    steps: StepBody | None = None


REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": Reduction(_add, _sum_scale, 13),
    "ReduceMean": Reduction(_mean, _mean_scale, 18, _sum_spills, _mean_steps),
    "ReduceMax": Reduction(_max, None, 18),
    "ReduceMin": Reduction(_min, None, 18),
    "ReduceProd": Reduction(_prod, _prod_scale, 18, _product_spills),
    "ReduceL1": Reduction(_l1, _sum_scale, 18),
    "ReduceL2": Reduction(_l2, _l2_scale, 18, _squares_spill, _root_steps),
    "ReduceLogSum": Reduction(_log_sum, _log_sum_scale, 18, _log_spills, _log_sum_steps),
    "ReduceLogSumExp": Reduction(_log_sum_exp, _log_sum_exp_scale, 18, steps=_log_sum_exp_steps),
    "ReduceSumSquare": Reduction(_sum_square, _sum_square_scale, 18),
}
"""Every reduction by op_type. An empty set gives the neutral element: 0, 1, the lowest or highest value, −inf for
logarithms; of a mean nothing is specified. `noop_with_empty_axes` reduces over no axis: only the element-wise part is
done."""


def resolved_axes(x: Array, axes: Sequence[int] | Array | None, noop: bool) -> Axes:
    """Reduced axes counted from the front: all where none are given, or none where that is a no-op.

    Raises:
        InvalidAttributeError: an axis outside [-rank, rank).
    """
    given = [] if axes is None else [int(axis) for axis in axes]
    if not given:
        return () if noop else tuple(range(x.ndim))
    if any(not -x.ndim <= axis < x.ndim for axis in given):
        raise InvalidAttributeError(f"axes={given} for rank {x.ndim}; allowed: {-x.ndim} to {x.ndim - 1}")
    return tuple(sorted({axis % x.ndim for axis in given}))


def _register(op_type: str, reduction: Reduction) -> None:
    """Register the form with `axes` as an attribute, and the one with `axes` as an input."""
    body, since = reduction.body, reduction.axes_input_since

    @kernel(op_type, since=1)
    def by_attribute(x: Array, /, *, axes: Sequence[int] | None = None, keepdims: int = 1) -> Array:
        return np.asarray(body(x, resolved_axes(x, axes, False), bool(keepdims)))

    @kernel(op_type, since=since)
    def by_input(x: Array, axes: Array | None = None, /, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Array:
        return np.asarray(body(x, resolved_axes(x, axes, bool(noop_with_empty_axes)), bool(keepdims)))

    def attribute_scale(
        y: Array, x: Array, /, *, axes: Sequence[int] | None = None, keepdims: int = 1, stored: Stored = (None,)
    ) -> Scale:
        return _scale(reduction, y, x, resolved_axes(x, axes, False), bool(keepdims), stored[0])

    def input_scale(
        y: Array,
        x: Array,
        axes: Array | None = None,
        /,
        *,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
        stored: Stored = (None,),
    ) -> Scale:
        return _scale(reduction, y, x, resolved_axes(x, axes, bool(noop_with_empty_axes)), bool(keepdims), stored[0])

    described = getattr(reduction.scale, "__doc__", None) or "Exact: no rounding."
    attribute_scale.__doc__ = input_scale.__doc__ = described
    scale(op_type, since=1)(attribute_scale)
    scale(op_type, since=since)(input_scale)


def _scale(reduction: Reduction, y: Array, x: Array, axes: Axes, keepdims: bool, dtype: np.dtype[Any] | None) -> Scale:
    if y.dtype.kind in "iu":
        steps = _out_of_range(reduction.body, y.dtype, x, axes, keepdims)
        if reduction.steps is not None:
            steps = np.maximum(steps, reduction.steps(y, x, axes, keepdims))
        return Scale(np.zeros(()), steps, Rule.EXACT)
    if reduction.scale is None or y.dtype.kind != "f":
        return Scale(np.zeros(()), 0, Rule.EXACT)
    found = reduction.scale(y, x, axes, keepdims)
    return found if reduction.spills is None else opened(found, reduction.spills(x, axes, keepdims, dtype))


def _out_of_range(body: Body, dtype: np.dtype[Any], x: Array, axes: Axes, keepdims: bool) -> Array:
    """Infinite where integers do not hold the result: whether it wraps or saturates is not specified; else 0."""
    if body in (_max, _min, _mean):
        return np.zeros(())
    with np.errstate(all="ignore"):
        value = np.asarray(body(x.astype(np.float64), axes, keepdims))
        inside = (value > float(_lowest(dtype)) - 1) & (value < float(_highest(dtype)) + 1)
    return np.where(inside, 0.0, np.inf)


for _op_type, _reduction in REDUCTIONS.items():
    _register(_op_type, _reduction)
