"""RNN, GRU and LSTM, step by step in float32."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...operators.scale import Array
from .case import Case, Family, Outputs, Variant, faults
from .data import KINDS, tensor
from .narrow import NARROW
from .summing import blas, blocked, sequential
from .tampering import tampered

F = np.float32
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@dataclass(frozen=True)
class Flaws:
    """What a faulty recurrence does differently.

    Attributes:
        order: of the gates, another one.
        bias: "input only", "recurrent only", "twice".
        start: the initial state is "ignored".
        reversed_time: steps run the other way.
        stale: the state of the step before the last.
        transposed: recurrent weights transposed.
        hard: hard sigmoids in the gates.
        forget: "one more" (a forget bias of one), "never".
        reset_late: linear_before_reset turned round.
        update: update gate turned round.
        cell: the cell has no tanh before the output gate.
        narrow: inputs and weights in a narrow type.
        state: the state is kept in a narrow type.
        batch: the first of the batch for all.
        last: the last step is not made.
        second_state: the state after the first step never changes.
        clip: cell values cut at one.
        relu: in place of tanh.
        peephole: left out.
        tied: input and forget gate tied.
    """

    order: tuple[int, ...] = ()
    bias: str = ""
    start: str = ""
    reversed_time: bool = False
    transposed: bool = False
    hard: bool = False
    forget: str = ""
    reset_late: bool = False
    update: bool = False
    cell: bool = False
    narrow: str = ""
    state: str = ""
    last: bool = False
    relu: bool = False
    tied: bool = False
    stale_cell: bool = False


RIGHT = Flaws()
Multiply = Callable[[Array, Array], Array]


def _sigmoid(x: Array) -> Array:
    return F(1) / (F(1) + np.exp(-x))


def run(case: Case, flaws: Flaws = RIGHT, multiply: Multiply = blas) -> Outputs | None:
    """One direction; Y and Y_h (and Y_c)."""
    x, w, r, b, _, h = (None if t is None else t.astype(F) for t in (*case.inputs, None, None)[:6])
    cell = (*case.inputs, None)[6] if len(case.inputs) > 6 else None
    x, w, r = (np.asarray(t) for t in (x, w, r))
    w, r, b = w[0], r[0], np.zeros(2 * w.shape[1], F) if b is None else b[0]
    if flaws.narrow:
        x, w, r = (NARROW[flaws.narrow](t) for t in (x, w, r))
    H = r.shape[1]
    w, r, b = _rearranged(w, r, b, H, flaws)
    state = np.zeros((x.shape[1], H), F) if h is None or flaws.start else h[0]
    memory = np.zeros_like(state) if cell is None or flaws.start else cell[0].astype(F)
    steps = range(x.shape[0] - 1, -1, -1) if flaws.reversed_time else range(x.shape[0])
    y = np.zeros((x.shape[0], 1, *state.shape), F)
    for t in steps:
        if not (flaws.last and t == x.shape[0] - 1):
            state, memory = STEPS[case.op_type](x[t], state, memory, (w, r, b), flaws, multiply, case)
        if flaws.state:
            state = NARROW[flaws.state](state)
        y[t, 0] = state
    return (y, state[None], memory[None]) if case.op_type == "LSTM" else (y, state[None])


def _rearranged(w: Array, r: Array, b: Array, H: int, flaws: Flaws) -> tuple[Array, Array, Array]:
    if flaws.transposed:
        r = np.ascontiguousarray(r.reshape(-1, H, H).swapaxes(1, 2)).reshape(r.shape)
    half = len(b) // 2
    wb, rb = b[:half], b[half:]
    if flaws.bias:
        wb, rb = {"input only": (wb, 0 * rb), "recurrent only": (0 * wb, rb), "twice": (2 * wb, 2 * rb)}[flaws.bias]
    if flaws.order:
        rows = np.concatenate([np.arange(g * H, (g + 1) * H) for g in flaws.order])
        w, r, wb, rb = w[rows], r[rows], wb[rows], rb[rows]
    return w, r, np.concatenate([wb, rb])


Weights = tuple[Array, Array, Array]


def _parts(x: Array, h: Array, weights: Weights, multiply: Multiply) -> tuple[Array, Array]:
    w, r, b = weights
    half = len(b) // 2
    wt, rt = np.ascontiguousarray(w.T), np.ascontiguousarray(r.T)
    return multiply(x, wt) + b[:half], multiply(h, rt) + b[half:]


def _rnn(
    x: Array, h: Array, c: Array, weights: Weights, flaws: Flaws, multiply: Multiply, _: Case
) -> tuple[Array, Array]:
    a, d = _parts(x, h, weights, multiply)
    return (np.maximum(a + d, 0) if flaws.relu else np.tanh(a + d)), c


def _gate(flaws: Flaws) -> Callable[[Array], Array]:
    return (lambda x: np.clip(F(0.2) * x + F(0.5), 0, 1).astype(F)) if flaws.hard else _sigmoid


def _gru(
    x: Array, h: Array, c: Array, weights: Weights, flaws: Flaws, multiply: Multiply, case: Case
) -> tuple[Array, Array]:
    H, gate = h.shape[1], _gate(flaws)
    a, d = _parts(x, h, weights, multiply)
    z, r = gate(a[:, :H] + d[:, :H]), gate(a[:, H : 2 * H] + d[:, H : 2 * H])
    if bool(case.attributes.get("linear_before_reset", 0)) != flaws.reset_late:
        inner = a[:, 2 * H :] + r * d[:, 2 * H :]
    else:
        rt = np.ascontiguousarray(weights[1][2 * H :].T)
        inner = a[:, 2 * H :] + multiply(r * h, rt) + weights[2][5 * H :]
    n = np.maximum(inner, 0) if flaws.relu else np.tanh(inner)
    z = 1 - z if flaws.update else z
    return (1 - z) * n + z * h, c


def _lstm(
    x: Array, h: Array, c: Array, weights: Weights, flaws: Flaws, multiply: Multiply, _: Case
) -> tuple[Array, Array]:
    H, gate = h.shape[1], _gate(flaws)
    a, d = _parts(x, h, weights, multiply)
    i, o, f, n = ((a + d)[:, g * H : (g + 1) * H] for g in range(4))
    i, o = gate(i), gate(o)
    f = gate(f + 1) if flaws.forget == "one more" else np.ones_like(i) if flaws.forget == "never" else gate(f)
    f = 1 - i if flaws.tied else f
    new = f * c + i * (np.maximum(n, 0) if flaws.relu else np.tanh(n))
    shown = c if flaws.stale_cell else new
    return o * (shown if flaws.cell else np.tanh(shown)), new


STEPS: dict[str, Callable[..., tuple[Array, Array]]] = {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}


def faulty(case: Case, **flaws: Any) -> Outputs | None:
    """A recurrence with one flaw."""
    return run(case, Flaws(**flaws))


ALL = ("RNN", "GRU", "LSTM")

FAULTS: tuple[tuple[Any, ...], ...] = (
    ("gates in the order i, f, c, o", "LSTM", {"order": (0, 3, 1, 2)}),
    ("gates in the order r, z, h", "GRU", {"order": (1, 0, 2)}),
    ("recurrent bias left out", ALL, {"bias": "input only"}),
    ("input bias left out", ALL, {"bias": "recurrent only"}),
    ("biases added twice", ALL, {"bias": "twice"}),
    ("initial state ignored", ALL, {"start": "ignored"}),
    ("time reversed", ALL, {"reversed_time": True}),
    ("recurrent weights transposed", ALL, {"transposed": True}),
    ("hard sigmoid in the gates", ("GRU", "LSTM"), {"hard": True}),
    ("forget bias of one", "LSTM", {"forget": "one more"}),
    ("nothing forgotten", "LSTM", {"forget": "never"}),
    ("input and forget gate tied", "LSTM", {"tied": True}),
    ("cell without its tanh", "LSTM", {"cell": True}),
    ("output of the cell before", "LSTM", {"stale_cell": True}),
    ("linear_before_reset turned round", "GRU", {"reset_late": True}),
    ("update gate turned round", "GRU", {"update": True}),
    ("relu in place of tanh", ALL, {"relu": True}),
    ("inputs and weights in TF32", ALL, {"narrow": "TF32"}),
    ("inputs and weights in bfloat16", ALL, {"narrow": "BF16"}),
    ("inputs and weights in float16", ALL, {"narrow": "FP16"}),
    ("state in float16", ALL, {"state": "FP16"}),
    ("state in bfloat16", ALL, {"state": "BF16"}),
    ("last step not made", ALL, {"last": True}),
)


def cases(quick: bool) -> Iterator[Case]:
    """Sequences of one to many steps, inputs of one to many features."""
    for kind, seed in itertools.product(KINDS, range(1 if quick else 2)):
        for op_type, (steps, features) in itertools.product(ALL, SIZES[:2] if quick else SIZES):
            yield _case(op_type, kind, seed, steps, features)


SIZES = ((1, 3), (6, 16), (12, 64), (40, 8), (3, 576))
HIDDEN = 8


def _case(op_type: str, kind: str, seed: int, steps: int, features: int) -> Case:
    gates = GATES[op_type]
    x = tensor(kind, (steps, 3, features), seed)
    level = F(1 / np.sqrt(features))
    w = tensor(kind, (1, gates * HIDDEN, features), seed, 1, right=True) * level
    if kind == "wide":
        x, w = np.clip(x, -30, 30), np.clip(w, -1, 1)
    rng = np.random.default_rng([seed, steps, features])
    r = (0.3 * rng.standard_normal((1, gates * HIDDEN, HIDDEN))).astype(F)
    b = (0.2 * rng.standard_normal((1, 2 * gates * HIDDEN))).astype(F)
    h = (0.5 * rng.standard_normal((1, 3, HIDDEN))).astype(F)
    attributes: dict[str, Any] = {"hidden_size": HIDDEN}
    if op_type == "GRU":
        attributes["linear_before_reset"] = seed % 2
    inputs = (x, w, r, b, None, h, *((h * F(0.7),) if op_type == "LSTM" else ()))
    return Case(op_type, inputs, attributes, kind, features, opset=22, weights=(1, 2, 3))


FAMILY = Family(
    "recurrent",
    cases,
    run,
    (
        Variant("blocked products", lambda case: run(case, RIGHT, blocked)),
        Variant("sequential products", lambda case: run(case, RIGHT, sequential)),
    ),
    (*faults(faulty, *FAULTS), *tampered(run)),
)
