"""Products in float64 with parameters as they are stored: converted block by block, never held twice.

A matrix of 400 MB would be 800 MB in float64. Its products are taken of blocks of it; a block is converted, used and
dropped. A convolution, which PyTorch computes in float64 by writing out all windows of the batch, is taken picture by
picture and some rows at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

NARROW = frozenset({torch.float32, torch.float16, torch.bfloat16})

BLOCK_ELEMENTS = 1 << 22
"""A block is at most 32 MiB in float64; a parameter with more is large."""

aten = torch.ops.aten

VIEWS = frozenset(
    {
        aten.alias.default,
        aten.detach.default,
        aten.expand.default,
        aten.permute.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.split.Tensor,
        aten.split_with_sizes.default,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.t.default,
        aten.transpose.int,
        aten.unsqueeze.default,
        aten.view.default,
    }
)
"""Operations that copy nothing: their result is another look at the parameter."""

LOOKUPS = frozenset({aten.embedding.default, aten.index_select.default, aten.index.Tensor, aten.gather.default})
"""Operations that take some of a parameter's rows."""


def is_large(value: Any) -> bool:
    """Whether a value is a narrow floating-point tensor that is not converted whole."""
    return isinstance(value, Tensor) and value.dtype in NARROW and value.numel() > BLOCK_ELEMENTS


def _wide(value: Tensor) -> Tensor:
    return value.double() if value.dtype in NARROW else value


def _blocks(count: int, size: int) -> Iterator[slice]:
    """Slices of `count` items of `size` elements each, as many as make a block."""
    step = max(1, BLOCK_ELEMENTS // max(size, 1))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


class Products:
    """Products in float64, of large parameters in blocks."""

    def __init__(self, release: Callable[[Tensor], None]) -> None:
        """Nothing is computed yet.

        Args:
            release: told of every block of a parameter when it has been used.
        """
        self._release = release
        self._table: dict[Any, Callable[..., Tensor | None]] = {
            aten.mm.default: self._mm,
            aten.addmm.default: self._addmm,
            aten.bmm.default: self._bmm,
            aten.convolution.default: self._convolution,
        }

    def compute(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
        """The float64 result of an operation that is better done in blocks; None for any other."""
        compute = self._table.get(func)
        return None if compute is None else compute(*args, **kwargs)

    def _taken(self, blocks: Iterator[Tensor]) -> Iterator[Tensor]:
        """The blocks in float64, one after the other."""
        for block in blocks:
            yield _wide(block)
            self._release(block)

    def _mm(self, a: Tensor, b: Tensor) -> Tensor | None:
        if is_large(a):
            rows = self._taken(a[part] for part in _blocks(a.shape[0], a.shape[1]))
            return torch.cat([self._product(block, b) for block in rows])
        return self._product(_wide(a), b) if is_large(b) else None

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        """a @ b with `a` wide."""
        if not is_large(b):
            return aten.mm(a, _wide(b))
        columns = self._taken(b[:, part] for part in _blocks(b.shape[1], b.shape[0]))
        return torch.cat([aten.mm(a, block) for block in columns], 1)

    def _addmm(self, bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor | None:
        product = self._mm(a, b)
        return None if product is None else _wide(bias) * beta + product * alpha

    def _bmm(self, a: Tensor, b: Tensor) -> Tensor | None:
        if not (is_large(a) or is_large(b)):
            return None
        return torch.stack([self._either(left, right) for left, right in zip(a, b, strict=True)])

    def _either(self, a: Tensor, b: Tensor) -> Tensor:
        product = self._mm(a, b)
        if product is not None:
            return product
        found = aten.mm(_wide(a), _wide(b))
        self._release(a)
        self._release(b)
        return found

    def _convolution(  # noqa: PLR0913, PLR0917 - the operator's own arguments
        self,
        x: Tensor,
        w: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        transposed: bool,
        output_padding: Sequence[int],
        groups: int,
    ) -> Tensor | None:
        if not w.is_floating_point() or x.ndim not in (3, 4) or x.ndim != w.ndim or not x.numel():
            return None
        bias, tiles = None if bias is None else _wide(bias), _Tiles(stride, padding, dilation, groups)
        if transposed:
            rest = (stride, padding, dilation, True, output_padding, 1)
            whole = groups != 1 or not is_large(w)
            wide = _wide(x)
            return None if whole else self._channels(lambda part, b: aten.convolution(wide, part, b, *rest), w, bias, 1)
        if groups != 1 or not is_large(w):
            return tiles.convolve(x, _wide(w), bias) if w.shape[0] % groups == 0 else None
        return self._channels(lambda part, b: tiles.convolve(x, part, b), w, bias, 0)

    def _channels(
        self, compute: Callable[[Tensor, Tensor | None], Tensor], w: Tensor, bias: Tensor | None, dim: int
    ) -> Tensor:
        """A convolution some output channels, which are dim `dim` of the weight, at a time."""
        parts = list(_blocks(w.shape[dim], w.numel() // w.shape[dim]))
        blocks = self._taken(w[part] if dim == 0 else w[:, part] for part in parts)
        biases = (None if bias is None else bias[part] for part in parts)
        return torch.cat([compute(block, own) for block, own in zip(blocks, biases, strict=True)], 1)


class _Tiles:
    """A convolution taken picture by picture and, along the first spatial dim, some output rows at a time."""

    def __init__(self, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int) -> None:
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def convolve(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        """x (B, C, …) with w in float64."""
        if not len(x):
            return self._rows(_wide(x), w, bias, tuple(self.padding))
        return torch.cat([self._picture(_wide(x[i : i + 1]), w, bias) for i in range(len(x))])

    def _picture(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        kernel, (step, *_), (pad, *rest) = self.dilation[0] * (w.shape[2] - 1) + 1, self.stride, self.padding
        rows = (x.shape[2] + 2 * pad - kernel) // step + 1
        window = w[0].numel() * self.groups * math.prod(x.shape[3:]) // math.prod(self.stride[1:] or (1,))
        if rows * window <= BLOCK_ELEMENTS or rows <= 0:
            return self._rows(x, w, bias, tuple(self.padding))
        padded = torch.nn.functional.pad(x, (*(0,) * (2 * (x.ndim - 3)), pad, pad)) if pad else x
        pieces = []
        for tile in _blocks(rows, window):
            taken = padded[:, :, tile.start * step : (tile.stop - 1) * step + kernel]
            pieces.append(self._rows(taken, w, bias, (0, *rest)))
        return torch.cat(pieces, 2)

    def _rows(self, x: Tensor, w: Tensor, bias: Tensor | None, padding: tuple[int, ...]) -> Tensor:
        none = (0,) * len(padding)
        return aten.convolution(x, w, bias, self.stride, padding, self.dilation, False, none, self.groups)
