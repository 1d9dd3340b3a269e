"""How much memory a check of a model takes, before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil

from ..errors import InvalidModelError
from .model import Graph, Model
from .tensors import element_dtype

WORKING_SETS = 4
"""A node's tensors are held as the runtime stored them, as float64 (twice float32), and for the error scale."""

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_CGROUP_USE = Path("/sys/fs/cgroup/memory.current")
_GIGABYTE = 1e9

Shapes = Mapping[str, Sequence[int]]


def required_memory(model: Model, feeds_shapes: Shapes) -> int:
    """Estimate the peak memory of checking a model.

    Args:
        model: a loaded model.
        feeds_shapes: shape of every fed input.

    Returns:
        Bytes: the model mapped, plus 4 × the inputs and outputs of the node that has the most. Tensors whose
        shapes cannot be inferred count as nothing.
    """
    sizes = tensor_sizes(model, feeds_shapes)
    sizes.update({name: array.nbytes for name, array in model.graph.initializers.items()})
    sizes.update(_feed_sizes(model.graph, feeds_shapes))
    sets = [sum(sizes.get(name, 0) for name in {*node.inputs, *node.outputs}) for node in model.graph.nodes]
    largest = max([*sets, sum(_feed_sizes(model.graph, feeds_shapes).values())])
    return model.size_bytes + WORKING_SETS * largest


def ensure_fits(model: Model, feeds: Mapping[str, Any]) -> None:
    """Check that a model can be run on these feeds in the memory that is available.

    Raises:
        InvalidModelError: it needs more; the message has both numbers.
    """
    ensure_shapes_fit(model, {name: value.shape for name, value in feeds.items() if isinstance(value, np.ndarray)})


def ensure_shapes_fit(model: Model, feeds_shapes: Shapes) -> None:
    """As `ensure_fits`, before the feeds exist.

    Raises:
        InvalidModelError: it needs more; the message has both numbers.
    """
    needed, available = required_memory(model, feeds_shapes), available_memory()
    if needed > available:
        raise InvalidModelError(
            f"{model.path}: needs about {needed / _GIGABYTE:.1f} GB of memory with inputs {_shown(feeds_shapes)}, "
            f"{available / _GIGABYTE:.1f} GB are available"
        )


def available_memory() -> int:
    """Bytes that this process may still take: of the machine, and of its control group where that has a limit."""
    available = psutil.virtual_memory().available
    try:
        limit, used = _CGROUP_LIMIT.read_text().strip(), _CGROUP_USE.read_text().strip()
    except OSError:
        return available
    return min(available, max(0, int(limit) - int(used))) if limit.isdigit() and used.isdigit() else available


def _shown(shapes: Shapes) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in list(shapes.items())[:3]) or "none"


def _feed_sizes(graph: Graph, shapes: Shapes) -> dict[str, int]:
    itemsizes = {spec.name: spec.dtype.itemsize for spec in graph.inputs if spec.dtype is not None}
    return {name: math.prod(shape) * itemsizes.get(name, 0) for name, shape in shapes.items()}


def tensor_sizes(model: Model, shapes: Shapes) -> dict[str, int]:
    """Bytes of the tensors whose shapes onnx infers once the inputs have concrete ones."""
    return {
        value.name: math.prod(shape) * element_dtype(value.type.tensor_type.elem_type).itemsize
        for value, shape in _inferred(model, shapes)
        if value.type.tensor_type.elem_type
    }


def tensor_shapes(model: Model, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes that onnx infers once the inputs have concrete ones."""
    return {value.name: shape for value, shape in _inferred(model, shapes)}


def _inferred(model: Model, shapes: Shapes) -> list[tuple[onnx.ValueInfoProto, tuple[int, ...]]]:
    try:
        inferred = onnx.shape_inference.infer_shapes(_with_shapes(model.proto, shapes), data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, TypeError, IndexError):
        return []  # what is not known bounds nothing
    return list(_declared([*inferred.graph.value_info, *inferred.graph.output]))


def _with_shapes(proto: onnx.ModelProto, shapes: Shapes) -> onnx.ModelProto:
    """A copy with concrete input shapes and nothing else declared."""
    concrete = onnx.ModelProto()
    concrete.CopyFrom(proto)
    concrete.graph.ClearField("value_info")
    for value in concrete.graph.input:
        if value.name in shapes and value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.ClearField("dim")
            for size in shapes[value.name]:
                value.type.tensor_type.shape.dim.add(dim_value=size)
    for value in concrete.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return concrete


def _declared(values: Iterable[onnx.ValueInfoProto]) -> Iterable[tuple[onnx.ValueInfoProto, tuple[int, ...]]]:
    for value in values:
        declared = value.type.tensor_type
        if declared.HasField("shape"):
            dims = tuple(dim.dim_value for dim in declared.shape.dim if dim.HasField("dim_value"))
            if len(dims) == len(declared.shape.dim):
                yield value, dims
