"""Activation functions of neural networks.

Each scale adds the roundings of the function's definition as the specification writes it, at the size at which they
happen: 1 + erf(t) rounds at 1 even where it cancels, so the tail of a GELU is judged at |x|, not at |y|. A constant
attribute counts one rounding more, because function bodies cast it to the tensor's type. Where the definition says
∞ · 0, `terms` are infinite: nothing is judged there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import InvalidAttributeError
from ._elementwise import ONCE, bounded, register_unary, undetermined, with_consumed_inputs
from ._spilling import overflows
from .registry import Kernel, kernel, scale
from .scale import Array, Rule, Scale, ScaleFunction, exact
from .storage import encode, is_float
from .transcendental import LIBRARY, error_function


def _float32(value: float) -> float:
    """A default of the spec as a float32 attribute stores it."""
    return float(np.float32(value))


def _register(op_type: str, function: Kernel, bound: ScaleFunction) -> None:
    """Register a kernel since opset 1, where it had `consumed_inputs`, and 6."""
    kernel(op_type, since=1, scale=bound)(with_consumed_inputs(function))
    kernel(op_type, since=6, scale=bound)(function)


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, x.dtype.type(0))


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^−x)."""
    return 1 / (1 + np.exp(-x))


def sigmoid_scale(y: Array, _x: Array, /) -> Scale:
    """8 at max(y, ½): as ½ + ½·tanh(x/2) with a library's tanh (4 + 1 at ½ each), or as 1 / (1 + e^−x): 4."""
    return Scale(np.maximum(y, 0.5), LIBRARY, Rule.ULP)


def softplus(x: Array) -> Array:
    """ln(e^x + 1)."""
    return np.logaddexp(0.0, x)


def softplus_scale(y: Array, x: Array, /, *, stored: Sequence[np.dtype[np.generic] | None] = (None,)) -> Scale:
    """10 at 1 + y: ln(1 + e^x) rounds at 1 (1), the exponential adds 2x + 3 relative ones, the logarithm 8 at y. It
    may be infinite where e^x, which the function body forms in the type itself, is."""
    found = Scale(1 + np.abs(y), LIBRARY + 2, Rule.ULP)
    return found if stored[0] is None else replace(found, overflows=overflows(np.exp(x), stored[0]))


def softsign(x: Array) -> Array:
    """x / (1 + |x|)."""
    return np.where(np.isinf(x), np.nan, x / (1 + np.abs(x)))


def softsign_scale(y: Array, x: Array, /) -> Scale:
    """3 at |y|: the sum, its reciprocal and the product round once each. Open at ±∞, where it is ∞ / ∞."""
    return Scale(np.abs(y), np.where(np.isinf(x), np.inf, 3 * ONCE), Rule.ULP)


register_unary("Relu", relu, exact)
register_unary("Sigmoid", sigmoid, sigmoid_scale)
kernel("Softplus", since=1, scale=softplus_scale)(lambda x, /: np.asarray(softplus(x)))
kernel("Softsign", since=1, scale=softsign_scale)(lambda x, /: np.asarray(softsign(x)))


def leaky_relu(x: Array, /, *, alpha: float = _float32(0.01)) -> Array:
    """x where x >= 0, `alpha`·x elsewhere.

    Spec: LeakyRelu, since 1
    """
    return np.where(x < 0, alpha * x, x)


def leaky_relu_scale(y: Array, x: Array, /, *, alpha: float = _float32(0.01)) -> Scale:
    """0 where x >= 0; elsewhere 2 at |y|: the constant and the product."""
    return bounded(y, np.abs(y), np.where(x < 0, 2 * ONCE, 0.0))


def prelu(x: Array, slope: Array, /) -> Array:
    """x where x >= 0, `slope`·x elsewhere; `slope` is broadcast to `x`.

    Spec: PRelu, since 7
    """
    return np.where(x < 0, slope * x, x).astype(x.dtype)


def prelu_scale(y: Array, x: Array, _slope: Array, /) -> Scale:
    """0 where x >= 0, elsewhere once rounded; exact on integers."""
    return bounded(y, np.abs(y), np.where(x < 0, ONCE, 0.0))


