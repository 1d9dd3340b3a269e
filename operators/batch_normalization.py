"""Normalisation by stored statistics of every channel, or by the batch's own in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ._spilling import opened, squares_spill
from .normalization import EPSILON, mean_spread, per_channel, standardized_magnitude
from .registry import kernel, scale
from .scale import Array, Rule, Scale

MOMENTUM = float(np.float32(0.9))


def _batch_normalized(x: Array, weight: Array, b: Array, mean: Array, variance: Array, epsilon: float) -> Array:
    if x.ndim < 1 or len({*weight.shape, *b.shape, *mean.shape, *variance.shape}) > 1:
        raise InvalidInputError(f"BatchNormalization: statistics of unequal sizes for input of shape {x.shape}")
    shape = (1, -1, *(1,) * (x.ndim - 2)) if x.ndim > 1 else (-1,)
    weight, b, mean, variance = (v.reshape(shape) for v in (weight, b, mean, variance))
    return (x - mean) / np.sqrt(variance + epsilon) * weight + b


def _batch_magnitude(
    y: Array, x: Array, weight: Array, b: Array, mean: Array, variance: Array, epsilon: float
) -> Array:
    """|γ| / sqrt(v + ε) · (|x| + |mean|), for x·a + (b − mean·a) as for (x − mean)·a + b, plus |b| and |y|."""
    shape = (1, -1, *(1,) * (x.ndim - 2)) if x.ndim > 1 else (-1,)
    factor = np.abs(weight) / np.sqrt(variance + epsilon)
    return factor.reshape(shape) * (np.abs(x) + np.abs(mean).reshape(shape)) + np.abs(b).reshape(shape) + np.abs(y)


BATCH_ROUNDINGS = 5
"""sum, sqrt, quotient, product, sum: none of them repeats over elements."""


@kernel("BatchNormalization", since=9)
def batch_normalization(
    x: Array,
    weight: Array,
    b: Array,
    mean: Array,
    var: Array,
    /,
    *,
    epsilon: float = EPSILON,
    momentum: float = MOMENTUM,
    training_mode: int = 0,
    output_count: int = 1,
) -> Array | tuple[Array, ...]:
    """Normalise every channel by stored statistics, or by the batch's own in training.

    Args:
        x: (N, C, D1, …, Dn) or (N,) with one channel.
        weight: scale, (C,).
        b: (C,).
        mean: (C,).
        var: (C,), population variance.
        epsilon: added to the variance.
        momentum: weight of the old statistics in the new running ones.
        training_mode: use and return the batch's statistics.
        output_count: 1 in inference.

    Returns:
        Y like `x`; in training also the running mean and variance, (C,).

    Raises:
        InvalidInputError: statistics of unequal sizes.

    Spec: BatchNormalization, since 9
    """
    if not training_mode and output_count == 1:
        return _batch_normalized(x, weight, b, mean, var, epsilon)
    if x.ndim == 1:  # of one channel
        first, *others = batch_normalization(
            x[:, None],
            weight,
            b,
            mean,
            var,
            epsilon=epsilon,
            momentum=momentum,
            training_mode=training_mode,
            output_count=max(output_count, 2),
        )
        return (first[:, 0], *others)[:output_count]
    axes = (0, *range(2, x.ndim))
    batch_mean, batch_var = x.mean(axis=axes), x.var(axis=axes)
    y = _batch_normalized(x, weight, b, batch_mean, batch_var, epsilon)
    running = (mean * momentum + batch_mean * (1 - momentum), var * momentum + batch_var * (1 - momentum))
    return (y, *running, batch_mean, batch_var)[:output_count]


@scale("BatchNormalization", since=9)
def batch_normalization_scale(
    y: Array | tuple[Array, ...],
    x: Array,
    weight: Array,
    b: Array,
    mean: Array,
    var: Array,
    /,
    *,
    epsilon: float = EPSILON,
    momentum: float = MOMENTUM,
    training_mode: int = 0,
    stored: Sequence[np.dtype[Any] | None] = (None,),
) -> Scale | tuple[Scale, ...]:
    """COMPOSED: affine with |x| and |mean| before they cancel; in training as InstanceNormalization over the batch."""
    if not isinstance(y, tuple):
        if not training_mode:
            size = _batch_magnitude(y, x, weight, b, mean, var, epsilon)
            return Scale(size, BATCH_ROUNDINGS, Rule.COMPOSED)
        y = (y,)
    if x.ndim == 1:  # of one channel
        widened = (y[0][:, None], *y[1:])
        found = batch_normalization_scale(
            widened,
            x[:, None],
            weight,
            b,
            mean,
            var,
            epsilon=epsilon,
            momentum=momentum,
            training_mode=training_mode,
            stored=stored,
        )
        first, *rest = found if isinstance(found, tuple) else (found,)
        return (replace(first, magnitude=np.broadcast_to(first.magnitude, widened[0].shape)[:, 0]), *rest)
    axes = (0, *range(2, x.ndim))
    n = x.size // max(1, x.shape[1])
    size = standardized_magnitude(x, axes, epsilon) * np.abs(per_channel(weight, x)) + np.abs(y[0])
    spilled = squares_spill(x, axes, stored[0], keepdims=False)
    first = Scale(size + np.abs(per_channel(b, x)), n, Rule.COMPOSED, mean_spread(n))
    first = opened(first, per_channel(spilled, x))
    new_mean = np.abs(x).mean(axis=axes)
    new_var = (x**2).mean(axis=axes) + x.mean(axis=axes) ** 2
    running = (np.abs(mean) * momentum + new_mean * (1 - momentum), np.abs(var) * momentum + new_var * (1 - momentum))
    sizes = (*running, new_mean, new_var)
    rest = (opened(Scale(size, n, Rule.COMPOSED, mean_spread(n)), spilled) for size in sizes)
    return (first, *rest)[: len(y)]


@kernel("BatchNormalization", since=1)
def batch_normalization_1(
    x: Array,
    weight: Array,
    b: Array,
    mean: Array,
    var: Array,
    /,
    *,
    epsilon: float = EPSILON,
    momentum: float = MOMENTUM,
    spatial: int = 1,
    is_test: int = 0,
    consumed_inputs: Sequence[int] | None = None,
) -> Array:
    """Inference by stored statistics; `spatial`=0 has one statistic per activation instead of per channel.

    Spec: BatchNormalization, since 1 (7 drops is_test and consumed_inputs)
    """
    if spatial:
        return _batch_normalized(x, weight, b, mean, var, epsilon)
    return (x - mean) / np.sqrt(var + epsilon) * weight + b


@scale("BatchNormalization", since=1)
def batch_normalization_1_scale(
    y: Array,
    x: Array,
    weight: Array,
    b: Array,
    mean: Array,
    var: Array,
    /,
    *,
    epsilon: float = EPSILON,
    spatial: int = 1,
) -> Scale:
    """COMPOSED: as since 9."""
    if spatial:
        return Scale(_batch_magnitude(y, x, weight, b, mean, var, epsilon), BATCH_ROUNDINGS, Rule.COMPOSED)
    factor = np.abs(weight) / np.sqrt(var + epsilon)
    return Scale(factor * (np.abs(x) + np.abs(mean)) + np.abs(b) + np.abs(y), BATCH_ROUNDINGS, Rule.COMPOSED)
