"""Find the first node at which a graph parts from the traced program that it was translated from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from ..architectures.specification import GraphSpec
from ..graphs.evaluation import evaluate_model
from ..graphs.model import Model, Node, TensorSpec
from .arrays import to_numpy
from .calling import arguments
from .float64 import record_float64
from .proof import Divergence, Standing, compare
from .rounding import rounding_spread, translation_spread
from .translation import Trace

Array = np.ndarray[Any, np.dtype[Any]]


def find_divergence(
    model: Model, trace: Trace, spec: GraphSpec, feeds: Mapping[str, Array], stored: torch.dtype
) -> Divergence:
    """Run graph and traced program in float64 side by side and name the first value that differs.

    Values are matched by name: a translated node keeps the name of the node that it stands for, so what lies between
    two matched values (a decomposition) is seen as its last node.

    Args:
        model: the graph, which can be evaluated on `feeds`.
        trace: names, and the traced program.
        spec: how the module is called.
        feeds: stored inputs on which the outputs differ.
        stored: floating-point type in which the module is exported.
    """
    if trace.program is None:
        return Divergence("", "", "", "", "the graph differs from the module; nothing was traced that says where")
    made = {name: node for node in model.graph.nodes for name in node.outputs}
    matched = {value: traced for value, traced in trace.traced.items() if value in made}
    leaves = pytree.tree_leaves(arguments(spec, feeds))
    recorded = record_float64(trace.program, leaves, frozenset(matched.values()), stored)
    wanted = {value: to_numpy(recorded[traced]) for value, traced in matched.items() if traced in recorded}
    exposed = _with_outputs(model, wanted)
    clean = evaluate_model(exposed, feeds)
    spread = translation_spread(exposed, feeds, clean, trace.rounded, rounding_spread(exposed, feeds, clean))
    order = sorted(wanted, key=lambda value: made[value].index)
    for value in order:
        found = compare(value, clean[value], wanted[value], spread[value])
        if found.standing is Standing.FAILED:
            return _parting(made[value], value, trace, found.message)
    message = "graph and traced program agree at every node: tracing the module (torch.export) has changed it"
    return Divergence("", "", "", "", message)


def _with_outputs(model: Model, values: Mapping[str, Any]) -> Model:
    kept = {spec.name for spec in model.graph.outputs}
    more = tuple(TensorSpec(name, None, None) for name in values if name not in kept)
    return replace(model, graph=replace(model.graph, outputs=(*model.graph.outputs, *more)))


def _parting(node: Node, value: str, trace: Trace, difference: str) -> Divergence:
    operator = trace.places.get(node.name, "")
    origin = f", translated from {operator}" if operator else ""
    message = f"from node {node.name} ({node.op_type}{origin}) on: {difference}"
    return Divergence(node.name, node.op_type, value, operator, message)
