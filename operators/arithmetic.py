"""Element-wise arithmetic: +, −, ×, ÷, remainder, power, rounding, extremes, sums, running sums, determinants.

Integers are computed in their stored type and wrap on overflow; every scale here is exact on them. Where the
specification leaves a value open (integer division by zero, an integer power that overflows), the scale's `terms` are
infinite: such elements are not judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._elementwise import (
    ONCE,
    axis_index,
    bounded,
    once_rounded,
    register_binary,
    register_unary,
    relative,
    undetermined,
    with_consumed_inputs,
)
from ._spilling import opened, overflows
from .registry import kernel, scale
from .scale import Array, Rule, Scale, exact
from .storage import float_format

INTEGER_POWER_DOUBT = 2.0**-20
"""An integer power with a fractional exponent is truncated; this close to an integer, relatively, float32 may err."""


def divide(a: Array, b: Array) -> Array:
    """a / b; truncated toward zero on integers."""
    if a.dtype.kind == "f":
        return np.divide(a, b)
    quotient = np.floor_divide(a, b)
    inexact = quotient * b != a
    return quotient + (inexact & ((a < 0) != (b < 0))).astype(a.dtype)


def divide_scale(y: Array, a: Array, b: Array, /) -> Scale:
    """Correctly rounded; on integers exact, but open for x / 0 and for the quotient that the type cannot hold."""
    if y.dtype.kind == "f":
        return once_rounded(y)
    overflow = (a == np.iinfo(a.dtype).min) & (b == -1) if a.dtype.kind == "i" else False
    return undetermined((b == 0) | overflow)


for _op_type, _function in {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}.items():
    register_binary(_op_type, _function, once_rounded, since=(1, 6, 7))
register_binary("Div", divide, divide_scale, since=(1, 6, 7))


def sign_scale(y: Array, x: Array, /) -> Scale:
    """Exact; the sign of NaN is not specified."""
    return undetermined(np.isnan(x) if y.dtype.kind == "f" else False)


register_unary("Neg", np.negative, exact)
register_unary("Abs", np.abs, exact)
register_unary("Floor", np.floor, exact)
register_unary("Ceil", np.ceil, exact)
register_unary("Round", np.rint, exact, since=11)
register_unary("Sign", np.sign, sign_scale, since=9)
register_unary("Reciprocal", np.reciprocal, once_rounded)
register_unary(
    "Sqrt",
    np.sqrt,
    relative(
        8,
        "8 at |y|, 4 units in the last place: a vectorised root is x times an estimate of 1/√x that is off by "
        "1.5·2⁻¹² and improved by one Newton step (1.5·(1.5·2⁻¹²)² is 3.4 half-units), whose roundings add 4.",
    ),
)


def mod_scale(y: Array, a: Array, b: Array, /, *, fmod: int = 0) -> Scale:
    """fmod is exact in any float type; the floored remainder adds the divisor to it, which rounds once. Exact on
    integers, open for x mod 0."""
    if y.dtype.kind != "f":
        return undetermined(b == 0)
    return exact(y) if fmod else once_rounded(y)  # pyright: ignore[reportReturnType] (one output, one scale)


@kernel("Mod", since=10, scale=mod_scale)
def mod_integers(a: Array, b: Array, /, *, fmod: int = 0) -> Array:
    """Remainder of `a / b` with the sign of `b` (integers only), or with the sign of `a` where `fmod` is 1.

    Raises:
        InvalidAttributeError: floats with `fmod` = 0, which opsets 10 to 27 exclude.

    Spec: Mod, since 10
    """
    if a.dtype.kind == "f" and not fmod:
        raise InvalidAttributeError("Mod (before opset 28): fmod=0 takes integers only, the inputs are floats")
    return mod(a, b, fmod=fmod)


@kernel("Mod", since=28, scale=mod_scale)
def mod(a: Array, b: Array, /, *, fmod: int = 0) -> Array:
    """a − floor(a / b)·b, or a − trunc(a / b)·b where `fmod` is 1; any numeric type.

    Spec: Mod, since 28
    """
    return np.asarray(np.fmod(a, b) if fmod else np.mod(a, b))


def power(x: Array, y: Array) -> Array:
    """x to the y, in the type of `x`: float64, or an integer type that wraps and truncates toward zero."""
    if x.dtype.kind == "f":
        return np.power(x, y.astype(np.float64))
    whole = np.rint(y).astype(np.int64) if y.dtype.kind == "f" else y.astype(np.int64)
    powers = np.power(x.astype(np.int64), np.maximum(whole, 0))
    powers = np.where(whole < 0, np.where(np.abs(x) == 1, np.power(x.astype(np.int64), np.abs(whole) % 2), 0), powers)
    if y.dtype.kind != "f":
        return powers.astype(x.dtype)
    fractional = np.trunc(np.power(x.astype(np.float64), y.astype(np.float64)))
    with np.errstate(invalid="ignore"):
        return np.where(np.rint(y) == y, powers, fractional.astype(np.int64)).astype(x.dtype)


def power_scale(y: Array, x: Array, exponent: Array, /) -> Scale:
    """e^t with t = exponent·ln|x| in the stored type: ln is off by 2 half-units and the product by 1, which e^t
    turns into 3|t| relative ones; the exponential's own reduction of its range adds |t|, its rounding and that of
    the repeated product for a small whole exponent 4. Open on integers where the type cannot hold the power."""
    if y.dtype.kind != "f":
        return undetermined(_power_is_open(x, exponent))
    t = np.abs(exponent.astype(np.float64) * np.log(np.abs(x)))
    return bounded(y, np.abs(y), 4 + 4 * np.where(np.isfinite(t), t, 0))


def _power_is_open(x: Array, y: Array) -> Array:
    value = np.power(x.astype(np.float64), y.astype(np.float64))
    limits = np.iinfo(x.dtype)
    fits = (value >= limits.min) & (value < -float(limits.min))
    near = np.abs(value - np.rint(value)) <= INTEGER_POWER_DOUBT * np.abs(value)
    fractional = np.rint(y) != y if y.dtype.kind == "f" else False
    return ~fits | (near & fractional)


register_binary("Pow", power, power_scale, since=(1, 7))


def _same_shapes_or_broadcast(*shapes: tuple[int, ...]) -> None:
    try:
        np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise InvalidInputError(f"shapes {', '.join(map(str, shapes))} cannot be broadcast together") from error


def _fold(function: Any, xs: tuple[Array, ...]) -> Array:
    _same_shapes_or_broadcast(*(x.shape for x in xs))
    return np.asarray(reduce(function, xs))


def maximum(*xs: Array) -> Array:
    """The largest of the inputs, element by element; NaN where any is NaN.

    Spec: Max, since 1 (broadcasting since 8, integers since 12)
    """
    return _fold(np.maximum, xs)


def minimum(*xs: Array) -> Array:
    """The smallest of the inputs, element by element; NaN where any is NaN.

    Spec: Min, since 1 (broadcasting since 8, integers since 12)
    """
    return _fold(np.minimum, xs)


def sum_of(*xs: Array) -> Array:
    """The sum of the inputs, element by element.

    Spec: Sum, since 1 (broadcasting since 8)
    """
    return _fold(np.add, xs)


def mean_of(*xs: Array) -> Array:
    """The mean of the inputs, element by element.

    Spec: Mean, since 1 (broadcasting since 8)
    """
    return np.asarray(sum_of(*xs) / len(xs))


def sum_scale(_y: Array, /, *xs: Array) -> Scale:
    """DOT: a sum of n numbers in any order: each partial sum is at most Σ|x| and rounds once."""
    return Scale(_fold(np.add, tuple(np.abs(x) for x in xs)), len(xs), Rule.DOT)


def mean_scale(_y: Array, /, *xs: Array, stored: Sequence[np.dtype[Any] | None] = (None,)) -> Scale:
    """DOT, as for a sum, at Σ|x| / n, with one rounding more for the division; open where the sum may overflow."""
    total = _fold(np.add, tuple(np.abs(x) for x in xs))
    return opened(Scale(total / len(xs), len(xs) + 1, Rule.DOT), overflows(total, stored[0]))


for _op_type, _variadic, _rule in (
    ("Max", maximum, exact),
    ("Min", minimum, exact),
    ("Sum", sum_of, sum_scale),
    ("Mean", mean_of, mean_scale),
):
    kernel(_op_type, since=1, scale=_rule)(with_consumed_inputs(_variadic))
    kernel(_op_type, since=6, scale=_rule)(_variadic)


def _running(operation: np.ufunc, x: Array, axis: Array, exclusive: int, reverse: int) -> Array:
    index = axis_index(f"Cum{operation.__name__.title()}", int(axis.reshape(())), x.ndim)
    ordered = np.flip(x, index) if reverse else x
    total = operation.accumulate(ordered, axis=index, dtype=x.dtype)
    if exclusive:
        first = np.full_like(total.take([0] if x.shape[index] else [], index), operation.identity)
        total = np.concatenate([first, total.take(range(x.shape[index] - 1), index)], axis=index)
    return np.ascontiguousarray(np.flip(total, index)) if reverse else total


@kernel("CumSum", since=11)
def cumulative_sum(x: Array, axis: Array, /, *, exclusive: int = 0, reverse: int = 0) -> Array:
    """Sums of the elements of `x` up to each one along `axis`.

    Args:
        x: (…, N, …), any number type.
        axis: one integer, in [-rank, rank).
        exclusive: 1 leaves the element itself out.
        reverse: 1 sums from the end.

    Raises:
        InvalidAttributeError: `axis` outside [-rank, rank).

    Spec: CumSum, since 11
    """
    return _running(np.add, x, axis, exclusive, reverse)


@scale("CumSum", since=11)
def cumulative_sum_scale(y: Array, x: Array, axis: Array, /, *, exclusive: int = 0, reverse: int = 0) -> Scale:
    """DOT: every output is a sum of at most N inputs: the same sums of |x|."""
    if y.dtype.kind != "f":
        return Scale(np.zeros(()), 0, Rule.EXACT)
    count = x.shape[int(axis.reshape(()))]
    return Scale(_running(np.add, np.abs(x), axis, exclusive, reverse), count, Rule.DOT)


@kernel("CumProd", since=26)
def cumulative_product(x: Array, axis: Array, /, *, exclusive: int = 0, reverse: int = 0) -> Array:
    """Products of the elements of `x` up to each one along `axis`; arguments as for CumSum.

    Raises:
        InvalidAttributeError: `axis` outside [-rank, rank).

    Spec: CumProd, since 26
    """
    return _running(np.multiply, x, axis, exclusive, reverse)


@scale("CumProd", since=26)
def cumulative_product_scale(
    y: Array,
    x: Array,
    axis: Array,
    /,
    *,
    exclusive: int = 0,
    reverse: int = 0,
    stored: Sequence[np.dtype[Any] | None] = (None,),
) -> Scale:
    """The i-th product rounds i times, each time by half a unit of itself: |z| <= i·(1 + ε) at |y|. Open behind a
    product that has left the type's range and come back."""
    steps = _running(np.add, np.ones_like(x), axis, exclusive, reverse)
    found = bounded(y, np.abs(y), ONCE * np.maximum(steps, 1))
    if y.dtype.kind != "f" or stored[0] is None:
        return found
    form, sizes = float_format(stored[0]), np.where(y == 0, 1.0, np.abs(y))
    index = axis_index("CumProd", int(axis.reshape(())), x.ndim)
    left = (sizes >= form.largest) | (sizes < form.smallest_normal)
    behind = np.logical_or.accumulate(np.flip(left, index) if reverse else left, axis=index)
    return opened(found, (np.flip(behind, index) if reverse else behind) & ~left)


