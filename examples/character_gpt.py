"""A GPT-2 of characters that learns to write Python's own documentation, and writes it in ONNX Runtime.

    python examples/character_gpt.py -o build/character-gpt

The text is the language reference that every Python brings along (`pydoc_data.topics`): 465,000 characters, the last
tenth held out. The network is `gpt2` with 3 layers of 128 channels that sees 128 characters. What is measured, is
measured on the exported graphs in ONNX Runtime: bits per character of the held-out text beside those of counting
characters, pairs and triples; and whether both forms of the loop, driven from Python and as one file, write the same.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from figures import write_figures
from torch.nn.functional import cross_entropy

from onnx_arch.architectures.gpt2 import GPT2, GPT2Config
from onnx_arch.architectures.registry import find_architecture
from onnx_arch.exporters.export import export_architecture
from onnx_arch.generation.request import Request, Silent
from onnx_arch.generation.sessions import BoundSession
from onnx_arch.generation.texts import generate_text

CONTEXT = 128
END = "\x00"
"""The end token: it stands before and behind the text."""


def read_text() -> str:
    """The language reference, topic after topic; rare characters are left out."""
    from pydoc_data.topics import topics  # noqa: PLC0415 - half a megabyte

    text = "\n\n".join(topics[name] for name in sorted(topics))
    return "".join(c for c in text if c.isascii())


def split_text(text: str) -> tuple[str, str]:
    """Nine tenths to learn from, and the last tenth."""
    edge = len(text) * 9 // 10
    return text[:edge], text[edge:]


def train(module: GPT2, ids: torch.Tensor, steps: int, batch: int, seed: int) -> None:
    """Predict every next character of random stretches; AdamW, a linear warm-up and a cosine down."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    warm = max(steps // 20, 1)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    for step in range(steps):
        starts = torch.randint(len(ids) - CONTEXT - 1, (batch, 1), generator=generator)
        stretch = ids[starts + torch.arange(CONTEXT + 1)]  # (B, T + 1)
        given, wanted = stretch[:, :-1], stretch[:, 1:]
        logits = module.score(given, torch.ones_like(given), given)  # (B, T, vocab)
        loss = cross_entropy(logits.flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if step % 50 == 0:
            print(f"step {step} of {steps}: {loss.item() / math.log(2):.3f} bits per character", flush=True)


def initialize(module: GPT2, seed: int) -> None:
    """Normal weights of deviation 0.02, those before a sum smaller with depth (GPT-2's paper, section 2.3)."""
    generator = torch.Generator().manual_seed(seed)
    layers = len(module.h)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            deviation = 0.02 / math.sqrt(2 * layers) if name.endswith("c_proj.weight") else 0.02
            torch.nn.init.normal_(parameter, 0.0, deviation, generator=generator)
        elif name.endswith("bias"):
            torch.nn.init.zeros_(parameter)


def save(module: GPT2, config: GPT2Config, alphabet: str, folder: Path) -> None:
    """Write the checkpoint as the ecosystem lays it out: config.json, model.safetensors, tokenizer.json."""
    from safetensors.torch import save_file  # noqa: PLC0415 - here only

    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"vocab_size": config.vocab_size, "n_positions": config.num_positions, "n_embd": config.embed_dim}
    sizes |= {"n_layer": config.num_layers, "n_head": config.num_heads, "n_inner": config.hidden_dim}
    content = {"model_type": "gpt2", **sizes, "eos_token_id": config.eos_token_id}
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    layout = find_architecture("gpt2").checkpoints[0]
    state = {
        layout.restore(key): (value.t() if layout.is_transposed(key) else value).contiguous()
        for key, value in module.state_dict().items()
    }
    save_file(state, folder / "model.safetensors")
    character_tokenizer(alphabet).save(str(folder / "tokenizer.json"))


