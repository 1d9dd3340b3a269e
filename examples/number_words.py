"""A T5 that reads a number digit by digit and writes it in words, in ONNX Runtime.

    python examples/number_words.py -o build/number-words
    onnx-arch generate build/number-words/t5 --tokenizer build/number-words/checkpoint --prompt 90210

The network is `t5` with 2 + 2 layers of 64 channels. It learns from numbers below a million, drawn at random with every
number of digits as likely as any other, and is asked for a thousand others that it has never seen. The answers come
from the exported graphs in ONNX Runtime, by both forms of the loop; one is right only if every word is.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from figures import write_figures
from torch.nn.functional import cross_entropy

from onnx_arch.architectures.registry import find_architecture
from onnx_arch.architectures.t5 import T5, T5Config
from onnx_arch.exporters.export import export_architecture
from onnx_arch.generation.request import Request
from onnx_arch.generation.texts import padded, read_plan, run_loop, run_one_file

TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
ONES = [*"zero one two three four five six seven eight nine".split(), *TEENS.split()]  # noqa: SIM905 - read as words
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905 - as above
SPECIAL = ["<pad>", "</s>", "<unk>"]
VOCABULARY = [*SPECIAL, *"0123456789", *ONES, *TENS, "hundred", "thousand"]
NUMBER = {word: index for index, word in enumerate(VOCABULARY)}
DIGITS = 6


def in_words(number: int) -> list[str]:
    """English words of a number below a million."""
    if number >= 1000:
        rest = number % 1000
        return [*in_words(number // 1000), "thousand", *(in_words(rest) if rest else [])]
    if number >= 100:
        rest = number % 100
        return [ONES[number // 100], "hundred", *(in_words(rest) if rest else [])]
    if number >= len(ONES):
        tens, ones = divmod(number, 10)
        return [TENS[tens - 2], *([ONES[ones]] if ones else [])]
    return [ONES[number]]


def digits(number: int) -> list[int]:
    """Token ids of a number and the end token."""
    return [*(NUMBER[digit] for digit in str(number)), 1]


def words(number: int) -> list[int]:
    """Token ids of its words and the end token."""
    return [*(NUMBER[word] for word in in_words(number)), 1]


def draw(rng: np.random.Generator, count: int) -> list[int]:
    """Numbers with 1 to 6 digits, every length as likely."""
    highest = 10 ** rng.integers(1, DIGITS + 1, count)
    return [int(number) for number in rng.integers(0, highest)]


def table(rows: list[list[int]]) -> torch.Tensor:
    """Rows of different lengths, padded behind."""
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


def train(module: T5, held_out: set[int], steps: int, batch: int, seed: int) -> None:
    """Predict every next word of the right answer."""
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01)
    warm = max(steps // 20, 1)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    for step in range(steps):
        numbers = [number for number in draw(rng, batch) if number not in held_out]
        given, wanted = table([digits(number) for number in numbers]), table([words(number) for number in numbers])
        begun = torch.cat((torch.zeros_like(wanted[:, :1]), wanted[:, :-1]), dim=1)  # shifted right, (B, T)
        logits = module(given, (given != 0).long(), begun)  # (B, T, vocab)
        loss = cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.4f}", flush=True)


def initialize(module: T5, config: T5Config, seed: int) -> None:
    """As published: deviation 1/√fan-in, for queries 1/√(fan-in · head size), because nothing divides the scores."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            deviation = parameter.shape[1] ** -0.5
            deviation *= config.head_dim**-0.5 if name.endswith("q.weight") else 1.0
            deviation = 1.0 if name.startswith("shared") else deviation
            torch.nn.init.normal_(parameter, 0.0, deviation, generator=generator)


def save(module: T5, config: T5Config, folder: Path) -> None:
    """Write the checkpoint as the ecosystem lays it out: config.json, model.safetensors, tokenizer.json."""
    from safetensors.torch import save_file  # noqa: PLC0415 - here only

    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"vocab_size": config.vocab_size, "d_model": config.embed_dim, "d_kv": config.head_dim}
    sizes |= {"d_ff": config.hidden_dim, "num_layers": config.num_layers, "num_heads": config.num_heads}
    buckets = {"relative_attention_num_buckets": config.num_buckets}
    buckets |= {"relative_attention_max_distance": config.max_distance}
    content = {
        "model_type": "t5",
        **sizes,
        **buckets,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "decoder_start_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    layout = find_architecture("t5").checkpoints[0]
    state = {layout.restore(key): value.contiguous() for key, value in module.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    digit_tokenizer().save(str(folder / "tokenizer.json"))


def digit_tokenizer():
    """Digits one by one, words by spaces, the end token behind."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors  # noqa: PLC0415 - here only

    tokenizer = Tokenizer(models.WordLevel(NUMBER, "<unk>"))
    apart = [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(apart)
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL])
    return tokenizer


def main() -> None:
    """Train, export, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("build/number-words"))
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="so small a network gains nothing by a second one")
    parser.add_argument("--document", action="store_true", help="write the figures into docs/examples.md")
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    torch.set_num_threads(asked.threads)

    held_out = sorted({number for number in draw(np.random.default_rng(asked.seed + 1), 2000) if number > 99})
    held_out = np.random.default_rng(asked.seed).permutation(held_out)[:1000].tolist()
    config = T5Config(
        len(VOCABULARY), 64, head_dim=16, hidden_dim=256, num_layers=2, num_decoder_layers=2, num_heads=4,
        num_buckets=16, max_distance=32,
    )  # fmt: skip
    module = T5(config)
    initialize(module, config, asked.seed)
    begin = time.process_time()
    train(module, set(held_out), asked.steps, asked.batch, asked.seed)
    trained_s = time.process_time() - begin
    checkpoint = asked.output / "checkpoint"
    save(module.eval(), config, checkpoint)

    bundle = export_architecture("t5", asked.output, weights=checkpoint, loop=True, say=print)
    plan, one_file = read_plan(bundle.manifest)
    prompts = padded([digits(number) for number in held_out], plan)
    answers = {
        "driven from Python": run_loop(bundle.path, bundle.manifest, prompts, 20, Request()),
        "as one file": run_one_file(bundle.path, one_file, prompts, 20, Request()),
    }
    right = {form: sum(map(is_right, held_out, rows.tolist())) for form, rows in answers.items()}
    rows = [
        ("parameters", f"{bundle.manifest['parameters']:,}"),
        ("training", f"{asked.steps} steps of {asked.batch} numbers, {trained_s:.0f} s of one processor"),
        *(
            (f"numbers never seen, all words right, loop {form}", f"{count / len(held_out):.1%} of {len(held_out)}")
            for form, count in right.items()
        ),
    ]
    for what, figure in rows:
        print(f"{what}: {figure}")
    shown = [
        f"{number}: {text(row)}" for number, row in zip(held_out[:6], answers["as one file"].tolist(), strict=False)
    ]
    print("\n".join(shown))
    if asked.document:
        write_figures("number-words", rows, "\n".join(shown))


def is_right(number: int, row: list[int]) -> bool:
    """Whether a sequence is the number's words, ended."""
    wanted = [0, *words(number)]
    return row[: len(wanted)] == wanted


def text(row: list[int]) -> str:
    """The words of a sequence."""
    return " ".join(VOCABULARY[token] for token in row if token > 1)


if __name__ == "__main__":
    main()
