"""Elementwise operators: unary, binary with broadcasting, variadic, comparison, logic, bits."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from ...operators.scale import Array
from ...operators.storage import is_float
from .drawing import Draw, NodeCall
from .registry import strategy
from .values import FINITE, MOVED, ORDERED


def is_integer(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu" or dtype.name in ("int4", "uint4", "int2", "uint2")


def smallest(dtype: np.dtype[Any]) -> int:
    return int(ml_dtypes.iinfo(dtype).min)


def largest(dtype: np.dtype[Any]) -> int:
    return int(ml_dtypes.iinfo(dtype).max)


def without_smallest(x: Array) -> Array:
    """Its negative does not exist, and the spec does not say what stands in its place."""
    if not is_integer(x.dtype) or smallest(x.dtype) == 0:
        return x
    return np.where(x == smallest(x.dtype), x.dtype.type(largest(x.dtype)), x).astype(x.dtype)


@strategy("Ceil", "Floor", "Round", "Exp", "Erf", "Sigmoid", "Tanh", "Sqrt", "IsNaN", "Identity")
def unary_any(d: Draw) -> NodeCall:
    parameter = d.schema.inputs[0].type_str
    return d.call([d.tensor(d.shape(), d.dtype(parameter), MOVED)])


@strategy("Abs", "Neg")
def unary_signed(d: Draw) -> NodeCall:
    return d.call([without_smallest(d.tensor(d.shape(), d.dtype(), MOVED))])


@strategy("Sign", "BitwiseNot", "Relu")
def unary_ordered(d: Draw) -> NodeCall:
    return d.call([d.tensor(d.shape(), d.dtype(), ORDERED)])


@strategy("Not")
def logical_not(d: Draw) -> NodeCall:
    return d.call([d.tensor(d.shape(), np.bool_, MOVED)])


@strategy("Sin", "Cos", "Atan", "Asinh", "Sinh", "Cosh", "Reciprocal", "Softplus", "HardSwish", "Mish", "Softsign")
def unary_finite(d: Draw) -> NodeCall:
    return d.call([d.tensor(d.shape(), d.dtype(), FINITE)])


@strategy("Tan")
def tangent(d: Draw) -> NodeCall:
    return d.call([d.tensor(d.shape(), d.dtype(), ("small", "normal", "ties", "unit"))])


@strategy("Acos", "Asin", "Atanh")
def unary_within_one(d: Draw) -> NodeCall:
    x = d.tensor(d.shape(), d.dtype(), ("unit", "extreme"))
    return d.call([np.where(np.abs(x) <= 1, x, x.dtype.type(0.25)).astype(x.dtype)])


@strategy("Acosh")
def inverse_hyperbolic_cosine(d: Draw) -> NodeCall:
    x = d.tensor(d.shape(), d.dtype(), FINITE)
    return d.call([np.where(np.abs(x) >= 1, np.abs(x), x.dtype.type(1.5)).astype(x.dtype)])


@strategy("Log")
def logarithm(d: Draw) -> NodeCall:
    return d.call([np.abs(d.tensor(d.shape(), d.dtype(), ORDERED))])


@strategy("LeakyRelu", "Elu", "ThresholdedRelu", "Celu", "Swish")
def unary_with_alpha(d: Draw) -> NodeCall:
    signed = d.op_type in ("LeakyRelu", "ThresholdedRelu")
    jumps = d.op_type == "ThresholdedRelu"  # a threshold that every type holds exactly
    options = d.attributes(
        alpha=lambda: d.integer(-8, 8) / 8 if jumps else d.real(-2.0, 2.0) if signed else d.real(0.125, 3.0)
    )
    return d.call([d.tensor(d.shape(), d.dtype(), FINITE)], options)


@strategy("Selu")
def selu(d: Draw) -> NodeCall:
    options = d.attributes(alpha=lambda: d.real(0.125, 3.0), gamma=lambda: d.real(0.125, 3.0))
    return d.call([d.tensor(d.shape(), d.dtype(), FINITE)], options)


@strategy("HardSigmoid")
def hard_sigmoid(d: Draw) -> NodeCall:
    options = d.attributes(alpha=lambda: d.real(0.0, 2.0), beta=lambda: d.real(-1.0, 1.0))
    return d.call([d.tensor(d.shape(), d.dtype(), FINITE)], options)


@strategy("Gelu")
def gelu(d: Draw) -> NodeCall:
    options = d.attributes(approximate=lambda: d.choice(("none", "tanh")))
    return d.call([d.tensor(d.shape(), d.dtype(), FINITE)], options)


@strategy("Shrink")
def shrink(d: Draw) -> NodeCall:
    options = d.attributes(lambd=lambda: d.integer(0, 16) / 8, bias=lambda: d.integer(-16, 16) / 8)
    return d.call([d.tensor(d.shape(), d.dtype(among=is_float), FINITE)], options)


@strategy("IsInf")
def is_inf(d: Draw) -> NodeCall:
    flags = d.attributes(detect_negative=lambda: d.integer(0, 1), detect_positive=lambda: d.integer(0, 1))
    return d.call([d.tensor(d.shape(), d.dtype("T1"), MOVED)], flags)


@strategy("Clip")
def clip(d: Draw) -> NodeCall:
    dtype = d.dtype()
    x = d.tensor(d.shape(), dtype, ORDERED)
    bounds = [d.tensor((), dtype, ("small", "normal", "ties", "extreme")) if d.boolean() else None for _ in range(2)]
    if bounds[0] is not None and bounds[1] is not None and bounds[0] > bounds[1]:
        bounds = bounds[::-1]
    return d.call([x, *bounds], parameters=(1, 2))


@strategy("PRelu")
def prelu(d: Draw) -> NodeCall:
    dtype = d.dtype()
    shape = d.shape()
    if is_integer(dtype):
        return d.call([_modest(d, shape, dtype), _modest(d, d.broadcastable(shape), dtype)], parameters=(1,))
    return d.call([d.tensor(shape, dtype, FINITE), d.tensor(d.broadcastable(shape), dtype, FINITE)], parameters=(1,))


def pair(d: Draw) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes that broadcast with one another."""
    shape = d.shape()
    return (shape, d.broadcastable(shape)) if d.boolean() else (d.broadcastable(shape), shape)


