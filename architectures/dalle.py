"""DALL-E: a discrete autoencoder, and a sparse transformer that appends picture tokens to the words of a prompt.

Paper: Ramesh, Pavlov, Goh, Gray, Voss, Radford, Chen, Sutskever, "Zero-shot text-to-image generation",
https://arxiv.org/abs/2102.12092, section 2 and appendices A and B: 256 words of 16,384, 32×32 picture tokens of 8192,
64 layers of 62 heads × 64. The transformer's weights were never published; what the paper leaves open is said below.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from ._discrete_vae import DiscreteDecoder, DiscreteEncoder, DiscreteVAEConfig
from ._sequences import Cache, KeyValue, as_bias, cache_nest, cache_ports, extend, merge_heads, split_heads
from .registry import architecture
from .specification import PLAIN, Axis, CheckpointLayout, GraphSpec, Port, TokenPictureGeneration


@dataclass(frozen=True)
class DalleConfig:
    """Sizes.

    Attributes:
        vae: the discrete autoencoder.
        text_vocab_size: words there are.
        text_length: words of a prompt; where it is shorter, padding stands, a word of its own at every position.
        grid_size: height and width of the picture in tokens.
        num_layers: of the transformer.
        num_heads: of every attention.
        head_dim: channels of a head; the model has num_heads × head_dim channels.
        conv_size: height and width of the window of the last layer's attention.
    """

    vae: DiscreteVAEConfig = field(default_factory=DiscreteVAEConfig)
    text_vocab_size: int = 16384
    text_length: int = 256
    grid_size: int = 32
    num_layers: int = 64
    num_heads: int = 62
    head_dim: int = 64
    conv_size: int = 11

    @property
    def embed_dim(self) -> int:
        """Channels of the model."""
        return self.num_heads * self.head_dim

    @property
    def padding_start(self) -> int:
        """The number of the first padding word; the others follow, one per position."""
        return self.text_vocab_size

    @property
    def image_start(self) -> int:
        """The number of the first picture token."""
        return self.text_vocab_size + self.text_length

    @property
    def vocab_size(self) -> int:
        """All numbers that can be predicted: words, padding, picture tokens."""
        return self.image_start + self.vae.num_codes

    @property
    def start_token_id(self) -> int:
        """What stands before the first word; it is never predicted."""
        return self.vocab_size

    @property
    def num_positions(self) -> int:
        """Places of the sequence: the start token, the words, and all picture tokens but the last."""
        return self.text_length + self.grid_size**2


def attention_kind(layer: int, num_layers: int) -> str:
    """Row, column or convolutional attention, by the layer's number from 1 (appendix B.1).

    Column where (layer − 2) mod 4 = 0, convolutional in the last one, row elsewhere.
    """
    if layer == num_layers:
        return "conv"
    return "column" if (layer - 2) % 4 == 0 else "row"


def sparse_mask(kind: str, text_length: int, grid_size: int, conv_size: int) -> np.ndarray:
    """Which earlier places a place sees: (positions, positions) booleans, as drawn in figure 11.

    Words see the words before them; picture tokens see all words. Among themselves, "row" is the last `grid_size`
    tokens in raster order, "column" those above, "conv" those of a `conv_size` × `conv_size` window centred on them;
    the window runs on at the edges into the row before or after, as the rows of "row" do. A place sees itself.
    """
    places = np.arange(text_length + grid_size**2)
    query, key = places[:, None], places[None, :]
    last_word = text_length  # the start token is at 0
    behind = query - key
    if kind == "column":
        seen = behind % grid_size == 0
    elif kind == "conv":
        half = conv_size // 2
        rows = (behind + half) // grid_size
        seen = (rows <= half) & (np.abs(behind - rows * grid_size) <= half)
    else:
        seen = behind <= grid_size
    return (behind >= 0) & ((query <= last_word) | (key <= last_word) | seen)


class SparseAttention(nn.Module):
    """Multi-head attention with a cache."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.out = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, bias: Tensor, past: KeyValue) -> tuple[Tensor, KeyValue]:  # (B, T, C) -> (B, T, C)
        q, k, v = (split_heads(part, self.num_heads) for part in self.qkv(x).chunk(3, dim=2))  # (B, heads, T, D)
        key, value = extend(past, k, v)  # (B, heads, past + T, D)
        return self.out(merge_heads(scaled_dot_product_attention(q, key, value, attn_mask=bias))), (key, value)


