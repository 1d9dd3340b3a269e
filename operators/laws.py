"""Laws that random operators draw from, and whether a tensor can have been drawn from one.

A tensor is refused if it fails a test that correct draws fail with probability below `LEVEL`. The bounds hold for every
number of draws (Dvoretzky, Kiefer, Wolfowitz and Massart for the empirical distribution, Bernstein and Laurent and
Massart for sums), so that few draws give wide bounds and no false alarms; below `FEWEST` only the support is tested,
and that is said. A draw may lie a few units in the last place from where it was drawn: it was rounded to its type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .arrays import Array
from .storage import decode, encode, float_format, is_float

LEVEL = 1e-9
"""Probability below which correct draws are refused, over all tests of one tensor together."""

FEWEST = 46
"""Draws below which an empirical distribution may be anything at this level: its bound is above one half."""

STEPS = 2.0
"""Units in the last place between a draw and what is stored of it: computed, then rounded or cut."""

REACH = 40.0
"""Standard deviations that no draw of a normal distribution goes beyond."""

SLACK = 4.0
"""Half-units in the last place of what Dropout keeps: its factor, a product or a quotient, and the store."""


@dataclass(frozen=True)
class Examination:
    """What the tests say of a tensor; `possible` is None where there are too few draws to tell."""

    possible: bool | None
    text: str


class Law(Protocol):
    """A distribution of tensors."""

    def examine(self, draws: Array) -> Examination:
        """Whether a stored tensor can have been drawn from this law."""
        ...


Test = tuple[str, float, float]
"""What is compared, its size, and the bound that correct draws keep."""


def _examined(count: int, tests: Iterable[Test]) -> Examination:
    """The first test that fails, or the figures of the first ones."""
    seen: list[str] = []
    for name, size, bound in tests:
        text = f"{name} {size:.3g} (at most {bound:.3g})"
        if not size <= bound:
            return Examination(
                False, f"{count:,} draws: {text}; correct draws go beyond once in {1 / LEVEL:.0e} tensors"
            )
        seen.append(text)
    return Examination(True, f"{count:,} draws: {', '.join(seen[:3])}")


def _too_few(count: int) -> Examination:
    text = f"{count} draws lie in the support; too few to tell their distribution, from {FEWEST} on it is tested"
    return Examination(None, text)


def _outside(draws: Array, wrong: Array, support: str) -> Examination:
    first = draws.reshape(-1)[np.flatnonzero(wrong)[0]]
    return Examination(False, f"{int(wrong.sum())} of {draws.size} draws are not {support}; the first is {first!s}")


def _log(tests: int) -> float:
    """L such that 2·exp(−L) is the share of LEVEL that one of so many tests has."""
    return math.log(2 * tests / LEVEL)


def bernstein(variance: float, largest: float, tests: int) -> float:
    """What |Σ xᵢ| stays within for independent xᵢ of mean 0, |xᵢ| <= largest, Σ var xᵢ = variance.

    P(|Σ| >= t) <= 2 exp(−t² / (2·variance + 2·largest·t / 3)), solved for t.
    """
    linear = largest * _log(tests) / 3
    return linear + math.sqrt(linear**2 + 2 * variance * _log(tests))


def _lags(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Distances in the flat tensor at which neighbours lie: along every axis."""
    strides = {int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))}
    size = int(np.prod(shape))
    return tuple(lag for lag in sorted(strides) if lag and size - lag >= max(FEWEST, size // 2))


@dataclass(frozen=True)
class Continuous:
    """Independent draws of a normal or a uniform distribution.

    Attributes:
        cdf: the distribution function, of float64 arrays.
        low: no draw is below.
        high: nor above.
        mean: of the distribution.
        deviation: its standard deviation.
    """

    cdf: Callable[[Array], Array]
    low: float
    high: float
    mean: float
    deviation: float

    def examine(self, draws: Array) -> Examination:
        """Support, empirical distribution, mean, variance, and correlation of neighbours."""
        dtype = draws.dtype if is_float(draws.dtype) else np.dtype(np.float64)
        x = decode(draws).astype(np.float64)
        wrong = self._wrong(x, dtype)
        if wrong.any():
            return _outside(draws, wrong, f"in [{self.low:g}, {self.high:g}]")
        if x.size < FEWEST:
            return _too_few(x.size)
        return _examined(x.size, self._tests(x, dtype))

    def _wrong(self, x: Array, dtype: np.dtype[Any]) -> Array:
        """Draws outside the support, whose ends are rounded to the type as draws are."""
        low, high = (encode(np.array(end), dtype).astype(np.float64) for end in (self.low, self.high))
        overflows = abs(self.mean) + REACH * self.deviation > float_format(dtype).largest
        return ~((x >= low) & (x <= high)) | (np.isinf(x) & (not overflows))

    def _tests(self, x: Array, dtype: np.dtype[Any]) -> Iterable[Test]:
        lags, flat = _lags(x.shape), x.reshape(-1)
        count, n = 3 + 2 * len(lags), flat.size
        reach = self._reach(flat, dtype)
        yield "distance of distributions", self._distance(flat, reach), math.sqrt(_log(count) / (2 * n))
        if self.deviation == 0 or not np.isfinite(flat).all():
            return
        centred, moved = (flat - self.mean) / self.deviation, float(np.mean(reach)) / self.deviation
        log = _log(count)
        yield "error of the mean in deviations", abs(float(centred.mean())), math.sqrt(2 * log / n) + moved
        spread = abs(float(np.mean(centred**2 - 1)))
        yield "relative error of the variance", spread, (2 * math.sqrt(log / n) + 2 * log / n) + 6 * moved
        for lag in lags:
            together = abs(float(centred[lag:] @ centred[:-lag])) / (n - lag)
            pairs = (n - lag) / 2  # of two sets, in each of which no draw stands twice
            yield f"correlation at distance {lag}", together, (math.sqrt(2 * log / pairs) + log / pairs) + 6 * moved

    def _reach(self, x: Array, dtype: np.dtype[Any]) -> Array:
        """How far what was drawn may lie from what is stored; a generator has steps of its own as well."""
        form = float_format(dtype)
        size = np.clip(np.abs(x), form.smallest_normal, form.largest)
        own = STEPS * 2.0**-form.fraction_bits * self.deviation
        return own + STEPS * np.exp2(np.floor(np.log2(size)) - form.fraction_bits)

    def _distance(self, x: Array, reach: Array) -> float:
        """By how much the share of draws up to a point exceeds, or falls short of, the distribution function there."""
        order = np.argsort(x, kind="stable")
        values, reach = x[order], reach[order]
        first, last = np.searchsorted(values, values, "left"), np.searchsorted(values, values, "right")
        too_many = last / x.size - self.cdf(values + reach)
        too_few = self.cdf(values - reach) - first / x.size
        return float(max(too_many.max(), too_few.max(), 0.0))


def normal_law(mean: float, deviation: float) -> Continuous:
    """Draws of a normal distribution; a deviation of 0 is the constant `mean`."""

    from scipy.special import ndtr  # noqa: PLC0415 (heavy: at the point of use)

    def cdf(x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.where(deviation > 0, ndtr((x - mean) / deviation), x >= mean)

    ends = (-math.inf, math.inf) if deviation > 0 else (mean, mean)
    return Continuous(cdf, *ends, mean, deviation)


def uniform_law(low: float, high: float) -> Continuous:
    """Draws of a uniform distribution on [low, high]."""

    def cdf(x: Array) -> Array:
        return np.clip((x - low) / (high - low), 0, 1) if high > low else (x >= low).astype(np.float64)

    return Continuous(cdf, low, high, (low + high) / 2, (high - low) / math.sqrt(12))


@dataclass(frozen=True)
class Flips:
    """Independent draws that are 1 with the given probabilities, else 0."""

    probability: Array

    def examine(self, draws: Array) -> Examination:
        """Support, share, its dependence on the probability, and correlation of neighbours."""
        x, p = decode(draws).astype(np.float64), self.probability.astype(np.float64)
        if not ((p >= 0) & (p <= 1)).all():
            return Examination(None, "a probability is outside [0, 1]: what is drawn is not specified")
        wrong = ((x != 0) | (p == 1)) & ((x != 1) | (p == 0))
        if wrong.any():
            return _outside(draws, wrong, "0 or 1, or are certain to be the other")
        variance = p * (1 - p)
        if (variance > 0).any() and np.count_nonzero(variance) < FEWEST:
            return _too_few(int(np.count_nonzero(variance)))
        return _examined(x.size, self._tests(x, p, variance))

    def _tests(self, x: Array, p: Array, variance: Array) -> Iterable[Test]:
        lags, off, n = _lags(x.shape), x - p, max(x.size, 1)
        count = 2 + 2 * len(lags)
        yield "error of the share", abs(float(off.sum())) / n, bernstein(float(variance.sum()), 1.0, count) / n
        slope = p - p.mean() if p.size else p
        bound = bernstein(float((slope**2 * variance).sum()), 1.0, count) / n
        yield "error of the slope", abs(float((slope * off).sum())) / n, bound
        off, variance = off.reshape(-1), variance.reshape(-1)
        for lag in lags:
            bound = 2 * bernstein(float(variance[lag:] @ variance[:-lag]) / 2, 1.0, count)
            yield f"covariance at distance {lag}", abs(float(off[lag:] @ off[:-lag])) / n, bound / n


@dataclass(frozen=True)
class Classes:
    """Draws of classes, row by row; `probability` is (rows, classes)."""

    probability: Array

    def examine(self, draws: Array) -> Examination:
        """Support, the share of every class in all rows and in each, and how often neighbours are alike."""
        rows, classes = self.probability.shape
        inside = (draws >= 0) & (draws < classes)
        wrong = ~inside | (np.take_along_axis(self.probability, np.where(inside, draws, 0).astype(int), axis=1) == 0)
        if wrong.any():
            return _outside(draws, wrong, f"classes 0 … {classes - 1} that have a probability")
        if draws.size < FEWEST:
            return _too_few(draws.size)
        return _examined(draws.size, self._tests(draws, rows, classes))

    def _tests(self, draws: Array, rows: int, classes: int) -> Iterable[Test]:
        p, per_row = self.probability, draws.shape[1]
        tests = classes * (rows + 1) + 1
        for k in range(classes):
            off = (draws == k).sum(axis=1) - per_row * p[:, k]
            variance = per_row * p[:, k] * (1 - p[:, k])
            together = bernstein(float(variance.sum()), 1.0, tests)
            yield f"error of the share of class {k}", abs(float(off.sum())) / draws.size, together / draws.size
            bounds = np.array([bernstein(float(v), 1.0, tests) for v in variance])
            worst = int(np.argmax(np.abs(off) / bounds))
            yield f"error of class {k} in row {worst}", abs(float(off[worst])) / per_row, float(bounds[worst]) / per_row
        alike = (p**2).sum(axis=1)
        pairs = draws[:, 1:] == draws[:, :-1]
        bound = 2 * bernstein(float((alike * (1 - alike)).sum() * pairs.shape[1]) / 2, 1.0, tests)
        yield (
            "neighbours alike beyond chance",
            abs(float((pairs - alike[:, None]).sum())) / draws.size,
            bound / draws.size,
        )


@dataclass(frozen=True)
class Dropped:
    """Data of which each element is dropped with probability `ratio`, the rest divided by 1 − ratio."""

    data: Array
    ratio: float

    def examine(self, draws: Array) -> Examination:
        """Every element is zero or the scaled one; the shares are those of flips."""
        y, kept = decode(draws).astype(np.float64), self.data / (1 - self.ratio)
        with np.errstate(all="ignore"):
            step = np.abs(kept) * 2.0 ** (-1 - float_format(draws.dtype).fraction_bits)
            rounded = encode(kept, draws.dtype).astype(np.float64)
            same = np.abs(y - kept) <= np.maximum(SLACK * step, float_format(draws.dtype).smallest_subnormal)
        same |= (y == rounded) | (np.isnan(y) & np.isnan(rounded))
        wrong = ~same & (y != 0)
        if wrong.any():
            return _outside(draws, wrong, f"0 or the element over 1 − {self.ratio:g}")
        told = (self.data != 0) & (rounded != 0)  # where dropped and kept are not alike
        dropped = (y == 0).astype(np.float64)
        dropped = dropped if told.all() else dropped[told]
        return Flips(np.full(dropped.shape, self.ratio)).examine(dropped)
