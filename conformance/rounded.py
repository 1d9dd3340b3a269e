"""The verdict on floating-point values: natural, between, or proved wrong; `verdict.py` says what z is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..operators.parallel import for_each
from ..operators.rounding import growth, half_unit, natural_spread
from ..operators.scale import Array, Rule, Scale
from ..operators.storage import FloatFormat, float_format
from .exactness import UNDETERMINED, left_open, where_is
from .results import Outcome, Verdict
from .witness import Witness

STATISTICAL_FACTOR = 1.6
"""Σ z² <= 1.6 · k · T: Arm TOSA conformance; a mean square above it has probability below 10^−9 for T > 1000."""

NATURAL_RMS = 4.0
"""rms of z over its natural spread above which a witness is asked."""

OUTLIER_FLOOR = 8.0
OUTLIER_FACTOR = 12.0
"""One element is an outlier above max(8, 12 · robust spread) natural spreads, or above 8 · sqrt(k)."""

ROBUST_SAMPLE = 1 << 16

REFERENCE_SLACK = 1 + 1e-6
"""The float64 reference is itself rounded: 2^−52 against half-units of 2^−24."""


@dataclass(frozen=True)
class Judged:
    """One output tensor on its way to a verdict."""

    actual: Array
    reference: Array
    scale: Scale
    format: FloatFormat
    rule: str


def rule_name(scale: Scale | None) -> str:
    """How a row names the rule: with its bound, or alone where there is none."""
    if scale is None:
        return ""
    if scale.rule in (Rule.EXACT, Rule.DISTRIBUTION):
        return scale.rule.value
    return f"{scale.rule.value}({scale.most_terms:.6g})"


def judge_rounded(actual: Array, reference: Array, scale: Scale, witness: Witness | None) -> Verdict:
    """Floating-point values of a rule other than EXACT; see `verdict.judge`."""
    format_ = float_format(actual.dtype)
    judged = Judged(actual, reference, scale, format_, rule_name(scale))
    if actual.size == 0:
        return Verdict(Outcome.PASSED, judged.rule, message="empty tensor")
    quick = _naturally(judged)
    return _in_full(judged, witness) if quick is None else quick


def _in_full(judged: Judged, witness: Witness | None) -> Verdict:
    wide = judged.actual.astype(np.float64, copy=False)
    finite = np.isfinite(wide) & np.isfinite(judged.reference)
    wrong = "" if finite.all() else _wrong_special(judged, wide, finite)
    if wrong:
        return Verdict(Outcome.FAILED, judged.rule, message=wrong)
    unknown = _left_open(judged)
    if unknown.all():
        return Verdict(Outcome.UNJUDGED, judged.rule, message=UNDETERMINED)
    verdict = _by_deviation(judged, wide, finite, witness)
    if verdict.outcome is Outcome.FAILED or not unknown.any():
        return verdict
    return replace(verdict, message="; ".join(filter(None, (left_open(unknown), verdict.message))))


def _left_open(judged: Judged) -> Array:
    """Elements that the specification leaves open: infinite `terms`, or an infinite magnitude of a finite value."""
    size, terms = np.asarray(judged.scale.magnitude), np.asarray(judged.scale.terms, np.float64)
    if not (np.isinf(size.max(initial=0.0)) or np.isinf(terms.max(initial=0.0))):
        return np.zeros((), bool)
    unknown = np.isinf(terms) | (np.isinf(size) & np.isfinite(judged.reference))
    return np.broadcast_to(unknown, judged.reference.shape)


def _by_deviation(judged: Judged, wide: Array, finite: Array, witness: Witness | None) -> Verdict:
    z, gap = _deviations(judged, wide, finite)
    verdict = _figures(judged, z, gap)
    missed = _nonzero_at_zero_scale(judged, gap)
    if missed:
        return replace(verdict, outcome=Outcome.FAILED, message=missed)
    if judged.scale.rule is Rule.ULP:
        return _by_ulp(judged, z, verdict)
    return _by_sums(judged, z, verdict, witness)


BLOCK = 1 << 13
"""Elements that are compared at a time, so that every intermediate array stays in the cache."""

PIECE = 1 << 19
"""Elements that one thread takes at a time."""


def _naturally(judged: Judged) -> Verdict | None:
    """The verdict of a sum whose every z is small and finite, in one pass by blocks; None where more must be asked.

    With max z <= 8 no element can stand out and with rms z <= 4 the tensor cannot, whatever the natural spread.
    """
    size = judged.scale.magnitude
    if judged.scale.rule is Rule.ULP or size.shape != judged.reference.shape or judged.actual.dtype != np.float32:
        return None
    flat = [np.ascontiguousarray(x).reshape(-1) for x in (judged.actual, judged.reference, size)]
    figures: list[tuple[float, float, float]] = []

    def piece(start: int) -> None:
        if all(peak <= OUTLIER_FLOOR for peak, _, _ in figures):
            figures.append(_block_figures([x[start : start + PIECE] for x in flat], judged.format))

    for_each(piece, range(0, flat[0].size, PIECE))
    largest, largest_gap = (max(column) for column in list(zip(*figures, strict=True))[:2])
    rms = math.sqrt(sum(squares for _, _, squares in figures) / flat[0].size)
    k = _k(judged)
    if not largest <= min(OUTLIER_FLOOR, 2 * k) or rms > min(NATURAL_RMS, math.sqrt(STATISTICAL_FACTOR * k)):
        return None
    return Verdict(
        Outcome.PASSED,
        judged.rule,
        max_z=largest,
        rms_z=rms,
        allowed_rms_z=math.sqrt(STATISTICAL_FACTOR * k),
        allowed_max_z=2.0 * k,
        bits=judged.format.fraction_bits + 1 - math.log2(rms) if rms > 0 else None,
        max_abs=largest_gap,
    )


def _block_figures(flat: Sequence[Array], format_: FloatFormat) -> tuple[float, float, float]:
    """(largest z, largest |a − r|, Σ z²); infinite where anything is not natural."""
    unit, floor = half_unit(format_), _floor(format_)
    largest, largest_gap, squares = 0.0, 0.0, 0.0
    for start in range(0, flat[0].size, BLOCK):
        a, r, s = (x[start : start + BLOCK] for x in flat)
        with np.errstate(all="ignore"):
            gap = np.abs(a - r)
            z = gap / np.maximum(s * unit, floor)
        peak = float(z.max())
        if not peak <= OUTLIER_FLOOR:
            return math.inf, math.inf, math.inf
        if np.isinf(s.max()):
            return math.inf, math.inf, math.inf  # some elements are left open, and it is to be said
        if s.min() == 0 and bool(((s == 0) & (gap > 0)).any()):
            return math.inf, math.inf, math.inf
        largest, largest_gap = max(largest, peak), max(largest_gap, float(gap.max()))
        squares += float(z @ z)
    return largest, largest_gap, squares


def _wrong_special(judged: Judged, wide: Array, finite: Array) -> str:
    """What is wrong with NaN and infinities, or "": the reference decides, overflow within the bound is admitted."""
    reference = judged.reference
    with np.errstate(all="ignore"):
        size = np.broadcast_to(np.abs(judged.scale.magnitude), reference.shape)
        limit = judged.format.largest
        reach = np.abs(reference) + size * half_unit(judged.format) * 2 * _k(judged)
        same = (np.isnan(wide) & np.isnan(reference)) | (wide == reference)
        # Beyond the largest finite value the stored type has infinity (or NaN, or its largest value when saturating).
        rounded_over = (
            np.isinf(wide) & np.isfinite(reference) & (reach >= limit) & (np.sign(wide) == np.sign(reference))
        )
        saturated = (
            np.isinf(reference)
            & (np.abs(wide) == limit)
            & (np.sign(wide) == np.sign(reference))
            & (limit < _SATURATING)
        )
        open_sum = (judged.scale.rule is not Rule.ULP) & _may_overflow(wide, reference, size, limit)
        # An infinity in float64 for float64's own overflow is judged by the first rule alone.
        unspecified = np.isinf(np.asarray(judged.scale.terms, np.float64))
        formed = np.isinf(wide) & (np.sign(wide) == np.sign(reference)) & judged.scale.overflows
        bad = ~finite & ~(same | rounded_over | saturated | open_sum | unspecified | formed)
        unbounded = np.isfinite(reference) & np.isfinite(wide) & np.isnan(size)
    bad |= unbounded
    if not bad.any():
        return ""
    first = int(np.flatnonzero(bad)[0])
    a, r = wide.reshape(-1)[first], reference.reshape(-1)[first]
    kinds = f"{int(bad.sum())} of {bad.size} elements are {_kind(a)} where {_kind(r)} is expected"
    return f"{kinds}; first at {where_is(first, bad.shape)}: {a:.9g}, expected {r:.9g}"


def _may_overflow(wide: Array, reference: Array, size: Array, limit: float) -> Array:
    """Whether partial sums can overflow to this infinity, or to both and so to NaN, in some order of summation.

    The positive summands add up to (s + r) / 2 and the negative ones to (s − r) / 2.
    """
    up, down = (size + reference) / 2 >= limit, (size - reference) / 2 >= limit
    up, down = up | (reference == np.inf), down | (reference == -np.inf)
    return np.where(np.isnan(wide), up & down, np.where(wide > 0, up, down)) & ~np.isfinite(wide) & ~np.isnan(reference)


_SATURATING = 6e4
"""Types whose largest value is below may saturate instead of overflowing (the float8 family)."""


def _kind(value: float) -> str:
    return "NaN" if math.isnan(value) else "infinite" if math.isinf(value) else "finite"


def _k(judged: Judged) -> float:
    largest = judged.scale.most_terms
    doubled = 2 if judged.format.fraction_bits > MOST_REFERENCE_BITS else 1
    if judged.scale.rule is Rule.ULP:
        return largest * doubled
    return growth(largest, judged.format) * doubled


MOST_REFERENCE_BITS = 40
"""Above it (float64) the reference has the runtime's own precision: both sides may err, and bounds are doubled."""


