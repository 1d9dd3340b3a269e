"""Nodes of any domain: the kernel's outputs, the verdict on given outputs, and a run in ONNX Runtime."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_arch.conformance.results import Outcome, Verdict
from onnx_arch.conformance.verdict import judge
from onnx_arch.conformance.witness import witness_for
from onnx_arch.operators.evaluation import Call, output_dtypes, prepare
from onnx_arch.operators.registry import SEAM_PARAMETERS, find_kernel, parameters
from onnx_arch.operators.scale import Array

ML = "ai.onnx.ml"


def float32s(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as a file stores them: every float rounded to float32."""

    def stored(value: Any) -> Any:
        if isinstance(value, float):
            return float(np.float32(value))
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [stored(item) for item in value]
        return value

    return {name: stored(value) for name, value in attributes.items()}


def prepared(
    op_type: str, inputs: Sequence[Any], attributes: Mapping[str, Any], *, opset: int = 1, domain: str = ML
) -> Call:
    """The call of a node with as many outputs as its kernel gives."""
    node = prepare(op_type, inputs, float32s(attributes), opset=opset, domain=domain)
    return prepare(op_type, inputs, float32s(attributes), opset=opset, domain=domain, output_count=len(node.outputs()))


def call(op_type: str, *inputs: Any, opset: int = 1, domain: str = ML, **attributes: Any) -> Any:
    """The reference output of a node, or the tuple of them."""
    outputs = prepared(op_type, inputs, attributes, opset=opset, domain=domain).outputs()
    return outputs if len(outputs) > 1 else outputs[0]


def verdicts(
    actual: Sequence[Any],
    op_type: str,
    *inputs: Any,
    opset: int = 1,
    domain: str = ML,
    **attributes: Any,
) -> list[Verdict]:
    """What the verdict says of each of these outputs."""
    node = prepared(op_type, inputs, attributes, opset=opset, domain=domain)
    references = node.outputs()
    scales = node.scales(references)
    assert scales is not None, f"{op_type} has no scale"
    dtypes = output_dtypes(node, references)
    found = []
    for index, value in enumerate(actual):
        witness = None
        if isinstance(references[index], np.ndarray):
            witness = witness_for(node, index, references[index], scales[index])
        found.append(judge(value, references[index], dtypes[index], scales[index], witness))
    return found


def outcomes(actual: Sequence[Any], op_type: str, *inputs: Any, **options: Any) -> list[Outcome]:
    """The outcome of each output; see `verdicts`."""
    return [verdict.outcome for verdict in verdicts(actual, op_type, *inputs, **options)]


def check_runs(op_type: str, *inputs: Any, opset: int = 1, domain: str = ML, **attributes: Any) -> list[Any]:
    """Run a node in ONNX Runtime and assert that every output passes; the outputs."""
    ran = run_onnxruntime(op_type, inputs, attributes, opset=opset, domain=domain)
    found = verdicts(ran, op_type, *inputs, opset=opset, domain=domain, **attributes)
    assert [verdict.outcome for verdict in found] == [Outcome.PASSED] * len(ran), [v.message for v in found]
    return ran


def run_onnxruntime(
    op_type: str, inputs: Sequence[Array], attributes: Mapping[str, Any], *, opset: int = 1, domain: str = ML
) -> list[Any]:
    """All outputs of a model of one node in ONNX Runtime on CPU, without optimisation."""
    import onnxruntime  # noqa: PLC0415 (only where a test runs it)

    count = len(onnx.defs.get_schema(op_type, opset, domain).outputs)
    stored: dict[str, Any] = {
        k: numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v for k, v in attributes.items()
    }
    names = [f"x{i}" for i in range(len(inputs))]
    outputs = [f"y{i}" for i in range(count)]
    node = helper.make_node(op_type, names, outputs, domain=domain, **stored)
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in zip(names, inputs, strict=True)
    ]
    graph = helper.make_graph([node], "one", declared, [onnx.ValueInfoProto(name=name) for name in outputs])
    opsets = [helper.make_opsetid("", 21), *([helper.make_opsetid(domain, opset)] if domain else [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(zip(names, inputs, strict=True))))


def versions_in(domain: str, op_types: set[str]) -> list[tuple[str, int]]:
    """Every (op_type, since_version) of these operators of a domain that the installed onnx knows."""
    schemas = onnx.defs.get_all_schemas_with_history()
    return sorted((s.name, s.since_version) for s in schemas if s.domain == domain and s.name in op_types)


def check_signature_in(domain: str, op_type: str, version: int) -> None:
    """Compare a kernel's attributes and their defaults with the schema's.

    Raises:
        AssertionError: what differs.
    """
    schema = onnx.defs.get_schema(op_type, version, domain)
    entry = find_kernel(op_type, opset=version, domain=domain)
    assert entry.scale is not None, f"{op_type} {version} has no scale"
    known = set(parameters(entry.function)) - SEAM_PARAMETERS
    assert known == set(schema.attributes), f"{op_type} {version}: {known ^ set(schema.attributes)}"
    signature = inspect.signature(entry.function).parameters
    for name, attribute in schema.attributes.items():
        given: Any = attribute.default_value
        default = onnx.helper.get_attribute_value(given) if given.type else None
        default = default.decode() if isinstance(default, bytes) else default
        expected = inspect.Parameter.empty if attribute.required else default
        assert signature[name].default == expected, f"{op_type} {version}: {name} defaults to {signature[name].default}"
