"""The `mined` suite: what the models of a folder really ask of an operator, each kind of call once.

Every model is run in float64, on its own test data where they lie beside it and on seeded random inputs otherwise. Two
nodes are of one kind if operator, opset, attributes, and of every input the type, the shape, the range of values and
whether it is a weight are the same; the first of a kind becomes a case, the others are its weight.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ...errors import InvalidArgumentError, InvalidInputError, InvalidModelError, OnnxArchError
from ...graphs.control_flow import Run
from ...graphs.evaluation import captured_names, run_graph, start_values
from ...graphs.feeds import random_feeds, required_inputs
from ...graphs.loading import load_model
from ...graphs.memory import ensure_fits
from ...graphs.model import Model, Node, TensorSpec
from ...graphs.segments import segment_model
from ...graphs.test_data import find_test_data, read_test_data, write_test_data
from ...graphs.values import Value
from ...operators.storage import encode, is_float
from .case import Case, Subject

EXACT_INTEGERS = 16
"""An integer input of up to so many elements (a shape, axes, pads) counts by its values, a larger one by its range."""

EXPONENT_STEP = 4
"""Ranges of floating-point values are told apart by the binary exponent of the largest, in steps of 4."""


class _Kept:
    """A folder for as long as anyone holds on to it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="onnx-arch-mined-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


@dataclass
class _Kind:
    """Calls that are alike: the first of them, and how many there are."""

    key: str
    node: Node
    origin: str
    file: Path
    occurrences: int = 1


@dataclass
class _Mine:
    """What has been found so far."""

    folder: Path
    seed: int
    dims: Mapping[str, int]
    kinds: dict[str, _Kind] = field(default_factory=dict)
    skipped: list[Case] = field(default_factory=list)


def mined_cases(
    folder: Path,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _text: None,
) -> tuple[Case, ...]:
    """The kinds of calls in the models of a folder, most frequent first; models that cannot be run are skipped cases.

    Args:
        folder: is searched for .onnx files, subfolders too.
        dims: sizes of symbolic dims; 1 where none is given.
        seed: of random inputs.
        progress: told the model that is read.

    Raises:
        InvalidArgumentError: no folder, or none with an .onnx file in it.
    """
    files = model_files(folder)
    kept = _Kept()
    mine = _Mine(kept.folder, seed, dims or {})
    for file in files:
        name = os.fspath(file.relative_to(folder))
        progress(name)
        _mine_model(mine, file, name)
    kinds = sorted(mine.kinds.values(), key=lambda kind: (-kind.occurrences, kind.key))
    return (*(_case(kind, kept) for kind in kinds), *mine.skipped)


def model_files(folder: Path) -> Sequence[Path]:
    """The .onnx files below a folder, in order of their names.

    Raises:
        InvalidArgumentError: it is no folder, or has none.
    """
    if not folder.is_dir():
        raise InvalidArgumentError(f"mined:{folder}: {'no folder' if folder.exists() else 'no such folder'}")
    files = sorted(file for file in folder.rglob("*.onnx") if file.is_file())
    if not files:
        raise InvalidArgumentError(f"mined:{folder}: no .onnx file in it")
    return files


def _case(kind: _Kind, kept: _Kept) -> Case:
    node = kind.node
    name = f"{node.op_type}-{node.opset}-{kind.key[:10]}"
    subject = partial(_subject, kind.file, kept)
    return Case(name, node.op_type, node.domain, node.opset, subject, kind.occurrences, origin=kind.origin)


def _subject(file: Path, _kept: _Kept) -> Subject:
    """Read a case; holding on to the folder keeps it from being removed."""
    feeds, _ = read_test_data(load_model(file), file.parent / "test_data_set_0")
    return Subject(file, (feeds,))


def _mine_model(mine: _Mine, file: Path, name: str) -> None:
    """Count the nodes of a model; what cannot be run is a skipped case with the reason."""
    try:
        model = load_model(file)
        feeds = _feeds(mine, model)
        ensure_fits(model, feeds)
        values = start_values(model.graph, feeds)
        run_graph(model.graph, values, Run(clean=True), lambda node, _outputs: _count(mine, model, node, values, name))
    except OnnxArchError as error:
        reason = " ".join(str(error).split()).removeprefix(f"{file}: ")
        hint = "; --dim NAME=N sizes symbolic dims" if isinstance(error, InvalidInputError) and not mine.dims else ""
        mine.skipped.append(Case(name, "", "", 0, _nothing, skip=f"not mined to its end: {reason}{hint}"))


def _nothing() -> Subject:
    raise InvalidModelError("a model that was not mined is no case")


