"""How tensors travel between the host and a worker: a length-prefixed JSON header, then raw buffers.

A frame is `<QQ` (bytes of header, bytes of payload), the header as UTF-8 JSON, and the payload. The header holds one
spec per value; the payload is the tensors' bytes in the order of the specs, C-contiguous and little-endian:

    {"dtype": "float32", "shape": [2, 3]}                  a tensor, dtype by its NumPy or ml_dtypes name
    {"dtype": "string", "shape": [2], "size": 31}          int64 lengths of the UTF-8 strings, then their bytes
    {"items": [spec, …]}                                   a sequence
    {"keys": [1, 2], "items": [spec, …]}                   a map
    {"absent": true}                                       an optional that holds nothing

Types that NumPy does not know (bfloat16, float8, int4, …) travel as `ml_dtypes` stores them: one or two bytes per
element, sub-byte types not packed. Nothing is ever pickled. This file is loaded by the worker too, in whatever
interpreter holds the runtime: Python 3.8 and NumPy 1.19 are enough, and nothing else is imported.
"""

from __future__ import annotations

import json
import struct
import sys
from typing import Any, Callable  # noqa: UP035 - Python 3.8 cannot subscript the one of collections.abc

import numpy as np

_LENGTHS = struct.Struct("<QQ")
_JOIN_BELOW = 1 << 16
"""Buffers smaller than this are joined to one write."""

NUMPY_DTYPES = frozenset(
    ["bool", "float16", "float32", "float64", "complex64", "complex128"]
    + [sign + "int" + bits for sign in ("", "u") for bits in ("8", "16", "32", "64")]
)
"""Dtypes that NumPy itself has, by name."""

RAW_DTYPES = {
    "bfloat16": "uint16",
    "float8_e4m3fn": "uint8",
    "float8_e4m3fnuz": "uint8",
    "float8_e5m2": "uint8",
    "float8_e5m2fnuz": "uint8",
    "float8_e8m0fnu": "uint8",
    "float4_e2m1fn": "uint8",
    "int4": "uint8",
    "uint4": "uint8",
    "int2": "uint8",
    "uint2": "uint8",
}
"""Dtypes of `ml_dtypes` by name, and the unsigned integer that holds one element on the wire."""


class RawTensor:
    """A tensor of a dtype that NumPy does not have.

    Attributes:
        dtype: its name in `ml_dtypes`, a key of `RAW_DTYPES`.
        bits: the stored bits, one element each, in the tensor's shape; uint16 or uint8.
    """

    def __init__(self, dtype: str, bits: np.ndarray) -> None:
        self.dtype = dtype
        self.bits = bits

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.bits.shape


MakeRaw = Callable[[str, np.ndarray], Any]


class TruncatedFrameError(EOFError):
    """The other side closed the pipe, within a frame or before one."""


class Encoder:
    """Collects the buffers of the values that it describes."""

    def __init__(self) -> None:
        self.buffers: list[memoryview] = []

    def describe(self, value: Any) -> dict[str, Any]:
        """The spec of a value; its buffers are kept in order.

        Raises:
            TypeError: a value or dtype that does not travel.
        """
        if value is None:
            return {"absent": True}
        if isinstance(value, (list, tuple)):
            return {"items": [self.describe(item) for item in value]}
        if isinstance(value, dict):
            return {"keys": list(value), "items": [self.describe(item) for item in value.values()]}
        if hasattr(value, "bits"):  # a RawTensor, or an adapter's own of the same form
            return self._describe_bits(value.dtype, value.bits)
        return self._describe_array(np.asarray(value))

    def _describe_array(self, array: np.ndarray) -> dict[str, Any]:
        if array.dtype.kind in "OUS":
            return self._describe_strings(array)
        name = array.dtype.name
        if name in RAW_DTYPES:
            return self._describe_bits(name, np.asarray(array, order="C").view(RAW_DTYPES[name]))
        if name not in NUMPY_DTYPES:
            raise TypeError(f"a tensor of dtype {array.dtype} is not one that ONNX has")
        return self._describe_bits(name, np.asarray(array, dtype=_little_endian(name)))

    def _describe_bits(self, dtype: str, array: np.ndarray) -> dict[str, Any]:
        if array.size:
            self.buffers.append(np.asarray(array, order="C").reshape(-1).view(np.uint8).data)
        return {"dtype": dtype, "shape": list(array.shape)}

    def _describe_strings(self, array: np.ndarray) -> dict[str, Any]:
        encoded = [_encode_string(item) for item in array.reshape(-1).tolist()]
        lengths = np.array([len(item) for item in encoded], dtype="<i8")
        blob = lengths.tobytes() + b"".join(encoded)
        if blob:
            self.buffers.append(memoryview(blob))
        return {"dtype": "string", "shape": list(array.shape), "size": len(blob)}


