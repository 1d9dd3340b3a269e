"""Two classifiers of handwritten digits, a multi-layer perceptron and a convolutional network, in ONNX Runtime.

    python examples/digit_classifier.py -o build/digit-classifier

The digits are scikit-learn's, 8×8 pixels: 1,437 to learn from and 360 that are never seen in training. The perceptron
is `mlp` with 64 + 64 units; the convolutional network is what a user would write: convolutions, max pools, a linear
layer.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from figures import write_figures
from proved import answers, checked, export_trained
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from onnx_arch.architectures.mlp import MLP, MLPConfig

BRIGHTEST = 16.0
SHIFT = 1
"""Pixels that a digit is moved by at random while the convolutional network learns it."""


def mlp():
    """A perceptron on 64 pixels, and an example."""
    return MLP(MLPConfig(64, 64, 10)), torch.zeros(1, 64)


def convnet():
    """Convolution, max pool, convolution, max pool, linear; and an example."""
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 2 * 2, 10)), torch.zeros(1, 1, 8, 8)


def digits(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pictures (N, 1, 8, 8) in [0, 1] and numbers: to learn from, and others."""
    found = load_digits()
    pictures = (found.images / BRIGHTEST).astype(np.float32)[:, None]
    seen, unseen, known, wanted = train_test_split(
        pictures, found.target, test_size=0.2, random_state=seed, stratify=found.target
    )
    return seen, known, unseen, wanted


def moved(pictures: Tensor) -> Tensor:
    """The pictures, moved by at most `SHIFT` pixels."""
    rows, columns = torch.randint(-SHIFT, SHIFT + 1, (2,)).tolist()
    padded = nn.functional.pad(pictures, (SHIFT,) * 4)
    side = pictures.shape[-1]
    return padded[..., SHIFT + rows : SHIFT + rows + side, SHIFT + columns : SHIFT + columns + side]


def train(module: nn.Module, pictures: Tensor, numbers: Tensor, steps: int, shape: tuple[int, ...]) -> None:
    """Learn which digit a picture shows."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for _ in range(steps):
        chosen = torch.randint(len(pictures), (64,))
        given = moved(pictures[chosen]) if len(shape) > 1 else pictures[chosen]  # pixels in a row have no neighbours
        loss = cross_entropy(module(given.reshape(-1, *shape)), numbers[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()


def main() -> None:
    """Train, export, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("build/digit-classifier"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--document", action="store_true", help="write the figures into docs/examples.md")
    asked = parser.parse_args()
    seen, known, unseen, wanted = digits(asked.seed)
    rows: list[tuple[str, str]] = []
    for factory in (mlp, convnet):
        torch.manual_seed(asked.seed)
        module, example = factory()
        begin = time.perf_counter()
        train(module, torch.from_numpy(seen), torch.from_numpy(known), asked.steps, tuple(example.shape[1:]))
        trained_s = time.perf_counter() - begin
        name = factory.__name__
        model = export_trained(module.eval(), f"{__file__}:{name}", asked.output, ["batch"])
        found = answers(model, unseen.reshape(-1, *example.shape[1:])).argmax(1)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        rows += [
            (f"{name}, parameters", f"{parameters:,}"),
            (f"{name}, training", f"{asked.steps} steps of 64 digits, {trained_s:.0f} s"),
            (
                f"{name}, digits never seen, recognised by ONNX Runtime",
                f"{np.mean(found == wanted):.1%} of {len(wanted)}",
            ),
            (f"{name}, onnx-arch check", checked(model)),
        ]
    for what, figure in rows:
        print(f"{what}: {figure}")
    if asked.document:
        write_figures("digit-classifier", rows)


if __name__ == "__main__":
    main()
