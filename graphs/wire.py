"""The protobuf wire format, as far as it takes to leave a model's weights in its file.

Parsing an .onnx file copies its embedded weights into memory, reading them as arrays copies them again. `lean_model`
rewrites the message so that every large `raw_data` becomes external data in the file itself: an offset and a length,
which are mapped like any external data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnx import StringStringEntryProto, TensorProto

SMALLEST_LEFT_BYTES = 4096
"""Data from this size on stay in the file; smaller ones are shapes, axes and scales, which tools want at hand."""

LARGEST_DEPTH = 100
"""Nesting that protobuf parses by default; a deeper message is left as it is, to be refused by the parser."""

_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "tensor": {},
}
"""Numbers of the fields that may lead to a tensor, by message."""

_RAW_DATA, _EXTERNAL_FIELDS = 9, frozenset({13, 14})
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10


class _MalformedError(Exception):
    """The bytes are no protobuf message that this module rewrites; never leaves it."""


@dataclass(frozen=True)
class _Field:
    number: int
    wire_type: int
    start: int
    """Where its tag begins."""
    payload: int
    """Where its value begins."""
    end: int


def lean_model(data: memoryview, location: str) -> bytes:
    """The serialized ModelProto `data` with its large raw data as external data at `location`.

    Args:
        data: the content of an .onnx file.
        location: the file's own name.

    Returns:
        The rewritten message; the same bytes where `data` is no well-formed message.
    """
    try:
        return b"".join(_Rewriting(data, location).message(0, len(data), "model", 0))
    except _MalformedError:
        return bytes(data)


@dataclass(frozen=True)
class _Rewriting:
    data: memoryview
    location: str

    def message(self, start: int, end: int, kind: str, depth: int) -> list[bytes]:
        """The message of this kind in data[start:end], rewritten, in pieces."""
        if depth > LARGEST_DEPTH:
            raise _MalformedError
        if kind == "tensor":
            return self.tensor(start, end)
        pieces, kept = [], start
        for field in _fields(self.data, start, end):
            child = _CHILDREN[kind].get(field.number)
            if child is not None and field.wire_type == _LENGTH and field.end - field.payload >= SMALLEST_LEFT_BYTES:
                inner = b"".join(self.message(field.payload, field.end, child, depth + 1))
                pieces += [
                    bytes(self.data[kept : field.start]),
                    _tag(field.number, _LENGTH),
                    _varint(len(inner)),
                    inner,
                ]
                kept = field.end
        return [*pieces, bytes(self.data[kept:end])]

    def tensor(self, start: int, end: int) -> list[bytes]:
        """The TensorProto in data[start:end] without large raw data."""
        fields = list(_fields(self.data, start, end))
        raw = [field for field in fields if field.number == _RAW_DATA]
        if len(raw) != 1 or raw[0].wire_type != _LENGTH or any(field.number in _EXTERNAL_FIELDS for field in fields):
            return [bytes(self.data[start:end])]
        length = raw[0].end - raw[0].payload
        if length < SMALLEST_LEFT_BYTES:
            return [bytes(self.data[start:end])]
        reference = external_reference(self.location, raw[0].payload, length)
        return [bytes(self.data[start : raw[0].start]), bytes(self.data[raw[0].end : end]), reference]


def external_reference(location: str, offset: int, length: int) -> bytes:
    """Fields of a serialized TensorProto that say where its data lie."""
    entries = {"location": location, "offset": str(offset), "length": str(length)}
    return TensorProto(
        data_location=TensorProto.EXTERNAL,
        external_data=[StringStringEntryProto(key=key, value=value) for key, value in entries.items()],
    ).SerializeToString()


def _fields(data: memoryview, start: int, end: int) -> Iterator[_Field]:
    """The fields of the message in data[start:end]."""
    position = start
    while position < end:
        tag, payload = _read_varint(data, position, end)
        wire_type, after = tag & 7, payload
        if wire_type == _LENGTH:
            length, payload = _read_varint(data, payload, end)
            after = payload + length
        elif wire_type == _VARINT:
            _, after = _read_varint(data, payload, end)
        elif wire_type in (_FIXED64, _FIXED32):
            after = payload + (8 if wire_type == _FIXED64 else 4)
        else:
            raise _MalformedError
        if after > end:
            raise _MalformedError
        yield _Field(tag >> 3, wire_type, position, payload, after)
        position = after


def _read_varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    """A base-128 number and the position behind it."""
    value = 0
    for index in range(_LONGEST_VARINT):
        if position + index >= end:
            raise _MalformedError
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise _MalformedError


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _tag(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)
