"""The heaviest kernels of the oracle against ONNX Runtime and `onnx.reference`, each on the same node alone."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from ..operators.registry import find_kernel
from ..runtimes.session import RuntimeOptions, Session
from .engine import open_in_worker
from .machine import usable_cores
from .speed import SpeedRow, interleave

ROUNDS = 9
OPSET = 18


@dataclass(frozen=True)
class Subject:
    """One node: its operator, shapes of its inputs, attributes."""

    op_type: str
    shapes: Sequence[tuple[int, ...]]
    attributes: Mapping[str, Any] = field(default_factory=dict)


SUBJECTS = {
    "Conv 64→64, 3×3 at 224²": Subject("Conv", ((1, 64, 224, 224), (64, 64, 3, 3)), {"pads": [1, 1, 1, 1]}),
    "Conv 512→512, 3×3 at 14²": Subject("Conv", ((1, 512, 14, 14), (512, 512, 3, 3)), {"pads": [1, 1, 1, 1]}),
    "MatMul 512×768×3072": Subject("MatMul", ((512, 768), (768, 3072))),
    "MaxPool 2×2 at 224²": Subject("MaxPool", ((1, 64, 224, 224),), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "Softmax (12, 512, 512)": Subject("Softmax", ((12, 512, 512),)),
    "LayerNormalization (512, 768)": Subject("LayerNormalization", ((512, 768), (768,), (768,))),
}


def measure() -> tuple[list[SpeedRow], str]:
    """Every node alone, in turn in the three of them."""
    rows: list[SpeedRow] = []
    with tempfile.TemporaryDirectory(prefix="onnx-arch-") as folder:
        for title, subject in SUBJECTS.items():
            rows += _rows(title, subject, Path(folder) / "node.onnx")
    return rows, f"{ROUNDS} rounds, {usable_cores()} threads; the kernels compute in float64, the others in float32."


def _rows(title: str, subject: Subject, file: Path) -> list[SpeedRow]:
    rng = np.random.default_rng(0)
    feeds = {f"x{index}": rng.standard_normal(shape).astype(np.float32) for index, shape in enumerate(subject.shapes)}
    onnx.save(one_node(subject), file)
    reference = ReferenceEvaluator(str(file))
    with open_in_worker(file, RuntimeOptions(threads=usable_cores())) as session:
        calls = [
            _kernel(subject, feeds),
            partial(_inference, session, feeds),
            _timed(lambda: reference.run(None, feeds)),
        ]
        interleave(calls, 1)
        ours, runtimes, references = interleave(calls, ROUNDS)
    return [
        SpeedRow(title, "ONNX Runtime", ours, runtimes),
        SpeedRow(title, "`onnx.reference`", ours, references),
    ]


def one_node(subject: Subject) -> onnx.ModelProto:
    """A float32 model of the node alone."""
    value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    inputs = [value(f"x{index}", kind, shape) for index, shape in enumerate(subject.shapes)]
    node = onnx.helper.make_node(subject.op_type, [entry.name for entry in inputs], ["y"], **subject.attributes)
    graph = onnx.helper.make_graph([node], "node", inputs, [value("y", kind, None)])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=8)


def _kernel(subject: Subject, feeds: Mapping[str, np.ndarray]) -> Callable[[], float]:
    """The oracle's kernel on its inputs, decoded to float64 unless it takes them as stored."""
    entry = find_kernel(subject.op_type, opset=OPSET)
    arrays = [array if entry.streams else array.astype(np.float64) for array in feeds.values()]
    return _timed(lambda: entry.function(*arrays, **subject.attributes))


def _inference(session: Session, feeds: Mapping[str, np.ndarray]) -> float:
    return session.time_runs(feeds, 1)[0]


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    return run
