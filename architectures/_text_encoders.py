"""Text encoders of latent diffusion: every word becomes a vector that pixels look up.

Papers: Rombach et al., https://arxiv.org/abs/2112.10752, appendix E.2.1 (`BERTEmbedder`: a transformer encoder with
BERT's vocabulary, not its weights); Radford et al., "Learning transferable visual models from natural language
supervision", https://arxiv.org/abs/2103.00020, section 2.4 (CLIP). Keys are those of diffusers and transformers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from ._activations import find_activation
from ._sequences import merge_heads, split_heads


@dataclass(frozen=True)
class ClipTextConfig:
    """Sizes of CLIP's text encoder, and the words around a prompt; the defaults are those of ViT-L/14."""

    vocab_size: int = 49408
    num_positions: int = 77
    embed_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    hidden_dim: int = 3072
    activation: str = "quick_gelu"
    epsilon: float = 1e-5
    start_token_id: int = 49406
    end_token_id: int = 49407
    pad_token_id: int = 49407


@dataclass(frozen=True)
class WordEncoderConfig:
    """Sizes of latent diffusion's `BERTEmbedder`, and the words around a prompt (BERT's [CLS], [SEP], [PAD]).

    The heads' channels are not a division of the embedding's.
    """

    vocab_size: int = 30522
    num_positions: int = 77
    embed_dim: int = 1280
    num_layers: int = 32
    num_heads: int = 8
    head_dim: int = 64
    hidden_dim: int = 5120
    epsilon: float = 1e-5
    start_token_id: int = 101
    end_token_id: int = 102
    pad_token_id: int = 0


class Attention(nn.Module):
    """Multi-head self-attention.

    Args:
        embed_dim: of input and result.
        inner_dim: of queries, keys and values together.
        num_heads: that these are divided among.
        bias: whether their projections have one; the last has.
        causal: whether a word sees only itself and those before it.
    """

    def __init__(self, embed_dim: int, inner_dim: int, num_heads: int, *, bias: bool, causal: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.causal = causal
        self.q_proj = nn.Linear(embed_dim, inner_dim, bias=bias)
        self.k_proj = nn.Linear(embed_dim, inner_dim, bias=bias)
        self.v_proj = nn.Linear(embed_dim, inner_dim, bias=bias)
        self.out_proj = nn.Linear(inner_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        q, k, v = (split_heads(layer(x), self.num_heads) for layer in (self.q_proj, self.k_proj, self.v_proj))
        found = scaled_dot_product_attention(q, k, v, is_causal=self.causal)  # (B, heads, T, D)
        return self.out_proj(merge_heads(found))


class ClipEmbeddings(nn.Module):
    """Words and positions."""

    def __init__(self, vocab_size: int, num_positions: int, embed_dim: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, embed_dim)
        self.position_embedding = nn.Embedding(num_positions, embed_dim)

    def forward(self, input_ids: Tensor) -> Tensor:  # (B, T) -> (B, T, C)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        return self.token_embedding(input_ids) + self.position_embedding(positions)


class ClipFeedForward(nn.Module):
    """Linear, activation, linear."""

    def __init__(self, embed_dim: int, hidden_dim: int, activation: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.activation = find_activation(activation)
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        return self.fc2(self.activation(self.fc1(x)))


class ClipLayer(nn.Module):
    """Causal self-attention and feed-forward, each normalised before and added to what came in."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.layer_norm1 = nn.LayerNorm(dim, config.epsilon)
        self.self_attn = Attention(dim, dim, config.num_heads, bias=True, causal=True)
        self.layer_norm2 = nn.LayerNorm(dim, config.epsilon)
        self.mlp = ClipFeedForward(dim, config.hidden_dim, config.activation)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class ClipLayers(nn.Module):
    """All layers, one after another."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ClipLayer(config) for _ in range(config.num_layers))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        for layer in self.layers:
            x = layer(x)
        return x


class ClipTextEncoder(nn.Module):
    """CLIP's text encoder without its projection: what Stable Diffusion 1.x reads prompts with."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.embeddings = ClipEmbeddings(config.vocab_size, config.num_positions, config.embed_dim)
        self.encoder = ClipLayers(config)
        self.final_layer_norm = nn.LayerNorm(config.embed_dim, config.epsilon)

    def forward(self, input_ids: Tensor) -> Tensor:  # (B, T) -> (B, T, C)
        return self.final_layer_norm(self.encoder(self.embeddings(input_ids)))


class WordLayer(nn.Module):
    """Self-attention in both directions and feed-forward, each normalised before and added to what came in."""

    def __init__(self, config: WordEncoderConfig) -> None:
        super().__init__()
        dim, inner = config.embed_dim, config.num_heads * config.head_dim
        self.self_attn_layer_norm = nn.LayerNorm(dim, config.epsilon)
        self.self_attn = Attention(dim, inner, config.num_heads, bias=False, causal=False)
        self.final_layer_norm = nn.LayerNorm(dim, config.epsilon)
        self.fc1 = nn.Linear(dim, config.hidden_dim)
        self.fc2 = nn.Linear(config.hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        return x + self.fc2(gelu(self.fc1(self.final_layer_norm(x))))


class WordEncoder(nn.Module):
    """Latent diffusion's `BERTEmbedder`; `to_logits` is in its checkpoints and not used."""

    def __init__(self, config: WordEncoderConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embed_dim)
        self.embed_positions = nn.Embedding(config.num_positions, config.embed_dim)
        self.layers = nn.ModuleList(WordLayer(config) for _ in range(config.num_layers))
        self.layer_norm = nn.LayerNorm(config.embed_dim, config.epsilon)
        self.to_logits = nn.Linear(config.embed_dim, config.vocab_size)

    def forward(self, input_ids: Tensor) -> Tensor:  # (B, T) -> (B, T, C)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.embed_tokens(input_ids) + self.embed_positions(positions)
        for layer in self.layers:
            x = layer(x)
        return self.layer_norm(x)
