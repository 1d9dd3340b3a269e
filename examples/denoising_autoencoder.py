"""A convolutional autoencoder that takes noise out of photographs, in ONNX Runtime.

    python examples/denoising_autoencoder.py -o build/denoising-autoencoder

The network is `conv-autoencoder` with two stages: convolution, max pool, and back through unpooling with the switches
of the pools and deconvolution. It learns from the left three quarters of scikit-learn's two photographs, in patches to
which noise is added, and is asked for patches of the right quarters.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from figures import write_figures
from PIL import Image
from proved import answers, checked, export_trained
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from onnx_arch.architectures.conv_autoencoder import ConvAutoencoder, ConvAutoencoderConfig

SIDE = 32
NOISE = 0.2
"""Deviation of what is added to pixels in [0, 1]."""


def autoencoder():
    """The network, and an example."""
    config = ConvAutoencoderConfig(3, channels=(48, 64), kernel_sizes=(5, 5), image_size=SIDE)
    return ConvAutoencoder(config), torch.rand(1, 3, SIDE, SIDE)


def photographs() -> list[np.ndarray]:
    """(3, H, W) in [0, 1] each."""
    return [(picture / 255).astype(np.float32).transpose(2, 0, 1) for picture in load_sample_images().images]


def patches(pictures: list[np.ndarray], count: int, rng: np.random.Generator, *, right: bool) -> np.ndarray:
    """Patches (N, 3, 32, 32) of the left three quarters or the right one."""
    cut = []
    for _ in range(count):
        picture = pictures[rng.integers(len(pictures))]
        height, width = picture.shape[1:]
        border = width * 3 // 4
        low, high = (border, width) if right else (0, border)
        top, left = rng.integers(height - SIDE + 1), rng.integers(low, high - SIDE + 1)
        cut.append(picture[:, top : top + SIDE, left : left + SIDE])
    return np.stack(cut)


def train(module: nn.Module, pictures: list[np.ndarray], steps: int, rng: np.random.Generator) -> None:
    """Learn to give back what was there before noise was added."""
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for step in range(steps):
        clean = torch.from_numpy(patches(pictures, 16, rng, right=False))
        loss = mse_loss(module(noisy(clean, rng)), clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        if step % 200 == 0:
            print(f"step {step} of {steps}: {decibels(loss.item()):.1f} dB", flush=True)


def noisy(clean: Tensor, rng: np.random.Generator) -> Tensor:
    """With normal noise of deviation `NOISE`."""
    return clean + NOISE * torch.from_numpy(rng.standard_normal(tuple(clean.shape), np.float32))


def decibels(mean_square: float) -> float:
    """Peak signal-to-noise ratio of pixels in [0, 1]."""
    return -10 * math.log10(mean_square)


def main() -> None:
    """Train, export, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("build/denoising-autoencoder"))
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--document", action="store_true", help="write the figures into docs/examples.md")
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    rng, pictures = np.random.default_rng(asked.seed), photographs()
    module, _ = autoencoder()
    begin = time.perf_counter()
    train(module, pictures, asked.steps, rng)
    trained_s = time.perf_counter() - begin
    dynamic = ["image.0=batch", "image.2=height", "image.3=width"]
    model = export_trained(module.eval(), f"{__file__}:autoencoder", asked.output, dynamic)
    clean = patches(pictures, 400, np.random.default_rng(asked.seed + 1), right=True)
    given = noisy(torch.from_numpy(clean), np.random.default_rng(asked.seed + 2)).numpy()
    found = answers(model, given)
    rows = [
        ("parameters", f"{sum(parameter.numel() for parameter in module.parameters()):,}"),
        ("training", f"{asked.steps} steps of 16 patches, {trained_s:.0f} s"),
        ("patches never seen, as they are given", f"{decibels(float(np.mean((given - clean) ** 2))):.1f} dB"),
        ("as ONNX Runtime gives them back", f"{decibels(float(np.mean((found - clean) ** 2))):.1f} dB"),
        ("onnx-arch check", checked(model)),
    ]
    for what, figure in rows:
        print(f"{what}: {figure}")
    show(model, pictures[0], asked.output / "denoised.png", asked.seed)
    if asked.document:
        write_figures("denoising-autoencoder", rows)


def show(model: Path, picture: np.ndarray, path: Path, seed: int) -> None:
    """Write the right quarter of a photograph, with noise and without: the graph takes any height and width."""
    clean = picture[None, :, : picture.shape[1] // SIDE * SIDE, -SIDE * 5 :]
    given = noisy(torch.from_numpy(clean.copy()), np.random.default_rng(seed)).numpy()
    both = np.concatenate([clean, given, answers(model, given)], axis=3)[0]
    pixels = np.round(np.clip(both, 0, 1).transpose(1, 2, 0) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    print(f"{path}: a photograph, with noise, and as it came back")


if __name__ == "__main__":
    main()
