"""What a strategy draws with, and the call that it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper

from ...operators.scale import Array
from .values import array

SIZES = (2, 1, 3, 4, 5, 1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 6, 2, 3)
"""Sizes of dimensions: small ones, one, and those around the widths of vector registers."""

MOST_ELEMENTS = 4096

USUAL = ("float32", "float64", "int64")
"""Half of all cases have one of these types; the other half has any."""

SEEDS = 1 << 31


@dataclass(frozen=True)
class NodeCall:
    """One call of an operator.

    Attributes:
        op_type: of the default domain.
        opset: version of the model.
        inputs: stored arrays, None where absent.
        attributes: by ONNX name; arrays are tensors.
        outputs: for every output in the order of the spec its stored dtype, None where the node does not ask for it.
        constants: positions of inputs that are initializers.
        symbolic: inputs are declared with unnamed dimensions.
    """

    op_type: str
    opset: int
    inputs: tuple[Array | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[np.dtype[Any] | None, ...] = ()
    constants: frozenset[int] = frozenset()
    symbolic: bool = False


_UNSTORABLE = frozenset({"tensor(undefined)"})


@cache
def dtype_of_name(type_name: str) -> np.dtype[Any] | None:
    """The dtype of a type as schemas write it ("tensor(float16)"); None for sequences and what NumPy cannot hold."""
    if not type_name.startswith("tensor(") or type_name in _UNSTORABLE:
        return None
    name = type_name[len("tensor(") : -1]
    plain = {"float": np.float32, "double": np.float64, "string": object, "bool": np.bool_}
    if name.startswith("float6"):
        return None  # nothing here stores six bits
    known = plain.get(name) or getattr(ml_dtypes, _LONG.get(name, name), None)
    return np.dtype(known or name)


_LONG = {"float8e4m3fn": "float8_e4m3fn", "float8e4m3fnuz": "float8_e4m3fnuz", "float8e5m2": "float8_e5m2"}
_LONG |= {"float8e5m2fnuz": "float8_e5m2fnuz", "float8e8m0": "float8_e8m0fnu", "float4e2m1": "float4_e2m1fn"}


@cache
def schema_dtypes(op_type: str, opset: int, parameter: str) -> tuple[np.dtype[Any], ...]:
    """Tensor types that a type parameter of a schema ("T") may have, float32 first."""
    schema = onnx.defs.get_schema(op_type, opset)
    for constraint in schema.type_constraints:
        if constraint.type_param_str == parameter:
            found = {dtype_of_name(name) for name in constraint.allowed_type_strs}
            return tuple(sorted((dtype for dtype in found if dtype is not None), key=_by_habit))
    raise LookupError(f"{op_type}-{opset} has no type parameter {parameter!r}")


_HABIT = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "bool", "uint8", "int8", "object")


def _by_habit(dtype: np.dtype[Any]) -> tuple[int, str]:
    return (_HABIT.index(dtype.name) if dtype.name in _HABIT else len(_HABIT), dtype.name)


class Draw:
    """Choices of one case: each is Hypothesis's, so each is shrunk.

    Args:
        draw: of a composite strategy.
        op_type: the operator.
        opset: version of the model.
    """

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any], op_type: str, opset: int) -> None:
        self._draw = draw
        self.op_type = op_type
        self.opset = opset
        self.schema = onnx.defs.get_schema(op_type, opset)

    def integer(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return self._draw(st.integers(low, high))

    def choice(self, options: Sequence[Any]) -> Any:
        """One of them; the first is the simplest."""
        return self._draw(st.sampled_from(options))

    def boolean(self) -> bool:
        return self._draw(st.booleans())

    def rarely(self, one_in: int = 8) -> bool:
        """True once in about `one_in` times."""
        return self.integer(0, one_in - 1) == one_in - 1

    def real(self, low: float, high: float) -> float:
        """A float32 from low to high."""
        bounds = float(np.float32(low)), float(np.float32(high))
        return self._draw(st.floats(*bounds, width=32, allow_subnormal=False))

    def permutation(self, items: Sequence[int]) -> list[int]:
        return list(self._draw(st.permutations(list(items))))

    def subset(self, items: Sequence[int], *, least: int = 0) -> list[int]:
        """Some of them, in any order."""
        if not items:
            return []
        return list(self._draw(st.lists(st.sampled_from(list(items)), unique=True, min_size=least)))

    def size(self, *, empty: bool = False) -> int:
        """Of one dimension."""
        return 0 if empty and self.rarely(16) else self.choice(SIZES)

    def shape(
        self, least: int = 0, most: int = 5, *, empty: bool = True, elements: int = MOST_ELEMENTS
    ) -> tuple[int, ...]:
        """A shape of `least` to `most` dimensions."""
        rank = self.integer(least, most)
        sizes = [self.size(empty=empty) for _ in range(rank)]
        while np.prod(sizes, dtype=np.int64) > elements:
            largest = int(np.argmax(sizes))
            sizes[largest] = max(1, sizes[largest] // 2)
        return tuple(sizes)

    def broadcastable(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that is broadcast to `shape` and no further."""
        kept = shape[self.integer(0, len(shape)) :] if self.rarely(3) else shape
        return tuple(1 if self.rarely(4) else size for size in kept)

    def axis(self, rank: int) -> int:
        """From −rank to rank − 1."""
        at = self.integer(0, max(rank - 1, 0))
        return at - rank if rank and self.boolean() else at

    def axes(self, rank: int, *, least: int = 0) -> list[int]:
        """Different axes in any order, each counted from either end."""
        return [a - rank if self.boolean() else a for a in self.subset(range(rank), least=least)]

    def dtype(self, parameter: str = "T", *, among: Callable[[np.dtype[Any]], bool] | None = None) -> np.dtype[Any]:
        """One of the types that the schema allows for a type parameter."""
        allowed = schema_dtypes(self.op_type, self.opset, parameter)
        options = [dtype for dtype in allowed if among is None or among(dtype)]
        usual = [dtype for dtype in options if dtype.name in USUAL]
        return self.choice(usual if usual and self.boolean() else options)

    def tensor(self, shape: tuple[int, ...], dtype: Any, patterns: Sequence[str]) -> Array:
        """An array of one of the patterns."""
        pattern = self.choice(patterns)
        return array(np.dtype(dtype), shape, pattern, self.integer(0, SEEDS - 1))

    def attributes(self, **options: Callable[[], Any]) -> dict[str, Any]:
        """Each attribute, or its default by leaving it out."""
        return {name: make() for name, make in options.items() if self.boolean()}

    def call(
        self,
        inputs: Sequence[Array | None],
        attributes: Mapping[str, Any] | None = None,
        *,
        outputs: Sequence[np.dtype[Any] | None] | None = None,
        parameters: Sequence[int] = (),
    ) -> NodeCall:
        """The finished call.

        Args:
            inputs: trailing absent ones are cut off.
            attributes: None entries are left out.
            outputs: None for the operator's one output in its type by the schema.
            parameters: positions of inputs that are often initializers.
        """
        values = [None if value is None else np.asarray(value) for value in inputs]  # rank 0 decays to a scalar
        while values and values[-1] is None:
            values.pop()
        kept = {name: value for name, value in (attributes or {}).items() if value is not None}
        usual = {i for i in parameters if i < len(values) and values[i] is not None and self.boolean()}
        return NodeCall(
            self.op_type,
            self.opset,
            tuple(values),
            kept,
            (self._first_output(values),) if outputs is None else tuple(outputs),
            frozenset(usual),
            self.boolean(),
        )

    def _first_output(self, values: Sequence[Array | None]) -> np.dtype[Any]:
        wanted = self.schema.outputs[0].type_str
        formal = self.schema.inputs
        for position, value in enumerate(values):
            parameter = formal[min(position, len(formal) - 1)]
            if value is not None and parameter.type_str == wanted:
                return value.dtype
        fixed = dtype_of_name(wanted) if wanted.startswith("tensor(") else None
        if fixed is None:
            (fixed,) = schema_dtypes(self.op_type, self.opset, wanted)
        return fixed


