"""MatMul, Gemm, Einsum: sums of products."""

from __future__ import annotations

import math

import numpy as np

from ..errors import InvalidInputError
from ._contraction import MAGNITUDE, VALUE, DType, Pass, magnitude, product, products_in_passes
from ._elementwise import undetermined
from .registry import judged, kernel, products, scale
from .scale import Array, Rule, Scale, exact
from .storage import decode


@kernel("MatMul", since=1, linear_in=(0, 1), streams=True)
def matmul(a: Array, b: Array, /, *, precision: DType = np.float64) -> Array:
    """Matrix product by the rules of numpy.matmul.

    Args:
        a: (…, M, K) or (K,).
        b: (…, K, N) or (K,).
        precision: float64, or float32 for a deviation.

    Returns:
        (…, M, N); an axis that a 1-D operand brought is left out.

    Raises:
        InvalidInputError: a scalar, or inner sizes that differ.

    Spec: MatMul, since 1
    """
    _check_inner(a, b)
    return product(a, b, precision=precision)


def _check_inner(a: Array, b: Array) -> None:
    if a.ndim == 0 or b.ndim == 0:
        raise InvalidInputError(f"MatMul: operands must have rank >= 1, got shapes {a.shape} and {b.shape}")
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise InvalidInputError(f"MatMul: inner sizes differ, shapes {a.shape} and {b.shape}")


@scale("MatMul", since=1)
def matmul_scale(y: Array, a: Array, b: Array, /) -> Scale:
    """DOT over K products: magnitude |a|·|b|."""
    if y.dtype.kind not in "fc":
        return exact(y)  # type: ignore[return-value]
    return Scale(_product_magnitude(a, b), a.shape[-1], Rule.DOT)


def _product_magnitude(a: Array, b: Array, known: Array | None = None) -> Array:
    def compute(single: Pass) -> Array:
        return products_in_passes(a, b, (single,))[0]

    return magnitude(compute, (a, b), known=known)


@judged("MatMul", since=1)
def matmul_judged(a: Array, b: Array, /) -> tuple[Array, Scale] | None:
    """Value and magnitude in one pass over the operands; None for integers."""
    _check_inner(a, b)
    if a.dtype.kind != "f" or b.dtype.kind != "f":
        return None
    y, size = products_in_passes(a, b, (VALUE, MAGNITUDE))
    return y, Scale(_product_magnitude(a, b, size), a.shape[-1], Rule.DOT)


@products("MatMul", since=1)
def matmul_products(indices: Array, a: Array, b: Array, /) -> Array:
    """The K products of each chosen output element: (n, K)."""
    a2, b2 = np.atleast_2d(a), b[:, None] if b.ndim == 1 else b
    batch = np.broadcast_shapes(a2.shape[:-2], b2.shape[:-2])
    a2 = np.broadcast_to(a2, (*batch, *a2.shape[-2:]))
    b2 = np.broadcast_to(b2, (*batch, *b2.shape[-2:]))
    *where, row, column = np.unravel_index(indices, (*batch, a2.shape[-2], b2.shape[-1]))
    return decode(a2[(*where, row)]) * decode(b2.swapaxes(-1, -2)[(*where, column)])


def _gemm_parts(a: Array, b: Array, trans_a: int, trans_b: int) -> tuple[Array, Array]:
    return (a.T if trans_a else a), (b.T if trans_b else b)


@kernel("Gemm", since=1, linear_in=(0, 1), streams=True)
def gemm(
    a: Array,
    b: Array,
    c: Array | None = None,
    /,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803 - the spec's name
    transB: int = 0,  # noqa: N803 - the spec's name
    broadcast: int = 0,
    precision: DType = np.float64,
) -> Array:
    """alpha · A' · B' + beta · C.

    Args:
        a: (M, K), or (K, M) with transA.
        b: (K, N), or (N, K) with transB.
        c: broadcastable to (M, N), or None.
        alpha: factor of the product.
        beta: factor of `c`.
        transA: transpose `a`.
        transB: transpose `b`.
        broadcast: before opset 7, whether `c` may be broadcast; the result is the same.
        precision: float64, or float32 for a deviation.

    Returns:
        (M, N).

    Raises:
        InvalidInputError: operands that are not matrices, or inner sizes that differ.

    Spec: Gemm, since 1
    """
    if a.ndim != 2 or b.ndim != 2:
        raise InvalidInputError(f"Gemm: A and B must be matrices, got shapes {a.shape} and {b.shape}")
    left, right = _gemm_parts(a, b, transA, transB)
    _check_inner(left, right)
    y = product(left, right, precision=precision)
    y = y if alpha == 1.0 else _scaled(y, alpha)
    return y if c is None else y + _scaled(decode(c), beta)


