"""Unpooling in a traced program, told what ONNX's `MaxUnpool` must know and PyTorch's operator does not say.

`aten.max_unpool2d` has an output size and no window. Before translation each call is replaced by
`onnx_arch.max_unpool`, which computes the same and also states the window: that of the pool whose indices it takes,
or, of indices that come from elsewhere (an input of the graph), one that makes the output size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import statically_known_true

from .traced import graph_modules

aten = torch.ops.aten

DIRECT = "direct"
"""The indices are those of a pool over a plane of the output's size, and the window makes exactly that size."""
FITTING = "fitting"
"""The window makes exactly the output's size; the indices come from elsewhere."""
CANVAS = "canvas"
"""Sizes are known at run time only: the plane is made as large as the windows reach, then padded or cut."""
DISTINCT = "distinct"
"""Without `MaxUnpool`; no two elements have one index."""
SCATTER = "scatter"
"""Without `MaxUnpool`; elements may share an index."""

UNPOOLS = {aten.max_unpool2d.default: 2, aten.max_unpool3d.default: 3}
"""PyTorch's operators, with their number of spatial axes."""

POOLS = (
    aten.max_pool2d_with_indices.default,
    aten.max_pool3d_with_indices.default,
)


@torch.library.custom_op("onnx_arch::max_unpool", mutates_args=())
def max_unpool(  # noqa: PLR0913, PLR0917 - an operator of PyTorch: no keywords in a trace
    x: Tensor,
    indices: Tensor,
    output_size: Sequence[int],
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    form: str,
) -> Tensor:
    """PyTorch's unpooling; the window and the form are for the translation only.

    Args:
        x: (…, D1, …, Dn).
        indices: same shape, int64, within the plane of an element's channel.
        output_size: (O1, …, On).
        kernel_shape: of the window; empty where unknown.
        strides: likewise.
        pads: all beginnings, then all ends; likewise.
        form: DIRECT, FITTING, CANVAS, DISTINCT or SCATTER.
    """
    if len(output_size) == 2:
        return aten.max_unpool2d(x, indices, output_size)
    return aten.max_unpool3d(x, indices, output_size, [1] * 3, [0] * 3)


@max_unpool.register_fake
def _(  # noqa: PLR0913, PLR0917 - as above
    x: Tensor,
    indices: Tensor,
    output_size: Sequence[int],
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    form: str,
) -> Tensor:
    return x.new_empty((*x.shape[: -len(output_size)], *output_size))


@dataclass(frozen=True)
class Window:
    """Of a pool along one axis: taps (dilated), step, padding at both ends together."""

    kernel: int
    stride: int
    padding: int = 0


def state_windows(program: torch.export.ExportedProgram, unpool: str) -> None:
    """Replace PyTorch's unpooling operators in a traced program by `onnx_arch.max_unpool`, in place.

    Args:
        program: traced; names and values of its nodes stay.
        unpool: "native" or "scatter".
    """
    for module in graph_modules(program):
        found = [node for node in module.graph.nodes if node.target in UNPOOLS]
        for node in found:
            node.args = (*node.args[:3], *_facts(node, unpool))
            node.target = torch.ops.onnx_arch.max_unpool.default
        if found:
            module.recompile()


def _facts(node: Node, unpool: str) -> tuple[Any, ...]:
    """Kernel, strides, pads and form of an unpooling."""
    rank = UNPOOLS[node.target]  # type: ignore[index]
    x, indices = node.args[0], node.args[1]
    sizes, output = _spatial(x, rank), _spatial(node, rank)
    pool = _pool_of(indices)
    windows = _pool_windows(pool, rank) if pool is not None else None
    if unpool == SCATTER:
        apart = windows is not None and all(window.stride >= window.kernel for window in windows)
        return [], [], [], DISTINCT if apart else SCATTER
    fitted = [_fitted(*axis) for axis in zip(sizes, output, windows or [None] * rank, strict=True)]
    if all(window is not None for window in fitted):
        same_plane = pool is not None and _same(_spatial(pool.args[0], rank), output)
        return *_attributes([window for window in fitted if window is not None]), DIRECT if same_plane else FITTING
    if windows is not None:
        return *_attributes([Window(window.kernel, window.stride) for window in windows]), CANVAS
    return [], [], [], SCATTER


