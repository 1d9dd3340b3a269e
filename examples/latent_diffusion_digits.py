"""A latent diffusion that draws the digit named in its prompt, trained in minutes on two cores and run by ONNX Runtime.

    python examples/latent_diffusion_digits.py -o build/digits
    onnx-arch generate build/digits/latent-diffusion --prompt "the digit seven" -o seven.png

Trains the architecture `latent-diffusion` at a small size on scikit-learn's handwritten digits: first the autoencoder,
then text encoder and U-Net together. Writes the weights as a diffusers folder with a tokenizer, exports them as
`onnx-arch export latent-diffusion --weights … --loop` does, lets ONNX Runtime draw every digit from the graphs and from
the one-file graph, and asks a classifier that has seen only real digits what it sees. `digits.png` shows ten of each.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import write_figures
from PIL import Image
from proved import checked
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from onnx_arch.architectures._autoencoder import Autoencoder
from onnx_arch.architectures.registry import find_architecture
from onnx_arch.exporters.export import export_architecture
from onnx_arch.generation.pictures import generate_picture
from onnx_arch.generation.request import Request, Silent

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = ("the", "digit", *NAMES)
START, END, POSITIONS, VOCABULARY = 101, 102, 6, 103
"""The words around a prompt have BERT's numbers, as in the published model."""

WITHOUT_PROMPT = 0.15
"""Share of the pictures that are learnt without a prompt: what guidance moves away from."""

LATENTS, FACTOR, SIDE = 4, 2, 8
KL_WEIGHT = 1e-4
GRAPHS = ("text_encoder", "unet", "vae_decoder")
BATCH = 64

UNET = {
    "_class_name": "UNet2DConditionModel",
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "in_channels": LATENTS,
    "out_channels": LATENTS,
    "sample_size": SIDE // FACTOR,
}
VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [16, 32],
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "latent_channels": LATENTS,
    "scaling_factor": 1.0,
}
BERT = {
    "d_model": 32,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "head_dim": 16,
    "encoder_ffn_dim": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": POSITIONS,
}


def pictures() -> tuple[Tensor, Tensor]:
    """All digits as (N, 3, 8, 8) in [−1, 1], and their values."""
    digits = load_digits()
    gray = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1  # (N, 1, 8, 8)
    return gray.expand(-1, 3, -1, -1).contiguous(), torch.tensor(digits.target)


def tokens(labels: Tensor, *, empty: Tensor | None = None) -> Tensor:
    """`the digit seven` as token ids (B, positions); the empty prompt where `empty`."""
    rows = [[START, 1, 2, 3 + int(label), END, 0] for label in labels]
    ids = torch.tensor(rows)
    nothing = torch.tensor([START, END, *[0] * (POSITIONS - 2)])
    return ids if empty is None else torch.where(empty[:, None], nothing, ids)


def tokenizer() -> Tokenizer:
    """Words by number, [CLS] and [SEP] around them."""
    numbers = {"[PAD]": 0, **{word: index + 1 for index, word in enumerate(WORDS)}, "[CLS]": START, "[SEP]": END}
    built = Tokenizer(models.WordLevel(numbers, unk_token="[PAD]"))  # noqa: S106 - a word
    built.pre_tokenizer = pre_tokenizers.Whitespace()
    built.post_processor = processors.BertProcessing(("[SEP]", END), ("[CLS]", START))
    return built


def train_autoencoder(vae: Autoencoder, images: Tensor, steps: int) -> float:
    """Learn to encode and decode; returns 1 / deviation of the latents, the scale that makes their variance one."""
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        batch = images[torch.randint(len(images), (BATCH,))]
        mean, log_variance = vae.encode(batch).chunk(2, dim=1)
        latent = mean + torch.randn_like(mean) * (log_variance.clamp(-20, 10) / 2).exp()
        divergence = (mean**2 + log_variance.exp() - 1 - log_variance).mean() / 2
        loss = mse_loss(vae.decode(latent), batch) + KL_WEIGHT * divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return 1 / float(vae.encode(images[:500]).chunk(2, dim=1)[0].std())


