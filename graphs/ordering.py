"""Order the nodes of a graph so that everything is computed before it is read; name what is undefined or in a cycle."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import onnx

from ..errors import InvalidModelError


def subgraphs(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """The subgraphs of a node with the name of the attribute that holds each."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.name, attribute.g
        for index, graph in enumerate(attribute.graphs):
            yield f"{attribute.name}[{index}]", graph


def label(node: onnx.NodeProto) -> str:
    """How messages name a node: 'Conv_0' (Conv)."""
    return f"{node.name!r} ({node.op_type})"


def sort_graph(graph: onnx.GraphProto) -> None:
    """Sort the nodes of a main graph and of its subgraphs in place; the order of the file stays where it is right.

    Raises:
        InvalidModelError: a tensor is defined twice or nowhere, or nodes form a cycle; the message names them.
    """
    for name, reader in _sort(graph).items():
        raise InvalidModelError(f"{reader} reads {name!r}, which no node, input or initializer defines")


def _sort(graph: onnx.GraphProto) -> dict[str, str]:
    """Sort; return what is read from outside by name, with who reads it."""
    given = _given(graph)
    producers = _producers(graph, given)
    reads = [reads_of(node) for node in graph.node]
    outside = {name: who for read in reads for name, who in read.items() if name not in given and name not in producers}
    for output in graph.output:
        if output.name not in given and output.name not in producers:
            outside.setdefault(output.name, f"the output list of graph {graph.name!r}")
    sources = [sorted({producers[name] for name in read if name in producers}) for read in reads]
    if any(source >= index for index, found in enumerate(sources) for source in found):
        _reorder(graph, _topological(graph, sources))
    return outside


def _given(graph: onnx.GraphProto) -> set[str]:
    inputs = [value.name for value in graph.input]
    stored = [tensor.name for tensor in graph.initializer]
    stored += [sparse.values.name for sparse in graph.sparse_initializer]
    for names, what in ((inputs, "input"), (stored, "initializer")):
        seen: set[str] = set()
        for name in names:
            if not name:
                raise InvalidModelError(f"graph {graph.name!r} has an {what} without a name")
            if name in seen:
                raise InvalidModelError(f"graph {graph.name!r} has two {what}s named {name!r}")
            seen.add(name)
    return {*inputs, *stored}


def _producers(graph: onnx.GraphProto, given: set[str]) -> dict[str, int]:
    """Index of the node that computes each tensor."""
    producers: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in producers:
                other = label(graph.node[producers[name]])
                raise InvalidModelError(f"{name!r} is an output of both {other} and {label(node)}")
            if name in given:
                raise InvalidModelError(f"{name!r} is an output of {label(node)} and an input or initializer as well")
            producers[name] = index
    return producers


def reads_of(node: onnx.NodeProto) -> dict[str, str]:
    """The names that a node reads, its subgraphs' captures among them, each with who reads it; sorts the subgraphs."""
    reads = {name: f"node {label(node)}" for name in node.input if name}
    for _, graph in subgraphs(node):
        for name, reader in _sort(graph).items():
            reads.setdefault(name, reader)
    return reads


def _topological(graph: onnx.GraphProto, sources: list[list[int]]) -> list[int]:
    """Kahn's algorithm, always the ready node that comes first in the file."""
    readers: list[list[int]] = [[] for _ in sources]
    for index, found in enumerate(sources):
        for source in found:
            readers[source].append(index)
    waiting = [len(found) for found in sources]
    ready = [index for index, count in enumerate(waiting) if not count]
    order: list[int] = []
    while ready:
        order.append(heapq.heappop(ready))
        for reader in readers[order[-1]]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(sources):
        cycle = " -> ".join(label(graph.node[index]) for index in _cycle(sources, waiting))
        raise InvalidModelError(f"its nodes form a cycle: {cycle}")
    return order


def _cycle(sources: list[list[int]], waiting: list[int]) -> list[int]:
    """A cycle among the nodes that still wait, from a node back to itself."""
    path = [next(index for index, count in enumerate(waiting) if count)]
    position = {path[0]: 0}
    while True:
        path.append(next(source for source in sources[path[-1]] if waiting[source]))
        if path[-1] in position:
            return path[position[path[-1]] :][::-1]
        position[path[-1]] = len(path) - 1


def _reorder(graph: onnx.GraphProto, order: list[int]) -> None:
    nodes = list(graph.node)
    graph.ClearField("node")
    graph.node.extend(nodes[index] for index in order)
