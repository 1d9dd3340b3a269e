"""Multi-head attention alone: a key-value store that is looked up softly.

    store = {key: value}; value = store[query]

Every query is compared with every key, and the values come back weighted by how well their keys match.

Paper: Vaswani et al., "Attention is all you need", https://arxiv.org/abs/1706.03762, section 3.2.2 (h = 8,
d_model = 512); as there, the projections have no bias.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .registry import architecture
from .specification import Axis, GraphSpec, Port


@dataclass(frozen=True)
class AttentionConfig:
    """Sizes; `embed_dim` is divided among the heads."""

    embed_dim: int = 512
    num_heads: int = 8


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention in `num_heads` sub-spaces of `embed_dim`."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(embed_dim, embed_dim, bias=False)
        self.key = nn.Linear(embed_dim, embed_dim, bias=False)
        self.value = nn.Linear(embed_dim, embed_dim, bias=False)
        self.output = nn.Linear(embed_dim, embed_dim, bias=False)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # (B, T, C), (B, S, C) ×2 -> (B, T, C)
        q = self.split(self.query(query))  # (B, heads, T, D)
        k = self.split(self.key(key))  # (B, heads, S, D)
        v = self.split(self.value(value))  # (B, heads, S, D)
        found = scaled_dot_product_attention(q, k, v)  # (B, heads, T, D)
        return self.output(found.transpose(1, 2).flatten(2))  # (B, T, C)

    def split(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, heads, T, D)
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


def attention_graphs(config: AttentionConfig) -> tuple[GraphSpec, ...]:
    """One graph: query (B, T, C) looked up in keys and values (B, S, C); S is tied between the two."""
    query = Port("query", ("batch", "target_sequence", config.embed_dim))
    key = Port("key", ("batch", "source_sequence", config.embed_dim))
    value = Port("value", ("batch", "source_sequence", config.embed_dim))
    output = Port("output", ("batch", "target_sequence", config.embed_dim))
    axes = (
        Axis("batch", 2, sweep=(1, 2, 3, 8)),
        Axis("target_sequence", 5, sweep=(1, 2, 7, 64)),
        Axis("source_sequence", 6, sweep=(1, 2, 7, 128)),
    )
    return (GraphSpec("attention", (query, key, value), (output,), axes),)


@architecture(
    "attention",
    paper="https://arxiv.org/abs/1706.03762",
    presets={"published": AttentionConfig(), "tiny": AttentionConfig(embed_dim=16, num_heads=4)},
    graphs=attention_graphs,
    parameters=1_048_576,
)
def build_attention(config: AttentionConfig) -> MultiHeadAttention:
    """The module of a config."""
    return MultiHeadAttention(config.embed_dim, config.num_heads)
