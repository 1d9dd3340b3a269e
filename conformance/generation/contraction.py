"""MatMul, Gemm, Einsum and their integer forms, Det."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...operators.scale import Array
from .drawing import Draw, NodeCall
from .elementwise import is_integer
from .registry import strategy
from .values import SUMMED

EQUATIONS = (
    "ij,jk->ik", "ij->ji", "ii->i", "ii", "i,i->", "i,j->ij", "bij,bjk->bik", "...ij,...jk->...ik", "ij->", "ij->j",
    "bhqd,bhkd->bhqk", "ij,ij->i", "ij,jk,kl->il", "i->i", "...i->...", "a,b,c->abc", "ijj->ij", "bij,bkj", "iji->j",
    "ij,kj->ki", "bi,bi->b", "i...->...i", "ab,cd->acbd", "...,...->...", "ij, jk -> ik",
)  # fmt: skip


def _integers(d: Draw, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return d.tensor(shape, dtype, ("small", "normal") if is_integer(dtype) else SUMMED)


def _product_shapes(d: Draw) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the two operands of numpy.matmul."""
    m, k, n = d.size(empty=True), d.size(empty=True), d.size(empty=True)
    batch = d.shape(0, 3, elements=16)
    first = (k,) if d.rarely(8) else (*(d.broadcastable(batch)), m, k)
    second = (k,) if d.rarely(8) else (*(d.broadcastable(batch)), k, n)
    return first, second


@strategy("MatMul")
def matmul(d: Draw) -> NodeCall:
    dtype = d.dtype()
    return d.call([_integers(d, shape, dtype) for shape in _product_shapes(d)], parameters=(0, 1))


@strategy("Gemm")
def gemm(d: Draw) -> NodeCall:
    dtype = d.dtype()
    m, k, n = d.size(empty=True), d.size(empty=True), d.size(empty=True)
    flags = d.attributes(transA=lambda: d.integer(0, 1), transB=lambda: d.integer(0, 1))
    factors = (lambda: d.real(-2, 2)) if not is_integer(dtype) else (lambda: float(d.integer(1, 3)))
    flags |= d.attributes(alpha=factors, beta=factors)
    a = _integers(d, (k, m) if flags.get("transA") else (m, k), dtype)
    b = _integers(d, (n, k) if flags.get("transB") else (k, n), dtype)
    c = _integers(d, d.choice(((m, n), (n,), (1, n), (m, 1), (1,), (), (1, 1))), dtype) if d.boolean() else None
    return d.call([a, b, c], flags, parameters=(1, 2))


@strategy("Einsum")
def einsum(d: Draw) -> NodeCall:
    dtype = d.dtype()
    equation = d.choice(EQUATIONS)
    sizes = {letter: d.choice((2, 1, 3, 4, 5, 7)) for letter in sorted(set(equation)) if letter.isalpha()}
    ellipsis = tuple(d.choice((2, 1, 3)) for _ in range(d.integer(0, 2)))
    inputs = []
    for term in equation.replace(" ", "").split("->")[0].split(","):
        start, dots, end = term.partition("...")
        between = ellipsis if dots else ()
        shape = (*(sizes[x] for x in start), *between, *(sizes[x] for x in end))
        inputs.append(_integers(d, shape, dtype))
    return d.call(inputs, {"equation": equation})


def _zero_point(d: Draw, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    if not is_integer(dtype):
        return np.zeros(shape, dtype)  # a float8 zero point is zero
    return d.tensor(shape, dtype, ("small", "wide", "extreme"))


@strategy("MatMulInteger")
def matmul_integer(d: Draw) -> NodeCall:
    first, second = _product_shapes(d)
    a_type, b_type = d.dtype("T1"), d.dtype("T2")
    a, b = d.tensor(first, a_type, ("wide", "extreme", "small")), d.tensor(second, b_type, ("wide", "extreme", "small"))
    a_zero = _zero_point(d, a_type, ()) if d.boolean() else None
    b_zero = None
    if d.boolean():
        per_column = len(second) == 2 and d.boolean()
        b_zero = _zero_point(d, b_type, (second[-1],) if per_column else ())
    return d.call([a, b, a_zero, b_zero], parameters=(1, 2, 3))


@strategy("Det")
def determinant(d: Draw) -> NodeCall:
    n = d.integer(1, 6)
    shape = (*d.shape(0, 3, elements=64), n, n)
    return d.call([d.tensor(shape, d.dtype(), ("normal", "small", "unit"))])


@strategy("QLinearMatMul")
def qlinear_matmul(d: Draw) -> NodeCall:
    first, second = _product_shapes(d)
    types = [d.dtype(name) for name in ("T1", "T2", "T3")]
    scale_type = d.dtype("TS") if d.opset >= 21 else np.dtype(np.float32)
    scales = [d.tensor((), scale_type, ("positive",)) for _ in range(3)]
    zeros = [_zero_point(d, dtype, ()) for dtype in types]
    a, b = (d.tensor(shape, dtype, ("wide", "small")) for shape, dtype in zip((first, second), types, strict=False))
    inputs = [a, scales[0] / 8, zeros[0], b, scales[1] / 8, zeros[1], scales[2], zeros[2]]
    stored = [np.asarray(x, scale_type) if i in (1, 4, 6) else x for i, x in enumerate(inputs)]
    return d.call(stored, outputs=(types[2],), parameters=(1, 2, 3, 4, 5, 6, 7))
