"""External data: weights in files beside the model, mapped read-only and never followed out of its folder."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
from onnx import TensorProto

from ..errors import InvalidModelError

LARGEST_INTEGER_DIGITS = 19


@dataclass(frozen=True)
class ExternalSlice:
    """Where the bytes of one tensor lie.

    Attributes:
        file: absolute path, symbolic links resolved, inside the model's folder.
        offset: first byte.
        length: bytes.
    """

    file: Path
    offset: int
    length: int


def uses_external_data(tensor: TensorProto) -> bool:
    """Whether the values of a tensor are stored outside the model file."""
    return tensor.HasField("data_location") and tensor.data_location == TensorProto.EXTERNAL


def external_slice(
    tensor: TensorProto, folder: Path, expected: int | None = None, model_file: Path | None = None
) -> ExternalSlice:
    """Resolve and check the external data of a tensor.

    Args:
        tensor: one with external data.
        folder: the model's folder.
        expected: bytes that its type and shape take; None if the tensor states its length.
        model_file: the model itself, whose own weights count as external data with its name as location.

    Raises:
        InvalidModelError: no location, one outside the folder, no regular file, or a range outside the file.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    own = model_file is not None and location == model_file.name
    file = model_file if own and model_file is not None else external_file(location, folder)
    try:
        size = file.stat().st_size
    except OSError as error:
        raise InvalidModelError(f"external data {location!r} cannot be read: {error.strerror}") from error
    offset = _integer(entries, "offset", 0)
    length = _integer(entries, "length", size - offset if expected is None else expected)
    if expected is not None and length != expected:
        what = "the file holds" if own else "its external data are"
        raise InvalidModelError(f"its shape and type take {expected} bytes, {what} {length}")
    if offset + length > size:
        raise InvalidModelError(f"external data {location!r} end at byte {offset + length}, the file has {size}")
    return ExternalSlice(file, offset, length)


def _integer(entries: dict[str, str], key: str, default: int) -> int:
    value = entries.get(key, "")
    if not value:
        return default
    if not (value.isascii() and value.isdigit()) or len(value) > LARGEST_INTEGER_DIGITS:
        raise InvalidModelError(f"external data have the {key} {value[:40]!r}; allowed is a number of bytes from 0 on")
    return int(value)


def external_file(location: str, folder: Path) -> Path:
    """The file that an external location names, checked to lie inside the model's folder after resolving links.

    Raises:
        InvalidModelError: absolute, with "..", leading out by a link, missing, or not a regular file.
    """
    shown = repr(location[:200])
    parts = (*PurePosixPath(location).parts, *PureWindowsPath(location).parts)
    if not location or "\0" in location:
        raise InvalidModelError(f"external data have the location {shown}; allowed is a file in the model's folder")
    if PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor or ".." in parts:
        raise InvalidModelError(f"external data {shown} lie outside the model's folder; allowed is a path inside it")
    return _regular_file(folder / location, folder, shown)


def _regular_file(file: Path, folder: Path, shown: str) -> Path:
    try:
        resolved = file.resolve(strict=True)
        mode = resolved.stat().st_mode
    except FileNotFoundError:
        raise InvalidModelError(f"external data {shown} are missing: no such file beside the model") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidModelError(f"external data {shown} cannot be opened: {error}") from error
    if not resolved.is_relative_to(folder.resolve()):
        raise InvalidModelError(f"external data {shown} are a link that leads outside the model's folder")
    if not stat.S_ISREG(mode):
        raise InvalidModelError(f"external data {shown} are not a regular file")
    return resolved


class ExternalData:
    """The external data of one model: every file is mapped once, read-only, and tensors are views of the map."""

    def __init__(self, folder: Path, model_file: Path | None = None) -> None:
        """Map nothing yet.

        Args:
            folder: the model's folder, below which all files must lie.
            model_file: the model itself, in which `wire.lean_model` left weights; it may be a link to elsewhere.
        """
        self._folder = folder
        self._model_file = model_file
        self._maps: dict[Path, np.ndarray] = {}

    def array(self, tensor: TensorProto, expected: int) -> np.ndarray:
        """The stored bytes of a tensor, uint8 (expected,), read-only.

        Raises:
            InvalidModelError: as `external_slice`, or the file cannot be read.
        """
        where = external_slice(tensor, self._folder, expected, self._model_file)
        if not where.length:
            return np.empty(0, np.uint8)
        return self._mapped(where.file)[where.offset : where.offset + where.length]

    def _mapped(self, file: Path) -> np.ndarray:
        if file not in self._maps:
            try:
                self._maps[file] = np.memmap(file, np.uint8, "r").view(np.ndarray)
            except (OSError, ValueError) as error:
                raise InvalidModelError(f"external data {file.name!r} cannot be read: {error}") from error
        return self._maps[file]


def tensors_of(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Every stored tensor of a graph: initializers, attribute tensors, those of subgraphs."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: onnx.AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    for sparse in (
        *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else ()),
        *attribute.sparse_tensors,
    ):
        yield from (sparse.values, sparse.indices)
    for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
        yield from tensors_of(graph)


def external_files(graph: onnx.GraphProto, model_file: Path) -> tuple[Path, ...]:
    """The external data files that a graph names, resolved, in order of their names; without the model file itself."""
    locations = {
        entry.value
        for tensor in tensors_of(graph)
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return tuple(sorted({external_file(name, model_file.parent) for name in locations - {model_file.name}}))
