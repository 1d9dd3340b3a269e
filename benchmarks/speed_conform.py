"""All official node tests judged in ONNX Runtime, against a plain loop that only runs them."""

from __future__ import annotations

import time
from collections.abc import Callable

from .machine import usable_cores
from .speed import SpeedRow, interleave, run_python

ROUNDS = 3
AT_MOST_S = 20.0

JUDGED = """
from onnx_arch.cli.main import run
import sys
status = run(["conform", "--suite", "onnx:node", "--quiet"])
sys.exit(0 if status in (0, 1) else f"conform ended with status {status}")
"""

PLAIN = """
import warnings
warnings.simplefilter("ignore")
import numpy as np, onnx, onnxruntime
from onnx.backend.test.loader import load_model_tests

onnxruntime.set_default_logger_severity(4)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
ran = 0
for test in load_model_tests(kind="node"):
    names = [value.name for value in test.model.graph.input]
    (inputs, _), *_ = test.data_sets
    values = [onnx.numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x for x in inputs]
    try:
        content = test.model.SerializeToString()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        session.run(None, dict(zip(names, values)))
        ran += 1
    except Exception:
        continue
print(ran)
"""


def measure() -> tuple[list[SpeedRow], str]:
    """Rounds of the whole command and of the plain loop, each a process of its own."""
    judged, plain = interleave([_timed(JUDGED), _timed(PLAIN)], ROUNDS)
    rows = [
        SpeedRow("every node test judged", "a plain loop of ONNX Runtime over them", judged, plain),
        SpeedRow("every node test judged", "the time that it may take", judged, [[AT_MOST_S]] * ROUNDS, at_most=1.0),
    ]
    return rows, (
        f"{ROUNDS} rounds; whole processes, from start to exit, in which ONNX collects its tests (in both alike). "
        f"Judging uses {usable_cores()} workers of one thread, the plain loop one process of one thread that compares "
        "nothing and leaves out what raises or cannot be fed from NumPy."
    )


def _timed(script: str) -> Callable[[], float]:
    def run() -> float:
        begin = time.perf_counter()
        run_python(script)
        return time.perf_counter() - begin

    return run
