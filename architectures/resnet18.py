"""ResNet-18: convolution, max pool, [+] skip additions, average pool, linear.

Paper: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", https://arxiv.org/abs/1512.03385, table 1,
column 18-layer. Keys are those of torchvision and timm, so their checkpoints fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .registry import architecture
from .specification import PLAIN, Axis, CheckpointLayout, GraphSpec, Port, imagenet_preprocessing


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes: channels of the four stages and the number of blocks in each; the stem has the first stage's channels."""

    channels: tuple[int, int, int, int] = (64, 128, 256, 512)
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    num_classes: int = 1000
    image_size: int = 224


class BasicBlock(nn.Module):
    """Two 3×3 convolutions around which the input skips; the first may halve height and width."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(channels),
            )

    def forward(self, x: Tensor) -> Tensor:  # (B, C_in, H, W) -> (B, C, H / stride, W / stride)
        skip = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x))
        return (x + skip).relu()


def stage(in_channels: int, channels: int, depth: int, stride: int) -> nn.Sequential:
    """`depth` blocks, the first with the stride."""
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, stride=1) for _ in range(depth - 1)))


class ResNet(nn.Module):
    """A stem, four stages of residual blocks, an average over the picture and a linear classifier."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        c1, c2, c3, c4 = config.channels
        n1, n2, n3, n4 = config.blocks
        self.conv1 = nn.Conv2d(3, c1, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(c1)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = stage(c1, c1, n1, stride=1)
        self.layer2 = stage(c1, c2, n2, stride=2)
        self.layer3 = stage(c2, c3, n3, stride=2)
        self.layer4 = stage(c3, c4, n4, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(c4, config.num_classes)

    def forward(self, image: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, classes)
        x = self.maxpool(self.bn1(self.conv1(image)).relu())  # (B, C1, H / 4, W / 4)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, C4, H / 32, W / 32)
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet_graphs(config: ResNetConfig) -> tuple[GraphSpec, ...]:
    """One graph: image (B, 3, H, W) to logits (B, classes); height and width are frozen unless asked for."""
    size = config.image_size
    image = Port("image", ("batch", 3, "height", "width"))
    logits = Port("logits", ("batch", config.num_classes))
    sides = (size, size // 2, size - 31, size + 32) if size > 64 else (size, size // 2, size + 1, size * 2)
    axes = (
        Axis("batch", 2, sweep=(1, 2, 3)),
        Axis("height", size, sweep=sides, dynamic=False),
        Axis("width", size, sweep=sides, dynamic=False),
    )
    preprocessing = imagenet_preprocessing(size)
    return (GraphSpec("resnet18", (image,), (logits,), axes, image_preprocessing=preprocessing),)


@architecture(
    "resnet18",
    paper="https://arxiv.org/abs/1512.03385",
    presets={
        "published": ResNetConfig(),
        "tiny": ResNetConfig((4, 8, 8, 16), (2, 2, 2, 2), num_classes=10, image_size=32),
    },
    graphs=resnet_graphs,
    parameters=11_689_512,
    checkpoints=(CheckpointLayout("torchvision"), CheckpointLayout("timm"), PLAIN),
)
def build_resnet18(config: ResNetConfig) -> ResNet:
    """The module of a config."""
    return ResNet(config)
