"""If, Loop, Scan and SequenceMap at every version, in every type that their schemas allow."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_arch.conformance.nodes import judge_node
from onnx_arch.conformance.oracle import Oracle
from onnx_arch.conformance.results import Outcome
from onnx_arch.graphs.loading import load_model

from ..operators.element_types import CODES, retyped
from ..operators.test_coverage import far_from

Write = Callable[..., Path]
OPERATORS = ("If", "Loop", "Scan", "SequenceMap")
VALUES = np.array([[1, 0, 2], [3, 1, 0]])
FIRST_IDENTITY_OF_SEQUENCES, FIRST_IDENTITY_OF_OPTIONALS = 14, 16


def schemas() -> list[Any]:
    found = [s for s in onnx.defs.get_all_schemas_with_history() if s.name in OPERATORS and not s.domain]
    return sorted(found, key=lambda s: (s.name, s.since_version))


def carried(schema: Any) -> list[str]:
    """The types of what a subgraph computes."""
    names = {formal.type_str for formal in schema.outputs}
    return sorted({t for c in schema.type_constraints if c.type_param_str in names for t in c.allowed_type_strs})


def type_of(type_str: str, shape: list[int] | None) -> onnx.TypeProto:
    kind, inner = re.fullmatch(r"(\w+)\((.*)\)", type_str).groups()  # pyright: ignore[reportOptionalMemberAccess]
    if kind == "tensor":
        return helper.make_tensor_type_proto(CODES[inner], shape)
    wrap = helper.make_sequence_type_proto if kind == "seq" else helper.make_optional_type_proto
    return wrap(type_of(inner, None))


def value(name: str, type_str: str, shape: list[int] | None = None) -> onnx.ValueInfoProto:
    return helper.make_value_info(name, type_of(type_str, shape))


def same(name: str, given: str) -> onnx.NodeProto:
    return helper.make_node("Identity", [given], [name])


def if_model(type_str: str) -> tuple[list[onnx.NodeProto], dict[str, str], dict[str, Any]]:
    branches = {
        name: helper.make_graph([same(f"{name}_y", given)], name, [], [value(f"{name}_y", type_str)])
        for name, given in (("then_branch", "x"), ("else_branch", "w"))
    }
    return [helper.make_node("If", ["c"], ["y"], **branches)], {"c": "tensor(bool)"}, {"c": np.array(True)}


def loop_model(type_str: str) -> tuple[list[onnx.NodeProto], dict[str, str], dict[str, Any]]:
    inputs = [value("i", "tensor(int64)", []), value("go", "tensor(bool)", []), value("state", type_str)]
    outputs = [value("more", "tensor(bool)", []), value("next", type_str)]
    body = helper.make_graph([same("more", "go"), same("next", "state")], "body", inputs, outputs)
    node = helper.make_node("Loop", ["m", "c", "x"], ["y"], body=body)
    types = {"m": "tensor(int64)", "c": "tensor(bool)"}
    return [node], types, {"m": np.array(2), "c": np.array(True)}


def scan_model(type_str: str, version: int) -> tuple[list[onnx.NodeProto], dict[str, str], dict[str, Any]]:
    body = helper.make_graph([same("out", "row")], "body", [value("row", type_str)], [value("out", type_str)])
    inputs = ["", "x"] if version == 8 else ["x"]  # the first is the lengths of the sequences
    directions = {"directions": [1]} if version == 8 else {"scan_input_directions": [1]}
    return [helper.make_node("Scan", inputs, ["y"], num_scan_inputs=1, body=body, **directions)], {}, {}


def sequence_map_model(type_str: str) -> tuple[list[onnx.NodeProto], dict[str, str], dict[str, Any]]:
    item = type_str.removeprefix("seq(")[:-1]
    body = helper.make_graph([same("out", "item")], "body", [value("item", item)], [value("out", item)])
    return [helper.make_node("SequenceMap", ["x"], ["y"], body=body)], {}, {}


def model_of(schema: Any, type_str: str) -> tuple[onnx.ModelProto, dict[str, Any]]:
    if schema.name == "If":
        nodes, types, feeds = if_model(type_str)
    elif schema.name == "Loop":
        nodes, types, feeds = loop_model(type_str)
    elif schema.name == "Scan":
        nodes, types, feeds = scan_model(type_str, schema.since_version)
    else:
        nodes, types, feeds = sequence_map_model(type_str)
    tensors = VALUES[None] if schema.name == "Scan" and schema.since_version == 8 else VALUES
    feeds["x"] = retyped(tensors, type_str)
    types["x"] = type_str
    if schema.name == "If":
        feeds["w"], types["w"] = retyped(tensors[:1], type_str), type_str
    graph = helper.make_graph(nodes, "main", [value(name, t) for name, t in types.items()], [value("y", type_str)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", schema.since_version)], ir_version=8), feeds


def expected(schema: Any, x: Any) -> Any:
    if schema.name == "Scan":
        return np.flip(x, axis=1 if schema.since_version == 8 else 0).copy()
    return x


def identity_takes(type_str: str, version: int) -> bool:
    """Whether the body can be written at this version: Identity knew only tensors at first."""
    first = {"tensor": 1, "seq": FIRST_IDENTITY_OF_SEQUENCES, "optional": FIRST_IDENTITY_OF_OPTIONALS}
    return version >= first[type_str.partition("(")[0]]


@pytest.mark.parametrize("schema", schemas(), ids=lambda s: f"{s.name}-{s.since_version}")
def test_control_flow_at_every_version_is_judged_in_every_type_of_its_schema(schema: Any, write: Write) -> None:
    for type_str in carried(schema):
        if not identity_takes(type_str, schema.since_version):
            continue
        proto, feeds = model_of(schema, type_str)
        model = load_model(write(proto))
        (node,) = model.graph.nodes
        local = Oracle(model, feeds).local(node)
        right = expected(schema, feeds["x"])
        row = judge_node(node, local, {"y": right})
        assert row.outcome is Outcome.PASSED, f"{schema.name}-{schema.since_version} {type_str}: {row.message}"
        assert judge_node(node, local, {"y": faulty(right)}).outcome is Outcome.FAILED, type_str


def faulty(x: Any) -> Any:
    if isinstance(x, list):
        return [*x[:-1], faulty(x[-1])]
    wrong = np.array(x)
    wrong[(-1,) * x.ndim] = far_from(wrong[(-1,) * x.ndim])
    return wrong
