"""Function bodies: operators that onnx defines by others, expanded, and evaluated by our kernels of those others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnx_arch.conformance.results import Outcome
from onnx_arch.conformance.verdict import judge
from onnx_arch.conformance.witness import witness_for
from onnx_arch.errors import OnnxArchError
from onnx_arch.graphs.evaluation import evaluate_model
from onnx_arch.graphs.loading import load_model
from onnx_arch.operators.evaluation import Call, output_dtypes, prepare
from onnx_arch.operators.storage import encode, is_float

from ..operators.samples import Sample, normal, sample, samples_of

WITH_SUBGRAPHS = {"SequenceMap"}
"""Run by the graph: ONNX's node tests of it and of its expansion are both judged."""

DOMAIN = "body"
"""Where the expansion is a local function of the model."""


EDGES: Mapping[str, tuple[Sample, ...]] = {
    "AffineGrid": (sample(normal(1, 1, 2, 3), np.array([1, 1, 3, 4])),),
}
"""Calls on which a body is known to fail."""


@dataclass(frozen=True)
class Body:
    """A function body of one operator at one version.

    Attributes:
        schema: of the operator.
        opset: of the operators that the body is written in; None where the node decides.
    """

    schema: Any
    opset: int

    def __str__(self) -> str:
        return f"{self.schema.name}-{self.schema.since_version} in opset {self.opset}"


def bodies() -> list[Body]:
    """Every function body that the installed onnx has."""
    schemas = [s for s in onnx.defs.get_all_schemas_with_history() if not s.deprecated and s.name not in WITH_SUBGRAPHS]
    found = []
    for schema in sorted(schemas, key=lambda s: (s.domain, s.name, s.since_version)):
        versions = {*schema.function_opset_versions, *schema.context_dependent_function_opset_versions}
        found += [Body(schema, version) for version in sorted(versions)]
    return found


def expansion(body: Body, sample: Sample) -> onnx.FunctionProto | None:
    """The body for these inputs; None where onnx gives none for them."""
    schema, proto = body.schema, onnx.FunctionProto()
    if body.opset in schema.context_dependent_function_opset_versions:
        types = [_type(x).SerializeToString() for x in sample.inputs]
        node = _node(schema, sample, schema.domain)
        text = schema.get_context_dependent_function_with_opset_version(body.opset, node.SerializeToString(), types)
    else:
        text = schema.get_function_with_opset_version(body.opset)
    proto.ParseFromString(text)
    return proto if proto.node else None


def _type(value: Any) -> onnx.TypeProto:
    if value is None:
        return onnx.TypeProto()
    if isinstance(value, list):
        return helper.make_sequence_type_proto(_type(value[0]))
    code = onnx.TensorProto.STRING if value.dtype.kind in "OUS" else helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_type_proto(code, value.shape)


def _node(schema: Any, sample: Sample, domain: str) -> onnx.NodeProto:
    """A call with every attribute written out, defaults too: a body refers to them by name."""
    defaults = {
        name: helper.get_attribute_value(attribute.default_value)
        for name, attribute in schema.attributes.items()
        if attribute.default_value.type
    }
    given = {
        name: onnx.numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for name, value in {**defaults, **sample.attributes}.items()
    }
    names = ["" if x is None else f"x{i}" for i, x in enumerate(sample.inputs)]
    return helper.make_node(schema.name, names, _outputs(sample), domain=domain, **given)


def _outputs(sample: Sample) -> list[str]:
    return [f"y{i}" for i in range(sample.output_count)]


def expanded(body: Body, sample: Sample, function: onnx.FunctionProto, folder: Path) -> dict[str, Any]:
    """The outputs of the expansion in float64, from our kernels of the operators in it."""
    function.domain, function.name = DOMAIN, body.schema.name
    graph = helper.make_graph(
        [_node(body.schema, sample, DOMAIN)],
        "one",
        [helper.make_value_info(f"x{i}", _type(value)) for i, value in enumerate(sample.inputs) if value is not None],
        [onnx.ValueInfoProto(name=name) for name in _outputs(sample)],
    )
    versions = {entry.domain: entry.version for entry in function.opset_import}
    versions.setdefault("", onnx.defs.onnx_opset_version() if body.schema.domain else body.opset)
    imports = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    model = helper.make_model(graph, opset_imports=[*imports, helper.make_opsetid(DOMAIN, 1)], ir_version=10)
    model.functions.append(function)
    path = folder / "body.onnx"
    path.write_bytes(model.SerializeToString())
    feeds = {f"x{i}": value for i, value in enumerate(sample.inputs) if value is not None}
    return evaluate_model(load_model(path), feeds)


@dataclass(frozen=True)
class Compared:
    """The kernel against the expansion on one sample."""

    body: Body
    outcome: Outcome
    text: str


def compared(body: Body, folder: Path, *, all_tests: bool = False) -> Iterator[Compared]:
    """Samples of an operator by kernel and by expansion; with `all_tests` every node test that this version allows."""
    for call in (*samples_of(body.schema, all_tests=all_tests), *EDGES.get(body.schema.name, ())):
        if any(isinstance(value, onnx.GraphProto) for value in call.attributes.values()):
            continue
        try:
            function = expansion(body, call)
            if function is not None:
                yield _compared(body, call, expanded(body, call, function, folder))
        except OnnxArchError as error:
            yield Compared(body, Outcome.ERRORED, f"{type(error).__name__}: {error}")


def _compared(body: Body, sample: Sample, values: dict[str, Any]) -> Compared:
    schema = body.schema
    call = prepare(
        schema.name,
        sample.inputs,
        sample.attributes,
        opset=schema.since_version,
        domain=schema.domain,
        output_count=sample.output_count,
    )
    outputs, scales = call.judged()
    dtypes = output_dtypes(call, outputs)
    rows = zip(outputs[: sample.output_count], dtypes, scales or (), strict=False)
    verdicts = [_verdict(call, index, row, values[f"y{index}"]) for index, row in enumerate(rows)]
    worst = next((v for v in verdicts if v.outcome is not Outcome.PASSED), verdicts[0])
    return Compared(body, worst.outcome, worst.message)


def _verdict(call: Call, index: int, row: Any, value: Any) -> Any:
    reference, dtype, scale = row
    if isinstance(value, np.ndarray) and dtype is not None and (value.dtype.kind in "fc" or is_float(value.dtype)):
        value = encode(value, dtype)
    witness = witness_for(call, index, reference, scale) if isinstance(reference, np.ndarray) else None
    return judge(value, reference, dtype, scale, witness)
