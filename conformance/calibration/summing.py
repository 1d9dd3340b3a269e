"""Correct ways to multiply float32 matrices: the same products, added in different orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ...operators.scale import Array

BLOCK = 64


def blas(a: Array, b: Array) -> Array:
    """As the library of this machine does."""
    return np.matmul(a, b)


def blocked(a: Array, b: Array) -> Array:
    """Partial sums of 64 products by BLAS, added in order."""
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for start in range(0, a.shape[1], BLOCK):
        total += a[:, start : start + BLOCK] @ b[start : start + BLOCK]
    return total


def sequential(a: Array, b: Array) -> Array:
    """One product after the other into one float32 sum."""
    total = np.empty((a.shape[0], b.shape[1]), np.float32)
    for row, out in zip(a, total, strict=True):
        out[:] = np.add.accumulate(row[:, None] * b, axis=0)[-1] if row.size else 0
    return total


def backwards(a: Array, b: Array) -> Array:
    """The same from the last product to the first."""
    return sequential(a[:, ::-1], b[::-1])


def shuffled(a: Array, b: Array) -> Array:
    """The same in a random order."""
    order = np.random.default_rng(a.shape[1]).permutation(a.shape[1])
    return sequential(a[:, order], b[order])


def fused(a: Array, b: Array) -> Array:
    """Fused multiply-add: exact products, the sum rounded to float32 after each."""
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for k in range(a.shape[1]):
        total = (total + wide_a[:, k, None] * wide_b[k]).astype(np.float32)
    return total


def pairwise(a: Array, b: Array) -> Array:
    """A binary tree over the products."""
    rows = []
    for row in a:
        level = row[:, None] * b
        while len(level) > 1:
            odd = level[-1:] if len(level) % 2 else level[:0]
            level = np.concatenate([level[0 : len(level) - len(odd) : 2] + level[1::2], odd])
        rows.append(level[0])
    return np.stack(rows)


def lanes(a: Array, b: Array) -> Array:
    """Sixteen sums side by side, joined at the end, as vector units do."""
    padded = -a.shape[1] % 16
    a = np.pad(a, ((0, 0), (0, padded)))
    b = np.pad(b, ((0, padded), (0, 0)))
    total = np.zeros((16, a.shape[0], b.shape[1]), np.float32)
    for k in range(0, a.shape[1], 16):
        total += a.T[k : k + 16, :, None] * b[k : k + 16, None, :]
    return sequential(np.ones((1, 16), np.float32), total.reshape(16, -1)).reshape(total.shape[1:])


ORDERS: Mapping[str, Callable[[Array, Array], Array]] = {
    "blas": blas,
    "blocked": blocked,
    "sequential": sequential,
    "backwards": backwards,
    "shuffled": shuffled,
    "fused": fused,
    "pairwise": pairwise,
    "lanes": lanes,
}