def prelu_by_channel(x: Array, slope: Array, /) -> Array:
    """As from opset 7, but a vector of slopes belongs to the channels, dimension 1 of `x`.

    Spec: PRelu, since 1
    """
    if slope.ndim == 1 and slope.size > 1 and x.ndim > 1:
        slope = slope.reshape((-1,) + (1,) * (x.ndim - 2))
    return prelu(x, slope)


_register("LeakyRelu", leaky_relu, leaky_relu_scale)
_register("PRelu", prelu_by_channel, prelu_scale)
kernel("PRelu", since=7, scale=prelu_scale)(prelu)


def elu(x: Array, /, *, alpha: float = 1.0) -> Array:
    """x where x >= 0, `alpha`·(e^x − 1) elsewhere.

    Spec: Elu, since 1
    """
    return np.where(x < 0, alpha * np.expm1(x), x)


def elu_scale(y: Array, x: Array, /, *, alpha: float = 1.0) -> Scale:
    """0 where x >= 0; elsewhere 6 at |alpha|: e^x (3), the difference, the constant, the product."""
    return Scale(np.where(x < 0, abs(alpha), np.abs(y)), np.where(x < 0, 6.0, 0.0), Rule.ULP)


def selu(x: Array, /, *, alpha: float = _float32(1.6732631921768188), gamma: float = _float32(1.0507010221)) -> Array:
    """`gamma`·x where x > 0, `gamma`·(`alpha`·e^x − `alpha`) elsewhere.

    Spec: Selu, since 6
    """
    return np.asarray(gamma * np.where(x > 0, x, alpha * np.expm1(x)))


def selu_first(x: Array, /, *, alpha: float = _float32(1.6732), gamma: float = _float32(1.0507)) -> Array:
    """As from opset 6, with the defaults of opset 1.

    Spec: Selu, since 1
    """
    return selu(x, alpha=alpha, gamma=gamma)


def selu_scale(
    y: Array, x: Array, /, *, alpha: float = _float32(1.6732631921768188), gamma: float = _float32(1.0507010221)
) -> Scale:
    """2 at |y| where x > 0 (constant, product); elsewhere 9 at |alpha·gamma|: as Elu (6), a constant and two products
    more."""
    return Scale(np.where(x > 0, np.abs(y), abs(alpha * gamma)), np.where(x > 0, 2 * ONCE, 9.0), Rule.ULP)


def celu(x: Array, /, *, alpha: float = 1.0) -> Array:
    """max(0, x) + min(0, `alpha`·(e^(x / `alpha`) − 1)).

    Raises:
        InvalidAttributeError: `alpha` is 0.

    Spec: Celu, since 12
    """
    if alpha == 0:
        raise InvalidAttributeError("Celu: alpha=0, but x is divided by it")
    return np.asarray(np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(x / alpha)))


def celu_scale(y: Array, x: Array, /, *, alpha: float = 1.0) -> Scale:
    """As Elu, with the quotient t = x / alpha rounded twice (constant, division): |t|·e^t < ½ each where t < 0. With a
    negative alpha t > 0 where x < 0: there e^t adds 2t + 3, and the quotient 2t, at |alpha|·e^t."""
    if alpha > 0:
        return Scale(np.where(x < 0, abs(alpha), np.abs(y)), np.where(x < 0, 7.0, 0.0), Rule.ULP)
    t = np.maximum(x / alpha, 0.0)
    size = np.where(x < 0, np.abs(y) + abs(alpha), np.abs(y))
    return Scale(size, np.where(x < 0, 6 + 4 * np.where(np.isfinite(t), t, 0.0), 0.0), Rule.ULP)


_register("Elu", elu, elu_scale)
kernel("Selu", since=1, scale=selu_scale)(with_consumed_inputs(selu_first))
kernel("Selu", since=6, scale=selu_scale)(selu)
kernel("Celu", since=12, scale=celu_scale)(celu)


def hard_sigmoid(x: Array, /, *, alpha: float = _float32(0.2), beta: float = 0.5) -> Array:
    """max(0, min(1, `alpha`·x + `beta`)).

    Spec: HardSigmoid, since 1
    """
    return np.asarray(np.maximum(0.0, np.minimum(1.0, alpha * x + beta)))