def _feeds(mine: _Mine, model: Model) -> dict[str, Any]:
    beside = model.path.parent / "test_data_set_0"
    if beside.is_dir():
        try:
            return read_test_data(model, find_test_data(beside)[0])[0]
        except InvalidInputError:  # of another model in the same folder
            pass
    return random_feeds(model, dims=_sizes(model, mine.dims), seed=mine.seed)


def _sizes(model: Model, dims: Mapping[str, int]) -> dict[str, int]:
    """Sizes of the model's symbolic dims: those given, 1 for the others."""
    found: dict[str, int] = {}
    for spec in required_inputs(model):
        for axis, dim in enumerate(spec.shape or ()):
            name = f"{spec.name}:{axis}" if dim is None else dim
            if isinstance(name, str) and (name.isidentifier() or dim is None):
                found[name] = dims.get(name, 1)
    return found


def _count(mine: _Mine, model: Model, node: Node, values: Mapping[str, Value], name: str) -> None:
    stored = {key: _stored(values[key]) for key in sorted(captured_names(node))}
    key = _key(model, node, stored)
    if key in mine.kinds:
        mine.kinds[key].occurrences += 1
        return
    feeds = {key: value for key, value in stored.items() if key not in model.graph.initializers}
    folder = mine.folder / str(len(mine.kinds))
    file = segment_model(model, [node], feeds, folder / "case.onnx", standalone=True)
    write_test_data(load_model(file), folder / "test_data_set_0", feeds)
    mine.kinds[key] = _Kind(key, node, f"{name}: {node.name}", file)


def cut_nodes(model: Model, feeds: Mapping[str, Any], folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every node of a model as a model of its own, with its inputs from a float64 run; ends where that cannot go on.

    Args:
        model: a loaded model.
        feeds: its inputs.
        folder: where the models are written.
    """
    values = start_values(model.graph, feeds)
    run = Run(clean=True)
    for node in model.graph.nodes:
        stored = {name: _stored(values[name]) for name in sorted(captured_names(node))}
        given = {name: value for name, value in stored.items() if name not in model.graph.initializers}
        yield segment_model(model, [node], given, folder / "node.onnx", standalone=True), given
        part = dataclasses.replace(model.graph, nodes=(dataclasses.replace(node, index=0),), outputs=_specs(node))
        try:
            outputs = run_graph(part, {name: values[name] for name in captured_names(node)}, run)
        except OnnxArchError:
            return
        values.update(zip((name for name in node.outputs if name), outputs, strict=True))


def _specs(node: Node) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, None, None) for name in node.outputs if name)


def _stored(value: Value) -> Any:
    """A tensor of the float64 run as a runtime would store it."""
    data = value.data
    if isinstance(data, list):
        return [_stored(Value(item, value.dtype)) for item in data]
    if isinstance(data, np.ndarray) and value.dtype is not None and data.dtype.kind in "fc":
        return encode(data, value.dtype)
    return data


def _key(model: Model, node: Node, stored: Mapping[str, Any]) -> str:
    """A digest that two nodes share if they are of one kind."""
    parts = [node.op_type, node.domain, str(node.opset), _attributes(model, node)]
    reads = [*node.inputs, *sorted(captured_names(node) - set(node.inputs))]
    parts += [f"{_signature(stored[name])} {name in model.graph.initializers}" if name else "absent" for name in reads]
    parts += ["output" if name else "no output" for name in node.outputs]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _attributes(model: Model, node: Node) -> str:
    protos = {proto.name: proto for proto in model.proto.graph.node}
    listed = sorted(protos[node.name].attribute, key=lambda attribute: attribute.name)
    bare = onnx.NodeProto(op_type=node.op_type, attribute=listed)
    for attribute in bare.attribute:
        attribute.doc_string = ""
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def _signature(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return f"[{', '.join(map(_signature, value))}]"
    if not isinstance(value, np.ndarray):
        return type(value).__name__
    name = "string" if value.dtype.kind in "OUS" else value.dtype.name
    return f"{name}{list(value.shape)} {' '.join(map(str, _range(value)))}"


def _range(value: np.ndarray[Any, Any]) -> Iterator[object]:
    """What is told apart of the values."""
    if value.size == 0 or value.dtype.kind in "OUS":
        return
    if not is_float(value.dtype):
        yield value.tolist() if value.size <= EXACT_INTEGERS else _ends(value)
        return
    wide = value.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    largest = float(np.abs(finite).max(initial=0.0))
    yield "negative" if (finite < 0).any() else ""
    yield "positive" if (finite > 0).any() else ""
    yield int(np.floor(np.log2(largest) / EXPONENT_STEP)) if largest else "zero"
    yield "NaN" if np.isnan(wide).any() else ""
    yield "infinite" if np.isinf(wide).any() else ""


def _ends(value: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    if value.dtype.kind == "c":
        return (0, 0)
    plain = value.astype(np.int64) if value.dtype.kind == "V" else value
    return plain.min().item(), plain.max().item()
