"""One step of Adagrad, Adam and Momentum (ai.onnx.preview.training); Gradient, which needs the graph, has no kernel.

Every formula is written once, for arrays and for values that carry their errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._tracked import Tracked, scale_of, track
from ._tracked_functions import quotient, root, rounded
from .registry import kernel, scale
from .rounding import half_unit
from .scale import Array, Scale
from .storage import float_format
from .transcendental import LIBRARY

TRAINING = "ai.onnx.preview.training"

Stored = tuple[np.dtype[Any] | None, ...]

Step = Callable[[list[Tracked], Tracked, int, float], list[Tracked]]
"""From the tensors of one variable, R, T and half a unit in the last place to the variable's new tensors."""


def _steps(op_type: str, inputs: Sequence[Array], count: int, units: Sequence[float], step: Step) -> list[Tracked]:
    """All new tensors in the order of the specification: of every variable the first, of every one the second, …

    Raises:
        InvalidInputError: another number of tensors, or an R or T of more than one element.
    """
    rate, time, *tensors = inputs if len(inputs) > 1 else (*inputs, None)
    if rate is None or time is None or np.size(rate) != 1 or np.size(time) != 1 or not tensors or len(tensors) % count:
        raise InvalidInputError(f"{op_type}: R, T and {count} tensors for each variable; {len(inputs)} inputs given")
    variables = len(tensors) // count
    found = []
    for index in range(variables):
        own = [track(np.asarray(tensor)) for tensor in tensors[index::variables]]
        found.append(step(own, track(np.reshape(rate, ())), int(np.reshape(time, ())), units[index]))
    return [tensor for kind in zip(*found, strict=True) for tensor in kind]


