"""Local response normalisation in a traced program: its nine operators found, and made one again.

`torch.nn.functional.local_response_norm` is a function of Python's and leaves squares, a pad, an average pool over the
channels, a factor, a sum, a power and a quotient in the trace. ONNX has had `LRN` from the beginning. Both divide alpha
by the size of the window. Of an even window ONNX's larger half comes after the channel and PyTorch's before it, so only
odd ones are the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional

from .traced import graph_modules

aten = torch.ops.aten

POOLS = (aten.avg_pool2d.default, aten.avg_pool3d.default)
RESHAPES = (aten.view.default, aten.reshape.default, aten.squeeze.dim, aten.unsqueeze.default)
TYPES = (torch.float32, torch.float16, torch.bfloat16)
"""ONNX Runtime has no `LRN` in float64; there the operators stay."""

PICTURES = 4
"""Rank of what ONNX Runtime's `LRN` takes."""


@torch.library.custom_op("onnx_arch::local_response_norm", mutates_args=())
def local_response_norm(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """PyTorch's own; `size` is odd."""
    return functional.local_response_norm(x, size, alpha, beta, k)


@local_response_norm.register_fake
def _(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    return torch.empty_like(x)


def join_response_norms(program: torch.export.ExportedProgram) -> None:
    """Replace what `local_response_norm` left in a traced program by one operator, in place."""
    for module in graph_modules(program):
        found = [(node, norm) for node in module.graph.nodes if (norm := _norm_of(node)) is not None]
        for node, norm in found:
            node.args, node.target = norm, torch.ops.onnx_arch.local_response_norm.default
        if found:
            module.graph.eliminate_dead_code()
            module.recompile()


def _arguments(value: Any) -> tuple[Any, ...]:
    return tuple(value.args)


def _norm_of(node: Node) -> tuple[Any, ...] | None:
    """Input, size, alpha, beta and k of the norm whose last operator `node` is; None if it is that of none."""
    if node.target != aten.div.Tensor:
        return None
    numbers: list[float] = []
    x, divisor = _arguments(node)
    for target in (aten.pow.Tensor_Scalar, aten.add.Tensor, aten.mul.Tensor):
        if not _is_call(divisor, target) or not isinstance(divisor.args[1], (int, float)) or divisor.kwargs:
            return None
        numbers.append(float(divisor.args[1]))
        divisor = divisor.args[0]
    beta, k, alpha = numbers
    size = _window(_reshaped(divisor), x)
    return None if size is None else (x, size, alpha, beta, k)


def _is_call(value: Any, *targets: Any) -> bool:
    return isinstance(value, Node) and value.op == "call_function" and value.target in targets


def _reshaped(value: Any) -> Any:
    """What was given another shape."""
    while _is_call(value, *RESHAPES):
        value = value.args[0]
    return value


def _window(pool: Any, x: Any) -> int | None:
    """How many channels of `x` a pool averages the squares of; None if it does anything else."""
    if not _is_call(pool, *POOLS) or len(pool.args) != 3 or pool.kwargs or not isinstance(x, Node):
        return None
    padded, (size, *rest), strides = _arguments(pool)
    if size % 2 == 0 or {*rest, *strides} != {1} or not _is_call(padded, aten.pad.default):
        return None
    squares, pads, *filled = _arguments(padded)
    half = [size // 2, size // 2]
    if list(pads) != [0] * (2 * len(rest)) + half or filled not in ([], ["constant"]) or padded.kwargs:
        return None
    given, value = _reshaped(squares), x.meta["val"]
    if not _is_call(given, aten.mul.Tensor) or tuple(given.args) != (x, x):
        return None
    shape = squares.meta["val"].shape
    channels = (value.ndim, value.dtype in TYPES, shape[0] == value.shape[0], shape[1], shape[2] == value.shape[1])
    return size if channels == (PICTURES, True, True, 1, True) else None
