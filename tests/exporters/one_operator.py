"""One PyTorch operation per module, for the tests of what it becomes at each opset. Each factory takes no argument."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn


class Attention(nn.Module):
    """`scaled_dot_product_attention` with options."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.options = options

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **self.options)


def queries(*lead: int, target: int = 4, source: int = 5, kv_heads: int | None = None) -> tuple[Tensor, ...]:
    """Queries (…, T, 8), keys (…, S, 8) and values (…, S, 6)."""
    shared = lead if kv_heads is None else (*lead[:-1], kv_heads)
    return torch.randn(*lead, target, 8), torch.randn(*shared, source, 8), torch.randn(*shared, source, 6)


def attention():
    return Attention(), queries(2, 3)


def attention_scaled():
    return Attention(scale=0.3), queries(2, 3)


def attention_causal():
    return Attention(is_causal=True), queries(2, 3, source=4)


def attention_causal_oblong():
    return Attention(is_causal=True), queries(2, 3)


def attention_boolean_mask():
    """The second query of the first item may attend nothing: PyTorch gives it zeros."""
    mask = torch.rand(2, 1, 4, 5) > 0.4
    mask[0, 0, 1], mask[1, 0, :, 0] = False, True
    return Attention(), (*queries(2, 3), mask)


def attention_padding_mask():
    """One row for all queries, and an item of padding alone."""
    return Attention(), (*queries(2, 3), torch.tensor([[[[True, True, False, True, False]]], [[[False] * 5]]]))


def attention_additive_mask():
    mask = torch.randn(2, 1, 4, 5)
    mask[0, 0, 2], mask[1, 0, 1, 2] = -torch.inf, -torch.inf
    return Attention(), (*queries(2, 3), mask)


def attention_without_heads():
    mask = torch.rand(2, 4, 5) > 0.4
    mask[0, 1] = False
    return Attention(), (*queries(2), mask)


def attention_of_rank_five():
    return Attention(), queries(2, 2, 3)


def attention_broadcast():
    q, k, v = queries(2, 3)
    return Attention(), (q, k[:1], v[:1])


def attention_grouped():
    return Attention(enable_gqa=True), queries(2, 4, kv_heads=2)


class RMSNorm(nn.Module):
    """`rms_norm` of small numbers, which epsilon moves."""

    def __init__(self, *, eps: float | None, affine: bool) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.rand(6)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x * 1e-2, (6,), self.weight, self.eps)


def rms_norm():
    return RMSNorm(eps=1e-6, affine=True), torch.randn(2, 3, 6)


def rms_norm_plain():
    return RMSNorm(eps=None, affine=False), torch.randn(2, 3, 6)


def response_norm():
    return nn.LocalResponseNorm(5, alpha=0.3, beta=0.6, k=1.5), torch.randn(2, 7, 4, 3)


def response_norm_even():
    return nn.LocalResponseNorm(4, alpha=0.3), torch.randn(2, 7, 4, 3)


def response_norm_of_rank_three():
    return nn.LocalResponseNorm(3, alpha=0.3), torch.randn(2, 7, 4)


class AlmostResponseNorm(nn.Module):
    """The same steps with the square of something else, or with the pad on one side."""

    def __init__(self, *, other: bool) -> None:
        super().__init__()
        self.other = other

    def forward(self, x: Tensor) -> Tensor:
        square = (x * (x + 1) if self.other else x * x).unsqueeze(1)  # (B, 1, C, H, W)
        padded = F.pad(square, (0, 0, 0, 0, 1, 1) if self.other else (0, 0, 0, 0, 2, 0))
        mean = F.avg_pool3d(padded, (3, 1, 1), stride=1).squeeze(1)
        return x / (mean * 0.3 + 1.0).pow(0.75)


def response_norm_of_another_square():
    return AlmostResponseNorm(other=True), torch.rand(2, 7, 4, 3)


def response_norm_one_sided():
    return AlmostResponseNorm(other=False), torch.randn(2, 7, 4, 3)


