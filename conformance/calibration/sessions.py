"""Runtimes as further correct variants: ONNX Runtime at every level, and PyTorch where it is installed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...errors import InvalidArgumentError, RuntimeFailure, RuntimeUnavailableError
from ...operators.storage import is_float
from ...runtimes.process import Worker
from ...runtimes.session import OPTIMIZATIONS, RuntimeOptions
from .case import Case, Compute, Outputs

TORCH = Path(__file__).resolve().parents[2] / "runtimes" / "torch_functional_adapter.py"
MOST_ELEMENTS = 1 << 22
"""Inputs above which a runtime is not asked: what goes to another process is copied several times."""


class Runner:
    """One worker process in which one-node models are run.

    Args:
        options: of the runtime.

    Raises:
        RuntimeUnavailableError: it is not installed.
    """

    def __init__(self, options: RuntimeOptions) -> None:
        self._options = options
        self._worker = Worker(options)
        self._folder = tempfile.TemporaryDirectory(prefix="calibration-")

    def run(self, case: Case, output_count: int, optimization: str) -> Outputs | None:
        """The outputs of a case, None where the runtime does not run it."""
        path = Path(self._folder.name) / "model.onnx"
        model, feeds = one_node(case, output_count)
        path.write_bytes(model.SerializeToString())
        if not self._worker.alive:
            self._worker = Worker(self._options)
        try:
            with self._worker.load(path, replace(self._options, optimization=optimization)) as session:
                values = session.run(feeds)
        except (RuntimeFailure, RuntimeUnavailableError, InvalidArgumentError):
            return None
        return tuple(values[f"y{i}"] for i in range(output_count))

    def close(self) -> None:
        """End the process."""
        self._worker.close()
        self._folder.cleanup()


def one_node(case: Case, output_count: int) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A model of one node, its weights as initializers, and what it is fed."""
    names = ["" if x is None else f"x{i}" for i, x in enumerate(case.inputs)]
    given = {i: x for i, x in enumerate(case.inputs) if x is not None}
    outputs = [f"y{i}" for i in range(output_count)]
    names = names[: max(given) + 1]  # absent inputs at the end are not named
    feeds = {f"x{i}": x for i, x in given.items() if i not in case.weights}
    graph = helper.make_graph(
        [helper.make_node(case.op_type, names, outputs, **case.attributes)],
        "one",
        [helper.make_tensor_value_info(name, _code(x), x.shape) for name, x in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(given[i], f"x{i}") for i in case.weights if i in given],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=10), feeds


def _code(x: np.ndarray[Any, Any]) -> int:
    return helper.np_dtype_to_tensor_dtype(x.dtype)


@dataclass(frozen=True)
class Wrong:
    """Where a runtime is not a correct variant.

    Attributes:
        runtime: its name.
        op_type: the operator.
        applies: to these cases.
        reason: why it is wrong and not the verdict.
    """

    runtime: str
    op_type: str
    applies: Callable[[Case], bool]
    reason: str


def _narrow(case: Case) -> bool:
    return any(x is not None and is_float(x.dtype) and x.dtype.itemsize < 4 for x in case.inputs)


def _poisoned(case: Case) -> bool:
    return any(x is not None and is_float(x.dtype) and np.isnan(x).any() for x in case.inputs)


WRONG = (
    Wrong(
        "ONNX Runtime",
        "LRN",
        lambda _case: True,
        "The sum over the window slides along the channels: what was added of a large channel is subtracted again, and "
        "what is left of the small ones is lost. One channel of 1e6 and seven of 1 give infinities and NaN; behind a "
        "ReLU it is still off by five times what three additions can do.",
    ),
    Wrong(
        "ONNX Runtime",
        "MeanVarianceNormalization",
        lambda case: bool((np.ptp(np.asarray(case.inputs[0]), axis=(0, 2, 3)) == 0).any()),
        "E[x²] − E[x]² of a channel of equal values rounds below zero, and its root is NaN; so it is in the function "
        "body of the specification, if that is evaluated in float32.",
    ),
    Wrong(
        "ONNX Runtime",
        "GroupNormalization",
        lambda case: case.kind == "equal",
        "As MeanVarianceNormalization: equal values in a group, and a variance that rounds below −epsilon: NaN.",
    ),
    Wrong(
        "ONNX Runtime",
        "ReduceSum",
        lambda case: np.asarray(case.inputs[0]).dtype == np.int64,
        "int64 is added in float64: a sum beyond 2^53 is off by one.",
    ),
    Wrong("ONNX Runtime", "ReduceMax", _poisoned, "NaN is dropped."),
    Wrong("ONNX Runtime", "ReduceMin", _poisoned, "NaN is dropped."),
    Wrong(
        "PyTorch",
        "Erf",
        _narrow,
        "In float16 and bfloat16 it is a polynomial, right to 1e-7 absolutely: 7 % off where the result is 4e-6.",
    ),
)
"""Runtimes whose deviation is a finding: a fault of the library and not a false alarm."""


def _is_wrong(runtime: str, case: Case) -> bool:
    return any(w.runtime == runtime and w.op_type == case.op_type and w.applies(case) for w in WRONG)


def _way(name: str, runner: Runner, counts: dict[str, int], optimization: str) -> Compute:
    def compute(case: Case) -> Outputs | None:
        if sum(x.size for x in case.inputs if x is not None) > MOST_ELEMENTS or _is_wrong(name, case):
            return None
        return runner.run(case, counts.get(case.op_type, 1), optimization)

    return compute


OUTPUTS = {"TopK": 2, "DynamicQuantizeLinear": 3, "RNN": 2, "GRU": 2, "LSTM": 3}
"""How many outputs the plain implementations of these operators give; all others one."""


@cache
def runtimes(levels: tuple[str, ...] = OPTIMIZATIONS) -> dict[str, Compute]:
    """Correct variants by name, one per level of ONNX Runtime and one for PyTorch; their processes live as long as this
    one."""
    found: dict[str, Compute] = {}
    for name, options in (
        ("ONNX Runtime", RuntimeOptions("onnxruntime", threads=1)),
        ("PyTorch", RuntimeOptions(str(TORCH), threads=1)),
    ):
        try:
            runner = Runner(options)
        except RuntimeUnavailableError:
            continue
        if name == "PyTorch":
            found[name] = _way(name, runner, {}, "all")
        else:
            found.update({f"{name}, {level}": _way(name, runner, OUTPUTS, level) for level in levels})
    return found
