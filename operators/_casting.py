"""Conversion between stored types as Cast specifies it, rounding once, and which elements it leaves open."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

from .readings import is_number
from .scale import Array
from .storage import float_format, is_float

DType = np.dtype[Any]

FINITE = tuple(np.dtype(dtype) for dtype in (ml_dtypes.float4_e2m1fn, ml_dtypes.float6_e2m3fn, ml_dtypes.float6_e3m2fn))
"""Types without infinity and NaN: conversion to them always saturates."""
POWERS_OF_TWO = np.dtype(ml_dtypes.float8_e8m0fnu)
WITHOUT_NEGATIVE_ZERO = tuple(np.dtype(dtype) for dtype in (ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2fnuz))
FLOAT8 = (*WITHOUT_NEGATIVE_ZERO, np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.float8_e5m2))
WIDE = tuple(np.dtype(dtype) for dtype in (np.float64, np.float32, np.float16))
"""Types to which NumPy converts float64 with one rounding; ml_dtypes goes through float32 for the others."""

_SHORT_INTEGERS = {
    np.dtype(ml_dtypes.int2): (np.dtype(np.int8), -2, 1),
    np.dtype(ml_dtypes.uint2): (np.dtype(np.uint8), 0, 3),
    np.dtype(ml_dtypes.int4): (np.dtype(np.int8), -8, 7),
    np.dtype(ml_dtypes.uint4): (np.dtype(np.uint8), 0, 15),
}
_EXACT_INTEGERS = 2.0**53
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_AT_LEAST = {"up": 0.5, "nearest": np.nextafter(0.75, 0), "down": 1.0}
"""The fraction in [½, 1) beyond which a value goes to the next power of two; "nearest" takes the tie at ¾ up."""


@cache
def integer_limits(dtype: DType) -> tuple[int, int]:
    """The smallest and largest value of an integer type."""
    if dtype in _SHORT_INTEGERS:
        return _SHORT_INTEGERS[dtype][1:]
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def widen(values: Array) -> Array:
    """Integers of 2 and 4 bits as those of 8, floats of any width as float64; anything else untouched."""
    if values.dtype in _SHORT_INTEGERS:
        return values.astype(_SHORT_INTEGERS[values.dtype][0])
    return values.astype(np.float64) if is_float(values.dtype) else values


def round_to(values: Array, dtype: DType) -> Array:
    """float64 `values` rounded once, to nearest with ties to even, to the precision of `dtype`; range unlimited."""
    form = float_format(dtype)
    exponent = np.maximum(np.frexp(values)[1] - 1, int(np.log2(form.smallest_normal)))
    step = np.ldexp(1.0, exponent - form.fraction_bits)
    return np.where(np.isfinite(values), np.rint(values / step) * step, values)


def convert(
    values: Array, dtype: DType, *, saturate: bool = True, round_mode: str = "up", infinity_saturates: bool = True
) -> Array:
    """`values` in the stored type `dtype`.

    Args:
        values: float64, integers of any width, bool, or strings.
        dtype: what to convert to.
        saturate: for the 8-bit floats: beyond the largest value comes that value, else infinity or NaN.
        round_mode: for float8e8m0: "up", "down" or "nearest".
        infinity_saturates: for the 8-bit floats without negative zero: ∞ saturates (since opset 24), or is NaN.

    Returns:
        Same shape, of `dtype`; where `is_open`, any value.
    """
    values = widen(values)
    with np.errstate(all="ignore"):
        if dtype.kind in "OUT":
            return _to_strings(values)
        if values.dtype.kind in "OUST":
            values = _from_strings(values, dtype)
        if dtype.kind == "b":
            return values != 0
        if not is_float(dtype):
            return _to_integers(values, dtype)
        if dtype == POWERS_OF_TWO:
            return _to_powers_of_two(values.astype(np.float64), saturate, round_mode)
        return _to_floats(values, dtype, saturate, infinity_saturates)


def is_open(values: Array, dtype: DType) -> Array:
    """Which elements the specification does not determine when `values` are converted to `dtype`.

    A float outside an integer type's range, NaN in a type without it, negative powers of two, text that is not a plain
    number; and where rounding through float32 differs from rounding once.
    """
    values = widen(values)
    if dtype.kind in "OUT":
        return np.broadcast_to(values.dtype.kind in "fb", values.shape)
    if values.dtype.kind in "OUST":
        return ~_is_plain(values, dtype)
    if values.dtype.kind == "f":
        return _float_is_open(values, dtype)
    return _rounds_twice(_exactly(values), dtype) if is_float(dtype) else np.zeros(values.shape, bool)


def _float_is_open(values: Array, dtype: DType) -> Array:
    if dtype.kind == "b":
        return np.zeros(values.shape, bool)
    if dtype == POWERS_OF_TWO:
        return np.signbit(values)
    if dtype in FINITE:
        return np.isnan(values) | _rounds_twice(values, dtype)
    if is_float(dtype):
        return _rounds_twice(values, dtype)
    low, high = integer_limits(dtype)
    whole = np.trunc(values)
    return ~((whole >= low) & (whole < float(high) + (1 if high < _EXACT_INTEGERS else 0)))


def _rounds_twice(values: Array, dtype: DType) -> Array:
    if dtype in WIDE[:2]:
        return np.zeros(values.shape, bool)
    with np.errstate(all="ignore"):
        through = round_to(values.astype(np.float32).astype(np.float64), dtype)
        return (through != round_to(values, dtype)) & np.isfinite(values)


def _exactly(values: Array) -> Array:
    """Integers and booleans as float64; beyond 2^53 the last bits are made odd, so that a second rounding is right."""
    if values.dtype.itemsize < 8 or values.dtype.kind == "b":
        return values.astype(np.float64)
    low_bits = np.array(0x7FF, values.dtype)
    odd = (values & ~low_bits) | np.where(values & low_bits, np.array(0x800, values.dtype), np.array(0, values.dtype))
    small = np.abs(values.astype(np.float64)) <= _EXACT_INTEGERS
    return np.where(small, values.astype(np.float64), odd.astype(np.float64))


def _to_floats(values: Array, dtype: DType, saturate: bool, infinity_saturates: bool) -> Array:
    if dtype in WIDE[:2]:
        return values.astype(dtype)
    values = _exactly(values) if values.dtype.kind != "f" else values
    rounded = round_to(values, dtype)
    if dtype in FINITE or (saturate and dtype in FLOAT8):
        largest = float_format(dtype).largest
        unbounded = np.isinf(values) & (not infinity_saturates) & (dtype in WITHOUT_NEGATIVE_ZERO)
        rounded = np.where(unbounded, np.nan, np.clip(rounded, -largest, largest))
    return rounded.astype(dtype)


def _to_integers(values: Array, dtype: DType) -> Array:
    if values.dtype.kind == "f":
        values = np.where(_float_is_open(values, dtype), 0.0, np.trunc(values))
        values = values.astype(np.uint64 if integer_limits(dtype)[1] > 2**63 else np.int64)
    return values.astype(dtype)


def _to_powers_of_two(values: Array, saturate: bool, round_mode: str) -> Array:
    form = float_format(POWERS_OF_TWO)
    fraction, exponent = np.frexp(values)  # values = fraction · 2^exponent, fraction in [½, 1)
    above = fraction > _AT_LEAST[round_mode]
    powers = np.where(np.isfinite(values), np.ldexp(0.5, exponent + above), values)
    outside = (values == 0) | (powers < form.smallest_normal) | (powers > form.largest)
    limited = np.where(values == 0, form.smallest_normal, np.clip(powers, form.smallest_normal, form.largest))
    limited = np.where(np.isnan(values), np.nan, limited)
    return (limited if saturate else np.where(outside, np.nan, powers)).astype(POWERS_OF_TWO)


def _to_strings(values: Array) -> Array:
    if values.dtype.kind in "OUST":
        return values
    text = [str(value) for value in values.ravel().tolist()]
    return np.array(text, object).reshape(values.shape)


def _from_strings(values: Array, dtype: DType) -> Array:
    parse = _parse_float if is_float(dtype) else _parse_integer
    numbers = [parse(_text(value)) for value in values.ravel().tolist()]
    target = np.float64 if is_float(dtype) else np.uint64 if dtype == np.uint64 else np.int64
    return np.array(numbers, object).astype(target).reshape(values.shape)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _parse_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _parse_integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


def _is_plain(values: Array, dtype: DType) -> Array:
    """Texts of which the specification says what number they are, and which number of `dtype` that is."""
    texts = [_text(value) for value in values.ravel().tolist()]
    plain = np.array([dtype.kind != "b" and _parses(text, dtype) for text in texts], bool).reshape(values.shape)
    if not is_float(dtype):
        return plain
    numbers = np.array([_parse_float(text) for text in texts], np.float64).reshape(values.shape)
    return plain & ~_rounds_twice(numbers, dtype)


def _parses(text: str, dtype: DType) -> bool:
    """Whether a text is a number of the grammar that Cast names, within the range of `dtype`."""
    if is_float(dtype):
        return is_number(text) and (not math.isinf(float(text)) or text.lower().endswith("inf"))
    if not _WHOLE.fullmatch(text):
        return False
    low, high = integer_limits(dtype)
    return low <= int(text) <= high
