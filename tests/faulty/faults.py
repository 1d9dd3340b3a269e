"""What a bad runtime does to a node, by name; every one must be found.

A fault changes the inputs, the attributes or the outputs of the nodes that it touches, or does something worse than
compute. Only float32 tensors are changed, except where noted.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray
Values = list[Any]

DOT = ("MatMul", "Gemm", "Conv")
ANY = ("*",)


@dataclass(frozen=True)
class Fault:
    """One way of being wrong.

    Attributes:
        title: what it does.
        op_types: the nodes that it touches; ("*",) is all. The user may name another op_type.
        inputs: changed inputs of the node.
        attributes: changed attributes of the node.
        outputs: changed outputs, from the outputs, the inputs and the attributes.
        instead: done before the node runs; it need not return.
        result: changed outputs of the whole model, by name.
        only_hidden: it touches only nodes whose outputs nobody sees: all read by other nodes, none a model output.
    """

    title: str
    op_types: tuple[str, ...] = ANY
    inputs: Callable[[str, Values, Mapping[str, Any]], Values] | None = None
    attributes: Callable[[dict[str, Any], Values], dict[str, Any]] | None = None
    outputs: Callable[[Values, Values, Mapping[str, Any]], Values] | None = None
    instead: Callable[[], None] | None = None
    result: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    only_hidden: bool = False


def is_float32(value: Any) -> bool:
    return isinstance(value, Array) and value.dtype == np.float32


def round_mantissa(x: Array, dropped: int) -> Array:
    """float32 values with their last `dropped` fraction bits rounded away, to nearest, ties to even."""
    bits = x.view(np.uint32).astype(np.uint64)
    half = np.uint64((1 << (dropped - 1)) - 1)
    odd = (bits >> np.uint64(dropped)) & np.uint64(1)
    mask = np.uint64(0xFFFFFFFF & ~((1 << dropped) - 1))
    rounded = ((bits + half + odd) & mask).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(x), rounded, x)


def rounds_inputs(dropped: int) -> Callable[[str, Values, Mapping[str, Any]], Values]:
    return lambda _op_type, inputs, _attributes: [round_mantissa(x, dropped) if is_float32(x) else x for x in inputs]


def drop_last_product(op_type: str, inputs: Values, attributes: Mapping[str, Any]) -> Values:
    """The last of the K summed products is missing: a MatMul's last row of weights, a Conv's last tap, are zero."""
    weights = inputs[1].copy()
    if op_type == "Conv":
        weights[(slice(None), *[-1] * (weights.ndim - 1))] = 0  # (M, C / group, k…)
    elif weights.ndim == 1 or attributes.get("transB", 0):
        weights[..., -1] = 0
    else:
        weights[..., -1, :] = 0
    return [inputs[0], weights, *inputs[2:]]


def off_element(relative: float) -> Callable[[Values, Values, Mapping[str, Any]], Values]:
    """The element of median size is off by `relative` of itself."""

    def change(outputs: Values, _inputs: Values, _attributes: Mapping[str, Any]) -> Values:
        y = outputs[0].copy()
        index = np.argsort(np.abs(y), axis=None)[y.size // 2]
        y.flat[index] *= np.float32(1 + relative)
        return [y, *outputs[1:]]

    return change


def shift_window(_op_type: str, inputs: Values, _attributes: Mapping[str, Any]) -> Values:
    x = inputs[0]
    return [np.concatenate([x[..., 1:], x[..., -1:]], axis=-1), *inputs[1:]]


def other_axis(attributes: dict[str, Any], inputs: Values) -> dict[str, Any]:
    rank = inputs[0].ndim
    return {**attributes, "axis": (attributes.get("axis", -1) - 1) % rank}


def add_bias_again(outputs: Values, inputs: Values, attributes: Mapping[str, Any]) -> Values:
    if len(inputs) < 3 or inputs[2] is None:
        return outputs
    y, bias = outputs[0], inputs[2]
    if y.ndim > 2:  # Conv: (N, M, …); Gemm's bias broadcasts as it is
        bias = bias.reshape(-1, *[1] * (y.ndim - 2))
    return [(y + np.float32(attributes.get("beta", 1.0)) * bias).astype(y.dtype)]


def each_float(change: Callable[[Array], Array]) -> Callable[[Values, Values, Mapping[str, Any]], Values]:
    def changed(outputs: Values, _inputs: Values, _attributes: Mapping[str, Any]) -> Values:
        return [change(y) if is_float32(y) else y for y in outputs]

    return changed


def first_input(outputs: Values, inputs: Values, _attributes: Mapping[str, Any]) -> Values:
    return [inputs[0] if np.shape(inputs[0]) == np.shape(outputs[0]) else outputs[0], *outputs[1:]]


def each_result(change: Callable[[Array], Array]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda results: {name: change(y) if is_float32(y) else y for name, y in results.items()}


class Stale:
    """Returns what the run before returned; the first run is right."""

    def __init__(self) -> None:
        self._before: dict[str, Any] = {}

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        stale = {name: self._before.get(name, value) for name, value in results.items()}
        self._before.update(results)
        return stale


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    while True:
        time.sleep(60)


def exhaust_memory() -> None:
    np.empty(1 << 60, np.uint8)


def leave() -> None:
    print("the runtime gives up", file=sys.stderr, flush=True)
    os._exit(3)


def fail() -> None:
    raise RuntimeError("the runtime raised this")


def refuse() -> None:
    raise NotImplementedError("the runtime does not implement this")


def make_noise() -> None:
    """Garbage on standard output, from Python and from below it, and a lot on standard error."""
    print("garbage", flush=True)
    os.write(1, b"\x00\xff garbage \n" * 1000)
    os.write(2, b"warning\n" * 100_000)


DIES: Mapping[str, Callable[[], None]] = {
    "crash": crash,
    "killed": be_killed,
    "hang": hang,
    "out_of_memory": exhaust_memory,
    "exit": leave,
    "raise": fail,
    "not_implemented": refuse,
}


def make_faults() -> dict[str, Fault]:
    """Every fault by name, fresh (some remember the run before)."""
    return {
        "none": Fault("computes correctly", op_types=()),
        "noise": Fault("prints garbage, computes correctly", instead=make_noise),
        "drop_product": Fault("forgets the last of the summed products", DOT, inputs=drop_last_product),
        "tf32_inputs": Fault("rounds inputs to 10 fraction bits", (*DOT, "Einsum"), inputs=rounds_inputs(13)),
        "bf16_inputs": Fault("rounds inputs to 7 fraction bits", (*DOT, "Einsum"), inputs=rounds_inputs(16)),
        "off_element": Fault("one element off by 1e-3 of itself", ("Conv",), outputs=off_element(1e-3)),
        "shifted_window": Fault("pools one place further on", ("MaxPool",), inputs=shift_window),
        "wrong_axis": Fault("works along the axis before", ("Softmax", "LogSoftmax"), attributes=other_axis),
        "bias_twice": Fault("adds the bias twice", ("Gemm", "Conv"), outputs=add_bias_again),
        "nan_to_zero": Fault("turns NaN to zero", outputs=each_float(without_nan)),
        "one_ulp": Fault("one unit in the last place too high", outputs=each_float(one_ulp_up)),
        "returns_input": Fault("returns its input", ("Relu", "Softmax"), outputs=first_input),
        "flush_subnormals": Fault("turns subnormal numbers to zero", outputs=each_float(flush_subnormals)),
        "wrong_dtype": Fault("returns float64", (), result=each_result(lambda y: y.astype(np.float64))),
        "wrong_shape": Fault("returns one axis too many", (), result=each_result(lambda y: y[None])),
        "stale_output": Fault("returns the outputs of the run before", (), result=Stale()),
        "fused_error": Fault(
            "is off by 1e-3 where nobody looks",
            DOT,
            outputs=each_float(lambda y: y * np.float32(1.001)),
            only_hidden=True,
        ),
        **{name: Fault(f"{name} at a node", instead=function) for name, function in DIES.items()},
    }


def without_nan(y: Array) -> Array:
    return np.where(np.isnan(y), np.float32(0), y)


def one_ulp_up(y: Array) -> Array:
    return np.where(np.isfinite(y), np.nextafter(y, np.float32(np.inf)), y)


def flush_subnormals(y: Array) -> Array:
    return np.where(np.abs(y) < np.finfo(np.float32).smallest_normal, np.float32(0), y)


def touches(fault: Fault, op_type: str, op_types: Sequence[str]) -> bool:
    """Whether a fault is for nodes of `op_type`; `op_types`, if any, are those that the user named instead."""
    chosen = tuple(op_types) or fault.op_types
    return "*" in chosen or op_type in chosen
