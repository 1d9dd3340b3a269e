"""Autoencoders of latent diffusion: between pixels and a smaller picture of a few channels in which diffusion works.

Paper: Rombach et al., https://arxiv.org/abs/2112.10752, section 3.1 and appendix E. One has a normal distribution as
its bottleneck (KL), the other a codebook (VQ, van den Oord et al., https://arxiv.org/abs/1711.00937). Keys are those of
diffusers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import silu

from ._noise_unet import MidBlock
from ._unet_blocks import Downsample, ResBlock, SelfAttention2d, Upsample

EPS = 1e-6


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes; `channels` has one entry per resolution, the finest first.

    Attributes:
        channels: of the levels; each but the last halves height and width.
        latent_channels: of the smaller picture.
        num_codes: size of the codebook; None for the normal distribution.
        layers_per_block: ResBlocks of a level of the encoder; one more in the decoder.
        num_groups: of every group normalisation.
        image_channels: of the picture.
    """

    channels: tuple[int, ...] = (128, 256, 512, 512)
    latent_channels: int = 4
    num_codes: int | None = None
    layers_per_block: int = 2
    num_groups: int = 32
    image_channels: int = 3

    @property
    def factor(self) -> int:
        """How many times smaller than the picture a latent is in height and width."""
        return 2 ** (len(self.channels) - 1)


class Level(nn.Module):
    """ResBlocks of one resolution, and a change to the next."""

    def __init__(self, resnets: list[ResBlock], *, down: nn.Module | None = None, up: nn.Module | None = None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.downsamplers = None if down is None else nn.ModuleList([down])
        self.upsamplers = None if up is None else nn.ModuleList([up])

    def forward(self, x: Tensor) -> Tensor:  # (B, C_in, H, W) -> (B, C, H', W')
        for layer in (*self.resnets, *(self.downsamplers or ()), *(self.upsamplers or ())):
            x = layer(x)
        return x


def _resnets(sizes: list[int], num_groups: int) -> list[ResBlock]:
    return [ResBlock(a, b, None, num_groups, EPS) for a, b in pairwise(sizes)]


def _middle(channels: int, num_groups: int) -> MidBlock:
    attention = SelfAttention2d(channels, 1, num_groups, EPS)
    return MidBlock(lambda: ResBlock(channels, channels, None, num_groups, EPS), attention)


class Encoder(nn.Module):
    """From a picture to the parameters of its latent."""

    def __init__(self, config: AutoencoderConfig, out_channels: int) -> None:
        super().__init__()
        channels, groups = config.channels, config.num_groups
        before = (channels[0], *channels[:-1])
        self.conv_in = nn.Conv2d(config.image_channels, channels[0], kernel_size=3, padding=1)
        self.down_blocks = nn.ModuleList(
            Level(
                _resnets([before[level], *[size] * config.layers_per_block], groups),
                down=Downsample(size, one_sided=True) if level < len(channels) - 1 else None,
            )
            for level, size in enumerate(channels)
        )
        self.mid_block = _middle(channels[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, channels[-1], EPS)
        self.conv_out = nn.Conv2d(channels[-1], out_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H / f, W / f)
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        return self.conv_out(silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """From a latent to a picture."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        channels, groups = config.channels[::-1], config.num_groups
        before = (channels[0], *channels[:-1])
        self.conv_in = nn.Conv2d(config.latent_channels, channels[0], kernel_size=3, padding=1)
        self.mid_block = _middle(channels[0], groups)
        self.up_blocks = nn.ModuleList(
            Level(
                _resnets([before[level], *[size] * (config.layers_per_block + 1)], groups),
                up=Upsample(size) if level < len(channels) - 1 else None,
            )
            for level, size in enumerate(channels)
        )
        self.conv_norm_out = nn.GroupNorm(groups, channels[-1], EPS)
        self.conv_out = nn.Conv2d(channels[-1], config.image_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, h, w) -> (B, 3, f h, f w)
        x = self.mid_block(self.conv_in(x))
        for level in self.up_blocks:
            x = level(x)
        return self.conv_out(silu(self.conv_norm_out(x)))


class Quantizer(nn.Module):
    """The nearest vector of a codebook in place of every pixel."""

    def __init__(self, num_codes: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_codes, channels)

    def forward(self, latent: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C, h, w)
        pixels = latent.permute(0, 2, 3, 1)  # (B, h, w, C)
        codes = self.embedding.weight
        scores = 2 * pixels @ codes.t() - codes.square().sum(dim=1)  # (B, h, w, codes): |pixel|² − |pixel − code|²
        return self.embedding(scores.argmax(dim=-1)).permute(0, 3, 1, 2)


class Autoencoder(nn.Module):
    """Encoder, bottleneck, decoder."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        channels, is_normal = config.latent_channels, config.num_codes is None
        parameters = 2 * channels if is_normal else channels  # mean and log-variance
        self.encoder = Encoder(config, parameters)
        self.decoder = Decoder(config)
        self.quantize = None if config.num_codes is None else Quantizer(config.num_codes, channels)
        self.quant_conv = nn.Conv2d(parameters, parameters, kernel_size=1)
        self.post_quant_conv = nn.Conv2d(channels, channels, kernel_size=1)

    def encode(self, sample: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 2 C or C, H / f, W / f)
        return self.quant_conv(self.encoder(sample))

    def decode(self, latent_sample: Tensor) -> Tensor:  # (B, C, h, w) -> (B, 3, f h, f w)
        latent = latent_sample if self.quantize is None else self.quantize(latent_sample)
        return self.decoder(self.post_quant_conv(latent))

    def forward(self, sample: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 3, H, W), from the mean of the distribution
        parameters = self.encode(sample)
        mean = parameters if self.quantize is not None else parameters.chunk(2, dim=1)[0]
        return self.decode(mean)
