"""A kernel of each family of the oracle against ONNX Runtime and `onnx.reference`, each on the same node alone."""

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

from ..operators.evaluation import prepare
from ..runtimes.session import RuntimeOptions, Session
from .engine import open_in_worker
from .machine import usable_cores
from .speed import SpeedRow, interleave

ROUNDS = 9
OPSET = 23
AT_MOST = 1.0
"""A kernel in float64 may take as long as `onnx.reference` in float32."""

Draw = Callable[[np.random.Generator], np.ndarray]


def normal(*shape: int) -> Draw:
    """Standard normal float32."""
    return lambda rng: rng.standard_normal(shape).astype(np.float32)


def constant(*values: float, dtype: type[np.generic] = np.float32) -> Draw:
    """These values, of shape (number of values,)."""
    return lambda _: np.array(values, dtype)


def grid(*shape: int) -> Draw:
    """Positions of GridSample: uniform over the picture and a little beyond."""
    return lambda rng: rng.uniform(-1.1, 1.1, shape).astype(np.float32)


def boxes(batch: int, count: int) -> Draw:
    """(batch, count, 4) float32: corners of boxes a tenth as wide and high as the unit square."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        corner = rng.uniform(0, 0.9, (batch, count, 2))
        return np.concatenate([corner, corner + rng.uniform(0.05, 0.15, corner.shape)], axis=2).astype(np.float32)

    return draw


def scores(*shape: int) -> Draw:
    """Uniform in [0, 1)."""
    return lambda rng: rng.random(shape, np.float32)


@dataclass(frozen=True)
class Subject:
    """One node: its operator, what draws its inputs (None where one is absent), attributes."""

    op_type: str
    inputs: Sequence[Draw | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def feeds(self) -> dict[str, np.ndarray]:
        """Seeded inputs by name."""
        rng = np.random.default_rng(0)
        return {f"x{index}": draw(rng) for index, draw in enumerate(self.inputs) if draw is not None}


SAME = {"pads": [1, 1, 1, 1]}
HALVED = {"kernel_shape": [2, 2], "strides": [2, 2]}
WINDOW = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}

SUBJECTS = {
    "Conv 64→64, 3×3 at 224²": Subject("Conv", (normal(1, 64, 224, 224), normal(64, 64, 3, 3)), SAME),
    "Conv 512→512, 3×3 at 14²": Subject("Conv", (normal(1, 512, 14, 14), normal(512, 512, 3, 3)), SAME),
    "ConvTranspose 128→64, 2×2 by 2 at 28²": Subject(
        "ConvTranspose", (normal(1, 128, 28, 28), normal(128, 64, 2, 2)), {"strides": [2, 2]}
    ),
    "MatMul 512×768×3072": Subject("MatMul", (normal(512, 768), normal(768, 3072))),
    "Einsum bhid,bhjd→bhij (12, 256, 64)": Subject(
        "Einsum", (normal(1, 12, 256, 64), normal(1, 12, 256, 64)), {"equation": "bhid,bhjd->bhij"}
    ),
    "MaxPool 2×2 at 112²": Subject("MaxPool", (normal(1, 64, 112, 112),), HALVED),
    "AveragePool 3×3 by 2 at 56²": Subject("AveragePool", (normal(1, 64, 56, 56),), WINDOW),
    "Resize linear, 64 at 56² to 112²": Subject(
        "Resize", (normal(1, 64, 56, 56), None, constant(1, 1, 2, 2)), {"mode": "linear"}
    ),
    "Resize cubic, 16 at 56² to 112²": Subject(
        "Resize", (normal(1, 16, 56, 56), None, constant(1, 1, 2, 2)), {"mode": "cubic"}
    ),
    "GridSample linear, 4 at 32²": Subject("GridSample", (normal(1, 4, 32, 32), grid(1, 32, 32, 2))),
    "Attention 12 heads, 256 × 64": Subject("Attention", (normal(1, 12, 256, 64),) * 3),
    "LSTM 64 steps, 8 × 128 → 256": Subject(
        "LSTM", (normal(64, 8, 128), normal(1, 1024, 128), normal(1, 1024, 256)), {"hidden_size": 256}
    ),
    "NonMaxSuppression, 4 classes of 1,000 boxes": Subject(
        "NonMaxSuppression",
        (boxes(1, 1000), scores(1, 4, 1000), constant(100, dtype=np.int64), constant(0.5), constant(0.1)),
    ),
    "Softmax (12, 512, 512)": Subject("Softmax", (normal(12, 512, 512),)),
    "LayerNormalization (512, 768)": Subject("LayerNormalization", (normal(512, 768), normal(768), normal(768))),
}


def measure() -> tuple[list[SpeedRow], str]:
    """Every node alone, in turn in the three of them."""
    rows: list[SpeedRow] = []
    with tempfile.TemporaryDirectory(prefix="onnx-arch-") as folder:
        for title, subject in SUBJECTS.items():
            rows += _rows(title, subject, Path(folder) / "node.onnx")
    return rows, f"{ROUNDS} rounds, {usable_cores()} threads; the kernels compute in float64, the others in float32."


def _rows(title: str, subject: Subject, file: Path) -> list[SpeedRow]:
    feeds = subject.feeds()
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
        SpeedRow(title, "`onnx.reference`", ours, references, at_most=AT_MOST),
    ]


def one_node(subject: Subject) -> onnx.ModelProto:
    """A model of the node alone."""
    feeds = subject.feeds()
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    names = ["" if draw is None else f"x{index}" for index, draw in enumerate(subject.inputs)]
    kind = onnx.TensorProto.INT64 if subject.op_type == "NonMaxSuppression" else onnx.TensorProto.FLOAT
    node = onnx.helper.make_node(subject.op_type, names, ["y"], **subject.attributes)
    graph = onnx.helper.make_graph([node], "node", inputs, [onnx.helper.make_tensor_value_info("y", kind, None)])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=10)


def _kernel(subject: Subject, feeds: Mapping[str, np.ndarray]) -> Callable[[], float]:
    """The oracle's kernel on its inputs, decoded to float64 unless it takes them as stored."""
    arrays = [None if draw is None else feeds[f"x{index}"] for index, draw in enumerate(subject.inputs)]
    call = prepare(subject.op_type, arrays, subject.attributes, opset=OPSET)
    return _timed(call.outputs)


def _inference(session: Session, feeds: Mapping[str, np.ndarray]) -> float:
    return session.time_runs(feeds, 1)[0]


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    return run
