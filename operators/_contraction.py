"""Sums of products: matrix products in float64 and float32, of values and of absolute values, in one pass over weights.

Everything that multiplies matrices goes through here, so that a float32 weight of any size is converted block by block
and never held twice, and so that a value and its magnitude |a|·|b| share the reading and gathering of operands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .mapped import give_back_array
from .parallel import for_each
from .scale import Array

BLOCK_ELEMENTS = 1 << 20
"""A block of a converted operand: 8 MiB in float64."""

DType = np.dtype[Any] | type[np.floating[Any]]


@dataclass(frozen=True)
class Pass:
    """One of the products that are computed together: in which precision, and whether of absolute values."""

    precision: DType = np.float64
    absolute: bool = False

    def of(self, x: Array) -> Array:
        """An operand as this pass takes it."""
        if x.dtype != self.precision:
            return self.into(np.empty(x.shape, self.precision), x)
        return np.abs(x) if self.absolute else x

    def into(self, out: Array, x: Array) -> Array:
        """Write an operand as this pass takes it into an array of its shape and of this precision."""
        np.copyto(out, x, casting="unsafe")
        return np.abs(out, out=out) if self.absolute else out


VALUE = Pass()
MAGNITUDE = Pass(np.float32, absolute=True)
WIDE_MAGNITUDE = Pass(np.float64, absolute=True)


def converted(x: Array, single: Pass) -> Array:
    """An operand as a pass takes it, a large one by blocks of its first axis on all cores."""
    if x.size <= BLOCK_ELEMENTS or (x.dtype == single.precision and not single.absolute):
        return single.of(x)
    out = np.empty(x.shape, single.precision)
    step = max(1, len(x) * BLOCK_ELEMENTS // x.size)

    def block(start: int) -> None:
        single.into(out[start : start + step], x[start : start + step])

    for_each(block, range(0, len(x), step))
    return out


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
    return products_in_passes(a, b, (Pass(precision),))[0]


def products_in_passes(a: Array, b: Array, passes: Sequence[Pass]) -> list[Array]:
    """`a @ b` once per pass, floating-point operands; a large stored `b` is read once, in blocks."""
    if b.ndim == MATRIX and a.ndim >= 1 and b.size > BLOCK_ELEMENTS:
        few_rows = a.size <= FEW_ROWS * b.shape[0]
        if few_rows or any(b.dtype != p.precision for p in passes):
            return _blockwise(a, b, passes)
    return [np.matmul(p.of(a), p.of(b)) for p in passes]


MATRIX = 2

FEW_ROWS = 8
"""Rows up to which a product takes as long as reading its matrix, which several threads do faster than BLAS."""


def _blockwise(a: Array, b: Array, passes: Sequence[Pass]) -> list[Array]:
    """Blocks of columns of `b`, converted where they lie: contiguous rows of a transposed view stay contiguous."""
    rows, columns = b.shape
    left = [p.of(a) for p in passes]
    out = [np.empty((*a.shape[:-1], columns), p.precision) for p in passes]
    step = max(1, BLOCK_ELEMENTS // max(rows, 1))

    def block(start: int) -> None:
        part = b[:, start : start + step]
        for p, x, y in zip(passes, left, out, strict=True):
            y[..., start : start + step] = x @ p.of(part)
        give_back_array(part)

    for_each(block, range(0, columns, step))
    return out


def magnitude(compute: Callable[[Pass], Array], operands: Sequence[Array], *, known: Array | None = None) -> Array:
    """The same operator on absolute values, cheaply: in float32 where that neither overflows nor loses a summand.

    Args:
        compute: the operator's value for a pass of absolute values.
        operands: the two that are multiplied, to see whether float32 has the range.
        known: its value for the pass `MAGNITUDE`, where that is computed already.

    Returns:
        An upper bound within a relative 1e-3 in the float32 case, else the float64 value.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is what sends it to float64
        result = compute(MAGNITUDE) if known is None else known
    smallest = result.min(initial=np.inf)
    if np.isfinite(result.max(initial=0.0)) and (smallest > SAFE_SUM or _no_underflow(operands)):
        return result * np.float32(1 + 2.0**-10)
    return compute(WIDE_MAGNITUDE)


SMALLEST_PRODUCT = 1e-37
"""Products above it are normal numbers of float32."""

SAFE_SUM = 1e-28
"""Above it, float32 products that underflow (each below 1e-38) cannot be missed in a sum of fewer than 10^7."""


def _no_underflow(operands: Sequence[Array]) -> bool:
    """Whether no product of non-zero elements falls below float32's normal range."""
    return math.prod(map(_smallest, operands)) > SMALLEST_PRODUCT


def _smallest(x: Array) -> float:
    """The smallest size of a nonzero element, at most 1; read in blocks, as the elements lie."""
    flat = x.ravel(order="K")
    found = 1.0
    for start in range(0, flat.size, BLOCK_ELEMENTS):
        block = flat[start : start + BLOCK_ELEMENTS]
        sizes = np.abs(block)
        found = min(found, float(sizes[sizes != 0].min(initial=1.0)))
        give_back_array(block)
    return found
