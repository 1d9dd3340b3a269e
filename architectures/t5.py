"""T5: encoder and decoder, with attention that knows how far apart two words are and not where they stand.

Paper: Raffel et al., "Exploring the limits of transfer learning with a unified text-to-text transformer",
https://arxiv.org/abs/1910.10683, section 2.1 (small: 6 + 6 layers, 512 channels, 8 heads of 64, 2048 feed-forward).
Version 1.1 has gated feed-forward layers (Shazeer, arXiv 2002.05202) and a head of its own. Modules have the names of
Hugging Face's checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from ..errors import InvalidArgumentError
from ._activations import find_activation
from ._pretrained import check_settings, token_id
from ._relative_bias import RelativeBias
from ._sequences import (
    Cache,
    KeyValue,
    TiedHead,
    as_bias,
    distances,
    encoder_decoder_graphs,
    extend,
    key_mask,
    merge_heads,
    split_heads,
)
from ._t5_checkpoints import LAYOUTS, MULTILINGUAL, t5_untied
from .registry import architecture
from .specification import GraphSpec, TextGeneration


@dataclass(frozen=True)
class T5Config:
    """Sizes, choices and special tokens; the defaults are those of T5-small.

    Attributes:
        vocab_size: tokens there are.
        embed_dim: channels.
        head_dim: channels of a head, whatever `embed_dim` is.
        hidden_dim: of the feed-forward layers.
        num_layers: of the encoder.
        num_decoder_layers: of the decoder.
        num_heads: of every attention.
        num_buckets: classes of distances.
        max_distance: from here on all distances are one class.
        activation: of the feed-forward layers.
        gated: whether a second linear layer multiplies the activation (version 1.1).
        epsilon: of the normalisations.
        tie_embeddings: the head is the word embedding.
        scale_outputs: divide what the head reads by √embed_dim (with a tied head).
        pad_token_id: fills shorter texts.
        eos_token_id: ends a text.
        start_token_id: the decoder's first word.
    """

    vocab_size: int = 32128
    embed_dim: int = 512
    head_dim: int = 64
    hidden_dim: int = 2048
    num_layers: int = 6
    num_decoder_layers: int = 6
    num_heads: int = 8
    num_buckets: int = 32
    max_distance: int = 128
    activation: str = "relu"
    gated: bool = False
    epsilon: float = 1e-6
    tie_embeddings: bool = True
    scale_outputs: bool = True
    pad_token_id: int = 0
    eos_token_id: int | None = 1
    start_token_id: int = 0


class RMSNorm(nn.Module):
    """Division by the root mean square, in float32 at least, and a gain."""

    def __init__(self, embed_dim: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(embed_dim))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        return rms_norm(x, self.weight.shape, self.weight, self.epsilon)


class Attention(nn.Module):
    """Multi-head attention whose scores are not divided by √D: the queries' weights are drawn smaller in its place, as
    T5's are. Keys and values are projected apart, to be kept."""

    def __init__(self, embed_dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(embed_dim, num_heads * head_dim, bias=False)
        self.q.initial_gain = head_dim**-0.5
        self.k = nn.Linear(embed_dim, num_heads * head_dim, bias=False)
        self.v = nn.Linear(embed_dim, num_heads * head_dim, bias=False)
        self.o = nn.Linear(num_heads * head_dim, embed_dim, bias=False)

    def project(self, x: Tensor) -> KeyValue:  # (B, S, C) -> (B, heads, S, D) ×2
        """Keys and values."""
        return split_heads(self.k(x), self.num_heads), split_heads(self.v(x), self.num_heads)

    def forward(self, x: Tensor, store: KeyValue, bias: Tensor) -> Tensor:  # (B, T, C), … -> (B, T, C)
        q = split_heads(self.q(x), self.num_heads)  # (B, heads, T, D)
        return self.o(merge_heads(scaled_dot_product_attention(q, *store, attn_mask=bias, scale=1.0)))


class SelfAttentionLayer(nn.Module):
    """Normalise, attend, add; the first of a stack holds the bias of distances for all."""

    def __init__(self, config: T5Config, bias: RelativeBias | None) -> None:
        super().__init__()
        self.SelfAttention = Attention(config.embed_dim, config.num_heads, config.head_dim)
        if bias is not None:
            self.SelfAttention.relative_attention_bias = bias
        self.layer_norm = RMSNorm(config.embed_dim, config.epsilon)

    def forward(self, x: Tensor, bias: Tensor, past: KeyValue | None) -> tuple[Tensor, KeyValue]:
        normal = self.layer_norm(x)
        new = self.SelfAttention.project(normal)
        present = new if past is None else extend(past, *new)
        return x + self.SelfAttention(normal, present, bias), present


class CrossAttentionLayer(nn.Module):
    """Normalise, attend to the encoder's words, add."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.EncDecAttention = Attention(config.embed_dim, config.num_heads, config.head_dim)
        self.layer_norm = RMSNorm(config.embed_dim, config.epsilon)

    def forward(self, x: Tensor, source: KeyValue, bias: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        return x + self.EncDecAttention(self.layer_norm(x), source, bias)


class FeedForward(nn.Module):
    """Linear, activation, linear."""

    def __init__(self, embed_dim: int, hidden_dim: int, activation: str) -> None:
        super().__init__()
        self.wi = nn.Linear(embed_dim, hidden_dim, bias=False)
        self.activation = find_activation(activation)
        self.wo = nn.Linear(hidden_dim, embed_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        return self.wo(self.activation(self.wi(x)))


class GatedFeedForward(nn.Module):
    """Linear and activation, times another linear, then linear."""

    def __init__(self, embed_dim: int, hidden_dim: int, activation: str) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(embed_dim, hidden_dim, bias=False)
        self.wi_1 = nn.Linear(embed_dim, hidden_dim, bias=False)
        self.activation = find_activation(activation)
        self.wo = nn.Linear(hidden_dim, embed_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        return self.wo(self.activation(self.wi_0(x)) * self.wi_1(x))


class FeedForwardLayer(nn.Module):
    """Normalise, feed forward, add."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        kind = GatedFeedForward if config.gated else FeedForward
        self.DenseReluDense = kind(config.embed_dim, config.hidden_dim, config.activation)
        self.layer_norm = RMSNorm(config.embed_dim, config.epsilon)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        return x + self.DenseReluDense(self.layer_norm(x))


class EncoderBlock(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, config: T5Config, bias: RelativeBias | None) -> None:
        super().__init__()
        self.layer = nn.ModuleList((SelfAttentionLayer(config, bias), FeedForwardLayer(config)))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:  # (B, S, C) -> (B, S, C)
        attention, feed_forward = self.layer
        x, _ = attention(x, bias, None)
        return feed_forward(x)


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward."""

    def __init__(self, config: T5Config, bias: RelativeBias | None) -> None:
        super().__init__()
        layers = SelfAttentionLayer(config, bias), CrossAttentionLayer(config), FeedForwardLayer(config)
        self.layer = nn.ModuleList(layers)

    def forward(
        self, x: Tensor, bias: Tensor, past: KeyValue, source: KeyValue, source_bias: Tensor
    ) -> tuple[Tensor, KeyValue]:  # (B, T, C) -> (B, T, C)
        attention, cross_attention, feed_forward = self.layer
        x, present = attention(x, bias, past)
        return feed_forward(cross_attention(x, source, source_bias)), present


def relative_bias(config: T5Config, *, bidirectional: bool) -> RelativeBias:
    """The bias of the first block of a stack."""
    return RelativeBias(config.num_buckets, config.num_heads, config.max_distance, bidirectional=bidirectional)


class EncoderStack(nn.Module):
    """Blocks and a last normalisation."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        biases = [relative_bias(config, bidirectional=True), *[None] * (config.num_layers - 1)]
        self.block = nn.ModuleList(EncoderBlock(config, bias) for bias in biases)
        self.final_layer_norm = RMSNorm(config.embed_dim, config.epsilon)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:  # (B, S, C), (B, 1, 1, S) -> (B, S, C)
        bias = distance_bias(self.block, distances(0, x.shape[1], x.device)) + as_bias(allowed, x.dtype)
        for block in self.block:
            x = block(x, bias)
        return self.final_layer_norm(x)


class DecoderStack(nn.Module):
    """Blocks and a last normalisation."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        biases = [relative_bias(config, bidirectional=False), *[None] * (config.num_decoder_layers - 1)]
        self.block = nn.ModuleList(DecoderBlock(config, bias) for bias in biases)
        self.final_layer_norm = RMSNorm(config.embed_dim, config.epsilon)

    def forward(
        self, x: Tensor, past_key_values: Cache, source: Cache, source_allowed: Tensor
    ) -> tuple[Tensor, Cache]:  # (B, T, C) -> (B, T, C)
        behind = distances(past_key_values[0][0].shape[2], x.shape[1], x.device)  # (T, past + T)
        bias = distance_bias(self.block, behind) + as_bias(behind >= 0, x.dtype)  # (1, heads, T, past + T)
        source_bias = as_bias(source_allowed, x.dtype)  # (B, 1, 1, S)
        presents = []
        for block, past, theirs in zip(self.block, past_key_values, source, strict=True):
            x, present = block(x, bias, past, theirs, source_bias)
            presents.append(present)
        return self.final_layer_norm(x), tuple(presents)


def distance_bias(blocks: nn.ModuleList, behind: Tensor) -> Tensor:  # (T, S) -> (1, heads, T, S)
    """The bias of distances, which the first block holds for all."""
    first: Any = blocks[0]
    return first.layer[0].SelfAttention.relative_attention_bias(behind)


class T5(nn.Module):
    """Encoder, decoder and the embedding that they share."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        self.scale = config.embed_dim**-0.5 if config.scale_outputs else None
        self.shared = nn.Embedding(config.vocab_size, config.embed_dim)
        self.encoder = EncoderStack(config)
        self.decoder = DecoderStack(config)
        self.lm_head = (
            TiedHead() if config.tie_embeddings else nn.Linear(config.embed_dim, config.vocab_size, bias=False)
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor, words: Tensor) -> Tensor:
        """Score every next word of answers that are known so far (B, S) ×2, (B, T) -> (B, T, vocab)."""
        _, source = self.encode(input_ids, attention_mask)
        logits, _ = self.decode(words, attention_mask, self.empty_cache(len(input_ids)), source)
        return logits

    score = forward

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Cache]:
        """Read texts (B, S): (B, S, C), and the keys and values that every decoder block will ask for."""
        x = self.encoder(self.shared(input_ids), key_mask(attention_mask))  # (B, S, C)
        blocks: Any = self.decoder.block
        return x, tuple(block.layer[1].EncDecAttention.project(x) for block in blocks)

    def decode(
        self, input_ids: Tensor, attention_mask: Tensor, past_key_values: Cache, source: Cache
    ) -> tuple[Tensor, Cache]:
        """Score the word after each of the new ones (B, T): (B, T, vocab), and the cache with them in it."""
        x, presents = self.decoder(self.shared(input_ids), past_key_values, source, key_mask(attention_mask))
        x = x if self.scale is None else x * self.scale
        tied = isinstance(self.lm_head, TiedHead)
        return self.lm_head(x, self.shared.weight) if tied else self.lm_head(x), presents

    def empty_cache(self, batch: int) -> Cache:
        """The decoder's cache before its first word."""
        empty = self.shared.weight.new_zeros((batch, self.num_heads, 0, self.head_dim))
        return tuple((empty, empty) for _ in self.decoder.block)