def _scaled(x: Array, factor: float) -> Array:
    if x.dtype.kind == "f":
        return x * factor
    return x * np.array(int(factor)).astype(x.dtype) if factor == int(factor) else (x * factor).astype(x.dtype)


@scale("Gemm", since=1)
def gemm_scale(
    y: Array,
    a: Array,
    b: Array,
    c: Array | None = None,
    /,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> Scale:
    """DOT: magnitude |alpha|·|A'|·|B'| + |beta·C|; one more rounding each for C, alpha and beta. Exact on integers,
    open where a factor is none."""
    if y.dtype.kind != "f":
        fractional = alpha != int(alpha) or (c is not None and beta != int(beta))
        return undetermined(np.full(y.shape, fractional))
    left, right = _gemm_parts(a, b, transA, transB)
    return _gemm_bound(_product_magnitude(left, right), left, c, alpha, beta)


def _gemm_bound(size: Array, left: Array, c: Array | None, alpha: float, beta: float) -> Scale:
    size = size * abs(alpha) + (0.0 if c is None else np.abs(beta * decode(c)))
    return Scale(size, left.shape[-1] + (c is not None) + (alpha != 1.0) + (beta != 1.0), Rule.DOT)


@judged("Gemm", since=1)
def gemm_judged(
    a: Array,
    b: Array,
    c: Array | None = None,
    /,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> tuple[Array, Scale] | None:
    """Value and magnitude in one pass over the operands; None for integers."""
    left, right = _gemm_parts(a, b, transA, transB)
    if a.dtype.kind != "f" or a.ndim != b.ndim or left.shape[-1] != right.shape[0]:
        return None
    y, size = products_in_passes(left, right, (VALUE, MAGNITUDE))
    y = y if alpha == 1.0 else _scaled(y, alpha)
    y = y if c is None else y + _scaled(decode(c), beta)
    return y, _gemm_bound(_product_magnitude(left, right, size), left, c, alpha, beta)


@products("Gemm", since=1)
def gemm_products(
    indices: Array,
    a: Array,
    b: Array,
    c: Array | None = None,
    /,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> Array:
    """The K products and the bias of each chosen output element: (n, K) or (n, K + 1)."""
    left, right = _gemm_parts(a, b, transA, transB)
    shape = (left.shape[0], right.shape[1])
    row, column = np.unravel_index(indices, shape)
    terms = alpha * decode(left[row]) * decode(right[:, column]).T
    if c is None:
        return terms
    bias = np.broadcast_to(beta * decode(c), shape)[row, column]
    return np.concatenate([terms, bias[:, None]], axis=1)


@kernel("Einsum", since=12)
def einsum(*xs: Array, equation: str) -> Array:
    """Einstein summation.

    Args:
        xs: operands, any shapes that `equation` admits.
        equation: as for numpy.einsum, with or without "->"; spaces are ignored.

    Returns:
        The array that the right side names.

    Spec: Einsum, since 12
    """
    return np.einsum(equation.replace(" ", ""), *xs, optimize=True)


@scale("Einsum", since=12)
def einsum_scale(y: Array, *xs: Array, equation: str) -> Scale:
    """DOT: magnitude on absolute values; terms = sizes of the summed indices, plus one per factor beyond two."""
    if y.dtype.kind not in "fc":
        return exact(y)  # type: ignore[return-value]
    size = np.einsum(equation.replace(" ", ""), *(np.abs(x) for x in xs), optimize=True)
    total = math.prod(_index_sizes(equation, xs).values())
    return Scale(size, max(1, total // max(1, y.size)) + max(0, len(xs) - 2), Rule.DOT)


def _index_sizes(equation: str, xs: tuple[Array, ...]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for term, x in zip(equation.replace(" ", "").split("->")[0].split(","), xs, strict=True):
        head, dots, tail = term.partition("...")
        labelled = [*zip(head, x.shape, strict=False), *zip(reversed(tail), reversed(x.shape), strict=False)]
        sizes.update({letter: max(sizes.get(letter, 1), size) for letter, size in labelled})
        covered = x.shape[len(head) : x.ndim - len(tail)] if dots else ()
        for axis, size in enumerate(reversed(covered)):
            sizes[f"...{axis}"] = max(sizes.get(f"...{axis}", 1), size)
    return sizes
