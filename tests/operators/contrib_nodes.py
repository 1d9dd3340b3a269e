"""One node of ONNX Runtime's own domains: run in ONNX Runtime on CPU, and judged against the kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_arch.conformance.nodes import judge_node
from onnx_arch.conformance.oracle import Local
from onnx_arch.conformance.results import NodeResult, Outcome
from onnx_arch.graphs.evaluation import Value, call_node, judge_call
from onnx_arch.graphs.model import Node

MICROSOFT = "com.microsoft"
NCHWC = "com.microsoft.nchwc"
OPSET = 17

Inputs = Sequence[np.ndarray | None]


def run(
    op_type: str,
    inputs: Inputs,
    *,
    domain: str = MICROSOFT,
    outputs: int = 1,
    weights: Sequence[int] = (),
    **attributes: Any,
) -> list[Any]:
    """The stored outputs of a model of one node in ONNX Runtime on CPU, without optimisation.

    Args:
        op_type: the operator; domain, outputs and attributes are the node's.
        inputs: tensors, None where absent.
        domain: see op_type.
        outputs: see op_type.
        weights: positions of inputs that are stored in the model, which ONNX Runtime packs for faster kernels.
    """
    import onnxruntime  # noqa: PLC0415 (only where a test runs it)

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    model = one_node(op_type, inputs, domain=domain, outputs=outputs, **attributes)
    stored = {f"x{i}" for i in weights}
    kept = [value for value in model.graph.input if value.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(inputs[i]), f"x{i}") for i in weights)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {f"x{i}": x for i, x in enumerate(inputs) if x is not None and i not in weights}
    return session.run(None, feeds)


def one_node(
    op_type: str, inputs: Inputs, *, domain: str = MICROSOFT, outputs: int = 1, **attributes: Any
) -> onnx.ModelProto:
    """A model of one node; its inputs are x0, x1, … and its outputs y0, y1, …."""
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    results = [f"y{i}" for i in range(outputs)]
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in zip(names, inputs, strict=True)
        if x is not None
    ]
    node = helper.make_node(op_type, names, results, domain=domain, **attributes)
    produced = [onnx.ValueInfoProto(name=name) for name in results]
    if op_type == "MultiHeadAttention":  # the type of its scores is a variable of its own, which nothing else binds
        for value in produced[3:]:
            value.CopyFrom(helper.make_tensor_value_info(value.name, declared[0].type.tensor_type.elem_type, None))
    graph = helper.make_graph([node], "one", declared, produced)
    imports = [helper.make_opsetid("", OPSET), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def judge(
    op_type: str, inputs: Inputs, actual: Sequence[Any], *, domain: str = MICROSOFT, **attributes: Any
) -> NodeResult:
    """The row of one node if a runtime had returned `actual` (one tensor for each output) for these inputs."""
    names = tuple("" if x is None else f"x{i}" for i, x in enumerate(inputs))
    results = tuple(f"y{i}" for i in range(len(actual)))
    node = Node(f"{op_type}_0", op_type, domain, names, results, _stored(attributes), 1 if domain else OPSET, 0)
    values = {name: Value(x, x.dtype) for name, x in zip(names, inputs, strict=True) if x is not None}
    call = call_node(node, values)
    references, scales = judge_call(node, call)
    return judge_node(node, Local(call, references, scales), dict(zip(results, actual, strict=True)))


def _stored(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes as a model stores them: numbers with a fraction as float32."""
    return {name: _float32(value) for name, value in attributes.items()}


def _float32(value: Any) -> Any:
    if isinstance(value, list):
        return [_float32(item) for item in value]
    return float(np.float32(value)) if isinstance(value, float) else value


def passes(
    op_type: str,
    inputs: Inputs,
    *,
    domain: str = MICROSOFT,
    outputs: int = 1,
    weights: Sequence[int] = (),
    **attributes: Any,
) -> list[Any]:
    """Assert that ONNX Runtime's outputs are judged right; returns them."""
    actual = run(op_type, inputs, domain=domain, outputs=outputs, weights=weights, **attributes)
    row = judge(op_type, inputs, actual, domain=domain, **attributes)
    assert row.outcome is Outcome.PASSED, f"{op_type}: {row.message}"
    return actual


def fails(op_type: str, inputs: Inputs, wrong: Sequence[Any], *, domain: str = MICROSOFT, **attributes: Any) -> None:
    """Assert that outputs with a fault are judged wrong."""
    row = judge(op_type, inputs, wrong, domain=domain, **attributes)
    assert row.outcome is Outcome.FAILED, f"{op_type}: a fault was accepted, rms z = {row.rms_z}"