class Encoding(nn.Module):
    """The encoder's graph: what is done once per text."""

    def __init__(self, model: T5) -> None:
        super().__init__()
        self.shared, self.encoder, self.decoder = model.shared, model.encoder, model.decoder

    forward = T5.encode


class Decoding(nn.Module):
    """The decoder's graph: what is done for every word."""

    def __init__(self, model: T5) -> None:
        super().__init__()
        self.scale = model.scale
        self.shared, self.decoder, self.lm_head = model.shared, model.decoder, model.lm_head

    forward = T5.decode


def version_1_1(config: T5Config) -> T5Config:
    """The sizes of a config with the choices of version 1.1: gated feed-forward layers, a head of its own."""
    return replace(config, activation="gelu_new", gated=True, tie_embeddings=False, scale_outputs=False)


def t5_graphs(config: T5Config) -> tuple[GraphSpec, ...]:
    """Two graphs: "encoder", once per text, and "decoder", for every word."""
    sizes = config.num_decoder_layers, config.num_heads, config.head_dim
    return encoder_decoder_graphs(config.vocab_size, config.embed_dim, sizes, Encoding, Decoding)


def t5_generation(config: T5Config) -> TextGeneration:
    """The decoder goes on until its end token."""
    special = config.eos_token_id, config.pad_token_id, config.start_token_id
    return TextGeneration("decoder", config.vocab_size, "encoder", *special)


