"""From a PyTorch module to an ONNX graph: traced, translated, optimised, named, and stripped of where it was made."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn
from torch.export.graph_signature import InputKind

from ..architectures.specification import GraphSpec
from ..errors import ExportError
from .opsets import NEWEST_OF_TORCH, raise_opset
from .provenance import (
    COMPUTED,
    Origin,
    Snapshot,
    computed,
    part_merged,
    rename_initializers,
    take_snapshot,
    trace_origins,
    vanished_parameters,
)
from .recipes import Recipe, find_recipe
from .targets import NATIVE
from .tracing import prepared, trace_module, translating
from .translations.table import translation_table
from .typing_rules import check_types, mend_folded_types

Translations = Mapping[Callable[..., Any], Callable[..., Any]]

_TRACED_SYMBOL = re.compile(r"\b[su]\d+\b")
_ROOT_SCOPE = "_empty_nn_module_stack_from_metadata_hook"


@dataclass(frozen=True)
class Trace:
    """What ties a graph to the module that it was translated from; it holds none of the graph's weights.

    Attributes:
        program: the traced program that it was translated from, for finding where they part.
        traced: by the name of an ONNX value, the name of the FX node that it stands for.
        places: by the name of an ONNX node, where in the module it comes from and by which PyTorch operator.
        origins: by initializer.
        parameters: names of the module's parameters and buffers.
        dims: by input and output, every dim as the graph has it: a size or a symbol.
        remark: why the graph is not optimised; "" if it is.
        recipes: how initializers that were computed at export are computed from parameters, where that is known.
        vanished: parameters that the graph used before it was optimised and does not need for the values they have.
    """

    program: torch.export.ExportedProgram | None
    traced: Mapping[str, str]
    places: Mapping[str, str]
    origins: Mapping[str, Origin]
    parameters: tuple[str, ...]
    dims: Mapping[str, tuple[int | str, ...]]
    remark: str = ""
    recipes: Mapping[str, Recipe | None] = field(default_factory=dict)
    vanished: tuple[str, ...] = ()

    @property
    def rounded(self) -> frozenset[str]:
        """Initializers that were computed at export."""
        return frozenset(name for name, origin in self.origins.items() if origin.transform == COMPUTED)

    @property
    def folded(self) -> bool:
        """Whether parameters went into constants that were computed at export."""
        origins = self.origins.values()
        return any(origin.transform == COMPUTED and origin.operators for origin in origins)


@dataclass(frozen=True)
class Translation:
    """A translated graph, ready to be written, and its trace.

    Attributes:
        model: the graph.
        trace: what ties it to the module.
        recipes: content of `recipes.onnx`, where it is there already; None where the trace's recipes are to be tried.
    """

    model: ir.Model
    trace: Trace
    recipes: bytes | None = None


def translate(  # noqa: PLR0913 - what a user may ask for
    module: nn.Module,
    spec: GraphSpec,
    feeds: Mapping[str, np.ndarray],
    *,
    opset: int,
    translations: Translations | None = None,
    unpool: str = NATIVE,
) -> Translation:
    """Translate `module`, called as `spec` says, to ONNX.

    Args:
        module: in inference mode.
        spec: its inputs, outputs and axes; axes with `dynamic` become symbols where the module allows it.
        feeds: example inputs; dynamic dims differ from 0 and 1, which tracing takes for constants.
        opset: version of ai.onnx.
        translations: onnxscript functions by PyTorch operator, before our own and those of torch.onnx.
        unpool: "native" (`MaxUnpool`) or "scatter" (for runtimes that have none).

    Returns:
        The graph, optimised; as it was translated where onnxscript's optimiser fails on it (it is then said so).

    Raises:
        ExportError: the module cannot be traced or translated, or not to this opset.
    """
    traced = trace_module(module, spec, feeds)
    with translating(f"{spec.name}: the traced module cannot be prepared for opset {opset}"), torch.no_grad():
        traced = prepared(traced, opset, unpool)
    program = _convert(spec, traced, opset, translations)
    before = take_snapshot(program.model.graph)
    try:
        with translating(f"{spec.name}: the optimiser failed"):
            program.optimize()
    except ExportError as error:
        program, remark = _convert(spec, traced, opset, translations), str(error)
    else:
        remark = ""
    return _finish(spec, program, before, opset, remark)


def _convert(
    spec: GraphSpec, traced: torch.export.ExportedProgram, opset: int, translations: Translations | None
) -> torch.onnx.ONNXProgram:
    table: Any = {**translation_table(opset), **(translations or {})}
    made = min(opset, NEWEST_OF_TORCH)
    with translating(f"{spec.name}: torch.onnx cannot translate the traced module to opset {opset}"), torch.no_grad():
        program = torch.onnx.export(
            traced, (), opset_version=made, dynamo=True, optimize=False, verbose=False, custom_translation_table=table
        )
    if program is None or program.exported_program is None:
        raise ExportError(f"{spec.name}: torch.onnx returned no program")
    actual = program.model.graph.opset_imports.get("")
    if actual != made:
        raise ExportError(f"{spec.name}: opset {opset} was asked for, torch.onnx made {actual}")
    raise_opset(program.model, opset)
    return program


def _finish(spec: GraphSpec, program: torch.onnx.ONNXProgram, before: Snapshot, opset: int, remark: str) -> Translation:
    model, exported = program.model, program.exported_program
    if exported is None:
        raise ExportError(f"{spec.name}: torch.onnx returned no program")
    traced_names = {node.name for node in exported.graph.nodes}
    kinds = (InputKind.PARAMETER, InputKind.BUFFER)
    state = frozenset(str(item.target) for item in exported.graph_signature.input_specs if item.kind in kinds)
    part_merged(model.graph, before)
    origins = trace_origins(model.graph, before)
    found = {model.graph.initializers[name]: name for name in computed(origins)}
    recipes = {value: find_recipe(value, before, state) for value in found}
    mend_folded_types(model.graph, origins, opset)
    origins = rename_initializers(model.graph, origins)
    traced = _rename_ports(spec, model.graph, traced_names)
    _rename_dims(spec, model.graph)
    places = _name_nodes(model.graph)
    check_types(spec.name, model.graph, opset)
    _strip(model, spec.name)
    parameters = tuple(sorted(str(spec.target) for spec in exported.graph_signature.input_specs if spec.target))
    dims = {value.name or "": _dims(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    named = {value.name or "": recipe for value, recipe in recipes.items() if recipe is not None}
    vanished = vanished_parameters(before.used() & state, origins)
    return Translation(model, Trace(exported, traced, places, origins, parameters, dims, remark, named, vanished))


def _rename_ports(spec: GraphSpec, graph: ir.Graph, traced_names: set[str]) -> dict[str, str]:
    """Give inputs and outputs their names; returns the FX node of every value that has one.

    Raises:
        ExportError: the graph has other numbers of them.
    """
    for kind, values, ports in (("input", graph.inputs, spec.inputs), ("output", graph.outputs, spec.outputs)):
        if len(values) != len(ports):
            names = ", ".join(port.name for port in ports)
            raise ExportError(f"{spec.name}: the graph has {len(values)} {kind}s; the module's are {names}")
    made = [value.name for node in graph for value in node.outputs if value.name is not None]
    traced = {name: name for name in made if name in traced_names}
    _make_room(graph, {port.name for port in (*spec.inputs, *spec.outputs)}, traced)
    _own_outputs(graph)
    for value, port in zip((*graph.inputs, *graph.outputs), (*spec.inputs, *spec.outputs), strict=True):
        if value.name in traced:
            traced[port.name] = traced.pop(value.name)
        value.name = port.name
    return traced


def _own_outputs(graph: ir.Graph) -> None:
    """Outputs that are an input, an initializer or another output get a value of their own, by an Identity."""
    seen: set[ir.Value] = set()
    for index, value in enumerate(graph.outputs):
        if value in seen or value.producer() is None:
            node = ir.node("Identity", [value])
            copy = node.outputs[0]
            copy.type, copy.shape, copy.name = value.type, value.shape, f"{value.name}_{index}"
            graph.append(node)
            graph.outputs[index] = copy
        seen.add(graph.outputs[index])


def _make_room(graph: ir.Graph, wanted: set[str], traced: dict[str, str]) -> None:
    """Rename inner values that have the name of a port."""
    ports = {*graph.inputs, *graph.outputs}
    inner = [value for node in graph.all_nodes() for value in node.outputs if value not in ports]
    for value in (*inner, *graph.initializers.values()):
        if value.name in wanted:
            new = f"{value.name}_inner"
            if value.name in traced:
                traced[new] = traced.pop(value.name)
            value.name = new


def _rename_dims(spec: GraphSpec, graph: ir.Graph) -> None:
    """The axes' own names in place of the symbols of the tracer, in every shape."""
    symbols: dict[str, str] = {}
    for value, port in zip(graph.inputs, spec.inputs, strict=True):
        for dim, name in zip(_dims(value), port.shape, strict=False):
            if isinstance(dim, str) and isinstance(name, str) and _TRACED_SYMBOL.fullmatch(dim):
                symbols.setdefault(dim, name.replace("+", " + "))
    values = [*graph.inputs, *(value for node in graph.all_nodes() for value in node.outputs)]
    for value in dict.fromkeys(values):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed_dim(dim, symbols) for dim in value.shape])