class SparseBlock(nn.Module):
    """Attention, then feed-forward, each normalised before and added to what came in."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(embed_dim)
        self.attention = SparseAttention(embed_dim, num_heads)
        self.hidden_norm = nn.LayerNorm(embed_dim)
        self.hidden = nn.Linear(embed_dim, 4 * embed_dim)
        self.output = nn.Linear(4 * embed_dim, embed_dim)

    def forward(self, x: Tensor, bias: Tensor, past: KeyValue) -> tuple[Tensor, KeyValue]:  # (B, T, C) -> (B, T, C)
        found, present = self.attention(self.attention_norm(x), bias, past)
        x = x + found
        return x + self.output(gelu(self.hidden(self.hidden_norm(x)))), present


class DalleTransformer(nn.Module):
    """Words, then picture tokens: each is predicted from those before it."""

    def __init__(self, config: DalleConfig) -> None:
        super().__init__()
        dim, self.config = config.embed_dim, config
        self.tokens = nn.Embedding(config.vocab_size + 1, dim)
        self.text_positions = nn.Embedding(config.text_length + 1, dim)
        self.rows = nn.Embedding(config.grid_size, dim)
        self.columns = nn.Embedding(config.grid_size, dim)
        self.blocks = nn.ModuleList(SparseBlock(dim, config.num_heads) for _ in range(config.num_layers))
        self.kinds = [attention_kind(layer, config.num_layers) for layer in range(1, config.num_layers + 1)]
        for kind in dict.fromkeys(self.kinds):
            mask = sparse_mask(kind, config.text_length, config.grid_size, config.conv_size)
            setattr(self, f"{kind}_mask", torch.from_numpy(mask))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, config.vocab_size)

    def forward(self, input_ids: Tensor, past_key_values: Cache) -> tuple[Tensor, Cache]:
        """Score the token after each of the new ones.

        Args:
            input_ids: (B, T), the new tokens: the start token first of all.
            past_key_values: per layer, (B, heads, past, D) twice; of length 0 at the beginning.

        Returns:
            Logits (B, T, vocab), and the cache with the new tokens in it.
        """
        past, length = past_key_values[0][0].shape[2], input_ids.shape[1]
        places = torch.arange(length, device=input_ids.device) + past  # (T,)
        x = self.tokens(input_ids) + self.position(places)  # (B, T, C)
        biases = {kind: self.bias(kind, places, past + length, x.dtype) for kind in dict.fromkeys(self.kinds)}
        presents = []
        for block, kind, cached in zip(self.blocks, self.kinds, past_key_values, strict=True):
            x, present = block(x, biases[kind], cached)
            presents.append(present)
        return self.head(self.norm(x)), tuple(presents)

    def position(self, places: Tensor) -> Tensor:  # (T,) -> (T, C)
        """Words have a position, picture tokens a row and a column (figure 10)."""
        config = self.config
        inside = (places - config.text_length - 1).clamp(min=0)
        picture = self.rows(inside // config.grid_size) + self.columns(inside % config.grid_size)
        text = self.text_positions(places.clamp(max=config.text_length))
        return torch.where((places > config.text_length)[:, None], picture, text)

    def bias(self, kind: str, places: Tensor, length: int, dtype: torch.dtype) -> Tensor:  # (T, past + T)
        """The kind's mask for the new places, to be added to scores."""
        return as_bias(getattr(self, f"{kind}_mask")[places][:, :length], dtype)

    def empty_cache(self, batch: int) -> Cache:
        """The cache before the first token."""
        empty = self.norm.weight.new_zeros((batch, self.config.num_heads, 0, self.config.head_dim))
        return tuple((empty, empty) for _ in self.blocks)


