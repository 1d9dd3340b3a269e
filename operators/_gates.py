"""The activation functions of RNN, GRU and LSTM: value, steepest slope within an error's reach, own rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidAttributeError
from ._tracked import Number, Tracked, through
from .activations import elu_scale, hard_sigmoid_scale, sigmoid, sigmoid_scale, softplus, softplus_scale, softsign_scale
from .scale import Array, Scale
from .transcendental import LIBRARY


def _steepest_at(x: Array, reach: Array) -> Array:
    """The point nearest to 0 within reach: there the slope of a sigmoid is largest."""
    return np.maximum(np.abs(x) - reach, 0.0)


def _beside(x: Array, reach: Array, edge: float, below: float, above: float) -> Array:
    """The slope of a function with a kink at `edge`: the larger one where the edge is within reach."""
    larger = max(below, above)
    return np.where(x > edge + reach, above, np.where(x < edge - reach, below, larger))


@dataclass(frozen=True)
class Gate:
    """An activation function with its parameters filled in.

    Attributes:
        value: of an array.
        slope: largest |f'| within `reach` of x; infinite where the function jumps.
        own: half-units that evaluating it adds, of (y, x).
    """

    value: Callable[[Array], Array]
    slope: Callable[[Array, Array], Array]
    own: Callable[[Array, Array], Array]

    def __call__(self, x: Number, unit: float) -> Number:
        """f(x); for tracked values `unit` is half a unit in the last place at magnitude one."""
        if not isinstance(x, Tracked):
            return np.asanyarray(self.value(x))
        y = self.value(x.value)
        with np.errstate(all="ignore"):
            return through(x, y, self.slope(x.value, x.bound * unit), self.own(y, x.value))


def clipped(x: Number, clip: float, unit: float) -> Number:
    """x within [−clip, clip]."""
    if not isinstance(x, Tracked):
        return np.clip(x, -clip, clip)
    slope = np.where(np.abs(x.value) - x.bound * unit < clip, 1.0, 0.0)
    return through(x, np.clip(x.value, -clip, clip), slope, np.zeros(()))


def clipped_or_not(x: Number, clip: float) -> Number:
    """x within [−clip, clip], left open where that changes it: the cell is no input of a gate for every reader."""
    if not isinstance(x, Tracked):
        return np.clip(x, -clip, clip)
    unknown = np.where(np.abs(x.value) > clip, np.inf, 0.0)
    return through(x, np.clip(x.value, -clip, clip), np.ones(()), unknown)


def _half_units(scale: Scale) -> Array:
    return np.asarray(scale.magnitude) * np.asarray(scale.terms)


def _tanh_slope(x: Array, reach: Array) -> Array:
    return 1 - np.tanh(_steepest_at(x, reach)) ** 2


def _sigmoid_slope(x: Array, reach: Array) -> Array:
    y = sigmoid(_steepest_at(x, reach))
    return y * (1 - y)


def _scaled_tanh(alpha: float, beta: float) -> Gate:
    """8 at max(|alpha|/2, |y|): the specification's own (1 − e^−2x) / (1 + e^−2x), as ONNX Runtime evaluates it here,
    rounds at 1; alpha, beta and their products once each."""

    def own(y: Array, x: Array) -> Array:
        inner = 2 * np.abs(alpha * beta * x) * _tanh_slope(beta * x, np.zeros(()))
        return LIBRARY * np.maximum(abs(alpha) / 2, np.abs(y)) + 2 * np.abs(y) + inner

    return Gate(
        lambda x: alpha * np.tanh(beta * x),
        lambda x, r: abs(alpha * beta) * _tanh_slope(beta * x, abs(beta) * r),
        own,
    )


def _hard_sigmoid(alpha: float, beta: float) -> Gate:
    def slope(x: Array, reach: Array) -> Array:
        line, wider = alpha * x + beta, abs(alpha) * reach
        return np.where((line > -wider) & (line < 1 + wider), abs(alpha), 0.0)

    return Gate(
        lambda x: np.clip(alpha * x + beta, 0.0, 1.0),
        slope,
        lambda y, x: _half_units(hard_sigmoid_scale(y, x, alpha=alpha, beta=beta)),
    )


def _elu(alpha: float, _beta: float) -> Gate:
    def slope(x: Array, reach: Array) -> Array:
        curved = abs(alpha) * np.exp(np.minimum(x + reach, 0.0))
        return np.maximum(np.where(x > -reach, 1.0, 0.0), np.where(x > reach, 0.0, curved))

    return Gate(
        lambda x: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0))),
        slope,
        lambda y, x: _half_units(elu_scale(y, x, alpha=alpha)),
    )


def _line(alpha: float, beta: float) -> Gate:
    return Gate(
        lambda x: alpha * x + beta,
        lambda x, _: np.full(x.shape, abs(alpha)),
        lambda _, x: 3 * np.abs(alpha * x) + 2 * abs(beta),
    )


def _nothing(y: Array, _x: Array) -> Array:
    return np.zeros(y.shape)


_GATES: dict[str, Callable[[float, float], Gate]] = {
    "Relu": lambda _a, _b: Gate(lambda x: np.maximum(x, 0.0), lambda x, r: _beside(x, r, 0.0, 0.0, 1.0), _nothing),
    "Tanh": lambda _a, _b: Gate(np.tanh, _tanh_slope, lambda y, _: LIBRARY * np.abs(y)),
    "Sigmoid": lambda _a, _b: Gate(sigmoid, _sigmoid_slope, lambda y, x: _half_units(sigmoid_scale(y, x))),
    "Affine": _line,
    "LeakyRelu": lambda a, _: Gate(
        lambda x: np.where(x >= 0, x, a * x),
        lambda x, r: _beside(x, r, 0.0, abs(a), 1.0),
        lambda y, x: np.where(x < 0, 2 * np.abs(y), 0.0),
    ),
    "ThresholdedRelu": lambda a, _: Gate(
        lambda x: np.where(x >= a, x, 0.0),
        lambda x, r: np.where(np.abs(x - a) <= r, np.inf, np.where(x >= a, 1.0, 0.0)),
        _nothing,
    ),
    "ScaledTanh": _scaled_tanh,
    "HardSigmoid": _hard_sigmoid,
    "Elu": _elu,
    "Softsign": lambda _a, _b: Gate(
        lambda x: x / (1 + np.abs(x)),
        lambda x, r: 1 / (1 + _steepest_at(x, r)) ** 2,
        lambda y, x: _half_units(softsign_scale(y, x)),
    ),
    "Softplus": lambda _a, _b: Gate(
        softplus, lambda x, r: sigmoid(x + r), lambda y, x: _half_units(softplus_scale(y, x))
    ),
}
"""By name, the activation with parameters alpha and beta; equations of the operators' specifications."""

