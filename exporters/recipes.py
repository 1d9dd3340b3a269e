"""How the initializers that were computed at export are computed from the module's parameters: `recipes.onnx`.

Optimising folds normalisations into convolutions and computes what does not depend on the inputs. What was computed is
kept as an ONNX graph beside the model, from parameters to initializers, so that another checkpoint can be put into the
bundle (`onnx-arch reload`). Every recipe is tried when it is made: one that does not give what the optimiser computed
is left out, and the manifest says that this initializer has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from ..errors import InvalidModelError, OnnxArchError
from ..graphs.evaluation import evaluate_model
from ..graphs.loading import load_model
from ..graphs.model import Model
from ..operators.storage import decode, float_format, is_float
from .provenance import Made, Snapshot
from .serialization import WrittenFile, write_bytes

RECIPES = "recipes.onnx"

LARGEST_CONSTANT_BYTES = 1 << 16
"""A larger constant that is no parameter makes no recipe."""

NORMALIZED = {"Conv", "ConvTranspose", "Gemm"}
"""What a batch normalisation behind it is folded into."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Recipe:
    """How one initializer is computed.

    Attributes:
        output: the value that it is.
        nodes: what computes it, in order.
        constants: values that are no parameters.
        parameters: type and shape of those that it takes.
    """

    output: str
    nodes: tuple[onnx.NodeProto, ...]
    constants: Mapping[str, onnx.TensorProto]
    parameters: Mapping[str, tuple[int, tuple[int, ...]]]


class _NoRecipe(Exception):  # noqa: N818 - it never leaves this module
    """What an initializer was computed from is not known, or depends on an input."""


