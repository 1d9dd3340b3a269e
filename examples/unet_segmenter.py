"""A U-Net that finds the pixels of handwritten digits on a photograph, in ONNX Runtime.

    python examples/unet_segmenter.py -o build/unet-segmenter

The network is `unet` with three levels: convolutions, max pools, and back through unpooling with switches,
deconvolution and concatenated skips. Digits of scikit-learn, enlarged, are drawn on its two photographs, light where
they are dark and dark where they are light; which pixels are a digit's is known. Digits and parts of the photographs
are others in training than afterwards.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from figures import write_figures
from PIL import Image
from proved import answers, checked, export_trained
from sklearn.datasets import load_digits, load_sample_images
from torch import nn
from torch.nn.functional import cross_entropy

from onnx_arch.architectures.unet import UNet, UNetConfig

SIDE, DIGIT = 48, 16
STROKE = 0.5
"""From this brightness on a pixel is the digit's."""

MIDDLE = 0.5
"""Ground that is darker gets white digits."""


def segmenter():
    """The network, and an example."""
    return UNet(UNetConfig(1, channels=(16, 32, 64), num_classes=2, image_size=SIDE)), torch.rand(1, 1, SIDE, SIDE)


class Scenes:
    """Digits drawn on photographs.

    Args:
        rng: that draws them.
        held_out: whether of the digits and photographs that are not learnt from.
    """

    def __init__(self, rng: np.random.Generator, *, held_out: bool) -> None:
        self.rng = rng
        found = load_digits()
        chosen = found.images[1400:] if held_out else found.images[:1400]
        self.digits = [enlarged(image) for image in chosen]
        greys = [np.asarray(Image.fromarray(picture).convert("L"), np.float32) / 255 for picture in photographs()]
        border = greys[0].shape[1] * 3 // 4
        self.grounds = [grey[:, border:] if held_out else grey[:, :border] for grey in greys]

    def draw(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Pictures (N, 1, 48, 48) and which pixels are a digit's (N, 48, 48)."""
        made = [self._scene() for _ in range(count)]
        return np.stack([picture for picture, _ in made])[:, None], np.stack([mask for _, mask in made])

    def _scene(self) -> tuple[np.ndarray, np.ndarray]:
        ground = self.grounds[self.rng.integers(len(self.grounds))]
        top, left = (self.rng.integers(size - SIDE + 1) for size in ground.shape)
        picture = ground[top : top + SIDE, left : left + SIDE].copy()
        mask = np.zeros(picture.shape, np.int64)
        for _ in range(self.rng.integers(1, 4)):
            digit = self.digits[self.rng.integers(len(self.digits))]
            row, column = self.rng.integers(SIDE - DIGIT + 1, size=2)
            place = (slice(row, row + DIGIT), slice(column, column + DIGIT))
            ink = float(picture[place].mean() < MIDDLE)  # white on dark, black on light
            picture[place] = picture[place] * (1 - digit) + ink * digit
            mask[place] |= digit > STROKE
        return picture, mask


def photographs() -> list[np.ndarray]:
    """Bytes (H, W, 3) each."""
    return list(load_sample_images().images)


def enlarged(image: np.ndarray) -> np.ndarray:
    """An 8×8 digit as 16×16 pixels in [0, 1]."""
    pixels = Image.fromarray((image / 16 * 255).astype(np.uint8)).resize((DIGIT, DIGIT), Image.Resampling.BICUBIC)
    return np.asarray(pixels, np.float32) / 255


def train(module: nn.Module, scenes: Scenes, steps: int) -> None:
    """Learn which pixels are a digit's."""
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for step in range(steps):
        pictures, masks = map(torch.from_numpy, scenes.draw(16))
        loss = cross_entropy(module(pictures), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.3f}", flush=True)


def overlap(found: np.ndarray, wanted: np.ndarray) -> float:
    """Pixels that are a digit's in both over those that are in one of them."""
    return float((found & wanted).sum() / max((found | wanted).sum(), 1))


def main() -> None:
    """Train, export, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("build/unet-segmenter"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--document", action="store_true", help="write the figures into docs/examples.md")
    asked = parser.parse_args()
    torch.manual_seed(asked.seed)
    module, _ = segmenter()
    begin = time.perf_counter()
    train(module, Scenes(np.random.default_rng(asked.seed), held_out=False), asked.steps)
    trained_s = time.perf_counter() - begin
    dynamic = ["image.0=batch", "image.2=height", "image.3=width"]
    model = export_trained(module.eval(), f"{__file__}:segmenter", asked.output, dynamic)
    pictures, masks = Scenes(np.random.default_rng(asked.seed + 1), held_out=True).draw(300)
    found = answers(model, pictures).argmax(1)  # (N, H, W)
    rows = [
        ("parameters", f"{sum(parameter.numel() for parameter in module.parameters()):,}"),
        ("training", f"{asked.steps} steps of 16 pictures, {trained_s:.0f} s"),
        ("pictures never seen, intersection over union of digits by ONNX Runtime", f"{overlap(found, masks):.1%}"),
        ("pixels that are told rightly", f"{np.mean(found == masks):.1%}"),
        ("onnx-arch check", checked(model)),
    ]
    for what, figure in rows:
        print(f"{what}: {figure}")
    show(pictures[:8, 0], masks[:8], found[:8], asked.output / "segmented.png")
    if asked.document:
        write_figures("unet-segmenter", rows)


def show(pictures: np.ndarray, masks: np.ndarray, found: np.ndarray, path: Path) -> None:
    """Write pictures, the digits' pixels, and what was found, one below the other."""
    sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in (pictures, masks, found)])
    Image.fromarray(np.round(sheet * 255).astype(np.uint8)).resize((sheet.shape[1] * 2, sheet.shape[0] * 2)).save(path)
    print(f"{path}: pictures, their digits, and the digits that were found")


if __name__ == "__main__":
    main()
