"""Types in a translated graph: mended where the optimiser leaves them wrong, refused where ONNX does not take them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx
import onnx_ir as ir

from ..errors import ExportError
from .provenance import COMPUTED, Origin

Formal = onnx.defs.OpSchema.FormalParameter


def mend_folded_types(graph: ir.Graph, origins: Mapping[str, Origin], opset: int) -> None:
    """Round folded initializers to the type of the tensor that they meet.

    onnxscript (0.7.2) folds a bfloat16 normalisation into a convolution in float32 and leaves the weights so: a graph
    that ONNX Runtime refuses to load, because all inputs of a Conv must have one type.
    """
    for node in graph.all_nodes():
        bound = _bound_types(node, opset)
        for value, formal in _typed_inputs(node, opset):
            wanted = bound.get(formal.type_str)
            origin = origins.get(value.name or "")
            if wanted is None or value.dtype == wanted or origin is None or origin.transform != COMPUTED:
                continue
            if value.const_value is not None and wanted.is_floating_point():
                value.const_value = ir.tensor(value.const_value.numpy().astype(wanted.numpy()), name=value.name)
                value.dtype = wanted


def check_types(name: str, graph: ir.Graph, opset: int) -> None:
    """Refuse a graph whose operators do not take its types at this opset: it would be no valid ONNX.

    Raises:
        ExportError: names the first such node.
    """
    for node in graph.all_nodes():
        bound = _bound_types(node, opset)
        for value, formal in _typed_inputs(node, opset):
            if value.dtype is None:
                continue
            given = _type_name(value.dtype)
            problem = "" if _takes(formal, given) else f"takes no {given} as {formal.name}"
            other = bound.get(formal.type_str, value.dtype)
            if other != value.dtype:
                problem = f"takes one type, not {_type_name(other)} and {given} as {formal.name}"
            if problem:
                where = f"node {node.name}; another --opset or --dtype may do"
                raise ExportError(f"{name}: {node.op_type} of opset {opset} {problem} ({where})")


def _typed_inputs(node: ir.Node, opset: int) -> Iterator[tuple[ir.Value, Formal]]:
    """The inputs of a node of ai.onnx that are there, with what the spec says of each."""
    if node.domain or not onnx.defs.has(node.op_type, opset):
        return
    formals = onnx.defs.get_schema(node.op_type, opset).inputs
    for index, value in enumerate(node.inputs):
        if value is not None:
            yield value, formals[min(index, len(formals) - 1)]


def _bound_types(node: ir.Node, opset: int) -> dict[str, ir.DataType]:
    """The type variables of a node that a computed tensor, not an initializer, decides."""
    bound: dict[str, ir.DataType] = {}
    for value, formal in _typed_inputs(node, opset):
        if value.dtype is not None and not value.is_initializer() and formal.is_homogeneous:
            bound.setdefault(formal.type_str, value.dtype)
    return bound


def _type_name(dtype: ir.DataType) -> str:
    return {ir.DataType.FLOAT: "float", ir.DataType.DOUBLE: "double"}.get(dtype, dtype.name.lower())


def _takes(formal: Formal, name: str) -> bool:
    return not any(kind.startswith("tensor") for kind in formal.types) or f"tensor({name})" in formal.types
