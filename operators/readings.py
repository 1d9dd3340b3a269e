"""Tensors of which the specification says what they mean and not how it is written: texts of numbers, sets.

Like the laws of random operators (`laws`) these examine what a runtime returned as a whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from .laws import Examination
from .scale import Array
from .storage import decode, encode, is_float

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(?P<exponent>[eE][+-]?\d+)?", re.ASCII)
_SPECIAL = re.compile(r"(?P<sign>[+-]?)(?P<name>inf|nan)", re.ASCII | re.IGNORECASE)
"""What Cast reads from strings: plain and scientific numbers, INF, +INF, -INF and NaN in any case."""

CERTAIN, OPEN, WRONG = "certain", "open", "wrong"


def is_number(text: str) -> bool:
    """Whether Cast's specification says what number a text is."""
    return bool(_NUMBER.fullmatch(text) or (_SPECIAL.fullmatch(text) and text.lower() not in ("+nan", "-nan")))


@dataclass(frozen=True)
class Texts:
    """Numbers as text. The specification names no number of digits: a text that rounds to the very value is right; one
    that is right to the digits it shows, or scientific where it says "plain", is left open; any other is wrong.

    Attributes:
        values: floats as float64, or integers.
        dtype: in which they are stored.
    """

    values: Array
    dtype: np.dtype[Any]

    def examine(self, draws: Array) -> Examination:
        """Whether every text is its number."""
        texts = [text.decode() if isinstance(text, bytes) else str(text) for text in draws.reshape(-1).tolist()]
        found = [self._reads(text, value) for text, value in zip(texts, self.values.reshape(-1).tolist(), strict=True)]
        if WRONG in found:
            first = found.index(WRONG)
            count, value = found.count(WRONG), self.values.reshape(-1)[first]
            text = f"{count} of {len(found)} texts are not their number; the first is {texts[first]!r} for {value!r}"
            return Examination(False, text)
        count = found.count(OPEN)
        if not count:
            return Examination(True, "")
        text = f"{count} of {len(found)} texts are scientific or have too few digits to tell the number"
        return Examination(None if count == len(found) else True, text)

    def _reads(self, text: str, value: float) -> str:
        if not np.isfinite(value):
            return _reads_special(text, value)
        number = _NUMBER.fullmatch(text)
        if number is None:
            return WRONG
        if self._is_value(text, value):
            return OPEN if number["exponent"] else CERTAIN
        return OPEN if is_float(self.dtype) and _is_shortened(Decimal(text), Decimal(value)) else WRONG

    def _is_value(self, text: str, value: float) -> bool:
        if not is_float(self.dtype):
            return Decimal(text) == value
        return bool(encode(np.array(float(text)), self.dtype).astype(np.float64) == value)


def _is_shortened(shown: Decimal, value: Decimal) -> bool:
    """Whether a decimal is a value rounded to nearest, or cut, after its last digit."""
    step = Decimal(1).scaleb(int(shown.as_tuple().exponent))
    return abs(shown - value) * 2 <= step or 0 <= abs(value) - abs(shown) == abs(value - shown) < step


def _reads_special(text: str, value: float) -> str:
    """Infinity and NaN: how they are written is not said, as a number they must not be."""
    special = _SPECIAL.fullmatch(text)
    if special is None:
        return WRONG if _NUMBER.fullmatch(text) else OPEN
    if special["name"].lower() == "nan":
        return CERTAIN if np.isnan(value) else WRONG
    return CERTAIN if value == (-np.inf if special["sign"] == "-" else np.inf) else WRONG


@dataclass(frozen=True)
class AnyOrder:
    """Elements along an axis whose order is not specified.

    Attributes:
        values: in some order.
        axis: along which any other order is right as well.
        unknown: rows, with the axis as one of size one, of which even the elements are open.
    """

    values: Array
    axis: int
    unknown: Array

    def examine(self, draws: Array) -> Examination:
        """Whether every row holds the right elements."""
        found, expected = (np.sort(decode(x), axis=self.axis) for x in (draws, self.values))
        wrong = (found != expected).any(axis=self.axis, keepdims=True) & ~self.unknown
        if wrong.any():
            return Examination(False, f"{int(wrong.sum())} of {wrong.size} rows hold other elements")
        if self.unknown.size and self.unknown.all():
            return Examination(None, "dtype and shape are right; the specification determines no element")
        return Examination(True, "the elements are right, whose order is not specified")