def train_diffusion(model: Any, latents: Tensor, labels: Tensor, steps: int) -> None:
    """Learn to estimate the noise in scaled latents; the model keeps the average of its parameters."""
    learnt = nn.ModuleList([model.unet, model.text_encoder])
    average = copy.deepcopy(learnt)
    optimizer = torch.optim.AdamW(learnt.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        chosen = torch.randint(len(latents), (BATCH,))
        clean, noise = latents[chosen], torch.randn(BATCH, *latents.shape[1:])
        at = torch.randint(model.schedule.num_train_steps, (BATCH,))
        signal = model.signal[at][:, None, None, None]
        words = model.text_encoder(tokens(labels[chosen], empty=torch.rand(BATCH) < WITHOUT_PROMPT))
        loss = mse_loss(model.unet(signal.sqrt() * clean + (1 - signal).sqrt() * noise, at, words), noise)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learnt.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        kept = min(0.995, (step + 1) / (step + 10))
        with torch.no_grad():
            for old, new in zip(average.parameters(), learnt.parameters(), strict=True):
                old.lerp_(new, 1 - kept)
        if step % 200 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    learnt.load_state_dict(average.state_dict())


def write_folder(folder: Path, model: Any, scale: float) -> None:
    """The weights as a diffusers folder, and the tokenizer."""
    parts = {"unet": (model.unet, UNET), "vqvae": (model.vae, {**VAE, "scaling_factor": scale})}
    for name, (module, config) in parts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        save_file(module.state_dict(), folder / name / "diffusion_pytorch_model.safetensors")
        (folder / name / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "bert").mkdir(exist_ok=True)
    text = model.text_encoder.state_dict()
    stored = {("" if "logits" in key else "model.") + key: tensor for key, tensor in text.items()}
    torch.save(stored, folder / "bert" / "pytorch_model.bin")
    (folder / "bert" / "config.json").write_text(json.dumps(BERT, indent=2))
    index = {"_class_name": "LDMTextToImagePipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    tokenizer().save(str(folder / "tokenizer.json"))


def train(folder: Path, autoencoder_steps: int, diffusion_steps: int) -> tuple[float, float]:
    """Train and write the weights; returns seconds of one processor, by stage."""
    images, labels = pictures()
    entry = find_architecture("latent-diffusion")
    if entry.from_pretrained_config is None:
        raise SystemExit("latent-diffusion reads no config")
    model = entry.build(entry.from_pretrained_config({"unet": UNET, "vqvae": VAE, "bert": BERT}))
    start = time.process_time()
    scale = train_autoencoder(model.vae, images, autoencoder_steps)
    middle = time.process_time()
    with torch.no_grad():
        latents = model.vae.encode(images).chunk(2, dim=1)[0] * scale
    train_diffusion(model, latents, labels, diffusion_steps)
    write_folder(folder, model, scale)
    return middle - start, time.process_time() - middle


def classifier() -> tuple[SVC, float]:
    """A classifier of real digits, and its accuracy on those that it has not seen."""
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(digits.data, digits.target, random_state=0)
    judge = SVC(gamma=0.001).fit(train_x, train_y)
    return judge, float(judge.score(test_x, test_y))


def as_digits(drawn: np.ndarray) -> np.ndarray:
    """Pictures (N, 8, 8, 3) of 0 to 255 as scikit-learn's (N, 64) of 0 to 16."""
    return drawn.astype(np.float64).mean(axis=3).reshape(-1, SIDE * SIDE) * 16 / 255


def draw(bundle: Path, manifest: dict[str, Any], weights: Path, count: int, *, one_file: bool) -> np.ndarray:
    """`count` pictures of every digit: (10, count, 8, 8, 3)."""
    rows = []
    for value, name in enumerate(NAMES):
        request = Request(
            f"the digit {name}", value, count, one_file=one_file, tokenizer=weights, steps=25, guidance=2.0
        )
        rows.append(np.stack(generate_picture(bundle, manifest, request, Silent()).pictures))
    return np.stack(rows)


def write_sheet(drawn: np.ndarray, path: Path) -> None:
    """Ten pictures of every digit, one below another: (10, count, 8, 8, 3)."""
    framed = np.pad(drawn[:, :10], ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=96)
    rows = framed.transpose(0, 2, 1, 3, 4).reshape(10 * (SIDE + 2), -1, 3)
    Image.fromarray(rows).resize((640, 640), Image.Resampling.NEAREST).save(path)


def recognised(judge: SVC, drawn: np.ndarray) -> np.ndarray:
    """Share of every digit's pictures in which the classifier sees it."""
    seen = judge.predict(as_digits(drawn.reshape(-1, SIDE, SIDE, 3))).reshape(drawn.shape[:2])
    return (seen == np.arange(len(NAMES))[:, None]).mean(axis=1)


def main() -> None:
    """Train, export, draw, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("build/latent-diffusion-digits"))
    parser.add_argument("--autoencoder-steps", type=int, default=600)
    parser.add_argument("--diffusion-steps", type=int, default=2500)
    parser.add_argument("--count", type=int, default=50, help="pictures of every digit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="so small a network gains little by a second one")
    parser.add_argument("--document", action="store_true", help="write the figures into docs/examples.md")
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    torch.set_num_threads(asked.threads)
    weights = asked.output / "weights"
    autoencoder_s, diffusion_s = train(weights, asked.autoencoder_steps, asked.diffusion_steps)

    bundle = export_architecture("latent-diffusion", asked.output, weights=weights, loop=True, say=print)
    judge, accuracy = classifier()
    forms = [
        draw(bundle.path, dict(bundle.manifest), weights, asked.count, one_file=one_file) for one_file in (False, True)
    ]
    write_sheet(forms[1], asked.output / "digits.png")
    parts, whole = (recognised(judge, drawn) for drawn in forms)
    difference = np.abs(forms[0].astype(int) - forms[1]).max()
    rows = [
        ("parameters", f"{bundle.manifest['parameters']:,}"),
        (
            "training, autoencoder",
            f"{asked.autoencoder_steps} steps of {BATCH}, {autoencoder_s:.0f} s of one processor",
        ),
        ("training, diffusion", f"{asked.diffusion_steps} steps of {BATCH}, {diffusion_s:.0f} s of one processor"),
        ("the classifier on real digits never seen", f"{accuracy:.1%}"),
        ("drawn digits that it recognises, loop driven from Python", f"{parts.mean():.1%} of {10 * asked.count}"),
        ("drawn digits that it recognises, loop as one file", f"{whole.mean():.1%} of {10 * asked.count}"),
        ("the digit that is recognised least, as one file", f"{NAMES[int(whole.argmin())]}, {whole.min():.0%}"),
        ("largest difference between both forms, of 255", f"{difference}"),
        *((f"{name}, onnx-arch check", checked(bundle.path / name / "model.onnx")) for name in GRAPHS),
    ]
    for what, figure in rows:
        print(f"{what}: {figure}")
    if asked.document:
        write_figures("latent-diffusion-digits", rows)


if __name__ == "__main__":
    main()
