"""ONNX Runtime, from 1.3 on; see `worker.py` for the contract of an adapter.

`options["extra"]` may hold: `session_config` (entries of SessionOptions.add_session_config_entry), `provider_options`
(of the provider asked for, {"use_tf32": "0"} for instance), `log_severity` (0 verbose … 4 fatal), `log_verbosity`,
and `custom_op_libraries` (paths).
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import tempfile

import numpy as np
import onnxruntime

HONOURS = (
    "provider",
    "optimization",
    "threads",
    "deterministic",
    "disabled_optimizers",
    "profile",
    "optimized_model_path",
    "extra",
)
EXTRA = ("session_config", "provider_options", "log_severity", "log_verbosity", "custom_op_libraries")

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
LEVELS = {"disabled": "DISABLE_ALL", "basic": "ENABLE_BASIC", "extended": "ENABLE_EXTENDED", "all": "ENABLE_ALL"}

NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
}


class RawType:
    """A tensor type that NumPy lacks: its name on the wire, its number in ONNX and the bits of one element."""

    def __init__(self, dtype, number, bits, signed=False):
        self.dtype = dtype
        self.number = number
        self.bits = bits
        self.signed = signed


RAW_TYPES = {
    "tensor(bfloat16)": RawType("bfloat16", 16, 16),
    "tensor(float8e4m3fn)": RawType("float8_e4m3fn", 17, 8),
    "tensor(float8e4m3fnuz)": RawType("float8_e4m3fnuz", 18, 8),
    "tensor(float8e5m2)": RawType("float8_e5m2", 19, 8),
    "tensor(float8e5m2fnuz)": RawType("float8_e5m2fnuz", 20, 8),
    "tensor(uint4)": RawType("uint4", 21, 4),
    "tensor(int4)": RawType("int4", 22, 4, signed=True),
    "tensor(float4e2m1)": RawType("float4_e2m1fn", 23, 4),
    "tensor(float8e8m0)": RawType("float8_e8m0fnu", 24, 8),
    "tensor(uint2)": RawType("uint2", 25, 2),
    "tensor(int2)": RawType("int2", 26, 2, signed=True),
}
RAW_BY_DTYPE = {raw.dtype: raw for raw in RAW_TYPES.values()}

UNSUPPORTED = (
    "NOT_IMPLEMENTED",
    "Could not find an implementation",
    "is not a registered function/op",
    "Unsupported model IR version",
    "Unknown model file format version",
    "only *guarantees* support for models stamped with official released onnx opset versions",
    "is under development and support for this is limited",
    "No Op registered for",
    "is not currently registered or supported",
    "Invalid tensor data type",
    "data type is not supported with",
)
"""What ONNX Runtime says when it does not implement an operator, a type, an IR version or an opset."""

ORT_VALUE = getattr(onnxruntime, "OrtValue", ())
SPARSE_TENSOR = getattr(onnxruntime, "SparseTensor", ())
"""Classes of newer versions; of none where there are none."""

_NATIVE = vars(importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state"))
ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    *(kind for kind in _NATIVE.values() if isinstance(kind, type) and issubclass(kind, Exception)),
)


def load(model_path, options):
    """A session of `model_path` with exactly the provider asked for."""
    wanted = PROVIDERS[options["provider"]]
    if wanted not in onnxruntime.get_available_providers():
        have = ", ".join(onnxruntime.get_available_providers())
        raise ImportError(f"onnxruntime {onnxruntime.__version__} has no {wanted}, only {have}")
    if options["provider"] == "cuda" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA and cuDNN from their Python packages, where they are installed so
    folder = tempfile.mkdtemp(dir=options["scratch"]) if options["profile"] else None
    session = guarded(make_session, model_path, options, wanted, folder)
    if wanted not in session.get_providers():
        raise ImportError(
            "{} was asked for, but onnxruntime {} could not start it and would run on {}".format(
                wanted, onnxruntime.__version__, ", ".join(session.get_providers())
            )
        )
    return OnnxRuntimeSession(session, options["provider"])


def guarded(function, *arguments):
    """Call ONNX Runtime; what it says of a lack of support becomes a NotImplementedError."""
    try:
        return function(*arguments)
    except ERRORS as error:
        if any(words in str(error) for words in UNSUPPORTED):
            raise NotImplementedError(str(error)) from error
        raise


def make_session(model_path, options, provider, profile_folder):
    """The InferenceSession; one whose optimised graph exceeds 2 GB is written with external data."""
    try:
        return start_session(model_path, options, provider, profile_folder, {})
    except ERRORS as error:
        if options["optimized_model_path"] is None or "2GB" not in str(error):
            raise
    weights = os.path.basename(options["optimized_model_path"]) + ".data"
    external = {"session.optimized_model_external_initializers_file_name": weights}
    return start_session(model_path, options, provider, profile_folder, external)


def start_session(model_path, options, provider, profile_folder, config):
    """Make an InferenceSession without any fallback of its own to another provider."""
    provider_options = dict(options["extra"].get("provider_options", {}))
    first = (provider, provider_options) if provider_options else provider  # pairs since 1.7
    providers = [first] if provider == PROVIDERS["cpu"] else [first, PROVIDERS["cpu"]]
    arguments = {"sess_options": session_options(options, profile_folder, config), "providers": providers}
    if options["disabled_optimizers"]:
        arguments["disabled_optimizers"] = list(options["disabled_optimizers"])
    session = onnxruntime.InferenceSession(model_path, **arguments)
    session.disable_fallback()
    return session


def session_options(options, profile_folder, config):
    """SessionOptions; whatever was not asked for stays at the runtime's default."""
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, "ORT_" + LEVELS[options["optimization"]]
    )
    if options["threads"] is not None:
        settings.intra_op_num_threads = int(options["threads"])
    if options["deterministic"]:
        if not hasattr(settings, "use_deterministic_compute"):
            raise NotImplementedError(f"onnxruntime {onnxruntime.__version__} has no deterministic mode")
        settings.use_deterministic_compute = True
    if options["optimized_model_path"] is not None:
        settings.optimized_model_filepath = str(options["optimized_model_path"])
    if profile_folder is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = os.path.join(profile_folder, "profile")
    apply_extra(settings, options["extra"], config)
    return settings


