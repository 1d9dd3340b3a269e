"""Data on which sums are hard to judge; S0 to S5 are the kinds of the published table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ...operators.scale import Array

Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


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
    if not shape:
        return np.asarray(rng.standard_normal())
    half = rng.standard_normal((*shape[:-1], (shape[-1] + 1) // 2))
    paired = np.stack([half, -half * (1 + 1e-4 * rng.standard_normal(half.shape))], axis=-1)
    return paired.reshape(*half.shape[:-1], -1)[..., : shape[-1]]


def nearly_one(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Weights that keep pairs cancelling."""
    return 1 + 1e-3 * rng.standard_normal(shape)


def constant(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """One value everywhere: roundings of a loop all go the same way and are not independent."""
    return np.full(shape, rng.uniform(0.05, 0.15))


def dominated(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """One, and beside it uniform values over √K: Arm TOSA's test set for lost low bits (x[0] = 1)."""
    if not shape:
        return np.ones(())
    x = rng.uniform(-1, 1, shape) / np.sqrt(shape[-1])
    x[..., 0] = 1
    return x


Pair = tuple[Draw, Draw]

# kind: (left operand (…, K), right operand (N, K), transposed by its user)
KINDS: Mapping[str, Pair] = {
    "signed": (signed, signed),
    "positive": (positive, positive),
    "wide": (wide, wide),
    "cancelling": (alternating, nearly_one),
    "constant": (positive, constant),
    "dominated": (dominated, dominated),
    "rectified": (rectified, signed),
    "equal": (constant, constant),
}

TITLES: Mapping[str, str] = {
    "signed": "S0 signed",
    "positive": "S1 positive",
    "wide": "S2 wide range",
    "cancelling": "S3 cancelling",
    "constant": "S4 constant",
    "dominated": "S5 TOSA-like",
    "rectified": "rectified",
    "equal": "equal",
}

LENGTHS = (1, 2, 3, 5, 9, 16, 27, 64, 144, 256, 576, 1024, 2304, 4608, 9216, 25088)
"""K: from one product to the first dense layer of VGG-16."""

QUICK_LENGTHS = (1, 16, 147)


def lengths(quick: bool, most: int = LENGTHS[-1], least: int = 1) -> Sequence[int]:
    """The lengths of a run between two limits."""
    return [n for n in (QUICK_LENGTHS if quick else LENGTHS) if least <= n <= most]


def tensor(kind: str, shape: tuple[int, ...], *seed: int, right: bool = False) -> Array:
    """A float32 tensor of one kind; the last axis is what pairs and dominating values lie along."""
    draw = KINDS[kind][int(right)]
    return draw(np.random.default_rng([*seed, *shape, len(shape)]), shape).astype(np.float32)


def matrices(kind: str, rows: int, length: int, columns: int, seed: int) -> tuple[Array, Array]:
    """Float32 operands (rows, length) and (length, columns) of one kind of data."""
    rng = np.random.default_rng([seed, length, columns])
    left, right = KINDS[kind]
    return left(rng, (rows, length)).astype(np.float32), np.ascontiguousarray(
        right(rng, (columns, length)).astype(np.float32).T
    )
