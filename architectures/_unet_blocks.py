"""Blocks of diffusion's U-Nets and autoencoders: ResBlock, attention over the picture, down- and upsampling.

Papers: Ho et al., https://arxiv.org/abs/2006.11239, appendix B; Rombach et al., https://arxiv.org/abs/2112.10752.
Keys are those of diffusers.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, scaled_dot_product_attention, silu


class ResBlock(nn.Module):
    """Two 3×3 convolutions around which the input skips; the timestep is added between them.

    Args:
        in_channels: of the input.
        channels: of the result; the skip is a 1×1 convolution where they differ.
        time_channels: of the timestep's embedding; None where there is no timestep.
        num_groups: of the normalisations.
        eps: of the normalisations.
    """

    def __init__(self, in_channels: int, channels: int, time_channels: int | None, num_groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups, in_channels, eps)
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1)
        self.time_emb_proj = None if time_channels is None else nn.Linear(time_channels, channels)
        self.norm2 = nn.GroupNorm(num_groups, channels, eps)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.conv_shortcut = None if in_channels == channels else nn.Conv2d(in_channels, channels, kernel_size=1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:  # (B, C_in, H, W), (B, E) -> (B, C, H, W)
        skip = x if self.conv_shortcut is None else self.conv_shortcut(x)
        x = self.conv1(silu(self.norm1(x)))
        if self.time_emb_proj is not None and time is not None:
            x = x + self.time_emb_proj(silu(time))[:, :, None, None]  # (B, C, 1, 1)
        return skip + self.conv2(silu(self.norm2(x)))


class SelfAttention2d(nn.Module):
    """Every pixel looks at every pixel; the result is added."""

    def __init__(self, channels: int, num_heads: int, num_groups: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.group_norm = nn.GroupNorm(num_groups, channels, eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:  # (B, C, H, W) -> (B, C, H, W)
        pixels = self.group_norm(x).flatten(2).transpose(1, 2)  # (B, HW, C)
        q, k, v = (self.split(layer(pixels)) for layer in (self.to_q, self.to_k, self.to_v))  # (B, heads, HW, D)
        found = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # (B, HW, C)
        return x + self.to_out[0](found).transpose(1, 2).reshape(x.shape)  # (B, C, H, W)

    def split(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, heads, T, D)
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class Downsample(nn.Module):
    """Halves height and width by a convolution with stride 2.

    Args:
        channels: of input and result.
        one_sided: pad at the bottom and on the right only, as the autoencoders and Ho et al. do.
    """

    def __init__(self, channels: int, *, one_sided: bool) -> None:
        super().__init__()
        self.one_sided = one_sided
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=0 if one_sided else 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, ⌈H / 2⌉ or ⌊H / 2⌋, …)
        return self.conv(pad(x, (0, 1, 0, 1)) if self.one_sided else x)


class Upsample(nn.Module):
    """Repeats every pixel, then a 3×3 convolution; to twice the size, or to that of the skip which comes next."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:  # (B, C, H, W) -> (B, C, 2 H, 2 W)
        if like is None:
            return self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv(interpolate(x, size=like.shape[2:], mode="nearest"))
