"""MatMul, Gemm, Conv, ConvTranspose and Einsum: lowered to products of float32 matrices, summed in many orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np

from ...operators.scale import Array
from . import fast
from .case import Case, Family, Fault, Outputs, Variant, faults
from .data import KINDS, lengths, matrices, tensor
from .lowering import ALL, F, Multiply, Products, finish, lower, product
from .narrow import NARROW
from .summing import ORDERS, blas
from .tampering import tampered


def right(case: Case) -> Outputs | None:
    """Lowered, multiplied by BLAS in float32."""
    p = lower(case)
    return None if p is None else finish(p, product(p))


def _ordered(multiply: Multiply) -> Callable[[Case], Outputs | None]:
    def compute(case: Case) -> Outputs | None:
        p = lower(case)
        work = None if p is None else p.a.shape[0] * p.a.shape[1] * p.a.shape[2] * p.b.shape[2]
        if p is None or work is None or work > MOST_WORK:
            return None
        return finish(p, product(p, multiply))

    return compute


MOST_WORK = 1 << 24
"""Products that the slow orders are asked for."""


# Faults in the products


Broken = Callable[[Products], Products | Array | None]


def _take(p: Products, kept: Array) -> Products | None:
    return replace(p, a=p.a[..., kept], b=p.b[:, kept]) if kept.size else replace(p, a=p.a * 0, b=p.b)


def _without(position: float) -> Broken:
    def broken(p: Products) -> Products | None:
        K = p.a.shape[-1]
        return _take(p, np.delete(np.arange(K), min(int(position * K), K - 1)))

    return broken


def _duplicated(p: Products) -> Products | None:
    return _take(p, np.append(np.arange(p.a.shape[-1]), p.a.shape[-1] - 1))


def _first_twice_last_never(p: Products) -> Products | None:
    return _take(p, np.maximum(np.arange(p.a.shape[-1]) - 1, 0))


def _no_remainder(width: int) -> Broken:
    def broken(p: Products) -> Products | None:
        K = p.a.shape[-1]
        return _take(p, np.arange(K - K % width)) if K % width else None

    return broken


def _no_block(p: Products) -> Products | None:
    K = p.a.shape[-1]
    return _take(p, np.arange(K - 64)) if K > 64 else None


def _in_one_element(p: Products) -> Array:
    y = product(p)
    y[-1, -1, -1] -= p.a[-1, -1, -1] * p.b[-1, -1, -1]
    return y


def _in_one_column(p: Products) -> Array:
    y = product(p)
    y[..., -1] -= p.a[..., -1] * p.b[:, -1:, -1]
    return y


def _one_sign(p: Products) -> Products:
    a = p.a.copy()
    a[..., -1] *= -1
    return replace(p, a=a)


def _one_weight(factor: float) -> Broken:
    def broken(p: Products) -> Products:
        b = p.b.copy()
        where = np.unravel_index(np.argsort(np.abs(b), axis=None)[b.size // 2], b.shape)
        b[where] *= F(factor)
        return replace(p, b=b)

    return broken


def _shifted_weights(p: Products) -> Products:
    return replace(p, b=np.roll(p.b, 1, axis=1))


def _shifted_columns(p: Products) -> Products:
    return replace(p, b=np.roll(p.b, 1, axis=2))


def _absolute(p: Products) -> Products:
    return replace(p, a=np.abs(p.a))


def _narrowed(name: str, sides: str = "ab") -> Broken:
    narrow = NARROW[name]

    def broken(p: Products) -> Products:
        return replace(p, a=narrow(p.a) if "a" in sides else p.a, b=narrow(p.b) if "b" in sides else p.b)

    return broken


def _accumulated(name: str, block: int = 1) -> Broken:
    """Partial sums kept in a narrow type, rounded after every `block` products."""
    narrow = NARROW[name]

    def broken(p: Products) -> Array | None:
        G, R, K = p.a.shape
        if G * R * p.b.shape[2] * (K // block) > MOST_WORK >> 2 or (block > 1 and block >= K):
            return None
        total = np.zeros((G, R, p.b.shape[2]), F)
        for start in range(0, K, block):
            total = narrow(total + p.a[..., start : start + block] @ p.b[:, start : start + block])
        return total

    return broken


def _lost_half(p: Products) -> Array | None:
    """Split-K: the second half of the sum is missing in the last tile of eight columns."""
    K, N = p.b.shape[1:]
    if K < 2:
        return None
    y = product(p)
    tail = slice(max(N - 8, 0), N)
    y[..., tail] = p.a[..., : K // 2] @ p.b[:, : K // 2, tail]
    return y


def _swapped_tiles(p: Products) -> Array | None:
    if p.b.shape[2] < 16:
        return None
    y = product(p)
    y[..., :8], y[..., 8:16] = y[..., 8:16].copy(), y[..., :8].copy()
    return y


def _bias_in_half(p: Products) -> Products | None:
    return None if p.bias is None else replace(p, bias=NARROW["BF16"](p.bias.astype(F)))


def _relu(p: Products) -> Array | None:
    """A fused activation that the graph does not have."""
    return None if p.bias is not None else np.maximum(product(p), 0)


PRODUCT_FAULTS: tuple[tuple[str, Broken], ...] = (
    ("the last product dropped", _without(1.0)),
    ("the first product dropped", _without(0.0)),
    ("a product in the middle dropped", _without(0.5)),
    ("a product dropped in one output element", _in_one_element),
    ("a product dropped in the last column", _in_one_column),
    ("the last product added twice", _duplicated),
    ("the first product twice, the last never", _first_twice_last_never),
    ("the remainder of K modulo 4 dropped", _no_remainder(4)),
    ("the remainder of K modulo 16 dropped", _no_remainder(16)),
    ("the last 64 products dropped", _no_block),
    ("one product with the other sign", _one_sign),
    ("one weight read as zero", _one_weight(0.0)),
    ("one weight off by a hundredth", _one_weight(1.01)),
    ("one weight with the other sign", _one_weight(-1.0)),
    ("weights shifted by one along K", _shifted_weights),
    ("outputs shifted by one column", _shifted_columns),
    ("absolute values of the input", _absolute),
    ("TF32 inputs", _narrowed("TF32")),
    ("BF16 inputs", _narrowed("BF16")),
    ("FP16 inputs", _narrowed("FP16")),
    ("FP8 inputs", _narrowed("FP8")),
    ("INT8 inputs", _narrowed("INT8")),
    ("TF32 weights", _narrowed("TF32", "b")),
    ("BF16 weights", _narrowed("BF16", "b")),
    ("INT8 weights", _narrowed("INT8", "b")),
    ("FP16 activations", _narrowed("FP16", "a")),
    ("FP16 accumulation", _accumulated("FP16")),
    ("BF16 accumulation", _accumulated("BF16")),
    ("TF32 accumulation", _accumulated("TF32")),
    ("FP16 partial sums of 64", _accumulated("FP16", 64)),
    ("BF16 partial sums of 64", _accumulated("BF16", 64)),
    ("half of a split sum lost in the last tile", _lost_half),
    ("two tiles of columns swapped", _swapped_tiles),
    ("bias in bfloat16", _bias_in_half),
    ("an activation that is not there", _relu),
)


def _broken(case: Case, broken: Broken) -> Outputs | None:
    p = lower(case)
    changed = None if p is None else broken(p)
    if p is None or changed is None:
        return None
    return finish(changed, product(changed)) if isinstance(changed, Products) else finish(p, changed)


def _by_lowering(case: Case, **options: Any) -> Outputs | None:
    p = lower(case, **options)
    return None if p is None else finish(p, product(p))


CONVOLUTIONS = ("Conv", "ConvTranspose")
BATCHED = ("MatMul", "Einsum", "Conv")

LOWERING_FAULTS: tuple[tuple[Any, ...], ...] = (
    ("dilations ignored", "Conv", {"dilate": False}),
    ("pads on the other side", "Conv", {"swap_pads": True}),
    ("input shifted by one column", "Conv", {"shift": 1}),
    ("edge padding in place of zeros", "Conv", {"edge": True}),
    ("kernel flipped", CONVOLUTIONS, {"flipped": True}),
    ("kernel transposed", CONVOLUTIONS, {"turned": True}),
    ("groups in the wrong order", CONVOLUTIONS, {"group_order": 1}),
    ("channels last in the patches only", "Conv", {"channel_last": True}),
    ("kernel not turned round", "ConvTranspose", {"unflipped": True}),
    ("output_padding on the other side", "ConvTranspose", {"output_padding_first": True}),
    ("the first of the batch for all", BATCHED, {"stale_batch": True}),
    ("bias left out", ("Gemm", *CONVOLUTIONS), {"bias_factor": 0.0}),
    ("bias added twice", ("Gemm", *CONVOLUTIONS), {"bias_factor": 2.0}),
    ("bias of the next channel", CONVOLUTIONS, {"bias_shift": 1}),
    ("bias along rows", "Gemm", {"bias_along_rows": True}),
    ("alpha ignored", "Gemm", {"forget": ("alpha",)}),
    ("beta ignored", "Gemm", {"forget": ("beta",)}),
    ("transA ignored", "Gemm", {"forget": ("transA",)}),
    ("transB ignored", "Gemm", {"forget": ("transB",)}),
    ("weights transposed", ("MatMul", "Einsum", "Gemm"), {"swapped": True}),
)


# Cases


def cases(quick: bool) -> Iterator[Case]:
    """Products of every length on every kind of data, and the operators that are made of them."""
    for kind in KINDS:
        for number, length in enumerate([*lengths(quick), *((1024,) if quick else ())]):
            yield from _of_length(kind, length, 0 if quick else number % 2)
            if not quick and length >= 1024:
                yield Case("MatMul", matrices(kind, 8, length, 128, 5), {}, kind, length)
        if not quick:
            yield from _large(kind)
        yield from _square(kind, 0)
        for seed in range(1 if quick else 2):
            yield from _convolutions(kind, seed, quick)


BURIED = 16
"""Rows where one product of 1, which TF32 holds exactly, outweighs all others: rounding these moves the result by less
than float32 sums of that length do, and 72 outputs are too few to see it in (it shows as the root of their number)."""


def _of_length(kind: str, length: int, seed: int) -> Iterator[Case]:
    a, b = matrices(kind, BURIED if kind == "dominated" and length > 1024 else 3, length, 24, seed)
    yield Case("MatMul", (a, b), {}, kind, length, weights=(1,))
    c = tensor(kind, (24,), seed, right=True)
    options = {"transB": 1, "alpha": 0.5, "beta": 2.0} if seed % 2 else {"alpha": 1.0, "beta": 0.5}
    right_b = np.ascontiguousarray(b.T) if seed % 2 else b
    yield Case("Gemm", (a, right_b, c), options, kind, length, weights=(1, 2))
    if length <= 1024:
        square = [tensor(kind, (2, length, length) if i else (2, 3, length), seed, i, right=bool(i)) for i in range(2)]
        if length <= 64:
            yield Case("Einsum", tuple(square), {"equation": "bij,bjk->bik"}, kind, length)
        half = matrices(kind, 4, length, 24, seed + 10)
        if kind != "wide":
            yield Case("MatMul", tuple(x.astype(np.float16) for x in half), {}, kind, length)
        yield Case("MatMul", tuple(x.astype(ml_dtypes.bfloat16) for x in half), {}, kind, length)


def _square(kind: str, seed: int) -> Iterator[Case]:
    """Shapes that stay as they are when an operand is transposed."""
    a, b = matrices(kind, 16, 16, 16, seed + 20)
    for transposed in ("transA", "transB"):
        yield Case("Gemm", (a, b), {transposed: 1}, kind, 16, weights=(1,))
    several = [np.stack([x, x[::-1]]) for x in (a, b)]
    yield Case("MatMul", tuple(several), {}, kind, 16)


def _large(kind: str) -> Iterator[Case]:
    """A million outputs, and one."""
    for rows, length in ((1000, 16), (100, 256), (1, 4608)):
        a, b = matrices(kind, rows, length, 1000 if rows > 1 else 1, 7)
        yield Case("MatMul", (a, b), {}, kind, length)


CONV_FORMS: tuple[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ("Conv", (1, 16, 12, 12), (8, 16, 3, 3), {"pads": [1, 1, 1, 1]}),
    ("Conv", (2, 8, 13, 11), (12, 4, 3, 3), {"pads": [0, 1, 2, 1], "strides": [2, 2], "group": 2}),
    ("Conv", (1, 64, 10, 10), (16, 64, 3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
    ("Conv", (1, 6, 40), (6, 1, 7), {"pads": [3, 3], "group": 6}),
    ("Conv", (1, 512, 7, 7), (40, 512, 7, 7), {}),
    ("Conv", (1, 256, 6, 6), (8, 256, 3, 3), {"pads": [1, 1, 1, 1]}),
    ("Conv", (1, 3, 24, 24), (16, 3, 7, 7), {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
    ("ConvTranspose", (1, 8, 6, 6), (8, 5, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    ("ConvTranspose", (1, 64, 5, 5), (64, 8, 2, 2), {"strides": [2, 2]}),
    ("ConvTranspose", (1, 8, 9), (8, 3, 4), {"group": 2, "dilations": [2], "pads": [1, 1]}),
)


def _convolutions(kind: str, seed: int, quick: bool) -> Iterator[Case]:
    for op_type, x_shape, w_shape, attributes in CONV_FORMS[:8:7] if quick else CONV_FORMS:
        taps = int(np.prod(w_shape[2:]))
        # Pairs that cancel lie along the channels.
        x = np.moveaxis(tensor(kind, (x_shape[0], *x_shape[2:], x_shape[1]), seed), -1, 1)
        group = attributes.get("group", 1)
        if op_type == "Conv":
            w, outputs = (
                np.moveaxis(tensor(kind, (w_shape[0], *w_shape[2:], w_shape[1]), seed, 1, right=True), -1, 1),
                w_shape[0],
            )
        else:
            w, outputs = tensor(kind, w_shape, seed, 1, right=True), w_shape[1] * group
        b = tensor(kind, (outputs,), seed, 2, right=True)
        K = w_shape[1] * taps if op_type == "Conv" else w_shape[0] // group * taps
        inputs = tuple(np.ascontiguousarray(t) for t in (x, w, b)[: 2 + seed % 2 if seed else 3])
        yield Case(op_type, inputs, attributes, kind, K, weights=(1, 2)[: len(inputs) - 1])


FAMILY = Family(
    "contractions",
    cases,
    right,
    (
        *(Variant(f"{name} sums", _ordered(order)) for name, order in ORDERS.items() if order is not blas),
        *(Variant(name, compute, apart) for name, compute, apart in fast.VARIANTS),
    ),
    (
        *(Fault(name, ALL, lambda case, broken=broken: _broken(case, broken)) for name, broken in PRODUCT_FAULTS),
        *faults(_by_lowering, *LOWERING_FAULTS),
        *tampered(right),
    ),
)
