"""GPT-2: decoder only; each word is appended to the text and read again.

Paper: Radford, Wu, Child, Luan, Amodei, Sutskever, "Language models are unsupervised multitask learners" (2019),
https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf, section 2.3 and
table 2. Modules have the names of Hugging Face's checkpoints; the layers that those store transposed (`Conv1D`) are
ordinary linear ones here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from ..errors import InvalidArgumentError
from ._activations import find_activation
from ._pretrained import check_settings, token_id
from ._sequences import (
    Cache,
    KeyValue,
    TiedHead,
    as_bias,
    cache_nest,
    cache_ports,
    distances,
    extend,
    key_mask,
    merge_heads,
    split_heads,
)
from .registry import architecture
from .specification import PLAIN, Axis, CheckpointLayout, GraphSpec, Port, TextGeneration


@dataclass(frozen=True)
class GPT2Config:
    """Sizes and choices; the defaults are those of the smallest published model.

    Attributes:
        vocab_size: tokens there are.
        num_positions: longest text.
        embed_dim: channels, divided among the heads.
        num_layers: blocks.
        num_heads: of every attention.
        hidden_dim: of the feed-forward layers.
        activation: name of theirs.
        epsilon: of the normalisations.
        scale_by_layer: attention scores are also divided by the number of the layer, from 1.
        tie_embeddings: the head is the word embedding.
        eos_token_id: ends a text; None where nothing does.
    """

    vocab_size: int = 50257
    num_positions: int = 1024
    embed_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    hidden_dim: int = 3072
    activation: str = "gelu_new"
    epsilon: float = 1e-5
    scale_by_layer: bool = False
    tie_embeddings: bool = True
    eos_token_id: int | None = 50256


class Attention(nn.Module):
    """Multi-head self-attention with a cache; queries, keys and values come from one layer."""

    def __init__(self, embed_dim: int, num_heads: int, scale: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = scale
        self.c_attn = nn.Linear(embed_dim, 3 * embed_dim)
        self.c_proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, bias: Tensor, past: KeyValue) -> tuple[Tensor, KeyValue]:  # (B, T, C) -> (B, T, C)
        q, k, v = (split_heads(part, self.num_heads) for part in self.c_attn(x).chunk(3, dim=2))  # (B, heads, T, D)
        key, value = extend(past, k, v)  # (B, heads, past + T, D)
        found = scaled_dot_product_attention(q, key, value, attn_mask=bias, scale=self.scale)
        return self.c_proj(merge_heads(found)), (key, value)


class FeedForward(nn.Module):
    """Linear, activation, linear."""

    def __init__(self, embed_dim: int, hidden_dim: int, activation: str) -> None:
        super().__init__()
        self.c_fc = nn.Linear(embed_dim, hidden_dim)
        self.activation = find_activation(activation)
        self.c_proj = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        return self.c_proj(self.activation(self.c_fc(x)))


class Block(nn.Module):
    """Attention, then feed-forward, each normalised before and added to what came in."""

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__()
        head_dim = config.embed_dim // config.num_heads
        scale = head_dim**-0.5 / (layer + 1 if config.scale_by_layer else 1)
        self.ln_1 = nn.LayerNorm(config.embed_dim, config.epsilon)
        self.attn = Attention(config.embed_dim, config.num_heads, scale)
        self.ln_2 = nn.LayerNorm(config.embed_dim, config.epsilon)
        self.mlp = FeedForward(config.embed_dim, config.hidden_dim, config.activation)

    def forward(self, x: Tensor, bias: Tensor, past: KeyValue) -> tuple[Tensor, KeyValue]:  # (B, T, C) -> (B, T, C)
        found, present = self.attn(self.ln_1(x), bias, past)
        x = x + found
        return x + self.mlp(self.ln_2(x)), present


class GPT2(nn.Module):
    """Embeddings of words and positions, blocks, a last normalisation, scores of the next word."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.head_dim = config.embed_dim // config.num_heads
        self.wte = nn.Embedding(config.vocab_size, config.embed_dim)
        self.wpe = nn.Embedding(config.num_positions, config.embed_dim)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.ln_f = nn.LayerNorm(config.embed_dim, config.epsilon)
        self.lm_head = (
            TiedHead() if config.tie_embeddings else nn.Linear(config.embed_dim, config.vocab_size, bias=False)
        )

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past_key_values: Cache
    ) -> tuple[Tensor, Cache]:
        """Score the word after each of the new ones.

        Args:
            input_ids: (B, T), the new words.
            attention_mask: (B, past + T), 0 at padding. A word always sees itself.
            position_ids: (B, T).
            past_key_values: per layer, (B, heads, past, D) twice; of length 0 at the beginning.

        Returns:
            Logits (B, T, vocab), and the cache with the new words in it.
        """
        x = self.wte(input_ids) + self.wpe(position_ids)  # (B, T, C)
        bias = as_bias(self.allowed(attention_mask, past_key_values[0][0].shape[2], input_ids.shape[1]), x.dtype)
        presents = []
        for block, past in zip(self.h, past_key_values, strict=True):
            x, present = block(x, bias, past)
            presents.append(present)
        x = self.ln_f(x)
        tied = isinstance(self.lm_head, TiedHead)
        return self.lm_head(x, self.wte.weight) if tied else self.lm_head(x), tuple(presents)

    @staticmethod
    def allowed(attention_mask: Tensor, past: int, length: int) -> Tensor:  # (B, 1, T, past + T)
        """A query sees itself, and what stands before it and is no padding."""
        behind = distances(past, length, attention_mask.device)  # (T, past + T)
        return (behind == 0) | ((behind > 0) & key_mask(attention_mask))

    def empty_cache(self, batch: int) -> Cache:
        """The cache before the first word."""
        empty = self.wte.weight.new_zeros((batch, self.num_heads, 0, self.head_dim))
        return tuple((empty, empty) for _ in self.h)

    def score(self, input_ids: Tensor, attention_mask: Tensor, words: Tensor) -> Tensor:
        """Score the word after each of the texts so far, without a cache: what the loop is held against.

        Args:
            input_ids: (B, S), the prompts, with which the texts begin.
            attention_mask: (B, S), 0 at padding before them.
            words: (B, T), the texts.

        Returns:
            Logits (B, T, vocab).
        """
        added = words.new_ones((len(words), words.shape[1] - input_ids.shape[1]))
        mask = torch.cat((attention_mask, added), dim=1)  # (B, T)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        logits, _ = self(words, mask, positions, self.empty_cache(len(words)))
        return logits