def _floor(format_: FloatFormat) -> float:
    """Below it errors do not count: what flushing to zero does to wide types, half a subnormal step of narrow ones."""
    wide_range = format_.smallest_normal < _FLUSHABLE
    return format_.smallest_normal if wide_range else format_.smallest_subnormal / 2


_FLUSHABLE = 1e-30


def _deviations(judged: Judged, wide: Array, finite: Array) -> tuple[Array, Array]:
    """(|z|, |a − r|) per element; 0 where not finite (those are judged apart)."""
    with np.errstate(all="ignore"):
        gap = np.abs(wide - judged.reference)
        if not finite.all():
            gap = np.where(finite, gap, 0.0)
        denominator = np.maximum(judged.scale.magnitude * half_unit(judged.format), _floor(judged.format))
        z = gap / denominator
    if judged.format.smallest_normal > _FLUSHABLE and not _has_subnormals(wide, judged.format):
        flushed = (wide == 0) & (np.abs(judged.reference) < judged.format.smallest_normal)
        z = np.where(flushed, np.minimum(z, 1.0), z)
    return (z if np.isfinite(z).all() else np.nan_to_num(z, nan=0.0)), gap


def _has_subnormals(wide: Array, format_: FloatFormat) -> bool:
    """Whether a tensor holds subnormal numbers: then zeros beside them were not flushed."""
    return bool(((wide != 0) & (np.abs(wide) < format_.smallest_normal)).any())