_DEFAULT_ALPHA = {"LeakyRelu": 0.01, "ThresholdedRelu": 1.0, "HardSigmoid": 0.2, "Elu": 1.0, "Affine": 1.0}
_DEFAULT_BETA = {"HardSigmoid": 0.5, "Affine": 0.0}
_TAKES_ALPHA = frozenset({*_DEFAULT_ALPHA, "ScaledTanh"})
_TAKES_BETA = frozenset({*_DEFAULT_BETA, "ScaledTanh"})


def gates(
    op_type: str,
    names: Sequence[str],
    activation_alpha: Sequence[float] | None,
    activation_beta: Sequence[float] | None,
) -> list[Gate]:
    """The activations of a recurrent operator; those that take alpha or beta consume the lists in order.

    Args:
        op_type: the operator.
        names: of the functions, whatever their case.
        activation_alpha: values for those functions that have an alpha; defaults where too few.
        activation_beta: likewise.

    Raises:
        InvalidAttributeError: an unknown name, or no value for a parameter without a default.
    """
    alphas, betas = iter(activation_alpha or ()), iter(activation_beta or ())
    known = {name.lower(): name for name in _GATES}
    found = []
    for name in names:
        if name.lower() not in known:
            raise InvalidAttributeError(f"{op_type}: unknown activation {name!r}; allowed are {', '.join(_GATES)}")
        canonical = known[name.lower()]
        alpha = next(alphas, _DEFAULT_ALPHA.get(canonical)) if canonical in _TAKES_ALPHA else 0.0
        beta = next(betas, _DEFAULT_BETA.get(canonical)) if canonical in _TAKES_BETA else 0.0
        if alpha is None or beta is None:
            raise InvalidAttributeError(f"{op_type}: {canonical} needs a value in activation_alpha and activation_beta")
        found.append(_GATES[canonical](float(np.float32(alpha)), float(np.float32(beta))))
    return found
