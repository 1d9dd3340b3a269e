"""Copies of a model with more outputs, or with one node only; weights stay in their files."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError
from onnx import GraphProto, ModelProto, NodeProto, TypeProto, ValueInfoProto

from ..errors import InvalidArgumentError, InvalidModelError
from .external import external_slice, tensors_of, uses_external_data
from .model import Model, Node
from .ordering import reads_of, subgraphs
from .tensors import element_type

_INITIALIZERS_ARE_INPUTS_BEFORE = 4
"""IR version from which an initializer need not be listed as an input."""


MOST_EMBEDDED = 1_900_000_000
"""Bytes of weights that a protobuf message, which ends at 2 GiB, has room for beside the graph."""


def save_proto(proto: ModelProto, model_file: Path, destination: Path, *, standalone: bool = False) -> Path:
    """Write a proto that came from a loaded model, with its external data reachable beside it.

    A runtime may refuse external data outside the folder of the model, links resolved; so data files of other folders
    become hard links beside the copy (or copies, where the file system does not link), named after it.

    Args:
        proto: `Model.proto` or a message made of its parts; not changed.
        model_file: `Model.path`, to which the locations in `proto` are relative.
        destination: the .onnx file to write; its folder is created.
        standalone: write no links, which onnx's own loader refuses: weights go into the file, or into copies of the
            data files where they are too large for one message.

    Returns:
        `destination`.

    Raises:
        InvalidModelError: external data are gone, or the message is above what protobuf can write.
    """
    copy = ModelProto()
    copy.CopyFrom(proto)
    destination.parent.mkdir(parents=True, exist_ok=True)
    if standalone and _external_bytes(copy.graph) <= MOST_EMBEDDED:
        _embed_data(copy.graph, model_file)
    elif destination.parent.resolve() != model_file.parent.resolve():
        _link_data(copy.graph, model_file, destination, may_link=not standalone)
    try:
        content = copy.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise InvalidModelError(f"{destination}: larger than a protobuf message can be: {error}") from error
    partial = destination.with_name(f"{destination.name}.partial")
    partial.write_bytes(content)
    partial.replace(destination)
    return destination


def _external_bytes(graph: GraphProto) -> int:
    return sum(
        int(entry.value)
        for tensor in tensors_of(graph)
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "length"
    )


def _embed_data(graph: GraphProto, model_file: Path) -> None:
    for tensor in tensors_of(graph):
        if uses_external_data(tensor):
            where = external_slice(tensor, model_file.parent, model_file=model_file)
            with where.file.open("rb") as file:
                file.seek(where.offset)
                tensor.raw_data = file.read(where.length)
            del tensor.external_data[:]
            tensor.data_location = tensor.DEFAULT


def _link_data(graph: GraphProto, model_file: Path, destination: Path, *, may_link: bool) -> None:
    links: dict[Path, str] = {}
    for tensor in tensors_of(graph):
        if uses_external_data(tensor):
            file = external_slice(tensor, model_file.parent, model_file=model_file).file.resolve()
            name = links.setdefault(file, f"{destination.stem}.data{len(links)}")
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = name
    for file, name in links.items():
        _link(file, destination.with_name(name), may_link=may_link)


def _link(file: Path, target: Path, *, may_link: bool) -> None:
    if target.exists() and target.samefile(file):
        return
    target.unlink(missing_ok=True)
    if not may_link:
        shutil.copyfile(file, target)
        return
    try:
        os.link(file, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(file, target)


def expose(model: Model, tensors: Sequence[str], destination: Path, *, standalone: bool = False) -> Path:
    """Write a copy of a model that returns intermediate tensors as well.

    Args:
        model: a loaded model.
        tensors: names of outputs of nodes of the main graph; those that are outputs already are taken as they are.
        destination: the .onnx file to write.
        standalone: as in `save_proto`.

    Returns:
        `destination`: the outputs of the model come first, then `tensors` in their order.

    Raises:
        InvalidArgumentError: no node of the main graph computes a tensor of that name.
    """
    computed = {name for node in model.graph.nodes for name in node.outputs if name}
    present = {value.name for value in model.proto.graph.output}
    fresh = [name for name in dict.fromkeys(tensors) if name not in present]
    for name in fresh:
        if name not in computed:
            near = difflib.get_close_matches(name, computed, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidArgumentError(f"no node of the main graph computes {name!r}{hint}")
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    types = {name: _without_shape(declared) for name, declared in _inferred_types(model.proto).items()}
    proto.graph.output.extend(ValueInfoProto(name=name, type=types.get(name)) for name in fresh)
    return save_proto(proto, model.path, destination, standalone=standalone)


def _inferred_types(proto: ModelProto) -> dict[str, TypeProto]:
    """Types by tensor as far as onnx infers them."""
    try:
        inferred = onnx.shape_inference.infer_shapes(proto)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, TypeError, IndexError):
        return {}  # names alone do for most runtimes
    types = {value.name: value.type for value in (*inferred.graph.value_info, *inferred.graph.output)}
    return {name: declared for name, declared in types.items() if _is_known(declared)}


def _without_shape(declared: TypeProto) -> TypeProto:
    """The element type alone: a runtime infers shapes itself, and a stale one in the file would be held against it."""
    bare = TypeProto()
    bare.CopyFrom(declared)
    if bare.HasField("tensor_type"):
        bare.tensor_type.ClearField("shape")
    return bare


def _is_known(declared: TypeProto) -> bool:
    return declared.WhichOneof("value") is not None and (
        not declared.HasField("tensor_type") or declared.tensor_type.elem_type != onnx.TensorProto.UNDEFINED
    )


def single_node_model(model: Model, node: Node, feeds: Mapping[str, Any], destination: Path) -> Path:
    """Write a model of one node.

    What `feeds` holds becomes a graph input of its stored type and shape; what it leaves out stays an initializer if
    the main graph has it as one. Captures of the node's subgraphs count as inputs of the node.

    Args:
        model: the model that the node is from.
        node: one of its nodes, of the main graph or a subgraph.
        feeds: stored tensors by name, lists for sequences; names that the node does not read are ignored.
        destination: the .onnx file to write.

    Returns:
        `destination`: a model of the same opsets and IR version whose inputs come in the order of the node.

    Raises:
        InvalidArgumentError: the node is not of this model, or reads a tensor that is neither fed nor stored.
    """
    source = _find_node(model.proto.graph, node.name)
    if source is None:
        raise InvalidArgumentError(f"{model.path} has no node {node.name!r}")
    proto = ModelProto(ir_version=model.proto.ir_version, opset_import=model.proto.opset_import)
    proto.functions.extend(model.proto.functions)
    proto.graph.name = node.name
    proto.graph.node.add().CopyFrom(source)
    for name in reads_of(proto.graph.node[0]):
        provide(proto, name, model, feeds)
    names = [name for name in source.output if name]
    proto.graph.output.extend(ValueInfoProto(name=name) for name in names)
    types = {**_declared_types(model.proto, names), **_inferred_types(proto)}
    for value in proto.graph.output:
        if value.name in types:
            value.type.CopyFrom(types[value.name])
    return save_proto(proto, model.path, destination)


def _find_node(graph: GraphProto, name: str) -> NodeProto | None:
    for node in graph.node:
        if node.name == name:
            return node
    inner = (graph for node in graph.node for _, graph in subgraphs(node))
    return next((found for graph in inner if (found := _find_node(graph, name)) is not None), None)


def _declared_types(proto: ModelProto, names: Sequence[str]) -> dict[str, TypeProto]:
    declared = (*proto.graph.value_info, *proto.graph.output)
    return {
        value.name: _without_shape(value.type) for value in declared if value.name in names and _is_known(value.type)
    }


def provide(proto: ModelProto, name: str, model: Model, feeds: Mapping[str, Any]) -> None:
    """Make a tensor that a node of `proto` reads an input of it, or an initializer.

    Raises:
        InvalidArgumentError: it is neither given nor stored.
    """
    if name in feeds:
        proto.graph.input.append(ValueInfoProto(name=name, type=_type(name, feeds[name])))
        return
    for tensor in model.proto.graph.initializer:
        if tensor.name == name:
            proto.graph.initializer.add().CopyFrom(tensor)
            if proto.ir_version < _INITIALIZERS_ARE_INPUTS_BEFORE:
                stored = model.graph.initializers[name]
                proto.graph.input.append(ValueInfoProto(name=name, type=_type(name, stored)))
            return
    for sparse in model.proto.graph.sparse_initializer:
        if sparse.values.name == name:
            proto.graph.sparse_initializer.add().CopyFrom(sparse)
            return
    raise InvalidArgumentError(f"node {proto.graph.name!r} reads {name!r}, which is neither given nor stored")


def _type(name: str, value: Any) -> TypeProto:
    if isinstance(value, list):
        declared = TypeProto()
        inner = _type(name, value[0]) if value else _type(name, np.empty(0, np.float32))
        declared.sequence_type.elem_type.CopyFrom(_without_shape(inner))
        return declared
    if isinstance(value, dict) and value:
        key, item = next(iter(value.items()))
        declared = TypeProto()
        declared.map_type.key_type = onnx.TensorProto.STRING if isinstance(key, str) else onnx.TensorProto.INT64
        declared.map_type.value_type.CopyFrom(_without_shape(_type(name, np.asarray(item))))
        return declared
    if not isinstance(value, np.ndarray):
        raise InvalidArgumentError(f"{name!r} is given as {type(value).__name__}; allowed are arrays, lists and maps")
    return onnx.helper.make_tensor_type_proto(element_type(value.dtype), value.shape)