def _little_endian(dtype: str) -> np.dtype:
    plain = np.dtype(dtype)
    return plain if sys.byteorder == "little" else plain.newbyteorder("<")


def _encode_string(item: Any) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        return item.encode("utf-8", "surrogatepass")
    raise TypeError(f"an object array holds {type(item).__name__}, only str and bytes travel")


class Channel:
    """Frames over a pair of unbuffered binary files (`read_from.readinto`, `write_to.write`)."""

    def __init__(self, read_from: Any, write_to: Any, make_raw: MakeRaw = RawTensor) -> None:
        self._reader = read_from
        self._writer = write_to
        self.make_raw = make_raw
        self._unread = 0

    def send(self, header: dict[str, Any], encoder: Encoder | None = None) -> None:
        """Write one frame.

        Raises:
            OSError: the other side is gone.
        """
        buffers = encoder.buffers if encoder is not None else []
        text = json.dumps(header).encode("utf-8")
        small: list[bytes | memoryview] = [_LENGTHS.pack(len(text), sum(len(buffer) for buffer in buffers)), text]
        for buffer in buffers:
            if len(buffer) < _JOIN_BELOW:
                small.append(buffer)
                continue
            self._write(b"".join(small))
            self._write(buffer)
            small = []
        self._write(b"".join(small))

    def _write(self, data: Any) -> None:
        view = memoryview(data)
        while len(view) > 0:
            view = view[self._writer.write(view) :]

    def receive(self) -> dict[str, Any]:
        """Read the header of the next frame; its values must then be read, in order, or drained.

        Raises:
            TruncatedFrameError: the other side is gone.
        """
        prefix = bytearray(_LENGTHS.size)
        self._fill(memoryview(prefix))
        length, self._unread = _LENGTHS.unpack(bytes(prefix))
        text = bytearray(length)
        self._fill(memoryview(text))
        return json.loads(text.decode("utf-8"))

    def value(self, spec: dict[str, Any]) -> Any:
        """Read the next value of the current frame."""
        if "absent" in spec:
            return None
        if "items" in spec:
            items = [self.value(item) for item in spec["items"]]
            return dict(zip(spec["keys"], items)) if "keys" in spec else items  # noqa: B905 - `strict` needs Python 3.10
        dtype, shape = spec["dtype"], tuple(spec["shape"])
        if dtype == "string":
            return self._strings(spec["size"], shape)
        if dtype in RAW_DTYPES:
            return self.make_raw(dtype, self._bits(RAW_DTYPES[dtype], shape))
        if dtype not in NUMPY_DTYPES:
            raise TypeError(f"a frame names an unknown dtype {dtype!r}")
        return self._bits(dtype, shape)

    def _bits(self, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        array = np.empty(shape, dtype=_little_endian(dtype))
        if array.size:
            self._take(array.reshape(-1).view(np.uint8).data)
        return array

    def _strings(self, size: int, shape: tuple[int, ...]) -> np.ndarray:
        array = np.empty(shape, dtype=object)
        blob = bytearray(size)
        self._take(memoryview(blob))
        ends = np.cumsum(np.frombuffer(blob, dtype="<i8", count=array.size)) + 8 * array.size
        start = 8 * array.size
        for index, end in enumerate(ends.tolist()):
            array.flat[index] = blob[start:end].decode("utf-8", "surrogatepass")
            start = end
        return array

    def _take(self, view: memoryview) -> None:
        self._fill(view)
        self._unread -= len(view)

    def _fill(self, view: memoryview) -> None:
        while len(view) > 0:
            count = self._reader.readinto(view)
            if not count:
                raise TruncatedFrameError("the pipe is closed")
            view = view[count:]

    def drain(self) -> None:
        """Read away what is left of the current frame, so that the next one can be read."""
        scratch = memoryview(bytearray(min(self._unread, 1 << 20)))
        while self._unread:
            self._take(scratch[: min(self._unread, len(scratch))])
