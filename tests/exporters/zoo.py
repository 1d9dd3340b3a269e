"""Modules that people export: every trick that a correct export must survive. Each factory takes no argument."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from torch._higher_order_ops import while_loop


class Buffers(nn.Module):
    """A persistent buffer, one that is not saved, a plain tensor attribute, and a buffer that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 5)
        self.register_buffer("gain", torch.randn(5))
        self.register_buffer("shift", torch.randn(5), persistent=False)
        self.register_buffer("unused", torch.randn(3))
        self.plain = torch.tensor(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return (self.linear(x) * self.gain + self.shift) * self.plain


class ScaledDot(nn.Module):
    """Several inputs; 1/sqrt(d) as a Python number; softmax over an inner axis; dropout at rest."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # (B, T, D), (B, S, D) ×2 -> (B, T, D)
        scores = q @ k.transpose(1, 2) * (1 / math.sqrt(q.shape[-1]))
        return self.dropout(torch.softmax(scores, dim=-1)) @ v


class Tokens(nn.Module):
    """Integer tokens and a boolean mask; positions computed on the way; a float32 island; integer, boolean results."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 11)

    def forward(self, tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
        positions = torch.arange(tokens.shape[1], device=tokens.device, dtype=torch.float32)
        angles = positions[:, None] * torch.exp(torch.arange(4, dtype=torch.float32) * (-math.log(100.0) / 4))
        x = self.embedding(tokens) + torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.head.weight.dtype)
        x = self.norm(x.float().to(self.head.weight.dtype))
        x = x.masked_fill(~mask[..., None], 0.0)
        logits = self.head(x)
        return {"logits": logits, "best": logits.argmax(-1), "confident": logits.amax(-1) > 0.5}


class Cache(nn.Module):
    """Nested state in and out, past and present, as decoders have it; an optional argument left out."""

    def __init__(self) -> None:
        super().__init__()
        self.key = nn.Linear(4, 4)
        self.value = nn.Linear(4, 4)

    def forward(
        self, x: Tensor, past: list[dict[str, Tensor]], bias: Tensor | None = None
    ) -> tuple[Tensor, list[dict[str, Tensor]]]:
        present = []
        for layer in past:
            keys = torch.cat([layer["key"], self.key(x)], dim=2)
            values = torch.cat([layer["value"], self.value(x)], dim=2)
            x = F.scaled_dot_product_attention(x, keys, values)
            present.append({"key": keys, "value": values})
        return (x if bias is None else x + bias), present


class Echo(nn.Module):
    """Returns its input, one result twice, and an argument's constant."""

    def forward(self, x: Tensor, power: int, mode: str) -> tuple[Tensor, Tensor, Tensor]:
        y = x**power if mode == "power" else x
        return x, y, y


class Picture(nn.Module):
    """Convolutions with dilation, stride and groups; every normalisation; GELU both ways; pooling with indices."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, dilation=2, padding=2)
        self.batch_norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, stride=2, groups=4, bias=False)
        self.group_norm = nn.GroupNorm(2, 8)
        self.instance_norm = nn.InstanceNorm2d(8, affine=True)
        with torch.no_grad():
            self.batch_norm.running_mean.normal_()
            self.batch_norm.running_var.uniform_(0.5, 1.5)
            for norm in (self.batch_norm, self.group_norm, self.instance_norm):
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_()

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.batch_norm(self.first(x)))
        x = F.gelu(self.group_norm(self.second(x)), approximate="tanh")
        x = F.silu(self.instance_norm(x)) - 0.1 * x
        return F.avg_pool2d(x, 3, padding=1, count_include_pad=False).mean(dim=(2, 3))


class Folding(nn.Module):
    """What `fold` folds away: batch normalisation without a bias before it, and a weight that is transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, bias=False)
        self.bn = nn.BatchNorm2d(3)
        self.out = nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            self.bn.running_mean.normal_()
            self.bn.running_var.uniform_(0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.bn(self.conv(x)).flatten(2).transpose(1, 2))


class Halves(nn.Module):
    """Takes pictures of even height only."""

    def forward(self, x: Tensor) -> Tensor:  # (B, H) -> (B, H / 2)
        if x.shape[1] % 2 != 0:
            raise ValueError(f"height {x.shape[1]} is odd")
        a, b = x.chunk(2, dim=1)
        return a * b


class Ordered(nn.Module):
    """Results that depend on an order, a recurrence, and a normalisation with the epsilon of its type."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # (B, T, C)
        states, _ = self.lstm(F.rms_norm(1e-3 * x, (6,)))
        values, indices = states.flatten(1).topk(3, dim=1)
        return values, indices, states.cumsum(1)


class Frozen(nn.Module):
    """Its batch is two, and it says so in its code."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(2, 3) * 2


