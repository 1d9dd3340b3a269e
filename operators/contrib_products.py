"""Products with what ONNX Runtime fuses into them: transpositions, a factor, a sum, an activation (com.microsoft).

Spec: docs/ContribOperators.md of ONNX Runtime and the schemas of its `com.microsoft` domain, version 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ._contraction import DType
from ._fused_activation import Activation, Stored, activated, by_list, by_name
from .convolution import conv, conv_judged, conv_products
from .linear import gemm, gemm_judged, gemm_products, matmul, matmul_judged, matmul_products
from .registry import judged, kernel, products, scale
from .scale import Array, Scale
from .storage import decode

MICROSOFT = "com.microsoft"


def _transposed(x: Array, matrix: int, batch: int) -> Array:
    """`x` with its first dimension moved before its last (`batch`), then its last two swapped (`matrix`).

    A vector has nothing to transpose: it stays what numpy.matmul takes it for, as in ONNX Runtime.
    """
    if x.ndim < 2:
        return x
    x = np.moveaxis(x, 0, -2) if batch else x
    return x.swapaxes(-1, -2) if matrix else x


@kernel("FusedMatMul", since=1, domain=MICROSOFT, linear_in=(0, 1), streams=True)
def fused_matmul(
    a: Array,
    b: Array,
    /,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # noqa: N803 - the spec's name
    transB: int = 0,  # noqa: N803 - the spec's name
    transBatchA: int = 0,  # noqa: N803 - the spec's name
    transBatchB: int = 0,  # noqa: N803 - the spec's name
    precision: DType = np.float64,
) -> Array:
    """alpha · A' · B', where A' and B' may be transposed.

    Args:
        a: (…, M, K) or (K,); (…, K, M) with transA; (M, …, K) with transBatchA; (K, …, M) with both.
        b: (…, K, N) or (K,), transposed likewise.
        alpha: factor of the product.
        transA: swap the last two dimensions of `a`.
        transB: swap the last two dimensions of `b`.
        transBatchA: move the first dimension of `a` before its last one, first of all.
        transBatchB: the same for `b`.
        precision: float64, or float32 for a deviation.

    Returns:
        (…, M, N).

    Raises:
        InvalidInputError: a scalar, or inner sizes that differ.

    Spec: com.microsoft FusedMatMul, since 1
    """
    return matmul(_transposed(a, transA, transBatchA), _transposed(b, transB, transBatchB), precision=precision) * alpha


@judged("FusedMatMul", since=1, domain=MICROSOFT)
def fused_matmul_judged(
    a: Array,
    b: Array,
    /,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
    transBatchA: int = 0,  # noqa: N803
    transBatchB: int = 0,  # noqa: N803
) -> tuple[Array, Scale] | None:
    """Value and magnitude in one pass over the operands."""
    both = matmul_judged(_transposed(a, transA, transBatchA), _transposed(b, transB, transBatchB))
    if both is None:
        return None
    y, bound = both
    return y * alpha, replace(bound, magnitude=bound.magnitude * abs(alpha), terms=bound.terms + (alpha != 1.0))


def fused_matmul_scale(_y: Array, a: Array, b: Array, /, **attributes: Any) -> Scale:
    """DOT over K products: |alpha|·|A'|·|B'|, one more rounding for alpha."""
    both = fused_matmul_judged(a, b, **attributes)
    if both is None:
        raise InvalidInputError(f"FusedMatMul: floating-point operands expected, got {a.dtype} and {b.dtype}")
    return both[1]


scale("FusedMatMul", since=1, domain=MICROSOFT)(fused_matmul_scale)


@products("FusedMatMul", since=1, domain=MICROSOFT)
def fused_matmul_products(
    indices: Array,
    a: Array,
    b: Array,
    /,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
    transBatchA: int = 0,  # noqa: N803
    transBatchB: int = 0,  # noqa: N803
) -> Array:
    """The K products of each chosen output element: (n, K)."""
    return alpha * matmul_products(indices, _transposed(a, transA, transBatchA), _transposed(b, transB, transBatchB))


@kernel("TransposeMatMul", since=1, domain=MICROSOFT, scale=fused_matmul_scale, linear_in=(0, 1), streams=True)
def transpose_matmul(
    a: Array,
    b: Array,
    /,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # noqa: N803 - the spec's name
    transB: int = 0,  # noqa: N803 - the spec's name
    precision: DType = np.float64,
) -> Array:
    """FusedMatMul as older versions called it, without transBatchA and transBatchB.

    Spec: com.microsoft TransposeMatMul, since 1
    """
    return fused_matmul(a, b, alpha=alpha, transA=transA, transB=transB, precision=precision)


products("TransposeMatMul", since=1, domain=MICROSOFT)(fused_matmul_products)


@kernel("FusedGemm", since=1, domain=MICROSOFT, streams=True)
def fused_gemm(
    a: Array,
    b: Array,
    c: Array | None = None,
    /,
    *,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803 - the spec's name
    transB: int = 0,  # noqa: N803 - the spec's name
    stored: Stored = (),
) -> Array:
    """An activation of Gemm.

    Args:
        a: (M, K), or (K, M) with transA.
        b: (K, N), or (N, K) with transB.
        c: broadcastable to (M, N), or None.
        activation: Relu, LeakyRelu, Tanh, Sigmoid, HardSigmoid, Elu, Selu, Softplus, Softsign or ThresholdedRelu;
            "" for none. A parameter that it has must be given: the schema names no defaults.
        activation_alpha: of the activation, as are activation_beta and activation_gamma.
        alpha: factor of the product; so is `beta` of `c`.
        transA: transpose `a`; so does transB `b`.
        stored: dtypes of the inputs, for the scale.

    Returns:
        (M, N).

    Raises:
        InvalidAttributeError: an unknown activation, or one of its parameters absent.

    Spec: com.microsoft FusedGemm, since 1
    """
    del stored
    fused = _gemm_activation(activation, activation_alpha, activation_beta, activation_gamma)
    return fused.function(gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB))


def _gemm_activation(name: str, alpha: float | None, beta: float | None, gamma: float | None) -> Activation:
    return by_name("FusedGemm", name, alpha=alpha, beta=beta, gamma=gamma)


@judged("FusedGemm", since=1, domain=MICROSOFT)
def fused_gemm_judged(
    a: Array,
    b: Array,
    c: Array | None = None,
    /,
    *,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
    stored: Stored = (),
) -> tuple[Array, Scale] | None:
    """Value and scale in one pass over the operands."""
    both = gemm_judged(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)
    if both is None:
        return None
    fused = _gemm_activation(activation, activation_alpha, activation_beta, activation_gamma)
    y, bound = both
    return activated(y, bound, fused, stored[0] if stored else None)


@scale("FusedGemm", since=1, domain=MICROSOFT)
def fused_gemm_scale(_y: Array, a: Array, b: Array, c: Array | None = None, /, **attributes: Any) -> Scale:
    """COMPOSED: the scale of Gemm through the activation: see `_fused_activation.activated`."""
    both = fused_gemm_judged(a, b, c, **attributes)
    if both is None:
        raise InvalidInputError(f"FusedGemm: floating-point matrices expected, got {a.dtype} and {b.dtype}")
    return both[1]


@products("FusedGemm", since=1, domain=MICROSOFT)
def fused_gemm_products(indices: Array, a: Array, b: Array, c: Array | None = None, /, **attributes: Any) -> Array:
    """The summands of each chosen element before the activation, which steepens no error where they are asked for."""
    names = ("alpha", "beta", "transA", "transB")
    return gemm_products(indices, a, b, c, **{name: attributes[name] for name in names if name in attributes})


def _conv_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    names = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
    return {name: attributes[name] for name in names if name in attributes}


@kernel("FusedConv", since=1, domain=MICROSOFT, streams=True)
def fused_conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    z: Array | None = None,
    /,
    *,
    activation: str = "",
    activation_params: Sequence[float] | None = None,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    stored: Stored = (),
) -> Array:
    """activation(Conv(x, w, b) + z).

    Args:
        x: (N, C, D1, …, Dn).
        w: (M, C / group, k1, …, kn).
        b: (M,) or None.
        z: like the output, added before the activation, or None.
        activation: Relu, LeakyRelu, Tanh, Sigmoid, Clip, HardSigmoid or HardSwish; "" for none.
        activation_params: alpha of LeakyRelu; minimum and maximum of Clip; alpha and beta of HardSigmoid.
        auto_pad: as for Conv; so are dilations, group, kernel_shape, pads and strides.
        stored: dtypes of the inputs, for the scale.

    Returns:
        (N, M, o1, …, on).

    Raises:
        InvalidAttributeError: an unknown activation, or one of its parameters absent.

    Spec: com.microsoft FusedConv, since 1. The schema does not say where `z` is added; the fusion that makes it
    (Conv, Add, Relu) adds before the activation.
    """
    del stored
    fused = by_list("FusedConv", activation, activation_params)
    y = conv(
        x,
        w,
        b,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return fused.function(y if z is None else y + decode(z))


@judged("FusedConv", since=1, domain=MICROSOFT)
def fused_conv_judged(
    x: Array,
    w: Array,
    b: Array | None = None,
    z: Array | None = None,
    /,
    **attributes: Any,
) -> tuple[Array, Scale]:
    """Value and scale with the windows gathered once."""
    fused = by_list("FusedConv", attributes.get("activation", ""), attributes.get("activation_params"))
    v, bound = conv_judged(x, w, b, **_conv_attributes(attributes))
    if z is not None:
        v = v + decode(z)
        bound = replace(bound, magnitude=bound.magnitude + np.abs(decode(z)), terms=bound.terms + 1)
    stored = attributes.get("stored", ())
    return activated(v, bound, fused, stored[0] if stored else None)


@scale("FusedConv", since=1, domain=MICROSOFT)
def fused_conv_scale(
    _y: Array, x: Array, w: Array, b: Array | None = None, z: Array | None = None, /, **attributes: Any
) -> Scale:
    """COMPOSED: the scale of Conv with a summand for `z` too, through the activation: `_fused_activation.activated`."""
    return fused_conv_judged(x, w, b, z, **attributes)[1]


@products("FusedConv", since=1, domain=MICROSOFT)
def fused_conv_products(
    indices: Array, x: Array, w: Array, b: Array | None = None, z: Array | None = None, /, **attributes: Any
) -> Array:
    """The summands of each chosen element before the activation, which steepens no error where they are asked for."""
    terms = conv_products(indices, x, w, b, **_conv_attributes(attributes))
    return terms if z is None else np.concatenate([terms, decode(z).reshape(-1)[indices][:, None]], axis=1)


def channels_first(x: Array) -> Array:
    """(N, D1, …, Dn, C) as (N, C, D1, …, Dn)."""
    return np.moveaxis(x, -1, 1)


def channels_last(x: Array) -> Array:
    """(N, C, D1, …, Dn) as (N, D1, …, Dn, C)."""
    return np.moveaxis(x, 1, -1)


@kernel("NhwcFusedConv", since=1, domain=MICROSOFT)
def nhwc_fused_conv(
    x: Array, w: Array, b: Array | None = None, z: Array | None = None, /, *, stored: Stored = (), **attributes: Any
) -> Array:
    """FusedConv with channels last in `x`, `z` and the output; `w` is (M, C / group, k1, …, kn) all the same.

    Args:
        x: (N, D1, …, Dn, C).
        w: as for FusedConv; so are `b` and the attributes.
        z: like the output, or None.
        stored: dtypes of the inputs, for the scale.

    Returns:
        (N, o1, …, on, M).

    Spec: com.microsoft NhwcFusedConv, since 1
    """
    del stored
    first = None if z is None else channels_first(z)
    return channels_last(fused_conv(channels_first(x), w, b, first, **attributes))


@scale("NhwcFusedConv", since=1, domain=MICROSOFT)
def nhwc_fused_conv_scale(
    _y: Array, x: Array, w: Array, b: Array | None = None, z: Array | None = None, /, **attributes: Any
) -> Scale:
    """COMPOSED, as FusedConv."""
    first = None if z is None else channels_first(z)
    bound = fused_conv_judged(channels_first(x), w, b, first, **attributes)[1]
    spread = None if bound.spread is None else channels_last(np.broadcast_to(bound.spread, bound.magnitude.shape))
    return replace(bound, magnitude=channels_last(bound.magnitude), spread=spread)


@products("NhwcFusedConv", since=1, domain=MICROSOFT)
def nhwc_fused_conv_products(
    indices: Array, x: Array, w: Array, b: Array | None = None, z: Array | None = None, /, **attributes: Any
) -> Array:
    """As FusedConv, for indices into a tensor with channels last."""
    first = None if z is None else channels_first(z)
    shape = fused_conv(channels_first(x), w, b, first, **attributes).shape
    n, *where, m = np.unravel_index(indices, (shape[0], *shape[2:], shape[1]))
    moved = np.ravel_multi_index((n, m, *where), shape)
    return fused_conv_products(moved, channels_first(x), w, b, first, **attributes)
