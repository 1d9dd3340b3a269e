"""Correct float32 arithmetics that differ in the order of summation: none of them may be called wrong.

MatMul, Gemm and Conv are reduced to products of (…, L, K) and (…, K, M) matrices, and these computed in float32 by
NumPy's BLAS, in blocks of K, from the last product to the first, or one product after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Product = Callable[[Array, Array], Array]

BLOCK = 64


def blas(a: Array, b: Array) -> Array:
    """As NumPy multiplies."""
    return np.matmul(a, b)


def blocked(a: Array, b: Array) -> Array:
    """Partial sums of 64 products, added up in order."""
    total = np.zeros((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), np.float32)
    for start in range(0, a.shape[-1], BLOCK):
        total += np.matmul(a[..., start : start + BLOCK], b[..., start : start + BLOCK, :])
    return total


def reversed_order(a: Array, b: Array) -> Array:
    """From the last product to the first, one block of 64 after the other."""
    return blocked(np.ascontiguousarray(a[..., ::-1]), np.ascontiguousarray(b[..., ::-1, :]))


def sequential(a: Array, b: Array) -> Array:
    """One product after the other into one float32 sum: the order of a naive loop, which errs most."""
    total = np.zeros((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), np.float32)
    for k in range(a.shape[-1]):
        total += a[..., k : k + 1] * b[..., k : k + 1, :]
    return total


ARITHMETICS: Mapping[str, Product] = {
    "numpy": blas,
    "blocked": blocked,
    "reversed": reversed_order,
    "sequential": sequential,
}


def evaluate(op_type: str, inputs: Sequence[Any], attributes: Mapping[str, Any], product: Product) -> Array | None:
    """The output of a MatMul, Gemm or Conv on float32 tensors; None for anything else."""
    function = _OPERATORS.get(op_type)
    if function is None or any(not isinstance(x, Array) or x.dtype != np.float32 for x in inputs if x is not None):
        return None
    return function(*inputs, **attributes, product=product)


def _matmul(a: Array, b: Array, *, product: Product) -> Array:
    left = a[None, :] if a.ndim == 1 else a
    right = b[:, None] if b.ndim == 1 else b
    y = product(left, right)
    y = y[..., 0, :] if a.ndim == 1 else y
    return y[..., 0] if b.ndim == 1 else y


def _gemm(  # noqa: PLR0913 - the operator's attributes
    a: Array,
    b: Array,
    c: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803 - the attribute's name
    transB: int = 0,  # noqa: N803
    product: Product,
) -> Array:
    y = product(a.T if transA else a, b.T if transB else b) * np.float32(alpha)
    return y if c is None else y + np.float32(beta) * c


def _conv(  # noqa: PLR0913 - the operator's attributes
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    product: Product,
) -> Array:
    rank = x.ndim - 2
    strides = [1] * rank if strides is None else strides
    dilations = [1] * rank if dilations is None else dilations
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(w.shape[2:], dilations, strict=True)]
    around = _pads(auto_pad, pads, x.shape[2:], spans, strides)
    padded = np.pad(x, [(0, 0), (0, 0), *around])
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=tuple(range(2, x.ndim)))
    steps = [slice(None, None, step) for step in (*strides, *dilations)]
    windows = windows[(slice(None), slice(None), *steps)]  # (N, C, out…, k…)
    batch, channels, out = *x.shape[:2], windows.shape[2 : 2 + rank]
    grouped = windows.reshape(batch, group, channels // group, *windows.shape[2:])
    order = (0, 1, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
    terms = w[0].size
    a = np.ascontiguousarray(grouped.transpose(order)).reshape(batch, group, -1, terms)
    y = product(a, w.reshape(group, -1, terms).transpose(0, 2, 1))  # (N, group, L, M / group)
    y = y.transpose(0, 1, 3, 2).reshape(batch, w.shape[0], *out)
    return y if b is None else y + b.reshape(-1, *[1] * rank)


def _pads(
    auto_pad: str, pads: Sequence[int] | None, sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int]
) -> list[tuple[int, int]]:
    if auto_pad in ("NOTSET", "VALID"):
        pads = [0] * 2 * len(sizes) if pads is None or auto_pad == "VALID" else pads
        return list(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))
    totals = [
        max((-(-size // step) - 1) * step + span - size, 0)
        for size, span, step in zip(sizes, spans, strides, strict=True)
    ]
    if auto_pad == "SAME_UPPER":
        return [(total // 2, total - total // 2) for total in totals]
    return [(total - total // 2, total // 2) for total in totals]


_OPERATORS: Mapping[str, Callable[..., Array]] = {"MatMul": _matmul, "Gemm": _gemm, "Conv": _conv}
