"""Write an ONNX model with its weights streamed: no copy of the weights is made, whatever their size.

A protobuf message is its fields one after another, and a field is a tag, a length and the bytes. So the model without
its initializers is serialised as usual, and the initializers are appended to the graph's field straight from memory;
or they go to an external data file and only their place is recorded. The digest is taken while writing.

Wire format: https://protobuf.dev/programming-guides/encoding; field numbers: onnx.proto.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

Release = Callable[[np.ndarray], None]

LARGEST_EMBEDDED_BYTES = 2_000_000_000
"""Weights above this go beside the model: one protobuf message holds at most 2^31 − 1 bytes."""

EXTERNAL_ALIGNMENT = 4096
"""Offsets of external tensors are multiples of the page size, so that they can be memory-mapped."""

SMALLEST_EXTERNAL_BYTES = 1024
"""Smaller tensors (shapes, scalars) stay in the model, where shape inference reads them."""

BLOCK_BYTES = 1 << 24
"""Of an initializer that are written at a time."""

MODEL_GRAPH = 7
GRAPH_INITIALIZER = 5
TENSOR_RAW_DATA = 9


@dataclass(frozen=True)
class WrittenFile:
    """A file of a bundle: its path in the bundle, SHA-256 and size in bytes."""

    name: str
    sha256: str
    size_bytes: int


class HashingStream:
    """A binary stream that digests and counts what passes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """Pass `data` on."""
        self._stream.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)

    def written(self, name: str) -> WrittenFile:
        """What passed so far, as a file of that name."""
        return WrittenFile(name, self._digest.hexdigest(), self.size_bytes)


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers of the main graph."""
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)


def write_model(
    model: ir.Model, path: Path, *, external: bool = False, release: Release = lambda _: None
) -> tuple[WrittenFile, ...]:
    """Write `path`; and `path`.data beside it if asked for or if the weights exceed 2 GB.

    Args:
        model: its initializers are read, not changed.
        path: the .onnx file.
        external: put the weights into `path`.data in any case.
        release: told of every part of an initializer that is written, as it lies in memory.

    Returns:
        The files written.

    Raises:
        OSError: the file system refuses; what was written so far stays.
    """
    proto = _without_initializers(model)
    tensors = [_Tensor(name, value.const_value, release) for name, value in model.graph.initializers.items()]
    if not external and weight_bytes(model) <= LARGEST_EMBEDDED_BYTES:
        return (_write_embedded(proto, tensors, path),)
    data_file = _write_external(proto, tensors, path)
    return (write_bytes(proto.SerializeToString(deterministic=True), path), data_file)


def write_bytes(content: bytes, path: Path) -> WrittenFile:
    """Write a small file."""
    path.write_bytes(content)
    return WrittenFile(path.name, hashlib.sha256(content).hexdigest(), len(content))


class _Tensor:
    """An initializer: the part of its message before the data, and the data as they lie in memory."""

    def __init__(self, name: str, tensor: ir.TensorProtocol | None, release: Release) -> None:
        import onnx  # noqa: PLC0415 - heavy
        import onnx_ir as ir  # noqa: PLC0415 - heavy

        if tensor is None:
            raise ValueError(f"initializer {name} has no value")
        self.tensor, self.release = tensor, release
        self.proto = onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=tensor.shape.numpy())
        self.is_raw = tensor.dtype != ir.DataType.STRING
        if not self.is_raw:
            self.proto.string_data.extend(ir.serde.serialize_tensor(tensor).string_data)

    def prefix(self) -> bytes:
        """The message up to the bytes of `raw_data`."""
        head = self.proto.SerializeToString(deterministic=True)
        return head + _tag(TENSOR_RAW_DATA, self.tensor.nbytes) if self.is_raw else head

    def data(self) -> Iterator[memoryview]:
        """The bytes of `raw_data`, little-endian, in blocks of rows; where they are not contiguous, copied.

        Types of less than eight bits are packed whole.
        """
        if not self.is_raw:
            return
        array = self.tensor.numpy()
        if array.nbytes != self.tensor.nbytes:
            yield memoryview(self.tensor.tobytes())
            return
        array = array if array.ndim else array.reshape(1)
        rows = max(1, BLOCK_BYTES // max(1, array[:1].nbytes))
        for start in range(0, len(array), rows):
            block = array[start : start + rows]
            yield np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
            self.release(block)


def _without_initializers(model: ir.Model) -> onnx.ModelProto:
    import onnx_ir as ir  # noqa: PLC0415 - heavy

    initializers = dict(model.graph.initializers)
    model.graph.initializers.clear()
    try:
        return ir.serde.serialize_model(model)
    finally:
        model.graph.initializers.update(initializers)


def _tag(field: int, length: int) -> bytes:
    """Tag and length of a length-delimited field."""
    return _varint(field << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*groups, value))


def _write_embedded(proto: onnx.ModelProto, tensors: Sequence[_Tensor], path: Path) -> WrittenFile:
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    heads = [_initializer_head(tensor) for tensor in tensors]
    data_bytes = sum(tensor.tensor.nbytes for tensor in tensors if tensor.is_raw)
    length = len(graph) + sum(map(len, heads)) + data_bytes
    with path.open("wb") as file:
        stream = HashingStream(file)
        stream.write(proto.SerializeToString(deterministic=True))
        stream.write(_tag(MODEL_GRAPH, length) + graph)
        for head, tensor in zip(heads, tensors, strict=True):
            stream.write(head)
            for block in tensor.data():
                stream.write(block)
    return stream.written(path.name)


def _initializer_head(tensor: _Tensor) -> bytes:
    prefix = tensor.prefix()
    data_bytes = tensor.tensor.nbytes if tensor.is_raw else 0
    return _tag(GRAPH_INITIALIZER, len(prefix) + data_bytes) + prefix


def _write_external(proto: onnx.ModelProto, tensors: Sequence[_Tensor], path: Path) -> WrittenFile:
    name = f"{path.name}.data"
    with (path.parent / name).open("wb") as file:
        stream = HashingStream(file)
        for tensor in tensors:
            proto.graph.initializer.append(_placed(tensor, stream, name))
    return stream.written(name)


def _placed(tensor: _Tensor, stream: HashingStream, name: str) -> onnx.TensorProto:
    """The tensor with its data in the stream, or within itself where they are few."""
    import onnx  # noqa: PLC0415 - heavy

    size, placed = tensor.tensor.nbytes, onnx.TensorProto()
    placed.CopyFrom(tensor.proto)
    if size < SMALLEST_EXTERNAL_BYTES or not tensor.is_raw:
        if tensor.is_raw:
            placed.raw_data = b"".join(tensor.data())
        return placed
    stream.write(bytes(-stream.size_bytes % EXTERNAL_ALIGNMENT))
    placed.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", name), ("offset", stream.size_bytes), ("length", size)):
        placed.external_data.add(key=key, value=str(value))
    for block in tensor.data():
        stream.write(block)
    return placed
