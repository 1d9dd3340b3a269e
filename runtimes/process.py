"""Sessions in worker processes: what a runtime does to its process, it does not do to ours.

`open_session` is what most callers want. A `Worker` holds any number of sessions, which saves the half second that
starting a process and importing a runtime takes: check many small models with one worker, and start another when it
has died.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import CrashedError, HungError, InvalidArgumentError, RuntimeFailure, RuntimeUnavailableError
from ._connection import Connection
from ._launch import interpreter
from .registry import find_script
from .session import OPTIMIZATIONS, PROVIDERS, RuntimeOptions, SessionInfo

MOST_THREADS = 1024
"""Beyond it systems refuse to start threads, and runtimes answer with whatever comes of that."""

START_LIMIT_S = 60.0
"""What a process may take to import a runtime, however short the limit of its runs: a busy machine takes seconds."""

_OF_THE_PROCESS = ("runtime", "python", "memory_limit_bytes")


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
    except BaseException as error:
        worker.close()
        if isinstance(error, RuntimeFailure):
            error.log = worker.log()
        raise


class Worker:
    """A process with one adapter in it, in which models are loaded; it answers one call at a time.

    Args:
        options: `runtime`, `python`, `memory_limit_bytes` and `threads` hold for the process, the rest is what `load`
            takes where it is given nothing else.

    Attributes:
        options: as given.
        connection: its pipes.
        versions: of Python and NumPy in the process.

    Raises:
        UnknownEntryError, InvalidArgumentError, RuntimeUnavailableError: as of `open_session`.
    """

    def __init__(self, options: RuntimeOptions | None = None) -> None:
        self.options = RuntimeOptions() if options is None else options
        _check(self.options)
        script = find_script(self.options.runtime)
        self.connection = Connection(interpreter(self.options.python), self.options.threads)
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
        limit_s, memory = max(self.options.time_limit_s, START_LIMIT_S), self.options.memory_limit_bytes
        hello = self.connection.greeting(limit_s)
        self.connection.call({"op": "adapter", "script": str(script), "memory_limit_bytes": memory}, limit_s)
        return hello["versions"]

    @property
    def alive(self) -> bool:
        """Whether it can still answer: False after a crash, a hang or `close`."""
        return self.connection.alive

    @property
    def process_id(self) -> int:
        """Its process id."""
        return self.connection.process.popen.pid

    def log(self) -> str:
        """What the runtime has printed, from at most a megabyte back."""
        return self.connection.process.log.text()

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
        self.connection.hide(path.parent)
        request = {"op": "load", "model": str(path), "options": self._describe_options(options)}
        reply, _ = self.connection.call(request, options.time_limit_s)
        info = self._session_info(dict(reply["info"]))
        return WorkerSession(self, reply["session"], info, options, owned=owned)

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
            "scratch": str(self.connection.process.scratch),
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

    def peak_memory_bytes(self) -> int:
        """Largest resident size of the process so far; after its death, what was last known."""
        if self.alive:
            self.connection.call({"op": "memory"}, self.options.time_limit_s)
        return self.connection.peak_bytes

    def close(self) -> None:
        """End the process; safe to call twice, and from another thread than the one that waits for an answer."""
        self.connection.close()

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

    def __init__(self, worker: Worker, number: int, info: SessionInfo, options: RuntimeOptions, *, owned: bool) -> None:
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
        request = {"op": op, "session": self._number, **arguments}
        return self.worker.connection.call(request, self.options.time_limit_s, feeds)

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
    if options.threads is not None and not 1 <= options.threads <= MOST_THREADS:
        raise InvalidArgumentError(f"threads={options.threads}: give 1 to {MOST_THREADS}")
    if options.memory_limit_bytes is not None and options.provider != "cpu":
        raise InvalidArgumentError("memory_limit_bytes limits the address space, which a GPU needs whole: cpu only")
