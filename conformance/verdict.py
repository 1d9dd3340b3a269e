"""The verdict: is this tensor what a correct implementation can return?

    z = (a − r) / max(s · 2^(−1−p), floor)

a is the stored value, r the float64 reference, s the error scale (`operators.scale`), p the fraction bits of the stored
type: z is the error in half-units in the last place, at the size at which rounding happens. Three zones:

- proved wrong: |z| above the certain bound: no order of operations in the accumulator's precision gives this value;
- natural: z no larger than a small multiple of what sums in their natural order have;
- between, and where Σ z² exceeds 1.6 · k · T over the T elements of a tensor (a bound that takes roundings to be
  independent, which sums of equal summands are not): a second witness decides. For sums of products, the products
  themselves are added up in several orders in float32; for composed operators the kernel is run in float32 with plain
  loops. A value that no order comes near fails.

`docs/verdict.md` derives the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..operators.laws import Law
from ..operators.scale import Array, Rule, Scale
from ..operators.storage import is_float
from .exactness import UNDETERMINED, judge_exact
from .results import Outcome, Verdict
from .rounded import judge_rounded, rule_name
from .witness import Witness


def judge(
    actual: Any,
    reference: Any,
    dtype: np.dtype[Any] | None,
    scale: Scale | None,
    witness: Witness | None = None,
) -> Verdict:
    """Judge one output of a runtime.

    Args:
        actual: what the runtime returned, in its stored dtype; a list for a sequence, a dict for a map; None if it
            returned nothing.
        reference: float64 for floating-point outputs, the exact values otherwise; a list for a sequence, a
            dict for a map.
        dtype: the dtype that the output must have; None where that is not determined.
        scale: the error scale; None leaves the values unjudged.
        witness: asked where statistics alone do not decide.

    Returns:
        The verdict; dtype is compared first, then shape, then values.
    """
    if isinstance(reference, list):
        return _judge_sequence(actual, reference, dtype, scale)
    if isinstance(reference, Mapping):
        return _judge_map(actual, reference, scale)
    wrong = _wrong_kind(actual, reference, dtype)
    if wrong:
        return Verdict(Outcome.FAILED, rule_name(scale), message=wrong)
    if reference is None:
        return Verdict(Outcome.PASSED, "exact")
    if scale is None or (scale.rule is Rule.DISTRIBUTION and scale.law is None):
        what = "the operator has no error scale" if scale is None else "the law of its random values is not known"
        return Verdict(Outcome.UNJUDGED, rule_name(scale), message=f"dtype and shape are right; {what}")
    return _judge_values(np.asarray(actual), reference, scale, witness)


def _judge_whole(actual: Array, law: Law, rule: str) -> Verdict:
    """Whether random values can have been drawn from their law, or a text or set can mean its values; unjudged where
    that cannot be told."""
    found = law.examine(actual)
    outcome = Outcome.UNJUDGED if found.possible is None else Outcome.PASSED if found.possible else Outcome.FAILED
    return Verdict(outcome, rule, message=found.text)


def _judge_values(actual: Array, reference: Array, scale: Scale, witness: Witness | None) -> Verdict:
    if scale.law is not None:
        return _judge_whole(actual, scale.law, rule_name(scale))
    if scale.rule is Rule.EXACT or not (is_float(actual.dtype) or actual.dtype.kind == "c"):
        return judge_exact(actual, reference, scale)
    if actual.dtype.kind == "c":
        return _judge_complex(actual, reference, scale, witness)
    return judge_rounded(actual, reference, scale, witness)


def _wrong_kind(actual: Any, reference: Any, dtype: np.dtype[Any] | None) -> str:
    """What is wrong with dtype or shape, or ""."""
    if reference is None:
        return "" if actual is None else "a value where an absent optional is expected"
    if not isinstance(actual, np.ndarray | np.generic):
        return f"{'nothing' if actual is None else type(actual).__name__} returned, a tensor expected"
    expected = reference.dtype if dtype is None and reference.dtype.kind not in "fc" else dtype
    if (
        expected is not None
        and actual.dtype != expected
        and not (actual.dtype.kind in "OUS" and expected.kind in "OUS")
    ):
        return f"dtype {actual.dtype}, expected {expected}"
    if actual.shape != reference.shape:
        return f"shape {list(actual.shape)}, expected {list(reference.shape)}"
    return ""


def _judge_sequence(actual: Any, reference: list[Any], dtype: np.dtype[Any] | None, scale: Scale | None) -> Verdict:
    if not isinstance(actual, list) or len(actual) != len(reference):
        length = len(actual) if isinstance(actual, list) else type(actual).__name__
        return Verdict(Outcome.FAILED, rule_name(scale), message=f"sequence of {length}, expected {len(reference)}")
    parts = [judge(a, r, dtype, scale) for a, r in zip(actual, reference, strict=True)]
    return combine(parts) if parts else Verdict(Outcome.PASSED, rule_name(scale))


def _judge_map(actual: Any, reference: Mapping[Any, Any], scale: Scale | None) -> Verdict:
    """A map: its keys in any order, its values as numbers, since bindings return them in Python's own types."""
    if not isinstance(actual, Mapping):
        returned = "nothing" if actual is None else type(actual).__name__
        return Verdict(Outcome.FAILED, rule_name(scale), message=f"{returned} returned, a map expected")
    if set(actual) != set(reference):
        text = f"keys {_few(actual)}, expected {_few(reference)}"
        return Verdict(Outcome.FAILED, rule_name(scale), message=text)
    if scale is None:
        return Verdict(Outcome.UNJUDGED, message="the keys are right; the operator has no error scale")
    expected = np.array([reference[key] for key in reference])
    found = [np.asarray(actual[key]) for key in reference]
    if any(item.size != 1 or (item.dtype.kind in "OUS") != (expected.dtype.kind in "OUS") for item in found):
        return Verdict(Outcome.FAILED, rule_name(scale), message=f"a value of the map is no {expected.dtype}")
    values = np.array([item.reshape(())[()] for item in found]) if found else expected
    return _judge_values(values, expected, scale, None)


