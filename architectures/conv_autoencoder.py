"""Convolutional autoencoder: convolution, max pool → unpooling, deconvolution.

Paper: Masci, Meier, Cireșan, Schmidhuber, "Stacked convolutional auto-encoders for hierarchical feature extraction"
(2011), https://doi.org/10.1007/978-3-642-21735-7_7: the network for CIFAR-10, filters 100 × 5×5, 150 × 5×5, 200 × 3×3
with a 2×2 max pool after each, here with rectifiers for hyperbolic tangents. The way back unpools with the switches of
the pools (Zeiler, Fergus, https://arxiv.org/abs/1311.2901) and mirrors the filters.
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
class ConvAutoencoderConfig:
    """Sizes: channels and filter sizes of the encoder's stages; filter sizes are odd."""

    in_channels: int = 3
    channels: tuple[int, ...] = (100, 150, 200)
    kernel_sizes: tuple[int, ...] = (5, 5, 3)
    image_size: int = 32

    @property
    def code_size(self) -> int:
        """Height and width of the code."""
        return self.image_size // POOL ** len(self.channels)


class Encoder(nn.Module):
    """Stages of a convolution, a rectifier and a max pool that remembers where its maxima were."""

    def __init__(self, config: ConvAutoencoderConfig) -> None:
        super().__init__()
        sizes = (config.in_channels, *config.channels)
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, kernel_size=k, padding=k // 2)
            for c_in, c_out, k in zip(sizes, sizes[1:], config.kernel_sizes, strict=False)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        # (B, C_in, H, W) -> code (B, C, H / 2^n, W / 2^n), switches of each stage, (B, C_i, H / 2^i, W / 2^i)
        x, switches = image, []
        for conv in self.convs:
            x, places = max_pool2d(conv(x).relu(), POOL, return_indices=True)
            switches.append(places)
        return x, *switches


class Decoder(nn.Module):
    """The encoder backwards: stages of an unpooling and a deconvolution, with rectifiers between."""

    def __init__(self, config: ConvAutoencoderConfig) -> None:
        super().__init__()
        sizes = (config.in_channels, *config.channels)
        self.deconvs = nn.ModuleList(
            nn.ConvTranspose2d(c_in, c_out, kernel_size=k, padding=k // 2)
            for c_out, c_in, k in zip(sizes, sizes[1:], config.kernel_sizes, strict=False)
        )

    def forward(self, code: Tensor, *switches: Tensor) -> Tensor:  # as `Encoder` gives -> (B, C_in, H, W)
        x = code
        for stage in reversed(range(len(self.deconvs))):
            x = self.deconvs[stage](max_unpool2d(x, switches[stage], (POOL, POOL)))
            x = x.relu() if stage else x
        return x


class ConvAutoencoder(nn.Module):
    """Encoder and decoder."""

    def __init__(self, config: ConvAutoencoderConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.multiple = POOL ** len(config.channels)

    def forward(self, image: Tensor) -> Tensor:  # (B, C, H, W), H and W multiples of 2^n -> same
        for side in image.shape[-2:]:
            torch._check(side % self.multiple == 0, lambda: f"height and width are multiples of {self.multiple}")
        return self.decoder(*self.encoder(image))


def conv_autoencoder_graphs(config: ConvAutoencoderConfig) -> tuple[GraphSpec, ...]:
    """Three graphs: the whole, of any height and width that the pools divide; its encoder; its decoder."""
    batch = Axis("batch", 2, sweep=(1, 2, 3))
    size, step = config.image_size, POOL ** len(config.channels)
    sides = (step, 2 * step, size + step)
    image = Port("image", ("batch", config.in_channels, "height", "width"))
    output = Port("reconstruction", ("batch", config.in_channels, "height", "width"))
    axes = (batch, Axis("height", size, sweep=sides), Axis("width", size, sweep=sides))
    picture, code, *switches = _ports(config)
    made = Port("reconstruction", picture.shape)
    return (
        GraphSpec("conv-autoencoder", (image,), (output,), axes),
        GraphSpec("encoder", (picture,), (code, *switches), (batch,), part=lambda module: module.encoder),
        GraphSpec("decoder", (code, *switches), (made,), (batch,), part=lambda module: module.decoder),
    )


def _ports(config: ConvAutoencoderConfig) -> tuple[Port, ...]:
    """Picture, code and switches at the config's own size; a switch lies within the plane that was pooled."""
    size = config.image_size
    picture = Port("image", ("batch", config.in_channels, size, size))
    code = Port("code", ("batch", config.channels[-1], config.code_size, config.code_size))
    switches = []
    for stage, channels in enumerate(config.channels):
        side = size // POOL ** (stage + 1)
        shape = ("batch", channels, side, side)
        switches.append(Port(f"switches.{stage}", shape, "int64", "integers", (POOL * side) ** 2))
    return picture, code, *switches


@architecture(
    "conv-autoencoder",
    paper="https://doi.org/10.1007/978-3-642-21735-7_7",
    presets={
        "published": ConvAutoencoderConfig(),
        "tiny": ConvAutoencoderConfig(1, (4, 6), (3, 3), image_size=16),
    },
    graphs=conv_autoencoder_graphs,
    # encoder 3·100·25 + 100, 100·150·25 + 150, 150·200·9 + 200; decoder the same weights with biases 150, 100, 3
    parameters=1_305_703,
)
def build_conv_autoencoder(config: ConvAutoencoderConfig) -> ConvAutoencoder:
    """The module of a config."""
    return ConvAutoencoder(config)
