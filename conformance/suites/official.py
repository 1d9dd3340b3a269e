"""The `onnx` suite: every test case that the installed `onnx` package brings, with its inputs.

The expected outputs that come with them are left aside: they are float32 NumPy, and sometimes wrong. What is right is
said by the float64 kernels, on the case's own inputs.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ...errors import UnknownEntryError
from ...graphs.conversion import plain_domain
from ...graphs.feeds import required_inputs
from ...graphs.loading import load_model
from ...graphs.model import TensorSpec
from ...graphs.test_data import find_test_data, read_test_data
from .case import Case, Subject

PARTS = ("node", "simple", "pytorch-operator", "pytorch-converted", "light")
"""The folders of ONNX's backend tests: single operators and their function bodies, small graphs, what PyTorch once
exported, and known architectures with small made-up weights."""

USUAL_PARTS = PARTS[:-1]
"""What "onnx" stands for; "onnx:light" names one part."""

_EXPANDED = re.compile(r"_expanded(_ver\d+)?$")


def official_cases(parts: Sequence[str] = USUAL_PARTS) -> Iterator[Case]:
    """The official cases of these parts, in ONNX's order.

    Raises:
        UnknownEntryError: no such part.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise UnknownEntryError(f"suite onnx:{unknown[0]}: there is only onnx:{', onnx:'.join(PARTS)}")
    for part in parts:
        yield from _node_cases() if part == "node" else _light_cases() if part == "light" else _stored_cases(part)


@cache
def _node_tests() -> tuple[Any, ...]:
    with warnings.catch_warnings():
        # ONNX computes its expected values of log(0), 1/0 and the like while collecting, and NumPy warns of them.
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests  # noqa: PLC0415 - takes seconds: only when asked for

        return tuple(load_model_tests(kind="node"))


def _node_cases() -> Iterator[Case]:
    """Tests of single operators; a test named "…_expanded" runs the function body of the operator it is named after."""
    tests = _node_tests()
    about = {test.name: test.model.graph.node[0] for test in tests if len(test.model.graph.node) == 1}
    for test in tests:
        named = about.get(_EXPANDED.sub("", test.name), test.model.graph.node[0])
        yield _case(test.name, test.model, named.op_type, named.domain, partial(_node_subject, test))


def _case(name: str, model: onnx.ModelProto, op_type: str, domain: str, subject: Callable[[], Subject]) -> Case:
    versions = {plain_domain(entry.domain): entry.version for entry in model.opset_import}
    domain = plain_domain(domain)
    return Case(name, op_type, domain, versions.get(domain, versions.get("", 0)), subject)


def _node_subject(test: Any) -> Subject:
    names = [value.name for value in test.model.graph.input]
    sets = [dict(zip(names, map(_stored, inputs), strict=True)) for inputs, _ in test.data_sets]
    return Subject(test.model, tuple(sets))


def _stored(value: Any) -> Any:
    """A value of ONNX's test data as arrays of the stored type; strings are objects."""
    match value:
        case None:
            return None
        case list() | tuple():
            return [_stored(item) for item in value]
        case dict():
            return {key: _stored(item) for key, item in value.items()}
        case onnx.TensorProto():
            return _stored(numpy_helper.to_array(value))
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind in "US" else array


def _stored_cases(part: str) -> Iterator[Case]:
    """Tests that lie in folders: model.onnx, test_data_set_0, …"""
    for file in sorted((_data_folder() / part).glob("*/model.onnx")):
        model = onnx.load(file, load_external_data=False)
        node = _principal(model)
        yield _case(file.parent.name, model, node.op_type, node.domain, partial(_stored_subject, file))


def _data_folder() -> Path:
    return Path(onnx.__file__).parent / "backend" / "test" / "data"


_AUXILIARY = frozenset({"Constant", "Identity"})


def _principal(model: onnx.ModelProto) -> onnx.NodeProto:
    """The one operator of a graph beside constants; a node without operator where there are several."""
    kinds = {(node.op_type, node.domain): node for node in model.graph.node if node.op_type not in _AUXILIARY}
    return next(iter(kinds.values())) if len(kinds) == 1 else onnx.NodeProto()


def _stored_subject(file: Path) -> Subject:
    model = load_model(file)
    return Subject(file, tuple(read_test_data(model, data)[0] for data in find_test_data(file.parent)))


def _light_cases() -> Iterator[Case]:
    """Known architectures; the same picture for each, as their weights are made up."""
    for file in sorted((_data_folder() / "light").glob("*.onnx")):
        model = onnx.load(file, load_external_data=False)
        yield _case(file.stem, model, "", "", partial(_light_subject, file))


def _light_subject(file: Path) -> Subject:
    model = load_model(file)
    return Subject(file, ({spec.name: _picture(spec) for spec in required_inputs(model)},))


def _picture(spec: TensorSpec) -> Any:
    """Values that rise evenly from 0 to 1: every element is another."""
    shape = [size if isinstance(size, int) else 1 for size in spec.shape or ()]
    size = int(np.prod(shape))
    return (np.arange(size) / max(size, 1)).reshape(shape).astype(spec.dtype)
