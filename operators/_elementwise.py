"""What element-wise operators share: how old opsets spelt them, and the scales of functions that round a few times."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from .registry import Kernel, kernel
from .scale import Array, Rule, Scale, ScaleFunction

ONCE = 1 + 2.0**-13
"""|z| of one correctly rounded operation on a type with at most 23 fraction bits.

Rounding to nearest errs by half a unit: |z| <= 1. float16 and bfloat16 are computed in float32 and rounded again: the
first rounding errs by 2^−24·|r|, which is 2^(p−23) half-units of a p-bit type: 2^−13 for float16, 2^−16 for bfloat16.
"""

Function = Callable[..., Any]


def undetermined(unknown: Array | np.bool_ | bool) -> Scale:
    """Exact, except where the specification leaves the value open: there `terms` is infinite and nothing is judged.

    Args:
        unknown: bool, broadcastable to the output; True where any value conforms.
    """
    return Scale(np.zeros(()), np.where(unknown, np.inf, 0.0), Rule.EXACT)


def once_rounded(y: Array, /, *_inputs: Array | None, **_attributes: object) -> Scale:
    """Correctly rounded in any float type (IEEE 754), with a second rounding where float32 computes for a narrower
    type; exact on integers."""
    return bounded(y, np.abs(y), ONCE)


def bounded(y: Array, magnitude: Array, terms: float | Array) -> Scale:
    """|z| <= `terms` at `magnitude` for a float output, exact for any other."""
    if y.dtype.kind != "f":
        return Scale(np.zeros(()), 0, Rule.EXACT)
    return Scale(magnitude, terms, Rule.ULP)


def relative(terms: float, reason: str) -> ScaleFunction:
    """The scale of a function whose implementations err by at most `terms` half-units of |y|; `reason` documents it."""

    def scale(y: Array, /, *_inputs: Array | None, **_attributes: object) -> Scale:
        return bounded(y, np.abs(y), terms)

    scale.__doc__ = reason
    return scale


def with_consumed_inputs(function: Kernel) -> Kernel:
    """The same kernel as opset 1 spelt it: `consumed_inputs`, a hint for computing in place, changes no value."""

    def legacy(*inputs: Any, consumed_inputs: Sequence[int] | None = None, **attributes: Any) -> Any:
        del consumed_inputs
        return function(*inputs, **attributes)

    signature = inspect.signature(function)
    hint = inspect.Parameter("consumed_inputs", inspect.Parameter.KEYWORD_ONLY, default=None)
    parameters = [*signature.parameters.values(), hint]
    legacy.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportFunctionMemberAccess]
    legacy.__doc__ = function.__doc__
    return legacy


def broadcast_limited(a: Array, b: Array, axis: int | None, broadcast: int) -> Array:
    """`b` shaped so that NumPy broadcasting does what opsets 1 to 6 mean by `axis` and `broadcast`.

    Args:
        a: (d0, …, dn), the shape of the result.
        b: without `broadcast` of the same shape; else one element, or a contiguous run of a's dimensions. A dimension
            of one within that run, which "doesn't work yet" by the text, is spread, as ONNX's own test data want it.
        axis: where that run starts; None aligns it with the last dimensions; negative counts from the end.
        broadcast: 1 allows the shapes to differ.

    Raises:
        InvalidInputError: `b` does not fit.
    """
    if a.shape == b.shape:
        return b
    if b.size == 1 and b.ndim <= a.ndim and broadcast:
        return b.reshape(())
    start = a.ndim - b.ndim if axis is None else axis + a.ndim * (axis < 0)
    run = a.shape[start : start + b.ndim] if start >= 0 else ()
    if not broadcast or len(run) != b.ndim or any(n not in (1, m) for n, m in zip(b.shape, run, strict=True)):
        raise InvalidInputError(f"shape {b.shape} does not fit {a.shape} with broadcast={broadcast}, axis={axis}")
    return b.reshape(b.shape + (1,) * (a.ndim - start - b.ndim))


def register_unary(op_type: str, function: Function, scale: ScaleFunction, *, since: int = 1, domain: str = "") -> None:
    """Register `function(x)` since an opset; where that is 1, with `consumed_inputs` until 6."""

    def unary(x: Array, /) -> Array:
        return np.asarray(function(x))

    unary.__doc__ = f"{op_type}: `{getattr(function, '__name__', op_type)}` of every element of `x`, of any shape."
    if since == 1:
        kernel(op_type, since=1, domain=domain, scale=scale)(with_consumed_inputs(unary))
    kernel(op_type, since=6 if since == 1 else since, domain=domain, scale=scale)(unary)


def register_binary(op_type: str, function: Function, scale: ScaleFunction, *, since: Iterable[int] = (1, 7)) -> None:
    """Register `function(a, b)`: since 1 and 6 with the limited broadcasting of that time, from 7 with NumPy's.

    Args:
        op_type: the operator.
        function: of two arrays that NumPy broadcasts.
        scale: takes (y, a, b).
        since: which of 1 (with `consumed_inputs` if 6 is there too), 6 and later the operator has.
    """

    def binary(a: Array, b: Array, /) -> Array:
        return np.asarray(function(a, b))

    def limited(a: Array, b: Array, /, *, axis: int | None = None, broadcast: int = 0) -> Array:
        return binary(a, broadcast_limited(a, b, axis, broadcast))

    def limited_scale(y: Array, a: Array, b: Array, /, *, axis: int | None = None, broadcast: int = 0) -> Any:
        return scale(y, a, broadcast_limited(a, b, axis, broadcast))

    versions = tuple(since)
    binary.__doc__ = f"{op_type}: `{getattr(function, '__name__', op_type)}` of `a` and `b`, broadcast to each other."
    limited.__doc__ = f"{op_type}: as from opset 7, with `b` broadcast to `a` at `axis` if asked."
    for version in versions:
        old = with_consumed_inputs(limited) if version == 1 and 6 in versions else limited
        kernel(op_type, since=version, scale=limited_scale if version < 7 else scale)(old if version < 7 else binary)


def axis_index(op_type: str, axis: int, rank: int) -> int:
    """`axis` counted from the front.

    Raises:
        InvalidAttributeError: outside [-rank, rank).
    """
    if not -rank <= axis < rank:
        raise InvalidAttributeError(f"{op_type}: axis={axis} is outside [{-rank}, {rank})")
    return axis % rank
