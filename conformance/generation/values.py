"""Arrays of a pattern: what a tensor of a generated case is filled with.

A case draws a pattern's name and a seed, not its elements one by one: shrinking then goes to the simplest pattern and
the smallest shape, and single elements are simplified afterwards (`shrinking`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from ...operators.scale import Array
from ...operators.storage import float_format, is_float

INTEGER_LIKE = frozenset("iub")

MOVED = ("small", "normal", "ties", "wide", "special")
"""For operators that move or compare: anything goes, NaN and infinities included."""

FINITE = ("small", "normal", "ties", "wide", "extreme")
"""Everything that is finite, the largest finite values and subnormals included."""

ORDERED = ("small", "normal", "ties", "wide", "extreme", "infinite")
"""No NaN: for operators whose text does not say how NaN is ordered."""

SUMMED = ("small", "normal", "ties", "cancelling", "positive", "constant", "spread")
"""For sums of products: adversarial, far from overflow."""

BOUNDED = ("small", "unit", "normal", "ties", "constant")

POSITIVE = ("counting", "positive")

_STRINGS = ("", "a", "A", "ab", "b", " ", "ä", "ß", "日本", "a b", "0", "-1", "Zz", "aa", "\U0001f600")


def array(dtype: np.dtype[Any], shape: tuple[int, ...], pattern: str, seed: int) -> Array:
    """An array of a pattern, the same for the same arguments.

    Args:
        dtype: any that ONNX stores and NumPy or ml_dtypes holds; object for strings.
        shape: of the array.
        pattern: a name of `PATTERNS`; integers, booleans and strings read it as what comes nearest.
        seed: of the pseudo-random numbers.
    """
    rng = np.random.default_rng(seed)
    if dtype.kind in "OUS":
        return np.asarray(rng.choice(np.asarray(_STRINGS, object), shape), object).reshape(shape)
    if dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.kind == "c":
        part = np.dtype(f"f{dtype.itemsize // 2}")
        real, imaginary = array(part, shape, pattern, seed), array(part, shape, pattern, seed + 1)
        found = np.empty(shape, dtype)  # a sum of parts would turn infinities into NaN
        found.real, found.imag = real, imaginary
        return found
    if not is_float(dtype):
        return _integers(dtype, shape, pattern, rng)
    with np.errstate(all="ignore"):
        values = np.asarray(PATTERNS[pattern](rng, shape, dtype))
        return np.asarray(_finite(values, dtype, pattern), dtype).reshape(shape)


def _finite(values: Array, dtype: np.dtype[Any], pattern: str) -> Array:
    """Stored; patterns without infinities stay without them in narrow types."""
    if pattern not in ("special", "infinite"):
        largest = float_format(dtype).largest
        values = np.clip(values, -largest, largest)
    return values.astype(dtype)


def _integers(dtype: np.dtype[Any], shape: tuple[int, ...], pattern: str, rng: np.random.Generator) -> Array:
    info = ml_dtypes.iinfo(dtype)
    low, high = int(info.min), int(info.max)
    if pattern in ("extreme", "special", "infinite"):
        edges = [low, high, 0, 1, high - 1, low + 1, *([-1] if low < 0 else [])]
        return np.asarray([edges[i] for i in rng.integers(0, len(edges), int(np.prod(shape)))], dtype).reshape(shape)
    if pattern == "wide":
        return rng.integers(low, high, shape, np.int64 if low < 0 else np.uint64, endpoint=True).astype(dtype)
    if pattern in ("counting", "positive"):
        return rng.integers(1, min(5, high), shape, endpoint=True).astype(dtype)
    reach = min(9 if pattern == "normal" else 3, high)
    return rng.integers(max(-reach, low), reach, shape, endpoint=True).astype(dtype)


_Pattern = Callable[[np.random.Generator, tuple[int, ...], np.dtype[Any]], Any]


def _small(rng: np.random.Generator, shape: tuple[int, ...], _: np.dtype[Any]) -> Array:
    return rng.integers(-3, 4, shape).astype(np.float64)


def _counting(rng: np.random.Generator, shape: tuple[int, ...], _: np.dtype[Any]) -> Array:
    return rng.integers(1, 6, shape).astype(np.float64)


def _unit(rng: np.random.Generator, shape: tuple[int, ...], _: np.dtype[Any]) -> Array:
    return rng.uniform(-1, 1, shape)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], _: np.dtype[Any]) -> Array:
    return rng.standard_normal(shape)


def _positive(rng: np.random.Generator, shape: tuple[int, ...], _: np.dtype[Any]) -> Array:
    return np.exp(rng.uniform(-2, 2, shape))


def _ties(rng: np.random.Generator, shape: tuple[int, ...], _: np.dtype[Any]) -> Array:
    return rng.choice([-1.5, -0.5, 0.0, 0.5, 1.5, 2.5], shape)


def _constant(rng: np.random.Generator, shape: tuple[int, ...], _: np.dtype[Any]) -> Array:
    return np.full(shape, rng.standard_normal())


def _cancelling(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Neighbours cancel up to a few units in the last place."""
    flat = np.repeat(rng.standard_normal(int(np.prod(shape)) // 2 + 1) * 8, 2)[: int(np.prod(shape))]
    flat[1::2] *= -(1 + rng.integers(-4, 5, flat[1::2].size) * 2.0 ** -float_format(dtype).fraction_bits)
    return flat.reshape(shape)


def _spread(rng: np.random.Generator, shape: tuple[int, ...], _: np.dtype[Any]) -> Array:
    return rng.standard_normal(shape) * np.exp2(rng.uniform(-6, 6, shape))


def _wide(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    form = float_format(dtype)
    low, high = np.log2(form.smallest_subnormal), np.log2(form.largest)
    return rng.choice([-1.0, 1.0], shape) * np.exp2(rng.uniform(low, high, shape))


def _extremes(dtype: np.dtype[Any]) -> list[float]:
    form = float_format(dtype)
    tiny = [form.smallest_subnormal, form.smallest_normal, form.smallest_normal - form.smallest_subnormal]
    near_one = [1.0, 1 + 2.0**-form.fraction_bits, 1 - 2.0 ** -(form.fraction_bits + 1)]
    sized = [0.0, 0.5, 2.5, *near_one, *tiny, form.largest]
    return [*sized, *(-x for x in sized)]


def _extreme(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return rng.choice(_extremes(dtype), shape)


def _infinite(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return rng.choice([*_extremes(dtype), np.inf, -np.inf], shape)


def _special(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return rng.choice([*_extremes(dtype), np.inf, -np.inf, np.nan], shape)


PATTERNS: dict[str, _Pattern] = {
    "small": _small,
    "counting": _counting,
    "unit": _unit,
    "normal": _normal,
    "positive": _positive,
    "ties": _ties,
    "constant": _constant,
    "cancelling": _cancelling,
    "spread": _spread,
    "wide": _wide,
    "extreme": _extreme,
    "infinite": _infinite,
    "special": _special,
}
