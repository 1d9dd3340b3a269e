"""The types of the spec's signatures: their dtypes, and tensors, sequences and maps brought into another one.

retyped(x, "tensor(float8e4m3fn)")
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from onnx_arch.operators.scale import Array
from onnx_arch.operators.storage import decode, encode, float_format, is_float

ELEMENTS: Mapping[str, np.dtype[Any]] = {
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"{sign}int{bits}": np.dtype(getattr(ml_dtypes, f"{sign}int{bits}")) for sign in ("", "u") for bits in (2, 4)},
    "float16": np.dtype(np.float16),
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "float8e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "float8e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "float8e8m0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "float6e2m3": np.dtype(ml_dtypes.float6_e2m3fn),
    "float6e3m2": np.dtype(ml_dtypes.float6_e3m2fn),
    "float4e2m1": np.dtype(ml_dtypes.float4_e2m1fn),
    "bool": np.dtype(bool),
    "string": np.dtype(object),
    "complex64": np.dtype(np.complex64),
    "complex128": np.dtype(np.complex128),
}
"""Every element type of the spec by the name that stands in signatures."""

CODES: Mapping[str, int] = {
    **{"float": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "string": 8, "bool": 9},
    **{"float16": 10, "double": 11, "uint32": 12, "uint64": 13, "complex64": 14, "complex128": 15, "bfloat16": 16},
    **{"float8e4m3fn": 17, "float8e4m3fnuz": 18, "float8e5m2": 19, "float8e5m2fnuz": 20, "uint4": 21, "int4": 22},
    **{"float4e2m1": 23, "float8e8m0": 24, "uint2": 25, "int2": 26, "float6e2m3": 27, "float6e3m2": 28},
}
"""Their codes in TensorProto, written down once more so that a misread table of the library shows up."""

_INSIDE = re.compile(r"(tensor|seq|optional|map)\((.*)\)")


def element_of(type_str: str) -> str:
    """The innermost element type of a signature's type: "seq(tensor(float))" is "float"; of a map, its value's."""
    while found := _INSIDE.fullmatch(type_str):
        type_str = found[2].rpartition(", ")[2] if found[1] == "map" else found[2]
    return type_str


def retyped(value: Any, type_str: str) -> Any:
    """A value in the type of a signature: sequences item by item, a lone tensor as a sequence of one.

    Numbers are kept where the type holds them and else clipped; a string becomes its length, a number its text.
    """
    found = _INSIDE.fullmatch(type_str)
    kind, inner = (found[1], found[2]) if found else ("", "")
    if value is None:
        return None
    if kind == "optional":
        return retyped(value, inner)
    if kind == "seq":
        items = value if isinstance(value, list) else [value]
        return [retyped(item, inner) for item in items]
    if kind == "map":
        key, _, content = inner.partition(", ")
        return {_scalar(k, key): _scalar(v, content) for k, v in value.items()}
    tensor = value[0] if isinstance(value, list) else value
    return converted(np.asarray(tensor), ELEMENTS[inner])


def _scalar(value: Any, element: str) -> Any:
    return converted(np.asarray(value, object if isinstance(value, str) else None), ELEMENTS[element])[()]


def converted(x: Array, dtype: np.dtype[Any]) -> Array:
    """Values in another dtype, clipped to what it holds; float8e8m0 takes the nearest power of two."""
    if x.dtype == dtype:
        return x
    if dtype.kind == "O":
        return np.array([str(item) for item in decode(x).reshape(-1).tolist()], object).reshape(x.shape)
    if x.dtype.kind in "OUS":
        x = np.array([len(item) for item in x.reshape(-1)], np.int64).reshape(x.shape)
    if dtype.kind in "cb":
        return decode(x).astype(dtype)
    wide = np.real(decode(x))
    return _rounded(wide.astype(np.float64), dtype) if is_float(dtype) else _whole(wide, dtype)


def _whole(wide: Array, dtype: np.dtype[Any]) -> Array:
    limits = ml_dtypes.iinfo(dtype)
    if wide.dtype.kind == "f":
        wide = np.rint(np.nan_to_num(wide))
    inside = [min(max(int(item), int(limits.min)), int(limits.max)) for item in wide.reshape(-1)]
    carrier = np.uint64 if dtype == np.uint64 else np.int64
    return np.array(inside, object).astype(carrier).astype(dtype).reshape(wide.shape)


def _rounded(x: Array, dtype: np.dtype[Any]) -> Array:
    form = float_format(dtype)
    if dtype == ELEMENTS["float8e8m0"]:
        x = np.maximum(np.abs(x), form.smallest_normal)
    finite = np.isfinite(x)
    return np.asarray(encode(np.where(finite, np.clip(x, -form.largest, form.largest), x), dtype))
