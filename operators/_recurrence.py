"""The recurrence of RNN, GRU and LSTM: one loop over time, vectorised over the batch, on arrays or tracked errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._gates import Gate, clipped, clipped_or_not, gates
from ._tracked import Number, matmul, select, stack
from .rounding import growth, half_unit
from .scale import Array
from .storage import FloatFormat, float_format

Stored = tuple[np.dtype[Any] | None, ...]
Arithmetic = Callable[[Array], Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The attributes of a recurrent node, by their names in the specification, and the operator.

    Attributes:
        op_type: the operator.
        direction: forward, reverse or bidirectional.
        layout: 1 has the batch first.
        clip: bound of what enters an activation, None for none.
        input_forget: LSTM: the forget gate is 1 − input gate.
        linear_before_reset: GRU: the reset gate multiplies after R.
        hidden_size: None, or what it must be.
        activations: names, for all directions.
        activation_alpha: of the activations; so is `activation_beta`.
        output_sequence: before opset 7, whether Y is wanted; whether it is computed follows from its name.
    """

    op_type: str
    direction: str = "forward"
    layout: int = 0
    clip: float | None = None
    input_forget: int = 0
    linear_before_reset: int = 0
    hidden_size: int | None = None
    activations: Sequence[str] | None = None
    activation_alpha: Sequence[float] | None = None
    activation_beta: Sequence[float] | None = None
    output_sequence: int = 0

    @property
    def blocks(self) -> int:
        """Gates in W and R."""
        return {"RNN": 1, "GRU": 3, "LSTM": 4}[self.op_type]

    def directions(self) -> list[bool]:
        """Whether each direction runs backwards.

        Raises:
            InvalidAttributeError: another word.
        """
        known = {"forward": [False], "foward": [False], "reverse": [True], "bidirectional": [False, True]}
        if self.direction not in known:
            raise InvalidAttributeError(f"{self.op_type}: direction={self.direction!r}; allowed are {', '.join(known)}")
        return known[self.direction]

    def functions(self) -> list[list[Gate]]:
        """The activations of each direction.

        Raises:
            InvalidAttributeError: too few, or an unknown one.
        """
        default = _ACTIVATIONS[self.op_type]
        count, each = len(self.directions()), len(default)
        names = list(default) * count if self.activations is None else list(self.activations)
        if len(names) < count * each:
            raise InvalidAttributeError(f"{self.op_type}: {len(names)} activations, {count * each} are needed")
        found = gates(self.op_type, names[: count * each], self.activation_alpha, self.activation_beta)
        return [found[i * each : (i + 1) * each] for i in range(count)]


_ACTIVATIONS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
"""By operator, the activations of one direction that are taken if none are given."""


@dataclass(frozen=True)
class Weights:
    """What one direction multiplies with, transposed to (in, out).

    Attributes:
        w: (input, blocks·H).
        r: (H, blocks·H).
        w_bias: (blocks·H,); so is `r_bias`.
        peepholes: (3·H,) in the order i, o, f, or None.
        k_input: certain bound of a sum over the input; `k_hidden` over the states.
        unit: half a unit in the last place.
    """

    w: Array
    r: Array
    w_bias: Array
    r_bias: Array
    peepholes: Array | None
    k_input: float
    k_hidden: float
    unit: float

    @property
    def hidden(self) -> int:
        return len(self.r)

    def block(self, index: int) -> slice:
        """The columns of one gate."""
        return slice(index * self.hidden, (index + 1) * self.hidden)


@dataclass(frozen=True)
class Inputs:
    """A recurrent node's inputs, the time first.

    Attributes:
        x: (T, B, input).
        lengths: (B,), how many steps of each sequence count.
        weights: of each direction.
        states: h (and c) of each direction: (directions, B, H) each.
        format: of the stored type.
    """

    x: Array
    lengths: Array
    weights: list[Weights]
    states: list[Array]
    format: FloatFormat


