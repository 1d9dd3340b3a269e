"""Evaluate a graph node by node in float64, and say how far rounding at every node can move its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidInputError, MissingKernelError
from ..operators.evaluation import Call, output_dtypes, prepare
from ..operators.rounding import half_unit, natural_spread
from ..operators.scale import Scale
from ..operators.storage import decode, float_format, is_float
from .model import Graph, Model, Node

WIDE_FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})
"""Types between which a clean run does not round at a Cast: there the type is storage, not semantics."""


@dataclass(frozen=True)
class Value:
    """A tensor of a float64 run: its values, and the dtype in which a runtime would store them.

    Attributes:
        data: float64 where floating-point (a float32 weight may stay as stored), as stored otherwise; a list of
            Values' data for a sequence, None for an absent optional.
        dtype: stored dtype, None where it is not determined.
    """

    data: Any
    dtype: np.dtype[Any] | None


def stored_value(tensor: Any) -> Value:
    """A value from a stored tensor, not yet decoded (the kernel's seam does that)."""
    return Value(tensor, tensor.dtype if isinstance(tensor, np.ndarray) else None)


Values = dict[str, Value]


def call_node(node: Node, values: Mapping[str, Value]) -> Call:
    """Resolve a node to a kernel call on these values.

    Raises:
        MissingKernelError: no kernel for it, or it holds a subgraph (control flow).
        InvalidAttributeError: an attribute that the kernel does not know.
    """
    if any(isinstance(attribute, Graph) for attribute in node.attributes.values()):
        raise MissingKernelError(f"no kernel for {node.op_type}: control flow over subgraphs is not evaluated yet")
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
    with _guarded(node, call):
        outputs, scales = call.judged()
    return _values(call, outputs), scales


@contextmanager
def _guarded(node: Node, call: Call) -> Iterator[None]:
    try:
        yield
    except (ValueError, IndexError, TypeError) as error:
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
    import onnx

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
    values = start_values(model.graph, feeds)
    uses = last_uses(model.graph)
    for node in model.graph.nodes:
        outputs = _evaluate_node(node, values, noise)
        if observe is not None:
            observe(node, outputs)
        values.update({name: value for name, value in zip(node.outputs, outputs, strict=False) if name})
        free_values(values, node, uses)
    return {spec.name: _plain(values[spec.name].data) for spec in model.graph.outputs}


def _evaluate_node(node: Node, values: Values, noise: np.random.Generator | None) -> tuple[Value, ...]:
    try:
        call = call_node(node, values)
    except MissingKernelError as error:
        raise MissingKernelError(f"node {node.name}: {error}") from error
    outputs = run_call(node, call, clean=True)
    return outputs if noise is None else _perturbed(call, outputs, noise)


def _perturbed(call: Call, outputs: Sequence[Value], noise: np.random.Generator) -> tuple[Value, ...]:
    scales = call.scales([value.data for value in outputs])
    if scales is None:
        return tuple(outputs)
    moved = []
    for value, scale in zip(outputs, scales, strict=False):
        if value.dtype is None or not is_float(value.dtype) or not isinstance(value.data, np.ndarray):
            moved.append(value)
            continue
        format_ = float_format(value.dtype)
        size = scale.magnitude * natural_spread(scale, value.data, format_) * half_unit(format_)
        error = noise.standard_normal(value.data.shape) * np.nan_to_num(size, posinf=0.0)
        moved.append(Value(value.data + error, value.dtype))
    return (*moved, *outputs[len(moved) :])


def propagated_spread(
    model: Model, feeds: Mapping[str, Any], *, samples: int = 4, seed: int = 0
) -> dict[str, np.ndarray]:
    """How far the outputs move when every node rounds to its stored type: one standard deviation per element.

    Args:
        model: a loaded model.
        feeds: stored input tensors by name.
        samples: perturbed float64 runs.
        seed: of the perturbations.

    Returns:
        By output name, float64 arrays of the output's shape; 0 where no rounding happens; for outputs that are not
        floating-point, the root mean square of (sample != clean).
    """
    clean = evaluate_model(model, feeds)
    total = {name: np.zeros(np.shape(value)) for name, value in clean.items()}
    for sample in range(samples):
        moved = evaluate_model(model, feeds, noise=np.random.default_rng([seed, sample]))
        for name, value in clean.items():
            total[name] += _squared_difference(moved[name], value)
    return {name: np.sqrt(value / samples) for name, value in total.items()}


def _squared_difference(moved: Any, clean: Any) -> Any:
    if isinstance(clean, np.ndarray) and clean.dtype.kind == "f" and np.shape(moved) == clean.shape:
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(moved - clean) ** 2
    return np.asarray(not np.array_equal(moved, clean), np.float64)


__all__ = ["Value", "Values", "call_node", "evaluate_model", "propagated_spread", "run_call"]
