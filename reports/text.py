"""Names and figures as text that can be shown anywhere: no control characters, few digits, units."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

ABSENT = "–"
"""Stands where there is no value."""

_EXPONENTS_FROM = 1e6
_EXPONENT = re.compile(r"e(?:\+|(-))0*(\d+)")

_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TIME_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_SIZE_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def visible(text: str, limit: int | None = None) -> str:
    """`text` with what cannot be seen spelled out, so that a name can neither colour a terminal nor reverse a line.

    Control characters, line separators, lone surrogates, noncharacters and direction overrides become ``\\x1b``,
    ``\\u202e``, … .

    Args:
        text: any string.
        limit: longest result in characters before it is cut with an ellipsis; None does not cut.
    """
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(character) if _is_hidden(character) else character for character in text)


def figure(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits; "–" for None, "∞" and "NaN" where it is none."""
    if value is None:
        return ABSENT
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if math.isnan(value):
        return "NaN"
    rounded = f"{value:.{digits}g}"
    if 10**digits <= abs(float(rounded)) < _EXPONENTS_FROM:
        rounded = f"{value:,.0f}"
    return _EXPONENT.sub(lambda found: f"e{found[1] or ''}{found[2]}", rounded).replace("-", "−")


def percent(share: float | None) -> str:
    """A share of 1 as "12 %"."""
    if share is None:
        return ABSENT
    return f"{figure(share * 100, 2)} %"


def duration(seconds: float | None) -> str:
    """ "1.23 ms": seconds in the unit that leaves one to three digits before the point."""
    if seconds is None or not math.isfinite(seconds):
        return figure(seconds)
    size, unit = next((pair for pair in _TIME_UNITS if abs(seconds) >= pair[0]), _TIME_UNITS[-1])
    return f"{figure(seconds / size)} {unit}"


def size(count: float | None) -> str:
    """ "46.8 MB": bytes in decimal units."""
    if count is None:
        return ABSENT
    scale, unit = next((pair for pair in _SIZE_UNITS if abs(count) >= pair[0]), (1.0, "bytes"))
    return f"{figure(count / scale)} {unit}"


def plural(count: int, noun: str) -> str:
    """ "1 node", "2 nodes"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def facts(mapping: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A nested mapping as (label, value) pairs, labels joined by " · ", every character visible; empty values left out.

    Keys that end in ``_s`` or ``_bytes`` are given their unit.
    """
    pairs: list[tuple[str, str]] = []
    for key, value in mapping.items():
        label = visible(str(key))
        if isinstance(value, Mapping):
            pairs += [(f"{label} · {inner}", text) for inner, text in facts(value)]
        elif value not in (None, "", (), []):
            pairs.append(_fact(label, value))
    return pairs


def _fact(label: str, value: object) -> tuple[str, str]:
    if isinstance(value, bool):
        return label, "yes" if value else "no"
    if isinstance(value, int | float) and label.endswith("_bytes"):
        return label.removesuffix("_bytes").replace("_", " "), size(value)
    if isinstance(value, int | float) and label.endswith("_s"):
        return label.removesuffix("_s").replace("_", " "), duration(value)
    if isinstance(value, list | tuple):
        value = ", ".join(str(item) for item in value)
    return label.replace("_", " "), visible(str(value))


def _is_hidden(character: str) -> bool:
    if character in _BIDI_CONTROLS or unicodedata.category(character) in _HIDDEN_CATEGORIES:
        return True
    return ord(character) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(character) <= 0xFDEF


def _spelled(character: str) -> str:
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    if short is not None:
        return short
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
