"""How far rounding can move the outputs of a graph: the scales by which a translation is judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..graphs.evaluation import Observer, evaluate_model
from ..graphs.model import Graph, Model, Node
from ..operators.mapped import give_back_array, give_back_heap
from ..operators.storage import float_format, is_float

Array = np.ndarray[Any, np.dtype[Any]]
Outputs = dict[str, Array]

SAMPLES = 3
"""Perturbed runs a spread is estimated from at the first shape, and wherever only constants move."""

MANY = 100
"""Elements of a tensor from which on one perturbed run gives the median; each costs two inferences in float64."""

FLOAT32_BITS = 23

LARGE_BYTES = 1 << 20
"""Weights of a node from which on what was freed after it is given back too."""


def give_back_weights(model: Model) -> Observer:
    """An observer of evaluations that gives a node's mapped weights back to the system when it has been evaluated."""

    def observe(node: Node, _: object) -> None:
        weights = [model.graph.initializers[name] for name in node.inputs if name in model.graph.initializers]
        for weight in weights:
            give_back_array(weight)
        if sum(weight.nbytes for weight in weights) > LARGE_BYTES:
            give_back_heap()

    return observe


def rounding_spread(model: Model, feeds: Mapping[str, Array], clean: Outputs, samples: int = SAMPLES) -> Outputs:
    """Deviation of every output element when every node rounds to its stored type.

    Args:
        model: the graph.
        feeds: its inputs.
        clean: its outputs in float64.
        samples: perturbed runs.
    """
    lean = give_back_weights(model)
    runs = (evaluate_model(model, feeds, lean, noise=np.random.default_rng(sample)) for sample in range(samples))
    return _deviation(clean, runs, samples)


def translation_spread(
    model: Model, feeds: Mapping[str, Array], clean: Outputs, rounded: frozenset[str], rounding: Outputs
) -> Outputs:
    """Deviation of every output element from what the translation alone may have rounded.

    In float32 that is `rounding` itself. In float64 it is what `rounding` would be in float32, because ONNX keeps
    attributes (epsilon, alpha) in that type whatever the tensors have. In narrower types rounding everywhere would hide
    a wrong operator, and nothing but constants was rounded: so each of them is moved within its own last place (but for
    those that a shape hangs on: they must be right to the bit), and for the attributes the scale of float32 is added.

    Args:
        model: the graph.
        feeds: its inputs.
        clean: its outputs in float64.
        rounded: initializers that were computed at export.
        rounding: of `rounding_spread`.
    """
    bits = [float_format(t.dtype).fraction_bits for t in model.graph.initializers.values() if is_float(t.dtype)]
    bits += [
        float_format(s.dtype).fraction_bits for s in model.graph.inputs if s.dtype is not None and is_float(s.dtype)
    ]
    narrowest = min(bits, default=FLOAT32_BITS)
    factor = 2.0 ** (narrowest - FLOAT32_BITS)
    if narrowest >= FLOAT32_BITS:
        return {name: spread * factor for name, spread in rounding.items()}
    lean = give_back_weights(model)
    runs = (evaluate_model(_moved(model, rounded, sample), feeds, lean) for sample in range(SAMPLES))
    constants = _deviation(clean, runs, SAMPLES)
    return {name: np.hypot(constants[name], rounding[name] * factor) for name in clean}


def _moved(model: Model, rounded: frozenset[str], sample: int) -> Model:
    """The model with each rounded constant moved within its last place."""
    rng = np.random.default_rng([sample, len(rounded)])
    initializers = dict(model.graph.initializers)
    for name in sorted(rounded & initializers.keys() - _counting(model.graph)):
        tensor = initializers[name]
        if is_float(tensor.dtype):
            step = 2.0 ** -(float_format(tensor.dtype).fraction_bits + 1)
            initializers[name] = tensor.astype(np.float64) * (1 + step * rng.uniform(-1, 1, tensor.shape))
    return replace(model, graph=replace(model.graph, initializers=initializers))


SHAPING = ("Range", "Resize")


def _counting(graph: Graph) -> set[str]:
    """What `Range` and the sizes of `Resize` take, in a graph and those inside it: moved, they give other shapes."""
    found: set[str] = set()
    for node in graph.nodes:
        found |= set(node.inputs[1 if node.op_type == "Resize" else 0 :]) if node.op_type in SHAPING else set()
        found |= {name for inner in node.attributes.values() if isinstance(inner, Graph) for name in _counting(inner)}
    return found


def _deviation(clean: Outputs, runs: Iterable[Outputs], count: int) -> Outputs:
    """Root mean square of (run − clean) per element; 1 where anything but a float ever differs."""
    total = {name: np.zeros(value.shape) for name, value in clean.items()}
    for run in runs:
        for name, value in clean.items():
            total[name] += _squared(run[name], value)
    return {name: np.sqrt(value / count) for name, value in total.items()}


def _squared(moved: Array, clean: Array) -> Array:
    if clean.dtype.kind != "f" or moved.shape != clean.shape:
        return np.broadcast_to(np.asarray(moved.shape != clean.shape or moved != clean, np.float64), clean.shape)
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(moved - clean, nan=0.0, posinf=0.0, neginf=0.0) ** 2
