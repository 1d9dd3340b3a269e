"""Normalisation by mean and variance, by root mean square, by stored statistics, by neighbours and by a norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from ..errors import InvalidAttributeError
from ._spilling import opened, squares_spill, stage_type
from .registry import kernel, scale
from .scale import Array, Rule, Scale
from .storage import float_format, is_float

EPSILON = float(np.float32(1e-5))
FLOAT32_CODE = 1
"""float32 as ONNX numbers it; the default of `stash_type`."""
MOMENTUM = float(np.float32(0.9))

ROUNDINGS = 4.0
"""Half-units that sqrt, reciprocal and two products add to a normalised value, each at its own size."""


def _moments(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array]:
    """(mean, 1 / sqrt(variance + epsilon)) over `axes`, kept as axes of size one; population variance."""
    mean = x.mean(axis=axes, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=axes, keepdims=True)
    return mean, 1 / np.sqrt(variance + epsilon)


def mean_spread(n: int) -> float:
    """Deviation of z for means over n in any order: random rounding of n positive summands has sqrt(n) / 3."""
    return math.sqrt(1 + n / (9 * ROUNDINGS**2))


def standardized_magnitude(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """First-order error scale of (x − mean) / sqrt(variance + epsilon), in half-units in the last place.

    With d = x − mean and i = 1 / sqrt(v + ε): d carries |d| (its own rounding) plus mean|x| (the mean's); v carries
    relatively (E[x²] + mean²) / (v + ε), the cancellation of the one-pass formula E[x²] − mean², which the function
    body of LayerNormalization 17 uses and which contains the two-pass error; i carries half of that plus `ROUNDINGS`.
    """
    mean, inverse = _moments(x, axes, epsilon)
    d = x - mean
    cancellation = ((x**2).mean(axis=axes, keepdims=True) + mean**2) * inverse**2
    mean_error = np.abs(x).mean(axis=axes, keepdims=True)
    return inverse * (np.abs(d) + mean_error) + np.abs(d) * inverse * (cancellation / 2 + ROUNDINGS)


def two_pass_magnitude(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """As `standardized_magnitude`, of the variance as the mean of (x − mean)², which does not cancel.

    v carries relatively 2 (of x − mean), 1 (its square) and, as the deviations add up to 0, the mean's error only
    squared: with n additions at half a unit of float32 it is e = n·u·mean|x|, and e²·i² in v.
    """
    mean, inverse = _moments(x, axes, epsilon)
    d, mean_error = x - mean, np.abs(x).mean(axis=axes, keepdims=True)
    shifted = math.prod(x.shape[a] for a in axes) * FLOAT32_UNIT * (mean_error * inverse) ** 2
    return inverse * (np.abs(d) + mean_error) + np.abs(d) * inverse * ((3 + shifted) / 2 + ROUNDINGS)


FLOAT32_UNIT = 2.0**-24
"""Half a unit in the last place of float32, in which a mean is computed at least."""


def _as_a_control(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """(x − mean) / sqrt(variance + epsilon) in float32 by both formulas of the variance, at every element the worse.

    The text has the mean of (x − mean)², the function body E[x²] − mean², which cancels.
    """
    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    one_pass = np.maximum(np.square(x).mean(axis=axes, keepdims=True) - np.square(mean), 0)
    found = [centred / np.sqrt(v + epsilon) for v in (np.square(centred).mean(axis=axes, keepdims=True), one_pass)]
    wide = np.asarray(x).view(np.ndarray).astype(np.float64)
    exact_mean, exact_inverse = _moments(wide, axes, epsilon)
    gaps = [np.abs(y.view(np.ndarray) - (wide - exact_mean) * exact_inverse) for y in found]
    return np.where(gaps[0] > gaps[1], found[0], found[1])


def first_stage(result: np.dtype[Any] | None, stash_type: int) -> float:
    """By how much stage one rounds more than the type of the result: `stash_type` says its precision."""
    if result is None or not is_float(result):
        return 1.0
    stash = float_format(onnx.helper.tensor_dtype_to_np_dtype(stash_type))
    return 2.0 ** max(float_format(result).fraction_bits - stash.fraction_bits, 0)


def _trailing(x: Array, axis: int, op_type: str) -> tuple[int, ...]:
    if not -x.ndim <= axis < max(x.ndim, 1):
        raise InvalidAttributeError(f"{op_type}: axis={axis} is outside [-{x.ndim}, {x.ndim}) for shape {x.shape}")
    return tuple(range(axis % max(x.ndim, 1), x.ndim))


@kernel("LayerNormalization", since=17)
def layer_normalization(
    x: Array,
    weight: Array,
    b: Array | None = None,
    /,
    *,
    axis: int = -1,
    epsilon: float = EPSILON,
    stash_type: int = 1,
) -> tuple[Array, Array, Array]:
    """Standardise over the axes from `axis` on, then scale and shift.

    Args:
        x: (…, d_axis, …, d_last).
        weight: Scale, broadcastable to `x` from the right.
        b: shift, likewise, or None.
        axis: first normalised axis.
        epsilon: added to the variance.
        stash_type: precision of the first stage in a runtime; the reference is float64.

    Returns:
        (Y like `x`, Mean and InvStdDev with size one in the normalised axes).

    Raises:
        InvalidAttributeError: `axis` outside [−rank, rank).

    Spec: LayerNormalization, since 17
    """
    axes = _trailing(x, axis, "LayerNormalization")
    if x.dtype == np.float32:
        y, (mean, inverse) = _as_a_control(x, axes, epsilon), _moments(x, axes, epsilon)
    else:
        y, mean, inverse = _standardized(x, axes, epsilon)
    y *= weight  # in place, as it is what takes time
    if b is not None:
        y += b
    return y, mean, inverse


def _standardized(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """((x − mean) · inverse, mean, inverse), inverse = 1 / sqrt(variance + epsilon), over the last axes of `x`."""
    mean = x.mean(axis=axes, keepdims=True)
    y = np.asarray(x - mean)
    count = math.prod(x.shape[axis] for axis in axes)
    rows = y.reshape(*y.shape[: y.ndim - len(axes)], count)
    inverse = 1 / np.sqrt((np.vecdot(rows, rows) / max(count, 1)).reshape(mean.shape) + epsilon)
    y *= inverse
    return y, mean, inverse


@scale("LayerNormalization", since=17)
def layer_normalization_scale(
    y: tuple[Array, Array, Array],
    x: Array,
    weight: Array,
    b: Array | None = None,
    /,
    *,
    axis: int = -1,
    epsilon: float = EPSILON,
    stash_type: int = FLOAT32_CODE,
    stored: Sequence[np.dtype[Any] | None] = (None,),
) -> tuple[Scale, Scale, Scale]:
    """COMPOSED: `two_pass_magnitude` times |Scale|, plus the roundings of the product and of the shift.

    What the one-pass variance of the function body loses is admitted as a control shows it (`_as_a_control`), but for
    what no two-pass variance, which is the text's, can lose.
    """
    axes = _trailing(x, axis, "LayerNormalization")
    n = math.prod(x.shape[a] for a in axes)
    size = first_stage(stored[0], stash_type) * two_pass_magnitude(x, axes, epsilon) * np.abs(weight) + np.abs(y[0])
    size = size if b is None else size + np.abs(b)
    mean, inverse = y[1], y[2]
    cancellation = ((x**2).mean(axis=axes, keepdims=True) + mean**2) * inverse**2
    spilled = squares_spill(x, axes, stage_type(stash_type))
    return (
        opened(Scale(size, n, Rule.COMPOSED, mean_spread(n)), spilled),
        opened(Scale(np.abs(x).mean(axis=axes, keepdims=True), n + 1, Rule.DOT), spilled),
        opened(Scale(inverse * (cancellation / 2 + ROUNDINGS), n, Rule.COMPOSED, mean_spread(n)), spilled),
    )


@kernel("RMSNormalization", since=23)
def rms_normalization(
    x: Array, weight: Array, /, *, axis: int = -1, epsilon: float = EPSILON, stash_type: int = 1
) -> Array:
    """Divide by the root mean square over the axes from `axis` on, then scale.

    Args:
        x: (…, d_axis, …, d_last).
        weight: scale, broadcastable to `x` from the right.
        axis: first normalised axis.
        epsilon: added to the mean square.
        stash_type: precision of the first stage in a runtime; the reference is float64.

    Returns:
        Like `x`.

    Raises:
        InvalidAttributeError: `axis` outside [−rank, rank).

    Spec: RMSNormalization, since 23
    """
    axes = _trailing(x, axis, "RMSNormalization")
    return x / np.sqrt((x**2).mean(axis=axes, keepdims=True) + epsilon) * weight


@scale("RMSNormalization", since=23)
def rms_normalization_scale(
    y: Array,
    x: Array,
    weight: Array,
    /,
    *,
    axis: int = -1,
    stash_type: int = FLOAT32_CODE,
    stored: Sequence[np.dtype[Any] | None] = (None,),
) -> Scale:
    """COMPOSED: every step is a product of relative roundings: |y|·(1/2 mean of squares + sqrt, quotient, product).

    The result has the type of the second input."""
    axes = _trailing(x, axis, "RMSNormalization")
    n = math.prod(x.shape[a] for a in axes)
    found = Scale(np.abs(y) * ROUNDINGS * first_stage(stored[-1], stash_type), n, Rule.COMPOSED, mean_spread(n))
    return opened(found, squares_spill(x, axes, stage_type(stash_type)))


def per_channel(values: Array, x: Array) -> Array:
    return values.reshape(1, -1, *(1,) * (x.ndim - 2))


@kernel("InstanceNormalization", since=1)
def instance_normalization(
    x: Array,
    weight: Array,
    b: Array,
    /,
    *,
    epsilon: float = EPSILON,
    consumed_inputs: Sequence[int] | None = None,
) -> Array:
    """Standardise every channel of every instance over its spatial axes.

    Args:
        x: (N, C, D1, …, Dn).
        weight: scale, (C,).
        b: (C,).
        epsilon: added to the variance.
        consumed_inputs: legacy optimisation attribute of version 1, ignored.

    Returns:
        Like `x`.

    Spec: InstanceNormalization, since 1
    """
    axes = tuple(range(2, x.ndim))
    mean, inverse = _moments(x, axes, epsilon)
    return (x - mean) * inverse * per_channel(weight, x) + per_channel(b, x)


@scale("InstanceNormalization", since=1)
def instance_normalization_scale(
    y: Array,
    x: Array,
    weight: Array,
    b: Array,
    /,
    *,
    epsilon: float = EPSILON,
    stored: Sequence[np.dtype[Any] | None] = (None,),
) -> Scale:
    """COMPOSED: `standardized_magnitude` over the spatial axes, then as in LayerNormalization."""
    axes = tuple(range(2, x.ndim))
    n = math.prod(x.shape[2:])
    size = standardized_magnitude(x, axes, epsilon) * np.abs(per_channel(weight, x))
    found = Scale(size + np.abs(per_channel(b, x)) + np.abs(y), n, Rule.COMPOSED, mean_spread(n))
    return opened(found, squares_spill(x, axes, stored[0]))


def _grouped(x: Array, num_groups: int) -> Array:
    if num_groups <= 0 or x.shape[1] % num_groups:
        raise InvalidAttributeError(
            f"GroupNormalization: num_groups={num_groups} does not divide {x.shape[1]} channels"
        )
    return x.reshape(x.shape[0], num_groups, -1)


def _group_normalized(x: Array, weight: Array, b: Array, num_groups: int, epsilon: float) -> Array:
    groups = _grouped(x, num_groups)
    mean, inverse = _moments(groups, (2,), epsilon)
    return ((groups - mean) * inverse).reshape(x.shape) * per_channel(weight, x) + per_channel(b, x)


def _group_magnitude(
    y: Array,
    x: Array,
    weight: Array,
    b: Array,
    num_groups: int,
    epsilon: float,
    stage: float = 1.0,
    dtype: np.dtype[Any] | None = None,
) -> Scale:
    groups = _grouped(x, num_groups)
    size = stage * standardized_magnitude(groups, (2,), epsilon).reshape(x.shape) * np.abs(per_channel(weight, x))
    n = groups.shape[2]
    spilled = np.broadcast_to(squares_spill(groups, (2,), dtype), groups.shape).reshape(x.shape)
    return opened(Scale(size + np.abs(per_channel(b, x)) + np.abs(y), n, Rule.COMPOSED, mean_spread(n)), spilled)


@kernel("GroupNormalization", since=21)
def group_normalization(
    x: Array, weight: Array, b: Array, /, *, num_groups: int, epsilon: float = EPSILON, stash_type: int = 1
) -> Array:
    """Standardise over groups of channels and the spatial axes; scale and shift per channel.

    Args:
        x: (N, C, D1, …, Dn).
        weight: scale, (C,).
        b: bias, (C,).
        num_groups: divides C.
        epsilon: added to the variance.
        stash_type: precision of the first stage in a runtime; the reference is float64.

    Returns:
        Like `x`.

    Raises:
        InvalidAttributeError: `num_groups` does not divide C.

    Spec: GroupNormalization, since 21
    """
    return _group_normalized(x, weight, b, num_groups, epsilon)


@scale("GroupNormalization", since=21)
def group_normalization_scale(
    y: Array,
    x: Array,
    weight: Array,
    b: Array,
    /,
    *,
    num_groups: int,
    epsilon: float = EPSILON,
    stash_type: int = FLOAT32_CODE,
    stored: Sequence[np.dtype[Any] | None] = (None,),
) -> Scale:
    """COMPOSED: `standardized_magnitude` over each group, then as in LayerNormalization."""
    stage = first_stage(stored[0], stash_type)
    return _group_magnitude(y, x, weight, b, num_groups, epsilon, stage, stage_type(stash_type))


@kernel("GroupNormalization", since=18)
def group_normalization_18(x: Array, weight: Array, b: Array, /, *, num_groups: int, epsilon: float = EPSILON) -> Array:
    """As since 21, but scale and bias are given per group: (num_groups,).

    Spec: GroupNormalization, since 18
    """
    per_group = x.shape[1] // num_groups if num_groups else 0
    return _group_normalized(x, weight.repeat(per_group), b.repeat(per_group), num_groups, epsilon)


@scale("GroupNormalization", since=18)
def group_normalization_18_scale(
    y: Array,
    x: Array,
    weight: Array,
    b: Array,
    /,
    *,
    num_groups: int,
    epsilon: float = EPSILON,
    stored: Sequence[np.dtype[Any] | None] = (None,),
) -> Scale:
    """COMPOSED, as since 21 with scale and bias repeated per channel."""
    per_group = x.shape[1] // num_groups
    scales = (weight.repeat(per_group), b.repeat(per_group))
    return _group_magnitude(y, x, *scales, num_groups, epsilon, dtype=stored[0])