def _figures(judged: Judged, z: Array, gap: Array) -> Verdict:
    with np.errstate(over="ignore"):
        rms = float(np.sqrt(np.mean(np.square(z))))
    bits = judged.format.fraction_bits + 1 - math.log2(rms) if rms > 0 and math.isfinite(rms) else None
    return Verdict(Outcome.PASSED, judged.rule, max_z=float(z.max()), rms_z=rms, bits=bits, max_abs=float(gap.max()))


def _nonzero_at_zero_scale(judged: Judged, gap: Array) -> str:
    """s = 0 admits no error at all: nothing was added that could be rounded."""
    if judged.scale.magnitude.size == 0 or judged.scale.magnitude.min() > 0:
        return ""
    bad = (np.broadcast_to(judged.scale.magnitude, gap.shape) == 0) & (gap > 0)
    if not bad.any():
        return ""
    first = int(np.flatnonzero(bad)[0])
    a, r = judged.actual.reshape(-1)[first], judged.reference.reshape(-1)[first]
    exactly = f"{int(bad.sum())} of {bad.size} elements must be exactly {r:.9g}, as every summand is zero"
    return f"{exactly}; first at {where_is(first, bad.shape)}: {float(a):.9g}"


def _describe(judged: Judged, flat: int) -> str:
    a, r = float(judged.actual.reshape(-1)[flat]), float(judged.reference.reshape(-1)[flat])
    return f"at {where_is(flat, judged.reference.shape)}: {a:.9g}, expected {r:.9g}"


