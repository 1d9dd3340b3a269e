"""What must hold before a model is used: versions, operators, attributes, arity. Messages name node and operator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import onnx
from onnx import AttributeProto, defs

from ..errors import InvalidModelError
from .conversion import plain_domain
from .external import tensors_of
from .ordering import label, subgraphs

_OPTION = defs.OpSchema.FormalParameterOption


EXTENSIONS = frozenset({("", "SimplifiedLayerNormalization")})
"""Operators that ONNX Runtime's optimiser puts into domains where onnx has none of that name: no schema to check."""


def check_header(model: onnx.ModelProto) -> None:
    """Check that the message is a model of a version that the installed onnx knows.

    Raises:
        InvalidModelError: no model, no graph, no outputs, or a newer IR version.
    """
    if not model.ir_version or not model.HasField("graph"):
        raise InvalidModelError("no ONNX model: it has no " + ("graph" if model.ir_version else "ir_version"))
    if not 1 <= model.ir_version <= onnx.IR_VERSION:
        raise InvalidModelError(f"IR version {model.ir_version}; onnx {onnx.__version__} knows 1 to {onnx.IR_VERSION}")
    _check_text(model)
    if not model.graph.output:
        raise InvalidModelError("its graph has no outputs; at least one is needed")
    opset_versions(model)


def _check_text(model: onnx.ModelProto) -> None:
    """Names have to be UTF-8; protobuf hands out others as bytes."""
    named: list[tuple[str, str | bytes]] = [("a domain", entry.domain) for entry in model.opset_import]
    for function in model.functions:
        parts = (function.domain, function.name, function.overload, *function.input, *function.output)
        named += [("a local function", part) for part in (*parts, *function.attribute)]
        named += _node_texts(function.node)
    for what, value in (*named, *_graph_texts(model.graph)):
        if isinstance(value, bytes):
            raise InvalidModelError(f"{what} has the name {value!r}, which is not UTF-8")


def _graph_texts(graph: onnx.GraphProto) -> Iterator[tuple[str, str | bytes]]:
    yield "a graph", graph.name
    for tensor in tensors_of(graph):
        yield "a tensor", tensor.name
        for entry in tensor.external_data:
            yield from (("a key of external data", entry.key), ("a location of external data", entry.value))
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield "an input, output or tensor", value.name
        for dim in value.type.tensor_type.shape.dim:
            yield f"a dim of {value.name!r}", dim.dim_param
    yield from _node_texts(graph.node)


def _node_texts(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[str, str | bytes]]:
    for node in nodes:
        for part in (node.name, node.op_type, node.domain, node.overload, *node.input, *node.output):
            yield "a node or one of its tensors", part
        for attribute in node.attribute:
            yield from (("an attribute", attribute.name), ("an attribute", attribute.ref_attr_name))
        for _, graph in subgraphs(node):
            yield from _graph_texts(graph)


def opset_versions(model: onnx.ModelProto) -> dict[str, int]:
    """The imported opset version by domain, "" for ai.onnx; a model of IR version 1 or 2 without imports means opset 1.

    Raises:
        InvalidModelError: a version that the installed onnx does not know, or two for one domain.
    """
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        domain = plain_domain(entry.domain)
        if versions.setdefault(domain, entry.version) != entry.version:
            raise InvalidModelError(f"imports {_shown(domain)} twice, as opset {versions[domain]} and {entry.version}")
        newest = newest_opsets().get(domain)
        if entry.version < 1 or (newest is not None and entry.version > newest):
            allowed = f"onnx {onnx.__version__} knows 1 to {newest}" if newest else "versions count from 1"
            raise InvalidModelError(f"imports opset {entry.version} of {_shown(domain)}; {allowed}")
    if not versions and model.ir_version < onnx.Version.IR_VERSION_2017_11_3:
        versions[""] = 1
    return versions


@cache
def newest_opsets() -> dict[str, int]:
    """The newest opset version of every domain that the installed onnx defines."""
    newest = {"": defs.onnx_opset_version()}
    for schema in defs.get_all_schemas_with_history():
        newest[schema.domain] = max(newest.get(schema.domain, 1), schema.since_version)
    return newest


def _shown(domain: str) -> str:
    return f"domain {domain or 'ai.onnx'!r}"