def t5_config(content: Mapping[str, Any]) -> T5Config:
    """The config of a Hugging Face folder.

    Raises:
        InvalidArgumentError: not T5's, or a setting that is not built.
    """
    check_settings(content, "t5", "mt5")
    content = MULTILINGUAL | dict(content) if content.get("model_type") == "mt5" else content
    kind, _, gated = content.get("feed_forward_proj", "relu").rpartition("-")
    activation = "gelu_new" if (kind, gated) == ("gated", "gelu") else gated
    find_activation(activation)
    if kind not in ("", "gated"):
        raise InvalidArgumentError(f"config.json: feed_forward_proj {content['feed_forward_proj']!r}; one may be gated")
    num_layers = content.get("num_layers", 6)
    num_decoder_layers, tied = content.get("num_decoder_layers"), content.get("tie_word_embeddings", True)
    return T5Config(
        vocab_size=content.get("vocab_size", 32128),
        embed_dim=content.get("d_model", 512),
        head_dim=content.get("d_kv", 64),
        hidden_dim=content.get("d_ff", 2048),
        num_layers=num_layers,
        num_decoder_layers=num_layers if num_decoder_layers is None else num_decoder_layers,
        num_heads=content.get("num_heads", 8),
        num_buckets=content.get("relative_attention_num_buckets", 32),
        max_distance=content.get("relative_attention_max_distance", 128),
        activation=activation,
        gated=kind == "gated",
        epsilon=content.get("layer_norm_epsilon", 1e-6),
        tie_embeddings=tied,
        scale_outputs=content.get("scale_decoder_outputs", tied),
        pad_token_id=token_id(content, "pad_token_id", 0) or 0,
        eos_token_id=token_id(content, "eos_token_id", 1),
        start_token_id=token_id(content, "decoder_start_token_id", 0) or 0,
    )


