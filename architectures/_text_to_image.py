"""Latent diffusion as a whole: prompt, text encoder, U-Net, decoder; its graphs, and the loop that makes a picture.

Papers: Rombach et al., https://arxiv.org/abs/2112.10752; Song et al., https://arxiv.org/abs/2010.02502 (DDIM); Ho,
Salimans, https://arxiv.org/abs/2207.12598 (classifier-free guidance).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from ._autoencoder import Autoencoder, AutoencoderConfig
from ._noise_unet import NoiseUNet, UNetConfig
from ._schedule import LATENT_SCHEDULE, NoiseSchedule
from ._text_encoders import ClipTextConfig, WordEncoderConfig
from .specification import Axis, GraphSpec, PictureGeneration, Port

Prompt = ClipTextConfig | WordEncoderConfig

DEFAULT_STEPS = 50


@dataclass(frozen=True)
class TextToImageConfig:
    """Sizes of the U-Net and the autoencoder, the schedule, and the scale of the latents.

    Attributes:
        unet: estimates noise.
        vae: between pictures and latents.
        schedule: of the noise.
        latent_scale: what latents are multiplied with, so that their variance is about one.
        guidance_scale: how strongly pictures follow their prompts, unless asked otherwise.
        latent_size: height and width of a latent, unless asked otherwise.
    """

    unet: UNetConfig = field(default_factory=UNetConfig)
    vae: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    schedule: NoiseSchedule = LATENT_SCHEDULE
    latent_scale: float = 0.18215
    guidance_scale: float = 7.5
    latent_size: int = 64


class TextToImage(nn.Module):
    """Three networks under one roof; `forward` makes a picture.

    Args:
        text_encoder: from words to their vectors.
        config: of the rest.
    """

    def __init__(self, text_encoder: nn.Module, config: TextToImageConfig) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = NoiseUNet(config.unet)
        self.vae = Autoencoder(config.vae)
        self.schedule = config.schedule
        self.latent_scale = config.latent_scale
        self.signal = torch.from_numpy(config.schedule.signal()).float()

    def forward(
        self,
        input_ids: Tensor,
        negative_input_ids: Tensor,
        latent: Tensor,
        num_steps: Tensor | int,
        guidance_scale: Tensor | float,
    ) -> Tensor:
        """Subtract estimated noise, step by step, and decode.

        Args:
            input_ids: (B, T), the prompt.
            negative_input_ids: (B, T), what to stay away from; the empty prompt as a rule.
            latent: (B, C, h, w), normal noise.
            num_steps: of the sampler.
            guidance_scale: 1 is the prompt alone; larger stays away from the negative one.

        Returns:
            Pictures (B, 3, f h, f w) in [0, 1].
        """
        words = self.text_encoder(torch.cat([negative_input_ids, input_ids]))  # (2 B, T, C)
        for step, before in self.schedule.timesteps(int(num_steps)):
            noise = self.estimate(latent, step, words, guidance_scale)
            latent = ddim_step(latent, noise, self.signal[step], self.signal[max(before, 0)])
        return (self.vae.decode(latent / self.latent_scale) / 2 + 0.5).clamp(0, 1)

    def estimate(self, latent: Tensor, step: int, words: Tensor, guidance_scale: Tensor | float) -> Tensor:
        """The noise in a latent, guided away from the negative prompt: (B, C, h, w), (2 B, T, C) -> (B, C, h, w)."""
        both = torch.cat([latent, latent])  # (2 B, C, h, w)
        timestep = torch.full((len(both),), step, device=latent.device)
        unconditional, conditional = self.unet(both, timestep, words).chunk(2)
        return unconditional + guidance_scale * (conditional - unconditional)


def ddim_step(sample: Tensor, noise: Tensor, now: Tensor, before: Tensor) -> Tensor:
    """One deterministic step of DDIM (arXiv 2010.02502, eq. 12 with σ = 0).

    Args:
        sample: (B, C, H, W).
        noise: that the network finds in it.
        now: ᾱ at the step, ().
        before: ᾱ at the step before it, ().
    """
    clean = (sample - (1 - now).sqrt().to(sample.dtype) * noise) / now.sqrt().to(sample.dtype)
    return before.sqrt().to(sample.dtype) * clean + (1 - before).sqrt().to(sample.dtype) * noise


class Encoding(nn.Module):
    """The encoder's side of an autoencoder, as a graph of its own."""

    def __init__(self, vae: Autoencoder) -> None:
        super().__init__()
        self.encoder = vae.encoder
        self.quant_conv = vae.quant_conv

    def forward(self, sample: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 2 C or C, H / f, W / f)
        return self.quant_conv(self.encoder(sample))


