"""Transformer: an encoder reads a sentence, a decoder writes its translation and reads each word that it wrote.

Paper: Vaswani et al., "Attention is all you need", https://arxiv.org/abs/1706.03762, figure 1 and table 3, base model:
6 + 6 layers, 512 channels, 8 heads, 2048 feed-forward, 37,000 shared tokens (section 5.1); post-norm as in section 3.1,
projections without bias (3.2.2), sines and cosines for positions (3.5), one matrix for both embeddings and the words'
scores, multiplied by √512 where it embeds (3.4).

Parameters: embeddings 37,000 · 512 = 18,944,000. An attention has 4 · 512² = 1,048,576, a feed-forward
2 · 512 · 2048 + 2048 + 512 = 2,099,712, a normalisation 1,024. So an encoder layer has 3,150,336, a decoder layer
4,199,936, and the whole 18,944,000 + 6 · 3,150,336 + 6 · 4,199,936 = 63,045,632; table 3 says 65 · 10⁶.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from ._sequences import (
    Cache,
    KeyValue,
    as_bias,
    distances,
    encoder_decoder_graphs,
    extend,
    key_mask,
    merge_heads,
    split_heads,
)
from .registry import architecture
from .specification import GraphSpec, TextGeneration


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and special tokens; the defaults are those of the paper's base model.

    Attributes:
        vocab_size: tokens that both languages share.
        embed_dim: channels, divided among the heads.
        num_layers: of the encoder, and of the decoder.
        num_heads: of every attention.
        hidden_dim: of the feed-forward layers.
        epsilon: of the normalisations.
        pad_token_id: fills shorter sentences; the decoder starts with it.
        eos_token_id: ends a sentence.
    """

    vocab_size: int = 37000
    embed_dim: int = 512
    num_layers: int = 6
    num_heads: int = 8
    hidden_dim: int = 2048
    epsilon: float = 1e-6
    pad_token_id: int = 0
    eos_token_id: int = 1


class SharedEmbedding(nn.Embedding):
    """Words to vectors, and vectors back to the scores of words."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - PyTorch's name; (B, T) -> (B, T, C)
        return super().forward(input) * math.sqrt(self.embedding_dim)

    def score(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, vocab)
        """How well every word matches."""
        return linear(x, self.weight)


class PositionalEncoding(nn.Module):
    """Adds sine and cosine of the position in geometrically growing wavelengths, from 2π to 10,000 · 2π."""

    def forward(self, x: Tensor, past: int) -> Tensor:  # (B, T, C) -> (B, T, C)
        _, T, C = x.shape
        positions = torch.arange(past, past + T, device=x.device, dtype=torch.float32)  # (T,)
        exponents = torch.arange(0, C, 2, device=x.device, dtype=torch.float32) / C  # (C / 2,)
        angles = positions[:, None] * torch.pow(10000.0, -exponents)  # (T, C / 2)
        waves = torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1)  # (T, C): sin, cos, sin, cos, …
        return x + waves.to(x.dtype)


class Attention(nn.Module):
    """Multi-head attention; keys and values are projected apart, so that they can be kept."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(embed_dim, embed_dim, bias=False)
        self.key = nn.Linear(embed_dim, embed_dim, bias=False)
        self.value = nn.Linear(embed_dim, embed_dim, bias=False)
        self.output = nn.Linear(embed_dim, embed_dim, bias=False)

    def project(self, x: Tensor) -> KeyValue:  # (B, S, C) -> (B, heads, S, D) ×2
        """Keys and values."""
        return split_heads(self.key(x), self.num_heads), split_heads(self.value(x), self.num_heads)

    def forward(self, x: Tensor, store: KeyValue, bias: Tensor) -> Tensor:  # (B, T, C), … -> (B, T, C)
        q = split_heads(self.query(x), self.num_heads)  # (B, heads, T, D)
        return self.output(merge_heads(scaled_dot_product_attention(q, *store, attn_mask=bias)))