class Dalle(nn.Module):
    """Encoder, decoder and transformer; `forward` draws what a prompt says, the best token each time."""

    def __init__(self, config: DalleConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = DiscreteEncoder(config.vae)
        self.decoder = DiscreteDecoder(config.vae)
        self.transformer = DalleTransformer(config)

    def forward(self, words: Tensor) -> Tensor:
        """From words to a picture.

        Args:
            words: (B, text_length), padded with the padding words of their positions.

        Returns:
            (B, 3, H, W) in [0, 1].
        """
        config = self.config
        start = torch.full((len(words), 1), config.start_token_id)
        new, cache, codes = torch.cat([start, words], dim=1), self.transformer.empty_cache(len(words)), []
        for _ in range(config.grid_size**2):
            logits, cache = self.transformer(new, cache)
            best = logits[:, -1, config.image_start :].argmax(dim=1)  # (B,)
            codes.append(best)
            new = best[:, None] + config.image_start
        return self.decoder(torch.stack(codes, dim=1).unflatten(1, (config.grid_size, config.grid_size)))


def dalle_graphs(config: DalleConfig) -> tuple[GraphSpec, ...]:
    """Encoder to code scores, transformer with its cache, decoder from codes."""
    vae = config.vae
    batch, factor = Axis("batch", 2, sweep=(1,)), vae.factor
    sides = tuple(Axis(name, 3 * factor, sweep=(factor, 2 * factor)) for name in ("height", "width"))
    picture = Port("sample", ("batch", vae.image_channels, "height", "width"))
    scores = Port("code_logits", ("batch", vae.num_codes, f"height/{factor}", f"width/{factor}"))
    grid = tuple(Axis(name, 4, sweep=(1, 3)) for name in ("height", "width"))
    codes = Port("codes", ("batch", "height", "width"), "int64", "integers", vae.num_codes)
    decoded = Port("sample", ("batch", vae.image_channels, f"{factor}*height", f"{factor}*width"))
    return (
        GraphSpec("encoder", (picture,), (scores,), (batch, *sides), part=lambda model: model.encoder),
        _transformer_graph(config, batch),
        GraphSpec("decoder", (codes,), (decoded,), (batch, *grid), part=lambda model: model.decoder),
    )


def _transformer_graph(config: DalleConfig, batch: Axis) -> GraphSpec:
    """One graph for prefill (past 0), decoding (sequence 1) and chunks; all places at most."""
    sizes = config.num_layers, config.num_heads, config.head_dim
    tokens = Port("input_ids", ("batch", "sequence"), "int64", "integers", config.vocab_size)
    past = cache_ports("past_key_values", sizes, "past")
    outputs = (
        Port("logits", ("batch", "sequence", config.vocab_size)),
        *cache_ports("present", sizes, "past+sequence"),
    )
    most = config.num_positions // 2
    axes = (batch, Axis("sequence", 5, sweep=(1, 2, most)), Axis("past", 4, sweep=(0, 1, most)))
    nest = ("input_ids", cache_nest(past))
    return GraphSpec("transformer", (tokens, *past), outputs, axes, nest, part=lambda model: model.transformer)


def dalle_generation(config: DalleConfig) -> TokenPictureGeneration:
    """A prompt's picture, token by token."""
    return TokenPictureGeneration(
        config.text_length,
        config.text_vocab_size,
        config.image_start,
        config.vae.num_codes,
        config.start_token_id,
        config.grid_size,
    )


RELEASED = CheckpointLayout(
    "openai",
    renames=((r"\.w$", ".weight"), (r"\.b$", ".bias")),
    restores=((r"^((?:encoder|decoder)\..*)\.weight$", r"\1.w"), (r"^((?:encoder|decoder)\..*)\.bias$", r"\1.b")),
    optional=(r"^transformer\.",),
)
"""The released autoencoder: its two files' keys behind `encoder.` and `decoder.`; it has no transformer."""


@architecture(
    "dalle",
    paper="https://arxiv.org/abs/2102.12092",
    presets={
        "published": DalleConfig(),
        "mid": DalleConfig(num_layers=12, num_heads=12),
        "tiny": DalleConfig(
            DiscreteVAEConfig(num_codes=13, hidden=8, initial=6, num_groups=3, blocks_per_group=1),
            text_vocab_size=11,
            text_length=6,
            grid_size=4,
            num_layers=4,
            num_heads=2,
            head_dim=8,
            conv_size=3,
        ),
    },
    graphs=dalle_graphs,
    parameters=12_391_473_030,
    checkpoints=(RELEASED, PLAIN),
    generation=dalle_generation,
)
def build_dalle(config: DalleConfig) -> Dalle:
    """The module of a config."""
    return Dalle(config)
