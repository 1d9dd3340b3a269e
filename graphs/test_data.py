"""ONNX's own folders of test data: test_data_set_N/input_0.pb, output_0.pb, … in the order of the graph."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from onnx import OptionalProto, SequenceProto, TensorProto, numpy_helper

from ..errors import InvalidInputError, InvalidModelError
from .external import ExternalData
from .feeds import required_inputs, validate_feeds
from .memory import available_memory
from .model import Model, TensorSpec
from .tensors import dense_array, element_type, tensor_array

_NUMBERED = re.compile(r"(?P<kind>input|output)_(?P<index>\d{1,6})\.pb")


def find_test_data(folder: Path) -> tuple[Path, ...]:
    """The test_data_set_N folders below a folder, by N; the folder itself if it holds the .pb files.

    Raises:
        InvalidInputError: there is none.
    """
    try:
        if any(_NUMBERED.fullmatch(file.name) for file in folder.iterdir()):
            return (folder,)
        found = [path for path in folder.glob("test_data_set_*") if path.is_dir() and path.name[14:].isdecimal()]
    except OSError as error:
        raise InvalidInputError(f"{folder}: cannot be read: {error.strerror}") from error
    if not found:
        raise InvalidInputError(f"{folder}: no test data; allowed are input_0.pb, … or folders test_data_set_0, …")
    return tuple(sorted(found, key=lambda path: int(path.name[14:])))


def read_test_data(model: Model, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read one set of test data.

    A file belongs to the input whose name its tensor carries, and without such names to the input at its number.

    Args:
        model: a loaded model.
        folder: with input_0.pb, …; output_0.pb, … may be missing.

    Returns:
        Feeds, validated, and expected outputs, both by name.

    Raises:
        InvalidInputError: missing or corrupted files, or not what the model takes.
    """
    folder = Path(folder)
    feeds = _read(folder, "input", _feedable(model, folder))
    try:
        validate_feeds(model, feeds)
    except InvalidInputError as error:
        raise InvalidInputError(f"{folder}: {error}") from error
    return feeds, _read(folder, "output", model.graph.outputs)


def _feedable(model: Model, folder: Path) -> Sequence[TensorSpec]:
    """The inputs that the files number: those without a default, or all if there are as many files."""
    required = required_inputs(model)
    return required if len(_files(folder, "input")) <= len(required) else model.graph.inputs


def _files(folder: Path, kind: str) -> dict[int, Path]:
    try:
        matches = [(_NUMBERED.fullmatch(file.name), file) for file in folder.iterdir()]
    except OSError as error:
        raise InvalidInputError(f"{folder}: cannot be read: {error.strerror}") from error
    found = {int(match["index"]): file for match, file in matches if match is not None and match["kind"] == kind}
    return dict(sorted(found.items()))


def _read(folder: Path, kind: str, specs: Sequence[TensorSpec]) -> dict[str, Any]:
    files = _files(folder, kind)
    if len(files) > len(specs) or any(index >= len(specs) for index in files):
        raise InvalidInputError(f"{folder}: {kind}_{max(files)}.pb; the model has {len(specs)} {kind}s")
    messages = {index: _parse(file, specs[index].kind) for index, file in files.items()}
    names = _names(messages, specs)
    kinds = {spec.name: spec.kind for spec in specs}
    values: dict[str, Any] = {}
    for index, file in files.items():
        name = names[index]
        message = messages[index] if kinds[name] == specs[index].kind else _parse(file, kinds[name])
        values[name] = _decoded(message, file)
    return values


def _names(messages: Mapping[int, Any], specs: Sequence[TensorSpec]) -> dict[int, str]:
    declared = {spec.name for spec in specs}
    carried = {index: str(message.name) for index, message in messages.items()}
    if set(carried.values()) <= declared and len(set(carried.values())) == len(carried):
        return carried
    return {index: specs[index].name for index in messages}


_MESSAGES: Mapping[str, type[Message]] = {
    "sequence": SequenceProto,
    "map": onnx.MapProto,
    "optional": OptionalProto,
}


def _parse(file: Path, kind: str) -> Any:
    try:
        return _MESSAGES.get(kind, TensorProto).FromString(file.read_bytes())
    except OSError as error:
        raise InvalidInputError(f"{file}: cannot be read: {error.strerror}") from error
    except DecodeError:
        raise InvalidInputError(f"{file}: truncated, or no {kind} in protobuf") from None


def _decoded(message: Any, file: Path) -> Any:
    try:
        return _value(message, ExternalData(file.parent))
    except InvalidModelError as error:
        raise InvalidInputError(f"{file}: {error}") from error


