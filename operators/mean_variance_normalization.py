"""MeanVarianceNormalization: by the mean and the deviation over chosen axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError
from ._spilling import opened, powers_vanish, squares_spill
from .normalization import mean_spread, standardized_magnitude
from .registry import kernel, scale
from .rounding import half_unit
from .scale import Array, Rule, Scale
from .storage import float_format


def _over(x: Array, axes: Sequence[int], across_channels: int) -> tuple[int, ...]:
    if across_channels:
        return tuple(range(x.ndim))
    if any(not -x.ndim <= axis < x.ndim for axis in axes):
        raise InvalidAttributeError(f"MeanVarianceNormalization: axes={list(axes)} for an input of rank {x.ndim}")
    return tuple(axis % x.ndim for axis in axes)


@kernel("MeanVarianceNormalization", since=1)
def mean_variance_normalization(
    x: Array, /, *, axes: Sequence[int] = (0, 2, 3), across_channels: int = 0, normalize_variance: int = 1
) -> Array:
    """(x − mean) / sqrt(variance) over `axes`; the function body adds 1e-9 to the deviation.

    Args:
        x: any shape that has `axes`.
        axes: normalised axes.
        across_channels: version 1 only; also over the channel axis.
        normalize_variance: version 1 only; 0 subtracts the mean alone.

    Returns:
        Like `x`.

    Spec: MeanVarianceNormalization, since 1 (function body since 9)
    """
    over = _over(x, axes, across_channels)
    d = x - x.mean(axis=over, keepdims=True)
    if not normalize_variance:
        return d
    return d / (np.sqrt((d**2).mean(axis=over, keepdims=True)) + float(np.float32(1e-9)))


@scale("MeanVarianceNormalization", since=1)
def mean_variance_normalization_scale(
    y: Array,
    x: Array,
    /,
    *,
    axes: Sequence[int] = (0, 2, 3),
    across_channels: int = 0,
    stored: Sequence[np.dtype[Any] | None] = (None,),
) -> Scale:
    """COMPOSED: `standardized_magnitude` without epsilon (the function body uses the one-pass variance), and the
    distance to the text's formula, which lacks the 1e-9 that the function body adds to the deviation."""
    over = _over(x, axes, across_channels)
    n = math.prod(x.shape[a] for a in over)
    d = x - x.mean(axis=over, keepdims=True)
    deviation = np.sqrt((d**2).mean(axis=over, keepdims=True))
    size = standardized_magnitude(x, over, 1e-18) + np.abs(y)
    if stored[0] is not None:  # the text's formula, without the epsilon of the function body, conforms as well
        size = size + np.abs(d / np.maximum(deviation, 1e-300) - y) / half_unit(float_format(stored[0]))
    vanished = powers_vanish(d**2, over, stored[0])
    return opened(Scale(size, n, Rule.COMPOSED, mean_spread(n)), squares_spill(x, over, stored[0]) | vanished)
