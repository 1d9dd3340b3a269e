"""The oracle beside a runtime: for every node the reference on the runtime's own inputs, and the clean float64 run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError, MissingKernelError
from ..graphs.evaluation import (
    Value,
    Values,
    call_node,
    captured_names,
    judge_call,
    run_call,
    start_values,
    stored_value,
)
from ..graphs.model import Model, Node
from ..graphs.subgraph_call import SubgraphCall
from ..operators.evaluation import Call
from ..operators.registry import parameters
from ..operators.scale import Array, Scale
from ..operators.storage import decode
from .distances import deviation, largest_gap


@dataclass(frozen=True)
class Local:
    """One node, computed by the oracle on the runtime's own input tensors.

    Attributes:
        call: the resolved kernel call, None where there is none.
        outputs: reference outputs.
        scales: their error scales; None where the operator has none.
        reason: why there is no reference, or why outputs whose scale judges nothing are left open, else "".
    """

    call: Call | None
    outputs: tuple[Value, ...]
    scales: tuple[Scale, ...] | None
    reason: str = ""


class Oracle:
    """Walks a graph in step with a runtime.

    `actual` holds the runtime's stored tensors, `clean` those of a float64 run that never saw the runtime; both are
    freed by the walk. Where the oracle has no kernel, the clean run takes over the runtime's tensor; `borrowed` says of
    every tensor behind such a node whose it is, so that nothing is compared with itself.
    """

    def __init__(self, model: Model, feeds: Mapping[str, Any]) -> None:
        self.clean: Values = start_values(model.graph, feeds)
        self.actual: dict[str, Any] = {name: value.data for name, value in self.clean.items()}
        self.borrowed: dict[str, str] = {}

    def missing(self, node: Node) -> list[str]:
        """Tensors that the node reads and that neither the runtime nor the oracle could compute."""
        return sorted(name for name in captured_names(node) if name in self.actual and self.actual[name] is None)

    def local(self, node: Node, *, scaled: bool = True) -> Local:
        """The reference for a node on the runtime's inputs, with error scales unless nobody needs them."""
        values = {name: stored_value(self.actual[name]) for name in captured_names(node)}
        try:
            call = call_node(node, values)
            outputs, scales = judge_call(node, call) if scaled else (run_call(node, call), None)
        except (MissingKernelError, InvalidInputError, InvalidAttributeError) as error:
            return Local(None, (), None, str(error))
        return Local(call, outputs, scales, call.doubt if scaled and isinstance(call, SubgraphCall) else "")

    def advance(self, node: Node, local: Local, outputs: Mapping[str, Any]) -> dict[str, float | None]:
        """Store the runtime's outputs of a node and compute its clean ones.

        Args:
            node: the node.
            local: its reference.
            outputs: what the runtime returned; where it returned nothing the reference takes its place.

        Returns:
            By output name, the largest |runtime − clean|; None where not numeric, of another shape or borrowed.
        """
        clean = self._clean_outputs(node, local)
        lenders = sorted({self.borrowed[name] for name in captured_names(node) if name in self.borrowed})
        lender = lenders[0] if lenders else node.name if clean is None else ""
        inherited: dict[str, float | None] = {}
        for index, name in enumerate(node.outputs):
            if not name:
                continue
            reference = local.outputs[index] if index < len(local.outputs) else None
            actual = _usable(outputs.get(name), reference)
            self.actual[name] = actual
            self.clean[name] = clean[index] if clean is not None and index < len(clean) else stored_value(actual)
            if lender:
                self.borrowed[name] = lender
            inherited[name] = None if lender else largest_gap(outputs.get(name), self.clean[name].data)
        return inherited

    def _clean_outputs(self, node: Node, local: Local) -> tuple[Value, ...] | None:
        if local.call is None:
            return None
        if isinstance(local.call, SubgraphCall):
            return self._recomputed(node)
        dirty = [i for i, name in enumerate(node.inputs) if name and not self._untouched(name)]
        if not dirty and node.op_type != "Cast":
            return local.outputs
        if len(dirty) == 1 and dirty[0] in local.call.entry.linear_in:
            moved = self._by_linearity(node, local, dirty[0])
            if moved is not None:
                return moved
        return self._recomputed(node)

    def _recomputed(self, node: Node) -> tuple[Value, ...] | None:
        try:
            return run_call(node, call_node(node, self.clean), clean=True)
        except (MissingKernelError, InvalidInputError, InvalidAttributeError):
            return None

    def _untouched(self, name: str) -> bool:
        """Whether the runtime's tensor is the clean one: a feed, a weight, or computed without any rounding."""
        clean, actual = self.clean[name].data, self.actual[name]
        if clean is actual:
            return True
        same_kind = isinstance(clean, np.ndarray) and isinstance(actual, np.ndarray) and clean.shape == actual.shape
        return same_kind and clean.size <= SMALL and np.array_equal(clean, decode(actual))

    def _by_linearity(self, node: Node, local: Local, position: int) -> tuple[Value, ...] | None:
        """op(clean) = op(actual) + op(clean − actual): the last, tiny, in float32 at full relative precision."""
        call = local.call
        name = node.inputs[position]
        clean, actual = self.clean[name].data, self.actual[name]
        if call is None or "precision" not in parameters(call.entry.function) or clean.shape != actual.shape:
            return None
        moved_by = deviation(clean, actual)
        if moved_by is None:
            return None
        inputs = tuple(
            moved_by if i == position else x if i in call.entry.linear_in else None for i, x in enumerate(call.inputs)
        )
        moved = dataclasses.replace(call, inputs=inputs, keywords={**call.keywords, "precision": np.float32})
        first = local.outputs[0]
        return (Value(first.data + moved.outputs()[0], first.dtype), *local.outputs[1:])


SMALL = 4096
"""Elements up to which tensors are compared to see whether the runtime rounded anything (shapes, indices, scalars)."""


def _usable(actual: Any, reference: Value | None) -> Any:
    """The runtime's tensor, or the reference as it would be stored where the runtime returned none of that kind."""
    if reference is None or not isinstance(reference.data, np.ndarray):
        return actual if actual is not None or reference is None else reference.data
    right = isinstance(actual, np.ndarray) and actual.shape == reference.data.shape
    if right and (reference.dtype is None or actual.dtype == reference.dtype):
        return actual
    with np.errstate(all="ignore"):
        return reference.data.astype(np.float32 if reference.dtype is None else reference.dtype)


def magnitude_like(scale: Scale, value: Array) -> Array:
    """The scale's magnitude, broadcast to a value."""
    return np.broadcast_to(scale.magnitude, value.shape)
