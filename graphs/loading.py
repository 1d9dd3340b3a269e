"""Load any .onnx file, or a bundle folder, as a validated `Model`."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from ..errors import InvalidModelError
from .conversion import convert_graph
from .external import ExternalData, external_files
from .inlining import inline_functions
from .model import Model
from .naming import name_nodes
from .ordering import sort_graph
from .validation import check_graph, check_header, opset_versions
from .wire import lean_model

BUNDLE_MODEL = "model.onnx"
MANIFEST = "manifest.json"
LARGEST_PROTOBUF = 2**31 - 1
"""Bytes of one protobuf message; larger models keep their weights as external data."""


def load_model(path: Path) -> Model:
    """Load and validate a model.

    Args:
        path: an .onnx file, or a folder that holds model.onnx.

    Returns:
        The model with local functions inlined, nodes named and sorted, external data mapped read-only.

    Raises:
        InvalidModelError: one line: the file, what is wrong with it, what is allowed.
    """
    file = model_file(Path(path))
    try:
        return _load(file)
    except InvalidModelError as error:
        raise InvalidModelError(one_line(f"{file}: {error}")) from error


def one_line(message: str) -> str:
    """A message without line breaks and control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(message.split()))


def models_in(path: Path) -> list[Path]:
    """The model that a path names, or those of a bundle with several graphs (a folder each), by name."""
    several = sorted(path.glob(f"*/{BUNDLE_MODEL}")) if path.is_dir() and not (path / BUNDLE_MODEL).exists() else []
    return several or [path]


def model_name(file: Path) -> str:
    """Name for the reader: of a bundle its folder ("resnet18", "t5/encoder"), else the file without its suffix."""
    if file.name != BUNDLE_MODEL:
        return file.stem
    folder = file.resolve().parent
    several = not (folder / MANIFEST).exists() and (folder.parent / MANIFEST).exists()
    return f"{folder.parent.name}/{folder.name}" if several else folder.name


def model_file(path: Path) -> Path:
    """The .onnx file that a path names: itself, or model.onnx of a bundle folder.

    Raises:
        InvalidModelError: it is missing or not a regular file.
    """
    shown = one_line(str(path))
    try:
        file = path / BUNDLE_MODEL if path.is_dir() else path
        if file.is_file():
            return file
        exists = file.exists()
    except (OSError, ValueError) as error:
        raise InvalidModelError(f"{shown}: cannot be opened: {error}") from error
    if file is not path:
        raise InvalidModelError(f"{shown}: a folder without {BUNDLE_MODEL}; allowed are an .onnx file and a bundle")
    raise InvalidModelError(f"{shown}: not a regular file" if exists else f"{shown}: no such file")


def read_proto(file: Path) -> onnx.ModelProto:
    """Parse an .onnx file, its large weights left in it as external data; nothing in it is checked yet.

    Raises:
        InvalidModelError: unreadable, empty, too large, or no protobuf message.
    """
    try:
        size = file.stat().st_size
        if size > LARGEST_PROTOBUF:
            raise InvalidModelError(f"{size} bytes; an .onnx file has at most {LARGEST_PROTOBUF}, weights beside it")
        if not size:
            raise InvalidModelError("the file is empty")
        data = _lean_content(file)
    except OSError as error:
        raise InvalidModelError(f"cannot be read: {error.strerror}") from error
    try:
        return onnx.ModelProto.FromString(data)
    except DecodeError:
        raise InvalidModelError(f"no ONNX model: its {size} bytes are truncated or not protobuf") from None


def _lean_content(file: Path) -> bytes:
    with (
        file.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as content,
    ):
        return lean_model(content, file.name)


def _load(file: Path) -> Model:
    proto = read_proto(file)
    check_header(proto)
    proto = inline_functions(proto)
    name_nodes(proto.graph)
    opsets = opset_versions(proto)
    check_graph(proto.graph, opsets)
    sort_graph(proto.graph)
    graph = convert_graph(proto.graph, opsets, ExternalData(file.parent, file))
    files = external_files(proto.graph, file)
    try:
        sha256, size = _digest([file, *files])
    except OSError as error:
        raise InvalidModelError(f"cannot be read: {error}") from error
    return Model(file, proto, graph, opsets, sha256, size, files)


def _digest(files: Sequence[Path]) -> tuple[str, int]:
    """SHA-256 over the contents of the files and the sum of their sizes in bytes."""
    digest, size = hashlib.sha256(), 0
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                size += len(block)
    return digest.hexdigest(), size
