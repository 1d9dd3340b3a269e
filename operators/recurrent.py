"""RNN, GRU and LSTM.

The kernels run `_recurrence` on arrays, the scales run the very same steps on `_tracked.Tracked` values: every gate
adds the rounding of its sum of products and of its activation, and passes on what the states bring: δh through the
recurrence weights R and the slope of the activation, δc through the forget gate and the peepholes. The magnitude of an
output is its propagated standard deviation, squares added up through R², so that it does not grow where the recurrence
itself forgets; the certain bound (through |R|) stands in `terms` as a multiple of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._recurrence import STEPS, Settings, Stored, prepared, run
from ._tracked import scale_of, track
from .registry import Kernel, kernel
from .scale import Array, Scale, ScaleFunction


def _outputs(
    settings: Settings, inputs: Sequence[Array | None], stored: Stored, output_count: int
) -> tuple[Array, ...]:
    return tuple(run(settings, prepared(settings, inputs, stored), lambda x: x))[:output_count]


def _scale(op_type: str) -> ScaleFunction:
    def scale(
        _y: Any, /, *inputs: Array | None, stored: Stored, output_count: int, **attributes: Any
    ) -> tuple[Scale, ...]:
        """COMPOSED; what lies beyond the end of a sequence, and the last state of one without a step, is not specified
        and left open."""
        settings = Settings(op_type=op_type, **attributes)
        given = prepared(settings, inputs, stored)
        y, *states = run(settings, given, track)
        beyond = np.arange(given.x.shape[0])[:, None] >= given.lengths  # (T, B)
        unknown = beyond.T[:, :, None, None] if settings.layout else beyond[:, None, :, None]
        empty = given.lengths == 0  # (B,)
        without = empty[:, None, None] if settings.layout else empty[:, None]
        found = (scale_of(y, given.format, unknown), *(scale_of(state, given.format, without) for state in states))
        return found[:output_count]

    return scale


rnn_scale, gru_scale, lstm_scale = (_scale(op_type) for op_type in STEPS)


@kernel("RNN", since=14, scale=rnn_scale)
def rnn(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    /,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] = ("Tanh", "Tanh"),
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    stored: Stored,
    output_count: int,
) -> tuple[Array, ...]:
    """Simple recurrence: Ht = f(Xt·Wᵀ + Ht−1·Rᵀ + Wb + Rb).

    Args:
        x: (T, B, input), or (B, T, input) with layout 1.
        w: (directions, H, input).
        r: (directions, H, H).
        b: (directions, 2·H): Wb, then Rb; None: 0.
        sequence_lens: (B,), None: all T.
        initial_h: (directions, B, H), or (B, directions, H); None: 0.
        activation_alpha: parameters of those activations that have one, in order; so is `activation_beta`.
        activations: f of each direction.
        clip: bound of what enters an activation.
        direction: forward, reverse or bidirectional.
        hidden_size: H, checked.
        layout: 1 has the batch first.

    Returns:
        Y: (T, directions, B, H), zero beyond the end of a sequence; Y_h: (directions, B, H); the batch first with
        layout 1.

    Raises:
        InvalidInputError: shapes that do not go together.
        InvalidAttributeError: an unknown direction or activation.

    Spec: RNN, since 14
    """
    settings = Settings(
        op_type="RNN",
        activation_alpha=activation_alpha,
        activation_beta=activation_beta,
        activations=activations,
        clip=clip,
        direction=direction,
        hidden_size=hidden_size,
        layout=layout,
    )
    return _outputs(settings, (x, w, r, b, sequence_lens, initial_h), stored, output_count)


@kernel("GRU", since=14, scale=gru_scale)
def gru(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    /,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
    stored: Stored,
    output_count: int,
) -> tuple[Array, ...]:
    """Gated recurrent unit; arguments and results as for `rnn`, gates in the order z, r, h.

    Args:
        w: (directions, 3·H, input); r: (directions, 3·H, H); b: (directions, 6·H).
        activations: f and g of each direction, Sigmoid and Tanh by default.
        linear_before_reset: multiply by the reset gate after the linear transformation, not before.

    Spec: GRU, since 14. Paper: https://arxiv.org/abs/1406.1078
    """
    settings = Settings(
        op_type="GRU",
        activation_alpha=activation_alpha,
        activation_beta=activation_beta,
        activations=activations,
        clip=clip,
        direction=direction,
        hidden_size=hidden_size,
        layout=layout,
        linear_before_reset=linear_before_reset,
    )
    return _outputs(settings, (x, w, r, b, sequence_lens, initial_h), stored, output_count)


@kernel("LSTM", since=14, scale=lstm_scale)
def lstm(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    p: Array | None = None,
    /,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
    stored: Stored,
    output_count: int,
) -> tuple[Array, ...]:
    """Long short-term memory; arguments and results as for `rnn`, gates in the order i, o, f, c; Y_c is third.

    Args:
        w: (directions, 4·H, input); r: (directions, 4·H, H); b: (directions, 8·H).
        initial_c: as `initial_h`.
        p: peepholes (directions, 3·H) in the order i, o, f.
        activations: f, g and h of each direction, Sigmoid, Tanh and Tanh by default.
        input_forget: couple the gates: f = 1 − i.

    Spec: LSTM, since 14. Paper: https://arxiv.org/abs/1402.1128
    """
    settings = Settings(
        op_type="LSTM",
        activation_alpha=activation_alpha,
        activation_beta=activation_beta,
        activations=activations,
        clip=clip,
        direction=direction,
        hidden_size=hidden_size,
        input_forget=input_forget,
        layout=layout,
    )
    return _outputs(settings, (x, w, r, b, sequence_lens, initial_h, initial_c, p), stored, output_count)


def _older(function: Kernel, without: Sequence[str], **defaults: Any) -> Kernel:
    """The same kernel as an older opset had it: without some attributes, with others that change no value."""

    def older(*inputs: Array | None, output_sequence: int = 0, **attributes: Any) -> Any:
        del output_sequence
        return function(*inputs, **attributes)

    signature = inspect.signature(function)
    kept = {name: each for name, each in signature.parameters.items() if name not in without}
    for name, value in defaults.items():
        hint = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value)
        kept[name] = kept[name].replace(default=value) if name in kept else hint
    older.__signature__ = signature.replace(parameters=list(kept.values()))  # pyright: ignore[reportFunctionMemberAccess]
    older.__doc__ = function.__doc__
    return older


for _op_type, _function, _bound in (("RNN", rnn, rnn_scale), ("GRU", gru, gru_scale), ("LSTM", lstm, lstm_scale)):
    _since = 3 if _op_type == "GRU" else 1
    kernel(_op_type, since=_since, scale=_bound)(_older(_function, ["layout"], output_sequence=0))
    kernel(_op_type, since=7, scale=_bound)(_older(_function, ["layout"]))
# The default direction of GRU since 1 is misspelt in the specification.
kernel("GRU", since=1, scale=gru_scale)(
    _older(gru, ["layout", "linear_before_reset"], output_sequence=0, direction="foward")
)
