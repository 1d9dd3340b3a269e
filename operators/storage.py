"""Stored types and their float64 values: the one seam between what a runtime stores and what kernels compute with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

from .arrays import Array

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

FLOAT_DTYPES: tuple[np.dtype[Any], ...] = tuple(
    np.dtype(dtype)
    for dtype in (
        np.float64,
        np.float32,
        np.float16,
        ml_dtypes.bfloat16,
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.float8_e4m3fnuz,
        ml_dtypes.float8_e5m2,
        ml_dtypes.float8_e5m2fnuz,
        ml_dtypes.float8_e8m0fnu,
        ml_dtypes.float6_e2m3fn,
        ml_dtypes.float6_e3m2fn,
        ml_dtypes.float4_e2m1fn,
    )
)


@dataclass(frozen=True)
class FloatFormat:
    """What rounding to a stored floating-point type does.

    Attributes:
        fraction_bits: p; half a unit in the last place of a value near 1 is 2^(−1−p).
        smallest_normal: values below it are subnormal.
        smallest_subnormal: the spacing of values there.
        largest: the largest finite value.
        accumulator_bits: fraction bits in which sums are at least accumulated: 23 below float32, else p.
    """

    fraction_bits: int
    smallest_normal: float
    smallest_subnormal: float
    largest: float
    accumulator_bits: int


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether values of `dtype` are floating-point numbers (of any width, complex excluded)."""
    return dtype in FLOAT_DTYPES


@cache
def float_format(dtype: np.dtype[Any]) -> FloatFormat:
    """The format of a floating-point dtype; the real part's for a complex one."""
    if dtype.kind == "c":
        dtype = np.dtype(f"f{dtype.itemsize // 2}")
    info = ml_dtypes.finfo(dtype)
    bits = int(info.nmant)
    return FloatFormat(
        fraction_bits=bits,
        smallest_normal=float(info.smallest_normal),
        smallest_subnormal=float(info.smallest_subnormal),
        largest=float(info.max),
        accumulator_bits=max(bits, 23),
    )


def decode(stored: Array) -> Array:
    """The values of a stored tensor: floats as float64, complex as complex128, everything else untouched."""
    if is_float(stored.dtype):
        return stored.astype(np.float64, copy=False)
    if stored.dtype.kind == "c":
        return stored.astype(np.complex128, copy=False)
    return stored


def encode(values: Array, dtype: np.dtype[Any]) -> Array:
    """Round float64 values to `dtype`, to nearest, ties to even; overflow becomes infinity where the type has it."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(dtype, copy=False)