TINY_T5 = T5Config(
    vocab_size=71, embed_dim=32, head_dim=8, hidden_dim=64, num_layers=2, num_decoder_layers=2, num_heads=4,
    num_buckets=8, max_distance=16,
)  # fmt: skip


@architecture(
    "t5",
    paper="https://arxiv.org/abs/1910.10683",
    presets={
        "published": T5Config(),
        "base": T5Config(embed_dim=768, hidden_dim=3072, num_layers=12, num_decoder_layers=12, num_heads=12),
        "large": T5Config(embed_dim=1024, hidden_dim=4096, num_layers=24, num_decoder_layers=24, num_heads=16),
        "v1.1-small": version_1_1(T5Config(hidden_dim=1024, num_layers=8, num_decoder_layers=8, num_heads=6)),
        "v1.1-base": version_1_1(
            T5Config(embed_dim=768, hidden_dim=2048, num_layers=12, num_decoder_layers=12, num_heads=12)
        ),
        "tiny": TINY_T5,
        "tiny-v1.1": version_1_1(TINY_T5),
    },
    graphs=t5_graphs,
    parameters=60_506_624,
    checkpoints=LAYOUTS,
    from_pretrained_config=t5_config,
    untied=t5_untied,
    generation=t5_generation,
)
def build_t5(config: T5Config) -> T5:
    """The module of a config."""
    return T5(config)