def hard_sigmoid_scale(_y: Array, x: Array, /, *, alpha: float = _float32(0.2), beta: float = 0.5) -> Scale:
    """3 at |alpha·x| + |beta|: constants, product, sum; |alpha·x| no larger than the interval [0, 1] lets through."""
    return Scale(_line(x, alpha, beta), 3.0, Rule.ULP)


def _line(x: Array, alpha: float, beta: float) -> Array:
    return np.minimum(np.abs(alpha * x), 1 + abs(beta)) + abs(beta)


_register("HardSigmoid", hard_sigmoid, hard_sigmoid_scale)


@kernel("HardSwish", since=14)
def hard_swish(x: Array, /) -> Array:
    """x·max(0, min(1, x/6 + ½)).

    Spec: HardSwish, since 14
    """
    return np.asarray(x * hard_sigmoid(x, alpha=1 / 6, beta=0.5))


def _open_at_minus_infinity(x: Array, terms: float) -> Array:
    return np.where(np.isneginf(x), np.inf, terms)


def gate_scale(x: Array, gate: Array, terms: float) -> Scale:
    """`terms` at |x|·`gate`, for x times a gate that is rounded at `gate`; open at −∞, where the gate is 0."""
    return Scale(np.where(np.isinf(x), np.inf, np.abs(x) * gate), _open_at_minus_infinity(x, terms), Rule.ULP)


@scale("HardSwish", since=14)
def hard_swish_scale(y: Array, x: Array, /, *, stored: Sequence[np.dtype[np.generic] | None] = (None,)) -> Scale:
    """4 at |x|·(|x|/6 + ½): the hard sigmoid's 3 and the product. In float64 the function body, whose ⅙ is a float32,
    conforms as well."""
    found = gate_scale(x, _line(x, 1 / 6, 0.5), 4.0)
    if stored[0] != np.float64:
        return found
    return reaching(found, y, x * hard_sigmoid(x, alpha=float(np.float32(1 / 6)), beta=0.5))


@kernel("Swish", since=24)
def swish(x: Array, /, *, alpha: float = 1.0) -> Array:
    """x·sigmoid(`alpha`·x).

    Spec: Swish, since 24
    """
    return np.asarray(x * sigmoid(alpha * x))


@scale("Swish", since=24)
def swish_scale(_y: Array, x: Array, /, *, alpha: float = 1.0) -> Scale:
    """10 at |x|·max(σ, ½): the sigmoid's 8, the product, and alpha·x rounded twice where σ has slope <= ¼."""
    found = gate_scale(x, np.maximum(sigmoid(alpha * x), 0.5), LIBRARY + 2)
    return replace(found, terms=np.where(np.isinf(x) & (alpha * x < 0), np.inf, LIBRARY + 2))


@kernel("SwiGLU", since=28)
def swiglu(a: Array, b: Array, /, *, alpha: float = 1.0) -> Array:
    """Swish of `a` times `b`, both of one shape.

    Spec: SwiGLU, since 28
    """
    return np.asarray(swish(a, alpha=alpha) * b)


@scale("SwiGLU", since=28)
def swiglu_scale(_y: Array, a: Array, b: Array, /, *, alpha: float = 1.0) -> Scale:
    """11 at |a·b|·max(σ, ½): as Swish, with one product more."""
    inner = swish_scale(a, a, alpha=alpha)
    return Scale(inner.magnitude * np.abs(b), inner.terms + 1, Rule.ULP)


@kernel("Mish", since=18)
def mish(x: Array, /) -> Array:
    """x·tanh(softplus(x)).

    Spec: Mish, since 18
    """
    return np.asarray(x * np.tanh(softplus(x)))


@scale("Mish", since=18)
def mish_scale(_y: Array, x: Array, /) -> Scale:
    """11 at |x|·(t + (1 − t²)(1 + s)), s the softplus and t its tanh: softplus 10 at 1 + s, tanh 8 at t, product 1."""
    inner = softplus(x)
    t = np.tanh(inner)
    return gate_scale(x, t + (1 - t * t) * np.where(np.isinf(inner), 0.0, 1 + inner), LIBRARY + 3)


