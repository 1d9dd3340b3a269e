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
class Made:
    """A node before optimisation; "" stands for an absent input or output."""

    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, ir.Attr]
    dtype: ir.DataType | None
    """Of the first output, where it is known."""


@dataclass(frozen=True)
class Snapshot:
    """A graph before optimisation: what makes each value, and the initializers' values.

    Attributes:
        producers: the node by the name of the value.
        initializers: by name.
        outputs: names of the graph's outputs.
    """

    producers: Mapping[str, Made]
    initializers: Mapping[str, ir.TensorProtocol]
    outputs: tuple[str, ...]

    def used(self) -> set[str]:
        """The initializers that something in the graph reads on the way to an output."""
        seen: set[str] = set()
        stack = list(self.outputs)
        while stack:
            name = stack.pop()
            if name not in seen:
                seen.add(name)
                stack.extend(self.producers[name].inputs if name in self.producers else ())
        return seen & self.initializers.keys()


def take_snapshot(graph: ir.Graph) -> Snapshot:
    """What is needed to trace initializers of the optimised graph back; no data are copied."""
    producers = {value.name: _made(node) for node in graph for value in node.outputs if value.name}
    values = {name: value.const_value for name, value in graph.initializers.items() if value.const_value is not None}
    return Snapshot(producers, values, tuple(value.name or "" for value in graph.outputs))


def _made(node: ir.Node) -> Made:
    inputs = tuple("" if item is None else item.name or "" for item in node.inputs)
    outputs = tuple(value.name or "" for value in node.outputs)
    dtype = node.outputs[0].dtype if node.outputs else None
    return Made(node.op_type, node.domain, inputs, outputs, dict(node.attributes), dtype)


def part_merged(graph: ir.Graph, before: Snapshot) -> None:
    """Give every parameter its own initializer again where the optimiser merged equal ones.

    Two biases that are both zero are one tensor only until another checkpoint comes.
    """
    for node in graph:
        made = before.producers.get(node.outputs[0].name or "") if node.outputs else None
        if made is None or made.op_type != node.op_type or len(made.inputs) != len(node.inputs):
            continue
        for index, (value, own) in enumerate(zip(node.inputs, made.inputs, strict=True)):
            tensor = before.initializers.get(own)
            if tensor is not None and value is not None and value.name != own and _is_copy(value, tensor):
                node.replace_input_with(index, _own_initializer(graph, own, value, tensor))
    for value in list(graph.initializers.values()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[value.name or ""]


def _own_initializer(graph: ir.Graph, name: str, copy: ir.Value, tensor: ir.TensorProtocol) -> ir.Value:
    if name not in graph.initializers:
        import onnx_ir as ir  # noqa: PLC0415 - heavy

        value = ir.Value(None, name=name, type=copy.type, shape=copy.shape, const_value=tensor)
        graph.register_initializer(value)
    return graph.initializers[name]


def _is_copy(value: ir.Value, tensor: ir.TensorProtocol) -> bool:
    return value.is_initializer() and value.const_value is not None and _same(tensor, value.const_value)


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
            made = before.producers[name]
            operators.add(made.op_type)
            stack.extend(item for item in made.inputs if item and item not in alive)
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


def computed(origins: Mapping[str, Origin]) -> tuple[str, ...]:
    """The initializers that were computed from parameters."""
    return tuple(name for name, origin in origins.items() if origin.transform == COMPUTED and origin.parameters)


def vanished_parameters(used: Iterable[str], origins: Mapping[str, Origin]) -> tuple[str, ...]:
    """Those of the parameters that a graph used before optimisation which went into no initializer of it."""
    kept = {parameter for origin in origins.values() for parameter in origin.parameters}
    return tuple(sorted(set(used) - kept))
