"""The U-Net that estimates the noise in a sample: ResBlocks, timestep encoding, attention, up/down sample, concatenate.

Papers: Ho et al., https://arxiv.org/abs/2006.11239, appendix B; Rombach et al., https://arxiv.org/abs/2112.10752,
appendix E. Without a context it attends to the pixels only; with one its attention is a spatial transformer. Keys are
those of diffusers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ._spatial_transformer import SpatialTransformer
from ._timestep_encoding import SinusoidalEncoding, TimestepEmbedding
from ._unet_blocks import Downsample, ResBlock, SelfAttention2d, Upsample


@dataclass(frozen=True)
class UNetConfig:
    """Sizes; every tuple has one entry per resolution, the finest first.

    Attributes:
        in_channels: of the sample.
        out_channels: of the estimated noise.
        channels: of the levels.
        attention: which levels attend.
        num_heads: of the levels' attention.
        context_channels: of the words; None for a network without a prompt.
        layers_per_block: ResBlocks of a level on the way down; one more on the way up.
        num_groups: of every group normalisation.
        eps: of the ResBlocks' and the last normalisation, and of attention without context.
        cosine_first: order of the timestep encoding's halves.
        frequency_shift: of the timestep encoding.
        one_sided: pad at the bottom and on the right only before downsampling.
    """

    in_channels: int = 4
    out_channels: int = 4
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention: tuple[bool, ...] = (True, True, True, False)
    num_heads: tuple[int, ...] = (8, 8, 8, 8)
    context_channels: int | None = 768
    layers_per_block: int = 2
    num_groups: int = 32
    eps: float = 1e-5
    cosine_first: bool = True
    frequency_shift: int = 0
    one_sided: bool = False

    @property
    def time_channels(self) -> int:
        """Of the timestep's embedding."""
        return 4 * self.channels[0]


@dataclass
class Parts:
    """Builds the parts of one U-Net, all with its normalisation and timestep embedding."""

    config: UNetConfig
    skips: list[int] = field(default_factory=list)

    def resnet(self, in_channels: int, channels: int) -> ResBlock:
        """A ResBlock."""
        return ResBlock(in_channels, channels, self.config.time_channels, self.config.num_groups, self.config.eps)

    def attention(self, level: int) -> nn.Module:
        """Attention at a level."""
        config, channels, heads = self.config, self.config.channels[level], self.config.num_heads[level]
        if config.context_channels is None:
            return SelfAttention2d(channels, heads, config.num_groups, config.eps)
        return SpatialTransformer(channels, config.context_channels, heads, config.num_groups)

    def attentions(self, level: int, count: int) -> nn.ModuleList | None:
        """As many as ResBlocks where the level attends."""
        return nn.ModuleList(self.attention(level) for _ in range(count)) if self.config.attention[level] else None


class DownBlock(nn.Module):
    """One level on the way down; every intermediate result is kept for the way up."""

    def __init__(self, parts: Parts, level: int) -> None:
        super().__init__()
        config = parts.config
        channels = config.channels[level]
        sizes = [config.channels[max(level - 1, 0)], *[channels] * config.layers_per_block]
        self.resnets = nn.ModuleList(parts.resnet(a, b) for a, b in pairwise(sizes))
        self.attentions = parts.attentions(level, config.layers_per_block)
        parts.skips += [channels] * config.layers_per_block
        self.downsamplers = None
        if level < len(config.channels) - 1:
            self.downsamplers = nn.ModuleList([Downsample(channels, one_sided=config.one_sided)])
            parts.skips.append(channels)

    def forward(self, x: Tensor, time: Tensor, context: Tensor | None) -> list[Tensor]:
        # (B, C_in, H, W), (B, E), (B, S, K) -> every (B, C, H, W), the last downsampled
        results = []
        for index, resnet in enumerate(self.resnets):
            x = resnet(x, time)
            x = x if self.attentions is None else self.attentions[index](x, context)
            results.append(x)
        return results if self.downsamplers is None else [*results, self.downsamplers[0](x)]


class MidBlock(nn.Module):
    """ResBlock, attention, ResBlock at the coarsest level."""

    def __init__(self, resnet: Callable[[], ResBlock], attention: nn.Module) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([resnet(), resnet()])
        self.attentions = nn.ModuleList([attention])

    def forward(self, x: Tensor, time: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        # (B, C, H, W), (B, E), (B, S, K) -> (B, C, H, W)
        x = self.attentions[0](self.resnets[0](x, time), context)
        return self.resnets[1](x, time)


class UpBlock(nn.Module):
    """One level on the way up; every ResBlock takes one skip, concatenated along the channels."""

    def __init__(self, parts: Parts, level: int, in_channels: int) -> None:
        super().__init__()
        config = parts.config
        channels, count = config.channels[level], config.layers_per_block + 1
        sizes = [in_channels, *[channels] * (count - 1)]
        self.resnets = nn.ModuleList(parts.resnet(size + parts.skips.pop(), channels) for size in sizes)
        self.attentions = parts.attentions(level, count)
        self.upsamplers = None if level == 0 else nn.ModuleList([Upsample(channels)])

    def forward(self, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor | None) -> Tensor:
        # (B, C_in, H, W), …, (B, E), (B, S, K) -> (B, C, 2 H, 2 W)
        for index, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips.pop()], dim=1), time)
            x = x if self.attentions is None else self.attentions[index](x, context)
        return x if self.upsamplers is None else self.upsamplers[0](x, like=skips[-1])


class NoiseUNet(nn.Module):
    """Estimates the noise in a sample at a step, with a prompt if the config has one."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        first, last, levels = config.channels[0], config.channels[-1], len(config.channels)
        parts = Parts(config, skips=[first])
        self.time_proj = SinusoidalEncoding(
            first, cosine_first=config.cosine_first, frequency_shift=config.frequency_shift
        )
        self.time_embedding = TimestepEmbedding(first, config.time_channels)
        self.conv_in = nn.Conv2d(config.in_channels, first, kernel_size=3, padding=1)
        self.down_blocks = nn.ModuleList(DownBlock(parts, level) for level in range(levels))
        self.mid_block = MidBlock(lambda: parts.resnet(last, last), parts.attention(levels - 1))
        self.up_blocks = nn.ModuleList(_up_blocks(parts))
        self.conv_norm_out = nn.GroupNorm(config.num_groups, first, config.eps)
        self.conv_out = nn.Conv2d(first, config.out_channels, kernel_size=3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor | None = None) -> Tensor:
        # (B, C_in, H, W), (B,), (B, S, K) -> (B, C_out, H, W)
        time = self.time_embedding(self.time_proj(timestep))  # (B, E)
        x = self.conv_in(sample)
        skips = [x]
        for down in self.down_blocks:
            skips += down(skips[-1], time, encoder_hidden_states)
        x = self.mid_block(skips[-1], time, encoder_hidden_states)
        for up in self.up_blocks:
            x = up(x, skips, time, encoder_hidden_states)
        return self.conv_out(silu(self.conv_norm_out(x)))


def _up_blocks(parts: Parts) -> Iterator[UpBlock]:
    """From the coarsest level to the finest."""
    in_channels = parts.config.channels[-1]
    for level in reversed(range(len(parts.config.channels))):
        yield UpBlock(parts, level, in_channels)
        in_channels = parts.config.channels[level]