def _modest(d: Draw, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Integers whose products and sums stay in their type, beyond float32's and float64's exact ones where possible."""
    if not is_integer(dtype):
        return d.tensor(shape, dtype, MOVED)
    root = int(np.sqrt(float(largest(dtype)))) // 2
    rng = np.random.default_rng(d.integer(0, 1 << 31))
    low = 0 if smallest(dtype) == 0 else -root
    return rng.integers(low, root, shape, np.int64, endpoint=True).astype(dtype)


@strategy("Mul")
def multiply(d: Draw) -> NodeCall:
    dtype = d.dtype()
    return d.call([_modest(d, shape, dtype) for shape in pair(d)], parameters=(0, 1))


def _halved(d: Draw, shape: tuple[int, ...], dtype: np.dtype[Any], share: int = 2) -> Array:
    """Integers whose sums of `share` stay in their type."""
    x = d.tensor(shape, dtype, MOVED)
    if not is_integer(dtype):
        return x
    return np.asarray(np.trunc(x / share) if x.dtype.itemsize < 4 else _divided(x, share)).astype(dtype)


def _divided(x: Array, share: int) -> Array:
    return np.asarray(np.sign(x) * (np.abs(x) // x.dtype.type(share)), x.dtype)


@strategy("Add")
def add(d: Draw) -> NodeCall:
    dtype = d.dtype()
    return d.call([_halved(d, shape, dtype) for shape in pair(d)], parameters=(0, 1))


@strategy("Sub")
def subtract(d: Draw) -> NodeCall:
    dtype = d.dtype()
    first, second = (_halved(d, shape, dtype) for shape in pair(d))
    if is_integer(dtype) and smallest(dtype) == 0:
        first = first + dtype.type(largest(dtype) // 2)  # an unsigned difference stays above zero
    return d.call([first, second], parameters=(0, 1))


def _nonzero(x: Array) -> Array:
    return np.where(x == 0, x.dtype.type(1), x).astype(x.dtype)


@strategy("Div")
def divide(d: Draw) -> NodeCall:
    dtype = d.dtype()
    first, second = (d.tensor(shape, dtype, MOVED) for shape in pair(d))
    if is_integer(dtype):
        first, second = without_smallest(first), _nonzero(second)
    return d.call([first, second], parameters=(0, 1))


@strategy("Mod")
def modulo(d: Draw) -> NodeCall:
    dtype = d.dtype()
    first, second = (d.tensor(shape, dtype, FINITE) for shape in pair(d))
    fmod = 1 if is_float(dtype) else d.integer(0, 1)
    return d.call([without_smallest(first), _nonzero(second)], {"fmod": fmod or None}, parameters=(0, 1))


@strategy("Pow")
def power(d: Draw) -> NodeCall:
    dtype = d.dtype("T")
    exponent_type = d.dtype("T1") if d.opset >= 12 else dtype
    base, exponent = pair(d)
    if is_float(dtype):
        if d.boolean():
            y = d.tensor(exponent, exponent_type, ("small",) if not is_integer(exponent_type) else ("counting",))
            return d.call([_nonzero(d.tensor(base, dtype, ("small", "normal", "ties"))), y], parameters=(1,))
        y = d.tensor(exponent, exponent_type, ("small", "normal") if is_float(exponent_type) else ("counting",))
        return d.call([d.tensor(base, dtype, ("counting", "positive")), y], parameters=(1,))
    # Integers: powers that fit into the type, with exponents that are whole in any type.
    top = {4: 5, 8: 8}.get(dtype.itemsize, 2)
    y = np.random.default_rng(d.integer(0, 1 << 31)).integers(0, top, exponent, endpoint=True).astype(exponent_type)
    return d.call([d.tensor(base, dtype, ("small", "counting", "normal")), y], parameters=(1,))


@strategy("BitShift")
def bit_shift(d: Draw) -> NodeCall:
    dtype = d.dtype()
    first, second = pair(d)
    bits = dtype.itemsize * 8
    amounts = np.random.default_rng(d.integer(0, 1 << 31)).integers(0, bits, second).astype(dtype)
    x = d.tensor(first, dtype, ("small", "wide", "extreme"))
    direction = d.choice(("LEFT", "RIGHT"))
    if smallest(dtype) < 0:
        x = np.abs(without_smallest(x))
        amounts = amounts if direction == "RIGHT" else np.zeros_like(amounts)
    return d.call([x, amounts], {"direction": direction}, parameters=(1,))


@strategy("BitwiseAnd", "BitwiseOr", "BitwiseXor")
def bitwise(d: Draw) -> NodeCall:
    dtype = d.dtype()
    return d.call([d.tensor(shape, dtype, FINITE) for shape in pair(d)], parameters=(0, 1))


@strategy("And", "Or", "Xor")
def logical(d: Draw) -> NodeCall:
    return d.call([d.tensor(shape, np.bool_, MOVED) for shape in pair(d)], parameters=(0, 1))


@strategy("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
def compare(d: Draw) -> NodeCall:
    dtype = d.dtype()
    first, second = (d.tensor(shape, dtype, MOVED) for shape in pair(d))
    if is_integer(dtype) and d.boolean():
        # Neighbours of a large number: equal in float32, and in float64 where the type has 64 bits.
        edge = largest(dtype) - 4
        near = np.random.default_rng(d.integer(0, 1 << 31))
        first, second = (
            (np.asarray(edge, dtype) + near.integers(0, 3, x.shape).astype(dtype)).astype(dtype)
            for x in (first, second)
        )
    return d.call([first, second], parameters=(0, 1))


@strategy("Where")
def where(d: Draw) -> NodeCall:
    dtype = d.dtype()
    shape = d.shape()
    shapes = [shape if keep else d.broadcastable(shape) for keep in (d.boolean(), d.boolean())]
    values = [d.tensor(s, dtype, MOVED) for s in shapes]
    return d.call([d.tensor(d.broadcastable(shape), np.bool_, MOVED), *values], parameters=(0, 1, 2))


@strategy("Max", "Min")
def extremum(d: Draw) -> NodeCall:
    return _variadic(d, lambda shape, dtype: d.tensor(shape, dtype, ORDERED))


@strategy("Sum", "Mean")
def total(d: Draw) -> NodeCall:
    return _variadic(d, lambda shape, dtype: d.tensor(shape, dtype, ("small", "normal", "ties", "cancelling")))


def _variadic(d: Draw, fill: Any) -> NodeCall:
    dtype = d.dtype()
    shape = d.shape()
    count = d.integer(1, 5)
    shapes = [shape if i == 0 else d.broadcastable(shape) for i in range(count)]
    return d.call([fill(s, dtype) for s in d.choice((shapes, shapes[::-1]))], parameters=(count - 1,))


@strategy("SwiGLU")
def swiglu(d: Draw) -> NodeCall:
    dtype, shape = d.dtype(), d.shape()
    gate, linear = (d.tensor(shape, dtype, ("small", "normal", "spread")) for _ in range(2))
    return d.call([gate, linear], d.attributes(alpha=lambda: d.real(0.25, 2.0)))
