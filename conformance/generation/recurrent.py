"""RNN, GRU, LSTM."""

from __future__ import annotations

from typing import Any

import numpy as np

from .drawing import Draw, NodeCall
from .registry import strategy

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
FUNCTIONS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
PLAIN = ("Tanh", "Sigmoid", "Relu", "Softsign", "Softplus")
"""Activations without parameters; those with a jump are left out, where rounding decides."""

PARAMETERS: dict[str, tuple[tuple[float, float] | None, tuple[float, float] | None]] = {
    "LeakyRelu": ((0.01, 0.5), None),
    "Elu": ((0.5, 1.5), None),
    "HardSigmoid": ((0.1, 0.5), (0.2, 0.6)),
    "Affine": ((0.25, 0.75), (-0.5, 0.5)),
    "ScaledTanh": ((0.5, 1.5), (0.5, 1.0)),
}
"""By activation the ranges of its alpha and beta, None where it has none."""

VALUES = ("unit", "normal", "ties")


def _activations(d: Draw, directions: int) -> dict[str, Any]:
    count = len(FUNCTIONS[d.op_type]) * directions
    if not d.rarely(3):
        return {"activations": list(FUNCTIONS[d.op_type]) * directions} if d.boolean() else {}
    chosen = [d.choice((*PLAIN, *PARAMETERS)) for _ in range(count)]
    if d.boolean() and not any(name in PARAMETERS for name in chosen):
        return {"activations": chosen}
    alpha, beta = [], []
    for name in chosen:
        first, second = PARAMETERS.get(name, (None, None))
        alpha += [d.real(*first)] if first else []
        beta += [d.real(*second)] if second else []
    found: dict[str, Any] = {"activations": chosen}
    return {**found, **({"activation_alpha": alpha} if alpha else {}), **({"activation_beta": beta} if beta else {})}


@strategy("RNN", "GRU", "LSTM")
def recurrent(d: Draw) -> NodeCall:
    dtype = d.dtype("T")
    gates = GATES[d.op_type]
    steps, batch, size, hidden = (
        d.choice((3, 1, 2, 5, 8)),
        d.choice((2, 1, 3)),
        d.choice((3, 1, 2, 5)),
        d.choice((4, 1, 2, 3, 8)),
    )
    direction = d.choice(("forward", "reverse", "bidirectional"))
    directions = 2 if direction == "bidirectional" else 1
    layout = d.integer(0, 1) if d.opset >= 14 and d.rarely(4) else 0
    x = d.tensor((batch, steps, size) if layout else (steps, batch, size), dtype, VALUES)
    w = d.tensor((directions, gates * hidden, size), dtype, VALUES)
    r = d.tensor((directions, gates * hidden, hidden), dtype, VALUES)
    b = d.tensor((directions, 2 * gates * hidden), dtype, VALUES) if d.boolean() else None
    lengths = None
    if d.boolean():
        rng = np.random.default_rng(d.integer(0, 1 << 31))
        lengths = rng.integers(1, steps, batch, endpoint=True).astype(np.int32)
    state = (batch, directions, hidden) if layout else (directions, batch, hidden)
    first = d.tensor(state, dtype, VALUES) if d.boolean() else None
    inputs = [x, w, r, b, lengths, first]
    options: dict[str, Any] = {"hidden_size": hidden, "direction": direction, **_activations(d, directions)}
    if layout:
        options["layout"] = 1
    if d.rarely(4):
        options["clip"] = d.real(0.25, 3.0)
    if d.op_type == "GRU":
        options |= d.attributes(linear_before_reset=lambda: d.integer(0, 1))
    if d.op_type == "LSTM":
        inputs.append(d.tensor(state, dtype, VALUES) if d.boolean() else None)
        inputs.append(d.tensor((directions, 3 * hidden), dtype, VALUES) if d.boolean() else None)
        options |= d.attributes(input_forget=lambda: d.integer(0, 1)) if d.rarely(3) else {}
    outputs: list[Any] = [dtype if d.boolean() else None, dtype, *([dtype] if d.op_type == "LSTM" else [])]
    return d.call(inputs, options, outputs=outputs, parameters=(1, 2, 3, 7))
