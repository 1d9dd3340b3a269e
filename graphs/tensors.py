"""Between ONNX's TensorProto and NumPy: element types, declared types, stored values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..errors import InvalidModelError
from .external import ExternalData, uses_external_data
from .model import TensorSpec

LARGEST_DIM = 2**48
"""A dim or an element count above this is a corrupted file: no machine holds it."""

LARGEST_RANK = 64
"""What NumPy arrays can have."""

PACKED_BITS: dict[int, int] = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    **{getattr(TensorProto, name): 2 for name in ("INT2", "UINT2") if hasattr(TensorProto, name)},
    **{getattr(TensorProto, name): 6 for name in ("FLOAT6E2M3", "FLOAT6E3M2") if hasattr(TensorProto, name)},
}
"""Bits per element of the types that raw data hold packed, by TensorProto.DataType."""


def element_dtype(element_type: int) -> np.dtype[Any]:
    """The NumPy (or `ml_dtypes`) dtype of a TensorProto.DataType; strings are object.

    Raises:
        InvalidModelError: no such element type, or one that the installed onnx does not know.
    """
    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(element_type))
    except KeyError:
        known = ", ".join(TensorProto.DataType.keys()[1:])
        raise InvalidModelError(f"element type {element_type} is unknown; known are {known}") from None


def element_type(dtype: np.dtype[Any]) -> int:
    """The TensorProto.DataType of a NumPy dtype; object and unicode arrays are strings."""
    return TensorProto.STRING if dtype.kind in "OUS" else helper.np_dtype_to_tensor_dtype(dtype)


def element_count(dims: Iterable[int]) -> int:
    """Product of `dims`.

    Raises:
        InvalidModelError: a negative dim, a rank above 64, or a product that no machine could hold.
    """
    dims = tuple(dims)
    if any(dim < 0 for dim in dims):
        raise InvalidModelError(f"shape {list(dims)} has a negative dim")
    if len(dims) > LARGEST_RANK:
        raise InvalidModelError(f"rank {len(dims)}; at most {LARGEST_RANK} is possible")
    if math.prod(dim for dim in dims if dim) > LARGEST_DIM:
        raise InvalidModelError(f"shape {list(dims)} is too large; at most {LARGEST_DIM} elements are possible")
    return math.prod(dims)


def stored_bytes(element_type: int, dims: Iterable[int]) -> int:
    """Bytes that raw data of this type and shape take."""
    count = element_count(dims)
    bits = PACKED_BITS.get(element_type)
    return count * element_dtype(element_type).itemsize if bits is None else (count * bits + 7) // 8


def tensor_array(tensor: TensorProto, external: ExternalData) -> np.ndarray:
    """The value of a TensorProto; raw data are viewed and external data mapped, not copied unless packed.

    Args:
        tensor: a tensor with raw, typed or external data.
        external: the model's external data.

    Returns:
        An array of the stored dtype; strings as an object array of str.

    Raises:
        InvalidModelError: the data do not match type and shape, or the external file is not allowed or not there.
    """
    try:
        return _tensor_array(tensor, external)
    except InvalidModelError as error:
        raise InvalidModelError(f"tensor {tensor.name!r}: {error}") from error


def _tensor_array(tensor: TensorProto, external: ExternalData) -> np.ndarray:
    dtype, dims = element_dtype(tensor.data_type), tuple(tensor.dims)
    if tensor.HasField("segment"):
        raise InvalidModelError("it is stored in segments, which no exporter writes and nothing reads")
    if tensor.data_type == TensorProto.STRING:
        return _string_array(tensor, dims)
    expected = stored_bytes(tensor.data_type, dims)
    if uses_external_data(tensor):
        data = external.array(tensor, expected)
    elif tensor.HasField("raw_data"):
        data = np.frombuffer(_exactly(tensor.raw_data, expected, dtype, dims), np.uint8)
    else:
        return _typed_array(tensor, dtype, dims)
    return _unpacked(data, tensor.data_type, dtype, dims)


def _exactly(data: bytes, expected: int, dtype: np.dtype[Any], dims: tuple[int, ...]) -> bytes:
    if len(data) != expected:
        raise InvalidModelError(f"{dtype} {list(dims)} takes {expected} bytes, the file holds {len(data)}")
    return data


def _unpacked(data: np.ndarray, element_type: int, dtype: np.dtype[Any], dims: tuple[int, ...]) -> np.ndarray:
    if element_type in PACKED_BITS:
        packed = TensorProto(data_type=element_type, dims=dims, raw_data=data.tobytes())
        return numpy_helper.to_array(packed)
    if dtype == np.bool_:
        return (data != 0).reshape(dims) if data.size and data.max() > 1 else data.view(np.bool_).reshape(dims)
    return data.view(dtype).reshape(dims)


def _typed_array(tensor: TensorProto, dtype: np.dtype[Any], dims: tuple[int, ...]) -> np.ndarray:
    field = helper.tensor_dtype_to_field(tensor.data_type)
    given, expected = len(getattr(tensor, field)), _entries(tensor.data_type, element_count(dims))
    if given != expected:
        raise InvalidModelError(f"{dtype} {list(dims)} takes {expected} entries of {field}, the file holds {given}")
    return numpy_helper.to_array(tensor)


def _entries(element_type: int, count: int) -> int:
    if element_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return 2 * count
    bits = PACKED_BITS.get(element_type)
    return (count * bits + 7) // 8 if bits in (2, 4) else count


def _string_array(tensor: TensorProto, dims: tuple[int, ...]) -> np.ndarray:
    if element_count(dims) != len(tensor.string_data):
        given, expected = len(tensor.string_data), element_count(dims)
        raise InvalidModelError(f"strings {list(dims)} take {expected} entries of string_data, the file holds {given}")
    array = np.empty(len(tensor.string_data), object)
    array[:] = [text(item) for item in tensor.string_data]
    return array.reshape(dims)


def text(data: bytes) -> str:
    """UTF-8 bytes as str; bytes that are not UTF-8 survive as surrogate escapes."""
    return data.decode("utf-8", "surrogateescape")


def dense_array(sparse: onnx.SparseTensorProto, external: ExternalData, largest_bytes: int) -> np.ndarray:
    """A sparse tensor, written out.

    Args:
        sparse: values (n,) with linear indices (n,) or coordinates (n, rank).
        external: the model's external data.
        largest_bytes: refuse to allocate more.

    Raises:
        InvalidModelError: indices outside the shape or not matching the values, or too large.
    """
    values, indices = tensor_array(sparse.values, external), tensor_array(sparse.indices, external)
    name, dims = sparse.values.name, tuple(sparse.dims)
    size = element_count(dims) * values.itemsize
    if size > largest_bytes:
        raise InvalidModelError(f"sparse tensor {name!r} takes {size} bytes written out; {largest_bytes} are available")
    if values.ndim != 1 or indices.dtype != np.int64 or indices.shape not in ((values.size,), (values.size, len(dims))):
        raise InvalidModelError(
            f"sparse tensor {name!r}: {values.size} values of rank {values.ndim} with {indices.dtype} indices "
            f"{list(indices.shape)}; allowed are int64 ({values.size},) or ({values.size}, {len(dims)})"
        )
    return _scattered(values, indices, dims, name)


def _scattered(values: np.ndarray, indices: np.ndarray, dims: tuple[int, ...], name: str) -> np.ndarray:
    limits = np.array(dims, np.int64) if indices.ndim == 2 else math.prod(dims)
    if np.any(indices < 0) or np.any(indices >= limits):
        raise InvalidModelError(f"sparse tensor {name!r} has an index outside its shape {list(dims)}")
    dense = np.zeros(dims, values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense


def tensor_spec(info: onnx.ValueInfoProto) -> TensorSpec:
    """The declared type of a graph input or output.

    A dim of −1 is what some exporters write for an unknown one.

    Raises:
        InvalidModelError: an unknown element type, or a dim that is negative otherwise or impossibly large.
    """
    kind = info.type.WhichOneof("value")
    if kind in ("sequence_type", "optional_type", "map_type"):
        return TensorSpec(info.name, None, None, kind.removesuffix("_type"))
    if kind not in ("tensor_type", "sparse_tensor_type"):
        return TensorSpec(info.name, None, None, "unknown")
    declared = getattr(info.type, kind)
    try:
        dtype = element_dtype(declared.elem_type) if declared.elem_type else None
    except InvalidModelError as error:
        raise InvalidModelError(f"{info.name!r}: {error}") from error
    shape = tuple(_dim(info.name, dim) for dim in declared.shape.dim) if declared.HasField("shape") else None
    return TensorSpec(info.name, dtype, shape, "tensor" if dtype is not None else "unknown")


def _dim(name: str, dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value") and dim.dim_value != -1:
        if not 0 <= dim.dim_value <= LARGEST_DIM:
            raise InvalidModelError(f"{name!r} declares a dim of {dim.dim_value}; allowed are 0 to {LARGEST_DIM}")
        return dim.dim_value
    return dim.dim_param or None
