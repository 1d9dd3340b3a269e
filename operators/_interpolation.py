"""Interpolation along one axis after the other: source coordinates, weights, and how far both can be off.

Runtimes compute source coordinates in float32, whatever the tensor's type. Every scale here therefore holds, beside the
rounding of the interpolation itself, how far the result moves when the coordinate moves by its own rounding; for
`nearest` that is the difference to the neighbour where a coordinate lies within its rounding of a tie, and 0 elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError
from ._casting import integer_limits
from ._elementwise import undetermined
from ._spilling import unspecified
from .scale import Array, Rule, Scale
from .storage import float_format

COORDINATE_ROUNDING = 2.0**-22
"""Error of a float32 coordinate relative to |coordinate| + 1: four roundings of 2^-24 (scale, reciprocal, product,
offset)."""

WEIGHT_ROUNDINGS = 4
"""Roundings of one weight and of its product."""

POWER_OF_TWO = 0.5
"""Mantissa of a power of two."""


@dataclass(frozen=True)
class Sampling:
    """How Resize samples; the attributes of its spec, with their names and defaults.

    Attributes:
        mode: nearest, linear or cubic.
        coordinate_transformation_mode: from output to input coordinates.
        nearest_mode: round_prefer_floor, round_prefer_ceil, floor or ceil; "simple" is that of opset 10 and before:
            floor, but ceil where the axis shrinks.
        cubic_coeff_a: a of the cubic kernel.
        exclude_outside: elements outside the tensor get no weight, the others are renormalised; 0 repeats the edge.
        antialias: stretch the filter when an axis shrinks.
        extrapolation_value: result outside the tensor, for tf_crop_and_resize only.
    """

    mode: str = "nearest"
    coordinate_transformation_mode: str = "half_pixel"
    nearest_mode: str = "round_prefer_floor"
    cubic_coeff_a: float = -0.75
    exclude_outside: int = 0
    antialias: int = 0
    extrapolation_value: float = 0.0


@dataclass(frozen=True)
class Axis:
    """One resized axis.

    Attributes:
        axis: which.
        size: input size.
        target: output size.
        factor: exact scale: as given, or target / size where sizes are given.
        start: of the region of interest, in units of the input's extent; `end` likewise.
    """

    axis: int
    size: int
    target: int
    factor: Fraction
    start: float = 0.0
    end: float = 1.0


def _coordinates(axis: Axis, mode: str, dtype: type[np.floating[Any]] = np.float64) -> Array:
    """Input coordinate of every output element, (target,).

    In float64 every quotient is that of exact products, so that ties are exact; in float32 it is the formula of the
    spec as runtimes evaluate it. A length that a scale makes fractional stays fractional in align_corners, as in ONNX's
    own node tests.
    """
    o, half = np.arange(axis.target, dtype=dtype), dtype(0.5)
    last, length = axis.size - 1, dtype(float(axis.factor * axis.size))

    def unscaled(value: Array) -> Array:
        if dtype is np.float32:
            return value / np.float32(float(axis.factor))
        return value * float(axis.factor.denominator) / float(axis.factor.numerator)

    single = axis.target == 1
    start, end = dtype(axis.start), dtype(axis.end)
    formulas: dict[str, Callable[[], Array]] = {
        "half_pixel": lambda: unscaled(o + half) - half,
        "pytorch_half_pixel": lambda: np.zeros_like(o) if single else unscaled(o + half) - half,
        "half_pixel_symmetric": lambda: dtype(axis.size / 2) * (1 - axis.target / length) + unscaled(o + half) - half,
        "asymmetric": lambda: unscaled(o),
        "tf_half_pixel_for_nn": lambda: unscaled(o + half),
        "align_corners": lambda: np.zeros_like(o) if single else o * last / (length - 1),
        "tf_crop_and_resize": lambda: (
            half * (start + end) * last + np.zeros_like(o)
            if single
            else start * last + o * (end - start) * last / (axis.target - 1)
        ),
    }
    if mode not in formulas:
        raise InvalidAttributeError(f"coordinate_transformation_mode={mode!r}; allowed: {', '.join(formulas)}")
    return formulas[mode]()


def _rounding(axis: Axis, sampling: Sampling) -> Array:
    """How far a float32 coordinate may be off, (target,).

    Nothing where float32 has no rounding to do: steps that are powers of two; and for `nearest` wherever a step that
    float32 holds exactly gives, by the formula of the spec in float32, the exact coordinate.
    """
    mode = sampling.coordinate_transformation_mode
    x = _coordinates(axis, mode)
    step = Fraction(max(axis.target - 1, 1), max(axis.size - 1, 1)) if mode == "align_corners" else axis.factor
    whole = axis.factor * axis.size == axis.target
    if whole and mode != "tf_crop_and_resize" and math.frexp(float(step))[0] == POWER_OF_TWO:
        return np.zeros_like(x)
    offset = max(abs(axis.start), abs(axis.end)) * axis.size if mode == "tf_crop_and_resize" else 0
    moved = COORDINATE_ROUNDING * (np.abs(x) + offset + 1)
    if sampling.mode != "nearest" or Fraction(float(np.float32(float(step)))) != step:
        return moved
    return np.where(_coordinates(axis, mode, np.float32).astype(np.float64) == x, 0, moved)


_NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _nearest(x: Array, axis: Axis, sampling: Sampling) -> Array:
    """Index of the input element that each coordinate takes."""
    simple = "ceil" if axis.factor < 1 else "floor"
    mode = simple if sampling.nearest_mode == "simple" else sampling.nearest_mode
    if mode not in _NEAREST:
        raise InvalidAttributeError(f"nearest_mode={mode!r}; allowed: {', '.join(_NEAREST)}")
    return np.clip(_NEAREST[mode](x), 0, axis.size - 1).astype(np.int64)


def _filter(t: Array, sampling: Sampling) -> Array:
    """Weight of an element at distance `t`: the triangle of `linear`, the piecewise cubic of Keys."""
    t, a = np.abs(t), sampling.cubic_coeff_a
    if sampling.mode == "linear":
        return np.maximum(1 - t, 0)
    inner = ((a + 2) * t - (a + 3)) * t * t + 1
    outer = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, inner, np.where(t < 2, outer, 0))


def _taps(x: Array, axis: Axis, sampling: Sampling) -> tuple[Array, Array, Array]:
    """Elements and weights around every coordinate.

    Returns:
        indices (target, taps), weights (target, taps), and the sizes at which weights round: |w|, plus 1 where a
        polynomial or a stretched filter is evaluated, whose intermediate values are of that size.
    """
    stretch = max(1.0, 1 / float(axis.factor)) if sampling.antialias else 1.0
    reach = math.ceil((1 if sampling.mode == "linear" else 2) * stretch)
    at = np.floor(x)[:, None] + np.arange(1 - reach, reach + 1)  # (target, 2·reach)
    w = _filter((at - x[:, None]) / stretch, sampling)
    if sampling.exclude_outside:
        w = np.where((at >= 0) & (at < axis.size), w, 0)
    total = w.sum(axis=1, keepdims=True) if sampling.exclude_outside or sampling.antialias else np.ones((1, 1))
    evaluated = 0.0 if sampling.mode == "linear" and stretch == 1 else 1.0
    return np.clip(at, 0, axis.size - 1).astype(np.int64), w / total, (np.abs(w) + evaluated) / np.abs(total)


def _weighted(data: Array, axis: int, at: Array, w: Array) -> Array:
    """Σ_t w[:, t] · data at at[:, t] along `axis`."""
    column = (-1, *[1] * (data.ndim - axis - 1))
    wide = np.complex128 if data.dtype.kind == "c" else np.float64
    total = np.zeros((*data.shape[:axis], len(at), *data.shape[axis + 1 :]), wide)
    for t in range(at.shape[1]):
        part = np.take(data, at[:, t], axis).astype(wide, copy=False)
        part *= w[:, t].reshape(column)
        total += part
    return total


def _outside(axis: Axis, x: Array, rank: int) -> Array:
    return ((x < 0) | (x > axis.size - 1)).reshape(-1, *[1] * (rank - axis.axis - 1))


def _interpolate(data: Array, axes: Sequence[Axis], sampling: Sampling, shifts: Sequence[Any]) -> Array:
    """`data` resampled along `axes`, at coordinates moved by `shifts` (one number or (target,) array per axis)."""
    mode, outside = sampling.coordinate_transformation_mode, np.zeros((), bool)
    for axis, shift in zip(axes, shifts, strict=True):
        x = _coordinates(axis, mode) + shift
        if sampling.mode == "nearest":
            data = np.take(data, _nearest(x, axis, sampling), axis.axis)
        else:
            at, w, _ = _taps(x, axis, sampling)
            data = _weighted(data, axis.axis, at, w)
        if mode == "tf_crop_and_resize":
            outside = outside | _outside(axis, x, data.ndim)
    return np.where(outside, sampling.extrapolation_value, data).astype(data.dtype) if outside.any() else data


def resample(data: Array, axes: Sequence[Axis], sampling: Sampling) -> Array:
    """`data` resampled along `axes`, in its own dtype (integers truncated).

    Raises:
        InvalidAttributeError: an unknown mode.
    """
    if sampling.mode not in ("nearest", "linear", "cubic"):
        raise InvalidAttributeError(f"mode={sampling.mode!r}; allowed: nearest, linear, cubic")
    return np.asarray(_interpolate(data, axes, sampling, [0] * len(axes))).astype(data.dtype, copy=False)


def resample_scale(
    y: Array, data: Array, axes: Sequence[Axis], sampling: Sampling, stored: np.dtype[Any] | None
) -> Scale:
    """COMPOSED: the interpolation with |weights| on |x|, plus how far the coordinates' own rounding moves the result.

    Derivation: Y is piecewise smooth in the coordinate of each axis. To first order, an error of delta on axis a moves
    it by |Y(x + delta e_a) − Y(x)|, to either side because of the kinks at whole coordinates; these moves add up. They
    do not depend on the stored type, thus they are divided by its half unit. `nearest` does no arithmetic: what remains
    is the largest move over all combinations of axes, one ULP in that unit: either neighbour conforms. An integer
    tensor has no such unit: `nearest` is open where a neighbour differs; see `_integer_scale` for interpolation.
    """
    moves = [_rounding(axis, sampling) for axis in axes]
    if sampling.mode == "nearest":
        choices = [(0, -move, move) if move.any() else (0,) for move in moves]
        others = [_interpolate(data, axes, sampling, shifts) for shifts in product(*choices)]
        if y.dtype.kind not in "fc":
            return undetermined(np.any([other != y for other in others], axis=0))
        reach = np.max([np.where(other == y, 0, np.abs(other - y)) for other in others], axis=0)
        return Scale(reach / _half_unit(stored), 1, Rule.ULP) if reach.any() else undetermined(np.zeros((), bool))
    if y.dtype.kind not in "fc":
        return _integer_scale(y, data, axes, sampling, moves)
    reach, size, roundings = np.zeros(y.shape), np.abs(data), 0
    for number, (axis, move) in enumerate(zip(axes, moves, strict=True)):
        at, _, w = _taps(_coordinates(axis, sampling.coordinate_transformation_mode), axis, sampling)
        size, roundings = _weighted(size, axis.axis, at, w), roundings + at.shape[1] + WEIGHT_ROUNDINGS
        if move.any():
            sides = ([side * move if i == number else 0 for i in range(len(axes))] for side in (-1, 1))
            reach += np.max([np.abs(_interpolate(data, axes, sampling, shifts) - y) for shifts in sides], axis=0)
    found = Scale(size + reach / _half_unit(stored), max(roundings, 1), Rule.COMPOSED)
    return unspecified(found, np.isnan(y) & np.isinf(data).any())  # infinity times a weight of 0, or left out


def _integer_scale(y: Array, data: Array, axes: Sequence[Axis], sampling: Sampling, moves: Sequence[Array]) -> Scale:
    """EXACT to a step, and as many more as the coordinates' rounding moves the interpolation: the text does not say how
    it becomes an integer, so the whole numbers on both sides conform. Open where it leaves the type's range."""
    if _without_order(data):
        return undetermined(np.ones((), bool))
    wide = data.astype(np.float64)
    value = _interpolate(wide, axes, sampling, [0] * len(axes))
    reach = np.abs(value) * INTEGER_ROUNDING
    for number, move in enumerate(moves):
        sides = ([side * move if i == number else 0 for i in range(len(axes))] for side in (-1, 1))
        reach = reach + np.max([np.abs(_interpolate(wide, axes, sampling, s) - value) for s in sides], axis=0)
    low, high = integer_limits(y.dtype)
    outside = (value - reach < low) | (value + reach > high)
    return Scale(np.zeros(()), np.where(outside, np.inf, 1 + np.ceil(reach)), Rule.EXACT)


INTEGER_ROUNDING = 2.0**-20
"""By how much float32 sums of a few products may be off, relatively, before they become integers."""


def _without_order(data: Array) -> bool:
    """Whether interpolated values have no order: booleans and strings."""
    return data.dtype.kind in "bOUST"


def _half_unit(stored: np.dtype[Any] | None) -> float:
    return 2.0 ** (-1 - float_format(np.dtype(np.float64) if stored is None else stored).fraction_bits)
