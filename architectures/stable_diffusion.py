"""Stable Diffusion 1.x: latent diffusion whose prompts are read by CLIP's text encoder.

Paper: Rombach, Blattmann, Lorenz, Esser, Ommer, "High-resolution image synthesis with latent diffusion models",
https://arxiv.org/abs/2112.10752; the sizes are those of the published v1 checkpoints. Keys are those of diffusers;
CompVis files fit too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ._activations import find_activation
from ._autoencoder import AutoencoderConfig
from ._compvis import compvis_layout, diffusers_layout
from ._diffusers_config import autoencoder_config, noise_schedule, part, unet_config
from ._noise_unet import UNetConfig
from ._schedule import LATENT_SCHEDULE
from ._text_encoders import ClipTextConfig, ClipTextEncoder
from ._text_to_image import TextToImage, TextToImageConfig, component_graphs, picture_generation
from .registry import architecture
from .specification import PLAIN, CheckpointLayout, GraphSpec, PictureGeneration


@dataclass(frozen=True)
class StableDiffusionConfig(TextToImageConfig):
    """Sizes of the text encoder and of the rest."""

    text: ClipTextConfig = field(default_factory=ClipTextConfig)


TINY = StableDiffusionConfig(
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
    text=ClipTextConfig(
        vocab_size=31,
        num_positions=12,
        embed_dim=12,
        num_layers=2,
        num_heads=2,
        hidden_dim=24,
        start_token_id=29,
        end_token_id=30,
        pad_token_id=30,
    ),
)


def stable_diffusion_graphs(config: StableDiffusionConfig) -> tuple[GraphSpec, ...]:
    """Text encoder, U-Net, and the autoencoder's two sides."""
    return component_graphs(config.text, config.unet, config.vae)


def stable_diffusion_generation(config: StableDiffusionConfig) -> PictureGeneration:
    """The prompt's picture."""
    return picture_generation(config.text, config)


def stable_diffusion_config(content: Mapping[str, Any]) -> StableDiffusionConfig:
    """The config of a diffusers folder.

    Raises:
        InvalidArgumentError: a part is missing, or a setting that is not built.
    """
    text, vae = part(content, "text_encoder"), part(content, "vae")
    find_activation(text.get("hidden_act", "quick_gelu"))
    vocab_size = text.get("vocab_size", 49408)
    clip = ClipTextConfig(
        vocab_size=vocab_size,
        num_positions=text.get("max_position_embeddings", 77),
        embed_dim=text.get("hidden_size", 512),
        num_layers=text.get("num_hidden_layers", 12),
        num_heads=text.get("num_attention_heads", 8),
        hidden_dim=text.get("intermediate_size", 2048),
        activation=text.get("hidden_act", "quick_gelu"),
        epsilon=text.get("layer_norm_eps", 1e-5),
        start_token_id=vocab_size - 2,  # the published config.json names others, which no prompt was trained with
        end_token_id=vocab_size - 1,
        pad_token_id=vocab_size - 1,
    )
    return StableDiffusionConfig(
        unet_config(part(content, "unet")),
        autoencoder_config(vae),
        noise_schedule(content.get("scheduler", {}), LATENT_SCHEDULE),
        vae.get("scaling_factor", 0.18215),
        latent_size=content["unet"].get("sample_size") or 64,
        text=clip,
    )


TEXT_MODEL = r"^text_encoder\.(?:text_model\.)?"
DIFFUSERS = diffusers_layout(
    {
        "unet": "unet/diffusion_pytorch_model.safetensors",
        "vae": "vae/diffusion_pytorch_model.safetensors",
        "text_encoder": "text_encoder/model.safetensors",
    },
    renames=((TEXT_MODEL, "text_encoder."),),
    restores=((r"^text_encoder\.", "text_encoder.text_model."),),
)


def _compvis(name: str, config: StableDiffusionConfig) -> CheckpointLayout:
    text = tuple((f"text_model.{key}", key) for key in ("embeddings", "encoder", "final_layer_norm"))
    return compvis_layout(name, config.unet, config.vae, text)


@architecture(
    "stable-diffusion",
    paper="https://arxiv.org/abs/2112.10752",
    presets={"published": StableDiffusionConfig(), "tiny": TINY},
    graphs=stable_diffusion_graphs,
    parameters=1_066_235_307,
    checkpoints=(DIFFUSERS, _compvis("compvis", StableDiffusionConfig()), _compvis("compvis (tiny)", TINY), PLAIN),
    from_pretrained_config=stable_diffusion_config,
    generation=stable_diffusion_generation,
)
def build_stable_diffusion(config: StableDiffusionConfig) -> TextToImage:
    """The module of a config."""
    return TextToImage(ClipTextEncoder(config.text), config)
