"""The worker: loads models with one adapter and runs them, on request, until the host goes away.

Started by path with the interpreter that holds the runtime, so it needs Python 3.8 and NumPy 1.19 and imports nothing
of onnx_arch. An adapter is one .py file, loaded by path:

    load(model_path: str, options: dict) -> session         `options` are fields of RuntimeOptions as JSON values, and
                                                            `scratch`, a folder that the host removes in the end
    session.run(feeds: dict, outputs: list | None) -> dict      outputs by name: all, or those named
    session.info() -> dict      "versions", "providers", "input_names", "output_names"; any other keys become `extra`

and, where the runtime can:

    session.prepare(feeds, outputs) -> callable     what `time_runs` times, feeds in place; else `run` is timed
    session.finish_profile() -> list        trace events of the runs so far, if options["profile"]
    session.close()                         release files and devices
    HONOURS = ("optimization", …)           the options that it honours; others are refused before `load` is called
    EXTRA = ("…", …)                        the keys of options["extra"] that it knows; others are refused
    ML_DTYPES = True                        bfloat16, float8, int4, … arrive as ml_dtypes arrays (else as `RawTensor`
                                            with .dtype, a name, and .bits, unsigned integers, one element each)

Values are NumPy arrays; strings are object arrays; a sequence is a list, a map a dict, an empty optional None. What an
adapter raises says what happened: NotImplementedError, the runtime does not support this; ImportError, it or its
provider is not installed; MemoryError, out of memory; anything else, the runtime raised.
"""

from __future__ import annotations

import sys

if sys.path and sys.path[0] == __file__.rpartition("/")[0]:
    del sys.path[0]  # the files beside this one must not shadow a module of the runtime

import importlib.util
import io
import json
import os
import platform
import select
import shutil
import signal
import struct
import threading
import time
import types

try:
    import resource
except ImportError:  # not a Unix system
    resource = None

_BESIDE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or ".") != os.path.realpath(_BESIDE)]

_DEFAULT_HONOURS = ("optimization", "threads", "deterministic", "extra")
_OPTION_DEFAULTS = {
    "provider": "cpu",
    "optimization": "all",
    "threads": None,
    "deterministic": False,
    "disabled_optimizers": [],
    "profile": False,
    "optimized_model_path": None,
    "extra": {},
}
_ORPHAN_CHECK_MS = 1000
_PROGRESS_S = 1.0


class RefusedError(Exception):
    """An option that the adapter cannot honour."""


def load_file(path, name):
    """The module in a .py file, under a name of our own, its folder not on the module path."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class Worker:
    """Answers requests: one frame in, one frame out."""

    def __init__(self, wire, channel):
        self._wire = wire
        self._channel = channel
        self._adapter = types.ModuleType("none loaded yet")
        self._raw_as_ml_dtypes = False
        self._sessions = {}
        self._next_id = 0

    def serve(self):
        """Answer until the host closes the pipe."""
        while True:
            try:
                request = self._channel.receive()
            except EOFError:
                return
            ends = request["op"] == "end"
            reply, encoder = self._answer(request)
            self._send(reply, encoder)
            if ends:
                return

    def _send(self, reply, encoder=None):
        reply["peak"] = peak_memory_bytes()
        self._channel.send(reply, encoder)

    def _answer(self, request):
        encoder = self._wire.Encoder()
        try:
            try:
                feeds = {name: self._channel.value(spec) for name, spec in request.pop("feeds", [])}
            finally:
                self._channel.drain()
            return getattr(self, "_do_" + request.pop("op"))(encoder, feeds, **request), encoder
        except BaseException as error:  # noqa: BLE001 - whatever a runtime raises is an answer, SystemExit too
            return {"error": describe_error(error)}, None

    def make_raw(self, dtype, bits):
        """A tensor of a dtype that NumPy lacks, in the form that the adapter asked for."""
        if not self._raw_as_ml_dtypes:
            return self._wire.RawTensor(dtype, bits)
        import ml_dtypes  # noqa: PLC0415 - only an adapter that asks for it needs it

        return bits.view(getattr(ml_dtypes, dtype))

    def _do_adapter(self, _encoder, _feeds, script, memory_limit_bytes):
        try:
            self._adapter = load_file(script, "_onnx_arch_adapter")
        except ImportError:
            raise
        except Exception as error:  # a runtime may fail to import in any way; it is then not there
            raise ImportError(f"{type(error).__name__}: {error}") from error
        if not callable(getattr(self._adapter, "load", None)):
            raise ImportError("the adapter defines no function load(model_path, options)")
        self._raw_as_ml_dtypes = bool(getattr(self._adapter, "ML_DTYPES", False))
        if memory_limit_bytes is not None:
            limit_memory(memory_limit_bytes)
        return {}

    def _do_load(self, _encoder, _feeds, model, options):
        check_options(self._adapter, options)
        start = time.perf_counter()
        session = self._adapter.load(model, options)
        load_s = time.perf_counter() - start
        self._next_id += 1
        self._sessions[self._next_id] = session
        info = dict(session.info())
        info["load_s"] = load_s
        return {"session": self._next_id, "info": info}

    def _do_run(self, encoder, feeds, session, outputs):
        results = self._sessions[session].run(feeds, outputs)
        return {"outputs": [[name, encoder.describe(value)] for name, value in results.items()]}

    def _do_time(self, _encoder, feeds, session, count):
        loaded = self._sessions[session]
        prepare = getattr(loaded, "prepare", None)
        call = prepare(feeds, None) if prepare is not None else lambda: loaded.run(feeds, None)
        durations = []
        told = time.perf_counter()
        for _ in range(count):
            start = time.perf_counter()
            call()
            end = time.perf_counter()
            durations.append(end - start)
            if end - told > _PROGRESS_S:
                told = end
                self._send({"progress": len(durations)})
        return {"durations": durations}

    def _do_profile(self, _encoder, _feeds, session):
        return {"events": list(self._sessions[session].finish_profile())}

    def _do_unload(self, _encoder, _feeds, session):
        loaded = self._sessions.pop(session, None)
        if hasattr(loaded, "close"):
            loaded.close()
        return {}

    def _do_memory(self, _encoder, _feeds):
        return {}

    def _do_end(self, _encoder, _feeds):
        for session in list(self._sessions):
            self._do_unload(None, None, session)
        return {}


def check_options(adapter, options):
    """Refuse an option that differs from its default and that the adapter does not honour."""
    honours = getattr(adapter, "HONOURS", _DEFAULT_HONOURS)
    for name, default in _OPTION_DEFAULTS.items():
        asked = options.get(name, default)
        if asked == default or name in honours:
            continue
        if name == "provider":
            raise ImportError(f"it has no provider {asked!r}, only 'cpu'")
        raise RefusedError(f"it cannot honour {name}={asked!r}")
    known = getattr(adapter, "EXTRA", None)
    if known is None:
        return
    unknown = sorted(set(options.get("extra", {})) - set(known))
    if unknown:
        names = ", ".join(known) or "none"
        raise RefusedError("it knows no extra option {}; it knows {}".format(", ".join(unknown), names))


def limit_memory(size_bytes):
    """Limit the address space of this process."""
    if resource is None:
        raise RefusedError("memory_limit_bytes needs a Unix system")
    resource.setrlimit(resource.RLIMIT_AS, (size_bytes, size_bytes))


def describe_error(error):
    """What was raised, as {"kind", "message"}; the first line of its message is what a reader sees."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, MemoryError) or is_out_of_memory(text):
        return {"kind": "raised", "message": "out of memory: " + text}
    if isinstance(error, RefusedError):
        return {"kind": "refused", "message": text}
    if isinstance(error, NotImplementedError):
        return {"kind": "unsupported", "message": text}
    if isinstance(error, ImportError):
        return {"kind": "unavailable", "message": text}
    return {"kind": "raised", "message": f"{type(error).__name__}: {text}"}


