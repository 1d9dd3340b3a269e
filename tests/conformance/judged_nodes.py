"""One node judged without a session: what the checker says if a runtime had returned these tensors for these inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnx_arch.conformance.nodes import judge_node
from onnx_arch.conformance.oracle import Local
from onnx_arch.conformance.results import NodeResult
from onnx_arch.graphs.evaluation import Value, call_node, run_call
from onnx_arch.graphs.model import Node


def judge(
    op_type: str,
    inputs: Sequence[Any],
    actual: Any,
    attributes: Mapping[str, Any] | None = None,
    *,
    opset: int = 23,
) -> NodeResult:
    """The row of one node.

    Args:
        op_type: the operator, of the default domain.
        inputs: stored tensors, None where absent.
        actual: what the runtime returned; a tuple if the node has several outputs.
        attributes: of the node.
        opset: of the model.
    """
    outputs = actual if isinstance(actual, tuple) else (actual,)
    names = tuple("" if x is None else f"x{i}" for i, x in enumerate(inputs))
    values = {name: Value(x, _dtype(x)) for name, x in zip(names, inputs, strict=True) if name}
    results = tuple(f"y{i}" for i in range(len(outputs)))
    node = Node(f"{op_type}_0", op_type, "", names, results, dict(attributes or {}), opset, 0)
    call = call_node(node, values)
    references = run_call(node, call)
    local = Local(call, references, call.scales([value.data for value in references]))
    return judge_node(node, local, dict(zip(results, outputs, strict=True)))


def _dtype(x: Any) -> np.dtype[Any] | None:
    return x.dtype if isinstance(x, np.ndarray) else None


def judge_named(case: Any, outputs: Sequence[Any]) -> NodeResult:
    """The row of one node test (`operators.node_cases.Case`), as if a runtime had returned `outputs`."""
    inputs = tuple("" if x is None else f"x{i}" for i, x in enumerate(case.inputs))
    names = tuple("" if y is None else f"y{i}" for i, y in enumerate(case.outputs))
    values = {name: Value(x, _dtype(x)) for name, x in zip(inputs, case.inputs, strict=True) if name}
    node = Node(case.name, case.op_type, case.domain, inputs, names, case.attributes, case.opset, 0)
    call = call_node(node, values)
    references = run_call(node, call)
    local = Local(call, references, call.scales([value.data for value in references]))
    return judge_node(node, local, {name: y for name, y in zip(names, outputs, strict=True) if name})
