"""Casts, quantisation, bits seen as another type."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...operators.scale import Array
from ...operators.storage import float_format, is_float
from .drawing import Draw, NodeCall, element_type, schema_dtypes
from .elementwise import is_integer, largest, smallest
from .registry import strategy
from .values import MOVED

FLOAT32 = np.dtype(np.float32)
UINT8 = np.dtype(np.uint8)
NUMBERS = ("0", "1", "-1", "3.5", "100", "1e3", "-2.25", "1E2", "INF", "-INF", "NaN", "+inf", "7", "65504")
WHOLE = ("0", "1", "7", "100", "12", "3")


def _strings(d: Draw, shape: tuple[int, ...], words: tuple[str, ...]) -> Array:
    rng = np.random.default_rng(d.integer(0, 1 << 31))
    return np.asarray(rng.choice(np.asarray(words, object), shape), object).reshape(shape)


def _bounds(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype == np.bool_:
        return -np.inf, np.inf
    return float(smallest(dtype)), float(largest(dtype))


def castable(x: Array, target: np.dtype[Any]) -> Array:
    """What the target's range holds: outside it the result is left open."""
    if target.name == "float8_e8m0fnu" and not is_integer(x.dtype) and x.dtype != np.bool_:
        with np.errstate(all="ignore"):  # no sign, no zero; how it is rounded is an attribute of its own
            exponent = np.clip(np.nan_to_num(np.log2(np.abs(x.astype(np.float64))), posinf=0, neginf=0), -6, 6)
        return np.exp2(np.rint(exponent)).astype(x.dtype)
    if target.name == "float8_e8m0fnu":
        return np.ones_like(x)
    if not is_integer(target):
        return x
    low, high = _bounds(target)
    if is_float(x.dtype):
        with np.errstate(all="ignore"):
            wide = x.astype(np.float64)
            inside = np.isfinite(wide) & (wide > low - 1) & (wide < high + 1) & (np.abs(wide) < 2.0**62)
        found = np.where(inside, x, x.dtype.type(1)).astype(x.dtype)
        # How fractions are cut off is not said; below 8 bits implementations differ.
        return np.rint(found.astype(np.float64)).astype(x.dtype) if _bits(target) < 8 else found
    if is_integer(x.dtype):
        return x  # integers are cut to the width, as the spec's text has it
    return x


@strategy("Cast", "CastLike")
def cast(d: Draw) -> NodeCall:
    source, target = d.dtype("T1"), d.dtype("T2")
    shape = d.shape(0, 3)
    if source.kind in "OUS":
        x = _strings(d, shape, NUMBERS if is_float(target) or target.kind in "OUS" else WHOLE)
        target = np.dtype(np.int64) if target == np.bool_ else target
    else:
        # What a number looks like as a string is not the same everywhere: whole small ones are.
        patterns = ("small", "normal") if target.kind in "OUS" else MOVED
        if target.kind in "OUS" and not (is_integer(source) and source.itemsize >= 1):
            source = np.dtype(np.int64)
        x = castable(d.tensor(shape, source, patterns), target)
    options: dict[str, Any] = {}
    if d.opset >= 19 and target.name.startswith("float8") and d.boolean():
        options["saturate"] = d.integer(0, 1)
    if d.op_type == "Cast":
        return d.call([x], {**options, "to": element_type(target)}, outputs=(target,))
    return d.call([x, d.tensor((1,), target, ("small",))], options, outputs=(target,), parameters=(1,))


@strategy("BitCast")
def bit_cast(d: Draw) -> NodeCall:
    source = d.dtype("T1", among=lambda t: t != np.bool_)
    width = _bits(source)
    alike = [t for t in schema_dtypes(d.op_type, d.opset, "T2") if t != np.bool_ and _bits(t) == width]
    target = d.choice(alike)
    x = d.tensor(d.shape(0, 3), source, ("small", "normal", "wide", "extreme"))
    return d.call([x], {"to": element_type(target)}, outputs=(target,))


def _bits(dtype: np.dtype[Any]) -> int:
    for width, endings in ((2, ("int2", "uint2")), (4, ("int4", "uint4", "float4_e2m1fn"))):
        if dtype.name in endings:
            return width
    return dtype.itemsize * 8


def _granularity(d: Draw, shape: tuple[int, ...]) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Shape of the scale, and the attributes that say so."""
    kinds = ["tensor"]
    if d.opset >= 13 and len(shape) > 1:
        kinds.append("axis")
    if d.opset >= 21 and len(shape) > 1:
        kinds.append("block")
    kind = d.choice(kinds)
    if kind == "tensor":
        return (), {}
    axis = d.axis(len(shape))
    if kind == "axis":
        return (shape[axis],), {"axis": axis}
    at = axis % len(shape)
    block = d.integer(1, shape[at])
    blocks = -(-shape[at] // block)
    return (*shape[:at], blocks, *shape[at + 1 :]), {"axis": axis, "block_size": block}


def _limits(dtype: np.dtype[Any]) -> float:
    return float(largest(dtype)) if is_integer(dtype) else float_format(dtype).largest


@strategy("QuantizeLinear")
def quantize_linear(d: Draw) -> NodeCall:
    source = d.dtype("T1", among=is_float)
    target = d.dtype(d.schema.outputs[0].type_str)
    shape = d.shape(0, 4, empty=False)
    scale_shape, options = _granularity(d, shape)
    scale = d.tensor(scale_shape, source, ("positive", "counting"))
    # Spread over somewhat more than the target's range, so that some elements saturate.
    reach = min(_limits(target), 300.0)
    x = (d.tensor(shape, np.float64, ("unit", "normal", "ties")) * reach).astype(source)
    zero = None
    if d.boolean():
        zero = d.tensor(scale_shape, target, ("small", "wide") if is_integer(target) else ("small",))
        if not is_integer(target):
            zero = np.zeros(scale_shape, target)  # a float8 zero point is zero
    elif d.opset >= 21:
        options["output_dtype"] = element_type(target)
    else:
        target = UINT8
    if target.name.startswith("float8") and d.boolean():
        options["saturate"] = d.integer(0, 1)
    return d.call([x, scale, zero], options, outputs=(target,), parameters=(1, 2))


@strategy("DequantizeLinear")
def dequantize_linear(d: Draw) -> NodeCall:
    source = d.dtype(d.schema.inputs[0].type_str)
    shape = d.shape(0, 4, empty=False)
    scale_shape, options = _granularity(d, shape)
    scale_type = d.dtype("T2", among=lambda t: is_float(t) and t.itemsize > 1) if d.opset >= 19 else FLOAT32
    scale = d.tensor(scale_shape, scale_type, ("positive", "normal"))
    x = d.tensor(shape, source, ("small", "wide") if is_integer(source) else ("small", "normal"))
    zero = None
    if d.boolean():
        zero = d.tensor(scale_shape, source, ("small", "wide")) if is_integer(source) else np.zeros(scale_shape, source)
        if source == np.int32:
            zero = np.zeros_like(zero)
    return d.call([x, scale, zero], options, outputs=(scale_type,), parameters=(1, 2))


@strategy("DynamicQuantizeLinear")
def dynamic_quantize_linear(d: Draw) -> NodeCall:
    x = d.tensor(d.shape(0, 4, empty=False), np.float32, ("normal", "positive", "ties", "unit", "spread"))
    if x.size and not np.any(x):
        x.reshape(-1)[0] = 1.0  # a range of zero has no scale
    return d.call([x], outputs=(UINT8, FLOAT32, UINT8))
