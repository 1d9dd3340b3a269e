"""What tests of kernels and scales share: a call by op_type, the bound of its scale, and a run in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnx_arch.conformance.results import Verdict
from onnx_arch.conformance.verdict import judge
from onnx_arch.operators.evaluation import output_dtypes, prepare
from onnx_arch.operators.scale import Array, Rule, Scale
from onnx_arch.operators.storage import encode

from .node_cases import deviations


def call(
    op_type: str,
    *inputs: Any,
    opset: int,
    output_count: int = 1,
    **attributes: Any,
) -> Any:
    """The reference output of one node, or the tuple of them where there are several."""
    outputs = prepare(op_type, inputs, attributes, opset=opset, output_count=output_count).outputs()
    return outputs if len(outputs) > 1 else outputs[0]


def beyond(actual: Array, op_type: str, *inputs: Any, opset: int, output: int = 0, **attributes: Any) -> int:
    """How many elements of a stored output lie outside the certain bound of the operator's scale."""
    node = prepare(op_type, inputs, attributes, opset=opset, output_count=output + 1)
    references = node.outputs()
    scales = node.scales(references)
    assert scales is not None, f"{op_type} has no scale"
    reference, scale = references[output], scales[output]
    assert actual.shape == reference.shape, f"{op_type}: {actual.shape}, reference {reference.shape}"
    return int(np.count_nonzero(~_within(actual, reference, scale)))


def verdict_on(actual: Any, op_type: str, *inputs: Any, opset: int, output: int = 0, **attributes: Any) -> Verdict:
    """The verdict on one stored output of a node, without a witness."""
    node = prepare(op_type, inputs, attributes, opset=opset, output_count=output + 1)
    outputs, scales = node.judged()
    scale = None if scales is None else scales[output]
    return judge(actual, outputs[output], output_dtypes(node, outputs)[output], scale)


def _within(actual: Array, reference: Array, scale: Scale) -> Array:
    open_ = np.isinf(np.asarray(scale.terms, np.float64))
    if scale.rule is Rule.EXACT:
        stored = encode(reference, actual.dtype)
        same = (stored == actual) | ((stored != stored) & (actual != actual))  # noqa: PLR0124 (NaN)
        return np.asarray(same | open_)
    allowed = np.asarray(scale.terms) * (1 if scale.rule is Rule.ULP else 2)
    return np.asarray((deviations(actual, reference, scale.magnitude) <= allowed) | open_)


def run_onnxruntime(
    op_type: str, inputs: Sequence[Array | None], attributes: Mapping[str, Any], *, opset: int, output_count: int = 1
) -> list[Array]:
    """The stored outputs of a model of one node in ONNX Runtime on CPU, without optimisation."""
    import onnxruntime  # noqa: PLC0415 (only where a test runs it)

    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    outputs = [f"y{i}" for i in range(output_count)]
    node = helper.make_node(op_type, names, outputs, **attributes)
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in zip(names, inputs, strict=True)
        if value is not None
    ]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph([node], "one", declared, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: value for name, value in zip(names, inputs, strict=True) if name})
