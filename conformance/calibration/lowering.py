"""MatMul, Gemm, Conv, ConvTranspose and Einsum lowered to products of float32 matrices, rightly or with a fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...operators.scale import Array
from .case import Case, Outputs
from .summing import blas
from .trials import stored
from .windows import padded, windows

F = np.float32


@dataclass(frozen=True)
class Products:
    """An operator as G independent matrix products.

    Attributes:
        a: (G, R, K) float32.
        b: (G, K, N) float32.
        bias: broadcastable to (G, R, N), or None.
        assemble: (G, R, N) float32 -> the stored output.
    """

    a: Array
    b: Array
    bias: Array | None
    assemble: Callable[[Array], Array]


Multiply = Callable[[Array, Array], Array]


def finish(p: Products, y: Array) -> Outputs:
    """Bias and form."""
    return (p.assemble(y if p.bias is None else (y + p.bias).astype(F)),)


def product(p: Products, multiply: Multiply = blas) -> Array:
    """(G, R, N)."""
    return np.stack([multiply(a, b) for a, b in zip(p.a, p.b, strict=True)])


def lower(case: Case, **options: Any) -> Products | None:
    """The products of a case; `options` are what a faulty lowering does differently."""
    return LOWERINGS[case.op_type](case, **options)


def _floats(case: Case) -> list[Any]:
    return [None if x is None else x.astype(F) for x in case.inputs]


def lower_matmul(case: Case, *, stale_batch: bool = False, swapped: bool = False) -> Products | None:
    a, b = _floats(case)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (np.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (a, b))
    result = (*batch, a.shape[-2], b.shape[-1])
    a, b = (x.reshape(-1, *x.shape[-2:]) for x in (a, b))
    if stale_batch:
        b = np.broadcast_to(b[:1], b.shape)
    if swapped:
        if b.shape[-1] != b.shape[-2]:
            return None
        b = b.transpose(0, 2, 1)
    return Products(a, b, None, lambda y: stored(y.reshape(result), case.inputs[0]))


def lower_einsum(case: Case, **options: Any) -> Products | None:
    """ "bij,bjk->bik" """
    return lower_matmul(case, **options)


def lower_gemm(
    case: Case,
    *,
    forget: Sequence[str] = (),
    bias_factor: float = 1.0,
    bias_along_rows: bool = False,
    swapped: bool = False,
) -> Products | None:
    tensors: list[Any] = [*_floats(case), None]
    a, b, c = tensors[:3]
    given = {k: v for k, v in case.attributes.items() if k not in forget}
    if given.get("transA", 0):
        a = a.T
    if given.get("transB", 0):
        b = b.T
    if swapped:
        b = b.T
    if a.shape[1] != b.shape[0] or (swapped and b.shape[0] != b.shape[1]):
        return None
    alpha, beta = F(given.get("alpha", 1.0)), F(given.get("beta", 1.0) * bias_factor)
    if c is not None and bias_along_rows:
        c = np.resize(c, (a.shape[0], 1))
    bias = None if c is None or not beta else (beta * c)[None]
    return Products(np.ascontiguousarray(a)[None] * alpha, b[None], bias, lambda y: stored(y[0], case.inputs[0]))


def lower_conv(  # noqa: PLR0912 (one branch for each fault)
    case: Case,
    *,
    x: Any = None,
    w: Any = None,
    attributes: dict[str, Any] | None = None,
    dilate: bool = True,
    swap_pads: bool = False,
    shift: int = 0,
    edge: bool = False,
    flipped: bool = False,
    turned: bool = False,
    group_order: int = 0,
    stale_batch: bool = False,
    bias_factor: float = 1.0,
    bias_shift: int = 0,
    channel_last: bool = False,
) -> Products | None:
    """im2col."""
    given = dict(case.attributes) if attributes is None else attributes
    x = case.inputs[0].astype(F) if x is None else x
    w = case.inputs[1].astype(F) if w is None else w
    b = case.inputs[2] if len(case.inputs) > 2 else None
    rank = x.ndim - 2
    kernel, group = w.shape[2:], given.get("group", 1)
    strides, dilations = given.get("strides", [1] * rank), given.get("dilations", [1] * rank)
    pads = list(given.get("pads", [0] * 2 * rank))
    out = [
        (n + p + q - (k - 1) * d - 1) // s + 1
        for n, p, q, k, d, s in zip(x.shape[2:], pads[:rank], pads[rank:], kernel, dilations, strides, strict=True)
    ]
    if swap_pads:
        pads = pads[rank:] + pads[:rank]
    if edge:
        if not any(pads):
            return None
        p = np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)], mode="edge")
    else:
        p = padded(x, pads)
    if shift:
        p = np.roll(p, shift, axis=-1)
        p[..., :shift] = 0
    if not dilate:
        dilations = [1] * rank
    if flipped:
        w = w[(..., *[slice(None, None, -1)] * rank)]
    if turned:
        if rank < 2 or kernel[0] != kernel[1]:
            return None
        w = w.swapaxes(2, 3)
    patches = windows(p, kernel, strides, dilations)[(slice(None), slice(None), *(slice(0, n) for n in out))]
    N, C, M = x.shape[0], x.shape[1], w.shape[0]
    positions, taps = int(np.prod(out)), int(np.prod(kernel))
    patches = patches.reshape(N, group, C // group, positions, taps)
    # (N, group, positions, C / group, taps); with the flaw, taps before channels in the patches but not in the weights
    a = patches.transpose(0, 1, 3, 4, 2) if channel_last else patches.transpose(0, 1, 3, 2, 4)
    if group_order:
        if group == 1:
            return None
        a = np.roll(a, group_order, axis=1)
    if stale_batch:
        if N == 1:
            return None
        a = np.broadcast_to(a[:1], a.shape)
    a = a.reshape(N * group, positions, -1)
    right = w.reshape(group, M // group, -1).transpose(0, 2, 1)
    right = np.tile(right, (N, 1, 1))
    bias = None
    if b is not None and bias_factor:
        bias = np.roll(b.astype(F) * F(bias_factor), bias_shift).reshape(group, 1, M // group)
        bias = np.tile(bias, (N, 1, 1))

    def assemble(y: Array) -> Array:
        y = y.reshape(N, group, positions, M // group).transpose(0, 1, 3, 2)
        return stored(y.reshape(N, M, *out), case.inputs[0])

    return Products(np.ascontiguousarray(a), np.ascontiguousarray(right), bias, assemble)


def lower_conv_transpose(
    case: Case, *, output_padding_first: bool = False, unflipped: bool = False, **options: Any
) -> Products | None:
    """A convolution of the input with zeros between its elements, the weights turned round."""
    x, w = (v.astype(F) for v in case.inputs[:2])
    rank, given = x.ndim - 2, case.attributes
    group = given.get("group", 1)
    strides, dilations = given.get("strides", [1] * rank), given.get("dilations", [1] * rank)
    pads = list(given.get("pads", [0] * 2 * rank))
    more = list(given.get("output_padding", [0] * rank))
    spread = np.zeros((*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], strides, strict=True))), F)
    spread[(..., *(slice(None, None, s) for s in strides))] = x
    reach = [(k - 1) * d for k, d in zip(w.shape[2:], dilations, strict=True)]
    around = [r - p for r, p in zip(reach * 2, pads, strict=True)]
    first = 0 if output_padding_first else rank
    for axis in range(rank):
        around[first + axis] += more[axis]
    if min(around) < 0 or (output_padding_first and not any(more)):
        return None
    turned = w if unflipped else w[(..., *[slice(None, None, -1)] * rank)]
    C, M = w.shape[:2]  # (C, M / group, k…)
    turned = (
        turned.reshape(group, C // group, M, *w.shape[2:]).swapaxes(1, 2).reshape(group * M, C // group, *w.shape[2:])
    )
    inner = {"group": group, "dilations": dilations, "pads": around}
    return lower_conv(case, x=spread, w=turned, attributes=inner, **options)


LOWERINGS: dict[str, Callable[..., Products | None]] = {
    "MatMul": lower_matmul,
    "Einsum": lower_einsum,
    "Gemm": lower_gemm,
    "Conv": lower_conv,
    "ConvTranspose": lower_conv_transpose,
}
ALL = tuple(LOWERINGS)
