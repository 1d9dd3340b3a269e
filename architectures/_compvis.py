"""Keys of CompVis checkpoints (latent diffusion, Stable Diffusion 1.x) and of diffusers folders.

CompVis numbers the blocks of a network one after another; which number is what depends on the sizes, so the table is
made from the config. A table is pairs (checkpoint's, ours) of key prefixes without the last dot, and is read in both
directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ._autoencoder import AutoencoderConfig
from ._noise_unet import UNetConfig
from .specification import CheckpointLayout

Pair = tuple[str, str]

UNET = "model.diffusion_model"
VAE = "first_stage_model"
TEXT = "cond_stage_model.transformer"

NOT_WEIGHTS = (
    r"^model_ema\.",
    r"^(?!model\.|first_stage_model\.|cond_stage_model\.)",  # the schedule's numbers
    r"^first_stage_model\.loss\.",
    r"\.position_ids$",
)
"""What lies beside the weights in a CompVis file."""

ATTENTION_2D = r"^vae\.(encoder|decoder)\.mid_block\.attentions\.0\.(to_q|to_k|to_v|to_out\.0)\.weight$"
"""1×1 filters in CompVis files and in old diffusers folders, linear layers here."""

RESNET_IN_UNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
ATTENTION_IN_VAE = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
WORD_ATTENTION = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


def compvis_layout(name: str, unet: UNetConfig, vae: AutoencoderConfig, text: tuple[Pair, ...]) -> CheckpointLayout:
    """The layout of one CompVis file at the sizes of a config.

    Args:
        name: of the layout.
        unet: of the model.
        vae: of the model.
        text: the text encoder's pairs, below `TEXT` and "text_encoder".
    """
    pairs = [(f"{UNET}.{theirs}", f"unet.{ours}") for theirs, ours in unet_pairs(unet)]
    pairs += [(f"{VAE}.{theirs}", f"vae.{ours}") for theirs, ours in vae_pairs(vae)]
    pairs += [(f"{TEXT}.{theirs}", f"text_encoder.{ours}") for theirs, ours in text]
    return CheckpointLayout(name, prefixes=dict(pairs), pointwise=(ATTENTION_2D,), skipped=NOT_WEIGHTS)


def unet_pairs(config: UNetConfig) -> Iterator[Pair]:
    """Pairs below `UNET` and "unet"."""
    yield from (("time_embed.0", "time_embedding.linear_1"), ("time_embed.2", "time_embedding.linear_2"))
    yield from (("input_blocks.0.0", "conv_in"), ("out.0", "conv_norm_out"), ("out.2", "conv_out"))
    yield from _down_pairs(config)
    for index in (0, 1):
        yield from _resnet_pairs(f"middle_block.{2 * index}", f"mid_block.resnets.{index}")
    yield "middle_block.1", "mid_block.attentions.0"
    yield from _up_pairs(config)


def _resnet_pairs(theirs: str, ours: str) -> Iterator[Pair]:
    yield from ((f"{theirs}.{inner}", f"{ours}.{own}") for inner, own in RESNET_IN_UNET.items())


def _down_pairs(config: UNetConfig) -> Iterator[Pair]:
    per_level = config.layers_per_block + 1
    for level in range(len(config.channels)):
        for layer in range(config.layers_per_block):
            theirs = f"input_blocks.{level * per_level + layer + 1}"
            yield from _resnet_pairs(f"{theirs}.0", f"down_blocks.{level}.resnets.{layer}")
            if config.attention[level]:
                yield f"{theirs}.1", f"down_blocks.{level}.attentions.{layer}"
        if level < len(config.channels) - 1:
            yield f"input_blocks.{(level + 1) * per_level}.0.op", f"down_blocks.{level}.downsamplers.0.conv"


def _up_pairs(config: UNetConfig) -> Iterator[Pair]:
    per_level = config.layers_per_block + 1
    for block, attends in enumerate(reversed(config.attention)):
        for layer in range(per_level):
            theirs = f"output_blocks.{block * per_level + layer}"
            yield from _resnet_pairs(f"{theirs}.0", f"up_blocks.{block}.resnets.{layer}")
            if layer == per_level - 1 and block < len(config.channels) - 1:
                yield f"{theirs}.{2 if attends else 1}.conv", f"up_blocks.{block}.upsamplers.0.conv"
            if attends:
                yield f"{theirs}.1", f"up_blocks.{block}.attentions.{layer}"


def vae_pairs(config: AutoencoderConfig) -> Iterator[Pair]:
    """Pairs below `VAE` and "vae"."""
    levels = len(config.channels)
    yield from (("quant_conv", "quant_conv"), ("post_quant_conv", "post_quant_conv"))
    yield "quantize.embedding", "quantize.embedding"
    for side in ("encoder", "decoder"):
        yield from ((f"{side}.{name}", f"{side}.{name}") for name in ("conv_in", "conv_out"))
        yield f"{side}.norm_out", f"{side}.conv_norm_out"
        for index in (0, 1):
            yield from _same(f"{side}.mid.block_{index + 1}", f"{side}.mid_block.resnets.{index}")
        for inner, own in ATTENTION_IN_VAE.items():
            yield f"{side}.mid.attn_1.{inner}", f"{side}.mid_block.attentions.0.{own}"
    for level in range(levels):
        for layer in range(config.layers_per_block):
            yield from _same(f"encoder.down.{level}.block.{layer}", f"encoder.down_blocks.{level}.resnets.{layer}")
        yield f"encoder.down.{level}.downsample.conv", f"encoder.down_blocks.{level}.downsamplers.0.conv"
        block = levels - 1 - level
        for layer in range(config.layers_per_block + 1):
            yield from _same(f"decoder.up.{level}.block.{layer}", f"decoder.up_blocks.{block}.resnets.{layer}")
        yield f"decoder.up.{level}.upsample.conv", f"decoder.up_blocks.{block}.upsamplers.0.conv"


def _same(theirs: str, ours: str) -> Iterator[Pair]:
    """A ResBlock of an autoencoder: only the skip has another name, and goes first."""
    yield f"{theirs}.nin_shortcut", f"{ours}.conv_shortcut"
    yield theirs, ours


def word_encoder_pairs(num_layers: int) -> Iterator[Pair]:
    """Pairs of latent diffusion's text encoder: attention and feed-forward are numbered in turn."""
    yield from (("token_emb", "embed_tokens"), ("pos_emb.emb", "embed_positions"))
    yield from (("attn_layers.norm", "layer_norm"), ("to_logits", "to_logits"))
    for layer in range(num_layers):
        attention, feed_forward = f"attn_layers.layers.{2 * layer}", f"attn_layers.layers.{2 * layer + 1}"
        yield f"{attention}.0", f"layers.{layer}.self_attn_layer_norm"
        for inner, own in WORD_ATTENTION.items():
            yield f"{attention}.1.{inner}", f"layers.{layer}.self_attn.{own}"
        yield f"{feed_forward}.0", f"layers.{layer}.final_layer_norm"
        yield f"{feed_forward}.1.net.0.0", f"layers.{layer}.fc1"
        yield f"{feed_forward}.1.net.2", f"layers.{layer}.fc2"


def diffusers_layout(
    files: Mapping[str, str], renames: tuple[Pair, ...], restores: tuple[Pair, ...]
) -> CheckpointLayout:
    """The layout of a diffusers folder: our keys are its own, but for the text encoder's prefix.

    Args:
        files: by the first word of a key.
        renames: of the text encoder and of folders with other names.
        restores: the way back.
    """
    skipped = (r"\.position_ids$",)
    return CheckpointLayout("diffusers", (*renames, *OLD_ATTENTION), restores=restores, files=files, skipped=skipped)


_OLD = r"^((?:\w+\.)*attentions\.\d+)\."
OLD_ATTENTION = (
    (_OLD + r"query(?=\.)", r"\1.to_q"),
    (_OLD + r"key(?=\.)", r"\1.to_k"),
    (_OLD + r"value(?=\.)", r"\1.to_v"),
    (_OLD + r"proj_attn(?=\.)", r"\1.to_out.0"),
)
"""Names of attention over a picture in folders that diffusers wrote before 2023."""
