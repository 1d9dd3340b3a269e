"""What the distance of two words adds to their score, as T5 learns it.

Paper: Raffel et al., https://arxiv.org/abs/1910.10683, section 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def bucket_starts(num_buckets: int, max_distance: int) -> Iterator[int]:
    """The distances at which the next bucket begins.

    Half of the buckets hold one distance each; the others grow geometrically up to `max_distance`. The published code
    computes the latter in float32 for every pair of words. It is done here once per bucket, in float32 too, so that no
    runtime's logarithm decides on which side of a border a distance lies.
    """
    exact = num_buckets // 2
    yield from range(1, exact + 1)
    distance = torch.arange(exact, max_distance + 1, dtype=torch.float32, device="cpu")
    share = torch.log(distance / exact) / math.log(max_distance / exact)
    bucket = torch.clamp(exact + (share * (num_buckets - exact)).long(), max=num_buckets - 1)
    for number in range(exact + 1, num_buckets):
        yield exact + int((bucket < number).sum())


class RelativeBias(nn.Embedding):
    """What the distance of two words adds to their score, for every head: an embedding of buckets of distances."""

    def __init__(self, num_buckets: int, num_heads: int, max_distance: int, *, bidirectional: bool) -> None:
        super().__init__(num_buckets, num_heads)
        self.bidirectional = bidirectional
        self.one_way = num_buckets // 2 if bidirectional else num_buckets
        self.starts = tuple(bucket_starts(self.one_way, max_distance))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's name; (T, S) -> (1, heads, T, S)
        """The bias where keys stand so far behind their queries (before them: negative)."""
        buckets = self.bucket(input.abs() if self.bidirectional else input.clamp(min=0))
        if self.bidirectional:
            buckets = buckets + (input < 0).long() * self.one_way
        return super().forward(buckets).permute(2, 0, 1)[None]

    def bucket(self, distance: Tensor) -> Tensor:
        """The number of the bucket: how many begin at or before this distance, from a table of all distances."""
        longest = self.starts[-1]
        known = torch.arange(longest + 1, device=distance.device)  # (longest + 1,)
        table = torch.zeros_like(known)
        for start in self.starts:
            table = table + (known >= start).long()
        return table[distance.clamp(max=longest)]