def prepared(settings: Settings, inputs: Sequence[Array | None], stored: Stored) -> Inputs:
    """The inputs of a node in the order of its specification, checked, the time first.

    Raises:
        InvalidInputError: shapes that do not go together.
        InvalidAttributeError: an unknown direction, or another hidden_size.
    """
    padded = [*inputs, *[None] * (8 - len(inputs))]
    x, w, r, b, sequence_lens, initial_h, initial_c, p = padded
    if x is None or w is None or r is None:
        raise InvalidInputError(f"{settings.op_type}: X, W and R are needed")
    states = [initial_h, initial_c] if settings.op_type == "LSTM" else [initial_h]
    D, hidden = len(settings.directions()), r.shape[-1]
    _check(settings, x, w, r, D, hidden)
    x = x.swapaxes(0, 1) if settings.layout else x
    T, B = x.shape[:2]
    lengths = np.full(B, T) if sequence_lens is None else np.asarray(sequence_lens)
    if lengths.shape != (B,) or lengths.min(initial=0) < 0 or lengths.max(initial=0) > T:
        raise InvalidInputError(f"{settings.op_type}: sequence_lens {lengths.tolist()} for {B} sequences of {T} steps")
    form = float_format(stored[0] or x.dtype)
    bias = np.zeros((D, 2 * settings.blocks * hidden), x.dtype) if b is None else b
    first = [_state(settings, state, (D, B, hidden), x.dtype) for state in states]
    weights = [
        Weights(
            w[d].T,
            r[d].T,
            *_halves(bias[d]),
            None if p is None else p[d],
            growth(w.shape[-1], form),
            growth(hidden, form),
            half_unit(form),
        )
        for d in range(D)
    ]
    return Inputs(x, lengths, weights, first, form)


