"""Max pooling with its indices ("switches"), and unpooling.

PyTorch counts the place of a maximum within its channel's plane, ONNX within the whole tensor. So `MaxPool`'s indices
are reduced to PyTorch's where the module uses them as numbers, and an unpooling that belongs to a pool takes the
pool's own: `MaxPool` → `MaxUnpool`, with nothing between.

`MaxUnpool`'s optional third input is never used: the spec reads the indices in the tensor whose sizes follow from the
attributes and enlarges that afterwards, ONNX Runtime reads them in the enlarged one. The attributes are chosen so that
both are the same, and where sizes are known only at run time the plane is padded or cut afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from .operators import opset18 as op
from .sizes import Size, dims_vector, product, size_of, vector
from .table import translation
from .unpooling import DIRECT, DISTINCT, FITTING, SCATTER

aten = torch.ops.aten


def _per_axis(value: int | Sequence[int], rank: int) -> list[int]:
    """PyTorch's one number for all axes, or one for each."""
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


def _pool_with_indices(rank: int) -> Any:
    """The translation for `rank` spatial axes."""

    def max_pool_with_indices(  # noqa: PLR0913, PLR0917 - PyTorch's signature
        x: Any,
        kernel_size: Sequence[int],
        stride: Sequence[int] = (),
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
    ) -> tuple[Any, Any]:
        batched = len(x.shape) == rank + 2
        kernel_shape = _per_axis(kernel_size, rank)
        pads = _per_axis(padding, rank) * 2
        strides = _per_axis(stride, rank) if stride else kernel_shape
        pooled, indices = op.MaxPool(
            x if batched else op.Unsqueeze(x, op.Constant(value_ints=[0])),
            kernel_shape=kernel_shape,
            strides=strides,
            pads=pads,
            dilations=_per_axis(dilation, rank),
            ceil_mode=int(ceil_mode),
        )
        plane = product([size_of(x, len(x.shape) - rank + axis) for axis in range(rank)])
        switches = op.Mod(indices, plane)
        if batched:
            return pooled, switches
        return tuple(op.Squeeze(y, op.Constant(value_ints=[0])) for y in (pooled, switches))  # type: ignore[return-value]

    return max_pool_with_indices


translation(aten.max_pool1d_with_indices.default, since=18)(_pool_with_indices(1))
translation(aten.max_pool2d_with_indices.default, since=18)(_pool_with_indices(2))
translation(aten.max_pool3d_with_indices.default, since=18)(_pool_with_indices(3))


@translation(torch.ops.onnx_arch.max_unpool.default, since=18)
def max_unpool(  # noqa: PLR0913, PLR0917 - the signature of `unpooling.max_unpool`
    x: Any,
    indices: Any,
    output_size: Sequence[Size],
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    form: str,
) -> Any:
    """Zeros, with every element of `x` at its index within its plane."""
    if form in (SCATTER, DISTINCT):
        return _scattered(x, indices, output_size, distinct=form == DISTINCT)
    rank = len(output_size)
    batched = len(x.shape) == rank + 2
    if not batched:
        x, indices = (op.Unsqueeze(value, op.Constant(value_ints=[0])) for value in (x, indices))
    window = {"kernel_shape": list(kernel_shape), "strides": list(strides), "pads": list(pads)}
    own = _indices_of_pool(indices) if form == DIRECT else None
    if own is not None:
        y = op.MaxUnpool(x, own, **window)
    elif form in (DIRECT, FITTING):
        y = op.MaxUnpool(x, _flat_indices(indices, output_size, output_size), **window)
    else:
        canvas = [_canvas(x, axis, kernel_shape[axis], strides[axis]) for axis in range(rank)]
        y = op.MaxUnpool(x, _flat_indices(indices, output_size, canvas), **window)
        y = _resized(y, canvas, output_size)
    return y if batched else op.Squeeze(y, op.Constant(value_ints=[0]))


