"""What a finding is: a call that the spec's text allows, what it asks for, and what a released runtime does instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

ORT, REFERENCE, OPENVINO = "onnxruntime", "onnx.reference", "openvino"


class Step(NamedTuple):
    """One of several nodes: its operator, the names of its inputs and outputs in one line each, its attributes.

    x0, x1, … are the finding's inputs, y0, y1, … what is expected; other names are between them.
    """

    op_type: str
    inputs: str
    outputs: str
    attributes: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        slug: name of its folder, behind the number.
        title: one line.
        runtime: ORT, REFERENCE or OPENVINO.
        op_type: the operator.
        opset: version of the model.
        inputs: stored arrays, None where absent.
        expected: by the text, in the right dtypes.
        text: what the spec says, quoted from the operator's schema.
        why: how `expected` follows, and what goes wrong.
        attributes: of the node.
        constants: positions of inputs that are initializers.
        unsized: positions of inputs whose sizes the model leaves open.
        before: feeds of a run that comes first, for what depends on an earlier one.
        precise: relative tolerance; 0 compares exactly.
        absolute: absolute tolerance, `precise` by default.
        also: where else the same was seen.
        steps: of a graph of several nodes, which the runtime computes wrongly as a whole; `op_type` then names what the
            finding is about.
        domain: of the operator.
        without_vnni: shows itself on x86 processors that lack the VNNI instructions, and only there.
    """

    slug: str
    title: str
    runtime: str
    op_type: str
    opset: int
    inputs: Sequence[Any]
    expected: Sequence[Any]
    text: str
    why: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Sequence[int] = ()
    unsized: Sequence[int] = ()
    before: Sequence[Any] | None = None
    precise: float = 1e-5
    absolute: float | None = None
    also: str = ""
    steps: Sequence[Step] = ()
    domain: str = ""
    without_vnni: bool = False

    @property
    def operator(self) -> str:
        """With its domain, where that is not ONNX's."""
        return f"{self.domain}.{self.op_type}" if self.domain else self.op_type


def f32(values: Any) -> Any:
    return np.asarray(values, np.float32)


def f64(values: Any) -> Any:
    return np.asarray(values, np.float64)


def i64(values: Any) -> Any:
    return np.asarray(values, np.int64)


def i8(values: Any) -> Any:
    return np.asarray(values, np.int8)


def i32(values: Any) -> Any:
    return np.asarray(values, np.int32)


def u8(values: Any) -> Any:
    return np.asarray(values, np.uint8)


def text(values: Any) -> Any:
    return np.asarray(values, object)
