"""Statistics of interleaved samples: median, p95, the ratio of two sides with its interval, drift.

Two sides are measured in alternating blocks, so block i of one and block i of the other saw the same state of the
machine. The ratio is therefore the median over these pairs of (median of the block / median of the other block): a
machine that slows down midway changes both halves of a pair and leaves their ratio alone, and one disturbed block is
one value among many.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEVEL = 0.95
RESAMPLES = 9_999
SEED = 0
MIN_PAIRS = 6
"""Below six pairs even the whole range of the pairs covers their median with less than 95 %: 1 − 2·0.5^5 = 0.9375."""

_THIRDS = 3
_RESAMPLES_AT_ONCE = 1_000


def median(samples: Sequence[float]) -> float | None:
    """Median, or None of nothing."""
    return float(np.median(samples)) if len(samples) else None


def p95(samples: Sequence[float]) -> float | None:
    """95th percentile by linear interpolation between order statistics, or None of nothing."""
    return float(np.percentile(samples, 95)) if len(samples) else None


def pair_ratios(blocks: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> list[float]:
    """Median of block i over median of the other side's block i, for the pairs that both sides completed."""
    pairs = zip(blocks, other, strict=False)
    return [float(np.median(mine) / np.median(theirs)) for mine, theirs in pairs]


def ratio_interval(
    ratios: Sequence[float], *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the median of `ratios`, pairs of blocks being what is drawn.

    Runs inside a block follow each other and are not independent; pairs of blocks nearly are, so they are resampled
    and not the runs.

    Args:
        ratios: one per pair, as of `pair_ratios`.
        level: confidence level.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        Low and high end, or None below `MIN_PAIRS` pairs.
    """
    if len(ratios) < MIN_PAIRS:
        return None
    rng = np.random.default_rng(seed)
    sizes = [min(_RESAMPLES_AT_ONCE, resamples - start) for start in range(0, resamples, _RESAMPLES_AT_ONCE)]
    medians = [np.median(rng.choice(ratios, (size, len(ratios))), axis=1) for size in sizes]
    low, high = np.quantile(np.concatenate(medians), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def drift(blocks: Sequence[Sequence[float]]) -> float | None:
    """How the machine changed: median of the last third of the blocks over that of the first third; 1 is not at all.

    Returns:
        None with fewer than three blocks.
    """
    third = len(blocks) // _THIRDS
    if third == 0:
        return None
    return float(np.median(np.concatenate(blocks[-third:])) / np.median(np.concatenate(blocks[:third])))
