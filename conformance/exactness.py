"""The verdict on values that admit no rounding: movement, comparison, integers, strings."""

from __future__ import annotations

import numpy as np

from ..operators.scale import Array, Scale
from ..operators.storage import encode, is_float
from .results import Outcome, Verdict


def where_is(flat_index: int, shape: tuple[int, ...]) -> str:
    """A flat index as [i, j, …]."""
    return "[" + ", ".join(str(int(i)) for i in np.unravel_index(flat_index, shape)) + "]" if shape else "[]"


def judge_exact(actual: Array, reference: Array, scale: Scale) -> Verdict:
    """Bit for bit, integers within `terms` steps; −0 equals +0 (reported), NaN equals NaN; elements with infinite
    `terms` are left open, and a tensor of nothing else is unjudged."""
    terms = np.asarray(scale.terms, np.float64)
    if _same_bits(actual, reference) and not np.isinf(terms).any():
        return Verdict(Outcome.PASSED, "exact", max_abs=0.0)
    if actual.dtype.kind in "OUS":
        same = actual.astype(object) == reference.astype(object)
    else:
        expected = encode(reference, actual.dtype)
        same = (actual == expected) | (_is_nan(actual) & _is_nan(expected))
        if (terms > 0).any() and actual.dtype.kind not in "bc" and not is_float(actual.dtype):
            same = same | (np.abs(actual.astype(np.float64) - reference.astype(np.float64)) <= terms)
    open_elements = np.broadcast_to(np.isinf(terms), reference.shape)
    if open_elements.size and open_elements.all():
        return Verdict(Outcome.UNJUDGED, "exact", message=UNDETERMINED)
    wrong = ~np.asarray(same, bool) & ~open_elements
    if wrong.any():
        return _exact_failure(actual, reference, wrong)
    return Verdict(
        Outcome.PASSED,
        "exact",
        max_abs=_largest_difference(actual, reference, ~open_elements),
        message="; ".join(filter(None, (left_open(open_elements), _zero_signs(actual, reference)))),
    )


UNDETERMINED = "dtype and shape are right; the specification determines no element"


def left_open(where: Array) -> str:
    """How many elements the specification leaves open, or ""."""
    count = int(np.count_nonzero(where))
    return f"{count} of {where.size} elements are not determined by the specification" if count else ""


_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def _same_bits(actual: Array, reference: Array) -> bool:
    """Whether two tensors of one dtype are stored alike, the quick way to see that they are equal."""
    unsigned = _UNSIGNED.get(actual.dtype.itemsize)
    if actual.dtype != reference.dtype or actual.dtype.kind in "OUS" or unsigned is None:
        return False
    a, r = (np.ascontiguousarray(x).view(unsigned) for x in (actual, reference))
    return np.array_equal(a, r)


def _is_nan(x: Array) -> Array:
    return (
        np.isnan(x.astype(np.float64))
        if is_float(x.dtype)
        else np.isnan(x)
        if x.dtype.kind == "c"
        else np.zeros((), bool)
    )


def _exact_failure(actual: Array, reference: Array, wrong: Array) -> Verdict:
    first = int(np.flatnonzero(wrong)[0])
    a, r = actual.reshape(-1)[first], reference.reshape(-1)[first]
    share = f"{int(wrong.sum())} of {wrong.size} elements differ"
    text = f"{share}; first at {where_is(first, wrong.shape)}: {a!s}, expected {r!s}"
    return Verdict(Outcome.FAILED, "exact", max_abs=_largest_difference(actual, reference, None), message=text)


def _largest_difference(actual: Array, reference: Array, where: Array | None) -> float | None:
    if actual.dtype.kind in "OUSb" or actual.size == 0:
        return 0.0 if actual.dtype.kind not in "OUS" else None
    wide = np.complex128 if actual.dtype.kind == "c" else np.float64
    with np.errstate(all="ignore"):
        gap = np.abs(actual.astype(wide) - reference.astype(wide))
    finite = np.isfinite(gap) if where is None else np.isfinite(gap) & where
    return float(gap[finite].max(initial=0.0))


def _zero_signs(actual: Array, reference: Array) -> str:
    if not is_float(actual.dtype) or actual.size == 0:
        return ""
    zero = (actual == 0) & (reference == 0)
    if not zero.any():
        return ""
    flipped = int((np.signbit(actual[zero].astype(np.float64)) != np.signbit(reference[zero])).sum())
    return f"{flipped} zeros have the other sign" if flipped else ""