def character_tokenizer(alphabet: str):
    """Every character is a token."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415 - here only

    tokenizer = Tokenizer(models.WordLevel({character: index for index, character in enumerate(alphabet)}, END))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    return tokenizer


def bits_per_character(session: BoundSession, ids: np.ndarray, config: GPT2Config) -> float:
    """Of a text in the exported graph: stretches of full length, the last half of each counted."""
    layers = range(config.num_layers)
    total = count = 0.0
    half = CONTEXT // 2
    starts = np.arange(0, len(ids) - CONTEXT - 1, half)
    for chosen in np.array_split(starts, max(len(starts) // 32, 1)):
        stretch = ids[chosen[:, None] + np.arange(CONTEXT + 1)]  # (B, T + 1)
        empty = np.zeros((len(chosen), config.num_heads, 0, config.embed_dim // config.num_heads), np.float32)
        feeds = {f"past_key_values.{layer}.{kind}": empty for layer in layers for kind in ("key", "value")}
        given = stretch[:, :-1]
        feeds |= {"input_ids": given, "attention_mask": np.ones_like(given)}
        feeds["position_ids"] = np.tile(np.arange(CONTEXT), (len(given), 1))
        logits = session.run(feeds, ["logits"])["logits"].numpy().astype(np.float64)[:, half:]
        wanted = stretch[:, 1 + half :, None]
        logits -= logits.max(axis=2, keepdims=True)
        chance = np.take_along_axis(logits, wanted, 2)[..., 0] - np.log(np.exp(logits).sum(axis=2))
        total, count = total - chance.sum() / math.log(2), count + chance.size
    return total / count


def counted_bits(learned: str, held_out: str, order: int) -> float:
    """Bits per character of counting what follows `order` characters, one added to every count."""
    size = len(set(learned))
    after = Counter(learned[i : i + order + 1] for i in range(len(learned) - order))
    before = Counter(learned[i : i + order] for i in range(len(learned) - order))
    bits = (
        math.log2((before[held_out[i : i + order]] + size) / (after[held_out[i : i + order + 1]] + 1))
        for i in range(len(held_out) - order)
    )
    return sum(bits) / (len(held_out) - order)


def known_words(text: str, learned: str) -> float:
    """Which share of the words (three letters and more) of a text is in the text that was learned."""
    import re  # noqa: PLC0415 - here only

    known = set(re.findall(r"[A-Za-z]{3,}", learned))
    words = re.findall(r"[A-Za-z]{3,}", text)[:-1]
    return sum(word in known for word in words) / max(len(words), 1)


def main() -> None:
    """Train, export, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("build/character-gpt"))
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="so small a network gains little by a second one")
    parser.add_argument("--document", action="store_true", help="write the figures into docs/examples.md")
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    torch.set_num_threads(asked.threads)

    learned, held_out = split_text(read_text())
    alphabet = END + "".join(sorted(set(learned)))
    number = {character: index for index, character in enumerate(alphabet)}
    ids = {name: np.array([number.get(c, 0) for c in text]) for name, text in (("learn", learned), ("rest", held_out))}
    config = GPT2Config(len(alphabet), CONTEXT, 128, num_layers=3, num_heads=4, hidden_dim=512, eos_token_id=0)
    module = GPT2(config)
    initialize(module, asked.seed)
    begin = time.process_time()
    train(module, torch.from_numpy(ids["learn"]), asked.steps, asked.batch, asked.seed)
    trained_s = time.process_time() - begin
    save(module.eval(), config, alphabet, asked.output / "checkpoint")

    checkpoint = asked.output / "checkpoint"
    bundle = export_architecture("gpt2", asked.output, weights=checkpoint, loop=True, say=print)
    bits = bits_per_character(BoundSession(bundle.path / "model.onnx"), ids["rest"], config)
    options = {"prompt": "The ", "temperature": 0.7, "top_p": 0.95, "seed": 1, "max_length": CONTEXT}
    texts = [
        generate_text(
            bundle.path, bundle.manifest, Request(**options, tokenizer=checkpoint, count=8, one_file=form), Silent()
        ).texts
        for form in (False, True)
    ]
    rows = [
        ("parameters", f"{bundle.manifest['parameters']:,}"),
        (
            "training",
            f"{asked.steps} steps of {asked.batch} × {CONTEXT} characters, {trained_s:.0f} s of one processor",
        ),
        ("held-out text in ONNX Runtime", f"{bits:.2f} bits per character"),
        *(
            (f"the same by counting {what}", f"{counted_bits(learned, held_out, order):.2f} bits per character")
            for what, order in (("characters", 0), ("pairs", 1), ("triples", 2))
        ),
        ("words of 8 sampled texts that the reference has", f"{known_words(' '.join(texts[0]), learned):.0%}"),
        (
            "loop driven from Python = loop as one file",
            f"{sum(a == b for a, b in zip(*texts, strict=True))} of 8 texts",
        ),
    ]
    for what, figure in rows:
        print(f"{what}: {figure}")
    print(texts[0][0])
    if asked.document:
        write_figures("character-gpt", rows, texts[0][0])


if __name__ == "__main__":
    main()