class Reductions(nn.Module):
    """Every reduction that torch.onnx computes in float32, and something that goes on with its result."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        shifted = x - x.amax(1, keepdim=True)
        return shifted, x.amin(1), x.sum(1) + 1, x.sum(), x.cumsum(1), x.prod(1), x.sum(1, dtype=torch.float32)


def reductions():
    return Reductions(), torch.randn(2, 5)


def generic(norm: nn.Module) -> nn.Module:
    """The norm with weights that are not its first ones."""
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.uniform_(0.5, 1.5)
    return norm


def layer_norm():
    return generic(nn.LayerNorm((3, 6))), torch.randn(2, 3, 6)


def layer_norm_plain():
    return nn.LayerNorm(6, elementwise_affine=False), torch.randn(2, 3, 6)


def group_norm():
    return generic(nn.GroupNorm(2, 6)), torch.randn(2, 6, 4, 4)


def group_norm_plain():
    return nn.GroupNorm(2, 6, affine=False), torch.randn(2, 6, 4)


def gelu():
    return nn.GELU(), torch.randn(2, 3, 6)


def gelu_tanh():
    return nn.GELU("tanh"), torch.randn(2, 3, 6)


def silu():
    return nn.SiLU(), torch.randn(2, 3, 6)


def deconvolution():
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=(2, 1))
    return layer, torch.randn(2, 4, 5, 6)


def deconvolution_plain():
    return nn.ConvTranspose1d(4, 6, 4, stride=2, bias=False), torch.randn(2, 4, 5)


class Rotary(nn.Module):
    """ONNX's own operator, as PyTorch offers it."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.options = options

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor) -> Tensor:
        return torch.onnx.ops.rotary_embedding(x, cos, sin, positions, **self.options)


def rotary():
    return Rotary(), (torch.randn(2, 3, 4, 8), torch.randn(10, 4), torch.randn(10, 4), torch.randint(0, 10, (2, 4)))


def rotary_interleaved():
    caches = torch.randn(10, 2), torch.randn(10, 2)
    options = {"interleaved": True, "num_heads": 2, "rotary_embedding_dim": 4}
    return Rotary(**options), (torch.randn(2, 4, 16), *caches, torch.randint(0, 10, (2, 4)))


class Unpooling(nn.Module):
    """A pool with switches, an activation, and the unpooling that belongs to it."""

    def __init__(self, kernel: int, stride: int, padding: int = 0, *, ceil_mode: bool = False, sized: bool = True):
        super().__init__()
        self.window = (kernel, stride, padding)
        self.ceil_mode = ceil_mode
        self.sized = sized

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:] if self.sized else None
        pooled, switches = F.max_pool2d(x, *self.window, ceil_mode=self.ceil_mode, return_indices=True)
        return F.max_unpool2d(pooled.exp(), switches, *self.window, output_size=size)


def unpool():
    return Unpooling(2, 2), torch.randn(2, 3, 8, 6)


class EvenUnpooling(Unpooling):
    """Takes even heights and widths only, and says so."""

    def forward(self, x: Tensor) -> Tensor:
        torch._check(x.shape[2] % 2 == 0)
        torch._check(x.shape[3] % 2 == 0)
        return super().forward(x)


def unpool_of_even_sizes():
    return EvenUnpooling(2, 2), torch.randn(2, 3, 8, 6)


def unpool_by_default_size():
    return Unpooling(2, 2, sized=False), torch.randn(2, 3, 8, 6)


def unpool_overlapping():
    return Unpooling(3, 2), torch.randn(2, 3, 9, 7)


def unpool_odd():
    """Windows of 2 leave the last row and column over."""
    return Unpooling(2, 2), torch.randn(2, 3, 9, 7)


def unpool_padded():
    return Unpooling(3, 2, 1), torch.randn(2, 3, 8, 9)


def unpool_ceiled():
    return Unpooling(3, 2, ceil_mode=True), torch.randn(2, 3, 8, 9)


def unpool_every_step():
    return Unpooling(3, 1, 1), torch.randn(2, 3, 5, 5)


def unpool_unbatched():
    return Unpooling(2, 2), torch.randn(3, 8, 6)


class Switches(nn.Module):
    """Switches that come from outside, at twice the size."""

    def forward(self, x: Tensor, switches: Tensor) -> Tensor:
        return F.max_unpool2d(x, switches, 2, 2)


def unpool_given_switches():
    first = torch.tensor([[0, 3], [9, 14]])
    return Switches(), (torch.randn(2, 3, 2, 2), first.expand(2, 3, 2, 2).contiguous())


class Shown(nn.Module):
    """Switches as results, and used twice; pools of one and three axes."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        line, first = F.max_pool1d(x, 2, return_indices=True)
        volume, second = F.max_pool3d(x[:, :, None, None], (1, 1, 2), return_indices=True)
        return F.max_unpool1d(line, first, 2), F.max_unpool3d(volume * 2, second, (1, 1, 2)), first, second


def unpool_other_ranks():
    return Shown(), torch.randn(2, 3, 8)


class Crossed(nn.Module):
    """The switches of one plane used on another channel number, and twice."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled, switches = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(pooled[:, :2], switches[:, :2], 2), F.max_unpool2d(pooled * 3, switches, 2)


def unpool_of_some_channels():
    return Crossed(), torch.randn(2, 3, 8, 6)
