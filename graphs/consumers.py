"""Who reads a tensor, and what that says of the values that it may have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .model import Graph, Node

KEEPS_VALUES = frozenset(
    {"Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose", "Expand", "Concat", "Slice", "Tile"}
    | {"Gather", "Split", "Dropout"}
)
"""Operators whose output holds values of their first input (of any, for Concat)."""

CASTS_AND_MOVES = frozenset({"Cast", "Constant", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that every runtime has for every type, so that it has no reason to widen a tensor around them."""

INDICES: Mapping[tuple[str, str], tuple[tuple[int, int], ...]] = {
    ("", "Gather"): ((1, 0),),
    ("", "GatherElements"): ((1, 0),),
    ("", "GatherND"): ((1, 0),),
    ("", "Scatter"): ((1, 0),),
    ("", "ScatterElements"): ((1, 0),),
    ("", "ScatterND"): ((1, 0),),
    ("com.microsoft", "EmbedLayerNormalization"): ((0, 2), (1, 4)),
    ("com.microsoft", "SkipEmbedLayerNormalization"): ((0, 2), (1, 4)),
    ("com.microsoft", "GatherBlockQuantized"): ((1, 0),),
}
"""By domain and operator: positions of an input of indices and of the table that they index."""

ANY_AXIS = frozenset({"GatherND", "ScatterND"})
"""Operators whose indices go through several axes of the table at once."""

SHAPES: Mapping[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
"""By operator of ai.onnx: positions of inputs that decide the shape of the output."""

Shapes = Mapping[str, tuple[int, ...]]
Readers = Mapping[str, list[tuple[Node, int]]]


def all_nodes(graph: Graph) -> Iterator[Node]:
    """The nodes of a graph and of its subgraphs."""
    for node in graph.nodes:
        yield node
        for value in node.attributes.values():
            for subgraph in value if isinstance(value, list) else [value]:
                if isinstance(subgraph, Graph):
                    yield from all_nodes(subgraph)


def _readers(graph: Graph) -> Readers:
    """By tensor, the nodes that read it and at which position."""
    readers: dict[str, list[tuple[Node, int]]] = defaultdict(list)
    for node in all_nodes(graph):
        for position, name in enumerate(node.inputs):
            readers[name].append((node, position))
    return readers


def index_limit(graph: Graph, name: str, shapes: Shapes | None = None) -> int | None:
    """The rows of the smallest table that the values of a tensor index, or None if it indexes none of known size.

    Args:
        graph: the graph.
        name: the tensor.
        shapes: those that are known besides the shapes of weights and constants.
    """
    readers, tables = _readers(graph), {**({} if shapes is None else shapes), **_table_shapes(graph)}
    limits: list[int] = []
    pending, seen = [name], {name}
    while pending:
        for node, position in readers.get(pending.pop(), ()):
            limits += _rows(node, position, tables)
            if node.op_type in KEEPS_VALUES and (position == 0 or node.op_type == "Concat"):
                fresh = [output for output in node.outputs[:1] if output and output not in seen]
                seen.update(fresh)
                pending += fresh
    return min(limits, default=None)


def _table_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Shapes of weights and of constants, also where they are cast or dequantized first."""
    shapes = {name: array.shape for name, array in graph.initializers.items()}
    for node in all_nodes(graph):
        value: Any = node.attributes.get("value")
        if node.op_type == "Constant" and isinstance(value, np.ndarray):
            shapes[node.outputs[0]] = value.shape
        elif node.op_type in ("Cast", "DequantizeLinear", "Identity") and node.inputs[0] in shapes:
            shapes[node.outputs[0]] = shapes[node.inputs[0]]
    return shapes


def _rows(node: Node, position: int, tables: Shapes) -> list[int]:
    found = []
    for indices, table in INDICES.get((node.domain, node.op_type), ()):
        if position == indices and table < len(node.inputs) and node.inputs[table] in tables:
            shape, axis = tables[node.inputs[table]], node.attributes.get("axis", 0)
            axes = range(len(shape)) if node.op_type in ANY_AXIS else [axis]
            found += [shape[axis] for axis in axes if -len(shape) <= axis < len(shape)]
    return found


def moved_only(graph: Graph) -> frozenset[str]:
    """Tensors between which and the graph's inputs and weights lie only casts and movements, at least one cast."""
    moved, cast = set(graph.initializers) | {spec.name for spec in graph.inputs}, set()
    for node in graph.nodes:
        if (
            not node.domain
            and node.op_type in CASTS_AND_MOVES
            and all(not name or name in moved for name in node.inputs)
        ):
            moved.update(node.outputs)
            if node.op_type == "Cast" or any(name in cast for name in node.inputs):
                cast.update(node.outputs)
    return frozenset(cast)


def decides_shapes(graph: Graph, name: str) -> Node | None:
    """A node for which the values of a tensor are a shape, an axis or a count, or None."""
    for node, position in _readers(graph).get(name, ()):
        if node.domain == "" and position in SHAPES.get(node.op_type, ()):
            return node
    return None