def _halves(x: Array) -> tuple[Array, Array]:
    return x[: len(x) // 2], x[len(x) // 2 :]


def _state(settings: Settings, state: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if state is None:
        return np.zeros(shape, dtype)
    state = state.swapaxes(0, 1) if settings.layout else state
    if state.shape != shape:
        raise InvalidInputError(f"{settings.op_type}: an initial state of shape {state.shape}, {shape} is needed")
    return state


def _check(settings: Settings, x: Array, w: Array, r: Array, directions: int, hidden: int) -> None:
    rows = settings.blocks * hidden
    expected = {"X": (x.ndim, 3), "W": (w.shape[:2], (directions, rows)), "R": (r.shape[:2], (directions, rows))}
    for name, (got, needed) in expected.items():
        if got != needed:
            raise InvalidInputError(
                f"{settings.op_type}: {name} is of rank or shape {got}, {needed} is needed for direction="
                f"{settings.direction} and hidden_size={hidden}"
            )
    if w.shape[-1] != x.shape[-1]:
        raise InvalidInputError(f"{settings.op_type}: W is for {w.shape[-1]} inputs, X has {x.shape[-1]}")
    if settings.hidden_size is not None and settings.hidden_size != hidden:
        raise InvalidAttributeError(f"{settings.op_type}: hidden_size={settings.hidden_size}, but R is for {hidden}")


def _entering(settings: Settings, x: Number, unit: float) -> Number:
    """What enters an activation."""
    return x if settings.clip is None else clipped(x, settings.clip, unit)


def _rnn_step(
    settings: Settings, functions: Sequence[Gate], w: Weights, projected: Number, states: Sequence[Number]
) -> list[Any]:
    """Ht = f(Xt·Wᵀ + Ht−1·Rᵀ + Wb + Rb)."""
    total = projected + matmul(states[0], w.r, w.k_hidden)
    return [functions[0](_entering(settings, total, w.unit), w.unit)]


def _gru_step(
    settings: Settings, functions: Sequence[Gate], w: Weights, projected: Number, states: Sequence[Number]
) -> list[Any]:
    """zt, rt = f(…); ht = g(Xt·Whᵀ + (rt ∘ Ht−1)·Rhᵀ + …) or, linear before reset, rt ∘ (Ht−1·Rhᵀ + Rbh);
    Ht = (1 − zt) ∘ ht + zt ∘ Ht−1."""
    (h,), n = states, 2 * w.hidden
    both = projected[..., :n] + matmul(h, w.r[:, :n], w.k_hidden) + w.r_bias[:n]
    both = functions[0](_entering(settings, both, w.unit), w.unit)
    update, reset = both[..., : w.hidden], both[..., w.hidden :]
    if settings.linear_before_reset:
        brought = reset * (matmul(h, w.r[:, n:], w.k_hidden) + w.r_bias[n:])
    else:
        brought = matmul(reset * h, w.r[:, n:], w.k_hidden) + w.r_bias[n:]
    candidate = functions[1](_entering(settings, projected[..., n:] + brought, w.unit), w.unit)
    return [(1.0 - update) * candidate + update * h]


def _lstm_step(
    settings: Settings, functions: Sequence[Gate], w: Weights, projected: Number, states: Sequence[Number]
) -> list[Any]:
    """it, ft, ct, Ct = ft ∘ Ct−1 + it ∘ ct, ot, Ht = ot ∘ h(Ct); blocks in the order i, o, f, c.

    The specification clips "the input of activations", of which Ct is one; ONNX Runtime clips the gates only. What
    follows from a Ct beyond the clip is left open.
    """
    h, c = states
    f, g, outer = functions
    total = projected + matmul(h, w.r, w.k_hidden)
    cell = g(_entering(settings, total[..., w.block(3)], w.unit), w.unit)
    if w.peepholes is None:
        opened = f(_entering(settings, total[..., : 3 * w.hidden], w.unit), w.unit)
        into, out, forget = (opened[..., w.block(i)] for i in range(3))
    else:
        into, out, forget = (total[..., w.block(i)] for i in range(3))
        into = f(_entering(settings, into + c * w.peepholes[w.block(0)], w.unit), w.unit)
        forget = f(_entering(settings, forget + c * w.peepholes[w.block(2)], w.unit), w.unit)
    c = (1.0 - into if settings.input_forget else forget) * c + into * cell
    if w.peepholes is not None:
        out = f(_entering(settings, out + c * w.peepholes[w.block(1)], w.unit), w.unit)
    shown = c if settings.clip is None else clipped_or_not(c, settings.clip)
    return [out * outer(shown, w.unit), c]


STEPS: dict[str, Callable[..., list[Any]]] = {"RNN": _rnn_step, "GRU": _gru_step, "LSTM": _lstm_step}


def run(settings: Settings, given: Inputs, arithmetic: Arithmetic) -> list[Any]:
    """Y, Y_h (and Y_c) in the layout of the node, as arrays or as tracked values.

    Args:
        arithmetic: what makes numbers of arrays: the identity, or `track`.
    """
    rows, finals = [], []
    for d, backwards in enumerate(settings.directions()):
        states = [arithmetic(state[d]) for state in given.states]
        y, states = _run_direction(settings, given, d, backwards, states, arithmetic)
        rows.append(y)
        finals.append(states)
    y = stack(rows, axis=1)  # (T, directions, B, H)
    last = [stack(list(state)) for state in zip(*finals, strict=True)]  # (directions, B, H) each
    if settings.layout:
        y = _transposed(y, (2, 0, 1, 3))
        last = [_transposed(state, (1, 0, 2)) for state in last]
    return [y, *last]


def _transposed(x: Any, axes: tuple[int, ...]) -> Any:
    return x.transpose(axes) if isinstance(x, np.ndarray) else x.each(lambda part: part.transpose(axes))


def _run_direction(
    settings: Settings, given: Inputs, d: int, backwards: bool, states: list[Any], arithmetic: Arithmetic
) -> tuple[Any, list[Any]]:
    """The outputs (T, B, H), zero beyond a sequence's end, and the final states."""
    w, step, functions = given.weights[d], STEPS[settings.op_type], settings.functions()[d]
    T, B = given.x.shape[:2]
    order = _time_order(given.lengths, T, backwards)  # (T, B)
    x = given.x[order, np.arange(B)]
    projected = matmul(arithmetic(x), w.w, w.k_input) + w.w_bias
    if settings.op_type != "GRU":  # where it is added to the candidate inside the reset gate
        projected = projected + w.r_bias
    silent = arithmetic(np.zeros((B, w.hidden), given.x.dtype))
    outputs = []
    for t in range(T):
        alive = (t < given.lengths)[:, None]
        new = step(settings, functions, w, projected[t], states)
        if not alive.all():
            new = [select(alive, now, before) for now, before in zip(new, states, strict=True)]
            outputs.append(select(alive, new[0], silent))
        else:
            outputs.append(new[0])
        states = new
    if not outputs:
        return arithmetic(np.zeros((0, B, w.hidden), given.x.dtype)), states
    y = stack(outputs)
    back = np.arange(B)
    return (y[order, back] if backwards else y), states


def _time_order(lengths: Array, steps: int, backwards: bool) -> Array:
    """Which time step of each sequence is looked at first, second, …; what lies beyond its end comes last."""
    t = np.arange(steps)[:, None]
    return np.where(t < lengths, lengths - 1 - t, t) if backwards else np.broadcast_to(t, (steps, len(lengths)))
