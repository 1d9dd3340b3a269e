"""Latent diffusion: "Logo for EuroPython in Prague" → text encoder → U-Net with spatial transformers → decoder.

Paper: Rombach, Blattmann, Lorenz, Esser, Ommer, "High-resolution image synthesis with latent diffusion models",
https://arxiv.org/abs/2112.10752, appendix E.2.1; "published" is the 1.45-billion-parameter text2img-large, and
"text2img256" its smaller sibling with a codebook. Keys are those of diffusers; CompVis files fit too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ._autoencoder import AutoencoderConfig
from ._compvis import compvis_layout, diffusers_layout, word_encoder_pairs
from ._diffusers_config import autoencoder_config, noise_schedule, part, refuse, unet_config
from ._noise_unet import UNetConfig
from ._schedule import LATENT_SCHEDULE, NoiseSchedule
from ._text_encoders import WordEncoder, WordEncoderConfig
from ._text_to_image import TextToImage, TextToImageConfig, component_graphs, picture_generation
from .registry import architecture
from .specification import PLAIN, CheckpointLayout, GraphSpec, PictureGeneration


@dataclass(frozen=True)
class LatentDiffusionConfig(TextToImageConfig):
    """Sizes of the text encoder and of the rest."""

    unet: UNetConfig = field(default_factory=lambda: UNetConfig(context_channels=1280))
    guidance_scale: float = 5.0
    latent_size: int = 32
    text: WordEncoderConfig = field(default_factory=WordEncoderConfig)


TEXT2IMG256 = LatentDiffusionConfig(
    UNetConfig(
        in_channels=3,
        out_channels=3,
        channels=(192, 384, 576, 960),
        attention=(False, True, True, True),
        num_heads=(6, 12, 18, 30),
        context_channels=640,
    ),
    AutoencoderConfig(channels=(128, 256, 512), latent_channels=3, num_codes=8192),
    NoiseSchedule(beta_start=0.0015, beta_end=0.0195, kind="scaled_linear", steps_offset=1),
    latent_scale=1.0,
    latent_size=64,
    text=WordEncoderConfig(embed_dim=640, hidden_dim=2560),
)
"""32 channels a head; the first level does not attend; latents are pixels of a codebook."""

TINY_WORDS = WordEncoderConfig(
    vocab_size=31,
    num_positions=12,
    embed_dim=12,
    num_layers=2,
    num_heads=2,
    head_dim=4,
    hidden_dim=24,
    start_token_id=29,
    end_token_id=30,
)

TINY = LatentDiffusionConfig(
    UNetConfig(
        channels=(8, 16),
        attention=(True, False),
        num_heads=(2, 2),
        context_channels=12,
        layers_per_block=1,
        num_groups=4,
    ),
    AutoencoderConfig(channels=(8, 16), layers_per_block=1, num_groups=4),
    latent_size=8,
    text=TINY_WORDS,
)

TINY256 = LatentDiffusionConfig(
    UNetConfig(
        in_channels=3,
        out_channels=3,
        channels=(8, 16),
        attention=(False, True),
        num_heads=(2, 4),
        context_channels=12,
        layers_per_block=1,
        num_groups=4,
    ),
    AutoencoderConfig(channels=(8, 16), latent_channels=3, num_codes=20, layers_per_block=1, num_groups=4),
    TEXT2IMG256.schedule,
    latent_scale=1.0,
    latent_size=8,
    text=TINY_WORDS,
)


def latent_diffusion_graphs(config: LatentDiffusionConfig) -> tuple[GraphSpec, ...]:
    """Text encoder, U-Net, and the autoencoder's two sides."""
    return component_graphs(config.text, config.unet, config.vae)


def latent_diffusion_generation(config: LatentDiffusionConfig) -> PictureGeneration:
    """The prompt's picture."""
    return picture_generation(config.text, config)


def latent_diffusion_config(content: Mapping[str, Any]) -> LatentDiffusionConfig:
    """The config of a diffusers folder: `bert` (an `LDMBertModel`), `unet`, `vqvae` or `vae`.

    Raises:
        InvalidArgumentError: a part is missing, or a setting that is not built.
    """
    text = part(content, "bert")
    refuse("bert", text, activation_function="gelu")
    words = WordEncoderConfig(
        vocab_size=text.get("vocab_size", 30522),
        num_positions=text.get("max_position_embeddings", 77),
        embed_dim=text.get("d_model", 1280),
        num_layers=text.get("encoder_layers", 32),
        num_heads=text.get("encoder_attention_heads", 8),
        head_dim=text.get("head_dim", 64),
        hidden_dim=text.get("encoder_ffn_dim", 5120),
    )
    vae = part(content, "vqvae" if "vqvae" in content else "vae")
    return LatentDiffusionConfig(
        unet_config(part(content, "unet")),
        autoencoder_config(vae),
        noise_schedule(content.get("scheduler", {}), LATENT_SCHEDULE),
        vae.get("scaling_factor", 0.18215),
        latent_size=content["unet"].get("sample_size") or 32,
        text=words,
    )


DIFFUSERS = diffusers_layout(
    {
        "unet": "unet/diffusion_pytorch_model.safetensors",
        "vqvae": "vqvae/diffusion_pytorch_model.safetensors",
        "bert": "bert/pytorch_model.bin",
    },
    renames=(
        (r"^vqvae\.", "vae."),
        (r"^bert\.model\.", "text_encoder."),
        (r"^bert\.to_logits\.", "text_encoder.to_logits."),
    ),
    restores=(
        (r"^vae\.", "vqvae."),
        (r"^text_encoder\.to_logits\.", "bert.to_logits."),
        (r"^text_encoder\.", "bert.model."),
    ),
)


def _compvis(name: str, config: LatentDiffusionConfig) -> CheckpointLayout:
    return compvis_layout(name, config.unet, config.vae, tuple(word_encoder_pairs(config.text.num_layers)))


@architecture(
    "latent-diffusion",
    paper="https://arxiv.org/abs/2112.10752",
    presets={
        "published": LatentDiffusionConfig(),
        "text2img256": TEXT2IMG256,
        "tiny": TINY,
        "tiny256": TINY256,
    },
    graphs=latent_diffusion_graphs,
    parameters=1_537_948_389,
    checkpoints=(
        DIFFUSERS,
        _compvis("compvis", LatentDiffusionConfig()),
        _compvis("compvis (text2img256)", TEXT2IMG256),
        _compvis("compvis (tiny)", TINY),
        _compvis("compvis (tiny256)", TINY256),
        PLAIN,
    ),
    from_pretrained_config=latent_diffusion_config,
    generation=latent_diffusion_generation,
)
def build_latent_diffusion(config: LatentDiffusionConfig) -> TextToImage:
    """The module of a config."""
    return TextToImage(WordEncoder(config.text), config)