def _spatial(node: Any, rank: int) -> list[Any]:
    """Sizes of the last axes of a node's value."""
    return list(node.meta["val"].shape)[-rank:]


def _same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return all(_is_equal(one, other) for one, other in zip(a, b, strict=True))


def _is_equal(a: Any, b: Any) -> bool:
    """Whether two sizes are equal whenever the program runs, as far as its guards tell.

    A module that says `torch._check(height % 8 == 0)` makes 2 · (height // 2) the height.
    """
    if statically_known_true(a == b):
        return True
    symbolic = next((size for size in (a, b) if isinstance(size, torch.SymInt)), None)
    if symbolic is None:
        return False
    known = [mod.args for mod in symbolic.node.shape_env.divisible if mod.args[0].is_Symbol and mod.args[1].is_Integer]
    multiples = {symbol: n * sympy.Dummy(integer=True, positive=True) for symbol, n in known}
    one, other = (sympy.sympify(_expression(size)).subs(multiples) for size in (a, b))
    return sympy.expand(one - other) == 0


def _pool_of(indices: Any) -> Node | None:
    """The pool whose second result `indices` is."""
    if indices.op != "call_function" or len(indices.args) != 2:
        return None
    pool, which = indices.args
    return pool if which == 1 and isinstance(pool, Node) and pool.target in POOLS else None


def _pool_windows(pool: Node, rank: int) -> list[Window]:
    """The window of a pool along every axis."""
    kernel, stride, padding, dilation, *_ = [*pool.args[1:], *[None] * 4][:4]
    kernels, dilations = _each(kernel, rank), _each(1 if dilation is None else dilation, rank)
    strides = _each(stride, rank) if stride else kernels
    pads = _each(0 if padding is None else padding, rank)
    return [Window((k - 1) * d + 1, s, 2 * p) for k, s, p, d in zip(kernels, strides, pads, dilations, strict=True)]


def _each(value: Any, rank: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


def _fitted(size: Any, output: Any, window: Window | None) -> Window | None:
    """A window that makes `output` of `size` exactly, as like the pool's as can be; None if none is known to.

    Numbers: what the pool's window leaves over at the end (a row that no window covers) makes the kernel larger, what
    it has too much is padding. Symbols: the pool's window if it is known to fit; without a pool, a linear relation.
    """
    if isinstance(size, int) and isinstance(output, int):
        stride = max(output // max(size, 1), 1) if window is None else window.stride
        return _reaching(output - (size - 1) * stride, stride, 1 if window is None else window.kernel)
    if window is None:
        return _linear(size, output)
    made = (size - 1) * window.stride + window.kernel - window.padding
    return window if _is_equal(made, output) else None


def _linear(size: Any, output: Any) -> Window | None:
    """The window of output = a · size + b."""
    variable = sympy.Dummy("size", integer=True, positive=True)
    expression = sympy.sympify(_expression(output)).subs(_expression(size), variable)
    slope = sympy.diff(expression, variable)
    rest = sympy.expand(expression - slope * variable)
    if not (slope.is_Integer and rest.is_Integer and slope >= 1):
        return None
    return _reaching(int(rest + slope), int(slope))


def _reaching(net: int, stride: int, kernel: int = 1) -> Window:
    """The window nearest to `kernel` whose taps less its padding are `net`.

    ONNX Runtime wants each half of the padding to be smaller than the kernel.
    """
    kernel = max(kernel, net, 2 - net)
    return Window(kernel, stride, kernel - net)


def _expression(size: Any) -> Any:
    return size.node.expr if isinstance(size, torch.SymInt) else size


def _attributes(windows: Sequence[Window]) -> Iterator[list[int]]:
    """`kernel_shape`, `strides` and `pads` of the windows; of an odd padding, the larger half is at the end."""
    yield [window.kernel for window in windows]
    yield [window.stride for window in windows]
    halves = [window.padding // 2 for window in windows]
    yield [*halves, *(window.padding - half for window, half in zip(windows, halves, strict=True))]
