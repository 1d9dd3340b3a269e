"""VGG-16: convolution, max pool, …, linear.

Paper: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition",
https://arxiv.org/abs/1409.1556, table 1, configuration D. Keys and the adaptive pool before the classifier are those of
torchvision, so its checkpoints fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .registry import architecture
from .specification import PLAIN, Axis, CheckpointLayout, GraphSpec, Port, imagenet_preprocessing


@dataclass(frozen=True)
class VGGConfig:
    """Sizes: `stages` are (channels, number of convolutions) between two max pools; dropout rests in inference."""

    stages: tuple[tuple[int, int], ...] = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    pool_size: int = 7
    hidden_features: int = 4096
    num_classes: int = 1000
    image_size: int = 224
    dropout: float = 0.5


def feature_layers(stages: tuple[tuple[int, int], ...]) -> Iterator[nn.Module]:
    """3×3 convolutions with rectifiers, and a max pool that halves height and width after every stage."""
    in_channels = 3
    for channels, depth in stages:
        for _ in range(depth):
            yield nn.Conv2d(in_channels, channels, kernel_size=3, padding=1)
            yield nn.ReLU()
            in_channels = channels
        yield nn.MaxPool2d(kernel_size=2, stride=2)


class VGG(nn.Module):
    """Convolutional features, then a classifier of three linear layers."""

    def __init__(self, config: VGGConfig) -> None:
        super().__init__()
        pooled = config.stages[-1][0] * config.pool_size**2
        self.features = nn.Sequential(*feature_layers(config.stages))
        self.avgpool = nn.AdaptiveAvgPool2d(config.pool_size)
        self.classifier = nn.Sequential(
            nn.Linear(pooled, config.hidden_features),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_features, config.hidden_features),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_features, config.num_classes),
        )

    def forward(self, image: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, classes)
        x = self.avgpool(self.features(image))  # (B, C, pool, pool)
        return self.classifier(torch.flatten(x, 1))


def vgg_graphs(config: VGGConfig) -> tuple[GraphSpec, ...]:
    """One graph: image (B, 3, H, W) to logits (B, classes).

    Height and width are no axes: ONNX has no adaptive pool, and at the published size it is the identity.
    """
    image = Port("image", ("batch", 3, config.image_size, config.image_size))
    logits = Port("logits", ("batch", config.num_classes))
    preprocessing = imagenet_preprocessing(config.image_size)
    axes = (Axis("batch", 2, sweep=(1, 2, 3)),)
    return (GraphSpec("vgg16", (image,), (logits,), axes, image_preprocessing=preprocessing),)


TIMM = CheckpointLayout(
    "timm",
    renames=(
        (r"^pre_logits\.fc1\.", "classifier.0."),
        (r"^pre_logits\.fc2\.", "classifier.3."),
        (r"^head\.fc\.", "classifier.6."),
    ),
    pointwise=(r"^classifier\.[03]\.weight$",),
)
"""Its classifier begins with two convolutions: 7×7, then 1×1."""

TINY_VGG = VGGConfig(((4, 2), (8, 2), (8, 3)), pool_size=2, hidden_features=16, num_classes=10, image_size=16)


@architecture(
    "vgg16",
    paper="https://arxiv.org/abs/1409.1556",
    presets={"published": VGGConfig(), "tiny": TINY_VGG},
    graphs=vgg_graphs,
    parameters=138_357_544,
    checkpoints=(CheckpointLayout("torchvision"), TIMM, PLAIN),
)
def build_vgg16(config: VGGConfig) -> VGG:
    """The module of a config."""
    return VGG(config)
