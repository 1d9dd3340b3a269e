"""ONNX Runtime sessions in this process whose outputs stay where they were made, to be the next step's inputs.

A session of `runtimes` runs in a process of its own, and every tensor crosses a pipe: right for judging a runtime, too
slow for a loop that hands gigabytes of cache from step to step. Here outputs are bound to the provider's memory and
come back as `OrtValue`s, which are bound as inputs again without a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidModelError, RaisedByRuntimeError, RuntimeUnavailableError

if TYPE_CHECKING:
    from onnxruntime import OrtValue

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class BoundSession:
    """A loaded graph.

    Args:
        model: an .onnx file, or the bytes of one without external data.
        provider: "cpu" or "cuda".
        threads: intra-op threads; None is ONNX Runtime's own choice.

    Raises:
        RuntimeUnavailableError: the provider is not installed.
        InvalidModelError: ONNX Runtime does not load the graph.
    """

    def __init__(self, model: Path | bytes, provider: str = "cpu", threads: int | None = None) -> None:
        import onnxruntime  # noqa: PLC0415 - heavy

        wanted = PROVIDERS[provider]
        if wanted not in onnxruntime.get_available_providers():
            there = ", ".join(onnxruntime.get_available_providers())
            raise RuntimeUnavailableError(f"onnxruntime has no {wanted} here; it has {there}")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        if threads is not None:
            options.intra_op_num_threads = threads
        source = model if isinstance(model, bytes) else str(model)
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=[wanted])
        except Exception as error:
            name = "a graph" if isinstance(model, bytes) else str(model)
            raise InvalidModelError(f"{name}: ONNX Runtime does not load it: {first_line(error)}") from error
        self.device = provider
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]
        self.shapes = {value.name: tuple(value.shape) for value in self._session.get_inputs()}
        self.dtypes = {value.name: numpy_dtype(value.type) for value in self._session.get_inputs()}

    def run(self, feeds: Mapping[str, Any], outputs: Iterable[str] | None = None) -> dict[str, OrtValue]:
        """Run once.

        Args:
            feeds: an `OrtValue` of an earlier run, or an array, for every input.
            outputs: those wanted; None is all.

        Returns:
            By name, in the provider's memory; `.numpy()` copies one out.

        Raises:
            RaisedByRuntimeError: ONNX Runtime refused the inputs or failed.
        """
        binding = self._session.io_binding()
        wanted = self.outputs if outputs is None else list(outputs)
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, self.value(value))
        for name in wanted:
            binding.bind_output(name, self.device)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise RaisedByRuntimeError(f"ONNX Runtime: {first_line(error)}") from error
        return dict(zip(wanted, binding.get_outputs(), strict=True))

    def value(self, array: Any) -> OrtValue:
        """An array in the provider's memory; what is there already as it is."""
        from onnxruntime import OrtValue  # noqa: PLC0415 - heavy

        if isinstance(array, OrtValue):
            return array
        return OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"), self.device, 0)


def numpy_dtype(text: str) -> np.dtype[Any]:
    """The NumPy dtype of `tensor(float16)` and the like; float32 for those that NumPy has not."""
    names = {"float": "float32", "double": "float64"}
    inner = text.removeprefix("tensor(").removesuffix(")")
    try:
        return np.dtype(names.get(inner, inner))
    except TypeError:
        return np.dtype(np.float32)


def first_line(error: Exception) -> str:
    """What an exception says, on one line."""
    return str(error).strip().partition("\n")[0]
