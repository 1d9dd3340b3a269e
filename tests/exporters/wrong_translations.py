"""Translations of PyTorch operators that are wrong in the ways in which exporters have been wrong.

Each stands in for torch.onnx's own: the graph is valid, every node of it is right, and the graph is not the module.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from onnxscript import opset20 as op
from torch import Tensor, nn

aten = torch.ops.aten


class Victim(nn.Module):
    """Two linear layers with one operation between them, so that a fault is not where the graph ends."""

    def __init__(self, between):
        super().__init__()
        self.before = nn.Linear(6, 6)
        self.between = between
        self.after = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.between(self.before(x)))


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.dilated = nn.Conv2d(2, 4, 3, padding=2, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.dilated(x.tanh()).relu()


def linear_case(between):
    return Victim(between), (torch.randn(2, 6),)


def gelu():
    return linear_case(nn.GELU())


def softmax():
    return linear_case(lambda x: torch.softmax(x, dim=-1))


def subtraction():
    return linear_case(lambda x: x.exp() - x)


def division():
    return linear_case(lambda x: x / (x * x + 2.0))


def mean():
    return linear_case(lambda x: x - x.mean(dim=-1, keepdim=True))


def maximum():
    return linear_case(lambda x: x - x.amax(dim=-1, keepdim=True))


def slope():
    return linear_case(lambda x: F.leaky_relu(x, 0.01))


def epsilon():
    return linear_case(nn.LayerNorm(6, eps=1e-3))


def convolution():
    return Convolution(), (torch.randn(2, 2, 8, 8),)


def conv_without_dilations(x, w, b=None, *attributes):
    return op.Conv(x, w, b, pads=[1, 1, 1, 1])


def gelu_by_tanh(x, approximate="none"):
    return op.Gelu(x, approximate="tanh")


def softmax_over_rows(x, dim, dtype=None):
    return op.Softmax(x, axis=0)


def subtraction_swapped(a, b, alpha=1.0):
    return op.Sub(b, a)


def division_swapped(a, b):
    return op.Div(b, a)


def sum_for_mean(x, dim, keepdim=False):
    return op.ReduceSum(x, op.Constant(value_ints=[-1]), keepdims=1)


def mean_over_all(x, dim, keepdim=False):
    return op.ReduceMean(x, keepdims=1)


def mean_for_maximum(x, dim, keepdim=False):
    return op.ReduceMean(x, op.Constant(value_ints=[-1]), keepdims=1)


def slope_changed(x, negative_slope=0.01):
    return op.LeakyRelu(x, alpha=0.02)


def epsilon_dropped(x, shape, weight, bias, *attributes):
    return op.LayerNormalization(x, weight, bias, axis=-1)[0]


CASES = {
    "attribute dropped": ("convolution", aten.conv2d.default, conv_without_dilations, "Conv", "conv2d"),
    "attribute changed": ("gelu", aten.gelu.default, gelu_by_tanh, "Gelu", "gelu"),
    "axis changed": ("softmax", aten.softmax.int, softmax_over_rows, "Softmax", "softmax"),
    "operands of Sub swapped": ("subtraction", aten.sub.Tensor, subtraction_swapped, "Sub", "sub"),
    "operands of Div swapped": ("division", aten.div.Tensor, division_swapped, "Div", "div"),
    "sum for mean": ("mean", aten.mean.dim, sum_for_mean, "ReduceSum", "mean"),
    "mean over other axes": ("mean", aten.mean.dim, mean_over_all, "ReduceMean", "mean"),
    "mean for maximum": ("maximum", aten.amax.default, mean_for_maximum, "ReduceMean", "amax"),
    "constant changed": ("slope", aten.leaky_relu.default, slope_changed, "LeakyRelu", "leaky_relu"),
    "epsilon dropped": ("epsilon", aten.layer_norm.default, epsilon_dropped, "LayerNormalization", "layer_norm"),
}
"""By fault: factory, PyTorch operator, translation, op_type of the first wrong node, word in the operator's name."""
