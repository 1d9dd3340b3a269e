"""From which parameters of the module every initializer of the graph comes, and through what.

Translation and optimisation transpose weights, fold normalisations into convolutions and compute constants. A graph
that keeps the name `conv1.weight` for other values would take a new checkpoint and be wrong in silence; so what is not
the parameter itself does not keep its name, and the manifest says what became of each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

IDENTITY = "identity"
TRANSPOSED = "transposed"
COMPUTED = "computed"

SHAPE_OPERATORS = frozenset({"CastLike", "Concat", "Constant", "Expand", "Gather", "Shape", "Slice", "Squeeze"})
"""Operators that only fit shapes and types together: nothing is said by naming them."""


@dataclass(frozen=True)
class Origin:
    """Where an initializer comes from.

    Attributes:
        transform: "identity" (bit for bit the parameter), "transposed", or "computed" (folded, reshaped, cast).
        parameters: the module's parameters and buffers that went into it; none for a constant.
        operators: ONNX operators that were computed at export.
    """

    transform: str
    parameters: tuple[str, ...]
    operators: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """A graph before optimisation: what makes each value, and the initializers' values.

    Attributes:
        producers: operator and inputs by the name of the value.
        initializers: by name.
    """

    producers: Mapping[str, tuple[str, tuple[str, ...]]]
    initializers: Mapping[str, ir.TensorProtocol]


def take_snapshot(graph: ir.Graph) -> Snapshot:
    """What is needed to trace initializers of the optimised graph back; no data are copied."""
    producers = {
        value.name: (node.op_type, tuple(item.name for item in node.inputs if item is not None and item.name))
        for node in graph
        for value in node.outputs
        if value.name
    }
    values = {name: value.const_value for name, value in graph.initializers.items() if value.const_value is not None}
    return Snapshot(producers, values)


def trace_origins(graph: ir.Graph, before: Snapshot) -> dict[str, Origin]:
    """The origin of every initializer of an optimised graph."""
    alive = {value.name for node in graph for value in node.outputs} | {value.name for value in graph.inputs}
    return {name: _origin(value, before, alive) for name, value in graph.initializers.items()}


def _origin(value: ir.Value, before: Snapshot, alive: set[str | None]) -> Origin:
    name, tensor = value.name or "", value.const_value
    kept = before.initializers.get(name)
    if kept is not None and tensor is not None and _same(kept, tensor):
        return Origin(IDENTITY, (name,))
    roots = (
        [name] if name in before.producers else [out.name or "" for node in value.consumers() for out in node.outputs]
    )
    parameters, operators = _slice(roots, before, alive)
    if operators == {"Transpose"} and len(parameters) == 1 and _is_transposed(before, next(iter(parameters)), tensor):
        return Origin(TRANSPOSED, tuple(parameters), ("Transpose",))
    return Origin(COMPUTED, tuple(sorted(parameters)), tuple(sorted(operators - SHAPE_OPERATORS)))


def _is_transposed(before: Snapshot, parameter: str, tensor: ir.TensorProtocol | None) -> bool:
    return tensor is not None and np.array_equal(before.initializers[parameter].numpy().T, tensor.numpy())


def _same(kept: ir.TensorProtocol, tensor: ir.TensorProtocol) -> bool:
    return kept is tensor or (
        kept.dtype == tensor.dtype and kept.shape == tensor.shape and np.array_equal(kept.numpy(), tensor.numpy())
    )


def _slice(roots: Iterable[str], before: Snapshot, alive: set[str | None]) -> tuple[set[str], set[str]]:
    """Initializers and operators on the way back from `roots` to values that the optimised graph still computes."""
    parameters, operators, seen = set[str](), set[str](), set[str]()
    stack = list(roots)
    while stack:
        name = stack.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in before.initializers:
            parameters.add(name)
        elif name in before.producers:
            op_type, inputs = before.producers[name]
            operators.add(op_type)
            stack.extend(item for item in inputs if item not in alive)
    return parameters, operators


def rename_initializers(graph: ir.Graph, origins: Mapping[str, Origin]) -> dict[str, Origin]:
    """Give every initializer that is no longer its parameter a name that says so: `fc.weight_transposed`.

    Returns:
        The origins under the new names.
    """
    taken = {value.name for node in graph for value in (*node.inputs, *node.outputs) if value is not None}
    renamed: dict[str, Origin] = {}
    for value in list(graph.initializers.values()):
        origin = origins[value.name or ""]
        new = _name(value.name or "", origin)
        if new != value.name:
            new = next(name for name in _numbered(new) if name not in taken)
            taken.add(new)
            value.name = new
        renamed[new] = origin
    return renamed


def _name(name: str, origin: Origin) -> str:
    if origin.transform == TRANSPOSED:
        return f"{origin.parameters[0]}_transposed"
    if origin.transform == COMPUTED and origin.parameters:
        stem = re.sub(r"weight_bias$", "bias", name)
        known = any(parameter.rpartition(".")[0] == stem.rpartition(".")[0] for parameter in origin.parameters)
        return f"{stem if known and '.' in stem else origin.parameters[0]}_folded"
    return name


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 1
    while True:
        yield f"{name}_{number}"
        number += 1


def unused_parameters(names: Iterable[str], origins: Mapping[str, Origin]) -> list[str]:
    """Parameters and buffers of the module that went into nothing."""
    used = {parameter for origin in origins.values() for parameter in origin.parameters}
    return sorted(set(names) - used)