def _units(inputs: Sequence[Array], stored: Stored, count: int) -> list[float]:
    variables = max(1, (len(inputs) - 2) // count)
    dtypes = [stored[2 + i] if len(stored) > 2 + i else None for i in range(variables)]
    return [half_unit(float_format(np.dtype(np.float64) if dtype is None else dtype)) for dtype in dtypes]


def _values(tensors: Sequence[Tracked]) -> tuple[Array, ...]:
    return tuple(tensor.value for tensor in tensors)


def _scales(tensors: Sequence[Tracked], stored: Stored) -> tuple[Scale, ...]:
    dtype = stored[2] if len(stored) > 2 and stored[2] is not None else np.dtype(np.float64)
    return tuple(scale_of(tensor, float_format(dtype)) for tensor in tensors)


def _regularized(x: Tracked, g: Tracked, norm_coefficient: float) -> Tracked:
    return g if norm_coefficient == 0 else x * norm_coefficient + g


def _one_minus(factor: float) -> Tracked:
    """1 − factor, rounded."""
    return rounded(1.0 - factor)


def _adagrad(norm_coefficient: float, decay_factor: float, epsilon: float) -> Step:
    def step(own: list[Tracked], rate: Tracked, time: int, unit: float) -> list[Tracked]:
        x, g, h = own
        decay = rounded(1.0 + time * decay_factor, 2.0)  # a product and a sum
        g = _regularized(x, g, norm_coefficient)
        h_new = h + g * g
        move = quotient(quotient(rate, decay) * g, root(h_new, unit) + epsilon)
        return [x - move, h_new]

    return step


@kernel("Adagrad", since=1, domain=TRAINING)
def adagrad(
    *inputs: Array,
    decay_factor: float = 0.0,
    epsilon: float = float(np.float32(1e-6)),
    norm_coefficient: float = 0.0,
    stored: Stored = (),
) -> tuple[Array, ...]:
    """X − r g / (√H' + epsilon), H' = H + g², r = R / (1 + T decay_factor), g = G + norm_coefficient X.

    Args:
        inputs: R, T, then X of every variable, G of every variable, H of every variable.
        decay_factor: of the learning rate.
        epsilon: keeps the divisor from 0.
        norm_coefficient: of the L2 regularisation.

    Returns:
        New X of every variable, new H of every variable.

    Raises:
        InvalidInputError: another number of inputs.

    Spec: Adagrad, since 1
    """
    step = _adagrad(norm_coefficient, decay_factor, epsilon)
    return _values(_steps("Adagrad", inputs, 3, _units(inputs, stored, 3), step))


@scale("Adagrad", since=1, domain=TRAINING)
def adagrad_scale(
    y: Any,
    *inputs: Array,
    decay_factor: float = 0.0,
    epsilon: float = float(np.float32(1e-6)),
    norm_coefficient: float = 0.0,
    stored: Stored = (),
) -> tuple[Scale, ...]:
    """COMPOSED: the errors of every step of the formula."""
    step = _adagrad(norm_coefficient, decay_factor, epsilon)
    return _scales(_steps("Adagrad", inputs, 3, _units(inputs, stored, 3), step), stored)


def _adam(alpha: float, beta: float, epsilon: float, norm_coefficient: float, norm_coefficient_post: float) -> Step:
    def step(own: list[Tracked], rate: Tracked, time: int, unit: float) -> list[Tracked]:
        x, g, v, h = own
        g = _regularized(x, g, norm_coefficient)
        v_new = v * alpha + _one_minus(alpha) * g
        h_new = h * beta + _one_minus(beta) * g * g
        adjusted = rate
        if time > 0:
            powers = [rounded(factor**time, LIBRARY) for factor in (alpha, beta)]
            first, second = (1.0 - power for power in powers)
            adjusted = quotient(rate * root(second, unit), first)
        x_new = x - quotient(adjusted * v_new, root(h_new, unit) + epsilon)
        kept = x_new if norm_coefficient_post == 0 else x_new * _one_minus(norm_coefficient_post)
        return [kept, v_new, h_new]

    return step


@kernel("Adam", since=1, domain=TRAINING)
def adam(
    *inputs: Array,
    alpha: float = float(np.float32(0.9)),
    beta: float = float(np.float32(0.999)),
    epsilon: float = float(np.float32(1e-6)),
    norm_coefficient: float = 0.0,
    norm_coefficient_post: float = 0.0,
    stored: Stored = (),
) -> tuple[Array, ...]:
    """(1 − norm_coefficient_post) (X − r V' / (√H' + epsilon)), V' and H' running means of g and g².

    r = R √(1 − beta^T) / (1 − alpha^T), or R where T is 0; g = G + norm_coefficient X.

    Args:
        inputs: R, T, then X of every variable, G, V and H of every variable.
        alpha: share of V in V'.
        beta: share of H in H'.
        epsilon: added to the root.
        norm_coefficient: of the L2 regularisation.
        norm_coefficient_post: of the decay after the step.

    Returns:
        New X of every variable, new V, new H of every variable.

    Raises:
        InvalidInputError: another number of inputs.

    Spec: Adam, since 1. Paper: https://arxiv.org/abs/1412.6980
    """
    step = _adam(alpha, beta, epsilon, norm_coefficient, norm_coefficient_post)
    return _values(_steps("Adam", inputs, 4, _units(inputs, stored, 4), step))


@scale("Adam", since=1, domain=TRAINING)
def adam_scale(
    y: Any,
    *inputs: Array,
    alpha: float = float(np.float32(0.9)),
    beta: float = float(np.float32(0.999)),
    epsilon: float = float(np.float32(1e-6)),
    norm_coefficient: float = 0.0,
    norm_coefficient_post: float = 0.0,
    stored: Stored = (),
) -> tuple[Scale, ...]:
    """COMPOSED: the errors of every step of the formula; 1 − beta^T loses what beta^T rounds at."""
    step = _adam(alpha, beta, epsilon, norm_coefficient, norm_coefficient_post)
    return _scales(_steps("Adam", inputs, 4, _units(inputs, stored, 4), step), stored)


def _momentum(alpha: float, beta: float, mode: str, norm_coefficient: float) -> Step:
    if mode not in ("standard", "nesterov"):
        raise InvalidAttributeError(f"Momentum: mode={mode!r}; allowed are standard and nesterov")

    def step(own: list[Tracked], rate: Tracked, time: int, _unit: float) -> list[Tracked]:
        x, g, v = own
        g = _regularized(x, g, norm_coefficient)
        v_new = v * alpha + (g * beta if time > 0 else g)
        return [x - rate * (v_new if mode == "standard" else g + v_new * alpha), v_new]

    return step


@kernel("Momentum", since=1, domain=TRAINING)
def momentum(
    *inputs: Array, alpha: float, beta: float, mode: str, norm_coefficient: float, stored: Stored = ()
) -> tuple[Array, ...]:
    """X − R V', or X − R (g + alpha V') for nesterov; V' = alpha V + beta g, with beta 1 where T is 0.

    Args:
        inputs: R, T, then X of every variable, G of every variable, V of every variable.
        alpha: decay of V.
        beta: share of the gradient.
        mode: standard or nesterov.
        norm_coefficient: of the L2 regularisation, g = G + norm_coefficient X.

    Returns:
        New X of every variable, new V of every variable.

    Raises:
        InvalidInputError: another number of inputs.
        InvalidAttributeError: another mode.

    Spec: Momentum, since 1
    """
    step = _momentum(alpha, beta, mode, norm_coefficient)
    return _values(_steps("Momentum", inputs, 3, _units(inputs, stored, 3), step))


@scale("Momentum", since=1, domain=TRAINING)
def momentum_scale(
    y: Any, *inputs: Array, alpha: float, beta: float, mode: str, norm_coefficient: float, stored: Stored = ()
) -> tuple[Scale, ...]:
    """COMPOSED: the errors of every step of the formula."""
    step = _momentum(alpha, beta, mode, norm_coefficient)
    return _scales(_steps("Momentum", inputs, 3, _units(inputs, stored, 3), step), stored)