def apply_extra(settings, extra, config):
    """What only ONNX Runtime knows."""
    for key, value in dict(extra.get("session_config", {}), **config).items():
        settings.add_session_config_entry(key, str(value))
    if "log_severity" in extra:
        settings.log_severity_level = int(extra["log_severity"])
    if "log_verbosity" in extra:
        settings.log_verbosity_level = int(extra["log_verbosity"])
    for library in extra.get("custom_op_libraries", ()):
        settings.register_custom_ops_library(library)


class OnnxRuntimeSession:
    """One InferenceSession."""

    def __init__(self, session, provider):
        self._session = session
        self._provider = provider
        self._inputs = {value.name: value.type for value in session.get_inputs()}
        self._outputs = {value.name: value.type for value in session.get_outputs()}

    def info(self):
        """Versions, providers in use, and the declared inputs and outputs."""
        return {
            "versions": {"onnxruntime": onnxruntime.__version__},
            "providers": self._session.get_providers(),
            "input_names": list(self._inputs),
            "output_names": list(self._outputs),
            "inputs": [describe(value) for value in self._session.get_inputs()],
            "outputs": [describe(value) for value in self._session.get_outputs()],
        }

    def run(self, feeds, outputs):
        """Outputs by name."""
        names = list(self._outputs) if outputs is None else list(outputs)
        values = guarded(self._call(feeds, names))
        return {name: read(value) for name, value in zip(names, values)}  # noqa: B905 - `strict` needs Python 3.10

    def prepare(self, feeds, outputs):
        """A call without arguments: feeds in place, on the device where there is one, and outputs left there."""
        names = list(self._outputs) if outputs is None else list(outputs)
        if self._provider != "cpu" and self._is_plain(feeds, names):
            return self._bound_call(feeds, names)
        return self._call(feeds, names)

    def _call(self, feeds, names):
        raw = any(is_raw(value) for value in feeds.values()) or any(self._outputs.get(n) in RAW_TYPES for n in names)
        if not raw and not self._is_plain(feeds, names):
            return lambda: self._session.run(names, feeds)
        if not hasattr(self._session, "run_with_ort_values"):  # before 1.9
            if raw:
                raise NotImplementedError(f"onnxruntime {onnxruntime.__version__} takes NumPy's own types only")
            return lambda: self._session.run(names, feeds)
        values = {name: make_ort_value(name, value, self._inputs.get(name)) for name, value in feeds.items()}
        return lambda: self._session.run_with_ort_values(names, values)

    def _is_plain(self, feeds, names):
        """Whether only tensors of NumPy's numbers go in and out: these pass without a copy."""
        given = all(isinstance(value, np.ndarray) and value.dtype.kind in "biuf" for value in feeds.values())
        declared = all(self._inputs.get(name) in NUMPY_TYPES for name in feeds)
        return given and declared and all(self._outputs.get(name) in NUMPY_TYPES for name in names)

    def _bound_call(self, feeds, names):
        binding = self._session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, self._provider, 0))
        for name in names:
            binding.bind_output(name, self._provider)
        binding.synchronize_inputs()

        def call():
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return call

    def finish_profile(self):
        """The trace events that ONNX Runtime wrote."""
        with open(self._session.end_profiling(), encoding="utf-8") as file:
            return json.load(file)

    def close(self):
        """Release the session."""
        del self._session