def _indices_of_pool(indices: Any) -> Any:
    """The indices over the whole tensor of which `indices` are the remainder by plane; None if they are none."""
    remainder = indices.producer()
    if remainder is None or remainder.op_type != "Mod":
        return None
    pool = remainder.inputs[0].producer()
    return remainder.inputs[0] if pool is not None and pool.op_type == "MaxPool" else None


def _flat_indices(indices: Any, plane: Sequence[Size], canvas: Sequence[Size]) -> Any:
    """Indices within `plane` as indices over a whole tensor (N, C, *canvas)."""
    rank = len(plane)
    if plane is not canvas:
        indices = _moved(indices, plane, canvas)
    planes = op.ReduceProd(dims_vector(indices, 0, 2), keepdims=0)
    numbers = op.Range(op.Constant(value_int=0), planes, op.Constant(value_int=1))
    first = op.Mul(numbers, product(canvas))
    shape = op.Concat(dims_vector(indices, 0, 2), op.Constant(value_ints=[1] * rank), axis=0)
    return op.Add(indices, op.Reshape(first, shape))


def _moved(indices: Any, plane: Sequence[Size], canvas: Sequence[Size]) -> Any:
    """Indices within a plane as indices within another in whose first corner it lies."""
    moved, rest = None, indices
    for axis in range(len(plane)):
        below = product(plane[axis + 1 :])
        along = op.Div(rest, below)
        rest = op.Sub(rest, op.Mul(along, below))
        step = op.Mul(along, product(canvas[axis + 1 :]))
        moved = step if moved is None else op.Add(moved, step)
    return moved


def _canvas(x: Any, axis: int, kernel: int, stride: int) -> Size:
    """(D − 1) · stride + kernel: where all windows, padded or not, end."""
    size = size_of(x, axis + 2)
    if isinstance(size, int):
        return (size - 1) * stride + kernel
    return op.Add(op.Mul(size, op.Constant(value_ints=[stride])), op.Constant(value_ints=[kernel - stride]))


def _resized(y: Any, canvas: Sequence[Size], output_size: Sequence[Size]) -> Any:
    """The plane padded with zeros, or cut, at its ends."""
    ends = op.Sub(vector(output_size), vector(canvas))
    begins = op.Constant(value_ints=[0] * (len(canvas) + 4))
    return op.Pad(y, op.Concat(begins, ends, axis=0))


def _scattered(x: Any, indices: Any, output_size: Sequence[Size], *, distinct: bool) -> Any:
    """The same without `MaxUnpool`, for runtimes that have none.

    Where windows overlap, several may have their maximum in one place, and the last of them, in row-major order, is
    kept, as PyTorch does on the CPU. A scatter does not say which of several writes stays, so the places are scattered
    first, by their maximum, and the values gathered through them.
    """
    rank = len(output_size)
    lead = dims_vector(x, 0, len(x.shape) - rank)
    count = product([size_of(x, len(x.shape) - rank + axis) for axis in range(rank)])
    flat = op.Concat(lead, count, axis=0)
    values, places = op.Reshape(x, flat), op.Reshape(indices, flat)  # (…, L)
    area = op.Concat(lead, product(output_size), axis=0)
    zero = op.Constant(value=ir.tensor(0.0, dtype=x.dtype))
    if distinct:
        y = op.ScatterElements(op.Expand(zero, area), places, values, axis=-1)
    else:
        numbers = op.Range(op.Constant(value_int=0), op.Squeeze(count), op.Constant(value_int=1))
        nothing = op.Expand(op.Constant(value=ir.tensor(np.int64(-1))), area)
        last = op.ScatterElements(nothing, places, op.Expand(numbers, flat), axis=-1, reduction="max")
        picked = op.GatherElements(values, op.Max(last, op.Constant(value_int=0)), axis=-1)
        y = op.Where(op.Less(last, op.Constant(value_int=0)), zero, picked)
    return op.Reshape(y, op.Concat(lead, vector(output_size), axis=0))
