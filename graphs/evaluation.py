"""Evaluate a graph node by node in float64, and say how far rounding at every node can move its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx

from ..errors import InvalidInputError, MissingKernelError
from ..operators.evaluation import Call, output_dtypes, prepare
from ..operators.plain import plain_outputs
from ..operators.rounding import growth, half_unit, natural_spread
from ..operators.scale import Rule, Scale, exact
from ..operators.storage import FloatFormat, decode, encode, float_format, is_float
from .control_flow import Run
from .model import Graph, Model, Node
from .subgraph_call import SubgraphCall, subgraph_call
from .values import Value, Values, flattened, stored_value

WIDE_FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})
"""Types between which a clean run does not round at a Cast: there the type is storage, not semantics."""


REFUSALS = (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, MemoryError)
"""What a kernel raises on inputs or attributes that it cannot take: a stride of 0, a window of 2^31 elements."""


def call_node(node: Node, values: Mapping[str, Value]) -> Call:
    """Resolve a node to a kernel call on these values.

    Raises:
        MissingKernelError: no kernel for it.
        InvalidAttributeError: an attribute that the kernel does not know.
    """
    if any(isinstance(attribute, Graph) for attribute in node.attributes.values()):
        scope = {name: values[name] for name in captured_names(node)}
        return subgraph_call(node, scope, run_graph)
    inputs = [values[name] if name else Value(None, None) for name in node.inputs]
    return prepare(
        node.op_type,
        [value.data for value in inputs],
        node.attributes,
        opset=node.opset,
        domain=node.domain,
        output_count=len(node.outputs),
        stored=[value.dtype for value in inputs],
    )


def run_call(node: Node, call: Call, *, clean: bool = False) -> tuple[Value, ...]:
    """The outputs of a call with their dtypes; a `clean` run does not round where a Cast goes between wide floats.

    Raises:
        InvalidInputError: the kernel cannot take these inputs (shapes that do not go together).
    """
    if isinstance(call, SubgraphCall):
        return call.run(Run(clean=True)) if clean else call.reference[0]
    if clean and node.op_type == "Cast" and _passes(call):
        target = np.dtype(_dtype_of_code(int(call.keywords["to"])))
        return (Value(call.inputs[0], target),)
    with _guarded(node, call):
        outputs = call.outputs()
    return _values(call, outputs)


def judge_call(node: Node, call: Call) -> tuple[tuple[Value, ...], tuple[Scale, ...] | None]:
    """The outputs of a call and their error scales, None where the operator has none.

    Raises:
        InvalidInputError: the kernel cannot take these inputs.
    """
    if isinstance(call, SubgraphCall):
        return call.reference[0], call.scales(call.reference[0])
    with _guarded(node, call):
        outputs, scales = call.judged()
    return _values(call, outputs), scales


@contextmanager
def _guarded(node: Node, call: Call) -> Iterator[None]:
    try:
        yield
    except REFUSALS as error:
        shapes = ", ".join(str(getattr(x, "shape", None)) for x in call.inputs)
        raise InvalidInputError(f"node {node.name} ({node.op_type}): inputs of shapes {shapes}: {error}") from error


def _values(call: Call, outputs: Sequence[Any]) -> tuple[Value, ...]:
    dtypes = output_dtypes(call, outputs)
    return tuple(Value(_light(data), dtype) for data, dtype in zip(outputs, dtypes, strict=True))


def _light(data: Any) -> Any:
    """Narrow floats decoded; float32 and float64 as they are."""
    return data if isinstance(data, np.ndarray) and data.dtype == np.float32 else _plain(data)


def _plain(data: Any) -> Any:
    return decode(data) if isinstance(data, np.ndarray) else data


def _dtype_of_code(code: int) -> np.dtype[Any]:
    return onnx.helper.tensor_dtype_to_np_dtype(code)


def _passes(call: Call) -> bool:
    source = call.stored[0]
    target = _dtype_of_code(int(call.keywords["to"]))
    return source is not None and source.name in WIDE_FLOATS and target.name in WIDE_FLOATS


def last_uses(graph: Graph) -> dict[str, int]:
    """Index of the node after which each tensor is needed no more; graph outputs are never freed."""
    uses: dict[str, int] = {}
    for node in graph.nodes:
        for name in captured_names(node):
            uses[name] = node.index
        for name in node.outputs:
            uses.setdefault(name, node.index)
    for output in graph.outputs:
        uses[output.name] = len(graph.nodes)
    return uses


def captured_names(node: Node) -> set[str]:
    """Every tensor of the enclosing graph that a node reads, by its inputs or inside its subgraphs."""
    names = {name for name in node.inputs if name}
    for attribute in node.attributes.values():
        if isinstance(attribute, Graph):
            names |= _free_names(attribute)
    return names


def _free_names(graph: Graph) -> set[str]:
    bound = {spec.name for spec in graph.inputs} | set(graph.initializers)
    free: set[str] = set()
    for node in graph.nodes:
        free |= captured_names(node) - bound
        bound |= set(node.outputs)
    return free | ({spec.name for spec in graph.outputs} - bound)


def start_values(graph: Graph, feeds: Mapping[str, Any]) -> Values:
    """The values that exist before the first node: initializers, overridden by what is fed."""
    values = {name: stored_value(tensor) for name, tensor in graph.initializers.items()}
    values.update({name: stored_value(tensor) for name, tensor in feeds.items()})
    return values


def free_values(values: dict[str, Any], node: Node, uses: Mapping[str, int]) -> None:
    """Drop the tensors that no later node needs."""
    for name in {*captured_names(node), *node.outputs}:
        if uses.get(name, -1) <= node.index:
            values.pop(name, None)


Observer = Callable[[Node, tuple[Value, ...]], None]


def evaluate_model(
    model: Model,
    feeds: Mapping[str, Any],
    observe: Observer | None = None,
    *,
    noise: np.random.Generator | None = None,
) -> dict[str, Any]:
    """Run a model in float64; tensors are freed after their last use.

    Args:
        model: a loaded model.
        feeds: stored input tensors by name.
        observe: called with every node and its outputs.
        noise: if given, every node's floating-point outputs are moved by normal errors of the size that rounding to
            their stored type causes there (Monte-Carlo arithmetic).

    Returns:
        The model's outputs by name, float64 where floating-point.

    Raises:
        MissingKernelError: an operator without a kernel; names the node.
        InvalidInputError: a node whose inputs do not go together.
    """
    outputs = run_graph(model.graph, start_values(model.graph, feeds), Run(clean=True, noise=noise), observe)
    return {spec.name: _plain(value.data) for spec, value in zip(model.graph.outputs, outputs, strict=True)}


def run_graph(graph: Graph, values: Values, run: Run, observe: Observer | None = None) -> tuple[Value, ...]:
    """Run a graph, or a subgraph, node by node.

    Args:
        graph: its nodes in topological order.
        values: its inputs and initializers, and for a subgraph what it sees of the graphs around it; used up.
        run: how, and what is counted.
        observe: called with every node and its outputs.

    Returns:
        The graph's outputs in order.

    Raises:
        MissingKernelError: an operator without a kernel; names the node.
        InvalidInputError: a node whose inputs do not go together, or a limit of control flow.
    """
    uses = last_uses(graph)
    for node in graph.nodes:
        outputs = _evaluate_node(node, values, run)
        if observe is not None:
            observe(node, outputs)
        values.update({name: value for name, value in zip(node.outputs, outputs, strict=False) if name})
        free_values(values, node, uses)
    return tuple(values[spec.name] for spec in graph.outputs)


def _evaluate_node(node: Node, values: Values, run: Run) -> tuple[Value, ...]:
    try:
        call = call_node(node, values)
        if isinstance(call, SubgraphCall):
            return call.run(run)
    except MissingKernelError as error:
        raise MissingKernelError(f"node {node.name}: {error}") from error
    if run.plain and call.entry.scale is not exact:
        return _in_plain_float32(node, call)
    outputs = run_call(node, call, clean=run.clean)
    if run.noise is None:
        return outputs
    return _perturbed(node, call, outputs, run, run.noise)


def _in_plain_float32(node: Node, call: Call) -> tuple[Value, ...]:
    """The outputs of a call in float32 with plain loops, rounded to the types in which they are stored."""
    try:
        data = plain_outputs(call)
    except REFUSALS as error:
        raise InvalidInputError(f"node {node.name} ({node.op_type}) in float32: {error}") from error
    dtypes = output_dtypes(call, data)
    return tuple(
        Value(decode(encode(x, dtype)) if dtype is not None and is_float(dtype) else x, dtype)
        for x, dtype in zip(data, dtypes, strict=True)
    )


def _perturbed(
    node: Node, call: Call, outputs: Sequence[Value], run: Run, noise: np.random.Generator
) -> tuple[Value, ...]:
    scales = call.scales([value.data for value in outputs])  # apart from the values: both in one pass would hold more
    if scales is None:
        run.doubts.append(f"node {node.name}: {node.op_type} has no error scale")
        return tuple(outputs)
    moved = []
    for value, scale in zip(outputs, scales, strict=False):
        if scale.rule is Rule.DISTRIBUTION:
            run.doubts.append(f"node {node.name}: {node.op_type} draws random values")
        if value.dtype is None or not is_float(value.dtype) or not isinstance(value.data, np.ndarray):
            moved.append(value)
            continue
        format_ = float_format(value.dtype)
        spread = natural_spread(scale, value.data, format_)
        size = np.nan_to_num(scale.magnitude * spread * half_unit(format_), posinf=0.0)
        error = np.asarray(noise.standard_normal(value.data.shape))
        error *= size
        error += value.data  # in place: of the largest tensors only one more is held
        moved.append(Value(error, value.dtype))
        _note_rounding(run, scale, spread, format_)
    return (*moved, *outputs[len(moved) :])


def _note_rounding(run: Run, scale: Scale, spread: np.ndarray, format_: FloatFormat) -> None:
    """Count a rounding, and how far its certain bound lies beyond its standard deviation."""
    terms = np.asarray(scale.terms, np.float64)
    largest = float(terms[np.isfinite(terms)].max(initial=0.0))
    if scale.rule is Rule.EXACT or largest == 0:
        return
    bound = largest if scale.rule is Rule.ULP else 2.0 * growth(largest, format_)
    run.roundings += 1
    run.widest = max(run.widest, bound / float(np.min(spread[spread > 0], initial=bound)))


INDICES = frozenset({"int32", "uint32", "int64", "uint64"})
"""Types whose values need not be near one another when rounding decides between them: positions, counts, labels."""


def propagated_spread(
    model: Model, feeds: Mapping[str, Any], *, samples: int = 4, seed: int = 0
) -> dict[str, np.ndarray]:
    """How far the outputs move when every node rounds to its stored type.

    Args:
        model: a loaded model.
        feeds: stored input tensors by name.
        samples: perturbed float64 runs.
        seed: of the perturbations.

    Returns:
        By output name, float64 arrays of the output's shape, for a sequence or a map of its elements in one row; 0
        where no rounding happens. Of floating-point outputs one standard deviation; of others the largest distance
        that a sample has taken any element, since few of them meet what lies in the middle between two steps; of
        `INDICES` and of text, whose distances say nothing, infinity where any has moved.
    """
    clean = evaluate_model(model, feeds)
    rows = {name: _in_one_row(value)[1] for name, value in clean.items()}
    total = {name: np.zeros(row.shape) for name, row in rows.items()}
    for sample in range(samples):
        moved = evaluate_model(model, feeds, noise=np.random.default_rng([seed, sample]))
        for name, value in clean.items():
            distances = _distances(moved[name], value)
            if rows[name].dtype.kind == "f":
                with np.errstate(over="ignore"):
                    total[name] += distances**2
            else:
                np.maximum(total[name], distances, out=total[name])
    return {
        name: np.sqrt(value / samples) if rows[name].dtype.kind == "f" else _reach(value, rows[name].dtype)
        for name, value in total.items()
    }


def _in_one_row(value: Any) -> tuple[Any, np.ndarray]:
    return (value.shape, value) if isinstance(value, np.ndarray) else flattened(value)


def _distances(moved: Any, clean: Any) -> np.ndarray:
    """How far a sample has moved each element; infinitely what has another shape now, which 1 stands for in floats."""
    (there, moved), (here, clean) = _in_one_row(moved), _in_one_row(clean)
    if there != here:
        return np.full(clean.shape, 1.0 if clean.dtype.kind == "f" else np.inf)
    if clean.dtype.kind == "f":
        with np.errstate(invalid="ignore", over="ignore"):
            return np.abs(np.nan_to_num(moved - clean))
    return discrete_distances(moved, clean)


def discrete_distances(moved: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """How far elements that are no floating-point numbers lie apart; of text only whether they are the same."""
    if clean.dtype.kind in "biu" and moved.dtype.kind in "biu":
        return np.abs(moved.astype(np.float64) - clean.astype(np.float64))
    return np.where(np.asarray(moved == clean), 0.0, np.inf)


def _reach(distances: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """How far rounding takes discrete elements, from the largest distance that a sample has moved each."""
    largest = float(distances.max(initial=0.0))
    return np.full(distances.shape, np.inf if largest and dtype.name in INDICES else largest)


__all__ = ["Value", "Values", "call_node", "evaluate_model", "propagated_spread", "run_call", "stored_value"]
