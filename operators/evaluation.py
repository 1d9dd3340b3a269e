"""Run a kernel as a node does: decode what is stored, call, and say which dtype each output must have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx

from ..errors import InvalidAttributeError, MissingKernelError
from .registry import KernelEntry, find_kernel, parameters
from .scale import Scale, exact
from .storage import decode, is_float


@dataclass(frozen=True)
class Call:
    """One node, resolved: the kernel, its decoded inputs and its keywords.

    Attributes:
        entry: the kernel.
        inputs: what the kernel takes positionally (None where absent).
        keywords: attributes and seam parameters that its kernel declares.
        stored: dtype of each stored input, None where absent.
        output_count: how many outputs the node names, absent trailing ones not counted.
    """

    entry: KernelEntry
    inputs: tuple[Any, ...]
    keywords: Mapping[str, Any]
    stored: tuple[np.dtype[Any] | None, ...]
    output_count: int
    opset: int = field(default=0)

    def outputs(self) -> tuple[Any, ...]:
        """The reference outputs: float64 where floating-point, as stored otherwise."""
        with np.errstate(all="ignore"):
            result = self.entry.function(*self.inputs, **self.keywords)
        return result if isinstance(result, tuple) else (result,)

    def scales(self, outputs: Sequence[Any]) -> tuple[Scale, ...] | None:
        """The error scale of every output, or None if the operator has no scale."""
        if self.entry.scale is None:
            return None
        keywords = self.keywords_of(self.entry.scale)
        first = tuple(outputs) if len(outputs) > 1 else outputs[0]
        with np.errstate(all="ignore"):
            result = self.entry.scale(first, *self.inputs, **keywords)
        return result if isinstance(result, tuple) else (result,)

    def judged(self) -> tuple[tuple[Any, ...], tuple[Scale, ...] | None]:
        """Outputs and scales; in one pass where the operator has one."""
        if self.entry.judged is not None:
            with np.errstate(all="ignore"):
                both = self.entry.judged(*self.inputs, **self.keywords_of(self.entry.judged))
            if both is not None:
                return (both[0],), (both[1],)
        outputs = self.outputs()
        return outputs, self.scales(outputs)

    def keywords_of(self, function: Callable[..., Any]) -> Mapping[str, Any]:
        """Those of the keywords that another function of this operator (scale, products) declares; what the seam knows
        it may declare although the kernel does not."""
        wanted = parameters(function)
        seam = {"stored": self.stored, "output_count": self.output_count, "opset": self.opset}
        known = {**{k: v for k, v in seam.items() if k in wanted}, **self.keywords}
        return known if "**" in wanted else {k: v for k, v in known.items() if k in wanted}


def prepare(
    op_type: str,
    inputs: Sequence[Any],
    attributes: Mapping[str, Any],
    *,
    opset: int,
    domain: str = "",
    output_count: int = 1,
    stored: Sequence[np.dtype[Any] | None] | None = None,
) -> Call:
    """Resolve a node to a call of its kernel.

    Args:
        op_type: the operator.
        inputs: stored tensors (any dtype; lists for sequences), None where an optional input is absent.
        attributes: the node's attributes by their ONNX names, as Python and NumPy values.
        opset: the model's version of `domain`.
        domain: operator set domain.
        output_count: number of outputs that the node names.
        stored: the stored dtype of each input where `inputs` are decoded already; None reads it off `inputs`.

    Raises:
        MissingKernelError: no kernel for this operator at this opset.
        InvalidAttributeError: an attribute that the kernel does not know.
    """
    entry = find_kernel(op_type, opset=opset, domain=domain)
    stored = tuple(_dtype(value) for value in inputs) if stored is None else tuple(stored)
    known = parameters(entry.function)
    unknown = sorted(set(attributes) - set(known)) if "**" not in known else []
    if unknown:
        raise InvalidAttributeError(f"{op_type} (since {entry.since}): unknown attribute {', '.join(unknown)}")
    seam = {"output_count": output_count, "stored": stored, "opset": opset}
    keywords = dict(attributes)  # com.microsoft QLinearSoftmax has an attribute that is called `opset`
    keywords.update({name: seam[name] for name in seam.keys() & set(known) - set(attributes)})
    as_stored = entry.streams or entry.scale is exact  # what moves or compares values does so in float32 as well
    decoded = tuple(_decode(value, as_stored) for value in inputs)
    return Call(entry, decoded, keywords, stored, output_count, opset)


def _dtype(value: Any) -> np.dtype[Any] | None:
    """The dtype of a tensor, or of the tensors of a sequence; None where there is none."""
    if isinstance(value, list):
        return _dtype(value[0]) if value else None
    return value.dtype if isinstance(value, np.ndarray) else None


def _decode(value: Any, streams: bool) -> Any:
    if isinstance(value, list):
        return [_decode(item, streams) for item in value]
    if not isinstance(value, np.ndarray) or (streams and value.dtype == np.float32):
        return value
    return decode(value)


_TENSOR_TYPES: dict[str, str] = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
    "tensor(bool)": "bool",
    "tensor(complex64)": "complex64",
    "tensor(complex128)": "complex128",
    "tensor(string)": "object",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


@cache
def _schema(op_type: str, domain: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None


def output_dtypes(call: Call, outputs: Sequence[Any]) -> tuple[np.dtype[Any] | None, ...]:
    """The dtype in which a conforming runtime stores each output.

    A type variable of the schema that an input binds decides; then a type that the schema fixes; then what the kernel
    returned, unless that is float64 by decoding alone (then None: the type is not determined here).
    """
    schema = _schema(call.entry.op_type, call.entry.domain, call.opset)
    if schema is None:
        first = next((dtype for dtype in call.stored if dtype is not None and is_float(dtype)), None)
        return tuple(first if _dtype(o) == np.float64 else _dtype(o) for o in outputs)
    bound = _bound_types(schema, call.stored)
    if "stash_type" in schema.attributes:
        stash = call.keywords.get("stash_type", onnx.TensorProto.FLOAT)
        bound.setdefault("U", onnx.helper.tensor_dtype_to_np_dtype(stash))
    if call.entry.op_type == "LinearAttention" and call.stored[0] is not None:
        bound.setdefault("S", call.stored[0])  # the function body casts the state like the query where none comes in
    if any(isinstance(value, list) for value in (*call.inputs, *outputs)):
        return tuple(_sequence_dtype(schema, bound, call, index, value) for index, value in enumerate(outputs))
    return tuple(_output_dtype(schema, bound, index, value) for index, value in enumerate(outputs))


_DECODED = (np.dtype(np.float64), np.dtype(np.complex128))
"""What floating-point and complex tensors are decoded to: of a result, no sign of its stored type."""


def _sequence_dtype(
    schema: onnx.defs.OpSchema, bound: Mapping[str, np.dtype[Any]], call: Call, index: int, value: Any
) -> np.dtype[Any] | None:
    """As `_output_dtype` where a sequence comes in or goes out: the schema does not tie its type to its tensors'.

    They have the type of the first input; of an empty sequence, whose type is not known, that of a tensor put into it.
    """
    first = next((dtype for dtype in call.stored if dtype is not None and is_float(dtype)), None)
    element = call.stored[0] if call.stored and call.stored[0] is not None else first
    found = _output_dtype(schema, bound, index, value)
    is_decoded = found is not None and found in _DECODED  # None equals np.dtype(np.float64)
    if isinstance(value, list) or is_decoded:
        return element if element is not None or is_decoded else found
    return found


def _bound_types(schema: onnx.defs.OpSchema, stored: Sequence[np.dtype[Any] | None]) -> dict[str, np.dtype[Any]]:
    bound: dict[str, np.dtype[Any]] = {}
    for index, dtype in enumerate(stored):
        if dtype is None or not schema.inputs:
            continue
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        bound.setdefault(formal.type_str, dtype)
    return bound


def _output_dtype(
    schema: onnx.defs.OpSchema,
    bound: Mapping[str, np.dtype[Any]],
    index: int,
    value: Any,
) -> np.dtype[Any] | None:
    if not isinstance(value, np.ndarray | list):
        return None
    formal = schema.outputs[min(index, len(schema.outputs) - 1)]
    if formal.type_str in bound:
        return bound[formal.type_str]
    if formal.type_str in _TENSOR_TYPES:
        return np.dtype(_TENSOR_TYPES[formal.type_str])
    return _dtype(value)


def evaluate(
    op_type: str,
    inputs: Sequence[Any],
    attributes: Mapping[str, Any] | None = None,
    *,
    opset: int,
    domain: str = "",
    output_count: int = 1,
) -> tuple[Any, ...]:
    """The reference outputs of one node, in float64 where floating-point; see `prepare` for the arguments."""
    call = prepare(op_type, inputs, attributes or {}, opset=opset, domain=domain, output_count=output_count)
    return call.outputs()


__all__ = ["Call", "MissingKernelError", "evaluate", "output_dtypes", "prepare"]
