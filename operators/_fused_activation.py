"""An activation fused behind a sum of products: its value, and where the sum's rounding can move it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError
from . import activations, transcendental
from .rounding import growth, half_unit, natural_spread
from .scale import Array, Rule, Scale, ScaleFunction
from .storage import FloatFormat, float_format

Stored = tuple[np.dtype[Any] | None, ...]

LEAST_STEP = 2.0**-26
"""A slope is taken over at least this share of the sum's size, so that it is no difference of equal numbers."""


@dataclass(frozen=True)
class Activation:
    """A function of one number that rises, or has turning points.

    Attributes:
        function: of float64 arrays.
        scale: (y, x) -> Scale of its own roundings, of rule ULP; None where it has none.
        turns: where it stops rising or falling.
    """

    function: Callable[[Array], Array]
    scale: ScaleFunction | None = None
    turns: tuple[float, ...] = ()


def _clip(x: Array, /, *, low: float, high: float) -> Array:
    return np.clip(x, low, high)


_FUNCTIONS: Mapping[str, tuple[Callable[..., Array], ScaleFunction | None, tuple[str, ...], tuple[float, ...]]] = {
    "": (np.asarray, None, (), ()),
    "Relu": (activations.relu, None, (), ()),
    "LeakyRelu": (activations.leaky_relu, activations.leaky_relu_scale, ("alpha",), ()),
    "Tanh": (np.tanh, transcendental.library_scale, (), ()),
    "Sigmoid": (activations.sigmoid, activations.sigmoid_scale, (), ()),
    "Clip": (_clip, None, ("low", "high"), ()),
    "HardSigmoid": (activations.hard_sigmoid, activations.hard_sigmoid_scale, ("alpha", "beta"), ()),
    "HardSwish": (activations.hard_swish, activations.hard_swish_scale, (), (-1.5,)),
    "Elu": (activations.elu, activations.elu_scale, ("alpha",), ()),
    "Selu": (activations.selu, activations.selu_scale, ("alpha", "gamma"), ()),
    "Softplus": (activations.softplus, activations.softplus_scale, (), ()),
    "Softsign": (activations.softsign, activations.softsign_scale, (), ()),
    "ThresholdedRelu": (lambda x, /, *, alpha: np.where(x > alpha, x, 0.0), None, ("alpha",), ()),
}
"""By name: function, scale, names of its parameters in the order of `activation_params`, turning points."""


def by_list(op_type: str, name: str, params: Sequence[float] | None) -> Activation:
    """The activation of FusedConv: its parameters in a list.

    Raises:
        InvalidAttributeError: an unknown activation, or fewer parameters than it has.
    """
    names = _entry(op_type, name)[2]
    given = [] if params is None else list(params)
    if len(given) < len(names):
        raise InvalidAttributeError(f"{op_type}: {name} needs {len(names)} activation_params, {len(given)} are given")
    return _bind(op_type, name, dict(zip(names, given, strict=False)))


def by_name(op_type: str, name: str, **given: float | None) -> Activation:
    """The activation of FusedGemm: each parameter an attribute of its own.

    Raises:
        InvalidAttributeError: an unknown activation, or a parameter that it has is absent.
    """
    names = _entry(op_type, name)[2]
    absent = [parameter for parameter in names if given.get(parameter) is None]
    if absent:
        raise InvalidAttributeError(f"{op_type}: {name} needs activation_{absent[0]}")
    return _bind(op_type, name, {parameter: float(given[parameter] or 0.0) for parameter in names})


def _entry(op_type: str, name: str) -> Any:
    if name not in _FUNCTIONS:
        known = ", ".join(filter(None, _FUNCTIONS))
        raise InvalidAttributeError(f"{op_type}: activation={name!r}; known: {known}")
    return _FUNCTIONS[name]


def _bind(op_type: str, name: str, parameters: Mapping[str, float]) -> Activation:
    function, scale, _, turns = _entry(op_type, name)
    return Activation(
        partial(function, **parameters) if parameters else function,
        partial(scale, **parameters) if scale is not None and parameters else scale,
        turns,
    )


def activated(v: Array, bound: Scale, activation: Activation, dtype: np.dtype[Any] | None) -> tuple[Array, Scale]:
    """An activation of sums of products, with its error scale.

    The sum may lie anywhere in [v − d, v + d], d = 2k half-units of its magnitude; so the activation lies in the image
    of that interval, and the magnitude is its larger side over 2k: exact for functions that rise, no matter how steep
    or cut off they are, and 0 where a Relu is certainly shut. The activation's own roundings are added.

    Args:
        v: the sums, float64.
        bound: their scale, of rule DOT.
        activation: what is applied.
        dtype: in which the output is stored.

    Returns:
        (y, Scale): DOT where the activation neither steepens nor rounds, else COMPOSED, with the sum's natural spread.
    """
    format_ = float_format(np.dtype(np.float32) if dtype is None else dtype)
    y = activation.function(v)
    size = _image(v, y, bound, activation, format_)
    spread = natural_spread(bound, v, format_)
    own = 0.0
    if activation.scale is not None:
        single = activation.scale(y, v)
        own = np.asarray(single.magnitude * single.terms)  # type: ignore[union-attr]
    magnitude = np.maximum(size, 0.0) + own
    rule = Rule.DOT if activation.scale is None else Rule.COMPOSED
    return y, Scale(magnitude, bound.terms, rule, spread)


def _image(v: Array, y: Array, bound: Scale, activation: Activation, format_: FloatFormat) -> Array:
    unit = half_unit(format_) * 2 * growth(float(np.max(bound.terms)), format_)
    step = bound.magnitude * max(unit, LEAST_STEP)
    low, high = v - step, v + step
    points = [low, high, *(np.clip(turn, low, high) for turn in activation.turns)]
    reach = np.max([np.abs(activation.function(point) - y) for point in points], axis=0)
    with np.errstate(all="ignore"):
        return np.where(step > 0, reach / step * bound.magnitude, 0.0)