def _value(message: Any, external: ExternalData) -> Any:
    if isinstance(message, TensorProto):
        return tensor_array(message, external)
    if isinstance(message, onnx.MapProto):
        return _map(message, external)
    if isinstance(message, onnx.SparseTensorProto):
        return dense_array(message, external, available_memory() // 2)
    kinds = type(message).DataType
    if message.elem_type == kinds.UNDEFINED:
        return [] if isinstance(message, SequenceProto) else None
    field = _FIELDS.get(message.elem_type)
    if field is None:
        raise InvalidModelError(f"elements of type {message.elem_type}; allowed are tensors, sequences and maps")
    if isinstance(message, OptionalProto):
        return _value(getattr(message, f"{field}_value"), external) if message.HasField(f"{field}_value") else None
    return [_value(item, external) for item in getattr(message, f"{field}_values")]


_FIELDS: Mapping[int, str] = {
    SequenceProto.TENSOR: "tensor",
    SequenceProto.SPARSE_TENSOR: "sparse_tensor",
    SequenceProto.SEQUENCE: "sequence",
    SequenceProto.MAP: "map",
    SequenceProto.OPTIONAL: "optional",
}
"""Field prefixes of SequenceProto and OptionalProto by element type; both number them alike."""


def _map(message: onnx.MapProto, external: ExternalData) -> dict[Any, Any]:
    keys = [key.decode("utf-8", "surrogateescape") for key in message.string_keys] or list(message.keys)
    values = _value(message.values, external)
    if len(keys) != len(values):
        raise InvalidModelError(f"a map with {len(keys)} keys and {len(values)} values")
    return dict(zip(keys, values, strict=True))


def write_test_data(
    model: Model, folder: Path, feeds: Mapping[str, Any], outputs: Mapping[str, Any] | None = None
) -> None:
    """Write one set of test data; the same values give the same bytes.

    Args:
        model: whose order of inputs and outputs numbers the files.
        folder: created if missing, e.g. …/test_data_set_0; what it holds of another set is removed.
        feeds: arrays by input name; lists for sequences, None for an absent optional.
        outputs: expected outputs by name.

    Raises:
        InvalidInputError: a name that the model does not have, or a value that ONNX cannot store.
    """
    required = required_inputs(model)
    inputs = required if set(feeds) <= {spec.name for spec in required} else model.graph.inputs
    payloads = _payloads("input", inputs, feeds)
    payloads.update(_payloads("output", model.graph.outputs, {} if outputs is None else outputs))
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (file for file in folder.iterdir() if _NUMBERED.fullmatch(file.name)):
        stale.unlink()
    for name, payload in payloads.items():
        (folder / name).write_bytes(payload)


def _payloads(kind: str, specs: Sequence[TensorSpec], values: Mapping[str, Any]) -> dict[str, bytes]:
    unknown = sorted(set(values) - {spec.name for spec in specs})
    if unknown:
        raise InvalidInputError(f"the model has no {kind} {unknown[0]!r}; it has {[spec.name for spec in specs]}")
    return {
        f"{kind}_{index}.pb": encoded(values[spec.name], spec.name, spec.kind).SerializeToString(deterministic=True)
        for index, spec in enumerate(specs)
        if spec.name in values
    }


Encoded = TensorProto | SequenceProto | OptionalProto | onnx.MapProto


def encoded(value: Any, name: str, kind: str = "tensor") -> Encoded:
    """A value as the protobuf message of its kind.

    Args:
        value: an array, a list of arrays (sequence), a dict of single elements (map), or None (absent optional).
        name: written into the message.
        kind: of the declared input or output: "optional" wraps the value.

    Raises:
        InvalidInputError: a value that ONNX cannot store.
    """
    if kind == "optional":
        return _optional(value, name)
    if isinstance(value, list):
        return _sequence(value, name)
    if isinstance(value, dict):
        return _map_proto(value, name)
    return tensor_proto(np.asarray(value), name)


def _optional(value: Any, name: str) -> OptionalProto:
    if value is None:
        return OptionalProto(name=name, elem_type=OptionalProto.UNDEFINED)
    inner = encoded(value, name)
    if isinstance(inner, TensorProto):
        return OptionalProto(name=name, elem_type=OptionalProto.TENSOR, tensor_value=inner)
    if isinstance(inner, SequenceProto):
        return OptionalProto(name=name, elem_type=OptionalProto.SEQUENCE, sequence_value=inner)
    if isinstance(inner, onnx.MapProto):
        return OptionalProto(name=name, elem_type=OptionalProto.MAP, map_value=inner)
    return OptionalProto(name=name, elem_type=OptionalProto.OPTIONAL, optional_value=inner)


def _map_proto(value: dict[Any, Any], name: str) -> onnx.MapProto:
    words = all(isinstance(key, str) for key in value)
    message = onnx.MapProto(name=name, key_type=TensorProto.STRING if words else TensorProto.INT64)
    if words:
        message.string_keys.extend(key.encode("utf-8", "surrogateescape") for key in value)
    else:
        message.keys.extend(int(key) for key in value)
    message.values.CopyFrom(_sequence([np.asarray(item) for item in value.values()], ""))
    return message


def _sequence(values: list[Any], name: str) -> SequenceProto:
    inner = [encoded(value, "") for value in values]
    tensors = [item for item in inner if isinstance(item, TensorProto)]
    sequences = [item for item in inner if isinstance(item, SequenceProto)]
    maps = [item for item in inner if isinstance(item, onnx.MapProto)]
    if len(tensors) == len(values):
        return SequenceProto(name=name, elem_type=SequenceProto.TENSOR, tensor_values=tensors)
    if len(sequences) == len(values):
        return SequenceProto(name=name, elem_type=SequenceProto.SEQUENCE, sequence_values=sequences)
    if len(maps) == len(values):
        return SequenceProto(name=name, elem_type=SequenceProto.MAP, map_values=maps)
    raise InvalidInputError(f"sequence {name!r} mixes tensors, sequences and maps; ONNX stores one kind")


def tensor_proto(array: np.ndarray, name: str) -> TensorProto:
    """An array as a TensorProto with raw data, strings as UTF-8.

    Raises:
        InvalidInputError: a dtype that ONNX does not have.
    """
    try:
        code = element_type(array.dtype)
    except (KeyError, ValueError, TypeError):
        raise InvalidInputError(f"{name!r} has dtype {array.dtype}, which ONNX does not have") from None
    if code != TensorProto.STRING:
        return numpy_helper.from_array(array, name)
    strings = [str(item).encode("utf-8", "surrogateescape") for item in array.reshape(-1)]
    return TensorProto(name=name, data_type=code, dims=array.shape, string_data=strings)
