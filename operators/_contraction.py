"""Sums of products: blockwise matrix products in float64 or float32, and their magnitudes.

Everything that multiplies matrices goes through `product`, so that a float32 weight of any size is converted block by
block and never held twice, and through `magnitude`, which computes |a|·|b| in float32 where its range suffices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .scale import Array

BLOCK_ELEMENTS = 1 << 20
"""A block of a converted operand: 8 MiB in float64."""

DType = np.dtype[Any] | type[np.floating[Any]]


def product(a: Array, b: Array, *, precision: DType = np.float64) -> Array:
    """`a @ b` by the rules of numpy.matmul, computed in `precision`; integers stay integers.

    Args:
        a: (…, M, K) or (K,), any dtype.
        b: (…, K, N) or (K,), any dtype; float32 operands are converted in blocks.
        precision: float64 or float32.

    Returns:
        (…, M, N), dtype `precision` for floating-point operands, complex128 for complex ones.
    """
    if a.dtype.kind not in "fV" or b.dtype.kind not in "fV":
        return np.matmul(a, b)
    if b.ndim == 2 and a.ndim >= 1 and b.size > BLOCK_ELEMENTS and b.dtype != precision:
        return _blockwise(a.astype(precision, copy=False), b, precision)
    return np.matmul(a.astype(precision, copy=False), b.astype(precision, copy=False))


def _blockwise(a: Array, b: Array, precision: DType) -> Array:
    rows, columns = b.shape
    out = np.zeros((*a.shape[:-1], columns), precision)
    if b.flags.c_contiguous:
        step = max(1, BLOCK_ELEMENTS // columns)
        for start in range(0, rows, step):
            out += a[..., start : start + step] @ b[start : start + step].astype(precision)
        return out
    step = max(1, BLOCK_ELEMENTS // rows)
    for start in range(0, columns, step):
        out[..., start : start + step] = a @ b[:, start : start + step].astype(precision)
    return out


def magnitude(compute: Callable[[Callable[[Array], Array], DType], Array], *operands: Array | None) -> Array:
    """The same operator on absolute values, cheaply: in float32 where that neither overflows nor loses a summand.

    Args:
        compute: called with a function that prepares an operand (absolute value in the precision) and that precision;
            returns the operator's value on the prepared operands.
        operands: what is multiplied, to see whether float32 has the range.

    Returns:
        float64, an upper bound within a relative 1e-3 in the float32 case.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is what sends it to float64
        result = compute(_absolute(np.float32), np.float32)
    smallest = result.min(initial=np.inf)
    if np.isfinite(result.max(initial=0.0)) and (smallest > _SAFE or _no_underflow(operands)):
        return result * (1 + 2.0**-10)
    return compute(_absolute(np.float64), np.float64).astype(np.float64, copy=False)


SMALLEST_PRODUCT = 1e-37
"""Products above it are normal numbers of float32."""

_SAFE = 1e-28
"""Above it, float32 products that underflow (each below 1e-38) cannot be missed in a sum of fewer than 10^7."""


def _absolute(precision: DType) -> Callable[[Array], Array]:
    def prepare(x: Array) -> Array:
        return np.abs(x.astype(precision, copy=False))

    return prepare


def _no_underflow(operands: tuple[Array | None, ...]) -> bool:
    """Whether no product of non-zero elements of the first two operands falls below float32's normal range."""
    smallest = 1.0
    for x in operands[:2]:
        if x is not None:
            nonzero = np.abs(x[x != 0])
            smallest *= float(nonzero.min(initial=1.0))
    return smallest > SMALLEST_PRODUCT
