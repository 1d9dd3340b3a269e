"""If, Loop, Scan, SequenceMap and FlexAttention: what runs a node's subgraphs, how often, on which values.

The subgraphs themselves are run by whoever calls (`graphs.evaluation`): a `RunGraph` is given the graph, the values
that it sees, and the `Run` that says how; the run also counts, so that a loop without an end ends in an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx

from ..errors import InvalidAttributeError, InvalidInputError
from .memory import available_memory
from .model import Graph, Node, TensorSpec
from .values import Value, Values, decoded, decoded_once

LARGEST_NODE_RUNS = 1_000_000
"""Nodes that the subgraphs of one node may run in all, every iteration counting at least one."""

STEP_OPSET = 21
"""Of the operators that a control-flow operator itself is made of."""

MEMORY_SHARE = 4
"""A tensor that a subgraph computes, and all that a loop collects, may take this share (1 / 4) of the free memory."""


@dataclass
class Run:
    """How a graph is run, and what the run has met so far.

    Attributes:
        clean: do not round where a Cast goes between wide floating-point types.
        noise: move every floating-point output by an error of the size of its rounding.
        plain: compute every kernel in float32 with plain loops and store every tensor in its type.
        follow: the decisions of another run, taken in place of this run's own.
        decisions: which way every condition went, in order.
        node_runs: how many nodes of subgraphs were run.
        roundings: how many node outputs were moved by noise.
        widest: the largest certain bound of one of them over its standard deviation.
        doubts: why what was computed cannot be judged.
    """

    clean: bool = False
    noise: np.random.Generator | None = None
    plain: bool = False
    follow: Sequence[bool] | None = None
    decisions: list[bool] = field(default_factory=list)
    node_runs: int = 0
    roundings: int = 0
    widest: float = 1.0
    doubts: list[str] = field(default_factory=list)
    largest_bytes: int = field(default_factory=lambda: available_memory() // MEMORY_SHARE)
    starts: dict[int, Values] = field(default_factory=dict)
    """By id of a subgraph, its initializers as the nodes in it read them."""

    def decide(self, answer: bool) -> bool:
        """Note a condition; the answer is this run's, or that of the run that it follows."""
        at = len(self.decisions)
        taken = answer if self.follow is None or at >= len(self.follow) else self.follow[at]
        self.decisions.append(taken)
        return taken

    def count(self, nodes: int, who: str) -> None:
        """Count nodes of subgraphs.

        Raises:
            InvalidInputError: more than `LARGEST_NODE_RUNS`.
        """
        self.node_runs += nodes
        if self.node_runs > LARGEST_NODE_RUNS:
            raise InvalidInputError(
                f"node {who}: its subgraphs run more than {LARGEST_NODE_RUNS} nodes; that is the limit"
            )

    def weigh(self, size_bytes: int, who: str) -> None:
        """Check the size of what a subgraph computed or a loop has collected.

        Raises:
            InvalidInputError: more than a quarter of the memory that was free at the start.
        """
        if size_bytes > self.largest_bytes:
            raise InvalidInputError(
                f"node {who}: {size_bytes} bytes computed by its subgraphs; at most {self.largest_bytes} are allowed, "
                f"1 / {MEMORY_SHARE} of the free memory"
            )


class RunGraph(Protocol):
    """Runs a subgraph."""

    def __call__(self, graph: Graph, values: Values, run: Run) -> tuple[Value, ...]:
        """The outputs of `graph` where `values` holds its inputs and what it sees of the graphs around it."""
        ...


