"""BERT: encoder only; every word sees all others, in both directions.

Paper: Devlin, Chang, Lee, Toutanova, "BERT: pre-training of deep bidirectional transformers for language
understanding", https://arxiv.org/abs/1810.04805, section 3 (base: 12 layers, 768 channels, 12 heads; large: 24, 1024,
16). Modules have the names of Hugging Face's checkpoints.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ..errors import InvalidArgumentError
from ._activations import find_activation
from ._pretrained import check_settings
from ._sequences import as_bias, key_mask, merge_heads, split_heads
from .registry import architecture
from .specification import PLAIN, Axis, CheckpointLayout, GraphSpec, Port


@dataclass(frozen=True)
class BertConfig:
    """Sizes and choices; the defaults are those of BERT-base, uncased.

    Attributes:
        vocab_size: tokens there are.
        num_positions: longest text.
        num_types: kinds of segments (first sentence, second sentence).
        embed_dim: channels, divided among the heads.
        num_layers: of the encoder.
        num_heads: of every attention.
        hidden_dim: of the feed-forward layers.
        activation: name of theirs.
        epsilon: of the normalisations.
        pooler: whether the text as a whole is given too.
    """

    vocab_size: int = 30522
    num_positions: int = 512
    num_types: int = 2
    embed_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    hidden_dim: int = 3072
    activation: str = "gelu"
    epsilon: float = 1e-12
    pooler: bool = True


class Embeddings(nn.Module):
    """Words, positions and segments, added and normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.embed_dim)
        self.position_embeddings = nn.Embedding(config.num_positions, config.embed_dim)
        self.token_type_embeddings = nn.Embedding(config.num_types, config.embed_dim)
        self.LayerNorm = nn.LayerNorm(config.embed_dim, config.epsilon)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:  # (B, T) ×2 -> (B, T, C)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        words = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)  # (B, T, C)
        return self.LayerNorm(words + self.position_embeddings(positions))


class SelfAttention(nn.Module):
    """Multi-head attention of all words to all that are no padding."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(embed_dim, embed_dim)
        self.key = nn.Linear(embed_dim, embed_dim)
        self.value = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:  # (B, T, C), (B, 1, 1, T) -> (B, T, C)
        q, k, v = (split_heads(layer(x), self.num_heads) for layer in (self.query, self.key, self.value))
        return merge_heads(scaled_dot_product_attention(q, k, v, attn_mask=bias))


class AddedOutput(nn.Module):
    """A linear layer, added to what skipped the layers before it, and normalised."""

    def __init__(self, in_features: int, out_features: int, epsilon: float) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, out_features)
        self.LayerNorm = nn.LayerNorm(out_features, epsilon)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:  # (B, T, C_in), (B, T, C) -> (B, T, C)
        return self.LayerNorm(self.dense(x) + skip)


class Attention(nn.Module):
    """Self-attention and its output."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config.embed_dim, config.num_heads)
        self.output = AddedOutput(config.embed_dim, config.embed_dim, config.epsilon)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        return self.output(self.self(x, bias), x)


class Intermediate(nn.Module):
    """The widening half of the feed-forward layers."""

    def __init__(self, embed_dim: int, hidden_dim: int, activation: str) -> None:
        super().__init__()
        self.dense = nn.Linear(embed_dim, hidden_dim)
        self.activation = find_activation(activation)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, hidden)
        return self.activation(self.dense(x))


class Layer(nn.Module):
    """Attention, then feed-forward, each normalised after it was added."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config.embed_dim, config.hidden_dim, config.activation)
        self.output = AddedOutput(config.hidden_dim, config.embed_dim, config.epsilon)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = self.attention(x, bias)
        return self.output(self.intermediate(x), x)


class Encoder(nn.Module):
    """The layers, one after another."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(config) for _ in range(config.num_layers))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        for layer in self.layer:
            x = layer(x, bias)
        return x


