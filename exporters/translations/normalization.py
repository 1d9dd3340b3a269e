"""Root mean square normalisation: one operator since opset 23, its exact decomposition before; and `LRN`.

`LayerNormalization` (since 17) and `GroupNormalization` (since 21; before, instance normalisation of the groups) are
torch.onnx's own translations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch

from . import response_norm  # noqa: F401 - its operator is translated here
from .operators import opset18, opset23
from .table import translation

aten = torch.ops.aten

TORCH_TYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.DOUBLE: torch.float64,
}
NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _epsilon(x: Any, eps: float | None) -> float:
    """`eps`, or the spacing at one of the input's type, which PyTorch adds when it is told none."""
    return torch.finfo(TORCH_TYPES[x.dtype]).eps if eps is None else eps


@translation(aten.rms_norm.default, since=23)
def rms_normalization(x: Any, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Any:
    """x / √(mean of x² + ε) · weight, over the last axes."""
    if weight is None:
        one = opset23.Constant(value=ir.tensor(1, dtype=x.dtype))
        weight = opset23.Expand(one, opset23.Constant(value_ints=list(normalized_shape)))
    return opset23.RMSNormalization(x, weight, axis=-len(normalized_shape), epsilon=_epsilon(x, eps))


@translation(aten.rms_norm.default, since=18)
def rms_normalization_decomposed(
    x: Any, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None
) -> Any:
    """The same in single operators; types of 16 bits are normalised in float32, as PyTorch does."""
    op = opset18
    wide = op.Cast(x, to=int(ir.DataType.FLOAT)) if x.dtype in NARROW else x
    axes = op.Constant(value_ints=list(range(-len(normalized_shape), 0)))
    mean = op.ReduceMean(op.Mul(wide, wide), axes, keepdims=1)
    normal = op.Div(wide, op.Sqrt(op.Add(mean, _epsilon(x, eps))))
    if weight is None:
        return op.CastLike(normal, x) if wide is not x else normal
    if wide is x:
        return op.Mul(normal, weight)
    return op.CastLike(op.Mul(normal, op.CastLike(weight, normal)), x)


@translation(torch.ops.onnx_arch.local_response_norm.default, since=18)
def local_response_normalization(x: Any, size: int, alpha: float, beta: float, k: float) -> Any:
    """x / (k + alpha / size · sum of x² over `size` channels)^beta, as one operator."""
    return opset18.LRN(x, size=size, alpha=alpha, beta=beta, bias=k)
