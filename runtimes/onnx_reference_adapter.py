"""The reference evaluator of the onnx package, which computes in NumPy; see `worker.py` for the contract of an adapter.

It optimises nothing and repeats itself exactly, so every level of optimisation and determinism is honoured.
"""

from __future__ import annotations

import onnx
from onnx.reference import ReferenceEvaluator

HONOURS = ("optimization", "deterministic", "threads")
ML_DTYPES = True
EXTRA = ()


def load(model_path, options):
    """A session of `model_path`, external data included."""
    return ReferenceSession(ReferenceEvaluator(onnx.load(model_path)))


class ReferenceSession:
    """One ReferenceEvaluator."""

    def __init__(self, evaluator):
        self._evaluator = evaluator

    def info(self):
        """Versions and names."""
        return {
            "versions": {"onnx": onnx.__version__},
            "providers": ["CPUExecutionProvider"],
            "input_names": list(self._evaluator.input_names),
            "output_names": list(self._evaluator.output_names),
        }

    def run(self, feeds, outputs):
        """Outputs by name."""
        names = list(self._evaluator.output_names) if outputs is None else list(outputs)
        values = self._evaluator.run(names, feeds)
        return dict(zip(names, values))  # noqa: B905 - `strict` needs Python 3.10
