"""Float32 values as narrower hardware holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import ml_dtypes
import numpy as np

from ...operators.scale import Array
from ..fingerprint import round_to_bits


def tf32(x: Array) -> Array:
    """Ten fraction bits and float32's exponents."""
    return round_to_bits(x, 10).astype(np.float32)


def bf16(x: Array) -> Array:
    """Seven fraction bits and float32's exponents."""
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)


def fp16(x: Array) -> Array:
    """Ten fraction bits and five of exponent: overflows above 65,504."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float32)


def fp8(x: Array) -> Array:
    """Three fraction bits."""
    return x.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)


def int8(x: Array) -> Array:
    """255 steps over the tensor's range."""
    step = np.float32(np.abs(x).max(initial=0) / 127) or np.float32(1)
    return np.rint(x / step) * step


NARROW: Mapping[str, Callable[[Array], Array]] = {"TF32": tf32, "BF16": bf16, "FP16": fp16, "FP8": fp8, "INT8": int8}