@kernel("Det", since=11)
def determinant(x: Array, /) -> Array:
    """Determinants of the square matrices in the last two dimensions of `x`.

    Args:
        x: (…, M, M), any float.

    Returns:
        (…), float64.

    Raises:
        InvalidInputError: the last two dimensions differ, or there are fewer than two.

    Spec: Det, since 11
    """
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise InvalidInputError(f"Det: shape {x.shape} is not (…, M, M)")
    return np.asarray(np.linalg.det(x))


@scale("Det", since=11)
def determinant_scale(_y: Array, x: Array, /) -> Scale:
    """COMPOSED: elimination perturbs entry (i, j) by at most M roundings of its size, which the determinant multiplies
    by the entry's cofactor: Σ|x_ij|·|C_ij|, by the singular value decomposition so that singular matrices are right."""
    size = x.shape[-1]
    u, s, vt = np.linalg.svd(x)
    others = np.stack([np.prod(np.delete(s, i, axis=-1), axis=-1) for i in range(size)], axis=-1)
    cofactors = (np.linalg.det(u) * np.linalg.det(vt))[..., None, None] * (u * others[..., None, :]) @ vt
    return Scale(np.sum(np.abs(x) * np.abs(cofactors), axis=(-2, -1)), max(2 * size, 1), Rule.COMPOSED)