def _renamed_dim(dim: int | ir.SymbolicDim, symbols: Mapping[str, str]) -> int | str | None:
    if isinstance(dim, int) or dim.value is None:
        return dim if isinstance(dim, int) else None
    if dim.value.isdecimal():  # what torch.onnx writes for a symbol that tracing found to have one value only
        return int(dim.value)
    return _TRACED_SYMBOL.sub(lambda match: symbols.get(match[0], match[0]), dim.value)


def _dims(value: ir.Value) -> tuple[int | str, ...]:
    return () if value.shape is None else tuple(d if isinstance(d, int) else d.value or "?" for d in value.shape)


def _name_nodes(graph: ir.Graph) -> dict[str, str]:
    """Name nodes after their place in the module (`layer1.0.conv1/Conv`); returns what PyTorch says of each."""
    places: dict[str, str] = {}
    for node in graph.all_nodes():
        scope = _scope(node)
        stem = f"{scope}/{node.op_type}" if scope else node.op_type
        node.name = next(name for name in _numbered(stem) if name not in places)
        places[node.name] = _torch_operator(node)
    return places


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    number = 1
    while True:
        yield f"{stem}_{number}"
        number += 1


def _scope(node: ir.Node) -> str:
    """The path of the sub-module; of a folded node, that of the parameter it kept."""
    for value in node.inputs[1:]:
        if value is not None and value.is_initializer() and (value.name or "").endswith(".weight_folded"):
            return str(value.name).removesuffix(".weight_folded")
    try:
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
    except (ValueError, SyntaxError):
        return ""
    inner = [scope for scope in scopes[:-1] if scope and scope != _ROOT_SCOPE]
    return str(inner[-1]) if inner else ""


def _torch_operator(node: ir.Node) -> str:
    target = re.search(r"target=(?:torch\.ops\.)?([\w.]+)", node.metadata_props.get("pkg.torch.onnx.fx_node", ""))
    return target[1] if target else ""


def _strip(model: ir.Model, name: str) -> None:
    """Remove what says where and when the graph was made: source paths, stack traces, remarks."""
    model.graph.name = name
    model.doc_string = model.graph.doc_string = None
    model.metadata_props.clear()
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    for graph in graphs:
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            _strip_values(node.outputs)
        _strip_values((*graph.inputs, *graph.outputs, *graph.initializers.values()))


def _strip_values(values: Sequence[ir.Value]) -> None:
    for value in values:
        value.metadata_props.clear()
        value.doc_string = None