class FeedForward(nn.Module):
    """Linear, rectifier, linear."""

    def __init__(self, embed_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(embed_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        return self.output(self.hidden(x).relu())


class EncoderLayer(nn.Module):
    """Attention, add, feed-forward, add; each sum is normalised."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attention = Attention(config.embed_dim, config.num_heads)
        self.norm1 = nn.LayerNorm(config.embed_dim, config.epsilon)
        self.feed_forward = FeedForward(config.embed_dim, config.hidden_dim)
        self.norm2 = nn.LayerNorm(config.embed_dim, config.epsilon)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:  # (B, S, C) -> (B, S, C)
        x = self.norm1(x + self.self_attention(x, self.self_attention.project(x), bias))
        return self.norm2(x + self.feed_forward(x))


class DecoderLayer(nn.Module):
    """As the encoder's, with attention to the encoder's words in between."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.self_attention = Attention(config.embed_dim, config.num_heads)
        self.norm1 = nn.LayerNorm(config.embed_dim, config.epsilon)
        self.cross_attention = Attention(config.embed_dim, config.num_heads)
        self.norm2 = nn.LayerNorm(config.embed_dim, config.epsilon)
        self.feed_forward = FeedForward(config.embed_dim, config.hidden_dim)
        self.norm3 = nn.LayerNorm(config.embed_dim, config.epsilon)

    def forward(
        self, x: Tensor, bias: Tensor, past: KeyValue, source: KeyValue, source_bias: Tensor
    ) -> tuple[Tensor, KeyValue]:  # (B, T, C) -> (B, T, C)
        present = extend(past, *self.self_attention.project(x))
        x = self.norm1(x + self.self_attention(x, present, bias))
        x = self.norm2(x + self.cross_attention(x, source, source_bias))
        return self.norm3(x + self.feed_forward(x)), present


class Transformer(nn.Module):
    """Encoder, decoder and the embedding that they share."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.head_dim = config.embed_dim // config.num_heads
        self.num_heads = config.num_heads
        self.shared = SharedEmbedding(config.vocab_size, config.embed_dim)
        self.positions = PositionalEncoding()
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, words: Tensor) -> Tensor:
        """Score every next word of translations that are known so far (B, S) ×2, (B, T) -> (B, T, vocab)."""
        _, source = self.encode(input_ids, attention_mask)
        logits, _ = self.decode(words, attention_mask, self.empty_cache(len(input_ids)), source)
        return logits

    score = forward

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Cache]:
        """Read sentences (B, S): (B, S, C), and the keys and values that every decoder layer will ask for."""
        x = self.positions(self.shared(input_ids), 0)  # (B, S, C)
        bias = as_bias(key_mask(attention_mask), x.dtype)  # (B, 1, 1, S)
        for layer in self.encoder:
            x = layer(x, bias)
        layers: Any = self.decoder
        return x, tuple(layer.cross_attention.project(x) for layer in layers)

    def decode(
        self, input_ids: Tensor, attention_mask: Tensor, past_key_values: Cache, source: Cache
    ) -> tuple[Tensor, Cache]:
        """Score the word after each of the new ones (B, T): (B, T, vocab), and the cache with them in it."""
        past = past_key_values[0][0].shape[2]
        x = self.positions(self.shared(input_ids), past)  # (B, T, C)
        bias = as_bias(distances(past, input_ids.shape[1], x.device) >= 0, x.dtype)  # (T, past + T)
        source_bias = as_bias(key_mask(attention_mask), x.dtype)  # (B, 1, 1, S)
        presents = []
        for layer, own, theirs in zip(self.decoder, past_key_values, source, strict=True):
            x, present = layer(x, bias, own, theirs, source_bias)
            presents.append(present)
        return self.shared.score(x), tuple(presents)

    def empty_cache(self, batch: int) -> Cache:
        """The decoder's cache before its first word."""
        empty = self.shared.weight.new_zeros((batch, self.num_heads, 0, self.head_dim))
        return tuple((empty, empty) for _ in self.decoder)


class Encoding(nn.Module):
    """The encoder's graph: what is done once per sentence."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.shared, self.positions = model.shared, model.positions
        self.encoder, self.decoder = model.encoder, model.decoder

    forward = Transformer.encode


class Decoding(nn.Module):
    """The decoder's graph: what is done for every word."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.shared, self.positions, self.decoder = model.shared, model.positions, model.decoder

    forward = Transformer.decode


def transformer_graphs(config: TransformerConfig) -> tuple[GraphSpec, ...]:
    """Two graphs: "encoder", once per sentence, and "decoder", for every word."""
    sizes = config.num_layers, config.num_heads, config.embed_dim // config.num_heads
    return encoder_decoder_graphs(config.vocab_size, config.embed_dim, sizes, Encoding, Decoding)


def transformer_generation(config: TransformerConfig) -> TextGeneration:
    """The decoder starts with padding and goes on until the end token."""
    special = config.eos_token_id, config.pad_token_id, config.pad_token_id
    return TextGeneration("decoder", config.vocab_size, "encoder", *special)


@architecture(
    "transformer",
    paper="https://arxiv.org/abs/1706.03762",
    presets={
        "published": TransformerConfig(),
        "tiny": TransformerConfig(vocab_size=59, embed_dim=32, num_layers=2, num_heads=4, hidden_dim=64),
    },
    graphs=transformer_graphs,
    parameters=63_045_632,
    generation=transformer_generation,
)
def build_transformer(config: TransformerConfig) -> Transformer:
    """The module of a config."""
    return Transformer(config)
