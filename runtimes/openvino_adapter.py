"""OpenVINO on the CPU, from 2024.0 on; see `worker.py` for the contract of an adapter.

`options["extra"]["config"]` goes to `Core.compile_model` as it is. OpenVINO computes float32 models in bfloat16 by
itself where the processor has bfloat16 instructions: {"INFERENCE_PRECISION_HINT": "f32"} or
{"EXECUTION_MODE_HINT": "ACCURACY"} keeps float32. Its graph optimisation has no levels: only "all" is honoured.
"""

from __future__ import annotations

import numpy as np
import openvino  # pyright: ignore[reportMissingImports] - an optional extra

HONOURS = ("threads", "extra")
EXTRA = ("config",)

DEVICE = "CPU"
RAW_TYPES = {"bf16": ("bfloat16", 16), "f8e4m3": ("float8_e4m3fn", 8), "f8e5m2": ("float8_e5m2", 8)}
"""Element types that NumPy lacks: the name on the wire and the bits of one element."""

UNSUPPORTED = (
    "does not support the following ONNX operations",
    "No conversion rule found for operations",
    "NOT IMPLEMENTED",
    "not implemented",
    "not supported",
    "doesn't support",
    "Unsupported",
    "unsupported",
)
"""What OpenVINO says when it does not implement an operator, an attribute or a type."""


def load(model_path, options):
    """A compiled model."""
    core = openvino.Core()
    config = dict(options["extra"].get("config", {}))
    if options["threads"] is not None:
        config.setdefault("INFERENCE_NUM_THREADS", int(options["threads"]))
    return OpenVinoSession(guarded(lambda: core.compile_model(core.read_model(model_path), DEVICE, config)))


def guarded(function):
    """Call OpenVINO; what it says of a lack of support becomes a NotImplementedError."""
    try:
        return function()
    except (RuntimeError, TypeError, ValueError) as error:
        unsupported = any(words in str(error) for words in UNSUPPORTED)
        raise (NotImplementedError if unsupported else type(error))(said(error)) from error


def said(error):
    """What OpenVINO says on one line, without the places in its source that come first."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("Exception from "))


class OpenVinoSession:
    """One compiled model and its only infer request."""

    def __init__(self, compiled):
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._inputs = {port.get_node().get_friendly_name(): port for port in compiled.inputs}
        self._outputs = by_name(compiled.outputs)

    def info(self):
        """Versions, names, and the precision that float32 is computed in."""
        return {
            "versions": {"openvino": openvino.__version__.partition("-")[0]},
            "providers": ["CPUExecutionProvider"],
            "input_names": list(self._inputs),
            "output_names": [primary(port) for port in self._compiled.outputs],
            "inference_precision": self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
        }

    def run(self, feeds, outputs):
        """Outputs by name: all, or those named."""
        call = self.prepare(feeds, outputs)
        guarded(call)
        names = [primary(port) for port in self._compiled.outputs] if outputs is None else list(outputs)
        return {name: read(self._request.get_tensor(self._outputs[name])) for name in names}

    def prepare(self, feeds, _outputs):
        """A call without arguments, feeds in place."""
        for name, port in paired(list(feeds), self._inputs).items():
            self._request.set_tensor(port, tensor_of(name, feeds[name], port))
        return self._request.infer

    def close(self):
        """Release the model."""
        del self._request, self._compiled


def paired(names, inputs):
    """The port of every feed: by name, and the rest in order, as an input that goes straight to an output has taken
    the output's name."""
    left = [port for name, port in inputs.items() if name not in names]
    unknown = [name for name in names if name not in inputs]
    if len(unknown) != len(left):
        raise ValueError(f"inputs {names} do not go with those of the model, {list(inputs)}")
    found = {name: inputs[name] for name in names if name in inputs}
    found.update(zip(unknown, left))  # noqa: B905 - `strict` needs Python 3.10
    return found


def primary(port):
    """The name of an output; where OpenVINO has given it several, the first in alphabetical order."""
    return min(port.get_names(), default="")


def by_name(ports):
    """Outputs by every name that they have."""
    return {name: port for port in ports for name in port.get_names()}


def tensor_of(name, value, port):
    """An OpenVINO tensor of a value that the host sent."""
    if hasattr(value, "bits"):
        kind = port.get_element_type().get_type_name()
        if RAW_TYPES.get(kind, ("", 0))[0] != value.dtype:
            raise NotImplementedError(f"input {name!r} of type {value.dtype} cannot be given to OpenVINO ({kind})")
        tensor = openvino.Tensor(port.get_element_type(), openvino.Shape(list(value.bits.shape)))
        tensor.data.view(value.bits.dtype)[...] = value.bits
        return tensor
    if not isinstance(value, np.ndarray):
        raise NotImplementedError(f"input {name!r} is a {type(value).__name__}: OpenVINO takes tensors only")
    if value.dtype.kind in "OUS":
        return openvino.Tensor(np.asarray(value, dtype=np.str_))
    if value.dtype.kind == "c":
        raise NotImplementedError(f"input {name!r} is complex: OpenVINO has no complex tensors")
    return openvino.Tensor(np.ascontiguousarray(value).reshape(value.shape))


class RawTensor:
    """A tensor of a type that NumPy lacks, as the worker sends it."""

    def __init__(self, dtype, bits):
        self.dtype = dtype
        self.bits = bits


def read(tensor):
    """A copy of an output: the request writes to its memory again."""
    kind = tensor.get_element_type().get_type_name()
    if kind == "string":
        return np.array(tensor.str_data, dtype=object)
    if kind in RAW_TYPES:
        name, bits = RAW_TYPES[kind]
        return RawTensor(name, np.array(tensor.data).view(f"uint{bits}"))
    if kind in ("i4", "u4", "nf4", "u1", "u2", "f4e2m1", "f8e8m0"):
        raise NotImplementedError(f"outputs of type {kind} are not read")
    return np.array(tensor.data)
