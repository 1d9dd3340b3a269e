"""Names of nodes: unique and stable, the file's own where it has one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx

from .ordering import subgraphs


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node of a graph and its subgraphs a unique name, in place.

    A name of the file stays at its first node; a later node with the same name gets "_1", "_2", … behind it. A node
    without a name is called by its op_type and its order among the nodes of that op_type in its graph: "Conv_0"; in
    a subgraph "If_0/then_branch/Conv_0".
    """
    taken = {node.name for node in _all_nodes(graph) if node.name}
    _name(graph, "", taken, set())


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for _, subgraph in subgraphs(node):
            yield from _all_nodes(subgraph)


def _name(graph: onnx.GraphProto, prefix: str, taken: set[str], used: set[str]) -> None:
    order: Counter[str] = Counter()
    for node in graph.node:
        wanted = node.name or f"{prefix}{node.op_type}_{order[node.op_type]}"
        order[node.op_type] += 1
        if wanted in used or (not node.name and wanted in taken):
            wanted = _free(wanted, taken, used)
        used.add(wanted)
        node.name = wanted
    for node in graph.node:
        for attribute, subgraph in subgraphs(node):
            _name(subgraph, f"{node.name}/{attribute}/", taken, used)


def _free(wanted: str, taken: set[str], used: set[str]) -> str:
    number = 1
    while f"{wanted}_{number}" in taken or f"{wanted}_{number}" in used:
        number += 1
    return f"{wanted}_{number}"
