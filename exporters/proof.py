"""What the proof of an export says, and the rule by which two results agree: frozen data and pure functions.

**The rule.** The graph evaluated in float64 and the module run in float64 do the same arithmetic on the same stored
parameters, so they may differ only by what the translation rounded once: constants (1/√d, ε), folded weights. Each such
rounding is no larger than the one that a run in the stored type makes at the node that uses the constant. `spread` is
what all those roundings together do to an output element (one standard deviation, by Monte-Carlo). A rounding that is
the same everywhere instead of random, and as large as it can be (√3 of a uniform one's deviation), made by the same
constant in L layers (adding up L-fold instead of √L-fold), causes √3·√L deviations: 8 for L = 21. Hence

    z = |difference| / scale,   rms(z) ≤ 8,   max(z) ≤ 64   (a tail of 8 such deviations)

with the scale of an element from its own spread and the tensor's typical (median) one, because a spread estimated from
few samples may be small by chance. A wrong translation is larger by orders: a tanh-GELU for an erf-GELU has z ≈ 1000.
ONNX Runtime's outputs, which do round at every node, have rms(z) ≈ 1 by the same scale and are held to the same rule.

**The control.** Where constants were computed at export, or a run amplifies rounding, the module's own run in the
stored type is the second witness: a difference no worse than four times its own is rounding, and the result says so.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

LARGEST_RMS_Z = 8.0
LARGEST_Z = 64.0
CONTROL_FACTOR = 4.0
BEYOND_ANY_SCALE = 1e100
"""What z is cut to: its square is still a number."""

FLOAT64_NOISE = 2.0**-40
"""Of the root mean square of an output: what two float64 implementations may differ by (sums of 25,088 products)."""


class Standing(enum.StrEnum):
    """What became of one comparison. Only PASSED is green."""

    PASSED = "passed"
    FAILED = "failed"
    """It ran and differs."""
    CRASHED = "crashed"
    """The runtime's process died."""
    HUNG = "hung"
    """The runtime did not answer within the time limit."""
    ERRORED = "errored"
    """It raised where the module did not."""
    UNSUPPORTED = "unsupported"
    """The runtime says that it does not implement this."""
    UNJUDGED = "unjudged"
    """There is nothing to compare with; the message says why."""


WRONG = frozenset({Standing.FAILED, Standing.CRASHED, Standing.HUNG, Standing.ERRORED})
"""What makes an export wrong: exit status 1."""

_WORST_FIRST = (
    Standing.FAILED,
    Standing.CRASHED,
    Standing.HUNG,
    Standing.ERRORED,
    Standing.UNJUDGED,
    Standing.UNSUPPORTED,
    Standing.PASSED,
)


def worst(standings: Sequence[Standing]) -> Standing:
    """The one that decides for all; of nothing at all, UNJUDGED."""
    return min(standings, key=_WORST_FIRST.index, default=Standing.UNJUDGED)


@dataclass(frozen=True)
class Comparison:
    """One output against the module in float64.

    Attributes:
        output: its name.
        standing: PASSED or FAILED.
        rms_z: root mean square of difference / scale; None where not floating-point.
        max_z: the largest.
        rms_error: root mean square of the difference.
        max_error: the largest difference.
        message: what is wrong or noteworthy.
    """

    output: str
    standing: Standing
    rms_z: float | None = None
    max_z: float | None = None
    rms_error: float | None = None
    max_error: float | None = None
    message: str = ""


@dataclass(frozen=True)
class Trial:
    """One executor at one swept shape.

    Attributes:
        standing: the worst of its outputs, or how it failed to give any.
        comparisons: by output.
        message: why there are none.
    """

    standing: Standing
    comparisons: tuple[Comparison, ...] = ()
    message: str = ""


@dataclass(frozen=True)
class ShapeProof:
    """One swept shape: axis sizes, the graph in float64, and ONNX Runtime."""

    sizes: Mapping[str, int]
    graph: Trial
    runtime: Trial


@dataclass(frozen=True)
class Divergence:
    """Where graph and traced program part.

    Attributes:
        node: the first ONNX node whose output differs; "" if they agree everywhere.
        op_type: its operator.
        value: that output.
        torch_operator: what it was translated from.
        message: one line.
    """

    node: str
    op_type: str
    value: str
    torch_operator: str
    message: str


@dataclass(frozen=True)
class GraphProof:
    """The proof of one graph.

    Attributes:
        graph: its name.
        shapes: every swept shape that the module takes.
        refused: swept sizes that the module itself refuses, with its reason.
        divergence: where a wrong graph goes wrong.
        message: for a graph that could not be judged, why.
    """

    graph: str
    shapes: tuple[ShapeProof, ...]
    refused: tuple[tuple[Mapping[str, int], str], ...] = ()
    divergence: Divergence | None = None
    message: str = ""

    @property
    def translation(self) -> Standing:
        """The worst of the graph's float64 trials."""
        return worst([shape.graph.standing for shape in self.shapes])

    @property
    def runtime(self) -> Standing:
        """The worst of ONNX Runtime's trials."""
        return worst([shape.runtime.standing for shape in self.shapes])


