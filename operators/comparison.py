"""Comparison, logic, selection by condition or interval, and operations on bits: exact in every type."""

from __future__ import annotations

import numpy as np

from ..errors import InvalidAttributeError
from ._elementwise import register_binary, register_unary, undetermined, with_consumed_inputs
from .registry import kernel
from .scale import Array, Scale, exact

FLOAT32_MAX = float(np.finfo(np.float32).max)


def equal(a: Array, b: Array) -> Array:
    """Whether elements are the same; strings (object arrays) included."""
    return np.equal(a, b).astype(bool)


for _op_type, _function in {
    "Equal": equal,
    "Greater": np.greater,
    "Less": np.less,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
}.items():
    register_binary(_op_type, _function, exact, since=(1, 7))
for _op_type, _function, _since in (
    ("GreaterOrEqual", np.greater_equal, 12),
    ("LessOrEqual", np.less_equal, 12),
    ("BitwiseAnd", np.bitwise_and, 18),
    ("BitwiseOr", np.bitwise_or, 18),
    ("BitwiseXor", np.bitwise_xor, 18),
):
    register_binary(_op_type, _function, exact, since=(_since,))


@kernel("Not", since=1, scale=exact)
def logical_not(x: Array, /) -> Array:
    """True where `x` is False.

    Spec: Not, since 1
    """
    return np.asarray(np.logical_not(x))


@kernel("IsNaN", since=9, scale=exact)
def is_nan(x: Array, /) -> Array:
    """True where `x` is not a number.

    Spec: IsNaN, since 9
    """
    return np.asarray(np.isnan(x))


@kernel("IsInf", since=10, scale=exact)
def is_inf(x: Array, /, *, detect_negative: int = 1, detect_positive: int = 1) -> Array:
    """True where `x` is infinite with one of the signs asked for.

    Spec: IsInf, since 10
    """
    negative, positive = bool(detect_negative), bool(detect_positive)
    return np.asarray((np.isneginf(x) & negative) | (np.isposinf(x) & positive))


@kernel("Where", since=9, scale=exact)
def where(condition: Array, x: Array, y: Array, /) -> Array:
    """`x` where `condition` is True, else `y`; all three are broadcast together.

    Spec: Where, since 9
    """
    return np.where(condition, x, y)


register_unary("BitwiseNot", np.bitwise_not, exact, since=18)


@kernel("BitShift", since=28, scale=exact)
def bit_shift(x: Array, y: Array, /, *, direction: str) -> Array:
    """`x` shifted by `y` bits; by a negative or too large number of bits, what the sign alone leaves: 0 or −1.

    Args:
        x: any integers; a signed right shift copies the sign.
        y: as `x`; broadcast to it.
        direction: "LEFT" or "RIGHT".

    Raises:
        InvalidAttributeError: another `direction`.

    Spec: BitShift, since 28
    """
    if direction not in ("LEFT", "RIGHT"):
        raise InvalidAttributeError(f'BitShift: direction="{direction}" is neither "LEFT" nor "RIGHT"')
    shifted = np.left_shift(x, y) if direction == "LEFT" else np.right_shift(x, y)
    left_over = np.where(x < 0, -1, 0).astype(x.dtype) if direction == "RIGHT" else x.dtype.type(0)
    return np.where(_out_of_range(x, y), left_over, shifted)


def _out_of_range(x: Array, y: Array) -> Array:
    return (y < 0) | (y >= 8 * x.dtype.itemsize)


# Opset 11 takes unsigned numbers only, whose bits are moved out: opset 28 spells out what that leaves.
kernel("BitShift", since=11, scale=exact)(bit_shift)


def clip(x: Array, low: Array | None = None, high: Array | None = None, /) -> Array:
    """min(high, max(x, low)), so `high` where low > high; an absent bound does not bind.

    Args:
        x: any number type.
        low: the input `min`, a scalar.
        high: the input `max`, a scalar.

    Spec: Clip, since 11
    """
    y = x if low is None else np.maximum(x, low.reshape(()))
    return np.array(y if high is None else np.minimum(y, high.reshape(())))


def clip_scale(y: Array, x: Array, low: Array | None = None, high: Array | None = None, /) -> Scale:
    """Exact. Open for an infinity without its bound: the text defaults to the largest finite value, the function
    body to no bound."""
    if y.dtype.kind != "f":
        return undetermined(False)
    no_low, no_high = low is None, high is None
    return undetermined((np.isneginf(x) & no_low) | (np.isposinf(x) & no_high))


def clip_first(x: Array, /, *, min: float | None = None, max: float | None = None) -> Array:  # noqa: A002 (the spec's)
    """As from opset 11, with the bounds as attributes.

    Spec: Clip, since 1
    """
    bounds = (None if bound is None else np.array(bound) for bound in (min, max))
    return clip(x, *bounds)


def clip_first_scale(y: Array, x: Array, /, *, min: float | None = None, max: float | None = None) -> Scale:  # noqa: A002
    """Exact, with the same open case."""
    return clip_scale(y, x, *(None if bound is None else np.array(bound) for bound in (min, max)))


@kernel("Clip", since=6, scale=exact)
def clip_attributes(x: Array, /, *, min: float = -FLOAT32_MAX, max: float = FLOAT32_MAX) -> Array:  # noqa: A002
    """As from opset 11, with the bounds as attributes that default to the finite range of float32.

    Spec: Clip, since 6
    """
    return clip(x, np.array(min), np.array(max))


kernel("Clip", since=1, scale=clip_first_scale)(with_consumed_inputs(clip_first))
kernel("Clip", since=11, scale=clip_scale)(clip)
