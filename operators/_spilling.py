"""Intermediate results that leave the range of the type in which an operator computes.

The specification defines these operators by formulas, many of them as function bodies in the type itself: of 10^30 in
float32 the square is infinite, and so is the root of its sum, although the norm is not. Such elements are left open.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from .rounding import half_unit
from .scale import Array, Scale
from .storage import float_format, is_float

DType = np.dtype[Any]


def opened(scale: Scale, where: Array) -> Scale:
    """The scale with no bound where an intermediate result left its range."""
    if not np.any(where):
        return scale
    return replace(scale, magnitude=np.where(where, np.inf, scale.magnitude))


def unspecified(scale: Scale, where: Array) -> Scale:
    """The scale with no bound where the specification names no value: there even NaN in the reference says nothing."""
    if not np.any(where):
        return scale
    return replace(opened(scale, where), terms=np.where(where, np.inf, scale.terms))


def overflows(size: Array, dtype: DType | None) -> Array:
    """Where a sum whose absolute summands add up to `size` may overflow."""
    if dtype is None or not is_float(dtype):
        return np.zeros(np.shape(size), bool)
    return np.asarray(size >= float_format(dtype).largest)


def squares_spill(x: Array, axes: tuple[int, ...], dtype: DType | None, *, keepdims: bool = True) -> Array:
    """Where the sum of squares over `axes` may overflow."""
    return overflows(np.sum(x * x, axis=axes, keepdims=keepdims), dtype)


def powers_vanish(powers: Array, axes: tuple[int, ...], dtype: DType | None, *, keepdims: bool = True) -> Array:
    """Where so much of a sum of non-negative summands lies below the normal numbers that losing it shows."""
    if dtype is None or not is_float(dtype):
        return np.zeros((), bool)
    form = float_format(dtype)
    total = np.sum(powers, axis=axes, keepdims=keepdims)
    lost = np.sum(np.where(powers < form.smallest_normal, powers, 0), axis=axes, keepdims=keepdims)
    return np.asarray((lost > total * half_unit(form)) | (total == 0))


def stage_type(stash_type: int) -> DType:
    """The dtype that `stash_type` names."""
    return onnx.helper.tensor_dtype_to_np_dtype(stash_type)