@dataclass(frozen=True)
class Flow:
    """One control-flow node on its way: what its subgraphs see, and how they are run."""

    node: Node
    scope: Mapping[str, Value]
    run_graph: RunGraph
    run: Run

    def call(self, attribute: str, inputs: Sequence[Value]) -> tuple[Value, ...]:
        """Run the subgraph in `attribute` once.

        Raises:
            InvalidInputError: it takes another number of inputs, or the run has reached a limit.
        """
        graph = self.graph(attribute)
        formal = _formal_inputs(graph, len(inputs))
        if len(formal) != len(inputs):
            raise InvalidInputError(
                f"node {self.node.name}: its {attribute} takes {len(formal)} inputs, {len(inputs)} are given"
            )
        self.run.count(max(1, len(graph.nodes)), self.node.name)
        values = {**self.scope, **self._start(graph)}
        values.update({spec.name: _typed(value, spec) for spec, value in zip(formal, inputs, strict=True)})
        outputs = self.run_graph(graph, values, self.run)
        results = [Value(decoded(value.data), value.dtype) for value in outputs]
        self.run.weigh(sum(map(_size_bytes, results)), self.node.name)
        return tuple(_typed(value, spec) for value, spec in zip(results, graph.outputs, strict=True))

    def apply(self, op_type: str, *inputs: Value) -> Value:
        """One operator of ai.onnx, as a node of a subgraph would be run."""
        names = tuple(f"in{i}" for i in range(len(inputs)))
        node = Node(f"{self.node.name}/{op_type}", op_type, "", names, ("out",), {}, STEP_OPSET, 0)
        graph = Graph(self.node.name, (node,), (), (TensorSpec("out", None, None),), {})
        self.run.count(1, self.node.name)
        (output,) = self.run_graph(graph, dict(zip(names, inputs, strict=True)), self.run)
        return Value(decoded(output.data), output.dtype)

    def graph(self, attribute: str) -> Graph:
        """The subgraph in an attribute.

        Raises:
            InvalidAttributeError: there is none.
        """
        graph = self.node.attributes.get(attribute)
        if not isinstance(graph, Graph):
            raise InvalidAttributeError(f"node {self.node.name} ({self.node.op_type}) has no graph {attribute!r}")
        return graph

    def _start(self, graph: Graph) -> Values:
        if id(graph) not in self.run.starts:
            known = {name: Value(decoded_once(array), array.dtype) for name, array in graph.initializers.items()}
            self.run.starts[id(graph)] = known
        return self.run.starts[id(graph)]

    def fail(self, text: str) -> InvalidInputError:
        """An error that names the node."""
        return InvalidInputError(f"node {self.node.name} ({self.node.op_type}): {text}")


def _formal_inputs(graph: Graph, given: int) -> Sequence[TensorSpec]:
    """The inputs of a subgraph; old files list its initializers among them."""
    if len(graph.inputs) <= given:
        return graph.inputs
    return [spec for spec in graph.inputs if spec.name not in graph.initializers]


def _typed(value: Value, spec: TensorSpec) -> Value:
    """A value whose dtype is the declared one where nothing else determines it."""
    return value if value.dtype is not None or value.data is None else Value(value.data, spec.dtype)


def _single(flow: Flow, value: Value, what: str) -> Any:
    data = np.asarray(value.data)
    if data.size != 1:
        raise flow.fail(f"{what} has shape {list(data.shape)}, one element is needed")
    return data.reshape(()).item()


def _if(flow: Flow, inputs: Sequence[Value]) -> list[Value]:
    """Run one of two subgraphs. Spec: If, since 1."""
    taken = flow.run.decide(bool(_single(flow, inputs[0], "the condition")))
    return list(flow.call("then_branch" if taken else "else_branch", ()))


def _loop(flow: Flow, inputs: Sequence[Value]) -> list[Value]:
    """Run the body while the condition holds, at most M times. Spec: Loop, since 1."""
    given = [value for value in inputs[:2] if value.data is not None]
    limit = None if len(inputs) < 1 or inputs[0].data is None else int(_single(flow, inputs[0], "the trip count"))
    holds = len(inputs) < 2 or inputs[1].data is None or bool(_single(flow, inputs[1], "the condition"))
    reads_condition = len(given) == 2 or (len(given) == 1 and limit is None)
    carried, graph = list(inputs[2:]), flow.graph("body")
    collected: list[list[Value]] = [[] for _ in graph.outputs[1 + len(carried) :]]
    index, held = 0, 0
    while flow.run.decide((limit is None or index < limit) and holds):
        results = flow.call("body", [*_loop_variables(graph, index, holds), *carried])
        answer = bool(_single(flow, results[0], "the condition that the body returns"))
        holds = answer if reads_condition else holds
        if not (answer or reads_condition or flow.run.doubts):
            flow.run.doubts.append(
                f"node {flow.node.name}: whether a condition that no input gives ends a Loop is open"
            )
        carried = list(results[1 : 1 + len(carried)])
        for values, value in zip(collected, results[1 + len(carried) :], strict=True):
            values.append(value)
            held += _size_bytes(value)
        flow.run.weigh(held, flow.node.name)
        index += 1
    specs = graph.outputs[1 + len(carried) :]
    return [*carried, *(_stacked(flow, values, spec) for values, spec in zip(collected, specs, strict=True))]


def _loop_variables(graph: Graph, index: int, holds: bool) -> tuple[Value, Value]:
    """Iteration number and condition, of the rank (0 or 1) that the body declares."""
    values = np.array(index, np.int64), np.array(holds)
    shaped = [
        value.reshape(1) if spec.shape is not None and len(spec.shape) == 1 else value
        for value, spec in zip(values, graph.inputs[:2], strict=False)
    ]
    return tuple(Value(value, value.dtype) for value in shaped)  # type: ignore[return-value]


def _size_bytes(value: Value) -> int:
    tensors = value.data if isinstance(value.data, list) else [value.data]
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, np.ndarray))


