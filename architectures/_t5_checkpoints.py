"""Keys of T5's checkpoints, and what their `config.json` leaves open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .specification import PLAIN, CheckpointLayout

MULTILINGUAL = {
    "vocab_size": 250112,
    "d_ff": 1024,
    "num_layers": 8,
    "num_heads": 6,
    "feed_forward_proj": "gated-gelu",
    "scale_decoder_outputs": False,
}
"""What an mT5's `config.json` means by a setting that is not in it: version 1.1 for many languages."""


def t5_untied(content: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a folder whose head is not its embedding, though it says so: what the head reads stays scaled."""
    return {"scale_decoder_outputs": True, **content, "tie_word_embeddings": False}


STRAY = (r"^decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$", "")
EMBEDDINGS = (r"^(encoder|decoder)\.embed_tokens\.weight$", "shared.weight")

LAYOUTS = (
    CheckpointLayout(
        "huggingface", (STRAY, EMBEDDINGS, (r"^lm_head\.weight$", "shared.weight")), restores=((r"^", ""),)
    ),
    CheckpointLayout("huggingface, untied", (STRAY, EMBEDDINGS), restores=((r"^", ""),)),
    PLAIN,
)
