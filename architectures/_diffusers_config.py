"""Reading the `config.json` files of diffusers folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidArgumentError
from ._autoencoder import AutoencoderConfig
from ._noise_unet import UNetConfig
from ._schedule import NoiseSchedule

Content = Mapping[str, Any]

ATTENDING = ("CrossAttnDownBlock2D", "AttnDownBlock2D")
PLAIN_DOWN = "DownBlock2D"
KINDS = {"AutoencoderKL": None, "VQModel": 256}


def part(folder: Content, name: str) -> Content:
    """The config of a sub-folder.

    Raises:
        InvalidArgumentError: the folder has none.
    """
    if name not in folder:
        raise InvalidArgumentError(f"no {name}/config.json; found are {', '.join(folder) or 'none'}")
    return folder[name]


def refuse(name: str, content: Content, **built: Any) -> None:
    """Refuse a setting with another value than the one that is built; absent ones have it.

    Raises:
        InvalidArgumentError: names it.
    """
    for key, value in built.items():
        given = content.get(key, value)
        if (tuple(given) if isinstance(given, list) else given) != value:
            raise InvalidArgumentError(f"{name}/config.json: {key} is {given!r}; built is {value!r}")


def unet_config(content: Content, name: str = "unet") -> UNetConfig:
    """The U-Net of a `UNet2DConditionModel` or `UNet2DModel` config.

    Raises:
        InvalidArgumentError: a setting that is not built.
    """
    refuse(
        name, content, act_fn="silu", mid_block_scale_factor=1, use_linear_projection=False, addition_embed_type=None
    )
    refuse(name, content, class_embed_type=None, dual_cross_attention=False, center_input_sample=False)
    refuse(name, content, time_embedding_type="positional", time_embedding_act_fn=None, timestep_post_act=None)
    refuse(name, content, only_cross_attention=False, resnet_time_scale_shift="default", transformer_layers_per_block=1)
    channels = tuple(content.get("block_out_channels", (320, 640, 1280, 1280)))
    attention = _attention(name, content, len(channels))
    context = _number(name, content, "cross_attention_dim", 1280) if _is_conditional(content) else None
    return UNetConfig(
        in_channels=content.get("in_channels", 4),
        out_channels=content.get("out_channels", 4),
        channels=channels,
        attention=attention,
        num_heads=_heads(name, content, channels, context is None),
        context_channels=context,
        layers_per_block=_number(name, content, "layers_per_block", 2),
        num_groups=content.get("norm_num_groups", 32),
        eps=content.get("norm_eps", 1e-5),
        cosine_first=content.get("flip_sin_to_cos", True),
        frequency_shift=content.get("freq_shift", 0),
        one_sided=content.get("downsample_padding", 1) == 0,
    )


def _number(name: str, content: Content, key: str, default: int) -> int:
    """A setting that diffusers allows to differ from level to level."""
    given = content.get(key, default)
    if isinstance(given, (list, tuple)):
        raise InvalidArgumentError(f"{name}/config.json: {key} is {given!r}; built is one number for all levels")
    return given


def _is_conditional(content: Content) -> bool:
    return content.get("_class_name", "UNet2DConditionModel") == "UNet2DConditionModel"


def _attention(name: str, content: Content, levels: int) -> tuple[bool, ...]:
    """Which levels attend, from the kinds of blocks on the way down; the way up must mirror them."""
    down = content.get("down_block_types", (*["CrossAttnDownBlock2D"] * (levels - 1), PLAIN_DOWN))
    strange = [kind for kind in down if kind not in (*ATTENDING, PLAIN_DOWN)]
    if strange:
        allowed = ", ".join((*ATTENDING, PLAIN_DOWN))
        raise InvalidArgumentError(f"{name}/config.json: block {strange[0]!r}; built are {allowed}")
    mirrored = tuple(kind.replace("Down", "Up") for kind in reversed(down))
    refuse(name, content, up_block_types=mirrored)
    return tuple(kind in ATTENDING for kind in down)


def _heads(name: str, content: Content, channels: Sequence[int], is_plain: bool) -> tuple[int, ...]:
    """Heads per level. `attention_head_dim` is channels per head in a U-Net without prompt, and heads in one with."""
    given = content.get("num_attention_heads") or content.get("attention_head_dim", None if is_plain else 8)
    if given is None:
        return (1,) * len(channels)
    listed = [given] * len(channels) if isinstance(given, int) else list(given)
    heads = [size // number if is_plain else number for size, number in zip(channels, listed, strict=True)]
    if any(number < 1 or size % number for size, number in zip(channels, heads, strict=True)):
        raise InvalidArgumentError(f"{name}/config.json: attention_head_dim {given} does not divide {tuple(channels)}")
    return tuple(heads)


def autoencoder_config(content: Content, name: str = "vae") -> AutoencoderConfig:
    """The autoencoder of an `AutoencoderKL` or `VQModel` config.

    Raises:
        InvalidArgumentError: a setting that is not built.
    """
    channels = tuple(content.get("block_out_channels", (64,)))
    refuse(name, content, act_fn="silu", out_channels=content.get("in_channels", 3))
    refuse(name, content, down_block_types=("DownEncoderBlock2D",) * len(channels))
    refuse(name, content, up_block_types=("UpDecoderBlock2D",) * len(channels))
    kind = content.get("_class_name", "AutoencoderKL")
    if kind not in KINDS:
        raise InvalidArgumentError(f"{name}/config.json: {kind!r}; built are {', '.join(KINDS)}")
    is_normal = kind == "AutoencoderKL"
    return AutoencoderConfig(
        channels=channels,
        latent_channels=content.get("latent_channels", 4 if is_normal else 3),
        num_codes=None if is_normal else content.get("num_vq_embeddings", KINDS[kind]),
        layers_per_block=content.get("layers_per_block", 1),
        num_groups=content.get("norm_num_groups", 32),
        image_channels=content.get("in_channels", 3),
    )


def noise_schedule(content: Content, default: NoiseSchedule) -> NoiseSchedule:
    """The schedule of a `scheduler_config.json`; without one, the architecture's own.

    Raises:
        InvalidArgumentError: a schedule, or a kind of prediction, that is not built.
    """
    refuse("scheduler", content, prediction_type="epsilon", trained_betas=None, rescale_betas_zero_snr=False)
    return NoiseSchedule(
        num_train_steps=content.get("num_train_timesteps", default.num_train_steps),
        beta_start=content.get("beta_start", default.beta_start),
        beta_end=content.get("beta_end", default.beta_end),
        kind=content.get("beta_schedule", default.kind),
        steps_offset=content.get("steps_offset", default.steps_offset),
    )