def call_model(call: NodeCall) -> onnx.ModelProto:
    """The model of one node: inputs x0, x1, …, outputs y0, y1, …"""
    names = ["" if value is None else f"x{i}" for i, value in enumerate(call.inputs)]
    results = ["" if dtype is None else f"y{i}" for i, dtype in enumerate(call.outputs)]
    node = helper.make_node(call.op_type, names, results, name=call.op_type, **_attribute_values(call))
    present = [(i, value) for i, value in enumerate(call.inputs) if value is not None]
    graph = helper.make_graph(
        [node],
        call.op_type,
        [_declared(f"x{i}", value, call.symbolic) for i, value in present if i not in call.constants],
        [
            helper.make_tensor_value_info(name, element_type(dtype), None)
            for name, dtype in zip(results, call.outputs, strict=True)
            if dtype is not None
        ],
        [tensor_proto(f"x{i}", value) for i, value in present if i in call.constants],
    )
    opsets = [helper.make_opsetid("", call.opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets, True))
    _declare_ranks(model)
    return model


def _declare_ranks(model: onnx.ModelProto) -> None:
    """Outputs get the rank that ONNX infers, sizes stay open: a graph's outputs must have a shape."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except onnx.shape_inference.InferenceError:
        return
    for output, found in zip(model.graph.output, inferred.graph.output, strict=True):
        if found.type.tensor_type.HasField("shape"):
            for _ in found.type.tensor_type.shape.dim:
                output.type.tensor_type.shape.dim.add()
            output.type.tensor_type.shape.SetInParent()


def call_feeds(call: NodeCall) -> dict[str, Array]:
    """What the model's inputs are fed with."""
    present = enumerate(call.inputs)
    return {f"x{i}": value for i, value in present if value is not None and i not in call.constants}


def _attribute_values(call: NodeCall) -> dict[str, Any]:
    return {k: tensor_proto(k, v) if isinstance(v, np.ndarray) else v for k, v in call.attributes.items()}


def _declared(name: str, value: Array, symbolic: bool) -> onnx.ValueInfoProto:
    shape = [None] * value.ndim if symbolic else value.shape
    return helper.make_tensor_value_info(name, element_type(value.dtype), shape)


def element_type(dtype: np.dtype[Any]) -> int:
    """ONNX's number of a dtype."""
    return onnx.TensorProto.STRING if dtype.kind in "OUS" else int(helper.np_dtype_to_tensor_dtype(dtype))


def tensor_proto(name: str, value: Array) -> onnx.TensorProto:
    """A tensor as ONNX stores it."""
    if value.dtype.kind in "OUS":
        content = [str(item).encode() for item in value.reshape(-1)]
        return onnx.TensorProto(name=name, data_type=onnx.TensorProto.STRING, dims=value.shape, string_data=content)
    return onnx.numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
