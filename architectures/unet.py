"""Convolutional U-Net: convolution, max pool → unpooling, deconvolution, concatenated skips.

Paper: Ronneberger, Fischer, Brox, "U-Net: convolutional networks for biomedical image segmentation",
https://arxiv.org/abs/1505.04597, figure 1: two 3×3 convolutions a level, 64 to 1024 channels, four levels down and up,
one channel in, two classes out. As the talk draws it, the way up unpools with the switches of the pools and then
deconvolves, where the paper has a 2×2 deconvolution of stride 2; therefore the second convolution of a level already
has the channels of the level above. Convolutions are padded, so that a level and its skip have one size and nothing is
cropped (the paper's 572 pixels in become 388 out; here the sizes are equal, and multiples of 16).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, max_unpool2d

from .registry import architecture
from .specification import Axis, GraphSpec, Port

POOL = 2


@dataclass(frozen=True)
class UNetConfig:
    """Sizes: channels of the levels, from the top to the bottom; of the pictures, that of the test data."""

    in_channels: int = 1
    channels: tuple[int, ...] = (64, 128, 256, 512, 1024)
    num_classes: int = 2
    image_size: int = 128


class ConvPair(nn.Module):
    """Two 3×3 convolutions, each with a rectifier."""

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(channels, out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C_in, H, W) -> (B, C_out, H, W)
        return self.conv2(self.conv1(x).relu()).relu()


class Up(nn.Module):
    """Unpooling with switches, a deconvolution, the skip beside it, two convolutions."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.deconv = nn.ConvTranspose2d(channels, channels, kernel_size=3, padding=1)
        self.convs = ConvPair(2 * channels, channels, out_channels)

    def forward(self, x: Tensor, switches: Tensor, skip: Tensor) -> Tensor:
        # (B, C, H / 2, W / 2) twice, (B, C, H, W) -> (B, C_out, H, W)
        x = max_unpool2d(x, switches, (POOL, POOL), output_size=skip.shape[-2:])  # (B, C, H, W)
        return self.convs(torch.cat((self.deconv(x).relu(), skip), dim=1))


class UNet(nn.Module):
    """Down the levels, through the bottom, and up again with what was seen on the way."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        *levels, bottom = config.channels
        self.multiple = POOL ** len(levels)
        above = (config.in_channels, *levels)
        self.down = nn.ModuleList(ConvPair(c_in, c, c) for c_in, c in zip(above, levels, strict=False))
        self.bottom = ConvPair(levels[-1], bottom, levels[-1])
        outs = (levels[0], *levels[:-1])
        self.up = nn.ModuleList(Up(c, c_out) for c, c_out in zip(levels, outs, strict=True))
        self.head = nn.Conv2d(levels[0], config.num_classes, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:  # (B, C, H, W) -> (B, classes, H, W), H and W multiples of 2^levels
        for side in image.shape[-2:]:
            torch._check(side % self.multiple == 0, lambda: f"height and width are multiples of {self.multiple}")
        x, seen = image, []
        for level in self.down:
            skip = level(x)  # (B, C_i, H / 2^i, W / 2^i)
            x, switches = max_pool2d(skip, POOL, return_indices=True)
            seen.append((switches, skip))
        x = self.bottom(x)
        for level, (switches, skip) in zip(reversed(self.up), reversed(seen), strict=True):
            x = level(x, switches, skip)
        return self.head(x)


def unet_graphs(config: UNetConfig) -> tuple[GraphSpec, ...]:
    """One graph: image (B, C, H, W) to a score per pixel and class (B, classes, H, W)."""
    image = Port("image", ("batch", config.in_channels, "height", "width"))
    logits = Port("logits", ("batch", config.num_classes, "height", "width"))
    size, step = config.image_size, POOL ** (len(config.channels) - 1)
    sides = (step, 2 * step, size - step)
    axes = (
        Axis("batch", 1, sweep=(1, 2, 3)),
        Axis("height", size, sweep=sides),
        Axis("width", size, sweep=sides),
    )
    return (GraphSpec("unet", (image,), (logits,), axes),)


@architecture(
    "unet",
    paper="https://arxiv.org/abs/1505.04597",
    presets={"published": UNetConfig(), "tiny": UNetConfig(1, (4, 6, 8), num_classes=3, image_size=16)},
    graphs=unet_graphs,
    # down 640 + 36928, 73856 + 147584, 295168 + 590080, 1180160 + 2359808; bottom 4719616 + 4719104; up, of each level
    # deconvolution and pair: 2359808 + 4719104 + 1179904, 590080 + 1179904 + 295040, 147584 + 295040 + 73792,
    # 36928 + 73792 + 36928; head 130
    parameters=25_110_978,
)
def build_unet(config: UNetConfig) -> UNet:
    """The module of a config."""
    return UNet(config)