def check_graph(graph: onnx.GraphProto, opsets: Mapping[str, int]) -> None:
    """Check every node of a graph and of its subgraphs against its operator's schema.

    Raises:
        InvalidModelError: the first node that does not fit; the message names it.
    """
    for node in graph.node:
        _check_node(node, opsets)
        for _, subgraph in subgraphs(node):
            check_graph(subgraph, opsets)


def _check_node(node: onnx.NodeProto, opsets: Mapping[str, int]) -> None:
    domain = plain_domain(node.domain)
    if not node.op_type:
        raise InvalidModelError(f"node {node.name!r} has no op_type")
    if domain not in opsets:
        known = ", ".join(_shown(name) for name in opsets) or "none"
        raise InvalidModelError(f"node {label(node)} is of {_shown(domain)}, which the model does not import ({known})")
    _check_attribute_names(node)
    if domain in newest_opsets() and (domain, node.op_type) not in EXTENSIONS:
        schema = _schema(node, domain, opsets[domain])
        _check_arity(node, schema)
        _check_attributes(node, schema)


@cache
def _find_schema(op_type: str, opset: int, domain: str) -> defs.OpSchema | None:
    try:
        return defs.get_schema(op_type, opset, domain)
    except defs.SchemaError:
        return None


def _schema(node: onnx.NodeProto, domain: str, opset: int) -> defs.OpSchema:
    schema = _find_schema(node.op_type, opset, domain)
    if schema is not None and not schema.deprecated:
        return schema
    who = f"node {label(node)}: {_shown(domain)}"
    if schema is not None:
        raise InvalidModelError(f"{who} deprecated {node.op_type} in opset {schema.since_version}, imported is {opset}")
    newest = _find_schema(node.op_type, newest_opsets()[domain], domain)
    if newest is None:
        raise InvalidModelError(f"{who} has no operator {node.op_type!r}")
    raise InvalidModelError(f"{who} has no operator {node.op_type!r} at opset {opset}, only later")


def _check_arity(node: onnx.NodeProto, schema: defs.OpSchema) -> None:
    for what, given, least, most in (
        ("inputs", len(node.input), schema.min_input, schema.max_input),
        ("outputs", len(node.output), schema.min_output, schema.max_output),
    ):
        if not least <= given <= most:
            allowed = f"{least}" if least == most else f"{least} or more" if most > 2**30 else f"{least} to {most}"
            raise InvalidModelError(f"node {label(node)} has {given} {what}; allowed are {allowed}")
    for name, formal in zip(node.input, schema.inputs, strict=False):
        if not name and formal.option == _OPTION.Single:
            raise InvalidModelError(f"node {label(node)} leaves out its input {formal.name!r}, which is not optional")


def _check_attribute_names(node: onnx.NodeProto) -> None:
    seen: set[str] = set()
    for attribute in node.attribute:
        if attribute.name in seen:
            raise InvalidModelError(f"node {label(node)} has two attributes named {attribute.name!r}")
        if attribute.ref_attr_name:
            raise InvalidModelError(
                f"node {label(node)}: attribute {attribute.name!r} refers to {attribute.ref_attr_name!r} of a function"
            )
        seen.add(attribute.name)


def _check_attributes(node: onnx.NodeProto, schema: defs.OpSchema) -> None:
    known = schema.attributes
    for attribute in node.attribute:
        if attribute.name.startswith("__"):
            continue
        if attribute.name not in known:
            allowed = ", ".join(sorted(known)) or "none"
            raise InvalidModelError(
                f"node {label(node)} has the attribute {attribute.name!r}; {schema.name} since {schema.since_version} "
                f"knows {allowed}"
            )
        expected = known[attribute.name].type
        if attribute.type != _number(expected):
            raise InvalidModelError(
                f"node {label(node)}: attribute {attribute.name!r} is of type {_type_name(attribute.type)}; "
                f"allowed is {_type_name(_number(expected))}"
            )
    present = {attribute.name for attribute in node.attribute}
    missing = sorted(name for name, entry in known.items() if entry.required and name not in present)
    if missing:
        raise InvalidModelError(f"node {label(node)} lacks the required attribute {', '.join(missing)}")


def _number(expected: Any) -> int:
    return int(expected)  # the stubs of onnx do not know that its schema enumerations convert


def _type_name(attribute_type: int) -> str:
    names = {number: name for name, number in AttributeProto.AttributeType.items()}
    return names.get(attribute_type, str(attribute_type))