def _by_ulp(judged: Judged, z: Array, verdict: Verdict) -> Verdict:
    doubled = 2 if judged.format.fraction_bits > MOST_REFERENCE_BITS else 1
    allowed = np.asarray(judged.scale.terms, np.float64) * doubled
    excess = z > allowed * REFERENCE_SLACK
    verdict = replace(verdict, allowed_max_z=float(allowed[np.isfinite(allowed)].max(initial=0.0)))
    if not excess.any():
        return verdict
    share = np.divide(z, allowed, out=np.full(z.shape, np.inf), where=np.broadcast_to(allowed > 0, z.shape))
    worst = int(np.argmax(np.where(excess, share, 0.0)))
    limit = float(np.broadcast_to(allowed, z.shape).reshape(-1)[worst])
    text = (
        f"{int(excess.sum())} of {z.size} elements are off by more than {limit:.4g} half-units in the last place; "
        f"worst {z.reshape(-1)[worst]:.4g} {_describe(judged, worst)}"
    )
    return replace(verdict, outcome=Outcome.FAILED, message=text)


def _by_sums(judged: Judged, z: Array, verdict: Verdict, witness: Witness | None) -> Verdict:
    k = _k(judged)
    verdict = replace(verdict, allowed_rms_z=math.sqrt(STATISTICAL_FACTOR * k), allowed_max_z=2.0 * k)
    worst = int(z.argmax())
    if float(z.reshape(-1)[worst]) > 2 * k * REFERENCE_SLACK:
        proof = f"|z| = {z.max():.4g} exceeds 2k = {2 * k:.6g}: no order of summation explains the value"
        return replace(verdict, outcome=Outcome.FAILED, message=f"{proof} {_describe(judged, worst)}")
    return _between(judged, z, k, verdict, witness)


def _between(judged: Judged, z: Array, k: float, verdict: Verdict, witness: Witness | None) -> Verdict:
    """Natural, or a witness is asked about the elements that stand out."""
    spread = natural_spread(judged.scale, judged.reference, judged.format)
    with np.errstate(all="ignore"):
        relative = z / np.maximum(spread, 1.0)
    typical = float(np.sqrt(np.mean(np.square(relative))))
    threshold = max(OUTLIER_FLOOR, OUTLIER_FACTOR * _robust_spread(relative))
    standing_out = (relative > threshold) | (z > OUTLIER_FLOOR * math.sqrt(k))
    if not standing_out.any() and typical <= NATURAL_RMS:
        return verdict
    suspects = _suspects(relative, standing_out, _most_suspects(judged))
    if witness is None:
        text = f"rms z = {verdict.rms_z:.4g} is {typical:.3g} times the natural spread; no witness to ask"
        return replace(verdict, message=text)
    finding = witness.examine(suspects, z.reshape(-1)[suspects], judged.actual)
    if finding.explained:
        return replace(verdict, message=finding.text)
    many = (
        f"{int(standing_out.sum())} of {z.size} elements stand out" if standing_out.any() else "the whole tensor is off"
    )
    return replace(
        verdict, outcome=Outcome.FAILED, message=f"{many}: {finding.text}; worst {_describe(judged, finding.worst)}"
    )


MOST_SUSPECTS = 256
LEAST_SUSPECTS = 16
MOST_SUMMANDS = 1 << 19
"""A witness adds up so many summands, of as many suspects as they are."""


def _most_suspects(judged: Judged) -> int:
    return int(min(max(MOST_SUMMANDS / max(judged.scale.most_terms, 1.0), LEAST_SUSPECTS), MOST_SUSPECTS))


def _suspects(relative: Array, standing_out: Array, most: int) -> Array:
    """Flat indices of what a witness examines: the worst outliers, or an even sample of the tensor."""
    flat = relative.reshape(-1)
    if not standing_out.any():
        return np.unique(np.linspace(0, flat.size - 1, min(flat.size, most)).astype(np.int64))
    outliers = np.flatnonzero(standing_out)
    return outliers[np.argsort(flat[outliers])[::-1][:most]]


def _robust_spread(relative: Array) -> float:
    """Median absolute z over 0.6745, on an even sample of at most 65,536 elements."""
    flat = relative.reshape(-1)
    sample = flat[:: max(1, flat.size // ROBUST_SAMPLE)]
    return float(np.median(sample)) / 0.6745
