"""Judge the model's own outputs, from a session to which nothing was added.

Looking inside changes what an optimiser does, so a wrong fusion can vanish while it is watched. The untouched outputs
are therefore compared with the clean float64 run, and the error that they may have is known twice:

1. the watched run, whose every node was judged: its deviation is a sample of what admissible roundings add up to;
2. Monte-Carlo arithmetic: the float64 run with every node's output moved by an error of the size of its rounding.

An untouched output fails only if neither explains it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graphs.evaluation import discrete_distances
from ..graphs.values import flattened
from ..operators.rounding import half_unit
from ..operators.scale import Array
from ..operators.storage import decode, float_format, is_float
from .exactness import where_is
from .results import NodeResult, Outcome

WATCHED_FACTOR = 4.0
"""How many times the watched run's deviation an untouched one may have: two samples of one distribution of errors
whose elements are correlated; fused operators round less often, so larger is rare. So too how many times as far as
a perturbed run a discrete element may lie, before it is wrong and not undecided."""

SPREAD_FACTOR = 8.0
"""How many propagated standard deviations (root mean square over a tensor) are admitted, and twice that per element."""

FLOOR = 8.0
"""Half-units at the last node's own scale that are always admitted."""


@dataclass(frozen=True)
class OutputCase:
    """One output of the model.

    Attributes:
        name: its name.
        actual: from the untouched session, stored.
        watched: from the watched run, stored; None if that did not get there.
        clean: from the float64 run.
        dtype: its expected dtype, None where not determined.
        magnitude: error scale of the node that computes it, broadcastable; None where there is none.
        nodes_passed: whether every judged node of the watched run passed.
        spread: computes the propagated standard deviation of this output, of discrete ones how far an element may move
            (Monte-Carlo; slow).
        moved: whether only casts and movements lie between it and the feeds, so that its bits are determined.
    """

    name: str
    actual: Any
    watched: Any
    clean: Any
    dtype: np.dtype[Any] | None
    magnitude: Array | None
    nodes_passed: bool
    spread: Callable[[], Array | None]
    moved: bool = False


def judge_output(case: OutputCase) -> NodeResult:
    """The row of one output of the untouched model."""
    if case.clean is None:
        if case.actual is None:
            return _row(case, Outcome.PASSED, "exact", message="an absent optional, as it must be")
        return _row(case, Outcome.FAILED, "type", message="a value where an absent optional is expected")
    if not isinstance(case.clean, np.ndarray):
        return _judge_structure(case)
    wrong = _wrong_kind(case)
    if wrong:
        return _row(case, Outcome.FAILED, "type", message=wrong)
    if not (is_float(case.actual.dtype) and case.clean.dtype.kind == "f"):
        return _judge_discrete(case)
    return _judge_continuous(case)


def _judge_structure(case: OutputCase) -> NodeResult:
    """A sequence or a map: made of the same parts, and its elements in one row judged as a tensor's are."""
    made, clean = flattened(case.clean)
    found, actual = (None, None) if case.actual is None else flattened(case.actual)
    if actual is None or found != made or (actual.dtype.kind in "OUS") != (clean.dtype.kind in "OUS"):
        return _row(case, Outcome.FAILED, "type", message=f"made of {_short(found)}, expected {_short(made)}")
    if case.dtype is not None and actual.dtype.kind not in "OUS" and _holds_maps(case.clean):
        actual = actual.astype(case.dtype)  # bindings return the values of maps in Python's own types
    there, watched = (None, None) if case.watched is None else flattened(case.watched)
    watched = watched.astype(actual.dtype) if watched is not None and there == made else None
    row = judge_output(dataclasses.replace(case, actual=actual, watched=watched, clean=clean, magnitude=None))
    return dataclasses.replace(row, shapes=(None,), dtypes=(None,))


def _holds_maps(data: Any) -> bool:
    return isinstance(data, Mapping) or (isinstance(data, list) and any(map(_holds_maps, data)))


def _short(made: Any) -> str:
    text = str(made)
    return text if len(text) <= 80 else text[:80] + " …"