def _stacked(flow: Flow, values: Sequence[Value], spec: TensorSpec, axis: int = 0) -> Value:
    """What a loop has collected, along a new axis; of a loop that never ran, no elements of the declared shape."""
    if not values:
        shape = [size if isinstance(size, int) else 0 for size in spec.shape or ()]
        dtype = np.dtype(np.float32) if spec.dtype is None else spec.dtype
        shape.insert(axis + (len(shape) + 1) * (axis < 0), 0)
        return Value(decoded(np.zeros(shape, dtype)), dtype)
    shapes = {np.shape(value.data) for value in values}
    if len(shapes) > 1:
        raise flow.fail(f"output {spec.name!r} of its body changes its shape: {', '.join(map(str, sorted(shapes)))}")
    (shape,) = shapes
    if not -len(shape) - 1 <= axis <= len(shape):
        raise flow.fail(f"axis {axis} for outputs of {len(shape) + 1} dimensions")
    return Value(np.stack([value.data for value in values], axis=axis), values[0].dtype)


def _scan(flow: Flow, inputs: Sequence[Value]) -> list[Value]:
    """Run the body over slices of some inputs. Spec: Scan, since 9."""
    attributes, graph = flow.node.attributes, flow.graph("body")
    count = int(attributes["num_scan_inputs"])
    states, scanned = list(inputs[: len(inputs) - count]), inputs[len(inputs) - count :]
    outputs = len(graph.outputs) - len(states)
    axes = _flags(flow, "scan_input_axes", count)
    reverse = _flags(flow, "scan_input_directions", count)
    slices = [_slices(flow, *each) for each in zip(scanned, axes, reverse, strict=True)]
    if len({len(each) for each in slices}) != 1:
        raise flow.fail(f"its inputs are scanned over {[len(each) for each in slices]} slices; all need the same")
    states, collected = _scanned(flow, states, slices)
    backwards = _flags(flow, "scan_output_directions", outputs)
    specs = graph.outputs[len(states) :]
    results = [
        _stacked(flow, values[::-1] if flag else values, spec, axis)
        for values, spec, flag, axis in zip(
            collected, specs, backwards, _flags(flow, "scan_output_axes", outputs), strict=True
        )
    ]
    return [*states, *results]


def _flags(flow: Flow, name: str, count: int) -> list[int]:
    flags = flow.node.attributes.get(name)
    if flags is not None and len(flags) != count:
        raise flow.fail(f"{name} has {len(flags)} values, {count} are needed")
    return [0] * count if flags is None else [int(flag) for flag in flags]


def _slices(flow: Flow, value: Value, axis: int, reverse: int) -> list[Value]:
    data = np.asarray(value.data)
    if not -data.ndim <= axis < data.ndim:
        raise flow.fail(f"axis {axis} is outside [-{data.ndim}, {data.ndim})")
    order = range(data.shape[axis])
    return [Value(data.take(i, axis=axis), value.dtype) for i in (reversed(order) if reverse else order)]


def _scanned(
    flow: Flow, states: list[Value], slices: Sequence[Sequence[Value]]
) -> tuple[list[Value], list[list[Value]]]:
    """The final states, and what every further output of the body was at each slice."""
    collected: list[list[Value]] = [[] for _ in flow.graph("body").outputs[len(states) :]]
    held = 0
    for elements in zip(*slices, strict=True):
        results = flow.call("body", [*states, *elements])
        states = list(results[: len(states)])
        for values, value in zip(collected, results[len(states) :], strict=True):
            values.append(value)
            held += _size_bytes(value)
        flow.run.weigh(held, flow.node.name)
    return states, collected


def _scan_batched(flow: Flow, inputs: Sequence[Value]) -> list[Value]:
    """Run the body over axis 1 of some inputs, for every element of axis 0. Spec: Scan, since 8."""
    count = int(flow.node.attributes["num_scan_inputs"])
    lengths, states, scanned = inputs[0].data, inputs[1 : len(inputs) - count], inputs[len(inputs) - count :]
    batch, longest = np.shape(scanned[0].data)[:2]
    reverse = _flags(flow, "directions", count)
    rows = []
    for n in range(batch):
        length = longest if lengths is None else int(lengths[n])
        slices = [
            _slices(flow, Value(value.data[n][:length], value.dtype), 0, flag)
            for value, flag in zip(scanned, reverse, strict=True)
        ]
        finals, collected = _scanned(flow, [Value(value.data[n], value.dtype) for value in states], slices)
        specs = flow.graph("body").outputs[len(states) :]
        stacks = [_stacked(flow, values, spec) for values, spec in zip(collected, specs, strict=True)]
        rows.append([*finals, *(_padded(stack, longest) for stack in stacks)])
    return [Value(np.stack([value.data for value in each]), each[0].dtype) for each in zip(*rows, strict=True)]


