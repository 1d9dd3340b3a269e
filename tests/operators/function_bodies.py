"""The function body of an operator, run by ONNX's own reference evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from onnx_arch.operators.scale import Array


def run_body(
    op_type: str, inputs: Sequence[Array | None], attributes: Mapping[str, Any], *, opset: int, output_count: int
) -> list[Array]:
    """The outputs of a node's context-dependent function body, in the types in which it computes."""
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    outputs = [f"y{i}" for i in range(output_count)]
    node = helper.make_node(op_type, names, outputs, **attributes)
    types = []
    for value in inputs:
        proto = onnx.TypeProto()
        if value is not None:
            code = helper.np_dtype_to_tensor_dtype(value.dtype)
            proto = helper.make_tensor_type_proto(code, value.shape)
        types.append(proto.SerializeToString())
    body = onnx.FunctionProto()
    schema = onnx.defs.get_schema(op_type, opset, "")
    body.ParseFromString(schema.get_context_dependent_function(node.SerializeToString(), types))
    formal = {name: value for name, value in zip(body.input, inputs, strict=False) if value is not None}
    graph = helper.make_graph(
        list(body.node),
        "body",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in formal.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in body.output],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, formal)]
