"""A run of nodes of a model as a model of its own, fed with the tensors that cross its border."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from .evaluation import captured_names
from .memory import tensor_sizes
from .model import Model, Node
from .surgery import provide, save_proto


def crossing_names(nodes: Sequence[Node]) -> list[str]:
    """Tensors that the nodes read and none of them computes, in order of first use."""
    computed = {name for node in nodes for name in node.outputs}
    read = [name for node in nodes for name in sorted(captured_names(node))]
    return [name for name in dict.fromkeys(read) if name not in computed]


def segment_model(
    model: Model, nodes: Sequence[Node], values: Mapping[str, Any], destination: Path, *, standalone: bool = False
) -> Path:
    """Write a model of some nodes that returns everything that they compute.

    Args:
        model: the model that the nodes are from.
        nodes: nodes of its main graph, in order.
        values: stored tensors by name; those that the nodes read become inputs, the rest stay initializers.
        destination: the .onnx file to write.
        standalone: as in `surgery.save_proto`.

    Returns:
        `destination`.

    Raises:
        InvalidArgumentError: a node reads a tensor that is neither given nor stored.
    """
    protos = {node.name: node for node in model.proto.graph.node}
    part = onnx.ModelProto(ir_version=model.proto.ir_version, opset_import=model.proto.opset_import)
    part.graph.name = f"{nodes[0].name} to {nodes[-1].name}"
    part.graph.node.extend(protos[node.name] for node in nodes)
    for name in crossing_names(nodes):
        provide(part, name, model, values)
    declared = {value.name: value for value in (*model.proto.graph.value_info, *model.proto.graph.output)}
    for name in (name for node in nodes for name in node.outputs if name):
        part.graph.output.add(name=name)
        if name in declared:
            part.graph.output[-1].type.CopyFrom(declared[name].type)
    return save_proto(part, model.path, destination, standalone=standalone)


def split_by_memory(model: Model, shapes: Mapping[str, Sequence[int]], budget_bytes: int) -> list[tuple[Node, ...]]:
    """Consecutive nodes whose outputs together stay within a budget; one node may exceed it alone."""
    sizes = tensor_sizes(model, shapes)
    segments: list[tuple[Node, ...]] = []
    current: list[Node] = []
    used = 0
    for node in model.graph.nodes:
        size = sum(sizes.get(name, 0) for name in node.outputs)
        if current and used + size > budget_bytes:
            segments.append(tuple(current))
            current, used = [], 0
        current.append(node)
        used += size
    return [*segments, tuple(current)] if current else segments