def gpt2_graphs(config: GPT2Config) -> tuple[GraphSpec, ...]:
    """One graph for prefill (past 0), decoding (sequence 1) and chunks."""
    sizes = config.num_layers, config.num_heads, config.embed_dim // config.num_heads
    past = cache_ports("past_key_values", sizes, "past")
    tokens = (
        Port("input_ids", ("batch", "sequence"), "int64", "integers", config.vocab_size),
        Port("attention_mask", ("batch", "past+sequence"), "int64", "mask"),
        Port("position_ids", ("batch", "sequence"), "int64", "integers", config.num_positions),
    )
    logits = Port("logits", ("batch", "sequence", config.vocab_size))
    axes = (
        Axis("batch", 2, sweep=(1, 2, 3)),
        Axis("sequence", 5, sweep=(1, 2, 17)),
        Axis("past", 4, sweep=(0, 1, 31)),
    )
    arguments = (*(port.name for port in tokens), cache_nest(past))
    outputs = (logits, *cache_ports("present", sizes, "past+sequence"))
    return (GraphSpec("gpt2", (*tokens, *past), outputs, axes, arguments),)


def gpt2_generation(config: GPT2Config) -> TextGeneration:
    """The text goes on until its end token."""
    end = config.eos_token_id
    pad = 0 if end is None else end
    return TextGeneration("gpt2", config.vocab_size, "", end, pad, longest=config.num_positions)


def gpt2_config(content: Mapping[str, Any]) -> GPT2Config:
    """The config of a Hugging Face folder.

    Raises:
        InvalidArgumentError: not GPT-2's, or a setting that is not built.
    """
    check_settings(content, "gpt2", scale_attn_weights=True, add_cross_attention=False)
    find_activation(content.get("activation_function", "gelu_new"))
    embed_dim, num_heads = content.get("n_embd", 768), content.get("n_head", 12)
    if embed_dim % num_heads:
        raise InvalidArgumentError(f"config.json: n_head {num_heads} does not divide n_embd {embed_dim}")
    return GPT2Config(
        vocab_size=content.get("vocab_size", 50257),
        num_positions=content.get("n_positions", content.get("n_ctx", 1024)),
        embed_dim=embed_dim,
        num_layers=content.get("n_layer", 12),
        num_heads=num_heads,
        hidden_dim=4 * embed_dim if content.get("n_inner") is None else content["n_inner"],
        activation=content.get("activation_function", "gelu_new"),
        epsilon=content.get("layer_norm_epsilon", 1e-5),
        scale_by_layer=content.get("scale_attn_by_inverse_layer_idx", False),
        tie_embeddings=content.get("tie_word_embeddings", True),
        eos_token_id=token_id(content, "eos_token_id", 50256),
    )


def gpt2_untied(content: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a folder whose head is not its embedding, though it says so."""
    return {**content, "tie_word_embeddings": False}


PREFIX = (r"^transformer\.", "")
RESTORED = ((r"^(?!lm_head\.)", "transformer."),)
CAUSAL_MASKS = (r"^(h\.\d+\.attn\.(bias|masked_bias)|multiple_choice_head\..*)$", "")
TRANSPOSED = (r"^h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight$",)

LAYOUTS = (
    CheckpointLayout(
        "huggingface", (PREFIX, CAUSAL_MASKS, (r"^lm_head\.weight$", "wte.weight")), TRANSPOSED, restores=RESTORED
    ),
    CheckpointLayout("huggingface, untied", (PREFIX, CAUSAL_MASKS), TRANSPOSED, restores=RESTORED),
    PLAIN,
)

TINY_GPT2 = GPT2Config(
    vocab_size=67, num_positions=64, embed_dim=32, num_layers=2, num_heads=4, hidden_dim=128, eos_token_id=66
)


@architecture(
    "gpt2",
    paper="https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf",
    presets={
        "published": GPT2Config(),
        "medium": GPT2Config(embed_dim=1024, num_layers=24, num_heads=16, hidden_dim=4096),
        "large": GPT2Config(embed_dim=1280, num_layers=36, num_heads=20, hidden_dim=5120),
        "xl": GPT2Config(embed_dim=1600, num_layers=48, num_heads=25, hidden_dim=6400),
        "tiny": TINY_GPT2,
    },
    graphs=gpt2_graphs,
    parameters=124_439_808,
    checkpoints=LAYOUTS,
    from_pretrained_config=gpt2_config,
    untied=gpt2_untied,
    generation=gpt2_generation,
)
def build_gpt2(config: GPT2Config) -> GPT2:
    """The module of a config."""
    return GPT2(config)
