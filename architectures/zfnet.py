"""ZFNet and its deconvnet: from one activation back to the pixels that caused it, through switches.

Paper: Zeiler, Fergus, "Visualizing and understanding convolutional networks", https://arxiv.org/abs/1311.2901: the
network of figure 3, the deconvnet of section 2.1. Where the figure states sizes and no padding (224 → 110 → 55 → 26 →
13 → 6), a padding of 1 in the first layer and pools that keep their last, partial window make them so. "Contrast
normalized across feature maps" is the local response normalisation of Krizhevsky et al. (2012), which the paper starts
from; the deconvnet does not undo it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d, max_pool2d, max_unpool2d

from .registry import architecture
from .specification import Axis, GraphSpec, Port, imagenet_preprocessing

KERNEL_SIZES = (7, 5, 3, 3, 3)
STRIDES = (2, 2, 1, 1, 1)
PADDINGS = (1, 0, 1, 1, 1)
POOLED = (True, True, False, False, True)
NORMALIZED = (True, True, False, False, False)
POOL_SIZE, POOL_STRIDE = 3, 2


@dataclass(frozen=True)
class ZFNetConfig:
    """Sizes: channels of the five convolutions; dropout rests in inference."""

    channels: tuple[int, int, int, int, int] = (96, 256, 384, 384, 256)
    hidden_features: int = 4096
    num_classes: int = 1000
    image_size: int = 224
    dropout: float = 0.5

    def map_size(self, layer: int) -> int:
        """Height and width of a layer's feature maps, 1 to 5."""
        size = self.image_size
        for kernel, stride, padding, pooled in list(zip(KERNEL_SIZES, STRIDES, PADDINGS, POOLED, strict=True))[:layer]:
            size = (size + 2 * padding - kernel) // stride + 1
            size = -(-(size - POOL_SIZE) // POOL_STRIDE) + 1 if pooled else size
        return size


class Layer(nn.Module):
    """A convolution and a rectifier; with a pool, the switches that say where its maxima were."""

    def __init__(self, in_channels: int, channels: int, index: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, KERNEL_SIZES[index], STRIDES[index], PADDINGS[index])
        self.is_pooled = POOLED[index]
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0) if NORMALIZED[index] else nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None, torch.Size]:
        # (B, C_in, H, W) -> what the next layer gets, feature maps, switches, (B, C, h, w) each; size before the pool
        x = self.conv(x).relu()
        size = x.shape[-2:]
        if not self.is_pooled:
            return self.normalize(x), x, None, size
        x, switches = max_pool2d(x, POOL_SIZE, POOL_STRIDE, ceil_mode=True, return_indices=True)
        return self.normalize(x), x, switches, size

    def normalize(self, x: Tensor) -> Tensor:  # (B, C, h, w) -> (B, C, h, w)
        """The norm, in float32 at least: PyTorch has none in bfloat16, and powers are rough in types of 16 bits."""
        if isinstance(self.norm, nn.Identity):
            return x
        return self.norm(x.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)

    def backward_pass(self, x: Tensor, switches: Tensor | None, pooled: torch.Size, size: torch.Size) -> Tensor:
        """The layer of the deconvnet: unpool, rectify, filter with the transposed filters.

        (B, C, h, w) -> (B, C_in, H, W), `size` being (H, W) and `pooled` the size before the pool.
        """
        if switches is not None:
            x = unpool(x, switches, pooled)
        conv, missing = self.conv, []
        for axis, out in enumerate(x.shape[-2:]):
            reached = (out - 1) * conv.stride[axis] - 2 * int(conv.padding[axis]) + conv.kernel_size[axis]
            missing.append(size[axis] - reached)  # what the convolution's stride left over
        return conv_transpose2d(x.relu(), conv.weight, None, conv.stride, conv.padding, missing)  # type: ignore[arg-type]


def unpool(x: Tensor, switches: Tensor, size: torch.Size) -> Tensor:  # (B, C, h, w) twice -> (B, C, *size)
    """Put every element where its pool found its maximum; elements that share a place add up.

    Windows overlap, so one place may be the maximum of up to four. Every second window overlaps no other: the maps are
    unpooled in four interleaved parts, and no runtime has to choose which of several elements stays.
    """
    taps, steps = (POOL_SIZE, POOL_SIZE), (2 * POOL_STRIDE, 2 * POOL_STRIDE)
    rows, columns = (range(min(2, side)) for side in x.shape[-2:])
    parts = [
        max_unpool2d(
            x[..., i::2, j::2].contiguous(),
            switches[..., i::2, j::2].contiguous(),
            taps,
            steps,
            output_size=tuple(size),
        )
        for i in rows
        for j in columns
    ]
    return functools.reduce(torch.add, parts)


