"""An adapter that runs a graph node by node, correctly or with a fault: `RuntimeOptions(runtime=str(this file))`.

Every node is a model of its own in ONNX Runtime, unless an arithmetic of `arithmetics.py` computes it. What is chosen
stands in `RuntimeOptions.extra`, or in the environment where there is no way to give options (a command line):

    extra             environment                     what
    "fault"           ONNX_ARCH_TEST_FAULT            a name of `faults.make_faults`
    "op_types"        ONNX_ARCH_TEST_OP_TYPES         the op_types that it touches instead of its own (comma-separated)
    "arithmetic"      ONNX_ARCH_TEST_ARITHMETIC       "onnxruntime", or a name of `arithmetics.ARITHMETICS`
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
from onnx import helper

from onnx_arch.runtimes.onnxruntime_adapter import RAW_BY_DTYPE, OnnxRuntimeSession, guarded

EXTRA = ("fault", "op_types", "arithmetic")
SMALL = 1024
"""Constants up to this many elements stand in the one-node models, where some operators want them."""


def beside(name: str) -> ModuleType:
    """A module beside this file, which is no package."""
    spec = importlib.util.spec_from_file_location(f"_faulty_{name}", Path(__file__).with_name(f"{name}.py"))
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


faults = beside("faults")
arithmetics = beside("arithmetics")


def chosen(extra: dict[str, Any], name: str, default: str) -> str:
    return extra.get(name, os.environ.get(f"ONNX_ARCH_TEST_{name.upper()}", default))


def load(model_path: str, options: dict[str, Any]) -> NodeByNode:
    extra = options["extra"]
    fault = faults.make_faults()[chosen(extra, "fault", "none")]
    op_types = chosen(extra, "op_types", "")
    names = op_types.split(",") if isinstance(op_types, str) and op_types else list(op_types)
    arithmetic = chosen(extra, "arithmetic", "onnxruntime")
    product = None if arithmetic == "onnxruntime" else arithmetics.ARITHMETICS[arithmetic]
    return NodeByNode(onnx.inliner.inline_local_functions(onnx.load(model_path)), fault, names, product)


class NodeByNode:
    """Runs the nodes in their order; values that nothing reads any more are dropped."""

    def __init__(self, model: onnx.ModelProto, fault: Any, op_types: list[str], product: Any) -> None:
        self._graph = model.graph
        self._fault, self._op_types, self._product = fault, op_types, product
        self._maker = OneNodeModels(model)
        self._constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self._names = [value.name for value in model.graph.output]
        self._last_use = {name: i for i, node in enumerate(model.graph.node) for name in reads(node)}

    def info(self) -> dict[str, Any]:
        inputs = [value.name for value in self._graph.input if value.name not in self._constants]
        return {
            "versions": {"faulty": "1", "onnxruntime": onnxruntime.__version__},
            "providers": ["CPUExecutionProvider"],
            "input_names": inputs,
            "output_names": self._names,
        }

    def run(self, feeds: dict[str, Any], outputs: list[str] | None) -> dict[str, Any]:
        values = {"": None, **{name: storable(value) for name, value in self._constants.items()}, **feeds}
        for index, node in enumerate(self._graph.node):
            values.update(zip(node.output, self._run_node(index, node, values), strict=True))
            for name in reads(node):
                if self._last_use[name] == index and name not in self._names:
                    values.pop(name, None)
            values[""] = None
        results = {name: values[name] for name in (self._names if outputs is None else outputs)}
        return results if self._fault.result is None else self._fault.result(results)

    def _run_node(self, index: int, node: onnx.NodeProto, values: dict[str, Any]) -> list[Any]:
        inputs = [values[name] for name in node.input]
        attributes = attributes_of(node)
        if not self._touches(node):
            return self._evaluate(index, node, inputs, attributes, values)
        if self._fault.instead is not None:
            self._fault.instead()
        if self._fault.inputs is not None and all(x is None or faults.is_float32(x) for x in inputs):
            inputs = self._fault.inputs(node.op_type, inputs, attributes)
        if self._fault.attributes is not None:
            attributes = self._fault.attributes(attributes, inputs)
        outputs = self._evaluate(index, node, inputs, attributes, values)
        return outputs if self._fault.outputs is None else self._fault.outputs(outputs, inputs, attributes)

    def _touches(self, node: onnx.NodeProto) -> bool:
        if not faults.touches(self._fault, node.op_type, self._op_types):
            return False
        hidden = all(name not in self._names and name in self._last_use for name in node.output)
        return hidden or not self._fault.only_hidden

    def _evaluate(
        self, index: int, node: onnx.NodeProto, inputs: list[Any], attributes: dict[str, Any], values: dict[str, Any]
    ) -> list[Any]:
        if self._product is not None:
            y = arithmetics.evaluate(node.op_type, inputs, attributes, self._product)
            if y is not None:
                return [y]
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        if "axis" in attributes:  # the one attribute that a fault changes
            del changed.attribute[:]
            changed.attribute.extend(a for a in node.attribute if a.name != "axis")
            changed.attribute.append(helper.make_attribute("axis", attributes["axis"]))
        given = {name: x for name, x in zip(node.input, inputs, strict=True) if name}
        given.update({name: values[name] for name in reads(node) if name not in given and name})
        constants = {name: x for name, x in given.items() if name in self._constants and small(x)}
        session = self._maker.session(index, changed, given, constants)
        feeds = {name: x for name, x in given.items() if name not in constants}
        outputs = session.run(feeds, [name for name in node.output if name])
        return [outputs.get(name) for name in node.output]


class OneNodeModels:
    """A session per node, made when the node is first run."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._sessions: dict[int, OnnxRuntimeSession] = {}
        try:
            inferred = onnx.shape_inference.infer_shapes(model)
        except (onnx.shape_inference.InferenceError, ValueError):
            inferred = model
        self._types = {v.name: v.type for v in (*inferred.graph.value_info, *inferred.graph.input)}

    def session(
        self, index: int, node: onnx.NodeProto, given: dict[str, Any], constants: dict[str, Any]
    ) -> OnnxRuntimeSession:
        if index not in self._sessions:
            self._sessions[index] = guarded(self._make, node, given, constants)
        return self._sessions[index]

    def _make(self, node: onnx.NodeProto, given: dict[str, Any], constants: dict[str, Any]) -> OnnxRuntimeSession:
        inputs = [helper.make_value_info(n, self._type(n, x)) for n, x in given.items() if n not in constants]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        initializers = [onnx.numpy_helper.from_array(x, n) for n, x in constants.items()]
        graph = helper.make_graph([node], "one_node", inputs, outputs, initializers)
        model = helper.make_model(graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version)
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(model.SerializeToString(), settings, ["CPUExecutionProvider"])
        return OnnxRuntimeSession(session, "cpu")

    def _type(self, name: str, value: Any) -> onnx.TypeProto:
        if hasattr(value, "bits"):
            return helper.make_tensor_type_proto(RAW_BY_DTYPE[value.dtype].number, [None] * value.bits.ndim)
        if isinstance(value, np.ndarray):
            number = helper.np_dtype_to_tensor_dtype(value.dtype)
            return helper.make_tensor_type_proto(number, [None] * value.ndim)
        return self._types[name]


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, in its subgraphs too."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            made = {*(v.name for v in graph.input), *(t.name for t in graph.initializer)}
            made.update(name for inner in graph.node for name in inner.output)
            yield from (name for inner in graph.node for name in reads(inner) if name not in made)
            yield from (v.name for v in graph.output if v.name not in made)


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name}
    return {name: v.decode() if isinstance(v, bytes) else v for name, v in values.items()}


def small(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.size <= SMALL


def storable(array: np.ndarray) -> Any:
    """The array, or its bits where NumPy lacks its dtype."""
    if array.dtype.name not in RAW_BY_DTYPE:
        return array
    width = "uint16" if array.dtype.itemsize > 1 else "uint8"
    return RawBits(array.dtype.name, array.view(width))


class RawBits:
    """A tensor of a dtype that NumPy lacks."""

    def __init__(self, dtype: str, bits: np.ndarray) -> None:
        self.dtype = dtype
        self.bits = bits
