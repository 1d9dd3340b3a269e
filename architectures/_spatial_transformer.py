"""Spatial transformer: pixels look at one another, then at the words of the prompt.

Paper: Rombach et al., "High-resolution image synthesis with latent diffusion models",
https://arxiv.org/abs/2112.10752, section 3.3 and appendix E.2.1. Keys are those of diffusers and CompVis.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

NORM_EPS = 1e-6


class CrossAttention(nn.Module):
    """Multi-head attention whose keys and values come from `context`; q, k and v without bias."""

    def __init__(self, channels: int, context_channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_channels, channels, bias=False)
        self.to_v = nn.Linear(context_channels, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:  # (B, T, C), (B, S, E) -> (B, T, C)
        q = self.split(self.to_q(x))  # (B, heads, T, D)
        k = self.split(self.to_k(context))  # (B, heads, S, D)
        v = self.split(self.to_v(context))  # (B, heads, S, D)
        return self.to_out[0](scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # (B, T, C)

    def split(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, heads, T, D)
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class GatedGelu(nn.Module):
    """One half of a linear layer's result, gated by the GELU of the other."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, hidden)
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * gelu(gate)


class FeedForward(nn.Module):
    """Gated linear layer to four times the channels, linear layer back; `net.1` is the dropout of training."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GatedGelu(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention, attention to the words, feed-forward: each on a normalised input, each added."""

    def __init__(self, channels: int, context_channels: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = CrossAttention(channels, channels, num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = CrossAttention(channels, context_channels, num_heads)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:  # (B, T, C), (B, S, E) -> (B, T, C)
        pixels = self.norm1(x)
        x = x + self.attn1(pixels, pixels)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """A picture as a sequence of pixels through `depth` transformer blocks, and added to itself."""

    def __init__(self, channels: int, context_channels: int, num_heads: int, num_groups: int, depth: int = 1) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(num_groups, channels, NORM_EPS)
        self.proj_in = nn.Conv2d(channels, channels, kernel_size=1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, context_channels, num_heads) for _ in range(depth)
        )
        self.proj_out = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:  # (B, C, H, W), (B, S, E) -> (B, C, H, W)
        pixels = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)  # (B, HW, C)
        for block in self.transformer_blocks:
            pixels = block(pixels, context)
        return x + self.proj_out(pixels.transpose(1, 2).reshape(x.shape))  # (B, C, H, W)
