"""DALL-E's discrete autoencoder: a picture becomes 32×32 tokens of 8192, each 8×8 pixels, and back.

Paper: Ramesh et al., "Zero-shot text-to-image generation", https://arxiv.org/abs/2102.12092, section 2.1 and appendix
A; sizes and keys are those of the released encoder and decoder.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import one_hot

LOGIT_LAPLACE_EPS = 0.1
"""Pixels are mapped to [ε, 1 − ε] before they are encoded, and back after they are decoded (appendix A.3)."""


@dataclass(frozen=True)
class DiscreteVAEConfig:
    """Sizes; a group of blocks per resolution, of which there are four in the released model.

    Attributes:
        num_codes: tokens that a patch can be.
        hidden: channels of the finest group; each coarser one has twice as many.
        initial: channels of the decoder's first layer.
        num_groups: resolutions; between two of them height and width change twofold.
        blocks_per_group: residual blocks of one resolution.
        image_channels: of the picture.
    """

    num_codes: int = 8192
    hidden: int = 256
    initial: int = 128
    num_groups: int = 4
    blocks_per_group: int = 2
    image_channels: int = 3

    @property
    def factor(self) -> int:
        """Height and width of the patch that a token stands for."""
        return 2 ** (self.num_groups - 1)

    @property
    def gain(self) -> float:
        """Of every residual branch: 1 / (number of blocks)²."""
        return 1 / (self.num_groups * self.blocks_per_group) ** 2


def conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)


class Block(nn.Module):
    """Four convolutions in a bottleneck, with little gain, around which the input skips.

    Args:
        in_channels: of the input.
        channels: of the result.
        kernel_sizes: of the four.
        gain: of the branch.
    """

    def __init__(self, in_channels: int, channels: int, kernel_sizes: tuple[int, int, int, int], gain: float) -> None:
        super().__init__()
        inner = channels // 4
        sizes = (in_channels, inner, inner, inner, channels)
        layers = OrderedDict[str, nn.Module]()
        for number, (a, b, kernel) in enumerate(zip(sizes[:-1], sizes[1:], kernel_sizes, strict=True), start=1):
            layers[f"relu_{number}"] = nn.ReLU()
            layers[f"conv_{number}"] = conv(a, b, kernel)
        self.id_path = nn.Identity() if in_channels == channels else conv(in_channels, channels, 1)
        self.res_path = nn.Sequential(layers)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:  # (B, C_in, H, W) -> (B, C, H, W)
        return self.id_path(x) + self.gain * self.res_path(x)


ENCODER_KERNELS = (3, 3, 3, 1)
DECODER_KERNELS = (1, 3, 3, 3)


def group(
    config: DiscreteVAEConfig, sizes: tuple[int, int], kernels: tuple[int, int, int, int], **last: nn.Module
) -> nn.Sequential:
    """Blocks of one resolution, and a change to the next."""
    before, channels = sizes
    layers = OrderedDict[str, nn.Module]()
    for number in range(1, config.blocks_per_group + 1):
        layers[f"block_{number}"] = Block(before if number == 1 else channels, channels, kernels, config.gain)
    return nn.Sequential(OrderedDict([*layers.items(), *last.items()]))


def head(in_channels: int, out_channels: int) -> nn.Sequential:
    """Rectifier and 1×1 convolution."""
    return nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=conv(in_channels, out_channels, 1)))


class DiscreteEncoder(nn.Module):
    """From a picture to the scores of every code at every patch."""

    def __init__(self, config: DiscreteVAEConfig) -> None:
        super().__init__()
        channels = [config.hidden * 2**index for index in range(config.num_groups)]
        layers = OrderedDict[str, nn.Module](input=conv(config.image_channels, config.hidden, 7))
        for index, size in enumerate(channels):
            sizes = (channels[max(index - 1, 0)], size)
            last = {} if index == config.num_groups - 1 else {"pool": nn.MaxPool2d(2)}
            layers[f"group_{index + 1}"] = group(config, sizes, ENCODER_KERNELS, **last)
        layers["output"] = head(channels[-1], config.num_codes)
        self.blocks = nn.Sequential(layers)

    def forward(self, sample: Tensor) -> Tensor:  # (B, 3, H, W) in [0, 1] -> (B, codes, H / f, W / f)
        return self.blocks((1 - 2 * LOGIT_LAPLACE_EPS) * sample + LOGIT_LAPLACE_EPS)


class DiscreteDecoder(nn.Module):
    """From tokens to a picture: the mean of its logit-Laplace distribution; the other channels are its scales."""

    def __init__(self, config: DiscreteVAEConfig) -> None:
        super().__init__()
        self.num_codes = config.num_codes
        self.image_channels = config.image_channels
        channels = [config.hidden * 2**index for index in reversed(range(config.num_groups))]
        layers = OrderedDict[str, nn.Module](input=conv(config.num_codes, config.initial, 1))
        for index, size in enumerate(channels):
            sizes = (config.initial if index == 0 else channels[index - 1], size)
            last = {} if index == config.num_groups - 1 else {"upsample": nn.Upsample(scale_factor=2, mode="nearest")}
            layers[f"group_{index + 1}"] = group(config, sizes, DECODER_KERNELS, **last)
        layers["output"] = head(config.hidden, 2 * config.image_channels)
        self.blocks = nn.Sequential(layers)

    def forward(self, codes: Tensor) -> Tensor:  # (B, h, w) integers -> (B, 3, f h, f w) in [0, 1]
        first = self.blocks[0]
        hot = one_hot(codes, self.num_codes).permute(0, 3, 1, 2).to(next(first.parameters()).dtype)  # (B, codes, h, w)
        pixels = self.blocks(hot)[:, : self.image_channels].sigmoid()
        return ((pixels - LOGIT_LAPLACE_EPS) / (1 - 2 * LOGIT_LAPLACE_EPS)).clamp(0, 1)