class _Cook:
    """Collects the nodes that lead to a value in the graph before optimisation."""

    def __init__(self, before: Snapshot, state: frozenset[str]) -> None:
        self.before, self.state = before, state
        self.nodes: dict[str, onnx.NodeProto] = {}
        self.constants: dict[str, onnx.TensorProto] = {}
        self.parameters: dict[str, tuple[int, tuple[int, ...]]] = {}

    def value(self, name: str) -> str:
        """Make `name` computable."""
        if not name or name in self.constants or name in self.parameters:
            return name
        tensor = self.before.initializers.get(name)
        if tensor is not None:
            self._initializer(name, tensor)
        elif name in self.before.producers:
            self._node(self.before.producers[name])
        else:
            raise _NoRecipe
        return name

    def _initializer(self, name: str, tensor: ir.TensorProtocol) -> None:
        if name in self.state:
            self.parameters[name] = (int(tensor.dtype), tuple(tensor.shape.numpy()))
        elif tensor.nbytes <= LARGEST_CONSTANT_BYTES:
            self.constants[name] = numpy_helper.from_array(np.array(tensor.numpy()), name)
        else:
            raise _NoRecipe

    def _node(self, made: Made) -> None:
        key = made.outputs[0]
        if key in self.nodes:
            return
        graphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        if made.domain or any(attribute.type in graphs for attribute in made.attributes.values()):
            raise _NoRecipe
        if made.op_type == "CastLike":
            self._cast(made)
            return
        inputs = [self.value(name) for name in made.inputs]
        node = helper.make_node(made.op_type, inputs, list(made.outputs), name=f"make {key}")
        node.attribute.extend(ir.serde.serialize_attribute(attribute) for attribute in made.attributes.values())
        self.nodes[key] = node

    def _cast(self, made: Made) -> None:
        """CastLike takes its type from a value that may depend on the inputs; the type itself does not."""
        source = self.value(made.inputs[0])
        like = self.before.initializers.get(made.inputs[1])
        dtype = made.dtype if like is None else like.dtype
        self.add("Cast", [source], made.outputs[0], to=int(ir.DataType.FLOAT if dtype is None else dtype))

    def add(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Append a node of our own."""
        self.nodes[output] = helper.make_node(op_type, inputs, [output], name=f"make {output}", **attributes)
        return output

    def constant(self, name: str, array: Array) -> str:
        """Add a constant of our own."""
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def recipe(self, output: str) -> Recipe:
        """What was collected."""
        return Recipe(output, tuple(self.nodes.values()), self.constants, self.parameters)


def find_recipe(value: ir.Value, before: Snapshot, state: frozenset[str]) -> Recipe | None:
    """How an initializer of the optimised graph is computed; None where that is not known.

    Args:
        value: the initializer, under the name that the optimiser gave it.
        before: the graph before optimisation.
        state: names of the module's parameters and buffers.
    """
    name, cook = value.name or "", _Cook(before, state)
    try:
        folded = _normalized(value, before)
        if folded is not None:
            return cook.recipe(_fold(cook, *folded))
        return cook.recipe(cook.value(name)) if name in before.producers else None
    except _NoRecipe:
        return None


def _normalized(value: ir.Value, before: Snapshot) -> tuple[Made, Made, int, int] | None:
    """Operator, normalisation, position and rank, if a normalisation was folded into this weight or bias."""
    for use in value.uses():
        made = before.producers.get(use.node.outputs[0].name or "")
        weight = use.node.inputs[1] if len(use.node.inputs) > 1 else None
        if made is None or made.op_type != "BatchNormalization" or use.node.op_type not in NORMALIZED or weight is None:
            continue
        operator = before.producers.get(made.inputs[0])
        if operator is not None and operator.op_type == use.node.op_type and weight.shape is not None:
            return operator, made, use.idx, len(weight.shape)
    return None


def _fold(cook: _Cook, operator: Made, normalization: Made, position: int, rank: int) -> str:
    """Weight · scale / √(variance + ε), or (bias − mean) · scale / √(variance + ε) + shift."""
    stem = normalization.outputs[0]
    scale, shift, mean, variance = (cook.value(name) for name in normalization.inputs[1:5])
    dtype = _element_type(cook.before, variance).numpy()
    epsilon = cook.constant(f"{stem} epsilon", np.asarray(_number(normalization, "epsilon", 1e-5)).astype(dtype))
    deviation = cook.add("Sqrt", [cook.add("Add", [variance, epsilon], f"{stem} variance")], f"{stem} deviation")
    factor = cook.add("Div", [scale, deviation], f"{stem} factor")
    if position == 1:
        return _folded_weight(cook, operator, cook.value(operator.inputs[1]), factor, rank)
    bias = operator.inputs[2] if len(operator.inputs) > 2 else ""
    if not bias:
        centred = cook.add("Neg", [mean], f"{stem} centred")
    else:
        beta = _number(operator, "beta", 1.0)
        own = cook.value(bias)
        if beta != 1.0:
            factor_of_bias = cook.constant(f"{stem} beta", np.asarray(beta).astype(dtype))
            own = cook.add("Mul", [own, factor_of_bias], f"{stem} scaled bias")
        centred = cook.add("Sub", [own, mean], f"{stem} centred")
    return cook.add("Add", [cook.add("Mul", [centred, factor], f"{stem} scaled"), shift], f"{stem} bias")


def _folded_weight(cook: _Cook, operator: Made, weight: str, factor: str, rank: int) -> str:
    stem = operator.outputs[0]
    if operator.op_type == "ConvTranspose":
        shape = _shape(cook.before, operator.inputs[1])
        groups = int(_number(operator, "group", 1))
        grouped = (groups, shape[0] // groups, *shape[1:])
        spread = (groups, 1, shape[1], *(1,) * (rank - 2))
        weight = _reshaped(cook, weight, grouped, f"{stem} groups")
        product = cook.add("Mul", [weight, _reshaped(cook, factor, spread, f"{stem} spread")], f"{stem} product")
        return _reshaped(cook, product, shape, f"{stem} weight")
    first = operator.op_type == "Conv" or bool(_number(operator, "transB", 0))
    spread = (-1, *(1,) * (rank - 1)) if first else (-1,)
    return cook.add("Mul", [weight, _reshaped(cook, factor, spread, f"{stem} spread")], f"{stem} weight")


def _reshaped(cook: _Cook, name: str, shape: Sequence[int], output: str) -> str:
    return cook.add("Reshape", [name, cook.constant(f"{output} shape", np.array(shape, np.int64))], output)


def _number(made: Made, name: str, default: float) -> float:
    attribute = made.attributes.get(name)
    return default if attribute is None else float(attribute.value)


def _element_type(before: Snapshot, name: str) -> ir.DataType:
    tensor = before.initializers.get(name)
    if tensor is None:
        raise _NoRecipe
    return tensor.dtype


def _shape(before: Snapshot, name: str) -> tuple[int, ...]:
    tensor = before.initializers.get(name)
    if tensor is None:
        raise _NoRecipe
    return tuple(tensor.shape.numpy())


def write_recipes(recipes: Mapping[str, Recipe], opset: int, path: Path) -> None:
    """Write one graph with all recipes: parameters in, initializers out, under their names in the model."""
    inputs: dict[str, onnx.ValueInfoProto] = {}
    constants: dict[str, onnx.TensorProto] = {}
    nodes: dict[str, onnx.NodeProto] = {}
    outputs: list[onnx.ValueInfoProto] = []
    for name, recipe in recipes.items():
        for parameter, (element_type, shape) in recipe.parameters.items():
            inputs[parameter] = helper.make_tensor_value_info(parameter, element_type, shape)
        constants.update(recipe.constants)
        nodes.update({node.output[0]: node for node in recipe.nodes})
        nodes[name] = helper.make_node("Identity", [recipe.output], [name], name=name)
        outputs.append(onnx.ValueInfoProto(name=name, type=onnx.TypeProto(tensor_type=onnx.TypeProto.Tensor())))
    graph = helper.make_graph(
        list(nodes.values()), "recipes", list(inputs.values()), outputs, initializer=list(constants.values())
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="onnx-arch")
    path.write_bytes(model.SerializeToString(deterministic=True))


class Recipes:
    """The recipes of a bundle's graph, ready to be followed."""

    def __init__(self, path: Path) -> None:
        """Load them.

        Raises:
            InvalidModelError: the file is no usable graph.
        """
        self._model = load_model(path)
        self.names = frozenset(spec.name for spec in self._model.graph.outputs)

    def compute(self, name: str, parameter: Callable[[str], Array], dtype: np.dtype[Any]) -> Array:
        """One initializer, computed in float64 and rounded once.

        Args:
            name: of the initializer.
            parameter: gives the stored values of a parameter.
            dtype: of the initializer.

        Raises:
            MissingKernelError: an operator that the oracle does not have.
            InvalidInputError: parameters whose shapes do not go together.
        """
        model = _only(self._model, name)
        feeds = {spec.name: parameter(spec.name) for spec in model.graph.inputs}
        found = np.asarray(evaluate_model(model, feeds)[name])
        return found.astype(dtype)


def _only(model: Model, name: str) -> Model:
    """The part of a model that computes one of its outputs."""
    needed, nodes = {name}, []
    for node in reversed(model.graph.nodes):
        if needed & set(node.outputs):
            nodes.append(node)
            needed |= set(node.inputs)
    graph = replace(
        model.graph,
        nodes=tuple(replace(node, index=index) for index, node in enumerate(reversed(nodes))),
        inputs=tuple(spec for spec in model.graph.inputs if spec.name in needed),
        outputs=tuple(spec for spec in model.graph.outputs if spec.name == name),
        initializers={key: value for key, value in model.graph.initializers.items() if key in needed},
    )
    return replace(model, graph=graph)


def keep_tried(
    recipes: Mapping[str, Recipe | None],
    values: Mapping[str, ir.TensorProtocol | None],
    parameter: Callable[[str], Array],
    opset: int,
    path: Path,
) -> tuple[dict[str, Recipe], tuple[WrittenFile, ...]]:
    """Write the recipes that give what the optimiser computed; no file if there are none.

    Args:
        recipes: by initializer.
        values: what the optimiser computed.
        parameter: gives the stored values of a parameter.
        opset: version of ai.onnx.
        path: of the file.

    Returns:
        The recipes that were kept, and the file.
    """
    known = {name: recipe for name, recipe in recipes.items() if recipe is not None}
    if not known:
        return {}, ()
    write_recipes(known, opset, path)
    made = _loaded(path)
    good = {name: recipe for name, recipe in known.items() if made and _gives(made, name, values[name], parameter)}
    path.unlink()
    if not good:
        return {}, ()
    write_recipes(good, opset, path)
    return good, (write_bytes(path.read_bytes(), path),)


def _loaded(path: Path) -> Recipes | None:
    try:
        return Recipes(path)
    except InvalidModelError:
        return None


def _gives(recipes: Recipes, name: str, wanted: ir.TensorProtocol | None, parameter: Callable[[str], Array]) -> bool:
    if wanted is None:
        return False
    expected = wanted.numpy()
    try:
        found = recipes.compute(name, parameter, expected.dtype)
    except OnnxArchError:
        return False
    return agrees(found, expected)


def agrees(found: Array, expected: Array) -> bool:
    """Whether a recomputed value is the optimiser's, which may have rounded at every step and in another order."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if not is_float(expected.dtype):
        return np.array_equal(found, expected)
    a, b = decode(found), decode(expected)
    largest = float(np.abs(b).max(initial=0.0))
    with np.errstate(invalid="ignore"):
        difference = float(np.abs(a - b).max(initial=0.0))
    return bool(difference <= largest * 2.0 ** (2 - float_format(expected.dtype).fraction_bits))
