"""What the example of latent diffusion is made of: prompts, the judge, and how it learns."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import torch

from onnx_arch.architectures.registry import find_architecture

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example():
    """The module; examples import one another as scripts do."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module("latent_diffusion_digits")
    finally:
        sys.path.remove(str(EXAMPLES))


def test_tokenizer_gives_the_ids_that_training_used():
    module = example()
    for value, name in enumerate(module.NAMES):
        ids = module.tokenizer().encode(f"the digit {name}").ids
        assert ids + [0] * (module.POSITIONS - len(ids)) == module.tokens(torch.tensor([value]))[0].tolist()
    empty = module.tokens(torch.tensor([3, 4]), empty=torch.tensor([True, False]))
    assert empty.tolist() == [[101, 102, 0, 0, 0, 0], [101, 1, 2, 7, 102, 0]]


def test_judge_recognises_real_digits_and_nothing_in_noise():
    module = example()
    judge, accuracy = module.classifier()
    assert accuracy > 0.97
    images, labels = module.pictures()
    pixels = ((images.permute(0, 2, 3, 1).numpy() + 1) * 127.5).round().astype(np.uint8)
    drawn = np.stack([pixels[labels.numpy() == value][:20] for value in range(10)])
    assert module.recognised(judge, drawn).mean() > 0.97
    noise = np.random.default_rng(0).integers(0, 256, (10, 20, 8, 8, 3)).astype(np.uint8)
    assert module.recognised(judge, noise).mean() < 0.3


def test_training_lowers_both_losses_and_the_folder_reads_back(tmp_path):
    module = example()
    torch.manual_seed(0)
    entry = find_architecture("latent-diffusion")
    model = entry.build(entry.from_pretrained_config({"unet": module.UNET, "vqvae": module.VAE, "bert": module.BERT}))
    images, labels = module.pictures()

    def error():
        with torch.no_grad():
            return (model.vae(images[:100]) - images[:100]).square().mean().item()

    before = error()
    scale = module.train_autoencoder(model.vae, images, 20)
    assert error() < before / 2
    module.train_diffusion(model, torch.randn(64, 4, 4, 4), labels[:64], 2)
    module.write_folder(tmp_path, model, scale)
    folders = {path.parent.name for path in tmp_path.rglob("config.json")}
    assert folders == {"unet", "vqvae", "bert"}
    assert (tmp_path / "tokenizer.json").is_file()
