"""Modules whose initializers are not simply their parameters. Each factory takes no argument."""

from __future__ import annotations

import torch
from torch import nn


class Normalized(nn.Module):
    """Batch normalisations behind every operator that one is folded into, with and without biases and groups."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=True)
        self.first = nn.BatchNorm2d(4, eps=1e-2)
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2, bias=False)
        self.second = nn.BatchNorm2d(6)
        self.linear = nn.Linear(6, 5)
        self.third = nn.BatchNorm1d(5)

    def forward(self, x):
        x = self.second(self.up(self.first(self.conv(x)).relu())).relu()
        return self.third(self.linear(x.mean((2, 3))))


class Equal(nn.Module):
    """Parameters that are equal: an optimiser makes one of them."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(3))

    def forward(self, x):
        for norm in self.norms:
            x = norm(x).tanh()
        return x


class Computed(nn.Module):
    """Parameters that are reshaped, cast and computed with before they meet an input."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))
        self.gate = nn.Parameter(torch.randn(3))
        self.register_buffer("table", torch.arange(6.0).reshape(2, 3), persistent=False)

    def forward(self, x):
        return x @ self.weight.reshape(4, 6).exp() + (self.gate.sigmoid() * self.table).reshape(6)


def randomized(module):
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5 if "running_var" in name else torch.randn_like(tensor))
    return module


def normalized():
    return randomized(Normalized()), (torch.randn(2, 3, 6, 6),)


def equal():
    return Equal(), (torch.randn(2, 8),)


def computed():
    return Computed(), (torch.randn(5, 4),)
