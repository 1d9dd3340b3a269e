"""Sessions in worker processes: what a runtime does to its process, it does not do to ours.

`open_session` is what most callers want. A `Worker` holds any number of sessions, which saves the half second that
starting a process and importing a runtime takes: check many small models with one worker, and start another when it
has died.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import subprocess
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import ml_dtypes
import numpy as np

from ..errors import (
    CrashedError,
    HungError,
    InvalidArgumentError,
    InvalidInputError,
    OnnxArchError,
    RaisedByRuntimeError,
    RuntimeFailure,
    RuntimeUnavailableError,
    UnsupportedByRuntimeError,
)
from ._launch import Launched, describe_exit, interpreter, launch
from ._wire import Channel, Encoder, TruncatedFrameError
from .registry import find_script
from .session import OPTIMIZATIONS, PROVIDERS, RuntimeOptions, SessionInfo

_FAILURES: dict[str, type[OnnxArchError]] = {
    "unavailable": RuntimeUnavailableError,
    "unsupported": UnsupportedByRuntimeError,
    "refused": InvalidArgumentError,
    "raised": RaisedByRuntimeError,
}
_OF_THE_PROCESS = ("runtime", "python", "memory_limit_bytes")
_CLOSE_LIMIT_S = 5.0
_LONGEST_MESSAGE = 2000
_FOREIGN_PATHS = (
    (re.compile(r"[^\s'\"(]*/(onnxruntime/\S+\.(?:cc|cpp|cu|cuh|h)\b)"), r"\1"),  # where the runtime was compiled
    (re.compile(r"[^\s'\"(]*/(?:site|dist)-packages/"), ""),
)


def open_session(model_path: Path, options: RuntimeOptions | None = None) -> WorkerSession:
    """Load a model in a worker process of its own.

    Args:
        model_path: the .onnx file; the runtime reads it, and external data beside it, from disk.
        options: how it is loaded; None is ONNX Runtime as it comes, on the CPU.

    Returns:
        A session; closing it ends the process.

    Raises:
        UnknownEntryError: no such runtime.
        InvalidArgumentError: an option that does not exist or that the adapter cannot honour.
        RuntimeUnavailableError: no such interpreter, or it lacks NumPy, the runtime or the provider.
        UnsupportedByRuntimeError, RaisedByRuntimeError, CrashedError, HungError: what loading did.
    """
    worker = Worker(options)
    try:
        return worker.load(model_path, owned=True)
    except BaseException:
        worker.close()
        raise


class Worker:
    """A process with one adapter in it, in which models are loaded; it answers one call at a time.

    Args:
        options: `runtime`, `python`, `memory_limit_bytes` and `threads` hold for the process, the rest is what `load`
            takes where it is given nothing else.

    Raises:
        UnknownEntryError, InvalidArgumentError, RuntimeUnavailableError: as of `open_session`.
    """

    def __init__(self, options: RuntimeOptions | None = None) -> None:
        self.options = RuntimeOptions() if options is None else options
        _check(self.options)
        script = find_script(self.options.runtime)
        python = interpreter(self.options.python)
        self._lock = threading.RLock()
        self._failure: RuntimeFailure | None = None
        self._hung_after_s: float | None = None
        self._peak_bytes = 0
        self._process = launch(python, self.options.threads)
        self._end = weakref.finalize(self, self._process.kill)
        self._hide = {f"{self._process.scratch}{os.sep}": "", str(Path.home()): "~"}
        self._channel = Channel(self._process.replies, self._process.requests, _from_bits)
        try:
            self.versions: dict[str, str] = self._start(script)
        except (CrashedError, HungError, RuntimeUnavailableError) as error:
            self.close()
            named = self.options.python or "this interpreter"
            raise RuntimeUnavailableError(f"{self.options.runtime} cannot run in {named}: {error}") from error
        except BaseException:
            self.close()
            raise

    def _start(self, script: Path) -> dict[str, str]:
        hello, _ = self._exchange(None, self.options.time_limit_s)
        limit = self.options.memory_limit_bytes
        self.call({"op": "adapter", "script": str(script), "memory_limit_bytes": limit})
        return hello["versions"]

    @property
    def alive(self) -> bool:
        """Whether it can still answer: False after a crash, a hang or `close`."""
        return self._failure is None and not self._process.ended()

    @property
    def process_id(self) -> int:
        """Its process id."""
        return self._process.popen.pid

    def log(self) -> str:
        """What the runtime has printed, from at most a megabyte back."""
        return self._process.log.text()

    def load(self, model_path: Path, options: RuntimeOptions | None = None, *, owned: bool = False) -> WorkerSession:
        """Load a model beside those that are loaded.

        Args:
            model_path: the .onnx file.
            options: None for those of the worker; what holds for the process must be the same.
            owned: closing the session ends the worker.

        Raises:
            InvalidArgumentError and RuntimeFailure: as of `open_session`. The worker stays usable after all of them
                but CrashedError and HungError.
        """
        options = self.options if options is None else options
        _check(options)
        self._check_same_process(options)
        path = Path(os.path.abspath(model_path))
        self._hide[f"{path.parent}{os.sep}"] = ""
        request = {"op": "load", "model": str(path), "options": self._describe_options(options)}
        reply, _ = self.call(request, options.time_limit_s)
        return WorkerSession(self, reply["session"], self._session_info(dict(reply["info"])), options, owned)

    def _check_same_process(self, options: RuntimeOptions) -> None:
        for name in _OF_THE_PROCESS:
            ours, theirs = getattr(self.options, name), getattr(options, name)
            if ours != theirs:
                raise InvalidArgumentError(f"this worker was started with {name}={ours!r}, not {theirs!r}")

    def _describe_options(self, options: RuntimeOptions) -> dict[str, Any]:
        target = options.optimized_model_path
        described = {
            "provider": options.provider,
            "optimization": options.optimization,
            "threads": options.threads,
            "deterministic": options.deterministic,
            "disabled_optimizers": list(options.disabled_optimizers),
            "profile": options.profile,
            "optimized_model_path": None if target is None else os.path.abspath(target),
            "extra": dict(options.extra),
            "scratch": str(self._process.scratch),
        }
        try:
            return json.loads(json.dumps(described))
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"extra={options.extra!r} is not made of JSON values: {error}") from error

    def _session_info(self, info: dict[str, Any]) -> SessionInfo:
        return SessionInfo(
            versions={**self.versions, **info.pop("versions", {})},
            providers=tuple(info.pop("providers", ())),
            input_names=tuple(info.pop("input_names", ())),
            output_names=tuple(info.pop("output_names", ())),
            load_s=float(info.pop("load_s")),
            extra=info,
        )

    def call(
        self, request: Mapping[str, Any], time_limit_s: float | None = None, feeds: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Send one request of `worker.py` and wait for its answer.

        Returns:
            The answer's header, and the values in it by name.

        Raises:
            InvalidInputError: a feed that is no tensor, sequence, map or None.
            InvalidArgumentError, RuntimeFailure: what the answer says, or that there was none.
        """
        encoder = Encoder()
        described = [[name, _describe(encoder, name, value)] for name, value in (feeds or {}).items()]
        limit_s = self.options.time_limit_s if time_limit_s is None else time_limit_s
        reply, values = self._exchange({**request, "feeds": described}, limit_s, encoder)
        if "error" in reply:
            raise _FAILURES[reply["error"]["kind"]](self._shorten(reply["error"]["message"]))
        return reply, values

    def _exchange(
        self, request: dict[str, Any] | None, limit_s: float, encoder: Encoder | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        with self._lock:
            if self._failure is not None:
                raise type(self._failure)(f"the worker is gone: {self._failure}")
            try:
                if request is not None:
                    with self._watched(limit_s):
                        self._channel.send(request, encoder)
                return self._receive(limit_s)
            except (OSError, TruncatedFrameError):
                self._bury()
            except BaseException:  # Ctrl-C, or no memory for an output: the rest of the frame would be misread
                self._failure = CrashedError("given up in the middle of an answer")
                self._end()
                raise

    def _receive(self, limit_s: float) -> tuple[dict[str, Any], dict[str, Any]]:
        while True:
            with self._watched(limit_s):
                reply = self._channel.receive()
                values = {name: self._channel.value(spec) for name, spec in reply.get("outputs", ())}
            self._peak_bytes = max(self._peak_bytes, reply.pop("peak", 0))
            if "progress" not in reply:
                return reply, values

    @contextlib.contextmanager
    def _watched(self, limit_s: float):  # noqa: ANN202 - a context manager that gives nothing
        """Kill the worker if this takes longer than `limit_s`: whoever reads or writes then finds the pipe closed."""
        if math.isinf(limit_s):
            yield
            return
        watchdog = threading.Timer(min(limit_s, threading.TIMEOUT_MAX), self._give_up, (limit_s,))
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()
        if self._hung_after_s is not None:
            raise TruncatedFrameError("the worker was killed while it answered")

    def _give_up(self, limit_s: float) -> None:
        self._hung_after_s = limit_s
        self._process.signal()

    def _bury(self) -> NoReturn:
        """Say why the worker does not answer any more."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.popen.wait(_CLOSE_LIMIT_S)
        gone = self._process.popen.returncode is not None
        self._end()
        if self._hung_after_s is not None:
            self._failure = HungError(f"no answer within {self._hung_after_s:g} s")
        else:
            how = describe_exit(self._process) if gone else "closed its pipe and did not end"
            self._failure = CrashedError(self._shorten(how))
        raise self._failure

    def _shorten(self, message: str) -> str:
        """The first line of a message, without paths of this machine."""
        line = next((line for line in message.splitlines() if line.strip()), "").strip()
        for path in sorted(self._hide, key=len, reverse=True):
            line = line.replace(path, self._hide[path])
        for pattern, replacement in _FOREIGN_PATHS:
            line = pattern.sub(replacement, line)
        return line if len(line) <= _LONGEST_MESSAGE else line[:_LONGEST_MESSAGE] + " …"

    def peak_memory_bytes(self) -> int:
        """Largest resident size of the process so far; after its death, what was last known."""
        if self.alive:
            self.call({"op": "memory"})
        return self._peak_bytes

    def close(self) -> None:
        """End the process; safe to call twice, and from another thread than the one that waits for an answer."""
        if self._lock.acquire(blocking=False):
            try:
                self._ask_to_end()
            finally:
                self._lock.release()
        self._failure = self._failure or CrashedError("closed")
        self._end()

    def _ask_to_end(self) -> None:
        if not self.alive:
            return
        with (
            contextlib.suppress(OSError, TruncatedFrameError, subprocess.TimeoutExpired),
            self._watched(_CLOSE_LIMIT_S),
        ):
            self._channel.send({"op": "end", "feeds": []})
            self._channel.receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class WorkerSession:
    """A loaded model in a worker; the `Session` of this package.

    Attributes:
        info: what the worker says of itself and the model.
        options: how the model was loaded.
        worker: the process.
    """

    def __init__(self, worker: Worker, number: int, info: SessionInfo, options: RuntimeOptions, owned: bool) -> None:
        self.info = info
        self.options = options
        self.worker = worker
        self._number = number
        self._owned = owned
        self._closed = False

    @property
    def alive(self) -> bool:
        """Whether it can still answer: False after a crash, a hang or `close`."""
        return not self._closed and self.worker.alive

    def _call(
        self, op: str, feeds: Mapping[str, Any] | None = None, **arguments: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        if self._closed:
            raise InvalidArgumentError("this session is closed")
        return self.worker.call({"op": op, "session": self._number, **arguments}, self.options.time_limit_s, feeds)

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Outputs by name: all, or those named.

        Args:
            feeds: arrays by input name; any dtype, layout and rank; a list for a sequence, None for an empty optional.
            outputs: names of model outputs.

        Raises:
            InvalidInputError: a feed that is none of these.
            InvalidArgumentError: no output of that name, or the session is closed.
            CrashedError, HungError, RaisedByRuntimeError, UnsupportedByRuntimeError: what the runtime did.
        """
        known = self.info.output_names
        unknown = [name for name in outputs or () if known and name not in known]
        if unknown:
            raise InvalidArgumentError(f"the model has no output {', '.join(unknown)}, only {', '.join(known)}")
        _, values = self._call("run", feeds, outputs=None if outputs is None else list(outputs))
        return values

    def time_runs(self, feeds: Mapping[str, Any], count: int) -> list[float]:
        """Seconds of each of `count` runs, measured inside the worker around the runtime's own call alone.

        The feeds are put in place once; on a device they and the outputs stay there.
        """
        reply, _ = self._call("time", feeds, count=count)
        return reply["durations"]

    def finish_profile(self) -> list[dict[str, Any]]:
        """End the profile that `RuntimeOptions.profile` asked for, and return its trace events.

        Raises:
            InvalidArgumentError: the session was not opened with `profile`.
        """
        if not self.options.profile:
            raise InvalidArgumentError("the session was not opened with profile=True")
        reply, _ = self._call("profile")
        return reply["events"]

    def log(self) -> str:
        """What the worker has printed, from at most a megabyte back."""
        return self.worker.log()

    def peak_memory_bytes(self) -> int:
        """Largest resident size of the worker so far; after its death, what was last known."""
        return self.worker.peak_memory_bytes()

    def close(self) -> None:
        """Release the model, and end the worker if it was started for this session; safe to call twice."""
        if self._closed:
            return
        if self._owned:
            self.worker.close()
        elif self.worker.alive:
            with contextlib.suppress(RuntimeFailure):  # it died of something else; the next call says so
                self._call("unload")
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check(options: RuntimeOptions) -> None:
    for name, allowed in (("provider", PROVIDERS), ("optimization", OPTIMIZATIONS)):
        if getattr(options, name) not in allowed:
            raise InvalidArgumentError(f"{name}={getattr(options, name)!r}: give one of {', '.join(allowed)}")
    if not options.time_limit_s > 0:
        raise InvalidArgumentError(f"time_limit_s={options.time_limit_s}: give more than 0")
    if options.threads is not None and options.threads < 1:
        raise InvalidArgumentError(f"threads={options.threads}: give 1 or more")
    if options.memory_limit_bytes is not None and options.provider != "cpu":
        raise InvalidArgumentError("memory_limit_bytes limits the address space, which a GPU needs whole: cpu only")


def _describe(encoder: Encoder, name: str, value: Any) -> dict[str, Any]:
    try:
        return encoder.describe(value)
    except TypeError as error:
        raise InvalidInputError(f"input {name!r}: {error}") from error


def _from_bits(dtype: str, bits: np.ndarray) -> np.ndarray:
    return bits.view(np.dtype(getattr(ml_dtypes, dtype)))


__all__ = ["Launched", "Worker", "WorkerSession", "open_session"]
