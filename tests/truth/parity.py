"""`make parity`: our networks against transformers and diffusers on the same random weights, written to docs/parity.md.

python -m tests.truth.parity [NAME…]      rows of other names stay as they are; all of them if none is given
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
import transformers

from onnx_arch.architectures.registry import find_architecture
from tests.architectures import test_architectures_diffusion_parity as diffusion
from tests.architectures import test_architectures_language as language

DOCUMENT = Path("docs/parity.md")
HEAD = """# Parity with the reference implementations

The same random weights in our module and in that of `transformers` or `diffusers`, the same inputs, float32 on the CPU.
The figure is the largest difference of an output over its largest value; allowed are 2 · 10⁻⁵. T5's queries are drawn
64 times smaller than the rest, as it does not divide scores. Made by `make parity`; networks without a row were not
measured.

| network | reference | parameters | difference | measured |
|---|---|---|---|---|
"""
ROW = re.compile(r"^\| (?P<name>[^|]+?) \|.*\|$", re.MULTILINE)

Measured = tuple[str, int, float]


def gpt2(**sizes: int) -> Measured:
    """Logits of 64 words, without a cache."""
    config = transformers.GPT2Config(**sizes)
    theirs = transformers.GPT2LMHeadModel(config)
    ours, ids = language.taken_over("gpt2", theirs), language.tokens(config.vocab_size, 1, 64)
    with torch.no_grad():
        found = diffusion.deviation(ours.score(ids, torch.ones_like(ids), ids), theirs(ids).logits)
    return "transformers", count(ours), found


def bert() -> Measured:
    """States and pooled state of two texts, one of them padded."""
    theirs = transformers.BertModel(transformers.BertConfig())
    ours = language.taken_over("bert", theirs)
    ids, mask, types = language.tokens(30522, 2, 64), language.padded(64, 40), language.tokens(2, 2, 64)
    with torch.no_grad():
        states, pooled = ours(ids, mask, types)
        wanted = theirs(ids, attention_mask=mask, token_type_ids=types)
    pairs = (states, wanted.last_hidden_state), (pooled, wanted.pooler_output)
    return "transformers", count(ours), max(diffusion.deviation(*pair) for pair in pairs)


def t5(**sizes: object) -> Measured:
    """Logits of 48 words about 64, one text of two padded.

    T5 does not divide scores by the root of the head size but learns smaller queries. Drawn large, they leave one word
    to look at, and which one hangs on the last place: float32 and float64 of one network differ by tenths.
    """
    theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes))
    ours = language.taken_over("t5", theirs)
    for module in (ours, theirs):
        for name, parameter in module.named_parameters():
            if name.endswith(".q.weight"):
                parameter.data *= SMALL_QUERIES
    ids, mask, words = language.tokens(32128, 2, 64), language.padded(64, 40), language.tokens(32128, 2, 48, seed=1)
    with torch.no_grad():
        wanted = theirs(input_ids=ids, attention_mask=mask, decoder_input_ids=words).logits
        return "transformers", count(ours), diffusion.deviation(ours(ids, mask, words), wanted)


def count(module: torch.nn.Module) -> int:
    """Number of parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def part(architecture: str, name: str, reference: str, compare: Callable[..., float], *sizes: int) -> Measured:
    """A part of an architecture at published size."""
    entry = find_architecture(architecture)
    config = entry.config("published")
    with torch.device("meta"):
        number = count(getattr(entry.build(config), {"text": "text_encoder"}.get(name, name)))
    return reference, number, compare(getattr(config, name), *sizes)


SMALL_QUERIES = 1 / 64
BASE = {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
GATED = {"d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
ROWS: dict[str, Callable[[], Measured]] = {
    "gpt2": gpt2,
    "gpt2 medium": lambda: gpt2(n_embd=1024, n_layer=24, n_head=16),
    "bert": bert,
    "t5": t5,
    "t5 base": lambda: t5(**BASE),
    "t5 v1.1-small": lambda: t5(**GATED),
    "clip text": lambda: part("stable-diffusion", "text", "transformers", diffusion.compare_clip),
    "autoencoder": lambda: part("stable-diffusion", "vae", "diffusers", diffusion.compare_vae, 64, 1),
    "ddpm": lambda: part("ddpm", "unet", "diffusers", diffusion.compare_ddpm, 32),
    "ldm text": lambda: part("latent-diffusion", "text", "diffusers", diffusion.compare_words),
    "stable-diffusion unet": lambda: part("stable-diffusion", "unet", "diffusers", diffusion.compare_unet, 16, 77, 1),
    "latent-diffusion unet": lambda: part("latent-diffusion", "unet", "diffusers", diffusion.compare_unet, 16, 77, 1),
}


def main(names: list[str]) -> int:
    """Measure, and write the document; 1 if anything differs by more than is allowed."""
    kept = {}
    if DOCUMENT.is_file():
        kept = {match["name"]: match[0] for match in ROW.finditer(DOCUMENT.read_text(encoding="utf-8"))}
    worst = 0.0
    for name in names or ROWS:
        reference, parameters, found = ROWS[name]()
        worst = max(worst, found)
        where = f"{datetime.now(UTC):%Y-%m-%d}, torch {torch.__version__}, {reference} {version(reference)}"
        kept[name] = f"| {name} | {reference} | {parameters:,} | {found:.1e} | {where} |"
        print(kept[name], flush=True)
        rows = "\n".join(kept[row] for row in ROWS if row in kept)
        DOCUMENT.write_text(f"{HEAD}{rows}\n\nPython {platform.python_version()}.\n", encoding="utf-8")
    return int(not worst <= diffusion.BOUND)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
