"""What the language models share: heads, masks as biases of attention scores, and the ports of a cache.

A cache holds, per layer, the keys and values of the tokens that were seen. With it one graph serves prefill (nothing is
cached), decoding (one new token) and chunks: query i of the new tokens stands at position past + i.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .specification import Axis, GraphSpec, Port

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of one attention, (B, heads, S, D) each."""

Cache = tuple[KeyValue, ...]
"""One pair per layer."""


def split_heads(x: Tensor, num_heads: int) -> Tensor:  # (B, T, C) -> (B, heads, T, D)
    """The channels divided among the heads."""
    return x.unflatten(2, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:  # (B, heads, T, D) -> (B, T, C)
    """The inverse of `split_heads`."""
    return x.transpose(1, 2).flatten(2)


def extend(past: KeyValue, key: Tensor, value: Tensor) -> KeyValue:
    """The cache with new keys and values behind it."""
    return torch.cat((past[0], key), dim=2), torch.cat((past[1], value), dim=2)


def as_bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a key may be seen and the lowest number of the type elsewhere, to be added to scores.

    The lowest number and not −∞: a query that may see no key at all then sees all of them equally, and gives no NaN.
    """
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


def key_mask(attention_mask: Tensor) -> Tensor:  # (B, S) -> (B, 1, 1, S)
    """Which keys any query may see."""
    return attention_mask[:, None, None, :] != 0


def distances(past: int, length: int, device: torch.device) -> Tensor:  # (T, past + T)
    """How far behind its query every key stands; negative where it stands before it (in the future)."""
    queries = torch.arange(length, device=device) + past  # (T,)
    keys = torch.arange(past + length, device=device)  # (past + T,)
    return queries[:, None] - keys[None, :]


class TiedHead(nn.Module):
    """Scores of all words: how well each one's embedding matches."""

    def forward(self, x: Tensor, embeddings: Tensor) -> Tensor:  # (B, T, C), (vocab, C) -> (B, T, vocab)
        return linear(x, embeddings)


def cache_ports(prefix: str, sizes: tuple[int, int, int], length: str, kind: str = "") -> tuple[Port, ...]:
    """Ports of a cache as the ecosystem names them: `past_key_values.0.key`, `present.0.decoder.value`, …

    Args:
        prefix: "past_key_values" or "present".
        sizes: number of layers, heads of a layer, channels of a head.
        length: the axis of the cached tokens.
        kind: "decoder" or "encoder" where there are both.
    """
    num_layers, num_heads, head_dim = sizes
    shape = ("batch", num_heads, length, head_dim)
    stem = f".{kind}" if kind else ""
    return tuple(
        Port(f"{prefix}.{layer}{stem}.{name}", shape) for layer in range(num_layers) for name in ("key", "value")
    )


def cache_nest(ports: tuple[Port, ...]) -> tuple[tuple[str, str], ...]:
    """The ports' names as a nest of pairs."""
    names = [port.name for port in ports]
    return tuple(zip(names[::2], names[1::2], strict=True))


def encoder_decoder_graphs(
    vocab_size: int, embed_dim: int, sizes: tuple[int, int, int], encoding: type[nn.Module], decoding: type[nn.Module]
) -> tuple[GraphSpec, ...]:
    """The graphs of an encoder and a decoder with a cache of its own words and one of the encoder's.

    Args:
        vocab_size: tokens there are.
        embed_dim: channels.
        sizes: number of the decoder's layers, heads of a layer, channels of a head.
        encoding: from the whole module to the one whose `forward` is the encoder's graph.
        decoding: likewise of the decoder's.
    """
    source = ("batch", "encoder_sequence")
    batch, encoder_sequence = Axis("batch", 2, sweep=(1, 2, 3)), Axis("encoder_sequence", 6, sweep=(1, 2, 19))
    words = (
        Port("input_ids", source, "int64", "integers", vocab_size),
        Port("attention_mask", source, "int64", "mask"),
    )
    states = (
        Port("last_hidden_state", (*source, embed_dim)),
        *cache_ports("present", sizes, "encoder_sequence", "encoder"),
    )
    encoder = GraphSpec("encoder", words, states, (batch, encoder_sequence), part=encoding)
    own = cache_ports("past_key_values", sizes, "past", "decoder")
    theirs = cache_ports("past_key_values", sizes, "encoder_sequence", "encoder")
    tokens = (
        Port("input_ids", ("batch", "sequence"), "int64", "integers", vocab_size),
        Port("encoder_attention_mask", source, "int64", "mask"),
    )
    results = (
        Port("logits", ("batch", "sequence", vocab_size)),
        *cache_ports("present", sizes, "past+sequence", "decoder"),
    )
    axes = (batch, Axis("sequence", 3, sweep=(1, 2, 9)), Axis("past", 4, sweep=(0, 1, 21)), encoder_sequence)
    arguments = (*(port.name for port in tokens), cache_nest(own), cache_nest(theirs))
    decoder = GraphSpec("decoder", (*tokens, *own, *theirs), results, axes, arguments, part=decoding)
    return encoder, decoder
