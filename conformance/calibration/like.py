"""Sums of like summands: how far correct orders of summation differ, which is how much a verdict has to accept.

Within a power of two every addition of the same value to a float32 sum is rounded the same way, so that errors do not
cancel but grow with the number of additions; and by how much depends on the bits of the value and on where the sum
crosses powers of two, which another number of lanes or another size of blocks changes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...operators.scale import Array
from ..witness import ACCEPTED_FLOOR, ACCEPTED_RATIO, observed_error, random_walk

F = np.float32
LENGTHS = (100, 576, 1000, 2304, 4608, 9216, 25088)
PARTS = (2, 3, 5, 7, 8, 12, 16, 24, 49, 64, 100, 147, 200, 256, 320, 384, 512)


def _loop(x: Array) -> float:
    return float(np.add.accumulate(x, dtype=F)[-1])


def ways(x: Array, parts: int) -> Iterator[float]:
    """Correct float32 sums of `x`, in blocks, lanes and stretches."""
    whole = len(x) - len(x) % parts
    rest = x[whole:]
    blocks = np.add.accumulate(x[:whole].reshape(-1, parts), axis=1, dtype=F)[:, -1]
    yield _loop(np.concatenate([blocks, rest]))
    yield _loop(np.concatenate([rest, blocks]))
    yield _loop(np.concatenate([x[:whole].reshape(-1, parts).sum(axis=1, dtype=F), rest]))
    yield _loop(np.concatenate([np.add.accumulate(x[:whole].reshape(-1, parts), axis=0, dtype=F)[-1], rest]))
    yield _loop(np.array([_loop(part) for part in np.array_split(x, parts)], F))


def reach(seeds: int) -> tuple[int, float]:
    """(how many sums, the largest of their errors over what the witness of the same summands has seen).

    Sums that the random walk of their roundings explains by itself count as zero.
    """
    count, largest = 0, 0.0
    for seed, length in ((seed, length) for seed in range(seeds) for length in LENGTHS):
        value = F(np.random.default_rng([seed, length]).uniform(0.5, 1.5))
        terms = np.full((1, length), float(value))
        exact, unit = length * float(value), length * float(value) * 2.0**-24
        seen = float(observed_error(terms)[0]) / unit
        explained = max(ACCEPTED_FLOOR, ACCEPTED_RATIO * float(random_walk(terms)[0]) / unit)
        for parts in (n for n in PARTS if n < length):
            errors = [abs(total - exact) / unit for total in ways(terms[0].astype(F), parts)]
            count += len(errors)
            largest = max(largest, max((error / seen for error in errors if error > explained), default=0.0))
    return count, largest