class ZFNet(nn.Module):
    """Five layers of features, then a classifier of three linear layers."""

    def __init__(self, config: ZFNetConfig) -> None:
        super().__init__()
        sizes = (3, *config.channels)
        self.layers = nn.ModuleList(Layer(sizes[n], sizes[n + 1], n) for n in range(len(config.channels)))
        self.classifier = nn.Sequential(
            nn.Linear(config.channels[-1] * config.map_size(5) ** 2, config.hidden_features),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_features, config.hidden_features),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_features, config.num_classes),
        )

    def forward(self, image: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, classes)
        x = image
        for layer in self.layers:
            x, *_ = layer(x)  # (B, C, h, w)
        return self.classifier(torch.flatten(x, 1))


class Deconvnet(nn.Module):
    """From the strongest activation of one feature map of a layer back to pixels.

    "To examine a given convnet activation, we set all other activations in the layer to zero and pass the feature maps
    as input to the attached deconvnet layer. Then we successively (i) unpool, (ii) rectify and (iii) filter."
    """

    def __init__(self, network: ZFNet, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(list(network.layers)[:depth])

    def forward(self, image: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        # (B, 3, H, W), (B,) -> pixels (B, 3, H, W), the strongest activation of every feature map (B, C)
        x, seen = image, []
        maps = image
        for layer in self.layers:
            size = x.shape[-2:]
            x, maps, switches, pooled = layer(x)
            seen.append((layer, switches, pooled, size))
        pixels = alone(maps, feature)
        for layer, switches, pooled, size in reversed(seen):
            pixels = layer.backward_pass(pixels, switches, pooled, size)
        return pixels, maps.flatten(2).amax(2)


def alone(maps: Tensor, feature: Tensor) -> Tensor:
    """The feature maps with everything zero but the largest element of one map: (B, C, h, w), (B,) -> (B, C, h, w)."""
    area = maps.shape[2] * maps.shape[3]
    chosen = maps.flatten(2).gather(1, feature[:, None, None].expand(-1, 1, area))  # (B, 1, h · w)
    place = feature[:, None] * area + chosen.argmax(2)  # (B, 1), in the flat maps
    flat = maps.flatten(1)
    return torch.zeros_like(flat).scatter(1, place, flat.gather(1, place)).unflatten(1, maps.shape[1:])


def zfnet_graphs(config: ZFNetConfig) -> tuple[GraphSpec, ...]:
    """The network, image (B, 3, H, W) to logits (B, classes); and the deconvnet of each layer, `deconvnet-1` to `-5`.

    Height and width are no axes: the classifier takes maps of one size.
    """
    image = Port("image", ("batch", 3, config.image_size, config.image_size))
    logits = Port("logits", ("batch", config.num_classes))
    axes = (Axis("batch", 2, sweep=(1, 2, 3)),)
    preprocessing = imagenet_preprocessing(config.image_size)
    network = GraphSpec("zfnet", (image,), (logits,), axes, image_preprocessing=preprocessing)
    return (network, *(_deconvnet_graph(network, config, layer) for layer in range(1, 6)))


def _deconvnet_graph(network: GraphSpec, config: ZFNetConfig, layer: int) -> GraphSpec:
    (image,), channels = network.inputs, config.channels[layer - 1]
    return GraphSpec(
        f"deconvnet-{layer}",
        (image, Port("feature", ("batch",), "int64", "integers", channels)),
        (Port("pixels", image.shape), Port("strengths", ("batch", channels))),
        network.axes,
        part=lambda module: Deconvnet(module, layer).eval(),
        image_preprocessing=network.image_preprocessing,
    )


@architecture(
    "zfnet",
    paper="https://arxiv.org/abs/1311.2901",
    presets={
        "published": ZFNetConfig(),
        "tiny": ZFNetConfig((4, 6, 8, 8, 6), hidden_features=16, num_classes=10, image_size=64),
    },
    graphs=zfnet_graphs,
    # filters and biases: 96·3·49 + 96, 256·96·25 + 256, 384·256·9 + 384, 384·384·9 + 384, 256·384·9 + 256;
    # classifier: 6·6·256·4096 + 4096, 4096·4096 + 4096, 4096·1000 + 1000
    parameters=62_357_608,
)
def build_zfnet(config: ZFNetConfig) -> ZFNet:
    """The module of a config."""
    return ZFNet(config)