def _wrong_kind(case: OutputCase) -> str:
    if not isinstance(case.actual, np.ndarray):
        return f"{type(case.actual).__name__} returned, a tensor expected"
    if case.dtype is not None and case.actual.dtype != case.dtype and case.actual.dtype.kind not in "OUS":
        return f"dtype {case.actual.dtype}, expected {case.dtype}"
    if case.actual.shape != case.clean.shape:
        return f"shape {list(case.actual.shape)}, expected {list(case.clean.shape)}"
    return ""


def _judge_discrete(case: OutputCase) -> NodeResult:
    same = np.asarray(case.actual == case.clean)
    if same.all():
        return _row(case, Outcome.PASSED, "exact", max_abs=0.0)
    count = f"{int((~same).sum())} of {same.size} elements differ from the float64 run"
    if case.nodes_passed and case.watched is not None and np.array_equal(case.actual, case.watched):
        return _row(
            case, Outcome.PASSED, "propagated", message=f"{count}, as in the watched run, whose every node is right"
        )
    spread = case.spread()
    if spread is not None and _within(case, spread):
        return _row(case, Outcome.UNJUDGED, "propagated", message=f"{count}; rounding alone decides them")
    first = int(np.flatnonzero(~same)[0])
    a, r = case.actual.reshape(-1)[first], case.clean.reshape(-1)[first]
    return _row(
        case, Outcome.FAILED, "exact", message=f"{count}; first {where_is(first, same.shape)}: {a!s}, expected {r!s}"
    )


def _within(case: OutputCase, reach: Array) -> bool:
    """Whether rounding alone takes elements as far from the float64 run as the runtime's lie."""
    return bool((discrete_distances(case.actual, case.clean) <= WATCHED_FACTOR * reach).all())


def _judge_moved(case: OutputCase, watched: Array) -> NodeResult:
    """Casts round, also where one widens again what another narrowed; the watched run did, and its nodes are right."""
    actual, expected = decode(case.actual), decode(watched)
    wrong = ~((actual == expected) | (np.isnan(actual) & np.isnan(expected)))
    if not wrong.any():
        return _row(case, Outcome.PASSED, "exact", max_abs=0.0)
    first = int(np.flatnonzero(wrong)[0])
    a, r = actual.reshape(-1)[first], expected.reshape(-1)[first]
    told = f"{int(wrong.sum())} of {wrong.size} elements differ from what the casts before it round to"
    return _row(
        case,
        Outcome.FAILED,
        "exact",
        message=f"{told}; first {where_is(first, wrong.shape)}: {a:.9g}, expected {r:.9g}",
    )


def _judge_continuous(case: OutputCase) -> NodeResult:
    if case.moved and case.nodes_passed and isinstance(case.watched, np.ndarray):
        return _judge_moved(case, case.watched)
    actual = decode(case.actual)
    special = ~(np.isfinite(actual) & np.isfinite(case.clean))
    if special.any():
        wrong = _wrong_special(case, actual, special)
        if wrong:
            return _row(case, Outcome.FAILED, "propagated", message=wrong)
    with np.errstate(all="ignore"):
        gap = np.where(special, 0.0, np.abs(actual - case.clean))
    own = _own_unit(case)
    with np.errstate(all="ignore"):
        z = gap / own
    figures: dict[str, Any] = {
        "max_z": float(z.max(initial=0.0)),
        "rms_z": float(np.sqrt(np.mean(z**2))) if z.size else 0.0,
        "max_abs": float(gap.max(initial=0.0)),
    }
    rms = figures["rms_z"]
    figures["bits"] = (
        float(float_format(case.actual.dtype).fraction_bits + 1 - np.log2(rms)) if 0 < rms < np.inf else None
    )
    explained, allowed = _like_watched(case, z, own)
    if explained:
        remark = "every element is NaN or infinite, which proves little" if special.size and special.all() else ""
        return _row(case, Outcome.PASSED, "propagated", allowed_rms_z=allowed, message=remark, **figures)
    return _by_spread(case, gap, own, figures)


def _wrong_special(case: OutputCase, actual: Array, special: Array) -> str:
    """NaN and infinities must be those of the float64 run or of the watched one (overflow of the stored type)."""
    same = (actual == case.clean) | (np.isnan(actual) & np.isnan(case.clean))
    if case.nodes_passed and isinstance(case.watched, np.ndarray):
        watched = decode(case.watched)
        same |= (actual == watched) | (np.isnan(actual) & np.isnan(watched))
    bad = special & ~same
    if not bad.any():
        return ""
    first = int(np.flatnonzero(bad)[0])
    a, r = actual.reshape(-1)[first], case.clean.reshape(-1)[first]
    return (
        f"{int(bad.sum())} of {bad.size} elements differ; first {where_is(first, bad.shape)}: {a:.9g}, expected {r:.9g}"
    )


