"""Data on which sums are hard to judge, and correct ways to add them up in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Array = np.ndarray

BLOCK = 64


def signed(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Standard normal: sums cancel to the square root of their summands' number."""
    return rng.standard_normal(shape)


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Nothing cancels: rounding errors of a loop pile up at the size of the result."""
    return np.abs(rng.standard_normal(shape))


def rectified(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Behind a ReLU: half of it zero."""
    return np.maximum(rng.standard_normal(shape), 0)


def wide(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Signs at random, sizes from 2^−20 to 2^20: one summand decides a sum."""
    return rng.choice([-1.0, 1.0], shape) * np.exp2(rng.uniform(-20, 20, shape))


def alternating(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Neighbours in pairs of ±v but for 1e-4: sums cancel nearly to nothing."""
    half = rng.standard_normal((*shape[:-1], (shape[-1] + 1) // 2))
    paired = np.stack([half, -half * (1 + 1e-4 * rng.standard_normal(half.shape))], axis=-1)
    return paired.reshape(*half.shape[:-1], -1)[..., : shape[-1]]


def constant(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """One value everywhere: roundings of a loop all go the same way and are not independent."""
    return np.full(shape, rng.uniform(0.05, 0.15))


# kind: (left operand (…, K), right operand (N, K), transposed by its user)
KINDS: Mapping[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "signed": (signed, signed),
    "positive": (positive, positive),
    "rectified": (rectified, signed),
    "wide": (wide, wide),
    "cancelling": (alternating, lambda rng, shape: 1 + 1e-3 * rng.standard_normal(shape)),
    "constant": (positive, constant),
    "equal": (constant, constant),
}


def matrices(kind: str, rows: int, length: int, columns: int, seed: int) -> tuple[Array, Array]:
    """Float32 operands (rows, length) and (length, columns) of one kind of data."""
    rng = np.random.default_rng([seed, length, columns])
    left, right = KINDS[kind]
    return left(rng, (rows, length)).astype(np.float32), np.ascontiguousarray(
        right(rng, (columns, length)).astype(np.float32).T
    )


def blas(a: Array, b: Array) -> Array:
    return np.matmul(a, b)


def blocked(a: Array, b: Array) -> Array:
    """Partial sums of 64 products by BLAS, added in order."""
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for start in range(0, a.shape[1], BLOCK):
        total += a[:, start : start + BLOCK] @ b[start : start + BLOCK]
    return total


def sequential(a: Array, b: Array) -> Array:
    """One product after the other into one float32 sum."""
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for k in range(a.shape[1]):
        total += a[:, k, None] * b[k]
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