def describe(value):
    """A declared input or output: sizes are numbers, symbols or None."""
    return {"name": value.name, "type": value.type, "shape": list(value.shape)}


def is_raw(value):
    """Whether a value is a tensor of a type that NumPy lacks."""
    return hasattr(value, "bits")


def make_ort_value(name, value, declared):
    """An OrtValue on the CPU."""
    if is_raw(value):
        return make_raw_value(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return onnxruntime.OrtValue.ortvalue_from_numpy(value)
    raise NotImplementedError(
        f"the Python API of onnxruntime takes no {declared} (input {name!r}) beside types that NumPy lacks"
    )


def make_raw_value(tensor):
    """An OrtValue of a type that NumPy lacks: ONNX Runtime makes the tensor, its bits are copied in."""
    raw = RAW_BY_DTYPE[tensor.dtype]
    try:
        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(tensor.shape), raw.number)
    except ERRORS as error:
        version = onnxruntime.__version__
        reason = f"the Python API of onnxruntime {version} cannot make a {tensor.dtype} tensor"
        raise NotImplementedError(reason) from error
    stored = pack(tensor.bits, raw.bits) if raw.bits < 8 else tensor.bits
    if stored.size:
        ctypes.memmove(value.data_ptr(), stored.ctypes.data, stored.nbytes)
    return value


def read(value):
    """What the host is sent: an array over ONNX Runtime's own memory where the type allows it."""
    if not isinstance(value, ORT_VALUE):
        if isinstance(value, SPARSE_TENSOR):
            raise NotImplementedError("sparse outputs are not read")
        return value
    kind = value.data_type()
    if value.device_name() != "cpu":
        return value.numpy()
    if kind in NUMPY_TYPES:
        return memory_of(value, np.dtype(NUMPY_TYPES[kind]), tuple(value.shape()))
    if kind in RAW_TYPES:
        return read_raw(value, RAW_TYPES[kind])
    return value.numpy()


def memory_of(value, dtype, shape):
    """The tensor's memory as an array that keeps the tensor alive; no copy."""
    size = int(np.prod(shape, dtype=np.int64))
    if not size:
        return np.empty(shape, dtype)
    memory = (ctypes.c_uint8 * (size * dtype.itemsize)).from_address(value.data_ptr())
    memory.owner = value
    return np.frombuffer(memory, dtype=dtype).reshape(shape)


class RawTensor:
    """A tensor of a type that NumPy lacks, as the worker sends it."""

    def __init__(self, dtype, bits):
        self.dtype = dtype
        self.bits = bits


def read_raw(value, raw):
    """One element per uint8 or uint16, whatever ONNX Runtime packs."""
    shape = tuple(value.shape())
    if raw.bits >= 8:
        return RawTensor(raw.dtype, memory_of(value, np.dtype(f"uint{raw.bits}"), shape))
    size = int(np.prod(shape, dtype=np.int64))
    packed = memory_of(value, np.dtype(np.uint8), (-(-size * raw.bits // 8),))
    return RawTensor(raw.dtype, unpack(packed, raw.bits, size, raw.signed).reshape(shape))


def pack(bits, width):
    """Elements of `width` bits, the first in the lowest bits of a byte."""
    per_byte = 8 // width
    flat = np.zeros(-(-bits.size // per_byte) * per_byte, np.uint8)
    flat[: bits.size] = bits.reshape(-1) & ((1 << width) - 1)
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(width)
    return np.bitwise_or.reduce(flat.reshape(-1, per_byte) << shifts, axis=1).astype(np.uint8)


def unpack(packed, width, size, signed):
    """The reverse of `pack`; a signed element's sign is extended to the byte."""
    shifts = np.arange(8 // width, dtype=np.uint8) * np.uint8(width)
    flat = ((packed[:, None] >> shifts) & np.uint8((1 << width) - 1)).reshape(-1)[:size].astype(np.uint8)
    if signed:
        flat[flat >= 1 << (width - 1)] |= 0xFF & ~((1 << width) - 1)
    return flat
