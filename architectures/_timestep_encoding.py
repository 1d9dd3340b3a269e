"""Timestep encoding: the step's number as sines and cosines, then two linear layers.

Papers: Vaswani et al., https://arxiv.org/abs/1706.03762, section 3.5; Ho et al., https://arxiv.org/abs/2006.11239,
appendix B.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

LONGEST_PERIOD = 10_000


class SinusoidalEncoding(nn.Module):
    """Frequencies in geometric progression.

    Args:
        channels: of the result, half sines and half cosines.
        cosine_first: the order of the halves; latent diffusion has the cosines first.
        frequency_shift: 1 makes the last period exactly `LONGEST_PERIOD` (Ho et al.); 0 in latent diffusion.
    """

    def __init__(self, channels: int, *, cosine_first: bool, frequency_shift: int) -> None:
        super().__init__()
        self.channels = channels
        self.cosine_first = cosine_first
        self.frequency_shift = frequency_shift

    def forward(self, timestep: Tensor) -> Tensor:  # (B,) integers -> (B, C), float32
        half = self.channels // 2
        exponents = torch.arange(half, dtype=torch.float32, device=timestep.device) / (half - self.frequency_shift)
        frequencies = torch.exp(-math.log(LONGEST_PERIOD) * exponents)
        angles = timestep.to(torch.float32)[:, None] * frequencies  # (B, C / 2)
        halves = (angles.cos(), angles.sin()) if self.cosine_first else (angles.sin(), angles.cos())
        return torch.cat(halves, dim=1)


class TimestepEmbedding(nn.Module):
    """Linear, SiLU, linear; the encoding is rounded to the network's type only here."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, channels)
        self.linear_2 = nn.Linear(channels, channels)

    def forward(self, encoding: Tensor) -> Tensor:  # (B, C_in) -> (B, C)
        return self.linear_2(silu(self.linear_1(encoding.to(self.linear_1.weight.dtype))))