def _padded(value: Value, length: int) -> Value:
    return Value(np.pad(value.data, [(0, length - len(value.data)), *[(0, 0)] * (value.data.ndim - 1)]), value.dtype)


def undefined_elements(node: Node, inputs: Sequence[Any], position: int, shape: Sequence[int]) -> np.ndarray:
    """Which elements of an output the specification does not define: a shorter sequence's padding in Scan since 8.

    Args:
        node: the control-flow node.
        inputs: its inputs' data.
        position: of the output.
        shape: of the output.

    Returns:
        bool, broadcastable to `shape`.
    """
    batched = node.op_type == "Scan" and node.opset < 9 and inputs[0] is not None
    if not batched or position < len(inputs) - 1 - int(node.attributes["num_scan_inputs"]):
        return np.zeros((), bool)
    outside = np.arange(shape[1]) >= np.asarray(inputs[0])[:, None]
    return outside.reshape(*outside.shape, *(1,) * (len(shape) - 2))


def _sequence_map(flow: Flow, inputs: Sequence[Value]) -> list[Value]:
    """Run the body for every tensor of a sequence. Spec: SequenceMap, since 17."""
    length = len(inputs[0].data)
    uneven = [len(value.data) for value in inputs if isinstance(value.data, list) and len(value.data) != length]
    if uneven:
        raise flow.fail(f"sequences of {length} and {uneven[0]} tensors; all need the same number")
    rows = [flow.call("body", [_element(value, i) for value in inputs]) for i in range(length)]
    specs = flow.graph("body").outputs
    return [
        Value([row[i].data for row in rows], rows[0][i].dtype if rows else spec.dtype) for i, spec in enumerate(specs)
    ]


def _element(value: Value, index: int) -> Value:
    if not isinstance(value.data, list):
        return value
    item = value.data[index]
    return Value(item, item.dtype if value.dtype is None else value.dtype)


def _flex_attention(flow: Flow, inputs: Sequence[Value]) -> list[Value]:
    """Scores, softmax and the sum over values, with a subgraph behind either. Spec: FlexAttention, since 1.

    As in its function body, queries and keys are each multiplied by the root of the factor in their own type, and what
    follows is computed in the precision of the softmax.
    """
    q, k, v = inputs
    ranks = [np.ndim(value.data) for value in inputs]
    if ranks != [4, 4, 4] or not k.data.shape[1] or q.data.shape[1] % k.data.shape[1]:
        raise flow.fail(f"its inputs have shapes {[list(np.shape(value.data)) for value in inputs]}")
    attributes, shared = flow.node.attributes, q.data.shape[1] // k.data.shape[1]
    factor = attributes.get("scale", 1 / math.sqrt(q.data.shape[-1]))
    root = Value(np.array(math.sqrt(abs(factor))), q.dtype)
    code = attributes.get("softmax_precision")
    given = np.dtype(np.float32) if q.dtype != np.float64 else q.dtype
    dtype = given if code is None else onnx.helper.tensor_dtype_to_np_dtype(code)
    keys = Value(decoded(k.data).repeat(shared, axis=1).swapaxes(2, 3) * math.copysign(1, factor), k.dtype)
    left, right = flow.apply("Mul", q, root), flow.apply("Mul", keys, root)
    scores = Value(flow.apply("MatMul", left, right).data, dtype)
    if "score_mod" in attributes:
        (scores,) = flow.call("score_mod", [scores])
    chances = flow.apply("Softmax", scores)
    if "prob_mod" in attributes:
        (chances,) = flow.call("prob_mod", [chances])
    values = Value(decoded(v.data).repeat(shared, axis=1), dtype)
    y = flow.apply("MatMul", chances, values)
    # Stored in its own type: a product with 1 is rounded to it.
    return [flow.apply("Mul", Value(y.data, q.dtype), Value(np.array(1.0), q.dtype))]


_FLOWS: Mapping[tuple[str, int], Callable[[Flow, Sequence[Value]], list[Value]]] = {
    ("If", 1): _if,
    ("Loop", 1): _loop,
    ("Scan", 8): _scan_batched,
    ("Scan", 9): _scan,
    ("SequenceMap", 17): _sequence_map,
}

_PREVIEW: Mapping[tuple[str, int], Callable[[Flow, Sequence[Value]], list[Value]]] = {
    ("FlexAttention", 1): _flex_attention,
}

_DOMAINS = {"": _FLOWS, "ai.onnx.preview": _PREVIEW}


def find_flow(node: Node) -> Callable[[Flow, Sequence[Value]], list[Value]] | None:
    """What runs a control-flow node at its opset, or None."""
    flows = _DOMAINS.get(node.domain, {})
    known = [since for op_type, since in flows if op_type == node.op_type and since <= node.opset]
    return flows[node.op_type, max(known)] if known else None