class Random(nn.Module):
    """Adds noise: no two runs agree."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


def buffers():
    return Buffers(), torch.randn(2, 6)


def scaled_dot():
    return ScaledDot(), (torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 4))


def tokens():
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    return Tokens(), (torch.tensor([[1, 2, 3, 4], [10, 9, 8, 0]]), mask)


def cache():
    past = [{"key": torch.randn(2, 2, 3, 4), "value": torch.randn(2, 2, 3, 4)} for _ in range(2)]
    return Cache(), (torch.randn(2, 2, 1, 4),), {"past": past}


def echo():
    return Echo(), (torch.rand(2, 3), 3, "power")


def picture():
    return Picture(), (torch.randn(2, 3, 12, 14),)


def folding():
    return Folding(), (torch.randn(2, 2, 5, 5),)


def ordered():
    return Ordered(), (torch.randn(2, 4, 6),)


def halves():
    return Halves(), (torch.randn(2, 4),)


def frozen():
    return Frozen(), (torch.randn(2, 3),)


def random():
    return Random(), (torch.randn(2, 3),)


def only_module():
    return ScaledDot()


def zeros():
    """Example inputs that say nothing: a wrong graph would be right on them."""
    return Picture(), (torch.zeros(2, 3, 12, 14),)


class Branching(nn.Module):
    """A branch that values decide: an If node, with parameters in either branch."""

    def __init__(self) -> None:
        super().__init__()
        self.warm, self.cold = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: self.warm(x).relu(), lambda x: self.cold(x) - 1, (x,))


class Looping(nn.Module):
    """A loop whose body has parameters: a Loop node."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        def body(i: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            return i + 1, torch.tanh(self.step(h))

        return while_loop(lambda i, _: i < 5, body, (torch.tensor(0), x))[1]


class Guarded(nn.Module):
    """A Python `if` on a value, which cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x - 1


def branching():
    return Branching(), (torch.randn(3, 4),)


def looping():
    return Looping(), (torch.randn(3, 4),)


def guarded():
    return Guarded(), (torch.randn(3, 4),)


instance = nn.Sequential(nn.Linear(3, 4), nn.GELU())


def raises():
    raise KeyError("no such layer")


def not_a_module():
    return 42


def leaves():
    raise SystemExit(3)


def wrong_arguments():
    return ScaledDot(), (torch.randn(2, 3, 4),)


def scripted():
    with warnings.catch_warnings(action="ignore"):  # it is deprecated, and still in use
        return torch.jit.trace(nn.Linear(2, 2), torch.randn(1, 2)), (torch.randn(1, 2),)


def complex_input():
    return nn.Identity(), (torch.randn(1, 2, dtype=torch.complex64),)


def without_values():
    return nn.Linear(2, 2, device="meta"), (torch.randn(1, 2),)


class Scaled(nn.Module):
    """Takes whatever keywords there are."""

    def forward(self, x: Tensor, **factors: Tensor) -> Tensor:
        return x * factors["first"] - factors["second"]


def keywords():
    return Scaled(), (torch.randn(2, 3),), {"first": torch.randn(3), "second": torch.randn(3)}


class Gathering(nn.Module):
    """Takes however many tensors there are."""

    def forward(self, *terms: Tensor, **factors: Tensor) -> Tensor:
        return sum(terms[1:], terms[0]) * factors["last"]


def gathering():
    return Gathering(), (torch.randn(2, 3), torch.randn(2, 3)), {"last": torch.randn(3)}


class Measuring(nn.Module):
    """Beside its tensor it returns a size, constants and nothing."""

    def forward(self, x: Tensor) -> dict[str, Tensor | float | str | None]:
        return {"rows": x.shape[0], "doubled": x * 2, "scale": 0.5, "unit": "m", "bias": None, "total": x.sum(0)}


def measuring():
    return Measuring(), (torch.randn(2, 3),)


class Counting(nn.Module):
    """Updates its buffers whenever it runs: one in place, one by another tensor in its stead."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.tensor(3.0))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        self.mean = self.mean + (x.mean(0) - self.mean) / self.steps
        return x - self.mean


def counting():
    return Counting(), (torch.randn(3, 4),)


class Turning(nn.Module):
    """Rotary positions as complex numbers, in float32 whatever the type of the rest."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(16.0), 0.1 ** torch.arange(4))
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles))

    def forward(self, x: Tensor) -> Tensor:  # (B, T, 8)
        pairs = torch.view_as_complex(x.float().unflatten(-1, (4, 2)))
        return torch.view_as_real(pairs * self.turns[: x.shape[1]]).flatten(-2).to(x.dtype)


def turning():
    return Turning(), (torch.randn(2, 6, 8),)


@dataclass
class Seen:
    """What a module takes, and what it gives."""

    pixels: Tensor
    mask: Tensor | None = None
    power: int = 2


@dataclass
class Found:
    """A result with a dataclass in it."""

    seen: Seen
    score: Tensor


class Finding(nn.Module):
    """Arguments and results that are dataclasses, as torch does not know them."""

    def forward(self, seen: Seen) -> Found:
        return Found(Seen(seen.pixels**seen.power), seen.pixels.sum(-1))


def finding():
    return Finding(), (Seen(torch.randn(2, 3)),)


def nothing_to_compare():
    return nn.ReLU(), (torch.randn(0, 3),)


not_callable = 3
