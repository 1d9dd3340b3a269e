"""Activations that ONNX has as one operator.

`Gelu` (since 20) is torch.onnx's own translation, as is x · sigmoid(x) before opset 24.
"""

from __future__ import annotations

from typing import Any

import torch

from .operators import opset18, opset24
from .table import translation

aten = torch.ops.aten


@translation(aten.silu.default, since=24)
def swish(x: Any) -> Any:
    """x · sigmoid(x) as one operator."""
    return opset24.Swish(x)


@translation(aten.silu.default, since=25)
def swish_decomposed(x: Any) -> Any:
    """The same in two operators: ONNX Runtime 1.32 has no kernel for `Swish`, and knows its body for opset 24 only.

    A graph that does not run is of no use to anybody; opset 24 is there for who wants the operator.
    """
    return opset18.Mul(x, opset18.Sigmoid(x))