def _own_unit(case: OutputCase) -> Array:
    """Half a unit in the last place per element at the last node's scale (at least at the value's own size)."""
    format_ = float_format(case.actual.dtype)
    size = np.abs(case.clean)
    if case.magnitude is not None:
        size = np.maximum(size, np.broadcast_to(case.magnitude, size.shape))
    return np.maximum(np.nan_to_num(size, posinf=format_.largest) * half_unit(format_), format_.smallest_normal)


def _like_watched(case: OutputCase, z: Array, own: Array) -> tuple[bool, float | None]:
    if not (case.nodes_passed and isinstance(case.watched, np.ndarray) and case.watched.shape == case.clean.shape):
        return False, None
    with np.errstate(all="ignore"):
        watched = np.nan_to_num(np.abs(decode(case.watched) - case.clean), nan=0.0, posinf=0.0) / own
    level = float(np.sqrt(np.mean(watched**2))) if watched.size else 0.0
    peak = float(watched.max(initial=0.0))
    allowed = WATCHED_FACTOR * level + FLOOR / 2
    near = float(np.sqrt(np.mean(z**2))) <= allowed if z.size else True
    return bool(near and z.max(initial=0.0) <= WATCHED_FACTOR * peak + FLOOR), allowed


def _by_spread(case: OutputCase, gap: Array, own: Array, figures: dict[str, Any]) -> NodeResult:
    spread = case.spread()
    if spread is None:
        return _row(
            case, Outcome.UNJUDGED, "propagated", message="no propagated scale: a node has no kernel", **figures
        )
    with np.errstate(all="ignore"):
        unit = np.sqrt(spread**2 + POOLED_SHARE * (_typical_growth(spread, own) * own) ** 2) + own
        multiples = gap / unit
        rms = float(np.sqrt(np.mean(multiples**2))) if multiples.size else 0.0
        allowed = SPREAD_FACTOR * float(np.sqrt(np.mean((unit / own) ** 2))) if multiples.size else 0.0
    if rms <= SPREAD_FACTOR and multiples.max(initial=0.0) <= 2 * SPREAD_FACTOR:
        return _row(case, Outcome.PASSED, "propagated", allowed_rms_z=allowed, **figures)
    worst = int(multiples.argmax())
    a, r = decode(case.actual).reshape(-1)[worst], case.clean.reshape(-1)[worst]
    text = (
        f"rms deviation is {_times(rms)} times what rounding at every node adds up to ({SPREAD_FACTOR:g} admitted, "
        f"{2 * SPREAD_FACTOR:g} per element); worst {where_is(worst, gap.shape)}: {a:.9g}, expected {r:.9g}"
    )
    return _row(case, Outcome.FAILED, "propagated", allowed_rms_z=allowed, message=text, **figures)


A_MILLION = 1e6


def _times(ratio: float) -> str:
    """A ratio as a word where its digits mean nothing: an element that must be 0 has next to no unit."""
    return f"{ratio:.4g}" if ratio < A_MILLION else "more than a million"


POOLED_SHARE = 0.04
"""Few samples estimate an element's own deviation badly: a fifth of what its size makes of the tensor's typical growth
is added in squares. Growth is counted in an element's own units, so that large elements lend nothing to small ones."""


def _typical_growth(spread: Array, own: Array) -> float:
    """Median of how many of its own half-units an element's propagated deviation is."""
    return float(np.median(spread / own)) if spread.size else 0.0


def _row(case: OutputCase, outcome: Outcome, rule: str, **fields: Any) -> NodeResult:
    tensor = case.actual if isinstance(case.actual, np.ndarray) else None
    return NodeResult(
        node=case.name,
        op_type="",
        domain="",
        outputs=(case.name,),
        outcome=outcome,
        rule=rule,
        shapes=(None if tensor is None else tensor.shape,),
        dtypes=(None if tensor is None else str(tensor.dtype),),
        inherited_max_abs=fields.get("max_abs"),
        kind="output",
        **fields,
    )