def _few(keys: Iterable[Any]) -> str:
    """The first keys of a map."""
    listed = [repr(key) for key in keys]
    return ", ".join(listed[:5]) + (f", … ({len(listed)})" if len(listed) > 5 else "") or "none"


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict for several outputs: the worst outcome, the largest figures.

    An output of which the specification determines nothing (the mask of a Dropout that drops nothing) counts only where
    there is no other.
    """
    order = (Outcome.FAILED, Outcome.UNJUDGED, Outcome.PASSED)
    settled = [v for v in verdicts if v.message != UNDETERMINED] or verdicts
    worst = min(settled, key=lambda v: (order.index(v.outcome), -_relative_rms(v)))
    with_z = [v for v in verdicts if v.max_z is not None]
    return replace(
        worst,
        max_z=max((v.max_z for v in with_z if v.max_z is not None), default=None),
        bits=min((v.bits for v in verdicts if v.bits is not None), default=None),
        max_abs=max((v.max_abs for v in verdicts if v.max_abs is not None), default=None),
        message="; ".join(
            f"output {i}: {v.message}" if len(verdicts) > 1 else v.message for i, v in enumerate(verdicts) if v.message
        ),
    )


def _relative_rms(verdict: Verdict) -> float:
    if verdict.rms_z is None or not verdict.allowed_rms_z:
        return 0.0
    return verdict.rms_z / verdict.allowed_rms_z


def _judge_complex(actual: Array, reference: Array, scale: Scale, witness: Witness | None) -> Verdict:
    pairs = [(np.asarray(part(actual)), np.asarray(part(reference))) for part in (np.real, np.imag)]
    return combine([judge_rounded(a, r, scale, witness) for a, r in pairs])