class Pooler(nn.Module):
    """The whole text as one vector: what became of its first word."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, C)
        return torch.tanh(self.dense(x[:, 0]))


class Bert(nn.Module):
    """Embeddings, encoder, pooler."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Pooler(config.embed_dim) if config.pooler else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        """Read texts.

        Args:
            input_ids: (B, T).
            attention_mask: (B, T), 0 at padding.
            token_type_ids: (B, T), the segment of every word.

        Returns:
            Every word in its context (B, T, C), and with a pooler the text as a whole (B, C).
        """
        x = self.embeddings(input_ids, token_type_ids)  # (B, T, C)
        x = self.encoder(x, as_bias(key_mask(attention_mask), x.dtype))
        return (x,) if self.pooler is None else (x, self.pooler(x))


def bert_graphs(config: BertConfig) -> tuple[GraphSpec, ...]:
    """One graph: words, padding and segments to vectors of words and of texts."""
    shape = ("batch", "sequence")
    inputs = (
        Port("input_ids", shape, "int64", "integers", config.vocab_size),
        Port("attention_mask", shape, "int64", "mask"),
        Port("token_type_ids", shape, "int64", "integers", config.num_types),
    )
    outputs = (
        Port("last_hidden_state", (*shape, config.embed_dim)),
        Port("pooler_output", ("batch", config.embed_dim)),
    )[: 2 if config.pooler else 1]
    axes = (Axis("batch", 2, sweep=(1, 2, 3)), Axis("sequence", 7, sweep=(1, 2, 33)))
    return (GraphSpec("bert", inputs, outputs, axes),)


def bert_config(content: Mapping[str, Any]) -> BertConfig:
    """The config of a Hugging Face folder.

    Raises:
        InvalidArgumentError: not BERT's, or a setting that is not built.
    """
    built = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
    check_settings(content, "bert", **built)
    find_activation(content.get("hidden_act", "gelu"))
    embed_dim, num_heads = content.get("hidden_size", 768), content.get("num_attention_heads", 12)
    if embed_dim % num_heads:
        raise InvalidArgumentError(
            f"config.json: num_attention_heads {num_heads} does not divide hidden_size {embed_dim}"
        )
    return BertConfig(
        vocab_size=content.get("vocab_size", 30522),
        num_positions=content.get("max_position_embeddings", 512),
        num_types=content.get("type_vocab_size", 2),
        embed_dim=embed_dim,
        num_layers=content.get("num_hidden_layers", 12),
        num_heads=num_heads,
        hidden_dim=content.get("intermediate_size", 3072),
        activation=content.get("hidden_act", "gelu"),
        epsilon=content.get("layer_norm_eps", 1e-12),
        pooler=content.get("add_pooling_layer", True),
    )


def bert_as_stored(content: Mapping[str, Any], keys: Collection[str]) -> Mapping[str, Any]:
    """The config of a folder, without the pooler where it was trained without: for masked words, answers, tags."""
    pooled = any("pooler." in key for key in keys)
    return content if pooled else {**content, "add_pooling_layer": False}


HUGGING_FACE = CheckpointLayout(
    "huggingface",
    renames=(
        (r"^bert\.", ""),
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
        (r"^cls\..*", ""),
        (r"^(classifier|qa_outputs)\..*", ""),
        (r"^embeddings\.position_ids$", ""),
    ),
    restores=((r"^", ""),),
)
"""Heads of the tasks that it was trained for are left out."""

TINY_BERT = BertConfig(
    vocab_size=101, num_positions=48, num_types=2, embed_dim=32, num_layers=2, num_heads=4, hidden_dim=64
)


@architecture(
    "bert",
    paper="https://arxiv.org/abs/1810.04805",
    presets={
        "published": BertConfig(),
        "large": BertConfig(embed_dim=1024, num_layers=24, num_heads=16, hidden_dim=4096),
        "tiny": TINY_BERT,
    },
    graphs=bert_graphs,
    parameters=109_482_240,
    checkpoints=(HUGGING_FACE, PLAIN),
    from_pretrained_config=bert_config,
    as_stored=bert_as_stored,
)
def build_bert(config: BertConfig) -> Bert:
    """The module of a config."""
    return Bert(config)
