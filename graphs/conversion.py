"""From protobuf messages that are named and sorted to the frozen `Graph` and `Node`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto

from ..errors import InvalidModelError
from .external import ExternalData
from .memory import available_memory
from .model import Graph, Node
from .tensors import dense_array, tensor_array, tensor_spec, text


def convert_graph(graph: onnx.GraphProto, opsets: Mapping[str, int], external: ExternalData) -> Graph:
    """A graph with its nodes, declared types, weights and subgraphs as frozen data.

    Args:
        graph: named and sorted.
        opsets: version by domain, "" for ai.onnx.
        external: the model's external data.

    Raises:
        InvalidModelError: a weight or a declared type is not usable.
    """
    return Graph(
        name=graph.name,
        nodes=tuple(_node(node, index, opsets, external) for index, node in enumerate(graph.node)),
        inputs=tuple(tensor_spec(value) for value in graph.input),
        outputs=tuple(tensor_spec(value) for value in graph.output),
        initializers=_initializers(graph, external),
    )


def _initializers(graph: onnx.GraphProto, external: ExternalData) -> dict[str, np.ndarray]:
    arrays = {tensor.name: tensor_array(tensor, external) for tensor in graph.initializer}
    for sparse in graph.sparse_initializer:
        arrays[sparse.values.name] = _dense(sparse, external)
    return arrays


def _dense(sparse: onnx.SparseTensorProto, external: ExternalData) -> np.ndarray:
    return dense_array(sparse, external, available_memory() // 2)


def _node(node: onnx.NodeProto, index: int, opsets: Mapping[str, int], external: ExternalData) -> Node:
    domain = plain_domain(node.domain)
    attributes = {}
    for attribute in node.attribute:
        if not attribute.name.startswith("__"):
            try:
                attributes[attribute.name] = _attribute(attribute, opsets, external)
            except InvalidModelError as error:
                raise InvalidModelError(
                    f"node {node.name!r} ({node.op_type}), attribute {attribute.name!r}: {error}"
                ) from error
    return Node(
        name=node.name,
        op_type=node.op_type,
        domain=domain,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes=attributes,
        opset=opsets[domain],
        index=index,
    )


def plain_domain(domain: str) -> str:
    """A domain with the default one written as "", its other name being "ai.onnx"."""
    return "" if domain == "ai.onnx" else domain


def _attribute(attribute: AttributeProto, opsets: Mapping[str, int], external: ExternalData) -> Any:
    convert = _CONVERSIONS.get(attribute.type)
    if convert is None:
        raise InvalidModelError(f"its type {attribute.type} is not one that an attribute may have")
    return convert(attribute, opsets, external)


_Conversion = Callable[[AttributeProto, Mapping[str, int], ExternalData], Any]

_CONVERSIONS: dict[int, _Conversion] = {
    AttributeProto.FLOAT: lambda a, _o, _x: a.f,
    AttributeProto.INT: lambda a, _o, _x: a.i,
    AttributeProto.STRING: lambda a, _o, _x: text(a.s),
    AttributeProto.TENSOR: lambda a, _o, x: tensor_array(a.t, x),
    AttributeProto.GRAPH: lambda a, o, x: convert_graph(a.g, o, x),
    AttributeProto.SPARSE_TENSOR: lambda a, _o, x: _dense(a.sparse_tensor, x),
    AttributeProto.TYPE_PROTO: lambda a, _o, _x: a.tp,
    AttributeProto.FLOATS: lambda a, _o, _x: list(a.floats),
    AttributeProto.INTS: lambda a, _o, _x: list(a.ints),
    AttributeProto.STRINGS: lambda a, _o, _x: [text(item) for item in a.strings],
    AttributeProto.TENSORS: lambda a, _o, x: [tensor_array(item, x) for item in a.tensors],
    AttributeProto.GRAPHS: lambda a, o, x: [convert_graph(item, o, x) for item in a.graphs],
    AttributeProto.SPARSE_TENSORS: lambda a, _o, x: [_dense(item, x) for item in a.sparse_tensors],
    AttributeProto.TYPE_PROTOS: lambda a, _o, _x: list(a.type_protos),
}
"""How each kind of attribute becomes a Python value."""