def is_out_of_memory(text):
    """Whether a message says that memory could not be had, in the words of C++ and of the runtimes known here."""
    words = ("bad_alloc", "bad allocation", "Failed to allocate memory", "out of memory", "CUDA_ERROR_OUT_OF_MEMORY")
    return any(word in text for word in words)


def peak_memory_bytes():
    """Largest resident size of this process; 0 where the system does not say.

    Linux keeps in ru_maxrss what the parent held when it started this process, so /proc is asked first.
    """
    try:
        with open("/proc/self/status") as status:
            return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")), 0)
    except OSError:
        pass
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def end_with_host(fd, parent, scratch):
    """End this process when the host's end of the pipe `fd` is closed, even in the middle of a run."""
    poll = select.poll()
    poll.register(fd, 0)
    while os.getppid() == parent and not poll.poll(_ORPHAN_CHECK_MS):
        pass
    shutil.rmtree(scratch, ignore_errors=True)  # the host cannot do it any more
    os._exit(0)


def forbid_core_dumps():
    """A crash is reported; it need not leave gigabytes in the user's folder."""
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def take_pipes():
    """The host's pipes as private files; from here on, what anyone prints goes to standard error."""
    requests, replies = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, replies


def send_failure(fd, message):
    """Tell the host, without NumPy, why this worker cannot start."""
    text = json.dumps({"error": {"kind": "unavailable", "message": message}}).encode("utf-8")
    os.write(fd, struct.pack("<QQ", len(text), 0) + text)


def main(scratch):
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the host's business
    forbid_core_dumps()
    requests, replies = take_pipes()
    try:
        import numpy  # noqa: PLC0415 - that it is missing is an answer

        wire = load_file(os.path.join(_BESIDE, "_wire.py"), "_onnx_arch_wire")
    except ImportError as error:
        send_failure(replies, str(error))
        return
    channel = wire.Channel(io.FileIO(requests, "rb"), io.FileIO(replies, "wb"))
    worker = Worker(wire, channel)
    channel.make_raw = worker.make_raw
    if hasattr(os, "fork"):
        threading.Thread(target=end_with_host, args=(requests, parent, scratch), daemon=True).start()
    channel.send({"versions": {"python": platform.python_version(), "numpy": numpy.__version__}})
    worker.serve()
    shutil.rmtree(scratch, ignore_errors=True)
    sys.stderr.flush()
    os._exit(0)  # the runtime's own teardown is not under test, and would be waited for


if __name__ == "__main__":
    main(sys.argv[1])