@kernel("Gelu", since=20)
def gelu(x: Array, /, *, approximate: str = "none") -> Array:
    """½·x·(1 + erf(x/√2)), or its approximation by a tanh of x + 0.044715·x³.

    Args:
        x: any float.
        approximate: "none" or "tanh".

    Raises:
        InvalidAttributeError: another `approximate`.

    Spec: Gelu, since 20
    """
    return np.asarray(x / 2 * (1 + _gelu_gate(x, approximate)))


def _gelu_gate(x: Array, approximate: str) -> Array:
    if approximate == "none":
        return error_function(x / math.sqrt(2))
    if approximate == "tanh":
        return np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    raise InvalidAttributeError(f'Gelu: approximate="{approximate}" is neither "none" nor "tanh"')


@scale("Gelu", since=20)
def gelu_scale(
    y: Array, x: Array, /, *, approximate: str = "none", stored: Sequence[np.dtype[np.generic] | None] = (None,)
) -> Scale:
    """8 at ½·|x|·(1 + |e|), e the erf or tanh: e errs by 8 at |e|, its argument by 2 (erf) or 7 (tanh) of which its
    slope lets through less than 1 or 3.2, the sum and the products by 2 at 1 + |e|. In float64 the tanh of the function
    body, whose constants are float32, conforms as well."""
    found = gate_scale(x, (1 + np.abs(_gelu_gate(x, approximate))) / 2, LIBRARY)
    if approximate != "tanh" or stored[0] != np.float64:
        return found
    cubic, root = float(np.float32(0.044715)), math.sqrt(float(np.float32(2 / math.pi)))
    return reaching(found, y, x / 2 * (1 + np.tanh(root * (x + cubic * x**3))))


def reaching(scale: Scale, y: Array, other: Array) -> Scale:
    """The scale, in float64, widened to another value that conforms."""
    gap = np.nan_to_num(np.abs(other - y)) * 2.0**53
    return replace(scale, magnitude=scale.magnitude + gap)


def _threshold(value: float, dtype: np.dtype[np.generic]) -> float:
    """A threshold as function bodies cast it: to the type of the tensor where that is a float."""
    return float(encode(np.array(value), dtype)) if is_float(dtype) else value


@kernel("ThresholdedRelu", since=10, scale=exact)
def thresholded_relu(x: Array, /, *, alpha: float = 1.0, stored: tuple[np.dtype[np.generic], ...]) -> Array:
    """x where x > `alpha`, 0 elsewhere.

    Spec: ThresholdedRelu, since 10
    """
    return np.where(x > _threshold(alpha, stored[0]), x, 0.0)


@kernel("Shrink", since=9)
def shrink(x: Array, /, *, bias: float = 0.0, lambd: float = 0.5, stored: tuple[np.dtype[np.generic], ...]) -> Array:
    """x + `bias` below −`lambd`, x − `bias` above `lambd`, 0 between; truncated to the type of an integer `x`.

    Spec: Shrink, since 9
    """
    values = x.astype(np.float64)
    limit = _threshold(lambd, stored[0])
    y = np.where(values < -limit, values + bias, np.where(values > limit, values - bias, 0.0))
    return y.astype(x.dtype)


@scale("Shrink", since=9)
def shrink_scale(y: Array, x: Array, /, *, bias: float = 0.0, **_attributes: object) -> Scale:
    """1 at |y| + |bias| (the sum at |y|, the constant at |bias|), 0 where y = 0. Open on integers where `bias` is
    fractional, because the function body truncates it first, or where the sum does not fit."""
    if y.dtype.kind == "f":
        return Scale(np.where(y == 0, 0.0, np.abs(y) + abs(bias)), ONCE, Rule.ULP)
    limits, values = np.iinfo(x.dtype), x.astype(np.float64)
    fits = (values - abs(bias) >= limits.min) & (values + abs(bias) <= limits.max)
    return undetermined(~fits | (bias != math.trunc(bias)))