def compare(  # noqa: PLR0913 - two values, two scales, two names
    output: str,
    actual: Array,
    reference: Array,
    spread: Array,
    control: Array | None = None,
    *,
    what: str = "the graph",
) -> Comparison:
    """Hold one output against the module's in float64.

    Args:
        output: its name.
        actual: the graph's value in float64, or a runtime's stored one.
        reference: the module's value in float64 (integers, booleans as they are).
        spread: standard deviation that rounding causes, of the same shape.
        control: the module's value computed in the stored type, as the second witness; None does not ask it.
        what: who computed `actual`, for the message.
    """
    if actual.shape != reference.shape:
        return Comparison(output, Standing.FAILED, message=f"{what} gives {actual.shape}, the module {reference.shape}")
    if reference.dtype.kind not in "fV":
        return _compare_exact(output, actual, reference, spread, what)
    given, wanted = actual.astype(np.float64), reference.astype(np.float64)
    strange = _not_finite(output, given, wanted, control, what)
    if strange is not None:
        return strange
    finite = np.isfinite(wanted) & np.isfinite(given)
    difference = np.abs(np.where(finite, given, 0.0) - np.where(finite, wanted, 0.0))
    z = np.minimum(difference / scales(spread, np.where(finite, wanted, 0.0)), BEYOND_ANY_SCALE)
    rms_z, max_z, rms_error, max_error = rms(z), _largest(z), rms(difference), _largest(difference)
    figures = (rms_z, max_z, rms_error, max_error)
    if rms_z <= LARGEST_RMS_Z and max_z <= LARGEST_Z:
        return Comparison(output, Standing.PASSED, *figures)
    if control is not None and _as_good_as(control, wanted, rms_error, max_error):
        note = (
            f"beyond the rounding scale (rms z {rms_z:.3g}), but no worse than {CONTROL_FACTOR:g} × the module itself"
        )
        return Comparison(output, Standing.PASSED, *figures, message=note)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(z)), z.shape))
    note = (
        f"{what} gives {given[index]:.9g} at {list(index)}, the module {wanted[index]:.9g}; "
        f"rms difference {rms_error:.3g}, {rms_z:.3g} × the rounding scale (allowed {LARGEST_RMS_Z:g})"
    )
    return Comparison(output, Standing.FAILED, *figures, message=note)


def rms(values: Array) -> float:
    """Root mean square; 0 of nothing."""
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else 0.0


def _largest(values: Array) -> float:
    return float(values.max()) if values.size else 0.0


def scales(spread: Array, reference: Array) -> Array:
    """The size of a rounding-caused difference per element: its own spread, the tensor's typical one, float64's."""
    moving = spread[spread > 0]
    typical = float(np.median(moving)) if moving.size else 0.0
    floor = max(FLOAT64_NOISE * rms(reference), np.finfo(np.float64).tiny)
    return np.sqrt((spread**2 + typical**2) / 2) + floor


def _compare_exact(output: str, actual: Array, reference: Array, spread: Array, what: str) -> Comparison:
    """Integers and booleans: equal, but where rounding alone already changes them."""
    wrong = (actual != reference) & (spread == 0)
    if not wrong.any():
        return Comparison(output, Standing.PASSED)
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    note = f"{what} gives {actual[index]} at {list(index)}, the module {reference[index]}; {int(wrong.sum())} differ"
    return Comparison(output, Standing.FAILED, message=note)


def _not_finite(output: str, given: Array, wanted: Array, control: Array | None, what: str) -> Comparison | None:
    """NaN and infinities must be where the module has them, in float64 or (overflow) in the stored type."""
    with np.errstate(invalid="ignore"):
        same = (np.isfinite(given) & np.isfinite(wanted)) | (given == wanted) | (np.isnan(given) & np.isnan(wanted))
    if control is not None:
        same |= ~np.isfinite(given) & ~np.isfinite(control.astype(np.float64))
    if same.all():
        return None
    index = tuple(int(i) for i in np.argwhere(~same)[0])
    note = f"{what} gives {given[index]} at {list(index)}, the module {wanted[index]}"
    return Comparison(output, Standing.FAILED, message=note)


def _as_good_as(control: Array, wanted: Array, rms_error: float, max_error: float) -> bool:
    with np.errstate(invalid="ignore"):
        own = np.abs(control.astype(np.float64) - wanted)
    own = own[np.isfinite(own)]
    return rms_error <= CONTROL_FACTOR * rms(own) and max_error <= CONTROL_FACTOR * _largest(own)