class Decoding(nn.Module):
    """The decoder's side of an autoencoder, as a graph of its own."""

    def __init__(self, vae: Autoencoder) -> None:
        super().__init__()
        self.quantize = vae.quantize
        self.post_quant_conv = vae.post_quant_conv
        self.decoder = vae.decoder

    def forward(self, latent_sample: Tensor) -> Tensor:  # (B, C, h, w) -> (B, 3, f h, f w)
        latent = latent_sample if self.quantize is None else self.quantize(latent_sample)
        return self.decoder(self.post_quant_conv(latent))


def component_graphs(prompt: Prompt, unet: UNetConfig, vae: AutoencoderConfig) -> tuple[GraphSpec, ...]:
    """Four graphs with the ecosystem's names: text_encoder, unet, vae_encoder, vae_decoder."""
    return (_text_graph(prompt), _unet_graph(prompt, unet), *_vae_graphs(vae))


def _batch() -> Axis:
    return Axis("batch", 2, sweep=(1,))


def _words(prompt: Prompt) -> Axis:
    return Axis("sequence", min(prompt.num_positions, 9), sweep=(1, prompt.num_positions))


def _sides(own: int, *sweep: int) -> tuple[Axis, Axis]:
    return Axis("height", own, sweep=sweep), Axis("width", own, sweep=sweep[:1])


def _text_graph(prompt: Prompt) -> GraphSpec:
    tokens = Port("input_ids", ("batch", "sequence"), "int64", "integers", prompt.vocab_size)
    output = Port("last_hidden_state", ("batch", "sequence", prompt.embed_dim))
    return GraphSpec(
        "text_encoder", (tokens,), (output,), (_batch(), _words(prompt)), part=lambda model: model.text_encoder
    )


def _unet_graph(prompt: Prompt, unet: UNetConfig) -> GraphSpec:
    sample = Port("sample", ("batch", unet.in_channels, "height", "width"))
    timestep = Port("timestep", ("batch",), "int64", "integers", 1000)
    words = Port("encoder_hidden_states", ("batch", "sequence", prompt.embed_dim))
    output = Port("out_sample", sample.shape)
    axes = (_batch(), *_sides(8, 1, 7), _words(prompt))
    return GraphSpec("unet", (sample, timestep, words), (output,), axes, part=lambda model: model.unet)


def _vae_graphs(vae: AutoencoderConfig) -> tuple[GraphSpec, GraphSpec]:
    picture = Port("sample", ("batch", vae.image_channels, "height", "width"))
    parameters = vae.latent_channels * (2 if vae.num_codes is None else 1)
    small = vae.factor
    coded = Port("latent_parameters", ("batch", parameters, f"height/{small}", f"width/{small}"))
    encoder_axes = (_batch(), *_sides(8 * small, small, 7 * small))
    latent = Port("latent_sample", ("batch", vae.latent_channels, "height", "width"))
    decoded = Port("sample", ("batch", vae.image_channels, f"{small}*height", f"{small}*width"))
    decoder_axes = (_batch(), *_sides(8, 1, 7))
    return (
        GraphSpec("vae_encoder", (picture,), (coded,), encoder_axes, part=lambda model: Encoding(model.vae)),
        GraphSpec("vae_decoder", (latent,), (decoded,), decoder_axes, part=lambda model: Decoding(model.vae)),
    )


def picture_generation(prompt: Prompt, config: TextToImageConfig) -> PictureGeneration:
    """How these graphs make pictures."""
    return PictureGeneration(
        "ddim",
        DEFAULT_STEPS,
        config.unet.in_channels,
        config.latent_size,
        config.vae.factor,
        asdict(config.schedule),
        config.latent_scale,
        config.guidance_scale,
        prompt.num_positions,
        prompt.vocab_size,
        prompt.start_token_id,
        prompt.end_token_id,
        prompt.pad_token_id,
    )
