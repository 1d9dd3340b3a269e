"""Cast between every pair of common types."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from ...operators.scale import Array
from .case import Case, Family, Fault, Outputs, Variant
from .data import KINDS, tensor
from .tampering import tampered

F = np.float32

CODES: Mapping[str, int] = {
    "float32": onnx.TensorProto.FLOAT,
    "float64": onnx.TensorProto.DOUBLE,
    "float16": onnx.TensorProto.FLOAT16,
    "bfloat16": onnx.TensorProto.BFLOAT16,
    "float8_e4m3fn": onnx.TensorProto.FLOAT8E4M3FN,
    "float8_e5m2": onnx.TensorProto.FLOAT8E5M2,
    "int64": onnx.TensorProto.INT64,
    "int32": onnx.TensorProto.INT32,
    "int8": onnx.TensorProto.INT8,
    "uint8": onnx.TensorProto.UINT8,
    "bool": onnx.TensorProto.BOOL,
}
TYPES = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in CODES}
NAMES = {code: name for name, code in CODES.items()}
SATURATING = ("float8_e4m3fn", "float8_e5m2")


def _target(case: Case) -> np.dtype[Any]:
    return TYPES[NAMES[case.attributes["to"]]]


def cast(case: Case) -> Outputs:
    """As ml_dtypes and NumPy convert; float8 saturates."""
    x, to = np.asarray(case.inputs[0]), _target(case)
    if to.name in SATURATING:
        limit = F(ml_dtypes.finfo(to).max)
        return (np.clip(x.astype(F), -limit, limit).astype(to),)
    return (x.astype(to),)


def _by_float64(case: Case) -> Outputs | None:
    """By way of float64, which holds every value of the types between which this is tried."""
    x, to = np.asarray(case.inputs[0]), _target(case)
    if x.dtype == np.int64 or to.name in SATURATING or to.name == "bfloat16":
        return None
    return (x.astype(np.float64).astype(to),)


# Faults: (stored input, target type) -> stored output, or None


def _bits_cut(x: Array, to: np.dtype[Any]) -> Array | None:
    """Fraction bits cut off instead of rounded."""
    drop = {"float16": 13, "bfloat16": 16, "float8_e4m3fn": 20, "float8_e5m2": 21}.get(to.name)
    if x.dtype != F or drop is None:
        return None
    bits = x.view(np.uint32)
    return _saturated((bits >> np.uint32(drop) << np.uint32(drop)).view(F), to)


def _saturated(x: Array, to: np.dtype[Any]) -> Array:
    if to.name not in SATURATING:
        return x.astype(to)
    limit = F(ml_dtypes.finfo(to).max)
    return np.clip(x, -limit, limit).astype(to)


def _up(x: Array, to: np.dtype[Any]) -> Array | None:
    """Ties away from zero."""
    drop = {"float16": 13, "bfloat16": 16}.get(to.name)
    if x.dtype != F or drop is None:
        return None
    bits = x.view(np.uint32).astype(np.uint64) + (1 << (drop - 1))
    return (bits >> np.uint64(drop) << np.uint64(drop)).astype(np.uint32).view(F).astype(to)


def _rounded(how: Callable[[Array], Array]) -> Callable[[Array, np.dtype[Any]], Array | None]:
    return lambda x, to: how(x).astype(to) if x.dtype.kind == "f" and to.kind in "iu" else None


def _unsaturated(x: Array, to: np.dtype[Any]) -> Array | None:
    return x.astype(F).astype(to) if to.name in SATURATING else None


def _to_nan(x: Array, to: np.dtype[Any]) -> Array | None:
    limit = {"float16": 65504.0}.get(to.name)
    return np.where(np.abs(x) > limit, F(limit), x).astype(to) if limit and x.dtype == F else None


def _through(name: str) -> Callable[[Array, np.dtype[Any]], Array | None]:
    def wrong(x: Array, to: np.dtype[Any]) -> Array | None:
        if x.dtype.kind == "f" and to.kind in "iub":
            return x.astype(TYPES[name]).astype(F).astype(to)
        return _saturated(x.astype(TYPES[name]).astype(F), to) if to.kind not in "iub" else None

    return wrong


def _index_in_float32(x: Array, to: np.dtype[Any]) -> Array | None:
    return x.astype(F).astype(to) if x.dtype == np.int64 and to.kind in "iuf" else None


def _wrapped(x: Array, to: np.dtype[Any]) -> Array | None:
    """Integers saturated where they wrap round."""
    if x.dtype.kind != "i" or to.kind not in "iu" or to.itemsize >= x.dtype.itemsize:
        return None
    limits = np.iinfo(to)
    return np.clip(x, limits.min, limits.max).astype(to)


def _truth(x: Array, to: np.dtype[Any]) -> Array | None:
    return x > 0 if to.kind == "b" else None


def _truth_after_truncation(x: Array, to: np.dtype[Any]) -> Array | None:
    return x.astype(np.int64) != 0 if to.kind == "b" and x.dtype == F else None


def _reinterpreted(x: Array, to: np.dtype[Any]) -> Array | None:
    return x.view(to) if x.dtype.itemsize == to.itemsize and x.dtype != to and to.kind in "iu" else None


def _unsigned(x: Array, to: np.dtype[Any]) -> Array | None:
    return np.abs(x).astype(to) if to.kind in "if" and x.dtype.kind in "if" else None


def _exchanged(x: Array, to: np.dtype[Any]) -> Array | None:
    other = {"float8_e4m3fn": "float8_e5m2", "float8_e5m2": "float8_e4m3fn"}.get(to.name)
    return None if other is None else _saturated(x.astype(F), TYPES[other]).view(to)


WRONG: tuple[tuple[str, Callable[[Array, np.dtype[Any]], Array | None]], ...] = (
    ("fraction bits cut off", _bits_cut),
    ("ties away from zero", _up),
    ("rounded to integers", _rounded(np.rint)),
    ("rounded down to integers", _rounded(np.floor)),
    ("saturation missing", _unsaturated),
    ("saturated in place of infinity", _to_nan),
    ("by way of float16", _through("float16")),
    ("by way of bfloat16", _through("bfloat16")),
    ("int64 by way of float32", _index_in_float32),
    ("integers saturated where they wrap", _wrapped),
    ("only positive numbers are true", _truth),
    ("true after truncation", _truth_after_truncation),
    ("bits reinterpreted", _reinterpreted),
    ("sign lost", _unsigned),
    ("the other float8", _exchanged),
)


def _fault(case: Case, wrong: Callable[[Array, np.dtype[Any]], Array | None]) -> Outputs | None:
    y = wrong(np.asarray(case.inputs[0]), _target(case))
    return None if y is None else (y,)


def cases(quick: bool) -> Iterator[Case]:
    """Floats of every kind to every type; large integers."""
    for kind, seed in itertools.product(KINDS, range(1 if quick else 3)):
        x = tensor(kind, (5, 26), seed) * F((3.0, 100.0, 0.1)[seed % 3])
        x[0, :4] = [0.5, 1.5, -2.5, 1 + 2.0**-8]
        for name in CODES:
            whole = TYPES[name].kind in "iu"
            limit = {"int8": 127.0, "uint8": 255.0}.get(name, 1e8)
            inside = np.clip(x, 0 if name == "uint8" else -limit, limit) if whole else x
            yield Case("Cast", (inside.astype(F),), {"to": CODES[name]}, kind, 1)
        integers = (x.astype(np.float64) * 2**30).astype(np.int64)
        for name in ("int32", "int8", "uint8", "float32", "float64", "bool"):
            yield Case("Cast", (integers,), {"to": CODES[name]}, kind, 1)


FAMILY = Family(
    "casts",
    cases,
    cast,
    (Variant("by way of float64", _by_float64),),
    (
        *(Fault(name, ("Cast",), lambda case, wrong=wrong: _fault(case, wrong)) for name, wrong in WRONG),
        *tampered(cast),
    ),
)
